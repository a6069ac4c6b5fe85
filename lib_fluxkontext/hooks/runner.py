"""Runs one model call under the caches: which rows run with their references, which on cached ones, which not at all.

Samples of a batch go different ways. Those that need the same are run together:

1. **light**: text and image tokens alone; attention reads the cached keys and values of the references. First Block
   Cache decides here. A sample that it would compute, but whose references are due for a refresh, goes on to 2.
2. **full**: references appended to the image tokens; their keys and values are stored for the steps to come.

Without a reference K/V cache everything is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.reference_kv import NO_ATTENTION, OUT_OF_MEMORY, ReferenceKVCache
from lib_fluxkontext.caching.sample_key import Decision, SampleKey
from lib_fluxkontext.errors import is_out_of_memory
from lib_fluxkontext.hooks.adapter import TransformerAdapter, named_arguments
from lib_fluxkontext.hooks.attention import AttentionHooks, ReadReferenceKV, StoreReferenceKV
from lib_fluxkontext.hooks.block_run import BlockRun
from lib_fluxkontext.hooks.forward import RowForward
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hooks.patch import patched_attr, untraced


@contextmanager
def model_hooks(transformer: nn.Module, adapter: TransformerAdapter, call: ModelCall) -> Iterator[None]:
    """Append the references and apply the caches to what ``transformer`` computes while the context lasts.

    Only the instance's forward and its blocks' are patched, never a class's. With neither references nor cache nothing
    is touched.
    """
    if not call.hooked:
        yield
        return
    name = adapter.forward_name(transformer)
    original = getattr(transformer, name)

    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = named_arguments(original, args, kwargs)
        rows = RowForward(adapter, original, arguments, call.references, adapter.host_reference_tokens(transformer))
        call.obstacle = adapter.obstacle(arguments) if call.caches.active else None
        return ModelCallRunner(adapter, adapter.blocks(transformer), rows, call).run()

    with patched_attr(transformer, name, untraced(forward)):
        yield


@dataclass(frozen=True)
class _Group:
    """Rows that run together, and how.

    Attributes:
        rows: which.
        attention: hooks that store or read the references' keys and values: ``None``, ``"store"`` or ``"read"``.
        reuse_only: rows that First Block Cache may reuse but that must not be computed in this group.
        forced: rows that are computed whatever First Block Cache would decide.
    """

    rows: Sequence[int]
    attention: str | None
    reuse_only: frozenset[int] = frozenset()
    forced: frozenset[int] = frozenset()

    @property
    def references(self) -> bool:
        """Whether the references' tokens run."""
        return self.attention != "read"

    def positions(self, rows: frozenset[int]) -> frozenset[int]:
        """Positions of batch rows in this group."""
        return frozenset(position for position, row in enumerate(self.rows) if row in rows)


class _BlocksSkipped(Exception):
    """The transformer's own forward returned without running its first block."""


