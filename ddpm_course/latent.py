"""Latent diffusion: what stands between pictures and the latents that a DDPM works on.   LDM section 3.

A latent is just another x: schedules, networks, training and samplers know nothing of this module, and nothing of pictures.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import Trained, describe, load_model, load_tensors, rebuild, save_tensors
from .data import Latents, Split, Splits, as_float
from .errors import CheckpointError, DataError, ShapeError
from .forward import draw
from .models import UNet

AT_ONCE = 500  # pictures that go through the VAE at a time


@dataclass(frozen=True)
class Codec:
    """A VAE, and the mean and standard deviation of each latent channel (C,) over training pictures, which are taken off and put back.

    The DDPM sees latents of mean 0 and standard deviation 1, the data that schedules are made for.   LDM section 4.3.2.
    """

    vae: nn.Module
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise ShapeError(f"mean and std must be (C,), one number a channel, got {tuple(self.mean.shape)} and {tuple(self.std.shape)}")
        if not bool((self.std > 0).all()):
            raise DataError(f"a latent channel has standard deviation {float(self.std.min()):.3g}: it carries nothing; leave it out")

    def _table(self, values: Tensor, like: Tensor) -> Tensor:
        return values.to(like).reshape(1, -1, *[1] * (like.ndim - 2))

    @torch.no_grad()
    def posterior(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(z | x_0) for standardised z, each (B, C, h, w)."""
        parts = [self.vae.encode(part) for part in x_0.split(AT_ONCE)]
        mean, var = (torch.cat(column) for column in zip(*parts, strict=True))
        return (mean - self._table(self.mean, mean)) / self._table(self.std, mean), var / self._table(self.std, var) ** 2

    def encode(self, x_0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standardised latents (B, C, h, w) of pictures: the mean of q(z | x_0), or a draw from it if there is a generator."""
        mean, var = self.posterior(x_0)
        return mean if generator is None else mean + var.sqrt() * draw(mean.shape, mean, generator)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Pictures (B, ...) in [-1, 1] of standardised latents: the scale is undone first."""
        raw = z * self._table(self.std, z) + self._table(self.mean, z)
        return torch.cat([self.vae.decode(part) for part in raw.split(AT_ONCE)])

    def to(self, device: torch.device | str) -> "Codec":
        """The same codec with its network on this device (the network is moved, not copied)."""
        return replace(self, vae=self.vae.to(device))


@torch.no_grad()
def fit_codec(vae: nn.Module, images: Tensor) -> Codec:
    """Mean and standard deviation of each latent channel over these pictures and all draws from q(z | x_0), without drawing any.

    The variance of a draw is the variance of the means plus the mean of the variances.   LDM section 4.3.2.
    """
    mean, var = Codec(vae, torch.zeros(1), torch.ones(1)).posterior(images)
    axes = [0, *range(2, mean.ndim)]
    spread = mean.double().var(axes, unbiased=False) + var.double().mean(axes)
    return Codec(vae, mean.double().mean(axes).float().cpu(), spread.sqrt().float().cpu())


def encode_data(codec: Codec, splits: Splits, generator: torch.Generator | None = None, copies: int = 1) -> Latents:
    """The latents of all three parts with their labels, ready for train(): means, or with a generator `copies` draws a training picture."""
    if copies < 1 or (copies > 1 and generator is None):
        raise DataError(f"copies = {copies}: give at least 1, and a generator if more, since all means of a picture are equal")

    def encoded(part: Split, times: int) -> Split:
        """One part; its pictures go through the encoder once, however many draws are wanted."""
        mean, var = codec.posterior(as_float(part.images))
        draws = [mean if generator is None else mean + var.sqrt() * draw(mean.shape, mean, generator) for _ in range(times)]
        return Split(torch.cat(draws), part.labels.repeat(times))

    return Latents(encoded(splits.train, copies), encoded(splits.val, 1), encoded(splits.test, 1))


def save_codec(folder: str | Path, codec: Codec, meta: dict[str, Any], half: bool = False) -> None:
    """Save a codec whose VAE is a ConvVAE as vae.json and its weights, beside the model of its latents; `half` stores fp16."""
    weights = {key: x.half() if half else x for key, x in codec.vae.state_dict().items()}
    save_tensors(folder, "vae", weights | {"codec.mean": codec.mean, "codec.std": codec.std}, describe(codec.vae) | meta)


def load_codec(folder: str | Path) -> Codec:
    """The codec that save_codec wrote into this folder, on the CPU, float32, in eval mode; for a shipped one: shipped("mnist-latent")."""
    weights, meta = load_tensors(folder, "vae")
    try:
        mean, std = weights.pop("codec.mean"), weights.pop("codec.std")
        return Codec(rebuild(weights, meta), mean, std)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds no codec that save_codec wrote: {error}; train again, or see shipped()") from error


def load_with_codec(folder: str | Path) -> tuple[Trained, Codec | None]:
    """The model of pictures in this folder, and the codec beside it if its samples are latents. CheckpointError for other networks."""
    trained = load_model(folder)
    if not isinstance(trained.net, UNet) or trained.net.config.condition_channels or trained.net.config.context_dim:
        raise CheckpointError(
            f"{folder} draws no pictures by itself (a {type(trained.net).__name__}): it needs a caption, a small picture, or draws series; "
            "chapters 18, 19 and 20 sample from such networks"
        )
    return trained, load_codec(folder) if Path(folder, "vae.json").exists() else None
