"""Bad input: refused at once, by a CourseError that names the thing and the way out."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ddpm_course as dc
from ddpm_course import CourseError
from ddpm_course.data import check_images, load, toy
from ddpm_course.train import TrainConfig

SCHEDULE = dc.linear_schedule(10)
X, LONG = torch.zeros(2, 1, 8, 8), torch.tensor([3, 4])
BYTES = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
MODEL = dc.FiniteData(torch.zeros(3, 1, 8, 8)).eps_model(SCHEDULE)
NET = dc.UNet(dc.UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4))

# what is called with a time t (and, where there is one, s)
AT_T: dict[str, Callable[..., object]] = {
    "at": lambda t: SCHEDULE.at(t, low=1),
    "snr": SCHEDULE.snr,
    "q_sample": lambda t: dc.q_sample(SCHEDULE, X, t, X),
    "q_step": lambda t: dc.q_step(SCHEDULE, X, t, X),
    "q_posterior": lambda t: dc.q_posterior(SCHEDULE, X, X, t),
    "eps_to_x_0": lambda t: dc.eps_to_x_0(SCHEDULE, X, t, X),
    "x_0_to_eps": lambda t: dc.x_0_to_eps(SCHEDULE, X, t, X),
    "v_to_eps": lambda t: dc.v_to_eps(SCHEDULE, X, t, X),
    "eps_to_v": lambda t: dc.eps_to_v(SCHEDULE, X, t, X),
    "v_to_x_0": lambda t: dc.v_to_x_0(SCHEDULE, X, t, X),
    "x_0_to_v": lambda t: dc.x_0_to_v(SCHEDULE, X, t, X),
    "eps_to_score": lambda t: dc.eps_to_score(SCHEDULE, X, t, X),
    "ddpm_step": lambda t: dc.ddpm_step(SCHEDULE, X, X, t, t - 1, X),
    "ddim_step": lambda t: dc.ddim_step(SCHEDULE, X, X, t, t - 1),
    "eps_model": lambda t: MODEL(X, t if isinstance(t, torch.Tensor) else torch.tensor([t, t])),
    "diffusion_loss": lambda t: dc.diffusion_loss(NET, SCHEDULE, X, t, X),
    "vlb_weight": lambda t: dc.vlb_weight(SCHEDULE, t),
    "min_snr_weight": lambda t: dc.min_snr_weight(SCHEDULE, t),
}
BETWEEN: dict[str, Callable[..., object]] = {
    "q_step": lambda t, s: dc.q_step(SCHEDULE, X, t, X, s),
    "q_posterior": lambda t, s: dc.q_posterior(SCHEDULE, X, X, t, s),
    "ddpm_step": lambda t, s: dc.ddpm_step(SCHEDULE, X, X, t, s, X),
    "ddim_step": lambda t, s: dc.ddim_step(SCHEDULE, X, X, t, s, X, 1.0),
    "beta": lambda t, s: dc.reverse_variance(SCHEDULE, t, s, "beta"),
    "posterior": lambda t, s: dc.reverse_variance(SCHEDULE, t, s, "posterior"),
    "posterior_clipped": lambda t, s: dc.reverse_variance(SCHEDULE, t, s, "posterior_clipped"),
}


@pytest.fixture(scope="module", autouse=True)
def _data_is_loaded() -> None:
    load("digits")  # scikit-learn's import is not what is timed here


def refused(call: Callable[[], object], text: str) -> None:
    """The call raises a CourseError with this text, within a second of CPU time."""
    start = time.process_time()
    with pytest.raises(CourseError, match=text) as caught:
        call()
    assert time.process_time() - start < 1
    assert isinstance(caught.value, (ValueError, OSError, ArithmeticError)) and len(str(caught.value)) > 20


@pytest.mark.parametrize("bad", [0, -1, 11, torch.tensor([0, 3]), torch.tensor([3, -2]), torch.tensor([11, 3])], ids=str)
@pytest.mark.parametrize("name", AT_T)
def test_t_outside_1_to_T(name: str, bad: object) -> None:
    refused(lambda: AT_T[name](bad), r"outside 1\.\.10; time is the paper's")


NO_TIMES = [3.0, torch.tensor([3.0, 4.0]), torch.tensor([3, 4], dtype=torch.int32), torch.tensor([[3, 4]]), True]


@pytest.mark.parametrize("bad", NO_TIMES, ids=str)
@pytest.mark.parametrize("name", sorted(set(AT_T) - {"eps_model"}))
def test_t_that_is_no_integer(name: str, bad: object) -> None:
    refused(lambda: AT_T[name](bad), r"t must be (an int or a LongTensor|a LongTensor \(B,\))")


TOO_LATE = [(5, 5), (5, 7), (LONG, LONG), (LONG, 3), (5, torch.tensor([4, 5])), (LONG, torch.tensor([2, 5]))]


@pytest.mark.parametrize(("t", "s"), TOO_LATE, ids=str)
@pytest.mark.parametrize("name", BETWEEN)
def test_s_not_before_t(name: str, t: object, s: object) -> None:
    refused(lambda: BETWEEN[name](t, s), "must be smaller than t = .*: a step goes between")


@pytest.mark.parametrize("s", [-1, torch.tensor([-1, 2]), 1.5, torch.tensor([1.0, 2.0])], ids=str)
@pytest.mark.parametrize("name", BETWEEN)
def test_s_that_is_no_time(name: str, s: object) -> None:
    refused(lambda: BETWEEN[name](LONG, s), r"outside 0\.\.10|must be (an int or )?a LongTensor")


OTHER = torch.zeros(2, 1, 8, 9)
SHAPES: dict[str, Callable[[torch.Tensor], object]] = {
    "q_sample": lambda x: dc.q_sample(SCHEDULE, x, 3, X),
    "q_step": lambda x: dc.q_step(SCHEDULE, x, 3, X),
    "q_posterior": lambda x: dc.q_posterior(SCHEDULE, x, X, 3),
    "eps_to_x_0": lambda x: dc.eps_to_x_0(SCHEDULE, x, 3, X),
    "v_to_eps": lambda x: dc.v_to_eps(SCHEDULE, X, 3, x),
    "ddpm_step": lambda x: dc.ddpm_step(SCHEDULE, x, X, 3, 2, X),
    "ddpm_step, z": lambda x: dc.ddpm_step(SCHEDULE, X, X, 3, 2, x),
    "ddim_step": lambda x: dc.ddim_step(SCHEDULE, X, x, 3, 2),
    "vlb_terms": lambda x: dc.vlb_terms(MODEL, SCHEDULE, X, eps=x),
    "diffusion_loss": lambda x: dc.diffusion_loss(NET, SCHEDULE, x, LONG, X),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_do_not_fit(name: str) -> None:
    refused(lambda: SHAPES[name](OTHER), r"has shape \(2, 1, 8, \d\), but .* has \(2, 1, 8, \d\); they must be equal")


@pytest.mark.parametrize("name", SHAPES)
def test_bytes_where_floats_are_wanted(name: str) -> None:
    refused(lambda: SHAPES[name](BYTES), r"must be a floating-point tensor, got torch\.uint8; .* x\.float\(\) / 127\.5 - 1")


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "T = 0": (lambda: dc.linear_schedule(0), "T = 0: the number of steps must be an integer >= 1"),
    "T negative": (lambda: dc.quadratic_schedule(-5), "T = -5"),
    "T float": (lambda: dc.sigmoid_schedule(10.0), r"T = 10\.0"),
    "T True": (lambda: dc.cosine_schedule(True), "T = True"),
    "T = 0, cosine": (lambda: dc.cosine_schedule(0), "T = 0"),
    "no betas": (lambda: dc.NoiseSchedule([]), r"T >= 1 numbers, got shape \(0,\)"),
    "betas a number": (lambda: dc.NoiseSchedule(0.1), r"got shape \(\)"),
    "beta = 0": (lambda: dc.NoiseSchedule([0.1, 0.0]), r"beta_2 = 0 is outside \(0, 1\); lower beta_T or use more steps"),
    "beta = 1": (lambda: dc.NoiseSchedule([1.0]), "beta_1 = 1 is outside"),
    "beta > 1": (lambda: dc.linear_schedule(10, 0.1, 1.5), r"beta_\d+ = .* is outside"),
    "beta < 0": (lambda: dc.linear_schedule(10, -0.1, 0.5), "beta_1 = -0.1 is outside"),
    "beta NaN": (lambda: dc.NoiseSchedule([0.1, float("nan")]), "beta_2 = nan is outside"),
    "alpha_bar does not fall": (lambda: dc.NoiseSchedule([0.1, 1e-17]), "does not fall: .* raise it"),
    "alpha_bar underflows": (lambda: dc.linear_schedule(5000, 0.3, 0.9), "underflows|does not fall"),
    "terminal SNR of zero": (lambda: dc.rescale_zero_terminal_snr(SCHEDULE, 0.0), r"alpha_bar_T = 0\.0 must lie in .* 1e-6 and predict v"),
    "terminal SNR of one step": (lambda: dc.rescale_zero_terminal_snr(dc.linear_schedule(1)), "T = 1 has no second value"),
    "num_steps = 0": (lambda: dc.time_grid(10, 0), r"num_steps = 0 must be an integer in 1\.\.T = 1\.\.10"),
    "num_steps > T": (lambda: dc.time_grid(10, 11), "num_steps = 11"),
    "num_steps float": (lambda: dc.time_grid(10, 5.0), r"num_steps = 5\.0"),
    "num_steps True": (lambda: dc.time_grid(10, True), "num_steps = True"),
    "sampler, num_steps > T": (lambda: dc.ddim_sample(MODEL, SCHEDULE, (2, 1, 8, 8), num_steps=50), "num_steps = 50"),
    "sampler, default 50 > T": (lambda: dc.ddim_sample(MODEL, SCHEDULE, (2, 1, 8, 8)), r"1\.\.T = 1\.\.10"),
    "sampler, num_steps = 0": (lambda: dc.ddpm_sample(MODEL, SCHEDULE, (2, 1, 8, 8), num_steps=0), "num_steps = 0"),
    "sampler, grid": (lambda: dc.ddpm_sample(MODEL, SCHEDULE, (2, 1, 8, 8), grid=[3, 5, 0]), r"falls strictly .* see time_grid"),
    "sampler, no start": (lambda: dc.ddpm_sample(MODEL, SCHEDULE), "either shape .* or x_T"),
    "sampler, bytes": (lambda: dc.ddpm_sample(MODEL, SCHEDULE, x_T=BYTES), "x_T must be a floating-point tensor"),
    "step without z": (lambda: dc.ddpm_step(SCHEDULE, X, X, 5, 4, None), r"pass z ~ N\(0, I\)"),
    "eta": (lambda: dc.ddim_step(SCHEDULE, X, X, 5, 4, X, 2.0), r"eta = 2\.0 must lie in \[0, 1\]"),
    "spacing": (lambda: dc.time_grid(10, 5, "even"), "unknown spacing 'even'; known: trailing, leading, linspace, quadratic"),
    "data set": (lambda: load("imagenet"), "unknown data set 'imagenet'; known: digits, mnist5k"),
    "toy": (lambda: toy("star", 10), "unknown toy 'star'; known: ring8"),
    "toy of nothing": (lambda: toy("moons", 0), "n = 0: ask for at least one"),
    "schedule": (lambda: TrainConfig(schedule="const"), "unknown schedule 'const'; known: linear, quadratic, sigmoid, cosine"),
    "prediction": (lambda: dc.as_eps_model(NET, SCHEDULE, "noise"), "unknown prediction 'noise'; known: eps, x_0, v"),
    "prediction, train": (lambda: TrainConfig(prediction="noise"), "unknown prediction"),
    "prediction, loss": (lambda: dc.diffusion_loss(NET, SCHEDULE, X, LONG, X, "noise"), "unknown prediction"),
    "prediction, min-SNR": (lambda: dc.min_snr_weight(SCHEDULE, 3, "noise"), "unknown prediction"),
    "variance": (lambda: dc.reverse_variance(SCHEDULE, 3, 2, "learned"), r"unknown variance 'learned'; known: .* or a function \(t, s\)"),
    "variance, step": (lambda: dc.ddpm_step(SCHEDULE, X, X, 3, 2, X, "learned"), "unknown variance"),
    "variance, bound": (lambda: dc.vlb_terms(MODEL, SCHEDULE, X, "learned"), "unknown variance"),
    "variance 0 in the bound": (lambda: dc.vlb_terms(MODEL, SCHEDULE, X, "posterior"), 'take "posterior_clipped" or "beta"'),
    "variance table": (lambda: dc.vlb_terms(MODEL, SCHEDULE, X, torch.ones(10)), r"T\+1 = 11 entries"),
    "decoder": (lambda: dc.vlb_terms(MODEL, SCHEDULE, X, decoder="pixel"), "unknown decoder 'pixel'; known: gaussian, discrete"),
    "0..255 in the discrete decoder": (lambda: dc.vlb_terms(MODEL, SCHEDULE, X + 255, decoder="discrete"), r"needs x in \[-1, 1\].*127\.5"),
    "bytes in the bound": (lambda: dc.vlb_terms(MODEL, SCHEDULE, BYTES), "x_0 must be a floating-point tensor"),
    "bytes as images": (lambda: check_images(BYTES), r"must be float in \[-1, 1\], got torch\.uint8; scale"),
    "0..255 images": (lambda: check_images(torch.tensor([0.0, 255.0])), r"got 0\.\.255; scale 0\.\.255 by x / 127\.5 - 1"),
    "[0, 1] images": (lambda: check_images(torch.tensor([0.0, 1.0])), r"values in \[0, 1\].*2 \* x - 1"),
    "NaN images": (lambda: check_images(torch.tensor([float("nan"), 0.0])), "must lie in"),
    "no images": (lambda: check_images(torch.zeros(0, 1, 8, 8)), "is empty"),
    "checkpoint missing": (lambda: dc.load_model("/nowhere/run"), "no checkpoint 'model' in /nowhere/run.*train one, or see shipped"),
    "checkpoint not shipped": (lambda: dc.shipped("celeba"), "no shipped checkpoint 'celeba'; shipped:"),
    "batch > data": (
        lambda: dc.train(TrainConfig(net=NET.config, batch_size=5000)),
        "batch_size = 5000 exceeds the 1438 training pictures",
    ),
    "odd image size": (lambda: dc.UNetConfig(image_size=9, multipliers=(1, 2)), "image_size 9 cannot be halved 1 times .* multiple of 2"),
    "wrong picture size": (lambda: NET(torch.zeros(2, 1, 7, 7), LONG), r"takes pictures \(B, 1, H, W\) with H and W .* got \(2, 1, 7, 7\)"),
    "one t for two": (lambda: NET(X, torch.tensor([3])), r"one entry a picture, \(2,\), got \(1,\); use torch\.full"),
    "MLP on pictures": (lambda: dc.MLP()(X, LONG), r"takes points \(B, 2\)"),
    "oracle of another shape": (lambda: MODEL(torch.zeros(2, 64), LONG), r"points of shape \(1, 8, 8\), got a batch .* \(2, 64\)"),
    "weights that do not sum to 1": (lambda: dc.GaussianMixture(torch.ones(2), torch.zeros(2, 2), torch.ones(2)), "sum to 1; divide"),
    "density of points": (lambda: dc.FiniteData(X).log_prob(X), r"no density; ask \.diffused"),
    "steps = 0": (lambda: TrainConfig(steps=0), "steps = 0 must be greater than 0"),
    "EMA decay 1": (lambda: dc.train(TrainConfig(net=NET.config, ema_decay=1.0)), r"ema_decay = 1\.0 must lie in \[0, 1\)"),
    "NaN from the model": (lambda: dc.guard_finite(lambda x, t: x * float("nan"))(X, LONG), "not finite at t = 3"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_the_thing_and_the_way_out(name: str) -> None:
    refused(*CASES[name])


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    dc.save_model(tmp_path, dc.Trained(NET, SCHEDULE))
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    refused(lambda: dc.load_model(tmp_path), f"{re.escape(weights.name)} is damaged: .* take an older checkpoint or train again")
    (tmp_path / "model.json").write_text("{")
    refused(lambda: dc.load_model(tmp_path), r"model\.json is damaged")
