"""References that run in some steps only: right results, each image as it would be alone, never a failed generation."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.first_block import CacheConfig, FirstBlockCache
from lib_fluxkontext.caching.kv_store import KeptLayers
from lib_fluxkontext.caching.reference_kv import NOT_KEPT, NOT_SEEN, ReferenceReuse, ReuseConfig
from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.hooks.model_call import AppendedReferences, ModelCall
from lib_fluxkontext.hooks.model_hooks import attached
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxLayout
from lib_fluxkontext.references.tokens import ReferenceTokens
from lib_fluxkontext.sampling.factory import Caches
from tests.support import small_flux
from tests.support.small_flux import SmallFluxTransformer, inputs

LAYOUT = ForgeFluxLayout()
IN_PLACE = pytest.mark.parametrize("in_place", [False, True], ids=["new tensors", "in place"])
BLOCKS = 5


def references() -> AppendedReferences:
    g = torch.Generator().manual_seed(7)
    return AppendedReferences(ReferenceTokens(torch.randn(1, 5, 8, generator=g), torch.ones(1, 5, 3), (5,)))


def reuse_every(steps: int, last: bool = False, layers: KeptLayers | None = None) -> ReferenceReuse:
    return ReferenceReuse(ReuseConfig(steps, last), layers or KeptLayers())


def run(
    model: SmallFluxTransformer,
    arguments: dict[str, Tensor],
    step: int,
    reuse: ReferenceReuse | None,
    cache: FirstBlockCache | None = None,
    last: bool = False,
    streams: list[int] | None = None,
) -> tuple[Tensor, ModelCall]:
    batch, tokens = arguments["img"].shape[:2]
    call = ModelCall(
        streams=streams or list(range(batch)),
        step=Step(step, last),
        sigmas=arguments["timesteps"],
        image_tokens=tokens,
        references=references(),
        caches=Caches(cache, reuse),
    )
    with attached(model, LAYOUT, call):
        return model.inner_forward(**{name: value.clone() for name, value in arguments.items()}), call


def moved(arguments: dict[str, Tensor], amounts: list[float], sigma: float) -> dict[str, Tensor]:
    """The same call a step later: each image's tokens changed by its own amount."""
    amount = torch.tensor(amounts)[:, None, None]
    image = arguments["img"] + amount * torch.ones_like(arguments["img"])
    return arguments | {"img": image, "timesteps": torch.full_like(arguments["timesteps"], sigma)}


def kinds(call: ModelCall) -> list[str]:
    return ["reused" if d.reuse else "light" if d.references_kept else "full" for d in call.decisions]


def untouched(model: SmallFluxTransformer, attention: Any) -> bool:
    modules = [model, *model.double_blocks, *model.single_blocks]
    clean = not any("forward" in vars(m) or "inner_forward" in vars(m) for m in modules)
    return clean and small_flux.attention_function is attention


