"""Writes small checkpoints with random weights in the formats Forge loads.

Run as ``python -m tests.support.checkpoints OUTDIR [NAME ...]`` with a Python that has torch, numpy
and safetensors. Every tensor is drawn from a seed made of its name, so the same tensor is the same
in every format, and files are the same each time they are built.

The weights are scaled so that a generation gives finite, textured pictures in which every token
counts: attention is moderately sharp, gates are open, and the output layer is not zero.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.support import checkpoint_files as files

Weights = dict[str, torch.Tensor]

TRANSFORMER_PREFIX = "model.diffusion_model."
CLIP_PREFIX = "text_encoders.clip_l.transformer."
T5_PREFIX = "text_encoders.t5xxl.transformer."
VAE_PREFIX = "vae."

CLIP_VOCABULARY = 49408
T5_VOCABULARY = 32128
LATENT_CHANNELS = 16
FLUX_LATENT_SCALE = 0.3611
FLUX_LATENT_SHIFT = 0.1159

NF4_CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
NF4_BLOCK = 64


class Draw:
    """Draws tensors of a state dict; each one's values depend on the seed and its name alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.weights: Weights = {}

    def normal(self, name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> torch.Tensor:
        """A tensor of normally distributed values, kept under ``name``."""
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + self.seed)
        tensor = torch.randn(shape, generator=generator) * std + mean
        self.weights[name] = tensor
        return tensor

    def linear(self, name: str, rows: int, columns: int, gain: float = 1.0, bias: bool = True) -> None:
        """A linear layer whose outputs are ``gain`` times as large as its inputs."""
        self.normal(f"{name}.weight", (rows, columns), gain / math.sqrt(columns))
        if bias:
            self.normal(f"{name}.bias", (rows,), 0.02)

    def conv(self, name: str, rows: int, columns: int, size: int, gain: float = 1.0) -> None:
        """A convolution whose outputs are ``gain`` times as large as its inputs."""
        self.normal(f"{name}.weight", (rows, columns, size, size), gain / math.sqrt(columns * size * size))
        self.normal(f"{name}.bias", (rows,), 0.02)

    def norm(self, name: str, width: int, bias: bool = True) -> None:
        """A normalisation with scales near one."""
        self.normal(f"{name}.weight", (width,), 0.05, mean=1.0)
        if bias:
            self.normal(f"{name}.bias", (width,), 0.05)

    def modulation(self, name: str, width: int, parts: tuple[str, ...]) -> None:
        """A modulation layer; ``parts`` says in order what its outputs are: shift, scale or gate."""
        self.linear(name, len(parts) * width, width, gain=0.7)
        means = torch.tensor([0.6 if part == "gate" else 0.0 for part in parts]).repeat_interleave(width)
        self.weights[f"{name}.bias"] = self.weights[f"{name}.bias"] * 5 + means

    def query_key_norm(self, name: str, head_dim: int) -> None:
        """The norms of queries and keys, large enough to let attention pick tokens."""
        for kind in ("query_norm", "key_norm"):
            self.normal(f"{name}.{kind}.scale", (head_dim,), 0.1, mean=1.5)


