"""Translations of the text that the page shows.

Forge translates a page in the browser, text by text, from JSON files that map English to another language
(``localizations/`` here). That is enough for labels and buttons. A sentence with numbers in it never matches, so
sentences are looked up here, as templates, in the same files; the host chooses the language.
"""

from __future__ import annotations

from collections.abc import Mapping

_translations: Mapping[str, str] = {}


def set_translations(translations: Mapping[str, str]) -> None:
    """Choose the language.

    Args:
        translations: English → translation, with the same ``{names}`` in both; empty for English.
    """
    global _translations
    _translations = dict(translations)


def translate(text: str, **values: object) -> str:
    """Translate a text; fall back to English where it has no translation, or a damaged one.

    Args:
        text: English, with ``{names}`` for the values.
        values: the values, by those names.
    """
    template = _translations.get(text, text)
    if not values:
        return template
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError):
        return text.format(**values)
