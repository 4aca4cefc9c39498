"""The report series.json and the model cards of chapter 20, from the measurements of series_scores.py."""

import json
from pathlib import Path
from typing import Any

from ddpm_course import load_model
from ddpm_course.checkpoint import ASSETS, load_tensors, write_atomic

OUT = Path(__file__).parent / "results" / "series.json"
SHIPPED = ("series", "series-parts", "waves")
KINDS = ("autocorrelation", "spectrum", "marginals", "mean by the hour")
NETWORKS = {
    "series": "`Transformer(TransformerConfig())`",
    "series-parts": "`PartsTransformer(PartsConfig(rest=True))`, positions begun with loudness 0.02",
    "waves": "`Transformer(TransformerConfig(length=512, patch=32))`",
}
DATA = {
    "series": "65,536 weeks of hourly load, *simulated* (`ddpm_course.series.load_weeks`, seed 0)",
    "series-parts": "65,536 weeks of hourly load, *simulated* (`ddpm_course.series.load_weeks`, seed 0)",
    "waves": "32,768 plucked strings of 512 samples at 4 kHz, *simulated* (`ddpm_course.series.load_strings`, seed 0)",
}


def weights_of(folder: Path, name: str) -> str:
    """The start of the checksum of a network."""
    return str(load_tensors(folder / name, "model")[1]["sha256"][:12])


def write_report(cache: Path, names: list[str]) -> dict[str, Any]:
    """Everything that was measured, in one file, with the checksums of the shipped weights."""
    found = {name: json.loads(path.read_text()) for name in names if (path := cache / f"{name.replace(' ', '_')}.json").exists()}
    report = {"weights": {name: weights_of(ASSETS, name) for name in SHIPPED}, "n": 1000, "held out": 2000, "sampler": SAMPLER} | found
    write_atomic(OUT, (json.dumps(report) + "\n").encode())
    return report


SAMPLER = "DPM-Solver++(2M), 50 quadratic times"


def listed(values: list[float], spec: str = ".2f") -> str:
    """ "0.51, 0.52"."""
    return ", ".join(format(value, spec) for value in values)


def likeness(report: dict[str, Any], name: str) -> list[str]:
    """Shares inside bands, two-sample accuracy and holidays, beside fresh weeks and the best Gaussian."""
    rows = {
        name: report[f"generation {name}"]["likeness"],
        "floor: fresh simulated weeks": report["rulers"]["fresh"],
        "best Gaussian": report["rulers"]["gaussian"],
    }
    return [
        f"n = 1,000 samples a seed, {SAMPLER}, against 2,000 held-out weeks. Share of the numbers inside the 95 % band for each "
        "(in brackets: inside the band for all together), bootstrapped from both sides. Forest: accuracy of a two-sample test, 0.5 is "
        f"chance. Holidays: share of weeks with a weak morning, {report['rulers']['holidays']:.2f} of held-out weeks.",
        "",
        f"| | {' | '.join(KINDS)} | forest | holidays |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {label} | "
            + " | ".join(f"{listed([run[kind][0] for run in runs])} ({listed([run[kind][1] for run in runs])})" for kind in KINDS)
            + f" | {listed([run['two-sample accuracy'] for run in runs])} | {listed([run['holidays'] for run in runs])} |"
            for label, runs in rows.items()
        ),
    ]


def gaps(report: dict[str, Any], suffix: str = "") -> list[str]:
    """Errors of gaps and forecasts beside those of the opponents."""
    names = ("network", "gaussian", "mean of the hour", "day before", "straight line")
    tasks = [name for name in report if name.startswith(("fill", "forecast")) and name.endswith("parts") == bool(suffix)]
    return [
        "",
        "Gaps and forecasts by `impute`, n = 200 held-out weeks: draws a week, mean absolute error of the median draw, CRPS and the "
        "coverage of the 80 % band (network; best Gaussian).",
        "",
        f"| hours | draws | {' | '.join(names)} | CRPS | coverage |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {task.removesuffix(suffix)} | {report[task]['walk'][0]} | "
            + " | ".join(f"{report[task][name]['mae']:.3f}" for name in names)
            + "".join(f" | {report[task]['network'][key]:.3f}; {report[task]['gaussian'][key]:.3f}" for key in ("crps", "coverage"))
            + " |"
            for task in tasks
        ),
    ]


def parts(report: dict[str, Any]) -> list[str]:
    """Correlation of the parts with the truth."""
    found = report["parts series-parts"]
    return [
        "",
        f"Correlation of the parts with the true ones over the hours, mean over n = {found['n']} held-out weeks seen with noise of time t, "
        "and of methods without a network on the clean weeks.",
        "",
        "| | trend | trend + weather | season |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['trend']:.2f} | {row['trend + weather']:.2f} | {row['season']:.2f} |"
            for name, row in found.items()
            if name != "n"
        ),
    ]


def sound(report: dict[str, Any]) -> list[str]:
    """Spectrum, pitch and two-sample test of the strings."""
    found = report["waves"]
    rows = {"waves": found["network"], "floor: fresh strings": found["fresh"]}
    return [
        f"n = 1,000 samples a seed, {SAMPLER}, against 2,000 held-out strings. Distance of the mean spectra in dB, root mean square over "
        f"frequencies (halves of the held-out strings: {listed(found['halves'])}). In tune: within 20 cents of one of the four pitches. "
        "Forest: two-sample test on log spectra. p: the four pitches are as frequent as in the data.",
        "",
        "| | distance, dB | in tune | forest | p |",
        "|---|---|---|---|---|",
        *(
            f"| {label} | {listed(run['distance'])} | {listed(run['in tune'])} | {listed(run['two-sample accuracy'])} | "
            f"{listed(run['p of pitches'], '.2g')} |"
            for label, run in rows.items()
        ),
    ]


def write_card(name: str, report: dict[str, Any]) -> None:
    """The model card of a shipped network."""
    trained = load_model(ASSETS / name)
    config, last = trained.config, trained.history[-1]
    measured = {
        "series": lambda: likeness(report, name) + gaps(report),
        "series-parts": lambda: likeness(report, name) + parts(report) + gaps(report, " series-parts"),
        "waves": lambda: sound(report),
    }[name]()
    loss = " the loss with a spectrum of weight 0.05 and min-SNR weights," if name == "series-parts" else ""
    card = [
        f"# Model card: {name}",
        "",
        f"- Data: {DATA[name]}. Nobody measured them.",
        f"- Network: {NETWORKS[name]}, {sum(p.numel() for p in trained.net.parameters()):,} parameters, fp16, predicts "
        f"{trained.prediction}; {config['schedule']} schedule, T = {trained.schedule.T}.",
        f"- Command: `python benchmarks/series_models.py train {name} --steps {int(last['step'])} --device {config['device']}`: batch "
        f"{config['batch_size']}, seed {config['seed']},{loss} EMA {config['ema_decay']}.",
        f"- Loss at the end: training {last['loss']:.4f}, validation {last['val_loss']:.4f} (EMA weights, plain square error).",
        "",
        "Meant for learning and tests. It draws curves in the style of its simulated data, and nothing else.",
        "",
        f"`python benchmarks/series_scores.py` measures all of it again. Measured on weights `{report['weights'][name]}`.",
        "",
        *measured,
    ]
    write_atomic(ASSETS / name / "README.md", ("\n".join(card).rstrip() + "\n").encode())
