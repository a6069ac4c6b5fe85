"""A result and the reference that it was made from, small enough to be kept and shown side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image

from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.match import Match, estimate_match
from lib_fluxkontext.images.sizing import apply_size, plan_size
from lib_fluxkontext.settings import KontextSettings

LONGEST_SIDE = 1024
"""Pixels of the kept pictures' longest side."""


@dataclass(frozen=True)
class PicturePair:
    """Two pictures to compare; both 8-bit RGB.

    Attributes:
        reference: cropped and padded as it was for the generation, about as large as ``result``.
        result: shrunk to ``LONGEST_SIDE``.
        result_size: width and height in pixels before that.
        label: what the panel calls the reference, in English (``"Reference 1"``).
    """

    reference: Image.Image
    result: Image.Image
    result_size: tuple[int, int]
    label: str

    def estimate(self) -> Match | None:
        """Estimate how the result lies against the reference, in pixels of the result's full size.

        Takes about a quarter of a second of one core. None where nothing can be said.
        """
        match = estimate_match(self.reference, self.result)
        if match is None:
            return None
        factor = self.result_size[0] / self.result.width
        return replace(match, right=match.right * factor, down=match.down * factor)


def picture_pair(reference: Reference, settings: KontextSettings, result: Image.Image) -> PicturePair:
    """Copy both pictures, sized to be kept. *Half size* is left out: it changes neither crop nor padding.

    Args:
        reference: the generation's first, as decoded.
        settings: the generation's.
        result: as generated; it is not changed.

    Raises:
        KontextError: the reference cannot be sized for a picture of this shape.
    """
    factor = min(1.0, LONGEST_SIDE / max(result.size))
    small = result.convert("RGB").resize(_scaled(result.size, factor), Image.Resampling.LANCZOS)
    plan = plan_size(reference.size, settings.sizing, settings.half_size, result.size, reference.name)
    factor = max(small.width / plan.target[0], small.height / plan.target[1])
    plan = replace(plan, resized=_scaled(plan.resized, factor), target=_scaled(plan.target, factor))
    number = reference.name.removeprefix("image")
    return PicturePair(
        reference=apply_size(reference.image, plan, reference.background),
        result=small,
        result_size=result.size,
        label=f"Reference {number}" if number.isdigit() else "Reference 1",  # the init image takes the first's place
    )


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
