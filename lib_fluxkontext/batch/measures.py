"""What a picture cost, as a handful of numbers from its report: for tables, the index and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measures:
    """Numbers of one report; None where it does not have them.

    Attributes:
        sampling_seconds: wall time of all steps.
        encode_seconds: that the references took in the VAE.
        step_seconds: mean of a step, computed or reused: sampling by steps.
        computed_step_seconds: median of a computed step.
        reused_step_seconds: median of a reused step.
        reused_steps: steps that were reused.
        reused_share: of all steps, 0 to 1.
        speed_up: against computing every step.
        device: name of the card; None without CUDA.
        vram_allocated: peak that torch's tensors took of the card, in bytes.
        vram_reserved: peak that torch's allocator held, in bytes.
        vram_in_use: most that all programs held of the card, by the driver, in bytes.
        process_memory: most main memory that the process held, in bytes.
    """

    sampling_seconds: float | None = None
    encode_seconds: float | None = None
    step_seconds: float | None = None
    computed_step_seconds: float | None = None
    reused_step_seconds: float | None = None
    reused_steps: int | None = None
    reused_share: float | None = None
    speed_up: float | None = None
    device: str | None = None
    vram_allocated: int | None = None
    vram_reserved: int | None = None
    vram_in_use: int | None = None
    process_memory: int | None = None

    @property
    def vram_peak(self) -> int | None:
        """Most bytes of the card that torch reserved or all programs used; None without CUDA."""
        return max(self.vram_reserved or 0, self.vram_in_use or 0) or None


def measure(report: Mapping[str, Any]) -> Measures:
    """Take the numbers from a report.

    Args:
        report: ``GenerationReport.to_dict()``, or an empty one.
    """
    if not report:
        return Measures()
    memory = report.get("memory") or {}
    seconds, steps = report.get("sampling_seconds"), report.get("steps")
    return Measures(
        sampling_seconds=seconds,
        encode_seconds=sum(sampling.get("encode_seconds") or 0.0 for sampling in report.get("passes") or ()),
        step_seconds=seconds / steps if seconds is not None and steps else None,
        computed_step_seconds=report.get("computed_step_seconds"),
        reused_step_seconds=report.get("reused_step_seconds"),
        reused_steps=report.get("reused_steps"),
        reused_share=report.get("reused_share"),
        speed_up=report.get("speed_up"),
        device=memory.get("device"),
        vram_allocated=memory.get("allocated"),
        vram_reserved=memory.get("reserved"),
        vram_in_use=memory.get("in_use"),
        process_memory=memory.get("process"),
    )
