"""The Dockerfile without an engine: read, and its last stage laid out in a directory as a build would leave it.

Every instruction is followed but RUN. What RUN installs is taken from the environment that runs the tests: the same
pinned versions, and nothing beside them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import venv
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
VENV = "/opt/venv"
SERVER = ("uvicorn", "httptools", "uvloop")  # what RUN installs beside requirements.txt


class Instruction(NamedTuple):
    """One line of the Dockerfile, its continuations joined."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """Give its words, of the exec form or of a shell's."""
        words: list[str] = json.loads(self.value) if self.value.startswith("[") else shlex.split(self.value)
        return words


@dataclass
class Stage:
    """One stage: its instructions, and what they set."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def values(self, name: str) -> list[Instruction]:
        """Give the instructions of one name."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    @property
    def environment(self) -> dict[str, str]:
        """Give what ENV sets."""
        return dict(word.split("=", 1) for instruction in self.values("ENV") for word in instruction.words)

    @property
    def command(self) -> list[str]:
        """Give what starts."""
        return self.values("CMD")[-1].words

    @property
    def health_check(self) -> list[str]:
        """Give the command that tells whether it is healthy."""
        return Instruction("CMD", self.values("HEALTHCHECK")[-1].value.partition(" CMD ")[2].strip()).words


def stages(text: str) -> list[Stage]:
    """Read a Dockerfile."""
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    found: list[Stage] = []
    for line in filter(None, re.sub(r"\\\n\s*", "", without_comments).splitlines()):
        name, _, value = line.partition(" ")
        if name == "FROM":
            base, _, alias = value.partition(" AS ")
            found.append(Stage(base, alias))
        else:
            found[-1].instructions.append(Instruction(name, value.strip()))
    return found


def read() -> list[Stage]:
    """Read the project's Dockerfile."""
    return stages((ROOT / "Dockerfile").read_text("utf-8"))


def sent(path: PurePosixPath, ignored: str) -> bool:
    """Tell whether a build gets a file: of the lines of .dockerignore that match it or its folder, the last counts."""
    result = True
    for line in ignored.splitlines():
        if line and not line.startswith("#"):
            pattern = re.compile(translate(line.removeprefix("!").removeprefix("**/")))
            places = [path, *path.parents]
            names = [place.name if "**/" in line else str(place) for place in places]
            if any(pattern.match(name) for name in names if name not in ("", ".")):
                result = line.startswith("!")
    return result


def lay_out(directory: Path) -> Path:
    """Follow the COPY lines of every stage into `directory`; give the root of the last stage. VENV is made anew."""
    ignored = (ROOT / ".dockerignore").read_text("utf-8")
    roots: dict[str, Path] = {}
    root = directory
    for number, stage in enumerate(read()):
        root = directory / (stage.name or f"stage-{number}")
        roots[stage.name] = root
        here = PurePosixPath("/")
        for instruction in stage.instructions:
            if instruction.name == "WORKDIR":
                here = here / instruction.value
            elif instruction.name == "COPY":
                *sources, target = instruction.words
                place = _below(root, here / target)
                if sources[0].startswith("--from="):
                    _copy_from(roots[sources[0].removeprefix("--from=")], sources[1], place)
                else:
                    for name in sources:
                        _copy(ROOT, name, place / name if target.endswith("/") else place, ignored)
    return root


def _below(root: Path, path: PurePosixPath) -> Path:
    return root / str(path).lstrip("/")


def _copy(source: Path, name: str, target: Path, ignored: str) -> None:
    files = [source / name] if (source / name).is_file() else sorted((source / name).rglob("*"))
    files = [file for file in files if file.is_file() and sent(PurePosixPath(file.relative_to(source)), ignored)]
    assert files, f"COPY {name}: a build would find nothing"
    for file in files:
        place = target / file.relative_to(source / name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _copy_from(root: Path, name: str, target: Path) -> None:
    if name == VENV:
        make_venv(target)
    else:
        shutil.copytree(_below(root, PurePosixPath(name)), target)


def make_venv(directory: Path) -> None:
    """Make a virtual environment with the packages that the Dockerfile installs, and none besides."""
    venv.create(directory, symlinks=True, with_pip=False)
    (packages,) = directory.glob("lib/python*/site-packages")
    wanted = re.findall(r"^([\w-]+)", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    for name in {*wanted, *SERVER, *needed_by("uvicorn")}:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(distribution.locate_file(top))))
    script = directory / "bin" / "uvicorn"
    # As pip writes it; workers import it again.
    lines = [
        f"#!{directory / 'bin' / 'python'}",
        "from uvicorn.main import main",
        'if __name__ == "__main__":',
        "    main()",
    ]
    script.write_text("\n".join(lines) + "\n", "utf-8")
    script.chmod(0o755)


def needed_by(name: str) -> set[str]:
    """Give a package and all that it needs, without extras."""
    needed = {name}
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed |= needed_by(requirement.name)
    return needed


def environment(root: Path, **variables: str) -> dict[str, str]:
    """Give the environment of a container: what the last stage sets, and `variables`. Nothing of our own comes in."""
    image = read()[-1].environment
    path = image.pop("PATH").replace(VENV, str(_below(root, PurePosixPath(VENV)))).replace("$PATH", os.defpath)
    return {**image, "PATH": path, **variables}