@IN_PLACE
def test_kept_references_replay_the_same_moment_exactly(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs(batch=2)
    reuse = reuse_every(4)
    full, first = run(model, arguments, 0, reuse)
    light, second = run(model, arguments, 1, reuse)
    assert kinds(first) == ["full", "full"]
    assert kinds(second) == ["light", "light"]
    assert torch.allclose(light, full, atol=1e-6)
    assert torch.equal(full, run(model, arguments, 0, None)[0])


@IN_PLACE
def test_a_light_step_sees_the_references(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    reuse = reuse_every(4)
    run(model, arguments, 0, reuse)
    later = moved(arguments, [0.2], 0.4)
    light, _ = run(model, later, 1, reuse)
    full, _ = run(model, later, 1, None)
    without = model.inner_forward(**{name: value.clone() for name, value in later.items()})
    assert (light - full).abs().mean() < 0.2 * (without - full).abs().mean()


def test_refreshes_come_every_so_many_steps_and_at_the_end_if_asked() -> None:
    model, arguments = SmallFluxTransformer(), inputs()

    def pattern(reuse: ReferenceReuse) -> str:
        return "".join(kinds(run(model, arguments, step, reuse, last=step == 7)[1])[0][0] for step in range(8))

    assert pattern(reuse_every(3)) == "fllfllfl"
    assert pattern(reuse_every(3, last=True)) == "fllfllff"
    assert pattern(reuse_every(1)) == "ffffffff"
    assert pattern(reuse_every(100)) == "flllllll"


def test_the_second_call_of_a_step_refreshes_nothing() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reuse = reuse_every(2)
    found = [kinds(run(model, arguments, step, reuse)[1])[0] for step in (0, 0, 1, 1, 2, 2)]
    assert found == ["full", "light", "light", "light", "full", "light"]
    assert reuse.refreshes == 2


def test_where_references_run_in_every_computed_call_one_block_is_kept() -> None:
    """The one that runs in a reused step too: all of FLUX.1's would be 57 times as much."""
    model, arguments = SmallFluxTransformer(), inputs(batch=2)
    reuse, cache = reuse_every(1), FirstBlockCache(CacheConfig(0.5))
    found = [kinds(run(model, arguments, step, reuse, cache)[1]) for step in (0, 0, 1)]
    assert found == [["full", "full"], ["full", "full"], ["reused", "reused"]]
    assert reuse.use().peak_bytes == 2 * 2 * 5 * 16 * 4  # keys and values, images, tokens, channels, bytes
    assert reuse.notes == []


def test_a_reused_step_runs_no_reference_even_when_they_are_due() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reuse, cache = reuse_every(1), FirstBlockCache(CacheConfig(0.5))
    run(model, arguments, 0, reuse, cache)
    seen: list[int] = []
    model.double_blocks[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["img"].shape[1]), with_kwargs=True
    )
    before = model.computed_blocks
    _, call = run(model, arguments, 1, reuse, cache)
    assert kinds(call) == ["reused"]
    assert seen == [arguments["img"].shape[1]]
    assert model.computed_blocks == before + 1
    _, call = run(model, moved(arguments, [9.0], 0.4), 2, reuse, cache)
    assert kinds(call) == ["full"]


@IN_PLACE
@pytest.mark.parametrize("cached", [True, False], ids=["with First Block Cache", "alone"])
@pytest.mark.parametrize("forecast", [True, False], ids=["forecast", "no forecast"])
@pytest.mark.parametrize("refresh", [1, 5])
def test_a_batch_equals_its_images_alone(in_place: bool, cached: bool, forecast: bool, refresh: int) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs(batch=3)
    amounts = [[0, 0, 0], [0.01, 0.4, 0.01], [0.02, 0.41, 0.5], [0.6, 0.42, 0.51], [0.61, 0.9, 0.52], [0.62, 0.91, 1.2]]

    def cache() -> FirstBlockCache | None:
        return FirstBlockCache(CacheConfig(0.1, forecast=forecast)) if cached else None

    together, patterns = [], []
    reuse, state = reuse_every(refresh), cache()
    for step, amount in enumerate(amounts):
        output, call = run(model, moved(arguments, amount, 0.5 - 0.01 * step), step, reuse, state)
        together.append(output)
        patterns.append(kinds(call))
    for image in range(3):
        one = {name: value[image : image + 1] for name, value in arguments.items()}
        reuse, state = reuse_every(refresh), cache()
        for step, amount in enumerate(amounts):
            output, call = run(model, moved(one, amount[image : image + 1], 0.5 - 0.01 * step), step, reuse, state)
            assert kinds(call) == [patterns[step][image]]
            assert torch.allclose(output[0], together[step][image], atol=1e-5)
    found = {"full"} | ({"light"} if refresh > 1 else set()) | ({"reused"} if cached else set())
    assert {kind for row in patterns for kind in row} == found
    if cached:
        assert any(len(set(row)) > 1 for row in patterns), "no step in which the images went different ways"


def test_memory_that_runs_out_while_keeping_costs_a_note_and_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reuse = reuse_every(4)

    def full_card(layer: int, *_: object) -> None:
        if layer == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(reuse.layers, "put", full_card)
    output, _ = run(model, arguments, 0, reuse)
    assert torch.equal(output, run(model, arguments, 0, None)[0])
    assert reuse.notes == [NOT_KEPT]
    output, call = run(model, arguments, 1, reuse)
    assert kinds(call) == ["full"]
    assert reuse.notes == [NOT_KEPT]
    assert reuse.layers.held_bytes == 0


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("not enough memory"), MemoryError()]
)
def test_memory_that_runs_out_in_a_step_is_given_back_and_the_step_repeated(error: BaseException) -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reuse = reuse_every(4)
    run(model, arguments, 0, reuse)

    def once(*_: object) -> None:
        handle.remove()
        raise error

    handle = model.single_blocks[1].register_forward_pre_hook(once)
    output, _ = run(model, moved(arguments, [0.1], 0.4), 1, reuse)
    assert torch.equal(output, run(model, moved(arguments, [0.1], 0.4), 1, None)[0])
    assert reuse.notes == [NOT_KEPT]


def test_another_failure_is_passed_on_and_leaves_no_trace() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    attention = small_flux.attention_function
    reuse = reuse_every(4)
    run(model, arguments, 0, reuse)
    assert untouched(model, attention)

    def explode(*_: object) -> None:
        raise RuntimeError("something else")

    handle = model.single_blocks[1].register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="something else"):
        run(model, arguments, 1, reuse)
    handle.remove()
    assert untouched(model, attention)


def test_a_model_without_the_attention_function_computes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reuse = reuse_every(4)
    monkeypatch.setattr(ForgeFluxLayout, "attention_function", "an_older_name")
    outputs = [run(model, arguments, step, reuse)[0] for step in range(3)]
    full = run(model, arguments, 0, None)[0]
    assert all(torch.equal(output, full) for output in outputs)
    assert reuse.notes == [NOT_SEEN]


