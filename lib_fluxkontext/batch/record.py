"""The JSON beside each picture, and the one that a failed row leaves. Index and tables are made from these alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypedDict, TypeGuard

from lib_fluxkontext.batch.columns import SETTING_COLUMNS
from lib_fluxkontext.batch.row import Lora, Row
from lib_fluxkontext.settings import KontextSettings, default_of

SCHEMA = 1
"""Version of both records. Readers skip records of a later one."""

_DEFAULTS = {name: default_of(name) for name in SETTING_COLUMNS}


class LoraValues(TypedDict):
    """A LoRA of a row."""

    name: str
    weight: float


class RowValues(TypedDict):
    """A row as plain values for JSON; see ``Row``.

    Attributes:
        settings: by name. All of them in a record.
    """

    key: str
    number: int
    line: int
    prompt: str
    images: list[str]
    digests: list[str]
    settings: dict[str, Any]
    width: int
    height: int
    steps: int
    seed: int
    guidance: float
    checkpoint: str
    loras: list[LoraValues]


class Record(RowValues):
    """A finished picture: ``<key>.json`` beside ``<key>.png``.

    Attributes:
        schema: ``SCHEMA``.
        infotext: generation parameters, as in the PNG.
        report: ``GenerationReport.to_dict()``; empty where the worker measured nothing.
        seconds: that the row took its worker, encoding and decoding included; of a batch its share.
        made_by: name of the worker.
        finished: when, UTC, ``"2026-11-21T14:05:09Z"``.
        thumbnail: JPEG of at most 128 × 128 pixels, base64.
    """

    schema: int
    infotext: str
    report: dict[str, Any]
    seconds: float
    made_by: str
    finished: str
    thumbnail: str


class FailedRecord(RowValues):
    """A row that could not be made: ``<key>.failed.json``.

    Attributes:
        schema: ``SCHEMA``.
        reason: one line for a person.
        field: the setting at fault, or None.
        made_by: name of the worker that tried.
        finished: when, UTC.
    """

    schema: int
    reason: str
    field: str | None
    made_by: str
    finished: str


def row_values(row: Row, all_settings: bool = True) -> RowValues:
    """Write a row as plain values.

    Args:
        row: which.
        all_settings: or only those that are not the default, to save space.
    """
    settings = {name: getattr(row.settings, name) for name in SETTING_COLUMNS}
    if not all_settings:
        settings = {name: value for name, value in settings.items() if value != _DEFAULTS[name]}
    return {
        "key": row.key,
        "number": row.number,
        "line": row.line,
        "prompt": row.prompt,
        "images": [str(path) for path in row.images],
        "digests": list(row.digests),
        "settings": settings,
        "width": row.width,
        "height": row.height,
        "steps": row.steps,
        "seed": row.seed,
        "guidance": row.guidance,
        "checkpoint": row.checkpoint,
        "loras": [{"name": lora.name, "weight": lora.weight} for lora in row.loras],
    }


def row_from_values(values: RowValues) -> Row:
    """Read a row back.

    Raises:
        KontextError: settings that this version does not know.
    """
    return Row(
        number=values["number"],
        line=values["line"],
        key=values["key"],
        prompt=values["prompt"],
        images=tuple(Path(path) for path in values["images"]),
        digests=tuple(values["digests"]),
        settings=KontextSettings.from_mapping({"enabled": True, **values["settings"]}),
        width=values["width"],
        height=values["height"],
        steps=values["steps"],
        seed=values["seed"],
        guidance=values["guidance"],
        checkpoint=values["checkpoint"],
        loras=tuple(Lora(lora["name"], lora["weight"]) for lora in values["loras"]),
    )


def make_record(
    row: Row, infotext: str, report: Mapping[str, Any], seconds: float, made_by: str, thumbnail: str
) -> Record:
    """Put a finished row's record together; see ``Record``."""
    return {
        **row_values(row),
        "schema": SCHEMA,
        "infotext": infotext,
        "report": dict(report),
        "seconds": seconds,
        "made_by": made_by,
        "finished": _now(),
        "thumbnail": thumbnail,
    }


def make_failed_record(row: Row, reason: str, field: str | None, made_by: str) -> FailedRecord:
    """Put a failed row's record together; see ``FailedRecord``."""
    return {
        **row_values(row),
        "schema": SCHEMA,
        "reason": reason,
        "field": field,
        "made_by": made_by,
        "finished": _now(),
    }


def is_failed(record: Record | FailedRecord) -> TypeGuard[FailedRecord]:
    """Whether a record is that of a failed row."""
    return "reason" in record


def to_json(record: Record | FailedRecord) -> bytes:
    """Encode a record; NaN becomes null, which every JSON parser can read."""
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False)
    return text.encode()


def read_record(path: Path) -> Record | None:
    """Read a finished row's record; None where it is gone, damaged, or of a later version."""
    record = _read(path)
    return record if record is not None and "thumbnail" in record else None  # type: ignore[return-value]


def read_failed_record(path: Path) -> FailedRecord | None:
    """Read a failed row's record; None as ``read_record``."""
    record = _read(path)
    return record if record is not None and "reason" in record else None  # type: ignore[return-value]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] <= SCHEMA
    return record if known else None


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {name: _finite(part) for name, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case float() if value - value != 0:  # NaN and the infinities
            return None
    return value


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
