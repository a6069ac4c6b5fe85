"""What a host's Flux transformer calls its arguments, blocks and streams.

The core knows no transformer. A host provides an adapter, and hooks written once serve Forge, its forks and diffusers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class TransformerAdapter(Protocol):
    """One family of Flux implementations."""

    @property
    def image_argument(self) -> str:
        """Name of the forward's argument that holds the image tokens, (B, N, C)."""

    @property
    def ids_argument(self) -> str:
        """Name of the argument that holds the image tokens' position ids, (B, N, axes) or (N, axes)."""

    @property
    def unbatched(self) -> frozenset[str]:
        """Names of arguments that are the same for every image of a batch."""

    @property
    def attention_function(self) -> str:
        """Name of the function that blocks call with queries, keys and values; a global of the blocks' module."""

    @property
    def sequence_axis(self) -> int:
        """Axis of the tokens in queries, keys and values."""

    @property
    def float16_bound(self) -> float:
        """Largest magnitude that the last block lets image tokens have in float16."""

    def forward_name(self, transformer: nn.Module) -> str:
        """Name of the method that takes image tokens and ids."""

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks in the order they run: double-stream ones, then single-stream ones."""

    def block_image(self, args: Args, kwargs: Kwargs) -> Tensor:
        """Image tokens that a double-stream block is called with."""

    def split(self, output: Any) -> tuple[Tensor, Tensor]:
        """Split a double-stream block's output into (image tokens, text tokens)."""

    def join(self, image: Tensor, text: Tensor) -> Any:
        """Join image and text tokens: the inverse of ``split``."""

    def unchanged(self, block: nn.Module, args: Args, kwargs: Kwargs) -> Any:
        """What a block of either kind returns if it does nothing."""

    def last_image(self, output: Any, text_tokens: int) -> Tensor:
        """Image tokens in the last block's output; ``text_tokens`` come before them in a joint stream."""

    def host_reference_tokens(self, transformer: nn.Module) -> int:
        """Count the last image tokens that are references which the host itself has appended."""

    def obstacle(self, arguments: Mapping[str, Any]) -> str | None:
        """Say why a forward with these arguments must be computed, for the user; None where it may be cached."""


def named_arguments(forward: Callable[..., Any], args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """Bind a call's arguments to the names of the parameters of ``forward``, a bound method."""
    if not args:  # which also spares wrappers that hide the signature of what they wrap
        return dict(kwargs)
    bound = inspect.signature(forward).bind(*args, **kwargs)
    named = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named.update(named.pop(name, {}))
    return named
