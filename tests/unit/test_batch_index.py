"""``index.html``: one line a row, whole after any cut, safe with any text; and in a browser with 2,000 pictures."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext.batch.folder import OutputFolder, thumbnail
from lib_fluxkontext.batch.index import IndexWriter
from lib_fluxkontext.batch.index_entry import to_line
from lib_fluxkontext.batch.record import make_failed_record, make_record
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Failed, Made
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.memory import MemoryUse
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport
from tests.support.batch_rows import a_row, some_rows
from tests.support.browser import browser_path, open_browser
from tests.support.forge_page import ForgePage

HOSTILE = "</script><script>document.title = 'run'</script> <!-- <script> \"'`\\ &amp; \u2028\u2029 \n"
"""Ends an element, a comment, a string or a line, were it not escaped."""


def report(step_seconds: float = 0.5) -> dict[str, Any]:
    """A report of four steps, of which the last was reused."""
    calls = [CallRecord(step, 1.0, step_seconds if step < 3 else 0.01, int(step == 3), 1) for step in range(4)]
    memory = MemoryUse("RTX", 8 * 2**30, 9 * 2**30, 10 * 2**30, 12 * 2**30, 2**30)
    return GenerationReport((PassReport("Sampling", calls, 2.0),), memory).to_dict()


def make(files: OutputFolder, row: Row, colour: str = "grey") -> Any:
    """Write a finished row's files; return its record."""
    return files.write(row, Made(Image.new("RGB", (96, 96), colour), "infotext", report(), 1.0, "in process"))


def rows_of(path: Path) -> dict[str, list[str]]:
    """Return the state of each row of a page, by its key, as the page's script would read them."""
    found: dict[str, list[str]] = {}
    pattern = r'<script type="application/json" data-key="(\w+)" data-state="(\w+)">(.*?)</script>'
    for key, state, content in re.findall(pattern, path.read_text(encoding="utf-8"), re.DOTALL):
        assert json.loads(content)["key"] == key
        found.setdefault(key, []).append(state)
    return found


def test_no_text_gets_out_of_its_line() -> None:
    prompt = HOSTILE + "\ud83d"  # half a character, as JSON can hold
    record = make_record(a_row(1, prompt=prompt, checkpoint=HOSTILE), HOSTILE, report(), 1.0, HOSTILE, "")
    line = to_line(record, Path("/x"))
    assert line.count(b"<") == 2
    assert line.endswith(b"</script>\n")
    assert line.count(b"\n") == 1
    assert json.loads(line.split(b">", 1)[1].removesuffix(b"</script>\n"))["prompt"] == prompt


def test_a_page_that_was_cut_anywhere_is_whole_after_the_next_start(tmp_path: Path) -> None:
    files = OutputFolder(tmp_path, durable=False)
    files.prepare()
    index = IndexWriter(tmp_path, total=5)
    rows = some_rows(5)
    for row in rows[:4]:
        index.add(make(files, row))
    whole = (tmp_path / "index.html").read_bytes()
    last_line = whole.rindex(b"<script type")
    for cut in (0, 1, 2000, last_line - 1, last_line, last_line + 1, last_line + 200, len(whole) - 1):
        (tmp_path / "index.html").write_bytes(whole[:cut])
        index = IndexWriter(tmp_path)
        assert rows_of(tmp_path / "index.html") == {row.key: ["done"] for row in rows[:4]}, cut
        page = (tmp_path / "index.html").read_bytes()
        assert page.startswith(whole[: whole.index(b'<script type="application/json" data-')]), cut
    index.add(make(files, rows[4]))
    assert rows_of(tmp_path / "index.html").keys() == {row.key for row in rows}


def test_the_folder_says_what_is_on_it(tmp_path: Path) -> None:
    files = OutputFolder(tmp_path, durable=False)
    files.prepare()
    rows = some_rows(4)
    index = IndexWriter(tmp_path)
    index.add(make(files, rows[0]))
    index.add(make(files, rows[1]))
    index.add(files.write_failure(rows[2], Failed("no"), "x"))
    make(files, rows[3])  # by another machine
    files.record_path(rows[0].key).unlink()
    make(files, rows[2])
    IndexWriter(tmp_path)
    assert rows_of(tmp_path / "index.html") == {row.key: ["done"] for row in rows[1:]}


