"""*Align to reference 1*: the gallery's selected picture, shifted and scaled back onto the reference, as one more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from lib_fluxkontext.errors import first_line
from lib_fluxkontext.hosts.forge.lifecycle.last_pictures import last_pictures
from lib_fluxkontext.hosts.forge.ui.gallery import NO_PICTURE
from lib_fluxkontext.hosts.forge.ui.generation_data import generation_data
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.images.match import align, estimate_match
from lib_fluxkontext.infotext import infotext_line
from lib_fluxkontext.presentation.comparison import match_words

GENERATION_INFO = "generation_info_{tab}"
"""Element id of Forge's hidden text box with the gallery's infotexts, which is built after the gallery."""

NO_REFERENCE = "There is no reference to align to: generate a picture with a reference first."
TOO_DIFFERENT = "This picture cannot be aligned: it shares too little with the reference."
ALREADY_ALIGNED = "This picture lies on the reference already."

LABEL = "Kontext aligned"
"""In infotext, so that an aligned picture always says so."""

Pictures = Sequence[tuple[Any, str | None]]
"""(Pillow image, caption) of each picture in a gallery."""


def connect_align(tab: str, button: gr.Button, gallery: Component, generation_info: Component) -> None:
    """Connect the button.

    Args:
        tab: ``"txt2img"`` or ``"img2img"``.
        button: *Align to reference 1*.
        gallery: the tab's results.
        generation_info: Forge's text box for this gallery (``GENERATION_INFO``).
    """
    shown = f"gradioApp().getElementById('{tab}_generation_info_button').click()"
    button.click(
        partial(add_aligned, tab),
        # Inputs must be components: the button holds the place of the index, as in Forge's own code.
        js="(gallery, info) => [gallery, info, selected_gallery_index()]",
        inputs=[gallery, generation_info, button],
        outputs=[gallery, generation_info],
        show_progress="hidden",
        # Forge's own button shows the selected picture's infotext, once the gallery has selected it.
    ).then(None, js=f"() => {{ setTimeout(() => {shown}, 200); }}")


def add_aligned(tab: str, pictures: Pictures | None, generation_info: str | None, selected: int) -> list[Any]:
    """Return the gallery with the selected picture aligned as its last, and Forge's infotexts with this one's.

    Args:
        tab: ``"txt2img"`` or ``"img2img"``.
        pictures: the gallery's.
        generation_info: Forge's, as JSON.
        selected: index in the gallery; negative where none is: the first result.
    """
    kept = last_pictures(tab)
    if not pictures or kept is None:
        gr.Warning(NO_REFERENCE if pictures else NO_PICTURE)
        return [gr.update(), gr.update()]
    info: dict[str, Any] = json.loads(generation_info or "{}")
    first = int(info.get("index_of_first_image", 0))
    index = selected if 0 <= selected < len(pictures) else min(first, len(pictures) - 1)
    picture = pictures[index][0]
    match = estimate_match(kept.pair.reference, picture)
    if match is None or match.is_aligned:
        gr.Warning(TOO_DIFFERENT if match is None else ALREADY_ALIGNED)
        return [gr.update(), gr.update()]
    aligned = align(picture, match)
    infotexts = [*info.get("infotexts", ()), *[""] * len(pictures)][: len(pictures)]
    field = infotext_line({LABEL: match_words(match, translated=False)})
    own = infotexts[index] or generation_data(picture) or (infotexts[first] if first < len(infotexts) else "")
    text = ", ".join(part for part in (own, field) if part)
    aligned.info["parameters"] = text  # Forge writes it into the file that gradio shows
    _save(tab, aligned, text, info, index - first)
    for image, _ in pictures:  # or Forge would write each to a file once more
        image.already_saved_as = image.filename.rsplit("?", 1)[0]
    caption = translate("Aligned; it was {offset}", offset=match_words(match))
    shown = gr.update(value=[*pictures, (aligned, caption)], selected_index=len(pictures))
    return [shown, json.dumps({**info, "infotexts": [*infotexts, text]})]


def _save(tab: str, image: Image.Image, text: str, info: Mapping[str, Any], number: int) -> None:
    """Save a picture where and as Forge saves results, if it does."""
    from modules import errors, images
    from modules.shared import opts

    if not opts.samples_save:
        return
    folder = opts.outdir_samples or getattr(opts, f"outdir_{tab}_samples")
    seed, prompt = _of_picture(info, "seed", number), _of_picture(info, "prompt", number)
    try:
        images.save_image(image, folder, "", seed, prompt, opts.samples_format, info=text, suffix="-aligned")
    except OSError as error:
        errors.report("Flux Kontext: the aligned picture could not be saved", exc_info=True)
        gr.Warning(translate("The aligned picture could not be saved: {reason}", reason=first_line(error)))


def _of_picture(info: Mapping[str, Any], name: str, number: int) -> Any:
    """Return ``"seed"`` or ``"prompt"`` of a result."""
    values = info.get(f"all_{name}s") or ()
    return values[number] if 0 <= number < len(values) else info.get(name)
