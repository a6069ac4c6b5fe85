"""Servers for tests that need a real Forge; each starts when the first test asks for it.

Tests, and single cases of them, that use ``host`` or a server run in Forge; those marked ``both_hosts`` in Forge Neo
as well, and with ``--all-hosts`` all but those marked ``forge_only``. Neo's come last, after Forge's servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import browser_path
from tests.support.forge_install import FORGE, HOSTS, NEO, Host
from tests.support.forge_server import ForgeServer
from tests.support.photos import cat, woman

FOLDER = Path(__file__).parent
HOOKS = {"FLUX_KONTEXT_TEST_HOOKS": "1"}
SMALL_PAGE = {"FLUX_KONTEXT_SMALL_PAGE": "1"}

HIDDEN_TABS = ["Extensions", "Checkpoint Merger"]
"""Not "Extras": Neo's page fails without."""

KEPT_EXTENSIONS = {"prompt-bracket-checker", "sd_forge_controlnet", "sd_forge_image_stitch", "sd_forge_lora"}
"""Of those that come with a host, what people use beside Kontext on its page. The API's servers have them all."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a test in every host; those that it is not for are taken out again below."""
    if "host" in metafunc.fixturenames:
        metafunc.parametrize("host", HOSTS, indirect=True, scope="session", ids=[host.name for host in HOSTS])


@pytest.hookimpl(hookwrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark every test of this folder with ``forge``, those that open the page with ``browser``; put Neo's last."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.forge)
            if "chromium" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.browser)
    yield  # pytest selects by marks, and sorts by fixtures
    all_hosts = config.getoption("all_hosts")
    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item, all_hosts)])
    order = longest_first if hasattr(config, "workerinput") else neo_last  # pytest-xdist's
    items[:] = sorted((item for item in items if is_wanted(item, all_hosts)), key=order)


def neo_last(item: pytest.Item) -> int:
    """Sort what runs one after the other: a host's servers end before those of the next start."""
    return int(host_of(item) is NEO)


def longest_first(item: pytest.Item) -> int:
    """Sort what runs side by side: the long groups first, so that no process waits for another's at the end."""
    return neo_last(item) if FOLDER in item.path.parents else 2


def is_wanted(item: pytest.Item, all_hosts: bool) -> bool:
    """Return whether a test, or this case of it, is for the host that it would run in."""
    marks = {mark.name for mark in item.iter_markers()}
    if host_of(item) is FORGE:
        return "neo_only" not in marks
    if host_of(item) is NEO:
        return "neo_only" in marks or ("forge_only" not in marks and (all_hosts or "both_hosts" in marks))
    return True


def host_of(item: pytest.Item) -> Host | None:
    """Return the host that a test runs in, if it runs in one."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("host") if callspec else None


def require(host: Host) -> None:
    """Skip the test where the host is not installed."""
    reason = host.unavailable()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> None:
    """Skip the test where no Chromium is installed."""
    if browser_path() is None:
        pytest.skip("no Chromium was found; install chromium to run the tests of the page")


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> Host:
    """The WebUI, Forge or Forge Neo; the next one is asked for when no test needs this one's servers any more."""
    require(request.param)
    return request.param


@pytest.fixture(scope="session")
def forge(host: Host) -> Iterator[ForgeServer]:
    """The API with the extension, the small Flux checkpoint and the test hooks."""
    with ForgeServer(host=host, env=HOOKS) as server:
        yield server


@pytest.fixture(scope="session")
def plain_forge(host: Host) -> Iterator[ForgeServer]:
    """The API without the extension, to compare with."""
    with ForgeServer(host=host, env=HOOKS, extensions=False) as server:
        yield server


@pytest.fixture(scope="session")
def forge_page(host: Host) -> Iterator[ForgeServer]:
    """The page, with the extension, the small Flux checkpoint and few parts of others, which make it slow."""
    disabled = sorted(host.builtin_extensions - KEPT_EXTENSIONS)
    fewer = {"disabled_extensions": disabled, "hidden_tabs": HIDDEN_TABS}
    with ForgeServer(host=host, env=HOOKS | SMALL_PAGE, settings=fewer, nowebui=False) as server:
        yield server


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two photographs, and one too narrow to be a reference."""
    folder = tmp_path_factory.mktemp("photos")
    woman().save(folder / "woman.png")
    cat().save(folder / "cat.jpg")
    cat().resize((900, 40)).save(folder / "narrow.png")
    return {path.stem: path for path in folder.iterdir()}


CACHED = {"cache": True, "cache_threshold": 0.65}
"""With random weights the first block changes by 0.5 to 0.9 from step to step; 0.65 makes some hit and some miss."""


@pytest.fixture(params=[0, 3], ids=["cache", "cache and reference reuse"])
def cached(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings under which some steps hit and some miss, without and with reference reuse."""
    return CACHED | {"reference_refresh": request.param}
