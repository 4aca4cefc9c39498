"""Make the two checkpoints of chapter 19, each by one command:

python benchmarks/editing_models.py mnist-sr --steps 1000 --device cuda   # 7x7 -> 28x28: the small picture beside x_t
python benchmarks/editing_models.py mnist-styles --steps 6000             # digit and style as a label; goes on from the MNIST network

Each goes on in runs/NAME, and writes fp16 weights and the model card into the package (or --assets FOLDER).
--ship: what is there by now. --card: the card alone, with what editing_scores.py has measured.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ddpm_course import TrainConfig, UNet, UNetConfig, load_model, train
from ddpm_course.checkpoint import ASSETS, Trained, load_tensors, save_model, write_atomic
from ddpm_course.data import Split, Splits, load
from ddpm_course.editing import small_picture_condition
from ddpm_course.feed import Condition
from ddpm_course.schedule import NoiseSchedule
from ddpm_course.strokes import StyleCells

FACTOR = 4
RESULTS = Path(__file__).parent / "results" / "editing.json"
NETS = {
    "mnist-sr": replace(UNetConfig.mnist(), condition_channels=1),
    "mnist-styles": replace(UNetConfig.mnist(), num_classes=10 * StyleCells.count),
}
SHIFT = {"mnist-sr": 2, "mnist-styles": 1}  # the training pictures are moved by up to this many pixels, each way
ABOUT = {
    "mnist-sr": "Meant for learning and tests. Give it a 7x7 picture, enlarged to 28x28 by repetition, as condition=; it draws a digit in "
    "the style of its data that may have been that picture.",
    "mnist-styles": "Meant for learning and tests. Label 9 d + 3 a + b: digit d, thickness third a and slant third b among digits of its "
    "class (see `ddpm_course/strokes.py`); label 90: none.",
}


def moved(images: torch.Tensor, reach: int) -> torch.Tensor:
    """All pictures, moved by every shift of up to `reach` pixels, as bytes: what enters is black."""
    wide = torch.nn.functional.pad((images * 127.5 + 127.5).round().to(torch.uint8), [reach] * 4)
    size, shifts = images.shape[-1], range(2 * reach + 1)
    return torch.cat([wide[..., down : down + size, right : right + size] for down in shifts for right in shifts])


def data_for(name: str) -> Splits:
    """MNIST-5k with shifted training pictures; for the styles, digit and cell as labels, by the thirds of the training part."""
    splits = load("mnist5k")
    if name == "mnist-styles":
        cells = StyleCells(*splits.train)
        splits = Splits(*(Split(part.images, StyleCells.count * part.labels + cells(*part)) for part in splits))
    copies = (2 * SHIFT[name] + 1) ** 2
    return splits._replace(train=Split(moved(splits.train.images, SHIFT[name]), splits.train.labels.repeat(copies)))


def condition_for(name: str) -> Condition | None:
    """The small picture for super-resolution; the labels otherwise."""
    return small_picture_condition(FACTOR) if name == "mnist-sr" else None


class TwoTables(torch.nn.Module):
    """While it learns, a label's vector is that of its digit plus that of its style: 400 pictures a row instead of 44. Zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.digit, self.style = (torch.nn.Parameter(torch.zeros(rows, width)) for rows in (11, StyleCells.count + 1))

    def table(self) -> torch.Tensor:
        """One row for each label, (91, width); the last is "none"."""
        pairs = (self.digit[:10, None] + self.style[None, : StyleCells.count]).flatten(0, 1)
        return torch.cat([pairs, self.digit[10:] + self.style[StyleCells.count :]])

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """The vectors (B, width) of labels (B,)."""
        return torch.nn.functional.embedding(y, self.table())


def net_for(name: str) -> UNet:
    """The network before its first step: new, or for the styles the shipped MNIST network with empty tables of labels."""
    torch.manual_seed(0)
    net = UNet(NETS[name])
    if name == "mnist-styles":
        missing, unknown = net.load_state_dict(load_model(ASSETS / "mnist").net.state_dict(), strict=False)
        assert missing == ["classes.weight"] and not unknown
        net.classes = TwoTables(net.classes.embedding_dim)
    return net


