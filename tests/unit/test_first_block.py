"""Cache decisions, on residuals made to measure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.forecast import REACH
from lib_fluxkontext.caching.sample_key import Step

SIGMA = torch.tensor([0.5])


def field(value: float, batch: int = 1) -> Tensor:
    return torch.full((batch, 3, 4), value)


def decided(
    cache: FirstBlockCache, value: float, step: int, last: bool = False, sigma: float = 0.5, sample: str = "a"
) -> bool:
    """One image's decision; a computed step is stored."""
    at, sigmas = Step(step, last), torch.tensor([sigma])
    (decision,) = cache.decide([sample], at, sigmas, field(value))
    if not decision.reuse:
        cache.store([sample], at, sigmas, field(value), field(100 * value))
    return decision.reuse


def test_the_metric_is_the_relative_change_from_the_last_computed_step() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.1))
    assert not decided(cache, 1.00, 0)
    (decision,) = cache.decide(["a"], Step(1), SIGMA, field(1.05))
    assert decision.reuse
    assert decision.distance == pytest.approx(0.05, rel=1e-4)
    # Measured from the computed 1.00 again, not from the reused 1.05.
    assert decided(cache, 1.09, 2)
    assert not decided(cache, 1.11, 3)
    assert decided(cache, 1.11, 4)


def test_reuse_gives_the_stored_rest_residual() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.1))
    decided(cache, 2.0, 0)
    assert torch.equal(cache.residual(["a"], SIGMA), field(200.0))


def test_the_threshold_itself_is_not_reached_by_equality() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.5))
    decided(cache, 1.0, 0)
    assert not decided(cache, 1.5, 1)


def test_threshold_zero_never_reuses() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.0))
    assert not any(decided(cache, 1.0, step) for step in range(5))


def test_warm_up_counts_steps_not_calls() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.5, warmup_steps=2))
    assert [decided(cache, 1.0, step) for step in (0, 0, 1, 1, 2, 2)] == [False] * 4 + [True] * 2


def test_longest_run_counts_steps_not_calls() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.5, max_consecutive=1))
    assert [decided(cache, 1.0, step) for step in (0, 1, 1, 2, 3, 3, 4)] == [
        False,
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_the_last_step_is_computed_if_asked() -> None:
    for compute_last in (True, False):
        cache = FirstBlockCache(FirstBlockConfig(0.5, compute_last=compute_last))
        decided(cache, 1.0, 0)
        assert decided(cache, 1.0, 1, last=True) is not compute_last


def test_a_rise_of_sigma_starts_anew_an_equal_one_does_not() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.5))
    decided(cache, 1.0, 0, sigma=0.5)
    assert decided(cache, 1.0, 1, sigma=0.5)
    assert not decided(cache, 1.0, 2, sigma=0.6)
    assert decided(cache, 1.0, 3, sigma=0.6)


def test_samples_do_not_mix() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.5))
    decided(cache, 1.0, 0, sample="cond")
    assert not decided(cache, 1.0, 0, sample="uncond")
    assert decided(cache, 1.0, 1, sample="cond")


def test_images_decide_for_themselves_wherever_they_stand_in_the_batch() -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.1))
    two = torch.cat((field(1.0), field(10.0)))
    cache.store(["a", "b"], Step(0), SIGMA.repeat(2), two, two)
    changed = torch.cat((field(10.1), field(2.0)))  # b barely, a by a lot, in swapped places
    decisions = cache.decide(["b", "a"], Step(1), SIGMA.repeat(2), changed)
    assert [decision.reuse for decision in decisions] == [True, False]


@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_another_shape_or_dtype_drops_the_state(change: str) -> None:
    cache = FirstBlockCache(FirstBlockConfig(0.9))
    decided(cache, 1.0, 0)
    other = torch.ones(1, 5, 4) if change == "shape" else field(1.0).to(torch.bfloat16)
    assert not cache.decide(["a"], Step(1), SIGMA, other)[0].reuse
    assert not cache.decide(["a"], Step(2), SIGMA, field(1.0))[0].reuse


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["first", "rest"])
def test_what_is_not_finite_is_never_reused(bad: float, where: str) -> None:
    cache = FirstBlockCache(FirstBlockConfig(1.0))
    first, rest = field(1.0), field(1.0)
    (first if where == "first" else rest)[0, 1, 2] = bad
    cache.store(["a"], Step(0), SIGMA, first, rest)
    assert not cache.decide(["a"], Step(1), SIGMA, field(1.0))[0].reuse


