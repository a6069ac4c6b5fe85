"""The report in a few words: for infotext, console and table cells."""

from __future__ import annotations

from lib_fluxkontext.meters.memory import MemoryUse
from lib_fluxkontext.report.generation import GenerationReport


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
