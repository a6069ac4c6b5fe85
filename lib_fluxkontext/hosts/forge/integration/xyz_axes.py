"""Axes for Forge's X/Y/Z plot. An axis leaves its value on the cell's ``p``; ``generation`` reads it from there."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.settings import FIELD_NAMES, SIZINGS, KontextSettings

ATTRIBUTE = "flux_kontext_axes"
PREFIX = "[Kontext] "
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
_SWITCH = ["True", "False"]


def add_axes() -> None:
    """Add the axes to Forge's script, once; without that script nothing happens."""
    module = _xyz_module()
    if module is None or any(one.label.startswith(PREFIX) for one in module.axis_options):
        return
    axis = module.AxisOption

    def switch(label: str, field: str) -> Any:
        confirm = _confirm(field, _switch)
        return axis(f"{PREFIX}{label}", str, _set(field, _switch), choices=lambda: _SWITCH, confirm=confirm)

    module.axis_options += [
        switch("cache", "cache"),
        axis(f"{PREFIX}threshold", float, _set("cache_threshold"), confirm=_confirm("cache_threshold")),
        axis(f"{PREFIX}sizing", str, _set("sizing"), choices=lambda: list(SIZINGS), confirm=_confirm("sizing")),
        switch("half size", "half_size"),
        axis(f"{PREFIX}reference refresh", int, _set("reference_refresh"), confirm=_confirm("reference_refresh")),
        switch("forecast", "cache_forecast"),
        switch("correction", "cache_correct"),
        *(
            axis(
                f"{PREFIX}image {number}",
                str,
                _set(f"image{number}", _picture),
                prepare=pictures,
                confirm=partial(_confirm_pictures, number),
                format_value=lambda p, opt, value: f"{opt.label}: {Path(value).name}",
            )
            for number in (1, 2)
        ),
    ]


def values_of(p: Any) -> dict[str, Any]:
    """What the axes set for this cell, by setting name."""
    return getattr(p, ATTRIBUTE, {})


def pictures(written: str) -> list[str]:
    """Paths from an axis' text: files separated by commas, and folders, which stand for the pictures in them."""
    found: list[str] = []
    for value in next(csv.reader(io.StringIO(written), skipinitialspace=True), []):
        path = Path(value.strip())
        if path.is_dir():
            found += [str(one) for one in sorted(path.iterdir()) if one.suffix.lower() in PICTURES]
        elif value.strip():
            found.append(str(path))
    return found


def _set(field: str, convert: Callable[[Any], Any] = lambda value: value) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, _values: Any) -> None:
        setattr(p, ATTRIBUTE, {**values_of(p), field: convert(value)})  # a dict of its own: Forge copies p shallowly

    return apply


def _confirm(field: str, convert: Callable[[Any], Any] = lambda value: value) -> Callable[[Any, list], None]:
    """Refuse a wrong value before the first cell is made, in the words that the API uses."""

    def confirm(p: Any, values: list) -> None:
        _need_panel(p)
        for value in values:
            try:
                KontextSettings.from_mapping({field: convert(value)})
            except KontextError as error:
                raise RuntimeError(str(error)) from None

    return confirm


def _need(p: Any, name: str, wanted: bool, why: str) -> None:
    """Refuse a setting that would fill the grid with equal pictures, and nobody would know why."""
    for script in p.scripts.alwayson_scripts:
        if script.title() == TITLE:
            arguments = p.script_args[script.args_from : script.args_to]
            named = arguments[0] if arguments and isinstance(arguments[0], Mapping) else None
            if named is None:
                named = dict(zip(FIELD_NAMES, arguments, strict=False))
            if bool(named.get(name, KontextSettings.model_fields[name].default)) is not wanted:
                raise RuntimeError(f"{name}: {why}")


def _need_panel(p: Any) -> None:
    _need(p, "enabled", True, "Flux Kontext is off, and the plot has one of its axes; turn it on")


def _confirm_pictures(number: int, p: Any, values: list) -> None:
    _need_panel(p)
    _need(p, f"mute_image{number}", False, f"reference {number} is muted, and the plot has it as an axis")
    if number == 1:
        why = "the init image is reference 1, and the plot has that as an axis; turn it off, or plot image 2"
        _need(p, "init_image_as_reference", False, why)
    if getattr(p, "is_api", False):
        raise RuntimeError("files of the server are for the page; through the API send image1 and image2")
    for value in values:
        if not Path(value).is_file():
            raise RuntimeError(f"no such picture: {value}")
    if not values:
        raise RuntimeError("no pictures there; write files or a folder")


def _picture(value: str) -> bytes:
    return Path(value).read_bytes()


def _switch(value: Any) -> Any:
    return {"true": True, "false": False}.get(str(value).strip().lower(), value)


def _xyz_module() -> Any:
    from modules import scripts

    for data in scripts.scripts_data:
        if data.script_class.__module__ in ("xyz_grid.py", "scripts.xyz_grid"):
            return data.module
    return None
