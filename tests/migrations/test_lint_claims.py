"""What lint says of locks, rewrites and scans, asked of the server: pg_locks, relfilenode, counters of scans."""

from collections.abc import Callable, Iterator
from functools import cache

import psycopg
import pytest

from migrations import lint
from migrations.lint import session, volatility
from migrations.lint.catalog import Catalog
from migrations.lint.locks import access_exclusive
from migrations.lint.parse import parse
from migrations.statements import split
from tests.migrations.conftest import Folder
from tests.migrations.lint_cases import migration
from tests.servers.postgres import Postgres

TABLES = """\
CREATE SCHEMA s;
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN plain AS integer;
CREATE TABLE o (id integer PRIMARY KEY);
CREATE TABLE t (
    id integer,
    n integer DEFAULT 1,
    required integer NOT NULL DEFAULT 3,
    v varchar(50) DEFAULT 'a',
    checked varchar(10) CHECK (length(checked) < 9),
    num numeric(10, 2),
    ts timestamp,
    ts3 timestamp(3),
    tz3 timestamptz(3),
    ch char(10),
    txt text,
    net cidr,
    bits varbit(10),
    proven integer CHECK (proven IS NOT NULL)
);
ALTER TABLE t ADD CONSTRAINT unproven CHECK (n > -1) NOT VALID;
CREATE UNIQUE INDEX t_id_idx ON t (id);
CREATE UNIQUE INDEX t_required_idx ON t (required, id);
CREATE INDEX t_v_idx ON t (v);
CREATE TABLE part (a integer) PARTITION BY LIST (a);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 (a integer);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER trg BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
CREATE POLICY pol ON t;
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS a;
CREATE UNIQUE INDEX mv_a_idx ON mv (a);
CREATE VIEW vw AS SELECT 1 AS n;
"""
ROWS = """\
INSERT INTO o SELECT generate_series(1, 50);
INSERT INTO t (id, proven) SELECT n, n FROM generate_series(1, 50) AS n;
"""

# Statements that rewrite or scan a table while others wait, with the rule that finds them.
COSTLY = """
add-column-rewrite: ALTER TABLE t ADD COLUMN c uuid DEFAULT gen_random_uuid()
add-column-rewrite: ALTER TABLE t ADD COLUMN c timestamptz DEFAULT clock_timestamp()
add-column-rewrite: ALTER TABLE t ADD COLUMN c serial
add-column-rewrite: ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS IDENTITY
add-column-rewrite: ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS (n + 1) STORED
add-column-rewrite: ALTER TABLE t ADD COLUMN c positive
add-check: ALTER TABLE t ADD COLUMN c integer CHECK (c > 0)
add-unique: ALTER TABLE t ADD COLUMN c integer UNIQUE
add-foreign-key: ALTER TABLE t ADD COLUMN c integer DEFAULT 1 REFERENCES o (id)
change-column-type: ALTER TABLE t ALTER v TYPE varchar(40)
change-column-type: ALTER TABLE t ALTER checked TYPE text
change-column-type: ALTER TABLE t ALTER n TYPE bigint
change-column-type: ALTER TABLE t ALTER n TYPE integer USING n + 1
change-column-type: ALTER TABLE t ALTER num TYPE numeric(12, 3)
change-column-type: ALTER TABLE t ALTER num TYPE numeric(8, 2)
change-column-type: ALTER TABLE t ALTER ts TYPE timestamp(3)
change-column-type: ALTER TABLE t ALTER ch TYPE char(20)
change-column-type: ALTER TABLE t ALTER ch TYPE text
change-column-type: ALTER TABLE t ALTER txt TYPE varchar(50)
change-column-type: ALTER TABLE t ALTER v TYPE varchar(100) COLLATE "C"
set-not-null: ALTER TABLE t ALTER n SET NOT NULL
add-check: ALTER TABLE t ADD CHECK (n > 0)
add-foreign-key: ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES o (id)
add-unique: ALTER TABLE t ADD UNIQUE (id)
add-primary-key: ALTER TABLE t ADD PRIMARY KEY (required, id)
add-exclusion: ALTER TABLE t ADD EXCLUDE USING btree (id WITH =)
index-not-concurrent: CREATE INDEX ON t (n)
reindex-not-concurrent: REINDEX TABLE t
rewrite-table: CLUSTER t USING t_required_idx
rewrite-table: ALTER TABLE t SET UNLOGGED
truncate: TRUNCATE t
"""

