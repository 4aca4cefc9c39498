"""All weights of a network in one tensor, their gradients and averages in two more: an update is then a few long loops.

On a CPU every short loop has its price. 244 small tensors are clipped, stepped and averaged in 8 ms, laid side by side in 3.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .ema import ema_decay
from .errors import ConfigError

State = dict[int, dict[str, Any]]  # of an optimiser: for each weight, numbers by name


def can_lie_together(net: nn.Module) -> bool:
    """Whether all weights are float32 on a CPU, all of them are trained, and each fills a place in memory that it shares with no other."""
    weights = sorted(net.parameters(), key=Tensor.data_ptr)
    apart = all(one.data_ptr() + one.nbytes <= other.data_ptr() for one, other in pairwise(weights))
    dense = all(torch.empty_like(w).stride() == w.stride() for w in weights)
    return apart and dense and all(w.dtype == torch.float32 and w.device.type == "cpu" and w.requires_grad for w in weights)


def pieces(whole: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Views of whole (N,), one after the other, with the shapes and the memory layouts of `like`, which has N numbers."""
    parts = whole.split([x.numel() for x in like])
    return [part.as_strided(x.shape, x.stride(), part.storage_offset()) for part, x in zip(parts, like, strict=True)]


def lay_together(weights: list[nn.Parameter]) -> Tensor:
    """Move the weights into one new tensor (N,); they stay what they were, as views of it."""
    whole = torch.empty(sum(w.numel() for w in weights))
    for weight, piece in zip(weights, pieces(whole, weights), strict=True):
        weight.data = piece.copy_(weight.data)
    return whole


class SideBySide:
    """The weights of `net` and of its average `ema`, laid together. `weights` (N,) is what the optimiser gets."""

    def __init__(self, net: nn.Module, ema: AveragedModel, decay: float) -> None:
        self.ema, self.decay, self.own = ema, decay, list(net.parameters())
        self.buffers = list(zip(ema.module.buffers(), net.buffers(), strict=True))
        self.weights, self.averages = nn.Parameter(lay_together(self.own)), lay_together(list(ema.module.parameters()))
        self.weights.grad = torch.zeros_like(self.weights)
        self.gradients = pieces(self.weights.grad, self.own)
        self.places = [own.data_ptr() for own in self.own]

    @torch.no_grad()
    def clip(self, limit: float) -> Tensor:
        """Take the gradients over from the weights, shorten them together to this norm, and return the norm they had.

        A weight without a gradient counts as having zeros. What is short enough is not multiplied by one. ConfigError if something
        has moved the weights away from here, as `.to(dtype)` does.
        """
        if [own.data_ptr() for own in self.own] != self.places:
            raise ConfigError(
                "the network's weights were replaced while it was trained: write into them (copy_), or train with compile='off'"
            )
        found = [(piece, own.grad) for piece, own in zip(self.gradients, self.own, strict=True) if own.grad is not None]
        gradient = self.weights.grad.zero_() if len(found) < len(self.own) else self.weights.grad
        if found:
            torch._foreach_copy_([piece for piece, _ in found], [grad for _, grad in found])
        for own in self.own:
            own.grad = None
        norm = torch.linalg.vector_norm(gradient)
        if norm > limit:
            nn.utils.clip_grads_with_norm_(self.weights, limit, norm)
        return norm

    @torch.no_grad()
    def average(self) -> None:
        """What ema.update_parameters(net) does, without its walk through all modules: weights averaged, at first copied; buffers copied."""
        count = int(self.ema.n_averaged)
        self.averages.lerp_(self.weights, 1 - ema_decay(count, self.decay) if count else 1.0)
        for average, own in self.buffers:
            average.copy_(own)
        self.ema.n_averaged += 1

    def cut(self, state: State) -> State:
        """The optimiser's numbers about the whole as numbers about each weight, as they are saved."""
        columns = {name: [x] * len(self.own) if name == "step" else pieces(x, self.own) for name, x in state.get(0, {}).items()}
        return {i: {name: column[i] for name, column in columns.items()} for i in range(len(self.own))} if columns else {}

    def join(self, state: State) -> State:
        """The way back from cut. A weight without numbers counts as having zeros."""
        joined: dict[str, Any] = {}
        for name in {name for numbers in state.values() for name in numbers}:
            given = [state.get(i, {}).get(name) for i in range(len(self.own))]
            if name == "step":
                joined[name] = next(x for x in given if x is not None)
                continue
            joined[name] = torch.zeros_like(self.weights)
            for piece, x in zip(pieces(joined[name], self.own), given, strict=True):
                if x is not None:
                    piece.copy_(x)
        return {0: joined} if joined else {}
