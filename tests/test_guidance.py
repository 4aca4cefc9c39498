"""Guidance on a mixture whose conditional is known: the eps form is exact, the mean shift is not, and scale 3 is no power of p(y | x)."""

import pytest
import torch
from torch import Tensor

from ddpm_course import GaussianMixture, UNet, UNetConfig, as_eps_model, cosine_schedule, ddim_sample, ddpm_sample, linear_schedule
from ddpm_course.errors import ConfigError, ShapeError, ValueCourseError
from ddpm_course.guidance import (
    batched_guidance,
    blend,
    classifier_free,
    classifier_guided,
    label_guided,
    mean_shift_stepper,
    rescaled,
    scale_from_w,
    w_from_scale,
)
from ddpm_course.sampling import ddpm_step, last, time_grid, trajectory

MEANS = torch.tensor([[-1.0, 0.3], [0.9, 0.8], [0.4, -1.1]])
MIXTURE = GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), MEANS, torch.tensor([0.3, 0.2, 0.4]))
ONE = GaussianMixture(torch.ones(1), MEANS[1:2], torch.tensor([0.2]))  # class y = 1 alone
SCHEDULE = linear_schedule()


def log_prob(x: Tensor, t: Tensor, schedule=SCHEDULE) -> Tensor:
    """Exact log p(y = 1 | x_t): Bayes' rule on the mixture."""
    return MIXTURE.component_log_prob(x, schedule.at(t, 2)).log_softmax(1)[:, 1]


def points(n: int = 200) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return 1.5 * torch.randn(n, 2, generator=g, dtype=torch.float64), torch.randint(1, 1001, (n,), generator=g)


def test_the_eps_form_with_the_exact_classifier_is_the_conditional() -> None:
    x, t = points()
    guided = classifier_guided(MIXTURE.eps_model(SCHEDULE), log_prob, SCHEDULE)
    torch.testing.assert_close(guided(x, t), ONE.eps_model(SCHEDULE)(x, t), rtol=0, atol=1e-10)
    assert not x.requires_grad  # the caller's tensor stays as it was
    wrong = classifier_guided(MIXTURE.eps_model(SCHEDULE), lambda x, t: -log_prob(x, t), SCHEDULE)
    assert not torch.allclose(wrong(x, t), ONE.eps_model(SCHEDULE)(x, t), atol=0.1)


def test_scale_multiplies_the_gradient_and_scale_0_asks_nobody() -> None:
    x, t = points()
    plain = MIXTURE.eps_model(SCHEDULE)(x, t)
    once = classifier_guided(MIXTURE.eps_model(SCHEDULE), log_prob, SCHEDULE)(x, t)
    thrice = classifier_guided(MIXTURE.eps_model(SCHEDULE), log_prob, SCHEDULE, 3.0)(x, t)
    torch.testing.assert_close(thrice - plain, 3 * (once - plain), rtol=1e-9, atol=1e-12)
    nobody = classifier_guided(MIXTURE.eps_model(SCHEDULE), lambda x, t: pytest.fail("asked"), SCHEDULE, 0)
    assert torch.equal(nobody(x, t), plain)


def test_guided_samples_follow_the_exact_conditional_inside_no_grad() -> None:
    guided = classifier_guided(MIXTURE.eps_model(SCHEDULE), log_prob, SCHEDULE)
    x = ddim_sample(guided, SCHEDULE, (4000, 2), num_steps=300, generator=torch.Generator().manual_seed(0))
    assert not x.requires_grad
    torch.testing.assert_close(x.mean(0), MEANS[1], rtol=0, atol=0.02)
    torch.testing.assert_close(x.std(0), torch.tensor([0.2, 0.2]), rtol=0, atol=0.015)


def bias(T: int) -> float:
    """How far the mean shift's reverse mean is from the exact conditional one, in units of the step's noise, halfway down the chain."""
    schedule = cosine_schedule(T)
    t, s = T // 2, T // 2 - 1
    g = torch.Generator().manual_seed(1)
    x_0 = MIXTURE.sample(2000, g)
    bar_t, bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    x_t = bar_t**0.5 * x_0 + (1 - bar_t) ** 0.5 * torch.randn(2000, 2, generator=g, dtype=torch.float64)
    step = mean_shift_stepper(MIXTURE.eps_model(schedule), lambda x, t: log_prob(x, t, schedule), schedule, generator=g)
    zero = torch.zeros_like(x_t)

    def no_noise(*_: object, **__: object) -> Tensor:
        return zero

    import ddpm_course.guidance as module

    real, module.draw = module.draw, no_noise
    try:
        shifted = step(x_t, t, s)[0]
    finally:
        module.draw = real
    from ddpm_course import ddpm_step

    exact = ddpm_step(schedule, x_t, ONE.eps_model(schedule)(x_t, torch.full((2000,), t)), t, s, zero)
    return float((shifted - exact).norm(dim=1).mean() / (1 - bar_t / bar_s) ** 0.5)


