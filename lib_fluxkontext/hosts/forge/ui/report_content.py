"""What the report shows of a tab's last generation: its numbers, and its result beside the reference."""

from __future__ import annotations

from html import escape

from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.hosts.forge.lifecycle.last_pictures import last_pictures
from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.comparison import comparison_html, match_line
from lib_fluxkontext.presentation.html import fold, report_html


def last_report_html(ids: ElementIds) -> str:
    """Render the last report of a tab; of a generation that was refused the reason alone."""
    refusal = _refusal(ids)
    if refusal is not None:
        return line(refusal, "fk-error")
    return report_html(live_reports.last_report(ids.tab), ids.accordion, comparison=_comparison(ids))


def last_report_spoken(ids: ElementIds) -> str:
    """Render the last report of a tab as a screen reader says it; empty before the first."""
    report = live_reports.last_report(ids.tab)
    return "" if report is None else line(_refusal(ids) or text.summary(report))


def _refusal(ids: ElementIds) -> str | None:
    reason = live_reports.last_refusal(ids.tab)
    return None if reason is None else translate("No picture was made: {reason}", reason=reason)


def _comparison(ids: ElementIds) -> str:
    """Render result and reference under a slider; how they lie against each other stands above it if they are off."""
    kept = last_pictures(ids.tab)
    if kept is None:
        return ""
    slider = comparison_html(kept.pair, ids.of("comparison"))
    match = match_line(kept.match, kept.pair.label)
    if kept.match is None or kept.match.is_aligned:
        return fold("comparison", translate("Before and after"), slider + match, folded=True)
    align = (
        f'<button type="button" class="fk-inline-button" data-fk-press="align">{escape(translate("Align"))}</button>'
    )
    offset = f'<div class="fk-offset">{match}{align}</div>'
    return offset + fold("comparison", translate("Before and after"), slider, folded=True)
