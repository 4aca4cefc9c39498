"""Model cards of the shipped checkpoints, measured again from their weights: python benchmarks/train_shipped.py card mnist

Every measurement of one seed goes to runs/card-NAME-CHECKSUM/ at once, so that a run that was stopped goes on where it was.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from noisy_classifier import card_line
from torch import Tensor

from ddpm_course import load_model
from ddpm_course.checkpoint import ASSETS, Trained, load_classifier, load_tensors, rng, write_atomic
from ddpm_course.cli import Sample
from ddpm_course.data import Splits, load
from ddpm_course.elbo import vlb_term
from ddpm_course.likelihood import ImportanceTimes, sampled_bound
from ddpm_course.metrics import class_test
from ddpm_course.scores import evaluate
from ddpm_course.variance import eps_moments, optimal_variance

SEEDS = (0, 1, 2)
SAMPLERS: dict[str, dict[str, tuple[str, int]]] = {  # checkpoint -> heading -> the options of `python -m ddpm_course sample`
    "digits": {"DDIM, 50 steps": ("ddim", 50), "DPM-Solver++(2M), 20 steps": ("dpm", 20), "DDPM, 250 steps": ("ddpm", 250)},
    "mnist": {"DDIM, 50 steps": ("ddim", 50)},
}
TERMS = 10  # terms of the bound for each picture and seed
SOME_TIMES = (*range(1, 13), 15, 18, 22, 27, 33, 40, 50, 65, 80, 100, 130, 160, 200, 300, 400, 550, 700, 850, 1000)
RULER = {"digits-classes": "digits"}  # checkpoint -> whose classifier measures it, if not its own
CLASSES, FRECHET = "class histogram chi-square", "Fréchet distance"


def held_out(splits: Splits) -> Tensor:
    """Validation and test pictures: never trained on."""
    return torch.cat([splits.val.images, splits.test.images])


def checksum(name: str) -> str:
    """What the measurements depend on: the weights of the model and of the ruler."""
    parts = {"model": name, "classifier": RULER.get(name, name)}
    return "".join(load_tensors(ASSETS / folder, part)[1]["sha256"][:6] for part, folder in parts.items())


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


def pooled(trained: Trained, runs: list[dict[str, Any]]) -> str:
    """The classes drawn by all seeds together, against the labels of all training pictures: a sharper test than that of one seed."""
    drawn = torch.tensor([run["drawn"] for run in runs]).sum(0)
    test = class_test(torch.arange(len(drawn)).repeat_interleave(drawn), load(trained.config["data"]).train.labels)
    return f"Classes 0 to 9 drawn, all seeds: {drawn.tolist()}. Against the labels of the training pictures: {test}."


def folder_of(name: str) -> Path:
    """Where the measurements of these weights are kept."""
    return Path("runs") / f"card-{name}-{checksum(name)}"


def sampler_runs(name: str, trained: Trained, sampler: str, steps: int) -> list[dict[str, Any]]:
    """sample_scores for each seed, from the disk where they are known."""
    file = f"{sampler}-{steps}-seed"
    return [once(folder_of(name) / f"{file}-{seed}.json", lambda s=seed: sample_scores(name, trained, sampler, steps, s)) for seed in SEEDS]


def scores(name: str) -> list[str]:
    """The measured part of the card: a table for each sampler over three seeds, then bits per dimension; n and floors everywhere."""
    trained, lines = load_model(ASSETS / name), []
    for heading, (sampler, steps) in SAMPLERS[name].items():
        runs = sampler_runs(name, trained, sampler, steps)
        lines += [
            f"## {heading}",
            "",
            f"| score | seeds {', '.join(map(str, SEEDS))} | floor ± its standard deviation (seeds) | n | good is |",
        ]
        lines += ["|---|---|---|---|---|", *rows_of(runs), "", verdict(runs)]
        lines += [pooled(trained, runs), ""]
    pairs = once(folder_of(name) / "bits.json", lambda: measure_bits(trained))
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


def guidance_scores(name: str) -> list[str]:
    """The measured part of the card of a network with classes: one row for each guidance scale, from guidance_scales.json."""
    file = Path(__file__).parent / "results" / "guidance_scales.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"weights": ""}
    if report["weights"] != checksum(name):
        return ["(Not scored yet: python benchmarks/guidance_scales.py.)"]
    keys = {"asked_for": "class asked for", "frechet_distance": FRECHET, "precision": "precision", "recall": "recall", "spread": "spread"}
    rows = [
        f"| {scale:g} | " + " | ".join(", ".join(format(value, ".3g") for value in report[key][k]) for key in keys) + " |"
        for k, scale in enumerate(report["scales"])
    ]
    found = {key: torch.tensor(values) for key, values in report["floors"].items()}
    floors = [f"{found[key].mean():.3g} ± {found[key].std():.2g}" if key in found else "–" for key in keys]
    return [
        f"## {report['sampler']}, by guidance scale",
        "",
        f"n = {report['n']} samples a seed, each asked for the label of one held-out digit; seeds {listed(report['seeds'], 0)}. "
        "Scale 1 is the conditional model, 0 the unconditional one. Class asked for: in the eyes of the ruler. "
        "Spread: distance of the features from the mean of their class, that of held-out digits = 1. "
        "The floor's training digits have the same labels.",
        "",
        f"| scale | {' | '.join(keys.values())} |",
        "|---|---|---|---|---|---|",
        *rows,
        f"| floor (5 seeds) | {' | '.join(floors)} |",
    ]


def measured(name: str) -> list[str]:
    """The measured part of any card."""
    return scores(name) if name in SAMPLERS else guidance_scores(name)


def write_card(name: str, with_scores: bool = True) -> None:
    """The model card of a shipped checkpoint, written anew from its weights into the package."""
    trained, ruler = load_model(ASSETS / name), RULER.get(name, name)
    config, last, classes = trained.config, trained.history[-1], trained.net.config.num_classes
    _, meta = load_tensors(ASSETS / ruler, "classifier")
    network = f"`UNetConfig.{name}()`" if not classes else f"`UNetConfig.{config['data']}()` with num_classes = {classes}"
    again = f"train_shipped.py card {name}" if name in SAMPLERS else "guidance_scales.py"
    card = [
        f"# Model card: {name}",
        "",
        f"- Data: `{config['data']}`, training part of the split with seed 0 (see `ddpm_course/data.py`).",
        f"- Network: {network}, {sum(p.numel() for p in trained.net.parameters()):,} parameters, fp16, "
        f"predicts {trained.prediction}; {config['schedule']} schedule, T = {trained.schedule.T}.",
        f"- Command: `python benchmarks/train_shipped.py model {name}`: {int(last['step']):,} steps of batch {config['batch_size']}, "
        f"seed {config['seed']}, on {config['device']}, EMA {config['ema_decay']}"
        + (f", labels hidden with probability {config['label_dropout']}." if classes else "."),
        f"- Loss at the end: training {last['loss']:.4f}, validation {last['val_loss']:.4f} (EMA weights).",
        f"- Ruler: `classifier` {'beside it' if ruler == name else f'of `{ruler}`'}, test accuracy {meta['test_accuracy']} "
        f"(n = {meta['n']}), {meta['steps']:,} steps, seed 0, `python benchmarks/train_shipped.py classifier {ruler}`.",
        *card_line(name),
        "",
        "Meant for learning and tests. It draws digits in the style of its data, and nothing else.",
        "",
        f"The scores compare samples with all held-out pictures (validation and test) in the features of that classifier (64 numbers). "
        f"They are not comparable with Inception FID. The floor is the same score of training pictures in the place of samples. "
        f"Guesses of x_0 are held in [-1, 1]. `python benchmarks/{again}` measures all of it again. "
        f"Measured on weights `{checksum(name)}`.",
        "",
        *(measured(name) if with_scores else ["(Not scored yet.)"]),
    ]
    write_atomic(ASSETS / name / "README.md", ("\n".join(card).rstrip() + "\n").encode())
    print("\n".join(card))
