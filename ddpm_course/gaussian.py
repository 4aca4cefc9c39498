"""Facts about Gaussians that the bound is made of."""

import math

import torch
from torch import Tensor

from .errors import DataError


def normal_kl(mean_1: Tensor, var_1: Tensor | float, mean_2: Tensor | float, var_2: Tensor | float) -> Tensor:
    """KL(N(mean_1, var_1) || N(mean_2, var_2)) in nats, elementwise; arguments broadcast.   Ho section 3.2."""
    mean_1, var_1, mean_2, var_2 = (torch.as_tensor(v, dtype=mean_1.dtype, device=mean_1.device) for v in (mean_1, var_1, mean_2, var_2))
    ratio = var_1 / var_2
    return 0.5 * (ratio - 1 - ratio.log() + (mean_1 - mean_2) ** 2 / var_2)


def normal_log_prob(x: Tensor, mean: Tensor | float, var: Tensor | float) -> Tensor:
    """log density of N(mean, var) at x in nats, elementwise. A density, so it may exceed 0."""
    var = torch.as_tensor(var, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - mean) ** 2 / var + var.log() + math.log(2 * math.pi))


def discretized_log_prob(x: Tensor, mean: Tensor, var: Tensor | float) -> Tensor:
    """log probability (nats, <= 0) of the bin of x among 256 bins on [-1, 1]; the outer bins reach to infinity.   Ho eq. 13."""
    if float(x.min()) < -1 or float(x.max()) > 1:
        raise DataError(f"the discrete decoder needs x in [-1, 1], got {float(x.min()):.3g}..{float(x.max()):.3g}; scale it: x / 127.5 - 1")
    std = torch.as_tensor(var, dtype=x.dtype, device=x.device).sqrt()
    upper = torch.where(x > 1 - 1 / 255, torch.inf, (x - mean + 1 / 255) / std)
    lower = torch.where(x < -1 + 1 / 255, -torch.inf, (x - mean - 1 / 255) / std)
    flip = lower > 0  # work in the lower tail, where log Phi keeps its digits
    upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return log_upper + torch.log1p(-torch.exp(log_lower - log_upper).clamp(max=1 - torch.finfo(x.dtype).eps))
