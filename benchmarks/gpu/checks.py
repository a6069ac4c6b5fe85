"""What the device computes, held to the CPU's results: small transformers with random weights, a few Euler steps.

Every check takes any device. On the CPU the same code runs and compares the CPU with itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.frontier.steps import Sampled, build, euler
from benchmarks.gpu.device import allocated_bytes
from benchmarks.gpu.reserve import forge_reserves
from benchmarks.gpu.results import CheckResult
from lib_fluxkontext.caching.caches import Caches
from lib_fluxkontext.caching.host_memory import host_memory_for
from lib_fluxkontext.caching.kv_store import Place
from lib_fluxkontext.hosts.diffusers.adapter import DiffusersFluxAdapter
from lib_fluxkontext.sampling.factory import build_caches
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.clock import measured

SMALL: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 14, 14),
    "guidance_embeds": True,
}
LARGER = SMALL | {
    "num_layers": 2,
    "num_single_layers": 4,
    "attention_head_dim": 128,
    "num_attention_heads": 4,
    "axes_dims_rope": (16, 56, 56),
}
"""FLUX.1's heads, so that a card runs the kernels that it runs for the real model."""

REFERENCES = 2
PLACES: tuple[Place, ...] = ("device", "host")
STEPS = torch.linspace(1, 0, 7)
ONE_SIGMA = torch.ones(3)
"""Two steps that do not move: the second sees what the first saw."""

UNCACHED = KontextSettings(cache=False)
REUSE = KontextSettings(cache=False, reference_refresh=2)
ALL_CACHES = KontextSettings(cache_threshold=1.0, reference_refresh=4, cache_max_consecutive=1, cache_correct=True)

FLOAT32_BOUND = 1e-3
HALF_BOUNDS = {torch.float16: 0.01, torch.bfloat16: 0.1}
"""Mean difference from the CPU's float32, by the mean of what the steps change. On the CPU it is 0.001 and 0.04:
bfloat16 rounds the timestep of 750 to 752."""

CLOCK_SHARE, CLOCK_SECONDS = 0.1, 0.002


def run_checks(device: torch.device) -> Iterator[CheckResult]:
    """Run every check, each when it is asked for."""
    for check in CHECKS:
        yield check(device)


def streamed_equals_resident(device: torch.device) -> CheckResult:
    """Keys and values from host memory give the same picture, bit for bit, as those on the device."""
    transformer = _transformer(device, torch.bfloat16)
    resident, streamed = (_sample(transformer, REUSE, place).change for place in PLACES)
    passed = torch.equal(resident, streamed)
    detail = "bit for bit" if passed else f"mean difference {_difference(streamed, resident):.1e}"
    return CheckResult("streamed equals resident", passed, f"{detail}, in bfloat16")


def stored_equal_recomputed(device: torch.device) -> CheckResult:
    """At the noise level that stored them, kept keys and values give what references that run anew give."""
    transformer = _transformer(device, torch.float32)
    _, recomputed = _last_velocity(transformer, UNCACHED)
    faults, differences = {}, []
    for place in PLACES:
        kind, velocity = _last_velocity(transformer, REUSE, place)
        differences.append(_difference(velocity, recomputed))
        faults[f"the step was {kind}, not kept ({place})"] = kind != "kept"
        faults[f"mean difference {differences[-1]:.1e} ({place})"] = not differences[-1] <= FLOAT32_BOUND
    detail = "mean difference {:.1e} resident, {:.1e} streamed, in float32".format(*differences)
    return _faults_result("stored equal recomputed", faults, detail)


def float32_equals_cpu(device: torch.device) -> CheckResult:
    """The device computes in float32 what the CPU does."""
    return _against_cpu(device, torch.float32, FLOAT32_BOUND)


def float16_near_cpu(device: torch.device) -> CheckResult:
    """In float16 all caches stay near the CPU's float32."""
    return _against_cpu(device, torch.float16, HALF_BOUNDS[torch.float16])


