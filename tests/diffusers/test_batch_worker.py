"""The in-process worker: a batch is what its rows are alone, and nothing is loaded or encoded twice."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_fluxkontext.batch.row import Lora, Row
from lib_fluxkontext.batch.worker import Failed, Made, Outcome, WorkerLost
from lib_fluxkontext.hosts.diffusers import batch as batch_module
from lib_fluxkontext.hosts.diffusers import model_store
from lib_fluxkontext.hosts.diffusers.batch import DiffusersWorker
from lib_fluxkontext.hosts.diffusers.loader import SMALL_MODEL
from lib_fluxkontext.hosts.diffusers.options import LoadOptions
from lib_fluxkontext.hosts.diffusers.pipeline import BatchRow, Generated, generate, generate_batch
from lib_fluxkontext.images.decode import Reference, decode_reference
from lib_fluxkontext.images.files import CHANGED
from lib_fluxkontext.job import Job
from lib_fluxkontext.settings import KontextSettings
from tests.support.batch_rows import a_row

pytestmark = pytest.mark.slow

PROMPTS = ("put the first picture on the left and the second on the right", "make it black and white", "a red frame")
CACHES: dict[str, dict[str, Any]] = {
    "off": {"cache": False},
    "first block": {"cache_threshold": 0.3},
    "corrected, references reused": {"cache_threshold": 0.3, "cache_correct": True, "reference_refresh": 1},
    "references every third step": {"cache_threshold": 0.12, "reference_refresh": 3},
}


def settings(**values: Any) -> KontextSettings:
    return KontextSettings.from_mapping({"enabled": True, "sizing": "to output", **values})


@pytest.fixture
def photos(tmp_path: Path, woman: Reference, cat: Reference) -> tuple[Path, Path]:
    """Two photographs as files."""
    paths = (tmp_path / "woman.png", tmp_path / "cat.png")
    woman.image.save(paths[0])
    cat.image.save(paths[1])
    return paths


@pytest.fixture
def worker(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> DiffusersWorker:
    """A worker that gets the pipeline which the session has loaded."""
    monkeypatch.setattr(model_store, "load_pipeline", lambda *_: pipeline)
    return DiffusersWorker(LoadOptions(device="cpu"))


def row(number: int, *images: Path, **values: Any) -> Row:
    """Make a row of these images."""
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in images)
    given = {"prompt": PROMPTS[0], "settings": settings(), "steps": 4, **values}
    return a_row(number, images=images, digests=digests, **given)


def picture(outcome: Outcome) -> bytes:
    """Return the pixels of a row that was made."""
    assert isinstance(outcome, Made), outcome
    assert isinstance(outcome.picture, Image.Image)
    return outcome.picture.tobytes()


@pytest.mark.parametrize("cache", CACHES)
def test_a_batch_of_different_rows_is_what_they_are_alone(
    pipeline: Any, woman: Reference, cat: Reference, cache: str
) -> None:
    job = Job("", 96, 96, steps=12)
    rows = [
        BatchRow(PROMPTS[0], 1, (woman, cat)),
        BatchRow(PROMPTS[1], 5, (cat, woman)),
        BatchRow(PROMPTS[2], 9, (woman, woman)),
    ]
    together = generate_batch(pipeline, job, rows, settings(**CACHES[cache]))
    alone = [generate_batch(pipeline, job, [one], settings(**CACHES[cache])) for one in rows]
    for place, single in enumerate(alone):
        assert decided(together, place) == decided(single, 0)
        assert difference(together.latents[place], single.latents[0]) < 1e-4  # rounding: twelve steps of other sums
        assert kinds(together, place) == kinds(single, 0)
    if cache != "off":  # rows go different ways, or the test would not show that references follow them
        assert len({tuple(decided(single, 0)) for single in alone}) > 1


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def decided(generated: Generated, place: int) -> list[tuple[bool, bool]]:
    """Return for each model call whether this picture's step was reused, or computed on cached references."""
    return [
        (decisions[place].reuse, decisions[place].cached_references) for decisions in generated.decisions if decisions
    ]


def kinds(generated: Generated, place: int) -> list[str]:
    return [step.kind for step in generated.report_of(place).steps]


def test_one_row_is_bit_identical_to_generate(
    worker: DiffusersWorker, pipeline: Any, photos: tuple[Path, Path], woman: Reference, cat: Reference
) -> None:
    (outcome,) = worker.make([row(1, *photos, seed=3)])
    job = Job(PROMPTS[0], 96, 96, 4, seed=3)
    references = [decode_reference(woman.image, "image1"), decode_reference(cat.image, "image2")]
    assert picture(outcome) == generate(pipeline, job, references, settings()).image.tobytes()
    assert isinstance(outcome, Made)
    assert outcome.infotext.startswith(f"{PROMPTS[0]}\nSteps: 4, Sampler: Euler")
    assert outcome.report["steps"] == 4


def test_ten_seeds_of_a_pair_are_two_encodes_and_one_prompt(worker: DiffusersWorker, photos: tuple[Path, Path]) -> None:
    for seed in range(0, 10, 2):
        worker.make([row(seed, *photos, seed=seed, steps=1), row(seed + 1, *photos, seed=seed + 1, steps=1)])
    assert vars(worker.counters) == {"encodes": 2, "prompts": 1, "loads": 1}


