"""Test-only extension: lets Forge load the small checkpoints.

Forge assumes the widths and depths of Flux, its text encoders and its autoencoder. Here they are read from the
checkpoint instead. Importing this module applies the patches; nothing else about a generation changes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from backend import loader
from huggingface_guess import detection, model_list
from modules import script_callbacks
from modules.sd_models import model_data
from modules_forge import main_entry

StateDict = Mapping[str, torch.Tensor]

FOUR_BIT_STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")


def count_numbered(names: Iterable[str], prefix: str) -> int:
    """Count the numbered children of ``prefix`` in a state dict (``prefix0.``, ``prefix1.`` …)."""
    numbers = {name[len(prefix) :].split(".", 1)[0] for name in names if name.startswith(prefix)}
    return len(numbers)


def matrix_shape(weights: StateDict, name: str) -> list[int]:
    """Return the shape of a matrix, also when it is stored in 4 bits."""
    for state in FOUR_BIT_STATES:
        if name + state in weights:
            return json.loads(bytes(weights[name + state].tolist()))["shape"]
    return list(weights[name].shape)


def flux_sizes(weights: StateDict, prefix: str) -> dict[str, Any]:
    """Read the sizes of a Flux transformer, as its constructor names them."""
    hidden = len(weights[f"{prefix}img_in.bias"])
    head_dim = len(weights[f"{prefix}double_blocks.0.img_attn.norm.query_norm.scale"])
    return {
        "hidden_size": hidden,
        "num_heads": hidden // head_dim,
        "axes_dim": [head_dim // 8, head_dim * 7 // 16, head_dim * 7 // 16],
        "depth": count_numbered(weights, f"{prefix}double_blocks."),
        "depth_single_blocks": count_numbered(weights, f"{prefix}single_blocks."),
        "context_in_dim": matrix_shape(weights, f"{prefix}txt_in.weight")[1],
        "vec_in_dim": matrix_shape(weights, f"{prefix}vector_in.in_layer.weight")[1],
        "mlp_ratio": len(weights[f"{prefix}double_blocks.0.img_mlp.0.bias"]) / hidden,
    }


def clip_sizes(weights: StateDict) -> dict[str, Any]:
    """Read what differs from Forge's CLIP configuration."""
    stem = "transformer.text_model."
    hidden = weights[f"{stem}final_layer_norm.weight"].shape[0]
    return {
        "hidden_size": hidden,
        "projection_dim": hidden,
        "num_attention_heads": hidden // 64,
        "num_hidden_layers": count_numbered(weights, f"{stem}encoder.layers."),
        "intermediate_size": weights[f"{stem}encoder.layers.0.mlp.fc1.weight"].shape[0],
    }


def t5_sizes(weights: StateDict) -> dict[str, Any]:
    """Read what differs from Forge's T5 configuration."""
    block = "transformer.encoder.block.0.layer."
    # Of a GGUF file they are numpy's integers, which JSON does not take.
    width = int(weights["transformer.encoder.final_layer_norm.weight"].shape[0])
    heads = int(weights[f"{block}0.SelfAttention.relative_attention_bias.weight"].shape[1])
    return {
        "d_model": width,
        "d_kv": width // heads,
        "d_ff": int(weights[f"{block}1.DenseReluDense.wi_0.weight"].shape[0]),
        "num_heads": heads,
        "num_layers": count_numbered(weights, "transformer.encoder.block."),
    }


def autoencoder_sizes(weights: StateDict) -> dict[str, Any]:
    """Read what differs from Forge's autoencoder configuration."""
    levels = count_numbered(weights, "encoder.down.")
    return {
        "block_out_channels": [
            weights[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)
        ],
        "layers_per_block": count_numbered(weights, "encoder.down.0.block."),
    }


SIZES = {
    "CLIPTextModel": ("transformer.text_model.final_layer_norm.weight", clip_sizes),
    "T5EncoderModel": ("transformer.encoder.final_layer_norm.weight", t5_sizes),
    "AutoencoderKL": ("encoder.down.0.block.0.conv2.weight", autoencoder_sizes),
}
"""For each class of component: a tensor that it must have, and the function that reads its sizes."""


def patch_detection() -> None:
    """Make Forge's recognition of checkpoints report the sizes a Flux checkpoint has."""
    original = detection.detect_unet_config

    def detect_unet_config(state_dict: StateDict, key_prefix: str) -> dict[str, Any] | None:
        config = original(state_dict, key_prefix)
        if config and config.get("image_model") == "flux":
            config.update(flux_sizes(state_dict, key_prefix))
        return config

    detection.detect_unet_config = detect_unet_config

    # A Stable Diffusion 1.5 of any width.
    model_list.SD15.unet_config = {
        key: value for key, value in model_list.SD15.unet_config.items() if key != "model_channels"
    }


def patch_component_loading() -> None:
    """Give Forge's loader a copy of a component's configuration with the checkpoint's own sizes."""
    original = loader.load_huggingface_component

    def load_huggingface_component(
        guess: Any,
        component_name: str,
        lib_name: str,
        cls_name: str,
        repo_path: str,
        state_dict: StateDict | None,
    ) -> Any:
        known_by, read_sizes = SIZES.get(cls_name, ("", None))
        if read_sizes is None or not state_dict or known_by not in state_dict:
            return original(guess, component_name, lib_name, cls_name, repo_path, state_dict)
        config = json.loads(Path(repo_path, component_name, "config.json").read_text(encoding="utf-8"))
        config.update(read_sizes(state_dict))
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, component_name)
            target.mkdir()
            (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
            return original(guess, component_name, lib_name, cls_name, folder, state_dict)

    loader.load_huggingface_component = load_huggingface_component


def select_configured_model(*_: Any) -> None:
    """Select the configured checkpoint, and list the modules.

    Forge does both while it builds its page, so with ``--nowebui`` it does neither.
    """
    if not model_data.forge_loading_parameters:
        main_entry.refresh_models()
        main_entry.refresh_model_loading_parameters()


patch_detection()
patch_component_loading()
script_callbacks.on_app_started(select_configured_model)
