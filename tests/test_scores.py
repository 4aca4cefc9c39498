"""Scores with n and floor: nothing is printed without them, and laws that are equal score at the floor."""

import json

import pytest
import torch
from torch import Tensor

from ddpm_course import CourseError, FiniteData
from ddpm_course.checkpoint import load_classifier
from ddpm_course.data import digits
from ddpm_course.errors import ConfigError, DataError, NonFiniteError, ShapeError
from ddpm_course.scores import STATISTICS, Evaluation, Score, evaluate, memorising, score


def points(n: int, seed: int, shift: float = 0.0, dim: int = 3) -> Tensor:
    """n standard normal points, shifted."""
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) + shift


FAR = score("Fréchet distance", points(100, 0, 3.0), points(400, 1), points(120, 2), seeds=4)


def test_a_score_prints_its_n_and_its_floor_in_every_way() -> None:
    for text in (str(FAR), repr(FAR), f"{FAR}", f"{FAR:.1f}", "{:.4g}".format(FAR), str([FAR]), str(Evaluation((FAR,)))):  # noqa: UP032
        assert "100" in text and "floor" in text
    assert f"{FAR:.0f}".startswith("Fréchet distance 27 (n = 100, floor 0 ± 0 over 4 seeds)")


def test_a_score_without_n_or_floor_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        Score("x", 1.0)  # type: ignore[call-arg]
    with pytest.raises(DataError, match="needs its n"):
        Score("x", 1.0, 0, (0.1,))
    with pytest.raises(DataError, match="floor"):
        Score("x", 1.0, 10, ())
    with pytest.raises(NonFiniteError):
        Score("x", float("nan"), 10, (0.1,))


def test_floor_is_the_same_statistic_of_training_against_held_out_at_the_same_n() -> None:
    seen: list[tuple[int, int]] = []

    def spy(real: Tensor, other: Tensor) -> float:
        seen.append((len(real), len(other)))
        return float(other.mean())

    train, held_out = points(300, 1, 5.0), points(80, 2)
    result = score("mean", points(60, 0, 1.0), train, held_out, seeds=3, statistic=spy)
    assert result.n == 60 and set(seen) == {(60, 60)} and len(seen) == 4
    assert result.floor == pytest.approx(5.0, abs=0.2) and float(result) == pytest.approx(1.0, abs=0.2)
    assert len(set(result.floors)) == 3 and result.spread > 0


def test_json_has_everything() -> None:
    row = json.loads(json.dumps(FAR.as_dict()))
    assert row["n"] == 100 and row["floor_seeds"] == 4 and row["value"] == float(FAR) and row["good"] == "low"


def test_points_of_the_same_law_score_at_the_floor_and_others_do_not() -> None:
    train, held_out = points(400, 1), points(150, 2)
    same, other = evaluate(points(150, 0), train, held_out), evaluate(points(150, 0, 4.0), train, held_out)
    assert [s.name for s in same] == [*STATISTICS, "distance to nearest training"]
    for one in same:
        assert abs(float(one) - one.floor) < max(4 * one.spread, 0.1), one
    assert float(other["Fréchet distance"]) > 10 * other["Fréchet distance"].floor
    assert float(other["kernel distance"]) > 1 and float(other["recall"]) < 0.3
    assert other["two-sample accuracy"].p_value < 1e-6 < 0.01 < same["two-sample accuracy"].p_value


def test_copies_are_perfect_by_every_score_but_one() -> None:
    train, held_out = points(400, 1), points(150, 2)
    copies = FiniteData(train).sample(150, torch.Generator().manual_seed(3)).float()
    result = evaluate(copies, train, held_out)
    assert float(result["Fréchet distance"]) < 2 * result["Fréchet distance"].floor
    assert float(result["precision"]) > result["precision"].floor - 0.1
    assert float(result["distance to nearest training"]) == 0 < result["distance to nearest training"].floor
    assert float(memorising(points(150, 5), train, held_out)) == pytest.approx(result["distance to nearest training"].floor, rel=0.2)


def test_digits_are_at_the_floor_and_noise_is_not() -> None:
    net, data = load_classifier("digits"), digits()
    noise = torch.randn(150, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    result = evaluate(noise, data.train.images, data.test.images, net.features, net, n=150, seeds=2)
    assert {score.n for score in result} == {150}
    assert float(result["Fréchet distance"]) > 10 * result["Fréchet distance"].floor
    assert result["class histogram chi-square"].p_value < 1e-6
    real = evaluate(data.val.images, data.train.images, data.test.images, net.features, net, n=150, seeds=2)
    assert float(real["Fréchet distance"]) < 2 * real["Fréchet distance"].floor
    assert real["class histogram chi-square"].p_value > 1e-3


GOOD = torch.zeros(80, 1, 8, 8).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("bad", "kind", "text"),
    [
        ((GOOD * 127 + 128).to(torch.uint8), DataError, r"samples must be float in \[-1, 1\]"),
        (GOOD * 127 + 128, DataError, "scale 0..255"),
        (GOOD / 2 + 0.5, DataError, r"values in \[0, 1\]"),
        (GOOD * float("nan"), DataError, "samples must lie in"),
        (GOOD[:, :, :6], ShapeError, "need one shape"),
        (GOOD[:30], DataError, "too few for 64 features"),
    ],
)
def test_bad_samples_are_refused(bad: Tensor, kind: type[CourseError], text: str) -> None:
    with pytest.raises(kind, match=text):
        evaluate(bad, GOOD, GOOD, load_classifier("digits").features)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="load_classifier"):
        evaluate(GOOD, GOOD, GOOD)
    with pytest.raises(CourseError, match="unknown score 'FID'"):
        score("FID", points(50, 0), points(50, 1), points(50, 2))
    with pytest.raises(DataError, match="n = 99 must be from 2 to 50, the size of samples"):
        score("precision", points(50, 0), points(500, 1), points(100, 2), n=99)
    with pytest.raises(DataError, match="at least one value of its floor"):
        score("precision", points(50, 0), points(50, 1), points(50, 2), seeds=0)
    with pytest.raises(CourseError, match="unknown score"):
        Evaluation((FAR,))["nope"]
