"""A record as the index shows it: one line of ``index.html``, which no text in it can break out of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lib_fluxkontext.batch.columns import SETTING_COLUMNS
from lib_fluxkontext.batch.measures import Measures, measure
from lib_fluxkontext.batch.record import FailedRecord, Record, is_failed
from lib_fluxkontext.settings import default_of, preset_of

_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def to_line(record: Record | FailedRecord, folder: Path) -> bytes:
    """Render a row of the index.

    Args:
        record: finished or failed.
        folder: that the index lies in; pictures are linked from there.
    """
    state = "failed" if is_failed(record) else "done"
    return _line(f'data-key="{record["key"]}" data-state="{state}"', _entry(record, folder, state))


def note_line(note: Mapping[str, object]) -> bytes:
    """Render what the page should know beside its rows; a later note wins."""
    return _line("data-note", note)


@cache
def default_columns() -> Mapping[str, object]:
    """Return what a row's columns are where they are not written in its line."""
    return {name: default_of(name) for name in SETTING_COLUMNS}


def _line(attributes: str, value: object) -> bytes:
    """Browsers do not run JSON. ASCII alone, and no ``<``, so that no text ends the element, or the line, early."""
    text = json.dumps(value, separators=(",", ":")).translate(_UNSAFE)
    return f'<script type="application/json" {attributes}>{text}</script>\n'.encode("ascii")


def _entry(record: Record | FailedRecord, folder: Path, state: str) -> dict[str, object]:
    report: Mapping[str, Any] = record.get("report") or {}  # type: ignore[assignment]
    entry: dict[str, object] = {
        "key": record["key"],
        "state": state,
        "number": record["number"],
        "prompt": record["prompt"],
        "size": [record["width"], record["height"]],
        "columns": _columns(record),
        "numbers": _numbers(record, measure(report)),
        "images": [{"name": Path(path).name, "path": path, "link": _link(path, folder)} for path in record["images"]],
        "finished": record["finished"],
        "report": _report(report),
    }
    if state == "failed":
        return entry | {"reason": record.get("reason"), "field": record.get("field")}
    key = record["key"]
    return entry | {
        "picture": f"pictures/{key[:2]}/{key}.png",
        "thumbnail": record.get("thumbnail"),
        "seconds": record.get("seconds"),
        "infotext": record.get("infotext"),
    }


def _columns(record: Record | FailedRecord) -> dict[str, object]:
    """What the row asked for; settings that are the default are left out, which halves a line."""
    columns: dict[str, object] = {
        "number": record["number"],
        "line": record["line"],
        "prompt": record["prompt"],
        "seed": record["seed"],
        "steps": record["steps"],
        "size": f"{record['width']}x{record['height']}",
        "guidance": record["guidance"],
        "checkpoint": record["checkpoint"],
        "lora": lora_text(record["loras"]),
    }
    columns["preset"] = preset_of({**default_columns(), **record["settings"]})
    for number, path in enumerate(record["images"], 1):  # the folder tells person1/front.jpg from person2/front.jpg
        columns[f"image{number}"] = "/".join(Path(path).parts[-2:])
    defaults = default_columns()
    columns |= {name: value for name, value in record["settings"].items() if value != defaults.get(name)}
    return columns | {"made by": record["made_by"], "finished": record["finished"]}


def _numbers(record: Record | FailedRecord, measures: Measures) -> dict[str, float]:
    """What the row cost, by the names of its columns."""
    numbers = {
        "seconds": record.get("seconds"),
        "sampling seconds": measures.sampling_seconds,
        "seconds a step": measures.step_seconds,
        "reused %": _scaled(measures.reused_share, 100),
        "speed-up": measures.speed_up,
        "VRAM peak GB": _scaled(measures.vram_peak, 2**-30),
        "process memory GB": None if measures.device else _scaled(measures.process_memory, 2**-30),
    }
    return {name: round(value, 4) for name, value in numbers.items() if isinstance(value, (int, float))}


def _report(report: Mapping[str, Any]) -> dict[str, object] | None:
    """What the page draws of a report: steps as [kind, seconds], memory, and notes."""
    if not report:
        return None
    passes = report.get("passes") or ()
    notes = [*(report.get("notes") or ()), *(note for sampling in passes for note in sampling.get("notes") or ())]
    return {
        "steps": [[step["kind"], round(step["seconds"], 5)] for sampling in passes for step in sampling["steps"]],
        "computed": report.get("computed_step_seconds"),
        "reused": report.get("reused_step_seconds"),
        "memory": report.get("memory"),
        "notes": list(dict.fromkeys(notes)),
    }


def _link(path: str, folder: Path) -> str:
    """Return an address that a page in ``folder`` reaches a file by; empty where there is none."""
    with suppress(ValueError):  # another drive
        return quote(Path(os.path.relpath(path, folder)).as_posix())
    with suppress(ValueError):  # another system's path, of a folder that was copied or is shared
        return Path(path).as_uri()
    return ""


def lora_text(loras: Sequence[Mapping[str, Any]]) -> str:
    """Write LoRAs as a manifest does: ``"turbo.safetensors:0.8;line.safetensors:1"``."""
    return ";".join(f"{lora['name']}:{lora['weight']:g}" for lora in loras)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
