"""The output folder of a batch. Its files are the only truth about what is done, so machines can share it.

``pictures/ab/<key>.png``, beside it ``<key>.json`` (``record.Record``), or ``<key>.failed.json`` instead of both. A row
is done when its JSON is there: the picture is renamed into place first.
"""

from __future__ import annotations

import base64
import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import psutil
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_fluxkontext.batch.identity import KEY_DIGITS
from lib_fluxkontext.batch.record import FailedRecord, Record, make_failed_record, make_record, to_json
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Failed, Made
from lib_fluxkontext.errors import KontextError, first_line
from lib_fluxkontext.replaced_file import HOST, MACHINE, PART, part_path, replaced, unlink

THUMBNAIL_SIDE = 128
"""Pixels."""

PART_AGE_SECONDS = 600
"""A temporary file that nobody has written to for so long is left over from a run that was killed. Clocks of machines
that share a folder may differ by minutes."""

_FAILED = ".failed.json"

_LONGEST = len(os.path.join("pictures", "ab", "0" * KEY_DIGITS + _FAILED))
"""Characters of the longest path that is written in the folder."""


class OutputFolder:
    """Paths in the output folder, and what is written there.

    Args:
        path: of the folder; created by ``prepare``.
        durable: wait until files are on the disk before they are renamed, so that they outlive a power failure.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path = path
        self.pictures = path / "pictures"
        self._durable = durable

    def prepare(self) -> None:
        """Create the folder, and delete what killed runs left half-written.

        Raises:
            KontextError: its path is too long for the files in it.
            OSError: it cannot be created, or not be written to.
        """
        self.pictures.mkdir(parents=True, exist_ok=True)
        self._probe()
        for folder in (self.path, *self._subfolders()):
            for entry in os.scandir(folder):
                if entry.name.endswith(".part") and _is_left_over(entry):
                    with suppress(OSError):
                        os.unlink(entry.path)

    def picture_path(self, key: str) -> Path:
        """Path of a row's picture."""
        return self.pictures / key[:2] / f"{key}.png"

    def record_path(self, key: str) -> Path:
        """Path of the JSON that says a row is done."""
        return self.pictures / key[:2] / f"{key}.json"

    def failed_path(self, key: str) -> Path:
        """Path of the JSON that says why a row could not be made."""
        return self.pictures / key[:2] / f"{key}{_FAILED}"

    def is_done(self, key: str) -> bool:
        """Whether a row is done, here or by another machine."""
        return self.record_path(key).exists()

    def states(self) -> Iterator[tuple[str, bool]]:
        """List what is there: each key, and whether it is done (or failed). A key may come twice, as both."""
        for folder in self._subfolders():
            for entry in os.scandir(folder):
                name = entry.name
                if name.endswith(_FAILED):
                    yield name.removesuffix(_FAILED), False
                elif name.endswith(".json"):
                    yield name.removesuffix(".json"), True

    def write(self, row: Row, made: Made) -> Record:
        """Write a finished row: the picture, then its record.

        Raises:
            KontextError: what the worker returned is no picture.
            OSError: the disk is full, or the folder is gone; the row is not done then.
        """
        try:
            image, infotext, save = _picture(made)
            small = thumbnail(image)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's for bytes that are no image, or end too early
            raise KontextError(f"{made.made_by} returned no readable picture: {first_line(error)}") from None
        record = make_record(row, infotext, made.report, made.seconds, made.made_by, small)
        self._write(self.picture_path(row.key), save)
        self._write(self.record_path(row.key), lambda file: file.write(to_json(record)))
        with suppress(OSError):  # it had failed before; a failure that stays counts for nothing beside the record
            unlink(self.failed_path(row.key))
        return record

    def write_failure(self, row: Row, failed: Failed, made_by: str) -> FailedRecord:
        """Write why a row could not be made.

        Raises:
            OSError: as ``write``.
        """
        record = make_failed_record(row, failed.reason, failed.field, made_by)
        self._write(self.failed_path(row.key), lambda file: file.write(to_json(record)))
        return record

    def _probe(self) -> None:
        """Write a file whose path is as long as any in the folder: Windows allows 259 characters."""
        probe = part_path(self.path / "probe")  # not in ``pictures``, whose time tells when a row last came
        probe = probe.with_name(probe.name.rjust(_LONGEST, "."))
        try:
            probe.touch()
        except OSError as error:
            # Of a path that is too long, Windows says that there is no such file. The folder is there by now.
            if isinstance(error, FileNotFoundError) or error.errno == errno.ENAMETOOLONG:
                reason = f"a path of {len(str(self.path.absolute()))} characters is too long for the files in it"
                raise KontextError(f"{reason}; choose a shorter one", "output") from None
            raise
        with suppress(OSError):  # the next start deletes it
            unlink(probe)

    def _subfolders(self) -> list[Path]:
        if not self.pictures.is_dir():
            return []
        return [Path(entry.path) for entry in os.scandir(self.pictures) if entry.is_dir()]

    def _write(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        with replaced(path) as part:
            try:
                file = part.open("wb")
            except FileNotFoundError:  # the first of its subfolder
                part.parent.mkdir(parents=True, exist_ok=True)
                file = part.open("wb")
            with file:
                write(file)
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())


def thumbnail(image: Image.Image) -> str:
    """Shrink a picture to at most ``THUMBNAIL_SIDE`` and encode it as JPEG, base64."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode()


def _picture(made: Made) -> tuple[Image.Image, str, Callable[[BinaryIO], object]]:
    """Return the image, its infotext, and what writes the PNG file."""
    picture = made.picture
    if isinstance(picture, bytes):
        image = Image.open(io.BytesIO(picture))
        return image, made.infotext or str(image.info.get("parameters", "")), lambda file: file.write(picture)
    metadata = PngInfo()
    if made.infotext:
        metadata.add_text("parameters", made.infotext)
    return picture, made.infotext, lambda file: picture.save(file, "PNG", pnginfo=metadata)


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    match = PART.fullmatch(entry.name)
    if match is None:
        return False
    process = int(match["pid"])
    if match["host"] in (HOST, MACHINE) and (process == os.getpid() or not psutil.pid_exists(process)):
        return True
    with suppress(OSError):
        return time.time() - entry.stat().st_mtime > PART_AGE_SECONDS
    return False
