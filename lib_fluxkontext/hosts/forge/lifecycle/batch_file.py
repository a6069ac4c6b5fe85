"""Which file of img2img's *Batch* is being worked on. Forge hands its picture on without the name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType


def batch_file() -> str | None:
    """Return the name of the file that Forge's ``process_batch`` is at, or None outside of a batch.

    It is a variable of that function in Forge and in Neo, and nowhere else.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "process_batch" and frame.f_globals.get("__name__") == "modules.img2img":
            file = frame.f_locals.get("image")
            return Path(file).name if isinstance(file, str) else None
        frame = frame.f_back
    return None
