"""Every encoding is its reference implementation's, and what is further off than the format allows is found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bitsandbytes.functional as bitsandbytes
import gguf.quants
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from lib_fluxkontext.convert.decode import BLOCKS, PLAIN
from lib_fluxkontext.convert.encodings import BLOCK_BOUNDS, Blocks, Encoding, FourBit, Plain
from lib_fluxkontext.errors import KontextError

SHAPE = (192, 96)
NUMBERS = ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]


def random_rows(scale: float = 0.05, seed: int = 0) -> Tensor:
    """Return weights with what is hard: zeros, a lone value, two of opposite sign, a constant block."""
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) * scale
    values[0] = 0
    values[1, 32:64] = 0
    values[1, 40] = scale
    values[2, :32] = 0
    values[2, 3], values[2, 4] = 3 * scale, -3 * scale
    values[3] = scale
    values[4, :32] = values[4, :32].abs() + 50 * scale
    return values


def encoded(encoding: Encoding, values: Tensor, *, parts: int = 1) -> bytes:
    """Return the bytes of all of an encoding's tensors."""
    rows: Iterator[Tensor] = iter(values.chunk(parts))
    return b"".join(chunk.tobytes() for chunk in encoding.encode("double_blocks.0.w", tuple(values.shape), rows))


@pytest.mark.parametrize("kind", BLOCK_BOUNDS)
@pytest.mark.parametrize("scale", [1e-12, 1e-7, 1e-4, 0.05, 1.0, 300.0])
def test_blocks_are_ggufs_own_and_within_their_bound(kind: str, scale: float) -> None:
    values = random_rows(scale)
    assert encoded(Blocks(kind), values) == gguf.quants.quantize(values.numpy(), GGMLQuantizationType[kind]).tobytes()


@pytest.mark.parametrize("kind", BLOCK_BOUNDS)
def test_the_bound_of_blocks_is_nearly_reached(kind: str) -> None:
    """A bound far above what happens would find nothing."""
    values = random_rows(seed=3)
    number = GGMLQuantizationType[kind]
    decoded = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), number), number))
    blocks = values.reshape(-1, 32)
    used = (decoded.reshape(-1, 32) - blocks).abs() / BLOCK_BOUNDS[kind](blocks)
    assert 0.8 < float(used.max()) <= 1


@pytest.mark.parametrize("kind", ["NF4", "FP4"])
@pytest.mark.parametrize("scale", [1e-7, 0.05, 300.0])
def test_four_bits_are_bitsandbytes_own(kind: str, scale: float) -> None:
    values = random_rows(scale)
    packed, state = bitsandbytes.quantize_4bit(values, quant_type=kind.lower(), compress_statistics=False)
    encoding = FourBit(kind, "bfloat16")
    data, start, found = encoded(encoding, values, parts=3), 0, {}
    for entry in encoding.entries("w", SHAPE):
        found[entry.name] = data[start : start + entry.bytes]
        start += entry.bytes
    assert start == len(data)
    assert found["w"] == packed.numpy().tobytes()
    assert found["w.absmax"] == state.absmax.numpy().tobytes()
    assert found["w.quant_map"] == state.code.numpy().tobytes()
    tensors = {name.removeprefix("w."): torch.tensor(list(found[name])) for name in found}
    tensors = {name: tensor.to(torch.uint8) for name, tensor in tensors.items() if name != "w"}
    for name in ("absmax", "quant_map"):
        tensors[name] = tensors[name].view(torch.float32)
    read = bitsandbytes.QuantState.from_dict(tensors, torch.device("cpu"))
    assert (read.shape, read.dtype, read.blocksize, read.quant_type) == (SHAPE, torch.bfloat16, 64, kind.lower())
    assert len(data) % 8 == 0, "the next tensor would not be aligned"


@pytest.mark.parametrize("kind", ["NF4", "FP4"])
@pytest.mark.parametrize("scale", [1e-45, 1e-42, 5e-39, 1e-38])
def test_blocks_that_are_subnormal_become_0(kind: str, scale: float) -> None:
    """BF16 and float32 have numbers whose reciprocal is infinite; a block of them is no reason to refuse a file."""
    values = random_rows()
    values[1, :32] = values[2, 5:] = 0  # row 0 is 0, too; these are parts of blocks
    wanted = encoded(FourBit(kind, "bfloat16"), values)
    values[0], values[1, :32], values[2, 5:] = scale, -scale, scale
    assert encoded(FourBit(kind, "bfloat16"), values) == wanted


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 0.05, 2.0])
def test_numbers_are_torchs(kind: str, scale: float) -> None:
    values = random_rows(scale)
    assert encoded(Plain(kind), values) == values.to(PLAIN[kind]).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    "encoding", [Blocks("Q5_0"), FourBit("NF4", "float16"), Plain("F8_E4M3")], ids=lambda e: e.kind
)
def test_parts_give_the_bytes_of_the_whole(encoding: Encoding) -> None:
    values = random_rows()
    assert encoded(encoding, values, parts=3) == encoded(encoding, values)


@pytest.mark.parametrize(
    ("encoding", "value"),
    [(Plain("F16"), 65520.0), (Plain("F8_E4M3"), 465.0), (Plain("F8_E5M2"), 62000.0), (Blocks("Q4_0"), 1e6)],
    ids=lambda given: getattr(given, "kind", str(given)),
)
def test_what_is_too_large_is_an_error_that_names_the_tensor(encoding: Encoding, value: float) -> None:
    values = random_rows()
    values[7, 7] = value
    with pytest.raises(KontextError, match=r"double_blocks\.0\.w has the value") as caught:
        encoded(encoding, values)
    assert caught.value.field == "format"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("encoding", [Plain("BF16"), Blocks("Q8_0"), FourBit("NF4", "float32")], ids=lambda e: e.kind)
def test_what_is_no_number_is_an_error(encoding: Encoding, value: float) -> None:
    values = random_rows()
    values[7, 7] = value
    with pytest.raises(KontextError, match=r"double_blocks\.0\.w has values that are infinite"):
        encoded(encoding, values)


def test_a_quantiser_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gguf.quants.quantize

    def wrong(values: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
        stored: np.ndarray = right(values, kind).copy()
        stored[100, 10] ^= 0x40  # one weight of 18,432
        return stored

    monkeypatch.setattr(gguf.quants, "quantize", wrong)
    with pytest.raises(KontextError, match="further off in Q8_0 than that format allows"):
        encoded(Blocks("Q8_0"), random_rows())


def test_four_bits_that_are_wrong_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = bitsandbytes.quantize_4bit

    def wrong(*arguments: Any, **options: Any) -> tuple[Tensor, Any]:
        packed, state = right(*arguments, **options)
        packed[1000] ^= 0x80  # the code half the table away
        return packed, state

    monkeypatch.setattr(bitsandbytes, "quantize_4bit", wrong)
    with pytest.raises(KontextError, match="further off in NF4 than that format allows"):
        encoded(FourBit("NF4", "float32"), random_rows())


def test_every_block_type_that_is_read_is_known_to_gguf() -> None:
    for kind, (elements, size) in BLOCKS.items():
        zeros = np.zeros((2, size), np.uint8)
        assert gguf.quants.dequantize(zeros, GGMLQuantizationType[kind]).shape == (2, elements)
