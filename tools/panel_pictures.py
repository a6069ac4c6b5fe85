"""The pictures of the panel in the README, in both themes: ``python dev.py pictures``.

Needs what the tests of the page need: an installed Forge and Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.browser import ForgePage, open_browser
from tests.support.checkpoint_files import REPO_ROOT
from tests.support.forge_install import forge_available
from tests.support.forge_server import ForgeServer
from tests.support.photos import cat, woman

PANEL = "txt2img_flux_kontext"
PICTURES = {"docs/panel.png": False, "docs/panel-dark.png": True}
"""Path → whether dark."""


def set_scene(page: ForgePage, folder: Path, steps: int = 12) -> None:
    """Two photographs, a generation with steps of several kinds, and the run log.

    Args:
        page: with the txt2img tab open.
        folder: for the photographs.
        steps: of the generation.
    """
    woman().save(folder / "woman.png")
    cat().save(folder / "cat.jpg")
    page.open_accordion(PANEL)
    page.drop_image(f"{PANEL}_image1", folder / "woman.png")
    page.drop_image(f"{PANEL}_image2", folder / "cat.jpg")
    page.element(f"{PANEL}_half_size").locator("input").check()
    page.fill("txt2img_steps", steps)
    page.fill(f"{PANEL}_threshold", 0.6)
    page.fill(f"{PANEL}_reference_refresh", 4)
    page.element(f"{PANEL}_facts2").get_by_text("624×416").wait_for(timeout=15000)
    page.generate()
    page.report()
    page.open_accordion(f"{PANEL}_runs")
    page.click(f"{PANEL}_runs_show")
    page.element(f"{PANEL}_runs_table").locator("tbody tr").first.wait_for(timeout=15000)
    page.page.evaluate("document.activeElement.blur()")


def main() -> int:
    """Renew the pictures."""
    reason = forge_available()
    if reason:
        print(reason)
        return 1
    with ForgeServer(nowebui=False) as server, tempfile.TemporaryDirectory() as folder:
        for name, dark in PICTURES.items():
            with open_browser(1400, 2200) as page:
                page.open(server.url, dark=dark)
                set_scene(page, Path(folder))
                page.element(PANEL).screenshot(path=str(REPO_ROOT / name))
                print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
