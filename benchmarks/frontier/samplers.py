"""Samplers of a ``FluxKontextPipeline`` beside its own Euler, at the very noise levels of that.

diffusers' own multistep and Heun schedulers make other noise levels than the pipeline asks for, so the two updates are
here: DPM++ 2M (Lu et al., arXiv:2211.01095) as Forge runs it on Flux, that is k-diffusion's with λ = −ln σ, and Heun's
method (Karras et al., arXiv:2206.00364, algorithm 2, without noise), whose last step, to σ = 0, is Euler's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

Sampler = Literal["euler", "dpmpp2m", "heun"]


class MultistepScheduler(FlowMatchEulerDiscreteScheduler):
    """DPM++ 2M: one call a step; the first step and the last are of first order."""

    _before: Tensor | None = None
    """Denoised picture of the step before."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> tuple[Tensor]:  # type: ignore[override]
        """Make one step; ``return_dict`` is taken for False."""
        if self._step_index is None:
            self._init_step_index(timestep)
        index = int(self.step_index)
        sigma, following = (float(self.sigmas[index + ahead]) for ahead in (0, 1))
        denoised = sample - sigma * model_output
        aim = denoised
        if index > 0 and following > 0 and self._before is not None:
            # λ rises by ``width``; the line through the last two denoised pictures, at the middle of the step
            width = math.log(sigma / following)
            ahead = width / (2 * math.log(float(self.sigmas[index - 1]) / sigma))
            aim = denoised + ahead * (denoised - self._before)
        self._before = denoised
        self._step_index = index + 1  # type: ignore[assignment]
        kept = following / sigma
        return (kept * sample + (1 - kept) * aim,)


class HeunScheduler(FlowMatchEulerDiscreteScheduler):
    """Heun's method: two calls in every step but the last; ``timesteps`` has one entry for each call."""

    order = 2

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """Set Euler's noise levels; the second call of a step and the first of the next are at the same one."""
        super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)
        self.timesteps = torch.cat([self.timesteps[:1], self.timesteps[1:].repeat_interleave(2)])
        self._calls = 0
        self._start: tuple[Tensor, Tensor] | None = None

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> tuple[Tensor]:  # type: ignore[override]
        """Take one call's velocity; ``return_dict`` is taken for False."""
        index = self._calls // 2
        self._calls += 1
        width = float(self.sigmas[index + 1] - self.sigmas[index])
        if self._start is None:
            self._start = sample, model_output
            return (sample + width * model_output,)
        begin, velocity = self._start
        self._start = None
        return (begin + width * (velocity + model_output) / 2,)


@dataclass(frozen=True)
class Description:
    """A sampler's name for people, and its scheduler; None leaves the pipeline's own."""

    title: str
    scheduler: type[FlowMatchEulerDiscreteScheduler] | None = None


SAMPLERS: dict[Sampler, Description] = {
    "euler": Description("Euler"),
    "dpmpp2m": Description("DPM++ 2M", MultistepScheduler),
    "heun": Description("Heun", HeunScheduler),
}


@contextmanager
def sampled_by(pipeline: Any, sampler: Sampler) -> Iterator[Any]:
    """Give the pipeline another sampler while the context lasts.

    Args:
        pipeline: diffusers'.
        sampler: one of ``SAMPLERS``.

    Yields:
        What to hand to ``generate``; other caches still hook ``pipeline``.
    """
    scheduler = SAMPLERS[sampler].scheduler
    if scheduler is None:
        yield pipeline
        return
    before = pipeline.scheduler
    pipeline.scheduler = scheduler.from_config(before.config)
    try:
        yield _TwoCallsInAStep(pipeline) if scheduler.order == 2 else pipeline
    finally:
        pipeline.scheduler = before


class _TwoCallsInAStep:
    """A pipeline that reports sampler steps to its callback: diffusers' own reports every call as one."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def __call__(self, *, callback_on_step_end: Any, **arguments: Any) -> Any:
        def call_ended(pipeline: Any, index: int, timestep: Any, values: Any) -> Any:
            # The next call is number index + 1, and two calls make a step.
            return callback_on_step_end(pipeline, (index + 1) // 2 - 1, timestep, values)

        return self._pipeline(callback_on_step_end=call_ended, **arguments)
