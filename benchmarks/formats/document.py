"""``docs/formats.md`` and its plot, from what was measured."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from benchmarks.formats.matrix import table
from benchmarks.formats.measure import CACHES, FORMATS
from benchmarks.formats.results import Pictures, Results

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAME, PLOT = "formats.md", "formats.png"
COLOURS = {"Off": "#111827", "Balanced": "#2563eb", "Fast": "#d97706"}

LOADED_BY = {
    "format": "A format is *yes* where, in the real host: two references change the picture; a threshold that reuses "
    "nothing gives the picture without a cache, to the bit; references are kept over steps; *Fast* reuses; a LoRA "
    "changes the picture; and the next generation without any of it is as before.",
    "low_bits": "The same with what *Diffusion in Low Bits* makes of a BF16 checkpoint, each with and without *(fp16 "
    "LoRA)*. *bnb-nf4* and *bnb-fp4* pack weights as they move to a card, so the CPU of these tests cannot show them.",
    "text_encoder": "A transformer in a file of its own, with VAE, CLIP and this T5 beside it.",
}


LORA = """**LoRA on quantised weights in Forge.** With *(fp16 LoRA)* Forge adds a LoRA at each use of the weights, which
works with every format; so the tests use it. Without it, Forge merges the LoRA into the weights: that it
refuses for K-quants, Q4_1, Q5_1 and BF16 of GGUF, and in scaled FP8 the LoRA is as good as lost, for Forge
adds it before the scale. NF4 and FP4 it dequantises for a LoRA on CUDA alone. Neo adds LoRAs to GGUF at each
use whatever is chosen. Formats of other names (IQ4_XS, MXFP8, NVFP4, SVDQuant and so on) are read from the
header, and the panel says before the generation what this WebUI does not load, and what to take instead. A
dash: there is no test, because that host does not load it (FP4 in Neo) or has no such setting."""


def write(results: Results, folder: Path) -> Path:
    """Write the document and its plot; return the document's path."""
    parts = [HEAD]
    if results.pictures is not None:
        plot(results.pictures, folder / PLOT)
        parts.append(pictures_part(results.pictures))
    if results.matrix is not None:
        parts += ["## What loads where", f"`python -m benchmarks.formats --only matrix`, {results.matrix.machine}."]
        for what, means in LOADED_BY.items():
            if any(case.what == what for case in results.matrix.cases):
                parts += [means, table(results.matrix.cases, what)]
        parts.append(LORA)
    path = folder / NAME
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


HEAD = """# Formats

What a number format of the transformer's weights costs in quality, memory and time, with and without the caches, and
which host loads it. `python -m benchmarks.formats` writes this page; `python -m lib_fluxkontext convert` makes the
formats ([how](convert.md))."""


def pictures_part(pictures: Pictures) -> str:
    """Quality, size and time by format, then what a threshold means to each."""
    exact = pictures.loaded["fp32"].file_bytes
    lines = []
    for name, title in FORMATS.items():
        loaded, off = pictures.loaded[name], pictures.rows[name, "Off"]
        cells = [title, f"{loaded.file_bytes / 1e6:.1f} ({loaded.file_bytes / exact:.0%})"]
        cells += [f"{loaded.weight_bytes / 1e6:.1f}", f"{loaded.load_seconds:.2f}", f"{1000 * off.step_seconds:.0f}"]
        for cache in CACHES:
            quality = pictures.rows[name, cache].to_exact
            cells += ["exact", "1", "0"] if name == "fp32" and cache == "Off" else [
                f"{quality.psnr:.1f}", f"{quality.ssim:.4f}", f"{quality.flip:.4f}"
            ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    reuse = []
    for name, title in FORMATS.items():
        cells = [title]
        for cache in CACHES[1:]:
            row = pictures.rows[name, cache]
            cells += [f"{row.reused:.1%}", f"{row.to_own.psnr:.1f}"]
        reuse.append(f"| {' | '.join(cells)} |")
    head = "".join(f" {cache}: PSNR | SSIM | FLIP |" for cache in CACHES)
    return f"""## Measured on the small trained model

`python -m benchmarks.formats --only pictures`, {pictures.machine}. {pictures.recipe}; photographs that no training step
saw. Every picture is compared with the float32 one without a cache, of the same noise: PSNR in dB (at most 60), SSIM,
and [FLIP](https://github.com/NVlabs/flip), where lower is better; means over the tasks. *File* and *in memory* are the
transformer's alone; *load* is the whole pipeline, the median of three loads; *step* is a computed one, the median over
the tasks, all formats taking turns.

![Quality and share reused by format](formats.png)

| format | file, MB | in memory, MB | load, s | step, ms |{head}
|---|---|---|---|---|{"---|" * 3 * len(CACHES)}
{chr(10).join(lines)}

**What a threshold means.** Steps reused with the same preset, and how far the cached picture is from the uncached one
*of the same format*:

| format | *Balanced*: reused | PSNR to its own | *Fast*: reused | PSNR to its own |
|---|---|---|---|---|
{chr(10).join(reuse)}

**What carries over to 12 billion parameters, and what does not.** The arithmetic of the formats does: 8 bits
with a scale for every 32 weights lose least; FP8 e4m3fn, as large, lies between them and 5 bits with scales,
and e5m2 among those; 4 bits lose most. NF4 and FP4 stand last here because their files pack the layers before
the first block and after the last as well, which GGUF files keep in 16 bits. The meaning of a threshold carries
over, too: quantisation noise is the same in every step, and a cache measures only what changes from step to
step. Decibels do not: a model this small has no weights to spare, and a large one averages more of
their noise away. Sizes carry over as shares; of the small model a larger part stays in 16 bits. Time and memory
do not: on the CPU the diffusers host computes in float32, keeps GGUF blocks and dequantises them in every step,
and turns everything else to float32 as it loads. K-quants are missing because their blocks of 256 weights do
not fit into rows of 128."""


def plot(pictures: Pictures, path: Path) -> None:
    """PSNR to float32 by format and cache, and the share reused."""
    figure, (quality, share) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained", facecolor="white")
    names = [name for name in FORMATS if name != "fp32"]
    for cache in CACHES:
        values = [pictures.rows[name, cache].to_exact.psnr for name in names]
        quality.plot(range(len(names)), values, color=COLOURS[cache], marker="o", label=f"cache {cache}")
        if cache != "Off":
            shares = [100 * pictures.rows[name, cache].reused for name in FORMATS]
            share.plot(range(len(FORMATS)), shares, color=COLOURS[cache], marker="o", label=cache)
    quality.set_ylabel("PSNR against float32 without a cache, dB")
    share.set(ylabel="steps reused, %", ylim=(0, 100))
    for axes, shown in ((quality, names), (share, list(FORMATS))):
        axes.set_xticks(range(len(shown)), [FORMATS[name].removeprefix("GGUF ") for name in shown], rotation=45)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
