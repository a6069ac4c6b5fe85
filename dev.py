"""One door: ``python dev.py demo``, ``test [--quick]``, ``bench``, ``gpu``, ``pictures``.

Needs Python 3.10 or newer with pip. Commands set up ``.venv`` first: what is missing is installed, a second time
nothing happens.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "flux-kontext.stamp"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
INTERRUPTED = 130


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="make .venv and install what the other commands need")
    test = commands.add_parser(
        "test",
        help="style, types and tests; what follows is for pytest: --all-hosts repeats all Forge tests in Forge Neo",
        allow_abbrev=False,
    )
    test.add_argument("--quick", action="store_true", help="without Forge and without slow tests: within a minute")
    commands.add_parser("lint", help="style and types alone")
    demo = commands.add_parser("demo", help="two photographs in, one picture out, with the small model on the CPU")
    demo.add_argument("--no-open", action="store_true", help="do not open the report in the browser")
    commands.add_parser("bench", help="speed and quality beside other caches; what follows is for the benchmark")
    commands.add_parser("gpu", help="what only a CUDA device can show: docs/gpu.md; what follows is for the command")
    commands.add_parser("pictures", help="renew the README's pictures of the panel; needs Forge and Chromium")
    options, rest = parser.parse_known_args()
    if rest and options.command not in ("test", "bench", "gpu"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    set_up()
    match options.command:
        case "setup":
            return 0
        case "lint":
            return lint()
        case "demo":
            return run("-m", "examples.demo", *(["--no-open"] if options.no_open else []))
        case "bench":
            return run("-m", "benchmarks.frontier", *rest)
        case "gpu":
            return run("-m", "benchmarks.gpu", *rest)
        case "pictures":
            return run("-m", "tools.panel_pictures")
    if options.quick:
        rest = ["-m", "not forge and not slow", *rest]
    return lint() or (run("-m", "pytest", *rest) if rest else test_all())


def test_all() -> int:
    """Run all tests in two processes: Forge's by the server that they share, some 2 GB each, the others by file.

    They compute on one thread: processes that each start a thread for every core wait for one another.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    side_by_side = ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder")
    return run("-m", "pytest", *side_by_side, OMP_NUM_THREADS=threads)


def lint() -> int:
    """Check style and formatting with ruff, and types with mypy."""
    return run("-m", "ruff", "check", ".") or run("-m", "ruff", "format", "--check", ".") or run("-m", "mypy")


def set_up() -> None:
    """Make ``.venv`` as ``pyproject.toml`` says, unless it is already so."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    print(f"Setting up {VENV}: a virtual environment with PyTorch and the test tools (minutes, once)", flush=True)
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", f"{ROOT}[dev]"]
    if subprocess.call(install) != 0:
        sys.exit("Set-up failed; pip's message above says why. Nothing else was done.")
    STAMP.write_text(wanted)


def run(*arguments: str, **environment: str) -> int:
    """Run Python of ``.venv`` in the project's root and return its exit code, 130 where Ctrl-C ended it."""
    with subprocess.Popen([str(PYTHON), *arguments], cwd=ROOT, env={**os.environ, **environment}) as process:
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # the console interrupts the command, too, which ends in its own way
                continue
            return INTERRUPTED if code == -signal.SIGINT else code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
