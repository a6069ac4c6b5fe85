"""Lines of plain facts on the panel."""

from __future__ import annotations

from html import escape


def line(text: str, css: str = "") -> str:
    """A paragraph; ``css`` is one of ``style.css``: ``fk-muted``, ``fk-warning``, ``fk-error``."""
    return f'<p class="fk-facts {css}">{escape(text)}</p>'
