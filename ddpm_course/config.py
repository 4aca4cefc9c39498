"""What one training run is: a dataclass of settings, each with its one line of help."""

import math
import os
from dataclasses import dataclass, replace
from typing import Any, Literal

from .errors import ConfigError, one_of
from .models import UNetConfig
from .prediction import TO_EPS
from .schedule import SCHEDULES

COUNTS = ("steps", "batch_size", "micro_batches", "log_every", "save_every", "keep_last", "workers")
MANY = 2**31 - 1
RANGES = {"lr": (0, 1e6), "warmup": (0, MANY), "final_lr": (0, 1), "weight_decay": (0, 1e6), "label_dropout": (0, 1)}
RANGES |= {"sample_every": (0, MANY), "seed": (-MANY, MANY)}


@dataclass(frozen=True)
class TrainConfig:
    """One training run. All randomness follows from (seed, step) and (seed, epoch); with `out` it saves and resumes there."""

    data: str = "digits"
    """digits, mnist5k, a folder of pictures, a .parquet file, or hub:NAME."""
    image_size: int | None = None
    """For your own pictures: the square they are cut to. Default: their median shorter side, at most 64."""
    net: UNetConfig | None = None
    """The network; by default one that suits the size of the pictures."""
    schedule: str = "cosine"
    """linear, quadratic, sigmoid or cosine."""
    num_timesteps: int = 1000
    """T."""
    prediction: str = "v"
    """What the network predicts: eps, x_0 or v."""
    weighting: Literal["simple", "min_snr"] = "simple"
    """simple: the plain square error. min_snr: errors count at most as if SNR were 5."""
    steps: int = 700
    """How many optimiser steps."""
    batch_size: int = 128
    """Pictures a step, over all processes and micro-batches together."""
    micro_batches: int = 1
    """Parts of a process's batch that go through the network one after the other: less memory, the same gradient."""
    lr: float = 2e-3
    """The highest learning rate."""
    warmup: int = 50
    """Steps until it is reached."""
    final_lr: float = 0.05
    """Half a cosine leads down to this fraction of it."""
    weight_decay: float = 0.0
    """AdamW's."""
    grad_clip: float = 1.0
    """The longest gradient."""
    ema_decay: float = 0.995
    """Memory of the averaged weights; 0.9999 suits 100,000 steps and more."""
    flip: bool = False
    """Mirror half of the pictures. Right for faces and cats, wrong for digits and text."""
    label_dropout: float = 0.1
    """For a network with classes: share of the pictures whose label is hidden, each drawn for itself."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the network computes in. The schedule, the noise, x_t, the weights and the loss stay fp32."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    """torch.compile's mode; reduce-overhead uses CUDA graphs. Costs a minute at the start, and on a CPU needs a C++ compiler."""
    channels_last: bool | None = None
    """Memory layout of pictures; by default on GPUs, and where torch.compile is on."""
    workers: int = 4
    """Threads that decode pictures which do not fit into memory."""
    seed: int = 0
    """Of everything that is drawn."""
    log_every: int = 50
    """Steps between two lines of the log; each waits for the GPU and measures the validation loss."""
    save_every: int = 1000
    """Steps between two saved states."""
    keep_last: int = 2
    """How many of them are kept."""
    sample_every: int = 0
    """Steps between two grids of samples in out/samples; 0: none."""
    tensorboard: bool = False
    """Also log for TensorBoard, in out."""
    out: str | None = None
    """The folder of the run: state, model, log. Where one is found, the run goes on."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """auto: whatever accelerate finds."""

    def __post_init__(self) -> None:
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("prediction", self.prediction, TO_EPS)
        one_of("weighting", self.weighting, ("simple", "min_snr"))
        one_of("precision", self.precision, ("fp32", "bf16", "fp16"))
        one_of("compile", self.compile, ("off", "default", "reduce-overhead", "max-autotune"))
        one_of("device", self.device, ("cpu", "cuda", "auto"))
        for name in (*COUNTS, "num_timesteps", "warmup", "sample_every", "seed"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"{name} = {getattr(self, name)} must be a whole number")
        for name in (*COUNTS, "lr", "grad_clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be greater than 0")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name)} must lie in [{low:g}, {high:g}]")
        if self.image_size is not None and not self.image_size >= 4:
            raise ConfigError(f"image_size = {self.image_size} must be at least 4")
        if self.out is None and (self.tensorboard or self.sample_every):
            raise ConfigError("tensorboard and sample_every write files: name a folder with out")

    def check_batches(self, n: int, processes: int = 1) -> None:
        """Refuse a batch that n pictures, or this many processes and micro-batches, cannot make."""
        if self.batch_size > n:
            raise ConfigError(f"batch_size = {self.batch_size} exceeds the {n} training pictures of {self.data!r}; take at most {n}")
        if self.batch_size % (processes * self.micro_batches):
            raise ConfigError(
                f"batch_size = {self.batch_size} must be a multiple of processes x micro_batches = {processes} x {self.micro_batches}"
            )


def at_scale(cpu: Any, gpu: Any) -> Any:
    """`gpu` if the environment variable DDPM_COURSE_SCALE is "gpu", else `cpu`: the same cell at two sizes."""
    scale = os.environ.get("DDPM_COURSE_SCALE", "cpu")
    one_of("DDPM_COURSE_SCALE", scale, ("cpu", "gpu"))
    return gpu if scale == "gpu" else cpu


def learning_rate(config: TrainConfig, step: int) -> float:
    """lr at step 0, 1, ...: a straight warm-up, then half a cosine down to final_lr * lr."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.lr * warm * (config.final_lr + (1 - config.final_lr) * cosine)


def net_for(config: TrainConfig, shape: tuple[int, ...]) -> UNetConfig:
    """The network asked for, or one that suits pictures (C, H, W): the digits' or MNIST's, with more levels for larger ones."""
    if config.net is not None:
        return config.net
    if len(shape) != 3:
        raise ConfigError(f"data of shape (N, {', '.join(map(str, shape))}) are no pictures: pass your own net to train(config, data, net)")
    C, H, W = shape
    if H < 16:
        return replace(UNetConfig.digits(), image_size=H, channels=C, pad=H % 2 + W % 2 > 0, attention_sizes=(-(-H // 2),))
    multipliers = {0: (1, 2), 1: (1, 2, 2)}.get((H > 32) + (H > 64), (1, 2, 2, 2))
    small = replace(UNetConfig.mnist(), image_size=H, channels=C, multipliers=multipliers, pad=True)
    return replace(small, pad=H % small.multiple + W % small.multiple > 0, attention_sizes=small.level_sizes()[-1:])
