"""The hosts of the Forge tests: where each is, whether it can be started, and with which flags.

A host is the folder that an environment variable names (by default one in the home folder), which must have been set
up with its ``venv``.
"""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
TEST_EXTENSION = Path(__file__).resolve().parent / "small_flux_extension"
WINDOWS = os.name == "nt"

COMMON_FLAGS = (
    "--skip-prepare-environment",
    "--skip-install",
    "--skip-python-version-check",
    "--skip-torch-cuda-test",
    "--no-hashing",
    "--api",
)


@dataclass(frozen=True)
class Host:
    """A WebUI that the extension runs in."""

    name: str
    """In test ids: ``-k neo`` picks a host's tests."""
    title: str
    variable: str
    """The environment variable with its folder."""
    folder: str
    """Its folder below the home folder, unless the variable names another."""
    cpu_flags: tuple[str, ...]
    """Run on the CPU, with PyTorch's attention."""
    more_flags: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """Its folder."""
        return Path(os.environ.get(self.variable) or Path.home() / self.folder)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "venv" / ("Scripts/python.exe" if WINDOWS else "bin/python")

    @property
    def flags(self) -> list[str]:
        """The flags that tests start it with."""
        return [*COMMON_FLAGS, *self.cpu_flags, *self.more_flags]

    @property
    def builtin_extensions(self) -> set[str]:
        """The names of the extensions that come with it."""
        return {folder.name for folder in (self.root / "extensions-builtin").iterdir()}

    def unavailable(self) -> str | None:
        """Return None where it can be started, else the reason, in a line that says what to do."""
        hint = f"set {self.variable} to the folder of an installed {self.title}"
        if not (self.root / "launch.py").is_file():
            return f"no {self.title} was found; {hint}"
        if not self.python.exists():
            return f"the {self.title} that was found has no venv yet; start it once, or {hint}"
        return None


FORGE = Host(
    "forge",
    "Stable Diffusion WebUI Forge",
    "FORGE_ROOT",
    "stable-diffusion-webui-forge",
    ("--always-cpu", "--attention-pytorch"),
    ("--skip-google-blockly", "--do-not-download-clip", "--no-download-sd-model"),
)
NEO = Host(
    "neo",
    "Forge Neo",
    "NEO_ROOT",
    "stable-diffusion-webui-forge-neo",
    ("--cpu", "--use-pytorch-cross-attention"),
)
HOSTS = (FORGE, NEO)


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
