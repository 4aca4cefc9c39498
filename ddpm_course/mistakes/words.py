"""Sentences that are nearly right: what training is, what the network says, and what the loss compares."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..exact import ExactGaussian
from ..forward import q_sample
from ..prediction import EpsModel, eps_to_x_0
from ..sampling import ddim_sample, ddpm_step
from ..schedule import cosine_schedule
from .base import Mistake
from .tools import BAR, HALF, LINEAR, PAIR, at, bar_by_hand, bell, normals, pair_quantile, seeded, walk

SHORT = cosine_schedule(200)


def wrong_f(f: Callable[[Tensor, int], Tensor], x_t: Tensor, t: int, s: int) -> Tensor:
    """One step from t to s with f, the function that estimates x_0 from x_t."""
    x_s = f(x_t, t)
    return x_s


def right_f(f: Callable[[Tensor, int], Tensor], x_t: Tensor, t: int, s: int) -> Tensor:
    """One step from t to s with f, the function that estimates x_0 from x_t."""
    x_s = BAR[s] ** 0.5 * f(x_t, t) + ((1 - BAR[s]) / (1 - BAR[t])) ** 0.5 * (x_t - BAR[t] ** 0.5 * f(x_t, t))
    return x_s


def _spread_with_f(step: Callable[..., Tensor]) -> Tensor:
    model = HALF.eps_model(LINEAR)
    f = lambda x, t: eps_to_x_0(LINEAR, x, t, model(x, at(t, x)))  # noqa: E731
    return walk(lambda x, t: x, bell(500), range(1000, -1, -20), lambda x, _, t, s: step(f, x, t, s))[:, :, 0].std(1)


M12 = Mistake(
    number=12,
    title="f means x_{t-1} on one line and x_0 on the next",
    chapter="10_ddim",
    why="A symbol has one meaning: f gives an estimate of x_0, and the step to s still has to be made from it.",
    wrong=wrong_f,
    right=right_f,
    observe=_spread_with_f,
    x=range(1000, -1, -20),
    labels=("t, falling to 0", "standard deviation of x_t"),
    quantity="standard deviation of x_t at t = 500",
    truth=lambda: (0.25 * bar_by_hand(500) + 1 - bar_by_hand(500)) ** 0.5,
    tolerance=0.02,
    margin=0.5,
    read=25,
)


def wrong_training(theta: Tensor, x_0: Tensor, eps: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """One step of training the one-number network eps_hat = theta x_t at t = 300: the new theta, and x_t."""
    x_t = q_sample(LINEAR, x_0, 300, eps)
    return theta, x_t


def right_training(theta: Tensor, x_0: Tensor, eps: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """One step of training the one-number network eps_hat = theta x_t at t = 300: the new theta, and x_t."""
    x_t = q_sample(LINEAR, x_0, 300, eps)
    return theta - lr * 2 * ((theta * x_t - eps) * x_t).mean(), x_t


def _theta_on_the_way(training: Callable[..., Tensor]) -> Tensor:
    rng, seen = seeded(17), [torch.zeros(()).double()]
    for _ in range(200):
        x_0, eps = normals(rng, 2, 512)
        seen.append(training(seen[-1], 0.5 * x_0, eps, 0.03)[0])
    return torch.stack(seen)


def _best_theta() -> float:
    """E[eps x_t] / E[x_t^2]: the slope of the best straight line."""
    bar = bar_by_hand(300)
    return (1 - bar) ** 0.5 / (0.25 * bar + 1 - bar)


M17 = Mistake(
    number=17,
    title='"training is the diffusion process"',
    chapter="08_train",
    why="Diffusion is fixed and only makes the examples; what training fits is the network of the reverse process.",
    wrong=wrong_training,
    right=right_training,
    observe=_theta_on_the_way,
    x=range(201),
    labels=("step", "theta"),
    quantity="theta after 200 steps",
    truth=_best_theta,
    tolerance=0.05,
    margin=0.9,
)


def wrong_next(x_t: Tensor, answer: Tensor, t: int, z: Tensor) -> Tensor:
    """x_{t-1} from x_t; `answer` is what the network says, z ~ N(0, 1)."""
    return answer


def right_next(x_t: Tensor, answer: Tensor, t: int, z: Tensor) -> Tensor:
    """x_{t-1} from x_t; `answer` is what the network says, z ~ N(0, 1)."""
    return ddpm_step(SHORT, x_t, answer, t, t - 1, z)


def _mean_on_the_way(following: Callable[..., Tensor]) -> Tensor:
    one, rng = ExactGaussian(torch.ones(1), torch.ones(1, 1)), seeded(35)
    states = walk(one.eps_model(SHORT), bell(1000), range(200, -1, -1), lambda x, e, t, s: following(x, e, t, normals(rng, *x.shape)))
    return states[::5, :, 0].mean(1)


M35 = Mistake(
    number=35,
    title='"the network outputs x_{t-1}"',
    chapter="03_posterior",
    why="It answers with eps_hat; from that follow a mean and a distribution, and x_{t-1} is drawn from it.",
    wrong=wrong_next,
    right=right_next,
    observe=_mean_on_the_way,
    x=range(200, -1, -5),
    labels=("t, falling to 0", "mean of x_t"),
    quantity="mean of the samples, data have 1",
    truth=lambda: 1.0,
    tolerance=0.1,
    margin=0.8,
)


def wrong_generated(model: EpsModel, x_T: Tensor) -> Tensor:
    """A new x_0 from noise."""
    return ddim_sample(model, SHORT, x_T=x_T, num_steps=1)


def right_generated(model: EpsModel, x_T: Tensor) -> Tensor:
    """A new x_0 from noise."""
    return ddim_sample(model, SHORT, x_T=x_T, num_steps=200)


SHARES = torch.arange(0.05, 1.0, 0.05, dtype=torch.float64)
M36 = Mistake(
    number=36,
    title='"one pass of the U-Net is generation: its encoder encodes noise, its decoder decodes a picture"',
    chapter="00_tour",
    why="One pass is one denoising step; asked once, at T, even the perfect network answers with the average of all data.",
    wrong=wrong_generated,
    right=right_generated,
    observe=lambda generated: torch.quantile(generated(PAIR.eps_model(SHORT), bell(1000))[:, 0], SHARES),
    x=SHARES.tolist(),
    labels=("share of samples below", "value"),
    quantity="the value below which 90 % of the samples lie",
    truth=lambda: pair_quantile(0.9),
    tolerance=0.03,
    margin=1.0,
    read=17,
)


def wrong_loss(model: EpsModel, x_0: Tensor, t: int, eps: Tensor) -> Tensor:
    """What training minimises, for pictures x_0 and noise eps at time t."""
    return (ddim_sample(model, LINEAR, x_T=eps, num_steps=20) - x_0).square().mean()


def right_loss(model: EpsModel, x_0: Tensor, t: int, eps: Tensor) -> Tensor:
    """What training minimises, for pictures x_0 and noise eps at time t."""
    return (model(q_sample(LINEAR, x_0, t, eps), at(t, x_0)) - eps).square().mean()


TIMES = (1, 50, 100, 200, 300, 400, 500, 700, 1000)


def _loss_of_the_oracle(loss: Callable[..., Tensor]) -> Tensor:
    x_0, eps = normals(seeded(37), 2, 4000, 1)
    return torch.stack([loss(HALF.eps_model(LINEAR), 0.5 * x_0, t, eps) for t in TIMES])


def _irreducible() -> float:
    """Var(eps | x_t) at t = 500 for data N(0, 0.25)."""
    bar = bar_by_hand(500)
    return 0.25 * bar / (0.25 * bar + 1 - bar)


M37 = Mistake(
    number=37,
    title='"the loss compares generated with real pictures"',
    chapter="06_prediction",
    why="It compares eps with eps_hat at one x_t, and the bound's KL compares conditionals; a perfect generator paired with real pictures "
    "would be charged twice the variance of the data.",
    wrong=wrong_loss,
    right=right_loss,
    observe=_loss_of_the_oracle,
    x=TIMES,
    labels=("t", "loss of the perfect network"),
    quantity="loss of the perfect network at t = 500",
    truth=_irreducible,
    tolerance=0.003,
    margin=0.4,
    read=6,
)

GROUP = (M12, M17, M35, M36, M37)
