"""Endpoints as one app: which file answers, what every response carries, and what one broken file may not break."""

import asyncio
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from shared import db
from shared.web import Endpoint, Problem, Reply
from shared.web.application import EndpointFile, application, endpoints_in
from tests.shared.web.conftest import Serve, Use

ALWAYS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}

Package = Callable[..., list[EndpointFile]]
numbers = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Write endpoint files into a new package and read them: package(notes="source", ...)."""
    name = f"endpoints_{next(numbers)}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def package(**files: str) -> list[EndpointFile]:
        for stem, source in files.items():
            (folder / f"{stem}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return endpoints_in(folder, name)

    yield package
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def answering(text: str, path: str) -> str:
    return f'''
        from shared.web import Endpoint
        endpoint = Endpoint("{path}")

        @endpoint.get
        def read() -> str:
            """Read."""
            return "{text}"
    '''


# -- which file answers -----------------------------------------------------------------------------


def test_an_endpoint_is_one_thin_file(package: Package, serve: Serve) -> None:
    endpoints = package(
        notes='''
            """Notes: make one.

            More about them.
            """

            from dataclasses import dataclass

            from shared.web import Endpoint, Problem, Reply, lambda_handler

            endpoint = Endpoint("/api/notes/{id}")


            @dataclass
            class NewNote:
                title: str


            @endpoint.get
            def read(id: int) -> dict[str, int]:
                if id > 9:
                    raise Problem(404, "No such note.")
                return {"id": id}


            @endpoint.put
            def replace(id: int, body: NewNote) -> Reply:
                return Reply({"id": id, "title": body.title}, status=201)


            handler = lambda_handler(endpoint)
        '''
    )

    assert [(endpoint.path, endpoint.summary) for endpoint in endpoints] == [("/api/notes/{id}", "Notes: make one.")]
    client = serve(*endpoints)
    assert client.get("/api/notes/7").json() == {"id": 7}
    assert client.get("/api/notes/10").json()["detail"] == "No such note."
    assert client.get("/api/notes/x").status_code == 404
    response = client.put("/api/notes/7", json={"title": "x"})
    assert (response.status_code, response.json()) == (201, {"id": 7, "title": "x"})
    assert client.put("/api/notes/7", json={}).status_code == 422
    assert client.delete("/api/notes/7").headers["allow"] == "GET, HEAD, PUT"


def test_a_fixed_path_comes_before_one_with_parameters(package: Package, serve: Serve) -> None:
    endpoints = package(
        a=answering("any", "/api/notes/{id}"),
        b=answering("latest", "/api/notes/latest"),
        c=answering("two", "/api/{kind}/{id}"),
        d=answering("search", "/api/{kind}/search"),
    )

    client = serve(*endpoints)

    assert client.get("/api/notes/latest").json() == "latest"
    assert client.get("/api/notes/1").json() == "any"
    assert client.get("/api/users/search").json() == "search"
    assert client.get("/api/users/1").json() == "two"


def test_a_module_is_imported_at_its_first_request(package: Package, serve: Serve) -> None:
    endpoints = package(one=answering("one", "/api/one"), two=answering("two", "/api/two"))
    client = serve(*endpoints)
    one, two = (endpoint.module for endpoint in endpoints)
    assert not {one, two} & sys.modules.keys()

    assert client.get("/api/nothing").status_code == 404
    assert not {one, two} & sys.modules.keys()

    assert client.get("/api/one").json() == "one"
    assert one in sys.modules
    assert two not in sys.modules


@pytest.mark.parametrize(
    "mistake",
    ["import nothing_of_that_name", "raise SystemError('canary')", "1 / 0", "endpoint = None", "endpoint.get(len)"],
)
def test_a_file_that_cannot_be_imported_fails_alone(package: Package, serve: Serve, mistake: str) -> None:
    endpoints = package(
        broken=f'from shared.web import Endpoint\nendpoint = Endpoint("/api/broken")\n{mistake}\n',
        well=answering("well", "/api/well"),
    )
    client = serve(*endpoints)

    for _ in range(2):
        response = client.get("/api/broken")
        assert response.status_code == 500
        assert response.json()["detail"] == "The request could not be completed."
        assert client.get("/api/well").json() == "well"


def test_a_file_that_was_repaired_answers(package: Package, serve: Serve, tmp_path: Path) -> None:
    (endpoint,) = package(x='from shared.web import Endpoint\nimport missing_one\nendpoint = Endpoint("/api/x")\n')
    client = serve(endpoint)
    assert client.get("/api/x").status_code == 500

    (tmp_path / "missing_one.py").touch()
    sys.path_importer_cache.clear()
    try:
        assert client.get("/api/x").status_code == 405  # it has no function yet
    finally:
        sys.modules.pop("missing_one", None)


@pytest.mark.parametrize(
    "source",
    ["", "x = 1", "endpoint = make()", "path = '/api/x'\nendpoint = Endpoint(path)", "def endpoint(): ..."],
)
def test_a_file_without_a_path_is_named(package: Package, source: str) -> None:
    with pytest.raises(TypeError, match=r'odd\.py has no line `endpoint = Endpoint\("/api/'):
        package(odd=source)


def test_a_file_that_is_no_python_is_named(package: Package) -> None:
    with pytest.raises(SyntaxError) as caught:
        package(odd="def (")

    assert str(caught.value.filename).endswith("odd.py")


def test_two_files_may_not_answer_at_one_path(package: Package) -> None:
    with pytest.raises(TypeError, match=r"one and \S+\.two both answer at /api/x"):
        package(one=answering("one", "/api/x"), two=answering("two", "/api/x"), other=answering("other", "/api/y"))


def test_a_helper_is_no_endpoint(package: Package) -> None:
    endpoints = package(_helper="LIMIT = 3", x=answering("x", "/api/x"))

    assert [endpoint.path for endpoint in endpoints] == ["/api/x"]


# -- what every response carries --------------------------------------------------------------------


def everything() -> Endpoint:
    endpoint = Endpoint("/api/x/{id}")

    @endpoint.get
    def read(id: str) -> object:
        match id:
            case "problem":
                raise Problem(418, "Short and stout.")
            case "broken":
                raise RuntimeError("canary")
            case "empty":
                return None
            case "cached":
                return Reply("x", headers={"Cache-Control": "max-age=60"})
        return id

    return endpoint


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/x/fine", 200),
        ("HEAD", "/api/x/fine", 200),
        ("GET", "/api/x/empty", 204),
        ("GET", "/api/x/problem", 418),
        ("GET", "/api/x/broken", 500),
        ("DELETE", "/api/x/fine", 405),
        ("OPTIONS", "/api/x/fine", 405),
        ("GET", "/api/nothing", 404),
        ("HEAD", "/api/nothing", 404),
        ("GET", "/", 404),
        ("POST", "/", 404),
        ("GET", "/api/x/fine/", 404),
        ("GET", "/api/x/", 404),
    ],
)
@pytest.mark.parametrize("environment", ["test", "production"])
def test_every_response_has_the_headers(
    serve: Serve, use: Use, method: str, path: str, status: int, environment: str
) -> None:
    use(APP_ENV=environment, VERCEL_GIT_COMMIT_SHA="abc123")

    response = serve(everything()).request(method, path, follow_redirects=False)

    assert response.status_code == status
    assert {name: response.headers[name] for name in ALWAYS} == ALWAYS
    assert response.headers["x-deployed-commit"] == "abc123"
    assert ("strict-transport-security" in response.headers) is (environment == "production")
    assert not [name for name in response.headers if name.startswith("access-control")]
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
    if method == "HEAD":
        assert response.content == b""
    elif status >= 400:
        assert response.json()["status"] == status


@pytest.mark.parametrize(
    ("environment", "strict"), [("development", False), ("test", False), ("preview", True), ("production", True)]
)
def test_browsers_are_told_to_insist_on_tls_in_production(
    serve: Serve, use: Use, environment: str, strict: bool
) -> None:
    use(APP_ENV=environment)

    headers = serve(everything()).get("/api/x/fine").headers

    assert headers.get("strict-transport-security") == ("max-age=63072000" if strict else None)
    assert "x-deployed-commit" not in headers


def test_an_endpoint_may_set_a_header_itself(serve: Serve) -> None:
    assert serve(everything()).get("/api/x/cached").headers.get_list("cache-control") == ["max-age=60"]


def test_a_wrong_environment_still_answers(serve: Serve, use: Use) -> None:
    use(APP_ENV="nonsense")

    response = serve(everything()).get("/api/x/fine")

    assert response.json() == "fine"
    assert {name: response.headers[name] for name in ALWAYS} == ALWAYS


def test_head_is_get_without_the_body(serve: Serve) -> None:
    client = serve(everything())

    got, head = client.get("/api/x/fine"), client.head("/api/x/fine")

    assert head.content == b""
    assert head.headers == got.headers
    assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize("path", ["/api/x/fine", "/api/x/problem", "/api/nothing"])
def test_no_body_leaves_for_head(path: str) -> None:
    sent: list[Message] = []

    async def ask() -> None:
        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "HEAD", "path": path, "headers": [], "query_string": b""}
        await application([everything()])(scope, receive, send)

    asyncio.run(ask())

    assert sent[0]["type"] == "http.response.start"
    assert [message.get("body", b"") for message in sent[1:]] == [b""] * (len(sent) - 1)


def test_what_is_not_answered_is_told_with_what_is(serve: Serve) -> None:
    endpoint = Endpoint("/api/x")
    endpoint.post(lambda: "posted")
    endpoint.delete(lambda: "deleted")
    client = serve(endpoint)

    for method in ("GET", "HEAD", "PUT", "OPTIONS", "TRACE", "PROPFIND"):
        response = client.request(method, "/api/x")
        assert response.status_code == 405
        assert response.headers["allow"] == "DELETE, POST"
    assert response.json()["title"] == "Method Not Allowed"


def test_a_path_that_is_unknown_is_a_problem(serve: Serve) -> None:
    assert serve(everything()).get("/api/canary?x=1").json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is nothing at this address.",
    }


# -- CORS -------------------------------------------------------------------------------------------

APP = "https://app.example.com"
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}


def test_browsers_of_other_origins_are_refused_by_default(serve: Serve) -> None:
    client = serve(everything())

    assert "access-control-allow-origin" not in client.get("/api/x/fine", headers={"Origin": APP}).headers
    preflight = client.options("/api/x/fine", headers=PREFLIGHT)
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


def test_named_origins_may_call(serve: Serve, use: Use) -> None:
    use(CORS_ALLOW_ORIGINS=f"{APP}, https://other.example.com")
    client = serve(everything())

    for path in ("/api/x/fine", "/api/x/problem", "/api/x/broken", "/api/nothing"):
        headers = client.get(path, headers={"Origin": APP}).headers
        assert headers["access-control-allow-origin"] == APP
        assert headers["access-control-allow-credentials"] == "true"
        assert "Origin" in headers["vary"]
        assert headers["cache-control"] == "no-store"
    stranger = client.get("/api/x/fine", headers={"Origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in stranger.headers

    preflight = client.options("/api/x/fine", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == APP
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower()
    assert preflight.headers["cache-control"] == "no-store"
    refused = client.options("/api/x/fine", headers={**PREFLIGHT, "Origin": "https://evil.example.com"})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_every_origin_may_call_without_credentials(serve: Serve, use: Use) -> None:
    use(CORS_ALLOW_ORIGINS="*")

    headers = serve(everything()).get("/api/x/fine", headers={"Origin": APP}).headers

    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers


# -- life -------------------------------------------------------------------------------------------


def test_nothing_is_read_or_opened_before_the_first_request(use: Use) -> None:
    use(APP_ENV="nonsense", DATABASE_URL="nonsense")

    with TestClient(application([everything()])):
        pass


def test_shutdown_closes_the_pool(use: Use, database: str) -> None:
    use(DATABASE_URL=database)
    endpoint = Endpoint("/api/x")
    endpoint.get(lambda: db.fetch_value("SELECT 1"))

    with TestClient(application([endpoint])) as client:
        assert client.get("/api/x").json() == 1
        pool = db.get_pool()
        assert pool.statistics()["idle"] == 1

    assert pool.statistics()["idle"] == 0
    assert db.get_pool() is not pool


def test_one_app_serves_two_event_loops(use: Use, database: str) -> None:
    use(DATABASE_URL=database)
    endpoint = Endpoint("/api/x")
    endpoint.get(lambda: db.fetch_value("SELECT 1"))
    app = application([endpoint])

    for _ in range(2):  # without its lifespan, each request of this client has a loop of its own
        assert TestClient(app).get("/api/x").json() == 1
    assert db.get_pool().statistics()["idle"] == 1
