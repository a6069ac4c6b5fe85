"""The words on a format's quality say what docs/formats.json has, and nothing of what was not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lib_fluxkontext.checkpoints.fidelity import CLOSER, GRADES, MEASURED_PSNR, fidelity
from lib_fluxkontext.checkpoints.flux import CheckpointFacts
from lib_fluxkontext.checkpoints.storage import Storage
from lib_fluxkontext.convert.formats import FORMATS
from lib_fluxkontext.sampling.vram import QUANTISATIONS
from tests.unit.test_checkpoint_line import Q8

MEASUREMENTS = Path(__file__).resolve().parents[2] / "docs" / "formats.json"


def said(quantisation: str, **more: object) -> str | None:
    facts: CheckpointFacts = replace(Q8, quantisation=quantisation, **more)
    return fidelity(facts)


def test_the_numbers_are_those_of_the_document() -> None:
    rows = json.loads(MEASUREMENTS.read_text(encoding="utf-8"))["pictures"]["rows"]
    uncached = {row["format"]: row["to_exact"]["psnr"] for row in rows if row["cache"] == "Off"}
    measured = {FORMATS[name][0]: round(psnr, 1) for name, psnr in uncached.items() if name != "fp32"}
    assert measured == MEASURED_PSNR


def test_another_format_is_named_only_where_it_is_measurably_closer() -> None:
    for kind, (other, _) in CLOSER.items():
        assert MEASURED_PSNR[other] > MEASURED_PSNR[kind] + 3


@pytest.mark.parametrize(
    ("quantisation", "words"),
    [
        ("F16", "Its pictures are practically those of full precision."),
        ("Q8_0", "Its pictures are practically those of full precision."),
        ("F8_E4M3", "Its pictures come very close to those of full precision. Q8_0, about as large, comes closer."),
        ("F8_E5M2", "Its pictures come very close to those of full precision. FP8 e4m3fn, as large, comes closer."),
        ("Q4_0", "Its pictures come close to those of full precision; fine details differ."),
        ("FP4", f"{GRADES[-1][1]} NF4, as large, comes closer."),
        ("Q4_K", None),
        ("F32", None),
    ],
)
def test_what_is_said(quantisation: str, words: str | None) -> None:
    assert said(quantisation) == words


def test_nothing_is_said_of_scaled_fp8() -> None:
    storage = Storage(layout="original", scales=frozenset({".scale_weight"}), scale_kinds=frozenset({"F32"}))
    assert said("F8_E4M3", format="safetensors", storage=storage) is None


def test_a_suggested_quantisation_is_called_less_faithful_where_it_is() -> None:
    for name, _ in QUANTISATIONS:
        measured = [psnr for kind, psnr in MEASURED_PSNR.items() if kind in name]
        if measured:
            assert ("less faithful" in name) == (min(measured) < GRADES[1][0])
