"""How far two sets of pictures are apart, as sets: formulas on features (n, D). scores.py adds n and the floor.

Features are what a network makes of pictures; for points in the plane they are the points themselves.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ConfigError, DataError, NonFiniteError, ShapeError

Features = Callable[[Tensor], Tensor]  # pictures (n, C, H, W) in [-1, 1] -> features (n, D)


def check_features(a: Tensor, b: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both sets in float64 on the CPU, if they are finite features (n, D) of one D with n >= least; typed errors otherwise."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ShapeError(f"two sets of features (n >= 2, D) are needed, got {tuple(a.shape)} and {tuple(b.shape)}")
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ShapeError(f"features must be floating-point, got {a.dtype} and {b.dtype}; pictures go through a feature network first")
    if min(len(a), len(b)) < least:
        raise DataError(f"n = {min(len(a), len(b))} samples are too few here: give at least {least}")
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise NonFiniteError("the features hold NaN or infinity; look at the samples first (see guard_finite)")
    return a, b


class _AsIs(nn.Module):
    """A feature network that is already applied: torchmetrics wants a module."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        """x itself."""
        return x


def _two_sets(metric: Any, a: Tensor, b: Tensor) -> Any:
    """What a torchmetrics metric says about two sets of features, in float64 and without touching the global random numbers."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # it warns that it keeps the features
        torch.manual_seed(0)
        metric = metric().set_dtype(torch.float64)
        metric.update(a, real=True)
        metric.update(b, real=False)
        return metric.compute()


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 sqrt(cov_a cov_b)) of features (n, D): 0 if both moments agree.   FID section 2.

    It falls with n even for equal laws: quote n, and the floor (two real sets at that n) beside it. Refuses n <= D.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = check_features(features_a, features_b)
    if min(len(a), len(b)) <= a.shape[1]:
        n, dim = min(len(a), len(b)), a.shape[1]
        raise DataError(f"n = {n} is too few for {dim} features: their covariance would be singular; give more than {dim} samples")
    return max(0.0, float(_two_sets(lambda: FrechetInceptionDistance(feature=_AsIs(a.shape[1])), a, b)))


def kernel_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Unbiased squared MMD of features (n, D) under the kernel (x.y / D + 1)^3; 0 on average for equal laws, so it may be negative.

    Takes the first n = min(n_a, n_b) of both.   KID section 3.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = check_features(features_a, features_b)
    n = min(len(a), len(b))
    make = lambda: KernelInceptionDistance(feature=_AsIs(a.shape[1]), subsets=1, subset_size=n)  # noqa: E731
    return float(_two_sets(make, a[:n], b[:n])[0])


def precision(real: Tensor, fake: Tensor, k: int = 3) -> float:
    """Share of fake (m, D) inside a ball around some real (n, D), its radius the distance to the k-th other real.   P&R section 3."""
    real, fake = check_features(real, fake, least=k + 1)
    radius = torch.cdist(real, real).kthvalue(k + 1).values  # the first neighbour of a point is the point itself
    return float((torch.cdist(fake, real) <= radius).any(1).double().mean())


def recall(real: Tensor, fake: Tensor, k: int = 3) -> float:
    """Share of real (n, D) inside a ball around some fake (m, D): precision with the roles exchanged.   P&R section 3."""
    return precision(fake, real, k)


@dataclass(frozen=True)
class TwoSample:
    """How often a classifier tells two sets apart on n points that it has not seen; by chance 1/2 +- standard_error."""

    accuracy: float
    n: int
    standard_error: float
    p_value: float

    def __str__(self) -> str:
        """All four numbers."""
        chance = f"chance 0.50 ± {self.standard_error:.2f}; p = {self.p_value:.2g}"
        return f"accuracy {self.accuracy:.2f} on n = {self.n} unseen points ({chance})"

    def __float__(self) -> float:
        """The accuracy."""
        return self.accuracy