# Statements that change the catalog only, or let others read and write while they look at rows.
CHEAP = """
ALTER TABLE t ADD COLUMN c integer
ALTER TABLE t ADD COLUMN c integer NOT NULL DEFAULT 5
ALTER TABLE t ADD COLUMN c timestamptz DEFAULT now()
ALTER TABLE t ADD COLUMN c text DEFAULT lower('A') || current_date
ALTER TABLE t ADD COLUMN c integer REFERENCES o (id)
ALTER TABLE t ADD COLUMN c plain
ALTER TABLE t ALTER v TYPE varchar(100)
ALTER TABLE t ALTER v TYPE varchar
ALTER TABLE t ALTER v TYPE text
ALTER TABLE t ALTER txt TYPE varchar
ALTER TABLE t ALTER num TYPE numeric(12, 2)
ALTER TABLE t ALTER num TYPE numeric
ALTER TABLE t ALTER ts3 TYPE timestamp(6)
ALTER TABLE t ALTER tz3 TYPE timestamptz
ALTER TABLE t ALTER net TYPE inet
ALTER TABLE t ALTER bits TYPE varbit(100)
ALTER TABLE t ALTER n TYPE integer
ALTER TABLE t ALTER required SET NOT NULL
ALTER TABLE t ALTER proven SET NOT NULL
ALTER TABLE t ADD CHECK (n > 0) NOT VALID
ALTER TABLE t VALIDATE CONSTRAINT unproven
ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES o (id) NOT VALID
ALTER TABLE t ADD CONSTRAINT k UNIQUE USING INDEX t_id_idx
ALTER TABLE t DROP CONSTRAINT unproven
ALTER TABLE t SET (fillfactor = 70)
ALTER TABLE t ALTER n SET STATISTICS 10
ALTER TABLE t ALTER n SET (n_distinct = 5)
ALTER TABLE t ALTER n SET DEFAULT 3
ALTER TABLE t ALTER required DROP NOT NULL
ALTER TABLE t ALTER n SET STORAGE PLAIN
ALTER TABLE t DISABLE TRIGGER ALL
ALTER TABLE t ENABLE ROW LEVEL SECURITY
ALTER TABLE t REPLICA IDENTITY FULL
ALTER TABLE t CLUSTER ON t_required_idx
ALTER TABLE t SET WITHOUT CLUSTER
ALTER TABLE t RENAME CONSTRAINT unproven TO other
ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2)
CREATE TABLE part_3 PARTITION OF part FOR VALUES IN (3)
CREATE TABLE k (n integer REFERENCES o (id))
CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()
DROP TRIGGER trg ON t
CREATE POLICY other ON t
DROP POLICY pol ON t
CREATE RULE r AS ON DELETE TO t DO ALSO NOTHING
COMMENT ON COLUMN t.n IS 'x'
LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE
UPDATE t SET n = 2 WHERE id = 3
"""

# Statements whose locks matter, and whose rules are about something else.
LOCKING = """
ALTER TABLE t DROP COLUMN n
ALTER TABLE t RENAME TO tt
ALTER TABLE t RENAME n TO m
ALTER TABLE t SET SCHEMA s
ALTER TABLE part DETACH PARTITION part_1
DROP INDEX t_v_idx
DROP TABLE o
DROP VIEW vw
ALTER VIEW vw RENAME TO vw2
REFRESH MATERIALIZED VIEW mv
REFRESH MATERIALIZED VIEW CONCURRENTLY mv
LOCK TABLE t
LOCK TABLE t, o IN SHARE ROW EXCLUSIVE MODE
"""
PARTITIONS = {"part_1", "part_2"}  # lint names the table that they belong to

COSTS = [(line.partition(": ")[0], line.partition(": ")[2]) for line in COSTLY.strip().splitlines()]
HARMLESS = [("", line) for line in CHEAP.strip().splitlines()]
STATEMENTS = [statement for _, statement in COSTS + HARMLESS] + LOCKING.strip().splitlines()

