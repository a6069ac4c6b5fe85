"""The model function wrapper: around whatever others set, once; and nothing left of it after the sampling."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.hosts.forge.runtime.model_wrapper import STOOD_ASIDE, UNUSED, HookedSampling
from lib_fluxkontext.sampling.session import SamplingSession
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_session import small_session


class FakePatcher:
    """What is used of Forge's patcher."""

    def __init__(self) -> None:
        self.model_options: dict[str, Any] = {}

    def set_model_unet_function_wrapper(self, wrapper: Any) -> None:
        self.model_options["model_function_wrapper"] = wrapper


def sampler() -> Any:
    denoiser = SimpleNamespace(step=0, steps=4, total_steps=4)
    return SimpleNamespace(funcname="sample_euler", model_wrap_cfg=denoiser)


def hooked(unet: FakePatcher, model: SmallFluxTransformer) -> tuple[HookedSampling, SamplingSession]:
    session = small_session(model, Caches(FirstBlockCache(FirstBlockConfig(0.5))))
    sampling = HookedSampling(session, sampler())
    sampling.install(unet)
    return sampling, session


def call(unet: FakePatcher, model: SmallFluxTransformer) -> Tensor:
    """One model call, as Forge makes it."""
    arguments = inputs()
    params = {"input": torch.zeros(1), "timestep": arguments["timesteps"], "c": {}, "cond_or_uncond": [0]}
    apply_model = lambda *_, **__: model.inner_forward(**arguments)  # noqa: E731
    output: Tensor = unet.model_options["model_function_wrapper"](apply_model, params)
    return output


@torch.no_grad()
def test_one_that_was_set_after_ours_without_calling_it_stands_inside() -> None:
    unet, model, seen = FakePatcher(), SmallFluxTransformer(), []
    sampling, session = hooked(unet, model)

    def theirs(apply_model: Any, params: dict[str, Any]) -> Tensor:
        seen.append(params["input"])
        result: Tensor = apply_model(params["input"], params["timestep"], **params["c"])
        return result

    unet.set_model_unet_function_wrapper(theirs)
    sampling.install(unet)
    call(unet, model)
    assert len(seen) == 1
    assert [one.step for one in session.snapshot().report.calls] == [0]
    assert UNUSED not in sampling.close().notes


@torch.no_grad()
def test_ours_inside_of_theirs_is_not_hooked_twice() -> None:
    unet, model = FakePatcher(), SmallFluxTransformer()
    sampling, session = hooked(unet, model)
    ours = unet.model_options["model_function_wrapper"]
    unet.set_model_unet_function_wrapper(lambda apply_model, params: ours(apply_model, params))
    sampling.install(unet)
    sampling.install(unet)
    call(unet, model)
    assert [one.images for one in session.snapshot().report.calls] == [1]


def test_spectrum_is_known_by_its_name_before_it_skips_a_step() -> None:
    unet, model = FakePatcher(), SmallFluxTransformer()
    spectrum = lambda apply_model, params: None  # noqa: E731
    spectrum.__module__ = "lib_spectrum.forecaster"
    unet.set_model_unet_function_wrapper(spectrum)
    sampling, session = hooked(unet, model)
    assert STOOD_ASIDE in sampling.close().notes
    assert session.closed


def test_after_the_sampling_no_cycle_holds_what_it_held() -> None:
    unet, model = FakePatcher(), SmallFluxTransformer()
    sampling, _ = hooked(unet, model)
    sampling.close()
    gone = weakref.ref(sampling)
    gc.collect()
    gc.disable()
    try:
        unet.model_options.clear()
        del sampling
        assert gone() is None
    finally:
        gc.enable()
