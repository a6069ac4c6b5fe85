"""Options of every test run, and what its summary says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that repeats all Forge tests in Forge Neo."""
    parser.addoption("--all-hosts", action="store_true", help="run the Forge tests in Forge Neo too, all of them")


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's, which only the whole test command needs
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal tests out by the servers that they share."""
    from tests.support.side_by_side import ByServer

    return ByServer(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once per reason, not once per test, why tests were skipped; a reason says how to enable them."""
    places = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = Counter(place[2].removeprefix("Skipped: ") for place in places if isinstance(place, tuple))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"Skipped {count}: {reason}")
