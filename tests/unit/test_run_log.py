"""The run log's file: one that is damaged, locked, read-only or full costs a message and no more."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lib_fluxkontext.history import store as log_module
from lib_fluxkontext.history.store import LogError, RunLog
from lib_fluxkontext.presentation.run_table import SORTABLE
from tests.support.runs import RUN, run


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path / "deep" / "runs.sqlite")


def test_what_goes_in_comes_out_and_survives_a_restart(log: RunLog) -> None:
    assert log.latest() == []
    assert log.count() == 0
    log.add(RUN)
    log.add(run(seed=8, kept_seconds=None))
    again = RunLog(log.path)
    assert again.count() == 2
    assert again.latest() == [(2, run(seed=8, kept_seconds=None)), (1, RUN)]
    assert again.get([1, 99, 2]) == [(1, RUN), (2, run(seed=8, kept_seconds=None))]


def test_sorting(log: RunLog) -> None:
    for seconds in (30.0, 10.0, 20.0):
        log.add(run(sampling_seconds=seconds))
    for column, descending in SORTABLE.values():
        assert len(log.latest(sort=column, descending=descending)) == 3
    fastest = log.latest(2, *SORTABLE["Fastest sampling"])
    assert [fast_run.sampling_seconds for _, fast_run in fastest] == [10.0, 20.0]
    with pytest.raises(ValueError, match="no column"):
        log.latest(sort="id; DROP TABLE runs")
    log.add(run(computed_seconds=None))
    assert log.latest(4, *SORTABLE["Fastest step"])[-1][1].computed_seconds is None


def test_the_oldest_go_first_and_all_can_go(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.sqlite", limit=3)
    for seed in range(5):
        log.add(run(seed=seed))
    assert [logged.seed for _, logged in log.latest()] == [4, 3, 2]
    log.clear()
    assert log.count() == 0
    log.add(RUN)
    assert log.count() == 1


@pytest.mark.parametrize("content", [b"this is a text, not a database " * 50, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_renamed_and_a_new_one_created(log: RunLog, content: bytes) -> None:
    log.path.parent.mkdir()
    log.path.write_bytes(content)
    with pytest.raises(LogError):
        log.latest()
    damaged_file = log.add(RUN)
    assert log.count() == 1
    assert damaged_file is not None
    assert damaged_file.read_bytes() == content
    assert log.add(RUN) is None


def test_an_empty_file_is_as_good_as_none(log: RunLog) -> None:
    log.path.parent.mkdir()
    log.path.touch()
    assert log.latest() == []
    log.add(RUN)
    assert log.count() == 1


def test_a_locked_file_costs_a_message_after_a_short_wait(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.add(RUN)
    monkeypatch.setattr(log_module, "BUSY_TIMEOUT_SECONDS", 0.2)
    server = sqlite3.connect(log.path)
    server.execute("BEGIN EXCLUSIVE")
    start = time.perf_counter()
    with pytest.raises(LogError, match="not logged: database is locked"):
        log.add(RUN)
    assert time.perf_counter() - start < 3
    server.rollback()
    server.close()
    log.add(RUN)
    assert log.count() == 2


def test_a_folder_that_cannot_be_written_costs_a_message(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(LogError, match="not logged"):
        RunLog(tmp_path / "a-file" / "runs.sqlite").add(RUN)


def test_a_read_only_file_costs_a_message_and_can_be_read(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.add(RUN)
    connect = sqlite3.connect
    monkeypatch.setattr(
        log_module.sqlite3, "connect", lambda path, timeout: connect(f"file:{path}?mode=ro", uri=True, timeout=timeout)
    )
    with pytest.raises(LogError, match="readonly"):
        log.add(RUN)
    assert log.count() == 1


def test_a_full_disk_costs_a_message_and_keeps_what_was_there(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.add(RUN)
    connect = sqlite3.connect

    def full(path: Path, timeout: float) -> sqlite3.Connection:
        connection = connect(path, timeout=timeout)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(log_module.sqlite3, "connect", full)
    with pytest.raises(LogError, match="full"):
        log.add(run(thumbnail=b"x" * 100_000))
    monkeypatch.undo()
    assert log.latest() == [(1, RUN)]


def test_a_log_from_the_future_is_left_alone(log: RunLog) -> None:
    log.add(RUN)
    connection = sqlite3.connect(log.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LogError, match="newer version"):
        log.add(RUN)
    with pytest.raises(LogError, match="newer version"):
        log.latest()
    assert not list(log.path.parent.glob("*.damaged-*"))


LATER_COLUMNS = 4
"""Added since the first version: the prompt, and the three of the memory estimate."""

FIRST_VERSION = """
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, made TEXT, checkpoint TEXT, low_bits TEXT, loras TEXT,
    sampler TEXT, scheduler TEXT, steps INTEGER, size TEXT, images INTEGER, seed INTEGER, reference_tokens INTEGER,
    cache TEXT, reference_refresh INTEGER, reused_share REAL, computed_seconds REAL, kept_seconds REAL,
    reused_seconds REAL, sampling_seconds REAL, encode_seconds REAL, memory_bytes INTEGER, on_card INTEGER,
    settings TEXT, thumbnail BLOB);
