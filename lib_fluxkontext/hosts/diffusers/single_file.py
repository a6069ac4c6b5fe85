"""The transformer of a single file under diffusers' names; packed weights are decoded, because diffusers cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_fluxkontext.convert.decode import decoded, is_packed
from lib_fluxkontext.convert.keys import to_diffusers, transformer_layout, without_prefix
from lib_fluxkontext.convert.source import open_source
from lib_fluxkontext.errors import KontextError


def read_transformer(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read a transformer's tensors for ``from_single_file``.

    Args:
        path: a ``.safetensors`` or ``.gguf`` file in either layout, alone or with other parts.
        dtype: of weights that are decoded: NF4, FP4, and FP8 with scales. Others stay as they are stored.

    Returns:
        Tensors by name, in diffusers' layout; those of GGUF files as diffusers' own parameters.

    Raises:
        KontextError: truncated, contradictory or no FLUX.1, or bitsandbytes is not installed for what needs it.
    """
    try:
        source = open_source(path)
        prefix, layout = transformer_layout(source.tensors)
        inner = without_prefix(source.tensors, prefix)
        if is_packed(inner):
            weights = {
                name: tensor.rows(0, tensor.shape[0] if tensor.shape else 1).reshape(tensor.shape).to(dtype)
                for name, tensor in decoded(inner).items()
            }
        else:
            weights = without_prefix(_read(path), prefix)
        return to_diffusers(weights) if layout == "original" else weights
    except KontextError as error:
        raise KontextError(error.reason, "checkpoint") from None
    except ImportError:
        raise KontextError(f"{path.name} needs bitsandbytes: pip install bitsandbytes", "checkpoint") from None


def _read(path: Path) -> dict[str, Any]:
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    tensors: dict[str, Any] = load_single_file_checkpoint(str(path))
    return tensors
