"""What other libraries make of weights in each format that ``convert`` writes: quantised by them, and back."""

from __future__ import annotations

from collections.abc import Callable

import gguf.quants
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

Weights = dict[str, Tensor]


def of_blocks(kind: str) -> Callable[[Tensor], Tensor]:
    """Return gguf's quantisation of a matrix, there and back."""
    number = GGMLQuantizationType[kind]
    return lambda values: torch.from_numpy(
        gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), number), number)
    ).reshape(values.shape)


def of_four_bits(kind: str) -> Callable[[Tensor], Tensor]:
    """Return bitsandbytes' quantisation of a matrix, there and back."""
    import bitsandbytes.functional as functional

    return lambda values: functional.dequantize_4bit(*functional.quantize_4bit(values, quant_type=kind))


REFERENCES: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "Q8_0": ("gguf", of_blocks("Q8_0")),
    "Q5_0": ("gguf", of_blocks("Q5_0")),
    "Q4_0": ("gguf", of_blocks("Q4_0")),
    "Q4_1": ("gguf", of_blocks("Q4_1")),
    "nf4": ("safetensors", of_four_bits("nf4")),
    "fp4": ("safetensors", of_four_bits("fp4")),
    "fp8": ("safetensors", lambda values: values.to(torch.float8_e4m3fn).float()),
    "fp8_e5m2": ("safetensors", lambda values: values.to(torch.float8_e5m2).float()),
    "bf16": ("safetensors", lambda values: values.to(torch.bfloat16).float()),
}
"""What ``convert`` calls a format → the ending of its file, and another library's quantisation, there and back."""


def quantised(weights: Weights, kind: str, everything: bool = False) -> Weights:
    """Return a transformer's weights as a format leaves them, in float32.

    Args:
        weights: in the original layout, float32.
        kind: of ``REFERENCES``.
        everything: also what ``convert`` keeps in 16 bits: some hosts store all weights in one type.
    """
    quantise = REFERENCES[kind][1]
    result = {}
    for name, tensor in weights.items():
        in_blocks, matrix = "_blocks." in name, tensor.ndim == 2
        match kind:
            case "bf16":
                chosen = True
            case "nf4" | "fp4":
                chosen = matrix
            case "fp8" | "fp8_e5m2":
                chosen = everything or (in_blocks and not name.endswith(".scale"))
            case _:
                chosen = in_blocks and matrix
        result[name] = quantise(tensor) if chosen else tensor
    return result
