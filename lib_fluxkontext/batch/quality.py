"""How near a picture is to the same one made without a cache."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

from PIL import Image

from lib_fluxkontext.errors import KontextError


@dataclass(frozen=True)
class Quality:
    """A picture against its reference.

    Attributes:
        psnr: of all pixels and channels in dB; infinite where both are the same, pixel by pixel.
        flip: mean of NVIDIA's FLIP error map (Andersson et al. 2020), 0 to 1, as flip-evaluator computes it.
    """

    psnr: float
    flip: float


def check_installed() -> None:
    """Refuse to begin what could not be finished.

    Raises:
        KontextError: flip-evaluator is missing.
    """
    if importlib.util.find_spec("flip_evaluator") is None:
        raise KontextError('the package flip-evaluator is missing; install it: pip install -e ".[compare]"')


def compare(picture: Image.Image, reference: Image.Image) -> Quality:
    """Compare two pictures of one size.

    Raises:
        KontextError: they are of different sizes.
    """
    if picture.size != reference.size:
        sizes = " and ".join(f"{image.width}×{image.height}" for image in (picture, reference))
        raise KontextError(f"pictures of {sizes} cannot be compared")
    import flip_evaluator
    import numpy as np

    pixels, expected = (np.asarray(image.convert("RGB"), np.float32) / 255 for image in (picture, reference))
    error = float(((pixels.astype(np.float64) - expected) ** 2).mean())
    errors, _, _ = flip_evaluator.evaluate(expected, pixels, "LDR", applyMagma=False)
    return Quality(math.inf if error == 0 else -10 * math.log10(error), float(errors.mean()))
