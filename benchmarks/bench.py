"""One table from one run: ours, diffusers and lucidrains, training and sampling, beside what the machine can do.

python benchmarks/bench.py                        # make bench: a few minutes on a CPU or a GPU
python benchmarks/bench.py --budget full          # more rounds, larger batches, growth curves
python benchmarks/bench.py --clock cpu --threads 1    # on a machine that others use too: CPU seconds of each process

Contenders live in processes of their own and take turns (A B C, A B C, ...), so that a change of the machine's mood meets all of them.
The table shows medians, with the range in brackets; everything goes to benchmarks/results/bench-DEVICE.json. The peers come with
`pip install -e '.[bench]'`; a contender that cannot run is named with its reason, and the others go on.
"""

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from peers import Setting, contenders
from worker import Worker, interleaved

RESULTS = Path(__file__).parent / "results"
PEERS = ("torch", "diffusers", "accelerate", "denoising-diffusion-pytorch", "numpy")


@dataclass(frozen=True)
class Budget:
    """How much is measured."""

    rounds: int
    batches: dict[str, int]
    sampled: tuple[int, int]  # pictures, DDIM steps
    growth: bool


BUDGETS = {
    "smoke": Budget(1, {"small": 16}, (2, 2), False),
    "quick": Budget(3, {"big": 16, "small": 128}, (64, 50), False),  # 128: the trainer's own default, and the paper's
    "full": Budget(7, {"big": 16, "small": 128}, (64, 50), True),
}
STEPS = 5  # training steps a turn on a CPU: a first step after a pause is slower, for some more than for others
GPU_BATCHES = {"big": 128, "small": 256}  # 128: the paper's


def machine(device: str, threads: int) -> dict[str, Any]:
    """Device, versions, and how busy the machine is."""
    versions = {}
    for name in PEERS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    capability = "" if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    load = [round(x, 2) for x in os.getloadavg()]
    return {"device": name, "capability": capability, "threads": threads, "python": platform.python_version(), "load": load} | versions


def ceilings(size: str, batch: int, device: str) -> dict[str, float]:
    """FLOP/s of a large matrix product and of the network's own convolutions, in both precisions (on a GPU fp32 means TF32 there)."""
    from ceiling import convolution, convolutions, matmul
    from peers import NETWORKS

    from ddpm_course import UNet

    torch.backends.cudnn.benchmark = True
    net = UNet(NETWORKS[size]).to(device).eval()
    shapes = convolutions(net, torch.zeros(1, 3, 32, 32, device=device))
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        found[f"matmul {name}"] = matmul(device, dtype, 8192 if device == "cuda" else 2048)
        some = batch if device == "cuda" else min(batch, 64)
        found |= {f"convolution {name} {k}": x for k, x in convolution(shapes, some, device, dtype, 2).items()}
    return found


def opened(size: str, budget: Budget, args: argparse.Namespace) -> tuple[Setting, list[Worker]]:
    """The contenders of one network, each in its process, taking their first steps: the compiler's work is spread over the cores."""
    batch = args.batch or (GPU_BATCHES[size] if args.device == "cuda" else budget.batches[size])
    setting, names = Setting(size, batch, args.device), contenders(args.device, compiled=size in args.compile)
    if size == "big":
        names = {name: build for name, build in names.items() if "patches" not in name}
    names = [name for name in names if not args.only or any(fnmatch(name, pattern) for pattern in args.only)]
    workers = [Worker(name, setting, args.threads) for name in names]
    if args.device == "cuda":
        for worker in workers:
            worker.ask("warm", 12 if "train" in args.measure else 0, budget.sampled[0] if "sample" in args.measure else 0)
    return setting, workers


def measured(setting: Setting, workers: list[Worker], budget: Budget, args: argparse.Namespace) -> dict[str, Any]:
    """Everything about one network: ceilings between the rounds, contenders in turns."""
    size, batch, gpu = setting.size, setting.batch, args.device == "cuda"
    names, steps = [worker.name for worker in workers], max(1, args.steps or (20 if gpu else STEPS))
    try:
        facts = {worker.name: worker.answer() if gpu else worker("warm", 4) for worker in workers}
        while args.wait and not args.wait.exists():
            time.sleep(0.5)
        top, train = [], {name: [] for name in names}
        for turn in range(budget.rounds if "train" in args.measure else 0):
            if turn == 0 or not gpu:  # a GPU is nobody else's
                top.append(ceilings(size, batch, args.device))
            for name, rates in interleaved(workers, lambda w: w("train", steps), 1).items():
                train[name] += rates
        memory = {worker.name: worker("memory") for worker in workers}
        sampling = {}
        if size == "small" and "sample" in args.measure:
            sampling = interleaved(workers, lambda w: w("sample", *budget.sampled), 3 if gpu else 1 + (budget.rounds > 3))
        problems = {worker.name: worker.problem for worker in workers if worker.problem}
    finally:
        for worker in workers:
            worker.close()
    ceiling = {key: statistics.median(row[key] for row in top) for key in (top[0] if top else {})}
    rows = [
        {"name": name, **(facts[name] or {}), "train": train[name], "memory_mib": memory[name], "sample": sampling.get(name, [])}
        for name in names
    ]
    return {"size": size, "batch": batch, "ceiling": ceiling, "ceilings": top, "rows": rows, "problems": problems}


