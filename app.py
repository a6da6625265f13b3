"""All endpoints as one ASGI app: what Vercel, the development server, containers and the tests run."""

from pathlib import Path

from shared.imports import without_collection

with without_collection():
    from shared.web.application import application, endpoints_in
    from shared.web.aws_lambda import lambda_handler

endpoints = endpoints_in(Path(__file__).parent / "functions", "functions")
app = application(endpoints)
handler = lambda_handler(*endpoints)  # one Lambda function for all of them, instead of one each
