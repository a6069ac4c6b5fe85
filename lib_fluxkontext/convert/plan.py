"""What an output consists of, from the source's headers alone: every tensor, its type and its size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_fluxkontext.checkpoints.header import SAFETENSORS_BITS
from lib_fluxkontext.checkpoints.storage import SCALED_FP8
from lib_fluxkontext.convert.decode import DecodedTensor, decoded
from lib_fluxkontext.convert.encodings import Encoding, Entry
from lib_fluxkontext.convert.formats import Format
from lib_fluxkontext.convert.keys import (
    Segment,
    bfl_names,
    diffusers_names,
    first_missing,
    segments,
    transformer_layout,
    without_prefix,
)
from lib_fluxkontext.convert.source import FIELD, Source, StoredTensor
from lib_fluxkontext.errors import KontextError

PART_ELEMENTS = 2**20
"""Elements that are encoded at a time: 4 MB in float32, of which bitsandbytes and the check need some ten."""

ROW_MULTIPLE = 64
"""Rows of a part, but for the last: whole blocks of every format, whatever their width."""

MODULATION = "double_blocks.0.img_mod.lin.weight"
"""Chroma and FLUX.2, which have other layers to keep, do without."""

COPY_BYTES = 16 * 2**20


class Addition(Protocol):
    """What is added to weights on the way: LoRAs."""

    def add(self, values: Tensor, name: str, start: int) -> None:
        """Add to rows of a tensor in diffusers' layout, in place; ``start`` is the first of them."""


class Item(Protocol):
    """Tensors of the output that are written together.

    Attributes:
        entries: in the order of their bytes.
    """

    entries: tuple[Entry, ...]

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Return the bytes of all, one after the other, in parts."""


class Copied:
    """A tensor that passes through as it is.

    Args:
        name: of the tensor.
        stored: where it lies.
    """

    def __init__(self, name: str, stored: StoredTensor) -> None:
        self._stored = stored
        self.entries: tuple[Entry, ...] = (Entry(name, stored.kind, stored.shape, stored.bytes),)

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """See ``Item``."""
        for start in range(0, self._stored.bytes, COPY_BYTES):
            yield self._stored.read(start, min(start + COPY_BYTES, self._stored.bytes))


@dataclass(frozen=True)
class Rows:
    """Rows of a source's tensor, and what diffusers calls them: there LoRAs are looked up.

    Attributes:
        tensor: of the source.
        start: the first row.
        stop: the row after the last.
        segment: the same rows in diffusers' layout, or None.
    """

    tensor: DecodedTensor
    start: int
    stop: int
    segment: Segment | None


class Converted:
    """A weight that is encoded anew.

    Args:
        prefix: of its name in the output.
        name: in the original layout.
        shape: rows first.
        rows: what it is put together from, in order.
        encoding: how it is stored.
        additions: what is added to it.
    """

    def __init__(
        self,
        prefix: str,
        name: str,
        shape: tuple[int, ...],
        rows: tuple[Rows, ...],
        encoding: Encoding,
        additions: Iterable[Addition] = (),
    ) -> None:
        self._name = name
        self._shape = shape
        self._rows = rows
        self._encoding = encoding
        self._additions = tuple(additions)
        self.entries = encoding.entries(prefix + name, shape)

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """See ``Item``."""
        return self._encoding.encode(self._name, self._shape, self.values())

    def values(self) -> Iterator[Tensor]:
        """Return the weight in parts of (rows, …) float32."""
        height = self._shape[0] if self._shape else 1
        width = max(1, math.prod(self._shape[1:]))
        step = max(ROW_MULTIPLE, PART_ELEMENTS // width // ROW_MULTIPLE * ROW_MULTIPLE)
        for start in range(0, height, step):
            yield torch.cat(list(self._between(start, min(start + step, height))))

    def _between(self, start: int, stop: int) -> Iterator[Tensor]:
        position = 0
        for rows in self._rows:
            first, last = max(start, position), min(stop, position + rows.stop - rows.start)
            if first < last:
                offset = rows.start - position
                values = rows.tensor.rows(first + offset, last + offset)
                if rows.segment is not None and self._additions:
                    values = values.clone()
                    for addition in self._additions:
                        addition.add(values, rows.segment.name, rows.segment.start + first - position)
                yield values
            position += rows.stop - rows.start


@dataclass(frozen=True)
class Plan:
    """An output.

    Attributes:
        items: in the order of the file.
        shapes: of the weights, by name in diffusers' layout: what a LoRA may be for.
        left_out: tensors of the source that the output has no place for.
        kinds: type → weights stored in it.
    """

    items: tuple[Item, ...]
    shapes: Mapping[str, tuple[int, ...]]
    left_out: int
    kinds: Mapping[str, int]


def make_plan(source: Source, target: Format, additions: Iterable[Addition] = ()) -> Plan:
    """Plan an output.

    Args:
        source: its headers.
        target: format and file.
        additions: what is added on the way.

    Raises:
        KontextError: no FLUX.1, a type that cannot be read, or tensors that contradict each other.
    """
    try:
        prefix, layout = transformer_layout(source.tensors)
        weights = decoded(without_prefix(source.tensors, prefix))
        if layout == "diffusers":
            prefix, outer = "", _beside(source, prefix)
            composed = {name: _fused(name, weights) for name in bfl_names(weights)}
        else:
            if MODULATION not in weights:
                raise KontextError(f"not FLUX.1 but a relative of it: {MODULATION} is missing")
            outer = _beside(source, prefix)
            hidden = _height("img_in", weights)
            composed = {name: _as_it_is(name, tensor, hidden) for name, tensor in weights.items()}
        if (missing := first_missing(composed)) is not None:
            name = missing if layout == "original" else diffusers_names(missing)[0]
            raise KontextError(f"{name} is missing; if this is one file of several, give their index or folder")
    except KontextError as error:
        raise KontextError(error.reason, FIELD) from None
    prefix = "" if target.container == "gguf" else prefix
    kinds: dict[str, int] = {}
    items: list[Item] = []
    for name, (shape, rows) in composed.items():
        if 0 in shape:
            raise KontextError(f"{name} has no elements", FIELD)
        encoding = target.encoding(name, shape, rows[0].tensor.kind)
        kinds[encoding.kind] = kinds.get(encoding.kind, 0) + 1
        items.append(Converted(prefix, name, shape, rows, encoding, additions))
    shapes: dict[str, tuple[int, ...]] = {}
    for shape, rows in composed.values():
        for segment in (row.segment for row in rows if row.segment is not None):
            height = max(segment.stop, shapes.get(segment.name, (0,))[0])
            shapes[segment.name] = (height, *shape[1:])
    if target.container == "gguf":
        return Plan(tuple(items), shapes, len(outer), kinds)
    left_out = 0
    if layout == "diffusers":  # beside it, Forge and ComfyUI expect other names than diffusers' too
        outer, left_out = {}, len(outer)
    if source.is_gguf and (strange := [name for name in outer if outer[name].kind not in SAFETENSORS_BITS]):
        raise KontextError(f"{strange[0]} cannot be copied to a .safetensors file: {outer[strange[0]].kind}", "out")
    items += [Copied(name, stored) for name, stored in outer.items()]
    return Plan(tuple(sorted(items, key=_alignment)), shapes, left_out, kinds)


def _beside(source: Source, prefix: str) -> dict[str, StoredTensor]:
    """Return the tensors beside the transformer, without the one by which ComfyUI marks that it is scaled."""
    marks = {prefix[:end] + SCALED_FP8 for end in range(len(prefix) + 1)}
    return {
        name: stored for name, stored in source.tensors.items() if not name.startswith(prefix) and name not in marks
    }


Composed = tuple[tuple[int, ...], tuple[Rows, ...]]
"""A weight's shape, and what it is put together from."""


