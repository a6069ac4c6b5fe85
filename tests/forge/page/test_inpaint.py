"""*Keep outside the mask exactly*, on the page: only in img2img, and what it promises is in the gallery's file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.forge_page import ForgePage
from tests.support.panel import IMG2IMG_PANEL, PANEL, check, unfold
from tests.support.photos import woman

BOX = (96, 128, 400, 432)


@pytest.mark.both_hosts
def test_inpainting_leaves_everything_outside_the_mask_as_it_was(page: ForgePage, tmp_path: Path) -> None:
    assert not page.element(f"{PANEL}_keep_outside_mask").is_visible()
    woman().save(tmp_path / "woman.png")
    mask = Image.new("RGB", (512, 512), "black")
    mask.paste("white", BOX)
    mask.save(tmp_path / "mask.png")
    page.open_tab("img2img")
    page.page.locator("#mode_img2img > .tab-nav > button", has_text="Inpaint upload").click()
    page.drop_image("img_inpaint_base", tmp_path / "woman.png")
    page.drop_image("img_inpaint_mask", tmp_path / "mask.png")
    unfold(page, IMG2IMG_PANEL)
    check(page, f"{IMG2IMG_PANEL}_keep_outside_mask")
    check(page, f"{IMG2IMG_PANEL}_init_image")
    check(page, f"{IMG2IMG_PANEL}_half_size")
    page.fill("img2img_width", 512)
    page.fill("img2img_height", 512)
    page.fill("img2img_steps", 2)
    page.generate("img2img", timeout=240)
    source = page.gallery_image("img2img")
    assert source is not None
    made = np.asarray(Image.open(io.BytesIO(page.page.request.get(source).body())).convert("RGB")).astype(int)
    original = np.asarray(woman().convert("RGB")).astype(int)
    inside = np.asarray(mask.convert("L")) > 0
    assert made.shape == original.shape
    assert (made[~inside] == original[~inside]).all()
    assert np.abs(made[inside] - original[inside]).mean() > 5
    assert "Kontext keep outside mask: True" in page.infotext("img2img")
