"""A batch on a Ray cluster of three nodes, one of which is killed in the middle."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Made, WorkerLost
from lib_fluxkontext.hosts.diffusers.batch import DiffusersWorker
from lib_fluxkontext.hosts.ray.options import RayOptions
from lib_fluxkontext.settings import KontextSettings
from tests.support.photos import cat, woman

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install -e ".[ray]"')

from ray.cluster_utils import Cluster  # noqa: E402

from lib_fluxkontext.hosts.ray.run import run_on_ray  # noqa: E402

pytestmark = pytest.mark.slow

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20}
ROWS = 12
OPTIONS = RayOptions(actors=(1, 3))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path / "out")
    folder.prepare()
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    cat().save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def row(seed: int, photo: Path) -> Row:
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    settings = KontextSettings(enabled=True, sizing="to output")
    return Row(seed, seed, f"{seed:032x}", "make it blue", (photo,), (digest,), settings, 96, 96, steps=3, seed=seed)


def plan_of(rows: Sequence[Row]) -> Plan:
    plan = Plan()
    for each in rows:
        plan.add(each)
    plan.arrange()
    return plan


def actors_of(node: Any) -> list[str]:
    """Return the names of the processes on a node that make rows."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    names = [" ".join(process.cmdline()) for process in raylet.children(recursive=True)]
    return [name for name in names if "RowMaker" in name]


def test_a_node_killed_in_the_middle_costs_no_picture(cluster: Cluster, folder: OutputFolder, photo: Path) -> None:
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    rows = [row(seed, photo) for seed in range(1, ROWS + 1)]
    records: list[Any] = []

    def finished(record: Any) -> None:
        records.append(record)
        if len(records) == 2:
            killed.extend(actors_of(nodes[0]))
            cluster.remove_node(nodes[0], allow_graceful=False)

    killed: list[str] = []
    with plan_of(rows) as plan:
        run_on_ray(plan, folder, replace(OPTIONS, actors=(3, 3)), finished, threading.Event())
    assert len(killed) == 1
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert sorted(record["key"] for record in records) == [each.key for each in rows]
    single = DiffusersWorker()
    for each in rows:
        (made,) = single.make([each])
        assert isinstance(made, Made)
        with Image.open(folder.picture_path(each.key)) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(made.picture)), each.seed
            assert picture.info["parameters"].startswith("make it blue\nSteps: 3")
    assert list(folder.path.rglob("*.part")) == []


def test_a_row_fails_alone_and_a_worker_that_cannot_be_built_ends_the_batch_with_its_reason(
    cluster: Cluster, folder: OutputFolder, photo: Path
) -> None:
    changed = photo.with_name("changed.png")
    woman().save(changed)  # not what an actor holds already
    rows = [row(1, photo), row(2, changed), row(3, photo)]
    changed.write_bytes(b"another")
    records: list[Any] = []
    with plan_of(rows) as plan:
        run_on_ray(plan, folder, OPTIONS, records.append, threading.Event())
        assert [record["number"] for record in records if "reason" in record] == [2]
        assert sum("thumbnail" in record for record in records) == 2
        nowhere = RayOptions(forge="http://127.0.0.1:9")
        with pytest.raises(WorkerLost, match=r"127\.0\.0\.1:9 cannot be reached: connection refused"):
            run_on_ray(plan_of([row(4, photo)]), folder, nowhere, records.append, threading.Event())


def test_stopping_leaves_what_is_done_whole(cluster: Cluster, folder: OutputFolder, photo: Path) -> None:
    rows = [row(seed, photo) for seed in range(1, 200)]
    stop = threading.Event()
    records: list[Any] = []

    def finished(record: Any) -> None:
        records.append(record)
        stop.set()

    with plan_of(rows) as plan:
        run_on_ray(plan, folder, OPTIONS, finished, stop)
    assert len(records) == 1
    assert folder.is_done(records[0]["key"])
    assert sum(done for _, done in folder.states()) < len(rows)
