"""The report at one glance, as HTML: how long, how much was reused, how much faster, and did it fit."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.telemetry.memory import MemoryUse
from lib_fluxkontext.telemetry.records import GenerationReport, StepRecord

_Cell = tuple[str, str, str]
"""Name, value, and the explanation that is shown when the pointer rests on it; the latter may be empty."""


def finished_strip(report: GenerationReport) -> str:
    """Render the numbers of a finished generation."""
    step_times = " / ".join(
        text.seconds(value)
        for value in (report.computed_seconds, report.kept_seconds, report.reused_seconds)
        if value is not None
    )
    return _strip(
        [
            ("Sampling", text.seconds(report.sampling_seconds), "Wall time of all steps of all batches"),
            ("Step time", step_times or "–", "Median: computed / references kept / reused"),
            ("Reused", _reused_of_all(report), "Steps that First Block Cache did not compute"),
            ("Speed-up", _speed_up(report.speed_up), "Against computing every step at the median computed step's time"),
            *_memory_cells(report, peak=True),
        ]
    )


def live_strip(report: GenerationReport, steps: int) -> str:
    """Render the numbers of a sampling under way.

    Args:
        report: of the pass that runs.
        steps: how many it will have.
    """
    current = report.passes[-1]
    finished = current.steps
    name = "Step" if current.label == "Sampling" else text.label(current.label)
    reused = sum(step.kind == "reused" for step in finished)
    progress = translate("{step} of {steps}", step=min(len(finished) + 1, steps), steps=steps)
    cells = [
        (name, progress, ""),
        ("Step time", text.seconds(finished[-1].seconds) if finished else "–", "The last step's"),
        ("Reused", translate("{reused} of {steps}", reused=reused, steps=len(finished)), ""),
        ("Time left", text.seconds(remaining_seconds(finished, steps)), "By the mean of the last five steps"),
        *_memory_cells(report, peak=False),
    ]
    share = len(finished) / steps if steps else 0.0
    return _strip(cells) + f'<div class="fk-progress"><div style="width:{min(1.0, share):.1%}"></div></div>'


def remaining_seconds(finished: Sequence[StepRecord], steps: int) -> float | None:
    """Estimate the seconds of the steps to come by the mean of the last five; None before the first.

    The mean rather than the median, so that reused steps count by their share.
    """
    recent = [step.seconds for step in finished[-5:]]
    return sum(recent) / len(recent) * max(0, steps - len(finished)) if recent else None


def _reused_of_all(report: GenerationReport) -> str:
    """Count the reused steps; with the share where a batch's images went different ways."""
    counts = translate("{reused} of {steps}", reused=report.reused_steps, steps=len(report.steps))
    if text.has_split_steps(report):
        counts += translate(" ({share} of all images' steps)", share=f"{report.reused_share:.0%}")
    return counts


def _speed_up(value: float | None) -> str:
    """Format a ratio: ``"2.41×"``; a dash for None."""
    return "–" if value is None else f"{value:.2f}×"


def _memory_cells(report: GenerationReport, peak: bool) -> list[_Cell]:
    memory = report.memory
    if memory is None:
        return []
    if memory.device is None:
        hint = "No CUDA device: this is main memory"
        return [("Process memory", text.gigabytes(memory.process), hint)]
    used = _of_card(memory, memory.held if peak else memory.in_use or memory.reserved)
    if report.spill_suspected:
        used = translate("{used}, full", used=used)
    return [("VRAM peak" if peak else "VRAM", used, "All programs, by the driver (NVML), sampled at each step")]


def _of_card(memory: MemoryUse, used: int | None) -> str:
    return translate("{used} of {total}", used=text.gigabytes(used), total=text.gigabytes(memory.total))


def _strip(cells: Sequence[_Cell]) -> str:
    items = "".join(
        f'<div title="{escape(translate(hint) if hint else "")}"><dt>{escape(translate(name))}</dt>'
        f"<dd>{escape(value)}</dd></div>"
        for name, value, hint in cells
    )
    return f'<dl class="fk-strip">{items}</dl>'
