"""``batch`` as a person runs it: killed, interrupted, on a full disk, with an edited manifest."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.record import read_record, row_from_values
from lib_fluxkontext.batch.worker import NullWorker
from lib_fluxkontext.commands import batch_workers
from lib_fluxkontext.commands.main import main
from lib_fluxkontext.hosts.diffusers.pipeline import generate
from lib_fluxkontext.images.files import read_reference
from lib_fluxkontext.job import Job
from tests.support.photos import cat, square, woman
from tests.support.waiting import INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("put the first picture on the left and the second on the right", "make it black and white")
COLUMNS = ("prompt", "image1", "image2", "seed", "steps", "cache_threshold")
ROWS = [
    [PROMPTS[number % 2], "woman.png", "cat.jpg" if number % 3 else "", number, 2 + number % 2, 0.3]
    for number in range(24)
]
BATCH = ("batch", "rows.csv", "--output", "out", "--device", "cpu")
KILLS = 5


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two photographs and a manifest."""
    monkeypatch.chdir(tmp_path)
    square(woman(), 96).save("woman.png")
    square(cat(), 96).save("cat.jpg")
    write_manifest(ROWS)
    return tmp_path


@pytest.fixture
def null_worker(monkeypatch: pytest.MonkeyPatch) -> NullWorker:
    """Makes a grey pixel of everything, in place of the pipeline."""
    worker = NullWorker()
    monkeypatch.setattr(batch_workers, "local_workers", lambda where: [worker])
    monkeypatch.setattr("lib_fluxkontext.commands.batch.local_workers", lambda where: [worker])
    return worker


def write_manifest(rows: Sequence[Sequence[object]], columns: Sequence[str] = COLUMNS) -> None:
    with open("rows.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def start(*more: str) -> subprocess.Popen[str]:
    """Start the batch as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "lib_fluxkontext", *BATCH, *more]
    return subprocess.Popen(
        command, env=environment, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished() -> dict[str, tuple[int, int, int, int]]:
    """Return what identifies the files of each row that is done: it changes when they are written again."""
    output, found = OutputFolder(Path("out")), {}
    for key, done in output.states():
        if done:
            record, picture = output.record_path(key).stat(), output.picture_path(key).stat()
            found[key] = (record.st_ino, record.st_mtime_ns, picture.st_ino, picture.st_mtime_ns)
    return found


def wait_for(count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many rows are done, or the process has ended."""
    while len(finished()) < count and process.poll() is None:
        time.sleep(0.01)


def records() -> Iterator[dict[str, Any]]:
    output = OutputFolder(Path("out"))
    for key in finished():
        record = read_record(output.record_path(key))
        assert record is not None
        yield dict(record)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_killed_five_times_every_picture_is_that_of_its_single_run_and_none_is_made_twice(
    folder: Path, pipeline: Any
) -> None:
    moments = random.Random(15)
    seen: dict[str, tuple[int, int, int, int]] = {}
    for kill in range(KILLS):
        process = start()
        wait_for(len(seen) + moments.randrange(1, 4), process)
        time.sleep(moments.random() * 0.3)
        assert process.poll() is None, f"ended before kill {kill}: {process.communicate()[0]}"
        process.kill()
        process.communicate()
        now = finished()
        assert seen.items() <= now.items()
        seen = now
    assert 0 < len(seen) < len(ROWS)
    process = start()
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert re.search(rf"^Made: {len(ROWS) - len(seen)} of {len(ROWS) - len(seen)} in", printed, re.MULTILINE), printed
    assert seen.items() <= finished().items()
    assert len(finished()) == len(ROWS)
    assert list(Path("out").rglob("*.part")) == []
    for record in records():
        assert picture_of(record["key"]).tobytes() == single_run(pipeline, record).tobytes()


def picture_of(key: str) -> Image.Image:
    return Image.open(OutputFolder(Path("out")).picture_path(key))


def single_run(pipeline: Any, record: Any) -> Image.Image:
    """Make a row alone."""
    row = row_from_values(record)
    references = [read_reference(path, f"image{number}") for number, path in enumerate(row.images, 1)]
    job = Job(row.prompt, row.width, row.height, row.steps, row.seed, row.guidance)
    return generate(pipeline, job, references, row.settings).image


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a signal as a Unix terminal does")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_finishes_or_drops_the_row_in_hand_and_says_so(folder: Path, times: int) -> None:
    write_manifest([[PROMPTS[0], "woman.png", "cat.jpg", seed, 60, 0] for seed in range(6)])
    process = start()
    wait_for(1, process)
    time.sleep(0.3)  # into the next
    before = finished()
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    shown = process.stdout.readline()
    while "Finishing the pictures in hand" not in shown and process.poll() is None:
        shown = process.stdout.readline()
    if times == 2:
        process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode in INTERRUPTED, printed
    left = len(ROWS[:6]) - len(finished())
    assert f"error: interrupted; {left} are still to do: start again to go on" in printed
    assert ("Dropping the pictures in hand" in printed) == (times == 2)
    assert before.items() <= finished().items()
    assert left > 0
    assert list(Path("out").rglob("*.part")) == []


@pytest.mark.slow
def test_an_unreadable_image_and_an_edited_manifest(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("half.png").write_bytes(Path("woman.png").read_bytes()[:3000])
    rows = [[PROMPTS[0], name, "", 1, 1, 0] for name in ("woman.png", "half.png", "cat.jpg")]
    write_manifest(rows)
    assert main([*BATCH]) == 1
    printed = capsys.readouterr()
    assert "Made: 2 of 3 in" in printed.out
    assert "Failed: 1" in printed.out
    assert "Failed, line 3: image1: the image is truncated" in printed.err
    before = finished()
    square(cat(), 96).save("half.png")  # mended; one row edited, one taken away, one new
    write_manifest([rows[0], rows[1], [PROMPTS[1], "cat.jpg", "", 1, 1, 0], [PROMPTS[1], "woman.png", "", 7, 1, 0]])
    assert main([*BATCH]) == 0
    assert "Made: 3 of 3 in" in capsys.readouterr().out
    assert before.items() <= finished().items()
    assert len(finished()) == 5
    assert len(Path("out/results.csv").read_text(encoding="utf-8").splitlines()) > 5
    assert Path("out/index.html").stat().st_size > 5 * 1000


def test_the_whole_manifest_is_validated_before_the_first_picture(
    folder: Path, null_worker: NullWorker, capsys: pytest.CaptureFixture
) -> None:
    write_manifest([ROWS[0], [PROMPTS[0], "nobody.png", "", "x", 0, 2], ROWS[1]])
    assert main([*BATCH]) == 2
    errors = capsys.readouterr().err.splitlines()
    for place, words in (("image1", "nobody.png"), ("seed", "whole number"), ("steps", "1 to 1000")):
        assert any(line.startswith(f"error: rows.csv, line 3, {place}: ") and words in line for line in errors), errors
    assert errors[-1].endswith("mistakes in rows.csv; nothing was made")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch", "nowhere.csv", "--output", "out"], ["nowhere.csv", "no such file"]),
        ([*BATCH, "--share", "3/2"], ["--share", "K from 1 to N"]),
        ([*BATCH, "--batch-size", "0"], ["--batch-size", "1 or more"]),
        ([*BATCH, "--forge", "http://127.0.0.1:9"], ["--device", "not allowed with --forge"]),
        ([*BATCH, "--auth", "a:b"], ["--auth", "--forge"]),
        ([*BATCH, "--checkpoint", "nowhere.gguf"], ["--checkpoint", "no such file"]),
        ([*BATCH, "--nf4"], ["--nf4", "CUDA"]),
    ],
)
def test_a_wrong_request_is_one_line(
    folder: Path, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture
) -> None:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1, printed.err
    for word in words:
        assert word in printed.err
    assert not Path("out").exists()


