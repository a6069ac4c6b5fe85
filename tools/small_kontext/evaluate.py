"""Measure the small FLUX Kontext model on held-out photographs.

    python -m tools.small_kontext.evaluate

For every pair of held-out photographs and every instruction: 20 Euler steps through the components of the
loaded ``FluxKontextPipeline``, the decoded picture against the exact target, as PSNR in dB. Then the same
with the references exchanged, and without references, both against the same targets.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from PIL import Image
from torch import Tensor

from tools.small_kontext.data import HELD_OUT, KINDS, PHRASINGS, held_out_pairs, psnr, target, to_array
from tools.small_kontext.flow import GUIDANCE, Layout, encode, layout_ids, pack
from tools.small_kontext.vae import reconstruction_psnr

MODEL = Path(__file__).resolve().parents[2] / "lib_fluxkontext" / "small_kontext"
"""Where the shipped model lies."""


def load(folder: Path) -> FluxKontextPipeline:
    """Load the pipeline from a folder in float32."""
    pipe = FluxKontextPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo ``pack`` for latents of ``height`` x ``width``."""
    return (
        tokens.reshape(len(tokens), height // 2, width // 2, -1, 2, 2)
        .permute(0, 3, 1, 4, 2, 5)
        .reshape(len(tokens), -1, height, width)
    )


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
    layout = Layout(size, tuple(row[0].size for row in references), 1, 1.0)
    ids = layout_ids(layout).to(device)
    context = [pack(encode(pipe.vae, row, device, autocast=False)) for row in references]
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
    latents = unpack(tokens, size[1] // 8, size[0] // 8)
    latents = latents / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    return pipe.vae.decode(latents, return_dict=False)[0].clamp(-1, 1).float().cpu().numpy()


def evaluate(
    pipe: FluxKontextPipeline,
    canvas: tuple[int, int] = (96, 96),
    reference: tuple[int, int] = (96, 96),
    pairs: int | None = None,
    steps: int = 20,
    text_length: int = 24,
    phrasing: int = 0,
    controls: bool = True,
) -> dict[str, dict[str, float]]:
    """Return mean PSNR by instruction: as asked and, as ``controls``, with references exchanged and with none.

    ``worst`` is the lowest single PSNR as asked; ``decoder`` the autoencoder's own on the same targets.
    """
    named = held_out_pairs(reference)[:pairs]
    firsts, seconds = [row[1] for row in named], [row[2] for row in named]
    result = {}
    for kind in KINDS:
        prompts = [PHRASINGS[kind][phrasing]] * len(named)
        wanted = [target(kind, a, b, canvas) for a, b in zip(firsts, seconds, strict=True)]
        arrays = [to_array(picture) for picture in wanted]
        row = {}
        runs = {"asked": [firsts, seconds]}
        if controls:
            runs |= {"exchanged": [seconds, firsts], "none": []}
        for name, references in runs.items():
            made = generate(pipe, prompts, references, canvas, steps, text_length=text_length)
            values = [psnr(a, b) for a, b in zip(made, arrays, strict=True)]
            row[name] = float(np.mean(values))
            if name == "asked":
                row["worst"] = min(values)
        row["decoder"] = float(np.mean([reconstruction(pipe, array) for array in arrays]))
        result[kind] = row
    return result


@torch.no_grad()
def reconstruction(pipe: FluxKontextPipeline, array: np.ndarray) -> float:
    """Return the PSNR of the autoencoder alone on one picture."""
    decoded = pipe.vae.decode(pipe.vae.encode(torch.from_numpy(array)[None]).latent_dist.mean).sample
    return psnr(decoded.clamp(-1, 1).numpy()[0], array)


def contact_sheet(pipe: FluxKontextPipeline, path: Path, size: tuple[int, int] = (96, 96)) -> None:
    """Save a sheet: for six pairs both references, then target and result of each instruction."""
    rows = held_out_pairs(size)[:12:2]
    sheet = Image.new("RGB", ((2 + 2 * len(KINDS)) * (size[0] + 4), len(rows) * (size[1] + 4)), "white")
    for j, kind in enumerate(KINDS):
        firsts, seconds = [row[1] for row in rows], [row[2] for row in rows]
        made = generate(pipe, [PHRASINGS[kind][0]] * len(rows), [firsts, seconds], size)
        for i, (a, b) in enumerate(zip(firsts, seconds, strict=True)):
            result = Image.fromarray(((made[i].transpose(1, 2, 0) + 1) * 127.5 + 0.5).clip(0, 255).astype(np.uint8))
            tiles = {0: a, 1: b, 2 + 2 * j: target(kind, a, b, size), 3 + 2 * j: result}
            for column, tile in tiles.items():
                sheet.paste(tile, (column * (size[0] + 4), i * (size[1] + 4)))
    sheet.save(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=20, help="Euler steps")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--pairs", type=int, help="use only that many pairs")
    parser.add_argument("--more", action="store_true", help="also other sizes, text lengths and phrasings")
    parser.add_argument("--sheet", type=Path, help="save a contact sheet of results here")
    parser.add_argument("--json", type=Path, help="save the numbers here")
    arguments = parser.parse_args()
    started = time.time()
    pipe = load(arguments.model)
    torch.set_num_threads(arguments.threads)
    names = sorted({name for pair in held_out_pairs() for name in pair[0].split("+")})
    print(f"held-out photographs: {', '.join(names)} ({len(HELD_OUT) - len(names)} not installed)")
    found: dict[str, object] = {}
    for side in (96, 128, 256):
        values = reconstruction_psnr(pipe.vae, side)
        found[f"autoencoder {side}"] = values
        print(f"autoencoder alone, {side}x{side}: {np.mean(list(values.values())):.2f} dB")
    cases = {"canvas 96x96, references 96x96": {}}
    if arguments.more:
        cases |= {
            "text padded to 512": {"text_length": 512},
            "text padded to 256": {"text_length": 256},
            "last phrasings": {"phrasing": -1},
            "canvas 128x128, references 128x128": {"canvas": (128, 128), "reference": (128, 128)},
            "canvas 128x96, references 96x96": {"canvas": (128, 96), "reference": (96, 96)},
            "canvas 96x96, references 128x128": {"reference": (128, 128)},
            "canvas 96x96, references 64x64": {"reference": (64, 64)},
        }
    for title, options in cases.items():
        result = evaluate(pipe, pairs=arguments.pairs, steps=arguments.steps, controls=not options, **options)
        found[title] = result
        print(f"\n{title}, {arguments.steps} steps; mean PSNR in dB")
        print(f"{'instruction':12}" + "".join(f"{name:>11}" for name in result["first"]))
        for kind, row in result.items():
            print(f"{kind:12}" + "".join(f"{value:11.2f}" for value in row.values()))
        mean = math.fsum(row["asked"] for row in result.values()) / len(result)
        print(f"{'mean':12}{mean:8.2f}   ({time.time() - started:.0f} s so far)")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.sheet:
        contact_sheet(pipe, arguments.sheet)


if __name__ == "__main__":
    main()
