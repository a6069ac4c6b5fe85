"""A request to txt2img while it runs: its progress, and an end to it."""

from __future__ import annotations

import contextlib
import threading
import uuid
from concurrent.futures import Future
from typing import Any

from lib_fluxkontext.hosts.forge_api.client import ForgeClient, NoAccess, RequestRefused, ServerTrouble

ANY_ERROR = (ServerTrouble, RequestRefused)


class RunningRequest:
    """Sends a request in a thread of its own, so that nobody has to wait for a server that does not answer.

    Args:
        client: of the server.
        payload: for txt2img.
    """

    def __init__(self, client: ForgeClient, payload: dict[str, Any]) -> None:
        self._client = client
        self._task = f"kontext-{uuid.uuid4().hex}"
        self._has_page = True
        self._answer: Future[dict[str, Any]] = Future()
        self._done = threading.Event()
        self._was_idle = self._is_idle()
        body = {**payload, "force_task_id": self._task}
        # A daemon, unlike a pool's threads, which Python would wait for at its end.
        threading.Thread(target=self._send, args=(body,), name=f"txt2img at {client.url}", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Return whether there is an answer, or an error, within the time."""
        return self._done.wait(seconds)

    def result(self) -> dict[str, Any]:
        """Return the answer, or raise the client's error."""
        return self._answer.result()

    def progress(self) -> float | None:
        """Return what share of this row is done, 0 to 1; None where it waits for its turn or nobody knows."""
        with contextlib.suppress(*ANY_ERROR):
            return self._progress()
        return None

    def stop(self) -> None:
        """Interrupt the server if this request is what runs there. Others may use it, too."""
        with contextlib.suppress(*ANY_ERROR):
            if not self._done.is_set() and self._progress() is not None:
                self._client.interrupt()

    def _progress(self) -> float | None:
        if self._has_page:
            try:
                task = self._client.task(self._task)
                return float(task.get("progress") or 0.0) if task["active"] else None
            except NoAccess:  # it has no page, so its API is all that is left
                self._has_page = False
        # The API does not say whose job runs: it is this one if nothing else ran before.
        state = self._client.state()
        return float(state["progress"]) if self._was_idle and state["state"]["job"] == "scripts_txt2img" else None

    def _is_idle(self) -> bool:
        with contextlib.suppress(*ANY_ERROR):
            return not self._client.state()["state"]["job"]
        return False

    def _send(self, body: dict[str, Any]) -> None:
        try:
            self._answer.set_result(self._client.txt2img(body))
        except BaseException as error:
            self._answer.set_exception(error)
        finally:
            self._done.set()
