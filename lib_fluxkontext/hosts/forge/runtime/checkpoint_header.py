"""What a checkpoint's header says, read once for each state of its file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lib_fluxkontext.checkpoints.flux import CheckpointFacts, checkpoint_facts


def read_facts(path: Path) -> CheckpointFacts:
    """Read a header.

    Raises:
        KontextError: as ``checkpoint_facts``.
        OSError: there is no such file.
    """
    return _read_facts(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read_facts(path: Path, _modified: int) -> CheckpointFacts:
    return checkpoint_facts(path)