_LOCKS = """
SELECT DISTINCT coalesce(n.name, c.relname), l.mode
FROM pg_locks l LEFT JOIN names n ON n.id = l.relation LEFT JOIN pg_class c ON c.oid = l.relation
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND (n.kind IS NULL OR n.kind IN ('r', 'p', 'v', 'm'))
"""
_BLOCKING = {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module", params=[pytest.param(16, marks=pytest.mark.soak), 18])
def connection(request: pytest.FixtureRequest, postgres_of: Callable[[int], Postgres]) -> Iterator[Connection]:
    """Give a connection to TABLES with rows, on the oldest and the newest server; each test rolls back."""
    server = postgres_of(request.param)
    with server.database() as name, psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute(f"{TABLES}{ROWS}".encode())
        # Names as they were before the statement: what it drops or renames keeps its number.
        connection.execute(
            "CREATE TEMP TABLE names AS SELECT oid AS id, relname::text AS name, relkind::text AS kind "
            "FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
        yield connection


def known() -> Catalog:
    """Give what the files would have told of TABLES."""
    catalog = Catalog()
    for statement in split(TABLES):
        catalog.apply(parse(statement.text).node)
    catalog.begin_file()
    return catalog


@pytest.fixture(scope="module")
def findings_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[lint.Finding]]:
    """Look at one statement behind TABLES; the same for each server."""

    @cache
    def look(statement: str) -> list[lint.Finding]:
        folder = Folder(tmp_path_factory.mktemp("claims") / "versions")
        world = migration(folder, TABLES)
        return lint.check([migration(folder, f"{statement};")], before=[world])

    return look


def files_and_scans(connection: Connection) -> tuple[dict[object, object], object]:
    """Give the file of each table and index, and how often tables were read from end to end in this transaction."""
    files = "SELECT id, pg_relation_filenode(id) FROM names WHERE kind IN ('r', 'i', 'm')"
    scans = "SELECT pg_stat_get_xact_numscans('t'::regclass) + pg_stat_get_xact_numscans('o'::regclass)"
    return {row[0]: row[1] for row in connection.execute(files)}, connection.execute(scans).fetchall()


@pytest.mark.parametrize(("rule", "statement"), COSTS + HARMLESS, ids=lambda text: text[:70])
def test_what_is_found_costs_and_what_is_not_found_does_not(
    rule: str, statement: str, connection: Connection, findings_for: Callable[[str], list[lint.Finding]]
) -> None:
    with connection.transaction(force_rollback=True):
        table = connection.execute("SELECT 't'::regclass::oid").fetchall()[0][0]
        files_before, scans_before = files_and_scans(connection)
        connection.execute(statement.encode())
        files_after, scans_after = files_and_scans(connection)
        modes = {mode for name, mode in connection.execute(_LOCKS) if name in ("t", "o")}
    rewritten = {id_ for id_, file in files_after.items() if file is not None and file != files_before[id_]}
    scanned = scans_after != scans_before and bool(modes & _BLOCKING)

    assert bool(rewritten or scanned) is (rule != "")
    findings = findings_for(statement)
    assert [finding.rule for finding in findings] == ([rule] if rule else [])
    if rule in ("add-column-rewrite", "change-column-type", "rewrite-table"):
        says = any(word in findings[0].message for word in ("is rewritten", "rewrites t"))
        assert says is (table in rewritten)


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda text: text[:70])
def test_the_tables_that_it_locks_for_everybody_are_those_that_lint_names(
    statement: str, connection: Connection
) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(statement.encode())
        locked = {str(name) for name, mode in connection.execute(_LOCKS) if mode == "AccessExclusiveLock"}
        existing = {str(name) for (name,) in connection.execute("SELECT name FROM names WHERE kind <> 'i'")}

    told = {name.name for name in access_exclusive(parse(statement).node, known().indexes)}
    assert told == locked & existing - PARTITIONS


def test_the_functions_are_as_volatile_as_the_server_says(connection: Connection) -> None:
    query = (
        "SELECT proname, provolatile FROM pg_proc WHERE proname = ANY(%s) AND pronamespace = 'pg_catalog'::regnamespace"
    )
    kinds: dict[str, set[str]] = {}
    for name, kind in connection.execute(query, [[*volatility.IMMUTABLE, *volatility.STABLE]]):
        kinds.setdefault(str(name), set()).add(str(kind))

    assert {name for name in kinds if "v" in kinds[name]} == set()
    assert {name for name in volatility.IMMUTABLE if "i" not in kinds[name]} == set()
    assert volatility.STABLE - set(kinds) == set()


def test_the_extensions_are_those_that_the_server_trusts(connection: Connection) -> None:
    query = "SELECT name FROM pg_available_extension_versions GROUP BY name HAVING bool_and(trusted)"
    trusted = {str(name) for (name,) in connection.execute(query)}

    # Procedural languages in other languages come from the system's packages, where they are installed.
    assert trusted - session.TRUSTED <= {"plperl", "bool_plperl", "jsonb_plperl", "hstore_plperl", "pltcl"}
    assert trusted >= session.TRUSTED
