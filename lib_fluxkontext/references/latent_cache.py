"""Encoded references, kept between generations so that a second seed encodes nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor


class UncacheableLatent(Exception):
    """Raised by an encoder whose latent will do this once, but is not what the same request gives another time.

    Args:
        latent: what was encoded, on tiles for instance, because memory ran out.
    """

    def __init__(self, latent: Tensor) -> None:
        super().__init__("a latent that must not be kept")
        self.latent = latent


MAX_BYTES = 64 * 2**20


class LatentCache:
    """Least recently used latents go first once more than ``max_bytes`` are held. Safe for several threads.

    A 1-megapixel reference is a 16×128×128 float32 latent, 1 MiB. One that is larger than the bound serves once and
    is not kept; a bound of 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, encode: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """The latent under ``key``, encoded now if need be.

        Returns:
            The latent on the CPU, and whether it was already there. What ``encode`` raises is passed on, and
            nothing is kept.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key], True
        try:
            latent = encode().detach().to("cpu", copy=True)
        except UncacheableLatent as makeshift:
            return makeshift.latent.detach().to("cpu", copy=True), False
        with self._lock:
            if latent.element_size() * latent.nelement() <= self.max_bytes:
                self._entries[key] = latent
                self._trim()
        return latent, False

    def resize(self, max_bytes: int) -> None:
        """Hold no more than this from now on."""
        with self._lock:
            self.max_bytes = max_bytes
            self._trim()

    def _trim(self) -> None:
        while self.held_bytes > self.max_bytes:
            self._entries.popitem(last=False)

    @property
    def held_bytes(self) -> int:
        """Bytes of all kept latents."""
        return sum(latent.element_size() * latent.nelement() for latent in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything: the checkpoint or the VAE is another one now."""
        with self._lock:
            self._entries.clear()
