"""Files that are written beside their place and renamed, so that nobody ever sees half of one."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
"""This machine in the names of temporary files: machines share folders, and process ids are a machine's own."""

PART = re.compile(r"\..+\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.part")
"""Names that ``part_path`` gives."""


def part_path(path: Path) -> Path:
    """Return the path of a temporary file beside another; it says which machine's which process writes it."""
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file to write, and rename it at the end; after an exception it is deleted."""
    part = part_path(path)
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
