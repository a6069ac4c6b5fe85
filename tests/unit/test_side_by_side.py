"""Tests that share a server are dealt out together, the rest by file."""

from __future__ import annotations

import pytest

from tests.support.side_by_side import group_of


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/forge/api/test_formats.py::test_a[forge-GGUF Q8_0]", "tests/forge/api forge"),
        ("tests/forge/api/test_ways.py::test_b[cache-neo]", "tests/forge/api neo"),
        ("tests/forge/api/test_memory.py::test_c", "tests/forge/api forge"),
        ("tests/forge/page/test_panel.py::test_d[forge]", "tests/forge/page forge"),
        ("tests/forge/page/test_panel.py::test_neon[neo]", "tests/forge/page neo"),
        ("tests/unit/test_panel.py::test_e[a::b-neo]", "tests/unit/test_panel.py"),
    ],
)
def test_tests_are_grouped_by_server(test: str, group: str) -> None:
    assert group_of(test) == group
