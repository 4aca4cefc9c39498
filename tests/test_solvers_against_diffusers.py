"""Whole trajectories against the most used library: same network, same noise, same grid, our float64 tables put into it.

Where it is right we agree with it. Where it errs, the oracle says who is right.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler  # noqa: E402

from ddpm_course import (  # noqa: E402
    ExactGaussian,
    FiniteData,
    GaussianMixture,
    UNet,
    UNetConfig,
    as_eps_model,
    cosine_schedule,
    ddim_sample,
    ddpm_sample,
    dpm_solver_sample,
    linear_schedule,
    time_grid,
    trajectory,
)
from ddpm_course.prediction import EpsModel  # noqa: E402
from ddpm_course.sampling import ddim_stepper, ddpm_stepper  # noqa: E402
from ddpm_course.schedule import NoiseSchedule  # noqa: E402
from ddpm_course.solvers import dpm_solver_stepper, sigma_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # their own, under NumPy 2
OURS = {"linear": linear_schedule, "cosine": cosine_schedule}
THEIRS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
RING = GaussianMixture(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.3], [0.8, -0.2]]), torch.tensor([0.3, 0.1]))


def seed(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def unet(schedule: NoiseSchedule) -> EpsModel:
    """A small U-Net with random weights, in float64: the same network on both sides."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4)).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seed(1), dtype=parameter.dtype))
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) > 5
    return as_eps_model(net, schedule)


MODELS: dict[str, tuple[Callable[[NoiseSchedule], EpsModel], tuple[int, ...]]] = {
    "oracle": (RING.eps_model, (64, 2)),
    "U-Net": (unet, (2, 1, 8, 8)),
}
each_schedule = pytest.mark.parametrize("name", OURS)


def scheduler(kind: type, name: str, S: int, spacing: str = "trailing", **more: object) -> DDPMScheduler | DDIMScheduler:
    """Their scheduler with our float64 tables, on its own grid of S times."""
    built = kind(beta_start=1e-4, beta_end=0.02, beta_schedule=THEIRS[name], timestep_spacing=spacing, clip_sample=False, **more)
    built.set_timesteps(S)
    ours = OURS[name]()
    built.betas, built.alphas, built.alphas_cumprod = ours.beta[1:], ours.alpha[1:], ours.alpha_bar[1:]
    built.one = built.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return built


def walk(theirs: DDPMScheduler | DDIMScheduler, eps_model: EpsModel, x: Tensor, **more: object) -> Iterator[Tensor]:
    """Their loop, as their pipelines write it, with our t = their t + 1."""
    for t in theirs.timesteps:
        x = theirs.step(eps_model(x, torch.full((len(x),), int(t) + 1)), int(t), x, **more).prev_sample
        yield x


def start(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=seed(3), dtype=torch.float64)


def furthest(ours: Iterator[tuple[int, Tensor, Tensor]], theirs: Iterator[Tensor]) -> float:
    """The largest difference at any time of two trajectories, relative where the state exceeds 1."""
    states = [x for _, x, _ in ours][1:]
    differences = [float((a - b).abs().max() / max(1.0, float(b.abs().max()))) for a, b in zip(states, theirs, strict=True)]
    return max(differences)


# --- where they are right --------------------------------------------------------------------------------------------


@torch.no_grad()
@each_schedule
@pytest.mark.parametrize(("kind", "variance"), [("fixed_small", "posterior"), ("fixed_large", "beta")])
@pytest.mark.parametrize(("model", "S"), [("oracle", 1000), ("oracle", 50), ("oracle", 30), ("U-Net", 8)])
def test_ddpm_trajectory(model: str, name: str, kind: str, variance: str, S: int) -> None:
    (build, shape), schedule = MODELS[model], OURS[name]()
    eps_model, theirs, grid = build(schedule), scheduler(DDPMScheduler, name, S, variance_type=kind), time_grid(1000, S)
    assert (theirs.timesteps + 1).tolist() == grid.tolist()[:-1]
    if kind == "fixed_large" and S < 1000:
        _without_the_last_noise(theirs)
    ours = trajectory(ddpm_stepper(eps_model, schedule, variance, seed(4)), start(shape), grid)
    assert furthest(ours, walk(theirs, eps_model, start(shape), generator=seed(4))) < 1e-9


def _without_the_last_noise(theirs: DDPMScheduler) -> None:
    """Their fixed_large adds noise at the last step of a respaced grid, a fault shown below: take it away to compare the rest."""
    known, end = theirs._get_variance, int(theirs.timesteps[-1])
    theirs._get_variance = lambda t, **more: torch.tensor(0.0, dtype=torch.float64) if t == end else known(t, **more)


