"""eps, x_0, v and the score: every conversion against 40 digits, every cycle back to where it began."""

from functools import lru_cache
from itertools import permutations

import mpmath as mp
import pytest
import reference
import torch
from torch import Tensor

from ddpm_course import (
    NoiseSchedule,
    UNet,
    UNetConfig,
    as_eps_model,
    clip_x_0,
    eps_to_score,
    eps_to_v,
    eps_to_x_0,
    guard_finite,
    linear_schedule,
    rescale_zero_terminal_snr,
    v_to_eps,
    v_to_x_0,
    x_0_to_eps,
    x_0_to_v,
)
from ddpm_course.errors import CourseError, NonFiniteError, ShapeError, TimestepError
from ddpm_course.prediction import TO_EPS, compiled, keep_eps, target
from ddpm_course.schedule import SCHEDULES

ALL = torch.arange(1, 1001)
SCHEDULE = {name: make() for name, make in SCHEDULES.items()}
SCHEDULE["zero_terminal_snr"] = rescale_zero_terminal_snr(linear_schedule())
CONVERT = {
    ("eps", "x_0"): eps_to_x_0,
    ("x_0", "eps"): x_0_to_eps,
    ("v", "eps"): v_to_eps,
    ("eps", "v"): eps_to_v,
    ("v", "x_0"): v_to_x_0,
    ("x_0", "v"): x_0_to_v,
}
CYCLES = [(*p, p[0]) for n in (2, 3) for p in permutations(("eps", "x_0", "v"), n)]
each_schedule = pytest.mark.parametrize("name", SCHEDULE)


@lru_cache
def shares(name: str) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar), (1000, 1) float64."""
    known = name in reference.NAMES
    bars = reference.alpha_bars(name)[1:] if known else [mp.mpf(float(b)) for b in SCHEDULE[name].alpha_bar[1:]]
    return tuple(reference.tensor([mp.sqrt(x) for x in part])[:, None] for part in (bars, [1 - b for b in bars]))


@lru_cache
def truth(name: str, dtype: torch.dtype, width: int = 16) -> dict[str, Tensor]:
    """All quantities at every t, computed in float64 without the package, then rounded."""
    generator, (signal, noise) = torch.Generator().manual_seed(0), shares(name)
    x_0 = (torch.rand(1000, width, generator=generator) * 2 - 1).to(dtype).double()
    eps = torch.randn(1000, width, generator=generator).to(dtype).double()
    x_t, v = signal * x_0 + noise * eps, signal * eps - noise * x_0
    return {key: x.to(dtype) for key, x in {"x_0": x_0, "eps": eps, "x_t": x_t, "v": v}.items()}


def error(name: str, got: Tensor, wanted: Tensor, known: dict[str, Tensor]) -> float:
    """The accept list's measure: error * min(signal, noise) / (1 + |x_0| + |eps| + |x_t|)."""
    size = 1 + sum(known[key].double().abs() for key in ("x_0", "eps", "x_t"))
    return float(((got.double() - wanted.double()).abs() * torch.minimum(*shares(name)) / size).max())


@each_schedule
@pytest.mark.parametrize("cycle", CYCLES, ids="-".join)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
def test_round_trips(name: str, cycle: tuple[str, ...], dtype: torch.dtype, tolerance: float) -> None:
    known = truth(name, dtype)
    value = known[cycle[0]]
    for here, there in zip(cycle, cycle[1:], strict=False):
        value = CONVERT[here, there](SCHEDULE[name], known["x_t"], ALL, value)
        assert value.dtype == dtype
    assert error(name, value, known[cycle[0]], known) <= tolerance


@each_schedule
@pytest.mark.parametrize("pair", CONVERT, ids="-".join)
def test_each_conversion_tells_the_truth(name: str, pair: tuple[str, str]) -> None:
    for dtype, tolerance in [(torch.float64, 1e-13), (torch.float32, 1e-6)]:  # 1 - alpha_bar has 12 digits in float64
        known = truth(name, dtype)
        got = CONVERT[pair](SCHEDULE[name], known["x_t"], ALL, known[pair[0]])
        assert error(name, got, known[pair[1]], known) <= tolerance


@pytest.mark.parametrize("pair", CONVERT, ids="-".join)
def test_int_time_equals_tensor_time(pair: tuple[str, str]) -> None:
    known = truth("linear", torch.float64)
    for t in (1, 2, 500, 1000):
        x_t, value = known["x_t"][t - 1 : t, None], known[pair[0]][t - 1 : t, None]
        by_int = CONVERT[pair](SCHEDULE["linear"], x_t, t, value)
        by_tensor = CONVERT[pair](SCHEDULE["linear"], x_t, torch.tensor([t]), value)
        torch.testing.assert_close(by_int, by_tensor, rtol=1e-13, atol=0)
        torch.testing.assert_close(by_int[:, 0], known[pair[1]][t - 1 : t], rtol=0, atol=1e-11)


@each_schedule
def test_score_is_the_gradient_of_log_q(name: str) -> None:
    known, (signal, noise) = truth(name, torch.float64), shares(name)
    x_t = known["x_t"].clone().requires_grad_()
    log_q = -((x_t - signal * known["x_0"]) ** 2 / (2 * noise**2)).sum()
    (gradient,) = torch.autograd.grad(log_q, x_t)
    torch.testing.assert_close(eps_to_score(SCHEDULE[name], x_t.detach(), ALL, known["eps"]), gradient, rtol=1e-7, atol=1e-7)


