"""A checkpoint of its own for the hires pass: looked at before the first pass, by its file's header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.runtime.checkpoint_header import read_facts
from lib_fluxkontext.hosts.forge.runtime.protocols import Processing
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.settings import KontextSettings

FIELD = "hires_references"
REMEDY = 'untick "References in the hires pass too", or choose a FLUX.1 checkpoint for that pass'
SAME_CHECKPOINT = "Use same checkpoint"


def check_hires_checkpoint(p: Processing, settings: KontextSettings, references: Sequence[Reference]) -> None:
    """Check that the hires pass can take the references that it would get.

    A file whose header cannot be read is left to Forge's loader.

    Raises:
        KontextError: its checkpoint is another one, and cannot.
    """
    name = getattr(p, "hr_checkpoint_name", None)
    if not references or not settings.hires_references or not getattr(p, "enable_hr", False):
        return
    if not name or name == SAME_CHECKPOINT:
        return
    from modules import sd_models

    info = sd_models.get_closet_checkpoint_match(name)
    if info is None:  # Forge says so itself
        return
    try:
        facts = read_facts(Path(info.filename))
    except (KontextError, OSError):
        return
    if facts.takes_references:
        return
    what = "is not FLUX" if facts.family is None else f"is {facts.family}"
    raise KontextError(
        f'the hires checkpoint "{info.name_for_extra}" {what} and cannot take references; {REMEDY}', FIELD
    )
