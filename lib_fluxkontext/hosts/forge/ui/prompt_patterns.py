"""Instruction patterns for FLUX.1 Kontext, and the texts of the panel's prompt help."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from lib_fluxkontext.hosts.forge.runtime.prompt_tokens import MAX_TOKENS, t5_tokens
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate


@dataclass(frozen=True)
class Pattern:
    """An instruction with blanks.

    Attributes:
        title: what it is for.
        text: the instruction, in English; what the user is to fill in stands in square brackets, without ``:`` and
            ``|``, which Forge would take for prompt editing.
    """

    title: str
    text: str


PATTERNS = (
    Pattern(
        "Change the style",
        "Change the picture to [style], keeping the composition, the people and the objects as they are.",
    ),
    Pattern(
        "Keep the face",
        "Change [what], keeping the person's face, hairstyle and expression exactly as they are.",
    ),
    Pattern(
        "Change the background",
        "Change the background to [place], keeping the subject at exactly the same position, size and pose.",
    ),
    Pattern(
        "Put both into one scene",
        "Put [first subject] and [second subject] together in [place], keeping the face and the look of each.",
    ),
    Pattern(
        "Replace text",
        "Replace '[old text]' with '[new text]', keeping the font, the size and the colour.",
    ),
    Pattern(
        "Remove something",
        "Remove [object] and show what is behind it. Keep everything else as it is.",
    ),
)
"""The advice of Black Forest Labs' prompting guide for Kontext (docs.bfl.ai, "Prompting Guide - Image-to-Image"), in
words of ours: say what changes and what must stay, name subjects by what is seen of them instead of by pronouns, put
text in quotation marks, and prefer "change" to "transform", which invites a new face."""


def ideas_html() -> str:
    """Return the menu. The page translates titles and instructions; what is inserted stays English."""
    items = "".join(
        f'<li><button type="button" data-pattern="{escape(pattern.text)}">'
        f"<strong>{escape(pattern.title)}</strong><span>{escape(pattern.text)}</span></button></li>"
        for pattern in PATTERNS
    )
    note = "It is inserted in English, which Kontext understands best."
    return (
        '<details class="fk-ideas"><summary>Prompt ideas</summary>'
        f"<div><ul>{items}</ul><p hidden>{note}</p></div></details>"
    )


def tokens_html(prompt: str) -> str:
    """Return the prompt's length for T5, with a warning where it is too long; nothing where it is unknown or empty."""
    tokens = t5_tokens(prompt) if prompt.strip() else None
    return "" if tokens is None else tokens_line(tokens)


def tokens_line(tokens: int) -> str:
    """Return a number of T5 tokens as HTML."""
    if tokens <= MAX_TOKENS:
        return line(translate("T5: {tokens} of {limit}", tokens=tokens, limit=MAX_TOKENS), "fk-muted")
    warning = translate(
        "T5: {tokens} of {limit}. Forge cuts nothing off, but Kontext is made for {limit} tokens at most: "
        "it may ignore some of the text, and each step takes longer.",
        tokens=tokens,
        limit=MAX_TOKENS,
    )
    return line(warning, "fk-warning")
