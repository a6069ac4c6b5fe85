"""Write a pipeline's transformer and VAE as one file in the original (Black Forest Labs) key layout.

    python -m tools.small_kontext.export_bfl MODEL_FOLDER OUT.safetensors

Forge, ComfyUI and others read that layout: ``model.diffusion_model.*`` and ``vae.*``. Names were matched by what each
implementation's ``forward`` does with the tensor.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]

_TOP = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "proj_out": "final_layer.linear",
}

_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}

_DOUBLE_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}

_VAE = (
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", r"down.\1.downsample.conv"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.conv", r"up.\1.upsample.conv"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)


def transformer_to_bfl(weights: Weights) -> Weights:
    """diffusers' ``FluxTransformer2DModel`` → the original names; fused projections are concatenated."""
    out: Weights = {}
    for kind in ("weight", "bias"):
        for theirs, ours in _TOP.items():
            if f"{theirs}.{kind}" in weights:
                out[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
        # diffusers' last modulation is (scale, shift), the original's (shift, scale).
        scale, shift = weights[f"norm_out.linear.{kind}"].chunk(2)
        out[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat((shift, scale))
    for index in range(_count(weights, "transformer_blocks")):
        _double_block(weights, f"transformer_blocks.{index}.", f"double_blocks.{index}.", out)
    for index in range(_count(weights, "single_transformer_blocks")):
        _single_block(weights, f"single_transformer_blocks.{index}.", f"single_blocks.{index}.", out)
    return out


def _double_block(weights: Weights, theirs: str, ours: str, out: Weights) -> None:
    for kind in ("weight", "bias"):
        for source, target in _DOUBLE.items():
            out[f"{ours}{target}.{kind}"] = weights[f"{theirs}{source}.{kind}"]
        image = [weights[f"{theirs}attn.to_{name}.{kind}"] for name in "qkv"]
        text = [weights[f"{theirs}attn.add_{name}_proj.{kind}"] for name in "qkv"]
        out[f"{ours}img_attn.qkv.{kind}"] = torch.cat(image)
        out[f"{ours}txt_attn.qkv.{kind}"] = torch.cat(text)
    for source, target in _DOUBLE_NORMS.items():
        out[f"{ours}{target}.scale"] = weights[f"{theirs}{source}.weight"]


def _single_block(weights: Weights, theirs: str, ours: str, out: Weights) -> None:
    for kind in ("weight", "bias"):
        parts = [weights[f"{theirs}attn.to_{name}.{kind}"] for name in "qkv"]
        out[f"{ours}linear1.{kind}"] = torch.cat([*parts, weights[f"{theirs}proj_mlp.{kind}"]])
        out[f"{ours}linear2.{kind}"] = weights[f"{theirs}proj_out.{kind}"]
        out[f"{ours}modulation.lin.{kind}"] = weights[f"{theirs}norm.linear.{kind}"]
    for name, full in (("q", "query"), ("k", "key")):
        out[f"{ours}norm.{full}_norm.scale"] = weights[f"{theirs}attn.norm_{name}.weight"]


def vae_to_bfl(weights: Weights) -> Weights:
    """diffusers' ``AutoencoderKL`` → the original names; the decoder counts its levels the other way round."""
    levels = len({name.split(".")[2] for name in weights if name.startswith("decoder.up_blocks.")})
    out: Weights = {}
    for name, value in weights.items():
        for pattern, replacement in _VAE:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"(decoder\.up\.)(\d+)", lambda found: f"{found[1]}{levels - 1 - int(found[2])}", name)
        if ".attn_1." in name and value.ndim == 2:  # a linear layer here is a 1×1 convolution there
            value = value[:, :, None, None]
        out[name] = value
    return out


def export(folder: Path, target: Path) -> None:
    """Write ``target`` from a model folder in diffusers' layout, in float32."""
    transformer = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    tensors = {f"model.diffusion_model.{name}": value for name, value in transformer_to_bfl(transformer).items()}
    tensors |= {f"vae.{name}": value for name, value in vae_to_bfl(vae).items()}
    save_file({name: value.float().contiguous() for name, value in tensors.items()}, target)


def _count(weights: Weights, prefix: str) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith(f"{prefix}.")})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    export(Path(sys.argv[1]), Path(sys.argv[2]))
