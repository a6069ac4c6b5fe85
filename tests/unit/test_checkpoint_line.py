"""What the panel says of the checkpoint, on cards of several sizes."""

from __future__ import annotations

import re

from lib_fluxkontext.checkpoints.flux import CheckpointFacts, Part
from lib_fluxkontext.hosts.forge.ui.checkpoint_line import describe_checkpoint
from lib_fluxkontext.sampling.vram import GIB, SamplingLoad
from lib_fluxkontext.settings import KontextSettings

Q8 = CheckpointFacts(
    name="flux1-kontext-dev-Q8_0.gguf",
    family="FLUX.1 Kontext",
    takes_references=True,
    format="GGUF",
    quantisation="Q8_0",
    mix=(Part("Q8_0", 304, 12 * GIB), Part("F32", 476, 1000)),
    parameters=11_900_000_000,
    transformer_bytes=12 * GIB,
    file_bytes=12 * GIB,
)
PICTURE, TWO_REFERENCES = 4096, 8192

NO_CACHES = KontextSettings(cache=False)
ALL_BLOCKS = KontextSettings(cache=False, reference_refresh=4)
ONE_BLOCK = KontextSettings(reference_refresh=1)


def description(
    card: float | None,
    reference_tokens: int = 0,
    settings: KontextSettings = NO_CACHES,
    rows: int = 1,
    free: int = GIB,
) -> str:
    """The description's text, for a card of so many GB or none."""
    card_bytes = None if card is None else int(card * GIB)
    html = describe_checkpoint(Q8, SamplingLoad(rows, PICTURE, reference_tokens), settings, card_bytes, free)
    return re.sub(r"<[^>]+>", " ", html).replace("&#x27;", "'")


def test_it_is_identified() -> None:
    text = description(None)
    assert "flux1-kontext-dev-Q8_0.gguf: FLUX.1 Kontext, Q8_0 304 tensors, F32 476, 11.90 billion parameters" in text
    assert "weights 12.00 GB + picture 0.64 GB, and 1.00 GB kept free: 13.64 GB" in text
    assert "card" not in text


def test_it_fits_or_not_and_what_to_do() -> None:
    assert "of the card's 16.00 GB. It fits." in description(16)
    tight = description(12, TWO_REFERENCES)
    assert "references 1.28 GB" in tight
    assert "more than the card's 12.00 GB" in tight
    assert "GPU Weights at 11,200 MB or less" in tight
    assert "Instead, for this card: Q4_K or NF4, a little less faithful." in tight
    assert "About 2.92 GB of them cross to the card in every computed step." in tight


def test_keys_and_values_of_references_on_the_card_or_streamed() -> None:
    assert "their keys and values 5.34 GB" in description(24, TWO_REFERENCES, ALL_BLOCKS)
    streamed = description(16, TWO_REFERENCES, ALL_BLOCKS)
    assert "their keys and values, streamed from main memory 0.19 GB" in streamed
    assert "It fits." in streamed
    assert "their keys and values 0.09 GB" in description(16, TWO_REFERENCES, ONE_BLOCK)
    assert "keys and values" not in description(16, 0, ALL_BLOCKS)


def test_first_block_cache_is_a_part_of_its_own() -> None:
    assert "First Block Cache" not in description(16)
    assert "First Block Cache 0.12 GB" in description(16, settings=KontextSettings())


def test_low_gpu_weights_leave_no_room_for_keys_and_values() -> None:
    text = description(24, TWO_REFERENCES, ALL_BLOCKS, free=10 * GIB)
    assert "and 10.00 GB kept free" in text
    assert "streamed from main memory" in text


def test_a_batch_needs_more() -> None:
    assert "It fits" in description(16, TWO_REFERENCES)
    assert "picture 2.56 GB + references 5.12 GB" in description(16, TWO_REFERENCES, rows=4)
    assert "more than the card's" in description(16, TWO_REFERENCES, rows=4)
