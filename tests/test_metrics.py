"""Distances between sets against their closed forms, and the ruler they are measured with."""

import math

import pytest
import torch

from ddpm_course import CourseError
from ddpm_course.checkpoint import load_classifier
from ddpm_course.data import digits
from ddpm_course.errors import ConfigError, DataError, NonFiniteError, ShapeError
from ddpm_course.metrics import (
    class_test,
    frechet_distance,
    inception_features,
    kernel_distance,
    nearest,
    precision,
    recall,
    two_sample_test,
)
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


def cloud(n: int, seed: int, dim: int = 2, shift: float = 0.0) -> torch.Tensor:
    """n standard normal points, shifted."""
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_frechet_distance_of_two_laws_comes_close_to_theirs_and_its_floor_falls_like_one_over_n() -> None:
    wanted = 9 + 2 * (1 - 1.5) ** 2
    assert frechet_distance(cloud(20_000, 0), 1.5 * cloud(20_000, 1) + torch.tensor([3.0, 0.0])) == pytest.approx(wanted, rel=0.02)
    mean = lambda n: sum(frechet_distance(cloud(n, 2 * k, 4), cloud(n, 2 * k + 1, 4)) for k in range(60)) / 60  # noqa: E731
    floors = [mean(n) for n in (100, 400)]
    assert floors[0] / floors[1] == pytest.approx(4, rel=0.2)
    assert floors[1] == pytest.approx(4 * (4 + 5) / (2 * 400), rel=0.15)  # D (D + 5) / 2n for N(0, I)


def test_frechet_distance_refuses_fewer_samples_than_features() -> None:
    with pytest.raises(DataError, match="n = 64 is too few for 64 features"):
        frechet_distance(cloud(64, 0, 64), cloud(200, 1, 64))
    assert frechet_distance(cloud(65, 0, 64), cloud(200, 1, 64)) > 0


