"""What the command line shows before and while it samples."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_fluxkontext.job import Job

_BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_inv_fmt}]"
_PROMPT_LENGTH = 100


def announcement(job: Job, references: Sequence[Path], device: str) -> str:
    """Say in one line what is about to be made."""
    source = f" from {' and '.join(path.name for path in references)}" if references else ""
    prompt = textwrap.shorten(job.prompt, _PROMPT_LENGTH, placeholder="…")
    return f"Making a {job.width}×{job.height} picture{source} on {device}" + (f": {prompt}" if prompt else "")


def progress_bar() -> dict[str, Any]:
    """Return tqdm's arguments for the pipeline's bar; without a terminal there is none."""
    terminal = shutil.get_terminal_size()  # 80×24 where the size is not known, and tqdm would show nothing
    return {
        "desc": "Sampling",
        "bar_format": _BAR_FORMAT,
        "unit": "step",
        "smoothing": 0,  # seconds a step on average: those of reused and of computed steps are far apart
        "ncols": min(terminal.columns, 80) - 1,
        "nrows": terminal.lines,
        "disable": None,
    }