def test_pages_follow_each_other(tmp_path: Path) -> None:
    files = OutputFolder(tmp_path, durable=False)
    files.prepare()
    rows = some_rows(8)
    for part in (rows[:5], rows[5:]):  # started twice
        index = IndexWriter(tmp_path, rows_a_page=3)
        for row in part:
            index.add(make(files, row))
    index.close()
    pages = [tmp_path / name for name in ("index.html", "index-2.html", "index-3.html")]
    assert [len(rows_of(page)) for page in pages] == [3, 3, 2]
    assert {key for page in pages for key in rows_of(page)} == {row.key for row in rows}
    assert b'{"next":"index-2.html"}' in pages[0].read_bytes()
    files.record_path(next(iter(rows_of(pages[0])))).unlink()
    IndexWriter(tmp_path, rows_a_page=3)
    assert [len(rows_of(page)) for page in pages] == [2, 3, 2]
    assert b'{"next":"index-2.html"}' in pages[0].read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_a_full_disk_leaves_no_half_line_for_the_next_to_follow(tmp_path: Path) -> None:
    import resource

    files = OutputFolder(tmp_path, durable=False)
    files.prepare()
    first, second, third = some_rows(3)
    index = IndexWriter(tmp_path)
    index.add(make(files, first))
    record = make(files, second)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "index.html").stat().st_size + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            index.add(record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    index.add(make(files, third))
    assert rows_of(tmp_path / "index.html") == {first.key: ["done"], third.key: ["done"]}


# ---------------------------------------------------------------------------------------------- in a browser

FAILURES, RED, BLUE = 40, 7, 9
"""Rows that failed, and the numbers of those with pictures of a colour."""


@pytest.fixture(scope="module")
def holidays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 2,000 rows, of which every 50th failed."""
    folder = tmp_path_factory.mktemp("batch") / "holidays"
    files = OutputFolder(folder, durable=False)
    files.prepare()
    index = IndexWriter(folder, total=2500)
    small = thumbnail(Image.new("RGB", (96, 96), "grey"))
    for number in range(1, 2001):
        settings = KontextSettings(enabled=True, cache_threshold=[0.08, 0.14][number % 2])
        row = a_row(
            number,
            prompt=HOSTILE if number == 3 else f"picture of {['a cat', 'a dog', 'a woman'][number % 3]}",
            settings=settings,
            steps=[10, 20, 24, 28][number % 4],
            checkpoint=["models/dev.safetensors", "models/<b>Q4.gguf"][number % 2],
        )
        if number % (2000 // FAILURES) == 0:
            index.add(make_failed_record(row, "<b>not an image</b>", "image1", "in process"))
        elif number in (RED, BLUE):
            index.add(make(files, row, "red" if number == RED else "blue"))
        else:
            index.add(make_record(row, "infotext", report(number / 1000), number / 100, "in process", small))
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[ForgePage]:
    if browser_path() is None:
        pytest.skip("no Chromium was found; install chromium to run the tests of the page")
    with open_browser(1280, 900) as page:
        yield page
        assert page.errors == []


@pytest.fixture
def page(browser: ForgePage, holidays: Path) -> ForgePage:
    browser.page.goto("about:blank")
    browser.page.goto(holidays.as_uri())
    browser.page.wait_for_selector(".card")
    return browser


def shown(page: ForgePage) -> list[int]:
    """Return the numbers of the cards, in order."""
    texts = page.page.locator(".card .facts").all_text_contents()
    return [int(text.split(" ")[0].removeprefix("#")) for text in texts]


def search(page: ForgePage, query: str) -> list[int]:
    page.page.fill("#search", query)
    page.page.wait_for_function(
        "query => decodeURIComponent(location.hash).replaceAll('+', ' ').includes(query)", arg=query
    )
    return shown(page)


@pytest.mark.slow
def test_two_thousand_pictures_are_shown_filtered_and_sorted(page: ForgePage) -> None:
    assert shown(page) == list(range(1, 2001))
    assert page.page.inner_text("#facts").startswith("1,960 pictures of 2,500 · 40 failed")
    assert page.page.title() == "holidays"
    assert page.page.locator("main script, main b").count() == 0

    page.page.locator(".filters label", has_text="steps").locator("select").select_option("=10")
    page.page.locator(".filters label", has_text="preset").locator("select").select_option("=Quality")
    assert page.page.locator(".filters label", has_text="cache").count() == 0  # its name says it
    assert shown(page) == list(range(4, 2001, 4))
    assert search(page, "cat number<100") == list(range(12, 100, 12))
    page.page.select_option("#sort", "number")
    page.page.click("#down")
    assert shown(page) == [96, 84, 72, 60, 48, 36, 24, 12]
    page.page.click("#reload")  # the address keeps them
    page.page.wait_for_selector(".card")
    assert shown(page) == [96, 84, 72, 60, 48, 36, 24, 12]
    page.page.click("#clear")
    assert search(page, "seconds>19.95 checkpoint:q4") == [1999, 1997]
    page.page.click("#clear")
    page.page.click(".failures")
    assert len(shown(page)) == FAILURES
    assert "<b>not an image</b>" in page.page.locator(".card").first.inner_text()


@pytest.mark.slow
def test_a_picture_tells_all_about_itself(page: ForgePage) -> None:
    page.page.locator(".card .open").nth(RED - 1).focus()
    page.page.keyboard.press("Enter")
    dialog = page.page.locator("#picture")
    told = dialog.inner_text()
    for words in (f"Picture {RED}", "picture of a dog", "3 computed", "1 reused", "9.00 GB", "10.00 GB of 12.00 GB"):
        assert words in told
    assert dialog.locator(".steps rect title").all_text_contents()[3] == "Step 4: 10 ms, reused"
    assert dialog.locator("img.full").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    page.page.keyboard.press("ArrowLeft")
    assert f"Picture {RED - 1}" in dialog.inner_text()
    page.page.keyboard.press("Escape")
    assert not dialog.is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_two_pictures_lie_side_by_side_with_a_slider(page: ForgePage, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 900})
    for number in (RED, BLUE):
        page.page.locator(".card .open").nth(number - 1).focus()
        page.page.keyboard.press("c")
    page.page.click("#tray .main")
    comparison = page.page.locator("#comparison .fk-compare")
    for image in comparison.locator("img").all():
        image.evaluate("image => image.decode()")
    slider = comparison.locator("input")
    assert slider.evaluate("input => input === document.activeElement")
    page.page.keyboard.press("End")
    for _ in range(25):
        page.page.keyboard.press("ArrowLeft")
    assert comparison.evaluate("element => element.style.getPropertyValue('--fk-split')") == "75%"
    picture = comparison.screenshot()
    file = Image.open(io.BytesIO(picture)).convert("RGB")
    row = [file.getpixel((x, file.height // 4)) for x in range(file.width)]
    red = sum(pixel[0] > 200 and pixel[2] < 60 for pixel in row) / file.width
    assert red == pytest.approx(0.75, abs=0.04)
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "steps" in page.page.locator(".differences").inner_text()
    page.page.keyboard.press("Escape")
    page.page.click("#tray .icon")
    page.page.set_viewport_size({"width": 1280, "height": 900})
