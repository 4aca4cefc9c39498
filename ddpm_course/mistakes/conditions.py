"""Mistakes about conditions: guidance by a classifier, labels that are dropped, labels and captions."""

from collections import Counter
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from ..posterior import q_posterior, reverse_variance
from ..prediction import eps_to_x_0
from ..schedule import cosine_schedule
from .base import Mistake
from .tools import PAIR, at, seeded

COARSE = cosine_schedule(10)
BARS = COARSE.alpha_bar.tolist()
BETAS = [0.0, *(reverse_variance(COARSE, t, t - 1, "beta") for t in range(1, 11))]
TILDES = [0.0, *(reverse_variance(COARSE, t, t - 1, "posterior") for t in range(1, 11))]
HERE = torch.tensor([[-0.3]], dtype=torch.float64)  # x_t, between the bells; y says: the right-hand one
Gradient = Callable[[Tensor, int], Tensor]


def log_y_gradient(x: Tensor, t: int) -> Tensor:
    """d log p(y | x_t = x) / dx in closed form: the pull of the one bell minus the mean pull."""
    pulls = (BARS[t] ** 0.5 * PAIR.means[:, 0] - x) / (BARS[t] * 0.04 + 1 - BARS[t])
    return pulls[:, 1:] - (PAIR.responsibilities(x, BARS[t]) * pulls).sum(1, keepdim=True)


def reverse_mean(x_t: Tensor, eps: Tensor, t: int) -> Tensor:
    """Mean of p(x_{t-1} | x_t).   Ho eqs. 7, 15."""
    return q_posterior(COARSE, eps_to_x_0(COARSE, x_t, t, eps), x_t, t)[0]


def wrong_guided(x_t: Tensor, eps: Tensor, gradient: Gradient, t: int) -> Tensor:
    """Mean of x_{t-1} given x_t and a class y; gradient(x, t) is that of log p(y | x_t = x)."""
    return reverse_mean(x_t, eps, t) + TILDES[t] * gradient(x_t, t)


def wrong_guided__at_mean(x_t: Tensor, eps: Tensor, gradient: Gradient, t: int) -> Tensor:
    """Mean of x_{t-1} given x_t and a class y; gradient(x, t) is that of log p(y | x_t = x)."""
    return reverse_mean(x_t, eps, t) + BETAS[t] * gradient(reverse_mean(x_t, eps, t), t - 1)


def right_guided(x_t: Tensor, eps: Tensor, gradient: Gradient, t: int) -> Tensor:
    """Mean of x_{t-1} given x_t and a class y; gradient(x, t) is that of log p(y | x_t = x)."""
    return reverse_mean(x_t, eps - (1 - BARS[t]) ** 0.5 * gradient(x_t, t), t)


def _guided_means(guided: Callable[..., Tensor]) -> Tensor:
    oracle = PAIR.eps_model(COARSE)
    return torch.stack([guided(HERE, oracle(HERE, at(t, HERE)), log_y_gradient, t)[0, 0] for t in range(1, 11)])


def _mean_of_the_bell(t: int) -> float:
    """E[x_{t-1} | x_t = -0.3, y]: the posterior of the one bell N(1, 0.04), by precisions."""
    alpha, spread = BARS[t] / BARS[t - 1], BARS[t - 1] * 0.04 + 1 - BARS[t - 1]
    return (BARS[t - 1] ** 0.5 / spread + alpha**0.5 * (-0.3) / (1 - alpha)) / (1 / spread + alpha / (1 - alpha))


