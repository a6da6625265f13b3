"""Compile what is about to be zipped for Lambda, which cannot keep bytecode itself: it runs from a read-only folder.

    python3.12 ops/lambda_bytecode.py TARGET SOURCE...

`serverless.yml` calls this with the runtime's minor version of Python, before the zip is made. TARGET holds the
installed packages, and everything in it goes into the zip; the bytecode of our own SOURCEs is put there too, because in
the checkout Python would believe it, unchecked, after the next edit. It is not checked by dates, which a zip changes.
"""

import compileall
import sys
from pathlib import Path
from py_compile import PycInvalidationMode
from py_compile import compile as compile_file

TASK_ROOT = Path("/var/task")  # where Lambda unpacks the zip; tracebacks name it


def main(target: Path, sources: list[Path]) -> int:
    """Compile, and give the exit code: 1 where a file is no Python."""
    # The plugin that fills the zip leaves out a __pycache__ at its top: there bytecode takes the source's place.
    for file in target.glob("*.py"):
        _compile(file, file.with_suffix(".pyc"), Path(file.name))
        file.unlink()
    compiled = compileall.compile_dir(
        target,
        quiet=1,
        stripdir=str(target),
        prependdir=str(TASK_ROOT),
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    for source in sources:
        files = sorted(source.rglob("*.py")) if source.is_dir() else [source]
        for file in files:
            name = f"{file.stem}.{sys.implementation.cache_tag}.pyc"
            compiled = _compile(file, target / file.parent / "__pycache__" / name, file) and compiled
    return 0 if compiled else 1


def _compile(file: Path, compiled: Path, name: Path) -> bool:
    """Compile one file, which will have this name in the zip; tell whether it is Python."""
    done = compile_file(
        str(file),
        cfile=str(compiled),
        dfile=str(TASK_ROOT / name),
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    return done is not None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]]))
