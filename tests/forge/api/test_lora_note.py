"""The report notes where steps of a distilled LoRA were reused. Forge goes on where it does not find the file."""

from __future__ import annotations

import pytest

from lib_fluxkontext.distilled_lora import REUSED_FEW_STEPS
from tests.support.forge_server import ForgeServer
from tests.support.payloads import made, report, two_references

HYPER = "<lora:Hyper-FLUX.1-dev-8steps-lora:0.125>"


@pytest.mark.both_hosts
def test_a_report_notes_that_steps_of_a_distilled_lora_were_reused(forge: ForgeServer) -> None:
    def notes(prompt: str, **settings: object) -> list[str]:
        result = made(forge, two_references(**settings), prompt=prompt, steps=6)
        assert (report(result)["reused_steps"] > 0) == (settings.get("cache_threshold") == 1.0)
        return list(report(result)["notes"])

    reusing = {"cache": True, "cache_threshold": 1.0}
    assert REUSED_FEW_STEPS in notes(f"a cat {HYPER}", **reusing)
    assert REUSED_FEW_STEPS not in notes("a hyperrealistic cat", **reusing)
    assert REUSED_FEW_STEPS not in notes(f"a cat {HYPER}")
    assert REUSED_FEW_STEPS not in notes(f"a cat {HYPER}", cache=True, cache_threshold=1e-9)