M33 = Mistake(
    number=33,
    title="guidance by a shift of the mean at x_t is taken for the shift of eps",
    chapter="16_classifier_guidance",
    why="The eps form is exact for an exact classifier; the shift by Σ is an approximation for small steps, and Σ = "
    "β̃ silences it at t = 1, "
    "where β̃ is 0.",
    wrong=wrong_guided,
    right=right_guided,
    observe=_guided_means,
    x=range(1, 11),
    labels=("t, of T = 10", "mean of the step, given y"),
    quantity="mean of x_0 given x_1 = -0.3 and y",
    truth=lambda: _mean_of_the_bell(1),
    tolerance=1e-9,
    margin=0.1,
    read=0,
)
M33B = Mistake(
    number=33,
    form="b",
    title="guidance by a shift of the mean with the gradient taken at μ, and Σ = β, is taken for the shift of eps",
    chapter="16_classifier_guidance",
    why="The gradient at μ is a third approximation; all three agree as the steps get small, and in ten steps none of the shifts is exact.",
    wrong=wrong_guided__at_mean,
    right=right_guided,
    observe=_guided_means,
    x=range(1, 11),
    labels=("t, of T = 10", "mean of the step, given y"),
    quantity="mean of x_2 given x_3 = -0.3 and y",
    truth=lambda: _mean_of_the_bell(3),
    tolerance=1e-9,
    margin=0.5,
    read=2,
)

EMPTY = 10  # the label that means "no label"


def wrong_dropped(y: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Labels for training with and without condition: about `share` of them become EMPTY."""
    drop = torch.rand(1, generator=rng) < share
    return torch.where(drop, EMPTY, y)


def right_dropped(y: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Labels for training with and without condition: about `share` of them become EMPTY."""
    drop = torch.rand(len(y), generator=rng) < share
    return torch.where(drop, EMPTY, y)


def _shares(dropped: Callable[..., Tensor]) -> Tensor:
    rng, y = seeded(28), torch.arange(64) % 10
    return torch.stack([(dropped(y, 0.1, rng) == EMPTY).double().mean() for _ in range(100)])


M28 = Mistake(
    number=28,
    title="the labels of the whole batch are dropped at once",
    chapter="17_classifier_free",
    why="One throw of the dice for a batch makes all of its labels go or stay together: the mean share is right and "
    "the gradient far noisier; "
    "throw once per example.",
    wrong=wrong_dropped,
    right=right_dropped,
    observe=_shares,
    x=range(1, 101),
    labels=("batch of 64", "share of labels dropped"),
    quantity="standard deviation of the share over batches",
    truth=lambda: (0.1 * 0.9 / 64) ** 0.5,  # binomial
    tolerance=0.01,
    margin=0.2,
    read=lambda shares: float(shares.std()),
)

COUNTS, COLOURS, DIGITS = ("one", "two"), ("red", "green", "blue"), tuple("0123456789")


def wrong_condition(count: str, colour: str, digit: str) -> tuple[str, ...]:
    """What the network is told about a picture of, say, two red 7s."""
    return (digit,)


def right_condition(count: str, colour: str, digit: str) -> tuple[str, ...]:
    """What the network is told about a picture of, say, two red 7s."""
    return count, colour, digit


def _best_hit_rates(condition: Callable[..., tuple[str, ...]]) -> Tensor:
    """How often the best guess from the condition alone gets the count, the colour, the digit, and all three right."""
    captions = list(product(COUNTS, COLOURS, DIGITS))
    told = [condition(*caption) for caption in captions]
    parts = [*zip(*captions, strict=True), captions]
    hits = [sum(max(Counter(p for p, c in zip(part, told, strict=True) if c == key).values()) for key in set(told)) for part in parts]
    return torch.tensor(hits) / len(captions)


M38 = Mistake(
    number=38,
    title="a data set of labels is taken for a data set of texts",
    chapter="18_text_to_image",
    why="A label (ImageNet) names one thing, a caption (LAION) how many, which colour and where; what the condition "
    "does not say, no network can obey.",
    wrong=wrong_condition,
    right=right_condition,
    observe=_best_hit_rates,
    x=("count", "colour", "digit", "all three"),
    labels=("part of the caption", "best possible hit rate"),
    quantity='share of "two red 7s" that the best network can obey in full',
    truth=lambda: 1.0,  # the caption names all three
    tolerance=1e-6,
    margin=0.8,
)

GROUP = (M28, M33, M33B, M38)
