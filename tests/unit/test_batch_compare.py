"""``compare``: the grid of rows, the numbers against the uncached picture, table, page and picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageFont

from lib_fluxkontext.batch import comparison_picture
from lib_fluxkontext.batch.comparison import Comparison, read_comparison
from lib_fluxkontext.batch.comparison_picture import draw
from lib_fluxkontext.batch.comparison_table import markdown, page
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.grid import Cell, GridOptions, make_grid
from lib_fluxkontext.batch.validate import rows_of
from lib_fluxkontext.batch.worker import Failed, Made
from lib_fluxkontext.command_line import WRONG_REQUEST
from lib_fluxkontext.commands.compare import WarmWorker
from lib_fluxkontext.commands.main import main
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers import loader
from lib_fluxkontext.telemetry.memory import MemoryUse
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport
from lib_fluxkontext.text_values import parse_number
from tests.support.batch_rows import ScriptedWorker, a_row

GREY, LIGHTER = (100, 100, 100), (110, 110, 110)
PROMPT = "the woman | hugs <b>the cat</b>, зимой"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "green").save(path)
    return path


def grid(folder: Path, photo: Path, **values: Any) -> list[Cell]:
    """Make a grid of a Forge server's checkpoints, which need no files."""
    options = GridOptions(**{"prompt": PROMPT, "images": [photo], "common": {"seed": 0, "size": "96x96"}, **values})
    return make_grid(options, folder, False, None, local_models=False)


def test_the_grid_has_every_combination_and_the_uncached_one(tmp_path: Path, photo: Path) -> None:
    checkpoints, loras = ["dev.safetensors", "sub/q4.gguf"], ["none", "turbo:0.5;line"]
    cells = grid(tmp_path, photo, checkpoints=checkpoints, loras=loras, steps=[10, 20], caches=["0.08", "Fast"])
    assert len(cells) == len({cell.place for cell in cells}) == len({cell.row.key for cell in cells}) == 2 * 2 * 2 * 3
    assert [cell.place.cache for cell in cells[:3]] == ["off", "0.08", "fast"]
    assert {cell.place.group for cell in cells} == {
        (checkpoint, lora, steps)
        for checkpoint in ("dev", "q4")
        for lora in ("", "turbo:0.5 + line")
        for steps in (10, 20)
    }
    off, threshold, fast = (cell.row.settings for cell in cells[:3])
    assert not off.cache
    assert (threshold.cache, threshold.cache_threshold, threshold.cache_correct) == (True, 0.08, False)
    assert (fast.cache_threshold, fast.cache_correct, fast.reference_refresh) == (0.2, True, 1)
    assert [lora.weight for lora in cells[-1].row.loras] == [0.5, 1.0]
    assert [row.key for row in rows_of(tmp_path / "grid.jsonl", False, local_models=False)] == [  # type: ignore[union-attr]
        cell.row.key for cell in cells
    ]


