"""The session and the server: settings that outlive a file, extensions that ask for rights."""

from collections.abc import Iterator

from migrations.lint.finding import Safe
from migrations.lint.nodes import AlterTable, Change, Create, CreateIndex, CreateTable, Setting
from migrations.lint.rule import Context, Rule, Step, Trouble, allowed, one, outside
from migrations.lint.syntax import Cursor, Unrecognised

# A user with CREATE on the database may create them (manual 36.17.1, and appendix F); a test compares with the server.
TRUSTED = frozenset(
    "btree_gin btree_gist citext cube dict_int fuzzystrmatch hstore intarray isn lo ltree pg_trgm pgcrypto plpgsql seg "
    "tablefunc tcn tsm_system_rows tsm_system_time unaccent uuid-ossp".split()
)


def _search_path(context: Context) -> Iterator[Trouble]:
    setting = context.node
    if (
        not isinstance(setting, Setting)
        or setting.parameter not in ("search_path", "schema")
        or setting.scope == "RESET"
    ):
        return
    if setting.scope == "ROLE":
        sql = allowed("search-path", "every session was told to connect again", f"{context.statement.text};")
        yield Trouble(
            "Sessions that are open keep the old search_path: the same name means one table here and another there.",
            (one(sql),),
        )
        return
    schema = _schema_of(setting)
    safe: Safe = (one(*(_qualified(step, schema) for step in context.after)),) if schema and context.after else ()
    yield Trouble(
        "Another search_path gives other tables to the same names, in the migration's own records too. Leave it out, "
        f"and write the schema with each name: {schema or 'schema'}.name.",
        safe,
    )


def _schema_of(setting: Setting) -> str:
    cursor = Cursor(setting.text)
    try:
        cursor.advance()
        if not cursor.take("TO"):
            cursor.take_symbol("=")
        token = cursor.advance()
    except Unrecognised:
        return ""
    if token.kind == "string" and not token.text.endswith('"'):
        return token.text.strip("'").split(",")[0].strip()
    return token.text if token.kind in ("word", "string") and token.text.upper() != "DEFAULT" else ""


def _qualified(step: Step, schema: str) -> str:
    text = f"{step.statement.text};"
    match step.node:
        case AlterTable(table=name) | CreateTable(table=name) | CreateIndex(table=name) | Change(table=name):
            pass
        case Create(name=name, kind=kind) if kind not in ("TRIGGER", "POLICY", "RULE", "EXTENSION", "SCHEMA"):
            pass
        case _:
            return text
    return text if name.schema is not None else text.replace(name.text, f"{schema}.{name.text}", 1)


def _without_local(context: Context) -> Iterator[Trouble]:
    setting = context.node
    if not isinstance(setting, Setting) or setting.scope in ("LOCAL", "RESET", "ROLE"):
        return
    if setting.parameter in ("search_path", "schema"):
        return  # a rule of its own
    if not context.transactional:
        later = [step.node for step in context.after]
        if any(
            isinstance(node, Setting) and node.scope == "RESET" and node.parameter == setting.parameter
            for node in later
        ):
            return
        behind = [f"{step.statement.text};" for step in context.after]
        safe: Safe = (outside(f"SET {setting.text};", *behind, f"RESET {setting.parameter};"),)
    else:
        safe = (one(f"SET LOCAL {setting.text};"),)
    yield Trouble(
        f"SET {setting.parameter} outlives the file: the migrations after it run with it too.",
        () if setting.parameter.startswith("session ") else safe,
    )


def _extension(context: Context) -> Iterator[Trouble]:
    create = context.node
    if not isinstance(create, Create) or create.kind != "EXTENSION":
        return
    name = create.name
    trusted = name.name in TRUSTED
    if trusted and create.if_not_exists:
        return
    sql = f"CREATE EXTENSION IF NOT EXISTS {name.text};"
    if trusted:
        yield Trouble(
            f"Where an administrator has created {name.text} already, as some providers have, this fails.", (one(sql),)
        )
    else:
        sql = allowed("create-extension", f"an administrator has created {name.text} in every database", sql)
        yield Trouble(
            f"The extension {name.text} can be created by a superuser only, or by the provider's own way. Have it "
            "created in each database, then say so: the statement finds it there.",
            (one(sql),),
        )


RULES = (
    Rule(
        "search-path",
        "error",
        "`SET search_path`, also with `LOCAL`, by `set_config()`, or for a role or database",
        "The schema before each name",
        _search_path,
        ways=("up", "down"),
    ),
    Rule(
        "set-without-local",
        "error",
        "`SET` without `LOCAL`; with `-- transaction: none`, without `RESET` in the same file",
        "`SET LOCAL`",
        _without_local,
        ways=("up", "down"),
    ),
    Rule(
        "create-extension",
        "warning",
        "`CREATE EXTENSION` of one that is not trusted, or without `IF NOT EXISTS`",
        "`CREATE EXTENSION IF NOT EXISTS`, by an administrator before where it is not trusted",
        _extension,
    ),
)
