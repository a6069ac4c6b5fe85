"""What a sampling took beside the weights, held against its estimate; and what tells a spill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.history.record import run_costs
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.html import report_html
from lib_fluxkontext.sampling.vram import VramEstimate
from lib_fluxkontext.telemetry import spill
from lib_fluxkontext.telemetry.memory import CardState, MemoryMeter, MemoryUse
from lib_fluxkontext.telemetry.records import CallRecord, GenerationReport, PassReport
from lib_fluxkontext.telemetry.working_memory import SHORT_OF_MEMORY, WorkingMemory, WorkingMemoryMeter
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_session import run_step, small_session

GIB = 2**30
ESTIMATE = VramEstimate(weights=12 * GIB, activations=2 * GIB, references=GIB, cache=0, key_values=0, free=GIB)


class FakeMeter(MemoryMeter):
    """A card with the states it is given, the last of which stays."""

    def __init__(self, states: Sequence[CardState]) -> None:
        super().__init__(torch.device("cpu"), reset_peaks=False)
        self.states = list(states)

    def card(self) -> CardState | None:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def allocated_peak(self) -> int | None:
        return self.states[0].peak


def card_state(allocated: float, peak: float, free: float = 10.0) -> CardState:
    return CardState(int(allocated * GIB), int(peak * GIB), int(free * GIB))


def measured(*states: CardState) -> WorkingMemory:
    meter = WorkingMemoryMeter(FakeMeter(states), 3 * GIB, GIB)
    meter.start()
    meter.sample()
    return meter.result()


def test_what_was_used_is_the_peak_less_what_lay_there_before() -> None:
    working = measured(card_state(12, 12.5), card_state(12.2, 15.25))
    assert (working.used, working.off) == (int(3.25 * GIB), GIB // 4)
    assert not working.short


def test_an_earlier_peak_that_was_as_high_hides_it() -> None:
    working = measured(card_state(12, 20), card_state(12.2, 20))
    assert (working.used, working.off) == (None, None)
    assert "an earlier peak was as high" in text.working_memory(working)


def test_it_is_measured_from_the_first_model_call_on() -> None:
    meter = WorkingMemoryMeter(FakeMeter([card_state(12, 12), card_state(13, 14), card_state(12, 14)]), 3 * GIB, GIB)
    meter.start()
    meter.start()
    meter.sample()
    assert meter.result().used == 2 * GIB


def test_without_a_card_the_estimate_stands_alone() -> None:
    meter = WorkingMemoryMeter(MemoryMeter(torch.device("cpu"), reset_peaks=False), 3 * GIB, GIB)
    meter.start()
    assert meter.result() == WorkingMemory(3 * GIB, GIB)
    assert not meter.result().short


def test_too_little_room_is_short_only_where_room_was_asked_for() -> None:
    assert WorkingMemory(3 * GIB, GIB, free=2 * GIB - 1).short
    assert not WorkingMemory(3 * GIB, GIB, free=2 * GIB).short
    assert not WorkingMemory(3 * GIB, 0, free=GIB).short


def session_report(free: float) -> PassReport:
    model = SmallFluxTransformer()
    meter = FakeMeter([card_state(12, 12, free), card_state(12, 14.5, free)])
    session = small_session(model, Caches(), memory=meter, vram=ESTIMATE)
    run_step(session, model, inputs())
    return session.close()


def test_the_session_measures_and_says_what_could_not_be_had() -> None:
    report = session_report(free=10)
    assert report.working_memory == WorkingMemory(3 * GIB, GIB, 10 * GIB, int(2.5 * GIB))
    assert SHORT_OF_MEMORY not in report.notes
    assert SHORT_OF_MEMORY in session_report(free=1.5).notes


def test_line_report_json_and_run_log_say_estimated_reserved_used_and_off() -> None:
    memory = MemoryUse("RTX", 14 * GIB, 15 * GIB, 15 * GIB, 16 * GIB, GIB)
    report = GenerationReport((session_report(free=10),), memory)
    line = (
        "Memory beside the weights: 3.00 GB estimated, of which 1.00 GB reserved for references and caches; "
        "it took 2.50 GB, 17% less."
    )
    assert line in report_html(report, "x")
    assert report.to_dict()["passes"][0]["working_memory"] == {
        "estimated": 3 * GIB,
        "reserved": GIB,
        "free": 10 * GIB,
        "used": int(2.5 * GIB),
        "off": -GIB // 2,
    }
    costs = run_costs(report)
    assert (costs["estimated_bytes"], costs["reserved_bytes"], costs["used_bytes"]) == (3 * GIB, GIB, int(2.5 * GIB))
    more = WorkingMemory(2 * GIB, GIB, 10 * GIB, 3 * GIB)
    assert text.working_memory(more).endswith("it took 3.00 GB, 50% more.")
    off_card = replace(report, memory=MemoryUse(None, None, None, None, None, GIB))
    assert run_costs(off_card)["estimated_bytes"] is None


def spilled(seconds: Sequence[float], share: float, kept: int = 0) -> bool:
    calls = [CallRecord(step, 1.0, time, 0, 1, kept=kept) for step, time in enumerate(seconds)]
    memory = MemoryUse("RTX", GIB, int(share * 12 * GIB), GIB, 12 * GIB, GIB)
    return GenerationReport((PassReport("Sampling", calls, 1.0),), memory).spill_suspected


@pytest.mark.parametrize("kept", [0, 1])
def test_a_jump_of_step_time_on_a_nearly_full_card_is_a_spill_on_windows(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady, jump, slow_first = [2.0] * 6, [2.0, 2.0, 2.1, 50.0, 49.0], [9.0, 2.0, 2.1, 2.0]
    monkeypatch.setattr(spill, "SPILLS", True)
    assert spilled(jump, 0.95, kept)
    assert not spilled(jump, 0.6, kept)  # another program was at work
    assert not spilled(steady, 0.95, kept)
    assert not spilled(slow_first, 0.95, kept)  # the first step loads kernels
    monkeypatch.setattr(spill, "SPILLS", False)
    assert not spilled(jump, 0.95, kept)


def test_second_order_samplers_whose_last_step_has_one_call_are_no_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "SPILLS", True)
    calls = [CallRecord(step, 1.0, 2.0, 0, 1) for step in (0, 0, 0, 1, 1, 1, 2, 2, 2, 3)]
    calls += [CallRecord(4, 1.0, 8.0, 0, 4), CallRecord(5, 1.0, 8.1, 0, 4)]  # more images at once take longer
    memory = MemoryUse("RTX", GIB, int(0.95 * 12 * GIB), GIB, 12 * GIB, GIB)
    assert not GenerationReport((PassReport("Sampling", calls, 1.0),), memory).spill_suspected


def test_a_full_card_is_a_spill_on_windows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "SPILLS", True)
    assert spill.memory_tells_spill(12 * GIB, 12 * GIB)
    assert not spill.memory_tells_spill(11 * GIB, 12 * GIB)
    monkeypatch.setattr(spill, "SPILLS", False)
    assert not spill.memory_tells_spill(12 * GIB, 12 * GIB)
