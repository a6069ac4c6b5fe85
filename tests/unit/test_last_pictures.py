"""The pictures that the panel compares are those of the tab's last report; keeping them never breaks a generation."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext.hosts.forge.lifecycle import last_pictures, live_reports
from lib_fluxkontext.images.decode import decode_reference
from lib_fluxkontext.images.pair import PicturePair
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.records import GenerationReport
from tests.support.photos import woman

SETTINGS = KontextSettings(sizing="to output")


@dataclass
class Processed:
    """What is used of Forge's."""

    images: list[Image.Image]
    extra_generation_params: dict[str, Any]
    index_of_first_image: int = 0


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Forge's log of errors."""
    logged: list[str] = []
    errors = ModuleType("modules.errors")
    errors.report = lambda message, **_: logged.append(message)
    modules = ModuleType("modules")
    modules.errors = errors
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.setitem(sys.modules, "modules.errors", errors)
    return logged


def generated(tab: str, *images: Image.Image, references: int = 1, first: int = 0) -> GenerationReport:
    """End a generation as Forge's callback does."""
    report = GenerationReport((), None)
    live_reports.publish(tab, report)
    given = [decode_reference(woman(), "image1")] * references
    last_pictures.keep(tab, report, SETTINGS, given, Processed(list(images), {}, first))
    return report


def test_the_first_result_is_kept_and_not_the_grid() -> None:
    grid, result = Image.new("RGB", (512, 256)), woman().resize((256, 256))
    generated("txt2img", grid, result, woman(), first=1)
    kept = last_pictures.last_pictures("txt2img")
    assert kept is not None
    assert kept.pair.result.tobytes() == result.tobytes()
    assert kept.pair.reference.size == (256, 256)
    assert kept.match is not None
    assert kept.match.is_aligned
    assert last_pictures.last_pictures("img2img") is None


def test_the_next_generation_replaces_and_releases_them() -> None:
    generated("txt2img", woman())
    first = weakref.ref(last_pictures.last_pictures("txt2img"))
    generated("txt2img", woman(), references=0)
    gc.collect()
    assert first() is None
    assert last_pictures.last_pictures("txt2img") is None


def test_after_a_generation_that_failed_the_pictures_of_the_one_before_are_not_shown() -> None:
    generated("txt2img", woman())
    live_reports.publish("txt2img", GenerationReport((), None))  # its sampling ended, and it failed then
    assert last_pictures.last_pictures("txt2img") is None


def test_without_a_picture_nothing_is_kept() -> None:
    generated("txt2img")
    assert last_pictures.last_pictures("txt2img") is None


def test_a_result_of_an_extreme_shape_is_not_kept() -> None:
    generated("txt2img", Image.new("RGB", (4096, 8)))
    assert last_pictures.last_pictures("txt2img") is None


def test_whatever_goes_wrong_is_logged_and_the_generation_goes_on(
    failures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(PicturePair, "estimate", broken)
    generated("txt2img", woman())
    kept = last_pictures.last_pictures("txt2img")
    assert kept is not None
    assert kept.match is None
    assert kept.match is None
    assert len(failures) == 1
    monkeypatch.setattr(last_pictures, "picture_pair", broken)
    generated("txt2img", woman())
    assert last_pictures.last_pictures("txt2img") is None
    assert len(failures) == 2


def test_nothing_is_estimated_before_the_panel_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PicturePair] = []
    monkeypatch.setattr(PicturePair, "estimate", lambda pair: asked.append(pair))
    generated("txt2img", woman())
    assert asked == []
    kept = last_pictures.last_pictures("txt2img")
    assert kept is not None
    assert (kept.match, kept.match) == (None, None)
    assert len(asked) == 1
