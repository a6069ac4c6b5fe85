"""Reference reuse in a real Forge: what it changes, what it reports, and what becomes of it when memory ends."""

from __future__ import annotations

import numpy as np

from tests.support.forge_server import ForgeServer
from tests.support.payloads import HOOKS, WITHIN, difference, kontext, made, pixels, report, two_references

STEPS = 9
BLOCKS = 6
"""Of the small checkpoint."""


def kinds(result: object) -> list[str]:
    return [step["kind"] for step in report(result)["passes"][0]["steps"]]


def test_the_references_run_in_one_step_of_so_many(forge: ForgeServer) -> None:
    every = made(forge, two_references(), steps=STEPS)
    kept = made(forge, two_references(reference_refresh=4), steps=STEPS)
    assert kinds(kept) == ["computed", "kept", "kept", "kept", "computed", "kept", "kept", "kept", "computed"]
    plain = pixels(made(forge, steps=STEPS))
    assert difference(pixels(kept), pixels(every)) < 0.75 * difference(plain, pixels(every))
    one = report(kept)["passes"][0]["key_values"]
    assert one["refreshes"] == 2  # the last step keeps nothing: no step comes after it
    assert one["place"] == "device"
    assert one["peak_bytes"] > 0
    assert "with references kept" in kept.info["extra_generation_params"]["Kontext step time"]


def test_off_and_refreshing_every_step_are_the_same_picture(forge: ForgeServer) -> None:
    off = pixels(made(forge, two_references(), steps=STEPS))
    assert np.array_equal(off, pixels(made(forge, two_references(reference_refresh=0), steps=STEPS)))
    assert np.array_equal(off, pixels(made(forge, two_references(reference_refresh=1), steps=STEPS)))
    deciding = two_references(cache=True, cache_threshold=1e-9, reference_refresh=1)  # on kept ones, in every step
    assert np.array_equal(off, pixels(made(forge, deciding, steps=STEPS)))


def test_with_references_in_every_computed_step_one_block_is_kept_and_a_batch_equals_its_images(
    forge: ForgeServer,
) -> None:
    """As in the preset *Fast*: the first block, by which First Block Cache decides, is the one that is read again."""
    settings = two_references(cache=True, cache_threshold=0.65, cache_correct=True, reference_refresh=1)
    together = made(forge, settings, steps=STEPS, seed=3, batch_size=2)
    kept = report(together)["passes"][0]["key_values"]
    whole = report(made(forge, settings | {"reference_refresh": 4}, steps=STEPS, seed=3, batch_size=2))
    assert whole["passes"][0]["key_values"]["peak_bytes"] == BLOCKS * kept["peak_bytes"]
    assert kept["place"] == "device"
    assert "reused" in kinds(together)
    assert "kept" not in kinds(together)
    for index in range(2):
        alone = made(forge, settings, steps=STEPS, seed=3 + index)
        assert difference(pixels(alone), pixels(together, index)) < WITHIN


def test_the_last_step_is_computed_whole_if_asked(forge: ForgeServer) -> None:
    result = made(forge, two_references(reference_refresh=20, cache_compute_last=True), steps=4)
    assert kinds(result) == ["computed", "kept", "kept", "computed"]


def test_without_references_there_is_nothing_to_keep(forge: ForgeServer) -> None:
    plain = pixels(made(forge))
    result = made(forge, {"enabled": True, "cache": False, "reference_refresh": 4})
    assert np.array_equal(pixels(result), plain)
    assert report(result)["passes"][0]["key_values"] is None


def test_memory_that_does_not_suffice_costs_a_note_never_a_generation(forge: ForgeServer) -> None:
    expected = pixels(made(forge, two_references(), steps=STEPS))
    request = kontext(two_references(reference_refresh=4), **{HOOKS: {"keeping_out_of_memory": True}})
    result = forge.txt2img(**request, steps=STEPS)
    assert np.array_equal(pixels(result), expected)
    assert set(kinds(result)) == {"computed"}
    assert "did not fit into memory" in report(result)["passes"][0]["notes"][0]
    assert set(kinds(made(forge, two_references(reference_refresh=4), steps=STEPS))) == {"computed", "kept"}


def test_encoded_references_are_kept_between_generations(forge: ForgeServer) -> None:
    settings = two_references(sizing="fit inside output")
    made(forge, settings, width=320, height=192)
    hooks = kontext(settings, **{HOOKS: {"encoder_out_of_memory": 99}})  # any encoding would fail
    again = forge.txt2img(**hooks, width=320, height=192, seed=77)
    assert again.status == 200
    one = report(again)["passes"][0]
    assert (one["references_encoded"], one["references_kept"]) == (0, 2)
