"""All weights in one tensor: the same update as torch's own calls make, the same saved state, and no network that does not fit."""

import copy
import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import NET, TINY, needs_compiler, some_pictures, state, trainer
from torch import Tensor, nn

from ddpm_course import UNet, load_model
from ddpm_course.config import learning_rate
from ddpm_course.ema import ema_of
from ddpm_course.errors import ConfigError
from ddpm_course.runs import pack, unpack
from ddpm_course.side_by_side import SideBySide, can_lie_together, lay_together, pieces

DECAY, LIMIT = 0.6, 1.0


def network() -> nn.Module:
    """Weights of many shapes in another memory layout, buffers, and a weight that gets no gradient."""
    net = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1), nn.Flatten(), nn.Linear(16, 1))
    net.idle = nn.Linear(2, 2)
    return net.to(memory_format=torch.channels_last)


class Trainee:
    """A network with its average and optimiser, updated by torch's calls or side by side."""

    def __init__(self, net: nn.Module, together: bool, weight_decay: float = 0.0) -> None:
        self.net, self.ema = net, ema_of(net, DECAY)
        self.side = SideBySide(net, self.ema, DECAY) if together else None
        weights = [self.side.weights] if self.side else net.parameters()
        self.optimizer = torch.optim.AdamW(weights, lr=0.01, weight_decay=weight_decay, fused=True)

    def step(self, x: Tensor, factor: float) -> float:
        """One update; returns the norm of the gradient."""

        def forward(x: Tensor) -> Tensor:
            for layer in list(self.net)[:5]:
                x = layer(x)
            return x

        (factor * forward(x)).square().mean().backward()
        if self.side:
            norm = self.side.clip(LIMIT)
            self.optimizer.step()
            self.side.average()
        else:
            norm = nn.utils.clip_grad_norm_(self.net.parameters(), LIMIT)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.ema.update_parameters(self.net)
        return float(norm)

    def packed(self) -> dict[str, Tensor]:
        """What a file would hold."""
        return pack(self.net, self.ema, self.optimizer, self.side)


def twins(weight_decay: float = 0.0) -> tuple[Trainee, Trainee]:
    """The same network twice: plain, and side by side."""
    torch.manual_seed(0)
    net = network()
    return Trainee(copy.deepcopy(net), False, weight_decay), Trainee(net, True, weight_decay)


