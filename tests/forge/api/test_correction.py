"""Correction: what it gains, with which samplers, and that without it pictures are unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lib_fluxkontext.hosts.forge.runtime.sampler_compatibility import CORRECTABLE
from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer
from tests.support.payloads import difference, made, pixels, report, two_references

STEPS = 16
REUSED = {"cache": True, "cache_threshold": 1.0, "cache_max_consecutive": 3, "cache_compute_last": True}
KEPT = {"reference_refresh": 4, "cache_compute_last": True}


@pytest.fixture
def smooth(forge: ForgeServer) -> Iterator[ForgeServer]:
    """Forge with a model whose results change slowly from step to step, as those of a trained model do."""
    forge.select(files.FLUX_SMOOTH)
    yield forge
    forge.select(files.FLUX)


@pytest.mark.parametrize("sampler", CORRECTABLE)
def test_a_corrected_picture_is_nearer_to_the_uncached_one(smooth: ForgeServer, sampler: str) -> None:
    settings = {"steps": STEPS, "sampler_name": sampler}
    exact = pixels(made(smooth, two_references(), **settings))
    for caches in (REUSED, KEPT):
        plain = made(smooth, two_references(**caches), **settings)
        corrected = made(smooth, two_references(**caches, cache_correct=True), **settings)
        assert report(corrected)["reused_steps"] == report(plain)["reused_steps"]
        assert difference(pixels(corrected), exact) < 0.9 * difference(pixels(plain), exact), caches
        assert corrected.info["extra_generation_params"]["Kontext cache correct"] == "True"


def test_results_without_a_trend_are_not_corrected(forge: ForgeServer) -> None:
    """With random weights results change wholly from step to step, so none is extrapolated."""
    plain = pixels(made(forge, two_references(**REUSED), steps=STEPS))
    assert np.array_equal(plain, pixels(made(forge, two_references(**REUSED, cache_correct=True), steps=STEPS)))


def test_with_an_unsupported_sampler_nothing_is_corrected_and_a_note_says_so(forge: ForgeServer) -> None:
    settings = {"steps": 6, "sampler_name": "Heun"}
    plain = made(forge, two_references(**REUSED), **settings)
    asked = made(forge, two_references(**REUSED, cache_correct=True), **settings)
    assert np.array_equal(pixels(asked), pixels(plain))
    assert "with this sampler nothing was corrected" in report(asked)["notes"][0]


def test_without_a_cache_nothing_is_corrected(forge: ForgeServer) -> None:
    plain = made(forge, two_references(), steps=4)
    asked = made(forge, two_references(cache_correct=True), steps=4)
    assert np.array_equal(pixels(asked), pixels(plain))


def test_a_batch_is_corrected_image_by_image(smooth: ForgeServer) -> None:
    settings = two_references(**REUSED, cache_correct=True)
    batch = made(smooth, settings, steps=6, batch_size=2, seed=11)
    alone = [made(smooth, settings, steps=6, seed=seed) for seed in (11, 12)]
    for index, single in enumerate(alone):
        assert difference(pixels(batch, index), pixels(single)) < 1.0
