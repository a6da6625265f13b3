"""Logs as one JSON object a line, where machines read them; plain lines in development.

Modules log through the standard library: `log = logging.getLogger(__name__)`, details in `extra`.
"""

import json
import logging
from functools import lru_cache
from urllib.parse import quote

from shared import settings
from shared.clock import timestamp
from shared.errors import ConfigurationError
from shared.request_log import request_id

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode  # json.dumps would make one for each line
_PLAIN = "%(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, message, what `extra` gave, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        details = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        entry = {
            "time": timestamp(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **({"request_id": identity} if (identity := request_id()) else {}),
            **details,
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return masked(_encode(entry))


class PlainFormatter(logging.Formatter):
    """A line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        lines = [super().format(record)]
        if cause := getattr(record, "cause", None):  # of a diagnosis
            lines += [f"  {cause}", *(f"  - {solution}" for solution in getattr(record, "solutions", ()))]
        return masked("\n".join(lines))


class _Formatting(logging.Handler):
    """Format for a handler that sends on the bare message, whatever formatter it is given."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler.level)
        self._handler = handler

    def emit(self, record: logging.LogRecord) -> None:
        written = {"msg": self.format(record), "args": None, "exc_info": None, "exc_text": None, "stack_info": None}
        self._handler.handle(logging.makeLogRecord({**record.__dict__, **written}))


def configure() -> None:
    """Format what the root logger writes; where it has no handler yet, give it one to standard error."""
    root = logging.getLogger()
    # What no line of ours shows costs nothing then (Python's logging HOWTO, Optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
        root.setLevel(logging.INFO)
    try:
        plain = settings.get_settings().environment in ("development", "test")
    except ConfigurationError:
        plain = False
    # Vercel's runtime has a handler of its own, which tells the platform level and request but formats nothing.
    root.handlers = [
        _Formatting(handler) if type(handler).__module__.startswith("vercel_runtime") else handler
        for handler in root.handlers
    ]
    for handler in root.handlers:
        handler.setFormatter(PlainFormatter(_PLAIN) if plain else JsonFormatter())


def masked(text: str) -> str:
    """Star out the database's password, should a driver's text or a traceback ever hold it."""
    try:
        passwords = settings.get_settings().known_passwords
    except ConfigurationError:
        return text
    for password in passwords:
        if len(password) > 3:
            for written in _written(password):
                text = text.replace(written, "********")
    return text


@lru_cache(maxsize=8)
def _written(password: str) -> tuple[str, ...]:
    """Give the ways in which a password may stand in a text: as it is, as in a URL, as in a repr, and each in JSON."""
    forms = (password, quote(password, safe=""), repr(password)[1:-1], repr(password.encode())[2:-1])
    return tuple(dict.fromkeys(text for form in forms for text in (form, json.dumps(form, ensure_ascii=False)[1:-1])))
