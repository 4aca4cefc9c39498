"""Measure the networks of chapter 20 from their shipped weights: python benchmarks/series_scores.py

Writes benchmarks/results/series.json and the model cards. Each measurement goes to runs/series-scores/ at once: a run that was
stopped goes on. `--only fill-48` measures one thing, `--device cuda` does it on a GPU
(samples from the same noise; gaps from other noise, so their numbers agree within the standard errors).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from model_card import once
from series_cards import SHIPPED, write_card, write_report
from torch import Tensor

from ddpm_course import ExactGaussian, dpm_solver_sample, load_model, time_grid
from ddpm_course.checkpoint import ASSETS, Trained, rng
from ddpm_course.forward import q_sample
from ddpm_course.metrics import class_test, two_sample_test
from ddpm_course.models.transformer import polynomials, strongest_waves
from ddpm_course.series import DAY, HOURS, PITCHES, RATE, held_out_weeks, impute, load_strings, load_weeks, plucked, weakest_morning, weeks
from ddpm_course.series_stats import (
    autocorrelation,
    bootstrap_band,
    crps,
    flat,
    order_band,
    power,
    seasonal_naive,
    shares_below,
    spectral_distance,
    straight_lines,
)

N, SERIES, STEPS, LAGS = 1000, 200, 50, 84
LEVELS = torch.arange(1, 20, dtype=torch.float64) / 20
GAPS = {"fill-6": (72, 78), "fill-24": (60, 84), "forecast-24": (144, 168)}
KINDS = {"autocorrelation": lambda x: autocorrelation(x, LAGS)[:, 1:], "spectrum": power, "mean by the hour": flat}
Numbers = dict[str, Any]


def draw_samples(trained: Trained, n: int, seed: int, device: str) -> Tensor:
    """n samples by DPM-Solver++(2M) on times that are dense near 0, in batches."""
    schedule = trained.schedule.to(device)
    model = Trained(trained.net.to(device), schedule, trained.prediction).eps_model()
    shape = (trained.net.config.body if hasattr(trained.net.config, "body") else trained.net.config).length
    start = torch.randn(n, 1, shape, generator=rng(seed, 20))
    grid = time_grid(schedule.T, STEPS, "quadratic")
    return torch.cat([dpm_solver_sample(model, schedule, x_T=part.to(device), grid=grid).cpu() for part in start.split(500)])


class Data:
    """Everything that is measured against: training weeks for rulers, test weeks for scores, and their best Gaussian."""

    def __init__(self) -> None:
        splits = load_weeks()
        self.train, self.test = splits.train.images, splits.test.images
        x = flat(self.train)
        self.mean = x.mean(0)
        self.gaussian = ExactGaussian(self.mean[None], torch.cov(x.T))
        self.levels = torch.quantile(flat(self.train[:4000]).flatten()[::7], LEVELS)
        kinds = KINDS | {"marginals": lambda x: shares_below(x, self.levels)}
        self.kinds: dict[str, Callable[[Tensor], Tensor]] = kinds

    def likeness(self, x: Tensor, seed: int) -> Numbers:
        """Shares of lags, frequencies, quantiles and hours inside 95 % bands, two-sample accuracy, share of holidays."""
        out: Numbers = {}
        for name, kind in self.kinds.items():
            rows, mine = kind(self.test), kind(x)
            bands = [bootstrap_band(rows, len(x), 0.95, together, generator=rng(seed, 21)) for together in (False, True)]
            out[name] = [band.share_inside(mine) for band in bands]
        test = two_sample_test(x.flatten(1), self.test.flatten(1), seed)
        holidays = float((weakest_morning(x) > 1.6).double().mean())
        return out | {"two-sample accuracy": test.accuracy, "p": test.p_value, "holidays": holidays}


def curves_of(data: Data, x: Tensor) -> Numbers:
    """The mean autocorrelation, log-spectrum and marginals, for figures."""
    return {name: [round(v, 5) for v in data.kinds[name](x).mean(0).tolist()] for name in ("autocorrelation", "spectrum", "marginals")}


def generation(data: Data, trained: Trained, device: str) -> Numbers:
    """Two sets of N samples against the test weeks."""
    sets = [draw_samples(trained, N, seed, device) for seed in (0, 1)]
    again = autocorrelation(sets[0][:100], LAGS).mean(0)
    first = {"std": float(sets[0][:100].std()), "autocorrelation": [float(again[k]) for k in (1, 12, 24)]}
    return {"likeness": [data.likeness(x, seed) for seed, x in enumerate(sets)], "curves": curves_of(data, sets[0]), "first 100": first}


def rulers(data: Data) -> Numbers:
    """The same for fresh simulated weeks (the floor) and for the Gaussian of the same mean and covariance; the data's own curves."""
    fresh = [weeks(N, rng(seed, 22)).curves for seed in range(5)]
    normal = [data.gaussian.sample(N, rng(seed, 23)).float() for seed in range(2)]
    return {
        "fresh": [data.likeness(x, seed) for seed, x in enumerate(fresh)],
        "gaussian": [data.likeness(x, seed) for seed, x in enumerate(normal)],
        "gaussian curves": curves_of(data, normal[0]),
        "data curves": curves_of(data, data.test),
        "bands": {name: bands_of(data, name) for name in ("autocorrelation", "spectrum", "marginals")},
        "holidays": float((weakest_morning(data.test) > 1.6).double().mean()),
    }


