"""The exponential moving average of the weights: what one samples from.   Ho appendix B (decay 0.9999)."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .errors import ConfigError


def ema_decay(step: int, decay: float) -> float:
    """Decay at a step (0, 1, ...): min(decay, (1 + step) / (10 + step)), so that the first weights are forgotten early."""
    return min(decay, (1 + step) / (10 + step))


def ema_of(net: nn.Module, decay: float = 0.999) -> AveragedModel:
    """An averaged copy of `net`; call .update_parameters(net) after each optimiser step. Buffers are copied, never averaged."""
    if not 0 <= decay < 1:
        raise ConfigError(f"ema_decay = {decay} must lie in [0, 1); 0 keeps no memory, 0.9999 suits 100,000 steps and more")

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], _: Tensor) -> None:
        """Move the averages towards the weights by 1 - decay, all at once. The count is read on the CPU: no waiting for a GPU."""
        torch._foreach_lerp_(averages, weights, 1 - ema_decay(int(averaged.n_averaged), decay))

    averaged = AveragedModel(net, multi_avg_fn=update, use_buffers=False)
    return averaged
