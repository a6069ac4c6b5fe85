"""Paragraphs of facts on the panel."""

from __future__ import annotations

from html import escape


def line(text: str, css: str = "") -> str:
    """Render a paragraph.

    Args:
        text: escaped here.
        css: a class of ``style.css``: ``fk-muted``, ``fk-warning`` or ``fk-error``.
    """
    return f'<p class="fk-facts {css}">{escape(text)}</p>'
