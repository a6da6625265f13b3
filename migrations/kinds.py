"""What a statement is as far as running it goes: how it may wait for locks, whether it can share a transaction."""

from typing import NamedTuple

from migrations.statements import Statement, Token, tokens

# What begins a statement that, together with a row of the ledger, can be one transaction.
_PLAIN = frozenset(
    "ALTER ANALYZE COMMENT CREATE DELETE DROP GRANT INSERT MERGE REFRESH REVOKE SECURITY SELECT TRUNCATE UPDATE "
    "WITH".split()
)
_NEVER_IN_A_TRANSACTION = {"DATABASE", "SUBSCRIPTION", "SYSTEM", "TABLESPACE"}
_CHANGES_ROWS = {"DELETE", "INSERT", "MERGE", "UPDATE", "WITH"}


class ConcurrentIndex(NamedTuple):
    """What a CREATE INDEX CONCURRENTLY builds; name and table as they stand in the statement, quotes and all."""

    name: str
    table: str
    unique: bool


def waits_unnoticed(statement: Statement) -> bool:
    """Tell whether nobody queues behind the statement while it waits, and a timeout would only leave it half done.

    It takes SHARE UPDATE EXCLUSIVE, which reads and writes pass, and waits for transactions to end (manual, CREATE
    INDEX, REINDEX, VACUUM, ALTER TABLE DETACH PARTITION). VACUUM FULL locks everybody out.
    """
    words = statement.words
    return ("CONCURRENTLY" in words and words[:1] != ("REFRESH",)) or (words[:1] == ("VACUUM",) and "FULL" not in words)


def can_share_a_transaction(statement: Statement) -> bool:
    """Tell whether the statement and what we note about it can be kept together, or not at all.

    A routine that is called, and a DO block, may end transactions itself.
    """
    words = statement.words
    return (
        words[:1] != ()
        and words[0] in _PLAIN
        and "CONCURRENTLY" not in words
        and _NEVER_IN_A_TRANSACTION.isdisjoint(words[1:3])
    )


def is_setting(statement: Statement) -> bool:
    """Tell whether the statement only changes the session, so that a run that goes on needs it again."""
    return statement.words[:1] in (("SET",), ("RESET",))


def changes_settings(statement: Statement) -> bool:
    """Tell whether the statement may change a setting of the session."""
    return is_setting(statement) or "SET_CONFIG" in statement.words


def is_concurrent_build(statement: Statement) -> bool:
    """Tell whether this is a CREATE INDEX CONCURRENTLY."""
    words = [word for word in statement.words[:4] if word != "UNIQUE"]
    return words[:3] == ["CREATE", "INDEX", "CONCURRENTLY"]


def read(statement: Statement) -> ConcurrentIndex | None:
    """Take name and table from a CREATE INDEX CONCURRENTLY; None where it gives the index no name we can read."""
    found = [token for token in tokens(statement.text) if token.kind not in ("space", "comment")]
    words = [token.text.upper() for token in found]
    at = words.index("CONCURRENTLY") + 1
    if words[at : at + 3] == ["IF", "NOT", "EXISTS"]:
        at += 3
    if words[at : at + 1] == ["ON"] or words[at + 1 : at + 2] != ["ON"] or not _is_name(found[at]):
        return None
    name = found[at].text
    at += 3 if words[at + 2 : at + 3] == ["ONLY"] else 2
    if at >= len(found):
        return None
    table = [found[at].text]
    while words[at + 1 : at + 2] == ["."]:
        table.append(found[at + 2].text)
        at += 2
    return ConcurrentIndex(name, ".".join(table), unique="UNIQUE" in words[:2])


def problem(statement: Statement, *, transactional: bool) -> tuple[str, str] | None:
    """Say why the statement cannot stand where it stands, and what to do; None where it can."""
    words = statement.words
    if is_concurrent_build(statement) and read(statement) is None:
        return (
            "CREATE INDEX CONCURRENTLY without a name: were it interrupted, the next run could not find what it left.",
            "Name the index as PostgreSQL would: table_column_idx.",
        )
    if not statement.repeated:
        return None
    if transactional:
        return (
            "`-- repeat until no rows` in a file that is one transaction: its locks would last until the last row.",
            "Put it into a file of its own with the line `-- transaction: none`.",
        )
    if words[:1] == () or words[0] not in _CHANGES_ROWS or (words[0] == "WITH" and _CHANGES_ROWS.isdisjoint(words[1:])):
        return (
            "`-- repeat until no rows` before a statement that changes no rows, so that it would never end.",
            "Let it stand before an INSERT, UPDATE, DELETE or MERGE only.",
        )
    if "UPDATE" in words and "WHERE" not in words:
        return (
            "`-- repeat until no rows` before an UPDATE without WHERE, which finds the same rows each time.",
            "Leave out the rows that are done: WHERE the new value IS NULL, for example.",
        )
    return None


def _is_name(token: Token) -> bool:
    return token.kind == "word" or (token.kind == "string" and token.text.startswith('"'))
