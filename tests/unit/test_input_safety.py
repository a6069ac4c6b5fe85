"""Only formats of photographs are opened, their colour profiles are read, and generation data is read in no time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageCms, PngImagePlugin

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.ui.generation_data import generation_data
from lib_fluxkontext.images.colour_profile import MAX_PROFILE_BYTES
from lib_fluxkontext.images.decode import FORMATS, decode_reference, to_rgb
from tests.support.profiles import DISPLAY_P3, GAMMA, display_p3

SRGB_FROM_XYZ = np.array([[3.1341, -1.6174, -0.4907], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]])
"""Under D50 (Bruce Lindbloom, "RGB/XYZ Matrices")."""


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def available(kind: str) -> bool:
    Image.init()
    return kind in Image.OPEN and kind in Image.SAVE


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if available(kind)])
def test_photographs_are_opened_in_every_format_that_people_use(kind: str) -> None:
    assert decode_reference(file_of(Image.new("RGB", (32, 32), (200, 40, 40)), kind), "image1").size == (32, 32)


@pytest.mark.parametrize("kind", ["EPS", "PCX", "SGI", "DDS", "IM", "PDF"])
def test_nothing_else_is_opened(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    with pytest.raises(KontextError, match="image1: not an image that Pillow can open .*none of PNG, JPEG"):
        decode_reference(file_of(Image.new("RGB", (32, 32)), kind), "image1")


def test_of_several_frames_the_first_is_used() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "TIFF"):
        decoded = decode_reference(file_of(frames[0], kind, save_all=True, append_images=frames[1:]), "image1")
        assert decoded.image.getpixel((5, 5)) == (255, 0, 0)


def in_srgb(colour: tuple[int, int, int]) -> np.ndarray:
    """Convert a colour of Display P3 by hand."""
    xyz = (np.array(colour) / 255) ** GAMMA @ np.array(DISPLAY_P3)
    linear = np.clip(SRGB_FROM_XYZ @ xyz, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_display_p3_photograph_keeps_its_colours(kind: str) -> None:
    colour = (180, 90, 70)
    data = file_of(Image.new("RGB", (32, 32), colour), kind, icc_profile=display_p3())
    seen = np.array(decode_reference(data, "image1").image.getpixel((9, 9)))
    assert np.abs(seen - in_srgb(colour)).max() < 3
    assert np.abs(seen - colour).max() > 8


def test_transparency_survives_a_profile_and_is_flattened() -> None:
    image = Image.new("RGBA", (32, 32), (180, 90, 70, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    decoded = decode_reference(file_of(image, "PNG", icc_profile=display_p3()), "image1").image
    assert decoded.getpixel((3, 3)) == (255, 255, 255)
    assert np.abs(np.array(decoded.getpixel((25, 3))) - in_srgb((180, 90, 70))).max() < 3


def test_what_is_srgb_already_is_left_bit_for_bit() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(to_rgb(Image.open(io.BytesIO(file_of(noise, "PNG", icc_profile=profile))))), noise)


@pytest.mark.parametrize(
    "profile",
    [b"", b"x", display_p3()[:200], display_p3()[:-40] + bytes(MAX_PROFILE_BYTES), b"\xff" * 3000],
    ids=["empty", "one byte", "cut off", "too large", "garbage"],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1"])
def test_a_profile_that_cannot_be_used_changes_nothing(mode: str, profile: bytes) -> None:
    image = Image.new("RGB", (20, 20), (180, 90, 70)).convert("L" if mode == "I;16" else mode)
    plain = to_rgb(image)
    image.info["icc_profile"] = profile
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(plain))


@pytest.mark.parametrize("mode", ["L", "LA", "CMYK", "I"])
def test_a_profile_for_another_mode_is_not_used(mode: str) -> None:
    image = Image.new("L", (20, 20), 90).convert(mode)
    image.info["icc_profile"] = display_p3()
    assert to_rgb(image).size == (20, 20)


DATA = "a small red house\nSteps: 2, Kontext: True, Kontext image 1: 0123456789ab 10×10"


def test_generation_data_is_found_in_png_and_exif() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", DATA)
    assert generation_data(Image.open(io.BytesIO(file_of(Image.new("RGB", (20, 20)), "PNG", pnginfo=info)))) == DATA
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + DATA.encode("utf-16-be")
    for kind in ("JPEG", "WEBP"):
        assert generation_data(Image.open(io.BytesIO(file_of(Image.new("RGB", (20, 20)), kind, exif=exif)))) == DATA


@pytest.mark.parametrize("comment", [b"", b"short", b"UNICODE\0\xd8", b"JIS\0\0\0\0\0abc", 7, None])
def test_damaged_generation_data_is_none(comment: object) -> None:
    image = Image.new("CMYK", (20, 20))
    exif = image.getexif()
    if comment is not None:
        exif.get_ifd(0x8769)[0x9286] = comment
    assert generation_data(image) == ""
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    assert generation_data(image.copy()) == ""
    assert generation_data(None) == generation_data("path") == ""
