"""Forge's real memory management on faked cards: the room that is asked for is there when sampling begins."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import Any

import pytest

from tests.forge.conftest import require
from tests.support.checkpoint_files import REPO_ROOT
from tests.support.forge_install import FORGE

CARDS = (8, 12, 16, 24)
"""GB."""

CHECKPOINTS = (6.3, 8.5, 12, 22)
"""GiB of the transformer: Q4, Q6, Q8_0 and FP16."""

REFERENCES = ([0, 4096, 8192], [8192, 0, 4096], [4096, 4096, 16384])
"""Tokens of the references in three generations in a row."""

REFRESHES = (0, 1, 4)


def cases() -> list[dict[str, Any]]:
    return [
        {"card": card, "checkpoint": checkpoint, "refresh": refresh, "reference_tokens": tokens}
        for card, checkpoint, refresh, tokens in itertools.product(CARDS, CHECKPOINTS, REFRESHES, REFERENCES)
    ]


TOO_SMALL = {"card": 3, "checkpoint": 6.3, "refresh": 1, "reference_tokens": [0, 4096, 16384]}
"""A card on which even a sampling without weights finds no room for two large references."""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """Three generations of every case, and of the card that is too small."""
    require(FORGE)
    folder = tmp_path_factory.mktemp("memory")
    (folder / "cases.json").write_text(json.dumps([*cases(), TOO_SMALL]), encoding="utf-8")
    script = REPO_ROOT / "tests" / "support" / "forge_memory.py"
    command = [FORGE.python, script, REPO_ROOT, folder / "cases.json", folder / "out.json", *FORGE.flags]
    done = subprocess.run(command, cwd=FORGE.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results: list[list[dict[str, Any]]] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return results


@pytest.fixture
def generations(simulated: list[list[dict[str, Any]]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every case, and its three generations."""
    return list(zip(cases(), simulated[:-1], strict=True))


def test_the_room_that_was_asked_for_is_free_before_sampling(
    generations: list[tuple[dict[str, Any], list[dict[str, Any]]]],
) -> None:
    assert len(generations) == 4 * 4 * 3 * 3
    short = [
        (case, index, round((generation["asked"] - generation["free"]) / 2**30, 2))
        for case, results in generations
        for index, generation in enumerate(results)
        if generation["free"] < generation["asked"]
    ]
    assert short == []
    assert not any(generation["noted"] for _, results in generations for generation in results)


def test_what_could_not_be_had_is_noted(simulated: list[list[dict[str, Any]]]) -> None:
    results = simulated[-1]
    assert [generation["free"] < generation["asked"] for generation in results] == [False, False, True]
    assert [generation["noted"] for generation in results] == [False, False, True]


def test_forge_loses_no_model(generations: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    """A model that is on the card without an entry in Forge's list can never be moved from it."""
    lost = [(case, generation["lost"]) for case, results in generations for generation in results if generation["lost"]]
    assert lost == []


def test_weights_stay_on_the_card_where_there_is_room(
    generations: list[tuple[dict[str, Any], list[dict[str, Any]]]],
) -> None:
    roomy = [results for case, results in generations if case["card"] == 24 and case["checkpoint"] == 6.3]
    assert len(roomy) == 9
    for results in roomy:
        assert all(generation["resident"] > 6.2 * 2**30 for generation in results)
