"""Runs every method on every task, taking turns, so that a slow minute hits them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import numpy as np

from benchmarks.frontier.calibration import Calibration, job
from benchmarks.frontier.conditions import Condition
from benchmarks.frontier.methods import UNCACHED, UNCACHED_METHOD, Method
from benchmarks.frontier.quality import Qualities, Quality, compare
from benchmarks.frontier.running import run_method
from benchmarks.frontier.samplers import sampled_by
from benchmarks.frontier.tasks import Group, Task
from lib_fluxkontext.references.latent_cache import LatentCache

SEED = 1000
"""Between the noises of two tasks."""


@dataclass(frozen=True)
class Sample:
    """One picture by one method, against the uncached one of the same noise.

    Attributes:
        family: of the method.
        label: its setting.
        seconds: wall time of the sampling, from the first call of the transformer to the end of the last step.
        evaluations: its cost in full evaluations of the transformer; ``benchmarks.rivals.counting`` says how.
        qualities: of the picture.
    """

    family: str
    label: str
    seconds: float
    evaluations: float
    qualities: Qualities


@dataclass(frozen=True)
class Row:
    """A method over all tasks: medians with quartiles for time and ratio, means for the rest.

    Attributes:
        ratio: median over the tasks of uncached seconds / seconds, both of the same turn.
        quartiles: of that ratio.
        evaluations: full evaluations of a sampling.
        whole: the whole picture against the uncached one.
        inside: the edited region, over the tasks that have one; None where none has.
        outside: what lies around it, likewise.
    """

    family: str
    label: str
    seconds: float
    ratio: float
    quartiles: tuple[float, float]
    evaluations: float
    whole: Quality
    inside: Quality | None = None
    outside: Quality | None = None

    def judged(self, group: Group) -> float | None:
        """PSNR by which a group is judged: outside of the edited region, or of the whole picture where it copies."""
        area = self.outside if group == "editing" else self.whole
        return area.psnr if area is not None else None


def measure(
    pipeline: Any,
    condition: Condition,
    methods: Sequence[Method],
    found: Sequence[Task],
    calibration: Calibration,
    report: Callable[[str], None],
) -> Iterator[Sample]:
    """All methods, task by task, after a warm-up.

    Args:
        pipeline: of the trained model.
        condition: sampler and steps.
        methods: ``UNCACHED_METHOD`` first.
        found: one picture each.
        calibration: of the other caches.
        report: is told of every finished task, in a line.
    """
    others = [method for method in methods if method is not UNCACHED_METHOD]
    latents = LatentCache()
    with sampled_by(pipeline, condition.sampler) as sampled:
        for number, task in enumerate(found):
            began = time.perf_counter()
            seeded = job(task, condition, SEED * number)
            if number == 0:
                run_method(pipeline, sampled, UNCACHED_METHOD, seeded, task.references, calibration, latents)
            exact = None
            turn = number * len(others) // len(found)
            for method in [UNCACHED_METHOD, *others[turn:], *others[:turn]]:
                made, evaluations = run_method(pipeline, sampled, method, seeded, task.references, calibration, latents)
                exact = exact or made.image
                qualities = compare(made.image, exact, task.region)
                yield Sample(method.family, method.label, made.report.sampling_seconds, evaluations, qualities)
            took = time.perf_counter() - began
            report(
                f"{condition.key}: task {number + 1} of {len(found)}, {len(others) + 1} methods, {took:.0f} s: "
                f"{task.prompt}"
            )


def rows(samples: Sequence[Sample]) -> list[Row]:
    """One row a method: the uncached first, then by family as they were first seen, each from the cheapest on."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.family, sample.label), []).append(sample)
    base = [sample.seconds for sample in groups[UNCACHED, "–"]]
    families = list(dict.fromkeys(family for family, _ in groups))
    made = [_row(group, base) for group in groups.values()]
    return sorted(made, key=lambda row: (families.index(row.family), row.evaluations))


def _row(group: Sequence[Sample], base: Sequence[float]) -> Row:
    ratios = [uncached / sample.seconds for uncached, sample in zip(base, group, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Row(
        family=group[0].family,
        label=group[0].label,
        seconds=median(sample.seconds for sample in group),
        ratio=median(ratios),
        quartiles=(low, high),
        evaluations=float(np.mean([sample.evaluations for sample in group])),
        whole=_whole_mean([sample.qualities.whole for sample in group]),
        inside=_mean([sample.qualities.inside for sample in group]),
        outside=_mean([sample.qualities.outside for sample in group]),
    )


def _mean(qualities: Sequence[Quality | None]) -> Quality | None:
    present = [quality for quality in qualities if quality is not None]
    return _whole_mean(present) if present else None


def _whole_mean(qualities: Sequence[Quality]) -> Quality:
    psnr, ssim, flip = (float(np.mean([getattr(one, name) for one in qualities])) for name in ("psnr", "ssim", "flip"))
    return Quality(psnr, ssim, flip)
