"""What holds for every sampler: any shape and type, one generator one result, and a kernel that survives Ctrl-C."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm_course import (
    MLP,
    GaussianMixture,
    UNet,
    UNetConfig,
    as_eps_model,
    ddim_invert,
    ddim_sample,
    ddpm_sample,
    dpm_solver_sample,
    heun_sample,
    linear_schedule,
    time_grid,
    trajectory,
)
from ddpm_course.prediction import EpsModel
from ddpm_course.sampling import ddim_stepper, ddpm_stepper
from ddpm_course.solvers import dpm_solver_stepper, heun_stepper

SCHEDULE = linear_schedule(100)
GRID = time_grid(100, 6)
SHAPES = [(3, 2), (2, 3, 5), (2, 1, 4, 4)]
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "DDPM": lambda model, **more: ddpm_sample(model, SCHEDULE, grid=GRID, **more),
    "DDPM, beta": lambda model, **more: ddpm_sample(model, SCHEDULE, grid=GRID, variance="beta", **more),
    "DDIM": lambda model, **more: ddim_sample(model, SCHEDULE, grid=GRID, **more),
    "DDIM, eta 0.5": lambda model, **more: ddim_sample(model, SCHEDULE, grid=GRID, eta=0.5, **more),
    "Heun": lambda model, **more: heun_sample(model, SCHEDULE, grid=GRID, **more),
    "2M": lambda model, **more: dpm_solver_sample(model, SCHEDULE, grid=GRID, **more),
}
STEPPERS = {"DDPM": ddpm_stepper, "DDIM": ddim_stepper, "Heun": heun_stepper, "2M": dpm_solver_stepper}
RANDOM = {"DDPM", "DDPM, beta", "DDIM, eta 0.5"}
each_sampler = pytest.mark.parametrize("name", SAMPLERS)
each_shape = pytest.mark.parametrize("shape", SHAPES)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def seed(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def oracle(shape: tuple[int, ...]) -> EpsModel:
    """Three clusters of points of this shape."""
    means = torch.randn(3, *shape[1:], generator=seed(9), dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.2, 0.3, 0.5]), means, torch.full((3,), 0.2)).eps_model(SCHEDULE)


def closure(x_t: Tensor, t: Tensor) -> Tensor:
    """A plain function as model, on whatever device."""
    return x_t * (0.3 + 0.5 * t.to(x_t).reshape(-1, *[1] * (x_t.ndim - 1)) / 100)


@each_sampler
@each_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_type_are_kept(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x_T = torch.randn(shape, generator=seed(0), dtype=dtype)
    untouched = x_T.clone()
    x_0 = SAMPLERS[name](oracle(shape), x_T=x_T, generator=seed(1))
    assert x_0.shape == shape and x_0.dtype == dtype and bool(x_0.isfinite().all())
    assert torch.equal(x_T, untouched)
    fresh = SAMPLERS[name](oracle(shape), shape=shape, generator=seed(1))
    assert fresh.shape == shape and fresh.dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in RANDOM])
@each_shape
def test_float32_is_float64_rounded(name: str, shape: tuple[int, ...]) -> None:
    x_T = torch.randn(shape, generator=seed(0))
    coarse, fine = SAMPLERS[name](oracle(shape), x_T=x_T), SAMPLERS[name](oracle(shape), x_T=x_T.double())
    assert 0 < float((coarse - fine).abs().max()) < 1e-4


NETS = [
    (closure, (2, 3, 5), ("eps", "x_0", "v")),
    (MLP(dim=2, width=8).eval(), (3, 2), ("eps",)),
    (UNet(UNetConfig(4, 1, 8, (1,), 1, (), groups=4)).eval(), (2, 1, 4, 4), ("v",)),
]


@each_sampler
def test_every_kind_of_model(name: str) -> None:
    """A function, an MLP, a U-Net in either precision, and all three predictions."""
    for net, shape, predictions in NETS:
        for prediction in predictions:
            for dtype in (torch.float32, torch.float64):
                model = net.to(dtype) if isinstance(net, torch.nn.Module) else net
                x_T = torch.randn(shape, generator=seed(0), dtype=dtype)
                x_0 = SAMPLERS[name](as_eps_model(model, SCHEDULE, prediction), x_T=x_T, generator=seed(1))
                assert x_0.dtype == dtype and bool(x_0.isfinite().all())


@each_sampler
@each_shape
@pytest.mark.parametrize("device", DEVICES)
def test_same_generator_same_samples(name: str, shape: tuple[int, ...], device: str) -> None:
    model = closure if device == "cuda" else oracle(shape)
    noise = torch.randn(shape, generator=seed(0)).to(device)
    run = lambda k: SAMPLERS[name](model, x_T=noise, generator=torch.Generator(device).manual_seed(k))  # noqa: E731
    assert torch.equal(run(1), run(1)) and run(1).device.type == device
    assert torch.equal(run(1), run(2)) == (name not in RANDOM)
    free = lambda k: SAMPLERS[name](model, shape=shape, generator=seed(k))  # noqa: E731
    if device == "cpu":
        assert torch.equal(free(1), free(1)) and not torch.equal(free(1), free(2))


@each_sampler
def test_the_global_generator_is_not_used_when_one_is_given(name: str) -> None:
    before = torch.get_rng_state()
    SAMPLERS[name](closure, shape=(2, 3), generator=seed(1))
    assert torch.equal(torch.get_rng_state(), before)


def interrupted(calls: int) -> EpsModel:
    """A model during whose n-th call the reader presses Ctrl-C."""
    left = [calls]

    def eps_model(x_t: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return closure(x_t, t)

    return eps_model


@each_sampler
@pytest.mark.parametrize("calls", [1, 2, 5])
@pytest.mark.parametrize("grad", [True, False])
def test_ctrl_c_leaves_everything_as_it_was(name: str, calls: int, grad: bool) -> None:
    before = torch.get_rng_state()
    wanted = SAMPLERS[name](closure, shape=(2, 3), generator=seed(1))
    with torch.set_grad_enabled(grad):
        with pytest.raises(KeyboardInterrupt):
            SAMPLERS[name](interrupted(calls), shape=(2, 3), generator=seed(1))
        assert torch.is_grad_enabled() == grad and not torch.is_inference_mode_enabled()
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(SAMPLERS[name](closure, shape=(2, 3), generator=seed(1)), wanted)
    weight = torch.ones(2, requires_grad=True)
    (weight**2).sum().backward()
    assert torch.equal(weight.grad, torch.full((2,), 2.0))


def test_ctrl_c_during_inversion() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        ddim_invert(interrupted(3), SCHEDULE, torch.randn(2, 3, generator=seed(0)), grid=GRID)
    assert torch.is_grad_enabled() and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", STEPPERS)
def test_leaving_a_trajectory_in_the_middle(name: str) -> None:
    """`break`, or Ctrl-C in the reader's own loop body: the generator is dropped half-way."""
    model = interrupted(100)
    for k, (t, x_t, x_0_hat) in enumerate(trajectory(STEPPERS[name](model, SCHEDULE), torch.zeros(2, 3), GRID)):
        assert torch.is_grad_enabled() and x_t.shape == x_0_hat.shape == (2, 3) and t == int(GRID[k])
        if k == 2:
            break
    assert torch.is_grad_enabled()
    with pytest.raises(KeyboardInterrupt):
        for _ in trajectory(STEPPERS[name](model, SCHEDULE), torch.zeros(2, 3), GRID):
            raise KeyboardInterrupt
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", STEPPERS)
def test_a_trajectory_shows_each_step(name: str) -> None:
    seen = [(t, x) for t, x, _ in trajectory(STEPPERS[name](closure, SCHEDULE), torch.ones(2, 3), GRID)]
    assert [t for t, _ in seen] == GRID.tolist() and torch.equal(seen[0][1], torch.ones(2, 3))
    assert all(not torch.equal(a, b) for (_, a), (_, b) in zip(seen, seen[1:], strict=False))
