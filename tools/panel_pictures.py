"""Take the documentation's pictures of the panel: ``python dev.py pictures``.

Each shows one state of the panel, light and dark side by side, on a desktop's page and on a phone's. Needs an installed
Forge and Chromium, like the tests of the page.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.support.browser import open_browser
from tests.support.forge_install import FORGE, REPO_ROOT
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, check, drop_both, facts, lay_out, save_photos, select, unfold, unfold_report

THEMES = {"light": False, "dark": True}
"""Name → whether it is dark."""

DESKTOP, PHONE = 1452, 390
"""Widths of the page in pixels; the panel is 660 wide on the first."""

STATES = ("empty", "ready", "running", "finished", "advanced")
PICTURE = REPO_ROOT / "docs" / "panel.png"
"""The README's: a finished generation, on a desktop's page."""

GAP = 24
"""Pixels between two pictures."""


def main() -> int:
    """Renew the pictures."""
    reason = FORGE.unavailable()
    if reason:
        print(reason)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for theme, dark in THEMES.items():
            # A server for each: it shows its last report to whoever opens the page.
            with ForgeServer(nowebui=False) as server, open_browser(DESKTOP, 2600) as page:
                page.open(server.url, dark=dark)
                take_states(page, folder, theme)
        save(folder, [f"finished-{theme}-{DESKTOP}" for theme in THEMES], PICTURE)
        for state in STATES:
            shots = [f"{state}-{theme}-{width}" for width in (DESKTOP, PHONE) for theme in THEMES]
            save(folder, shots, PICTURE.with_name(f"panel_{state}.png"))
    return 0


def take_states(page: ForgePage, folder: Path, theme: str) -> None:
    """Take the panel from its first sight to all that it can show.

    Args:
        page: just opened.
        folder: for the pictures.
        theme: one of ``THEMES``.
    """
    page.open_accordion(PANEL)
    take(page, folder, f"empty-{theme}")
    drop_both(page, save_photos(folder))
    page.element(f"{PANEL}_more_slots").wait_for(state="visible")
    take(page, folder, f"ready-{theme}")

    unfold(page)
    check(page, f"{PANEL}_half_size")
    facts(page, 2, "624×416")
    page.element(f"{PANEL}_advanced").locator(".label-wrap").first.click()
    page.fill(f"{PANEL}_threshold", 0.6)
    page.fill("txt2img_steps", 16)
    page.start_generation()
    strip = page.element(f"{PANEL}_report").locator(".fk-live .fk-strip")
    strip.get_by_text(re.compile(r"^([4-9]|1\d) of 16$")).wait_for(timeout=120000)
    take(page, folder, f"running-{theme}")
    page.wait_generation_done(timeout=240)
    page.report()
    unfold_report(page)
    page.element(f"{PANEL}_report").locator(".fk-change-legend").wait_for()
    take(page, folder, f"finished-{theme}")

    unfold(page)
    select(page, f"{PANEL}_stitch", "row")
    page.element(f"{PANEL}_stitched").locator("img").wait_for()
    page.element(f"{PANEL}_report").locator("details[data-fk-fold=comparison] > summary").click()
    page.element(f"{PANEL}_comparison").locator("input").fill("85")  # the small model's result is noise
    page.open_accordion(f"{PANEL}_runs")
    page.click(f"{PANEL}_runs_show")
    page.element(f"{PANEL}_runs_table").locator("tbody tr").first.wait_for()
    take(page, folder, f"advanced-{theme}")


def take(page: ForgePage, folder: Path, name: str) -> None:
    """Take the panel on both widths of the page."""
    page.page.evaluate("document.activeElement.blur()")
    for width in (PHONE, DESKTOP):
        lay_out(page, width)
        page.element(PANEL).screenshot(path=str(folder / f"{name}-{width}.png"))


def save(folder: Path, names: list[str], path: Path) -> None:
    """Join pictures and save them."""
    side_by_side([Image.open(folder / f"{name}.png").convert("RGBA") for name in names]).save(path, optimize=True)
    print(path.relative_to(REPO_ROOT))


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