PRAGMA user_version = 1;
"""


@pytest.fixture
def old_log(log: RunLog) -> RunLog:
    """A log as the first version wrote it, with one run."""
    log.path.parent.mkdir()
    with closing(sqlite3.connect(log.path)) as connection, connection:
        connection.executescript(FIRST_VERSION)
        values = dataclasses.astuple(RUN)[: len(dataclasses.fields(RUN)) - LATER_COLUMNS]
        connection.execute(f"INSERT INTO runs VALUES (1, {', '.join('?' * len(values))})", values)
    return log


def test_an_older_log_is_read_as_it_is_and_migrated_in_place(old_log: RunLog) -> None:
    content = old_log.path.read_bytes()
    assert old_log.latest() == old_log.get([1]) == [(1, RUN)]
    assert old_log.count() == 1
    assert old_log.path.read_bytes() == content  # it may lie where nothing can be written
    old_log.add(run(prompt="a cat"))
    assert old_log.latest() == [(2, run(prompt="a cat")), (1, RUN)]
    assert not list(old_log.path.parent.glob("*.damaged-*"))


@pytest.mark.parametrize("version", [2, 3])
def test_a_log_of_any_version_gets_the_columns_of_the_memory_estimate(old_log: RunLog, version: int) -> None:
    with closing(sqlite3.connect(old_log.path)) as connection, connection:
        for statements in log_module.MIGRATIONS[: version - 1]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
    estimated = run(estimated_bytes=3 << 30, reserved_bytes=1 << 30, used_bytes=None)
    old_log.add(estimated)
    assert old_log.latest() == [(2, estimated), (1, RUN)]


def test_a_server_that_migrates_meanwhile_is_noticed(old_log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other server migrates after this one has seen an old table, and before it has the lock."""
    ask, asked = log_module._version, []

    def version(connection: sqlite3.Connection) -> int:
        asked.append(ask(connection))
        if len(asked) == 2:
            with monkeypatch.context() as undone:
                undone.setattr(log_module, "_version", ask)
                RunLog(old_log.path).add(run(seed=8))
        return asked[-1]

    monkeypatch.setattr(log_module, "_version", version)
    old_log.add(run(seed=9))
    assert asked[:2] == [1, 1]
    assert [logged.seed for _, logged in old_log.latest()] == [9, 8, 7]


def test_two_servers_on_an_older_file(old_log: RunLog) -> None:
    servers = [multiprocessing.get_context("spawn").Process(target=_write, args=(old_log.path, 5)) for _ in range(2)]
    for server in servers:
        server.start()
    for server in servers:
        server.join(60)
    assert [server.exitcode for server in servers] == [0, 0]
    assert old_log.count() == 11


def test_a_migration_that_fails_leaves_the_older_log(old_log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        log_module, "MIGRATIONS", (*log_module.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN prompt TEXT",))
    )
    monkeypatch.setattr(log_module, "VERSION", log_module.VERSION + 1)
    with pytest.raises(LogError, match="duplicate column"):
        old_log.add(RUN)
    monkeypatch.undo()
    with closing(sqlite3.connect(old_log.path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    old_log.add(RUN)
    assert old_log.count() == 2


def _write(path: Path, count: int) -> None:
    for _ in range(count):
        RunLog(path).add(RUN)


def test_two_servers_on_one_file(log: RunLog) -> None:
    log.path.parent.mkdir()
    servers = [multiprocessing.get_context("spawn").Process(target=_write, args=(log.path, 20)) for _ in range(2)]
    for server in servers:
        server.start()
    for server in servers:
        server.join(60)
    assert [server.exitcode for server in servers] == [0, 0]
    assert log.count() == 40


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts handles where the system lists them")
def test_no_handle_is_left_behind(log: RunLog) -> None:
    log.add(RUN)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        log.add(RUN)
        log.latest()
    assert len(os.listdir("/proc/self/fd")) == before


def test_clearing_a_damaged_log_renames_it(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.sqlite")
    log.path.write_bytes(b"this is not a database" * 400)
    with pytest.raises(LogError, match="cannot be read"):
        log.latest()
    log.clear()
    assert log.latest() == []
    assert len(list(tmp_path.glob("runs.sqlite.damaged-*"))) == 1
