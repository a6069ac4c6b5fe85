"""What is generated: copying and editing tasks of the small model, on photographs that no training step saw."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from lib_fluxkontext.images.decode import Reference, decode_reference
from tools.small_kontext.data import photos
from tools.small_kontext.instructions import Instruction, of_kind
from tools.small_kontext.targets import example, fit

Group = Literal["copying", "editing"]

GROUPS: tuple[Group, ...] = ("copying", "editing")

KINDS: dict[tuple[Group, int], tuple[str, ...]] = {
    ("copying", 2): ("left_right", "swap", "second", "first"),
    ("copying", 1): ("first",),
    ("editing", 2): ("inset", "tint", "add", "grey", "caption", "brighten", "repaint", "blur", "frame", "remove"),
    ("editing", 1): ("tint", "add", "grey", "caption", "brighten", "repaint", "blur", "frame", "remove"),
    ("editing", 0): ("add", "caption", "frame"),
}
"""Kinds of instruction by group and number of references, in the order they are taken. Without references nothing
can be copied: the objects are drawn on a grey canvas. ``mirror`` is left out: it has no outside."""


@dataclass(frozen=True)
class Task:
    """One picture to make.

    Attributes:
        group: copying or editing.
        prompt: the instruction.
        references: none to two.
        region: (height, width), True where the instruction changes the first reference; all False if it copies.
    """

    group: Group
    prompt: str
    references: tuple[Reference, ...]
    region: np.ndarray


def tasks(group: Group, references: int, count: int, side: int, held_out: bool = True) -> list[Task]:
    """Return so many tasks, their kinds and pairs of photographs taking turns.

    Args:
        group: copying or editing.
        references: none to two.
        count: of tasks.
        side: of pictures and references, in pixels.
        held_out: of photographs that no training step saw; else of those for training, to calibrate caches on.

    Raises:
        SystemExit: no two such photographs are installed.
    """
    fitted = [fit(photo, (side, side)) for photo in photos(held_out).values()]
    pairs = list(itertools.permutations(fitted, 2))
    if not pairs:
        raise SystemExit("no two photographs for these tasks are installed: pip install scikit-image")
    kinds = KINDS[group, references]
    made = []
    for number in range(count):
        choices = of_kind(kinds[number % len(kinds)])
        # Steps that have no divisor in common with what they walk through, so that all turn up in time.
        instruction = choices[number * 7 % len(choices)]
        made.append(_task(group, instruction, pairs[number * 7 % len(pairs)][:references], side))
    return made


def _task(group: Group, instruction: Instruction, pictures: Sequence[Image.Image], side: int) -> Task:
    shown = example(instruction, *(*pictures, None, None)[:2], (side, side))
    names = ("image1", "image2")
    references = [decode_reference(one, name) for one, name in zip(shown.references, names, strict=True) if one]
    return Task(group, instruction.phrasings()[0], tuple(references), shown.region)
