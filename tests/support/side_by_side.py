"""How tests are dealt out to processes: what shares a server stays together, the rest goes by file."""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

from tests.support.forge_install import NEO


class ByServer(LoadScopeScheduling):
    """Gives each process a whole group of Forge tests, so that each server starts once and two run at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Return what a test shares with others: a host's page, its API, or their file."""
    path, _, case = nodeid.partition("::")
    parents = PurePosixPath(path).parent.parts
    if "forge" not in parents:
        return path
    parameters = case.partition("[")[2]
    in_neo = NEO.name in parameters.rstrip("]").split("-")
    return f"{'/'.join(parents)} {NEO.name if in_neo else 'forge'}"
