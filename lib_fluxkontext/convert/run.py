"""Convert a checkpoint: check everything that can be known beforehand, then write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_fluxkontext import __version__
from lib_fluxkontext.convert.containers import alignment_of, header_of
from lib_fluxkontext.convert.formats import Format, choose
from lib_fluxkontext.convert.lora import Lora, LoraFile
from lib_fluxkontext.convert.plan import Item, make_plan
from lib_fluxkontext.convert.source import Source, open_source, unreachable
from lib_fluxkontext.convert.stream import Report, StreamedFile, note_of, part_of, same_file
from lib_fluxkontext.errors import KontextError


@dataclass(frozen=True)
class ConvertRequest:
    """What to convert.

    Attributes:
        source: a file or a folder; see ``open_source``.
        out: the file to make.
        format: a key of ``FORMATS``, or another name of one.
        loras: to merge.
        overwrite: whether ``out`` may be there.
    """

    source: Path
    out: Path
    format: str
    loras: tuple[LoraFile, ...] = ()
    overwrite: bool = False


@dataclass(frozen=True)
class Converted:
    """What came of it.

    Attributes:
        out: the file.
        source_bytes: of all of the source.
        bytes: of the file.
        seconds: that this run took.
    """

    out: Path
    source_bytes: int
    bytes: int
    seconds: float


class _ItemPiece:
    """An item with the bytes that follow each of its tensors up to the next."""

    def __init__(self, item: Item, alignment: int) -> None:
        self._item = item
        size = sum(entry.bytes for entry in item.entries)
        self._padding = -size % alignment
        self.bytes = size + self._padding

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        yield from self._item.chunks()
        if self._padding:
            yield np.zeros(self._padding, np.uint8)


class Conversion:
    """A conversion whose request is right: all headers are read, and the output's is made.

    Args:
        request: what to convert.
        loras: the request's, read.

    Attributes:
        plan: of the output.
        is_gguf: whether the output is a GGUF file.

    Raises:
        KontextError: whatever is wrong with the request or with the source.
    """

    def __init__(self, request: ConvertRequest, loras: Sequence[Lora] = ()) -> None:
        self._request = request
        target = choose(request.format, request.out)
        self.is_gguf = target.container == "gguf"
        if request.out.is_dir() or not request.out.parent.is_dir():
            raise KontextError(f"not a file in a folder that exists: {request.out}", "out")
        self._source = open_source(request.source)
        read = [*self._source.files, *(lora.path for lora in request.loras)]
        for path in (request.out, part_of(request.out), note_of(request.out)):
            if same_file(path, read):
                raise KontextError(f"{path} is read, so it cannot be written", "out")
        if part_of(request.out).exists() and not note_of(request.out).exists():  # a browser's download, for instance
            raise KontextError(f"{part_of(request.out)} is in the way, and not of this command; move it away", "out")
        if request.out.exists() and not request.overwrite:
            raise KontextError(f"{request.out} exists; --overwrite replaces it", "out")
        self.plan = make_plan(self._source, target, loras)
        for lora in loras:
            lora.check(self.plan.shapes)
        entries = [entry for item in self.plan.items for entry in item.entries]
        header = header_of(self._source, entries, target)
        alignment = alignment_of(target)
        pieces = [_ItemPiece(item, alignment) for item in self.plan.items]
        self._file = StreamedFile(
            request.out,
            header,
            pieces,
            lambda: _identity(self._source, target, request),
            overwrite=request.overwrite,
        )
        self._file.check_space()

    @property
    def bytes(self) -> int:
        """Of the output."""
        return self._file.bytes

    @property
    def kept(self) -> int:
        """Bytes of an earlier run that was interrupted."""
        return self._file.written()[1]

    def run(self, report: Report = lambda count: None) -> Converted:
        """Write the output.

        Raises:
            KontextError: a tensor that cannot be converted; nothing is left.
            OSError: as the disks have it; starting again goes on.
        """
        start = time.monotonic()
        source_bytes = self._source.bytes
        self._file.write(report)
        return Converted(self._request.out, source_bytes, self.bytes, time.monotonic() - start)


def _identity(source: Source, target: Format, request: ConvertRequest) -> dict[str, Any]:
    """Return what the output's bytes depend on.

    Raises:
        OSError: a file cannot be reached now, which does not mean that it has changed.
    """

    def stamp(path: Path) -> list[str | int]:
        try:
            stat = path.stat()
        except OSError as error:
            raise unreachable(path, error) from None
        return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]

    return {
        "version": __version__,
        "format": target.name,
        "source": [stamp(path) for path in source.files],
        "loras": [[*stamp(lora.path), lora.weight] for lora in request.loras],
    }
