"""What a host lets image tokens be in float16 is what the adapter for it says."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch

from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter, NeoFluxAdapter
from tests.support.forge_install import NEO, Host


@pytest.mark.both_hosts
def test_a_reused_step_is_bound_as_the_last_block_would_bind_it(host: Host) -> None:
    source = (host.root / "backend" / "utils.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {"torch": torch}
    for node in ast.parse(source).body:  # the function alone: its module needs the host's own packages
        if isinstance(node, ast.FunctionDef) and node.name == "fp16_fix":
            exec(compile(ast.Module([node], []), "utils.py", "exec"), names)
    bound = names["fp16_fix"](torch.tensor([torch.inf, -torch.inf], dtype=torch.float16))
    adapter = NeoFluxAdapter if host is NEO else ForgeFluxAdapter
    assert bound.tolist() == [adapter.float16_bound, -adapter.float16_bound]
