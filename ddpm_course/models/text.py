"""Text to image: a Transformer reads the words of a caption, and the U-Net's pixels look at them through cross-attention."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from .blocks import attend
from .unet import UNet, UNetConfig


def captions_unet() -> UNetConfig:
    """32x32 colour pictures in 2x2 patches, attention among 8x8 places and from each to the words: a CPU trains it in an hour or so."""
    small = UNetConfig(base_channels=56, multipliers=(1, 2), num_res_blocks=1, attention_sizes=(8,), num_heads=7, groups=8)
    return replace(small, patch_size=2, context_dim=56)


@dataclass(frozen=True)
class TextUNetConfig:
    """A U-Net with context_dim > 0, and the encoder of the words that it is told; word 0 is padding."""

    unet: UNetConfig = field(default_factory=captions_unet)
    vocabulary: int = 32
    length: int = 12  # words a caption has at most
    layers: int = 2
    heads: int = 7
    pooled: bool = False  # the U-Net gets the mean of the words, one vector, and has nothing to choose from

    def __post_init__(self) -> None:
        if self.unet.context_dim < 1 or self.unet.context_dim % self.heads:
            raise ConfigError(f"the U-Net's context_dim = {self.unet.context_dim} must be a multiple of heads = {self.heads}, above 0")
        if self.vocabulary < 2 or self.length < 1 or self.layers < 0:
            raise ConfigError(f"vocabulary {self.vocabulary}, length {self.length}, layers {self.layers}: need at least 2, 1 and 0")


class TextBlock(nn.Module):
    """Each word looks at all words of its caption, then thinks for itself: attention and two layers, each added.   (B, L, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, width), mask (B, L) True for words that count -> (B, L, width)."""
        B, L, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).reshape(B, L, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(q, k, v, mask).transpose(1, 2).reshape(B, L, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class TextEncoder(nn.Module):
    """Word numbers (B, L) -> what each word means in its caption, (B, L, width), and which are words at all, (B, L)."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(length, width))  # as loud as the words
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, L) long, 0 for padding -> (B, L, width), (B, L) boolean."""
        if tokens.ndim != 2 or tokens.shape[1] > len(self.places):
            raise ShapeError(
                f"tokens are word numbers (B, L) with L <= {len(self.places)}, got {tuple(tokens.shape)}; see captions.tokenize"
            )
        mask = tokens != 0
        if tokens.device.type == "cpu" and not mask.any(1).all():  # a GPU would have to be waited for
            raise ShapeError("a caption without any word: give '' to captions.tokenize, which makes it <null>")
        x = self.words(tokens) + self.places[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return x, mask


class TextUNet(nn.Module):
    """Predicts eps (or v, or x_0) from x_t (B, C, H, W), t (B,) in 1..T and the words of a caption.   LDM section 3.3."""

    def __init__(self, config: TextUNetConfig) -> None:
        super().__init__()
        self.config, self.unet = config, UNet(config.unet)
        self.text = TextEncoder(config.vocabulary, config.length, config.unet.context_dim, config.layers, config.heads)

    def context(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the U-Net is told: a vector for each word (B, L, context_dim) and their mask; with `pooled` their mean alone, L = 1."""
        words, mask = self.text(tokens)
        if not self.config.pooled:
            return words, mask
        share = mask[:, :, None].to(words.dtype)
        return (words * share).sum(1, keepdim=True) / share.sum(1, keepdim=True), mask[:, :1]

    def forward(self, x_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """x_t (B, C, H, W), t (B,), tokens (B, L) long -> the prediction, shaped like x_t."""
        if len(tokens) != len(x_t):
            raise ShapeError(f"{len(tokens)} captions for {len(x_t)} pictures: give one each")
        words, mask = self.context(tokens)
        return self.unet(x_t, t, context=words, mask=mask)


class SceneJudge(nn.Module):
    """Pictures (B, 3, 32, 32) in [-1, 1] -> logits of layout, and of digit, colour and size of two things, upper or left one first.

    The ruler of chapter 18: trained apart, on real pictures. see() gives canonical scenes, as captions.canonical.
    """

    def __init__(self, heads: tuple[int, ...] = (7, 10, 6, 2, 10, 6, 2), width: int = 32, places: int = 5) -> None:
        super().__init__()
        self.heads, self.places, chain, before = heads, places, [], 3
        for k, out in enumerate((width, width, 2 * width, 2 * width, 3 * width)):
            chain += [nn.Conv2d(before, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU(), *([nn.MaxPool2d(2)] if k % 2 else [])]
            before = out
        self.body = nn.Sequential(*chain)  # 32 -> 16 -> 8
        self.squeeze = nn.Conv2d(before, width, 1)
        self.hidden, self.out = nn.Linear(width * 64, 4 * width), nn.Linear(4 * width, sum(heads))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One tensor of logits (B, choices) for each of the seven columns of a scene; dropout while training."""
        if x.ndim != 4 or x.shape[1:] != (3, 32, 32):
            raise ShapeError(f"the judge looks at pictures (B, 3, 32, 32), got {tuple(x.shape)}")
        h = F.silu(self.hidden(F.silu(self.squeeze(self.body(x))).flatten(1)))
        return self.out(F.dropout(h, 0.2, self.training)).split(self.heads, dim=1)

    @torch.no_grad()
    def see(self, x: Tensor) -> Tensor:
        """The most likely canonical scene in each picture, (B, 7) long; -1 for the second thing where the layout has one thing."""
        seen = torch.stack([logits.argmax(1) for logits in self.eval()(x)], 1)
        seen[seen[:, 0] < self.places, 4:] = -1
        return seen
