"""Record Forge's finished generations in the run log."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

from PIL import Image

from lib_fluxkontext.history.record import Run, describe_cache, run_costs
from lib_fluxkontext.history.store import LogError, RunLog
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.hosts.forge.runtime.protocols import Processed, Processing
from lib_fluxkontext.settings import IMAGE_FIELDS, KontextSettings
from lib_fluxkontext.telemetry.records import GenerationReport

THUMBNAIL = 96
"""Longest side in pixels."""

_LORA_TAG = re.compile(r"<(?:lora|lyco):([^:>]+)")


def run_log() -> RunLog:
    """Return the log in Forge's data folder."""
    from modules import paths

    return RunLog(Path(paths.data_path) / "flux-kontext" / "runs.sqlite", options.current().log_limit)


def record(p: Processing, processed: Processed, settings: KontextSettings, report: GenerationReport) -> str | None:
    """Record a generation unless the log is off. Never raises.

    Returns:
        A problem in one line, or None where there was none.
    """
    try:
        if not options.current().log:
            return None
        damaged_file = run_log().add(_run(p, processed, settings, report))
    except LogError as error:
        return str(error)
    except Exception as error:  # other extensions may leave anything on p, and a log is not worth an image
        return f"the run was not logged: {type(error).__name__}: {error}"
    return None if damaged_file is None else f"the run log was damaged and begun anew; the old file is {damaged_file}"


def _run(p: Processing, processed: Processed, settings: KontextSettings, report: GenerationReport) -> Run:
    from modules import shared

    prompts = getattr(p, "all_prompts", None) or [str(p.prompt)]
    seeds = getattr(p, "all_seeds", None) or [p.seed]
    return Run(
        made=time.strftime("%Y-%m-%d %H:%M:%S"),
        checkpoint=str(p.sd_model.sd_checkpoint_info.name_for_extra),
        low_bits=str(getattr(shared.opts, "forge_unet_storage_dtype", "")),
        loras=", ".join(dict.fromkeys(_LORA_TAG.findall(str(prompts[0])))),
        sampler=str(p.sampler_name),
        scheduler=str(p.scheduler or "Automatic"),
        steps=int(p.steps),
        size=f"{p.width}×{p.height}",
        images=len(seeds),
        seed=int(seeds[0]),
        cache=describe_cache(settings),
        reference_refresh=settings.reference_refresh if settings.reuse_active else 0,
        settings=json.dumps(settings.model_dump(exclude=set(IMAGE_FIELDS))),
        thumbnail=_thumbnail(processed),
        prompt=str(prompts[0]) if options.current().log_prompt else "",
        **run_costs(report),
    )


def _thumbnail(processed: Processed) -> bytes:
    """Encode the first image as a small JPEG; a grid, which stands before it, is skipped."""
    images = processed.images[getattr(processed, "index_of_first_image", 0) :]
    if not images or not isinstance(images[0], Image.Image):
        return b""
    thumbnail = images[0].convert("RGB")
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
