"""``index.html``: every picture of a batch on a page that grows while they are made, and opens from the disk.

A page is a head (style, script), and after it one line for each row. So it is whole at any moment: a line that was cut
off by a full disk or a kill is no row, and is dropped at the next start. Which rows belong on it is asked of the folder
then, so that it also has what other machines have made there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.index_entry import default_columns, note_line, to_line
from lib_fluxkontext.batch.record import FailedRecord, Record, read_failed_record, read_record
from lib_fluxkontext.replaced_file import part_path, replace
from lib_fluxkontext.settings import CUSTOM, PRESET_FIELDS

ROWS_A_PAGE = 2000
"""About 12 MB with thumbnails; a browser opens that in a second or two."""

_HERE = Path(__file__).parent
_SLIDER = _HERE.parent / "presentation" / "comparison.css"
_SCRIPTS = ("index_rows.js", "index_cards.js", "index_dialogs.js")
_ROW = re.compile(rb'<script type="application/json" data-key="([0-9a-f]+)" data-state="(done|failed)">.*</script>\n')
_NOTE = re.compile(rb'<script type="application/json" data-note>.*</script>\n')

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' data: file:; \
style-src 'unsafe-inline'; script-src 'sha256-{digest}'">
<title>{title}</title>
<style>{style}</style>
<script>{script}</script>
<script type="application/json" id="columns">{columns}</script></head><body>
<div class="progress" id="progress" hidden><i></i></div>
<header class="top"><div><h1>{title}</h1><p class="facts number" id="facts"></p></div>
<div class="live"><span id="written"></span>
<button class="button" type="button" id="reload" title="Filter and order are kept">Reload</button></div></header>
<nav class="pages" id="pages" aria-label="Pages" hidden>{pages}</nav>
<search class="bar">
<input type="search" id="search" aria-label="Search" placeholder="Search: cat, seed:7, seconds&gt;10"
title="Words of any column; column:value, column&gt;number, column&lt;number">
<label>Sort <select id="sort"></select></label>
<button class="button icon" type="button" id="down"></button>
<span class="sizes" role="group" aria-label="Size of the pictures">
<button class="button" type="button" value="S" aria-label="Small">S</button>
<button class="button" type="button" value="M" aria-label="Medium">M</button>
<button class="button" type="button" value="L" aria-label="Large">L</button></span>
<button class="button" type="button" id="filter" aria-controls="filters" aria-expanded="false">Filters</button>
<button class="button" type="button" id="clear" hidden>Show all</button>
<div class="filters" id="filters"></div></search>
<p class="shown number" id="shown" role="status"></p>
<main class="cards number" id="cards"></main>
<noscript><p class="none">This page needs JavaScript.</p></noscript>
<div class="tray" id="tray" hidden></div>
<dialog id="picture" aria-labelledby="picture-title"></dialog>
<dialog id="comparison" aria-labelledby="comparison-title"></dialog>
"""


