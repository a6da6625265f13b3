"""The Dockerfile builds a small image that runs as nobody in particular, with the app in it and no secret."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from uvicorn.main import main

from shared.settings import VARIABLES
from tests.deploy import image

ROOT = image.ROOT
PYTHON_VARIABLES = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_reads_what_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nCMD uvicorn app:app\n", "utf-8")
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DL3006" in done.stdout, "an image without a version"


def test_every_stage_begins_with_one_small_python_of_one_version() -> None:
    build, last = image.read()
    assert build.base == last.base
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-trixie", last.base)
    assert version is not None
    compiled = [run.value for run in last.values("RUN")]
    assert len(compiled) == 1
    assert compiled[0].endswith(f" /usr/local/lib/python{version[1]}")


def test_it_runs_as_a_number_that_is_not_root() -> None:
    last = image.read()[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.values("USER")[-1].value)
    names = [instruction.name for instruction in last.instructions]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("COPY", "RUN"))


def test_what_starts_gets_signals_itself() -> None:
    last = image.read()[-1]
    assert last.values("CMD")[-1].value == '["uvicorn", "app:app"]', "the exec form: a shell would keep SIGTERM"
    assert not last.values("ENTRYPOINT")
    assert last.health_check[0] == "python", "there is no curl"


def test_every_variable_is_one_that_somebody_reads() -> None:
    options = {f"UVICORN_{option.name}".upper() for option in main.params}
    known = {variable.name for variable in VARIABLES} | options | PYTHON_VARIABLES | {"PATH"}
    for stage in image.read():
        assert set(stage.environment) <= known
        assert not stage.values("ARG"), "its value would stay in the image's history"


def test_no_secret_is_in_a_layer() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert not [variable.name for variable in VARIABLES if variable.secret and variable.name in text]


def test_only_pinned_wheels_are_installed() -> None:
    build = image.read()[0]
    pip = build.values("RUN")[0].value
    assert "--only-binary=:all:" in pip
    named = f"--constraint /tmp/requirements-dev.txt {' '.join(image.SERVER)}"
    assert pip.endswith(f"--requirement /tmp/requirements.txt {named}")
    pins = (ROOT / "requirements.txt").read_text("utf-8") + (ROOT / "requirements-dev.txt").read_text("utf-8")
    for name in {*image.SERVER, *image.needed_by("uvicorn")}:
        assert re.search(rf"^{name}==\S+( ;.*)?$", pins, re.MULTILINE | re.IGNORECASE), f"{name} has no pin"


def test_bytecode_is_never_checked_against_dates() -> None:
    compiled = image.read()[0].values("RUN")[-1].words
    assert compiled == "python -m compileall -q --invalidation-mode unchecked-hash /opt/venv /app".split()


def test_the_image_holds_the_app_and_nothing_else(tmp_path: Path) -> None:
    root = image.lay_out(tmp_path)
    assert {path.name for path in root.iterdir()} == {"app", "opt"}
    assert {path.name for path in (root / "app").iterdir()} == {"app.py", "functions", "migrations", "shared"}
    for room in ("functions", "migrations", "shared"):
        expected = [path.relative_to(ROOT) for path in (ROOT / room).rglob("*") if path.is_file()]
        copied = {path.relative_to(root / "app") for path in (root / "app" / room).rglob("*") if path.is_file()}
        assert copied == {path for path in expected if "__pycache__" not in path.parts}


def test_secrets_and_git_never_reach_a_build(tmp_path: Path) -> None:
    for name in ("app.py", "requirements.txt", "requirements-dev.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    kept = {"app.py", "requirements.txt", "requirements-dev.txt"}
    for name in ("functions/health.py", "shared/db/pool.py", "migrations/versions/1.sql"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        kept.add(name)
    for name in (".env", ".env.production", "functions/.env", ".git/config", ".data/postgres.superuser", "tests/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ignored = (ROOT / ".dockerignore").read_text("utf-8")
    files = [PurePosixPath(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert {str(path) for path in files if image.sent(path, ignored)} == kept
