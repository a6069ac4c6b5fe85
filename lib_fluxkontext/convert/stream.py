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

from lib_fluxkontext.convert.lock import locked
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.replaced_file import is_held, replace, unlink

SYNC_BYTES = 64 * 2**20
"""Written between two calls of fsync. After a power failure the file's last bytes may be zeros, so going on drops
everything that may have been written since the last call."""

MAPPED = 1224
"""Windows' error for a file that a program has mapped into its memory, as Forge does with a checkpoint."""

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
        identity: returns what it is made from, for JSON. With anything else it is begun anew, and it must still be
            the same when all is written.
        overwrite: whether ``out`` may be there at the end.
    """

    def __init__(
        self,
        out: Path,
        header: bytes,
        pieces: Sequence[Piece],
        identity: Callable[[], dict[str, Any]],
        *,
        overwrite: bool = False,
    ) -> None:
        self._out = out
        self._header = header
        self._pieces = pieces
        self._identity = identity
        self._overwrite = overwrite
        self._note = self._identify()
        self.bytes = len(header) + sum(piece.bytes for piece in pieces)

    def _identify(self) -> str:
        return json.dumps(self._identity(), sort_keys=True)

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
            KontextError: from a piece, or what it is made from has changed meanwhile: nothing is left then. Or
                another process writes it; or its place is taken by a file that is in use: it stays, to go on with.
            OSError: as the disk has it, or a file has taken its place; what is whole stays likewise.
        """
        part = part_of(self._out)
        # Two would cut off each other's bytes, and the first to end would put a file with holes in its place.
        with locked(note_of(self._out), f"another process is writing {part}") as delete_note:
            try:
                self._write(report)
            except KontextError:
                with suppress(OSError):
                    unlink(part)
                delete_note()
                raise
            if self._out.exists() and not self._overwrite:
                raise FileExistsError(f"{self._out} exists by now; start again with --overwrite to replace it")
            try:
                replace(part, self._out)
            except OSError as error:
                raise self._not_replaced(error) from None
            delete_note()

    def _not_replaced(self, error: OSError) -> Exception:
        if not is_held(error) and getattr(error, "winerror", None) != MAPPED:
            return error
        if not os.access(self._out, os.W_OK):  # Windows has one error for both
            what = f"{self._out} is write-protected; make it writable"
        else:
            what = f"{self._out} is in use by another program; close it"
        return KontextError(f"{what} and start the same command again: what is converted is kept", "out")

    def _write(self, report: Report) -> None:
        done, position = self.written()
        part, note = part_of(self._out), note_of(self._out)
        if not done:
            unlink(part)  # first, or it would seem to be made from what the note says
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
        if self._identify() != self._note:
            raise KontextError("the source or a LoRA has changed while it was read; start again", "in")


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
