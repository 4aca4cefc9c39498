"""diffusers' UNet2DModel and our U-Net: names of weights and settings, there and back. What has no equal is refused by name."""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .models import UNet, UNetConfig

# A setting of theirs: (their default, the values that mean what our U-Net does). Absent means their default, which is often refused.
FIXED = {
    "center_input_sample": (False, [False]), "time_embedding_type": ("positional", ["positional"]), "freq_shift": (0, [1]),
    "flip_sin_to_cos": (True, [False, True]), "mid_block_type": ("UNetMidBlock2D", ["UNetMidBlock2D"]), "mid_block_scale_factor": (1, [1]),
    "downsample_padding": (1, [0]), "downsample_type": ("conv", ["conv"]), "upsample_type": ("conv", ["conv"]),
    "act_fn": ("silu", ["silu", "swish"]), "norm_eps": (1e-5, [1e-6]), "resnet_time_scale_shift": ("default", ["default", "scale_shift"]),
    "add_attention": (True, [True, False]), "class_embed_type": (None, [None]), "num_class_embeds": (None, [None]),
}  # fmt: skip
# Settings that become fields of UNetConfig, with their defaults.
SHAPES = {
    "sample_size": None, "in_channels": 3, "out_channels": 3, "block_out_channels": [224, 448, 672, 896], "layers_per_block": 2,
    "down_block_types": ["DownBlock2D"] + 3 * ["AttnDownBlock2D"], "up_block_types": 3 * ["AttnUpBlock2D"] + ["UpBlock2D"], "dropout": 0.0,
    "attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": None, "time_embedding_dim": None, "num_train_timesteps": None,
}  # fmt: skip
TIME_AS = {"default": "add", "scale_shift": "scale_shift"}
# Our options that they have too, or that change no answer.
OURS = {"image_size", "channels", "base_channels", "multipliers", "num_res_blocks", "attention_sizes", "num_heads", "groups", "dropout"}
OURS |= {"middle_attention", "time_as", "pad", "checkpointing"}
DEFAULTS = {name: default for name, (default, _) in FIXED.items()} | SHAPES

TOP = {"conv_in": "conv_in", "time.0": "time_embedding.linear_1", "time.2": "time_embedding.linear_2"}
TOP |= {"norm_out": "conv_norm_out", "conv_out": "conv_out"}
RES = {"norm_1": "norm1", "conv_1": "conv1", "time": "time_emb_proj", "norm_2": "norm2", "conv_2": "conv2", "skip": "conv_shortcut"}
ATTENTION = {"norm": ["group_norm"], "qkv": ["to_q", "to_k", "to_v"], "out": ["to_out.0"]}
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # names in the first published folders


def refuse(what: str, value: object, why: str) -> NoReturn:
    """Raise the CheckpointError for a setting that one side has and the other has not."""
    raise CheckpointError(f"{what} = {value!r} has no equal on the other side: {why}")


def their_names(key: str, layers: int) -> list[str]:
    """Our name of a weight -> theirs: one, or three where we stack query, key and value. `layers` is num_res_blocks."""
    module, leaf = key.rsplit(".", 1)
    if module in TOP:
        return [f"{TOP[module]}.{leaf}"]
    side, index, *part = module.split(".")
    if side == "middle":
        level, place, attention = "mid_block", int(index) // 2, index == "1"
    else:
        number, place = divmod(int(index), layers + 1 + (side == "up"))
        level, attention = f"{side}_blocks.{number}", part[0] == "1"
        if part == ["conv"]:
            return [f"{level}.{side}samplers.0.conv.{leaf}"]
    if attention:
        return [f"{level}.attentions.{place}.{name}.{leaf}" for name in ATTENTION[part[-1]]]
    return [f"{level}.resnets.{place}.{RES[part[-1]]}.{leaf}"]


def weights_for_diffusers(unet: UNet) -> dict[str, Tensor]:
    """The weights of our U-Net under the names that UNet2DModel gives them, on the CPU."""
    weights = {}
    for key, value in unet.state_dict().items():
        names = their_names(key, unet.config.num_res_blocks)
        weights |= dict(zip(names, value.detach().cpu().chunk(len(names)), strict=True))
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in weights.items()}


