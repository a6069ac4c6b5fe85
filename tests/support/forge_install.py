"""The Forge that tests use: where it is, whether it can be started, and with which flags.

It is ``FORGE_ROOT`` (by default the folder ``stable-diffusion-webui-forge`` in the home folder), which must have been
set up with its ``venv``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
TEST_EXTENSION = Path(__file__).resolve().parent / "small_flux_extension"
WINDOWS = os.name == "nt"

FORGE_FLAGS = [
    "--skip-prepare-environment",
    "--skip-install",
    "--skip-python-version-check",
    "--skip-torch-cuda-test",
    "--skip-google-blockly",
    "--do-not-download-clip",
    "--no-download-sd-model",
    "--no-hashing",
    "--always-cpu",
    "--attention-pytorch",
    "--api",
]


def forge_root() -> Path:
    """Return the folder of the Forge that tests use."""
    return Path(os.environ.get("FORGE_ROOT") or Path.home() / "stable-diffusion-webui-forge")


def forge_python() -> Path:
    """Return the interpreter of that Forge."""
    return forge_root() / "venv" / ("Scripts/python.exe" if WINDOWS else "bin/python")


def has_bitsandbytes() -> bool:
    """Return whether Forge's Python has what loads NF4 weights."""
    command = [forge_python(), "-c", "import bitsandbytes"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def forge_available() -> str | None:
    """Return None where a Forge can be started, else the reason, in a line that says what to do."""
    hint = "set FORGE_ROOT to the folder of an installed Stable Diffusion WebUI Forge"
    if not (forge_root() / "launch.py").is_file():
        return f"no Forge was found; {hint}"
    if not forge_python().exists():
        return f"the Forge that was found has no venv yet; start it once, or {hint}"
    return None


def link(source: Path, target: Path) -> None:
    """Link ``target`` to ``source``, or copy it where links are not allowed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            ignored = shutil.ignore_patterns(".*", "tests", "node_modules", "__pycache__")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copyfile(source, target)


def free_port() -> int:
    """Find a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
