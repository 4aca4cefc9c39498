"""Dropout; and on a CPU, where random numbers come one by one, two faster ways to make its masks."""

import torch
from torch import Tensor, nn

MULTIPLIERS = 0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32  # as 32-bit numbers with a sign


class Dropout(nn.Dropout):
    """nn.Dropout. On a CPU four numbers share a 64-bit draw; inside torch.compile a hash of its place decides about each number."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, ...) -> same: zero with probability p (exact to 1/65,536), else divided by 1 - p."""
        if not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
            return super().forward(x)
        if torch.compiler.is_compiling():
            seeds = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32)
            return x * kept_by_hash(x.shape, self.p, seeds).to(x.dtype)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = draws[: x.numel()].reshape(x.shape).ge_(round(self.p * 2**16) - 2**15)  # 0 or 1
        return x * kept.to(x.dtype).div_(1 - self.p)


def hashed(places: Tensor, seeds: Tensor) -> Tensor:
    """32 bits that look random for every place: both (...) int32, seeds (2,) int32.   Appleby's MurmurHash3, its last lines.

    No state is handed on from number to number, so that a compiler can make sixteen at once, and again instead of keeping them.
    A counter in place of a state: Salmon et al., Parallel random numbers: as easy as 1, 2, 3.
    """
    h = places ^ seeds[0]
    h = (h ^ (h >> 16 & 0xFFFF)) * MULTIPLIERS[0] ^ seeds[1]  # `&` takes away the signs that >> draws in
    h = (h ^ (h >> 13 & 0x7FFFF)) * MULTIPLIERS[1]
    return h ^ (h >> 16 & 0xFFFF)


def kept_by_hash(shape: torch.Size, p: float, seeds: Tensor) -> Tensor:
    """(B, C, ...) float32 of this shape: 0 with probability p, else 1 / (1 - p); counted with the channels last.

    By arithmetic and not by a comparison: the compiler stores truth values one by one.
    """
    batch, channels, *rest = shape
    places = torch.arange(shape.numel(), dtype=torch.int32).reshape(batch, *rest, channels).movedim(-1, 1)
    return (hashed(places, seeds).float() + (2**31 - round(p * 2**32))).clamp(0, 1) / (1 - p)
