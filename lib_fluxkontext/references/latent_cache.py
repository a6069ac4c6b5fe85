"""Encoded references, cached between generations so that a second seed encodes nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

MAX_BYTES = 64 * 2**20
"""Default bound. A 1-megapixel reference is a 16×128×128 float32 latent, 1 MiB."""


class UncacheableLatent(Exception):
    """Raised by an encoder whose latent serves once, but is not what the same request gives another time.

    Args:
        latent: what was encoded, on tiles for instance, because memory ran out.
    """

    def __init__(self, latent: Tensor) -> None:
        super().__init__("a latent that must not be cached")
        self.latent = latent


class LatentCache:
    """Least recently used latents go first once more than ``max_bytes`` are held. Thread-safe.

    A latent that is larger than the bound serves once and is not cached; a bound of 0 caches nothing.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._latents: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, encode: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """Return the latent of a key; encode it now if it is not cached.

        Returns:
            The latent on the CPU, and whether it was cached. What ``encode`` raises is passed on, and nothing is
            cached.
        """
        with self._lock:
            if key in self._latents:
                self._latents.move_to_end(key)
                return self._latents[key], True
        try:
            latent = encode().detach().to("cpu", copy=True)
        except UncacheableLatent as uncacheable:
            return uncacheable.latent.detach().to("cpu", copy=True), False
        with self._lock:
            if _bytes_of(latent) <= self.max_bytes:
                self._latents[key] = latent
                self._evict()
        return latent, False

    def resize(self, max_bytes: int) -> None:
        """Hold no more than this from now on."""
        with self._lock:
            self.max_bytes = max_bytes
            self._evict()

    def _evict(self) -> None:
        while self.held_bytes > self.max_bytes:
            self._latents.popitem(last=False)

    @property
    def held_bytes(self) -> int:
        """Bytes of all cached latents."""
        return sum(map(_bytes_of, self._latents.values()))

    def __len__(self) -> int:
        return len(self._latents)

    def clear(self) -> None:
        """Forget everything: the checkpoint or the VAE is another one now."""
        with self._lock:
            self._latents.clear()


def _bytes_of(latent: Tensor) -> int:
    return latent.element_size() * latent.nelement()
