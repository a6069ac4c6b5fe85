"""How a checkpoint stores its transformer, beyond the types of the tensors: by whose names, and scaled how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lib_fluxkontext.checkpoints.header import Header, TensorEntry

Layout = Literal["original", "diffusers", "Nunchaku"]

SCALES = (".scale_weight", ".weight_scale", ".weight_scale_2")
"""How names of weights' scales end: ComfyUI's first form of scaled FP8, its present one, and NVFP4's second scale."""

LAYER_FORMAT = ".comfy_quant"
"""How ComfyUI's description of a layer's format ends; Forge Neo writes it for the older forms."""

SCALED_FP8 = "scaled_fp8"
"""The tensor by which ComfyUI's first form of scaled FP8 says what it is."""

QUANTISATION_METADATA = "_quantization_metadata"
"""Where ComfyUI's files have the formats of all layers, if not in the layers."""


@dataclass(frozen=True)
class Storage:
    """How a transformer is stored.

    Attributes:
        layout: whose names the tensors have, or None if not FLUX.1.
        scales: those of ``SCALES`` that occur.
        scale_kinds: types of the scales.
        declared: which of ``LAYER_FORMAT``, ``SCALED_FP8`` and ``QUANTISATION_METADATA`` say that it is scaled.
        bias_kinds: types of the biases.
        norm_kinds: types of the norms' scales.
        packed_input: whether the picture's embedder is in 4 bits too, which hides its width.
    """

    layout: Layout | None = None
    scales: frozenset[str] = frozenset()
    scale_kinds: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()
    bias_kinds: frozenset[str] = frozenset()
    norm_kinds: frozenset[str] = frozenset()
    packed_input: bool = False


def read_storage(header: Header, layout: Layout | None, prefix: str, tensors: Mapping[str, TensorEntry]) -> Storage:
    """Read how a transformer is stored.

    Args:
        header: of the whole file.
        layout: of the transformer's names.
        prefix: of the transformer's names in the file.
        tensors: the transformer's, by their names without the prefix.
    """
    scaled = {name: suffix for name in tensors for suffix in SCALES if name.endswith(suffix)}
    declared = {QUANTISATION_METADATA} & header.metadata.keys()
    declared |= {LAYER_FORMAT for name in tensors if name.endswith(LAYER_FORMAT)}
    # It stands before the prefix or behind it, and another may belong to a text encoder.
    markers = (tensor.name for tensor in header.tensors if tensor.name.endswith(SCALED_FP8))
    declared |= {SCALED_FP8 for name in markers if prefix.startswith(name.removesuffix(SCALED_FP8))}
    embedder = tensors.get("img_in.weight", tensors.get("x_embedder.weight"))
    return Storage(
        layout=layout,
        scales=frozenset(scaled.values()),
        scale_kinds=frozenset(tensors[name].kind for name in scaled),
        declared=frozenset(declared),
        bias_kinds=frozenset(entry.kind for name, entry in tensors.items() if name.endswith(".bias")),
        norm_kinds=frozenset(entry.kind for name, entry in tensors.items() if _is_norm(name, entry)),
        packed_input=embedder is not None and embedder.kind == "U8",
    )


def _is_norm(name: str, entry: TensorEntry) -> bool:
    """Whether a tensor is the scale of a norm: ``…norm.key_norm.scale``, or ``…attn.norm_q.weight`` in diffusers."""
    return len(entry.shape) == 1 and "norm" in name and name.endswith((".scale", ".weight"))
