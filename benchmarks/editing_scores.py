"""What inpainting, super-resolution and image to image do to all held-out MNIST digits: python benchmarks/editing_scores.py

Writes benchmarks/results/editing.json; minutes on a GPU (--device cuda), some hours on a CPU. Each measurement goes to
runs/editing-CHECKSUM/ at once: a run that was stopped goes on. The noise is drawn on the CPU, the same for every device.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from model_card import held_out, once
from torch import Tensor

from ddpm_course import clip_x_0, ddim_sample, load_model
from ddpm_course.checkpoint import ASSETS, load_classifier, load_tensors, rng, write_atomic
from ddpm_course.data import load
from ddpm_course.editing import enlarge, image_to_image, inpaint, low_pass, psnr, super_resolve
from ddpm_course.guidance import batched_guidance
from ddpm_course.metrics import frechet_distance
from ddpm_course.prediction import EpsModel
from ddpm_course.solvers import ddim_invert
from ddpm_course.strokes import StyleCells, slant, thickness

FACTOR, STYLES = 4, StyleCells.count
THIN_UPRIGHT, BOLD_SLANTED, NONE = 0, STYLES - 1, 10 * STYLES
RESULTS = Path(__file__).parent / "results" / "editing.json"
Numbers = dict[str, Any]


def mean_error(values: Tensor) -> list[float]:
    """Mean and standard error."""
    values = values.double().cpu()
    return [float(values.mean()), float(values.std()) / len(values) ** 0.5]


class Bench:
    """The held-out digits, the ruler, and the networks, all on one device."""

    def __init__(self, assets: Path, device: str, n: int) -> None:
        self.assets, self.device, splits = assets, device, load("mnist5k")
        self.images = held_out(splits)[:n].to(device)
        self.y = torch.cat([splits.val.labels, splits.test.labels])[:n].to(device)
        self.eyes, self.cells = load_classifier("mnist").to(device), StyleCells(*splits.train)
        self.real = self.eyes.features(self.images)
        self.low = low_pass(self.images, FACTOR)

    def folder(self, name: str) -> Path:
        """Where a network lies: among the new ones if it is there, else in the package."""
        return self.assets / name if (self.assets / name / "model.json").exists() else ASSETS / name

    def trained(self, name: str) -> Any:
        """A shipped network on this device."""
        trained = load_model(self.folder(name))
        trained.net.to(self.device)
        trained.schedule = trained.schedule.to(self.device)
        return trained

    def model(self, name: str, clip: bool = True, **cond: Tensor) -> tuple[EpsModel, Any]:
        """(eps_model, schedule) of a network, its guesses held in [-1, 1]."""
        trained = self.trained(name)
        model = trained.eps_model(**cond)
        return (clip_x_0(model, trained.schedule) if clip else model), trained.schedule

    def known_as(self, x: Tensor) -> Tensor:
        """1 where the classifier sees the digit's own class, (B,)."""
        return (self.eyes(x).argmax(1) == self.y).float()

    def restored(self, x: Tensor) -> Numbers:
        """What is said of every enlarged picture: PSNR, square error, own class, block averages."""
        return {
            "psnr": mean_error(psnr(x, self.images).clamp(max=99)),
            "mse": mean_error((x - self.images).square().flatten(1).mean(1)),
            "own_class": mean_error(self.known_as(x)),
            "off_averages": float((low_pass(x, FACTOR) - self.low).square().mean() ** 0.5),
        }


# --- inpainting: the lower half is hidden ------------------------------------------------------------------------------

HIDDEN = 14  # rows from here on
PLANS = {"r1": (100, 1), "r5": (100, 5), "r10": (100, 10), "r2": (100, 2), "slow": (1000, 1)}  # name -> steps, resamplings


def filled(bench: Bench, x: Tensor) -> Numbers:
    """Own class, distance of the features, and the step across the border in brightness."""
    return {
        "own_class": mean_error(bench.known_as(x)),
        "frechet_distance": frechet_distance(bench.eyes.features(x), bench.real),
        "seam": mean_error((x[:, 0, HIDDEN] - x[:, 0, HIDDEN - 1]).abs().mean(1)),
    }


def inpainting(bench: Bench, plan: str) -> Numbers:
    """One completion of each digit from its upper half."""
    if plan == "real":
        return filled(bench, bench.images)
    mask = torch.zeros(1, 1, 28, 28, dtype=torch.bool, device=bench.device)
    mask[:, :, :HIDDEN] = True
    if plan == "black":
        return filled(bench, torch.where(mask, bench.images, -1.0))
    steps, resamplings = PLANS[plan]
    model, schedule = bench.model("mnist")
    x = inpaint(model, schedule, bench.images, mask, steps, resamplings, 5, generator=rng(0, 191))
    return filled(bench, x) | {"known_exact": bool((x == bench.images)[:, :, :HIDDEN].all())}


