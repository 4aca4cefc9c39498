"""Training runs that take a fraction of a second, and pictures in files, for the tests of the trainer."""

import dataclasses
import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm_course import TrainConfig, UNet, UNetConfig, train
from ddpm_course.data import Split, Splits
from ddpm_course.runs import RunFolder

trainer = importlib.import_module("ddpm_course.train")  # the name ddpm_course.train is the function
NET = UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4, dropout=0.1)
SMALLEST = UNetConfig(8, 1, 4, (1,), 1, (), groups=2, dropout=0.1, middle_attention=False)
TINY = TrainConfig(net=NET, num_timesteps=50, steps=8, batch_size=8, warmup=2, log_every=3, save_every=4)

HAS_COMPILER = bool(shutil.which("g++") or shutil.which("clang++"))
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs a C++ compiler on a CPU")


class Stop(Exception):
    """What a test raises in the middle of a run."""


def smaller(**changes: object) -> TrainConfig:
    """A run of the smallest network there is."""
    return dataclasses.replace(TINY, **{"net": SMALLEST} | changes)


def some_pictures(n: int = 40, channels: int = 1) -> Splits:
    """Noise as pictures of 8x8 bytes: n for training and 8 for validation and test each, with labels 0..3."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randint(256, (size, channels, 8, 8), generator=generator, dtype=torch.uint8) for size in (n, 8, 8)]
    return Splits(*(Split(x, torch.arange(len(x)) % 4) for x in parts))


def picture_files(folder: Path, n: int = 12, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Path:
    """A folder of n different PNG files of this mode and (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(n)
    for i in range(n):
        pixels = numbers.integers(256, size=(*size[::-1], len(Image.new(mode, (1, 1)).getbands())), dtype=np.uint8)
        Image.fromarray(pixels.squeeze()).convert(mode).save(folder / f"{i:03d}.png")
    return folder


def state(folder: Path) -> dict[str, Tensor]:
    """The tensors of the newest state in a folder."""
    return RunFolder(folder).load_state()[0]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two states are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def train_until(step: int, config: TrainConfig, data: Splits | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until `step` steps are done, save there, and die."""
    real = trainer.Run.one_step

    def one_step(run: trainer.Run) -> Tensor:
        if run.step == step:
            raise Stop
        return real(run)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Run, "one_step", one_step)
        with pytest.raises(Stop):
            train(dataclasses.replace(config, save_every=step), data)


def still(config: UNetConfig) -> UNet:
    """A network without dropout."""
    torch.manual_seed(0)
    return UNet(dataclasses.replace(config, dropout=0.0))
