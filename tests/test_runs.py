"""Where a run lives: whatever happens to its folder, what is read is whole, finite and its own."""

import dataclasses
import errno
import json
import math
import os
import time
import warnings
from pathlib import Path

import pytest
import torch
from tiny_runs import NET, SMALLEST, TINY, same, some_pictures, state, train_until
from torch import nn

from ddpm_course import UNet, train
from ddpm_course.checkpoint import write_atomic
from ddpm_course.ema import ema_of
from ddpm_course.errors import CheckpointError, ConfigError, NonFiniteError
from ddpm_course.runs import FiniteWatch, RunFolder, accelerator_for, pack, restore_tuples, unpack

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def saved(folder: Path, *steps: int, keep_last: int = 2) -> RunFolder:
    """A folder with states of these steps; each holds its step as a tensor."""
    run = RunFolder(folder, keep_last)
    for step in steps:
        run.save_state(step, {"x": torch.full((3,), float(step))}, {"history": []})
    return run


def value(run: RunFolder) -> float:
    tensors, meta = run.load_state()
    assert meta["step"] == float(tensors["x"][0])
    return meta["step"]


def damage(folder: Path, step: int, how: str) -> None:
    """Spoil the state of a step in one of the ways that disks and people know."""
    meta, weights = folder / f"state-{step:08d}.json", next(folder.glob(f"state-{step:08d}-*"))
    content = weights.read_bytes()
    if how == "bit":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif how == "gone":
        weights.unlink()
    elif how == "json":
        meta.write_text(meta.read_text()[:20])
    elif how == "folder":
        meta.unlink(), meta.mkdir()


def test_the_newest_states_are_kept(tmp_path: Path) -> None:
    run = saved(tmp_path, 1, 2, 3, 10, keep_last=3)
    assert run.steps() == [10, 3, 2] and value(run) == 10 and len(list(tmp_path.iterdir())) == 6
    assert RunFolder(tmp_path / "new").load_state() is None and RunFolder(tmp_path / "new").steps() == []


@pytest.mark.parametrize("how", ["bit", "cut", "gone", "json", "folder"])
def test_a_damaged_newest_state_gives_way_to_the_one_before(how: str, tmp_path: Path) -> None:
    run = saved(tmp_path, 4, 8)
    damage(tmp_path, 8, how)
    with pytest.warns(UserWarning, match=r"state-00000008.* Falling back to the state before it\."):
        assert value(run) == 4
    damage(tmp_path, 4, how)
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="every state in .* is damaged; train again in another folder"):
        run.load_state()


@pytest.mark.parametrize("keep_last", [1, 2])
def test_after_falling_back_the_damaged_state_does_not_take_the_place_of_a_whole_one(keep_last: int, tmp_path: Path) -> None:
    saved(tmp_path, 4, 8)
    damage(tmp_path, 8, "bit")
    run = saved(tmp_path, 6, keep_last=keep_last)
    assert run.steps() == [6, 4][:keep_last]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value(run) == 6


def test_strays_of_a_killed_run_are_swept_and_nothing_else(tmp_path: Path) -> None:
    run = saved(tmp_path, 4)
    (tmp_path / "samples").mkdir()
    strays = [".state-00000008.json.abcd_123", ".model.json.zzzzzzzz", "samples/.step_00000004.png.abcdefgh"]
    strays.append("state-00000008-0123abcd.safetensors")
    others = [".my.settings", "notes.txt", ".vscode.settings", "samples/mine.png", "model-12345678.safetensors"]
    for name in strays + others:
        (tmp_path / name).write_text("x")
    run.lock()
    assert not [name for name in strays if (tmp_path / name).exists()] and all((tmp_path / name).exists() for name in others)
    assert value(run) == 4
    run.unlock()


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.lock()
    with pytest.raises(CheckpointError, match=rf'another run is writing to .*"process": {os.getpid()}.*choose another folder, or'):
        second.lock()
    assert (tmp_path / ".owner.json").exists()  # the refused run left the first one's name alone
    first.unlock()
    second.lock()
    second.unlock()
    assert not (tmp_path / ".owner.json").exists()


def test_a_lock_that_fails_half_way_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(CheckpointError, match="No space left"):
            RunFolder(tmp_path).lock()
    other = RunFolder(tmp_path)
    other.lock()
    other.unlock()


def test_a_folder_that_cannot_be_made_is_a_course_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write to .*choose another folder"):
        RunFolder(tmp_path / "file" / "run").lock()


@pytest.mark.parametrize("survives", range(4))
def test_a_full_disk_costs_the_new_state_alone(survives: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls, real = saved(tmp_path, 1, 2), [], os.fsync

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) > survives:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    if survives < 2:  # a state is two files
        with pytest.raises(CheckpointError, match="No space left on device.*what was there before is intact"):
            saved(tmp_path, 3)
        assert value(run) == 2 and run.steps() == [2, 1] and not list(tmp_path.glob(".*"))
    else:
        assert value(saved(tmp_path, 3)) == 3


def test_nothing_that_is_not_finite_is_written(tmp_path: Path) -> None:
    run = saved(tmp_path, 1)
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(NonFiniteError, match="b is not finite at step 2; nothing was written"):
            run.save_state(2, {"a": torch.ones(2), "b": torch.tensor([0.0, bad]), "n": torch.tensor(3)}, {})
    assert run.steps() == [1] and value(run) == 1


