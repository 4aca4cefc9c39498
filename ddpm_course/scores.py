"""Scores of samples. None can be printed without n and its floor: what the same score says of real pictures, at the same n."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .data import check_images
from .errors import ConfigError, DataError, NonFiniteError, ShapeError, one_of
from .metrics import Features, class_test, frechet_distance, kernel_distance, nearest, precision, recall, two_sample_test

Statistic = Callable[[Tensor, Tensor], Any]  # (real, other) -> a number, or an object with float() and p_value

STATISTICS: dict[str, tuple[Statistic, str]] = {  # name -> formula, and which values are good
    "Fréchet distance": (frechet_distance, "low"),
    "kernel distance": (kernel_distance, "near 0"),
    "precision": (precision, "high"),
    "recall": (recall, "high"),
    "two-sample accuracy": (two_sample_test, "near 0.5"),
}


@dataclass(frozen=True, repr=False)
class Score:
    """One score of n samples, and the same score of n real pictures, once for each seed: the floor."""

    name: str
    value: float
    n: int
    floors: tuple[float, ...]
    good: str = ""
    p_value: float | None = None

    def __post_init__(self) -> None:
        if self.n < 2 or not self.floors:
            raise DataError(f"{self.name}: a score needs its n (got {self.n}) and at least one value of its floor (got {len(self.floors)})")
        if not bool(torch.tensor([self.value, *self.floors]).isfinite().all()):
            raise NonFiniteError(f"{self.name} = {self.value}, floor {self.floors}: not finite; look at the samples first")

    @property
    def floor(self) -> float:
        """The mean of the floor over its seeds."""
        return sum(self.floors) / len(self.floors)

    @property
    def spread(self) -> float:
        """The standard deviation of the floor over its seeds; 0 for one seed."""
        return float(torch.tensor(self.floors, dtype=torch.float64).std()) if len(self.floors) > 1 else 0.0

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        """The value in this format, always followed by n and the floor."""
        spec, p = spec or ".3g", "" if self.p_value is None else f", p = {self.p_value:.2g}"
        floor = f"floor {self.floor:{spec}} ± {self.spread:{spec}} over {len(self.floors)} seeds"
        return f"{self.name} {self.value:{spec}} (n = {self.n}{p}, {floor})"

    def __str__(self) -> str:
        return format(self)

    __repr__ = __str__

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shown = {"value": self.value, "n": self.n, "floor": self.floor, "floor_std": self.spread, "floor_seeds": len(self.floors)}
        return {"name": self.name, **shown, "good": self.good, **({} if self.p_value is None else {"p_value": self.p_value})}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """All scores of one set of samples. str() is a table."""

    scores: tuple[Score, ...]

    def __iter__(self) -> Iterator[Score]:
        return iter(self.scores)

    def __getitem__(self, name: str) -> Score:
        one_of("score", name, tuple(score.name for score in self))
        return next(score for score in self if score.name == name)

    def __str__(self) -> str:
        rows = [f"{'score':32} {'value':>9} {'floor':>9} {'± seeds':>9} {'n':>6}  {'good is':14} p"]
        for s in self:
            p = "" if s.p_value is None else f"{s.p_value:.2g}"
            rows.append(f"{s.name:32} {s.value:9.3g} {s.floor:9.3g} {s.spread:9.2g} {s.n:6}  {s.good:14} {p}".rstrip())
        return "\n".join(rows)

    __repr__ = __str__


def _draw(x: Tensor, n: int, seed: int) -> Tensor:
    """n of x without replacement, by the seed; x itself if it has n."""
    return x if len(x) == n else x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]]


def common_n(n: int | None, **sets: Tensor) -> int:
    """n, or the size of the smallest set; DataError if a set has fewer."""
    smallest = min(sets, key=lambda name: len(sets[name]))
    if n is not None and not 2 <= n <= len(sets[smallest]):
        raise DataError(f"n = {n} must be from 2 to {len(sets[smallest])}, the size of {smallest}: scores compare equal n")
    return n or len(sets[smallest])


def score(
    name: str,
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    n: int | None = None,
    seeds: int = 5,
    statistic: Statistic | None = None,
    good: str = "",
) -> Score:
    """One statistic (see STATISTICS, or your own) of features (N, D): n held-out against n samples; floor: against n of train.

    The value is of the first n samples; each seed of the floor draws its own n of train (and of held_out, if that has more).
    """
    if statistic is None:
        one_of("score", name, STATISTICS)
    function, good = (statistic, good) if statistic else STATISTICS[name]
    n = common_n(n, samples=samples, train=train, held_out=held_out)
    result = function(_draw(held_out, n, 0), samples[:n])
    floors = tuple(float(function(_draw(held_out, n, seed), _draw(train, n, seed))) for seed in range(seeds))
    return Score(name, float(result), n, floors, good, getattr(result, "p_value", None))


def memorising(samples: Tensor, train: Tensor, held_out: Tensor, n: int | None = None, seeds: int = 5) -> Score:
    """Median distance from a sample to the nearest of all of train (N, ...); its floor is the same of held-out data.

    Far below the floor: copies. Each seed resamples the held-out distances (a bootstrap).
    """
    n = common_n(n, samples=samples, held_out=held_out)
    own, real = nearest(samples[:n], train)[0], nearest(held_out, train)[0]
    pick = lambda seed: torch.randint(len(real), (n,), generator=torch.Generator().manual_seed(seed))  # noqa: E731
    floors = tuple(float(real[pick(seed)].median()) for seed in range(seeds))
    return Score("distance to nearest training", float(own.median()), n, floors, "near the floor")


@torch.no_grad()
def _in_parts(network: Features, x: Tensor, size: int = 500) -> Tensor:
    """network(x) in batches."""
    return torch.cat([network(part) for part in x.split(size)])


def evaluate(
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    features: Features | None = None,
    classify: Features | None = None,
    n: int | None = None,
    seeds: int = 5,
) -> Evaluation:
    """All scores of pictures (N, C, H, W) in [-1, 1] in the eyes of `features`, or of points (N, D) as they are.

    features: pictures -> (N, D), such as load_classifier("mnist").features; classify: pictures -> logits, for the classes' histogram.
    """
    sets = {"samples": samples, "train": train, "held_out": held_out}
    if len({x.shape[1:] for x in sets.values()}) > 1:
        raise ShapeError(f"all three sets need one shape, got {', '.join(f'{k} {tuple(x.shape)}' for k, x in sets.items())}")
    if samples.ndim == 4:
        sets = {name: check_images(x, name) for name, x in sets.items()}
        if features is None:
            raise ConfigError('pictures are compared by features: pass features=load_classifier("digits").features, or your own network')
    n = common_n(n, **sets)
    seen = {name: _in_parts(features, x) if features else x.flatten(1) for name, x in sets.items()}
    scores = [score(name, **seen, n=n, seeds=seeds) for name in STATISTICS]
    if classify is not None:
        classes = {name: _in_parts(classify, x).argmax(1) for name, x in sets.items()}
        scores.append(score("class histogram chi-square", **classes, n=n, seeds=seeds, statistic=class_test, good="low"))
    return Evaluation((*scores, memorising(**sets, n=n, seeds=seeds)))
