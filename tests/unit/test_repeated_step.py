"""A step in which memory ran out is repeated without the references' cache, as if it had not been tried."""

from __future__ import annotations

import torch

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.kv_store import KVStore
from lib_fluxkontext.caching.reference_kv import ReferenceKVCache, ReferenceKVConfig
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_session import run_step, small_session


def test_nothing_of_the_first_try_is_reused() -> None:
    """The first image ran on cached references and was stored when memory ran out at the second."""
    model = SmallFluxTransformer()
    first_block, reference_kv = (
        FirstBlockCache(FirstBlockConfig(0.01)),
        ReferenceKVCache(ReferenceKVConfig(4), KVStore()),
    )
    session = small_session(model, Caches(first_block, reference_kv))
    run_step(session, model, inputs(), 0, samples=["a"])
    later = inputs(batch=2)
    later |= {"img": later["img"] + 0.5, "timesteps": torch.full((2,), 0.4)}
    runs: list[int] = []

    def full_at_the_second(*_: object) -> None:
        runs.append(1)
        if len(runs) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    model.single_blocks[1].register_forward_pre_hook(full_at_the_second)
    output, call = run_step(session, model, later, 1, samples=["a", "b"])
    assert len(runs) > 2
    assert not any(decision.reuse or decision.cached_references for decision in call.decisions)
    assert torch.equal(output, run_step(small_session(model), model, later, 1)[0])
