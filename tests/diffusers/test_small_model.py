"""The small trained model does what it was trained for, through this project's hooks, on photographs it never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.settings import KontextSettings
from tests.diffusers.conftest import SIDE
from tools.small_kontext import data as task

AS_IT_IS = KontextSettings(sizing="no change", cache=False)
LIKE = 18.0
"""Decibels. Above it a picture is plainly the asked-for one; what is not, has 8 to 12. The model card has the means."""


def made(pipeline: Any, prompt: str, references: list[Reference], settings: KontextSettings = AS_IT_IS) -> Image.Image:
    return generate(pipeline, Job(prompt, SIDE, SIDE, steps=20, seed=1), references, settings).image


def decibels(one: Image.Image, other: Image.Image) -> float:
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize("kind", ["left_right", "swap", "first", "second"])
def test_it_does_what_the_instruction_says(pipeline: Any, woman: Reference, cat: Reference, kind: str) -> None:
    prompt = task.PHRASINGS[kind][0]
    picture = made(pipeline, prompt, [woman, cat])
    wanted = {name: task.target(name, woman.image, cat.image, (SIDE, SIDE)) for name in task.KINDS}
    scores = {name: decibels(picture, image) for name, image in wanted.items()}
    assert max(scores, key=scores.get) == kind, scores
    assert scores[kind] > LIKE, scores


def test_swapping_the_two_images_swaps_them_in_the_picture(pipeline: Any, woman: Reference, cat: Reference) -> None:
    prompt = task.PHRASINGS["left_right"][0]
    swapped = made(pipeline, prompt, [cat, woman])
    assert decibels(swapped, task.target("left_right", cat.image, woman.image, (SIDE, SIDE))) > LIKE
    assert decibels(swapped, task.target("left_right", woman.image, cat.image, (SIDE, SIDE))) < 15


def test_without_references_it_cannot_draw_them(pipeline: Any, woman: Reference, cat: Reference) -> None:
    for kind in task.KINDS:
        picture = made(pipeline, task.PHRASINGS[kind][0], [])
        assert np.asarray(picture, float).std() < 12  # a blank canvas: what it knows of pictures is in the references
        assert decibels(picture, task.target(kind, woman.image, cat.image, (SIDE, SIDE))) < LIKE - 2


def test_the_cache_reuses_steps_and_stays_close(pipeline: Any, woman: Reference, cat: Reference) -> None:
    job = Job(task.PHRASINGS["left_right"][0], SIDE, SIDE, steps=20, seed=1)
    exact = generate(pipeline, job, [woman, cat], AS_IT_IS)
    cached = generate(pipeline, job, [woman, cat], KontextSettings(sizing="no change", cache_threshold=0.1))
    assert cached.report.reused_steps >= 2
    assert decibels(cached.image, exact.image) > 30


def test_three_references_are_taken(pipeline: Any, woman: Reference, cat: Reference) -> None:
    """diffusers' own pipeline takes one; the small model was trained on two, so only the mechanics are tested."""
    report = generate(pipeline, Job("side by side", SIDE, SIDE, steps=2), [woman, cat, woman], AS_IT_IS).report
    assert report.passes[0].reference_tokens == (36, 36, 36)
