"""Files in a slot that gradio cannot open, and files of a batch: the reason names what is wrong with which."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.integration.options import PREFIX
from lib_fluxkontext.hosts.forge.lifecycle.batch_file import batch_file
from lib_fluxkontext.hosts.forge.lifecycle.inputs import open_source, read_inputs
from lib_fluxkontext.hosts.forge.ui.slot_facts import slot_facts
from lib_fluxkontext.images.decode import WHITE

BATCH = """
def process_batch(files, work):
    for i, image in enumerate(files):
        work()
"""


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A photograph that ends too early."""
    path = tmp_path / "damaged.jpg"
    Image.effect_noise((320, 240), 90).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    return path


@pytest.fixture
def forge_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of Forge's settings as reading a request needs."""
    shared = ModuleType("modules.shared")
    shared.opts = SimpleNamespace(use_old_hires_fix_width_height=False, data={})
    monkeypatch.setitem(sys.modules, "modules", ModuleType("modules"))
    monkeypatch.setitem(sys.modules, "modules.shared", shared)


def facts(image: object) -> str:
    return slot_facts(image, "image1", "to output", False, (256, 256), False, False)


def test_a_damaged_file_is_refused_by_our_own_decoder(damaged: Path) -> None:
    text = facts(damaged)
    assert "the image is truncated or damaged" in text
    assert "fk-error" in text


def test_a_file_that_is_no_picture_is_refused_with_what_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "letter.png"
    path.write_text("Dear Sir,", encoding="utf-8")
    assert "not an image that Pillow can open (9 bytes; none of PNG, JPEG" in facts(path)


def test_a_file_that_is_gone_is_to_be_put_in_again(tmp_path: Path) -> None:
    assert "put the picture in again" in facts(tmp_path / "gone.png")
    with pytest.raises(KontextError, match=r"^image1: its file is no longer there"):
        open_source(tmp_path / "gone.png", "image1")


def test_a_path_in_a_request_is_a_text_and_reads_no_file(damaged: Path) -> None:
    assert open_source(str(damaged), "image1") == str(damaged)


def in_batch(files: list[str], work: Any) -> None:
    """Work on files as Forge's batch does."""
    module: dict[str, Any] = {"__name__": "modules.img2img"}
    exec(BATCH, module)
    module["process_batch"](files, work)


def test_the_file_of_a_batch_is_known_while_it_is_worked_on() -> None:
    seen: list[str | None] = []
    in_batch(["/a folder/a.png", "/a folder/b.jpg"], lambda: seen.append(batch_file()))
    assert seen == ["a.png", "b.jpg"]
    assert batch_file() is None


def test_a_file_of_a_batch_that_cannot_be_a_reference_is_named(forge_options: None) -> None:
    p = SimpleNamespace(
        init_images=[Image.new("RGB", (900, 40))],
        width=256,
        height=256,
        override_settings={f"{PREFIX}background": WHITE},
    )
    request = [{"enabled": True, "init_image_as_reference": True}]
    with pytest.raises(KontextError, match=r"^init_image_as_reference: narrow\.png: 900×40 is 22 times"):
        in_batch(["/a folder/narrow.png"], lambda: read_inputs(p, request))
    with pytest.raises(KontextError, match=r"^init_image_as_reference: 900×40 is 22 times"):
        read_inputs(p, request)
