"""The command line: a picture and its report on success, else a one-line error and an exit code."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_fluxkontext.commands.main import main
from lib_fluxkontext.hosts.diffusers.loader import SMALL_MODEL
from lib_fluxkontext.job import SMALL_MODEL_SIZE
from tests.support.photos import cat, square, woman
from tests.support.waiting import INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "put the first picture on the left and the second on the right"
GENERATE = (
    *("lib_fluxkontext", "generate", "--image", "woman.png", "--image", "cat.jpg", "--prompt", PROMPT),
    *("--size", "96x96", "--steps", "4", "--device", "cpu", "--output", "a.png"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two photographs and files that are not usable."""
    monkeypatch.chdir(tmp_path)
    square(woman(), 128).save("woman.png")
    square(cat(), 128).save("cat.jpg")
    Path("empty.png").touch()
    Path("text.png").write_text("not a picture")
    Path("half.png").write_bytes(Path("woman.png").read_bytes()[:3000])
    save_file({"a.weight": torch.zeros(2, 2)}, "other.safetensors")
    Path("damaged.safetensors").write_bytes(b"\xff" * 100)
    return tmp_path


def files(folder: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def start(*module: str, stdin: int | None = None, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a module in the working folder, by default with its output piped."""
    hidden = ("COLUMNS", "LINES", "TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY")  # an earlier test may have set them
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", *module]
    if os.name != "nt":  # a shell's background job, and so all that it starts, ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, env=environment, encoding="utf-8", stdin=stdin, stdout=output, stderr=output)


def in_terminal(size: tuple[int, int], *module: str) -> str:
    """Run a module in a terminal of so many lines and columns, and return what it showed."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals like these")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = start(*module, stdin=theirs, output=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # which is how a terminal ends on Linux
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert process.wait(120) == 0, shown
    return shown.decode()


@pytest.mark.slow
def test_two_images_and_a_sentence_make_a_picture_and_a_report(folder: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["generate", "--image", "woman.png", "--image", "cat.jpg", "--prompt", PROMPT, "--output", "out/a.png"]
    assert main([*arguments, "--steps", "6", "--threshold", "0.3"]) == 0
    picture = Image.open("out/a.png")
    assert "{}x{}".format(*picture.size) == SMALL_MODEL_SIZE
    parameters = picture.info["parameters"]
    assert parameters.startswith(f"{PROMPT}\nSteps: 6, Sampler: Euler")
    assert re.search(r"Kontext image 2: [0-9a-f]{12} 128×128", parameters)
    assert "Kontext cache threshold: 0.3" in parameters
    printed = capsys.readouterr().out
    assert re.search(r"^Steps: 6 in .+ m?s: \d computed", printed, re.MULTILINE)
    assert "Picture: out" in printed
    page = Path("out/a.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 5  # references, result, and the first two once more to compare
    assert len(re.findall(r"<title>Step [^<]+</title><rect", page)) == 6  # bars; changes have dots
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert {path.name for path in Path("out").iterdir()} == {"a.png", "a.html"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image", "nowhere.png"], ["--image nowhere.png", "no such file"]),
        (["--image", "."], ["--image .", "directory"]),
        (["--image", "empty.png"], ["--image empty.png", "not an image"]),
        (["--image", "text.png"], ["--image text.png", "not an image"]),
        (["--image", "woman.png", "--image", "half.png"], ["--image half.png", "truncated"]),
        (["--threshold", "2"], ["--threshold", "2", "0 to 1"]),
        (["--threshold", "lots"], ["--threshold", "lots", "0 to 1"]),
        (["--steps", "0"], ["--steps", "1 to 1000"]),
        (["--seed", "x"], ["--seed", "whole number"]),
        (["--size", "100x96"], ["--size", "multiple of 16"]),
        (["--size", "large"], ["--size", "1024x768"]),
        (["--sizing", "crop"], ["--sizing", "to BFL recommended"]),
        (["--placement", "diagonal"], ["--placement", "uxo"]),
        (["--stitch", "grid"], ["--stitch", "auto"]),
        (["--nope"], ["--nope", "--help"]),
        (["--checkpoint", "nowhere.gguf"], ["--checkpoint", "no such file"]),
        (["--checkpoint", "other.safetensors"], ["--checkpoint", "not a FLUX checkpoint"]),
        (["--checkpoint", "damaged.safetensors"], ["--checkpoint", "not a safetensors file"]),
        (["--checkpoint", "text.png"], ["--checkpoint", ".gguf"]),
        (["--checkpoint", "."], ["--checkpoint", "not a FLUX pipeline"]),
        (["--output", "a.jpg"], ["--output", ".png"]),
        (["--nf4", "--device", "cpu"], ["--nf4", "CUDA"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else None,
)
def test_an_error_is_one_line_and_writes_nothing(
    folder: Path, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture
) -> None:
    before = files(folder)
    try:
        code = main(["generate", "--prompt", "x", *arguments])
    except SystemExit as stop:  # argparse's own
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1, printed.err
    assert printed.err.startswith("error: ")
    for word in words:
        assert word in printed.err
    assert files(folder) == before


@pytest.mark.slow
def test_an_interrupt_leaves_no_half_written_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = files(folder)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lib_fluxkontext.hosts.diffusers.cli.report_page", interrupted)
    assert main(["generate", "--prompt", "x", "--steps", "1"]) == 130
    assert "no picture was written" in capsys.readouterr().err
    assert files(folder) == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a signal as a Unix terminal does")
def test_ctrl_c_ends_the_demo_with_one_line(folder: Path) -> None:
    before = files(folder)
    process = start("examples.demo", "--no-open")
    assert process.stdout is not None
    process.stdout.readline()  # the picture is announced, and now loading goes on
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in INTERRUPTED
    assert errors == "error: interrupted; no picture was written\n"
    assert files(folder / "output") == {"woman.png", "cat.png"}  # the photographs, both whole
    assert files(folder) == before | {"cat.png"}


@pytest.mark.slow
def test_a_full_disk_is_reported_and_leaves_no_half_written_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = files(folder)

    def full(self: Image.Image, file: object, *_: object, **__: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr("lib_fluxkontext.hosts.diffusers.cli.report_page", lambda *_: "<p>page</p>")
    assert main(["generate", "--prompt", "x", "--steps", "1", "--output", "a.png"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert files(folder) == before


@pytest.mark.slow
def test_a_transformer_file_with_a_base_gives_what_the_whole_folder_gives(folder: Path) -> None:
    weights = SMALL_MODEL / "transformer" / "diffusion_pytorch_model.safetensors"
    arguments = ["generate", "--prompt", PROMPT, "--image", "woman.png", "--sizing", "to output", "--size", "96x96"]
    base = ["--checkpoint", str(weights), "--base", str(SMALL_MODEL), "--steps", "2", "--device", "cpu"]
    assert main([*arguments, *base, "--output", "file.png"]) == 0
    assert main([*arguments, "--steps", "2", "--device", "cpu", "--output", "folder.png"]) == 0
    assert Image.open("file.png").tobytes() == Image.open("folder.png").tobytes()


@pytest.mark.slow
def test_piped_output_is_plain_lines(folder: Path) -> None:
    process = start(*GENERATE)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "\r" not in printed
    assert "\x1b" not in printed
    announced, steps, *paths = printed.splitlines()
    assert announced.startswith("Making a 96×96 picture from woman.png and cat.jpg on cpu: put the first picture on")
    assert steps.startswith("Steps: 4 in ")
    assert [line.split()[0] for line in paths] == ["Memory:", "Picture:", "Report:"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(24, 80), (0, 0)], ids=["80 columns", "unknown size"])
def test_a_terminal_shows_one_bar_and_nothing_else_while_it_loads(folder: Path, size: tuple[int, int]) -> None:
    printed = in_terminal(size, *GENERATE)
    announced, bar, steps, *paths = printed.replace("\r\n", "\n").splitlines()  # which splits at "\r", too
    while steps.startswith("Sampling"):
        bar, (steps, *paths) = steps, paths
    assert announced.startswith("Making a 96×96 picture from woman.png")
    assert re.fullmatch(r"Sampling 100%\|\S+\| 4/4 \[\S+, +\d+\.\d\ds/step\]", bar)
    assert len(bar) < 80
    assert steps.startswith("Steps: 4 in ")
    assert [line.split()[0] for line in paths] == ["Memory:", "Picture:", "Report:"]
