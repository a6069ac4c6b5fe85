"""Correction: what approximate steps got wrong is paid back by the exact one behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.correction import MAX_RELATIVE_CORRECTION, Correction
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.settings import KontextSettings

SHAPE = (1, 3, 2)


def at(sigma: float, rows: int = 1) -> Tensor:
    return torch.full((rows,), sigma)


def filled(value: float) -> Tensor:
    return torch.full(SHAPE, value)


def sampled(
    sigmas: list[float], exact: list[bool], velocity: Callable[[float], float], guess: Callable[[float], float]
) -> tuple[float, float, float]:
    """Euler's method over a velocity that depends on sigma alone: corrected, not corrected, all exact."""
    correction, ends = Correction(), [0.0, 0.0, 0.0]
    for sigma, following, is_exact in zip(sigmas, sigmas[1:], exact, strict=False):
        true = velocity(sigma)
        plain = true if is_exact else guess(sigma)
        given = correction.apply([0], at(sigma), [is_exact], filled(plain))
        for place, value in enumerate((given[0, 0, 0].item(), plain, true)):
            ends[place] += (following - sigma) * value
    return ends[0], ends[1], ends[2]


EVEN = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
UNEVEN = [1.0, 0.97, 0.9, 0.8, 0.66, 0.5, 0.2, 0.0]


