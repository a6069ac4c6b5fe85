"""More formats of the transformer, with two references and every cache: in Forge and in Forge Neo."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer
from tests.support.payloads import difference, made, pixels, report, step_kinds, two_references

pytestmark = pytest.mark.both_hosts

STEPS = 6

FORMATS = [
    files.FLUX_Q6_K,
    files.FLUX_Q5_K,
    files.FLUX_Q4_K,
    files.FLUX_Q4_0,
    pytest.param(files.FLUX_SCALED_FP8, marks=pytest.mark.neo_only),  # Neo's "mixed precision"; Forge does not load it
]


@pytest.mark.parametrize("checkpoint", FORMATS)
def test_a_format_takes_references_and_caches(forge: ForgeServer, checkpoint: str) -> None:
    small = {"steps": STEPS, "width": 128, "height": 128, "seed": 11}
    log = len(forge.log_text())
    forge.select(checkpoint)
    try:
        plain = pixels(made(forge, **small))
        every = pixels(made(forge, two_references(), **small))
        deciding = two_references(cache=True, cache_threshold=1e-9, reference_refresh=1)
        assert np.array_equal(pixels(made(forge, deciding, **small)), every)
        kept = made(forge, two_references(reference_refresh=3), **small)
        reused = made(forge, two_references(cache=True, cache_threshold=1.0), **small)
    finally:
        forge.select(files.FLUX)
    if checkpoint == files.FLUX_SCALED_FP8:
        assert "computation: Mixed" in forge.log_text()[log:]
    assert plain.std() > 5  # a picture, not a grey square
    assert difference(every, plain) > 0.5
    assert step_kinds(kept) == ["computed", "kept", "kept", "computed", "kept", "kept"]
    assert 0 < difference(pixels(kept), every) < difference(plain, every)
    assert report(reused)["reused_steps"] > 0
