"""What diffusers' ``FluxTransformer2DModel`` calls things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from lib_fluxkontext.hooks.adapter import Args, Kwargs


class DiffusersFluxAdapter:
    """Blocks of both kinds take and return text and image apart, text first."""

    image_argument = "hidden_states"
    ids_argument = "img_ids"
    unbatched = frozenset({"img_ids", "txt_ids"})
    attention_function = "dispatch_attention_fn"
    sequence_axis = 1  # (B, tokens, heads, channels)
    float16_bound = 65504.0  # ``FluxSingleTransformerBlock.forward``

    def forward_name(self, transformer: nn.Module) -> str:
        return "forward"

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        double_blocks = cast(nn.ModuleList, transformer.transformer_blocks)
        single_blocks = cast(nn.ModuleList, transformer.single_transformer_blocks)
        return [*double_blocks, *single_blocks]

    def block_image(self, args: Args, kwargs: Kwargs) -> Tensor:
        image: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        return image

    def split(self, output: Any) -> tuple[Tensor, Tensor]:
        text, image = output
        return image, text

    def join(self, image: Tensor, text: Tensor) -> Any:
        return text, image

    def unchanged(self, block: nn.Module, args: Args, kwargs: Kwargs) -> Any:
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        return text, self.block_image(args, kwargs)

    def last_image(self, output: Any, text_tokens: int) -> Tensor:
        image: Tensor = output[1]
        return image

    def host_reference_tokens(self, transformer: nn.Module) -> int:
        return 0  # the pipeline's own ``image`` is not used

    def obstacle(self, arguments: Mapping[str, Any]) -> str | None:
        return None
