"""Conversions beside other programs: an output in use, a source that is gone for a moment, locks of any drive."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from lib_fluxkontext.commands.main import main
from lib_fluxkontext.convert import lock, source, stream
from lib_fluxkontext.convert.containers import gguf_header
from lib_fluxkontext.convert.formats import choose
from lib_fluxkontext.convert.lock import locked
from lib_fluxkontext.convert.run import Conversion, ConvertRequest
from lib_fluxkontext.convert.source import StoredTensor, open_source
from lib_fluxkontext.errors import KontextError
from tests.support.convert_files import SMALL_MODEL, convert, save_shards, small_weights
from tests.support.held_files import hold, windows_error


@pytest.fixture(autouse=True)
def small_files_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is larger than 64 MB is worth going on with; here all is."""
    monkeypatch.setattr(stream, "SYNC_BYTES", 0)


def names(folder: Path) -> set[str]:
    """Return the names of a folder's files."""
    return {path.name for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("error", [windows_error(5), windows_error(32), windows_error(1224, errno.EINVAL)])
def test_an_output_that_forge_has_open_costs_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    arguments = ["convert", str(SMALL_MODEL), str(out), "--format", "Q4_0", "--overwrite"]
    with monkeypatch.context() as forge:
        hold(forge, "replace", "out.gguf", error)
        assert main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"error: {out} is in use by another program; close it and start the same command again: "
        "what is converted is kept"
    )
    assert names(tmp_path) == {"out.gguf", "out.gguf.part", "out.gguf.part.json"}
    again = Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0", overwrite=True))
    assert again.kept > 0.9 * again.bytes
    again.run()
    assert out.read_bytes() == convert(SMALL_MODEL, tmp_path / "wanted.gguf", "Q4_0").read_bytes()
    assert names(tmp_path) == {"out.gguf", "wanted.gguf"}


def test_an_output_that_is_write_protected_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has the same error for it."""
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    hold(monkeypatch, "replace", "out.gguf", windows_error(5))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(KontextError, match="is write-protected; make it writable and start the same command again"):
        convert(SMALL_MODEL, out, "Q4_0", overwrite=True)
    out.chmod(stat.S_IREAD | stat.S_IWRITE)


def test_other_errors_of_the_last_rename_are_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(monkeypatch, "replace", "out.gguf", OSError(errno.EROFS, "Read-only file system"))
    with pytest.raises(OSError, match="Read-only file system"):
        convert(SMALL_MODEL, tmp_path / "out.gguf", "Q4_0")


class _Broken:
    """A file of a drive that cannot read for a moment."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> _Broken:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, position: int) -> None:
        self._file.seek(position)

    def readinto(self, data: object) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("what", ["opening", "reading"])
def test_a_source_that_cannot_be_read_for_a_moment_costs_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    out = tmp_path / "out.gguf"
    wanted = convert(SMALL_MODEL, tmp_path / "wanted.gguf", "Q4_0").read_bytes()
    conversion, opened, written = Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0")), Path.open, []

    def broken(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.endswith(".safetensors") and sum(written) > 0.6 * len(wanted):
            if what == "opening":
                raise FileNotFoundError(errno.ENOENT, "The network path was not found")
            return _Broken(opened(path, *arguments, **options))
        return opened(path, *arguments, **options)

    with monkeypatch.context() as share:
        share.setattr(Path, "open", broken)
        with pytest.raises(OSError, match="start again to go on"):
            conversion.run(written.append)
    assert names(tmp_path) == {"wanted.gguf", "out.gguf.part", "out.gguf.part.json"}
    again = Conversion(ConvertRequest(SMALL_MODEL, out, "Q4_0"))
    assert again.kept > 0.3 * len(wanted)
    again.run()
    assert out.read_bytes() == wanted


def test_a_source_that_is_out_of_reach_at_the_end_costs_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "source", tmp_path / "out.gguf"
    folder.mkdir()
    save_shards(folder, small_weights(), 2)
    conversion, asked = Conversion(ConvertRequest(folder, out, "Q4_0")), Path.stat

    def gone(path: Path, **options: Any) -> os.stat_result:
        if path.parent == folder:
            raise FileNotFoundError(errno.ENOENT, "The network path was not found")
        return asked(path, **options)

    def lose(count: int) -> None:
        monkeypatch.setattr(Path, "stat", gone)

    with pytest.raises(OSError, match="network path was not found; start again to go on"):
        conversion.run(lose)
    monkeypatch.setattr(Path, "stat", asked)
    assert names(tmp_path) == {"out.gguf.part", "out.gguf.part.json"}
    assert Conversion(ConvertRequest(folder, out, "Q4_0")).kept > 0.9 * conversion.bytes


def test_parts_of_a_tensor_are_read_from_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(100)))
    stored = StoredTensor(path, 10, "U8", (20,), 20)
    assert stored.read().tolist() == list(range(10, 30))
    assert stored.read(5, 8).tolist() == [15, 16, 17]
    assert stored.read(20, 20).size == 0
    assert source.unreachable(path, OSError()).args == (f"{path}: cannot be read; start again to go on",)


def failing_lock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def take(file: BinaryIO) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "_take", take)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN, errno.EDEADLK])
def test_a_lock_of_another_process_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing_lock(monkeypatch, number)
    with pytest.raises(KontextError, match="somebody writes it"), locked(tmp_path / "note", "somebody writes it"):
        pass


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EBADF])
def test_a_drive_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing_lock(monkeypatch, number)
    with locked(tmp_path / "note", "somebody writes it") as delete:
        delete()
    assert not (tmp_path / "note").exists()


def test_a_drive_that_numbers_files_anew_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def different(one: object, other: object) -> bool:
        asked.append(1)
        assert len(asked) < 1000, "it never ends"
        return False

    monkeypatch.setattr(os.path, "samestat", different)
    with locked(tmp_path / "note", "somebody writes it"):
        assert len(asked) == lock._ATTEMPTS


def test_a_temporary_file_that_a_scanner_holds_ends_no_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = hold(monkeypatch, "unlink", "header", windows_error())
    assert gguf_header([], {}, choose("Q8_0", Path("a.gguf"))).startswith(b"GGUF")
    assert held
    assert open_source(SMALL_MODEL).tensors
