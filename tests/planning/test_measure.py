"""Memory on the meta device, against tensors counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from components.planning.measure import PeakMemory, fused_attention, peak_bytes

ROWS, WIDTH = 1000, 64
UNIT = ROWS * WIDTH * 4  # bytes of one float32 activation


def meta(*shape: int, **options: bool) -> Tensor:
    return torch.empty(*shape, device="meta", **options)


def test_what_is_freed_does_not_count() -> None:
    given = meta(ROWS, WIDTH)

    def chain() -> None:
        one = given * 2
        two = one + 1  # one and two
        del one
        three = two * two  # two and three
        del two, three

    assert peak_bytes(chain, [given]) == 2 * UNIT


def test_views_and_what_was_there_before_take_nothing() -> None:
    given = meta(ROWS, WIDTH)
    with PeakMemory([given]) as memory:
        flat = given.flatten().view(WIDTH, ROWS).transpose(0, 1)
        given.mul_(2)
        assert memory.peak == 0
        kept = flat.contiguous()
        assert memory.live == memory.peak == UNIT
        del kept
        assert memory.live == 0


def test_a_backward_pass_holds_what_it_needs() -> None:
    given = meta(ROWS, WIDTH, requires_grad=True)

    def squares() -> None:
        # Each power keeps its input: given is there before, then two results; the last goes into the sum.
        given.square().square().square().sum().backward()

    # Forward ends with three activations; backward adds a gradient (and its product) to what is left.
    assert 3 * UNIT <= peak_bytes(squares, [given]) <= 6 * UNIT


@pytest.fixture
def blocks() -> nn.ModuleList:
    """Ten frozen blocks that widen fourfold and narrow again."""
    with torch.device("meta"):
        made = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
            for _ in range(10)
        )
    return made.requires_grad_(False)


def test_checkpointing_keeps_the_blocks_inputs_and_one_block(blocks: nn.ModuleList) -> None:
    given = meta(ROWS, WIDTH, requires_grad=True)
    known = [given, *blocks.parameters()]

    def plain() -> None:
        hidden = given
        for block in blocks:
            hidden = block(hidden)
        hidden.sum().backward()

    def checkpointed() -> None:
        hidden = given
        for block in blocks:
            hidden = checkpoint(block, hidden, use_reentrant=False)
        hidden.sum().backward()

    # GELU keeps its input, four units in each block; with checkpoints it is one unit, each block's input.
    assert 40 * UNIT <= peak_bytes(plain, known) <= 52 * UNIT
    assert 9 * UNIT <= peak_bytes(checkpointed, known) <= 25 * UNIT


def test_attention_keeps_no_matrix_of_tokens_by_tokens() -> None:
    tokens, heads, width = 4096, 2, 64
    query = meta(1, heads, tokens, width, requires_grad=True)
    plain = F.scaled_dot_product_attention
    one = heads * tokens * width * 4

    def attend() -> None:
        F.scaled_dot_product_attention(query, query, query).sum().backward()

    assert peak_bytes(attend, [query]) < 8 * one < 4 * heads * tokens**2
    assert F.scaled_dot_product_attention is plain
    with fused_attention(), FlopCounterMode(display=False) as flops:
        F.scaled_dot_product_attention(query, query, query)
    # Two products of (tokens x width) by (width x tokens), two operations each.
    assert flops.get_total_flops() == 2 * 2 * heads * tokens * tokens * width


def test_masked_attention_too() -> None:
    query = meta(2, 2, 512, 64)
    mask = torch.ones(2, 1, 1, 512, dtype=torch.bool, device="meta")

    def attend() -> None:
        assert F.scaled_dot_product_attention(query, query, query, attn_mask=mask).shape == query.shape

    assert peak_bytes(attend, [query, mask]) < 2 * 2 * 512 * 512 * 4
