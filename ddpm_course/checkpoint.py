"""Checkpoints: safetensors and JSON, nothing executable. A folder stays readable after a kill in mid-save."""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .models import (
    Classifier,
    ConvVAE,
    ConvVAEConfig,
    NoisyClassifier,
    PartsConfig,
    PartsTransformer,
    SceneJudge,
    TextUNet,
    TextUNetConfig,
    Transformer,
    TransformerConfig,
    UNet,
    UNetConfig,
)
from .prediction import EpsModel, as_eps_model
from .schedule import NoiseSchedule

ASSETS = Path(__file__).parent / "assets"
Net = TypeVar("Net", bound=nn.Module)
NETWORKS: dict[str, tuple[type[nn.Module], type]] = {  # name in the JSON -> network, and its one argument
    "unet": (UNet, UNetConfig),
    "conv_vae": (ConvVAE, ConvVAEConfig),
    "text_unet": (TextUNet, TextUNetConfig),
    "transformer": (Transformer, TransformerConfig),
    "parts_transformer": (PartsTransformer, PartsConfig),
}


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that its name holds either the old content or the new, never a part: temporary file, fsync, replace."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error}; what was there before is intact") from error


def save_tensors(folder: str | Path, name: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Save tensors and JSON-able meta as folder/name-<hash>.safetensors and folder/name.json; the JSON, written last, makes it count."""
    folder = Path(folder)
    content = safetensors.torch.save({key: x.detach().cpu().contiguous() for key, x in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    weights = folder / f"{name}-{digest[:8]}.safetensors"
    write_atomic(weights, content)
    write_atomic(folder / f"{name}.json", (json.dumps({**meta, "weights": weights.name, "sha256": digest}, indent=1) + "\n").encode())
    for old in folder.glob(f"{name}-????????.safetensors"):
        if old != weights:
            old.unlink()


def load_tensors(folder: str | Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What save_tensors saved, after comparing the checksum. CheckpointError if it is missing or damaged."""
    path = Path(folder) / f"{name}.json"
    try:
        meta = json.loads(path.read_bytes())
        content = (path.parent / meta["weights"]).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no checkpoint {name!r} in {folder}: {Path(error.filename).name} is missing; train one, or see shipped()"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); take an older checkpoint or train again") from error
    if hashlib.sha256(content).hexdigest() != meta.get("sha256"):
        raise CheckpointError(f"{path.parent / meta['weights']} is damaged: its checksum differs; take an older checkpoint or train again")
    return safetensors.torch.load(content), meta


@dataclass
class Trained:
    """A trained network with all that sampling needs: net in eval mode, schedule, prediction ("eps", "x_0", "v"), config, history."""

    net: nn.Module
    schedule: NoiseSchedule
    prediction: str = "eps"
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def eps_model(self, **cond: object) -> EpsModel:
        """The network as (x_t, t) -> eps, whatever it predicts; dropout is off."""
        self.net.eval()
        return as_eps_model(self.net, self.schedule, self.prediction, **cond)


def is_registered(net: nn.Module) -> bool:
    """Whether save_model can save this network: its class is one of NETWORKS."""
    return any(type(net) is kind for kind, _ in NETWORKS.values())


def describe(net: nn.Module) -> dict[str, Any]:
    """What rebuilds a network of NETWORKS: its name there, and its config as JSON-able values."""
    for name, (kind, _) in NETWORKS.items():
        if type(net) is kind:
            return {name: asdict(net.config)}
    raise CheckpointError(f"models are of {sorted(NETWORKS)}, got {type(net).__name__}; save other networks with save_tensors")


def config_from(cls: type, values: dict[str, Any]) -> Any:
    """A config from JSON: lists are tuples, and inner configs are configs again."""
    hints = get_type_hints(cls)
    inner: dict[str, Any] = {key: config_from(hints[key], v) if is_dataclass(hints.get(key)) else v for key, v in values.items()}
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in inner.items()})


def filled(net: Net, weights: dict[str, Tensor]) -> Net:
    """The network with these weights (of any precision) as float32, in eval mode, without gradients."""
    net.load_state_dict({key: x.float() for key, x in weights.items()})
    return net.eval().requires_grad_(False)


def rebuild(weights: dict[str, Tensor], meta: dict[str, Any]) -> nn.Module:
    """The network that describe() described, with these weights, float32, in eval mode, without gradients. KeyError if it is none."""
    name = next((key for key in NETWORKS if key in meta), "")
    if not name:
        raise KeyError(f"none of {sorted(NETWORKS)} is described in it")
    kind, config = NETWORKS[name]
    return filled(kind(config_from(config, meta[name])), weights)


def save_model(folder: str | Path, trained: Trained, half: bool = False) -> None:
    """Save a Trained network of NETWORKS into a folder; `half` stores the weights as fp16 (for shipping; half the size)."""
    meta = describe(trained.net) | {"prediction": trained.prediction, "config": trained.config, "history": trained.history}
    weights = {key: x.half() if half else x for key, x in trained.net.state_dict().items()}
    save_tensors(folder, "model", weights | {"schedule.beta": trained.schedule.beta[1:]}, meta)


def load_model(path: str | Path) -> Trained:
    """The Trained that save_model wrote into this folder, on the CPU, float32, in eval mode."""
    weights, meta = load_tensors(path, "model")
    try:
        schedule = NoiseSchedule(weights.pop("schedule.beta"))
        return Trained(rebuild(weights, meta), schedule, meta["prediction"], meta["config"], meta["history"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} holds no model that save_model wrote: {error}; train again, or see shipped()") from error
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit the network its JSON describes: {error}") from error


def shipped(name: str) -> Path:
    """Folder of a checkpoint that comes with the course: "digits", "mnist", each with a classifier, and "digits-classes"."""
    known = sorted(p.parent.name for p in ASSETS.glob("*/model.json"))
    if name not in known:
        raise CheckpointError(f"no shipped checkpoint {name!r}; shipped: {', '.join(known)}")
    return ASSETS / name


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint: a shipped name (see shipped) or a path."""
    return Path(name) if os.sep in name or Path(name, "model.json").exists() else shipped(name)


def load_classifier(name: str) -> Classifier:
    """The shipped digit classifier for "digits" (8x8) or "mnist" (28x28), in eval mode; its features() feed frechet_distance."""
    weights, _ = load_tensors(shipped(name), "classifier")
    return filled(Classifier(), weights)


def load_noisy_classifier(name: str = "digits") -> NoisyClassifier:
    """The shipped classifier of noisy digits, (x_t, t) -> logits, for the times and the schedule of the model beside it; in eval mode."""
    weights, meta = load_tensors(shipped(name), "noisy_classifier")
    return filled(NoisyClassifier(**meta["net"]), weights)


def load_judge(folder: str | Path | None = None) -> SceneJudge:
    """The shipped judge of chapter 18, or the one in this folder: see() tells which scene a picture shows; in eval mode."""
    weights, _ = load_tensors(folder or shipped("captions"), "judge")
    return filled(SceneJudge(), weights)


def rng(seed: int, *keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on (seed, keys) alone, so that step 1,000 needs no memory of steps 0..999."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
