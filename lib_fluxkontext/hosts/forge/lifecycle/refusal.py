"""Refuse a generation where people see it: in Forge's own message, on the panel, and in the cell of a plot.

X/Y/Z plot swallows what a cell raises. Where its first cell is refused, the whole plot is: what is wrong there is wrong
in most cells. A later one would stay blank, its reason in the console alone; so it goes on without a sampling, and its
picture says why.
"""

from __future__ import annotations

from typing import Any

from lib_fluxkontext.hosts.forge.integration import xyz_axes
from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.hosts.forge.lifecycle.abort import abort_generation, http_error, report_unexpected
from lib_fluxkontext.hosts.forge.lifecycle.reason_picture import reason_picture
from lib_fluxkontext.hosts.forge.runtime.protocols import Processed, Processing

ATTRIBUTE = "flux_kontext_refusal"
TITLE = "Flux Kontext"

INFOTEXT_METHODS = ("get_token_merging_ratio",)
"""What Forge calls on a plot's first cell for the grid's infotext, where nothing is swallowed."""


def refuse(p: Processing, methods: tuple[str, ...], error: BaseException) -> None:
    """End a generation before anything of it is sampled.

    Args:
        p: Forge's processing object.
        methods: names of what Forge calls next on it.
        error: why.
    """
    cell = xyz_axes.cell_of(p)
    if cell is None or cell.is_first:
        refuse_sampling(p, p, methods, error)
        return
    report_unexpected(error)
    setattr(p, ATTRIBUTE, _publish(p, error))


def refuse_sampling(p: Processing, target: object, methods: tuple[str, ...], error: BaseException) -> None:
    """End a generation whose sampling is about to begin.

    Args:
        p: Forge's processing object.
        target: it, or its sampler.
        methods: names of what Forge calls next on the target.
        error: why.
    """
    _publish(p, error)
    cell = xyz_axes.cell_of(p)
    plot = ((p, INFOTEXT_METHODS),) if cell is not None and cell.is_first else ()
    abort_generation(error, (target, methods), *plot)


def skip_samplings(p: Processing) -> None:
    """Make Forge sample nothing of a refused cell; by now it has set up the prompts and seeds that a plot reads."""
    if getattr(p, ATTRIBUTE, None) is not None:
        p.n_iter = 0
        p.do_not_save_grid = True  # Forge cannot arrange no pictures at all
        # Neo would encode the init image, and keep it as a reference for the next that samples.
        p.init = _nothing


def show_in_cell(p: Processing, processed: Processed) -> None:
    """Give a refused cell a picture of its reason."""
    reason: str | None = getattr(p, ATTRIBUTE, None)
    if reason is not None and not processed.images:
        from modules import images

        host: Any = images
        processed.images.append(reason_picture(f"{TITLE}: {reason}", (p.width, p.height), host.get_font))


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for what a refused cell does not need."""


def _publish(p: Processing, error: BaseException) -> str:
    """Show the reason on the panel, and return it."""
    reason = str(http_error(error))
    live_reports.publish_refusal(live_reports.tab_of(p), reason)
    return reason
