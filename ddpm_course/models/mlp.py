"""A residual network for points in the plane (or any vector): the toy's U-Net."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError
from .blocks import timestep_embedding


class MLPBlock(nn.Module):
    """LayerNorm, shifted and scaled by the time, then two linear layers, plus the input.   (B, width), (B, width) -> (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.time = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 2 * width)
        self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """h (B, width), time (B, width) -> (B, width)."""
        scale, shift = self.time(time).chunk(2, dim=1)
        return h + self.net(self.norm(h) * (1 + scale) + shift)


class MLP(nn.Module):
    """Predicts from x_t (B, dim) and t (B,) in 1..T a vector (B, out_dim or dim). Sines of x let it draw sharper edges than a plain MLP."""

    def __init__(self, dim: int = 2, width: int = 128, num_blocks: int = 3, octaves: int = 4, out_dim: int | None = None) -> None:
        super().__init__()
        self.dim, self.width = dim, width
        self.register_buffer("octaves", math.pi / 2 * 2.0 ** torch.arange(octaves), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(dim * (1 + 2 * octaves), width)
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(num_blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out_dim or dim))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, dim), t (B,) in 1..T -> (B, out_dim)."""
        if x_t.ndim != 2 or x_t.shape[1] != self.dim:
            raise ShapeError(f"this MLP takes points (B, {self.dim}), got {tuple(x_t.shape)}")
        waves = (x_t[:, :, None] * self.octaves).flatten(1)
        h = self.enter(torch.cat([x_t, waves.sin(), waves.cos()], dim=1))
        time = F.silu(self.time(timestep_embedding(t, self.width).to(self.time[0].weight.dtype)))
        for block in self.blocks:
            h = block(h, time)
        return self.leave(h)
