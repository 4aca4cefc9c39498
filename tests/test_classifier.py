"""The classifier of noisy pictures: shapes, its sense of time, its gradient, and the shipped one against its card."""

import json
from pathlib import Path

import pytest
import torch

from ddpm_course import load_model, q_sample, shipped
from ddpm_course.checkpoint import load_classifier, load_noisy_classifier, load_tensors
from ddpm_course.data import digits
from ddpm_course.errors import ShapeError
from ddpm_course.guidance import gradient_of
from ddpm_course.models import NoisyClassifier


@pytest.fixture
def net() -> NoisyClassifier:
    torch.manual_seed(0)
    return NoisyClassifier(size=8, width=8, num_classes=4).eval()


def noisy_digits(t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out digits at time t of the shipped schedule, and their labels."""
    x_0, y = (torch.cat(parts) for parts in zip(digits().val, digits().test, strict=True))
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))
    return q_sample(load_model(shipped("digits")).schedule, x_0, t, noise), y


def test_shapes_and_that_each_picture_is_judged_alone(net: NoisyClassifier) -> None:
    x, t = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 10, 500, 900, 1000])
    logits = net(x, t)
    assert logits.shape == (5, 4)
    torch.testing.assert_close(net(x[2:3], t[2:3]), logits[2:3], rtol=1e-4, atol=1e-5)


def test_the_answer_depends_on_the_time(net: NoisyClassifier) -> None:
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(2)).expand(3, -1, -1, -1)
    a, b, c = net(x, torch.tensor([5, 5, 800]))
    torch.testing.assert_close(a, b)
    assert float((a - c).detach().abs().max()) > 1e-3


def test_log_prob_is_normalised_and_picks_the_label(net: NoisyClassifier) -> None:
    x, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([1, 400, 1000])
    each = torch.stack([net.log_prob(torch.full((3,), k), x, t) for k in range(4)])
    torch.testing.assert_close(each.exp().sum(0), torch.ones(3))
    mixed = net.log_prob(torch.tensor([2, 0, 3]), x, t)
    torch.testing.assert_close(mixed, torch.stack([each[2, 0], each[0, 1], each[3, 2]]))


def test_the_gradient_is_that_of_finite_differences(net: NoisyClassifier) -> None:
    net.double()
    g = torch.Generator().manual_seed(4)
    x, along, t, y = *(torch.randn(1, 1, 8, 8, generator=g, dtype=torch.float64) for _ in range(2)), torch.tensor([300]), torch.tensor([1])
    climb = lambda x, t: net.log_prob(y, x, t)  # noqa: E731
    ahead, behind = climb(x + 1e-5 * along, t), climb(x - 1e-5 * along, t)
    torch.testing.assert_close((gradient_of(climb, x, t) * along).sum(), ((ahead - behind) / 2e-5)[0], rtol=1e-5, atol=1e-8)


def test_other_shapes_are_refused(net: NoisyClassifier) -> None:
    with pytest.raises(ShapeError, match=r"pictures \(B, 1, 8, 8\) and times \(B,\), got \(2, 1, 7, 7\) and \(2,\)"):
        net(torch.zeros(2, 1, 7, 7), torch.tensor([1, 2]))
    with pytest.raises(ShapeError, match=r"got \(2, 1, 8, 8\) and \(1,\)"):
        net(torch.zeros(2, 1, 8, 8), torch.tensor([1]))


@torch.no_grad()
def test_the_shipped_one_is_as_good_as_its_card_says() -> None:
    guide, folder = load_noisy_classifier("digits"), shipped("digits")
    meta = json.loads((folder / "noisy_classifier.json").read_text(encoding="utf-8"))
    assert (folder / meta["weights"]).stat().st_size <= 400_000 and not guide.training
    for t in (1, 300, 600):
        x, y = noisy_digits(t)
        found = float((guide(x, torch.full((len(x),), t)).argmax(1) == y).double().mean())
        assert abs(found - meta["accuracy"][str(t)]) < 0.06  # other noises
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"{t}: {accuracy:.2f}" in card for t, accuracy in meta["accuracy"].items())


@torch.no_grad()
def test_on_noise_it_beats_the_classifier_of_clean_digits_and_at_the_end_it_knows_nothing() -> None:
    guide, clean = load_noisy_classifier("digits"), load_classifier("digits")
    x, y = noisy_digits(400)
    share = lambda logits: float((logits.argmax(1) == y).double().mean())  # noqa: E731
    assert share(guide(x, torch.full((len(x),), 400))) > share(clean(x)) + 0.2
    x, _ = noisy_digits(1000)
    sure = guide(x, torch.full((len(x),), 1000)).softmax(1).max(1).values
    assert float(sure.mean()) < 0.3


def test_guidance_was_measured_on_these_weights() -> None:
    file = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "guided.json"
    results = json.loads(file.read_text(encoding="utf-8"))
    for name, digest in results["weights"]["sha256"].items():
        assert load_tensors(shipped("digits"), name)[1]["sha256"].startswith(digest), f"{name} changed: python benchmarks/guided.py scales"
    assert results["scales"]["3.0"]["hit"] >= 0.9 and {row["n"] for row in results["scales"].values()} == {359}
