"""Forge's "Reload UI": the page is built anew in the same server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.waiting import wait_until


def starts(server: ForgeServer) -> int:
    """Count how often the page has been built."""
    return server.log_text().count("Startup time:")


def reload_ui(page: ForgePage, server: ForgeServer) -> None:
    """Press "Reload UI" and wait for the new page."""
    before = starts(server)
    page.open_tab("Settings")
    page.click("settings_restart_gradio")
    page.wait_until(lambda: starts(server) > before, lambda: f"a new page:\n{server.log_text()[-2000:]}", 120)
    page.open(server.url)


def rebuild(server: ForgeServer) -> None:
    """Have the page built anew as the button does, while nobody looks at it."""
    before = starts(server)
    with contextlib.suppress(OSError):  # the connection may end before its answer
        server.post("/small-flux/restart", {})
    wait_until(lambda: starts(server) > before, 120, lambda: f"a new page:\n{server.log_text()[-2000:]}")


def set_option(server: ForgeServer, name: str, value: Any) -> None:
    """Set one of Forge's options."""
    status, reply = server.post("/sdapi/v1/options", {name: value})
    assert status == 200, reply


@contextmanager
def built_with(server: ForgeServer, name: str, value: Any, usual: Any) -> Iterator[None]:
    """Have the page built with another value of an option, and at the end with the usual one."""
    set_option(server, name, value)
    rebuild(server)
    try:
        yield
    finally:
        set_option(server, name, usual)
        rebuild(server)
