"""References that run in some steps only: right results, each image as it would be alone, never a failed generation."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.kv_store import KVStore
from lib_fluxkontext.caching.reference_kv import NO_ATTENTION, OUT_OF_MEMORY, ReferenceKVCache, ReferenceKVConfig
from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter
from tests.support import small_flux
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_session import run_step, small_session

IN_PLACE = pytest.mark.parametrize("in_place", [False, True], ids=["new tensors", "in place"])
BLOCKS = 5


def refresh_every(steps: int, last: bool = False, store: KVStore | None = None) -> ReferenceKVCache:
    return ReferenceKVCache(ReferenceKVConfig(steps, last), store or KVStore())


def run(
    model: SmallFluxTransformer,
    arguments: dict[str, Tensor],
    step: int,
    reference_kv: ReferenceKVCache | None,
    first_block: FirstBlockCache | None = None,
    last: bool = False,
) -> tuple[Tensor, ModelCall]:
    """One step under these caches, which go on from step to step."""
    return run_step(small_session(model, Caches(first_block, reference_kv)), model, arguments, step, last)


def moved(arguments: dict[str, Tensor], amounts: list[float], sigma: float) -> dict[str, Tensor]:
    """The same call a step later: each image's tokens changed by its own amount."""
    amount = torch.tensor(amounts)[:, None, None]
    image = arguments["img"] + amount * torch.ones_like(arguments["img"])
    return arguments | {"img": image, "timesteps": torch.full_like(arguments["timesteps"], sigma)}


def kinds(call: ModelCall) -> list[str]:
    return ["reused" if d.reuse else "light" if d.cached_references else "full" for d in call.decisions]


def untouched(model: SmallFluxTransformer, attention: Any) -> bool:
    modules = [model, *model.double_blocks, *model.single_blocks]
    clean = not any("forward" in vars(m) or "inner_forward" in vars(m) for m in modules)
    return clean and small_flux.attention_function is attention