class ModelCallRunner:
    """Runs one forward of the transformer.

    Args:
        adapter: of the transformer.
        blocks: its blocks, in order.
        forward: its own forward, on some rows.
        call: references, caches and samples; its counts and decisions are filled in.
    """

    def __init__(
        self, adapter: TransformerAdapter, blocks: Sequence[nn.Module], forward: RowForward, call: ModelCall
    ) -> None:
        self._adapter = adapter
        self._blocks = blocks
        self._forward = forward
        self._call = call
        self._first_block = call.caches.first_block
        self._reference_kv = call.caches.reference_kv
        self._done: dict[int, Tensor] = {}
        self._decisions: dict[int, Decision] = {}

    def run(self) -> Any:
        """Return the forward's output, as the transformer gives it, over the generated image's tokens."""
        call, forward = self._call, self._forward
        call.forwards += 1
        whole = forward.image_tokens == call.image_tokens and forward.batch == len(call.samples)
        if call.forwards > 1 or not whole:
            call.tiled = True
        uncached = call.tiled or call.obstacle is not None
        if uncached:  # a tile's place in the image is not known here, so it cannot own a state
            call.caches.clear()
        if uncached or not call.caches.active:
            return forward.host_output(forward(range(forward.batch), references=True))
        try:
            image = self._image_within_memory()
        except _BlocksSkipped:
            call.skipped = True
            call.caches.clear()
            return forward.host_output(forward(range(forward.batch), references=True))
        decisions = [self._decisions[row] for row in range(forward.batch)]
        call.decisions.extend(decisions)
        if call.caches.correction is not None:
            exact = [not (decision.reuse or decision.cached_references) for decision in decisions]
            image = call.caches.correction.apply(call.samples, call.sigmas, exact, image)
        return forward.host_output(image)

    def _image_within_memory(self) -> Tensor:
        """Compute the image tokens, (B, n, C). Cached references must never be why a generation fails."""
        cache = self._reference_kv
        try:
            return self._image()
        except (RuntimeError, MemoryError) as error:
            if cache is None or not cache.store.held_bytes or not is_out_of_memory(error):
                raise
        cache.disable(OUT_OF_MEMORY)
        if self._first_block is not None:  # what this very step has stored came from the cache that is gone
            self._first_block.clear()
        self._done.clear()
        self._decisions.clear()
        return self._image()

    def _image(self) -> Tensor:
        rows = range(self._forward.batch)
        light = [row for row in rows if self._can_run_light(row)]
        full = [row for row in rows if row not in light]
        refresh = self._run_light(self._reference_kv, light) if light and self._reference_kv is not None else []
        if full or refresh:
            self._run_full(sorted(full + refresh), frozenset(refresh))
        return torch.stack([self._done[row] for row in rows]) if len(rows) > 1 else self._done[0][None]

    def _can_run_light(self, row: int) -> bool:
        sample, step = self._call.samples[row], self._call.step
        if self._reference_kv is None or not self._reference_kv.has(sample):
            return False
        if not self._reference_kv.refresh_due(sample, step):
            return True
        return self._first_block is not None and self._first_block.may_reuse(sample, step)

    def _run_light(self, cache: ReferenceKVCache, rows: Sequence[int]) -> list[int]:
        """Run samples on cached references; return those that must be computed with theirs."""
        step = self._call.step
        due = frozenset(row for row in rows if cache.refresh_due(self._call.samples[row], step))
        computed, unhooked_blocks = self._run_group(_Group(rows, "read", reuse_only=due))
        if unhooked_blocks:  # attention did not come by: these samples have not seen their references
            cache.disable(NO_ATTENTION)
            if self._first_block is not None:
                self._first_block.clear()
            return list(rows)
        for row in computed:
            cache.step_computed(self._call.samples[row], step)
            self._decisions[row] = Decision(False, self._decisions[row].distance, cached_references=True)
        return [row for row in rows if row in due and row not in self._done]

    def _run_full(self, rows: Sequence[int], forced: frozenset[int]) -> None:
        """Run samples with their references, and store those unless nothing will read them."""
        cache, step = self._reference_kv, self._call.step
        if cache is None or cache.disabled or step.last:
            self._run_group(_Group(rows, None, forced=forced))
            return
        cache.begin_refresh(self._samples(rows))
        computed, _ = self._run_group(_Group(rows, "store", forced=forced))
        for row in computed:
            cache.step_refreshed(self._call.samples[row], step, len(self._hooked_blocks(cache)))
        cache.drop(self._samples([row for row in rows if row not in computed]))

    def _run_group(self, group: _Group) -> tuple[list[int], int]:
        """Run the rows of a group, under First Block Cache where there is one.

        Returns:
            The rows that were computed, and how many blocks ran without calling the hooked attention.
        """
        if self._first_block is None:
            output, unhooked = self._run_rows(group, group.rows)
            self._done.update(zip(group.rows, output, strict=True))
            self._decisions.update((row, Decision(False)) for row in group.rows)
            return list(group.rows), unhooked
        run = BlockRun(
            self._adapter,
            self._first_block,
            self._samples(group.rows),
            self._call.step,
            self._sigmas(group.rows),
            self._forward.image_tokens,
            reuse_only=group.positions(group.reuse_only),
            forced=group.positions(group.forced),
        )
        output, unhooked = self._run_rows(group, group.rows, run)
        if not run.decisions:
            raise _BlocksSkipped
        for row, decision in zip(group.rows, run.decisions, strict=True):
            if row not in group.forced:
                self._decisions[row] = decision
        self._done.update((group.rows[position], output[position]) for position in run.finished)
        if run.missing:
            # The run above has finished the others; these go on from the first block's output, so that no block's
            # arguments need slicing.
            missing = [group.rows[position] for position in run.missing]
            resumed = run.resume_missing(torch.tensor(run.missing, device=output.device))
            output, unhooked_later = self._run_rows(group, missing, resumed)
            self._done.update(zip(missing, output, strict=True))
            unhooked += unhooked_later
        return [group.rows[position] for position in run.computed], unhooked

    def _run_rows(self, group: _Group, rows: Sequence[int], run: BlockRun | None = None) -> tuple[Tensor, int]:
        hooks = []
        attention = self._attention_hooks(group.attention, rows)
        if attention is not None and self._reference_kv is not None:
            hooks.append(attention.installed(self._hooked_blocks(self._reference_kv)))
        if run is not None:
            hooks.append(run.installed(self._blocks))
        output = self._forward(rows, group.references, hooks)
        return output, attention.unhooked_blocks if attention is not None else 0

    def _attention_hooks(self, kind: str | None, rows: Sequence[int]) -> AttentionHooks | None:
        cache, references = self._reference_kv, self._forward.reference_tokens
        if cache is None or not references or kind is None:
            return None
        if kind == "store":
            return StoreReferenceKV(self._adapter, cache, self._samples(rows), references)
        return ReadReferenceKV(self._adapter, cache, self._samples(rows))

    def _hooked_blocks(self, cache: ReferenceKVCache) -> Sequence[nn.Module]:
        """Blocks whose references are stored and read."""
        return self._blocks[: cache.config.stored_blocks]

    def _samples(self, rows: Sequence[int]) -> list[SampleKey]:
        return [self._call.samples[row] for row in rows]

    def _sigmas(self, rows: Sequence[int]) -> Tensor:
        return self._call.sigmas if len(rows) == self._forward.batch else self._call.sigmas[list(rows)]