@each_schedule
@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_targets(name: str, prediction: str) -> None:
    known = truth(name, torch.float64)
    got = target(SCHEDULE[name], known["x_0"], ALL, known["eps"], prediction)
    torch.testing.assert_close(got, known[prediction], rtol=0, atol=1e-12)


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_any_network_becomes_an_eps_model(prediction: str) -> None:
    known, seen = truth("cosine", torch.float64), {}

    def net(x_t: Tensor, t: Tensor, y: int) -> Tensor:
        seen.update(x_t=x_t, t=t, y=y)
        return known[prediction]

    got = as_eps_model(net, SCHEDULE["cosine"], prediction, y=3)(known["x_t"], ALL)
    assert seen["y"] == 3 and seen["x_t"] is known["x_t"] and seen["t"] is ALL
    assert error("cosine", got, known["eps"], known) <= 1e-13


def test_a_half_precision_answer_is_raised_to_the_type_of_x_t() -> None:
    x_t = torch.zeros(2, 3)
    eps_model = as_eps_model(lambda x, t: x.to(torch.bfloat16), linear_schedule(5))
    assert eps_model(x_t, torch.tensor([1, 5])).dtype == torch.float32


def test_eps_is_eps_and_the_default() -> None:
    x_t, value, schedule = torch.zeros(1, 2), torch.ones(1, 2), linear_schedule(5)
    assert keep_eps(schedule, x_t, 3, value) is value
    assert set(TO_EPS) == {"eps", "x_0", "v"}
    assert torch.equal(as_eps_model(lambda x, t: value, schedule)(x_t, torch.tensor([3])), value)
    assert target(schedule, x_t, torch.tensor([3]), value) is value


def test_clipping_moves_only_what_is_outside() -> None:
    schedule, t, bar = linear_schedule(), torch.full((3,), 400), float(reference.alpha_bars("linear")[400])
    x_0_hat, x_t = torch.tensor([[[-1.7], [0.4], [1.2]], [[0.3], [-0.2], [0.9]]], dtype=torch.float64)
    eps = (x_t - bar**0.5 * x_0_hat) / (1 - bar) ** 0.5
    for limits, inside in [({}, [-1.0, 0.4, 1.0]), ({"low": 0.0, "high": 0.1}, [0.0, 0.1, 0.1])]:
        clipped = clip_x_0(lambda x, t: eps, schedule, **limits)(x_t, t)
        wanted = (x_t - bar**0.5 * torch.tensor(inside, dtype=torch.float64)[:, None]) / (1 - bar) ** 0.5
        torch.testing.assert_close(clipped, wanted, rtol=0, atol=1e-12)


def test_guard_names_the_time() -> None:
    x, eps = torch.zeros(2, 2), torch.ones(2, 2)
    assert guard_finite(lambda x, t: eps)(x, torch.tensor([7, 7])) is eps
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError, match="t = 7"):
            guard_finite(lambda x, t, bad=bad: x + torch.tensor([0.0, bad]))(x, torch.tensor([7, 7]))


def test_refusals() -> None:
    schedule, x = NoiseSchedule([0.1, 0.2]), torch.zeros(2, 3)
    for convert in (*CONVERT.values(), eps_to_score):
        for t in (0, 3, torch.tensor([1, 3])):
            with pytest.raises(TimestepError):
                convert(schedule, x, t, x)
        with pytest.raises(ShapeError, match="value has shape"):
            convert(schedule, x, 1, x[:1])
    for bad in (lambda: as_eps_model(None, schedule, "x0"), lambda: target(schedule, x, 1, x, "noise")):
        with pytest.raises(CourseError, match="unknown prediction"):
            bad()


def test_a_compiled_network_answers_the_same_and_in_memory_of_its_own() -> None:
    memory = torch.zeros(2, 3)

    def net(x_t: Tensor, t: Tensor, scale: float = 1.0) -> Tensor:
        memory.copy_(scale * x_t * t[:, None])  # as a CUDA graph does, every answer goes to the same place
        return memory

    fast, x, t = compiled(net, mode=None, backend="eager"), torch.randn(2, 3), torch.tensor([1, 2])
    first = fast(x, t)
    kept = first.clone()
    torch.testing.assert_close(fast(x, t, scale=2.0), 2 * kept)
    assert torch.equal(first, kept)


def test_a_compiled_network_is_compiled_in_the_mode_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda net, **options: asked.append(options) or net)
    compiled(lambda x, t: x), compiled(lambda x, t: x, mode="max-autotune")
    assert asked == [{"mode": "reduce-overhead"}, {"mode": "max-autotune"}]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_on_a_gpu_answers_like_the_network() -> None:
    torch.manual_seed(0)
    net = UNet(UNetConfig.digits()).cuda().eval()
    fast = compiled(net)
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        asked = [(torch.randn(4, 1, 8, 8, device="cuda"), torch.randint(1, 1001, (4,), device="cuda")) for _ in range(4)]
        answers = [fast(x, t) for x, t in asked]  # kept over later calls, which reuse the graph's memory
        for (x, t), answer in zip(asked, answers, strict=True):
            torch.testing.assert_close(answer, net(x, t), rtol=1e-3, atol=1e-3)
