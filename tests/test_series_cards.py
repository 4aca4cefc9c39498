"""The shipped networks of chapter 20: their cards and their report belong to the weights, with n, floors and rulers."""

import json
from pathlib import Path

import pytest
import torch

from ddpm_course import load_model, q_sample
from ddpm_course.checkpoint import ASSETS, load_tensors
from ddpm_course.series import held_out_weeks

REPORT = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "series.json").read_text(encoding="utf-8"))
each = pytest.mark.parametrize("name", ["series", "series-parts", "waves"])


@each
def test_the_card_and_the_report_belong_to_the_weights(name: str) -> None:
    weights = load_tensors(ASSETS / name, "model")[1]["sha256"][:12]
    card = (ASSETS / name / "README.md").read_text(encoding="utf-8")
    assert REPORT["weights"][name] == weights and f"`{weights}`" in card, "python benchmarks/series_scores.py"
    steps = int(load_model(ASSETS / name).history[-1]["step"])
    assert f"series_models.py train {name} --steps {steps}" in card and "*simulated*" in card and "floor" in card


def test_three_small_networks() -> None:
    assert sum(file.stat().st_size for name in ("series", "series-parts", "waves") for file in (ASSETS / name).iterdir()) < 5_000_000


def test_the_report_has_n_floors_and_rulers() -> None:
    assert (
        REPORT["n"] == 1000
        and REPORT["fill-24"]["n"] >= 200
        and len(REPORT["rulers"]["fresh"]) == 5
        and len(REPORT["waves"]["halves"]) == 5
    )
    for fresh in REPORT["rulers"]["fresh"]:
        assert all(fresh[kind][1] > 0.9 for kind in ("autocorrelation", "spectrum", "marginals"))
    for task in ("fill-6", "fill-24", "forecast-24"):
        found = REPORT[task]
        assert found["known points exact"] and found["network"]["mae"] < min(
            found[ruler]["mae"] for ruler in ("straight line", "day before")
        )
        assert 0.6 < found["network"]["coverage"] < 0.9


@torch.no_grad()
def test_the_shipped_network_knows_its_weeks() -> None:
    """Its error in x_0 at t = 100 is under a sixth of what the mean week leaves."""
    trained, weeks = load_model(ASSETS / "series"), held_out_weeks(0, 64).curves
    eps = torch.randn(weeks.shape, generator=torch.Generator().manual_seed(0))
    x_t, t = q_sample(trained.schedule, weeks, 100, eps), torch.full((64,), 100)
    bar = trained.schedule.at(100)
    guess = bar**0.5 * x_t - (1 - bar) ** 0.5 * trained.net(x_t, t)
    assert float((guess - weeks).square().mean()) < float(weeks.var(0).mean()) / 6
