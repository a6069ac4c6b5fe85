"""Which steps a preset computes on the trained model: what ``scripted`` repeats on a model without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.frontier.scripted import KINDS, Schedule
from lib_fluxkontext.hosts.diffusers.pipeline import Job, generate
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.settings import PRESETS, KontextSettings


@dataclass(frozen=True)
class Schedules:
    """What the presets do on the small trained model.

    Attributes:
        recipe: of which pictures, in a sentence.
        presets: schedule of each preset that reuses anything.
    """

    recipe: str
    presets: Mapping[str, Schedule]


def preset_settings() -> dict[str, KontextSettings]:
    """Settings of every preset that reuses anything."""
    settings = {
        name: KontextSettings.from_mapping({"sizing": "no change", **values}) for name, values in PRESETS.items()
    }
    return {name: one for name, one in settings.items() if one.cache_active or one.reuse_active}


def measure_schedules(pipeline: Any, jobs: Sequence[tuple[Job, tuple[Reference, ...]]]) -> dict[str, Schedule]:
    """Run every preset on every job, and return for each preset the schedule that is its median.

    Args:
        pipeline: of the trained model.
        jobs: of one picture each, with its references.
    """
    found = {}
    for name, settings in preset_settings().items():
        reports = [generate(pipeline, job, references, settings).report for job, references in jobs]
        found[name] = median_schedule([tuple(step.kind for step in report.steps) for report in reports])
    return found


def median_schedule(schedules: Sequence[Schedule]) -> Schedule:
    """Return the schedule whose work is the median: by steps computed, then by steps kept; of two, the dearer one."""
    ordered = sorted(schedules, key=lambda schedule: (schedule.count("computed"), schedule.count("kept")))
    return ordered[len(ordered) // 2]


def counts(schedule: Schedule) -> str:
    """Say how many steps of each kind there are, leaving out kinds that do not occur."""
    return ", ".join(f"{schedule.count(kind)} {kind}" for kind in KINDS if kind in schedule)
