"""Copy the next block's keys and values from host memory while the current block computes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import torch

from lib_fluxkontext.caching.batched_state import map_tensors, tensors_of

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Holds one state on its way to the device, on a CUDA stream of its own."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._fetched: T | None = None
        self._stream: torch.cuda.Stream | None = None

    def fetch(self, key: Hashable, state: T, device: torch.device) -> None:
        """Start copying; on the CPU it is done at once.

        Args:
            key: names the state; asking again for the same one does nothing.
            state: a dataclass of tensors in host memory.
            device: where they are needed.
        """
        if key == self._key:
            return
        self._key = key
        if device.type != "cuda":
            self._fetched = map_tensors(lambda tensor: tensor.to(device), state)
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        # What is copied was written to host memory by the main stream.
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            self._fetched = map_tensors(lambda tensor: tensor.to(device, non_blocking=True), state)

    def take(self, key: Hashable, state: T, device: torch.device) -> T:
        """Return what ``fetch`` began to copy, or copy ``state`` now."""
        self.fetch(key, state, device)
        fetched = self._fetched
        assert fetched is not None  # fetch has just set it
        self.discard()
        if self._stream is not None:
            main = torch.cuda.current_stream(device)
            main.wait_stream(self._stream)
            for tensor in tensors_of(fetched):
                tensor.record_stream(main)
        return fetched

    def discard(self) -> None:
        """Let go of what was fetched."""
        self._key, self._fetched = None, None