def flux_transformer(
    hidden: int = 256,
    depth: int = 2,
    depth_single: int = 4,
    head_dim: int = 64,
    context_dim: int = 64,
    vector_dim: int = 64,
    guidance: bool = True,
    seed: int = 0,
) -> Weights:
    """A Flux transformer under the original names, without a prefix."""
    draw = Draw(seed)
    mlp = hidden * 4
    draw.linear("img_in", hidden, LATENT_CHANNELS * 4)
    draw.linear("txt_in", hidden, context_dim)
    embedders = {"time_in": 256, "vector_in": vector_dim} | ({"guidance_in": 256} if guidance else {})
    for name, width in embedders.items():
        draw.linear(f"{name}.in_layer", hidden, width, gain=1.5)
        draw.linear(f"{name}.out_layer", hidden, hidden, gain=1.5)
    for index in range(depth):
        for stream in ("img", "txt"):
            block = f"double_blocks.{index}.{stream}"
            draw.modulation(f"{block}_mod.lin", hidden, ("shift", "scale", "gate") * 2)
            draw.linear(f"{block}_attn.qkv", hidden * 3, hidden)
            draw.query_key_norm(f"{block}_attn.norm", head_dim)
            draw.linear(f"{block}_attn.proj", hidden, hidden, gain=1.5)
            draw.linear(f"{block}_mlp.0", mlp, hidden)
            draw.linear(f"{block}_mlp.2", hidden, mlp)
    for index in range(depth_single):
        block = f"single_blocks.{index}"
        draw.modulation(f"{block}.modulation.lin", hidden, ("shift", "scale", "gate"))
        draw.linear(f"{block}.linear1", hidden * 3 + mlp, hidden)
        draw.query_key_norm(f"{block}.norm", head_dim)
        draw.linear(f"{block}.linear2", hidden, hidden + mlp, gain=1.5)
    draw.modulation("final_layer.adaLN_modulation.1", hidden, ("shift", "scale"))
    draw.linear("final_layer.linear", LATENT_CHANNELS * 4, hidden)
    return draw.weights


def clip_text_encoder(hidden: int = 64, layers: int = 1, seed: int = 0) -> Weights:
    """A CLIP text encoder under Transformers' names, with the whole vocabulary."""
    draw = Draw(seed)
    draw.normal("text_model.embeddings.token_embedding.weight", (CLIP_VOCABULARY, hidden), 0.5)
    draw.normal("text_model.embeddings.position_embedding.weight", (77, hidden), 0.2)
    for index in range(layers):
        layer = f"text_model.encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            draw.linear(f"{layer}.self_attn.{part}", hidden, hidden, gain=1.5)
        draw.norm(f"{layer}.layer_norm1", hidden)
        draw.norm(f"{layer}.layer_norm2", hidden)
        draw.linear(f"{layer}.mlp.fc1", hidden * 2, hidden)
        draw.linear(f"{layer}.mlp.fc2", hidden, hidden * 2)
    draw.norm("text_model.final_layer_norm", hidden)
    return draw.weights


def t5_text_encoder(width: int = 64, layers: int = 2, heads: int = 4, seed: int = 0) -> Weights:
    """A T5 encoder under Transformers' names, with the whole vocabulary."""
    draw = Draw(seed)
    draw.normal("shared.weight", (T5_VOCABULARY, width), 1.0)
    for index in range(layers):
        block = f"encoder.block.{index}.layer"
        draw.linear(f"{block}.0.SelfAttention.q", width, width, gain=(width / heads) ** -0.5, bias=False)
        for part in ("k", "v", "o"):
            draw.linear(f"{block}.0.SelfAttention.{part}", width, width, bias=False)
        if index == 0:
            draw.normal(f"{block}.0.SelfAttention.relative_attention_bias.weight", (32, heads), 0.5)
        draw.norm(f"{block}.0.layer_norm", width, bias=False)
        for part in ("wi_0", "wi_1"):
            draw.linear(f"{block}.1.DenseReluDense.{part}", width * 2, width, bias=False)
        draw.linear(f"{block}.1.DenseReluDense.wo", width, width * 2, bias=False)
        draw.norm(f"{block}.1.layer_norm", width, bias=False)
    draw.norm("encoder.final_layer_norm", width, bias=False)
    return draw.weights


