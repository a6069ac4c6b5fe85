"""Counts what runs of a transformer under any cache, and undoes what a library's cache leaves on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, nn

from benchmarks.rivals.work import Work
from lib_fluxkontext.hooks.adapter import named_arguments
from lib_fluxkontext.hooks.patch import patched_attr

MLP_RATIO = 4


@contextmanager
def counted(transformer: Any, tokens: int | None = None) -> Iterator[Work]:
    """Count the calls of a ``FluxTransformer2DModel`` and what its last single block processes in them.

    Enter it after every other hook: calls are counted outermost. The part of the last block that runs is weighed by its
    share of the model's multiplications, so that a cache of attention alone (TaylorSeer without its lite mode) counts
    what it still computes. Blocks in front of the last, which First Block Cache and DBCache run in every call, are not
    counted: their share depends on the model's depth. A call that raises is not counted.

    Args:
        transformer: diffusers'.
        tokens: text, picture and references of an uncached call; None reads them from each call's arguments, which is
            right for all that do not take references away themselves.
    """
    work = Work()
    last = transformer.single_transformer_blocks[-1]
    original = transformer.forward
    rows = {"mlp": 0, "attention": 0}

    def count(part: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            rows[part] += output.shape[:-1].numel()

        return hook

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = named_arguments(original, args, kwargs)
        image, text = arguments["hidden_states"], arguments["encoder_hidden_states"]
        rows.update(mlp=0, attention=0)
        output = original(*args, **kwargs)
        whole = tokens or image.shape[1] + text.shape[1]
        processed: float = rows["mlp"]
        if rows["attention"] != rows["mlp"]:
            share = attention_share(transformer.inner_dim, whole)
            processed = share * rows["attention"] + (1 - share) * rows["mlp"]
        work.evaluations += processed / (image.shape[0] * whole)
        work.calls += 1
        return output

    handles = [
        last.proj_mlp.register_forward_hook(count("mlp")),
        last.attn.to_q.register_forward_hook(count("attention")),
    ]
    try:
        with patched_attr(transformer, "forward", forward):
            yield work
    finally:
        for handle in handles:
            handle.remove()


def attention_share(width: int, tokens: int) -> float:
    """Return the share of attention in the multiplications of a single block.

    Per token and in units of width²: queries, keys and values 3, scores and their sum 2 · tokens / width, the MLP and
    the projection of both together 9. (A double block's output projection, 1 more, is left out.)

    Args:
        width: of the transformer.
        tokens: that attend to each other.
    """
    attention = 3 + 2 * tokens / width
    return attention / (attention + 2 * MLP_RATIO + 1)


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Give a module and all its children back the attributes that they had, whatever a library set on them."""
    before = [(child, dict(vars(child)), dict(child._modules)) for child in module.modules()]
    try:
        yield
    finally:
        for child, attributes, children in before:
            vars(child).clear()
            vars(child).update(attributes)
            # cache-dit swaps lists of blocks and puts them back last; diffusers' hooks go by their order.
            child._modules.clear()
            child._modules.update(children)
