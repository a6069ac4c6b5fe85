"""Element ids of the panel. They are stable, so that user styles, scripts and tests can rely on them."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Flux Kontext"
"""Title of the script, on the page and in the API's ``alwayson_scripts``."""


@dataclass(frozen=True)
class ElementIds:
    """Ids of one tab's panel.

    Attributes:
        tab: ``"txt2img"`` or ``"img2img"``.
    """

    tab: str

    def of(self, name: str) -> str:
        """Return the id of a component: ``"txt2img_flux_kontext_threshold"`` for ``"threshold"``."""
        return f"{self.tab}_flux_kontext_{name}"

    @property
    def accordion(self) -> str:
        """The panel itself."""
        return f"{self.tab}_flux_kontext"
