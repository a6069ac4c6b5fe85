"""What Forge's Flux transformer, and that of its fork Neo, call things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lib_fluxkontext.hooks.adapter import Args, Kwargs


class ForgeFluxAdapter:
    """``IntegratedFluxTransformer2DModel``: double blocks return (img, txt), single blocks one stream, text first."""

    image_argument = "img"
    ids_argument = "img_ids"
    unbatched: frozenset[str] = frozenset()
    attention_function = "attention_function"
    sequence_axis = 2  # (B, heads, tokens, channels)
    float16_bound = 16384.0  # ``backend.utils.fp16_fix``

    def forward_name(self, transformer: nn.Module) -> str:
        """``inner_forward`` in Forge, ``forward_orig`` in Neo."""
        return "inner_forward" if hasattr(transformer, "inner_forward") else "forward_orig"

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        double_blocks = cast(nn.ModuleList, transformer.double_blocks)
        single_blocks = cast(nn.ModuleList, transformer.single_blocks)
        return [*double_blocks, *single_blocks]

    def block_image(self, args: Args, kwargs: Kwargs) -> Tensor:
        image: Tensor = kwargs["img"] if "img" in kwargs else args[0]
        return image

    def split(self, output: Any) -> tuple[Tensor, Tensor]:
        image, text = output
        return image, text

    def join(self, image: Tensor, text: Tensor) -> Any:
        return image, text

    def unchanged(self, block: nn.Module, args: Args, kwargs: Kwargs) -> Any:
        if hasattr(block, "img_attn"):  # a double-stream block
            return self.block_image(args, kwargs), kwargs["txt"] if "txt" in kwargs else args[1]
        return kwargs["x"] if "x" in kwargs else args[0]

    def last_image(self, output: Any, text_tokens: int) -> Tensor:
        image: Tensor = output[:, text_tokens:]
        return image


def flux_adapter(transformer: nn.Module) -> ForgeFluxAdapter | None:
    """Return the adapter for a transformer of Forge's, or None if it is not Flux.

    Chroma has Flux's block lists but takes modulations instead of timesteps, and was not trained on references.
    """
    is_flux = "Flux" in type(transformer).__name__
    if is_flux and hasattr(transformer, "double_blocks") and hasattr(transformer, "single_blocks"):
        return ForgeFluxAdapter()
    return None


def hidden_size(transformer: nn.Module) -> int:
    """Channels of the tokens between blocks."""
    return int(getattr(transformer, "hidden_size", 3072))


def computation_dtype(transformer: nn.Module) -> torch.dtype:
    """Dtype of the tokens between blocks, which is not that of quantised weights."""
    return cast(torch.dtype, getattr(transformer, "computation_dtype", torch.float32))
