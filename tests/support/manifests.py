"""A folder of pictures for manifests, and a manifest validated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lib_fluxkontext.batch.row import Row, RowError
from lib_fluxkontext.batch.validate import rows_of


def fill(folder: Path) -> Path:
    """Make pictures in a folder, and files that are none."""
    (folder / "women [1]").mkdir()
    (folder / "cats").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / "women [1]" / f"{number}.png")
    for number in range(2):
        Image.new("RGB", (48, 64), (0, number, 0)).save(folder / "cats" / f"{number}.jpg")
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    (folder / "cats" / "notes.txt").write_text("no picture")
    (folder / "cats" / "._0.jpg").write_bytes(b"what macOS leaves")
    (folder / "none").mkdir()
    (folder / "text.png").write_text("no picture")
    (folder / "header.png").write_bytes((folder / "a.png").read_bytes()[:20])
    Image.new("RGB", (2000, 20)).save(folder / "long.png")
    Image.new("RGB", (8, 8)).save(folder / "small.png")
    return folder


def read(folder: Path, name: str, content: str | bytes, **options: object) -> tuple[list[Row], list[RowError]]:
    """Validate a manifest of this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = list(rows_of(path, **{"small_model": True, **options}))
    return [row for row in found if isinstance(row, Row)], [row for row in found if isinstance(row, RowError)]


def places(errors: Sequence[RowError]) -> list[tuple[int, str | None]]:
    """Line and field of each error."""
    return [(error.line, error.field) for error in errors]
