"""Each rule of lint: what it finds and where, that its safe form passes, and what a file may allow."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrations import files, lint
from migrations.lint import Finding, squawk
from ops import migrate_lint
from shared.errors import LintError, LocalEnvironmentError, MigrationError
from tests.migrations.conftest import ROOT, Folder, Project
from tests.migrations.lint_cases import CASES, FIRST_LINE, WORLD, Case, migration, migrations_of

RULES = {rule.id: rule for rule in (*lint.RULES, *lint.ALLOW_RULES)}


@pytest.fixture
def world(folder: Folder) -> files.Migration:
    """Write the tables that the cases change as the first migration."""
    return migration(folder, WORLD)


def found(world: files.Migration, folder: Folder, up: str, **options: object) -> list[Finding]:
    """Look at one file behind the world's."""
    return lint.check([migration(folder, up, **options)], before=[world])  # type: ignore[arg-type]


def rules_of(findings: Sequence[Finding]) -> list[str]:
    return [finding.rule for finding in findings if finding.allowed is None]


# -- the rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_finds_its_file_and_shows_a_safe_form_that_passes(
    case: Case, world: files.Migration, folder: Folder
) -> None:
    findings = found(world, folder, case.up, transactional=case.transactional)

    assert sorted(rules_of(findings)) == sorted([case.rule, *case.also])
    (finding,) = (finding for finding in findings if finding.rule == case.rule)
    assert finding.line == FIRST_LINE + case.line - 1
    assert finding.level == RULES[case.rule].level
    assert len(finding.safe) == case.files
    text = "\n".join(file.sql for file in finding.safe)
    assert [part for part in case.says if part not in text] == []
    assert finding.path.name in str(finding)
    assert all(line.strip() in str(finding) for line in text.splitlines())

    safe = migrations_of(Folder(folder.path.with_name("safe")), finding.safe)
    assert rules_of(lint.check(safe, before=[world])) == []


def test_every_rule_has_a_case() -> None:
    elsewhere = {"no-way-back", "syntax"} | {rule.id for rule in lint.ALLOW_RULES}
    assert {case.rule for case in CASES} == set(RULES) - elsewhere


HARMLESS = (
    "ALTER TABLE people ADD COLUMN a integer DEFAULT 5 NOT NULL, ADD COLUMN b timestamptz DEFAULT now();",
    "ALTER TABLE people ADD COLUMN t bigint REFERENCES teams (id);",
    "ALTER TABLE people ADD COLUMN a text DEFAULT 'x'::varchar(10), ADD COLUMN b text[] DEFAULT '{}';",
    "ALTER TABLE people ALTER COLUMN email TYPE varchar(80), ALTER COLUMN score TYPE numeric(10, 2);",
    "ALTER TABLE people ALTER COLUMN email TYPE text;",
    "ALTER TABLE people ALTER id SET NOT NULL, ALTER age SET DEFAULT 3, ALTER age SET STATISTICS 10;",
    "CREATE TABLE n (a integer);\nCREATE INDEX ON n (a);\nALTER TABLE n ADD CHECK (a > 0), ALTER a TYPE text;\n"
    "UPDATE n SET a = '1';\nDROP TABLE n;",
    "CREATE TABLE n AS SELECT 1 AS a;\nALTER TABLE n ADD PRIMARY KEY (a);\nTRUNCATE n;",
    "CREATE INDEX e ON ONLY events (id);",
    "UPDATE people SET age = 3 WHERE id = 5;\nDELETE FROM people WHERE nick IN ('a', 'b');",
    "CREATE EXTENSION IF NOT EXISTS pg_trgm;",
    "LOCK TABLE people IN ROW EXCLUSIVE MODE;",
    "SET LOCAL work_mem = '64MB';\nSET CONSTRAINTS ALL DEFERRED;",
    "ALTER TYPE mood ADD VALUE 'glad';",
    "CREATE TYPE t AS ENUM ('a');\nALTER TYPE t ADD VALUE 'b';\nCREATE TABLE n (a t DEFAULT 'b');",
    "ALTER TABLE people DROP CONSTRAINT people_nick_check, ALTER COLUMN email DROP NOT NULL;",
    "ALTER TABLE people VALIDATE CONSTRAINT people_nick_check;\nALTER TABLE teams VALIDATE CONSTRAINT x;",
    "CREATE OR REPLACE FUNCTION spare() RETURNS integer LANGUAGE sql SET search_path = '' RETURN 2;",
    "DROP TRIGGER t ON people;\nCREATE TRIGGER t BEFORE UPDATE ON people EXECUTE FUNCTION f();",
    "COMMENT ON TABLE people IS 'DROP TABLE people';\nGRANT SELECT ON people TO PUBLIC;",
)  # fmt: skip


