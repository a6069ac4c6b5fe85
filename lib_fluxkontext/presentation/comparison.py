"""Before and after: a slider between a reference and the result, and how the result lies against it, in words."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.images.match import Match, fit_reference
from lib_fluxkontext.images.pair import PicturePair
from lib_fluxkontext.presentation.data_uri import jpeg_uri

QUALITY = 88
"""Of the JPEGs in the page."""

START = 50
"""Percent of the width that show the reference at first."""

_AROUND = "#404040"
"""Around a reference of another shape than the result."""

_MOVED = (
    "this.parentElement.style.setProperty('--fk-split', this.value + '%');"
    "this.setAttribute('aria-valuetext', this.dataset.text.replace('{share}', this.value));"
)
"""Inline, because a script in HTML that gradio puts into the page does not run."""


def comparison_html(pair: PicturePair, element_id: str) -> str:
    """Render a slider between both pictures: with mouse, finger or keyboard; the reference is on the left.

    Args:
        pair: the pictures; they are encoded to JPEG here, into the page.
        element_id: unique in the page.
    """
    size = pair.result.size
    reference = fit_reference(pair.reference, size)
    if reference is None:  # another shape: all of it, not a part
        reference = ImageOps.pad(pair.reference, size, Image.Resampling.LANCZOS, _AROUND)
    before, after = translate(pair.label), translate("Result")
    name = translate("Before and after: {before} on the left, {after} on the right", before=before, after=after)
    value = translate("{share} % {reference}", share="{share}", reference=before)
    return (
        f'{_style()}<div class="fk-compare" id="{escape(element_id)}" dir="ltr" '
        f'style="--fk-split: {START}%; --fk-ratio: {size[0] / size[1]:.4f}">'
        f"{_picture(pair.result, after)}"
        f'<div class="fk-compare-before">{_picture(reference, before)}</div>'
        f'<input type="range" min="0" max="100" step="1" value="{START}" aria-label="{escape(name)}" '
        f'aria-valuetext="{escape(value.replace("{share}", str(START)))}" data-text="{escape(value)}" '
        f'oninput="{escape(_MOVED)}"><div class="fk-compare-line"></div></div>'
    )


def match_line(match: Match | None, label: str) -> str:
    """Render how the result lies against its reference, as a paragraph; nothing where nothing can be said.

    Args:
        match: the estimate.
        label: of the reference, in English (``PicturePair.label``).
    """
    if match is None:
        return ""
    text = translate("Result against {reference}: {offset}", reference=translate(label), offset=match_words(match))
    return f'<p class="fk-facts fk-match">{escape(text)}</p>'


def match_words(match: Match, translated: bool = True) -> str:
    """Say how a result lies: ``"2 px right, 0.6 % larger"``.

    Args:
        match: the estimate.
        translated: into the language of the page; infotext stays English.
    """
    offsets = []
    if match.moves_right:
        offsets.append(("{number} px right" if match.right > 0 else "{number} px left", _number(match.right)))
    if match.moves_down:
        offsets.append(("{number} px down" if match.down > 0 else "{number} px up", _number(match.down)))
    if match.scales:
        percent = (match.scale - 1) * 100
        offsets.append(("{number} % larger" if percent > 0 else "{number} % smaller", _number(percent)))
    if not offsets:
        offsets.append(("aligned to half a pixel", ""))
    return ", ".join(translate(text, number=n) if translated else text.format(number=n) for text, n in offsets)


def _number(value: float) -> str:
    return f"{abs(value):.1f}".removesuffix(".0")


@cache
def _style() -> str:
    return f"<style>{Path(__file__).with_name('comparison.css').read_text(encoding='utf-8')}</style>"


def _picture(image: Image.Image, name: str) -> str:
    """Render a picture with its name in the corner, which is hidden with it."""
    alt = escape(name)
    return (
        f'<img src="{jpeg_uri(image, QUALITY)}" alt="{alt}" draggable="false">'
        f'<span class="fk-compare-name" aria-hidden="true">{alt}</span>'
    )
