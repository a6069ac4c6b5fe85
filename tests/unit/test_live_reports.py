"""Which sampling the panel's live report follows."""

from __future__ import annotations

import gc

from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.sampling.session import SamplingSession
from tests.support.small_flux import SmallFluxTransformer
from tests.support.small_session import small_session


def session_of(steps: int) -> SamplingSession:
    return small_session(SmallFluxTransformer(), total_steps=steps)


def shown(tab: str = "txt2img") -> int | None:
    """The steps of the sampling that the panel follows, which tell it from others here."""
    live = live_reports.live_report(tab)
    return None if live is None else live[1]


def test_a_generation_inside_another_gives_the_panel_back() -> None:
    outer, inner = session_of(20), session_of(8)
    live_reports.watch("txt2img", outer)
    live_reports.watch("txt2img", inner)
    assert shown() == 8
    inner.close()
    assert shown() == 20
    outer.close()
    assert shown() is None


def test_the_outer_one_may_end_first() -> None:
    outer, inner = session_of(20), session_of(8)
    live_reports.watch("txt2img", outer)
    live_reports.watch("txt2img", inner)
    outer.close()
    assert shown() == 8
    inner.close()
    assert shown() is None


def test_tabs_are_apart() -> None:
    from_text, from_image = session_of(20), session_of(8)
    live_reports.watch("txt2img", from_text)
    live_reports.watch("img2img", from_image)
    assert (shown("txt2img"), shown("img2img")) == (20, 8)
    from_text.close()
    assert (shown("txt2img"), shown("img2img")) == (None, 8)
    from_image.close()


def test_one_that_was_never_closed_is_forgotten_with_its_generation() -> None:
    outer, inner = session_of(20), session_of(8)
    live_reports.watch("txt2img", outer)
    live_reports.watch("txt2img", inner)
    del inner
    gc.collect()
    assert shown() == 20
    outer.close()
    assert shown() is None


def test_asking_changes_nothing() -> None:
    session = session_of(20)
    live_reports.watch("txt2img", session)
    assert live_reports.live_report("txt2img") is not None
    assert not session.closed
    assert shown() == 20
    session.close()
