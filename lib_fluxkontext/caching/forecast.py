"""First-order extrapolation in sigma from two computed moments, one row a stream. Nothing here waits for the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 1.0
"""A forecast goes at most so many times as far as the two moments behind it lie apart: it cannot run away."""


@dataclass(frozen=True)
class Trend:
    """A value and where it goes.

    Attributes:
        value: (B, …) at ``sigma``.
        sigma: (B,) float32.
        finite: (B,) bool, whether the value may be built on.
        slope: (B, …), change of the value by sigma.
        reach: (B,), how far in sigma the slope may be followed.
    """

    value: Tensor
    sigma: Tensor
    finite: Tensor
    slope: Tensor
    reach: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in order."""
        return self.value, self.sigma, self.finite, self.slope, self.reach

    def at(self, sigmas: Tensor) -> Tensor:
        """(B, …): the forecast at other sigmas, (B,)."""
        way = torch.maximum(sigmas.float() - self.sigma, -self.reach)
        return torch.addcmul(self.value, self.slope, _column(way.to(self.slope.dtype), self.slope))


def trend(value: Tensor, sigmas: Tensor, finite: Tensor, before: Trend | None) -> Trend:
    """The trend at a newly computed moment.

    Between equal sigmas (the second call of a second-order sampler) there is none: the slope from before stays, with
    its reach. The same where one of the two values is not finite, and where sigma rose. The first has slope 0.

    Args:
        value: (B, …).
        sigmas: (B,).
        finite: (B,) bool.
        before: of the moment before, the rows in the same order, or None.
    """
    sigma = sigmas.detach().float().clone()
    if before is None:
        return Trend(value, sigma, finite, torch.zeros_like(value), torch.zeros_like(sigma))
    fall = before.sigma - sigma
    usable = (fall > 0) & before.finite & finite
    by = torch.where(usable, -fall, 1.0).to(value.dtype)
    slope = torch.where(_column(usable, value), (value - before.value) / _column(by, value), before.slope)
    return Trend(value, sigma, finite, slope, torch.where(usable, REACH * fall, before.reach))


def _column(row: Tensor, like: Tensor) -> Tensor:
    return row.reshape(-1, *(1,) * (like.ndim - 1))
