"""What the Flux transformers of Forge and of its fork Neo call things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lib_fluxkontext.geometry import TOKEN_CHANNELS, latent_tokens
from lib_fluxkontext.hooks.adapter import Args, Kwargs

CONTROLLED = "ControlNet adds to the picture between the blocks: its steps were computed, with all references."
BLOCKS_PATCHED = "Another extension patches the model's blocks: the steps were computed, with all references."


class ForgeFluxAdapter:
    """``IntegratedFluxTransformer2DModel``: double blocks return (img, txt), single blocks one stream, text first."""

    image_argument = "img"
    ids_argument = "img_ids"
    unbatched: frozenset[str] = frozenset()
    attention_function = "attention_function"
    sequence_axis = 2  # (B, heads, tokens, channels)
    float16_bound = 32768.0  # ``backend.utils.fp16_fix``
    forward_method = "inner_forward"

    def forward_name(self, transformer: nn.Module) -> str:
        return self.forward_method

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

    def image_tokens(self, transformer: nn.Module, height: int, width: int) -> int:
        """Count the tokens of a latent, sides in latent pixels."""
        return latent_tokens(height, width)

    def host_reference_tokens(self, transformer: nn.Module) -> int:
        return sum(rows * columns for rows, columns in self.host_reference_grids(transformer))

    def host_reference_grids(self, transformer: nn.Module) -> list[tuple[int, int]]:
        """Rows and columns in tokens of each reference that the host itself appends; Forge appends none."""
        return []

    @property
    def appends_init_image(self) -> bool:
        """Whether the host itself may give this model img2img's init image as a reference."""
        return False

    def has_init_image(self, engine: object) -> bool:
        """Whether it has done so for the conditionings at hand."""
        return False

    def obstacle(self, arguments: Mapping[str, Any]) -> str | None:
        return None


class NeoFluxAdapter(ForgeFluxAdapter):
    """The class of the same name in Forge Neo, which writes in place and has references of its own.

    Neo's ``forward`` appends init image and ImageStitch's pictures before it calls ``forward_orig``.
    """

    float16_bound = 65504.0
    forward_method = "forward_orig"

    def image_tokens(self, transformer: nn.Module, height: int, width: int) -> int:
        rows, columns = _grid(transformer, height, width)
        return rows * columns

    def host_reference_grids(self, transformer: nn.Module) -> list[tuple[int, int]]:
        from backend.args import dynamic_args

        latents: Sequence[Tensor] = dynamic_args.ref_latents or ()
        return [_grid(transformer, latent.shape[-2], latent.shape[-1]) for latent in latents]

    @property
    def appends_init_image(self) -> bool:
        from backend.args import dynamic_args

        return bool(dynamic_args.kontext or dynamic_args.klein)

    def has_init_image(self, engine: object) -> bool:
        """Neo puts it before ImageStitch's pictures, for the first of several prompts alone."""
        from backend.args import dynamic_args

        return len(dynamic_args.ref_latents or ()) > len(getattr(engine, "ref_latents", ()))

    def obstacle(self, arguments: Mapping[str, Any]) -> str | None:
        if arguments.get("control") is not None:
            return CONTROLLED
        options = arguments.get("transformer_options") or {}
        patched = options.get("patches_replace", {}).get("dit") or options.get("patches", {}).get("post_input")
        return BLOCKS_PATCHED if patched else None


def _grid(transformer: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Rows and columns in tokens of a latent; FLUX.2's tokens are single latent pixels."""
    patch = int(cast(int, transformer.patch_size))
    return -(-height // patch), -(-width // patch)


def flux_adapter(transformer: nn.Module) -> ForgeFluxAdapter | None:
    """Return the adapter for a transformer of Forge's or Neo's, or None if it is not built like FLUX.1.

    FLUX.2 [klein] and others are of the same class in Neo, and their steps can be cached. Chroma has Flux's block lists
    but takes modulations instead of timesteps, and was not trained on references.
    """
    is_flux = "Flux" in type(transformer).__name__
    if is_flux and hasattr(transformer, "double_blocks") and hasattr(transformer, "single_blocks"):
        for adapter in (ForgeFluxAdapter(), NeoFluxAdapter()):
            if hasattr(transformer, adapter.forward_method):
                return adapter
    return None


def why_not_hooked(transformer: nn.Module, engine: str) -> str:
    """Say why there is no adapter for a transformer.

    Args:
        transformer: the one that is loaded.
        engine: name of the class by which Forge drives it.
    """
    if "SVDQ" in type(transformer).__name__ or "Nunchaku" in type(transformer).__name__:
        return "is quantised for Nunchaku (SVDQ), which runs all blocks in one piece, so that none can be hooked"
    return f"is not FLUX (Forge loaded it as {engine})"


def why_no_references(transformer: nn.Module) -> str | None:
    """Say why references of ours cannot be given to this Flux transformer; None where they can."""
    if getattr(transformer, "global_modulation", False) or len(getattr(transformer, "txt_ids_dims", ())):
        return "is a relative of FLUX.1 with other position ids; give it pictures by Forge Neo's own ImageStitch"
    if getattr(transformer, "in_channels", TOKEN_CHANNELS) != TOKEN_CHANNELS:
        return "is a FLUX variant with extra input channels (Fill, Canny or Depth), which cannot take references"
    return None


def hidden_size(transformer: nn.Module) -> int:
    """Channels of the tokens between blocks."""
    return int(getattr(transformer, "hidden_size", 3072))


def computation_dtype(transformer: nn.Module) -> torch.dtype:
    """Dtype of the tokens between blocks, which is not that of quantised weights."""
    return cast(torch.dtype, getattr(transformer, "computation_dtype", torch.float32))