@IN_PLACE
def test_kept_references_replay_the_same_moment_exactly(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs(batch=2)
    reference_kv = refresh_every(4)
    full, first = run(model, arguments, 0, reference_kv)
    light, second = run(model, arguments, 1, reference_kv)
    assert kinds(first) == ["full", "full"]
    assert kinds(second) == ["light", "light"]
    assert torch.allclose(light, full, atol=1e-6)
    assert torch.equal(full, run(model, arguments, 0, None)[0])


@IN_PLACE
def test_a_light_step_sees_the_references(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    reference_kv = refresh_every(4)
    run(model, arguments, 0, reference_kv)
    later = moved(arguments, [0.2], 0.4)
    light, _ = run(model, later, 1, reference_kv)
    full, _ = run(model, later, 1, None)
    without = model.inner_forward(**{name: value.clone() for name, value in later.items()})
    assert (light - full).abs().mean() < 0.2 * (without - full).abs().mean()


def test_refreshes_come_every_so_many_steps_and_at_the_end_if_asked() -> None:
    model, arguments = SmallFluxTransformer(), inputs()

    def pattern(reference_kv: ReferenceKVCache) -> str:
        return "".join(kinds(run(model, arguments, step, reference_kv, last=step == 7)[1])[0][0] for step in range(8))

    assert pattern(refresh_every(3)) == "fllfllfl"
    assert pattern(refresh_every(3, last=True)) == "fllfllff"
    assert pattern(refresh_every(1)) == "ffffffff"
    assert pattern(refresh_every(100)) == "flllllll"


def test_the_second_call_of_a_step_refreshes_nothing() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reference_kv = refresh_every(2)
    found = [kinds(run(model, arguments, step, reference_kv)[1])[0] for step in (0, 0, 1, 1, 2, 2)]
    assert found == ["full", "light", "light", "light", "full", "light"]
    assert reference_kv.refreshes == 2


def test_where_references_run_in_every_computed_call_one_block_is_kept() -> None:
    """The one that runs in a reused step too: all of FLUX.1's would be 57 times as much."""
    model, arguments = SmallFluxTransformer(), inputs(batch=2)
    reference_kv, cache = refresh_every(1), FirstBlockCache(FirstBlockConfig(0.5))
    found = [kinds(run(model, arguments, step, reference_kv, cache)[1]) for step in (0, 0, 1)]
    assert found == [["full", "full"], ["full", "full"], ["reused", "reused"]]
    assert reference_kv.usage().peak_bytes == 2 * 2 * 5 * 16 * 4  # keys and values, images, tokens, channels, bytes
    assert reference_kv.notes == []


def test_a_reused_step_runs_no_reference_even_when_they_are_due() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reference_kv, cache = refresh_every(1), FirstBlockCache(FirstBlockConfig(0.5))
    run(model, arguments, 0, reference_kv, cache)
    seen: list[int] = []
    model.double_blocks[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["img"].shape[1]), with_kwargs=True
    )
    before = model.computed_blocks
    _, call = run(model, arguments, 1, reference_kv, cache)
    assert kinds(call) == ["reused"]
    assert seen == [arguments["img"].shape[1]]
    assert model.computed_blocks == before + 1
    _, call = run(model, moved(arguments, [9.0], 0.4), 2, reference_kv, cache)
    assert kinds(call) == ["full"]


@IN_PLACE
@pytest.mark.parametrize("cached", [True, False], ids=["with First Block Cache", "alone"])
@pytest.mark.parametrize("forecast", [True, False], ids=["forecast", "no forecast"])
@pytest.mark.parametrize("refresh", [1, 5])
def test_a_batch_equals_its_images_alone(in_place: bool, cached: bool, forecast: bool, refresh: int) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs(batch=3)
    amounts = [[0, 0, 0], [0.01, 0.4, 0.01], [0.02, 0.41, 0.5], [0.6, 0.42, 0.51], [0.61, 0.9, 0.52], [0.62, 0.91, 1.2]]

    def cache() -> FirstBlockCache | None:
        return FirstBlockCache(FirstBlockConfig(0.1, forecast=forecast)) if cached else None

    together, patterns = [], []
    reference_kv, state = refresh_every(refresh), cache()
    for step, amount in enumerate(amounts):
        output, call = run(model, moved(arguments, amount, 0.5 - 0.01 * step), step, reference_kv, state)
        together.append(output)
        patterns.append(kinds(call))
    for image in range(3):
        alone = {name: value[image : image + 1] for name, value in arguments.items()}
        reference_kv, state = refresh_every(refresh), cache()
        for step, amount in enumerate(amounts):
            output, call = run(
                model, moved(alone, amount[image : image + 1], 0.5 - 0.01 * step), step, reference_kv, state
            )
            assert kinds(call) == [patterns[step][image]]
            assert torch.allclose(output[0], together[step][image], atol=1e-5)
    found = {"full"} | ({"light"} if refresh > 1 else set()) | ({"reused"} if cached else set())
    assert {kind for row in patterns for kind in row} == found
    if cached:
        assert any(len(set(row)) > 1 for row in patterns), "no step in which the images went different ways"


def test_memory_that_runs_out_while_keeping_costs_a_note_and_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reference_kv = refresh_every(4)

    def full_card(layer: int, *_: object) -> None:
        if layer == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(reference_kv.store, "put", full_card)
    output, _ = run(model, arguments, 0, reference_kv)
    assert torch.equal(output, run(model, arguments, 0, None)[0])
    assert reference_kv.notes == [OUT_OF_MEMORY]
    output, call = run(model, arguments, 1, reference_kv)
    assert kinds(call) == ["full"]
    assert reference_kv.notes == [OUT_OF_MEMORY]
    assert reference_kv.store.held_bytes == 0


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("not enough memory"), MemoryError()]
)
def test_memory_that_runs_out_in_a_step_is_given_back_and_the_step_repeated(error: BaseException) -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reference_kv = refresh_every(4)
    run(model, arguments, 0, reference_kv)

    def once(*_: object) -> None:
        handle.remove()
        raise error

    handle = model.single_blocks[1].register_forward_pre_hook(once)
    output, _ = run(model, moved(arguments, [0.1], 0.4), 1, reference_kv)
    assert torch.equal(output, run(model, moved(arguments, [0.1], 0.4), 1, None)[0])
    assert reference_kv.notes == [OUT_OF_MEMORY]


