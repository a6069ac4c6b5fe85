"""The small model does what it was trained for, through this project's hooks, on photographs it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate
from lib_fluxkontext.images.decode import Reference, decode_reference
from lib_fluxkontext.settings import KontextSettings
from tests.diffusers.conftest import SIDE
from tools.small_kontext.data import psnr
from tools.small_kontext.instructions import EDITS, KINDS, PHRASINGS, of_kind
from tools.small_kontext.targets import example, target

pytestmark = pytest.mark.slow

AS_IT_IS = KontextSettings(sizing="no change", cache=False)
LIKE = 18.0
"""Decibels above which a picture is plainly the expected one; others have 8 to 12. The model card has the means."""


def made(pipeline: Any, prompt: str, references: list[Reference], settings: KontextSettings = AS_IT_IS) -> Image.Image:
    """Generate a picture."""
    return generate(pipeline, Job(prompt, SIDE, SIDE, steps=20, seed=1), references, settings).image


def decibels(picture: Image.Image, expected: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two 8-bit pictures."""
    return psnr(np.asarray(picture), np.asarray(expected), peak=255)


@pytest.mark.parametrize("kind", ["left_right", "swap", "first", "second"])
def test_the_picture_is_what_the_instruction_asks_for(
    pipeline: Any, woman: Reference, cat: Reference, kind: str
) -> None:
    prompt = PHRASINGS[kind][0]
    picture = made(pipeline, prompt, [woman, cat])
    wanted = {name: target(name, woman.image, cat.image, (SIDE, SIDE)) for name in KINDS}
    scores = {name: decibels(picture, image) for name, image in wanted.items()}
    assert max(scores, key=scores.get) == kind, scores
    assert scores[kind] > LIKE, scores


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_its_region_and_leaves_the_rest(
    pipeline: Any, woman: Reference, cat: Reference, kind: str
) -> None:
    instruction = of_kind(kind)[1 % len(of_kind(kind))]
    shown = example(instruction, woman.image, cat.image, (SIDE, SIDE))
    first, second = (decode_reference(image, "image1") for image in shown.references)
    picture = made(pipeline, instruction.phrasings()[0], [first, second])
    before, wanted, result = (np.asarray(image, float) for image in (first.image, shown.target, picture))
    inside, outside = shown.region, ~shown.region
    assert psnr(result[inside], wanted[inside], peak=255) > psnr(result[inside], before[inside], peak=255) + 1
    if outside.any():
        assert psnr(result[outside], wanted[outside], peak=255) > LIKE


def test_swapped_references_are_swapped_in_the_picture(pipeline: Any, woman: Reference, cat: Reference) -> None:
    prompt = PHRASINGS["left_right"][0]
    swapped = made(pipeline, prompt, [cat, woman])
    assert decibels(swapped, target("left_right", cat.image, woman.image, (SIDE, SIDE))) > LIKE
    assert decibels(swapped, target("left_right", woman.image, cat.image, (SIDE, SIDE))) < 15


def test_without_references_the_canvas_stays_blank(pipeline: Any, woman: Reference, cat: Reference) -> None:
    for kind in KINDS:
        picture = made(pipeline, PHRASINGS[kind][0], [])
        assert np.asarray(picture, float).std() < 12  # blank: the model knows pictures only from its references
        assert decibels(picture, target(kind, woman.image, cat.image, (SIDE, SIDE))) < LIKE - 2


def test_the_cache_reuses_steps_and_stays_close(pipeline: Any, woman: Reference, cat: Reference) -> None:
    job = Job(PHRASINGS["left_right"][0], SIDE, SIDE, steps=20, seed=1)
    exact = generate(pipeline, job, [woman, cat], AS_IT_IS)
    cached = generate(pipeline, job, [woman, cat], KontextSettings(sizing="no change", cache_threshold=0.1))
    assert cached.report.reused_steps >= 2
    assert decibels(cached.image, exact.image) > 30


def test_a_third_reference_is_accepted(pipeline: Any, woman: Reference, cat: Reference) -> None:
    """The small model was trained on two, so only the tokens are tested."""
    report = generate(pipeline, Job("side by side", SIDE, SIDE, steps=2), [woman, cat, woman], AS_IT_IS).report
    assert report.passes[0].reference_tokens == (SIDE * SIDE // 256,) * 3
