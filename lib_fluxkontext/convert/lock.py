"""One process at a time: a lock that ends with the process, however that ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lib_fluxkontext.errors import KontextError

if sys.platform == "win32":
    import msvcrt

    _FAR = 2**30
    """Where the byte lies that is locked; Windows lets nobody else read what is."""

    def _lock(file: BinaryIO) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
        return True


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
        with suppress(OSError):
            path.unlink(missing_ok=True)

    file = _open_locked(path, busy)
    try:
        yield delete
    finally:
        file.close()
        # Windows deletes no file that is open; anywhere else it might be another process's by now.
        if deleted and os.name == "nt":
            delete()


def _open_locked(path: Path, busy: str) -> BinaryIO:
    while True:
        file = path.open("ab")
        try:
            if not _lock(file):
                raise KontextError(busy, "out")
            with suppress(FileNotFoundError):  # its last owner has deleted it meanwhile
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()
