"""What Forge calls: the always-on script and the callbacks beside it. They delegate only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modules import scripts, shared
from torch import Tensor

from lib_fluxkontext import infotext
from lib_fluxkontext.hosts.forge.integration import options, run_log
from lib_fluxkontext.hosts.forge.lifecycle import generation, last_pictures, live_reports, refusal, unused
from lib_fluxkontext.hosts.forge.lifecycle.generation import Generation
from lib_fluxkontext.hosts.forge.lifecycle.inputs import read_inputs
from lib_fluxkontext.hosts.forge.runtime.protocols import (
    Img2Img,
    MaskOverlay,
    PostprocessedImage,
    Processed,
    Processing,
)
from lib_fluxkontext.hosts.forge.ui.element_ids import TITLE
from lib_fluxkontext.hosts.forge.ui.script_page import ScriptPage


class FluxKontextScript(scripts.Script):
    """The always-on script. It keeps no state of a generation; that belongs to ``p``."""

    sorting_priority = 0

    def __init__(self) -> None:
        super().__init__()
        self.page = ScriptPage()

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        # The page asks once. Forge's API asks again, for what a request leaves out: that has the API's defaults.
        for_page = self.controls is None
        panel = self.page.build(is_img2img, options.current() if for_page else None)
        if not for_page and self.api_info is not None:
            # Correct what /sdapi/v1/script-info says: Forge noted it down from the page's panel.
            for argument, control in zip(self.api_info.args, panel.arguments(), strict=True):
                argument.value = control.value
        self.infotext_fields = self.page.paste_fields()
        self.paste_field_names = list(infotext.LABELS.values())
        return panel.arguments()

    def after_component(self, component: Any, **kwargs: Any) -> None:
        tab = "img2img" if self.is_img2img else "txt2img"
        self.page.after_component(component, str(kwargs.get("elem_id") or "").removeprefix(f"{tab}_"))

    def before_process(self, p: Processing, *args: Any) -> None:
        """Read and decode everything; whatever is wrong ends the generation here."""
        generation.attach(p, None)
        # X/Y/Z plot shares one dict among all its cells.
        p.extra_generation_params = infotext.strip_own_fields(p.extra_generation_params)
        try:
            inputs = read_inputs(p, args)
        except Exception as error:
            refusal.refuse(p, ("setup_prompts",), error)
            return
        if inputs is None and unused.has_unused_references(p, args):
            p.comment(unused.NOTE)
        if inputs is not None:
            generation.attach(p, Generation(inputs))
            p.extra_generation_params.update(infotext.settings_to_infotext(inputs.settings, inputs.references))

    def process(self, p: Processing, *args: Any) -> None:
        """The checkpoint is loaded, nothing is sampled yet."""
        current = generation.of(p)
        if current is not None:
            try:
                current.check_model(p)
            except Exception as error:
                generation.attach(p, None)
                refusal.refuse(p, ("init",), error)
        refusal.skip_samplings(p)

    def before_process_init_images(self, p: Img2Img, pp: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Forge knows mask and region; the init image is not encoded yet."""
        current = generation.of(p)
        if current is None or not current.active:
            return
        try:
            current.prepare_inpainting(p, pp.get("crop_region"), pp.get("image_mask") is not None)
        except Exception as error:
            refusal.refuse_sampling(p, p, ("sample",), error)

    def process_before_every_sampling(self, p: Processing, *args: Any, x: Tensor, **kwargs: Any) -> None:
        """Encode the references and hook the sampling."""
        current = generation.of(p)
        if current is None or not current.active:
            return
        try:
            current.open_sampling(p, x)
        except Exception as error:
            refusal.refuse_sampling(p, p.sampler, ("sample", "sample_img2img"), error)

    def postprocess_batch(self, p: Processing, *args: Any, **kwargs: Any) -> None:
        """The infotexts of this batch's images are built right after this."""
        current = generation.of(p)
        if current is None or not current.active:
            return
        current.close()
        current.finished_batches += not (shared.state.interrupted or shared.state.skipped)
        report = current.report(p.iteration)
        for note in generation.batch_notes(report):  # under the image, not in the report alone
            p.comment(f"Flux Kontext: {note}")
        p.extra_generation_params.update(infotext.report_to_infotext(report))

    def postprocess_maskoverlay(self, p: Img2Img, ppmo: MaskOverlay, *args: Any) -> None:
        """Forge is about to composite the original over a picture."""
        current = generation.of(p)
        if current is not None and current.outside is not None:
            current.outside.replace_overlay(p, ppmo)

    def postprocess_image_after_composite(self, p: Img2Img, pp: PostprocessedImage, *args: Any) -> None:
        """The picture is composited; nothing is saved yet."""
        current = generation.of(p)
        if current is not None and current.outside is not None:
            current.outside.put_back(p, pp)

    def postprocess(self, p: Processing, processed: Processed, *args: Any) -> None:
        """Infotexts are built, so what is added now reaches the API's ``info`` alone."""
        current = generation.of(p)
        generation.attach(p, None)
        refusal.show_in_cell(p, processed)
        if current is None and unused.has_unused_references(p, args):
            processed.extra_generation_params = {**processed.extra_generation_params, unused.LABEL: unused.NOTE}
        if current is None or not current.active:
            return
        current.close()
        report, failure = current.report(), None
        if current.finished_batches == p.n_iter:  # one that was cut short would pass for a very fast one in the log
            failure = run_log.record(p, processed, current.settings, report)
        if failure is not None:
            report = replace(report, notes=(*report.notes, f"{failure[:1].upper()}{failure[1:]}"))
        tab = live_reports.tab_of(p)
        live_reports.publish(tab, report)
        last_pictures.keep(tab, report, current.settings, current.given_references, processed)
        processed.extra_generation_params = {**processed.extra_generation_params, infotext.REPORT: report.to_dict()}


def connect_tabs(component: Any, **kwargs: Any) -> None:
    """Connect what leads from one tab to the other or to the top of the page: at its footer all of it is there."""
    if kwargs.get("elem_id") == "footer":
        for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
            for script in runner.alwayson_scripts:
                if isinstance(script, FluxKontextScript):
                    script.page.connect_img2img()
                    script.page.connect_checkpoint_list()


def fill_in_pasted(text: str, params: dict[str, Any]) -> None:
    """Complete pasted parameters with what infotext leaves out."""
    infotext.fill_in_background(params)
