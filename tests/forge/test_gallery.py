"""A result goes back into a slot, again and again, and on to img2img, as it is."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.support.browser import ForgePage
from tests.support.forge_server import ForgeServer
from tests.support.images import decode_image
from tests.support.panel import PANEL, facts, wait_value

THUMBNAILS = "#txt2img_gallery .thumbnail-item.thumbnail-small"


def picture(page: ForgePage, selector: str) -> tuple[bytes, Image.Image]:
    """The file behind a picture on the page, and what it decodes to."""
    source = page.page.locator(selector).first.evaluate("image => image.src")
    content = page.page.request.get(source).body()
    return content, Image.open(io.BytesIO(content))


def is_open(page: ForgePage, tab: str) -> bool:
    label = page.element(f"{tab}_{PANEL}").locator(".label-wrap").first
    return "open" in (label.get_attribute("class") or "").split()


def is_on(page: ForgePage, tab: str) -> bool:
    return page.page.locator(f"#{tab}_{PANEL}-visible-checkbox").is_checked()


def test_an_empty_gallery_is_said_so_and_changes_nothing(page: ForgePage, forge_page: ForgeServer) -> None:
    log = len(forge_page.log_text())
    page.element(f"txt2img_{PANEL}").locator(".label-wrap").first.click()
    for place, button in enumerate((f"txt2img_{PANEL}_to_slot1", f"txt2img_{PANEL}_to_img2img")):
        if place:
            page.open_accordion(f"txt2img_{PANEL}")
        page.click(button)
        page.page.locator(".toast-body").get_by_text("no picture in the gallery yet").nth(place).wait_for(timeout=15000)
        assert is_open(page, "txt2img") == bool(place)
    assert page.element("tab_txt2img").is_visible()
    assert page.element(f"txt2img_{PANEL}_image1").locator("img").count() == 0
    assert "Traceback" not in forge_page.log_text()[log:]


def test_results_go_round(page: ForgePage) -> None:
    page.element("txt2img_prompt").locator("textarea").fill("half transparent")
    page.fill("txt2img_steps", 2)
    page.fill("txt2img_width", 320)
    page.fill("txt2img_batch_count", 2)
    page.element(f"txt2img_{PANEL}_mute2").locator("input").check()
    page.element(f"txt2img_{PANEL}").locator(".label-wrap").first.click()
    page.generate()
    assert not is_on(page, "txt2img")
    assert page.page.locator(THUMBNAILS).count() == 3  # a grid and two pictures
    page.page.locator(THUMBNAILS).nth(2).click()
    chosen, image = picture(page, "#txt2img_gallery .preview img[data-testid=detailed-image]")

    page.click(f"txt2img_{PANEL}_to_slot2")
    facts(page, 2, "320×256")
    assert is_open(page, "txt2img")
    assert is_on(page, "txt2img")
    assert not page.element(f"txt2img_{PANEL}_mute2").locator("input").is_checked()
    assert page.element(f"txt2img_{PANEL}_image1").locator("img").count() == 0
    kept, _ = picture(page, f"#txt2img_{PANEL}_image2 .image-frame img")
    assert kept == chosen
    assert (image.mode, image.size) == ("RGBA", (320, 256))
    assert "half transparent" in image.info["parameters"]

    # Closed while it stays on, as the box alone can do: open again, since it was asked for.
    for _ in range(2):
        page.page.locator(f"#txt2img_{PANEL}-visible-checkbox").click()
    page.element(f"txt2img_{PANEL}").locator(".label-wrap").first.click()
    assert not is_open(page, "txt2img")
    page.click(f"txt2img_{PANEL}_to_slot1")
    facts(page, 1, "320×256")
    assert is_open(page, "txt2img")

    page.click(f"txt2img_{PANEL}_to_img2img")
    init = page.page.locator("#img2img_image img[src^='data:']").first
    init.wait_for(timeout=15000)
    wait_value(page, "img2img_width", "320")
    assert np.array_equal(np.asarray(decode_image(init.evaluate("image => image.src"))), np.asarray(image))

    page.open_accordion(f"img2img_{PANEL}")
    page.element(f"img2img_{PANEL}_init_image").locator("input").check()
    page.fill("img2img_steps", 2)
    page.generate("img2img")
    assert "Kontext image 1: " not in page.infotext("img2img")  # it was the init image
    page.click(f"img2img_{PANEL}_to_slot1")
    facts(page, 1, "320×256 →", "img2img")
    assert not page.element(f"img2img_{PANEL}_init_image").locator("input").is_checked()
