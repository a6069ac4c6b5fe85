"""The command line on consoles that lack its characters; when the demo opens a browser; Ctrl-C in ``dev.py``."""

from __future__ import annotations

import io
import sqlite3
import sys
import tempfile
import webbrowser
from pathlib import Path

import pytest

import dev
from examples import demo
from lib_fluxkontext.command_line import DONE, FAILED, INTERRUPTED, WRONG_REQUEST, guarded
from lib_fluxkontext.commands.main import main

DESKTOP = ("CI", "DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION")


@pytest.mark.parametrize("encoding", ["cp866", "cp1251", "ascii"])
def test_a_console_without_the_characters_shows_others(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Printing ``×`` must not end a command whose picture is written."""
    written = io.BytesIO()
    console = io.TextIOWrapper(written, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", console)
    assert main(["generate", "--prompt", "x", "--size", "0x0"]) == WRONG_REQUEST
    print("1024×1024 – done")
    console.flush()
    assert b"1024?1024" in written.getvalue() or encoding == "cp1251"


def test_a_full_temporary_folder_is_one_line_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise sqlite3.OperationalError("database or disk is full")

    assert guarded(work, str, "interrupted", "nothing") == FAILED
    room = f"make room in {tempfile.gettempdir()}, or set TMPDIR to another folder"
    assert capsys.readouterr().err == f"error: database or disk is full: {room}\n"


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses opened in the browser, on a Linux desktop where a picture is made at once."""
    addresses: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    monkeypatch.setattr(demo, "make_picture", lambda: DONE)
    on_platform(monkeypatch, "linux", {"DISPLAY": ":0"})
    return addresses


def on_platform(monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str]) -> None:
    """Stand in for a platform whose environment has these variables of ``DESKTOP`` alone."""
    monkeypatch.setattr(sys, "platform", platform)
    for name in DESKTOP:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_demo_opens_its_report(opened: list[str], tmp_path: Path) -> None:
    assert demo.demo([]) == DONE
    assert opened == [(tmp_path / "output" / "demo" / "picture.html").as_uri()]


def test_no_open_opens_nothing(opened: list[str]) -> None:
    assert demo.demo(["--no-open"]) == DONE
    assert opened == []


@pytest.mark.parametrize("code", [FAILED, INTERRUPTED])
def test_without_a_picture_nothing_is_opened(opened: list[str], monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(demo, "make_picture", lambda: code)
    assert demo.demo([]) == code
    assert opened == []


@pytest.mark.parametrize(
    ("platform", "variables", "opens"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ""}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"DISPLAY": ":0", "CI": "true"}, False),
        ("win32", {}, True),
        ("win32", {"CI": "1"}, False),
        ("darwin", {}, True),
        ("darwin", {"CI": "true"}, False),
        ("darwin", {"SSH_CONNECTION": "10.0.0.2 50000 10.0.0.1 22"}, False),
    ],
)
def test_the_report_is_opened_only_at_a_desktop(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], opens: bool
) -> None:
    on_platform(monkeypatch, platform, variables)
    assert demo.demo([]) == DONE
    assert bool(opened) == opens


def test_an_interrupt_while_the_demo_imports_is_one_line(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "make_picture", interrupted)
    assert demo.demo([]) == INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted; no picture was written\n"
    assert opened == []


@pytest.mark.parametrize("arguments", [[], ["--no-open"]])
def test_dev_py_hands_no_open_on(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    ran: list[tuple[str, ...]] = []

    def run(*command: str) -> int:
        ran.append(command)
        return 0

    monkeypatch.setattr(dev, "set_up", lambda: None)
    monkeypatch.setattr(dev, "run", run)
    monkeypatch.setattr(sys, "argv", ["dev.py", "demo", *arguments])
    assert dev.main() == 0
    assert ran == [("-m", "examples.demo", *arguments)]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal as a Unix terminal does")
def test_dev_py_waits_for_what_ctrl_c_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal interrupts both; the command decides how it ends, and its exit code is kept."""
    monkeypatch.setattr(dev, "PYTHON", Path(sys.executable))
    interrupt_parent = "import os, signal, sys, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(1); sys.exit(7)"
    assert dev.run("-c", interrupt_parent) == 7
    die = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"
    assert dev.run("-c", die) == INTERRUPTED
