"""Endpoints that are added to the project before it is built, as its users add theirs."""
