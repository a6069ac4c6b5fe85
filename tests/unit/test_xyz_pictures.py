"""What the X/Y/Z plot's image axes make of a text."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lib_fluxkontext.hosts.forge.integration.xyz_axes import pictures


def test_files_and_folders_become_pictures_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "a, folder"
    folder.mkdir()
    for name in ("b.png", "a.JPG", "notes.txt"):
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")
    one = tmp_path / "one.webp"
    assert pictures(f'{one}, "{folder}"') == [str(one), str(folder / "a.JPG"), str(folder / "b.png")]
    assert pictures("") == []
    assert pictures(" , ") == []
