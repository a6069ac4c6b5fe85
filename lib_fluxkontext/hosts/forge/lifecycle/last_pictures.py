"""Each tab's last result beside its first reference, for the panel to compare: two small pictures a tab, no more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.hosts.forge.runtime.protocols import Processed
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.images.match import Match
from lib_fluxkontext.images.pair import PicturePair, picture_pair
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.records import GenerationReport


class LastPictures:
    """The pictures of one generation.

    Attributes:
        pair: the first reference and the first result.
    """

    def __init__(self, pair: PicturePair, report: GenerationReport) -> None:
        self.pair = pair
        self.report = report

    @cached_property
    def match(self) -> Match | None:
        """How the result lies against the reference; estimated when the panel first asks, never by a generation."""
        try:
            return self.pair.estimate()
        except Exception:
            _report_failure("How the result lies against its reference could not be estimated.")
            return None


_last: dict[str, LastPictures] = {}


def keep(
    tab: str, report: GenerationReport, settings: KontextSettings, references: Sequence[Reference], processed: Processed
) -> None:
    """Keep a finished generation's pictures in place of the tab's last ones. Never raises: the pictures are done.

    Args:
        tab: ``"txt2img"`` or ``"img2img"``.
        report: the one that was published; with the next one these pictures are no longer the last.
        settings: the generation's.
        references: as decoded.
        processed: Forge's result.
    """
    _last.pop(tab, None)
    results = processed.images[processed.index_of_first_image :]
    if not references or not results:
        return
    try:
        _last[tab] = LastPictures(picture_pair(references[0], settings, results[0]), report)
    except KontextError:
        pass  # a picture of an extreme shape, made by another extension
    except Exception:
        _report_failure("Reference and result could not be kept to be compared.")


def last_pictures(tab: str) -> LastPictures | None:
    """Return the pictures that belong to the tab's last report; None where it had no reference or failed."""
    kept = _last.get(tab)
    return kept if kept is not None and kept.report is live_reports.last_report(tab) else None


def _report_failure(message: str) -> None:
    from modules import errors

    errors.report(f"Flux Kontext: {message}", exc_info=True)
