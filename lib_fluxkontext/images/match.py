"""How a result lies against the reference that it was made from: Kontext is known to shift and to enlarge a little."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from lib_fluxkontext.images.movement import SCALES, find_movement

WORKING_SIDE = 512
"""Longest side in pixels that pictures are shrunk to for the estimate; block shifts are found to a twentieth of one."""

MIN_PICTURE = 96
"""Shortest side in pixels of a picture that an estimate is made for."""

MAX_RATIO_DIFFERENCE = 0.04
"""Relative difference of aspect ratios beyond which no uniform scale makes one picture of the other."""

MIN_CONFIDENCE = 0.4
"""Share of the reference's structure that has to agree. Different photographs reach 0.1 (0.3 at the smallest size), a
picture with a third of it replaced 0.5: half of the blocks touch what was replaced."""

ALIGNED_PIXELS = 0.5
ALIGNED_SCALE = 0.001


@dataclass(frozen=True)
class Match:
    """Where a result lies, seen from its reference.

    Attributes:
        right: pixels of the result by which its centre lies further right; negative: left.
        down: the same downwards; negative: up.
        scale: size of what the result shows, over its size in the reference.
        confidence: share of the reference's structure that moved like this, 0 to 1.
    """

    right: float
    down: float
    scale: float
    confidence: float

    @property
    def is_aligned(self) -> bool:
        """Whether the result lies on the reference: under half a pixel and 0.1 % away."""
        return not (self.moves_right or self.moves_down or self.scales)

    @property
    def moves_right(self) -> bool:
        """Whether it lies left or right by more than can be neglected."""
        return abs(self.right) >= ALIGNED_PIXELS

    @property
    def moves_down(self) -> bool:
        """Whether it lies up or down by more than can be neglected."""
        return abs(self.down) >= ALIGNED_PIXELS

    @property
    def scales(self) -> bool:
        """Whether it is larger or smaller by more than can be neglected."""
        return abs(self.scale - 1.0) >= ALIGNED_SCALE


def fit_reference(reference: Image.Image, size: tuple[int, int]) -> Image.Image | None:
    """Bring a reference to a result's size: scaled uniformly, the few pixels too many cropped around the centre.

    Args:
        reference: sized as it was for the generation.
        size: the result's width and height in pixels.

    Returns:
        RGB; None where the aspect ratios differ by more than ``MAX_RATIO_DIFFERENCE``.
    """
    ratio = reference.width * size[1] / (reference.height * size[0])
    if abs(math.log(ratio)) > MAX_RATIO_DIFFERENCE:
        return None
    return ImageOps.fit(reference.convert("RGB"), size, Image.Resampling.LANCZOS)


def estimate_match(reference: Image.Image, result: Image.Image) -> Match | None:
    """Estimate how a result lies against its reference.

    Args:
        reference: sized as it was for the generation.
        result: the generated picture.

    Returns:
        None where nothing can be said: the pictures do not share most of their content, their aspect ratios differ, one
        is too small or empty, or scikit-image is not installed.
    """
    try:
        import skimage.registration  # noqa: F401
    except ImportError:
        return None
    factor = min(1.0, WORKING_SIDE / max(result.size))
    size = (max(1, round(result.width * factor)), max(1, round(result.height * factor)))
    fitted = fit_reference(reference, size)
    if fitted is None or min(size) < MIN_PICTURE:
        return None
    found = find_movement(fitted, result.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    if found is None:
        return None
    movement, share = found
    if share < MIN_CONFIDENCE or not SCALES[0] <= movement.scale <= SCALES[1]:
        return None
    across, along = result.width / size[0], result.height / size[1]
    return Match(movement.right * across, movement.down * along, movement.scale, share)


def align(result: Image.Image, match: Match) -> Image.Image:
    """Move a result back, so that it lies on its reference; bicubic.

    The border that becomes empty repeats the outermost pixels: those of the reference would be of another picture,
    where light or style was changed.

    Args:
        result: the picture that ``match`` was estimated for, at the same size.
        match: from :func:`estimate_match`.

    Returns:
        RGB, or RGBA where the result is.
    """
    result = result if result.mode in ("RGB", "RGBA") else result.convert("RGB")
    width, height = result.size
    left = width / 2 * (1 - match.scale) + match.right
    top = height / 2 * (1 - match.scale) + match.down
    beyond = max(-left, -top, left + match.scale * width - width, top + match.scale * height - height, 0.0)
    margin = math.ceil(beyond) + 2  # bicubic looks at two pixels more
    padded = np.pad(np.asarray(result), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    return Image.fromarray(padded).transform(
        (width, height),
        Image.Transform.AFFINE,
        (match.scale, 0.0, left + margin, 0.0, match.scale, top + margin),
        Image.Resampling.BICUBIC,
    )
