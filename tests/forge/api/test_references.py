"""One to four references: placed by each rule, stitched and not, with the caches and in batches."""

from __future__ import annotations

import json
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lib_fluxkontext.geometry import latent_grid
from lib_fluxkontext.images.decode import decode_reference
from lib_fluxkontext.images.stitch import apply_stitch, plan_sizes
from lib_fluxkontext.references.placement import position_ids
from lib_fluxkontext.settings import FIELD_NAMES, IMAGE_FIELDS, PLACEMENTS, KontextSettings
from tests.forge.conftest import CACHED
from tests.support import checkpoint_files as files
from tests.support.forge_install import REPO_ROOT, Host
from tests.support.forge_server import ForgeServer
from tests.support.image_stitch import stitched as with_neos_own
from tests.support.images import encode_image
from tests.support.payloads import (
    TITLE,
    WITHIN,
    difference,
    first_pass,
    kontext,
    made,
    pixels,
    report,
    step_kinds,
    two_references,
)
from tests.support.photos import cat, woman

pytestmark = pytest.mark.both_hosts

STEPS = 8

LAYOUTS: dict[str, dict[str, str]] = {
    **{placement: {"placement": placement} for placement in PLACEMENTS},
    "row": {"stitch": "row"},
    "auto, uxo": {"stitch": "auto", "placement": "uxo"},
}
ACCELERATED = pytest.mark.parametrize(
    ("layout", "refresh"),
    [("index", 0), ("uxo", 3), ("row", 0), ("row", 3)],
    ids=["index, cache", "uxo, cache and reference reuse", "row, cache", "row, cache and reference reuse"],
)


def photographs() -> list[Image.Image]:
    """Return four pictures that differ in content, size and shape."""
    return [woman(), cat(), woman().crop((0, 200, 300, 512)), ImageOps.flip(cat()).crop((100, 0, 300, 300))]


def four(**more: Any) -> dict[str, Any]:
    """Return settings with four references."""
    images = {name: encode_image(image) for name, image in zip(IMAGE_FIELDS, photographs(), strict=True)}
    return two_references(**images | more)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_of_four_references_matters_and_so_does_their_order(forge: ForgeServer, layout: dict) -> None:
    settings = four(**layout)
    all_four = pixels(made(forge, settings))
    swapped = settings | {"image3": settings["image4"], "image4": settings["image3"]}
    changed = [pixels(made(forge, settings | {f"mute_{name}": True})) for name in IMAGE_FIELDS]
    changed.append(pixels(made(forge, swapped)))
    for first, second in combinations([all_four, *changed], 2):
        assert difference(first, second) > 0.2


def test_placements_and_stitching_give_pictures_of_their_own_and_are_in_report_and_infotext(
    forge: ForgeServer,
) -> None:
    results = {name: made(forge, four(**layout)) for name, layout in LAYOUTS.items()}
    for first, second in combinations(results.values(), 2):
        assert difference(pixels(first), pixels(second)) > 0.2
    tokens = {name: first_pass(result)["reference_tokens"] for name, result in results.items()}
    assert [tokens[placement] for placement in PLACEMENTS] == [[256] * 4] * 3
    assert tokens["row"] == [256]  # four squares, 512×128
    assert tokens["auto, uxo"] == [256]
    for name, result in results.items():
        assert [f"Kontext image {number}: " in result.infotext for number in range(1, 6)] == [True] * 4 + [False]
        assert ("Kontext placement: " in result.infotext) == ("placement" in LAYOUTS[name] and name != "offset")
        assert ("Kontext stitch: " in result.infotext) == ("stitch" in LAYOUTS[name])
    assert "Kontext placement: uxo" in results["uxo"].infotext
    assert "Kontext stitch: row" in results["row"].infotext


def test_infotext_restores_placement_stitch_and_mutes(forge: ForgeServer) -> None:
    first = made(forge, four(placement="uxo", stitch="column", mute_image3=True))
    restored = forge.txt2img(infotext=first.infotext, styles=[])
    assert restored.status == 200, restored.reply
    for label in ("Kontext placement: uxo", "Kontext stitch: column", "Kontext mute 3: True"):
        assert label in first.infotext
        assert label in restored.infotext


