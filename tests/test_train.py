"""Training: it learns, it resumes bit for bit, its shortcuts change nothing, and it leaves the world as it found it."""

import csv
import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import NET, TINY, picture_files, same, smaller, some_pictures, state, still, train_until, trainer
from torch import Tensor, nn
from torch._inductor import list_mode_options

from ddpm_course import CourseError, TrainConfig, UNet, cosine_schedule, linear_schedule, load_model, min_snr_weight, train
from ddpm_course.data import Split, Splits, digits, split
from ddpm_course.errors import CheckpointError, ConfigError, DataError, ScheduleError
from ddpm_course.losses import diffusion_loss
from ddpm_course.models.blocks import ResBlock
from ddpm_course.pictures import folder
from ddpm_course.runs import RunFolder, compiler_options, pack, unpack
from ddpm_course.train import batch_indices, batch_noise, learning_rate, validation_loss

FORTY = smaller(steps=40, batch_size=4, flip=True, log_every=10, save_every=40)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")


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
def forty(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Path]:
    """The state after FORTY steps without an interruption, on pictures in memory; and the folder of these pictures."""
    files, out = picture_files(tmp_path_factory.mktemp("files"), 24), tmp_path_factory.mktemp("forty")
    train(dataclasses.replace(FORTY, out=str(out)), pictures_of(files, resident=True))
    return state(out), files


def pictures_of(files: Path, resident: bool) -> Splits:
    """The same split of the same files, decoded once, or streamed."""
    pictures, labels = folder(files)
    return split(pictures.resident() if resident else pictures, labels)


@pytest.mark.parametrize(("stop", "first", "second"), [(1, True, True), (7, False, False), (20, True, False), (39, False, True)])
def test_resuming_is_bit_exact(
    stop: int, first: bool, second: bool, forty: tuple[dict[str, Tensor], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout and flips; first and second part with pictures in memory (True) or streamed."""
    config = dataclasses.replace(FORTY, out=str(tmp_path / "parts"))
    train_until(stop, config, pictures_of(forty[1], first), monkeypatch)
    assert RunFolder(tmp_path / "parts").load_state()[1]["step"] == stop
    torch.manual_seed(999)  # whatever the new process has drawn before
    train(config, pictures_of(forty[1], second))
    assert same(forty[0], state(tmp_path / "parts"))
    assert any(key.startswith("optimizer.0.exp_avg") for key in forty[0]) and int(forty[0]["ema.n_averaged"]) == 40


def test_resuming_with_channels_last_is_bit_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's fused AdamW takes weights and averages as they lie in memory; files keep no layout."""
    config = dataclasses.replace(TINY, channels_last=True)
    whole, parts = (dataclasses.replace(config, out=str(tmp_path / name)) for name in ("whole", "parts"))
    train(whole, some_pictures())
    train_until(3, parts, some_pictures(), monkeypatch)
    train(parts, some_pictures())
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))


def test_a_state_is_laid_out_like_the_weights_it_belongs_to() -> None:
    one, other = (trainer.Run(dataclasses.replace(TINY, channels_last=last), some_pictures()) for last in (False, True))
    one.one_step()
    unpack(pack(one.raw, one.ema, one.optimizer.optimizer), other.raw, other.ema, other.optimizer.optimizer)
    other.step = one.step
    for run in (one, other):
        run.one_step()  # the second step, with averages of the first
        for weight, numbers in run.optimizer.optimizer.state.items():
            assert numbers["exp_avg"].stride() == numbers["exp_avg_sq"].stride() == weight.stride()
    a, b = (torch.cat([p.flatten() for p in run.raw.parameters()]) for run in (one, other))
    assert (a - b).abs().mean() < 1e-3 * learning_rate(TINY, 1)


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
    monkeypatch.setattr(trainer.Run, "one_step", lambda run: pytest.fail("trained again"))
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
    net, x_0, schedule = UNet(NET).train(), digits().val.images[:32], linear_schedule(50)
    first = validation_loss(net, schedule, x_0, "eps")
    assert first == validation_loss(net, schedule, x_0, "eps") and net.training
    assert first != validation_loss(net, schedule, x_0, "eps", seed=1)
    assert validation_loss(lambda_net(0.0), schedule, x_0, "eps") == pytest.approx(1, abs=0.1)  # E[eps^2]


