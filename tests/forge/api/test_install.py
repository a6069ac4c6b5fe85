"""``install.py`` with a host's own ``launch``: asks for what is missing, and for nothing that the host pins."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.forge_install import REPO_ROOT, Host

RUN = """
import runpy, sys
import launch
commands = []
launch.is_installed = lambda package: {installed}
launch.run_pip = lambda command, description: commands.append(command)
runpy.run_path(sys.argv.pop())
print("commands:", commands)
"""


@pytest.mark.both_hosts
@pytest.mark.parametrize(
    ("installed", "commands"), [(True, []), (False, ["install nvidia-ml-py --no-deps"])], ids=["there", "missing"]
)
def test_only_what_is_missing_is_installed(host: Host, installed: bool, commands: list[str]) -> None:
    command = [host.python, "-c", RUN.format(installed=installed), REPO_ROOT / "install.py"]
    done = subprocess.run(command, cwd=host.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"commands: {commands}"
