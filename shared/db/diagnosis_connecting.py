"""Why no connection can be made: the URL, the network, who may log in, and whether there is room.

The words are those of PostgreSQL 16 to 18, libpq 18, psycopg 3.3, pg8000 1.31 and of Python's socket module.
"""

from shared.db.diagnosis_row import Row

# What a server says comes before what a network does: of several addresses one may be refused, and another tell why.
ROWS = (
    Row(
        "malformed_url",
        "The connection string cannot be read: most often a character of the password means something in a URL.",
        (
            "Percent-encode user and password: / is %2F, ? is %3F, # is %23, @ is %40, : is %3A, % is %25.",
            "Write it as postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require.",
            "In SQLAlchemy the URL begins with postgresql+psycopg:// or postgresql+pg8000://, never with postgres://.",
        ),
        says=r'invalid percent-encoded token|missing "=" after "|invalid integer value "|Servname not supported'
        r"|missing key/value separator|could not parse SQLAlchemy URL|Can't load plugin: sqlalchemy.dialects",
    ),
    Row(
        "unknown_connection_parameter",
        # Its name is not repeated: behind an unescaped ? it may be a piece of the password.
        "The connection string has a parameter that the driver does not know, such as pool_timeout or pgbouncer.",
        (
            "Remove it from the URL; shared.db.url understands other clients' parameters, drivers do not.",
            "If the password has a ? in it, write it as %3F.",
            "With pg8000 in SQLAlchemy give sslmode, channel_binding, connect_timeout and options as connect_args.",
        ),
        says=r"invalid (URI query parameter|connection option)|connect\(\) got an unexpected keyword argument",
    ),
    # -- who may log in --
    Row(
        "invalid_password",
        "The server refused the user {user} or the password: one of them is wrong, or belongs to another environment.",
        (
            "Copy the connection string of {host} anew from the provider; passwords are changed there.",
            "Percent-encode the password in the URL: / is %2F, ? is %3F, @ is %40, % is %25.",
            "On Vercel and Lambda deploy again: a running function keeps the variables that it started with.",
            "At a pooler, the user must be known to it too: userlist.txt or auth_query of PgBouncer.",
            "On Amazon with IAM, the token is older than 15 minutes, or the role has no rds_iam.",
        ),
        says="(password|SASL|PAM) authentication failed|password that was provided for the role",
        sqlstates=("28P01",),
    ),
    Row(
        "no_password",
        "The server asks for a password, and the connection string has none.",
        ("Write it behind the user: postgresql://{user}:PASSWORD@{host}:{port}/{database}.",),
        says="no password supplied|no password was provided",
    ),
    Row(
        "role_may_not_log_in",
        "The role {user} exists, but may not log in.",
        ("ALTER ROLE {user:sql} LOGIN; or use a role that may.",),
        says='role "(?P<user>[^"\n]+)" is not permitted to log in',
        sqlstates=("28000",),
        needs_words=True,
    ),
    Row(
        "pg_hba_rejects",
        "A line of the server's pg_hba.conf rejects the user {user} from the address {address} for {database}.",
        (
            "Let this address in: the provider's list of allowed addresses, or pg_hba.conf and a reload.",
            "Functions have no fixed address: allow all and rely on TLS and the password, or use a private network.",
        ),
        says=r'pg_hba\.conf rejects connection for host "(?P<address>[^"\n]+)", user "(?P<user>[^"\n]+)"'
        r'(, database "(?P<database>[^"\n]+)")?',
        sqlstates=("28000",),
        needs_words=True,
    ),
    Row(
        "no_pg_hba_entry",
        "The server has no pg_hba.conf entry for the user {user} from the address {address} for the database "
        "{database}, {encryption}.",
        (
            'Where it says "no encryption", add sslmode=require to the connection string: most servers want TLS.',
            "Let this address in: the provider's list of allowed addresses, or pg_hba.conf and a reload.",
            "On your own server: hostssl {database} {user} ADDRESS scram-sha-256",
        ),
        says=r'no pg_hba\.conf entry for (host|replication connection from host) "(?P<address>[^"\n]+)", '
        r'user "(?P<user>[^"\n]+)"(, database "(?P<database>[^"\n]+)")?, (?P<encryption>no encryption|SSL encryption)?',
        sqlstates=("28000",),
        needs_words=True,
        is_vague=True,
    ),
    Row(
        "invalid_authorization_specification",
        "The server does not let the user {user} in from here.",
        ("Compare user, database and address with pg_hba.conf, or with the provider's access rules.",),
        sqlstates=("28000",),
    ),
    Row(
        "invalid_catalog_name",
        "The database {database} does not exist on {host}.",
        (
            "Compare its name with the provider's connection string; names are case-sensitive.",
            "CREATE DATABASE {database:sql}; as a role that may.",
        ),
        says='database "(?P<database>[^"\n]+)" does not exist|no such database(: (?P<database_>\\S+))?',
        sqlstates=("3D000",),
    ),
    Row(
        "may_not_connect",
        "The role {user} may not connect to the database {database}.",
        ("GRANT CONNECT ON DATABASE {database:sql} TO {role:sql};",),
        says='permission denied for database "(?P<database>[^"\n]+)"',
        sqlstates=("42501",),
        needs_words=True,
    ),
    Row(
        "database_closed",
        "The database {database} accepts no connections: somebody switched them off, as before it is renamed.",
        ("ALTER DATABASE {database:sql} ALLOW_CONNECTIONS true; once that work is over.",),
        says='database "(?P<database>[^"\n]+)" is not currently accepting connections',
        sqlstates=("55000",),
        needs_words=True,
    ),
    # -- is there room --
    Row(
        "too_many_connections_for_role",
        "The role {user} has as many connections as it may have.",
        (
            "Close what is not needed: end programs of your own with close_db(), and make DATABASE_POOL_MAX smaller.",
            "Put a pooler in between, or raise the limit: ALTER ROLE {user:sql} CONNECTION LIMIT N;",
        ),
        says='too many connections for role "(?P<user>[^"\n]+)"',
        sqlstates=("53300",),
        needs_words=True,
    ),
    Row(
        "too_many_connections_for_database",
        "The database {database} has as many connections as it may have.",
        (
            "Close what is not needed: end programs of your own with close_db(), and make DATABASE_POOL_MAX smaller.",
            "Put a pooler in between, or raise the limit: ALTER DATABASE {database:sql} CONNECTION LIMIT N;",
        ),
        says='too many connections for database "(?P<database>[^"\n]+)"',
        sqlstates=("53300",),
        needs_words=True,
    ),
    Row(
        "too_many_connections",
        "The server {host} has no room for another connection: many instances, each with a pool of its own, or "
        "connections that are not given back.",
        (
            "Make the pool smaller: DATABASE_POOL_MAX=5; and bound the instances (reservedConcurrency on Lambda).",
            "Put an external pooler in between: the provider's pooled connection string, or PgBouncer.",
            "See who is connected: SELECT application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2;",
            "Look for connections held while something slow is done, and end programs of your own with close_db().",
            "Raise max_connections, where the server's memory allows for it.",
        ),
        says="too many clients already|connection slots are reserved|too many connections",
        sqlstates=("53300",),
    ),
    # -- is it ready --
    Row(
        "server_starting",
        "The server {host} is starting, or recovers from a crash; it takes connections when it is done.",
        ("Wait: seconds as a rule, minutes after a crash with much to replay. The app needs no restart.",),
        says="the database system is (starting up|in recovery mode)",
        sqlstates=("57P03",),
        needs_words=True,
    ),
    Row(
        "server_stopping",
        "The server {host} is shutting down.",
        (
            "Wait until it is back: a restart, an upgrade or a failover. The app needs no restart.",
            "Does it stay so, somebody's open connection holds up a smart shutdown: close it, or stop with -m fast.",
        ),
        says="the database system is shutting down",
        sqlstates=("57P03",),
        needs_words=True,
    ),
    Row(
        "standby_not_ready",
        "The server {host} is a standby that has not yet reached a consistent state.",
        ("Wait until it has caught up; if it never does, look for the missing WAL in its log.",),
        says="the database system is not yet accepting connections",
        sqlstates=("57P03",),
        needs_words=True,
    ),
    Row(
        "hot_standby_disabled",
        "The server {host} is a standby that takes no connections: hot_standby is off.",
        ("Use the primary's address.", "To read from this one, set hot_standby = on and restart it."),
        says="the database system is not accepting connections",
        sqlstates=("57P03",),
        needs_words=True,
    ),
    Row(
        "cannot_connect_now",
        "The server {host} takes no connections at the moment: it starts, stops or recovers.",
        ("Wait and try again. If it stays so, the server's log has the reason.",),
        sqlstates=("57P03",),
    ),
    Row(
        "session_is_not_read_write",
        "No host of the connection string is of the kind that target_session_attrs asks for.",
        (
            "Is the primary among the hosts? After a failover it may be another one.",
            "Remove target_session_attrs to take any host.",
        ),
        says="session is (not )?read-only|session is not (read-write|primary|standby|read-only)|server is (not )?in hot"
        " standby",
    ),
    # -- is anybody there --
    Row(
        "not_postgresql",
        "What answers at {host}:{port} is not PostgreSQL.",
        (
            "Compare host and port with the provider's connection string: PostgreSQL's own port is 5432.",
            "A provider's HTTP address is not for database drivers.",
        ),
        says="received invalid response to SSL negotiation|expected authentication request from server, but received"
        "|is not PostgreSQL",
    ),
    Row(
        "unix_socket_missing",
        "There is no PostgreSQL at the Unix socket of {host}, port {port}.",
        (
            "Check that the server runs on this machine, and that unix_socket_directories has this directory.",
            "To use TCP, write a host: postgresql://{user}:PASSWORD@127.0.0.1:{port}/{database}.",
        ),
        says=r"on socket .*(No such file or directory|Connection refused)"
        r"|(?s:No such file or directory.*\(on a Unix socket\))",
    ),
    Row(
        "unknown_host",
        "The host name {host} cannot be resolved.",
        (
            "Compare it with the provider's connection string; the database may have been deleted or renamed.",
            "A name that only a private network knows needs the function in that network (VPC).",
            "If the password has @ or : in it, percent-encode it: a piece of it may have been taken for the host.",
        ),
        says="failed to resolve host|could not translate host name|Name or service not known|name resolution"
        "|No address associated with hostname|nodename nor servname|getaddrinfo failed|name server does not answer",
    ),
    Row(
        "host_unreachable",
        "The network has no way to {host}.",
        (
            "If the host has an IPv6 address only (Supabase's direct one has), use the provider's pooler: functions "
            "have IPv4.",
            "In a VPC, check routes and security groups.",
        ),
        says="Network is unreachable|No route to host|Cannot assign requested address|Address family not supported",
    ),
    Row(
        "connection_refused",
        "Nobody listens at {host}:{port}: the database is not running, host or port are wrong, or a firewall refuses.",
        (
            "Check that the database runs: the provider's console, or db postgres status in development.",
            "Compare host and port with the provider's connection string.",
            "Let the functions' addresses in: the provider's list of allowed addresses, or the security group.",
        ),
        says="Connection refused",
    ),
    Row(
        "pooler_without_server",
        "{host}:{port} answers and knows the password, but PostgreSQL does not come: a pooler or proxy whose server is "
        "down, wakes up, or has no free connection.",
        (
            "Check the server behind the pooler, directly: the provider's console, or DIRECT_URL.",
            "PgBouncer: SHOW DATABASES and SHOW SERVERS on its console, and its log. PAUSE looks the same: RESUME.",
            "PgBouncer tells a failed server login once, then stays silent for server_login_retry, 15 seconds.",
        ),
        says="authenticated, then silence",
        is_vague=True,
    ),
    Row(
        "server_silent",
        "{host}:{port} takes connections and says nothing: a server that hangs, or a forwarded port with none behind.",
        (
            "Check the server's load and its log; a restart may be needed.",
            "Check what stands between: a load balancer, a tunnel, a port forward.",
        ),
        says="accepts connections and says nothing",
    ),
    Row(
        "connection_timeout",
        "{host}:{port} did not answer in time: a firewall drops packets, the server hangs, or a database at rest is "
        "waking up.",
        (
            "Let the functions' addresses in: the provider's list of allowed addresses, or the security group.",
            "Compare host and port with the provider's connection string.",
            "A database that scales to zero takes seconds to wake: allow for it, connect_timeout=15 in the URL.",
        ),
        says="connection timeout expired|timed out|timeout expired",
        is_vague=True,
    ),
    # Last of all: what drivers say when they do not know either.
    Row(
        "connection_failure",
        "The connection to {host}:{port} broke: the server or a pooler restarted or crashed, or the network cut it.",
        (
            "Nothing to mend if it was once: the next request opens a new connection.",
            "If it goes on, look at the server's log: crashes, out of memory, a failover.",
            "A proxy or firewall in between may cut connections that are idle.",
        ),
        says="server closed the connection unexpectedly|unexpected eof|connection reset|reset by peer|broken pipe"
        "|network error|EOF detected|could not (send|receive) data|terminated abnormally|connection aborted"
        "|EOF occurred in violation of protocol|SSL_ERROR_SYSCALL|closed the connection|server conn crashed",
        sqlstates=("08000", "08001", "08003", "08004", "08006"),
        is_vague=True,
    ),
)