def test_the_log_is_written_whole(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_log([])
    run.write_log([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,loss", "1,0.5", "2,0.25"]


def test_lists_of_json_become_tuples_again() -> None:
    stored = {"a": (1, (2, 3)), "b": {"c": ("x",)}, "d": None}
    assert restore_tuples(json.loads(json.dumps(stored))) == stored


def trained(net: nn.Module) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """The network after a step, its average and its optimiser."""
    ema, optimizer = ema_of(net), torch.optim.AdamW(net.parameters())
    sum(p.square().sum() for p in net.parameters()).backward()
    optimizer.step()
    ema.update_parameters(net)
    return net, ema, optimizer


def test_pack_and_unpack_are_inverse_and_copy() -> None:
    torch.manual_seed(0)
    parts, others = trained(UNet(SMALLEST)), trained(UNet(SMALLEST))
    packed = pack(*parts)
    before = {name: x.clone() for name, x in packed.items()}
    with torch.no_grad():
        parts[0].conv_in.weight.add_(1)
    assert all(torch.equal(packed[name], before[name]) for name in before)
    unpack(packed, *others)
    again = pack(*others)
    assert again.keys() == packed.keys() and all(torch.equal(again[name], packed[name]) for name in packed)


def test_weights_that_two_layers_share_are_saved(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

    RunFolder(tmp_path).save_state(1, pack(*trained(Tied())), {})
    assert RunFolder(tmp_path).load_state()[0]["net.b.weight"].shape == (3, 3)


def test_a_state_of_another_network_is_refused() -> None:
    with pytest.raises(CheckpointError, match="the saved state belongs to another network; choose another folder"):
        unpack(pack(*trained(UNet(SMALLEST))), *trained(UNet(NET)))


# --- the accelerator


def test_a_device_or_precision_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device = 'cuda': this machine or this torch has none; take 'cpu' or 'auto'"):
        accelerator_for(dataclasses.replace(TINY, device="cuda"))
    import accelerate

    def refuse(**_: object) -> None:
        raise ValueError("bf16 mixed precision requires something newer")

    monkeypatch.setattr(accelerate, "Accelerator", refuse)
    with pytest.raises(ConfigError, match="accelerate refuses precision bf16 on device cpu: bf16 mixed precision requires"):
        accelerator_for(dataclasses.replace(TINY, precision="bf16"))


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_launchers_that_cut_the_network_up_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate
    from accelerate.utils import DistributedType

    monkeypatch.setattr(accelerate.Accelerator, "distributed_type", property(lambda self: DistributedType[kind]))
    with pytest.raises(ConfigError, match=f"{kind} cuts the network up.*launch without it"):
        accelerator_for(TINY)


def test_a_launchers_precision_does_not_overrule_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert accelerator_for(TINY).mixed_precision == "no"


# --- numbers that are not finite


def test_the_watch_sees_numbers_that_are_not_finite() -> None:
    watch = FiniteWatch()
    watch.look(1, "training loss", torch.tensor(0.5))
    for bad in (math.nan, math.inf):
        with pytest.raises(NonFiniteError, match=f"the norm of the gradient is {bad} at step 7; lower lr or grad_clip"):
            watch.look(7, "norm of the gradient", torch.tensor(bad))
    assert not watch.pending


@gpu
def test_the_watch_on_a_gpu_does_not_wait_but_finds_out() -> None:
    watch, busy, bad = FiniteWatch(), torch.randn(4096, 4096, device="cuda"), torch.tensor(math.nan, device="cuda")
    watch.look(0, "training loss", torch.zeros((), device="cuda"))  # what CUDA loads at first use is loaded
    torch.cuda.synchronize()
    watch.pending.clear()
    for _ in range(100):
        busy = busy @ busy / 4096
    start = time.perf_counter()
    watch.look(1, "training loss", bad)
    assert time.perf_counter() - start < 0.1 and len(watch.pending) == 1
    torch.cuda.synchronize()
    with pytest.raises(NonFiniteError, match="the training loss is nan at step 1"):
        watch.look(2, "training loss", torch.tensor(0.5, device="cuda"))


@gpu
@pytest.mark.parametrize("change", [{}, {"precision": "bf16"}, {"precision": "fp16"}, {"compile": "default"}, {"channels_last": False}])
def test_training_on_a_gpu_is_training_on_a_cpu(change: dict[str, object]) -> None:
    config = dataclasses.replace(TINY, steps=30, batch_size=32, device="cuda", log_every=30, **change)
    wanted = train(dataclasses.replace(config, device="cpu", precision="fp32", compile="off")).history[-1]["val_loss"]
    result = train(config)
    assert result.history[-1]["val_loss"] == pytest.approx(wanted, rel=0.1)  # a GPU draws other noise
    assert next(result.net.parameters()).device.type == "cuda"


@gpu
def test_a_run_on_a_gpu_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    config = dataclasses.replace(TINY, device="cuda", flip=True)
    train(dataclasses.replace(config, out=str(tmp_path / "whole")), some_pictures())
    train_until(3, dataclasses.replace(config, out=str(tmp_path / "parts")), some_pictures(), monkeypatch)
    train(dataclasses.replace(config, out=str(tmp_path / "parts")), some_pictures())
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))


def test_write_atomic_is_what_states_are_written_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def seen(path: Path, content: bytes) -> None:
        written.append(path.name)
        write_atomic(path, content)

    monkeypatch.setattr("ddpm_course.checkpoint.write_atomic", seen)
    saved(tmp_path, 5)
    assert [name.split("-")[-1].split(".")[-1] for name in written] == ["safetensors", "json"]
