"""Make the checkpoints that the course ships, each by one command:

python benchmarks/train_shipped.py classifier digits    # the ruler; then the same for mnist
python benchmarks/train_shipped.py model mnist          # resumes where it stopped; then the same for digits
python benchmarks/train_shipped.py ship mnist           # fp16 weights and the model card with scores into the package
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from ddpm_course import TrainConfig, UNetConfig, clip_x_0, ddim_sample, ddpm_sample, load_model, train
from ddpm_course.checkpoint import ASSETS, load_classifier, load_tensors, rng, save_model, save_tensors
from ddpm_course.data import Splits, load
from ddpm_course.metrics import frechet_distance
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
    "mnist": TrainConfig(
        data="mnist5k",
        net=UNetConfig.mnist(),
        steps=7000,
        batch_size=32,
        lr=1e-3,
        warmup=200,
        ema_decay=0.999,
        log_every=100,
        save_every=250,
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


def held_out(splits: Splits) -> torch.Tensor:
    """Validation and test pictures: never trained on."""
    return torch.cat([splits.val.images, splits.test.images])


def scores(name: str) -> list[str]:
    """Fréchet distance of samples to held-out pictures at n = number of held-out, for three seeds, with the floor."""
    splits, net = load(RECIPES[name].data), load_classifier(name)
    real = held_out(splits)
    train_part = splits.train.images[: len(real)]
    floor = frechet_distance(net.features(train_part), net.features(real))
    trained = load_model(ASSETS / name)
    model = clip_x_0(trained.eps_model(), trained.schedule)
    lines = [f"Floor (train against held-out, n = {len(real)} each): {floor:.3f}"]
    samplers = {
        "DDIM, 50 steps": (lambda g: ddim_sample(model, trained.schedule, real.shape, num_steps=50, generator=g), 3),
        "DDPM, 250 steps": (lambda g: ddpm_sample(model, trained.schedule, real.shape, num_steps=250, generator=g), 1),
    }
    for label, (sample, seeds) in samplers.items():
        sets = [sample(torch.Generator().manual_seed(seed)) for seed in range(seeds)]
        distances = [frechet_distance(net.features(x), net.features(real)) for x in sets]
        counts = torch.stack([net(x).argmax(1).bincount(minlength=10) for x in sets]).sum(0)
        lines.append(
            f"{label}, n = {len(real)}, seeds 0..{seeds - 1}: Fréchet distance {', '.join(f'{d:.2f}' for d in distances)}; "
            f"drawn classes 0-9: {counts.tolist()}"
        )
    return lines


def ship(name: str, with_scores: bool = True) -> None:
    """Write the averaged weights as fp16, and the model card, into the package."""
    config, trained = RECIPES[name], load_model(f"runs/{name}")
    save_model(ASSETS / name, trained, half=True)
    _, meta = load_tensors(ASSETS / name, "classifier")
    last = trained.history[-1]
    card = [
        "# Model card: " + name,
        "",
        f"- Data: `{config.data}`, training part of the split with seed 0 (see `ddpm_course/data.py`).",
        f"- Network: `UNetConfig.{name}()`, {sum(p.numel() for p in trained.net.parameters()):,} parameters, fp16, "
        f"predicts {config.prediction}; {config.schedule} schedule, T = {config.num_timesteps}.",
        f"- Command: `python benchmarks/train_shipped.py model {name}`: {int(last['step']):,} steps of batch {config.batch_size}, "
        f"seed {config.seed}, 2 CPU cores, float32, EMA {config.ema_decay}.",
        f"- Loss at the end: training {last['loss']:.4f}, validation {last['val_loss']:.4f} (EMA weights).",
        f"- Ruler: `classifier` beside it, test accuracy {meta['test_accuracy']} (n = {meta['n']}), {meta['steps']:,} steps, "
        f"seed 0, `python benchmarks/train_shipped.py classifier {name}`.",
        "",
        "Scores, in that classifier's features (64 numbers); not comparable with Inception FID:",
        "",
    ]
    card += [f"- {line}" for line in (scores(name) if with_scores else [])]
    card += ["", "Meant for learning and tests. It draws digits in the style of its data, and nothing else."]
    (Path(ASSETS) / name / "README.md").write_text("\n".join(card) + "\n")
    print("\n".join(card))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("classifier", "model", "ship", "preview"))
    parser.add_argument("name", choices=RECIPES)
    args = parser.parse_args()
    if args.what == "classifier":
        train_classifier(args.name)
    elif args.what == "model":
        train(RECIPES[args.name])
    else:
        ship(args.name, with_scores=args.what == "ship")
