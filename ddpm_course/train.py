"""Training: Algorithm 1 with what a real run needs. One process or many (accelerate), 16 bit, EMA, validation, resuming bit for bit."""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .checkpoint import Trained, is_registered, rng, save_model, write_atomic
from .config import TrainConfig, at_scale, learning_rate, net_for
from .data import Split, Splits, as_float, load
from .ema import ema_of
from .errors import CheckpointError, ConfigError
from .feed import Condition, Feed, batch_indices, batch_noise, check_splits, label_condition, part_of
from .images import png_bytes
from .losses import Loss, diffusion_loss, min_snr_weight
from .memory import keep_memory, large_pages
from .models import UNet
from .prediction import as_eps_model, clip_x_0
from .runs import FiniteWatch, RunFolder, accelerator_for, compiler_options, opened, pack, restore_tuples, unpack
from .sampling import ddim_sample
from .schedule import SCHEDULES, NoiseSchedule
from .side_by_side import SideBySide, can_lie_together

__all__ = ["Run", "TrainConfig", "at_scale", "batch_indices", "batch_noise", "learning_rate", "train", "validation_loss"]

HELD_OUT = 2000  # validation pictures that are looked at, at most
AT_ONCE = 2**20  # numbers of them that go through the network at a time, about
SETTLED, LONG = 3, 1000  # steps after which memory has its final shape, and that must be left for large pages to pay
FREE = ("out", "device", "save_every", "keep_last", "sample_every", "tensorboard", "workers")  # may differ when a run goes on


