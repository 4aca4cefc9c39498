"""What a written digit looks like, in numbers that need no network: how thick its strokes are, and how far they lean."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DataError, ShapeError


def ink(x: Tensor) -> Tensor:
    """Pictures (B, 1, H, W) in [-1, 1] as ink in [0, 1], (B, H, W): white is ink. What lies outside [-1, 1] is cut."""
    if x.ndim != 4 or x.shape[1] != 1:
        raise ShapeError(f"strokes are measured on grey pictures (B, 1, H, W), got {tuple(x.shape)}")
    return ((x[:, 0] + 1) / 2).clamp(0, 1)


def thickness(x: Tensor) -> Tensor:
    """Twice the ink over the length of its outline, (B,), in pixels: about the width of a long stroke. A picture without ink has 0."""
    paper = F.pad(ink(x), (1, 1, 1, 1))
    down, right = paper[:, 1:, :-1] - paper[:, :-1, :-1], paper[:, :-1, 1:] - paper[:, :-1, :-1]
    outline = (down**2 + right**2).sqrt().sum((1, 2))
    return 2 * paper.sum((1, 2)) / outline.clamp(min=1e-6)


def slant(x: Tensor) -> Tensor:
    """The angle (B,) in degrees by which strokes lean to the right of upright, from second moments: atan(-cov(row, column) / var(row))."""
    weight = ink(x)
    share = weight / weight.sum((1, 2), keepdim=True).clamp(min=1e-6)
    rows, columns = (torch.arange(size, device=x.device, dtype=share.dtype) for size in share.shape[1:])
    rows = rows[:, None] - (share * rows[:, None]).sum((1, 2), keepdim=True)  # (B, H, 1), from the centre of the ink
    columns = columns - (share * columns).sum((1, 2), keepdim=True)  # (B, 1, W)
    lean = -(share * rows * columns).sum((1, 2)) / (share * rows**2).sum((1, 2)).clamp(min=1e-6)
    return torch.rad2deg(lean.atan())


class StyleCells:
    """Nine styles: thin, medium or bold times leaning left, medium or right, by the thirds of each digit's own class.

    Cell 3 a + b has thickness third a and slant third b; 0 is thin and most upright, 8 bold and most slanted. Thirds of these pictures.
    """

    count = 9

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        missing = sorted(set(range(int(labels.max()) + 1)) - set(labels.tolist()))
        if missing:
            raise DataError(f"no picture of class {missing}: every class needs some to find its thirds")
        third = torch.tensor([1 / 3, 2 / 3], device=images.device)
        cuts = [[torch.quantile(f(images[labels == k]), third) for k in range(int(labels.max()) + 1)] for f in (thickness, slant)]
        self.thickness, self.slant = (torch.stack(rows) for rows in cuts)  # (classes, 2) each

    def thirds(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The thickness and the slant third, each 0, 1 or 2, of pictures (B, 1, H, W) of these classes (B,)."""
        values = ((thickness(images), self.thickness), (slant(images), self.slant))
        a, b = ((value[:, None] > cut.to(value.device)[labels]).sum(1) for value, cut in values)
        return a, b

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The cell 0..8 of each picture, (B,)."""
        a, b = self.thirds(images, labels)
        return 3 * a + b