def bands_of(data: Data, name: str) -> Numbers:
    """The 95 % bands (each number for itself, and all together) for figures."""
    rows, out = data.kinds[name](data.test), {}
    for label, together in (("each", False), ("together", True)):
        band = bootstrap_band(rows, N, 0.95, together, generator=rng(0, 21))
        out[label] = [[round(v, 5) for v in side.tolist()] for side in (band.low, band.high)]
    return out


def graded(guess: Tensor, truth: Tensor) -> Numbers:
    """Mean absolute error (with its standard error over series) and root mean square error of guess (n, U)."""
    each = (guess - truth).abs().mean(1)
    return {
        "mae": float(each.mean()),
        "mae_error": float(each.std()) / len(each) ** 0.5,
        "rmse": float((guess - truth).square().mean().sqrt()),
    }


def graded_draws(draws: Tensor, truth: Tensor) -> Numbers:
    """The median's errors, CRPS and the coverage of the 80 % band of draws (m, n, U)."""
    low, high = order_band(draws)
    each = ((truth >= low) & (truth <= high)).double().mean(1)
    found = crps(draws, truth).mean(1)
    numbers = graded(draws.median(0).values, truth) | {"crps": float(found.mean()), "crps_error": float(found.std()) / len(found) ** 0.5}
    return numbers | {
        "coverage": float(each.mean()),
        "coverage_error": float(each.std()) / len(each) ** 0.5,
        "width": float((high - low).mean()),
    }


class Walk(NamedTuple):
    """How gaps are filled: draws for each week, times, repetitions and length of a stretch, and whether the network computes in bf16."""

    draws: int = 19
    num_steps: int = 50
    resamplings: int = 10
    jump: int = 5
    half: bool = False


SHORT = Walk(9, 30, 8, 4, half=True)  # a quarter of the arithmetic; bf16 is off by less than 0.01 in v


