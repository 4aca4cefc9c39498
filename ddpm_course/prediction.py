"""What a network may predict: eps, x_0, v or the score. At known x_t and t each one determines the others.

Throughout x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps and v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0.
All take (schedule, x_t (B, ...), t (B,) or int, value (B, ...)).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import NonFiniteError, check_tensors, one_of
from .schedule import Coefficient, NoiseSchedule, Time, cast

EpsModel = Callable[[Tensor, Tensor], Tensor]  # (x_t, t (B,)) -> eps_hat; conditions are closed over


def _signal_noise(schedule: NoiseSchedule, x_t: Tensor, t: Time, value: Tensor) -> tuple[Coefficient, Coefficient]:
    """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t): the shares of signal and noise in x_t."""
    check_tensors(x_t=x_t, value=value)
    bar = schedule.at(t, x_t.ndim, low=1)
    return cast(bar**0.5, x_t), cast((1 - bar) ** 0.5, x_t)


def eps_to_x_0(schedule: NoiseSchedule, x_t: Tensor, t: Time, eps: Tensor) -> Tensor:
    """x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar).   Ho eq. 15."""
    signal, noise = _signal_noise(schedule, x_t, t, eps)
    return (x_t - noise * eps) / signal


def x_0_to_eps(schedule: NoiseSchedule, x_t: Tensor, t: Time, x_0: Tensor) -> Tensor:
    """eps = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar).   Ho eq. 15, solved for eps."""
    signal, noise = _signal_noise(schedule, x_t, t, x_0)
    return (x_t - signal * x_0) / noise


def v_to_eps(schedule: NoiseSchedule, x_t: Tensor, t: Time, v: Tensor) -> Tensor:
    """eps = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v.   v-pred appendix D."""
    signal, noise = _signal_noise(schedule, x_t, t, v)
    return noise * x_t + signal * v


def eps_to_v(schedule: NoiseSchedule, x_t: Tensor, t: Time, eps: Tensor) -> Tensor:
    """v = (eps - sqrt(1 - alpha_bar) x_t) / sqrt(alpha_bar).   v-pred appendix D."""
    signal, noise = _signal_noise(schedule, x_t, t, eps)
    return (eps - noise * x_t) / signal


def v_to_x_0(schedule: NoiseSchedule, x_t: Tensor, t: Time, v: Tensor) -> Tensor:
    """x_0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v.   v-pred appendix D."""
    signal, noise = _signal_noise(schedule, x_t, t, v)
    return signal * x_t - noise * v


def x_0_to_v(schedule: NoiseSchedule, x_t: Tensor, t: Time, x_0: Tensor) -> Tensor:
    """v = (sqrt(alpha_bar) x_t - x_0) / sqrt(1 - alpha_bar).   v-pred appendix D."""
    signal, noise = _signal_noise(schedule, x_t, t, x_0)
    return (signal * x_t - x_0) / noise


def eps_to_score(schedule: NoiseSchedule, x_t: Tensor, t: Time, eps: Tensor) -> Tensor:
    """grad log q(x_t) = -E[eps | x_t] / sqrt(1 - alpha_bar).   SDE section 3.3; Ho section 3.2."""
    _, noise = _signal_noise(schedule, x_t, t, eps)
    return -eps / noise


def keep_eps(schedule: NoiseSchedule, x_t: Tensor, t: Time, eps: Tensor) -> Tensor:
    """eps itself: the identity, so that every prediction has a converter."""
    return eps


TO_EPS = {"eps": keep_eps, "x_0": x_0_to_eps, "v": v_to_eps}


def target(schedule: NoiseSchedule, x_0: Tensor, t: Time, eps: Tensor, prediction: str = "eps") -> Tensor:
    """What a network with this prediction should answer: eps, x_0, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0."""
    one_of("prediction", prediction, TO_EPS)
    if prediction != "v":
        return eps if prediction == "eps" else x_0
    signal, noise = _signal_noise(schedule, x_0, t, eps)
    return signal * eps - noise * x_0


def as_eps_model(net: Callable[..., Tensor], schedule: NoiseSchedule, prediction: str = "eps", **cond: object) -> EpsModel:
    """A network (x_t, t, **cond) -> prediction as an eps_model (x_t, t) -> eps."""
    one_of("prediction", prediction, TO_EPS)
    to_eps = TO_EPS[prediction]

    def eps_model(x_t: Tensor, t: Tensor) -> Tensor:
        """The network's prediction, turned into eps."""
        return to_eps(schedule, x_t, t, net(x_t, t, **cond).to(x_t.dtype))

    return eps_model


def compiled(net: Callable[..., Tensor], mode: str | None = "reduce-overhead", **options: object) -> Callable[..., Tensor]:
    """The same network through torch.compile, for one shape at a time: net -> net. "reduce-overhead" replays CUDA graphs on a GPU.

    A graph answers in the same memory every time; the answer is copied out of it, so the caller may keep it.
    """
    fast = torch.compile(net, mode=mode, **options)

    def answer(x_t: Tensor, t: Tensor, **cond: object) -> Tensor:
        """The network's answer, in memory of its own."""
        return fast(x_t, t, **cond).clone()

    return answer


def clip_x_0(eps_model: EpsModel, schedule: NoiseSchedule, low: float = -1, high: float = 1) -> EpsModel:
    """The eps_model whose x_0_hat is clipped to [low, high], with eps derived again from it.   Ho section 3.2."""

    def clipped(x_t: Tensor, t: Tensor) -> Tensor:
        """eps of the clipped x_0_hat."""
        x_0_hat = eps_to_x_0(schedule, x_t, t, eps_model(x_t, t)).clamp(low, high)
        return x_0_to_eps(schedule, x_t, t, x_0_hat)

    return clipped


def guard_finite(eps_model: EpsModel) -> EpsModel:
    """The same eps_model, raising NonFiniteError that names t at the first NaN or infinity. Waits for the GPU at every call."""

    def guarded(x_t: Tensor, t: Tensor) -> Tensor:
        """eps, or NonFiniteError."""
        eps = eps_model(x_t, t)
        if not bool(torch.isfinite(eps).all()):
            raise NonFiniteError(
                f"the model's eps is not finite at t = {int(t[0])}; look at the weights, the learning rate and half precision"
            )
        return eps

    return guarded