def test_another_failure_is_passed_on_and_leaves_no_trace() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    attention = small_flux.attention_function
    reference_kv = refresh_every(4)
    run(model, arguments, 0, reference_kv)
    assert untouched(model, attention)

    def explode(*_: object) -> None:
        raise RuntimeError("something else")

    handle = model.single_blocks[1].register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="something else"):
        run(model, arguments, 1, reference_kv)
    handle.remove()
    assert untouched(model, attention)


def test_a_model_without_the_attention_function_computes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reference_kv = refresh_every(4)
    monkeypatch.setattr(ForgeFluxAdapter, "attention_function", "an_older_name")
    outputs = [run(model, arguments, step, reference_kv)[0] for step in range(3)]
    full = run(model, arguments, 0, None)[0]
    assert all(torch.equal(output, full) for output in outputs)
    assert reference_kv.notes == [NO_ATTENTION]


def test_a_hook_that_vanishes_between_steps_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its hook attention would see no references: such a step must be computed again, not shown."""
    model, arguments = SmallFluxTransformer(), inputs()
    reference_kv, cache = refresh_every(4), FirstBlockCache(FirstBlockConfig(0.01))
    run(model, arguments, 0, reference_kv, cache)
    monkeypatch.setattr(ForgeFluxAdapter, "attention_function", "an_older_name")
    later = moved(arguments, [0.5], 0.4)
    output, call = run(model, later, 1, reference_kv, cache)
    assert torch.equal(output, run(model, later, 1, None)[0])
    assert kinds(call) == ["full"]
    assert reference_kv.notes == [NO_ATTENTION]


def test_other_transformers_and_other_threads_are_left_alone() -> None:
    model, other, arguments = SmallFluxTransformer(), SmallFluxTransformer(seed=3), inputs()
    plain = other.inner_forward(**{name: value.clone() for name, value in arguments.items()})
    reference_kv = refresh_every(4)
    run(model, arguments, 0, reference_kv)
    found: list[Tensor] = []

    def meanwhile(*_: object) -> None:
        copies = {name: value.clone() for name, value in arguments.items()}
        found.append(other.inner_forward(**copies))
        thread = threading.Thread(target=lambda: found.append(other.inner_forward(**copies)))
        thread.start()
        thread.join()

    handle = model.single_blocks[0].register_forward_hook(meanwhile)
    run(model, arguments, 1, reference_kv)
    handle.remove()
    assert len(found) == 2
    assert all(torch.equal(output, plain) for output in found)


def test_tiles_keep_nothing() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reference_kv = refresh_every(4)
    run(model, arguments, 0, reference_kv)
    tile = arguments | {"img": arguments["img"][:, :4], "img_ids": arguments["img_ids"][:, :4]}
    session = small_session(model, Caches(reference_kv=reference_kv))
    with session.call([0], Step(1), arguments["timesteps"]) as call:
        model.inner_forward(**tile)
    assert call.tiled
    assert reference_kv.store.held_bytes == 0
    assert kinds(run(model, arguments, 2, reference_kv)[1]) == ["full"]


def test_keys_and_values_in_host_memory_give_the_same_picture() -> None:
    model, arguments = SmallFluxTransformer(), inputs(batch=2)
    reference_kv = refresh_every(8, store=KVStore("host"))
    full, _ = run(model, arguments, 0, reference_kv)
    for step in (1, 2):
        light, call = run(model, arguments, step, reference_kv)
        assert kinds(call) == ["light", "light"]
        assert (light - full).abs().mean() <= 1e-6 * full.abs().mean()


def test_what_is_kept_is_counted() -> None:
    model, arguments = SmallFluxTransformer(), inputs(batch=2)
    reference_kv = refresh_every(8)
    run(model, arguments, 0, reference_kv)
    expected = 2 * 2 * BLOCKS * 5 * 16 * 4  # keys and values, images, blocks, tokens, channels, bytes
    assert reference_kv.usage().peak_bytes == expected == reference_kv.store.held_bytes
    assert reference_kv.usage().refreshes == 2
    reference_kv.clear()
    assert reference_kv.store.held_bytes == 0
    assert reference_kv.usage().peak_bytes == expected
