"""What was measured, beside the document that is made of it: one part can be measured again without the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.frontier.measure import Row
from benchmarks.frontier.steps import Cost


@dataclass(frozen=True)
class Pictures:
    """Speed and quality on the small trained model.

    Attributes:
        machine: date and hardware.
        recipe: what was made, in a sentence.
        cache_dit: its version.
        tables: rows by number of references.
    """

    machine: str
    recipe: str
    cache_dit: str
    tables: Mapping[int, Sequence[Row]]


@dataclass(frozen=True)
class Steps:
    """What a step costs on the model without training.

    Attributes:
        machine: date and hardware.
        recipe: steps and rounds, in a few words.
        costs: of every round, by number of references and run.
    """

    machine: str
    recipe: str
    costs: Mapping[tuple[int, str], Sequence[Cost]]


@dataclass
class Results:
    """All parts of the document; ``None`` is not measured yet."""

    pictures: Pictures | None = None
    steps: Steps | None = None

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        parts: dict[str, Any] = {}
        if self.pictures is not None:
            parts["pictures"] = asdict(self.pictures)
        if self.steps is not None:
            costs = [[*key, [asdict(cost) for cost in rounds]] for key, rounds in self.steps.costs.items()]
            parts["steps"] = {"machine": self.steps.machine, "recipe": self.steps.recipe, "costs": costs}
        path.write_text(json.dumps(parts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """What an earlier run saved; nothing where there is no file."""
    if not path.is_file():
        return Results()
    parts = json.loads(path.read_text(encoding="utf-8"))
    results = Results()
    if "pictures" in parts:
        tables = {
            int(count): [_row(values) for values in rows] for count, rows in parts["pictures"].pop("tables").items()
        }
        results.pictures = Pictures(tables=tables, **parts["pictures"])
    if "steps" in parts:
        costs = {
            (count, name): [Cost(**values) for values in rounds] for count, name, rounds in parts["steps"].pop("costs")
        }
        results.steps = Steps(costs=costs, **parts["steps"])
    return results


def _row(values: dict[str, Any]) -> Row:
    return Row(**values | {"quartiles": tuple(values["quartiles"])})
