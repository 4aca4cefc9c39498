"""Reverse variances against 40-digit tables, the exact reverse step, and a search for the lowest bound."""

import math

import mpmath as mp
import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from ddpm_course import (
    MLP,
    CourseError,
    ExactGaussian,
    FiniteData,
    cosine_schedule,
    ddpm_sample,
    ddpm_step,
    linear_schedule,
    q_sample,
    reverse_variance,
    vlb_terms,
)
from ddpm_course.elbo import bound_term, vlb_term
from ddpm_course.errors import ShapeError, TimestepError
from ddpm_course.losses import diffusion_loss
from ddpm_course.posterior import q_posterior
from ddpm_course.prediction import eps_to_x_0
from ddpm_course.variance import EpsMoments, eps_moments, hybrid_loss, learned_range, optimal_variance, range_variance

TIMES = [1, 2, 3, 10, 100, 500, 999, 1000]
COV = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
BLOB = ExactGaussian(torch.tensor([0.4, -0.1], dtype=torch.float64), COV)


def seeded(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def line(kappa: float) -> ExactGaussian:
    return ExactGaussian(torch.zeros(1, dtype=torch.float64), torch.tensor([[kappa]], dtype=torch.float64))


def true_variance(kappa: float, bar_t: mp.mpf, bar_s: mp.mpf) -> float:
    """Var(x_s | x_t) for N(0, kappa) data by adding the precisions of x_s alone and of x_t seen from x_s."""
    alpha = bar_t / bar_s
    return float(1 / (1 / (bar_s * kappa + 1 - bar_s) + alpha / (1 - alpha)))


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("kappa", [0.01, 0.25, 1.0, 3.0])
def test_table_of_the_optimal_variance_for_a_gaussian(name: str, kappa: float) -> None:
    schedule, bars = {"linear": linear_schedule, "cosine": cosine_schedule}[name](1000), reference.alpha_bars(name)
    variance, data = optimal_variance(schedule, line(kappa).unexplained(schedule)), line(kappa)
    for t in TIMES:
        wanted = true_variance(kappa, bars[t], bars[t - 1])
        assert variance(t, t - 1) == pytest.approx(wanted, rel=1e-9)
        assert float(data.variance(schedule)(t, t - 1)) == pytest.approx(wanted, rel=1e-9)
        assert float(data.reverse_cov(schedule, t, t - 1)) == pytest.approx(wanted, rel=1e-9)
    for t, s in [(1000, 900), (500, 20), (300, 0)]:
        assert variance(t, s) == pytest.approx(true_variance(kappa, bars[t], bars[s]), rel=1e-9)


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule])
def test_order_of_the_variances(make: object) -> None:
    """beta~ <= optimal <= beta for data no wider than N(0, 1); beta at N(0, 1); beta~ at a point; clipped differs at t = 1 alone."""
    schedule = make(1000)
    for t in range(1, 1001):
        beta, tilde = reverse_variance(schedule, t, t - 1, "beta"), reverse_variance(schedule, t, t - 1, "posterior")
        best = (
            [optimal_variance(schedule, line(k).unexplained(schedule))(t, t - 1) for k in (1e-12, 0.3, 1.0)]
            if t in TIMES
            else [tilde, beta]
        )
        assert all(a <= b * (1 + 1e-9) for a, b in zip(best, best[1:], strict=False)) and tilde <= beta
        assert best[-1] == pytest.approx(beta, rel=1e-9) and best[0] == pytest.approx(tilde, rel=1e-6, abs=1e-11)
        clipped = reverse_variance(schedule, t, t - 1, "posterior_clipped")
        assert clipped == (tilde if t > 1 else reverse_variance(schedule, 2, 1, "posterior"))


