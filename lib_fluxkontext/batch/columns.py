"""A manifest's columns, and one raw row of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lib_fluxkontext.settings import FIELD_NAMES, IMAGE_FIELDS, default_of
from lib_fluxkontext.text_values import parse_boolean, parse_number

SETTING_COLUMNS = tuple(name for name in FIELD_NAMES if name not in (*IMAGE_FIELDS, "enabled"))
"""Columns that are settings of the extension."""

COLUMNS = (
    "prompt",
    *IMAGE_FIELDS,
    "images",
    "pairing",
    *("seed", "steps", "size", "guidance", "checkpoint", "lora", "preset"),
    *SETTING_COLUMNS,
)
"""All that a manifest may have."""

MAX_ROWS = 10_000_000
"""Pictures from one line of a manifest, or from one grid. More was hardly meant."""

_NUMBERS = {"seed", "steps", "guidance"} | {
    name
    for name in SETTING_COLUMNS
    if isinstance(default_of(name), (int, float)) and not isinstance(default_of(name), bool)
}
_BOOLEANS = {name for name in SETTING_COLUMNS if isinstance(default_of(name), bool)}


@dataclass(frozen=True)
class RawRow:
    """What a manifest says of one row, before anything is checked.

    Attributes:
        line: of the manifest, from 1.
        values: column → value; None, or no entry, where nothing is given.
    """

    line: int
    values: dict[str, Any]


def parse_cell(column: str, text: str, decimal_comma: bool) -> object:
    """Parse a cell of a table by its column's type; what does not parse stays a text, to be refused later.

    Args:
        column: one of ``COLUMNS``.
        text: what the cell holds.
        decimal_comma: whether ``0,5`` is a number, as spreadsheets write it where a semicolon delimits cells.
    """
    if column in _BOOLEANS:
        return parse_boolean(text)
    if column not in _NUMBERS:
        return text
    if decimal_comma and re.fullmatch(r"[+-]?\d+,\d+", text):
        text = text.replace(",", ".")
    return parse_number(text)
