"""The U-Net: size, shapes, and that every part of it counts."""

import dataclasses

import pytest
import torch

from ddpm_course import UNet, UNetConfig
from ddpm_course.errors import ConfigError, CourseError, ShapeError
from ddpm_course.models.blocks import Attention, Downsample, Upsample


def parameters(config: UNetConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(config).parameters())


def test_cifar10_has_exactly_the_parameters_of_the_paper() -> None:
    assert parameters(UNetConfig.cifar10()) == 35_746_307
    assert UNetConfig.cifar10().dropout == 0.1 and UNetConfig.cifar10().level_channels() == (128, 256, 256, 256)


def test_celebahq_has_exactly_the_parameters_of_the_paper() -> None:
    assert parameters(UNetConfig.celebahq()) == 113_673_219
    assert UNetConfig.celebahq().level_sizes() == (256, 128, 64, 32, 16, 8)
    assert parameters(UNetConfig.digits()) < parameters(UNetConfig.mnist()) < 2_000_000


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


# --- options: each changes what it should, and nothing else

X, T = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([3, 700])


def made(**change: object) -> UNet:
    torch.manual_seed(0)
    return UNet(dataclasses.replace(UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4), **change)).eval()


@torch.no_grad()
@pytest.mark.parametrize("skip", ["concat", "add", "none"])
def test_skips_are_put_beside_added_or_dropped(skip: str) -> None:
    net = made(skip=skip)
    before = net(X, T)
    for block in net.down:  # silence the way through the middle: what is left came across
        if not isinstance(block, Downsample):
            continue
        block.conv.weight.zero_(), block.conv.bias.zero_()
    after, other = net(X, T), net(X.flip(-1), T)
    assert before.shape == X.shape and not torch.equal(before, after)
    assert torch.equal(after, other) == (skip == "none")


def test_adding_skips_takes_fewer_parameters_than_putting_them_beside() -> None:
    sizes = {skip: parameters(made(skip=skip).config) for skip in ("concat", "add", "none")}
    assert sizes["none"] < sizes["add"] < sizes["concat"]


@torch.no_grad()
@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "transposed"])
def test_every_way_up_works_and_is_another_function(upsample: str) -> None:
    net = made(upsample=upsample)
    assert net(X, T).shape == X.shape and [m.how for m in net.modules() if isinstance(m, Upsample)] == [upsample]


@torch.no_grad()
@pytest.mark.parametrize(("time_as", "knows"), [("add", True), ("scale_shift", True), ("none", False)])
def test_the_answer_depends_on_t_if_it_is_told(time_as: str, knows: bool) -> None:
    net = made(time_as=time_as)
    assert torch.equal(net(X, T), net(X, T.flip(0))) != knows


@torch.no_grad()
def test_labels_change_the_answer_and_none_is_the_null_label() -> None:
    net = made(num_classes=3)
    answers = [net(X, T, y=torch.full((2,), y)) for y in range(4)]
    assert all(not torch.allclose(a, b) for i, a in enumerate(answers) for b in answers[:i])
    assert torch.equal(net(X, T), answers[3])
    mixed = net(X, T, y=torch.tensor([0, 3]))
    torch.testing.assert_close(mixed, torch.stack([answers[0][0], answers[3][1]]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_context_changes_the_answer_and_masked_words_do_not() -> None:
    net, words = made(context_dim=6), torch.randn(2, 4, 6)
    mask = torch.tensor([[True, True, False, True]] * 2)
    other, hidden = words.clone(), words.clone()
    other[:, 0] *= -1  # a mere shift would be undone by the LayerNorm
    hidden[:, 2] *= -1
    assert torch.equal(net(X, T, context=words, mask=mask), net(X, T, context=hidden, mask=mask))
    for changed in (other, hidden):
        assert not torch.allclose(net(X, T, context=words), net(X, T, context=changed))
    assert not torch.allclose(net(X, T, context=words, mask=mask), net(X, T, context=other, mask=mask))


@torch.no_grad()
def test_a_condition_beside_the_picture_changes_the_answer_and_is_asked_for() -> None:
    net, condition = made(condition_channels=2), torch.randn(2, 2, 8, 8)
    answer = net(X, T, condition=condition)
    assert answer.shape == X.shape and not torch.allclose(answer, net(X, T, condition=-condition))
    for wrong, given in ((net, None), (made(), condition)):
        with pytest.raises(ShapeError, match=r"pass condition= if and only if that is > 0"):
            wrong(X, T, condition=given)


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (9, 5), (13, 6), (1, 1)])
@pytest.mark.parametrize("patch", [1, 2])
def test_any_height_and_width_with_padding(size: tuple[int, int], patch: int) -> None:
    net, x = made(pad=True, patch_size=patch), torch.randn(2, 1, *size)
    y = net(x, T)
    assert y.shape == x.shape and bool(torch.isfinite(y).all())
    if size == (8, 8):  # where nothing has to be padded, nothing changes
        assert torch.equal(y, made(patch_size=patch)(x, T))
    elif size[0] % net.config.multiple or size[1] % net.config.multiple:
        with pytest.raises(ShapeError, match=r"any size: pad=True"):
            made(patch_size=patch)(x, T)


def test_pictures_that_are_not_square_need_no_padding_if_they_can_be_halved() -> None:
    assert made()(torch.randn(2, 1, 4, 10), T).shape == (2, 1, 4, 10)


def test_checkpointing_gives_equal_gradients() -> None:
    gradients = []
    for on in (False, True):
        net = made(checkpointing=on).train()
        net(X, T).square().mean().backward()
        gradients.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_unknown_options_are_refused() -> None:
    for name, known in (
        ("skip", "concat, add, none"),
        ("upsample", "nearest, bilinear, transposed"),
        ("time_as", "add, scale_shift, none"),
    ):
        with pytest.raises(CourseError, match=f"unknown {name} 'other'; known: {known}"):
            dataclasses.replace(UNetConfig(), **{name: "other"})
