"""Reports as short text: for infotext, the console, table cells and screen readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.telemetry.records import GenerationReport, StepRecord
from lib_fluxkontext.telemetry.working_memory import WorkingMemory


def seconds(value: float | None) -> str:
    """Format seconds: ``"12.3 s"``, ``"0.84 s"`` or ``"35 ms"``; a dash for None."""
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
"""A step's kind → how it is called."""


def gigabytes(value: int | None) -> str:
    """Format bytes as ``"9.81 GB"`` with 1 GB = 2³⁰ bytes, as Forge's status line does; a dash for None."""
    return "–" if value is None else f"{value / 2**30:.2f} GB"


def step_time(report: GenerationReport) -> str:
    """Format the median time of a step of each kind."""
    parts = []
    if report.computed_seconds is not None:
        parts.append(f"{seconds(report.computed_seconds)} computed")
    if report.kept_seconds is not None:
        parts.append(f"{seconds(report.kept_seconds)} with references kept")
    if report.reused_seconds is not None:
        parts.append(f"{seconds(report.reused_seconds)} reused")
    return "; ".join(parts) or "no step finished"


def steps_cached(report: GenerationReport) -> str:
    """Count the reused steps: ``"12 of 20"``; with the share where one was reused for some images of a batch only."""
    counts = f"{report.reused_steps} of {len(report.steps)}"
    if has_split_steps(report):
        counts += f" ({report.reused_share:.0%} of all images' steps)"
    return counts


def has_split_steps(report: GenerationReport) -> bool:
    """Whether a step was reused for some images of a batch and computed for others."""
    return any(0 < step.reused < step.images for step in report.steps)


def memory_peak(report: GenerationReport) -> str:
    """Format torch's peaks on the card; without CUDA the process's memory. A dash where nothing was measured."""
    memory = report.memory
    if memory is None:
        return "–"
    if memory.device is None:
        return f"no CUDA; process {gigabytes(memory.process)}"
    peaks = f"{gigabytes(memory.allocated)} allocated; {gigabytes(memory.reserved)} reserved"
    return peaks + ("; spill suspected" if report.spill_suspected else "")


def working_memory(measured: WorkingMemory) -> str:
    """Say what a sampling was estimated to take beside the weights, what was reserved of it, and what it took."""
    line = translate(
        "Memory beside the weights: {estimated} estimated, of which {reserved} reserved for references and caches",
        estimated=gigabytes(measured.estimated),
        reserved=gigabytes(measured.reserved),
    )
    if measured.used is None or measured.off is None:
        return line + translate("; what it took is not known, because an earlier peak was as high.")
    percent = f"{abs(measured.off) / measured.estimated:.0%}" if measured.estimated else "–"
    used = gigabytes(measured.used)
    if measured.off > 0:
        return line + translate("; it took {used}, {percent} more.", used=used, percent=percent)
    return line + translate("; it took {used}, {percent} less.", used=used, percent=percent)


def counts(steps: Sequence[StepRecord]) -> str:
    """Count the steps of each kind: ``"3 computed, 9 reused"``."""
    numbers = Counter(step.kind for step in steps)
    return ", ".join(f"{numbers[kind]} {translate(name)}" for kind, name in KINDS.items() if numbers[kind])


def notes(report: GenerationReport) -> list[str]:
    """Collect the notes for the user, without duplicates."""
    collected = [*report.notes, *(note for sampling in report.passes for note in sampling.notes)]
    if report.spill_suspected:
        collected.append(
            "The card was full: its driver may have moved memory to shared RAM, which makes steps many times slower "
            "(inferred, not measured). Lower GPU Weights, tick half size, or use a smaller checkpoint."
        )
    return list(dict.fromkeys(collected))


def summary(report: GenerationReport) -> str:
    """Summarise the report in one line, for screen readers when a generation is over."""
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
    """Describe a running pass for screen readers; the text changes only at each quarter, so as not to chatter.

    Args:
        report: of the pass that runs.
        steps: how many it will have.
    """
    current = report.passes[-1]
    percent = 25 * min(4 * len(current.steps) // max(1, steps), 4)
    return translate("{label}: {percent}% of {steps} steps", label=label(current.label), percent=percent, steps=steps)


def label(name: str) -> str:
    """Translate a pass's name: ``"Sampling"``, ``"Batch 2, hires pass"``."""
    batch, _, hires = name.partition(", ")
    number = batch.removeprefix("Batch ")
    translated = translate("Batch {number}", number=number) if number != batch else translate(batch)
    return f"{translated}, {translate(hires)}" if hires else translated
