"""Which caches work with which of Forge's samplers, and which samplers add noise."""

from __future__ import annotations

import inspect

from lib_fluxkontext.hosts.forge.runtime.protocols import Processing, Sampler
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


def noisy_sampler(p: Processing) -> str | None:
    """Return the name of the sampler if it adds noise in every step: ancestral and SDE samplers, LCM, DDPM.

    By its function's parameters, so that samplers of other extensions are recognised too. One with ``eta`` adds that
    much of the noise it could: Forge gives it the request's, or the one in its settings (1, for DDIM 0). One without
    adds it in full if it takes a ``noise_sampler``. Restart adds noise between rounds, not in every step.
    """
    sampler = p.sampler
    name, function = str(sampler.config.name), getattr(sampler, "func", None)
    parameters = inspect.signature(function).parameters if callable(function) else {}
    if "eta" in parameters:
        return name if _eta(p) else None
    # Neo's Res Multistep takes a noise_sampler and never calls it.
    return name if "noise_sampler" in parameters and name != "Res Multistep" else None


def _eta(p: Processing) -> float:
    """Return the eta that Forge is going to give the sampler."""
    from modules import shared

    eta: float | None = getattr(p, "eta", None)
    if eta is not None:
        return eta
    default: float = getattr(shared.opts, getattr(p.sampler, "eta_option_field", "eta_ancestral"), 0.0)
    return default
