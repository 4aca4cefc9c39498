"""How far two sets of pictures are apart, as sets. A distance without n and without its floor says nothing."""

import torch
from torch import Tensor, nn

from .errors import ShapeError


class _AsIs(nn.Module):
    """A feature network that is already applied: torchmetrics wants a module."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        """x itself."""
        return x


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 sqrt(cov_a cov_b)) of features (n, D): 0 if both moments agree.   FID section 2.

    It falls with n even for equal laws: quote n, and the floor (two real sets at that n) beside it.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if features_a.ndim != 2 or features_a.shape[1:] != features_b.shape[1:] or min(len(features_a), len(features_b)) < 2:
        raise ShapeError(f"two sets of features (n >= 2, D) are needed, got {tuple(features_a.shape)} and {tuple(features_b.shape)}")
    metric = FrechetInceptionDistance(feature=_AsIs(features_a.shape[1])).set_dtype(torch.float64)
    metric.update(features_a.double().cpu(), real=True)
    metric.update(features_b.double().cpu(), real=False)
    return max(0.0, float(metric.compute()))
