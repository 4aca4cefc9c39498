"""Training when things go wrong: killed while saving, a full disk, exploding numbers, two runs at once. Nothing saved is lost."""

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, Stop, same, smaller, some_pictures, state, still, train_until, trainer
from torch import Tensor, nn

from ddpm_course import load_model, train
from ddpm_course.data import Split, Splits
from ddpm_course.errors import CheckpointError, ConfigError, CourseError, DataError, NonFiniteError
from ddpm_course.runs import RunFolder

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")


# --- kill -9

KILLER = """
import json, os, random, signal, sys, time, warnings
os.environ["OMP_NUM_THREADS"] = "1"  # a child of a process with threads would wait for them for ever
sys.path.insert(0, sys.argv[1])
import dataclasses
from tiny_runs import smaller, some_pictures
from ddpm_course import train
from ddpm_course.runs import RunFolder
from ddpm_course.train import Run

out, kills, numbers = sys.argv[2], int(sys.argv[3]), random.Random(int(sys.argv[4]))
config, data, report = smaller(steps=300, batch_size=4, save_every=1, log_every=1, out=out), some_pictures(), []
Run(config, data)  # all imports, before the processes part
for _ in range(kills):
    before = max(RunFolder(out).steps(), default=0)
    child = os.fork()
    if child == 0:
        train(config, data)
        os._exit(0)
    while max(RunFolder(out).steps(), default=0) < before + 2:  # it runs, and saves again and again
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "the run ended by itself"
        time.sleep(0.002)
    time.sleep(numbers.uniform(0, 0.03))
    seen = max(RunFolder(out).steps())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = RunFolder(out).load_state()[1]["step"]
    report.append({"seen": seen, "found": found, "warnings": len(caught), "strays": [p for p in os.listdir(out) if p.count(".") > 2]})
print(json.dumps(report))
"""


def test_killed_again_and_again_while_saving_nothing_is_lost(tmp_path: Path) -> None:
    """A run that saves at every step is killed at random moments and started again, in the same folder; then it is compared."""
    out = tmp_path / "run"
    command = [sys.executable, "-c", KILLER, str(HERE), str(out), "5", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "CI": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert all(row["found"] >= row["seen"] and row["warnings"] == 0 for row in report)  # every state that was there is readable
    assert [row["found"] for row in report] == sorted(row["found"] for row in report)
    step = report[-1]["found"]
    config = smaller(steps=300, batch_size=4, save_every=1, log_every=1)
    # a run without any kill is in the same state at the same step
    again = dataclasses.replace(config, out=str(tmp_path / "whole"), keep_last=1)
    real = trainer.Run.one_step

    def one_step(run: trainer.Run) -> Tensor:
        if run.step == step:
            raise Stop
        return real(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Run, "one_step", one_step)
        with pytest.raises(Stop):
            train(again, some_pictures())
        with pytest.raises(Stop):  # the lock is free, strays are swept, the model belongs to the newest state
            train(dataclasses.replace(config, out=str(out)), some_pictures())
    assert same(state(out), state(tmp_path / "whole"))
    assert torch.equal(load_model(out).net.conv_in.weight, state(out)["ema.module.conv_in.weight"])
    step += 1  # a kill between the new state and dropping the oldest leaves three; the next save drops it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Run, "one_step", one_step)
        with pytest.raises(Stop):
            train(dataclasses.replace(config, out=str(out)), some_pictures())
    assert not [path for path in out.rglob(".*.????????")] and len(list(out.glob("state-*.safetensors"))) == 2 == len(
        list(out.glob("state-*.json"))
    )


def test_a_run_killed_between_its_last_state_and_its_model_still_gives_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = smaller(steps=3, out=str(tmp_path)), some_pictures()

    def killed(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_model", killed)
        with pytest.raises(Stop):
            train(config, data)
    assert RunFolder(tmp_path).steps() == [3] and not (tmp_path / "model.json").exists()
    trained = train(config, data)  # finished already: it is only read again
    assert torch.equal(load_model(tmp_path).net.conv_in.weight, trained.net.conv_in.weight) and (tmp_path / "log.csv").exists()


# --- damage


def test_a_run_goes_on_from_the_state_before_the_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = smaller(steps=6, save_every=2), some_pictures()
    train(dataclasses.replace(config, out=str(tmp_path / "whole")), data)
    parts = dataclasses.replace(config, out=str(tmp_path / "parts"), keep_last=3)
    train(parts, data)
    for step in (6, 4):
        file = next((tmp_path / "parts").glob(f"state-{step:08d}-*"))
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.warns(UserWarning, match="Falling back to the state before it"):
        train(parts, data)
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))
    for file in (tmp_path / "parts").glob("state-*.json"):
        file.write_text("{}")
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="every state in .* is damaged"):
        train(parts, data)
    (tmp_path / "parts" / ".lock").exists() and RunFolder(tmp_path / "parts").lock()  # the refusal gave the folder free


def test_a_state_that_does_not_fit_the_network_is_a_course_error(tmp_path: Path) -> None:
    config, data = smaller(steps=2, net=None, out=str(tmp_path)), some_pictures()
    train(config, data, still(TINY.net))
    with pytest.raises(CheckpointError, match="belongs to another network"):
        train(config, data, still(dataclasses.replace(TINY.net, base_channels=12)))


def test_processes_that_find_different_states_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer.Run(smaller(out=str(tmp_path)), some_pictures())
    monkeypatch.setattr(run.accelerator, "gather", lambda step: torch.cat([step, step + 4]))  # as if a second node had its own disk
    with pytest.raises(CheckpointError, match=r"processes found states of steps \[0, 4\]: .* must lie on a disk that all of them share"):
        run.resume()


