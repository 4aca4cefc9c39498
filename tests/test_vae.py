"""The variational autoencoders: the flat one of chapter 04, the convolutional one of chapter 21."""

import pytest
import torch

from ddpm_course import VAE, CourseError, vae_terms
from ddpm_course.models import ConvVAE, ConvVAEConfig


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


SMALL = ConvVAEConfig(image_size=12, latent_channels=3, base_channels=4, multipliers=(1, 2, 2), groups=2)


def test_a_latent_of_the_convolutional_one_is_a_small_picture() -> None:
    torch.manual_seed(0)
    vae, x = ConvVAE(SMALL), torch.rand(5, 1, 12, 12) * 2 - 1
    mean, var = vae.encode(x)
    assert SMALL.factor == 4 and mean.shape == var.shape == (5, *SMALL.latent_shape) == (5, 3, 3, 3)
    assert bool((var > 0).all())
    seen = vae.decode(20 * torch.randn(5, 3, 3, 3))
    assert seen.shape == x.shape and float(seen.detach().abs().max()) <= 1


def test_each_latent_pixel_sees_its_neighbourhood_only() -> None:
    """What is far away in the picture changes a latent through the group norms alone, so the nearest latent changes most."""
    torch.manual_seed(0)
    vae = ConvVAE(ConvVAEConfig(image_size=64, base_channels=4, multipliers=(1, 1, 1), groups=1)).eval()
    x = torch.rand(1, 1, 64, 64)
    other = x.clone()
    other[..., :4, :4] = -1
    with torch.no_grad():
        moved = (vae.encode(x)[0] - vae.encode(other)[0]).abs().sum(1)[0]
    assert float(moved[:3, :3].max()) > 5 * float(moved[8:, 8:].max())


def test_the_convolutional_one_learns_with_the_same_bound() -> None:
    torch.manual_seed(0)
    vae, x = ConvVAE(SMALL), torch.ones(16, 1, 12, 12)
    x[:8, :, :, :6] = -1
    optimizer, history = torch.optim.Adam(vae.parameters(), 5e-3), []
    for _ in range(40):
        terms = vae_terms(vae, x, torch.randn(16, *SMALL.latent_shape), 0.1)
        optimizer.zero_grad(), terms.total().mean().backward(), optimizer.step()
        history.append(float(terms.total().mean().detach()))
    assert terms.prior.shape == (16,) and history[-1] < 0.5 * history[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"image_size": 14}, "multiple of 4"), ({"latent_channels": 0}, "at least 1"), ({"multipliers": ()}, "at least 1")],
)
def test_shapes_that_cannot_be_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(CourseError, match=words):
        ConvVAEConfig(**wrong)


def test_pictures_and_latents_of_another_shape_are_refused() -> None:
    vae = ConvVAE(SMALL)
    with pytest.raises(CourseError, match=r"encodes batches \(B, 1, 12, 12\)"):
        vae.encode(torch.zeros(2, 1, 8, 8))
    with pytest.raises(CourseError, match=r"decodes batches \(B, 3, 3, 3\)"):
        vae.decode(torch.zeros(2, 3, 2, 2))
