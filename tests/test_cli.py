"""The command line: what it writes, that it can be had again, and that it refuses in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from ddpm_course import cli, clip_x_0, ddim_sample, dpm_solver_sample, heun_sample, load_model, shipped
from ddpm_course.checkpoint import rng, save_tensors
from ddpm_course.cli import main
from ddpm_course.guidance import batched_guidance

FILES = ["grid.png", "report.json", "samples.safetensors", "trajectory.gif"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CI", "1")
    monkeypatch.chdir(tmp_path)


def drawn(*more: str, out: str = "out") -> torch.Tensor:
    """The samples of one run."""
    assert main(["sample", "--n", "3", "--steps", "4", "--out", out, *more]) == 0
    return safetensors.torch.load_file(f"{out}/samples.safetensors")["samples"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that must be refused."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_sample_writes_four_files_and_is_quiet_under_ci(capsys: pytest.CaptureFixture[str]) -> None:
    samples = drawn()
    assert samples.shape == (3, 1, 8, 8) and float(samples.abs().max()) <= 1.001
    assert sorted(path.name for path in Path("out").iterdir()) == FILES
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    with Image.open("out/grid.png") as grid:
        assert grid.size == (26 * 14, 8 * 14)
    with Image.open("out/trajectory.gif") as movie:
        assert movie.n_frames == 5


def test_the_report_has_all_settings() -> None:
    drawn("--seed", "7")
    report = json.loads(Path("out/report.json").read_text())
    assert report["command"] == "sample" and report["times"] == [1000, 750, 500, 250, 0] and report["shape"] == [3, 1, 8, 8]
    assert report["settings"] == cli.asdict(cli.Sample(n=3, steps=4, seed=7, out="out"))
    assert report["weights_sha256"] == json.loads((shipped("digits") / "model.json").read_bytes())["sha256"]


def test_the_same_seed_gives_the_same_and_another_seed_something_else() -> None:
    first, again, other = drawn(), drawn(out="b"), drawn("--seed", "1", out="c")
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(("name", "sample"), [("ddim", ddim_sample), ("dpm", dpm_solver_sample), ("heun", heun_sample)])
def test_samplers_are_those_of_the_package(name: str, sample) -> None:
    trained, x_T = load_model(shipped("digits")), torch.randn(3, 1, 8, 8, generator=rng(0, 0))
    wanted = sample(clip_x_0(trained.eps_model(), trained.schedule), trained.schedule, x_T=x_T, num_steps=4)
    assert torch.equal(drawn("--sampler", name), wanted)


def test_ddpm_and_eta_draw_fresh_noise() -> None:
    deterministic, ddpm, stochastic = drawn(), drawn("--sampler", "ddpm", out="b"), drawn("--eta", "1", out="c")
    assert torch.allclose(ddpm, stochastic, atol=5e-3) and not torch.allclose(deterministic, ddpm, atol=0.1)


def test_batches_are_put_together_each_with_its_own_noise() -> None:
    parts = drawn("--batch-size", "2")
    assert main(["sample", "--n", "2", "--steps", "4", "--out", "b"]) == 0
    assert torch.equal(parts[:2], safetensors.torch.load_file("b/samples.safetensors")["samples"])
    trained, x_T = load_model(shipped("digits")), torch.randn(1, 1, 8, 8, generator=rng(0, 1))
    last = ddim_sample(clip_x_0(trained.eps_model(), trained.schedule), trained.schedule, x_T=x_T, num_steps=4)
    assert torch.equal(parts[2:], last)


def test_a_label_and_its_scale_steer(capsys: pytest.CaptureFixture[str]) -> None:
    steered = drawn("--checkpoint", "digits-classes", "--label", "3", "--scale", "3")
    trained, x_T = load_model(shipped("digits-classes")), torch.randn(3, 1, 8, 8, generator=rng(0, 0))
    model = batched_guidance(trained.net, trained.schedule, {"y": torch.tensor([3])}, {"y": torch.tensor([10])}, 3.0, trained.prediction)
    wanted = ddim_sample(clip_x_0(model, trained.schedule), trained.schedule, x_T=x_T, num_steps=4)
    assert torch.equal(steered, wanted)
    report = json.loads(Path("out/report.json").read_text())
    assert report["settings"]["label"] == 3 and report["settings"]["scale"] == 3.0
    unlabelled, ignored = (
        drawn("--checkpoint", "digits-classes", *more, out=f"b{len(more)}") for more in ((), ("--label", "3", "--scale", "0"))
    )
    assert torch.equal(unlabelled, ignored) and not torch.allclose(unlabelled, steered, atol=0.1)


def test_a_checkpoint_may_be_a_folder() -> None:
    assert torch.equal(drawn("--checkpoint", str(shipped("digits"))), drawn(out="b"))


def test_nothing_is_overwritten_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    drawn()
    before = Path("out/samples.safetensors").read_bytes()
    capsys.readouterr()
    assert "--overwrite" in refused(capsys, "sample", "--seed", "5", "--n", "2", "--steps", "2", "--out", "out")
    assert Path("out/samples.safetensors").read_bytes() == before
    drawn("--seed", "5", "--overwrite")
    assert Path("out/samples.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["sample", "--checkpoint", "nope"], "no shipped checkpoint 'nope'; shipped: captions, digits, digits-classes, mnist, "),
        (["sample", "--checkpoint", "./nowhere"], "model.json is missing"),
        (["sample", "--checkpoint", "captions"], "draws no pictures by itself (a TextUNet)"),
        (["sample", "--checkpoint", "mnist-sr"], "chapters 18, 19 and 20 sample from such networks"),
        (["evaluate", "--checkpoint", "series"], "draws no pictures by itself (a Transformer)"),
        (["sample", "--steps", "0"], "num_steps = 0"),
        (["sample", "--n", "0"], "--n must be at least 1"),
        (["sample", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["sample", "--sampler", "heun", "--eta", "0.5"], "--eta belongs to ddim"),
        (["sample", "--eta", "2", "--steps", "2"], r"must lie in [0, 1]"),
        (["sample", "--device", "abacus"], "--device abacus"),
        (["sample", "--scale", "3"], "name one with --label"),
        (["sample", "--label", "3"], "label = 3: this network has no classes"),
        (["sample", "--label", "10", "--checkpoint", "digits-classes"], "label = 10 must lie in 0..9: this network has 10 classes"),
        (["sample", "--label", "-1", "--checkpoint", "digits-classes"], "label = -1 must lie in 0..9"),
        (["evaluate"], "either --samples or --checkpoint"),
        (["evaluate", "--samples", "a", "--checkpoint", "digits"], "either --samples or --checkpoint"),
        (["evaluate", "--samples", "nowhere"], "python -m ddpm_course sample"),
        (["evaluate", "--checkpoint", "digits", "--seeds", "0"], "--seeds must be at least 1"),
        (["evaluate", "--checkpoint", "digits", "--n", "900"], "the size of held_out"),
    ],
)
def test_refusals_are_one_line_and_code_2(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert text in refused(capsys, *arguments)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("name", "x", "text"),
    [
        ("wrong", torch.zeros(2, 1, 8, 8), 'no safetensors file with a tensor "samples"'),
        ("samples", torch.zeros(2, 8), "pictures are"),
        ("samples", torch.full((2, 1, 8, 8), 255.0), "scale 0..255"),
    ],
)
def test_files_that_hold_no_samples_are_refused(name: str, x: torch.Tensor, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors.torch.save_file({name: x}, "x.safetensors")
    assert text in refused(capsys, "evaluate", "--samples", "x.safetensors")


def test_a_damaged_file_and_a_folder_that_holds_another_thing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.safetensors").write_bytes(b"not at all")
    assert "no safetensors file" in refused(capsys, "evaluate", "--samples", "x.safetensors")
    save_tensors("other", "model", {"a": torch.zeros(1)}, {})
    assert "holds no model" in refused(capsys, "sample", "--checkpoint", "./other")


def test_unknown_words_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["fly"], ["sample", "--n", "many"], ["sample", "--sampler", "magic"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_ctrl_c_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "trajectory", stopped)
    assert main(["sample", "--n", "2", "--steps", "2"]) == 130
    assert not Path("samples").exists()


def test_evaluate_prints_and_writes_every_score_with_n_and_floor(capsys: pytest.CaptureFixture[str]) -> None:
    noise = torch.randn(90, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    safetensors.torch.save_file({"samples": noise}, "noise.safetensors")
    assert main(["evaluate", "--samples", "noise.safetensors", "--seeds", "2", "--out", "e"]) == 0
    shown, report = capsys.readouterr().out, json.loads(Path("e/report.json").read_text())
    assert "held-out accuracy 1.0 (n = 180)" in shown and report["ruler"] == {"name": "digits", "accuracy": 1.0, "n": 180}
    assert len(report["scores"]) == 7 and report["settings"]["samples"] == "noise.safetensors"
    for row in report["scores"]:
        assert row["name"] in shown and row["n"] == 90 and row["floor_seeds"] == 2
    frechet = report["scores"][0]
    assert frechet["value"] > 5 * frechet["floor"]
    assert "--overwrite" in refused(capsys, "evaluate", "--samples", "noise.safetensors", "--out", "e")


def test_evaluate_draws_from_a_checkpoint_what_sample_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(cli, "evaluate", lambda samples, *_: seen.append(samples) or ())
    assert main(["evaluate", "--checkpoint", "digits", "--n", "3", "--steps", "4"]) == 0
    assert torch.equal(seen[0], drawn())


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "ddpm_course", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "sample" in done.stdout and "evaluate" in done.stdout
    done = subprocess.run([sys.executable, "-m", "ddpm_course", "sample", "--n", "-1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: --n must be at least 1")
