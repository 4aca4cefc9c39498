"""Saved, killed, damaged: what can be read is right, and what is not right is refused."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from ddpm_course import CourseError, Trained, UNet, UNetConfig, cosine_schedule, load_model, rescale_zero_terminal_snr, save_model, shipped
from ddpm_course.checkpoint import config_from, load_tensors, rng, save_tensors, write_atomic
from ddpm_course.errors import CheckpointError

CONFIG = UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4, dropout=0.2)


@pytest.fixture
def trained() -> Trained:
    torch.manual_seed(0)
    schedule = rescale_zero_terminal_snr(cosine_schedule(50))
    return Trained(UNet(CONFIG), schedule, "v", {"steps": 3}, [{"step": 3, "loss": 0.5, "val_loss": 0.6}])


def test_round_trip_is_bit_exact(trained: Trained, tmp_path: Path) -> None:
    save_model(tmp_path / "deep" / "run", trained)
    again = load_model(tmp_path / "deep" / "run")
    for key, x in trained.net.state_dict().items():
        assert torch.equal(x, again.net.state_dict()[key])
    assert torch.equal(trained.schedule.alpha_bar, again.schedule.alpha_bar)
    assert (again.prediction, again.config, again.history) == ("v", {"steps": 3}, trained.history)
    assert again.net.config == CONFIG and not again.net.training
    assert not any(p.requires_grad for p in again.net.parameters())
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 50])
    with torch.no_grad():
        assert torch.equal(trained.eps_model()(x, t), again.eps_model()(x, t))


def test_half_takes_half_the_room_and_loads_as_float32(trained: Trained, tmp_path: Path) -> None:
    save_model(tmp_path / "full", trained), save_model(tmp_path / "half", trained, half=True)
    size = {name: next((tmp_path / name).glob("*.safetensors")).stat().st_size for name in ("full", "half")}
    assert size["half"] < 0.6 * size["full"]
    again = load_model(tmp_path / "half")
    for key, x in trained.net.state_dict().items():
        assert again.net.state_dict()[key].dtype == torch.float32
        assert torch.equal(x.half().float(), again.net.state_dict()[key])
    assert torch.equal(trained.schedule.beta, again.schedule.beta)  # the schedule stays float64


def test_eps_model_turns_dropout_off_and_knows_the_prediction(trained: Trained) -> None:
    trained.net.train()
    eps_model, x, t = trained.eps_model(), torch.randn(2, 1, 8, 8), torch.tensor([5, 30])
    assert not trained.net.training
    bar = trained.schedule.alpha_bar[t].float()[:, None, None, None]
    with torch.no_grad():
        torch.testing.assert_close(eps_model(x, t), (1 - bar).sqrt() * x + bar.sqrt() * trained.net(x, t), rtol=1e-4, atol=1e-5)


def test_saving_again_leaves_one_pair_of_files(trained: Trained, tmp_path: Path) -> None:
    save_model(tmp_path, trained)
    with torch.no_grad():
        trained.net.conv_in.bias.add_(1)
    save_model(tmp_path, trained)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]
    assert torch.equal(load_model(tmp_path).net.conv_in.bias, trained.net.conv_in.bias)


@pytest.mark.parametrize("survives", [0, 1])
def test_a_writer_that_dies_leaves_the_old_checkpoint(trained: Trained, tmp_path: Path, monkeypatch: object, survives: int) -> None:
    save_model(tmp_path, trained)
    old, calls, real = trained.net.conv_in.bias.clone(), [], os.replace

    def dying(source: str, target: Path) -> None:
        calls.append(target)
        if len(calls) > survives:  # 0: before the weights; 1: between weights and JSON
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with torch.no_grad():
        trained.net.conv_in.bias.add_(1)
    with pytest.raises(CheckpointError, match="No space left.*intact"):
        save_model(tmp_path, trained)
    monkeypatch.undo()
    assert torch.equal(load_model(tmp_path).net.conv_in.bias, old)
    assert not list(tmp_path.glob(".*"))
    save_model(tmp_path, trained)
    assert torch.equal(load_model(tmp_path).net.conv_in.bias, old + 1) and len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_leaves_the_old_checkpoint(trained: Trained, tmp_path: Path, monkeypatch: object) -> None:
    """As after kill -9: nothing is cleaned up, whatever was written stays."""
    save_model(tmp_path, trained)
    old, real = trained.net.conv_in.bias.clone(), os.replace

    class Killed(BaseException):
        pass

    def replace(source: str, target: Path) -> None:
        if str(target).endswith(".json"):
            raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with torch.no_grad():
        trained.net.conv_in.bias.add_(1)
    with pytest.raises(Killed):
        save_model(tmp_path, trained)
    monkeypatch.undo()
    assert torch.equal(load_model(tmp_path).net.conv_in.bias, old)


def test_every_flipped_byte_of_the_weights_is_noticed(trained: Trained, tmp_path: Path) -> None:
    save_model(tmp_path, trained)
    path = next(tmp_path.glob("*.safetensors"))
    content = path.read_bytes()
    for place in (0, 9, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="damaged: its checksum differs"):
            load_model(tmp_path)
    path.write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"weights": 3}', '{"weights": "x"}', "\udcff"])
def test_a_damaged_json_is_noticed(trained: Trained, tmp_path: Path, text: str) -> None:
    save_model(tmp_path, trained)
    (tmp_path / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match="damaged|missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("lost", ["unet", "prediction", "config"])
def test_a_json_without_an_entry_is_noticed(trained: Trained, tmp_path: Path, lost: str) -> None:
    save_model(tmp_path, trained)
    meta = json.loads((tmp_path / "model.json").read_text())
    del meta[lost]
    (tmp_path / "model.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match=lost):
        load_model(tmp_path)


def test_weights_for_another_network_are_refused(trained: Trained, tmp_path: Path) -> None:
    save_model(tmp_path, trained)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"base_channels": 8', '"base_channels": 16'))
    with pytest.raises(CheckpointError, match="do not fit the network"):
        load_model(tmp_path)
    save_tensors(tmp_path, "model", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError):
        load_model(tmp_path)


def test_missing_things_are_named(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint 'model' in .*nowhere: model\.json is missing; train one"):
        load_model(tmp_path / "nowhere")
    save_model(tmp_path, trained)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"model-.*\.safetensors is missing"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="no shipped checkpoint 'faces'; shipped:"):
        shipped("faces")
    assert issubclass(CheckpointError, CourseError)


def test_only_known_networks_are_saved_as_models(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got Linear; save other networks with save_tensors"):
        save_model(tmp_path, Trained(torch.nn.Linear(1, 1), cosine_schedule(5)))
    assert not list(tmp_path.iterdir())


def test_configs_within_configs_come_back() -> None:
    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: UNetConfig
        sizes: tuple[int, ...]
        name: str = "a"

    outer = Outer(UNetConfig.digits(), (1, 2))
    assert config_from(Outer, json.loads(json.dumps(dataclasses.asdict(outer)))) == outer


def test_tensors_of_any_layout_and_type_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(7), "c": torch.randn(2, requires_grad=True)}
    save_tensors(tmp_path, "state", tensors, {"note": "é", "n": 3})
    again, meta = load_tensors(tmp_path, "state")
    assert all(torch.equal(tensors[key].detach(), again[key]) for key in tensors)
    assert (meta["note"], meta["n"]) == ("é", 3)


def test_no_pickle_is_read_or_written(trained: Trained, tmp_path: Path, monkeypatch: object) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    import pickle

    for module, name in [(torch, "load"), (torch, "save"), (pickle, "load"), (pickle, "loads"), (pickle, "dump"), (pickle, "dumps")]:
        monkeypatch.setattr(module, name, forbidden)
    save_model(tmp_path, trained)
    load_model(tmp_path)


def test_a_file_in_the_way_is_a_course_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(CheckpointError, match="cannot write"):
        write_atomic(tmp_path / "file" / "x", b"1")
    write_atomic(tmp_path / "new" / "x", b"1")
    assert (tmp_path / "new" / "x").read_bytes() == b"1" and (tmp_path / "new" / "x").stat().st_mode & 0o777 == 0o644


def test_generators_depend_on_their_keys_alone() -> None:
    draw = lambda *keys: torch.rand(3, generator=rng(*keys)).tolist()  # noqa: E731
    assert draw(0, 1, 2) == draw(0, 1, 2)
    assert len({tuple(draw(*keys)) for keys in [(0,), (1,), (0, 1), (0, 1, 2), (0, 2, 1), (0, 12)]}) == 6