def weights_from_diffusers(theirs: dict[str, Tensor], unet: UNet, cosines_first: bool = False) -> None:
    """Copy UNet2DModel's weights into our U-Net, in float32. CheckpointError if one is missing, unknown or of another shape.

    `cosines_first` is their flip_sin_to_cos: the first time layer is then the same function with its columns swapped.
    """
    rest = {re.sub(rf"\.({'|'.join(OLD)})\.(\w+)$", lambda m: f".{OLD[m[1]]}.{m[2]}", name): value for name, value in theirs.items()}
    state = {}
    for key, mine in unet.state_dict().items():
        names = their_names(key, unet.config.num_res_blocks)
        shape = (len(mine) // len(names), *mine.shape[1:])
        for name in names:
            found = tuple(rest[name].shape) if name in rest else None
            if found != shape:
                raise CheckpointError(
                    f"weights and config differ: {name} should be {shape}, and is {found or 'missing'}; save the pipeline again"
                )
        state[key] = torch.cat([rest.pop(name) for name in names]).float()
    if rest:
        raise CheckpointError(f"weights and config differ: the config asks for no {min(rest)} ({len(rest)} such); save the pipeline again")
    if cosines_first:
        state["time.0.weight"] = torch.cat(state["time.0.weight"].chunk(2, dim=1)[::-1], dim=1)
    unet.load_state_dict(state)


def unet_config(settings: dict[str, Any]) -> UNetConfig:
    """The UNetConfig that means what a UNet2DModel's config means, or a CheckpointError that names the setting in the way."""
    given = {name: value for name, value in settings.items() if not name.startswith("_")}
    s = DEFAULTS | given
    for name, value in s.items():
        if name in FIXED and value not in FIXED[name][1]:
            refuse(name, value, f"our U-Net has {' or '.join(repr(fine) for fine in FIXED[name][1])}")
        if name not in DEFAULTS and value not in (None, False):
            refuse(name, value, "our U-Net does not know this setting")
    size, widths, groups = s["sample_size"], s["block_out_channels"], s["norm_num_groups"]
    size = size[0] if isinstance(size, list) and len(set(size)) == 1 else size
    base, attends = widths[0], [kind == "AttnDownBlock2D" for kind in s["down_block_types"]]
    middle, time_as = s["add_attention"], TIME_AS[s["resnet_time_scale_shift"]]
    heads = _heads(_attended(widths, attends, middle), s["attention_head_dim"])
    norms = [groups] if middle and time_as == "scale_shift" else [groups, None]  # there, None leaves the middle attention without a norm
    wrong = [
        (
            "sample_size",
            not isinstance(size, int),
            "our U-Net has one size in its config (it takes any, non-square too): write the height there",
        ),
        ("out_channels", s["out_channels"] != s["in_channels"], f"our U-Net returns what it takes, {s['in_channels']} channels"),
        ("block_out_channels", any(w % base for w in widths), f"our levels have multiples of the first, {base}"),
        ("down_block_types", not set(s["down_block_types"]) <= {"DownBlock2D", "AttnDownBlock2D"}, "we have DownBlock2D, AttnDownBlock2D"),
        ("down_block_types", len(attends) != len(widths), f"block_out_channels has {len(widths)} levels"),
        ("up_block_types", s["up_block_types"] != _up_types(attends), f"our decoder mirrors the encoder: {_up_types(attends)}"),
        ("attention_head_dim", not heads, f"our attentions have one number of heads, and the widths are {widths}"),
        ("norm_num_groups", not groups or any(w % groups for w in widths), f"it must divide the widths {widths}"),
        ("attn_norm_num_groups", s["attn_norm_num_groups"] not in norms, f"our norms all have norm_num_groups = {groups}"),
        ("time_embedding_dim", s["time_embedding_dim"] not in (None, 4 * base), f"ours is four times {base}"),
    ]
    for name, is_wrong, why in wrong:
        if is_wrong:
            refuse(name, s[name], why)
    sizes = [size // 2**level for level, attend in enumerate(attends) if attend]
    shape = (size, s["in_channels"], base, tuple(w // base for w in widths), s["layers_per_block"])
    return UNetConfig(*shape, tuple(sizes), heads, groups, s["dropout"], middle_attention=middle, time_as=time_as)


def _attended(widths: Sequence[int], attends: list[bool], middle: bool) -> set[int]:
    """The widths at which there is attention."""
    return {w for w, attend in zip(widths, attends, strict=False) if attend} | ({widths[-1]} if middle else set())


def _heads(widths: set[int], head_dim: int | None) -> int:
    """The number of heads that all attentions share, 0 if they differ. None means one head, however wide."""
    heads = {1 if head_dim is None else 0 if not head_dim or w % head_dim else w // head_dim for w in widths}
    return min(heads, default=1) if len(heads) <= 1 else 0


def _up_types(attends: list[bool]) -> list[str]:
    return ["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)]


def their_config(unet: UNet) -> dict[str, Any]:
    """The config of the UNet2DModel that computes what our U-Net does, or a CheckpointError that names the option in the way."""
    c, widths = unet.config, unet.config.level_channels()
    for option in fields(c):
        if option.name not in OURS and getattr(c, option.name) != option.default:
            refuse(option.name, getattr(c, option.name), f"UNet2DModel has only our {option.default!r}")
    attends = [size in c.attention_sizes for size in c.level_sizes()]
    attended = _attended(widths, attends, c.middle_attention)
    groups = {module.num_groups for module in unet.modules() if isinstance(module, nn.GroupNorm)}
    if c.time_as not in TIME_AS.values():
        refuse("time_as", c.time_as, f"UNet2DModel has only our {' and '.join(TIME_AS.values())}")
    if c.image_size % c.multiple:
        refuse("image_size", c.image_size, f"UNet2DModel does not pad to multiples of {c.multiple}")
    if c.multipliers[0] != 1:
        refuse("multipliers", c.multipliers, "UNet2DModel's first level is as wide as its first convolution; start with 1")
    if len(groups) > 1:
        refuse("groups", c.groups, f"UNet2DModel has one number for all norms, ours have {sorted(groups)}; take a divisor of {widths}")
    if c.num_heads > 1 and len(attended) > 1:
        refuse("num_heads", c.num_heads, f"UNet2DModel fixes the channels a head, and attention is at widths {sorted(attended)}")
    shift = c.time_as == "scale_shift"
    return {name: fine[0] for name, (_, fine) in FIXED.items()} | SHAPES | {
        "_class_name": "UNet2DModel", "sample_size": c.image_size, "in_channels": c.channels, "out_channels": c.channels,
        "block_out_channels": list(widths), "layers_per_block": c.num_res_blocks, "dropout": c.dropout, "norm_num_groups": min(groups),
        "down_block_types": ["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends], "up_block_types": _up_types(attends),
        "attention_head_dim": min(attended) // c.num_heads if attended and c.num_heads > 1 else None, "add_attention": c.middle_attention,
        "resnet_time_scale_shift": "scale_shift" if shift else "default", "attn_norm_num_groups": min(groups) if shift else None,
    }  # fmt: skip
