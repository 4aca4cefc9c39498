"""Guidance: steer the prediction towards a condition. Every function here takes eps_models and gives an eps_model.

Scales: s = 1 is the conditional model, s = 0 the unconditional one. CFG's own letter is w = s - 1 (see scale_from_w).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError, ShapeError, ValueCourseError, one_of
from .forward import draw
from .posterior import Variance, reverse_variance
from .prediction import TO_EPS, EpsModel, as_eps_model, eps_to_x_0
from .sampling import Step, batch_time, ddpm_step
from .schedule import NoiseSchedule, cast

LogProb = Callable[[Tensor, Tensor], Tensor]  # (x_t, t (B,)) -> log p(y | x_t) of each example, (B,)


def scale_from_w(w: float) -> float:
    """s = 1 + w: CFG's eq. 6 writes (1 + w) eps(x, y) - w eps(x); here that is eps(x) + s (eps(x, y) - eps(x)).   CFG eq. 6."""
    return 1.0 + w


def w_from_scale(scale: float) -> float:
    """w = s - 1: what CFG's paper calls the guidance strength.   CFG eq. 6."""
    return scale - 1.0


def gradient_of(log_prob: LogProb, x_t: Tensor, t: Tensor) -> Tensor:
    """grad_x log p(y | x_t), like x_t. Switches gradients on by itself: samplers run without."""
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        value = log_prob(x, t)
        if value.shape != x_t.shape[:1]:
            raise ShapeError(f"log_prob must give one number an example, ({len(x_t)},), got {tuple(value.shape)}")
        return torch.autograd.grad(value.sum(), x)[0]


def classifier_guided(eps_model: EpsModel, log_prob: LogProb, schedule: NoiseSchedule, scale: float = 1.0) -> EpsModel:
    """eps - s sqrt(1 - alpha_bar) grad log p(y | x_t): exact for s = 1 if both parts are. Scale 0 asks no classifier.   Dhariwal eq. 14."""

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        """eps of p(x_t) p(y | x_t)^s."""
        eps = eps_model(x_t, t)
        if scale == 0:
            return eps
        noise = (1 - schedule.at(t, x_t.ndim, low=1)) ** 0.5
        return eps - cast(scale * noise, x_t) * gradient_of(log_prob, x_t, t)

    return guided


