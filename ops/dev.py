"""`db dev`: the embedded PostgreSQL, the migrations, and the app at http://localhost:3000 with reload on change."""

import os
import signal
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from watchfiles import PythonFilter, watch

from migrations import runner
from ops.embedded import ROOT, EmbeddedServer, somebody_listens, use
from ops.web_server import WebServer, listen
from shared.db.url import DatabaseURL
from shared.errors import Refused
from shared.settings import get_settings
from shared.web.application import endpoints_in

WATCHED = ("app.py", "functions", "shared", "migrations")
_LIVENESS = 1000  # milliseconds between two looks at whether the app still runs


def run(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Serve at http://localhost:PORT.")] = 3000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin with an empty embedded database.")] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Work on a DATABASE_URL of another machine.")
    ] = False,
) -> None:
    """Run everything locally: PostgreSQL under .data/ unless DATABASE_URL is set, migrations, and the app."""
    console = Console(highlight=False)
    embedded = EmbeddedServer(report=lambda step: console.print(step, markup=False, soft_wrap=True))
    external = _external_database(embedded, allow_remote=allow_remote)
    if fresh and external is not None:
        raise Refused(
            "FRESH empties the embedded database under .data/ only, and DATABASE_URL names another one.",
            solutions=["Unset DATABASE_URL, in the environment and in .env, or leave FRESH away."],
        )
    with _signals_interrupt(), ExitStack() as cleanup:
        listener = cleanup.enter_context(listen(port))
        database = external or _start_embedded(embedded, fresh, console, cleanup)
        with console.status("Applying the migrations"):
            runner.deploy(report=lambda step: console.print(step, markup=False, soft_wrap=True))
        web = WebServer(ROOT, listener)
        cleanup.callback(_stop_web, web, console)
        cleanup.callback(_ignore_signals)
        try:
            web.start()
            _announce(console, port, database, external=external is not None)
            _restart_on_change(web, console)
        except KeyboardInterrupt:
            console.print()


def _external_database(embedded: EmbeddedServer, *, allow_remote: bool) -> DatabaseURL | None:
    """Return what DATABASE_URL names; None when it is not set or names this checkout's embedded server."""
    if not os.environ.get("DATABASE_URL", "").strip():
        return None
    url = get_settings().database_url
    if _is_embedded(url, embedded):
        return None
    if not url.is_local and not allow_remote:
        raise Refused(
            f"DATABASE_URL names a database on another machine ({url.host}), and this command migrates it and "
            "writes to it.",
            solutions=[
                "Unset DATABASE_URL, in the environment and in .env, to use the embedded PostgreSQL.",
                "Or insist: make dev ALLOW_REMOTE=1 (db dev --allow-remote).",
            ],
        )
    return url


def _is_embedded(url: DatabaseURL, embedded: EmbeddedServer) -> bool:
    local = get_settings().local_database
    if not url.is_local or (url.user, url.database) != (local.user, local.database):
        return False
    if (running := embedded.find()) is not None:
        return url.port == running.url.port
    return url.port == embedded.expected_port() and not somebody_listens(url.port)


def _start_embedded(embedded: EmbeddedServer, fresh: bool, console: Console, cleanup: ExitStack) -> DatabaseURL:
    if fresh:
        embedded.erase()
        console.print("Erased the embedded database.")
    with console.status("Starting PostgreSQL"):
        running = embedded.start(die_with_parent=True)

    def stop() -> None:
        still = embedded.find()
        if still is not None and running.started and still.pid == running.pid:
            embedded.stop()
            console.print("Stopped PostgreSQL. The data is kept in .data/postgres.")
        elif still is not None:
            console.print("PostgreSQL keeps running: it was started by another command. To stop it: db postgres stop")

    cleanup.callback(stop)
    cleanup.callback(_ignore_signals)
    state = "started" if running.started else "was already running"
    console.print(f"PostgreSQL {state} on 127.0.0.1:{running.url.port}.")
    use(running.url)  # for the migrations here, and for the app in its own process
    return running.url


def _announce(console: Console, port: int, database: DatabaseURL, *, external: bool) -> None:
    """Print the endpoints, how to reach the database, and how to stop.

    The one place where the password is shown, and only the embedded server's: it is in the documentation.
    """
    table = Table(title="Endpoints", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("Methods", no_wrap=True)
    table.add_column("URL", no_wrap=True)
    table.add_column("What it answers")
    try:
        for endpoint in endpoints_in(ROOT / "functions", "functions"):
            table.add_row(endpoint.load().allow, f"http://localhost:{port}{endpoint.path}", Text(endpoint.summary))
    except Exception as error:  # of the person's own code; the app says more when it starts
        table.caption = f"{type(error).__name__}: {error}"
    console.print()
    console.print(table)
    console.print()
    console.print("Database", style="bold")
    url = database.masked() if external else database.render(password=True)
    console.print(f'  psql "{url}"', markup=False, soft_wrap=True)
    if not external:
        console.print(
            f"  GUI tools: host {database.host}, port {database.port}, database {database.database}, "
            f"user {database.user}, password {database.password}",
            markup=False,
            soft_wrap=True,
        )
    console.print()
    console.print("Saving a file reloads the app. Ctrl-C stops everything.")


def _restart_on_change(web: WebServer, console: Console) -> None:
    """Replace the app at each change, until KeyboardInterrupt."""
    paths = [ROOT / name for name in WATCHED]
    source_files = PythonFilter(extra_extensions=[".sql"])
    while True:
        dead = False
        # A new watch after each change: editors replace a file, and a watch on app.py stays with the old one.
        for changes in watch(*paths, watch_filter=source_files, rust_timeout=_LIVENESS, yield_on_timeout=True):
            if changes:
                changed = sorted({str(Path(path).relative_to(ROOT)) for _, path in changes})
                web.restart()
                console.print(f"Restarted the app: {', '.join(changed)} changed.", markup=False)
                if any(name.endswith(".sql") for name in changed):
                    console.print("To apply new migrations: db migrate")
                break
            if web.exit_code is not None and not dead:
                dead = True
                console.print(f"The app ended (exit code {web.exit_code}). Saving a file starts it again.", style="red")


def _stop_web(web: WebServer, console: Console) -> None:
    console.print("Stopping the web server.")
    web.stop()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: raise KeyboardInterrupt here, so that everything is stopped in order."""

    def interrupt(_number: int, _frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """Let a second Ctrl-C not disturb the stopping, which takes a few seconds at most."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
