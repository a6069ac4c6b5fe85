"""Stored tensors as float32: plain numbers, GGUF's blocks, scaled FP8, and what bitsandbytes packed into 4 bits."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_fluxkontext.checkpoints.flux import FOUR_BIT_SUFFIXES
from lib_fluxkontext.checkpoints.gguf import TYPES
from lib_fluxkontext.checkpoints.storage import LAYER_FORMAT, SCALED_FP8
from lib_fluxkontext.convert.source import FIELD, StoredTensor
from lib_fluxkontext.errors import KontextError

PLAIN = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Type → torch's."""

_UNREAD = ("Q8_1", "Q8_K", "NVFP4")
"""What gguf does not read: the first two are of activations, in no file."""

BLOCKS = {kind: (elements, size) for kind, elements, size in TYPES.values() if elements > 1 and kind not in _UNREAD}
"""GGUF's type → elements and bytes of a block."""

SCALES = (".scale_weight", ".weight_scale")
"""How the scale of a scaled FP8 weight is named, in place of ``.weight``: by ComfyUI, and by others."""

_IGNORED = (".scale_input", ".input_scale", LAYER_FORMAT)
"""Beside a scaled weight: about activations, or about how to multiply."""


class DecodedTensor(Protocol):
    """A tensor that can be read as float32.

    Attributes:
        kind: of the stored numbers; ``"NF4"`` and ``"FP4"`` for bitsandbytes'.
        shape: rows first.
    """

    kind: str
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> Tensor:
        """Read rows ``start`` to ``stop``: (rows, …) float32. A number alone is one row."""


class PlainTensor:
    """Numbers as they are, scaled or not.

    Args:
        stored: where they lie.
        scale: to multiply by, of one element or one a row.
    """

    def __init__(self, stored: StoredTensor, scale: StoredTensor | None = None) -> None:
        self._stored = stored
        self.kind = stored.kind
        self.shape = stored.shape
        self._scale = None if scale is None else PlainTensor(scale).all().flatten()

    def rows(self, start: int, stop: int) -> Tensor:
        """See ``DecodedTensor``."""
        dtype = PLAIN[self.kind]
        width = math.prod(self.shape[1:])
        row_bytes = width * dtype.itemsize
        data = self._stored.read(start * row_bytes, stop * row_bytes)
        values = torch.from_numpy(data).view(dtype).float().reshape(-1, *self.shape[1:])
        if self._scale is None:
            return values
        scale = self._scale if self._scale.numel() == 1 else self._scale[start:stop]
        return values * scale.reshape(-1, *(1 for _ in self.shape[1:]))

    def all(self) -> Tensor:
        """Read everything, in its shape."""
        return self.rows(0, self.shape[0] if self.shape else 1).reshape(self.shape)


