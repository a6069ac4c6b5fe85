"""Which of a checkpoint's formats a host loads, so that it can be said before the host tries.

Read from the code of Forge (``main`` of 2025-06-26: ``backend/loader.py``, ``operations.py``, ``operations_gguf.py``),
Forge Neo 2.26 (the same, ``state_dict.py``, ``operations_mixed_precision.py``, its ``huggingface_guess``) and diffusers
0.42 (``quantizers/gguf/utils.py``), for which this project decodes 4 bits and scaled FP8 itself.
"""

from __future__ import annotations

from typing import Literal

from lib_fluxkontext.checkpoints.flux import CheckpointFacts
from lib_fluxkontext.checkpoints.storage import LAYER_FORMAT, QUANTISATION_METADATA, SCALED_FP8, Storage
from lib_fluxkontext.i18n import translate

Host = Literal["Forge", "Forge Neo", "diffusers"]

_FORGE_GGUF = frozenset(
    {"F32", "F16", "BF16", "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"}
)

GGUF_TYPES: dict[Host, frozenset[str]] = {
    "Forge": _FORGE_GGUF,
    "Forge Neo": _FORGE_GGUF,
    "diffusers": _FORGE_GGUF | {"IQ4_NL", "IQ4_XS"},
}
"""The types of matrices. Both Forges take any other for plain numbers, and the first step fails on their shape."""

_PLAIN = frozenset({"F32", "F16"})

GGUF_NORM_TYPES: dict[Host, frozenset[str]] = {"Forge": _PLAIN, "Forge Neo": _PLAIN | {"BF16"}, "diffusers": _PLAIN}
"""The types of the norms' scales, which are not dequantised; Neo dequantises BF16 as it loads."""

GGUF_BIAS_TYPES: dict[Host, frozenset[str]] = {"Forge": _FORGE_GGUF, "Forge Neo": _FORGE_GGUF, "diffusers": _PLAIN}
"""The types of the biases."""

SAFETENSORS_TYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "NF4", "FP4"})
"""The types of weights that need no scale of ComfyUI's."""

FOUR_BITS = frozenset({"NF4", "FP4"})
"""bitsandbytes' types."""


def why_not_loaded(facts: CheckpointFacts, host: Host) -> str | None:
    """Say why a host does not load a FLUX.1 checkpoint as it should, and what to take instead.

    Args:
        facts: from its header.
        host: that is to load it.

    Returns:
        A sentence or two, or None where the host loads it, or where it is not FLUX.1.
    """
    if facts.storage.layout is None:
        return None
    checks = (_refused_layout, _refused_gguf if facts.format == "GGUF" else _refused_weights)
    return next((reason for check in checks if (reason := check(facts, host)) is not None), None)


def scaled_format(facts: CheckpointFacts) -> str | None:
    """Return what ComfyUI calls the format of scaled weights, or None where they have no scales of its kind."""
    storage = facts.storage
    if not storage.scales:
        return None
    if ".weight_scale_2" in storage.scales:
        return "NVFP4"
    if facts.quantisation == "I8":
        return "INT8"
    return "MXFP8" if storage.scale_kinds & {"U8", "F8_E8M0"} else "scaled FP8"


def _refused_layout(facts: CheckpointFacts, host: Host) -> str | None:
    match facts.storage.layout:
        case "Nunchaku" if host != "Forge Neo":
            return _instead(translate("{host} does not load {format}.", host=host, format="SVDQuant (Nunchaku)"))
        case "diffusers" if host == "Forge":
            return translate(
                "{host} does not recognise diffusers' tensor names. Take a file in Black Forest Labs' own layout.",
                host=host,
            )
        case "diffusers" if host == "Forge Neo" and _is_quantised(facts):
            return _instead(translate("{host} renames diffusers' tensors only if they are not quantised.", host=host))
    return None


def _is_quantised(facts: CheckpointFacts) -> bool:
    return facts.format == "GGUF" or bool(facts.storage.scales) or facts.quantisation in FOUR_BITS


def _refused_gguf(facts: CheckpointFacts, host: Host) -> str | None:
    unknown = [part.kind for part in facts.mix if part.kind not in GGUF_TYPES[host]]
    if unknown:
        return translate(
            "{host} cannot dequantise {types}. Take Q8_0, Q6_K, Q5_K or Q4_K instead.",
            host=host,
            types=", ".join(unknown),
        )
    storage = facts.storage
    vectors = (storage.norm_kinds - GGUF_NORM_TYPES[host]) | (storage.bias_kinds - GGUF_BIAS_TYPES[host])
    if vectors:
        return translate(
            "{host} does not dequantise biases or norms, which are {types} in this GGUF file. "
            "Take a file that keeps them in F32, as most do.",
            host=host,
            types=", ".join(sorted(vectors)),
        )
    return None


def _refused_weights(facts: CheckpointFacts, host: Host) -> str | None:
    if facts.storage.layout == "Nunchaku":
        return None
    scaled = scaled_format(facts)
    if scaled is not None and not _applies_scales(facts.storage, scaled, host):
        if host == "diffusers" or scaled not in ("scaled FP8", "INT8"):
            return _instead(translate("{host} does not load {format}.", host=host, format=scaled))
        ignored = translate(
            "{host} ignores the scales of this checkpoint ({format}), and the picture would be noise.",
            host=host,
            format=scaled,
        )
        return _instead(ignored)
    if scaled is None and facts.quantisation not in SAFETENSORS_TYPES:
        return _instead(translate("{host} does not load {format}.", host=host, format=facts.quantisation))
    if facts.quantisation == "FP4" and host == "Forge Neo" and facts.storage.packed_input:
        return _instead(translate("{host} recognises bitsandbytes' NF4, but not its FP4.", host=host))
    return None


def _applies_scales(storage: Storage, scaled: str, host: Host) -> bool:
    """Whether a host multiplies weights with their scales."""
    match host:
        case "Forge":  # its layers know scale_weight, whatever else the file says
            return scaled == "scaled FP8" and storage.scales == {".scale_weight"}
        case "Forge Neo":
            marked = SCALED_FP8 in storage.declared and ".scale_weight" in storage.scales
            return marked or bool(storage.declared & {LAYER_FORMAT, QUANTISATION_METADATA})
        case "diffusers":
            return scaled == "scaled FP8"


def _instead(reason: str) -> str:
    return f"{reason} {translate('Take FP8 (e4m3fn, without scales), Q8_0 or NF4 instead.')}"
