"""Nobody sees half of a file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lib_fluxkontext import replaced_file
from lib_fluxkontext.replaced_file import PART, part_path, replace, replaced, unlink
from tests.support.held_files import hold, windows_error


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("old")
    with replaced(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_ends_the_writing_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "results.csv"
    path.write_text("old")

    def write() -> None:
        with replaced(path) as part:
            part.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_temporary_files_are_known_again() -> None:
    assert PART.fullmatch(part_path(Path("out/index-2.html")).name) is not None


def test_names_of_temporary_files_are_short_whatever_the_files() -> None:
    picture = Path("0" * 32 + ".png")
    for name in ("0" * 32 + ".failed.json", "x" * 250):
        assert len(part_path(Path(name)).name) <= len(picture.name)
    assert part_path(Path("a.json")) != part_path(Path("a.png"))


@pytest.mark.parametrize("winerror", [5, 32, 33])
def test_a_file_that_is_held_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, winerror: int
) -> None:
    assert sum(replaced_file.PAUSES) == pytest.approx(2)
    path = tmp_path / "a.json"
    path.write_text("old")
    renamed = hold(monkeypatch, "replace", "a.json", windows_error(winerror), times=3)
    with replaced(path) as part:
        part.write_text("new")
    assert (path.read_text(), len(renamed)) == ("new", 4)
    deleted = hold(monkeypatch, "unlink", "a.json", windows_error(winerror), times=3)
    unlink(path)
    assert (path.exists(), len(deleted)) == (False, 4)
    unlink(path)


def test_a_file_that_stays_held_is_an_error_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    renamed = hold(monkeypatch, "replace", "a.json", windows_error(32))
    with pytest.raises(PermissionError), replaced(path) as part:
        part.write_text("new")
    assert len(renamed) == len(replaced_file.PAUSES) + 1
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [windows_error(None), windows_error(19), windows_error(32, errno.EINVAL)])
def test_nothing_else_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    (tmp_path / "a").touch()
    for call in ("replace", "unlink"):
        tried = hold(monkeypatch, call, "b", error)
        with pytest.raises(type(error)):
            replace(tmp_path / "a", tmp_path / "b") if call == "replace" else unlink(tmp_path / "b")
        assert len(tried) == 1
