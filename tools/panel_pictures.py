"""Take the README's picture of the panel, light and dark side by side: ``python dev.py pictures``.

Needs an installed Forge and Chromium, like the tests of the page.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.support.browser import open_browser
from tests.support.forge_install import FORGE, REPO_ROOT
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, set_scene

THEMES = {"light": False, "dark": True}
"""Name → whether it is dark."""

PICTURE = REPO_ROOT / "docs" / "panel.png"
GAP = 24
"""Pixels between the two."""


def main() -> int:
    """Renew the picture."""
    reason = FORGE.unavailable()
    if reason:
        print(reason)
        return 1
    with ForgeServer(nowebui=False) as server, tempfile.TemporaryDirectory() as folder:
        shots = []
        for theme, dark in THEMES.items():
            with open_browser(1400, 2200) as page:
                page.open(server.url, dark=dark)
                set_scene(page, Path(folder))
                path = Path(folder) / f"{theme}.png"
                page.element(PANEL).screenshot(path=str(path))
                shots.append(Image.open(path).convert("RGBA"))
    side_by_side(shots).save(PICTURE, optimize=True)
    print(PICTURE.relative_to(REPO_ROOT))
    return 0


def side_by_side(shots: list[Image.Image]) -> Image.Image:
    """Join pictures, tops aligned, on a transparent ground."""
    width = sum(shot.width for shot in shots) + GAP * (len(shots) - 1)
    joined = Image.new("RGBA", (width, max(shot.height for shot in shots)))
    left = 0
    for shot in shots:
        joined.paste(shot, (left, 0))
        left += shot.width + GAP
    return joined


if __name__ == "__main__":
    sys.exit(main())