def test_the_mean_shift_is_exact_only_as_steps_become_small() -> None:
    errors = [bias(T) for T in (20, 80, 320)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0  # falls with T, at least like its square root
    assert errors[0] > 0.02 and errors[2] < 0.005


def test_the_mean_shift_samples_the_conditional_at_many_steps() -> None:
    step = mean_shift_stepper(MIXTURE.eps_model(SCHEDULE), log_prob, SCHEDULE, generator=torch.Generator().manual_seed(2))
    x_T = torch.randn(1500, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        x = last(trajectory(step, x_T, time_grid(1000, 1000)))
    assert float((x - MEANS[1]).norm(dim=1).lt(1).float().mean()) > 0.97


@pytest.mark.parametrize(("t", "s"), [(400, 350), (21, 1)])
@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_one_step_of_the_mean_shift_by_hand(variance: str, t: int, s: int) -> None:
    """The gradient at the mean and at time s, Sigma once; noise with its root; the last step as it is without guidance."""
    x, model = points(5)[0], MIXTURE.eps_model(SCHEDULE)
    pull = lambda y, u: -((y - 0.01 * u[:, None]) ** 2).sum(1)  # noqa: E731 - its gradient is -2 (y - t / 100)
    bar_t, bar_s = SCHEDULE.at(t), SCHEDULE.at(s)
    eps, keep = model(x, torch.full((5,), t)), bar_t / bar_s
    x_0_hat = (x - (1 - bar_t) ** 0.5 * eps) / bar_t**0.5
    mean = (bar_s**0.5 * (1 - keep) * x_0_hat + keep**0.5 * (1 - bar_s) * x) / (1 - bar_t)
    var = (1 - keep) * ((1 - bar_s) / (1 - bar_t) if variance == "posterior" else 1)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    step = mean_shift_stepper(model, pull, SCHEDULE, 2.0, variance, torch.Generator().manual_seed(3))
    x_s, guess = step(x, t, s)
    torch.testing.assert_close(x_s, mean - 4 * var * (mean - 0.01 * s) + var**0.5 * z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(guess, x_0_hat)
    unasked = mean_shift_stepper(model, lambda y, u: pytest.fail("asked"), SCHEDULE, 2.0, variance)
    ends, alone = unasked(x, 20, 0), ddpm_step(SCHEDULE, x, model(x, torch.full((5,), 20)), 20, 0, torch.zeros_like(x), variance)
    torch.testing.assert_close(ends[0], alone)


def test_scales_0_and_1_run_one_branch_and_are_bit_equal() -> None:
    conditional, unconditional = ONE.eps_model(SCHEDULE), MIXTURE.eps_model(SCHEDULE)
    x, t = points()
    never = lambda x, t: pytest.fail("asked")  # noqa: E731
    assert torch.equal(classifier_free(conditional, never, 1)(x, t), conditional(x, t))
    assert torch.equal(classifier_free(never, unconditional, 0)(x, t), unconditional(x, t))
    torch.testing.assert_close(
        classifier_free(conditional, unconditional, 3)(x, t), 3 * conditional(x, t) - 2 * unconditional(x, t), rtol=1e-12, atol=1e-12
    )


def test_the_two_conventions_convert() -> None:
    x, t = points(10)
    conditional, unconditional = ONE.eps_model(SCHEDULE)(x, t), MIXTURE.eps_model(SCHEDULE)(x, t)
    for w in (-1.0, 0.0, 0.5, 4.0):  # CFG eq. 6 as printed: (1 + w) eps(x, y) - w eps(x)
        paper = (1 + w) * conditional - w * unconditional
        torch.testing.assert_close(blend(conditional, unconditional, scale_from_w(w)), paper, rtol=1e-12, atol=1e-12)
        assert w_from_scale(scale_from_w(w)) == w


def test_classifier_free_equals_classifier_guidance_when_both_are_exact() -> None:
    x, t = points()
    free = classifier_free(ONE.eps_model(SCHEDULE), MIXTURE.eps_model(SCHEDULE), 3.0)
    guided = classifier_guided(MIXTURE.eps_model(SCHEDULE), log_prob, SCHEDULE, 3.0)
    torch.testing.assert_close(free(x, t), guided(x, t), rtol=0, atol=1e-9)


def test_scale_3_does_not_sample_p_x_times_p_y_cubed() -> None:
    """In one dimension, where p(x) p(y|x)^3 is summed on a grid."""
    pair = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-0.5], [0.5]]), torch.tensor([0.5, 0.5]))
    right = GaussianMixture(torch.ones(1), torch.tensor([[0.5]]), torch.tensor([0.5]))
    model = classifier_free(right.eps_model(SCHEDULE), pair.eps_model(SCHEDULE), 3.0)
    x_T = torch.randn(4000, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = ddpm_sample(model, SCHEDULE, x_T=x_T, num_steps=200, generator=torch.Generator().manual_seed(5))
    grid = torch.linspace(-4, 5, 4001, dtype=torch.float64)[:, None]
    joint = pair.component_log_prob(grid)
    density = (joint.logsumexp(1) + 3 * joint.log_softmax(1)[:, 1]).exp()
    wanted = float((density * grid[:, 0]).sum() / density.sum())
    assert float(x.mean()) - wanted > 0.1  # the guided law lies further out
    exact = ddpm_sample(right.eps_model(SCHEDULE), SCHEDULE, x_T=x_T, num_steps=200, generator=torch.Generator().manual_seed(5))
    assert abs(float(exact.mean()) - 0.5) < 0.03


@pytest.fixture
def net() -> UNet:
    torch.manual_seed(0)
    return UNet(UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4, num_classes=3)).eval()


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["eps", "v", "x_0"])
def test_one_forward_pass_equals_two(net: UNet, prediction: str) -> None:
    x, t = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 10, 500, 900])
    calls: list[int] = []

    def counted(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        return net(x, t, y=y)

    y, null = torch.tensor([0, 1, 2, 1]), torch.tensor([3])
    conditional, unconditional = (as_eps_model(net, SCHEDULE, prediction, y=label) for label in (y, null.expand(4)))
    one_pass = batched_guidance(counted, SCHEDULE, {"y": y}, {"y": null}, 2.5, prediction)(x, t)
    torch.testing.assert_close(one_pass, classifier_free(conditional, unconditional, 2.5)(x, t), rtol=1e-4, atol=1e-4)
    assert calls == [8]
    for scale, alone in ((1, conditional), (0, unconditional)):
        assert torch.equal(batched_guidance(counted, SCHEDULE, {"y": y}, {"y": null}, scale, prediction)(x, t), alone(x, t))
    assert calls == [8, 4, 4]


@torch.no_grad()
def test_one_label_for_a_whole_batch(net: UNet) -> None:
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([10, 900])
    wanted = batched_guidance(net, SCHEDULE, {"y": torch.tensor([2, 2])}, {"y": torch.tensor([3])}, 2.5, "v")(x, t)
    assert torch.equal(label_guided(net, SCHEDULE, 2, 3, 2.5, "v")(x, t), wanted)
    assert torch.equal(label_guided(net, SCHEDULE, 2, 3)(x, t), as_eps_model(net, SCHEDULE, y=torch.tensor([2, 2]))(x, t))
    with pytest.raises(ConfigError, match="no classes"):
        label_guided(net, SCHEDULE, 0, 0)
    for label in (-1, 3):
        with pytest.raises(ConfigError, match=r"must lie in 0\.\.2: this network has 3 classes"):
            label_guided(net, SCHEDULE, label, 3)


@torch.no_grad()
def test_rescaling_restores_the_spread(net: UNet) -> None:
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([300, 600])
    conditional, other = (as_eps_model(net, SCHEDULE, y=torch.full((2,), label)) for label in (0, 3))
    strong = classifier_free(conditional, other, 8.0)
    std = lambda model: model(x, t).flatten(1).std(1)  # noqa: E731
    torch.testing.assert_close(std(rescaled(strong, conditional, 1.0)), std(conditional), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rescaled(strong, conditional, 0.0)(x, t), strong(x, t))


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_one_pass_rescales_the_networks_own_answer(net: UNet, prediction: str) -> None:
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([300, 600])
    y, null = torch.tensor([0, 2]), torch.tensor([3])
    a, b = net(x, t, y=y), net(x, t, y=null.expand(2))
    strong = b + 8 * (a - b)
    ratio = (a.flatten(1).std(1) / strong.flatten(1).std(1))[:, None, None, None]
    wanted = as_eps_model(lambda *_: 0.7 * ratio * strong + 0.3 * strong, SCHEDULE, prediction)(x, t)
    found = batched_guidance(net, SCHEDULE, {"y": y}, {"y": null}, 8.0, prediction, rescale=0.7)(x, t)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueCourseError, match=r"share = -1 must lie in \[0, 1\]"):
        batched_guidance(net, SCHEDULE, {"y": y}, {"y": null}, 8.0, rescale=-1)


def test_refusals(net: UNet) -> None:
    x, t = torch.randn(2, 2, dtype=torch.float64), torch.tensor([1, 2])
    with pytest.raises(ShapeError, match=r"one number an example, \(2,\), got \(\)"):
        classifier_guided(MIXTURE.eps_model(SCHEDULE), lambda x, t: log_prob(x, t).sum(), SCHEDULE)(x, t)
    with pytest.raises(ValueCourseError, match="same keywords"):
        batched_guidance(net, SCHEDULE, {"y": t}, {}, 2.0)
    with pytest.raises(ShapeError, match="3 rows for 2 pictures"):
        batched_guidance(net, SCHEDULE, {"y": torch.zeros(3).long()}, {"y": torch.tensor([3])}, 2.0)(torch.randn(2, 1, 8, 8), t)
    with pytest.raises(ValueCourseError, match="share = 2"):
        rescaled(MIXTURE.eps_model(SCHEDULE), ONE.eps_model(SCHEDULE), 2)
