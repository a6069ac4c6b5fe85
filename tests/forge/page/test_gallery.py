"""A result goes back into a slot, again and again, and on to img2img, unchanged."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.support.forge_install import NEO
from tests.support.forge_page import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.images import decode_image
from tests.support.panel import IMG2IMG_PANEL, PANEL, check, facts, is_checked, unfold, wait_value

THUMBNAILS = "#txt2img_gallery .thumbnail-item.thumbnail-small"


def image_file(page: ForgePage, selector: str) -> tuple[bytes, Image.Image]:
    """Return the file behind an image on the page, and what it decodes to."""
    source = page.page.locator(selector).first.evaluate("image => image.src")
    content = page.page.request.get(source).body()
    return content, Image.open(io.BytesIO(content))


def is_unfolded(page: ForgePage) -> bool:
    """Return whether txt2img's panel is unfolded."""
    label = page.element(PANEL).locator(".label-wrap").first
    return "open" in (label.get_attribute("class") or "").split()


def is_on(page: ForgePage) -> bool:
    """Return whether txt2img's panel is on."""
    return page.page.locator(f"#{PANEL}-visible-checkbox").is_checked()


def test_with_an_empty_gallery_the_buttons_say_so_and_change_nothing(page: ForgePage, forge_page: ForgeServer) -> None:
    log = len(forge_page.log_text())
    page.element(PANEL).locator(".label-wrap").first.click()
    for place, button in enumerate((f"{PANEL}_to_slot1", f"{PANEL}_to_img2img")):
        if place:
            unfold(page)
        page.click(button)
        page.page.locator(".toast-body").get_by_text("no picture in the gallery yet").nth(place).wait_for()
        assert is_unfolded(page) == bool(place)
    assert page.element("tab_txt2img").is_visible()
    assert page.element(f"{PANEL}_image1").locator("img").count() == 0
    assert "Traceback" not in forge_page.log_text()[log:]


def test_a_result_goes_into_either_slot_and_to_img2img_and_back_unchanged(
    page: ForgePage, forge_page: ForgeServer
) -> None:
    page.element("txt2img_prompt").locator("textarea").fill("half transparent")
    page.fill("txt2img_steps", 2)
    page.fill("txt2img_width", 320)
    page.fill("txt2img_batch_count", 2)
    check(page, f"{PANEL}_mute2")
    page.element(PANEL).locator(".label-wrap").first.click()
    page.generate()
    assert not is_on(page)
    assert page.page.locator(THUMBNAILS).count() == 3  # a grid and two pictures
    page.page.locator(THUMBNAILS).nth(2).click()
    chosen, image = image_file(page, "#txt2img_gallery .preview img[data-testid=detailed-image]")

    page.click(f"{PANEL}_to_slot2")
    facts(page, 2, "320×256")
    assert is_unfolded(page)
    assert is_on(page)
    assert not is_checked(page, f"{PANEL}_mute2")
    assert page.element(f"{PANEL}_image1").locator("img").count() == 0
    kept, _ = image_file(page, f"#{PANEL}_image2 .image-frame img")
    assert kept == chosen
    assert (image.mode, image.size) == ("RGBA", (320, 256))
    assert "half transparent" in image.info["parameters"]

    # Folded but on, as the checkbox alone can make it: it unfolds again.
    for _ in range(2):
        page.page.locator(f"#{PANEL}-visible-checkbox").click()
    page.element(PANEL).locator(".label-wrap").first.click()
    assert not is_unfolded(page)
    page.click(f"{PANEL}_to_slot1")
    facts(page, 1, "320×256")
    assert is_unfolded(page)

    page.click(f"{PANEL}_to_img2img")
    init = page.page.locator("#img2img_image img[src^='data:']").first
    init.wait_for()
    wait_value(page, "img2img_width", "320")
    sent = image.convert("RGB").convert("RGBA") if forge_page.host is NEO else image  # Neo drops what is transparent
    assert np.array_equal(np.asarray(decode_image(init.evaluate("image => image.src"))), np.asarray(sent))

    unfold(page, IMG2IMG_PANEL)
    check(page, f"{IMG2IMG_PANEL}_init_image")
    page.fill("img2img_steps", 2)
    page.generate("img2img")
    assert "Kontext image 1: " not in page.infotext("img2img")  # it was the init image
    page.click(f"{IMG2IMG_PANEL}_to_slot1")
    facts(page, 1, "320×256 →", IMG2IMG_PANEL)
    assert not is_checked(page, f"{IMG2IMG_PANEL}_init_image")
