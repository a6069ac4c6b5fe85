"""One process at a time: a lock that ends with the process, however that ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.replaced_file import unlink

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""Errors for a lock that another process has. Any other says that the drive has no locks."""

_ATTEMPTS = 20
"""At a lock whose file was deleted by its last owner meanwhile."""

if sys.platform == "win32":
    import msvcrt

    _FAR = 2**30
    """Where the byte lies that is locked; Windows lets nobody else read what is."""

    def _take(file: BinaryIO) -> None:
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[Callable[[], None]]:
    """Lock a file, which is made where it is missing, and yield a function that deletes it.

    Args:
        path: of the file.
        busy: what to say where another process has the lock.

    Raises:
        KontextError: another process has it.
    """
    deleted = False

    def delete() -> None:
        nonlocal deleted
        deleted = True
        if os.name != "nt":
            with suppress(OSError):
                unlink(path)

    file = _open_locked(path, busy)
    try:
        yield delete
    finally:
        file.close()
        # Windows deletes no file that is open; anywhere else it might be another process's by now.
        if deleted and os.name == "nt":
            with suppress(OSError):
                unlink(path)


def _open_locked(path: Path, busy: str) -> BinaryIO:
    for attempt in range(1, _ATTEMPTS + 1):
        file = path.open("ab")
        try:
            if not _lock(file):
                raise KontextError(busy, "out")
            with suppress(FileNotFoundError):  # its last owner has deleted it meanwhile
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
                if same or attempt == _ATTEMPTS:  # some network drives number a file anew whenever they are asked
                    return file
        except BaseException:
            file.close()
            raise
        file.close()
    raise KontextError(busy, "out")


def _lock(file: BinaryIO) -> bool:
    """Return whether this process may go on; it may where the drive has no locks."""
    try:
        _take(file)
    except OSError as error:
        return error.errno not in _BUSY
    return True
