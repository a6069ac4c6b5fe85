"""Which caches work with which of Forge's samplers."""

from __future__ import annotations

from lib_fluxkontext.hosts.forge.runtime.protocols import Sampler
from lib_fluxkontext.settings import KontextSettings

CORRECTABLE: tuple[str, ...] = ("Euler", "DPM++ 2M")
"""Correction assumes Euler's steps. Measured beside no correction (docs/benchmarks.md): better with these; with
second-order and ancestral samplers mixed to worse, because they weight the model's results differently."""

NO_RESTART = "Restart goes back to higher noise levels, so the references run in every step."
NOT_CORRECTED = "Correction is for Euler and DPM++ 2M; with this sampler nothing was corrected."


def compatible_settings(
    settings: KontextSettings, has_references: bool, sampler: Sampler
) -> tuple[KontextSettings, list[str]]:
    """Turn off the caches that this sampler would spoil.

    Args:
        settings: as asked for.
        has_references: whether there are any in this sampling.
        sampler: Forge's, of this sampling.

    Returns:
        The settings that work, and a note for each that was turned off.
    """
    name, notes = str(sampler.config.name), []
    reuses = has_references and settings.reuse_active
    corrects = settings.cache_correct and (settings.cache_active or reuses)
    if reuses and name == "Restart":
        settings = settings.model_copy(update={"reference_refresh": 0})
        notes.append(NO_RESTART)
    if corrects and name not in CORRECTABLE:
        settings = settings.model_copy(update={"cache_correct": False})
        notes.append(NOT_CORRECTED)
    return settings, notes
