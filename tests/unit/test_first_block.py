"""Cache decisions, on residuals made to measure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.cache.first_block import CacheConfig, FirstBlockCache, Step

SIGMA = torch.tensor([0.5])


def field(value: float, batch: int = 1) -> Tensor:
    return torch.full((batch, 3, 4), value)


def decided(
    cache: FirstBlockCache, value: float, step: int, last: bool = False, sigma: float = 0.5, stream: str = "a"
) -> bool:
    """One image's decision; a computed step is stored."""
    at, sigmas = Step(step, last), torch.tensor([sigma])
    (decision,) = cache.decide([stream], at, sigmas, field(value))
    if not decision.reuse:
        cache.store([stream], at, sigmas, field(value), field(100 * value))
    return decision.reuse


def test_the_metric_is_the_relative_change_from_the_last_computed_step() -> None:
    cache = FirstBlockCache(CacheConfig(0.1))
    assert not decided(cache, 1.00, 0)
    (decision,) = cache.decide(["a"], Step(1), SIGMA, field(1.05))
    assert decision.reuse
    assert decision.distance == pytest.approx(0.05, rel=1e-4)
    # Measured from the computed 1.00 again, not from the reused 1.05.
    assert decided(cache, 1.09, 2)
    assert not decided(cache, 1.11, 3)
    assert decided(cache, 1.11, 4)


def test_reuse_gives_the_stored_rest_residual() -> None:
    cache = FirstBlockCache(CacheConfig(0.1))
    decided(cache, 2.0, 0)
    assert torch.equal(cache.residual("a"), field(200.0)[0])


def test_the_threshold_itself_is_not_reached_by_equality() -> None:
    cache = FirstBlockCache(CacheConfig(0.5))
    decided(cache, 1.0, 0)
    assert not decided(cache, 1.5, 1)


def test_threshold_zero_never_reuses() -> None:
    cache = FirstBlockCache(CacheConfig(0.0))
    assert not any(decided(cache, 1.0, step) for step in range(5))


def test_warm_up_counts_steps_not_calls() -> None:
    cache = FirstBlockCache(CacheConfig(0.5, warmup_steps=2))
    assert [decided(cache, 1.0, step) for step in (0, 0, 1, 1, 2, 2)] == [False] * 4 + [True] * 2


def test_longest_run_counts_steps_not_calls() -> None:
    cache = FirstBlockCache(CacheConfig(0.5, max_consecutive=1))
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
        cache = FirstBlockCache(CacheConfig(0.5, compute_last=compute_last))
        decided(cache, 1.0, 0)
        assert decided(cache, 1.0, 1, last=True) is not compute_last


def test_a_rise_of_sigma_starts_anew_an_equal_one_does_not() -> None:
    cache = FirstBlockCache(CacheConfig(0.5))
    decided(cache, 1.0, 0, sigma=0.5)
    assert decided(cache, 1.0, 1, sigma=0.5)
    assert not decided(cache, 1.0, 2, sigma=0.6)
    assert decided(cache, 1.0, 3, sigma=0.6)


def test_streams_do_not_mix() -> None:
    cache = FirstBlockCache(CacheConfig(0.5))
    decided(cache, 1.0, 0, stream="cond")
    assert not decided(cache, 1.0, 0, stream="uncond")
    assert decided(cache, 1.0, 1, stream="cond")


def test_images_decide_for_themselves_wherever_they_stand_in_the_batch() -> None:
    cache = FirstBlockCache(CacheConfig(0.1))
    two = torch.cat((field(1.0), field(10.0)))
    cache.store(["a", "b"], Step(0), SIGMA.repeat(2), two, two)
    changed = torch.cat((field(10.1), field(2.0)))  # b barely, a by a lot, in swapped places
    decisions = cache.decide(["b", "a"], Step(1), SIGMA.repeat(2), changed)
    assert [decision.reuse for decision in decisions] == [True, False]


@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_another_shape_or_dtype_drops_the_state(change: str) -> None:
    cache = FirstBlockCache(CacheConfig(0.9))
    decided(cache, 1.0, 0)
    other = torch.ones(1, 5, 4) if change == "shape" else field(1.0).to(torch.bfloat16)
    assert not cache.decide(["a"], Step(1), SIGMA, other)[0].reuse
    assert not cache.decide(["a"], Step(2), SIGMA, field(1.0))[0].reuse


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["first", "rest"])
def test_what_is_not_finite_is_never_reused(bad: float, where: str) -> None:
    cache = FirstBlockCache(CacheConfig(1.0))
    first, rest = field(1.0), field(1.0)
    (first if where == "first" else rest)[0, 1, 2] = bad
    cache.store(["a"], Step(0), SIGMA, first, rest)
    assert not cache.decide(["a"], Step(1), SIGMA, field(1.0))[0].reuse


def test_a_residual_of_zero_is_not_reused() -> None:
    cache = FirstBlockCache(CacheConfig(1.0))
    cache.store(["a"], Step(0), SIGMA, field(0.0), field(1.0))
    assert not cache.decide(["a"], Step(1), SIGMA, field(0.0))[0].reuse
