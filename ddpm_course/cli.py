"""The command line: python -m ddpm_course train | sample | evaluate | export. What it refuses is one line on stderr and exit code 2."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from .checkpoint import Trained, find_checkpoint, load_classifier, load_tensors, rng, shipped, write_atomic
from .cli_train import Export, Train
from .data import check_images, load
from .errors import CheckpointError, ConfigError, CourseError, DataError, NonFiniteError, one_of
from .guidance import label_guided
from .latent import Codec, load_with_codec
from .prediction import EpsModel, as_eps_model, clip_x_0, compiled
from .sampling import Step, ddim_stepper, ddpm_stepper, time_grid, trajectory
from .schedule import NoiseSchedule
from .scores import common_n, evaluate
from .solvers import dpm_solver_stepper, heun_stepper, sigma_grid

DEFAULT_STEPS = {"ddpm": None, "ddim": 50, "heun": 18, "dpm": 20}  # None: all T
RULERS = {"digits": "digits", "mnist5k": "mnist"}  # data set -> the shipped classifier that has seen its training part
FRAMES = 32  # of the GIF, at most


class Command(Protocol):
    """One subcommand: a dataclass of its settings that knows how to run."""

    def run(self) -> None:
        """Do it, and say on stdout what was written."""


def free_folder(out: str, names: Sequence[str], overwrite: bool) -> Path:
    """The folder `out`, unless it already holds one of the files that are to be written and `overwrite` is off."""
    taken = [name for name in names if Path(out, name).exists()]
    if taken and not overwrite:
        raise CheckpointError(f"{out} already holds {', '.join(taken)}; choose another --out, or say --overwrite")
    return Path(out)


def as_json(report: dict[str, Any]) -> bytes:
    """A report as the bytes of a JSON file."""
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class Sample:
    """Draw pictures from a checkpoint into a folder: samples.safetensors, grid.png, trajectory.gif, report.json."""

    checkpoint: str = "digits"
    """A shipped name (digits, digits-classes, mnist, mnist-latent) or the folder of your own."""
    sampler: Literal["ddpm", "ddim", "heun", "dpm"] = "ddim"
    """Which way down."""
    steps: int | None = None
    """How many steps; by default all T for ddpm, 50 for ddim, 18 for heun, 20 for dpm."""
    n: int = 16
    """How many pictures."""
    label: int | None = None
    """For a network with classes: which one to draw; by default none is named."""
    scale: float = 1.0
    """With --label: how far it is exaggerated; 1 is the conditional model, 0 ignores the label."""
    seed: int = 0
    """The same seed gives the same pictures."""
    out: str = "samples"
    """The folder to write to."""
    eta: float = 0.0
    """Share of fresh noise, for ddim only: 0 is deterministic, 1 is DDPM's."""
    clip: bool = True
    """Hold the guess of x_0 in [-1, 1]."""
    batch_size: int = 256
    """Pictures at a time; part of what the seed determines."""
    device: str = "cpu"
    """Where the network runs, for instance cuda."""
    compile: bool = False
    """Compile the network first: a minute at the start, faster steps (CUDA graphs on a GPU)."""
    overwrite: bool = False
    """Replace files of an earlier run."""

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        one_of("sampler", self.sampler, DEFAULT_STEPS)
        for name in ("n", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.eta and self.sampler != "ddim":
            raise ConfigError(f"--eta belongs to ddim; {self.sampler} has none")
        if self.scale != 1 and self.label is None:
            raise ConfigError("--scale exaggerates a label: name one with --label")

    def walk(self, model: EpsModel, schedule: NoiseSchedule, generator: torch.Generator) -> tuple[Step, Tensor]:
        """The sampler's step, made afresh, and its time grid."""
        steps = (DEFAULT_STEPS[self.sampler] or schedule.T) if self.steps is None else self.steps
        if self.sampler == "heun":
            return heun_stepper(model, schedule), sigma_grid(schedule, steps)
        steppers = {
            "ddpm": lambda: ddpm_stepper(model, schedule, "posterior", generator),
            "ddim": lambda: ddim_stepper(model, schedule, self.eta, generator),
            "dpm": lambda: dpm_solver_stepper(model, schedule),
        }
        return steppers[self.sampler](), time_grid(schedule.T, steps)

    def draw(self, trained: Trained, codec: Codec | None = None) -> tuple[Tensor, list[Tensor], list[int]]:
        """All samples, the states of the first few on their way, and the times visited; latents are not clipped, and decoded at the end."""
        self.check()
        device, net = _device(self.device), trained.net.config
        trained = replace(trained, net=trained.net.to(device), schedule=trained.schedule.to(device))
        fast = compiled(trained.net.eval()) if self.compile else trained.net.eval()
        model = as_eps_model(fast, trained.schedule, trained.prediction)
        if self.label is not None:
            model = label_guided(fast, trained.schedule, self.label, net.num_classes, self.scale, trained.prediction)
        model = clip_x_0(model, trained.schedule) if self.clip and codec is None else model
        sizes = [min(self.batch_size, self.n - start) for start in range(0, self.n, self.batch_size)]
        done, frames, times = [], [], []
        with tqdm(disable=bool(os.environ.get("CI")), unit="step") as bar:
            for k, size in enumerate(sizes):
                generator = rng(self.seed, k)  # noise is drawn on the CPU: the same on every device
                x_T = torch.randn(size, net.channels, net.image_size, net.image_size, generator=generator)
                step, grid = self.walk(model, trained.schedule, generator)
                times = grid.tolist()
                bar.total = (len(times) - 1) * len(sizes)
                for t, x, _ in trajectory(step, x_T.to(device), grid):
                    frames += [x[:64].cpu()] if k == 0 else []
                    bar.update(t > 0)  # there is one more state than steps
                done.append(x.cpu())
        kept = torch.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().long().tolist()
        seen = codec.decode if codec else torch.Tensor.cpu
        return seen(torch.cat(done)), [seen(frames[i]) for i in kept], times

    def run(self) -> None:
        """Sample, then write four files, each at once; the report last."""
        from .images import gif_bytes, png_bytes

        self.check()
        names = ("samples.safetensors", "grid.png", "trajectory.gif", "report.json")
        folder, path = free_folder(self.out, names, self.overwrite), find_checkpoint(self.checkpoint)
        trained, codec = load_with_codec(path)
        samples, frames, grid = self.draw(trained, codec)
        if not bool(samples.isfinite().all()):
            raise NonFiniteError("the samples hold NaN or infinity; try more --steps, and keep --clip on")
        columns, scale = min(8, self.n), max(1, 112 // samples.shape[-1])
        write_atomic(folder / names[0], safetensors.torch.save({"samples": samples.contiguous()}))
        write_atomic(folder / names[1], png_bytes(samples[:64], columns, scale))
        write_atomic(folder / names[2], gif_bytes(frames, columns, max(1, scale // 2)))
        report = {"command": "sample", "settings": asdict(self) | {"steps": len(grid) - 1}, "times": grid}
        report |= {"shape": list(samples.shape), "prediction": trained.prediction, "trained": trained.config}
        report |= {"weights_sha256": json.loads((path / "model.json").read_bytes())["sha256"], "torch": torch.__version__}
        write_atomic(folder / names[3], as_json(report))
        print(f"wrote {', '.join(names)} to {folder}")


def _device(name: str) -> torch.device:
    """The device of this name, if this machine has it."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: this machine or this torch has none; take cpu") from error


def read_samples(path: str) -> Tensor:
    """Pictures (n, C, H, W) in [-1, 1] from a folder that `sample` wrote, or from a .safetensors file with a tensor "samples"."""
    file = Path(path, "samples.safetensors") if Path(path).is_dir() else Path(path)
    try:
        samples = safetensors.torch.load(file.read_bytes())["samples"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing; make it with: python -m ddpm_course sample --out {path}") from error
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f'{file} is no safetensors file with a tensor "samples": {error}') from error
    if samples.ndim != 4:
        raise DataError(f"{file} holds {tuple(samples.shape)}; pictures are (n, C, H, W)")
    return check_images(samples, str(file))


@dataclass(frozen=True)
class Evaluate:
    """Score samples, or a checkpoint, against held-out data: every score with n and its floor, as a table and in report.json."""

    samples: str | None = None
    """A folder that `sample` wrote, or a .safetensors file; instead of --checkpoint."""
    checkpoint: str | None = None
    """Draw from this checkpoint (a shipped name or a folder); instead of --samples."""
    data: Literal["digits", "mnist5k"] = "digits"
    """The data set to compare with."""
    n: int | None = None
    """How many samples and held-out pictures to compare; by default as many as both have."""
    seeds: int = 5
    """How often the floor is measured."""
    sampler: Literal["ddpm", "ddim", "heun", "dpm"] = "ddim"
    """For --checkpoint: which way down."""
    steps: int | None = None
    """For --checkpoint: how many steps."""
    seed: int = 0
    """For --checkpoint: the seed of the samples."""
    out: str = "evaluation"
    """The folder for report.json."""
    overwrite: bool = False
    """Replace the report of an earlier run."""

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        if (self.samples is None) == (self.checkpoint is None):
            raise ConfigError("give either --samples or --checkpoint, not both and not neither")
        if self.seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, got {self.seeds}: without a floor there is no score")

    def pictures(self, held_out: int) -> Tensor:
        """The samples to be scored, drawn if need be."""
        if self.samples is not None:
            return read_samples(self.samples)
        plan = Sample(sampler=self.sampler, steps=self.steps, n=self.n or held_out, seed=self.seed)
        return plan.draw(*load_with_codec(find_checkpoint(self.checkpoint)))[0]

    def run(self) -> None:
        """Score, print the table, write the report."""
        self.check()
        folder, splits = free_folder(self.out, ["report.json"], self.overwrite), load(self.data)
        held_out, ruler = torch.cat([splits.val.images, splits.test.images]), RULERS[self.data]
        common_n(self.n, held_out=held_out)  # before the samples are drawn
        net, card = load_classifier(ruler), load_tensors(shipped(ruler), "classifier")[1]
        result = evaluate(self.pictures(len(held_out)), splits.train.images, held_out, net.features, net, self.n, self.seeds)
        accuracy = f"held-out accuracy {card['test_accuracy']} (n = {card['n']})"
        print(f"{result}\nfeatures: the shipped {ruler} classifier, {accuracy}; floor: training against held-out {self.data}")
        report = {"command": "evaluate", "settings": asdict(self), "scores": [score.as_dict() for score in result]}
        report |= {"ruler": {"name": ruler, "accuracy": card["test_accuracy"], "n": card["n"]}, "torch": torch.__version__}
        write_atomic(folder / "report.json", as_json(report))


COMMANDS: dict[str, type[Command]] = {"train": Train, "sample": Sample, "evaluate": Evaluate, "export": Export}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run one command. 0 if all went well, 2 if something was refused, 130 after Ctrl-C."""
    import tyro

    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m ddpm_course", args=arguments).run()
    except CourseError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
