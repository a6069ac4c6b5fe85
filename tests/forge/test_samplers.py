"""Every sampler of Forge works with references and caches, and its steps are counted right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.forge_server import ForgeServer
from tests.support.payloads import difference, made, pixels, step_kinds, two_references

SAMPLERS = (
    "DDIM", "DDIM CFG++", "DDPM", "DEIS", "DPM adaptive", "DPM fast", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M SDE Heun",
    "DPM++ 2S a", "DPM++ 3M SDE", "DPM++ SDE", "DPM2", "DPM2 a", "Euler", "Euler a", "Heun", "HeunPP2", "IPNDM",
    "IPNDM_V", "LCM", "LMS", "PLMS", "Restart", "UniPC",
)  # fmt: skip
"""All of Forge's samplers. Each gives a picture with Flux without the extension too, which its test asserts."""

OWN_STEP_COUNT = ("DPM adaptive", "Restart")
"""Samplers that choose their number of steps themselves."""

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 6}


def test_forge_has_exactly_these_samplers(forge: ForgeServer) -> None:
    _, samplers = forge.get("/sdapi/v1/samplers")
    assert sorted(sampler["name"] for sampler in samplers) == sorted(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_takes_references_and_reuses_steps(forge: ForgeServer, sampler: str) -> None:
    plain = made(forge, sampler_name=sampler, **SMALL)
    assert pixels(plain).std() >= 1
    without = made(forge, two_references(), sampler_name=sampler, **SMALL)
    if sampler != "DPM adaptive":  # hundreds of steps each time
        measured = made(forge, two_references(cache=True, cache_threshold=1e-9), sampler_name=sampler, **SMALL)
        assert np.array_equal(pixels(without), pixels(measured))
    assert difference(pixels(without), pixels(plain)) > 0.2
    cached = made(
        forge,
        two_references(cache=True, cache_threshold=1.0, cache_compute_last=True, reference_refresh=4),
        sampler_name=sampler,
        **SMALL,
    )
    kinds = step_kinds(cached)
    assert kinds[0] != "reused"
    assert "reused" in kinds
    if sampler not in OWN_STEP_COUNT:
        assert len(kinds) == (7 if sampler == "UniPC" else 6)  # UniPC rounds the number of timesteps up
        assert kinds[-1] == "computed"
