"""The facts on the chosen checkpoint, as HTML: what it is, what its format costs, and whether it fits on the card."""

from __future__ import annotations

from pathlib import Path

from lib_fluxkontext.checkpoints.fidelity import fidelity
from lib_fluxkontext.checkpoints.flux import FAMILY_UNSURE, CheckpointFacts
from lib_fluxkontext.checkpoints.support import Host, why_not_loaded
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.hosts.forge.lifecycle import live_reports
from lib_fluxkontext.hosts.forge.runtime.checkpoint_header import read_facts
from lib_fluxkontext.hosts.forge.ui.markup import line
from lib_fluxkontext.i18n import translate
from lib_fluxkontext.presentation import text
from lib_fluxkontext.presentation.text import gigabytes
from lib_fluxkontext.sampling.vram import (
    FORGE_MINIMUM_FREE,
    ModelSize,
    SamplingLoad,
    VramEstimate,
    estimate_vram,
    fitting_quantisation,
    max_gpu_weights,
)
from lib_fluxkontext.settings import KontextSettings
from lib_fluxkontext.telemetry.working_memory import WorkingMemory

UNSURE = "Kontext and plain dev have the same tensors, and the name does not tell which this is."

GPU_WEIGHTS_STEP = 100
"""MB to which the advice on Forge's GPU Weights is rounded down."""


def checkpoint_line(load: SamplingLoad, settings: KontextSettings, chosen: str | None = None) -> str:
    """Describe the checkpoint that is chosen in Forge.

    Args:
        load: what will run at once.
        settings: which caches will be at work.
        chosen: its name, where Forge may not have taken note of it yet.
    """
    from lib_fluxkontext.hosts.forge.runtime import host_name, vram  # imports Forge

    path = chosen_file(chosen)
    if path is None:
        return line(translate("No checkpoint is chosen."), "fk-muted")
    try:
        facts = read_facts(path)
    except (KontextError, OSError) as error:
        return line(str(error), "fk-error")
    card, free = vram.card_bytes(), vram.minimum_free_bytes()
    host, in_megabytes = host_name.host_name(), vram.gpu_weights_in_megabytes()
    description = describe_checkpoint(facts, load, settings, card, free, in_megabytes, host)
    measured = live_reports.last_working_memory()
    return description if measured is None else description + line(_last_sampling(measured), "fk-muted")


def _last_sampling(measured: WorkingMemory) -> str:
    return f"{translate('Last sampling:')} {text.working_memory(measured)}"


def describe_checkpoint(
    facts: CheckpointFacts,
    load: SamplingLoad,
    settings: KontextSettings,
    card: int | None,
    free: int = FORGE_MINIMUM_FREE,
    gpu_weights: bool = True,
    host: Host = "Forge",
) -> str:
    """Describe a checkpoint, say whether the host loads it, what its format costs, and whether sampling fits.

    Args:
        facts: from its header.
        load: what will run at once.
        settings: which caches will be at work.
        card: memory of the card in bytes, or None without one.
        free: bytes that Forge keeps free of weights.
        gpu_weights: whether the host has a control GPU Weights, in MB.
        host: whose formats count.
    """
    description = line(identification(facts))
    if facts.family is None:
        return description + line(translate("It takes no references."), "fk-warning")
    refused = why_not_loaded(facts, host)
    if refused is not None:
        return description + line(refused, "fk-warning")
    if not facts.takes_references:
        return description + line(translate("It cannot take references; choose FLUX.1 Kontext."), "fk-warning")
    if facts.family == FAMILY_UNSURE:
        description += line(translate(UNSURE), "fk-muted")
    words = fidelity(facts)
    if words is not None:
        description += line(words, "fk-muted")
    model = ModelSize(facts.transformer_bytes)
    estimate = estimate_vram(model, load, settings, card, free)
    if card is None or estimate.total <= card:
        return description + _vram_line(estimate, card)
    quantisation = fitting_quantisation(model, facts.parameters, load, settings, card, free)
    return description + _vram_line(estimate, card, quantisation, gpu_weights)