class IndexWriter:
    """Keeps the index of an output folder; every call opens and closes the page, so that machines can share it.

    Args:
        folder: of the batch.
        total: rows that the batch will have, where that is known.
        rows_a_page: rows before the next page begins.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, total: int | None = None, rows_a_page: int = ROWS_A_PAGE) -> None:
        self._folder = folder.absolute()
        self._rows_a_page = rows_a_page
        self._note: dict[str, object] = {"total": total, "ended": False}
        self._page, self._rows = 1, 0
        self._renew()

    def add(self, record: Record | FailedRecord) -> None:
        """Append a row that was finished, or failed.

        Raises:
            OSError: the disk is full, say; the row comes in at the next start.
        """
        if self._rows >= self._rows_a_page:
            self._append(note_line({"next": page_name(self._page + 1)}))
            self._page += 1
            self._begin_page()
            self._append(note_line(self._note))
        self._append(to_line(record, self._folder))
        self._rows += 1

    def close(self, ended: bool = True) -> None:
        """Note the end on the last page.

        Args:
            ended: whether all rows are done; False where the batch was interrupted.

        Raises:
            OSError: as ``add``.
        """
        self._append(note_line({"ended": ended}))

    def _renew(self) -> None:
        """Drop the lines that are no row any more, and add the rows that the pages miss."""
        files = OutputFolder(self._folder)
        missing: dict[str, bool] = {}
        for key, done in files.states():
            missing[key] = done or missing.get(key, False)
        while (path := self._folder / page_name(self._page)).exists():
            self._rows = self._tidy(path, missing)
            self._page += 1
        if self._page > 1:
            self._page -= 1
        else:
            self._begin_page()
        self._append(note_line(self._note))
        for key, done in missing.items():
            record = read_record(files.record_path(key)) if done else read_failed_record(files.failed_path(key))
            if record is not None and record["key"] == key:
                self.add(record)

    def _tidy(self, path: Path, missing: dict[str, bool]) -> int:
        """Write a page anew where a line of it is broken or out of date, or its head is; return its rows.

        Args:
            path: of the page.
            missing: key → whether it is done, of the rows that no page had so far; those of this page are taken out.
        """
        head = self._head()
        following = page_name(self._page + 1)
        kept: list[tuple[int, int]] = []  # where lines lie, rather than the lines
        with path.open("rb") as page:
            sound = page.read(len(head)) == head
            if not sound:
                page.seek(0)
            for line in page:
                match = _ROW.fullmatch(line)
                if match is None:
                    sound = sound and _NOTE.fullmatch(line) is not None
                elif missing.get(key := match[1].decode()) == (match[2] == b"done"):
                    del missing[key]
                    kept.append((page.tell() - len(line), len(line)))
                else:
                    sound = False
            if not sound:
                part = part_path(path)
                with part.open("wb") as new:
                    new.write(head)
                    for start, length in kept:
                        page.seek(start)
                        new.write(page.read(length))
                    if (self._folder / following).exists():
                        new.write(note_line({"next": following}))
        if not sound:
            replace(part, path)
        return len(kept)

    def _begin_page(self) -> None:
        self._rows = 0
        path = self._folder / page_name(self._page)
        with suppress(FileExistsError), path.open("xb") as page:  # another machine may have been first
            page.write(self._head())

    def _append(self, line: bytes) -> None:
        with (self._folder / page_name(self._page)).open("ab", buffering=0) as page:
            end = page.seek(0, os.SEEK_END)
            try:
                written = page.write(line)
                while written < len(line):  # the rest says why
                    written += page.write(line[written:])
            except OSError:
                page.truncate(end)  # or the next line would follow a broken one
                raise

    def _head(self) -> bytes:
        return page_head(self._folder.name or "Batch", self._page)


def page_name(number: int) -> str:
    """Return the file name of a page, counted from 1."""
    return "index.html" if number == 1 else f"index-{number}.html"


def page_head(title: str, number: int) -> bytes:
    """Render all of a page that stands before its rows.

    Args:
        title: of the batch.
        number: of the page, from 1.
    """
    style, script = _assets()
    links = "".join(
        f"<b>{page}</b>" if page == number else f'<a href="{page_name(page)}">{page}</a>'
        for page in range(1, number + 1)
    )
    known = {"defaults": dict(default_columns()), "preset": PRESET_FIELDS, "custom": CUSTOM}
    names = json.dumps(known).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _PAGE.format(title=escape(title), digest=digest, style=style, script=script, pages=links, columns=names)
    return page.encode()


@cache
def _assets() -> tuple[str, str]:
    """Return style and script; the slider between two pictures looks as in the panel."""
    style = "\n".join(path.read_text(encoding="utf-8") for path in (_SLIDER, _HERE / "index.css"))
    script = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return style, f"(() => {{\n{script}\n}})();"
