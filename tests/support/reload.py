"""Forge's "Reload UI": the page is built anew in the same server."""

from __future__ import annotations

import time

from tests.support.browser import ForgePage
from tests.support.forge_server import ForgeServer


def reload_ui(page: ForgePage, server: ForgeServer) -> None:
    """Press "Reload UI" and wait for the new page."""
    starts = server.log_text().count("Startup time:")
    page.open_tab("Settings")
    page.click("settings_restart_gradio")
    deadline = time.monotonic() + 120
    while server.log_text().count("Startup time:") == starts:
        assert time.monotonic() < deadline, server.log_text()[-2000:]
        page.page.wait_for_timeout(200)
    page.open(server.url)