@torch.no_grad()
def validation_loss(net: nn.Module, schedule: NoiseSchedule, x_0: Tensor, prediction: str = "eps", seed: int = 0, **cond: object) -> float:
    """Mean loss on held-out x_0 with t spread evenly and fixed noise, so that two calls differ by the network alone."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(1, schedule.T, len(x_0)).round().long()[torch.randperm(len(x_0), generator=generator)]
    eps = torch.randn(x_0.shape, generator=generator)
    training = net.training
    net.eval()
    t, eps, losses, size = t.to(x_0.device), eps.to(x_0.device), [], max(1, AT_ONCE // x_0[0].numel())
    for part in (slice(start, start + size) for start in range(0, len(x_0), size)):
        losses.append(diffusion_loss(net, schedule, x_0[part], t[part], eps[part], prediction, **part_of(cond, part)))
    net.train(training)
    return float(torch.cat(losses).mean())


class Run:
    """The state of one training run: weights, their average, the optimiser, the step and the history."""

    def __init__(
        self,
        config: TrainConfig,
        data: Splits | None = None,
        net: nn.Module | None = None,
        condition: Condition | None = None,
        loss: Loss = diffusion_loss,
    ) -> None:
        self.config, self.step, self.history, self.loss, self.steps_here = config, 0, [], loss, 0
        splits = load(config.data, image_size=config.image_size) if data is None else data
        images = splits.train.images
        check_splits(splits, config.data)
        if config.sample_every and (len(images.shape) != 4 or images.shape[1] not in (1, 3)):
            raise ConfigError(f"sample_every draws grey or colour pictures, not {tuple(images.shape[1:])}: leave it 0")
        self.accelerator = accelerator_for(config)
        self.device, rank, processes = self.accelerator.device, self.accelerator.process_index, self.accelerator.num_processes
        if self.device.type == "cpu":
            keep_memory()
        config.check_batches(len(images), processes)
        self.feed = Feed(config, images, self.device, rank, processes)
        held_out = as_float(splits.val.images, torch.arange(min(HELD_OUT, len(splits.val.images))))
        self.train_split = Split(self.feed.images, splits.train.labels.to(self.device))
        self.val_split = Split(held_out.to(self.device), splits.val.labels.to(self.device))
        self.schedule = SCHEDULES[config.schedule](config.num_timesteps).to(self.device)
        self._build(net, tuple(images.shape[1:]), condition)
        self.watch, self.folder = FiniteWatch(), RunFolder(config.out, config.keep_last) if config.out else None

    def _build(self, net: nn.Module | None, shape: tuple[int, ...], condition: Condition | None) -> None:
        """The network, its average and its optimiser, tried once on one picture: what does not fit is refused before step 1."""
        config = self.config
        torch.manual_seed(config.seed)
        self.raw = (UNet(net_for(config, shape)) if net is None else net).to(self.device)
        classes = self.raw.config.num_classes if isinstance(self.raw, UNet) else 0
        self.condition = condition or label_condition(classes, config.label_dropout)
        first = torch.zeros(1, dtype=torch.long, device=self.device)
        with torch.no_grad():
            self.raw.eval()(self.val_split.images[:1], first + 1, **self.condition(self.val_split, first, None))
        if config.channels_last if config.channels_last is not None else self.device.type == "cuda" or config.compile != "off":
            self.raw.to(memory_format=torch.channels_last)
        self.ema = ema_of(self.raw, config.ema_decay)
        self.net = self.forward = self.accelerator.prepare(self.raw)  # autocast, data parallelism. May move the weights, so it comes first
        self.side = SideBySide(self.raw, self.ema, config.ema_decay) if config.compile != "off" and can_lie_together(self.raw) else None
        weights = [self.side.weights] if self.side else self.raw.parameters()
        self.optimizer = self.accelerator.prepare(torch.optim.AdamW(weights, config.lr, weight_decay=config.weight_decay, fused=True))
        if config.compile != "off":
            torch.backends.cudnn.benchmark |= self.device.type == "cuda"  # try the algorithms for each shape once, and keep the fastest
            self.forward = torch.compile(self.net, options=compiler_options(config.compile, self.device))

    def one_step(self) -> Tensor:
        """Algorithm 1, lines 2-5, once, in micro_batches parts; returns the mean loss of this process's share without waiting for it."""
        config, seed = self.config, self.config.seed * 1_000_003 + self.step
        torch.manual_seed(seed * 4_099 + self.accelerator.process_index)  # dropout, too, follows from (seed, step)
        self.raw.train()
        index, x_0 = self.feed(self.step)
        t, eps = batch_noise(config, x_0, self.step, config.batch_size)
        cond = self.condition(self.train_split, index, rng(config.seed, 3, self.step, device=self.device))
        t, eps, cond = t[self.feed.mine], eps[self.feed.mine], part_of(cond, self.feed.mine)
        total, size = torch.zeros((), device=self.device), len(x_0) // config.micro_batches
        for start in range(0, len(x_0), size):
            part = slice(start, start + size)
            with nullcontext() if part.stop == len(x_0) else self.accelerator.no_sync(self.net):  # gradients meet at the last part
                told = part_of(cond, part)
                losses = self.loss(self.forward, self.schedule, x_0[part], t[part], eps[part], config.prediction, **told)
                if config.weighting == "min_snr":
                    losses = losses * min_snr_weight(self.schedule, t[part], config.prediction).to(losses)
                loss = losses.sum() / len(x_0)
                self.accelerator.backward(loss)
            total += loss.detach()
        self._update(total)
        return total

    def _update(self, loss: Tensor) -> None:
        """Clip, step, average. A loss or gradient that is not finite is refused before it reaches the weights (on a GPU: right after)."""
        self.watch.look(self.step + 1, "training loss", loss)
        limit = self.config.grad_clip
        norm = self.side.clip(limit) if self.side else self.accelerator.clip_grad_norm_(self.raw.parameters(), limit)
        if self.config.precision != "fp16":  # fp16's loss scaling skips infinite gradients by itself
            self.watch.look(self.step + 1, "norm of the gradient", norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        self.optimizer.step()
        if self.side:
            self.side.average()
        else:
            self.optimizer.zero_grad(set_to_none=True)
            self.ema.update_parameters(self.raw)
        self.step, self.steps_here = self.step + 1, self.steps_here + 1
        if self.steps_here == SETTLED and self.device.type == "cpu" and self.config.steps - self.step >= LONG:
            large_pages()

    def log(self, losses: list[Tensor]) -> dict[str, float]:
        """Record the mean loss since the last call, over all processes, and the validation loss of the averaged network."""
        mean = float(self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))
        self.watch.look(self.step, "training loss", torch.tensor(mean))
        held_out = self.val_split.images
        cond = self.condition(self.val_split, torch.arange(len(held_out), device=self.device), None)
        val = validation_loss(self.ema.module, self.schedule, held_out, self.config.prediction, **cond)
        self.watch.look(self.step, "validation loss", torch.tensor(val))
        self.history.append({"step": self.step, "loss": mean, "val_loss": val})
        if self.config.tensorboard:
            self.accelerator.log(self.history[-1] | {"lr": learning_rate(self.config, self.step - 1)}, step=self.step)
        return self.history[-1]

    def save(self) -> None:
        """State for resuming, and the averaged network for sampling, both atomic; by the first process alone."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        meta = {"history": self.history, "config": asdict(self.config), "scaler": scaler}
        self.folder.save_state(self.step, pack(self.raw, self.ema, self.optimizer.optimizer, self.side), meta)
        self.publish()

    def publish(self) -> None:
        """What belongs to the newest state: the averaged network for sampling, and the log."""
        if is_registered(self.raw):
            save_model(self.folder.path, self.trained())
        self.folder.write_log(self.history)

    def resume(self) -> None:
        """Go on from the newest whole state in `out`, if there is one made with this configuration."""
        found = self.folder.load_state() if self.folder else None
        if found is not None:
            self._restore(*found)
        steps = self.accelerator.gather(torch.tensor([self.step], device=self.device)).unique().tolist()
        if len(steps) > 1:
            raise CheckpointError(f"processes found states of steps {steps}: {self.config.out} must lie on a disk that all of them share")
        if found is not None and self.accelerator.is_main_process:
            self.publish()  # a run that was killed between the state and the model

    def _restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Refuse a state of other settings; else take it."""
        mine, theirs = asdict(self.config), restore_tuples(meta["config"])
        changed = [k for k in mine if k not in FREE and str(mine[k]) != str(theirs.get(k, mine[k]))]
        if changed:
            raise CheckpointError(f"{self.config.out} holds a run with other settings ({', '.join(changed)}); choose another folder")
        unpack(tensors, self.raw, self.ema, self.optimizer.optimizer, self.side)
        if self.accelerator.scaler and meta.get("scaler"):
            self.accelerator.scaler.load_state_dict(meta["scaler"])
        self.step, self.history = meta["step"], meta["history"]

    def draw(self) -> None:
        """A grid of 16 samples of the averaged network in out/samples, from (seed, step)."""
        if not self.accelerator.is_main_process:
            return
        cond = self.condition(self.val_split, torch.arange(16, device=self.device) % len(self.val_split.labels), None)
        model = clip_x_0(as_eps_model(self.ema.module.eval(), self.schedule, self.config.prediction, **cond), self.schedule)
        x_T = torch.randn(16, *self.val_split.images.shape[1:], generator=rng(self.config.seed, 5)).to(self.device)
        pictures = ddim_sample(model, self.schedule, x_T=x_T, num_steps=min(50, self.schedule.T)).cpu()
        write_atomic(self.folder.path / "samples" / f"step_{self.step:08d}.png", png_bytes(pictures, 8, max(1, 112 // pictures.shape[-1])))

    def trained(self) -> Trained:
        """The averaged network, ready for sampling."""
        config = restore_tuples(asdict(self.config) | {"out": None})
        return Trained(self.ema.module.eval(), self.schedule, self.config.prediction, config, self.history)


def train(
    config: TrainConfig,
    data: Splits | None = None,
    net: nn.Module | None = None,
    condition: Condition | None = None,
    loss: Loss = diffusion_loss,
) -> Trained:
    """Run (or resume) a training run; returns the averaged network and its history. Quiet where CI is set.   Ho Algorithm 1.

    data, net: your own instead of config's; condition: keywords for the network, from (split, index (B,), generator); see feed.py.
    loss: what a step minimises, with diffusion_loss's arguments and answer. Validation always measures diffusion_loss.
    """
    with torch.random.fork_rng():
        run = Run(config, data, net, condition, loss)
        quiet = bool(os.environ.get("CI")) or not run.accelerator.is_main_process
        with opened(run):
            run.resume()
            with tqdm(total=config.steps, initial=run.step, disable=quiet, unit="step") as bar:
                _loop(run, bar)
    return run.trained()


def _loop(run: Run, bar: tqdm) -> None:
    """Step until the end; log, save and draw at their intervals."""
    config, losses, start = run.config, list[Tensor](), time.monotonic()
    due: Callable[[int], bool] = lambda every: every > 0 and (run.step % every == 0 or run.step == config.steps)  # noqa: E731
    while run.step < config.steps:
        losses.append(run.one_step())
        bar.update()
        if due(config.log_every) or (config.out and due(config.save_every)):
            row, seconds = run.log(losses), time.monotonic() - start
            speed = len(losses) * config.batch_size / seconds
            bar.set_postfix_str(f"{speed:.0f} images/s, loss {row['loss']:.4f}, validation {row['val_loss']:.4f}")
            losses.clear()
            start = time.monotonic()
        if due(config.save_every):
            run.save()
        if due(config.sample_every):
            run.draw()
