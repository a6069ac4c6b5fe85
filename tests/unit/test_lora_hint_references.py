"""Refreshing references is suggested only where there are some."""

from __future__ import annotations

import pytest

from lib_fluxkontext.hosts.forge.ui.lora_hint import Speed, has_references, lora_hint_html

HYPER = "a cat <lora:Hyper-FLUX.1-dev-8steps-lora:0.125>"
EMPTY, FIRST, LAST = [False] * 4, [True, False, False, False], [False, False, False, True]


def test_it_is_not_suggested_without_references() -> None:
    assert "references" not in lora_hint_html(HYPER, Speed(20, True, 0.14, 0, has_references=False))
    assert "references" in lora_hint_html(HYPER, Speed(20, True, 0.14, 0, has_references=True))
    assert lora_hint_html(HYPER, Speed(8, False, 0.14, 0, has_references=False)) == ""


@pytest.mark.parametrize(
    ("init_image", "filled", "muted", "expected"),
    [
        (False, EMPTY, EMPTY, False),
        (False, FIRST, EMPTY, True),
        (False, FIRST, FIRST, False),
        (False, FIRST, LAST, True),
        (False, LAST, EMPTY, True),
        (True, EMPTY, FIRST, True),
    ],
)
def test_a_muted_slot_has_none_and_the_init_image_is_one(
    init_image: bool, filled: list[bool], muted: list[bool], expected: bool
) -> None:
    assert has_references(init_image, filled, muted) == expected