# --- super-resolution: 7x7 -> 28x28 --------------------------------------------------------------------------------------

DRAWS, SR_STEPS = 4, 20


def enlarged(bench: Bench, way: str) -> Numbers:
    """Without any network, or with the unconditional one."""
    if way in ("nearest", "bicubic"):
        return bench.restored(enlarge(bench.low, FACTOR, way).clamp(-1, 1))
    if way == "truth":
        return bench.restored(bench.images)
    model, schedule = bench.model("mnist")
    return bench.restored(super_resolve(model, schedule, bench.low, FACTOR, 100, int(way[-1]), generator=rng(0, 192)))


def resolved(bench: Bench) -> Numbers:
    """One draw of the conditioned network, the mean of several, and how far apart they are."""
    model, schedule = bench.model("mnist-sr", condition=enlarge(bench.low, FACTOR))
    starts = [torch.randn(bench.images.shape, generator=rng(k, 193)).to(bench.device) for k in range(DRAWS)]
    draws = [ddim_sample(model, schedule, x_T=x_T, num_steps=SR_STEPS) for x_T in starts]
    found = {f"mean of {k}": bench.restored(torch.stack(draws[:k]).mean(0)) for k in (1, 2, DRAWS)}
    found["pair"] = {"mse": mean_error((draws[0] - draws[1]).square().flatten(1).mean(1))}
    kept = draws[0] + enlarge(bench.low - low_pass(draws[0], FACTOR), FACTOR)
    return found | {"averages put right": bench.restored(kept.clamp(-1, 1))}


# --- image to image -----------------------------------------------------------------------------------------------------

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def rms(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square distance over the pixels, (B,)."""
    return (x - y).square().flatten(1).mean(1).sqrt()


def noised(bench: Bench, strength: float, seed: int) -> Numbers:
    """SDEdit with the unconditional network: is the class kept, and how far is the result?"""
    model, schedule = bench.model("mnist")
    x = image_to_image(model, schedule, bench.images, strength, 25, generator=rng(seed, 194))
    return {"own_class": mean_error(bench.known_as(x)), "distance": mean_error(rms(x, bench.images))}


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of two lists of numbers."""
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])


class ThinUpright:
    """The held-out digits that are thin and upright among their class, and what becomes of them."""

    def __init__(self, bench: Bench) -> None:
        self.bench, chosen = bench, bench.cells(bench.images, bench.y) == THIN_UPRIGHT
        self.x, self.y = bench.images[chosen], bench.y[chosen]
        self.trained = bench.trained("mnist-styles")
        self.net, self.schedule, self.prediction = self.trained.net, self.trained.schedule, self.trained.prediction

    def label(self, style: int) -> Tensor:
        """The digit's own class in this style."""
        return STYLES * self.y + style

    def judged(self, x: Tensor, y: Tensor | None = None) -> Numbers:
        """Thickness, slant, thirds reached, class, distance to the input; and whether the thinnest stay the thinnest."""
        y = self.y if y is None else y
        a, b = (third == 2 for third in self.bench.cells.thirds(x, y))
        values = {"thickness": thickness(x), "slant": slant(x), "bold": a, "slanted": b, "both": a & b}
        values["own_class"] = self.bench.eyes(x).argmax(1) == y
        if len(x) == len(self.x):
            values["distance"] = rms(x, self.x)
        found: Numbers = {key: mean_error(value.float()) for key, value in values.items()} | {"n": len(x)}
        if len(x) == len(self.x):
            found["rank"] = {f.__name__: correlation(f(self.x), f(x)) for f in (thickness, slant)}
        return found

    def before(self) -> Numbers:
        """The pictures themselves, and real bold slanted ones."""
        real = self.bench.cells(self.bench.images, self.bench.y) == BOLD_SLANTED
        return {"thin upright": self.judged(self.x), "bold slanted": self.judged(self.bench.images[real], self.bench.y[real])}

    def rewritten(self, steps: int, scale: float) -> Numbers:
        """Up with the digit's own label, down with that of its bold slanted kind; and, at scale 1, there and back."""
        up = self.trained.eps_model(y=self.label(THIN_UPRIGHT))
        none = torch.tensor([NONE], device=self.x.device)
        target = {"y": self.label(BOLD_SLANTED)}
        down = batched_guidance(self.net, self.schedule, target, {"y": none}, scale, self.prediction)
        x_T = ddim_invert(up, self.schedule, self.x, steps)
        found = self.judged(ddim_sample(down, self.schedule, x_T=x_T, num_steps=steps).clamp(-1, 1))
        if scale == 1:
            found["there and back"] = mean_error(rms(ddim_sample(up, self.schedule, x_T=x_T, num_steps=steps), self.x))
            found["noise"] = mean_error(x_T.flatten(1).std(1))
        return found

    def redrawn(self, strength: float) -> Numbers:
        """The same wish by SDEdit: forget so much, then down with the new label. Strength 1 draws anew."""
        model = clip_x_0(self.trained.eps_model(y=self.label(BOLD_SLANTED)), self.schedule)
        x = image_to_image(model, self.schedule, self.x, strength, 25, generator=rng(0, 195))
        return self.judged(x.clamp(-1, 1))


