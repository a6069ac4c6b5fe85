"""Where the references' keys and values are stored: on the device, or in host memory and streamed back.

bfloat16 keys and values of one 1-megapixel reference take 2.7 GiB over FLUX.1's 57 blocks. Where the card has no room
they go to host memory; over PCIe 4 that is a quarter of a second per step, against many seconds of computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import BatchedState, map_tensors
from lib_fluxkontext.caching.host_memory import HostMemory, host_memory_for, may_copy_later
from lib_fluxkontext.caching.key_values import KeyValues, same_shapes
from lib_fluxkontext.caching.prefetch import BUFFER_SETS, Prefetcher
from lib_fluxkontext.caching.sample_key import SampleKey

Place = Literal["device", "host"]

STREAMED_BLOCKS = BUFFER_SETS
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


class KVStore:
    """Keys and values by block and sample.

    Args:
        place: ``"host"`` streams them back one block ahead, on a CUDA stream of its own.
    """

    def __init__(self, place: Place = "device") -> None:
        self.place: Place = place
        self._blocks: _Blocks = _HostBlocks() if place == "host" else _DeviceBlocks()
        self._stored_blocks: dict[SampleKey, int] = {}
        self._peak_bytes = 0

    def begin(self, samples: Sequence[SampleKey]) -> None:
        """Announce that all blocks of these samples will be stored anew; ``count`` starts from 0."""
        self._blocks.begin()
        self._stored_blocks.update(dict.fromkeys(samples, 0))

    def put(self, block: int, samples: Sequence[SampleKey], keys: Tensor, values: Tensor) -> None:
        """Store a block's keys and values, (B, …) with a row per sample, in place of older ones."""
        self._blocks.put(block, samples, KeyValues(keys, values))
        for sample in samples:
            self._stored_blocks[sample] = self._stored_blocks.get(sample, 0) + 1
        self._peak_bytes = max(self._peak_bytes, self.held_bytes)

    def get(self, block: int, samples: Sequence[SampleKey], device: torch.device) -> KeyValues:
        """Return a block's keys and values, (B, …). Queue every reading of them before the next block is asked for."""
        return self._blocks.get(block, samples, device)

    def count(self, sample: SampleKey) -> int:
        """Count the blocks of a sample that were stored since ``begin``."""
        return self._stored_blocks.get(sample, 0)

    def drop(self, samples: Sequence[SampleKey]) -> None:
        """Forget some samples."""
        self._blocks.drop(samples)
        for sample in samples:
            self._stored_blocks.pop(sample, None)

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._stored_blocks.clear()

    @property
    def held_bytes(self) -> int:
        """Bytes that are stored now."""
        return self._blocks.held_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that was stored at once."""
        return self._peak_bytes


class _Blocks(Protocol):
    """Keys and values of all blocks, in one place."""

    held_bytes: int

    def begin(self) -> None: ...
    def put(self, block: int, samples: Sequence[SampleKey], new: KeyValues) -> None: ...
    def get(self, block: int, samples: Sequence[SampleKey], device: torch.device) -> KeyValues: ...
    def drop(self, samples: Sequence[SampleKey]) -> None: ...
    def clear(self) -> None: ...


class _DeviceBlocks:
    """On the device, in the batches they came in."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self._blocks: dict[int, BatchedState[KeyValues]] = {}

    def begin(self) -> None:
        """Nothing is on its way."""

    def put(self, block: int, samples: Sequence[SampleKey], new: KeyValues) -> None:
        rows = self._blocks.setdefault(block, BatchedState())
        old = rows.whole_batch(samples)
        if old is not None and same_shapes(old, new):
            old.keys.copy_(new.keys)
            old.values.copy_(new.values)
            return
        self.held_bytes -= rows.held_bytes
        rows.drop(samples)  # first, so that old and new are never held together
        # Copies, for a view would keep all tokens' keys alive.
        rows.put(samples, map_tensors(lambda tensor: tensor.clone(memory_format=torch.contiguous_format), new))
        self.held_bytes += rows.held_bytes

    def get(self, block: int, samples: Sequence[SampleKey], device: torch.device) -> KeyValues:
        return self._blocks[block].get(samples)

    def drop(self, samples: Sequence[SampleKey]) -> None:
        for rows in self._blocks.values():
            rows.drop(samples)
        self.held_bytes = sum(rows.held_bytes for rows in self._blocks.values())

    def clear(self) -> None:
        self._blocks.clear()
        self.held_bytes = 0


class _HostBlocks:
    """In host memory, an entry for each sample, so that any batch is put together by copies to the device alone."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self._blocks: dict[int, dict[SampleKey, KeyValues]] = {}
        self._memory: HostMemory | None = None
        self._prefetcher = Prefetcher()

    def begin(self) -> None:
        self._prefetcher.discard()

    def put(self, block: int, samples: Sequence[SampleKey], new: KeyValues) -> None:
        entries = self._blocks.setdefault(block, {})
        for row, sample in enumerate(samples):
            own = KeyValues(new.keys[row : row + 1], new.values[row : row + 1])
            entry = entries.get(sample)
            if entry is None or not same_shapes(entry, own):
                self._drop_entry(block, sample)
                entry = entries[sample] = map_tensors(self._allocate, own)
                self.held_bytes += _bytes_of(entry)
            later = may_copy_later(own.keys.device)
            entry.keys.copy_(own.keys, non_blocking=later)
            entry.values.copy_(own.values, non_blocking=later)

    def get(self, block: int, samples: Sequence[SampleKey], device: torch.device) -> KeyValues:
        entries = self._blocks[block]
        fetched = self._prefetcher.take((block, tuple(samples)), [entries[sample] for sample in samples], device)
        following = self._blocks.get(block + 1, {})
        if all(sample in following for sample in samples):
            rows = [following[sample] for sample in samples]
            self._prefetcher.fetch((block + 1, tuple(samples)), rows, device)
        return fetched

    def drop(self, samples: Sequence[SampleKey]) -> None:
        self._prefetcher.discard()
        for block in self._blocks:
            for sample in samples:
                self._drop_entry(block, sample)

    def clear(self) -> None:
        self._prefetcher.release()
        if self._memory is not None:
            self._memory.release()
            self._memory = None
        self._blocks.clear()
        self.held_bytes = 0

    def _drop_entry(self, block: int, sample: SampleKey) -> None:
        entry = self._blocks[block].pop(sample, None)
        if entry is not None:
            self.held_bytes -= _bytes_of(entry)

    def _allocate(self, like: Tensor) -> Tensor:
        if self._memory is None:
            self._memory = host_memory_for(like.device)
        return self._memory.allocate(like)


def _bytes_of(entry: KeyValues) -> int:
    return sum(tensor.element_size() * tensor.nelement() for tensor in (entry.keys, entry.values))
