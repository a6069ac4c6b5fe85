"""The small model's transformer and its training by rectified flow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import FluxTransformer2DModel

from tools.small_kontext.batches import TEXT_LENGTHS, Batches, TextTable, layout_ids
from tools.small_kontext.courses import Layout
from tools.small_kontext.optim import Muon
from tools.small_kontext.pointing import HEADS, Pointing, wanted_sources
from tools.small_kontext.region_probe import RegionProbe
from tools.small_kontext.schedule import Average, progress, rate_at
from tools.small_kontext.speed import compile_blocks, fast_autocast
from tools.small_kontext.text import WIDTH

GUIDANCE = 3.5
"""The guidance value in half of the training; the rest is uniform from 1 to 6, so that it means nothing."""


def build_transformer() -> FluxTransformer2DModel:
    """Return an untrained transformer of Flux's architecture, 4 double and 8 single blocks of width 128."""
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=4,
        num_single_layers=8,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (".norm" in name and ".linear" in name) or "norm_out.linear" in name or name.startswith("proj_out"):
                parameter.zero_()
    return model


def train_transformer(
    batches: Batches,
    texts: TextTable,
    layouts: Sequence[Layout],
    steps: int,
    minutes: float | None,
    device: str,
    seed: int,
    log: Callable[[str], None],
    checkpoint: Callable[[FluxTransformer2DModel], None],
    start: FluxTransformer2DModel | None = None,
    peak: float = 0.02,
    batch: int = 24,
    sharpen: float = 1.0,
    pointing: float = 0.3,
    placing: float = 1.0,
) -> FluxTransformer2DModel:
    """Train by rectified flow: x = sigma*noise + (1-sigma)*x0, predict noise - x0.

    sigma is uniform, then shifted by a factor of 1.6, as the scheduler does at these sizes. One step uses
    one layout and one text length; ``batch`` is for the shortest sequence with two references, and smaller for
    longer ones. ``pointing`` and ``placing`` are the weights of the supervised attention's loss and of the
    region's; both fall to a tenth by the end.
    """
    model = (start or build_transformer()).to(device)
    parameters = list(model.parameters())
    optimiser = Muon(model, r"^proj_out|embed|\.norm", peak, 0.08 * peak, sharpen)
    average = Average(model, 0.998)
    heads, probe = Pointing(model), RegionProbe(model)
    if device == "cpu":
        compile_blocks(model, HEADS)  # the probe's block is one of theirs
    rng = np.random.default_rng(seed)
    weights = np.array([layout.weight for layout in layouts])
    weights /= weights.sum()
    lengths, chances = list(TEXT_LENGTHS), list(TEXT_LENGTHS.values())
    ids = [layout_ids(layout).to(device) for layout in layouts]
    started = last = time.time()
    step, sums, counted = 0, np.zeros(3), 0
    while (done := progress(step, steps, started, minutes)) < 1:
        index = int(rng.choice(len(layouts), p=weights))
        length = int(rng.choice(lengths, p=chances))
        size = max(4, min(batch, round(batch * 216 / (len(ids[index]) + length))))
        drawn = batches.draw(layouts[index], size)
        clean, references = drawn.clean, drawn.references
        states, pooled = texts.pick(drawn.prompts, length)
        uniform = (torch.rand(size, device=device) + torch.arange(size, device=device)) / size
        sigma = 1.6 * uniform / (1 + 0.6 * uniform)
        noise = torch.randn_like(clean)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        guidance = torch.full((size,), GUIDANCE, device=device)
        if rng.random() < 0.5:
            guidance = torch.rand(size, device=device) * 5 + 1
        tokens = noisy if references is None else torch.cat([noisy, references], 1)
        with fast_autocast(device):
            velocity = model(
                hidden_states=tokens,
                encoder_hidden_states=states,
                pooled_projections=pooled,
                timestep=sigma,
                guidance=guidance,
                img_ids=ids[index],
                txt_ids=torch.zeros(length, 3, device=device),
                return_dict=False,
            )[0]
        loss = (velocity[:, : clean.shape[1]].float() - (noise - clean)).square().mean()
        lost = torch.zeros((), device=device)
        if references is not None:
            lost = heads.loss(wanted_sources(drawn.instructions, layouts[index], device), ids[index], length)
        unplaced = probe.loss(drawn.regions.to(device))
        (loss + (1 - 0.9 * done) * (pointing * lost + placing * unplaced)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step(rate_at(done, 1.0))
        probe.step()
        average.update()
        step += 1
        if index == 0:
            sums += [float(value.detach()) for value in (loss, lost, unplaced)]
            counted += 1
        if step % 100 == 0 or step == 5:
            rate = (time.time() - last) / (100 if step > 5 else 5)
            last = time.time()
            means = ", ".join(f"{value:.4f}" for value in sums / max(1, counted))
            log(f"flow {step}/{steps} {done:.0%} loss, heads, region {means} (first layout) {rate:.3f} s/step")
            sums, counted = np.zeros(3), 0
        if step % 500 == 0:
            checkpoint(model)
    average.copy_back()
    log(f"flow done after {step} steps, {(time.time() - started) / 60:.1f} min")
    return model