def test_a_hook_that_vanishes_between_steps_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its hook attention would see no references: such a step must be computed again, not shown."""
    model, arguments = SmallFluxTransformer(), inputs()
    reuse, cache = reuse_every(4), FirstBlockCache(CacheConfig(0.01))
    run(model, arguments, 0, reuse, cache)
    monkeypatch.setattr(ForgeFluxLayout, "attention_function", "an_older_name")
    later = moved(arguments, [0.5], 0.4)
    output, call = run(model, later, 1, reuse, cache)
    assert torch.equal(output, run(model, later, 1, None)[0])
    assert kinds(call) == ["full"]
    assert reuse.notes == [NOT_SEEN]


def test_other_transformers_and_other_threads_are_left_alone() -> None:
    model, other, arguments = SmallFluxTransformer(), SmallFluxTransformer(seed=3), inputs()
    plain = other.inner_forward(**{name: value.clone() for name, value in arguments.items()})
    reuse = reuse_every(4)
    run(model, arguments, 0, reuse)
    found: list[Tensor] = []

    def meanwhile(*_: object) -> None:
        copies = {name: value.clone() for name, value in arguments.items()}
        found.append(other.inner_forward(**copies))
        thread = threading.Thread(target=lambda: found.append(other.inner_forward(**copies)))
        thread.start()
        thread.join()

    handle = model.single_blocks[0].register_forward_hook(meanwhile)
    run(model, arguments, 1, reuse)
    handle.remove()
    assert len(found) == 2
    assert all(torch.equal(one, plain) for one in found)


def test_tiles_keep_nothing() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    reuse = reuse_every(4)
    run(model, arguments, 0, reuse)
    tile = arguments | {"img": arguments["img"][:, :4], "img_ids": arguments["img_ids"][:, :4]}
    call = ModelCall([0], Step(1), arguments["timesteps"], 6, references(), Caches(reuse=reuse))
    with attached(model, LAYOUT, call):
        model.inner_forward(**tile)
    assert call.tiled
    assert reuse.layers.held_bytes == 0
    assert kinds(run(model, arguments, 2, reuse)[1]) == ["full"]


@pytest.mark.parametrize(
    ("layers", "within"),
    [(KeptLayers("host"), 1e-6), (KeptLayers(float8=True), 0.02), (KeptLayers("host", True), 0.02)],
    ids=["host", "float8", "host, float8"],
)
def test_other_places_and_formats_give_the_same_picture(layers: KeptLayers, within: float) -> None:
    model, arguments = SmallFluxTransformer(), inputs(batch=2)
    reuse = reuse_every(8, layers=layers)
    full, _ = run(model, arguments, 0, reuse)
    for step in (1, 2):
        light, call = run(model, arguments, step, reuse)
        assert kinds(call) == ["light", "light"]
        assert (light - full).abs().mean() <= within * full.abs().mean()


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "DefaultCPUAllocator: can't allocate memory", "not enough memory"]
)
def test_where_no_more_memory_can_be_pinned_plain_memory_serves(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    empty, asked = torch.empty, []

    def empty_unpinned(*shape: Any, pin_memory: bool = False, **rest: Any) -> Tensor:
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError(words)
        return empty(*shape, **rest)

    monkeypatch.setattr(torch, "empty", empty_unpinned)
    layers, one = KeptLayers("host"), torch.zeros(2, 3, dtype=torch.bfloat16)
    for _ in range(2):
        room = layers._host(one)
        assert (room.shape, room.dtype, room.device.type) == (one.shape, one.dtype, "cpu")
    assert asked == [True, False, False]  # it is not tried for every block


def test_another_failure_to_pin_is_not_taken_for_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "empty", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        KeptLayers("host")._host(torch.zeros(1))


def test_what_is_kept_is_counted() -> None:
    model, arguments = SmallFluxTransformer(), inputs(batch=2)
    reuse = reuse_every(8)
    run(model, arguments, 0, reuse)
    expected = 2 * 2 * BLOCKS * 5 * 16 * 4  # keys and values, images, blocks, tokens, channels, bytes
    assert reuse.use().peak_bytes == expected == reuse.layers.held_bytes
    assert reuse.use().refreshes == 2
    reuse.clear()
    assert reuse.layers.held_bytes == 0
    assert reuse.use().peak_bytes == expected


def test_images_that_part_ways_hold_no_old_batch() -> None:
    layers = KeptLayers()
    layers.put(0, ["a", "b"], torch.zeros(2, 1, 4, 8), torch.zeros(2, 1, 4, 8))
    whole = layers.held_bytes
    layers.put(0, ["a"], torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8))
    assert layers.held_bytes == whole
    keys, _ = layers.get(0, ["b", "a"], torch.device("cpu"))
    assert keys[0].max() == 0
    assert keys[1].min() == 1
    layers.drop(["a"])
    assert layers.held_bytes == whole // 2
    assert layers.count("b") == 1
    assert layers.count("a") == 0
