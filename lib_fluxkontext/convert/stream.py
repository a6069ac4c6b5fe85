"""Write a large file from beginning to end, so that it can be interrupted at any moment and gone on with.

It is written as ``OUT.part``, and renamed when it is whole. ``OUT.part.json`` says what it is made from; if that is
still the same, the part's length tells which of its pieces are there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lib_fluxkontext.errors import KontextError

SYNC_BYTES = 64 * 2**20
"""Written between two calls of fsync. After a power failure the file's last bytes may be zeros, so going on drops
everything that may have been written since the last call."""

Report = Callable[[int], object]
"""Is told how many bytes were written."""


class Piece(Protocol):
    """A part of the file that is written anew unless all of it is there."""

    @property
    def bytes(self) -> int:
        """Of all its chunks."""

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Return its content."""


def part_of(out: Path) -> Path:
    """Return where a file lies until it is whole."""
    return out.with_name(f"{out.name}.part")


def note_of(out: Path) -> Path:
    """Return where it is written down what a part is made from."""
    return out.with_name(f"{out.name}.part.json")


class StreamedFile:
    """A file to write.

    Args:
        out: where it shall be.
        header: its first bytes.
        pieces: the rest, in order.
        identity: what it is made from, as JSON: with anything else, it is begun anew.
    """

    def __init__(self, out: Path, header: bytes, pieces: Sequence[Piece], identity: dict[str, Any]) -> None:
        self._out = out
        self._header = header
        self._pieces = pieces
        self._note = json.dumps(identity, sort_keys=True)
        self.bytes = len(header) + sum(piece.bytes for piece in pieces)

    def written(self) -> tuple[int, int]:
        """Return how many pieces of an earlier run can be kept, and at which byte they end."""
        part = part_of(self._out)
        try:
            if note_of(self._out).read_text(encoding="utf-8") != self._note:
                return 0, 0
            with part.open("rb") as file:
                if file.read(len(self._header)) != self._header:
                    return 0, 0
            length = part.stat().st_size
        except (OSError, ValueError):
            return 0, 0
        ends = [len(self._header)]
        for piece in self._pieces:
            ends.append(ends[-1] + piece.bytes)
        whole = sum(end <= length for end in ends) - 1
        safe = max(0, whole - 1)
        while safe and ends[whole] - ends[safe] < SYNC_BYTES:
            safe -= 1
        return (safe, ends[safe]) if safe else (0, 0)

    def check_space(self) -> None:
        """Check that the disk has room for it.

        Raises:
            KontextError: it has not.
        """
        part = part_of(self._out)
        free = shutil.disk_usage(self._out.parent).free + (part.stat().st_size if part.exists() else 0)
        if free < self.bytes:
            text = f"{self._out.parent} has {free / 1e9:.2f} GB free; {self.bytes / 1e9:.2f} GB are needed"
            raise KontextError(text, "out")

    def write(self, report: Report) -> None:
        """Write it, or go on with it, and put it in its place.

        Raises:
            KontextError: from a piece; nothing is left then.
            OSError: as the disk has it; what is whole stays, to go on with.
        """
        try:
            self._write(report)
        except KontextError:
            self.discard()
            raise
        part_of(self._out).replace(self._out)
        note_of(self._out).unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete what was written."""
        for path in (part_of(self._out), note_of(self._out)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _write(self, report: Report) -> None:
        done, position = self.written()
        part, note = part_of(self._out), note_of(self._out)
        if not done:
            part.unlink(missing_ok=True)  # first, or it would seem to be made from what the note says
            note.write_text(self._note, encoding="utf-8")
        with part.open("r+b" if done else "wb") as file:
            file.truncate(position)
            file.seek(position)
            if not done:
                file.write(self._header)
                position = len(self._header)
            report(position)
            unsynced = 0
            for piece in self._pieces[done:]:
                _write_piece(file, piece, report)
                unsynced += piece.bytes
                if unsynced >= SYNC_BYTES:
                    _sync(file)
                    unsynced = 0
            _sync(file)
        if note.read_text(encoding="utf-8") != self._note or part.stat().st_size != self.bytes:
            raise RuntimeError(f"{part.name} was written by another process, too; start again")


def _write_piece(file: Any, piece: Piece, report: Report) -> None:
    count = 0
    for chunk in piece.chunks():
        file.write(chunk.data)
        count += chunk.nbytes
        report(chunk.nbytes)
    if count != piece.bytes:
        raise RuntimeError(f"a piece has {count} bytes in place of {piece.bytes}")


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def same_file(path: Path, others: Iterable[Path]) -> bool:
    """Whether a path leads to one of other files."""
    return path.exists() and any(other.exists() and path.samefile(other) for other in others)
