"""The size at which a reference is encoded. It is planned first, so that a crop can be shown before it is applied."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.geometry import pixel_tokens
from lib_fluxkontext.images.decode import MIN_SIDE, WHITE
from lib_fluxkontext.settings import Sizing

BFL_SIZES: tuple[tuple[int, int], ...] = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024),
    (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672),
)  # fmt: skip
"""Width and height in pixels that Kontext was trained on (Black Forest Labs, flux, ``src/flux/util.py``,
``PREFERED_KONTEXT_RESOLUTIONS``)."""

MAX_REFERENCE_PIXELS = 8_000_000
"""Pixels of one sized reference, 31,250 tokens: with more, a step takes minutes on any card."""


@dataclass(frozen=True)
class SizePlan:
    """How one reference is cropped, resized and padded; every number in pixels.

    Attributes:
        source: width and height of the decoded image.
        crop: (left, top, right, bottom) of the source's box that is used.
        resized: width and height that this box is resampled to.
        target: width and height of the encoded image: ``resized``, or larger where it is padded.
    """

    source: tuple[int, int]
    crop: tuple[int, int, int, int]
    resized: tuple[int, int]
    target: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Tokens of this reference."""
        return pixel_tokens(*self.target)

    @property
    def removed(self) -> tuple[int, int, int, int]:
        """Source pixels that the crop removes: left, top, right, bottom."""
        left, top, right, bottom = self.crop
        return left, top, self.source[0] - right, self.source[1] - bottom

    @property
    def removed_share(self) -> float:
        """Share of the source's area that the crop removes, 0 to 1."""
        left, top, right, bottom = self.crop
        return 1.0 - (right - left) * (bottom - top) / (self.source[0] * self.source[1])


def nearest_bfl_size(width: int, height: int) -> tuple[int, int]:
    """Return the size of ``BFL_SIZES`` whose aspect ratio is nearest to width / height."""
    ratio = width / height
    return min(BFL_SIZES, key=lambda size: abs(size[0] / size[1] - ratio))


def plan_size(source: tuple[int, int], sizing: Sizing, half_size: bool, output: tuple[int, int], name: str) -> SizePlan:
    """Plan crop, size and padding of one reference.

    Args:
        source: width and height of the decoded image in pixels.
        sizing: one of ``SIZINGS``.
        half_size: halve width and height after sizing.
        output: width and height of the picture being made, in pixels.
        name: the setting the reference came from, for messages.

    Raises:
        KontextError: the result has a side under ``MIN_SIDE`` or more than ``MAX_REFERENCE_PIXELS``.
    """
    match sizing:
        case "to BFL recommended":
            target = nearest_bfl_size(*source)
        case "to output" | "fit inside output":
            target = output
        case "no change":
            target = source
    if half_size:
        target = (target[0] // 2, target[1] // 2)
    if sizing == "fit inside output":
        scale = min(target[0] / source[0], target[1] / source[1])
        resized = (
            min(target[0], max(1, round(source[0] * scale))),
            min(target[1], max(1, round(source[1] * scale))),
        )
        plan = SizePlan(source, (0, 0, *source), resized, target)
    else:
        crop = (0, 0, *source) if sizing == "no change" else _centre_crop(source, target)
        plan = SizePlan(source, crop, target, target)
    _check_target(plan, sizing, half_size, name)
    return plan


def apply_size(image: Image.Image, plan: SizePlan, background: str = WHITE) -> Image.Image:
    """Crop, resample (Lanczos) and pad as planned. An image that already fits is returned as it is.

    Args:
        image: decoded.
        plan: of this image.
        background: ``"#rrggbb"`` to pad with. Transparency is flattened on the same, or the padding would show as a
            frame.
    """
    if plan.crop != (0, 0, *image.size) or plan.resized != image.size:
        image = image.resize(plan.resized, Image.Resampling.LANCZOS, box=plan.crop)
    if plan.target != plan.resized:
        canvas = Image.new("RGB", plan.target, background)
        canvas.paste(image, ((plan.target[0] - plan.resized[0]) // 2, (plan.target[1] - plan.resized[1]) // 2))
        image = canvas
    return image


def _centre_crop(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the largest centred box of the target's aspect ratio, in whole source pixels."""
    width, height = source
    if width * target[1] > height * target[0]:
        crop_width = max(1, round(height * target[0] / target[1]))
        left = (width - crop_width) // 2
        return left, 0, left + crop_width, height
    crop_height = max(1, round(width * target[1] / target[0]))
    top = (height - crop_height) // 2
    return 0, top, width, top + crop_height


def _check_target(plan: SizePlan, sizing: Sizing, half_size: bool, name: str) -> None:
    width, height = plan.target
    mode = f'"{sizing}"' + (" with half size" if half_size else "")
    if min(*plan.target, *plan.resized) < MIN_SIDE:
        small = plan.resized if min(plan.resized) < MIN_SIDE else plan.target
        raise KontextError(f"{mode} makes it {small[0]}×{small[1]}; no side may be under {MIN_SIDE} pixels", name)
    if width * height > MAX_REFERENCE_PIXELS:
        limit = f"at most {MAX_REFERENCE_PIXELS:,} pixels"
        raise KontextError(f'{mode} makes it {width}×{height}; {limit}, use "to BFL recommended" or half size', name)
