"""The test server itself: models of every kind generate, and the test hooks leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support import checkpoint_files as files
from tests.support.forge_server import ForgeServer, Result
from tests.support.payloads import HOOKS, difference, pixels, script_args

MODELS = [files.FLUX, files.FLUX_SCHNELL, files.SD15]


@pytest.fixture(scope="module")
def server(plain_forge: ForgeServer) -> Iterator[ForgeServer]:
    """The server without the extension; afterwards its first checkpoint is selected again."""
    yield plain_forge
    plain_forge.select(files.FLUX)


def hooks(**controls: Any) -> dict[str, Any]:
    """Return the part of a request that asks for test hooks."""
    return script_args(**{HOOKS: controls})


def only_picture(result: Result) -> np.ndarray:
    """Return the only picture of a generation, which must have succeeded."""
    picture = pixels(result)
    assert len(result.images) == 1
    return picture


@pytest.mark.parametrize("checkpoint", MODELS)
def test_every_model_generates(server: ForgeServer, checkpoint: str) -> None:
    server.select(checkpoint)
    first = only_picture(server.txt2img())
    assert first.shape == (256, 256, 3)
    assert first.std() > 20
    assert np.array_equal(first, only_picture(server.txt2img()))
    assert not np.array_equal(first, only_picture(server.txt2img(seed=2)))


def test_prompt_and_guidance_change_the_picture(server: ForgeServer) -> None:
    server.select(files.FLUX)
    first = only_picture(server.txt2img())
    for change in ({"prompt": "a blue cat"}, {"distilled_cfg_scale": 1.0}):
        assert difference(only_picture(server.txt2img(**change)), first) > 5


def test_a_lora_changes_the_picture(server: ForgeServer) -> None:
    server.select(files.FLUX)
    plain = only_picture(server.txt2img(prompt="a house"))
    adapted = only_picture(server.txt2img(prompt="a house <lora:small-lora:1>"))
    assert not np.array_equal(plain, adapted)
    assert "for KModel-UNet with 4 keys" in server.log_text()


def test_a_failure_on_request_leaves_no_trace(server: ForgeServer) -> None:
    server.select(files.FLUX)
    before = only_picture(server.txt2img())
    failed = server.txt2img(**hooks(fail_at_call=2))
    assert failed.status == 500
    assert "failure asked for by a test" in failed.reply["message"]
    assert np.array_equal(before, only_picture(server.txt2img()))


def test_calls_are_counted_on_request_only(server: ForgeServer) -> None:
    server.select(files.FLUX)
    counted = server.txt2img(**hooks(count_forwards=True))
    assert "Test calls: transformer=4 double=8 single=16" in counted.infotext
    assert "Test calls" not in server.txt2img().infotext


def test_an_interruption_on_request_stops_at_its_step(server: ForgeServer) -> None:
    server.select(files.FLUX)
    whole = only_picture(server.txt2img(steps=6))
    stopped = server.txt2img(steps=6, **hooks(interrupt_at_step=3, count_forwards=True))
    assert "transformer=3 " in stopped.infotext
    assert not np.array_equal(whole, only_picture(stopped))
    assert np.array_equal(whole, only_picture(server.txt2img(steps=6)))
