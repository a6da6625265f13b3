"""What reads text that people or strangers wrote: it understands, or says so in an error of ours, and ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from migrations import files
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, Error, MigrationError
from shared.settings import VARIABLES, Settings
from tests import canary
from tests.hostile.effort import hard, keep_at

SECRET = f"{canary.MARK}/?#@%"


def message_of(read: Callable[[], object], expected: type[Error] = ConfigurationError) -> str:
    """Give what the error says that reading ends in; nothing where it understands. Other errors are failures."""
    try:
        read()
    except expected as error:
        return " ".join([error.message, *error.solutions])
    return ""


def test_connection_strings() -> None:
    pieces = st.lists(
        st.sampled_from(
            ["postgresql://", "postgres://", "@", ":", "/", "?", "#", "&", "=", "%", "%2F", "%00", "[", "]"]
        )
        | st.sampled_from(["jdbc:", "host", "sslmode", "options", ",", "5432", "user", " ", SECRET])
        | st.text(max_size=8),
        max_size=12,
    )

    @hard
    @given(pieces)
    def attack(parts: list[str]) -> None:
        text = "".join(parts)
        with contextlib.suppress(ConfigurationError):
            url = DatabaseURL.parse(text)
            assert DatabaseURL.parse(url.render(password=True)) == url

    keep_at(attack)


def test_settings() -> None:
    # An environment holds no zero byte and no half of a surrogate pair.
    texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    texts = texts.filter(lambda text: canary.MARK not in text)  # on its own it is a plain word, which may be repeated
    values = texts | st.sampled_from(["true", "0", "-1", "1e9", "nan", "٣", "production", "*", "https://a", SECRET])
    names = [variable.name for variable in VARIABLES] + ["VERCEL", "AWS_LAMBDA_FUNCTION_NAME"]

    @hard
    @given(st.dictionaries(st.sampled_from(names), values, max_size=6))
    def attack(environ: dict[str, str]) -> None:
        told = [message_of(lambda: Settings.read(environ))]
        if not told[0]:
            settings = Settings.read(environ)
            told += [message_of(lambda: settings.database_url), message_of(lambda: settings.direct_database_url)]
            told.append(repr(settings))
        assert canary.MARK not in " ".join(told)

    keep_at(attack)


def test_migration_files(tmp_path: Path) -> None:
    whole = (files.VERSIONS / "20261121120000_create_users.sql").read_text("utf-8")
    pieces = st.lists(
        st.sampled_from(whole.splitlines(keepends=True))
        | st.sampled_from(
            ["-- down\n", "-- parent: none\n", "-- transaction: none\n", "/*", "*/", "$$", "$x$", "'", '"']
        )
        | st.sampled_from(
            [";", "E'\\", "BEGIN ATOMIC", "END", "BEGIN;", "COPY t FROM STDIN;", "\\.\n", "(", ")", "\r\n"]
        )
        | st.text(max_size=10),
        max_size=25,
    )
    path = tmp_path / "20260101000000_hostile.sql"

    @hard
    @given(st.booleans(), pieces, st.binary(max_size=10))
    def attack(begins_well: bool, parts: list[str], end: bytes) -> None:
        head = "-- Hostile.\n-- parent: none\n\n" if begins_well else ""
        path.write_bytes((head + "".join(parts)).encode("utf-8", "replace") + end)
        told = message_of(lambda: files.parse(path), MigrationError)
        if told:
            assert path.name in told
        else:
            assert all(statement.text.strip() for statement in files.parse(path).up.statements)

    keep_at(attack)
