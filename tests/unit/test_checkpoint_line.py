"""What the panel says of the checkpoint, on cards of several sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib_fluxkontext.checkpoints.flux import CheckpointFacts, Part
from lib_fluxkontext.hosts.forge.ui import checkpoint_line as module
from lib_fluxkontext.sampling.vram import BLOCKS, GIB

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


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The line's text for a card of so many GB, or none."""
    path = tmp_path / Q8.name
    path.touch()
    monkeypatch.setattr(module, "chosen_file", lambda: path)
    monkeypatch.setattr(module, "_facts", lambda *_: Q8)
    monkeypatch.setattr(module, "free_bytes", lambda: GIB)

    def line(card: float | None, reference_tokens: int = 0, kept_blocks: int = 0, rows: int = 1) -> str:
        monkeypatch.setattr(module, "card_bytes", lambda: None if card is None else int(card * GIB))
        html = module.checkpoint_line(PICTURE, reference_tokens, kept_blocks, rows)
        return re.sub(r"<[^>]+>", " ", html).replace("&#x27;", "'")

    return line


def test_what_it_is(said) -> None:
    text = said(None)
    assert "flux1-kontext-dev-Q8_0.gguf: FLUX.1 Kontext, Q8_0 304 tensors, F32 476, 11.90 billion parameters" in text
    assert "weights 12.00 GB + picture 0.64 GB, and 1.00 GB kept free: 13.64 GB" in text
    assert "card" not in text


def test_it_fits_or_not_and_what_to_do(said) -> None:
    assert "of the card's 16.00 GB. It fits." in said(16)
    tight = said(12, TWO_REFERENCES)
    assert "references 1.28 GB" in tight
    assert "more than the card's 12.00 GB" in tight
    assert "GPU Weights at 11,200 MB or less" in tight
    assert "Instead, for this card: Q6_K or Q5_K." in tight


def test_kept_keys_and_values_on_the_card_or_streamed(said) -> None:
    assert "their keys and values 5.34 GB" in said(24, TWO_REFERENCES, BLOCKS)
    streamed = said(16, TWO_REFERENCES, BLOCKS)
    assert "their keys and values, streamed from main memory 0.19 GB" in streamed
    assert "It fits." in streamed
    one_block = said(16, TWO_REFERENCES, 1)
    assert "their keys and values 0.09 GB" in one_block
    assert "keys and values" not in said(16, 0, BLOCKS)


def test_low_gpu_weights_leave_no_room_for_keys_and_values(said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda: 10 * GIB)
    text = said(24, TWO_REFERENCES, BLOCKS)
    assert "and 10.00 GB kept free" in text
    assert "streamed from main memory" in text


def test_a_batch_needs_more(said) -> None:
    assert "It fits" in said(16, TWO_REFERENCES)
    assert "picture 2.56 GB + references 5.12 GB" in said(16, TWO_REFERENCES, rows=4)
    assert "more than the card's" in said(16, TWO_REFERENCES, rows=4)
