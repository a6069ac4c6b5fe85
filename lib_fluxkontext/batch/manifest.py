"""A manifest's rows with their lines: CSV, JSONL or YAML. CSV and JSONL are streamed, so they may have any length."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from lib_fluxkontext.batch.columns import COLUMNS, RawRow, parse_cell
from lib_fluxkontext.batch.row import RowError
from lib_fluxkontext.batch.yaml_manifest import read_yaml
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.files import unreadable
from lib_fluxkontext.settings import describe, unknown_name

MAX_LINE_BYTES = 1_000_000
"""Bytes of a line. A longer one is no manifest, and must not fill the memory."""

DELIMITERS = (",", ";", "\t")
"""Of CSV: what spreadsheets write, by their language."""

_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_manifest(path: Path) -> Iterator[RawRow | RowError]:
    """Read a manifest, row by row.

    Args:
        path: of a ``.csv``, ``.jsonl`` or ``.yaml`` file in UTF-8.

    Yields:
        Rows, and in their places what could not be read.

    Raises:
        KontextError: the file cannot be read at all, or has no rows; its field is ``"manifest"``.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".yaml": read_yaml, ".yml": read_yaml}
    if path.suffix.lower() not in readers:
        raise KontextError(f"got {path.name}; allowed: a name that ends in {', '.join(readers)}", "manifest")
    is_empty = True
    try:
        with path.open("rb") as file:
            if file.read(2) in _UTF_16_MARKS:
                raise KontextError(f"{path.name} is UTF-16; save it as UTF-8", "manifest")
            file.seek(0)
            for row in readers[path.suffix.lower()](file):
                is_empty = False
                yield row
    except OSError as error:
        raise KontextError(f"{path}: {unreadable(error, 'manifest').reason}", "manifest") from None
    if is_empty:
        raise KontextError(f"{path.name} has no rows", "manifest")


def _lines(file: BinaryIO) -> Iterator[tuple[int, str | RowError]]:
    """Number the lines from 1 and decode them."""
    for number, data in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
        if len(data) > MAX_LINE_BYTES:
            yield number, RowError(number, None, f"longer than {MAX_LINE_BYTES:,} bytes; what follows is not read")
            return
        try:
            yield number, data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            reason = f"not UTF-8 (byte 0x{data[error.start]:02x} at position {error.start + 1}); save it as UTF-8"
            yield number, RowError(number, None, reason)


def _read_jsonl(file: BinaryIO) -> Iterator[RawRow | RowError]:
    for number, text in _lines(file):
        if isinstance(text, RowError):
            yield text
            continue
        if not text.strip():
            continue
        try:
            values = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        except RecursionError:
            yield RowError(number, None, "not JSON: nested too deeply")
        except KontextError as error:
            yield RowError(number, error.field, error.reason)
        except ValueError as error:
            yield RowError(number, None, f"not JSON: {error}")
        else:
            if isinstance(values, dict):
                yield RawRow(number, values)
            else:
                yield RowError(number, None, f"got {describe(values)}; allowed: an object of columns and values")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise KontextError("given twice", next(name for name in names if names.count(name) > 1))
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number there")


class _UnreadableLine(Exception):
    def __init__(self, error: RowError) -> None:
        self.error = error


def _read_csv(file: BinaryIO) -> Iterator[RawRow | RowError]:
    delimiter = _delimiter(file)
    reader = csv.reader(_csv_lines(file), delimiter=delimiter, skipinitialspace=True, strict=True)
    columns: list[str] | None = None
    try:
        while True:
            line = reader.line_num + 1
            try:
                cells = [cell.strip() for cell in next(reader)]
            except StopIteration:
                return
            except csv.Error as error:
                yield RowError(line, None, _csv_reason(error))
                if columns is None or "expected after" not in str(error):  # only then the next row begins a line later
                    return
                continue
            if not any(cells):
                continue
            if columns is None:
                columns = cells
                yield from _check_header(line, columns)
                continue
            yield _csv_row(line, columns, cells, decimal_comma=delimiter == ";")
    except _UnreadableLine as unreadable_line:
        yield unreadable_line.error


def _delimiter(file: BinaryIO) -> str:
    """Return the delimiter that splits the first line into most cells: no column's name has one of them."""
    header = file.readline(MAX_LINE_BYTES)
    file.seek(0)
    return max(DELIMITERS, key=lambda delimiter: header.count(delimiter.encode()))


def _csv_lines(file: BinaryIO) -> Iterator[str]:
    for _, text in _lines(file):
        if isinstance(text, RowError):
            raise _UnreadableLine(text)
        yield text


def _csv_reason(error: csv.Error) -> str:
    message = str(error)
    if "field limit" in message or "unexpected end" in message:
        limit = csv.field_size_limit()
        return f"a quotation mark that opens in this row is not closed, or a cell is longer than {limit:,} characters"
    if "new-line" in message:
        return "a carriage return without a line feed; save it with the usual line ends"
    return f"not CSV: {message}"


def _check_header(line: int, columns: Sequence[str]) -> Iterator[RowError]:
    for place, name in enumerate(columns):
        if name and name in columns[:place]:
            yield RowError(line, name[:60], "given twice")
        elif name and name not in COLUMNS:
            yield RowError(line, name[:60], unknown_name(name, COLUMNS))


def _csv_row(line: int, columns: Sequence[str], cells: Sequence[str], decimal_comma: bool) -> RawRow | RowError:
    if len(cells) != len(columns):
        hint = "; a cell with the delimiter in it needs quotation marks" if len(cells) > len(columns) else ""
        return RowError(line, None, f"{len(cells)} cells, where the header has {len(columns)}{hint}")
    values: dict[str, Any] = {}
    for place, (name, cell) in enumerate(zip(columns, cells, strict=True), 1):
        if cell and not name:
            return RowError(line, None, f"cell {place} has no name in the header")
        if cell and name in COLUMNS:  # of any other the header's error has told already
            values[name] = parse_cell(name, cell, decimal_comma)
    return RawRow(line, values)
