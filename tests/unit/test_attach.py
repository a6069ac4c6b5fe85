"""The hooks: right results, each image as it would be alone, and no trace afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.first_block import CacheConfig, FirstBlockCache
from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.hooks.model_call import AppendedReferences, ModelCall
from lib_fluxkontext.hooks.model_hooks import attached
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxLayout
from lib_fluxkontext.references.tokens import ReferenceTokens
from lib_fluxkontext.sampling.factory import Caches
from tests.support.small_flux import SmallFluxTransformer, inputs

LAYOUT = ForgeFluxLayout()
IN_PLACE = pytest.mark.parametrize("in_place", [False, True], ids=["new tensors", "in place"])


def references(tokens: int = 5) -> AppendedReferences:
    g = torch.Generator().manual_seed(7)
    return AppendedReferences(
        ReferenceTokens(torch.randn(1, tokens, 8, generator=g), torch.ones(1, tokens, 3), (tokens,))
    )


def call_for(arguments: dict[str, Tensor], cache: FirstBlockCache | None, step: int, refs: bool = True) -> ModelCall:
    batch, tokens = arguments["img"].shape[:2]
    return ModelCall(
        streams=list(range(batch)),
        step=Step(step),
        sigmas=arguments["timesteps"],
        image_tokens=tokens,
        references=references() if refs else None,
        caches=Caches(cache),
    )


def run(model: SmallFluxTransformer, arguments: dict[str, Tensor], call: ModelCall) -> Tensor:
    copies = {name: value.clone() for name, value in arguments.items()}
    with attached(model, LAYOUT, call):
        return model.inner_forward(**copies)


def moved(arguments: dict[str, Tensor], amounts: list[float]) -> dict[str, Tensor]:
    """The same call a step later: each image's tokens changed by its own amount."""
    amount = torch.tensor(amounts)[:, None, None]
    return arguments | {"img": arguments["img"] + amount * torch.ones_like(arguments["img"])}


def untouched(model: SmallFluxTransformer) -> bool:
    modules = [model, *model.double_blocks, *model.single_blocks]
    return not any("forward" in vars(m) or "inner_forward" in vars(m) for m in modules)


