"""What the docs say is true of the code: variables, endpoints, commands, exit codes, links, make targets.

No database is needed: `make check` runs this file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ops.cli import cli
from shared import __version__, errors
from shared.db.sizes import pool_size
from shared.db.url import DatabaseURL
from shared.errors import Error
from shared.settings import VARIABLES, Settings
from shared.web.application import endpoints_in
from shared.web.problem import problem_from
from tests import results
from tests.faults import table as table_of_faults
from tests.faults.register import FAULTS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DOCS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}

# Endpoints that the docs write as examples, and no file has.
EXAMPLES = {"/api/notes", "/api/notes/{id}", "/api/plans/{id}"}
# What platforms say of themselves; nobody sets it.
PLATFORM = {"VERCEL", "VERCEL_GIT_COMMIT_SHA", "AWS_LAMBDA_FUNCTION_NAME"}


def code_in(text: str) -> str:
    """Give only what a page shows as code: blocks and spans, one a line."""
    blocks = re.findall(r"^ *```.*?\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", rest)])


def section(text: str, heading: str) -> str:
    """Give what stands below a heading, up to the next one."""
    return text.partition(f"# {heading}\n")[2].partition("\n#")[0]


def table(text: str, *heading: str) -> list[list[str]]:
    """Give the rows of the table with this heading, without the backticks around a whole cell."""
    lines = iter(text.splitlines())
    for line in lines:
        if cells_of(line) == list(heading):
            break
    else:
        return []
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(cells_of(line))
    return rows


def cells_of(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    return [re.sub(r"^`([^`]+)`$", r"\1", cell) for cell in cells]


# -- variables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "docs/PRODUCTION.md"])
def test_the_table_of_variables_is_that_of_the_code(page: str) -> None:
    documented = table(DOCS[page], "Variable", "Meaning", "Default")
    assert documented == [cells_of(f"|{v.name}|{v.meaning}|{v.default}|") for v in VARIABLES]


def test_the_example_environment_has_every_variable_and_sets_none() -> None:
    text = (ROOT / ".env.example").read_text("utf-8")
    blocks = [block.splitlines() for block in text.strip().split("\n\n")[1:]]
    assert [block[:2] for block in blocks] == [[f"# {v.meaning}", f"# Default: {v.default}"] for v in VARIABLES]
    assert [block[2].partition("=")[0] for block in blocks] == [f"# {v.name}" for v in VARIABLES]
    assert all(line.startswith("#") or not line for line in text.splitlines()), "a copy of it must change nothing"


def test_the_values_of_the_example_environment_are_allowed() -> None:
    text = (ROOT / ".env.example").read_text("utf-8")
    for name, value in re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE):
        Settings.read({name: value})


def test_every_variable_that_settings_read_is_in_the_table() -> None:
    source = (ROOT / "shared" / "settings.py").read_text("utf-8")
    read = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+|VERCEL)"', source))
    assert read - PLATFORM - {variable.name for variable in VARIABLES} == set()


def test_the_pool_sizes_are_those_of_the_code() -> None:
    rows = table(DOCS["docs/PRODUCTION.md"], "Where", "Connections at most", "Idle seconds")
    documented = {where: (most, idle) for where, most, idle in rows}
    for where, environ in {
        "Serverless instance (Vercel, Lambda)": {"VERCEL": "1", "DATABASE_URL": "postgresql://u@db.example.com/x"},
        "Development": {"APP_ENV": "development"},
        "Test": {"APP_ENV": "test"},
    }.items():
        size = pool_size(Settings.read(environ))
        assert documented[where] == (str(size.max_size), f"{size.idle_timeout:g}"), where


# -- endpoints, commands, targets -------------------------------------------------------------------


def test_endpoints_named_in_the_docs_exist_and_every_endpoint_is_named() -> None:
    endpoints = {endpoint.path for endpoint in endpoints_in(ROOT / "functions", "functions")}
    named = {path for text in DOCS.values() for path in re.findall(r"/api(?:/[\w{}]+)+|(?<=`GET )/(?=`)", text)}
    assert named - EXAMPLES - endpoints == set(), "no such endpoint"
    assert endpoints - named == set(), "an endpoint that no page names"


def commands() -> Mapping[tuple[str, ...], Any]:
    """Give every command of `db` by its words; the program itself has none."""

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk((*words, name), child)

    return dict(walk((), typer.main.get_command(cli)))


def uses_of_db(text: str) -> Iterator[list[str]]:
    """Give what follows `db` wherever a page shows it as a command."""
    for line in code_in(text).splitlines():
        for match in re.finditer(r"(?:^|(?<=[$&|(] )|(?<=\.venv/bin/)|(?<=run: )) *db((?: [^#&|`]+)?)", line):
            if match[1]:
                yield match[1].split()


def test_commands_named_in_the_docs_exist_with_their_options() -> None:
    known = commands()
    for page, text in DOCS.items():
        for words in uses_of_db(text):
            command: tuple[str, ...] = ()
            while words and (*command, words[0]) in known:
                command = (*command, words.pop(0))
            found = known[command]
            shown = f"{page}: db {' '.join([*command, *words])}"
            is_group = bool(getattr(found, "commands", {}))
            assert not (is_group and words and re.fullmatch(r"[a-z]+", words[0])), f"{shown}: no such command"
            if found.context_settings.get("ignore_unknown_options"):
                continue
            options = {option for parameter in found.params for option in parameter.opts} | {"--help", "-h"}
            used = {word.partition("=")[0] for word in words if word.startswith("-")}
            assert used <= options, f"{shown}: no such option"


def test_every_command_is_named_in_the_docs() -> None:
    code = "\n".join(code_in(text) for text in DOCS.values())
    leaves = [words for words, command in commands().items() if words and not getattr(command, "commands", {})]
    missing = [" ".join(words) for words in leaves if f"db {' '.join(words)}" not in code]
    assert missing == []


def test_make_targets_named_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page, text in DOCS.items():
        named = set(re.findall(r"(?:^|[ ;&])make ([a-z-]+)", code_in(text), re.MULTILINE))
        assert named <= targets, page


# -- errors -----------------------------------------------------------------------------------------


def error_classes(base: type[Error] = Error) -> Iterator[type[Error]]:
    """Give the error classes of shared.errors."""
    if base.__module__ == errors.__name__:
        yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def test_the_exit_codes_are_those_of_the_errors() -> None:
    documented = {int(code) for code, _ in table(section(DOCS["docs/DATABASE.md"], "Exit codes"), "Code", "Meaning")}
    assert documented == {0, 2, 130} | {kind.exit_code for kind in error_classes()}


def test_the_codes_in_the_log_are_those_that_endpoints_write(caplog: pytest.LogCaptureFixture) -> None:
    written = []
    with caplog.at_level(logging.INFO):
        for kind in error_classes():
            if kind is Error:
                continue  # nothing raises it itself
            caplog.clear()
            status = problem_from(kind("what happened")).status
            if any(message.startswith(f"{kind.code}: ") for message in caplog.messages):
                written.append([kind.code, str(status)])
    documented = table(DOCS["docs/TROUBLESHOOTING.md"], "Code", "Meaning", "Answer")
    assert sorted([code, status] for code, _, status in documented) == sorted(written)


@pytest.mark.parametrize(
    "environ",
    [
        {"APP_ENV": "production"},
        {"DATABASE_URL": "host.example.com/db"},
        {"DATABASE_URL": "mysql://user:secret@host/db"},
        {"DATABASE_URL": "jdbc:postgresql://host/db"},
        {"DATABASE_URL": "postgresql://user:[YOUR-PASSWORD]@host/db"},
        {"DATABASE_URL": "postgresql://user:se/cret@host/db"},
        {"DATABASE_URL": "postgresql://user:secret@host:port/db"},
        {"DATABASE_URL": "postgresql://user:secret@host/db?sslmode=on"},
        {"DATABASE_URL": "postgresql://user:secret@host/db?foo=1"},
        {"DATABASE_URL": "postgresql://user:secret@host/db?sslmode=disable"},
        {"DATABASE_SSL": "true", "DATABASE_DISABLE_SSL": "true"},
        {"APP_ENV": "prod"},
        {"MIGRATION_FORCE": "maybe"},
        {"DATABASE_POOL_MAX": "0"},
        {"CORS_ALLOW_ORIGINS": "app.example.com"},
    ],
    ids=lambda environ: " ".join(f"{name}={value}" for name, value in environ.items()),
)
def test_what_wrong_settings_say_is_what_troubleshooting_lists(environ: dict[str, str]) -> None:
    with pytest.raises(Error) as caught:
        assert isinstance(Settings.read(environ).database_url, DatabaseURL)
    assert f"| `{caught.value.message}` |" in section(DOCS["docs/TROUBLESHOOTING.md"], "Wrong settings")


def test_other_messages_that_troubleshooting_lists_are_in_the_code() -> None:
    source = "".join(path.read_text("utf-8") for room in ("migrations", "ops", "shared") for path in rooms(room))
    source = re.sub(r'"\s*f?"', "", source)  # strings that are written in pieces
    for heading in ("Migrations failed", "On your machine"):
        text = section(DOCS["docs/TROUBLESHOOTING.md"], heading)
        for row in table(text, "Message", "Meaning") + table(text, "Message", "What to do"):
            pattern = r"\{[^{}]+\}".join(re.escape(part) for part in re.split(r"\b(?:3000|16)\b", row[0]))
            assert re.search(pattern, source), row[0]


def rooms(name: str) -> list[Path]:
    return sorted((ROOT / name).rglob("*.py"))


# -- what the long runs found out -------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(results.KEPT.glob("*.json")), ids=lambda file: file.stem)
def test_pages_show_what_the_runs_wrote(file: Path) -> None:
    result = results.load(file.stem)
    assert results.shown(result) == results.markdown(result)
    for plot in result.plots:
        assert results.fingerprint(plot) in (results.KEPT / plot.file).read_text("utf-8"), plot.file


def test_the_faults_were_told_what_they_allow_now() -> None:
    """Where it fails, the faults have changed since the run that is kept, or a cell of it failed: run them all."""
    kept = results.load("faults")
    cells = [table_of_faults.Cell(**cell) for cell in kept.figures["cells"]]
    told = {cell[:3]: cell.word for cell in cells}
    allowed = {
        (fault.name, activity, driver): fault.allowed(activity, driver)
        for fault, activity, driver in table_of_faults.cells_of(FAULTS)
    }
    assert allowed.keys() == told.keys()
    assert {cell: word for cell, word in told.items() if word not in allowed[cell]} == {}
    assert kept.tables == table_of_faults.result(cells).tables


def test_no_page_shows_what_no_run_wrote() -> None:
    named = {name for text in DOCS.values() for name in re.findall(r"<!-- results: (\S+) -->", text)}
    assert named == {file.stem for file in results.KEPT.glob("*.json")}
    plots = {plot.file for name in named for plot in results.load(name).plots}
    assert plots == {file.name for file in results.KEPT.glob("*.svg")}


# -- links, versions, dependencies ------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Give the anchors that GitHub makes of a page's headings."""
    without_code = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\]", DOCS["CHANGELOG.md"], re.MULTILINE)


def test_every_dependency_has_its_reason() -> None:
    reasons = set(re.findall(r"`([^`]+)`", DOCS["docs/decisions/0001-dependencies.md"]))
    for file in ROOT.glob("requirements*.txt"):
        for package in re.findall(r"^([\w\[\]-]+)==", file.read_text("utf-8"), re.MULTILINE):
            assert package in reasons, f"{file.name}: {package}"


def test_decisions_are_numbered_without_gaps() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for number, page in enumerate(pages, start=1):
        assert page.read_text("utf-8").startswith(f"# {number}. "), page.name
