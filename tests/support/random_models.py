"""Draw the weights of small models at random, under the names that checkpoint files use.

The seed of a tensor is its name, so a tensor is the same in every format, and a file is the same each time it is
built. The weights are scaled so that a generation gives finite, textured pictures in which
every token counts: attention is moderately sharp, gates are open, and the output layer is not zero.
"""

from __future__ import annotations

import math
import zlib

import torch

Weights = dict[str, torch.Tensor]

CLIP_VOCABULARY = 49408
T5_VOCABULARY = 32128
LATENT_CHANNELS = 16
FLUX_LATENT_SCALE = 0.3611
FLUX_LATENT_SHIFT = 0.1159


class Draw:
    """Draws the tensors of a state dict; the values of a tensor depend on the seed and its name alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.weights: Weights = {}

    def normal(self, name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> torch.Tensor:
        """Draw a tensor of normally distributed values and keep it under ``name``."""
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + self.seed)
        tensor = torch.randn(shape, generator=generator) * std + mean
        self.weights[name] = tensor
        return tensor

    def linear(self, name: str, rows: int, columns: int, gain: float = 1.0, bias: bool = True) -> None:
        """Draw a linear layer whose outputs are ``gain`` times as large as its inputs."""
        self.normal(f"{name}.weight", (rows, columns), gain / math.sqrt(columns))
        if bias:
            self.normal(f"{name}.bias", (rows,), 0.02)

    def conv(self, name: str, rows: int, columns: int, size: int, gain: float = 1.0) -> None:
        """Draw a convolution whose outputs are ``gain`` times as large as its inputs."""
        self.normal(f"{name}.weight", (rows, columns, size, size), gain / math.sqrt(columns * size * size))
        self.normal(f"{name}.bias", (rows,), 0.02)

    def norm(self, name: str, width: int, bias: bool = True) -> None:
        """Draw a normalisation with scales near one."""
        self.normal(f"{name}.weight", (width,), 0.05, mean=1.0)
        if bias:
            self.normal(f"{name}.bias", (width,), 0.05)

    def modulation(self, name: str, width: int, parts: tuple[str, ...]) -> None:
        """Draw a modulation layer; ``parts`` are its outputs in order: shift, scale or gate."""
        self.linear(name, len(parts) * width, width, gain=0.7)
        means = torch.tensor([0.6 if part == "gate" else 0.0 for part in parts]).repeat_interleave(width)
        self.weights[f"{name}.bias"] = self.weights[f"{name}.bias"] * 5 + means

    def query_key_norm(self, name: str, head_dim: int) -> None:
        """Draw the norms of queries and keys, large enough to let attention pick tokens."""
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
    """Draw a Flux transformer under Black Forest Labs' names, without a prefix."""
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
    """Draw a CLIP text encoder under Transformers' names, with the whole vocabulary."""
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
    """Draw a T5 encoder under Transformers' names, with the whole vocabulary."""
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
    """Draw an 8× autoencoder under CompVis' names, with one block per level and the same width throughout.

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
    """Draw a Stable Diffusion 1.5 U-Net of a single level, without a prefix."""
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
    """Draw a LoRA for some layers of the small transformer, under kohya's names."""
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
