"""``results.csv`` and ``results.parquet``: what is in them, their order, and when they are written."""

from __future__ import annotations

import csv
import errno
import importlib.util
import sqlite3
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from lib_fluxkontext.batch import table
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.row import Lora, Row
from lib_fluxkontext.batch.table import COLUMNS, Tables
from lib_fluxkontext.batch.worker import Failed, Made
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.memory import MemoryUse
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport
from tests.support.batch_rows import a_row, some_rows
from tests.support.held_files import hold, windows_error

PROMPT = 'the "woman", the cat;\nand иней'


@pytest.fixture
def files(tmp_path: Path) -> OutputFolder:
    """Three rows, the second failed; the third says everything."""
    files = OutputFolder(tmp_path, durable=False)
    files.prepare()
    settings = KontextSettings(enabled=True, cache_threshold=0.08, half_size=True)
    row = a_row(3, prompt=PROMPT, images=(Path("/a/woman.png"),), settings=settings, loras=(Lora("turbo", 0.8),))
    calls = [CallRecord(step, 1.0, 0.5, int(step == 3), 1) for step in range(4)]
    memory = MemoryUse("RTX", 8, 9, 10, 12, 20)
    report = GenerationReport((PassReport("Sampling", calls, 2.0, encode_seconds=0.25),), memory)
    write(files, a_row(10))
    files.write_failure(a_row(2), Failed("too large", "image1"), "x")
    files.write(row, Made(Image.new("RGB", (1, 1)), "", report.to_dict(), 3.5, "in process"))
    return files


def write(files: OutputFolder, row: Row) -> None:
    files.write(row, Made(Image.new("RGB", (1, 1)), "", {}, 0.1, "x"))


def lines(files: OutputFolder) -> list[dict[str, str]]:
    with (files.path / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_stand_in_the_manifests_order_with_what_they_asked_for_and_cost(files: OutputFolder) -> None:
    assert Tables(files.path).write() == []
    failed, full, bare = lines(files)
    assert list(full) == list(COLUMNS)
    assert [row["number"] for row in (failed, full, bare)] == ["2", "3", "10"]
    assert (failed["state"], failed["reason"], failed["field"]) == ("failed", "too large", "image1")
    assert failed["picture"] == failed["seconds"] == ""
    expected = {
        "prompt": PROMPT,
        "picture": f"pictures/{full['key'][:2]}/{full['key']}.png",
        "image1": str(Path("/a/woman.png")),
        "image2": "",
        "lora": "turbo:0.8",
        "cache_threshold": "0.08",
        "half_size": "True",
        "seconds": "3.5",
        "encode_seconds": "0.25",
        "step_seconds": "0.5",
        "reused_share": "0.25",
        "vram_peak": "10",
        "device": "RTX",
    }
    assert {name: full[name] for name in expected} == expected
    assert (files.path / full["picture"]).is_file()
    assert bare["sampling_seconds"] == ""


def test_parquet_has_the_same_with_types(files: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(table, "ROW_GROUP", 2)
    assert Tables(files.path).write() == []
    file = parquet.ParquetFile(files.path / "results.parquet")
    assert file.num_row_groups == 2
    rows = file.read().to_pylist()
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert texts == lines(files)
    assert [type(rows[1][name]) for name in ("number", "cache", "guidance", "prompt")] == [int, bool, float, str]
    assert rows[0]["seconds"] is None


def inodes(files: OutputFolder) -> dict[Path, int]:
    """Which files the tables are; another one after each writing."""
    return {path: path.stat().st_ino for path in files.path.glob("results.*")}


def test_they_are_written_anew_when_something_changed_and_only_then(files: OutputFolder) -> None:
    Tables(files.path).write()
    before = inodes(files)
    Tables(files.path).write()
    assert inodes(files) == before
    for row in some_rows(1):
        write(files, row)
    Tables(files.path).write()
    assert [row["number"] for row in lines(files)] == ["1", "2", "3", "10"]
    files.record_path(a_row(10).key).unlink()
    Tables(files.path).write()
    assert [row["number"] for row in lines(files)] == ["1", "2", "3"]


def test_they_are_up_to_date_where_folders_keep_their_time(
    files: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On exFAT and FAT32 a folder's time is that of its making."""
    monkeypatch.setattr(table, "_last_change", lambda folder: 10**18)
    tables = Tables(files.path)
    tables.write()
    before = inodes(files)
    tables.write()
    assert inodes(files) == before
    write(files, a_row(1))
    tables.write()
    assert [row["number"] for row in lines(files)] == ["1", "2", "3", "10"]
    write(files, a_row(2))  # which had failed: as many records as before
    tables.write()
    assert {row["state"] for row in lines(files)} == {"done"}
    files.record_path(a_row(10).key).unlink()
    write(files, a_row(11))
    tables.write(always=True)  # at the end
    assert [row["number"] for row in lines(files)] == ["1", "2", "3", "11"]


def test_a_table_that_is_open_in_excel_costs_the_other_nothing(
    files: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables(files.path)
    tables.write()
    before, text = inodes(files), (files.path / "results.csv").read_bytes()
    write(files, a_row(1))
    with monkeypatch.context() as excel:
        hold(excel, "replace", "results.csv", windows_error(32))
        assert tables.write() == [
            "results.csv could not be written: The process cannot access the file; "
            "close it elsewhere and start the same command again"
        ]
    assert (files.path / "results.csv").read_bytes() == text
    changed = {path.name for path, inode in inodes(files).items() if before[path] != inode}
    assert changed == ({"results.parquet"} if importlib.util.find_spec("pyarrow") else set())
    assert not list(files.path.glob("*.part"))
    assert tables.write() == []
    assert len(lines(files)) == 4


def test_a_full_disk_is_said_with_what_to_do(files: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(monkeypatch, "replace", "results.csv", OSError(errno.ENOSPC, "No space left on device"))
    (line,) = Tables(files.path).write()
    assert line.endswith(
        "results.csv could not be written: No space left on device; make room on the disk and start the same command "
        "again"
    )


def test_a_full_temporary_folder_is_named(files: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    said = Tables(files.path).write()
    assert said[0].startswith("results.csv could not be written: database or disk is full: make room in ")
    assert all(tempfile.gettempdir() in line for line in said)
