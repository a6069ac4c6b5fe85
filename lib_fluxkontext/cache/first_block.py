"""First Block Cache: skip all blocks but the first when the first one says that little has changed.

The idea is ParaAttention's First Block Cache (Cheng Zeyi, https://github.com/chengzeyi/ParaAttention), itself
after TeaCache (Liu et al., arXiv:2411.19108). With r = output − input of the first double block over the
generated image's tokens and r₀ the same from the last *computed* step, a step is reused when

    mean|r − r₀| / mean|r₀| < threshold

and its result is then the fresh first-block output plus the residual that the other blocks added last time.
Here every image of a batch decides for itself, so that it comes out as it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Stream = Hashable
"""What a state belongs to: one image under one conditioning, never a place in a batch."""


@dataclass(frozen=True)
class CacheConfig:
    """When to reuse.

    Attributes:
        threshold: relative change of the first block's residual below which a step is reused; 0 never reuses.
        warmup_steps: the first so many sampler steps are always computed, 1 or more.
        max_consecutive: longest run of reused sampler steps; 0 is no limit.
        compute_last: always compute the last sampler step.
    """

    threshold: float
    warmup_steps: int = 1
    max_consecutive: int = 0
    compute_last: bool = False


@dataclass(frozen=True)
class Step:
    """Where in the sampler's schedule a model call lies; second-order samplers make two calls in one step.

    Attributes:
        index: sampler step, from 0.
        last: whether it is the schedule's last.
    """

    index: int
    last: bool = False


@dataclass(frozen=True)
class Decision:
    """What became of one image in one model call.

    Attributes:
        reuse: True if the stored residual serves again.
        distance: mean|r − r₀| / mean|r₀|, or None where nothing was compared.
    """

    reuse: bool
    distance: float | None = None


@dataclass
class _Kept:
    """One stream's last computed step: the first block's residual, and what the other blocks added to it."""

    first_residual: Tensor  # (n, d)
    first_magnitude: Tensor  # scalar, mean|r₀|
    rest_residual: Tensor  # (n, d)
    finite: Tensor  # scalar bool; read together with the next distance, so that storing never waits for the GPU
    sigma: Tensor  # scalar
    step: int


class FirstBlockCache:
    """The states of one sampling pass. Make a new one for each pass: batch, hires pass, failure, restart."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self._kept: dict[Stream, _Kept] = {}

    def decide(self, streams: Sequence[Stream], step: Step, sigmas: Tensor, first_residual: Tensor) -> list[Decision]:
        """Decide for every image of a model call; waits for the device once at most.

        Args:
            streams: one key an image, in batch order.
            step: the sampler step of this call.
            sigmas: (B,) noise levels. A rise means that sampling started anew, and the state is not used.
            first_residual: (B, n, d) output − input of the first block over the generated image's tokens.
        """
        distances: dict[int, Tensor] = {}
        for row, stream in enumerate(streams):
            kept = self._kept.get(stream)
            if kept is not None and not _alike(kept.first_residual, first_residual[row]):
                del self._kept[stream]
                kept = None
            if kept is not None and self._may_reuse(kept, step):
                distances[row] = _distance(kept, first_residual[row], sigmas[row])
        if not distances:
            return [Decision(False)] * len(streams)
        values = dict(zip(distances, torch.stack(list(distances.values())).tolist(), strict=True))
        return [self._judge(values.get(row)) for row in range(len(streams))]

    def residual(self, stream: Stream) -> Tensor:
        """(n, d): what the blocks after the first added at this stream's last computed step."""
        return self._kept[stream].rest_residual

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
        for row, stream in enumerate(streams):
            first, rest = first_residual[row], rest_residual[row]
            if len(streams) > 1:  # a view would keep the whole batch alive when the rows part ways
                first, rest = first.clone(), rest.clone()
            magnitude = first.abs().mean(dtype=torch.float32)
            # A sum is finite only if every part is, but for sums past the type's range: those are not worth reusing.
            finite = torch.isfinite(rest.sum(dtype=torch.float32) + magnitude)
            self._kept[stream] = _Kept(first, magnitude, rest, finite, sigmas[row].detach().clone(), step.index)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def _may_reuse(self, kept: _Kept, step: Step) -> bool:
        config = self.config
        if step.index < config.warmup_steps or (step.last and config.compute_last):
            return False
        return not config.max_consecutive or step.index - kept.step <= config.max_consecutive

    def _judge(self, distance: float | None) -> Decision:
        if distance is None or not math.isfinite(distance):
            return Decision(False)
        return Decision(distance < self.config.threshold, distance)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def _distance(kept: _Kept, first_residual: Tensor, sigma: Tensor) -> Tensor:
    """Relative change as a float32 scalar on the device; infinite where the state must not be used."""
    change = (first_residual - kept.first_residual).abs().mean(dtype=torch.float32)
    usable = kept.finite & (sigma <= kept.sigma)
    return torch.where(usable, change / kept.first_magnitude, torch.inf)
