"""The parts of diffusers' ``FluxTransformer2DModel`` around its blocks, and a scoped stand-in for its forward.

For caches that skip all blocks. They work on the tokens of the generated picture; what the transformer gives for the
references' tokens is cut off by every caller, so a skipped call gives zeros there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from benchmarks.rivals.counting import counted
from benchmarks.rivals.work import Work
from lib_fluxkontext.hooks.adapter import named_arguments
from lib_fluxkontext.hooks.patch import patched_attr

Grid = tuple[int, int]
"""Rows and columns of the generated picture in tokens."""

Arguments = Mapping[str, Any]
"""Of one call of the transformer, by name."""

Compute = Callable[[], Tensor]
"""Runs the transformer as it is: (B, picture + references, C)."""

Step = Callable[[Compute, Arguments], Tensor]
"""Gives a call's output, (B, picture + references, C), computed or forecast."""


@contextmanager
def replaced_forward(pipeline: Any, step: Step) -> Iterator[Work]:
    """Let ``step`` stand in for the forward of the pipeline's transformer, and count.

    Args:
        pipeline: diffusers'; the transformer's instance is patched, not its class.
        step: called once for each call of the transformer, in order.
    """
    transformer = pipeline.transformer
    original = transformer.forward

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = named_arguments(original, args, kwargs)

        def compute() -> Tensor:
            output: Tensor = original(**{**arguments, "return_dict": False})[0]
            return output

        sample = step(compute, arguments)
        return Transformer2DModelOutput(sample=sample) if arguments.get("return_dict", True) else (sample,)

    with patched_attr(transformer, "forward", forward), counted(transformer) as work:
        yield work


def token_count(grid: Grid) -> int:
    """Return how many tokens the picture has."""
    return grid[0] * grid[1]


def time_embedding(transformer: Any, arguments: Arguments) -> Tensor:
    """Embed timestep, guidance and pooled text as the forward does, (B, width)."""
    dtype = arguments["hidden_states"].dtype
    times = [arguments["timestep"].to(dtype) * 1000]
    if arguments.get("guidance") is not None:
        times.append(arguments["guidance"].to(dtype) * 1000)
    embedding: Tensor = transformer.time_text_embed(*times, arguments["pooled_projections"])
    return embedding


def embedded_picture(transformer: Any, arguments: Arguments, tokens: int) -> Tensor:
    """Embed the picture's tokens as the forward does before the first block, (B, tokens, width)."""
    embedded: Tensor = transformer.x_embedder(arguments["hidden_states"][:, :tokens])
    return embedded


def output_of(transformer: Any, hidden: Tensor, embedding: Tensor, like: Tensor) -> Tensor:
    """Run the output layers on the picture's tokens after the last block.

    Args:
        transformer: diffusers'.
        hidden: (B, tokens, width).
        embedding: of ``time_embedding``.
        like: (B, picture + references, C), what the transformer was given.

    Returns:
        (B, picture + references, C), zeros at the references.
    """
    return padded(transformer.proj_out(transformer.norm_out(hidden, embedding)), like)


def padded(picture: Tensor, like: Tensor) -> Tensor:
    """Append zeros for the references' tokens: (B, tokens, C) → (B, like.shape[1], C)."""
    if picture.shape[1] == like.shape[1]:
        return picture
    output = picture.new_zeros(*picture.shape[:1], like.shape[1], picture.shape[2])
    output[:, : picture.shape[1]] = picture
    return output


def compute_with_hidden(transformer: Any, compute: Compute, tokens: int) -> tuple[Tensor, Tensor]:
    """Run the transformer, and keep what the last block gave for the picture's tokens.

    Returns:
        The output, (B, picture + references, C), and (B, tokens, width) before the output layers.
    """
    kept: list[Tensor] = []

    def keep(module: Any, args: tuple[Tensor, ...]) -> None:
        kept.append(args[0][:, :tokens])

    handle = transformer.norm_out.register_forward_pre_hook(keep)
    try:
        output = compute()
    finally:
        handle.remove()
    return output, kept[-1]


def relative_l1(now: Tensor, before: Tensor) -> float:
    """Return mean|now − before| / mean|before|."""
    return float((now - before).abs().mean() / before.abs().mean())
