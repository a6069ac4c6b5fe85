"""The command line on consoles that lack its characters."""

from __future__ import annotations

import io
import sys

import pytest

from lib_fluxkontext.hosts.diffusers import cli


@pytest.mark.parametrize("encoding", ["cp866", "cp1251", "ascii"])
def test_a_console_without_the_characters_shows_others(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Printing ``×`` must not end a command whose picture is written."""
    written = io.BytesIO()
    console = io.TextIOWrapper(written, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", console)
    assert cli.main(["generate", "--prompt", "x", "--size", "0x0"]) == cli.WRONG_REQUEST
    print("1024×1024 – done")
    console.flush()
    assert b"1024?1024" in written.getvalue() or encoding == "cp1251"
