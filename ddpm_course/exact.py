"""The oracle: data whose best possible denoiser E[eps | x_t] is known in closed form. No training, so every sampler can be proved right."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .errors import ShapeError, ValueCourseError
from .prediction import EpsModel
from .schedule import NoiseSchedule, Time


def _flat(x: Tensor, event: tuple[int, ...]) -> Tensor:
    """(B, *event) -> (B, D) in float64, refusing other shapes."""
    if tuple(x.shape[1:]) != tuple(event):
        raise ShapeError(f"this data has points of shape {tuple(event)}, got a batch of shape {tuple(x.shape)}")
    return x.reshape(len(x), -1).double()


class ExactGaussian:
    """Data x_0 ~ N(mean, cov): mean (*event), cov (D, D) for D numbers in an event. Float64 inside."""

    def __init__(self, mean: Tensor, cov: Tensor) -> None:
        self.mean, self.cov = torch.as_tensor(mean).double(), torch.as_tensor(cov).double()
        self.event = tuple(self.mean.shape)
        if tuple(self.cov.shape) != (self.mean.numel(),) * 2:
            raise ShapeError(f"cov must be ({self.mean.numel()}, {self.mean.numel()}) for this mean, got {tuple(self.cov.shape)}")
        if not torch.allclose(self.cov, self.cov.T, atol=1e-9):
            raise ValueCourseError("cov must be symmetric: cov[i, j] is the covariance of numbers i and j")
        self.eigenvalues, self.basis = torch.linalg.eigh(self.cov)
        if float(self.eigenvalues[0]) < -1e-12:
            raise ValueCourseError(f"cov must be positive semi-definite, its smallest eigenvalue is {float(self.eigenvalues[0]):.3g}")

    def diffused(self, alpha_bar: float) -> "ExactGaussian":
        """The law of x_t: N(sqrt(alpha_bar) mean, alpha_bar cov + (1 - alpha_bar) I).   Ho eq. 4."""
        identity = torch.eye(len(self.cov), dtype=torch.float64)
        return ExactGaussian(alpha_bar**0.5 * self.mean, alpha_bar * self.cov + (1 - alpha_bar) * identity)

    def given(self, mask: Tensor, values: Tensor) -> "ExactGaussian":
        """The law of x_0 given that x_0[mask] = values[mask]; mask (*event) boolean. What is known has variance 0."""
        known, wanted = mask.flatten(), torch.as_tensor(values).double().flatten()
        gain = torch.linalg.solve(self.cov[known][:, known], self.cov[known]).T  # (D, known): what a surprise there says here
        mean = self.mean.flatten() + gain @ (wanted - self.mean.flatten())[known]
        cov = self.cov - gain @ self.cov[known]
        cov[known], cov[:, known] = 0.0, 0.0
        return ExactGaussian(mean.reshape(self.event), (cov + cov.T) / 2)

    def eps_model(self, schedule: NoiseSchedule) -> EpsModel:
        """E[eps | x_t] = sqrt(1 - alpha_bar) (alpha_bar cov + (1 - alpha_bar) I)^-1 (x_t - sqrt(alpha_bar) mean)."""

        def eps_model(x_t: Tensor, t: Tensor) -> Tensor:
            """E[eps | x_t] for x_t (B, *event), t (B,)."""
            bar = schedule.at(t, 2, low=1)
            in_basis = (_flat(x_t, self.event) - bar**0.5 * self.mean.flatten()) @ self.basis
            scaled = (1 - bar) ** 0.5 * in_basis / (bar * self.eigenvalues + 1 - bar)
            return (scaled @ self.basis.T).reshape(x_t.shape).to(x_t.dtype)

        return eps_model

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws (n, *event), float64."""
        z = torch.randn(n, self.mean.numel(), generator=generator, dtype=torch.float64)
        root = self.basis * self.eigenvalues.clamp(min=0).sqrt()
        return (self.mean.flatten() + z @ root.T).reshape(n, *self.event)

    def log_prob(self, x: Tensor) -> Tensor:
        """log density (B,) in nats at x (B, *event)."""
        z2 = ((_flat(x, self.event) - self.mean.flatten()) @ self.basis) ** 2 / self.eigenvalues
        return -0.5 * (z2 + self.eigenvalues.log() + math.log(2 * math.pi)).sum(1)

    def in_eigenbasis(self) -> "ExactGaussian":
        """The same data seen along the axes of cov: x @ basis for flat x. There all numbers are independent, and so are all of x_t."""
        return ExactGaussian((self.mean.flatten() @ self.basis).reshape(self.event), self.eigenvalues.diag())

    def unexplained(self, schedule: NoiseSchedule) -> Tensor:
        """E|eps - E[eps | x_t]|^2 per number, (T+1,): what even the perfect guess misses. Index 0, without noise, is 1."""
        bar = schedule.alpha_bar.cpu()[:, None]
        return (bar * self.eigenvalues / (bar * self.eigenvalues + 1 - bar)).mean(1)

    def reverse_cov(self, schedule: NoiseSchedule, t: int, s: int) -> Tensor:
        """Covariance (D, D) of q(x_s | x_t), the true reverse step: (1 - alpha) cov_s cov_t^-1, the same for every x_t."""
        bar_t, bar_s = schedule.pair(t, s)
        ahead, here = (bar * self.eigenvalues + 1 - bar for bar in (bar_t, bar_s))
        return (self.basis * ((1 - bar_t / bar_s) * here / ahead)) @ self.basis.T

    def variance(self, schedule: NoiseSchedule) -> Callable[[Time, Time], Tensor]:
        """The best variance (t, s) -> (*event), or (B, *event), with its own value for each number: the diagonal of reverse_cov.

        In the eigenbasis the diagonal is the whole covariance, and the reverse step is exact.
        """

        def variance(t: Time, s: Time) -> Tensor:
            """Diagonal of reverse_cov for a step t -> s."""
            if isinstance(t, int) and isinstance(s, int):
                return self.reverse_cov(schedule, t, s).diagonal().reshape(self.event)
            pairs = zip(*torch.broadcast_tensors(torch.as_tensor(t), torch.as_tensor(s)), strict=True)
            return torch.stack([variance(int(a), int(b)) for a, b in pairs])

        return variance

    def entropy(self) -> float:
        """Differential entropy in nats: the exact expected negative log-likelihood."""
        return float(0.5 * (self.eigenvalues.log() + math.log(2 * math.pi) + 1).sum())


