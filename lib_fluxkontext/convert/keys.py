"""The two key layouts of FLUX.1: the original one (Black Forest Labs), which Forge and ComfyUI read, and diffusers'.

Names were matched by what each implementation's ``forward`` does with the tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from lib_fluxkontext.checkpoints.flux import find_layout
from lib_fluxkontext.checkpoints.storage import Layout
from lib_fluxkontext.errors import KontextError

Value = TypeVar("Value")

TOP = {
    "img_in": ("x_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "txt_in": ("context_embedder",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}
"""Original module → diffusers' modules whose rows it has, in order."""

DOUBLE_BLOCK = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}

SINGLE_BLOCK = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
    "linear2": ("proj_out",),
}

BLOCKS = {
    "double_blocks": ("transformer_blocks", DOUBLE_BLOCK),
    "single_blocks": ("single_transformer_blocks", SINGLE_BLOCK),
}
"""Original list of blocks → diffusers' list, and what a block has."""

SWAPPED = "final_layer.adaLN_modulation.1."
"""The last modulation is (shift, scale) in the original and (scale, shift) in diffusers."""

_BLOCK_NAME = re.compile(r"(double_blocks|single_blocks)\.(\d+)\.(.+)\.(weight|bias|scale)")
_DIFFUSERS_BLOCK = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.")


class Segment(NamedTuple):
    """Rows of a tensor in diffusers' layout: its name, the first row, and the row after the last."""

    name: str
    start: int
    stop: int


def transformer_layout(names: Iterable[str]) -> tuple[str, Layout]:
    """Return the prefix of the transformer's names, and whether they are ``"original"`` or ``"diffusers"``.

    Raises:
        KontextError: neither.
    """
    prefix, layout = find_layout(names)
    if layout not in ("original", "diffusers"):
        raise KontextError("not a FLUX.1 checkpoint: it has none of FLUX.1's tensors")
    return prefix, layout


def without_prefix(tensors: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def diffusers_names(name: str) -> tuple[str, ...]:
    """Return the names in diffusers' layout whose rows a tensor of the original layout has; none if unknown."""
    found = _BLOCK_NAME.fullmatch(name)
    if found is None:
        module, _, kind = name.rpartition(".")
        return tuple(f"{theirs}.{kind}" for theirs in TOP.get(module, ()))
    blocks, index, module, kind = found.groups()
    theirs, modules = BLOCKS[blocks]
    kind = "weight" if kind == "scale" else kind
    return tuple(f"{theirs}.{index}.{part}.{kind}" for part in modules.get(module, ()))


def bfl_names(names: Iterable[str]) -> list[str]:
    """Return the names that tensors in diffusers' layout have in the original one, in its order.

    Raises:
        KontextError: tensors that it has no place for, or fused ones of which a part is missing.
    """
    left = set(names)
    result = []
    ours = {theirs: blocks for blocks, (theirs, _) in BLOCKS.items()}
    counts = dict.fromkeys(BLOCKS, 0)
    for name in left:
        if found := _DIFFUSERS_BLOCK.match(name):
            counts[ours[found[1]]] = max(counts[ours[found[1]]], int(found[2][:4]) + 1)
    for name in _possible_names(counts):
        parts = diffusers_names(name)
        if missing := [part for part in parts if part not in left]:
            if len(missing) < len(parts):
                raise KontextError(f"{missing[0]} is missing, a part of {name}")
            continue
        result.append(name)
    left.difference_update(part for name in result for part in diffusers_names(name))
    if left:
        raise KontextError(f"tensors that FLUX.1 does not have: {', '.join(sorted(left)[:3])}")
    return result


def first_missing(names: Collection[str]) -> str | None:
    """Return a matrix that every FLUX.1 has and these names, of the original layout, lack; or None."""
    counts = dict.fromkeys(BLOCKS, 1)
    for name in names:
        if found := _BLOCK_NAME.fullmatch(name):
            counts[found[1]] = max(counts[found[1]], int(found[2][:4]) + 1)
    needed = (name for name in _possible_names(counts) if name.endswith(".weight"))
    return next((name for name in needed if name not in names and not name.startswith("guidance_in.")), None)


def _possible_names(counts: Mapping[str, int]) -> Iterable[str]:
    """Yield the original layout's names of a transformer with so many blocks."""
    yield from (f"{module}.{kind}" for module in TOP for kind in ("weight", "bias"))
    for blocks, (_, modules) in BLOCKS.items():
        for index in range(counts[blocks]):
            for module in modules:
                kinds = ("scale",) if module.endswith("_norm") else ("weight", "bias")
                yield from (f"{blocks}.{index}.{module}.{kind}" for kind in kinds)


def segments(name: str, rows: int, hidden: int) -> tuple[Segment, ...]:
    """Return which rows of which tensors in diffusers' layout a tensor of the original layout has.

    Args:
        name: of the original layout.
        rows: that it has.
        hidden: the transformer's width, which is the number of rows of a query, key or value.

    Returns:
        The segments in the order of the rows; none where diffusers has no such tensor.
    """
    parts = diffusers_names(name)
    if not parts:
        return ()
    if name.startswith(SWAPPED):
        return Segment(parts[0], rows // 2, rows), Segment(parts[0], 0, rows // 2)
    heights = [hidden] * (len(parts) - 1)
    return tuple(Segment(*pair) for pair in zip(parts, [0] * len(parts), [*heights, rows - sum(heights)], strict=True))


def to_bfl(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a transformer's tensors from diffusers' layout to the original one; fused ones are concatenated.

    Raises:
        KontextError: as ``bfl_names``.
    """
    hidden = weights["x_embedder.weight"].shape[0]
    result = {}
    for name in bfl_names(weights):
        rows = sum(weights[part].shape[0] for part in diffusers_names(name))
        parts = [weights[part][start:stop] for part, start, stop in segments(name, rows, hidden)]
        result[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return result


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a transformer's tensors from the original layout to diffusers'; fused ones are split into views.

    Diffusers' own function does it for FLUX.1's width alone. Like that one, this leaves out what diffusers has no
    place for; its loader complains about what is missing.

    Raises:
        KontextError: no FLUX.1.
    """
    if "img_in.bias" not in weights:
        raise KontextError("not a FLUX.1 checkpoint: img_in.bias is missing")
    hidden = weights["img_in.bias"].shape[0]
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        parts = segments(name, tensor.shape[0] if tensor.ndim else 0, hidden)
        if not parts:
            continue
        if name.startswith(SWAPPED):
            half = tensor.shape[0] // 2
            result[parts[0].name] = torch.cat([tensor[half:], tensor[:half]])
            continue
        start = 0
        for part in parts:
            result[part.name] = tensor[start : start + part.stop] if len(parts) > 1 else tensor
            start += part.stop
    return result
