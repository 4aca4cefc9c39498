"""Model cards of the shipped checkpoints, measured again from their weights: python benchmarks/train_shipped.py card mnist

Every measurement of one seed goes to runs/card-NAME-CHECKSUM/ at once, so that a run that was stopped goes on where it was.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_course import load_model
from ddpm_course.checkpoint import ASSETS, Trained, load_classifier, load_tensors, rng, write_atomic
from ddpm_course.cli import Sample
from ddpm_course.data import Splits, load
from ddpm_course.elbo import vlb_term
from ddpm_course.likelihood import ImportanceTimes, sampled_bound
from ddpm_course.scores import evaluate
from ddpm_course.variance import eps_moments, optimal_variance

SEEDS = (0, 1, 2)
SAMPLERS: dict[str, dict[str, tuple[str, int]]] = {  # checkpoint -> heading -> the options of `python -m ddpm_course sample`
    "digits": {"DDIM, 50 steps": ("ddim", 50), "DPM-Solver++(2M), 20 steps": ("dpm", 20), "DDPM, 250 steps": ("ddpm", 250)},
    "mnist": {"DDIM, 50 steps": ("ddim", 50)},
}
TERMS = 10  # terms of the bound for each picture and seed
SOME_TIMES = (*range(1, 13), 15, 18, 22, 27, 33, 40, 50, 65, 80, 100, 130, 160, 200, 300, 400, 550, 700, 850, 1000)
CLASSES, FRECHET = "class histogram chi-square", "Fréchet distance"


def held_out(splits: Splits) -> Tensor:
    """Validation and test pictures: never trained on."""
    return torch.cat([splits.val.images, splits.test.images])


def checksum(name: str) -> str:
    """What the measurements depend on: the weights of the model and of the ruler."""
    return "".join(load_tensors(ASSETS / name, part)[1]["sha256"][:6] for part in ("model", "classifier"))


def once(file: Path, measure: Callable[[], Any]) -> Any:
    """What measure() returns, read from this JSON file if an earlier run has written it."""
    if not file.exists():
        write_atomic(file, json.dumps(measure(), indent=1, ensure_ascii=False).encode())
        print(f"measured {file}", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def sample_scores(name: str, trained: Trained, sampler: str, steps: int, seed: int) -> dict[str, Any]:
    """All scores of as many samples as there are held-out pictures, each with n and floor, and the classes drawn."""
    splits, net = load(trained.config["data"]), load_classifier(name)
    real = held_out(splits)
    samples, _, _ = Sample(checkpoint=name, sampler=sampler, steps=steps, n=len(real), seed=seed).draw(trained)
    found = evaluate(samples, splits.train.images, real, net.features, net)
    with torch.no_grad():
        drawn = net(samples).argmax(1).bincount(minlength=10).tolist()
    return {"scores": {score.name: score.as_dict() for score in found}, "drawn": drawn}


class Bits:
    """Bits per dimension by the bound: 256 grey values, best scalar variances and times by importance, both found on training pictures."""

    def __init__(self, trained: Trained) -> None:
        self.model, self.schedule = trained.eps_model(), trained.schedule
        self.splits = load(trained.config["data"])
        train = self.splits.train.images
        moments = eps_moments(self.model, self.schedule, train[:128], SOME_TIMES, rng(0, 1))
        self.variance, self.times = optimal_variance(self.schedule, moments.error), ImportanceTimes(self.schedule.T, history=5)
        t = torch.arange(self.schedule.T) + 1
        for k in range(5):
            x_0 = train[torch.randperm(len(train), generator=rng(0, 2, k))[: len(t)]]
            eps = torch.randn(x_0.shape, generator=rng(0, 3, k))
            self.times.update(t, vlb_term(self.model, self.schedule, x_0, t, eps, self.variance, "discrete"))

    def of(self, x_0: Tensor, seed: int) -> dict[str, float]:
        """Mean over pictures, its standard error over terms, n and the number of terms."""
        generator = rng(seed, 4)
        terms = torch.cat(
            [
                sampled_bound(self.model, self.schedule, part, self.times, self.variance, "discrete", generator)
                for _ in range(TERMS)
                for part in x_0.split(256)
            ]
        ) / (x_0[0].numel() * math.log(2))
        return {"bits": float(terms.mean()), "error": float(terms.std()) / len(terms) ** 0.5, "n": len(x_0), "terms": len(terms)}


def measure_bits(trained: Trained) -> list[dict[str, Any]]:
    """Bits of the held-out pictures and, as the floor, of as many training pictures: one pair for each seed."""
    bits, real, rows = Bits(trained), held_out(load(trained.config["data"])), []
    train = bits.splits.train.images
    for seed in SEEDS:
        own = train[torch.randperm(len(train), generator=rng(seed, 5))[: len(real)]]
        rows.append({"held_out": bits.of(real, seed), "train": bits.of(own, seed)})
    return rows


def listed(values: list[float], digits: int = 2) -> str:
    """Numbers as text: "1.20, 1.34, 1.31"."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def rows_of(runs: list[dict[str, Any]]) -> list[str]:
    """The scores of one sampler over all seeds, as rows of a Markdown table."""
    rows = []
    for name, first in runs[0]["scores"].items():
        found = [run["scores"][name] for run in runs]
        values = ", ".join(format(score["value"], ".3g") for score in found)
        p = f" (p = {', '.join(format(score['p_value'], '.2g') for score in found)})" if "p_value" in first else ""
        floor = f"{first['floor']:.3g} ± {first['floor_std']:.2g} ({first['floor_seeds']})"
        rows.append(f"| {name} | {values}{p} | {floor} | {first['n']} | {first['good']} |")
    return rows


