"""Arithmetic of reports, and their text and HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from lib_fluxkontext.caching.kv_store import KVUsage
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.html import live_html, report_html
from lib_fluxkontext.presentation.strip import remaining_seconds
from lib_fluxkontext.telemetry.memory import MemoryUse
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport

MEMORY = MemoryUse(None, None, None, None, None, 3 * 2**30)
CARD = MemoryUse("RTX", 8 * 2**30, 9 * 2**30, 10 * 2**30, 12 * 2**30, 2**30)


def calls(*rows: tuple[int, float, int, int]) -> list[CallRecord]:
    return [CallRecord(step, 1.0 - step / 10, seconds, reused, images) for step, seconds, reused, images in rows]


def report(*rows: tuple[int, float, int, int], seconds: float = 5.0) -> GenerationReport:
    return GenerationReport((PassReport("Sampling", calls(*rows), seconds),), MEMORY)


def test_calls_of_one_step_add_up() -> None:
    added = report((0, 1.0, 0, 1), (0, 0.5, 1, 1), (1, 0.25, 1, 1), (1, 0.25, 1, 1))
    assert [(step.seconds, step.calls, step.kind) for step in added.steps] == [(1.5, 2, "mixed"), (0.5, 2, "reused")]


def test_medians_shares_and_speed_up() -> None:
    sampled = report((0, 1.0, 0, 1), (1, 3.0, 0, 1), (2, 2.0, 0, 1), (3, 0.5, 1, 1), (4, 0.5, 1, 1))
    assert sampled.computed_seconds == 2.0
    assert sampled.reused_seconds == 0.5
    assert sampled.reused_share == pytest.approx(0.4)
    assert sampled.speed_up == pytest.approx(5 * 2.0 / 7.0)
    assert text.steps_cached(sampled) == "2 of 5"


def test_a_batch_that_splits_counts_by_images() -> None:
    sampled = report((0, 1.0, 0, 2), (1, 0.6, 1, 2))
    assert sampled.reused_share == pytest.approx(0.25)
    assert text.steps_cached(sampled) == "0 of 2 (25% of all images' steps)"


def test_speed_up_is_counted_pass_by_pass() -> None:
    first = PassReport("first", calls((0, 1.0, 0, 1), (1, 1.0, 0, 1)), 2.0)
    hires = PassReport("hires", calls((0, 9.0, 0, 1), (1, 9.0, 0, 1)), 18.0)
    assert GenerationReport((first, hires)).speed_up == 1.0
    hires = PassReport("hires", calls((0, 9.0, 0, 1), (1, 1.0, 1, 1)), 10.0)
    assert GenerationReport((first, hires)).speed_up == pytest.approx(20 / 12)


def test_nothing_sampled_divides_by_nothing() -> None:
    empty = GenerationReport((PassReport("Sampling", [], 0.0),), MEMORY)
    assert empty.speed_up is None
    assert empty.reused_share == 0
    assert text.step_time(empty) == "no step finished"
    assert "No step finished" in report_html(empty, "x")


def test_the_dictionary_is_json() -> None:
    back = json.loads(json.dumps(report((0, 1.0, 0, 1), (1, 0.1, 1, 1)).to_dict()))
    assert back["reused_steps"] == 1
    assert back["steps"] == 2
    assert [step["kind"] for step in back["passes"][0]["steps"]] == ["computed", "reused"]


@pytest.mark.parametrize(
    ("value", "formatted"), [(None, "–"), (0.0042, "4.2 ms"), (0.042, "42 ms"), (2.5, "2.50 s"), (61.2, "61.2 s")]
)
def test_seconds_read_well(value: float | None, formatted: str) -> None:
    assert text.seconds(value) == formatted


def test_memory_without_cuda_says_so() -> None:
    assert text.memory_peak(GenerationReport((), MEMORY)) == "no CUDA; process 3.00 GB"
    assert text.memory_peak(GenerationReport((), CARD)) == "8.00 GB allocated; 9.00 GB reserved"


def strip(html: str) -> dict[str, str]:
    """Return names and values of the strip."""
    (found,) = re.findall(r'<dl class="fk-strip">(.*?)</dl>', html)
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", found))


class _Balanced(HTMLParser):
    void = {"br", "line", "rect", "circle"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


@pytest.mark.parametrize("steps", [1, 20, 150])
def test_the_html_is_balanced_and_tells_kinds_apart_without_colour(steps: int) -> None:
    html = report_html(report(*[(i, 0.1 + i % 3, i % 2, 1) for i in range(steps)]), "chart")
    parser = _Balanced()
    parser.feed(html)
    assert parser.open == []
    assert html.count("<title>Step ") == steps
    if 1 < steps <= 40:
        assert html.count(">R</text>") == steps // 2
        assert html.count(">C</text>") == steps - steps // 2


def test_labels_are_escaped() -> None:
    nasty = GenerationReport((PassReport("<script>", calls((0, 1.0, 0, 1)), 1.0, notes=("<b>",)),) * 2, MEMORY)
    assert "<script>" not in report_html(nasty, "x")
    assert "<b>" not in report_html(nasty, "x")


def test_a_full_card_is_called_a_suspicion() -> None:
    spill = GenerationReport((PassReport("s", calls((0, 1.0, 0, 1)), 1.0),), MemoryUse("RTX", 1, 2, 3, 4, 5, True))
    assert "inferred, not measured" in report_html(spill, "x")
    assert text.memory_peak(spill).endswith("spill suspected")


def test_a_running_generation_says_how_long_still() -> None:
    sampled = report((0, 4.0, 0, 1), (1, 1.0, 1, 1), (2, 1.0, 1, 1), seconds=6.5)
    assert remaining_seconds(sampled.steps, 20) == pytest.approx(17 * 2.0)
    assert remaining_seconds(sampled.steps, 3) == 0
    assert remaining_seconds([], 20) is None
    html = live_html(sampled, 20, "x")
    assert strip(html) == {
        "Step": "4 of 20",
        "Step time": "1.00 s",
        "Reused": "2 of 3",
        "Time left": "34.0 s",
        "Process memory": "3.00 GB",
    }
    begun = live_html(GenerationReport((PassReport("Batch 2, hires pass", [], 0.1),), MEMORY), 20, "x")
    assert strip(begun)["Batch 2, hires pass"] == "1 of 20"
    assert strip(begun)["Time left"] == "–"
    assert strip(live_html(GenerationReport(sampled.passes, CARD), 20, "x"))["VRAM"] == "10.00 GB of 12.00 GB"


def test_a_finished_generation_says_at_a_glance_whether_it_went_faster_and_fitted() -> None:
    sampled = report((0, 1.0, 0, 1), (1, 0.1, 1, 1), (2, 0.1, 1, 1), seconds=1.25)
    assert strip(report_html(GenerationReport(sampled.passes, CARD), "x")) == {
        "Sampling": "1.25 s",
        "Step time": "1.00 s / 0.10 s",
        "Reused": "2 of 3",
        "Speed-up": "2.50×",
        "VRAM peak": "10.00 GB of 12.00 GB",
    }
    full = MemoryUse("RTX", 1, 2, 3, 4, 5, True)
    assert strip(report_html(GenerationReport(sampled.passes, full), "x"))["VRAM peak"].endswith(", full")


def test_what_was_measured_is_folded_but_on_a_page_of_its_own() -> None:
    sampled = report((0, 1.0, 0, 1))
    assert '<details data-fk-fold="steps"><summary>' in report_html(sampled, "x")
    assert '<details data-fk-fold="steps" open><summary>' in report_html(sampled, "x", on_panel=False)


def test_what_is_read_aloud_is_short_and_changes_at_quarters_alone() -> None:
    rows = [(step, 1.0 if step == 0 else 0.1, int(step > 0), 1) for step in range(10)]
    lines = [text.progress(report(*rows[:done]), 10) for done in range(11)]
    assert lines[0] == "Sampling: 0% of 10 steps"
    assert lines[-1] == "Sampling: 100% of 10 steps"
    assert len(set(lines)) == 5
    sampled = report(*rows, seconds=2.0)
    assert text.summary(sampled) == "Steps: 10 in 2.00 s: 1 computed, 9 reused; 5.3 times as fast as computing all."
    assert text.summary(report((0, 1.0, 0, 1), seconds=1.0)) == "Steps: 1 in 1.00 s: 1 computed."
    spilled = GenerationReport((), MemoryUse("RTX", 1, 2, 3, 4, 5, True))
    assert text.summary(spilled).startswith("No step finished. The card was full")


def test_what_the_user_should_know_is_read_aloud_too_and_once() -> None:
    noted = PassReport("Sampling", calls((0, 1.0, 0, 1)), 1.0, notes=("It had no effect.",))
    assert text.notes(GenerationReport((noted, noted), MEMORY)) == ["It had no effect."]
    assert text.summary(GenerationReport((noted,), MEMORY)).endswith("It had no effect.")


def test_the_chart_has_words_and_the_table_headings() -> None:
    html = report_html(report((0, 1.0, 0, 1), (1, 0.1, 1, 1)), "x")
    assert 'aria-label="Chart of 2 steps: 1 computed, 1 reused; slowest 1.00 s"' in html
    assert "<th></th>" not in html
    assert html.count("<th scope='row'>") == 2
    assert 'role="status"' not in live_html(report((0, 1.0, 0, 1)), 4, "x")


def test_a_step_on_kept_references_has_a_kind_and_a_median_of_its_own() -> None:
    calls = [CallRecord(0, 1.0, 6.0, 0, 1), CallRecord(1, 0.9, 2.0, 0, 1, kept=1), CallRecord(2, 0.8, 0.5, 1, 1)]
    sampled = GenerationReport((PassReport("Sampling", calls, 9.0),), MEMORY)
    assert [step.kind for step in sampled.steps] == ["computed", "kept", "reused"]
    assert sampled.kept_seconds == 2.0
    assert sampled.speed_up == pytest.approx(18 / 8.5)
    assert text.step_time(sampled) == "6.00 s computed; 2.00 s with references kept; 0.50 s reused"
    assert ">K</text>" in report_html(sampled, "x")


def test_memory_of_keys_and_values_is_told() -> None:
    use = KVUsage(3 * 2**29, "host", 5)
    sampling = PassReport("Sampling", calls((0, 1.0, 0, 1)), 1.0, reference_tokens=(4096,), encoded=1, key_values=use)
    html = report_html(GenerationReport((sampling,), MEMORY), "x")
    assert "1.50 GB in host memory, streamed, refreshed 5 times" in html