def test_reverse_cov_is_the_conditional_of_a_joint_gaussian() -> None:
    schedule = cosine_schedule(50)
    for t, s in [(1, 0), (7, 6), (50, 49), (40, 10)]:
        bar_t, bar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        at = lambda bar: bar * COV + (1 - bar) * torch.eye(2, dtype=torch.float64)  # noqa: E731
        alpha = bar_t / bar_s
        wanted = torch.linalg.inv(torch.linalg.inv(at(bar_s)) + alpha / (1 - alpha) * torch.eye(2, dtype=torch.float64))  # precisions add
        torch.testing.assert_close(BLOB.reverse_cov(schedule, t, s), wanted, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(BLOB.variance(schedule)(t, s), wanted.diagonal(), rtol=1e-9, atol=1e-12)
        turned = BLOB.in_eigenbasis()
        torch.testing.assert_close(turned.reverse_cov(schedule, t, s), BLOB.basis.T @ wanted @ BLOB.basis, rtol=1e-9, atol=1e-12)
        assert abs(float(turned.reverse_cov(schedule, t, s)[0, 1])) < 1e-14 < abs(float(wanted[0, 1]))


def test_times_as_a_tensor_give_the_same_table() -> None:
    schedule = cosine_schedule(30)
    t, s = torch.tensor([1, 2, 17, 30]), torch.tensor([0, 1, 4, 29])
    best, own = optimal_variance(schedule, BLOB.unexplained(schedule)), BLOB.variance(schedule)
    for k in range(4):
        assert float(best(t, s)[k]) == pytest.approx(best(int(t[k]), int(s[k])), rel=1e-12)
        torch.testing.assert_close(own(t, s)[k], own(int(t[k]), int(s[k])))
    x, eps, z = torch.randn(3, 4, 2, generator=seeded(0), dtype=torch.float64)
    for kind in (best, own):
        rows = torch.cat([ddpm_step(schedule, x[[k]], eps[[k]], int(t[k]), int(s[k]), z[[k]], kind) for k in range(4)])
        torch.testing.assert_close(ddpm_step(schedule, x, eps, t, s, z, kind), rows, rtol=1e-12, atol=1e-12)
    pictures = torch.randn(4, 1, 3, 3, generator=seeded(1), dtype=torch.float64)
    rows = torch.cat([ddpm_step(schedule, pictures[[k]], pictures[[k]], int(t[k]), int(s[k]), pictures[[k]], best) for k in range(4)])
    torch.testing.assert_close(ddpm_step(schedule, pictures, pictures, t, s, pictures, best), rows, rtol=1e-12, atol=1e-12)


# --- Analytic-DPM ----------------------------------------------------------------------------------------------------


def expected_bound(schedule: object, variance: object) -> float:
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    grid = np.stack([a.ravel() for a in np.meshgrid(*[nodes] * 4, indexing="ij")])
    weights = np.prod(np.stack([a.ravel() for a in np.meshgrid(*[weights / weights.sum()] * 4, indexing="ij")]), axis=0)
    z, eps = torch.tensor(grid[:2].T.copy()), torch.tensor(grid[2:].T.copy())
    x_0 = BLOB.mean + z @ (BLOB.basis * BLOB.eigenvalues.sqrt()).T
    return float(torch.tensor(weights) @ vlb_terms(BLOB.eps_model(schedule), schedule, x_0, variance, eps=eps).total())


def test_no_scalar_has_a_lower_bound_than_the_optimal_one() -> None:
    schedule = cosine_schedule(8)
    variance = optimal_variance(schedule, BLOB.unexplained(schedule))
    best = expected_bound(schedule, variance)
    for t in range(1, 9):
        for factor in (0.8, 0.97, 1.03, 1.25):
            assert expected_bound(schedule, lambda a, s, t=t, f=factor: variance(a, s) * (f if a == t else 1.0)) > best + 1e-5
    full, diagonal = BLOB.in_eigenbasis(), expected_bound(schedule, BLOB.variance(schedule))
    assert expected_bound(schedule, "beta") > best > diagonal - 1e-12 and full.cov[0, 1] == 0


def test_moments_of_the_oracle_by_monte_carlo() -> None:
    schedule = cosine_schedule(12)
    found = eps_moments(BLOB.eps_model(schedule), schedule, BLOB.sample(20_000, seeded(2)), generator=seeded(3))
    wanted = BLOB.unexplained(schedule)
    assert found.square.shape == found.error.shape == (13,)
    torch.testing.assert_close(found.unexplained()[1:], wanted[1:], rtol=0, atol=0.03)
    torch.testing.assert_close(found.error[1:], wanted[1:], rtol=0, atol=0.03)
    blind = eps_moments(lambda x, t: 0.0 * x, schedule, BLOB.sample(20_000, seeded(2)), generator=seeded(3))
    assert float(blind.square.abs().max()) == 0 and float((blind.error[1:] - 1).abs().max()) < 0.03
    assert float(blind.unexplained().max()) == 1 and float(EpsMoments(torch.tensor([1.2]), torch.ones(1)).unexplained()) == 0


def test_the_error_is_what_a_wrong_network_needs() -> None:
    """For an eps_model that is wrong, the mean square error gives the lowest bound of all scalars, and 1 - square does not."""
    schedule, x_0 = cosine_schedule(10), BLOB.sample(4000, seeded(4))
    wrong = lambda x, t: 0.7 * BLOB.eps_model(schedule)(x, t) + 0.1  # noqa: E731
    found = eps_moments(wrong, schedule, x_0, generator=seeded(5))
    bounds = [
        float(vlb_terms(wrong, schedule, x_0, optimal_variance(schedule, u), generator=seeded(6)).total().mean())
        for u in (found.error, found.unexplained(), 1.2 * found.error, 0.8 * found.error)
    ]
    assert min(bounds) == bounds[0] and bounds[1] > bounds[0] + 0.05


def test_times_in_between_lie_on_straight_lines() -> None:
    schedule = cosine_schedule(10)
    calls = []

    def spy(x: Tensor, t: Tensor) -> Tensor:
        calls.append(int(t[0]))
        return t[:, None].double().sqrt() + 0 * x

    found = eps_moments(spy, schedule, torch.zeros(5, 2, dtype=torch.float64), times=[2, 4, 10], generator=seeded(0))
    assert calls == [2, 4, 10]
    torch.testing.assert_close(found.square, torch.tensor([2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10], dtype=torch.float64))
    torch.testing.assert_close(
        eps_moments(spy, schedule, torch.zeros(5, 2, dtype=torch.float64), [3]).square, torch.full((11,), 3, dtype=torch.float64)
    )


def test_the_variance_of_samples_is_right_with_the_full_covariance_and_few_steps() -> None:
    """Jumps of the exact reverse step give the exact law, in any number of steps: beta and beta~ do not."""
    turned, schedule = BLOB.in_eigenbasis(), linear_schedule(1000)
    spread = {}
    for name, kind in {"own": turned.variance(schedule), "beta": "beta", "posterior": "posterior"}.items():
        last = lambda t, s, kind=kind: reverse_variance(schedule, t, s, kind)  # noqa: E731
        x = ddpm_sample(turned.eps_model(schedule), schedule, (40_000, 2), num_steps=4, variance=last, generator=seeded(7)).double()
        spread[name] = x.var(0) + (turned.variance(schedule)(250, 0) if name == "own" else 0)  # the last step adds no noise
    torch.testing.assert_close(spread["own"], turned.eigenvalues, rtol=0.03, atol=0)
    assert float((spread["posterior"] / turned.eigenvalues).max()) < 0.8
    points = FiniteData(torch.zeros(1, 2)).eps_model(schedule)
    assert float(ddpm_sample(points, schedule, (50, 2), num_steps=4, generator=seeded(8)).abs().max()) < 1e-5


# --- the learned range -----------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """A "network" with 2C outputs: some eps, and the same raw range everywhere."""

    def __init__(self, raw: float) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(raw, dtype=torch.float64))
        self.gain = nn.Parameter(torch.tensor(0.6, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self.gain * x, self.raw.expand_as(x)], 1)


