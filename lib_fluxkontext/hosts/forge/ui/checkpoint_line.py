"""What the panel says of the chosen checkpoint: what it is, and whether it fits. Plain HTML."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from lib_fluxkontext.checkpoints.flux import CheckpointFacts, checkpoint_facts
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation.text import gigabytes
from lib_fluxkontext.sampling.vram import (
    ModelSize,
    SamplingLoad,
    VramEstimate,
    estimate_vram,
    max_gpu_weights,
    smaller_quantisation,
)
from lib_fluxkontext.settings import KontextSettings

UNSURE = "Kontext and plain dev have the same tensors, and the name does not tell which this is."


def checkpoint_line(load: SamplingLoad, settings: KontextSettings) -> str:
    """Describe the checkpoint that is chosen in Forge, and whether it fits, as HTML.

    Args:
        load: what will run at once.
        settings: which caches will be at work.
    """
    path = chosen_file()
    if path is None:
        return line(translate("No checkpoint is chosen."), "fk-muted")
    try:
        facts = _facts(path, path.stat().st_mtime_ns)
    except (KontextError, OSError) as error:
        return line(str(error), "fk-error")
    lines = [line(what_it_is(facts))]
    if facts.family is None:
        lines.append(line(translate("It takes no references."), "fk-warning"))
    elif not facts.takes_references:
        lines.append(line(translate("It cannot take references; choose FLUX.1 Kontext."), "fk-warning"))
    else:
        if facts.family == "FLUX.1 dev or Kontext":
            lines.append(line(translate(UNSURE), "fk-muted"))
        card, weights = card_bytes(), facts.transformer_bytes
        needed = estimate_vram(ModelSize(weights), load, settings, card, free_bytes())
        lines.append(_memory(facts, needed, card))
    return "".join(lines)


def what_it_is(facts: CheckpointFacts) -> str:
    """``"flux1-kontext-dev-Q8_0.gguf: FLUX.1 Kontext, Q8_0, 11.90 billion parameters, 11.85 GB (GGUF)"``."""
    if facts.family is None:
        size = gigabytes(facts.file_bytes)
        known = {"name": facts.name, "mix": facts.quantisation, "size": size, "format": facts.format}
        return translate("{name}: not FLUX.1, {mix}, {size} ({format})", **known)
    counted = translate("{kind} {count} tensors", kind=facts.quantisation, count=facts.mix[0].tensors)
    return translate(
        "{name}: {family}, {mix}, {billions} billion parameters, {size} ({format})",
        name=facts.name,
        family=translate(facts.family),
        mix=", ".join([counted, *(f"{part.kind} {part.tensors}" for part in facts.mix[1:4])]),
        billions=f"{facts.parameters / 1e9:.2f}",
        size=gigabytes(facts.transformer_bytes),
        format=facts.format,
    )


def _memory(facts: CheckpointFacts, needed: VramEstimate, card: int | None) -> str:
    parts = [(translate("weights"), needed.weights), (translate("picture"), needed.activations)]
    if needed.references:
        parts.append((translate("references"), needed.references))
    if needed.cache:
        parts.append(("First Block Cache", needed.cache))  # a name, the same in every language
    if needed.place == "host":
        parts.append((translate("their keys and values, streamed from main memory"), needed.key_values))
    elif needed.key_values:
        parts.append((translate("their keys and values"), needed.key_values))
    text = translate(
        "While sampling, estimated: {parts}, and {free} kept free: {total}",
        parts=" + ".join(f"{name} {gigabytes(size)}" for name, size in parts),
        free=gigabytes(needed.free),
        total=gigabytes(needed.total),
    )
    if card is None:
        return line(f"{text}.", "fk-muted")
    if needed.total <= card:
        return line(text + translate(" of the card's {card}. It fits.", card=gigabytes(card)), "fk-muted")
    more = translate(
        ", more than the card's {card}. A part of the weights waits in main memory, which makes steps slower.",
        card=gigabytes(card),
    )
    instead = smaller_quantisation(card, facts.transformer_bytes / max(1, facts.parameters))
    if instead is not None:
        more += translate(" Instead, for this card: {advice}.", advice=translate(instead))
    else:
        more += translate(" Half size and a smaller picture need less.")
    weights = f"{max_gpu_weights(card, needed) // 2**20 // 100 * 100:,}"
    more += translate(" GPU Weights at {weights} MB or less keep it from spilling.", weights=weights)
    return line(text + more, "fk-warning")


@lru_cache(maxsize=8)
def _facts(path: Path, _changed: int) -> CheckpointFacts:
    return checkpoint_facts(path)


def chosen_file() -> Path | None:
    """The file of the checkpoint that is chosen in Forge, loaded or not."""
    from modules import sd_models, shared

    info: Any = sd_models.get_closet_checkpoint_match(shared.opts.data.get("sd_model_checkpoint", ""))
    return Path(info.filename) if info is not None else None


def free_bytes() -> int:
    """What Forge keeps free of weights: the card less its GPU Weights."""
    from backend import memory_management

    return int(memory_management.minimum_inference_memory())


def card_bytes() -> int | None:
    """Memory of the card that Forge computes on, or None without one."""
    from backend import memory_management

    device = memory_management.get_torch_device()
    return None if memory_management.is_device_cpu(device) else int(memory_management.get_total_memory(device))