def lambda_net(value: float) -> torch.nn.Module:
    class Constant(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return torch.full_like(x_t, value)

    return Constant()


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


# --- shortcuts that must change nothing


def first_gradient(config: TrainConfig, monkeypatch: pytest.MonkeyPatch, data: Splits | None = None) -> tuple[float, list[Tensor]]:
    """The loss and the gradient of the first step."""
    found = []

    class Seen(trainer.Run):
        def _update(self, loss: Tensor) -> None:
            found.extend(p.grad.clone() for p in self.raw.parameters())

    run = Seen(config, data or some_pictures(), still(NET))
    return float(run.one_step()), found


@pytest.mark.parametrize("change", [{"micro_batches": 2}, {"micro_batches": 8}, {"micro_batches": 4, "weighting": "min_snr"}])
def test_accumulated_micro_batches_equal_the_full_batch(change: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    parts = dataclasses.replace(TINY, **change)
    whole = dataclasses.replace(parts, micro_batches=1)
    (loss, gradient), (loss_2, gradient_2) = first_gradient(whole, monkeypatch), first_gradient(parts, monkeypatch)
    assert loss_2 == pytest.approx(loss, abs=1e-6) and max(float(g.abs().max()) for g in gradient) > 1e-3
    assert max(float((a - b).abs().max()) for a, b in zip(gradient, gradient_2, strict=True)) < 1e-6


def test_a_launchers_accumulation_does_not_divide_the_gradient_again(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = first_gradient(TINY, monkeypatch)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    got = first_gradient(TINY, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(wanted[1], got[1], strict=True))


def at_the_door(precision: str) -> tuple[list[Tensor], set[torch.dtype], set[torch.dtype], list[Tensor]]:
    """x_t of each training step; types inside the network and of its answers; the losses."""
    net, seen, inside, losses = still(NET), [], set(), []

    def door(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if module.training:
            seen.append(arguments[0].clone())

    net.register_forward_pre_hook(door)
    net.conv_out.register_forward_hook(lambda module, _, y: inside.add(y.dtype) if module.training else None)
    run = trainer.Run(dataclasses.replace(TINY, precision=precision, flip=True), some_pictures(), net)
    losses = [run.one_step() for _ in range(3)]
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert run.schedule.beta.dtype == run.schedule.alpha_bar.dtype == torch.float64
    x_t = torch.zeros(1, 1, 8, 8)
    return seen, inside, {run.net.train()(x_t, torch.tensor([1])).dtype}, losses


def test_autocast_reaches_the_network_alone() -> None:
    full, half = at_the_door("fp32"), at_the_door("bf16")
    assert full[1] == {torch.float32} and half[1] == {torch.bfloat16} and half[2] == {torch.float32}
    assert len(full[0]) >= 3 and all(x.dtype == torch.float32 for x in half[0])
    assert all(torch.equal(a, b) for a, b in zip(full[0][:3], half[0][:3], strict=True))
    assert all(loss.dtype == torch.float32 for loss in half[3])
    for a, b in zip(full[3], half[3], strict=True):
        assert float(a) != float(b) and float(a) == pytest.approx(float(b), rel=0.02)


def test_the_first_loss_is_algorithm_1_by_hand() -> None:
    for weighting, prediction in (("simple", "v"), ("min_snr", "v"), ("min_snr", "eps")):
        config = dataclasses.replace(TINY, weighting=weighting, prediction=prediction)
        net, data = still(NET), some_pictures()
        index = batch_indices(config, 40, 0)
        x_0 = data.train.images[index].float() / 127.5 - 1
        t, eps = batch_noise(config, x_0, 0)
        schedule = cosine_schedule(50)
        losses = diffusion_loss(net, schedule, x_0, t, eps, prediction).detach()
        weight = min_snr_weight(schedule, t, prediction).float() if weighting == "min_snr" else torch.ones(8)
        assert weighting == "simple" or float(weight.std()) > 0.01
        got = trainer.Run(config, data, still(NET)).one_step()
        assert float(got) == pytest.approx(float((losses * weight).mean()), rel=1e-5)


def test_channels_last_changes_the_layout_alone() -> None:
    runs = [trainer.Run(dataclasses.replace(TINY, channels_last=last), some_pictures(), still(NET)) for last in (False, True)]
    layouts = [run.raw.down[0][0].conv_1.weight.is_contiguous(memory_format=torch.channels_last) for run in runs]
    assert layouts == [False, True]
    a, b = (float(run.one_step()) for run in runs)
    assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "wanted"), [("default", {}), ("reduce-overhead", {"triton.cudagraphs": True}), ("max-autotune", {"max_autotune": True})]
)
def test_compile_is_asked_for_by_its_mode(mode: str, wanted: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, calls = [], []

    def fake(net: nn.Module, options: dict[str, bool]) -> object:
        asked.append(options)
        return lambda *a, **k: calls.append(1) or net(*a, **k)

    monkeypatch.setattr(torch, "compile", fake)
    trainer.Run(dataclasses.replace(TINY, compile=mode), some_pictures()).one_step()
    assert calls == [1] and asked == [list_mode_options(mode) | {"fallback_random": True}]
    assert wanted.items() <= asked[0].items() and (wanted or len(asked[0]) == 1)
    trainer.Run(TINY, some_pictures())
    assert len(asked) == 1


def test_only_a_cpu_draws_outside_what_is_compiled() -> None:
    options = [compiler_options("max-autotune", torch.device(name)) for name in ("cpu", "cuda")]
    assert [o.pop("fallback_random") for o in options] == [True, False] and options[0] == options[1]


def test_long_runs_on_a_cpu_get_large_pages_once_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    at = []
    for steps in (trainer.LONG + trainer.SETTLED, trainer.LONG + trainer.SETTLED - 1):
        run = trainer.Run(dataclasses.replace(TINY, steps=steps), some_pictures())
        monkeypatch.setattr(trainer, "large_pages", lambda run=run: at.append(run.step))
        for _ in range(trainer.SETTLED + 2):
            run.one_step()
    assert at == [trainer.SETTLED]


def test_checkpointing_trains_the_same_network(tmp_path: Path) -> None:
    config, data = dataclasses.replace(TINY, steps=3), some_pictures()
    plain, again = (train(dataclasses.replace(config, net=dataclasses.replace(NET, checkpointing=on)), data) for on in (False, True))
    for a, b in zip(plain.net.parameters(), again.net.parameters(), strict=True):  # dropout is drawn again, too
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


# --- the average, dropout, labels


class Counting(nn.Module):
    """A network with a buffer that changes at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.norm(self.layer(x_t))


def points(n: int = 64) -> Splits:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return Splits(*[Split(x, torch.zeros(n, dtype=torch.long))] * 3)


def test_the_average_leaves_buffers_out_and_warms_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Counting()
    first = net.layer.weight.detach().clone()
    trained = train(dataclasses.replace(TINY, steps=60, lr=1e-2, ema_decay=0.9999, out=str(tmp_path)), points(), net)
    assert torch.equal(trained.net.norm.running_mean, net.norm.running_mean) and int(trained.net.norm.num_batches_tracked) == 60
    assert not torch.equal(trained.net.layer.weight, net.layer.weight)
    moved, behind = float((net.layer.weight - first).norm()), float((net.layer.weight - trained.net.layer.weight).norm())
    assert moved > 0.05 and behind < 0.5 * moved  # without a warm-up 0.9999**60 = 99 % of the way would be missing
    assert not (tmp_path / "model.json").exists() and int(state(tmp_path)["net.norm.num_batches_tracked"]) == 60


def test_dropout_is_on_in_training_and_off_in_validation_and_sampling(tmp_path: Path) -> None:
    modes: dict[str, set[bool]] = {"train": set(), "else": set()}
    config = dataclasses.replace(NET, dropout=0.5)
    net = UNet(config)
    run = trainer.Run(dataclasses.replace(TINY, net=config, out=str(tmp_path), sample_every=1), some_pictures(), net)
    blocks = [m for model in (run.raw, run.ema.module) for m in model.modules() if isinstance(m, ResBlock)]
    now = "train"
    for block in blocks:
        block.dropout.register_forward_hook(lambda module, _, y: modes[now].add(module.training))
    run.one_step()
    now = "else"
    assert run.log([torch.zeros(())])["val_loss"] == run.log([torch.zeros(())])["val_loss"]
    run.draw()
    first = (tmp_path / "samples" / "step_00000001.png").read_bytes()
    run.draw()
    assert modes == {"train": {True}, "else": {False}} and first == (tmp_path / "samples" / "step_00000001.png").read_bytes()


def test_labels_are_hidden_in_training_alone() -> None:
    config = dataclasses.replace(NET, num_classes=4, dropout=0.0)
    runs, seen = [], {True: [], False: []}
    for _ in range(2):
        net = UNet(config)
        net.register_forward_pre_hook(lambda m, a, k: seen[m.training].append(k["y"].clone()), with_kwargs=True)
        run = trainer.Run(dataclasses.replace(TINY, label_dropout=0.5), some_pictures(), net)
        run.one_step(), run.one_step(), run.log([torch.zeros(())])
        runs.append(torch.cat(seen[True])), seen[True].clear()
    assert torch.equal(runs[0], runs[1]) and 2 < int((runs[0] == 4).sum()) < 14 and int(torch.cat(seen[False]).max()) == 3


def test_validation_in_parts_is_the_same_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x_0, schedule = UNet(dataclasses.replace(NET, num_classes=4)), digits().val.images[:30], linear_schedule(50)
    y, sizes = torch.arange(30) % 4, []
    whole = validation_loss(net, schedule, x_0, "v", y=y)
    net.register_forward_pre_hook(lambda m, a: sizes.append(len(a[0])))
    monkeypatch.setattr(trainer, "AT_ONCE", 8 * 64 + 5)
    assert validation_loss(net, schedule, x_0, "v", y=y) == pytest.approx(whole, rel=1e-5) and sizes == [8, 8, 8, 6]
    monkeypatch.setattr(trainer, "AT_ONCE", 1)
    assert validation_loss(net, schedule, x_0[:2], "v", y=y[:2]) > 0 and sizes[4:] == [1, 1]


# --- what a run writes besides its state


def test_samples_logs_and_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = smaller(steps=4, log_every=2, sample_every=2, tensorboard=True, out=str(tmp_path))
    train(config, some_pictures())
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == ["step_00000002.png", "step_00000004.png"]
    with Image.open(tmp_path / "samples" / "step_00000004.png") as sheet:
        assert sheet.size == (71 * 14, 17 * 14)  # 2 rows of 8 with gaps, enlarged
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / "logs").rglob("events*")).parent))
    events.Reload()
    assert {"loss", "val_loss", "lr"} <= set(events.Tags()["scalars"]) and [event.step for event in events.Scalars("loss")] == [2, 4]
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [float(event.value) for event in events.Scalars("loss")] == pytest.approx([float(row["loss"]) for row in rows])


def test_tensorboard_that_is_not_there_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.accelerator_for.__globals__["importlib"].util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "ddpm-course\[tensorboard\]"'):
        train(dataclasses.replace(TINY, tensorboard=True, out=str(tmp_path)), some_pictures())


def test_pictures_that_cannot_be_drawn_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sample_every draws grey or colour pictures, not \(2,\)"):
        train(dataclasses.replace(TINY, sample_every=2, out=str(tmp_path)), points(), Counting())


def test_a_network_that_does_not_fit_the_pictures_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="takes pictures"):
        train(dataclasses.replace(TINY, out=str(tmp_path)), some_pictures(channels=3))
    assert not list(tmp_path.iterdir())


def test_another_loss_is_minimised_and_validation_stays() -> None:
    """Twice diffusion_loss, with a gradient clip that bites either way, logs twice the loss; the validation loss does not follow."""
    config = smaller(steps=1, log_every=1, grad_clip=1e-3)
    plain = train(config, some_pictures()).history[0]
    twice = train(config, some_pictures(), loss=lambda *given, **cond: 2 * diffusion_loss(*given, **cond)).history[0]
    assert twice["loss"] == pytest.approx(2 * plain["loss"], rel=1e-6)
    assert twice["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-4)
