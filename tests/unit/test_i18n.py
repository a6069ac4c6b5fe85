"""Translations: none missing, none stale, and a damaged file does no harm."""

from __future__ import annotations

import ast
import json
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_fluxkontext import i18n
from lib_fluxkontext.caching.reference_kv import NO_ATTENTION, OUT_OF_MEMORY
from lib_fluxkontext.distilled_lora import REUSED_FEW_STEPS
from lib_fluxkontext.hosts.forge.integration.language import FOLDER, read
from lib_fluxkontext.hosts.forge.lifecycle.inpaint import CROPPED, NO_MASK, OTHER_SIZE, PUT_BACK
from lib_fluxkontext.hosts.forge.runtime.adapter import BLOCKS_PATCHED, CONTROLLED
from lib_fluxkontext.hosts.forge.runtime.model_wrapper import COMPILED, STOOD_ASIDE, TAKEN_OVER, UNUSED
from lib_fluxkontext.hosts.forge.runtime.sampler_compatibility import NO_RESTART, NOT_CORRECTED
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.sampling.session import SKIPPED, TILED
from lib_fluxkontext.sampling.vram import HOST_MEMORY_FULL
from lib_fluxkontext.telemetry.working_memory import SHORT_OF_MEMORY

LANGUAGES = sorted(path.stem for path in FOLDER.glob("*.json"))
SOURCES = [*(FOLDER.parent / "lib_fluxkontext").rglob("*.py"), *(FOLDER.parent / "scripts").glob("*.py")]


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    yield
    i18n.set_translations({})


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def syntax_nodes() -> Iterator[ast.AST]:
    """Every node of the sources' syntax trees."""
    for path in SOURCES:
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def translated_texts() -> set[str]:
    """Every text that is handed to ``translate`` as a constant."""
    calls = [node for node in syntax_nodes() if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    texts = [call.args[0] for call in calls if call.func.id == "translate"]
    return {text.value for text in texts if isinstance(text, ast.Constant)}


def source_texts() -> set[str]:
    """Every text in the sources; a setting's explanation as Forge shows it, in brackets."""
    # Inside of HTML, and of a pass's name.
    texts: set[str] = {"Speed", "Prompt ideas", "This picture was made with Flux Kontext.", "hires pass"}
    for node in syntax_nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts |= {node.value, f"({node.value})"}
        elif isinstance(node, ast.JoinedStr):  # "… {number} … {TITLE} …"
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
            for number in ("1", "2", "3", "4"):
                values = iter((number, TITLE))
                texts.add("".join(next(values, "") if part is None else part for part in parts))
    return texts


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_translated(language: str) -> None:
    assert len(translated_texts()) > 50
    assert translated_texts() - read(FOLDER, language).keys() == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_note_of_a_report_is_translated(language: str) -> None:
    notes = {HOST_MEMORY_FULL, OUT_OF_MEMORY, NO_ATTENTION, NO_RESTART, NOT_CORRECTED, SHORT_OF_MEMORY, TAKEN_OVER}
    notes |= {BLOCKS_PATCHED, COMPILED, CONTROLLED, SKIPPED, STOOD_ASIDE, TILED, UNUSED}
    notes |= {CROPPED, NO_MASK, OTHER_SIZE, PUT_BACK, REUSED_FEW_STEPS}
    assert notes - read(FOLDER, language).keys() == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_have_the_same_values_in_them(language: str) -> None:
    for english, translation in read(FOLDER, language).items():
        assert translation.strip(), english
        assert placeholders(english) == placeholders(translation), english


def test_the_languages_translate_the_same() -> None:
    assert {"ru_RU", "zh_CN"} <= set(LANGUAGES)
    first, *others = (list(read(FOLDER, language)) for language in LANGUAGES)
    assert all(texts == first for texts in others)


def test_no_translation_is_stale() -> None:
    assert set(read(FOLDER, "ru_RU")) - source_texts() == set()


def test_a_sentence_is_translated_to_the_chosen_language() -> None:
    i18n.set_translations(read(FOLDER, "ru_RU"))
    assert translate("{used} of {total}", used="1 GB", total="8 GB") == "1 GB из 8 GB"
    i18n.set_translations({})
    assert translate("{used} of {total}", used="1 GB", total="8 GB") == "1 GB of 8 GB"


@pytest.mark.parametrize("damaged", ["{usd} из {total}", "{used", "{0} {1}", "{used.x} {total}"])
def test_a_damaged_translation_falls_back_to_english(damaged: str) -> None:
    i18n.set_translations({"{used} of {total}": damaged})
    assert translate("{used} of {total}", used="1 GB", total="8 GB") == "1 GB of 8 GB"


def test_braces_in_a_text_without_values_are_left_alone() -> None:
    assert translate("a note about {something}") == "a note about {something}"


@pytest.mark.parametrize("content", ["{", "[]", "7", '"text"', ""])
def test_a_damaged_file_costs_the_translation_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "xx.json").write_text(content, encoding="utf-8")
    assert read(tmp_path, "xx") == {}
    (tmp_path / "ok.json").write_text(json.dumps({"a": "b"}), encoding="utf-8")
    assert read(tmp_path, "ok") == {"a": "b"}


@pytest.mark.parametrize("name", ["None", "", "missing", "../localizations/ru_RU", "/etc/passwd"])
def test_a_name_without_a_file_here_is_english(name: str) -> None:
    assert read(FOLDER, name) == {}
