"""The formats that can be made, and which tensors stay in 16 or 32 bits.

In GGUF it is what city96's files keep (ComfyUI-GGUF, ``tools/convert.py`` and ``tools/lcpp.patch``): vectors and tiny
tensors in 32 bits, the layers before the first block and after the last in 16. FP8 files keep those layers, too, but
not the blocks' biases: Forge takes the type that most tensors have for the file's. NF4 and FP4 files keep no matrix,
as Forge's own: on CUDA it packs what is left itself, on the CPU it fails there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib_fluxkontext.convert.decode import BLOCKS
from lib_fluxkontext.convert.encodings import Blocks, Encoding, FourBit, Plain
from lib_fluxkontext.errors import KontextError

KEPT = ("img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.", "final_layer.")
"""How names of layers begin that stay in 16 bits, but for NF4 and FP4."""

TINY = 1024
"""Elements up to which a GGUF file has a tensor in 32 bits."""

Container = Literal["gguf", "safetensors"]

FORMATS: dict[str, tuple[str, tuple[Container, ...]]] = {
    "Q8_0": ("Q8_0", ("gguf",)),
    "Q5_1": ("Q5_1", ("gguf",)),
    "Q5_0": ("Q5_0", ("gguf",)),
    "Q4_1": ("Q4_1", ("gguf",)),
    "Q4_0": ("Q4_0", ("gguf",)),
    "nf4": ("NF4", ("safetensors",)),
    "fp4": ("FP4", ("safetensors",)),
    "fp8": ("F8_E4M3", ("safetensors",)),
    "fp8_e5m2": ("F8_E5M2", ("safetensors",)),
    "fp16": ("F16", ("safetensors", "gguf")),
    "bf16": ("BF16", ("safetensors", "gguf")),
    "fp32": ("F32", ("safetensors", "gguf")),
}
"""Name → the type of its matrices, and the files that can have it."""

ALIASES = {"f16": "fp16", "f32": "fp32", "fp8_e4m3fn": "fp8", "fp8_e4m3": "fp8", "fp8-e5m2": "fp8_e5m2"}
"""Other names, in lower case → ``FORMATS``'."""

_DTYPES = {"BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class Format:
    """A format and the file that has it.

    Attributes:
        name: a key of ``FORMATS``.
        kind: of the blocks' matrices.
        container: of the file.
    """

    name: str
    kind: str
    container: Container

    def encoding(self, name: str, shape: tuple[int, ...], source_kind: str) -> Encoding:
        """Choose how a tensor is stored.

        Args:
            name: in the original layout, without prefix.
            shape: rows first.
            source_kind: the type that it comes in.
        """
        sixteen = Plain("BF16" if source_kind == "BF16" else "F16")
        if self.container == "gguf" and (len(shape) < 2 or math.prod(shape) <= TINY):
            return Plain("F32")
        if self.kind in ("F32", "F16", "BF16"):
            return Plain(self.kind)
        matrix, kept = len(shape) == 2, name.startswith(KEPT)
        match self.kind:
            case "NF4" | "FP4":
                return FourBit(self.kind, _DTYPES.get(source_kind, "float32")) if matrix else sixteen
            case "F8_E4M3" | "F8_E5M2":
                return Plain(self.kind) if (matrix or name.endswith(".bias")) and not kept else sixteen
            case _:
                whole = matrix and shape[1] % BLOCKS[self.kind][0] == 0
                return Blocks(self.kind) if whole and not kept else sixteen


def choose(name: str, out: Path) -> Format:
    """Return the format of a name for a file.

    Raises:
        KontextError: an unknown format, one that cannot be made here, or one that the file's ending does not have.
    """
    lower = name.lower()
    known = {key.lower(): key for key in FORMATS}
    key = known.get(lower) or ALIASES.get(lower)
    if key is None:
        raise KontextError(_unknown(name), "format")
    kind, containers = FORMATS[key]
    suffix = out.suffix.lower().removeprefix(".")
    for container in containers:
        if suffix == container:
            return Format(key, kind, container)
    endings = " or ".join(f".{container}" for container in containers)
    raise KontextError(f'"{out.name}" does not end in {endings}, which {key} is stored in', "out")


def _unknown(name: str) -> str:
    upper = name.upper()
    if upper.startswith("IQ") or (upper.startswith("Q") and "_K" in upper) or upper in ("Q6", "Q3", "Q2"):
        return (
            f"\"{name[:20]}\" is made by llama.cpp's llama-quantize with ComfyUI-GGUF's patch, from a GGUF file in "
            f"fp16 or bf16, which this command makes; of that size there are here: {', '.join(list(FORMATS)[:5])}"
        )
    return f'got the text "{name[:20]}"; allowed: {", ".join(FORMATS)}'
