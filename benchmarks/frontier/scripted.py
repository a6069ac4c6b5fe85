"""Caches that follow a given schedule of steps, so that a model without training costs what a trained one would.

With random weights the first block's change says nothing about a trained model's: a threshold would reuse other steps.
What a step of each kind costs depends on the schedule alone. So the schedule is taken from the trained model, and here
the caches do all their work, measuring included, but decide as it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.kv_store import KVStore
from lib_fluxkontext.caching.reference_kv import ReferenceKVCache, ReferenceKVConfig
from lib_fluxkontext.caching.sample_key import Decision, SampleKey, Step

Schedule = tuple[str, ...]
"""Kind of every step: ``"computed"``, ``"kept"`` (on kept references) or ``"reused"``, as in ``StepRecord.kind``."""

KINDS = ("computed", "kept", "reused")


class ScriptedFirstBlock(FirstBlockCache):
    """First Block Cache that measures as ever and then decides by the schedule."""

    def __init__(self, config: FirstBlockConfig, schedule: Schedule) -> None:
        super().__init__(config)
        self._schedule = schedule

    def decide(
        self, samples: Sequence[SampleKey], step: Step, sigmas: Tensor, first_residual: Tensor
    ) -> list[Decision]:
        measured = super().decide(samples, step, sigmas, first_residual)
        reuse = self._schedule[step.index] == "reused"
        if reuse and any(decision.distance is None for decision in measured):
            raise ValueError(f"step {step.index} cannot be reused under these settings: {' '.join(self._schedule)}")
        return [replace(decision, reuse=reuse) for decision in measured]


class ScriptedReferenceKV(ReferenceKVCache):
    """Reference K/V cache whose references run in the steps that the schedule calls computed."""

    def __init__(self, config: ReferenceKVConfig, store: KVStore, schedule: Schedule) -> None:
        super().__init__(config, store)
        self._schedule = schedule

    def refresh_due(self, sample: SampleKey, step: Step) -> bool:
        kind = self._schedule[step.index]
        if kind == "reused" or not self.has(sample) or self.config.stored_blocks is not None:
            return super().refresh_due(sample, step)
        return kind == "computed"


def scripted(caches: Caches, schedule: Schedule) -> Caches:
    """Make caches with the same settings that follow a schedule.

    Args:
        caches: fresh ones of ``build_caches``.
        schedule: for every step.
    """
    first_block, reference_kv = caches.first_block, caches.reference_kv
    return Caches(
        ScriptedFirstBlock(first_block.config, schedule) if first_block is not None else None,
        ScriptedReferenceKV(reference_kv.config, reference_kv.store, schedule) if reference_kv is not None else None,
        caches.correction,
    )
