"""DATABASE_URL of any provider, parsed into one form.

The grammar is libpq's connection URI (PostgreSQL manual 34.1.1.2), read by us because libpq's own errors echo the
URL, and the password in it. Parameters of other clients are understood or refused by name; none reaches a driver.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from shared.errors import ConfigurationError

DEFAULT_PORT = 5432

# libpq's own (manual 34.1.2): these go to the driver as they are. Not hostaddr, which would lead elsewhere than the
# host that our rules look at, nor service, which names a file.
LIBPQ_PARAMETERS = frozenset(
    """
    application_name channel_binding client_encoding connect_timeout fallback_application_name gssencmode gsslib
    keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts options passfile
    require_auth requirepeer sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslmode sslnegotiation
    sslpassword sslrootcert sslsni ssl_max_protocol_version ssl_min_protocol_version target_session_attrs
    tcp_user_timeout
    """.split()
)

# Other clients': what each means to us. They are kept in `hints` and never passed on.
FOREIGN_PARAMETERS: Mapping[str, str] = {
    "pgbouncer": "Prisma: the server is a transaction pooler",
    "connection_limit": "Prisma: size of the pool",
    "pool_timeout": "Prisma: seconds to wait for a connection; 0 waits as long as the request's deadline allows",
    "schema": "Prisma: first schema of search_path",
    "socket_timeout": "Prisma: seconds that a query may take; our deadlines bound queries already",
    "statement_cache_size": "Prisma, asyncpg: prepared statements; we keep none behind a pooler",
    "prepared_statement_cache_size": "SQLAlchemy on asyncpg: as statement_cache_size",
    "prepared_statements": "Rails: as statement_cache_size",
    "prepare_threshold": "psycopg in SQLAlchemy URLs: as statement_cache_size",
    "prepareThreshold": "JDBC: as statement_cache_size",
    "sslaccept": "Prisma: `strict` is sslmode=verify-full, `accept_invalid_certs` sslmode=require",
    "ssl": "node-postgres, asyncpg, JDBC: `true` is sslmode=require; or an sslmode",
    "uselibpqcompat": "node-postgres: read sslmode as libpq does, as we always do",
    "supa": "Supabase: where the string was copied",
    "workaround": "Vercel's Supabase integration: nothing for us",
}

_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SCHEMES = {"postgres", "postgresql"}
_DRIVER_SUFFIXES = {"psycopg", "psycopg2", "psycopg2cffi", "psycopg_async", "pg8000"}
_PARAMETERS = LIBPQ_PARAMETERS | FOREIGN_PARAMETERS.keys() | {"host", "port", "user", "password", "dbname"}
_ENCODE = "Percent-encode them in the password: / is %2F, ? is %3F, # is %23, @ is %40, : is %3A, % is %25."
_EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require"
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Host:
    """One server of the connection string: a name, an address, or the directory of a Unix socket."""

    name: str
    port: int = DEFAULT_PORT

    @property
    def is_socket(self) -> bool:
        """Tell a Unix socket's directory (or an abstract one) from a host name."""
        return self.name.startswith(("/", "@"))

    @property
    def is_local(self) -> bool:
        """Tell whether the server is on this machine. Google's sockets under /cloudsql lead to one that is not."""
        if self.is_socket:
            return not self.name.startswith("/cloudsql/")
        return self.name.lower() in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", self.name))


