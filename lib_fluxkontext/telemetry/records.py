"""A generation's numbers, added up: calls → steps → samplings → the whole. Their names are the report's JSON keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from lib_fluxkontext.caching.first_block import FirstBlockConfig
from lib_fluxkontext.caching.kv_store import KVUsage
from lib_fluxkontext.telemetry.memory import MemoryUse
from lib_fluxkontext.telemetry.spill import nearly_full, step_time_jumped
from lib_fluxkontext.telemetry.working_memory import WorkingMemory


@dataclass(frozen=True)
class CallRecord:
    """One model call.

    Attributes:
        step: sampler step, from 0.
        sigma: noise level of the first image.
        seconds: its length.
        reused: images of this call that were reused.
        images: images in this call; with CFG above 1 both conditionings count.
        distance: largest relative change the cache measured, or None where nothing was compared.
        kept: images of this call that were computed with cached keys and values of the references.
    """

    step: int
    sigma: float
    seconds: float
    reused: int
    images: int
    distance: float | None = None
    kept: int = 0


@dataclass(frozen=True)
class StepRecord:
    """One sampler step: its calls added up. Second-order samplers and split conditionings make several."""

    index: int
    sigma: float
    seconds: float
    calls: int
    reused: int
    images: int
    distance: float | None
    kept: int = 0

    @property
    def kind(self) -> str:
        """``"computed"``, ``"kept"`` (computed, but with cached keys and values of the references), ``"reused"``, or
        ``"mixed"`` where the images of a batch, or the calls of a second-order step, went different ways."""
        if self.reused == self.images:
            return "reused"
        if self.kept == self.images:
            return "kept"
        return "mixed" if self.reused or self.kept else "computed"


@dataclass(frozen=True)
class PassReport:
    """One sampling: a batch, or the hires pass of one. The report's JSON calls it a pass.

    Attributes:
        label: ``"Sampling"``, ``"Batch 1, hires pass"``.
        calls: model calls in order.
        seconds: wall time of the sampling from its first model call on, model calls and all else.
        encode_seconds: time to encode references.
        encoded: references that were encoded for this sampling.
        cached: references whose latent was cached.
        reference_tokens: tokens of each reference, those of the host first.
        host_references: how many of them are the host's own; Forge Neo has some.
        image_tokens: tokens of the picture.
        key_values: what the reference K/V cache held, or None without it.
        working_memory: what it took on the card beside the weights, and what was estimated; None without an estimate.
        notes: what the user should know, one line each.
        first_block: what First Block Cache was told, or None without it.
        noisy_sampler: name of the sampler if it adds noise in every step, else None.
    """

    label: str
    calls: Sequence[CallRecord]
    seconds: float
    encode_seconds: float = 0.0
    encoded: int = 0
    cached: int = 0
    reference_tokens: tuple[int, ...] = ()
    host_references: int = 0
    image_tokens: int = 0
    key_values: KVUsage | None = None
    working_memory: WorkingMemory | None = None
    notes: tuple[str, ...] = ()
    first_block: FirstBlockConfig | None = None
    noisy_sampler: str | None = None

    @property
    def steps(self) -> list[StepRecord]:
        """Calls grouped by sampler step, in order."""
        groups: dict[int, list[CallRecord]] = {}
        for call in self.calls:
            groups.setdefault(call.step, []).append(call)
        return [_step(index, calls) for index, calls in groups.items()]


@dataclass(frozen=True)
class GenerationReport:
    """Everything about one generation: all samplings of all its batches."""

    passes: tuple[PassReport, ...] = ()
    memory: MemoryUse | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def steps(self) -> list[StepRecord]:
        """All steps of all passes, in order."""
        return [step for sampling in self.passes for step in sampling.steps]

    @property
    def computed_seconds(self) -> float | None:
        """Median seconds of a fully computed step, or None if there was none."""
        return _median(self.steps, "computed")

    @property
    def kept_seconds(self) -> float | None:
        """Median seconds of a step computed with cached references, or None if there was none."""
        return _median(self.steps, "kept")

    @property
    def reused_seconds(self) -> float | None:
        """Median seconds of a fully reused step, or None if there was none."""
        return _median(self.steps, "reused")

    @property
    def reused_steps(self) -> int:
        """Steps that were reused for every image."""
        return sum(step.kind == "reused" for step in self.steps)

    @property
    def reused_share(self) -> float:
        """Share of all images' evaluations that were reused, 0 to 1; mixed steps count by their images."""
        images = sum(step.images for step in self.steps)
        return sum(step.reused for step in self.steps) / images if images else 0.0

    @property
    def sampling_seconds(self) -> float:
        """Wall time of all samplings."""
        return sum(sampling.seconds for sampling in self.passes)

    @property
    def speed_up(self) -> float | None:
        """Ratio of the time with every step at the median of its sampling's computed ones to the time they took.

        Counted by sampling, because a hires step costs more than one of the first pass. 1 where nothing was reused:
        what a first step takes longer is no slow-down. None without a computed step in some sampling.
        """
        if self.steps and not any(step.reused or step.kept for step in self.steps):
            return 1.0
        taken = sum(step.seconds for step in self.steps)
        expected = 0.0
        for sampling in self.passes:
            computed = _median(sampling.steps, "computed")
            if computed is None:
                return None
            expected += computed * len(sampling.steps)
        return expected / taken if taken > 0 else None

    @property
    def spill_suspected(self) -> bool:
        """Whether the driver may have moved memory of the card to main memory, by memory or by jumps of step time."""
        if self.memory is None or self.memory.total is None:
            return False
        jumped = any(_time_jumped(sampling.calls) for sampling in self.passes)
        return self.memory.spill_suspected or (jumped and nearly_full(self.memory.held, self.memory.total))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "passes": [
                {
                    "label": sampling.label,
                    "sampling_seconds": sampling.seconds,
                    "encode_seconds": sampling.encode_seconds,
                    "references_encoded": sampling.encoded,
                    "references_kept": sampling.cached,
                    "reference_tokens": list(sampling.reference_tokens),
                    "host_references": sampling.host_references,
                    "image_tokens": sampling.image_tokens,
                    "key_values": asdict(sampling.key_values) if sampling.key_values else None,
                    "working_memory": _working_memory(sampling.working_memory),
                    "notes": list(sampling.notes),
                    "first_block": asdict(sampling.first_block) if sampling.first_block else None,
                    "noisy_sampler": sampling.noisy_sampler,
                    "steps": [asdict(step) | {"kind": step.kind} for step in sampling.steps],
                    "calls": [asdict(call) for call in sampling.calls],
                }
                for sampling in self.passes
            ],
            "computed_step_seconds": self.computed_seconds,
            "kept_step_seconds": self.kept_seconds,
            "reused_step_seconds": self.reused_seconds,
            "reused_steps": self.reused_steps,
            "steps": len(self.steps),
            "reused_share": self.reused_share,
            "sampling_seconds": self.sampling_seconds,
            "speed_up": self.speed_up,
            "memory": asdict(self.memory) | {"spill_suspected": self.spill_suspected} if self.memory else None,
            "notes": list(self.notes),
        }


def _time_jumped(calls: Sequence[CallRecord]) -> bool:
    """Whether a model call took many times as long as others that do the same for as many images."""
    groups: dict[tuple[int, int], list[float]] = {}
    for call in calls:
        if not call.reused:
            groups.setdefault((call.images, call.kept), []).append(call.seconds)
    return any(map(step_time_jumped, groups.values()))


def _working_memory(measured: WorkingMemory | None) -> dict[str, int | None] | None:
    return None if measured is None else asdict(measured) | {"off": measured.off}


def _median(steps: Sequence[StepRecord], kind: str) -> float | None:
    seconds = [step.seconds for step in steps if step.kind == kind]
    return median(seconds) if seconds else None


def _step(index: int, calls: Sequence[CallRecord]) -> StepRecord:
    distances = [call.distance for call in calls if call.distance is not None]
    return StepRecord(
        index=index,
        sigma=calls[0].sigma,
        seconds=sum(call.seconds for call in calls),
        calls=len(calls),
        reused=sum(call.reused for call in calls),
        images=sum(call.images for call in calls),
        distance=max(distances, default=None),
        kept=sum(call.kept for call in calls),
    )
