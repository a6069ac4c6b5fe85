"""Identify a FLUX.1 checkpoint by its tensor table: which model, how quantised, how large."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_fluxkontext.checkpoints.header import Header, TensorEntry, read_header
from lib_fluxkontext.checkpoints.storage import Layout, Storage, read_storage
from lib_fluxkontext.geometry import TOKEN_CHANNELS

BFL, DIFFUSERS = "double_blocks.0.img_attn.", "single_transformer_blocks.0.attn."
"""A name that only the original layout has, and one that only diffusers' has."""

LAYOUTS: dict[str, Layout] = {
    BFL: "original",
    DIFFUSERS: "diffusers",
    "single_transformer_blocks.0.mlp_fc1.qweight": "Nunchaku",
}
"""A name that only one layout has → the layout."""

CHROMA = "distilled_guidance_layer."
"""Chroma has FLUX.1's blocks and is another model: this layer takes the place of each block's modulation."""

FOUR_BIT_SUFFIXES = {".quant_state.bitsandbytes__nf4": "NF4", ".quant_state.bitsandbytes__fp4": "FP4"}
"""How names end in a checkpoint that bitsandbytes quantised → the type."""

FAMILY_UNSURE = "FLUX.1 dev or Kontext"
"""Kontext and plain dev have the same tensors; only a file's name tells them apart."""


@dataclass(frozen=True)
class Part:
    """The tensors of one type.

    Attributes:
        kind: the type.
        tensors: how many.
        bytes: of all of them.
    """

    kind: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class CheckpointFacts:
    """A checkpoint as its header describes it.

    Attributes:
        name: of the file.
        family: ``"FLUX.1 Kontext"``, ``"FLUX.1 dev or Kontext"``, ``"FLUX.1 schnell"``, ``"a FLUX.1 variant with extra
            input channels"``, ``"FLUX.1 for Nunchaku"``, or None where it is not FLUX.1.
        takes_references: whether reference tokens can be appended.
        format: of the file.
        quantisation: the type of most of the transformer's bytes.
        mix: all its types, largest first.
        parameters: of the transformer; a packed byte counts as the two 4-bit weights in it.
        transformer_bytes: of the transformer's tensors.
        file_bytes: of the whole file, with text encoders and VAE where it has them.
        storage: by whose names the transformer is stored, and scaled how.
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
    storage: Storage = field(default_factory=Storage)


def checkpoint_facts(path: Path) -> CheckpointFacts:
    """Read a checkpoint's header and identify it.

    Raises:
        KontextError: as ``read_header``.
    """
    return identify(path.name, read_header(path))


def identify(name: str, header: Header) -> CheckpointFacts:
    """Identify a checkpoint by its tensor table.

    Args:
        name: of the file. Kontext and plain dev have the same tensors, so the name alone tells them apart.
        header: its table.
    """
    prefix, layout = _find_transformer(header.tensors)
    tensors = {tensor.name.removeprefix(prefix): tensor for tensor in header.tensors if tensor.name.startswith(prefix)}
    four_bit = _four_bit_type(tensors)
    mix = _mix(tensors.values(), four_bit)
    family, takes_references = (None, False) if layout is None else _family(name, tensors, layout)
    return CheckpointFacts(
        name=name,
        family=family,
        takes_references=takes_references,
        format=header.format,
        quantisation=mix[0].kind,
        mix=mix,
        parameters=sum(_parameters(name, tensors, four_bit) for name in tensors),
        transformer_bytes=sum(tensor.bytes for tensor in tensors.values()),
        file_bytes=header.file_bytes,
        storage=read_storage(header, layout, prefix, tensors),
    )


def _find_transformer(tensors: Iterable[TensorEntry]) -> tuple[str, Layout | None]:
    """Return the prefix of the transformer's names and which layout they follow, None if not FLUX.1."""
    names = [tensor.name for tensor in tensors]
    if any(CHROMA in name for name in names):
        return "", None
    return find_layout(names)


def find_layout(names: Iterable[str]) -> tuple[str, Layout | None]:
    """Return the prefix of the names of a transformer with FLUX.1's blocks, and which layout they follow, or None."""
    for name in names:
        for part, layout in LAYOUTS.items():
            position = name.find(part)
            if position >= 0:
                return name[:position], layout
    return "", None


def _family(file_name: str, tensors: Mapping[str, TensorEntry], layout: Layout) -> tuple[str, bool]:
    """Return the family, and whether it takes references."""
    if layout == "Nunchaku":  # its kernels run all blocks in one piece
        return "FLUX.1 for Nunchaku", False
    embedder = tensors.get("img_in.weight" if layout == "original" else "x_embedder.weight")
    channels = embedder.shape[1] if embedder is not None and len(embedder.shape) == 2 else TOKEN_CHANNELS
    packed = embedder is not None and embedder.kind == "U8"  # 4-bit weights hide their shape
    if channels != TOKEN_CHANNELS and not packed:
        return "a FLUX.1 variant with extra input channels (Fill, Canny or Depth)", False
    guided = any(name.startswith(("guidance_in.", "time_text_embed.guidance_embedder.")) for name in tensors)
    if not guided:
        return "FLUX.1 schnell", True
    return ("FLUX.1 Kontext" if "kontext" in file_name.lower() else FAMILY_UNSURE), True


def _four_bit_type(names: Iterable[str]) -> str | None:
    for name in names:
        for suffix, kind in FOUR_BIT_SUFFIXES.items():
            if name.endswith(suffix):
                return kind
    return None


def _mix(tensors: Iterable[TensorEntry], four_bit: str | None) -> tuple[Part, ...]:
    sizes: dict[str, list[int]] = defaultdict(list)
    for tensor in tensors:
        sizes[four_bit if four_bit and tensor.kind == "U8" else tensor.kind].append(tensor.bytes)
    parts = [Part(kind, len(tensor_bytes), sum(tensor_bytes)) for kind, tensor_bytes in sizes.items()]
    return tuple(sorted(parts, key=lambda part: -part.bytes))


def _parameters(name: str, tensors: Mapping[str, TensorEntry], four_bit: str | None) -> int:
    """Count the parameters of one tensor; what bitsandbytes stores beside its weights are none."""
    elements = math.prod(tensors[name].shape)
    if not four_bit:
        return elements
    if any(marker in name for marker in (".absmax", ".quant_map", ".quant_state", ".nested_")):
        return 0
    return 2 * elements if f"{name}.absmax" in tensors else elements
