"""Training: it learns, it resumes bit for bit, and it leaves the world as it found it."""

import csv
import dataclasses
import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm_course import CourseError, TrainConfig, UNetConfig, cosine_schedule, linear_schedule, load_model, train
from ddpm_course.data import digits
from ddpm_course.errors import CheckpointError, ConfigError, DataError, NonFiniteError, ScheduleError
from ddpm_course.runs import RunFolder
from ddpm_course.train import at_scale, batch_indices, batch_noise, learning_rate, validation_loss

module = importlib.import_module("ddpm_course.train")  # the name ddpm_course.train is the function
NET = UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4, dropout=0.1)
TINY = TrainConfig(net=NET, num_timesteps=50, steps=8, batch_size=8, warmup=2, log_every=3, save_every=4)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")


def state(folder: Path) -> dict[str, Tensor]:
    return RunFolder(folder).load_state()[0]


def test_loss_falls_and_dropout_is_off_afterwards() -> None:
    config = dataclasses.replace(TINY, steps=45, batch_size=32, log_every=15)
    trained = train(config)
    losses = [row["val_loss"] for row in trained.history]
    assert [row["step"] for row in trained.history] == [15, 30, 45]
    assert 0.7 > losses[0] > losses[1] > losses[2] and losses[2] < 0.6
    assert not trained.net.training and trained.prediction == "v"
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 50])
    with torch.no_grad():
        assert torch.equal(trained.net(x, t), trained.net(x, t))
    assert torch.equal(trained.schedule.alpha_bar, cosine_schedule(50).alpha_bar)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The state after TINY without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    train(dataclasses.replace(TINY, out=str(folder)))
    return state(folder)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_resuming_is_bit_exact(stop: int, whole: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    real = module.Run.one_step

    def one_step(run: object) -> Tensor:
        if run.step == stop:
            raise Stop
        return real(run)

    parts = dataclasses.replace(TINY, out=str(tmp_path / "parts"), save_every=stop)
    with monkeypatch.context() as patch:
        patch.setattr(module.Run, "one_step", one_step)
        with pytest.raises(Stop):
            train(parts)
    assert RunFolder(tmp_path / "parts").load_state()[1]["step"] == stop
    torch.manual_seed(999)  # whatever the new process has drawn before
    train(dataclasses.replace(parts, save_every=100))
    again = state(tmp_path / "parts")
    assert whole.keys() == again.keys() and all(torch.equal(whole[key], again[key]) for key in whole)
    assert any(key.startswith("optimizer.0.exp_avg") for key in whole) and "ema.n_averaged" in whole


def test_what_is_saved_is_the_average_and_the_log(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, out=str(tmp_path))
    trained, saved = train(config), load_model(tmp_path)
    for key, x in saved.net.state_dict().items():
        assert torch.equal(x, trained.net.state_dict()[key])
        assert torch.equal(x, state(tmp_path)[f"ema.module.{key}"])
    assert any(not torch.equal(x, state(tmp_path)[f"net.{key}"]) for key, x in saved.net.state_dict().items())
    assert saved.history == trained.history and saved.config["steps"] == 8 and saved.config["out"] is None
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [3, 4, 6, 8]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in trained.history]


def test_a_finished_run_is_only_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(TINY, steps=3, out=str(tmp_path))
    first = train(config)
    monkeypatch.setattr(module.Run, "one_step", lambda run: pytest.fail("trained again"))
    again = train(config)
    assert again.history == first.history
    assert all(torch.equal(a, b) for a, b in zip(first.net.parameters(), again.net.parameters(), strict=True))


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=2, out=str(tmp_path))
    train(config)
    for change in ({"lr": 1e-3}, {"seed": 1}, {"net": dataclasses.replace(NET, base_channels=12)}, {"prediction": "eps"}):
        with pytest.raises(CheckpointError, match=rf"other settings \({next(iter(change))}\); choose another folder"):
            train(dataclasses.replace(config, **change))
    train(dataclasses.replace(config, save_every=7))  # how often to save is no setting of the run


