"""The command line's train and export: python -m ddpm_course train --data FOLDER --out runs/mine."""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .checkpoint import find_checkpoint, load_model
from .config import TrainConfig, net_for
from .data import Splits, load
from .errors import CheckpointError, ConfigError
from .models import UNetConfig

PRESETS = {"digits": UNetConfig.digits, "mnist": UNetConfig.mnist, "cifar10": UNetConfig.cifar10, "celebahq": UNetConfig.celebahq}


@dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network on pictures. Run it again to go on where it stopped; sample from it with: sample --checkpoint OUT."""

    preset: Literal["auto", "digits", "mnist", "cifar10", "celebahq"] = "auto"
    """The network; auto chooses by the size of the pictures. Its size and channels follow the data."""
    base_channels: int | None = None
    """Width of the network, instead of the preset's."""
    classes: bool = False
    """Tell the network each picture's class (the subfolder it lies in), for guidance."""
    net: Annotated[UNetConfig | None, tyro.conf.Suppress] = None
    out: str | None = "runs/train"
    """The folder of the run: state, model, log. Where one is found, the run goes on."""
    device: Literal["cpu", "cuda", "auto"] = "auto"
    """auto: whatever accelerate finds."""

    def resolved(self) -> tuple[TrainConfig, Splits]:
        """The TrainConfig of this call, its network included, and the data."""
        data = load(self.data, image_size=self.image_size)
        C, H, _ = data.train.images.shape[1:]
        own = {f.name for f in fields(TrainConfig)}
        config = TrainConfig(**{key: getattr(self, key) for key in own})
        net = net_for(config, (C, H, H))
        if self.preset != "auto":
            net = replace(PRESETS[self.preset](), image_size=H, channels=C, pad=True)
            net = replace(net, pad=H % net.multiple > 0)
        if self.base_channels is not None:
            net = replace(net, base_channels=self.base_channels)
        if self.classes:
            net = replace(net, num_classes=1 + max(int(part.labels.max()) for part in data))
            if net.num_classes < 2:
                raise ConfigError(f"--classes: all pictures of {self.data} are of one class; put them into one subfolder a class")
        return replace(config, net=net), data

    def run(self) -> None:
        """Train, and say where the model lies."""
        from .train import train

        config, data = self.resolved()
        last = train(config, data).history[-1]
        if int(os.environ.get("RANK", 0)):  # one of several processes, and not the first
            return
        print(f"{self.out}: {int(last['step']):,} steps, loss {last['loss']:.4f}, validation {last['val_loss']:.4f}")
        print(f"samples: python -m ddpm_course sample --checkpoint {self.out} --out samples")


@dataclass(frozen=True)
class Export:
    """Write a checkpoint as a folder that diffusers' DDPMPipeline opens."""

    checkpoint: str = "digits"
    """A shipped name (digits, mnist) or the folder of your own."""
    out: str = "exported"
    """The folder to write to."""

    def run(self) -> None:
        """Load, convert, write."""
        from .interop import save_diffusers

        trained = load_model(find_checkpoint(self.checkpoint))
        if Path(self.out, "model_index.json").exists():
            raise CheckpointError(f"{self.out} already holds a pipeline; choose another --out")
        save_diffusers(trained.net, trained.schedule, self.out, trained.prediction)
        print(f"wrote {self.out}; open it with: DDPMPipeline.from_pretrained({self.out!r})")
