"""From a folder of pictures to samples, in two lines on the command line."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_runs import picture_files, state

from ddpm_course import TrainConfig, UNetConfig, load_model
from ddpm_course.checkpoint import load_tensors
from ddpm_course.cli import main
from ddpm_course.cli_train import PRESETS, Train
from ddpm_course.errors import ConfigError, DataError

QUICK = ["--steps", "2", "--batch-size", "4", "--base-channels", "4", "--num-timesteps", "20", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CI", "1")
    monkeypatch.chdir(tmp_path)


def all_kinds(folder: Path) -> Path:
    """Grey, colour, transparent, 16-bit, sideways, wide and tall pictures in two subfolders."""
    picture_files(folder / "cats", 4, "L", (20, 12)), picture_files(folder / "dogs", 4, "RGBA", (12, 17))
    picture_files(folder / "dogs" / "small", 3, "RGB", (5, 6)), picture_files(folder / "cats" / "wide", 3, "LA", (40, 13))
    Image.new("I;16", (14, 14), 40_000).save(folder / "cats" / "deep.png")
    Image.new("P", (14, 14), 1).save(folder / "cats" / "palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 12), (200, 10, 10)).save(folder / "dogs" / "sideways.jpg", exif=exif)
    return folder


def test_train_on_a_folder_then_sample_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    all_kinds(Path("pets"))
    assert main(["train", "--data", "pets", "--out", "runs/pets", "--classes", "--flip", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "runs/pets: 2 steps, loss" in out and "sample --checkpoint runs/pets" in out and err == ""
    net = load_model("runs/pets").net.config
    assert (net.channels, net.image_size, net.num_classes, net.base_channels) == (3, 12, 2, 4)
    assert main(["sample", "--checkpoint", "runs/pets", "--n", "3", "--steps", "3", "--out", "drawn"]) == 0
    samples = safetensors.torch.load_file("drawn/samples.safetensors")["samples"]
    assert samples.shape == (3, 3, 12, 12) and bool(torch.isfinite(samples).all())
    capsys.readouterr()
    assert main(["train", "--data", "pets", "--out", "runs/pets", "--classes", "--flip", *QUICK, "--lr", "1e-3"]) == 2
    assert "holds a run with other settings (lr)" in capsys.readouterr().err


def test_train_on_a_parquet_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = []
    for i in range(12):
        file = io.BytesIO()
        Image.new("L", (9, 8), 20 * i).save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    datasets.Dataset.from_dict({"image": rows, "label": [0, 1, 2] * 4}, features=features).to_parquet("twelve.parquet")
    assert main(["train", "--data", "twelve.parquet", "--classes", "--out", "run", *QUICK]) == 0
    assert load_model("run").net.config.num_classes == 3 and load_model("run").net.config.channels == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "./nowhere"], "nowhere is no folder"),
        (["--data", "faces"], "unknown data set 'faces'"),
        (["--data", "empty"], "empty holds no pictures"),
        (["--data", "few"], "few has 9 pictures; at least 10 are needed"),
        (["--data", "broken"], "broken/003.png"),
        (["--data", "good", "--batch-size", "40"], "batch_size = 40 exceeds the 10 training pictures of 'good'"),
        (["--data", "good", "--micro-batches", "3"], "must be a multiple of processes x micro_batches"),
        (["--data", "good", "--preset", "celebahq"], "image_size 8 cannot be halved 5 times"),
        (["--data", "good", "--base-channels", "0"], "base_channels = 0 must be even"),
        (["--data", "good", "--base-channels", "5"], "base_channels = 5 must be even"),
        (["--data", "good", "--classes"], "all pictures of good are of one class"),
        (["--data", "digits", "--image-size", "32"], "digits has its own size"),
        (["--data", "none.parquet"], "none.parquet is missing"),
        (["--data", "good", "--ema-decay", "1"], "ema_decay = 1.0"),
        (["--data", "good", "--num-timesteps", "0"], "T = 0"),
        (["--data", "good", "--out", "file/run"], "cannot write to file/run"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line_and_at_once(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir(), Path("file").write_text("")
    for name, n in (("few", 9), ("broken", 12), ("good", 12)):
        picture_files(Path(name), n)
    Path("broken/003.png").write_bytes(b"nothing")
    quick = QUICK[:4] + QUICK[6:] if "--base-channels" in arguments else QUICK
    import accelerate  # noqa: F401  (imports are not what the clock should see)
    import datasets  # noqa: F401

    start = time.process_time()
    assert main(["train", "--out", "run", *quick, *arguments]) == 2
    assert time.process_time() - start < 1
    out, err = capsys.readouterr()
    assert text in err and err.startswith("error: ") and err.count("\n") == 1 and out == "" and not Path("run").exists()


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--lr", "fast"], ["--precision", "fp8"], ["--final-lr", "3"]])
def test_values_that_are_none_are_refused_while_reading(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments])
    assert stop.value.code == 2 and not Path("runs").exists()
    capsys.readouterr()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_follows_the_pictures(preset: str) -> None:
    picture_files(Path("colour"), 12, "RGB", (68, 71))
    config, data = Train(data="colour", preset=preset, image_size=66).resolved()
    net, wanted = config.net, PRESETS[preset]()
    assert type(config) is TrainConfig and data.train.images.shape[1:] == (3, 66, 66)
    assert net == dataclasses.replace(wanted, image_size=66, channels=3, pad=66 % wanted.multiple > 0)


def test_the_course_data_get_the_course_networks() -> None:
    assert Train(data="digits").resolved()[0].net == UNetConfig.digits() and Train(data="mnist5k").resolved()[0].net == UNetConfig.mnist()
    assert Train(data="digits", classes=True).resolved()[0].net.num_classes == 10


def test_a_class_that_validation_alone_has_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpm_course import cli_train
    from ddpm_course.data import Split, Splits

    x = torch.zeros(4, 1, 8, 8)
    parts = Splits(*(Split(x, torch.full((4,), label)) for label in (0, 5, 2)))
    monkeypatch.setattr(cli_train, "load", lambda *_, **__: parts)
    assert Train(classes=True).resolved()[0].net.num_classes == 6


def test_too_few_pictures_and_impossible_networks_are_course_errors() -> None:
    picture_files(Path("few"), 3)
    with pytest.raises(DataError, match="few has 3 pictures"):
        Train(data="./few").resolved()
    with pytest.raises(ConfigError, match="num_heads = 3 must divide"):
        dataclasses.replace(UNetConfig(), num_heads=3)


UNCOMPILED = "import sys, torch; torch.compile = lambda net, **_: net; from ddpm_course.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("together", [False, True])
def test_two_processes_are_one(together: bool) -> None:
    """Two gloo processes with two micro-batches each against one process: the same gradients, weights, log and model.

    together: their weights lie side by side, as `compile` has it on a CPU; here without a compiler.
    """
    Path("train.py").write_text(UNCOMPILED)
    words = "train --data digits --base-channels 16 --steps 3 --batch-size 8 --num-timesteps 50 --lr 2e-4 --warmup 2 --log-every 1 --flip"
    words += " --classes --device cpu --micro-batches 2"
    assert main([*words.split(), "--out", "one"]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    program, compiled = (["train.py"], ["--compile", "default"]) if together else (["-m", "ddpm_course"], [])
    done = subprocess.run(
        [*command, *program, *words.split(), *compiled, "--out", "two"],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("two: 3 steps") == 1  # the first process speaks, alone
    one, two = state(Path("one")), state(Path("two"))
    off = {kind: max(float((one[k] - two[k]).abs().max()) for k in one if kind in k) for kind in ("exp_avg", "net.", "ema.module.")}
    assert one.keys() == two.keys() and off["exp_avg"] < 1e-6 and max(off.values()) < 1e-5, off
    weights = [load_tensors(name, "model")[0] for name in ("one", "two")]
    assert max(float((weights[0][k] - weights[1][k]).abs().max()) for k in weights[0]) < 1e-5
    logs = [json.loads(Path(name, "model.json").read_bytes())["history"] for name in ("one", "two")]
    for a, b in zip(*logs, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
