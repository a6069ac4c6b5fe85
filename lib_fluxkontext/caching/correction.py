"""Correction: a computed step compensates the error that the approximate steps before it left in the picture.

A call is *exact* when all blocks and all tokens ran in it, and *approximate* when First Block Cache reused it or it ran
with cached reference keys and values. Between two exact calls, at σ₀ with result v₀ and at σ₁ with v₁, the sampler
moved by Σ wᵢ·gᵢ, where gᵢ is the result of call i and wᵢ the change of sigma after it. At the second exact call, the
polynomial p through both exact results, and through the one before them where there is one, says what the calls between
should have returned: in Newton's form

    p(σ) = v₀ + [v₀, v₁]·(σ − σ₀) + [v₋₁, v₀, v₁]·(σ − σ₀)·(σ − σ₁),    error = Σ wᵢ·p(σᵢ) − Σ wᵢ·gᵢ

is how far the latent is off. It is added to the exact result itself: v₁ + error / w, with w the width of the previous
step, because the width of the next is not known yet; the difference that this makes is carried over. So the picture
arrives where interpolation between exact results would have led, not extrapolation.

Predicting from known values and correcting with the outcome is how predictor–corrector methods solve ODEs (Hairer,
Nørsett, Wanner: Solving Ordinary Differential Equations I, III.1); UniPC (Zhao et al., arXiv:2302.04867) corrects
sampler steps so, and FoCa (Zheng et al., arXiv:2508.16211) calibrates forecast features. The sums are those of Euler's
method; for other samplers they are right to first order in the step width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import BatchedState, expand_like, map_tensors
from lib_fluxkontext.caching.host_memory import may_copy_later
from lib_fluxkontext.caching.sample_key import SampleKey

MAX_RELATIVE_CORRECTION = 1.0
"""A correction is at most this many times as large as the result it corrects, by mean magnitude."""

FULL_TRUST, NO_TRUST = 0.25, 0.5
"""Relative change between two exact results up to which the line between them is trusted, and from which on it is not.
Flow models are trained towards straight trajectories: 0.04 to 0.3 on the small trained model. Where the result turns
over from one step to the next, as it does with random weights (0.55 to 0.8), a line says nothing."""


@dataclass(frozen=True)
class _CorrectionState:
    """Correction state of some samples after a call, one row each; float32 but for ``returned``.

    Attributes:
        sigma: (B,), of that call.
        width: (B,), change of sigma before it; never above 0.
        returned: (B, n, C), what the sampler got.
        exact: (B, n, C), result of the last exact call, before its correction.
        exact_sigma: (B,), of that call.
        moved: (B, n, C), Σ wᵢ·gᵢ since the last exact call.
        moment: (B,), Σ wᵢ·(σᵢ − σ₀).
        square: (B,), Σ wᵢ·(σᵢ − σ₀)².
        earlier: (B, n, C), result of the exact call before that.
        earlier_sigma: (B,), of that call; ``exact_sigma`` where there was none.
        carried: (B, n, C), the error that the last exact call set out to remove.
        monotonic: (B,) bool, whether sigma never rose since the last exact call.
    """

    sigma: Tensor
    width: Tensor
    returned: Tensor
    exact: Tensor
    exact_sigma: Tensor
    moved: Tensor
    moment: Tensor
    square: Tensor
    earlier: Tensor
    earlier_sigma: Tensor
    carried: Tensor
    monotonic: Tensor


class Correction:
    """State of one sampling. Make a new one for each. Nothing here waits for the device."""

    def __init__(self) -> None:
        self._states: BatchedState[_CorrectionState] = BatchedState()

    def apply(self, samples: Sequence[SampleKey], sigmas: Tensor, exact: Sequence[bool], result: Tensor) -> Tensor:
        """Correct a result where an exact call follows approximate ones, and return what the sampler gets, (B, n, C).

        Args:
            samples: one key per row, in batch order.
            sigmas: (B,) noise levels. Where sigma rises, sampling started anew and so does the state.
            exact: one flag per row.
            result: (B, n, C), the transformer's, a velocity.
        """
        if self._states.is_split(samples):  # each sample as it would be alone
            rows = [slice(row, row + 1) for row in range(len(samples))]
            return torch.cat([self.apply(samples[row], sigmas[row], exact[row], result[row]) for row in rows])
        sigma = sigmas.detach().to(result.device, torch.float32)
        if self._states.has_all(samples):
            state = _advance(self._states.get(samples), sigma, exact, result)
        else:
            state = _initial_state(sigma.clone(), result)
        self._states.put(samples, state)
        return state.returned

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()


def _initial_state(sigma: Tensor, result: Tensor) -> _CorrectionState:
    """Begin at a first call. It counts as exact: there is nothing before it that could be reused."""
    no_width, no_error = torch.zeros_like(sigma), torch.zeros_like(result, dtype=torch.float32)
    return _CorrectionState(
        sigma=sigma,
        width=no_width,
        returned=result.clone(),
        exact=result.float().clone(),
        exact_sigma=sigma,
        moved=no_error,
        moment=no_width,
        square=no_width,
        earlier=no_error,
        earlier_sigma=sigma,
        carried=no_error,
        monotonic=torch.ones_like(sigma, dtype=torch.bool),
    )


def _advance(before: _CorrectionState, sigma: Tensor, exact: Sequence[bool], result: Tensor) -> _CorrectionState:
    step = sigma - before.sigma
    distance = before.sigma - before.exact_sigma
    approximate = replace(
        before,
        sigma=sigma.clone(),
        width=torch.where(step < 0, step, before.width),  # second-order samplers call twice at a sigma
        returned=result.clone(),
        moved=torch.addcmul(before.moved, expand_like(step, before.moved), before.returned.float()),
        moment=before.moment + step * distance,
        square=before.square + step * distance**2,
        monotonic=before.monotonic & (step <= 0),
    )
    if not any(exact):
        return approximate
    corrected = _apply_correction(approximate, result)
    if all(exact):
        return corrected
    mask = torch.tensor(list(exact)).to(result.device, non_blocking=may_copy_later(result.device))
    return map_tensors(
        lambda new, old: torch.where(expand_like(mask, new), new, old),
        corrected,
        approximate,
    )


def _apply_correction(state: _CorrectionState, result: Tensor) -> _CorrectionState:
    """Compensate the error with an exact result, and start summing anew."""
    value = result.float()
    run = state.sigma - state.exact_sigma
    slope = (value - state.exact) / expand_like(torch.where(run < 0, run, 1.0), value)
    target = state.carried + expand_like(run, value) * state.exact + expand_like(state.moment, value) * slope
    error = target - state.moved + _bend(state, slope)
    usable = state.monotonic & torch.isfinite(error.sum(dim=(1, 2)))
    error = torch.where(expand_like(usable, error), error * expand_like(_trust(state.exact, value), error), 0.0)
    return replace(
        state,
        returned=result + _compensation(error, state.width, value).to(result.dtype),
        exact=value.clone(),
        exact_sigma=state.sigma,
        moved=torch.zeros_like(value),
        moment=torch.zeros_like(run),
        square=torch.zeros_like(run),
        earlier=state.exact,
        earlier_sigma=state.exact_sigma,
        carried=error,
        monotonic=torch.ones_like(state.monotonic),
    )


def _bend(state: _CorrectionState, slope: Tensor) -> Tensor:
    """Return what the parabola adds to the line, (B, n, C); 0 where there are no three exact results."""
    run, before = state.sigma - state.exact_sigma, state.exact_sigma - state.earlier_sigma
    usable = (run < 0) & (before < 0)
    earlier_slope = (state.exact - state.earlier) / expand_like(torch.where(before < 0, before, 1.0), slope)
    second = (slope - earlier_slope) / expand_like(torch.where(usable, run + before, 1.0), slope)
    bend = second * expand_like(state.square - run * state.moment, slope)
    usable &= torch.isfinite(bend.sum(dim=(1, 2)))
    return torch.where(expand_like(usable, bend), bend, 0.0)


def _trust(previous: Tensor, current: Tensor) -> Tensor:
    """How far the line between two exact results is trusted, (B,): 1 fully, 0 not at all."""
    change = (current - previous).abs().mean(dim=(1, 2)) / _mean_magnitude(current)
    return ((NO_TRUST - change) / (NO_TRUST - FULL_TRUST)).clamp(0.0, 1.0)


def _compensation(error: Tensor, width: Tensor, value: Tensor) -> Tensor:
    """What to add to a result so that a step of this width removes the error, (B, n, C); bounded, 0 before any step."""
    narrow = expand_like(torch.where(width < 0, width, 1.0), error)
    compensation = torch.where(expand_like(width < 0, error), error / narrow, 0.0)
    limit = MAX_RELATIVE_CORRECTION * value.abs().mean(dim=(1, 2)) / _mean_magnitude(compensation)
    return compensation * expand_like(limit.clamp_max(1.0), compensation)


def _mean_magnitude(tensor: Tensor) -> Tensor:
    """Mean magnitude of each row, (B,); never 0, so that it can divide."""
    return tensor.abs().mean(dim=(1, 2)).clamp_min(torch.finfo(torch.float32).tiny)
