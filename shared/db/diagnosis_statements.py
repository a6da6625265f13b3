"""Why a statement fails, or the connection that it ran on: the server's own words, SQLSTATE first."""

from shared.db.diagnosis_row import Row

ROWS = (
    # -- the connection was ended --
    Row(
        "admin_shutdown",
        "The server {host} ended the connection on an administrator's command: a restart, a failover, "
        "pg_terminate_backend, or a database that went to rest.",
        ("Nothing to mend: the next request opens a new connection.", "If it goes on, the server's log tells who."),
        says="terminating connection due to administrator command",
        sqlstates=("57P01",),
    ),
    Row(
        "recovery_conflict",
        "The standby {host} ended a read that kept it from replaying what the primary had done.",
        (
            "Run it again, as shared.db.replica does. What takes longer than max_standby_streaming_delay fails again.",
            "Send long reads to the primary, or raise max_standby_streaming_delay on the standby.",
            "hot_standby_feedback = on there has VACUUM on the primary wait for its reads.",
        ),
        says="due to conflict with recovery",
        sqlstates=("40001",),
        needs_words=True,
    ),
    Row(
        "database_dropped",
        "The database {database} was dropped while it was in use.",
        ("Compare DATABASE_URL: it may name a preview or test database that is gone.",),
        says="due to conflict with recovery",
        sqlstates=("57P04",),
    ),
    Row(
        "idle_session_timeout",
        "The server {host} closed a connection that was idle for longer than idle_session_timeout.",
        ("Let the pool close idle connections earlier: an idle limit below the server's.",),
        says="due to idle-session timeout",
        sqlstates=("57P05",),
    ),
    Row(
        "idle_in_transaction_session_timeout",
        "The server {host} ended a transaction that was left open and idle for too long.",
        (
            "Do nothing slow, such as a call to another service, inside transaction().",
            "A program that waits for a person must not hold a transaction open.",
        ),
        says="due to idle-in-transaction timeout",
        sqlstates=("25P03",),
    ),
    Row(
        "transaction_timeout",
        "The server {host} ended a transaction that took longer than transaction_timeout.",
        ("Make the transaction shorter: fewer rows at a time. Or raise transaction_timeout for it.",),
        says="due to transaction timeout",
        sqlstates=("25P04",),
    ),
    # -- time and locks --
    Row(
        "statement_timeout",
        "A statement took longer than statement_timeout, and the server cancelled it.",
        (
            "Look at its plan: EXPLAIN (ANALYZE, BUFFERS); a Seq Scan that throws most rows away wants an index.",
            "See who it waited for: SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity;",
            "For work that may take longer, SET LOCAL statement_timeout inside its transaction.",
        ),
        says="canceling statement due to statement timeout",
        sqlstates=("57014",),
        needs_words=True,
    ),
    Row(
        "query_canceled",
        "The server cancelled a statement: on request (a deadline, pg_cancel_backend, Ctrl-C), or by a time limit.",
        ("If nobody cancelled it, the request ran out of time: make the statement faster, or raise REQUEST_TIMEOUT.",),
        sqlstates=("57014",),
    ),
    Row(
        "lock_timeout",
        "A lock was not given within lock_timeout: another transaction holds it.",
        (
            "See who: SELECT pid, pg_blocking_pids(pid), state, query FROM pg_stat_activity WHERE wait_event_type = "
            "'Lock';",
            "Try again; keep transactions short, and change tables when little else runs.",
        ),
        says="due to lock timeout",
        sqlstates=("55P03",),
        needs_words=True,
    ),
    Row(
        "lock_not_available",
        "A lock was not given: another transaction holds it, and the statement does not wait (NOWAIT, lock_timeout).",
        ("Try again, or take other rows: FOR UPDATE SKIP LOCKED.",),
        sqlstates=("55P03",),
    ),
    Row(
        "serialization_failure",
        "Another transaction changed the same rows at the same time, and won.",
        ("Run the whole transaction again, from its first statement.",),
        sqlstates=("40001",),
    ),
    Row(
        "deadlock_detected",
        "Two transactions waited for each other, and the server ended this one.",
        (
            "Run the whole transaction again, from its first statement.",
            "Lock rows in the same order everywhere: ORDER BY id FOR UPDATE. The server's log has both statements.",
        ),
        sqlstates=("40P01",),
    ),
    # -- room --
    Row(
        "disk_full",
        "The server {host} has no room left on its disk, and refused what needs some.",
        (
            "Make its disk larger, or take a larger plan of the provider's.",
            "See what takes the room: db health. Write-ahead log is kept for slots and for an archive that fails.",
            "Drop or TRUNCATE what is not needed; what DELETE leaves is given back by VACUUM FULL only, which needs "
            "room itself.",
        ),
        sqlstates=("53100",),
    ),
    # -- standby and rights --
    Row(
        "read_only_sql_transaction",
        "A statement that writes met a read-only transaction: {host} is a standby, or was made read-only.",
        (
            "Is it a standby? SELECT pg_is_in_recovery(); if so, use the primary's address: after a failover it may "
            "be another one.",
            "shared.db.replica only reads: what writes belongs to shared.db.",
            "SHOW default_transaction_read_only; some providers set it when the disk is full.",
        ),
        sqlstates=("25006",),
    ),
    Row(
        "serializable_on_standby",
        "A standby cannot run serializable transactions.",
        ("Use REPEATABLE READ there, or the primary.",),
        says="cannot use serializable mode in a hot standby",
        sqlstates=("0A000",),
        needs_words=True,
    ),
    Row(
        "may_not_create_schema",
        "The role {user} may not create schemas in the database {database}.",
        ("GRANT CREATE ON DATABASE {database:sql} TO {role:sql};",),
        says='permission denied for database (?P<database>[^"\n]+)',
        sqlstates=("42501",),
        needs_words=True,
    ),
    Row(
        "may_not_create_table",
        "The role {user} may not use or create tables in the schema {schema}; since PostgreSQL 15 only a database's "
        "owner may create them in public.",
        ("GRANT USAGE, CREATE ON SCHEMA {schema:sql} TO {role:sql}; as the schema's owner.",),
        says='permission denied for schema (?P<schema>[^"\n]+)',
        sqlstates=("42501",),
        needs_words=True,
    ),
    Row(
        "may_not_create_extension",
        "The role {user} may not create the extension {extension}.",
        (
            "Have an administrator run: CREATE EXTENSION {extension:sql}; or enable it in the provider's console.",
            "Of a trusted extension the role needs only: GRANT CREATE ON DATABASE {database:sql} TO {role:sql};",
        ),
        says='permission denied to create extension "(?P<extension>[^"\n]+)"',
        sqlstates=("42501",),
        needs_words=True,
    ),
    Row(
        "insufficient_privilege",
        "The role {user} may not do that.",
        ("GRANT what is missing to {role:sql}, as the owner. The message in the log names the object.",),
        sqlstates=("42501",),
    ),
    Row(
        "extension_not_available",
        "The extension {extension} is not installed on the server {host}.",
        (
            "SELECT name FROM pg_available_extensions; shows what is.",
            "Install its package on your own server; a provider lists those that it has.",
        ),
        says='extension "(?P<extension>[^"\n]+)" is not available',
        sqlstates=("0A000",),
        needs_words=True,
    ),
    Row(
        "undefined_table",
        "The table {table} does not exist in {database}: most often the migrations did not run on it.",
        (
            "Run db migrate status with the function's DATABASE_URL, then db migrate.",
            "Is its schema in search_path? SHOW search_path;",
            "A temporary table behind a transaction pooler is gone with its transaction.",
        ),
        says='relation "(?P<table>[^"\n]+)" does not exist',
        sqlstates=("42P01",),
    ),
    # -- the connection, seen from here --
    Row(
        "network_timeout",
        "{host}:{port} stopped answering in the middle of a statement.",
        (
            "The statement may be slow: SELECT pid, state, wait_event, query FROM pg_stat_activity;",
            "Or the network drops packets: a firewall that forgets idle connections, a server that is gone.",
        ),
        says="no answer to a statement",
    ),
    Row(
        "connection_closed",
        "A connection was used after it was lost or closed.",
        ("The error before this one tells why it was lost.", "The next request opens a new connection."),
        says="the connection is (closed|lost)|^connection is closed",
    ),
    Row(
        "pool_timeout",
        "Every connection of this process stayed in use for as long as the caller could wait.",
        (
            "Look for slow statements, and for connections held while something else is done inside transaction().",
            "In SQLAlchemy close sessions and connections: use them in with blocks.",
            "Behind a pooler DATABASE_POOL_MAX may be larger.",
        ),
        says=r"QueuePool limit of size \d+ overflow \d+ reached",
    ),
    Row(
        "pool_closed",
        "The database was asked after close_db().",
        ("Call close_db() at the very end of a program, when nothing asks any more.",),
    ),
    Row(
        "transaction_resolution_unknown",
        "The connection was lost during COMMIT: whether the transaction was kept is not known.",
        (
            "Look whether what it wrote is there, before it is done again.",
            "Where doing it twice does no harm, say so to the retry; else give it a key of its own that is unique.",
        ),
        sqlstates=("08007",),
    ),
    Row(
        "deadline_exceeded",
        "The request's time was used up before the database had answered.",
        (
            "Look for the slow statement: its plan, and who it waited for (pg_blocking_pids).",
            "Functions and database in different regions make every statement slow: put them together.",
            "A longer limit: REQUEST_TIMEOUT, below Vercel's maxDuration and Lambda's timeout.",
        ),
    ),
)