def fill(data: Data, trained: Trained, device: str, gap: tuple[int, int], walk: Walk) -> Numbers:
    """Completions of the first test weeks with this gap, by the network and by rulers."""
    mask, n = torch.ones(HOURS, dtype=torch.bool), SERIES
    mask[slice(*gap)] = False
    known, truth = data.test[:n], flat(data.test[:n])[:, ~mask]
    schedule = trained.schedule.to(device)
    model = Trained(trained.net.to(device), schedule, trained.prediction).eps_model()
    many = known.repeat(walk.draws, 1, 1).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=walk.half):
        drawn = impute(model, schedule, many, mask.to(device), *walk[1:4], generator=rng(0, 24, device=device)).cpu()
    exact = torch.equal(drawn[..., mask], many.cpu()[..., mask])
    draws = drawn[:, 0, ~mask].double().unflatten(0, (walk.draws, n))
    given = [data.gaussian.given(mask[None], x) for x in known]
    normal = torch.stack([law.sample(walk.draws, rng(k, 25))[:, 0, ~mask] for k, law in enumerate(given)], dim=1)
    out = {
        "n": n,
        "walk": walk,
        "known points exact": exact,
        "network": graded_draws(draws, truth),
        "gaussian": graded_draws(normal, truth),
    }
    out["gaussian mean"] = graded(torch.stack([law.mean[0, ~mask] for law in given]), truth)
    out["mean of the hour"] = graded(data.mean[~mask].expand_as(truth), truth)
    out["straight line"] = graded(flat(straight_lines(known, mask))[:, ~mask], truth)
    out["day before"] = graded(flat(seasonal_naive(known, mask, DAY))[:, ~mask], truth)
    return out


def correlation(a: Tensor, b: Tensor) -> float:
    """Mean over series of the correlation over hours of (n, L) with (n, L)."""
    a, b = (v - v.mean(1, keepdim=True) for v in (flat(a), flat(b)))
    return float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)).mean())


def against_truth(trend: Tensor, season: Tensor, n: int) -> Numbers:
    """How well a trend and a season agree with what n test weeks were made of."""
    truth = held_out_weeks()
    slow, wanted = truth.trend[:n], truth.season[:n]
    wander = slow + truth.weather[:n]
    error = lambda a, b: float((flat(a) - flat(b)).square().mean().sqrt())  # noqa: E731
    return {
        "trend": correlation(trend, slow),
        "trend + weather": correlation(trend, wander),
        "season": correlation(season, wanted),
        "trend rmse": error(trend, slow),
        "season rmse": error(season, wanted),
    }


def moving_average(x: Tensor) -> tuple[Tensor, Tensor]:
    """The classical decomposition: mean over 24 hours as trend, then mean by the hour of the day as season."""
    x = flat(x)
    padded = torch.cat([x[:, :1].expand(-1, 12), x, x[:, -1:].expand(-1, 11)], dim=1)
    trend = padded.unfold(1, DAY, 1).mean(2)
    return trend, (x - trend).unflatten(1, (7, DAY)).mean(1).repeat(1, 7)


def after_the_fact(x: Tensor, degree: int, top_k: int) -> tuple[Tensor, Tensor]:
    """The best polynomial, then the strongest waves of what is left: no network."""
    x, basis = flat(x), polynomials(HOURS, degree)
    trend = x @ basis.T @ basis
    return trend, strongest_waves(x - trend, top_k)


def decomposition(data: Data, trained: Trained, device: str, n: int = 500) -> Numbers:
    """Trend and season that the network finds in noisy test weeks, against the truth; what each part holds; and rulers."""
    net, schedule, x_0 = trained.net.to(device), trained.schedule.to(device), data.test[:n].to(device)
    eps, out = torch.randn(x_0.shape, generator=rng(0, 26)).to(device), {"n": n}
    for t in (10, 100, 300, 600):
        parts = net.parts(q_sample(schedule, x_0, t, eps), torch.full((n,), t, device=device))
        trend, season, rest = (part.cpu()[:, 0] for part in parts)
        out[f"t = {t}"] = against_truth(trend, season, n) | {"spread": [float(part.std()) for part in (trend, season, rest)]}
    config = trained.net.config
    return out | {
        "moving average": against_truth(*moving_average(data.test[:n]), n),
        "polynomial, then waves": against_truth(*after_the_fact(data.test[:n], config.degree, config.top_k), n),
        "mean by the hour of the week": against_truth(flat(data.test[:n]), (data.mean - data.mean.mean()).expand(n, -1), n),
    }


