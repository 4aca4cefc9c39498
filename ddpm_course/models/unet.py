"""The U-Net of the paper: residual blocks, attention at chosen sizes, skip connections by concatenation.   Ho appendix B."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from .blocks import Attention, Downsample, ResBlock, Upsample, group_norm, timestep_embedding


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net. Sizes are in pixels of the picture; patch_size p folds p x p pixels into channels first."""

    image_size: int = 32
    channels: int = 3
    base_channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_sizes: tuple[int, ...] = (16,)  # feature maps of these heights get attention, and so does the middle
    num_heads: int = 1
    groups: int = 32
    dropout: float = 0.0
    patch_size: int = 1

    def __post_init__(self) -> None:
        halvings = self.patch_size * 2 ** (len(self.multipliers) - 1)
        if self.image_size % halvings:
            raise ConfigError(
                f"image_size {self.image_size} cannot be halved {len(self.multipliers) - 1} times after patches of "
                f"{self.patch_size}: use a multiple of {halvings}, or fewer multipliers"
            )
        if any(self.base_channels * m % self.num_heads for m in self.multipliers):
            raise ConfigError(f"num_heads = {self.num_heads} must divide every level's channels {self.level_channels()}")
        if self.base_channels % 2 or self.base_channels < 4:
            raise ConfigError(f"base_channels = {self.base_channels} must be even and at least 4")

    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, top to bottom."""
        return tuple(self.base_channels * m for m in self.multipliers)

    def level_sizes(self) -> tuple[int, ...]:
        """Height of each level's feature maps, top to bottom."""
        return tuple(self.image_size // self.patch_size // 2**i for i in range(len(self.multipliers)))

    @classmethod
    def digits(cls) -> "UNetConfig":
        """8x8 grey digits: small enough to train in a notebook on a CPU."""
        return cls(image_size=8, channels=1, base_channels=32, multipliers=(1, 2), num_res_blocks=1, attention_sizes=(4,), groups=8)

    @classmethod
    def mnist(cls) -> "UNetConfig":
        """28x28 grey digits in 2x2 patches: a CPU trains it in about an hour."""
        return cls(image_size=28, channels=1, base_channels=32, multipliers=(1, 2), attention_sizes=(7,), groups=8, patch_size=2)

    @classmethod
    def cifar10(cls) -> "UNetConfig":
        """The DDPM network for 32x32 colour pictures: 35,746,307 parameters.   Ho appendix B."""
        return cls(dropout=0.1)


class UNet(nn.Module):
    """Predicts eps (or v, or x_0) from x_t (B, C, H, W) and t (B,) in 1..T; the answer has the shape of x_t.   Ho appendix B."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        base, widths, folded = config.base_channels, config.level_channels(), config.channels * config.patch_size**2
        self.time = nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, 4 * base))
        self.conv_in = nn.Conv2d(folded, base, 3, padding=1)
        self.down, skips = self._encoder()
        self.middle = nn.ModuleList([self._res(widths[-1], widths[-1]), self._attention(widths[-1]), self._res(widths[-1], widths[-1])])
        self.up = self._decoder(skips)
        self.norm_out, self.conv_out = group_norm(base, config.groups), nn.Conv2d(base, folded, 3, padding=1)

    def _res(self, in_channels: int, out_channels: int) -> ResBlock:
        return ResBlock(in_channels, out_channels, 4 * self.config.base_channels, self.config.groups, self.config.dropout)

    def _attention(self, channels: int) -> Attention:
        return Attention(channels, self.config.groups, self.config.num_heads)

    def _attention_at(self, level: int, channels: int) -> nn.Module:
        return self._attention(channels) if self.config.level_sizes()[level] in self.config.attention_sizes else nn.Identity()

    def _encoder(self) -> tuple[nn.ModuleList, list[int]]:
        """Blocks from top to bottom, and the channels of every feature map that the decoder will see again."""
        widths, width = self.config.level_channels(), self.config.base_channels
        blocks, skips = nn.ModuleList(), [width]
        for level, out in enumerate(widths):
            for _ in range(self.config.num_res_blocks):
                blocks.append(nn.ModuleList([self._res(width, out), self._attention_at(level, out)]))
                width = out
                skips.append(width)
            if level < len(widths) - 1:
                blocks.append(Downsample(width))
                skips.append(width)
        return blocks, skips

    def _decoder(self, skips: list[int]) -> nn.ModuleList:
        """The mirror image: one block more a level, each fed with its own features beside the encoder's."""
        widths, blocks, skips = self.config.level_channels(), nn.ModuleList(), list(skips)
        width = widths[-1]
        for level in reversed(range(len(widths))):
            for _ in range(self.config.num_res_blocks + 1):
                blocks.append(nn.ModuleList([self._res(width + skips.pop(), widths[level]), self._attention_at(level, widths[level])]))
                width = widths[level]
            if level > 0:
                blocks.append(Upsample(width))
        return blocks

    def _check(self, x_t: Tensor, t: Tensor) -> None:
        wanted = (self.config.channels, self.config.image_size, self.config.image_size)
        if tuple(x_t.shape[1:]) != wanted:
            raise ShapeError(f"this U-Net takes pictures (B, {', '.join(map(str, wanted))}), got {tuple(x_t.shape)}")
        if t.shape != x_t.shape[:1]:
            raise ShapeError(f"t must have one entry a picture, ({len(x_t)},), got {tuple(t.shape)}; use torch.full((B,), t)")

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, H, W), t (B,) in 1..T -> the prediction, shaped like x_t."""
        self._check(x_t, t)
        time = self.time(timestep_embedding(t, self.config.base_channels).to(self.time[0].weight.dtype))
        h = self.conv_in(F.pixel_unshuffle(x_t, self.config.patch_size))
        skips = [h]
        for block in self.down:  # the encoder: ever coarser, ever more channels
            h = block(h) if isinstance(block, Downsample) else block[1](block[0](h, time))
            skips.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, time)), time)
        for block in self.up:  # the decoder: what the encoder saw at this size comes back
            h = block(h) if isinstance(block, Upsample) else block[1](block[0](torch.cat([h, skips.pop()], dim=1), time))
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.config.patch_size)
