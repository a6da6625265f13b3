"""The cases of lint_cases.txt, and the tables that they change."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from migrations import files
from migrations.files import Migration
from migrations.lint import SafeFile
from tests.migrations.conftest import Folder

WORLD = """\
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TYPE spare_type AS (a integer);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TABLE teams (id bigint PRIMARY KEY, name text);
CREATE TABLE people (
    id bigint NOT NULL,
    email varchar(50) NOT NULL,
    nick varchar(20) CHECK (length(nick) > 1),
    age integer,
    score numeric(8, 2) DEFAULT 1,
    team_id bigint,
    mood mood
);
CREATE TABLE "Big Table" ("Id" integer, note text);
CREATE TABLE events (id bigint, day date) PARTITION BY RANGE (day);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX people_age_idx ON people (age);
CREATE VIEW adults AS SELECT id FROM people WHERE team_id > 1;
CREATE MATERIALIZED VIEW sizes AS SELECT team_id, count(*) FROM people GROUP BY team_id;
CREATE UNIQUE INDEX sizes_team_id_key ON sizes (team_id);
CREATE SEQUENCE spare_seq;
CREATE FUNCTION spare() RETURNS integer LANGUAGE sql RETURN 1;
"""
ROWS = """\
INSERT INTO teams SELECT n, 'team ' || n FROM generate_series(1, 5) AS n;
INSERT INTO people SELECT n, 'P' || n || '@example.com', 'nick' || n, n, n, 1 + n % 5, 'calm'
FROM generate_series(1, 2500) AS n;
INSERT INTO "Big Table" SELECT n, 'note ' || n FROM generate_series(1, 20) AS n;
INSERT INTO events VALUES (1, '2026-05-01');
REFRESH MATERIALIZED VIEW sizes;
"""


@dataclass(frozen=True)
class Case:
    """A way up that breaks `rule` in its `line`; its safe form has `says` in it, and `files` files."""

    rule: str
    up: str
    says: tuple[str, ...] = ()
    files: int = 1
    line: int = 1
    transactional: bool = True
    also: tuple[str, ...] = ()  # other rules that the same statements break

    def __str__(self) -> str:
        return f"{self.rule}: {' '.join(self.up.split())[:60]}"


def _cases() -> Iterator[Case]:
    text = Path(__file__).with_name("lint_cases.txt").read_text("utf-8")
    for block in text.strip().split("\n== ")[1:]:
        head, *lines = block.strip().split("\n")
        rule, *options = head.split("; ")
        said = {kind: value for option in options for kind, _, value in [option.partition(" ")]}
        counts = {value: int(kind) for kind, value in said.items() if value == "files"}
        yield Case(
            rule,
            up="\n".join(line for line in lines if not line.startswith("> ")),
            says=tuple(line[2:] for line in lines if line.startswith("> ")),
            files=counts.get("files", 1),
            line=int(said.get("line", 1)),
            transactional="outside" not in said,
            also=tuple(value for kind, value in said.items() if kind == "also"),
        )


CASES = tuple(_cases())


def migration(folder: Folder, up: str, *, transactional: bool = True, down: str = "SELECT 1;") -> Migration:
    """Write a way up as a migration whose first statement stands in line 6, and read it."""
    number = len(list(folder.path.glob("*.sql")))
    header = "" if transactional else "-- transaction: none"
    return files.parse(folder.add(f"202612010000{number:02}_case", f"\n{up}", down, header=header))


FIRST_LINE = 5  # of the statements in such a file


def migrations_of(folder: Folder, safe: tuple[SafeFile, ...]) -> list[Migration]:
    """Write a safe form as migrations."""
    return [migration(folder, file.sql, transactional=file.transactional) for file in safe]
