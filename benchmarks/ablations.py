"""What each part of the U-Net and each setting of the optimiser is worth, measured on the 8x8 digits.

python benchmarks/ablations.py parts     # skip connections, upsampling, time, attention: same budget, three seeds
python benchmarks/ablations.py sweep     # learning rate against batch size, the same number of pictures, two seeds

Results go to benchmarks/results/ablations-*.json after every run; what is there already is not run again.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ddpm_course import TrainConfig, UNetConfig, clip_x_0, ddim_sample, train
from ddpm_course.checkpoint import load_classifier, rng, write_atomic
from ddpm_course.data import digits
from ddpm_course.metrics import frechet_distance
from ddpm_course.train import validation_loss

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
BASE = UNetConfig.digits()
BUDGET = TrainConfig(data="digits", net=BASE, steps=400, batch_size=32, lr=2e-3, warmup=40, ema_decay=0.99, log_every=400)
PARTS: dict[str, UNetConfig] = {
    "the package's": BASE,
    "skip: add": replace(BASE, skip="add"),
    "skip: none": replace(BASE, skip="none"),
    "up: bilinear": replace(BASE, upsample="bilinear"),
    "up: transposed": replace(BASE, upsample="transposed"),
    "time: scale, shift": replace(BASE, time_as="scale_shift"),
    "time: none": replace(BASE, time_as="none"),
    "attention: none": replace(BASE, attention_sizes=(), middle_attention=False),
}
PICTURES = 12_800  # seen by every run of the sweep
RATES, BATCHES = (3e-4, 1e-3, 3e-3, 1e-2), (16, 64, 256)


def training_loss(net: torch.nn.Module, config: TrainConfig, schedule: object) -> float:
    """The same average as validation_loss, over as many training pictures: the difference is overfitting."""
    x_0 = digits().train.images[: len(digits().val.images)]
    return validation_loss(net, schedule, x_0, config.prediction)


def measure(config: TrainConfig, samples: bool) -> dict[str, float]:
    """Train once; loss on training and validation pictures (averaged weights), and the Fréchet distance of samples to held-out digits."""
    trained, splits = train(config), digits()
    result = {
        "parameters": sum(p.numel() for p in trained.net.parameters()),
        "train": training_loss(trained.net, config, trained.schedule),
        "val": sum(validation_loss(trained.net, trained.schedule, splits.val.images, config.prediction, seed) for seed in range(4)) / 4,
    }
    if samples:
        real, ruler = torch.cat([splits.val.images, splits.test.images]), load_classifier("digits")
        model = clip_x_0(trained.eps_model(), trained.schedule)
        drawn = ddim_sample(model, trained.schedule, tuple(real.shape), num_steps=20, generator=rng(config.seed, 9))
        result |= {"frechet": frechet_distance(ruler.features(drawn), ruler.features(real)), "n": len(real)}
    return {key: float(value) for key, value in result.items()}


def run(path: Path, plan: dict[str, TrainConfig], samples: bool, seeds: tuple[int, ...] = SEEDS) -> None:
    """Measure every configuration for every seed, writing after each."""
    done = json.loads(path.read_text()) if path.exists() else {"budget": asdict(BUDGET), "torch": torch.__version__, "runs": {}}
    for seed in seeds:
        for name, config in plan.items():
            if f"{name} | {seed}" not in done["runs"]:
                done["runs"][f"{name} | {seed}"] = measure(replace(config, seed=seed), samples)
                write_atomic(path, (json.dumps(done, indent=1) + "\n").encode())
                print(name, seed, done["runs"][f"{name} | {seed}"], flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "sweep"))
    what = parser.parse_args().what
    if what == "parts":
        run(RESULTS / "ablations-parts.json", {name: replace(BUDGET, net=net) for name, net in PARTS.items()}, samples=True)
        return 0
    plan = {
        f"lr {lr:g}, batch {B}": replace(
            BUDGET, lr=lr, batch_size=B, steps=PICTURES // B, warmup=PICTURES // B // 10, log_every=PICTURES // B
        )
        for lr in RATES
        for B in BATCHES
    }
    run(RESULTS / "ablations-sweep.json", plan, samples=False, seeds=SEEDS[:2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
