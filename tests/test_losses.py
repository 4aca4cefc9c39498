"""Losses and their weights against the paper's formulas."""

import mpmath as mp
import pytest
import reference
import torch

from ddpm_course import CourseError, cosine_schedule, diffusion_loss, linear_schedule, min_snr_weight, simple_loss, vlb_weight
from ddpm_course.losses import with_spectrum
from ddpm_course.prediction import eps_to_v, eps_to_x_0

ALL = torch.arange(2, 1001)


def test_simple_loss_is_the_mean_square_per_example() -> None:
    got = simple_loss(torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 0.0]], [[3.0, -1.0]]]))
    assert got.tolist() == [2.5, 5.0]


def test_half_precision_predictions_are_compared_in_float32() -> None:
    got = simple_loss(torch.zeros(1, 4, dtype=torch.bfloat16), torch.full((1, 4), 1.001))
    assert got.dtype == torch.float32 and float(got) == pytest.approx(1.001**2, rel=1e-6)
    assert simple_loss(torch.zeros(1, 4).bfloat16(), torch.ones(1, 4).bfloat16()).dtype == torch.float32
    one = torch.ones(1, 4, dtype=torch.float64)
    assert float(simple_loss(one + 1e-9, one)) == pytest.approx(1e-18, rel=1e-6)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_vlb_weight_is_ho_equation_12(name: str, variance: str) -> None:
    schedule = linear_schedule() if name == "linear" else cosine_schedule()
    bars, wanted = reference.alpha_bars(name), []
    for t in range(2, 1001):
        alpha = bars[t] / bars[t - 1]
        var = 1 - alpha if variance == "beta" else reference.posterior(bars[t], bars[t - 1])[2]
        wanted.append((1 - alpha) ** 2 / (2 * var * alpha * (1 - bars[t])))
    assert reference.relative(vlb_weight(schedule, ALL, variance), reference.tensor(wanted)) < 1e-9
    assert vlb_weight(schedule, 500, variance) == pytest.approx(float(wanted[498]), rel=1e-9)


def test_vlb_weight_is_what_one_error_in_eps_costs() -> None:
    """From the KL of two posteriors: shift eps by 0.1 and see what the bound says."""
    from ddpm_course import vlb_terms

    schedule, x_0, eps = cosine_schedule(9), torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    right = vlb_terms(lambda x, t: eps, schedule, x_0, "beta", eps=eps).matching
    off = vlb_terms(lambda x, t: eps + 0.1, schedule, x_0, "beta", eps=eps).matching
    wanted = 0.01 * vlb_weight(schedule, torch.arange(2, 10))
    torch.testing.assert_close((off - right)[0], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("prediction", "per"), [("x_0", lambda r: 1), ("eps", lambda r: r), ("v", lambda r: r + 1)])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights(prediction: str, per: object, gamma: float) -> None:
    ratios = [bar / (1 - bar) for bar in reference.alpha_bars("cosine")[2:]]
    wanted = reference.tensor([min(r, mp.mpf(gamma)) / per(r) for r in ratios])
    assert reference.relative(min_snr_weight(cosine_schedule(), ALL, prediction, gamma), wanted) < 1e-8
    assert min_snr_weight(cosine_schedule(), 700, prediction, gamma) == pytest.approx(float(wanted[698]), rel=1e-8)


def test_min_snr_defaults_and_unknown_prediction() -> None:
    schedule = cosine_schedule()
    assert min_snr_weight(schedule, 10) == min_snr_weight(schedule, 10, "eps", 5.0)
    with pytest.raises(CourseError, match="unknown prediction 'score'"):
        min_snr_weight(schedule, 10, "score")


