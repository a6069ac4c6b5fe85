"""A generation as the run log records it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypedDict

from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.records import GenerationReport


@dataclass(frozen=True)
class Run:
    """Settings and cost of one generation. The names are the columns of the run log's table.

    Attributes:
        made: local time, ``"2026-11-21 14:05:09"``.
        checkpoint: its name.
        low_bits: Forge's *Diffusion in Low Bits*.
        loras: names, separated by commas.
        sampler: Forge's name.
        scheduler: Forge's name.
        steps: sampler steps that were asked for.
        size: ``"1024×768"``, in pixels.
        images: number of images made.
        seed: of the first image.
        reference_tokens: of all references.
        cache: First Block Cache's settings, ``"0.14, forecast"`` or ``"off"``.
        reference_refresh: steps between refreshes of the reference K/V cache; 0 where it is off.
        reused_share: share of steps that were reused, 0 to 1.
        computed_seconds: median seconds of a computed step, or None.
        kept_seconds: median seconds of a step computed with cached references, or None.
        reused_seconds: median seconds of a reused step, or None.
        sampling_seconds: of all passes.
        encode_seconds: spent on encoding references.
        memory_bytes: torch's peak on the card; without CUDA the process's memory.
        on_card: whether ``memory_bytes`` is the card's.
        settings: of the extension, as JSON without images.
        thumbnail: JPEG.
        prompt: of the first image; empty unless the user's settings have it stored.
        estimated_bytes: what the largest sampling was estimated to take on the card beside the weights, or None.
        reserved_bytes: the part of it that Forge was asked to keep free, or None.
        used_bytes: what it took, or None where that could not be measured.
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
    estimated_bytes: int | None = None
    reserved_bytes: int | None = None
    used_bytes: int | None = None


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Run))


class RunCosts(TypedDict):
    """The fields of a ``Run`` that come from its report."""

    reference_tokens: int
    reused_share: float
    computed_seconds: float | None
    kept_seconds: float | None
    reused_seconds: float | None
    sampling_seconds: float
    encode_seconds: float
    memory_bytes: int
    on_card: bool
    estimated_bytes: int | None
    reserved_bytes: int | None
    used_bytes: int | None


def describe_cache(settings: KontextSettings) -> str:
    """Describe the caches: ``"0.14, forecast, corrected"``, ``"0.14"`` or ``"off"``.

    Correction is also listed with ``"off"`` where the reference K/V cache is on.
    """
    parts = [f"{settings.cache_threshold:g}" if settings.cache_active else "off"]
    if settings.cache_active and settings.cache_forecast:
        parts.append("forecast")
    if settings.cache_correct and (settings.cache_active or settings.reuse_active):
        parts.append("corrected")
    return ", ".join(parts)


def run_costs(report: GenerationReport) -> RunCosts:
    """Take from a report what the run log records."""
    memory = report.memory
    on_card = memory is not None and memory.device is not None
    measured = [sampling.working_memory for sampling in report.passes if sampling.working_memory is not None]
    largest = max(measured, key=lambda working: working.estimated) if measured and on_card else None
    return {
        "reference_tokens": max((sum(sampling.reference_tokens) for sampling in report.passes), default=0),
        "reused_share": report.reused_share,
        "computed_seconds": report.computed_seconds,
        "kept_seconds": report.kept_seconds,
        "reused_seconds": report.reused_seconds,
        "sampling_seconds": report.sampling_seconds,
        "encode_seconds": sum(sampling.encode_seconds for sampling in report.passes),
        "memory_bytes": 0 if memory is None else int((memory.allocated if on_card else memory.process) or 0),
        "on_card": on_card,
        "estimated_bytes": largest.estimated if largest else None,
        "reserved_bytes": largest.reserved if largest else None,
        "used_bytes": largest.used if largest else None,
    }
