"""Drives a sampling session from Forge's model calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from lib_fluxkontext.caching.sample_key import SampleKey
from lib_fluxkontext.hosts.forge.runtime.protocols import ApplyModel, ModelFunctionWrapper, Sampler, UnetPatcher
from lib_fluxkontext.hosts.forge.runtime.sampler_steps import sampler_step
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.telemetry.records import PassReport

UNUSED = (
    "It had no effect on this picture: the model never called it. Another extension replaced its hook, or a refiner or "
    "hires checkpoint took over."
)
TAKEN_OVER = "It stopped in the middle: another model took over, a refiner perhaps, and finished without references."
STOOD_ASIDE = "Spectrum skips steps itself: First Block Cache and reference reuse stood aside."
COMPILED = "torch.compile was left out while Flux Kontext was at work: it would compile each step anew."


class HookedSampling:
    """A session and the sampler it belongs to, from ``process_before_every_sampling`` to the end of that sampling.

    Args:
        session: open.
        sampler: Forge's, of this sampling.
    """

    def __init__(self, session: SamplingSession, sampler: Sampler) -> None:
        self.session = session
        self._sampler: Sampler | None = sampler
        self._wrapper: ModelFunctionWrapper | None = None
        self._ordinals: Counter[Hashable] = Counter()
        self._evaluation: int | None = None
        self._evaluations = 0
        self._inside_call = False

    def install(self, unet: UnetPatcher) -> None:
        """Wrap the model function of a patcher, around the wrapper that is there. Calling it again changes nothing.

        Some extensions set theirs without calling the one before, so this is called once more when sampling begins.
        """
        previous = unet.model_options.get("model_function_wrapper")
        if self._wrapper is None or previous is not self._wrapper:
            if "spectrum" in str(getattr(previous, "__module__", "")).lower():
                self.session.stand_aside(STOOD_ASIDE)
            self._wrapper = self._wrap(previous)
            unet.set_model_unet_function_wrapper(self._wrapper)

    def _wrap(self, previous: ModelFunctionWrapper | None) -> ModelFunctionWrapper:
        """Make a model function wrapper for Forge.

        A plain closure, because ``clone()`` deep-copies model options and would copy an object with its state.
        """

        def model_function_wrapper(apply_model: ApplyModel, params: dict[str, Any]) -> Tensor:
            sampler = self._sampler
            # Forge keeps the clone after the sampling, when there is nothing to hook; and of two of ours the outer one
            # hooks.
            if sampler is None or self._inside_call:
                return _call_model(previous, apply_model, params)
            samples = self._sample_keys(sampler, params)
            with self.session.call(samples, sampler_step(sampler), params["timestep"]), self._in_call():
                return _call_model(previous, apply_model, params)

        return model_function_wrapper

    @contextmanager
    def _in_call(self) -> Iterator[None]:
        self._inside_call = True
        try:
            yield
        finally:
            self._inside_call = False

    def close(self) -> PassReport:
        """End the sampling: close the session and let go of the sampler. Calling it again changes nothing."""
        if self._sampler is not None:
            # Forge's count goes on when another model answers; ours does not.
            if int(self._sampler.model_wrap_cfg.step) > self._evaluations:
                self.session.note(TAKEN_OVER if self._evaluations else UNUSED)
            self._sampler = None
        self._wrapper = None  # it refers to this object, and no cycle may hold what the wrapper before it holds
        return self.session.close()

    def _sample_keys(self, sampler: Sampler, params: dict[str, Any]) -> list[SampleKey]:
        """Make a key for each row: conditioning mark, ordinal among equal marks, image.

        Forge puts conditionings of one evaluation into one call or several, as memory allows, always in the same
        order; so ordinals (several for an ``AND`` prompt) are counted over all calls of an evaluation.
        """
        evaluation = int(sampler.model_wrap_cfg.step)
        if evaluation != self._evaluation:
            self._evaluation = evaluation
            self._evaluations += 1
            self._ordinals.clear()
        marks = params["cond_or_uncond"]
        images = params["input"].shape[0] // len(marks)
        samples: list[SampleKey] = []
        for mark in marks:
            samples += [(mark, self._ordinals[mark], image) for image in range(images)]
            self._ordinals[mark] += 1
        return samples


def is_compiled(unet: UnetPatcher) -> bool:
    """Whether Neo's torch.compile is on for this model."""
    return getattr(unet.model, "_torch_compile_config", None) is not None


def total_steps(sampler: Sampler) -> int:
    """How many steps Forge's sampler was asked for; 1 before it has begun."""
    return int(sampler.model_wrap_cfg.steps or 1)


def _call_model(previous: ModelFunctionWrapper | None, apply_model: ApplyModel, params: dict[str, Any]) -> Tensor:
    if previous is not None:
        return previous(apply_model, params)
    return apply_model(params["input"], params["timestep"], **params["c"])
