"""Fréchet distance against its closed form, and the ruler it is measured with."""

import math

import pytest
import torch

from ddpm_course import CourseError
from ddpm_course.checkpoint import load_classifier
from ddpm_course.data import digits
from ddpm_course.metrics import frechet_distance
from ddpm_course.models import Classifier


def whitened(n: int, seed: int) -> torch.Tensor:
    """n points in the plane whose sample mean is exactly 0 and whose sample covariance is exactly I."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T


def test_frechet_distance_of_two_gaussians_has_its_closed_form() -> None:
    a, b = whitened(50, 0), whitened(50, 1) * torch.tensor([2.0, 3.0]) + torch.tensor([1.0, -2.0])
    # |mean|^2 = 1 + 4; for commuting covariances the rest is the sum of (std_1 - std_2)^2 = 1 + 4
    assert frechet_distance(a, b) == pytest.approx(10.0, abs=1e-8)


def test_frechet_distance_sees_correlation() -> None:
    a = whitened(50, 0)
    rho = 0.6
    b = whitened(50, 1) @ torch.linalg.cholesky(torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)).T
    wanted = (1 - math.sqrt(1 + rho)) ** 2 + (1 - math.sqrt(1 - rho)) ** 2  # eigenvalues of b's covariance: 1 +- rho
    assert frechet_distance(a, b) == pytest.approx(wanted, abs=1e-8)


def test_frechet_distance_is_symmetric_and_zero_on_itself() -> None:
    a, b = torch.randn(60, 5), 2 * torch.randn(80, 5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [((5, 3), (5, 4)), ((1, 3), (5, 3)), ((5,), (5,))])
def test_frechet_distance_refuses_sets_that_do_not_fit(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(CourseError, match="features"):
        frechet_distance(torch.zeros(a), torch.zeros(b))


def test_the_shipped_ruler_reads_held_out_digits() -> None:
    net, test = load_classifier("digits"), digits().test
    assert float((net(test.images).argmax(1) == test.labels).float().mean()) > 0.97
    assert net.features(test.images).shape == (len(test.images), 64)


def test_the_ruler_puts_noise_far_beyond_the_floor() -> None:
    net, data = load_classifier("digits"), digits()
    held_out, train = data.test.images, data.train.images[: len(data.test.images)]
    floor = frechet_distance(net.features(train), net.features(held_out))
    noise = torch.randn(held_out.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert floor < 5 < frechet_distance(net.features(noise), net.features(held_out))


def test_classifier_names_the_shape_it_wants() -> None:
    with pytest.raises(CourseError, match=r"\(B, 1, H, W\)"):
        Classifier()(torch.zeros(2, 3, 8, 8))
