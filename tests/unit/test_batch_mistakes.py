"""What is said of every mistake in a manifest: its line, its field, what came and what is allowed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_fluxkontext.batch.columns import COLUMNS
from lib_fluxkontext.batch.validate import rows_of
from lib_fluxkontext.errors import KontextError
from tests.support.manifests import fill, places, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"prompt": None}, "prompt", ["not given"]),
        ({"prompt": 5}, "prompt", ["the number 5", "a text"]),
        ({"prompt": "a\0b"}, "prompt", ["NUL"]),
        ({"prompt": "\ud800"}, "prompt", ["surrogate"]),
        ({"steps": 0}, "steps", ["the number 0", "1 to 1000"]),
        ({"steps": True}, "steps", ["true", "1 to 1000"]),
        ({"steps": [4, 8]}, "steps", ["a list", "1 to 1000"]),
        ({"seed": -1}, "seed", ["-1", "0 or more"]),
        ({"seed": 2**63}, "seed", [str(2**63 - 1)]),
        ({"seed": 1.5}, "seed", ["1.5", "whole number"]),
        ({"seed": "random"}, "seed", ["random", "whole number"]),
        ({"guidance": 100.5}, "guidance", ["100.5", "0 to 100"]),
        ({"size": "large"}, "size", ["large", "1024x768"]),
        ({"size": "100x96"}, "size", ["100", "multiple of 16"]),
        ({"size": 96}, "size", ["96", "1024x768"]),
        ({"size": "9984x9984", "image1": "a.png"}, "image1", ["9984×9984", "at most"]),
        ({"cache": "yes"}, "cache", ["yes", "true or false"]),
        ({"cache": 1}, "cache", ["the number 1", "true or false"]),
        ({"cache_threshold": 2}, "cache_threshold", ["2", "0 to 1"]),
        ({"cache_threshold": {}}, "cache_threshold", ["an object", "0 to 1"]),
        ({"sizing": "crop"}, "sizing", ["crop", "to output"]),
        ({"preset": "faster"}, "preset", ["faster", "Fast"]),
        ({"preset": ["Fast"]}, "preset", ["a list", "Fast"]),
        ({"keep_outside_mask": True}, "keep_outside_mask", ["mask"]),
        ({"enabled": True}, "enabled", ["unknown name"]),
        ({"promt": "x"}, "promt", ['did you mean "prompt"']),
        ({"image1": "nowhere.png"}, "image1", ["nowhere.png", "no such file"]),
        ({"image1": "text.png"}, "image1", ["text.png", "not an image"]),
        ({"image1": "header.png"}, "image1", ["header.png", "not an image"]),
        ({"image1": "long.png"}, "image1", ["long.png", "times longer"]),
        ({"image1": "small.png"}, "image1", ["small.png", "under 16"]),
        ({"image1": "/dev/null"}, "image1", ["not a file"]),
        ({"image1": ["a.png"]}, "image1", ["a list", "a glob"]),
        ({"image1": "  "}, "image1", ["a glob"]),
        ({"image1": "none"}, "image1", ["no pictures"]),
        ({"image1": "none/*.png"}, "image1", ["no pictures"]),
        ({"images": "a.png"}, "images", ["image1"]),
        ({"images": "cats", "image1": "a.png"}, "images", ["beside image1"]),
        ({"image1": "women [1]", "image2": "cats"}, "pairing", ["3 of image1, 2 of image2", '"cross"']),
        ({"image1": "women [1]", "image2": "cats", "pairing": "pair"}, "pairing", ["3 of image1, 2 of image2"]),
        ({"image1": "cats/0*", "image2": "cats", "pairing": "pair"}, "pairing", ["1 of image1, 2 of image2"]),
        ({"image1": "cats", "pairing": "zip"}, "pairing", ["zip", '"cross"']),
        ({"checkpoint": "nowhere.gguf"}, "checkpoint", ["no such file", "nowhere.gguf"]),
        ({"checkpoint": 5}, "checkpoint", ["the number 5"]),
        ({"lora": "nowhere.safetensors:0.5"}, "lora", ["no such file"]),
        ({"lora": "a.png:strong"}, "lora", ["strong", "a number"]),
        ({"lora": "a.png:nan"}, "lora", ["nan", "a number"]),
        ({"lora": ["a.png"]}, "lora", ["a list"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_a_mistake_is_reported_with_line_and_field_and_costs_no_other_row(
    folder: Path, values: dict[str, object], field: str, words: list[str]
) -> None:
    row = {"prompt": "hug", "size": "96x96", "sizing": "no change" if "9984" not in str(values) else "to output"}
    if "sizing" in values:
        del row["sizing"]
    lines = [json.dumps(row), "", json.dumps({**row, **values}), json.dumps({**row, "seed": 9})]
    rows, errors = read(folder, "a.jsonl", "\n".join(lines))
    assert [one.line for one in rows] == [1, 4]
    assert places(errors) == [(3, field)]
    assert "\n" not in str(errors[0])
    for word in words:
        assert word in errors[0].reason


def test_a_value_is_judged_by_its_own_type_not_by_an_equal_one_before(folder: Path) -> None:
    lines = ['{"prompt": "hug", "cache": true}', '{"prompt": "hug", "cache": 1}', '{"prompt": "hug", "cache": true}']
    rows, errors = read(folder, "a.jsonl", "\n".join(lines))
    assert [row.line for row in rows] == [1, 3]
    assert places(errors) == [(2, "cache")]


def test_all_mistakes_of_a_row_are_reported_at_once(folder: Path) -> None:
    row = {"steps": 0, "seed": "x", "size": "a", "cache": 3, "half_size": "no", "preset": "?", "image2": "text.png"}
    _, errors = read(folder, "a.jsonl", json.dumps({**row, "guidance": -1, "lora": 1, "what": 1}))
    assert {error.field for error in errors} == {*row, "guidance", "lora", "prompt", "what"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "prompt,promt,steps\nhug,x,4\nsit,y,z\n", [(1, "promt"), (3, "steps")]),
        ("a.csv", "prompt,prompt\nhug,sit\n", [(1, "prompt")]),
        ("a.csv", "prompt,seed\nhug, the cat,1\nhug\nsit,2\n", [(2, None), (3, None)]),
        ("a.csv", 'prompt,seed\n"hug" x,1\nsit,2\nsing,x\n', [(2, None), (4, "seed")]),
        ("a.csv", 'prompt,seed\n"hug\nand sit",1\n"run,x\nsing,x\n', [(4, None)]),
        ("a.csv", "prompt,seed,\nhug,1,\nsit,2,x\n", [(3, None)]),
        ("a.csv", "prompt\rhug\rsit\r", [(1, None)]),
        ("a.csv", "prompt\nобними\n".encode("cp1251"), [(2, None)]),
        ("a.csv", "prompt\nhug\n" + "x" * 1_500_000 + "\nsit\n", [(3, None)]),
        ("a.jsonl", b'{"prompt": "hug"}\n{"prompt": "\xff"}\n{"prompt": 1}\n', [(2, None), (3, "prompt")]),
        ("a.jsonl", '{"prompt": "hug", "guidance": NaN}\n[1]\n{"prompt":\n', [(1, None), (2, None), (3, None)]),
        ("a.jsonl", '{"prompt": "hug", "guidance": 1e400}', [(1, "guidance")]),
        ("a.jsonl", '{"prompt": "hug", "prompt": "sit"}', [(1, "prompt")]),
        ("a.jsonl", "[" * 100_000, [(1, None)]),
        ("a.jsonl", '{"seed": ' + "9" * 5000 + ', "prompt": "a"}', [(1, None)]),
        ("a.yaml", "- prompt: hug\n- prompt: [sit\n", [(3, None)]),
        ("a.yaml", "- prompt: hug\n- 5\n- prompt: a\n  prompt: b\n- [a]\n", [(2, None), (4, "prompt"), (5, None)]),
        (
            "a.yaml",
            "- prompt: !!python/name:os.system x\n- !!python/object/apply:os.system ['true']\n",
            [(1, None), (2, None)],
        ),
        (
            "a.yaml",
            "- {prompt: hug, seed: !!int x}\n- {prompt: hug, seed: 0x" + "f" * 9000 + "}",
            [(1, None), (2, "seed")],
        ),
        ("a.yaml", "- {prompt: 12:30, seed: 2024-01-01}\n- {prompt: 5}\n", [(1, "seed"), (2, "prompt")]),
        ("a.yaml", "- {prompt: hug, guidance: .nan}\n", [(1, "guidance")]),
        ("a.yaml", "default: {seed: 1}\nrows:\n- {prompt: hug}\n", [(1, "default")]),
        ("a.yaml", "rows: {prompt: hug}\n", [(1, "rows")]),
        ("a.yaml", "grid:\n  prompt: [hug]\n  seed: []\n  steps: [[1]]\n", [(3, "seed"), (4, "steps")]),
        ("a.yaml", "grid: {prompt: [hug], seed: {from: 1, to: 99999999}}\n", [(1, "grid")]),
        ("a.yaml", "grid: {prompt: [hug], seed: {from: 1, to: 99999999999999999999}}\n", [(1, "grid")]),
        ("a.yaml", f"grid: {{prompt: [hug], seed: {{from: 1, to: {'9' * 4000}}}}}\n", [(1, "grid")]),
        ("a.yaml", "grid: {prompt: [hug], seed: {from: 9, to: 1}}\n", [(1, "seed")]),
        ("a.yaml", "rows:\n- prompt: hug\n  seed: 1\ngrid: {seed: [1]}\n", [(3, "seed")]),
        ("a.yaml", "&a [*a]\n", [(1, None)]),
        ("a.yaml", "[" * 50_000, [(1, None)]),
        ("a.yaml", "- " * 50_000, [(1, None)]),
        ("a.yaml", b"- prompt: hug\n- prompt: \xff\n", [(2, None)]),
        ("a.yaml", "- prompt: a\x07\n", [(1, None)]),
        ("a.yaml", "hug the cat", [(1, None)]),
    ],
)
def test_a_broken_file_is_reported_by_its_lines(
    folder: Path, name: str, content: str | bytes, expected: list[tuple[int, str | None]]
) -> None:
    _, errors = read(folder, name, content)
    assert places(errors) == expected, [str(error) for error in errors]
    assert all("\n" not in str(error) and len(str(error)) < 1000 for error in errors)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there are Unicode")
@pytest.mark.parametrize("images", ["cats", "cats/*.jpg"])
def test_a_name_that_is_not_utf_8_is_a_mistake_of_its_row(folder: Path, images: str) -> None:
    (folder / "cats" / os.fsdecode(b"\xff.jpg")).write_bytes((folder / "cats" / "0.jpg").read_bytes())
    rows, errors = read(folder, "a.csv", f"prompt,image1\nhug,{images}\nsit,a.png\n")
    assert [row.line for row in rows] == [3]
    assert places(errors) == [(2, "image1")]
    assert errors[0].reason.endswith("/cats/\\xff.jpg: its name is not UTF-8; rename it")


def test_a_mistake_in_a_grid_is_reported_once(folder: Path) -> None:
    text = "grid:\n  prompt: [hug, sit]\n  seed: [1, x, 2, y]\n  guidance: [3, a]\n"
    rows, errors = read(folder, "a.yaml", text)
    assert [(row.number, row.prompt, row.seed) for row in rows] == [
        (1, "hug", 1),
        (5, "hug", 2),
        (9, "sit", 1),
        (13, "sit", 2),
    ]
    assert sorted(error.reason.split(";")[0] for error in errors) == [f'got the text "{x}"' for x in "axy"]


def test_a_nul_is_refused_in_a_table(folder: Path) -> None:
    _, errors = read(folder, "a.csv", "prompt\nhu\0g\n")
    assert [error.line for error in errors] == [2]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (
            "\n".join(["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]),
            "aliases",
        ),
        (
            "\n".join(["- &a0 {x: 1}"] + [f"- &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]),
            "aliases",
        ),
    ],
    ids=["lists", "merged mappings"],
)
def test_a_yaml_bomb_is_refused_before_it_goes_off(folder: Path, content: str, word: str) -> None:
    rows, errors = read(folder, "a.yaml", content)
    assert rows == []
    assert [word in error.reason for error in errors] == [True]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.yaml"])
@pytest.mark.parametrize("content", ["", "\ufeff", "\n\n", "HEADER"])
def test_a_manifest_without_rows_is_refused(folder: Path, name: str, content: str) -> None:
    headers = {"a.csv": "prompt,image1\n", "a.jsonl": " \n", "a.yaml": "defaults: {seed: 1}\n"}
    with pytest.raises(KontextError, match="no rows") as caught:
        read(folder, name, headers[name] if content == "HEADER" else content)
    assert caught.value.field == "manifest"


def test_a_file_that_is_no_manifest_is_refused(folder: Path) -> None:
    for name, word in (("nowhere.csv", "no such file"), ("a.png", r"\.csv"), ("cats", r"\.csv")):
        with pytest.raises(KontextError, match=word):
            list(rows_of(folder / name, small_model=True))
    with pytest.raises(KontextError, match="UTF-16"):
        read(folder, "a.csv", "prompt\nhug\n".encode("utf-16"))
    with pytest.raises(KontextError, match="JSONL"):
        read(folder, "a.yaml", "- {prompt: hug}\n" * 200_000)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["a.png", "cats", "96x96"])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
HOSTILE = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@HOSTILE
@given(rows=st.lists(st.dictionaries(st.sampled_from(COLUMNS) | st.text(max_size=5), VALUES, max_size=5), min_size=1))
def test_any_json_is_read_or_refused_line_by_line(folder: Path, rows: list[dict[str, object]]) -> None:
    found, errors = read(folder, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert {row.line for row in found} | {error.line for error in errors} == set(range(1, len(rows) + 1))
    assert not {row.line for row in found} & {error.line for error in errors}
    assert all("\n" not in str(error) for error in errors)
    assert [row.number for row in found] == sorted({row.number for row in found})


@HOSTILE
@given(name=st.sampled_from(["a.csv", "a.jsonl", "a.yaml"]), content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(folder: Path, name: str, content: bytes) -> None:
    try:
        read(folder, name, content)
    except KontextError as error:
        assert error.field == "manifest"
