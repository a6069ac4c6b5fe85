"""First Block Cache: skip all blocks but the first when the first one says that little has changed.

The idea is ParaAttention's First Block Cache (Cheng Zeyi, https://github.com/chengzeyi/ParaAttention), itself
after TeaCache (Liu et al., arXiv:2411.19108). With r = output − input of the first double block over the
generated image's tokens and r₀ the same from the last *computed* step, a step is reused when

    mean|r − r₀| / mean|r₀| < threshold

and its result is then the fresh first-block output plus the residual that the other blocks added last time. With
``forecast`` it is that residual's first-order extrapolation in sigma from the last two computed steps (see
``forecast``). Every image of a batch decides for itself, so that it comes out as it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import BatchedState, same_layout
from lib_fluxkontext.caching.forecast import LinearForecast, fit_forecast
from lib_fluxkontext.caching.sample_key import Decision, SampleKey, Step


@dataclass(frozen=True)
class FirstBlockConfig:
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
class _ComputedStep:
    """The last computed step of some samples, one row each.

    Attributes:
        first_residual: (B, n, d), r₀.
        first_magnitude: (B,), mean|r₀|.
        rest_residual: forecast of (B, n, d), what the blocks after the first added. Its ``finite`` flag is read
            together with the next distance, so that storing never waits for the GPU.
    """

    first_residual: Tensor
    first_magnitude: Tensor
    rest_residual: LinearForecast


class FirstBlockCache:
    """State of one sampling. Make a new one for each: batch, hires pass, failure, restart."""

    def __init__(self, config: FirstBlockConfig) -> None:
        self.config = config
        self._computed: BatchedState[_ComputedStep] = BatchedState()
        self._computed_steps: dict[SampleKey, int] = {}

    def may_reuse(self, sample: SampleKey, step: Step) -> bool:
        """Whether the settings and the state allow this step to be reused, before anything is measured."""
        computed, config = self._computed_steps.get(sample), self.config
        if computed is None or step.index < config.warmup_steps or (step.last and config.compute_last):
            return False
        return not config.max_consecutive or step.index - computed <= config.max_consecutive

    def decide(
        self, samples: Sequence[SampleKey], step: Step, sigmas: Tensor, first_residual: Tensor
    ) -> list[Decision]:
        """Decide for every sample of a model call, by at most one reading from the device.

        Args:
            samples: one key per row, in batch order.
            step: the sampler step of this call.
            sigmas: (B,) noise levels. Where sigma rose, sampling started anew and the state is not used.
            first_residual: (B, n, d) output − input of the first block over the generated image's tokens.
        """
        self._drop_incompatible(samples, first_residual)
        candidates = [row for row, sample in enumerate(samples) if self.may_reuse(sample, step)]
        if not candidates:
            return [Decision(False)] * len(samples)
        if len(candidates) < len(samples):
            first_residual, sigmas = first_residual[candidates], sigmas[candidates]
        computed = self._computed.get([samples[row] for row in candidates])
        distances = dict(zip(candidates, _distances(computed, first_residual, sigmas).tolist(), strict=True))
        return [self._decide_by(distances.get(row)) for row in range(len(samples))]

    def residual(self, samples: Sequence[SampleKey], sigmas: Tensor) -> Tensor:
        """Return what the blocks after the first added at the last computed step, or its forecast, (B, n, d).

        Args:
            samples: some for which ``decide`` said reuse.
            sigmas: (B,), where the sampler is now.
        """
        return self._computed.get(samples).rest_residual.at(sigmas)

    def store(
        self, samples: Sequence[SampleKey], step: Step, sigmas: Tensor, first_residual: Tensor, rest_residual: Tensor
    ) -> None:
        """Store a computed step. A residual that is not finite is never used.

        Args:
            samples: one key per row.
            step: the sampler step of this call.
            sigmas: (B,) noise levels.
            first_residual: (B, n, d) as given to ``decide``.
            rest_residual: (B, n, d) last block's output − first block's output.
        """
        if self.config.forecast:
            self._drop_incompatible(samples, first_residual)
            if self._computed.is_split(samples):  # each sample as it would be alone
                for row, sample in enumerate(samples):
                    own = slice(row, row + 1)
                    self.store([sample], step, sigmas[own], first_residual[own].clone(), rest_residual[own].clone())
                return
        magnitude = first_residual.abs().mean(dim=(1, 2), dtype=torch.float32)
        # A sum is finite only if every part is, but for sums past the type's range: those are not worth reusing.
        finite = torch.isfinite(rest_residual.sum(dim=(1, 2), dtype=torch.float32) + magnitude)
        previous = None
        if self.config.forecast and self._computed.has_all(samples):
            previous = self._computed.get(samples).rest_residual
        forecast = fit_forecast(rest_residual, sigmas, finite, previous, extrapolate=self.config.forecast)
        self._computed.put(samples, _ComputedStep(first_residual, magnitude, forecast))
        self._computed_steps.update(dict.fromkeys(samples, step.index))

    def clear(self) -> None:
        """Forget everything."""
        self._computed.clear()
        self._computed_steps.clear()

    def _drop_incompatible(self, samples: Sequence[SampleKey], first_residual: Tensor) -> None:
        """Forget states of another shape, dtype or device."""
        for sample in samples:
            if sample not in self._computed_steps:
                continue
            if not same_layout(self._computed.peek(sample).first_residual, first_residual[0]):
                self._computed.drop([sample])
                del self._computed_steps[sample]

    def _decide_by(self, distance: float | None) -> Decision:
        if distance is None or not math.isfinite(distance):
            return Decision(False)
        return Decision(distance < self.config.threshold, distance)


def _distances(computed: _ComputedStep, first_residual: Tensor, sigmas: Tensor) -> Tensor:
    """Measure the relative change, (B,) float32 on the device; infinite where the state must not be used."""
    change = (first_residual - computed.first_residual).abs_().mean(dim=(1, 2), dtype=torch.float32)
    usable = computed.rest_residual.finite & (sigmas <= computed.rest_residual.sigma)
    return torch.where(usable, change / computed.first_magnitude, torch.inf)
