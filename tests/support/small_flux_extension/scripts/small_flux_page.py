"""Test-only: where the environment sets ``FLUX_KONTEXT_SMALL_PAGE=1``, *Settings* shows this extension's alone.

Forge's page has thousands of elements, gradio looks at all of them with every answer, and the settings are a third.
They stay options, with their values; only the fields are left out.
"""

from __future__ import annotations

import os

from modules import script_callbacks, shared


def hide_others() -> None:
    """Hide the settings of all others that are registered by now."""
    from lib_fluxkontext.hosts.forge.integration.options import PREFIX

    for name, info in shared.opts.data_labels.items():
        if not name.startswith(PREFIX):
            info.section = (None, "Hidden options")


if os.environ.get("FLUX_KONTEXT_SMALL_PAGE") == "1":
    script_callbacks.on_ui_settings(hide_others)
