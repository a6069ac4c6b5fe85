"""The hooks on Forge Neo's transformer: references that it appends itself, residuals between blocks, step skippers."""

from __future__ import annotations

import sys
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.kv_store import KVStore
from lib_fluxkontext.caching.reference_kv import ReferenceKVCache, ReferenceKVConfig
from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hosts.forge.runtime.adapter import (
    BLOCKS_PATCHED,
    CONTROLLED,
    NeoFluxAdapter,
    flux_adapter,
    why_no_references,
    why_not_hooked,
)
from lib_fluxkontext.references.placement import position_ids
from lib_fluxkontext.references.tokens import reference_tokens
from lib_fluxkontext.sampling.session import SKIPPED, TILED, SamplingSession
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_neo_flux import SmallNeoFluxTransformer, dynamic_args
from tests.support.small_session import small_references, small_session

HOST_TOKENS = 2 * 3 + 4 * 1
"""Of the references below."""


@pytest.fixture(autouse=True)
def host_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two references that Neo appends: latents of 4×6 and 8×2 pixels."""
    monkeypatch.setitem(sys.modules, "backend.args", SimpleNamespace(dynamic_args=dynamic_args))
    generator = torch.Generator().manual_seed(3)
    latents = [torch.randn(1, 16, 4, 6, generator=generator), torch.randn(1, 16, 8, 2, generator=generator)]
    monkeypatch.setattr(dynamic_args, "ref_latents", latents)


def caches(threshold: float | None = 0.5, refresh: int | None = None) -> Caches:
    return Caches(
        FirstBlockCache(FirstBlockConfig(threshold)) if threshold is not None else None,
        ReferenceKVCache(ReferenceKVConfig(refresh), KVStore()) if refresh is not None else None,
    )


def session_of(model: SmallNeoFluxTransformer, kept: Caches, ours: bool = False) -> SamplingSession:
    return small_session(model, kept, references=ours, adapter=NeoFluxAdapter())


def run(
    session: SamplingSession, model: SmallNeoFluxTransformer, arguments: dict[str, Any], step: int = 0
) -> tuple[Tensor, ModelCall]:
    copies = {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    with session.call(range(arguments["img"].shape[0]), Step(step), arguments["timesteps"]) as call:
        return model(**copies), call


def moved(step: int, batch: int = 1) -> dict[str, Tensor]:
    arguments = inputs(batch=batch)
    return arguments | {"img": arguments["img"] + 0.1 * step}


def test_each_host_has_its_adapter() -> None:
    neo = flux_adapter(SmallNeoFluxTransformer())
    assert isinstance(neo, NeoFluxAdapter)
    assert neo.host_reference_tokens(SmallNeoFluxTransformer()) == HOST_TOKENS
    assert neo.host_reference_grids(SmallNeoFluxTransformer()) == [(2, 3), (4, 1)]
    forge = flux_adapter(SmallFluxTransformer())
    assert forge is not None
    assert not isinstance(forge, NeoFluxAdapter)
    assert forge.host_reference_tokens(SmallFluxTransformer()) == 0


@pytest.mark.parametrize("refresh", [None, 1])
def test_measuring_with_neos_references_is_bit_identical_to_off(refresh: int | None) -> None:
    model = SmallNeoFluxTransformer()
    session = session_of(model, caches(1e-9, refresh))
    for step in range(3):
        arguments = moved(step, batch=2)
        with torch.no_grad():
            plain = model(**{name: value.clone() for name, value in arguments.items()})
            assert torch.equal(run(session, model, arguments, step)[0], plain)


@torch.no_grad()
def test_a_hit_runs_one_block_and_gives_what_was_computed() -> None:
    model = SmallNeoFluxTransformer()
    session = session_of(model, caches(0.9))
    computed, _ = run(session, model, moved(0))
    before = model.computed_blocks
    again, call = run(session, model, moved(0), 1)
    assert model.computed_blocks - before == 1
    assert [decision.reuse for decision in call.decisions] == [True]
    assert torch.allclose(again, computed, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("ours", [False, True], ids=["Neo's alone", "with ours"])
def test_kept_references_do_not_run_and_are_still_seen(ours: bool) -> None:
    model = SmallNeoFluxTransformer()
    session = session_of(model, caches(None, refresh=4), ours)
    lengths: list[int] = []
    model.double_blocks[0].register_forward_hook(
        lambda block, args, kwargs, output: lengths.append(kwargs["img"].shape[1]), with_kwargs=True
    )
    computed, _ = run(session, model, moved(0))
    with_kept, call = run(session, model, moved(0), 1)
    assert lengths == [6 + HOST_TOKENS + (5 if ours else 0), 6]
    assert [decision.cached_references for decision in call.decisions] == [True]
    assert torch.allclose(with_kept, computed, atol=1e-5)
    dynamic_args.ref_latents = []
    without, _ = run(small_session(model, references=ours, adapter=NeoFluxAdapter()), model, moved(0))
    assert not torch.allclose(without, computed, atol=1e-3)


@torch.no_grad()
def test_ours_stand_behind_neos() -> None:
    model, arguments = SmallNeoFluxTransformer(), inputs(batch=2)
    got, _ = run(session_of(model, Caches(), ours=True), model, arguments)
    seen: dict[str, Tensor] = {}
    forward_orig = model.forward_orig

    @wraps(forward_orig)
    def spy(**kwargs: Any) -> Tensor:
        seen.update(kwargs)
        return forward_orig(**kwargs)

    model.forward_orig = spy  # type: ignore[method-assign]
    again, _ = run(session_of(model, Caches(), ours=True), model, arguments)
    ours = small_references()
    assert torch.equal(got, again)
    assert seen["img"].shape[1] == 6 + HOST_TOKENS + 5
    assert torch.equal(seen["img"][:, -5:], ours.tokens.expand(2, -1, -1))
    assert torch.equal(seen["img_ids"][:, -5:], ours.ids.expand(2, -1, -1))


def test_the_init_image_is_neos_only_where_there_is_one_more_than_stitched() -> None:
    engine = SimpleNamespace(ref_latents=dynamic_args.ref_latents[:1])
    assert NeoFluxAdapter().has_init_image(engine)
    engine.ref_latents = dynamic_args.ref_latents
    assert not NeoFluxAdapter().has_init_image(engine)  # a second prompt has used it up


def test_offsets_go_on_from_neos() -> None:
    latents = [torch.zeros(1, 16, 8, 12), torch.zeros(1, 16, 6, 4)]
    alone, behind = (
        reference_tokens(latents),
        reference_tokens(latents[1:], partial(position_ids, "offset", placed=[(4, 6)])),
    )
    assert torch.equal(behind.ids, alone.ids[:, 4 * 6 :])
    assert behind.counts == (6,)


@torch.no_grad()
def test_images_of_a_batch_that_part_ways_are_as_they_would_be_alone() -> None:
    model = SmallNeoFluxTransformer()
    amounts = torch.tensor([0.0, 2.0])[:, None, None]
    first, second = inputs(batch=2), inputs(batch=2)
    second["img"] = second["img"] + amounts
    together = session_of(model, caches(0.3, refresh=3))
    run(together, model, first)
    both, call = run(together, model, second, 1)
    assert [decision.reuse for decision in call.decisions] == [True, False]
    for row in range(2):
        alone = session_of(model, caches(0.3, refresh=3))
        run(alone, model, {name: value[row : row + 1] for name, value in first.items()})
        one, _ = run(alone, model, {name: value[row : row + 1] for name, value in second.items()}, 1)
        assert torch.allclose(both[row : row + 1], one, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("extra", "note"),
    [
        ({"control": {"input": [torch.full((1, 6, 16), 0.2)] * 2, "output": []}}, CONTROLLED),
        ({"transformer_options": {"patches_replace": {"dit": {("double_block", 0): print}}}}, BLOCKS_PATCHED),
        ({"transformer_options": {"patches": {"post_input": [print]}}}, BLOCKS_PATCHED),
    ],
    ids=["ControlNet", "a replaced block", "patched input"],
)
def test_what_others_do_between_the_blocks_is_never_lost(extra: dict[str, Any], note: str) -> None:
    model = SmallNeoFluxTransformer()
    session = session_of(model, caches(0.9, refresh=4))
    run(session, model, moved(0))
    plain = model(**{name: value.clone() for name, value in moved(0).items()}, **extra)
    assert torch.equal(run(session, model, moved(0) | extra, 1)[0], plain)
    _, call = run(session, model, moved(0), 2)  # what was kept before is forgotten: this one is computed
    assert not any(decision.reuse or decision.cached_references for decision in call.decisions)
    assert list(session.close().notes) == [note]


@torch.no_grad()
def test_a_tile_has_neos_references_and_no_cache() -> None:
    model = SmallNeoFluxTransformer()
    session = session_of(model, caches(0.9, refresh=4))
    tile = {name: value[:, :4] if name.startswith("img") else value for name, value in inputs().items()}
    plain = model(**{name: value.clone() for name, value in tile.items()})
    assert torch.equal(run(session, model, tile)[0], plain)
    assert list(session.close().notes) == [TILED]


@torch.no_grad()
def test_another_step_skipper_makes_the_caches_stand_aside() -> None:
    model = SmallNeoFluxTransformer()
    session = session_of(model, caches(0.9))
    run(session, model, moved(0))
    with session.call([0], Step(1), torch.tensor([0.5])):
        pass  # it forecast this step, and the model did not run
    _, call = run(session, model, moved(0), 2)
    assert call.decisions == []
    assert list(session.close().notes) == [SKIPPED]


class SVDQFluxTransformer2DModel(torch.nn.Module):
    """As Neo's, which has its blocks inside of another model."""


