"""Two small picture classifiers: one for clean pictures, the ruler of the scores, and one for noisy pictures, which guides."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError
from .blocks import timestep_embedding


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


class NoisyClassifier(nn.Module):
    """Noisy pictures (B, C, size, size) and their times t (B,) in 1..T -> class logits (B, num_classes): log p(y | x_t) up to a constant.

    The time scales and shifts every layer. Smooth throughout (no maximum, no ReLU), since guidance uses its gradient.   Dhariwal section 4.
    """

    def __init__(self, channels: int = 1, num_classes: int = 10, size: int = 8, width: int = 32) -> None:
        super().__init__()
        self.channels, self.size, self.width = channels, size, width
        self.time = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 10 * width))
        self.conv_1, self.norm_1 = nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width)
        self.conv_2, self.norm_2 = nn.Conv2d(width, 2 * width, 3, padding=1), nn.GroupNorm(8, 2 * width)
        self.conv_3, self.norm_3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.GroupNorm(8, 2 * width)
        self.hidden, self.head = nn.Linear(2 * width * (size // 2) ** 2, 64), nn.Linear(64, num_classes)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits (B, num_classes); dropout before the last layers while training."""
        if x_t.ndim != 4 or x_t.shape[1:] != (self.channels, self.size, self.size) or t.shape != x_t.shape[:1]:
            wanted = f"pictures (B, {self.channels}, {self.size}, {self.size}) and times (B,)"
            raise ShapeError(f"this classifier takes {wanted}, got {tuple(x_t.shape)} and {tuple(t.shape)}")
        w, time = self.width, self.time(timestep_embedding(t, 2 * self.width).to(x_t.dtype))[:, :, None, None]
        scale_1, shift_1, scale_2, shift_2, scale_3, shift_3 = time.split([w, w, 2 * w, 2 * w, 2 * w, 2 * w], dim=1)
        h = F.silu(self.norm_1(self.conv_1(x_t)) * (1 + scale_1) + shift_1)
        h = F.avg_pool2d(F.silu(self.norm_2(self.conv_2(h)) * (1 + scale_2) + shift_2), 2)
        h = F.silu(self.norm_3(self.conv_3(h)) * (1 + scale_3) + shift_3)
        return self.head(F.silu(self.hidden(F.dropout(h.flatten(1), 0.2, self.training))))

    def log_prob(self, y: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """log p(y | x_t) (B,) for labels y (B,): what guidance climbs."""
        return F.log_softmax(self(x_t, t), dim=1).gather(1, y[:, None])[:, 0]
