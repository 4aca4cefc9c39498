"""Make the checkpoints that the course ships, each by one command:

python benchmarks/train_shipped.py classifier digits    # the ruler; then the same for mnist
python benchmarks/train_shipped.py noisy digits         # the guide of chapter 16: a classifier of noisy pictures
python benchmarks/train_shipped.py model mnist          # resumes where it stopped; then the same for digits
python benchmarks/train_shipped.py ship mnist           # fp16 weights and the model card with scores into the package
python benchmarks/train_shipped.py card mnist           # the card alone, measured from the shipped weights; goes on if it was stopped
"""

import argparse
from dataclasses import replace

import torch
import torch.nn.functional as F
from model_card import write_card
from noisy_classifier import train_noisy_classifier

from ddpm_course import TrainConfig, UNetConfig, load_model, train
from ddpm_course.checkpoint import ASSETS, rng, save_model, save_tensors
from ddpm_course.data import load
from ddpm_course.models import Classifier

RECIPES = {
    "digits": TrainConfig(
        data="digits",
        net=UNetConfig.digits(),
        steps=6000,
        batch_size=64,
        lr=1e-3,
        warmup=200,
        ema_decay=0.999,
        log_every=200,
        save_every=500,
        out="runs/digits",
    ),
    "digits-classes": TrainConfig(
        data="digits",
        net=replace(UNetConfig.digits(), num_classes=10),
        label_dropout=0.2,
        steps=6000,
        batch_size=64,
        lr=1e-3,
        warmup=200,
        ema_decay=0.999,
        log_every=200,
        save_every=500,
        out="runs/digits-classes",
    ),
    "mnist": TrainConfig(
        data="mnist5k",
        net=UNetConfig.mnist(),
        steps=28_000,
        batch_size=32,
        lr=2e-3,
        warmup=500,
        final_lr=0.02,
        ema_decay=0.9995,
        precision="bf16",
        log_every=500,
        save_every=1000,
        out="runs/mnist",
    ),
}


def shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each batch moved by up to 1/14 of its size: the classifier should not count pixels."""
    reach = max(1, x.shape[-1] // 14)
    down, right = (int(v) for v in torch.randint(-reach, reach + 1, (2,), generator=generator))
    return x.roll((down, right), dims=(2, 3))


def accuracy(net: Classifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of pictures put into their class."""
    with torch.no_grad():
        return float((net.eval()(images).argmax(1) == labels).float().mean())


def train_classifier(name: str, steps: int = 2000) -> None:
    """Fit the classifier on the training part and save it with its accuracy on the test part."""
    splits, generator = load(RECIPES[name].data), rng(0, 3)
    torch.manual_seed(0)
    net = Classifier()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        i = torch.randint(len(splits.train.images), (64,), generator=generator)
        loss = F.cross_entropy(net.train()(shifted(splits.train.images[i], generator)), splits.train.labels[i], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    score = accuracy(net, *splits.test)
    meta = {"data": RECIPES[name].data, "steps": steps, "seed": 0, "test_accuracy": round(score, 4), "n": len(splits.test.images)}
    save_tensors(ASSETS / name, "classifier", {key: x.half() for key, x in net.state_dict().items()}, meta)
    print(meta)


def ship(name: str, with_scores: bool = True) -> None:
    """Write the averaged weights as fp16, and the model card, into the package."""
    save_model(ASSETS / name, load_model(f"runs/{name}"), half=True)
    write_card(name, with_scores)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("classifier", "noisy", "model", "ship", "preview", "card"))
    parser.add_argument("name", choices=RECIPES)
    args = parser.parse_args()
    if args.what == "classifier":
        train_classifier(args.name)
    elif args.what == "noisy":
        train_noisy_classifier(args.name)
    elif args.what == "model":
        train(RECIPES[args.name])
    elif args.what == "card":
        write_card(args.name)
    else:
        ship(args.name, with_scores=args.what == "ship")
