"""The layers, each against a slow loop or torch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from torch import nn  # noqa: E402

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.nn.layers import Attention, Block, FeedForward, PatchEmbedding, mean_over, start  # noqa: E402


def slow_attention(layer: Attention, x: torch.Tensor, keys: torch.Tensor, seen: np.ndarray) -> np.ndarray:
    """One number at a time; seen (n, t, s) bool says who looks at whom."""
    query, key, value = (line.detach().numpy() for line in (layer.query(x), layer.key(keys), layer.value(keys)))
    n, t, width = query.shape
    size = width // layer.heads
    mixed = np.zeros_like(query)
    for row in range(n):
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(t):
                weights = {
                    j: math.exp(float(query[row, i, part] @ key[row, j, part]) / math.sqrt(size))
                    for j in range(keys.shape[1])
                    if seen[row, i, j]
                }
                for j, weight in weights.items():
                    mixed[row, i, part] += weight / sum(weights.values()) * value[row, j, part]
    return mixed @ layer.out.weight.detach().numpy().T + layer.out.bias.detach().numpy()


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 3),
    t=st.integers(1, 5),
    s=st.integers(1, 5),
    heads=st.sampled_from([1, 2, 4]),
    causal=st.booleans(),
    crossed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_attention_equals_a_slow_loop(
    n: int, t: int, s: int, heads: int, causal: bool, crossed: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = Attention(8, heads, 6 if crossed else None, causal=causal and not crossed)
    x = torch.randn(n, t, 8)
    context = torch.randn(n, s, 6) if crossed else None
    keys = x if context is None else context
    mask = torch.rand(n, keys.shape[1]) < 0.6
    mask[:, 0] = True
    seen = np.repeat(mask.numpy()[:, None], t, 1)
    if layer.causal:
        seen &= np.tri(t, dtype=bool)
    with torch.no_grad():
        made = layer(x, mask, context).numpy()
        np.testing.assert_allclose(made, slow_attention(layer, x, keys, seen), atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_its_gradients_equal_torchs_with_the_same_weights(causal: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3, causal=causal), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        for part, line in enumerate((ours.query, ours.key, ours.value)):
            line.weight.copy_(theirs.in_proj_weight[12 * part : 12 * part + 12])
            line.bias.copy_(theirs.in_proj_bias[12 * part : 12 * part + 12])
        ours.out.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(2, 5, 12)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    later = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    made = ours(x, mask)
    wanted, _ = theirs(x, x, x, key_padding_mask=~mask, attn_mask=later)
    torch.testing.assert_close(made, wanted, atol=1e-6, rtol=0)
    aim = torch.randn_like(made)
    (made * aim).sum().backward()
    (wanted * aim).sum().backward()
    for part, line in enumerate((ours.query, ours.key, ours.value)):
        same = theirs.in_proj_weight.grad[12 * part : 12 * part + 12]
        torch.testing.assert_close(line.weight.grad, same, atol=1e-5, rtol=0)


def test_where_no_key_counts_all_do() -> None:
    torch.manual_seed(0)
    layer, x = Attention(8, 2), torch.randn(1, 3, 8)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, torch.zeros(1, 3, dtype=torch.bool)), layer(x), atol=1e-3, rtol=0)


def test_a_block_written_out() -> None:
    torch.manual_seed(0)
    block, x, context = Block(8, 2, context_width=6).eval(), torch.randn(2, 3, 8), torch.randn(2, 4, 6)
    norm = nn.functional.layer_norm
    with torch.no_grad():
        between = x + block.attention(norm(x, (8,)), None, norm(context, (6,)))
        first, last = block.feed_forward[0], block.feed_forward[2]
        inner = norm(between, (8,)) @ first.weight.T + first.bias
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        torch.testing.assert_close(block(x, None, context), between + inner @ last.weight.T + last.bias)
    assert [tuple(line.weight.shape) for line in FeedForward(8) if isinstance(line, nn.Linear)] == [(32, 8), (8, 32)]


def test_patches_are_the_squares_of_the_picture_row_by_row() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (2, 6, 6, 3), np.uint8)
    embedding = PatchEmbedding(6, 2, 5)
    made = embedding.patchify(torch.from_numpy(pixels))
    for n in range(2):
        for p in range(9):
            down, across = divmod(p, 3)
            square = pixels[n, 2 * down : 2 * down + 2, 2 * across : 2 * across + 2].astype(np.float32)
            np.testing.assert_allclose(made[n, p].numpy(), square.reshape(-1) / 127.5 - 1, atol=1e-6)
    assert made.min() >= -1
    assert made.max() <= 1
    with torch.no_grad():
        wanted = made @ embedding.line.weight.T + embedding.line.bias + embedding.positions
        torch.testing.assert_close(embedding(torch.from_numpy(pixels)), wanted)


def test_the_mean_counts_only_what_counts() -> None:
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]], [[5.0, 6.0], [7.0, 7.0], [7.0, 7.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert mean_over(tokens, mask).tolist() == [[2.0, 3.0], [0.0, 0.0]]


def test_weights_start_small_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    block = Block(64, 4)
    block.apply(start)
    assert block.attention.query.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.feed_forward[0].bias.abs().sum().item() == 0


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="width of 10 cannot be shared by 3 heads"):
        Attention(10, 3)
    with pytest.raises(UsageError, match="64 pixels cannot be cut into patches of 7"):
        PatchEmbedding(64, 7, 8)