def test_disabled_and_without_references_it_is_as_without_the_extension(
    forge: ForgeServer, plain_forge: ForgeServer
) -> None:
    plain = pixels(made(plain_forge))
    assert np.array_equal(plain, pixels(made(forge, four(enabled=False, placement="uxo", stitch="row"))))
    nothing = {"enabled": True, "cache": False, "placement": "uxo", "stitch": "auto"}
    assert np.array_equal(plain, pixels(made(forge, nothing)))
    muted = {f"mute_{name}": True for name in IMAGE_FIELDS}
    assert np.array_equal(plain, pixels(made(forge, four(stitch="row", **muted))))


@ACCELERATED
def test_threshold_0_is_off_and_a_repeat_the_same_picture(forge: ForgeServer, layout: str, refresh: int) -> None:
    settings = four(**LAYOUTS[layout])
    off = pixels(made(forge, settings, steps=STEPS))
    assert np.array_equal(off, pixels(made(forge, settings | {"cache": True, "cache_threshold": 0}, steps=STEPS)))
    cached = settings | CACHED | {"reference_refresh": refresh}
    fast = made(forge, cached, steps=STEPS)
    made(forge, four(sizing="fit inside output", half_size=True), seed=9)
    again = made(forge, cached, steps=STEPS)
    assert set(step_kinds(fast)) - {"computed"}
    assert np.array_equal(pixels(fast), pixels(again))
    assert not np.array_equal(pixels(fast), off)
    assert first_pass(again)["references_encoded"] == 0


@ACCELERATED
def test_a_batch_equals_its_images_alone(forge: ForgeServer, layout: str, refresh: int) -> None:
    settings = four(**LAYOUTS[layout], **CACHED, reference_refresh=refresh)
    together = made(forge, settings, steps=STEPS, seed=30, batch_size=2)
    assert set(step_kinds(together)) - {"computed"}
    for index in range(2):
        alone = made(forge, settings, steps=STEPS, seed=30 + index)
        assert difference(pixels(alone), pixels(together, index)) < WITHIN


def test_the_stitched_picture_is_used_as_one_reference(forge: ForgeServer) -> None:
    """Sent as one picture, without change, it gives the same; so do muted and empty slots between the others."""
    references = [decode_reference(image, name) for name, image in zip(IMAGE_FIELDS, photographs(), strict=True)]
    settings = KontextSettings(sizing="to BFL recommended", half_size=True)
    [by_hand], [plan] = apply_stitch(references, plan_sizes(references, settings, (256, 256)), "auto")
    stitched = made(forge, four(sizing=settings.sizing, half_size=True, stitch="auto"))
    one = two_references(image1=encode_image(by_hand.image), image2=None, sizing="no change")
    assert np.array_equal(pixels(stitched), pixels(made(forge, one)))
    assert first_pass(stitched)["reference_tokens"] == [plan.tokens]
    assert first_pass(stitched)["references_encoded"] + first_pass(stitched)["references_kept"] == 1
    muted = made(forge, four(stitch="row", mute_image2=True, image3=None))
    images = four()
    two = made(forge, two_references(image1=images["image1"], image2=images["image4"], stitch="row"))
    assert np.array_equal(pixels(muted), pixels(two))


def test_one_reference_alone_is_not_stitched(forge: ForgeServer) -> None:
    alone = {"image2": None, "sizing": "no change", "half_size": True}
    for stitch in ("row", "column", "auto"):
        stitched = pixels(made(forge, two_references(**alone, stitch=stitch)))
        assert np.array_equal(stitched, pixels(made(forge, two_references(**alone))))


def test_the_init_image_is_stitched_as_the_first(forge: ForgeServer) -> None:
    payload: dict[str, Any] = {"denoising_strength": 0.9, "steps": 4}
    init = forge.img2img(woman(), **kontext(four(init_image_as_reference=True, image1=None, stitch="row")), **payload)
    given = forge.img2img(woman(), **kontext(four(stitch="row")), **payload)
    assert np.array_equal(pixels(init), pixels(given))
    assert first_pass(init)["reference_tokens"] == [256]