@pytest.mark.parametrize("up", HARMLESS, ids=lambda up: up[:50])
def test_what_harms_nobody_is_not_found(up: str, world: files.Migration, folder: Folder) -> None:
    assert found(world, folder, up) == []


def test_the_repository_s_own_migrations_pass() -> None:
    assert lint.check(files.chain()) == []


def test_set_not_null_asks_for_a_check_of_that_column_that_is_validated(world: files.Migration, folder: Folder) -> None:
    add = migration(folder, "ALTER TABLE people ADD CONSTRAINT c CHECK (age IS NOT NULL) NOT VALID;")
    early = migration(folder, "ALTER TABLE people ALTER age SET NOT NULL;")
    validate = migration(folder, "ALTER TABLE people VALIDATE CONSTRAINT c;")
    late = migration(folder, "ALTER TABLE people ALTER age SET NOT NULL;")
    other = migration(folder, "ALTER TABLE people ALTER team_id SET NOT NULL;")

    findings = lint.check([world, add, early, validate, late, other])

    assert [finding.path for finding in findings] == [early.path, other.path]


def test_the_type_that_a_column_has_is_that_of_the_files_before(world: files.Migration, folder: Folder) -> None:
    widen = migration(folder, "ALTER TABLE people ALTER email TYPE varchar(60);")
    narrow = migration(folder, "ALTER TABLE people ALTER email TYPE varchar(55);")

    findings = lint.check([world, widen, narrow])

    assert [(finding.path, finding.rule) for finding in findings] == [(narrow.path, "change-column-type")]
    assert "from varchar(60) to varchar(55)" in findings[0].message
    (unknown,) = lint.check([widen])
    assert "may rewrite people" in unknown.message


def test_several_actions_have_a_line_each(world: files.Migration, folder: Folder) -> None:
    findings = found(
        world,
        folder,
        "ALTER TABLE people\n    DROP COLUMN age,\n    -- because\n    ADD UNIQUE (nick),\n    ADD x serial;",
    )

    assert [(finding.line, finding.rule) for finding in findings] == [
        (FIRST_LINE + 1, "drop-column"),
        (FIRST_LINE + 3, "add-unique"),
        (FIRST_LINE + 4, "add-column-rewrite"),
    ]


# -- the way back -----------------------------------------------------------------------------------


def test_a_way_back_that_is_missing_is_written(folder: Folder, world: files.Migration) -> None:
    up = """
    CREATE TABLE n (a integer);
    CREATE INDEX ON n (a);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER g BEFORE UPDATE ON teams FOR EACH ROW EXECUTE FUNCTION f();
    ALTER TABLE people ADD COLUMN b integer, ADD CONSTRAINT c CHECK (b > 0) NOT VALID, ALTER nick SET DEFAULT '';
    """
    (finding,) = found(world, folder, up, down="")

    assert (finding.rule, finding.level) == ("no-way-back", "warning")
    assert finding.path.read_text().splitlines()[finding.line - 1] == "-- down"
    assert finding.safe[0].sql.splitlines() == [
        "ALTER TABLE people DROP CONSTRAINT c;",
        "ALTER TABLE people DROP COLUMN b;",
        "DROP TRIGGER g ON teams;",
        "DROP FUNCTION f;",
        "DROP TABLE n;",
    ]


def test_a_way_back_is_not_asked_for_where_there_is_none(folder: Folder, world: files.Migration) -> None:
    up = "ALTER TYPE mood ADD VALUE 'glad';\nDELETE FROM people WHERE id = 3;"

    assert found(world, folder, up, down="") == []
    allow = "-- lint: allow no-way-back because it is a test"
    assert rules_of(found(world, folder, "CREATE TABLE n (a integer);", down=allow)) == []


