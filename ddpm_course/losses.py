"""What training minimises: L_simple, and the weights that turn it into the bound.   Ho eqs. 12, 14."""

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import one_of
from .forward import q_sample
from .posterior import Variance, reverse_variance
from .prediction import TO_EPS, target
from .schedule import Coefficient, NoiseSchedule, Time

Loss = Callable[..., Tensor]  # (net, schedule, x_0, t, eps, prediction, **cond) -> one number for each example (B,), as diffusion_loss


def simple_loss(prediction: Tensor, wanted: Tensor) -> Tensor:
    """Mean square error per example, (B,). With eps in both places this is L_simple.   Ho eq. 14."""
    return ((prediction.float() if prediction.dtype.itemsize < 4 else prediction) - wanted).square().flatten(1).mean(1)


def vlb_weight(schedule: NoiseSchedule, t: Time, variance: Variance = "beta") -> Coefficient:
    """beta^2 / (2 sigma^2 alpha (1 - alpha_bar)): what |eps - eps_hat|^2 weighs in the bound at t >= 2.   Ho eq. 12."""
    schedule.check(t, low=2 if variance == "posterior" else 1)  # beta~ is 0 at t = 1
    bar_t, bar_s = schedule.pair(t, None)
    alpha = bar_t / bar_s
    return (1 - alpha) ** 2 / (2 * reverse_variance(schedule, t, t - 1, variance) * alpha * (1 - bar_t))


def min_snr_weight(schedule: NoiseSchedule, t: Time, prediction: str = "eps", gamma: float = 5.0) -> Coefficient:
    """min(SNR, gamma) in x_0's loss, expressed for eps, x_0 or v.   min-SNR section 3.4."""
    one_of("prediction", prediction, TO_EPS)
    snr = schedule.snr(t)
    capped = snr.clamp(max=gamma) if isinstance(snr, Tensor) else min(snr, gamma)
    return capped / {"eps": snr, "x_0": 1.0, "v": snr + 1}[prediction]


def diffusion_loss(
    net: Callable[..., Tensor], schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor, prediction: str = "eps", **cond: object
) -> Tensor:
    """One line of Algorithm 1: x_0, t, eps -> q_sample -> net -> square error per example (B,).   Ho eq. 14."""
    x_t = q_sample(schedule, x_0, t, eps)
    return simple_loss(net(x_t, t, **cond), target(schedule, x_0, t, eps, prediction))


def with_spectrum(weight: float) -> Loss:
    """The loss of x_0 (or eps, v) plus weight times the mean modulus of the error's waves (orthonormal DFT over the last axis).

    The modulus and not its square: the mean of the squares is the first term again, by Parseval.   After Diffusion-TS section 3.
    """

    def loss(
        net: Callable[..., Tensor], schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor, prediction: str = "x_0", **cond: object
    ) -> Tensor:
        """diffusion_loss with the term added, (B,)."""
        error = net(q_sample(schedule, x_0, t, eps), t, **cond).float() - target(schedule, x_0, t, eps, prediction)
        waves = torch.fft.fft(error, norm="ortho").abs()
        return error.square().flatten(1).mean(1) + weight * waves.flatten(1).mean(1)

    return loss
