"""Time to quality on MNIST-5k: the Fréchet distance that a recipe reaches in so many CPU minutes on one thread.

TQDM_DISABLE=1 python benchmarks/quality.py lucidrains --minutes 5 10 20     # also: lucidrains-readme, diffusers
TQDM_DISABLE=1 python benchmarks/quality.py ours --minutes 1.67 3.33 6.67

Results go to benchmarks/results/quality-NAME.json. All recipes see the same 4,000 training pictures and are scored alike: n samples by
DDIM (x_0_hat clipped) from the averaged weights, cut to 28x28, against n held-out pictures in the features of the shipped classifier. The
floor is the same distance for n training pictures. Only training counts, as CPU seconds of the process; the peers' picture loaders do not.

The peers' recipes are those that they publish, with the widths that suit 32x32 grey pictures best in this budget:
- lucidrains: its Trainer's defaults (batch 16, Adam 1e-4, EMA 0.995, v, sigmoid schedule) on Unet(dim=32, dim_mults=(1, 2, 4)); no flips.
- lucidrains-readme: the readme's Unet(dim=64, dim_mults=(1, 2, 4, 8)), batch 32 accumulated twice, Adam 8e-5.
- diffusers: the unconditional example (batch 16, AdamW 1e-4 with betas 0.95 and 0.999, 500 steps of warm-up, cosine, clipping, EMA of
  power 3/4, eps, linear schedule) on the network (32, 64, 64) of its course's MNIST lesson. The cosine ends with the budget.
- ours: UNetConfig.mnist() in bf16, v, cosine schedule. Each point is a run of its own, whose learning rate ends with its budget.
- ours-one-block: the same with one block a level instead of two.
"""

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ddpm_course import NoiseSchedule, TrainConfig, UNetConfig, as_eps_model, clip_x_0, ddim_sample, linear_schedule, train
from ddpm_course.checkpoint import load_classifier, write_atomic
from ddpm_course.data import mnist5k
from ddpm_course.metrics import frechet_distance

Snapshot = tuple[float, int, Callable[..., Tensor], NoiseSchedule, str]  # CPU seconds, steps, net(x_t, t in 1..T), schedule, prediction
RESULTS = Path(__file__).parent / "results"


def padded(x: Tensor) -> Tensor:
    """28x28 in the middle of 32x32, for networks that halve three times."""
    return F.pad(x, (2, 2, 2, 2), value=-1.0)


def at_marks(step: Callable[[], None], minutes: list[float], snapshot: Callable[[], nn.Module]) -> Iterator[tuple[float, int, nn.Module]]:
    """Train, and hand out (CPU seconds, steps, averaged network) whenever a mark is passed. Copying does not count."""
    spent, steps, pending = 0.0, 0, sorted(minutes)
    while pending:
        before = time.process_time()
        step()
        spent, steps = spent + time.process_time() - before, steps + 1
        if spent >= 60 * pending[0]:
            pending.pop(0)
            yield spent, steps, copy.deepcopy(snapshot()).eval()


def lucidrains(minutes: list[float], readme: bool = False) -> Iterator[Snapshot]:
    """Its own Trainer, on a folder of PNG files."""
    from stand_in import import_lucidrains

    package = import_lucidrains()
    net = package.Unet(dim=64, channels=1) if readme else package.Unet(dim=32, dim_mults=(1, 2, 4), channels=1)
    diffusion = package.GaussianDiffusion(net, image_size=32)
    every, rate = 1 if readme else 5, {"train_batch_size": 32, "gradient_accumulate_every": 2, "train_lr": 8e-5} if readme else {}
    with tempfile.TemporaryDirectory() as folder:
        for i, picture in enumerate(padded(mnist5k().train.images)):
            Image.fromarray(((picture[0] + 1) * 127.5).round().byte().numpy()).save(f"{folder}/{i:05d}.png")
        quiet = {"calculate_fid": False, "save_and_sample_every": 10**9, "results_folder": f"{folder}/out"}
        trainer = package.Trainer(diffusion, folder, augment_horizontal_flip=False, **quiet, **rate)

        def step() -> None:
            """A few optimiser steps of Trainer.train."""
            trainer.train_num_steps = trainer.step + every
            trainer.train()

        schedule = NoiseSchedule(diffusion.betas.double())
        for spent, _, average in at_marks(step, minutes, lambda: trainer.ema.ema_model):
            yield spent, trainer.step, lambda x, t, net=average.model: net(x, t - 1), schedule, "v"


