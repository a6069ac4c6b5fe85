"""Quantise weights: to bitsandbytes' NF4, and to GGUF's Q8_0."""

from __future__ import annotations

import json
import struct
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
NF4_BLOCK = 64


def nf4_tensors(name: str, tensor: torch.Tensor) -> Weights:
    """Quantise a weight matrix to NF4, under the names that bitsandbytes stores it with."""
    code = torch.tensor(NF4_CODE)
    blocks = tensor.float().reshape(-1, NF4_BLOCK)
    largest = blocks.abs().amax(dim=1)
    middles = (code[1:] + code[:-1]) / 2
    indices = torch.bucketize(blocks / largest[:, None], middles).flatten().to(torch.uint8)
    state = {"quant_type": "nf4", "blocksize": NF4_BLOCK, "dtype": "float32", "shape": list(tensor.shape)}
    state_bytes = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return {
        name: (indices[0::2] << 4 | indices[1::2])[:, None].contiguous(),
        f"{name}.absmax": largest,
        f"{name}.quant_map": code,
        f"{name}.quant_state.bitsandbytes__nf4": state_bytes,
    }


def to_nf4(weights: Weights) -> Weights:
    """Quantise every matrix to NF4 and leave the rest as it is."""
    result: Weights = {}
    for name, tensor in weights.items():
        result.update(nf4_tensors(name, tensor) if tensor.ndim == 2 else {name: tensor})
    return result


def write_gguf(path: Path, weights: Weights) -> None:
    """Write a transformer as a GGUF file: matrices of the blocks in Q8_0, the rest in 32 bits."""

    def text(value: str) -> bytes:
        encoded = value.encode()
        return struct.pack("<Q", len(encoded)) + encoded

    def q8_0(tensor: torch.Tensor) -> bytes:
        blocks = tensor.float().reshape(-1, 32).numpy()
        scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
        steps = np.rint(blocks / np.where(scales == 0, 1, scales)).astype(np.int8)
        return np.concatenate([scales.astype("<f2").view(np.uint8), steps.view(np.uint8)], axis=1).tobytes()

    alignment = 32
    type_f32, type_q8_0, value_text, value_u32 = 0, 8, 8, 4
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(weights), 2)
    header += text("general.architecture") + struct.pack("<I", value_text) + text("flux")
    header += text("general.alignment") + struct.pack("<II", value_u32, alignment)
    data = bytearray()
    for name, tensor in weights.items():
        quantise = "_blocks." in name and tensor.ndim == 2
        header += text(name) + struct.pack("<I", tensor.ndim)
        header += struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape))
        header += struct.pack("<IQ", type_q8_0 if quantise else type_f32, len(data))
        data += q8_0(tensor) if quantise else tensor.float().numpy().tobytes()
        data += bytes(-len(data) % alignment)
    header += bytes(-len(header) % alignment)
    path.write_bytes(header + bytes(data))
