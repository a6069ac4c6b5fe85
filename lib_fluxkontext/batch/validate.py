"""A manifest's rows, validated: each as a ``Row``, or as all that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib_fluxkontext.batch.columns import COLUMNS, RawRow
from lib_fluxkontext.batch.expand import ImageExpander, combine
from lib_fluxkontext.batch.fields import Checks, loras_of, settings_of
from lib_fluxkontext.batch.identity import KEPT_FILES, ImageFacts, ImageFiles, row_key
from lib_fluxkontext.batch.manifest import read_manifest
from lib_fluxkontext.batch.row import Lora, Row, RowError
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.sizing import plan_size
from lib_fluxkontext.images.stitch import plan_stitch
from lib_fluxkontext.job import (
    SMALL_MODEL_NAME,
    check_guidance,
    check_seed,
    check_size,
    check_steps,
    default_size,
    parse_size,
)
from lib_fluxkontext.settings import IMAGE_FIELDS, KontextSettings, describe, whole_float_to_int

_MAX_REMEMBERED_ERRORS = 10_000


@dataclass(frozen=True)
class _Common:
    """What the rows of one raw row have in common, whatever their images."""

    prompt: str
    settings: KontextSettings
    size: tuple[int, int] | None
    steps: int
    seed: int
    guidance: float
    checkpoint: str
    loras: tuple[Lora, ...]
    is_small_model: bool


def rows_of(
    path: Path,
    small_model: bool,
    default_checkpoint: str | None = None,
    *,
    local_models: bool = True,
    nf4: bool = False,
) -> Iterator[Row | RowError]:
    """Validate a manifest, row by row, with the messages that ``generate`` and the API have.

    Nothing is decoded: an image that is damaged behind its header is the worker's to refuse. A mistake that several
    rows of a line share, as in a grid, is yielded once.

    Args:
        path: of the manifest.
        small_model: whether the project's own small model makes the rows that name no checkpoint.
        default_checkpoint: what those rows' checkpoint is called in their keys; None for the small model's name, or
            for a server's current checkpoint.
        local_models: whether checkpoints and LoRAs are files here, and not names that a server knows.
        nf4: whether transformers are quantised to NF4 while they load: other pictures, so other keys.

    Yields:
        Rows in the manifest's order, equal ones too; and what is wrong with the others.

    Raises:
        KontextError: the manifest cannot be read at all, or has no rows; its field is ``"manifest"``.
    """
    validator = _Validator(path.parent, small_model, default_checkpoint, local_models, nf4)
    line, reported = 0, set[RowError]()
    for raw in read_manifest(path):
        for row in [raw] if isinstance(raw, RowError) else validator.rows(raw):
            if isinstance(row, RowError):
                if row.line != line or len(reported) >= _MAX_REMEMBERED_ERRORS:
                    line, reported = row.line, set()
                if row in reported:
                    continue
                reported.add(row)
            yield row


class _Validator:
    def __init__(
        self, folder: Path, small_model: bool, default_checkpoint: str | None, local_models: bool, nf4: bool
    ) -> None:
        self._images = ImageFiles()
        self._expander = ImageExpander(folder)
        self._small_model = small_model
        self._default_checkpoint = default_checkpoint or (SMALL_MODEL_NAME if small_model else "")
        self._local_models = local_models
        self._nf4 = nf4
        self._exists = lru_cache(1024)(os.path.exists)
        self._path = lru_cache(KEPT_FILES)(Path)
        self._plan = lru_cache(1024)(plan_size)
        self._number = 0

    def rows(self, raw: RawRow) -> Iterator[Row | RowError]:
        """Yield each row that a raw row makes, or what is wrong."""
        values = {name: value for name, value in raw.values.items() if value is not None}
        checks = Checks(raw.line)
        common = self._common(values, checks)
        if common is not None:
            for name in IMAGE_FIELDS:
                if values.get(f"mute_{name}"):
                    values.pop(name, None)
                    if name == "image1":
                        values.pop("images", None)
        files = checks.get(self._expander.files, values) or {}
        if common is None or checks.errors:
            self._check_files({name: found.paths for name, found in files.items()}, checks)
            checks.get(lambda: next(combine(files, values.get("pairing")), None))
            self._number += 1
            yield from checks.errors
            return
        try:
            for paths in combine(files, values.get("pairing")):
                self._number += 1
                one = Checks(raw.line)
                row = one.get(self._row, raw.line, common, paths, one)
                if row is not None and not one.errors:
                    yield row
                else:
                    yield from one.errors
        except KontextError as error:
            self._number += 1
            yield RowError(raw.line, error.field, error.reason)

    def _common(self, values: Mapping[str, Any], checks: Checks) -> _Common | None:
        checks.names(values, COLUMNS)
        checks.texts(values)
        prompt = values.get("prompt")
        if prompt is None:
            checks.add("prompt", "not given; allowed: what should happen")
        elif not isinstance(prompt, str):
            checks.add("prompt", f"got {describe(prompt)}; allowed: a text")
        size = checks.get(_size, values["size"]) if "size" in values else None
        steps: Any = whole_float_to_int(values.get("steps", Row.steps))
        seed: Any = whole_float_to_int(values.get("seed", Row.seed))
        guidance: Any = values.get("guidance", Row.guidance)
        checks.get(check_steps, steps)
        checks.get(check_seed, seed)
        checks.get(check_guidance, guidance)
        checkpoint = checks.get(self._checkpoint, values.get("checkpoint", "")) or ""
        loras = checks.get(loras_of, values.get("lora")) or ()
        for lora in loras if self._local_models else ():
            checks.get(self._require_file, lora.name, "lora")
        is_small_model = self._small_model and not checkpoint
        settings = settings_of(values, is_small_model, checks)
        if checks.errors or settings is None or not isinstance(prompt, str):
            return None
        return _Common(prompt, settings, size, steps, seed, float(guidance), checkpoint, loras, is_small_model)

    def _checkpoint(self, name: object) -> str:
        if not isinstance(name, str):
            raise KontextError(f"got {describe(name)}; allowed: a text", "checkpoint")
        if name and self._local_models:
            self._require_file(name, "checkpoint")
        return name

    def _require_file(self, name: str, column: str) -> None:
        if not self._exists(self._expander.path(name)):
            raise KontextError(f"no such file or folder: {name}", column)

    def _check_files(self, files: Mapping[str, Any], checks: Checks) -> None:
        for name, paths in files.items():
            for path in paths:
                self._facts(name, path, checks)

    def _facts(self, name: str, path: str, checks: Checks) -> ImageFacts | None:
        try:
            return self._images.facts(path, name)
        except KontextError as error:
            checks.add(name, f"{self._expander.shown(path)}: {error.reason}")
            return None

    def _row(self, line: int, common: _Common, paths: Mapping[str, str], checks: Checks) -> Row | None:
        ordered = [(name, paths[name]) for name in IMAGE_FIELDS if name in paths]
        facts = [found for name, path in ordered if (found := self._facts(name, path, checks)) is not None]
        if checks.errors:
            return None
        size = common.size or default_size(common.is_small_model, facts[0].size if facts else None)
        settings = common.settings
        plans = [
            self._plan(found.size, settings.sizing, settings.half_size, size, name)
            for (name, _), found in zip(ordered, facts, strict=True)
        ]
        plan_stitch(plans, settings.stitch)
        content: dict[str, Any] = {
            "prompt": common.prompt,
            "digests": tuple(found.digest for found in facts),
            "settings": settings,
            "width": size[0],
            "height": size[1],
            "steps": common.steps,
            "seed": common.seed,
            "guidance": common.guidance,
        }
        checkpoint = common.checkpoint or self._default_checkpoint
        key = row_key(**content, checkpoint=checkpoint, loras=common.loras, nf4=self._nf4)
        return Row(
            number=self._number,
            line=line,
            key=key,
            images=tuple(self._path(path) for _, path in ordered),
            checkpoint=self._model(common.checkpoint),
            loras=tuple(Lora(self._model(lora.name), lora.weight) for lora in common.loras),
            **content,
        )

    def _model(self, name: str) -> str:
        return self._expander.path(name) if name and self._local_models else name


def _size(value: object) -> tuple[int, int]:
    size = parse_size(value)
    check_size(*size)
    return size
