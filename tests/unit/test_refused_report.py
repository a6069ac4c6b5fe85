"""After a refused generation the panel shows why, and not the numbers of the one before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.hosts.forge.ui.report_content import last_report_html, last_report_spoken
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport

IDS = ElementIds("txt2img")
REASON = "image1: 900×40 is 22 times longer than wide; at most <20>"
MEASURED = GenerationReport((PassReport("Sampling", [CallRecord(0, 1.0, 0.5, 0, 1)], 0.5),))


@pytest.fixture(autouse=True)
def after_a_generation() -> Iterator[None]:
    live_reports.publish("txt2img", MEASURED)
    yield
    live_reports.publish("txt2img", GenerationReport())


def test_the_reason_alone_is_shown_and_spoken() -> None:
    assert "fk-strip" in last_report_html(IDS)
    live_reports.publish_refusal("txt2img", REASON)
    for shown in (last_report_html(IDS), last_report_spoken(IDS)):
        assert "No picture was made: image1: 900×40 is 22 times longer than wide; at most &lt;20&gt;" in shown
        assert "fk-strip" not in shown
    assert "fk-error" in last_report_html(IDS)
    assert live_reports.last_refusal("img2img") is None


def test_the_next_generation_has_its_own_report_again() -> None:
    live_reports.publish_refusal("txt2img", REASON)
    live_reports.publish("txt2img", MEASURED)
    assert "fk-strip" in last_report_html(IDS)
    assert "No picture was made" not in last_report_spoken(IDS)
    assert live_reports.last_refusal("txt2img") is None
