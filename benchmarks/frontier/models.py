"""Models without training on which steps are timed, and the runs that take turns on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.frontier.methods import UNCACHED
from benchmarks.frontier.schedules import counts, preset_settings
from benchmarks.frontier.scripted import Schedule
from benchmarks.frontier.steps import DEEP, MEDIUM
from lib_fluxkontext.settings import KontextSettings

RUNS = {
    UNCACHED: KontextSettings(cache=False),
    "reference reuse, every 4": KontextSettings(cache=False, reference_refresh=4),
    "First Block Cache, all reused": KontextSettings(cache_threshold=1.0),
    "both, all reused": KontextSettings(cache_threshold=1.0, reference_refresh=4),
}
"""Random weights have no pictures to spoil, so the caches reuse whatever they can: only the cost is asked."""

PRESET_RUN = "preset "
"""How the names of runs begin that follow a preset's schedule."""


@dataclass(frozen=True)
class Model:
    """One model without training.

    Attributes:
        title: its shape, in a few words.
        config: of ``FluxTransformer2DModel``.
        steps: Euler steps of every run.
        references: how many, a run for each.
        presets: whether presets run too, by their schedules on the trained model, with ``PRESET_REFERENCES``.
    """

    title: str
    config: Mapping[str, Any]
    steps: int
    references: Sequence[int]
    presets: bool = False


PRESET_STEPS = 20
PRESET_REFERENCES = 2

MODELS = {
    "medium": Model("Hidden 512, 8 + 16 blocks", MEDIUM, 8, (2, 1, 0)),
    "deep": Model("Hidden 336, FLUX.1's own 19 + 38 blocks", DEEP, PRESET_STEPS, (PRESET_REFERENCES,), presets=True),
}


@dataclass(frozen=True)
class StepRun:
    """One run on a model.

    Attributes:
        references: how many.
        name: of the run.
        settings: which caches.
        schedule: that they follow, or None where they decide by themselves.
    """

    references: int
    name: str
    settings: KontextSettings
    schedule: Schedule | None = None


def step_runs(model: Model, schedules: Mapping[str, Schedule]) -> list[StepRun]:
    """All runs on a model in the order of the table.

    Args:
        model: which.
        schedules: of the presets.
    """
    runs = []
    for references in model.references:
        plain = [(name, one) for name, one in RUNS.items() if references or not one.reference_refresh]
        runs += [StepRun(references, name, settings) for name, settings in plain]
        if model.presets and references == PRESET_REFERENCES:
            runs += [
                StepRun(references, f"{PRESET_RUN}{name}: {counts(schedules[name])}", settings, schedules[name])
                for name, settings in preset_settings().items()
            ]
    return runs
