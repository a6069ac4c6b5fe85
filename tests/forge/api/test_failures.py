"""Requests that are refused and generations that fail or are interrupted change nothing for those that follow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.forge_server import ForgeServer
from tests.support.images import encode_image
from tests.support.payloads import HOOKS, difference, first_pass, kontext, made, pixels, two_references
from tests.support.photos import woman, woman_base64

STEPS = 12

pytestmark = pytest.mark.both_hosts


@pytest.fixture(scope="module")
def plain(forge: ForgeServer) -> np.ndarray:
    """The picture of a request without the extension."""
    return pixels(made(forge))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image1", woman_base64()[:20000]),
        ("cache_threshold", -1),
        ("cache_treshold", 0.1),
        *(
            pytest.param(field, value, marks=pytest.mark.forge_only)  # what is valid does not depend on the host
            for field, value in (
                ("image2", "a cat on a mat"),
                ("image1", ""),
                ("image1", 12),
                ("sizing", "crop"),
                ("cache_threshold", "lots"),
                ("cache_threshold", 1e9),
                ("cache_warmup_steps", 0),
                ("enabled", "yes"),
                ("half_size", None),
                ("init_image_as_reference", True),
            )
        ),
    ],
)
def test_an_invalid_request_is_refused_by_field_and_changes_nothing(
    forge: ForgeServer, plain: np.ndarray, field: str, value: object
) -> None:
    result = forge.txt2img(**kontext(two_references(**{field: value})))
    assert result.status == 422
    assert result.reply["detail"].startswith(f"{field}: ")
    assert "\n" not in result.reply["detail"]
    assert np.array_equal(plain, pixels(made(forge)))


def test_a_local_url_is_refused_by_forges_settings(forge: ForgeServer) -> None:
    """Forge allows requests by default, but not to local addresses."""
    result = forge.txt2img(**kontext(two_references(image1="http://127.0.0.1:9/woman.png")))
    assert result.status == 422
    assert result.reply["detail"].startswith("image1: ")


def test_a_failure_while_sampling_leaves_nothing_behind(
    forge: ForgeServer, plain_forge: ForgeServer, cached: dict
) -> None:
    fresh = pixels(made(plain_forge))
    request = two_references(**cached)
    before = pixels(made(forge, request, steps=STEPS))
    failed = forge.txt2img(**kontext(request, **{HOOKS: {"fail_at_call": 3}}), steps=STEPS)
    assert failed.status == 500
    assert np.array_equal(fresh, pixels(made(forge)))
    assert np.array_equal(before, pixels(made(forge, request, steps=STEPS)))


def test_an_interrupt_leaves_nothing_behind(forge: ForgeServer, plain_forge: ForgeServer, cached: dict) -> None:
    fresh = pixels(made(plain_forge))
    request = two_references(**cached)
    before = pixels(made(forge, request, steps=STEPS))
    stopped = forge.txt2img(**kontext(request, **{HOOKS: {"interrupt_at_step": 3}}), steps=STEPS)
    assert stopped.status == 200
    assert len(first_pass(stopped)["steps"]) < STEPS
    assert np.array_equal(fresh, pixels(made(forge)))
    assert np.array_equal(before, pixels(made(forge, request, steps=STEPS)))


def test_out_of_memory_while_encoding_falls_back_or_ends_with_the_reason(
    forge: ForgeServer, plain_forge: ForgeServer
) -> None:
    fresh = pixels(made(plain_forge))
    whole = pixels(made(forge, two_references(sizing="no change", image2=None)))
    # No other test sends this picture, so its latent is not cached.
    uncached = two_references(image1=encode_image(woman().rotate(90)), sizing="fit inside output", image2=None)
    failed = forge.txt2img(**kontext(uncached, **{HOOKS: {"encoder_out_of_memory": 99}}))
    assert failed.status == 500
    assert "out of memory" in failed.reply["detail"]
    assert np.array_equal(fresh, pixels(made(forge)))
    # Out of memory once, Forge encodes on tiles instead: the picture is made, but that latent is not cached.
    tiled = forge.txt2img(**kontext(uncached, **{HOOKS: {"encoder_out_of_memory": 1}}))
    again = made(forge, uncached)
    assert difference(pixels(tiled), pixels(again)) < 0.25 * difference(fresh, pixels(again))
    assert first_pass(again)["references_encoded"] == 1
    assert np.array_equal(whole, pixels(made(forge, two_references(sizing="no change", image2=None))))
