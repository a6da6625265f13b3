"""Hostile input: a little of it in every run, two minutes of it in `make soak`.

`make soak` is `pytest tests/hostile --hypothesis-profile=soak`: other input each time, and each test goes on until its
share of the time is over.
"""

from hypothesis import settings

settings.register_profile("soak", database=None, deadline=None, max_examples=200, print_blob=True)
