"""Test-only routes, where the environment sets FLUX_KONTEXT_TEST_HOOKS=1: they count what is alive in the server, and
build its page anew.

``GET /small-flux/counts`` tensors, their bytes, the extension's own objects by class, and what gradio keeps for pages
``GET /small-flux/threads`` threads outside the web server's pools
``GET /small-flux/settle`` collects garbage and gives free memory back to the system, so that its size can be measured
``POST /small-flux/restart`` builds the page anew, as *Reload UI* does
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from collections import Counter
from typing import Any

import psutil
import torch
from modules import script_callbacks, shared

ENABLED = os.environ.get("FLUX_KONTEXT_TEST_HOOKS") == "1"
OURS = "lib_fluxkontext."
POOLS = ("AnyIO worker thread", "ThreadPoolExecutor", "asyncio_")
"""Names of threads that a pool starts when several requests come at once, and keeps for the next ones."""


def counts(collect: bool = True) -> dict[str, Any]:
    """Count tensors and objects, after a garbage collection if asked for; memory that tensors share counts once."""
    if collect:
        gc.collect()
    tensors, ours, storages = 0, Counter(), {}
    for candidate in gc.get_objects():
        kind = type(candidate)
        if issubclass(kind, torch.Tensor):
            tensors += 1
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif str(kind.__module__).startswith(OURS):
            ours[kind.__qualname__] += 1
    return {"tensors": tensors, "tensor_bytes": sum(storages.values()), "ours": dict(ours), "sessions": sessions()}


def sessions() -> list[int]:
    """Count the states that gradio keeps for each page that was opened."""
    holder = getattr(shared.demo, "state_holder", None)
    return [len(session.state_data) for session in holder.session_data.values()] if holder is not None else []


def threads() -> int:
    """Count threads outside the pools, with native ones such as PyTorch's."""
    pooled = sum(thread.name.startswith(POOLS) for thread in threading.enumerate())
    return psutil.Process().num_threads() - pooled


def settle() -> None:
    """Collect Forge's cyclic objects, and give free memory back where the C library has ``malloc_trim``."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def add_routes(_: Any, app: Any) -> None:
    """Add the routes to Forge's API."""
    app.add_api_route("/small-flux/counts", counts, methods=["GET"])
    app.add_api_route("/small-flux/threads", threads, methods=["GET"])
    app.add_api_route("/small-flux/settle", settle, methods=["GET"])
    app.add_api_route("/small-flux/restart", shared.state.request_restart, methods=["POST"])


if ENABLED:
    script_callbacks.on_app_started(add_routes)
