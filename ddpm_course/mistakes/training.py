"""Mistakes around the network: its average, its mode, the range of its pictures, its upsampling."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..gaussian import normal_kl
from ..models import UNet, UNetConfig
from ..prediction import clip_x_0
from ..sampling import ddim_stepper, time_grid, trajectory
from .base import Mistake
from .tools import BAR, LINEAR, bar_by_hand, seeded


def wrong_decay(step: int) -> float:
    """How much of the averaged weights is kept at a step."""
    return 0.9999


def right_decay(step: int) -> float:
    """How much of the averaged weights is kept at a step."""
    return min(0.9999, (1 + step) / (10 + step))


def _share_of_the_start(decay: Callable[[int], float]) -> Tensor:
    average, seen = 1.0, []  # the initial weight is 1, all later ones are 0
    for step in range(10_000):
        average = decay(step) * average + (1 - decay(step)) * 0.0
        if (step + 1) % 250 == 0:
            seen.append(average)
    return torch.tensor(seen, dtype=torch.float64)


M29 = Mistake(
    number=29,
    title="EMA with 0.9999 from step 0 of a short run",
    chapter="08_train",
    why="After 10,000 steps 37 % of the average is still the random start; a warm-up of the decay forgets it within the first steps.",
    wrong=wrong_decay,
    right=right_decay,
    observe=_share_of_the_start,
    x=range(250, 10_001, 250),
    labels=("steps", "share of the initial weights"),
    quantity="share of the initial weights after 10,000 steps",
    truth=lambda: math.exp(math.lgamma(10) + math.lgamma(10_001) - math.lgamma(10_010)),  # product of (1 + k) / (10 + k)
    tolerance=1e-9,
    margin=0.36,
)


def wrong_prediction(net: nn.Module, x_t: Tensor, t: Tensor) -> Tensor:
    """The network's answer while sampling."""
    return net.train()(x_t, t)


def right_prediction(net: nn.Module, x_t: Tensor, t: Tensor) -> Tensor:
    """The network's answer while sampling."""
    return net.eval()(x_t, t)


TINY = UNetConfig(image_size=8, channels=1, base_channels=8, multipliers=(1,), num_res_blocks=1, attention_sizes=(), groups=4, dropout=0.1)


def _distance_of_two_runs(prediction: Callable[..., Tensor]) -> Tensor:
    """Two deterministic DDIM runs of ten steps from one x_T: how far apart they are at each time."""
    x_T, grid = torch.randn(4, 1, 8, 8, generator=seeded(30)), time_grid(1000, 10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(30)
        net = UNet(TINY)
        step = ddim_stepper(clip_x_0(lambda x, t: prediction(net, x, t), LINEAR), LINEAR)
        one, two = ([x for _, x, _ in trajectory(step, x_T, grid)] for _ in range(2))
    return torch.stack([(a - b).square().mean().sqrt() for a, b in zip(one, two, strict=True)])


M30 = Mistake(
    number=30,
    title="dropout is left on while sampling",
    chapter="07_unet",
    why="In training mode every call answers with another random half-blind network; net.eval() before sampling.",
    wrong=wrong_prediction,
    right=right_prediction,
    observe=_distance_of_two_runs,
    x=range(1000, -1, -100),
    labels=("t, falling to 0", "distance of two equal runs"),
    quantity="steps of ten at which two runs from the same x_T differ",
    truth=lambda: 0.0,
    tolerance=0.0,
    margin=9.0,
    read=lambda distances: float((distances > 1e-6).sum()),
)


def wrong_scale(grey: Tensor) -> Tensor:
    """Grey values 0..255 as the network gets them."""
    return grey / 255


def right_scale(grey: Tensor) -> Tensor:
    """Grey values 0..255 as the network gets them."""
    return grey / 127.5 - 1


GREY = torch.arange(256, dtype=torch.float64)
M31 = Mistake(
    number=31,
    title="pictures are scaled to [0, 1]",
    chapter="08_train",
    why="Sampler, clipping and the discrete decoder all live on [-1, 1]; pictures in [0, 1] use half of its 256 bins, "
    "two grey values in each.",
    wrong=wrong_scale,
    right=right_scale,
    observe=lambda scale: ((scale(GREY) + 1) * 127.5).round(),
    x=range(256),
    labels=("grey value", "its bin among 256 on [-1, 1]"),
    quantity="bins that 256 grey values use",
    truth=lambda: 256.0,
    tolerance=0.0,
    margin=100.0,
    read=lambda bins: float(len(bins.unique())),
)


def wrong_pixels(grey: Tensor) -> Tensor:
    """Grey values 0..255 as the network gets them."""
    return grey.double()


def right_pixels(grey: Tensor) -> Tensor:
    """Grey values 0..255 as the network gets them."""
    return grey.double() / 127.5 - 1


def _memory(pixels: Callable[[Tensor], Tensor]) -> Tensor:
    bars = BAR[900::10, None]
    return normal_kl(bars**0.5 * pixels(GREY), 1 - bars, 0.0, 1.0).mean(1)


def _memory_by_hand() -> float:
    """The KL of x_T for x_0 uniform on the 256 bin centres, whose mean square is (256^2 - 1) / (3 * 255^2)."""
    bar = bar_by_hand(1000)
    other = sum(bar**k / k for k in range(2, 6))  # -log(1 - bar) - bar
    return 0.5 * (bar * (256**2 - 1) / (3 * 255**2) + other)


M31B = Mistake(
    number=31,
    form="b",
    title="pictures are left in 0..255",
    chapter="08_train",
    why="The schedule destroys numbers of size 1; of pixels of size 255 so much is left at T that the sampler's N(0, "
    "1) starts somewhere else.",
    wrong=wrong_pixels,
    right=right_pixels,
    observe=_memory,
    x=range(900, 1001, 10),
    labels=("t", "KL to N(0, 1), nats per pixel"),
    quantity="what is left of a pixel at T = 1000, in nats",
    truth=_memory_by_hand,
    tolerance=1e-9,
    margin=0.3,
)


def wrong_upsampled(x: Tensor) -> Tensor:
    """Twice as long by a transposed convolution whose weights are all 1; x: (1, 1, n)."""
    return F.conv_transpose1d(x, torch.ones(1, 1, 3), stride=2)


def right_upsampled(x: Tensor) -> Tensor:
    """Twice as long by a transposed convolution whose weights are all 1; x: (1, 1, n)."""
    return F.conv_transpose1d(x, torch.ones(1, 1, 4), stride=2)


def _unevenness_by_counting() -> float:
    """How many pairs (i, k), k < 4, reach the output position 2 i + k = j: the largest count minus the smallest, for inner j."""
    counts = [sum(2 * i + k == j for i in range(12) for k in range(4)) for j in range(4, 20)]
    return float(max(counts) - min(counts))


M32 = Mistake(
    number=32,
    title='"a transposed convolution is better, it learns the upsampling"',
    chapter="07_unet",
    why="It depends on kernel and stride: where the stride does not divide the kernel, neighbours get different numbers of contributions, "
    "a checkerboard before any training.",
    wrong=wrong_upsampled,
    right=right_upsampled,
    observe=lambda upsampled: upsampled(torch.ones(1, 1, 12))[0, 0, 4:20].double(),
    x=range(4, 20),
    labels=("output position", "contributions that overlap there"),
    quantity="largest minus smallest overlap count",
    truth=_unevenness_by_counting,
    tolerance=0.0,
    margin=1.0,
    read=lambda counts: float(counts.max() - counts.min()),
)

GROUP = (M29, M30, M31, M31B, M32)