def test_the_range_runs_from_the_clipped_posterior_to_beta() -> None:
    schedule, raw = cosine_schedule(20), torch.ones(2, 3, dtype=torch.float64)
    for t, s in [(1, 0), (2, 1), (13, 12), (20, 5)]:
        beta, tilde = (reverse_variance(schedule, t, s, kind) for kind in ("beta", "posterior_clipped"))
        for v, wanted in ((1.0, beta), (-1.0, tilde), (0.0, math.sqrt(beta * tilde)), (3.0, beta * beta / tilde)):
            got = range_variance(schedule, t, s, v * raw)
            torch.testing.assert_close(got, torch.full_like(raw, wanted), rtol=1e-10, atol=0)
    t = torch.tensor([1, 20])
    both = range_variance(schedule, t, t - 1, 0.3 * raw)
    torch.testing.assert_close(both[1:], range_variance(schedule, 20, 19, 0.3 * raw[1:]))
    torch.testing.assert_close(both[:1], range_variance(schedule, 1, 0, 0.3 * raw[:1]))


def test_learned_range_in_the_bound_and_in_the_sampler() -> None:
    schedule, x_0 = cosine_schedule(6), BLOB.sample(5, seeded(0))
    eps = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
    for raw, kind in ((1.0, "beta"), (-1.0, "posterior_clipped")):
        eps_model, variance = learned_range(Fixed(raw), schedule)
        got = vlb_terms(eps_model, schedule, x_0, variance, eps=eps)
        wanted = vlb_terms(lambda x, t: 0.6 * x, schedule, x_0, kind, eps=eps)
        torch.testing.assert_close(got.total(), wanted.total())
        start = torch.randn(5, 2, generator=seeded(2), dtype=torch.float64)
        with torch.no_grad():
            mine = ddpm_sample(eps_model, schedule, x_T=start, variance=variance, generator=seeded(3))
        torch.testing.assert_close(mine, ddpm_sample(lambda x, t: 0.6 * x, schedule, x_T=start, variance=kind, generator=seeded(3)))


