"""A program of bench/drizzle as its users deploy it: one file, bundled by esbuild."""

import subprocess
from pathlib import Path

from tests.deploy import tools

_DRIZZLE = Path(__file__).parent / "drizzle"


def bundle(program: str, folder: Path, *, module: bool = False) -> Path:
    """Bundle a program of bench/drizzle into a folder. Raises tools.Missing without Node, or without a network.

    As a `module` it may wait outside of functions.
    """
    packages = tools.npm_packages("drizzle", _DRIZZLE / "package.json")
    # In the folder of the packages: esbuild looks for them from the file that it bundles.
    source, bundled = packages / program, (folder / program).with_suffix(".mjs" if module else ".cjs")
    source.write_text((_DRIZZLE / program).read_text("utf-8"), "utf-8")
    esbuild = [str(packages / "node_modules" / ".bin" / "esbuild"), str(source), "--bundle", "--platform=node"]
    options = ["--minify", f"--format={'esm' if module else 'cjs'}", f"--outfile={bundled}", "--log-level=error"]
    subprocess.run([*esbuild, *options], check=True)
    return bundled
