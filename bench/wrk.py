"""wrk, which loads an HTTP server: from PATH, else Debian's package, unpacked under .data/ without being installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.deploy import tools
from tests.servers.apt import AptError, PrivateApt

_ROOT = Path(__file__).resolve().parent.parent
_UNPACKED = _ROOT / ".data" / "wrk"
_BUILT_FOR = "bookworm"  # any release's sources do: only programs are taken
CONNECTIONS = 8
_IDS = 10_000
# One key after another in no order, and the summary as JSON after wrk's own words.
_SCRIPT = f"""
function request()
  return wrk.format("GET", wrk.path .. math.random(1, {_IDS}))
end

function done(summary, latency)
  local failed = summary.errors
  io.write(string.format('\\n{{"requests":%d,"us":%d,"failed":%d,"p50":%d,"p99":%d}}\\n', summary.requests,
    summary.duration, failed.connect + failed.read + failed.write + failed.timeout + failed.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Load(NamedTuple):
    """What one run of wrk did."""

    requests: int
    seconds: float
    failed: int
    p50: float  # ms
    p99: float


class Wrk:
    """wrk, found or unpacked. Raises tools.Missing where it is neither on PATH nor to be had from apt."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("wrk")
        self._program = Path(found) if found else _unpacked()
        libraries = ":".join(str(path) for path in _UNPACKED.glob("usr/lib/*-linux-*"))
        self._environ = dict(os.environ) if found else {**os.environ, "LD_LIBRARY_PATH": libraries}
        self._script = folder / "wrk.lua"
        self._script.write_text(_SCRIPT, "utf-8")

    def run(self, url: str, seconds: int, connections: int = CONNECTIONS) -> Load:
        """Ask for one key after another on each connection."""
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(self._script)]
        done = subprocess.run(
            [str(self._program), *options, url], stdout=subprocess.PIPE, text=True, check=True, env=self._environ
        )
        summary = json.loads(done.stdout.splitlines()[-1])
        seconds, failed = summary["us"] / 1e6, summary["failed"]
        return Load(summary["requests"], seconds, failed, summary["p50"] / 1000, summary["p99"] / 1000)


def _unpacked() -> Path:
    program = _UNPACKED / "usr" / "bin" / "wrk"
    if not program.exists():
        with tempfile.TemporaryDirectory() as scratch:
            try:
                apt = PrivateApt(Path(scratch), _BUILT_FOR)
                apt.update()
                apt.unpack(["wrk", *apt.library_dependencies("wrk")], _UNPACKED)
            except AptError as error:
                raise tools.Missing(f"wrk is not on PATH, and apt cannot give it: {error}") from None
    return program
