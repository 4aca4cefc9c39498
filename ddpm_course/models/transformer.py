"""A Transformer for series: pieces of the curve are words, every word looks at every other. And its kin that answers in parts."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from .blocks import attend, timestep_embedding

POSITIONS = ("learned", "sines", "none")


@dataclass(frozen=True)
class TransformerConfig:
    """The size of a Transformer over series (B, channels, length), cut into pieces of `patch` steps."""

    length: int = 168
    channels: int = 1
    patch: int = 6
    width: int = 96
    depth: int = 4
    heads: int = 4
    positions: str = "learned"
    """learned, sines, or none: without them the words are a bag, and their order is lost."""
    loudness: float = 1.0
    """Standard deviation of learned positions before training. Words begin at about a half; beside them a whisper is not heard for long."""

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise ConfigError(f"positions = {self.positions!r} must be one of {', '.join(POSITIONS)}")
        if min(self.length, self.channels, self.patch, self.width, self.depth, self.heads) < 1:
            raise ConfigError(f"all sizes must be at least 1, got {self}")
        if self.length % self.patch or self.width % self.heads or self.width % 2:
            raise ConfigError(
                f"length = {self.length} must be a multiple of patch = {self.patch}, and width = {self.width} an even multiple of heads"
            )


class Block(nn.Module):
    """Attention, then two linear layers; the time shifts and scales what enters each, and weighs what is added.   DiT section 3.2.

    The weights of the time begin at 0, so a new block hands its input on.   (B, N, width), (B, width) -> (B, N, width).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.time = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.time.weight), nn.init.zeros_(self.time.bias)

    def mix(self, h: Tensor) -> Tensor:
        """Every word asks every other.   (B, N, width) -> same."""
        B, N, width = h.shape
        q, k, v = self.qkv(h).reshape(B, N, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(attend(q, k, v).transpose(1, 2).reshape(B, N, width))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """h (B, N, width), time (B, width) -> (B, N, width)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.time(time)[:, None].chunk(6, dim=-1)
        h = h + gate_1 * self.mix(self.norm(h) * (1 + scale_1) + shift_1)
        return h + gate_2 * self.mlp(self.norm(h) * (1 + scale_2) + shift_2)


class Trunk(nn.Module):
    """A series as words, with positions and time, through all blocks: what both Transformers share."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, width, words = config, config.width, config.length // config.patch
        self.enter = nn.Linear(config.channels * config.patch, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        sines = timestep_embedding(torch.arange(1, words + 1), width)
        if config.positions == "learned":
            self.positions = nn.Parameter(config.loudness * torch.randn(words, width))
        else:
            self.register_buffer("positions", sines if config.positions == "sines" else torch.zeros_like(sines), persistent=False)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, L) -> words (B, L / patch, C patch)."""
        config = self.config
        if x.ndim != 3 or tuple(x.shape[1:]) != (config.channels, config.length):
            raise ShapeError(f"this Transformer takes series (B, {config.channels}, {config.length}), got {tuple(x.shape)}")
        return x.unflatten(2, (-1, config.patch)).transpose(1, 2).flatten(2)

    def join(self, words: Tensor) -> Tensor:
        """Words (B, L / patch, C patch) -> (B, C, L), the inverse of cut."""
        return words.unflatten(2, (self.config.channels, self.config.patch)).transpose(1, 2).flatten(2)

    def forward(self, x_t: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        """x_t (B, C, L), t (B,) in 1..T -> the words after each block (B, N, width), and the time (B, width)."""
        time = F.silu(self.time(timestep_embedding(t, self.config.width).to(self.enter.weight.dtype)))
        after = [self.enter(self.cut(x_t)) + self.positions]
        for block in self.blocks:
            after.append(block(after[-1], time))
        return after[1:], time


def _silent(layer: nn.Linear) -> nn.Linear:
    """The same layer, answering 0 until it has learned something."""
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    return layer


class Transformer(nn.Module):
    """Predicts from series x_t (B, C, L) and t (B,) in 1..T a series of the same shape."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, self.trunk = config, Trunk(config)
        self.norm, self.time = nn.LayerNorm(config.width, elementwise_affine=False), _silent(nn.Linear(config.width, 2 * config.width))
        self.leave = _silent(nn.Linear(config.width, config.channels * config.patch))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, L), t (B,) in 1..T -> (B, C, L)."""
        after, time = self.trunk(x_t, t)
        scale, shift = self.time(time)[:, None].chunk(2, dim=-1)
        return self.trunk.join(self.leave(self.norm(after[-1]) * (1 + scale) + shift))


@dataclass(frozen=True)
class PartsConfig:
    """A Transformer whose answer is a sum of parts: polynomials of at most this degree, and top_k waves for each block."""

    body: TransformerConfig = field(default_factory=TransformerConfig)
    degree: int = 3
    top_k: int = 6
    rest: bool = False
    """A third part: what neither a polynomial nor the strongest waves of a signal can say."""

    def __post_init__(self) -> None:
        if self.degree < 0 or self.degree >= self.body.length:
            raise ConfigError(f"degree = {self.degree} must lie in 0..{self.body.length - 1}")
        if not 1 <= self.top_k <= self.body.length // 2:
            raise ConfigError(f"top_k = {self.top_k} must lie in 1..{self.body.length // 2}: a series has no more waves")


class Parts(NamedTuple):
    """Three series (B, C, L) whose sum is the answer."""

    trend: Tensor
    season: Tensor
    rest: Tensor


def polynomials(length: int, degree: int) -> Tensor:
    """Orthonormal polynomials of degrees 0..degree on `length` even steps, (degree + 1, length); the first is constant."""
    u = torch.linspace(-1, 1, length, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(torch.stack([u**k for k in range(degree + 1)], dim=1))
    return (basis * triangle.diagonal().sign()).T


def strongest_waves(x: Tensor, top_k: int) -> Tensor:
    """x (..., L) with all but its top_k strongest frequencies set to 0; the constant is no wave."""
    waves = torch.fft.rfft(x, norm="ortho")
    power = waves.abs().square()
    power = torch.cat([torch.zeros_like(power[..., :1]), power[..., 1:]], dim=-1)
    kept = torch.zeros_like(power).scatter(-1, power.topk(top_k, dim=-1).indices, 1.0)
    return torch.fft.irfft(waves * kept, n=x.shape[-1], norm="ortho")


class PartsTransformer(nn.Module):
    """Answers a series as trend + season (+ rest), and shows them: parts(x_t, t). Meant to predict x_0.   After Diffusion-TS section 3.

    Each block adds a polynomial, read off the mean of its words, and the strongest waves of a signal, read off the words.
    """

    def __init__(self, config: PartsConfig) -> None:
        super().__init__()
        self.config, body, numbers = config, config.body, config.body.channels * config.body.patch
        self.trunk, self.norm = Trunk(body), nn.LayerNorm(body.width)
        self.trend = nn.ModuleList(_silent(nn.Linear(body.width, body.channels * (config.degree + 1))) for _ in range(body.depth))
        self.season = nn.ModuleList(_silent(nn.Linear(body.width, numbers)) for _ in range(body.depth))
        self.rest = _silent(nn.Linear(body.width, numbers)) if config.rest else None
        self.register_buffer("basis", polynomials(body.length, config.degree).float(), persistent=False)

    def fit(self, x: Tensor) -> Tensor:
        """The best polynomial through x (B, C, L)."""
        return self.write((x[..., None, :] * self.basis).sum(-1))

    def write(self, coefficients: Tensor) -> Tensor:
        """Coefficients (B, C, degree + 1) as a curve (B, C, L); no matrix product, so it stays fp32 under autocast."""
        return (coefficients[..., None] * self.basis).sum(-2)

    def parts(self, x_t: Tensor, t: Tensor) -> Parts:
        """x_t (B, C, L), t (B,) in 1..T -> trend, season, rest (0 without one)."""
        after, _ = self.trunk(x_t, t)
        channels, config, trend, season = self.config.body.channels, self.config, 0.0, 0.0
        for h, polynomial, waves in zip(after, self.trend, self.season, strict=True):
            h = self.norm(h)
            trend = trend + self.write(polynomial(h.mean(1)).float().unflatten(1, (channels, -1)))
            signal = self.trunk.join(waves(h)).float()
            season = season + strongest_waves(signal - self.fit(signal), config.top_k)
        rest = torch.zeros_like(season)
        if self.rest is not None:
            signal = self.trunk.join(self.rest(self.norm(after[-1]))).float()
            signal = signal - self.fit(signal)
            rest = signal - strongest_waves(signal, config.top_k)
        return Parts(trend, season, rest)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, L), t (B,) in 1..T -> the sum of the parts, (B, C, L)."""
        trend, season, rest = self.parts(x_t, t)
        return trend + season + rest
