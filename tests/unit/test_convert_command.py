"""``python -m lib_fluxkontext convert``: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_fluxkontext.commands.main import main
from lib_fluxkontext.convert.run import Conversion
from tests.support.convert_files import SMALL_MODEL, read_back, whole_checkpoint


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command; return exit code, output and errors."""
    code = main(["convert", *map(str, arguments)])
    out, errors = capsys.readouterr()
    return code, out, errors


def test_it_says_what_it_has_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.gguf"
    code, printed, errors = run(capsys, SMALL_MODEL, out, "--format", "q8_0")
    assert code == 0
    assert printed.splitlines()[-1].startswith(f"{out}: 5.1 MB, 56% of the source, ")
    assert "error" not in errors
    assert "img_in.weight" in read_back(out)


def test_gguf_leaves_the_rest_out_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole_checkpoint(tmp_path / "whole.safetensors")
    code, printed, _ = run(capsys, tmp_path / "whole.safetensors", tmp_path / "out.gguf", "--format", "Q4_0")
    assert code == 0
    assert printed.splitlines()[0] == "A GGUF file holds the transformer alone: 4 other tensors are left out"
    assert all(name.split(".")[0] != "vae" for name in read_back(tmp_path / "out.gguf"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out.gguf", "--format", "Q8_0"], "error: nowhere: no such file or folder"),
        ([SMALL_MODEL, "out.gguf", "--format", "Q6_K"], 'error: --format: "Q6_K" is made by llama.cpp'),
        ([SMALL_MODEL, "out.safetensors", "--format", "Q8_0"], 'error: "out.safetensors" does not end in .gguf'),
        ([SMALL_MODEL, "no/out.gguf", "--format", "Q8_0"], "error: not a file in a folder that exists"),
        ([SMALL_MODEL, "out.gguf", "--format", "Q8_0", "--lora", "a.safetensors:x"], "error: --lora: got the text"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(capsys, *arguments)
    assert code == 2
    assert errors.startswith(message)
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_interrupted_it_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Conversion.run

    def stopped(conversion: Conversion, report: Any = None) -> Any:
        def interrupt(count: int) -> None:
            raise KeyboardInterrupt

        return whole(conversion, interrupt)

    monkeypatch.setattr(Conversion, "run", stopped)
    code, _, errors = run(capsys, SMALL_MODEL, tmp_path / "out.safetensors", "--format", "fp8")
    assert (code, errors) == (130, "error: interrupted; start again to go on\n")
    assert {path.name for path in tmp_path.iterdir()} == {"out.safetensors.part", "out.safetensors.part.json"}
    monkeypatch.setattr(Conversion, "run", whole)
    code, _, _ = run(capsys, SMALL_MODEL, tmp_path / "out.safetensors", "--format", "fp8")
    assert code == 0
    assert load_file(tmp_path / "out.safetensors")


def test_a_missing_library_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    code, _, errors = run(capsys, SMALL_MODEL, tmp_path / "out.safetensors", "--format", "nf4")
    assert code == 1
    assert 'pip install -e ".[convert]"' in errors
    assert not (tmp_path / "out.safetensors").exists()


def test_without_diffusers_a_lora_needs_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    lora = tmp_path / "turbo.safetensors"
    save_file({"a.lora_A.weight": torch.ones(1, 1)}, lora)
    monkeypatch.setitem(sys.modules, "diffusers.loaders.lora_pipeline", None)
    arguments = [SMALL_MODEL, tmp_path / "out.gguf", "--format", "Q8_0", "--lora", f"{lora}:1"]
    code, _, errors = run(capsys, *arguments)
    assert code == 1
    assert 'pip install -e ".[convert,diffusers]"' in errors
