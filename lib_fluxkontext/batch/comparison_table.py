"""A comparison as tables: Markdown to paste, and a page with the pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from lib_fluxkontext.batch.comparison import Comparison, Entry, group_label
from lib_fluxkontext.presentation.data_uri import jpeg_uri

THUMBNAIL = 320
"""Longest side of a picture in the page, in pixels; the file itself is linked."""

PICTURE_NAME = "compare.png"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: 'self' file:; \
style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style></head><body>
<header><div class="words"><p class="kind">Comparison</p><h1>{title}</h1><p class="facts">{facts}</p></div>
<div class="photos">{photos}</div></header>
<main>{groups}</main>
<footer><p>{legend}</p></footer>
</body></html>
"""


def seconds(value: float | None) -> str:
    """Format seconds with three digits; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if value >= 100 else f"{value:#.3g} s"


def psnr(entry: Entry) -> str:
    """Format the PSNR, or say what the picture is."""
    if entry.is_reference:
        return "reference"
    if entry.quality is None:
        return "–"
    return "identical" if math.isinf(entry.quality.psnr) else f"{entry.quality.psnr:.1f} dB"


def markdown(comparison: Comparison) -> str:
    """Render the table in GitHub's Markdown, the picture grid above it."""
    memory = _memory_name(comparison)
    names = ["Checkpoint", "LoRA", "Steps", "Cache", "Seconds", "Faster", "s/step", "Reused", memory, "PSNR", "FLIP"]
    rows = [[entry.place.checkpoint or "default", entry.place.lora or "–", str(entry.place.steps), entry.place.cache,
             *_numbers(entry)] for entry in comparison.entries]  # fmt: skip
    for column in (1, 0):  # what is the same everywhere need not be a column
        if len({row[column] for row in rows}) == 1:
            for cells in (names, *rows):
                del cells[column]
    prompt = " ".join(comparison.prompt.split())
    table = ["| " + " | ".join(map(_markdown_text, cells)) + " |" for cells in (names, *rows)]
    separator = [":---" if name in ("Checkpoint", "LoRA", "Cache") else "---:" for name in names]
    table.insert(1, "| " + " | ".join(separator) + " |")
    title = [f"**{_markdown_text(prompt)}**", ""] if prompt else []
    lines = [*title, f"![Picture grid]({PICTURE_NAME})", "", *table]
    reasons = [
        f"- {' · '.join(_place(entry))}: {_markdown_text(entry.reason)}" for entry in comparison.entries if entry.reason
    ]
    if reasons:
        lines += ["", "Not made:", "", *reasons]
    return "\n".join([*lines, "", f"{_facts(comparison)}. {legend(comparison)}", ""])


def page(comparison: Comparison, folder: Path) -> str:
    """Render the page; thumbnails are inside, the pictures themselves are linked.

    Args:
        comparison: what to show.
        folder: that the page will lie in.
    """
    groups = comparison.groups
    style = Path(__file__).with_name("comparison.css").read_text(encoding="utf-8")
    return _PAGE.format(
        title=escape(comparison.prompt or "(no prompt)"),
        style=style,
        facts=escape(_facts(comparison)),
        photos="".join(_photo(path, folder) for path in comparison.images),
        groups="".join(_group(group_label(group, list(groups)), list(entries.values()), comparison, folder)
                       for group, entries in groups.items()),
        legend=escape(legend(comparison)),
    )  # fmt: skip


def legend(comparison: Comparison) -> str:
    """Say what the numbers mean."""
    memory = (
        "VRAM is the most that torch reserved, or that all programs held by the driver"
        if comparison.has_card
        else "There was no CUDA device: memory is the most main memory that the process held"
    )
    return (
        "Seconds are those of sampling, and s/step is their mean over all steps. PSNR and FLIP compare with the "
        f"uncached picture of the same checkpoint, LoRA, steps and seed: higher PSNR and lower FLIP are nearer. "
        f"{memory}."
    )


def _numbers(entry: Entry) -> list[str]:
    """Format what comes behind a picture's place."""
    measures = entry.measures
    if entry.picture is None:
        return ["not made", *["–"] * 6]
    return [
        seconds(measures.sampling_seconds),
        "–" if entry.speed_up is None else f"{entry.speed_up:.2f}×",
        "–" if measures.step_seconds is None else f"{measures.step_seconds:#.3g}",
        "–" if measures.reused_share is None else f"{measures.reused_share:.0%}",
        "–" if entry.memory is None else f"{entry.memory / 2**30:.2f} GB",
        psnr(entry),
        "–" if entry.quality is None else f"{entry.quality.flip:.3f}",
    ]


def _group(label: Sequence[str], entries: Sequence[Entry], comparison: Comparison, folder: Path) -> str:
    slowest = max((entry.measures.sampling_seconds or 0.0 for entry in entries), default=0.0)
    names = ["Cache", "Seconds", "Faster", "s/step", "Reused", _memory_name(comparison), "PSNR", "FLIP"]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    pictures = "".join(_figure(entry, folder) for entry in entries)
    rows = "".join(_row(entry, slowest) for entry in entries)
    return (
        f'<section><h2>{" <i>·</i> ".join(map(escape, label))}</h2><div class="pictures">{pictures}</div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Numbers, {escape(", ".join(label))}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(entry: Entry, slowest: float) -> str:
    numbers = [escape(number) for number in _numbers(entry)]
    share = (entry.measures.sampling_seconds or 0.0) / slowest if slowest else 0.0
    numbers[0] = f'<span class="time">{numbers[0]}</span><i class="bar" style="width: {share:.1%}"></i>'
    cells = "".join(f"<td>{number}</td>" for number in numbers)
    kind = ' class="reference"' if entry.is_reference else ""
    return f'<tr{kind}><th scope="row">{escape(entry.place.cache)}</th>{cells}</tr>'


def _figure(entry: Entry, folder: Path) -> str:
    name = escape(entry.place.cache)
    if entry.picture is None:
        reason = f'<div class="missing">{escape(entry.reason or "")}</div>'
        return f"<figure>{reason}<figcaption><b>{name}</b></figcaption></figure>"
    details = " · ".join([seconds(entry.measures.sampling_seconds), psnr(entry)])
    with Image.open(entry.picture) as picture:
        source = _thumbnail(picture)
    link = quote(Path(os.path.relpath(entry.picture, folder)).as_posix())
    return (
        f'<figure><a href="{link}"><img src="{source}" alt="cache {name}"></a>'
        f"<figcaption><b>{name}</b><span>{escape(details)}</span></figcaption></figure>"
    )


def _photo(path: Path, folder: Path) -> str:
    with Image.open(path) as picture:
        return f'<img src="{_thumbnail(picture)}" alt="{escape(path.name)}" title="{escape(path.name)}">'


def _thumbnail(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return jpeg_uri(small, quality=88)


def _memory_name(comparison: Comparison) -> str:
    return "VRAM peak" if comparison.has_card else "Process memory"


def _facts(comparison: Comparison) -> str:
    first = comparison.entries[0].place
    groups = list(comparison.groups)
    shared = [first.checkpoint] if first.checkpoint and len({group[0] for group in groups}) == 1 else []
    shared += [first.lora] if first.lora and len({group[1] for group in groups}) == 1 else []
    return " · ".join([*shared, *comparison.facts, *comparison.devices])


def _place(entry: Entry) -> list[str]:
    place = entry.place
    return [part for part in (place.checkpoint, place.lora, f"{place.steps} steps", f"cache {place.cache}") if part]


def _markdown_text(text: str) -> str:
    """Escape what would end a cell, or be read as markup."""
    for character in "\\|*_`<[":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
