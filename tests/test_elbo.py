"""The bound against plain loops, quadrature and the exact likelihood."""

import math

import mpmath as mp
import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from ddpm_course import (
    VAE,
    CourseError,
    ExactGaussian,
    FiniteData,
    NoiseSchedule,
    VLBTerms,
    bits_per_dim,
    cosine_schedule,
    linear_schedule,
    vae_terms,
    vlb_terms,
)
from ddpm_course.elbo import prior_term
from ddpm_course.errors import ShapeError

X_0 = torch.tensor([[0.5, -1.0], [0.25, 0.0], [-0.75, 1.0]], dtype=torch.float64)
EPS = torch.tensor([[0.3, -0.2], [1.0, 0.5], [-2.0, 0.1]], dtype=torch.float64)


def model(x_t: Tensor, t: Tensor) -> Tensor:
    """Some eps_model that is wrong everywhere and knows t."""
    return 0.6 * x_t + 0.01 * t[:, None].double() - 0.1


def kl(m_1: float, v_1: float, m_2: float, v_2: float) -> float:
    return 0.5 * (math.log(v_2 / v_1) + (v_1 + (m_1 - m_2) ** 2) / v_2 - 1)


def by_hand(x: float, eps: float, bars: tuple, variance: list[float]) -> tuple[float, list[float], float]:
    """prior, matching for t = 2..T, reconstruction of one number: posteriors by adding precisions, one loop."""
    T = len(bars) - 1
    prior = kl(float(mp.sqrt(bars[T])) * x, float(1 - bars[T]), 0.0, 1.0)
    matching, reconstruction = [], 0.0
    for t in range(1, T + 1):
        signal, noise = float(mp.sqrt(bars[t])), float(mp.sqrt(1 - bars[t]))
        x_t = signal * x + noise * eps
        x_0_hat = (x_t - noise * (0.6 * x_t + 0.01 * t - 0.1)) / signal
        of_x_0, of_x_t, var = map(float, reference.posterior(bars[t], bars[t - 1]))
        mean, mean_hat = of_x_0 * x + of_x_t * x_t, of_x_0 * x_0_hat + of_x_t * x_t
        if t == 1:
            reconstruction = 0.5 * ((x - mean_hat) ** 2 / variance[1] + math.log(2 * math.pi * variance[1]))
        else:
            matching.append(kl(mean, var, mean_hat, variance[t]))
    return prior, matching, reconstruction


@pytest.mark.parametrize("T", [1, 2, 7])
@pytest.mark.parametrize("kind", ["beta", "posterior_clipped"])
def test_every_term_equals_a_plain_loop(T: int, kind: str) -> None:
    bars = reference.alpha_bars("cosine", T)
    beta = [0.0, *map(float, reference.betas("cosine", T))]
    clipped = [0.0, beta[1], *(float(reference.posterior(bars[t], bars[t - 1])[2]) for t in range(2, T + 1))]
    clipped[1] = clipped[2] if T > 1 else beta[1]
    terms = vlb_terms(model, cosine_schedule(T), X_0, kind, eps=EPS)
    assert terms.prior.shape == (3,) and terms.matching.shape == (3, T - 1) and terms.reconstruction.shape == (3,)
    for i in range(3):
        pairs = zip(X_0[i].tolist(), EPS[i].tolist(), strict=True)
        parts = [by_hand(x, e, bars, beta if kind == "beta" else clipped) for x, e in pairs]
        assert float(terms.prior[i]) == pytest.approx(sum(p[0] for p in parts), rel=1e-9)
        assert terms.matching[i].tolist() == pytest.approx([sum(m) for m in zip(*(p[1] for p in parts), strict=True)], rel=1e-9)
        assert float(terms.reconstruction[i]) == pytest.approx(sum(p[2] for p in parts), rel=1e-9)