def bfloat16_near_cpu(device: torch.device) -> CheckResult:
    """In bfloat16 all caches stay near the CPU's float32."""
    return _against_cpu(device, torch.bfloat16, HALF_BOUNDS[torch.bfloat16])


def clock_is_right(device: torch.device) -> CheckResult:
    """The clock that measures model calls agrees with the host's, around work that has been waited for."""
    side = 4096 if device.type == "cuda" else 512
    factor = torch.randn(side, side, device=device)
    factor @ factor  # whatever is set up once
    _wait(device)
    start = time.perf_counter()
    with measured(device) as span:
        for _ in range(20):
            factor @ factor
    _wait(device)
    host = time.perf_counter() - start
    seconds = span.seconds()
    passed = abs(seconds - host) <= max(CLOCK_SHARE * host, CLOCK_SECONDS)
    return CheckResult("clock", passed, f"{1000 * seconds:.2f} ms, by the synchronised host {1000 * host:.2f} ms")


def out_of_memory_leaves_nothing(device: torch.device) -> CheckResult:
    """Memory that runs out in the middle of a step leaves no hook, no tensor and no trace in the next sampling."""
    transformer = _transformer(device, torch.bfloat16)
    patchable = _patched_attributes(transformer)
    before = _sample(transformer, ALL_CACHES, place="host").change
    held_before = allocated_bytes(device)
    caches = build_caches(ALL_CACHES, has_references=True, place="host")
    failed = False
    with _failing_block(transformer, first_call=3, failures=None):
        try:
            _euler(transformer, caches)
        except torch.cuda.OutOfMemoryError:
            failed = True
    held = _held_bytes(caches)
    leaked = allocated_bytes(device) - held_before
    after = _sample(transformer, ALL_CACHES, place="host").change
    faults = {
        "the failure did not come through": not failed,
        "a patched attribute is left": _patched_attributes(transformer) != patchable,
        f"the closed session holds {held} bytes": held != 0,
        f"{leaked} bytes are left on the card": leaked > 0,
        "the next sampling differs from the one before": not torch.equal(before, after),
    }
    return _faults_result("out of memory in the middle", faults, "nothing left, the next sampling bit for bit")


def out_of_memory_is_survived(device: torch.device) -> CheckResult:
    """Where letting go of stored keys and values makes enough room, the sampling goes on without them."""
    transformer = _transformer(device, torch.float32)
    recomputed = _sample(transformer, UNCACHED).change
    with _failing_block(transformer, first_call=2, failures=1):
        done = _sample(transformer, REUSE)
    difference = _difference(done.change, recomputed)
    faults = {
        "the sampling has no note of it": not done.report.notes,
        f"mean difference {difference:.1e} from recomputed references": difference > FLOAT32_BOUND,
    }
    return _faults_result("out of memory once", faults, "goes on with recomputed references, and says so")


def host_memory_is_registered(device: torch.device) -> CheckResult:
    """Main memory for streaming is registered with the driver while it is used, and not after."""
    memory = host_memory_for(device)
    tensor = memory.allocate(torch.empty(3, 1000, dtype=torch.bfloat16))
    during = tensor.is_pinned()
    memory.release()
    after = tensor.is_pinned()
    passed = during == (device.type == "cuda") and not after
    words = {True: "registered", False: "pageable"}
    return CheckResult("host memory", passed, f"{words[during]} while used, {words[after]} after")


CHECKS: tuple[Callable[[torch.device], CheckResult], ...] = (
    streamed_equals_resident,
    stored_equal_recomputed,
    float32_equals_cpu,
    float16_near_cpu,
    bfloat16_near_cpu,
    clock_is_right,
    out_of_memory_leaves_nothing,
    out_of_memory_is_survived,
    host_memory_is_registered,
    forge_reserves,
)


