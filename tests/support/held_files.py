"""Files that another program has open, as Windows has it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lib_fluxkontext import replaced_file


def windows_error(winerror: int | None = 32, number: int = errno.EACCES) -> OSError:
    """Return the error that Windows has for a file that is held (5, 32, 33), or mapped into memory (1224, EINVAL)."""
    error = OSError(number, "The process cannot access the file")  # a PermissionError for EACCES
    if winerror is not None:
        error.winerror = winerror  # type: ignore[attr-defined]
    return error


def hold(
    monkeypatch: pytest.MonkeyPatch, call: str, ending: str, error: OSError, times: int | None = None
) -> list[str]:
    """Let ``os.replace`` or ``os.unlink`` fail on files whose path has an ending; return what was tried on them.

    Args:
        monkeypatch: of the test.
        call: ``"replace"`` or ``"unlink"``.
        ending: of the path to write, or to delete.
        error: to raise.
        times: so often, and then no more; None for ever.
    """
    original, tried = getattr(os, call), []

    def refuse(*paths: Any, **options: Any) -> None:
        path = os.fspath(paths[-1])
        if path.endswith(ending):
            tried.append(Path(path).name)
            if times is None or len(tried) <= times:
                raise error
        original(*paths, **options)

    monkeypatch.setattr(os, call, refuse)
    monkeypatch.setattr(replaced_file, "PAUSES", (0.0,) * len(replaced_file.PAUSES))
    return tried
