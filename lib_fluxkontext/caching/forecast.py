"""First-order extrapolation in sigma of a tensor known at two computed steps. Nothing here waits for the device.

As TaylorSeer (Liu et al., arXiv:2503.06923) extrapolates features, but in sigma rather than in step index.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import expand_like

REACH = 1.0
"""A forecast extends at most this many times the distance between the two steps behind it, so it cannot run away."""


@dataclass(frozen=True)
class LinearForecast:
    """A tensor at one sigma and its change since the computed step before, one row per sample.

    The change is stored and not the slope: divided by a step's width, 0.016 in sigma, a change of 1,100 passes what
    float16 holds.

    Attributes:
        value: (B, …) at ``sigma``.
        sigma: (B,) float32.
        finite: (B,) bool, whether the value may be used.
        change: (B, …), between the two steps; None repeats the value instead of extrapolating.
        run: (B,) float32, change of sigma between them, below 0; None together with ``change``.
        reach: (B,) float32, how far in sigma the forecast may go; None together with ``change``.
    """

    value: Tensor
    sigma: Tensor
    finite: Tensor
    change: Tensor | None = None
    run: Tensor | None = None
    reach: Tensor | None = None

    def at(self, sigmas: Tensor) -> Tensor:
        """Extrapolate to other sigmas, (B,) → (B, …), in float32 where the tensors are float16."""
        if self.change is None or self.run is None or self.reach is None:
            return self.value
        distance = torch.maximum(sigmas.float() - self.sigma, -self.reach)
        dtype = torch.float32 if self.value.dtype == torch.float16 else self.value.dtype
        value, change = self.value.to(dtype), self.change.to(dtype)
        slope = change / expand_like(self.run.to(dtype), change)
        return torch.addcmul(value, slope, expand_like(distance.to(dtype), slope)).to(self.value.dtype)


def fit_forecast(
    value: Tensor, sigmas: Tensor, finite: Tensor, previous: LinearForecast | None, extrapolate: bool = True
) -> LinearForecast:
    """Fit a forecast to a newly computed value and the one before it.

    Between equal sigmas (the second call of a second-order sampler) the previous change stays, with its reach; likewise
    where one of the two values is not finite, and where sigma rose within the interval that the change was measured
    over, as samplers do that add noise. Beyond it sampling started anew: like the first value, that one has no change.

    Args:
        value: (B, …).
        sigmas: (B,).
        finite: (B,) bool.
        previous: forecast of the computed step before, its rows in the same order, or None.
        extrapolate: False stores the value alone.
    """
    sigma = sigmas.detach().float().clone()
    if not extrapolate:
        return LinearForecast(value, sigma, finite)
    if previous is None or previous.change is None or previous.run is None or previous.reach is None:
        nothing = torch.zeros_like(sigma)
        return LinearForecast(value, sigma, finite, torch.zeros_like(value), nothing - 1.0, nothing)
    fall = previous.sigma - sigma
    usable = (fall > 0) & previous.finite & finite
    anew = fall < previous.run
    kept = torch.where(expand_like(anew, value), 0.0, previous.change)
    change = torch.where(expand_like(usable, value), _difference(value, previous.value), kept)
    run = torch.where(usable, -fall, previous.run)
    reach = torch.where(usable, REACH * fall, torch.where(anew, 0.0, previous.reach))
    return LinearForecast(value, sigma, finite, change, run, reach)


def _difference(value: Tensor, previous: Tensor) -> Tensor:
    """Subtract; in float16, two values that are finite can be further apart than it holds."""
    if value.dtype != torch.float16:
        return value - previous
    largest = torch.finfo(torch.float16).max
    return (value.float() - previous.float()).clamp(-largest, largest).to(torch.float16)
