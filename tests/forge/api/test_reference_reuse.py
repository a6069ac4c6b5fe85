"""Reference reuse: what it changes, what it reports, and what happens when memory runs out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.forge_server import ForgeServer
from tests.support.payloads import (
    HOOKS,
    WITHIN,
    difference,
    first_pass,
    kontext,
    made,
    pixels,
    step_kinds,
    two_references,
)

pytestmark = pytest.mark.both_hosts

STEPS = 9
BLOCKS = 6
"""Transformer blocks of the small checkpoint."""


def test_references_are_computed_in_every_fourth_step_and_the_picture_stays_close(forge: ForgeServer) -> None:
    every = made(forge, two_references(), steps=STEPS)
    kept = made(forge, two_references(reference_refresh=4), steps=STEPS)
    assert step_kinds(kept) == ["computed", "kept", "kept", "kept", "computed", "kept", "kept", "kept", "computed"]
    plain = pixels(made(forge, steps=STEPS))
    assert difference(pixels(kept), pixels(every)) < 0.75 * difference(plain, pixels(every))
    key_values = first_pass(kept)["key_values"]
    assert key_values["refreshes"] == 2  # the last step stores nothing: no step comes after it
    assert key_values["place"] == "device"
    assert key_values["peak_bytes"] > 0
    assert "with references kept" in kept.info["extra_generation_params"]["Kontext step time"]


def test_off_and_refreshing_in_every_step_are_bit_identical(forge: ForgeServer) -> None:
    off = pixels(made(forge, two_references(), steps=STEPS))
    assert np.array_equal(off, pixels(made(forge, two_references(reference_refresh=0), steps=STEPS)))
    assert np.array_equal(off, pixels(made(forge, two_references(reference_refresh=1), steps=STEPS)))
    deciding = two_references(
        cache=True, cache_threshold=1e-9, reference_refresh=1
    )  # decides on cached references in every step
    assert np.array_equal(off, pixels(made(forge, deciding, steps=STEPS)))


def test_a_refresh_in_every_computed_step_keeps_one_block_and_a_batch_equals_its_images(
    forge: ForgeServer,
) -> None:
    """As in the preset *Fast*: only the first block, by which First Block Cache decides, reads cached references."""
    settings = two_references(cache=True, cache_threshold=0.65, cache_correct=True, reference_refresh=1)
    together = made(forge, settings, steps=STEPS, seed=3, batch_size=2)
    kept = first_pass(together)["key_values"]
    all_blocks = made(forge, settings | {"reference_refresh": 4}, steps=STEPS, seed=3, batch_size=2)
    assert first_pass(all_blocks)["key_values"]["peak_bytes"] == BLOCKS * kept["peak_bytes"]
    assert kept["place"] == "device"
    assert "reused" in step_kinds(together)
    assert "kept" not in step_kinds(together)
    for index in range(2):
        alone = made(forge, settings, steps=STEPS, seed=3 + index)
        assert difference(pixels(alone), pixels(together, index)) < WITHIN


def test_the_last_step_is_computed_with_references_if_asked(forge: ForgeServer) -> None:
    result = made(forge, two_references(reference_refresh=20, cache_compute_last=True), steps=4)
    assert step_kinds(result) == ["computed", "kept", "kept", "computed"]


def test_without_references_nothing_is_kept_and_the_picture_is_unchanged(forge: ForgeServer) -> None:
    plain = pixels(made(forge))
    result = made(forge, {"enabled": True, "cache": False, "reference_refresh": 4})
    assert np.array_equal(pixels(result), plain)
    assert first_pass(result)["key_values"] is None


def test_out_of_memory_while_storing_costs_a_note_never_a_generation(forge: ForgeServer) -> None:
    expected = pixels(made(forge, two_references(), steps=STEPS))
    request = kontext(two_references(reference_refresh=4), **{HOOKS: {"keeping_out_of_memory": True}})
    result = forge.txt2img(**request, steps=STEPS)
    assert np.array_equal(pixels(result), expected)
    assert set(step_kinds(result)) == {"computed"}
    assert "did not fit into memory" in first_pass(result)["notes"][0]
    assert set(step_kinds(made(forge, two_references(reference_refresh=4), steps=STEPS))) == {"computed", "kept"}


def test_encoded_references_are_cached_between_generations(forge: ForgeServer) -> None:
    settings = two_references(sizing="fit inside output")
    made(forge, settings, width=320, height=192)
    hooks = kontext(settings, **{HOOKS: {"encoder_out_of_memory": 99}})  # any encoding would fail
    again = forge.txt2img(**hooks, width=320, height=192, seed=77)
    assert again.status == 200
    sampling = first_pass(again)
    assert (sampling["references_encoded"], sampling["references_kept"]) == (0, 2)
