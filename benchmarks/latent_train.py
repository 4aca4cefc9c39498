"""The checkpoints of chapter 21: python benchmarks/latent_train.py vae, then the same with latent, pixel, ship.

vae      the autoencoder, 28x28 -> (4, 7, 7), and the codec that standardises its latents
latent   the DDPM on its latents
pixel    the same network on the pictures, with more arithmetic than both others together: the comparison
ship     fp16 weights into the package, and the model cards
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_course import TrainConfig, UNetConfig, train, vae_terms
from ddpm_course.checkpoint import ASSETS, load_classifier, load_model, rng, save_model
from ddpm_course.data import Splits, mnist5k
from ddpm_course.latent import encode_data, fit_codec, load_codec, save_codec
from ddpm_course.metrics import frechet_distance
from ddpm_course.models import ConvVAE, ConvVAEConfig

VARIANCE = 0.01  # of the decoder, for each pixel: the weight of the KL, if the squared error is halved and not divided by it
COPIES = 8  # draws from q(z | x) for each training picture
LATENT = replace(UNetConfig.mnist(), image_size=7, channels=4, patch_size=1, attention_sizes=(4,), pad=True)
PIXEL = replace(UNetConfig.mnist(), patch_size=1, attention_sizes=(14,))
STEPS = {"vae": 300, "latent": 14_000, "pixel": 303}
BATCH = {"vae": 64, "latent": 64, "pixel": 256}  # about as much arithmetic for pixels as autoencoder and latents together have


def config(name: str, steps: int, device: str) -> TrainConfig:
    """The settings of the DDPM in latent or in pixel space: the same network but for its input."""
    return TrainConfig(
        data="mnist5k" if name == "pixel" else "mnist5k, encoded by vae.json",
        net=PIXEL if name == "pixel" else LATENT,
        steps=steps,
        batch_size=BATCH[name],
        lr=2e-3,
        warmup=200,
        final_lr=0.02,
        ema_decay=0.998,
        precision="bf16",
        log_every=250,
        device=device,
    )


def fit_vae(images: Tensor, variance: float, steps: int, batch: int = BATCH["vae"]) -> ConvVAE:
    """The bound of chapter 04 with this variance of the decoder."""
    torch.manual_seed(0)
    generator, vae = rng(0, 1), ConvVAE(ConvVAEConfig()).to(images.device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        x = images[torch.randint(len(images), (batch,), generator=generator).to(images.device)]
        loss = vae_terms(vae, x, torch.randn(batch, *vae.config.latent_shape).to(x.device), variance).total().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 100 / variance)  # the bound grows like 1 / variance
        optimizer.step()
        scheduler.step()
        if step % 50 == 49 or step == steps - 1:
            print(f"vae {variance:g}: step {step + 1}, bound {float(loss.detach()):.1f} nats", flush=True)
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def vae_report(vae: ConvVAE, images: Tensor, variance: float) -> dict[str, Any]:
    """On held-out pictures: the KL in nats, the square error a pixel, the spread of the latents, and how sharp q(z | x) is."""
    codec = fit_codec(vae, images)
    eps = torch.randn(len(images), *vae.config.latent_shape, generator=rng(0, 32)).to(images.device)
    mean, var = vae.encode(images)
    terms = vae_terms(vae, images, eps, variance)
    seen, eyes = vae.decode(mean + var.sqrt() * eps), load_classifier("mnist").to(images.device)
    prior = vae.decode(torch.randn(eps.shape, generator=rng(0, 33)).to(images.device))
    real = eyes.features(images)
    looks = lambda x: {"accepted": sure(eyes, x), "frechet_distance": frechet_distance(eyes.features(x), real)}  # noqa: E731
    return {
        "variance": variance,
        "n": len(images),
        "rate": float(terms.prior.mean()),
        "square_error": float((seen - images).square().mean()),
        "std": float(codec.std.square().mean().sqrt()),
        "std_of_q": float(var.mean().sqrt()),
        "reconstructions": looks(seen),
        "standard_normal": looks(prior),
    }


def train_vae(out: Path, device: str, steps: int) -> None:
    """Fit the autoencoder and the codec; save both."""
    splits = mnist5k()
    images = splits.train.images.to(device)
    vae = fit_vae(images, VARIANCE, steps)
    report = vae_report(vae, splits.val.images.to(device), VARIANCE)
    codec = fit_codec(vae, images)
    meta = {
        "data": "mnist5k",
        "variance": VARIANCE,
        "steps": steps,
        "batch": BATCH["vae"],
        "seed": 0,
        "device": device,
        "validation": report,
    }
    save_codec(out, codec, meta, half=True)
    print(json.dumps(meta, indent=1), codec.mean, codec.std, flush=True)


def latents(out: Path, device: str) -> Splits:
    """Draws from q(z | x) for each picture, on the CPU."""
    codec = load_codec(out).to(device)
    splits = mnist5k()
    moved = Splits(*(part._replace(images=part.images.to(device)) for part in splits))
    encoded = encode_data(codec, moved, rng(0, 34, device=device), COPIES)
    return type(encoded)(*(part._replace(images=part.images.cpu()) for part in encoded))


def train_ddpm(name: str, out: Path, device: str, steps: int) -> None:
    """The DDPM in latent or pixel space; saved as fp16 in out/latent or out/pixel."""
    data = mnist5k() if name == "pixel" else latents(out, device)
    plan = config(name, steps, device)
    trained = train(replace(plan, steps=steps), data=data)
    trained.net.cpu()
    save_model(out / name, replace(trained, schedule=trained.schedule.to("cpu")), half=True)
    print(name, steps, trained.history[-1], flush=True)


def sure(eyes: torch.nn.Module, x: Tensor) -> float:
    """Share of pictures in which the classifier sees a digit with a probability of at least 0.9. A blank may pass, too."""
    return float((eyes(x).softmax(1).amax(1) >= 0.9).float().mean())


def ship(out: Path) -> None:
    """Codec and DDPM into assets/mnist-latent, the pixel model into assets/mnist-pixel, each with its card."""
    from latent_scores import write_cards

    for name, target in (("latent", "mnist-latent"), ("pixel", "mnist-pixel")):
        save_model(ASSETS / target, load_model(out / name), half=True)
    meta = json.loads((out / "vae.json").read_text(encoding="utf-8"))
    kept = {key: meta[key] for key in ("data", "variance", "steps", "batch", "seed", "device", "validation")}
    save_codec(ASSETS / "mnist-latent", load_codec(out), kept, half=True)
    write_cards()


def main() -> None:
    """Read the command line and do one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("vae", "latent", "pixel", "ship"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, help="instead of the recorded number")
    parser.add_argument("--out", type=Path, default=Path("runs/latent"))
    args = parser.parse_args()
    steps = STEPS if args.steps is None else dict.fromkeys(STEPS, args.steps)
    if args.what == "ship":
        ship(args.out)
    elif args.what == "vae":
        train_vae(args.out, args.device, steps["vae"])
    else:
        train_ddpm(args.what, args.out, args.device, steps[args.what])


if __name__ == "__main__":
    main()