class BlockTensor:
    """GGUF's quantised blocks.

    Args:
        stored: where they lie.
    """

    def __init__(self, stored: StoredTensor) -> None:
        self._stored = stored
        self.kind = stored.kind
        self.shape = stored.shape

    def rows(self, start: int, stop: int) -> Tensor:
        """See ``DecodedTensor``."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        elements, size = BLOCKS[self.kind]
        row_bytes = math.prod(self.shape[1:]) // elements * size if len(self.shape) > 1 else 0
        if row_bytes:
            data = self._stored.read(start * row_bytes, stop * row_bytes).reshape(stop - start, row_bytes)
            return torch.from_numpy(dequantize(data, GGMLQuantizationType[self.kind])).reshape(-1, *self.shape[1:])
        return torch.from_numpy(dequantize(self._stored.read(), GGMLQuantizationType[self.kind]))[start:stop]


class FourBitTensor:
    """Weights that bitsandbytes packed; read as a whole, because its function takes no part of them.

    Args:
        name: of the packed tensor.
        tensors: all of the file.
        state_name: of the tensor that holds the JSON about it.
    """

    def __init__(self, name: str, tensors: Mapping[str, StoredTensor], state_name: str) -> None:
        self.kind = next(kind for suffix, kind in FOUR_BIT_SUFFIXES.items() if state_name.endswith(suffix))
        self._name = name
        self._packed = tensors[name]
        self._parts = {key: tensors[f"{name}.{key}"] for key in _PARTS if f"{name}.{key}" in tensors}
        self._state: dict[str, Any] = {}  # what the description says, checked
        self.shape = self._check(tensors[state_name])
        self._values: Tensor | None = None

    def _check(self, described: StoredTensor) -> tuple[int, ...]:
        """Return the shape. The library's C code trusts these numbers, so they are checked here."""
        try:
            state = json.loads(described.read().tobytes())
            shape = tuple(int(side) for side in state["shape"])
            size, block = math.prod(shape), int(state["blocksize"])
            nested = "nested_blocksize" in state or "nested_absmax" in self._parts
            blocks = -(-size // block)
            wanted = {"absmax": ("U8" if nested else "F32", blocks), "quant_map": ("F32", 16)}
            self._state = {"quant_type": self.kind.lower(), "blocksize": block, "shape": shape, "dtype": "float32"}
            if nested:
                nested_block = int(state["nested_blocksize"])
                wanted |= {"nested_absmax": ("F32", -(-blocks // nested_block)), "nested_quant_map": ("F32", 256)}
                right = nested_block in _BLOCK_SIZES
                offset = float(state["nested_offset"])
                self._state |= {"nested_blocksize": nested_block, "nested_dtype": "float32", "nested_offset": offset}
            else:
                right = True
            self._parts = {key: self._parts[key] for key in wanted}
            for key, expected in wanted.items():
                part = self._parts[key]
                right = right and (part.kind, math.prod(part.shape)) == expected
            right = right and self._packed.kind == "U8" and self._packed.bytes == -(-size // 2)
            right = right and state["quant_type"] == self.kind.lower() and block in _BLOCK_SIZES and min(shape) > 0
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            right, shape = False, ()
        if not right:
            raise KontextError(f"{self._name[:80]} is no {self.kind} weight that bitsandbytes can unpack", FIELD)
        return shape

    def rows(self, start: int, stop: int) -> Tensor:
        """See ``DecodedTensor``."""
        if self._values is None:
            self._values = self._unpack()
        values = self._values[start:stop]
        if stop == self.shape[0]:  # rows are read in order, and a whole float32 matrix is large
            self._values = None
        return values

    def _unpack(self) -> Tensor:
        functional = bitsandbytes_functional()
        state = dict(self._state)
        for key, stored in self._parts.items():
            data = torch.from_numpy(stored.read())
            state[key] = data if stored.kind == "U8" else data.view(torch.float32)
        quant_state = functional.QuantState.from_dict(state, torch.device("cpu"))
        packed = torch.from_numpy(self._packed.read()).reshape(-1, 1)
        values: Tensor = functional.dequantize_4bit(packed, quant_state)
        return values.reshape(self.shape)


_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
"""What lies beside a packed weight, and its description."""

_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""bitsandbytes'."""


def bitsandbytes_functional() -> Any:
    """Import ``bitsandbytes.functional``.

    Raises:
        ImportError: it is not installed.
    """
    quiet_bitsandbytes()
    from bitsandbytes import functional

    return functional


def quiet_bitsandbytes() -> None:
    """Keep bitsandbytes from recommending a package when it is imported; diffusers imports it where it is installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def decoded(tensors: Mapping[str, StoredTensor]) -> dict[str, DecodedTensor]:
    """Put stored tensors together to the weights that they stand for.

    Args:
        tensors: of one transformer, by name, without prefix.

    Returns:
        The weights by name, without what lies beside a quantised one.

    Raises:
        KontextError: a type that cannot be read, or parts that do not fit together.
    """
    result: dict[str, DecodedTensor] = {}
    used = {name for name in tensors if name == SCALED_FP8 or name.endswith(_IGNORED)}
    four_bit = _four_bit(tensors)
    for name, state_name in four_bit.items():
        if name not in tensors:
            raise KontextError(f"{state_name[:80]} is about a tensor that is not there", FIELD)
    for name in tensors:
        parents = [name[:position] for position, letter in enumerate(name) if letter == "."]
        used.update(name for parent in parents if parent in four_bit)
    for name, stored in tensors.items():
        if name in used or name.endswith(SCALES):
            continue
        if name in four_bit:
            result[name] = FourBitTensor(name, tensors, four_bit[name])
        elif stored.kind in BLOCKS:
            result[name] = _checked(name, BlockTensor(stored))
        elif stored.kind in PLAIN:
            result[name] = PlainTensor(stored, _scale_of(name, stored, tensors))
        else:
            raise KontextError(f"{name[:80]} is stored as {stored.kind[:20]}, which cannot be read", FIELD)
    return result


def _four_bit(tensors: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Return the packed tensors' names, and those of the tensors that describe them."""
    return {
        name.removesuffix(suffix): name for name in tensors for suffix in FOUR_BIT_SUFFIXES if name.endswith(suffix)
    }


def _checked(name: str, tensor: BlockTensor) -> BlockTensor:
    if not tensor.shape or tensor.shape[-1] % BLOCKS[tensor.kind][0]:
        raise KontextError(f"{name[:80]} has rows that are no whole blocks of {tensor.kind}", FIELD)
    return tensor


def _scale_of(name: str, stored: StoredTensor, tensors: Mapping[str, StoredTensor]) -> StoredTensor | None:
    module = name.removesuffix(".weight")
    found = [tensors[module + suffix] for suffix in SCALES if name != module and module + suffix in tensors]
    if not found:
        return None
    scale = found[0]
    count = math.prod(scale.shape)
    if scale.kind not in ("F32", "F16", "BF16") or count not in (1, stored.shape[0] if stored.shape else 1):
        raise KontextError(f"{name[:80]} has a scale that cannot be read: {scale.kind} {list(scale.shape)}", FIELD)
    return scale


def is_packed(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether weights are stored together with what it takes to decode them: 4 bits, or a scale."""
    return bool(_four_bit(tensors)) or any(name.endswith(SCALES) for name in tensors)


def as_array(values: Tensor) -> NDArray[np.uint8]:
    """Return a tensor's bytes."""
    return values.contiguous().flatten().view(torch.uint8).numpy()
