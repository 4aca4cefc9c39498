"""Training: Algorithm 1 with what a real run needs - EMA, warm-up, clipping, validation, a progress bar, and resuming bit for bit."""

import csv
import io
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .checkpoint import Trained, load_tensors, rng, save_model, save_tensors, write_atomic
from .data import check_images, load
from .ema import ema_of
from .errors import CheckpointError, ConfigError, NonFiniteError, one_of
from .losses import diffusion_loss
from .models import UNet, UNetConfig
from .prediction import TO_EPS
from .schedule import SCHEDULES, NoiseSchedule


@dataclass(frozen=True)
class TrainConfig:
    """One training run. All randomness follows from (seed, step) and (seed, epoch); with `out` it saves and resumes there."""

    data: str = "digits"
    net: UNetConfig = field(default_factory=UNetConfig.digits)
    schedule: str = "cosine"
    num_timesteps: int = 1000
    prediction: str = "v"
    steps: int = 700
    batch_size: int = 128
    lr: float = 2e-3
    warmup: int = 50
    final_lr: float = 0.05  # cosine decay ends at this fraction of lr
    grad_clip: float = 1.0
    ema_decay: float = 0.995
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    out: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("prediction", self.prediction, TO_EPS)
        for name in ("steps", "batch_size", "lr", "grad_clip", "log_every", "save_every"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be greater than 0")


def at_scale(cpu: Any, gpu: Any) -> Any:
    """`gpu` if the environment variable DDPM_COURSE_SCALE is "gpu", else `cpu`: the same cell at two sizes."""
    scale = os.environ.get("DDPM_COURSE_SCALE", "cpu")
    one_of("DDPM_COURSE_SCALE", scale, ("cpu", "gpu"))
    return gpu if scale == "gpu" else cpu


def learning_rate(config: TrainConfig, step: int) -> float:
    """lr at step 0, 1, ...: a straight warm-up, then half a cosine down to final_lr * lr."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    progress = torch.tensor(step / config.steps * torch.pi)
    return config.lr * warm * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + float(progress.cos())))


def batch_indices(config: TrainConfig, n: int, step: int) -> Tensor:
    """Which of n examples step sees, (batch_size,): each epoch is a fresh permutation from (seed, epoch); a short rest is dropped."""
    epoch, position = divmod(step, n // config.batch_size)
    order = torch.randperm(n, generator=rng(config.seed, 1, epoch))
    return order[position * config.batch_size : (position + 1) * config.batch_size]


def batch_noise(config: TrainConfig, x_0: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """t (B,) uniform in 1..T and eps ~ N(0, I) of x_0's shape, from (seed, step) alone.   Ho Algorithm 1, lines 3-4."""
    generator = rng(config.seed, 2, step)
    t = torch.randint(1, config.num_timesteps + 1, (len(x_0),), generator=generator)
    return t.to(x_0.device), torch.randn(x_0.shape, generator=generator).to(x_0.device)


@torch.no_grad()
def validation_loss(net: nn.Module, schedule: NoiseSchedule, x_0: Tensor, prediction: str = "eps", seed: int = 0) -> float:
    """Mean loss on held-out x_0 with t spread evenly and fixed noise, so that two calls differ by the network alone."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(1, schedule.T, len(x_0)).round().long()[torch.randperm(len(x_0), generator=generator)]
    eps = torch.randn(x_0.shape, generator=generator)
    training = net.training
    loss = diffusion_loss(net.eval(), schedule, x_0, t.to(x_0.device), eps.to(x_0.device), prediction).mean()
    net.train(training)
    return float(loss)


class _Run:
    """The state of one training run: weights, their average, the optimiser, the step and the history."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.step, self.history = config, 0, []
        splits = load(config.data)
        self.train_images = check_images(splits.train.images, config.data).to(config.device)
        self.val_images = splits.val.images.to(config.device)
        if config.batch_size > len(self.train_images):
            raise ConfigError(f"batch_size = {config.batch_size} exceeds the {len(self.train_images)} training pictures of {config.data!r}")
        self.schedule = SCHEDULES[config.schedule](config.num_timesteps)
        torch.manual_seed(config.seed)
        self.net = UNet(config.net).to(config.device)
        self.ema = ema_of(self.net, config.ema_decay)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=config.lr, weight_decay=0.0, fused=True)

    def one_step(self) -> Tensor:
        """Algorithm 1, lines 2-5, once; returns the batch's mean loss without waiting for it."""
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout, too, follows from (seed, step)
        x_0 = self.train_images[batch_indices(config, len(self.train_images), self.step).to(config.device)]
        t, eps = batch_noise(config, x_0, self.step)
        loss = diffusion_loss(self.net.train(), self.schedule, x_0, t, eps, config.prediction).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        self.optimizer.step()
        self.ema.update_parameters(self.net)
        self.step += 1
        return loss.detach()

    def log(self, loss: float) -> None:
        """Record losses; stop at once if training has left the finite numbers."""
        if not torch.isfinite(torch.tensor(loss)):
            raise NonFiniteError(f"the training loss is {loss} after step {self.step}; lower lr or grad_clip. Saved checkpoints are finite")
        val = validation_loss(self.ema.module, self.schedule, self.val_images, self.config.prediction)
        self.history.append({"step": self.step, "loss": loss, "val_loss": val})

    def save(self) -> None:
        """State for resuming, and the averaged network for sampling, both atomic."""
        tensors = {f"net.{k}": x for k, x in self.net.state_dict().items()}
        tensors |= {f"ema.{k}": x for k, x in self.ema.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": x for k, x in state.items()}
        save_tensors(self.config.out, "state", tensors, {"step": self.step, "history": self.history, "config": asdict(self.config)})
        save_model(self.config.out, self.trained())
        rows = io.StringIO()
        writer = csv.DictWriter(rows, ["step", "loss", "val_loss"])
        writer.writeheader()
        writer.writerows(self.history)
        write_atomic(Path(self.config.out) / "log.csv", rows.getvalue().encode())

    def resume(self) -> None:
        """Go on from the state in `out`, if there is one made with this configuration."""
        if not self.config.out or not (Path(self.config.out) / "state.json").exists():
            return
        tensors, meta = load_tensors(self.config.out, "state")
        mine, theirs = asdict(self.config), meta["config"]
        changed = [k for k in mine if k not in ("out", "device", "save_every") and str(mine[k]) != str(_tuples(theirs.get(k)))]
        if changed:
            raise CheckpointError(f"{self.config.out} holds a run with other settings ({', '.join(changed)}); choose another folder")
        part = lambda name: {k.removeprefix(name): x for k, x in tensors.items() if k.startswith(name)}  # noqa: E731
        self.net.load_state_dict(part("net."))
        self.ema.load_state_dict(part("ema."))
        state = self.optimizer.state_dict()
        for key, x in part("optimizer.").items():
            i, name = key.split(".")
            state["state"].setdefault(int(i), {})[name] = x
        self.optimizer.load_state_dict(state)
        self.step, self.history = meta["step"], meta["history"]

    def trained(self) -> Trained:
        """The averaged network, ready for sampling."""
        config = _tuples(asdict(self.config) | {"out": None})
        return Trained(self.ema.module.eval(), self.schedule, self.config.prediction, config, self.history)


def _tuples(x: Any) -> Any:
    """JSON's lists back to tuples, so that a stored configuration compares equal."""
    if isinstance(x, dict):
        return {k: _tuples(v) for k, v in x.items()}
    return tuple(_tuples(v) for v in x) if isinstance(x, list) else x


def train(config: TrainConfig) -> Trained:
    """Run (or resume) a training run; returns the averaged network and its history. Quiet where CI is set.   Ho Algorithm 1."""
    with torch.random.fork_rng():
        run = _Run(config)
        run.resume()
        losses: list[Tensor] = []
        with tqdm(total=config.steps, initial=run.step, disable=bool(os.environ.get("CI")), unit="step") as bar:
            while run.step < config.steps:
                losses.append(run.one_step())
                bar.update()
                last, saving = run.step == config.steps, bool(config.out) and run.step % config.save_every == 0
                if run.step % config.log_every == 0 or saving or last:
                    run.log(float(torch.stack(losses).mean()))
                    losses.clear()
                    bar.set_postfix(loss=f"{run.history[-1]['loss']:.4f}", val=f"{run.history[-1]['val_loss']:.4f}")
                if saving or (last and config.out):
                    run.save()
    return run.trained()
