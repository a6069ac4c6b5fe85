"""What a tensor table says of a FLUX.1 checkpoint: which one, how quantised, how large."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_fluxkontext.checkpoints.header import Header, TensorEntry, read_header

BFL, DIFFUSERS = "double_blocks.0.img_attn.", "single_transformer_blocks.0.attn."
CHROMA = "distilled_guidance_layer."
"""Chroma has FLUX.1's blocks and is none: this takes the place of each block's modulation."""

NF4_MARK, FP4_MARK = ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"
REFERENCE_CHANNELS = 64
"""Channels of an image token where references can be appended; Fill, Canny and Depth have more."""


@dataclass(frozen=True)
class Part:
    """Tensors of one type: how many, and their bytes."""

    kind: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class CheckpointFacts:
    """What is known without loading a weight.

    Attributes:
        name: of the file.
        family: ``"FLUX.1 Kontext"``, ``"FLUX.1 dev or Kontext"``, ``"FLUX.1 schnell"``, ``"a FLUX.1 variant with extra
            input channels"``, or None where it is not FLUX.1.
        takes_references: whether reference tokens can be appended.
        format: of the file.
        quantisation: the type of most of the transformer's bytes.
        mix: all its types, largest first.
        parameters: of the transformer; packed 4-bit weights counted as what they stand for.
        transformer_bytes: of the transformer's tensors.
        file_bytes: of the file, text encoders and VAE with it where they are in it.
    """

    name: str
    family: str | None
    takes_references: bool
    format: str
    quantisation: str
    mix: tuple[Part, ...]
    parameters: int
    transformer_bytes: int
    file_bytes: int


def checkpoint_facts(path: Path) -> CheckpointFacts:
    """Read and explain a checkpoint.

    Raises:
        KontextError: as ``read_header``.
    """
    return explain(path.name, read_header(path))


def explain(name: str, header: Header) -> CheckpointFacts:
    """Explain a tensor table.

    Args:
        name: of the file. Kontext and plain dev have the same tensors, so the name alone tells them apart.
        header: its table.
    """
    prefix, layout = _where(header.tensors)
    inside = [one for one in header.tensors if one.name.startswith(prefix)] if layout else list(header.tensors)
    names = {one.name[len(prefix) :]: one for one in inside}
    four_bit = next((kind for mark, kind in ((NF4_MARK, "NF4"), (FP4_MARK, "FP4")) if _any_ends(names, mark)), None)
    mix = _mix(inside, four_bit)
    family, takes = (None, False) if layout is None else _family(name, names, layout)
    return CheckpointFacts(
        name=name,
        family=family,
        takes_references=takes,
        format=header.format,
        quantisation=mix[0].kind,
        mix=mix,
        parameters=sum(_numbers(one, names, four_bit) for one in names.items()),
        transformer_bytes=sum(one.bytes for one in inside),
        file_bytes=header.file_bytes,
    )


def _where(tensors: Sequence[TensorEntry]) -> tuple[str, str | None]:
    """Prefix of the transformer's names, and which of the two layouts they follow; None where it is not FLUX.1."""
    if any(CHROMA in tensor.name for tensor in tensors):
        return "", None
    for tensor in tensors:
        for layout in (BFL, DIFFUSERS):
            at = tensor.name.find(layout)
            if at >= 0:
                return tensor.name[:at], layout
    return "", None


def _family(file_name: str, names: dict[str, TensorEntry], layout: str) -> tuple[str, bool]:
    embedder = names.get("img_in.weight" if layout == BFL else "x_embedder.weight")
    channels = embedder.shape[1] if embedder is not None and len(embedder.shape) == 2 else REFERENCE_CHANNELS
    packed = embedder is not None and embedder.kind == "U8"  # 4-bit weights hide their shape
    if channels != REFERENCE_CHANNELS and not packed:
        return "a FLUX.1 variant with extra input channels (Fill, Canny or Depth)", False
    guided = any(one.startswith(("guidance_in.", "time_text_embed.guidance_embedder.")) for one in names)
    if not guided:
        return "FLUX.1 schnell", True
    return ("FLUX.1 Kontext" if "kontext" in file_name.lower() else "FLUX.1 dev or Kontext"), True


def _mix(tensors: Sequence[TensorEntry], four_bit: str | None) -> tuple[Part, ...]:
    groups: dict[str, list[int]] = defaultdict(list)
    for one in tensors:
        groups[four_bit if four_bit and one.kind == "U8" else one.kind].append(one.bytes)
    parts = [Part(kind, len(sizes), sum(sizes)) for kind, sizes in groups.items()]
    return tuple(sorted(parts, key=lambda part: -part.bytes))


def _numbers(item: tuple[str, TensorEntry], names: dict[str, TensorEntry], four_bit: str | None) -> int:
    name, tensor = item
    if not four_bit:
        return math.prod(tensor.shape)
    if any(mark in name for mark in (".absmax", ".quant_map", ".quant_state", ".nested_")):
        return 0
    packed = f"{name}.absmax" in names
    return math.prod(tensor.shape) * (2 if packed else 1)


def _any_ends(names: dict[str, TensorEntry], mark: str) -> bool:
    return any(name.endswith(mark) for name in names)
