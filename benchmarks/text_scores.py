"""Does the picture show what the caption says? python benchmarks/text_scores.py

Writes benchmarks/results/text_scores.json. Each row goes to runs/text-CHECKSUM/ at once: a run that was stopped goes on.
The comparison needs two folders: --pooled, made by train_captions.py pooled, and --equal, the network itself after as many steps
from the same start. Its rows are kept from the report if the folders are not given. --only measures rows of these names alone.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from model_card import once
from torch import Tensor

from ddpm_course import clip_x_0, ddim_sample, load_model
from ddpm_course.canvas import Sources, render
from ddpm_course.captions import agreement, describe, draw_scenes, tokenize
from ddpm_course.checkpoint import ASSETS, Trained, load_judge, load_tensors, rng, write_atomic
from ddpm_course.data import Split, mnist5k
from ddpm_course.guidance import batched_guidance
from ddpm_course.memory import keep_memory
from ddpm_course.models import SceneJudge
from ddpm_course.pictures import to_float

STEPS, SCALES = 50, (1.0, 2.0, 3.0, 5.0, 8.0)
HELD_OUT, SEEN, HIDDEN = "held-out combinations", "training combinations", "caption hidden"
POOLED, EQUAL = "pooled, held-out combinations", "every word, as many steps as pooled"
OUT = Path(__file__).parent / "results" / "text_scores.json"


def scenes_for(name: str, n: int) -> Tensor:
    """The scenes that a row asks for: the first n of 1,000, the same for every scale and network."""
    return draw_scenes(max(n, 1000), rng(0, 18, name == SEEN), held_out=name != SEEN)[:n]


def draw(trained: Trained, scenes: Tensor, scale: float, device: str, at_once: int) -> Tensor:
    """One picture for each scene's caption, the same noise at every scale: DDIM, guesses of x_0 held in [-1, 1]."""
    tokens, null, x_T = tokenize(describe(scenes)), tokenize(""), torch.randn(1000, 3, 32, 32, generator=rng(0, 19))
    net, schedule, drawn = trained.net.to(device), trained.schedule.to(device), []

    def ask(x_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The network in bf16, as it was trained; everything around it stays fp32."""
        with torch.autocast(device, torch.bfloat16):
            return net(x_t, t, tokens).float()

    for part in (slice(start, start + at_once) for start in range(0, len(scenes), at_once)):
        cond = {"tokens": tokens[part].to(device)}
        model = batched_guidance(ask, schedule, cond, {"tokens": null.to(device)}, scale, trained.prediction)
        drawn.append(ddim_sample(clip_x_0(model, schedule), schedule, x_T=x_T[: len(scenes)][part].to(device), num_steps=STEPS).cpu())
    return torch.cat(drawn)


def seen_in(judge: SceneJudge, pictures: Tensor) -> Tensor:
    """What the judge sees in many pictures, (N, 7)."""
    return torch.cat([judge.see(x) for x in pictures.split(250)])


def ceiling(judge: SceneJudge, n: int) -> dict[str, float]:
    """The judge on real pictures of the held-out captions, made of digits that no network was trained on."""
    scenes, (_, val, test) = scenes_for(HELD_OUT, n), mnist5k()
    both = Split(*(torch.cat(parts) for parts in zip(val, test, strict=True)))
    return agreement(scenes, seen_in(judge, to_float(render(scenes, Sources(both), rng(0, 20)))))


def chance() -> dict[str, float]:
    """Guesses that know how often each answer occurs, the 20 held-out combinations included, and nothing of the caption.

    Of the things asked for, a third are second ones; half of the guesses have none, so 5 things of 6 get a guess at all.
    """
    layout, guessed = 5 * 0.1**2 + 2 * 0.25**2, 5 / 6  # five places of one thing, and two canonical layouts of two
    everything = 0.5 * 0.1 / 20 + 0.5 * 0.25 / 20**2
    return {"count": 1 / 2, "layout": layout, "digit": guessed / 10, "colour": guessed / 6, "size": guessed / 2, "all": everything}


def plan(n: int, comparison: bool) -> list[tuple[str, float, int]]:
    """Rows (name, scale, n) in the order of their weight, so that a run that is cut off has the main ones; the others are smaller."""
    rows = [(HELD_OUT, 3.0, n), (SEEN, 3.0, n), (HELD_OUT, 1.0, n), (HIDDEN, 0.0, n)]
    rows += [(name, scale, n // 2) for scale in (3.0, 1.0) for name in (POOLED, EQUAL)] if comparison else []
    return rows + [
        (name, scale, n * 3 // 10) for scale in SCALES for name in (HELD_OUT, SEEN) if (name, scale) not in [r[:2] for r in rows]
    ]


def kept(out: Path) -> dict[str, Any]:
    """The comparison of an earlier report: its rows, and the steps of training."""
    old = json.loads(out.read_text()) if out.exists() else {"rows": [], "steps": {}}
    return {"rows": [row for row in old["rows"] if row["name"] in (POOLED, EQUAL)], "steps": old["steps"]}


def steps_of(trained: Trained) -> int:
    """How many steps it was trained for, whatever was planned."""
    return trained.history[-1]["step"]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, default=ASSETS / "captions")
    parser.add_argument("--pooled", type=Path)
    parser.add_argument("--equal", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--cached", action="store_true", help="measure nothing: a report of the rows that are there")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further row after this time")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, then write the report."""
    args, start = arguments(), time.monotonic()
    keep_memory()
    comparison, judge, net = bool(args.pooled and args.equal), load_judge(args.captions), load_model(args.captions)
    checksum = lambda folder, part="model": load_tensors(folder, part)[1]["sha256"][:6]  # noqa: E731
    weights, folders = checksum(args.captions) + checksum(args.captions, "judge"), {POOLED: args.pooled, EQUAL: args.equal}
    others = {POOLED: load_model(args.pooled), EQUAL: load_model(args.equal)} if comparison else {}
    before = {"rows": [], "steps": {key: steps_of(x) for key, x in others.items()}} if comparison else kept(args.out)
    report: dict[str, Any] = {"weights": weights, "sampler": f"DDIM, {STEPS} steps, bf16", "n": args.n, "device": args.device}
    report |= {"steps": before["steps"] | {"words": steps_of(net)}, "chance": chance(), "ceiling": ceiling(judge, args.n)}
    rows, at_once = before["rows"], 1000 if args.device == "cuda" else 50
    for name, scale, n in plan(args.n, comparison):
        if time.monotonic() - start > args.seconds or (args.only and name not in args.only):
            continue
        scenes = scenes_for(name, n)

        def measure(name: str = name, scale: float = scale, scenes: Tensor = scenes) -> dict[str, float]:
            return agreement(scenes, seen_in(judge, draw(others.get(name, net), scenes, scale, args.device, at_once)))

        own = checksum(folders.get(name, args.captions)) + weights[6:]
        file = Path("runs") / f"text-{own}" / f"{name}-{scale:g}-{n}.json"
        if args.cached and not file.exists():
            continue
        scores = once(file, measure)
        rows.append({"name": name, "scale": scale, "n": n, "scores": scores})
        print(name, scale, {key: round(value, 3) for key, value in scores.items()}, flush=True)
        report["rows"] = sorted(rows, key=lambda row: (row["name"], row["scale"]))
        write_atomic(args.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
