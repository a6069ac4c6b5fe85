"""The set of caches that one sampling uses."""

from __future__ import annotations

from dataclasses import dataclass

from lib_fluxkontext.caching.correction import Correction
from lib_fluxkontext.caching.first_block import FirstBlockCache
from lib_fluxkontext.caching.kv_store import KVUsage
from lib_fluxkontext.caching.reference_kv import ReferenceKVCache


@dataclass(frozen=True)
class Caches:
    """What one sampling keeps between its steps.

    Attributes:
        first_block: First Block Cache; None computes every step.
        reference_kv: caches the references' keys and values, or None.
        correction: compensates the error of the two, or None.
    """

    first_block: FirstBlockCache | None = None
    reference_kv: ReferenceKVCache | None = None
    correction: Correction | None = None

    @property
    def active(self) -> bool:
        """Whether any step could be approximate."""
        return self.first_block is not None or self.reference_kv is not None

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        return list(self.reference_kv.notes) if self.reference_kv is not None else []

    def usage(self) -> KVUsage | None:
        """What was cached of the references, for the report."""
        return self.reference_kv.usage() if self.reference_kv is not None else None

    def clear(self) -> None:
        """Forget everything."""
        for cache in (self.first_block, self.reference_kv, self.correction):
            if cache is not None:
                cache.clear()
