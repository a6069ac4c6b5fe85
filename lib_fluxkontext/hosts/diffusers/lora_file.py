"""Read a LoRA file under diffusers' names, whoever trained it: diffusers knows kohya's, XLabs', BFL's and fal's."""

from __future__ import annotations

from typing import Any

from lib_fluxkontext.checkpoints.header import read_header
from lib_fluxkontext.convert.lora import FIELD, PREFIX, Lora, LoraFile
from lib_fluxkontext.errors import KontextError, first_line


def read_lora(file: LoraFile) -> Lora:
    """Read a LoRA.

    Raises:
        KontextError: no such file, not safetensors, or nothing that can be merged.
    """
    name = file.path.name
    try:
        header = read_header(file.path)
    except KontextError as error:
        raise KontextError(error.reason, FIELD) from None
    if header.format != "safetensors":
        raise KontextError(f"{name}: only .safetensors files can be merged", FIELD)
    if any("dora_scale" in tensor.name or "lora_magnitude" in tensor.name for tensor in header.tensors):
        raise KontextError(f"{name} is a DoRA, which cannot be merged", FIELD)

    from diffusers.loaders.lora_pipeline import FluxLoraLoaderMixin
    from safetensors.torch import load_file

    try:
        # the dictionary, and not the path: for a path diffusers may load pickles, and look on the hub
        tensors, alphas = FluxLoraLoaderMixin.lora_state_dict(load_file(file.path), return_alphas=True)
    except (ValueError, KeyError, RuntimeError, AssertionError, AttributeError, IndexError, TypeError) as error:
        reason = f"{name}: diffusers cannot read it as a LoRA of FLUX.1: {first_line(error)}"
        raise KontextError(reason, FIELD) from None
    return Lora(name, file.weight, tensors, {_module(key): float(value) for key, value in (alphas or {}).items()})


def _module(key: Any) -> str:
    """Return the module of ``transformer.….alpha``."""
    return str(key).removeprefix(PREFIX).removesuffix(".alpha")