def _transformer(device: torch.device, dtype: torch.dtype, config: dict[str, Any] | None = None) -> Any:
    """The same weights on every device: they are drawn on the CPU in float32. By default of the device's size."""
    transformer = build(config or _config(device), torch.device("cpu"), torch.float32)
    return nn.Module.to(transformer, device, dtype)  # diffusers' own warns of types that are meant here


def _config(device: torch.device) -> dict[str, Any]:
    return SMALL if device.type == "cpu" else LARGER


def _euler(transformer: Any, caches: Caches, sigmas: Tensor = STEPS) -> Sampled:
    side = 64 if transformer.config.num_layers == SMALL["num_layers"] else 256
    return euler(transformer, side, REFERENCES, caches, sigmas)


def _sample(transformer: Any, settings: KontextSettings, place: Place = "device", sigmas: Tensor = STEPS) -> Sampled:
    return _euler(transformer, build_caches(settings, has_references=True, place=place), sigmas)


def _last_velocity(transformer: Any, settings: KontextSettings, place: Place = "device") -> tuple[str, Tensor]:
    """The last step's kind and velocity where no step moves."""
    velocities: list[Tensor] = []
    handle = transformer.register_forward_hook(lambda module, inputs, output: velocities.append(output[0]))
    try:
        done = _sample(transformer, settings, place, ONE_SIGMA)
    finally:
        handle.remove()
    return done.report.steps[-1].kind, velocities[-1].float().cpu()


def _against_cpu(device: torch.device, dtype: torch.dtype, bound: float) -> CheckResult:
    config = _config(device)
    expected = _sample(_transformer(torch.device("cpu"), torch.float32, config), ALL_CACHES)
    found = _sample(_transformer(device, dtype, config), ALL_CACHES)
    difference = _difference(found.change, expected.change)
    kinds = [", ".join(step.kind for step in done.report.steps) for done in (found, expected)]
    faults = {
        f"mean difference {difference:.1e}, above {bound:g}": not difference <= bound,
        f"steps {kinds[0]}; on the CPU {kinds[1]}": kinds[0] != kinds[1],
    }
    name = f"{str(dtype).removeprefix('torch.')} against the CPU's float32"
    return _faults_result(name, faults, f"mean difference {difference:.1e} (bound {bound:g}), steps {kinds[0]}")


def _difference(found: Tensor, expected: Tensor) -> float:
    """Mean absolute difference by the expected mean."""
    return ((found - expected).abs().mean() / expected.abs().mean()).item()


def _faults_result(name: str, faults: dict[str, bool], detail: str) -> CheckResult:
    present = [fault for fault, there in faults.items() if there]
    return CheckResult(name, not present, "; ".join(present) or detail)


@contextmanager
def _failing_block(transformer: Any, first_call: int, failures: int | None) -> Iterator[None]:
    """Let a block in the middle run out of memory: from its nth call on, so many times or always."""
    calls = 0

    def fail(module: nn.Module, inputs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= first_call and (failures is None or calls < first_call + failures):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory: raised by a check")

    handle = transformer.single_transformer_blocks[0].register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def _patched_attributes(transformer: Any) -> list[Any]:
    """Whatever hooks replace while a model call lasts: forwards of instances, and the modules' attention function."""
    adapter = DiffusersFluxAdapter()
    modules = [sys.modules[type(block).__module__] for block in adapter.blocks(transformer)]
    forwards = [name for name, module in transformer.named_modules() if adapter.forward_name(module) in vars(module)]
    return [forwards, *(vars(module)[adapter.attention_function] for module in modules)]


def _held_bytes(holder: object) -> int:
    """Bytes of every tensor that an object of this project leads to."""
    match holder:
        case Tensor():
            return holder.nelement() * holder.element_size()
        case dict():
            return sum(map(_held_bytes, holder.values()))
        case list() | tuple():
            return sum(map(_held_bytes, holder))
    ours = type(holder).__module__.startswith("lib_fluxkontext")
    return sum(map(_held_bytes, vars(holder).values())) if ours and hasattr(holder, "__dict__") else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
