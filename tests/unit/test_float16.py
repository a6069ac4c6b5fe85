"""Cards of the RTX 20 series compute Flux in float16: nothing that the caches do may leave its range."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.correction import Correction
from lib_fluxkontext.caching.first_block import FirstBlockCache, FirstBlockConfig
from lib_fluxkontext.caching.forecast import fit_forecast
from lib_fluxkontext.hosts.forge.runtime.adapter import ForgeFluxAdapter
from tests.support.small_flux import SmallFluxTransformer, inputs
from tests.support.small_session import run_step, small_session

STEPS = 20
BOUND = ForgeFluxAdapter.float16_bound


class ScaledBlock(nn.Module):
    """Adds a residual of about ``scale``; normalises what it reads, as Flux does, and bounds what it gives."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.linear = nn.Linear(16, 16)

    def residual(self, tokens: Tensor) -> Tensor:
        return self.scale * torch.tanh(self.linear(tokens / self.scale))


class ScaledDoubleBlock(ScaledBlock):
    def __init__(self, scale: float) -> None:
        super().__init__(scale)
        self.img_attn = nn.Identity()  # by which the adapter knows a double-stream block

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        return img + self.residual(img), txt


class ScaledSingleBlock(ScaledBlock):
    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        return (x + self.residual(x)).clamp(-BOUND, BOUND)


class ScaledFluxTransformer(SmallFluxTransformer):
    """Image tokens of any size between the blocks."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.double_blocks = nn.ModuleList(ScaledDoubleBlock(scale) for _ in range(2))
        self.single_blocks = nn.ModuleList(ScaledSingleBlock(scale) for _ in range(3))
        self.img_in.weight.data *= scale
        self.final_layer.weight.data /= scale
        self.half()
        self.pe_in.float()
        self.seen: list[Tensor] = []
        self.final_layer.register_forward_pre_hook(lambda module, args: self.seen.append(args[0].detach().clone()))


@pytest.mark.parametrize("scale", [1.0, 300.0, 3000.0, 12000.0])
def test_twenty_steps_with_forecast_and_correction_stay_finite(scale: float) -> None:
    model = ScaledFluxTransformer(scale)
    caches = Caches(FirstBlockCache(FirstBlockConfig(0.3, forecast=True)), correction=Correction())
    session = small_session(model, caches)
    noise, target = inputs(seed=1)["img"], inputs(seed=2)["img"]
    kinds = []
    for step in range(STEPS):
        sigma = 1.0 - step / STEPS
        arguments = inputs() | {"img": sigma * noise + (1 - sigma) * target, "timesteps": torch.tensor([sigma])}
        half = {name: value.half() for name, value in arguments.items()}
        output, call = run_step(session, model, half, step, last=step == STEPS - 1)
        assert torch.isfinite(output).all()
        kinds += [decision.reuse for decision in call.decisions]
    assert True in kinds
    assert False in kinds
    assert all(torch.isfinite(tokens).all() and tokens.abs().max() <= BOUND for tokens in model.seen)


@pytest.mark.parametrize("change", [10.0, 1100.0, 30000.0])
def test_a_change_over_a_narrow_step_is_followed_without_overflow(change: float) -> None:
    """Over 1/64 of sigma the slope of a change of 1,100 would be 70,000, more than float16 holds."""
    sigmas = torch.tensor([0.5]), torch.tensor([0.5 - 1 / 64]), torch.tensor([0.5 - 2 / 64])
    finite = torch.tensor([True])
    first = fit_forecast(torch.zeros(1, 2, 2, dtype=torch.float16), sigmas[0], finite, None)
    second = fit_forecast(torch.full((1, 2, 2), change, dtype=torch.float16), sigmas[1], finite, first)
    assert second.at(sigmas[2]).flatten().tolist() == pytest.approx([2 * change] * 4, rel=1e-3)


def test_values_at_both_ends_of_the_range_are_no_infinite_change() -> None:
    finite = torch.tensor([True])
    low = fit_forecast(torch.full((1, 1, 1), -60000.0, dtype=torch.float16), torch.tensor([1.0]), finite, None)
    high = fit_forecast(torch.full((1, 1, 1), 60000.0, dtype=torch.float16), torch.tensor([0.9]), finite, low)
    assert high.change is not None
    assert torch.isfinite(high.change).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wider_types_are_extrapolated_bit_for_bit_as_by_a_stored_slope(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    values = [torch.randn(2, 3, 4, generator=generator).to(dtype) for _ in range(2)]
    sigmas = torch.tensor([0.8, 0.7]), torch.tensor([0.75, 0.66]), torch.tensor([0.71, 0.61])
    finite = torch.tensor([True, True])
    forecast = fit_forecast(values[1], sigmas[1], finite, fit_forecast(values[0], sigmas[0], finite, None))
    slope = (values[1] - values[0]) / (sigmas[1] - sigmas[0]).to(dtype)[:, None, None]
    distance = torch.maximum(sigmas[2] - sigmas[1], sigmas[1] - sigmas[0]).to(dtype)[:, None, None]
    assert torch.equal(forecast.at(sigmas[2]), torch.addcmul(values[1], slope, distance))
