"""A batch on two real servers, one of which is killed and restarted in the middle."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.record import read_record
from lib_fluxkontext.batch.row import Lora, Row
from lib_fluxkontext.batch.runner import Result, Runner
from lib_fluxkontext.batch.worker import Failed, Made, Outcome, WorkerLost
from lib_fluxkontext.hosts.forge_api.worker import ForgeWorker
from lib_fluxkontext.settings import KontextSettings
from tests.support import checkpoint_files
from tests.support.forge_install import Host
from tests.support.forge_server import ForgeServer
from tests.support.payloads import made, pixels, two_references
from tests.support.photos import cat, woman
from tests.support.waiting import wait_until

SIDE = 128
STEPS = 12
ROWS = 4

CACHED = {"sizing": "to output", "cache_threshold": 0.65}


@pytest.fixture
def second(host: Host) -> Iterator[ForgeServer]:
    """Another server, to be killed."""
    with ForgeServer(host=host) as server:
        yield server


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("photos")
    woman().save(folder / "woman.png")
    cat().save(folder / "cat.png")
    return folder / "woman.png", folder / "cat.png"


def row(seed: int, photos: tuple[Path, ...], steps: int = 4) -> Row:
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in photos)
    settings = KontextSettings(enabled=True, **CACHED)
    return Row(seed, seed, f"{seed:032x}", "a lighthouse", photos, digests, settings, SIDE, SIDE, steps, seed)


def single(server: ForgeServer, asked: Row, prompt: str = "a lighthouse") -> np.ndarray:
    """Return what a request by hand gives."""
    settings = two_references(**CACHED, cache=True)
    payload = {"prompt": prompt, "seed": asked.seed, "steps": asked.steps, "width": SIDE, "height": SIDE}
    return pixels(made(server, settings, **payload))


def picture(outcome: Outcome) -> Image.Image:
    assert isinstance(outcome, Made), outcome
    assert isinstance(outcome.picture, bytes)
    return Image.open(io.BytesIO(outcome.picture))


def array(outcome: Outcome) -> np.ndarray:
    return np.asarray(picture(outcome)).astype(int)


class Watched(ForgeWorker):
    """Remembers the seeds of the rows that it was given; after the first, waits until it may go on."""

    def __init__(self, server: ForgeServer) -> None:
        super().__init__(server.url, pause=0.2)
        self.seeds: list[int] = []
        self.may_go_on = threading.Event()

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        if self.seeds:
            assert self.may_go_on.wait(400)
        self.seeds += [row.seed for row in rows]
        return super().make(rows)


def test_a_server_killed_and_restarted_in_the_middle_costs_no_picture(
    forge: ForgeServer, second: ForgeServer, photos: tuple[Path, ...], tmp_path: Path
) -> None:
    workers = [Watched(forge), Watched(second)]
    assert [worker.check() for worker in workers] == ["small-flux"] * 2
    rows = [row(seed, photos, STEPS) for seed in range(1, ROWS + 1)]
    folder = OutputFolder(tmp_path)
    folder.prepare()
    with Plan() as plan, ThreadPoolExecutor() as pool:
        for each in rows:
            plan.add(each)
        plan.arrange()
        running = pool.submit(Runner(plan, folder, workers).run)
        wait_until(lambda: samples(second), 240, lambda: f"a row at the second server; {running}", interval=0.02)
        second.stop()
        interrupted = rows[workers[1].seeds[0] - 1]
        in_the_middle = not folder.is_done(interrupted.key)
        second.start()
        for worker in workers:
            worker.may_go_on.set()
        result = running.result(timeout=400)
    assert in_the_middle
    assert result == Result(made=ROWS)

    records = [read_record(folder.record_path(each.key)) for each in rows]
    for each, record in zip(rows, records, strict=True):
        with Image.open(folder.picture_path(each.key)) as picture:
            assert np.array_equal(np.asarray(picture).astype(int), single(forge, each)), each.seed
            assert "Kontext steps cached" in picture.info["parameters"]
        assert record is not None
        assert record["report"]["steps"] == STEPS
        assert record["made_by"] == next(worker.name for worker in workers if each.seed in worker.seeds)
    assert sorted(workers[0].seeds + workers[1].seeds) == [each.seed for each in rows]


def samples(server: ForgeServer) -> bool:
    """Return whether a server is in the middle of a picture."""
    return server.get("/sdapi/v1/progress?skip_current_image=true")[1]["state"]["sampling_step"] > 0


def test_a_row_that_is_wrong_fails_alone_with_the_servers_reason(forge: ForgeServer, photos: tuple[Path, ...]) -> None:
    worker = ForgeWorker(forge.url)
    broken = photos[0].parent / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:20_000])
    rows = [
        row(1, (photos[0], broken)),
        replace(row(2, photos), loras=(Lora("nothing"),)),
        replace(row(3, photos), checkpoint="small-flux-bf32"),
        replace(row(4, photos), loras=(Lora(checkpoint_files.LORA, 0.5),)),
        replace(row(5, photos), checkpoint=checkpoint_files.FLUX_BF16),
        row(6, photos),
    ]
    outcomes = worker.make(rows)
    assert [outcome.field for outcome in outcomes if isinstance(outcome, Failed)] == ["image2", "lora", "checkpoint"]
    tag = f"<lora:{checkpoint_files.LORA.removesuffix('.safetensors')}:0.5>"
    assert np.array_equal(array(outcomes[5]), single(forge, rows[5]))  # on the server's own checkpoint again
    assert np.array_equal(array(outcomes[3]), single(forge, rows[3], f"a lighthouse {tag}"))
    assert not np.array_equal(array(outcomes[3]), single(forge, rows[3]))
    assert "Model: small-flux-bf16" in picture(outcomes[4]).info["parameters"]
    assert worker.counters.loads == 3


def test_closing_interrupts_the_row_in_hand(forge: ForgeServer, photos: tuple[Path, ...]) -> None:
    worker = ForgeWorker(forge.url)
    with ThreadPoolExecutor() as pool:
        result = pool.submit(worker.make, [row(1, photos, steps=1000)])
        wait_until(lambda: (worker.fraction or 0) > 0.01, 120, lambda: f"the row to begin; {result}")
        worker.close()
        with pytest.raises(WorkerLost):
            result.result(timeout=30)
    wait_until(lambda: not forge.get("/sdapi/v1/progress")[1]["state"]["job"], 60, lambda: "Forge to stop")
    assert np.array_equal(array(ForgeWorker(forge.url).make([row(2, photos)])[0]), single(forge, row(2, photos)))
