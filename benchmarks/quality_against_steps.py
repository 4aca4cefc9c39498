"""Fréchet distance of the shipped digits network against network calls, for every sampler and three seeds, at the largest possible n:

python benchmarks/quality_against_steps.py      # goes on where it was stopped; writes ddpm_course/assets/digits/quality.json
"""

from pathlib import Path

import torch
from model_card import FRECHET, SEEDS, checksum, held_out, once, sampler_runs
from torch import Tensor

from ddpm_course import clip_x_0, ddim_sample, ddpm_sample, dpm_solver_sample, heun_sample, load_model
from ddpm_course.checkpoint import ASSETS, load_classifier, write_atomic
from ddpm_course.cli import as_json
from ddpm_course.data import load
from ddpm_course.metrics import frechet_distance

SAMPLERS = ("DDPM, beta~", "DDPM, beta", "DDIM", "Heun", "2M")
CALLS = (5, 9, 17)  # odd: Heun makes 2 S - 1 calls for S steps
LONG = {"DDPM, beta~": (33,), "Heun": (33,)}
CARD = {"DDPM, beta~": ("ddpm", 250), "DDIM": ("ddim", 50), "2M": ("dpm", 20)}  # these are in the model card already


def draw(name: str, calls: int, n: int, seed: int) -> Tensor:
    """n digits by so many calls of the network, x_0_hat held in [-1, 1]; the same start for all samplers of one seed."""
    trained = load_model(ASSETS / "digits")
    model, schedule = clip_x_0(trained.eps_model(), trained.schedule), trained.schedule
    common = {"shape": (n, 1, 8, 8), "generator": torch.Generator().manual_seed(seed)}
    if name == "Heun":
        return heun_sample(model, schedule, num_steps=(calls + 1) // 2, **common)
    if name == "2M":
        return dpm_solver_sample(model, schedule, num_steps=calls, **common)
    if name == "DDIM":
        return ddim_sample(model, schedule, num_steps=calls, **common)
    return ddpm_sample(model, schedule, num_steps=calls, variance="beta" if name == "DDPM, beta" else "posterior", **common)


def main() -> None:
    """Measure what is missing, cheapest first, then write the table."""
    splits, features = load("digits"), load_classifier("digits").features
    real, folder = features(held_out(splits)), Path("runs") / f"quality-{checksum('digits')}"
    n = len(real)
    floors = [frechet_distance(features(part), real) for part in splits.train.images.split(n) if len(part) == n]
    table: dict[str, dict[str, list[float]]] = {name: {} for name in SAMPLERS}
    jobs = [(name, calls) for calls in CALLS for name in SAMPLERS] + [(name, calls) for name in LONG for calls in LONG[name]]
    for name, calls in jobs:
        measure = lambda seed: frechet_distance(features(draw(name, calls, n, seed)), real)  # noqa: B023, E731
        label = "".join(filter(str.isalnum, name.replace("~", "tilde")))
        table[name][str(calls)] = [once(folder / f"{label}-{calls}-{seed}.json", lambda seed=seed: measure(seed)) for seed in SEEDS]  # noqa: B023
    for name, (sampler, steps) in CARD.items():
        runs = sampler_runs("digits", load_model(ASSETS / "digits"), sampler, steps)
        table[name][str(steps)] = [run["scores"][FRECHET]["value"] for run in runs]
        table[name] = dict(sorted(table[name].items(), key=lambda entry: int(entry[0])))
    report = {"n": n, "seeds": SEEDS, "floors": floors, "weights": checksum("digits"), "frechet_distance": table}
    write_atomic(ASSETS / "digits" / "quality.json", as_json(report))
    print(report)


if __name__ == "__main__":
    main()
