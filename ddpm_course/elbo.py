"""The evidence lower bound, term by term, in nats.   Ho eq. 5: prior + denoising-matching + reconstruction >= -log p(x_0)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ShapeError, ValueCourseError, check_tensors, one_of
from .forward import draw, q_sample
from .gaussian import discretized_log_prob, normal_kl, normal_log_prob
from .posterior import Variance, q_posterior, reverse_variance
from .prediction import EpsModel, eps_to_x_0
from .schedule import Coefficient, NoiseSchedule, Time, cast

DECODERS = {"gaussian": normal_log_prob, "discrete": discretized_log_prob}


class VLBTerms(NamedTuple):
    """prior (B,), matching (B, T-1) for t = 2..T, reconstruction (B,), all in nats."""

    prior: Tensor
    matching: Tensor
    reconstruction: Tensor

    def total(self) -> Tensor:
        """The bound on -log p(x_0), (B,).   Ho eq. 5."""
        return self.prior + self.matching.sum(1) + self.reconstruction


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def _prior(mean: Tensor, var: Tensor | float) -> Tensor:
    """KL(N(mean, var) || N(0, I)), (B,): the one home of the prior, for the last latent of a chain and for the one of a VAE."""
    return _sum(normal_kl(mean, var, 0.0, 1.0))


def _reconstruction(x_0: Tensor, mean: Tensor, var: Coefficient, decoder: str) -> Tensor:
    """-log p(x_0 | first latent), (B,), for a decoder with this mean and variance: one home for both kinds of model."""
    return -_sum(DECODERS[decoder](x_0, mean, var))


def prior_term(schedule: NoiseSchedule, x_0: Tensor) -> Tensor:
    """L_T = KL(q(x_T | x_0) || N(0, I)), (B,): what is left of x_0 at the end. Has no parameters.   Ho eq. 5."""
    bar = schedule.at(schedule.T)
    return _prior(bar**0.5 * x_0, 1 - bar)


def _variance_of(schedule: NoiseSchedule, variance: Variance | Tensor, ndim: int) -> Callable[[Time], Coefficient]:
    """t -> variance of p_theta(x_{t-1} | x_t), refusing those that vanish at t = 1."""
    if isinstance(variance, Tensor):
        if variance.shape != (schedule.T + 1,):
            raise ShapeError(f"a variance table has T+1 = {schedule.T + 1} entries (index 0 unused), got {tuple(variance.shape)}")
        return lambda t: float(variance[t]) if isinstance(t, int) else variance.to(t.device)[t].reshape(-1, *[1] * (ndim - 1))
    if variance == "posterior":
        raise ValueCourseError('variance "posterior" is 0 at t = 1, where the bound would be infinite; take "posterior_clipped" or "beta"')
    return lambda t: reverse_variance(schedule, t, t - 1, variance, ndim)


def _reverse_mean(eps_model: EpsModel, schedule: NoiseSchedule, x_t: Tensor, t: Time) -> Tensor:
    """Mean of p_theta(x_{t-1} | x_t): the posterior's, with x_0_hat in the place of x_0.   Ho eqs. 7, 15."""
    eps = eps_model(x_t, torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t)
    return q_posterior(schedule, eps_to_x_0(schedule, x_t, t, eps), x_t, t)[0]


def bound_term(schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Time, mean: Tensor, var: Coefficient, decoder: str) -> Tensor:
    """L_{t-1} of a reverse step with this mean and variance, (B,) in nats: matching for t > 1, reconstruction at t = 1. Keeps gradients.

    x_0, x_t, mean: (B, ...); t: (B,) or int; var: a float, or broadcasting against x_0.   Ho eq. 5.
    """
    if isinstance(t, int) and t == 1:
        return _reconstruction(x_0, mean, var, decoder)
    if isinstance(t, int):
        return _sum(normal_kl(*q_posterior(schedule, x_0, x_t, t), mean, var))
    term, var = x_0.new_zeros(len(x_0)), torch.as_tensor(var, dtype=x_0.dtype, device=x_0.device).expand_as(x_0)
    first, later = t == 1, t > 1
    term[first] = _reconstruction(x_0[first], mean[first], var[first], decoder) if bool(first.any()) else 0.0
    term[later] = _sum(normal_kl(*q_posterior(schedule, x_0[later], x_t[later], t[later]), mean[later], var[later]))
    return term


@torch.no_grad()
def vlb_term(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    x_0: Tensor,
    t: Time,
    eps: Tensor,
    variance: Variance | Tensor = "beta",
    decoder: str = "gaussian",
) -> Tensor:
    """One term of the bound for each example, (B,) in nats, at its own t (B,): the term of index t - 1, without the prior.   Ho eq. 5."""
    check_tensors(x_0=x_0, eps=eps)
    one_of("decoder", decoder, DECODERS)
    x_t = q_sample(schedule, x_0, t, eps)
    mean = _reverse_mean(eps_model, schedule, x_t, t)
    return bound_term(schedule, x_0, x_t, t, mean, cast(_variance_of(schedule, variance, x_0.ndim)(t), x_0), decoder)


@torch.no_grad()
def vlb_terms(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    x_0: Tensor,
    variance: Variance | Tensor = "beta",
    decoder: str = "gaussian",
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> VLBTerms:
    """All terms of the bound for x_0 (B, ...): one draw of x_t for every t = 1..T.   Ho eq. 5.

    `eps` (B, ...) fixes the noise, the same at every t (for quadrature; each term sees one t only). decoder: "gaussian" (a density; the
    reconstruction may be negative) or "discrete" (x_0 in [-1, 1], 256 bins). variance: see reverse_variance, or a table (T+1,);
    a function (t, s) may give each number of x_0 its own.
    """
    check_tensors(x_0=x_0)
    terms = []
    for t in range(1, schedule.T + 1):
        noise = draw(x_0.shape, x_0, generator) if eps is None else eps
        terms.append(vlb_term(eps_model, schedule, x_0, t, noise, variance, decoder))
    return VLBTerms(prior_term(schedule, x_0), torch.stack(terms[1:], 1) if schedule.T > 1 else x_0.new_zeros(len(x_0), 0), terms[0])


def bits_per_dim(terms: VLBTerms, x_0: Tensor) -> Tensor:
    """The bound (B,) in bits per number of x_0. Comparable with published figures only with decoder="discrete".   Ho section 4.1."""
    return terms.total() / (x_0[0].numel() * math.log(2))


def vae_terms(vae: torch.nn.Module, x_0: Tensor, eps: Tensor, variance: float, decoder: str = "gaussian") -> VLBTerms:
    """The same three terms for a VAE, the case T = 1 whose q is learnt: matching is empty (B, 0).   VAE eq. 3; keeps gradients.

    vae.encode(x_0) -> (mean, var) of q(z | x_0); vae.decode(z) -> mean of p(x_0 | z) with the given variance; eps like z.
    decoder: see vlb_terms.
    """
    one_of("decoder", decoder, DECODERS)
    mean, var = vae.encode(x_0)
    if eps.shape != mean.shape:
        raise ShapeError(f"eps must have the latent's shape {tuple(mean.shape)}, got {tuple(eps.shape)}")
    z = mean + var.sqrt() * eps
    return VLBTerms(_prior(mean, var), x_0.new_zeros(len(x_0), 0), _reconstruction(x_0, vae.decode(z), variance, decoder))
