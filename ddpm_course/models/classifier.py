"""A small picture classifier. Its features are the ruler by which sets of pictures are compared."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError


class Classifier(nn.Module):
    """Pictures (B, C, H, W) in [-1, 1] -> class logits (B, num_classes); features() gives the 64 numbers before the last layer."""

    def __init__(self, channels: int = 1, num_classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.channels = channels
        self.conv_1, self.norm_1 = nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width)
        self.conv_2, self.norm_2 = nn.Conv2d(width, 2 * width, 3, padding=1), nn.GroupNorm(8, 2 * width)
        self.conv_3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.hidden, self.head = nn.Linear(2 * width * 4, 64), nn.Linear(64, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, (B, 64)."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ShapeError(f"this classifier takes pictures (B, {self.channels}, H, W), got {tuple(x.shape)}")
        h = F.max_pool2d(F.silu(self.norm_1(self.conv_1(x))), 2)
        h = F.silu(self.conv_3(F.silu(self.norm_2(self.conv_2(h)))))
        return F.silu(self.hidden(F.adaptive_avg_pool2d(h, 2).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes); dropout on the features while training."""
        return self.head(F.dropout(self.features(x), 0.3, self.training))
