"""First Block Cache: skip all blocks but the first when the first one says that little has changed.

The idea is ParaAttention's First Block Cache (Cheng Zeyi, https://github.com/chengzeyi/ParaAttention), itself
after TeaCache (Liu et al., arXiv:2411.19108). With r = output − input of the first double block over the
generated image's tokens and r₀ the same from the last *computed* step, a step is reused when

    mean|r − r₀| / mean|r₀| < threshold

and its result is then the fresh first-block output plus the residual that the other blocks added last time. With
``forecast`` it is that residual's first-order extrapolation in sigma from the last two computed steps, as TaylorSeer
(Liu et al., arXiv:2503.06923) extrapolates features in steps. Here every image of a batch decides for itself, so that
it comes out as it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import StreamRows
from lib_fluxkontext.caching.forecast import Trend, trend
from lib_fluxkontext.caching.sample_key import Decision, Step, Stream


@dataclass(frozen=True)
class CacheConfig:
    """When to reuse.

    Attributes:
        threshold: relative change of the first block's residual below which a step is reused; 0 never reuses.
        warmup_steps: the first so many sampler steps are always computed, 1 or more.
        max_consecutive: longest run of reused sampler steps; 0 is no limit.
        compute_last: always compute the last sampler step.
        forecast: extrapolate the stored residual instead of taking it as it is.
    """

    threshold: float
    warmup_steps: int = 1
    max_consecutive: int = 0
    compute_last: bool = False
    forecast: bool = False


@dataclass(frozen=True)
class _Kept:
    """Some streams' last computed steps, a row each."""

    first_residual: Tensor  # (B, n, d)
    first_magnitude: Tensor  # (B,), mean|r₀|
    rest_residual: Tensor  # (B, n, d), what the blocks after the first added
    sigma: Tensor  # (B,)
    finite: Tensor  # (B,) bool; read together with the next distance, so that storing never waits for the GPU
    slope: Tensor | None = None  # (B, n, d), change of rest_residual by sigma
    reach: Tensor | None = None  # (B,), how far in sigma the slope may be followed

    @property
    def trend(self) -> Trend | None:
        """Of ``rest_residual``."""
        if self.slope is None or self.reach is None:
            return None
        return Trend(self.rest_residual, self.sigma, self.finite, self.slope, self.reach)


class FirstBlockCache:
    """The states of one sampling pass. Make a new one for each pass: batch, hires pass, failure, restart."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self._rows = StreamRows()
        self._steps: dict[Stream, int] = {}

    def may_reuse(self, stream: Stream, step: Step) -> bool:
        """Whether this step is one that could be reused, before anything is measured."""
        computed, config = self._steps.get(stream), self.config
        if computed is None or step.index < config.warmup_steps or (step.last and config.compute_last):
            return False
        return not config.max_consecutive or step.index - computed <= config.max_consecutive

    def decide(self, streams: Sequence[Stream], step: Step, sigmas: Tensor, first_residual: Tensor) -> list[Decision]:
        """Decide for every image of a model call; waits for the device once at most.

        Args:
            streams: one key an image, in batch order.
            step: the sampler step of this call.
            sigmas: (B,) noise levels. A rise means that sampling started anew, and the state is not used.
            first_residual: (B, n, d) output − input of the first block over the generated image's tokens.
        """
        self._drop_unlike(streams, first_residual)
        asked = [row for row, stream in enumerate(streams) if self.may_reuse(stream, step)]
        if not asked:
            return [Decision(False)] * len(streams)
        if len(asked) < len(streams):
            first_residual, sigmas = first_residual[asked], sigmas[asked]
        kept = self._kept([streams[row] for row in asked])
        values = dict(zip(asked, _distances(kept, first_residual, sigmas).tolist(), strict=True))
        return [self._judge(values.get(row)) for row in range(len(streams))]

    def residual(self, streams: Sequence[Stream], sigmas: Tensor) -> Tensor:
        """(B, n, d): what the blocks after the first added at the streams' last computed steps, or the forecast.

        Args:
            streams: some that ``decide`` said may reuse.
            sigmas: (B,), where the sampler is now.
        """
        kept = self._kept(streams)
        return kept.rest_residual if kept.trend is None else kept.trend.at(sigmas)

    def store(
        self, streams: Sequence[Stream], step: Step, sigmas: Tensor, first_residual: Tensor, rest_residual: Tensor
    ) -> None:
        """Keep a computed step. A residual that is not finite is never used.

        Args:
            streams: one key a row of the tensors.
            step: the sampler step of this call.
            sigmas: (B,) noise levels.
            first_residual: (B, n, d) as given to ``decide``.
            rest_residual: (B, n, d) last block's output − first block's output.
        """
        magnitude = first_residual.abs().mean(dim=(1, 2), dtype=torch.float32)
        # A sum is finite only if every part is, but for sums past the type's range: those are not worth reusing.
        finite = torch.isfinite(rest_residual.sum(dim=(1, 2), dtype=torch.float32) + magnitude)
        if not self.config.forecast:
            sigma = sigmas.detach().float().clone()
            self._rows.put(streams, first_residual, magnitude, rest_residual, sigma, finite)
        else:
            self._drop_unlike(streams, first_residual)
            known = [stream in self._rows for stream in streams]
            if any(known) and not all(known):  # each image as it would be alone
                for row, stream in enumerate(streams):
                    one = slice(row, row + 1)
                    self.store([stream], step, sigmas[one], first_residual[one].clone(), rest_residual[one].clone())
                return
            before = self._kept(streams).trend if all(known) else None
            now = trend(rest_residual, sigmas, finite, before)
            self._rows.put(streams, first_residual, magnitude, *now.tensors())
        self._steps.update(dict.fromkeys(streams, step.index))

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self._steps.clear()

    def _kept(self, streams: Sequence[Stream]) -> _Kept:
        return _Kept(*self._rows.get(streams))

    def _drop_unlike(self, streams: Sequence[Stream], first_residual: Tensor) -> None:
        """Forget states of another shape, dtype or device."""
        for stream in streams:
            if stream in self._steps and not _alike(self._rows.peek(stream)[0], first_residual[0]):
                self._rows.drop([stream])
                del self._steps[stream]

    def _judge(self, distance: float | None) -> Decision:
        if distance is None or not math.isfinite(distance):
            return Decision(False)
        return Decision(distance < self.config.threshold, distance)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def _distances(kept: _Kept, first_residual: Tensor, sigmas: Tensor) -> Tensor:
    """Relative change, (B,) float32 on the device; infinite where the state must not be used."""
    change = (first_residual - kept.first_residual).abs_().mean(dim=(1, 2), dtype=torch.float32)
    usable = kept.finite & (sigmas <= kept.sigma)
    return torch.where(usable, change / kept.first_magnitude, torch.inf)
