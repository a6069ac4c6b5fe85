"""How near a cached picture is to the uncached one of the same noise: whole, inside and outside of what was edited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

PSNR_CAP = 60.0
"""Pictures that differ by rounding alone would give any number; a mean must not hang on those."""


@dataclass(frozen=True)
class Quality:
    """One area of one picture; higher is better but for ``flip``.

    Attributes:
        psnr: in dB, at most ``PSNR_CAP``.
        ssim: mean of the structural similarity's map (Wang et al. 2004), as scikit-image computes it.
        flip: mean of NVIDIA's FLIP error map (Andersson et al. 2020), 0 to 1, as flip-evaluator computes it.
    """

    psnr: float
    ssim: float
    flip: float


@dataclass(frozen=True)
class Qualities:
    """The whole picture, and inside and outside of the edited region; None where that has no pixels."""

    whole: Quality
    inside: Quality | None
    outside: Quality | None


def compare(picture: Image.Image, exact: Image.Image, region: np.ndarray) -> Qualities:
    """Compare two RGB pictures of one size; ``region`` is (height, width), True where the picture was edited."""
    import flip_evaluator
    from skimage.metrics import structural_similarity

    pixels, expected = (np.asarray(image.convert("RGB"), np.float32) / 255 for image in (picture, exact))
    squares = ((pixels.astype(np.float64) - expected) ** 2).mean(-1)
    _, similarity = structural_similarity(pixels, expected, channel_axis=2, data_range=1.0, full=True)
    errors, _, _ = flip_evaluator.evaluate(expected, pixels, "LDR", applyMagma=False)

    def over(area: np.ndarray) -> Quality | None:
        if not area.any():
            return None
        return Quality(
            _decibels(float(squares[area].mean())),
            float(similarity.mean(-1)[area].mean()),
            float(errors.squeeze()[area].mean()),
        )

    whole = over(np.ones_like(region))
    assert whole is not None  # a picture has pixels
    return Qualities(whole, over(region), over(~region) if region.any() else None)


def psnr(picture: Image.Image, exact: Image.Image) -> float:
    """Return the PSNR of the whole picture in dB, at most ``PSNR_CAP``."""
    pixels, expected = (np.asarray(image.convert("RGB"), np.float64) / 255 for image in (picture, exact))
    return _decibels(float(((pixels - expected) ** 2).mean()))


def _decibels(error: float) -> float:
    return PSNR_CAP if error == 0 else min(PSNR_CAP, -10 * float(np.log10(error)))