def test_variance_as_table_and_as_function() -> None:
    schedule, table = cosine_schedule(5), torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    seen = []

    def function(t: int, s: int) -> float:
        seen.append((t, s))
        return float(table[t])

    by_table = vlb_terms(model, schedule, X_0, table, eps=EPS)
    by_function = vlb_terms(model, schedule, X_0, function, eps=EPS)
    assert seen == [(t, t - 1) for t in range(1, 6)]
    assert torch.equal(by_table.total(), by_function.total())
    bars, pairs = reference.alpha_bars("cosine", 5), zip(X_0[0].tolist(), EPS[0].tolist(), strict=True)
    wanted = [by_hand(x, e, bars, table.tolist()) for x, e in pairs]
    assert float(by_table.total()[0]) == pytest.approx(sum(p + sum(m) + r for p, m, r in wanted), rel=1e-9)


def gap(T: int, schedule: NoiseSchedule) -> float:
    """Expected bound minus exact negative log-likelihood for N(0.4, 0.25), by Gauss-Hermite over x_0 and eps."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = torch.tensor(np.outer(weights, weights).ravel() / weights.sum() ** 2)
    x, e = (torch.tensor(a.ravel())[:, None] for a in np.meshgrid(nodes, nodes, indexing="ij"))
    data = ExactGaussian(torch.tensor([0.4], dtype=torch.float64), torch.tensor([[0.25]], dtype=torch.float64))
    total = vlb_terms(data.eps_model(schedule), schedule, 0.4 + 0.5 * x, "beta", eps=e).total()
    return float((weights * total).sum()) - 0.5 * math.log(2 * math.pi * math.e * 0.25)


@pytest.mark.parametrize("make", [lambda T: linear_schedule(T, 0.1 / T, 20 / T), cosine_schedule], ids=["linear", "cosine"])
def test_the_gap_to_the_exact_likelihood_falls_as_one_over_T(make: object) -> None:
    sizes = [50, 100, 200, 400]
    gaps = [gap(T, make(T)) for T in sizes]
    assert min(gaps) > 0
    order = -np.polyfit(np.log(sizes), np.log(gaps), 1)[0]
    assert abs(order - 1) < 0.1
    assert all(abs(math.log2(a / b) - 1) < 0.1 for a, b in zip(gaps, gaps[1:], strict=False))


def test_the_bound_is_a_bound_for_a_finite_set_of_points() -> None:
    points = torch.tensor([[-1.0], [0.2], [0.6]], dtype=torch.float64)  # centres of bins
    schedule, bars, generator = cosine_schedule(60), reference.alpha_bars("cosine", 60), torch.Generator().manual_seed(0)
    variance = [1.0, 1e-6, *(float(reference.posterior(bars[t], bars[t - 1])[2]) for t in range(2, 61))]
    terms = vlb_terms(
        FiniteData(points).eps_model(schedule), schedule, points.repeat(200, 1), torch.tensor(variance), "discrete", generator=generator
    )
    assert math.log(3) - 0.03 < float(terms.total().mean()) < math.log(3) + 0.2  # -log p of one of three points


def test_prior_is_the_kl_of_the_end() -> None:
    schedule, bar = linear_schedule(100), reference.alpha_bars("linear", 100)[100]
    got = prior_term(schedule, X_0)
    wanted = [sum(kl(float(mp.sqrt(bar)) * x, float(1 - bar), 0, 1) for x in row) for row in X_0.tolist()]
    assert got.tolist() == pytest.approx(wanted, rel=1e-10)


def test_the_discrete_decoder_sums_over_256_bins() -> None:
    schedule, bins = linear_schedule(1, 0.05, 0.05), torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    fixed = torch.full((256, 1), 0.3, dtype=torch.float64)
    bar, x_t = 0.95, 0.1
    noise = (x_t - bar**0.5 * bins) / 0.05**0.5  # every x_0 is sent to the same x_1, so p(x_0 | x_1) must sum to 1
    terms = vlb_terms(lambda x, t: fixed, schedule, bins, "beta", "discrete", eps=noise)
    assert float((-terms.reconstruction).exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("T", [1, 2, 30])
@pytest.mark.parametrize("variance", ["beta", "posterior_clipped"])
def test_signs_of_the_three_terms(T: int, variance: str) -> None:
    """KLs are never negative; -log of a probability neither; -log of a density may be, and is for a sharp decoder that guesses well."""
    x_0 = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    schedule = linear_schedule(T, beta_1=1e-4, beta_T=0.3)
    knows = lambda x_t, t: (x_t - schedule.at(t, 2) ** 0.5 * x_0) / (1 - schedule.at(t, 2)) ** 0.5  # noqa: E731
    for eps_model in (model, knows):
        for decoder in ("gaussian", "discrete"):
            terms = vlb_terms(eps_model, schedule, x_0, variance, decoder, generator=torch.Generator().manual_seed(1))
            assert float(terms.prior.min()) >= 0 and (T == 1 or float(terms.matching.min()) >= -1e-12)
            assert decoder == "gaussian" or float(terms.reconstruction.min()) >= 0
    assert float(vlb_terms(knows, schedule, x_0, variance, "gaussian").reconstruction.max()) < 0


def test_noise_is_fresh_at_every_t_and_follows_the_generator() -> None:
    schedule, seen = linear_schedule(4), []

    def spy(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t.clone(), t.clone()))
        return x_t

    first = vlb_terms(spy, schedule, X_0, generator=torch.Generator().manual_seed(3))
    again = vlb_terms(spy, schedule, X_0, generator=torch.Generator().manual_seed(3))
    other = vlb_terms(spy, schedule, X_0, generator=torch.Generator().manual_seed(4))
    assert torch.equal(first.total(), again.total()) and not torch.equal(first.total(), other.total())
    assert [int(t[0]) for _, t in seen[:4]] == [1, 2, 3, 4] and seen[0][1].shape == (3,) and seen[0][1].dtype == torch.int64
    noises = [(x - schedule.at(k) ** 0.5 * X_0) / (1 - schedule.at(k)) ** 0.5 for k, (x, _) in enumerate(seen[:4], 1)]
    assert all(not torch.allclose(a, b) for a, b in zip(noises, noises[1:], strict=False))


def test_the_bound_is_the_sum_and_bits_divide_by_the_numbers() -> None:
    terms = VLBTerms(torch.tensor([1.0]), torch.tensor([[2.0, 3.0]]), torch.tensor([4.0]))
    assert terms.total().tolist() == [10.0]
    assert bits_per_dim(terms, torch.zeros(1, 2, 3)).tolist() == pytest.approx([10 / (6 * math.log(2))])
    pictures = torch.zeros(2, 1, 2, 2)
    assert vlb_terms(lambda x, t: x, linear_schedule(3), pictures).total().shape == (2,)


def test_no_gradients_are_kept() -> None:
    x_0 = X_0.clone().requires_grad_()
    assert not vlb_terms(model, linear_schedule(3), x_0, eps=EPS).total().requires_grad


def test_a_vae_has_the_same_three_terms() -> None:
    torch.manual_seed(0)
    vae = VAE((1, 2, 2), latent_dim=3, width=8).double()
    x_0, eps = torch.randn(5, 1, 2, 2).double(), torch.randn(5, 3).double()
    terms = vae_terms(vae, x_0, eps, 0.3)
    mean, var = (x.detach().numpy() for x in vae.encode(x_0))
    decoded = vae.decode(torch.tensor(mean + np.sqrt(var) * eps.numpy())).detach().numpy()
    prior = 0.5 * (var + mean**2 - 1 - np.log(var)).sum(1)
    reconstruction = 0.5 * ((x_0.numpy() - decoded) ** 2 / 0.3 + np.log(2 * np.pi * 0.3)).sum((1, 2, 3))
    np.testing.assert_allclose(terms.prior.detach(), prior, rtol=1e-10)
    np.testing.assert_allclose(terms.reconstruction.detach(), reconstruction, rtol=1e-10)
    assert terms.matching.shape == (5, 0)
    np.testing.assert_allclose(terms.total().detach(), prior + reconstruction, rtol=1e-10)
    terms.total().sum().backward()
    assert all(p.grad is not None for p in vae.parameters())


class Frozen:
    """A "VAE" whose encoder is q(x_1 | x_0) at alpha_bar = 0.4 and whose decoder subtracts the noise that an eps_model sees."""

    def __init__(self, eps_model: object) -> None:
        self.eps_model = eps_model

    def encode(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        return 0.4**0.5 * x_0, torch.full_like(x_0, 0.6)

    def decode(self, x_1: Tensor) -> Tensor:
        return (x_1 - 0.6**0.5 * self.eps_model(x_1, torch.ones(len(x_1), dtype=torch.long))) / 0.4**0.5


@pytest.mark.parametrize("decoder", ["gaussian", "discrete"])
def test_the_bound_with_one_step_is_that_of_a_vae_with_a_frozen_encoder(decoder: str) -> None:
    ddpm = vlb_terms(model, NoiseSchedule([0.6]), X_0, "beta", decoder, eps=EPS)
    frozen = vae_terms(Frozen(model), X_0, EPS, 0.6, decoder)
    for a, b in zip(ddpm, frozen, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    other = vae_terms(Frozen(lambda x, t: 0.9 * model(x, t)), X_0, EPS, 0.6, decoder)
    assert not torch.allclose(other.reconstruction, ddpm.reconstruction) and torch.equal(other.prior, frozen.prior)


@pytest.mark.parametrize("T", [1, 3, 40])
def test_with_the_true_covariance_only_the_prior_is_left(T: int) -> None:
    spread, mean = torch.tensor([1.0, 0.01], dtype=torch.float64), torch.tensor([0.4, -0.1], dtype=torch.float64)
    schedule, data = NoiseSchedule([1 - 0.1 ** (1 / T)] * T), ExactGaussian(mean, spread.diag())
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = torch.tensor(np.outer(weights, weights).ravel() / weights.sum() ** 2)
    x, e = (torch.tensor(a.ravel())[:, None] for a in np.meshgrid(nodes, nodes, indexing="ij"))
    law = schedule.alpha_bar[:, None] * spread + 1 - schedule.alpha_bar[:, None]  # variances of x_t

    def true_variance(t: int, s: int) -> Tensor:
        return schedule.beta[t] * law[s] / law[t]

    def excess(variance: object) -> float:
        terms = vlb_terms(data.eps_model(schedule), schedule, mean + spread.sqrt() * x, variance, eps=e.expand(9, 2))
        return float(weights @ terms.total()) - data.entropy()

    floor = sum(kl(0.1**0.5 * m, v, 0.0, 1.0) for m, v in zip(mean.tolist(), law[T].tolist(), strict=True))
    assert excess(true_variance) == pytest.approx(floor, abs=1e-10) and floor > 1e-3
    table = torch.cat([torch.ones(1), torch.stack([true_variance(t, t - 1).mean() for t in range(1, T + 1)])])
    lost = sum(float(0.5 * (table[t] / true_variance(t, t - 1)).log().sum()) for t in range(1, T + 1))
    assert excess(table) == pytest.approx(floor + lost, abs=1e-10) and lost > 0.01
    assert excess("beta") > excess(table)


def test_refusals() -> None:
    schedule = linear_schedule(3)
    with pytest.raises(CourseError, match='"posterior" is 0 at t = 1.*posterior_clipped'):
        vlb_terms(model, schedule, X_0, "posterior")
    with pytest.raises(CourseError, match="unknown variance 'small'"):
        vlb_terms(model, schedule, X_0, "small")
    with pytest.raises(CourseError, match="unknown decoder 'bits'; known: gaussian, discrete"):
        vlb_terms(model, schedule, X_0, decoder="bits")
    with pytest.raises(CourseError, match="unknown decoder 'bits'; known: gaussian, discrete"):
        vae_terms(VAE((1, 2, 2), 3, 8), torch.zeros(5, 1, 2, 2), torch.zeros(5, 3), 1.0, "bits")
    with pytest.raises(ShapeError, match=r"T\+1 = 4 entries"):
        vlb_terms(model, schedule, X_0, torch.ones(3))
    with pytest.raises(ShapeError):
        vlb_terms(model, schedule, X_0, eps=EPS[:1])
    with pytest.raises(ShapeError, match="latent's shape"):
        vae_terms(VAE((1, 2, 2), 3, 8), torch.zeros(5, 1, 2, 2), torch.zeros(5, 2), 1.0)
