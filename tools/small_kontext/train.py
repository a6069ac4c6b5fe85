"""Train the small FLUX Kontext model and write its folder: text encoders, autoencoder, then the transformer.

    python -m tools.small_kontext.train --out FOLDER [--work FOLDER] [--device cuda]

Five stages leave their results in the work folder: ``text``, ``vae``, ``decoder`` (the autoencoder's decoder
further), ``small`` (the transformer on canvases of about 128x128) and ``transformer`` (256x256, too, by ``--course``).
A stage that is done is not done again. ``decoder`` and ``small`` + ``transformer`` need not wait for each other: with
``--stages`` they can be two processes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from tools.small_kontext.batches import Batches, Encoder, Pool, TextTable
from tools.small_kontext.courses import COURSES, POOL_SIZES, Course
from tools.small_kontext.flow import train_transformer
from tools.small_kontext.pictures import PictureSource
from tools.small_kontext.text import build_text
from tools.small_kontext.vae import normalise, reconstruction_psnr
from tools.small_kontext.vae_training import train_vae

MODEL_INDEX = {
    "_class_name": "FluxKontextPipeline",
    "_diffusers_version": "0.35.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def log(line: str) -> None:
    """Print a line with the time, at once."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def write_model(out: Path, work: Path) -> None:
    """Write the model folder: float16 weights, Flux's scheduler settings, the pipeline's index."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"):
        shutil.copytree(work / "text" / name, out / name, dirs_exist_ok=True)
    AutoencoderKL.from_pretrained(work / "decoder").half().save_pretrained(out / "vae")
    FluxTransformer2DModel.from_pretrained(work / "transformer").half().save_pretrained(out / "transformer")
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    scheduler.save_pretrained(out / "scheduler")
    for config in out.glob("*/config.json"):  # a working folder's name is nobody's business
        values = json.loads(config.read_text())
        values.pop("_name_or_path", None)
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    (out / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")


PLACES = {
    "tokenizer": ("text/tokenizer",),
    "tokenizer_2": ("text/tokenizer_2",),
    "text_encoder": ("text/text_encoder",),
    "text_encoder_2": ("text/text_encoder_2",),
    "vae": ("vae", "decoder"),
    "transformer": ("transformer",),
}
"""Where a written model's parts belong in a work folder."""


def go_on_from(model: Path, work: Path) -> None:
    """Fill an empty work folder with the parts of a written model, so that a stage can go on from them."""
    for part, places in PLACES.items():
        for place in places:
            shutil.copytree(model / part, work / place, dirs_exist_ok=True)


def text_stage(arguments: argparse.Namespace) -> None:
    """Write tokenizers and text encoders."""
    if not (arguments.work / "text" / "text_encoder_2").exists():
        build_text(arguments.work / "text", arguments.seed)


def log_reconstruction(vae: AutoencoderKL, device: str) -> None:
    """Print the autoencoder's PSNR on held-out photographs."""
    for side in (96, 128, 256):
        values = reconstruction_psnr(vae.eval(), side, device)
        log(f"autoencoder {side}: {sum(values.values()) / len(values):.2f} dB on held-out photographs")


def vae_stage(arguments: argparse.Namespace) -> None:
    """Train the autoencoder and set its scaling."""
    out = arguments.work / "vae"
    if (out / "config.json").exists():
        return
    torch.manual_seed(arguments.seed)
    source = PictureSource(arguments.seed)
    steps, minutes = arguments.vae_steps, arguments.vae_minutes
    part = arguments.work / "vae_part.pt"
    resume = torch.load(part, map_location=arguments.device) if part.exists() else None
    keep = partial(torch.save, f=part)
    vae = train_vae(source, steps, minutes, arguments.device, log, keep, resume=resume).eval()
    normalise(vae, source, arguments.device)
    log_reconstruction(vae, arguments.device)
    vae.save_pretrained(out)


def decoder_stage(arguments: argparse.Namespace) -> None:
    """Train the autoencoder's decoder further; encoder and scaling stay."""
    out = arguments.work / "decoder"
    if (out / "config.json").exists():
        return
    torch.manual_seed(arguments.seed + 5)
    source = PictureSource(arguments.seed + 5)
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae", torch_dtype=torch.float32)
    steps, minutes = arguments.decoder_steps, arguments.decoder_minutes
    part = arguments.work / "decoder_part.pt"
    keep, peak = partial(torch.save, f=part), arguments.decoder_rate
    vae = train_vae(source, steps, minutes, arguments.device, log, keep, start=vae, peak=peak)
    log_reconstruction(vae, arguments.device)
    vae.save_pretrained(out)