@pytest.mark.parametrize("decoder", ["gaussian", "discrete"])
def test_hybrid_loss_is_its_parts_and_stops_the_gradient_at_the_mean(decoder: str) -> None:
    schedule, net = cosine_schedule(9), Fixed(0.3)
    x_0 = torch.tensor([[0.5, -1.0], [0.25, 1.0], [-0.75, 1.0], [0.1, 0.2]], dtype=torch.float64)
    eps, t = torch.randn(4, 2, generator=seeded(1), dtype=torch.float64), torch.tensor([1, 2, 9, 1])
    simple = diffusion_loss(lambda x, t: net(x, t)[:, :2], schedule, x_0, t, eps)
    eps_model, variance = learned_range(net, schedule)
    term = vlb_term(eps_model, schedule, x_0, t, eps, variance, decoder)
    loss = hybrid_loss(net, schedule, x_0, t, eps, lam=0.05, decoder=decoder)
    torch.testing.assert_close(loss, simple + 0.05 * 9 * term / 2)
    loss.sum().backward()
    together = net.gain.grad.clone(), net.raw.grad.clone()
    assert all(bool(torch.isfinite(g)) for g in together) and float(together[1]) != 0
    net.zero_grad()
    diffusion_loss(lambda x, t: net(x, t)[:, :2], schedule, x_0, t, eps).sum().backward()
    assert float(net.gain.grad) == pytest.approx(float(together[0]), rel=1e-12)  # L_vlb does not reach the mean


def test_bound_term_at_mixed_times_and_its_gradient() -> None:
    schedule, x_0 = cosine_schedule(9), BLOB.sample(4, seeded(0))
    eps, t = torch.randn(4, 2, generator=seeded(1), dtype=torch.float64), torch.tensor([1, 5, 9, 2])
    x_t = q_sample(schedule, x_0, t, eps)
    mean = q_posterior(schedule, eps_to_x_0(schedule, x_t, t, 0.5 * x_t), x_t, t)[0].requires_grad_()
    var = torch.full_like(x_0, 0.2, requires_grad=True)
    got = bound_term(schedule, x_0, x_t, t, mean, var, "gaussian")
    rows = [bound_term(schedule, x_0[[k]], x_t[[k]], int(t[k]), mean[[k]], 0.2, "gaussian") for k in range(4)]
    torch.testing.assert_close(got, torch.cat(rows))
    got.sum().backward()
    assert bool(torch.isfinite(mean.grad).all()) and bool(torch.isfinite(var.grad).all()) and bool((var.grad != 0).all())


def test_learning_finds_the_variance_and_lowers_the_bound() -> None:
    """Wide in one direction, narrow in the other: the network must say the right variance for each, and gain on both fixed ones."""
    data, schedule, num_steps = ExactGaussian(torch.zeros(2), torch.tensor([1.0, 0.04]).diag()), cosine_schedule(20), 400
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MLP(2, width=48, num_blocks=2, octaves=1, out_dim=4)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for step in range(num_steps):
            x_0, g = data.sample(256, seeded(step)).float(), seeded(10_000 + step)
            t, eps = torch.randint(1, 21, (256,), generator=g), torch.randn(256, 2, generator=g)
            optimizer.zero_grad()
            hybrid_loss(net, schedule, x_0, t, eps, lam=0.1).mean().backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / num_steps)
    eps_model, learned = learned_range(net.requires_grad_(False), schedule)
    x_0, own = data.sample(4000, seeded(77)).float(), data.variance(schedule)
    for t in (2, 5, 10):
        eps_model(x_0, torch.full((4000,), t))
        torch.testing.assert_close(learned(t, t - 1).mean(0).double(), own(t, t - 1), rtol=0.12, atol=0)
    bound = lambda kind: float(vlb_terms(eps_model, schedule, x_0, kind, generator=seeded(9)).total().mean())  # noqa: E731
    best, found = bound(own), bound(learned)
    assert data.entropy() < found < min(bound("beta"), bound("posterior_clipped")) - 0.1 and abs(found - best) < 0.1


def test_refusals() -> None:
    schedule = cosine_schedule(5)
    with pytest.raises(ShapeError, match=r"T\+1 = 6 entries"):
        optimal_variance(schedule, torch.ones(5))
    with pytest.raises(ShapeError, match="needs a network with 4 outputs for 2 inputs, got 2"):
        hybrid_loss(MLP(2, 16, 1), schedule, torch.zeros(3, 2), torch.ones(3, dtype=torch.long), torch.zeros(3, 2))
    eps_model, variance = learned_range(Fixed(0.0), schedule)
    with pytest.raises(TimestepError, match="last call of its eps_model"):
        variance(3, 2)
    eps_model(torch.zeros(2, 2, dtype=torch.float64), torch.tensor([4, 4]))
    with pytest.raises(TimestepError, match="not at t = 3"):
        variance(3, 2)
    with pytest.raises(CourseError, match="unknown prediction"):
        learned_range(Fixed(0.0), schedule, "noise")