@pytest.mark.parametrize("sigmas", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_where_the_velocity_is_a_line_the_picture_arrives_as_if_all_were_exact(sigmas: list[float]) -> None:
    exact = [index in (0, 3, len(sigmas) - 2) for index in range(len(sigmas))]
    corrected, plain, true = sampled(sigmas, exact, lambda s: 2.0 + 3.0 * s, lambda s: 5.0)
    assert abs(plain - true) > 0.1
    if sigmas is EVEN:
        assert corrected == pytest.approx(true, abs=1e-5)
    else:  # a step as wide as the one before was expected; what that gets wrong is paid at the next exact call
        assert abs(corrected - true) < abs(plain - true)


def test_what_a_step_of_another_width_left_unpaid_is_paid_at_the_next_exact_one() -> None:
    sigmas = [1.0, 0.9, 0.8, 0.75, 0.70, 0.65]  # the step after the correction is half as wide
    exact = [True, False, True, True, True]
    corrected, plain, true = sampled(sigmas, exact, lambda s: 1.0 + s, lambda s: 3.0)
    assert abs(plain - true) > 0.05
    assert corrected == pytest.approx(true, abs=1e-5)


def test_a_curve_ends_nearer_to_the_true_picture() -> None:
    exact = [True, False, True, False, True, True]
    corrected, plain, true = sampled(EVEN, exact, lambda s: 2 + s**2, lambda s: 2 + (s + 0.1) ** 2)
    assert abs(corrected - true) < abs(plain - true) / 4


def test_where_the_velocity_is_a_parabola_three_exact_results_are_enough() -> None:
    exact = [True, True, False, False, True, True]
    corrected, plain, true = sampled(EVEN, exact, lambda s: 2.0 - 4.0 * s + 3.0 * s**2, lambda s: 0.2)
    assert abs(plain - true) > 0.05
    assert corrected == pytest.approx(true, abs=1e-5)


def test_an_earlier_result_that_is_not_finite_leaves_the_line() -> None:
    given = []
    for first in (float("inf"), None):
        correction = Correction()
        if first is not None:
            correction.apply([0], at(1.0), [True], filled(first))
        correction.apply([0], at(0.9), [True], filled(1.0))
        correction.apply([0], at(0.8), [False], filled(2.0))
        given.append(correction.apply([0], at(0.7), [True], filled(1.1)))
    assert torch.equal(*given)


def test_exact_calls_in_a_row_owe_nothing_but_rounding() -> None:
    correction, generator = Correction(), torch.Generator().manual_seed(1)
    for sigma in UNEVEN:
        value = torch.randn(SHAPE, generator=generator)
        given = correction.apply([0], at(sigma), [True], value)
        assert torch.allclose(given, value, atol=1e-6)


def test_an_approximate_call_is_handed_on_as_it_is() -> None:
    correction = Correction()
    correction.apply([0], at(1.0), [True], filled(1.0))
    value = filled(7.0)
    assert torch.equal(correction.apply([0], at(0.9), [False], value), value)


def test_a_correction_never_outweighs_what_it_corrects() -> None:
    correction = Correction()
    correction.apply([0], at(1.0), [True], filled(1.0))
    for sigma in (0.9, 0.8, 0.7):
        correction.apply([0], at(sigma), [False], filled(1000.0))
    given = correction.apply([0], at(0.6), [True], filled(1.0))
    assert (given - 1.0).abs().max() == pytest.approx(MAX_RELATIVE_CORRECTION)


@pytest.mark.parametrize(("second", "paid"), [(1.2, 1.0), (1.6, 0.5), (3.0, 0.0)])
def test_a_line_between_results_far_apart_is_not_believed(second: float, paid: float) -> None:
    # Relative changes 0.17, 0.375 and 0.67.
    correction = Correction()
    correction.apply([0], at(1.0), [True], filled(1.0))
    correction.apply([0], at(0.9), [False], filled(1.0))
    given = correction.apply([0], at(0.8), [True], filled(second))
    owed = (second - 1.0) / 2  # the line's middle, less the 1.0 that was given there
    assert (given[0, 0, 0].item() - second) == pytest.approx(paid * owed, abs=1e-5)


def test_sigma_that_rises_opens_new_books() -> None:
    correction = Correction()
    for sigma, value, exact in ((0.9, 1.0, True), (0.8, 9.0, False), (1.0, 1.0, True)):
        given = correction.apply([0], at(sigma), [exact], filled(value))
    assert torch.equal(given, filled(1.0))
    assert torch.equal(correction.apply([0], at(0.9), [True], filled(1.0)), filled(1.0))


def test_two_calls_at_one_sigma_divide_by_nothing() -> None:
    correction = Correction()
    for sigma, exact in ((1.0, True), (1.0, True), (0.9, False), (0.9, False), (0.8, True), (0.8, True), (0.7, True)):
        given = correction.apply([0], at(sigma), [exact], filled(1.0))
        assert torch.isfinite(given).all()


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_spoils_no_later_one(broken: float) -> None:
    correction = Correction()
    correction.apply([0], at(1.0), [True], filled(1.0))
    correction.apply([0], at(0.9), [False], filled(broken))
    assert torch.equal(correction.apply([0], at(0.8), [True], filled(1.0)), filled(1.0))
    correction.apply([0], at(0.7), [True], filled(broken))
    correction.apply([0], at(0.6), [True], filled(1.0))
    assert torch.equal(correction.apply([0], at(0.5), [True], filled(1.0)), filled(1.0))


def test_a_batch_equals_its_images_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    exact = [(True, True), (False, True), (False, False), (True, False), (True, True)]
    values = [torch.randn(2, 3, 2, generator=generator) for _ in exact]
    together, apart = Correction(), Correction()
    for sigma, flags, value in zip(EVEN, exact, values, strict=False):
        batch = together.apply(["a", "b"], at(sigma, 2), flags, value)
        alone = [apart.apply([s], at(sigma), [flags[i]], value[i : i + 1]) for i, s in enumerate("ab")]
        assert torch.allclose(batch, torch.cat(alone), atol=1e-6)


def test_a_stream_that_joins_late_starts_its_own_books() -> None:
    correction = Correction()
    correction.apply(["a"], at(1.0), [True], filled(1.0))
    correction.apply(["a"], at(0.9), [False], filled(2.0))
    both = torch.cat((filled(1.0), filled(4.0)))
    given = correction.apply(["a", "new"], at(0.8, 2), [True, True], both)
    assert not torch.equal(given[0], filled(1.0)[0])
    assert torch.equal(given[1], filled(4.0)[0])


def test_half_precision_stays_half_precision() -> None:
    correction = Correction()
    for sigma, exact in ((1.0, True), (0.9, False), (0.8, True)):
        given = correction.apply([0], at(sigma), [exact], filled(1.5).half())
        assert given.dtype == torch.float16


def test_it_is_made_only_where_something_can_be_approximate() -> None:
    def made(references: bool = True, **settings: object) -> bool:
        return build_caches(KontextSettings(**settings), references).correction is not None

    assert made(cache_correct=True)
    assert made(cache_correct=True, cache=False, reference_refresh=2)
    assert not made()
    assert not made(cache_correct=True, cache=False)
    assert not made(cache_correct=True, cache=False, reference_refresh=2, references=False)
