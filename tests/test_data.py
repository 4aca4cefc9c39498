"""Real digits and toy points."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import picture_files

from ddpm_course.data import TOYS, as_float, check_images, digits, load, random_flip, split, toy
from ddpm_course.errors import DataError
from ddpm_course.pictures import folder


def test_digits_are_the_real_ones() -> None:
    from sklearn.datasets import load_digits

    parts = digits()
    assert [len(p.images) for p in parts] == [1438, 179, 180] == [len(p.labels) for p in parts]
    images, labels = torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert float(images.min()) == -1 and float(images.max()) == 1
    mine = sorted(zip(((images[:, 0] + 1) * 8).flatten(1).tolist(), labels.tolist(), strict=True))
    raw = load_digits()
    assert mine == sorted(zip(raw.data.tolist(), raw.target.tolist(), strict=True))


@pytest.mark.parametrize(("name", "size", "pixels"), [("digits", 1797, 8), ("mnist5k", 5000, 28)])
def test_load_by_name(name: str, size: int, pixels: int) -> None:
    parts = load(name)
    assert sum(len(p.images) for p in parts) == size and parts.train.images.shape[1:] == (1, pixels, pixels)
    check_images(parts.train.images)


def test_mnist_is_shuffled_and_balanced() -> None:
    parts = load("mnist5k")
    labels = torch.cat([p.labels for p in parts])
    assert torch.bincount(labels).tolist() == [500] * 10
    assert len(labels[:100].unique()) == 10 and [len(p.labels) for p in parts] == [4000, 500, 500]


def test_split_is_disjoint_complete_and_follows_the_seed() -> None:
    images, labels = torch.arange(50.0).reshape(50, 1, 1, 1), torch.arange(50)
    a, b, c = split(images, labels, 0), split(images, labels, 0), split(images, labels, 1)
    assert sorted(torch.cat([p.labels for p in a]).tolist()) == list(range(50))
    assert all(torch.equal(p.images.flatten().long(), p.labels) for p in a)
    assert torch.equal(a.train.labels, b.train.labels) and not torch.equal(a.train.labels, c.train.labels)
    assert [len(p.labels) for p in split(images, labels, 0, (0.5, 0.3))] == [25, 15, 10]
    assert not torch.equal(a.train.labels, a.train.labels.sort().values)


def test_a_flip_mirrors_about_half_of_the_pictures() -> None:
    x = torch.randn(400, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    y = random_flip(x, torch.Generator().manual_seed(1))
    same, mirrored = (y == x).flatten(1).all(1), (y == x.flip(-1)).flatten(1).all(1)
    assert bool((same | mirrored).all()) and 150 < int(mirrored.sum()) < 250
    assert torch.equal(y, random_flip(x, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_points_in_a_frame(name: str) -> None:
    x = toy(name, 2000, torch.Generator().manual_seed(0))
    assert x.shape == (2000, 2) and x.dtype == torch.float32 and float(x.abs().max()) < 2.6
    assert torch.equal(x, toy(name, 2000, torch.Generator().manual_seed(0)))
    assert not torch.equal(x, toy(name, 2000, torch.Generator().manual_seed(1)))


def test_toys_have_their_form() -> None:
    ring = toy("ring8", 4000, torch.Generator().manual_seed(0))
    assert float((ring.norm(dim=1) - 1.4).abs().mean()) < 0.12
    corners = 1.4 * torch.tensor([[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)])
    distance, nearest = torch.cdist(ring, corners).min(1)
    assert float(distance.max()) < 0.6 and int(torch.bincount(nearest).min()) > 400
    board = toy("checkerboard", 4000, torch.Generator().manual_seed(0))
    assert bool(((board.floor().long().sum(1) % 2) == 0).all()) and len(np.unique(board.floor(), axis=0)) == 8
    moons = toy("moons", 4000, torch.Generator().manual_seed(0)) / 1.3
    to_upper = ((moons + torch.tensor([0.5, 0.25])).norm(dim=1) - 1).abs()
    to_lower = ((moons + torch.tensor([-0.5, -0.25])).norm(dim=1) - 1).abs()
    assert float(torch.minimum(to_upper, to_lower).max()) < 0.4
    spiral = toy("spiral", 4000, torch.Generator().manual_seed(0))
    angle = torch.atan2(spiral[:, 1], spiral[:, 0])
    turns = (5 * spiral.norm(dim=1) - angle) / (2 * math.pi)
    assert float((turns - turns.round()).abs().mean()) < 0.08


def test_images_in_another_range_are_refused() -> None:
    good = torch.tensor([[-1.0, 0.5]])
    assert check_images(good) is good
    for bad, text in [
        (torch.zeros(2, dtype=torch.uint8), r"must be float in \[-1, 1\], got torch.uint8; scale"),
        (torch.tensor([0.0, 255.0]), r"scale 0\.\.255 by x / 127\.5 - 1"),
        (torch.tensor([0.0, 0.7]), r"values in \[0, 1\].*2 \* x - 1"),
        (torch.tensor([-1.0, float("nan")]), "must lie in"),
        (torch.tensor([-1.0, float("inf")]), "must lie in"),
        (torch.zeros(0), "is empty"),
        (np.zeros(3), "got float64"),
    ]:
        with pytest.raises(DataError, match=text):
            check_images(bad)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="unknown data set 'cifar'; known: digits, mnist5k"):
        load("cifar")
    with pytest.raises(DataError, match="unknown toy 'cross'; known: ring8"):
        toy("cross", 3)
    with pytest.raises(DataError, match="n = 0"):
        toy("moons", 0)


def test_pictures_of_ones_own_are_split_like_all_others(tmp_path: Path) -> None:
    picture_files(tmp_path / "a", 12), picture_files(tmp_path / "b", 8)
    parts, again, other = load(str(tmp_path)), load(str(tmp_path)), load(str(tmp_path), seed=1)
    assert [part.images.shape for part in parts] == [(16, 1, 8, 8), (2, 1, 8, 8), (2, 1, 8, 8)] and parts.train.images.dtype == torch.uint8
    assert torch.equal(parts.test.images, again.test.images) and not torch.equal(parts.train.images, other.train.images)
    assert sorted(torch.cat([part.labels for part in parts]).tolist()) == [0] * 12 + [1] * 8
    everything = torch.cat([part.images for part in parts]).flatten(1)
    assert len(everything.unique(dim=0)) == 20  # disjoint: no picture is in two parts
    assert load(str(tmp_path), image_size=16).train.images.shape == (16, 1, 16, 16)


def test_streamed_pictures_are_split_like_resident_ones(tmp_path: Path) -> None:
    files, labels = folder(picture_files(tmp_path, 20))
    for here, there in zip(split(files.resident(), labels), split(files, labels), strict=True):
        assert torch.equal(as_float(here.images), as_float(there.images)) and torch.equal(here.labels, there.labels)
        some = torch.tensor([1, 0])
        assert torch.equal(as_float(there.images, some), as_float(here.images)[some])
    assert float(as_float(files).min()) >= -1 and float(as_float(files).max()) <= 1


def test_too_few_pictures_and_a_size_for_data_that_have_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 9 pictures; at least 10 are needed"):
        load(str(picture_files(tmp_path, 9)))
    for name in ("digits", "mnist5k"):
        with pytest.raises(DataError, match=f"{name} has its own size; image_size = 16 is for pictures of your own"):
            load(name, image_size=16)


def test_a_flip_is_decided_by_the_chance_that_is_given() -> None:
    x = torch.arange(6.0).reshape(3, 1, 1, 2)
    assert random_flip(x, chance=torch.tensor([0.1, 0.5, 0.49])).flatten().tolist() == [1, 0, 2, 3, 5, 4]
