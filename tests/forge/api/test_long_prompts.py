"""What Forge does with a prompt that is too long, or that has a BREAK."""

from __future__ import annotations

import numpy as np
import pytest

from lib_fluxkontext.hosts.forge.runtime.prompt_tokens import MAX_TOKENS
from tests.support.forge_install import Host
from tests.support.forge_server import ForgeServer
from tests.support.host_tokenizer import count
from tests.support.payloads import made, pixels


@pytest.mark.both_hosts
def test_tokens_after_the_limit_still_reach_the_picture(forge: ForgeServer, host: Host) -> None:
    before = "a very long story " * 180
    assert count(host, before.strip()) > MAX_TOKENS
    cat, cat_again, boat = (made(forge, prompt=before + end) for end in ("a cat", "a cat", "a boat"))
    assert np.array_equal(pixels(cat), pixels(cat_again))
    assert not np.array_equal(pixels(cat), pixels(boat))


@pytest.mark.both_hosts
def test_what_follows_break_does_not_reach_the_picture(forge: ForgeServer) -> None:
    cat, boat, none = (made(forge, prompt=text) for text in ("a house BREAK a cat", "a house BREAK a boat", "a house"))
    assert np.array_equal(pixels(cat), pixels(boat))
    assert np.array_equal(pixels(cat), pixels(none))
