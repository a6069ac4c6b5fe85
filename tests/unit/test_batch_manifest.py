"""Manifests: what they mean."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path, PureWindowsPath

import pytest

from lib_fluxkontext.batch.validate import rows_of
from lib_fluxkontext.images.files import pictures_in
from lib_fluxkontext.settings import PRESETS, KontextSettings
from tests.support.manifests import fill, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


CSV = "prompt,image1,seed,steps,size,guidance,cache,cache_threshold,lora\n"
SAME = {
    "comma.csv": CSV + "hug,a.png,7,4,96x64,2.5,true,0.2,\n",
    "semicolon.csv": CSV.replace(",", ";") + "hug;a.png;7;4;96x64;2,5;True;0,2;\n",
    "tab.csv": CSV.replace(",", "\t") + "hug\ta.png\t7\t4\t96x64\t2.5\tTRUE\t0.2\t\n",
    "mark.csv": "\ufeff" + CSV + "hug, a.png ,7,4,96x64,2.5,true,0.2,\r\n",
    "quoted.csv": "\n" + CSV + '"hug", "a.png",7,4,96x64,2.5,true,0.2,\n,,,,,,,,\n',
    "one.jsonl": '{"prompt": "hug", "image1": "a.png", "seed": 7.0, "steps": 4, "size": "96x64", "guidance": 2.5, '
    '"cache": true, "cache_threshold": 0.2, "lora": null}\n\n',
    "list.yaml": "- {prompt: hug, image1: a.png, seed: 7, steps: 4, size: 96x64, guidance: 2.5, cache_threshold: 2e-1}",
    "grid.yml": "\ufeffdefaults: {prompt: hug, image1: a.png, steps: 4, preset: fast, guidance: 2.5}\n"
    "rows: [{preset: Balanced, cache_threshold: 0.2}]\ngrid: {seed: [7], size: 96x64}\n",
}


@pytest.mark.parametrize("name", SAME)
def test_every_way_to_write_a_row_means_the_same(folder: Path, name: str) -> None:
    (expected,), _ = read(folder, "expected.csv", SAME["comma.csv"])
    (row,), errors = read(folder, name, SAME[name])
    assert errors == []
    assert row.key == expected.key
    assert (row.prompt, row.images, row.seed, row.steps) == ("hug", (folder / "a.png",), 7, 4)
    assert (row.width, row.height, row.guidance) == (96, 64, 2.5)
    assert row.settings == KontextSettings(enabled=True, sizing="to output", cache_threshold=0.2)


def test_what_is_not_given_has_the_defaults_of_generate(folder: Path) -> None:
    text = "prompt,image1\nhug,long.png\nhug,cats/0.jpg\nsing,\n"
    small, _ = read(folder, "a.csv", text.replace("long.png", "a.png"))
    assert {(row.width, row.height, row.settings.sizing) for row in small} == {(256, 256, "to output")}
    large, errors = read(folder, "b.csv", text.replace("long.png", "a.png"), small_model=False)
    assert errors == []
    assert [(row.width, row.height) for row in large] == [(1024, 1024), (880, 1184), (1024, 1024)]
    assert {(row.settings.sizing, row.steps, row.seed, row.guidance) for row in large} == {
        ("to BFL recommended", 20, 0, 3.5)
    }
    assert [(row.number, row.line) for row in large] == [(1, 2), (2, 3), (3, 4)]


def test_a_grid_multiplies_with_the_last_name_fastest(folder: Path) -> None:
    text = """
        defaults: {prompt: hug, steps: 4}
        rows:
          - {image1: a.png}
          - image1: cats
        grid:
          preset: [off, Fast]
          seed: {from: 10, to: 14, step: 2}
    """
    rows, errors = read(folder, "a.yaml", text)
    assert errors == []
    assert [row.seed for row in rows] == [10, 12, 14] * 2 + [10, 10, 12, 12, 14, 14] * 2
    assert [row.images[0].name for row in rows[6:8]] == ["0.jpg", "1.jpg"]
    assert {row.line for row in rows} == {4, 5}
    assert [row.number for row in rows] == list(range(1, 19))
    for row, preset in ((rows[0], "Off"), (rows[3], "Fast")):
        assert {name: getattr(row.settings, name) for name in PRESETS[preset]} == PRESETS[preset]


class _WindowsFolder:
    """A folder there, as far as it is listed."""

    def iterdir(self) -> list[PureWindowsPath]:
        return [PureWindowsPath("D:\\cats", name) for name in ("a.png", "B.png", "c.png", "D.png")]


def test_a_folder_and_a_glob_have_one_order_on_windows_too(folder: Path) -> None:
    """``Path`` objects of Windows are compared without regard to case, texts are not."""
    listed = [file.name for file in pictures_in(_WindowsFolder())]  # type: ignore[arg-type]
    for name in listed:
        shutil.copy(folder / "a.png", folder / "none" / name)
    (rows, errors) = read(folder, "a.csv", "prompt,image1\nhug,none/*.png\n")
    assert errors == []
    assert [row.images[0].name for row in rows] == listed == ["B.png", "D.png", "a.png", "c.png"]


def test_a_preset_replaces_what_a_weaker_level_says_of_the_cache(folder: Path) -> None:
    text = """
        defaults: {prompt: hug, cache_threshold: 0.5, half_size: true}
        rows:
          - {}
          - {preset: Quality}
          - {preset: Quality, cache_threshold: 0.3}
    """
    rows, errors = read(folder, "a.yaml", text)
    assert errors == []
    assert [(row.settings.cache_threshold, row.settings.half_size) for row in rows] == [
        (0.5, True),
        (PRESETS["Quality"]["cache_threshold"], True),
        (0.3, True),
    ]


def test_folders_and_globs_are_paired_or_crossed(folder: Path) -> None:
    def names(pairing: str, first: str = "women [[]1]/[01].png", second: str = "cats/*") -> list[tuple[str, ...]]:
        text = json.dumps({"prompt": "hug", "image1": first, "image2": second, "pairing": pairing})
        rows, errors = read(folder, "a.jsonl", text)
        assert errors == []
        return [tuple(path.name for path in row.images) for row in rows]

    assert names("pair") == [("0.png", "0.jpg"), ("1.png", "1.jpg")]
    assert names("cross", "women [1]") == [(f"{one}.png", f"{two}.jpg") for one in range(3) for two in range(2)]
    assert names("pair", "a.png") == [("a.png", "0.jpg"), ("a.png", "1.jpg")]
    assert names("cross", "women [1]/2.png", "**/1.jpg") == [("2.png", "1.jpg")]
    rows, _ = read(folder, "b.csv", "prompt,images\nhug,cats\n")
    assert [row.images[0].name for row in rows] == ["0.jpg", "1.jpg"]


def test_a_muted_reference_is_left_out(folder: Path) -> None:
    text = "prompt,image1,image2,mute_image1\nhug,cats,a.png,true\nhug,a.png,,\n"
    (muted, single), errors = read(folder, "a.csv", text)
    assert errors == []
    assert muted.images == single.images
    assert muted.key == single.key


def test_an_alias_is_no_bomb(folder: Path) -> None:
    text = "- &one {prompt: hug, steps: 4}\n- {<<: *one, seed: 2}\n- *one\n"
    rows, errors = read(folder, "a.yaml", text)
    assert errors == []
    assert [(row.prompt, row.steps, row.seed) for row in rows] == [("hug", 4, 0), ("hug", 4, 2), ("hug", 4, 0)]
    assert rows[0].key == rows[2].key  # given twice, yielded twice


def test_names_that_a_server_knows_are_no_files(folder: Path) -> None:
    text = 'prompt,checkpoint,lora\nhug,kontext.gguf,"style:0.5; C:\\loras\\b.safetensors ;c:-1"\n'
    (row,), errors = read(folder, "a.csv", text, local_models=False)
    assert errors == []
    assert row.checkpoint == "kontext.gguf"
    assert (row.width, row.settings.sizing) == (1024, "to BFL recommended")  # not what the small model would have
    assert [(lora.name, lora.weight) for lora in row.loras] == [
        ("style", 0.5),
        ("C:\\loras\\b.safetensors", 1),
        ("c", -1),
    ]


def test_a_long_manifest_is_streamed(folder: Path) -> None:
    path = folder / "long.csv"
    with path.open("w") as file:
        file.write("prompt,image1,seed\n")
        for number in range(4000):
            file.write(f"{'hug the cat ' * 20}{number},a.png,{number}\n")
    tracemalloc.start()
    try:
        peaks = []
        for row in rows_of(path, small_model=True):
            if row.line in (1000, 4000):
                peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100_000  # the rows themselves are a megabyte
