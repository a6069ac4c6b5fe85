"""Runs as tables, and what a report leaves in the run log."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from lib_fluxkontext.history.record import describe_cache, run_costs
from lib_fluxkontext.history.store import RunLog
from lib_fluxkontext.presentation.run_table import as_csv, as_html, as_markdown, side_by_side
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport
from tests.support.runs import RUN, run


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path / "runs.sqlite")


def test_csv_and_markdown(log: RunLog) -> None:
    log.add(run(checkpoint='a "quoted", name | piped'))
    log.add(run(low_bits="", kept_seconds=None))
    rows = list(csv.DictReader(io.StringIO(as_csv(log.latest()))))
    assert rows[1]["checkpoint"] == 'a "quoted", name | piped'
    assert rows[0]["sampling_seconds"] == "50.0"
    assert "thumbnail" not in rows[0]
    lines = as_markdown(log.latest()).splitlines()
    assert len(lines) == 4
    assert "LoRAs" not in lines[0]
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}


def test_a_prompt_is_shown_where_one_is_stored_and_only_there(log: RunLog) -> None:
    log.add(RUN)
    for table in (as_csv, as_markdown, side_by_side, lambda runs: as_html(runs, 2)):
        assert "prompt" not in table(log.latest() * 2).lower()
    log.add(run(prompt='the <b>woman</b> hugs\nthe "cat" | softly'))
    runs = log.latest()
    assert [row["prompt"] for row in csv.DictReader(io.StringIO(as_csv(runs)))] == [runs[0][1].prompt, ""]
    assert as_markdown(runs).splitlines()[2].endswith('| the <b>woman</b> hugs the "cat" \\| softly |')
    for table in (as_html(runs, 2), side_by_side(runs)):
        assert "the &lt;b&gt;woman&lt;/b&gt; hugs the &quot;cat&quot; | softly" in table
        assert re.search(r">Prompt( ≠)?</th>", table)


def test_html_is_escaped_and_the_newest_are_shown(log: RunLog) -> None:
    log.add(run(checkpoint="<script>alert(1)</script>"))
    shown = as_html(log.latest(), 5000)
    assert "<script>" not in shown
    assert "1 of 5,000 runs" in shown
    assert "No runs yet" in as_html([], 0)


def test_side_by_side_shows_ratios_and_marks_what_differs() -> None:
    html = side_by_side([(1, RUN), (2, run(sampling_seconds=25.0, cache="off"))])
    assert "2.00×" in html
    assert html.count(" ≠</th>") == 2
    assert 'alt="Picture of run 2"' in html
    assert html.count('class="fk-differs"') == 2
    assert "Choose two" in side_by_side([(1, RUN)])


def test_costs_come_from_the_report() -> None:
    calls = [CallRecord(0, 1.0, 6.0, 0, 1), CallRecord(1, 0.9, 2.0, 0, 1, kept=1), CallRecord(2, 0.8, 0.5, 1, 1)]
    report = GenerationReport((PassReport("Sampling", calls, 9.0, 1.5, 2, 0, (4096, 4096)),))
    costs = run_costs(report)
    assert (costs["computed_seconds"], costs["kept_seconds"], costs["reused_seconds"]) == (6.0, 2.0, 0.5)
    assert costs["reference_tokens"] == 8192
    assert costs["sampling_seconds"] == 9.0
    assert describe_cache(KontextSettings()) == "0.14, forecast"
    assert describe_cache(KontextSettings(cache=False)) == "off"
