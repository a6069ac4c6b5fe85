"""References in a request that leaves the extension off: the picture is the one without them, the answer says so."""

from __future__ import annotations

import numpy as np
import pytest

from lib_fluxkontext.hosts.forge.lifecycle.unused import LABEL, NOTE
from tests.support.forge_server import ForgeServer
from tests.support.payloads import kontext, made, pixels, two_references
from tests.support.photos import woman, woman_base64

pytestmark = pytest.mark.both_hosts


def test_the_answer_says_that_references_were_not_used(forge: ForgeServer) -> None:
    plain = made(forge)
    for settings in (two_references(enabled=False), {"image1": woman_base64()}):
        result = made(forge, settings)
        assert result.info["extra_generation_params"][LABEL] == NOTE
        assert result.infotext == plain.infotext
        assert np.array_equal(pixels(plain), pixels(result))


def test_in_img2img_the_init_image_counts_where_it_was_asked_for(forge: ForgeServer) -> None:
    asked = forge.img2img(woman(), steps=1, **kontext({"init_image_as_reference": True}))
    assert asked.info["extra_generation_params"][LABEL] == NOTE
    not_asked = forge.img2img(woman(), steps=1, **kontext({}))
    assert LABEL not in not_asked.info["extra_generation_params"]


@pytest.mark.parametrize(
    "settings",
    [None, {}, {"enabled": False, "cache": False}, {"image1": woman_base64(), "mute_image1": True}, two_references()],
    ids=["not named", "empty", "off", "muted", "on"],
)
def test_nothing_is_said_without_a_reference_or_while_it_is_on(forge: ForgeServer, settings: dict | None) -> None:
    assert LABEL not in made(forge, settings, steps=1).info["extra_generation_params"]
