"""Reference K/V cache: references never change, so their keys and values serve several steps.

On a refresh step all tokens run, and each block's keys (after rotary embedding) and values of the reference tokens are
stored (the first block's alone, where every computed step is a refresh). On the steps between, only text and image
tokens run, and attention reads the stored ones. They are exact at the step that stored them; later they are stale by
what the references' own tokens would have changed.

RegionE (Chen et al., arXiv:2510.25590) caches keys and values of one reference of the output's size; here there are
any number, of any size, and First Block Cache works on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lib_fluxkontext.caching.kv_store import KVStore, KVUsage
from lib_fluxkontext.caching.sample_key import SampleKey, Step
from lib_fluxkontext.errors import is_out_of_memory

OUT_OF_MEMORY = "Keys and values of the references did not fit into memory: the other steps computed all tokens."
NO_ATTENTION = "Reference reuse found no attention to hook in this model: all tokens were computed."


@dataclass(frozen=True)
class ReferenceKVConfig:
    """When to run the references.

    Attributes:
        refresh_every: they run in the first step that is computed so many sampler steps after the last refresh, or
            later; 1 or more. Where every step is computed that is one step in so many. Steps that First Block Cache
            reuses count too: cached keys and values grow stale with sigma, not with work done.
        refresh_last: they run in the last sampler step too.
    """

    refresh_every: int
    refresh_last: bool = False

    @property
    def first_block_only(self) -> bool:
        """Whether the references run in every computed step.

        What is cached is then read in the others alone, by the block by which First Block Cache decides on the rest:
        one of 57.
        """
        return self.refresh_every == 1

    @property
    def stored_blocks(self) -> int | None:
        """How many blocks' keys and values are stored, from the first on, or None for all."""
        return 1 if self.first_block_only else None


@dataclass
class _SampleSteps:
    """A sample's last computed step, and the one in which its references ran."""

    computed: int
    refreshed: int


class ReferenceKVCache:
    """Cached keys and values of one sampling's references, by sample.

    When a sample is refreshed depends on its own computed steps alone, so that a batch equals single runs.
    """

    def __init__(self, config: ReferenceKVConfig, store: KVStore) -> None:
        self.config = config
        self.store = store
        self.refreshes = 0
        self.notes: list[str] = []
        self._steps: dict[SampleKey, _SampleSteps] = {}

    @property
    def disabled(self) -> bool:
        """Whether all tokens run from here on."""
        return bool(self.notes)

    def has(self, sample: SampleKey) -> bool:
        """Whether this sample's references are cached."""
        return sample in self._steps

    def refresh_due(self, sample: SampleKey, step: Step) -> bool:
        """Whether the references must run if this step is computed."""
        steps = self._steps.get(sample)
        if steps is None or self.config.first_block_only:
            return True
        if steps.computed == step.index:  # second-order samplers call twice in a step
            return False
        overdue = step.index - steps.refreshed >= self.config.refresh_every
        return overdue or (step.last and self.config.refresh_last)

    def begin_refresh(self, samples: Sequence[SampleKey]) -> None:
        """Announce that the references of these samples will run; what is cached of them is not used any more."""
        for sample in samples:
            self._steps.pop(sample, None)
        self.store.begin(samples)

    def put(self, block: int, samples: Sequence[SampleKey], keys: Tensor, values: Tensor) -> None:
        """Cache one block's keys and values; disable the cache where memory does not suffice.

        Args:
            block: its index among all blocks.
            samples: one key per row.
            keys: (B, …) of the reference tokens alone, after rotary embedding, in the attention's own axes.
            values: likewise.
        """
        if self.disabled:
            return
        try:
            self.store.put(block, samples, keys, values)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.disable(OUT_OF_MEMORY)

    def step_computed(self, sample: SampleKey, step: Step) -> None:
        """Record that a sample's step was computed with cached keys and values."""
        if not self.disabled:
            self._steps[sample].computed = step.index

    def step_refreshed(self, sample: SampleKey, step: Step, blocks: int) -> None:
        """Record that a sample's references ran; disable the cache unless all blocks were stored.

        Args:
            sample: whose.
            step: which.
            blocks: how many blocks there are to store.
        """
        if self.disabled:
            return
        if self.store.count(sample) == blocks:
            self.refreshes += 1
            self._steps[sample] = _SampleSteps(step.index, step.index)
        else:
            self.disable(NO_ATTENTION)

    def drop(self, samples: Sequence[SampleKey]) -> None:
        """Forget some samples."""
        for sample in samples:
            self._steps.pop(sample, None)
        self.store.drop(samples)

    def disable(self, note: str) -> None:
        """Free everything and cache nothing more.

        Args:
            note: why, for the user.
        """
        self.notes.append(note)
        self.clear()

    def clear(self) -> None:
        """Forget every sample."""
        self._steps.clear()
        self.store.clear()

    def usage(self) -> KVUsage:
        """What was cached, for the report."""
        return KVUsage(self.store.peak_bytes, self.store.place, self.refreshes)
