"""Copy the next block's keys and values from host memory while the current block computes.

Two sets of buffers on the device take turns: one is read by the block that runs, the other is filled for the next. They
are kept and copied into: tensors made anew on a side stream are reused only once the GPU has passed them, and pile up
while the host runs ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

import torch

from lib_fluxkontext.caching.batched_state import map_tensors
from lib_fluxkontext.caching.host_memory import may_copy_later
from lib_fluxkontext.caching.key_values import KeyValues, same_shapes

BUFFER_SETS = 2
"""Blocks whose keys and values are on the device at once."""


class CopyStream(Protocol):
    """Where copies run beside the computation."""

    def wait_for_main(self) -> None:
        """Make later copies wait for all work that the main stream has been given."""

    def copying(self) -> AbstractContextManager[None]:
        """Run copies on this stream while the context lasts."""

    def finish(self) -> None:
        """Make later work of the main stream wait for all copies that this stream has been given."""


class CudaCopyStream:
    """A CUDA stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def wait_for_main(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    @contextmanager
    def copying(self) -> Iterator[None]:
        # The card is made current first: on leaving, the stream's context manager would set up whichever was before.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def finish(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class ImmediateCopies:
    """For devices without streams: a copy is done when it returns."""

    def wait_for_main(self) -> None:
        pass

    @contextmanager
    def copying(self) -> Iterator[None]:
        yield

    def finish(self) -> None:
        pass


def open_copy_stream(device: torch.device) -> CopyStream:
    """Open a stream for copies to a device."""
    return CudaCopyStream(device) if device.type == "cuda" else ImmediateCopies()


class Prefetcher:
    """Fetches one block ahead.

    Args:
        open_stream: opens the stream that copies run on.
    """

    def __init__(self, open_stream: Callable[[torch.device], CopyStream] = open_copy_stream) -> None:
        self._open_stream = open_stream
        self._stream: CopyStream | None = None
        self._buffers: list[KeyValues | None] = [None] * BUFFER_SETS
        self._next = 0
        self._key: Hashable = None
        self._fetched: KeyValues | None = None

    def fetch(self, key: Hashable, rows: Sequence[KeyValues], device: torch.device) -> None:
        """Start copying.

        Args:
            key: names block and samples; asking again for the same ones does nothing.
            rows: for each sample (1, …) in host memory.
            device: where they are needed.
        """
        if key == self._key:
            return
        if self._stream is None:
            self._stream = self._open_stream(device)
        buffers = self._buffer_set(self._stream, rows, device)
        # The main stream has written what is copied, and has read what is overwritten.
        self._stream.wait_for_main()
        later = may_copy_later(device)
        with self._stream.copying():
            for row, sample in enumerate(rows):
                buffers.keys[row : row + 1].copy_(sample.keys, non_blocking=later)
                buffers.values[row : row + 1].copy_(sample.values, non_blocking=later)
        self._key, self._fetched = key, buffers

    def take(self, key: Hashable, rows: Sequence[KeyValues], device: torch.device) -> KeyValues:
        """Return what ``fetch`` began to copy, or copy it now.

        Every reading of it must have been queued before ``fetch`` or ``take`` is called again: they may overwrite it.
        """
        self.fetch(key, rows, device)
        fetched = self._fetched
        self.discard()
        assert fetched is not None  # fetch has just set it
        return fetched

    def discard(self) -> None:
        """Forget what was fetched; the host memory it is copied from may be overwritten after this."""
        self._key, self._fetched = None, None
        if self._stream is not None:
            self._stream.finish()

    def release(self) -> None:
        """Free the buffers, once the copies into them have ended."""
        with suppress(RuntimeError):  # after a CUDA failure there is nothing left to wait for
            self.discard()
        self._buffers = [None] * BUFFER_SETS

    def _buffer_set(self, stream: CopyStream, rows: Sequence[KeyValues], device: torch.device) -> KeyValues:
        index, self._next = self._next, (self._next + 1) % BUFFER_SETS
        buffers = self._buffers[index]
        like = KeyValues(*(tensor.expand(len(rows), *tensor.shape[1:]) for tensor in (rows[0].keys, rows[0].values)))
        if buffers is not None and buffers.keys.device == device and same_shapes(buffers, like):
            return buffers
        stream.finish()  # or what is freed could be given to the main stream while it is still written
        self._buffers[index] = None
        new = map_tensors(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device), like)
        self._buffers[index] = new
        return new
