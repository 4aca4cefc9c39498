"""What chapter 21 reports, measured from the shipped weights: python benchmarks/latent_scores.py [--device cuda] [--times]

Writes benchmarks/results/latent.json. Each measurement goes to runs/latent-CHECKSUM/ at once: a run that was stopped goes on. --times
also measures seconds on this machine (processor time of one thread, all networks in turn, medians); without it those of the last run stay.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from model_card import SOME_TIMES, held_out, once
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course import UNet, UNetConfig, clip_x_0, cosine_schedule, ddim_sample, load_model, normal_log_prob
from ddpm_course.checkpoint import ASSETS, Trained, load_classifier, load_tensors, rng, write_atomic
from ddpm_course.data import load
from ddpm_course.elbo import prior_term, vlb_term
from ddpm_course.latent import load_codec
from ddpm_course.likelihood import ImportanceTimes
from ddpm_course.losses import diffusion_loss
from ddpm_course.metrics import class_test, frechet_distance, precision, recall
from ddpm_course.models import ConvVAE, ConvVAEConfig
from ddpm_course.variance import eps_moments, optimal_variance

LATENT, PIXEL, STEPS, SURE, ROUNDS = "mnist-latent", "mnist-pixel", 25, 0.9, 5
KINDS = ("reconstruction", "normal", "fitted", "latent", "mnist", "pixel")
FEW = 100  # pictures of the pixel models, which take long; the others are scored at this n, too
OUT = Path(__file__).parent / "results" / "latent.json"


def checksum() -> str:
    """What the measurements depend on: autoencoder, DDPM, pixel models, ruler."""
    parts = ((LATENT, "vae"), (LATENT, "model"), (PIXEL, "model"), ("mnist", "model"), ("mnist", "classifier"))
    return "".join(load_tensors(ASSETS / folder, part)[1]["sha256"][:4] for folder, part in parts)


class Ruler:
    """Held-out pictures, the classifier that took no part in any training here, and all that is to be compared."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.splits, self.eyes = device, load("mnist5k"), load_classifier("mnist")
        self.codec, self.images = load_codec(ASSETS / LATENT), held_out(self.splits)
        self.real, self.seen = self.eyes.features(self.images), self.eyes(self.images).argmax(1)

    def sample(self, name: str, seed: int, clip: bool, n: int) -> Tensor:
        """n samples of a shipped model, DDIM; the noise is drawn on the CPU, the same on every device."""
        trained = load_model(ASSETS / name)
        net, schedule = trained.net.to(self.device), trained.schedule.to(self.device)
        model = Trained(net, schedule, trained.prediction).eps_model()
        config = trained.net.config
        x_T = torch.randn(n, config.channels, config.image_size, config.image_size, generator=rng(seed, 17))
        model = clip_x_0(model, schedule) if clip else model
        sizes = 250 if self.device == "cpu" else n
        return torch.cat([ddim_sample(model, schedule, x_T=x.to(self.device), num_steps=STEPS).cpu() for x in x_T.split(sizes)])

    def pictures(self, kind: str, seed: int) -> Tensor:
        """As many pictures as are held out, of one kind; fewer of what takes long."""
        n, noise = FEW if kind in ("pixel", "mnist") else len(self.images), rng(seed, 18)
        z = torch.randn(n, *self.codec.vae.config.latent_shape, generator=noise)
        if kind == "reconstruction":
            return self.codec.decode(self.codec.encode(self.images, noise))
        if kind == "normal":  # the prior of the plain VAE
            return torch.cat([self.codec.vae.decode(part) for part in z.split(250)])
        if kind == "fitted":  # a normal law with the latents' own mean and standard deviation in each channel
            return self.codec.decode(z)
        if kind == "latent":
            return self.codec.decode(self.sample(LATENT, seed, False, n))
        return self.sample({"pixel": PIXEL}.get(kind, kind), seed, True, n)

    def accepted(self, x: Tensor) -> float:
        """Share in which the classifier sees one digit with a probability of at least SURE."""
        return float((self.eyes(x).softmax(1).amax(1) >= SURE).float().mean())

    def score(self, x: Tensor) -> dict[str, Any]:
        """Share accepted, distance, precision, recall, and the classes drawn against those seen in held-out pictures."""
        features, classes = self.eyes.features(x), self.eyes(x).argmax(1)
        test = class_test(classes, self.seen) if len(x) > FEW else None
        numbers: dict[str, Any] = {"n": len(x), "accepted": self.accepted(x), "frechet_distance": frechet_distance(features, self.real)}
        numbers |= {"precision": precision(self.real, features), "recall": recall(self.real, features)}
        return numbers | {"chi2": float(test) if test else None, "p_value": test.p_value if test else None,
                          "classes": classes.bincount(minlength=10).tolist()}  # fmt: skip

    @torch.no_grad()
    def measure(self, kind: str, seed: int) -> dict[str, Any]:
        """The scores of one kind and seed."""
        x = self.pictures(kind, seed)
        extra = {"square_error": float((x - self.images).square().mean())} if kind == "reconstruction" else {}
        return self.score(x) | extra | {"few": self.score(x[:FEW])}

    @torch.no_grad()
    def floor(self, seed: int) -> dict[str, Any]:
        """The scores of training pictures in the place of samples."""
        order = torch.randperm(len(self.splits.train.images), generator=rng(seed, 19))
        x = self.splits.train.images[order[: len(self.images)]]
        return self.score(x) | {"few": self.score(x[:FEW])}


