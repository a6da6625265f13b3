"""Cold starts on Lambda, for bench/cold_start.py: this project's zip, and FastAPI's laid out in the same way."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.deploy import tools
from tests.deploy.aws import bundle, instance
from tests.deploy.aws.bundle import Bundle
from tests.shared.web.lambda_events import event

PATH = "/api/item/7"
OURS = "this function, on Lambda"
FASTAPI = "FastAPI + SQLAlchemy + Mangum, on Lambda"
_HERE = Path(__file__).parent
_PEER_HANDLER = """from mangum import Mangum

from app import app

handler = Mangum(app, lifespan="off")
"""

Start = Callable[[str], AbstractContextManager[None]]


def subjects(folder: Path, endpoint: str) -> dict[str, Start]:
    """Package both; `endpoint` is the source of ours. Raises tools.Missing where this machine lacks what that takes."""
    package = bundle.package(folder, lambda _: None)
    ours = package.unpack(folder / "aws-ours")
    (ours / "functions" / "item.py").write_text(endpoint, "utf-8")
    peer = _peer(folder / "aws-fastapi", package)
    return {
        OURS: _start(package, ours, "functions/item.handler", folder),
        FASTAPI: _start(package, peer, "main.handler", folder),
    }


def _peer(folder: Path, package: Bundle) -> Path:
    """Install FastAPI's packages for Lambda and compile them, as osls does it with ours."""
    requirements = folder.with_name("requirements-fastapi.txt")
    mangum = next(
        line for line in (tools.ROOT / "requirements.txt").read_text("utf-8").splitlines() if "mangum" in line
    )
    requirements.write_text(f"{(_HERE / 'fastapi_peer' / 'requirements.txt').read_text('utf-8')}\n{mangum}\n", "utf-8")
    options = ("--python-version", bundle.runtime_version(), "--only-binary=:all:", "--no-compile")
    shutil.copytree(tools.python_packages("aws-fastapi", requirements, *options), folder)
    shutil.copy(_HERE / "fastapi_peer" / "app.py", folder)
    (folder / "main.py").write_text(_PEER_HANDLER, "utf-8")
    compile_all = [str(package.python), str(tools.ROOT / "ops" / "lambda_bytecode.py"), str(folder)]
    subprocess.run(compile_all, check=True, stdout=sys.stderr)
    return folder


def _start(package: Bundle, task_root: Path, handler: str, folder: Path) -> Start:
    @contextmanager
    def start(url: str) -> Iterator[None]:
        variables = {"DATABASE_URL": url}
        with instance.running(package, task_root, handler, variables, folder / "aws.log") as running:
            answer = running.api.invoke(event(path=PATH))
            assert answer["statusCode"] == 200, answer
            yield

    return start