def test_the_way_back_may_drop_and_must_run(folder: Folder, world: files.Migration) -> None:
    down = "DROP TABLE people;\nALTER TABLE teams DROP COLUMN name;\nCREATE INDEX ON teams (id);\nVACUUM teams;"

    findings = found(world, folder, "SELECT 1;", down=down)

    assert [(finding.rule, finding.line) for finding in findings] == [("needs-no-transaction", FIRST_LINE + 7)]


# -- allow ------------------------------------------------------------------------------------------


def test_a_reason_allows_one_rule_of_one_statement(folder: Folder, world: files.Migration) -> None:
    up = """\
-- lint: allow drop-column because nobody has read it since 2020
ALTER TABLE people DROP COLUMN age;
ALTER TABLE people DROP COLUMN nick;
-- lint: allow drop-column because  two lines may stand here
-- lint: allow add-unique because the table is small

-- and another comment
ALTER TABLE people DROP COLUMN score, ADD UNIQUE (email);"""

    findings = found(world, folder, up)

    assert [(finding.rule, finding.allowed, finding.fails) for finding in findings] == [
        ("drop-column", "nobody has read it since 2020", False),
        ("drop-column", None, True),
        ("add-unique", "the table is small", False),
        ("drop-column", "two lines may stand here", False),
    ]
    assert "allowed: drop-column" in str(findings[0])
    assert "nobody has read it since 2020" in str(findings[0])
    assert lint.sentence_of(findings) == "1 error, 3 allowed"


def test_a_reason_may_stand_in_the_first_comment(folder: Folder, world: files.Migration) -> None:
    path = folder.add(
        "20270101000000_drop", "DROP TABLE people;", header="-- lint: allow drop-table because it is a test"
    )
    path.write_text(path.read_text().replace("because it is a test\n\n", "because it is a test\n"))

    (finding,) = lint.check([files.parse(path)], before=[world])

    assert finding.allowed == "it is a test"


@pytest.mark.parametrize(
    ("comment", "rule", "says"),
    [
        ("-- lint: allow drop-column", "allow-without-reason", "without a reason nothing is allowed"),
        ("-- lint: allow drop-column because ", "allow-without-reason", "without a reason"),
        ("-- lint: off", "allow-without-reason", "`-- lint: allow RULE because REASON`"),
        ("-- lint: allow add-check because x", "allow-unused", "add-check, which was not found here"),
        ("-- lint: allow drop-colum because x", "allow-unused", "There is no rule drop-colum"),
        ("-- squawk-ignore ban-drop-column", None, ""),
    ],
)
def test_a_line_that_allows_nothing_is_a_warning(
    folder: Folder, world: files.Migration, comment: str, rule: str | None, says: str
) -> None:
    findings = found(world, folder, f"{comment}\nALTER TABLE people DROP COLUMN age;")

    assert {finding.rule for finding in findings if finding.fails} == {"drop-column"}
    others = [finding for finding in findings if finding.rule != "drop-column"]
    assert [(finding.rule, finding.level, finding.line) for finding in others] == (
        [(rule, "warning", FIRST_LINE)] if rule else []
    )
    assert all(says in finding.message for finding in others)


@pytest.mark.parametrize(
    "up",
    [
        "ALTER TABLE people\n-- lint: allow drop-column because x\nDROP COLUMN age;",
        "ALTER TABLE people DROP COLUMN age;\n-- lint: allow drop-column because x",
        "-- lint: allow drop-column because x\nSELECT 1;\nALTER TABLE people DROP COLUMN age;",
        "SELECT '\n-- lint: allow drop-column because x\n'; ALTER TABLE people DROP COLUMN age;",
    ],
)
def test_a_reason_in_the_wrong_place_allows_nothing(folder: Folder, world: files.Migration, up: str) -> None:
    findings = found(world, folder, up)

    assert "drop-column" in [finding.rule for finding in findings if finding.fails]


