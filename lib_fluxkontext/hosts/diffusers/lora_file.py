"""Read a LoRA file under diffusers' names, whoever trained it: diffusers knows kohya's, XLabs', BFL's and fal's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from lib_fluxkontext.checkpoints.header import read_header
from lib_fluxkontext.convert.lora import DOWN, FIELD, PREFIX, Lora, LoraFile
from lib_fluxkontext.errors import KontextError, first_line

CONFIG = "lora_adapter_metadata"
"""Under which key a file's metadata has peft's configuration, as JSON."""


_UNREADABLE = (
    ValueError,
    KeyError,
    RuntimeError,
    AssertionError,
    AttributeError,
    IndexError,
    TypeError,
    re.error,
)
"""What diffusers raises, and what a configuration that is none does."""


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
    from safetensors import safe_open

    try:
        with safe_open(file.path, framework="pt") as opened:
            stored = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
        # the dictionary, and not the path: for a path diffusers may load pickles, and look on the hub
        tensors, found = FluxLoraLoaderMixin.lora_state_dict(stored, return_alphas=True)
        alphas = {_module(key): float(value) for key, value in (found or {}).items()}
        if CONFIG in metadata and not alphas:
            ranks = {_module(key): len(down) for key, down in tensors.items() if key.endswith(DOWN)}
            alphas = _configured_alphas(json.loads(metadata[CONFIG]), ranks)
    except _UNREADABLE as error:
        reason = f"{name}: diffusers cannot read it as a LoRA of FLUX.1: {first_line(error)}"
        raise KontextError(reason, FIELD) from None
    return Lora(name, file.weight, tensors, alphas)


def _module(key: Any) -> str:
    """Return the module of ``transformer.….alpha`` or ``transformer.….lora_A.weight``."""
    return str(key).removeprefix(PREFIX).removesuffix(".alpha").removesuffix(DOWN)


def _configured_alphas(config: dict[str, Any], ranks: dict[str, int]) -> dict[str, float]:
    """Return modules' alphas as peft's ``LoraConfig``, which diffusers' training scripts save, gives them.

    Args:
        config: its fields, ``transformer.lora_alpha``, …
        ranks: of the modules.
    """
    default = config.get(f"{PREFIX}lora_alpha")
    if default is None:
        return {}
    patterns = config.get(f"{PREFIX}alpha_pattern") or {}
    alphas = {}
    for module, rank in ranks.items():
        alpha = float(patterns.get(_pattern_of(module, patterns), default))
        # rank-stabilised: alpha / √rank is the factor, and not alpha / rank
        alphas[module] = alpha * math.sqrt(rank) if config.get(f"{PREFIX}use_rslora") else alpha
    return alphas


def _pattern_of(module: str, patterns: Iterable[str]) -> str | None:
    """Return the first pattern that a module's name is, or ends with after a dot."""
    return next((pattern for pattern in patterns if re.fullmatch(rf"(.*\.)?({pattern})", module)), None)
