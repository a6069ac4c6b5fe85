"""The output folder: what is renamed when, what a kill or a full disk leaves, and what counts as done."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_fluxkontext.batch import folder as folder_module
from lib_fluxkontext.batch.folder import PART_AGE_SECONDS, OutputFolder
from lib_fluxkontext.batch.record import read_failed_record, read_record, row_from_values, row_values
from lib_fluxkontext.batch.row import Lora
from lib_fluxkontext.batch.worker import Failed, Made
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.replaced_file import HOST, MACHINE, part_path
from lib_fluxkontext.settings import KontextSettings
from tests.support.batch_rows import a_row
from tests.support.held_files import hold, windows_error

ROW = a_row(
    7,
    images=(Path("/photos/кот.png"),),
    digests=("ab" * 32,),
    settings=KontextSettings.from_mapping({"enabled": True, "cache_threshold": 0.08, "stitch": "row"}),
    checkpoint="flux.safetensors",
    loras=(Lora("style", 0.5),),
)
MADE = Made(Image.new("RGB", (300, 200), "red"), "a cat\nSteps: 4", {"steps": 4, "speed_up": float("nan")}, 1.5, "here")


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    """A prepared output folder."""
    output = OutputFolder(tmp_path / "out")
    output.prepare()
    return output


def test_a_row_survives_as_plain_values() -> None:
    for everything in (True, False):
        assert row_from_values(json.loads(json.dumps(row_values(ROW, everything)))) == ROW


def test_picture_and_record_say_all(output: OutputFolder) -> None:
    output.write(ROW, MADE)
    record = read_record(output.record_path(ROW.key))
    assert record is not None
    assert row_from_values(record) == ROW
    assert record["infotext"] == Image.open(output.picture_path(ROW.key)).info["parameters"] == "a cat\nSteps: 4"
    assert record["report"] == {"steps": 4, "speed_up": None}  # JSON knows no NaN
    assert Image.open(io.BytesIO(base64.b64decode(record["thumbnail"]))).size == (128, 85)
    assert list(output.states()) == [(ROW.key, True)]


def test_a_png_of_the_worker_is_kept_byte_by_byte(output: OutputFolder) -> None:
    metadata = PngInfo()
    metadata.add_text("parameters", "from Forge")
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG", pnginfo=metadata)
    record = output.write(ROW, Made(png.getvalue(), "", {}, 1.0, "server"))
    assert output.picture_path(ROW.key).read_bytes() == png.getvalue()
    assert record["infotext"] == "from Forge"
    with pytest.raises(KontextError, match="server returned no readable picture"):
        output.write(ROW, Made(png.getvalue()[:50], "", {}, 1.0, "server"))


def test_the_picture_is_there_before_the_record(output: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "to_json", full)
    with pytest.raises(OSError, match="No space"):
        output.write(ROW, MADE)
    assert output.picture_path(ROW.key).exists()
    assert not output.is_done(ROW.key)
    assert [path.name for path in output.path.rglob("*.part")] == []


def test_done_replaces_failed(output: OutputFolder) -> None:
    output.write_failure(ROW, Failed("no cat", "image1"), "here")
    failed = read_failed_record(output.failed_path(ROW.key))
    assert failed is not None
    assert (failed["reason"], failed["field"], failed["line"]) == ("no cat", "image1", 8)
    assert list(output.states()) == [(ROW.key, False)]
    output.write(ROW, MADE)
    assert list(output.states()) == [(ROW.key, True)]


def test_only_what_killed_runs_left_is_swept(output: OutputFolder) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    subfolder = output.picture_path(ROW.key).parent
    subfolder.mkdir()
    parts = {
        "killed": subfolder / f".0a1b2c3d.{MACHINE}.{ended.pid}.part",
        "killed, of an earlier version": subfolder / f".a.png.{HOST}.{ended.pid}.part",
        "at work": subfolder / f".0a1b2c3d.{MACHINE}.{os.getppid()}.part",
        "of another machine": subfolder / f".a.json.other.{ended.pid}.part",
        "of another machine, long ago": subfolder / f".b.json.other.{ended.pid}.part",
        "somebody else's": subfolder / "download.part",
    }
    for path in parts.values():
        path.touch()
    old = time.time() - PART_AGE_SECONDS - 5
    os.utime(parts["of another machine, long ago"], (old, old))
    output.prepare()
    gone = {name for name, path in parts.items() if not path.exists()}
    assert gone == {"killed", "killed, of an earlier version", "of another machine, long ago"}


@pytest.mark.parametrize("winerror", [32, None])
def test_a_failure_that_cannot_be_deleted_ends_no_run(
    output: OutputFolder, monkeypatch: pytest.MonkeyPatch, winerror: int | None
) -> None:
    output.write_failure(ROW, Failed("no cat", "image1"), "here")
    hold(monkeypatch, "unlink", ".failed.json", windows_error(winerror))
    output.write(ROW, MADE)
    assert output.is_done(ROW.key)
    assert sorted(output.states()) == [(ROW.key, False), (ROW.key, True)]


def test_what_was_just_written_may_be_held_for_a_moment(output: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = hold(monkeypatch, "replace", ".json", windows_error(), times=3)
    output.write(ROW, MADE)
    assert len(tried) == 4
    assert output.is_done(ROW.key)


def test_a_path_that_is_too_long_is_found_before_the_first_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows opens no path over a limit, and says that there is no such file."""
    output = OutputFolder(tmp_path / "out", durable=False)
    longest = max(len(str(path)) for path in (output.failed_path(ROW.key), part_path(output.failed_path(ROW.key))))
    touch, opened = Path.touch, Path.open

    def limited(limit: int) -> None:
        def check(path: Path) -> None:
            if len(str(path)) > limit:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

        def limited_touch(path: Path) -> None:
            check(path)
            touch(path)

        def limited_open(path: Path, *arguments: Any, **options: Any) -> Any:
            check(path)
            return opened(path, *arguments, **options)

        monkeypatch.setattr(Path, "touch", limited_touch)
        monkeypatch.setattr(Path, "open", limited_open)

    limited(longest)
    output.prepare()
    output.write_failure(ROW, Failed("no cat", "image1"), "here")
    output.write(ROW, MADE)
    limited(longest - 1)
    with pytest.raises(KontextError, match="too long for the files in it; choose a shorter one") as caught:
        output.prepare()
    assert caught.value.field == "output"


def test_damaged_and_later_records_are_none(output: OutputFolder) -> None:
    output.write(ROW, MADE)
    path = output.record_path(ROW.key)
    record = json.loads(path.read_bytes())
    for damaged in (b"", b"{", b"[]", json.dumps(record | {"schema": 99}).encode()):
        path.write_bytes(damaged)
        assert read_record(path) is None
