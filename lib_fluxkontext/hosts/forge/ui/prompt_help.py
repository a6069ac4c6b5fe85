"""Help with the prompt: a menu of instruction patterns, and the prompt's length for T5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import gradio as gr
from gradio.components import Component

from lib_fluxkontext.hosts.forge.ui.element_ids import ElementIds
from lib_fluxkontext.hosts.forge.ui.prompt_patterns import ideas_html, tokens_html

FORGE_CONTROLS = ("prompt",)
"""Element ids of Forge's own controls, behind ``txt2img_`` or ``img2img_``."""


@dataclass(frozen=True)
class PromptHelp:
    """The help with the prompt.

    Attributes:
        ideas: the menu; our script inserts what is chosen, without a request.
        tokens: the prompt's length.
        count: hidden button that our script presses when the prompt has changed; updates the length.
    """

    ideas: gr.HTML
    tokens: gr.HTML
    count: gr.Button


class HasPromptHelp(Protocol):
    """What is needed of the panel."""

    @property
    def prompt_help(self) -> PromptHelp: ...


def build_prompt_help(ids: ElementIds) -> PromptHelp:
    """Create the menu and the prompt's length; they stand in a row."""
    return PromptHelp(
        ideas=gr.HTML(ideas_html(), elem_id=ids.of("prompt_ideas"), elem_classes="fk-prompt-ideas"),
        tokens=gr.HTML("", elem_id=ids.of("prompt_tokens"), elem_classes="fk-prompt-tokens"),
        count=gr.Button("Count tokens", elem_id=ids.of("count_tokens"), elem_classes="fk-hidden"),
    )


def connect_prompt_help(panel: HasPromptHelp, forge: Mapping[str, Component]) -> None:
    """Connect the prompt's length with Forge's prompt."""
    panel.prompt_help.count.click(
        tokens_html,
        inputs=[forge["prompt"]],
        outputs=[panel.prompt_help.tokens],
        show_progress="hidden",
        trigger_mode="always_last",
    )
