"""Encoded references, cached between generations so that a second seed encodes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from torch import Tensor

from lib_fluxkontext.bounded_cache import BoundedCache

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
    """A ``BoundedCache`` of latents that threads may share.

    A latent that is larger than the bound serves once and is not cached.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._latents: BoundedCache[Tensor] = BoundedCache(max_bytes, lambda latent: latent.nbytes)
        self._lock = threading.Lock()

    def get(self, key: Hashable, encode: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """Return the latent of a key; encode it now if it is not cached.

        Returns:
            The latent on the CPU, and whether it was cached. What ``encode`` raises is passed on, and nothing is
            cached.
        """
        with self._lock:
            cached = self._latents.get(key)
        if cached is not None:
            return cached, True
        try:
            latent = encode().detach().to("cpu", copy=True)
        except UncacheableLatent as uncacheable:
            return uncacheable.latent.detach().to("cpu", copy=True), False
        with self._lock:
            self._latents.put(key, latent)
        return latent, False

    def resize(self, max_bytes: int) -> None:
        """Hold no more than this from now on."""
        with self._lock:
            self._latents.resize(max_bytes)

    @property
    def held_bytes(self) -> int:
        """Bytes of all cached latents."""
        return self._latents.held_bytes

    def __len__(self) -> int:
        return len(self._latents)

    def clear(self) -> None:
        """Forget everything: the checkpoint or the VAE is another one now."""
        with self._lock:
            self._latents.clear()
