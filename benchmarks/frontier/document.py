"""``docs/benchmarks.md``, of what was measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.frontier.conditions import CONDITIONS, Condition
from benchmarks.frontier.models import MODELS
from benchmarks.frontier.plots import plot
from benchmarks.frontier.quality import PSNR_CAP
from benchmarks.frontier.results import Pictures, Results
from benchmarks.frontier.step_tables import cost_table, preset_target, schedule_table
from benchmarks.frontier.tables import WHERE, by_time, comparison, goal, table
from benchmarks.frontier.tasks import GROUPS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def write(results: Results, folder: Path) -> Path:
    """Write page and plots of what was measured, and return the page's path."""
    tables = {key: pictures.rows for key, pictures in results.pictures.items()}
    for group in GROUPS:
        plot(tables, group, folder / plot_name(group))
    path = folder / "benchmarks.md"
    path.write_text(page(results), encoding="utf-8")
    return path


def plot_name(group: str) -> str:
    """Return the file's name of a group's plot."""
    return f"benchmarks_{group}.png"


def page(results: Results) -> str:
    """The whole document; what was not measured is left out."""
    return f"""# Benchmarks

    python dev.py bench

{pictures_part(results)}

## What a step costs: 140 million parameters

`python dev.py bench --only steps`. Random weights, 512×512 and references of the same size, 256 text tokens as Forge
pads. *Kept* is a step on kept references, *reused* one that First Block Cache does not compute; in brackets, its share
of an uncached run's computed step. *Faster* is the median over the rounds.

{steps_sections(results)}

## What is left of a reused step

Embeddings of time, text and image, rotary embedding, the first block over text and picture (over the references too
where they are not kept), the decision with its one wait for the device, one addition and the last layer. With kept
references no reference token goes through anything. What our hooks add are the first block's difference, its mean and
the sum: four passes over the picture's tokens.

## Full size on a GPU

FLUX.1's real size, with random weights, is measured by `python dev.py gpu` on a CUDA device: [docs/gpu.md](gpu.md).
"""


def pictures_part(results: Results) -> str:
    """Speed and quality: what is common, then a section for each condition."""
    title = "## Speed and quality on the small trained model"
    if not results.pictures:
        return f"{title}\n\nNot measured yet: `python dev.py bench --only pictures`."
    known = {condition.key: condition for condition in map(Condition.parse, results.pictures)}
    order = [one.key for one in CONDITIONS if one.key in known]
    order += [key for key in known if key not in order]
    libraries = ", ".join(dict.fromkeys(pictures.libraries for pictures in results.pictures.values()))
    plots = []
    for group in reversed(GROUPS):
        if any(one.group == group and one.complete for one in known.values()):
            alt = f"{group.capitalize()}: PSNR {WHERE[group]} by full evaluations, a curve for each method"
            plots.append(f"![{alt}]({plot_name(group)})")
    sections = [_section(known[key], results.pictures[key]) for key in order]
    introduction = INTRODUCTION.format(libraries=libraries, cap=PSNR_CAP)
    return "\n\n".join([title, introduction, *plots, *sections, DOES_NOT_CARRY_OVER])


INTRODUCTION = """`python dev.py bench --only pictures`. The
[small trained model](../lib_fluxkontext/small_kontext/README.md) on photographs that no training step saw, one picture
at a time on one CPU thread. Every cached picture is compared with the uncached one of the same noise: PSNR (at most
{cap:g} dB), SSIM, and [FLIP](https://github.com/NVlabs/flip), where lower is better; means over the tasks, on the whole
picture, inside the region that the instruction edits and outside of it. *Editing* is judged outside the edited region,
*copying* on the whole picture. The *goal* of each section: with a quarter of the full evaluations, at least the quality
that the best of the other methods has with half of them.

**Cost** is given twice. *Evaluations* are full evaluations of the transformer: the tokens that ran through the last
block, as a share of all tokens of an uncached call, summed over the calls. First blocks that a cache runs in every step
are left out, this project's as well as the others': here a first block is one of twelve, in FLUX.1 one of 57.
*Faster* is wall time with everything in it: the median over the tasks of uncached seconds / seconds of the sampling,
methods taking turns on every task. On a model of twelve blocks it favours methods that run no block at all in a skipped
step; what a step costs at FLUX.1's depth stands further [below](#what-a-step-costs-140-million-parameters).

**Settings** are found for every family, this project's and the others', by one procedure. A ladder of candidates spans
the costs. All run on two tasks on photographs of the training, with other noise than the table's. For a fifth, a
quarter, 35 % and half of an uncached sampling's evaluations, the candidate is taken that is nearest to the uncached
picture among those that cost no more (the cheapest, if none does). Settings that the authors themselves give are in the
table too. MagCache's ratios, TeaCache's polynomial and RegionE's velocity decay are fitted to this model on the same
two tasks. The plots and comparisons show each family by its Pareto front on the tasks of the table.

**Methods.** *First Block Cache*, *forecast*, *both* (with reference reuse), *correction* and *preset* are this
project's. On the same weights, noise and reference tokens: First Block Cache, MagCache, SeaCache and TaylorSeer (its
lite mode) as diffusers ships them; DBCache, alone and with its calibrators TaylorSeer, FoCa and DMD, as cache-dit ships
it, with one block in front; TeaCache, EasyCache, Spectrum (with what its authors forecast and with what Forge Neo does)
and RegionE written anew from their papers and releases. {libraries}."""

DOES_NOT_CARRY_OVER = """**What does not carry over.** A model this small is smoother than FLUX.1 Kontext [dev]: its
residuals change less and more evenly from step to step. The tables rank methods; they promise no decibels. In FLUX.1
the first block is one of 57 and not of twelve, so a reused step costs far less of a computed one than here, and
references weigh more: with two of a megapixel, 8,192 of 12,800 tokens."""


def _section(condition: Condition, pictures: Pictures) -> str:
    rows, group = pictures.rows, condition.group
    return f"""### {condition.title}

{goal(rows, group)}

PSNR {WHERE[group]}, read off the lines between each side's best points; in brackets, the method of the next cheaper
point. Where the difference is negative the others are better.

{comparison(rows, group)}

By wall time:

{comparison(rows, group, by_time)}

<details><summary>All settings: {len(rows) - 1} of {pictures.candidates} that were tried</summary>

{pictures.recipe}. {pictures.machine}.

{table(rows)}

</details>"""


def steps_sections(results: Results) -> str:
    """A section for each model without training."""
    sections = []
    for name, steps in results.steps.items():
        parts = [f"### {MODELS[name].title}", f"{steps.machine}. {steps.recipe}.", cost_table(steps.costs)]
        judged = preset_target(steps.costs)
        if judged is not None and results.schedules is not None:
            parts += [judged, SCHEDULES.format(recipe=results.schedules.recipe)]
            parts.append(schedule_table(results.schedules.presets))
        sections += parts
    return "\n\n".join(sections) or "Not measured yet."


SCHEDULES = """With random weights the first block's change is not that of a trained model. So a preset's run
follows the schedule that it has on the small trained model ({recipe}), measuring as ever but
deciding by it. C is a step computed in full, K one on kept references, a dot one that is reused:"""
