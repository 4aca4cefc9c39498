"""What a sampling loop costs beside the network calls in it, and how a training step grows with batch, resolution, width and steps.

python benchmarks/loops.py                                            # writes benchmarks/results/growth-DEVICE.json
BENCH_CLOCK=cpu OMP_NUM_THREADS=1 python benchmarks/loops.py          # on a machine that others use too
"""

import json
import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ceiling import clock
from peers import SMALL, Setting, autocast, ours
from torch import Tensor

from ddpm_course import UNet, ddim_sample, ddpm_sample, linear_schedule

POINTS, STEPS = 256, 1000  # of a 2-D toy; every time of the chain


def echo(x_t: Tensor, t: Tensor) -> Tensor:
    """The cheapest eps_model."""
    return x_t


def seconds(function: Callable[[], object], device: str, rounds: int) -> list[float]:
    """Of `rounds` runs after one to warm up."""
    function()
    times = []
    for _ in range(rounds):
        before = clock(device)
        function()
        times.append(clock(device) - before)
    return times


@torch.no_grad()
def scheduler_loop(scheduler: Any, x_T: Tensor) -> Tensor:
    """diffusers' documented loop around the same model."""
    x = x_T
    for t in scheduler.timesteps:
        x = scheduler.step(echo(x, t), t, x).prev_sample
    return x


def toy_steps(device: str, rounds: int) -> dict[str, float]:
    """Microseconds a step on 256 points of the plane, with a model that costs nothing: median of interleaved runs."""
    from diffusers import DDIMScheduler, DDPMScheduler

    schedule, x_T = linear_schedule().to(device), torch.randn(POINTS, 2, device=device)
    loops: dict[str, Callable[[], object]] = {
        "ours DDIM": lambda: ddim_sample(echo, schedule, x_T=x_T, num_steps=STEPS),
        "ours DDPM": lambda: ddpm_sample(echo, schedule, x_T=x_T),
    }
    for name, kind in (("diffusers DDIM", DDIMScheduler), ("diffusers DDPM", DDPMScheduler)):
        scheduler = kind(1000, clip_sample=False)
        scheduler.set_timesteps(STEPS)
        loops[name] = lambda scheduler=scheduler: scheduler_loop(scheduler, x_T)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            times[name] += seconds(loop, device, 1)
    return {name: 1e6 * statistics.median(values) / STEPS for name, values in times.items()}


@torch.no_grad()
def image_overhead(device: str, n: int, steps: int, rounds: int) -> dict[str, float]:
    """Share of a DDIM run on n pictures that is not the network: (loop - bare calls) / bare calls, from medians of paired runs."""
    setting = Setting("small", n, device)
    net, schedule, x_T = UNet(SMALL).to(device).eval(), linear_schedule().to(device), torch.randn(n, 3, 32, 32, device=device)
    inside: list[float] = []

    def timed(x_t: Tensor, t: Tensor) -> Tensor:
        """The network, with a stopwatch around it."""
        before = clock(device)
        with autocast(setting, True):
            eps = net(x_t, t)
        eps = eps.float()
        inside[-1] += clock(device) - before
        return eps

    total = []
    for _ in range(rounds + 1):
        inside.append(0.0)
        before = clock(device)
        ddim_sample(timed, schedule, x_T=x_T, num_steps=steps)
        total.append(clock(device) - before)
    shares = [(whole - bare) / bare for whole, bare in list(zip(total, inside, strict=True))[1:]]
    return {"images": n, "steps": steps, "overhead": statistics.median(shares), "largest": max(shares)}


def growth(device: str, rounds: int) -> list[dict[str, Any]]:
    """Seconds of a training step (or of a sampling run) of the small network along four axes, interleaved, medians."""
    wide = lambda width: replace(SMALL, base_channels=width)  # noqa: E731
    cases: list[tuple[str, int, Setting, Any]] = [("batch", n, Setting("small", n, device), SMALL) for n in (4, 8, 16, 32, 64)]
    cases += [("width", width, Setting("small", 16, device), wide(width)) for width in (16, 32, 64, 96)]
    rows = [_grown(axis, value, ours(setting, config=config).step, device) for axis, value, setting, config in cases]
    rows += [_grown("resolution", size, _step_at(size, device), device) for size in (16, 32, 48, 64)]
    sampler = ours(Setting("small", 8, device)).sample
    rows += [_grown("sampling steps", steps, lambda steps=steps: sampler(8, steps), device) for steps in (5, 10, 20, 40)]
    for _ in range(rounds):
        for row in rows:
            before = clock(device)
            row["run"]()
            row["seconds"].append(clock(device) - before)
    return [{"axis": r["axis"], "value": r["value"], "seconds": statistics.median(r["seconds"]), "all": r["seconds"]} for r in rows]


def _grown(axis: str, value: int, run: Callable[[], object], device: str) -> dict[str, Any]:
    run()
    return {"axis": axis, "value": value, "run": run, "seconds": []}


def _step_at(size: int, device: str) -> Callable[[], object]:
    """Forward and backward on 16 pictures of another size; attention stays at a quarter of it."""
    net = UNet(replace(SMALL, image_size=size, attention_sizes=(size // 4,))).to(device)
    x, t = torch.randn(16, 3, size, size, device=device), torch.ones(16, dtype=torch.long, device=device)

    def step() -> None:
        """Without an optimiser: its time does not depend on the size."""
        with autocast(Setting("small", 16, device), True):
            loss = net(x, t).float().square().mean()
        loss.backward()
        net.zero_grad()

    return step


if __name__ == "__main__":
    here = "cuda" if torch.cuda.is_available() else "cpu"
    facts = {"clock": os.environ.get("BENCH_CLOCK", "wall"), "threads": torch.get_num_threads(), "load": list(os.getloadavg())}
    results = facts | {"growth": growth(here, 3), "us_per_step": toy_steps(here, 5), "loop_overhead": image_overhead(here, 64, 5, 3)}
    (Path(__file__).parent / "results" / f"growth-{here}.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