def test_a_residual_of_zero_is_not_reused() -> None:
    cache = FirstBlockCache(FirstBlockConfig(1.0))
    cache.store(["a"], Step(0), SIGMA, field(0.0), field(1.0))
    assert not cache.decide(["a"], Step(1), SIGMA, field(0.0))[0].reuse


FORECAST = FirstBlockConfig(0.5, forecast=True)


def computed_at(cache: FirstBlockCache, sigma: float, step: int, rest: float) -> None:
    cache.store(["a"], Step(step), torch.tensor([sigma]), field(1.0), field(rest))


def forecast_at(cache: FirstBlockCache, sigma: float) -> float:
    return float(cache.residual(["a"], torch.tensor([sigma])).mean())


def test_a_residual_that_changes_evenly_is_forecast_exactly() -> None:
    cache = FirstBlockCache(FORECAST)
    computed_at(cache, 1.0, 0, 10.0)
    assert forecast_at(cache, 0.9) == 10.0  # one step has no trend
    computed_at(cache, 0.8, 1, 12.0)
    assert forecast_at(cache, 0.7) == pytest.approx(13.0)
    assert forecast_at(cache, 0.6) == pytest.approx(14.0)


def test_a_long_run_cannot_run_away() -> None:
    cache = FirstBlockCache(FORECAST)
    computed_at(cache, 1.0, 0, 10.0)
    computed_at(cache, 0.9, 1, 12.0)
    assert forecast_at(cache, 0.0) == pytest.approx(12.0 + 2.0 * REACH)


def test_equal_sigmas_never_divide_and_keep_the_older_trend() -> None:
    cache = FirstBlockCache(FORECAST)
    computed_at(cache, 1.0, 0, 10.0)
    computed_at(cache, 1.0, 0, 11.0)
    assert forecast_at(cache, 0.9) == 11.0
    computed_at(cache, 0.8, 1, 13.0)
    computed_at(cache, 0.8, 1, 13.5)
    assert forecast_at(cache, 0.7) == pytest.approx(14.5)


def test_a_trend_with_a_broken_end_is_not_followed() -> None:
    cache = FirstBlockCache(FORECAST)
    computed_at(cache, 1.0, 0, float("nan"))
    computed_at(cache, 0.8, 1, 12.0)
    assert forecast_at(cache, 0.7) == 12.0


def test_a_rising_sigma_gives_no_trend() -> None:
    cache = FirstBlockCache(FORECAST)
    computed_at(cache, 0.5, 0, 10.0)
    computed_at(cache, 0.9, 1, 12.0)
    assert forecast_at(cache, 0.8) == 12.0


def test_a_restart_forgets_the_trend_and_a_small_rise_keeps_it() -> None:
    restarted, noisy = FirstBlockCache(FORECAST), FirstBlockCache(FORECAST)
    for step, (sigma, value) in enumerate([(0.2, 10.0), (0.1, 12.0), (0.9, 20.0)]):
        computed_at(restarted, sigma, step, value)
    assert forecast_at(restarted, 0.8) == 20.0
    for step, (sigma, value) in enumerate([(1.0, 10.0), (0.6, 12.0), (0.8, 13.0)]):
        computed_at(noisy, sigma, step, value)
    assert forecast_at(noisy, 0.7) == pytest.approx(13.5)


def test_images_with_and_without_a_past_are_forecast_as_alone() -> None:
    cache = FirstBlockCache(FORECAST)
    computed_at(cache, 1.0, 0, 10.0)
    both = torch.cat((field(12.0), field(20.0)))
    cache.store(["a", "b"], Step(1), torch.tensor([0.8, 0.8]), torch.cat((field(1.0), field(1.0))), both)
    found = cache.residual(["b", "a"], torch.tensor([0.7, 0.7])).mean(dim=(1, 2))
    assert found.tolist() == pytest.approx([20.0, 13.0])
