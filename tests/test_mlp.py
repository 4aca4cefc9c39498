"""The toy's network."""

import pytest
import torch

from ddpm_course import MLP
from ddpm_course.errors import ShapeError


def net(**size: int) -> MLP:
    torch.manual_seed(0)
    return MLP(**({"width": 16, "num_blocks": 2} | size))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_points_in_points_out(dim: int) -> None:
    y = net(dim=dim)(torch.randn(4, dim), torch.tensor([1, 2, 500, 1000]))
    assert y.shape == (4, dim) and bool(torch.isfinite(y).all())


@torch.no_grad()
def test_each_point_is_alone_and_knows_its_time() -> None:
    f, x, t = net(), torch.randn(3, 2), torch.tensor([1, 20, 300])
    torch.testing.assert_close(f(x, t), torch.cat([f(x[i : i + 1], t[i : i + 1]) for i in range(3)]), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(f(x, t), f(x, t.flip(0)))


def test_every_parameter_has_a_gradient_and_octaves_are_no_weights() -> None:
    f = net()
    f(torch.randn(8, 2), torch.arange(1, 9)).square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in f.parameters())
    assert not any("octaves" in key for key in f.state_dict())
    assert f.octaves.tolist() == pytest.approx([3.14159265 / 2 * 2**i for i in range(4)])


def test_it_learns_to_split_four_squares() -> None:
    f, x = net(width=32), torch.rand(512, 2, generator=torch.Generator().manual_seed(0)) * 4 - 2
    wanted, t = torch.sign((x * 2).sin().prod(1, keepdim=True)), torch.full((512,), 5)
    optimizer = torch.optim.Adam(f.parameters(), 5e-3)
    for _ in range(80):
        loss = (f(x, t)[:, :1] - wanted).square().mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert float(loss.detach()) < 0.3


def test_other_shapes_are_refused() -> None:
    for bad in (torch.zeros(3, 3), torch.zeros(3), torch.zeros(3, 2, 1)):
        with pytest.raises(ShapeError, match=r"points \(B, 2\)"):
            net()(bad, torch.ones(3, dtype=torch.long))
