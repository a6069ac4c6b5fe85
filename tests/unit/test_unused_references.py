"""References that come while the extension is off are spoken of, and nothing else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext.hosts.forge.lifecycle.unused import has_unused_references
from lib_fluxkontext.settings import FIELD_NAMES, default_of

PICTURE = Image.new("RGB", (32, 32))
FROM_TEXT = SimpleNamespace()
FROM_PICTURE = SimpleNamespace(init_images=[PICTURE])


def positional(**values: Any) -> list[Any]:
    """Return the arguments as the page sends them."""
    return [values.get(name, default_of(name)) for name in FIELD_NAMES]


@pytest.mark.parametrize(
    "values",
    [{"image1": PICTURE}, {"image4": "aGVsbG8="}, {"image1": PICTURE, "mute_image1": True, "image2": PICTURE}],
)
def test_an_unmuted_reference_is_found_in_either_form(values: dict[str, Any]) -> None:
    assert has_unused_references(FROM_TEXT, positional(**values))
    assert has_unused_references(FROM_TEXT, [values])
    assert has_unused_references(FROM_TEXT, [{"enabled": False, **values}])


@pytest.mark.parametrize("values", [{}, {"image1": PICTURE, "mute_image1": True}, {"image2": " "}, {"cache": False}])
def test_without_one_there_is_nothing_to_say(values: dict[str, Any]) -> None:
    assert not has_unused_references(FROM_TEXT, positional(**values))
    assert not has_unused_references(FROM_TEXT, [values])


def test_nothing_is_said_while_it_is_on() -> None:
    assert not has_unused_references(FROM_TEXT, positional(enabled=True, image1=PICTURE))
    assert not has_unused_references(FROM_TEXT, [{"enabled": True, "image1": PICTURE}])
    assert not has_unused_references(FROM_TEXT, [])


def test_the_init_image_is_one_where_it_was_asked_for() -> None:
    asked = positional(init_image_as_reference=True)
    assert has_unused_references(FROM_PICTURE, asked)
    assert not has_unused_references(FROM_TEXT, asked)
    assert not has_unused_references(FROM_PICTURE, positional())
