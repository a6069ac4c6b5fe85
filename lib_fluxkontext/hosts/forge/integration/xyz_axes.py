"""Axes for Forge's X/Y/Z plot. An axis stores its value on the cell's ``p``, where ``lifecycle.inputs`` reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lib_fluxkontext.errors import KontextError, first_line
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.hosts.forge.runtime.protocols import Processing
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.images.decode import decode_reference
from lib_fluxkontext.images.files import pictures_in
from lib_fluxkontext.images.sizing import plan_size
from lib_fluxkontext.settings import PLACEMENTS, SIZINGS, STITCHES, KontextSettings, by_name, default_of
from lib_fluxkontext.text_values import parse_boolean

if TYPE_CHECKING:
    from types import ModuleType

    from modules.scripts import ScriptRunner

ATTRIBUTE = "flux_kontext_axes"
PREFIX = "[Kontext] "
_BOOLEANS = ["True", "False"]
_MODULES = ("xyz_grid.py", "scripts.xyz_grid")
_SIZE_AXES = frozenset({f"{PREFIX}sizing", f"{PREFIX}half size", "Size"})
"""With one of these, what the panel shows is not the size that a cell's reference will have."""


class PlotProcessing(Processing, Protocol):
    """The ``p`` of a plot."""

    scripts: ScriptRunner
    script_args: Sequence[object]


def add_axes() -> None:
    """Add the axes to Forge's script, once; does nothing where that script is missing."""
    module: Any = _xyz_module()
    if module is None or any(option.label.startswith(PREFIX) for option in module.axis_options):
        return
    axis = module.AxisOption

    def switch(label: str, field: str) -> Any:
        confirm = _confirm(field, parse_boolean)
        return axis(f"{PREFIX}{label}", str, _set(field, parse_boolean), choices=lambda: _BOOLEANS, confirm=confirm)

    def choice(field: str, names: Sequence[str]) -> Any:
        return axis(f"{PREFIX}{field}", str, _set(field), choices=lambda: list(names), confirm=_confirm(field))

    def image(number: int) -> Any:
        return axis(
            f"{PREFIX}image {number}",
            str,
            _set(f"image{number}", _read_file),
            prepare=list_images,
            confirm=partial(_confirm_images, number),
            format_value=_image_label,
        )

    module.axis_options += [
        switch("cache", "cache"),
        axis(f"{PREFIX}threshold", float, _set("cache_threshold"), confirm=_confirm("cache_threshold")),
        choice("sizing", SIZINGS),
        switch("half size", "half_size"),
        axis(f"{PREFIX}reference refresh", int, _set("reference_refresh"), confirm=_confirm("reference_refresh")),
        switch("forecast", "cache_forecast"),
        switch("correction", "cache_correct"),
        image(1),
        image(2),
        image(3),
        image(4),
        choice("placement", PLACEMENTS),
        choice("stitch", STITCHES),
    ]


def values_of(p: object) -> dict[str, object]:
    """Return what the axes set for this cell, by setting name."""
    values: dict[str, object] = getattr(p, ATTRIBUTE, {})
    return values


@dataclass(frozen=True)
class Cell:
    """A cell of a plot.

    Attributes:
        is_first: whether the plot begins with it.
    """

    is_first: bool


def cell_of(p: object) -> Cell | None:
    """Return which cell of a plot this is, or None outside of one.

    None, too, where another extension generates inside of a cell: that one has a runner of its own.
    """
    from modules import scripts, shared

    if getattr(p, "scripts", None) not in (scripts.scripts_txt2img, scripts.scripts_img2img):
        return None
    if _selected_plot(p) is None:
        return None
    state: Any = shared.state
    return Cell(is_first=str(state.job).startswith("1 out of "))


def _selected_plot(p: Any) -> Any:
    """Return the plot's script where it is chosen in the list of scripts, else None."""
    arguments = getattr(p, "script_args", None) or (0,)
    index = arguments[0]  # Forge's: the place in that list, from 1
    selectable = p.scripts.selectable_scripts
    if not isinstance(index, int) or not 0 < index <= len(selectable):
        return None
    script = selectable[index - 1]
    return script if type(script).__module__ in _MODULES else None


