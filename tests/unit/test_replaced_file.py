"""Nobody sees half of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_fluxkontext.replaced_file import PART, part_path, replaced


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
