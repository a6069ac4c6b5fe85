"""A text that is drawn on a picture, broken into lines."""

from __future__ import annotations

from collections.abc import Callable


def wrapped(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """Break a text into lines of a width; a word that is longer is broken, too.

    Args:
        text: one line.
        width: in pixels.
        length: returns a text's width in pixels.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for character in word:
            if lines[-1] and length(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return [line for line in lines if line]
