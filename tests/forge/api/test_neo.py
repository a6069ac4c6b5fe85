"""Forge Neo's own references (init image, ImageStitch) count as references, with and without pictures on the panel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import checkpoint_files as files
from tests.support.forge_install import REPO_ROOT, Host
from tests.support.forge_server import ForgeServer, Result
from tests.support.image_stitch import stitched
from tests.support.payloads import TITLE, difference, first_pass, pixels, report, step_kinds
from tests.support.photos import cat_base64, woman

pytestmark = pytest.mark.neo_only

STEPS = 9


@pytest.fixture(scope="module")
def neo(forge: ForgeServer) -> Iterator[ForgeServer]:
    """Neo with a checkpoint that it takes for Kontext, by its name."""
    forge.select(files.FLUX_KONTEXT)
    yield forge
    forge.select(files.FLUX)


def generated(neo: ForgeServer, settings: dict[str, Any] | None, init_image: bool = False, **payload: Any) -> Result:
    """Generate with Neo's own references, in nine steps."""
    return stitched(neo, settings, init_image, steps=STEPS, **payload)


@pytest.mark.parametrize("init_image", [False, True], ids=["two stitched", "init image and one stitched"])
def test_measuring_and_reusing_neos_references_is_bit_identical_to_off(neo: ForgeServer, init_image: bool) -> None:
    plain = pixels(generated(neo, None, init_image, seed=4))
    off = generated(neo, {"cache": False}, init_image, seed=4)
    measuring = generated(neo, {"cache_threshold": 1e-9, "reference_refresh": 1}, init_image, seed=4)
    assert np.array_equal(pixels(off), pixels(measuring))
    if not init_image:  # Neo samples the init image's latent anew in each generation, which also moves the noise
        assert np.array_equal(plain, pixels(off))
    sampling = first_pass(measuring)
    assert sampling["host_references"] == len(sampling["reference_tokens"]) == 2
    assert (sampling["references_encoded"], sampling["references_kept"]) == (0, 0)
    assert step_kinds(measuring) == ["computed"] * STEPS
    assert sampling["key_values"]["refreshes"] > 0


def test_kept_references_of_neo_do_not_run_and_the_picture_stays_close(neo: ForgeServer) -> None:
    """Pictures are compared between two changes of the checkpoint: Neo encodes anew after one, with other noise."""
    every = generated(neo, {"cache": False}, seed=5)
    kept = generated(neo, {"cache": False, "reference_refresh": 4}, seed=5)
    assert step_kinds(kept) == ["computed", "kept", "kept", "kept", "computed", "kept", "kept", "kept", "computed"]
    neo.select(files.FLUX)  # the same weights, whose name does not say Kontext: no references
    try:
        without = generated(neo, {"cache": False}, seed=5)
        assert first_pass(without)["reference_tokens"] == []
    finally:
        neo.select(files.FLUX_KONTEXT)
    assert 0 < difference(pixels(kept), pixels(every)) < 0.75 * difference(pixels(without), pixels(every))


def test_first_block_cache_reuses_steps_with_neos_references(neo: ForgeServer) -> None:
    fast = generated(neo, {"cache_threshold": 0.65, "reference_refresh": 1, "cache_correct": True}, seed=6)
    assert report(fast)["reused_steps"] > 0
    again = generated(neo, {"cache_threshold": 0.65, "reference_refresh": 1, "cache_correct": True}, seed=6)
    assert np.array_equal(pixels(fast), pixels(again))


def test_pictures_on_the_panel_stand_behind_neos(neo: ForgeServer) -> None:
    alone = generated(neo, {"cache": False}, seed=7)
    settings = {"cache": False, "image1": cat_base64(), "sizing": "to output"}
    both = generated(neo, settings, seed=7)
    sampling = first_pass(both)
    assert sampling["host_references"] == 2
    assert sampling["reference_tokens"] == [*first_pass(alone)["reference_tokens"], sampling["image_tokens"]]
    assert difference(pixels(both), pixels(alone)) > 0.5
    measured = generated(neo, settings | {"cache": True, "cache_threshold": 1e-9, "reference_refresh": 1}, seed=7)
    assert np.array_equal(pixels(measured), pixels(both))


def test_the_init_image_is_never_there_twice(neo: ForgeServer) -> None:
    settings = {"enabled": True, "cache": False, "init_image_as_reference": True}
    result = neo.img2img(woman(), denoising_strength=1.0, steps=3, alwayson_scripts={TITLE: {"args": [settings]}})
    assert result.status == 200, result.reply
    sampling = first_pass(result)
    # Neo forgets the other tab's stitched pictures only when that tab generates again: there may be more than one.
    assert sampling["host_references"] == len(sampling["reference_tokens"]) >= 1
    assert any("not there twice" in note for note in report(result)["notes"])


def test_each_image_of_a_batch_is_as_it_would_be_alone(neo: ForgeServer) -> None:
    settings = {"cache_threshold": 0.65, "reference_refresh": 4}
    together = generated(neo, settings, seed=8, batch_size=2)
    for index in range(2):
        alone = generated(neo, settings, seed=8 + index)
        assert difference(pixels(together, index), pixels(alone)) < 1.0


def test_flux_2_klein_is_cached_through_its_own_references(host: Host, tmp_path: Path) -> None:
    """By Neo's own class in klein's shape; a checkpoint of it needs a text encoder too large for a test."""
    script = REPO_ROOT / "tests" / "support" / "neo_klein.py"
    command = [host.python, script, REPO_ROOT, tmp_path / "out.json", *host.cpu_flags]
    done = subprocess.run(command, cwd=host.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert "ImageStitch" in result["why_no_references"]
    assert result["measured_is_plain"]
    assert result["reference_tokens"] == [24, 16]
    assert result["kept_kinds"] == ["computed", "kept", "kept", "computed", "kept", "kept"]
    assert result["reused_kinds"][0] == "computed"
    assert "reused" in result["reused_kinds"]
    assert 0 < result["kept_off"] < 0.75 * result["without_off"]
