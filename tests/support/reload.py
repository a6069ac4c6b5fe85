"""Forge's "Reload UI": the page is built anew in the same server."""

from __future__ import annotations

from tests.support.browser import ForgePage
from tests.support.forge_server import ForgeServer


def reload_ui(page: ForgePage, server: ForgeServer) -> None:
    """Press "Reload UI" and wait for the new page."""

    def starts() -> int:
        return server.log_text().count("Startup time:")

    before = starts()
    page.open_tab("Settings")
    page.click("settings_restart_gradio")
    page.wait_until(lambda: starts() > before, lambda: f"the page to be built anew:\n{server.log_text()[-2000:]}", 120)
    page.open(server.url)
