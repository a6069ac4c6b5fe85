"""Parsing of the X/Y/Z plot's image axes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lib_fluxkontext.hosts.forge.integration.xyz_axes import list_images


def test_files_and_folders_become_pictures_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "a, folder"
    folder.mkdir()
    for name in ("b.png", "a.JPG", "notes.txt"):
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")
    file = tmp_path / "single.webp"
    assert list_images(f'{file}, "{folder}"') == [str(file), str(folder / "a.JPG"), str(folder / "b.png")]
    assert list_images("") == []
    assert list_images(" , ") == []
