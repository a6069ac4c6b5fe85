"""What makes the pictures of a batch: one interface, whatever runs behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from lib_fluxkontext.batch.row import Row


@dataclass(frozen=True)
class Made:
    """A finished picture.

    Attributes:
        picture: the image, or the bytes of a PNG file that is complete with its metadata.
        infotext: the text for the PNG's ``parameters``, as in Forge; empty where ``picture`` has it.
        report: ``GenerationReport.to_dict()``: steps, seconds, memory.
        seconds: wall time that the row took its worker, encoding and decoding included; of a batch its share.
        made_by: the worker's name.
    """

    picture: Image.Image | bytes
    infotext: str
    report: Mapping[str, Any]
    seconds: float
    made_by: str


@dataclass(frozen=True)
class Failed:
    """A row that cannot be made as it stands: its own fault, so nobody tries it again unasked.

    Attributes:
        reason: one line for a person.
        field: the setting at fault, where one is.
    """

    reason: str
    field: str | None = None


Outcome = Made | Failed


class WorkerLost(Exception):
    """The worker itself is gone or unusable (not the row's fault): its rows go to others, or wait for it to return."""


@dataclass
class Counters:
    """How often a worker did what a good order saves.

    Attributes:
        encodes: references that went through the VAE.
        prompts: prompts that went through the text encoders.
        loads: checkpoints loaded.
    """

    encodes: int = 0
    prompts: int = 0
    loads: int = 0


class Worker(Protocol):
    """Makes pictures, one call at a time; the runner calls it from a thread of its own.

    Attributes:
        name: for people: ``"in process"``, ``"http://127.0.0.1:7860"``.
        counters: what it has done.
    """

    name: str
    counters: Counters

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        """Make rows of one shape in one batch, and return an outcome for each, in order.

        Raises:
            WorkerLost: see there; none of the rows was made.
        """

    def close(self) -> None:
        """Interrupt what it is doing, and let go of what it holds. Called from any thread, more than once."""


@dataclass
class NullWorker:
    """Makes a grey pixel of everything: to measure all that is not sampling."""

    name: str = "nothing"
    counters: Counters = field(default_factory=Counters)

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        """Return a picture of one pixel for each row."""
        return [Made(Image.new("RGB", (1, 1)), "", {}, 0.0, self.name) for _ in rows]

    def close(self) -> None:
        """Nothing to let go of."""
