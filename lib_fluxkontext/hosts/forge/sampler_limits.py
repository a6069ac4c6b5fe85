"""Which caches go with which of Forge's samplers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lib_fluxkontext.cache.chosen import Caches

CORRECTED: tuple[str, ...] = ("Euler", "DPM++ 2M")
"""Correction assumes Euler's steps. Measured beside no correction (docs/benchmarks.md): better with these; with
second-order and ancestral samplers mixed to worse, because they weigh the model's results otherwise."""

NO_RESTART = "Restart goes back to higher noise levels, so the references run in every step."


def suited(caches: Caches, sampler: Any) -> tuple[Caches, list[str]]:
    """The caches without those that this sampler would spoil, and why.

    Args:
        caches: as asked for.
        sampler: Forge's, of this pass.
    """
    name, notes = str(sampler.config.name), []
    if caches.reuse is not None and name == "Restart":
        caches = replace(caches, reuse=None)
        notes.append(NO_RESTART)
    if caches.correction is not None and name not in CORRECTED:
        caches = replace(caches, correction=None)
        notes.append(f"Correction is for {' and '.join(CORRECTED)}; with {name} nothing was corrected.")
    return caches, notes
