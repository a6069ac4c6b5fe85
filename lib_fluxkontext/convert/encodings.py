"""How a tensor is stored: float32 rows → bytes, each row decoded again and compared with what it was.

The quantisers are gguf's (https://github.com/ggml-org/llama.cpp/tree/master/gguf-py) and bitsandbytes'. How far a value
may be off follows from each format's definition; |w| is the largest magnitude in the value's block. A scale stored in
float16 is off by 2⁻¹¹ of itself, or by 2⁻²⁵ where it is subnormal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib_fluxkontext.convert.decode import BLOCKS, PLAIN, as_array, bitsandbytes_functional
from lib_fluxkontext.errors import KontextError

Bytes = NDArray[np.uint8]

HALF_ULP_16, SUBNORMAL_16 = 2.0**-11, 2.0**-25
"""Float16's rounding: of a normal number, relative; of a subnormal one, absolute."""

FLOAT32_SLACK = 2.0**-20
"""Of |w|: what the quantisers' own arithmetic in float32 may add."""


SMALLEST_NORMAL = 2.0**-126
"""Float32's."""


@dataclass(frozen=True)
class Entry:
    """A tensor of the output.

    Attributes:
        name: as in the file.
        kind: as the file's header calls it, ``"BF16"``, ``"Q8_0"``, ``"U8"``, …
        shape: as the header gives it.
        bytes: in the file.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int


class Encoding(Protocol):
    """How a tensor is stored.

    Attributes:
        kind: the type, as the reports call it.
    """

    kind: str

    def entries(self, name: str, shape: tuple[int, ...]) -> tuple[Entry, ...]:
        """Return the output's tensors for one weight, in the order in which ``encode`` gives their bytes."""

    def encode(self, name: str, shape: tuple[int, ...], rows: Iterable[Tensor]) -> Iterator[Bytes]:
        """Encode a weight that comes in parts of (rows, …) float32.

        Raises:
            KontextError: not finite, out of the format's range, or further off than the format allows.
        """


class Plain:
    """Numbers as they are, rounded.

    Args:
        kind: a key of ``PLAIN``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._dtype = PLAIN[kind]

    def entries(self, name: str, shape: tuple[int, ...]) -> tuple[Entry, ...]:
        """See ``Encoding``."""
        return (Entry(name, self.kind, shape, math.prod(shape) * self._dtype.itemsize),)

    def encode(self, name: str, shape: tuple[int, ...], rows: Iterable[Tensor]) -> Iterator[Bytes]:
        """See ``Encoding``."""
        for values in rows:
            check_finite(name, values)
            largest = float(values.abs().max()) if values.numel() else 0.0
            stored = values.to(self._dtype)
            if not bool(torch.isfinite(stored.float()).all()) or largest > self._range():
                most = torch.finfo(self._dtype).max
                raise KontextError(f"{name} has the value {largest:g}: {self.kind} ends at {most:g}", "format")
            check(name, self.kind, values, stored.float(), self.allowed(values))
            yield as_array(stored)

    def _range(self) -> float:
        """Return the largest magnitude that is rounded, and not cut, to the largest of the format."""
        info = torch.finfo(self._dtype)
        return info.max + 2.0 ** math.floor(math.log2(info.max)) * info.eps / 2

    def allowed(self, values: Tensor) -> Tensor:
        """Return the largest error of each value: half a unit in the last place."""
        info = torch.finfo(self._dtype)
        # tiny · eps is the distance of subnormal numbers
        return (values.abs() * (info.eps / 2)).clamp_min(info.tiny * info.eps / 2)


def _symmetric(steps: float, levels: int) -> Callable[[Tensor], Tensor]:
    """Return the bound of blocks with a scale alone: |w|/steps, and ``levels`` times what the scale is off."""

    def allowed(blocks: Tensor) -> Tensor:
        largest = blocks.abs().amax(-1, keepdim=True)
        return largest * (1 / steps + HALF_ULP_16 + FLOAT32_SLACK) + levels * SUBNORMAL_16

    return allowed


def _with_minimum(levels: int) -> Callable[[Tensor], Tensor]:
    """Return the bound of blocks with scale and minimum: half a step, and what both are off."""

    def allowed(blocks: Tensor) -> Tensor:
        least, most = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
        spread = most - least
        rounding = (spread + least.abs()) * HALF_ULP_16 + (levels + 1) * SUBNORMAL_16
        return spread / (2 * levels) + rounding + torch.maximum(least.abs(), most.abs()) * FLOAT32_SLACK

    return allowed


BLOCK_BOUNDS = {
    "Q8_0": _symmetric(254, 127),  # half of a step of |w|/127
    "Q5_0": _symmetric(16, 16),  # −16 … 15 steps of |w|/16: the far end's opposite is cut by one step
    "Q4_0": _symmetric(8, 8),  # −8 … 7 steps of |w|/8: likewise
    "Q5_1": _with_minimum(31),  # 31 steps from the minimum to the maximum
    "Q4_1": _with_minimum(15),
}
"""GGUF's type → (blocks, elements) float32 → the largest error of each value, (blocks, 1)."""