@torch.no_grad()
@each_schedule
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("model", "spacing", "S"), [("oracle", "trailing", 50), ("oracle", "trailing", 20), ("oracle", "leading", 50), ("U-Net", "trailing", 8)]
)
def test_ddim_trajectory(model: str, name: str, eta: float, spacing: str, S: int) -> None:
    (build, shape), schedule = MODELS[model], OURS[name]()
    eps_model, theirs, grid = build(schedule), scheduler(DDIMScheduler, name, S, spacing), time_grid(1000, S, spacing)
    assert (theirs.timesteps + 1).tolist() == grid.tolist()[:-1]
    ours = trajectory(ddim_stepper(eps_model, schedule, eta, seed(4)), start(shape), grid)
    assert furthest(ours, walk(theirs, eps_model, start(shape), eta=eta, generator=seed(4))) < 1e-9


def multistep(name: str, grid: Tensor, **more: object) -> DPMSolverMultistepScheduler:
    """Their 2M on our grid, with our float64 sigmas."""
    settings = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "final_sigmas_type": "zero"} | more
    built, schedule = DPMSolverMultistepScheduler(**settings), OURS[name]()  # its own tables go unused: a step reads the sigmas only
    built.set_timesteps(timesteps=[int(t) - 1 for t in grid[:-1]])
    built.sigmas = torch.tensor([sigma_of(schedule, int(t)) for t in grid], dtype=torch.float64)
    return built


class Wide(Tensor):
    """A float64 tensor that stays one: their step() casts every state to float32."""

    def to(self, *args: object, **kwargs: object) -> Tensor:
        """self, if float32 is asked for."""
        return self if args == (torch.float32,) else super().to(*args, **kwargs)


def walk_wide(theirs: DPMSolverMultistepScheduler, eps_model: EpsModel, x: Tensor) -> Iterator[Tensor]:
    """Their loop, in float64 throughout."""
    for t in theirs.timesteps:
        eps = eps_model(x, torch.full((len(x),), int(t) + 1))
        x = theirs.step(eps, t, x.as_subclass(Wide)).prev_sample.as_subclass(Tensor)
        yield x


UNEVEN = torch.tensor([1000, 970, 700, 650, 300, 40, 30, 1, 0])
WALKS = [*(("oracle", time_grid(1000, S)) for S in (5, 14, 15, 20, 50)), ("oracle", UNEVEN), ("U-Net", UNEVEN)]


@torch.no_grad()
@each_schedule
@pytest.mark.parametrize(("model", "grid"), WALKS, ids=[f"{model} {len(grid) - 1}" for model, grid in WALKS])
@pytest.mark.parametrize("lower", [True, False])
def test_dpm_solver_trajectory(model: str, name: str, grid: Tensor, lower: bool) -> None:
    (build, shape), schedule = MODELS[model], OURS[name]()
    eps_model = build(schedule)
    ours = [*trajectory(dpm_solver_stepper(eps_model, schedule), start(shape), grid)]
    assert furthest(iter(ours), walk_wide(multistep(name, grid, lower_order_final=lower), eps_model, start(shape))) < 1e-9
    scale = max(float(x.abs().max()) for _, x, _ in ours)
    as_is = [*walk(multistep(name, grid, lower_order_final=lower), eps_model, start(shape))][-1]
    assert as_is.dtype == torch.float64 and float((ours[-1][1] - as_is).abs().max()) < 1e-4 * max(1.0, scale)  # float32 inside


@torch.no_grad()
def test_dpm_solver_comparison_would_notice() -> None:
    schedule, grid = linear_schedule(), time_grid(1000, 20)
    ours = [*trajectory(dpm_solver_stepper(RING.eps_model(schedule), schedule), start((64, 2)), grid)]
    for other in ({"solver_order": 1}, {"solver_type": "heun"}, {"final_sigmas_type": "sigma_min"}):
        theirs = multistep("linear", grid, **other)
        if "final_sigmas_type" in other:
            theirs.sigmas[-1] = sigma_of(schedule, 1)
        assert furthest(iter(ours), walk_wide(theirs, RING.eps_model(schedule), start((64, 2)))) > 1e-4, other


# --- where they are wrong, by the oracle -----------------------------------------------------------------------------


@torch.no_grad()
def test_their_fixed_large_ends_in_noise_and_ours_on_the_data() -> None:
    points, schedule = torch.tensor([[-1.0, 0.5], [0.8, -0.3]], dtype=torch.float64), linear_schedule()
    eps_model = FiniteData(points).eps_model(schedule)
    theirs = scheduler(DDPMScheduler, "linear", 50, variance_type="fixed_large")
    x = [*walk(theirs, eps_model, start((400, 2)), generator=seed(4))][-1]
    ours = ddpm_sample(eps_model, schedule, x_T=start((400, 2)), num_steps=50, variance="beta", generator=seed(4))
    off = lambda x: float(torch.cdist(x, points).min(1).values.square().mean() / 2) ** 0.5  # noqa: E731
    assert off(ours) < 1e-6
    assert abs(off(x) / (1 - schedule.at(20)) ** 0.5 - 1) < 0.1  # beta of the jump from 20 to 0, left in every picture


def exact_end(x: Tensor, schedule: NoiseSchedule, first: int, var: float, mean: float) -> Tensor:
    """Where the exact path of data N(mean, var) ends that is at x at time `first`."""
    bar = schedule.at(first)
    return mean + (x - bar**0.5 * mean) * (var / (bar * var + 1 - bar)) ** 0.5


