"""Put an original back around what was made anew: exact outside a mask, with a feather that lies inside it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

INSIDE_FROM = 129
"""Value of a mask's pixel from which it counts as inside; Forge's page and its own binary mask draw the line there."""

Floats = npt.NDArray[np.float32]


def keep_outside(original: Image.Image, result: Image.Image, mask: Image.Image, feather: int) -> Image.Image:
    """Composite the original over the result outside the mask.

    Args:
        original: RGB; outside the mask the returned picture equals it bit for bit.
        result: of the same size; converted to RGB.
        mask: greyscale of the same size; inside from ``INSIDE_FROM``.
        feather: pixels inside the mask's edge over which original changes into result; 0 for a hard edge.

    Returns:
        RGB of the same size.

    Raises:
        ValueError: the sizes differ.
    """
    overlay = keep_overlay(original, mask, feather)
    return Image.alpha_composite(result.convert("RGBA"), overlay).convert("RGB")


def keep_overlay(original: Image.Image, mask: Image.Image, feather: int) -> Image.Image:
    """Return the original as RGBA, to be composited over a result: opaque outside the mask, transparent inside.

    Args:
        original: RGB.
        mask: greyscale of the same size; inside from ``INSIDE_FROM``.
        feather: pixels inside the mask's edge over which it becomes transparent; see ``result_weights``.

    Raises:
        ValueError: the sizes differ.
    """
    if original.size != mask.size:
        raise ValueError(f"the original has {original.size} pixels, the mask {mask.size}")
    inside = np.asarray(mask.convert("L")) >= INSIDE_FROM
    alpha = np.rint(255.0 * (1.0 - result_weights(inside, feather))).astype(np.uint8)
    overlay = original.convert("RGB")
    overlay.putalpha(Image.fromarray(alpha))
    return overlay


def result_weights(inside: npt.NDArray[np.bool_], feather: int) -> Floats:
    """Return how much of the result is shown: 0 outside the mask, growing over ``feather`` pixels inside it to 1.

    The weight is the distance to the nearest pixel outside over ``feather + 1``. Where the mask is too thin for that,
    it is the distance over the largest one nearby, so that a thin stroke still shows the result in its middle. The
    picture's border is no edge of the mask.

    Args:
        inside: (H, W), whether a pixel lies inside the mask.
        feather: pixels.

    Returns:
        (H, W), 0 to 1.
    """
    weights = np.zeros(inside.shape, np.float32)
    if not inside.any():
        return weights
    reach = feather + 1
    box = tuple(_span(np.logical_or.reduce(inside, axis=axis), reach) for axis in (1, 0))
    distance = _distance_inside(inside[box], reach)
    deepest = _largest_nearby(_largest_nearby(distance, reach).T, reach).T
    np.divide(distance, deepest, out=weights[box], where=distance > 0)
    return weights


def _span(used: npt.NDArray[np.bool_], margin: int) -> slice:
    """Return the slice from the first to the last true value and ``margin`` more on both sides."""
    places = np.flatnonzero(used)
    return slice(max(0, int(places[0]) - margin), int(places[-1]) + 1 + margin)


def _distance_inside(inside: npt.NDArray[np.bool_], limit: int) -> Floats:
    """Return the Euclidean distance in pixels to the nearest pixel that is not inside, at most ``limit``.

    Exact, columns first and rows then (Saito and Toriwaki, "New algorithms for Euclidean distance transformation of an
    n-dimensional digitized picture", 1994).
    """
    columns = np.where(inside, np.float32(limit), np.float32(0))
    for direction in (columns, columns[::-1]):
        for row in range(1, len(direction)):
            np.minimum(direction[row], direction[row - 1] + 1, out=direction[row])
    squares = columns**2
    nearest = squares.copy()
    for shift in range(1, min(limit, inside.shape[1])):
        np.minimum(nearest[:, shift:], squares[:, :-shift] + shift**2, out=nearest[:, shift:])
        np.minimum(nearest[:, :-shift], squares[:, shift:] + shift**2, out=nearest[:, :-shift])
    distance: Floats = np.sqrt(nearest)
    return distance


def _largest_nearby(values: Floats, radius: int) -> Floats:
    """Return the largest of the values up to ``radius`` places to the left and right."""
    covered = 0
    while covered < radius:
        shift = min(2 * covered + 1, radius - covered)
        largest = values.copy()
        np.maximum(largest[:, shift:], values[:, :-shift], out=largest[:, shift:])
        np.maximum(largest[:, :-shift], values[:, shift:], out=largest[:, :-shift])
        values, covered = largest, covered + shift
    return values
