"""schemathesis: requests that the OpenAPI document allows and forbids, and answers that must be as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

import app
from shared import db
from shared.settings import reset_settings
from shared.web import throttle
from shared.web.application import application
from tests import access
from tests.hostile import test_requests
from tests.hostile.effort import IS_SOAK, hard, keep_at

# Not positive_data_acceptance: that a password is the present one, or a plan on offer, no schema can say.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    allow_header_conformance,
    ignored_auth,
]
SECONDS = 20.0  # in a soak, for each kind of data


@pytest.fixture
def schema(endpoint_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenApiSchema]:
    """Return the document as the app gives it, and answer on a migrated database."""
    monkeypatch.setenv("DATABASE_URL", endpoint_database)
    monkeypatch.setenv("APP_ENV", "test")
    for limit in ("ACCOUNT_FROM_ADDRESS", "ADDRESS", "ACCOUNT"):
        monkeypatch.setattr(throttle, limit, 1_000_000)
    reset_settings()
    target = application(app.endpoints)
    document = access.Browser(access.through_asgi("http://localhost")).get("/api/openapi").body
    schema = schemathesis.openapi.from_dict(document)  # from_asgi would leave out the address that it came from
    schema.app = target
    with access.cheap_hashes():
        yield schema
    db.execute("DELETE FROM users WHERE role = 'user'")
    db.execute("DELETE FROM throttles")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_every_operation_answers_as_the_document_says(schema: OpenApiSchema, mode: GenerationMode) -> None:
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert {operation.path for operation in operations} == {endpoint.path for endpoint in app.endpoints}
    asked: dict[str, set[int]] = {}

    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing of it can be wrong

        @settings(hard, max_examples=200 if IS_SOAK else 12)
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            test_requests.sign_in_again()
            response = case.call(cookies={"session": test_requests.TOKEN})
            asked.setdefault(case.operation.label, set()).add(response.status_code)
            case.validate_response(response, checks=CHECKS)

        keep_at(ask, SECONDS / len(operations))

    assert asked["POST /api/auth/password"] & {400, 415, 422}, "beyond the door"
    if mode is GenerationMode.POSITIVE:
        assert 200 in asked["GET /api/auth/me"]
