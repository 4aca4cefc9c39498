"""Classifier guidance on the 8x8 digits, measured: scores against the scale, and one model per class on the same budget.

python benchmarks/guided.py scales    # the shipped model and the shipped guide
python benchmarks/guided.py naive     # a small network, 1,200 steps for all classes, or 120 steps for each of ten

Results go to benchmarks/results/guided.json after every run; what is there already is not run again.
"""

import argparse
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_course import UNet, UNetConfig, as_eps_model, clip_x_0, cosine_schedule, ddim_sample, diffusion_loss, load_model, shipped
from ddpm_course.checkpoint import load_classifier, load_noisy_classifier, load_tensors, rng, write_atomic
from ddpm_course.data import Split, digits
from ddpm_course.ema import ema_of
from ddpm_course.guidance import classifier_guided
from ddpm_course.metrics import nearest
from ddpm_course.prediction import EpsModel
from ddpm_course.schedule import NoiseSchedule
from ddpm_course.scores import score

FILE = Path(__file__).parent / "results" / "guided.json"
SCALES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
STEPS, BATCH, TOTAL = 20, 32, 1200  # DDIM steps; pictures a training step; training steps for all classes together
SMALL = UNetConfig(8, 1, 16, (1, 2), 1, (4,), groups=8)


def held_out() -> Split:
    """Validation and test digits together: 359."""
    splits = digits()
    return Split(*(torch.cat(parts) for parts in zip(splits.val, splits.test, strict=True)))


def guided_samples(model: EpsModel, schedule: NoiseSchedule, y: Tensor, scale: float, seed: int = 0) -> Tensor:
    """One digit of each class in y, by DDIM, guesses held in [-1, 1]."""
    guide = load_noisy_classifier("digits")
    guided = classifier_guided(model, lambda x, t: guide.log_prob(y, x, t), schedule, scale)
    return ddim_sample(clip_x_0(guided, schedule), schedule, (len(y), 1, 8, 8), num_steps=STEPS, generator=rng(seed, 16))


@torch.no_grad()
def judged(x: Tensor, y: Tensor) -> dict[str, Any]:
    """Share in the requested class by the ruler, which never guided; distance, precision, recall with floors; nearest training digit."""
    ruler, splits, real = load_classifier("digits"), digits(), held_out()
    found: dict[str, Any] = {"hit": float((ruler(x).argmax(1) == y).float().mean()), "n": len(x)}
    sets = [ruler.features(images) for images in (x, splits.train.images, real.images)]
    for name in ("Fréchet distance", "precision", "recall"):
        found[name] = score(name, *sets).as_dict()
    own, others = (float(nearest(images, splits.train.images)[0].median()) for images in (x, real.images))
    return found | {"nearest": own / others}


def labels() -> Tensor:
    """As many labels as there are held-out digits, all classes alike."""
    return torch.arange(len(held_out().images)) % 10


def trained_on(part: Split, steps: int, seed: int) -> EpsModel:
    """The small network after so many steps on these digits: the shipped recipe, shortened. Averaged weights, EMA 0.99."""
    schedule, generator = cosine_schedule(), rng(seed, 1)
    torch.manual_seed(seed)
    net = UNet(SMALL)
    optimizer, average = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.0), ema_of(net, 0.99)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        x_0 = part.images[torch.randint(len(part.images), (BATCH,), generator=generator)]
        t, eps = torch.randint(1, schedule.T + 1, (BATCH,), generator=generator), torch.randn(x_0.shape, generator=generator)
        optimizer.zero_grad()
        diffusion_loss(net, schedule, x_0, t, eps, "v").mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        average.update_parameters(net)
    return as_eps_model(average.module.eval().requires_grad_(False), schedule, "v")


@cache
def shared_model() -> EpsModel:
    """One small network for all classes."""
    return trained_on(digits().train, TOTAL, seed=0)


def one_for_all(scale: float) -> dict[str, Any]:
    """One small network for all classes, guided at this scale."""
    return judged(guided_samples(shared_model(), cosine_schedule(), labels(), scale), labels())


def one_per_class() -> dict[str, Any]:
    """Ten small networks, each trained on its own class with a tenth of the steps; each draws its own digits."""
    y, train, schedule = labels(), digits().train, cosine_schedule()
    x = torch.zeros(len(y), 1, 8, 8)
    for k in range(10):
        own = Split(train.images[train.labels == k], train.labels[train.labels == k])
        model = trained_on(own, TOTAL // 10, seed=k)
        shape = (int((y == k).sum()), 1, 8, 8)
        x[y == k] = ddim_sample(clip_x_0(model, schedule), schedule, shape, num_steps=STEPS, generator=rng(k, 16))
    return judged(x, y)


def once(part: str, key: str, measure: Callable[[], Any]) -> None:
    """Measure, unless the file has it."""
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if key in known.setdefault(part, {}):
        return
    known[part][key] = measure()
    write_atomic(FILE, json.dumps(known, indent=1, ensure_ascii=False).encode())
    print(part, key, known[part][key], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scales", "naive"))
    if parser.parse_args().what == "scales":
        trained = load_model(shipped("digits"))
        names = ("model", "noisy_classifier", "classifier")
        once("weights", "sha256", lambda: {name: load_tensors(shipped("digits"), name)[1]["sha256"][:12] for name in names})
        for scale in SCALES:
            measure = lambda s=scale: judged(guided_samples(trained.eps_model(), trained.schedule, labels(), s), labels())  # noqa: E731
            once("scales", str(scale), measure)
    else:
        once("naive", "settings", lambda: {"total_steps": TOTAL, "batch": BATCH, "base_channels": SMALL.base_channels})
        once("naive", "one model per class", one_per_class)
        for scale in (0.0, 1.0, 3.0):
            once("naive", f"one model, guided at scale {scale:g}", lambda s=scale: one_for_all(s))
