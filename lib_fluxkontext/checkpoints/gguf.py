"""Read GGUF headers, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import math
import struct
from typing import BinaryIO, NamedTuple


class GGUFTensor(NamedTuple):
    """An entry of the tensor table: name, type, shape (rows first), offset in the data and size, both in bytes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


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
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}
"""Type number → name, elements per block, bytes per block (``ggml.h``, ``ggml-common.h``)."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Metadata type number → ``struct`` code."""
_STRING, _ARRAY = 8, 9
MAX_DEPTH = 4
MAX_DIMENSIONS = 8
MAX_ENTRIES = 65536
DEFAULT_ALIGNMENT = 32


class _Reader:
    """Read little-endian values from a header.

    Args:
        file: at its start.
        limit: bytes that the header may have.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._remaining = limit
        self.position = 0

    def read(self, count: int) -> bytes:
        """Read bytes.

        Raises:
            ValueError: beyond the limit, or the end of the file.
        """
        if count > self._remaining:
            raise ValueError("its header says it is larger than the file, or than any honest one")
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("cut off before the end of its header")
        self._remaining -= count
        self.position += count
        return data

    def scalar(self, code: str) -> object:
        """Read a number or a boolean by its ``struct`` code."""
        value: object = struct.unpack(f"<{code}", self.read(struct.calcsize(code)))[0]
        return value

    def uint32(self) -> int:
        """Read an unsigned 32-bit integer."""
        return int.from_bytes(self.read(4), "little")

    def uint64(self) -> int:
        """Read an unsigned 64-bit integer."""
        return int.from_bytes(self.read(8), "little")

    def string(self) -> str:
        """Read a string: its length in bytes, then UTF-8."""
        return self.read(self.uint64()).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> object:
        """Read one metadata value; arrays are skipped and give None.

        Raises:
            ValueError: an unknown type, or arrays nested too deeply.
        """
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth >= MAX_DEPTH:
            raise ValueError(f"its header has a value of an unknown kind ({kind})")
        element_kind, count = self.uint32(), self.uint64()
        if element_kind in _SCALARS:
            self.read(count * struct.calcsize(_SCALARS[element_kind]))
        else:
            for _ in range(count):  # an element takes at least eight bytes, so the limit ends a count that lies
                self.value(element_kind, depth + 1)
        return None


def read_gguf(file: BinaryIO, size: int, max_header: int) -> tuple[list[GGUFTensor], int]:
    """Read the tensor table.

    Args:
        file: at its start.
        size: of the file, in bytes.
        max_header: bytes a header may have.

    Returns:
        The tensors, and where in the file the data begins.

    Raises:
        ValueError: truncated, contradictory or of an unknown version; the message says which.
    """
    reader = _Reader(file, min(size, max_header))
    if reader.read(4) != b"GGUF":
        raise ValueError("not GGUF")
    version = reader.uint32()
    if version not in (2, 3):
        raise ValueError(f"GGUF of version {version}; 2 and 3 are known")
    tensor_count, pair_count = reader.uint64(), reader.uint64()
    if max(tensor_count, pair_count) > MAX_ENTRIES:
        raise ValueError(f"its header counts {max(tensor_count, pair_count):,} entries, more than any honest one")
    alignment = DEFAULT_ALIGNMENT
    for _ in range(pair_count):
        key = reader.string()
        value = reader.value(reader.uint32())
        if key == "general.alignment" and isinstance(value, int) and 0 < value <= 2**20:
            alignment = value
    tensors = [_read_tensor(reader) for _ in range(tensor_count)]
    return tensors, -(-reader.position // alignment) * alignment


def _read_tensor(reader: _Reader) -> GGUFTensor:
    name = reader.string()
    dimensions = reader.uint32()
    if dimensions > MAX_DIMENSIONS:
        raise ValueError(f"its header gives {name[:60]} {dimensions} dimensions")
    shape = tuple(reversed([reader.uint64() for _ in range(dimensions)]))
    number, offset = reader.uint32(), reader.uint64()
    if number not in TYPES:
        raise ValueError(f"its header gives {name[:60]} the unknown type {number}")
    kind, block_elements, block_bytes = TYPES[number]
    return GGUFTensor(name, kind, shape, offset, math.prod(shape) // block_elements * block_bytes)
