"""Load the language of Forge's page for sentences with numbers in them, which the browser cannot translate."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from lib_fluxkontext import i18n

FOLDER = Path(__file__).resolve().parents[4] / "localizations"


def load_page_language() -> None:
    """Choose the language of Forge's *Localization* setting; English where there is no file for it here."""
    from modules import shared

    i18n.set_translations(read(FOLDER, str(getattr(shared.opts, "localization", "None"))))


def read(folder: Path, name: str) -> dict[str, str]:
    """Read a language's translations, by their English text; empty where there is no such file, or a damaged one."""
    path = folder / f"{name}.json"
    if path.parent != folder or not path.is_file():
        return {}
    try:
        translations = json.loads(path.read_text(encoding="utf-8"))
        return {str(english): str(translation) for english, translation in translations.items()}
    except (OSError, ValueError, AttributeError) as error:
        logging.getLogger(__name__).warning("%s cannot be read: %s", path.name, error)
        return {}
