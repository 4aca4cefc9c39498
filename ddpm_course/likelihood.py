"""How probable a model finds given data: exactly, along the probability-flow ODE, and by the bound from a few well-chosen times.

In the angle phi, with cos(phi) = sqrt(alpha_bar), the ODE is dx/dphi = v_hat(x, phi), and log p changes by -tr(dv_hat/dx) along it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .elbo import prior_term, vlb_term
from .errors import ShapeError, ValueCourseError, check_tensors
from .forward import draw
from .gaussian import normal_log_prob
from .posterior import Variance
from .prediction import EpsModel, eps_to_v
from .sampling import batch_time, check_grid
from .schedule import NoiseSchedule

MAX_EXACT = 256  # one backward pass for each number: beyond this, probes


def angle(schedule: NoiseSchedule, t: int) -> float:
    """phi_t in [0, pi/2) with cos = sqrt(alpha_bar_t), sin = sqrt(1 - alpha_bar_t).   v-pred appendix D."""
    bar = schedule.at(t)
    return math.atan2((1 - bar) ** 0.5, bar**0.5)


def _slope(eps_model: EpsModel, schedule: NoiseSchedule, x_t: Tensor, t: int, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """v_hat (B, ...) and its trace (B,) at time t: exact, or the mean of e . (dv/dx) e over probes e (K, B, ...).

    At t = 0 both are 0, as they are for every data law with a density.
    """
    if t == 0:
        return torch.zeros_like(x_t), x_t.new_zeros(len(x_t))
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        v = eps_to_v(schedule, x, t, eps_model(x, batch_time(x, t)))
        if probes is None:
            flat = v.flatten(1)
            rows = [torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)[0].flatten(1)[:, i] for i in range(flat.shape[1])]
            return v.detach(), torch.stack(rows).sum(0)
        terms = [(torch.autograd.grad((v * e).sum(), x, retain_graph=True)[0] * e).flatten(1).sum(1) for e in probes]
        return v.detach(), torch.stack(terms).mean(0)


def _probes(x_0: Tensor, number: int | None, generator: torch.Generator | None) -> Tensor | None:
    """Random signs (K, B, ...), kept for the whole path; None asks for the exact trace."""
    if number is None:
        if x_0[0].numel() > MAX_EXACT:
            raise ValueCourseError(f"the exact trace costs {x_0[0].numel()} backward passes a step here; estimate it: probes=1 or more")
        return None
    return draw((number, *x_0.shape), x_0, generator).sign()


def ode_log_prob(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    x_0: Tensor,
    grid: Tensor | Sequence[int] | None = None,
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log density (B,) in nats of x_0 (B, ...) under the probability-flow ODE of eps_model, by Heun's method from 0 up to T.

    grid: falling times as for a sampler (default all), run through backwards. probes: None for the exact trace, or how many random signs
    estimate it. The data must have a density: add noise to grey values first (dequantise).   SDE section 4.3.
    """
    check_tensors(x_0=x_0)
    times = check_grid(schedule, list(range(schedule.T, -1, -1)) if grid is None else grid)[::-1]
    signs, x, gained = _probes(x_0, probes, generator), x_0.detach(), x_0.new_zeros(len(x_0))
    slope, trace = _slope(eps_model, schedule, x, times[0], signs)
    for s, t in zip(times, times[1:], strict=False):
        h = angle(schedule, t) - angle(schedule, s)
        ahead, trace_ahead = _slope(eps_model, schedule, x + h * slope, t, signs)
        x, gained = x + h * (slope + ahead) / 2, gained + h * (trace + trace_ahead) / 2
        slope, trace = _slope(eps_model, schedule, x, t, signs) if t != times[-1] else (slope, trace)
    return normal_log_prob(x, 0.0, 1.0).flatten(1).sum(1) + gained


def dequantise(x_0: Tensor, generator: torch.Generator | None = None, levels: int = 256) -> Tensor:
    """x_0 in [-1, 1] on `levels` grey values, each moved to a uniformly random place of its bin of width 2 / (levels - 1)."""
    place = torch.rand(x_0.shape, generator=generator, dtype=x_0.dtype).to(x_0.device)
    return x_0 + (2 * place - 1) / (levels - 1)


def density_bits(log_prob: Tensor, x_0: Tensor, levels: int = 256) -> Tensor:
    """Bits per number (B,) of grey values from the log density of dequantised x_0: the bin's width turns the density into a probability.

    On average over the noise an upper bound on the bits of the grey values themselves (Jensen).
    """
    return -log_prob / (x_0[0].numel() * math.log(2)) - math.log2(2 / (levels - 1))


class ImportanceTimes:
    """Draws t with probability p_t proportional to sqrt(mean of the last L_t^2), for unbiased estimates of the bound.   Nichol eq. 18.

    Uniform until every t has `history` entries. A share `uniform` of all draws stays uniform, so that no t is forgotten.
    """

    def __init__(self, T: int, history: int = 10, uniform: float = 0.01) -> None:
        if T < 1 or history < 1 or not 0 < uniform <= 1:
            raise ValueCourseError(f"T = {T} and history = {history} must be at least 1, uniform = {uniform} in (0, 1]")
        self.T, self.uniform = T, uniform
        self.table, self.count = torch.zeros(T, history, dtype=torch.float64), torch.zeros(T, dtype=torch.long)

    def probabilities(self) -> Tensor:
        """p_t for t = 1..T, (T,) float64."""
        even = torch.full((self.T,), 1 / self.T, dtype=torch.float64)
        root = self.table.square().mean(1).sqrt()
        if bool((self.count < self.table.shape[1]).any()) or not bool(root.sum() > 0):
            return even
        return (1 - self.uniform) * root / root.sum() + self.uniform * even

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n times t (n,) and their weights 1 / p_t (n,): the mean of weight * L_t is the sum of all terms."""
        p = self.probabilities()
        k = torch.multinomial(p, n, replacement=True, generator=generator)
        return k + 1, 1 / p[k]

    def update(self, t: Tensor, terms: Tensor) -> None:
        """Remember the terms L_t (n,) seen at t (n,); the newest `history` of each t count."""
        for index, value in zip((t - 1).tolist(), terms.detach().double().tolist(), strict=True):
            self.table[index, self.count[index] % self.table.shape[1]] = value
            self.count[index] += 1


def sampled_bound(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    x_0: Tensor,
    times: ImportanceTimes,
    variance: Variance | Tensor = "beta",
    decoder: str = "gaussian",
    generator: torch.Generator | None = None,
) -> Tensor:
    """An unbiased estimate of the bound for each example, (B,) in nats, from one time each; `times` learns from it.   Nichol eq. 18."""
    if times.T != schedule.T:
        raise ShapeError(f"these times run to {times.T}, the schedule to {schedule.T}; build ImportanceTimes({schedule.T})")
    t, weight = times.draw(len(x_0), generator)
    t = t.to(x_0.device)
    term = vlb_term(eps_model, schedule, x_0, t, draw(x_0.shape, x_0, generator), variance, decoder)
    times.update(t, term)
    return prior_term(schedule, x_0) + (weight.to(x_0) * term)
