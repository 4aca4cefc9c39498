"""Reverse variances that are computed or learned: the best scalar for a given denoiser (Analytic-DPM), and the learned range (Nichol).

Both are functions (t, s) -> variance, for the argument `variance` of ddpm_step, ddpm_sample and vlb_terms.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .elbo import bound_term
from .errors import ShapeError, TimestepError, one_of
from .forward import draw, q_sample
from .losses import simple_loss
from .posterior import posterior_variance, q_posterior, reverse_variance
from .prediction import TO_EPS, EpsModel, eps_to_x_0, target
from .schedule import Coefficient, NoiseSchedule, Time

VarianceFunction = Callable[[Time, Time], Coefficient]


class EpsMoments(NamedTuple):
    """Per number and time, each (T+1,): mean square of eps_hat, and of eps - eps_hat. They add up to 1 for a perfect eps_model."""

    square: Tensor
    error: Tensor

    def unexplained(self) -> Tensor:
        """1 - square: the error that eps_hat would have if it were E[eps | x_t], in 0..1.   Analytic-DPM section 3.1."""
        return (1 - self.square).clamp(0, 1)


@torch.no_grad()
def eps_moments(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    x_0: Tensor,
    times: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> EpsMoments:
    """Monte Carlo over data x_0 (N, ...): one draw of x_t for each example and each of `times` (default all); a line in between.

    No network is trained for it: one pass over some data at each time.   Analytic-DPM section 3.1.
    """
    asked = sorted(set(range(1, schedule.T + 1) if times is None else times))
    rows = []
    for t in asked:
        eps = draw(x_0.shape, x_0, generator)
        eps_hat = eps_model(q_sample(schedule, x_0, t, eps), torch.full((len(x_0),), t, device=x_0.device))
        rows.append([float(eps_hat.square().mean()), float((eps - eps_hat).square().mean())])
    found = torch.tensor(rows, dtype=torch.float64)
    return EpsMoments(*(_between(asked, column, schedule.T) for column in found.T))


def _between(times: Sequence[int], values: Tensor, T: int) -> Tensor:
    """The table (T+1,) of a function known at some times: straight lines between them, constant beyond."""
    known, wanted = torch.tensor(times, dtype=torch.float64), torch.arange(T + 1, dtype=torch.float64).clamp(times[0], times[-1])
    right = torch.searchsorted(known, wanted).clamp(min=min(1, len(times) - 1))
    left = (right - 1).clamp(min=0)
    share = (wanted - known[left]) / (known[right] - known[left]).clamp(min=1)
    return values[left] + share * (values[right] - values[left])


def optimal_variance(schedule: NoiseSchedule, unexplained: Tensor) -> VarianceFunction:
    """The scalar variance with the lowest bound: beta~ + c_0^2 Var(x_0 | x_t), averaged over x_t and numbers.   Analytic-DPM Theorem 1.

    `unexplained` (T+1,) is the mean of (eps - eps_hat)^2: ExactGaussian.unexplained, EpsMoments.unexplained() (for a perfect network), or
    EpsMoments.error (for the network as it is). Var(x_0 | x_t) is (1 - alpha_bar) / alpha_bar times that; c_0 is Ho eq. 7's factor of x_0.
    """
    if unexplained.shape != (schedule.T + 1,):
        raise ShapeError(f"unexplained has T+1 = {schedule.T + 1} entries (index 0 unused), got {tuple(unexplained.shape)}")

    def variance(t: Time, s: Time) -> Coefficient:
        """beta~ + c_0^2 (1 - alpha_bar_t) / alpha_bar_t unexplained_t: a float, or (B,) for times (B,)."""
        bar_t, bar_s = schedule.pair(t, s)
        c_0 = bar_s**0.5 * (1 - bar_t / bar_s) / (1 - bar_t)
        share = float(unexplained[t]) if isinstance(t, int) else unexplained.to(t.device)[t]
        return posterior_variance(schedule, t, s) + c_0**2 * (1 - bar_t) / bar_t * share

    return variance


def range_variance(schedule: NoiseSchedule, t: Time, s: Time, raw: Tensor) -> Tensor:
    """exp(v log beta + (1 - v) log beta~) with v = (raw + 1) / 2 for each number of raw (B, ...): raw = 1 is beta, -1 is beta~.

    Nothing holds v in [0, 1]. beta~ is the clipped one, since log 0 has no place here.   Nichol eq. 15.
    """
    ends = [reverse_variance(schedule, t, s, kind, raw.ndim) for kind in ("beta", "posterior_clipped")]
    high, low = (torch.as_tensor(end, dtype=torch.float64).log().to(raw) for end in ends)
    share = (raw + 1) / 2
    return (share * high + (1 - share) * low).exp()


def _split(out: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """A network's 2C outputs as prediction and raw range, each like x_t."""
    if out.shape[1] != 2 * x_t.shape[1]:
        raise ShapeError(f"a learned range needs a network with {2 * x_t.shape[1]} outputs for {x_t.shape[1]} inputs, got {out.shape[1]}")
    return out.chunk(2, dim=1)


def learned_range(
    net: Callable[..., Tensor], schedule: NoiseSchedule, prediction: str = "eps", **cond: object
) -> tuple[EpsModel, VarianceFunction]:
    """(eps_model, variance) of a network with 2C outputs: the prediction, and where the variance lies between beta~ and beta.

    Use the two together: `variance` speaks about the x_t that eps_model saw last, and refuses another time.   Nichol section 3.1.
    """
    one_of("prediction", prediction, TO_EPS)
    memory: dict[str, Tensor] = {}

    def eps_model(x_t: Tensor, t: Tensor) -> Tensor:
        """eps; remembers the range for this x_t."""
        value, raw = _split(net(x_t, t, **cond).to(x_t.dtype), x_t)
        memory.update(t=t, raw=raw)
        return TO_EPS[prediction](schedule, x_t, t, value)

    def variance(t: Time, s: Time) -> Tensor:
        """(B, ...) for the last x_t."""
        if not memory or not bool((memory["t"] == t).all()):
            raise TimestepError(f"the learned variance belongs to the last call of its eps_model, and that was not at t = {t}")
        return range_variance(schedule, t, s, memory["raw"])

    return eps_model, variance


def hybrid_loss(
    net: nn.Module,
    schedule: NoiseSchedule,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    lam: float = 0.001,
    prediction: str = "eps",
    decoder: str = "gaussian",
    **cond: object,
) -> Tensor:
    """L_simple + lam L_vlb for each example, (B,), for a network with 2C outputs.   Nichol eq. 16.

    L_vlb is T times the term at t, in nats per number. Its mean is held fixed (a stopped gradient), so it trains the variance alone.
    """
    x_t = q_sample(schedule, x_0, t, eps)
    value, raw = _split(net(x_t, t, **cond).to(x_t.dtype), x_t)
    eps_hat = TO_EPS[prediction](schedule, x_t, t, value.detach())
    mean, _ = q_posterior(schedule, eps_to_x_0(schedule, x_t, t, eps_hat), x_t, t)
    term = bound_term(schedule, x_0, x_t, t, mean, range_variance(schedule, t, t - 1, raw), decoder)
    return simple_loss(value, target(schedule, x_0, t, eps, prediction)) + lam * schedule.T * term / x_0[0].numel()
