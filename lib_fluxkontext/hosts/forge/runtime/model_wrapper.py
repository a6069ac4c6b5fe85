"""One sampling: the wrapper around Forge's model call, what it measured, and letting go of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor, nn

from lib_fluxkontext.caching.sample_key import Stream
from lib_fluxkontext.hooks.model_call import AppendedReferences, ModelCall
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxLayout
from lib_fluxkontext.hosts.forge.runtime.sampler_steps import sampler_step
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.sampling.factory import Caches
from lib_fluxkontext.telemetry.memory import MemoryMeter
from lib_fluxkontext.telemetry.recorder import PassRecorder
from lib_fluxkontext.telemetry.records import PassReport

UNUSED = (
    "It had no effect on this picture: the model never called it. Another extension replaced its hook, or a refiner or "
    "hires checkpoint took over."
)
TAKEN_OVER = "It stopped in the middle: another model took over, a refiner perhaps, and finished without references."
TILED = "Another extension runs the model on tiles: references are given to every tile, steps are not cached."


class SamplingPass:
    """Lives from ``process_before_every_sampling`` to the end of that sampling.

    Args:
        label: name in the report.
        sampler: Forge's sampler of this pass.
        transformer: the one that will run.
        layout: of that transformer.
        image_tokens: tokens of the picture.
        references: encoded, or None.
        caches: what is kept between the steps.
        memory: sampled once a call.
    """

    def __init__(
        self,
        label: str,
        sampler: Any,
        transformer: nn.Module,
        layout: ForgeFluxLayout,
        image_tokens: int,
        references: EncodedReferences | None,
        caches: Caches,
        memory: MemoryMeter,
    ) -> None:
        self.notes: list[str] = []
        self._sampler = sampler
        self._transformer = transformer
        self._layout = layout
        self._image_tokens = image_tokens
        self._encoded = references
        self._references = AppendedReferences(references.tokens) if references else None
        self._caches = caches
        self._recorder = PassRecorder(label, image_tokens, memory)
        self._ordinals: Counter[Hashable] = Counter()
        self._evaluation: int | None = None
        self._evaluations = 0
        self._report: PassReport | None = None

    def wrapper(self, previous: Callable | None) -> Callable[[Callable, dict], Tensor]:
        """A model function wrapper for Forge, around the one that was there.

        A plain closure, because ``clone()`` deep-copies model options and would copy an object with its state.
        """

        def model_function_wrapper(apply_model: Callable, params: dict) -> Tensor:
            if self._report is not None:  # Forge keeps the clone after us; by then there is nothing to attach.
                return _call(previous, apply_model, params)
            call = ModelCall(
                streams=self._streams(params),
                step=sampler_step(self._sampler),
                sigmas=params["timestep"],
                image_tokens=self._image_tokens,
                references=self._references,
                caches=self._caches,
            )
            with self._recorder.call(self._transformer, self._layout, call):
                output = _call(previous, apply_model, params)
            if call.tiled and TILED not in self.notes:
                self.notes.append(TILED)
            return output

        return model_function_wrapper

    def so_far(self) -> tuple[PassReport, int]:
        """What has been measured while sampling goes on, and how many steps there will be."""
        sampler = self._sampler
        steps = int(sampler.model_wrap_cfg.steps or 1) if sampler is not None else 1
        return self._recorder.so_far(), steps

    def release(self) -> PassReport:
        """Sampling is over, by its end or by a failure: hold no tensor and no sampler any more.

        Returns:
            What the pass cost; the same object when called again.
        """
        if self._report is None:
            # Forge's count goes on when another model answers; ours does not.
            if int(self._sampler.model_wrap_cfg.step) > self._evaluations:
                self.notes.append(TAKEN_OVER if self._evaluations else UNUSED)
            encoded = self._encoded
            # Emptied before they are dropped: after a failure Forge keeps the traceback, and its frames hold them.
            key_values = self._caches.finish()
            self.notes.extend(self._caches.notes)
            if self._references is not None:
                self._references.release()
            self._encoded = self._references = self._sampler = self._transformer = None
            self._caches = Caches()
            self._report = self._recorder.report(encoded, self.notes, key_values)
        return self._report

    def _streams(self, params: dict) -> list[Stream]:
        """A key for each row: conditioning mark, ordinal among equal marks, image.

        Forge puts conditionings of one evaluation into one call or several, as memory allows, always in the same
        order; so ordinals (several for an ``AND`` prompt) are counted over all calls of an evaluation.
        """
        evaluation = int(self._sampler.model_wrap_cfg.step)
        if evaluation != self._evaluation:
            self._evaluation = evaluation
            self._evaluations += 1
            self._ordinals.clear()
        marks = params["cond_or_uncond"]
        images = params["input"].shape[0] // len(marks)
        streams: list[Stream] = []
        for mark in marks:
            streams += [(mark, self._ordinals[mark], image) for image in range(images)]
            self._ordinals[mark] += 1
        return streams


def _call(previous: Callable | None, apply_model: Callable, params: dict) -> Tensor:
    if previous is not None:
        return previous(apply_model, params)
    return apply_model(params["input"], params["timestep"], **params["c"])
