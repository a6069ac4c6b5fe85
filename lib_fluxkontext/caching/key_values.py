"""Keys and values of the reference tokens in one block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class KeyValues:
    """(B, …) each, in the attention's own axes, after rotary embedding."""

    keys: Tensor
    values: Tensor


def same_shapes(stored: KeyValues, new: KeyValues) -> bool:
    """Whether the stored tensors can be overwritten with the new ones; they may lie on different devices."""
    pairs = ((stored.keys, new.keys), (stored.values, new.values))
    return all(old.shape == other.shape and old.dtype == other.dtype for old, other in pairs)
