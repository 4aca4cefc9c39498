"""What a step is fed with: the same pictures, times, noise and labels however they are stored and however many processes share them."""

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, picture_files, some_pictures

from ddpm_course.checkpoint import rng
from ddpm_course.data import Split, Splits
from ddpm_course.errors import DataError
from ddpm_course.feed import AHEAD, Feed, batch_indices, batch_noise, check_splits, label_condition, part_of
from ddpm_course.pictures import folder, to_float

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(TINY, steps=12, batch_size=8, flip=True)


def all_steps(feed: Feed) -> list[tuple[torch.Tensor, torch.Tensor]]:
    try:
        return [feed(step) for step in range(12)]
    finally:
        feed.close()


def equal(a: list[tuple[torch.Tensor, torch.Tensor]], b: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return all(torch.equal(x, y) for pair in zip(a, b, strict=True) for x, y in zip(*pair, strict=True))


def test_resident_and_streamed_pictures_come_in_the_same_order(tmp_path: Path) -> None:
    files, _ = folder(picture_files(tmp_path, 20))
    resident, streamed = all_steps(Feed(CONFIG, files.resident(), CPU)), all_steps(Feed(CONFIG, files, CPU))
    assert equal(resident, streamed)
    for step, (index, x_0) in enumerate(resident):
        assert torch.equal(index, batch_indices(CONFIG, 20, step)) and x_0.dtype == torch.float32
        assert bool(((x_0 == to_float(files.take(index.tolist()))) | (x_0 == to_float(files.take(index.tolist())).flip(-1))).all())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_share_the_batch_of_one(stream: bool, processes: int, tmp_path: Path) -> None:
    files, _ = folder(picture_files(tmp_path, 20))
    images = files if stream else files.resident()
    whole = all_steps(Feed(CONFIG, images, CPU))
    shares = [all_steps(Feed(CONFIG, images, CPU, rank, processes)) for rank in range(processes)]
    joined = [(parts[0][0], torch.cat([x_0 for _, x_0 in parts])) for parts in zip(*shares, strict=True)]
    assert equal(whole, joined) and all(torch.equal(part[0], parts[0][0]) for parts in zip(*shares, strict=True) for part in parts)


def test_a_step_does_not_depend_on_those_before(tmp_path: Path) -> None:
    files, _ = folder(picture_files(tmp_path, 20))
    for images in (files, files.resident()):
        first, later = Feed(CONFIG, images, CPU), Feed(CONFIG, images, CPU)
        wanted = all_steps(first)[7:]
        assert equal(wanted, [later(step) for step in range(7, 12)])
        later.close()


def test_the_settings_decide_how_many_threads_decode(tmp_path: Path) -> None:
    files, _ = folder(picture_files(tmp_path, 20))
    feed = Feed(dataclasses.replace(CONFIG, workers=3), files, CPU)
    feed.close()
    assert files.workers == 3


def test_pictures_are_decoded_ahead_but_not_beyond_the_end(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # torch.compile keeps threads, too
    files, _ = folder(picture_files(tmp_path, 20))
    feed = Feed(CONFIG, files, CPU)
    feed(0)
    assert sorted(feed._coming) == list(range(1, AHEAD))
    for step in range(1, 12):
        feed(step)
    assert not feed._coming
    feed.close()
    feed._pool.shutdown(wait=True)
    assert not any(thread.name.startswith("ThreadPool") for thread in set(threading.enumerate()) - before)


def test_a_picture_that_breaks_later_stops_the_run_by_name(tmp_path: Path) -> None:
    files, _ = folder(picture_files(tmp_path, 20))
    (tmp_path / "011.png").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"cannot read picture .*011\.png"):
        all_steps(Feed(CONFIG, files, CPU))


def test_each_seed_has_its_own_order_and_each_epoch_too() -> None:
    orders = {tuple(batch_indices(dataclasses.replace(CONFIG, seed=seed), 20, step).tolist()) for seed in range(5) for step in range(0, 8)}
    assert len(orders) == 40


def test_noise_for_a_share_is_drawn_for_the_whole_batch() -> None:
    t, eps = batch_noise(CONFIG, torch.zeros(3, 1, 8, 8), 5, size=8)
    assert t.shape == (8,) and eps.shape == (8, 1, 8, 8) and torch.equal(eps, batch_noise(CONFIG, torch.zeros(8, 1, 8, 8), 5)[1])


def test_half_of_the_pictures_are_mirrored_each_for_itself() -> None:
    ramp = torch.arange(8, dtype=torch.uint8).expand(40, 1, 8, 8) * 30
    config = dataclasses.replace(CONFIG, batch_size=40)
    flipped = [(x_0[:, 0, 0, 0] > 0) for _, x_0 in all_steps(Feed(config, ramp, CPU))]
    assert 0.4 < float(torch.stack(flipped).float().mean()) < 0.6 and not torch.equal(flipped[0], flipped[1])
    plain = all_steps(Feed(dataclasses.replace(config, flip=False), ramp, CPU))
    assert all(bool((x_0[:, 0, 0, 0] == -1).all()) for _, x_0 in plain)


def test_labels_are_hidden_each_for_itself_and_never_in_validation() -> None:
    split, index = Split(torch.zeros(4000, 1), torch.arange(4000) % 5), torch.arange(4000)
    condition = label_condition(5, 0.3)
    y = condition(split, index, rng(0, 3, 7))["y"]
    hidden = y == 5
    assert 0.27 < float(hidden.float().mean()) < 0.33 and torch.equal(y[~hidden], split.labels[~hidden])
    assert torch.equal(y, condition(split, index, rng(0, 3, 7))["y"]) and not torch.equal(y, condition(split, index, rng(0, 3, 8))["y"])
    batches = hidden.reshape(-1, 8).float().mean(1)
    assert float(((batches > 0) & (batches < 1)).float().mean()) > 0.8  # not for a batch as a whole
    assert torch.equal(condition(split, index, None)["y"], split.labels)
    assert bool((label_condition(5, 1.0)(split, index, rng(0))["y"] == 5).all())
    assert torch.equal(label_condition(5, 0.0)(split, index, rng(0))["y"], split.labels)
    assert label_condition(0, 0.3)(split, index, None) == {}


def test_part_of_takes_the_same_part_of_every_condition() -> None:
    assert part_of({"y": torch.arange(6), "x": torch.zeros(6, 2)}, slice(2, 4))["y"].tolist() == [2, 3]


def test_data_that_cannot_be_trained_on_is_refused() -> None:
    good = some_pictures()
    check_splits(good, "mine")
    floats = to_float(good.train.images)
    for bad, text in [
        (Split(good.train.images[:0], good.train.labels[:0]), "the val part of 'mine' has 0 pictures and 0 labels"),
        (Split(good.train.images, good.train.labels[:3]), "has 40 pictures and 3 labels; give one label a picture"),
        (Split(floats.double(), good.train.labels), "'mine' is torch.float64; give bytes"),
        (Split(good.train.images.long(), good.train.labels), "'mine' is torch.int64"),
        (Split(floats * 127.5 + 127.5, good.train.labels), r"must lie in \[-1, 1\]"),
        (Split(floats.abs(), good.train.labels), r"values in \[0, 1\]"),
        (Split(floats.clone().index_fill_(0, torch.tensor([3]), float("nan")), good.train.labels), "must lie in"),
    ]:
        with pytest.raises(DataError, match=text):
            check_splits(Splits(good.train, bad, good.test), "mine")
    check_splits(Splits(*[Split(torch.randn(20, 2), torch.zeros(20))] * 3), "points")  # points in the plane have no range