@torch.no_grad()
def two_stage_bound(ruler: Ruler, terms: int = 4) -> dict[str, Any]:
    """Both stages of the bound on held-out pictures, in nats a picture, with three priors of the latent: normal, fitted, DDPM."""
    codec, meta = ruler.codec, load_tensors(ASSETS / LATENT, "vae")[1]
    trained, generator = load_model(ASSETS / LATENT), rng(0, 20)
    mean, var = codec.posterior(ruler.images)
    z = mean + var.sqrt() * torch.randn(mean.shape, generator=generator)
    total = lambda x: x.flatten(1).sum(1)  # noqa: E731
    std = codec.std.reshape(1, -1, 1, 1)
    nll = {
        "normal": -total(normal_log_prob(z * std + codec.mean.reshape(1, -1, 1, 1), 0.0, 1.0) + std.log()),
        "fitted": -total(normal_log_prob(z, 0.0, 1.0)),
        "ddpm": ddpm_bound(trained, codec.encode(ruler.splits.train.images, generator), z, terms),
    }
    entropy = total(0.5 * (2 * math.pi * math.e * var).log())
    reconstruction = -total(normal_log_prob(ruler.images, codec.decode(z), meta["variance"]))
    report: dict[str, Any] = {"n": len(z), "terms": terms, "variance": meta["variance"]}
    report |= {"reconstruction": float(reconstruction.mean()), "entropy": float(entropy.mean())}
    report["cross_entropy"] = {name: float(value.mean()) for name, value in nll.items()}
    report["error"] = {name: float(value.std()) / len(value) ** 0.5 for name, value in nll.items()}
    return report


def ddpm_bound(trained: Trained, train: Tensor, z: Tensor, terms: int) -> Tensor:
    """The bound of chapter 05 on -log p(z), (B,), from `terms` times each, drawn by importance; best scalar variance."""
    model, schedule = trained.eps_model(), trained.schedule
    variance = optimal_variance(schedule, eps_moments(model, schedule, train[:128], SOME_TIMES, rng(0, 21)).error)
    times, t = ImportanceTimes(schedule.T, history=2), torch.arange(schedule.T) + 1
    for k in range(2):
        x = train[torch.randperm(len(train), generator=rng(0, 22, k))[: len(t)]]
        times.update(t, vlb_term(model, schedule, x, t, torch.randn(x.shape, generator=rng(0, 23, k)), variance))
    p, generator, noise = times.probabilities(), rng(0, 24), lambda: torch.randn(z.shape, generator=generator)
    p[0] = 0.0  # t = 1, the reconstruction of the latent, is counted for every picture
    p, total = p / p.sum(), prior_term(schedule, z) + vlb_term(model, schedule, z, 1, noise(), variance)
    for _ in range(terms):
        k = torch.multinomial(p, len(z), replacement=True, generator=generator)
        total = total + vlb_term(model, schedule, z, k + 1, noise(), variance) / p[k] / terms
    return total


