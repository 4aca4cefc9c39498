"""Make the networks of chapter 18 (hours on a CPU, minutes on a GPU), each by one command:

python benchmarks/train_captions.py judge       # the ruler: tells layout, digits, colours and sizes of real pictures
python benchmarks/train_captions.py words       # the text-to-image network: every pixel looks at every word
python benchmarks/train_captions.py pooled      # the comparison: the words reach it as one vector
python benchmarks/train_captions.py card        # the model card, from benchmarks/results/text_scores.json

Add --device cuda on a GPU. --out is where the weights go; a run that was stopped goes on in runs/.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_course import TrainConfig, load_model, train
from ddpm_course.canvas import Sources, caption_condition, captioned, render
from ddpm_course.captions import agreement, canonical, draw_scenes
from ddpm_course.checkpoint import ASSETS, load_tensors, rng, save_model, save_tensors, write_atomic
from ddpm_course.data import Split, mnist5k
from ddpm_course.models import SceneJudge, TextUNet, TextUNetConfig
from ddpm_course.pictures import to_float

PICTURES, STEPS, JUDGE_STEPS, JUDGE_BATCH = 160_000, 20_000, 4000, 256
RECIPE = TrainConfig(
    data="captions",
    steps=STEPS,
    batch_size=32,
    lr=1.5e-3,
    warmup=500,
    final_lr=0.02,
    ema_decay=0.9995,
    label_dropout=0.1,
    precision="bf16",
    log_every=1000,
    save_every=1000,
    keep_last=1,
)


def network(name: str, start: Path | None = None, loud: bool = False) -> TextUNet:
    """The network, or its comparison without words to choose from; same size, same first weights (or those in the folder `start`).

    loud: of `start`, everything but the vectors of the places, which began too quiet once.
    """
    torch.manual_seed(0)
    net = TextUNet(TextUNetConfig(pooled=name == "pooled"))
    if start:
        fresh = net.text.places.data.clone()
        net.load_state_dict(load_model(start).net.state_dict())
        net.text.places.data.copy_(fresh if loud else net.text.places.data)
    return net


def fit(name: str, config: TrainConfig, pictures: int, out: Path, net: TextUNet) -> None:
    """Train, and put the averaged weights as fp16 into the folder `out`."""
    trained = train(config, captioned(pictures), net, caption_condition(config.label_dropout))
    save_model(out, load_model(config.out), half=True)
    print(name, trained.history[-1], flush=True)


def steps_within(seconds: float, name: str, config: TrainConfig, pictures: int) -> int:
    """How many steps fit into so many seconds, in hundreds, tried on a few."""
    data = captioned(min(pictures, 20 * config.batch_size))
    for steps in (20, 60):
        start = time.monotonic()
        train(replace(config, steps=steps, out=None, log_every=10**6), data, network(name), caption_condition())
    return max(100, math.floor(seconds * 60 / (time.monotonic() - start) / 100) * 100)


def warped(digits: Split, copies: int, generator: torch.Generator) -> Split:
    """Each digit in a few copies, turned, sheared and scaled a little: the judge should not learn 4,000 digits by heart."""
    images, labels = digits.images.repeat(copies, 1, 1, 1), digits.labels.repeat(copies)
    angle, shear, wide, high = (
        (2 * torch.rand(4, len(images), generator=generator) - 1) * torch.tensor([[0.2], [0.2], [0.1], [0.1]])
    ).unbind()
    rows = [torch.stack([(1 + wide) * angle.cos(), shear - angle.sin()], 1), torch.stack([angle.sin(), (1 + high) * angle.cos()], 1)]
    matrix = F.pad(torch.stack(rows, 1), (0, 1))
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return Split(F.grid_sample(images + 1, grid, align_corners=False) - 1, labels)


def judge_loss(net: SceneJudge, x: Tensor, scenes: Tensor) -> Tensor:
    """Cross entropies of all columns; those of a second thing that is not there do not count."""
    return sum(
        F.cross_entropy(logits, column, ignore_index=-1, label_smoothing=0.05) for logits, column in zip(net(x), scenes.T, strict=True)
    )


def train_judge(out: Path, steps: int, pictures: int, device: str) -> None:
    """Fit the judge on pictures of all combinations, made of training digits; save it with its accuracy on others."""
    generator = rng(1, 0)
    scenes = draw_scenes(pictures, generator, held_out=None)
    images = render(scenes, Sources(warped(mnist5k().train, 8, generator)), generator).to(device)
    wanted = canonical(scenes).to(device)
    torch.manual_seed(1)
    net = SceneJudge().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        i = torch.randint(len(images), (JUDGE_BATCH,), generator=generator).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = judge_loss(net.train(), to_float(images[i]), wanted[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 500 == 0:
            print("judge", step, loss.item(), flush=True)
    net = net.cpu().half().float()
    meta = {"steps": steps, "batch": JUDGE_BATCH, "pictures": pictures, "seed": 1, "device": device} | judged_real(net)
    save_tensors(out, "judge", {key: x.half() for key, x in net.state_dict().items()}, meta)
    print(meta, flush=True)


def judged_real(net: SceneJudge, n: int = 4000) -> dict[str, object]:
    """What the judge sees in n real pictures of all combinations, made of digits of the test part; of validation digits, too."""
    found: dict[str, object] = {"n": n}
    for part in ("val", "test"):
        generator = rng(1, 1)
        scenes = draw_scenes(n, generator, held_out=None)
        images = to_float(render(scenes, Sources(getattr(mnist5k(), part)), generator))
        seen = torch.cat([net.see(x) for x in images.split(500)])
        found[f"{part}_accuracy"] = {key: round(value, 4) for key, value in agreement(scenes, seen).items()}
    return found


CARD = """# Model card: captions

