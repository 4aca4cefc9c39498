"""Names of weights and settings, ours and UNet2DModel's: a translation that can be read backwards."""

from dataclasses import replace

import pytest
import torch

from ddpm_course import UNet, UNetConfig
from ddpm_course.errors import CheckpointError
from ddpm_course.unet2d import their_config, their_names, unet_config, weights_for_diffusers, weights_from_diffusers

CONFIGS = [
    UNetConfig(16, 3, 16, (1, 2, 2), 2, (8,), groups=8),
    UNetConfig(8, 1, 16, (1, 1), 1, (8, 4), num_heads=4, groups=4, dropout=0.3),
    UNetConfig(8, 2, 16, (1,), 3, (), groups=16),
    UNetConfig(8, 1, 8, (1, 1), 1, (4,), groups=24),  # GroupNorm falls back to 8 groups
]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv_in.weight", ["conv_in.weight"]),
        ("time.2.bias", ["time_embedding.linear_2.bias"]),
        ("norm_out.bias", ["conv_norm_out.bias"]),
        ("down.0.0.norm_1.weight", ["down_blocks.0.resnets.0.norm1.weight"]),
        ("down.2.conv.weight", ["down_blocks.0.downsamplers.0.conv.weight"]),
        ("down.4.0.skip.bias", ["down_blocks.1.resnets.1.conv_shortcut.bias"]),
        ("down.4.1.norm.bias", ["down_blocks.1.attentions.1.group_norm.bias"]),
        ("middle.0.time.weight", ["mid_block.resnets.0.time_emb_proj.weight"]),
        ("middle.1.qkv.bias", [f"mid_block.attentions.0.to_{c}.bias" for c in "qkv"]),
        ("middle.2.conv_2.bias", ["mid_block.resnets.1.conv2.bias"]),
        ("up.3.conv.bias", ["up_blocks.0.upsamplers.0.conv.bias"]),
        ("up.6.1.out.weight", ["up_blocks.1.attentions.2.to_out.0.weight"]),
    ],
)
def test_names_of_weights(ours: str, theirs: list[str]) -> None:
    assert their_names(ours, layers=2) == theirs


PUBLISHED = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": None, "center_input_sample": False,
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "out_channels": 3, "layers_per_block": 2,
    "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "time_embedding_type": "positional",
}  # fmt: skip


@pytest.mark.parametrize("size", [32, 256])
def test_the_published_networks_are_our_presets(size: int) -> None:
    """google/ddpm-cifar10-32 and google/ddpm-cat-256, ddpm-celebahq-256, ...: dropout is not in their config."""
    widths, at = ([128, 256, 256, 256], 1) if size == 32 else ([128, 128, 256, 256, 512, 512], 4)
    down, up = ["DownBlock2D"] * len(widths), ["UpBlock2D"] * len(widths)
    down[at], up[-1 - at] = "AttnDownBlock2D", "AttnUpBlock2D"
    blocks = {"sample_size": size, "block_out_channels": widths, "down_block_types": down, "up_block_types": up}
    assert unet_config(PUBLISHED | blocks) == (replace(UNetConfig.cifar10(), dropout=0.0) if size == 32 else UNetConfig.celebahq())


@pytest.mark.parametrize("config", CONFIGS)
def test_every_weight_of_theirs_has_one_place_and_the_same_shape(config: UNetConfig) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
    ours = UNet(config)
    settings = {name: value for name, value in their_config(ours).items() if not name.startswith("_")}
    theirs = diffusers.UNet2DModel(**settings).state_dict()
    assert {name: x.shape for name, x in weights_for_diffusers(ours).items()} == {name: x.shape for name, x in theirs.items()}


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_and_weights_read_backwards(config: UNetConfig) -> None:
    ours = UNet(config)
    again = UNet(unet_config(their_config(ours)))
    weights_from_diffusers(weights_for_diffusers(ours), again)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), again.state_dict().values(), strict=True))
    assert their_config(again) == their_config(ours)


def test_what_is_written_shares_no_memory_and_is_contiguous() -> None:
    ours = UNet(CONFIGS[0]).to(memory_format=torch.channels_last)
    weights = weights_for_diffusers(ours)
    assert all(x.is_contiguous() and not x.requires_grad for x in weights.values())
    assert len({x.data_ptr() for x in weights.values()}) == len(weights)
    weights["conv_in.weight"].zero_()
    assert float(ours.conv_in.weight.detach().abs().sum()) > 0


def test_cosines_first_swaps_the_columns_of_the_first_time_layer_only() -> None:
    ours = UNet(CONFIGS[0])
    plain, swapped = UNet(CONFIGS[0]), UNet(CONFIGS[0])
    weights_from_diffusers(weights_for_diffusers(ours), plain)
    weights_from_diffusers(weights_for_diffusers(ours), swapped, cosines_first=True)
    differ = [name for name, x in plain.state_dict().items() if not torch.equal(x, swapped.state_dict()[name])]
    assert differ == ["time.0.weight"]
    assert torch.equal(plain.time[0].weight[:, :8], swapped.time[0].weight[:, 8:])


def test_a_failed_copy_changes_nothing() -> None:
    ours, wrong = UNet(CONFIGS[0]), weights_for_diffusers(UNet(CONFIGS[0]))
    before = {name: x.clone() for name, x in ours.state_dict().items()}
    wrong["conv_out.bias"] = torch.ones(4)
    with pytest.raises(CheckpointError, match=r"conv_out.bias should be \(3,\), and is \(4,\)"):
        weights_from_diffusers(wrong, ours)
    assert all(torch.equal(before[name], x) for name, x in ours.state_dict().items())
