"""Logs that machines read, logs that people read, and no password in either."""

import io
import json
import logging
import re
import sys
import uuid
from urllib.parse import quote

import pytest

from shared import log
from shared.settings import get_settings, reset_settings

HARD = "p%@/:?#&+ é\"\\'"


@pytest.fixture
def written() -> io.StringIO:
    """Return what the root logger's handler writes once `use` was called."""
    return io.StringIO()


def use(monkeypatch: pytest.MonkeyPatch, written: io.StringIO, **environ: str) -> None:
    """Set up logs in an environment where Lambda or Vercel has given the root logger a handler before us."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(written)])
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    reset_settings()
    log.configure()


def test_machines_get_one_json_object_a_line(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, written, APP_ENV="production")

    number = uuid.uuid4()
    logging.getLogger("shared.test").warning("two\nlines of %s", "text", extra={"sqlstate": "57014", "request": number})

    (line,) = written.getvalue().splitlines()
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry == {
        "level": "warning",
        "logger": "shared.test",
        "message": "two\nlines of text",
        "sqlstate": "57014",
        "request": str(number),
    }


def test_machines_get_the_traceback_in_the_same_line(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, written, APP_ENV="production")

    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("shared.test").exception("it failed")

    (line,) = written.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["level"] == "error"
    assert entry["traceback"].endswith("RuntimeError: boom")
    assert "test_log.py" in entry["traceback"]


@pytest.mark.parametrize("environment", ["development", "test"])
def test_people_get_plain_lines(written: io.StringIO, monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    use(monkeypatch, written, APP_ENV=environment)

    logging.getLogger("shared.test").warning("of %s", "text")

    assert written.getvalue() == "WARNING shared.test: of text\n"


def test_a_wrong_environment_is_logged_for_machines(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, written, APP_ENV="nonsense")

    logging.getLogger("shared.test").warning("text")

    assert json.loads(written.getvalue())["message"] == "text"


def test_a_handler_is_made_where_there_is_none(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("APP_ENV", "production")

    log.configure()
    log.configure()
    logging.getLogger("shared.test").info("text")

    root.setLevel(level)
    assert len(root.handlers) == 1
    assert json.loads(written.getvalue())["message"] == "text"


@pytest.mark.parametrize("environment", ["production", "development"])
def test_the_password_is_starred_however_it_is_written(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    use(
        monkeypatch,
        written,
        APP_ENV=environment,
        DATABASE_URL=f"postgresql://u:{quote(HARD, safe='')}@db.example.com/app",
    )
    assert get_settings().database_url.password == HARD

    logger = logging.getLogger("shared.test")
    for shown in (HARD, repr(HARD), quote(HARD, safe=""), repr(HARD.encode())):
        logger.warning("as an argument: %s.", shown, extra={"detail": shown})
    try:
        raise RuntimeError(f"in a traceback: {HARD}")
    except RuntimeError:
        logger.exception("it failed")

    text = written.getvalue()
    assert text.count("********") >= 5
    # No piece of it is there, in whichever notation.
    for piece in ("p%@", "p%25%40", "?#&+", "\\xc3\\xa9", "é"):
        assert piece not in text
    if environment == "production":
        assert all(json.loads(line) for line in text.splitlines())


def test_a_text_without_a_password_is_left_alone(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, written, APP_ENV="development", DATABASE_URL="postgresql://u@localhost/app")

    logging.getLogger("shared.test").warning("text")

    assert written.getvalue() == "WARNING shared.test: text\n"


class SendsTheBareMessage(logging.Handler):
    """Vercel's own handler: it sends a record's level and message, and asks no formatter."""

    __module__ = "vercel_runtime.vc_init"

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert not record.exc_info, "it would add the traceback itself, in lines of its own and unmasked"
        self.sent.append((record.levelname, record.getMessage()))


def test_a_handler_that_formats_nothing_gets_what_is_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = SendsTheBareMessage()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{quote(HARD, safe='')}@db.example.com/x")
    reset_settings()
    log.configure()
    log.configure()  # as it is called by whoever comes first

    try:
        raise RuntimeError(f"refused: {HARD}")
    except RuntimeError:
        logging.getLogger("shared.test").exception("100 %% of %s", "it", extra={"code": "x"})

    ((level, message),) = handler.sent
    entry = json.loads(message)
    assert (level, entry["level"], entry["message"], entry["code"]) == ("ERROR", "error", "100 % of it", "x")
    assert "RuntimeError: refused: ********" in entry["traceback"]
