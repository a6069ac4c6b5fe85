"""The in-process worker of a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Counters, Failed, Made, Outcome, WorkerLost
from lib_fluxkontext.bounded_cache import BoundedCache
from lib_fluxkontext.errors import KontextError, first_line, is_device_failure
from lib_fluxkontext.hosts.diffusers.metadata import parameters, parameters_text
from lib_fluxkontext.hosts.diffusers.model_store import ModelStore
from lib_fluxkontext.hosts.diffusers.options import LoadOptions
from lib_fluxkontext.hosts.diffusers.pipeline import BatchRow, generate_batch
from lib_fluxkontext.hosts.diffusers.sampling import Interrupted
from lib_fluxkontext.images.decode import Reference, decode_reference
from lib_fluxkontext.images.files import read_unchanged
from lib_fluxkontext.images.stitch import plan_sizes
from lib_fluxkontext.job import Job

PHOTO_BYTES = 256 * 2**20
"""Bound of decoded references. A 12-megapixel photograph takes 36 MB."""


class DiffusersWorker:
    """Makes rows with a ``FluxKontextPipeline``, with the caches of prompts, photographs and latents between them.

    Args:
        options: how to load checkpoints; the first is loaded with the first row.
    """

    name = "in process"

    def __init__(self, options: LoadOptions | None = None) -> None:
        self.options = options or LoadOptions()
        self.counters = Counters()
        self._models = ModelStore(self.options)
        self._photos = _Photos()
        self._interrupt = threading.Event()

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        """Make rows in one batch; those whose references turn out to be of other sizes apart. See ``Worker.make``."""
        outcomes: dict[int, Outcome] = {}
        groups: dict[object, list[tuple[int, Row, list[Reference]]]] = {}
        for place, row in enumerate(rows):
            try:
                references = [
                    self._photos.get(path, digest, f"image{number}")
                    for number, (path, digest) in enumerate(zip(row.images, row.digests, strict=True), 1)
                ]
                plans = plan_sizes(references, row.settings, (row.width, row.height))
            except KontextError as error:
                outcomes[place] = Failed(error.reason, error.field)
                continue
            shape = (row.checkpoint, row.loras, row.width, row.height, row.steps, row.guidance, row.settings)
            groups.setdefault((shape, tuple(plan.target for plan in plans)), []).append((place, row, references))
        for group in groups.values():
            places = [place for place, *_ in group]
            outcomes.update(zip(places, self._make([(row, photos) for _, row, photos in group]), strict=True))
        return [outcomes[place] for place in range(len(rows))]

    def close(self) -> None:
        """Stop before the next model call; ``make`` raises ``WorkerLost`` then, now and later."""
        self._interrupt.set()

    def _make(self, rows: Sequence[tuple[Row, list[Reference]]]) -> list[Outcome]:
        try:
            return self._sample(rows)
        except Interrupted:
            raise WorkerLost("interrupted") from None
        except KontextError as error:
            if error.field == "checkpoint" and not rows[0][0].checkpoint:  # the batch's own: no row would succeed
                raise WorkerLost(error.reason) from None
            failed = Failed(error.reason, error.field)
        except (RuntimeError, MemoryError, OSError, ValueError, TypeError, KeyError) as error:
            if is_device_failure(error):
                raise WorkerLost(f"the device failed: {first_line(error)}") from None
            failed = Failed(f"{type(error).__name__}: {first_line(error)}")
        if len(rows) == 1:
            return [failed]
        # It may be one row's fault, or the batch is too large for the memory.
        return [outcome for row in rows for outcome in self._make([row])]

    def _sample(self, rows: Sequence[tuple[Row, list[Reference]]]) -> list[Outcome]:
        if self._interrupt.is_set():
            raise Interrupted
        first = rows[0][0]
        pipeline = self._models.pipeline(first.checkpoint, first.loras)
        self.counters.loads = self._models.loads
        start = time.perf_counter()
        jobs = [Job(row.prompt, row.width, row.height, row.steps, row.seed, row.guidance) for row, _ in rows]
        generated = generate_batch(
            pipeline,
            jobs[0],
            [BatchRow(row.prompt, row.seed, references) for row, references in rows],
            first.settings,
            latent_cache=self._models.latents,
            prompt_cache=self._models.prompts,
            interrupt=self._interrupt,
        )
        self.counters.encodes += sum(generated.encoded)
        self.counters.prompts = self._models.prompts.embedded
        seconds = (time.perf_counter() - start) / len(rows)
        made: list[Outcome] = []
        for place, ((row, references), job) in enumerate(zip(rows, jobs, strict=True)):
            report = generated.report_of(place)
            fields = parameters(job, self.options.model_name(row.checkpoint), row.settings, references, report)
            text = parameters_text(_prompt_with_loras(row), fields)
            made.append(Made(generated.images[place], text, report.to_dict(), seconds, self.name))
        return made


class _Photos:
    """Decoded references by digest of their files."""

    def __init__(self) -> None:
        self._held: BoundedCache[Reference] = BoundedCache(PHOTO_BYTES, _bytes_of)

    def get(self, path: Path, digest: str, name: str) -> Reference:
        """Return a decoded reference.

        Raises:
            KontextError: the file cannot be read or decoded, or is not the one whose digest this is.
        """
        held = self._held.get(digest)
        if held is not None:
            return Reference(held.image, held.digest, name, held.background)
        reference = decode_reference(read_unchanged(path, digest, name), name)
        self._held.put(digest, reference)
        return reference


def _bytes_of(reference: Reference) -> int:
    return 3 * reference.size[0] * reference.size[1]


def _prompt_with_loras(row: Row) -> str:
    """Write LoRAs as Forge's prompts do, so that pasting the parameters there asks for the same."""
    tags = [f"<lora:{Path(lora.name).stem}:{lora.weight:g}>" for lora in row.loras]
    return " ".join([row.prompt, *tags])
