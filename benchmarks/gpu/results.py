"""What was measured, part by part, as JSON: a part can be measured again without the others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.frontier.steps import Cost


@dataclass(frozen=True)
class CheckResult:
    """One check.

    Attributes:
        name: what was checked.
        passed: None where it was skipped.
        detail: numbers, or why it failed or was skipped.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Run:
    """One setting with a number of references.

    Attributes:
        references: how many.
        name: of the setting.
        estimate: bytes beyond the weights, as the VRAM model estimates them.
        costs: of every round.
        failure: why there are none.
    """

    references: int
    name: str
    estimate: int
    costs: Sequence[Cost] = ()
    failure: str | None = None


@dataclass(frozen=True)
class Constants:
    """Constants of the VRAM model, fitted to the peaks.

    Attributes:
        activation_bytes: of every token that runs.
        fixed_bytes: what does not grow with the tokens.
        cache_buffers: tensors of the image tokens that First Block Cache with its forecast adds.
    """

    activation_bytes: float
    fixed_bytes: float
    cache_buffers: float


@dataclass(frozen=True)
class Part:
    """One part of the document.

    Attributes:
        machine: date, card, driver and torch.
        skipped: why it was not measured, or None.
        recipe: what was run, in a sentence.
        checks: their results.
        runs: their costs.
        constants: fitted to them, where all that this needs could be measured.
    """

    machine: str
    skipped: str | None = None
    recipe: str = ""
    checks: Sequence[CheckResult] = ()
    runs: Sequence[Run] = ()
    constants: Constants | None = None


def load(path: Path) -> dict[str, Part]:
    """Return what earlier runs saved, by the parts' names; nothing where there is no file."""
    if not path.is_file():
        return {}
    return {name: _part(values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()}


def save(path: Path, parts: Mapping[str, Part]) -> None:
    """Write all parts; an interruption leaves the file as it was."""
    text = json.dumps({name: asdict(part) for name, part in parts.items()}, indent=1, ensure_ascii=False)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _part(values: dict[str, Any]) -> Part:
    checks = tuple(CheckResult(**check) for check in values.pop("checks"))
    runs = tuple(Run(costs=tuple(Cost(**cost) for cost in run.pop("costs")), **run) for run in values.pop("runs"))
    constants = values.pop("constants")
    return Part(checks=checks, runs=runs, constants=Constants(**constants) if constants else None, **values)