def by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
    """The unbiased estimate, pair by pair."""
    k = lambda x, y: (float(x @ y) / len(x) + 1) ** 3  # noqa: E731
    n = len(a)
    within = sum(k(s[i], s[j]) for s in (a, b) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within - 2 * sum(k(x, y) for x in a for y in b) / n**2


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    a, b = cloud(12, 0, 3), cloud(12, 1, 3, 0.5)
    assert kernel_distance(a, b) == pytest.approx(by_hand(a, b), rel=1e-9)
    assert kernel_distance(a, b[:9]) == pytest.approx(by_hand(a[:9], b[:9]), rel=1e-9)


def test_kernel_distance_is_unbiased_about_zero_where_the_frechet_distance_is_not() -> None:
    pairs = [(cloud(40, 2 * k, 3), cloud(40, 2 * k + 1, 3)) for k in range(150)]
    kernel, frechet = (torch.tensor([f(a, b) for a, b in pairs]) for f in (kernel_distance, frechet_distance))
    error = lambda x: float(x.std()) / len(x) ** 0.5  # noqa: E731
    assert abs(float(kernel.mean())) < 3 * error(kernel) and float(kernel.min()) < 0 < float(kernel.max())
    assert float(frechet.mean()) > 20 * error(frechet)


def test_kernel_distance_of_two_normals_has_its_closed_form() -> None:
    m, s = 0.8, 0.5  # with (xy + 1)^3 the distance is 3, 3, 1 times the squared differences of the first three moments
    wanted = 3 * m**2 + 3 * (1 - m**2 - s**2) ** 2 + (m**3 + 3 * m * s**2) ** 2
    values = torch.tensor([kernel_distance(cloud(500, 2 * k, 1), m + s * cloud(500, 2 * k + 1, 1)) for k in range(60)])
    assert abs(float(values.mean()) - wanted) < 4 * float(values.std()) / 60**0.5


def test_kernel_distance_leaves_the_global_random_numbers_alone(recwarn: pytest.WarningsRecorder) -> None:
    state = torch.random.get_rng_state()
    kernel_distance(cloud(20, 0), cloud(20, 1))
    assert torch.equal(state, torch.random.get_rng_state()) and not list(recwarn)


def test_precision_and_recall_of_identical_and_of_disjoint_sets() -> None:
    a = cloud(200, 0)
    assert precision(a, a) == recall(a, a) == 1
    assert precision(a, a + 50) == recall(a, a + 50) == 0


def test_precision_and_recall_tell_missing_modes_from_bad_samples() -> None:
    real = torch.cat([cloud(200, 0) / 10 - 2, cloud(200, 1) / 10 + 2])
    one_mode = cloud(400, 2) / 10 - 2
    everywhere = 8 * torch.rand(400, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 4
    assert precision(real, one_mode) > 0.9 and 0.4 < recall(real, one_mode) < 0.6
    assert precision(real, everywhere) < 0.2 and recall(real, everywhere) > 0.8


def test_precision_on_a_line_by_counting() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii to the second neighbour: 3, 2, 3, 9
    fake = torch.tensor([[-3.0], [-3.1], [6.5], [19.1], [18.9]])  # 6.5 and 18.9 lie within 9 of the last point
    assert precision(real, fake, k=2) == pytest.approx(3 / 5)
    assert recall(fake, real, k=2) == precision(real, fake, k=2)


def test_two_sample_test_is_at_chance_for_one_law_and_near_one_for_two() -> None:
    results = [two_sample_test(cloud(150, 2 * k), cloud(150, 2 * k + 1), seed=k) for k in range(6)]
    mean, error = sum(r.accuracy for r in results) / 6, results[0].standard_error
    assert error == pytest.approx(0.5 / 150**0.5) and abs(mean - 0.5) < 4 * error / 6**0.5
    assert sum(r.p_value < 0.01 for r in results) <= 1
    far = two_sample_test(cloud(150, 0), cloud(150, 1, shift=8.0))
    assert far.accuracy > 0.99 and far.p_value < 1e-20 and "n = 150" in str(far) and float(far) == far.accuracy


def test_two_sample_test_sees_what_two_moments_do_not() -> None:
    angle = 2 * math.pi * torch.rand(600, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ring = 2**0.5 * torch.stack([angle.cos(), angle.sin()], 1)  # mean 0 and covariance I, like the cloud
    assert frechet_distance(ring, cloud(600, 5)) < 0.05 and two_sample_test(ring, cloud(600, 5)).p_value < 1e-20


def test_two_sample_test_takes_another_classifier() -> None:
    class Coin:
        def fit(self, x: object, y: object) -> "Coin":
            return self

        def score(self, x: object, y: object) -> float:
            return 0.54

    result = two_sample_test(cloud(100, 0), cloud(100, 1), classifier=Coin())
    assert result.p_value == pytest.approx(0.5 * math.erfc(0.8 / 2**0.5)) and result.n == 100


def test_nearest_finds_the_nearest() -> None:
    train, x = torch.randn(30, 1, 4, 4), torch.randn(7, 1, 4, 4)
    distance, which = nearest(x, train, chunk=3)
    every = torch.stack([((one - train) ** 2).flatten(1).sum(1).sqrt() for one in x])
    assert torch.allclose(distance, every.min(1).values.double(), atol=1e-5) and torch.equal(which, every.argmin(1))
    assert torch.equal(nearest(train[5:9], train)[0], torch.zeros(4, dtype=torch.float64))


def test_class_test_against_scipy() -> None:
    from scipy.stats import chi2_contingency

    a, b = torch.tensor([0] * 20 + [1] * 30 + [3] * 50), torch.tensor([0] * 40 + [1] * 40 + [3] * 90)
    wanted = chi2_contingency([[20, 30, 50], [40, 40, 90]], correction=False)
    result = class_test(a, b)
    assert (result.chi2, result.dof, result.n) == (pytest.approx(wanted.statistic), 2, (100, 170))
    assert result.p_value == pytest.approx(wanted.pvalue) and "p = " in str(result) and float(result) == result.chi2
    assert class_test(a, a).p_value == pytest.approx(1.0)


def test_inception_features_take_any_network() -> None:
    seen: list[torch.Tensor] = []

    def stand_in(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return pixels.double().flatten(2).mean(2)

    grey = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    features = inception_features(stand_in, batch_size=2)
    out = features(grey)
    assert [tuple(x.shape) for x in seen] == [(2, 3, 8, 8), (1, 3, 8, 8)] and seen[0].dtype == torch.uint8
    assert torch.equal(out, torch.tensor([[0.0], [128.0], [255.0]], dtype=torch.float64).expand(3, 3))
    pictures = torch.rand(40, 3, 8, 8) * 2 - 1
    assert frechet_distance(features(pictures), features(pictures)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(CourseError, match="Inception takes pictures"):
        features(torch.zeros(2, 4, 8, 8))


def test_inception_without_its_package_names_the_extra() -> None:
    pytest.importorskip("torchmetrics")
    try:
        import torch_fidelity  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ConfigError, match="inception"):
            inception_features()
    else:
        pytest.skip("torch-fidelity is installed: it would download weights")


def test_metrics_refuse_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="floating-point"):
        precision(torch.zeros(9, 2, dtype=torch.uint8), torch.zeros(9, 2, dtype=torch.uint8))
    with pytest.raises(NonFiniteError, match="NaN"):
        kernel_distance(cloud(9, 0) * float("nan"), cloud(9, 1))
    with pytest.raises(DataError, match="n = 3 samples are too few here: give at least 4"):
        precision(cloud(3, 0), cloud(9, 1))
    with pytest.raises(DataError, match="at least 10"):
        two_sample_test(cloud(9, 0), cloud(9, 1))
    with pytest.raises(ShapeError, match="equal shape"):
        nearest(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="labels are whole numbers"):
        class_test(torch.zeros(5), torch.zeros(5))
    with pytest.raises(DataError, match="too few labels"):
        class_test(torch.zeros(5).long(), torch.zeros(5).long())
