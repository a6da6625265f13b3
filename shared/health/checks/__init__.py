"""The checks, one topic a file; shared/health/topics.py has them all."""
