"""What a training step is fed with: pictures, t, eps, conditions. All follow from (seed, step) and (seed, epoch), for any process count."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .checkpoint import rng
from .config import TrainConfig
from .data import Latents, Split, Splits, check_images, random_flip
from .errors import DataError
from .pictures import Pictures, to_float

# (split, index (B,), generator) -> keywords for the network; without a generator (in validation) nothing is dropped
Condition = Callable[[Split, Tensor, torch.Generator | None], dict[str, Tensor]]
AHEAD = 4  # batches that are decoded ahead of time


def check_splits(splits: Splits, name: str) -> None:
    """Refuse what cannot be trained on: nothing, labels that do not fit, other than bytes or float32, values outside [-1, 1]."""
    for part, (images, labels) in zip(("train", "val"), splits[:2], strict=True):
        if len(images) == 0 or len(images) != len(labels):
            raise DataError(f"the {part} part of {name!r} has {len(images)} pictures and {len(labels)} labels; give one label a picture")
        if isinstance(images, Tensor):
            if images.dtype not in (torch.uint8, torch.float32):
                raise DataError(f"{name!r} is {images.dtype}; give bytes (torch.uint8) or float32 in [-1, 1]")
            if images.is_floating_point() and images.ndim == 4 and not isinstance(splits, Latents):
                check_images(images, name)


@lru_cache(maxsize=4)
def epoch_order(seed: int, n: int, epoch: int) -> Tensor:
    """The permutation (n,) of an epoch, from (seed, epoch); drawn once, however many steps ask for a part of it. Not to be changed."""
    return torch.randperm(n, generator=rng(seed, 1, epoch))


def batch_indices(config: TrainConfig, n: int, step: int) -> Tensor:
    """Which of n examples step sees, (batch_size,): each epoch is a fresh permutation from (seed, epoch); a short rest is dropped."""
    epoch, position = divmod(step, n // config.batch_size)
    return epoch_order(config.seed, n, epoch)[position * config.batch_size : (position + 1) * config.batch_size].clone()


def batch_noise(config: TrainConfig, x_0: Tensor, step: int, size: int | None = None) -> tuple[Tensor, Tensor]:
    """t (B,) uniform in 1..T and eps ~ N(0, I) of x_0's shape, from (seed, step) alone.   Ho Algorithm 1, lines 3-4.

    `size` such examples if it is given. Drawn where x_0 lies: nothing is copied to a GPU, and a GPU draws other numbers than a CPU.
    """
    generator, size = rng(config.seed, 2, step, device=x_0.device), size or len(x_0)
    t = torch.randint(1, config.num_timesteps + 1, (size,), generator=generator, device=x_0.device)
    return t, torch.randn(size, *x_0.shape[1:], generator=generator, device=x_0.device)


def label_condition(num_classes: int, dropout: float) -> Condition:
    """y for a network with classes: the labels, each hidden for itself (y = num_classes) with this probability.   CFG section 3.2."""

    def condition(split: Split, index: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        """y (B,), or nothing for a network without classes."""
        if num_classes == 0:
            return {}
        y = split.labels[index]
        if generator is None:
            return {"y": y}
        hidden = torch.rand(len(y), generator=generator, device=y.device) < dropout
        return {"y": y.masked_fill(hidden, num_classes)}

    return condition


class Feed:
    """feed(step) is (index (batch_size,), x_0 of this process's share, float32 in [-1, 1]), both on the device.

    Tensors lie on the device from the start, as bytes where they came as bytes; Pictures are decoded by threads, AHEAD batches early.
    """

    def __init__(self, config: TrainConfig, images: Tensor | Pictures, device: torch.device, rank: int = 0, processes: int = 1) -> None:
        self.config, self.device, share = config, device, config.batch_size // processes
        self.mine = slice(rank * share, (rank + 1) * share)
        self.images = images.to(device) if isinstance(images, Tensor) else images
        if isinstance(images, Pictures):
            images.workers = config.workers
        self._epoch, self._order = -1, torch.empty(0)
        self._pool, self._coming = ThreadPoolExecutor(1), dict[int, Future[Tensor]]()

    def index(self, step: int) -> Tensor:
        """batch_indices on the device; an epoch's order is moved there once, so that no step waits for a copy."""
        epoch, position = divmod(step, len(self.images) // self.config.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self.config.seed, len(self.images), epoch).to(self.device)
        return self._order[position * self.config.batch_size : (position + 1) * self.config.batch_size]

    def _decoded(self, step: int) -> Tensor:
        """This process's share of a step, decoded; asks for the next ones."""
        for later in range(step, min(step + AHEAD, self.config.steps)):
            if later not in self._coming:
                part = batch_indices(self.config, len(self.images), later)[self.mine]
                self._coming[later] = self._pool.submit(self.images.take, part.tolist())
        return self._coming.pop(step).result()

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        index = self.index(step)
        x = self.images[index[self.mine]] if isinstance(self.images, Tensor) else self._decoded(step).to(self.device, non_blocking=True)
        x_0 = to_float(x)
        if self.config.flip:
            generator = rng(self.config.seed, 4, step, device=self.device)
            x_0 = random_flip(x_0, chance=torch.rand(self.config.batch_size, generator=generator, device=self.device)[self.mine])
        return index, x_0

    def close(self) -> None:
        """Stop decoding ahead."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def part_of(cond: dict[str, Any], part: slice) -> dict[str, Any]:
    """The same conditions for a part of the batch."""
    return {key: value[part] for key, value in cond.items()}