def far_apart(bench: Bench) -> list[float]:
    """Root mean square distance of two held-out digits that have nothing to do with each other."""
    return mean_error(rms(bench.images, bench.images.roll(1, 0)))


Job = Callable[[Bench], Any]
JOBS: dict[str, tuple[str, Job]] = {  # the measurement -> the network it needs, and how
    **{f"enlarge {way}": ("mnist", lambda b, w=way: enlarged(b, w)) for way in ("truth", "nearest", "bicubic", "guided 1")},
    **{f"inpaint {plan}": ("mnist", lambda b, p=plan: inpainting(b, p)) for plan in ("real", "black", "r1", "r5")},
    "far apart": ("mnist", far_apart),
    **{f"sdedit {s} seed 0": ("mnist", lambda b, s=s: noised(b, s, 0)) for s in STRENGTHS},
    "inpaint r10": ("mnist", lambda b: inpainting(b, "r10")),
    "inpaint slow": ("mnist", lambda b: inpainting(b, "slow")),
    "enlarge guided 5": ("mnist", lambda b: enlarged(b, "guided 5")),
    "inpaint r2": ("mnist", lambda b: inpainting(b, "r2")),
    **{f"sdedit {s} seed {k}": ("mnist", lambda b, s=s, k=k: noised(b, s, k)) for k in (1, 2) for s in STRENGTHS},
    "resolved": ("mnist-sr", resolved),
    "style before": ("mnist-styles", lambda b: ThinUpright(b).before()),
    **{f"restyle {n} scale 1": ("mnist-styles", lambda b, n=n: ThinUpright(b).rewritten(n, 1.0)) for n in (40, 10, 20)},
    **{f"restyle 40 scale {s:g}": ("mnist-styles", lambda b, s=s: ThinUpright(b).rewritten(40, s)) for s in (2.0, 3.0)},
    **{f"restyle noise {s}": ("mnist-styles", lambda b, s=s: ThinUpright(b).redrawn(s)) for s in (0.7, 0.8, 0.9, 1.0)},
}


def checksums(bench: Bench) -> dict[str, str]:
    """The weights that the figures belong to."""
    found = {name: load_tensors(bench.folder(name), "model")[1]["sha256"][:6] for name in ("mnist", "mnist-sr", "mnist-styles")}
    return found | {"classifier": load_tensors(ASSETS / "mnist", "classifier")[1]["sha256"][:6]}


def measure(bench: Bench, work: Path, networks: list[str], seconds: float) -> None:
    """Every job of these networks that is not on the disk yet, as long as there is time."""
    start = time.monotonic()
    for name, (network, job) in JOBS.items():
        if network in networks and time.monotonic() - start < seconds:
            weights = load_tensors(bench.folder(network), "model")[1]["sha256"][:6]
            once(work / f"{network}-{weights}" / f"{name.replace(' ', '-')}.json", lambda job=job: job(bench))


def report(bench: Bench, work: Path, out: Path) -> None:
    """All measurements of these weights in one file."""
    weights = checksums(bench)
    found: Numbers = {"weights": weights, "n": len(bench.y), "values": "mean and standard error where there are two", "missing": []}
    for name, (network, _) in JOBS.items():
        file = work / f"{network}-{weights[network]}" / f"{name.replace(' ', '-')}.json"
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
        else:
            found["missing"].append(name)
    write_atomic(out, (json.dumps(found, indent=1) + "\n").encode())
    print(f"wrote {out.name}; missing: {found['missing']}", flush=True)


@torch.no_grad()
def main() -> None:
    """Measure what is missing, then write the report if all networks are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="where new networks lie")
    parser.add_argument("--work", type=Path, default=Path("runs/editing"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--networks", nargs="+", default=["mnist", "mnist-sr", "mnist-styles"])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    bench = Bench(args.assets, args.device, args.n)
    measure(bench, args.work, args.networks, args.seconds)
    if all((bench.folder(name) / "model.json").exists() for name in ("mnist", "mnist-sr", "mnist-styles")):
        report(bench, args.work, args.out)


if __name__ == "__main__":
    main()
