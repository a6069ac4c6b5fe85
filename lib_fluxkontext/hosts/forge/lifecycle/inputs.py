"""Reads a request: settings, and the images as far as Forge lets them in. Whatever is wrong is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.integration import options, xyz_axes
from lib_fluxkontext.hosts.forge.lifecycle.batch_file import batch_file
from lib_fluxkontext.hosts.forge.lifecycle.hires import check_hires_checkpoint
from lib_fluxkontext.hosts.forge.lifecycle.inpaint import planned_size
from lib_fluxkontext.hosts.forge.runtime.protocols import Processing
from lib_fluxkontext.images.decode import Reference, decode_reference
from lib_fluxkontext.images.sizing import plan_size
from lib_fluxkontext.images.stitch import plan_stitch
from lib_fluxkontext.settings import IMAGE_FIELDS, KontextSettings

INIT_IMAGE = "init_image_as_reference"

FETCH_SECONDS = 30
"""After so long without an answer an address is given up, as in Forge."""


@dataclass(frozen=True)
class Inputs:
    """A request that can be served.

    Attributes:
        settings: validated.
        references: decoded, in order.
    """

    settings: KontextSettings
    references: tuple[Reference, ...]


def read_inputs(p: Processing, arguments: Sequence[Any]) -> Inputs | None:
    """Read and decode a request, and check the sizes that its references will have.

    Args:
        p: Forge's processing object.
        arguments: the script's.

    Returns:
        None where the extension is off.

    Raises:
        KontextError: what is wrong with the request.
    """
    axes = xyz_axes.values_of(p)
    if arguments and arguments[0] is False:  # the panel is off: an emptied number field there is no error
        return None
    settings = KontextSettings.from_arguments(arguments)
    if axes:
        settings = KontextSettings.from_mapping({**settings.model_dump(), **axes})
    if not settings.enabled:
        return None
    try:
        references = _decode(p, settings, options.background_of(p))
        _check_sizes(p, settings, references)
    except KontextError as error:
        file = batch_file() if error.field == INIT_IMAGE else None
        if file is None:
            raise
        raise KontextError(f"{file}: {error.reason}", INIT_IMAGE) from None
    check_hires_checkpoint(p, settings, references)
    return Inputs(settings, tuple(references))


def open_source(source: Any, name: str) -> Any:
    """Fetch ``source`` if it is a URL that Forge's settings allow; return everything else as it is.

    A path is that of a file that gradio could not open, and is read.

    Raises:
        KontextError: Forge forbids requests (or requests to this address), nothing came, or the file is gone.
    """
    if isinstance(source, Path):
        try:
            return source.read_bytes()
        except OSError:
            raise KontextError("its file is no longer there; put the picture in again", name) from None
    if isinstance(source, str) and source.lower().endswith(".svg"):  # gradio hands on an SVG's path
        raise KontextError("an SVG is a drawing, not pixels; save it as PNG first", name)
    if not isinstance(source, str) or not source.lower().startswith(("http://", "https://")):
        return source
    # Not by Forge's own decoder, which opens whatever Pillow has a plugin for.
    from modules.api import api
    from modules.shared import opts

    if not opts.api_enable_requests:
        raise KontextError(f"Requests not allowed ({source[:80]})", name)
    try:
        if opts.api_forbid_local_requests and not api.verify_url(source):
            raise KontextError(f"Request to local resource not allowed ({source[:80]})", name)
        headers = {"user-agent": opts.api_useragent} if opts.api_useragent else {}
        return api.requests.get(source, timeout=FETCH_SECONDS, headers=headers).content
    except KontextError:
        raise
    except Exception as error:
        raise KontextError(f"could not be fetched: {type(error).__name__} ({source[:80]})", name) from None


def _decode(p: Processing, settings: KontextSettings, background: str) -> list[Reference]:
    sources = {name: None if getattr(settings, f"mute_{name}") else getattr(settings, name) for name in IMAGE_FIELDS}
    references = []
    if settings.init_image_as_reference:
        init_images = getattr(p, "init_images", None)
        if not init_images:
            raise KontextError("there is no init image; it is for img2img", INIT_IMAGE)
        if len({id(image) for image in init_images}) > 1:
            reason = f"there are {len(init_images)} init images, and a batch shares its references; send one at a time"
            raise KontextError(reason, INIT_IMAGE)
        sources["image1"] = None  # the init image takes its place
        references.append(decode_reference(init_images[0], INIT_IMAGE, background))
    for name in IMAGE_FIELDS:
        if sources[name] is not None:
            references.append(decode_reference(open_source(sources[name], name), name, background))
    return references


def _check_sizes(p: Processing, settings: KontextSettings, references: Sequence[Reference]) -> None:
    for output in _output_sizes(p, settings):
        plans = []
        for reference in references:
            size = planned_size(p, settings, reference)
            plans.append(plan_size(size, settings.sizing, settings.half_size, output, reference.name))
        plan_stitch(plans, settings.stitch)


def _output_sizes(p: Processing, settings: KontextSettings) -> list[tuple[int, int]]:
    """Sizes of the samplings that will have references, so that one too large is refused before the first runs."""
    from modules.shared import opts

    sizes = [(p.width, p.height)]
    # By Forge's old rule, an option, width and height are the second pass's already.
    if getattr(p, "enable_hr", False) and settings.hires_references and not opts.use_old_hires_fix_width_height:
        # Forge computes it later: a side that is not given follows the other, and with neither given the scale holds.
        hires: Any = p
        x, y = int(hires.hr_resize_x or 0), int(hires.hr_resize_y or 0)
        scale = x / p.width if x else y / p.height if y else hires.hr_scale
        sizes.append((x or int(p.width * scale), y or int(p.height * scale)))
    return sizes
