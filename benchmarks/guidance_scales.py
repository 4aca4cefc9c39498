"""What the guidance scale does to the class-conditional digits: python benchmarks/guidance_scales.py

Writes benchmarks/results/guidance_scales.json. Each (scale, seed) goes to runs/guidance-CHECKSUM/ at once: a run that was stopped goes on.
"""

import json
from pathlib import Path
from typing import Any

import torch
from model_card import checksum, held_out, once

from ddpm_course import clip_x_0, ddim_sample, load_model, shipped
from ddpm_course.checkpoint import load_classifier, rng, write_atomic
from ddpm_course.data import load
from ddpm_course.guidance import batched_guidance
from ddpm_course.metrics import frechet_distance, precision, recall

NAME, STEPS, SEEDS = "digits-classes", 15, (0, 1, 2)
SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
SCORES = {"frechet_distance": frechet_distance, "precision": precision, "recall": recall}  # of (real, samples)
OUT = Path(__file__).parent / "results" / "guidance_scales.json"


class Ruler:
    """Held-out digits with their labels, and the classifier that has seen neither them nor the sampler."""

    def __init__(self) -> None:
        self.trained, self.splits, self.eyes = load_model(shipped(NAME)), load("digits"), load_classifier("digits")
        self.images = held_out(self.splits)
        self.y = torch.cat([self.splits.val.labels, self.splits.test.labels])
        self.real = self.eyes.features(self.images)

    def sample(self, scale: float, seed: int) -> torch.Tensor:
        """One sample for each held-out digit, its label asked for; the same noise at every scale."""
        model = batched_guidance(
            self.trained.net, self.trained.schedule, {"y": self.y}, {"y": torch.tensor([10])}, scale, self.trained.prediction
        )
        model = clip_x_0(model, self.trained.schedule)
        return ddim_sample(model, self.trained.schedule, (len(self.y), 1, 8, 8), num_steps=STEPS, generator=rng(seed, 17))

    def floors(self, seed: int) -> dict[str, float]:
        """The scores of training digits with the same labels as the held-out ones: a fair floor, for so have the samples."""
        order = torch.randperm(len(self.splits.train.images), generator=rng(seed, 18))
        images, labels = (x[order] for x in self.splits.train)
        chosen = torch.cat([images[labels == k][: int((self.y == k).sum())] for k in range(10)])
        return {key: function(self.real, self.eyes.features(chosen)) for key, function in SCORES.items()}

    def spread(self, features: torch.Tensor, labels: torch.Tensor) -> float:
        """Root mean square distance of the features from the mean of their class."""
        parts = [features[labels == k] - features[labels == k].mean(0) for k in range(10)]
        return float(torch.cat(parts).square().sum(1).mean() ** 0.5)

    @torch.no_grad()
    def measure(self, scale: float, seed: int) -> dict[str, Any]:
        """Share of samples of the class asked for, distance, precision, recall, and the spread within a class."""
        samples = self.sample(scale, seed)
        seen = self.eyes.features(samples)
        numbers = {key: function(self.real, seen) for key, function in SCORES.items()}
        numbers["asked_for"] = float((self.eyes(samples).argmax(1) == self.y).float().mean())
        return numbers | {"spread": self.spread(seen, self.y) / self.spread(self.real, self.y)}


def main() -> None:
    """Measure what is missing, then write the report."""
    ruler, weights = Ruler(), checksum(NAME)
    folder = Path("runs") / f"guidance-{weights}"
    rows = {
        scale: [once(folder / f"scale-{scale}-seed-{seed}.json", lambda a=scale, b=seed: ruler.measure(a, b)) for seed in SEEDS]
        for scale in SCALES
    }
    report: dict[str, Any] = {"weights": weights, "sampler": f"DDIM, {STEPS} steps", "n": len(ruler.y), "seeds": SEEDS, "scales": SCALES}
    floors = [ruler.floors(seed) for seed in range(5)]
    report["floors"] = {key: [floor[key] for floor in floors] for key in SCORES}
    for key in ("asked_for", *SCORES, "spread"):
        report[key] = [[row[key] for row in rows[scale]] for scale in SCALES]
    write_atomic(OUT, (json.dumps(report, indent=1) + "\n").encode())
    print(f"wrote {OUT.name}")


if __name__ == "__main__":
    main()
