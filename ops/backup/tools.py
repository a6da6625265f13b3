"""PostgreSQL's own programs, where this machine has them: which of them fits a server, and how they are started."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from ops import embedded
from shared.db.providers import provider_of
from shared.db.session import KEEPALIVES, SERVER_KEEPALIVES, startup_options
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, LocalEnvironmentError

# Where packages put them besides PATH: Debian and Ubuntu, Red Hat, Homebrew, EDB's installer.
_FOLDERS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "opt/homebrew/opt/libpq/bin",
    "usr/local/opt/postgresql@*/bin",
    "usr/local/opt/libpq/bin",
    "Library/PostgreSQL/*/bin",
)


@dataclass(frozen=True)
class Tools:
    """A directory of programs of one version."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """Give the major version."""
        return int(self.version.partition(".")[0])

    def path(self, program: str) -> str:
        """Give a program's path."""
        return str(self.directory / program)

    def has(self, program: str) -> bool:
        """Tell whether a program is there."""
        return (self.directory / program).is_file()

    @cached_property
    def environ(self) -> dict[str, str]:
        """Give what the programs need in their environment: nobody else's PG* variables, and English messages."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        own = self.directory.parent / "lib"
        if any(own.glob("libpq.*")) and not own.is_relative_to("/usr"):
            inherited["LD_LIBRARY_PATH"] = str(own)  # a build that was unpacked somewhere, with libraries of its own
        return {**inherited, "LC_ALL": "C"}

    def environ_for(self, url: DatabaseURL) -> dict[str, str]:
        """Give the environment with the password, which every user of the machine could read in the arguments."""
        password = {} if url.password is None else {"PGPASSWORD": url.password}
        # What leads our own connections, where the URL does not say.
        own = {name: value for name, value in os.environ.items() if name.startswith(("PGPASS", "PGSSL"))}
        return {**self.environ, **own, "PGCONNECT_TIMEOUT": "15", **password}

    @cached_property
    def speaks_tls(self) -> bool:
        """Tell whether they were built with TLS: the embedded server's were not."""
        # Port 1 of this machine answers nobody; libpq refuses the mode before it tries.
        command = [
            self.path("psql"),
            "--no-psqlrc",
            "host=127.0.0.1 port=1 sslmode=require connect_timeout=2",
            "-c",
            "",
        ]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False)
        return "not compiled in" not in done.stderr

    @cached_property
    def extensions(self) -> frozenset[str]:
        """Give the names of the extensions that its server could create."""
        shares = [self.directory.parent / "share", Path("/usr/share/postgresql", str(self.major))]
        return frozenset(
            control.stem
            for share in shares
            for folder in ("extension", "postgresql/extension")
            for control in (share / folder).glob("*.control")
        )


def arguments(url: DatabaseURL) -> str:
    """Write the connection string for a program's arguments, without the password."""
    if "sslpassword" in url.params:
        raise ConfigurationError(
            "DATABASE_URL has an sslpassword, which PostgreSQL's programs take only where everybody can read it.",
            solutions=["Use a client key without a password, in a file that only you can read."],
        )
    named = {"application_name": "db backup", **KEEPALIVES, **url.params}
    if provider_of(url).pooler == "none":  # one that keeps our session takes no options
        named["options"] = startup_options(SERVER_KEEPALIVES, url.params.get("options"))
    return replace(url, password=None, params=named).render(password=True)


def found() -> list[Tools]:
    """Give every version on this machine that has pg_dump, pg_restore and psql, once."""
    tools = {}
    for directory in _directories():
        # Debian's in /usr/bin is a script that chooses one of those in its folders.
        if (directory / "pg_dump").resolve().name == "pg_wrapper":
            continue
        directory = directory.resolve()
        if directory not in tools and (version := _version(directory)):
            tools[directory] = Tools(directory, version)
    return list(tools.values())


def choose(*, at_least: int, tls: bool = False, purpose: str, programs: tuple[str, ...] = ()) -> Tools:
    """Choose the oldest version from `at_least` on that has `programs`, and TLS where it is needed.

    Raises LocalEnvironmentError, which says how to get one. An older pg_dump refuses a newer server; a newer one writes
    what an older server may not read.
    """
    everything = found()
    fitting = [tools for tools in everything if tools.major >= at_least and all(map(tools.has, programs))]
    for tools in sorted(fitting, key=lambda tools: tools.major):
        if not tls or tools.speaks_tls:
            return tools
    if fitting:
        problem = f"has no TLS, which the server's connections use ({fitting[0].directory})"
    elif everything:
        problem = f"is too old: {', '.join(sorted({tools.version for tools in everything}))}"
    else:
        problem = "is not installed"
    raise LocalEnvironmentError(
        f"{purpose} needs the client programs of PostgreSQL {at_least} or newer, and what this machine has {problem}.",
        solutions=[
            f"Debian and Ubuntu, with PostgreSQL's own package source: apt install postgresql-client-{at_least}",
            f"macOS: brew install postgresql@{at_least}",
            "Then run this again: PATH and the usual folders are looked through.",
        ],
    )


def _directories() -> Iterator[Path]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder:
            yield Path(folder)
    for pattern in _FOLDERS:
        yield from sorted(Path("/").glob(pattern))
    # What the tests of this checkout run against: complete, and with TLS.
    yield from sorted((embedded.ROOT / ".data" / "test-servers").glob("postgresql-*/bin"))
    if (psql := embedded.psql()) is not None:
        yield Path(psql).parent


@cache
def _version(directory: Path) -> str | None:
    if not all(shutil.which(name, path=str(directory)) for name in ("pg_dump", "pg_restore", "psql")):
        return None
    try:
        done = subprocess.run(
            [str(directory / "pg_dump"), "--version"],
            env=Tools(directory, "0").environ,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+[.\w]*)", done.stdout)
    return match[1] if match else None
