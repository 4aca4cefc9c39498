"""Inpainting, super-resolution and image to image, against data whose conditional law is known."""

import math

import pytest
import torch
from torch import Tensor

from ddpm_course import ExactGaussian, GaussianMixture, cosine_schedule, ddpm_sample, linear_schedule
from ddpm_course.data import Split
from ddpm_course.editing import (
    both_ways,
    enlarge,
    image_to_image,
    inpaint,
    keep_known,
    keep_low_frequencies,
    low_pass,
    psnr,
    repaint_times,
    small_picture_condition,
    super_resolve,
    times_from,
    translate,
)
from ddpm_course.errors import ShapeError, ValueCourseError
from ddpm_course.sampling import last, time_grid, trajectory

LINEAR = linear_schedule()
COV = torch.tensor([[1.0, 0.7], [0.7, 0.8]], dtype=torch.float64)
GAUSSIAN = ExactGaussian(torch.tensor([0.5, -0.3]), COV)
MASK, SEEN = torch.tensor([True, False]), torch.tensor([1.5, 0.0], dtype=torch.float64)
GIVEN = GAUSSIAN.given(MASK, SEEN)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_conditional_of_a_gaussian_by_the_textbook() -> None:
    torch.testing.assert_close(GIVEN.mean, torch.tensor([1.5, -0.3 + 0.7 * (1.5 - 0.5)], dtype=torch.float64))
    torch.testing.assert_close(GIVEN.cov, torch.tensor([[0.0, 0.0], [0.0, 0.8 - 0.49]], dtype=torch.float64))
    A = torch.randn(5, 5, generator=seeded(1), dtype=torch.float64)
    law, mask = ExactGaussian(torch.zeros(5), A @ A.T + torch.eye(5)), torch.tensor([True, False, True, False, False])
    values, precision = torch.arange(5.0, dtype=torch.float64), torch.linalg.inv(A @ A.T + torch.eye(5))
    rest = precision[~mask][:, ~mask]  # the other formula: the precision matrix needs no Schur complement
    torch.testing.assert_close(law.given(mask, values).cov[~mask][:, ~mask], torch.linalg.inv(rest))
    mean = -torch.linalg.solve(rest, precision[~mask][:, mask] @ values[mask])
    torch.testing.assert_close(law.given(mask, values).mean[~mask], mean)


def test_the_posterior_score_samples_the_exact_conditional() -> None:
    x = ddpm_sample(GIVEN.eps_model(LINEAR), LINEAR, (6000, 2), generator=seeded())
    assert bool((x[:, 0] - 1.5).abs().max() < 1e-3)  # the known number, by the score alone
    assert abs(float(x[:, 1].mean()) - 0.4) < 0.025 and abs(float(x[:, 1].var()) / 0.31 - 1) < 0.06


def filled(resamplings: int, n: int = 4000, jump: int = 5) -> Tensor:
    return inpaint(GAUSSIAN.eps_model(LINEAR), LINEAR, SEEN.expand(n, 2), MASK, 250, resamplings, jump, generator=seeded())


def test_repaint_comes_near_the_conditional_with_resampling_and_not_without() -> None:
    one, few, many = (filled(count) for count in (1, 4, 20))
    for x in (one, few, many):
        assert bool((x[:, 0] == 1.5).all())  # known pixels are exact
    bias = [abs(float(x[:, 1].mean()) / 0.4 - 1) for x in (one, few, many)]
    assert bias[0] > 0.3 and bias[0] > bias[1] > bias[2]
    assert bias[2] < 0.05 and abs(float(many[:, 1].var()) / 0.31 - 1) < 0.2


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_pasting_alone_passes_on_half_of_the_pull_or_little_more(rho: float) -> None:
    """Small steps, two N(0, 1): mean (1 - sqrt(1 - rho^2)) / rho instead of rho, variance too large by artanh(rho) / rho."""
    law = ExactGaussian(torch.zeros(2), torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64))
    known = torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand(6000, 2)
    x = inpaint(law.eps_model(LINEAR), LINEAR, known, MASK, 1000, resamplings=1, generator=seeded(8))[:, 1]
    error = float(x.std()) / 6000**0.5
    assert abs(float(x.mean()) - 2 * (1 - (1 - rho**2) ** 0.5) / rho) < 4 * error + 0.005
    assert abs(float(x.var()) / ((1 - rho**2) * math.atanh(rho) / rho) - 1) < 0.08


