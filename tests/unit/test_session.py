"""One sampling: what it measures, what a query changes (nothing), what it holds after it was closed (nothing)."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch
from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.correction import Correction
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.kv_store import KVStore
from lib_fluxkontext.caching.reference_kv import ReferenceKVCache, ReferenceKVConfig
from lib_fluxkontext.caching.sample_key import Step
from lib_fluxkontext.hosts.forge.lifecycle.sampler_hook import SamplerEndHook
from lib_fluxkontext.sampling.session import SamplingSession
from lib_fluxkontext.telemetry.recorder import MeasuredCall
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_session import run_step, small_session


def all_caches() -> Caches:
    return Caches(
        FirstBlockCache(FirstBlockConfig(0.5, forecast=True)),
        ReferenceKVCache(ReferenceKVConfig(4), KVStore()),
        Correction(),
    )


def sampled(steps: int = 4) -> tuple[SamplingSession, SmallFluxTransformer]:
    model = SmallFluxTransformer()
    session = small_session(model, all_caches(), total_steps=steps)
    for step in range(steps):
        run_step(session, model, inputs(batch=2), step)
    return session, model


def test_the_report_counts_calls_and_what_became_of_them() -> None:
    session, _ = sampled()
    report = session.close()
    assert [call.step for call in report.calls] == [0, 1, 2, 3]
    assert [step.kind for step in report.steps] == ["computed", "reused", "reused", "reused"]
    assert all(call.images == 2 and call.seconds > 0 and call.sigma == 0.5 for call in report.calls)
    assert (report.encoded, report.cached, report.encode_seconds) == (1, 0, 0.25)
    assert (report.reference_tokens, report.image_tokens) == ((5,), 6)
    assert report.key_values is not None
    assert report.key_values.refreshes == 2
    assert report.seconds >= sum(call.seconds for call in report.calls)


def test_a_snapshot_changes_nothing_and_may_be_taken_from_another_thread() -> None:
    session, model = sampled()
    found = []
    thread = threading.Thread(target=lambda: found.append(session.snapshot()))
    thread.start()
    thread.join()
    again = session.snapshot()
    assert found[0].report.calls == again.report.calls
    assert (again.total_steps, len(again.report.calls)) == (4, 4)
    assert not session.closed
    output, _ = run_step(session, model, inputs(batch=2), 4)
    undisturbed, other = sampled()
    assert torch.equal(output, run_step(undisturbed, other, inputs(batch=2), 4)[0])


def test_close_is_idempotent_and_a_snapshot_then_shows_the_final_report() -> None:
    session, _ = sampled()
    report = session.close()
    assert session.close() is report
    assert session.snapshot().report is report
    assert session.closed


def test_a_closed_session_holds_no_tensor() -> None:
    model = SmallFluxTransformer()
    caches = all_caches()
    session = small_session(model, caches)
    arguments = inputs()
    run_step(session, model, arguments)
    transformer = weakref.ref(model)
    assert caches.reference_kv is not None
    assert caches.reference_kv.store.held_bytes > 0
    session.close()
    assert caches.reference_kv.store.held_bytes == 0
    del model
    assert transformer() is None
    held = [value for value in vars(session).values() if isinstance(value, Tensor)]
    assert held == []


def test_a_closed_session_takes_no_call() -> None:
    session, _ = sampled()
    session.close()
    with pytest.raises(RuntimeError, match="closed"), session.call([0], Step(0), torch.tensor([0.5])):
        pass


def test_a_call_that_raises_is_not_counted_and_the_next_one_works() -> None:
    model = SmallFluxTransformer()
    session = small_session(model, all_caches())
    with pytest.raises(ZeroDivisionError), session.call([0], Step(0), torch.tensor([0.5])):
        raise ZeroDivisionError
    assert session.snapshot().report.calls == []
    run_step(session, model, inputs())
    assert len(session.close().calls) == 1


def test_a_note_is_said_once() -> None:
    session, _ = sampled()
    session.note("once")
    session.note("once")
    assert session.close().notes == ("once",)


class FakeSampler:
    """What Forge's sampler has of methods."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def sample(self) -> str:
        self.ran.append("sample")
        return "latent"

    def sample_img2img(self) -> str:
        self.ran.append("sample_img2img")
        return "latent"


def test_the_end_of_a_sampling_is_told_once_and_leaves_the_sampler_as_it_was() -> None:
    sampler, ends = FakeSampler(), []
    SamplerEndHook(sampler, lambda: ends.append(1))
    assert sampler.sample() == "latent"
    assert sampler.sample() == "latent"
    assert ends == [1]
    assert "sample" not in vars(sampler)
    assert "sample_img2img" not in vars(sampler)


def test_what_another_extension_set_before_comes_back() -> None:
    sampler, ends = FakeSampler(), []
    theirs = sampler.sample_img2img
    sampler.sample = theirs
    SamplerEndHook(sampler, lambda: ends.append(1))
    sampler.sample()
    assert vars(sampler)["sample"] is theirs
    assert sampler.ran == ["sample_img2img"]
    assert ends == [1]


def test_what_another_extension_set_since_stays_and_the_hook_passes_through() -> None:
    sampler, ends = FakeSampler(), []
    hook = SamplerEndHook(sampler, lambda: ends.append(1))
    hooked = sampler.sample

    def theirs() -> str:
        sampler.ran.append("theirs")
        return hooked()

    sampler.sample = theirs
    hook.remove()
    assert vars(sampler)["sample"] is theirs
    assert sampler.sample() == "latent"
    assert sampler.ran == ["theirs", "sample"]
    assert ends == []


def test_a_failed_sampling_ends_too() -> None:
    sampler, ends = FakeSampler(), []

    def fails() -> str:
        raise MemoryError

    sampler.sample = fails
    SamplerEndHook(sampler, lambda: ends.append(1))
    with pytest.raises(MemoryError):
        sampler.sample()
    assert ends == [1]
    assert vars(sampler)["sample"] is fails


def test_a_removed_hook_refers_to_nothing_that_it_reported_to() -> None:
    """Forge's sampler lives on in a cycle; the generation, with its photographs, must go at once."""

    class Generation:
        def ended(self) -> None:
            pass

    sampler, generation = FakeSampler(), Generation()
    alive = weakref.ref(generation)
    hook = SamplerEndHook(sampler, generation.ended)
    del generation
    gc.disable()
    try:
        sampler.sample()
        assert alive() is None
    finally:
        gc.enable()
    hook.remove()


class DeadSpan:
    """Of a card that has failed."""

    def done(self) -> bool:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def seconds(self) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_snapshot_of_a_card_that_has_failed_shows_what_is_known() -> None:
    session, _ = sampled(steps=2)
    session._recorder.record(MeasuredCall(2, torch.tensor(0.5), DeadSpan(), 1, ()))
    assert [call.step for call in session.snapshot().report.calls] == [0, 1]
    assert "could not be measured" in session.close().notes[0]
