"""The benchmark measures pictures on a tiny random pipeline: costs, qualities, samplers, tuning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from benchmarks.frontier.calibration import UNCACHED_SETTINGS, Calibration, calibrate, job
from benchmarks.frontier.conditions import CONDITIONS, Condition
from benchmarks.frontier.measure import Row, measure, rows
from benchmarks.frontier.methods import PLAIN, UNCACHED, UNCACHED_METHOD, Family, Method, our_families
from benchmarks.frontier.quality import PSNR_CAP
from benchmarks.frontier.rival_methods import REGION_E, TAYLORSEER, rival_families
from benchmarks.frontier.samplers import SAMPLERS, HeunScheduler, MultistepScheduler, Sampler, sampled_by
from benchmarks.frontier.tuning import Tried, choose, families, tuned
from lib_fluxkontext.hosts.diffusers.pipeline import generate
from lib_fluxkontext.settings import KontextSettings
from tests.support.tiny_generation import noise_task, tiny_generator

STEPS = 6


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_generator()


def ours(label: str, **settings: Any) -> Method:
    return Method(PLAIN, label, KontextSettings(sizing="to output", **settings))


NEVER = ours("never", cache_threshold=0.0)
ALWAYS = ours("always", cache_threshold=1.0)
KEPT = ours("references kept", cache=False, reference_refresh=8)


def measured(
    pipeline: Any, sampler: Sampler, *methods: Method, references: int = 1
) -> tuple[dict[str, Row], list[str]]:
    condition = Condition("editing", references, sampler, STEPS)
    lines: list[str] = []
    calibration = Calibration((4, 4), STEPS, condition.calls, (1.0,) * condition.calls, (0.0,), None)
    found = [noise_task(1, seed) for seed in (0, 1)]
    samples = list(measure(pipeline, condition, [UNCACHED_METHOD, *methods], found, calibration, lines.append))
    return {row.label: row for row in rows(samples)}, lines


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_counts_evaluations_and_compares_with_the_uncached_picture(pipeline: Any, sampler: Sampler) -> None:
    calls = Condition("editing", 1, sampler, STEPS).calls
    found, lines = measured(pipeline, sampler, NEVER, ALWAYS, KEPT)
    assert found["–"].evaluations == found["never"].evaluations == calls
    assert found["never"].whole.psnr == PSNR_CAP
    assert found["always"].evaluations < calls
    # Text and picture are 8 and 16 tokens; the reference's 16 run in the first call alone.
    assert found["references kept"].evaluations == pytest.approx(1 + (calls - 1) * 24 / 40)
    assert found["always"].whole.psnr < PSNR_CAP
    assert found["always"].inside is not None
    assert found["always"].judged("editing") == found["always"].outside.psnr  # type: ignore[union-attr]
    assert found["always"].judged("copying") == found["always"].whole.psnr
    assert len(lines) == 2


def test_another_cache_runs_and_leaves_nothing_behind(pipeline: Any) -> None:
    condition = Condition("editing", 1, "euler", STEPS)
    seer = next(one for family in rival_families(condition) if family.name == TAYLORSEER for one in family.candidates)
    found, _ = measured(pipeline, "euler", seer, NEVER)
    assert found[seer.label].evaluations < STEPS
    assert found["never"].whole.psnr == PSNR_CAP


def test_heuns_calls_are_told_to_the_caches_as_sampler_steps(pipeline: Any) -> None:
    task, condition = noise_task(), Condition("editing", 1, "heun", 4)
    before = pipeline.scheduler
    with sampled_by(pipeline, "heun") as sampled:
        report = generate(sampled, job(task, condition, 0), task.references, UNCACHED_SETTINGS).report
    calls = report.passes[0].calls
    assert [call.step for call in calls] == [0, 0, 1, 1, 2, 2, 3]
    sigmas = [call.sigma for call in calls]
    assert sigmas[1] == sigmas[2] < sigmas[0]
    assert pipeline.scheduler is before


def final(scheduler: Any, velocity: Any, steps: int, start: float) -> float:
    """Sample one number from noise ``start``."""
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), device="cpu")
    scheduler.set_begin_index(0)
    x = torch.tensor([start], dtype=torch.float64)
    for timestep in scheduler.timesteps:
        (x,) = scheduler.step(velocity(x, float(timestep) / 1000), timestep, x, return_dict=False)
    return float(x)


@pytest.mark.parametrize("scheduler", [MultistepScheduler, HeunScheduler])
def test_samplers_reach_a_constant_picture_exactly_and_are_of_second_order(scheduler: Any) -> None:
    assert final(scheduler(), lambda x, sigma: (x - 0.3) / sigma, 7, 2.0) == pytest.approx(0.3)

    def error(kind: Any, steps: int) -> float:  # dx/dσ = x from σ = 1, so that x(0) = 1
        return abs(final(kind(), lambda x, sigma: x, steps, torch.e) - 1)

    assert error(scheduler, 40) < error(FlowMatchEulerDiscreteScheduler, 40) / 5
    assert error(scheduler, 80) < error(scheduler, 40) / 3


def test_other_caches_are_calibrated_and_every_family_is_tuned_on_the_same_tasks(pipeline: Any) -> None:
    condition = Condition("editing", 1, "euler", STEPS)
    found = [noise_task(1, seed) for seed in (8, 9)]
    calibration = calibrate(pipeline, condition, found)
    assert len(calibration.ratios) == STEPS
    assert len(calibration.coefficients) == 5
    assert calibration.decay is not None
    assert len(calibration.decay) == STEPS - 1
    tiny = [Family(PLAIN, (NEVER, ALWAYS)), Family("fixed", fixed=(KEPT,))]
    lines: list[str] = []
    methods, tried = tuned(pipeline, tiny, condition, found, calibration, lines.append)
    assert methods == [UNCACHED_METHOD, ALWAYS, KEPT]
    assert tried == 3
    assert len(lines) == 2


def test_the_best_candidate_of_each_budget_is_taken_once() -> None:
    def tried(label: str, cost: float, psnr: float) -> Tried:
        return Tried(ours(label), cost, psnr)

    ladder = [tried("a", 0.5, 50), tried("b", 0.4, 55), tried("c", 0.2, 40), tried("d", 0.15, 41)]
    assert [one.label for one in choose(ladder, (0.1, 0.2, 0.3, 0.5))] == ["d", "b"]
    assert [one.label for one in choose(ladder[:2], (0.1, 0.2))] == ["b"]
    assert choose([]) == []


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.key)
def test_every_method_is_named_once_and_fits_its_condition(condition: Condition) -> None:
    found = families(condition)
    names = [(one.family, one.label) for family in found for one in (*family.fixed, *family.candidates)]
    assert len(names) == len(set(names))
    assert all(name == family.name for family in found for name in {one.family for one in family.candidates})
    assert (REGION_E in {family.name for family in found}) == (condition.complete and condition.references > 0)
    assert UNCACHED not in {family.name for family in found}


def test_reference_reuse_is_compared_where_there_are_references() -> None:
    for references in (0, 1, 2):
        ladders = [one for family in our_families(references) for one in family.candidates]
        assert any(one.settings.reference_refresh for one in ladders) == (references > 0)


def test_conditions_are_named_by_their_keys() -> None:
    assert [Condition.parse(one.key) for one in CONDITIONS] == list(CONDITIONS)
    for wrong in ("editing-2-euler", "editing-2-magic-20", "copying-0-euler-20", "editing-02-euler-20", "x-1-euler-9"):
        with pytest.raises(ValueError, match="not a condition"):
            Condition.parse(wrong)
