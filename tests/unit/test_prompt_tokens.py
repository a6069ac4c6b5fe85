"""Counting T5's tokens: which of a prompt's texts and pieces count. Forge's parsers and the tokenizer are stand-ins."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lib_fluxkontext.hosts.forge.runtime import prompt_tokens
from lib_fluxkontext.hosts.forge.runtime.prompt_tokens import t5_tokens


def parse_attention(text: str, emphasis: str) -> list[list[Any]]:
    """Weigh what stands in round brackets, and split at BREAK."""
    pieces: list[list[Any]] = []
    for piece in re.split(r"(\(.*?\)|\s*BREAK\s*)", text):
        if piece.strip() == "BREAK":
            pieces.append(["BREAK", -1])
        elif piece.startswith("(") and emphasis != "None":
            word, weight = piece[1:-1].split(":")
            pieces.append([word, float(weight)])
        else:
            pieces.append([piece, 1.0])
    return pieces


def words(texts: list[str], **options: Any) -> dict[str, list[list[str]]]:
    """Tokenize: a token for each word."""
    assert options == {"truncation": False, "add_special_tokens": False, "verbose": False}
    return {"input_ids": [text.split() for text in texts]}


@pytest.fixture
def opts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The settings of a Forge that is there as far as counting needs it."""
    settings = SimpleNamespace(emphasis="Original")

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        parent, _, child = name.rpartition(".")
        if parent:
            monkeypatch.setattr(sys.modules[parent], child, made, raising=False)

    module("modules")
    module("modules.shared", opts=settings)
    module("modules.extra_networks", parse_prompt=lambda text: (re.sub(r"<\w+:[^>]+>", "", text), {}))
    module(
        "modules.prompt_parser",
        get_multicond_prompt_list=lambda prompts: ([], prompts[0].split(" AND "), {}),
        get_learned_conditioning_prompt_schedules=lambda prompts, steps: [
            [(steps, text) for text in prompt.split("|")] for prompt in prompts
        ],
    )
    module("modules.processing_scripts")
    module("modules.processing_scripts.comments", strip_comments=lambda text: text.split("#")[0])
    module("backend")
    module("backend.text_processing")
    module("backend.text_processing.parsing", parse_prompt_attention=parse_attention)
    monkeypatch.setattr(prompt_tokens, "_tokenizer", lambda: words)
    return settings


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("", 1),
        ("a red cat", 4),
        ("a red cat <lora:soft light:0.8>", 4),
        ("a red cat # and a note", 4),
        ("a (red:1.2) cat", 4),
        ("a cat AND a red cat AND a cat", 4),
        ("a cat|a very red cat", 5),
        ("a red cat BREAK a dog on a mat", 4),
        ("BREAK a cat", 1),
    ],
)
@pytest.mark.usefixtures("opts")
def test_what_forge_encodes_is_counted_with_the_end_token(prompt: str, tokens: int) -> None:
    assert t5_tokens(prompt) == tokens


def test_brackets_count_where_the_settings_take_them_literally(opts: SimpleNamespace) -> None:
    opts.emphasis = "None"
    assert t5_tokens("a ( red : 1 ) cat") == 8


@pytest.mark.usefixtures("opts")
def test_a_prompt_that_forge_cannot_parse_has_no_number() -> None:
    assert t5_tokens("a (red:1.2.3) cat") is None


def test_without_a_tokenizer_there_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modules = ModuleType("modules")
    modules.paths = SimpleNamespace(script_path=str(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", modules)
    prompt_tokens._tokenizer.cache_clear()
    assert t5_tokens("a cat") is None
    prompt_tokens._tokenizer.cache_clear()
