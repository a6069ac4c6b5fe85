"""``docs/benchmarks.md`` and its plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.frontier.measure import PSNR_CAP, Row
from benchmarks.frontier.methods import (
    BOTH,
    BOTH_CORRECTED,
    CACHE_DIT,
    CACHE_DIT_TAYLOR,
    CORRECTED,
    DIFFUSERS,
    FORECAST,
    OTHERS,
    OURS,
    PLAIN,
    REUSE,
    REUSE_CORRECTED,
)
from benchmarks.frontier.results import Results
from benchmarks.frontier.tables import comparison, cost_table, table, target

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAMES = {0: "No references", 1: "One reference", 2: "Two references"}
DOCS = Path(__file__).resolve().parents[2] / "docs"
STYLES = {
    PLAIN: ("#2563eb", "-", "o"),
    FORECAST: ("#059669", "--", "o"),
    CORRECTED: ("#059669", "-", "o"),
    REUSE: ("#9333ea", "--", "s"),
    REUSE_CORRECTED: ("#9333ea", "-", "s"),
    BOTH: ("#d97706", "--", "D"),
    BOTH_CORRECTED: ("#d97706", "-", "D"),
    DIFFUSERS: ("#6b7280", "--", "x"),
    CACHE_DIT: ("#dc2626", ":", "x"),
    CACHE_DIT_TAYLOR: ("#dc2626", "--", "x"),
}


def frontier_plot(tables: Mapping[int, Sequence[Row]], path: Path) -> None:
    """PSNR against wall ratio, a panel for each number of references."""
    figure, axes = plt.subplots(1, len(tables), figsize=(5.2 * len(tables), 4.6), sharey=True, constrained_layout=True)
    for axis, (references, rows) in zip(np.atleast_1d(axes), sorted(tables.items(), reverse=True), strict=True):
        for family in (*OTHERS, *OURS):
            points = sorted((row.ratio, row.psnr) for row in rows if row.family == family)
            if points:
                colour, line, mark = STYLES[family]
                style = {"color": colour, "linestyle": line, "marker": mark, "markersize": 5, "linewidth": 1.4}
                axis.plot(*zip(*points, strict=True), label=family, **style)
        axis.set(xlabel="times faster than uncached (wall)", title=NAMES[references])
        axis.grid(alpha=0.3)
    first = np.atleast_1d(axes)[0]
    first.set_ylabel("PSNR against uncached, dB")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, ncols=4, loc="outside lower center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(results: Results) -> str:
    """The whole document, of results that have all parts."""
    pictures, steps = results.pictures, results.steps
    tables = pictures.tables
    sections = "\n\n".join(
        f"### {NAMES[references]}\n\n{table(rows)}" for references, rows in sorted(tables.items(), reverse=True)
    )
    return f"""# Benchmarks

    python dev.py bench

## Speed and quality on the small trained model

{pictures.machine}.
{pictures.recipe}
The [small trained model](../lib_fluxkontext/small_kontext/README.md), one CPU
thread, so that arithmetic rather than the cost of starting small operations decides; methods take turns on every pair.
*Faster* is the median over the pairs of uncached seconds / seconds, wall time of the sampling. PSNR and SSIM compare
each picture with the uncached one of the same noise, means over all pictures, PSNR capped at {PSNR_CAP:g} dB. LPIPS is
left out: its weights must be downloaded from elsewhere.

*First Block Cache*, *forecast*, *reference reuse*, *both* and *correction* are this project's; *both* is reference
reuse under First Block Cache with forecast. [diffusers](https://github.com/huggingface/diffusers)' hook and
[cache-dit](https://github.com/vipshop/cache-dit) {pictures.cache_dit} (one block in front, warm-up 1, no limits, and
with its TaylorSeer of first order) run on the same weights, noise and reference tokens. They decide once for a whole
batch; here every image decides for itself, as it would alone, which costs time where a batch splits.

![PSNR against speed, a curve for each method](benchmarks.png)

**Two references.** {target(tables[2])}

Best of this project's settings beside the best of the others, read off the lines between their best points:

{comparison(tables[2])}

The same with one reference:

{comparison(tables[1])}

and with none:

{comparison(tables[0])}

Where the difference is negative the others are better.

*Correction* lets a step that is computed in full pay for what the approximate ones before it got wrong
(`lib_fluxkontext/caching/correction.py`). It assumes Euler's steps; the table is Euler's. With reference reuse,
*every 1* means that the references run in every step that is computed and in none that is reused.

{sections}

**What does not carry over.** A model this small is smoother than FLUX.1 Kontext [dev]: its residuals change less and
more evenly from step to step. The table ranks methods; it promises no decibels. In FLUX.1 the first block is one of 57
and not of 6, so a reused step costs far less of a computed one than here, and references weigh more: with two of a
megapixel, 8,192 of 12,800 tokens.

## What a step costs: 140 million parameters

`python dev.py bench --only steps`, {steps.machine}.
Random weights, hidden 512, 8 + 16 blocks, 512×512 and references of the same size, 256 text tokens as Forge pads,
{steps.recipe}. *Kept* is a step on kept references,
*reused* one that First Block Cache does not compute.

{cost_table(steps.costs)}

## What is left of a reused step

Embeddings of time, text and image, rotary embedding, the first block over text and picture (over the references too
where they are not kept), the decision with its one wait for the device, one addition and the last layer. With kept
references no reference token goes through anything. What our hooks add are the first block's difference, its mean and
the sum: four passes over the picture's tokens.

## Full size on a GPU

FLUX.1's real size, with random weights, is measured by `python dev.py gpu` on a CUDA device: [docs/gpu.md](gpu.md).
"""