# -- Squawk -----------------------------------------------------------------------------------------

# A statement for each rule of Squawk's that one of ours answers, or that is reported as it is.
SQUAWK = {
    "adding-field-with-default": "ALTER TABLE people ADD COLUMN a uuid DEFAULT gen_random_uuid();",
    "adding-foreign-key-constraint": "ALTER TABLE people ADD FOREIGN KEY (team_id) REFERENCES teams (id);",
    "adding-not-nullable-field": "ALTER TABLE people ALTER age SET NOT NULL;",
    "adding-required-field": "ALTER TABLE people ADD COLUMN a uuid NOT NULL;",
    "adding-serial-primary-key-field": "ALTER TABLE people ADD PRIMARY KEY (id);",
    "ban-alter-domain-with-add-constraint": "ALTER DOMAIN positive ADD CONSTRAINT c CHECK (VALUE < 9);",
    # Where it stands alone, Squawk takes it for granted that the file is no transaction.
    "ban-concurrent-index-creation-in-transaction": "CREATE INDEX CONCURRENTLY i ON people (id); SELECT 1;",
    "ban-drop-column": "ALTER TABLE people DROP COLUMN age;",
    "ban-drop-database": "DROP DATABASE d;",
    "ban-drop-domain": "DROP DOMAIN positive;",
    "ban-drop-extension": "DROP EXTENSION e;",
    "ban-drop-function": "DROP FUNCTION spare();",
    "ban-drop-schema": "DROP SCHEMA s;",
    "ban-drop-sequence": "DROP SEQUENCE spare_seq;",
    "ban-drop-table": "DROP TABLE people;",
    "ban-drop-type": "DROP TYPE spare_type;",
    "ban-drop-view": "DROP VIEW adults;",
    "ban-duplicate-column-assignments": "UPDATE people SET age = 1, age = 2 WHERE id = 3;",
    "ban-set-schema": "ALTER TABLE people SET SCHEMA s;",
    "ban-truncate-cascade": "TRUNCATE people CASCADE;",
    "changing-column-type": "ALTER TABLE people ALTER age TYPE bigint;",
    "constraint-missing-not-valid": "ALTER TABLE people ADD CHECK (age > 0);",
    "disallowed-unique-constraint": "ALTER TABLE people ADD UNIQUE (email);",
    "identifier-too-long": f"CREATE TABLE {'n' * 64} (a bigint);",
    "renaming-column": "ALTER TABLE people RENAME age TO years;",
    "renaming-object": "ALTER VIEW adults RENAME TO grown_ups;",
    "renaming-table": "ALTER TABLE people RENAME TO persons;",
    "require-concurrent-index-creation": "CREATE INDEX i ON people (id);",
    "require-concurrent-index-deletion": "DROP INDEX people_age_idx;",
    "require-concurrent-partition-detach": "ALTER TABLE events DETACH PARTITION events_2026;",
    "require-concurrent-reindex": "REINDEX TABLE people;",
    "prefer-robust-stmts": "CREATE INDEX CONCURRENTLY i ON people (id);",
}


@pytest.mark.parametrize(("theirs", "up"), SQUAWK.items(), ids=SQUAWK)
def test_squawk_and_lint_agree_and_say_it_once(theirs: str, up: str, world: files.Migration, folder: Folder) -> None:
    transactional = theirs != "prefer-robust-stmts"
    looked_at = migration(folder, up, transactional=transactional)
    reports = squawk.look([squawk.Source(looked_at.up.statements, transactional)])
    assert theirs in {report.rule for report in reports}

    findings = lint.check([looked_at], before=[world])

    assert {(finding.rule, finding.line) for finding in findings} >= {(squawk.OURS.get(theirs, theirs), FIRST_LINE)}
    assert len({finding.message for finding in findings}) == len({finding.rule for finding in findings})


