"""The common movement of two pictures: translation and uniform scale, found by scikit-image.

Estimated in three steps. Scale by the Fourier–Mellin transform (Reddy and Chatterji, "An FFT-based technique for
translation, rotation, and scale-invariant image registration", 1996): the spectra's magnitudes do not depend on
translation, and in log-polar coordinates a scale is a shift. Translation by phase correlation. Both are refined by the
shifts of overlapping blocks, to which a translation and a scale are fitted robustly (RANSAC over all pairs of blocks),
so that what was edited does not count. How many blocks agree says whether the pictures show the same thing at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]

SCALES = (0.8, 1.25)
"""Least and greatest scale that is looked for."""

_BLOCK = 96
_LOG_POLAR_STEPS = 512
_SUBPIXELS = 20
_TOLERANCES = (1.5, 1.0)
"""Pixels by which a block may differ from the common movement, in the first and the second refinement."""


def find_movement(reference: Image.Image, result: Image.Image) -> tuple[Movement, float] | None:
    """Find how the content of a picture moved from one to another.

    Args:
        reference: RGB.
        result: RGB, of the same size; not larger than some 512 pixels, for the sake of time.

    Returns:
        the movement, to about a tenth of a pixel, and the share of the reference's structure that moved like this (0 to
        1); None where a picture is empty or no three blocks agree.
    """
    before, after = _structure(reference), _structure(result)
    if not before.any() or not after.any():
        return None
    found, share = _coarse(before, after), 0.0
    for tolerance in _TOLERANCES:
        fit = _fit(_block_shifts(before, _moved_back(after, found)), tolerance)
        if fit is None:
            return None
        rest, share = fit
        found = found.after(rest)
    return found, share


@dataclass(frozen=True)
class Movement:
    """A point q of the reference, from the centre, lies at scale · q + (right, down) in the result."""

    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0

    def after(self, first: Movement) -> Movement:
        """Return the movement that does ``first`` and then this."""
        right, down = self.scale * first.right + self.right, self.scale * first.down + self.down
        return Movement(right, down, self.scale * first.scale)


@dataclass(frozen=True)
class _Blocks:
    """The shift of each block; arrays of one number a block, in pixels.

    Attributes:
        x, y: the block's centre, seen from the picture's.
        right, down: its shift; NaN where the result has no structure there.
        weights: structure of the reference's block; the stronger half counts alike.
        side: of a block.
    """

    x: Array
    y: Array
    right: Array
    down: Array
    weights: Array
    side: int


def _structure(image: Image.Image) -> Array:
    """Keep the edges of a picture (a difference of Gaussians of its grey values): light and colour may have changed."""
    from skimage.filters import difference_of_gaussians

    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255
    structure: Array = difference_of_gaussians(grey, 1, 8).astype(np.float32)
    structure[np.abs(structure) < 1e-6] = 0.0  # an empty picture is empty
    return structure


def _window(height: int, width: int) -> Array:
    """Fade out towards the borders (Hann), which would correlate with each other."""
    return np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)


def _moved_back(after: Array, movement: Movement) -> Array:
    """Undo a movement; beyond the picture there is no structure."""
    height, width = after.shape
    left = width / 2 * (1 - movement.scale) + movement.right
    top = height / 2 * (1 - movement.scale) + movement.down
    affine = (movement.scale, 0.0, left, 0.0, movement.scale, top)
    moved = Image.fromarray(after).transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return np.asarray(moved, dtype=np.float32)


def _coarse(before: Array, after: Array) -> Movement:
    """Return the better of two movements: with the scale that the spectra tell, and with none."""
    from skimage.registration import phase_cross_correlation

    window = _window(*before.shape)
    windowed = before * window

    def correlation(movement: Movement) -> float:
        moved = _moved_back(after, movement) * window
        norm = float(np.linalg.norm(windowed) * np.linalg.norm(moved))
        return float((windowed * moved).sum()) / norm if norm else 0.0

    movements = []
    for scale in (1.0, _scale_of_spectra(windowed, after * window)):
        scaled = _moved_back(after, Movement(scale=scale)) * window
        if scaled.any():
            down, right = -phase_cross_correlation(windowed, scaled)[0]
            movements.append(Movement(scale * float(right), scale * float(down), scale))
    return max(movements, key=correlation, default=Movement())


def _scale_of_spectra(before: Array, after: Array) -> float:
    """Return the scale by Fourier–Mellin, within ``SCALES``; 1 where it finds another."""
    from skimage.registration import phase_cross_correlation
    from skimage.transform import warp_polar

    radius, steps = min(before.shape) / 2, _LOG_POLAR_STEPS
    log_polar = [
        # A spectrum's magnitude is symmetric: half the angles say all.
        warp_polar(
            np.abs(np.fft.fftshift(np.fft.fft2(picture))),
            radius=radius,
            output_shape=(180, steps),
            scaling="log",
        )[:90]
        for picture in (before, after)
    ]
    shift = phase_cross_correlation(*log_polar, upsample_factor=10, normalization=None)[0]
    scale = math.exp(float(shift[1]) * math.log(radius) / steps)
    return scale if SCALES[0] <= scale <= SCALES[1] else 1.0


def _block_shifts(before: Array, after: Array) -> _Blocks:
    """Find the shift of every block by cross-correlation, to a twentieth of a pixel."""
    from skimage.registration import phase_cross_correlation

    height, width = before.shape
    side = max(32, min(_BLOCK, min(height, width) // 3))
    rows, columns = (
        np.linspace(0, length - side, max(3, round(1.5 * length / side))).round().astype(int)
        for length in (height, width)
    )
    window = _window(side, side)
    found = []
    for top in rows:
        for left in columns:
            block = np.s_[top : top + side, left : left + side]
            first, second = ((picture[block] - picture[block].mean()) * window for picture in (before, after))
            right = down = math.nan
            if first.any() and second.any():
                # Not whitened: noise and JPEG's blocks would count as much as the picture.
                shift = phase_cross_correlation(first, second, upsample_factor=_SUBPIXELS, normalization=None)[0]
                down, right = -float(shift[0]), -float(shift[1])
            centre = (left + side / 2 - width / 2, top + side / 2 - height / 2)
            found.append((*centre, right, down, float(first.std())))
    x, y, right_of, down_of, structure = np.array(found, dtype=np.float32).T
    usual = np.median(structure[structure > 0]) if structure.any() else 0.0
    return _Blocks(x, y, right_of, down_of, np.minimum(structure, usual), side)


def _fit(blocks: _Blocks, tolerance: float) -> tuple[Movement, float] | None:
    """Fit a translation and a scale to the blocks' shifts: the one that most agree with, within ``tolerance`` pixels.

    Returns:
        the movement and the share of the blocks, by weight, that agree; None where no three do.
    """
    weights, places = blocks.weights, (blocks.x, blocks.y)
    shifts = (blocks.right, blocks.down)
    one, other = np.triu_indices(len(weights), 1)
    apart = (blocks.x[one] - blocks.x[other]) ** 2 + (blocks.y[one] - blocks.y[other]) ** 2
    usable = (apart >= blocks.side**2) & np.isfinite(blocks.right[one] + blocks.right[other])
    one, other, apart = one[usable], other[usable], apart[usable]
    if not len(one):
        return None
    # What each pair would say: how much larger, and from where.
    growth = sum((s[one] - s[other]) * (p[one] - p[other]) for s, p in zip(shifts, places, strict=True)) / apart
    errors = [
        ((s[one] + s[other]) / 2 - growth * (p[one] + p[other]) / 2)[:, None] + growth[:, None] * p - s
        for s, p in zip(shifts, places, strict=True)
    ]
    agreeing = np.hypot(*errors) < tolerance
    agrees = agreeing[np.argmax(agreeing @ weights)]
    for _ in range(2):  # least squares over those that agree, and once more over those that agree with that
        if agrees.sum() < 3:
            return None
        right, down, growth = _least_squares(blocks, agrees)
        errors = [right + growth * blocks.x - blocks.right, down + growth * blocks.y - blocks.down]
        agrees = np.hypot(*errors) < tolerance
    return Movement(right, down, 1.0 + growth), float(weights[agrees].sum() / weights.sum())


def _least_squares(blocks: _Blocks, chosen: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Fit right + growth · x and down + growth · y to the chosen blocks' shifts."""
    x, y = blocks.x[chosen], blocks.y[chosen]
    zeros, ones = np.zeros_like(x), np.ones_like(x)
    equations = np.concatenate([np.stack([ones, zeros, x], 1), np.stack([zeros, ones, y], 1)])
    shifts = np.concatenate([blocks.right[chosen], blocks.down[chosen]])
    right, down, growth = np.linalg.lstsq(equations, shifts, rcond=None)[0]
    return float(right), float(down), float(growth)