@dataclass(frozen=True, slots=True)
class DatabaseURL:
    """A parsed connection string. Its repr, like `masked()`, never shows the password."""

    hosts: tuple[Host, ...]
    user: str = ""
    password: str | None = field(default=None, repr=False)
    database: str = ""
    # sslpassword is a secret too, so neither mapping is shown.
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    hints: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str, *, variable: str = "DATABASE_URL") -> "DatabaseURL":
        """Parse a connection string as a provider hands it out.

        Raises ConfigurationError, which names `variable` and what is wrong, and never repeats the value.
        """
        return _Parser(text, variable).parse()

    @property
    def host(self) -> str:
        """Give the first host's name."""
        return self.hosts[0].name

    @property
    def port(self) -> int:
        """Give the first host's port."""
        return self.hosts[0].port

    @property
    def is_local(self) -> bool:
        """Tell whether every host is on this machine."""
        return all(host.is_local for host in self.hosts)

    @property
    def sslmode(self) -> str | None:
        """Give libpq's sslmode, None where the string does not say."""
        return self.params.get("sslmode")

    def with_params(self, **params: str | None) -> "DatabaseURL":
        """Give a copy with these libpq parameters set, or removed where the value is None."""
        merged = {**self.params, **params}
        return replace(self, params={k: v for k, v in merged.items() if v is not None})

    def connect_kwargs(self) -> dict[str, str]:
        """Give the keyword arguments of `psycopg.connect`; holds the password."""
        kwargs = {
            "host": ",".join(host.name for host in self.hosts),
            "port": ",".join(str(host.port) for host in self.hosts),
            "user": self.user,
            "dbname": self.database,
            **self.params,
        }
        if self.password is not None:
            kwargs["password"] = self.password
        return {k: v for k, v in kwargs.items() if v != ""}

    def render(self, *, password: bool) -> str:
        """Write the connection string again, for libpq's tools; with `password=False` as `masked()`."""
        userinfo = quote(self.user, safe="")
        if self.password is not None:
            userinfo += ":" + (quote(self.password, safe="") if password else "********")
        query = dict(self.params)
        if not password and "sslpassword" in query:
            query["sslpassword"] = "********"
        locations = ",".join(f"{_quote_host(host.name)}:{host.port}" for host in self.hosts)
        text = f"postgresql://{userinfo + '@' if userinfo else ''}{locations}/{quote(self.database, safe='')}"
        if query:
            text += "?" + "&".join(f"{k}={quote(v, safe='/*')}" for k, v in sorted(query.items()))
        return text

    def masked(self) -> str:
        """Write the connection string with stars for the password: safe to print and to log."""
        return self.render(password=False)

    def __str__(self) -> str:
        return self.masked()


def _quote_host(name: str) -> str:
    return f"[{quote(name, safe=':')}]" if ":" in name and not name.startswith(("/", "@")) else quote(name, safe="")


