"""A checkpoint of the hires pass that takes no references is refused before the first pass, and no other is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lib_fluxkontext.checkpoints.flux import CheckpointFacts, Part
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.lifecycle import hires
from lib_fluxkontext.images.decode import Reference
from lib_fluxkontext.settings import KontextSettings

REFERENCES = (Reference(Image.new("RGB", (32, 32)), "0" * 12, "image1"),)
FAMILIES = {
    "kontext": "FLUX.1 Kontext",
    "schnell": "FLUX.1 schnell",
    "fill": "a FLUX.1 variant with extra input channels (Fill, Canny or Depth)",
    "sdxl": None,
}


def facts(path: Path) -> CheckpointFacts:
    """Return what the header of a file would say."""
    if path.stem == "damaged":
        raise KontextError("the header is damaged")
    if path.stem == "gone":
        raise FileNotFoundError(path)
    family = FAMILIES[path.stem]
    takes_references = path.stem in ("kontext", "schnell")
    return CheckpointFacts(path.name, family, takes_references, "safetensors", "BF16", (Part("BF16", 1, 1),), 1, 1, 1)


@pytest.fixture(autouse=True)
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forge's list of checkpoints, without the one called "unknown"."""

    def match(name: str) -> Any:
        return None if name == "unknown" else SimpleNamespace(filename=f"/m/{name}.safetensors", name_for_extra=name)

    sd_models = ModuleType("modules.sd_models")
    sd_models.get_closet_checkpoint_match = match
    modules = ModuleType("modules")
    modules.sd_models = sd_models
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.setitem(sys.modules, "modules.sd_models", sd_models)
    monkeypatch.setattr(hires, "read_facts", facts)


def check(name: str | None, references: tuple[Reference, ...] = REFERENCES, **values: Any) -> None:
    p: Any = SimpleNamespace(**{"enable_hr": True, "hr_checkpoint_name": name, **values})
    hires.check_hires_checkpoint(p, KontextSettings(enabled=True), references)


def test_one_that_is_not_flux_is_refused_by_name_with_what_to_do() -> None:
    with pytest.raises(KontextError) as refused:
        check("sdxl")
    assert str(refused.value) == (
        'hires_references: the hires checkpoint "sdxl" is not FLUX and cannot take references; '
        'untick "References in the hires pass too", or choose a FLUX.1 checkpoint for that pass'
    )


def test_a_variant_of_flux_that_takes_none_is_refused_as_what_it_is() -> None:
    with pytest.raises(KontextError, match="is a FLUX.1 variant with extra input channels"):
        check("fill")


@pytest.mark.parametrize("name", ["kontext", "schnell", "unknown", "damaged", "gone", "Use same checkpoint", "", None])
def test_what_takes_references_or_cannot_be_judged_is_left_to_forge(name: str | None) -> None:
    check(name)


def test_it_does_not_matter_where_no_reference_would_run_there() -> None:
    check("sdxl", references=())
    check("sdxl", enable_hr=False)
    p: Any = SimpleNamespace(enable_hr=True, hr_checkpoint_name="sdxl")
    hires.check_hires_checkpoint(p, KontextSettings(enabled=True, hires_references=False), REFERENCES)
    hires.check_hires_checkpoint(SimpleNamespace(), KontextSettings(enabled=True), REFERENCES)
