"""Helpers for tensors with one row per sample."""

from __future__ import annotations

from torch import Tensor


def expand_like(row_values: Tensor, tensor: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, …) so that it broadcasts against ``tensor``, (B, …)."""
    return row_values.reshape(-1, *(1,) * (tensor.ndim - 1))


def same_layout(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree in shape, dtype and device, so that one can stand in for the other."""
    return first.shape == second.shape and first.dtype == second.dtype and first.device == second.device
