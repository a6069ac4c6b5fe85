"""A row's key: the same for the same content, another for any other; sizes as the decoder gives them."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lib_fluxkontext.batch.columns import SETTING_COLUMNS
from lib_fluxkontext.batch.identity import ImageFiles, row_key
from lib_fluxkontext.batch.row import Lora, Row
from lib_fluxkontext.batch.validate import rows_of
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.decode import decode_reference, read_size
from lib_fluxkontext.settings import KontextSettings

CONTENT = {
    "prompt": "hug the cat",
    "digests": ("ab" * 32,),
    "settings": KontextSettings(enabled=True, cache_threshold=0.1),
    "width": 96,
    "height": 64,
    "steps": 4,
    "seed": 1,
    "guidance": 3.5,
    "checkpoint": "small_kontext",
    "loras": (),
}


def test_a_key_stays_what_it_is() -> None:
    """Folders of earlier versions are resumed by it: a change here makes every picture once more."""
    assert row_key(**CONTENT) == "359711620f783a0d60500869815bef87"
    assert row_key(**{**CONTENT, "guidance": 3, "loras": (Lora("a", 1),)}) == row_key(
        **{**CONTENT, "guidance": 3.0, "loras": (Lora("a", 1.0),)}
    )


def test_each_part_of_the_content_changes_the_key() -> None:
    others = {
        "prompt": "Hug the cat",
        "digests": ("ab" * 32, "ab" * 32),
        "width": 64,
        "height": 96,
        "steps": 5,
        "seed": 2,
        "guidance": 3.6,
        "checkpoint": "",
        "loras": (Lora("a", 0.5),),
        "nf4": True,
    }
    keys = [row_key(**CONTENT), row_key(**{**CONTENT, "width": 64, "height": 96})]
    keys += [row_key(**{**CONTENT, name: value}) for name, value in others.items()]
    keys += [row_key(**{**CONTENT, "loras": (Lora("a", 0.6),)}), row_key(**{**CONTENT, "loras": (Lora("b", 0.5),)})]
    changed = {bool: lambda value: not value, int: lambda value: value + 3, float: lambda value: value / 2}
    for name in SETTING_COLUMNS:
        value = getattr(CONTENT["settings"], name)
        other = changed[type(value)](value) if type(value) in changed else "row" if name == "stitch" else None
        if name == "sizing":
            other = "no change"
        if name == "placement":
            other = "uxo"
        values = CONTENT["settings"].model_dump() | {name: other}
        keys.append(row_key(**{**CONTENT, "settings": KontextSettings.from_mapping(values)}))
    assert len(set(keys)) == len(keys)


def test_the_place_of_a_file_and_of_a_row_is_no_content(tmp_path: Path) -> None:
    def rows(folder: str, text: str) -> list[Row]:
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 64), "red").save(tmp_path / folder / "a.png")
        shutil.copy(tmp_path / folder / "a.png", tmp_path / folder / "b.png")
        (tmp_path / folder / "m.csv").write_text(text)
        found = list(rows_of(tmp_path / folder / "m.csv", small_model=True))
        assert all(isinstance(row, Row) for row in found), found
        return found

    one, two = rows("x", "prompt,image1\nhug,a.png\nhug,b.png\n")
    _, other = rows("y", "image2,prompt,steps,cache_threshold,guidance\n,sit,4,,\nb.png,hug,20,0.14,3.50\n")
    assert one.key == two.key == other.key
    assert replace(one, line=3, number=2, images=two.images) == two


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    real = read_size

    def counted(file: io.BufferedReader, name: str) -> tuple[int, int]:
        reads.append(Path(file.name).name)
        return real(file, name)

    monkeypatch.setattr("lib_fluxkontext.batch.identity.read_size", counted)
    files = ImageFiles(kept=2)
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    (tmp_path / "bad.png").write_text("no picture")
    facts = files.facts(str(tmp_path / "a.png"), "image1")
    assert files.facts(str(tmp_path / "a.png"), "image1") is facts
    Image.new("RGB", (48, 32)).save(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert files.facts(str(tmp_path / "a.png"), "image1").size == (48, 32)
    for _ in range(2):
        with pytest.raises(KontextError, match="image2: not an image"):
            files.facts(str(tmp_path / "bad.png"), "image2")
    assert reads == ["a.png", "a.png", "bad.png"]
    files.facts(str(tmp_path / "b.png"), "image1")  # now one of the two before is forgotten
    files.facts(str(tmp_path / "a.png"), "image1")
    assert reads[3:] == ["b.png", "a.png"]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_the_header_tells_the_size_that_the_decoder_gives(suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Image.effect_noise((64, 32), 50).convert("RGB").save(file, {"jpg": "JPEG"}.get(suffix, suffix), exif=exif)
    expected = decode_reference(file.getvalue(), "image1").size
    assert expected == ((32, 64) if orientation > 4 else (64, 32))
    file.seek(0)
    assert read_size(file, "image1") == expected
    if suffix in ("png", "jpg"):  # the pixels are not needed
        assert read_size(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]), "image1") == expected
