"""Paragraphs of facts on the panel."""

from __future__ import annotations

import re
from html import escape

_WARNINGS = re.compile(r'<p class="fk-facts fk-(?:warning|error)">.*?</p>', re.DOTALL)


def line(text: str, css: str = "") -> str:
    """Render a paragraph.

    Args:
        text: escaped here.
        css: a class of ``style.css``: ``fk-muted``, ``fk-warning`` or ``fk-error``.
    """
    return f'<p class="fk-facts {css}">{escape(text)}</p>'


def warnings_in(lines: str) -> str:
    """Return the warnings and errors among rendered lines."""
    return "".join(_WARNINGS.findall(lines))