def test_every_rule_of_squawk_is_decided_on() -> None:
    assert set(SQUAWK) == {*squawk.OURS, *squawk.THEIRS}
    assert set(squawk.OURS.values()) <= set(RULES)
    assert not (squawk.OURS.keys() | squawk.THEIRS.keys()) & squawk.EXCLUDED.keys()
    # It knows each of these names: it refuses the command otherwise.
    program = squawk.program()
    assert program is not None
    names = ",".join([*squawk.OURS, *squawk.THEIRS, *squawk.EXCLUDED])
    done = subprocess.run([program, "--exclude", names, "--reporter", "json"], input=b"SELECT 1;", capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_lint_cannot_read_is_left_to_squawk(folder: Folder, world: files.Migration) -> None:
    findings = found(world, folder, "SELECT 1;\nALTER TABLE people ADD COLUMN a uuid FANCY, DROP COLUMN age;")
    assert {(finding.rule, finding.safe != ()) for finding in findings} >= {("drop-column", True)}

    (finding,) = found(world, folder, "SELECT 1;\n\nALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b, SELECT;")
    assert (finding.rule, finding.line, finding.level) == ("syntax", FIRST_LINE + 2, "error")


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_typing_error_is_found_in_its_line(folder: Folder, world: files.Migration, way: str) -> None:
    text = "SELECT 1;\nCREATE\n    TABEL n (a integer); SELECT 2;"
    findings = found(
        world, folder, *([text] if way == "up" else ["SELECT 1;"]), **({"down": text} if way == "down" else {})
    )

    (finding,) = (finding for finding in findings if finding.rule == "syntax")
    assert finding.path.read_text().splitlines()[finding.line - 1].strip().startswith(("CREATE", "TABEL"))


def test_without_squawk_the_rules_of_our_own_run_and_it_says_so(
    folder: Folder, world: files.Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lint.notices() == []
    monkeypatch.setattr(squawk, "program", lambda: None)

    allow = "-- lint: allow identifier-too-long because it was so before\n"
    findings = found(world, folder, f"{allow}DROP TABLE people;\nALTER DOMAIN positive ADD CHECK (VALUE < 9);")

    assert [finding.rule for finding in findings] == ["drop-table"]
    assert lint.notices() == ["Squawk is not installed here: its rules were not checked, only our own."]


def test_a_squawk_that_does_not_work_is_named(
    folder: Folder, world: files.Migration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "squawk"
    broken.write_text("#!/bin/sh\necho broken\n")
    broken.chmod(0o755)
    monkeypatch.setattr(squawk, "program", lambda: broken)

    with pytest.raises(LocalEnvironmentError, match="squawk failed"):
        lint.check([world])


def test_one_run_of_squawk_looks_at_all_files(folder: Folder, world: files.Migration) -> None:
    """A file of one mode between two of the other, and a configuration nearby that must not count."""
    long = f"CREATE TABLE {'n' * 64} (a bigint);"
    three = [migration(folder, long, transactional=transactional) for transactional in (True, False, True)]

    findings = lint.check(three, before=[world])

    assert [(finding.path, finding.line) for finding in findings if finding.rule == "identifier-too-long"] == [
        (one.path, FIRST_LINE) for one in three
    ]


# -- whatever parses --------------------------------------------------------------------------------

PIECES = st.sampled_from(
    """
    ALTER TABLE people ADD COLUMN DROP IF EXISTS NOT NULL DEFAULT CHECK ( ) , . * = "A b" 'x' 5 id email CONSTRAINT c
    UNIQUE PRIMARY KEY FOREIGN REFERENCES teams USING INDEX VALID VALIDATE RENAME TO SET SCHEMA TYPE varchar GENERATED
    ALWAYS AS IDENTITY STORED CREATE CONCURRENTLY ON ONLY VIEW FUNCTION f TRIGGER UPDATE DELETE FROM WHERE IN SELECT
    TRUNCATE LOCK MODE VACUUM FULL CLUSTER REINDEX REFRESH MATERIALIZED EXTENSION search_path LOCAL RESET set_config
    VALUE ENUM DOMAIN PARTITION OF BY DETACH EXCLUDE NULLS DISTINCT INCLUDE WITH CASCADE
    [ ] :: $$a$$ -- /**/ ; E'\\'' U&"a" TEMP LIKE DATABASE ROLE VERBOSE MATCH INHERIT
    """.split()
)
EDITS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["put", "drop", "replace"]), PIECES), max_size=5)


