"""Endpoints that tests put beside the packaged ones, as a user adds endpoints."""
