"""The operator's page: one HTML document without any request to elsewhere; functions/page.py answers with it."""
