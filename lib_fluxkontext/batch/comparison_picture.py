"""A comparison as one labelled picture to post: checkpoints and steps downwards, caches across."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lib_fluxkontext.batch.comparison import Comparison, Entry, group_label
from lib_fluxkontext.batch.comparison_table import psnr, seconds
from lib_fluxkontext.images.wrapped_text import wrapped

CELL = 360
"""Longest side of a cell's picture, in pixels, where so many fit into ``MAX_WIDTH`` and ``MAX_HEIGHT``."""

MIN_CELL = 120
MAX_WIDTH, MAX_HEIGHT = 4000, 8000
"""What sites still show."""

_GROUND, _TEXT, _QUIET, _MISSING = "#ffffff", "#1b1b1a", "#6a6a66", "#ececea"
_MARGIN, _GAP = 32, 12
_TITLE, _HEAD, _LABEL = 28, 22, 18
_CAPTION_HEIGHT = 56
_MISSING_GLYPHS = {"×": "x", "–": "-", "·": "-", "—": "-", "…": "..."}
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "arial.ttf",
    "Arial Unicode.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
)
"""Tried for letters that Pillow's own font does not have."""

_CJK_FONTS = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc"),
    *("msyh.ttc", "simsun.ttc", "meiryo.ttc", "YuGothM.ttc", "malgun.ttf"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Light.ttc", "AppleSDGothicNeo.ttc"),
)
"""Linux', Windows' and macOS' fonts of many megabytes, opened for letters that none of the others has."""


def draw(comparison: Comparison) -> Image.Image:
    """Draw the grid.

    Returns:
        8-bit RGB.
    """
    groups, caches = comparison.groups, comparison.caches
    cell = _cell_size(comparison)
    width, height = cell
    labels = [group_label(group, list(groups)) for group in groups]
    label_width = min(320, max(_text_width(part, _LABEL) for label in labels for part in label) + 2 * _GAP)
    photo_height = 96 if comparison.images else 0
    title = _wrapped(
        comparison.prompt, _TITLE, max(label_width + len(caches) * (width + _GAP), 480) - 2 * photo_height - 40
    )
    top = _MARGIN + max(photo_height, len(title) * 36 + 26) + 20
    total_width = max(2 * _MARGIN + label_width + len(caches) * (width + _GAP) - _GAP, 640)
    total_height = top + _HEAD + 2 * _GAP + len(groups) * (height + _CAPTION_HEIGHT + _GAP) + _MARGIN
    picture = Image.new("RGB", (total_width, total_height), _GROUND)
    for number, line in enumerate(title):
        _write(picture, (_MARGIN, _MARGIN + 36 * number), line, _TITLE, _TEXT)
    facts = "  ·  ".join([*comparison.facts, *comparison.devices])
    _write(picture, (_MARGIN, _MARGIN + 36 * len(title) + 4), facts, _LABEL, _QUIET)
    _paste_photos(picture, comparison.images, photo_height)
    for column, name in enumerate(caches):
        _write(picture, (_MARGIN + label_width + column * (width + _GAP), top), _cache_name(name), _HEAD, _TEXT)
    for row, (label, entries) in enumerate(zip(labels, groups.values(), strict=True)):
        y = top + _HEAD + 2 * _GAP + row * (height + _CAPTION_HEIGHT + _GAP)
        for place, part in enumerate(_label_lines(label, label_width - _GAP)):
            _write(picture, (_MARGIN, y + 24 * place), part, _LABEL, _TEXT)
        for column, name in enumerate(caches):
            if name in entries:
                _draw_cell(picture, (_MARGIN + label_width + column * (width + _GAP), y), cell, entries[name])
    return picture


def _draw_cell(picture: Image.Image, place: tuple[int, int], size: tuple[int, int], entry: Entry) -> None:
    x, y = place
    if entry.picture is None:
        ImageDraw.Draw(picture).rectangle((x, y, x + size[0] - 1, y + size[1] - 1), _MISSING)
        for line, words in enumerate(_wrapped(entry.reason or "not made", _LABEL, size[0] - 2 * _GAP)[:4]):
            _write(picture, (x + _GAP, y + _GAP + 22 * line), words, _LABEL, _QUIET)
        return
    with Image.open(entry.picture) as made:
        picture.paste(made.convert("RGB").resize(size, Image.Resampling.LANCZOS), place)
    time = seconds(entry.measures.sampling_seconds)
    faster = "" if entry.speed_up is None else f"   {entry.speed_up:.2f}×"
    _write(picture, (x, y + size[1] + 6), time + faster, _LABEL, _TEXT)
    quality = psnr(entry)
    if entry.quality is not None:
        quality += f"   FLIP {entry.quality.flip:.3f}"
    _write(picture, (x, y + size[1] + 29), quality, _LABEL, _QUIET)


