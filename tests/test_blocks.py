"""The parts of the U-Net, against NumPy and hand-made examples."""

import math

import numpy as np
import pytest
import torch

from ddpm_course.models.blocks import Attention, Downsample, ResBlock, Upsample, group_norm, timestep_embedding


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
