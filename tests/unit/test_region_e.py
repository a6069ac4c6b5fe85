"""RegionE, the method this project is compared with, on a small random transformer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor

from benchmarks.rivals.region_e import region_e
from benchmarks.rivals.region_e_partition import edited_tokens, one_step_estimate
from benchmarks.rivals.region_e_schedule import RegionESettings
from benchmarks.rivals.work import Work

GRID = (6, 5)
COUNT = 30
TEXT = 4
TOKENS = TEXT + 2 * COUNT
STEPS = 9
STAGES: dict[str, Any] = {"first_steps": 2, "last_steps": 2, "full_steps": (4,)}
EVERYTHING = RegionESettings(**STAGES, threshold=1.1)
NOTHING = RegionESettings(**STAGES, threshold=-1.1)
SOME = RegionESettings(**STAGES, threshold=0.0, morphology=False)
FULL = [0, 1, 4, 7, 8]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def small_pipeline(doubles: int = 2, singles: int = 2) -> Any:
    """What of a pipeline RegionE needs."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=8,
        num_layers=doubles,
        num_single_layers=singles,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=6,
        guidance_embeds=True,
        axes_dims_rope=(4, 2, 2),
    )
    return SimpleNamespace(transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))


def grid_ids(plane: int, grid: tuple[int, int] = GRID) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.stack((torch.full_like(rows, plane), rows, columns), dim=-1).reshape(-1, 3).float()


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditions(seeds: list[int]) -> dict[str, Tensor]:
    return {
        "encoder_hidden_states": torch.cat([draw(1, TEXT, 12, seed=seed + 100) for seed in seeds]),
        "pooled_projections": torch.cat([draw(1, 6, seed=seed + 200) for seed in seeds]),
        "guidance": torch.full((len(seeds),), 2.5),
        "txt_ids": torch.zeros(TEXT, 3),
        "img_ids": torch.cat((grid_ids(0), grid_ids(1))),
    }


def start_and_references(seeds: list[int]) -> tuple[Tensor, Tensor]:
    noise = torch.cat([draw(1, COUNT, 8, seed=seed) for seed in seeds])
    return noise, torch.cat([draw(1, COUNT, 8, seed=seed + 300) for seed in seeds])


def sample(pipeline: Any, seeds: list[int], sigmas: list[float] | None = None) -> Tensor:
    """Sample as the pipeline does; ``sigmas``, unshifted, of fewer steps than ``STEPS``."""
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    if sigmas is not None:
        scheduler.sigmas = torch.tensor([*sigmas, 0.0])
        scheduler.timesteps = scheduler.sigmas[:-1] * 1000
    scheduler.set_begin_index(0)
    latents, references = start_and_references(seeds)
    for timestep in scheduler.timesteps:
        velocity = pipeline.transformer(
            hidden_states=torch.cat((latents, references), dim=1),
            timestep=timestep.expand(len(seeds)) / 1000,
            return_dict=False,
            **conditions(seeds),
        )[0][:, :COUNT]
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    return latents


def sampled(pipeline: Any, seeds: list[int], settings: RegionESettings) -> tuple[Tensor, Work]:
    with region_e(pipeline, GRID, STEPS, settings) as work:
        return sample(pipeline, seeds), work


def test_everything_edited_is_uncached_where_references_do_not_change() -> None:
    pipeline = small_pipeline(doubles=1, singles=0)
    embedder = pipeline.transformer.time_text_embed.timestep_embedder
    embedder.linear_2.weight.zero_()  # without the time, the first block's keys of the references are always the same
    picture, work = sampled(pipeline, [1], EVERYTHING)
    torch.testing.assert_close(picture, sample(pipeline, [1]), rtol=1e-4, atol=1e-5)
    assert work.evaluations == pytest.approx(len(FULL) + (STEPS - len(FULL)) * (TEXT + COUNT) / TOKENS)
    assert work.calls == STEPS


def test_everything_edited_is_near_uncached_otherwise() -> None:
    pipeline = small_pipeline()
    uncached = sample(pipeline, [1])
    picture, _ = sampled(pipeline, [1], EVERYTHING)
    assert 1e-6 < (picture - uncached).abs().max() < 0.1 * uncached.abs().max()


