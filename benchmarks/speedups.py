"""What each speed-up of the trainer buys on a CPU: one training step of the MNIST network, switches turned on one after the other.

python benchmarks/speedups.py    # one run, variants interleaved, CPU seconds; writes benchmarks/results/speedups.json

Each variant keeps the switches of those above it. The last one changes the network (2x2 patches): less work, not the same function.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_course import UNet, UNetConfig, cosine_schedule
from ddpm_course.checkpoint import write_atomic
from ddpm_course.data import mnist5k
from ddpm_course.ema import ema_of
from ddpm_course.losses import diffusion_loss
from ddpm_course.models import blocks

BATCH, ROUNDS = 32, 9
SWITCHES = ("plain", "attention as a formula", "fused AdamW", "EMA all at once", "bf16 autocast", "2x2 patches")
FORMULA = blocks.attend


def fused_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's own attention kernel, as most code calls it."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def stepper(on: int) -> Callable[[], None]:
    """A training step with the first `on` switches turned on."""
    torch.manual_seed(0)
    flat = replace(UNetConfig.mnist(), patch_size=1, attention_sizes=(14,))  # the same widths at full resolution
    net, schedule = UNet(flat if on < 5 else UNetConfig.mnist()), cosine_schedule()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, **({"fused": True} if on >= 2 else {"foreach": False}))
    average, averaged = ema_of(net), [p.detach().clone() for p in net.parameters()]
    pictures, generator = mnist5k().train.images, torch.Generator().manual_seed(0)

    def autocast(x_t: Tensor, t: Tensor) -> Tensor:
        """The network, in 16 bit if that switch is on."""
        with torch.autocast("cpu", torch.bfloat16) if on >= 4 else nullcontext():
            return net(x_t, t).float()

    def step() -> None:
        """Algorithm 1, lines 2-5, and the average."""
        blocks.attend = FORMULA if on >= 1 else fused_kernel
        x_0 = pictures[torch.randint(len(pictures), (BATCH,), generator=generator)]
        t, eps = torch.randint(1, 1001, (BATCH,), generator=generator), torch.randn(x_0.shape, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        diffusion_loss(autocast, schedule, x_0, t, eps, "v").mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if on >= 3:
            average.update_parameters(net)
        else:
            for mean, weight in zip(averaged, net.parameters(), strict=True):
                mean.mul_(0.999).add_(weight.detach(), alpha=0.001)

    return step


def main() -> int:
    steps, seconds = [stepper(on) for on in range(len(SWITCHES))], [[] for _ in SWITCHES]
    for round_ in range(ROUNDS + 1):
        for i, step in enumerate(steps):
            start = time.process_time()
            step()
            if round_:  # the first round warms up
                seconds[i].append(time.process_time() - start)
    blocks.attend = FORMULA
    medians = [statistics.median(s) for s in seconds]
    rows = [
        {"switch": name, "cpu_seconds": m, "range": [min(s), max(s)], "speedup": medians[0] / m}
        for name, m, s in zip(SWITCHES, medians, seconds, strict=True)
    ]
    result = {"batch": BATCH, "rounds": ROUNDS, "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
    write_atomic(Path(__file__).parent / "results" / "speedups.json", (json.dumps(result, indent=1) + "\n").encode())
    for row in rows:
        print(f"{row['switch']:24} {row['cpu_seconds']:.3f} CPU s a step  x {row['speedup']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
