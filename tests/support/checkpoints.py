"""Write small checkpoints with random weights in the formats that Forge loads.

Run as ``python -m tests.support.checkpoints OUTDIR [NAME ...]`` with a Python that has torch, numpy and safetensors.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support import checkpoint_files as files
from tests.support.quantised import to_four_bit, to_scaled_fp8, write_gguf
from tests.support.random_models import (
    Weights,
    autoencoder,
    clip_text_encoder,
    flux_lora,
    flux_transformer,
    sd15_unet,
    t5_text_encoder,
)

TRANSFORMER_PREFIX = "model.diffusion_model."
CLIP_PREFIX = "text_encoders.clip_l.transformer."
T5_PREFIX = "text_encoders.t5xxl.transformer."
VAE_PREFIX = "vae."


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """Convert weights to another number format."""
    return {name: tensor.to(dtype) for name, tensor in weights.items()}


def prefixed(prefix: str, weights: Weights) -> Weights:
    """Put a prefix before the names of weights."""
    return {prefix + name: tensor for name, tensor in weights.items()}


LLAMA_CPP_T5 = {
    "encoder.block.": "enc.blk.",
    "encoder.final_layer_norm": "enc.output_norm",
    "shared": "token_embd",
    ".layer.0.SelfAttention.relative_attention_bias": ".attn_rel_b",
    ".layer.0.SelfAttention.": ".attn_",
    ".layer.0.layer_norm": ".attn_norm",
    ".layer.1.DenseReluDense.wi_0": ".ffn_gate",
    ".layer.1.DenseReluDense.wi_1": ".ffn_up",
    ".layer.1.DenseReluDense.wo": ".ffn_down",
    ".layer.1.layer_norm": ".ffn_norm",
}
"""Parts of Transformers' names of a T5 encoder → llama.cpp's, as GGUF files have them."""


def named_as_in_llama_cpp(weights: Weights) -> Weights:
    """Rename a T5 encoder's weights as llama.cpp does."""
    result: Weights = {}
    for name, tensor in weights.items():
        for theirs, other in LLAMA_CPP_T5.items():
            name = name.replace(theirs, other)
        result[name] = tensor
    return result


def is_quantised_of_t5(name: str) -> bool:
    """Return whether a weight of a T5 encoder, by llama.cpp's name, is quantised in GGUF files."""
    return "attn_rel_b" not in name


def build_flux(path: Path, transformer: Weights, companions: torch.dtype = torch.float32) -> None:
    """Write a transformer with text encoders and autoencoder in one file."""
    weights = prefixed(TRANSFORMER_PREFIX, transformer)
    weights |= prefixed(CLIP_PREFIX, cast(clip_text_encoder(), companions))
    weights |= prefixed(T5_PREFIX, cast(t5_text_encoder(), companions))
    weights |= prefixed(VAE_PREFIX, cast(autoencoder(), companions))
    save_file(weights, path)


