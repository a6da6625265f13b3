"""The development web server: the ASGI app in a child process that is replaced when a file changes.

The parent holds the listening socket, so that a request made during a restart waits instead of failing. The child ends
when its standard input does, which is when the parent is gone, however it went.
"""

import copy
import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from shared.errors import LocalEnvironmentError

GRACE = 3  # seconds that requests under way get when the server stops
_BACKLOG = 128


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1. Raises LocalEnvironmentError naming the port when it is taken."""
    taken = LocalEnvironmentError(
        f"Port {port} is taken by another program, so http://localhost:{port} cannot be served.",
        solutions=[f"Choose another port: make dev PORT={port + 100 if port <= 65435 else 3100}"],
    )
    # "localhost" is ::1 as well, and browsers try that first: who listens there would get our requests.
    for family, address in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
        if _somebody_listens(family, address, port):
            raise taken
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EACCES:
            raise LocalEnvironmentError(
                f"Port {port} may be used by root only.", solutions=["Choose one above 1023: make dev PORT=3100"]
            ) from error
        raise taken from error
    return listener


class WebServer:
    """The child process that serves `app:app` of `root` on a listening socket."""

    def __init__(self, root: Path, listener: socket.socket) -> None:
        self._root = root
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child; it reads the environment as it is now."""
        descriptor = self._listener.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ops.web_server", str(descriptor)],
            cwd=self._root,
            stdin=subprocess.PIPE,  # nothing is ever written: its end tells the child that we are gone
            pass_fds=[descriptor],
            start_new_session=True,  # the terminal's Ctrl-C is for the parent, which stops things in order
        )

    def stop(self) -> None:
        """Stop the child: at once when it is idle, after GRACE seconds in any case."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE + 2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def exit_code(self) -> int | None:
        """What the child exited with; None while it runs."""
        return None if self._process is None else self._process.poll()


def _somebody_listens(family: int, address: str, port: int) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.settimeout(1)
            return probe.connect_ex((address, port)) == 0
    except OSError:  # no IPv6 here
        return False


def _serve(descriptor: int) -> None:
    """Serve until SIGTERM, or until the parent is gone. Runs in the child."""
    import uvicorn
    from uvicorn.config import LOGGING_CONFIG

    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging = copy.deepcopy(LOGGING_CONFIG)
    logging["loggers"]["uvicorn.error"]["level"] = "WARNING"  # requests are logged, starts and stops are not
    config = uvicorn.Config("app:app", log_config=logging, server_header=False, timeout_graceful_shutdown=GRACE)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)  # without grace: the port must be free for the next start


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
