"""X/Y/Z plot on the page: an axis over the pictures of a folder, and every cell in the run log."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator

from lib_fluxkontext.history.store import RunLog
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL
from tests.support.photos import cat, woman

PLOT = "script_txt2img_xyz_plot"


def choose(page: ForgePage, dropdown: Locator, name: str) -> None:
    """Choose an option of a dropdown by its visible name."""
    dropdown.locator("input").first.fill(name)
    page.page.get_by_role("option", name=name, exact=True).first.click()


def test_each_picture_of_a_folder_makes_a_cell_and_a_run(
    forge_page: ForgeServer, page: ForgePage, tmp_path: Path
) -> None:
    woman().resize((128, 128)).save(tmp_path / "a woman.png")
    cat().resize((128, 96)).save(tmp_path / "b cat.jpg")
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    log = RunLog(forge_page.data / "flux-kontext" / "runs.sqlite")
    newest = max((number for number, _ in log.latest(1)), default=0)
    choose(page, page.page.locator("#txt2img_script_container #script_list"), "X/Y/Z plot")
    # When an axis is chosen, Forge's answer overwrites its values, also what is typed before it comes.
    with page.answered():
        choose(page, page.element(f"{PLOT}_x_type"), "[Kontext] image 1")
    page.settle()
    page.element(f"{PLOT}_x_values").locator("textarea, input").first.fill(str(tmp_path))
    choose(page, page.element(f"{PANEL}_sizing"), "no change")
    page.fill("txt2img_steps", 1)
    page.generate()
    assert "rror" not in page.log()
    made = [run for number, run in reversed(log.latest(10)) if number > newest]
    assert sorted(run.reference_tokens for run in made) == [48, 64]
    assert len({run.seed for run in made}) == 1
