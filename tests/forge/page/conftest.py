"""One browser for all tests of the page, and pages in it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import BrowserContext

from tests.support.browser import OpenPage, new_page, start_browser
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL
from tests.support.reload import built_with


@pytest.fixture(scope="package")  # it ends with this folder: tests of others start their own, or use asyncio
def browser(chromium: None) -> Iterator[BrowserContext]:
    """The browser; what gradio's page consists of is loaded once."""
    with start_browser() as context:
        yield context


@pytest.fixture
def open_page(browser: BrowserContext) -> OpenPage:
    """A function that opens an empty page of a width and height."""
    return partial(new_page, browser)


@pytest.fixture
def folded_page(open_page: OpenPage, forge_page: ForgeServer) -> Iterator[ForgePage]:
    """A fresh page with the panel folded."""
    with open_page(1400, 1600) as opened:
        opened.open(forge_page.url)
        yield opened
        assert opened.errors == []


@pytest.fixture
def page(folded_page: ForgePage) -> ForgePage:
    """A fresh page with the txt2img panel and its *Advanced* unfolded and four steps."""
    folded_page.open_accordion(PANEL)
    folded_page.open_accordion(f"{PANEL}_advanced")
    folded_page.fill("txt2img_steps", 4)
    return folded_page


@pytest.fixture
def in_russian(forge_page: ForgeServer) -> Iterator[None]:
    """The language of pages that are opened after it."""
    with built_with(forge_page, "localization", "ru_RU", "None"):
        yield
