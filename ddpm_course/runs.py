"""Where a training run lives: its devices and processes, and its folder - a lock, the last few states with a way back, the log."""

import csv
import importlib.util
import io
import json
import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from .checkpoint import load_tensors, save_tensors, write_atomic
from .config import TrainConfig
from .errors import CheckpointError, ConfigError, NonFiniteError
from .side_by_side import SideBySide

STATE = re.compile(r"state-(\d{8})\.json")
TEMPORARY = re.compile(r"\..+\.(json|safetensors|csv|png)\.\w{8}")  # as write_atomic names them


def restore_tuples(x: Any) -> Any:
    """JSON's lists back to tuples, so that a stored configuration compares equal."""
    if isinstance(x, dict):
        return {key: restore_tuples(value) for key, value in x.items()}
    return tuple(restore_tuples(value) for value in x) if isinstance(x, list) else x


def accelerator_for(config: TrainConfig) -> Any:
    """Hugging Face's Accelerator: it knows the device, the number of processes and the precision."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import GradientAccumulationPlugin

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': this machine or this torch has none; take 'cpu' or 'auto'")
    if config.tensorboard and not (importlib.util.find_spec("tensorboard") or importlib.util.find_spec("tensorboardX")):
        raise ConfigError('tensorboard is not installed: pip install "ddpm-course[tensorboard]", or leave it off; there is log.csv, too')
    AcceleratorState._reset_state()  # a notebook may train twice, with another precision
    if not torch.distributed.is_initialized():
        PartialState._reset_state()
    idle = config.net is not None and config.net.time_as == "none"  # its time embedding gets no gradient
    try:
        accelerator = Accelerator(
            mixed_precision="no" if config.precision == "fp32" else config.precision,
            cpu=config.device == "cpu",
            log_with="tensorboard" if config.tensorboard else None,
            project_dir=config.out,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # not the launcher's: micro_batches does it
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=idle)],
        )
    except ValueError as error:
        raise ConfigError(f"accelerate refuses precision {config.precision} on device {config.device}: {error}") from error
    if accelerator.distributed_type.value not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise ConfigError(f"{accelerator.distributed_type.value} cuts the network up, states and averages need it whole: launch without it")
    return accelerator


def compiler_options(mode: str, device: torch.device) -> dict[str, Any]:
    """What torch.compile's mode stands for. On a CPU seeds are drawn by torch: the compiler would draw them again for every few numbers."""
    from torch._inductor import list_mode_options  # takes a second

    return list_mode_options(mode) | {"fallback_random": device.type == "cpu"}


def pack(net: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, side: SideBySide | None = None) -> dict[str, Tensor]:
    """All tensors of a run under one name each, copied to the CPU; the same ones if the weights lie side by side."""
    tensors = {f"net.{k}": x for k, x in net.state_dict().items()} | {f"ema.{k}": x for k, x in ema.state_dict().items()}
    states = optimizer.state_dict()["state"]
    for i, state in (side.cut(states) if side else states).items():
        tensors |= {f"optimizer.{i}.{k}": x for k, x in state.items()}
    return {name: x.detach().to("cpu", copy=True) for name, x in tensors.items()}


def unpack(
    tensors: dict[str, Tensor], net: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, side: SideBySide | None = None
) -> None:
    """Put what pack took back into its places. CheckpointError if they are those of another network.

    The optimiser's numbers get the memory layout of their weights: torch's fused AdamW walks through both as they lie in memory.
    """
    weights = side.own if side else [weight for group in optimizer.param_groups for weight in group["params"]]
    part = lambda name: {k.removeprefix(name): x for k, x in tensors.items() if k.startswith(name)}  # noqa: E731
    try:
        net.load_state_dict(part("net."))
        ema.load_state_dict(part("ema."))
        state, states = optimizer.state_dict(), dict[int, dict[str, Tensor]]()
        for key, x in part("optimizer.").items():
            i, name = key.split(".")
            like = weights[int(i)]
            laid = torch.empty_like(like, dtype=x.dtype, device=x.device).copy_(x) if x.shape == like.shape else x
            states.setdefault(int(i), {})[name] = laid
        optimizer.load_state_dict(state | {"state": side.join(states) if side else states})
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(f"the saved state belongs to another network; choose another folder ({error})") from error


