"""GGUF headers, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

Entry = tuple[str, str, tuple[int, ...], int, int]
"""Name, type, shape (rows first), offset in the data, bytes."""

TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    30: ("BF16", 1, 2),
}
"""Number → name, numbers in a block, bytes of a block (``ggml.h``, ``ggml-common.h``)."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
MAX_DEPTH = 4
MAX_DIMENSIONS = 8
MAX_ENTRIES = 65536
DEFAULT_ALIGNMENT = 32


class _Reader:
    """Reads little-endian values and refuses to read past what the header may take."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > self._left:
            raise ValueError("its header says it is larger than the file, or than any honest one")
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("cut off before the end of its header")
        self._left -= count
        self.position += count
        return data

    def number(self, code: str) -> int:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> object:
        """One metadata value; arrays are skipped over, their numbers are nobody's business here."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth >= MAX_DEPTH:
            raise ValueError(f"its header has a value of an unknown kind ({kind})")
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[inner]))
        else:
            for _ in range(count):  # each takes at least eight bytes, so the limit ends a count that lies
                self.value(inner, depth + 1)
        return None


def read_gguf(file: BinaryIO, size: int, max_header: int) -> tuple[list[Entry], int]:
    """The tensor table, and where the data begins.

    Args:
        file: at its start.
        size: of the file, in bytes.
        max_header: bytes a header may take.

    Raises:
        ValueError: truncated, contradictory or of an unknown version; the message says which.
    """
    reader = _Reader(file, min(size, max_header))
    if reader.take(4) != b"GGUF":
        raise ValueError("not GGUF")
    version = reader.number("I")
    if version not in (2, 3):
        raise ValueError(f"GGUF of version {version}; 2 and 3 are known")
    tensors, pairs = reader.number("Q"), reader.number("Q")
    if max(tensors, pairs) > MAX_ENTRIES:
        raise ValueError(f"its header counts {max(tensors, pairs):,} entries, more than any honest one")
    alignment = DEFAULT_ALIGNMENT
    for _ in range(pairs):
        key = reader.text()
        value = reader.value(reader.number("I"))
        if key == "general.alignment" and isinstance(value, int) and 0 < value <= 2**20:
            alignment = value
    entries = [_entry(reader) for _ in range(tensors)]
    return entries, -(-reader.position // alignment) * alignment


def _entry(reader: _Reader) -> Entry:
    name = reader.text()
    dimensions = reader.number("I")
    if dimensions > MAX_DIMENSIONS:
        raise ValueError(f"its header gives {name[:60]} {dimensions} dimensions")
    shape = tuple(reversed([reader.number("Q") for _ in range(dimensions)]))
    number, offset = reader.number("I"), reader.number("Q")
    if number not in TYPES:
        raise ValueError(f"its header gives {name[:60]} the unknown type {number}")
    kind, block, block_bytes = TYPES[number]
    return name, kind, shape, offset, math.prod(shape) // block * block_bytes
