"""The generation parameters of a picture that this host made."""

from __future__ import annotations

from collections.abc import Sequence

from lib_fluxkontext import infotext
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.job import Job
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.records import GenerationReport


def parameters(
    job: Job, model: str, settings: KontextSettings, references: Sequence[Reference], report: GenerationReport
) -> dict[str, object]:
    """Return the fields of the infotext, by label."""
    return {
        "Steps": job.steps,
        "Sampler": "Euler",
        "CFG scale": 1,
        "Distilled CFG Scale": job.guidance,
        "Seed": job.seed,
        "Size": f"{job.width}x{job.height}",
        "Model": model,
        **infotext.settings_to_infotext(settings, references),
        **infotext.report_to_infotext(report),
    }


def parameters_text(prompt: str, fields: dict[str, object]) -> str:
    """Write prompt and fields as a PNG's ``parameters``."""
    return f"{prompt}\n{infotext.infotext_line(fields)}"
