"""Which settings are compared: one procedure for every family, this project's and the others'.

All candidates of a family run on two tasks on photographs of the model's training, none of which is compared later.
For each of ``BUDGETS`` the candidate is taken that comes nearest to the uncached picture (PSNR of the whole) among
those that cost no more full evaluations; where none is that cheap, the cheapest. The tables show what the chosen ones
do on other photographs and other noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.frontier.calibration import CALIBRATION_SEED, Calibration, job
from benchmarks.frontier.conditions import Condition
from benchmarks.frontier.methods import BEST_OF_OURS, PRESET, UNCACHED_METHOD, Family, Method, our_families
from benchmarks.frontier.quality import psnr
from benchmarks.frontier.rival_methods import BEST_KNOWN, rival_families
from benchmarks.frontier.running import run_method
from benchmarks.frontier.samplers import sampled_by
from benchmarks.frontier.tasks import Task
from lib_fluxkontext.references.latent_cache import LatentCache

BUDGETS = (0.2, 0.25, 0.35, 0.5)
"""Shares of an uncached sampling's evaluations: 4, 5, 7 and 10 of 20."""


@dataclass(frozen=True)
class Tried:
    """A candidate, with means over the tasks it was tried on.

    Attributes:
        cost: full evaluations, as a share of an uncached sampling's.
        psnr: of the whole picture against the uncached one, in dB.
    """

    method: Method
    cost: float
    psnr: float


def families(condition: Condition, candidates: int | None = None) -> list[Family]:
    """What is compared under a condition.

    Args:
        condition: number of references, sampler and steps.
        candidates: keep at most so many of each family, its last ones, for a quick look.
    """
    ours, others = our_families(condition.references), rival_families(condition)
    found = ours + others
    if not condition.complete:
        found = [family for family in found if family.name in (PRESET, *BEST_OF_OURS, *BEST_KNOWN)]
    if candidates is None:
        return found
    return [replace(family, candidates=family.candidates[-candidates:]) for family in found]


def tuned(
    pipeline: Any,
    families: Sequence[Family],
    condition: Condition,
    found: Sequence[Task],
    calibration: Calibration,
    report: Callable[[str], None],
) -> tuple[list[Method], int]:
    """Return the methods to compare, ``UNCACHED_METHOD`` first, and how many candidates were tried.

    Args:
        pipeline: of the trained model.
        families: what is compared.
        condition: number of references, sampler and steps.
        found: of ``calibration_tasks``.
        calibration: of the other caches.
        report: is told of every finished family, in a line.
    """
    latents = LatentCache()
    with sampled_by(pipeline, condition.sampler) as sampled:

        def run(method: Method, number: int) -> tuple[Any, float]:
            seeded = job(found[number], condition, CALIBRATION_SEED + number)
            references = found[number].references
            made, evaluations = run_method(pipeline, sampled, method, seeded, references, calibration, latents)
            return made.image, evaluations / condition.calls

        exact = [run(UNCACHED_METHOD, number)[0] for number in range(len(found))]

        def tried(method: Method) -> Tried:
            images, costs = zip(*(run(method, number) for number in range(len(found))), strict=True)
            near = [psnr(image, uncached) for image, uncached in zip(images, exact, strict=True)]
            return Tried(method, float(np.mean(costs)), float(np.mean(near)))

        methods, count = [UNCACHED_METHOD], 0
        for family in families:
            chosen = choose([tried(method) for method in family.candidates])
            methods += [*family.fixed, *chosen]
            count += len(family.fixed) + len(family.candidates)
            report(f"{condition.key}: {family.name}: {'; '.join(one.label for one in (*family.fixed, *chosen))}")
    return methods, count


def choose(candidates: Sequence[Tried], budgets: Sequence[float] = BUDGETS) -> list[Method]:
    """Return the best candidate for each budget, each once, from the cheapest on."""
    chosen: list[Tried] = []
    for budget in budgets:
        affordable = [one for one in candidates if one.cost <= budget]
        cheapest = sorted(candidates, key=lambda one: one.cost)[:1]
        for one in [max(affordable, key=lambda one: one.psnr)] if affordable else cheapest:
            if one not in chosen:
                chosen.append(one)
    return [one.method for one in sorted(chosen, key=lambda one: one.cost)]
