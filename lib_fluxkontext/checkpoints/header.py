"""Read the tensor tables of safetensors and GGUF files: headers only, and nothing in them is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal, TypeGuard

from lib_fluxkontext.checkpoints.gguf import read_gguf
from lib_fluxkontext.errors import KontextError, first_line

MAX_HEADER = 25 * 2**20
"""Bytes. FLUX.1's header has about 100 KB; reading more than this would no longer be instant."""

FIELD = "checkpoint"
"""The field that errors name."""

SAFETENSORS_BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
}
"""Type → bits per element."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file.

    Attributes:
        name: as in the file.
        kind: ``"BF16"``, ``"Q8_0"``, …
        shape: rows first, as torch would show it.
        bytes: in the file.
        start: its first byte in the file.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int
    start: int = 0


@dataclass(frozen=True)
class Header:
    """A file's tensor table.

    Attributes:
        format: of the file.
        tensors: in the file's order.
        file_bytes: of the whole file.
        metadata: of a safetensors file; the format allows texts alone, which is not checked.
    """

    format: Literal["safetensors", "GGUF"]
    tensors: tuple[TensorEntry, ...]
    file_bytes: int
    metadata: Mapping[str, object] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """Read a checkpoint's tensor table. The content decides the format, not the name.

    Raises:
        KontextError: no such file, neither format, truncated, or a table that contradicts itself.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            if start[:4] == b"GGUF":
                return Header("GGUF", _read_gguf_table(file, size), size)
            tensors, metadata = _read_safetensors_table(file, size)
            return Header("safetensors", tensors, size, metadata)
    except OSError as error:
        raise KontextError(f"{path.name}: {(error.strerror or 'cannot be read').lower()}", FIELD) from None
    except (ValueError, RecursionError) as error:
        raise KontextError(f"{path.name}: {first_line(error)}", FIELD) from None


def _read_gguf_table(file: BinaryIO, size: int) -> tuple[TensorEntry, ...]:
    table, data_start = read_gguf(file, size, MAX_HEADER)
    tensors = tuple(
        TensorEntry(tensor.name, tensor.kind, tensor.shape, tensor.bytes, data_start + tensor.offset)
        for tensor in table
    )
    _check_places(tensors, size)
    return tensors


def _read_safetensors_table(file: BinaryIO, size: int) -> tuple[tuple[TensorEntry, ...], Mapping[str, object]]:
    """Return the tensors and the metadata."""
    if size < 8:
        raise ValueError("neither safetensors nor GGUF: the file is empty or a few bytes long")
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER or 8 + length > size:
        raise ValueError("neither safetensors nor GGUF, or cut off before the end of its header")
    try:
        table = json.loads(file.read(length))
    except UnicodeDecodeError:
        raise ValueError("neither safetensors nor GGUF") from None
    except ValueError:
        raise ValueError("neither safetensors nor GGUF: its header is no JSON") from None
    if not isinstance(table, dict):
        raise ValueError("its header is no table of tensors")
    metadata = table.pop("__metadata__", None)
    tensors = tuple(_parse_safetensors_entry(name, entry, 8 + length) for name, entry in table.items())
    _check_places(tensors, size)
    return tensors, metadata if isinstance(metadata, dict) else {}


def _parse_safetensors_entry(name: str, entry: object, data_start: int) -> TensorEntry:
    broken = ValueError(f"its header has a broken entry: {name[:60]}")
    if not isinstance(entry, dict):
        raise broken
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(kind, str) or not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
        raise broken
    start, end = offsets
    if start > end:
        raise broken
    bits = SAFETENSORS_BITS.get(kind)
    if bits is not None and math.prod(shape) * bits != (end - start) * 8:
        raise ValueError(f"its header says {kind} {shape} of {name[:60]}, but gives it {end - start} bytes")
    return TensorEntry(name, kind, tuple(shape), end - start, data_start + start)


def _is_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(count) is int and 0 <= count < 2**60 for count in value)


def _check_places(tensors: tuple[TensorEntry, ...], size: int) -> None:
    """Check that every tensor lies inside the file and that none overlap."""
    if not tensors:
        raise ValueError("there is no tensor in it")
    ordered = sorted((tensor.start, tensor.start + tensor.bytes) for tensor in tensors)
    for (_, end), (start, _) in pairwise(ordered):
        if start < end:
            raise ValueError("its header puts two tensors in the same place")
    if ordered[-1][1] > size:
        missing = ordered[-1][1] - size
        raise ValueError(f"cut off: {missing:,} bytes are missing, download it again")
