"""In words: why First Block Cache reused nothing, little or everything, and which threshold to try."""

from __future__ import annotations

from html import escape

from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.telemetry.advice import VISIBLE_LOSS, Advice, Suggestion, advise
from lib_fluxkontext.telemetry.records import GenerationReport


def advice_text(report: GenerationReport) -> str:
    """Explain a finished generation's cache and suggest a threshold; empty where there is nothing to say."""
    advice = advise(report)
    return "" if advice is None else _explain(advice, several=len(report.passes) > 1)


def advice_html(report: GenerationReport, *, button: bool = True) -> str:
    """Render ``advice_text`` as a paragraph; empty where there is nothing to say.

    Args:
        report: of a finished generation.
        button: whether a suggestion gets a button. The page's script gives it its function; the threshold is in
            ``data-fk-threshold``.
    """
    advice = advise(report)
    if advice is None:
        return ""
    content = escape(_explain(advice, several=len(report.passes) > 1))
    if button and advice.suggestion is not None:
        threshold = _number(advice.suggestion.threshold)
        label = escape(translate("Use {threshold}", threshold=threshold))
        content += (
            ' <button type="button" class="fk-advice-use" data-fk-press="use_advice" '
            f'data-fk-threshold="{threshold}">{label}</button>'
        )
    return f'<p class="fk-advice">{content}</p>'


def suggested_threshold(report: GenerationReport) -> float | None:
    """Return the threshold to try, 0.01 to 1 in the slider's steps, or None where there is no suggestion."""
    advice = advise(report)
    return None if advice is None or advice.suggestion is None else advice.suggestion.threshold


def _explain(advice: Advice, several: bool) -> str:
    """Put the sentences together; with several samplings, under the name of the one they are about."""
    sentences = [_reason(advice)]
    if advice.noisy_sampler is not None and advice.reason != "everything":
        sentences.append(
            translate(
                "{sampler} adds noise in every step, so the steps differ more than with Euler.",
                sampler=advice.noisy_sampler,
            )
        )
    sentences += _suggest(advice.suggestion, advice.steps)
    explanation = " ".join(sentences)
    return f"{text.label(advice.label)}: {explanation}" if several else explanation


def _reason(advice: Advice) -> str:
    threshold = _number(advice.threshold)
    if advice.reason == "nothing":
        return translate(
            "The smallest change was {change}: at {threshold} nothing can be reused.",
            change=_change(advice.smallest, advice.threshold),
            threshold=threshold,
        )
    if advice.reason == "little":
        return translate(
            "Only {reused} of {steps} steps changed by less than {threshold} and were reused.",
            reused=advice.reused,
            steps=advice.steps,
            threshold=threshold,
        )
    return translate(
        "{reused} of {steps} steps were reused, all that can be: at {threshold} the picture can suffer.",
        reused=advice.reused,
        steps=advice.steps,
        threshold=threshold,
    )


def _suggest(suggestion: Suggestion | None, steps: int) -> list[str]:
    if suggestion is None:
        return [translate("No higher threshold would reuse a step.")]
    threshold = _number(suggestion.threshold)
    sentences = [
        translate(
            "About {threshold} would reuse {reused} of {steps}.",
            threshold=threshold,
            reused=suggestion.reused,
            steps=steps,
        )
    ]
    if suggestion.visible_loss:
        sentences.append(
            translate(
                "Above {threshold} pictures can change visibly: compare with the cache off.",
                threshold=_number(VISIBLE_LOSS),
            )
        )
    return sentences


def _number(threshold: float) -> str:
    return f"{threshold:g}"


def _change(distance: float, threshold: float) -> str:
    """Format a distance that reached the threshold, so that it does not look smaller."""
    short = f"{distance:.2f}"
    return short if float(short) > threshold else f"{distance:.3f}"
