"""Index and tables beside other programs that hold them, on full disks, and at the end of a batch."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import time
from pathlib import Path

import pytest
from PIL import Image

from lib_fluxkontext.batch import overviews as overviews_module
from lib_fluxkontext.batch.estimate import Estimate
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.index import IndexWriter
from lib_fluxkontext.batch.index_entry import to_line
from lib_fluxkontext.batch.overviews import Overviews
from lib_fluxkontext.batch.record import make_failed_record
from lib_fluxkontext.batch.table import Tables
from lib_fluxkontext.batch.worker import Made
from lib_fluxkontext.command_line import DONE, FAILED, INTERRUPTED
from lib_fluxkontext.commands import batch
from lib_fluxkontext.commands.batch_workers import WorkerOptions
from lib_fluxkontext.commands.main import main
from lib_fluxkontext.hosts.diffusers.options import LoadOptions
from tests.support.batch_rows import ScriptedWorker, a_row
from tests.support.held_files import hold, windows_error

MADE = Made(Image.new("RGB", (1, 1)), "", {}, 0.1, "x")
FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_page_that_is_held_for_a_moment_is_written_anew_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = OutputFolder(tmp_path, durable=False)
    files.prepare()
    row = a_row(1)
    IndexWriter(tmp_path).add(files.write(row, MADE))
    with (tmp_path / "index.html").open("ab") as page:
        page.write(b"half a li")
    tried = hold(monkeypatch, "replace", "index.html", windows_error(), times=2)
    IndexWriter(tmp_path)
    assert len(tried) == 3
    page_now = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert f'data-key="{row.key}" data-state="done"' in page_now
    assert "half a li" not in page_now


def test_a_photo_of_another_system_has_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, a path of Linux is on no drive, and ``/photos`` is no absolute path."""

    def no_common_drive(path: str, start: Path) -> str:
        raise ValueError(f"path is on mount 'C:', start on mount '{start}'")

    monkeypatch.setattr(os.path, "relpath", no_common_drive)
    own, foreign = Path("/photos/woman.png").absolute(), Path("photos/cat.png")
    line = to_line(make_failed_record(a_row(1, images=(own, foreign)), "no", None, "x"), tmp_path)
    images = json.loads(line.split(b">", 1)[1].removesuffix(b"</script>\n"))["images"]
    assert [image["link"] for image in images] == [own.as_uri(), ""]
    assert images[1]["name"] == "cat.png"


@pytest.mark.parametrize("error", [KeyError("number"), sqlite3.OperationalError("full"), FULL])
def test_tables_that_cannot_be_written_are_not_tried_ten_times_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    OutputFolder(tmp_path).prepare()
    overviews = Overviews(tmp_path, 1)
    tried: list[bool] = []

    def fail(tables: Tables, always: bool = False) -> list[str]:
        tried.append(always)
        raise error

    monkeypatch.setattr(Tables, "write", fail)
    for _ in range(3):
        overviews.tick()
        assert overviews._thread is not None
        overviews._thread.join()  # a thread that dies of an exception is an error of pytest's
    assert tried == [False]
    assert overviews._next > time.monotonic() + overviews_module.TABLE_SECONDS / 2


def test_at_the_end_everything_is_tried_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OutputFolder(tmp_path).prepare()
    overviews = Overviews(tmp_path, 1)

    def full(*arguments: object) -> None:
        raise FULL

    monkeypatch.setattr(IndexWriter, "close", full)
    assert [line.split(";")[0] for line in overviews.close(ended=True)] == [
        "index.html could not be written: No space left on device"
    ]
    assert (tmp_path / "results.csv").exists()


def run_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command with a worker that makes pictures of one pixel; return the exit code."""
    monkeypatch.setattr(batch, "local_workers", lambda where: [ScriptedWorker()])
    monkeypatch.setattr(batch, "default_checkpoint", lambda where: "dev")
    (folder / "night.csv").write_text("prompt\nhug\n")
    options = [folder / "night.csv", "--output", folder / "night", "--forge", "http://127.0.0.1:1"]
    return main(["batch", *map(str, options)])


def test_a_table_that_is_open_in_excel_ends_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as excel:
        hold(excel, "replace", "results.csv", windows_error(32))
        assert run_batch(tmp_path, monkeypatch) == DONE
    printed, errors = capsys.readouterr()
    assert printed.startswith("Made: 1 of 1 in ")
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert said[0].startswith("error: results.csv could not be written: ")
    assert said[0].endswith("; close it elsewhere and start the same command again")
    assert run_batch(tmp_path, monkeypatch) == DONE
    assert (tmp_path / "night" / "results.csv").read_text(encoding="utf-8-sig").count("hug") == 1


def test_a_disk_that_is_full_at_the_end_too_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise FULL

    monkeypatch.setattr(OutputFolder, "write", full)
    monkeypatch.setattr(IndexWriter, "close", full)
    hold(monkeypatch, "replace", "results.csv", FULL)
    assert run_batch(tmp_path, monkeypatch) == FAILED
    printed, errors = capsys.readouterr()
    assert "Made: 0 of 1" in printed
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert [line.split(" ")[1] for line in said] == ["No", "index.html", "results.csv"]
    assert said[0].endswith("What is in the folder is whole; start again to go on.")


def test_an_interrupt_while_the_tables_are_written_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(overviews: Overviews, ended: bool) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Overviews, "close", interrupt)
    assert run_batch(tmp_path, monkeypatch) == INTERRUPTED
    printed, errors = capsys.readouterr()
    assert "Made: 1 of 1" in printed
    assert errors.splitlines()[-1] == "error: interrupted; the tables are not up to date: start again to write them"


@pytest.mark.parametrize(
    ("actors", "to_do", "wanted"),
    [
        ((1, 16), 1000, "about 10 min"),
        ((2, 2), 1000, "about 80 min"),
        ((1, 16), 2, "about 80 min"),
        (None, 1000, "about 2 h 40 min, from 3 finished rows, on one card"),
    ],
)
def test_a_dry_run_divides_the_time_by_rays_actors(actors: tuple[int, int] | None, to_do: int, wanted: str) -> None:
    found = Estimate(to_do, 0, 0, 0, 0, 0, 1, 9600.0, "3 finished rows")
    line = batch._estimated(found, WorkerOptions(LoadOptions(), 1, [], None, "", actors))[-1]
    assert wanted in line
    assert ("on one card" in line) == (actors is None)
