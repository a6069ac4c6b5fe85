"""What a server holds: objects, open handles, threads. A leak is what grows from one generation to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil

from tests.support.forge_server import ForgeServer
from tests.support.waiting import wait_until


def counted(server: ForgeServer, collect: bool = True) -> dict[str, Any]:
    """Count what is alive inside the server."""
    status, reply = server.get(f"/small-flux/counts?collect={collect}")
    assert status == 200
    return reply


def handles(process: psutil.Process) -> int:
    """Count open files, sockets and pipes."""
    return process.num_handles() if psutil.WINDOWS else process.num_fds()


def threads(server: ForgeServer) -> int:
    """Count threads, less those that wait in a pool: these are as many as requests ever came at once."""
    status, reply = server.get("/small-flux/threads")
    assert status == 200
    return reply


def assert_falls_to(count: Callable[[], int], most: int, what: str) -> None:
    """Wait until a count is no more than ``most``.

    A connection closes a moment after its answer; one that a browser opened in advance and never used, after a minute.
    """
    wait_until(lambda: count() <= most, 90, lambda: f"{count()} {what} to become {most} or fewer")
