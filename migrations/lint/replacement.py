"""Replace a column by another one while old and new code run side by side: expand, backfill, contract.

A trigger keeps both in step, whichever of them the code writes.
"""

from migrations.lint import backfill
from migrations.lint.catalog import Table
from migrations.lint.finding import Safe, SafeFile
from migrations.lint.rule import LATER, act, allowed, one, outside
from migrations.lint.syntax import Name, operand, quoted, unquoted


def files(table: Name, known: Table, old: Name, new: str, *, written: str, value: str) -> Safe:
    """Give the files: `value` computes the new column, of the type `written`, from the old one."""
    column = unquoted(new)
    trigger = table.derived(column.name, "sync")
    function = table.beside(trigger)
    computed = of_new_row(table, value)
    body = (
        f"IF TG_OP = 'INSERT' AND NEW.{new} IS NOT NULL THEN\n"
        f"        NEW.{old.text} := NEW.{new};\n"
        f"    ELSIF TG_OP = 'UPDATE' AND NEW.{new} IS DISTINCT FROM OLD.{new}\n"
        f"            AND NEW.{new} IS DISTINCT FROM {computed} THEN\n"
        f"        NEW.{old.text} := NEW.{new};\n"
        f"    ELSE\n"
        f"        NEW.{new} := {computed};\n"
        f"    END IF;"
    )
    expand = one(act(table, f"ADD COLUMN {new} {written}"), *triggered(table, trigger, function, body))
    fill = outside(backfill.update(table, known.key, f"{new} = {value}", f"{new} IS DISTINCT FROM {operand(value)}"))
    contract = one(
        *without_trigger(table, trigger, function),
        allowed(
            "drop-column",
            f"no running code names {old.text} any more",
            act(table, f"DROP COLUMN {old.text}"),
        ),
        when=f"in a later deploy, {LATER}",
    )
    required = validated_not_null(table, column) if old.name in known.not_null else ()
    return (expand, fill, *required, contract)


def of_new_row(table: Name, expression: str) -> str:
    """Compute an expression over the row that a trigger is given, its columns named as the file names them."""
    return f"(SELECT {expression} FROM (SELECT NEW.*) AS {quoted(table.name)})"  # noqa: S608 - shown, never run


def triggered(table: Name, trigger: str, function: str, body: str) -> list[str]:
    """Write a row trigger and its function."""
    return [
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        f"BEGIN\n    {body}\n    RETURN NEW;\nEND\n$$;",
        f"CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE ON {table.text}\n"
        f"FOR EACH ROW EXECUTE FUNCTION {function}();",
    ]


def without_trigger(table: Name, trigger: str, function: str) -> list[str]:
    """Write what takes the trigger and its function away."""
    return [
        f"DROP TRIGGER {trigger} ON {table.text};",
        allowed("drop-object", "only the trigger called it", f"DROP FUNCTION {function}();"),
    ]


def validated_not_null(table: Name, *columns: Name, then: tuple[str, ...] = ()) -> tuple[SafeFile, SafeFile]:
    """Make columns NOT NULL by way of a CHECK: the scan that validates it lets reads and writes pass."""
    checks = {table.derived(column.name, "not_null"): column for column in columns}
    return (
        one(
            *(
                act(table, f"ADD CONSTRAINT {check} CHECK ({column.text} IS NOT NULL) NOT VALID")
                for check, column in checks.items()
            ),
            when="once no row is without a value, and no running code leaves it out",
        ),
        one(
            *(act(table, f"VALIDATE CONSTRAINT {check}") for check in checks),
            *(act(table, f"ALTER COLUMN {column.text} SET NOT NULL") for column in columns),
            *then,
            *(act(table, f"DROP CONSTRAINT {check}") for check in checks),
        ),
    )