def autoencoder(
    channels: int = 32,
    latent_channels: int = LATENT_CHANNELS,
    latent_scale: float = FLUX_LATENT_SCALE,
    latent_shift: float = FLUX_LATENT_SHIFT,
    quant_conv: bool = False,
    log_variance: float = -12.0,
    seed: int = 0,
) -> Weights:
    """An 8x autoencoder under the original names, with one block a level and one width throughout.

    Latents of pictures have about the mean and spread that ``latent_scale`` and ``latent_shift``
    turn into zero and one. ``log_variance`` is the encoder's own noise, small as in real ones.
    """
    draw = Draw(seed)

    def block(name: str) -> None:
        draw.norm(f"{name}.norm1", channels)
        draw.conv(f"{name}.conv1", channels, channels, 3)
        draw.norm(f"{name}.norm2", channels)
        draw.conv(f"{name}.conv2", channels, channels, 3)

    def middle(name: str) -> None:
        block(f"{name}.block_1")
        draw.norm(f"{name}.attn_1.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            draw.conv(f"{name}.attn_1.{part}", channels, channels, 1)
        block(f"{name}.block_2")

    draw.conv("encoder.conv_in", channels, 3, 3)
    for level in range(4):
        block(f"encoder.down.{level}.block.0")
        if level < 3:
            draw.conv(f"encoder.down.{level}.downsample.conv", channels, channels, 3)
    middle("encoder.mid")
    draw.norm("encoder.norm_out", channels)
    draw.conv("encoder.conv_out", latent_channels * 2, channels, 3, gain=1.6 / latent_scale)
    draw.weights["encoder.conv_out.weight"][latent_channels:] = 0
    draw.weights["encoder.conv_out.bias"][:latent_channels] += latent_shift
    draw.weights["encoder.conv_out.bias"][latent_channels:] = log_variance

    draw.conv("decoder.conv_in", channels, latent_channels, 3)
    middle("decoder.mid")
    for level in range(4):
        for index in range(2):
            block(f"decoder.up.{level}.block.{index}")
        if level > 0:
            draw.conv(f"decoder.up.{level}.upsample.conv", channels, channels, 3)
    draw.norm("decoder.norm_out", channels)
    draw.conv("decoder.conv_out", 3, channels, 3, gain=0.75)

    if quant_conv:
        for name, width in (("quant_conv", latent_channels * 2), ("post_quant_conv", latent_channels)):
            draw.weights[f"{name}.weight"] = torch.eye(width)[:, :, None, None].clone()
            draw.weights[f"{name}.bias"] = torch.zeros(width)
    return draw.weights


def sd15_unet(channels: int = 64, context_dim: int = 768, seed: int = 0) -> Weights:
    """A Stable Diffusion 1.5 U-Net of a single level, without a prefix."""
    draw = Draw(seed)
    embedding = channels * 4

    def residual(name: str, width_in: int) -> None:
        draw.norm(f"{name}.in_layers.0", width_in)
        draw.conv(f"{name}.in_layers.2", channels, width_in, 3)
        draw.linear(f"{name}.emb_layers.1", channels, embedding)
        draw.norm(f"{name}.out_layers.0", channels)
        draw.conv(f"{name}.out_layers.3", channels, channels, 3, gain=0.5)
        if width_in != channels:
            draw.conv(f"{name}.skip_connection", channels, width_in, 1)

    def spatial_transformer(name: str) -> None:
        draw.norm(f"{name}.norm", channels)
        draw.conv(f"{name}.proj_in", channels, channels, 1)
        block = f"{name}.transformer_blocks.0"
        for part, width in (("attn1", channels), ("attn2", context_dim)):
            draw.linear(f"{block}.{part}.to_q", channels, channels, bias=False)
            draw.linear(f"{block}.{part}.to_k", channels, width, bias=False)
            draw.linear(f"{block}.{part}.to_v", channels, width, bias=False)
            draw.linear(f"{block}.{part}.to_out.0", channels, channels)
        draw.linear(f"{block}.ff.net.0.proj", channels * 8, channels)
        draw.linear(f"{block}.ff.net.2", channels, channels * 4)
        for part in ("norm1", "norm2", "norm3"):
            draw.norm(f"{block}.{part}", channels)
        draw.conv(f"{name}.proj_out", channels, channels, 1, gain=0.5)

    draw.linear("time_embed.0", embedding, channels)
    draw.linear("time_embed.2", embedding, embedding)
    draw.conv("input_blocks.0.0", channels, 4, 3)
    residual("input_blocks.1.0", channels)
    spatial_transformer("input_blocks.1.1")
    residual("middle_block.0", channels)
    spatial_transformer("middle_block.1")
    residual("middle_block.2", channels)
    for index in range(2):
        residual(f"output_blocks.{index}.0", channels * 2)
        spatial_transformer(f"output_blocks.{index}.1")
    draw.norm("out.0", channels)
    draw.conv("out.2", 4, channels, 3)
    return draw.weights


def flux_lora(hidden: int = 256, rank: int = 4, strength: float = 0.5, seed: int = 0) -> Weights:
    """A low-rank adapter for some layers of the small transformer, under the widely used names."""
    draw = Draw(seed)
    layers = {
        "double_blocks_0_img_attn_qkv": (hidden * 3, hidden),
        "double_blocks_1_txt_attn_proj": (hidden, hidden),
        "single_blocks_0_linear1": (hidden * 7, hidden),
        "single_blocks_3_linear2": (hidden, hidden * 5),
    }
    for layer, (rows, columns) in layers.items():
        name = f"lora_unet_{layer}"
        draw.normal(f"{name}.lora_down.weight", (rank, columns), 1 / math.sqrt(columns))
        draw.normal(f"{name}.lora_up.weight", (rows, rank), strength / math.sqrt(rank))
        draw.weights[f"{name}.alpha"] = torch.tensor(float(rank))
    return draw.weights


def nf4_tensors(name: str, tensor: torch.Tensor) -> Weights:
    """A weight matrix in 4-bit NormalFloat, under the names bitsandbytes stores it with."""
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
    """The weights with every matrix in 4 bits and the rest as it was."""
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


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """The weights in another number format."""
    return {name: tensor.to(dtype) for name, tensor in weights.items()}


def prefixed(prefix: str, weights: Weights) -> Weights:
    """The weights with ``prefix`` before their names."""
    return {prefix + name: tensor for name, tensor in weights.items()}


def build_flux(path: Path, transformer: Weights, companions: torch.dtype = torch.float32) -> None:
    """Write a transformer with its text encoders and its autoencoder in one file."""
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

    The default widths have 9 million weights; ``hidden=512, depth=8, depth_single=16, head_dim=128``
    has 140 million.
    """
    transformer = flux_transformer(hidden, depth, depth_single, head_dim, guidance=guidance, seed=seed)
    build_flux(path, cast(transformer, dtype))


def smooth(transformer: Weights, gain: float = 0.02) -> Weights:
    """The same with little of the noise level in it, so that results change slowly from step to step, as trained ones
    do. Random weights would turn over at every step.
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
    files.FLUX_NF4: lambda path: build_flux(path, to_nf4(flux_transformer())),
    files.FLUX_GGUF: lambda path: write_gguf(path, flux_transformer(vector_dim=768)),
    files.FLUX_SCHNELL: lambda path: build_small_flux(path, guidance=False),
    files.FLUX_SMOOTH: lambda path: build_flux(path, smooth(flux_transformer())),
    files.FLUX_140M: lambda path: build_small_flux(
        path, hidden=512, depth=8, depth_single=16, head_dim=128, dtype=torch.bfloat16
    ),
    files.SD15: build_small_sd15,
    files.MODULE_VAE: lambda path: save_file(autoencoder(), path),
    files.MODULE_CLIP: lambda path: save_file(cast(clip_text_encoder(hidden=768), torch.float16), path),
    files.MODULE_T5: lambda path: save_file(t5_text_encoder(), path),
    files.LORA: lambda path: save_file(flux_lora(), path),
}


def build(folder: Path, name: str) -> Path:
    """Write one of the known files below ``folder`` unless it is there; returns its path."""
    path = folder / files.FOLDERS[name] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{os.getpid()}-{name}")
        BUILDERS[name](unfinished)
        unfinished.replace(path)
    return path


def main() -> None:
    """Command line: ``OUTDIR [NAME ...]``; without names, everything but the large checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", choices=[*BUILDERS, []])
    arguments = parser.parse_args()
    for name in arguments.names or [name for name in BUILDERS if name not in files.ON_REQUEST]:
        print(build(arguments.folder, name))


if __name__ == "__main__":
    main()
