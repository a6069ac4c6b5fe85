"""What other caches must know beforehand: sizes, and what is fitted to the model on photographs it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.frontier.conditions import Condition
from benchmarks.frontier.samplers import sampled_by
from benchmarks.frontier.tasks import Task, tasks
from benchmarks.rivals.diffusers_caches import calibrated_ratios
from benchmarks.rivals.flux_parts import Arguments, Compute, Grid, replaced_forward, token_count
from benchmarks.rivals.region_e_schedule import fit_decay
from benchmarks.rivals.teacache import calibrated_coefficients
from lib_fluxkontext.geometry import TOKEN_SIDE
from lib_fluxkontext.hosts.diffusers.pipeline import Generated, Job, generate
from lib_fluxkontext.settings import KontextSettings

UNCACHED_SETTINGS = KontextSettings(sizing="to output", cache=False)
"""RegionE needs a first reference of the picture's size; all tasks' references have it anyway."""

CALIBRATION_SEED = 500_000
"""Noise of no task that is compared."""


@dataclass(frozen=True)
class Calibration:
    """What a method of another project is given of a run.

    Attributes:
        grid: rows and columns of the picture in tokens.
        steps: sampler steps.
        calls: of the transformer.
        ratios: MagCache's.
        coefficients: TeaCache's.
        decay: RegionE's; None where it does not run.
    """

    grid: Grid
    steps: int
    calls: int
    ratios: tuple[float, ...]
    coefficients: tuple[float, ...]
    decay: tuple[float, ...] | None


def calibration_tasks(condition: Condition, side: int) -> list[Task]:
    """Return two tasks of the condition's group on photographs of the training."""
    return tasks(condition.group, condition.references, 2, side, held_out=False)


def job(task: Task, condition: Condition, seed: int) -> Job:
    """Return what to make of a task."""
    height, width = task.region.shape
    return Job(task.prompt, width, height, steps=condition.steps, seed=seed)


def calibrate(pipeline: Any, condition: Condition, found: Sequence[Task]) -> Calibration:
    """Fit what is to be fitted, in uncached runs.

    Args:
        pipeline: of the trained model.
        condition: number of references, sampler and steps.
        found: of ``calibration_tasks``.
    """
    height, width = found[0].region.shape
    grid = (height // TOKEN_SIDE, width // TOKEN_SIDE)
    with sampled_by(pipeline, condition.sampler) as sampled:

        def run(number: int) -> Generated:
            seeded = job(found[number], condition, CALIBRATION_SEED + number)
            return generate(sampled, seeded, found[number].references, UNCACHED_SETTINGS)

        runs = [partial(run, number) for number in range(len(found))]
        ratios = calibrated_ratios(pipeline, condition.calls, runs)
        coefficients = calibrated_coefficients(pipeline, grid, runs)
        decay = None
        if condition.references and condition.sampler == "euler":
            with _velocities(pipeline, token_count(grid)) as velocities:
                for one in runs:
                    one()
            steps = [torch.cat(velocities[step :: condition.steps]) for step in range(condition.steps)]
            decay = fit_decay(steps, pipeline.scheduler.sigmas.tolist())
    return Calibration(grid, condition.steps, condition.calls, ratios, coefficients, decay)


@contextmanager
def _velocities(pipeline: Any, tokens: int) -> Iterator[list[Tensor]]:
    """Record what the transformer gives for the picture's tokens, call by call, (1, tokens, C) each."""
    found: list[Tensor] = []

    def step(compute: Compute, arguments: Arguments) -> Tensor:
        output = compute()
        found.append(output[:, :tokens])
        return output

    with replaced_forward(pipeline, step):
        yield found
