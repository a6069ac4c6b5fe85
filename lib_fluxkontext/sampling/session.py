"""One sampling, first model call to last: the only place where references, caches, hooks and recorder meet.

A host opens a session for every sampling, runs each of its model calls inside ``call``, may ask for a ``snapshot`` at
any time from any thread, and closes it when the sampling ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.kv_store import KVUsage
from lib_fluxkontext.caching.sample_key import SampleKey, Step
from lib_fluxkontext.hooks.adapter import TransformerAdapter
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hooks.runner import model_hooks
from lib_fluxkontext.references.encode import EncodedReferences
from lib_fluxkontext.references.tokens import ReferenceAppender
from lib_fluxkontext.sampling.vram import VramEstimate
from lib_fluxkontext.telemetry.clock import measured
from lib_fluxkontext.telemetry.memory import MemoryMeter, MemoryUse
from lib_fluxkontext.telemetry.recorder import CallRecorder, MeasuredCall
from lib_fluxkontext.telemetry.records import PassReport
from lib_fluxkontext.telemetry.working_memory import SHORT_OF_MEMORY, WorkingMemoryMeter

SKIPPED = (
    "Another extension skipped steps itself (Spectrum or another step cache): from there on First Block Cache and "
    "reference reuse stood aside."
)
TILED = "Another extension runs the model on tiles: references are given to every tile, steps are not cached."


@dataclass(frozen=True)
class SessionSnapshot:
    """A sampling in progress.

    Attributes:
        report: of the model calls that have ended; sigmas that a GPU still holds are left out.
        total_steps: sampler steps that there will be.
        memory: peaks up to now.
    """

    report: PassReport
    total_steps: int
    memory: MemoryUse


class SamplingSession:
    """Owns references, caches, hooks and recorder of one sampling.

    Args:
        transformer: the one that will run.
        adapter: of that transformer.
        image_tokens: tokens of the generated image.
        memory: sampled once per model call.
        caches: what is kept between the steps; fresh ones.
        references: encoded, or None.
        label: name of the sampling in the report.
        total_steps: tells how many sampler steps there will be; called from ``snapshot``.
        vram: what this sampling was estimated to need, to be held against what it takes; or None.
        host_reference_tokens: tokens of each reference that the host itself appends, before ours.
        noisy_sampler: name of the sampler if it adds noise in every step, for the report; else None.
    """

    def __init__(
        self,
        transformer: nn.Module,
        adapter: TransformerAdapter,
        image_tokens: int,
        memory: MemoryMeter,
        caches: Caches,
        references: EncodedReferences | None = None,
        label: str = "Sampling",
        total_steps: Callable[[], int] = lambda: 1,
        vram: VramEstimate | None = None,
        host_reference_tokens: tuple[int, ...] = (),
        noisy_sampler: str | None = None,
    ) -> None:
        self._transformer: nn.Module | None = transformer
        self._adapter = adapter
        self._memory = memory
        self._working_memory = WorkingMemoryMeter(memory, vram.working, vram.reserved) if vram else None
        self._caches = caches
        self._references = ReferenceAppender(references.tokens) if references else None
        self._total_steps: Callable[[], int] | None = total_steps
        self._recorder = CallRecorder()
        self._notes: list[str] = []
        self._key_values: KVUsage | None = None
        self._final: PassReport | None = None
        self._closing = False
        self._empty_report = PassReport(
            label=label,
            calls=(),
            seconds=0.0,
            encode_seconds=references.seconds if references else 0.0,
            encoded=references.encoded if references else 0,
            cached=references.cached if references else 0,
            reference_tokens=host_reference_tokens + (references.tokens.counts if references else ()),
            host_references=len(host_reference_tokens),
            image_tokens=image_tokens,
            first_block=caches.first_block.config if caches.first_block else None,
            noisy_sampler=noisy_sampler,
        )

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called: there is nothing to hook any more. True while it waits for the GPU, too."""
        return self._closing

    @property
    def hooks(self) -> bool:
        """Whether it has anything to hook: references of ours, or caches."""
        return self._references is not None or self._caches.active

    @contextmanager
    def call(self, samples: Sequence[SampleKey], step: Step, sigmas: Tensor) -> Iterator[ModelCall]:
        """Run one model call inside: hooks installed, clock running. A call that raises is not counted.

        Args:
            samples: one key per row of the batch.
            step: the sampler step.
            sigmas: (B,) noise levels.

        Raises:
            RuntimeError: the session is closed.
        """
        transformer = self._transformer
        if transformer is None:
            raise RuntimeError("the sampling session is closed")
        call = ModelCall(
            samples=samples,
            step=step,
            sigmas=sigmas,
            image_tokens=self._empty_report.image_tokens,
            references=self._references,
            caches=self._caches,
        )
        self._recorder.start()
        if self._working_memory is not None:
            self._working_memory.start()
        with measured(torch.device(sigmas.device)) as span, model_hooks(transformer, self._adapter, call):
            yield call
        self._recorder.record(MeasuredCall(step.index, sigmas[0], span, len(samples), call.decisions))
        self._memory.sample()
        if self._working_memory is not None:
            self._working_memory.sample()
        if call.tiled:
            self.note(TILED)
        if call.obstacle is not None:
            self.note(call.obstacle)
        if not call.forwards or call.skipped:
            self.stand_aside(SKIPPED)

    def note(self, text: str) -> None:
        """Add a line that the user should know, once."""
        if text not in self._notes:
            self._notes.append(text)

    def stand_aside(self, note: str) -> None:
        """Cache nothing from here on; references go on. Without caches there is nothing to do.

        Args:
            note: why, for the user.
        """
        if self._caches.active:
            self.note(note)
            self._drop_caches()

    def _drop_caches(self) -> None:
        """Let go of the caches, and keep what the report says of them."""
        # Cleared before they are dropped: after a failure the host keeps the traceback, and its frames hold them.
        self._caches.clear()
        for note in self._caches.notes:
            self.note(note)
        self._key_values = self._caches.usage() or self._key_values
        self._caches = Caches()

    def snapshot(self) -> SessionSnapshot:
        """Describe the sampling as it is now. Changes nothing and waits for nothing; from any thread."""
        final, total_steps = self._final, self._total_steps
        report = final or replace(self._empty_report, calls=self._recorder.snapshot(), seconds=self._recorder.seconds)
        steps = total_steps() if total_steps is not None else len(report.steps)
        return SessionSnapshot(report, steps, self._memory.peaks())

    def close(self) -> PassReport:
        """End the sampling: let go of every tensor, and return the final report; the same one when called again.

        Waits for the GPU.
        """
        if self._final is not None:
            return self._final
        self._closing = True
        self._drop_caches()
        if self._references is not None:
            self._references.release()
        self._references = self._transformer = None
        calls, failure = self._recorder.finish()
        if failure is not None:
            self.note(failure)
        working_memory = self._working_memory.result() if self._working_memory is not None else None
        if working_memory is not None and working_memory.short:
            self.note(SHORT_OF_MEMORY)
        self._final = replace(
            self._empty_report,
            calls=calls,
            seconds=self._recorder.seconds,
            key_values=self._key_values,
            working_memory=working_memory,
            notes=tuple(self._notes),
        )
        self._total_steps = None  # last: a snapshot meanwhile still shows the steps as they were
        self._recorder.clear()
        return self._final
