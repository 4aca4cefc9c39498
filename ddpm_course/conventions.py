"""Other papers' letters: one noise level, one noisy picture and one prediction, as DDIM, SDE, EDM, VDM and flow matching write them.

Ours are alpha_bar, x_t and eps. A level is a float, or a float64 tensor that broadcasts with x_t, such as `schedule.at(t, x_t.ndim)`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .errors import ScheduleError, ValueCourseError, check_tensors, one_of
from .schedule import Coefficient, NoiseSchedule, cast

Triple = tuple[Coefficient, Tensor, Tensor]  # noise level, noisy picture, prediction
Rule = Callable[[Tensor], Tensor]  # (inside its range?, to sigma, from sigma): sigma keeps its digits at both ends
LEVELS: dict[str, tuple[Rule, Rule, Rule]] = {
    "alpha_bar": (lambda a: (a > 0) & (a <= 1), lambda a: ((1 - a) / a) ** 0.5, lambda sigma: 1 / (1 + sigma**2)),
    "sigma": (lambda sigma: (sigma >= 0) & sigma.isfinite(), lambda sigma: sigma, lambda sigma: sigma),
    "log_snr": (torch.isfinite, lambda log_snr: (-log_snr / 2).exp(), lambda sigma: -2 * sigma.log()),
    "tau": (lambda tau: (tau >= 0) & (tau < 1), lambda tau: tau / (1 - tau), lambda sigma: sigma / (1 + sigma)),
}


def _refuse_outside(name: str, value: Tensor, asked: Coefficient) -> None:
    if not bool(LEVELS[name][0](value).all()):
        raise ValueCourseError(
            f"level {asked} is no {name}, or has none: alpha_bar is in (0, 1], sigma >= 0, tau in [0, 1), log_snr finite"
        )


def convert_level(value: Coefficient, source: str, to: str) -> Coefficient:
    """A noise level in another measure: "alpha_bar", "sigma" (EDM section 2), "log_snr" (VDM section 3), "tau" (flow matching). Float64.

    Clean data have alpha_bar = 1, sigma = 0, tau = 0; their log_snr is infinite and refused, and so is a level without any signal.
    """
    one_of("noise level", source, LEVELS)
    one_of("noise level", to, LEVELS)
    level = torch.as_tensor(value, dtype=torch.float64)
    _refuse_outside(source, level, value)
    made = level if source == to else LEVELS[to][2](LEVELS[source][1](level))
    _refuse_outside(to, made, value)
    return made if isinstance(value, Tensor) else float(made)


def _noisy(name: str, level: Coefficient) -> Coefficient:
    if bool(torch.as_tensor(level <= 0).any()):
        raise ValueCourseError(f"{name} = {level}: without noise there is no score and no eps to recover; use a level of noise above 0")
    return level


def to_edm(alpha_bar: Coefficient, x_t: Tensor, eps: Tensor) -> Triple:
    """(sigma, x, D): x = x_t / sqrt(alpha_bar) = x_0 + sigma eps, and the denoiser D = x - sigma eps = x_0_hat.   EDM section 2."""
    check_tensors(x_t=x_t, eps=eps)
    sigma = convert_level(alpha_bar, "alpha_bar", "sigma")
    x = x_t / cast(alpha_bar**0.5, x_t)
    return sigma, x, x - cast(sigma, x_t) * eps


def from_edm(sigma: Coefficient, x: Tensor, denoised: Tensor) -> Triple:
    """(alpha_bar, x_t, eps) of EDM's (sigma > 0, x, D).   EDM section 2."""
    check_tensors(x=x, denoised=denoised)
    alpha_bar = convert_level(_noisy("sigma", sigma), "sigma", "alpha_bar")
    return alpha_bar, cast(alpha_bar**0.5, x) * x, (x - denoised) / cast(sigma, x)


def edm_score(sigma: Coefficient, x: Tensor, denoised: Tensor) -> Tensor:
    """grad log p(x; sigma) = (D - x) / sigma^2, with respect to EDM's own x.   EDM section 2."""
    check_tensors(x=x, denoised=denoised)
    return (denoised - x) / cast(_noisy("sigma", sigma) ** 2, x)


def to_flow(alpha_bar: Coefficient, x_t: Tensor, eps: Tensor) -> Triple:
    """(tau, x, velocity): x = (1-tau) x_0 + tau eps on a straight line, velocity = dx/dtau = eps - x_0.   Rectified flow section 2."""
    check_tensors(x_t=x_t, eps=eps)
    tau = convert_level(alpha_bar, "alpha_bar", "tau")
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    x_0 = (x_t - cast(noise, x_t) * eps) / cast(signal, x_t)
    return tau, x_t / cast(signal + noise, x_t), eps - x_0


def from_flow(tau: Coefficient, x: Tensor, velocity: Tensor) -> Triple:
    """(alpha_bar, x_t, eps) of flow matching's (tau, x, velocity): eps = x + (1-tau) velocity.   Rectified flow section 2."""
    check_tensors(x=x, velocity=velocity)
    alpha_bar = convert_level(tau, "tau", "alpha_bar")
    return alpha_bar, cast(alpha_bar**0.5 / (1 - tau), x) * x, x + cast(1 - tau, x) * velocity


def flow_score(tau: Coefficient, x: Tensor, velocity: Tensor) -> Tensor:
    """grad log p_tau(x) = -(x + (1-tau) velocity) / tau = -eps / tau, with respect to flow matching's own x."""
    check_tensors(x=x, velocity=velocity)
    return -(x + cast(1 - tau, x) * velocity) / cast(_noisy("tau", tau), x)


def score_to_eps(alpha_bar: Coefficient, score: Tensor) -> Tensor:
    """eps = -sqrt(1 - alpha_bar) score: `eps_to_score` backwards.   SDE section 3."""
    return -cast((1 - alpha_bar) ** 0.5, score) * score


def ddim_alphas(schedule: NoiseSchedule) -> Tensor:
    """alpha_1..alpha_T as DDIM writes them, (T,): our alpha_bar.   DDIM section 2."""
    return schedule.alpha_bar[1:].clone()


def from_ddim_alphas(alphas: Sequence[float] | Tensor) -> NoiseSchedule:
    """The schedule whose alpha_bar_1..alpha_bar_T are DDIM's alphas (T,), falling inside (0, 1).   DDIM section 2."""
    bars = torch.as_tensor(alphas, dtype=torch.float64)
    if bars.ndim != 1 or bars.numel() == 0 or not bool((bars > 0).all()):
        raise ScheduleError("DDIM's alphas must be a vector of T >= 1 numbers in (0, 1); they are running products, not 1 - beta_t")
    return NoiseSchedule(1 - bars / torch.cat([bars.new_ones(1), bars[:-1]]))


def beta_rates(schedule: NoiseSchedule) -> Tensor:
    """The VP-SDE's beta(u) for u in ((t-1)/T, t/T], (T,): -T log alpha_t, close to T beta_t if beta_t is small.   SDE section 3.4."""
    return -schedule.T * torch.log1p(-schedule.beta[1:])


def from_beta_rates(rates: Sequence[float] | Tensor) -> NoiseSchedule:
    """The schedule of a VP-SDE whose beta(u) is constant in each of T equal pieces of [0, 1]: beta_t = 1 - exp(-rate_t / T)."""
    rates = torch.as_tensor(rates, dtype=torch.float64)
    return NoiseSchedule(-torch.expm1(-rates / rates.numel()))
