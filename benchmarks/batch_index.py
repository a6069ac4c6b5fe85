"""How long Chromium takes to open the index of a batch."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from playwright.sync_api import Page

from lib_fluxkontext.batch.folder import thumbnail
from lib_fluxkontext.batch.index import IndexWriter
from lib_fluxkontext.batch.record import make_record
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport
from tests.support.batch_rows import a_row
from tests.support.browser import browser_path, open_browser

STEPS = 20
OPENINGS = 5


def measure_index(folder: Path, count: int) -> list[tuple[str, str]]:
    """Write an index of ``count`` rows, each with a thumbnail of its own, and open it in Chromium several times.

    The clock stops when all cards are there and two frames have been drawn.
    """
    if browser_path() is None:
        return [(f"index of {count:,} pictures in Chromium", "no Chromium was found")]
    folder.mkdir()
    index, noise = IndexWriter(folder, count), np.random.default_rng(0)
    for number in range(1, count + 1):
        coarse = Image.fromarray(noise.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        calls = tuple(CallRecord(step, 1 - step / STEPS, 0.8, step % 2, 1) for step in range(STEPS))
        report = GenerationReport((PassReport("Sampling", calls, 16.0),)).to_dict()
        small = thumbnail(coarse.resize((512, 512), Image.Resampling.BICUBIC))
        index.add(make_record(a_row(number, steps=STEPS), "Steps: 20", report, 17.0, "in process", small))
    index.close()
    page = folder / "index.html"
    with open_browser(1280, 900) as browser:
        times = [_open(browser.page, page.as_uri(), count) for _ in range(OPENINGS)]
    size = page.stat().st_size / 2**20
    return [
        (f"index of {count:,} pictures ({size:.1f} MB) in Chromium, median of {OPENINGS}", f"{median(times):.2f} s")
    ]


def _open(page: Page, address: str, count: int) -> float:
    page.goto("about:blank")
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_function(
        """async count => {
            if (document.querySelectorAll(".card").length < count) return false;
            await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)));
            return true;
        }""",
        arg=count,
    )
    return time.perf_counter() - start
