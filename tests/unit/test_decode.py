"""Decoding: nothing clipped, nothing leaked, nothing guessed."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.decode import colour, content_digest, decode_reference, to_rgb


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def pixel(image: Image.Image, x: int = 5, y: int = 5) -> tuple[int, ...]:
    return image.getpixel((x, y))


def test_bytes_base64_and_data_uri_give_the_same_reference() -> None:
    data = encoded(photo())
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[i : i + 60] for i in range(0, len(text), 60))
    digests = {
        decode_reference(form, "image1").digest for form in (data, text, wrapped, "data:image/png;base64," + text)
    }
    assert digests == {content_digest(photo())}


def test_the_digest_is_of_the_picture_not_of_the_file() -> None:
    assert decode_reference(encoded(photo(), "BMP"), "a").digest == decode_reference(encoded(photo()), "b").digest
    assert decode_reference(photo(), "a").digest != decode_reference(photo().transpose(0), "a").digest


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn a quarter clockwise to show
    turned = decode_reference(encoded(photo(), "JPEG", exif=exif, quality=95), "image1")
    assert turned.size == (30, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colour_under_transparent_pixels_does_not_leak(mode: str) -> None:
    image = Image.new(mode, (20, 20), (200, 10, 10, 0) if mode == "RGBA" else (10, 0))
    assert pixel(to_rgb(image)) == (255, 255, 255)


def test_half_transparent_black_is_grey() -> None:
    assert pixel(to_rgb(Image.new("RGBA", (20, 20), (0, 0, 0, 128)))) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA"])
def test_transparency_is_flattened_on_the_background_that_was_asked_for(mode: str) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 255, 0)).convert(mode)
    assert pixel(to_rgb(image, "#ff8000")) == (255, 128, 0)
    reference = decode_reference(image, "image1", "#ff8000")
    assert reference.background == "#ff8000"
    assert reference.digest != decode_reference(image, "image1").digest


def test_an_opaque_picture_is_the_same_on_every_background() -> None:
    assert decode_reference(photo(), "a", "#000000").digest == decode_reference(photo(), "a").digest


@pytest.mark.parametrize(
    ("written", "read"),
    [("#FFFFFF", "#ffffff"), ("#f80", "#ff8800"), ("red", "#ff0000"), ("rgb(1, 2, 300)", "#0102ff"),
     ("#11223344", "#112233")],
)  # fmt: skip
def test_a_colour_in_whatever_way_it_is_written(written: str, read: str) -> None:
    assert colour(written) == read


@pytest.mark.parametrize("written", ["", "blurple", "#12", 255, None, ["#ffffff"], "#" * 5000])
def test_what_is_no_colour_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="colo"):
        colour(written)


def test_a_palette_with_a_transparent_entry_is_flattened() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    data = encoded(image, "PNG", transparency=0)
    assert pixel(decode_reference(data, "image1").image) == (255, 255, 255)


def test_a_colour_key_is_flattened() -> None:
    data = encoded(Image.new("RGB", (20, 20), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert pixel(decode_reference(data, "image1").image) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 400, dtype=np.uint16).reshape(20, 20)
    grey = np.asarray(decode_reference(encoded(Image.fromarray(values)), "image1").image)[..., 0]
    assert np.array_equal(grey, np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "RGB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    rgb = to_rgb(photo().convert("L" if mode in "LAB" else "RGB").convert(mode) if mode != "LAB" else lab())
    assert rgb.mode == "RGB"
    assert rgb.size == (40, 30)


def lab() -> Image.Image:
    return Image.new("LAB", (40, 30), (50, 10, 10))


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_file_is_refused(kind: str, cut: float) -> None:
    data = encoded(photo(200, 200), kind)
    with pytest.raises(KontextError, match=r"^image2: "):
        decode_reference(data[: int(len(data) * cut)], "image2")


@pytest.mark.parametrize("text", ["", "   ", "hello world", "not base64!", "aGVsbG8=", "data:image/png;base64,"])
def test_a_text_that_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(KontextError, match=r"^image1: "):
        decode_reference(text, "image1")


@pytest.mark.parametrize("value", [3, 1.5, True, [], {}, object()])
def test_another_type_is_refused(value: object) -> None:
    with pytest.raises(KontextError, match=r"^image1: got "):
        decode_reference(value, "image1")


@pytest.mark.parametrize(
    ("size", "reason"), [((15, 200), "under 16"), ((20, 420), "at most 20"), ((9000, 8000), "pixels")]
)
def test_a_size_that_no_mode_can_serve_is_refused(size: tuple[int, int], reason: str) -> None:
    with pytest.raises(KontextError, match=reason):
        decode_reference(Image.new("1", size), "image1")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_never_escape_as_another_error(data: bytes) -> None:
    with pytest.raises(KontextError):
        decode_reference(data, "image1")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_files_never_escape_as_another_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]))
    raw = bytearray(encoded(photo(), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_reference(bytes(raw), "image1").image.mode == "RGB"
    except KontextError as error:
        assert "\n" not in str(error)
