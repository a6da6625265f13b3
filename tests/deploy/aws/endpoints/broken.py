"""Import what the zip does not have."""

import a_package_that_nobody_requires  # type: ignore[import-not-found]  # noqa: F401

from shared.web import Endpoint, lambda_handler

endpoint = Endpoint("/api/broken")
handler = lambda_handler(endpoint)