class _Parser:
    """One pass over one string; every error names the variable and hides the value."""

    def __init__(self, text: str, variable: str) -> None:
        self.text = text.strip()
        self.variable = variable
        if len(self.text) > 1 and self.text[0] == self.text[-1] and self.text[0] in "\"'":
            self.text = self.text[1:-1].strip()

    def parse(self) -> DatabaseURL:
        if not self.text.isprintable():
            raise self._error("has a line break or another invisible character in it", "Copy it again, as one line.")
        rest = self._strip_scheme()
        authority, database, query = self._split(rest)
        userinfo, _, locations = authority.rpartition("@")
        user, colon, password = userinfo.partition(":")
        if (password.startswith("[") and password.endswith("]")) or set(password) == {"*"}:
            raise self._error(
                "still holds the provider's placeholder instead of a password",
                "Put the database password in its place, without brackets or stars.",
            )
        params, hints = self._parameters(query)
        url = DatabaseURL(
            hosts=self._hosts(locations, params.pop("host", ""), params.pop("port", "")),
            user=params.pop("user", "") or self._decode(user, "user name"),
            password=params.pop("password", "") or (self._decode(password, "password") if colon else None),
            database=params.pop("dbname", "") or self._decode(database, "database name"),
            params=params,
            hints=hints,
        )
        return replace(url, database=url.database or url.user)

    def _error(self, what: str, *solutions: str) -> ConfigurationError:
        return ConfigurationError(f"{self.variable} {what}.", solutions=solutions or (f"Write it as {_EXAMPLE}.",))

    def _strip_scheme(self) -> str:
        scheme, separator, rest = self.text.partition("://")
        base, _, driver = scheme.lower().partition("+")
        if not separator:
            raise self._error("is not a PostgreSQL connection URL")
        if scheme.lower() in ("jdbc:postgresql", "prisma", "prisma+postgres"):
            raise self._error(
                f"begins with {scheme.lower()}://, which only another client understands",
                "Copy the provider's plain connection string, which begins with postgresql://.",
            )
        if base not in _SCHEMES:
            raise self._error("does not begin with postgresql:// or postgres://")
        if driver == "asyncpg":
            raise self._error(
                "asks for asyncpg, which this project does not use: it prepares statements even with its cache off, "
                "and breaks behind a transaction pooler",
                "Remove +asyncpg from the URL: psycopg is the default, DATABASE_DRIVER=pg8000 the alternative.",
            )
        if driver and driver not in _DRIVER_SUFFIXES:
            raise self._error(
                "names a driver that this project does not use",
                "Begin it with postgresql://; DATABASE_DRIVER chooses the driver.",
            )
        return rest

    def _split(self, rest: str) -> tuple[str, str, str]:
        # The last @ before the path ends the user information, so an unescaped @ or # in a password does no harm. An
        # unescaped / or ? does: then the @ stands behind what looks like the path.
        authority = re.split(r"[/?]", rest, maxsplit=1)[0]
        tail = rest[len(authority) :]
        path, _, query = tail.partition("?")
        if "@" in path or ("@" not in authority and "@" in query.split("=", 1)[0]):
            raise self._error("has an unescaped / or ? in its user name or password", _ENCODE)
        if "#" in authority.rpartition("@")[2] + tail:
            raise self._error("has a # after the user name and password", "Write # as %23.")
        return authority, path.removeprefix("/"), query

    def _decode(self, text: str, what: str) -> str:
        if _BAD_PERCENT.search(text):
            raise self._error(
                f"has a % in its {what} that is not followed by two hexadecimal digits",
                "Write a plain % as %25.",
            )
        try:
            decoded = unquote(text, errors="strict")
        except UnicodeDecodeError:
            decoded = "\0"
        if "\0" in decoded:
            raise self._error(f"has a percent-encoded byte in its {what} that is not UTF-8 text")
        return decoded

    def _hosts(self, locations: str, host: str, port: str) -> tuple[Host, ...]:
        # `?host=` and `?port=` are how a Unix socket's directory is usually given; they beat the part before the path.
        pairs = [self._location(location) for location in locations.split(",")]
        names = host.split(",") if host else [name for name, _ in pairs]
        ports = port.split(",") if port else [own for _, own in pairs]
        if len(ports) not in (1, len(names)):
            raise self._error("does not name as many ports as hosts")
        ports = ports * len(names) if len(ports) == 1 else ports
        return tuple(Host(name or "localhost", self._port(own)) for name, own in zip(names, ports, strict=True))

    def _location(self, text: str) -> tuple[str, str]:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%25[\w.~-]+)?\]|[^:\[\]]*)(?::([^:]*))?", text)
        if match is None:
            raise self._error(
                "has a host and port that cannot be told apart",
                "Write HOST:PORT, and an IPv6 address in brackets: [::1]:5432.",
                "A : in a user name or password is written %3A.",
            )
        return self._decode(match[1].strip("[]"), "host name"), match[2] or ""

    def _port(self, text: str) -> int:
        if text and not (re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65535):
            raise self._error("has a port that is not a number from 1 to 65535")
        return int(text or DEFAULT_PORT)

    def _parameters(self, query: str) -> tuple[dict[str, str], dict[str, str]]:
        params: dict[str, str] = {}
        hints: dict[str, str] = {}
        unknown: list[str] = []
        for pair in filter(None, query.split("&")):
            key, equals, value = pair.partition("=")
            key = self._decode(key, "parameters")
            if not equals or key not in _PARAMETERS:
                unknown.append(key)
            elif key in FOREIGN_PARAMETERS:
                hints[key] = self._decode(value, f"parameter {key}")
            else:
                params[key] = self._decode(value, f"parameter {key}")
        if unknown and "@" in query:
            # The end of a password, it may be: not to be repeated.
            raise self._error("has an unescaped ? in its password, or parameters that are not known", _ENCODE)
        if unknown:
            raise self._error(
                f"has parameters that are not known or have no value: {', '.join(sorted(unknown))}",
                "Check their spelling and write NAME=VALUE, or remove them.",
            )
        return self._check(params, hints)

    def _check(self, params: dict[str, str], hints: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        for name, meaning in (("sslaccept", _SSLACCEPT), ("ssl", _SSL)):
            if name in hints and "sslmode" not in params:
                mode = meaning.get(hints[name].lower())
                if mode is None:
                    raise self._error(
                        f"has a wrong value for {name}", f"Allowed: {', '.join(meaning)}; or use sslmode."
                    )
                params["sslmode"] = mode
        if params.get("sslmode", "prefer") not in _SSLMODES:
            raise self._error("has a wrong sslmode", f"Allowed: {', '.join(_SSLMODES)}.")
        timeouts = (("connect_timeout", params), ("pool_timeout", hints), ("connection_limit", hints))
        for name, where in timeouts:
            if name in where and not re.fullmatch(r"[0-9]{1,6}", where[name]):
                raise self._error(f"has a {name} that is not a whole number", f"Write for example {name}=10.")
        if hints.get("connection_limit") == "0":
            raise self._error("has connection_limit=0", "It must be at least 1.")
        if hints.get("pgbouncer", "true") not in ("true", "false"):
            raise self._error("has a wrong value for pgbouncer", "Allowed: true, false.")
        return params, hints


_SSLACCEPT = {"strict": "verify-full", "accept_invalid_certs": "require"}
_SSL = {
    "true": "require",
    "1": "require",
    "false": "disable",
    "0": "disable",
    **{mode: mode for mode in _SSLMODES},
}