def fill(result: dict[str, Any]) -> None:
    """Medians, FLOP/s and the share of the convolution ceiling.

    diffusers' network is ours, so it gets our FLOPs: torch's counter does not see the backward pass of its attention kernel.
    """
    flops = {row["name"]: row["flop_per_image"] for row in result["rows"] if "flop_per_image" in row}
    for row in result["rows"]:
        plain = row["name"].removesuffix(" default").replace(" compile", "")
        twin = "ours bf16" if row["name"].startswith("diffusers") and "ours bf16" in flops else plain
        per_image = flops.get(twin)
        row["median"] = statistics.median(row["train"]) if row["train"] else None
        if row["median"] and per_image:
            precision = "bf16" if "bf16" in row["name"] else "fp32"
            row["flop_per_image"], row["flop_per_s"] = per_image, per_image * row["median"]
            row["of_ceiling"] = row["flop_per_s"] / result["ceiling"][f"convolution {precision} best"]


def spread(values: list[float]) -> str:
    """Median [least, most]."""
    return f"{statistics.median(values):.4g} [{min(values):.4g}, {max(values):.4g}]" if values else "-"


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    ceiling = {key: f"{value / 1e9:.0f}" for key, value in result["ceiling"].items()}
    if not any(row["train"] for row in result["rows"]):
        return "\n".join(f"{row['name']}: DDIM-50, images/s {spread(row['sample'])}" for row in result["rows"])
    lines = [
        f"### {result['size']} network, batch {result['batch']}",
        "",
        "Ceilings, GFLOP/s: " + ", ".join(f"{key} {value}" for key, value in ceiling.items()),
        "",
        "| | parameters | training, images/s | GFLOP an image | of the convolution ceiling | DDIM-50, images/s | memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if row["median"] is None:
            lines.append(f"| {row['name']} | | {result['problems'].get(row['name'], 'not measured')} | | | | |")
            continue
        share = f"{100 * row['of_ceiling']:.0f} %" if "of_ceiling" in row else "-"
        work = f"{row['flop_per_image'] / 1e9:.2f}" if "flop_per_image" in row else "-"
        cells = [
            row["name"],
            f"{row['parameters']:,}",
            spread(row["train"]),
            work,
            share,
            spread(row["sample"]),
            f"{row['memory_mib']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Ours over each contender, images/s, median over median."""
    medians = {row["name"]: row["median"] for row in result["rows"] if row["median"]}
    mine = [name for name in medians if name.startswith("ours bf16")]
    return {f"{a} / {b}": medians[a] / medians[b] for a in mine for b in medians if not b.startswith("ours")}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: seconds of the process, with --threads 1")
    parser.add_argument("--compile", nargs="*", default=["small"], help="networks for which torch.compile takes part (minutes on a CPU)")
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose name fits one of these, such as 'ours*'")
    parser.add_argument("--networks", nargs="*", help="big, small; by default what the budget names")
    parser.add_argument("--batch", type=int, help="instead of the budget's")
    parser.add_argument("--tag", default="", help="part of the file's name")
    parser.add_argument("--measure", nargs="*", default=["train", "sample", "loops"], help="train, sample, loops")
    parser.add_argument("--wait", type=Path, help="warm up, and measure once this file is there: when something else has left the GPU")
    parser.add_argument("--steps", type=int, default=0, help="training steps a turn")
    parser.add_argument("--rounds", type=int, help="turns of each; by default the budget's")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def saved(report: dict[str, Any], args: argparse.Namespace) -> None:
    """What is known so far, as JSON."""
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"bench-{args.device}{args.tag}.json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Measure, print, save."""
    args, begun = arguments(), time.perf_counter()
    os.environ |= {"BENCH_CLOCK": args.clock, "TQDM_DISABLE": "1"}
    torch.set_num_threads(args.threads)
    budget = replace(usual := BUDGETS[args.budget], rounds=args.rounds or usual.rounds)
    report: dict[str, Any] = {"budget": args.budget, "clock": args.clock, "machine": machine(args.device, args.threads)}
    print(report["machine"], flush=True)
    report["networks"] = []
    sizes = args.networks or list(budget.batches)
    early = {size: opened(size, budget, args) for size in sizes} if args.device == "cuda" else {}
    for size in sizes:
        result = measured(*(early.get(size) or opened(size, budget, args)), budget, args)
        fill(result)
        result["ratios"] = ratios(result)
        report["networks"].append(result)
        print(table(result), "\n" + "\n".join(f"{key}: {value:.2f}" for key, value in result["ratios"].items()), "\n", flush=True)
        saved(report, args)
    if "loops" in args.measure:
        loops(report, args, budget)
    report["seconds"], report["load_after"] = time.perf_counter() - begun, list(os.getloadavg())
    saved(report, args)


def loops(report: dict[str, Any], args: argparse.Namespace, budget: Budget) -> None:
    """What sampling loops cost beside their networks, and the growth curves where the budget has them."""
    from loops import growth, image_overhead, toy_steps

    report["us_per_step"] = toy_steps(args.device, budget.rounds)
    report["loop_overhead"] = image_overhead(args.device, 64 if budget.rounds > 1 else 2, 10, budget.rounds)
    report["growth"] = growth(args.device, budget.rounds) if budget.growth else []
    print("Microseconds a step on a 2-D toy:", {key: round(x, 1) for key, x in report["us_per_step"].items()})
    print(f"A sampling loop beside its network calls: {100 * report['loop_overhead']['overhead']:.2f} % more")


if __name__ == "__main__":
    main()
