"""Options of every test run, and what its summary says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

FORGE_TESTS = Path(__file__).parent / "forge"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that repeats all Forge tests in Forge Neo."""
    parser.addoption("--all-hosts", action="store_true", help="run the Forge tests in Forge Neo too, all of them")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep together, where tests run side by side, what shares a server or else a file."""
    item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    host = callspec.params.get("host") if callspec else None
    if FORGE_TESTS not in item.path.parents or host is None:
        return item.path.stem
    servers = {"forge", "plain_forge", "forge_page"} & set(getattr(item, "fixturenames", ()))
    if not servers:
        return f"{host.name}-{item.path.stem}"
    return f"{host.name}-page" if "forge_page" in servers else f"{host.name}-api"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once per reason, not once per test, why tests were skipped; a reason says how to enable them."""
    places = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = Counter(place[2].removeprefix("Skipped: ") for place in places if isinstance(place, tuple))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"Skipped {count}: {reason}")
