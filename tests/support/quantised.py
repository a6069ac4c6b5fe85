"""Quantise weights: to bitsandbytes' NF4 and FP4, to scaled FP8, and to GGUF's Q8_0.

In GGUF's other formats (ggml's ``block_q4_0``, ``block_q4_K`` …) any bits are weights: those files have random ones, as
wide as the weights that they stand for.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.support.random_models import Weights

NF4_CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
FP4_CODE = tuple(
    sign * value for sign in (1, -1) for value in (0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
)  # a sign, two bits of exponent and one of mantissa
FOUR_BIT_CODES = {"nf4": NF4_CODE, "fp4": FP4_CODE}
FOUR_BIT_BLOCK = 64


def four_bit_tensors(name: str, tensor: torch.Tensor, kind: str) -> Weights:
    """Quantise a weight matrix to NF4 or FP4, under the names that bitsandbytes stores it with."""
    code = torch.tensor(FOUR_BIT_CODES[kind])
    blocks = tensor.float().reshape(-1, FOUR_BIT_BLOCK)
    largest = blocks.abs().amax(dim=1)
    order = code.argsort(stable=True)
    middles = (code[order][1:] + code[order][:-1]) / 2
    indices = order[torch.bucketize(blocks / largest[:, None], middles)].flatten().to(torch.uint8)
    state = {"quant_type": kind, "blocksize": FOUR_BIT_BLOCK, "dtype": "float32", "shape": list(tensor.shape)}
    state_bytes = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return {
        name: (indices[0::2] << 4 | indices[1::2])[:, None].contiguous(),
        f"{name}.absmax": largest,
        f"{name}.quant_map": code,
        f"{name}.quant_state.bitsandbytes__{kind}": state_bytes,
    }


def to_four_bit(weights: Weights, kind: str = "nf4") -> Weights:
    """Quantise every matrix to NF4 or FP4 and leave the rest as it is."""
    result: Weights = {}
    for name, tensor in weights.items():
        result.update(four_bit_tensors(name, tensor, kind) if tensor.ndim == 2 else {name: tensor})
    return result


def to_scaled_fp8(weights: Weights) -> Weights:
    """Quantise the blocks' matrices to FP8 with a scale each, as ComfyUI's "fp8_scaled" files have them."""
    result: Weights = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in weights.items():
        if "_blocks." in name and tensor.ndim == 2:
            scale = tensor.abs().max() / torch.finfo(torch.float8_e4m3fn).max
            result[name] = (tensor / scale).to(torch.float8_e4m3fn)
            result[name.removesuffix(".weight") + ".scale_weight"] = scale.float()
        else:
            result[name] = tensor
    return result


GGUF_BLOCKS = {
    "Q4_0": (2, 32, 0, b"", 16, 8.0, 4.6),
    "Q4_1": (3, 32, -1, b"", 16, 7.5, 4.6),
    "Q5_0": (6, 32, 0, b"", 4 + 16, 16.0, 9.2),
    "Q5_1": (7, 32, -1, b"", 4 + 16, 15.5, 9.2),
    "Q4_K": (12, 256, 1, b"\x01" * 8 + b"\x11" * 4, 128, 7.5, 4.6),
    "Q5_K": (13, 256, 1, b"\x01" * 8 + b"\x11" * 4, 32 + 128, 15.5, 9.2),
}
"""ggml's type, weights in a block, the sign of its minimum (subtracted or added; 0 without one), its eight scales and
minima (all 1), bytes of random bits, and the mean and deviation of what they stand for."""

GGUF_TAILS = {
    "Q2_K": (10, [b"\x11" * 16, 64], 1.5, 1.12, True),
    "Q3_K": (11, [32, 64, b"\x11" * 8 + b"\xaa" * 4], -0.5, 2.29, False),
    "Q6_K": (14, [192, b"\x01" * 16], -0.5, 18.5, False),
}
"""ggml's type, what stands before a block's scale (its scales, all 1, or bytes of random bits), mean and deviation of
what the bits stand for, and whether a minimum follows the scale. All have 256 weights in a block."""

GGUF_PLAIN = {"F32": (0, torch.float32), "F16": (1, torch.float16), "BF16": (30, torch.bfloat16)}


def random_blocks(name: str, tensor: torch.Tensor, kind: str) -> bytes:
    """Return random weights of a tensor's shape and deviation in one of GGUF's formats; the same for the same name."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    deviation = float(tensor.float().std())
    if kind in GGUF_TAILS:
        _, parts, mean, spread, minimum_follows = GGUF_TAILS[kind]
        count, step = tensor.numel() // 256, deviation / spread
        tail = np.array([step, step * mean] if minimum_follows else [step], dtype="<f2").tobytes()
        columns = [
            random.integers(0, 256, (count, part), dtype=np.uint8)
            if isinstance(part, int)
            else np.tile(np.frombuffer(part, dtype=np.uint8), (count, 1))
            for part in [*parts, tail]
        ]
        return np.concatenate(columns, axis=1).tobytes()
    _, size, minimum, scales_and_minima, length, mean, spread = GGUF_BLOCKS[kind]
    count = tensor.numel() // size
    bits = random.integers(0, 256, (count, length), dtype=np.uint8)
    step = deviation / spread
    numbers = [step, minimum * step * mean] if minimum else [step]
    head = np.array(numbers, dtype="<f2").tobytes() + scales_and_minima
    heads = np.tile(np.frombuffer(head, dtype=np.uint8), (count, 1))
    return np.concatenate([heads, bits], axis=1).tobytes()


