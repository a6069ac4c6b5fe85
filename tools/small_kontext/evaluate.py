"""Measure the small FLUX Kontext model on held-out photographs.

    python -m tools.small_kontext.evaluate

For every pair of held-out photographs and every kind of instruction: 20 Euler steps through the components of the
loaded ``FluxKontextPipeline``, the decoded picture against the exact answer, as PSNR in dB, beside what the
autoencoder alone reaches on that answer. Of a kind with many instructions every pair gets another one. With
``--more`` also other sizes, text lengths and phrasings, and the references exchanged or left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from PIL import Image
from torch import Tensor

from lib_fluxkontext.references.tokens import pack
from tools.small_kontext.batches import layout_ids
from tools.small_kontext.card import MAIN, write_results
from tools.small_kontext.courses import Layout
from tools.small_kontext.data import HELD_OUT, held_out_pairs, psnr, to_array
from tools.small_kontext.flow import GUIDANCE
from tools.small_kontext.instructions import EDITS, KINDS, of_kind
from tools.small_kontext.targets import Example, Size, example
from tools.small_kontext.vae import reconstruction_psnr

MODEL = Path(__file__).resolve().parents[2] / "lib_fluxkontext" / "small_kontext"
"""Where the shipped model lies."""


def load(folder: Path) -> FluxKontextPipeline:
    """Load the pipeline from a folder in float32."""
    pipe = FluxKontextPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def encode(pipe: FluxKontextPipeline, pictures: list[Image.Image], batch: int = 8) -> Tensor:
    """Return the pictures' normalised posterior means, (mean - shift) * scale."""
    config, parts = pipe.vae.config, []
    for start in range(0, len(pictures), batch):
        pixels = torch.from_numpy(np.stack([to_array(picture) for picture in pictures[start : start + batch]]))
        parts.append(pipe.vae.encode(pixels.to(pipe.device)).latent_dist.mean)
    return (torch.cat(parts) - config.shift_factor) * config.scaling_factor


