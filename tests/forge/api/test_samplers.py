"""Every sampler of Forge works with references and caches, and its steps are counted right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.forge_install import FORGE
from tests.support.forge_server import ForgeServer
from tests.support.payloads import difference, first_pass, made, pixels, step_kinds, two_references

IN_BOTH = (
    "DDIM", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 3M SDE", "DPM++ SDE", "DPM2", "Euler", "Euler a", "Heun", "LCM", "LMS",
    "PLMS", "Restart", "UniPC",
)  # fmt: skip
IN_FORGE = (
    "DDIM CFG++", "DDPM", "DEIS", "DPM adaptive", "DPM fast", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM2 a", "HeunPP2",
    "IPNDM", "IPNDM_V",
)  # fmt: skip
IN_NEO = (
    "DPM++ 2M CFG++", "DPM++ 2s a RF", "ER SDE", "Euler CFG++", "Euler a CFG++", "Kohaku LoNyu Yog", "Res Multistep",
)  # fmt: skip
"""All samplers of the hosts. Each gives a picture with Flux without the extension too, which its test asserts."""

SAMPLERS = [
    *IN_BOTH,
    *(pytest.param(name, marks=pytest.mark.forge_only) for name in IN_FORGE),
    *(pytest.param(name, marks=pytest.mark.neo_only) for name in IN_NEO),
]

OWN_STEP_COUNT = ("DPM adaptive", "Restart")
"""Samplers that choose their number of steps themselves."""

NOISY = (
    "DDPM", "DPM adaptive", "DPM fast", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 2s a RF",
    "DPM++ 3M SDE", "DPM++ SDE", "DPM2 a", "ER SDE", "Euler a", "Euler a CFG++", "Kohaku LoNyu Yog", "LCM",
)  # fmt: skip
"""Samplers that add noise in every step, by their source."""

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 6}


@pytest.mark.both_hosts
def test_forge_has_exactly_these_samplers(forge: ForgeServer) -> None:
    _, samplers = forge.get("/sdapi/v1/samplers")
    own = IN_FORGE if forge.host is FORGE else IN_NEO
    assert sorted(sampler["name"] for sampler in samplers) == sorted([*IN_BOTH, *own])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_takes_references_and_reuses_steps(forge: ForgeServer, sampler: str) -> None:
    plain = made(forge, sampler_name=sampler, **SMALL)
    assert pixels(plain).std() >= 1
    if sampler != "DPM adaptive":  # hundreds of steps each time
        without = made(forge, two_references(), sampler_name=sampler, **SMALL)
        measured = made(forge, two_references(cache=True, cache_threshold=1e-9), sampler_name=sampler, **SMALL)
        assert np.array_equal(pixels(without), pixels(measured))
        assert difference(pixels(without), pixels(plain)) > 0.2
    cached = made(
        forge,
        two_references(cache=True, cache_threshold=1.0, cache_compute_last=True, reference_refresh=4),
        sampler_name=sampler,
        **SMALL,
    )
    if sampler == "DPM adaptive":
        assert difference(pixels(cached), pixels(plain)) > 0.2
    kinds = step_kinds(cached)
    assert kinds[0] != "reused"
    assert "reused" in kinds
    assert first_pass(cached)["noisy_sampler"] == (sampler if sampler in NOISY else None)
    if sampler not in OWN_STEP_COUNT:
        rounded_up = sampler == "UniPC" and forge.host is FORGE  # to a number of timesteps
        assert len(kinds) == (7 if rounded_up else 6)
        assert kinds[-1] == "computed"
