"""``results.csv`` and ``results.parquet``: a line for each row of a batch, done or failed, from the records alone."""

from __future__ import annotations

import csv
import errno
import importlib.util
import io
import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from lib_fluxkontext.batch.columns import SETTING_COLUMNS
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.index_entry import lora_text
from lib_fluxkontext.batch.measures import Measures, measure
from lib_fluxkontext.batch.record import FailedRecord, Record, is_failed, read_failed_record, read_record
from lib_fluxkontext.errors import first_line
from lib_fluxkontext.replaced_file import replaced
from lib_fluxkontext.settings import IMAGE_FIELDS, default_of

CSV_NAME, PARQUET_NAME = "results.csv", "results.parquet"

ROW_GROUP = 2_000
"""Rows of the Parquet file that are in memory at a time, some megabytes of JSON."""

Writer = Callable[[Path, Iterable[list[Any]]], None]
"""Writes a table's file, given its rows."""

_AGAIN = "start the same command again"

_MEASURES: dict[str, type] = {
    field.name: next(kind for kind in (int, float, str) if str(field.type).startswith(kind.__name__))
    for field in fields(Measures)
}

COLUMNS: dict[str, type] = {
    "number": int,
    "line": int,
    "key": str,
    "state": str,
    "picture": str,
    "prompt": str,
    **dict.fromkeys(IMAGE_FIELDS, str),
    "seed": int,
    "steps": int,
    "width": int,
    "height": int,
    "guidance": float,
    "checkpoint": str,
    "lora": str,
    **{name: type(default_of(name)) for name in SETTING_COLUMNS},
    "seconds": float,
    **_MEASURES,
    "vram_peak": int,
    "made_by": str,
    "finished": str,
    "reason": str,
    "field": str,
}
"""Column → type of its values; a value may be missing. Sizes are in pixels, memory in bytes, times in seconds."""


class Tables:
    """Writes the tables of a folder, each independently of the other.

    Args:
        folder: of the batch.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counted: Counter[bool] | None = None  # rows done and failed when they were last written

    def write(self, always: bool = False) -> list[str]:
        """Write the tables anew, in the manifest's order; the Parquet file where pyarrow is.

        Memory does not grow with the number of rows.

        Args:
            always: also those for which nothing seems to have changed.

        Returns:
            A line for each table that could not be written, with what to do.

        Raises:
            OSError: the records cannot be listed.
        """
        changed = _last_change(self._folder)
        counted = Counter(done for _, done in OutputFolder(self._folder).states())
        always = always or (self._counted is not None and counted != self._counted)
        writers = {
            name: write for name, write in _writers().items() if always or _time_of(self._folder / name) != changed
        }
        wrong = self._write(writers, changed) if writers else []
        if not wrong:
            self._counted = counted
        return wrong

    def _write(self, writers: Mapping[str, Writer], changed: int) -> list[str]:
        wrong: dict[str, str] = {}
        left = list(writers)
        try:
            with closing(sqlite3.connect("")) as rows:  # a temporary file: it sorts what need not fit into memory
                rows.execute("CREATE TABLE rows (number INTEGER, key TEXT, line TEXT)")
                rows.executemany("INSERT INTO rows VALUES (?, ?, ?)", _numbered_rows(self._folder))
                for name, write in writers.items():
                    sorted_rows = rows.execute("SELECT line FROM rows ORDER BY number, key")
                    try:
                        with replaced(self._folder / name) as part:
                            write(part, (json.loads(line) for (line,) in sorted_rows))
                            os.utime(part, ns=(changed, changed))
                    except (OSError, ImportError, ValueError) as error:  # Arrow's, too
                        wrong[name] = not_written(name, error)
                    left.remove(name)
        except sqlite3.Error as error:
            reason = f"{first_line(error)}: make room in {tempfile.gettempdir()} and {_AGAIN}"
            wrong |= {name: f"{name} could not be written: {reason}" for name in left}
        return list(wrong.values())


def _writers() -> dict[str, Writer]:
    writers: dict[str, Writer] = {CSV_NAME: _write_csv}
    if importlib.util.find_spec("pyarrow") is not None:
        writers[PARQUET_NAME] = _write_parquet
    return writers


def not_written(name: str, error: Exception) -> str:
    """Say that a file of a batch could not be written, why, and what to do."""
    remedy = _AGAIN
    if isinstance(error, PermissionError):  # Excel lets nobody else write what it shows
        remedy = f"close it elsewhere and {_AGAIN}"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = f"make room on the disk and {_AGAIN}"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return f"{name} could not be written: {reason}; {remedy}"


def flatten(record: Record | FailedRecord) -> dict[str, Any]:
    """Return a record as a table has it; columns without a value are left out."""
    failed = is_failed(record)
    key = record["key"]
    values = {name: value for name, value in record.items() if name in COLUMNS} | record["settings"]
    values |= dict(zip(IMAGE_FIELDS, record["images"], strict=False))
    values |= {"state": "failed" if failed else "done", "lora": lora_text(record["loras"])}
    if not failed:
        report: Mapping[str, Any] = record.get("report") or {}  # type: ignore[assignment]
        measures = measure(report)
        values |= {"picture": f"pictures/{key[:2]}/{key}.png", "vram_peak": measures.vram_peak, **asdict(measures)}
    return {name: value for name, value in values.items() if name in COLUMNS and value is not None}


def _numbered_rows(folder: Path) -> Iterator[tuple[int, str, str]]:
    files = OutputFolder(folder)
    for key, done in files.states():
        record: Record | FailedRecord | None
        if done:
            record = read_record(files.record_path(key))
        else:
            record = None if files.is_done(key) else read_failed_record(files.failed_path(key))
        if record is not None:
            values = flatten(record)
            line = [None if values.get(name) is None else kind(values[name]) for name, kind in COLUMNS.items()]
            yield record["number"], key, json.dumps(line)


def _write_csv(path: Path, rows: Iterable[list[Any]]) -> None:
    """Write with a byte order mark: without one, Excel shows other letters than a prompt has."""
    with path.open("w", encoding="utf-8-sig", newline="", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _write_parquet(path: Path, rows: Iterable[list[Any]]) -> None:
    """Write by way of JSON lines: ``pyarrow.array`` would import pandas, a third of a second for nothing."""
    import pyarrow
    from pyarrow import json as arrow_json
    from pyarrow import parquet

    types = {int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    parsing = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(remaining, ROW_GROUP)):
            lines = "\n".join(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in group)
            data = lines.encode("utf-8", errors="replace")
            reading = arrow_json.ReadOptions(block_size=len(data) + 1)  # a row must not lie on two blocks
            writer.write_table(arrow_json.read_json(io.BytesIO(data), read_options=reading, parse_options=parsing))


def _last_change(folder: Path) -> int:
    """Return when a record last came or went: a folder's time is that of the last file in it that did. On exFAT and
    FAT32 it is that of the folder's own making."""
    pictures = OutputFolder(folder).pictures
    if not pictures.is_dir():
        return _time_of(folder) or 0
    entries = [entry.stat().st_mtime_ns for entry in os.scandir(pictures) if entry.is_dir()]
    return max([pictures.stat().st_mtime_ns, *entries])


def _time_of(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
