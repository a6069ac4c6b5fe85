"""Which generation the panel's live report follows."""

from __future__ import annotations

import gc
from types import SimpleNamespace

from lib_fluxkontext.hosts.forge.lifecycle import live_reports as latest
from lib_fluxkontext.telemetry.records import GenerationReport


class Under:
    """A generation under way."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def so_far(self) -> tuple[GenerationReport, int]:
        return GenerationReport(), self.steps


def shown(tab: str = "txt2img") -> int | None:
    """The steps of the generation that the panel follows, which tell it from others here."""
    now = latest.running(tab)
    return None if now is None else now[1]


def test_a_generation_inside_another_gives_the_panel_back() -> None:
    p, outer, inner = SimpleNamespace(), Under(20), Under(8)
    latest.watch(p, outer.so_far)
    latest.watch(p, outer.so_far)  # Forge announces a hires pass twice
    latest.watch(SimpleNamespace(), inner.so_far)
    assert shown() == 8
    latest.unwatch(SimpleNamespace(), inner.so_far)
    assert shown() == 20
    latest.unwatch(p, outer.so_far)
    latest.unwatch(p, outer.so_far)
    assert shown() is None


def test_the_outer_one_may_end_first() -> None:
    p, outer, inner = SimpleNamespace(), Under(20), Under(8)
    latest.watch(p, outer.so_far)
    latest.watch(p, inner.so_far)
    latest.unwatch(p, outer.so_far)
    assert shown() == 8
    latest.unwatch(p, inner.so_far)
    assert shown() is None


def test_tabs_are_apart() -> None:
    one, other = Under(20), Under(8)
    latest.watch(SimpleNamespace(), one.so_far)
    latest.watch(SimpleNamespace(init_images=[]), other.so_far)
    assert (shown("txt2img"), shown("img2img")) == (20, 8)
    latest.unwatch(SimpleNamespace(), one.so_far)
    assert (shown("txt2img"), shown("img2img")) == (None, 8)
    latest.unwatch(SimpleNamespace(init_images=[]), other.so_far)


def test_one_that_was_never_taken_back_is_forgotten_with_its_generation() -> None:
    p, outer, inner = SimpleNamespace(), Under(20), Under(8)
    latest.watch(p, outer.so_far)
    latest.watch(p, inner.so_far)
    del inner
    gc.collect()
    assert shown() == 20
    latest.unwatch(p, outer.so_far)
    assert shown() is None
