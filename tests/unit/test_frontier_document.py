"""What the benchmark's document says of pictures is read off its own rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.frontier.document import page, write
from benchmarks.frontier.measure import Row, Sample, rows
from benchmarks.frontier.methods import BOTH, PLAIN, UNCACHED
from benchmarks.frontier.quality import PSNR_CAP, Qualities, Quality, compare, psnr
from benchmarks.frontier.results import Pictures, Results, load
from benchmarks.frontier.rival_methods import SPECTRUM, TEACACHE
from benchmarks.frontier.tables import by_time, comparison, front, goal, read, table

NOTHING = Row(UNCACHED, "–", 1.0, 1.0, (1.0, 1.0), 20.0, Quality(60, 1, 0))


def row(family: str, evaluations: float, psnr: float, outside: float | None = None) -> Row:
    """A row whose ratio is 20 / evaluations."""
    ratio = 20 / evaluations
    around = None if outside is None else Quality(outside, 0.99, 0.01)
    return Row(
        family, f"{evaluations:g}", 1 / ratio, ratio, (ratio, ratio), evaluations, Quality(psnr, 0.9, 0.1), None, around
    )


def test_the_front_holds_what_nothing_beats() -> None:
    points = [row(PLAIN, 10, 50), row(PLAIN, 8, 40), row(PLAIN, 9, 39), row(BOTH, 5, 45), row(BOTH, 10, 49)]
    assert [(point.expense, point.psnr) for point in front(points, "copying")] == [(5, 45), (10, 50)]
    assert [(-point.expense, point.psnr) for point in front(points, "copying", by_time)] == [(4, 45), (2, 50)]


def test_editing_is_judged_outside_of_the_edited_region() -> None:
    points = [row(PLAIN, 10, 50, 30.0), row(PLAIN, 5, 20, 40.0), row(BOTH, 4, 60)]
    assert [point.psnr for point in front(points, "editing")] == [40.0]


def test_quality_at_a_cost_is_on_the_line_nothing_before_the_cheapest_and_the_best_after_the_dearest() -> None:
    points = front([row(PLAIN, 5, 40), row(BOTH, 10, 50)], "copying")
    at_six, at_twelve = read(points, 6), read(points, 12)
    assert at_six is not None
    assert at_six.psnr == pytest.approx(42)
    assert at_six.row.family == PLAIN
    assert at_twelve is not None
    assert (at_twelve.psnr, at_twelve.row.family) == (50, BOTH)
    assert read(points, 4.9) is None


def test_others_being_better_is_shown_as_such_and_named() -> None:
    found = [NOTHING, row(PLAIN, 8, 40), row(TEACACHE, 8, 43), row(TEACACHE, 9, 42)]
    lines = comparison(found, "copying").splitlines()
    assert lines[0].startswith("| evaluations of 20 |")
    assert "| 8 | 40.0 dB (First Block Cache) | 43.0 dB (TeaCache) | -3.0 dB |" in lines
    assert "| 4 | not reached | not reached | – |" in lines
    by_ratio = comparison(found, "copying", by_time)
    assert "| 2.5× | 40.0 dB (First Block Cache) | 43.0 dB (TeaCache) | -3.0 dB |" in by_ratio
    assert "| 3× | not reached | not reached | – |" in by_ratio


@pytest.mark.parametrize(("best", "words"), [(46.0, "Goal reached"), (44.0, "Goal missed by 1.0 dB")])
def test_the_goal_compares_a_quarter_of_ours_with_half_of_the_others(best: float, words: str) -> None:
    found = [NOTHING, row(SPECTRUM, 10, 45), row(SPECTRUM, 10.5, 55), row(PLAIN, 5.1, 60), row(BOTH, 5, best)]
    said = goal(found, "copying")
    assert words in said
    assert "*both, 5* (5.0)" in said
    assert "on the whole picture" in said
    assert "cannot be judged" in goal(found[:-1], "copying")


def sample(family: str, label: str, seconds: float, psnr: float = 40.0, edited: bool = True) -> Sample:
    quality = Quality(psnr, 0.9, 0.1)
    area = quality if edited else None
    return Sample(family, label, seconds, 5.0, Qualities(quality, area, area))


def test_ratios_are_taken_task_by_task_and_qualities_over_the_tasks_that_have_them() -> None:
    slow_minute = [sample(UNCACHED, "–", 2.0), sample(PLAIN, "0.1", 1.0, 40)]
    fast_minute = [sample(UNCACHED, "–", 20.0), sample(PLAIN, "0.1", 10.0, 50, edited=False)]
    found = rows([*slow_minute, *fast_minute])
    assert [one.ratio for one in found] == [1.0, 2.0]
    assert found[1].whole.psnr == 45.0
    assert found[1].outside == Quality(40, 0.9, 0.1)
    shown = table(found)
    assert "2.00×" in shown
    assert "PSNR, outside" in shown
    assert "outside" not in table([row(PLAIN, 8, 40)])


def results() -> Results:
    editing = [NOTHING, row(TEACACHE, 9, 42, 44.0), row(BOTH, 5, 40, 46.0)]
    copying = [NOTHING, row(TEACACHE, 9, 42), row(BOTH, 5, 40)]
    return Results(
        {
            "copying-2-euler-20": Pictures("here", "2 tasks", "diffusers 1", 9, copying),
            "editing-2-euler-20": Pictures("here", "2 tasks", "diffusers 1", 8, editing),
        }
    )


def test_pictures_are_kept_by_condition_and_those_of_before_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    results().save(path)
    assert load(path) == results()
    path.write_text(json.dumps({"pictures": {"machine": "x", "tables": {"2": []}}}), encoding="utf-8")
    assert load(path) == Results()


def test_the_document_shows_what_was_measured(tmp_path: Path) -> None:
    made = write(results(), tmp_path).read_text(encoding="utf-8")
    assert made.index("### Editing, two references, Euler 20 steps") < made.index("### Copying, two references")
    assert made.count("Goal reached") == 1
    assert made.count("Goal missed by 2.0 dB") == 1
    for group in ("editing", "copying"):
        assert f"](benchmarks_{group}.png)" in made
        with Image.open(tmp_path / f"benchmarks_{group}.png") as plot:
            assert plot.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_plot_is_shown_only_where_its_group_was_measured() -> None:
    one: dict[str, Any] = {key: value for key, value in results().pictures.items() if key.startswith("editing")}
    assert "benchmarks_copying.png" not in page(replace(results(), pictures=one))
    assert "Not measured yet" in page(Results())


def test_areas_are_compared_apart_and_equal_ones_are_capped() -> None:
    exact = Image.new("RGB", (32, 32), (100, 100, 100))
    region = np.zeros((32, 32), bool)
    region[:16] = True
    pixels = np.asarray(exact).copy()
    pixels[:16] += 10
    found = compare(Image.fromarray(pixels), exact, region)
    assert found.inside is not None
    assert found.outside is not None
    assert found.outside.psnr == PSNR_CAP
    assert found.inside.psnr == pytest.approx(20 * np.log10(255 / 10), abs=0.01)
    assert found.whole.psnr == pytest.approx(found.inside.psnr + 10 * np.log10(2))
    assert psnr(Image.fromarray(pixels), exact) == pytest.approx(found.whole.psnr, abs=0.01)
    nothing = compare(exact, exact, np.zeros((32, 32), bool))
    assert (nothing.inside, nothing.outside) == (None, None)
