"""The table, the endpoint and the test that docs/ENDPOINTS.md shows work as they stand."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from sqlalchemy import MetaData
from starlette.testclient import TestClient

import functions
from migrations import files
from shared import db
from shared.db import schema
from shared.web.application import application, endpoints_in

PAGE = (Path(__file__).parent.parent / "docs" / "ENDPOINTS.md").read_text("utf-8")
BLOCKS = [dedent(block) for block in re.findall(r"^ *```(?:python|sql)\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)]


def block(beginning: str) -> str:
    """Give the one code block of the page that begins so."""
    (found,) = [code for code in BLOCKS if code.startswith(beginning)]
    return found


@pytest.fixture
def notes_table(rolled_back: None, tmp_path: Path) -> None:
    """Create the table as the page's migration does."""
    path = tmp_path / "20261122090000_create_notes.sql"
    path.write_text(block("-- Create notes"), "utf-8")
    for statement in files.parse(path).up.statements:
        db.execute(statement.text)


@pytest.fixture
def notes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the page's endpoint where `from functions import notes` finds it."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "notes.py").write_text(block('"""List notes'), "utf-8")
    monkeypatch.setattr(functions, "__path__", [*functions.__path__, str(folder)])
    yield folder
    sys.modules.pop("functions.notes", None)
    vars(functions).pop("notes", None)


@pytest.mark.usefixtures("notes_table")
def test_the_endpoint_answers(notes_folder: Path) -> None:
    with TestClient(application(endpoints_in(notes_folder, "functions"))) as client:
        added = client.post("/api/notes", json={"text": "Buy milk"})
        assert (added.status_code, added.json()["text"]) == (201, "Buy milk")
        assert client.get("/api/notes").json() == [added.json()]
        assert client.post("/api/notes", json={"words": "Buy milk"}).status_code == 422


@pytest.mark.usefixtures("notes_table", "notes_folder")
def test_the_test_passes() -> None:
    namespace: dict[str, Any] = {}
    exec(block("from functions import notes"), namespace)
    (test,) = [value for name, value in namespace.items() if name.startswith("test_")]
    test(None)


@pytest.mark.usefixtures("notes_table")
def test_the_description_is_that_of_the_table() -> None:
    namespace = {**vars(schema), "metadata": MetaData(naming_convention=schema.NAMING_CONVENTION)}
    exec(block("notes = Table("), namespace)
    described = {column.name: (column.nullable, column.comment) for column in namespace["notes"].columns}
    rows = db.fetch_all(
        "SELECT attname, NOT attnotnull AS nullable, col_description(attrelid, attnum) AS comment "
        "FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attnum > 0"
    )
    assert described == {row["attname"]: (row["nullable"], row["comment"]) for row in rows}
    assert namespace["notes"].comment == db.fetch_value("SELECT obj_description('notes'::regclass)")
