"""Interrupted at any moment, a conversion leaves no half file, and started again it gives the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lib_fluxkontext.convert import stream
from lib_fluxkontext.convert.run import Conversion, ConvertRequest
from lib_fluxkontext.errors import KontextError
from tests.support.convert_files import SMALL_MODEL, convert, save_shards, small_weights
from tests.support.forge_install import REPO_ROOT

MOMENTS = [0.0, 0.01, 0.3, 0.7, 0.999]
"""Shares of the output that are written when it is interrupted."""


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The small model in Q4_0, made in one run."""
    return convert(SMALL_MODEL, tmp_path_factory.mktemp("wanted") / "out.gguf", "Q4_0").read_bytes()


@pytest.fixture(autouse=True)
def small_files_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is larger than 64 MB is worth going on with; here all is."""
    monkeypatch.setattr(stream, "SYNC_BYTES", 0)


class Stopper:
    """A report that raises when so many bytes were written."""

    def __init__(self, after: float, error: BaseException) -> None:
        self.written = 0
        self._after = after
        self._error = error

    def __call__(self, count: int) -> None:
        self.written += count
        if self.written >= self._after:
            raise self._error


def interrupted(source: Path, out: Path, after: float, kind: str = "Q4_0") -> None:
    """Convert until so many bytes are written."""
    with pytest.raises(KeyboardInterrupt):
        Conversion(ConvertRequest(source, out, kind)).run(Stopper(after, KeyboardInterrupt()))


def names(folder: Path) -> set[str]:
    """Return the names of a folder's files."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_and_started_again_it_gives_the_same_bytes(tmp_path: Path, wanted: bytes, moment: float) -> None:
    out = tmp_path / "out.gguf"
    interrupted(SMALL_MODEL, out, moment * len(wanted))
    assert names(tmp_path) == {"out.gguf.part", "out.gguf.part.json"}
    again = Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0"))
    kept = again.kept
    reports: list[int] = []
    assert kept <= moment * len(wanted) + 200_000
    assert (kept > 0.1 * len(wanted)) == (moment >= 0.3)  # before that there is hardly more than the header
    again.run(reports.append)
    assert out.read_bytes() == wanted
    assert sum(reports) == len(wanted)
    assert not kept or reports[0] == kept, "what was there was not kept"
    assert names(tmp_path) == {"out.gguf"}


def test_interrupted_many_times_it_still_arrives(tmp_path: Path, wanted: bytes) -> None:
    out = tmp_path / "out.gguf"
    for moment in (0.3, 0.5, 0.7, 0.9):
        interrupted(SMALL_MODEL, out, moment * len(wanted))
    convert(SMALL_MODEL, out, "Q4_0")
    assert out.read_bytes() == wanted


KILLED = """
import os, sys
from pathlib import Path
from lib_fluxkontext.convert import stream
from lib_fluxkontext.convert.run import Conversion, ConvertRequest
stream.SYNC_BYTES = 0
written = 0
def report(count):
    global written
    written += count
    if written >= int(sys.argv[3]):
        os.kill(os.getpid(), 9) if os.name == "posix" else os._exit(9)
Conversion(ConvertRequest(Path(sys.argv[1]), Path(sys.argv[2]), "Q4_0")).run(report)
"""


@pytest.mark.parametrize("moment", [0.01, 0.6])
def test_killed_and_started_again_it_gives_the_same_bytes(tmp_path: Path, wanted: bytes, moment: float) -> None:
    out = tmp_path / "out.gguf"
    command = [sys.executable, "-c", KILLED, str(SMALL_MODEL), str(out), str(int(moment * len(wanted)))]
    killed = subprocess.run(command, cwd=REPO_ROOT, check=False)
    assert killed.returncode in (-9, 9)
    assert not out.exists()
    convert(SMALL_MODEL, out, "Q4_0")
    assert out.read_bytes() == wanted
    assert names(tmp_path) == {"out.gguf"}