def verdict(runs: list[dict[str, Any]]) -> str:
    """The two questions that a shipped checkpoint must answer: how many floors away, and are the classes as frequent as in the data?"""
    ratios = [run["scores"][FRECHET]["value"] / run["scores"][FRECHET]["floor"] for run in runs]
    ps = [run["scores"][CLASSES]["p_value"] for run in runs]
    near, even = "yes" if max(ratios) <= 3 else "NO", "yes" if min(ps) >= 0.01 else "NO"
    return (
        f"Fréchet distance at most 3 times its floor, for every seed: {near} ({listed(ratios)} times). "
        f"Classes as frequent as in held-out data (chi-square not significant at 1 %), for every seed: {even}."
    )


def scores(name: str) -> list[str]:
    """The measured part of the card: a table for each sampler over three seeds, then bits per dimension; n and floors everywhere."""
    trained, folder = load_model(ASSETS / name), Path("runs") / f"card-{name}-{checksum(name)}"
    lines = []
    for heading, (sampler, steps) in SAMPLERS[name].items():
        runs = [
            once(folder / f"{sampler}-{steps}-seed-{seed}.json", lambda seed=seed: sample_scores(name, trained, sampler, steps, seed))  # noqa: B023
            for seed in SEEDS
        ]
        lines += [
            f"## {heading}",
            "",
            f"| score | seeds {', '.join(map(str, SEEDS))} | floor ± its standard deviation (seeds) | n | good is |",
        ]
        lines += ["|---|---|---|---|---|", *rows_of(runs), "", verdict(runs)]
        lines += [f"Classes 0 to 9 drawn, all seeds: {[sum(column) for column in zip(*(run['drawn'] for run in runs), strict=True)]}.", ""]
    pairs = once(folder / "bits.json", lambda: measure_bits(trained))
    first = pairs[0]["held_out"]
    bits, floor = ([pair[part]["bits"] for pair in pairs] for part in ("held_out", "train"))
    error = max(pair["held_out"]["error"] for pair in pairs)
    return [
        *lines,
        "## Bits per dimension",
        "",
        f"Bound (Ho eq. 5), 256 grey values, best scalar variance, {first['terms']:,} terms a seed with times by importance: "
        f"**{listed(bits)}** (seeds {', '.join(map(str, SEEDS))}; n = {first['n']} held-out pictures; standard error {error:.2g}). "
        f"Floor, as many training pictures: {listed(floor)}.",
    ]


def write_card(name: str, with_scores: bool = True) -> None:
    """The model card of a shipped checkpoint, written anew from its weights into the package."""
    trained = load_model(ASSETS / name)
    config, last = trained.config, trained.history[-1]
    _, meta = load_tensors(ASSETS / name, "classifier")
    card = [
        f"# Model card: {name}",
        "",
        f"- Data: `{config['data']}`, training part of the split with seed 0 (see `ddpm_course/data.py`).",
        f"- Network: `UNetConfig.{name}()`, {sum(p.numel() for p in trained.net.parameters()):,} parameters, fp16, "
        f"predicts {trained.prediction}; {config['schedule']} schedule, T = {trained.schedule.T}.",
        f"- Command: `python benchmarks/train_shipped.py model {name}`: {int(last['step']):,} steps of batch {config['batch_size']}, "
        f"seed {config['seed']}, on {config['device']}, EMA {config['ema_decay']}.",
        f"- Loss at the end: training {last['loss']:.4f}, validation {last['val_loss']:.4f} (EMA weights).",
        f"- Ruler: `classifier` beside it, test accuracy {meta['test_accuracy']} (n = {meta['n']}), {meta['steps']:,} steps, "
        f"seed 0, `python benchmarks/train_shipped.py classifier {name}`.",
        "",
        "Meant for learning and tests. It draws digits in the style of its data, and nothing else.",
        "",
        f"The scores compare samples with all held-out pictures (validation and test) in the features of that classifier (64 numbers). "
        f"They are not comparable with Inception FID. The floor is the same score of training pictures in the place of samples. "
        f"Guesses of x_0 are held in [-1, 1]. `python benchmarks/train_shipped.py card {name}` measures all of it again. "
        f"Measured on weights `{checksum(name)}`.",
        "",
        *(scores(name) if with_scores else ["(Not scored yet.)"]),
    ]
    write_atomic(ASSETS / name / "README.md", ("\n".join(card).rstrip() + "\n").encode())
    print("\n".join(card))
