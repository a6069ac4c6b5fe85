"""The runner: rows → workers → folder, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.plan import Plan
from lib_fluxkontext.batch.row import Lora, Row
from lib_fluxkontext.batch.runner import DROPPING, FINISHING, Runner
from lib_fluxkontext.batch.worker import Failed, Made, NullWorker, Outcome, WorkerLost
from lib_fluxkontext.settings import KontextSettings
from tests.support.batch_rows import ScriptedWorker, Told, a_row, arranged, some_rows
from tests.support.held_files import hold, windows_error


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    """Where the batch goes."""
    return OutputFolder(tmp_path / "out", durable=False)


def done(output: OutputFolder) -> set[str]:
    """Keys of the rows that are done, each with its picture; nothing is half-written."""
    assert list(output.path.rglob("*.part")) == []
    keys = {key for key, finished in output.states() if finished}
    assert all(output.picture_path(key).exists() for key in keys)
    return keys


def keys(rows: list[Row]) -> set[str]:
    return {row.key for row in rows}


def test_all_rows_are_made_once_in_order_and_told(output: OutputFolder) -> None:
    rows, worker, told = some_rows(30), ScriptedWorker(), Told()
    with arranged(rows, output) as plan:
        result = Runner(plan, output, [worker], [told]).run()
    assert (result.made, result.failed, result.stopped, result.interrupted) == (30, 0, None, False)
    assert worker.calls == [[number] for number in range(1, 31)]
    assert done(output) == {record["key"] for record in told.records} == keys(rows)
    with arranged(rows, output) as plan:  # nothing is left
        again = ScriptedWorker()
        assert Runner(plan, output, [again]).run().made == 0
    assert again.calls == []


def test_a_failed_row_leaves_its_reason_and_is_tried_again_when_asked(output: OutputFolder) -> None:
    rows = some_rows(5)
    worker = ScriptedWorker(lambda row, made: Failed("no cat", "image1") if row.number == 2 else None)
    with arranged(rows, output) as plan:
        result = Runner(plan, output, [worker]).run()
        assert (result.made, result.failed, plan.counts().failed) == (4, 1, 1)
    assert done(output) == keys(rows) - {rows[1].key}
    for retry, calls in ((False, []), (True, [[2]])):
        with arranged(rows, output, retry) as plan:
            worker = ScriptedWorker()
            Runner(plan, output, [worker]).run()
            assert worker.calls == calls
    assert done(output) == keys(rows)


def test_what_is_no_picture_fails_its_row_alone(output: OutputFolder) -> None:
    rows = some_rows(3)
    worker = ScriptedWorker(lambda row, made: Made(b"no PNG", "", {}, 1.0, "server") if row.number == 2 else None)
    with arranged(rows, output) as plan:
        result = Runner(plan, output, [worker]).run()
    assert (result.made, result.failed, result.stopped) == (2, 1, None)


def lost_after(count: int, error: type[Exception] = WorkerLost) -> ScriptedWorker:
    """A worker that makes so many rows and is gone then."""

    def script(row: Row, made: int) -> Outcome | None:
        if made >= count:
            raise error("gone")
        return None

    return ScriptedWorker(script, name="lost")


@pytest.mark.parametrize("error", [WorkerLost, ZeroDivisionError])
def test_rows_of_a_lost_worker_go_to_the_others(output: OutputFolder, error: type[Exception]) -> None:
    rows, told = some_rows(20), Told()
    lost = lost_after(3, error)
    begun = threading.Event()

    def wait_for_the_loss(row: Row, made: int) -> None:
        begun.wait(10)

    def lose(row: Row, made: int) -> Outcome | None:
        if made >= 3:
            begun.set()
            raise error("gone")
        return None

    lost.script = lose
    with arranged(rows, output) as plan:
        result = Runner(plan, output, [lost, ScriptedWorker(wait_for_the_loss)], [told]).run()
    assert (result.made, result.stopped) == (20, None)
    assert done(output) == keys(rows)
    assert [note for note in told.notes if "lost is lost" in note and "gone" in note] != []


def test_without_a_worker_it_says_what_is_left(output: OutputFolder) -> None:
    rows = some_rows(5)
    with arranged(rows, output) as plan:
        result = Runner(plan, output, [lost_after(2), lost_after(1)]).run()
        assert (result.made, plan.counts().to_do) == (3, 2)
    assert result.stopped == "No worker is left; 2 rows are still to do."
    with arranged(rows, output) as plan:
        assert Runner(plan, output, [NullWorker()]).run().made == 2


def test_a_full_disk_stops_the_run_which_goes_on_later(output: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, saved = some_rows(12), []
    save = Image.Image.save

    def full(self: Image.Image, file: object, *arguments: object, **options: object) -> None:
        if arguments[:1] == ("PNG",):
            saved.append(file)
            if len(saved) > 4:
                file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
        save(self, file, *arguments, **options)

    worker = ScriptedWorker()
    with arranged(rows, output) as plan, monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        result = Runner(plan, output, [worker]).run()
    assert result.stopped is not None
    assert result.stopped.startswith("No space left on device: ")
    assert (result.made, len(done(output)), worker.closed) == (4, 4, True)
    with arranged(rows, output) as plan:
        assert Runner(plan, output, [ScriptedWorker()]).run().made == 8
    assert done(output) == keys(rows)


def test_rows_that_another_machine_made_meanwhile_are_left_out(output: OutputFolder) -> None:
    rows = some_rows(6)

    def other_machine(row: Row, made: int) -> None:
        if row.number == 1:
            for other in rows[2:5]:
                output.write(other, Made(Image.new("RGB", (1, 1)), "", {}, 0.0, "other"))

    worker = ScriptedWorker(other_machine)
    with arranged(rows, output) as plan:
        Runner(plan, output, [worker]).run()
        assert plan.counts().to_do == 0
    assert worker.calls == [[1], [2], [6]]


needs_signals = pytest.mark.skipif(os.name == "nt", reason="sends a signal as a Unix terminal does")


@needs_signals
def test_the_first_interrupt_finishes_the_row_in_hand(output: OutputFolder) -> None:
    told = Told()

    def script(row: Row, made: int) -> None:
        if row.number == 3:
            os.kill(os.getpid(), signal.SIGINT)
            while FINISHING not in told.notes:
                time.sleep(0.01)

    before = signal.getsignal(signal.SIGINT)
    with arranged(some_rows(8), output) as plan:
        result = Runner(plan, output, [ScriptedWorker(script)], [told]).run()
    assert (result.made, result.interrupted, result.stopped) == (3, True, None)
    assert len(done(output)) == 3
    assert signal.getsignal(signal.SIGINT) == before


@needs_signals
def test_the_second_interrupt_drops_it(output: OutputFolder) -> None:
    told, worker = Told(), ScriptedWorker()

    def script(row: Row, made: int) -> None:
        if row.number == 3:
            for note in (FINISHING, DROPPING):
                os.kill(os.getpid(), signal.SIGINT)
                while note not in told.notes and not worker.closed:
                    time.sleep(0.01)
            while not worker.closed:
                time.sleep(0.01)
            raise WorkerLost("interrupted")

    worker.script = script
    with arranged(some_rows(8), output) as plan:
        result = Runner(plan, output, [worker], [told]).run()
    assert (result.made, result.interrupted) == (2, True)
    assert len(done(output)) == 2


def test_the_order_loads_each_checkpoint_and_photo_once_and_fills_batches() -> None:
    photo = {"images": (Path("a.png"),), "digests": ("a",)}, {"images": (Path("b.png"),), "digests": ("b",)}
    rows = [
        a_row(number, checkpoint="AB"[number % 2], steps=(4, 8)[number // 8 % 2], **photo[number // 2 % 2])
        for number in range(32)
    ]
    rows[5] = a_row(5, checkpoint="B", loras=(Lora("style"),))
    singles = taken(rows, 1)
    assert [len(group) for group in singles] == [1] * 32
    assert changes(singles, lambda row: (row.checkpoint, row.loras)) == 2  # A, B, B with the LoRA
    assert changes(singles, lambda row: (row.checkpoint, row.loras, row.digests)) == 4
    batches = taken(rows, 4)
    assert all(
        len({(row.checkpoint, row.loras, row.steps, len(row.images)) for row in group}) == 1 for group in batches
    )
    assert changes(batches, lambda row: (row.checkpoint, row.loras)) == 2
    assert len(batches) == 2 + 2 + 2 + 2 + 1  # 8, 8, 8 and 7 rows of a shape, and the one with the LoRA
    assert sorted(row.number for group in batches for row in group) == list(range(32))


def taken(rows: list[Row], batch_size: int) -> list[list[Row]]:
    """Take all groups of a plan."""
    with arranged(rows, batch_size=batch_size) as plan:
        return list(iter(plan.take, []))


def changes(groups: list[list[Row]], what: object) -> int:
    """Count how often something changes from row to row."""
    values = [what(row) for group in groups for row in group]
    return sum(one != other for one, other in pairwise(values))


def test_a_plan_that_a_scanner_holds_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as scanner:
        tried = hold(scanner, "unlink", "plan.sqlite", windows_error())
        Plan().close()
    assert tried


def test_equal_rows_are_made_once_and_shares_are_disjoint() -> None:
    rows = some_rows(40)
    twice = [a_row(number, key=rows[number - 41].key) for number in range(41, 45)]
    with arranged(rows + twice) as plan:
        assert (plan.counts().to_do, plan.duplicates) == (40, 4)
    shares = [{row.number for group in _taken_share(rows, number) for row in group} for number in (1, 2, 3)]
    assert set.union(*shares) == {row.number for row in rows}
    assert sum(map(len, shares)) == 40
    assert min(map(len, shares)) > 5


def _taken_share(rows: list[Row], number: int) -> list[list[Row]]:
    with arranged(rows, share=(number, 3)) as plan:
        return list(iter(plan.take, []))


def test_rows_given_back_come_next_and_settings_make_shapes() -> None:
    rows = some_rows(6)
    rows[3] = a_row(4, settings=KontextSettings.from_mapping({"enabled": True, "cache": False}))
    with arranged(rows, batch_size=2) as plan:
        first, second = plan.take(), plan.take()
        assert [row.number for row in first + second] == [1, 2, 3, 5]
        plan.give_back(first)
        assert plan.take() == first
        assert [row.number for row in plan.take()] == [6]
        assert [row.number for row in plan.take()] == [4]
        assert plan.take() == []
        assert plan.counts().to_do == 6