class GaussianMixture:
    """Data from a mixture of isotropic Gaussians: weights (K,), means (K, *event), stds (K,). Float64 inside."""

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor) -> None:
        self.weights, self.means, self.stds = (torch.as_tensor(v).double() for v in (weights, means, stds))
        self.event = tuple(self.means.shape[1:])
        if not len(self.weights) == len(self.means) == len(self.stds):
            raise ShapeError(f"{len(self.weights)} weights, {len(self.means)} means and {len(self.stds)} stds must be equally many")
        if bool((self.weights < 0).any()) or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise ValueCourseError("weights must be >= 0 and sum to 1; divide them by their sum")
        if bool((self.stds < 0).any()):
            raise ValueCourseError("stds must be >= 0 (standard deviations, not variances)")

    def diffused(self, alpha_bar: float) -> "GaussianMixture":
        """The law of x_t: again a mixture, means times sqrt(alpha_bar), variances alpha_bar std^2 + 1 - alpha_bar.   Ho eq. 4."""
        return GaussianMixture(self.weights, alpha_bar**0.5 * self.means, (alpha_bar * self.stds**2 + 1 - alpha_bar) ** 0.5)

    def component_log_prob(self, x: Tensor, alpha_bar: float | Tensor = 1.0) -> Tensor:
        """log of weight_k times density_k of x_t (B, K), at noise level alpha_bar (a float or (B, 1)); 1.0 is clean data."""
        flat, means = _flat(x, self.event), self.means.reshape(len(self.means), -1)
        shrink = torch.as_tensor(alpha_bar, dtype=torch.float64) ** 0.5
        var = shrink**2 * self.stds**2 + 1 - shrink**2  # (K,) or (B, K)
        square = (flat**2).sum(1, keepdim=True) - 2 * shrink * flat @ means.T + shrink**2 * (means**2).sum(1)
        return self.weights.log() - 0.5 * (square.clamp(min=0) / var + flat.shape[1] * (var.log() + math.log(2 * math.pi)))

    def log_prob(self, x: Tensor) -> Tensor:
        """log density (B,) in nats at x (B, *event); a component with std 0 has none."""
        if bool((self.stds == 0).any()):
            raise ValueCourseError("a mixture with std 0 (a finite set of points) has no density; ask .diffused(alpha_bar).log_prob(x_t)")
        return self.component_log_prob(x).logsumexp(1)

    def responsibilities(self, x_t: Tensor, alpha_bar: float | Tensor = 1.0) -> Tensor:
        """p(component k | x_t), (B, K): Bayes' rule on the component."""
        return self.component_log_prob(x_t, alpha_bar).softmax(1)

    def eps_model(self, schedule: NoiseSchedule) -> EpsModel:
        """E[eps | x_t]: every component's own answer, averaged with its responsibility."""

        def eps_model(x_t: Tensor, t: Tensor) -> Tensor:
            """E[eps | x_t] for x_t (B, *event), t (B,)."""
            bar = schedule.at(t, 2, low=1)
            share = self.responsibilities(x_t, bar) / (bar * self.stds**2 + 1 - bar)
            flat, means = _flat(x_t, self.event), self.means.reshape(len(self.means), -1)
            eps = (1 - bar) ** 0.5 * (share.sum(1, keepdim=True) * flat - bar**0.5 * share @ means)
            return eps.reshape(x_t.shape).to(x_t.dtype)

        return eps_model

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws (n, *event), float64."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, *self.event, generator=generator, dtype=torch.float64)
        return self.means[k] + self.stds[k].reshape(-1, *[1] * len(self.event)) * z


class FiniteData(GaussianMixture):
    """Data that is one of N known points (N, *event), all equally likely: the mixture with std 0. Its perfect denoiser memorises."""

    def __init__(self, points: Tensor) -> None:
        n = len(points)
        super().__init__(torch.full((n,), 1 / max(n, 1)), points, torch.zeros(n))
