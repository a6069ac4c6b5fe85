"""Convert the small model, and read back what was made with other libraries than the converter's own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_fluxkontext.convert.keys import to_bfl
from lib_fluxkontext.convert.lora import Lora, LoraFile
from lib_fluxkontext.convert.run import Conversion, ConvertRequest

Weights = dict[str, Tensor]

SMALL_MODEL = Path(__file__).resolve().parents[2] / "lib_fluxkontext" / "small_kontext"
WEIGHTS_FILE = SMALL_MODEL / "transformer" / "diffusion_pytorch_model.safetensors"

QKV = "double_blocks.0.img_attn.qkv.weight"
LINEAR1 = "single_blocks.1.linear1.weight"
BLOCK_PARTS = {
    QKV: [f"transformer_blocks.0.attn.to_{name}.weight" for name in "qkv"],
    LINEAR1: [f"single_transformer_blocks.1.{name}.weight" for name in ("attn.to_q", "attn.to_k", "attn.to_v")]
    + ["single_transformer_blocks.1.proj_mlp.weight"],
}
"""Two fused weights, and what they are made of."""


def small_weights() -> Weights:
    """Read the small model's transformer, in diffusers' layout."""
    return load_file(WEIGHTS_FILE)


def base_folder(folder: Path, changes: dict[str, Any]) -> Path:
    """Write the small model's folder without transformer weights, the transformer of another shape."""
    shutil.copytree(SMALL_MODEL, folder, ignore=shutil.ignore_patterns("diffusion_pytorch_model.safetensors"))
    shutil.copy(SMALL_MODEL / "vae" / "diffusion_pytorch_model.safetensors", folder / "vae")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    return folder


def convert(source: Path, out: Path, kind: str, *loras: Lora, overwrite: bool = False) -> Path:
    """Convert, and return the output."""
    files = tuple(LoraFile(source, 1.0) for _ in loras)
    Conversion(ConvertRequest(source, out, kind, files, overwrite), loras).run()
    return out


def read_back(path: Path) -> Weights:
    """Read a file's tensors; those of a GGUF file dequantised by gguf, to float32."""
    if path.suffix != ".gguf":
        return load_file(path)
    tensors = {}
    for tensor in GGUFReader(path).tensors:
        shape = tuple(int(side) for side in reversed(tensor.shape))
        values = dequantize(np.array(tensor.data), tensor.tensor_type)
        tensors[tensor.name] = torch.from_numpy(values.astype(np.float32)).reshape(shape)
    return tensors


PREFIX = "model.diffusion_model."
"""Of the transformer's names in a checkpoint that holds everything."""


def whole_checkpoint(path: Path, transformer: Weights | None = None) -> Weights:
    """Write a checkpoint with a VAE and a text encoder of odd sizes and types, and metadata; return its tensors."""
    weights = {PREFIX + name: tensor for name, tensor in (transformer or to_bfl(small_weights())).items()}
    weights["vae.decoder.conv_in.weight"] = torch.randn(4, 3, 3, 3)
    weights["vae.odd"] = torch.arange(7, dtype=torch.uint8)
    weights["vae.also_odd"] = torch.randn(3).to(torch.bfloat16)
    weights["text_encoders.t5.scaled_fp8"] = torch.zeros(3).to(torch.float8_e4m3fn)
    save_file(weights, path, {"modelspec.title": "Ein Bär", "format": "pt"})
    return weights


def save_shards(folder: Path, weights: Weights, count: int) -> Path:
    """Write weights as so many files with an index, as diffusers saves large models; return the index."""
    names = sorted(weights)
    places: dict[str, str] = {}
    for number in range(count):
        file = f"diffusion_pytorch_model-{number + 1:05}-of-{count:05}.safetensors"
        part = {name: weights[name] for name in names[number::count]}
        save_file(part, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index
