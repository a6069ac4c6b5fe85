"""A report as a page of its own, with images and settings; opens offline."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from lib_fluxkontext.images.pair import PicturePair
from lib_fluxkontext.presentation.comparison import comparison_html, match_line
from lib_fluxkontext.presentation.data_uri import data_uri, jpeg_uri
from lib_fluxkontext.presentation.html import report_html
from lib_fluxkontext.telemetry.records import GenerationReport

THUMBNAIL = 512
"""Longest side of a reference on the page, in pixels; the result is shown in full size."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}
h1 {{ font-size: 1.4em; font-weight: 600; margin: 0 0 1em; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1em; align-items: end; margin-bottom: 1.5em; }}
figure {{ margin: 0; }}
figure img {{ display: block; height: 13em; max-width: 100%; object-fit: contain; border-radius: 6px; }}
figcaption {{ font-size: 0.85em; opacity: 0.8; }}
.arrow {{ font-size: 2em; align-self: center; opacity: 0.6; }}
.settings {{ border-collapse: collapse; font-size: 0.9em; margin-top: 1.5em; }}
.settings td {{ padding: 0.1em 1em 0.1em 0; vertical-align: top; }}
.settings td:first-child {{ opacity: 0.75; white-space: nowrap; }}
</style></head><body>
<h1>{title}</h1>
<div class="pictures">{pictures}</div>
{comparison}
{report}
<table class="settings">{settings}</table>
</body></html>
"""


def report_page(
    title: str,
    result: Image.Image,
    references: Sequence[tuple[str, Image.Image]],
    report: GenerationReport,
    settings: Mapping[str, str],
    pair: PicturePair | None = None,
) -> str:
    """Render a self-contained HTML document.

    Args:
        title: the prompt.
        result: the generated image.
        references: caption and image of each.
        report: of the generation.
        settings: name and value of everything that the image depends on.
        pair: the first reference and the result, to compare; None where there is no reference.
    """
    pictures = [_figure(image, caption) for caption, image in references]
    if pictures:
        pictures.append('<span class="arrow" aria-hidden="true">→</span>')
    pictures.append(_figure(result, f"Result, {result.width}×{result.height}", lossless=True))
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in settings.items())
    return _PAGE.format(
        title=escape(title),
        pictures="".join(pictures),
        comparison=""
        if pair is None
        else comparison_html(pair, "comparison") + match_line(pair.estimate(), pair.label),
        report=report_html(report, "report", on_panel=False),
        settings=rows,
    )


def _figure(image: Image.Image, caption: str, lossless: bool = False) -> str:
    if lossless:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        source = data_uri(buffer.getvalue(), "png")
    else:
        image = image.copy()
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        source = jpeg_uri(image, quality=88)
    alt = escape(caption)
    return f'<figure><img src="{source}" alt="{alt}"><figcaption>{alt}</figcaption></figure>'
