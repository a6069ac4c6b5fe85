"""Which sampling the panel's live report follows."""

from __future__ import annotations

import gc

import pytest

from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.telemetry.recorder import CallRecorder
from lib_fluxkontext.telemetry.records import CallRecord
from tests.support.small_flux import SmallFluxTransformer
from tests.support.small_session import small_session


class Generation:
    """Owns a session, as Forge's generation does; Forge's clone of the patcher holds the session longer."""

    def __init__(self, tab: str, steps: int) -> None:
        self.session = session_of(steps)
        live_reports.watch(tab, self, self.session)


def session_of(steps: int) -> SamplingSession:
    return small_session(SmallFluxTransformer(), total_steps=steps)


def shown(tab: str = "txt2img") -> int | None:
    """The steps of the sampling that the panel follows, which tell it from others here."""
    live = live_reports.live_report(tab)
    return None if live is None else live[1]


def test_a_generation_inside_another_gives_the_panel_back() -> None:
    outer, inner = Generation("txt2img", 20), Generation("txt2img", 8)
    assert shown() == 8
    inner.session.close()
    assert shown() == 20
    outer.session.close()
    assert shown() is None


def test_the_outer_one_may_end_first() -> None:
    outer, inner = Generation("txt2img", 20), Generation("txt2img", 8)
    outer.session.close()
    assert shown() == 8
    inner.session.close()
    assert shown() is None


def test_tabs_are_apart() -> None:
    from_text, from_image = Generation("txt2img", 20), Generation("img2img", 8)
    assert (shown("txt2img"), shown("img2img")) == (20, 8)
    from_text.session.close()
    assert (shown("txt2img"), shown("img2img")) == (None, 8)
    from_image.session.close()


def test_one_that_was_never_closed_is_forgotten_with_its_generation() -> None:
    outer, inner = Generation("txt2img", 20), Generation("txt2img", 8)
    held_by_forge = inner.session
    del inner
    gc.collect()
    assert shown() == 20
    assert not held_by_forge.closed
    outer.session.close()
    assert shown() is None


def test_a_session_that_waits_for_the_gpu_while_it_closes_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = Generation("txt2img", 20)
    meanwhile: list[int | None] = []
    finish = CallRecorder.finish

    def slow_finish(recorder: CallRecorder) -> tuple[list[CallRecord], str | None]:
        meanwhile.append(shown())
        return finish(recorder)

    monkeypatch.setattr(CallRecorder, "finish", slow_finish)
    generation.session.close()
    assert meanwhile == [None]


def test_asking_changes_nothing() -> None:
    generation = Generation("txt2img", 20)
    assert live_reports.live_report("txt2img") is not None
    assert not generation.session.closed
    assert shown() == 20
    generation.session.close()
