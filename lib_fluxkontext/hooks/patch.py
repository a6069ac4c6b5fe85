"""Set an attribute for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(target: object, name: str, value: Any) -> Iterator[None]:
    """Set an instance's or a module's attribute, and put back what was there (or was not) in any case."""
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
