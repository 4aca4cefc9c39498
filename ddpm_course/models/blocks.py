"""The parts of the U-Net: time embedding, residual block, attention, down- and upsampling.   (B, C, H, W) throughout."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import Dropout
from .norm import GroupNorm, silu


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sines, then cosines of t at dim/2 geometric frequencies 1..1/10000, (B, dim) float32.   Ho appendix B.

    t in 1..T is shifted here, and only here, to the 0-based times that published weights were trained with.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = (t - 1).float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def group_norm(channels: int, groups: int) -> GroupNorm:
    """GroupNorm with at most `groups` groups that divide the channels."""
    return GroupNorm(channels, math.gcd(groups, channels))


class Pointwise(nn.Conv2d):
    """A 1x1 convolution; in bf16 on a CPU, not compiled, as a matrix product, which is what it is, and up to twice as fast."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in, H, W) -> (B, out, H, W)."""
        if x.device.type != "cpu" or x.dtype != torch.bfloat16 or torch.compiler.is_compiling():
            return super().forward(x)
        weight = self.weight.flatten(1).to(x.dtype).expand(len(x), -1, -1)
        return torch.baddbmm(self.bias.to(x.dtype)[:, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])


class ResBlock(nn.Module):
    """GroupNorm-SiLU-conv twice around the time, plus the input itself.   (B, in, H, W) -> (B, out, H, W).   Ho appendix B.

    time_as: "add" adds a number to each channel (Ho), "scale_shift" scales and shifts after the second norm (Nichol), "none" ignores t.
    """

    def __init__(self, in_channels: int, out_channels: int, time_channels: int, groups: int, dropout: float, time_as: str = "add") -> None:
        super().__init__()
        self.time_as = time_as
        self.norm_1, self.conv_1 = group_norm(in_channels, groups), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_as != "none":
            self.time = nn.Linear(time_channels, out_channels * (2 if time_as == "scale_shift" else 1))
        self.norm_2, self.conv_2 = group_norm(out_channels, groups), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.dropout = Dropout(dropout)
        self.skip = Pointwise(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, in, H, W), time (B, time_channels) -> (B, out, H, W)."""
        h = self.conv_1(silu(self.norm_1(x)))
        if self.time_as == "add":
            h = self.norm_2(h + self.time(F.silu(time))[:, :, None, None])
        elif self.time_as == "scale_shift":
            scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
            h = self.norm_2(h) * (1 + scale) + shift
        else:
            h = self.norm_2(h)
        return self.skip(x) + self.conv_2(self.dropout(silu(h)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v.   q (B, heads, N, d), k and v (B, heads, M, d), mask (B, M) True where k may be seen.

    The plain formula on the CPU, where it trains faster than torch's fused kernel; the fused kernel elsewhere.
    """
    seen = None if mask is None else mask[:, None, None, :]
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    if q.dtype == torch.bfloat16:
        k, v = k.contiguous(), v.contiguous()  # once here, instead of in every product forward and back
    weights = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    return (weights if seen is None else weights.masked_fill(~seen, float("-inf"))).softmax(dim=-1) @ v


class Attention(nn.Module):
    """Every pixel looks at every other: softmax(q k / sqrt(d)) v, plus the input.   (B, C, H, W) -> same.   Ho appendix B.

    With context_dim, every pixel then looks at the words of a context, too.   LDM section 3.3.
    """

    def __init__(self, channels: int, groups: int, num_heads: int = 1, context_dim: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.qkv, self.out = group_norm(channels, groups), nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.words = CrossAttention(channels, groups, num_heads, context_dim) if context_dim else None

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), context (B, L, context_dim), mask (B, L) -> (B, C, H, W)."""
        B, C, H, W = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q, k, v = self.qkv(tokens).reshape(B, H * W, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v).transpose(1, 2).reshape(B, H * W, C)
        x = x + self.out(mixed).transpose(1, 2).reshape(B, C, H, W)
        return x if self.words is None else self.words(x, context, mask)


class CrossAttention(nn.Module):
    """Every pixel asks, the words of the context answer, plus the input.   (B, C, H, W), (B, L, context_dim) -> (B, C, H, W)."""

    def __init__(self, channels: int, groups: int, num_heads: int, context_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.norm_context = group_norm(channels, groups), nn.LayerNorm(context_dim)
        self.q, self.kv, self.out = nn.Linear(channels, channels), nn.Linear(context_dim, 2 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), context (B, L, context_dim), mask (B, L) True for words that count -> (B, C, H, W)."""
        (B, C, H, W), L, heads = x.shape, context.shape[1], self.num_heads
        q = self.q(self.norm(x).flatten(2).transpose(1, 2)).reshape(B, H * W, heads, C // heads).transpose(1, 2)
        k, v = self.kv(self.norm_context(context)).reshape(B, L, 2, heads, C // heads).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v, mask).transpose(1, 2).reshape(B, H * W, C)
        return x + self.out(mixed).transpose(1, 2).reshape(B, C, H, W)


class Downsample(nn.Module):
    """Halve H and W with a stride-2 convolution, padded at the right and bottom only, as in the published weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double H and W: repeat pixels ("nearest") or blend them ("bilinear"), then convolve; or one "transposed" convolution.

    The first two give every pixel the same number of inputs. A transposed 3x3 convolution of stride 2 does not: checkerboard.
    """

    def __init__(self, channels: int, how: str = "nearest") -> None:
        super().__init__()
        self.how = how
        if how == "transposed":
            self.conv = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
        else:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, 2H, 2W)."""
        if self.how == "nearest" and torch.compiler.is_compiling():  # as a copy, whose gradient the compiler can fuse
            B, C, H, W = x.shape
            twice = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(B, H, 2, W, 2, C)
            return self.conv(twice.reshape(B, 2 * H, 2 * W, C).permute(0, 3, 1, 2))
        return self.conv(x if self.how == "transposed" else F.interpolate(x, scale_factor=2.0, mode=self.how))


class Merge(nn.Module):
    """Where the encoder's features come back: "concat" puts them beside, "add" adds them (1x1 conv if widths differ), "none" drops them."""

    def __init__(self, how: str, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.how, self.out_channels = how, channels + (skip_channels if how == "concat" else 0)
        self.fit = Pointwise(skip_channels, channels) if how == "add" and skip_channels != channels else nn.Identity()

    def forward(self, h: Tensor, skip: Tensor) -> Tensor:
        """h (B, channels, H, W), skip (B, skip_channels, H, W) -> (B, out_channels, H, W)."""
        if self.how == "concat":
            return torch.cat([h, skip], dim=1)
        return h + self.fit(skip) if self.how == "add" else h
