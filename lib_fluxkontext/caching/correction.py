"""Correction: a computed step makes up for what the approximate ones before it got wrong.

A step is *exact* when all blocks and all tokens ran in it, and *approximate* when First Block Cache reused it or it ran
on kept references. Between two exact calls, at σ₀ with result v₀ and at σ₁ with v₁, the sampler was moved by Σ wᵢ·gᵢ,
where gᵢ is what call i gave and wᵢ how far sigma went after it. At the second one the line between both exact results
tells what those calls should have given, and

    debt = Σ wᵢ·(v₀ + (v₁ − v₀)·(σᵢ − σ₀)/(σ₁ − σ₀)) − Σ wᵢ·gᵢ

is by how much the picture lies beside the way. It is paid with the exact result itself: v₁ + debt / w, with w the width
of the step before, because the next one's is not known yet; what that gets wrong stays in the books. So the picture
arrives where interpolation would have led it, not extrapolation.

Predicting with what is known and correcting with what came out is how ODEs are solved by predictor–corrector methods
(Hairer, Nørsett, Wanner: Solving Ordinary Differential Equations I, III.1); UniPC (Zhao et al., arXiv:2302.04867)
corrects steps of the sampler so, and FoCa (Zheng et al., arXiv:2508.16211) calibrates forecast features. The sums are
those of Euler's method; for other samplers they are right to first order in the width of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import StreamRows
from lib_fluxkontext.caching.sample_key import Stream

BOUND = 1.0
"""A correction is at most so many times as large as the result that it corrects, by mean magnitude."""

TRUSTED, DOUBTED = 0.25, 0.5
"""Relative change between two exact results up to which the line between them is believed, and from which on it is not.
Flow models are trained towards straight ways: 0.04 to 0.3 on the small trained model. Where the result turns over from
one step to the next, as it does with random weights (0.55 to 0.8), a line says nothing."""


@dataclass(frozen=True)
class _Books:
    """Where some streams stand after a call, a row each. float32 but for what was given."""

    sigma: Tensor  # (B,), of that call
    width: Tensor  # (B,), how far sigma went before it; never above 0
    given: Tensor  # (B, n, C), what the sampler got
    exact: Tensor  # (B, n, C), result of the last exact call, before it was corrected
    exact_sigma: Tensor  # (B,)
    moved: Tensor  # (B, n, C), Σ wᵢ·gᵢ since the last exact call
    moment: Tensor  # (B,), Σ wᵢ·(σᵢ − σ₀)
    debt: Tensor  # (B, n, C), what the last exact call owed
    sound: Tensor  # (B,) bool, whether sigma never rose since the last exact call

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


class Correction:
    """The books of one sampling pass. Make a new one for each pass. Nothing here waits for the device."""

    def __init__(self) -> None:
        self._rows = StreamRows()

    def corrected(self, streams: Sequence[Stream], sigmas: Tensor, exact: Sequence[bool], result: Tensor) -> Tensor:
        """What the sampler shall get.

        Args:
            streams: one key an image, in batch order.
            sigmas: (B,) noise levels. A rise means that sampling started anew: so do the books.
            exact: one flag an image.
            result: (B, n, C), the transformer's, a velocity.

        Returns:
            ``result``, corrected where a call is exact and follows approximate ones.
        """
        known = [stream in self._rows for stream in streams]
        if any(known) and not all(known):  # each image as it would be alone
            rows = [slice(row, row + 1) for row in range(len(streams))]
            return torch.cat([self.corrected(streams[row], sigmas[row], exact[row], result[row]) for row in rows])
        sigma = sigmas.detach().to(result.device, torch.float32)
        if not all(known):
            books = _opened(sigma.clone(), result)
        else:
            books = _booked(_Books(*self._rows.get(streams)), sigma, exact, result)
        self._rows.put(streams, *books.tensors())
        return books.given

    def clear(self) -> None:
        """Forget every stream."""
        self._rows.clear()


def _opened(sigma: Tensor, result: Tensor) -> _Books:
    """Books at a first call. It counts as exact: there is nothing before it that could be reused."""
    still, none = torch.zeros_like(sigma), torch.zeros_like(result, dtype=torch.float32)
    sound = torch.ones_like(sigma, dtype=torch.bool)
    return _Books(sigma, still, result.clone(), result.float().clone(), sigma, none, still, none, sound)


def _booked(before: _Books, sigma: Tensor, exact: Sequence[bool], result: Tensor) -> _Books:
    step = sigma - before.sigma
    approximate = replace(
        before,
        sigma=sigma.clone(),
        width=torch.where(step < 0, step, before.width),  # second-order samplers call twice at a sigma
        given=result.clone(),
        moved=torch.addcmul(before.moved, _column(step), before.given.float()),
        moment=before.moment + step * (before.sigma - before.exact_sigma),
        sound=before.sound & (step <= 0),
    )
    if not any(exact):
        return approximate
    paid = _paid(approximate, result)
    if all(exact):
        return paid
    mask = torch.tensor(list(exact)).to(result.device, non_blocking=True)
    pairs = zip(paid.tensors(), approximate.tensors(), strict=True)
    return _Books(*(torch.where(mask if one.ndim == 1 else _column(mask), one, other) for one, other in pairs))


def _paid(books: _Books, result: Tensor) -> _Books:
    """An exact call closes the books: what is owed is paid with its result, and new ones begin."""
    value = result.float()
    run = books.sigma - books.exact_sigma
    slope = (value - books.exact) / _column(torch.where(run < 0, run, 1.0))
    due = books.debt + _column(run) * books.exact + _column(books.moment) * slope - books.moved
    sound = books.sound & torch.isfinite(due.sum(dim=(1, 2)))
    due = torch.where(_column(sound), due * _column(_trust(books.exact, value)), 0.0)
    return replace(
        books,
        given=result + _payment(due, books.width, value).to(result.dtype),
        exact=value.clone(),
        exact_sigma=books.sigma,
        moved=torch.zeros_like(value),
        moment=torch.zeros_like(run),
        debt=due,
        sound=torch.ones_like(books.sound),
    )


def _trust(one: Tensor, other: Tensor) -> Tensor:
    """(B,): 1 where the line between two exact results is believed, 0 where it is not."""
    size = other.abs().mean(dim=(1, 2)).clamp_min(torch.finfo(torch.float32).tiny)
    change = (other - one).abs().mean(dim=(1, 2)) / size
    return ((DOUBTED - change) / (DOUBTED - TRUSTED)).clamp(0.0, 1.0)


def _payment(due: Tensor, width: Tensor, value: Tensor) -> Tensor:
    """(B, n, C): what to add to a result so that a step of this width pays; bounded, and 0 before any step."""
    payment = torch.where(_column(width < 0), due / _column(torch.where(width < 0, width, 1.0)), 0.0)
    size = payment.abs().mean(dim=(1, 2)).clamp_min(torch.finfo(torch.float32).tiny)
    return payment * _column((BOUND * value.abs().mean(dim=(1, 2)) / size).clamp_max(1.0))


def _column(row: Tensor) -> Tensor:
    return row.reshape(-1, 1, 1)
