"""What is kept between generations, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedCache(Generic[T]):
    """The least recently used values go first once more than ``max_bytes`` are held. Not thread-safe.

    A value that is larger than the bound is not kept; a bound of 0 keeps nothing.

    Args:
        max_bytes: bound of all values.
        bytes_of: tells how large a value is, always the same for the same.
    """

    def __init__(self, max_bytes: int, bytes_of: Callable[[T], int]) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        """Bytes of all values."""
        self._bytes_of = bytes_of
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """Return a value and count it as used, or None where it is not kept."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value, in place of one with the same key."""
        self._drop(key)
        size = self._bytes_of(value)
        if size > self.max_bytes:
            return
        self._values[key] = value
        self.held_bytes += size
        self._evict()

    def resize(self, max_bytes: int) -> None:
        """Hold no more than this from now on."""
        self.max_bytes = max_bytes
        self._evict()

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def _evict(self) -> None:
        while self.held_bytes > self.max_bytes:
            self._drop(next(iter(self._values)))

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self.held_bytes -= self._bytes_of(self._values.pop(key))
