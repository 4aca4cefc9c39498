"""The Transformers over series: shapes, words, positions, parts that add up, and that both learn and are saved."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ddpm_course import Trained, cosine_schedule, load_model, save_model
from ddpm_course.errors import ConfigError, CourseError, ShapeError
from ddpm_course.models import PartsConfig, PartsTransformer, Transformer, TransformerConfig
from ddpm_course.models.transformer import polynomials, strongest_waves

SMALL = TransformerConfig(length=24, channels=2, patch=4, width=16, depth=2, heads=2)
T = torch.tensor([1, 500, 1000])


def awake(net: nn.Module, seed: int = 0) -> nn.Module:
    """The same network with random numbers where zeros would keep it silent."""
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return net.eval()


def series(n: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 2, 24, generator=torch.Generator().manual_seed(seed))


both = pytest.mark.parametrize("make", [lambda: Transformer(SMALL), lambda: PartsTransformer(PartsConfig(SMALL, 2, 3, True))])


@both
@torch.no_grad()
def test_series_in_series_out_each_alone_with_its_time(make: object) -> None:
    torch.manual_seed(0)
    net = make()
    assert float(net(series(), T).abs().max()) == 0  # a new network says nothing
    net, x = awake(net), series()
    out = net(x, T)
    assert out.shape == x.shape and bool(torch.isfinite(out).all())
    torch.testing.assert_close(out, torch.cat([net(x[k : k + 1], T[k : k + 1]) for k in range(3)]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out, net(x, T.flip(0)), atol=1e-3)


@both
def test_every_parameter_has_a_gradient(make: object) -> None:
    net = awake(make())
    net(series(), T).square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_cutting_into_words_and_back() -> None:
    trunk, x = Transformer(SMALL).trunk, series()
    words = trunk.cut(x)
    assert words.shape == (3, 6, 8) and torch.equal(trunk.join(words), x)
    assert torch.equal(words[0, 1], x[0, :, 4:8].flatten())  # word 1: steps 4..7 of both channels


@torch.no_grad()
@pytest.mark.parametrize(("positions", "a_bag"), [("none", True), ("learned", False), ("sines", False)])
def test_without_positions_the_order_of_the_words_is_lost(positions: str, a_bag: bool) -> None:
    net = awake(Transformer(TransformerConfig(24, 2, 4, 16, 2, 2, positions)))
    x, order = series(), torch.tensor([3, 0, 5, 1, 4, 2])
    shuffle = lambda y: y.unflatten(2, (6, 4))[:, :, order].flatten(2)  # noqa: E731
    assert torch.allclose(net(shuffle(x), T), shuffle(net(x, T)), atol=1e-4) == a_bag


def test_positions_begin_as_loud_as_asked() -> None:
    for loudness in (0.02, 1.0):
        positions = Transformer(TransformerConfig(length=600, patch=2, width=64, loudness=loudness)).trunk.positions
        assert float(positions.std()) == pytest.approx(loudness, rel=0.05)


@torch.no_grad()
@pytest.mark.parametrize("rest", [False, True])
def test_the_parts_add_up_and_each_is_what_it_is_called(rest: bool) -> None:
    net = awake(PartsTransformer(PartsConfig(SMALL, degree=2, top_k=2, rest=rest)))
    trend, season, left = net.parts(series(), T)
    assert torch.equal(net(series(), T), trend + season + left)
    torch.testing.assert_close(net.fit(trend), trend, rtol=1e-4, atol=1e-4)  # a polynomial of degree 2
    assert float(season.mean(-1).abs().max()) < 1e-5
    frequencies = (torch.fft.rfft(season).abs() > 1e-4).sum(-1)
    assert int(frequencies.max()) <= 2 * 2 and int(frequencies.min()) >= 2  # two waves from each of two blocks
    assert (float(left.abs().max()) > 0) == rest
    if rest:
        assert float(trend.abs().min()) != float(left.abs().min()) and float(left.mean(-1).abs().max()) < 1e-5


def test_polynomials_are_orthonormal_and_strongest_waves_keep_the_strongest() -> None:
    basis = polynomials(50, 4)
    torch.testing.assert_close(basis @ basis.T, torch.eye(5, dtype=torch.float64))
    assert bool((basis[0] > 0).all()) and float(basis[1][-1]) > 0
    line = 3 + 0.5 * torch.arange(50, dtype=torch.float64)
    torch.testing.assert_close(line @ basis[:2].T @ basis[:2], line)
    time = torch.arange(40) * 2 * torch.pi / 40
    loud, soft = torch.cos(3 * time + 1), 0.3 * torch.sin(7 * time)
    torch.testing.assert_close(strongest_waves(5 + loud + soft, 1), loud, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(strongest_waves(5 + loud + soft, 2), loud + soft, rtol=1e-4, atol=1e-5)


@both
def test_it_is_saved_and_comes_back(make: object, tmp_path: Path) -> None:
    net = awake(make())
    save_model(tmp_path, Trained(net, cosine_schedule(50), "x_0"))
    back = load_model(tmp_path)
    assert back.net.config == net.config and type(back.net) is type(net)
    with torch.no_grad():
        torch.testing.assert_close(back.net(series(), T), net(series(), T))


def test_it_learns_a_delay_of_six_steps() -> None:
    """Each word has to look at another one: attention, with positions."""
    torch.manual_seed(0)
    net = Transformer(TransformerConfig(length=12, patch=2, width=32, depth=2, heads=2))
    optimizer, generator = torch.optim.Adam(net.parameters(), 5e-3), torch.Generator().manual_seed(0)
    for _ in range(150):
        x = torch.randn(64, 1, 12, generator=generator)
        loss = (net(x, torch.ones(64, dtype=torch.long)) - x.roll(6, dims=2)).square().mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert float(loss.detach()) < 0.3


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"\(B, 2, 24\)"):
        Transformer(SMALL)(torch.zeros(3, 1, 24), T)
    for bad in ({"positions": "some"}, {"patch": 5}, {"heads": 3}, {"depth": 0}):
        with pytest.raises(ConfigError):
            TransformerConfig(**{"length": 24, "patch": 4, "width": 16} | bad)
    for bad in ({"degree": -1}, {"top_k": 13}, {"top_k": 0}):
        with pytest.raises(CourseError):
            PartsConfig(SMALL, **bad)
