"""A batch on two real servers, one of which is killed and restarted in the middle."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
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

STEPS = 24
"""So many that the second server can be caught in the middle."""

ROWS = 6

CACHED = {"sizing": "to output", "cache_threshold": 0.65}


@pytest.fixture(scope="module")
def servers(host: Host) -> Iterator[list[ForgeServer]]:
    servers = [ForgeServer(host=host), ForgeServer(host=host)]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("photos")
    woman().save(folder / "woman.png")
    cat().save(folder / "cat.png")
    return folder / "woman.png", folder / "cat.png"


def row(seed: int, photos: tuple[Path, ...], steps: int = 4) -> Row:
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in photos)
    settings = KontextSettings(enabled=True, **CACHED)
    return Row(seed, seed, f"{seed:032x}", "a lighthouse", photos, digests, settings, 256, 256, steps, seed)


def single(server: ForgeServer, asked: Row, prompt: str = "a lighthouse") -> np.ndarray:
    """Return what a request by hand gives."""
    settings = two_references(**CACHED, cache=True)
    return pixels(made(server, settings, prompt=prompt, seed=asked.seed, steps=asked.steps))


def picture(outcome: Outcome) -> Image.Image:
    assert isinstance(outcome, Made), outcome
    assert isinstance(outcome.picture, bytes)
    return Image.open(io.BytesIO(outcome.picture))


def array(outcome: Outcome) -> np.ndarray:
    return np.asarray(picture(outcome)).astype(int)


def test_a_server_killed_and_restarted_in_the_middle_costs_no_picture(
    servers: list[ForgeServer], photos: tuple[Path, ...], tmp_path: Path
) -> None:
    workers = [ForgeWorker(server.url, pause=0.2) for server in servers]
    assert [worker.check() for worker in workers] == ["small-flux"] * 2
    rows = [row(seed, photos, STEPS) for seed in range(1, ROWS + 1)]
    folder = OutputFolder(tmp_path)
    folder.prepare()
    with Plan() as plan, ThreadPoolExecutor() as pool:
        for each in rows:
            plan.add(each)
        plan.arrange()
        running = pool.submit(Runner(plan, folder, workers).run)
        wait_until(lambda: (workers[1].fraction or 0) > 0.05, 240, lambda: f"a row at the second server; {running}")
        servers[1].stop()
        servers[1].start()
        result = running.result(timeout=400)
    assert result == Result(made=ROWS)

    records = [read_record(folder.record_path(each.key)) for each in rows]
    for each, record in zip(rows, records, strict=True):
        with Image.open(folder.picture_path(each.key)) as picture:
            assert np.array_equal(np.asarray(picture).astype(int), single(servers[0], each)), each.seed
            assert "Kontext steps cached" in picture.info["parameters"]
        assert record is not None
        assert record["report"]["steps"] == STEPS
    assert {record["made_by"] for record in records if record} == {server.url for server in servers}


def test_a_row_that_is_wrong_fails_alone_with_the_servers_reason(
    servers: list[ForgeServer], photos: tuple[Path, ...]
) -> None:
    server = servers[0]
    worker = ForgeWorker(server.url)
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
    assert np.array_equal(array(outcomes[5]), single(server, rows[5]))  # on the server's own checkpoint again
    assert np.array_equal(array(outcomes[3]), single(server, rows[3], f"a lighthouse {tag}"))
    assert not np.array_equal(array(outcomes[3]), single(server, rows[3]))
    assert "Model: small-flux-bf16" in picture(outcomes[4]).info["parameters"]
    assert worker.counters.loads == 3


def test_closing_interrupts_the_row_in_hand(servers: list[ForgeServer], photos: tuple[Path, ...]) -> None:
    server = servers[0]
    worker = ForgeWorker(server.url)
    with ThreadPoolExecutor() as pool:
        result = pool.submit(worker.make, [row(1, photos, steps=1000)])
        wait_until(lambda: (worker.fraction or 0) > 0.01, 120, lambda: f"the row to begin; {result}")
        worker.close()
        with pytest.raises(WorkerLost):
            result.result(timeout=30)
    wait_until(lambda: not server.get("/sdapi/v1/progress")[1]["state"]["job"], 60, lambda: "Forge to stop")
    assert np.array_equal(array(ForgeWorker(server.url).make([row(2, photos)])[0]), single(server, row(2, photos)))
