"""The U-Net of the paper: residual blocks, attention at chosen sizes, skip connections by concatenation.   Ho appendix B."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError, ShapeError, one_of
from .blocks import Attention, Downsample, Merge, ResBlock, Upsample, group_norm, timestep_embedding
from .norm import silu


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net. Sizes are in pixels of the picture; patch_size p folds p x p pixels into channels first."""

    image_size: int = 32
    channels: int = 3
    base_channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_sizes: tuple[int, ...] = (16,)  # feature maps of these heights get attention
    num_heads: int = 1
    groups: int = 32
    dropout: float = 0.0
    patch_size: int = 1
    middle_attention: bool = True
    skip: Literal["concat", "add", "none"] = "concat"
    upsample: Literal["nearest", "bilinear", "transposed"] = "nearest"
    time_as: Literal["add", "scale_shift", "none"] = "add"
    num_classes: int = 0  # > 0: takes labels y, and num_classes itself means "no label"
    context_dim: int = 0  # > 0: takes a context (B, L, context_dim), such as the words of a caption
    condition_channels: int = 0  # > 0: takes a picture (B, condition_channels, H, W) beside x_t, such as a blurred one
    pad: bool = False  # any H and W: pad at the right and bottom, and cut the answer back
    checkpointing: bool = False  # compute activations again in the backward pass: less memory, a sixth more work

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            one_of(name, getattr(self, name), known)
        if self.image_size < self.multiple or (self.image_size % self.multiple and not self.pad):
            raise ConfigError(
                f"image_size {self.image_size} cannot be halved {len(self.multipliers) - 1} times after patches of "
                f"{self.patch_size}: use a multiple of {self.multiple}, fewer multipliers, or pad=True"
            )
        if any(self.base_channels * m % self.num_heads for m in self.multipliers):
            raise ConfigError(f"num_heads = {self.num_heads} must divide every level's channels {self.level_channels()}")
        if self.base_channels % 2 or self.base_channels < 4:
            raise ConfigError(f"base_channels = {self.base_channels} must be even and at least 4")

    @property
    def multiple(self) -> int:
        """H and W have to be multiples of this, so that they can be halved at every level."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)

    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, top to bottom."""
        return tuple(self.base_channels * m for m in self.multipliers)

    def level_sizes(self) -> tuple[int, ...]:
        """Height of each level's feature maps, top to bottom."""
        padded = -(-self.image_size // self.multiple) * self.multiple
        return tuple(padded // self.patch_size // 2**i for i in range(len(self.multipliers)))

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

    @classmethod
    def celebahq(cls) -> "UNetConfig":
        """The DDPM network for 256x256 colour pictures: 113,673,219 parameters.   Ho appendix B."""
        return cls(image_size=256, multipliers=(1, 1, 2, 2, 4, 4))


CHOICES = {"skip": ("concat", "add", "none"), "upsample": ("nearest", "bilinear", "transposed"), "time_as": ("add", "scale_shift", "none")}


class UNet(nn.Module):
    """Predicts eps (or v, or x_0) from x_t (B, C, H, W) and t (B,) in 1..T; the answer has the shape of x_t.   Ho appendix B."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        base, widths, fold = config.base_channels, config.level_channels(), config.patch_size**2
        self.time = nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, 4 * base))
        self.classes = nn.Embedding(config.num_classes + 1, 4 * base) if config.num_classes else None
        self.conv_in = nn.Conv2d((config.channels + config.condition_channels) * fold, base, 3, padding=1)
        self.down, skips = self._encoder()
        middle = self._attention(widths[-1]) if config.middle_attention else nn.Identity()
        self.middle = nn.ModuleList([self._res(widths[-1], widths[-1]), middle, self._res(widths[-1], widths[-1])])
        self.up = self._decoder(skips)
        self.norm_out, self.conv_out = group_norm(widths[0], config.groups), nn.Conv2d(widths[0], config.channels * fold, 3, padding=1)

    def _res(self, in_channels: int, out_channels: int) -> ResBlock:
        config = self.config
        return ResBlock(in_channels, out_channels, 4 * config.base_channels, config.groups, config.dropout, config.time_as)

    def _attention(self, channels: int) -> Attention:
        return Attention(channels, self.config.groups, self.config.num_heads, self.config.context_dim)

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
        """The mirror image: one block more a level, each fed with its own features and the encoder's."""
        widths, blocks, skips = self.config.level_channels(), nn.ModuleList(), list(skips)
        width = widths[-1]
        for level in reversed(range(len(widths))):
            for _ in range(self.config.num_res_blocks + 1):
                merge = Merge(self.config.skip, width, skips.pop())
                width = widths[level]
                blocks.append(nn.ModuleList([self._res(merge.out_channels, width), self._attention_at(level, width), merge]))
            if level > 0:
                blocks.append(Upsample(width, self.config.upsample))
        return blocks

    def _check(self, x_t: Tensor, t: Tensor) -> None:
        C, multiple = self.config.channels, self.config.multiple
        if x_t.ndim != 4 or x_t.shape[1] != C or (not self.config.pad and (x_t.shape[2] % multiple or x_t.shape[3] % multiple)):
            sizes = "" if self.config.pad else f" with H and W multiples of {multiple} (any size: pad=True)"
            raise ShapeError(f"this U-Net takes pictures (B, {C}, H, W){sizes}, got {tuple(x_t.shape)}")
        if t.shape != x_t.shape[:1]:
            raise ShapeError(f"t must have one entry a picture, ({len(x_t)},), got {tuple(t.shape)}; use torch.full((B,), t)")

    def _time(self, t: Tensor, y: Tensor | None) -> Tensor:
        """What every residual block is told: the time, and the class where there is one. (B, 4 base_channels)."""
        time = self.time(timestep_embedding(t, self.config.base_channels).to(self.time[0].weight.dtype))
        if self.classes is None:
            return time
        return time + self.classes(torch.full_like(t, self.config.num_classes) if y is None else y)

    def _pair(self, res: nn.Module, attention: nn.Module, h: Tensor, time: Tensor, words: tuple[Tensor | None, ...]) -> Tensor:
        """A residual block, then attention where there is some."""
        h = checkpoint(res, h, time, use_reentrant=False) if self.config.checkpointing and self.training else res(h, time)
        return attention(h, *words) if isinstance(attention, Attention) else h

    def _enter(self, x_t: Tensor, condition: Tensor | None) -> Tensor:
        """The picture, the condition beside it, padded and folded: (B, channels p^2, H/p, W/p)."""
        if (condition is not None) != bool(self.config.condition_channels):
            raise ShapeError(f"condition_channels = {self.config.condition_channels}: pass condition= if and only if that is > 0")
        x = x_t if condition is None else torch.cat([x_t, condition], dim=1)
        bottom, right = (-size % self.config.multiple for size in x.shape[2:])
        return F.pixel_unshuffle(F.pad(x, (0, right, 0, bottom)) if bottom or right else x, self.config.patch_size)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """x_t (B, C, H, W), t (B,) in 1..T -> the prediction, shaped like x_t.

        y (B,) labels; context (B, L, context_dim) with mask (B, L); condition (B, condition_channels, H, W).
        """
        self._check(x_t, t)
        time, words = self._time(t, y), (context, mask)
        h = self.conv_in(self._enter(x_t, condition))
        skips = [h]
        for block in self.down:  # the encoder: ever coarser, ever more channels
            h = block(h) if isinstance(block, Downsample) else self._pair(block[0], block[1], h, time, words)
            skips.append(h)
        h = self.middle[2](self._pair(self.middle[0], self.middle[1], h, time, words), time)
        for block in self.up:  # the decoder: what the encoder saw at this size comes back
            h = block(h) if isinstance(block, Upsample) else self._pair(block[0], block[1], block[2](h, skips.pop()), time, words)
        return F.pixel_shuffle(self.conv_out(silu(self.norm_out(h))), self.config.patch_size)[:, :, : x_t.shape[2], : x_t.shape[3]]
