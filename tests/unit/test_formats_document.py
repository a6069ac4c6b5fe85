"""``docs/formats.md``: what the tests' record says of each host, and that nothing measured is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.formats.document import write
from benchmarks.formats.matrix import Case, read_record, table
from benchmarks.formats.measure import CACHES, FORMATS, Loaded, Row
from benchmarks.formats.results import Matrix, Pictures, Results, load
from benchmarks.frontier.quality import Quality

RECORD = """<testsuites><testsuite>
<testcase name="a"><properties><property name="host" value="Forge"/><property name="format" value="NF4"/>
<property name="lora" value="False"/></properties></testcase>
<testcase name="b"><properties><property name="host" value="Neo"/><property name="format" value="NF4"/>
<property name="lora" value="True"/></properties><failure message="x"/></testcase>
<testcase name="c"><properties><property name="host" value="Neo"/><property name="format" value="FP4"/>
<property name="lora" value="True"/></properties><skipped/></testcase>
<testcase name="d"><properties><property name="host" value="Neo"/><property name="format" value="Q8_0"/>
<property name="lora" value="True"/></properties></testcase>
<testcase name="e"/></testsuite></testsuites>"""


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """What is in ``RECORD``."""
    (tmp_path / "record.xml").write_text(RECORD)
    return list(read_record(tmp_path / "record.xml"))


def test_the_matrix_says_what_passed_what_failed_and_what_never_ran(cases: list[Case]) -> None:
    assert table(cases, "format").splitlines()[2:] == [
        "| NF4 | yes, LoRA not on the CPU | failed |",
        "| Q8_0 | – | yes |",
    ]


def test_the_document_has_every_format_and_comes_back_from_what_was_saved(cases: list[Case], tmp_path: Path) -> None:
    rows = {
        (name, cache): Row(0.1, 0.25, Quality(30.0 + place, 0.99, 0.01), Quality(41.5, 0.999, 0.001))
        for place, name in enumerate(FORMATS)
        for cache in CACHES
    }
    loaded = {name: Loaded(4_000_000 if name == "fp32" else 1_000_000, 2_000_000, 0.5) for name in FORMATS}
    results = Results(Pictures("a machine", "8 tasks", loaded, rows), Matrix("a machine", cases))
    text = write(results, tmp_path).read_text(encoding="utf-8")
    assert "| FP32 | 4.0 (100%) | 2.0 | 0.50 | 100 | exact | 1 | 0 | 30.0 |" in text
    assert "| GGUF Q8_0 | 1.0 (25%) | 2.0 | 0.50 | 100 | 35.0 | 0.9900 | 0.0100 |" in text
    assert "| NF4 | 25.0% | 41.5 | 25.0% | 41.5 |" in text
    assert "| NF4 | yes, LoRA not on the CPU | failed |" in text
    assert Image.open(tmp_path / "formats.png").width > 900
    results.save(tmp_path / "formats.json")
    assert load(tmp_path / "formats.json") == results
    assert load(tmp_path / "none.json") == Results()
