"""The classifier of noisy digits that guides: trained by `python benchmarks/train_shipped.py noisy digits` (a minute or two)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_course import load_model, q_sample
from ddpm_course.checkpoint import ASSETS, load_tensors, rng, save_tensors
from ddpm_course.data import load
from ddpm_course.models import NoisyClassifier
from ddpm_course.schedule import NoiseSchedule

TIMES = (1, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)


@torch.no_grad()
def judged(net: NoisyClassifier, schedule: NoiseSchedule, images: Tensor, labels: Tensor, t: int) -> tuple[float, float]:
    """Accuracy and mean of -log p(y | x_t) in nats of pictures noised to time t, four noises each."""
    x, y = images.repeat(4, 1, 1, 1), labels.repeat(4)
    x_t = q_sample(schedule, x, t, torch.randn(x.shape, generator=rng(0, 7, t)))
    logits = net(x_t, torch.full((len(x),), t))
    return float((logits.argmax(1) == y).float().mean()), float(F.cross_entropy(logits, y))


def train_noisy_classifier(name: str, steps: int = 1500, batch: int = 128) -> None:
    """Fit log p(y | x_t) on the training part, at times drawn evenly from 1..T of the shipped model's schedule; save it with its record."""
    trained = load_model(ASSETS / name)
    schedule, splits, generator = trained.schedule, load(trained.config["data"]), rng(0, 6)
    torch.manual_seed(0)
    net = NoisyClassifier()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(1, steps + 1):
        i = torch.randint(len(splits.train.images), (batch,), generator=generator)
        x_0, y, t = splits.train.images[i], splits.train.labels[i], torch.randint(1, schedule.T + 1, (batch,), generator=generator)
        x_t = q_sample(schedule, x_0, t, torch.randn(x_0.shape, generator=generator))
        loss = F.cross_entropy(net.train()(x_t, t), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 250 == 0:
            print(step, round(float(loss.detach()), 3), flush=True)
    images, labels = (torch.cat(parts) for parts in zip(splits.val, splits.test, strict=True))
    found = {t: judged(net.eval(), schedule, images, labels, t) for t in TIMES}
    meta = {
        "net": {"channels": 1, "num_classes": 10, "size": images.shape[-1], "width": net.width},
        "data": trained.config["data"],
        "steps": steps,
        "batch": batch,
        "seed": 0,
        "n": len(images),
        "accuracy": {str(t): round(accuracy, 3) for t, (accuracy, _) in found.items()},
        "nats": {str(t): round(nats, 3) for t, (_, nats) in found.items()},
    }
    save_tensors(ASSETS / name, "noisy_classifier", {key: x.half() for key, x in net.state_dict().items()}, meta)
    print(meta)


def card_line(name: str) -> list[str]:
    """The line of the model card about this classifier, if there is one for these digits."""
    if not (ASSETS / name / "noisy_classifier.json").exists():
        return []
    _, meta = load_tensors(ASSETS / name, "noisy_classifier")
    by_time = ", ".join(f"{t}: {accuracy:.2f}" for t, accuracy in meta["accuracy"].items())
    return [
        f"- Guide: `noisy_classifier`, for (x_t, t), {meta['steps']:,} steps of batch {meta['batch']}, seed {meta['seed']}, "
        f"`python benchmarks/train_shipped.py noisy {name}`; "
        f"accuracy by t on held-out pictures (n = {meta['n']}, four noises each): {by_time}."
    ]
