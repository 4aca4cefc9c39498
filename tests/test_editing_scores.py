"""benchmarks/results/editing.json: measured on the shipped weights, one entry of each kind again, and what chapter 19 says of it."""

import json

import pytest
import torch

from ddpm_course import clip_x_0, ddim_sample, load_model
from ddpm_course.checkpoint import ASSETS, load_classifier, load_tensors
from ddpm_course.data import mnist5k
from ddpm_course.editing import enlarge, low_pass, psnr
from ddpm_course.strokes import StyleCells, slant, thickness

REPORT = json.loads((ASSETS.parents[1] / "benchmarks" / "results" / "editing.json").read_text(encoding="utf-8"))
PARTS = mnist5k()
X, Y = (torch.cat(parts) for parts in zip(PARTS.val, PARTS.test, strict=True))
RESOLVED = REPORT["resolved"]


def own_class(x: torch.Tensor) -> float:
    """Share of pictures that the shipped classifier puts into the held-out digits' own classes."""
    return float((load_classifier("mnist")(x).argmax(1) == Y[: len(x)]).float().mean())


def test_all_was_measured_on_the_shipped_weights() -> None:
    for name in ("mnist", "mnist-sr", "mnist-styles"):
        assert REPORT["weights"][name] == load_tensors(ASSETS / name, "model")[1]["sha256"][:6]
        card = (ASSETS / name / "README.md").read_text(encoding="utf-8")
        assert f"`{REPORT['weights'][name]}" in card and "Not scored" not in card
    assert REPORT["missing"] == [] and REPORT["n"] == len(X) == 1000


@pytest.mark.parametrize("way", ["nearest", "bicubic"])
def test_enlarging_without_a_network_again(way: str) -> None:
    x = enlarge(low_pass(X, 4), 4, way).clamp(-1, 1)
    assert float(psnr(x, X).mean()) == pytest.approx(REPORT[f"enlarge {way}"]["psnr"][0], abs=0.01)
    assert own_class(x) == pytest.approx(REPORT[f"enlarge {way}"]["own_class"][0], abs=0.003)


def test_the_super_resolution_network_again() -> None:
    trained, some = load_model(ASSETS / "mnist-sr"), X[:32]
    model = clip_x_0(trained.eps_model(condition=enlarge(low_pass(some, 4), 4)), trained.schedule)
    draw = ddim_sample(model, trained.schedule, some.shape, num_steps=20, generator=torch.Generator().manual_seed(0))
    decibels = psnr(draw, some)
    assert abs(float(decibels.mean()) - RESOLVED["mean of 1"]["psnr"][0]) < 4 * float(decibels.std()) / 32**0.5
    assert own_class(draw) > 0.85


def test_super_resolution_beats_bicubic_and_a_draw_has_more_error_than_the_mean() -> None:
    bicubic, nearest, truth = (REPORT[f"enlarge {way}"] for way in ("bicubic", "nearest", "truth"))
    draw, mean = RESOLVED["mean of 1"], RESOLVED["mean of 4"]
    assert bicubic["psnr"][0] > nearest["psnr"][0] and bicubic["own_class"][0] < nearest["own_class"][0]
    assert draw["psnr"][0] > bicubic["psnr"][0] + 3 and draw["own_class"][0] > 0.9 and truth["own_class"][0] > 0.97
    assert mean["psnr"][0] > draw["psnr"][0] and 1.3 < draw["mse"][0] / mean["mse"][0] < 2 / (1 + 1 / 4) + 0.1


def test_resampling_joins_the_halves_and_more_steps_do_not() -> None:
    found = {plan: REPORT[f"inpaint {plan}"] for plan in ("real", "r1", "r2", "r5", "r10", "slow")}
    assert all(found[plan]["known_exact"] for plan in ("r1", "r2", "r5", "r10", "slow"))
    for key, sign in (("own_class", 1), ("seam", -1)):
        values = [sign * found[plan][key][0] for plan in ("r1", "r2", "r5", "r10")]
        assert values == sorted(values)
    assert found["slow"]["own_class"][0] < found["r2"]["own_class"][0] < found["real"]["own_class"][0]
    assert found["r10"]["seam"][0] < found["real"]["seam"][0] + 0.02


def test_more_strength_forgets_the_class() -> None:
    kept = [sum(REPORT[f"sdedit {s} seed {k}"]["own_class"][0] for k in (0, 1, 2)) / 3 for s in (0.5, 0.7, 0.8, 0.9)]
    assert kept == sorted(kept, reverse=True) and kept[0] > 0.95 and kept[-1] < 0.45


def test_thin_upright_digits_become_bold_and_slanted_and_stay_themselves() -> None:
    chosen = StyleCells(*PARTS.train)(X, Y) == 0
    before = REPORT["style before"]["thin upright"]
    assert before["n"] == int(chosen.sum()) > 100
    assert float(thickness(X[chosen]).mean()) == pytest.approx(before["thickness"][0], abs=0.01)
    assert float(slant(X[chosen]).mean()) == pytest.approx(before["slant"][0], abs=0.05)
    mild, strong = REPORT["restyle 40 scale 1"], REPORT["restyle 40 scale 3"]
    assert mild["thickness"][0] > before["thickness"][0] + 0.4 and mild["own_class"][0] > 0.9 and mild["distance"][0] < 0.4
    assert strong["bold"][0] > 0.95 and strong["slanted"][0] > 0.85 and strong["own_class"][0] > 0.95
    noise, anew = REPORT["restyle noise 0.9"], REPORT["restyle noise 1.0"]  # as far from the input, and not as bold; drawn anew
    assert strong["distance"][0] < noise["distance"][0] + 0.03 < anew["distance"][0] and noise["both"][0] < strong["both"][0] / 2
    assert anew["own_class"][0] > 0.9 and anew["slanted"][0] > 0.8
    errors = [REPORT[f"restyle {steps} scale 1"]["there and back"][0] for steps in (10, 20, 40)]
    assert errors == sorted(errors, reverse=True)
