"""GroupNorm and SiLU: torch's own; and the same functions rewritten for torch.compile on a CPU, where they make training faster.

With channels last, the inner loop runs along the channels. A group is a piece of it too short for a vector register, so groups appear
only in small matrix products. And an exponential costs as much as everything around it, so SiLU keeps its slope for the way back.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

LOG2_E = math.log2(math.e)


def rewritten(x: Tensor) -> bool:
    """Whether x (...) lies on a CPU, in bf16 or fp32, inside torch.compile: where the rewritten functions are the faster ones."""
    return torch.compiler.is_compiling() and x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32)


class GroupNorm(nn.GroupNorm):
    """(x - mean) / sqrt(variance + 1e-6) over each group of channels, then a scale and a shift a channel.   Wu & He section 3.

    groups must divide channels. (B, C, H, W) -> same.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(groups, channels, eps=1e-6)
        # (groups, channels): 1 where the channel is in the group. No buffer: needed on the CPU alone, and averages copy buffers.
        self.members = (torch.arange(groups)[:, None] == torch.arange(channels) // (channels // groups)).float()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> same."""
        return self.by_sums(x) if rewritten(x) else super().forward(x)

    def by_sums(self, x: Tensor) -> Tensor:
        """The same by one scale and one shift for each picture and channel, (B, C, H, W) -> same.

        They come from the means of x - k and (x - k)^2 over pixels. Any k will do; one number of the group keeps the squares small.
        """
        members, width = self.members, self.num_channels // self.num_groups
        with torch.autocast(x.device.type, enabled=False):
            k = x[:, ::width, 0, 0].detach().float() @ members  # (B, C): the first number of each group
            pixels = x.permute(0, 2, 3, 1).flatten(1, 2) - k[:, None]  # (B, HW, C)
            means = torch.cat([pixels.mean(dim=1), pixels.square().mean(dim=1)])
            mean, square = (means @ members.T / width).chunk(2)  # (B, groups)
            scale = ((square - mean.square()).clamp(min=0) + self.eps).rsqrt()
            scale, shift = (torch.cat([scale, mean * scale]) @ (members * self.weight)).chunk(2)  # (B, C)
        y = pixels * scale[:, None] + (self.bias - shift)[:, None]
        return y.to(x.dtype).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class SiLUWithSlope(torch.autograd.Function):
    """x * logistic(x), which keeps its slope for the backward pass: no second exponential there.

    With exp2, because a compiler that meets exp stores the logistic function in 32 bits on the way.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        """x (...) -> same."""
        wide = x.float()
        logistic = 1 / (1 + torch.exp2(wide * -LOG2_E))
        ctx.save_for_backward((logistic * (1 + wide * (1 - logistic))).to(x.dtype))
        return (wide * logistic).to(x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        """Gradient of the answer (...) -> of x."""
        return gradient * ctx.saved_tensors[0]


def silu(x: Tensor) -> Tensor:
    """x * logistic(x), (...) -> same.   Elfwing et al."""
    return SiLUWithSlope.apply(x) if rewritten(x) else F.silu(x)
