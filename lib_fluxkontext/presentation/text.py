"""The report in a few words: for infotext, console, table cells, and to be read aloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.telemetry.memory import MemoryUse
from lib_fluxkontext.telemetry.records import GenerationReport, StepRecord


def seconds(value: float | None) -> str:
    """``"12.3 s"``, ``"0.84 s"`` or ``"35 ms"``; a dash for None."""
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value * 1000:.1f} ms" if value < 0.01 else f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


KINDS = {
    "computed": "computed",
    "kept": "references kept",
    "reused": "reused",
    "mixed": "mixed",
}
"""A step's kind in words."""


def gigabytes(value: int | None) -> str:
    """Bytes as ``"9.81 GB"`` with 1 GB = 2³⁰ bytes, as Forge's status line counts; a dash for None."""
    return "–" if value is None else f"{value / 2**30:.2f} GB"


def step_time(report: GenerationReport) -> str:
    """Median seconds of a step of each kind."""
    parts = []
    if report.computed_seconds is not None:
        parts.append(f"{seconds(report.computed_seconds)} computed")
    if report.kept_seconds is not None:
        parts.append(f"{seconds(report.kept_seconds)} with references kept")
    if report.reused_seconds is not None:
        parts.append(f"{seconds(report.reused_seconds)} reused")
    return "; ".join(parts) or "no step finished"


def steps_cached(report: GenerationReport) -> str:
    """``"12 of 20"``; with images of a batch that went different ways also the share of them."""
    text = f"{report.reused_steps} of {len(report.steps)}"
    if any(0 < step.reused < step.images for step in report.steps):
        text += f" ({report.reused_share:.0%} of all images' steps)"
    return text


def memory_peak(memory: MemoryUse) -> str:
    """Torch's peaks on a card; without CUDA the process's memory, said so plainly."""
    if memory.device is None:
        return f"no CUDA; process {gigabytes(memory.process)}"
    text = f"{gigabytes(memory.allocated)} allocated; {gigabytes(memory.reserved)} reserved"
    return text + ("; spill suspected" if memory.spill_suspected else "")


def counts(steps: Sequence[StepRecord]) -> str:
    """``"3 computed, 9 reused"``."""
    found = Counter(step.kind for step in steps)
    return ", ".join(f"{found[kind]} {translate(word)}" for kind, word in KINDS.items() if found[kind])


def notes(report: GenerationReport) -> list[str]:
    """What the user should know, each thing once."""
    found = [*report.notes, *(note for one in report.passes for note in one.notes)]
    if report.memory is not None and report.memory.spill_suspected:
        found.append(
            "The card was full: its driver may have moved memory to shared RAM, which makes steps many times slower "
            "(inferred, not measured). Lower GPU Weights, tick half size, or use a smaller checkpoint."
        )
    return list(dict.fromkeys(found))


def summary(report: GenerationReport) -> str:
    """The report in one line, to be read aloud when a generation is over."""
    if not report.steps:
        return " ".join([translate("No step finished."), *map(translate, notes(report))])
    line = translate(
        "Steps: {steps} in {time}: {counts}",
        steps=len(report.steps),
        time=seconds(report.sampling_seconds),
        counts=counts(report.steps),
    )
    if report.speed_up is not None and report.speed_up >= 1.05:
        line += translate("; {ratio} times as fast as computing all", ratio=f"{report.speed_up:.1f}")
    return " ".join([f"{line}.", *map(translate, notes(report))])


def progress(report: GenerationReport, steps: int) -> str:
    """How far a generation is, to be read aloud: changes at each quarter alone, so as not to chatter.

    Args:
        report: of the pass that runs.
        steps: how many it will have.
    """
    one = report.passes[-1]
    quarter = min(4 * len(one.steps) // max(1, steps), 4)
    return translate("{label}: {percent}% of {steps} steps", label=label(one.label), percent=25 * quarter, steps=steps)


def label(name: str) -> str:
    """A pass's name in the page's language: ``"Sampling"``, ``"Batch 2, hires pass"``."""
    batch, _, hires = name.partition(", ")
    number = batch.removeprefix("Batch ")
    shown = translate("Batch {number}", number=number) if number != batch else translate(batch)
    return f"{shown}, {translate(hires)}" if hires else shown