def build_small_flux(
    path: Path,
    hidden: int = 256,
    depth: int = 2,
    depth_single: int = 4,
    head_dim: int = 64,
    guidance: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an all-in-one Flux checkpoint; ``dtype`` is the transformer's number format.

    The defaults make 9 million weights; ``hidden=512, depth=8, depth_single=16, head_dim=128`` make 140 million.
    """
    transformer = flux_transformer(hidden, depth, depth_single, head_dim, guidance=guidance, seed=seed)
    build_flux(path, cast(transformer, dtype))


def smooth(transformer: Weights, gain: float = 0.02) -> Weights:
    """Weaken the time embedding, so that results change slowly from step to step, as those of a trained model do.

    With random weights a result has nothing in common with the step before.
    """
    name = "time_in.out_layer.weight"
    return transformer | {name: transformer[name] * gain}


def build_small_sd15(path: Path, seed: int = 0) -> None:
    """Write an all-in-one Stable Diffusion 1.5 checkpoint in 16 bits."""
    weights = prefixed(TRANSFORMER_PREFIX, sd15_unet(seed=seed))
    weights |= prefixed("cond_stage_model.transformer.", clip_text_encoder(hidden=768, seed=seed))
    vae = autoencoder(latent_channels=4, latent_scale=0.18215, latent_shift=0.0, quant_conv=True, seed=seed)
    weights |= prefixed("first_stage_model.", vae)
    save_file(cast(weights, torch.float16), path)


BUILDERS: dict[str, Callable[[Path], None]] = {
    files.FLUX: build_small_flux,
    files.FLUX_BF16: lambda path: build_small_flux(path, dtype=torch.bfloat16),
    files.FLUX_FP8: lambda path: build_small_flux(path, dtype=torch.float8_e4m3fn),
    files.FLUX_NF4: lambda path: build_flux(path, to_four_bit(flux_transformer())),
    files.FLUX_GGUF: lambda path: write_gguf(path, flux_transformer(vector_dim=768)),
    files.FLUX_Q6_K: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q6_K"),
    files.FLUX_Q5_K: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q5_K"),
    files.FLUX_Q4_K: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q4_K"),
    files.FLUX_Q4_0: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q4_0"),
    files.FLUX_FP16: lambda path: build_small_flux(path, dtype=torch.float16),
    files.FLUX_E5M2: lambda path: build_small_flux(path, dtype=torch.float8_e5m2),
    files.FLUX_FP4: lambda path: build_flux(path, to_four_bit(flux_transformer(), "fp4")),
    files.FLUX_ALONE: lambda path: save_file(cast(flux_transformer(vector_dim=768), torch.bfloat16), path),
    files.FLUX_GGUF_F16: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "F16"),
    files.FLUX_GGUF_BF16: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "BF16"),
    files.FLUX_Q5_1: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q5_1"),
    files.FLUX_Q5_0: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q5_0"),
    files.FLUX_Q4_1: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q4_1"),
    files.FLUX_Q3_K: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q3_K"),
    files.FLUX_Q2_K: lambda path: write_gguf(path, flux_transformer(vector_dim=768), "Q2_K"),
    files.FLUX_SCALED_FP8: lambda path: build_flux(path, to_scaled_fp8(flux_transformer())),
    files.FLUX_SCHNELL: lambda path: build_small_flux(path, guidance=False),
    files.FLUX_SMOOTH: lambda path: build_flux(path, smooth(flux_transformer())),
    files.FLUX_140M: lambda path: build_small_flux(
        path, hidden=512, depth=8, depth_single=16, head_dim=128, dtype=torch.bfloat16
    ),
    files.SD15: build_small_sd15,
    files.MODULE_VAE: lambda path: save_file(autoencoder(), path),
    files.MODULE_CLIP: lambda path: save_file(cast(clip_text_encoder(hidden=768), torch.float16), path),
    files.MODULE_T5: lambda path: save_file(t5_text_encoder(), path),
    files.MODULE_T5_FP16: lambda path: save_file(cast(t5_text_encoder(), torch.float16), path),
    files.MODULE_T5_FP8: lambda path: save_file(cast(t5_text_encoder(), torch.float8_e4m3fn), path),
    files.MODULE_T5_GGUF: lambda path: write_gguf(
        path, named_as_in_llama_cpp(t5_text_encoder()), architecture="t5encoder", wanted=is_quantised_of_t5
    ),
    files.LORA: lambda path: save_file(flux_lora(), path),
}


def build(folder: Path, name: str) -> Path:
    """Write one of the known files below ``folder`` unless it is there; return its path."""
    path = folder / files.FOLDERS[name] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{os.getpid()}-{name}")
        BUILDERS[name](unfinished)
        unfinished.replace(path)
    return path


def main() -> None:
    """Run the command line: ``OUTDIR [NAME ...]``; without names, write all but the large checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", choices=[*BUILDERS, []])
    arguments = parser.parse_args()
    for name in arguments.names or [name for name in BUILDERS if name not in files.ON_REQUEST]:
        print(build(arguments.folder, name))


if __name__ == "__main__":
    main()