class IntegratedChromaTransformer2DModel(SmallNeoFluxTransformer):
    """With FLUX's lists of blocks, as Chroma has them."""


@pytest.mark.parametrize(
    ("transformer", "why"),
    [(SVDQFluxTransformer2DModel, "Nunchaku"), (IntegratedChromaTransformer2DModel, "is not FLUX")],
)
def test_what_only_looks_like_flux_is_never_hooked(transformer: type[torch.nn.Module], why: str) -> None:
    model = transformer()
    assert flux_adapter(model) is None
    assert why in why_not_hooked(model, "Flux")


@torch.no_grad()
@pytest.mark.parametrize("refresh", [None, 3])
def test_a_step_cache_inside_the_transformer_makes_ours_stand_aside(refresh: int | None) -> None:
    """TeaCache and others replace the forward of the class, and leave the blocks out of some steps."""
    model = SmallNeoFluxTransformer()
    session = session_of(model, caches(0.9, refresh))
    forward_orig, skips = model.forward_orig, []

    @wraps(forward_orig)
    def skipping(*args: Any, **kwargs: Any) -> Tensor:
        image = args[0] if args else kwargs["img"]
        return torch.zeros_like(image) if skips else forward_orig(*args, **kwargs)

    model.forward_orig = skipping  # type: ignore[method-assign]
    run(session, model, moved(0))
    skips.append(True)
    output, _ = run(session, model, moved(0), 1)
    assert not output.any()
    skips.clear()
    _, call = run(session, model, moved(0), 2)
    assert call.decisions == []
    report = session.close()
    assert list(report.notes) == [SKIPPED]
    assert (report.key_values is not None) == (refresh is not None)  # what was kept before is still told


def test_relatives_of_flux_1_take_no_references_of_ours() -> None:
    flux = SimpleNamespace(in_channels=64, global_modulation=False, txt_ids_dims=[])
    assert why_no_references(flux) is None
    for change in ({"in_channels": 384}, {"global_modulation": True}, {"txt_ids_dims": [3]}):
        assert why_no_references(SimpleNamespace(**{**vars(flux), **change})) is not None


@torch.no_grad()
def test_a_compiler_is_kept_out_of_the_hooks() -> None:
    """Neo compiles the transformer anew in each call; hooks that decide by values would be traced each time."""
    import torch._dynamo

    torch._dynamo.reset()
    plain, compiled = SmallNeoFluxTransformer(), SmallNeoFluxTransformer()
    sessions = [session_of(model, caches(0.3, refresh=3)) for model in (plain, compiled)]
    for step in range(4):
        expected, _ = run(sessions[0], plain, moved(step), step)
        arguments = {name: value.clone() for name, value in moved(step).items()}
        with sessions[1].call([0], Step(step), arguments["timesteps"]):
            assert torch.equal(torch.compile(compiled, backend="eager")(**arguments), expected)
    assert torch._dynamo.utils.counters["frames"]["total"] <= 2
