"""Ids of everything in the panel; stable, so that user styles, scripts and tests can rely on them."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Flux Kontext"
"""Of the script, in the page and in the API's ``alwayson_scripts``."""


@dataclass(frozen=True)
class ElementIds:
    """Ids of one tab's panel. ``tab`` is ``"txt2img"`` or ``"img2img"``."""

    tab: str

    def of(self, name: str) -> str:
        """``"txt2img_flux_kontext_threshold"`` for ``"threshold"``."""
        return f"{self.tab}_flux_kontext_{name}"

    @property
    def accordion(self) -> str:
        """The panel itself."""
        return f"{self.tab}_flux_kontext"

    @property
    def width(self) -> str:
        """Forge's own width slider."""
        return f"{self.tab}_width"

    @property
    def height(self) -> str:
        """Forge's own height slider."""
        return f"{self.tab}_height"