def test_nothing_edited_leaves_only_the_full_steps() -> None:
    pipeline = small_pipeline()
    picture, work = sampled(pipeline, [1, 2], NOTHING)
    assert work == Work(len(FULL), STEPS)
    pipeline.scheduler.set_timesteps(STEPS)
    coarse = [float(pipeline.scheduler.sigmas[step]) for step in FULL]
    torch.testing.assert_close(picture, sample(pipeline, [1, 2], coarse), rtol=1e-4, atol=1e-5)
    assert (picture - sample(pipeline, [1, 2])).abs().max() > 1e-3


class Steps:
    """Calls of the transformer at chosen steps and inputs, without a sampler."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.scheduler = pipeline.scheduler
        self.scheduler.set_timesteps(STEPS)
        pipeline.scheduler = SimpleNamespace(sigmas=self.scheduler.sigmas, step_index=None)

    def __call__(self, step: int, latents: Tensor, references: Tensor, sigma: float) -> Tensor:
        self.pipeline.scheduler.step_index = step
        batch = latents.shape[0]
        output: Tensor = self.pipeline.transformer(
            hidden_states=torch.cat((latents, references), dim=1),
            timestep=torch.full((batch,), sigma),
            return_dict=False,
            **conditions(list(range(1, batch + 1))),
        )[0]
        return output[:, :COUNT]


@pytest.mark.parametrize("batch", [1, 3])
def test_region_step_with_unchanged_inputs_repeats_the_full_step(batch: int) -> None:
    pipeline = small_pipeline()
    latents, references = start_and_references(list(range(1, batch + 1)))
    steps = Steps(pipeline)
    sigma = float(pipeline.scheduler.sigmas[1])
    uncached = steps(1, latents, references, sigma)
    estimate = one_step_estimate(latents, uncached, sigma)
    edited = edited_tokens(estimate, references, GRID, 0.0, morphology=False)
    assert all(5 < int(tokens) < 25 for tokens in edited.sum(dim=1))
    with region_e(pipeline, GRID, STEPS, SOME) as work:
        steps(0, latents, references, sigma)
        full = steps(1, latents, references, sigma)
        before = work.evaluations
        region = steps(2, latents, references, sigma)
    torch.testing.assert_close(full[edited], uncached[edited], rtol=1e-5, atol=1e-6)
    sigmas = pipeline.scheduler.sigmas.tolist()
    jump = (sigmas[4] - sigmas[1]) / (sigmas[2] - sigmas[1])
    torch.testing.assert_close(full[~edited], uncached[~edited] * jump, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(region[edited], uncached[edited], rtol=1e-4, atol=1e-5)
    assert not region[~edited].any()
    assert work.evaluations - before == pytest.approx((TEXT + float(edited.sum()) / batch) / TOKENS)


@pytest.mark.parametrize("full", [1, 4])
def test_region_step_reads_what_the_full_step_left(full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full forward in which the other tokens' keys and values are put back by hand gives the same."""
    pipeline = small_pipeline()
    latents, references = start_and_references([1])
    steps = Steps(pipeline)
    sigmas = pipeline.scheduler.sigmas.tolist()
    with region_e(pipeline, GRID, STEPS, SOME):
        for step in range(full + 1):
            steps(step, latents + 0.3 * step, references, sigmas[step])
        region = steps(full + 1, latents - 0.3, references, sigmas[full + 1])
    edited = region[0].any(dim=-1)
    other = torch.cat((torch.zeros(TEXT, dtype=torch.bool), ~edited, torch.ones(COUNT, dtype=torch.bool)))

    module = sys.modules[FluxTransformer2DModel.__module__]
    original = vars(module)["dispatch_attention_fn"]
    old: list[tuple[Tensor, Tensor]] = []

    def store(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Any:
        old.append((key, value))
        return original(query, key, value, **kwargs)

    def put_back(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Any:
        old_key, old_value = old.pop(0)
        chosen = other[None, :, None, None]
        return original(query, torch.where(chosen, old_key, key), torch.where(chosen, old_value, value), **kwargs)

    monkeypatch.setattr(module, "dispatch_attention_fn", store)
    steps(full, latents + 0.3 * full, references, sigmas[full])
    monkeypatch.setattr(module, "dispatch_attention_fn", put_back)
    by_hand = steps(full + 1, latents - 0.3, references, sigmas[full + 1])
    torch.testing.assert_close(region[0, edited], by_hand[0, edited], rtol=1e-4, atol=1e-5)


def test_batch_is_as_single_pictures() -> None:
    pipeline = small_pipeline()
    singles = [sampled(pipeline, [seed], SOME) for seed in (1, 2, 1)]
    together, work = sampled(pipeline, [1, 2, 1], SOME)
    torch.testing.assert_close(together, torch.cat([picture for picture, _ in singles]), rtol=1e-4, atol=1e-5)
    assert work.evaluations == pytest.approx(sum(single.evaluations for _, single in singles) / 3)


def test_reused_step_repeats_the_last_velocity() -> None:
    pipeline = small_pipeline()
    latents, references = start_and_references([1])
    steps = Steps(pipeline)
    sigmas = pipeline.scheduler.sigmas.tolist()
    decay = tuple(0.97 / (1 + sigmas[step] - sigmas[step - 1]) for step in range(1, STEPS))
    settings = RegionESettings(**STAGES, threshold=1.1, decay=decay)
    with region_e(pipeline, GRID, STEPS, settings) as work:
        outputs = [steps(step, latents, references, sigmas[step]) for step in range(STEPS)]
    torch.testing.assert_close(outputs[3], 0.97 * outputs[2])
    torch.testing.assert_close(outputs[5], 0.97 * outputs[4])  # right after a full step too
    assert work.calls == STEPS
    assert work.evaluations == pytest.approx(len(FULL) + 2 * (TEXT + COUNT) / TOKENS)  # steps 2 and 6


@pytest.mark.parametrize("failing", [1, 2])  # the step that stores keys and values, and one that reads them
def test_everything_is_restored(failing: int) -> None:
    pipeline = small_pipeline()
    module = sys.modules[FluxTransformer2DModel.__module__]
    attention, before = vars(module)["dispatch_attention_fn"], dict(vars(pipeline.transformer))
    processors = pipeline.transformer.attn_processors
    uncached = sample(pipeline, [1])

    def stop(*_: Any) -> None:
        if pipeline.scheduler.step_index == failing:
            raise KeyboardInterrupt

    handle = pipeline.transformer.single_transformer_blocks[0].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        sampled(pipeline, [1], SOME)
    handle.remove()
    assert vars(pipeline.transformer) == before
    assert vars(module)["dispatch_attention_fn"] is attention
    assert pipeline.transformer.attn_processors == processors
    assert torch.equal(sample(pipeline, [1]), uncached)


def test_samplings_in_a_row_are_the_same() -> None:
    pipeline = small_pipeline()
    with region_e(pipeline, GRID, STEPS, SOME) as work:
        first = sample(pipeline, [1])
        after_one = work.evaluations
        sample(pipeline, [1, 2])
        assert torch.equal(sample(pipeline, [1]), first)
    assert work.calls == 3 * STEPS
    assert 2 * after_one < work.evaluations


def test_references_are_needed() -> None:
    pipeline = small_pipeline()
    call = conditions([1]) | {"timestep": torch.ones(1)}
    pipeline.scheduler.set_timesteps(STEPS)

    def forward(tokens: int, ids: Tensor) -> None:
        with region_e(pipeline, GRID, STEPS, NOTHING):
            pipeline.transformer(**call | {"hidden_states": draw(1, tokens, 8, seed=1), "img_ids": ids})

    with pytest.raises(ValueError, match="needs a reference"):
        forward(COUNT, grid_ids(0))
    turned = torch.cat((grid_ids(0), grid_ids(1, (5, 6))))
    with pytest.raises(ValueError, match="reference of the picture's size"):
        forward(2 * COUNT, turned)
    with pytest.raises(ValueError, match="reference of the picture's size"):
        forward(COUNT + 10, turned[: COUNT + 10])
    forward(2 * COUNT, torch.cat((grid_ids(0), grid_ids(1) + 6)))  # the same size, in another place


def test_other_calls_are_refused() -> None:
    pipeline = small_pipeline()
    latents, references = start_and_references([1])
    with pytest.raises(ValueError, match="makes 9 steps"), region_e(pipeline, GRID, 28):
        sample(pipeline, [1])
    steps = Steps(pipeline)
    with region_e(pipeline, GRID, STEPS, NOTHING):
        steps(0, latents, references, 1.0)
        steps(1, latents, references, 0.9)
        with pytest.raises(ValueError, match="one call for each step"):
            steps(1, latents, references, 0.9)
        with pytest.raises(ValueError, match="the same tokens"):
            steps(2, latents, references[:, :0], 0.8)
