"""The model cards of chapter 21, from the checkpoints' own records and from latent.json."""

from typing import Any

from ddpm_course import load_model
from ddpm_course.checkpoint import ASSETS, load_tensors
from ddpm_course.latent import load_codec

NAMES = {
    "reconstruction": "held-out digits, encoded and decoded (the ceiling)",
    "normal": "decoded from N(0, I), the plain VAE",
    "fitted": "decoded from a normal law with each channel's mean and spread",
    "latent": "decoded from the latent DDPM",
    "pixel": "the same network on pixels (`mnist-pixel`)",
    "floors": "floor",
    "mnist": "the shipped `mnist`, 2x2 patches, its own training",
}


def shown(values: list[float], spec: str = ".3g") -> str:
    """Three seeds: "1.2, 1.3, 1.1"."""
    return ", ".join(format(value, spec) for value in values)


def table(report: dict[str, Any] | None, kinds: list[str]) -> list[str]:
    """Scores of these kinds, with n and floor."""
    if report is None:
        return ["(Not scored yet: python benchmarks/latent_scores.py.)"]
    few = any(report[kind][0]["n"] == report["few"] for kind in kinds)
    rows_of = lambda kind: [row["few"] if few else row for row in report[kind]]  # noqa: E731
    keys = ["accepted", "frechet_distance", "precision", "recall", *([] if few else ["chi2"])]
    values = lambda kind: " | ".join(shown([row[key] for row in rows_of(kind)]) for key in keys)  # noqa: E731
    rows = [f"| {NAMES[kind]} | {rows_of(kind)[0]['n']} | {values(kind)} |" for kind in [*kinds, "floors"]]
    return [
        f"One value a seed; {report['sampler']}. Accepted: share in which the shipped `mnist` "
        f"classifier sees a digit with a probability of at least {report['sure']}; of held-out digits {report['real']['accepted']:.3f}. "
        "Distance, precision and recall in its features, against all held-out pictures. Chi-square: classes drawn against those seen in "
        "held-out pictures, 9 degrees of freedom. Floor: training pictures in the place of samples, five draws. "
        f"Measured on weights `{report['weights']}` by `python benchmarks/latent_scores.py`.",
        "",
        f"| | n | accepted | Fréchet distance | precision | recall |{'' if few else ' class chi-square |'}",
        f"|---|---|---|---|---|---|{'' if few else '---|'}",
        *rows,
    ]


def described(name: str, command: str) -> list[str]:
    """Network, command and last losses of a checkpoint."""
    trained = load_model(ASSETS / name)
    config, last = trained.config, trained.history[-1]
    return [
        f"- Network: `UNet`, {sum(p.numel() for p in trained.net.parameters()):,} parameters, fp16, predicts {trained.prediction}; "
        f"{config['schedule']} schedule, T = {trained.schedule.T}.",
        f"- Command: `python benchmarks/latent_train.py {command} --device {config['device']} --steps {int(last['step'])}`: batch "
        f"{config['batch_size']}, seed {config['seed']}, {config['precision']}, EMA {config['ema_decay']}, no augmentation.",
        f"- Loss at the end: training {last['loss']:.4f}, validation {last['val_loss']:.4f} (EMA weights).",
    ]


def card_of_latent(report: dict[str, Any] | None) -> str:
    """README.md of mnist-latent."""
    folder = ASSETS / "mnist-latent"
    meta, codec = load_tensors(folder, "vae")[1], load_codec(folder)
    seen = meta["validation"]
    lines = [
        "# Model card: mnist-latent",
        "",
        "A convolutional autoencoder (`vae`) and a DDPM on its latents (`model`). The DDPM's samples are latents: decode them with",
        '`load_codec(shipped("mnist-latent")).decode(z)`.',
        "",
        "## Autoencoder",
        "",
        "- Data: `mnist5k`, training part of the split with seed 0, no augmentation.",
        f"- Network: `ConvVAE`, {sum(p.numel() for p in codec.vae.parameters()):,} parameters, fp16; (1, 28, 28) to "
        f"{tuple(codec.vae.config.latent_shape)}. Bound of chapter 04 with decoder variance {meta['variance']}.",
        f"- Command: `python benchmarks/latent_train.py vae --device {meta['device']} --steps {meta['steps']}`: "
        f"batch {meta['batch']}, seed {meta['seed']}.",
        f"- Validation (n = {seen['n']}): square error a pixel {seen['square_error']:.4f}, KL to N(0, I) {seen['rate']:.0f} nats, "
        f"standard deviation of the latents {seen['std']:.2f}, of q(z given x) {seen['std_of_q']:.2f}.",
        "",
        "## DDPM",
        "",
        "- Data: 8 draws from q(z given x) for each training picture, standardised by channel.",
        *described("mnist-latent", "latent"),
        "",
        "Meant for learning and tests. It draws digits in the style of its data, and nothing else.",
        "",
        "## Scores",
        "",
        *table(report, ["reconstruction", "normal", "fitted", "latent"]),
    ]
    return "\n".join(lines) + "\n"


def card_of_pixel(report: dict[str, Any] | None) -> str:
    """README.md of mnist-pixel."""
    lines = [
        "# Model card: mnist-pixel",
        "",
        "The network of `mnist-latent` on the pictures themselves, trained with more arithmetic than its autoencoder and its DDPM",
        "together: what latent diffusion is compared with in chapter 21. To draw digits, take `mnist`.",
        "",
        "- Data: `mnist5k`, training part of the split with seed 0.",
        *described("mnist-pixel", "pixel"),
        "",
        "## Scores",
        "",
        *table(report, ["pixel", "latent", "mnist"]),
    ]
    return "\n".join(lines) + "\n"
