"""What poolers and proxies say in their own words: PgBouncer, and the providers' own.

PgBouncer's texts were seen with 1.18 and 1.24. Supavisor's are those of its sources (lib/supavisor/errors), Neon's of
its documentation ("Connection errors"), RDS Proxy's of the Amazon RDS user guide ("Troubleshooting for RDS Proxy").
"""

from shared.db.diagnosis_row import Row

_DIRECT = "For what needs a session (migrations, LISTEN, advisory locks) use the server's own address: DIRECT_URL."

ROWS = (
    Row(
        "unsupported_startup_parameter",
        "The pooler at {host}:{port} does not take a parameter that is sent when connecting: {parameter}.",
        (
            "Remove options and the like from the URL; set them at the role: ALTER ROLE {role:sql} SET NAME = VALUE;",
            "If a pooler stands at a plain name, say so: add pgbouncer=true to the URL, and no options are sent.",
            "PgBouncer's ignore_startup_parameters drops them silently, and they are not in force.",
        ),
        says=r"unsupported startup parameter( in options)?: (?P<parameter>[\w.]+)|unsupported options startup parameter"
        r"|RDS Proxy currently doesn.t support the option (?P<parameter_>[\w.]+)",
    ),
    Row(
        "pooler_session_mode_full",
        "The session pooler at {host}:{port} keeps a server connection for each client, and all {limit} are taken.",
        (
            "Use the transaction pooler: port 6543 in the same connection string. Functions belong there.",
            "Make the pool smaller: DATABASE_POOL_MAX=1; or raise the pool size in the provider's settings.",
        ),
        says=r"MaxClientsInSessionMode|EMAXCONNSESSION|max clients reached in session mode"
        r"[^\n]*(pool_size: (?P<limit>\d+))?",
    ),
    Row(
        "pooler_too_many_clients",
        "The pooler at {host}:{port} has as many clients as it may have.",
        (
            "Make the pool smaller: DATABASE_POOL_MAX=2; and bound the instances (reservedConcurrency on Lambda).",
            "Raise the pooler's limit: max_client_conn of PgBouncer, a larger plan at a provider.",
        ),
        says="no more connections allowed|max client connections reached|EMAXCONN\\b|EMAXCLIENTCONN"
        "|maximum number of client connections to the proxy exceeded|Rate of connection to proxy exceeded",
    ),
    Row(
        "pooler_no_free_connection",
        "The pooler at {host}:{port} found no free server connection in time: all are busy, or the server is down.",
        (
            "Look for slow statements and for transactions held open: SELECT pid, state, now() - xact_start, query "
            "FROM pg_stat_activity ORDER BY 3 DESC NULLS LAST;",
            "Check that the server behind the pooler answers: the provider's console, or DIRECT_URL.",
            "Raise the pooler's size: default_pool_size of PgBouncer, the pool size in the provider's settings.",
        ),
        says="query_wait_timeout|ECHECKOUTTIMEOUT|Pool checkout timeout|unable to check out connection from the pool"
        "|Timed-out waiting to acquire database connection",
    ),
    Row(
        "pooler_query_timeout",
        "The pooler at {host}:{port} ended the connection: a statement took longer than its query_timeout.",
        ("Make the statement faster, or raise query_timeout of PgBouncer.", _DIRECT),
        says=r"(^|FATAL:\s+)query[ _]timeout",
    ),
    Row(
        "pooler_idle_transaction_timeout",
        "The pooler at {host}:{port} ended the connection: a transaction stayed idle for longer than it allows.",
        (
            "Do nothing slow, such as a call to another service, inside transaction().",
            "Or raise idle_transaction_timeout of PgBouncer.",
        ),
        says="idle transaction timeout|idle_transaction_timeout",
    ),
    Row(
        "pooler_database_disabled",
        "The pooler at {host}:{port} was told to let nobody into the database {database}.",
        ("ENABLE {database} on PgBouncer's console, once the work that it was disabled for is over.",),
        says='database "(?P<database>[^"\n]+)" is disabled|database does not allow connections',
    ),
    Row(
        "pooler_cannot_log_in",
        "The pooler at {host}:{port} cannot log in to the server behind it.",
        (
            "Its log has the server's own words: a password that was changed, a wrong database, TLS.",
            "Check that the server behind the pooler answers: the provider's console, or DIRECT_URL.",
        ),
        says="server login (has been )?fail|server_login_retry|pgbouncer cannot connect to server",
    ),
    Row(
        "duplicate_prepared_statement",
        "A prepared statement exists already: a transaction pooler gave this client another's server connection.",
        (
            "Prepare nothing behind a pooler: prepare_threshold=None with psycopg; shared.db does so.",
            "Or PgBouncer 1.21 or newer with max_prepared_statements above 0.",
            _DIRECT,
        ),
        sqlstates=("42P05",),
    ),
    Row(
        "invalid_sql_statement_name",
        "A prepared statement does not exist: a transaction pooler gave this client another server connection.",
        (
            "Prepare nothing behind a pooler: prepare_threshold=None with psycopg; shared.db does so.",
            "Or PgBouncer 1.21 or newer with max_prepared_statements above 0.",
            _DIRECT,
        ),
        sqlstates=("26000",),
    ),
    Row(
        "invalid_cursor_name",
        "A cursor does not exist: its transaction ended, or a transaction pooler gave this client another connection.",
        ("Read a cursor to its end inside one transaction; db.stream() does so.", _DIRECT),
        sqlstates=("34000",),
    ),
    # -- Supabase --
    Row(
        "supabase_tenant_not_found",
        "Supabase's pooler at {host} does not know the project in the user name {user}.",
        (
            "Copy the pooler's connection string anew: the user is postgres.PROJECT, and host and region are its own.",
            "A paused or deleted project is not known either: look at Supabase's dashboard.",
        ),
        says=r"Tenant or user not found|\(ENOTFOUND\)|tenant/user .* not found|no tenant identifier provided"
        "|external_id or sni_hostname",
    ),
    Row(
        "supabase_blocked",
        "Supabase's pooler at {host} takes no connections for this project for a while.",
        (
            "After too many wrong passwords: correct the password everywhere, then wait some minutes.",
            "Where the project is banned, Supabase's dashboard tells why.",
        ),
        says="ECIRCUITBREAKER|too many authentication (failures|errors)|EBANNED|tenant is banned",
    ),
    # -- Neon --
    Row(
        "neon_endpoint_disabled",
        "The Neon compute of {host} was switched off, and does not wake by itself.",
        ("Enable the compute in Neon's console, or by its API.",),
        says="endpoint (is|has been) disabled",
    ),
    Row(
        "neon_quota_exceeded",
        "The Neon project of {host} has used up what its plan allows.",
        ("Wait for the next period, or take a larger plan in Neon's console.",),
        says="exceeded the (compute time|data transfer|written data|active time) quota"
        "|exceeded the limit of concurrently active endpoints",
    ),
    Row(
        "neon_compute_unreachable",
        "Neon's proxy at {host} could not reach the compute: most often one that is waking up.",
        ("Try again in some seconds. If it stays so, look at Neon's status page.",),
        says="Couldn't connect to compute node|Control plane request failed|Failed to acquire permit to connect",
    ),
    Row(
        "neon_endpoint_id_missing",
        "Neon's proxy cannot tell which compute is meant: the client did not send the host name with TLS (SNI).",
        (
            "Use the host name of Neon's connection string, not an address, with sslmode=require.",
            "Or add options=endpoint%3DID to the URL; the ID is the first part of the host name.",
        ),
        says="endpoint ID is not specified",
    ),
    # -- Amazon --
    Row(
        "rds_proxy_no_credentials",
        "The RDS Proxy at {host} has no secret for the role {user}.",
        ("Put user and password into a secret of Secrets Manager, and name the secret in the proxy's auth settings.",),
        says="RDS proxy has no credentials for the role (?P<user>[^\\s.]+)",
    ),
    Row(
        "rds_iam_failed",
        "Amazon refused the IAM token for the role {user}.",
        (
            "A token lives 15 minutes: make a new one for each connection, for this host, port, region and user.",
            "The function's role needs rds-db:connect, and the database role rds_iam: GRANT rds_iam TO {role:sql};",
        ),
        says="IAM authentication failed",
    ),
)
