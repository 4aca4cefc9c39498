"""The parts of the U-Net, against NumPy and hand-made examples."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddpm_course.models.blocks import (
    Attention,
    CrossAttention,
    Downsample,
    Merge,
    ResBlock,
    Upsample,
    attend,
    group_norm,
    timestep_embedding,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_time_embedding_is_sines_then_cosines_of_the_time_before() -> None:
    got = timestep_embedding(torch.tensor([1, 2, 500]), 8).numpy()
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    for row, t in zip(got, (1, 2, 500), strict=True):
        np.testing.assert_allclose(row, np.concatenate([np.sin((t - 1) * frequencies), np.cos((t - 1) * frequencies)]), atol=1e-4)
    assert got.dtype == np.float32


def test_time_embeddings_of_all_times_differ() -> None:
    table = timestep_embedding(torch.arange(1, 1001), 32)
    assert float(torch.pdist(table).min()) > 0.01


def test_group_norm_takes_groups_that_fit() -> None:
    norm = group_norm(48, 32)
    assert norm.num_groups == 16 and norm.eps == 1e-6 and group_norm(32, 8).num_groups == 8
    y = norm(torch.randn(2, 48, 4, 4) * 5 + 3).reshape(2, 16, -1)
    torch.testing.assert_close(y.mean(2), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(2, unbiased=False), torch.ones(2, 16), atol=1e-4, rtol=0)


@pytest.mark.parametrize("out", [8, 12])
def test_res_block_is_input_plus_something_that_knows_the_time(out: int) -> None:
    block, x = ResBlock(8, out, 16, 4, 0.0), torch.randn(2, 8, 4, 4)
    a, b = block(x, torch.zeros(2, 16)), block(x, torch.ones(2, 16))
    assert a.shape == (2, out, 4, 4) and not torch.allclose(a, b)
    with torch.no_grad():
        block.conv_2.weight.zero_(), block.conv_2.bias.zero_()
    torch.testing.assert_close(block(x, torch.ones(2, 16)), block.skip(x))


def test_dropout_only_while_training() -> None:
    block, x, time = ResBlock(8, 8, 16, 4, 0.5), torch.randn(2, 8, 4, 4), torch.zeros(2, 16)
    assert not torch.equal(block(x, time), block(x, time))
    block.eval()
    assert torch.equal(block(x, time), block(x, time))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_by_hand(heads: int) -> None:
    attention, x = Attention(8, 4, heads), torch.randn(2, 8, 3, 3)
    h = attention.norm(x).permute(0, 2, 3, 1).reshape(2, 9, 8)
    q, k, v = (attention.qkv(h)[..., i * 8 : i * 8 + 8] for i in range(3))
    parts = []
    for i in range(heads):
        part = slice(i * 8 // heads, (i + 1) * 8 // heads)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(8 / heads)
        parts.append(scores.softmax(2) @ v[..., part])
    wanted = x + attention.out(torch.cat(parts, 2)).reshape(2, 3, 3, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(attention(x), wanted, rtol=1e-5, atol=1e-5)


def test_attention_does_not_care_where_pixels_are() -> None:
    attention, x, order = Attention(8, 4), torch.randn(1, 8, 3, 3), torch.randperm(9)
    shuffled = x.flatten(2)[..., order].reshape(1, 8, 3, 3)
    torch.testing.assert_close(attention(shuffled).flatten(2), attention(x).flatten(2)[..., order], rtol=1e-4, atol=1e-5)


def test_down_and_up() -> None:
    down, up, x = Downsample(2), Upsample(2), torch.randn(1, 2, 4, 4)
    assert down(x).shape == (1, 2, 2, 2) and up(x).shape == (1, 2, 8, 8)
    with torch.no_grad():  # only the top-left tap: padding is at the right and bottom, so nothing is shifted
        for layer, tap in ((down.conv, (0, 0)), (up.conv, (1, 1))):
            layer.weight.zero_(), layer.bias.zero_()
            layer.weight[[0, 1], [0, 1], tap[0], tap[1]] = 1
    torch.testing.assert_close(down(x), x[..., ::2, ::2])
    torch.testing.assert_close(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_the_plain_attention_of_the_cpu_equals_torchs_fused_one(heads: int, masked: bool) -> None:
    q, k, v = torch.randn(3, heads, 9, 4), torch.randn(3, heads, 5, 4), torch.randn(3, heads, 5, 4)
    mask = torch.rand(3, 5) < 0.6 if masked else None
    if masked:
        mask[:, 0] = True
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None, :])
    torch.testing.assert_close(attend(q, k, v, mask), wanted, rtol=1e-5, atol=1e-6)


def test_words_that_are_masked_count_for_nothing() -> None:
    attention, x, words = CrossAttention(8, 4, 2, 6), torch.randn(2, 8, 3, 3), torch.randn(2, 4, 6)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    changed = words.clone()
    changed[0, 2:] *= -1  # a mere shift would be undone by the LayerNorm
    assert torch.equal(attention(x, words, mask), attention(x, changed, mask))
    assert not torch.allclose(attention(x, words), attention(x, changed))
    torch.testing.assert_close(attention(x, words, mask)[:1], attention(x[:1], words[:1, :2]), rtol=1e-5, atol=1e-5)


def test_scale_and_shift_act_after_the_second_norm() -> None:
    block, x, time = ResBlock(8, 8, 16, 4, 0.0, "scale_shift"), torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    scale, shift = block.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
    h = block.norm_2(block.conv_1(F.silu(block.norm_1(x)))) * (1 + scale) + shift
    torch.testing.assert_close(block(x, time), x + block.conv_2(F.silu(h)))
    assert block.time.out_features == 16 and not hasattr(ResBlock(8, 8, 16, 4, 0.0, "none"), "time")
    deaf = ResBlock(8, 8, 16, 4, 0.0, "none")
    assert torch.equal(deaf(x, time), deaf(x, time + 1))


def overlaps(how: str, size: int = 6) -> torch.Tensor:
    """How many inputs each output pixel is made of: an all-ones kernel on a constant picture, away from the border."""
    up = Upsample(1, how)
    with torch.no_grad():
        up.conv.weight.fill_(1), up.conv.bias.zero_()
        return up(torch.ones(1, 1, size, size))[0, 0, 2:-2, 2:-2]


def test_a_transposed_convolution_makes_a_checkerboard_and_the_others_do_not() -> None:
    uneven = overlaps("transposed")
    assert sorted(uneven.unique().tolist()) == [1, 2, 4] and torch.equal(uneven[:2, :2], uneven[2:4, 2:4])
    assert overlaps("nearest").unique().tolist() == [9] and overlaps("bilinear").unique().tolist() == [9]


@pytest.mark.parametrize("how", ["nearest", "bilinear", "transposed"])
def test_all_ways_up_double_the_size(how: str) -> None:
    assert Upsample(4, how)(torch.randn(2, 4, 3, 5)).shape == (2, 4, 6, 10)


def test_bilinear_blends_where_nearest_repeats() -> None:
    x = torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 2)
    for how, row in (("nearest", [0, 0, 4, 4]), ("bilinear", [0, 1, 3, 4])):
        up = Upsample(1, how)
        with torch.no_grad():
            up.conv.weight.zero_(), up.conv.bias.zero_()
            up.conv.weight[0, 0, 1, 1] = 1
        assert up(x)[0, 0, 0].tolist() == row


def test_the_three_ways_in_which_features_come_back() -> None:
    h, skip = torch.randn(1, 4, 2, 2), torch.randn(1, 6, 2, 2)
    concat, add, none, even = Merge("concat", 4, 6), Merge("add", 4, 6), Merge("none", 4, 6), Merge("add", 6, 6)
    assert (concat.out_channels, add.out_channels, none.out_channels) == (10, 4, 4)
    assert torch.equal(concat(h, skip), torch.cat([h, skip], 1)) and torch.equal(none(h, skip), h)
    assert torch.equal(add(h, skip), h + add.fit(skip)) and torch.equal(even(skip, skip), 2 * skip)