def test_vlb_weight_has_no_finite_value_where_the_variance_is_zero() -> None:
    for t in (1, torch.tensor([1, 2])):
        with pytest.raises(CourseError, match=r"outside 2\.\.1000"):
            vlb_weight(linear_schedule(), t, "posterior")
    beta = 1e-4
    assert vlb_weight(linear_schedule(), 1) == pytest.approx(1 / (2 * (1 - beta)), rel=1e-9)


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_one_line_of_algorithm_1(prediction: str) -> None:
    schedule, t = cosine_schedule(), torch.tensor([1, 500])
    x_0, eps = torch.tensor([[0.5, -0.5], [0.1, 1.0]]).double(), torch.tensor([[1.0, 2.0], [-1.0, 0.3]]).double()
    bars = reference.tensor([reference.alpha_bars("cosine")[k] for k in (1, 500)])[:, None]
    seen = {}

    def net(x_t: torch.Tensor, t: torch.Tensor, y: str) -> torch.Tensor:
        seen.update(x_t=x_t, t=t, y=y)
        return torch.full_like(x_t, 0.25)

    got = diffusion_loss(net, schedule, x_0, t, eps, prediction, y="seven")
    wanted = {"eps": eps, "x_0": x_0, "v": bars.sqrt() * eps - (1 - bars).sqrt() * x_0}[prediction]
    torch.testing.assert_close(got, ((0.25 - wanted) ** 2).mean(1), rtol=1e-9, atol=0)
    torch.testing.assert_close(seen["x_t"], bars.sqrt() * x_0 + (1 - bars).sqrt() * eps, rtol=1e-9, atol=0)
    assert seen["y"] == "seven" and seen["t"] is t
    if prediction == "eps":
        assert torch.equal(diffusion_loss(net, schedule, x_0, t, eps, y="seven"), got)


@pytest.mark.parametrize("t", [1, 2, 300, 1000])
def test_one_error_has_three_sizes_that_convert(t: int) -> None:
    """A wrong eps_hat by delta is a wrong x_0_hat by delta / sqrt(SNR) and a wrong v_hat by delta / sqrt(alpha_bar)."""
    schedule, (x_t, eps, delta) = cosine_schedule(), torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bar, snr = schedule.at(t), schedule.snr(t)
    of_eps = simple_loss(eps + delta, eps)
    of_x_0 = simple_loss(eps_to_x_0(schedule, x_t, t, eps + delta), eps_to_x_0(schedule, x_t, t, eps))
    of_v = simple_loss(eps_to_v(schedule, x_t, t, eps + delta), eps_to_v(schedule, x_t, t, eps))
    torch.testing.assert_close(of_x_0 * snr / of_eps, torch.ones(50, dtype=torch.float64), rtol=1e-9 / min(bar, 1 - bar) ** 0.5, atol=0)
    torch.testing.assert_close(of_v * bar / of_eps, torch.ones(50, dtype=torch.float64), rtol=1e-9 / min(bar, 1 - bar) ** 0.5, atol=0)
    weights = [min_snr_weight(schedule, t, kind) for kind in ("eps", "x_0", "v")]
    assert weights[0] == pytest.approx(weights[1] / snr, rel=1e-12)
    assert weights[2] == pytest.approx(weights[0] * bar, rel=1e-12)


def test_with_spectrum_adds_the_mean_modulus_of_the_errors_waves() -> None:
    """The error is one wave of modulus 3 sqrt(8) / 2 at two of eight frequencies; squares alone would be the plain loss, by Parseval."""
    time = torch.arange(8) * 2 * torch.pi / 8
    x_0, eps, t = torch.zeros(2, 1, 8), torch.randn(2, 1, 8), torch.tensor([3, 90])
    net = lambda x_t, t: 3 * torch.cos(2 * time).expand_as(x_t)  # noqa: E731
    plain = diffusion_loss(net, linear_schedule(100), x_0, t, eps, "x_0")
    got = with_spectrum(0.5)(net, linear_schedule(100), x_0, t, eps, "x_0")
    torch.testing.assert_close(got, plain + 0.5 * 2 * (3 * 8**0.5 / 2) / 8)
    torch.testing.assert_close(
        with_spectrum(0.0)(net, linear_schedule(100), x_0, t, eps, "v"), diffusion_loss(net, linear_schedule(100), x_0, t, eps, "v")
    )
    waves = torch.fft.fft(net(x_0, t), norm="ortho").abs().square()
    torch.testing.assert_close(waves.mean((1, 2)), plain)