@torch.no_grad()
@pytest.mark.parametrize(("spacing", "S"), [("trailing", 300), ("trailing", 600), ("trailing", 700), ("linspace", 600)])
def test_their_ddim_with_a_wrong_neighbour_is_far_from_the_exact_path(spacing: str, S: int) -> None:
    """Below S = 100 the slip and DDIM's own error may cancel by chance; with more steps ours vanishes, theirs stays."""
    schedule, data = linear_schedule(), ExactGaussian(torch.tensor([0.5]), torch.tensor([[0.25]]))
    eps_model, x = data.eps_model(schedule), start((500, 1))
    theirs = scheduler(DDIMScheduler, "linear", S, spacing)
    grid = torch.tensor([*(theirs.timesteps + 1).tolist(), 0])
    wanted = exact_end(x, schedule, int(grid[0]), 0.25, 0.5)
    end = [*walk(theirs, eps_model, x)][-1]
    ours = ddim_sample(eps_model, schedule, x_T=x, grid=grid)
    miss = lambda got: float((got - wanted).abs().mean())  # noqa: E731
    assert 5 * miss(ours) < miss(end) and miss(ours) < 0.005


@torch.no_grad()
@pytest.mark.parametrize(("spacing", "S"), [("trailing", 30), ("linspace", 50)])
def test_on_one_point_every_ddim_step_is_exact_and_theirs_is_at_another_noise_level(spacing: str, S: int) -> None:
    schedule, point = linear_schedule(), torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    eps_model, noise = FiniteData(point).eps_model(schedule), start((20, 2))
    theirs = scheduler(DDIMScheduler, "linear", S, spacing)
    grid = torch.tensor([*(theirs.timesteps + 1).tolist(), 0])
    exact = [schedule.at(int(t)) ** 0.5 * point + (1 - schedule.at(int(t))) ** 0.5 * noise for t in grid]
    ours = [x for _, x, _ in trajectory(ddim_stepper(eps_model, schedule), exact[0], grid)]
    off = lambda path: [float((a - b).abs().max()) for a, b in zip(path, exact[1:-1], strict=True)]  # noqa: E731
    assert max(off(ours[1:-1])) < 1e-9
    assert sum(d > 1e-3 for d in off([*walk(theirs, eps_model, exact[0])][:-1])) > S / 2


@torch.no_grad()
def test_their_fixed_large_log_is_nan_for_a_whole_trajectory() -> None:
    theirs = scheduler(DDPMScheduler, "linear", 50, variance_type="fixed_large_log")
    x = [*walk(theirs, RING.eps_model(linear_schedule()), start((4, 2)), generator=seed(4))][-1]
    assert bool(x.isnan().all())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["ddim", "2M"])
def test_their_leading_grid_never_sees_T_and_loses_the_mean(kind: str) -> None:
    schedule, data = cosine_schedule(), ExactGaussian(torch.tensor([1.0]), torch.tensor([[0.25]]))
    eps_model, x = data.eps_model(schedule), start((2000, 1))
    x = x - x.mean()
    if kind == "ddim":
        theirs = scheduler(DDIMScheduler, "cosine", 10, "leading")
        end, ours = [*walk(theirs, eps_model, x)][-1], ddim_sample(eps_model, schedule, x_T=x, num_steps=10)
    else:
        theirs = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="leading")
        theirs.set_timesteps(10)
        end, ours = [*walk(theirs, eps_model, x)][-1], dpm_solver_sample(eps_model, schedule, x_T=x, num_steps=10)
    assert int(theirs.timesteps.max()) + 1 < 960
    assert abs(float(ours.mean()) - 1) < 0.01 < 0.04 < 1 - float(end.mean())


@torch.no_grad()
def test_their_tables_in_float32_cost_more_than_float32_does() -> None:
    schedule = cosine_schedule()
    eps_model, grid = FiniteData(torch.tensor([[-1.0], [1.0]])).eps_model(schedule), torch.tensor([20, 10, 5, 2, 1, 0])
    x = schedule.at(20) ** 0.5 + (1 - schedule.at(20)) ** 0.5 * start((200, 1))
    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    fine = ddim_sample(eps_model, schedule, x_T=x, grid=grid)
    single = ddim_sample(eps_model, schedule, x_T=x.float(), grid=grid)
    assert float((single - fine).abs().max()) < 1e-6
    noise = 1 - theirs.alphas_cumprod[0].double()
    assert abs(float(noise) / (1 - schedule.at(1)) - 1) > 4e-4


# --- the same numbers in another library's words ---------------------------------------------------------------------


def test_sigmas_and_log_snr_are_theirs() -> None:
    theirs, schedule = DPMSolverMultistepScheduler(beta_schedule="linear"), linear_schedule()
    for t in (1, 10, 500, 1000):
        assert sigma_of(schedule, t) == pytest.approx(float(theirs.sigma_t[t - 1] / theirs.alpha_t[t - 1]), rel=1e-3)
