"""How close pictures of quantised weights come to those of full precision, in words, as docs/formats.md measured."""

from __future__ import annotations

from lib_fluxkontext.checkpoints.flux import CheckpointFacts
from lib_fluxkontext.checkpoints.support import scaled_format
from lib_fluxkontext.i18n import translate

MEASURED_PSNR: dict[str, float] = {
    "F16": 60.0,
    "BF16": 60.0,
    "Q8_0": 58.2,
    "F8_E4M3": 52.6,
    "Q5_1": 50.7,
    "Q5_0": 48.3,
    "F8_E5M2": 48.5,
    "Q4_1": 44.3,
    "Q4_0": 43.4,
    "NF4": 39.7,
    "FP4": 34.7,
}
"""Type → PSNR in dB to float32's pictures on the small model (``docs/formats.json``). Of 12 billion parameters the
numbers would be others; the order carries over, and it is all that the words below say. K-quants are not measured."""

GRADES: tuple[tuple[float, str], ...] = (
    (55.0, "Its pictures are practically those of full precision."),
    (48.0, "Its pictures come very close to those of full precision."),
    (43.0, "Its pictures come close to those of full precision; fine details differ."),
    (0.0, "Of all formats its pictures differ most from those of full precision, in fine details."),
)
"""From how many dB on, and what is said."""

CLOSER: dict[str, tuple[str, str]] = {
    "F8_E4M3": ("Q8_0", "{format}, about as large, comes closer."),
    "F8_E5M2": ("F8_E4M3", "{format}, as large, comes closer."),
    "NF4": ("Q4_0", "{format}, a little larger, comes closer."),
    "FP4": ("NF4", "{format}, as large, comes closer."),
}
"""Type → which type of about its size has a higher PSNR, and how that is said."""

TITLES = {"F8_E4M3": "FP8 e4m3fn", "F8_E5M2": "FP8 e5m2"}
"""What people call a type, where the files call it something else."""


def fidelity(facts: CheckpointFacts) -> str | None:
    """Return a sentence or two on what a checkpoint's format costs, or None for one that was not measured."""
    psnr = None if scaled_format(facts) else MEASURED_PSNR.get(facts.quantisation)
    if psnr is None:
        return None
    words = translate(next(words for least, words in GRADES if psnr >= least))
    if facts.quantisation not in CLOSER:
        return words
    other, closer = CLOSER[facts.quantisation]
    return f"{words} {translate(closer, format=TITLES.get(other, other))}"
