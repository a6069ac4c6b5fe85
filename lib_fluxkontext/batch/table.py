"""``results.csv`` and ``results.parquet``: a line for each row of a batch, done or failed, from the records alone."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import sqlite3
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
from lib_fluxkontext.replaced_file import replaced
from lib_fluxkontext.settings import IMAGE_FIELDS, default_of

CSV_NAME, PARQUET_NAME = "results.csv", "results.parquet"

ROW_GROUP = 2_000
"""Rows of the Parquet file that are in memory at a time, some megabytes of JSON."""

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


def write_tables(folder: Path) -> None:
    """Write the tables anew, in the manifest's order, unless nothing has changed; the Parquet file where pyarrow is.

    Memory does not grow with the number of rows.

    Args:
        folder: of the batch.

    Raises:
        OSError: the folder cannot be written to.
    """
    writers: dict[str, Callable[[Path, Iterable[list[Any]]], None]] = {CSV_NAME: _write_csv}
    if importlib.util.find_spec("pyarrow") is not None:
        writers[PARQUET_NAME] = _write_parquet
    changed = _last_change(folder)
    if all(_time_of(folder / name) == changed for name in writers):
        return
    with closing(sqlite3.connect("")) as rows:  # a temporary file: it sorts what need not fit into memory
        rows.execute("CREATE TABLE rows (number INTEGER, key TEXT, line TEXT)")
        rows.executemany("INSERT INTO rows VALUES (?, ?, ?)", _numbered_rows(folder))
        for name, write in writers.items():
            sorted_rows = rows.execute("SELECT line FROM rows ORDER BY number, key")
            with replaced(folder / name) as part:
                write(part, (json.loads(line) for (line,) in sorted_rows))
            os.utime(folder / name, ns=(changed, changed))


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
    """Return when a record last came or went: a folder's time is that of the last file in it that did."""
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
