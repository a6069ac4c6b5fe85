"""What the page says, in the page's language.

Forge translates a page in the browser, text by text, from JSON files that map the English to another language
(``localizations/`` here). That does for labels and buttons. A sentence with numbers in it never matches, so sentences
are looked up here, as templates, in the same files; a host says which one.
"""

from __future__ import annotations

from collections.abc import Mapping

_chosen: Mapping[str, str] = {}


def speak(words: Mapping[str, str]) -> None:
    """Choose the language.

    Args:
        words: English → translation, with the same ``{names}`` in both; empty is English.
    """
    global _chosen
    _chosen = dict(words)


def say(text: str, **values: object) -> str:
    """A text in the chosen language; in English where it is not translated, or the translation is damaged.

    Args:
        text: English, with ``{names}`` for the values.
        values: by those names.
    """
    if not values:
        return _chosen.get(text, text)
    try:
        return _chosen.get(text, text).format(**values)
    except (KeyError, IndexError, ValueError, AttributeError):
        return text.format(**values)
