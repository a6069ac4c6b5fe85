"""Placement and stitching through diffusers, on the small trained model."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch

from lib_fluxkontext.hosts.diffusers.pipeline import Generated, Job, generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.stitch import apply_stitch, plan_sizes
from lib_fluxkontext.settings import PLACEMENTS, KontextSettings
from tests.diffusers.conftest import SIDE

pytestmark = pytest.mark.slow


def generated(pipeline: Any, references: list[Reference], **settings: Any) -> Generated:
    job = Job("the first picture on the left, the second on the right", SIDE, SIDE, steps=3, seed=3)
    return generate(pipeline, job, references, KontextSettings(**{"sizing": "to output", "cache": False} | settings))


def test_each_placement_gives_a_picture_of_its_own(pipeline: Any, woman: Reference, cat: Reference) -> None:
    latents = {name: generated(pipeline, [woman, cat], placement=name).latents for name in PLACEMENTS}
    assert torch.equal(latents["offset"], generated(pipeline, [woman, cat]).latents)
    for first, second in combinations(latents.values(), 2):
        assert (first - second).abs().mean() > 0.01


def test_one_reference_by_index_is_as_by_offset(pipeline: Any, woman: Reference) -> None:
    offset, index = (generated(pipeline, [woman], placement=name).latents for name in ("offset", "index"))
    assert torch.equal(offset, index)


@pytest.mark.parametrize("stitch", ["row", "column"])
def test_stitched_references_are_one(pipeline: Any, woman: Reference, cat: Reference, stitch: str) -> None:
    together = generated(pipeline, [woman, cat], stitch=stitch)
    settings = KontextSettings(sizing="to output")
    [by_hand], _ = apply_stitch([woman, cat], plan_sizes([woman, cat], settings, (SIDE, SIDE)), stitch)
    assert torch.equal(together.latents, generated(pipeline, [by_hand], sizing="no change").latents)
    assert [sampling.reference_tokens for sampling in together.report.passes] == [(50,)]  # 80×160 pixels
    assert torch.equal(generated(pipeline, [cat], stitch=stitch).latents, generated(pipeline, [cat]).latents)
