"""X/Y/Z plot: each cell is what its settings give, and an axis refuses what the settings refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.forge_install import NEO
from tests.support.forge_server import ForgeServer, Result
from tests.support.payloads import kontext, made, pixels, two_references
from tests.support.photos import woman

STEPS = 10
"""So many that the cache reuses some."""

NOTHING = (0, "", [])


def plot(forge: ForgeServer, x: tuple, y: tuple = NOTHING, steps: int = STEPS, **settings: Any) -> Result:
    """Make a plot that returns its grid and every cell; each axis is (label or 0, values, chosen values)."""
    _, scripts = forge.get("/sdapi/v1/script-info")
    xyz = next(script for script in scripts if script["name"] == "x/y/z plot" and not script["is_img2img"])
    labels = xyz["args"][0]["choices"]
    axes = [value for axis in (x, y, NOTHING) for value in (labels.index(axis[0]) if axis[0] else 0, *axis[1:])]
    rest = [False, True, False, False, False, False, False, *([0] if forge.host is NEO else []), 0, False]  # rows
    return forge.txt2img(
        **kontext(two_references(**settings)), script_name="x/y/z plot", script_args=axes + rest, steps=steps
    )


def cells(result: Result) -> list[np.ndarray]:
    """Return every cell's picture; the first picture is the grid."""
    assert result.status == 200, result.reply
    return [pixels(result, index) for index in range(1, len(result.images))]


@pytest.mark.both_hosts
def test_threshold_and_reference_refresh_make_each_cells_picture(forge: ForgeServer) -> None:
    x, y = ("[Kontext] threshold", "0, 0.65", []), ("[Kontext] reference refresh", "0, 3", [])
    found = cells(plot(forge, x, y, cache=True))
    expected = [
        pixels(
            made(forge, two_references(cache=True, cache_threshold=threshold, reference_refresh=refresh), steps=STEPS)
        )
        for refresh in (0, 3)
        for threshold in (0, 0.65)
    ]
    assert len(found) == 4
    for cell, picture in zip(found, expected, strict=True):
        assert np.array_equal(cell, picture)
    assert len({picture.tobytes() for picture in expected}) == 4


@pytest.mark.both_hosts
def test_placement_and_stitch_make_each_cells_picture(forge: ForgeServer) -> None:
    x, y = ("[Kontext] placement", "", ["offset", "uxo"]), ("[Kontext] stitch", "", ["off", "row"])
    found = cells(plot(forge, x, y, steps=4))
    expected = [
        pixels(made(forge, two_references(placement=placement, stitch=stitch), steps=4))
        for stitch in ("off", "row")
        for placement in ("offset", "uxo")
    ]
    assert len(found) == 4
    for cell, picture in zip(found, expected, strict=True):
        assert np.array_equal(cell, picture)
    assert len({picture.tobytes() for picture in expected}) == 4


def test_sizing_and_half_size_are_in_each_cells_infotext(forge: ForgeServer) -> None:
    x, y = ("[Kontext] sizing", "", ["to output", "no change"]), ("[Kontext] half size", "", ["True", "False"])
    result = plot(forge, x, y, steps=1)
    assert len(cells(result)) == 4
    texts = result.info["infotexts"][1:]
    assert ["Kontext sizing: no change" in text for text in texts] == [False, True, False, True]
    assert ["Kontext half size: True" in text for text in texts] == [True, True, False, False]


def test_a_cell_leaves_nothing_to_the_next(forge: ForgeServer) -> None:
    result = plot(forge, ("[Kontext] cache", "", ["True", "False"]), cache_threshold=0.65, image2=None)
    on, off = cells(result)
    assert np.array_equal(off, pixels(made(forge, two_references(image2=None), steps=STEPS)))
    assert not np.array_equal(on, off)
    assert ["Kontext image 2" in text for text in result.info["infotexts"]] == [False] * 3  # grid and cells


@pytest.mark.both_hosts
def test_an_axis_while_the_panel_is_off_is_refused(forge: ForgeServer) -> None:
    result = plot(forge, ("[Kontext] threshold", "0, 0.5", []), enabled=False)
    assert result.status == 500
    assert "Flux Kontext is off" in str(result.reply)


def test_an_axis_of_a_muted_reference_is_refused(forge: ForgeServer, tmp_path: Path) -> None:
    woman().save(tmp_path / "woman.png")
    result = plot(forge, ("[Kontext] image 2", str(tmp_path), []), mute_image2=True)
    assert result.status == 500
    assert "reference 2 is muted" in str(result.reply)


@pytest.mark.both_hosts
@pytest.mark.parametrize(
    ("axis", "reason"),
    [
        (("[Kontext] threshold", "0.1, 7", []), "a number from 0 to 1"),
        (("[Kontext] sizing", "", ["crop"]), "allowed: one of"),
        (("[Kontext] image 1", "/etc", []), "send image1"),
        (("[Kontext] image 4", "/etc", []), "send image4"),
        (("[Kontext] placement", "", ["diagonal"]), '"uxo"'),
        (("[Kontext] stitch", "", ["grid"]), '"auto"'),
    ],
)
def test_an_invalid_value_is_refused(forge: ForgeServer, axis: tuple, reason: str) -> None:
    result = plot(forge, axis)
    assert result.status == 500
    assert reason in str(result.reply)