def flops(call: Callable[[], Any]) -> float:
    """Multiplications and additions of a call, counted and not run where the tensors are on the device "meta"."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops())


def of_net(config: UNetConfig, size: int, device: str = "meta") -> float:
    """FLOPs of one call of this U-Net on one picture of this size."""
    with torch.device(device):
        net = UNet(replace(config, image_size=size, pad=True)).eval()
        x, t = torch.zeros(1, config.channels, size, size), torch.ones(1, dtype=torch.long)
    return flops(lambda: net(x, t))


def of_decoder(config: ConvVAEConfig) -> float:
    """FLOPs of decoding one latent."""
    with torch.device("meta"):
        vae, z = ConvVAE(config), torch.zeros(1, *config.latent_shape)
    return flops(lambda: vae.decode(z))


def count_flops() -> dict[str, Any]:
    """Of the shipped networks; and of larger ones, at 256 and 512 pixels and factor 8, that nobody runs here."""
    nets = {name: load_model(ASSETS / name).net.config for name in (LATENT, PIXEL, "mnist")}
    codec = load_codec(ASSETS / LATENT).vae.config
    report: dict[str, Any] = {"shipped": {name: of_net(config, config.image_size) for name, config in nets.items()}}
    report["shipped"]["decoder"] = of_decoder(codec)
    report["large"] = []
    for size in (256, 512):
        autoencoder = ConvVAEConfig(image_size=size, channels=3, base_channels=128, multipliers=(1, 2, 4, 4), groups=32)
        same = lambda s, c: of_net(replace(UNetConfig(), channels=c, attention_sizes=(s // 8,)), s)  # noqa: E731
        row = {"size": size, "latent": same(size // 8, 4), "same_in_pixels": same(size, 3)}
        row["paper_in_pixels"] = of_net(UNetConfig.celebahq(), size)
        report["large"].append(row | {"decoder": of_decoder(autoencoder)})
    return report


def training_step(net: nn.Module, batch: int) -> Callable[[], None]:
    """One step of Algorithm 1 on noise; what the data are does not change its time."""
    schedule, config = cosine_schedule(1000), net.config
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-6, fused=True)
    x, t = torch.randn(batch, config.channels, config.image_size, config.image_size), torch.full((batch,), 500)

    def step() -> None:
        """Forward, backward, update."""
        loss = diffusion_loss(net, schedule, x, t, torch.randn_like(x), "v").mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure_times(batch: int = 16) -> dict[str, Any]:
    """Median processor seconds of a network call, a training step and a decoding, all in turn, on one thread."""
    torch.set_num_threads(1)
    jobs: dict[str, Callable[[], Any]] = {}
    for name in (LATENT, PIXEL, "mnist"):
        net = load_model(ASSETS / name).net
        x, t = torch.randn(batch, net.config.channels, net.config.image_size, net.config.image_size), torch.full((batch,), 500)
        jobs[f"call {name}"] = torch.no_grad()(lambda net=net, x=x, t=t: net(x, t))
        jobs[f"step {name}"] = training_step(load_model(ASSETS / name).net.requires_grad_(True).train(), batch)
    codec = load_codec(ASSETS / LATENT)
    z, x = torch.randn(batch, *codec.vae.config.latent_shape), torch.zeros(batch, 1, 28, 28)
    jobs |= {"decode": lambda: codec.decode(z), "encode": lambda: codec.encode(x)}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for k in range(ROUNDS + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if k:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return {"batch": batch, "threads": 1, "rounds": ROUNDS, "seconds": {name: statistics.median(s) for name, s in seconds.items()}}


def write_cards() -> None:
    """The model cards of both checkpoints, from latent.json if it belongs to the weights."""
    from latent_cards import card_of_latent, card_of_pixel

    report = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {"weights": ""}
    report = report if report["weights"] == checksum() else None
    write_atomic(ASSETS / LATENT / "README.md", card_of_latent(report).encode())
    write_atomic(ASSETS / PIXEL / "README.md", card_of_pixel(report).encode())


def main() -> None:
    """Measure what is missing, then write the report and the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    ruler, weights, seeds = Ruler(args.device), checksum(), list(range(args.seeds))
    folder = Path("runs") / f"latent-{weights}"
    report: dict[str, Any] = {
        "weights": weights,
        "sampler": f"DDIM, {STEPS} steps",
        "n": len(ruler.images),
        "seeds": seeds,
        "sure": SURE,
        "few": FEW,
    }
    report["real"] = {"accepted": ruler.accepted(ruler.images)}
    report["floors"] = once(folder / "floors.json", lambda: [ruler.floor(seed) for seed in range(5)])
    for kind in KINDS:
        report[kind] = [once(folder / f"{kind}-{seed}.json", lambda k=kind, s=seed: ruler.measure(k, s)) for seed in seeds]
    report["bound"] = once(folder / "bound.json", lambda: two_stage_bound(ruler))
    report["flops"] = once(folder / "flops.json", count_flops)
    old = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    report["times"] = measure_times() if args.times else old.get("times")
    write_atomic(OUT, (json.dumps(report, indent=1) + "\n").encode())
    write_cards()
    print(f"wrote {OUT.name}")


if __name__ == "__main__":
    main()
