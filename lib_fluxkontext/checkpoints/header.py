"""Tensor tables of safetensors and GGUF files. Only headers are read, and nothing in them is trusted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal

from lib_fluxkontext.checkpoints.gguf import read_gguf
from lib_fluxkontext.errors import KontextError

MAX_HEADER = 25 * 2**20
"""Bytes. FLUX.1's header has about 100 KB; reading more than this would no longer be instant."""

FIELD = "checkpoint"

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


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file.

    Attributes:
        name: as in the file.
        kind: ``"BF16"``, ``"Q8_0"``, …
        shape: rows first, as torch would show it.
        bytes: in the file.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Header:
    """A file's tensor table.

    Attributes:
        format: which kind of file.
        tensors: in the file's order.
        file_bytes: of the whole file.
    """

    format: Literal["safetensors", "GGUF"]
    tensors: tuple[TensorEntry, ...]
    file_bytes: int


def read_header(path: Path) -> Header:
    """Read a checkpoint's tensor table; the content decides the format, not the name.

    Raises:
        KontextError: no such file, neither format, truncated, or a table that contradicts itself.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            if start[:4] == b"GGUF":
                return Header("GGUF", _gguf(file, size), size)
            return Header("safetensors", _safetensors(file, size), size)
    except OSError as error:
        raise KontextError(f"{path.name}: {(error.strerror or 'cannot be read').lower()}", FIELD) from None
    except (ValueError, RecursionError) as error:
        raise KontextError(f"{path.name}: {(str(error).splitlines() or ['not readable'])[0]}", FIELD) from None


def _gguf(file: BinaryIO, size: int) -> tuple[TensorEntry, ...]:
    table, data_start = read_gguf(file, size, MAX_HEADER)
    entries = []
    spans = []
    for name, kind, shape, offset, length in table:
        entries.append(TensorEntry(name, kind, shape, length))
        spans.append((data_start + offset, data_start + offset + length))
    _check_spans(spans, size)
    return tuple(entries)


def _safetensors(file: BinaryIO, size: int) -> tuple[TensorEntry, ...]:
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
    entries, spans = [], []
    for name, entry in table.items():
        if name == "__metadata__":
            continue
        tensor, span = _safetensors_entry(name, entry)
        entries.append(tensor)
        spans.append((8 + length + span[0], 8 + length + span[1]))
    _check_spans(spans, size)
    return tuple(entries)


def _safetensors_entry(name: str, entry: object) -> tuple[TensorEntry, tuple[int, int]]:
    broken = ValueError(f"its header has a broken entry: {name[:60]}")
    if not isinstance(entry, dict):
        raise broken
    kind, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(kind, str) or not _counts(shape) or not _counts(span) or len(span) != 2 or span[0] > span[1]:
        raise broken
    bits = SAFETENSORS_BITS.get(kind)
    if bits is not None and math.prod(shape) * bits != (span[1] - span[0]) * 8:
        raise ValueError(f"its header says {kind} {shape} of {name[:60]}, but gives it {span[1] - span[0]} bytes")
    return TensorEntry(name, kind, tuple(shape), span[1] - span[0]), (span[0], span[1])


def _counts(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**60 for one in value)


def _check_spans(spans: list[tuple[int, int]], size: int) -> None:
    """Every tensor inside the file, and none over another."""
    if not spans:
        raise ValueError("there is no tensor in it")
    ordered = sorted(spans)
    for (_, end), (start, _) in pairwise(ordered):
        if start < end:
            raise ValueError("its header puts two tensors in the same place")
    if ordered[-1][1] > size:
        missing = ordered[-1][1] - size
        raise ValueError(f"cut off: {missing:,} bytes are missing, download it again")