def identification(facts: CheckpointFacts) -> str:
    """Name model and size: ``"a.gguf: FLUX.1 Kontext, Q8_0, 11.90 billion parameters, 11.85 GB (GGUF)"``."""
    if facts.family is None:
        return translate(
            "{name}: not FLUX.1, {mix}, {size} ({format})",
            name=facts.name,
            mix=facts.quantisation,
            size=gigabytes(facts.file_bytes),
            format=facts.format,
        )
    largest = translate("{kind} {count} tensors", kind=facts.quantisation, count=facts.mix[0].tensors)
    return translate(
        "{name}: {family}, {mix}, {billions} billion parameters, {size} ({format})",
        name=facts.name,
        family=translate(facts.family),
        mix=", ".join([largest, *(f"{part.kind} {part.tensors}" for part in facts.mix[1:4])]),
        billions=f"{facts.parameters / 1e9:.2f}",
        size=gigabytes(facts.transformer_bytes),
        format=facts.format,
    )


def _vram_line(
    estimate: VramEstimate, card: int | None, quantisation: str | None = None, gpu_weights: bool = True
) -> str:
    estimated = translate(
        "While sampling, estimated: {parts}, and {free} kept free: {total}",
        parts=" + ".join(f"{name} {gigabytes(size)}" for name, size in _parts(estimate)),
        free=gigabytes(estimate.free),
        total=gigabytes(estimate.total),
    )
    if card is None:
        return line(f"{estimated}.", "fk-muted")
    if estimate.total <= card:
        return line(estimated + translate(" of the card's {card}. It fits.", card=gigabytes(card)), "fk-muted")
    return line(estimated + _advice(estimate, card, quantisation, gpu_weights), "fk-warning")


def _parts(estimate: VramEstimate) -> list[tuple[str, int]]:
    """Name and bytes of each part of the estimate; caches and references only where there are any."""
    parts = [(translate("weights"), estimate.weights), (translate("picture"), estimate.activations)]
    if estimate.references:
        parts.append((translate("references"), estimate.references))
    if estimate.cache:
        parts.append(("First Block Cache", estimate.cache))  # a name, the same in every language
    if estimate.place == "host":
        parts.append((translate("their keys and values, streamed from main memory"), estimate.key_values))
    elif estimate.key_values:
        parts.append((translate("their keys and values"), estimate.key_values))
    return parts


def _advice(estimate: VramEstimate, card: int, quantisation: str | None, gpu_weights: bool) -> str:
    """Say what to do where the card has less than is needed.

    Args:
        estimate: for the checkpoint that is chosen.
        card: bytes.
        quantisation: with which sampling would fit, or None.
        gpu_weights: whether the host has a control GPU Weights, in MB.
    """
    advice = translate(
        ", more than the card's {card}. A part of the weights waits in main memory, which makes steps slower.",
        card=gigabytes(card),
    )
    swapped = min(estimate.weights, estimate.total - card)
    advice += translate(" About {size} of them cross to the card in every computed step.", size=gigabytes(swapped))
    if quantisation is not None:
        advice += translate(" Instead, for this card: {advice}.", advice=translate(quantisation))
    else:
        advice += translate(" Half size and a smaller picture need less.")
    if not gpu_weights:
        return advice
    megabytes = max_gpu_weights(card, estimate) // 2**20 // GPU_WEIGHTS_STEP * GPU_WEIGHTS_STEP
    return advice + translate(" GPU Weights at {weights} MB or less keep it from spilling.", weights=f"{megabytes:,}")


def chosen_file(chosen: str | None = None) -> Path | None:
    """Return the file of the checkpoint that is chosen in Forge, loaded or not; None where none is.

    Args:
        chosen: its name, or None for the one in Forge's settings.
    """
    from modules import sd_models, shared

    info = sd_models.get_closet_checkpoint_match(chosen or shared.opts.data.get("sd_model_checkpoint", ""))
    return Path(info.filename) if info is not None else None
