"""What is installed in a host's Python."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.support.forge_install import Host


@cache
def can_import(python: Path, module: str) -> bool:
    """Return whether a Python can import a module; it takes seconds, so it is tried once."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def require_bitsandbytes(host: Host) -> None:
    """Skip the test where the host does not have what loads NF4 and FP4 weights."""
    if not can_import(host.python, "bitsandbytes"):
        pytest.skip(f"{host.title}'s Python has no bitsandbytes; install it there to run this test")
