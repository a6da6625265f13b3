"""GET /: who is let in, what the cookie is worth, the headers, what is escaped, and that nothing stops the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser

import psycopg
import pytest
from psycopg import sql
from starlette.testclient import TestClient

import app
from shared.health.result import Result
from shared.page import charts, history, sections, words
from shared.page.checks import iter_children
from shared.page.document import POLICY
from shared.page.script import SCRIPT
from shared.page.style import STYLE
from shared.settings import reset_settings
from shared.web import operator_session, tries
from shared.web.application import application
from shared.web.html import e, verbatim
from tests.access import Context, event
from tests.servers.process import free_port

TOKEN = "an operator's token of good length"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Return a browser on the app, which knows the token; nobody answers as the database until a test says so."""
    use(monkeypatch, APP_ENV="test", OPERATOR_TOKEN=TOKEN, DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/db")
    monkeypatch.setattr(tries, "_tries", {})
    with TestClient(application(app.endpoints)) as client:
        yield client


def use(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reset_settings()


def sign_in(client: TestClient, token: str = TOKEN) -> int:
    return client.post("/", json={"token": token}).status_code


def is_signed_in(client: TestClient) -> bool:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return 'id="sign-out"' in answer.text


# -- who is let in ----------------------------------------------------------------------------------


def test_the_token_lets_in_and_signing_out_ends_it(client: TestClient) -> None:
    assert not is_signed_in(client)
    assert 'id="sign-in"' in client.get("/").text
    assert sign_in(client, f"  {TOKEN}\n") == 204, "as it was pasted"
    assert is_signed_in(client)
    assert client.delete("/").status_code == 204
    assert not is_signed_in(client)
    assert client.delete("/").status_code == 204


@pytest.mark.parametrize("token", ["", "None", TOKEN[:-1], f"{TOKEN}x", "ü"])
def test_another_token_does_not(client: TestClient, token: str) -> None:
    assert sign_in(client, token) == 401
    assert not is_signed_in(client)


def test_without_a_token_nobody_is_let_in(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(client)
    monkeypatch.delenv("OPERATOR_TOKEN")
    reset_settings()
    assert not is_signed_in(client)
    assert "OPERATOR_TOKEN</code> is not set" in client.get("/").text
    assert {sign_in(client, token) for token in ("", "None", TOKEN)} == {401}
    assert not is_signed_in(client)


def test_another_token_signs_everybody_out(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(client)
    use(monkeypatch, OPERATOR_TOKEN=f"{TOKEN}, changed")
    assert not is_signed_in(client)


def test_the_cookie_ends_after_twelve_hours(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.post("/", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert "Max-Age=43200" in cookie
    end = int(cookie.partition("=")[2].partition(".")[0])
    client.headers["cookie"] = cookie.partition(";")[0]  # whatever the browser thinks of its age
    for now, is_valid in (
        (end - 43_200, True),
        (end - 1, True),
        (end, False),
        (end + 9e8, False),
        (end - 50_000, False),
    ):
        monkeypatch.setattr("time.time", lambda now=now: now)
        assert is_signed_in(client) is is_valid, now - end


def test_a_cookie_cannot_be_forged(client: TestClient) -> None:
    end = int(time.time()) + 1000
    good = operator_session._signature(TOKEN, end)
    client.headers["cookie"] = f"operator={end}.{good}"
    assert is_signed_in(client)
    others = [
        f"{end + 1}.{good}",
        f"{end}.{operator_session._signature('', end)}",
        f"{end}.{operator_session._signature('None', end)}",
        f"{end}.{good[:-1]}",
        f"{end}.{good}=",
        f"{end}.",
        f"{end}.{'A' * 43}",
        f"0{end}.{good}",
        f"{end}.{hashlib.sha256(TOKEN.encode()).hexdigest()[:43]}",
        "",
        ".",
        TOKEN,
    ]
    for value in others:
        client.headers["cookie"] = f"operator={value}"
        assert not is_signed_in(client), value


@pytest.mark.parametrize(
    ("base_url", "environment", "start", "secure"),
    [
        ("http://localhost:3000", "development", "operator=", False),
        ("https://app.example.com", "development", "__Host-operator=", True),
        ("http://app.example.com", "production", "__Host-operator=", True),
    ],
)
def test_the_cookie_is_for_this_page_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, base_url: str, environment: str, start: str, secure: bool
) -> None:
    use(monkeypatch, APP_ENV=environment, DATABASE_URL="postgresql://u:p@db.example.com/db")
    cookies = [
        client.request(method, base_url, **body).headers["set-cookie"]  # type: ignore[arg-type]
        for method, body in (("POST", {"json": {"token": TOKEN}}), ("DELETE", {}))
    ]
    for cookie in cookies:
        assert cookie.startswith(start)
        assert ("Secure" in cookie.split("; ")) is secure
        assert {"Path=/", "HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        assert TOKEN not in cookie
    assert "Max-Age=0" in cookies[1]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 204),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example.com"}, 403),
        ({"origin": "https://evil.example.com"}, 403),
    ],
)
def test_only_its_own_page_may_sign_in_and_out(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.post("/", json={"token": TOKEN}, headers=headers).status_code == status
    assert client.delete("/", headers=headers).status_code == status


def test_guessing_is_stopped_for_a_while(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = time.time()
    monkeypatch.setattr("time.time", lambda: begin)
    assert [sign_in(client, "wrong") for _ in range(tries.MOST)] == [401] * tries.MOST
    answer = client.post("/", json={"token": TOKEN})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "900")
    monkeypatch.setattr("time.time", lambda: begin + 900)
    assert sign_in(client) == 204
    assert tries._tries == {}, "who knows it is not counted"


def test_what_is_remembered_of_guesses_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "NETWORKS", 3)
    monkeypatch.setenv("VERCEL", "1")
    for number in range(10):
        client.post("/", json={"token": "wrong"}, headers={"x-vercel-forwarded-for": f"192.0.2.{number}"})
    assert sorted(tries._tries) == ["192.0.2.7", "192.0.2.8", "192.0.2.9"]


def test_it_works_on_lambda(client: TestClient) -> None:
    """There cookies are apart from the headers, and bodies in base64."""
    body = json.dumps({"token": TOKEN}).encode()
    answer = app.handler(event("POST", "/", {"content-type": "application/json"}, body, "192.0.2.7"), Context())
    assert answer["statusCode"] == 204
    (cookie,) = answer["cookies"]
    assert cookie.startswith("__Host-operator=")
    answer = app.handler(event("GET", "/", {"cookie": cookie.partition(";")[0]}, None, "192.0.2.7"), Context())
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert 'id="sign-out"' in answer["body"]


# -- the answer -------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """What a browser would make of a page: elements, attributes, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("signed_in", [False, True])
def test_it_may_run_its_own_script_and_nothing_else(client: TestClient, signed_in: bool) -> None:
    if signed_in:
        sign_in(client)
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy == POLICY
    assert "unsafe" not in policy
    for name in ("style", "script"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    seen = Reader(answer.text)
    names = {name for name, _ in seen.attributes}
    assert not [name for name in names if name == "style" or name.startswith("on")]
    links = [value for name, value in seen.attributes if name in ("href", "src", "action")]
    assert all(value and value.startswith(("#", "data:image/svg+xml,")) for value in links)
    assert answer.headers["cache-control"] == "no-store"


def test_ids_are_there_once(client: TestClient) -> None:
    sign_in(client)
    ids = [value for name, value in Reader(client.get("/").text).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_part_that_is_fetched_anew_says_when_nobody_is_signed_in(client: TestClient) -> None:
    answer = client.get("/?content=1")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Cookie")
    sign_in(client)
    answer = client.get("/?content=1")
    assert answer.status_code == 200
    assert answer.text.startswith('<div id="page"')
    assert "<script>" not in answer.text


def test_who_comes_from_elsewhere_may_be_signed_in_all_the_same(client: TestClient) -> None:
    """The browser keeps a SameSite=Strict cookie back there, so the page asks once more by itself."""
    assert "data-look" in client.get("/", headers={"sec-fetch-site": "cross-site"}).text
    assert "data-look" not in client.get("/", headers={"sec-fetch-site": "none"}).text


def test_a_database_that_is_down_is_said_with_its_diagnosis(client: TestClient) -> None:
    sign_in(client)
    text = client.get("/").text
    assert "The database cannot be reached" in text
    assert "connection_refused" in text
    assert "u:p@" not in text


def test_a_wrong_configuration_is_said_without_its_value(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, REQUEST_TIMEOUT="s3cret")
    answer = client.get("/")
    assert answer.status_code == 500
    assert "The configuration is wrong" in answer.text
    assert "s3cret" not in answer.text


def test_a_missing_connection_string_is_explained_to_the_operator(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, APP_ENV="production", DATABASE_URL="")
    client.base_url = "https://app.example.com"
    sign_in(client)
    text = client.get("/").text
    assert "The configuration is wrong" in text
    assert "DATABASE_URL is not set" in text


# -- what it shows ----------------------------------------------------------------------------------


def test_it_shows_the_checks_the_migrations_and_that_there_is_no_sample(
    client: TestClient, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DATABASE_URL=migrated_database)
    sign_in(client)
    text = client.get("/").text
    assert 'id="check-connections"' in text
    assert "20261122000000_create_health_samples.sql" in text
    assert "No sample yet" in text


def test_it_does_without_its_tables(client: TestClient, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, DATABASE_URL=database)
    sign_in(client)
    text = client.get("/").text
    assert "There is no table health_samples" in text
    assert "The ledger of applied migrations cannot be read" in text
    assert "No migration was ever applied" in text


def test_names_out_of_the_database_are_text(client: TestClient, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "<script>alert('&amp;')</script>"
    with psycopg.connect(database, autocommit=True, application_name="<img src=x onerror=alert(1)>") as connection:
        for statement in ("CREATE TABLE {} (id int)", "CREATE INDEX ON {} (id)", "CREATE INDEX ON {} (id)"):
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        use(monkeypatch, DATABASE_URL=database)
        sign_in(client)
        seen = Reader(client.get("/").text)
    assert seen.tags.count("script") == 1, "ours"
    assert "img" not in seen.tags
    assert f'public."{name}"' in seen.words
    assert "<img src=x onerror=alert(1)>" in seen.words


def test_samples_become_points_and_a_gap_stays_one(
    client: TestClient, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO health_samples (taken_at, status, numbers)
            SELECT now() - make_interval(mins => n), CASE n WHEN 200 THEN 'fail' ELSE 'ok' END,
                CASE WHEN n % 2 = 0 THEN '{"connections": "none"}' ELSE jsonb_build_object('connections', n % 101) END
            FROM generate_series(1, 1400) AS n WHERE n NOT BETWEEN 600 AND 700
            """
        )
    use(monkeypatch, DATABASE_URL=migrated_database)
    monkeypatch.setattr(history, "_latest", None)
    day, month = history.latest_history().spans
    assert 60 <= len(day.points) <= 72
    assert len(month.points) <= 4
    assert [point.status for point in day.points].count("fail") == 1
    assert max(point.connections or 0 for point in day.points) == 100
    assert all(point.pool is None for point in day.points)
    plot = charts.line(day, "x", "Connections", lambda point: point.connections, charts.percent_scale, str).text
    assert plot.count('class="line"') == 2, "one on each side of the gap"
    assert "No sample has it" in charts.line(day, "x", "Pool", lambda p: p.pool, charts.percent_scale, str).text


def test_the_samples_last_seen_are_shown_while_the_database_is_down(
    client: TestClient, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DATABASE_URL=migrated_database)
    seen = history.latest_history()
    assert seen.spans
    assert history.latest_history(may_ask=False) is seen
    with psycopg.connect(migrated_database) as connection:
        connection.execute("DROP TABLE health_samples")
    monkeypatch.setattr(history, "MAX_AGE", 0.0)
    assert history.latest_history() is seen
    monkeypatch.setattr(history, "_latest", None)
    assert history.latest_history() == history.History(trouble="42P01")


# -- the parts --------------------------------------------------------------------------------------


def test_elements_escape_what_is_put_into_them() -> None:
    made = e("a", "<b>", None, ["&", e("i", 1)], href='"><script>', hidden=True, title=None, aria_label="x", class_="y")
    assert made.text == (
        '<a href="&quot;&gt;&lt;script&gt;" hidden aria-label="x" class="y">&lt;b&gt;&amp;<i>1</i></a>'
    )
    assert e("br").text == "<br>"
    with pytest.raises(ValueError, match="would end"):
        verbatim("script", "'</script>'")


def test_style_and_script_ask_for_nothing_from_elsewhere() -> None:
    assert not re.search(r"https?://|@import|url\(", STYLE + SCRIPT)


def test_a_tree_is_read_from_depths() -> None:
    rows = [{"pid": pid, "depth": depth} for pid, depth in ((1, 0), (2, 1), (3, 2), (4, 1), (5, 0))]
    assert [(row["pid"], len(below)) for row, below in iter_children(rows, 0)] == [(1, 3), (5, 0)]
    assert [(row["pid"], len(below)) for row, below in iter_children(rows[1:4], 1)] == [(2, 1), (4, 0)]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1, "indexes", "1 index"), (1, "tables", "1 table"), (0, "tables", "0 tables"), (1, "ms", "1 ms"),
     (2048, "bytes", "2.0 kB"), (90.0, "s", "1.5 min"), (99.53, "%", "99.5 %"), (100.0, "%", "100 %"),
     (1234567, None, "1,234,567"), ("equal", None, "equal")],
)  # fmt: skip
def test_values_are_written_with_their_unit(value: float | str, unit: str | None, text: str) -> None:
    assert words.with_unit(value, unit) == text


def test_the_headline_says_how_it_is() -> None:
    from shared.health.report import Report

    def said(*verdicts: str) -> str:
        results = tuple(Result("t", f"n{n}", "T", verdict, "S") for n, verdict in enumerate(verdicts))  # type: ignore[arg-type]
        return sections.headline(Report("2026-11-22T00:00:00Z", results))

    assert said("ok", "unknown") == "All is well"
    assert said("ok", "warn") == "One thing is worth a look"
    assert said("fail", "warn", "fail") == "2 things are failing"
    assert said("unknown") == "Nothing could be looked at"


def test_times_are_utc_until_the_script_knows_better() -> None:
    made = words.times(datetime(2026, 11, 22, 9, 5, tzinfo=UTC), "clock").text
    assert made == '<time datetime="2026-11-22T09:05:00Z" data-as="clock">09:05</time>'
