"""Infotext: what is written comes back, and damaged text leaves the panel alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_fluxkontext import infotext
from lib_fluxkontext.images.decode import decode_reference
from lib_fluxkontext.settings import SIZINGS, KontextSettings

SETTINGS = st.builds(
    KontextSettings,
    enabled=st.just(True),
    sizing=st.sampled_from(SIZINGS),
    half_size=st.booleans(),
    cache=st.booleans(),
    cache_threshold=st.floats(0, 1),
    cache_warmup_steps=st.integers(1, 99),
    cache_max_consecutive=st.integers(0, 99),
    cache_compute_last=st.booleans(),
    mute_image1=st.booleans(),
    mute_image2=st.booleans(),
    init_image_as_reference=st.booleans(),
    hires_references=st.booleans(),
)


@given(SETTINGS)
def test_every_setting_comes_back(settings: KontextSettings) -> None:
    written = infotext.settings_to_infotext(settings, [])
    back = {name: infotext.parser(name)(written) for name in infotext.LABELS}
    assert KontextSettings(**back) == settings


def test_a_picture_made_without_kontext_changes_no_control() -> None:
    assert all(infotext.parser(name)({"Steps": "20"}) is None for name in infotext.LABELS)


@pytest.mark.parametrize(
    ("name", "text"),
    [("enabled", "yes"), ("cache_threshold", "2"), ("cache_threshold", "nan"), ("cache_threshold", "x"),
     ("cache_warmup_steps", "0"), ("cache_warmup_steps", "1e999"), ("sizing", "crop"), ("cache", "false")],
)  # fmt: skip
def test_damaged_text_leaves_the_control_as_it_is(name: str, text: str) -> None:
    assert infotext.parse_value(name, text) is None


def test_the_background_is_written_where_it_is_not_white_and_comes_back_either_way() -> None:
    photo = Image.new("RGBA", (64, 48))
    for background in ("#ffffff", "#ff8000"):
        reference = decode_reference(photo, "init_image_as_reference", background)
        written: dict = infotext.settings_to_infotext(KontextSettings(enabled=True), [reference])
        assert (infotext.BACKGROUND in written) == (background != "#ffffff")
        assert infotext.strip_own_fields(written) == {}
        infotext.fill_in_background(written)
        assert written[infotext.BACKGROUND] == background
    foreign = {"Steps": "20"}
    infotext.fill_in_background(foreign)
    assert foreign == {"Steps": "20"}


def test_references_are_named_by_content_and_size() -> None:
    reference = decode_reference(Image.new("RGB", (64, 48), (1, 2, 3)), "image2")
    written = infotext.settings_to_infotext(KontextSettings(enabled=True), [reference])
    assert written["Kontext image 2"] == f"{reference.digest} 64×48"
    assert infotext.expected_images(written) == {"image2": written["Kontext image 2"]}


@given(st.text())
def test_any_text_in_an_image_field_is_read_or_ignored(text: str) -> None:
    assert set(infotext.expected_images({"Kontext image 1": text})) <= {"image1"}
