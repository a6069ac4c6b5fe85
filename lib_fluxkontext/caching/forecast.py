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
    """A tensor at one sigma and its slope, one row per sample.

    Attributes:
        value: (B, …) at ``sigma``.
        sigma: (B,) float32.
        finite: (B,) bool, whether the value may be used.
        slope: (B, …), change of the value per sigma; None repeats the value instead of extrapolating.
        reach: (B,), how far in sigma the slope may be followed; None together with ``slope``.
    """

    value: Tensor
    sigma: Tensor
    finite: Tensor
    slope: Tensor | None = None
    reach: Tensor | None = None

    def at(self, sigmas: Tensor) -> Tensor:
        """Extrapolate to other sigmas, (B,) → (B, …)."""
        if self.slope is None or self.reach is None:
            return self.value
        distance = torch.maximum(sigmas.float() - self.sigma, -self.reach)
        return torch.addcmul(self.value, self.slope, expand_like(distance.to(self.slope.dtype), self.slope))


def fit_forecast(
    value: Tensor, sigmas: Tensor, finite: Tensor, previous: LinearForecast | None, extrapolate: bool = True
) -> LinearForecast:
    """Fit a forecast to a newly computed value and the one before it.

    Between equal sigmas (the second call of a second-order sampler) the previous slope stays, with its reach; likewise
    where one of the two values is not finite, and where sigma rose. The first value has slope 0.

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
    if previous is None or previous.slope is None or previous.reach is None:
        return LinearForecast(value, sigma, finite, torch.zeros_like(value), torch.zeros_like(sigma))
    fall = previous.sigma - sigma
    usable = (fall > 0) & previous.finite & finite
    run = torch.where(usable, -fall, 1.0).to(value.dtype)
    slope = torch.where(expand_like(usable, value), (value - previous.value) / expand_like(run, value), previous.slope)
    return LinearForecast(value, sigma, finite, slope, torch.where(usable, REACH * fall, previous.reach))
