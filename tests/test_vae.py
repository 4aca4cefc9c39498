"""The variational autoencoder of chapter 04."""

import pytest
import torch

from ddpm_course import VAE, CourseError, vae_terms


def test_shapes_and_a_positive_variance() -> None:
    torch.manual_seed(0)
    vae, x = VAE((1, 4, 4), latent_dim=3, width=16), torch.randn(5, 1, 4, 4) * 3
    mean, var = vae.encode(x)
    assert mean.shape == var.shape == (5, 3) and bool((var > 0).all())
    assert vae.decode(torch.zeros(5, 3)).shape == (5, 1, 4, 4)


def test_it_learns() -> None:
    torch.manual_seed(0)
    vae, x = VAE((4,), latent_dim=2, width=16), torch.eye(4).repeat(16, 1) * 2 - 1
    optimizer, history = torch.optim.Adam(vae.parameters(), 1e-2), []
    for _ in range(120):
        loss = vae_terms(vae, x, torch.randn(64, 2), 0.1).total().mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.5 * history[0]


def test_no_latent_is_refused() -> None:
    with pytest.raises(CourseError, match="latent_dim = 0"):
        VAE(latent_dim=0)
