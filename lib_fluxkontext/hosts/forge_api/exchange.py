"""A row as a request to txt2img, and the answer as a picture."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from lib_fluxkontext.batch.record import row_values
from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.images.files import read_unchanged
from lib_fluxkontext.settings import IMAGE_FIELDS

SCRIPT = "Flux Kontext"
REPORT = "Kontext report"
"""``infotext.REPORT``; that module would bring torch, which nothing here needs."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def request_of(row: Row, checkpoint: str, loras: Sequence[str]) -> dict[str, Any]:
    """Write a row as the body of a request.

    Args:
        row: what to make.
        checkpoint: its title at the server.
        loras: the names of the row's LoRAs at the server, in order.

    Raises:
        KontextError: a reference that cannot be read, or is another one now.
    """
    # Only what is not the default: a server with an older version does not know the newest names.
    settings = row_values(row, all_settings=False)["settings"]
    tags = [f"<lora:{name}:{lora.weight:g}>" for name, lora in zip(loras, row.loras, strict=True)]
    return {
        "prompt": " ".join([row.prompt, *tags]),
        "steps": row.steps,
        "seed": row.seed,
        "width": row.width,
        "height": row.height,
        "cfg_scale": 1.0,
        "distilled_cfg_scale": row.guidance,
        "sampler_name": "Euler",
        "scheduler": "Simple",
        "save_images": False,
        "override_settings": {"sd_model_checkpoint": checkpoint},
        # Or Forge would take the model off the card after every row; the worker restores the selection at its end.
        "override_settings_restore_afterwards": False,
        "alwayson_scripts": {SCRIPT: {"args": [{**settings, **_references(row), "enabled": True}]}},
    }


def _references(row: Row) -> dict[str, str]:
    references = {}
    for name, path, digest in zip(IMAGE_FIELDS, row.images, row.digests, strict=False):
        references[name] = base64.b64encode(read_unchanged(path, digest, name)).decode()
    return references


class Answer:
    """What txt2img answered.

    Raises:
        ValueError: something that is not a picture as PNG with its data.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        try:
            self.png = base64.b64decode(body["images"][0].rpartition(",")[2])
            self.info: dict[str, Any] = json.loads(body["info"])
            self.report: dict[str, Any] = self.info["extra_generation_params"][REPORT]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"an answer without picture or report ({type(error).__name__}: {error})") from None
        if not self.png.startswith(PNG_SIGNATURE):
            raise ValueError("a picture that is no PNG; set Saving images/grids > File format for images to png")

    @property
    def steps(self) -> int:
        """Sampler steps that were made: fewer than asked for where somebody pressed Interrupt or Skip."""
        return int(self.report["steps"])

    @property
    def encoded(self) -> int:
        """References that went through the VAE."""
        return sum(int(sampling["references_encoded"]) for sampling in self.report["passes"])

    @property
    def model(self) -> str:
        """The checkpoint's file name without its ending."""
        return str(self.info.get("sd_model_name") or "")

    def picture(self) -> tuple[Image.Image | bytes, str]:
        """Return the PNG as it is and no text, or, where Forge writes none into it, the image and its infotext."""
        image = Image.open(io.BytesIO(self.png))
        if image.info.get("parameters"):
            return self.png, ""
        image.load()
        return image, str(self.info["infotexts"][0])
