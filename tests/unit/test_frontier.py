"""What the benchmark's document says is read off its own rows."""

from __future__ import annotations

import pytest

from benchmarks.frontier.measure import Row, Sample, rows
from benchmarks.frontier.methods import BOTH, CACHE_DIT, PLAIN, UNCACHED, methods
from benchmarks.frontier.tables import comparison, frontier, psnr_at, table, target


def row(family: str, ratio: float, psnr: float) -> Row:
    return Row(family, f"{ratio:g}", 1 / ratio, ratio, (ratio, ratio), 0.5, 0.0, psnr, 0.99)


def test_the_frontier_holds_what_nothing_beats() -> None:
    found = frontier([row(PLAIN, 1.5, 50), row(PLAIN, 2.0, 40), row(PLAIN, 1.8, 39), row(BOTH, 2.5, 45)])
    assert found == [(1.5, 50), (2.5, 45)]


def test_quality_at_a_speed_is_on_the_line_and_nothing_beyond_the_fastest() -> None:
    points = [row(PLAIN, 1.5, 50), row(PLAIN, 2.5, 40)]
    assert psnr_at(points, [PLAIN], 2.0) == pytest.approx(45)
    assert psnr_at(points, [PLAIN], 2.6) is None
    assert psnr_at(points, [BOTH], 2.0) is None


@pytest.mark.parametrize(("best", "words"), [(46.0, "Target reached"), (44.0, "Target missed by 1.0 dB")])
def test_the_target_is_judged_by_the_rows(best: float, words: str) -> None:
    plain = [row(PLAIN, 1.5, 50), row(PLAIN, 2.5, 40)]
    assert words in target([*plain, row(BOTH, 3.6, best)])
    assert "cannot be judged" in target(plain)


def test_others_being_better_is_shown_as_such() -> None:
    lines = comparison([row(PLAIN, 2.0, 40), row(CACHE_DIT, 2.0, 43)]).splitlines()
    assert lines[3] == "| 2× | 40.0 dB | 43.0 dB | -3.0 dB |"
    assert "not reached" in lines[-1]


def test_ratios_are_taken_pair_by_pair() -> None:
    def sample(family: str, label: str, seconds: float) -> Sample:
        return Sample(family, label, seconds, 0.0, 0.0, (40.0, 50.0), (0.9, 0.9))

    slow_minute = [sample(UNCACHED, "–", 2.0), sample(PLAIN, "0.1", 1.0)]
    fast_minute = [sample(UNCACHED, "–", 20.0), sample(PLAIN, "0.1", 10.0)]
    found = rows([*slow_minute, *fast_minute])
    assert [one.ratio for one in found] == [1.0, 2.0]
    assert found[1].psnr == 45.0
    assert "2.00×" in table(found)


@pytest.mark.parametrize("references", [0, 1, 2])
def test_every_method_is_named_once(references: int) -> None:
    names = [(one.family, one.label) for one in methods(references)]
    assert len(names) == len(set(names))
    assert any(one.settings.reference_refresh for one in methods(references)) == (references > 0)
