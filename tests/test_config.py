"""What a run may be: every setting has a line of help, and what cannot work is refused when it is written down."""

import ast
import dataclasses
import inspect
import math

import pytest
import torch

from ddpm_course import CourseError, TrainConfig, UNet, UNetConfig, config
from ddpm_course.config import at_scale, learning_rate, net_for
from ddpm_course.errors import ConfigError


def test_every_setting_has_a_line_of_help() -> None:
    body = ast.parse(inspect.getsource(config.TrainConfig)).body[0].body
    helped = {a.target.id for a, b in zip(body, body[1:], strict=False) if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}
    assert helped == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("name", [*config.COUNTS, "lr", "grad_clip"])
def test_counts_start_at_one(name: str) -> None:
    for bad in (0, -1):
        with pytest.raises(ConfigError, match=f"{name} = {bad} must be greater than 0"):
            TrainConfig(**{name: bad})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": 2.5}, "steps = 2.5 must be a whole number"),
        ({"batch_size": 16.0}, "batch_size = 16.0 must be a whole number"),
        ({"num_timesteps": 10.5}, "num_timesteps = 10.5 must be a whole number"),
        ({"seed": 2**40}, "seed = 1099511627776 must lie in"),
        ({"seed": 0.5}, "seed = 0.5 must be a whole number"),
        ({"lr": math.nan}, "lr = nan"),
        ({"lr": math.inf}, "lr = inf must lie in"),
        ({"grad_clip": math.nan}, "grad_clip = nan"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1 must lie in"),
        ({"warmup": -1}, "warmup = -1 must lie in"),
        ({"final_lr": -0.5}, r"final_lr = -0.5 must lie in \[0, 1\]"),
        ({"final_lr": 2.0}, "final_lr = 2.0"),
        ({"label_dropout": 1.5}, r"label_dropout = 1.5 must lie in \[0, 1\]"),
        ({"sample_every": -1, "out": "x"}, "sample_every = -1"),
        ({"image_size": 0}, "image_size = 0 must be at least 4"),
        ({"image_size": -8}, "image_size = -8"),
        ({"weighting": "snr"}, "unknown weighting 'snr'; known: simple, min_snr"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"compile": "fast"}, "unknown compile 'fast'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"tensorboard": True}, "name a folder with out"),
        ({"sample_every": 5}, "name a folder with out"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(CourseError, match=text):
        TrainConfig(**change)


def test_unusual_settings_that_work_are_taken() -> None:
    TrainConfig(grad_clip=math.inf, warmup=0, final_lr=0.0, label_dropout=1.0, seed=-3, weight_decay=0.1, image_size=4)


def test_a_batch_must_come_from_the_data_and_divide() -> None:
    TrainConfig(batch_size=24, micro_batches=3).check_batches(24, processes=8)
    with pytest.raises(ConfigError, match="batch_size = 25 exceeds the 24 training pictures of 'digits'; take at most 24"):
        TrainConfig(batch_size=25).check_batches(24)
    with pytest.raises(ConfigError, match=r"batch_size = 24 must be a multiple of processes x micro_batches = 5 x 1"):
        TrainConfig(batch_size=24).check_batches(100, processes=5)
    with pytest.raises(ConfigError, match="= 8 x 2"):
        TrainConfig(batch_size=24, micro_batches=2).check_batches(100, processes=8)


def test_the_learning_rate_never_exceeds_lr_nor_goes_below_zero() -> None:
    for warmup, final in ((0, 0.0), (5, 0.05), (1000, 1.0)):
        rates = [learning_rate(TrainConfig(lr=1e-3, warmup=warmup, final_lr=final, steps=50), step) for step in range(50)]
        assert min(rates) >= 0 and max(rates) <= 1e-3


SHAPES = [(1, 8, 8), (3, 9, 9), (1, 15, 10), (1, 28, 28), (3, 32, 32), (3, 30, 31), (1, 33, 32), (3, 64, 64), (3, 100, 64)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_network_that_suits_the_pictures(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    chosen = net_for(TrainConfig(), shape)
    net, x = UNet(chosen).eval(), torch.randn(1, *shape)
    with torch.no_grad():
        assert net(x, torch.tensor([5])).shape == x.shape
    assert chosen.channels == shape[0] and chosen.attention_sizes[0] in chosen.level_sizes()
    assert chosen.pad == any(size % chosen.multiple for size in shape[1:])


def test_the_course_sizes_get_the_course_networks() -> None:
    assert net_for(TrainConfig(), (1, 8, 8)) == UNetConfig.digits() and net_for(TrainConfig(), (1, 28, 28)) == UNetConfig.mnist()
    mine = UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4)
    assert net_for(TrainConfig(net=mine), (3, 64, 64)) is mine
    sizes = [net_for(TrainConfig(), (3, n, n)).level_sizes()[-1] for n in (32, 64, 128, 256)]
    assert sizes == [8, 8, 8, 16]


def test_points_and_single_pixels_have_no_network() -> None:
    with pytest.raises(ConfigError, match=r"data of shape \(N, 2\) are no pictures: pass your own net"):
        net_for(TrainConfig(), (2,))
    with pytest.raises(ConfigError, match="image_size 1 cannot be halved"):
        net_for(TrainConfig(), (1, 1, 1))


def test_one_switch_for_two_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDPM_COURSE_SCALE", raising=False)
    assert at_scale(1, 2) == 1
    monkeypatch.setenv("DDPM_COURSE_SCALE", "gpu")
    assert at_scale(1, 2) == 2
    monkeypatch.setenv("DDPM_COURSE_SCALE", "tpu")
    with pytest.raises(CourseError, match="unknown DDPM_COURSE_SCALE 'tpu'"):
        at_scale(1, 2)
