"""Take the README's pictures of the panel, in both themes: ``python dev.py pictures``.

Needs an installed Forge and Chromium, like the tests of the page.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.browser import open_browser
from tests.support.forge_install import REPO_ROOT, forge_available
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, set_scene

PICTURES = {"docs/panel.png": False, "docs/panel-dark.png": True}
"""Path → whether the theme is dark."""


def main() -> int:
    """Renew the pictures."""
    reason = forge_available()
    if reason:
        print(reason)
        return 1
    with ForgeServer(nowebui=False) as server, tempfile.TemporaryDirectory() as folder:
        for name, dark in PICTURES.items():
            with open_browser(1400, 2200) as page:
                page.open(server.url, dark=dark)
                set_scene(page, Path(folder))
                page.element(PANEL).screenshot(path=str(REPO_ROOT / name))
                print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