def test_the_plan_goes_up_and_down_and_never_up_from_0() -> None:
    times = [10, 8, 6, 4, 2, 0]
    assert repaint_times(times, 1, 1) == times
    assert repaint_times([4, 2, 0], 3, 1) == [4, 2, 4, 2, 4, 2, 0]
    assert repaint_times(times, 2, 2) == [10, 8, 6, 10, 8, 6, 4, 2, 6, 4, 2, 0]
    for count, jump in ((1, 1), (4, 3), (10, 10)):
        plan = repaint_times(time_grid(1000, 250).tolist(), count, jump)
        assert plan[0] == 1000 and plan[-1] == 0 and plan.count(0) == 1 and set(plan) == set(time_grid(1000, 250).tolist())


def test_going_up_keeps_the_law_of_x_t() -> None:
    step = both_ways(lambda *_: pytest.fail("down"), LINEAR, lambda *_: pytest.fail("edited"), seeded())
    x_s = GAUSSIAN.diffused(float(LINEAR.alpha_bar[100])).sample(40_000, seeded(1))
    x_t = step(x_s, 100, 400)[0]
    torch.testing.assert_close(torch.cov(x_t.T), GAUSSIAN.diffused(float(LINEAR.alpha_bar[400])).cov, rtol=0, atol=0.03)


def test_known_pixels_get_noise_of_the_right_time() -> None:
    edit = keep_known(LINEAR, torch.full((1, 2), 0.7), torch.tensor([True, False]), seeded())
    x = torch.zeros(20_000, 2)
    y = edit(x, 300)
    bar = float(LINEAR.alpha_bar[300])
    assert bool((y[:, 1] == 0).all()) and bool((x == 0).all())  # the rest and the input are left alone
    assert abs(float(y[:, 0].mean()) - bar**0.5 * 0.7) < 0.02 and abs(float(y[:, 0].var()) - (1 - bar)) < 0.02
    assert bool((edit(x, 0)[:, 0] == 0.7).all())


def test_a_mixture_with_a_hole_is_filled_with_the_right_shares() -> None:
    means = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    mixture = GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, torch.full((3,), 0.15))
    known = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(1500, 2)
    x = inpaint(mixture.eps_model(LINEAR), LINEAR, known, MASK, 100, 10, 5, generator=seeded())
    up = float((x[:, 1] > 0).float().mean())  # given x = 1: 0.3 against 0.2, so 60 %
    assert 0.5 < up < 0.7 and float((x[:, 1].abs() - 1).abs().median()) < 0.15


def small_pictures() -> ExactGaussian:
    """4x4 pictures whose neighbours are alike."""
    place = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1).reshape(16, 2)
    cov = 0.3 * torch.exp(-torch.cdist(place, place)).double()
    return ExactGaussian(torch.zeros(1, 4, 4), cov)


def test_super_resolution_has_the_given_averages_and_the_right_detail() -> None:
    law = small_pictures()
    truth = law.sample(600, seeded(2))
    low = low_pass(truth, 2)
    x = super_resolve(law.eps_model(LINEAR), LINEAR, low, 2, num_steps=100, resamplings=5, generator=seeded())
    torch.testing.assert_close(low_pass(x, 2), low, rtol=0, atol=1e-10)
    detail, real = (picture - picture.mean((2, 3), keepdim=True) for picture in (x, truth))
    assert abs(float(detail.var() / real.var()) - 1) < 0.15  # neither blurred nor too sharp
    blurred = torch.nn.functional.interpolate(low, scale_factor=2.0)
    assert float((blurred - blurred.mean((2, 3), keepdim=True)).var() / real.var()) < 0.75


def test_the_low_frequency_edit_leaves_detail_alone() -> None:
    edit = keep_low_frequencies(LINEAR, torch.zeros(1, 1, 2, 2), 2, seeded())
    x = torch.randn(3, 1, 4, 4, generator=seeded(3))
    y = edit(x, 0)
    torch.testing.assert_close(low_pass(y, 2), torch.zeros(3, 1, 2, 2), rtol=0, atol=1e-6)
    enlarged = torch.nn.functional.interpolate(low_pass(x, 2), scale_factor=2.0)
    torch.testing.assert_close(y, x - enlarged, rtol=0, atol=1e-6)