def diffusers_example(minutes: list[float]) -> Iterator[Snapshot]:
    """The steps of the unconditional training example, with pictures already in memory."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    blocks = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    shape = {"sample_size": 32, "in_channels": 1, "out_channels": 1, "block_out_channels": (32, 64, 64)}
    net = UNet2DModel(**shape, down_block_types=blocks[0], up_block_types=blocks[1])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75, model_cls=UNet2DModel)
    scheduler, pictures, count, busy = DDPMScheduler(1000), padded(mnist5k().train.images), 0, 0.0

    def rate() -> float:
        """500 steps of warm-up, then half a cosine over the budget."""
        return min(1.0, count / 500) * 0.5 * (1 + math.cos(math.pi * min(1.0, busy / (60 * max(minutes)))))

    def step() -> None:
        """One batch."""
        nonlocal count, busy
        before = time.process_time()
        optimizer.param_groups[0]["lr"], count = 1e-4 * rate(), count + 1
        x_0 = pictures[torch.randint(len(pictures), (16,))]
        noise, t = torch.randn_like(x_0), torch.randint(0, 1000, (16,))
        loss = F.mse_loss(net(scheduler.add_noise(x_0, noise, t), t).sample, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(net.parameters())
        busy += time.process_time() - before

    def averaged() -> nn.Module:
        """A copy of the network with the averaged weights."""
        copied = copy.deepcopy(net)
        average.copy_to(copied.parameters())
        return copied

    for spent, steps, other in at_marks(step, minutes, averaged):
        yield spent, steps, lambda x, t, other=other: other(x, t - 1).sample, linear_schedule(), "eps"


def ours(minutes: list[float], blocks: int = 2) -> Iterator[Snapshot]:
    """Small batches, a high learning rate, v. One run for each budget; a short run first says how many steps fit."""
    net = replace(UNetConfig.mnist(), num_res_blocks=blocks)
    config = TrainConfig(
        data="mnist5k", net=net, precision="bf16", batch_size=16, lr=2e-3, warmup=100, log_every=1000, seed=torch.initial_seed()
    )
    train(replace(config, steps=5))
    before = time.process_time()
    train(replace(config, steps=105))
    a_step = (time.process_time() - before) / 105
    for mark in sorted(minutes):
        steps, before = int(0.95 * 60 * mark / a_step), time.process_time()
        trained = train(replace(config, steps=steps))
        yield time.process_time() - before, steps, trained.net.eval(), trained.schedule, trained.prediction


RECIPES: dict[str, Callable[[list[float]], Iterator[Snapshot]]] = {
    "ours": ours,
    "ours-one-block": lambda minutes: ours(minutes, blocks=1),
    "lucidrains": lucidrains,
    "lucidrains-readme": lambda minutes: lucidrains(minutes, readme=True),
    "diffusers": diffusers_example,
}


@torch.no_grad()
def features(x: Tensor) -> Tensor:
    """What the shipped classifier sees in pictures."""
    return torch.cat([load_classifier("mnist").eval().features(part) for part in x.split(250)])


@torch.no_grad()
def distance(snapshot: Snapshot, n: int, num_steps: int, size: int) -> float:
    """Fréchet distance of n samples to n held-out pictures."""
    _, _, net, schedule, prediction = snapshot
    model = clip_x_0(as_eps_model(net, schedule, prediction), schedule)
    x_T = torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(0))
    edge = (size - 28) // 2
    samples = torch.cat([ddim_sample(model, schedule, x_T=part, num_steps=num_steps) for part in x_T.split(100)])
    return frechet_distance(features(samples[..., edge : edge + 28, edge : edge + 28]), features(held_out(n)))


def held_out(n: int) -> Tensor:
    """n pictures that nobody trained on."""
    splits = mnist5k()
    return torch.cat([splits.val.images, splits.test.images])[:n]


def main() -> None:
    """Train, score every mark, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20], help="CPU minutes at which to score")
    parser.add_argument("--n", type=int, default=500, help="samples")
    parser.add_argument("--steps", type=int, default=20, help="DDIM steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    floor = frechet_distance(features(mnist5k().train.images[: args.n]), features(held_out(args.n)))
    result = {"recipe": args.recipe, "n": args.n, "ddim_steps": args.steps, "seed": args.seed, "threads": 1, "floor": floor, "points": []}
    for snapshot in RECIPES[args.recipe](args.minutes):  # scoring does not count: only steps are timed
        value = distance(snapshot, args.n, args.steps, 28 if args.recipe.startswith("ours") else 32)
        result["points"].append({"cpu_seconds": round(snapshot[0], 1), "steps": snapshot[1], "frechet": round(value, 2)})
        print(args.recipe, result["points"][-1], f"floor {floor:.2f}", flush=True)
        write_atomic(args.out / f"quality-{args.recipe}.json", (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
