"""Inpainting with *Keep outside the mask exactly*: the original put back, and the reference cropped as the canvas is.

Forge composites with the blurred mask, so that pixels outside the user's own change near its edge. Here the overlay
that it composites is replaced by one that is opaque outside the mask; its feather, as wide as Forge's mask blur, lies
inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageOps

from lib_fluxkontext.hosts.forge.runtime.protocols import Img2Img, MaskOverlay, PostprocessedImage, Processing
from lib_fluxkontext.images.composite import keep_outside, keep_overlay
from lib_fluxkontext.images.decode import Reference, content_digest, to_rgb
from lib_fluxkontext.settings import KontextSettings

Region = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the init image."""

NO_MASK = "Keep outside the mask did nothing: there is no mask."
CROPPED = "Only masked: the reference that is the init image was cropped to the same region as the canvas."
PUT_BACK = (
    "Another extension, such as Soft inpainting, had blended across the mask's edge; outside the mask the original was "
    "put back."
)
OTHER_SIZE = "Keep outside the mask did nothing: the picture and the init image differ in size."


class OutsideKeeper:
    """Keeps what lies outside the mask in every picture of one generation.

    Attributes:
        notes: what the user should know.
    """

    def __init__(self, p: Img2Img, region: Region | None) -> None:
        """Prepare the overlays. Forge is about to prepare its own, from the same pictures and the same mask.

        Args:
            p: Forge's processing object, with a mask.
            region: what is sampled of the init image in "only masked".
        """
        self.notes: list[str] = []
        self._feather = max(p.mask_blur_x, p.mask_blur_y)
        self._overlaid = False
        images = p.init_images if len({id(image) for image in p.init_images}) > 1 else p.init_images[:1]
        self._originals = [_as_forge_resizes(p, image, region) for image in images]
        self._masks = [_mask(p, original.size, region) for original in self._originals]
        self._overlays = [
            keep_overlay(original, mask, self._feather)
            for original, mask in zip(self._originals, self._masks, strict=True)
        ]

    def replace_overlay(self, p: Img2Img, args: MaskOverlay) -> None:
        """Give Forge the overlay that it composites over the picture ``args.index`` of the batch."""
        own = _own_overlay(p, args.index)
        if args.overlay_image is not own:
            self._note(p, PUT_BACK)
        # Without "include original image in inpainting" Forge composites nothing, and the picture may have any size.
        self._overlaid = args.overlay_image is not None or p.paste_to is not None
        if self._overlaid:
            args.overlay_image = self._overlays[self._index(args.index)]

    def put_back(self, p: Img2Img, args: PostprocessedImage) -> None:
        """Make sure of it after compositing, where another extension's overlay may have come after ours."""
        index = self._index(p.batch_index)
        if args.image.size != self._originals[index].size:
            self._note(p, OTHER_SIZE)
            return
        feather = 0 if self._overlaid else self._feather
        kept = keep_outside(self._originals[index], args.image, self._masks[index], feather)
        if ImageChops.difference(kept, args.image.convert("RGB")).getbbox() is None:
            return
        if self._overlaid:
            self._note(p, PUT_BACK)
        args.image = kept

    def _index(self, image: int) -> int:
        return min(image, len(self._originals) - 1)

    def _note(self, p: Img2Img, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            p.comment(f"Flux Kontext: {text}")  # this batch's notes are under the image already


def crop_references(p: Img2Img, references: Sequence[Reference], region: Region) -> tuple[Reference, ...]:
    """Crop and resize the references that are the init image as Forge does its canvas in "only masked"."""
    from modules import images

    def crop(reference: Reference) -> Reference:
        if not is_init_image(p, reference):
            return reference
        canvas = images.resize_image(2, reference.image.crop(region), p.width, p.height).convert("RGB")
        return Reference(canvas, content_digest(canvas), reference.name, reference.background)

    return tuple(crop(reference) for reference in references)


def planned_size(p: Processing, settings: KontextSettings, reference: Reference) -> tuple[int, int]:
    """Return the size that a reference will have when it is sized, before Forge knows the region."""
    only_masked = getattr(p, "image_mask", None) is not None and getattr(p, "inpaint_full_res", False)
    if settings.keep_outside_mask and only_masked and is_init_image(p, reference):
        return p.width, p.height
    return reference.size


def is_init_image(p: object, reference: Reference) -> bool:
    """Whether a reference is the very picture that img2img starts from, whatever file it came in."""
    init_images = getattr(p, "init_images", None) or []
    if len({id(image) for image in init_images}) != 1 or not isinstance(init_images[0], Image.Image):
        return False
    return reference.name == "init_image_as_reference" or reference.digest == content_digest(
        to_rgb(init_images[0], reference.background)
    )


def _as_forge_resizes(p: Img2Img, image: Image.Image, region: Region | None) -> Image.Image:
    """Return an init image flattened, and resized as ``StableDiffusionProcessingImg2Img.init`` does it."""
    from modules import images
    from modules.shared import opts

    flat = images.flatten(image, opts.img2img_background_color)
    if region is None and p.resize_mode != 3:
        flat = images.resize_image(p.resize_mode, flat, p.width, p.height)
    return flat.convert("RGB")


def _mask(p: Img2Img, size: tuple[int, int], region: Region | None) -> Image.Image:
    """Return the user's own mask, not blurred, at the size of the picture that is kept; white is made anew."""
    from modules import images
    from modules.processing import create_binary_mask

    mask = create_binary_mask(p.image_mask, round=p.mask_round)
    if p.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    if mask.size != size:
        mask = images.resize_image(p.resize_mode, mask, *size)
    grey = np.array(mask.convert("L"))
    if region is not None:  # a dot that the blur has made too faint for Forge to see is not sampled
        left, top, right, bottom = region
        sampled = np.zeros_like(grey)
        sampled[max(0, top) : bottom, max(0, left) : right] = 255
        grey = np.minimum(grey, sampled)
    return Image.fromarray(grey)


def _own_overlay(p: Img2Img, index: int) -> object:
    """Return what Forge gives scripts as its overlay, to tell it from another extension's."""
    from modules.shared import opts

    overlays = getattr(p, "overlay_images", None)
    return overlays[index] if opts.overlay_inpaint and overlays is not None and index < len(overlays) else None
