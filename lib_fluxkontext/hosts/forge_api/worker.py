"""A Forge server as a worker of a batch: it is waited for when it restarts, and no single row can stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)
from tenacity.stop import stop_base

from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Counters, Failed, Made, Outcome, WorkerLost
from lib_fluxkontext.errors import KontextError, is_out_of_memory
from lib_fluxkontext.hosts.forge_api.client import ForgeClient, NoAccess, RequestRefused, ServerTrouble
from lib_fluxkontext.hosts.forge_api.exchange import SCRIPT, Answer, request_of
from lib_fluxkontext.hosts.forge_api.models import Entry, Models, UnknownModel, model_name
from lib_fluxkontext.hosts.forge_api.running import RunningRequest

LONGEST_PAUSE = 60.0
LONGEST_PAUSE_OF_RESTART = 10.0
LOOK_INTERVAL = 1.0
"""Seconds between two looks at the progress."""

MAX_BROKEN_ROWS = 3
"""So many rows in succession that the server failed at, each again and again, and the server is to blame: after some
errors of CUDA nothing succeeds before a restart."""

Result = TypeVar("Result")


class ForgeWorker:
    """Makes each row by one request to a Forge server.

    Args:
        url: address of the server.
        auth: ``user:password`` of its ``--api-auth``.
        wait_seconds: how long a server that does not answer is waited for, before it is given up.
        tries: requests for one row, before the row is given up.
        answer_seconds: longest wait for a picture.
        pause: seconds before the second try, with some jitter; each further pause is twice as long.

    Attributes:
        name: the address.
        counters: references that the server encoded, and changes of its checkpoint, for this worker.
        fraction: of the row in hand, 0 to 1; None where none runs, or nobody knows.

    Raises:
        KontextError: an address or credentials that cannot be.
    """

    def __init__(
        self,
        url: str,
        auth: str | None = None,
        *,
        wait_seconds: float = 600.0,
        tries: int = 5,
        answer_seconds: float = 3600.0,
        pause: float = 1.0,
    ) -> None:
        self._client = ForgeClient(url, auth, answer_seconds)
        self._models = Models(self._client)
        self.name = self._client.url
        self.counters = Counters()
        self.fraction: float | None = None
        self._wait_seconds = wait_seconds
        self._tries = tries
        self._pause = pause
        self._closed = threading.Event()
        self._making = threading.Lock()
        self._troubled = False
        self._broken_rows = 0
        self._loaded = ""

    def check(self) -> str:
        """Check that the server can serve a batch, and return the name of the checkpoint that is selected there.

        Raises:
            KontextError: it does not answer, has no API or no *Flux Kontext*, or sends no PNG.
        """
        try:
            self._check()
            return model_name(self._models.selected())
        except (ServerTrouble, RequestRefused, UnknownModel) as error:
            raise KontextError(str(error), "forge") from None

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        """Make rows, one after the other.

        Raises:
            WorkerLost: the server has been away for too long, serves us no more, fails at everything, or ``close``
                was called.
        """
        with self._making:
            try:
                return [self._make(row) for row in rows]
            finally:
                if self._closed.is_set():
                    self._restore_selection()

    def close(self) -> None:
        """Let ``make`` end within a second or two; if its row runs at the server, it is interrupted there.

        The checkpoint that was selected at the server is selected again.
        """
        self._closed.set()
        if self._making.acquire(blocking=False):  # else make does it
            self._restore_selection()
            self._making.release()

    def _restore_selection(self) -> None:
        with suppress(ServerTrouble, RequestRefused, UnknownModel):
            if self._loaded not in ("", model_name(self._models.selected())):
                self._client.select(self._models.selected()["title"])
        self._loaded = ""

    def _make(self, row: Row) -> Outcome:
        start = time.monotonic()
        try:
            made = self._persist(
                lambda: self._try(row, start), stop_after_attempt(self._tries), self._pause, LONGEST_PAUSE
            )
        except (RequestRefused, UnknownModel, KontextError) as error:
            self._broken_rows = 0
            return Failed(error.reason, error.field)
        except ServerTrouble as error:
            self._check_open()
            return self._give_up(error)
        self._broken_rows = 0
        return made

    def _give_up(self, error: ServerTrouble) -> Failed:
        """Blame the row, or the server where one row fails after the other."""
        if not is_out_of_memory(error):  # which a row's size is to blame for, and rows of one size come together
            self._broken_rows += 1
        if self._broken_rows >= MAX_BROKEN_ROWS:
            self._broken_rows = 0
            raise WorkerLost(f"{self.name} failed at {MAX_BROKEN_ROWS} rows in succession: {error}")
        return Failed(f"the server failed {self._tries} times: {error}")

    def _try(self, row: Row, start: float) -> Made:
        """Send the request once, as soon as a server that was away is back."""
        self._check_open()
        if self._troubled:
            self._wait_for_server()
        try:
            checkpoint = self._models.checkpoint(row.checkpoint)
            loras = [self._models.lora(lora.name) for lora in row.loras]
            answer = self._generate(row, checkpoint, loras)
        except ServerTrouble:
            self._troubled = True
            raise
        self.counters.encodes += answer.encoded
        self.counters.loads += answer.model != self._loaded
        self._loaded = answer.model
        picture, text = answer.picture()
        return Made(picture, text, answer.report, time.monotonic() - start, self.name)

    def _generate(self, row: Row, checkpoint: Entry, loras: Sequence[str]) -> Answer:
        request = RunningRequest(self._client, request_of(row, checkpoint["title"], loras))
        try:
            while not request.wait(LOOK_INTERVAL):
                self.fraction = request.progress()
                if self._closed.is_set():
                    request.stop()
                    self._check_open()
        finally:
            self.fraction = None
        try:
            answer = Answer(request.result())
        except ValueError as error:
            raise ServerTrouble(f"{self.name} sends {error}") from None
        if answer.steps < row.steps:
            raise ServerTrouble(f"interrupted at the server after {answer.steps} of {row.steps} steps")
        if answer.model not in ("", model_name(checkpoint)):
            raise ServerTrouble(f"made with the checkpoint {answer.model} instead of {model_name(checkpoint)}")
        return answer

    def _wait_for_server(self) -> None:
        """Return when the server answers again.

        Raises:
            WorkerLost: it has not within the time.
        """
        stop = stop_after_delay(self._wait_seconds)
        try:
            self._persist(self._check, stop, self._pause / 2, LONGEST_PAUSE_OF_RESTART)
        except ServerTrouble as error:
            self._check_open()
            raise WorkerLost(f"{error}; it was waited for {self._wait_seconds:g} s") from None
        self._models.forget()
        self._troubled = False

    def _check(self) -> None:
        if SCRIPT.lower() not in self._client.scripts():
            raise NoAccess(f"{self.name} has no {SCRIPT}; install this extension there and restart it")
        picture_format = str(self._client.options().get("samples_format", "png"))
        if picture_format.lower() != "png":
            setting = "Saving images/grids > File format for images"
            raise NoAccess(f"{self.name} sends pictures as {picture_format}; set {setting} there to png")

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise WorkerLost(f"{self.name}: closed")

    def _persist(self, call: Callable[[], Result], stop: stop_base, pause: float, longest: float) -> Result:
        """Call until it succeeds, with growing pauses after failures that may pass."""
        return Retrying(
            retry=retry_if_exception_type(ServerTrouble),
            wait=wait_exponential(multiplier=pause, max=longest) + wait_random(0, pause),
            stop=stop | stop_when_event_set(self._closed),
            sleep=sleep_using_event(self._closed),
            reraise=True,
        )(call)