def pitch_of(x: Tensor) -> Tensor:
    """Fundamental frequency in Hz (N,): the highest peak of the autocorrelation, read 16 times finer, between 200 and 480 Hz."""
    spectrum = torch.fft.rfft(flat(x), n=2 * x.shape[-1]).abs().square()
    fine = torch.fft.irfft(spectrum, n=16 * 2 * x.shape[-1])  # zeros above: more points on the same curve
    lags = torch.arange(16 * RATE // 480, 16 * RATE // 200)
    return 16 * RATE / lags[fine[:, lags].argmax(1)].double()


def in_tune(x: Tensor) -> tuple[float, Tensor]:
    """Share of sounds within 20 cents of one of the eight pitches, and the nearest pitch of each (N,)."""
    cents = 1200 * (pitch_of(x)[:, None] / torch.tensor(PITCHES, dtype=torch.float64)).log2().abs()
    return float((cents.amin(1) < 20).double().mean()), cents.argmin(1)


def sound(trained: Trained, device: str) -> Numbers:
    """Spectrum, pitches and a two-sample test of N waves against the test part; the floor is fresh data, and halves of the test part."""
    test, out = load_strings(0, (1, 1, 2_000)).test, {"n": N}
    sets = {"network": [draw_samples(trained, N, seed, device) for seed in (0, 1)]}
    sets["fresh"] = [plucked(N, rng(seed, 27))[0] for seed in range(5)]
    loudness = lambda x: (power(x) + 1e-6).log()  # noqa: E731
    for name, drawn in sets.items():
        tuned = [in_tune(x) for x in drawn]
        out[name] = {
            "distance": [spectral_distance(x, test.images) for x in drawn],
            "in tune": [share for share, _ in tuned],
            "p of pitches": [class_test(note, test.labels).p_value for _, note in tuned],
            "two-sample accuracy": [two_sample_test(loudness(x), loudness(test.images), seed).accuracy for seed, x in enumerate(drawn)],
        }
        out[name]["spectrum"] = [float(f"{v:.3g}") for v in power(drawn[0]).mean(0).tolist()]
    halves = [torch.randperm(len(test.images), generator=rng(seed, 28)).chunk(2) for seed in range(5)]
    out["halves"] = [spectral_distance(test.images[a], test.images[b]) for a, b in halves]
    out["test in tune"], out["test spectrum"] = in_tune(test.images)[0], [float(f"{v:.3g}") for v in power(test.images).mean(0).tolist()]
    return out


ALL = ("series", "series-parts", "series-two-parts", "series-parts-square")  # the last two are ablations and are not shipped
NAMES = ["rulers", *(f"generation {name}" for name in ALL), *(f"parts {name}" for name in ALL[1:]), *GAPS]
NAMES += ["fill-24 series-parts", "waves"]


def tasks(folder: Path, device: str) -> dict[str, Callable[[], Numbers]]:
    """Name -> measurement; what it needs is loaded when it is called."""
    data: list[Data] = []

    def weeks_data() -> Data:
        if not data:
            data.append(Data())
        return data[0]

    load = lambda name: load_model(folder / name)  # noqa: E731
    found = {"rulers": lambda: rulers(weeks_data())}
    for name in ALL:
        if (folder / name / "model.json").exists():
            found[f"generation {name}"] = lambda name=name: generation(weeks_data(), load(name), device)
            if name != "series":
                found[f"parts {name}"] = lambda name=name: decomposition(weeks_data(), load(name), device)
    for name in GAPS:
        found[name] = lambda name=name: fill(weeks_data(), load("series"), device, GAPS[name], SHORT)
    found["fill-24 series-parts"] = lambda: fill(weeks_data(), load("series-parts"), device, GAPS["fill-24"], Walk())
    return found | {"waves": lambda: sound(load("waves"), device)}


def main() -> None:
    """Measure what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of measurements")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--models", type=Path, default=ASSETS)
    parser.add_argument("--cache", type=Path, default=Path("runs/series-scores"))
    args = parser.parse_args()
    for name, measure in tasks(args.models, args.device).items():
        if args.only is None or name in args.only:
            once(args.cache / f"{name.replace(' ', '_')}.json", measure)
    if args.only is None:
        report = write_report(args.cache, NAMES)
        for name in SHIPPED:
            write_card(name, report)


if __name__ == "__main__":
    main()
