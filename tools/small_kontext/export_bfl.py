"""Write a pipeline's transformer and VAE as one file in the original (Black Forest Labs) key layout.

    python -m tools.small_kontext.export_bfl MODEL_FOLDER OUT.safetensors

Forge, ComfyUI and others read that layout: ``model.diffusion_model.*`` and ``vae.*``. The transformer's names are in
``lib_fluxkontext.convert.keys``; the VAE's were matched by what each implementation's ``forward`` does with the tensor.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_fluxkontext.convert.keys import to_bfl

Weights = dict[str, Tensor]

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
    tensors = {f"model.diffusion_model.{name}": value for name, value in to_bfl(transformer).items()}
    tensors |= {f"vae.{name}": value for name, value in vae_to_bfl(vae).items()}
    save_file({name: value.float().contiguous() for name, value in tensors.items()}, target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    export(Path(sys.argv[1]), Path(sys.argv[2]))
