"""A folded panel with a reference in it: the page says that it was not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_fluxkontext.hosts.forge.lifecycle.unused import NOTE
from tests.support.forge_page import ForgePage
from tests.support.panel import PANEL


def fold(page: ForgePage) -> None:
    """Fold the panel, which unticks it."""
    page.element(PANEL).locator(".label-wrap").first.click()
    page.settle()


def comments(page: ForgePage) -> str:
    """Return Forge's comments below the gallery."""
    return page.log()


@pytest.mark.both_hosts
def test_a_reference_in_a_folded_panel_is_spoken_of(page: ForgePage, files: dict[str, Path]) -> None:
    page.fill("txt2img_steps", 1)
    page.drop_image(f"{PANEL}_image1", files["woman"])
    fold(page)
    page.generate()
    assert NOTE in comments(page)
    assert "Kontext" not in page.infotext()
    page.open_accordion(PANEL)
    page.generate()
    assert NOTE not in comments(page)
    assert "Kontext image 1" in page.infotext()


def test_a_folded_panel_without_a_reference_says_nothing(page: ForgePage) -> None:
    page.fill("txt2img_steps", 1)
    fold(page)
    page.generate()
    assert "Flux Kontext" not in comments(page)
