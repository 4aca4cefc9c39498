"""What the machine can do: a large matrix product, and the U-Net's own convolutions with nothing between them.

The convolutions run forward and backward on tensors that lie ready in the precision that they need, in the better of the two memory
layouts for each shape. So the figure is an upper limit for a network that is made of them, whoever wrote it.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Shape:
    """One convolution: its input (C, H, W), and the layer."""

    inputs: tuple[int, ...]
    out_channels: int
    kernel: int
    stride: int
    padding: int

    def flops(self) -> int:
        """Of forward and backward for one picture: three products of the same size."""
        C, H, W = self.inputs
        height, width = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (H, W))
        return 3 * 2 * C * self.out_channels * self.kernel**2 * height * width


def convolutions(net: nn.Module, x: torch.Tensor) -> Counter[Shape]:
    """How often each shape of convolution occurs in net(x, t)."""
    found: Counter[Shape] = Counter()

    def note(layer: nn.Conv2d, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        found[Shape(tuple(inputs[0].shape[1:]), layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.padding[0])] += 1

    hooks = [layer.register_forward_hook(note) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        net(x[:1], torch.ones(1, dtype=torch.long, device=x.device))
    for hook in hooks:
        hook.remove()
    return found


CLOCK = {"wall": time.perf_counter, "cpu": time.process_time}


def clock(device: str) -> float:
    """Seconds, once the device has done what it was told: of the wall, or with BENCH_CLOCK=cpu of this process."""
    if device == "cuda":
        torch.cuda.synchronize()
    return CLOCK[os.environ.get("BENCH_CLOCK", "wall")]()


def best_of(function: Callable[[], object], device: str, repeats: int) -> float:
    """The shortest of a few runs after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        before = clock(device)
        function()
        times.append(clock(device) - before)
    return min(times)


def matmul(device: str, dtype: torch.dtype, n: int, repeats: int = 3) -> float:
    """FLOP/s of an (n, n) product."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / best_of(lambda: a @ b, device, repeats)


def seconds_of(shape: Shape, batch: int, device: str, dtype: torch.dtype, layout: torch.memory_format, repeats: int) -> float:
    """One convolution, forward and backward."""
    size = (batch, *shape.inputs)
    x = torch.randn(size, device=device).to(dtype).contiguous(memory_format=layout).requires_grad_()
    layer = nn.Conv2d(shape.inputs[0], shape.out_channels, shape.kernel, shape.stride, shape.padding, device=device, dtype=dtype)
    layer.to(memory_format=layout)
    inputs = (x, layer.weight, layer.bias)
    dy = torch.randn_like(F.conv2d(x, layer.weight, layer.bias, shape.stride, shape.padding))

    def run() -> None:
        torch.autograd.grad(F.conv2d(x, layer.weight, layer.bias, shape.stride, shape.padding), inputs, dy)

    return best_of(run, device, repeats)


def convolution(shapes: Counter[Shape], batch: int, device: str, dtype: torch.dtype, repeats: int = 3) -> dict[str, float]:
    """FLOP/s over all convolutions of a training step: in each layout, and in the better one of each shape."""
    work = batch * sum(count * shape.flops() for shape, count in shapes.items())
    seconds = [[count * seconds_of(s, batch, device, dtype, layout, repeats) for layout in LAYOUTS] for s, count in shapes.items()]
    contiguous, channels_last = (sum(column) for column in zip(*seconds, strict=True))
    return {"best": work / sum(map(min, seconds)), "contiguous": work / contiguous, "channels_last": work / channels_last}