def test_a_full_disk_ends_it_with_one_line_and_it_goes_on_later(
    folder: Path, null_worker: NullWorker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    synced = os.fsync

    def full(file: int) -> None:
        if len(finished()) >= 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main([*BATCH]) == 1
    assert re.search(r"^error: No space left on device: .*start again to go on", capsys.readouterr().err, re.MULTILINE)
    before = finished()
    assert len(before) == 5
    assert main([*BATCH]) == 0
    assert before.items() <= finished().items()
    assert len(finished()) == len(ROWS)


def test_a_dry_run_counts_and_learns_from_the_first_row(
    folder: Path, null_worker: NullWorker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_manifest([*ROWS, ROWS[0]])
    assert main([*BATCH, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not Path("out").exists()
    for line in ("Pictures to make: 24", "Given twice, made once: 1", "References to encode: 2", "Prompts to embed: 2"):
        assert line in said.splitlines()
    assert "Checkpoints to load: 1\nTime: not known" in said
    assert main([*BATCH, "--limit", "1"]) == 0
    (record,) = records()
    record["seconds"] = 60.0 * record["steps"]
    OutputFolder(Path("out")).record_path(record["key"]).write_text(json.dumps(record))
    capsys.readouterr()
    assert main([*BATCH, "--dry-run"]) == 0
    minutes = sum(row[4] for row in ROWS) - record["steps"]
    assert f"Time: about {minutes} min, from one finished row" in capsys.readouterr().out.splitlines()


def test_shares_add_up_in_one_folder(folder: Path, null_worker: NullWorker) -> None:
    counts = []
    for share in ("1/2", "2/2"):
        assert main([*BATCH, "--share", share]) == 0
        counts.append(len(finished()))
    assert 0 < counts[0] < counts[1] == len(ROWS)
