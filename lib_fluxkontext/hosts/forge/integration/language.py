"""The language of Forge's page, for what the browser cannot translate: sentences with numbers in them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lib_fluxkontext import i18n

FOLDER = Path(__file__).resolve().parents[4] / "localizations"


def load_page_language(*_: Any) -> None:
    """Forge's *Localization* setting where there is a file of ours for it, else English."""
    from modules import shared

    i18n.set_translations(read(FOLDER, str(getattr(shared.opts, "localization", "None"))))


def read(folder: Path, name: str) -> dict[str, str]:
    """A file's words; none where there is no such file. A damaged one costs the translation, not the page."""
    path = folder / f"{name}.json"
    if path.parent != folder or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(english): str(other) for english, other in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        logging.getLogger(__name__).warning("%s cannot be read: %s", path.name, error)
        return {}
