"""Files that are written beside their place and renamed, so that nobody ever sees half of one."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
"""This machine in the names of temporary files of earlier versions."""

MACHINE = hashlib.sha256(HOST.encode()).hexdigest()[:6]
"""This machine in the names of temporary files: machines share folders, and process ids are a machine's own."""

PART = re.compile(r"\..+\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.part")
"""Names that ``part_path`` gives, and gave in earlier versions."""

HELD = frozenset({5, 32, 33})
"""Windows' errors for a file that another program has open. Scanners, indexers and OneDrive open what was just
written, for milliseconds."""

PAUSES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.9)
"""Seconds between attempts while a file is held; two in all."""


def replace(source: Path, target: Path) -> None:
    """Rename a file, over another one where there is one; a file that is held is tried again for two seconds.

    Raises:
        OSError: it is still held, or as the system has it.
    """
    _again_while_held(lambda: os.replace(source, target))


def unlink(path: Path) -> None:
    """Delete a file, if it is there; a file that is held is tried again for two seconds.

    Raises:
        OSError: as ``replace``.
    """
    with suppress(FileNotFoundError):
        _again_while_held(lambda: os.unlink(path))


def part_path(path: Path) -> Path:
    """Return the path of a temporary file beside another; it says which machine's which process writes it.

    Its name is shorter than a picture's in a batch, so that it fits where that one does.
    """
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return path.with_name(f".{name}.{MACHINE}.{os.getpid()}.part")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file to write, and rename it at the end; after an exception it is deleted."""
    part = part_path(path)
    try:
        yield part
        replace(part, path)
    except BaseException:
        with suppress(OSError):
            unlink(part)
        raise


def is_held(error: OSError) -> bool:
    """Whether a file is open in another program, as far as Windows tells."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) in HELD


def _again_while_held(change: Callable[[], None]) -> None:
    for pause in PAUSES:
        try:
            change()
            return
        except PermissionError as error:
            if not is_held(error):
                raise
        time.sleep(pause)
    change()
