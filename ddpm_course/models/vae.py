"""Variational autoencoders: a flat one, the case of one latent, and a convolutional one, whose latent is a small picture."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from .blocks import Downsample, ResBlock, Upsample, group_norm


class VAE(nn.Module):
    """Gaussian encoder q(z | x_0) and decoder mean of p(x_0 | z) over flattened data.   VAE sections 2-3.

    x_0: (B, *event), z: (B, latent_dim).
    """

    def __init__(self, event: tuple[int, ...] = (1, 8, 8), latent_dim: int = 8, width: int = 256) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ConfigError(f"latent_dim = {latent_dim} must be at least 1")
        self.event, self.latent_dim = event, latent_dim
        dim = torch.Size(event).numel()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, dim), nn.Unflatten(1, event)
        )

    def encode(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (not its root) of q(z | x_0), each (B, latent_dim)."""
        mean, log_var = self.encoder(x_0).chunk(2, dim=1)
        return mean, log_var.exp()

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x_0 | z), (B, *event)."""
        return self.decoder(z)


@dataclass(frozen=True)
class ConvVAEConfig:
    """Shape of a convolutional VAE: pictures (channels, image_size, image_size) -> latents; each multiplier after the first halves them."""

    image_size: int = 28
    channels: int = 1
    latent_channels: int = 4
    base_channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    groups: int = 8

    def __post_init__(self) -> None:
        if min(self.latent_channels, self.channels, len(self.multipliers)) < 1:
            raise ConfigError("channels, latent_channels and the number of multipliers must be at least 1")
        if self.image_size < self.factor or self.image_size % self.factor:
            raise ConfigError(
                f"image_size {self.image_size} cannot be halved {len(self.multipliers) - 1} times: use a multiple of {self.factor}, "
                "or fewer multipliers"
            )

    @property
    def factor(self) -> int:
        """How many pixels, across, become one latent pixel: LDM's f."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(latent_channels, height, width) of one latent."""
        return self.latent_channels, self.image_size // self.factor, self.image_size // self.factor


class ConvVAE(nn.Module):
    """Gaussian encoder q(z | x_0) and decoder mean of p(x_0 | z) by convolutions: a latent is a small picture.   LDM section 3.1.

    x_0: (B, C, H, W) in [-1, 1], z: (B, latent_channels, H/f, W/f). Fits vae_terms.
    """

    def __init__(self, config: ConvVAEConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.base_channels * m for m in config.multipliers]
        self.encoder = nn.ModuleList([nn.Conv2d(config.channels, widths[0], 3, padding=1), self._plain(widths[0], widths[0])])
        for narrow, wide in pairwise(widths):
            self.encoder += [Downsample(narrow), self._plain(narrow, wide)]
        self.encoder += self._leave(widths[-1], 2 * config.latent_channels)
        self.decoder = nn.ModuleList([nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1), self._plain(widths[-1], widths[-1])])
        for narrow, wide in reversed(list(pairwise(widths))):
            self.decoder += [Upsample(wide), self._plain(wide, narrow)]
        self.decoder += self._leave(widths[0], config.channels)

    def _plain(self, in_channels: int, out_channels: int) -> ResBlock:
        """The U-Net's block without a time."""
        return ResBlock(in_channels, out_channels, 0, self.config.groups, 0.0, "none")

    def _leave(self, in_channels: int, out_channels: int) -> list[nn.Module]:
        return [group_norm(in_channels, self.config.groups), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)]

    def _check(self, x: Tensor, event: tuple[int, ...], what: str) -> None:
        if tuple(x.shape[1:]) != event:
            raise ShapeError(f"this VAE {what} batches (B, {', '.join(map(str, event))}), got {tuple(x.shape)}")

    def encode(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (not its root) of q(z | x_0), each (B, latent_channels, H/f, W/f)."""
        self._check(x_0, (self.config.channels, self.config.image_size, self.config.image_size), "encodes")
        mean, log_var = _through(self.encoder, x_0).chunk(2, dim=1)
        return mean, log_var.clamp(-30, 20).exp()

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x_0 | z), (B, C, H, W), in [-1, 1]."""
        self._check(z, self.config.latent_shape, "decodes")
        return _through(self.decoder, z).tanh()


def _through(blocks: nn.ModuleList, h: Tensor) -> Tensor:
    """One block after the other; a ResBlock without a time ignores its second argument."""
    for block in blocks:
        h = block(h, h) if isinstance(block, ResBlock) else block(h)
    return h