def edited(text: str, edits: list[tuple[int, str, str]]) -> str:
    """Put words into a text, take some out, replace others."""
    words = text.removesuffix(";").split(" ")
    for place, what, piece in edits:
        at = place % (len(words) + 1)
        words[at : at + (what != "put")] = [piece] if what != "drop" else []
    return f"{' '.join(words)}\n;"


@given(st.lists(st.tuples(st.sampled_from([case.up for case in CASES]), EDITS), min_size=1, max_size=3), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_text_that_is_read_makes_lint_fail(
    tmp_path_factory: pytest.TempPathFactory,
    statements: list[tuple[str, list[tuple[int, str, str]]]],
    transactional: bool,
) -> None:
    up = "\n".join(edited(text, edits) for text, edits in statements)
    folder = Folder(tmp_path_factory.mktemp("lint") / "versions")
    world = migration(folder, WORLD)
    try:
        looked_at = migration(folder, up, transactional=transactional, down=up)
    except MigrationError:
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(squawk, "program", lambda: None)  # a process for each example would take minutes
        for finding in lint.check([world, looked_at]):
            assert str(finding)
            assert json.dumps(finding.as_object())


# -- the page, and the command ----------------------------------------------------------------------


def test_the_page_is_true_of_the_code(folder: Folder) -> None:
    page = (ROOT / "docs" / "MIGRATION_LINT.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (error|warning) \| (.+?) \| (.+?) \|$", page, flags=re.MULTILINE)

    assert rows == [(rule.id, rule.level, rule.what, rule.remedy) for rule in RULES.values()] + [
        row for row in rows if row[0] in squawk.THEIRS
    ]
    assert {row[0]: row[1] for row in rows if row[0] in squawk.THEIRS} == squawk.THEIRS
    (example,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    text = "-- Why.\n-- parent: none\n\nALTER TABLE users ALTER COLUMN phone SET NOT NULL;\n-- down\nSELECT 1;\n"
    (finding,) = lint.check([files.parse(folder.write("20261201120000_add_phone", text))])
    assert f"{finding}\n" == example
    excluded = re.findall(r"^- `([\w-]+)`: (.+?)\.$", page, flags=re.MULTILINE)
    assert excluded == list(squawk.EXCLUDED.items())


def run(*names: str, as_json: bool = False) -> None:
    migrate_lint.run(list(names), as_json=as_json)


def test_the_command_looks_at_all_files_or_those_that_are_named(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(migrate_lint, "VERSIONS", folder.path)
    migration(folder, WORLD)
    bad = migration(folder, "ALTER TABLE people ALTER email TYPE varchar(10);")
    good = migration(folder, "ALTER TABLE people ALTER nick SET DEFAULT '';")

    run(good.name)
    assert capsys.readouterr().out == "Looked at 1 migration: nothing found.\n"

    with pytest.raises(LintError, match=r"^Lint: 1 error\.$") as caught:
        run()
    assert caught.value.exit_code == 15
    out = capsys.readouterr().out
    assert f"{bad.name}:{FIRST_LINE}: error: change-column-type: Changing email from varchar(50)" in out
    assert out.endswith("Looked at 3 migrations: 1 error.\n")

    with pytest.raises(LintError):
        run(str(bad.path), as_json=True)
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["rule"], finding["line"], finding["allowed"]) == ("change-column-type", FIRST_LINE, None)
    assert finding["safe_form"][1]["transaction"] is False

    elsewhere = Folder(folder.path.with_name("elsewhere")).add(
        "20990101000000_x", "ALTER TABLE people DROP COLUMN age;"
    )
    with pytest.raises(LintError):
        run(str(elsewhere), bad.path.stem)
    assert "Looked at 2 migrations: 2 errors." in capsys.readouterr().out
    with pytest.raises(MigrationError, match=r"There is no file nothing\.sql"):
        run("nothing.sql")


def test_nothing_but_a_function_s_requirements_is_imported(project: Project) -> None:
    program = "import sys; from migrations import lint; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=project.path, capture_output=True, text=True, check=True)

    assert not {"alembic", "sqlalchemy", "typer", "rich"} & set(done.stdout.split())
