"""Where the small model's supervised heads are told to look."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tools.small_kontext.batches import TEXT_LENGTHS, layout_ids
from tools.small_kontext.courses import Layout
from tools.small_kontext.flow import build_transformer
from tools.small_kontext.instructions import Instruction
from tools.small_kontext.pointing import Pointing, sources, wanted_sources
from tools.small_kontext.text import WIDTH

SIDE = 64
"""4×4 tokens."""

PAIR = Layout((SIDE, SIDE), ((SIDE, SIDE), (SIDE, SIDE)))


def pointed(kind: str, layout: Layout = PAIR, **fields: str) -> list[list[int]]:
    """Reference tokens that the top left quarter of each token of the answer is made of, by the row."""
    return [row.nonzero().flatten().tolist() for row in sources(Instruction(kind, **fields), layout)[0]]


@pytest.mark.parametrize(
    ("kind", "first_row"),
    [
        ("first", [[0], [1], [2], [3]]),
        ("second", [[16], [17], [18], [19]]),
        ("left_right", [[1], [2], [17], [18]]),
        ("swap", [[17], [18], [1], [2]]),
        ("mirror", [[3], [2], [1], [0]]),
        ("grey", [[0], [1], [2], [3]]),
    ],
)
def test_every_token_points_at_where_it_comes_from(kind: str, first_row: list[list[int]]) -> None:
    assert pointed(kind)[:4] == first_row


def test_each_quarter_of_an_inset_token_is_a_token_of_its_own() -> None:
    found = sources(Instruction("inset", place="top left corner"), PAIR)
    assert found[:, 0].argmax(1).tolist() == [16, 17, 20, 21]
    assert found[:, 15].argmax(1).tolist() == [15, 15, 15, 15]
    torch.testing.assert_close(found.sum(2), torch.ones(4, 16))


def test_what_comes_from_no_reference_points_nowhere() -> None:
    alone = Layout((SIDE, SIDE), ((SIDE, SIDE),))
    found = sources(Instruction("left_right"), alone)
    assert found.sum(2).reshape(4, 4, 4)[:, 0].tolist() == [[1, 1, 0, 0]] * 4
    assert sources(Instruction("first"), Layout((SIDE, SIDE), ())).shape == (4, 16, 0)


def heads_loss(sharpness: float) -> Tensor:
    """Loss of a transformer whose queries and keys are constant, for a copy of the first reference."""
    torch.manual_seed(0)
    model = build_transformer()
    heads = Pointing(model)
    text = min(TEXT_LENGTHS)
    ids = layout_ids(PAIR)
    with torch.no_grad():
        for kept in heads.kept.values():
            kept.update(norm_q=torch.full((1, 48 + text, 2, 32), sharpness))
            kept.update(norm_k=torch.full((1, 48 + text, 2, 32), sharpness))
    wanted = wanted_sources([Instruction("first")], PAIR, "cpu")
    return heads.loss(wanted, ids, text)


def test_even_attention_is_as_far_off_as_there_are_tokens() -> None:
    tokens = 48 + min(TEXT_LENGTHS)
    assert heads_loss(0.0).item() == pytest.approx(torch.tensor(float(tokens)).log().item(), abs=1e-4)


def test_the_loss_reaches_the_blocks_before_the_heads() -> None:
    torch.manual_seed(0)
    model = build_transformer()
    heads = Pointing(model)
    text = min(TEXT_LENGTHS)
    ids = layout_ids(PAIR)
    model(
        hidden_states=torch.randn(2, len(ids), 64),
        encoder_hidden_states=torch.randn(2, text, WIDTH),
        pooled_projections=torch.randn(2, WIDTH),
        timestep=torch.rand(2),
        guidance=torch.ones(2),
        img_ids=ids,
        txt_ids=torch.zeros(text, 3),
    )
    heads.loss(wanted_sources([Instruction("first"), Instruction("swap")], PAIR, "cpu"), ids, text).backward()
    gradient = model.transformer_blocks[3].attn.to_q.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
