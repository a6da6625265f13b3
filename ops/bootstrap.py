"""Make a checkout ready to work in: `.venv`, the pinned requirements, and the `db` command.

`make` runs this file before anything is installed: it uses the standard library only, and syntax that Python 3.8 can
parse, so that an old Python gets a message and not a traceback.
"""

from __future__ import annotations

import errno
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM = (3, 11)
EXIT_CODE = 9  # as shared.errors.LocalEnvironmentError, which cannot be imported yet

_UNREACHABLE = (
    r"connection broken by|Failed to establish a new connection|Max retries exceeded|Could not fetch URL|Read timed out"
)


class Problem(Exception):
    """What is wrong with this machine, and what to do about it."""

    def __init__(self, message: str, *solutions: str) -> None:
        super().__init__(message)
        self.message = message
        self.solutions = solutions


def main() -> int:
    """Prepare the checkout; return the exit code."""
    try:
        require_python(sys.version_info[:2])
        prepare(ROOT, say)
    except Problem as problem:
        say("Error: " + problem.message)
        for solution in problem.solutions:
            say("  " + solution)
        return EXIT_CODE
    except KeyboardInterrupt:
        say("Interrupted. The next make goes on from here.")
        return 130
    return 0


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def require_python(version: Sequence[int]) -> None:
    """Raise Problem when `version` of Python is too old."""
    if tuple(version) < MINIMUM:
        raise Problem(
            "This is Python {}.{}, and Python 3.11 or newer is needed.".format(*version[:2]),
            "Install a newer Python; then name it: make dev PYTHON=python3.12",
        )


def prepare(root: Path, report: Callable[[str], None]) -> None:
    """Bring `.venv` up to date with the requirements; do nothing when it is. Raises Problem."""
    venv = root / ".venv"
    try:
        if not is_sound(venv):
            _create(venv, report)
        if is_current(root):
            return
        _stamp(root).unlink(missing_ok=True)
        requirements = root / "requirements-dev.txt"
        total = sum(1 for _ in _pins(requirements))
        report(f"Installing {total} packages into .venv ...")
        python = venv / "bin" / "python"
        pip(python, ["install", "--requirement", str(requirements)], _Progress(total))
        # packages = [] in pyproject.toml: only compat mode puts the checkout itself on the path.
        editable = ["install", "--no-deps", "--editable", str(root), "--config-settings", "editable_mode=compat"]
        pip(python, editable, _Progress(0))
        _stamp(root).write_text(_fingerprint(root), encoding="utf-8")
        report("Ready: .venv/bin/db is installed.")
    except OSError as error:
        raise _os_problem(error, venv) from error


def pip(python: Path, arguments: Sequence[str], on_line: Callable[[str], None] = lambda _: None) -> None:
    """Run pip and give each line it prints to `on_line`. Raises Problem that says why it failed."""
    command = [str(python), "-m", "pip", "--no-input", "--disable-pip-version-check", "--retries", "2", *arguments]
    output = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            on_line(line)
    on_line("")
    if process.returncode != 0:
        raise pip_problem("".join(output))


def pip_problem(output: str) -> Problem:
    """Return what pip's output says: no space, no registry, no wheel, another file than the pinned one."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return Problem("The disk is full.", "Free some space (about 400 MB are needed), then start again.")
    if "No module named pip" in output:
        return Problem("There is no pip in .venv.", "Remove .venv, then start again.")
    if re.search(_UNREACHABLE, output):
        return Problem(
            "The package registry cannot be reached.",
            "Check the network, and pip's proxy and index settings (pip config list), then start again.",
        )
    if "DO NOT MATCH THE HASHES" in output:
        return Problem("A downloaded package is not the one that is pinned by its hash.", "Do not use that registry.")
    missing = re.search(r"No matching distribution found for ([^\s;]+)", output)
    if missing:
        return Problem(
            f"The package registry has no {missing.group(1)} for this Python and platform.",
            "Use another version of Python: make dev PYTHON=python3.12",
        )
    errors = [line for line in output.splitlines() if line.lower().startswith("error")]
    return Problem("pip failed: " + (errors or output.strip().splitlines() or ["no message"])[-1])


class _Progress:
    """Show how far pip is: on a terminal one line that moves, otherwise nothing."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def __call__(self, line: str) -> None:
        if not sys.stderr.isatty():
            return
        package = re.match(r"\s*(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line)
        if package and self.total:
            self.done = min(self.done + 1, self.total)
            text = f"  {self.done} of {self.total}: {package.group(1)}"
        elif line.startswith("Installing"):
            text = "  writing them to .venv"
        elif line == "":
            text = ""
        else:
            return
        sys.stderr.write("\r\x1b[K" + text)
        sys.stderr.flush()


def _create(venv: Path, report: Callable[[str], None]) -> None:
    report("Creating .venv with Python {}.{}.{} ...".format(*sys.version_info[:3]))
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise venv_problem(done.stdout)


def venv_problem(output: str) -> Problem:
    """Return why Python's venv module failed."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return pip_problem(output)
    if "ensurepip" in output or "No module named venv" in output:
        return Problem(
            "This Python cannot create virtual environments: its venv module is incomplete.",
            "Debian and Ubuntu: sudo apt install python3-venv",
        )
    return Problem("Python cannot create .venv: " + (output.strip().splitlines() or ["no message"])[-1])


def is_sound(venv: Path) -> bool:
    """Tell whether `venv` works: its Python runs, is new enough, is the one that made it, and nobody moved it."""
    try:
        made_with = re.search(r"(?m)^version *= *(\d+)\.(\d+)", (venv / "pyvenv.cfg").read_text(encoding="utf-8"))
        # The installed scripts begin with the absolute path of the Python in `venv`.
        at_home = str(venv / "bin" / "python").encode() in (venv / "bin" / "pip").read_bytes()[:1024]
        script = "import sys; print(*sys.version_info[:2])"
        runs = subprocess.run(
            [str(venv / "bin" / "python"), "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
    except (FileNotFoundError, NotADirectoryError):
        return False
    version = tuple(int(part) for part in runs.stdout.split())
    return (
        at_home
        and runs.returncode == 0
        and made_with is not None
        and version == (int(made_with.group(1)), int(made_with.group(2)))
        and version >= MINIMUM
    )


def is_current(root: Path) -> bool:
    """Tell whether `.venv` has what the requirements of now ask for."""
    return _stamp(root).exists() and _stamp(root).read_text(encoding="utf-8") == _fingerprint(root)


def _stamp(root: Path) -> Path:
    return root / ".venv" / ".bootstrap"


def _fingerprint(root: Path) -> str:
    digest = hashlib.sha256()
    sources = [*sorted(root.glob("requirements*.txt")), root / "pyproject.toml", root / ".venv" / "pyvenv.cfg"]
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _pins(requirements: Path) -> Iterable[str]:
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from _pins(requirements.with_name(line[3:].strip()))
        elif "==" in line:
            yield line


def _os_problem(error: OSError, venv: Path) -> Problem:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return pip_problem("No space left on device")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        owner = "Work as the user that owns the checkout, or change its owner with chown -R."
        return Problem(f"No permission to write {error.filename or venv}.", owner)
    return Problem(f"{error.strerror}: {error.filename or venv}")


if __name__ == "__main__":
    sys.exit(main())
