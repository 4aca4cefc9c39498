"""Ours and the libraries that people use, each as a training step and a sampler over the same random pictures.

The two networks are the paper's for CIFAR-10 (35.7 M parameters) and a small one (1.6 M). diffusers gets exactly the same architecture;
lucidrains' U-Net is built differently and gets the width whose number of parameters is nearest. Everyone's pictures lie in memory
already, except in lucidrains' Trainer, which reads a folder, as it always does.
"""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ddpm_course import TrainConfig, UNetConfig, as_eps_model, clip_x_0, compiled, ddim_sample
from ddpm_course.data import Split, Splits

SMALL = UNetConfig(base_channels=32, multipliers=(1, 2, 2), attention_sizes=(8,), groups=8)
NETWORKS = {"big": UNetConfig.cifar10(), "small": SMALL}
PATCHED = UNetConfig(base_channels=32, multipliers=(1, 2, 2), attention_sizes=(4,), groups=8, patch_size=2)
# The fastest of the race for quality (quality.py, ours-one-block), here for colour pictures of 32x32.
ONE_BLOCK = replace(UNetConfig.mnist(), image_size=32, channels=3, attention_sizes=(8,), num_res_blocks=1)
LUCIDRAINS = {"big": {"dim": 64}, "small": {"dim": 24, "dim_mults": (1, 2, 4)}}
PICTURES = 512


@dataclass(frozen=True)
class Setting:
    """What is measured: which network, pictures a step, and where."""

    size: str = "small"
    batch: int = 64
    device: str = "cpu"

    def config(self) -> UNetConfig:
        """The architecture that everyone has."""
        return NETWORKS[self.size]

    def pictures(self) -> Tensor:
        """Random numbers in [-1, 1], (512, 3, 32, 32)."""
        return torch.rand(PICTURES, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@dataclass(frozen=True)
class Contender:
    """One training step, sampling n pictures by DDIM in so many steps, and the network."""

    step: Callable[[], object]
    sample: Callable[[int, int], object]
    net: nn.Module


def autocast(setting: Setting, on: bool) -> Any:
    """bf16 for what runs inside, if it is on."""
    return torch.autocast(setting.device, torch.bfloat16) if on else nullcontext()


def ours(setting: Setting, bf16: bool = True, mode: str = "off", config: UNetConfig | None = None) -> Contender:
    """The package's own trainer, step by step."""
    from ddpm_course.train import Run

    x = setting.pictures()
    parts = [Split(part, torch.zeros(len(part), dtype=torch.long)) for part in (x, x[:2], x[:2])]
    precision = "bf16" if bf16 else "fp32"
    train_config = TrainConfig(
        net=config or setting.config(), prediction="eps", schedule="linear", batch_size=setting.batch, lr=1e-4, steps=10**6,
        precision=precision, compile=mode, device=setting.device,
    )  # fmt: skip
    run = Run(train_config, Splits(*parts))
    drawing = compiled(run.raw) if mode != "off" else run.raw

    def net(x_t: Tensor, t: Tensor) -> Tensor:
        """The network for sampling: compiled, in 16 bit, if that is asked for."""
        with autocast(setting, bf16):
            return drawing(x_t, t)

    @torch.no_grad()
    def sample(n: int, steps: int) -> Tensor:
        """DDIM with x_0_hat clipped."""
        run.raw.eval()
        x_T = torch.randn(n, 3, 32, 32, device=setting.device)
        return ddim_sample(clip_x_0(as_eps_model(net, run.schedule), run.schedule), run.schedule, x_T=x_T, num_steps=steps)

    return Contender(run.one_step, sample, run.raw)


def diffusers_network(config: UNetConfig) -> nn.Module:
    """UNet2DModel of the same architecture as ours."""
    from diffusers import UNet2DModel

    attends = [size in config.attention_sizes for size in config.level_sizes()]
    return UNet2DModel(
        sample_size=config.image_size,
        block_out_channels=config.level_channels(),
        layers_per_block=config.num_res_blocks,
        down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        norm_num_groups=config.groups,
        dropout=config.dropout,
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )


def diffusers(setting: Setting, bf16: bool = False, channels_last: bool = False, mode: str = "off", fused: bool = False) -> Contender:
    """The step of diffusers' unconditional example: accelerate, AdamW, clipping, a schedule of the learning rate, EMAModel, .item()."""
    from accelerate import Accelerator
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=setting.device == "cpu")
    net, x = diffusers_network(setting.config()).to(setting.device), setting.pictures().to(setting.device)
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    average.to(setting.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, **({"fused": True} if fused else {}))
    rates = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=10**6)
    model, optimizer, rates = accelerator.prepare(net, optimizer, rates)
    forward = model if mode == "off" else torch.compile(model, mode=None if mode == "default" else mode)
    scheduler = DDPMScheduler(1000)

    def step() -> float:
        """One batch."""
        clean = x[torch.randint(len(x), (setting.batch,))]
        noise = torch.randn(clean.shape, device=clean.device)
        t = torch.randint(0, 1000, (setting.batch,), device=clean.device)
        loss = F.mse_loss(forward(scheduler.add_noise(clean, noise, t), t).sample.float(), noise)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        average.step(net.parameters())
        return loss.detach().item()

    def sample(n: int, steps: int) -> object:
        """Its pipeline."""
        net.eval()
        pipeline = DDIMPipeline(net, DDIMScheduler(1000))
        pipeline.set_progress_bar_config(disable=True)
        with autocast(setting, bf16):
            return pipeline(batch_size=n, num_inference_steps=steps, output_type="np")

    return Contender(step, sample, net)


