"""The shipped checkpoints' cards: measured from the weights that lie beside them, with n, floors and three seeds."""

import json
import re

import pytest
import torch

from ddpm_course import ddim_sample, load_model
from ddpm_course.checkpoint import ASSETS, load_classifier, load_tensors, rng
from ddpm_course.data import digits
from ddpm_course.guidance import batched_guidance
from ddpm_course.metrics import frechet_distance
from ddpm_course.prediction import clip_x_0

HELD_OUT = {"digits": 359, "mnist": 1000}
each_card = pytest.mark.parametrize("name", list(HELD_OUT))


def card(name: str) -> str:
    """The text of a card."""
    return (ASSETS / name / "README.md").read_text(encoding="utf-8")


def weights(name: str) -> str:
    """What the measurements depend on, as benchmarks/model_card.py writes it."""
    return "".join(load_tensors(ASSETS / name, part)[1]["sha256"][:6] for part in ("model", "classifier"))


def rows(text: str, score: str) -> list[list[str]]:
    """The cells of each table row of this score."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith(f"| {score} |")]


@each_card
def test_the_card_belongs_to_the_weights(name: str) -> None:
    assert f"`{weights(name)}`" in card(name), f"python benchmarks/train_shipped.py card {name}"


@each_card
def test_scores_come_with_n_a_floor_and_three_seeds(name: str) -> None:
    text = card(name)
    for score in (
        "Fréchet distance",
        "kernel distance",
        "precision",
        "recall",
        "class histogram chi-square",
        "distance to nearest training",
    ):
        found = rows(text, score)
        assert found
        for _, values, floor, n, _ in found:
            assert len(re.sub(r" \(p = .*\)", "", values).split(", ")) == 3 and int(n) == HELD_OUT[name]
            assert re.fullmatch(r"\S+ ± \S+ \(5\)", floor)
    assert all(len(re.search(r"p = (.*)\)", values)[1].split(", ")) == 3 for _, values, *_ in rows(text, "class histogram chi-square"))
    bits = re.search(r"\*\*([\d., ]+)\*\* \(seeds 0, 1, 2; n = (\d+) held-out .*Floor, as many training pictures: ([\d., ]+)\.", text)
    assert len(bits[1].split(", ")) == len(bits[3].split(", ")) == 3 and int(bits[2]) == HELD_OUT[name]


@each_card
def test_samples_are_near_the_floor_and_the_classes_even(name: str) -> None:
    """Fréchet distance at most three floors, chi-square of the classes not significant at 1 %: for every seed, by DDIM in 50 steps."""
    _, values, floor, _, _ = rows(card(name), "Fréchet distance")[0]
    assert all(float(value) <= 3 * float(floor.split()[0]) for value in values.split(", "))
    _, values, *_ = rows(card(name), "class histogram chi-square")[0]
    assert all(float(p) >= 0.01 for p in re.search(r"p = (.*)\)", values)[1].split(", "))


def test_quality_against_steps_was_measured_on_these_weights() -> None:
    """benchmarks/quality_against_steps.py: every sampler, three seeds, the largest n; one entry is measured again."""
    report = json.loads((ASSETS / "digits" / "quality.json").read_text(encoding="utf-8"))
    assert report["weights"] == weights("digits") and report["n"] == 359 and len(report["floors"]) >= 4
    assert {"DDPM, beta~", "DDPM, beta", "DDIM", "Heun", "2M"} == set(report["frechet_distance"])
    assert all(len(seeds) == 3 for table in report["frechet_distance"].values() for seeds in table.values())
    data, trained, features = digits(), load_model(ASSETS / "digits"), load_classifier("digits").features
    x = ddim_sample(
        clip_x_0(trained.eps_model(), trained.schedule),
        trained.schedule,
        (359, 1, 8, 8),
        num_steps=5,
        generator=torch.Generator().manual_seed(0),
    )
    again = frechet_distance(features(x), features(torch.cat([data.val.images, data.test.images])))
    assert again == pytest.approx(report["frechet_distance"]["DDIM"]["5"][0], rel=0.02)


def test_guidance_scales_were_measured_on_these_weights() -> None:
    """benchmarks/guidance_scales.py: the class asked for, in the eyes of a classifier that took no part; one entry is measured again."""
    report = json.loads((ASSETS.parents[1] / "benchmarks" / "results" / "guidance_scales.json").read_text(encoding="utf-8"))
    own = load_tensors(ASSETS / "digits-classes", "model")[1]["sha256"][:6] + load_tensors(ASSETS / "digits", "classifier")[1]["sha256"][:6]
    assert report["weights"] == own and f"`{own}`" in card("digits-classes")
    assert report["n"] == 359 and len(report["seeds"]) == 3 and {len(floors) for floors in report["floors"].values()} == {5}
    found = {key: dict(zip(report["scales"], report[key], strict=True)) for key in ("asked_for", "frechet_distance", "precision", "recall")}
    assert min(found["asked_for"][2.0]) >= 0.95 and abs(sum(found["asked_for"][0.0]) / 3 - 0.1) < 0.03  # 10 classes, label ignored
    assert max(found["recall"][2.0]) < min(found["recall"][1.0]) and min(found["precision"][2.0]) > max(found["precision"][1.0])
    data, trained, eyes = digits(), load_model(ASSETS / "digits-classes"), load_classifier("digits")
    images, y = torch.cat([data.val.images, data.test.images]), torch.cat([data.val.labels, data.test.labels])
    model = batched_guidance(trained.net, trained.schedule, {"y": y}, {"y": torch.tensor([10])}, 1.0, trained.prediction)
    x = ddim_sample(clip_x_0(model, trained.schedule), trained.schedule, (359, 1, 8, 8), num_steps=15, generator=rng(0, 17))
    again = frechet_distance(eyes.features(x), eyes.features(images))
    assert again == pytest.approx(found["frechet_distance"][1.0][0], rel=0.02)