def test_a_row_at_fault_fails_alone(worker: DiffusersWorker, photos: tuple[Path, Path]) -> None:
    woman, cat = photos
    rows = [row(number, path, seed=number, steps=1) for number, path in enumerate((woman, cat, cat), 1)]
    cat.write_bytes(cat.read_bytes()[:2000])
    broken = row(4, cat, steps=1)
    woman_alone = picture(worker.make(rows[:1])[0])
    made = worker.make([*rows, broken])
    assert picture(made[0]) == woman_alone
    assert made[1] == made[2] == Failed(CHANGED, "image1")
    assert isinstance(made[3], Failed)
    assert "truncated" in made[3].reason


def test_rows_whose_references_are_of_other_sizes_are_made_apart(
    worker: DiffusersWorker, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    wide = tmp_path / "wide.png"
    Image.open(photos[0]).resize((128, 64)).save(wide)
    rows = [row(n, path, settings=settings(sizing="no change"), steps=2) for n, path in enumerate((photos[0], wide))]
    together = worker.make(rows)
    assert [picture(one) for one in together] == [picture(worker.make([one])[0]) for one in rows]


def test_a_batch_too_large_for_the_memory_is_made_row_by_row(
    worker: DiffusersWorker, photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_memory(pipeline: Any, job: Job, rows: list[BatchRow], *arguments: Any, **options: Any) -> Generated:
        if len(rows) > 1:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return generate_batch(pipeline, job, rows, *arguments, **options)

    rows = [row(number, *photos, seed=number, steps=1) for number in (1, 2)]
    singles = [picture(worker.make([one])[0]) for one in rows]
    monkeypatch.setattr(batch_module, "generate_batch", small_memory)
    assert [picture(one) for one in worker.make(rows)] == singles


def test_close_stops_before_the_next_step(worker: DiffusersWorker, photos: tuple[Path, Path], pipeline: Any) -> None:
    steps = []

    def count(*_: object) -> None:
        steps.append(1)
        if len(steps) == 2:
            worker.close()

    hook = pipeline.transformer.register_forward_hook(count)
    try:
        with pytest.raises(WorkerLost, match="interrupted"):
            worker.make([row(1, *photos, steps=8)])
    finally:
        hook.remove()
    assert len(steps) == 2


def test_checkpoints_load_when_they_change_and_never_again_where_they_cannot(
    worker: DiffusersWorker, photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = row(1, photos[0], steps=1)
    nowhere = replace(one, checkpoint=str(tmp_path / "nowhere.safetensors"))
    monkeypatch.undo()
    made = [worker.make([row])[0] for row in (one, nowhere, nowhere, one)]
    assert picture(made[0]) == picture(made[3])
    assert made[1] == made[2]
    assert isinstance(made[1], Failed)
    assert made[1].field == "checkpoint"
    assert worker.counters.loads == 1


def test_a_lora_changes_its_own_rows_alone(
    worker: DiffusersWorker,
    photos: tuple[Path, Path],
    pipeline: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    pytest.importorskip("peft")
    request.addfinalizer(pipeline.unload_lora_weights)  # other tests share the pipeline
    from safetensors.torch import save_file

    query = pipeline.transformer.transformer_blocks[0].attn.to_q
    generator = torch.Generator().manual_seed(0)
    name = "transformer.transformer_blocks.0.attn.to_q.lora_"
    weights = {"A.weight": (4, query.in_features), "B.weight": (query.out_features, 4)}
    path = tmp_path / "style.safetensors"
    save_file({name + key: torch.randn(*shape, generator=generator) for key, shape in weights.items()}, path)
    plain = row(1, photos[0], steps=2)
    styled = [replace(plain, loras=(Lora(str(path), weight),)) for weight in (1.0, 0.5)]
    unfit = replace(plain, loras=(Lora(str(photos[0])),))
    pictures = [worker.make([one])[0] for one in (plain, *styled, plain, unfit, plain)]
    assert len({picture(pictures[place]) for place in (0, 1, 2)}) == 3
    assert picture(pictures[0]) == picture(pictures[3]) == picture(pictures[5])
    assert isinstance(pictures[4], Failed)
    assert pictures[4].field == "lora"
    assert isinstance(pictures[1], Made)
    assert "<lora:style:1>" in pictures[1].infotext

    other = tmp_path / "other_model.safetensors"
    save_file({"unet.down.0.attn.to_q.lora_A.weight": torch.zeros(4, 8)}, other)
    mixed = replace(plain, loras=(*styled[0].loras, Lora(str(other))))
    failed, after, again = [worker.make([one])[0] for one in (mixed, plain, styled[0])]
    assert isinstance(failed, Failed)
    assert failed.reason == f"{other} has nothing for a FLUX.1 transformer"
    assert picture(after) == picture(pictures[0])
    assert picture(again) == picture(pictures[1])


@pytest.mark.parametrize("reason", ["CUDA out of memory. Tried to allocate 20 GiB", "no file named model.safetensors"])
def test_a_checkpoint_that_does_not_load_is_tried_once_and_the_batchs_own_ends_it(
    photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    tried: list[object] = []

    def load(*arguments: object) -> None:
        tried.append(arguments[0])
        raise OSError(reason)

    monkeypatch.setattr(model_store, "load_pipeline", load)
    worker = DiffusersWorker()
    named = replace(row(1, photos[0], steps=2), checkpoint=str(SMALL_MODEL))
    failed = [worker.make([one])[0] for one in (named, replace(named, seed=2))]
    assert [outcome.reason for outcome in failed] == [f"small_kontext could not be loaded: {reason}"] * 2
    assert tried == [SMALL_MODEL]
    with pytest.raises(WorkerLost, match=reason[:20]):
        worker.make([row(1, photos[0], steps=2)])