def pictures(step: int) -> Tensor:
    return torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(step)).contiguous(memory_format=torch.channels_last)


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether numbers that both have are the same to rounding."""
    return all(torch.allclose(a[key].float(), b[key].float(), rtol=1e-5, atol=1e-7) for key in a.keys() & b.keys())


def test_an_update_is_the_one_that_torch_makes() -> None:
    plain, laid = twins()
    factors = [0.01, 30.0, 1.0, 0.1, 50.0, 0.02]  # norms on both sides of the limit
    norms = [(plain.step(pictures(i), factor), laid.step(pictures(i), factor)) for i, factor in enumerate(factors)]
    assert all(one == pytest.approx(other, rel=1e-5) for one, other in norms)
    assert min(norms)[0] < LIMIT < max(norms)[0]
    a, b = plain.packed(), laid.packed()
    idle = {f"optimizer.{i}.{name}" for i in (7, 8) for name in ("step", "exp_avg", "exp_avg_sq")}
    assert b.keys() - a.keys() == idle and not a.keys() - b.keys()  # zeros, where torch has nothing
    assert all(not b[key].any() for key in idle if "exp" in key)
    assert close(a, b)
    assert not torch.equal(a["net.0.weight"], a["ema.module.0.weight"]) and int(b["ema.n_averaged"]) == len(factors)
    assert torch.equal(b["ema.module.1.running_mean"], b["net.1.running_mean"]) and int(b["net.1.num_batches_tracked"]) == len(factors)


def test_the_gradients_are_taken_over() -> None:
    _, laid = twins()
    laid.step(pictures(0), 1.0)
    assert all(weight.grad is None for weight in laid.net.parameters())
    laid.net[4].weight.grad = torch.full_like(laid.net[4].weight, 0.25)  # of 16 numbers: a norm of one, and the old gradients are gone
    assert float(laid.side.clip(2.0)) == pytest.approx(1.0)
    assert float(laid.side.weights.grad.norm()) == pytest.approx(1.0) and float(laid.side.clip(2.0)) == 0.0


def test_a_gradient_that_is_not_finite_is_told() -> None:
    for value in (float("nan"), float("inf")):
        _, laid = twins()
        laid.net[4].weight.grad = torch.full_like(laid.net[4].weight, value)
        assert not torch.isfinite(laid.side.clip(1.0))


def test_weights_that_were_moved_away_are_missed() -> None:
    _, laid = twins()
    laid.step(pictures(0), 1.0)
    laid.net.load_state_dict({name: x.clone() for name, x in laid.net.state_dict().items()})
    laid.step(pictures(1), 1.0)
    laid.net.double().float()
    with pytest.raises(ConfigError, match="weights were replaced while it was trained: write into them"):
        laid.step(pictures(2), 1.0)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_a_saved_state_fits_both_ways_of_going_on(first: bool, second: bool) -> None:
    before, after, whole = twins(0.1)[first], twins(0.1)[second], twins(0.1)[second]
    for i in range(6):
        whole.step(pictures(i), 1.0)
    for i in range(3):
        before.step(pictures(i), 1.0)
    unpack(before.packed(), after.net, after.ema, after.optimizer, after.side)
    if first == second:
        assert all(torch.equal(x, after.packed()[key]) for key, x in before.packed().items())
    for i in range(3, 6):
        after.step(pictures(i), 1.0)
    a, b = whole.packed(), after.packed()
    if first == second:
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    else:
        # Weight decay shrinks what has no gradient in one of them, the other leaves it alone.
        idle = [f"{part}.idle.{name}" for part in ("net", "ema.module") for name in ("weight", "bias")]
        idle += [key for key in a if key.startswith(("optimizer.7", "optimizer.8"))]
        assert close({key: x for key, x in a.items() if key not in idle}, b)


@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=6),
    last=st.booleans(),
)
def test_pieces_tile_the_whole_and_keep_shapes_and_layouts(shapes: list[list[int]], last: bool) -> None:
    form = torch.channels_last if last else torch.contiguous_format
    like = [torch.randn(shape).contiguous(memory_format=form if len(shape) == 4 else torch.contiguous_format) for shape in shapes]
    weights = [nn.Parameter(x.clone()) for x in like]
    whole = lay_together(weights)
    assert len(whole) == sum(x.numel() for x in like)
    for x, weight, piece in zip(like, weights, pieces(whole, like), strict=True):
        assert torch.equal(x, weight) and weight.shape == x.shape and (not x.numel() or weight.stride() == x.stride())
        assert piece.data_ptr() == weight.data_ptr()
    whole.copy_(torch.arange(len(whole)))
    everything = torch.cat([weight.detach().flatten() for weight in weights])
    assert sorted(everything.tolist()) == list(range(len(whole)))


def test_what_does_not_fit_together_is_left_alone() -> None:
    def changed(change: str) -> nn.Module:
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        if change == "frozen":
            net[0].weight.requires_grad_(False)
        elif change == "16 bit":
            net[0].to(torch.bfloat16)
        elif change == "part of another":
            net[0].bias = nn.Parameter(net[1].weight.data[0])
        elif change == "with holes":
            net[0].weight = nn.Parameter(torch.randn(4, 8)[:, ::2])
        elif change == "the same twice":
            net[1].weight = net[0].weight
        return net

    wanted = {"none": True, "the same twice": True, "frozen": False, "16 bit": False, "part of another": False, "with holes": False}
    assert {change: can_lie_together(changed(change)) for change in wanted} == wanted
    net = changed("the same twice")
    lay_together(list(net.parameters()))
    assert net[0].weight is net[1].weight and can_lie_together(net)  # once more: a second training of one network
    ends = sorted((w.data_ptr(), w.data_ptr() + w.nbytes) for w in net.parameters())
    assert all(one[1] == other[0] for one, other in pairwise(ends))


@needs_compiler
def test_a_compiled_run_on_a_cpu_is_updated_side_by_side_and_resumes(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, net=dataclasses.replace(NET, dropout=0.0), compile="default", out=str(tmp_path), save_every=8)
    plain = dataclasses.replace(config, compile="off", channels_last=True, out=None)
    run, other = trainer.Run(config, some_pictures()), trainer.Run(plain, some_pictures())
    assert run.side is not None and other.side is None
    for each in (run, other):
        each.one_step()
    run.save()
    saved, wanted = state(tmp_path), pack(other.raw, other.ema, other.optimizer.optimizer)
    assert not saved.keys() ^ wanted.keys()
    gradients = [(saved[key], wanted[key]) for key in saved if key.endswith("exp_avg")]  # a tenth of them
    assert max(float((a - b).abs().max()) for a, b in gradients) < 1e-5 < 1e-3 < max(float(a.abs().max()) for a, _ in gradients)
    for each in (run, other):
        each.one_step()
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(run.raw.parameters(), other.raw.parameters(), strict=True)])
    assert moved.mean() < 0.01 * learning_rate(config, 1)
    run.save()
    saved = state(tmp_path)
    published = load_model(tmp_path).net
    assert isinstance(published, UNet) and all(torch.equal(x, saved[f"ema.module.{k}"]) for k, x in published.state_dict().items())
    again = trainer.Run(config, some_pictures())
    again.resume()
    assert again.step == 2 and all(
        torch.equal(x, saved[k]) for k, x in pack(again.raw, again.ema, again.optimizer.optimizer, again.side).items()
    )
    run.one_step(), again.one_step()
    assert torch.equal(run.side.weights, again.side.weights) and torch.equal(run.side.averages, again.side.averages)
