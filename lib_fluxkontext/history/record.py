"""One generation in the run log."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.records import GenerationReport


@dataclass(frozen=True)
class Run:
    """What one generation was made with, and what it cost.

    Attributes:
        made: local time, ``"2026-11-21 14:05:09"``.
        checkpoint: its name.
        low_bits: Forge's *Diffusion in Low Bits*.
        loras: names, separated by commas.
        sampler: and
        scheduler: as Forge names them.
        steps: asked for.
        size: ``"1024×768"``.
        images: pictures made.
        seed: of the first.
        reference_tokens: of all references.
        cache: ``"0.14, forecast"`` or ``"off"``.
        reference_refresh: 0 is off.
        reused_share: 0 to 1.
        computed_seconds: median seconds of a computed step, or None.
        kept_seconds: of a step on kept references, or None.
        reused_seconds: of a reused step, or None.
        sampling_seconds: all passes.
        encode_seconds: of the references.
        memory_bytes: torch's peak on the card; without CUDA the process's memory.
        on_card: which of the two.
        settings: of the extension, as JSON without images.
        thumbnail: JPEG.
        prompt: of the first picture where the user's settings have it stored, else empty.
    """

    made: str
    checkpoint: str
    low_bits: str
    loras: str
    sampler: str
    scheduler: str
    steps: int
    size: str
    images: int
    seed: int
    reference_tokens: int
    cache: str
    reference_refresh: int
    reused_share: float
    computed_seconds: float | None
    kept_seconds: float | None
    reused_seconds: float | None
    sampling_seconds: float
    encode_seconds: float
    memory_bytes: int
    on_card: bool
    settings: str
    thumbnail: bytes
    prompt: str = ""


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Run))


def describe_cache(settings: KontextSettings) -> str:
    """``"0.14, forecast, corrected"``, ``"0.14"`` or ``"off"``; reference reuse alone can be corrected too."""
    words = [f"{settings.cache_threshold:g}" if settings.cache_active else "off"]
    if settings.cache_active and settings.cache_forecast:
        words.append("forecast")
    if settings.cache_correct and (settings.cache_active or settings.reuse_active):
        words.append("corrected")
    return ", ".join(words)


def cost_columns(report: GenerationReport) -> dict[str, Any]:
    """The columns that a report fills."""
    memory = report.memory
    on_card = memory is not None and memory.device is not None
    return {
        "reference_tokens": max((sum(one.reference_tokens) for one in report.passes), default=0),
        "reused_share": report.reused_share,
        "computed_seconds": report.computed_seconds,
        "kept_seconds": report.kept_seconds,
        "reused_seconds": report.reused_seconds,
        "sampling_seconds": report.sampling_seconds,
        "encode_seconds": sum(one.encode_seconds for one in report.passes),
        "memory_bytes": 0 if memory is None else int((memory.allocated if on_card else memory.process) or 0),
        "on_card": on_card,
    }
