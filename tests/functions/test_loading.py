"""What requests load: argon2 where a password is hashed, msgspec where a body is decoded, and nowhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
import app
method, path, headers, body = json.loads(sys.argv[1])
event = {"version": "2.0", "rawPath": path, "rawQueryString": "", "headers": headers, "isBase64Encoded": False,
         "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.1", "protocol": "HTTP/1.1"}}}
if body is not None:
    event["body"] = body
class Context:
    def get_remaining_time_in_millis(self): return 20000
status = app.handler(event, Context())["statusCode"]
print(json.dumps([status, sorted({"argon2", "msgspec", "sqlalchemy"} & set(sys.modules))]))
"""


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "loaded"),
    [
        ("GET", "/api/plans", None, 200, []),
        ("GET", "/api/auth/me", None, 401, []),
        ("POST", "/api/auth/logout", None, 204, []),
        ("GET", "/api/subscription", None, 401, []),
        ("POST", "/api/subscription", "{}", 401, []),
        ("POST", "/api/auth/login", "{}", 422, ["msgspec"]),
        ("POST", "/api/auth/login", '{"email": "a@b", "password": "x"}', 401, ["argon2", "msgspec"]),
        ("GET", "/api/openapi", None, 200, ["msgspec"]),
    ],
)
def test_a_request_loads_what_it_needs(
    migrated_database: str, method: str, path: str, body: str | None, status: int, loaded: list[str]
) -> None:
    headers = {"content-type": "application/json"} if body is not None else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([method, path, headers, body])],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": migrated_database, "APP_ENV": "test"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [status, loaded]
