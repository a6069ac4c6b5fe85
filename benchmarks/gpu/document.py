"""``docs/gpu.md``: what was measured, and by name what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.frontier.steps import median_of_present
from benchmarks.gpu.full_size import BUDGETS
from benchmarks.gpu.results import CheckResult, Constants, Part, Run
from lib_fluxkontext.sampling.vram import CACHE_BUFFERS, FORECAST_BUFFERS, GIB, ModelSize

CHECKS, FULL_SIZE = "checks", "full-size"
BUDGET_PARTS = {f"budget-{budget}": budget for budget in BUDGETS}
PARTS = (CHECKS, FULL_SIZE, *BUDGET_PARTS)

NOT_MEASURED = "**Not measured yet.**"

MEASURES = {
    CHECKS: """Small transformers with random weights, a few Euler steps with two references: keys and values streamed
from host memory give what resident ones give, bit for bit, and what references that run anew give; float32, float16
and bfloat16 are held to the CPU's float32; CUDA's events to a synchronised clock; main memory is registered with the
driver and given back; when memory runs out in the middle of a step, nothing is left behind and the next sampling is the
same, bit for bit. That Forge reserves and unloads needs Forge.""",
    FULL_SIZE: """A transformer of FLUX.1's real size with random weights in bfloat16 at 1024×1024, with none, one and
two references: seconds and peak memory of a computed step, of a step on kept references (resident and streamed) and of
a reused step, and the constants of the memory estimate, fitted to them.""",
} | {
    name: f"""The same with the memory of a card that has {budget} GB, less what CUDA itself takes
(`torch.cuda.set_per_process_memory_fraction`). All of the transformer does not fit in bfloat16, so it has as many
blocks as fill half of the card at most, two single ones for each double one."""
    for name, budget in BUDGET_PARTS.items()
}
TITLES = {CHECKS: "Checks", FULL_SIZE: "Full size"} | {
    name: f"A budget of {budget} GB" for name, budget in BUDGET_PARTS.items()
}


def page(parts: Mapping[str, Part]) -> str:
    """The whole document.

    Args:
        parts: what was measured, by name; what is missing is named as unmeasured.
    """
    missing = [TITLES[name] for name in PARTS if name not in parts or parts[name].skipped is not None]
    state = f"Not measured: {', '.join(missing)}." if missing else "All parts were measured."
    sections = "\n\n".join(f"## {TITLES[name]}\n\n{MEASURES[name]}\n\n{_section(parts.get(name))}" for name in PARTS)
    return f"""# On a CUDA device

    python dev.py gpu
    python dev.py gpu --only checks

`--only` takes `checks`, `full-size` or `budgets`. Any NVIDIA card will do: nothing is downloaded, weights are random,
and what does not fit is skipped with the reason. Each part is saved when it ends, here and in `gpu.json`; `--output`
names another folder. The exit code is 0, 1 where a check failed, or 2 without a CUDA device.

{state}

{sections}
"""


def _section(part: Part | None) -> str:
    if part is None:
        return NOT_MEASURED
    if part.skipped is not None:
        return f"{part.machine}. {NOT_MEASURED} Skipped: {part.skipped}."
    blocks = [" ".join(filter(None, (f"{part.machine}.", part.recipe)))]
    if part.checks:
        blocks.append(_check_table(part.checks))
    if part.runs:
        blocks += [_run_table(part.runs), *_notes(part.runs), _constants(part.constants)]
    return "\n\n".join(blocks)


def _check_table(checks: Sequence[CheckResult]) -> str:
    lines = ["| check | result | |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {check.name} | {verdict(check)} | {check.detail} |" for check in checks)])


def verdict(check: CheckResult) -> str:
    """``"passed"``, ``"FAILED"`` or ``"skipped"``."""
    return {True: "passed", False: "FAILED", None: "skipped"}[check.passed]


def _run_table(runs: Sequence[Run]) -> str:
    """Medians over the rounds."""
    lines = [
        "| references | run | sampling | computed step | kept | reused | peak: computed | kept | reused | estimate |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in runs:
        estimate = f"{run.estimate / GIB:.2f} GiB"
        if run.failure is not None:
            lines.append(f"| {run.references} | {run.name} | {run.failure} | – | – | – | – | – | – | {estimate} |")
            continue
        cells = [f"{median_of_present([cost.seconds for cost in run.costs]):.2f} s"]
        for kind in ("computed", "kept", "reused"):
            seconds = median_of_present([getattr(cost, kind) for cost in run.costs])
            cells.append("–" if seconds is None else f"{seconds:.3f} s")
        for kind in ("computed_peak", "kept_peak", "reused_peak"):
            peak = median_of_present([getattr(cost, kind) for cost in run.costs])
            cells.append("–" if peak is None else f"{peak / GIB:.2f} GiB")
        lines.append(f"| {run.references} | {run.name} | {' | '.join(cells)} | {estimate} |")
    return "\n".join(lines)


def _notes(runs: Sequence[Run]) -> list[str]:
    """What samplings had to say, a paragraph each."""
    found = {(run.references, run.name, cost.note): None for run in runs for cost in run.costs if cost.note}
    return [f"{counted(references)}, {name}: {note}" for references, name, note in found]


def counted(references: int) -> str:
    """``"no references"``, ``"1 reference"``, ``"2 references"``."""
    return {0: "no references", 1: "1 reference"}.get(references, f"{references} references")


def _constants(constants: Constants | None) -> str:
    explained = "Peaks and estimate are bytes beyond the weights."
    if constants is None:
        return f"{explained} The constants of the estimate could not be fitted."
    forge = ModelSize(weights=0).token_bytes
    return (
        f"{explained} Activations: {constants.activation_bytes / 1024:.1f} KiB for each token and "
        f"{constants.fixed_bytes / 2**20:.0f} MiB besides; the estimate takes Forge's {forge / 1024:.1f} KiB for each "
        f"token. First Block Cache with its forecast: {constants.cache_buffers:.1f} tensors of the picture's tokens; "
        f"the estimate takes {CACHE_BUFFERS + FORECAST_BUFFERS}."
    )
