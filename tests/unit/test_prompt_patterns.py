"""The menu of instruction patterns: what the page's script and Forge's parser rely on; and the line on T5's tokens."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lib_fluxkontext.hosts.forge.runtime.prompt_tokens import MAX_TOKENS
from lib_fluxkontext.hosts.forge.ui import prompt_patterns
from lib_fluxkontext.hosts.forge.ui.prompt_patterns import PATTERNS, Pattern, ideas_html, tokens_html, tokens_line

SCRIPT = Path(__file__).resolve().parents[2] / "javascript" / "flux_kontext_prompt.js"


class Menu(HTMLParser):
    """Collects what the menu inserts, and what it shows of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inserted: list[str] = []
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "button":
            self.inserted.append(dict(attributes)["data-pattern"] or "")

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def blank_of_the_script() -> re.Pattern[str]:
    """The expression by which the script finds what it selects."""
    found = re.search(r"const BLANK = /(.+)/;", SCRIPT.read_text(encoding="utf-8"))
    assert found
    return re.compile(found[1])


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.title)
def test_every_pattern_has_a_blank_that_the_script_selects(pattern: Pattern) -> None:
    blanks = blank_of_the_script().findall(pattern.text)
    assert blanks
    assert all(re.fullmatch(r"\[[a-z ]{3,}\]", blank) for blank in blanks)
    assert pattern.text.count("[") == pattern.text.count("]") == len(blanks)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.title)
def test_every_pattern_is_short_and_plain_for_forge(pattern: Pattern) -> None:
    assert len(pattern.title) <= 24
    assert len(pattern.text) <= 120
    assert pattern.text.endswith(".")
    assert not set(pattern.text) & set("(){}<>:|\\#/\n")  # emphasis, prompt editing, tags, comments
    assert not re.search(r"\b(AND|BREAK)\b", pattern.text)


def test_titles_and_texts_are_unique() -> None:
    assert len({pattern.title for pattern in PATTERNS}) == len({pattern.text for pattern in PATTERNS}) == len(PATTERNS)


def test_the_menu_inserts_exactly_the_patterns_and_shows_them() -> None:
    menu = Menu()
    menu.feed(ideas_html())
    assert menu.inserted == [pattern.text for pattern in PATTERNS]
    for pattern in PATTERNS:
        assert menu.shown.count(pattern.title) == menu.shown.count(pattern.text) == 1


def test_a_prompt_up_to_the_limit_is_told_and_a_longer_one_warned_of() -> None:
    assert f"T5: {MAX_TOKENS} of 512" in tokens_line(MAX_TOKENS)
    assert "fk-warning" not in tokens_line(MAX_TOKENS)
    assert "T5: 513 of 512." in tokens_line(513)
    assert "fk-warning" in tokens_line(513)
    assert "cuts nothing off" in tokens_line(513)


def test_nothing_is_said_of_an_empty_prompt_or_an_unknown_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_patterns, "t5_tokens", lambda prompt: {"a cat": 4}.get(prompt))
    assert "T5: 4 of 512" in tokens_html("a cat")
    assert tokens_html("(a cat:1.2.3)") == ""
    monkeypatch.setattr(prompt_patterns, "t5_tokens", lambda prompt: 1)
    assert tokens_html(" \n") == ""