class RunFolder:
    """One run's folder. `lock` keeps a second run out; a killed run leaves no lock behind, and its stray files are swept."""

    def __init__(self, path: str | Path, keep_last: int = 2) -> None:
        self.path, self.keep_last = Path(path), keep_last
        self._lock = FileLock(self.path / ".lock")

    def lock(self) -> None:
        """Take the folder, or raise a CheckpointError that names the run which has it."""
        owner = self.path / ".owner.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            who = owner.read_text().strip() if owner.exists() else "unknown"
            raise CheckpointError(f"another run is writing to {self.path} ({who}); choose another folder, or stop that run") from error
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.path}: {error}; choose another folder") from error
        try:
            self._sweep()
            write_atomic(owner, json.dumps({"process": os.getpid(), "host": platform.node()}).encode())
        except OSError:
            self.unlock()
            raise

    def _sweep(self) -> None:
        """Remove what a run left that was killed while writing: weights without a JSON, temporary files."""
        whole = {f"state-{step:08d}" for step in self.steps()}
        strays = [weights for weights in self.path.glob("state-*.safetensors") if weights.name[:14] not in whole]
        for stray in [*strays, *self.path.glob(".*.????????"), *self.path.glob("samples/.*.????????")]:
            if stray in strays or TEMPORARY.fullmatch(stray.name):
                stray.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Give the folder free."""
        (self.path / ".owner.json").unlink(missing_ok=True)
        self._lock.release()

    def steps(self) -> list[int]:
        """The steps of all states that lie here, newest first."""
        return sorted((int(found[1]) for path in self.path.glob("state-*.json") if (found := STATE.fullmatch(path.name))), reverse=True)

    def save_state(self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Write the state of a step, then drop all but the newest keep_last. NonFiniteError, and no file, if a tensor is not finite.

        States of later steps are dropped, too: they are damaged ones that this run has fallen back from.
        """
        bad = [name for name, x in tensors.items() if x.is_floating_point() and not bool(torch.isfinite(x).all())]
        if bad:
            raise NonFiniteError(f"{bad[0]} is not finite at step {step}; nothing was written. Lower lr or grad_clip, or use fp32")
        save_tensors(self.path, f"state-{step:08d}", tensors, meta | {"step": step})
        kept = [at for at in self.steps() if at <= step][: self.keep_last]
        for old in set(self.steps()) - set(kept):
            (self.path / f"state-{old:08d}.json").unlink(missing_ok=True)  # the JSON first: without it the weights do not count
            for weights in self.path.glob(f"state-{old:08d}-*.safetensors"):
                weights.unlink(missing_ok=True)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that is whole, warning of damaged ones; None if there is none. CheckpointError if all are damaged."""
        for step in self.steps():
            try:
                return load_tensors(self.path, f"state-{step:08d}")
            except OSError as error:  # a CheckpointError, or the disk itself
                warnings.warn(f"{error} Falling back to the state before it.", stacklevel=2)
        if self.steps():
            raise CheckpointError(f"every state in {self.path} is damaged; train again in another folder")
        return None

    def write_log(self, history: list[dict[str, float]]) -> None:
        """log.csv: a line for each log interval."""
        rows = io.StringIO()
        writer = csv.DictWriter(rows, list(history[-1]) if history else ["step"])
        writer.writeheader()
        writer.writerows(history)
        write_atomic(self.path / "log.csv", rows.getvalue().encode())


class FiniteWatch:
    """Raises NonFiniteError when a number of a step is not finite: on the CPU at once, on a GPU as soon as it arrives, without waiting."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, Tensor, Any]] = []

    def look(self, step: int, name: str, value: Tensor) -> None:
        """value: one number of this step; earlier ones that have arrived in the meantime are looked at, too."""
        if value.device.type == "cpu":
            return self._check(step, name, value)
        if value.device.type == "cuda":
            copy, event = torch.empty(value.shape, dtype=value.dtype, pin_memory=True), torch.cuda.Event()
            copy.copy_(value.detach(), non_blocking=True)
            event.record()
            self.pending.append((step, copy, event))
        while self.pending and self.pending[0][2].query():
            at, copy, _ = self.pending.pop(0)
            self._check(at, name, copy)

    @staticmethod
    def _check(step: int, name: str, value: Tensor) -> None:
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteError(
                f"the {name} is {float(value)} at step {step}; lower lr or grad_clip, look at the data, use fp32. Saved states are finite"
            )


@contextmanager
def opened(run: Any) -> Iterator[None]:
    """Lock a Run's folder, start its logs, and leave both in order whatever happens."""
    main = run.accelerator.is_main_process
    if run.folder and main:
        run.folder.lock()
    try:
        run.accelerator.wait_for_everyone()
        if run.config.tensorboard:
            run.accelerator.init_trackers("logs")
        yield
    finally:
        run.feed.close()
        run.accelerator.unwrap_model(run.net, keep_fp32_wrapper=False)
        if run.config.tensorboard:
            for tracker in run.accelerator.trackers:  # end_training would end the processes' group as well
                tracker.finish()
        if run.folder and main:
            run.folder.unlock()
