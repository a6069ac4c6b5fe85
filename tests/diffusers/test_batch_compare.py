"""``python -m lib_fluxkontext compare`` with the small model, from the command to the page."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from PIL import Image

from lib_fluxkontext.command_line import DONE, WRONG_REQUEST, Parser
from lib_fluxkontext.commands import compare
from tests.support.photos import cat, woman


def run(*arguments: str) -> int:
    parser = Parser()
    compare.add_command(parser.add_subparsers(parser_class=Parser))
    options: argparse.Namespace = parser.parse_args(["compare", *arguments])
    code: int = options.run(options)
    return code


@pytest.mark.slow
def test_the_small_model_is_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("flip_evaluator")
    photos = []
    for name, photo in (("woman", woman()), ("cat", cat())):
        photo.save(tmp_path / f"{name}.png")
        photos += ["--image", str(tmp_path / f"{name}.png")]
    common = [*photos, "--prompt", "the woman hugs the cat", "--steps", "2,4", "--output", str(tmp_path / "out")]
    assert run(*common, "--cache", "0,1") == DONE
    table = [line for line in (tmp_path / "out" / "compare.md").read_text(encoding="utf-8").splitlines() if "|" in line]
    off, never, always = ([cell.strip() for cell in line.split("|")[2:-1]] for line in table[5:8])
    assert (off[0], never[0], always[0]) == ("off", "0", "1")
    assert (off[4], never[4], always[4]) == ("0%", "0%", "75%")
    assert never[6] == "identical"  # threshold 0 is no cache, bit for bit
    assert always[6].endswith("dB")
    assert Image.open(tmp_path / "out" / "compare.png").width > 640

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pictures").rglob("*.png")}
    assert len(made) == 6
    capsys.readouterr()
    assert run(*common, "--cache", "0") == DONE  # what is there is not made again
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert "compare.html" in capsys.readouterr().out


def test_a_wrong_cache_is_refused_by_its_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("flip_evaluator")
    assert run("--prompt", "x", "--cache", "quick", "--output", str(tmp_path)) == WRONG_REQUEST
    assert capsys.readouterr().err.startswith('error: --cache: got the text "quick"; allowed: a threshold')
    assert run("--prompt", "x", "--seed", "-1", "--output", str(tmp_path)) == WRONG_REQUEST
    assert capsys.readouterr().err.startswith("error: --seed: ")
