"""Test-only routes: what is alive in the server. Like the hooks, they are there only when the environment asks.

``GET /small-flux/counts`` tensors, their bytes, the extension's own objects by class, and what gradio keeps for pages
``GET /small-flux/threads`` how many there are outside the web server's pools
``GET /small-flux/settle`` collects, and gives free memory back to the system, so that what is held shows from outside
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
"""How the threads are named that a pool makes when several requests come at once, and keeps for the next."""


def counts(collect: bool = True) -> dict[str, Any]:
    """After a collection, unless the query says ``collect=false``; bytes that several tensors share count once."""
    if collect:
        gc.collect()
    tensors, ours, storages = 0, Counter(), {}
    for one in gc.get_objects():
        kind = type(one)
        if issubclass(kind, torch.Tensor):
            tensors += 1
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        elif str(kind.__module__).startswith(OURS):
            ours[kind.__qualname__] += 1
    return {"tensors": tensors, "tensor_bytes": sum(storages.values()), "ours": dict(ours), "sessions": sessions()}


def sessions() -> list[int]:
    """For each page that was open, how many states gradio keeps for it."""
    holder = getattr(shared.demo, "state_holder", None)
    return [len(one.state_data) for one in holder.session_data.values()] if holder is not None else []


def threads() -> int:
    """Native ones too, such as PyTorch's."""
    pooled = sum(one.name.startswith(POOLS) for one in threading.enumerate())
    return psutil.Process().num_threads() - pooled


def settle() -> None:
    """Forge's own objects go in cycles. Where the C library has no ``malloc_trim``, free memory stays."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def add_routes(_: Any, app: Any) -> None:
    """Beside Forge's own API."""
    app.add_api_route("/small-flux/counts", counts, methods=["GET"])
    app.add_api_route("/small-flux/threads", threads, methods=["GET"])
    app.add_api_route("/small-flux/settle", settle, methods=["GET"])


if ENABLED:
    script_callbacks.on_app_started(add_routes)