def lucidrains_diffusion(setting: Setting) -> nn.Module:
    """GaussianDiffusion around its own U-Net, with DDIM sampling."""
    from stand_in import import_lucidrains

    package = import_lucidrains()
    diffusion = package.GaussianDiffusion(package.Unet(**LUCIDRAINS[setting.size]), image_size=32, sampling_timesteps=50)
    return diffusion.to(setting.device)


def lucidrains(setting: Setting, bf16: bool = False) -> Contender:
    """Its network and loss in a bare loop with Adam: no loader, no average."""
    diffusion, x = lucidrains_diffusion(setting), (setting.pictures().to(setting.device) + 1) / 2
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def step() -> None:
        """One batch."""
        with autocast(setting, bf16):
            loss = diffusion(x[torch.randint(len(x), (setting.batch,), device=setting.device)])
        loss.backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return Contender(step, _sampler(diffusion), diffusion.model)


def _sampler(diffusion: nn.Module) -> Callable[[int, int], object]:
    def sample(n: int, steps: int) -> object:
        """Its ddim_sample."""
        diffusion.eval()
        diffusion.sampling_timesteps = steps
        return diffusion.sample(batch_size=n)

    return sample


def lucidrains_trainer(setting: Setting) -> Contender:
    """Its Trainer on a folder of PNG files, as shipped, without scoring."""
    from stand_in import import_lucidrains

    diffusion, folder = lucidrains_diffusion(setting), Path(tempfile.mkdtemp(prefix="pictures-"))
    for i, picture in enumerate(setting.pictures()):
        Image.fromarray(((picture + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")
    quiet = {"calculate_fid": False, "save_and_sample_every": 10**9, "results_folder": str(folder / "out")}
    rate = {"gradient_accumulate_every": -(-16 // setting.batch), "train_batch_size": setting.batch}
    trainer = import_lucidrains().Trainer(diffusion, str(folder), **quiet, **rate)
    trainer.gradient_accumulate_every = 1  # its check wants 16 pictures; the measured step has `batch`, like everyone's

    def step() -> None:
        """One step of Trainer.train."""
        trainer.train_num_steps = trainer.step + 1
        trainer.train()

    return Contender(step, _sampler(diffusion), diffusion.model)


def contenders(device: str, compiled: bool = True) -> dict[str, Callable[[Setting], Contender]]:
    """Who takes part: the name says what is switched on. Where compilers take part, ours and diffusers' get the same one."""
    gpu = device == "cuda"
    mode = "reduce-overhead" if gpu else "default"
    table: dict[str, Callable[[Setting], Contender]] = {
        "ours bf16": ours,
        "ours fp32": lambda s: ours(s, bf16=False),
        "diffusers as shipped": diffusers,
        "diffusers bf16": lambda s: diffusers(s, bf16=True),
        "diffusers bf16 channels_last": lambda s: diffusers(s, bf16=True, channels_last=True),
        "lucidrains network": lucidrains,
        "lucidrains network bf16": lambda s: lucidrains(s, bf16=True),
        "lucidrains Trainer": lucidrains_trainer,
        "ours bf16, 2x2 patches": lambda s: ours(s, config=PATCHED),
        "ours bf16, 2x2 patches, one block a level": lambda s: ours(s, config=ONE_BLOCK),
    }
    if compiled:
        table["diffusers bf16 compile"] = lambda s: diffusers(s, bf16=True, channels_last=gpu, mode=mode, fused=gpu)
        table["ours bf16 compile"] = lambda s: ours(s, mode=mode)
        table["ours bf16 compile, 2x2 patches"] = lambda s: ours(s, mode=mode, config=PATCHED)
        table["ours bf16 compile, 2x2 patches, one block a level"] = lambda s: ours(s, mode=mode, config=ONE_BLOCK)
    if compiled and gpu:
        table["ours bf16 compile default"] = lambda s: ours(s, mode="default")
        table["diffusers bf16 compile default"] = lambda s: diffusers(s, bf16=True, channels_last=True, mode="default", fused=True)
    return table
