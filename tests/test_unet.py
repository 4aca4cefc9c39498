"""The U-Net: size, shapes, and that every part of it counts."""

import dataclasses

import pytest
import torch

from ddpm_course import UNet, UNetConfig
from ddpm_course.errors import ConfigError, ShapeError
from ddpm_course.models.blocks import Attention


def parameters(config: UNetConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(config).parameters())


def test_cifar10_has_exactly_the_parameters_of_the_paper() -> None:
    assert parameters(UNetConfig.cifar10()) == 35_746_307
    assert UNetConfig.cifar10().dropout == 0.1 and UNetConfig.cifar10().level_channels() == (128, 256, 256, 256)


def test_attention_sits_where_it_was_asked_for() -> None:
    with torch.device("meta"):
        net = UNet(UNetConfig.cifar10())
    assert UNetConfig.cifar10().level_sizes() == (32, 16, 8, 4)
    count = lambda part: sum(isinstance(m, Attention) for m in part.modules())  # noqa: E731
    assert (count(net.down), count(net.middle), count(net.up)) == (2, 1, 3)


@pytest.mark.parametrize("config", [UNetConfig.digits(), UNetConfig.mnist()], ids=["digits", "mnist"])
def test_answers_have_the_shape_of_the_question(config: UNetConfig) -> None:
    torch.manual_seed(0)
    net, x = UNet(config).eval(), torch.randn(2, config.channels, config.image_size, config.image_size)
    with torch.no_grad():
        y = net(x, torch.tensor([1, 1000]))
    assert y.shape == x.shape and bool(torch.isfinite(y).all()) and float(y.std()) > 0


def test_colour_patches_and_heads() -> None:
    config = UNetConfig(8, 3, 16, (1, 2), 1, (2,), num_heads=2, groups=4, patch_size=2)
    assert config.level_sizes() == (4, 2)
    x = torch.randn(2, 3, 8, 8)
    assert UNet(config)(x, torch.tensor([3, 4])).shape == x.shape


def small() -> UNet:
    torch.manual_seed(0)
    return UNet(UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4)).eval()


@torch.no_grad()
def test_examples_do_not_see_each_other_but_see_their_time() -> None:
    net, x = small(), torch.randn(3, 1, 8, 8)
    t = torch.tensor([1, 500, 1000])
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, t), alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(net(x, t), net(x, t.flip(0)))


def test_every_parameter_has_a_gradient() -> None:
    net = small()
    net(torch.randn(2, 1, 8, 8), torch.tensor([7, 70])).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not [name for name in idle if not name.endswith("conv_1.bias")]  # a GroupNorm may undo that one


@torch.no_grad()
def test_skip_connections_carry_the_encoder_across() -> None:
    net, x, t = small(), torch.randn(1, 1, 8, 8), torch.tensor([10])
    before = net(x, t)
    net.middle[2].conv_2.weight.zero_()
    net.up[-1][0].conv_1.weight[:, 8:] = 0  # the half that reads the first feature map
    assert not torch.allclose(before, net(x, t))


def test_refusals() -> None:
    net = small()
    with pytest.raises(ShapeError, match=r"takes pictures \(B, 1, H, W\) with H and W multiples of 2 .*got \(2, 1, 9, 9\)"):
        net(torch.zeros(2, 1, 9, 9), torch.tensor([1, 1]))
    with pytest.raises(ShapeError, match="one entry a picture"):
        net(torch.zeros(2, 1, 8, 8), torch.tensor([1]))
    for change, text in [
        ({"image_size": 7}, "image_size 7 cannot be halved.*multiple of 8"),
        ({"image_size": 28, "patch_size": 3, "multipliers": (1,)}, "image_size 28"),
        ({"base_channels": 3}, "base_channels = 3"),
        ({"base_channels": 2}, "base_channels = 2"),
        ({"num_heads": 3}, "num_heads = 3 must divide"),
    ]:
        with pytest.raises(ConfigError, match=text):
            dataclasses.replace(UNetConfig(), **change)