def _cell_size(comparison: Comparison) -> tuple[int, int]:
    made = next((entry.picture for entry in comparison.entries if entry.picture is not None), None)
    size = (1, 1)
    if made is not None:
        with Image.open(made) as picture:
            size = picture.size
    columns, rows = len(comparison.caches), len(comparison.groups)
    side = min(CELL, (MAX_WIDTH - 400) // columns - _GAP, (MAX_HEIGHT - 300) // rows - _CAPTION_HEIGHT - _GAP)
    side = max(side, MIN_CELL)
    width, height = (max(1, round(side * length / max(size))) for length in size)
    return max(width, MIN_CELL), height if width >= MIN_CELL else round(height * MIN_CELL / width)


def _cache_name(name: str) -> str:
    return "no cache" if name == "off" else f"cache {name}"


def _paste_photos(picture: Image.Image, images: Sequence[Path], height: int) -> None:
    """Paste the references into the corner, the last outermost."""
    right = picture.width - _MARGIN
    for path in reversed(images[:2]):
        with Image.open(path) as photo:
            small = photo.convert("RGB")
        small.thumbnail((2 * height, height))
        right -= small.width
        picture.paste(small, (right, _MARGIN))
        right -= _GAP


# -------------------------------------------------------------------------------------------------- text


@dataclass(frozen=True)
class _Font:
    """A font, and what it has no glyph for."""

    font: ImageFont.ImageFont | ImageFont.FreeTypeFont
    covers: Callable[[str], bool]


def _write(picture: Image.Image, place: tuple[int, int], text: str, size: int, colour: str) -> None:
    font = _font(size, text)
    readable = _replaced(text, font)
    ImageDraw.Draw(picture).text(place, readable, colour, font.font)


def _text_width(text: str, size: int) -> int:
    font = _font(size, text)
    return int(font.font.getbbox(_replaced(text, font))[2]) + 1


def _replaced(text: str, font: _Font) -> str:
    known = [letter if font.covers(letter) else _MISSING_GLYPHS.get(letter, "?") for letter in " ".join(text.split())]
    kept = "".join(known)
    return kept if "  " not in text else "   ".join(_replaced(part, font) for part in text.split("  ") if part.strip())


def _font(size: int, text: str) -> _Font:
    """Return Pillow's own font, or one of the system's that has more of the text's letters."""
    letters = {letter for letter in text if not letter.isspace() and letter not in _MISSING_GLYPHS}
    own = _own_font(size)
    if all(map(own.covers, letters)):
        return own
    candidates = [own]
    for names in (_SYSTEM_FONTS, _CJK_FONTS):
        candidates += _system_fonts(names, size)
        best = max(candidates, key=lambda font: sum(map(font.covers, letters)))
        if all(map(best.covers, letters)):
            break
    return best


@cache
def _own_font(size: int) -> _Font:
    try:
        font = ImageFont.load_default(size)  # Pillow 10.1 and later, built with FreeType
    except TypeError:
        font = ImageFont.load_default()
    return _Font(font, _coverage(font))


@cache
def _system_fonts(names: tuple[str, ...], size: int) -> list[_Font]:
    fonts = []
    for name in names:
        with suppress(OSError, ImportError):
            font = ImageFont.truetype(name, size)
            fonts.append(_Font(font, _coverage(font)))
    return fonts


def _coverage(font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Callable[[str], bool]:
    if not isinstance(font, ImageFont.FreeTypeFont):  # the old bitmap font
        return str.isascii
    missing = bytes(font.getmask("\U0010fffd"))

    @cache
    def covers(letter: str) -> bool:
        return letter.isascii() or bytes(font.getmask(letter)) != missing

    return covers


def _label_lines(label: Sequence[str], width: int) -> list[str]:
    return [line for part in label for line in _wrapped(part, _LABEL, width)]


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of a width, at most 3."""
    lines = wrapped(text, width, lambda part: _text_width(part, size))
    return lines if len(lines) <= 3 else [*lines[:2], f"{lines[2].rstrip('.,')} …"]
