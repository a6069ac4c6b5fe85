"""Generations in the page leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from tests.support.browser import OpenPage
from tests.support.forge_server import ForgeServer
from tests.support.leaks import assert_falls_to, counted, handles, threads
from tests.support.panel import PANEL, check, unfold
from tests.support.photos import woman


def test_generations_in_the_page_leave_nothing_behind(
    open_page: OpenPage, forge_page: ForgeServer, tmp_path: Path
) -> None:
    """The page adds Forge's main thread, the live report and gradio's states."""
    woman().save(tmp_path / "woman.png")
    process = psutil.Process(forge_page.process.pid)
    with open_page(1400, 1600) as page:
        page.open(forge_page.url)
        unfold(page)
        page.fill("txt2img_steps", 4)
        for side in ("width", "height"):
            page.fill(f"txt2img_{side}", 64)
        check(page, f"{PANEL}_half_size")
        page.click(f"{PANEL}_preset_fast")
        page.drop_image(f"{PANEL}_image1", tmp_path / "woman.png")

        def generations(count: int) -> dict[str, Any]:
            for _ in range(count):
                page.generate()
            page.click(f"{PANEL}_recommend")
            page.click(f"{PANEL}_undo")
            page.element(f"{PANEL}_undo").and_(page.page.locator(":disabled")).wait_for()
            return counted(forge_page)

        before = generations(2)
        opened, started = handles(process), threads(forge_page)
        assert generations(3) == before
        assert_falls_to(lambda: handles(process), opened, "open handles")
        assert_falls_to(lambda: threads(forge_page), started, "threads")