def _fused(name: str, weights: Mapping[str, DecodedTensor]) -> Composed:
    """Put a tensor of the original layout together from diffusers'."""
    parts = [weights[part] for part in diffusers_names(name)]
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1 or not all(part.shape for part in parts):
        raise KontextError(f"the parts of {name} have shapes that do not fit together")
    height = sum(part.shape[0] for part in parts)
    wanted = segments(name, height, _height("x_embedder", weights))
    if any(segment.stop > weights[segment.name].shape[0] for segment in wanted):
        raise KontextError(f"the parts of {name} have shapes that do not fit together")
    rows = tuple(Rows(weights[part.name], part.start, part.stop, part) for part in wanted)
    if sum(row.stop - row.start for row in rows) != height:
        raise KontextError(f"the parts of {name} have shapes that do not fit together")
    return (height, *shapes.pop()), rows


def _as_it_is(name: str, tensor: DecodedTensor, hidden: int) -> Composed:
    """Take a tensor of the original layout, and say what diffusers calls its rows."""
    height = tensor.shape[0] if tensor.shape else 1
    rows, position = [], 0
    for segment in segments(name, height, hidden):
        count = segment.stop - segment.start
        if count < 1:
            raise KontextError(f"{name} has {height} rows, which is not FLUX.1's shape")
        rows.append(Rows(tensor, position, position + count, segment))
        position += count
    return tensor.shape, tuple(rows) or (Rows(tensor, 0, height, None),)


def _height(module: str, weights: Mapping[str, DecodedTensor]) -> int:
    for kind in ("weight", "bias"):
        if (tensor := weights.get(f"{module}.{kind}")) is not None and tensor.shape:
            return tensor.shape[0]
    raise KontextError(f"{module}.weight is missing")


def _alignment(item: Item) -> tuple[bool, int]:
    """Sort safetensors, which have no gaps, so that each begins at a multiple of its numbers' size."""
    odd = sum(entry.bytes for entry in item.entries) % 8 != 0
    return odd, -SAFETENSORS_BITS.get(item.entries[0].kind, 8) if odd else 0