# --- a full disk


@pytest.mark.parametrize("survives", [0, 1, 2, 3])
def test_a_full_disk_stops_the_run_and_leaves_the_previous_state(survives: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data, real, calls = smaller(steps=4, save_every=2, out=str(tmp_path)), some_pictures(), os.replace, []
    train_until(2, config, data, monkeypatch)
    before = state(tmp_path)

    def full(source: str, target: Path) -> None:
        if RunFolder(tmp_path).steps()[0] > 2 or str(target).count("state-00000004"):
            calls.append(target)
            if len(calls) > survives:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(CheckpointError, match="No space left on device; what was there before is intact"):
            train(config, data)
    assert survives >= 2 or same(before, state(tmp_path))
    assert load_model(tmp_path).net is not None and not list(tmp_path.glob(".*.????????"))
    train(config, data)  # there is room again: lock free, goes on
    assert RunFolder(tmp_path).steps()[0] == 4 and load_model(tmp_path).history[-1]["step"] == 4


# --- numbers that are not finite


class Exploding(nn.Module):
    """A network whose answer, or whose gradient alone, is not finite at one training step."""

    def __init__(self, at: int, value: float, where: str) -> None:
        super().__init__()
        self.layer, self.at, self.value, self.where, self.calls = nn.Linear(2, 2), at, value, where, 0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        y = self.layer(x_t)
        if self.training:
            self.calls += 1
            if self.calls == self.at and self.where == "loss":
                y = y * self.value
            elif self.calls == self.at:
                y.register_hook(lambda g: g * self.value)
        return y


def points() -> Splits:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    return Splits(*[Split(x, torch.zeros(40, dtype=torch.long))] * 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("where", "name"), [("loss", "training loss"), ("gradient", "norm of the gradient")])
def test_a_number_that_explodes_stops_the_run_within_the_step(where: str, name: str, value: float, tmp_path: Path) -> None:
    net = Exploding(5, value, where)
    config = dataclasses.replace(TINY, net=None, steps=9, save_every=1, keep_last=9, out=str(tmp_path))
    with pytest.raises(NonFiniteError, match=rf"the {name} is (nan|inf) at step 5; lower lr or grad_clip"):
        train(config, points(), net)
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())  # it never reached the weights
    assert RunFolder(tmp_path).steps() == [4, 3, 2, 1]
    assert all(bool(torch.isfinite(x).all()) for x in state(tmp_path).values() if x.is_floating_point())
    RunFolder(tmp_path).lock()  # free again


def test_a_batch_that_is_not_a_number_stops_the_run_at_its_step(tmp_path: Path) -> None:
    data = points()
    data.train.images[17] = math.nan  # one example of 40, met in the first epoch
    with pytest.raises(NonFiniteError, match="the training loss is nan at step [1-5];"):
        train(dataclasses.replace(TINY, net=None, steps=9, save_every=1, out=str(tmp_path)), data, Exploding(0, 0.0, "loss"))
    assert all(bool(torch.isfinite(x).all()) for x in (state(tmp_path) if RunFolder(tmp_path).steps() else {}).values())


def test_a_validation_loss_that_is_not_a_number_is_never_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "validation_loss", lambda *_, **__: math.nan)
    with pytest.raises(NonFiniteError, match="validation loss is nan at step 2"):
        train(smaller(steps=4, log_every=2, out=str(tmp_path)), some_pictures())
    assert RunFolder(tmp_path).steps() == []


# --- two runs in one folder


def test_the_second_run_in_a_folder_is_refused_and_the_first_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data, real, told = smaller(steps=3, out=str(tmp_path)), some_pictures(), trainer.Run.one_step, []

    def one_step(run: trainer.Run) -> Tensor:
        if run.step == 1 and not told:
            told.append("")
            with pytest.raises(CheckpointError, match=r"another run is writing to .*process.*choose another folder") as caught:
                train(config, data)
            told[0] = str(caught.value)
        return real(run)

    monkeypatch.setattr(trainer.Run, "one_step", one_step)
    assert train(config, data).history[-1]["step"] == 3 and str(os.getpid()) in told[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_folder_is_free_after_an_exception(error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: trainer.Run) -> Tensor:
        raise error

    config, data = smaller(steps=2, out=str(tmp_path)), some_pictures()
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Run, "one_step", fails)
        with pytest.raises(error):
            train(config, data)
    assert not (tmp_path / ".owner.json").exists() and train(config, data).history[-1]["step"] == 2


# --- refused before the first step, and at once


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"data": "/nowhere/at/all"}, DataError, "is no folder"),
        ({"data": "digits", "image_size": 16}, DataError, "digits has its own size; image_size = 16"),
        ({"batch_size": 5000}, ConfigError, "batch_size = 5000 exceeds the 1438 training pictures"),
        ({"batch_size": 9, "micro_batches": 2}, ConfigError, "must be a multiple of processes x micro_batches"),
        ({"net": dataclasses.replace(TINY.net, image_size=16, channels=3)}, CourseError, "takes pictures"),
        ({"device": "cuda"}, ConfigError, "device = 'cuda'"),
    ],
)
def test_refusals_come_at_once_and_write_nothing(
    change: dict[str, object], error: type[CourseError], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = dataclasses.replace(TINY, out=str(tmp_path / "run"))
    import accelerate  # noqa: F401  (so that the clock sees the refusal alone)

    train_data = trainer.load("digits")
    start = time.process_time()
    with pytest.raises(error, match=text):
        train(dataclasses.replace(config, **change))
    assert time.process_time() - start < 1 and not (tmp_path / "run").exists() and train_data
