"""Import lucidrains' package where torchvision does not load.

torchvision's C++ operators do not load beside the CPU build of torch, and lucidrains' modules import torchvision at the top: five
picture transforms for its Trainer's data, one grid writer, and (through pytorch-fid) an Inception network that is never built here.
Only what its Trainer calls is stood in for, with Pillow doing the work; anything else says so when it is called.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class _Compose:
    """Several transforms, one after the other."""

    def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
        self.steps = steps

    def __call__(self, x: Any) -> Any:
        """All of them."""
        for step in self.steps:
            x = step(x)
        return x


class _Lambda:
    """A function as a transform."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, x: Any) -> Any:
        """What the function makes of x."""
        return self.function(x)


class _Resize:
    """Shorter side to `size`."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = size if isinstance(size, int) else size[0]

    def __call__(self, x: Image.Image) -> Image.Image:
        """x itself where it fits already."""
        scale = self.size / min(x.size)
        return x if scale == 1 else x.resize(tuple(round(side * scale) for side in x.size), Image.Resampling.BILINEAR)


class _CenterCrop(_Resize):
    """The middle square of `size`."""

    def __call__(self, x: Image.Image) -> Image.Image:
        """x itself where it fits already."""
        left, top = ((side - self.size) // 2 for side in x.size)
        return x if x.size == (self.size, self.size) else x.crop((left, top, left + self.size, top + self.size))


class _RandomHorizontalFlip:
    """Mirror every second picture."""

    def __call__(self, x: Image.Image) -> Image.Image:
        """x or its mirror image."""
        return x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if float(torch.rand(())) < 0.5 else x


class _ToTensor:
    """A picture as (C, H, W) in [0, 1]."""

    def __call__(self, x: Image.Image) -> Tensor:
        """float32."""
        pixels = torch.from_numpy(np.array(x, dtype=np.uint8))
        return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).float() / 255


class _Absent(ModuleType):
    """A module in which every name exists, and fails when it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (torch.nn.Module,), {"__init__": _refuse})


def _refuse(*args: object, **kwargs: object) -> None:
    raise RuntimeError("this part of torchvision does not load beside the CPU build of torch, and no benchmark needs it")


def _stand_ins() -> dict[str, ModuleType]:
    """The modules that lucidrains' imports name."""
    transforms = ModuleType("torchvision.transforms")
    parts = (_Compose, _Lambda, _Resize, _CenterCrop, _RandomHorizontalFlip, _ToTensor)
    transforms.__dict__.update({part.__name__.removeprefix("_"): part for part in parts})
    top, utils, models, inception = (_Absent(f"torchvision{end}") for end in ("", ".utils", ".models", ".models.inception"))
    top.__dict__.update(__version__="0.0", __path__=[], transforms=transforms, utils=utils, models=models)
    models.__dict__.update(inception=inception, __path__=[])
    return {module.__name__: module for module in (top, transforms, utils, models, inception)}


def import_lucidrains() -> ModuleType:
    """denoising_diffusion_pytorch, with stand-ins for torchvision during its import only: other packages ask whether that exists."""
    importlib.import_module("accelerate")
    try:
        importlib.import_module("torchvision")
    except Exception:  # noqa: BLE001 - a missing operator is a RuntimeError, a missing package an ImportError
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules |= _stand_ins()
    try:
        return importlib.import_module("denoising_diffusion_pytorch")
    finally:
        for name in [name for name, module in sys.modules.items() if name.startswith("torchvision") and _made_here(module)]:
            del sys.modules[name]


def _made_here(module: ModuleType) -> bool:
    return module.__spec__ is None
