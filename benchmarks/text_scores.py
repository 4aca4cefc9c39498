"""Does the picture show what the caption says? python benchmarks/text_scores.py

Writes benchmarks/results/text_scores.json. Each row goes to runs/text-CHECKSUM/ at once: a run that was stopped goes on.
Rows of the comparison (--pooled FOLDER, made by train_captions.py pooled) are kept from the report if the folder is not given.
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
from ddpm_course.models import SceneJudge
from ddpm_course.pictures import to_float

STEPS, SCALES = 50, (1.0, 2.0, 3.0, 5.0, 8.0)
HELD_OUT, SEEN, POOLED, HIDDEN = "held-out combinations", "training combinations", "pooled, held-out combinations", "caption hidden"
OUT = Path(__file__).parent / "results" / "text_scores.json"


def scenes_for(name: str, n: int) -> Tensor:
    """The scenes that a row asks for: the same for every scale and network."""
    return draw_scenes(n, rng(0, 18, name == SEEN), held_out=name != SEEN)


def draw(trained: Trained, scenes: Tensor, scale: float, device: str, at_once: int) -> Tensor:
    """One picture for each scene's caption, the same noise at every scale: DDIM, guesses of x_0 held in [-1, 1]."""
    tokens, null, x_T = tokenize(describe(scenes)), tokenize(""), torch.randn(len(scenes), 3, 32, 32, generator=rng(0, 19))
    net, schedule, drawn = trained.net.to(device), trained.schedule.to(device), []
    for part in (slice(start, start + at_once) for start in range(0, len(scenes), at_once)):
        cond = {"tokens": tokens[part].to(device)}
        model = batched_guidance(net, schedule, cond, {"tokens": null.to(device)}, scale, trained.prediction)
        drawn.append(ddim_sample(clip_x_0(model, schedule), schedule, x_T=x_T[part].to(device), num_steps=STEPS).cpu())
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
    """Guesses that know how often each answer occurs, the 20 held-out combinations included, and nothing of the caption."""
    layout = 5 * 0.1**2 + 2 * 0.25**2  # five places of one thing, and two canonical layouts of two
    everything = 0.5 * 0.1 / 20 + 0.5 * 0.25 / 20**2
    return {"count": 1 / 2, "layout": layout, "digit": 1 / 10, "colour": 1 / 6, "size": 1 / 2, "all": everything}


def plan(pooled: bool) -> list[tuple[str, float]]:
    """Rows in the order of their weight, so that a run that is cut off has the main ones."""
    rows = [(HELD_OUT, 3.0), (SEEN, 3.0), (HELD_OUT, 1.0), (HIDDEN, 0.0)]
    comparison = [(POOLED, 3.0), (POOLED, 1.0)] if pooled else []
    rest = [(HELD_OUT, s) for s in SCALES] + [(SEEN, s) for s in SCALES] + [(POOLED, s) for s in SCALES if pooled]
    return list(dict.fromkeys(rows + comparison + rest))


def kept_rows(out: Path, pooled: Path | None, weights: str) -> list[dict[str, Any]]:
    """The comparison's rows of an earlier report on the same weights, if they are not measured now."""
    old = json.loads(out.read_text()) if out.exists() and pooled is None else {"rows": []}
    return [row for row in old["rows"] if row["name"] == POOLED] if old.get("weights") == weights else []


def main() -> None:
    """Measure what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, default=ASSETS / "captions")
    parser.add_argument("--pooled", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further row after this time")
    args = parser.parse_args()
    start, judge = time.monotonic(), load_judge(args.captions)
    weights = "".join(load_tensors(args.captions, part)[1]["sha256"][:6] for part in ("model", "judge"))
    report: dict[str, Any] = {"weights": weights, "sampler": f"DDIM, {STEPS} steps", "n": args.n, "device": args.device}
    report |= {"chance": chance(), "ceiling": ceiling(judge, args.n), "rows": []}
    nets = {False: load_model(args.captions)} | ({True: load_model(args.pooled)} if args.pooled else {})
    report["steps"] = {"words": nets[False].config["steps"]} | ({"pooled": nets[True].config["steps"]} if args.pooled else {})
    for name, scale in plan(bool(args.pooled)):
        if time.monotonic() - start > args.seconds:
            continue
        scenes = scenes_for(name, args.n)

        def measure(name: str = name, scale: float = scale, scenes: Tensor = scenes) -> dict[str, float]:
            return agreement(
                scenes, seen_in(judge, draw(nets[name == POOLED], scenes, scale, args.device, 1000 if args.device == "cuda" else 50))
            )

        scores = once(Path("runs") / f"text-{weights}" / f"{name}-{scale:g}-{args.n}.json", measure)
        report["rows"].append({"name": name, "scale": scale, "scores": scores})
        print(name, scale, {key: round(value, 3) for key, value in scores.items()}, flush=True)
        rows = sorted(report["rows"] + kept_rows(args.out, args.pooled, weights), key=lambda row: (row["name"], row["scale"]))
        write_atomic(args.out, (json.dumps(report | {"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