@torch.no_grad()
def generate(
    pipe: FluxKontextPipeline,
    prompts: list[str],
    references: list[list[Image.Image]],
    size: tuple[int, int],
    steps: int = 20,
    seed: int = 0,
    text_length: int = 24,
) -> np.ndarray:
    """Generate one picture of ``size`` (width, height) for each prompt.

    Args:
        pipe: the loaded pipeline, whose components are used.
        prompts: one prompt a picture.
        references: one list a reference: that reference of every picture, all of one size. May be empty.
        size: width and height, multiples of 16.
        steps: Euler steps.
        seed: seed of the starting noise.
        text_length: length that the T5 tokens are padded to.

    Returns:
        float32 in [-1, 1], (N, 3, height, width).
    """
    device = str(pipe.device)
    states, pooled, text_ids = pipe.encode_prompt(prompts, None, max_sequence_length=text_length)
    layout = Layout(size, tuple(row[0].size for row in references))
    ids = layout_ids(layout).to(device)
    context = [pack(encode(pipe, row)) for row in references]
    count = size[0] * size[1] // 256
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(prompts), count, 64, generator=generator).to(device)
    config = pipe.scheduler.config
    mu = calculate_shift(
        count, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    guidance = torch.full((len(prompts),), GUIDANCE, device=device)
    for time_step in pipe.scheduler.timesteps:
        velocity = pipe.transformer(
            hidden_states=torch.cat([tokens, *context], 1),
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=(time_step / 1000).expand(len(prompts)),
            guidance=guidance,
            img_ids=ids,
            txt_ids=text_ids,
            return_dict=False,
        )[0][:, :count]
        tokens = pipe.scheduler.step(velocity, time_step, tokens, return_dict=False)[0]
    latents = pipe._unpack_latents(tokens, size[1], size[0], pipe.vae_scale_factor)
    latents = latents / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    return pipe.vae.decode(latents, return_dict=False)[0].clamp(-1, 1).float().cpu().numpy()


def examples_of(kind: str, pairs: list[tuple[str, Image.Image, Image.Image]], size: Size) -> list[tuple[int, Example]]:
    """Return an example for each pair, with the number of its instruction among the kind's: far from its neighbours."""
    choices = of_kind(kind)
    numbers = [i * max(1, round(len(choices) * 0.618)) % len(choices) for i in range(len(pairs))]
    return [(n, example(choices[n], pair[1], pair[2], size)) for n, pair in zip(numbers, pairs, strict=True)]


def evaluate(
    pipe: FluxKontextPipeline,
    kinds: Sequence[str],
    canvas: Size = (256, 256),
    references: tuple[Size, Size] = ((256, 256), (256, 256)),
    pairs: int | None = None,
    steps: int = 20,
    text_length: int = 24,
    phrasing: int = 0,
    given: str = "asked",
) -> dict[str, dict[str, float]]:
    """Return, by kind, PSNR in dB against the exact answer: mean, worst, and the mean of the autoencoder alone.

    Args:
        pipe: the loaded pipeline.
        kinds: of instructions.
        canvas: size of the picture.
        references: size of the first and of the second.
        pairs: use only that many.
        steps: Euler steps.
        text_length: what the T5 text is padded to.
        phrasing: which of each instruction's; -1 is the last.
        given: ``asked``, ``exchanged`` references or ``none``; the answer is that of ``asked``.
    """
    firsts, seconds = held_out_pairs(references[0])[:pairs], held_out_pairs(references[1])[:pairs]
    named = [(a[0], a[1], b[2]) for a, b in zip(firsts, seconds, strict=True)]
    result = {}
    for kind in kinds:
        made = examples_of(kind, named, canvas)
        prompts = [of_kind(kind)[number].phrasings()[phrasing] for number, _ in made]
        rows = [[one.references[i] for _, one in made] for i in (0, 1)]
        shown = {"asked": rows, "exchanged": rows[::-1], "none": []}[given]
        answers = [to_array(one.target) for _, one in made]
        pictures = generate(pipe, prompts, shown, canvas, steps, text_length=text_length)
        values = [psnr(a, b) for a, b in zip(pictures, answers, strict=True)]
        alone = float(np.mean([reconstruction(pipe, array) for array in answers]))
        result[kind] = {"mean": float(np.mean(values)), "worst": min(values), "autoencoder": alone}
        print(f"{kind:12}" + "".join(f"{value:12.2f}" for value in result[kind].values()), flush=True)
    return result


@torch.no_grad()
def reconstruction(pipe: FluxKontextPipeline, array: np.ndarray) -> float:
    """Return the PSNR of the autoencoder alone on one picture."""
    decoded = pipe.vae.decode(pipe.vae.encode(torch.from_numpy(array)[None]).latent_dist.mean).sample
    return psnr(decoded.clamp(-1, 1).numpy()[0], array)


def contact_sheet(pipe: FluxKontextPipeline, path: Path, size: Size = (256, 256)) -> None:
    """Save a sheet: for each kind the references, the exact answer and the result, of two pairs."""
    pairs = held_out_pairs(size)[:2]
    kinds = [*KINDS, *EDITS]
    step_x, step_y = size[0] + 4, size[1] + 4
    sheet = Image.new("RGB", (8 * step_x, len(kinds) * step_y), "white")
    for row, kind in enumerate(kinds):
        made = examples_of(kind, pairs, size)
        prompts = [of_kind(kind)[number].phrasings()[0] for number, _ in made]
        shown = [[one.references[i] for _, one in made] for i in (0, 1)]
        pictures = generate(pipe, prompts, shown, size)
        for number, ((_, one), picture) in enumerate(zip(made, pictures, strict=True)):
            result = Image.fromarray(((picture.transpose(1, 2, 0) + 1) * 127.5 + 0.5).clip(0, 255).astype(np.uint8))
            for column, tile in enumerate((*one.references, one.target, result)):
                sheet.paste(tile, ((4 * number + column) * step_x, row * step_y))
    sheet.save(path)


S128, S256 = (128, 128), (256, 256)
MORE: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "canvas and references 128x128": ((*KINDS, *EDITS), {"canvas": S128, "references": (S128, S128)}),
    "canvas 256x256, references 128x128": ((*KINDS, "inset"), {"references": (S128, S128)}),
    "canvas 256x256, references 256x256 and 128x128": (("left_right", "inset"), {"references": (S256, S128)}),
    "canvas 128x128, references 256x256": ((*KINDS, "inset"), {"canvas": S128, "references": (S256, S256)}),
    "references exchanged": (KINDS, {"canvas": S128, "references": (S128, S128), "given": "exchanged"}),
    "no references": (KINDS, {"canvas": S128, "references": (S128, S128), "given": "none"}),
    "text padded to 512": (KINDS, {"canvas": S128, "references": (S128, S128), "text_length": 512}),
    "text padded to 256": (KINDS, {"canvas": S128, "references": (S128, S128), "text_length": 256}),
    "last phrasings": ((*KINDS, *EDITS), {"canvas": S128, "references": (S128, S128), "phrasing": -1}),
}
"""Title, kinds and what differs from 256x256."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=20, help="Euler steps")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--pairs", type=int, help="use only that many pairs")
    parser.add_argument("--only", nargs="+", choices=[*KINDS, *EDITS], help="only these kinds, at 256x256")
    parser.add_argument("--more", action="store_true", help="also other sizes, text lengths and phrasings")
    parser.add_argument("--sheet", type=Path, help="save a contact sheet of results here")
    parser.add_argument("--json", type=Path, help="save the numbers here")
    parser.add_argument("--card", action="store_true", help="put the numbers into the model's README.md")
    arguments = parser.parse_args()
    started = time.time()
    pipe = load(arguments.model)
    torch.set_num_threads(arguments.threads)
    names = sorted({name for pair in held_out_pairs() for name in pair[0].split("+")})
    print(f"held-out photographs: {', '.join(names)} ({len(HELD_OUT) - len(names)} not installed)")
    found: dict[str, object] = {}
    for side in (128, 256):
        values = reconstruction_psnr(pipe.vae, side)
        found[f"autoencoder {side}"] = values
        print(f"autoencoder alone, {side}x{side}: {np.mean(list(values.values())):.2f} dB")
    cases: dict[str, tuple[Sequence[str], dict[str, Any]]]
    cases = {MAIN: (arguments.only or (*KINDS, *EDITS), {})}
    cases |= MORE if arguments.more else {}
    for title, (kinds, options) in cases.items():
        print(f"\n{title}, {arguments.steps} steps; PSNR in dB")
        print(f"{'instruction':12}{'mean':>12}{'worst':>12}{'autoencoder':>12}")
        found[title] = evaluate(pipe, kinds, pairs=arguments.pairs, steps=arguments.steps, **options)
        print(f"({time.time() - started:.0f} s so far)")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.card:
        write_results(
            arguments.model / "README.md", found, f"{len(names)} photographs: {', '.join(names)}", arguments.pairs
        )
    if arguments.sheet:
        contact_sheet(pipe, arguments.sheet)


if __name__ == "__main__":
    main()
