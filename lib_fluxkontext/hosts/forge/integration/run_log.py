"""Writes every finished generation of Forge into the run log."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

from PIL import Image

from lib_fluxkontext.history.record import Run, cost_columns, describe_cache
from lib_fluxkontext.history.store import LogError, RunLog
from lib_fluxkontext.hosts.forge.integration import options
from lib_fluxkontext.settings import IMAGE_FIELDS, KontextSettings
from lib_fluxkontext.telemetry.records import GenerationReport

THUMBNAIL = 96
"""Longest side in pixels."""

_LORA = re.compile(r"<(?:lora|lyco):([^:>]+)")


def run_log() -> RunLog:
    """The log in Forge's data folder."""
    from modules import paths

    return RunLog(Path(paths.data_path) / "flux-kontext" / "runs.sqlite", options.current().log_limit)


def record(p: Any, processed: Any, settings: KontextSettings, report: GenerationReport) -> str | None:
    """Add this generation unless the log is off; returns what was wrong, in one line, or None. Never raises."""
    try:
        if not options.current().log:
            return None
        aside = run_log().add(_run(p, processed, settings, report))
    except LogError as error:
        return str(error)
    except Exception as error:  # what other extensions leave on p is anybody's guess, and a log is not worth a picture
        return f"the run was not logged: {type(error).__name__}: {error}"
    return None if aside is None else f"the run log was damaged and begun anew; the old file is {aside}"


def _run(p: Any, processed: Any, settings: KontextSettings, report: GenerationReport) -> Run:
    from modules import shared

    prompts = getattr(p, "all_prompts", None) or [str(p.prompt)]
    seeds = getattr(p, "all_seeds", None) or [p.seed]
    return Run(
        made=time.strftime("%Y-%m-%d %H:%M:%S"),
        checkpoint=str(p.sd_model.sd_checkpoint_info.name_for_extra),
        low_bits=str(getattr(shared.opts, "forge_unet_storage_dtype", "")),
        loras=", ".join(dict.fromkeys(_LORA.findall(str(prompts[0])))),
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
        **cost_columns(report),
    )


def _thumbnail(processed: Any) -> bytes:
    images = processed.images[getattr(processed, "index_of_first_image", 0) :]
    if not images or not isinstance(images[0], Image.Image):
        return b""
    small = images[0].convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()
