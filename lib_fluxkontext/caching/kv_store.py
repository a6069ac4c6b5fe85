"""Where kept keys and values lie: on the device, or in host memory and streamed back one block ahead.

bfloat16 keys and values of one 1-megapixel reference take 2.7 GiB over FLUX.1's 57 blocks. Where the card has no room
they go to pinned host memory; over PCIe 4 that is a quarter of a second a step, against many seconds of computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib_fluxkontext.caching.batched_state import StreamRows
from lib_fluxkontext.caching.sample_key import Stream

Place = Literal["device", "host"]

STREAMED_BLOCKS = 2
"""Blocks whose keys and values are on the device at once when they are streamed from host memory."""

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0


def kept_bytes(tokens: int, hidden: int, blocks: int, rows: int, item: int) -> int:
    """Bytes of all keys and values.

    Args:
        tokens: of all references.
        hidden: channels of a token.
        blocks: of the transformer.
        rows: images in one model call, both conditionings counted.
        item: bytes of a number.
    """
    return 2 * tokens * hidden * blocks * rows * item


@dataclass(frozen=True)
class KeptUse:
    """What was kept of the references.

    Attributes:
        peak_bytes: the most that lay there at once.
        place: where.
        refreshes: how often a stream's references ran and were kept.
    """

    peak_bytes: int
    place: Place
    refreshes: int


class KeptLayers:
    """Keys and values by block and stream.

    Args:
        place: ``"host"`` streams them back one block ahead, on a CUDA stream of its own.
        float8: keep 8 bits of each number with a scale for each channel: half of bfloat16's memory, relative error up
            to 6 %.
    """

    def __init__(self, place: Place = "device", float8: bool = False) -> None:
        self.place: Place = place
        self.float8 = float8
        self._layers: dict[int, StreamRows] = {}
        self._fresh: dict[Stream, int] = {}
        self._dtype = torch.float32
        self._peak = 0
        self._pin = True
        self._ahead = _Ahead()

    def begin(self, streams: Sequence[Stream]) -> None:
        """These streams' blocks are about to be kept anew; ``count`` starts from 0."""
        self._ahead.forget()
        self._fresh.update(dict.fromkeys(streams, 0))

    def put(self, layer: int, streams: Sequence[Stream], keys: Tensor, values: Tensor) -> None:
        """Keep a block's keys and values, (B, …) with a row for each stream, in the place of older ones."""
        rows = self._layers.setdefault(layer, StreamRows())
        self._dtype = keys.dtype
        parts = (*self._packed(keys), *self._packed(values))
        older = rows.whole(streams)
        if older is not None and all(map(_alike, older, parts)):
            for there, part in zip(older, parts, strict=True):
                there.copy_(part, non_blocking=True)
        else:
            rows.drop(streams)  # first, so that old and new never lie there together
            rows.put(streams, *(self._placed(part) for part in parts))
        for stream in streams:
            self._fresh[stream] = self._fresh.get(stream, 0) + 1
        if layer + 1 == len(self._layers):  # the last block known so far: nothing is larger before it
            self._peak = max(self._peak, self.held_bytes)

    def get(self, layer: int, streams: Sequence[Stream], device: torch.device) -> tuple[Tensor, Tensor]:
        """A block's keys and values, (B, …), and on the way the next block's."""
        parts = self._layers[layer].get(streams)
        if self.place == "host":
            parts = self._ahead.take((layer, tuple(streams)), parts, device)
            following = self._layers.get(layer + 1)
            if following is not None and all(stream in following for stream in streams):
                self._ahead.fetch((layer + 1, tuple(streams)), following.get(streams), device)
        if not self.float8:
            return parts
        keys, key_scale, values, value_scale = parts
        return keys.to(self._dtype) * key_scale, values.to(self._dtype) * value_scale

    def count(self, stream: Stream) -> int:
        """How many blocks of a stream were kept since ``begin``."""
        return self._fresh.get(stream, 0)

    def drop(self, streams: Sequence[Stream]) -> None:
        """Forget some streams."""
        self._ahead.forget()
        for rows in self._layers.values():
            rows.drop(streams)
        for stream in streams:
            self._fresh.pop(stream, None)

    def clear(self) -> None:
        """Forget everything."""
        pinned = self.place == "host" and bool(self._layers)
        self._ahead.forget()
        self._layers.clear()
        self._fresh.clear()
        if pinned:
            _give_back_pinned()

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept now."""
        return sum(rows.held_bytes for rows in self._layers.values())

    @property
    def peak_bytes(self) -> int:
        """The most that was kept at once."""
        return self._peak

    def _packed(self, one: Tensor) -> tuple[Tensor, ...]:
        """(B, …) as it will be kept: as it is, or as float8 with its scale."""
        if not self.float8:
            return (one,)
        largest = one.abs().amax(dim=tuple(range(1, one.ndim - 1)), keepdim=True).float()
        scale = (largest / FLOAT8_MAX).clamp(min=1e-12).to(one.dtype)
        data = (one / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8)
        return data, scale

    def _placed(self, one: Tensor) -> Tensor:
        """A copy of its own, for a view would keep all tokens' keys alive."""
        if self.place == "device" or one.device.type == "cpu":
            return one.clone(memory_format=torch.contiguous_format)
        return self._host(one).copy_(one, non_blocking=True)

    def _host(self, one: Tensor) -> Tensor:
        """Room in main memory: pinned, or plain where the system gives no more of that, which is slower to stream."""
        if self._pin:
            try:
                return torch.empty(one.shape, dtype=one.dtype, pin_memory=True)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._pin = False
        return torch.empty(one.shape, dtype=one.dtype)


def _give_back_pinned() -> None:
    """Torch holds freed pinned memory, which no other program can use, until it ends. Before 2.5 it has no way back."""
    empty = getattr(torch._C, "_host_emptyCache", None)
    if empty is None or not torch.cuda.is_available():
        return
    with suppress(RuntimeError):  # after a failure of CUDA there is nothing left to wait for
        torch.cuda.synchronize()  # it gives back only what no copy may still read
        empty()


def out_of_memory(error: BaseException) -> bool:
    """Whether a failure says that memory ran out: torch has a type for it on the device, and only words elsewhere."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ("out of memory", "not enough memory", "can't allocate memory"))


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


class _Ahead:
    """The next block's keys and values, on their way to the device."""

    def __init__(self) -> None:
        self._key: object = None
        self._parts: tuple[Tensor, ...] = ()
        self._stream: torch.cuda.Stream | None = None

    def fetch(self, key: object, parts: tuple[Tensor, ...], device: torch.device) -> None:
        """Start copying; on the CPU it is done at once."""
        if key == self._key:
            return
        self._key = key
        if device.type != "cuda":
            self._parts = tuple(one.to(device) for one in parts)
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        # What is copied was written to host memory by the main stream.
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            self._parts = tuple(one.to(device, non_blocking=True) for one in parts)

    def take(self, key: object, parts: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
        """What ``fetch`` began, or ``parts`` copied now."""
        self.fetch(key, parts, device)
        taken = self._parts
        self.forget()
        if self._stream is not None:
            main = torch.cuda.current_stream(device)
            main.wait_stream(self._stream)
            for one in taken:
                one.record_stream(main)
        return taken

    def forget(self) -> None:
        """Let go of what was fetched."""
        self._key, self._parts = None, ()