- Data: `captioned({pictures:,})` of `ddpm_course/canvas.py`: real digits of `mnist5k` (training part), coloured, in two sizes,
  one or two on a canvas. A sixth of the combinations of digit, colour and size never occurs in training.
- Network: `TextUNetConfig()`, {parameters:,} parameters with its text encoder, fp16, predicts {prediction}; {schedule} schedule, T = {T}.
- Command: `python benchmarks/train_captions.py words --device {device} --steps {steps}`: {done:,} of {steps:,} steps of batch {batch},
  seed {seed}, bf16, EMA {ema}, captions hidden with probability {hidden}.
- Where it began: the first run (`words`, 20,000 steps planned) had vectors of the places that began with standard deviation 0.02. It bound
  no order (half of the pairs exchanged) and was stopped at step 8,000. From there `--start FOLDER --loud` went on with fresh ones, of
  standard deviation 1, as the encoder begins now. The command above, from scratch, was not run.
- Loss at the end: training {loss:.4f}, validation {val_loss:.4f} (EMA weights; combinations and digits never trained on).
- Judge: `python benchmarks/train_captions.py judge --device {judge_device} --steps {judge_steps}`: {judge_steps:,} steps of batch
  {judge_batch}, seed 1, on pictures of all combinations made of training digits. On {judge_n:,} real pictures made of test digits:
  {judge_accuracy}.

Meant for learning and tests. It draws digits on a black canvas, knows {words} words, and nothing else.

`python benchmarks/text_scores.py` measures the rest again. Measured on weights `{weights}`.

## {sampler}

{table}

Count, layout and all (everything right): share of the pictures. Digit, colour and size: share of the things asked for.
Held-out combinations never occurred in training. Chance: guesses that know how often each answer occurs, but not the caption.
Ceiling: the judge on real pictures of the held-out captions, made of digits that were never trained on. Pooled: a network of the
same size whose words reach it as one vector (`train_captions.py pooled --start FOLDER --loud`), from the same step 8,000 and for
{pooled_steps:,} steps; "every word, as many steps as pooled" is the network itself at that moment.
"""


def write_card(out: Path, report: Path) -> None:
    """The model card, from the weights beside it and the scores."""
    trained, (_, judge), scores = load_model(out), load_tensors(out, "judge"), json.loads(report.read_text())
    config, keys = trained.config, ("count", "layout", "digit", "colour", "size", "all")
    lines = ["| | scale | n | " + " | ".join(keys) + " |", "|" + "---|" * (3 + len(keys))]
    for name, scale, n, found in [
        ("chance", "–", "–", scores["chance"]),
        *((row["name"], f"{row['scale']:g}", row["n"], row["scores"]) for row in scores["rows"]),
        ("ceiling", "–", scores["n"], scores["ceiling"]),
    ]:
        lines.append(f"| {name} | {scale} | {n} | " + " | ".join(f"{found[key]:.3f}" for key in keys) + " |")
    text = CARD.format(
        pictures=PICTURES,
        parameters=sum(p.numel() for p in trained.net.parameters()),
        prediction=trained.prediction,
        schedule=config["schedule"],
        T=config["num_timesteps"],
        device=config["device"],
        steps=config["steps"],
        done=trained.history[-1]["step"],
        batch=config["batch_size"],
        seed=config["seed"],
        ema=config["ema_decay"],
        hidden=config["label_dropout"],
        loss=trained.history[-1]["loss"],
        val_loss=trained.history[-1]["val_loss"],
        judge_device=judge["device"],
        judge_steps=judge["steps"],
        judge_batch=judge["batch"],
        judge_n=judge["n"],
        judge_accuracy=", ".join(f"{key} {value}" for key, value in judge["test_accuracy"].items()),
        words=trained.net.config.vocabulary - 2,
        weights=scores["weights"],
        pooled_steps=scores["steps"].get("pooled, held-out combinations", 0),
        sampler=scores["sampler"],
        table="\n".join(lines),
    )
    write_atomic(out / "README.md", text.encode())


def main() -> None:
    """Read the command line, and do that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("judge", "words", "pooled", "card"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=ASSETS / "captions")
    parser.add_argument("--start", type=Path, help="the folder of a model to go on from, instead of fresh weights")
    parser.add_argument("--loud", action="store_true", help="with --start: fresh vectors of the places")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seconds", type=float, help="instead of --steps: as many as fit into this time, and write the number to --agree")
    parser.add_argument("--agree", type=Path, help="without --seconds: wait for this file, and take the number of steps from it")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--batch", type=int, default=RECIPE.batch_size)
    args = parser.parse_args()
    torch.backends.cuda.enable_cudnn_sdp(False)  # its plans do not fit captions of one word
    if args.what == "judge":
        train_judge(args.out, args.steps or JUDGE_STEPS, args.pictures, args.device)
    elif args.what == "card":
        write_card(args.out, Path(__file__).parent / "results" / "text_scores.json")
    else:
        config = replace(RECIPE, batch_size=args.batch, device=args.device, out=f"runs/captions-{args.what}")
        config = replace(config, steps=agreed_steps(args, config))
        fit(args.what, config, args.pictures, args.out, network(args.what, args.start, args.loud))


def agreed_steps(args: argparse.Namespace, config: TrainConfig) -> int:
    """The number of steps: as asked, or as fits, or as the other process found (both try, so that both see the same load)."""
    if args.steps:
        return args.steps
    if args.seconds:
        steps = steps_within(args.seconds, args.what, config, args.pictures)
        write_atomic(args.agree, f"{steps}\n".encode())
        return steps
    if args.agree:
        steps_within(1, args.what, config, args.pictures)
        while not args.agree.exists():
            time.sleep(0.2)
        return int(args.agree.read_text())
    return STEPS


if __name__ == "__main__":
    main()