def in_blocks(name: str) -> bool:
    """Return whether a weight of Flux belongs to its blocks."""
    return "_blocks." in name


def write_gguf(
    path: Path,
    weights: Weights,
    kind: str = "Q8_0",
    architecture: str = "flux",
    wanted: Callable[[str], bool] = in_blocks,
) -> None:
    """Write a model as a GGUF file: the matrices whose names are wanted quantised, the rest in 32 bits."""

    def text(value: str) -> bytes:
        encoded = value.encode()
        return struct.pack("<Q", len(encoded)) + encoded

    def q8_0(tensor: torch.Tensor) -> bytes:
        blocks = tensor.float().reshape(-1, 32).numpy()
        scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
        steps = np.rint(blocks / np.where(scales == 0, 1, scales)).astype(np.int8)
        return np.concatenate([scales.astype("<f2").view(np.uint8), steps.view(np.uint8)], axis=1).tobytes()

    def quantised_bytes(name: str, tensor: torch.Tensor) -> bytes:
        if kind in GGUF_PLAIN:
            return tensor.to(GGUF_PLAIN[kind][1]).contiguous().view(torch.uint8).numpy().tobytes()
        return q8_0(tensor) if kind == "Q8_0" else random_blocks(name, tensor, kind)

    alignment = 32
    type_f32, value_text, value_u32 = 0, 8, 4
    numbers = {name: one[0] for table in (GGUF_BLOCKS, GGUF_TAILS, GGUF_PLAIN) for name, one in table.items()}
    type_quantised = {"Q8_0": 8, **numbers}[kind]
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(weights), 2)
    header += text("general.architecture") + struct.pack("<I", value_text) + text(architecture)
    header += text("general.alignment") + struct.pack("<II", value_u32, alignment)
    data = bytearray()
    for name, tensor in weights.items():
        quantise = wanted(name) and tensor.ndim == 2
        header += text(name) + struct.pack("<I", tensor.ndim)
        header += struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape))
        header += struct.pack("<IQ", type_quantised if quantise else type_f32, len(data))
        if not quantise:
            data += tensor.float().numpy().tobytes()
        else:
            data += quantised_bytes(name, tensor)
        data += bytes(-len(data) % alignment)
    header += bytes(-len(header) % alignment)
    path.write_bytes(header + bytes(data))
