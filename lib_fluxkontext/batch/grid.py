"""The grid that ``compare`` makes: checkpoints × LoRAs × steps × caches, written as a manifest and read back as rows.

A manifest, so that everything is validated as in a batch, and so that a batch can make the same pictures again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_fluxkontext.batch.row import Row, RowError
from lib_fluxkontext.batch.validate import rows_of
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.settings import PRESETS, describe
from lib_fluxkontext.text_values import parse_number

OFF = "off"
"""The cache of the pictures that all others are compared with."""

NO_LORA = "none"
MANIFEST_NAME = "grid.jsonl"


@dataclass(frozen=True)
class GridOptions:
    """What to compare.

    Attributes:
        prompt: the instruction.
        images: paths of the references, in order.
        checkpoints: names or paths; empty for the worker's own.
        loras: each as in a manifest, ``"FILE:WEIGHT"``; empty for none.
        steps: sampler steps.
        caches: ``"off"``, a threshold, or a preset's name.
        common: other columns of the manifest that all rows share: seed, size, guidance.
    """

    prompt: str
    images: Sequence[Path]
    checkpoints: Sequence[str] = ()
    loras: Sequence[str] = ()
    steps: Sequence[Any] = (20,)
    caches: Sequence[str] = (OFF,)
    common: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A place in the grid, in a person's words.

    Attributes:
        checkpoint: name without folder, and without ending where no other has the same; empty for the worker's own.
        lora: as in a manifest, without folders; empty for none.
        steps: sampler steps.
        cache: ``"off"``, ``"0.14"`` or ``"fast"``.
    """

    checkpoint: str
    lora: str
    steps: int
    cache: str

    @property
    def group(self) -> tuple[str, str, int]:
        """What pictures that are compared with each other share."""
        return self.checkpoint, self.lora, self.steps


@dataclass(frozen=True)
class Cell:
    """A picture of the grid: where it stands, and the row that makes it."""

    place: Place
    row: Row


def cache_values(name: str) -> dict[str, Any]:
    """Return the columns of a manifest that a cache's name stands for.

    Raises:
        KontextError: it is no threshold and no preset.
    """
    number = parse_number(name)
    if not isinstance(number, str):
        return {"cache_threshold": number}
    if name.lower() not in (preset.lower() for preset in PRESETS):
        presets = ", ".join(preset.lower() for preset in PRESETS)
        raise KontextError(f"got {describe(name)}; allowed: a threshold from 0 to 1, or {presets}", "cache")
    return {"preset": name}


def make_grid(
    options: GridOptions,
    folder: Path,
    small_model: bool,
    default_checkpoint: str | None,
    *,
    local_models: bool = True,
    nf4: bool = False,
) -> list[Cell]:
    """Write the manifest of a grid, and return its cells; the uncached ones are added where they are missing.

    Args:
        options: what to compare.
        folder: that the manifest is written to.
        small_model: see ``validate.rows_of``, as are the others that follow.
        default_checkpoint: see there.
        local_models: see there.
        nf4: see there.

    Raises:
        KontextError: a value that is not allowed; its field is the column.
        OSError: the folder cannot be written to.
    """
    for path in options.images:
        if not path.is_file():
            raise KontextError(f"no such file: {path}", "image")
    caches = list(dict.fromkeys([OFF, *(name.lower() for name in options.caches)]))
    checkpoints = _checkpoint_names(options.checkpoints or ("",))
    loras = {lora: _short_loras(lora) for lora in options.loras or (NO_LORA,)}
    for column, names in (("checkpoint", checkpoints), ("lora", loras)):
        if len(set(names.values())) < len(names):
            raise KontextError("two of them have the same name; rename one, or leave one out", column)
    local = (lambda name: str(Path(name).absolute())) if local_models else str
    lines: list[tuple[Place, dict[str, Any]]] = []
    for checkpoint in checkpoints:
        for lora in loras:
            for steps in dict.fromkeys(options.steps):
                for cache in caches:
                    place = Place(checkpoints[checkpoint], loras[lora], steps, cache)
                    lines.append((place, _values(options, checkpoint and local(checkpoint), lora, local, steps, cache)))
    path = folder / MANIFEST_NAME
    path.write_text("".join(json.dumps(values, ensure_ascii=False) + "\n" for _, values in lines), encoding="utf-8")
    cells = []
    for row in rows_of(path, small_model, default_checkpoint, local_models=local_models, nf4=nf4):
        if isinstance(row, RowError):
            raise KontextError(row.reason, row.field)
        cells.append(Cell(lines[row.line - 1][0], row))
    return cells


def _values(options: GridOptions, checkpoint: str, lora: str, local: Any, steps: Any, cache: str) -> dict[str, Any]:
    values: dict[str, Any] = {"prompt": options.prompt, **options.common, "steps": steps, **cache_values(cache)}
    values |= {f"image{number}": str(path.absolute()) for number, path in enumerate(options.images, 1)}
    if checkpoint:
        values["checkpoint"] = checkpoint
    if lora.lower() != NO_LORA:
        values["lora"] = ";".join(local(part.strip()) for part in lora.split(";") if part.strip())
    return values


def _checkpoint_names(checkpoints: Sequence[str]) -> dict[str, str]:
    """Return what each checkpoint is called: without its folder, and without its ending where that tells enough."""
    names = {checkpoint: _short(checkpoint) for checkpoint in checkpoints}
    counts = Counter(names.values())
    return {checkpoint: name if counts[name] == 1 else _last(checkpoint) for checkpoint, name in names.items()}


def _last(name: str) -> str:
    """Return a model's name without its folder."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _short(name: str) -> str:
    """Return a model's name without its folder and its ending."""
    last = _last(name)
    for ending in (".safetensors", ".gguf"):
        last = last.removesuffix(ending)
    return last


def _short_loras(lora: str) -> str:
    if lora.lower() == NO_LORA:
        return ""
    return " + ".join(_short(part.strip()).replace(".safetensors", "") for part in lora.split(";") if part.strip())
