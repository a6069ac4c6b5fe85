"""Where attention should look: some heads are taught to find the reference tokens that an answer is made of.

The flow loss alone rewards a head only once it nearly points at the right token, so that moving a picture is learned
late. But the place is known: an answer's token comes from certain tokens of the references, and which ones depends on
the instruction and the layout alone. So the attention of two heads in a few blocks gets a cross entropy to them
(supervised attention, Liu et al. 2016, arXiv 1609.04186). Each head looks for one quarter of its token, so that a
picture that shrinks to half its size can be put together: four tokens averaged would be a blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from PIL import Image
from torch import Tensor

from tools.small_kontext.courses import Layout
from tools.small_kontext.instructions import KINDS, Instruction
from tools.small_kontext.targets import example

TOKEN = 16
"""Side of a token in pixels."""

HEADS: dict[str, tuple[int, int]] = {
    "transformer_blocks.3": (0, 1),
    "single_transformer_blocks.1": (2, 3),
    "single_transformer_blocks.3": (0, 1),
    "single_transformer_blocks.5": (2, 3),
}
"""Blocks whose first two heads are supervised, and the quarter that each looks for: by the row, from the top left."""

MOVES = (*KINDS, "inset", "mirror")
"""What takes its tokens from elsewhere than the same place of the first reference."""


def _coordinates(number: int, width: int, height: int) -> Image.Image:
    """Return a picture whose red and green say the token's column and row, and its blue the reference."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 4 + 8 * (np.arange(width) // TOKEN)[None]
    pixels[..., 1] = 4 + 8 * (np.arange(height) // TOKEN)[:, None]
    pixels[..., 2] = 64 + 128 * number
    return Image.fromarray(pixels)


@cache
def sources(instruction: Instruction, layout: Layout) -> Tensor:
    """Return the shares of the reference tokens in each quarter of each token of the answer.

    They are found by following pictures of coordinates through the exact answer. Rows add up to 1, or are 0 where
    nothing comes from a reference. An edit that moves nothing counts as a copy of the first reference.

    Returns:
        (4, answer tokens, reference tokens).
    """
    if instruction.kind not in MOVES:
        instruction = Instruction("first")
    pictures = [_coordinates(number, *size) for number, size in enumerate(layout.references)]
    answer = np.asarray(example(instruction, *(*pictures, None, None)[:2], layout.canvas).target).astype(int)
    columns, rows = answer[..., 0] // 8, answer[..., 1] // 8
    high, wide = layout.canvas[1] // TOKEN, layout.canvas[0] // TOKEN
    place = np.arange(2 * high)[:, None], np.arange(2 * wide)[None]
    quarters = (2 * (place[0] % 2) + place[1] % 2) * high * wide + place[0] // 2 * wide + place[1] // 2
    quarters = quarters.repeat(TOKEN // 2, 0).repeat(TOKEN // 2, 1)
    parts = []
    for number, size in enumerate(layout.references):
        across, down = size[0] // TOKEN, size[1] // TOKEN
        here = abs(answer[..., 2] - (64 + 128 * number)) < 32
        places = rows.clip(0, down - 1) * across + columns.clip(0, across - 1)
        part = np.zeros((4 * high * wide, across * down), np.float32)
        np.add.at(part, (quarters[here], places[here]), 4 / TOKEN**2)
        parts.append(part)
    found = np.concatenate(parts, 1) if parts else np.zeros((4 * high * wide, 0), np.float32)
    sums = found.sum(1, keepdims=True)
    shares = np.where(sums > 0.5, found / sums.clip(1e-6), 0).astype(np.float32)
    return torch.from_numpy(shares).reshape(4, high * wide, -1)


class Pointing:
    """Keeps queries and keys of the supervised heads during a forward pass, and says how far off they look."""

    def __init__(self, model: FluxTransformer2DModel) -> None:
        self.model = model
        self.kept: dict[str, dict[str, Tensor]] = {name: {} for name in HEADS}
        for name in HEADS:
            attention = model.get_submodule(name).attn
            for part in ("norm_q", "norm_k", "norm_added_k"):
                norm = getattr(attention, part, None)
                if norm is not None:
                    norm.register_forward_hook(self._keep(name, part))

    def _keep(self, name: str, part: str):
        def hook(module: torch.nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            self.kept[name][part] = result[:, :, :2].float()

        return hook

    def loss(self, wanted: Tensor, ids: Tensor, text: int) -> Tensor:
        """Return the mean Kullback-Leibler divergence of the last forward pass's attention from the wanted one.

        Args:
            wanted: (N, 4, answer tokens, reference tokens) as ``sources`` gives them.
            ids: position ids of all image tokens, (tokens, 3).
            text: number of text tokens.
        """
        answer, references = wanted.shape[2:]
        rotation = self.model.pos_embed(torch.cat([ids.new_zeros(text, 3), ids]))
        entropy = -(wanted * wanted.clamp_min(1e-9).log()).sum(-1)
        counted = wanted.sum(-1) > 0
        losses = []
        for name, kept in self.kept.items():
            quarters = list(HEADS[name])
            queries, keys = kept["norm_q"], kept["norm_k"]
            if "norm_added_k" in kept:
                keys = torch.cat([kept["norm_added_k"], keys], 1)
                queries = torch.cat([queries.new_zeros(len(queries), text, *queries.shape[2:]), queries], 1)
            queries = apply_rotary_emb(queries, rotation, sequence_dim=1)[:, text : text + answer]
            keys = apply_rotary_emb(keys, rotation, sequence_dim=1)
            logits = torch.einsum("nqhd,nkhd->nhqk", queries, keys) / queries.shape[-1] ** 0.5
            log_shares = logits.log_softmax(-1)[..., -references:]
            away = -(wanted[:, quarters] * log_shares).sum(-1) - entropy[:, quarters]
            losses.append(away[counted[:, quarters]])
        return torch.cat(losses).mean()


def wanted_sources(instructions: Sequence[Instruction], layout: Layout, device: str) -> Tensor:
    """Return ``sources`` of a batch, (N, 4, answer tokens, reference tokens)."""
    return torch.stack([sources(instruction, layout) for instruction in instructions]).to(device)