def flow_stage(arguments: argparse.Namespace, name: str, course: Course, number: int) -> None:
    """Train the transformer on a course, from the stage before's."""
    out, part = arguments.work / name, arguments.work / f"{name}_part"
    if (out / "config.json").exists() and not arguments.go_on:
        return
    before = out if arguments.go_on else arguments.work / "small"
    start = None
    if (before / "config.json").exists():
        start = FluxTransformer2DModel.from_pretrained(before, torch_dtype=torch.float32)
    seed = arguments.seed + number + 10 * arguments.go_on
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae", torch_dtype=torch.float32)
    encoder = Encoder(vae, arguments.device)
    source = PictureSource(seed)
    sizes = {size for layout in course.layouts for size in layout.references}
    pools = {}
    for size in sorted(sizes):
        pools[size] = Pool(size, max(1, round(POOL_SIZES[size] * arguments.share)), source, encoder)
        spread, mean = float(pools[size].latents.std()), float(pools[size].latents.mean())
        log(
            f"{len(pools[size].pictures)} pictures of {size}: latents' mean {mean:.3f}, standard deviation {spread:.3f}"
        )
    transformer = train_transformer(
        Batches(pools, encoder, np.random.default_rng(seed), course.kinds),
        TextTable(arguments.work / "text", arguments.device),
        course.layouts,
        arguments.steps,
        arguments.minutes,
        arguments.device,
        seed,
        log,
        lambda model: model.save_pretrained(part),
        start,
        arguments.rate,
        arguments.batch,
        arguments.sharpen,
    )
    transformer.save_pretrained(out)


def small_stage(arguments: argparse.Namespace) -> None:
    """Train the transformer on canvases of about 128x128."""
    flow_stage(arguments, "small", COURSES["small"], 2)


def transformer_stage(arguments: argparse.Namespace) -> None:
    """Train it further on the course that is asked for."""
    flow_stage(arguments, "transformer", COURSES[arguments.course], 3)


STAGES = {
    "text": text_stage,
    "vae": vae_stage,
    "decoder": decoder_stage,
    "small": small_stage,
    "transformer": transformer_stage,
}
"""The stages in their order."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path("small_kontext_work"), help="folder of finished stages")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=9000)
    parser.add_argument("--vae-minutes", type=float, help="end the autoencoder's training by the clock")
    parser.add_argument("--decoder-steps", type=int, default=3500)
    parser.add_argument("--decoder-minutes", type=float, help="end the decoder's further training by the clock")
    parser.add_argument("--decoder-rate", type=float, default=0.008, help="its learning rate")
    parser.add_argument("--steps", type=int, default=3400, help="the transformer's training steps")
    parser.add_argument("--minutes", type=float, help="end the transformer's training by the clock")
    parser.add_argument("--batch", type=int, default=24, help="pictures in a step of the shortest sequence")
    parser.add_argument("--rate", type=float, default=0.02, help="the transformer's highest learning rate")
    parser.add_argument("--sharpen", type=float, default=6.0, help="factor on the rate of attention's scales")
    parser.add_argument("--share", type=float, default=1.0, help="draw this share of the pools' pictures")
    parser.add_argument("--start", type=Path, help="first copy this model's parts into the work folder, for --go-on")
    parser.add_argument("--go-on", action="store_true", help="start from the work folder's last transformer")
    parser.add_argument("--course", choices=COURSES, default="large", help="of the stage transformer; see courses.py")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    if arguments.start is not None:
        go_on_from(arguments.start, arguments.work)
    for stage in arguments.stages:
        STAGES[stage](arguments)
    transformer = arguments.work / "transformer"
    if not (transformer / "config.json").exists() or not (arguments.work / "decoder" / "config.json").exists():
        log("no model written yet: not all stages are done")
        return
    write_model(arguments.out, arguments.work)
    log(f"written: {sum(f.stat().st_size for f in arguments.out.rglob('*') if f.is_file())} bytes")


if __name__ == "__main__":
    main()
