"""What stands between pictures and latents: standardising, encoding a data set, decoding, saving."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ddpm_course import CourseError, TrainConfig, UNet, UNetConfig, ddim_sample, linear_schedule, save_model, train
from ddpm_course.checkpoint import ASSETS, Trained, load_tensors, rng, shipped
from ddpm_course.cli import Sample
from ddpm_course.data import Latents, Split, Splits, mnist5k
from ddpm_course.latent import Codec, encode_data, fit_codec, load_codec, load_with_codec, save_codec
from ddpm_course.models import ConvVAE, ConvVAEConfig

SMALL = ConvVAEConfig(image_size=8, latent_channels=2, base_channels=4, multipliers=(1, 2), groups=2)


class Linear(nn.Module):
    """z has mean 3 x - 1 in its first channel and -2 x in its second, variances 0.25 and 4; decodes by turning the first round."""

    def encode(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.cat([3 * x_0 - 1, -2 * x_0], dim=1)
        return mean, torch.tensor([0.25, 4.0]).reshape(1, 2, 1, 1).expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        return (z[:, :1] + 1) / 3


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(700, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def small_vae() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(SMALL).eval().requires_grad_(False)


def splits_of(images: Tensor) -> Splits:
    parts = images.split([len(images) - 100, 50, 50])
    return Splits(*(Split(part, torch.arange(len(part)) % 10) for part in parts))


def test_the_fitted_scale_has_a_closed_form(images: Tensor) -> None:
    """Var z = slope^2 Var x + variance of q, the law of total variance."""
    codec, x = fit_codec(Linear(), images), images.double()
    var = x.var(unbiased=False)
    torch.testing.assert_close(codec.mean.double(), torch.stack([3 * x.mean() - 1, -2 * x.mean()]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(codec.std.double() ** 2, torch.stack([9 * var + 0.25, 4 * var + 4]), rtol=1e-5, atol=1e-6)


def test_draws_are_standardised_and_means_are_narrower(images: Tensor) -> None:
    codec = fit_codec(Linear(), images)
    drawn, means = codec.encode(images, torch.Generator().manual_seed(1)), codec.encode(images)
    assert drawn.shape == (700, 2, 4, 4)
    assert drawn.mean((0, 2, 3)).abs().max() < 0.02 and (drawn.std((0, 2, 3)) - 1).abs().max() < 0.02
    assert float(means[:, 1].std()) < 0.6


def test_the_posterior_is_that_of_standardised_latents(images: Tensor) -> None:
    codec = fit_codec(Linear(), images)
    mean, var = codec.posterior(images[:3])
    raw_mean, raw_var = Linear().encode(images[:3])
    for c in range(2):
        torch.testing.assert_close(mean[:, c] * codec.std[c] + codec.mean[c], raw_mean[:, c])
        torch.testing.assert_close(var[:, c] * codec.std[c] ** 2, raw_var[:, c])


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(0.05, 20))
def test_decoding_undoes_the_scale_whatever_it_is(mean: float, std: float) -> None:
    codec = Codec(Linear(), torch.tensor([mean, -mean]), torch.tensor([std, 1 / std]))
    x = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    torch.testing.assert_close(codec.decode(codec.encode(x)), x, rtol=1e-4, atol=1e-4 * max(1, abs(mean), std))


def test_means_need_no_noise_and_draws_follow_the_generator(images: Tensor) -> None:
    codec, part = fit_codec(Linear(), images), images[:4]
    assert torch.equal(codec.encode(part), codec.encode(part))
    drawn = [codec.encode(part, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_long_batches_are_encoded_like_short_ones(images: Tensor) -> None:
    codec = fit_codec(Linear(), images)
    torch.testing.assert_close(codec.encode(images)[[3, 620]], codec.encode(images[[3, 620]]))
    z = codec.encode(images)
    torch.testing.assert_close(codec.decode(z)[[3, 620]], codec.decode(z[[3, 620]]))


def test_a_data_set_keeps_its_labels_and_its_order(images: Tensor) -> None:
    splits = splits_of(images)
    codec = fit_codec(Linear(), splits.train.images)
    data = encode_data(codec, splits, torch.Generator().manual_seed(0), copies=3)
    assert isinstance(data, Latents) and isinstance(data, Splits)
    assert data.train.images.shape == (1800, 2, 4, 4) and len(data.val.images) == len(data.test.images) == 50
    assert torch.equal(data.train.labels, splits.train.labels.repeat(3))
    first, second = data.train.images[:600], data.train.images[600:1200]
    assert not torch.equal(first, second) and (first - second)[:, 0].std() < 0.5  # two draws from one q: close, not equal
    means = encode_data(codec, splits)
    assert torch.equal(means.train.images, codec.encode(splits.train.images))


def test_copies_of_a_mean_are_refused(images: Tensor) -> None:
    splits, codec = splits_of(images), fit_codec(Linear(), images)
    for copies, generator in ((2, None), (0, torch.Generator())):
        with pytest.raises(CourseError, match=f"copies = {copies}"):
            encode_data(codec, splits, generator, copies)


def test_a_dead_channel_or_a_misshapen_scale_is_refused() -> None:
    with pytest.raises(CourseError, match="carries nothing"):
        Codec(Linear(), torch.zeros(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(CourseError, match="one number a channel"):
        Codec(Linear(), torch.zeros(2), torch.ones(3))


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    codec, x = fit_codec(small_vae(), torch.rand(8, 1, 8, 8) * 2 - 1), torch.rand(3, 1, 8, 8) * 2 - 1
    save_codec(tmp_path, codec, {"seed": 0})
    again = load_codec(tmp_path)
    assert again.vae.config == SMALL and not again.vae.training
    torch.testing.assert_close(again.encode(x), codec.encode(x), rtol=0, atol=0)
    save_codec(tmp_path, codec, {"seed": 0}, half=True)
    torch.testing.assert_close(load_codec(tmp_path).encode(x), codec.encode(x), rtol=0.02, atol=0.02)


def test_a_folder_without_a_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="vae.json is missing"):
        load_codec(tmp_path)


def test_latents_are_trained_on_like_any_x(images: Tensor) -> None:
    """Far outside [-1, 1], which is refused for pictures; the network and the trainer are those of pictures."""
    far = Latents(*(Split(part.images.repeat(1, 2, 1, 1) * 5, part.labels) for part in splits_of(images)))
    net = replace(UNetConfig.digits(), image_size=4, channels=2, base_channels=8, groups=4, attention_sizes=())
    config = TrainConfig(steps=3, batch_size=16, net=net, log_every=3)
    trained = train(config, data=far)
    assert math.isfinite(trained.history[-1]["val_loss"]) and trained.net.config.channels == 2
    with pytest.raises(CourseError, match=r"\[-1, 1\]"):
        train(config, data=Splits(*far))


def test_the_command_line_decodes_what_a_latent_model_draws(tmp_path: Path) -> None:
    """Beside a codec the samples are decoded, and no guess of a latent is held in [-1, 1]."""
    torch.manual_seed(0)
    net = UNet(replace(UNetConfig.digits(), image_size=4, channels=2, base_channels=8, groups=4, attention_sizes=())).eval()
    save_model(tmp_path, Trained(net, linear_schedule(50)))
    assert load_with_codec(tmp_path)[1] is None
    codec = Codec(small_vae(), torch.tensor([0.5, -1.0]), torch.tensor([4.0, 0.2]))
    save_codec(tmp_path, codec, {})
    trained, found = load_with_codec(tmp_path)
    seen, frames, _ = Sample(n=3, steps=4).draw(trained, found)
    z = ddim_sample(trained.eps_model(), trained.schedule, x_T=torch.randn(3, 2, 4, 4, generator=rng(0, 0)), num_steps=4)
    torch.testing.assert_close(seen, codec.decode(z), rtol=1e-4, atol=1e-4)
    assert seen.shape == (3, 1, 8, 8) == frames[-1].shape and float(z.abs().max()) > 1


def test_the_shipped_codec_is_as_good_as_its_record_says() -> None:
    """Standardised as promised, and the square error of held-out digits that vae.json has."""
    codec, (_, meta) = load_codec(shipped("mnist-latent")), load_tensors(shipped("mnist-latent"), "vae")
    images = mnist5k().val.images[:200]
    z = codec.encode(images, torch.Generator().manual_seed(0))
    assert float(z.mean((0, 2, 3)).abs().max()) < 0.1 and float((z.std((0, 2, 3)) - 1).abs().max()) < 0.1
    error = float((codec.decode(z) - images).square().mean())
    assert abs(error / meta["validation"]["square_error"] - 1) < 0.15


def test_the_report_belongs_to_the_shipped_weights() -> None:
    """What chapter 21 shows was measured on what it loads, at n = 1,000, with the margins that it speaks of."""
    report = json.loads((ASSETS.parents[1] / "benchmarks" / "results" / "latent.json").read_text(encoding="utf-8"))
    parts = (("mnist-latent", "vae"), ("mnist-latent", "model"), ("mnist-pixel", "model"), ("mnist", "model"), ("mnist", "classifier"))
    own = "".join(load_tensors(ASSETS / folder, part)[1]["sha256"][:4] for folder, part in parts)
    assert report["weights"] == own, "python benchmarks/latent_scores.py"
    assert report["n"] == 1000 and report["latent"] and len(report["floors"]) == 5
    for row in report["latent"]:
        assert row["accepted"] > 0.55 * report["real"]["accepted"] and row["frechet_distance"] < report["normal"][0]["frechet_distance"] / 5
    for name in ("mnist-latent", "mnist-pixel"):
        assert f"`{own}`" in (ASSETS / name / "README.md").read_text(encoding="utf-8")
