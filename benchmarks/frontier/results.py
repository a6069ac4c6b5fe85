"""What was measured, beside the document that is made of it: one part can be measured again without the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.frontier.measure import Row
from benchmarks.frontier.quality import Quality
from benchmarks.frontier.schedules import Schedules
from benchmarks.frontier.steps import Cost


@dataclass(frozen=True)
class Pictures:
    """Speed and quality on the small trained model under one condition.

    Attributes:
        machine: date and hardware.
        recipe: of which pictures, in a few words.
        libraries: names and versions of those that other caches come from.
        candidates: how many settings were tried for this table.
        rows: the uncached method first.
    """

    machine: str
    recipe: str
    libraries: str
    candidates: int
    rows: Sequence[Row]


@dataclass(frozen=True)
class Steps:
    """What a step costs on a model without training.

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
    """All parts of the document.

    Attributes:
        pictures: by key of the condition, those measured.
        schedules: of the presets; None where not measured yet.
        steps: by name of the model without training, those measured.
    """

    pictures: dict[str, Pictures] = field(default_factory=dict)
    schedules: Schedules | None = None
    steps: dict[str, Steps] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        parts: dict[str, Any] = {}
        if self.pictures:
            parts["pictures"] = {key: asdict(pictures) for key, pictures in self.pictures.items()}
        if self.schedules is not None:
            presets = {name: " ".join(schedule) for name, schedule in self.schedules.presets.items()}
            parts["schedules"] = {"recipe": self.schedules.recipe, "presets": presets}
        if self.steps:
            parts["steps"] = {model: _steps_to_json(steps) for model, steps in self.steps.items()}
        path.write_text(json.dumps(parts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """What an earlier run saved; nothing where there is no file."""
    if not path.is_file():
        return Results()
    parts = json.loads(path.read_text(encoding="utf-8"))
    results = Results()
    pictures = parts.get("pictures", {})
    if "tables" not in pictures:  # of before there were conditions: other methods on another model
        results.pictures = {key: _pictures_from_json(values) for key, values in pictures.items()}
    if "schedules" in parts:
        presets = {name: tuple(kinds.split()) for name, kinds in parts["schedules"]["presets"].items()}
        results.schedules = Schedules(parts["schedules"]["recipe"], presets)
    if "steps" in parts:
        steps = parts["steps"]
        models = {"medium": steps} if "costs" in steps else steps  # there was one model before there were two
        results.steps = {model: _steps_from_json(values) for model, values in models.items()}
    return results


def _pictures_from_json(values: dict[str, Any]) -> Pictures:
    return Pictures(**values | {"rows": [_row(row) for row in values["rows"]]})


def _row(values: dict[str, Any]) -> Row:
    areas = {area: None if values[area] is None else Quality(**values[area]) for area in ("whole", "inside", "outside")}
    return Row(**values | areas | {"quartiles": tuple(values["quartiles"])})


def _steps_to_json(steps: Steps) -> dict[str, Any]:
    costs = [[*key, [asdict(cost) for cost in rounds]] for key, rounds in steps.costs.items()]
    return {"machine": steps.machine, "recipe": steps.recipe, "costs": costs}


def _steps_from_json(values: dict[str, Any]) -> Steps:
    costs = {(count, name): [Cost(**cost) for cost in rounds] for count, name, rounds in values["costs"]}
    return Steps(values["machine"], values["recipe"], costs)