def mean_shift_stepper(
    eps_model: EpsModel,
    log_prob: LogProb,
    schedule: NoiseSchedule,
    scale: float = 1.0,
    variance: Variance = "posterior",
    generator: torch.Generator | None = None,
) -> Step:
    """The step of `trajectory` that adds s Sigma grad log p(y | mu) to DDPM's mean mu: exact only for small steps.   Dhariwal eq. 10.

    The gradient is taken at mu and time s, as in Dhariwal's Algorithm 1. With the posterior variance the last step is not guided.
    """

    def step(x_t: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
        """(x_t, t, s) -> (x_s, x_0_hat)."""
        eps = eps_model(x_t, batch_time(x_t, t))
        mean = ddpm_step(schedule, x_t, eps, t, s, torch.zeros_like(x_t), variance)
        var = reverse_variance(schedule, t, s, variance, x_t.ndim) if s > 0 else 0.0
        if s > 0 and scale != 0:
            mean = mean + cast(scale * var, x_t) * gradient_of(log_prob, mean, batch_time(x_t, s))
        x_s = mean if s == 0 else mean + cast(var**0.5, x_t) * draw(x_t.shape, x_t, generator)
        return x_s, eps_to_x_0(schedule, x_t, t, eps)

    return step


def blend(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """eps(x) + s (eps(x, y) - eps(x)).   CFG eq. 6 with s = 1 + w."""
    return unconditional + scale * (conditional - unconditional)


def classifier_free(conditional: EpsModel, unconditional: EpsModel, scale: float) -> EpsModel:
    """Both models, blended: s = 1 is the conditional one and s = 0 the other, each alone and bit for bit.   CFG eq. 6."""
    if scale == 1:
        return conditional
    if scale == 0:
        return unconditional

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        """The blended eps."""
        return blend(conditional(x_t, t), unconditional(x_t, t), scale)

    return guided


def batched_guidance(
    net: Callable[..., Tensor],
    schedule: NoiseSchedule,
    cond: dict[str, Tensor],
    null: dict[str, Tensor],
    scale: float,
    prediction: str = "eps",
    rescale: float = 0.0,
) -> EpsModel:
    """classifier_free with one network and both branches in one forward pass; scales 0 and 1 run one branch only.   CFG eq. 6.

    cond, null: the network's keywords, each (B, ...) as x_t or (1, ...) for all. eps, v and x_0 blend alike: each is affine in the others.
    rescale: share by which the blend, as the network's own kind, goes back to the spread of the conditional one (ZTSNR section 3.4).
    """
    one_of("prediction", prediction, TO_EPS)
    check_share(rescale)
    if cond.keys() != null.keys():
        raise ValueCourseError(f"cond has {sorted(cond)}, null has {sorted(null)}: both need the same keywords")
    if scale in (0, 1):
        return _one_branch(net, schedule, cond if scale == 1 else null, prediction)

    def both(x_t: Tensor, t: Tensor) -> Tensor:
        """The blended prediction, as the network's own kind."""
        words = {key: torch.cat([spread(value, len(x_t)), spread(null[key], len(x_t))]) for key, value in cond.items()}
        conditional, unconditional = net(torch.cat([x_t, x_t]), torch.cat([t, t]), **words).chunk(2)
        return with_spread_of(conditional, blend(conditional, unconditional, scale), rescale)

    return as_eps_model(both, schedule, prediction)


def _one_branch(net: Callable[..., Tensor], schedule: NoiseSchedule, cond: dict[str, Tensor], prediction: str) -> EpsModel:
    """The network with these keywords, spread over the batch."""
    return as_eps_model(lambda x_t, t: net(x_t, t, **{key: spread(x, len(x_t)) for key, x in cond.items()}), schedule, prediction)


def label_guided(
    net: Callable[..., Tensor], schedule: NoiseSchedule, label: int, num_classes: int, scale: float = 1.0, prediction: str = "eps"
) -> EpsModel:
    """batched_guidance of a network with this many classes towards one label; the label num_classes stands for "none".   CFG eq. 6."""
    if num_classes == 0:
        raise ConfigError(f"label = {label}: this network has no classes; take one trained with num_classes > 0, such as digits-classes")
    if not 0 <= label < num_classes:
        raise ConfigError(f"label = {label} must lie in 0..{num_classes - 1}: this network has {num_classes} classes")
    device = schedule.beta.device
    y, null = (torch.tensor([value], device=device) for value in (label, num_classes))
    return batched_guidance(net, schedule, {"y": y}, {"y": null}, scale, prediction)


def spread(value: Tensor, size: int) -> Tensor:
    """A condition (1, ...) for each of `size` examples; one that is (size, ...) already stays."""
    if len(value) not in (1, size):
        raise ShapeError(f"a condition has {len(value)} rows for {size} pictures; give 1 or {size}")
    return value.expand(size, *value.shape[1:]) if len(value) == 1 else value


def check_share(share: float) -> None:
    """Refuse a share of rescaling outside [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueCourseError(f"share = {share} must lie in [0, 1]: 0 leaves guidance as it is, 1 rescales fully")


def with_spread_of(like: Tensor, value: Tensor, share: float) -> Tensor:
    """value, example by example brought to the standard deviation of `like`, by this share.   ZTSNR section 3.4."""
    if share == 0:
        return value
    axes: Any = tuple(range(1, value.ndim))
    ratio = like.std(axes, keepdim=True) / value.std(axes, keepdim=True)
    return value * (share * ratio + 1 - share)


def rescaled(guided: EpsModel, conditional: EpsModel, share: float = 0.7) -> EpsModel:
    """Guidance that keeps the spread of the conditional eps: scaled to its standard deviation, by this share.   ZTSNR section 3.4.

    eps has standard deviation 1 whatever the picture, so this does little; the paper rescales v: see batched_guidance(rescale=...).
    """
    check_share(share)
    return lambda x_t, t: with_spread_of(conditional(x_t, t), guided(x_t, t), share)
