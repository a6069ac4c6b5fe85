"""References as one picture, side by side: as many tokens as the first alone would have had, not the sum of all.

Each is planned as ever (``plan_size``), so that what a crop removes does not change, then brought to a common height or
width. A picture is resampled once, from its own pixels to its place in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

from PIL import Image

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.geometry import TOKEN_SIDE, pixel_tokens
from lib_fluxkontext.images.decode import MAX_RATIO, MIN_SIDE, Reference, content_digest
from lib_fluxkontext.images.sizing import SizePlan, apply_size, plan_size
from lib_fluxkontext.settings import KontextSettings, Stitch

Layout = Literal["row", "column"]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class StitchPlan:
    """Where each reference stands in the stitched picture; every number in pixels.

    Attributes:
        layout: side by side, or one below the other.
        size: width and height of the whole, multiples of a token's side.
        cells: each reference's box; together they fill the whole.
    """

    layout: Layout
    size: tuple[int, int]
    cells: tuple[Box, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the stitched picture."""
        return pixel_tokens(*self.size)

    @property
    def size_plan(self) -> SizePlan:
        """How the stitched picture is sized before it is encoded: not at all."""
        return SizePlan(self.size, (0, 0, *self.size), self.size, self.size)


def plan_sizes(references: Sequence[Reference], settings: KontextSettings, output: tuple[int, int]) -> list[SizePlan]:
    """Plan the size of each reference alone; see ``plan_size``, also for the errors."""
    return [
        plan_size(reference.size, settings.sizing, settings.half_size, output, reference.name)
        for reference in references
    ]


def plan_stitch(plans: Sequence[SizePlan], stitch: Stitch) -> StitchPlan | None:
    """Plan the stitched picture of these references.

    The whole has as many pixels as the first reference alone would have had, or somewhat fewer: its sides are whole
    tokens. Where they do not come out even, all are stretched by what is missing, less than a token's side in all.

    Args:
        plans: of the references that are used, in order.
        stitch: ``"auto"`` takes the layout whose ratio is nearer to square, a row where both are as near. The ratios
            that Kontext was trained on (``BFL_SIZES``) reach from 3:7 to 7:3, as far to one side as to the other, so
            this one is inside them if any is, else the less far outside.

    Returns:
        None where there is nothing to stitch: it is off, or there are fewer than two references.

    Raises:
        KontextError: a reference's side would be under ``MIN_SIDE``, or the ratio of the whole over ``MAX_RATIO``.
    """
    if stitch == "off" or len(plans) < 2:
        return None
    layout = stitch if stitch != "auto" else _nearer_to_square(plans)
    shares = _long_shares(plans, layout)
    common, joined = _sides(sum(shares), plans[0].target[0] * plans[0].target[1])
    edges = [0, *(round(joined * reached / sum(shares)) for reached in accumulate(shares))]
    boxes = [(start, 0, end, common) for start, end in pairwise(edges)]
    size = (joined, common)
    if layout == "column":
        boxes = [(top, left, bottom, right) for left, top, right, bottom in boxes]
        size = (common, joined)
    plan = StitchPlan(layout, size, tuple(boxes))
    _check(plans, plan)
    return plan


def stitch_references(references: Sequence[Reference], plans: Sequence[SizePlan], plan: StitchPlan) -> Reference:
    """Crop, resample (Lanczos) and pad each reference to its cell, and join them.

    Args:
        references: decoded, in order.
        plans: of each alone, in the same order.
        plan: made from these plans.

    Returns:
        A reference of the plan's size, with the name and background of the first.
    """
    stitched = Image.new("RGB", plan.size)
    for reference, size_plan, cell in zip(references, plans, plan.cells, strict=True):
        stitched.paste(apply_size(reference.image, _scaled(size_plan, cell), reference.background), cell[:2])
    return Reference(stitched, content_digest(stitched), references[0].name, references[0].background)


def apply_stitch(
    references: Sequence[Reference], plans: Sequence[SizePlan], stitch: Stitch
) -> tuple[list[Reference], list[SizePlan]]:
    """Return what is to be encoded: the stitched picture with its plan, or, where nothing is stitched, what came in.

    Raises:
        KontextError: as ``plan_stitch``.
    """
    plan = plan_stitch(plans, stitch)
    if plan is None:
        return list(references), list(plans)
    return [stitch_references(references, plans, plan)], [plan.size_plan]


def reference_token_count(plans: Sequence[SizePlan], stitch: Stitch) -> int:
    """Count the tokens of these references, stitched or not.

    Raises:
        KontextError: as ``plan_stitch``.
    """
    plan = plan_stitch(plans, stitch)
    return plan.tokens if plan is not None else sum(one.tokens for one in plans)


def _long_shares(plans: Sequence[SizePlan], layout: Layout) -> list[float]:
    """Return each reference's length along the layout's direction, as a share of the side that all have in common."""
    ratios = [plan.target[0] / plan.target[1] for plan in plans]
    return ratios if layout == "row" else [1 / ratio for ratio in ratios]


def _nearer_to_square(plans: Sequence[SizePlan]) -> Layout:
    row, column = (abs(math.log(sum(_long_shares(plans, layout)))) for layout in ("row", "column"))
    return "row" if row <= column + 1e-9 else "column"  # equal but for rounding: a row


def _sides(ratio: float, max_pixels: int) -> tuple[int, int]:
    """Return common and joined side: whole tokens, about 1:ratio, at most so many pixels; 0 where they do not fit.

    The shorter side is rounded down and the longer one to the nearest, which is where rounding stretches least.
    """
    if ratio < 1:
        joined, common = _sides(1 / ratio, max_pixels)
        return common, joined
    short = int(math.sqrt(max_pixels / ratio) + 1e-6) // TOKEN_SIDE * TOKEN_SIDE
    long = round(short * ratio / TOKEN_SIDE) * TOKEN_SIDE
    return short, long if short * long <= max_pixels else long - TOKEN_SIDE


def _scaled(plan: SizePlan, cell: Box) -> SizePlan:
    """Return a plan from the same pixels of the source to a cell; padding stays the same share of it."""
    left, top, right, bottom = cell
    width, height = right - left, bottom - top
    resized = (
        max(1, min(width, round(plan.resized[0] * width / plan.target[0]))),
        max(1, min(height, round(plan.resized[1] * height / plan.target[1]))),
    )
    return replace(plan, resized=resized, target=(width, height))


def _check(plans: Sequence[SizePlan], plan: StitchPlan) -> None:
    width, height = plan.size
    reason = None
    for number, (one, cell) in enumerate(zip(plans, plan.cells, strict=True), 1):
        resized = _scaled(one, cell).resized
        if min(*resized, width, height) < MIN_SIDE:
            reason = f"picture {number} becomes {resized[0]}×{resized[1]}; no side may be under {MIN_SIDE} pixels"
            break
    else:
        if max(width, height) > MAX_RATIO * min(width, height):
            reason = f"{width}×{height} is more than {MAX_RATIO:.0f} times longer than wide"
    if reason is not None:
        hint = ', use a column, "auto" or "off"' if plan.layout == "row" else ', use a row, "auto" or "off"'
        raise KontextError(f"{len(plans)} pictures in a {plan.layout}: {reason}{hint}", "stitch")
