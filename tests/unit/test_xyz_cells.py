"""X/Y/Z plot: pictures are looked at before the first cell, and what is a cell of a plot is known."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext.hosts.forge.integration.options import PREFIX
from lib_fluxkontext.hosts.forge.integration.xyz_axes import _confirm_images, cell_of
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.images.decode import WHITE
from lib_fluxkontext.settings import FIELD_NAMES, default_of

AXES = ["Nothing", "Size", "[Kontext] sizing", "[Kontext] image 1"]
IMAGE_AXIS = [3, "", [], 0, "", [], 0, "", []]


class Plot:
    """Forge's script; its first argument is the second of all."""

    args_from, args_to = 1, 1 + len(IMAGE_AXIS)
    current_axis_options = [SimpleNamespace(label=label) for label in AXES]


class Other:
    """A script that lets errors through."""


Plot.__module__ = "xyz_grid.py"


def runner() -> SimpleNamespace:
    """Forge's list of scripts, with the extension behind the plot."""
    first = Plot.args_to
    kontext = SimpleNamespace(title=lambda: TITLE, args_from=first, args_to=first + len(FIELD_NAMES))
    return SimpleNamespace(alwayson_scripts=[kontext], selectable_scripts=[Other(), Plot()])


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's list of scripts, and what Forge is at."""
    scripts, shared, modules = (ModuleType(f"modules{name}") for name in (".scripts", ".shared", ""))
    scripts.scripts_txt2img, scripts.scripts_img2img = runner(), runner()
    shared.state = SimpleNamespace(job="1 out of 4")
    modules.scripts, modules.shared = scripts, shared
    for module in (modules, scripts, shared):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return modules


def processing(forge: Any, chosen: int = 2, axes: list[Any] = IMAGE_AXIS, **settings: Any) -> SimpleNamespace:
    values = [settings.get(name, default_of(name)) for name in FIELD_NAMES]
    return SimpleNamespace(
        scripts=forge.scripts.scripts_txt2img,
        script_args=(chosen, *axes, *values),
        override_settings={f"{PREFIX}background": WHITE},
        width=256,
        height=256,
    )


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, str]:
    """Files of several kinds."""
    Image.effect_noise((320, 240), 90).convert("RGB").save(tmp_path / "good.jpg")
    (tmp_path / "damaged.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:4000])
    Image.new("RGB", (900, 40)).save(tmp_path / "narrow.png")
    Image.new("RGB", (3300, 2500)).save(tmp_path / "large.png")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "reason"), [("damaged", "the image is truncated or damaged"), ("narrow", "900×40 is 22 times")]
)
def test_a_picture_that_cannot_be_used_is_refused_before_the_first_cell(
    forge: Any, pictures: dict[str, str], name: str, reason: str
) -> None:
    p: Any = processing(forge, enabled=True)
    _confirm_images(1, p, [pictures["good"]])
    with pytest.raises(RuntimeError, match=f"{name}.*: {reason}"):
        _confirm_images(1, p, [pictures["good"], pictures[name]])


def test_a_size_that_the_panel_does_not_allow_is_refused_unless_an_axis_decides_it(
    forge: Any, pictures: dict[str, str]
) -> None:
    p: Any = processing(forge, enabled=True, sizing="no change")
    with pytest.raises(RuntimeError, match=r'large\.png: "no change" makes it 3300×2500'):
        _confirm_images(1, p, [pictures["large"]])
    for other in (1, 2):
        p = processing(forge, enabled=True, sizing="no change", axes=[3, "", [], other, "", [], None, "", []])
        _confirm_images(1, p, [pictures["large"]])


def test_a_cell_is_known_and_which_is_the_first(forge: Any) -> None:
    cell = cell_of(processing(forge))
    assert cell is not None
    assert cell.is_first
    forge.shared.state.job = "12 out of 14"
    cell = cell_of(processing(forge))
    assert cell is not None
    assert not cell.is_first


@pytest.mark.parametrize("chosen", [0, 1, None, 3, -1])
def test_no_script_or_another_one_makes_no_cells(forge: Any, chosen: Any) -> None:
    assert cell_of(processing(forge, chosen)) is None


def test_what_another_extension_generates_inside_of_a_cell_is_none(forge: Any) -> None:
    inner = processing(forge)
    inner.scripts = runner()
    assert cell_of(inner) is None
    assert cell_of(SimpleNamespace()) is None
