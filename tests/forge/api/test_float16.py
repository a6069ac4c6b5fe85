"""What a host lets image tokens be in float16 is what the adapter for it says."""

from __future__ import annotations

import subprocess

import pytest

from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter, NeoFluxAdapter
from tests.support.forge_install import NEO, Host

LARGEST = """
import torch
from backend.utils import fp16_fix
print(float(fp16_fix(torch.full((1,), float("inf"), dtype=torch.float16))))
"""


@pytest.mark.both_hosts
def test_a_reused_step_is_bound_as_the_last_block_would_bind_it(host: Host) -> None:
    command = [str(host.python), "-c", LARGEST]
    printed = subprocess.run(command, cwd=host.root, capture_output=True, text=True, check=True).stdout
    adapter = NeoFluxAdapter if host is NEO else ForgeFluxAdapter
    assert float(printed.splitlines()[-1]) == adapter.float16_bound
