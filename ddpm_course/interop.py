"""Folders of diffusers' DDPMPipeline, in and out, without importing diffusers: JSON and safetensors, nothing executable."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .checkpoint import Trained, write_atomic
from .errors import CheckpointError, ScheduleError, one_of
from .models import UNet
from .schedule import NoiseSchedule, cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule
from .unet2d import DEFAULTS, refuse, their_config, unet_config, weights_for_diffusers, weights_from_diffusers

INDEX, WEIGHTS = "model_index.json", "diffusion_pytorch_model.safetensors"
HUB_FILES = [INDEX, *(f"{at}{name}" for at in ("unet/", "") for name in ("config.json", WEIGHTS))]
HUB_FILES += ["scheduler/scheduler_config.json", "scheduler_config.json"]
PREDICTIONS = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}
FAMILIES = {"linear": linear_schedule, "scaled_linear": quadratic_schedule, "sigmoid": sigmoid_schedule}
FAMILIES |= {"squaredcos_cap_v2": cosine_schedule}
SCHEDULER = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None}
SCHEDULER |= {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
VERSION = {"_diffusers_version": "0.31.0"}  # the oldest that the folders we write are for


def their_schedule(schedule: NoiseSchedule) -> dict[str, Any]:
    """Their name and parameters for the schedule if a family gives this very table, else all its betas."""
    beta = schedule.beta[1:].cpu()
    bar = (1 - beta.float()).cumprod(0)
    if not bool(((bar > 0) & (bar < 1)).all()):
        refuse("alpha_bar_T", float(schedule.alpha_bar[-1]), "diffusers' float32 tables round one of its values to 0 or 1")
    first, last, (low, high) = float(beta[0]), float(beta[-1]), torch.tensor([-6.0, 6.0], dtype=torch.float64).sigmoid().tolist()
    rise = (last - first) / (high - low)
    ends = {"linear": (first, last), "scaled_linear": (first, last), "sigmoid": (first - rise * low, last + rise * (1 - high))}
    for name, family in FAMILIES.items():
        for digits in (17, 12):  # as they are, and without the last bits that square roots and sigmoids cost
            given = [float(f"{end:.{digits}g}") for end in ends.get(name, ())]
            if _gives(family, given, schedule):
                parameters = dict(zip(("beta_start", "beta_end"), given, strict=False))
                return {"num_train_timesteps": schedule.T, "beta_schedule": name, **parameters}
    return {"num_train_timesteps": schedule.T, "trained_betas": beta.tolist()}


def _gives(family: Callable[..., NoiseSchedule], ends: list[float], schedule: NoiseSchedule) -> bool:
    try:
        return torch.equal(family(schedule.T, *ends).beta, schedule.beta.cpu())
    except ScheduleError:
        return False


def our_schedule(settings: dict[str, Any]) -> NoiseSchedule:
    """The schedule of a scheduler_config.json in float64, by formula: their tables are float32, up to 5e-4 off at t = 1."""
    s = SCHEDULER | settings
    if s.get("_class_name", "DDPMScheduler") not in ("DDPMScheduler", "DDIMScheduler"):
        refuse("scheduler", s["_class_name"], "we read the schedules of DDPMScheduler and DDIMScheduler")
    if s["rescale_betas_zero_snr"]:
        refuse("rescale_betas_zero_snr", True, "our alpha_bar_T is above 0; set it to false there, and call rescale_zero_terminal_snr")
    T, betas, family = s["num_train_timesteps"], s["trained_betas"], FAMILIES.get(s["beta_schedule"])
    if betas is not None:
        if len(betas) != T:
            refuse("trained_betas", f"{len(betas)} numbers", f"num_train_timesteps is {T}")
        return NoiseSchedule(betas)
    if family is None:
        refuse("beta_schedule", s["beta_schedule"], f"we have {', '.join(FAMILIES)} and trained_betas")
    return family(T) if family is cosine_schedule else family(T, s["beta_start"], s["beta_end"])


def load_diffusers_trained(folder: str | Path) -> Trained:
    """The U-Net of a DDPMPipeline folder (or of a hub name such as "google/ddpm-cifar10-32") with its schedule and prediction."""
    root = Path(folder) if Path(folder).is_dir() else _fetch(str(folder))
    index = _read(root / INDEX)
    if index.get("unet") != ["diffusers", "UNet2DModel"]:
        refuse("_class_name", index.get("_class_name"), "we read pipelines of one UNet2DModel and a scheduler, such as DDPMPipeline")
    unet_at, scheduler_at = (root / part if (root / part).is_dir() else root for part in ("unet", "scheduler"))  # the first ones are flat
    settings, scheduler = _read(unet_at / "config.json"), _read(scheduler_at / "scheduler_config.json")
    try:
        prediction = PREDICTIONS.get(scheduler.get("prediction_type", "epsilon"))
        if prediction is None:
            refuse("prediction_type", scheduler["prediction_type"], f"we have {', '.join(PREDICTIONS)}")
        unet, schedule = UNet(unet_config(settings)), our_schedule(scheduler)
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"the settings in {root} contradict themselves: {error}; save the pipeline again") from error
    weights_from_diffusers(_weights(unet_at), unet, cosines_first=(DEFAULTS | settings)["flip_sin_to_cos"])
    return Trained(unet.eval().requires_grad_(False), schedule, prediction, {"source": str(folder), "scheduler": scheduler})


def load_diffusers(folder: str | Path) -> tuple[UNet, NoiseSchedule]:
    """U-Net and schedule of a DDPMPipeline folder or hub name; warns if the network predicts v or x_0 instead of eps."""
    trained = load_diffusers_trained(folder)
    if trained.prediction != "eps":
        warnings.warn(f"this network predicts {trained.prediction}: say so to as_eps_model, or use load_diffusers_trained", stacklevel=2)
    return trained.net, trained.schedule


def save_diffusers(unet: UNet, schedule: NoiseSchedule, folder: str | Path, prediction: str = "eps") -> None:
    """Write a folder that DDPMPipeline.from_pretrained opens; it samples as ddpm_sample(clip_x_0(eps_model)) does.

    Each file is replaced at once and model_index.json comes last: without it, from_pretrained and load_diffusers refuse the folder.
    """
    theirs = {ours: name for name, ours in PREDICTIONS.items()}
    one_of("prediction", prediction, theirs)
    if not isinstance(unet, UNet):
        raise CheckpointError(f"diffusers' UNet2DModel equals our UNet only, got {type(unet).__name__}; unwrap it first")
    scheduler = {"_class_name": "DDPMScheduler", "prediction_type": theirs[prediction], "variance_type": "fixed_small", "clip_sample": True}
    scheduler |= {"timestep_spacing": "trailing", **their_schedule(schedule)}
    index = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    files = {"unet/config.json": their_config(unet), "scheduler/scheduler_config.json": scheduler, INDEX: index}
    content = {name: (json.dumps(settings | VERSION, indent=2) + "\n").encode() for name, settings in files.items()}
    weights = safetensors.torch.save(weights_for_diffusers(unet), metadata={"format": "pt"})
    if (Path(folder) / INDEX).exists():
        (Path(folder) / INDEX).unlink()
    for name, bytes_ in {f"unet/{WEIGHTS}": weights, **content}.items():
        write_atomic(Path(folder) / name, bytes_)


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); was the folder half written? Save the pipeline again") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds no settings; save the pipeline again")
    return settings


def _weights(folder: Path) -> dict[str, Tensor]:
    path, others = folder / WEIGHTS, sorted(p.name for p in folder.glob("*model*") if p.name != WEIGHTS)
    if not path.exists():
        is_pickled = any(name.endswith((".bin", ".pt", ".ckpt")) for name in others)
        pickled = "; pickled weights can run code, so we never read them" if is_pickled else ""
        raise CheckpointError(
            f"{path} is missing (there: {', '.join(others) or 'no weights'}){pickled}; in diffusers, save the pipeline again "
            "by save_pretrained(folder, safe_serialization=True), whole and without a variant"
        )
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); save the pipeline again") from error


def _fetch(name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(f"no folder {name}; give one that DDPMPipeline.save_pretrained wrote, or a hub name, owner/model")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(f"no folder {name}; to fetch it from the hub: pip install ddpm-course[hub]") from error
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, etag_timeout=10))
    except Exception as error:  # offline, unknown, private: each its own class, over several versions of the library
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise CheckpointError(f"no folder {name}, nor did the hub give it ({reason}); go online, or pass a downloaded folder") from error
