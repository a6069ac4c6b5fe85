"""X/Y/Z plot on the page: an axis of pictures out of a folder, and every cell in the run log."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator

from lib_fluxkontext.history.store import RunLog
from tests.support.browser import SETTLED, ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.photos import cat, woman

PLOT = "script_txt2img_xyz_plot"


def choose(page: ForgePage, dropdown: Locator, name: str) -> None:
    """Choose from a dropdown by its visible name."""
    dropdown.locator("input").first.fill(name)
    page.page.get_by_role("option", name=name, exact=True).first.click()


def test_pictures_of_a_folder_make_a_grid_and_a_run_each(
    forge_page: ForgeServer, page: ForgePage, tmp_path: Path
) -> None:
    woman().resize((128, 128)).save(tmp_path / "a woman.png")
    cat().resize((128, 96)).save(tmp_path / "b cat.jpg")
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    log = RunLog(forge_page.data / "flux-kontext" / "runs.sqlite")
    newest = max((number for number, _ in log.latest(1)), default=0)
    choose(page, page.page.locator("#txt2img_script_container #script_list"), "X/Y/Z plot")
    # Forge answers a chosen axis with the values that stood there before, over whatever is typed until then.
    with page.page.expect_request_finished(lambda request: "/queue/data" in request.url):
        choose(page, page.element(f"{PLOT}_x_type"), "[Kontext] image 1")
    page.page.wait_for_function(SETTLED)
    page.element(f"{PLOT}_x_values").locator("textarea, input").first.fill(str(tmp_path))
    choose(page, page.element("txt2img_flux_kontext_sizing"), "no change")
    page.fill("txt2img_steps", 1)
    page.generate()
    assert "rror" not in page.log()
    made = [run for number, run in reversed(log.latest(10)) if number > newest]
    assert sorted(run.reference_tokens for run in made) == [48, 64]
    assert len({run.seed for run in made}) == 1
