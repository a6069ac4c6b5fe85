"""Runs every method on every pair, taking turns, so that a slow minute hits them alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from benchmarks.frontier.methods import UNCACHED, Method
from lib_fluxkontext.hosts.diffusers.pipeline import Generated, Job, generate
from lib_fluxkontext.images.decode import Reference


@dataclass(frozen=True)
class Sample:
    """One batch of pictures by one method, against the uncached batch of the same noise.

    Attributes:
        family: of the method.
        label: its setting.
        seconds: wall time of the sampling, from the first call of the transformer to the end of the last step.
        reused: share of all images' steps that were not computed.
        kept: share that was computed on kept references.
        psnr: in dB, each picture's own, at most ``PSNR_CAP``.
        ssim: each picture's own.
    """

    family: str
    label: str
    seconds: float
    reused: float
    kept: float
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """A method over all pairs: medians with quartiles for time and ratio, means for quality.

    Attributes:
        ratio: median over the pairs of uncached seconds / seconds, both of the same turn.
        quartiles: of that ratio.
    """

    family: str
    label: str
    seconds: float
    ratio: float
    quartiles: tuple[float, float]
    reused: float
    kept: float
    psnr: float
    ssim: float


PSNR_CAP = 60.0
"""Pictures that differ by rounding alone would give any number; a mean must not hang on those."""


def measure(
    pipelines: Mapping[str, Any], methods: Sequence[Method], jobs: Sequence[tuple[Job, tuple[Reference, ...]]]
) -> Iterator[Sample]:
    """All methods, pair by pair, after a warm-up.

    Args:
        pipelines: one for each of ``LIBRARIES``.
        methods: ``UNCACHED`` among them.
        jobs: a job and its references for each pair.
    """
    uncached = next(method for method in methods if method.family == UNCACHED)
    for library, pipeline in pipelines.items():
        run_method(pipeline, replace(uncached, library=library), *jobs[0])
    for number, (job, references) in enumerate(jobs):
        print(f"pair {number + 1} of {len(jobs)}, {len(references)} references", flush=True)
        exact = None
        turn = number % len(methods)
        for method in [uncached, *(m for m in (*methods[turn:], *methods[:turn]) if m is not uncached)]:
            made, reused, kept = run_method(pipelines[method.library], method, job, references)
            exact = made if exact is None else exact
            psnr, ssim = zip(*(_compare(a, b) for a, b in zip(made.images, exact.images, strict=True)), strict=True)
            yield Sample(method.family, method.label, made.report.sampling_seconds, reused, kept, psnr, ssim)


def run_method(
    pipeline: Any, method: Method, job: Job, references: tuple[Reference, ...]
) -> tuple[Generated, float, float]:
    """One batch by one method, and its shares of reused and of kept evaluations."""
    with method.around(pipeline) as counts:
        made = generate(pipeline, job, references, method.settings)
    if counts is not None:
        return made, 1 - counts["computed"] / job.steps, 0.0
    calls = made.report.passes[0].calls
    images = sum(call.images for call in calls)
    return made, sum(call.reused for call in calls) / images, sum(call.kept for call in calls) / images


def rows(samples: Sequence[Sample]) -> list[Row]:
    """One row a method, in the order they were first seen."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.family, sample.label), []).append(sample)
    base = [sample.seconds for sample in groups[UNCACHED, "–"]]
    return [_row(group, base) for group in groups.values()]


def _row(group: Sequence[Sample], base: Sequence[float]) -> Row:
    ratios = [uncached / sample.seconds for uncached, sample in zip(base, group, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Row(
        family=group[0].family,
        label=group[0].label,
        seconds=median(sample.seconds for sample in group),
        ratio=median(ratios),
        quartiles=(low, high),
        reused=float(np.mean([sample.reused for sample in group])),
        kept=float(np.mean([sample.kept for sample in group])),
        psnr=float(np.mean([value for sample in group for value in sample.psnr])),
        ssim=float(np.mean([value for sample in group for value in sample.ssim])),
    )


def _compare(image: Any, exact: Any) -> tuple[float, float]:
    pixels, expected = np.asarray(image, float), np.asarray(exact, float)
    error = float(np.mean((pixels - expected) ** 2))
    psnr = PSNR_CAP if error == 0 else min(PSNR_CAP, 10 * np.log10(255**2 / error))
    return float(psnr), float(structural_similarity(pixels, expected, channel_axis=2, data_range=255))
