"""Hang references and caches on a transformer for the length of one model call, and let go whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lib_fluxkontext.hooks.adapter import TransformerLayout, named_arguments
from lib_fluxkontext.hooks.forward import ForwardPlan
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hooks.patch import replaced


@contextmanager
def attached(transformer: nn.Module, layout: TransformerLayout, call: ModelCall) -> Iterator[None]:
    """While the context lasts, ``transformer`` sees the references and obeys the cache.

    Only the instance's forward and its blocks' are replaced, never a class's. With neither references nor
    cache nothing is touched.
    """
    if call.references is None and call.caches.cache is None:
        yield
        return
    name = layout.forward_name(transformer)
    original = getattr(transformer, name)

    def forward(*args: Any, **kwargs: Any) -> Tensor | tuple:
        arguments = named_arguments(original, args, kwargs)
        return ForwardPlan(transformer, layout, call, original, arguments).run()

    with replaced(transformer, name, forward):
        yield
