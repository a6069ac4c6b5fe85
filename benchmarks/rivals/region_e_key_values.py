"""RegionE's Region-Instruction KV cache: keys and values of the tokens that a region step does not compute.

``FluxTransformer2DModel``'s blocks call ``dispatch_attention_fn`` of their module, once each and in order, with
queries, keys and values after rotary embedding, (B, tokens, heads, channels). Attention does not care in which order
keys come.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lib_fluxkontext.hooks.patch import patched_attr

KeyValues = tuple[Tensor, Tensor]
"""Keys and values of one block, (B, tokens, heads, channels)."""

OnAttention = Callable[[int, Tensor, Tensor], KeyValues]
"""Block index, keys and values → what its attention shall see."""


@contextmanager
def hooked_attention(transformer: nn.Module, on_attention: OnAttention) -> Iterator[None]:
    """Hook the attention of all blocks for one forward of the transformer.

    Raises:
        RuntimeError: at the end, a block did not call it exactly once.
    """
    blocks: list[Any] = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]  # type: ignore[misc]
    module = sys.modules[type(blocks[0]).__module__]
    original = module.dispatch_attention_fn
    calls = 0

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        key, value = on_attention(calls, key, value)
        calls += 1
        output: Tensor = original(query, key, value, *args, **kwargs)
        return output

    with patched_attr(module, "dispatch_attention_fn", attention):
        yield
    if calls != len(blocks):
        raise RuntimeError(f"{len(blocks)} blocks called attention {calls} times")


@dataclass
class Region:
    """Pictures of a batch with the same edited tokens, and what the other tokens left in every block.

    Attributes:
        rows: (r,) the pictures.
        edited: (e,) indices of the edited tokens.
        kept: (k,) indices of all others, the picture's and the references'.
        buffers: keys and values of each block, (r, text + e + k, heads, channels): those of the edited tokens and the
            text are overwritten in every region step, so that nothing but them is copied.
    """

    rows: Tensor
    edited: Tensor
    kept: Tensor
    buffers: list[KeyValues] = field(default_factory=list)

    def on_attention(self, block: int, keys: Tensor, values: Tensor) -> KeyValues:
        """Complete the keys and values of text and edited tokens by those kept."""
        all_keys, all_values = self.buffers[block]
        all_keys[:, : keys.shape[1]] = keys
        all_values[:, : values.shape[1]] = values
        return all_keys, all_values


def same_regions(edited: Tensor, tokens: int) -> list[Region]:
    """Group pictures whose edited tokens are the same.

    Args:
        edited: (B, n) bool.
        tokens: of picture and references, n or more.
    """
    groups: dict[bytes, list[int]] = {}
    for row, mask in enumerate(edited.cpu()):
        groups.setdefault(mask.numpy().tobytes(), []).append(row)
    regions = []
    for rows in groups.values():
        mask = torch.nn.functional.pad(edited[rows[0]], (0, tokens - edited.shape[1]))
        index = torch.tensor(rows, device=edited.device)
        regions.append(Region(index, mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]))
    return regions


def keep_key_values(regions: Sequence[Region], full: list[KeyValues]) -> None:
    """Fill the regions' buffers from a full step.

    Args:
        regions: of all pictures.
        full: keys and values of all tokens, block by block, text first; emptied on the way to spare memory.
    """
    for region in regions:
        region.buffers.clear()
    full.reverse()
    while full:
        keys, values = full.pop()
        for region in regions:
            if len(region.edited):
                region.buffers.append((_kept(keys, region), _kept(values, region)))


def _kept(tensor: Tensor, region: Region) -> Tensor:
    text = tensor.shape[1] - len(region.edited) - len(region.kept)
    buffer = tensor.new_empty(len(region.rows), *tensor.shape[1:])
    buffer[:, text + len(region.edited) :] = tensor[region.rows[:, None], text + region.kept]
    return buffer
