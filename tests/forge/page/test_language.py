"""The panel in another language, on a real Forge's page."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.forge_page import ForgePage
from tests.support.panel import PANEL, set_scene

SHOWN = """(ids) => ids.flatMap(id => {
    const found = [], root = document.getElementById(id);
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const parent = walk.currentNode.parentElement;
        if (!parent.closest('style, script, .fk-hidden')) found.push(walk.currentNode.textContent);
    }
    for (const element of root.querySelectorAll('[title], [placeholder], [aria-label]')) {
        if (element.closest('.fk-hidden')) continue;
        for (const name of ['title', 'placeholder', 'aria-label']) found.push(element.getAttribute(name) || '');
    }
    return found.map(text => text.trim()).filter(text => text);
})"""
"""Returns every text below some elements, with hints and accessible names."""

NAMES = (
    "Flux Kontext|First Block Cache|FLUX.1|Kontext|BFL recommended|fit inside output|fit inside|no change|to output|"
    r"output|img2img|CSV|Markdown|CUDA|Euler|Simple|hires fix|hires|torch|NVML|LoRA|VRAM|Automatic|safetensors|dev|"
    r"small-flux\S*|euler|simple|inside|offset|index|uxo|CFG|Distilled|Inpaint"
)
"""Proper names, and the sizing modes, which have the same names in panel, API and infotext."""

GRADIO_HINTS = {
    "Paste from clipboard", "Remove Image", "Upload file", "file upload", "Empty value", "Drop Image Here", "- or -",
    "Click to Upload",
}  # fmt: skip
"""gradio's own, which cannot be translated."""


def untranslated(texts: list[str]) -> list[str]:
    """Return the texts with a Latin word of three letters or more that is no name."""
    return sorted({text for text in texts if re.search(r"[A-Za-z]{3,}", re.sub(NAMES, "", text))})


def test_the_whole_panel_and_its_report_are_translated(in_russian: None, page: ForgePage, tmp_path: Path) -> None:
    set_scene(page, tmp_path, steps=4)
    texts = page.page.evaluate(SHOWN, [PANEL])
    assert "Рекомендуемые настройки" in texts
    assert any(text.startswith("Токенов: картинка") for text in texts)
    assert any(text.startswith("При сэмплировании, оценка") for text in texts)

    found = untranslated([text for text in texts if text not in GRADIO_HINTS])
    assert found == []
