"""Where ``generate`` puts its picture and its report: in their places, or beside what is open elsewhere."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lib_fluxkontext.hosts.diffusers.cli import write_atomically
from tests.support.held_files import hold, windows_error


def write(folder: Path) -> dict[str, str]:
    """Write a picture and a report; return where each is."""
    files = {folder / "a.png": b"picture", folder / "a.html": b"report"}
    written = write_atomically({path: lambda file, data=data: file.write(data) for path, data in files.items()})  # type: ignore[misc]
    return {path.name: place.name for path, place in written.items()}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_both_are_written_and_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("old")
    assert write(tmp_path) == {"a.png": "a.png", "a.html": "a.html"}
    assert contents(tmp_path) == {"a.png": "picture", "a.html": "report"}


@pytest.mark.parametrize("held", ["a.png", "a.html"])
def test_a_file_that_is_open_elsewhere_costs_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    stem, suffix = held.split(".")
    for name in (held, f"{stem}-2.{suffix}"):
        (tmp_path / name).write_text("old")
    hold(monkeypatch, "replace", held, windows_error(32))
    kept = f"{stem}-3.{suffix}"
    assert write(tmp_path) == {"a.png": "a.png", "a.html": "a.html", held: kept}
    wanted = {"a.png": "picture", "a.html": "report", f"{stem}-2.{suffix}": "old", held: "old"}
    assert contents(tmp_path) == {**wanted, kept: "picture" if held == "a.png" else "report"}


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(monkeypatch, "replace", "a.html", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path)
    assert list(tmp_path.glob(".*")) == []