def test_the_small_picture_is_what_the_network_is_told() -> None:
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8, generator=seeded(7))
    index = torch.tensor([3, 0])
    as_bytes, as_floats = Split(images, torch.zeros(5)), Split(images.float() / 127.5 - 1, torch.zeros(5))
    told = small_picture_condition(4)(as_bytes, index, seeded())["condition"]
    torch.testing.assert_close(told, small_picture_condition(4)(as_floats, index, None)["condition"])
    assert told.shape == (2, 1, 8, 8)
    torch.testing.assert_close(told[0, 0, :4, 4:], as_floats.images[3, 0, :4, 4:].mean().expand(4, 4))  # a block is its own average
    bicubic = small_picture_condition(4, "bicubic")(as_floats, index, None)["condition"]
    torch.testing.assert_close(bicubic, enlarge(low_pass(as_floats.images[index], 4), 4, "bicubic"))


def test_psnr_by_hand() -> None:
    truth = torch.linspace(-1, 1, 12).reshape(3, 1, 2, 2)
    x = truth + torch.tensor([0.2, 2.0, 0.02])[:, None, None, None]
    torch.testing.assert_close(psnr(x, truth), torch.tensor([20.0, 0.0, 40.0]), rtol=0, atol=1e-4)  # peak 2: 10 log10(4 / 0.04) = 20
    one_pixel = truth.clone()
    one_pixel[:, :, 0, 0] += 0.4  # mean over the pixels of a picture, not over the batch
    torch.testing.assert_close(psnr(one_pixel, truth), torch.full((3,), 20.0), rtol=0, atol=1e-4)
    with pytest.raises(ShapeError, match="one shape"):
        psnr(truth, truth[:1])


def test_more_strength_keeps_less() -> None:
    mixture = GaussianMixture(torch.full((2,), 0.5), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.full((2,), 0.2))
    x_0 = mixture.sample(1500, seeded(4))
    stayed = []
    for strength in (0.05, 0.4, 1.0):
        y = image_to_image(mixture.eps_model(LINEAR), LINEAR, x_0, strength, 50, generator=seeded(5))
        stayed.append(float(((y[:, 0] > 0) == (x_0[:, 0] > 0)).float().mean()))
    assert stayed[0] > 0.99 > stayed[1] > stayed[2] and 0.4 < stayed[2] < 0.6
    assert times_from(LINEAR, 0.5, 10)[0] == 500 and times_from(LINEAR, 1.0, 4) == [1000, 750, 500, 250, 0]
    assert times_from(LINEAR, 0.003, 50) == [3, 2, 1, 0]


def test_translation_there_and_back_and_between_gaussians() -> None:
    schedule = cosine_schedule()
    source, target = ExactGaussian(torch.tensor([-1.0]), 0.04 * torch.eye(1)), ExactGaussian(torch.tensor([2.0]), 0.25 * torch.eye(1))
    x = source.sample(200, seeded(6))
    same = translate(source.eps_model(schedule), source.eps_model(schedule), schedule, x, 400)
    assert float((same - x).abs().max()) < 0.05
    moved = translate(source.eps_model(schedule), target.eps_model(schedule), schedule, x, 400)
    wanted = 2 + (x + 1) * 0.5 / 0.2  # between two Gaussians the exact path keeps the number of standard deviations
    assert float((moved - wanted).abs().max()) < 0.15


def test_edits_are_hooks_of_the_ordinary_samplers() -> None:
    edit = keep_known(LINEAR, SEEN.expand(50, 2), MASK, seeded())
    x = ddpm_sample(GAUSSIAN.eps_model(LINEAR), LINEAR, x_T=torch.zeros(50, 2, dtype=torch.float64), num_steps=20, edit=edit)
    assert bool((x[:, 0] == 1.5).all())
    states = list(trajectory(lambda x, t, s: (x, x), torch.zeros(50, 2, dtype=torch.float64), [3, 0], edit))
    assert bool((last(iter(states))[:, 0] == 1.5).all())


def test_refusals() -> None:
    model = GAUSSIAN.eps_model(LINEAR)
    with pytest.raises(ValueCourseError, match="mask must be boolean"):
        inpaint(model, LINEAR, torch.zeros(3, 2), torch.ones(2))
    with pytest.raises(ValueCourseError, match="resamplings = 0"):
        inpaint(model, LINEAR, torch.zeros(3, 2), MASK, resamplings=0)
    with pytest.raises(ValueCourseError, match="strength = 1.5"):
        image_to_image(model, LINEAR, torch.zeros(3, 2), 1.5)
    with pytest.raises(ShapeError, match="multiples of 3"):
        low_pass(torch.zeros(1, 1, 4, 4), 3)
