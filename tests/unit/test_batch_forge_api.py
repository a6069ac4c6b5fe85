"""A Forge server as a worker of a batch: whose fault a failure is, what is tried again, and what ends."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext import infotext
from lib_fluxkontext.batch.row import Lora, Row
from lib_fluxkontext.batch.worker import Failed, Made, WorkerLost
from lib_fluxkontext.hosts.forge_api import exchange
from lib_fluxkontext.hosts.forge_api import worker as worker_module
from lib_fluxkontext.hosts.forge_api.worker import MAX_BROKEN_ROWS, ForgeWorker
from lib_fluxkontext.images.files import CHANGED
from lib_fluxkontext.settings import KontextSettings
from tests.support.fake_forge import CHECKPOINT, OTHER, TRIES, TXT2IMG, FakeForge, row, worker_of


@pytest.fixture
def fake() -> Iterator[FakeForge]:
    server = FakeForge()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LOOK_INTERVAL", 0.02)


def make(worker: ForgeWorker, *rows: Row) -> list[Made | Failed]:
    return worker.make(rows or [row()])


def reason(outcome: Made | Failed) -> str:
    assert isinstance(outcome, Failed)
    return outcome.reason


def test_nothing_of_it_needs_torch() -> None:
    """A machine that only drives servers starts at once; the label that it therefore repeats is the same."""
    code = f"import sys, {worker_module.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert exchange.REPORT == infotext.REPORT


def test_a_row_is_sent_whole_and_its_png_comes_back_as_the_server_made_it(fake: FakeForge, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (20, 20), "red").save(photo)
    settings = KontextSettings(enabled=True, cache_threshold=0.2, sizing="to output")
    loras = (Lora("ink.safetensors", 0.75), Lora("Ink Style"))
    asked = row(7, (photo,), settings=settings, checkpoint="other", guidance=2.5, loras=loras)
    worker = worker_of(fake)
    (made,) = make(worker, asked)
    (payload,) = fake.payloads
    assert isinstance(made, Made)
    assert made.picture == fake.picture(payload)
    assert (made.infotext, made.made_by, made.report["sampling_seconds"]) == ("", fake.url, 1.0)
    assert payload.pop("force_task_id")
    assert payload == {
        "prompt": "make it blue <lora:ink:0.75> <lora:ink:1>",
        "steps": 3,
        "seed": 7,
        "width": 32,
        "height": 48,
        "cfg_scale": 1.0,
        "distilled_cfg_scale": 2.5,
        "sampler_name": "Euler",
        "scheduler": "Simple",
        "save_images": False,
        "override_settings": {"sd_model_checkpoint": OTHER["title"]},
        "override_settings_restore_afterwards": False,
        "alwayson_scripts": {
            "Flux Kontext": {
                "args": [
                    {
                        "enabled": True,
                        "cache_threshold": 0.2,
                        "sizing": "to output",
                        "image1": base64.b64encode(photo.read_bytes()).decode(),
                    }
                ]
            }
        },
    }
    make(worker, row(8))
    assert fake.payloads[1]["override_settings"]["sd_model_checkpoint"] == CHECKPOINT["title"]
    assert (worker.counters.loads, worker.counters.encodes) == (2, 4)


def test_at_the_end_the_server_has_its_own_checkpoint_selected_again(fake: FakeForge) -> None:
    worker = worker_of(fake)
    make(worker, row(1, checkpoint="other"))
    assert fake.selected == []
    worker.close()
    worker.close()
    assert fake.selected == [CHECKPOINT["title"]]
    unchanged = worker_of(fake)
    make(unchanged)
    unchanged.close()
    assert len(fake.selected) == 1


def test_rows_without_a_checkpoint_get_what_was_selected_before_the_batch(fake: FakeForge) -> None:
    worker = worker_of(fake)
    make(worker, row(1, checkpoint="other"), row(2))
    asked = [payload["override_settings"]["sd_model_checkpoint"] for payload in fake.payloads]
    assert asked == [OTHER["title"], CHECKPOINT["title"]]


def test_infotext_is_handed_over_where_the_png_has_none(fake: FakeForge) -> None:
    fake.text_in_png = False
    (made,) = make(worker_of(fake))
    assert isinstance(made, Made)
    assert made.infotext == "infotext of seed 1"
    assert isinstance(made.picture, Image.Image)
    with Image.open(io.BytesIO(fake.picture(fake.payloads[0]))) as sent:
        assert made.picture.tobytes() == sent.tobytes()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (422, {"detail": "image1: truncated\nfile"}, Failed("truncated file", "image1")),
        (422, {"detail": [{"loc": ["body", "steps"], "msg": "too many"}]}, Failed("steps: too many")),
        (400, {"detail": "Sampler not found"}, Failed("Sampler not found")),
        (413, b"<html>", Failed("Request Entity Too Large")),
    ],
)
def test_what_is_the_rows_own_fault_is_not_tried_again(
    fake: FakeForge, status: int, body: Any, expected: Failed
) -> None:
    fake.failures = [(status, body)]
    first, second = make(worker_of(fake), row(1), row(2))
    assert first == expected
    assert isinstance(second, Made)
    assert fake.count(TXT2IMG) == 2


def test_a_reference_that_is_gone_or_another_one_now_fails_its_row_alone(fake: FakeForge, tmp_path: Path) -> None:
    gone, changed = tmp_path / "gone.png", tmp_path / "changed.png"
    for path in (gone, changed):
        Image.new("RGB", (20, 20)).save(path)
    rows = [row(1, (gone,)), row(2, (changed,)), row(3)]
    gone.unlink()
    changed.write_bytes(b"other")
    outcomes = make(worker_of(fake), *rows)
    assert "no such file" in reason(outcomes[0])
    assert reason(outcomes[1]) == CHANGED
    assert isinstance(outcomes[2], Made)
    assert fake.count(TXT2IMG) == 1


def test_lost_connections_and_errors_of_the_server_are_tried_again(fake: FakeForge) -> None:
    fake.failures = [(0, None), (503, {}), (500, {"detail": "", "errors": "CUDA error"})]
    (made,) = make(worker_of(fake))
    assert isinstance(made, Made)
    assert fake.count(TXT2IMG) == 4
    assert fake.failures == []


def test_a_picture_that_somebody_interrupted_is_made_again(fake: FakeForge) -> None:
    fake.steps = [2]
    (made,) = make(worker_of(fake))
    assert isinstance(made, Made)
    assert made.report["steps"] == 3
    assert fake.count(TXT2IMG) == 2


def test_a_row_that_always_breaks_the_server_ends_with_the_reason(fake: FakeForge) -> None:
    fake.failures = [(500, {"errors": "a bad\nrow"})] * TRIES
    worker = worker_of(fake)
    first, second = make(worker, row(1), row(2))
    assert reason(first) == f"the server failed {TRIES} times: a bad row (500)"
    assert isinstance(second, Made)
    assert fake.count(TXT2IMG) == TRIES + 1


def test_a_server_that_fails_at_every_row_is_lost_unless_memory_ran_out(fake: FakeForge) -> None:
    fake.always = (500, {"errors": "CUDA error: device-side assert"})
    worker = worker_of(fake)
    for number in range(1, MAX_BROKEN_ROWS):
        assert "device-side" in reason(make(worker, row(number))[0])
    with pytest.raises(WorkerLost, match="device-side"):
        make(worker, row(99))
    fake.always = (500, {"errors": "CUDA out of memory"})
    outcomes = make(worker_of(fake), *map(row, range(1, MAX_BROKEN_ROWS + 2)))
    assert all("out of memory" in reason(outcome) for outcome in outcomes)


def test_a_server_that_is_restarted_in_the_middle_of_a_row_is_waited_for(fake: FakeForge) -> None:
    fake.hold.clear()
    outcomes: list[Made | Failed] = []
    thread = threading.Thread(target=lambda: outcomes.extend(make(worker_of(fake))))
    thread.start()
    assert fake.generating.wait(30)
    fake.stop()
    time.sleep(0.3)  # long enough for more looks than there are tries
    restarted = FakeForge(fake.port)
    restarted.statuses["/sdapi/v1/scripts"] = 404  # Forge's page is there before its API
    while restarted.count("/sdapi/v1/scripts") < 2:
        time.sleep(0.01)
    assert thread.is_alive()
    del restarted.statuses["/sdapi/v1/scripts"]
    thread.join(30)
    restarted.stop()
    assert isinstance(outcomes[0], Made)
    assert restarted.count(TXT2IMG) == 1


def test_a_server_that_does_not_come_back_is_lost(fake: FakeForge) -> None:
    worker = worker_of(fake, wait_seconds=0.2)
    make(worker)
    fake.stop()
    with pytest.raises(WorkerLost, match=r"cannot be reached: connection refused; it was waited for 0\.2 s"):
        make(worker, row(2))


@pytest.mark.parametrize(
    ("more", "name", "field"),
    [
        ({"checkpoint": "kontxt"}, "kontext", "checkpoint"),
        ({"loras": (Lora("inc"),)}, "ink", "lora"),
    ],
)
def test_a_name_that_the_server_would_ignore_fails_its_row(
    fake: FakeForge, more: dict[str, Any], name: str, field: str
) -> None:
    """The server is made to read its folders again, once."""
    outcomes = make(worker_of(fake), row(1, **more), row(2, **more))
    for outcome in outcomes:
        assert f'did you mean "{name}"' in reason(outcome)
        assert isinstance(outcome, Failed)
        assert outcome.field == field
    assert fake.count(TXT2IMG) == 0
    assert sum("refresh" in request for request in fake.requests) == 1
