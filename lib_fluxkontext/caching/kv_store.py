"""Where the references' keys and values are stored: on the device, or in host memory and streamed back.

bfloat16 keys and values of one 1-megapixel reference take 2.7 GiB over FLUX.1's 57 blocks. Where the card has no room
they go to pinned host memory; over PCIe 4 that is a quarter of a second per step, against many seconds of computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import BatchedState, map_tensors
from lib_fluxkontext.caching.prefetch import Prefetcher
from lib_fluxkontext.caching.sample_key import SampleKey
from lib_fluxkontext.errors import is_out_of_memory

Place = Literal["device", "host"]

STREAMED_BLOCKS = 2
"""Blocks whose keys and values are on the device at once when they are streamed from host memory."""


def kv_bytes(tokens: int, hidden_size: int, blocks: int, rows: int, dtype_bytes: int) -> int:
    """Size of all keys and values in bytes.

    Args:
        tokens: of all references.
        hidden_size: channels of a token between blocks.
        blocks: of the transformer.
        rows: images in one model call, both conditionings counted.
        dtype_bytes: bytes of one number.
    """
    return 2 * tokens * hidden_size * blocks * rows * dtype_bytes


@dataclass(frozen=True)
class KVUsage:
    """What the store held during one sampling.

    Attributes:
        peak_bytes: the most at once.
        place: where.
        refreshes: how often a sample's references ran and were stored.
    """

    peak_bytes: int
    place: Place
    refreshes: int


@dataclass(frozen=True)
class KeyValues:
    """One block's keys and values of the reference tokens, (B, …) in the attention's own axes."""

    keys: Tensor
    values: Tensor


class KVStore:
    """Keys and values by block and sample.

    Args:
        place: ``"host"`` streams them back one block ahead, on a CUDA stream of its own.
    """

    def __init__(self, place: Place = "device") -> None:
        self.place: Place = place
        self._blocks: dict[int, BatchedState[KeyValues]] = {}
        self._stored_blocks: dict[SampleKey, int] = {}
        self._peak_bytes = 0
        self._can_pin = True
        self._prefetcher: Prefetcher[KeyValues] = Prefetcher()

    def begin(self, samples: Sequence[SampleKey]) -> None:
        """Announce that all blocks of these samples will be stored anew; ``count`` starts from 0."""
        self._prefetcher.discard()
        self._stored_blocks.update(dict.fromkeys(samples, 0))

    def put(self, block: int, samples: Sequence[SampleKey], keys: Tensor, values: Tensor) -> None:
        """Store a block's keys and values, (B, …) with a row per sample, in place of older ones."""
        rows = self._blocks.setdefault(block, BatchedState())
        new = KeyValues(keys, values)
        old = rows.whole_batch(samples)
        if old is not None and _fits(old.keys, keys) and _fits(old.values, values):
            old.keys.copy_(keys, non_blocking=True)
            old.values.copy_(values, non_blocking=True)
        else:
            rows.drop(samples)  # first, so that old and new are never held together
            rows.put(samples, map_tensors(self._copy, new))
        for sample in samples:
            self._stored_blocks[sample] = self._stored_blocks.get(sample, 0) + 1
        if block + 1 == len(self._blocks):  # the last block known so far: before it there is never more
            self._peak_bytes = max(self._peak_bytes, self.held_bytes)

    def get(self, block: int, samples: Sequence[SampleKey], device: torch.device) -> KeyValues:
        """Return a block's keys and values, and start fetching the next block's."""
        stored = self._blocks[block].get(samples)
        if self.place == "device":
            return stored
        fetched = self._prefetcher.take((block, tuple(samples)), stored, device)
        following = self._blocks.get(block + 1)
        if following is not None and following.has_all(samples):
            self._prefetcher.fetch((block + 1, tuple(samples)), following.get(samples), device)
        return fetched

    def count(self, sample: SampleKey) -> int:
        """Count the blocks of a sample that were stored since ``begin``."""
        return self._stored_blocks.get(sample, 0)

    def drop(self, samples: Sequence[SampleKey]) -> None:
        """Forget some samples."""
        self._prefetcher.discard()
        for rows in self._blocks.values():
            rows.drop(samples)
        for sample in samples:
            self._stored_blocks.pop(sample, None)

    def clear(self) -> None:
        """Forget everything."""
        pinned = self.place == "host" and bool(self._blocks)
        self._prefetcher.discard()
        self._blocks.clear()
        self._stored_blocks.clear()
        if pinned:
            _release_pinned_memory()

    @property
    def held_bytes(self) -> int:
        """Bytes that are stored now."""
        return sum(rows.held_bytes for rows in self._blocks.values())

    @property
    def peak_bytes(self) -> int:
        """The most that was stored at once."""
        return self._peak_bytes

    def _copy(self, tensor: Tensor) -> Tensor:
        """Copy to where it is stored; never a view, which would keep all tokens' keys alive."""
        if self.place == "device" or tensor.device.type == "cpu":
            return tensor.clone(memory_format=torch.contiguous_format)
        return self._allocate_on_host(tensor).copy_(tensor, non_blocking=True)

    def _allocate_on_host(self, like: Tensor) -> Tensor:
        """Allocate pinned memory, or pageable memory (slower to stream) once the system grants no more of that."""
        if self._can_pin:
            try:
                return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._can_pin = False
        return torch.empty(like.shape, dtype=like.dtype)


def _fits(stored: Tensor, new: Tensor) -> bool:
    """Whether the stored tensor can be overwritten; it may be on another device."""
    return stored.shape == new.shape and stored.dtype == new.dtype


def _release_pinned_memory() -> None:
    """Return freed pinned memory to the system, which torch holds until the process ends; torch 2.5 or newer."""
    empty_cache = getattr(torch._C, "_host_emptyCache", None)
    if empty_cache is None or not torch.cuda.is_available():
        return
    with suppress(RuntimeError):  # after a CUDA failure there is nothing left to wait for
        torch.cuda.synchronize()  # only what no copy may still read is released
        empty_cache()
