"""Make the two checkpoints of chapter 19, each by one command; on a CPU overnight, on a GPU in minutes:

python benchmarks/editing_models.py mnist-sr --steps 6000 --device cuda       # 7x7 -> 28x28: the small picture beside x_t
python benchmarks/editing_models.py mnist-styles --steps 6000 --device cuda   # nine styles of MNIST digits as labels

Each goes on in runs/NAME, and writes fp16 weights and the model card into the package (or --assets FOLDER). --ship: what is there by now.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from ddpm_course import TrainConfig, UNetConfig, load_model, train
from ddpm_course.checkpoint import ASSETS, Trained, save_model, write_atomic
from ddpm_course.data import Split, Splits, load
from ddpm_course.editing import small_picture_condition
from ddpm_course.feed import Condition
from ddpm_course.strokes import StyleCells

FACTOR = 4
NETS = {
    "mnist-sr": replace(UNetConfig.mnist(), condition_channels=1),
    "mnist-styles": replace(UNetConfig.mnist(), num_classes=StyleCells.count),
}
SHIFT = {"mnist-sr": 2, "mnist-styles": 1}  # the training pictures are moved by up to this many pixels, each way
ABOUT = {
    "mnist-sr": "Meant for learning and tests. Give it a 7x7 picture, enlarged to 28x28 by repetition, as condition=; it draws a digit in "
    "the style of its data that may have been that picture.",
    "mnist-styles": "Meant for learning and tests. Label 3 a + b: thickness third a, slant third b of a digit's own class "
    "(see `ddpm_course/strokes.py`); label 9: none.",
}


def moved(images: torch.Tensor, reach: int) -> torch.Tensor:
    """All pictures, moved by every shift of up to `reach` pixels, as bytes: what enters is black."""
    wide = torch.nn.functional.pad((images * 127.5 + 127.5).round().to(torch.uint8), [reach] * 4)
    size, shifts = images.shape[-1], range(2 * reach + 1)
    return torch.cat([wide[..., down : down + size, right : right + size] for down in shifts for right in shifts])


def data_for(name: str) -> Splits:
    """MNIST-5k with shifted training pictures; for the styles their cells as labels, by the thirds of the training part."""
    splits = load("mnist5k")
    if name == "mnist-styles":
        cells = StyleCells(*splits.train)
        splits = Splits(*(Split(part.images, cells(*part)) for part in splits))
    copies = (2 * SHIFT[name] + 1) ** 2
    return splits._replace(train=Split(moved(splits.train.images, SHIFT[name]), splits.train.labels.repeat(copies)))


def condition_for(name: str) -> Condition | None:
    """The small picture for super-resolution; the labels otherwise."""
    return small_picture_condition(FACTOR) if name == "mnist-sr" else None


def config_for(name: str, steps: int, device: str, runs: str) -> TrainConfig:
    """One recipe for both: large batches, bf16, an average over the last thousand steps."""
    return TrainConfig(
        data="mnist5k",
        net=NETS[name],
        steps=steps,
        batch_size=512 if name == "mnist-sr" else 256,
        label_dropout=0.15,
        lr=2e-3,
        warmup=max(1, min(300, steps // 10)),
        final_lr=0.02,
        ema_decay=0.999,
        precision="bf16",
        log_every=500,
        save_every=500,
        keep_last=1,
        out=f"{runs}/{name}",
        device=device,
    )


def steps_within(name: str, seconds: float, device: str) -> int:
    """How many steps fit into this time, by the speed of 50 of them; a multiple of 500."""
    trial = replace(config_for(name, 60, device, ""), out=None, log_every=1000, save_every=1000)
    data, condition, marks = data_for(name), condition_for(name), []
    for steps in (3, 10, 60):  # the first wakes the GPU
        start = time.monotonic()
        train(replace(trial, steps=steps), data, condition=condition)
        marks.append(time.monotonic() - start)
    speed = 50 / max(marks[2] - marks[1], 1e-3)
    print(f"{name}: {speed:.1f} steps/s", flush=True)
    return max(500, min(20_000, int(seconds * speed) // 500 * 500))


def card(name: str, trained: Trained) -> str:
    """The model card: data, command, seed, steps, device; the scores are in benchmarks/results/editing.json and chapter 19."""
    config, last = trained.config, trained.history[-1]
    steps, reach, copies = int(last["step"]), SHIFT[name], (2 * SHIFT[name] + 1) ** 2
    extra = "condition_channels = 1" if name == "mnist-sr" else f"num_classes = {StyleCells.count}"
    hidden = "" if name == "mnist-sr" else f", labels hidden with probability {config['label_dropout']}"
    lines = [
        f"# Model card: {name}",
        "",
        "- Data: `mnist5k`, training part of the split with seed 0 (4,000 pictures), in all positions up to "
        f"{reach} pixel{'s' * (reach > 1)} away, {copies} for each.",
        f"- Network: `UNetConfig.mnist()` with {extra}, {sum(p.numel() for p in trained.net.parameters()):,} parameters, fp16, "
        f"predicts {trained.prediction}; {config['schedule']} schedule, T = {trained.schedule.T}.",
        f"- Command: `python benchmarks/editing_models.py {name} --steps {steps} --device {config['device']}`: {steps:,} steps of batch "
        f"{config['batch_size']} in {config['precision']}, seed {config['seed']}, EMA {config['ema_decay']}{hidden}.",
        f"- Loss at the end: training {last['loss']:.4f}, validation {last['val_loss']:.4f} (EMA weights, pictures not moved).",
        "- Scores: `python benchmarks/editing_scores.py` measures them; see below and chapter 19.",
        "",
        ABOUT[name],
    ]
    return "\n".join(lines) + "\n"


def fit(name: str, steps: int, device: str, runs: str) -> None:
    """Train, or go on where a run stopped."""
    torch.backends.cudnn.benchmark = True
    train(config_for(name, steps, device, runs), data_for(name), condition=condition_for(name))


def ship(name: str, runs: str, assets: Path) -> None:
    """Write the averaged weights as fp16, and the card."""
    trained = load_model(Path(runs) / name)
    save_model(assets / name, trained, half=True)
    write_atomic(assets / name / "README.md", card(name, trained).encode())
    print(f"{name}: {trained.history[-1]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NETS)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seconds", type=float, default=0.0, help="choose the steps that fit into this time instead")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--ship", action="store_true", help="do not train")
    args = parser.parse_args()
    if not args.ship:
        steps = steps_within(args.name, args.seconds, args.device) if args.seconds else args.steps
        fit(args.name, steps, args.device, args.runs)
    ship(args.name, args.runs, args.assets)
