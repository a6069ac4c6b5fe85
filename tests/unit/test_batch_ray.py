"""What an actor of a Ray cluster does with a block of rows; Ray itself is not needed here."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext import __version__
from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.record import row_values
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.batch.worker import Counters, Failed, Made, Outcome, WorkerLost
from lib_fluxkontext.hosts.diffusers.options import LoadOptions
from lib_fluxkontext.hosts.ray import actor
from lib_fluxkontext.hosts.ray.actor import BROKEN, DONE, FAILED, KIND, LEFT, RESULT, ROW, RowMaker
from lib_fluxkontext.hosts.ray.options import RayOptions
from lib_fluxkontext.settings import KontextSettings


class Painter:
    """Paints a row in the colour of its seed; fails at seed 13, and is lost at seed 66."""

    name = "painter"
    counters = Counters()

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def make(self, rows: Sequence[Row]) -> list[Outcome]:
        self.batches.append([row.seed for row in rows])
        if any(row.seed == 66 for row in rows):
            raise WorkerLost("burnt out")
        return [self.paint(row) for row in rows]

    def paint(self, row: Row) -> Outcome:
        if row.seed == 13:
            return Failed("unlucky", "seed")
        return Made(Image.new("RGB", (16, 16), (row.seed, 0, 0)), "", {}, 0.1, self.name)

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path)
    folder.prepare()
    return folder


def row(seed: int, width: int = 16) -> Row:
    return Row(seed, seed, f"{seed:032x}", "paint", (), (), KontextSettings(enabled=True), width, 16, seed=seed)


def maker_of(folder: OutputFolder, worker: Painter, batch_size: int = 1) -> RowMaker:
    maker = RowMaker(folder, RayOptions(batch_size=batch_size), __version__)
    maker._build = lambda: worker  # type: ignore[method-assign]
    return maker


def results(maker: RowMaker, *rows: Row) -> list[tuple[str, Any]]:
    block = maker({ROW: [json.dumps(row_values(each, all_settings=False)) for each in rows]})
    return list(zip(block[KIND], block[RESULT], strict=True))


def test_each_row_has_a_result_and_what_is_done_is_not_made_again(folder: OutputFolder) -> None:
    worker = Painter()
    maker = maker_of(folder, worker)
    first = results(maker, row(1), row(13))
    assert [kind for kind, _ in first] == [DONE, FAILED]
    assert json.loads(first[1][1])["reason"] == "unlucky"
    before = folder.picture_path(row(1).key).stat().st_mtime_ns
    again = results(maker, row(1), row(2))  # as after the loss of a node
    assert again[0] == first[0]
    assert worker.batches == [[1], [13], [2]]
    assert folder.picture_path(row(1).key).stat().st_mtime_ns == before


def test_a_worker_that_is_lost_leaves_the_rest_of_its_block_to_others(folder: OutputFolder) -> None:
    worker = Painter()
    found = results(maker_of(folder, worker), row(1), row(66), row(3))
    assert sorted(kind for kind, _ in found) == [DONE, LEFT, LEFT]
    assert {text.split()[0] for kind, text in found if kind == LEFT} == {row(66).key, row(3).key}
    assert all(text.endswith("burnt out") for kind, text in found if kind == LEFT)
    assert worker.batches == [[1], [66]]
    assert folder.is_done(row(1).key)


def test_what_was_made_from_another_manifest_counts_for_the_row_that_asks(folder: OutputFolder) -> None:
    results(maker_of(folder, Painter()), row(7))
    ((kind, text),) = results(maker_of(folder, Painter()), replace(row(7), number=3, line=3))
    assert (kind, json.loads(text)["number"]) == (DONE, 3)


def test_a_nodes_server_that_is_down_leaves_its_rows_and_a_checkpoint_that_cannot_be_ends_the_batch(
    folder: OutputFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "_card", lambda: "0")  # which Ray would tell
    ((kind, text),) = results(RowMaker(folder, RayOptions(forge="http://127.0.0.1:9"), __version__), row(1))
    assert kind == LEFT
    assert "127.0.0.1:9 cannot be reached" in text
    ((kind, text),) = results(RowMaker(folder, RayOptions(loading=LoadOptions(tmp_path / "no")), __version__), row(1))
    assert kind == BROKEN
    assert "no such file or folder" in text


def test_batches_have_one_shape(folder: OutputFolder) -> None:
    worker = Painter()
    results(maker_of(folder, worker, batch_size=2), row(1), row(2), row(3), row(4, width=32), row(5, width=32))
    assert worker.batches == [[1, 2], [3], [4, 5]]


def test_what_no_other_worker_could_help_ends_the_batch(folder: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/out/1.png")
    monkeypatch.setattr(folder, "write", lambda *_: (_ for _ in ()).throw(full))
    ((kind, text),) = results(maker_of(folder, Painter()), row(1))
    assert kind == BROKEN
    assert text.endswith("No space left on device: /out/1.png")
    monkeypatch.setattr(Painter, "make", lambda *_: [][0])
    ((kind, text),) = results(maker_of(folder, Painter()), row(1))
    assert kind == BROKEN
    assert text.endswith("IndexError: list index out of range")
    ((kind, text),) = results(RowMaker(folder, RayOptions(), "0.0"), row(1))
    assert kind == BROKEN
    assert f"Flux Kontext {__version__} is installed, and 0.0 where the batch was started" in text
