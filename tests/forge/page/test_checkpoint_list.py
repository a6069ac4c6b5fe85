"""Another checkpoint is chosen in Forge's list: what the panel says of it follows, and so does the hires button."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import checkpoint_files as checkpoints
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL

LIST = ".model_selection"


@pytest.fixture
def page(page: ForgePage, forge_page: ForgeServer) -> Iterator[ForgePage]:
    """The page; afterwards the small Flux checkpoint is chosen again."""
    yield page
    forge_page.select(checkpoints.FLUX)


def choose(page: ForgePage, forge: ForgeServer, checkpoint: str) -> None:
    """Choose a checkpoint as a user does, and wait until Forge knows."""
    page.page.locator(f"{LIST} input").first.click()
    page.page.get_by_role("option", name=checkpoint).first.click()

    def chosen() -> bool:
        return checkpoint in str(forge.get("/sdapi/v1/options")[1].get("sd_model_checkpoint"))

    page.wait_until(chosen, lambda: f"{checkpoint} to be chosen")


@pytest.mark.both_hosts
def test_the_warning_follows_the_list_of_checkpoints(page: ForgePage, forge_page: ForgeServer) -> None:
    warning = page.element(f"{PANEL}_warning")
    choose(page, forge_page, checkpoints.SD15)
    warning.get_by_text("It takes no references.").wait_for()
    choose(page, forge_page, checkpoints.FLUX)
    warning.get_by_text("It takes no references.").wait_for(state="detached")
    assert checkpoints.FLUX in page.element(f"{PANEL}_checkpoint").text_content()


def test_the_hires_button_looks_at_the_checkpoint_that_samples(
    page: ForgePage, forge_page: ForgeServer, files: dict[str, Path]
) -> None:
    page.fill("txt2img_steps", 1)
    page.fill("txt2img_width", 128)
    page.fill("txt2img_height", 128)
    choose(page, forge_page, checkpoints.SD15)
    page.generate()
    page.drop_image(f"{PANEL}_image1", files["woman"])
    choose(page, forge_page, checkpoints.FLUX)
    page.gallery_before = page.gallery_image()
    page.page.evaluate("window.testIdleSince = 0")
    page.click("txt2img_upscale")
    page.wait_generation_done()
    page.wait_until(lambda: "Kontext image 1" in page.infotext(), lambda: f"its infotext: {page.infotext()}")
