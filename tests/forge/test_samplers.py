"""Every sampler of Forge: whatever works without the extension works with it, and its steps are counted right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.forge_server import ForgeServer
from tests.support.payloads import difference, made, pixels, report, two_references

SAMPLERS = (
    "DDIM", "DDIM CFG++", "DDPM", "DEIS", "DPM adaptive", "DPM fast", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M SDE Heun",
    "DPM++ 2S a", "DPM++ 3M SDE", "DPM++ SDE", "DPM2", "DPM2 a", "Euler", "Euler a", "Heun", "HeunPP2", "IPNDM",
    "IPNDM_V", "LCM", "LMS", "PLMS", "Restart", "UniPC",
)  # fmt: skip
"""All that Forge has; with Flux all of them give pictures."""

OWN_STEP_COUNT = ("DPM adaptive", "Restart")
"""They choose their own number of steps."""

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 6}


def test_forge_has_these_samplers(forge: ForgeServer) -> None:
    _, samplers = forge.get("/sdapi/v1/samplers")
    assert sorted(sampler["name"] for sampler in samplers) == sorted(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_with_references_and_caches(forge: ForgeServer, sampler: str) -> None:
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
    steps = report(cached)["passes"][0]["steps"]
    assert steps[0]["kind"] != "reused"
    assert any(step["kind"] == "reused" for step in steps)
    if sampler not in OWN_STEP_COUNT:
        # Forge's samplers of the old kind round the number of timesteps up.
        assert len(steps) == (7 if sampler == "UniPC" else 6)
        assert steps[-1]["kind"] == "computed"