@pytest.mark.parametrize("layout", [{"placement": "uxo"}, {"stitch": "row"}], ids=["uxo", "row"])
def test_the_hires_pass_places_and_stitches_for_its_own_size(forge: ForgeServer, layout: dict) -> None:
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "None", "denoising_strength": 0.7, "steps": 3}
    hires |= {"hr_additional_modules": ["Use same choices"], "hr_cfg": 1.0}
    result = made(forge, four(**layout), **hires)
    tokens = [sampling["reference_tokens"] for sampling in report(result)["passes"]]
    # 512×128 and, of 384×384 pixels, 768×192: four squares in a row.
    assert tokens == ([[256], [576]] if "stitch" in layout else [[256] * 4, [576] * 4])


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("placement", {"placement": "diagonal"}),
        ("placement", {"placement": 1}),
        ("placement", {"placement": None}),
        ("stitch", {"stitch": "grid"}),
        ("stitch", {"stitch": True}),
        ("image3", {"image3": 12}),
        ("image4", {"image4": "a cat on a mat"}),
        ("mute_image3", {"mute_image3": "no"}),
        ("stitch", {"stitch": "row", "sizing": "no change", "image1": encode_image(woman().resize((16, 16)))}),
    ],
)
def test_wrong_values_are_refused_by_field(forge: ForgeServer, field: str, settings: dict) -> None:
    result = forge.txt2img(**kontext(four() | settings))
    assert result.status == 422
    assert result.reply["detail"].startswith(f"{field}: ")


def test_payloads_from_before_give_what_they_gave(forge: ForgeServer) -> None:
    named = two_references(reference_refresh=2)
    defaults = KontextSettings()
    positional = [named.get(name, getattr(defaults, name)) for name in FIELD_NAMES[:17]]
    assert FIELD_NAMES[16] == "cache_correct"
    result = forge.txt2img(**kontext(*positional))
    assert np.array_equal(pixels(result), pixels(made(forge, named)))
    new = {"image3": None, "image4": None, "placement": "offset", "stitch": "off", "keep_outside_mask": False}
    assert np.array_equal(pixels(result), pixels(made(forge, named | new)))
    assert not any(word in result.infotext for word in ("placement", "stitch", "mute", "mask"))
    _, scripts = forge.get("/sdapi/v1/script-info")
    ours = [script for script in scripts if script["name"] == TITLE.lower()]
    assert [len(script["args"]) for script in ours] == [24, 24]
    for script in ours:
        assert [argument["value"] for argument in script["args"][17:]] == [
            None, None, False, False, "offset", "off", False,
        ]  # fmt: skip


@pytest.mark.neo_only
def test_behind_neos_own_references_with_every_placement(forge: ForgeServer) -> None:
    forge.select(files.FLUX_KONTEXT)
    try:
        settings = {name: four()[name] for name in ("image1", "image2")} | {"cache": False, "sizing": "to output"}
        made_by = {
            name: with_neos_own(forge, settings | layout, side=64, seed=7, steps=4) for name, layout in LAYOUTS.items()
        }
        for name, result in made_by.items():
            sampling = first_pass(result)
            assert sampling["host_references"] == 2
            assert len(sampling["reference_tokens"]) == (3 if "stitch" in LAYOUTS[name] else 4)
        for first, second in combinations(made_by.values(), 2):
            assert difference(pixels(first), pixels(second)) > 0.2
        index = settings | LAYOUTS["index"]
        again = with_neos_own(forge, index, side=64, seed=7, steps=4)
        assert np.array_equal(pixels(made_by["index"]), pixels(again))
        measured = index | {"cache": True, "cache_threshold": 1e-9, "reference_refresh": 1}
        measuring = with_neos_own(forge, measured, side=64, seed=7, steps=4)
        assert np.array_equal(pixels(measuring), pixels(again))
    finally:
        forge.select(files.FLUX)


EVEN = [(128, 128), (104, 156), (156, 104), (84, 196)]
ODD = [(5, 9)] * 3
"""Latent pixels: rows and columns."""


@pytest.mark.neo_only
def test_position_ids_equal_neos_own(host: Host, tmp_path: Path) -> None:
    cases = [
        {"placement": placement, "canvas": canvas, "references": references}
        for placement in PLACEMENTS
        for canvas, references in (((132, 124), EVEN), ((31, 33), EVEN[:2]), ((32, 32), ODD))
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    script = REPO_ROOT / "tests" / "support" / "neo_placement.py"
    command = [host.python, script, tmp_path / "cases.json", tmp_path / "out.json", *host.cpu_flags]
    done = subprocess.run([*map(str, command)], cwd=host.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert len(results) == 9
    for case, theirs in zip(cases, results, strict=True):
        grids = [latent_grid(*sides) for sides in case["references"]]
        ours = position_ids(case["placement"], grids, canvas=latent_grid(*case["canvas"]))[0].tolist()
        if case["references"] is ODD and case["placement"] != "index":
            third = 2 * grids[0][0] * grids[0][1]
            assert theirs[:third] == ours[:third]
            assert theirs[third][1] == ours[third][1] - 1  # the sides without their padding: see ``placement``
        else:
            assert theirs == ours
