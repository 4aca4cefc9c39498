"""Folders of DDPMPipeline, in and out: the same answers both ways, and a typed error wherever the answer would differ."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import ddpm_course.interop as interop
from ddpm_course import (
    NoiseSchedule,
    UNet,
    UNetConfig,
    clip_x_0,
    cosine_schedule,
    ddpm_sample,
    linear_schedule,
    quadratic_schedule,
    rescale_zero_terminal_snr,
    sigmoid_schedule,
)
from ddpm_course.errors import CheckpointError, ValueCourseError
from ddpm_course.interop import load_diffusers, load_diffusers_trained, our_schedule, save_diffusers, their_schedule

SMALL = UNetConfig(16, 3, 32, (1, 2, 2, 2), 2, (8,), groups=16, dropout=0.1)
TINY = UNetConfig(8, 1, 16, (1, 2), 1, (4,), groups=8)
FOUR_HEADS = UNetConfig(16, 1, 32, (1, 1, 2), 1, (4,), num_heads=4, groups=8)
SHIFTED = UNetConfig(16, 1, 16, (1, 2, 4), 2, (8,), groups=8, time_as="scale_shift")
TIMES = (1, 2, 500, 1000)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


def randomize(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of which none is near zero or one by habit: a wrong place, order or sign shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) * (2 / p[0].numel()) ** 0.5)
            else:
                p.copy_(torch.rand(p.shape, generator=generator) + 0.5)
    return net.eval()


def picture(config: UNetConfig, n: int = 2) -> Tensor:
    return torch.randn(n, config.channels, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def distance(ours: UNet, theirs: nn.Module, t: int, x: Tensor) -> float:
    """Largest difference of the answers at our time t, relative to the largest answer."""
    got, wanted = ours(x, torch.full((len(x),), t)), theirs(x, t - 1).sample
    return float((got - wanted).abs().max() / wanted.abs().max())


def edit(folder: Path, file: str, **settings: Any) -> None:
    """Change settings in one of a folder's JSON files; the value `...` removes one."""
    now = json.loads((folder / file).read_text()) | settings
    (folder / file).write_text(json.dumps({name: value for name, value in now.items() if value is not ...}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_diffusers(randomize(UNet(TINY)), linear_schedule(), tmp_path / "pipeline")
    return tmp_path / "pipeline"


# --- the same answer as theirs ----------------------------------------------------------------------------------------


def their_unet(**changes: Any) -> nn.Module:
    """A small UNet2DModel, written out as in google/ddpm-cifar10-32, with weights that matter."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
    settings = dict(
        sample_size=16, block_out_channels=(32, 64, 64, 64), layers_per_block=2, norm_num_groups=16, norm_eps=1e-6, dropout=0.1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"), attention_head_dim=None,
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
    )  # fmt: skip
    return randomize(diffusers.UNet2DModel(**settings | changes))


def their_folder(path: Path, net: nn.Module, kind: str = "DDPMScheduler", **settings: Any) -> Path:
    import diffusers

    diffusers.DDPMPipeline(unet=net, scheduler=getattr(diffusers, kind)(**settings)).save_pretrained(path)
    return path


CHANGES = {
    "as published": {},
    "two heads": {"attention_head_dim": 32},
    "cosines first": {"flip_sin_to_cos": True},
    "act_fn swish, size as a pair": {"act_fn": "swish", "sample_size": (16, 16)},
    "grey, one block": {"in_channels": 1, "out_channels": 1, "layers_per_block": 1, "attn_norm_num_groups": 16},
    "attention at all levels": {"down_block_types": ["AttnDownBlock2D"] * 4, "up_block_types": ["AttnUpBlock2D"] * 4},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 16},
    "scale and shift, nothing in the middle": {"resnet_time_scale_shift": "scale_shift", "add_attention": False, "attention_head_dim": 16},
    "no attention at all": {"add_attention": False, "down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4},
    "another number of groups": {"norm_num_groups": 8, "dropout": 0.0},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_their_folder_gives_their_answer(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = their_unet(**changes)
    ours, schedule = load_diffusers(their_folder(tmp_path, theirs))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert schedule.T == 1000 and not ours.training
    x = picture(ours.config)
    for t in TIMES:
        assert distance(ours, theirs, t, x) < 1e-5, t
    assert distance(ours, theirs, 1, x) < 1e-2 * distance_in_time(ours, x)  # and the test would see a shift of t by one


@torch.no_grad()
def distance_in_time(net: UNet, x: Tensor) -> float:
    a, b = net(x, torch.full((len(x),), 1)), net(x, torch.full((len(x),), 2))
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize("config", [SMALL, FOUR_HEADS, SHIFTED, replace(SHIFTED, middle_attention=False), UNetConfig.digits()])
def test_our_folder_gives_our_answer_there(tmp_path: Path, config: UNetConfig) -> None:
    diffusers = pytest.importorskip("diffusers")
    ours = randomize(UNet(config))
    save_diffusers(ours, linear_schedule(), tmp_path)
    theirs = diffusers.DDPMPipeline.from_pretrained(tmp_path).unet
    assert not theirs.training
    for t in TIMES:
        assert distance(ours, theirs, t, picture(config)) < 1e-5, t


def test_the_cifar10_network_in_both_directions(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    ours = randomize(UNet(UNetConfig.cifar10()))
    assert sum(p.numel() for p in ours.parameters()) == 35_746_307
    save_diffusers(ours, linear_schedule(), tmp_path / "ours")
    theirs = diffusers.DDPMPipeline.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    back, schedule = load_diffusers(tmp_path / "theirs")
    assert back.config == ours.config and torch.equal(schedule.beta, linear_schedule().beta)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), back.state_dict().values(), strict=True))
    for t in TIMES:
        assert distance(back, theirs.unet, t, picture(ours.config, 1)) < 1e-5, t


@pytest.mark.parametrize("prediction", ["eps", "v", "x_0"])
def test_their_pipeline_samples_from_ours_what_we_sample(tmp_path: Path, prediction: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    save_diffusers(randomize(UNet(TINY)), linear_schedule(), tmp_path, prediction)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(2, torch.Generator().manual_seed(3), num_inference_steps=10, output_type="pt").images
    trained = load_diffusers_trained(tmp_path)
    assert trained.prediction == prediction
    model = clip_x_0(trained.eps_model(), trained.schedule)
    got = ddpm_sample(model, trained.schedule, (2, 1, 8, 8), num_steps=10, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close((got / 2 + 0.5).clamp(0, 1), wanted, rtol=0, atol=1e-4)
    assert float(wanted.std()) > 0.05


@pytest.mark.parametrize(("kind", "their"), [("DDPMScheduler", "epsilon"), ("DDIMScheduler", "v_prediction"), ("DDPMScheduler", "sample")])
def test_their_scheduler_says_what_is_predicted(tmp_path: Path, kind: str, their: str) -> None:
    path = their_folder(tmp_path, their_unet(), kind, prediction_type=their)
    trained = load_diffusers_trained(path)
    assert trained.prediction == interop.PREDICTIONS[their] and trained.config["scheduler"]["_class_name"] == kind
    json.dumps(trained.config)
    if trained.prediction == "eps":
        load_diffusers(path)
    else:
        with pytest.warns(UserWarning, match=f"predicts {trained.prediction}"):
            load_diffusers(path)


def test_first_published_folders_are_flat_and_name_attention_otherwise(folder: Path) -> None:
    wanted = load_diffusers(folder)[0].state_dict()
    for name in (UNET, SCHEDULER, WEIGHTS):
        (folder / name).rename(folder / Path(name).name)
    (folder / "unet").rmdir(), (folder / "scheduler").rmdir()
    weights = safetensors.torch.load_file(folder / Path(WEIGHTS).name)
    for old, new in interop_old().items():
        weights = {name.replace(f".{new}.", f".{old}."): value for name, value in weights.items()}
    assert any(".proj_attn." in name for name in weights) and any(".query." in name for name in weights)
    safetensors.torch.save_file(weights, folder / Path(WEIGHTS).name)
    got = load_diffusers(folder)[0].state_dict()
    assert all(torch.equal(got[key], value) for key, value in wanted.items())


def interop_old() -> dict[str, str]:
    return {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def test_half_precision_weights_become_float32(folder: Path) -> None:
    weights = {name: value.half() for name, value in safetensors.torch.load_file(folder / WEIGHTS).items()}
    safetensors.torch.save_file(weights, folder / WEIGHTS)
    net, _ = load_diffusers(folder)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


# --- schedules --------------------------------------------------------------------------------------------------------

NAMED = {
    "linear": linear_schedule(), "scaled_linear": quadratic_schedule(), "sigmoid": sigmoid_schedule(),
    "squaredcos_cap_v2": cosine_schedule(),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_their_named_schedule_is_ours(name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(beta_schedule=name)
    ours = our_schedule(json.loads(theirs.to_json_string()))
    assert torch.equal(ours.beta, NAMED[name].beta)
    torch.testing.assert_close(ours.beta[1:].float(), theirs.betas, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(ours.alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=1e-3, atol=1e-6)


def test_their_trained_betas() -> None:
    diffusers = pytest.importorskip("diffusers")
    betas = [0.1, 0.3, 0.2]
    theirs = diffusers.DDPMScheduler(num_train_timesteps=3, trained_betas=betas)
    assert our_schedule(json.loads(theirs.to_json_string())).beta.tolist() == [0.0, *betas]


FAMILIES: dict[str, tuple[Callable[..., NoiseSchedule], tuple[Any, ...]]] = {
    "linear": (linear_schedule, (100, 1e-3, 0.2)),
    "linear with ends of many digits": (linear_schedule, (100, 0.001 / 3, 0.2 / 3)),
    "scaled_linear": (quadratic_schedule, (1000, 0.00085, 0.012)),
    "sigmoid": (sigmoid_schedule, (321, 2e-4, 0.03)),
    "squaredcos_cap_v2": (cosine_schedule, (50,)),
    "one step": (linear_schedule, (1, 0.1, 0.1)),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_our_families_keep_their_names_and_come_back_bit_for_bit(case: str) -> None:
    family, given = FAMILIES[case]
    saved = json.loads(json.dumps(their_schedule(family(*given))))
    assert "trained_betas" not in saved and saved["num_train_timesteps"] == given[0]
    assert torch.equal(our_schedule(saved).beta, family(*given).beta)
    if case in NAMED:
        assert saved["beta_schedule"] == case
    if len(given) == 3:
        assert (saved["beta_start"], saved["beta_end"]) == pytest.approx(given[1:], rel=1e-12)


UNNAMED = {
    "zero terminal SNR": rescale_zero_terminal_snr(cosine_schedule()),
    "another s": cosine_schedule(100, s=0.02),
    "noisy ends": NoiseSchedule([0.9] + [0.01] * 998 + [0.9]),
    "random": NoiseSchedule(torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.4 + 0.01),
}


@pytest.mark.parametrize("case", UNNAMED)
def test_other_schedules_come_back_bit_for_bit(case: str) -> None:
    saved = json.loads(json.dumps(their_schedule(UNNAMED[case])))
    assert len(saved["trained_betas"]) == UNNAMED[case].T
    assert torch.equal(our_schedule(saved).beta, UNNAMED[case].beta)


def test_a_schedule_that_their_float32_cannot_hold_is_refused() -> None:
    for betas in ([1e-9, 0.1], [0.1, 1 - 1e-9]):
        with pytest.raises(CheckpointError, match="float32"):
            their_schedule(NoiseSchedule(betas))


# --- round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [NAMED["squaredcos_cap_v2"], UNNAMED["zero terminal SNR"]], ids=["named", "unnamed"])
@pytest.mark.parametrize("config", [SMALL, TINY, SHIFTED, UNetConfig(16, 3, 32, (1, 2, 2), 1, (8, 4), num_heads=2, groups=8)])
def test_round_trip_is_bit_exact(tmp_path: Path, config: UNetConfig, schedule: NoiseSchedule) -> None:
    net = randomize(UNet(config)).to(memory_format=torch.channels_last)
    save_diffusers(net, schedule, str(tmp_path), "v")
    trained = load_diffusers_trained(str(tmp_path))
    assert trained.net.config == config and trained.prediction == "v" and torch.equal(trained.schedule.beta, schedule.beta)
    got, wanted = trained.net.state_dict(), net.state_dict()
    assert got.keys() == wanted.keys() and all(torch.equal(got[key], wanted[key]) for key in got)


def test_options_that_change_no_answer_are_left_out(tmp_path: Path) -> None:
    net = randomize(UNet(replace(TINY, pad=True, checkpointing=True)))
    save_diffusers(net, linear_schedule(), tmp_path)
    again, _ = load_diffusers(tmp_path)
    x, t = picture(TINY), torch.tensor([3, 700])
    assert again.config == TINY and torch.equal(again(x, t), net(x, t))


def test_their_scale_shift_without_attn_norm_num_groups_has_a_middle_attention_without_norm(folder: Path) -> None:
    save_diffusers(randomize(UNet(SHIFTED)), linear_schedule(), folder)
    edit(folder, UNET, attn_norm_num_groups=None)
    with pytest.raises(CheckpointError, match="attn_norm_num_groups = None.* 8"):
        load_diffusers(folder)


def test_saving_twice_keeps_the_last(folder: Path) -> None:
    save_diffusers(randomize(UNet(SMALL)), cosine_schedule(10), folder)
    net, schedule = load_diffusers(folder)
    assert net.config == SMALL and schedule.T == 10
    assert not [p for p in folder.rglob(".*")]


def test_no_diffusers_is_imported(folder: Path) -> None:
    code = f"""import sys, ddpm_course.interop as i
net, schedule = i.load_diffusers({str(folder)!r}); i.save_diffusers(net, schedule, {str(folder / "again")!r})
print("diffusers" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


# --- what is refused --------------------------------------------------------------------------------------------------

SETTINGS: list[tuple[str, str, Any]] = [
    (UNET, "act_fn", "gelu"), (UNET, "attention_head_dim", 8), (UNET, "attention_head_dim", 5),
    (UNET, "attention_head_dim", ...), (UNET, "attn_norm_num_groups", 4), (UNET, "block_out_channels", [16, 24]),
    (UNET, "center_input_sample", True), (UNET, "class_embed_type", "timestep"), (UNET, "num_class_embeds", 10),
    (UNET, "down_block_types", ["DownBlock2D", "ResnetDownsampleBlock2D"]), (UNET, "down_block_types", ["DownBlock2D"]),
    (UNET, "up_block_types", ["UpBlock2D", "AttnUpBlock2D"]), (UNET, "up_block_types", ["AttnUpBlock2D", "SkipUpBlock2D"]),
    (UNET, "downsample_padding", 1), (UNET, "downsample_padding", ...), (UNET, "downsample_type", "resnet"), (UNET, "freq_shift", 0),
    (UNET, "freq_shift", ...), (UNET, "mid_block_scale_factor", 1.4142), (UNET, "mid_block_type", None), (UNET, "norm_eps", 1e-5),
    (UNET, "norm_eps", ...), (UNET, "norm_num_groups", 5), (UNET, "norm_num_groups", None), (UNET, "out_channels", 2),
    (UNET, "resnet_time_scale_shift", "spatial"), (UNET, "sample_size", None), (UNET, "sample_size", [8, 16]),
    (UNET, "time_embedding_dim", 32), (UNET, "time_embedding_type", "fourier"), (UNET, "upsample_type", "resnet"),
    (UNET, "some_later_invention", 3),
    (SCHEDULER, "beta_schedule", "laplace"), (SCHEDULER, "prediction_type", "flow"), (SCHEDULER, "rescale_betas_zero_snr", True),
    (SCHEDULER, "trained_betas", [0.1, 0.2]), ("model_index.json", "_class_name", "StableDiffusionPipeline"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "name", "value"), SETTINGS, ids=[f"{name}={value}" for _, name, value in SETTINGS])
def test_a_setting_without_an_equal_is_refused_by_name(folder: Path, file: str, name: str, value: Any) -> None:
    edit(folder, file, **{name: value})
    if file == "model_index.json":
        edit(folder, file, unet=["diffusers", "UNet2DConditionModel"])
    if value in (8, ...) and name == "attention_head_dim":  # two heads in the middle, one above: not one number
        edit(folder, UNET, down_block_types=["AttnDownBlock2D"] * 2, up_block_types=["AttnUpBlock2D"] * 2)
    with pytest.raises(CheckpointError, match=name) as caught:
        load_diffusers(folder)
    shown = {"trained_betas": "2 numbers", "downsample_padding": "1", "freq_shift": "0", "norm_eps": "1e-05", "attention_head_dim": ""}
    assert shown.get(name, repr(value)) in str(caught.value)


@pytest.mark.parametrize("kind", ["PNDMScheduler", "KarrasVeScheduler", "EulerDiscreteScheduler"])
def test_schedulers_with_other_noise_are_refused(folder: Path, kind: str) -> None:
    edit(folder, SCHEDULER, _class_name=kind)
    with pytest.raises(CheckpointError, match=kind):
        load_diffusers(folder)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        (UNET, {"block_out_channels": [16, "a"]}), (UNET, {"block_out_channels": []}), (UNET, {"sample_size": 9}), (UNET, {"dropout": 2.0}),
        (UNET, {"block_out_channels": [-16, -32]}), (SCHEDULER, {"beta_end": 2.0}), (SCHEDULER, {"beta_start": None}),
        (SCHEDULER, {"trained_betas": [0.1, -0.2], "num_train_timesteps": 2}), (SCHEDULER, {"prediction_type": ["epsilon"]}),
    ],
)  # fmt: skip
def test_contradictions_are_typed_errors(folder: Path, file: str, settings: dict[str, Any]) -> None:
    edit(folder, file, **settings)
    with pytest.raises(CheckpointError):
        load_diffusers(folder)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (UNetConfig(8, 1, 16, (1, 2), 1, (4,), groups=8, patch_size=2), "patch_size"),
        (UNetConfig(8, 1, 16, (2, 4), 1, (), groups=8), "multipliers"),
        (UNetConfig(8, 1, 16, (1, 2), 1, (), groups=32), "groups"),
        (UNetConfig(8, 1, 16, (1, 2), 1, (8,), num_heads=2, groups=8), "num_heads"),
        (replace(TINY, skip="add"), "skip"),
        (replace(TINY, skip="none"), "skip"),
        (replace(TINY, upsample="bilinear"), "upsample"),
        (replace(TINY, upsample="transposed"), "upsample"),
        (replace(TINY, time_as="none"), "time_as"),
        (replace(TINY, num_classes=10), "num_classes"),
        (replace(TINY, context_dim=4), "context_dim"),
        (replace(TINY, condition_channels=1), "condition_channels"),
        (replace(TINY, image_size=7, pad=True), "image_size"),
    ],
)
def test_our_networks_without_an_equal_are_refused_and_nothing_is_written(tmp_path: Path, config: UNetConfig, name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        save_diffusers(UNet(config), linear_schedule(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_unet_or_no_prediction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Linear"):
        save_diffusers(nn.Linear(2, 2), linear_schedule(), tmp_path)
    with pytest.raises(ValueCourseError, match="epsilon"):
        save_diffusers(UNet(TINY), linear_schedule(), tmp_path, "epsilon")
    assert not list(tmp_path.iterdir())


# --- damaged, half-written, unsafe ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model_index.json", UNET, SCHEDULER, WEIGHTS])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_a_half_written_folder_is_refused(folder: Path, file: str, damage: str) -> None:
    content = (folder / file).read_bytes()
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(CheckpointError, match=Path(file).name):
        load_diffusers(folder)


def test_json_that_holds_no_settings(folder: Path) -> None:
    (folder / UNET).write_text("[1]")
    with pytest.raises(CheckpointError, match="no settings"):
        load_diffusers(folder)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_save_cut_short_leaves_no_folder_that_opens(folder: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    write, left = interop.write_atomic, [after]

    def failing(path: Path, content: bytes) -> None:
        if not left[0]:
            raise CheckpointError("the disk is full")
        left[0] -= 1
        write(path, content)

    monkeypatch.setattr(interop, "write_atomic", failing)
    with pytest.raises(CheckpointError, match="full"):
        save_diffusers(randomize(UNet(TINY), 1), cosine_schedule(), folder)
    with pytest.raises(CheckpointError, match="model_index.json"):
        load_diffusers(folder)
    diffusers = pytest.importorskip("diffusers")
    with pytest.raises(OSError, match="model_index.json"):
        diffusers.DDPMPipeline.from_pretrained(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_diffusers(UNet(TINY), linear_schedule(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "here first"


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"anything at all")
    with pytest.raises(CheckpointError, match="safe_serialization=True") as caught:
        load_diffusers(folder)
    assert "diffusion_pytorch_model.bin" in str(caught.value) and "run code" in str(caught.value)


def test_pickled_weights_as_they_write_them(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    import diffusers

    pipeline = diffusers.DDPMPipeline(unet=their_unet(), scheduler=diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match="safe_serialization=True"):
        load_diffusers(tmp_path)


def test_variants_and_shards_are_named(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(CheckpointError, match="fp16.*without a variant"):
        load_diffusers(folder)


def test_weights_of_another_shape_missing_or_too_many(folder: Path) -> None:
    whole = safetensors.torch.load_file(folder / WEIGHTS)
    key = "mid_block.attentions.0.to_k.weight"
    cases = {
        "shape": (whole | {key: whole[key][:8].clone()}, rf"{key} should be \(32, 32\), and is \(8, 32\)"),
        "missing": ({name: value for name, value in whole.items() if name != key}, f"{key} .*missing"),
        "many": (whole | {"down_blocks.7.odd.weight": torch.ones(1)}, "asks for no down_blocks.7.odd.weight"),
    }
    for weights, message in cases.values():
        safetensors.torch.save_file(weights, folder / WEIGHTS)
        with pytest.raises(CheckpointError, match=message):
            load_diffusers(folder)


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_a_hub_name_offline_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(name: str, **_: object) -> str:
        raise ConnectionError("Name or service not known\nand more lines")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="google/ddpm-cifar10-32.*not known.*go online") as caught:
        load_diffusers("google/ddpm-cifar10-32")
    assert "\n" not in str(caught.value) and time.monotonic() - start < 2


def test_a_hub_name_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install ddpm-course\[hub\]"):
        load_diffusers("google/ddpm-cifar10-32")


def test_a_hub_name_online_fetches_only_what_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def download(name: str, allow_patterns: list[str], **_: object) -> str:
        asked[name] = allow_patterns
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    trained = load_diffusers_trained("owner/model-1.0")
    assert trained.net.config == TINY and trained.config["source"] == "owner/model-1.0"
    assert {UNET, SCHEDULER, WEIGHTS, "model_index.json"} < set(asked["owner/model-1.0"])
    assert not [p for p in asked["owner/model-1.0"] if p.endswith((".bin", "*"))]


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/no/such/folder", "../up"])
def test_a_folder_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=f"no folder {name}"):
        load_diffusers(Path(name) if name == "/no/such/folder" else name)
