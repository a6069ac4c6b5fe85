"""Which caches go with which of Forge's samplers."""

from __future__ import annotations

from typing import Any

from lib_fluxkontext.settings import KontextSettings

CORRECTED: tuple[str, ...] = ("Euler", "DPM++ 2M")
"""Correction assumes Euler's steps. Measured beside no correction (docs/benchmarks.md): better with these; with
second-order and ancestral samplers mixed to worse, because they weigh the model's results otherwise."""

NO_RESTART = "Restart goes back to higher noise levels, so the references run in every step."
NOT_CORRECTED = "Correction is for Euler and DPM++ 2M; with this sampler nothing was corrected."


def compatible_settings(settings: KontextSettings, references: bool, sampler: Any) -> tuple[KontextSettings, list[str]]:
    """The settings without the caches that this sampler would spoil, and why.

    Args:
        settings: as asked for.
        references: whether there are any in this pass.
        sampler: Forge's, of this pass.
    """
    name, notes = str(sampler.config.name), []
    reuses = references and settings.reuse_active
    corrects = settings.cache_correct and (settings.cache_active or reuses)
    if reuses and name == "Restart":
        settings = settings.model_copy(update={"reference_refresh": 0})
        notes.append(NO_RESTART)
    if corrects and name not in CORRECTED:
        settings = settings.model_copy(update={"cache_correct": False})
        notes.append(NOT_CORRECTED)
    return settings, notes