def test_same_seed_same_network_and_the_worlds_generator_is_left_alone() -> None:
    config = dataclasses.replace(TINY, steps=3)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = train(config)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    again, other = train(config), train(dataclasses.replace(config, seed=1))
    weights = [torch.cat([p.detach().flatten() for p in run.net.parameters()]) for run in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_quiet_under_ci_and_a_bar_elsewhere(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    train(dataclasses.replace(TINY, steps=2))
    assert capfd.readouterr() == ("", "")
    monkeypatch.delenv("CI")
    train(dataclasses.replace(TINY, steps=2))
    printed = capfd.readouterr()
    assert printed.out == "" and "2/2" in printed.err and "validation 0." in printed.err and "images/s" in printed.err


def test_nan_stops_the_run_and_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.Run.one_step
    monkeypatch.setattr(module.Run, "one_step", lambda run: real(run) * (float("nan") if run.step == 5 else 1.0))
    with pytest.raises(NonFiniteError, match="training loss is nan at step 6"):
        train(dataclasses.replace(TINY, out=str(tmp_path)))
    assert all(bool(torch.isfinite(x).all()) for x in state(tmp_path).values())


def test_each_epoch_sees_every_picture_once_in_a_new_order() -> None:
    config = dataclasses.replace(TINY, batch_size=4)
    epochs = [torch.cat([batch_indices(config, 22, 5 * epoch + k) for k in range(5)]) for epoch in range(3)]
    for epoch in epochs:
        assert len(epoch) == 20 == len(epoch.unique()) and int(epoch.min()) >= 0 and int(epoch.max()) < 22
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


def test_times_are_uniform_in_1_to_T() -> None:
    config, x_0 = dataclasses.replace(TINY, num_timesteps=10), torch.zeros(5000, 1)
    t, eps = batch_noise(config, x_0, 3)
    counts = torch.bincount(t, minlength=11)
    assert t.dtype == torch.int64 and int(counts[0]) == 0 and len(counts) == 11 and int(counts[1:].min()) > 400
    assert abs(float(eps.mean())) < 0.06 and abs(float(eps.std()) - 1) < 0.05
    again, other = batch_noise(config, x_0, 3), batch_noise(config, x_0, 4)
    assert torch.equal(t, again[0]) and torch.equal(eps, again[1]) and not torch.equal(t, other[0])


def test_learning_rate_warms_up_and_cools_down() -> None:
    config = TrainConfig(lr=1.0, warmup=10, steps=100, final_lr=0.1)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3) and rates[4] == pytest.approx(0.5, rel=2e-2)
    assert max(rates) == rates[9] > 0.95 and all(a > b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert rates[50] == pytest.approx(0.55, rel=1e-5) and rates[100] == pytest.approx(0.1, rel=1e-5)
    assert learning_rate(TrainConfig(lr=1.0, warmup=0), 0) == pytest.approx(1.0)


def test_validation_is_fixed_and_leaves_the_mode_alone() -> None:
    torch.manual_seed(0)
    net, x_0, schedule = module.UNet(NET).train(), digits().val.images[:32], linear_schedule(50)
    first = validation_loss(net, schedule, x_0, "eps")
    assert first == validation_loss(net, schedule, x_0, "eps") and net.training
    assert first != validation_loss(net, schedule, x_0, "eps", seed=1)
    assert validation_loss(lambda_net(0.0), schedule, x_0, "eps") == pytest.approx(1, abs=0.1)  # E[eps^2]


def lambda_net(value: float) -> torch.nn.Module:
    class Constant(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return torch.full_like(x_t, value)

    return Constant()


def test_one_switch_for_two_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDPM_COURSE_SCALE", raising=False)
    assert at_scale(1, 2) == 1
    monkeypatch.setenv("DDPM_COURSE_SCALE", "gpu")
    assert at_scale(1, 2) == 2
    monkeypatch.setenv("DDPM_COURSE_SCALE", "tpu")
    with pytest.raises(CourseError, match="unknown DDPM_COURSE_SCALE 'tpu'"):
        at_scale(1, 2)


def test_refusals_come_before_the_first_step() -> None:
    for change, error, text in [
        ({"steps": 0}, ConfigError, "steps = 0"),
        ({"batch_size": 0}, ConfigError, "batch_size = 0"),
        ({"lr": -1.0}, ConfigError, "lr = -1.0"),
        ({"batch_size": 2000}, ConfigError, "batch_size = 2000 exceeds the 1438 training pictures of 'digits'"),
        ({"schedule": "log"}, CourseError, "unknown schedule 'log'; known: linear"),
        ({"prediction": "x0"}, CourseError, "unknown prediction 'x0'"),
        ({"data": "faces"}, DataError, "unknown data set 'faces'"),
        ({"num_timesteps": 0}, ScheduleError, "T = 0"),
        ({"ema_decay": 1.0}, ConfigError, "ema_decay = 1.0"),
    ]:
        with pytest.raises(error, match=text):
            train(dataclasses.replace(TINY, **change))
