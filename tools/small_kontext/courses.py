"""Courses of the small model's transformer: which canvases, references and instructions it is shown, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.small_kontext.instructions import PHRASINGS
from tools.small_kontext.targets import Size


@dataclass(frozen=True)
class Layout:
    """A canvas size and the sizes of the references, all (width, height).

    Attributes:
        canvas: size of the generated picture.
        references: size of each reference, none to two.
        weight: how often a training step uses this layout.
    """

    canvas: Size
    references: tuple[Size, ...]
    weight: float = 1.0


S128, S256, WIDE, HIGH = (128, 128), (256, 256), (192, 128), (128, 192)
POOL_SIZES = {S128: 3000, WIDE: 400, HIGH: 400, S256: 900}
"""How many pictures of each size are drawn and encoded beforehand."""

SMALL_LAYOUTS = (
    Layout(S128, (S128, S128), 0.66),
    Layout(S128, (S128,), 0.10),
    Layout(S128, (), 0.02),
    Layout(WIDE, (WIDE, WIDE), 0.03),
    Layout(HIGH, (HIGH, HIGH), 0.03),
    Layout(S128, (WIDE, HIGH), 0.03),
    Layout(WIDE, (S128, S128), 0.03),
    Layout(S128, (S256, S256), 0.05),
    Layout(S128, (S128, S256), 0.03),
    Layout(S128, (S256, S128), 0.03),
)
"""Canvases of about 128x128."""

LARGE_LAYOUTS = (
    Layout(S256, (S256, S256), 0.5),
    Layout(S256, (S256,), 0.06),
    Layout(S256, (), 0.02),
    Layout(S256, (S256, S128), 0.06),
    Layout(S256, (S128, S128), 0.06),
    *(Layout(layout.canvas, layout.references, 0.31 * layout.weight) for layout in SMALL_LAYOUTS),
)
"""Canvases of 256x256, too."""

MIXED_LAYOUTS = (
    Layout(S256, (S256, S256), 0.34),
    Layout(S256, (S256,), 0.03),
    Layout(S256, (), 0.01),
    Layout(S256, (S128, S128), 0.11),
    Layout(S128, (S256, S256), 0.10),
    Layout(S256, (S256, S128), 0.05),
    Layout(S256, (S128, S256), 0.05),
    Layout(S128, (S128, S256), 0.05),
    Layout(S128, (S256, S128), 0.05),
    Layout(S128, (WIDE, HIGH), 0.03),
    Layout(WIDE, (S128, S128), 0.03),
    Layout(S128, (S128, S128), 0.10),
    Layout(S128, (S128,), 0.02),
    Layout(WIDE, (WIDE, WIDE), 0.01),
    Layout(HIGH, (HIGH, HIGH), 0.01),
    Layout(S128, (), 0.01),
)
"""Half of it with references of another size than the canvas."""

KIND_WEIGHTS = {
    "left_right": 0.05,
    "swap": 0.05,
    "first": 0.03,
    "second": 0.04,
    "inset": 0.14,
    "grey": 0.05,
    "blur": 0.05,
    "brighten": 0.05,
    "tint": 0.06,
    "mirror": 0.05,
    "add": 0.11,
    "remove": 0.09,
    "repaint": 0.09,
    "frame": 0.08,
    "caption": 0.06,
}
"""How often each kind is trained where there are two references."""

LATE_KIND_WEIGHTS = {
    "left_right": 0.09,
    "swap": 0.09,
    "first": 0.04,
    "second": 0.08,
    "inset": 0.12,
    "grey": 0.03,
    "blur": 0.03,
    "brighten": 0.03,
    "tint": 0.03,
    "mirror": 0.05,
    "add": 0.08,
    "remove": 0.13,
    "repaint": 0.07,
    "frame": 0.05,
    "caption": 0.08,
}
"""More of what moves pictures, and of what was still hard."""


@dataclass(frozen=True)
class Course:
    """What a part of the training shows.

    Attributes:
        layouts: sizes of canvas and references.
        kinds: how often each kind of instruction is shown where there are two references.
    """

    layouts: tuple[Layout, ...]
    kinds: Mapping[str, float]


COURSES = {
    "small": Course(SMALL_LAYOUTS, KIND_WEIGHTS),
    "large": Course(LARGE_LAYOUTS, KIND_WEIGHTS),
    "mixed": Course(MIXED_LAYOUTS, LATE_KIND_WEIGHTS),
}
"""In the order in which the shipped weights were trained."""

assert all(set(course.kinds) == set(PHRASINGS) for course in COURSES.values())
