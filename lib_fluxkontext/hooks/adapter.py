"""What a host's Flux transformer calls its arguments, blocks and streams.

The core knows no transformer. A host gives a layout, and hooks written once serve Forge, its forks and diffusers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn


class TransformerLayout(Protocol):
    """One family of Flux implementations."""

    image_argument: str
    """Name of the forward's argument that holds the image tokens, (B, N, C)."""

    ids_argument: str
    """Name of the argument that holds the image tokens' position ids, (B, N, 3) or (N, 3)."""

    unbatched: frozenset[str]
    """Names of arguments that are the same for every image of a batch."""

    attention_function: str
    """Name of the function that blocks call with queries, keys and values; a global of the blocks' module."""

    sequence_axis: int
    """Axis of the tokens in queries, keys and values."""

    def forward_name(self, transformer: nn.Module) -> str:
        """Name of the method that takes image tokens and ids."""

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks in the order they run: double-stream ones, then single-stream ones."""

    def block_image(self, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
        """Image tokens that a double-stream block is called with."""

    def split(self, output: Any) -> tuple[Tensor, Tensor]:
        """A double-stream block's output as (image tokens, text tokens)."""

    def join(self, image: Tensor, text: Tensor) -> Any:
        """The inverse of ``split``."""

    def unchanged(self, block: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        """What a block of either kind returns if it does nothing."""

    def last_image(self, output: Any, text_tokens: int) -> Tensor:
        """Image tokens in the last block's output; ``text_tokens`` go before them in a joint stream."""


def named_arguments(forward: Any, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Bind a call's arguments to the names of the parameters of ``forward``, a bound method."""
    if not args:  # which also spares wrappers that hide the signature of what they wrap
        return dict(kwargs)
    bound = inspect.signature(forward).bind(*args, **kwargs)
    named = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named.update(named.pop(name, {}))
    return named
