"""Checks of "find the planted bugs": each looks at one function of the small DDPM and knows the bug that was put there."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import Exercise, verdict

T = 200
_HEAPS = [(1.4 * math.cos(k * math.pi / 4), 1.4 * math.sin(k * math.pi / 4)) for k in range(8)]
_X = torch.tensor([[0.4, -1.1], [1.3, 0.2], [-0.7, 0.9]])
_E = torch.tensor([[0.3, 1.2], [-0.8, 0.5], [1.5, -0.4]])
_TIMES = torch.tensor([3, 90, 170])


def _beta(t: int) -> float:
    """The program's schedule, t = 1..200."""
    return 5e-4 + (0.1 - 5e-4) * (t - 1) / (T - 1)


def _bar(t: int) -> float:
    """alpha_bar_t through logarithms."""
    return math.exp(sum(math.log1p(-_beta(k)) for k in range(1, t + 1)))


def _mix(signal: float, x: Tensor, noise: float, eps: Tensor) -> Tensor:
    """signal x + noise eps, in float64."""
    return signal * x.double() + noise * eps.double()


def _rows(f: Callable[[int, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A function of one time and one row, for a batch with a time for each row."""
    return lambda x, t, eps: torch.stack([f(int(k), a, b) for k, a, b in zip(t, x, eps, strict=True)])


def _moments(noise_like: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean, variance and fourth moment over the squared variance, of 400,000 numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        z = noise_like(torch.zeros(200_000, 2)).double()
    centred = z - z.mean()
    return torch.stack([z.mean(), centred.square().mean(), centred.pow(4).mean() / centred.square().mean() ** 2])


def _box_muller(x: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones."""
    return (-2 * (1 - torch.rand_like(x)).log()).sqrt() * (2 * math.pi * torch.rand_like(x)).cos()


def _reach(draw_times: Callable[[int], Tensor]) -> Tensor:
    """Smallest and largest of 20,000 drawn times, and how many different ones there are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        t = draw_times(20_000)
    return torch.tensor([int(t.min()), int(t.max()), len(t.unique())])


def _listens(net_class: Callable[[], nn.Module]) -> Tensor:
    """Whether an untrained network answers differently at t = 1 and 50, at 50 and 150, at 150 and 200."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = net_class()
        answers = [net(_X, torch.full((3,), t)) for t in (1, 50, 150, 200)]
    return torch.tensor([not torch.equal(a, b) for a, b in zip(answers, answers[1:], strict=False)])


class _Clock(nn.Module):
    """The smallest network that listens: x plus a number that depends on the time."""

    def __init__(self, hear: Callable[[Tensor], Tensor] = lambda t: t / T) -> None:
        super().__init__()
        self.hear = hear

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, 2), (B,) -> (B, 2)."""
        return x_t + self.hear(t)[:, None]


def _asked(sample: Callable[[Callable[[Tensor, Tensor], Tensor], int], Tensor]) -> Tensor:
    """The times at which a sampler asks its network, in order."""
    times: list[int] = []

    def recorder(x_t: Tensor, t: Tensor) -> Tensor:
        """Answers 0 and remembers the time."""
        times.append(int(t[0]))
        return torch.zeros_like(x_t)

    with torch.random.fork_rng(devices=[]):
        sample(recorder, 2)
    return torch.tensor(times)


def _walk(times: range) -> Callable[[Callable[[Tensor, Tensor], Tensor], int], None]:
    """A sampler that only asks, at these times."""
    return lambda net, n: [net(torch.zeros(n, 2), torch.full((n,), t)) for t in times] and None


def _back(x: Tensor, t: int, eps: Tensor, z: Tensor, width: float, undo: bool = True) -> Tensor:
    """x_0_hat first, then the mean of the posterior by the weights of x_0 and x_t, then `width` times z."""
    bar, before, alpha = _bar(t), _bar(t - 1), 1 - _beta(t)
    x_0 = (x.double() - math.sqrt(1 - bar) * eps.double()) / math.sqrt(bar)
    mean = (math.sqrt(before) * _beta(t) * x_0 + math.sqrt(alpha) * (1 - before) * x.double()) / (1 - bar)
    return mean * (1 if undo else math.sqrt(alpha)) + width * z.double()


def _score(
    x: Tensor,
    t: Tensor,
    shrink: Callable[[int], float] = lambda t: math.sqrt(_bar(t)),
    var: Callable[[int], float] = lambda t: _bar(t) * 0.01 + 1 - _bar(t),
) -> Tensor:
    """The slope of the log density of the diffused heaps, heap by heap in plain numbers."""
    rows = []
    for point, k in zip(x.tolist(), t.tolist(), strict=True):
        pulls = [[shrink(k) * c - p for c, p in zip(heap, point, strict=True)] for heap in _HEAPS]
        logs = [-(a * a + b * b) / (2 * var(k)) for a, b in pulls]
        shares = [math.exp(log - max(logs)) for log in logs]
        rows.append([sum(w * pull[i] for w, pull in zip(shares, pulls, strict=True)) / sum(shares) / var(k) for i in (0, 1)])
    return torch.tensor(rows, dtype=torch.float64)


EXERCISES = {
    "B.1": Exercise(
        answer=_box_muller,
        measure=_moments,
        tolerance=0.03,
        hint="Draw 100,000 numbers and look at a histogram: the mean must be 0, the variance 1, the shape a bell.",
        wrong={
            "These numbers are never negative and lie between 0 and 1: that is uniform noise.": torch.rand_like,
            "Mean 0, but still a box and no bell, and the variance is not 1.": lambda x: 2 * torch.rand_like(x) - 1,
            "Mean 0 and variance 1, but the shape is a box; the theory needs a bell.": lambda x: 12**0.5 * (torch.rand_like(x) - 0.5),
        },
    ),
    "B.2": Exercise(
        answer=lambda x, t, eps: _mix(math.exp(0.5 * math.log1p(-_beta(t))), x, math.exp(0.5 * math.log(_beta(t))), eps),
        inputs=((_X, 1, _E), (_X, 120, _E), (_X, 200, _E)),
        hint="Variances: what comes in has 1, what goes out must have 1 again. Which factors do that?",
        wrong={
            "beta is the variance of the step's noise; noise is multiplied by a standard deviation.": lambda x, t, eps: _mix(
                math.sqrt(1 - _beta(t)), x, _beta(t), eps
            ),
            "The noise is right now; what was there before is shrunk by a root, too.": lambda x, t, eps: _mix(
                1 - _beta(t), x, math.sqrt(_beta(t)), eps
            ),
            "The noise is right now, but what was there before is not shrunk, so the variance grows.": lambda x, t, eps: _mix(
                1, x, math.sqrt(_beta(t)), eps
            ),
        },
    ),
    "B.3": Exercise(
        answer=_rows(lambda t, x, eps: _mix(math.sqrt(_bar(t)), x, math.sqrt(1 - _bar(t)), eps)),
        inputs=((_X, _TIMES, _E),),
        hint="Walk 90 single steps from 1,000 equal points, and jump to t = 90: mean and variance must agree.",
        wrong={
            "That is the law of a single step, from x_{t-1}. A jump from x_0 has gone through all steps up to t.": _rows(
                lambda t, x, eps: _mix(math.sqrt(1 - _beta(t)), x, math.sqrt(_beta(t)), eps)
            ),
            "alpha_bar is a share of variance; signal and noise are multiplied by roots.": _rows(
                lambda t, x, eps: _mix(_bar(t), x, 1 - _bar(t), eps)
            ),
            "One step too far: t counts from 1, a list from 0, so time t is entry t - 1.": _rows(
                lambda t, x, eps: _mix(math.sqrt(_bar(t + 1)), x, math.sqrt(1 - _bar(t + 1)), eps)
            ),
        },
    ),
    "B.4": Exercise(
        answer=lambda n: 1 + torch.arange(n) % T,
        measure=_reach,
        hint="The sampler starts at T. Has the network ever seen T? The upper end of torch.randint is not drawn.",
        wrong={
            "The time T is never drawn, but the sampler's first question is about T.": lambda n: 1 + torch.arange(n) % (T - 1),
            "Now 0 is drawn as well; in this program times are 1 to T.": lambda n: torch.arange(n) % (T + 1),
            "Times are counted from 0 here, and from 1 everywhere else in this program.": lambda n: torch.arange(n) % T,
        },
    ),
    "B.5": Exercise(
        answer=_Clock,
        measure=_listens,
        hint="Give the network one point at t = 1, 50, 150 and 200, and print what it receives as the time.",
        wrong={
            "It hears t = 200 and nothing else: look at what the division gives for t = 50.": lambda: _Clock(lambda t: (t // T).float()),
            "The answers at all times are equal: the time does not reach the layers.": lambda: _Clock(lambda t: 0.0 * t),
        },
    ),
    "B.6": Exercise(
        answer=lambda x, t, eps, z: _back(x, t, eps, z, math.sqrt(_beta(t)) if t > 1 else 0),
        inputs=((_X, 1, _E, _X), (_X, 2, _E, _X), (_X, 150, _E, _X)),
        tolerance=1e-3,
        hint="Which noise should a finished point have? Compare the results of step(x, 1, eps_hat, z) for two different z.",
        wrong={
            "Noise is added at t = 1, too, and nobody comes after it to clean up.": lambda x, t, eps, z: _back(
                x, t, eps, z, math.sqrt(_beta(t))
            ),
            "The last step is clean now, but so are all the others: they need their noise.": lambda x, t, eps, z: _back(x, t, eps, z, 0),
            "Not only the step from 1 to 0 is clean now: the one from 2 to 1 still needs noise.": lambda x, t, eps, z: _back(
                x, t, eps, z, math.sqrt(_beta(t)) if t > 2 else 0
            ),
        },
    ),
    "B.7": Exercise(
        answer=_walk(range(T, 0, -1)),
        measure=_asked,
        hint="Print the times at which the sampler asks the network: they must be 200, 199, ..., 1.",
        wrong={
            "The sampler stops at x_1: the step from 1 to 0 is never made.": _walk(range(T, 1, -1)),
            "Now it starts one step too late; its first question must be about T.": _walk(range(T - 1, 0, -1)),
            "One question too many: there is no step from 0.": _walk(range(T, -1, -1)),
        },
    ),
    "B.8": Exercise(
        answer=_score,
        inputs=((_X, _TIMES), (_E, torch.tensor([20, 60, 200]))),
        tolerance=2e-3,
        hint="The score at time t belongs to the density of x_t: where are the heaps then, and how wide is each?",
        wrong={
            "That is the score of the clean data. At time t the heaps have moved and are wider.": lambda x, t: _score(
                x, t, lambda _: 1.0, lambda _: 0.01
            ),
            "The heaps are wider now, but they also move towards the middle, by sqrt(alpha_bar).": lambda x, t: _score(x, t, lambda _: 1.0),
            "The heaps move now, but they are also wider: the noise's variance 1 - alpha_bar comes on top.": lambda x, t: _score(
                x, t, var=lambda _: 0.01
            ),
        },
    ),
}


def remaining(answers: dict[str, Any]) -> str:
    """Which of the eight bugs are still there."""
    left = [number for number in EXERCISES if verdict(number, answers.get(number))]
    return f"still to mend: {', '.join(left)}" if left else "all eight bugs are mended"
