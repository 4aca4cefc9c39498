"""Train the networks of chapter 20, each by one command (an hour or two on a CPU core, minutes on a GPU):

python benchmarks/series_models.py train series          # resumes where it stopped; also: series-parts, waves, and two ablations
python benchmarks/series_models.py ship series           # fp16 weights into the package; the model card comes from series_scores.py
python benchmarks/series_models.py train series --device cuda --seconds 120     # as many steps as fit into the time
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ddpm_course import TrainConfig, diffusion_loss, load_model, train
from ddpm_course.checkpoint import ASSETS, save_model
from ddpm_course.data import Splits
from ddpm_course.losses import Loss, with_spectrum
from ddpm_course.models import PartsConfig, PartsTransformer, Transformer, TransformerConfig
from ddpm_course.series import load_strings, load_weeks

BASE = TrainConfig(
    steps=6000,
    batch_size=512,
    lr=1e-3,
    warmup=200,
    final_lr=0.02,
    ema_decay=0.999,
    log_every=500,
    save_every=250,
    keep_last=1,
    channels_last=False,
)
QUIET = TransformerConfig(loudness=0.02)  # the networks in parts began so; chapter 20 shows why a fresh start should be louder
CPU = {"data": "weeks", "batch_size": 64, "warmup": 300, "precision": "bf16", "log_every": 1000, "save_every": 1000}  # many small steps
STRINGS = TransformerConfig(length=512, patch=32)
SPECTRAL = with_spectrum(0.05)
X_0 = replace(BASE, prediction="x_0", weighting="min_snr")


@dataclass(frozen=True)
class Recipe:
    """What one network is trained with."""

    config: TrainConfig
    net: Callable[[], nn.Module]
    data: Callable[[], Splits]
    loss: Loss = diffusion_loss


RECIPES = {
    "series": Recipe(replace(BASE, steps=14_000, **CPU), lambda: Transformer(TransformerConfig()), load_weeks),
    "series-parts": Recipe(
        replace(X_0, data="weeks"), lambda: PartsTransformer(PartsConfig(QUIET, rest=True)), load_weeks, with_spectrum(0.05)
    ),
    "series-two-parts": Recipe(replace(X_0, data="weeks"), lambda: PartsTransformer(PartsConfig(QUIET)), load_weeks, SPECTRAL),
    "series-parts-square": Recipe(replace(X_0, data="weeks"), lambda: PartsTransformer(PartsConfig(QUIET, rest=True)), load_weeks),
    "waves": Recipe(replace(BASE, data="strings", batch_size=64, steps=40_000, lr=2e-3), lambda: Transformer(STRINGS), load_strings),
}


def steps_in(seconds: float, recipe: Recipe, config: TrainConfig) -> int:
    """How many steps fit into so many seconds, from 80 steps that are thrown away."""
    run = lambda steps: train(replace(config, steps=steps, out=None), recipe.data(), recipe.net(), loss=recipe.loss)  # noqa: E731
    run(20)
    start = time.monotonic()
    run(60)
    rate = 60 / (time.monotonic() - start)
    return max(100, min(20_000, int(rate * seconds) // 100 * 100))


def train_one(name: str, device: str = "cpu", seconds: float = 0, steps: int = 0, folder: str = "runs") -> None:
    """Train a recipe, resuming in folder/name."""
    recipe = RECIPES[name]
    torch.set_float32_matmul_precision("high")  # a GPU may round the factors of a product to TF32
    config = replace(recipe.config, device=device, steps=steps or recipe.config.steps)
    if seconds:
        config = replace(config, steps=steps_in(seconds, recipe, config))
    print(name, "steps", config.steps, flush=True)
    torch.manual_seed(0)
    trained = train(replace(config, out=f"{folder}/{name}"), recipe.data(), recipe.net(), loss=recipe.loss)
    print(name, trained.history[-1], flush=True)


def ship(name: str, folder: str = "runs", to: str | Path = ASSETS) -> None:
    """Write the averaged weights as fp16."""
    save_model(Path(to) / name, load_model(f"{folder}/{name}"), half=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "ship"))
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--to", default=str(ASSETS))
    args = parser.parse_args()
    if args.what == "train":
        train_one(args.name, args.device, args.seconds, args.steps, args.folder)
    else:
        ship(args.name, args.folder, args.to)