@pytest.mark.parametrize(
    ("values", "name", "reason"),
    [
        ({"caches": ["0.1", "quick"]}, "cache", 'got the text "quick"; allowed: a threshold from 0 to 1, or off'),
        ({"caches": ["1.5"]}, "cache_threshold", "a number from 0 to 1"),
        ({"steps": ["many"]}, "steps", "a whole number"),
        ({"images": [Path("nowhere.png")]}, "image", "no such file: nowhere.png"),
        ({"checkpoints": ["a/dev.gguf", "b/dev.gguf"]}, "checkpoint", "two of them have the same name"),
        ({"loras": ["a/turbo.safetensors", "b/turbo.safetensors"]}, "lora", "two of them have the same name"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, photo: Path, values: dict[str, Any], name: str, reason: str
) -> None:
    with pytest.raises(KontextError) as raised:
        grid(tmp_path, photo, **values)
    assert raised.value.field == name
    assert reason in raised.value.reason


def test_what_is_given_twice_is_made_once(tmp_path: Path, photo: Path) -> None:
    steps = [parse_number(text) for text in ("20", "20", "10", "20.0")]
    cells = grid(tmp_path, photo, steps=steps, checkpoints=["dev", "dev"], loras=["turbo", "turbo"])
    assert [cell.place.steps for cell in cells] == [20, 10]


def test_checkpoints_with_one_name_keep_their_endings(tmp_path: Path, photo: Path) -> None:
    cells = grid(tmp_path, photo, checkpoints=["a/dev.gguf", "dev.safetensors", "q4.gguf"])
    assert [cell.place.checkpoint for cell in cells] == ["dev.gguf", "dev.safetensors", "q4"]


def test_a_file_without_its_base_names_the_option_that_is_missing(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("flip_evaluator")

    def check(checkpoint: Path | None, base: Path | None, *others: object) -> None:
        if checkpoint is not None and base is None:
            raise KontextError("needed beside a single file", "base")

    monkeypatch.setattr(loader, "check_checkpoint", check)
    checkpoint = tmp_path / "dev.gguf"
    checkpoint.touch()
    options = ["--prompt", "hug", "--image", photo, "--checkpoint", checkpoint, "--output", tmp_path / "out"]
    assert main(["compare", *map(str, options)]) == WRONG_REQUEST
    assert capsys.readouterr().err == "error: --base: needed beside a single file\n"


@pytest.mark.parametrize(
    ("text", "installed", "wanted"),
    [
        ("猫を抱きしめる", "msyh.ttc", "msyh.ttc"),
        ("猫を抱きしめる", "NotoSansCJK-Regular.ttc", "NotoSansCJK-Regular.ttc"),
        ("고양이", "malgun.ttf", "malgun.ttf"),
        ("зимой", "DejaVuSans.ttf", "DejaVuSans.ttf"),
        ("winter", "DejaVuSans.ttf", None),
        ("猫", "none", None),
    ],
)
def test_a_font_is_opened_that_has_the_texts_letters(
    monkeypatch: pytest.MonkeyPatch, text: str, installed: str, wanted: str | None
) -> None:
    opened: list[str] = []

    def truetype(name: str, size: int) -> SimpleNamespace:
        opened.append(name)
        if name != installed:
            raise OSError("cannot open resource")
        return SimpleNamespace(name=name)

    comparison_picture._own_font(18)  # as it is
    monkeypatch.setattr(ImageFont, "truetype", truetype)
    monkeypatch.setattr(comparison_picture, "_coverage", lambda font: lambda letter: True)
    comparison_picture._system_fonts.cache_clear()
    try:
        font = comparison_picture._font(18, text)
    finally:
        comparison_picture._system_fonts.cache_clear()
    assert getattr(font.font, "name", None) == wanted
    large = set(comparison_picture._CJK_FONTS)
    assert bool(large & set(opened)) == (wanted != "DejaVuSans.ttf" and text != "winter")


def report(seconds: float, reused: int, card: bool) -> dict[str, Any]:
    calls = [CallRecord(step, 1.0, seconds / 10, int(step < reused), 1) for step in range(10)]
    memory = MemoryUse("RTX", 2**30, 3 * 2**30, 2**31, 2**33, 2**29) if card else MemoryUse(*[None] * 5, 2**29)
    return GenerationReport((PassReport("Sampling", calls, seconds),), memory).to_dict()


def compared(folder: Path, photo: Path, card: bool = True) -> Comparison:
    """Two numbers of steps: the first without fault; of the second the uncached picture failed."""
    cells = grid(folder, photo, checkpoints=["dev"], steps=[10, 20], caches=["0.08", "fast"])
    files = OutputFolder(folder, durable=False)
    files.prepare()
    colours = [GREY, LIGHTER, GREY, None, LIGHTER, LIGHTER]
    for cell, colour, seconds in zip(cells, colours, (4.0, 2.0, 1.0) * 2, strict=True):
        if colour is None:
            files.write_failure(cell.row, Failed("out of memory"), "x")
        else:
            picture = Image.new("RGB", (96, 96), colour)
            files.write(cell.row, Made(picture, "", report(seconds, 5, card), seconds, "x"))
    return read_comparison(folder, cells, [photo])


def test_numbers_are_against_the_uncached_picture(tmp_path: Path, photo: Path) -> None:
    pytest.importorskip("flip_evaluator")
    off, threshold, fast, failed, *orphans = compared(tmp_path, photo).entries
    assert off.quality is None
    assert threshold.quality is not None
    assert fast.quality is not None
    assert threshold.quality.psnr == pytest.approx(28.13, abs=0.01)  # 20 log₁₀(255 / 10)
    assert 0 < threshold.quality.flip < 0.5
    assert fast.quality.psnr == float("inf")
    assert fast.quality.flip == pytest.approx(0, abs=1e-6)
    assert (threshold.speed_up, fast.speed_up) == (2.0, 4.0)
    assert threshold.memory == 3 * 2**30
    assert failed.reason == "out of memory"
    assert all(entry.quality is None and entry.speed_up is None for entry in orphans)


def test_markdown_is_a_table_that_no_text_breaks(tmp_path: Path, photo: Path) -> None:
    pytest.importorskip("flip_evaluator")
    lines = markdown(compared(tmp_path, photo)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 6
    assert table[0] == "| Steps | Cache | Seconds | Faster | s/step | Reused | VRAM peak | PSNR | FLIP |"
    assert table[2] == "| 10 | off | 4.00 s | – | 0.400 | 50% | 3.00 GB | reference | – |"
    assert table[3].startswith("| 10 | 0.08 | 2.00 s | 2.00× | 0.200 | 50% | 3.00 GB | 28.1 dB | 0.")
    assert "identical" in table[4]
    assert "| 20 | off | not made |" in table[5]
    assert lines[0] == r"**the woman \| hugs \<b>the cat\</b>, зимой**"
    assert lines[1] == lines[3] == ""  # or the picture would be part of a paragraph


def test_memory_without_a_card_is_called_what_it_is(tmp_path: Path, photo: Path) -> None:
    pytest.importorskip("flip_evaluator")
    comparison = compared(tmp_path, photo, card=False)
    assert "| Process memory |" in markdown(comparison)
    assert "0.50 GB" in markdown(comparison)
    assert "VRAM" not in page(comparison, tmp_path)


def test_the_page_holds_every_picture_and_escapes(tmp_path: Path, photo: Path) -> None:
    pytest.importorskip("flip_evaluator")
    html = page(compared(tmp_path, photo), tmp_path)
    assert html.count("<figure>") == 6
    assert html.count("data:image/jpeg") == 5 + 1  # and the photo
    assert "<b>the cat</b>" not in html
    assert "out of memory" in html
    links = [part.split('"')[0] for part in html.split('<a href="')[1:]]
    assert len(links) == 5
    assert all((tmp_path / link).is_file() for link in links)


def test_the_picture_shows_every_cell_in_its_place(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flip_evaluator")
    comparison = compared(tmp_path, photo)
    picture = draw(comparison)
    names = picture.getcolors(picture.width * picture.height)
    assert names is not None
    counts = {colour: count for count, colour in names}
    cell = comparison_picture.CELL**2
    assert counts[GREY] == pytest.approx(2 * cell, rel=0.01)
    assert counts[LIGHTER] == pytest.approx(3 * cell, rel=0.01)

    def old(size: float | None = None) -> Any:
        if size is not None:
            raise TypeError("load_default() takes 0 positional arguments but 1 was given")
        return ImageFont.load_default_imagefont()

    monkeypatch.setattr(ImageFont, "load_default", old)  # before Pillow 10.1
    comparison_picture._own_font.cache_clear()
    try:
        assert draw(comparison).height == picture.height
    finally:
        comparison_picture._own_font.cache_clear()


@dataclass
class _Counting(ScriptedWorker):
    steps: list[int] = field(default_factory=list)

    def make(self, rows: Any) -> Any:
        self.steps += [row.steps for row in rows]
        return super().make(rows)


def test_no_picture_pays_for_a_models_first() -> None:
    inner = _Counting()
    worker = WarmWorker(inner)
    for number, checkpoint in enumerate(["a", "a", "b", "b"], 1):
        outcomes = worker.make([a_row(number, checkpoint=checkpoint)])
        assert len(outcomes) == 1
    assert inner.steps == [2, 20, 20, 2, 20, 20]


def test_a_cells_manifest_line_is_json(tmp_path: Path, photo: Path) -> None:
    grid(tmp_path, photo, caches=["off"])
    (line,) = (tmp_path / "grid.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "prompt": PROMPT,
        "seed": 0,
        "size": "96x96",
        "steps": 20,
        "preset": "off",
        "image1": str(photo),
    }