def list_images(text: str) -> list[str]:
    """Parse an axis' text: paths separated by commas; a folder stands for the images in it, sorted by name."""
    paths: list[str] = []
    for entry in next(csv.reader(io.StringIO(text), skipinitialspace=True), []):
        path = Path(entry.strip())
        if path.is_dir():
            paths += [str(file) for file in pictures_in(path)]
        elif entry.strip():
            paths.append(str(path))
    return paths


def _unchanged(value: object) -> object:
    return value


def _set(field: str, convert: Callable[[Any], object] = _unchanged) -> Callable[[object, object, object], None]:
    """Return a function that stores a value on a cell's ``p``."""

    def apply(p: object, value: object, _values: object) -> None:
        setattr(p, ATTRIBUTE, {**values_of(p), field: convert(value)})  # a new dict: Forge copies p shallowly

    return apply


def _confirm(
    field: str, convert: Callable[[Any], object] = _unchanged
) -> Callable[[PlotProcessing, Sequence[object]], None]:
    """Return a function that refuses wrong values before the first cell, with the API's message."""

    def confirm(p: PlotProcessing, values: Sequence[object]) -> None:
        _require_enabled(p)
        for value in values:
            try:
                KontextSettings.from_mapping({field: convert(value)})
            except KontextError as error:
                raise RuntimeError(str(error)) from None

    return confirm


def _confirm_images(number: int, p: PlotProcessing, values: Sequence[str]) -> None:
    """Refuse an image axis that could not change the images, or whose files are missing."""
    _require_enabled(p)
    _require(p, f"mute_image{number}", False, f"reference {number} is muted, and the plot has it as an axis")
    if number == 1:
        reason = "the init image is reference 1, and the plot has that as an axis; turn it off, or plot image 2"
        _require(p, "init_image_as_reference", False, reason)
    if getattr(p, "is_api", False):
        raise RuntimeError(f"files of the server are for the page; through the API send image{number}")
    for value in values:
        if not Path(value).is_file():
            raise RuntimeError(f"no such picture: {value}")
    if not values:
        raise RuntimeError("no pictures there; write files or a folder")
    check_pictures(p, f"image{number}", values, sized=_SIZE_AXES.isdisjoint(_chosen_axes(p)))


def check_pictures(p: PlotProcessing, name: str, paths: Sequence[str], *, sized: bool) -> None:
    """Refuse pictures that their cells would refuse, before the first one is made.

    Args:
        p: of the plot.
        name: of the setting.
        paths: of the files.
        sized: whether the panel says at what size they will be used.

    Raises:
        RuntimeError: a picture cannot be used.
    """
    settings, background = _settings_of(p), options.background_of(p)
    sizing, half_size = (settings.get(field, default_of(field)) for field in ("sizing", "half_size"))
    for path in paths:
        try:
            size = decode_reference(_read_file(path), name, background).size
            if sized:
                plan_size(size, sizing, half_size, (p.width, p.height), name)
        except (KontextError, OSError) as error:
            reason = error.reason if isinstance(error, KontextError) else first_line(error)
            raise RuntimeError(f"{path}: {reason}") from None


def _require_enabled(p: PlotProcessing) -> None:
    _require(p, "enabled", True, "Flux Kontext is off, and the plot has one of its axes; turn it on")


def _require(p: PlotProcessing, field: str, value: bool, reason: str) -> None:
    """Refuse a setting that would fill the grid with equal images without telling why.

    Raises:
        RuntimeError: the field has another value.
    """
    if bool(_settings_of(p).get(field, default_of(field))) is not value:
        raise RuntimeError(f"{field}: {reason}")


def _settings_of(p: PlotProcessing) -> Mapping[str, Any]:
    """Return what the request says, by setting name; it has not been checked."""
    for script in p.scripts.alwayson_scripts:
        if script.title() == TITLE:
            return by_name(p.script_args[script.args_from : script.args_to])
    return {}


def _chosen_axes(p: PlotProcessing) -> set[str]:
    """Return the labels of the plot's axes. Each has three arguments, its place in the list of axes first."""
    plot = _selected_plot(p)
    if plot is None:
        return set()
    places = p.script_args[plot.args_from : plot.args_to][:9:3]
    return {plot.current_axis_options[place or 0].label for place in places}


def _image_label(p: object, option: Any, value: str) -> str:
    return f"{option.label}: {Path(value).name}"


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def _xyz_module() -> ModuleType | None:
    from modules import scripts

    for script in scripts.scripts_data:
        if script.script_class.__module__ in _MODULES:
            return script.module
    return None
