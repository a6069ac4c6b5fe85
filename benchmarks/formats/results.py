"""What was measured, beside the document that is made of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.formats.matrix import Case
from benchmarks.formats.measure import Loaded, Row
from benchmarks.frontier.quality import Quality
from lib_fluxkontext.settings import Preset


@dataclass(frozen=True)
class Pictures:
    """The small model's formats.

    Attributes:
        machine: date and hardware.
        recipe: of which pictures, in a few words.
        loaded: what file and loading took, by format.
        rows: by format and cache.
    """

    machine: str
    recipe: str
    loaded: dict[str, Loaded]
    rows: dict[tuple[str, Preset], Row]


@dataclass(frozen=True)
class Matrix:
    """What the tests proved, and where."""

    machine: str
    cases: list[Case]


@dataclass
class Results:
    """Both parts; None where not measured yet."""

    pictures: Pictures | None = None
    matrix: Matrix | None = None

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        parts: dict[str, Any] = {}
        if self.pictures is not None:
            one = self.pictures
            parts["pictures"] = {
                "machine": one.machine,
                "recipe": one.recipe,
                "loaded": {name: asdict(loaded) for name, loaded in one.loaded.items()},
                "rows": [{"format": name, "cache": cache, **asdict(row)} for (name, cache), row in one.rows.items()],
            }
        if self.matrix is not None:
            parts["matrix"] = asdict(self.matrix)
        path.write_text(json.dumps(parts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """What an earlier run saved; nothing where there is no file."""
    if not path.is_file():
        return Results()
    parts = json.loads(path.read_text(encoding="utf-8"))
    results = Results()
    if one := parts.get("pictures"):
        rows = {}
        for row in one["rows"]:
            to_exact, to_own = Quality(**row["to_exact"]), Quality(**row["to_own"])
            rows[row["format"], row["cache"]] = Row(row["step_seconds"], row["reused"], to_exact, to_own)
        loaded = {name: Loaded(**values) for name, values in one["loaded"].items()}
        results.pictures = Pictures(one["machine"], one["recipe"], loaded, rows)
    if one := parts.get("matrix"):
        results.matrix = Matrix(one["machine"], [Case(**case) for case in one["cases"]])
    return results
