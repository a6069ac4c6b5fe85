"""The run log on the panel: show, compare, export, clear."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from lib_fluxkontext.history.store import RunLog
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, check, show_runs, wait_lit


def choose(page: ForgePage, number: int) -> None:
    """Choose a run by its number."""
    box = page.element(f"{PANEL}_runs_chosen").locator("input").first
    box.fill(f"{number} ·")  # narrows the list to it
    box.press("Enter")
    box.press("Escape")


def export(page: ForgePage, button: str, suffix: str) -> bytes:
    """Click one of the run log's export buttons and return the file."""
    page.click(f"{PANEL}_runs_{button}")
    link = page.element(f"{PANEL}_runs_file").locator(f'a[download$="{suffix}"]').first
    link.wait_for()
    with page.page.expect_download() as download:
        link.click()
    return Path(download.value.path()).read_bytes()


@pytest.mark.both_hosts
def test_runs_are_logged_compared_exported_and_cleared(
    page: ForgePage, files: dict[str, Path], forge_page: ForgeServer
) -> None:
    log = RunLog(forge_page.data / "flux-kontext" / "runs.sqlite")
    log.clear()
    check(page, f"{PANEL}_half_size")
    page.drop_image(f"{PANEL}_image1", files["woman"])
    page.fill(f"{PANEL}_threshold", 1.0)
    page.generate()
    page.click(f"{PANEL}_preset_off")
    wait_lit(page, ["Off"])
    page.generate()
    (second, last), (first, before) = log.latest()
    assert (before.cache, last.cache) == ("1, forecast", "off")
    assert before.reused_share == 0.75
    assert before.reference_tokens == 1024
    assert before.thumbnail[:2] == b"\xff\xd8"
    assert before.size == "256×256"
    text = show_runs(page, before.checkpoint)
    assert "Euler" in text
    choose(page, first)
    choose(page, second)
    page.click(f"{PANEL}_runs_compare")
    table = page.element(f"{PANEL}_runs_table")
    table.get_by_text("Faster than the first").wait_for()
    assert table.locator("th img").count() == 2
    markdown = export(page, "markdown", ".md").decode()
    assert len(markdown.splitlines()) == 4
    assert before.checkpoint in markdown
    table_file = export(page, "csv", ".csv")
    assert table_file.startswith(codecs.BOM_UTF8)  # without it Excel reads × as Ã—
    assert table_file.count(b"\r\n") == table_file.count(b"\r") == 3
    page.page.once("dialog", lambda dialog: dialog.accept())
    page.click(f"{PANEL}_runs_clear")
    table.get_by_text("No runs yet").wait_for()
    assert log.count() == 0