class Blocks:
    """GGUF's blocks of 32 weights.

    Args:
        kind: a key of ``BLOCK_BOUNDS``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._elements, self._size = BLOCKS[kind]

    def entries(self, name: str, shape: tuple[int, ...]) -> tuple[Entry, ...]:
        """See ``Encoding``."""
        return (Entry(name, self.kind, shape, math.prod(shape) // self._elements * self._size),)

    def encode(self, name: str, shape: tuple[int, ...], rows: Iterable[Tensor]) -> Iterator[Bytes]:
        """See ``Encoding``."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize, quantize

        kind = GGMLQuantizationType[self.kind]
        for values in rows:
            check_finite(name, values)
            with np.errstate(invalid="ignore", over="ignore"):  # a scale beyond float16; the check finds it
                stored = quantize(values.numpy(), kind)
                decoded = torch.from_numpy(dequantize(stored, kind)).reshape(-1, self._elements)
            blocks = values.reshape(-1, self._elements)
            check(name, self.kind, blocks, decoded, BLOCK_BOUNDS[self.kind](blocks))
            yield stored.reshape(-1)


class FourBit:
    """bitsandbytes' NF4 and FP4 in blocks of 64, as Forge's own files have them: scales in float32, not nested.

    Args:
        kind: ``"NF4"`` or ``"FP4"``.
        dtype: that the weights had before, for whoever unpacks them: ``"bfloat16"``, …
    """

    BLOCK = 64
    MULTIPLE = 8
    """Bytes that an output's tensors add up to a multiple of, so that the next one is aligned."""

    def __init__(self, kind: str, dtype: str) -> None:
        self.kind = kind
        self._dtype = dtype

    def entries(self, name: str, shape: tuple[int, ...]) -> tuple[Entry, ...]:
        """See ``Encoding``."""
        blocks, packed = -(-math.prod(shape) // self.BLOCK), -(-math.prod(shape) // 2)
        state = len(self._state(shape))
        return (
            Entry(f"{name}.absmax", "F32", (blocks,), blocks * 4),
            Entry(f"{name}.quant_map", "F32", (16,), 64),
            Entry(name, "U8", (packed, 1), packed),
            Entry(f"{name}.quant_state.bitsandbytes__{self.kind.lower()}", "U8", (state,), state),
        )

    def _state(self, shape: tuple[int, ...]) -> bytes:
        """Return the JSON about a weight; blanks fill it up."""
        state = {"quant_type": self.kind.lower(), "blocksize": self.BLOCK, "dtype": self._dtype, "shape": list(shape)}
        text = json.dumps(state).encode()
        size = math.prod(shape)
        used = -(-size // self.BLOCK) * 4 + 64 + -(-size // 2) + len(text)
        return text + b" " * (-used % self.MULTIPLE)

    def encode(self, name: str, shape: tuple[int, ...], rows: Iterable[Tensor]) -> Iterator[Bytes]:
        """See ``Encoding``. The scales come first in the file, so the packed weights are kept until then."""
        functional = bitsandbytes_functional()
        packed, scales, code = [], [], torch.empty(0)
        for values in rows:
            check_finite(name, values)
            # Its kernel divides by a block's largest magnitude, which overflows where that is subnormal.
            normal = torch.where(values.abs() < SMALLEST_NORMAL, 0.0, values)
            # a part is whole blocks, unless it is the last
            data, state = functional.quantize_4bit(
                normal.reshape(-1), blocksize=self.BLOCK, quant_type=self.kind.lower(), compress_statistics=False
            )
            code = state.code
            decoded = functional.dequantize_4bit(data, state)
            check(name, self.kind, values.reshape(-1), decoded.float(), self.allowed(values.reshape(-1), code))
            packed.append(data)
            scales.append(state.absmax)
        yield as_array(torch.cat(scales).float())
        yield as_array(code.float())
        for data in packed:
            yield as_array(data)
        yield np.frombuffer(self._state(shape), np.uint8)

    def allowed(self, values: Tensor, code: Tensor) -> Tensor:
        """Return the largest error of each value: half of the widest gap between two codes, times |w|.

        What is subnormal in float32 becomes 0.
        """
        gap = float(code.sort().values.diff().max()) / 2
        short = -values.numel() % self.BLOCK
        blocks = torch.nn.functional.pad(values, (0, short)).reshape(-1, self.BLOCK)
        bound = blocks.abs().amax(-1, keepdim=True) * (gap + FLOAT32_SLACK) + SMALLEST_NORMAL
        return bound.expand(-1, self.BLOCK).reshape(-1)[: values.numel()]


def check_finite(name: str, values: Tensor) -> None:
    """Check that a source's values are numbers.

    Raises:
        KontextError: one is infinite or not a number.
    """
    if not bool(torch.isfinite(values).all()):
        raise KontextError(f"{name} has values that are infinite or not a number", "in")


def check(name: str, kind: str, values: Tensor, decoded: Tensor, allowed: Any) -> None:
    """Check that decoded values are as near to the encoded ones as the format allows.

    Raises:
        KontextError: one is not.
    """
    excess = (decoded - values).abs_() - allowed
    if not bool(torch.isfinite(decoded).all()):
        largest = float(values.abs().max())
        raise KontextError(f"{name} has the value {largest:g}, which is too large for {kind}", "format")
    if excess.numel() and float(excess.max()) > 0:
        raise KontextError(
            f"{name} is further off in {kind} than that format allows: {float(excess.max()):g}", "format"
        )
