"""Temporarily override an attribute, and keep compilers out of what overrides it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def patched_attr(target: object, name: str, value: Any) -> Iterator[None]:
    """Override an attribute of an instance or a module, and restore what was there (or was not) in any case."""
    attributes = vars(target)
    missing = object()
    before = attributes.get(name, missing)
    attributes[name] = value
    try:
        yield
    finally:
        if before is missing:
            del attributes[name]
        else:
            attributes[name] = before


def untraced(function: Function) -> Function:
    """Keep torch.compile out of a function and all that it calls, where torch.compile is in use at all.

    Hooks are made anew for each call, and decide by values: each step would be traced and compiled again.
    """
    if "torch._dynamo" not in sys.modules:  # importing it takes seconds
        return function
    disabled: Function = torch.compiler.disable(function)
    return disabled