def two_sample_test(features_a: Tensor, features_b: Tensor, seed: int = 0, classifier: Any = None) -> TwoSample:
    """Train a classifier (scikit-learn; a forest by default) on one half of both sets, and ask it about the other.   C2ST section 3.

    The p-value is that of an accuracy this high or higher if both laws are equal. Takes the first n = min(n_a, n_b) of both.
    """
    from sklearn.ensemble import RandomForestClassifier

    a, b = check_features(features_a, features_b, least=10)
    n = min(len(a), len(b))
    order = torch.randperm(2 * n, generator=torch.Generator().manual_seed(seed))
    x, y = torch.cat([a[:n], b[:n]])[order].numpy(), (order >= n).long().numpy()
    classifier = classifier or RandomForestClassifier(100, min_samples_leaf=2, random_state=seed)
    accuracy = float(classifier.fit(x[:n], y[:n]).score(x[n:], y[n:]))
    error = 0.5 / n**0.5
    return TwoSample(accuracy, n, error, 0.5 * math.erfc((accuracy - 0.5) / error / 2**0.5))


def nearest(x: Tensor, points: Tensor, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """Distance from each of x (m, ...) to the nearest of points (n, ...), and which one it is: two tensors (m,)."""
    if x.shape[1:] != points.shape[1:] or not len(x) or not len(points):
        raise ShapeError(f"two non-empty sets of equal shape are needed, got {tuple(x.shape)} and {tuple(points.shape)}")
    flat, known = x.detach().flatten(1).double().cpu(), points.detach().flatten(1).double().cpu()
    parts = [torch.cdist(part, known, compute_mode="donot_use_mm_for_euclid_dist").min(1) for part in flat.split(chunk)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


@dataclass(frozen=True)
class ClassTest:
    """Chi-square of two histograms of classes, its degrees of freedom, and the p-value; n labels in each set."""

    chi2: float
    dof: int
    n: tuple[int, int]
    p_value: float

    def __str__(self) -> str:
        """All of it."""
        return f"chi-square {self.chi2:.1f} with {self.dof} degrees of freedom (n = {self.n[0]} and {self.n[1]}; p = {self.p_value:.2g})"

    def __float__(self) -> float:
        """The chi-square."""
        return self.chi2


def class_test(labels_a: Tensor, labels_b: Tensor) -> ClassTest:
    """Whether two sets of labels (n,) have the same shares of classes: chi-square test of homogeneity on their histograms."""
    if labels_a.ndim != 1 or labels_b.ndim != 1 or labels_a.is_floating_point() or labels_b.is_floating_point():
        raise ShapeError(f"labels are whole numbers (n,), got {tuple(labels_a.shape)} {labels_a.dtype} and {tuple(labels_b.shape)}")
    classes = max(int(labels.max()) + 1 if len(labels) else 0 for labels in (labels_a, labels_b))
    counts = torch.stack([labels.cpu().bincount(minlength=classes) for labels in (labels_a, labels_b)]).double()
    counts = counts[:, counts.sum(0) > 0]
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
    if counts.shape[1] < 2 or float(expected.min()) < 1:
        raise DataError(f"too few labels for a chi-square test ({len(labels_a)} and {len(labels_b)}): give at least some in each class")
    chi2, dof = float(((counts - expected) ** 2 / expected).sum()), counts.shape[1] - 1
    tail = torch.special.gammaincc(torch.tensor(dof / 2, dtype=torch.float64), torch.tensor(chi2 / 2, dtype=torch.float64))
    return ClassTest(chi2, dof, (len(labels_a), len(labels_b)), float(tail))


def inception_features(network: Features | None = None, weights: str | None = None, batch_size: int = 64) -> Features:
    """Features of published FIDs: pictures in [-1, 1] -> uint8 RGB -> `network` -> (n, D).   FID section 2.

    Without a network it takes torch-fidelity's Inception-v3 (extra "inception") with the weights in this file, or downloads them.
    """
    network = network or _fidelity(weights)

    def features(x: Tensor) -> Tensor:
        """(n, 1 or 3, H, W) in [-1, 1] -> (n, D)."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ShapeError(f"Inception takes pictures (n, 1, H, W) or (n, 3, H, W), got {tuple(x.shape)}")
        pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
        with torch.no_grad():
            return torch.cat([network(part) for part in pixels.split(batch_size)])

    return features


def _fidelity(weights: str | None) -> Features:
    """torch-fidelity's Inception-v3, if it is installed."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    try:
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    except ModuleNotFoundError as error:
        raise ConfigError("no torch-fidelity here: pip install 'ddpm-course[inception]', or pass your own network") from error
