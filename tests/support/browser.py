"""Headless Chromium, through Playwright and an installed browser."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from playwright.sync_api import BrowserContext, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.support.forge_page import ForgePage

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

OpenPage = Callable[[int, int], AbstractContextManager[ForgePage]]
"""Opens an empty page of a width and height."""


def browser_path() -> str | None:
    """Find an installed Chromium or Chrome; return its path or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def start_browser() -> Iterator[BrowserContext]:
    """Start a browser with a profile of its own, whose cache its pages share; close it at the end.

    Until then another cannot be started in the same thread, nor can asyncio run there.
    """
    path = browser_path()
    if path is None:
        raise RuntimeError("no Chromium or Chrome was found on PATH")
    folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
    with folder as profile, sync_playwright() as playwright:
        start = playwright.chromium.launch_persistent_context
        context = start(profile, executable_path=path, headless=True, args=ARGUMENTS)
        try:
            yield context
        finally:
            context.close()


@contextmanager
def new_page(context: BrowserContext, width: int = 1400, height: int = 1000) -> Iterator[ForgePage]:
    """Open an empty page of this size that knows nothing of those before; close it at the end."""
    context.clear_cookies()
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    try:
        yield ForgePage(page)
    finally:
        # Chromium did once never end the closing of a page with Forge's in it, and Playwright waits for that for ever.
        try:
            page.goto("about:blank", timeout=15000)
        except PlaywrightError:
            pass  # it closes with the browser
        else:
            page.close()


@contextmanager
def open_browser(width: int = 1400, height: int = 1000) -> Iterator[ForgePage]:
    """Start a browser for one page of this size; close it at the end."""
    with start_browser() as context, new_page(context, width, height) as page:
        yield page
