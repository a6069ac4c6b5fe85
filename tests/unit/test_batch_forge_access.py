"""Who may use a Forge server for a batch, and how a batch leaves it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lib_fluxkontext.batch.worker import Made, WorkerLost
from lib_fluxkontext.commands.batch_workers import WorkerOptions, default_checkpoint
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.diffusers.options import LoadOptions
from lib_fluxkontext.hosts.forge_api import worker as worker_module
from lib_fluxkontext.hosts.forge_api.worker import ForgeWorker
from tests.support.fake_forge import OTHER, TXT2IMG, FakeForge, row, worker_of

INTERRUPT = "/sdapi/v1/interrupt"


@pytest.fixture
def fake() -> Iterator[FakeForge]:
    server = FakeForge()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LOOK_INTERVAL", 0.02)


def test_the_password_goes_to_the_server_and_nowhere_else(fake: FakeForge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fake.password = "me:s3cret:x"
    worker = worker_of(fake, "me:s3cret:x")
    assert worker.check() == "kontext"
    assert isinstance(worker.make([row()])[0], Made)
    assert len(fake.authorizations) == 1
    fake.password = "me:changed"
    messages = []
    for call in (worker.check, worker_of(fake).check):
        with pytest.raises(KontextError, match=r"refuses user and password \(401\)") as refused:
            call()
        messages.append(str(refused.value))
    with pytest.raises(KontextError) as refused:
        ForgeWorker("http://me:s3cret@127.0.0.1:7860")
    said = "\n".join([*messages, str(refused.value), caplog.text, repr(worker), worker.name])
    assert "s3cret" not in said
    assert "czNjcmV0" not in said


def serve_jpeg(fake: FakeForge) -> None:
    fake.answers["/sdapi/v1/options"]["samples_format"] = "jpg"


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda fake: fake.answers.update({"/sdapi/v1/scripts": {"txt2img": ["x/y/z plot"]}}), "has no Flux Kontext"),
        (serve_jpeg, "pictures as jpg"),
        (lambda fake: fake.statuses.update({"/sdapi/v1/scripts": 404}), "start Forge with --api"),
        (lambda fake: fake.statuses.update({"/sdapi/v1/scripts": 307}), "give that address"),
        (lambda fake: fake.answers.update({"/sdapi/v1/scripts": b"<html>"}), "something that is not Forge's API"),
        (lambda fake: fake.stop(), "connection refused"),
    ],
)
def test_a_server_that_cannot_serve_a_batch_is_refused_at_the_start(
    fake: FakeForge, prepare: Callable[[FakeForge], Any], words: str
) -> None:
    prepare(fake)
    with pytest.raises(KontextError, match=words):
        worker_of(fake).check()


def test_servers_that_would_make_other_pictures_are_refused(fake: FakeForge) -> None:
    second = FakeForge()
    try:
        where = WorkerOptions(LoadOptions(), 1, [fake.url, second.url], None, None, None)
        assert default_checkpoint(where) == "kontext"
        second.answers["/sdapi/v1/options"]["sd_model_checkpoint"] = OTHER["title"]
        with pytest.raises(KontextError, match="different checkpoints selected: kontext at .*, other at .*; select"):
            default_checkpoint(where)
    finally:
        second.stop()


@pytest.mark.parametrize(
    ("page", "job_before", "interrupted"),
    [
        ({"active": True, "progress": 0.25}, "another's", True),
        ({"active": False}, "another's", False),
        (None, "", True),
        (None, "another's", False),
    ],
    ids=["ours", "queued", "ours, without page", "perhaps another's, without page"],
)
def test_closing_interrupts_the_row_in_hand_and_nobody_elses(
    fake: FakeForge, page: dict[str, Any] | None, job_before: str, interrupted: bool
) -> None:
    fake.answers["/sdapi/v1/progress"] = lambda _: {
        "progress": 0.25,
        "state": {"job": "scripts_txt2img" if fake.generating.is_set() else job_before},
    }
    if page:
        fake.statuses.clear()
        fake.answers["/internal/progress"] = page
    fake.hold.clear()
    worker = worker_of(fake)
    lost = []

    def run() -> None:
        try:
            worker.make([row()])
        except WorkerLost as error:
            lost.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert fake.generating.wait(30)
    while interrupted and worker.fraction != 0.25:
        assert thread.is_alive()
        time.sleep(0.01)
    worker.close()
    thread.join(30)
    assert lost
    assert fake.count(INTERRUPT) == int(interrupted)
    assert worker.fraction is None
    with pytest.raises(WorkerLost):
        worker.make([row()])
    assert fake.count(TXT2IMG) == 1
