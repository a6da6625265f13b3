"""Run one PostgreSQL server from a directory of binaries, as a child process, without pg_ctl.

The server listens on 127.0.0.1 only, has no Unix socket and accepts SCRAM passwords only. It works as a plain
user and as root; PostgreSQL itself refuses to run as root (manual, section 18.1).
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from ops.postgres_failures import explain, other_owner, translated_os_errors
from ops.processes import OURSELVES, Identity, die_with_parent, is_alive, is_postmaster, not_root
from shared.errors import LocalEnvironmentError

StopMode = Literal["smart", "fast", "immediate"]

READY_TIMEOUT = 120.0  # seconds; crash recovery after a kill -9 takes its time on a slow disk
STOP_TIMEOUT = 60.0  # seconds, then `immediate`
ORPHANS_TIMEOUT = 10.0  # seconds in which the backends of a killed postmaster are expected to notice and end
_POLL = 0.02  # seconds between two looks at postmaster.pid, which offers no event to wait for
_STOP_SIGNALS: Mapping[str, signal.Signals] = {  # manual, section 18.5
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": getattr(signal, "SIGQUIT", signal.SIGTERM),
}


class PostgresServer:
    """One cluster: its binaries, its data directory and, while it runs, its postmaster.

    `settings` are server settings for the command line (`-c name=value`), where they beat postgresql.conf.
    `environ` is added to the environment of the binaries, for those that need LD_LIBRARY_PATH.
    Methods raise LocalEnvironmentError, whose message names the cause.
    """

    def __init__(
        self,
        bin_dir: Path,
        data_dir: Path,
        *,
        port: int,
        user: str,
        password: str,
        settings: Mapping[str, str] = {},
        environ: Mapping[str, str] = {},
    ) -> None:
        self.bin_dir = Path(bin_dir).resolve()
        self.data_dir = Path(data_dir).resolve()
        self.log_file = self.data_dir.with_name(self.data_dir.name + ".log")
        self.port = port
        self.user = user
        self._password = password
        self._settings = dict(settings)
        # The caller's PG* variables (PGDATA, PGOPTIONS, ...) would change what initdb and postgres do.
        # LC_ALL=C keeps messages English, and macOS from saying "postmaster became multithreaded".
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        self._environ = {**inherited, "LC_ALL": "C", **environ}
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"PostgresServer(data_dir={str(self.data_dir)!r}, port={self.port})"

    @property
    def initialized(self) -> bool:
        """Whether the data directory holds a cluster."""
        return self._read("PG_VERSION") != ""

    @property
    def pid(self) -> int | None:
        """The living postmaster of this data directory, whoever started it; None when there is none."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        line = self._pid_file(1)
        return int(line) if line.isdigit() and is_postmaster(int(line), self.data_dir) else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def running_port(self) -> int | None:
        """The port of the living postmaster; not `port` when another process started it with another one."""
        line = self._pid_file(4)
        return int(line) if self.running and line.isdigit() else None

    def settle(self) -> bool:
        """Wait while the server is starting or stopping; return whether it runs then."""
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.running and self._pid_file(8) in ("starting", "stopping") and time.monotonic() < deadline:
            time.sleep(_POLL)
        return self.running

    def url(self, database: str = "postgres") -> str:
        """Return the connection URL, with the password."""
        user, password, name = (quote(part, safe="") for part in (self.user, self._password, database))
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server log."""
        return "\n".join(self._log_since(0).splitlines()[-lines:])

    def init(self) -> None:
        """Create the cluster; do nothing when there is one.

        initdb works in a sibling directory that is then renamed, so a killed initdb leaves no half cluster.
        """
        if self.initialized:
            return
        fresh = self.data_dir.with_name(self.data_dir.name + ".new")
        with translated_os_errors(self.data_dir, self.bin_dir):
            if self.data_dir.is_dir() and any(self.data_dir.iterdir()):
                raise LocalEnvironmentError(
                    f"{self.data_dir} is not empty, and it is not a PostgreSQL data directory.",
                    solutions=["Move it away or remove it, then start again."],
                )
            major = self._binary_major()
            if fresh.exists():
                shutil.rmtree(fresh)
            fresh.mkdir(mode=0o700, parents=True)
            identity = self._identity(fresh)
            with self._password_file(identity) as password_file:
                command = [
                    str(self.bin_dir / "initdb"),
                    f"--pgdata={fresh}",
                    f"--username={self.user}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--no-instructions",
                    *_locale_options(major),
                    *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
                ]
                done = self._run(command, identity, cwd=fresh)
            if done.returncode != 0:
                shutil.rmtree(fresh, ignore_errors=True)
                raise self._failure(done.stdout)
            if self.data_dir.is_dir():
                self.data_dir.rmdir()
            fresh.rename(self.data_dir)

    def start(self, die_with_parent: bool = True) -> None:
        """Start the server and return when it accepts connections.

        With `die_with_parent` the kernel (Linux only) shuts it down (fast) when the *thread* that called this
        ends, so that kill -9 of the launcher leaves no server. Without it the server outlives the launcher.
        """
        if not self.initialized:
            raise LocalEnvironmentError(
                f"{self.data_dir} is not a PostgreSQL data directory.",
                solutions=["Create it with init() first."],
            )
        self._require_same_major()
        if (pid := self.pid) is not None:
            raise LocalEnvironmentError(
                f"A PostgreSQL server (process {pid}, port {self.running_port}) already uses {self.data_dir}.",
                solutions=["Stop that server first."],
            )
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)  # killed, and not gone yet when it was last asked for
        with translated_os_errors(self.data_dir, self.bin_dir):
            self._remove_stale_pid_file()
            identity = self._identity(self.data_dir)
            deadline = time.monotonic() + ORPHANS_TIMEOUT
            while (output := self._launch(identity, die_with_parent)) is not None:
                if "pre-existing shared memory block" not in output or time.monotonic() > deadline:
                    raise self._failure(output)
                time.sleep(_POLL * 10)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server, whoever started it; do nothing when none runs. One that lingers is made to."""
        if (pid := self.pid) is None:
            return
        for attempt in (mode, "immediate"):
            try:
                os.kill(pid, _STOP_SIGNALS[attempt])
            except ProcessLookupError:
                return
            except PermissionError as error:
                raise other_owner(self.data_dir) from error
            if self._wait_until_gone(pid):
                return
        raise LocalEnvironmentError(
            f"The PostgreSQL server (process {pid}) does not stop.", solutions=[f"Look at {self.log_file}."]
        )

    def _launch(self, identity: Identity, with_parent: bool) -> str | None:
        """Start postgres and wait until it is ready; return what it logged when it ended instead."""
        settings = {
            "listen_addresses": "127.0.0.1",  # not "localhost": without /etc/hosts it does not resolve
            "port": str(self.port),
            "unix_socket_directories": "",  # their paths are limited to 107 bytes
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log_file.open("ab") as log:
            log_start = log.tell()
            process = self._process = subprocess.Popen(
                [*identity.prefix, str(self.bin_dir / "postgres"), "-D", str(self.data_dir), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                env=self._environ,
                start_new_session=True,  # the terminal's Ctrl-C is for the launcher alone
                preexec_fn=die_with_parent if with_parent else None,
                **identity.popen,
            )
        deadline = time.monotonic() + READY_TIMEOUT
        while not (self._pid_file(8) == "ready" and self._pid_file(1) == str(process.pid)):
            if process.poll() is not None:
                self._process = None
                return self._log_since(log_start)
            if time.monotonic() > deadline:
                self.stop("immediate")
                raise LocalEnvironmentError(
                    f"PostgreSQL was not ready after {READY_TIMEOUT:.0f} seconds.",
                    solutions=[f"Look at {self.log_file}."],
                )
            time.sleep(_POLL)
        return None

    def _wait_until_gone(self, pid: int) -> bool:
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            if self._process is not None and self._process.pid == pid:
                self._process.poll()  # a child that ended is a zombie until it is asked for
            if not is_postmaster(pid, self.data_dir):
                if self._process is not None and self._process.pid == pid:
                    self._process.wait(STOP_TIMEOUT)  # it may have ended since it was asked for
                return True
            time.sleep(_POLL)
        return False

    def _remove_stale_pid_file(self) -> None:
        """Remove a postmaster.pid whose process id is now another program's: postgres would refuse to start.

        One whose process is gone stays: from it postgres finds the shared memory of backends that still run.
        """
        line = self._pid_file(1)
        if line.isdigit() and is_alive(int(line)) and not is_postmaster(int(line), self.data_dir):
            (self.data_dir / "postmaster.pid").unlink()

    def _identity(self, directory: Path) -> Identity:
        """Return who runs PostgreSQL in `directory`, and give it to them."""
        script = 'cd "$1" && exec "$2" --version'
        probe = ["/bin/sh", "-c", script, "sh", str(directory), str(self.bin_dir / "postgres")]
        identity = not_root(directory, lambda who: self._run(probe, who, cwd=Path("/")).returncode == 0)
        if identity is None:
            raise LocalEnvironmentError(
                "PostgreSQL refuses to run as root; the user nobody cannot reach its files, and "
                "`unshare --user` does not work here.",
                solutions=[
                    "Run as a plain user.",
                    f"Or make {self.bin_dir} and {self.data_dir.parent} readable for all users.",
                ],
            )
        return identity

    def _run(self, command: Sequence[str], who: Identity, *, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*who.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            env=self._environ,
            check=False,
            **who.popen,
        )

    @contextmanager
    def _password_file(self, identity: Identity) -> Iterator[Path]:
        path = self.data_dir.with_name(self.data_dir.name + ".password")
        path.unlink(missing_ok=True)  # of an initdb that was killed
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self._password + "\n")
            identity.own(path)
            yield path
        finally:
            path.unlink()

    def _binary_major(self) -> int:
        with translated_os_errors(self.data_dir, self.bin_dir):
            done = self._run([str(self.bin_dir / "postgres"), "--version"], OURSELVES, cwd=Path("/"))
        match = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
        if match is None:
            raise self._failure(done.stdout)
        return int(match[1])

    def _require_same_major(self) -> None:
        theirs, ours = self._read("PG_VERSION"), str(self._binary_major())
        if theirs != ours:
            raise LocalEnvironmentError(
                f"{self.data_dir} was made by PostgreSQL {theirs}, and these binaries are PostgreSQL {ours}.",
                solutions=[
                    f"Dump the data with PostgreSQL {theirs} and restore it into a new cluster.",
                    f"Or move {self.data_dir} away to begin with an empty database.",
                ],
            )

    def _failure(self, output: str) -> LocalEnvironmentError:
        return explain(output, port=self.port, data_dir=self.data_dir, log_file=self.log_file)

    def _pid_file(self, line: int) -> str:
        lines = self._read("postmaster.pid").splitlines()
        return lines[line - 1].strip() if len(lines) >= line else ""

    def _read(self, name: str) -> str:
        try:
            return (self.data_dir / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except PermissionError as error:
            raise other_owner(self.data_dir) from error

    def _log_since(self, offset: int) -> str:
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as log:
            log.seek(offset)
            return log.read().decode("utf-8", errors="replace")


def _locale_options(major: int) -> list[str]:
    # The builds have no ICU in common; the builtin provider exists since 17 (manual, section 23.1.4).
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]
