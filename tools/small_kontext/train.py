"""Train the small FLUX Kontext model and write its folder: text encoders, autoencoder, then the transformer.

    python -m tools.small_kontext.train --out FOLDER [--work FOLDER] [--device cuda]

Five stages leave their results in the work folder: ``text``, ``vae``, ``pools`` (the transformer's examples,
as latents), ``decoder`` (the autoencoder's decoder further) and ``transformer``. A stage that is done is not
done again. ``decoder`` and ``pools`` + ``transformer`` need not wait for each other: with ``--stages`` they
can be two processes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from tools.small_kontext.flow import LAYOUTS, TextTable, make_examples, train_transformer
from tools.small_kontext.pictures import PictureSource
from tools.small_kontext.text import build_text
from tools.small_kontext.vae import normalise, reconstruction_psnr, train_vae

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
    steps, minutes, compiled = arguments.vae_steps, arguments.vae_minutes, arguments.compile
    part = arguments.work / "vae_part.pt"
    resume = torch.load(part, map_location=arguments.device) if part.exists() else None
    keep = partial(torch.save, f=part)
    vae = train_vae(source, steps, minutes, arguments.device, compiled, log, keep, resume=resume).eval()
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
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae")
    steps, minutes, compiled = arguments.decoder_steps, arguments.decoder_minutes, arguments.compile
    part = arguments.work / "decoder_part.pt"
    keep, peak = partial(torch.save, f=part), arguments.decoder_rate
    vae = train_vae(source, steps, minutes, arguments.device, compiled, log, keep, start=vae, peak=peak)
    log_reconstruction(vae, arguments.device)
    vae.save_pretrained(out)


def pools_stage(arguments: argparse.Namespace) -> None:
    """Draw the transformer's examples and encode them."""
    out = arguments.work / "pools.pt"
    if out.exists():
        return
    torch.manual_seed(arguments.seed + 1)
    source = PictureSource(arguments.seed + 1)
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").to(arguments.device).eval()
    vae.to(memory_format=torch.channels_last)
    pools = []
    for layout in LAYOUTS:
        pools.append(make_examples(layout, vae, source, arguments.device, arguments.share))
        log(f"examples of {layout.canvas} from {layout.references}: {len(pools[-1].targets[0])}")
    torch.save(pools, out)
    latents = pools[0].references[0]
    log(f"latents: mean {float(latents.mean()):.3f}, standard deviation {float(latents.std()):.3f}")


def transformer_stage(arguments: argparse.Namespace) -> None:
    """Train the transformer, from nothing or from the work folder's last one."""
    out, part = arguments.work / "transformer", arguments.work / "transformer_part"
    if (out / "config.json").exists() and not arguments.go_on:
        return
    start = FluxTransformer2DModel.from_pretrained(out) if arguments.go_on else None
    seed = arguments.seed + 2 + 10 * arguments.go_on
    torch.manual_seed(seed)
    pools = torch.load(arguments.work / "pools.pt", weights_only=False, map_location=arguments.device)
    transformer = train_transformer(
        pools,
        TextTable(arguments.work / "text", arguments.device),
        arguments.steps,
        arguments.minutes,
        arguments.device,
        arguments.compile_transformer,
        seed,
        log,
        lambda model: model.save_pretrained(part),
        start,
        arguments.rate,
        arguments.batch,
        arguments.pair_share,
        arguments.sharpen,
        {int(index): float(weight) for index, weight in (pair.split("=") for pair in arguments.weight)},
    )
    transformer.save_pretrained(out)


STAGES = {
    "text": text_stage,
    "vae": vae_stage,
    "pools": pools_stage,
    "decoder": decoder_stage,
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
    parser.add_argument("--vae-steps", type=int, default=2600)
    parser.add_argument("--vae-minutes", type=float, help="end the autoencoder's training by the clock")
    parser.add_argument("--decoder-steps", type=int, default=3500)
    parser.add_argument("--decoder-minutes", type=float, help="end the decoder's further training by the clock")
    parser.add_argument("--decoder-rate", type=float, default=0.008, help="its learning rate")
    parser.add_argument("--steps", type=int, default=3400, help="the transformer's training steps")
    parser.add_argument("--minutes", type=float, help="end the transformer's training by the clock")
    parser.add_argument("--batch", type=int, default=32, help="pictures in a step of the shortest sequence")
    parser.add_argument("--rate", type=float, default=0.02, help="the transformer's highest learning rate")
    parser.add_argument("--pair-share", type=float, default=0.7, help="share of instructions using both")
    parser.add_argument("--sharpen", type=float, default=6.0, help="factor on the rate of attention's scales")
    parser.add_argument("--weight", nargs="*", default=[], help="INDEX=WEIGHT: how often that layout is used")
    parser.add_argument("--share", type=float, default=1.0, help="make this share of the transformer's examples")
    parser.add_argument("--compile", action="store_true", help="torch.compile the autoencoder")
    parser.add_argument("--compile-transformer", action="store_true")
    parser.add_argument("--go-on", action="store_true", help="start from the work folder's last transformer")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
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
