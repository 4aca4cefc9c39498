"""A small variational autoencoder: the case of one latent, before there were a thousand.   VAE sections 2-3."""

import torch
from torch import Tensor, nn

from ..errors import ConfigError


class VAE(nn.Module):
    """Gaussian encoder q(z | x_0) and decoder mean of p(x_0 | z) over flattened data.   x_0: (B, *event), z: (B, latent_dim)."""

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
