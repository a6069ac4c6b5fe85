"""Temporarily override an attribute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
