"""Text of a command line, a table or a plot's axis as values.

What cannot be parsed is returned as it came, for the settings to refuse with their own message.
"""

from __future__ import annotations

from typing import Any


def parse_number(text: str) -> Any:
    """Parse a whole number or any other."""
    for number_type in (int, float):
        try:
            return number_type(text)
        except ValueError:
            continue
    return text


def parse_boolean(text: str) -> Any:
    """Parse ``true`` and ``false``, in capitals or not."""
    return {"true": True, "false": False}.get(text.strip().lower(), text)