def one_table(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights with the sums of TwoTables written out as the table of a plain network."""
    if "classes.digit" not in weights:
        return weights
    tables = TwoTables(weights["classes.digit"].shape[1])
    tables.load_state_dict({key: weights.pop(f"classes.{key}") for key in ("digit", "style")})
    return weights | {"classes.weight": tables.table().detach()}


def config_for(name: str, steps: int, device: str, runs: str) -> TrainConfig:
    """The recipe: for the network made anew large batches and a high rate; for the other, which goes on, half of it."""
    new = name == "mnist-sr"
    return TrainConfig(
        data="mnist5k",
        net=NETS[name],
        steps=steps,
        batch_size=512 if new else 64,
        label_dropout=0.1,
        lr=2e-3 if new else 1e-3,
        warmup=max(1, min(300, steps // 10)),
        final_lr=0.02,
        ema_decay=0.999 if new else 0.998,
        precision="bf16",
        log_every=500,
        save_every=250,
        keep_last=1,
        out=f"{runs}/{name}",
        device=device,
    )


def steps_within(name: str, seconds: float, device: str) -> int:
    """How many steps fit into this time, by the speed of 50 of them; a multiple of 500."""
    trial = replace(config_for(name, 60, device, ""), out=None, log_every=1000, save_every=1000)
    data, condition, marks = data_for(name), condition_for(name), []
    for steps in (3, 10, 60):  # the first wakes the GPU
        start = time.monotonic()
        train(replace(trial, steps=steps), data, net_for(name), condition)
        marks.append(time.monotonic() - start)
    speed = 50 / max(marks[2] - marks[1], 1e-3)
    print(f"{name}: {speed:.1f} steps/s", flush=True)
    return max(500, min(20_000, int(seconds * speed) // 500 * 500))


def card(name: str, assets: Path) -> str:
    """The model card of what lies in assets: data, command, seed, steps, device, scores."""
    trained = load_model(assets / name)
    config, last = trained.config, trained.history[-1]
    steps, reach, copies = int(last["step"]), SHIFT[name], (2 * SHIFT[name] + 1) ** 2
    extra = "condition_channels = 1" if name == "mnist-sr" else f"num_classes = {10 * StyleCells.count}, begun from the weights of `mnist`"
    hidden = "" if name == "mnist-sr" else f", labels hidden with probability {config['label_dropout']}"
    lines = [
        f"# Model card: {name}",
        "",
        "- Data: `mnist5k`, training part of the split with seed 0 (4,000 pictures), in all positions up to "
        f"{reach} pixel{'s' * (reach > 1)} away, {copies} for each.",
        f"- Network: `UNetConfig.mnist()` with {extra}, {sum(p.numel() for p in trained.net.parameters()):,} parameters, fp16, "
        f"predicts {trained.prediction}; {config['schedule']} schedule, T = {trained.schedule.T}.",
        f"- Command: `python benchmarks/editing_models.py {name} --steps {steps} --device {config['device']}`: {steps:,} steps of batch "
        f"{config['batch_size']} in {config['precision']}, seed {config['seed']}, EMA {config['ema_decay']}{hidden}.",
        f"- Loss at the end: training {last['loss']:.4f}, validation {last['val_loss']:.4f} (EMA weights, pictures not moved).",
        "",
        ABOUT[name],
        "",
        *scores(name, assets),
    ]
    return "\n".join(lines) + "\n"


def with_error(pair: list[float], digits: int = 2) -> str:
    """A mean with its standard error: "0.95 ± 0.01"."""
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"


def scores(name: str, assets: Path) -> list[str]:
    """The measured part of the card, from benchmarks/results/editing.json, if it was measured on these weights."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"weights": {}}
    if found["weights"].get(name) != load_tensors(assets / name, "model")[1]["sha256"][:6]:
        return ["(Not scored yet: python benchmarks/editing_scores.py.)"]
    head = f"n = {found['n']} held-out pictures; mean ± standard error. Its digit: in the eyes of the shipped MNIST classifier."
    again = f"`python benchmarks/editing_scores.py` measures it again. Weights `{found['weights'][name]}`."
    return [f"{head} {again}", "", *(sr_rows(found) if name == "mnist-sr" else style_rows(found))]


def sr_rows(found: dict[str, Any]) -> list[str]:
    """PSNR and the classifier's opinion: floors without a network, the network, and the truth as the ceiling."""
    ways = {f"network, {key}": found["resolved"][key] for key in ("mean of 1", "mean of 4")}
    ways |= {"repeated pixels": found["enlarge nearest"], "bicubic": found["enlarge bicubic"]}
    ways |= {"unconditional network with an edit": found["enlarge guided 1"], "the true picture": found["enlarge truth"]}
    rows = [
        f"| {way} | {with_error(row['psnr'], 1) if way != 'the true picture' else '–'} | {with_error(row['own_class'])} |"
        for way, row in ways.items()
    ]
    return ["| 7x7 -> 28x28, DDIM, 20 steps | PSNR, dB | its digit |", "|---|---|---|", *rows]


def style_rows(found: dict[str, Any]) -> list[str]:
    """Thin upright digits rewritten as bold slanted ones by inversion."""
    keys = ("thickness", "slant", "bold", "slanted", "own_class", "distance")
    ways = {"thin upright digits": found["style before"]["thin upright"], "real bold slanted digits": found["style before"]["bold slanted"]}
    ways |= {f"rewritten, 40 steps, scale {k}": found[f"restyle 40 scale {k}"] for k in (1, 2, 3)}
    rows = [f"| {way} | {' | '.join(with_error(row[key]) if key in row else '–' for key in keys)} |" for way, row in ways.items()]
    titles = "thickness | slant, degrees | in the bold third | in the slanted third | its digit | distance"
    n = found["style before"]["thin upright"]["n"]
    return [f"| the {n} thin upright ones among them | {titles} |", "|---" * 7 + "|", *rows]


def fit(name: str, steps: int, device: str, runs: str) -> None:
    """Train, or go on where a run stopped."""
    torch.backends.cudnn.benchmark = True
    train(config_for(name, steps, device, runs), data_for(name), net_for(name), condition_for(name))


def ship(name: str, runs: str, assets: Path) -> None:
    """Write the averaged weights as fp16, and the card."""
    weights, meta = load_tensors(Path(runs) / name, "model")
    schedule = NoiseSchedule(weights.pop("schedule.beta"))
    net = UNet(NETS[name])
    net.load_state_dict(one_table(weights))
    save_model(assets / name, Trained(net, schedule, meta["prediction"], meta["config"], meta["history"]), half=True)
    write_atomic(assets / name / "README.md", card(name, assets).encode())
    print(f"{name}: {meta['history'][-1]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NETS)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seconds", type=float, default=0.0, help="choose the steps that fit into this time instead")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--ship", action="store_true", help="do not train")
    parser.add_argument("--card", action="store_true", help="only write the card of what is shipped, with its scores")
    args = parser.parse_args()
    if args.card:
        write_atomic(args.assets / args.name / "README.md", card(args.name, args.assets).encode())
        parser.exit()
    if not args.ship:
        steps = steps_within(args.name, args.seconds, args.device) if args.seconds else args.steps
        fit(args.name, steps, args.device, args.runs)
    ship(args.name, args.runs, args.assets)
