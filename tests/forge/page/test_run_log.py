"""The run log's file in trouble: every generation succeeds, and page and report say what is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path

import psutil
import pytest

from lib_fluxkontext.history.record import COLUMNS, Run
from lib_fluxkontext.history.store import RunLog
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.panel import PANEL, select, show_runs, unfold
from tests.support.payloads import HOOKS, first_pass, kontext, made, report

RUNS = f"{PANEL}_runs"
ON = {"enabled": True, "cache": False}
MANY = 10_000


@pytest.fixture
def log(forge_page: ForgeServer) -> Iterator[RunLog]:
    """The log of the server with a page, at least one run in it; restored afterwards."""
    made(forge_page, ON, steps=1)
    path = forge_page.data / "flux-kontext" / "runs.sqlite"
    before = path.read_bytes()
    yield RunLog(path)
    path.write_bytes(before)


def notes(server: ForgeServer) -> list[str]:
    """Generate, which must succeed, and return the report's notes."""
    return report(made(server, ON, steps=1))["notes"]


def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(forge_page: ForgeServer, page: ForgePage, log: RunLog) -> None:
    log.path.write_bytes(b"this is not a database" * 400)
    assert "cannot be read" in show_runs(page, "the run log cannot be read")
    (note,) = notes(forge_page)
    assert log.count() == 1
    (aside,) = log.path.parent.glob("runs.sqlite.damaged-*")
    assert note == f"The run log was damaged and begun anew; the old file is {aside}"
    assert notes(forge_page) == []
    show_runs(page, "small-flux")


def test_a_folder_that_cannot_be_written_costs_a_note(forge_page: ForgeServer, page: ForgePage, log: RunLog) -> None:
    """A file in place of the folder stops root too, whom permissions do not."""
    folder = log.path.parent
    aside = folder.rename(folder.with_name("flux-kontext-aside"))
    folder.write_text("in the way", encoding="utf-8")
    try:
        (note,) = notes(forge_page)
        assert note.startswith("The run was not logged")
        show_runs(page, "No runs yet")
    finally:
        folder.unlink()
        aside.rename(folder)
    assert notes(forge_page) == []


@contextmanager
def full_disk(server: ForgeServer, limit: int) -> Iterator[None]:
    """Let the server write no file past ``limit`` bytes, as on a full disk; reading works as before."""
    process = psutil.Process(server.process.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not psutil.LINUX, reason="only Linux limits the files of another process")
def test_a_full_disk_costs_a_note(forge_page: ForgeServer, page: ForgePage, log: RunLog) -> None:
    ((_, run),) = log.latest(1)
    fill(log.path, run, 5000)
    limit = log.path.stat().st_size  # it cannot grow
    assert forge_page.log_path.stat().st_size < limit
    newest = log.latest(1)[0][0]
    with full_disk(forge_page, limit):
        (note,) = notes(forge_page)
        assert note.startswith("The run was not logged")
        show_runs(page, "50 of 5,000 runs")  # what is there can still be read
    assert log.latest(1)[0][0] == newest
    assert notes(forge_page) == []
    assert log.latest(1)[0][0] == newest + 1


def test_ten_thousand_runs_are_bounded_and_sorted_as_a_whole_and_do_not_slow_the_page(
    forge_page: ForgeServer, page: ForgePage, log: RunLog
) -> None:
    page_before = page.page.content()
    ((_, run),) = log.latest(1)
    fill(log.path, run, MANY, fastest_first=True)
    page.open(forge_page.url)
    unfold(page)
    assert page.element(f"{RUNS}_table").inner_text().strip() == ""  # opening reads nothing of the log
    assert abs(len(page.page.content()) - len(page_before)) < 0.02 * len(page_before)
    assert "777.7 s" not in show_runs(page, f"50 of {MANY:,} runs")
    select(page, f"{RUNS}_sort", "Fastest sampling")
    page.element(f"{RUNS}_table").get_by_text("777.7 s").first.wait_for()  # the oldest of all
    assert page.element(f"{RUNS}_table").locator("tbody tr").count() == 50
    assert notes(forge_page) == []
    assert MANY - 50 < log.count() <= MANY  # the limit counts run numbers, and those of failed runs are not used again


def test_a_generation_that_was_interrupted_is_no_run(forge_page: ForgeServer, log: RunLog) -> None:
    before = log.count()
    stopped = forge_page.txt2img(**kontext(ON, **{HOOKS: {"interrupt_at_step": 2}}), steps=4)
    assert len(first_pass(stopped)["steps"]) < 4
    assert log.count() == before
    stopped = forge_page.txt2img(**kontext(ON, **{HOOKS: {"interrupt_at_step": 2}}), steps=4, n_iter=2)
    assert stopped.status == 200
    assert log.count() == before
    made(forge_page, ON, steps=2, n_iter=2)
    assert log.count() == before + 1


def fill(path: Path, run: Run, count: int, fastest_first: bool = False) -> None:
    """Fill a log up to ``count`` runs with copies of ``run``, in one transaction."""
    marks = ", ".join("?" * len(COLUMNS))
    sampling = COLUMNS.index("sampling_seconds")
    with closing(sqlite3.connect(path)) as connection, connection:
        there = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        if fastest_first:
            connection.execute("UPDATE runs SET sampling_seconds = 777.7")
        values = [*astuple(run)]
        rows = ([*values[:sampling], 1000.0 + number, *values[sampling + 1 :]] for number in range(count - there))
        connection.executemany(f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({marks})", rows)
        connection.commit()
        connection.execute("VACUUM")  # no free page is left: the next run makes the file grow
