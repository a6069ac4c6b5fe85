"""Servers for tests that need a real Forge; each starts when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import ForgePage, browser_path, open_browser
from tests.support.forge_install import forge_available
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL
from tests.support.photos import cat, woman

FOLDER = Path(__file__).parent
HOOKS = {"FLUX_KONTEXT_TEST_HOOKS": "1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder with ``forge``, and those that open the page with ``browser`` too."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.forge)
            if "chromium" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.browser)


def require_forge() -> None:
    """Skip the test where no Forge is installed."""
    reason = forge_available()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> None:
    """Skip the test where no Chromium is installed."""
    if browser_path() is None:
        pytest.skip("no Chromium was found; install chromium to run the tests of the page")


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
def folded_page(chromium: None, forge_page: ForgeServer) -> Iterator[ForgePage]:
    """A fresh page with the panel folded."""
    with open_browser(1400, 1600) as opened:
        opened.open(forge_page.url)
        yield opened
        assert opened.errors == []


@pytest.fixture
def page(folded_page: ForgePage) -> ForgePage:
    """A fresh page with the txt2img panel unfolded and four steps."""
    folded_page.open_accordion(PANEL)
    folded_page.fill("txt2img_steps", 4)
    return folded_page


CACHED = {"cache": True, "cache_threshold": 0.65}
"""With random weights the first block changes by 0.5 to 0.9 from step to step; 0.65 makes some hit and some miss."""


@pytest.fixture(params=[0, 3], ids=["cache", "cache and reference reuse"])
def cached(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings under which some steps hit and some miss, without and with reference reuse."""
    return CACHED | {"reference_refresh": request.param}
