"""Settings → Flux Kontext: they take effect at once, or for one request alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_fluxkontext.history.record import Run
from lib_fluxkontext.history.store import RunLog
from lib_fluxkontext.hosts.forge.integration.options import PREFIX
from tests.support.forge_server import ForgeServer
from tests.support.images import encode_image
from tests.support.option_defaults import DEFAULTS
from tests.support.payloads import TITLE, first_pass, kontext, made, pixels, report
from tests.support.photos import cat_base64, cut_out

ON = {"enabled": True, "cache": False}
RED = {f"{PREFIX}background": "#ff0000"}


@pytest.fixture
def choose(forge: ForgeServer) -> Iterator[Callable[..., None]]:
    """A function that sets options by their names without the prefix; afterwards all have their defaults."""

    def set_options(**values: Any) -> None:
        assert forge.post("/sdapi/v1/options", {PREFIX + name: value for name, value in values.items()})[0] == 200

    yield set_options
    assert forge.post("/sdapi/v1/options", DEFAULTS)[0] == 200


def runs(server: ForgeServer) -> list[Run]:
    """Return the logged runs, newest first."""
    return [run for _, run in RunLog(server.data / "flux-kontext" / "runs.sqlite").latest()]


def test_the_run_log_is_turned_off_limited_and_stores_prompts_as_set(
    forge: ForgeServer, choose: Callable[..., None]
) -> None:
    made(forge, ON, steps=1, seed=1)
    assert (runs(forge)[0].seed, runs(forge)[0].prompt) == (1, "")
    made(forge, ON, steps=1, seed=2, override_settings={f"{PREFIX}log": False})
    assert runs(forge)[0].seed == 1
    choose(log=False)
    made(forge, ON, steps=1, seed=3)
    assert runs(forge)[0].seed == 1
    choose(log=True, log_prompt=True, log_limit=2)
    made(forge, ON, steps=1, seed=4, prompt="a cat on a mat")
    made(forge, ON, steps=1, seed=5, override_settings={f"{PREFIX}log_prompt": False})
    assert [(run.seed, run.prompt) for run in runs(forge)] == [(5, ""), (4, "a cat on a mat")]


def test_invalid_options_fall_back_to_their_defaults(forge: ForgeServer, choose: Callable[..., None]) -> None:
    before = pixels(made(forge, {**ON, "image2": cat_base64(), "sizing": "to output"}, steps=1))
    choose(log="perhaps", log_limit=-1, log_prompt=7, store_mib="lots", background="blurple", panel_speed=["Fast"])
    again = made(forge, {**ON, "image2": cat_base64(), "sizing": "to output"}, steps=1, seed=1)
    assert np.array_equal(before, pixels(again))
    assert report(again)["notes"] == []
    assert first_pass(again)["references_kept"] == 1


def on_red() -> Image.Image:
    """Return the cut-out cat, flattened on red."""
    red = Image.new("RGBA", cut_out().size, (255, 0, 0, 255))
    return Image.alpha_composite(red, cut_out()).convert("RGB")


def test_the_background_applies_to_one_request_or_to_all(forge: ForgeServer, choose: Callable[..., None]) -> None:
    settings = {**ON, "image1": encode_image(cut_out()), "sizing": "fit inside output"}
    by_hand = {**settings, "image1": encode_image(on_red())}
    asked = made(forge, settings, steps=2, override_settings=RED)
    assert np.array_equal(pixels(asked), pixels(made(forge, by_hand, steps=2, override_settings=RED)))
    assert "Kontext background: #ff0000" in asked.infotext
    on_white = made(forge, settings, steps=2)
    assert "Kontext background" not in on_white.infotext
    assert first_pass(on_white)["references_kept"] == 0
    with_white_padding = pixels(made(forge, by_hand, steps=2))
    assert not np.array_equal(pixels(asked), with_white_padding)
    assert not np.array_equal(pixels(on_white), with_white_padding)
    # Forge's API takes the setting from the infotext, as its page does.
    images = {TITLE: {"args": [True, settings["image1"]]}}
    pasted = forge.txt2img(infotext=asked.infotext, styles=[], steps=2, alwayson_scripts=images)
    assert np.array_equal(pixels(pasted), pixels(asked))
    choose(background="#F00")
    for_all = made(forge, settings, steps=2)
    assert np.array_equal(pixels(for_all), pixels(asked))
    assert first_pass(for_all)["references_kept"] == 1
    refused = forge.txt2img(**kontext(settings), override_settings={f"{PREFIX}background": "blurple"})
    assert refused.status == 422
    assert refused.reply["detail"].startswith(f'{PREFIX}background: got the text "blurple"')


def test_the_latent_cache_is_sized_and_turned_off_by_its_option(
    forge: ForgeServer, choose: Callable[..., None]
) -> None:
    settings = {**ON, "image2": cat_base64(), "sizing": "to output", "half_size": True}

    def kept() -> int:
        return first_pass(made(forge, settings, steps=1))["references_kept"]

    kept()
    assert kept() == 1
    choose(store_mib=0)
    assert [kept(), kept()] == [0, 0]
    choose(store_mib=1)
    assert [kept(), kept()] == [0, 1]