def test_what_may_not_have_reached_the_disk_is_written_again(
    tmp_path: Path, wanted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure a file has its length, and zeros at its end."""
    monkeypatch.setattr(stream, "SYNC_BYTES", 300_000)
    out, part = tmp_path / "out.gguf", tmp_path / "out.gguf.part"
    interrupted(SMALL_MODEL, out, 0.7 * len(wanted))
    data = part.read_bytes()
    part.write_bytes(data[:-300_000] + bytes(300_000))
    assert 0 < Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0")).kept <= len(data) - 300_000
    convert(SMALL_MODEL, out, "Q4_0")
    assert out.read_bytes() == wanted


@pytest.mark.parametrize("change", ["source", "format", "header", "note"])
def test_what_was_made_from_something_else_is_begun_anew(tmp_path: Path, wanted: bytes, change: str) -> None:
    out, kind = tmp_path / "out.gguf", "Q4_0"
    folder = tmp_path / "source"
    folder.mkdir()
    index = save_shards(folder, small_weights(), 2)
    interrupted(folder, out, 0.7 * len(wanted), "Q5_0" if change == "format" else kind)
    match change:
        case "source":
            shard = sorted(folder.glob("*.safetensors"))[1]
            os.utime(shard, ns=(1, 1))
        case "header":
            part = tmp_path / "out.gguf.part"
            part.write_bytes(b"GGUF" + bytes(4) + part.read_bytes()[8:])
        case "note":
            (tmp_path / "out.gguf.part.json").write_text("{}")
    again = Conversion(ConvertRequest(index.parent, out, kind))
    assert again.kept == 0
    again.run()
    assert out.read_bytes() == wanted


def test_a_full_disk_leaves_no_output_and_what_is_whole_can_be_gone_on_with(
    tmp_path: Path, wanted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, full = tmp_path / "out.gguf", OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0")).run(Stopper(0.6 * len(wanted), full))
    assert names(tmp_path) == {"out.gguf.part", "out.gguf.part.json"}
    convert(SMALL_MODEL, out, "Q4_0")
    assert out.read_bytes() == wanted


def test_a_disk_without_room_is_found_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(KontextError, match=r"0\.00 GB free") as caught:
        convert(SMALL_MODEL, tmp_path / "out.gguf", "Q4_0")
    assert caught.value.field == "out"
    assert names(tmp_path) == set()


def test_a_tensor_that_cannot_be_converted_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(KontextError, match="no"):
        Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0")).run(Stopper(500_000, KontextError("no", "in")))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_a_second_process_does_not_write_into_what_a_first_one_writes(tmp_path: Path, wanted: bytes, kind: str) -> None:
    out = tmp_path / "out.gguf"
    refused: list[KontextError] = []

    def another(count: int) -> None:
        if not refused:
            with pytest.raises(KontextError, match=r"another process is writing .*out\.gguf\.part") as caught:
                Conversion(ConvertRequest(SMALL_MODEL, out, kind)).run()
            refused.append(caught.value)

    Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0")).run(another)
    assert [error.field for error in refused] == ["out"]
    assert out.read_bytes() == wanted
    assert names(tmp_path) == {"out.gguf"}


def test_a_source_that_is_replaced_while_it_is_read_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    save_shards(folder, small_weights(), 2)

    def replace(count: int) -> None:
        os.utime(sorted(folder.glob("*.safetensors"))[0], ns=(1, 1))

    with pytest.raises(KontextError, match="has changed while it was read") as caught:
        Conversion(ConvertRequest(folder, tmp_path / "out.gguf", "Q4_0")).run(replace)
    assert caught.value.field == "in"
    assert names(tmp_path) == {"source"}


@pytest.mark.parametrize("name", ["out.gguf.part", "out.gguf.part.json"])
def test_a_source_with_the_name_of_the_unfinished_file_is_not_deleted(tmp_path: Path, name: str) -> None:
    index = save_shards(tmp_path, small_weights(), 1)
    source = (index if name.endswith("json") else next(tmp_path.glob("*.safetensors"))).rename(tmp_path / name)
    before = source.read_bytes()
    with pytest.raises(KontextError, match=r"is read, so it cannot be written"):
        convert(source, tmp_path / "out.gguf", "Q4_0")
    assert source.read_bytes() == before


def test_an_unfinished_file_of_something_else_is_not_deleted(tmp_path: Path) -> None:
    part = tmp_path / "out.gguf.part"
    part.write_bytes(b"a browser's download")
    with pytest.raises(KontextError, match=r"out\.gguf\.part is in the way") as caught:
        convert(SMALL_MODEL, tmp_path / "out.gguf", "Q4_0")
    assert caught.value.field == "out"
    assert part.read_bytes() == b"a browser's download"


def test_two_at_once_do_not_pass_for_one(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"

    def another(count: int) -> None:
        (tmp_path / "out.gguf.part.json").write_text('{"format": "Q5_0"}')

    with pytest.raises(RuntimeError, match="another process"):
        Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0")).run(another)
    assert not out.exists()


def test_an_output_that_exists_is_replaced_only_on_request_and_only_at_the_end(tmp_path: Path, wanted: bytes) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    with pytest.raises(KontextError, match="--overwrite"):
        convert(SMALL_MODEL, out, "Q4_0")
    request = ConvertRequest(SMALL_MODEL, out, "Q4_0", overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        Conversion(request).run(Stopper(1_000_000, KeyboardInterrupt()))
    assert out.read_bytes() == b"old"
    Conversion(request).run()
    assert out.read_bytes() == wanted


def test_an_output_that_somebody_else_has_made_meanwhile_is_not_replaced(tmp_path: Path, wanted: bytes) -> None:
    out = tmp_path / "out.gguf"

    def appear(count: int) -> None:
        out.write_bytes(b"somebody's")

    with pytest.raises(FileExistsError, match="exists by now; start again with --overwrite"):
        Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0")).run(appear)
    assert out.read_bytes() == b"somebody's"
    again = Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0", overwrite=True))
    assert again.kept > 0.5 * len(wanted)
    again.run()
    assert out.read_bytes() == wanted


def test_a_source_is_never_written_over(tmp_path: Path) -> None:
    source = convert(SMALL_MODEL, tmp_path / "a.gguf", "fp16")
    before = source.read_bytes()
    with pytest.raises(KontextError, match="is read, so it cannot be written"):
        convert(source, tmp_path / "." / "a.gguf", "Q8_0", overwrite=True)
    assert source.read_bytes() == before
