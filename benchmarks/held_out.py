"""Pairs of photographs that no training step of the small model saw."""

from __future__ import annotations

import itertools

from lib_fluxkontext.images.decode import Reference, decode_reference
from tools.small_kontext.data import photos
from tools.small_kontext.targets import fit


def decoded_pairs(count: int, side: int) -> list[tuple[Reference, Reference]]:
    """So many ordered pairs, ``side`` pixels wide and high, spread evenly over all there are.

    Raises:
        SystemExit: fewer are installed.
    """
    fitted = [fit(photo, (side, side)) for photo in photos(held_out=True).values()]
    pairs = list(itertools.permutations(fitted, 2))
    if len(pairs) < count:
        raise SystemExit(f"only {len(pairs)} pairs of held-out photographs are installed, {count} were asked for")
    step = len(pairs) / count
    chosen = [pairs[int(i * step)] for i in range(count)]
    return [(decode_reference(a, "image1"), decode_reference(b, "image2")) for a, b in chosen]
