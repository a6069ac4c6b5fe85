"""A sampling session that is driven by the transformer's calls in one call of a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lib_fluxkontext.caching.sample_key import Decision, Step
from lib_fluxkontext.geometry import pixel_tokens
from lib_fluxkontext.hooks.patch import patched_attr
from lib_fluxkontext.hosts.diffusers.adapter import DiffusersFluxAdapter
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.memory import MemoryMeter

TRAINING_TIMESTEPS = 1000
"""By which the pipeline divides the scheduler's timesteps."""


class Interrupted(Exception):
    """The sampling was asked to stop, and stopped before its next model call."""


class PipelineSampling:
    """One session for one call of a pipeline.

    Args:
        pipeline: a ``FluxKontextPipeline``.
        size: width and height of the picture in pixels.
        steps: sampler steps.
        settings: of the caches.
        encoded: references, or None.
        memory: sampled once per model call.
        interrupt: set by another thread to stop the sampling.
    """

    def __init__(
        self,
        pipeline: Any,
        size: tuple[int, int],
        steps: int,
        settings: KontextSettings,
        encoded: EncodedReferences | None,
        memory: MemoryMeter,
        interrupt: threading.Event | None = None,
    ) -> None:
        self._transformer = pipeline.transformer
        self._scheduler = pipeline.scheduler
        self._steps = steps
        self._step = 0
        self._call_in_step = 0
        self._interrupt = interrupt
        self.decisions: list[Sequence[Decision]] = []
        """Of each model call: one per picture, or none where nothing could be reused."""
        self.session = SamplingSession(
            pipeline.transformer,
            DiffusersFluxAdapter(),
            pixel_tokens(*size),
            memory,
            build_caches(settings, encoded is not None),
            encoded,
            total_steps=lambda: steps,
        )

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Run each call of the transformer in the session while the context lasts.

        Raises:
            Interrupted: from a call of the transformer, once ``interrupt`` is set.
        """
        original: Callable[..., Any] = self._transformer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._interrupt is not None and self._interrupt.is_set():
                raise Interrupted
            # With true CFG the pipeline calls twice in a step, always in the same order.
            samples = [(self._call_in_step, image) for image in range(kwargs["hidden_states"].shape[0])]
            self._call_in_step += 1
            step = Step(self._step, self._step == self._steps - 1)
            with (
                patched_attr(self._transformer, "forward", original),
                self.session.call(samples, step, self._sigmas(kwargs["timestep"])) as call,
            ):
                output = self._transformer.forward(*args, **kwargs)
            self.decisions.append(tuple(call.decisions))
            return output

        with patched_attr(self._transformer, "forward", forward):
            yield

    def _sigmas(self, timestep: Tensor) -> Tensor:
        """Return the noise levels of a call in float32, (B,).

        The pipeline hands them over in the latents' type: bfloat16 has nothing between 0.992 and 0.996, which is more
        than a step of FLUX's schedule at its beginning.
        """
        if timestep.dtype == torch.float32:
            return timestep
        timesteps: Tensor = self._scheduler.timesteps
        exact = timesteps[self._step].to(timestep.device, torch.float32) / TRAINING_TIMESTEPS
        return exact.expand(timestep.shape)

    def step_ended(self, pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's callback."""
        self._step = index + 1
        self._call_in_step = 0
        return {}
