"""Where a training run lives: its devices and processes, and its folder - a lock, the last few states with a way back, the log."""

import csv
import io
import json
import os
import platform
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .checkpoint import load_tensors, save_tensors, write_atomic
from .config import TrainConfig
from .errors import CheckpointError, ConfigError, NonFiniteError

STATE = re.compile(r"state-(\d{8})\.json")


def restore_tuples(x: Any) -> Any:
    """JSON's lists back to tuples, so that a stored configuration compares equal."""
    if isinstance(x, dict):
        return {key: restore_tuples(value) for key, value in x.items()}
    return tuple(restore_tuples(value) for value in x) if isinstance(x, list) else x


def accelerator_for(config: TrainConfig) -> Any:
    """Hugging Face's Accelerator: it knows the device, the number of processes and the precision."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': this machine or this torch has none; take 'cpu' or 'auto'")
    AcceleratorState._reset_state()  # a notebook may train twice, with another precision
    if not torch.distributed.is_initialized():
        PartialState._reset_state()
    precision, log_with = "no" if config.precision == "fp32" else config.precision, "tensorboard" if config.tensorboard else None
    try:
        return Accelerator(mixed_precision=precision, cpu=config.device == "cpu", log_with=log_with, project_dir=config.out)
    except ValueError as error:
        raise ConfigError(f"accelerate refuses precision {config.precision} on device {config.device}: {error}") from error


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
        whole = {f"state-{step:08d}" for step in self.steps()}
        strays = [weights for weights in self.path.glob("state-*.safetensors") if weights.name[:14] not in whole]
        for stray in [*strays, *self.path.glob(".*.????????")]:  # of a run that was killed while writing
            stray.unlink(missing_ok=True)
        write_atomic(owner, json.dumps({"process": os.getpid(), "host": platform.node()}).encode())

    def unlock(self) -> None:
        """Give the folder free."""
        (self.path / ".owner.json").unlink(missing_ok=True)
        self._lock.release()

    def steps(self) -> list[int]:
        """The steps of all states that lie here, newest first."""
        return sorted((int(found[1]) for path in self.path.glob("state-*.json") if (found := STATE.fullmatch(path.name))), reverse=True)

    def save_state(self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Write the state of a step, then drop all but the newest keep_last. NonFiniteError, and no file, if a tensor is not finite."""
        bad = [name for name, x in tensors.items() if x.is_floating_point() and not bool(torch.isfinite(x).all())]
        if bad:
            raise NonFiniteError(f"{bad[0]} is not finite at step {step}; nothing was written. Lower lr or grad_clip, or use fp32")
        save_tensors(self.path, f"state-{step:08d}", tensors, meta | {"step": step})
        for old in self.steps()[self.keep_last :]:
            (self.path / f"state-{old:08d}.json").unlink(missing_ok=True)  # the JSON first: without it the weights do not count
            for weights in self.path.glob(f"state-{old:08d}-*.safetensors"):
                weights.unlink(missing_ok=True)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that is whole, warning of damaged ones; None if there is none. CheckpointError if all are damaged."""
        for step in self.steps():
            try:
                return load_tensors(self.path, f"state-{step:08d}")
            except CheckpointError as error:
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