@IN_PLACE
def test_references_reach_the_image_and_are_cut_off_again(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    plain = model.inner_forward(**{k: v.clone() for k, v in arguments.items()})
    with_references = run(model, arguments, call_for(arguments, None, 0))
    assert with_references.shape == plain.shape
    assert not torch.allclose(with_references, plain, atol=1e-3)
    by_hand = arguments | {
        "img": torch.cat((arguments["img"], references().source.tokens), 1),
        "img_ids": torch.cat((arguments["img_ids"], references().source.ids), 1),
    }
    assert torch.equal(with_references, model.inner_forward(**by_hand)[:, :6])


@IN_PLACE
@pytest.mark.parametrize("refs", [False, True], ids=["no references", "references"])
def test_a_measuring_cache_changes_nothing(in_place: bool, refs: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs(batch=2)
    cache = FirstBlockCache(CacheConfig(1e-9))
    for step in range(3):
        now = moved(arguments, [0.1 * step, 0.2 * step])
        assert torch.equal(
            run(model, now, call_for(now, cache, step, refs)), run(model, now, call_for(now, None, step, refs))
        )


@IN_PLACE
def test_a_hit_runs_one_block_and_adds_the_stored_residual(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    cache = FirstBlockCache(CacheConfig(0.9))
    computed = run(model, arguments, call_for(arguments, cache, 0))
    before = model.computed_blocks
    call = call_for(arguments, cache, 1)
    again = run(model, arguments, call)
    assert model.computed_blocks - before == 1
    assert [decision.reuse for decision in call.decisions] == [True]
    assert call.decisions[0].distance == 0
    # Nothing changed between the two steps, so the reused one is the computed one.
    assert torch.allclose(again, computed, atol=1e-5)


@IN_PLACE
def test_a_reused_step_is_the_fresh_first_block_plus_the_old_rest(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    cache = FirstBlockCache(CacheConfig(0.9))
    run(model, arguments, call_for(arguments, cache, 0))
    later = moved(arguments, [0.05])
    got = run(model, later, call_for(later, cache, 1))

    def first_and_rest(a: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """By hand, through the blocks as they are: first block's output and what the rest adds."""
        ids = torch.cat((a["txt_ids"], a["img_ids"], references().source.ids), 1)
        img = model.img_in(torch.cat((a["img"], references().source.tokens), 1))
        txt, vec, pe = model.txt_in(a["txt"]), a["y"] + a["timesteps"][:, None], model.pe_in(ids / 10)
        img, txt = model.double_blocks[0](img=img, txt=txt, vec=vec, pe=pe)
        first = img[:, :6].clone()
        img, txt = model.double_blocks[1](img=img, txt=txt, vec=vec, pe=pe)
        x = torch.cat((txt, img), 1)
        for block in model.single_blocks:
            x = block(x, vec=vec, pe=pe)
        return first, x[:, 4:10] - first

    expected = model.final_layer(first_and_rest(later)[0] + first_and_rest(arguments)[1])
    assert torch.allclose(got, expected, atol=1e-5)


@IN_PLACE
@pytest.mark.parametrize("refs", [False, True], ids=["no references", "references"])
def test_a_batch_that_splits_equals_its_images_alone(in_place: bool, refs: bool) -> None:
    """Over several steps in which some images hit and others miss, in changing patterns."""
    amounts = [[0.0, 0.0, 0.0], [0.001, 1.0, 0.001], [0.002, 1.001, 2.0], [3.0, 1.002, 2.001], [3.001, 5.0, 2.002]]
    arguments = inputs(batch=3)
    model = SmallFluxTransformer(in_place=in_place)
    together, together_cache, patterns = [], FirstBlockCache(CacheConfig(0.05)), []
    for step, amount in enumerate(amounts):
        now = moved(arguments, amount)
        call = call_for(now, together_cache, step, refs)
        together.append(run(model, now, call))
        patterns.append(tuple(decision.reuse for decision in call.decisions))
    assert any(any(pattern) and not all(pattern) for pattern in patterns), patterns
    for image in range(3):
        cache = FirstBlockCache(CacheConfig(0.05))
        for step, amount in enumerate(amounts):
            now = {name: value[image : image + 1] for name, value in moved(arguments, amount).items()}
            call = call_for(now, cache, step, refs)
            alone = run(model, now, call)
            assert call.decisions[0].reuse == patterns[step][image]
            assert torch.allclose(alone[0], together[step][image], atol=1e-5)


def test_the_metric_reads_the_generated_image_alone() -> None:
    """The same change of the image means the same distance with and without references in the comparison."""
    model, arguments = SmallFluxTransformer(), inputs()
    cache = FirstBlockCache(CacheConfig(1.0))
    run(model, arguments, call_for(arguments, cache, 0))
    kept = cache._kept([0])
    assert kept.first_residual.shape[1] == arguments["img"].shape[1]


@IN_PLACE
def test_a_failure_inside_leaves_no_trace(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    plain = model.inner_forward(**{k: v.clone() for k, v in arguments.items()})

    def explode(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = model.single_blocks[1].register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(model, arguments, call_for(arguments, FirstBlockCache(CacheConfig(0.1)), 0))
    handle.remove()
    assert untouched(model)
    assert torch.equal(model.inner_forward(**{k: v.clone() for k, v in arguments.items()}), plain)


def test_nothing_is_replaced_where_nothing_is_asked() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    with attached(model, LAYOUT, call_for(arguments, None, 0, refs=False)):
        assert untouched(model)


def test_a_replacement_that_was_there_comes_back() -> None:
    model, arguments = SmallFluxTransformer(), inputs()

    def mine(**kwargs: Tensor) -> Tensor:
        return model.__class__.inner_forward(model, **kwargs)

    model.inner_forward = mine
    run(model, arguments, call_for(arguments, None, 0))
    assert vars(model)["inner_forward"] is mine


def test_tiles_are_not_cached() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    cache = FirstBlockCache(CacheConfig(1.0))
    call = call_for(arguments, cache, 0)
    call.image_tokens = 12  # the whole picture; the model is called on halves
    with attached(model, LAYOUT, call):
        first = model.inner_forward(**arguments)
        second = model.inner_forward(**arguments)
    assert call.forwards == 2
    assert call.decisions == []
    assert torch.equal(first, second)


def test_another_token_width_says_so() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    wide = arguments | {"img": torch.randn(1, 6, 24)}
    with pytest.raises(ValueError, match="24 channels"):
        run(model, wide, call_for(wide, None, 0))
