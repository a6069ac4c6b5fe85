"""The hooks: right results, each image as it would be alone, and no trace afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.sample_key import Decision, Step
from lib_fluxkontext.sampling.session import TILED, SamplingSession
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_session import run_step, small_references, small_session

IN_PLACE = pytest.mark.parametrize("in_place", [False, True], ids=["new tensors", "in place"])


def cached_session(model: SmallFluxTransformer, threshold: float, references: bool = True) -> SamplingSession:
    """A session with First Block Cache."""
    return small_session(model, Caches(FirstBlockCache(FirstBlockConfig(threshold))), references)


def plain_output(model: SmallFluxTransformer, arguments: dict[str, Tensor]) -> Tensor:
    """The model's own forward, unhooked."""
    return model.inner_forward(**{name: value.clone() for name, value in arguments.items()})


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
    plain = plain_output(model, arguments)
    with_references, _ = run_step(small_session(model), model, arguments)
    assert with_references.shape == plain.shape
    assert not torch.allclose(with_references, plain, atol=1e-3)
    by_hand = arguments | {
        "img": torch.cat((arguments["img"], small_references().tokens), 1),
        "img_ids": torch.cat((arguments["img_ids"], small_references().ids), 1),
    }
    assert torch.equal(with_references, model.inner_forward(**by_hand)[:, :6])


@IN_PLACE
@pytest.mark.parametrize("references", [False, True], ids=["no references", "references"])
def test_a_measuring_cache_changes_nothing(in_place: bool, references: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs(batch=2)
    measuring = cached_session(model, 1e-9, references)
    without_cache = small_session(model, references=references)
    for step in range(3):
        now = moved(arguments, [0.1 * step, 0.2 * step])
        measured, _ = run_step(measuring, model, now, step)
        expected, _ = run_step(without_cache, model, now, step)
        assert torch.equal(measured, expected)


@IN_PLACE
def test_a_hit_runs_one_block_and_adds_the_stored_residual(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    session = cached_session(model, 0.9)
    computed, _ = run_step(session, model, arguments, 0)
    before = model.computed_blocks
    again, call = run_step(session, model, arguments, 1)
    assert model.computed_blocks - before == 1
    assert [decision.reuse for decision in call.decisions] == [True]
    assert call.decisions[0].distance == 0
    # Nothing changed between the two steps, so the reused one is the computed one.
    assert torch.allclose(again, computed, atol=1e-5)


@IN_PLACE
def test_a_reused_step_is_the_fresh_first_block_plus_the_old_rest(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    session = cached_session(model, 0.9)
    run_step(session, model, arguments, 0)
    later = moved(arguments, [0.05])
    reused, _ = run_step(session, model, later, 1)

    def first_and_rest(a: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """By hand, through the blocks as they are: first block's output and what the rest adds."""
        ids = torch.cat((a["txt_ids"], a["img_ids"], small_references().ids), 1)
        img = model.img_in(torch.cat((a["img"], small_references().tokens), 1))
        txt, vec, pe = model.txt_in(a["txt"]), a["y"] + a["timesteps"][:, None], model.pe_in(ids / 10)
        img, txt = model.double_blocks[0](img=img, txt=txt, vec=vec, pe=pe)
        first = img[:, :6].clone()
        img, txt = model.double_blocks[1](img=img, txt=txt, vec=vec, pe=pe)
        x = torch.cat((txt, img), 1)
        for block in model.single_blocks:
            x = block(x, vec=vec, pe=pe)
        return first, x[:, 4:10] - first

    expected = model.final_layer(first_and_rest(later)[0] + first_and_rest(arguments)[1])
    assert torch.allclose(reused, expected, atol=1e-5)


@IN_PLACE
@pytest.mark.parametrize("references", [False, True], ids=["no references", "references"])
def test_a_batch_that_splits_equals_its_images_alone(in_place: bool, references: bool) -> None:
    """Over several steps in which some images hit and others miss, in changing patterns."""
    amounts = [[0.0, 0.0, 0.0], [0.001, 1.0, 0.001], [0.002, 1.001, 2.0], [3.0, 1.002, 2.001], [3.001, 5.0, 2.002]]
    arguments = inputs(batch=3)
    model = SmallFluxTransformer(in_place=in_place)
    together, patterns = [], []
    session = cached_session(model, 0.05, references)
    for step, amount in enumerate(amounts):
        output, call = run_step(session, model, moved(arguments, amount), step)
        together.append(output)
        patterns.append(tuple(decision.reuse for decision in call.decisions))
    assert any(any(pattern) and not all(pattern) for pattern in patterns), patterns
    for image in range(3):
        session = cached_session(model, 0.05, references)
        for step, amount in enumerate(amounts):
            now = {name: value[image : image + 1] for name, value in moved(arguments, amount).items()}
            alone, call = run_step(session, model, now, step)
            assert call.decisions[0].reuse == patterns[step][image]
            assert torch.allclose(alone[0], together[step][image], atol=1e-5)


@pytest.mark.parametrize("references", [False, True], ids=["no references", "references"])
def test_the_cache_is_asked_about_the_tokens_of_the_generated_image_alone(
    monkeypatch: pytest.MonkeyPatch, references: bool
) -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    measured: list[tuple[int, ...]] = []
    decide = FirstBlockCache.decide

    def spy(cache: FirstBlockCache, samples: list[int], step: Step, sigmas: Tensor, residual: Tensor) -> list[Decision]:
        measured.append(tuple(residual.shape))
        return decide(cache, samples, step, sigmas, residual)

    monkeypatch.setattr(FirstBlockCache, "decide", spy)
    run_step(cached_session(model, 1.0, references), model, arguments)
    assert measured == [(1, arguments["img"].shape[1], 16)]


@IN_PLACE
def test_a_failure_inside_leaves_no_trace(in_place: bool) -> None:
    model, arguments = SmallFluxTransformer(in_place=in_place), inputs()
    plain = plain_output(model, arguments)

    def explode(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = model.single_blocks[1].register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_step(cached_session(model, 0.1), model, arguments)
    handle.remove()
    assert untouched(model)
    assert torch.equal(plain_output(model, arguments), plain)


def test_nothing_is_patched_without_references_and_caches() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    with small_session(model, references=False).call([0], Step(0), arguments["timesteps"]):
        assert untouched(model)


def test_a_forward_that_another_extension_set_on_the_instance_comes_back() -> None:
    model, arguments = SmallFluxTransformer(), inputs()

    def theirs(**kwargs: Tensor) -> Tensor:
        return model.__class__.inner_forward(model, **kwargs)

    model.inner_forward = theirs
    run_step(small_session(model), model, arguments)
    assert vars(model)["inner_forward"] is theirs


def test_tiles_are_not_cached_and_the_report_says_so() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    cache = FirstBlockCache(FirstBlockConfig(1.0))
    session = small_session(model, Caches(cache), image_tokens=12)  # the whole image; the model is called on halves
    with session.call([0], Step(0), arguments["timesteps"]) as call:
        first = model.inner_forward(**arguments)
        second = model.inner_forward(**arguments)
    assert call.forwards == 2
    assert call.decisions == []
    assert torch.equal(first, second)
    assert session.close().notes == (TILED,)


def test_another_token_width_says_so() -> None:
    model, arguments = SmallFluxTransformer(), inputs()
    wide = arguments | {"img": torch.randn(1, 6, 24)}
    with pytest.raises(ValueError, match="24 channels"):
        run_step(small_session(model), model, wide)
