"""Servers for tests that need a real Forge; each starts when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import ForgePage, browser_path, open_browser
from tests.support.forge_install import forge_available
from tests.support.forge_server import ForgeServer
from tests.support.photos import cat, woman

FOLDER = Path(__file__).parent
HOOKS = {"FLUX_KONTEXT_TEST_HOOKS": "1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here by what it needs, so that it can be left out by ``-m``."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.forge)
            if {"page", "forge_page"} & set(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.browser)


def require_forge() -> None:
    """Skip the test where no Forge is installed."""
    reason = forge_available()
    if reason:
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once, not once a test, why tests in a real Forge were skipped and how to enable them."""
    reason = forge_available()
    if reason:
        terminalreporter.write_line(f"Tests in a real Forge were skipped: {reason}")
    elif browser_path() is None:
        terminalreporter.write_line("Tests of the page were skipped: install chromium to run them")


@pytest.fixture(scope="session")
def forge() -> Iterator[ForgeServer]:
    """Forge's API with the extension, the small Flux checkpoint and the test hooks."""
    require_forge()
    with ForgeServer(env=HOOKS) as server:
        yield server


@pytest.fixture(scope="session")
def plain_forge() -> Iterator[ForgeServer]:
    """Forge's API without the extension, to compare with."""
    require_forge()
    with ForgeServer(env=HOOKS, extensions=False) as server:
        yield server


@pytest.fixture(scope="session")
def forge_page() -> Iterator[ForgeServer]:
    """Forge with its page, the extension and the small Flux checkpoint."""
    require_forge()
    with ForgeServer(env=HOOKS, nowebui=False) as server:
        yield server


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two photographs, and one too narrow to be a reference."""
    folder = tmp_path_factory.mktemp("photos")
    woman().save(folder / "woman.png")
    cat().save(folder / "cat.jpg")
    cat().resize((900, 40)).save(folder / "narrow.png")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def page(forge_page: ForgeServer) -> Iterator[ForgePage]:
    """A fresh page with the txt2img panel open."""
    if browser_path() is None:
        pytest.skip("no Chromium was found; install chromium to run the tests of the page")
    with open_browser(1400, 1600) as opened:
        opened.open(forge_page.url)
        opened.open_accordion("txt2img_flux_kontext")
        opened.fill("txt2img_steps", 4)
        yield opened
        assert opened.errors == []


CACHED = {"cache": True, "cache_threshold": 0.65}
"""With random weights the first block changes by 0.5 to 0.9 from step to step; 0.65 makes some hit and some miss."""


@pytest.fixture(params=[0, 3], ids=["cache", "cache and reference reuse"])
def cached(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings under which some steps hit and some miss, without and with reference reuse."""
    return CACHED | {"reference_refresh": request.param}
