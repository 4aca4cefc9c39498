# %% [markdown]
# # 15 · Scaling up: where do the time and the memory go?
#
# **The question.** Chapter 08 trained a network of 0.7 million parameters on 8×8 digits in a minute. The paper's network has 35.7 million and saw a hundred million pictures. What does that cost, in arithmetic, in bytes, in hours? And which tricks make it cheaper *without changing what is computed*?
#
# **After this chapter you can**
#
# - count the work of a convolution and of the whole network by hand, and say which layers wait for the memory instead;
# - say what 16-bit numbers lose, which numbers may be 16 bit, and why the others must not;
# - count the bytes of a training run, and trade memory for time;
# - prove that cutting a batch into parts, or dealing it out to several machines, changes nothing, and check it on real processes;
# - say what *does* change when the batch grows;
# - price the paper's CIFAR-10 run, start it, resume it, and put your own pictures in.
#
# *Needs:* chapters 07 and 08. *Time:* about three and a half hours with the exercises. No GPU is needed to read it: most of the networks below exist only on paper.

# %%
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import sympy as sp
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course import CourseError, TrainConfig, UNet, UNetConfig, cosine_schedule, diffusion_loss, linear_schedule, load_model, q_sample, train
from ddpm_course.checks import check, must_pass
from ddpm_course.config import at_scale
from ddpm_course.data import as_float, digits, load
from ddpm_course.ema import ema_of
from ddpm_course.feed import Feed
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, curves, show_images, style
from ddpm_course.proofs import Expect, bar_t, derive, eps, equation, expectation, inequality, normal, number, x_0
from ddpm_course.runs import RunFolder
from ddpm_course.train import Run

style()
seeded = lambda k: torch.Generator().manual_seed(k)
cosine = cosine_schedule()

# %% [markdown]
# ## Work: count the multiplications
#
# A convolution with an $r\times r$ kernel takes $C_{\mathrm{in}}$ channels to $C_{\mathrm{out}}$, on a map of $H\times W$ pixels. *One* number of its answer is a sum of $r^2C_{\mathrm{in}}$ products. A product and its addition are two floating-point operations (FLOP), so this number costs $2r^2C_{\mathrm{in}}$. There are $C_{\mathrm{out}}HW$ numbers:

# %% tags=["proof"]
r, k, B, b = sp.symbols("r k B b", positive=True, integer=True)
C_in, C_out, H, W = sp.symbols(r"C_{\mathrm{in}} C_{\mathrm{out}} H W", positive=True, integer=True)
i, j, c, o, row, col = sp.symbols("i j c o y x", integer=True)
taps, ins, outs, pixels = [(i, 1, r), (j, 1, r)], (c, 1, C_in), (o, 1, C_out), [(row, 1, H), (col, 1, W)]
conv_flops = 2 * r**2 * C_in * C_out * H * W
equation("15.1", sp.Sum(2 * r**2 * C_in, outs, *pixels), conv_flops)

# %% [markdown]
# Training needs more. The backward pass has to find two gradients, and both are sums of the same products, taken in another order. The gradient of *one weight* collects one product from each of the $HW$ places where that weight was used. The gradient of *one input number* collects one product from each of the $r^2C_{\mathrm{out}}$ answers into which it went. (At the border of the picture a few of them meet padding; the convention counts them all the same.) So, in one training step, a convolution costs:

# %% tags=["proof"]
of_answer, of_weights = sp.Sum(2 * r**2 * C_in, outs, *pixels), sp.Sum(2 * H * W, *taps, ins, outs)
of_input = sp.Sum(2 * r**2 * C_out, ins, *pixels)
derive("15.2", of_answer + of_weights + of_input, (3 * conv_flops, "each of the three is the product of all six sizes, twice"))

# %% [markdown]
# **A training step costs three times the forward pass.** This one sentence will price everything below. It does not cover what is no convolution or matrix product; we shall see that the rest hardly counts here, and matters all the same.
#
# To count a network we need no numbers, only shapes. PyTorch has a device for that, called `meta`: tensors that know their size and hold nothing. The paper's network fits on it without a byte of weights. By hand: one term for each convolution and each linear layer, and for each attention a product of $(HW\times C)$ with $(C\times HW)$ and one of $(HW\times HW)$ with $(HW\times C)$, which cost the same. Beside it, PyTorch's own counter.

# %%
def on_paper(config, **changes):
    with torch.device("meta"):
        return UNet(replace(config, **changes))


def blank(net, B=1):
    size, channels = net.config.image_size, net.config.channels
    return torch.empty(B, channels, size, size, device="meta"), torch.ones(B, dtype=torch.long, device="meta")


def flops(net, backward=False):
    with FlopCounterMode(display=False) as counter:
        out = net(*blank(net))
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


# %%
def flops_by_hand(net):
    found = []

    def count(module, inputs, out):
        if isinstance(module, nn.Conv2d | nn.Linear):
            found.append(2 * out.numel() * module.weight[0].numel())  # (15.1): one number of the answer, times their count
        if type(module).__name__ == "Attention":
            found.append(2 * 2 * (out.shape[2] * out.shape[3]) ** 2 * out.shape[1])

    hooks = [module.register_forward_hook(count) for module in net.modules()]
    net(*blank(net))
    for hook in hooks:
        hook.remove()
    return sum(found)


# %%
cifar = on_paper(UNetConfig.cifar10())
forward, whole = flops(cifar), flops(cifar, backward=True)
assert flops_by_hand(cifar) == forward
print(f"{sum(p.numel() for p in cifar.parameters()):,} parameters")
print(f"one picture: forward {forward / 1e9:.1f} GFLOP, counted by hand = PyTorch's counter: {flops_by_hand(cifar) == forward}")
print(f"one training step: {whole / 1e9:.1f} GFLOP; three times forward: {3 * forward / 1e9:.1f}")
with FlopCounterMode(display=False) as counter:
    cifar.down[0][0].conv_1(torch.empty(1, 128, 32, 32, device="meta"))
print("one convolution, by (15.1):", number(conv_flops, {r: 3, C_in: 128, C_out: 128, H: 32, W: 32}) == counter.get_total_flops())

# %% [markdown]
# About 37 billion operations for one picture of 32×32, once. Strictly it is a crumb less than three times the forward pass: nobody asks for the gradient with respect to the noisy picture itself. Note what the parameters do *not* tell: a weight of a convolution works once for each pixel, a weight of the time embedding once for each picture. Equal parameters is not equal work. So count FLOPs.
#
# ## The roof: arithmetic or memory?
#
# A chip can do $P$ operations a second and fetch $R$ bytes a second from its memory. A layer that does $F$ operations on $Q$ bytes keeps the arithmetic busy for $F/P$ and the memory for $Q/R$. The chip does both at once, so the longer of the two decides. Which one is it? That hangs on the layer's **arithmetic intensity**, the operations it does with each byte that it fetches or writes:
#
# $$ I = \frac{F}{Q} \tag{15.3, definition} $$
#
# The memory's time divided by the arithmetic's time is

# %% tags=["proof"]
flop, traffic, peak, band = sp.symbols("F Q P R", positive=True)
intensity = sp.Symbol("I", positive=True)
derive("15.4", (traffic / band) / (flop / peak), ((peak / band) / intensity, "by (15.3); P/R belongs to the chip, I to the layer"),
       given={intensity: flop / traffic})

# %% [markdown]
# If $I$ is below $P/R$, the memory is the slower one: the layer is **memory-bound**, and a faster multiplier buys nothing. If it is above, the layer is **compute-bound**. The speed that can be reached at all is
#
# $$ \text{roof}(I) = \min(P,\ R\, I) \tag{15.5, definition} $$
#
# and its graph, on logarithmic axes, is a roof: a slope, then a ceiling. The ridge is at $I=P/R$.
#
# > **An image to keep.** A kitchen. The cook is the arithmetic, the corridor to the pantry is the memory. A stew takes one walk for the ingredients and an hour at the stove. Washing an apple takes one walk to the pantry and one second. A faster cook helps the stew. *Where the image breaks:* chips have shelves near the stove (caches), and whoever fuses two recipes into one saves a walk. That is what compilers for networks do.
#
# Where is a convolution? It reads its input, writes its answer, both for $B$ pictures, and reads its weights once for all of them. With $b$ bytes a number and $C$ channels on both sides:

# %% tags=["proof"]
C = sp.Symbol("C", positive=True, integer=True)
work, moved = B * 2 * r**2 * C**2 * H * W, b * (B * 2 * C * H * W + r**2 * C**2)
conv_intensity = r**2 * C / b / (1 + r**2 * C / (2 * B * H * W))
derive("15.6", work / moved, (conv_intensity, "divide above and below by 2 b B C H W"))

# %% [markdown]
# With a large batch the second term of the denominator is nothing, and $I=r^2C/b$: a 3×3 convolution of 128 channels does 288 operations for each byte in fp32, 576 in 16 bit. Now the modest layers. Let us count SiLU as five operations on each number, which it reads and writes: $I\approx5/8$ in fp32. GroupNorm as eight: $I\approx1$. A sum of two maps is one operation for three numbers moved: $I=1/12$. (How many operations an exponential or a root is worth is a convention; ten instead of five would change nothing here.) No width and no batch will change that.
#
# Left, the roof of an accelerator from its data sheet (NVIDIA H100: 989 TFLOP/s in bf16, 3.35 TB/s), with the convolutions put where (15.6) says (large batch) and the modest layers where we just counted them, at two bytes a number. Right, **this** machine, measured: its roof by a large copy and by the faster of a matrix product and a convolution, then four layers. The dots are real times.

# %%
def core_seconds(job, repeats=3, in_a_row=2):
    """CPU time of one call, summed over the cores: what other programs take does not count."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(in_a_row):
            job()
        times.append((time.process_time() - start) / in_a_row)
    return min(times)


with torch.no_grad():
    square, maps = torch.randn(1024, 1024), torch.randn(16, 128, 32, 32)
    long, other, target = (torch.randn(128, 128, 32, 32) for _ in range(3))
    conv, norm, numbers = nn.Conv2d(128, 128, 3, padding=1), nn.GroupNorm(32, 128), long.numel()
    jobs = {"conv 128": (lambda: conv(maps), 2 * 9 * 128 * maps.numel(), 288), "GroupNorm": (lambda: norm(long), 8 * numbers, 1),
            "SiLU": (lambda: F.silu(long), 5 * numbers, 5 / 8), "sum": (lambda: torch.add(long, other, out=target), numbers, 1 / 12)}
    speed = {name: (at, work / core_seconds(layer)) for name, (layer, work, at) in jobs.items()}
    peak_here = max(2 * 1024**3 / core_seconds(lambda: square @ square), speed["conv 128"][1])
    band_here = 2 * 4 * numbers / core_seconds(lambda: target.copy_(long))

# %%
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
widths = {name: 9 * width / 2 for name, width in {"conv 32": 32, "64": 64, "128": 128, "256": 256}.items()}
paper = {name: (at, min(989e12, 3.35e12 * at)) for name, at in ({"GroupNorm": 2, "SiLU": 5 / 4, "sum": 1 / 6} | widths).items()}
chips = {"on paper: H100, 16 bit": (989e12, 3.35e12, paper), "measured: one core of this CPU, fp32": (peak_here, band_here, speed)}
colors = {"GroupNorm": GREEN, "SiLU": ORANGE, "sum": RED}
for ax, (title, (P, R, dots)) in zip(axes, chips.items(), strict=True):
    grid = torch.logspace(-1.2, 3.4, 200)
    ax.loglog(grid, (R * grid).clamp(max=P) / 1e9, color="black", linewidth=1)
    ax.axvline(P / R, color=GREY, linewidth=0.7, linestyle=":")
    for name, (at, reached) in dots.items():
        ax.plot(at, reached / 1e9, "o", color=colors.get(name, BLUE))
        ax.annotate(name, (at, reached / 1e9), (4, -12), textcoords="offset points", fontsize=8)
    ax.set(title=title, xlabel="FLOP per byte", ylabel="GFLOP/s")
plt.show()
modest = max(speed["GroupNorm"][1], speed["SiLU"][1])
print("here, too, the convolution does over eight times as many FLOP/s as GroupNorm or SiLU:", speed["conv 128"][1] > 8 * modest)

# %% [markdown]
# On the accelerator the ridge lies near 300 operations a byte. A convolution of 64 channels sits right on it, one of 128 beyond it, and one of 32 cannot use more than half of the arithmetic that was paid for. GroupNorm, SiLU and sums sit two to three orders of magnitude below the ridge. On a CPU the ridge is lower, because its arithmetic is slower and its memory not by as much. Real dots need not lie *on* the roof. Below it: GroupNorm goes over its numbers more than once, and SiLU's exponential takes many instructions. Above the slope: part of the numbers was still in a cache.
#
# How much of the paper's network is of the one kind, and how much of the other? We send a batch of 128 through it on paper, and write down for each operation the bytes of its inputs and outputs. PyTorch lets one listen: it calls the method `__torch_dispatch__` below before each operation, and all that the method does is to add up the sizes of what goes in and comes out.

# %%
from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Traffic(TorchDispatchMode):
    kinds = {"convolution": "conv", "native_group_norm": "norm", "silu": "SiLU", "add": "sums", "mul": "sums", "cat": "concat"}
    kinds |= {"mm": "matmul", "addmm": "matmul", "bmm": "matmul"}
    nothing = ("empty", "_unsafe_view", "_to_copy", "ones", "arange")

    def __init__(self):
        super().__init__()
        self.bytes = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **(kwargs or {})), func.__name__.split(".")[0]
        if not func.is_view and not name.startswith(self.nothing):
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.bytes[self.kinds.get(name, "other")] += sum(x.numel() * x.element_size() for x in tensors)
        return out


# %%
with Traffic() as moved_bytes, FlopCounterMode(display=False) as counter, torch.no_grad():
    cifar.eval()(*blank(cifar, 128))
share = {name: size / moved_bytes.bytes.total() for name, size in moved_bytes.bytes.most_common()}
by_op = counter.get_flop_counts()["Global"]
conv_share = sum(n for op, n in by_op.items() if "convolution" in str(op)) / sum(by_op.values())
names = ["conv", "matmul", "norm", "SiLU", "sums", "concat", "other"]
fig, ax = plt.subplots(figsize=(8, 2.4))
ax.bar([x - 0.2 for x in range(7)], [conv_share, 1 - conv_share, 0, 0, 0, 0, 0], 0.38, color=BLUE, label="of the FLOPs counted")
ax.bar([x + 0.2 for x in range(7)], [share.get(name, 0) for name in names], 0.38, color=ORANGE, label="of the bytes moved")
ax.set_xticks(range(7), names)
ax.set(title="the 35.7 M network, forward, 128 pictures: shares")
ax.legend()
plt.show()
print(f"convolutions: {conv_share:.0%} of the FLOPs, less than a third of the bytes: {share['conv'] < 1 / 3}")

# %% [markdown]
# This explains most of what one reads about speed. *16-bit numbers* work on both: the blue bars pass about twice as fast on a CPU that knows such numbers, and many times on an accelerator; the orange ones are halved. *Fusing* (compilers, fused optimisers) touches only orange. *Channels last*, a memory layout, feeds the blue ones better; on a CPU the orange ones may lose more than that. And the figure warns of a mistake: a network with fewer FLOPs need not be faster. It is if the FLOPs that went were those it waited for.

# %% [markdown]
# **A compiler fuses what fits together.** It joins loops that run in the same order, and leaves the others alone. On a CPU two of our layers do not fit. A *group* of GroupNorm is a piece of four to sixteen channels in the innermost loop, where a vector register takes sixteen numbers. And the slope of SiLU asks for the exponential a second time. So the package hands a compiler the same functions in another form ([norm.py](../ddpm_course/models/norm.py)). SiLU keeps its slope for the way back. GroupNorm becomes one scale and one shift for each channel, found in one walk through $x$: with $m$ the mean of $x$ over the group and $s$ that of $x^2$, the variance is $s-m^2$. With $w$ and $c$ the learned scale and shift of the layer (and without its $10^{-6}$), $w\,(x-m)/\sqrt{s-m^2}+c=u\,x+v$ with $u=w/\sqrt{s-m^2}$ and $v=c-u\,m$.
#
# There is a trap in that. If the mean is large, $s$ and $m^2$ are large and nearly equal, and their difference is made of rounding. The way out costs one subtraction: sum around any number $k$ of the group. Mean and squares are then those of $x-k$, and the variance is the same.

# %%
from ddpm_course.models.norm import GroupNorm

layer, feature = GroupNorm(64, 8), torch.randn(4, 64, 16, 16, generator=seeded(9)) * 0.01 + 30
by_group = feature.reshape(4, 8, -1)
variance = by_group.square().mean(2, keepdim=True) - by_group.mean(2, keepdim=True).square()
squares = ((by_group - by_group.mean(2, keepdim=True)) / (variance.clamp(min=0) + 1e-6).sqrt()).reshape(feature.shape)
exact = F.group_norm(feature.double(), 8, eps=1e-6)
with torch.no_grad():
    for name, answer, limit in (("difference of squares", squares, 1e-2), ("around a number of the group", layer.by_sums(feature), 1e-5)):
        print(f"{name:30s} right to {limit:g}: {bool((answer - exact).abs().max() < limit)}")

# %% [markdown]
# **Random numbers fit no loop.** A generator makes each number from the state that the last one left, so a compiler can draw a dropout mask only one number at a time. The way out is a generator without a state: number $i$ is a *hash* of $i$, a fixed scrambling of its bits. Each can then be made by itself, sixteen at once, and made again instead of being kept. Two seeds, drawn anew at every step, keep the masks of layers and steps apart ([dropout.py](../ddpm_course/models/dropout.py)).

# %%
from ddpm_course.models.dropout import kept_by_hash

shape, rate, seeds = torch.Size((64, 32, 32, 32)), 0.1, torch.tensor([12, 34], dtype=torch.int32)
mask = kept_by_hash(shape, rate, seeds)
zero, other = (mask == 0).double().flatten(), (kept_by_hash(shape, rate, seeds + 1) == 0).double().flatten()
standard_error = (rate * (1 - rate) / len(zero)) ** 0.5
together = lambda a, b: float((a * b).mean() - rate**2) / (rate * (1 - rate) / len(a) ** 0.5)
print(f"share of zeros is {rate}, within four standard errors: {abs(float(zero.mean()) - rate) < 4 * standard_error}")
print(f"neighbours know nothing of each other, nor do two masks: {all(abs(together(*pair)) < 4 for pair in ((zero[1:], zero[:-1]), (zero, other)))}")
print(f"the rest grows to {float(mask.max()):.4f}; asked again, the same mask: {torch.equal(mask, kept_by_hash(shape, rate, seeds))}")

# %% [markdown]
# **Many short loops cost more than one long one.** After the gradient come clipping, AdamW and the average. Each is one loop per weight tensor, and a network like ours has one to several hundred, most of them short. Calling a loop, waking the second core and waiting for it takes longer than the numbers do. So a compiled network on a CPU keeps all its weights in *one* tensor, their gradients in another and their averages in a third; the layers see pieces of them ([side_by_side.py](../ddpm_course/side_by_side.py)). The formulas are the same. What changes is the last digit of the norm, because the squares are added in another order.

# %%
import copy

from ddpm_course.side_by_side import SideBySide

with torch.random.fork_rng():
    torch.manual_seed(15)
    apart = UNet(UNetConfig.digits())
together, x_small, t_small = copy.deepcopy(apart), torch.randn(16, 1, 8, 8, generator=seeded(15)), torch.arange(1, 17)
averages = {net: ema_of(net, 0.99) for net in (apart, together)}
side = SideBySide(together, averages[together], 0.99)
adams = torch.optim.AdamW(apart.parameters(), lr=1e-3), torch.optim.AdamW([side.weights], lr=1e-3)
for _ in range(3):
    for net in (apart, together):
        (net.eval()(x_small, t_small) * 100).square().mean().backward()
    norms = torch.nn.utils.clip_grad_norm_(apart.parameters(), 1.0), side.clip(1.0)
    for adam in adams:
        adam.step()
    adams[0].zero_grad()
    averages[apart].update_parameters(apart)
    side.average()
in_a_row = lambda net: torch.cat([w.detach().flatten() for w in net.parameters()])
places = {weight.untyped_storage().data_ptr() for weight in together.parameters()}
print(f"{len(list(apart.parameters()))} tensors of {len(side.weights):,} weights, or one that all layers read: {places == {side.weights.data_ptr()}}")
print(f"the same norm: {torch.allclose(*norms, rtol=1e-4)}")
for name, a, b in (("weights", apart, together), ("averages", averages[apart].module, averages[together].module)):
    print(f"the same {name:8s} after three steps of 0.001: {float((in_a_row(a) - in_a_row(b)).abs().mean()) < 1e-6}")

# %% [markdown]
# What do these rewritings buy? Measured on two CPU cores (`python benchmarks/bench.py`), bf16. A network of 1.6 million weights, 64 pictures a step: diffusers' network of the same architecture goes from 145 pictures a second to 130 when it is compiled, ours from 175 to 241. Of the time that is left, two thirds are convolutions, and no form of the sums between them can shorten those. The network of 35.7 million weights, 16 pictures a step, goes from 15.2 to 17.7. With the compiler's own dropout it went down, from 17.0 to 15.8.

# %% [markdown]
# ## Sixteen bits
#
# A floating-point number has a sign, an exponent $e$ and $M$ bits of mantissa $m$:
#
# $$ x=\pm\,2^{e}\Big(1+\frac{m}{2^{M}}\Big),\qquad m=0,1,\dots,2^M-1 \tag{15.7, definition} $$
#
# The exponent gives the **range**, the mantissa the **resolution**. Sixteen bits can be spent in two ways.

# %%
print("         bits: exponent, mantissa     largest   smallest (full precision)   steps just above 1")
for dtype, (e, M) in {torch.float32: (8, 23), torch.bfloat16: (8, 7), torch.float16: (5, 10)}.items():
    info = torch.finfo(dtype)
    print(f"{str(dtype)[6:]:9s}            {e:2d} {M:10d} {info.max:13.1e} {info.tiny:15.1e} {'2^-' + str(M):>22s}")
    assert info.eps == 2.0**-M

# %% [markdown]
# bf16 has the range of fp32, and hardly three decimal digits. fp16 has one digit more, and a narrow range. What does rounding to $M$ bits cost? Between 1 and 2 the numbers are $2^{-M}$ apart, so the nearest one is at most half of that away:

# %% tags=["proof"]
M_sym, x_pos = sp.Symbol("M", integer=True, positive=True), sp.Symbol("x", positive=True)
rounded = sp.floor(2**M_sym * x_pos + sp.Rational(1, 2)) / 2**M_sym
tried = [{M_sym: bits, x_pos: 1 + n / 97} for bits in (7, 10, 23) for n in range(97)]
inequality("15.8", sp.Abs(rounded - x_pos), 2 ** (-M_sym - 1), cases=tried, equality={M_sym: 7, x_pos: 1 + 2.0**-8}, relation=r"\le")
some_number = torch.tensor(1.2345, dtype=torch.float64)
for bits, dtype in ((7, torch.bfloat16), (10, torch.float16)):
    print(f"{str(dtype)[6:]} rounds like this:", number(rounded, {M_sym: bits, x_pos: 1.2345}) == float(some_number.to(dtype)))

# %% [markdown]
# Between 2 and 4 everything is twice as large, and so on: the *relative* error is never above $2^{-M-1}$, which is 0.4 % in bf16. For a network that is bearable, because its answers are sums of thousands of such errors of both signs. But three things in our program are not of this kind.
#
# ### Where it fails, 1: differences from 1
#
# $\bar\alpha_t$ starts just below 1, and we need $1-\bar\alpha_t$. In bf16 the first ten of the linear schedule round to 1, the noise vanishes (chapter 02; the mistake comes back below). So the schedule is float64, and $x_t$ and $\varepsilon$ are fp32.
#
# ### Where it fails, 2: small updates
#
# A weight $w$ takes a step: $w-\eta g$. If the step is less than half the distance to the next number, the result rounds back to $w$. Take $w=1$. The next number below it is $2^{-M-1}$ away, half as far as the next one above, since below a power of two the numbers lie twice as dense. Half of that is $2^{-M-2}$. So by (15.8) a step below $2^{-M-2}$ of the weight is certain to be lost. In bf16 that is $2^{-9}\approx0.2\,\%$. Adam moves each weight by about $\eta$. The scales of a GroupNorm are 1; the paper's $\eta$ is $2\cdot10^{-4}$. They would never move. Nor would the EMA, which goes $10^{-4}$ of the way at each step. Nor does it help that there are many steps: each of them is lost for itself.

# %%
steps, lr = 2000, 2e-4
walks = {}
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    scale, average, path = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype) + 1, []
    for _ in range(steps):
        scale = scale - torch.tensor(lr, dtype=dtype)
        average = average + torch.tensor(1e-4, dtype=dtype) * (0.5 - average)  # an EMA whose target is 0.5
        path.append((float(scale), float(average)))
    walks[str(dtype)[6:]] = torch.tensor(path)
for name, path in walks.items():
    print(f"{name:9s} a weight of 1 after {steps} steps of {lr}: {path[-1, 0]:.2f};   an average on its way from 1 to 0.5: {path[-1, 1]:.2f}")

# %% [markdown]
# So the weights that the optimiser changes, its moments and the EMA are fp32. They are called *master weights*. Each forward pass makes a 16-bit copy of them and throws it away.
#
# ### Where it fails, 3: small gradients, in fp16
#
# The loss is a mean over all numbers of a batch: 128 pictures, 3,072 numbers each. So its derivative with respect to *one* number of the network's answer is an error of size 1, times two, divided by 393,216: about $5\cdot10^{-6}$. That is below what fp16 can write in full precision, and it is only the start of the backward pass. bf16 has no such trouble. For fp16 the cure is the **loss scale**: multiply the loss by a large $K$, do the backward pass, divide the gradients (now fp32) by $K$.

# %% tags=["proof"]
theta, loss_scale = sp.Symbol(r"\theta", real=True), sp.Symbol("K", positive=True)
loss_of = sp.Function("L")(theta)
equation("15.9", sp.Derivative(loss_scale * loss_of, theta) / loss_scale, sp.Derivative(loss_of, theta))

# %%
error = torch.randn(128, 3, 32, 32, generator=seeded(0), dtype=torch.float64)
gradient = 2 * error / error.numel()
for K_value in (1, 2**16):
    stored = (gradient * K_value).half().double() / K_value
    off = ((stored - gradient).abs() / gradient.abs()).median()
    print(f"loss scale {K_value:6,d}: half of them off by more than 0.1 %: {bool(off > 0.001)};  exactly 0: {float((stored == 0).float().mean()):.1%}")

# %% [markdown]
# $K$ is a power of two, because those change the exponent alone and cost no digit. If it is too large, something overflows to infinity; then the step is skipped and $K$ halved. `precision="fp16"` does all this (accelerate does it for us), on a GPU.
#
# ### Why do I get NaN under fp16?
#
# Because of the other end of the range. 65,504 is the largest number. The square of an activation of 300 is beyond it, and infinity minus infinity is not a number. One is enough: it enters each mean, then each weight.

# %%
for dtype in (torch.float16, torch.bfloat16):
    squared = torch.tensor(300.0, dtype=dtype) ** 2
    print(f"{str(dtype)[6:]:9s} 300 squared = {float(squared):8.0f};  minus itself = {float(squared - squared)}")
try:
    Run(TrainConfig(precision="fp16", steps=1))
except CourseError as refused:
    print("fp16 on a CPU:", type(refused).__name__)

# %% [markdown]
# What to do: take bf16 if the chip has it. Otherwise keep the sums of squares (GroupNorm, softmax, the loss) in fp32, as autocast does, and use the loss scale. And stop at the first number that is not finite, before it reaches a checkpoint. Our trainer does (`_update` in [train.py](../ddpm_course/train.py)), and names the step.
#
# ### What is cast and what is not: looked at
#
# In the package the *network alone* computes in 16 bit. We take one training step in fp32 and one in bf16 with the same seed, and look inside.

# %%
small = replace(UNetConfig.digits(), base_channels=16)
tiny = TrainConfig(net=small, steps=3, batch_size=32, warmup=1, log_every=3)


def look_inside(precision):
    run, seen = Run(replace(tiny, precision=precision)), {}
    run.raw.register_forward_pre_hook(lambda net, inputs: seen.update(x_t=inputs[0]))
    run.raw.conv_in.register_forward_hook(lambda layer, inputs, out: seen.update(inside=out.dtype))
    run.raw.register_forward_hook(lambda net, inputs, out: seen.update(answer=out.dtype))
    seen["loss"] = run.one_step()
    kept = [*run.raw.parameters(), *run.ema.parameters(), *run.optimizer.optimizer.state[run.raw.conv_in.weight].values()]
    return seen | {"master": {x.dtype for x in kept}}


full, half = look_inside("fp32"), look_inside("bf16")

# %%
print("x_t equal, every bit:", torch.equal(full["x_t"], half["x_t"]))
print("a convolution computes in", str(half["inside"])[6:], "; the answer and the loss are", str(half["answer"])[6:])
print("weights, their average and Adam's moments:", *(str(dtype)[6:] for dtype in half["master"]))
off = abs(float(half["loss"] / full["loss"]) - 1)
print("the two losses differ:", off > 0, "; by less than 1 %:", off < 0.01)
assert torch.equal(full["x_t"], half["x_t"]) and half["inside"] == torch.bfloat16 and half["master"] == {torch.float32}

# %% [markdown]
# The three formats in one figure. Left, the relative error of rounding, over the whole range: bf16 is coarse everywhere, fp16 is finer in the middle and breaks down at both ends. Middle, the noise of the first timesteps if the table is cast. Right, the weight that does not move.

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 2.9))
sizes = torch.logspace(-9, 6, 1500, dtype=torch.float64)
for dtype, color in ((torch.float32, GREY), (torch.bfloat16, ORANGE), (torch.float16, BLUE)):
    off = ((sizes.to(dtype).double() - sizes).abs() / sizes).clamp(1e-9, 1)
    axes[0].loglog(sizes, off, ",", color=color)
    axes[0].plot([], [], color=color, label=str(dtype)[6:])
axes[0].set(title="relative rounding error", xlabel="size of the number")
axes[0].legend(fontsize=8)
bar = linear_schedule(1000).alpha_bar[1:31]
for dtype, color in ((torch.float64, GREY), (torch.bfloat16, ORANGE), (torch.float16, BLUE)):
    axes[1].plot(range(1, 31), (1 - bar.to(dtype).double()).sqrt(), color=color, marker=".", markersize=4)
axes[1].set(title=r"$\sqrt{1-\bar\alpha_t}$ from a table in this format", xlabel="t")
for (name, path), color in zip(walks.items(), (GREY, ORANGE, BLUE), strict=True):
    axes[2].plot(path[:, 0], color=color, linestyle="--" if name == "float16" else "-")
axes[2].set(title="a weight of 1, steps of 0.0002", xlabel="step")
plt.show()

# %% [markdown]
# ## Memory
#
# What lies in memory during a step? Two heaps. The first belongs to the parameters, $N$ of them: the weight, its gradient, Adam's two moments, its average. Four bytes each, five times. The second belongs to the pictures: each layer keeps what the backward pass will need, for each of the $B$ pictures.
#
# $$ \text{bytes}=\underbrace{(4+4+8+4)}_{\text{weight, gradient, Adam, EMA}}N+a\,B \tag{15.10, definition} $$
#
# We weigh the first heap on a real run, after one step (the gradients are gone by then; they are as large as the weights).

# %%
run = Run(tiny)
run.one_step()
size_of = lambda tensors: sum(x.numel() * x.element_size() for x in tensors)
N = sum(p.numel() for p in run.raw.parameters())
moments = [x for state in run.optimizer.optimizer.state.values() for name, x in state.items() if name != "step"]
heap = {"weights": size_of(run.raw.parameters()), "Adam": size_of(moments), "EMA": size_of(run.ema.module.parameters())}
print({name: size // N for name, size in heap.items()}, "bytes a parameter, exactly:", all(size % N == 0 for size in heap.values()))
print(f"the 35.7 M network: {20 * 35_746_307 / 1e9:.2f} GB before the first picture")

# %% [markdown]
# For the second heap, PyTorch tells us whenever it puts a tensor aside for the backward pass. We collect these, count each storage once, and leave out the weights. This works on paper, too.

# %%
def kept_bytes(net, B, inputs=None):
    own, kept = {p.untyped_storage()._cdata for p in net.parameters()}, {}

    def put_aside(x):
        kept[x.untyped_storage()._cdata] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(put_aside, lambda x: x):
        out = net(*(inputs or blank(net, B)))
    del out
    return sum(x.untyped_storage().nbytes() for address, x in kept.items() if address not in own)


cifar.train()
a = kept_bytes(cifar, 1)
print(f"a = {a / 1e6:.1f} MB for each picture; 8 pictures keep 8 times as much, to the byte: {kept_bytes(cifar, 8) == 8 * a}")
print(f"batch 128: {128 * a / 1e9:.1f} GB of activations beside {20 * 35_746_307 / 1e9:.1f} GB for the parameters")
grows = [kept_bytes(on_paper(UNetConfig.cifar10(), image_size=size).train(), 1) / a for size in (64, 128)]
print(f"64 x 64 pixels: {grows[0]:.1f} times as much; 128 x 128: {grows[1]:.1f} times")

# %% [markdown]
# So for pictures it is the activations that fill the memory, not the parameters. They grow with $B$ exactly, and with $HW$ nearly: not quite four times for four times the pixels, since the attention at 16×16 stays the same. (Where attention sits at full resolution, its $HW\times HW$ table grows with the *square* of $HW$.) Autocast to 16 bit halves most of this heap, and nothing of the first one.
#
# ### Checkpointing: forget, and compute again
#
# One need not keep everything. Keep the *input* of a block, forget what is inside, and compute the inside again when the backward pass arrives. Take a chain of $D$ equal layers and cut it into blocks of $q$. We keep $D/q$ inputs for good, and at the moment of the backward pass the $q$ insides of one block. How large should a block be?

# %% tags=["proof"]
depth, block = sp.symbols("D q", positive=True)
tried = [{depth: layers, block: size} for layers in (4, 16, 50, 100) for size in range(1, layers + 1)]
inequality("15.11", depth / block + block, 2 * sp.sqrt(depth), cases=tried, equality={depth: 16, block: 4})

# %% [markdown]
# The two sides meet at $q=\sqrt D$: memory falls from $D$ to $2\sqrt D$, and the price is one more forward pass, at most a third more work by the rule of three. What this does not say: real layers are not equal, and the cheapest ones to compute again are often the largest. Our U-Net, with `checkpointing=True`, forgets the inside of each residual block. The gradients must not change, the kept bytes must, and so must the FLOPs:

# %%
lean = on_paper(UNetConfig.cifar10(), checkpointing=True).train()
print(f"kept for a picture: {a / 1e6:.1f} MB, with checkpointing {kept_bytes(lean, 1) / 1e6:.1f} MB")
print(f"training step: {whole / 1e9:.1f} GFLOP, with checkpointing {flops(lean, backward=True) / 1e9:.1f}")
x_0s, t_some = digits().train.images[:8], torch.tensor([1, 2, 100, 300, 500, 700, 900, 1000])
noise = torch.randn(x_0s.shape, generator=seeded(1))


def gradients(net, part=slice(None), factor=1.0):
    net.zero_grad()
    (factor * diffusion_loss(net, cosine, x_0s[part], t_some[part], noise[part], "v").mean()).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


torch.manual_seed(0)
plain, forgetful = UNet(small), UNet(replace(small, checkpointing=True))
forgetful.load_state_dict(plain.state_dict())
torch.testing.assert_close(gradients(plain), gradients(forgetful), rtol=1e-5, atol=1e-7)
print("the same gradients: True")

# %%
batches = [2**n for n in range(4, 10)]
bottom = [20 * 35_746_307 / 1e9] * len(batches)
variants = {"plain": a, "checkpointing": kept_bytes(lean, 1), "plain, in 4 parts": a / 4}
fig, ax = plt.subplots(figsize=(8, 2.8))
for shift, (name, each), color in zip((-0.27, 0, 0.27), variants.items(), (BLUE, GREEN, ORANGE), strict=True):
    places = [x + shift for x in range(len(batches))]
    ax.bar(places, [each * size / 1e9 for size in batches], 0.25, bottom=bottom, color=color, label=name)
    ax.bar(places, bottom, 0.25, color=GREY)
ax.set_xticks(range(len(batches)), batches)
ax.set(title="the 35.7 M network in fp32: memory in GB (grey: the parameters' share)", xlabel="batch")
ax.legend()
plt.show()

# %% [markdown]
# The third set of bars is the next section.
#
# ## Accumulation: the same step in parts
#
# A batch that does not fit can go through the network in parts. Let the batch have $k$ parts of $p$ pictures. The gradient we want is that of the mean over all of them. What the network gives us, part by part, is the gradient of the mean over one part.

# %% tags=["proof"]
in_part = sp.Symbol("p", positive=True, integer=True)
one_loss = sp.Function(r"\ell")(i, j, theta)  # of picture i in part j
slope = sp.Derivative(one_loss, theta)
derive("15.12", sp.Derivative(sp.Sum(one_loss, (i, 1, in_part), (j, 1, k)) / (in_part * k), theta),
       (sp.Sum(slope, (i, 1, in_part), (j, 1, k)) / (in_part * k), "the derivative of a sum is the sum of the derivatives"),
       (sp.Sum(sp.Sum(slope, (i, 1, in_part)) / in_part, (j, 1, k)) / k, "1/p goes into each part, 1/k stays outside"))

# %% [markdown]
# **The gradient of the mean is the mean of the gradients.** Backward passes *add* to what is already in `.grad`, so somebody has to put in the $1/k$: divide each part's loss by $k$ before its backward pass.
#
# > **An image to keep.** Counting an election in four halls. Each hall counts for itself, and the result is the same, if each hall reports its share *of all votes*, not of its own. *Where the image breaks:* layers that look at the whole batch (batch normalisation) would count differently in each hall. GroupNorm looks at one picture at a time. That is one reason why diffusion networks use it.

# %%
parts = [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
at_once = gradients(plain)
summed = sum(gradients(plain, part) for part in parts)  # what happens without the division
mean = sum(gradients(plain, part, factor=1 / 4) for part in parts)
torch.testing.assert_close(mean, at_once, rtol=1e-4, atol=1e-6)
print("four parts, each divided by 4, equal the whole: True")
print(f"not divided: {float(summed.norm() / at_once.norm()):.1f} times as long")

# %% [markdown]
# The trainer of Dhariwal and Nichol's public code (guided-diffusion, `train_util.py`, 2021) calls backward on the mean of each micro-batch and does not divide. Why does nobody notice? Because Adam divides the gradient by its own size: a gradient four times as long gives *the same* step. What does change: the clipping threshold (four times as strict), weight decay's balance in other optimisers, the loss that is printed, and plain gradient descent, whose learning rate is in effect four times as high. The package divides. One step of the trainer, whole and in four parts, stopped just before the optimiser:

# %%
def gradients_of_step(micro_batches):
    run = Run(replace(tiny, micro_batches=micro_batches))
    run._update = lambda loss: None
    run.one_step()
    return torch.cat([p.grad.flatten() for p in run.raw.parameters()])


torch.testing.assert_close(gradients_of_step(4), gradients_of_step(1), rtol=1e-5, atol=1e-6)
print("micro_batches=4 and micro_batches=1 give the same gradient to 1e-6: True")

# %% [markdown]
# (Dropout draws other masks when the batch is cut in another way. Then the two are equal in law, not in number. The digits' network has no dropout.)
#
# ## Several machines
#
# Now let the parts be worked on at the same time, by $k$ processes, each with its own copy of the weights and $1/k$ of the batch. Equation (15.12) does not ask *who* computes the inner sums. Each process takes its own gradient, then all exchange: each must end up with the mean. All then take the same step from the same weights, so the copies stay equal for ever. This is **data parallelism**, and by (15.12) it *is* training with one process (with dropout: in law, since each process draws its own masks).
#
# The exchange has a price. Usually the processes sit in a **ring**, and each cuts its gradient into as many pieces as there are processes. In every pass each hands one piece to its right neighbour, all at the same time. A piece that goes round is added to at each stop; after two stops (with three processes) it holds all three parts. Then the finished pieces go round once more, to be copied. Here with three processes and pieces a, b, c; the numbers behind a piece say whose parts are in it.

# %%
gradients = [torch.randn(3, 5, generator=seeded(20 + rank)) for rank in range(3)]  # each process's own, in three pieces
held, whose, sent = [x.clone() for x in gradients], [[{rank} for _ in range(3)] for rank in range(3)], [0, 0, 0]
for add in (True, False):
    for passed in range(2):
        moving = [(rank, (rank - passed + (not add)) % 3) for rank in range(3)]  # who sends which piece
        parcels = [(held[rank][piece].clone(), set(whose[rank][piece])) for rank, piece in moving]
        for (rank, piece), (numbers, owners) in zip(moving, parcels, strict=True):
            right, sent[rank] = (rank + 1) % 3, sent[rank] + len(numbers)
            held[right][piece] = held[right][piece] + numbers if add else numbers
            whose[right][piece] = whose[right][piece] | owners
        rows = ["  ".join("abc"[p] + "".join(map(str, sorted(owners))).ljust(3) for p, owners in enumerate(row)) for row in whose]
        print(f"{'add' if add else 'copy':5s}pass {passed + 1}   " + " |  ".join(f"process {rank}: {text}" for rank, text in enumerate(rows)))
assert all(torch.allclose(x, sum(gradients)) for x in held)
print(f"all hold the sum; each of the three sent {sent[0]} numbers, of a gradient of {gradients[0].numel()}")

# %% [markdown]
# With $k$ processes that is $k-1$ passes to add up and $k-1$ to copy, of $N/k$ numbers each. At 4 bytes a number, a process sends

# %% tags=["proof"]
N_sym, hop = sp.Symbol("N", positive=True), sp.Symbol("j", integer=True, positive=True)
ring = 8 * N_sym * (1 - 1 / k)
equation("15.13", 2 * sp.Sum(4 * N_sym / k, (hop, 1, k - 1)), ring)

# %% [markdown]
# bytes (with $k=3$: four thirds of the gradient, as counted above): less than $8N$, for *any* number of processes. For the paper's network that is 0.29 GB a step. On a fast link inside one machine (hundreds of GB a second) it is a millisecond. Over an office network (0.1 GB a second) it nears three seconds. GPUs that need less than a tenth of a second for the step itself become *slower* with more machines; CPUs that need eight seconds still gain. The FLOPs of each process fall like $1/k$, the exchange does not.
#
# One more thing can go wrong: **randomness**. If each process draws its own batch from its own generator, two of them may see the same picture with the same noise, and the run depends on how many there are. Here picture order, $t$ and $\varepsilon$ follow from (seed, step) for the *whole* batch, and each process takes its slice.

# %%
images, cpu = digits().train.images, torch.device("cpu")
index, everything = Feed(tiny, images, cpu)(0)
shares = [Feed(tiny, images, cpu, rank=rank, processes=2)(0)[1] for rank in (0, 1)]
print("the shares of two processes, one after the other, are the whole batch:", torch.equal(torch.cat(shares), everything))
assert torch.equal(torch.cat(shares), everything)

# %% [markdown]
# And now really: two processes on this machine, which talk through sockets (PyTorch's `gloo`), started by the command that would start eight GPUs. Beside it the same training in one process, in this notebook. Same seed, three steps. Then we ask both averaged networks the same questions.

# %%
import os
import subprocess
import sys

room = tempfile.TemporaryDirectory()
launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m ddpm_course train --device cpu --data digits"
launch += " --base-channels 16 --steps 3 --batch-size 32 --warmup 1 --log-every 3 --out two"
calm = os.environ | {"OMP_NUM_THREADS": "1", "CI": "1"}
done = subprocess.run([sys.executable, *launch.split()], cwd=room.name, env=calm, capture_output=True, text=True)
assert done.returncode == 0, done.stderr[-2000:]
alone, together = train(tiny).net, load_model(Path(room.name, "two")).net
with torch.no_grad():
    asked = torch.randn(16, 1, 8, 8, generator=seeded(2)), torch.arange(1, 17) * 60
    torch.testing.assert_close(alone(*asked), together(*asked), rtol=1e-3, atol=1e-4)
print("two processes and one give the same network: True")

# %% [markdown]
# Equal to three digits at least, not to the last bit: sums were taken in another order. (Compare single weights and you find a few that differ by more. They are weights whose exact gradient is 0, such as the bias of the attention's keys, which softmax ignores. Adam divides their rounding noise by its own size, and takes a full step on it. It does no harm, since the answer does not depend on them.)
#
# The same lines for more:
#
# | where | command |
# |---|---|
# | one GPU | `python -m ddpm_course train ...` |
# | eight GPUs | `torchrun --nproc-per-node 8 -m ddpm_course train ...` |
# | four machines with eight each | on each: `torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint FIRST:29500 -m ddpm_course train ...` |
#
# `--batch-size` is always that of the whole, so the same command means the same run wherever it is started.
#
# Here are all switches side by side. The last column is the one to ask for before turning any of them.
#
# | switch | what it buys | what it costs | the same training? |
# |---|---|---|---|
# | `precision="bf16"` | faster arithmetic, half the activations | 0.4 % rounding inside the network | to rounding |
# | `compile="default"` | fewer walks to the memory | about a minute at the start | to rounding; with dropout, in law |
# | `channels_last` | faster convolutions, on GPUs above all | slower sums on a CPU, unless compiled | to rounding |
# | `micro_batches=4` | a quarter of the activations | less work at a time for each kernel | to rounding; with dropout, in law |
# | `UNetConfig(checkpointing=True)` | activations 55 → 23 MB a picture | 16 % more FLOPs | to rounding |
# | `torchrun`, $k$ processes | up to $k$ times the speed | $8N$ bytes exchanged a step | to rounding; with dropout, in law |
# | a larger batch | fewer steps, fuller chips | more pictures until it is as good | **no** |
# | `UNetConfig(patch_size=2)` | about a quarter of the FLOPs | detail: it is another network | **no** |
#
# The next section is about the first **no**. The second is chapter 07's business.

# %% [markdown]
# ## What a larger batch does change
#
# Accumulation and data parallelism leave the batch as it is. But eight GPUs tempt one to take eight times the batch. Then the mathematics is a different one. Let us look at the noise of the gradient first, on a network so small that we can compute everything: one weight, $\hat\varepsilon=w\,x_t$, standard normal data, at $w=0$. The loss of a picture is $(\varepsilon-wx_t)^2$ and its slope $-2\varepsilon x_t$. The mean of that is $-2\sqrt{1-\bar\alpha_t}$, because $x_t$ contains $\sqrt{1-\bar\alpha_t}\,\varepsilon$, and $\mathbb E[\varepsilon^2]=1$. How far is the slope of one picture from that?

# %% tags=["proof"]
noisy = sp.sqrt(bar_t) * x_0 + sp.sqrt(1 - bar_t) * eps
one_slope, mean_slope = -2 * eps * noisy, -2 * sp.sqrt(1 - bar_t)
data_x = normal("x")  # x_0 is standard normal here
spread = lambda value: (value - mean_slope) ** 2
derive("15.14", Expect(spread(one_slope.subs(x_0, data_x)), data_x, eps),
       (4 * bar_t * Expect(data_x**2, data_x) * Expect(eps**2, eps) + 4 * (1 - bar_t) * (Expect(eps**4, eps) - 2 * Expect(eps**2, eps) + 1), "square; odd powers average to 0"),
       (8 - 4 * bar_t, "the second moment of a normal is 1, the fourth is 3"))

# %% [markdown]
# Pictures are drawn independently, so variances add: a sum of $B$ has $B$ times the variance, and the mean of $B$ has it divided by $B^2$. The **noise of the gradient falls like $1/\sqrt B$**. Monte Carlo, with batches of 16 mixed by the package at $t=300$:

# %% tags=["proof"]
chain, draws_of = linear_schedule(1000), 20_000
clean, dice = (torch.randn(draws_of * 16, generator=seeded(seed), dtype=torch.float64) for seed in (3, 4))
slopes = (-2 * dice * q_sample(chain, clean, torch.full((len(clean),), 300), dice)).reshape(draws_of, 16).mean(1)
batch_slope = sp.Symbol(r"\bar g", real=True)
expectation("15.15", Expect(spread(batch_slope), batch_slope), (8 - 4 * bar_t) / B, draws={batch_slope: slopes},
            values={bar_t: chain.at(300), B: 16}, wrong=(8 - 4 * bar_t) / sp.sqrt(B))

# %% [markdown]
# The same for a real network, all its weights together. Two independent batches of size $B$ give gradients $g$ and $g'$; half the mean of $\lVert g-g'\rVert^2$ is the variance, and needs no knowledge of the true gradient.

# %%
def batch_gradient(net, size, rng):
    x, t = images[torch.randint(len(images), (size,), generator=rng)], torch.randint(1, 1001, (size,), generator=rng)
    net.zero_grad()
    diffusion_loss(net, cosine, x, t, torch.randn(x.shape, generator=rng), "v").mean().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


torch.manual_seed(0)
lesson, rng, batch_sizes = UNet(replace(small, base_channels=8)), seeded(5), [8, 16, 32, 64, 128]
noise_of = [sum(float((batch_gradient(lesson, size, rng) - batch_gradient(lesson, size, rng)).square().sum()) / 2 for _ in range(16)) / 16 for size in batch_sizes]
logs = torch.tensor([batch_sizes, noise_of]).log()
slope_here = float(torch.linalg.lstsq(torch.stack([logs[0], torch.ones(5)], 1), logs[1]).solution[0])
print("variance of a real network's gradient falls like B to the power -1, within 0.25:", abs(slope_here + 1) < 0.25)
assert abs(slope_here + 1) < 0.25

# %% [markdown]
# ### Learning rate and batch
#
# Suppose we take a batch $k$ times as large. One large step replaces $k$ small ones. To come as far, it must be $k$ times as long: $\eta\to k\eta$. Does that keep the noise, too? $k$ small steps add $k$ independent noises, each of variance $\eta^2\nu^2/B$, where $\nu^2$ is the variance of one picture's gradient. The one large step, with $\eta'=k\eta$ and $B'=kB$, has noise of variance $\eta'^2\nu^2/B'$. The same:

# %% tags=["proof"]
eta, nu = sp.symbols(r"\eta \nu", positive=True)
eta_large, B_large = sp.symbols(r"\eta' B'", positive=True)
small_steps = sp.Sum(eta**2 * nu**2 / B, (i, 1, k))
derive("15.16", small_steps, (k**2 * eta**2 * nu**2 / (k * B), "k equal terms"),
       (eta_large**2 * nu**2 / B_large, "k squared belongs to the rate, the k below to the batch"), given={eta_large: k * eta, B_large: k * B})

# %% [markdown]
# This is the **linear scaling rule**: batch times $k$, learning rate times $k$. It rests on one assumption that we have slipped in: that the gradient stays the same during the $k$ small steps. On a valley of curvature $h$, the loss is $\frac h2\theta^2$, and one step multiplies $\theta$ by $1-\eta h$. Then $k$ small steps and one large one differ. As long as a small step does not leap to the other side of the valley ($\eta h\le1$), always in the same direction:

# %% tags=["proof"]
h_curv = sp.Symbol("h", positive=True)
tried = [{eta: e / 100, h_curv: 2, k: many} for e in range(1, 50, 6) for many in range(1, 40, 3)]
inequality("15.17", (1 - eta * h_curv) ** k, 1 - k * eta * h_curv, cases=tried, equality={eta: 0.1, h_curv: 2, k: 1})

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 2.9))
left.loglog(batch_sizes, [v**0.5 for v in noise_of], "o", color=BLUE, label="measured, all weights")
left.loglog(batch_sizes, [noise_of[0] ** 0.5 * (8 / size) ** 0.5 for size in batch_sizes], color=GREY, linewidth=1, label=r"$\propto 1/\sqrt{B}$")
left.set(title="noise of the gradient", xlabel="batch")
left.set_xticks(batch_sizes, batch_sizes)
left.minorticks_off()
left.set_yticks([0.5, 1, 2], [0.5, 1, 2])
left.legend()
ks = torch.arange(1, 33)
curves(ks, {"k small steps": (1 - 0.08) ** ks, "one step, k times as long": 1 - 0.08 * ks}, right, xlabel="k", title=r"what remains of $\theta$, with $\eta h=0.08$")
right.axhline(-1, color=RED, linewidth=0.8)
right.legend(loc="upper right")
plt.show()

# %% [markdown]
# For small $k\eta h$ the two agree. Then the large step overshoots the valley's floor (below 0), and beyond the red line ($k\eta h>2$) it lands farther away than it started. So the rule ends somewhere, and where depends on the steepest valley of the network: one *tries*. Two more reasons for care. Adam divides by the gradient's size, and where noise makes up most of that size, the division already contains a $\sqrt B$; then $\eta\to\sqrt k\,\eta$ is the better rule. And (15.15) has diminishing returns: once the noise is smaller than the gradient itself, a larger batch is only a dearer one. Chapter 08 sweeps both on validation data, and at an equal number of *pictures* the small batch wins.
#
# ### The average must be told
#
# EMA's decay is *per step*. The share of an old weight is $d^n$ after $n$ steps, so it is halved after $\ln\frac12/\ln d$ steps. Count in pictures, not steps: with batch $B$ that is $B\ln\frac12/\ln d$ pictures. With a batch of $kB$ the same memory *in pictures* needs the decay $d^k$:

# %% tags=["proof"]
d_sym = sp.Symbol("d", positive=True)
half_life = lambda decay, size: size * sp.log(sp.Rational(1, 2)) / sp.log(decay)
equation("15.18", half_life(d_sym**k, k * B), half_life(d_sym, B))

# %%
steps_half = math.log(0.5) / math.log(0.9999)
print(f"d = 0.9999: half after {steps_half:,.0f} steps; with batch 128 that is {steps_half * 128 / 50_000:.1f} times through CIFAR-10")
for factor in (1, 8, 64):
    print(f"batch {128 * factor:5,d}: d = {0.9999**factor:.4f}; the paper's 102 million pictures are {800_000 // factor:7,d} steps")

# %% [markdown]
# ## The CIFAR-10 recipe
#
# All numbers from the paper (Ho section 4 and appendix B), and how the package says them:
#
# | | paper | here |
# |---|---|---|
# | network | 35.7 M parameters, dropout 0.1 | `--preset cifar10` |
# | schedule | linear, $T=1000$ | `--schedule linear` |
# | the network predicts | $\varepsilon$, $L_{\text{simple}}$ | `--prediction eps` |
# | batch, steps | 128, 800,000 | `--batch-size 128 --steps 800000` |
# | Adam | $\eta=2\cdot10^{-4}$, constant | `--lr 2e-4 --final-lr 1 --warmup 5000` |
# | average | $d=0.9999$ | `--ema-decay 0.9999` |
# | data | 50,000 pictures, half of them mirrored | `--data hub:uoft-cs/cifar10 --flip` |
# | result | FID 3.17, Inception score 9.46, NLL ≤ 3.75 bits a number | |
#
# How long must one wait for these scores? A public re-implementation (tqch) logged its FID: 9.16 after 47,000 steps, 4.08 after 187,000, 3.19 after 796,000. So a seventeenth of the run gives recognisable pictures, a quarter gives good ones, and the rest is for the last point.
#
# The warm-up is not in the paper's text; it is in the authors' code. And one honest difference: the package sets a tenth of the pictures aside for validation and another tenth for testing. So it trains on 40,000, and its scores are not exactly comparable.
#
# The whole run is one line (the data come through the `datasets` library: `pip install "ddpm-course[hub]"`):
#
# ```
# python -m ddpm_course train --data hub:uoft-cs/cifar10 --preset cifar10 --prediction eps --schedule linear --steps 800000 \
#     --batch-size 128 --lr 2e-4 --final-lr 1 --warmup 5000 --ema-decay 0.9999 --flip --precision bf16 --out runs/cifar10
# ```
#
# ### What it costs
#
# The bill, in one line:
#
# $$ \text{hours}=\frac{\text{steps}\cdot B}{3600\cdot\text{pictures a second}} \tag{15.19, definition} $$
#
# The table is **arithmetic, not a measurement of ours**: what each speed would mean. The last column is the speed in FLOP a second. Divided by the peak of your chip, it says how much of what you paid for is in use.

# %%
pictures_seen = 800_000 * 128
print(f"{pictures_seen / 1e6:.1f} million pictures, {pictures_seen * whole / 1e18:.2f} billion billion FLOP")
print(f"{'pictures/s':>10s} {'47,000 steps':>14s} {'187,000':>10s} {'800,000':>10s} {'needs':>16s}")
for pace in (10, 200, 2000, 8000):
    hours = [n * 128 / 3600 / pace for n in (47_000, 187_000, 800_000)]
    print(f"{pace:10,d} {hours[0]:12,.1f} h {hours[1]:8,.1f} h {hours[2]:8,.1f} h {pace * whole / 1e12:9.1f} TFLOP/s")

# %% [markdown]
# Ten pictures a second is the order of magnitude of a few CPU cores: four months. That is why this course trains on digits. The last line needs 30 % of the 989 TFLOP/s on that accelerator's data sheet, which takes care (16 bit, channels last, compiled, pictures on the device) but no magic. Multiply the hours by the price of an hour, and add a reserve for the runs that go wrong.
#
# ### The same cell, two sizes
#
# The next cell *is* that run if the environment variable `DDPM_COURSE_SCALE` is `gpu`, and thirty steps on digits otherwise. Nothing else in it changes.

# %%
recipe = TrainConfig(
    data=at_scale(cpu="digits", gpu="hub:uoft-cs/cifar10"), net=at_scale(cpu=small, gpu=UNetConfig.cifar10()),
    steps=at_scale(cpu=30, gpu=800_000), batch_size=at_scale(cpu=32, gpu=128), lr=at_scale(cpu=2e-3, gpu=2e-4),
    warmup=at_scale(cpu=10, gpu=5000), ema_decay=at_scale(cpu=0.9, gpu=0.9999), flip=at_scale(cpu=False, gpu=True),
    device=at_scale(cpu="cpu", gpu="cuda"), precision=at_scale(cpu="fp32", gpu="bf16"), log_every=at_scale(cpu=10, gpu=1000),
    out=at_scale(cpu=None, gpu="runs/cifar10"), final_lr=1.0, prediction="eps", schedule="linear")
history = train(recipe).history
print("the validation loss falls:", history[-1]["val_loss"] < history[0]["val_loss"])

# %% [markdown]
# ### How do I resume? And if the last checkpoint is broken?
#
# Give the same command again. Chapter 08 cut the power in the middle of a run and found every bit again. Worse things happen: the disk fills while a checkpoint is being written, or a copy is cut short. The package keeps the last two states, each with a checksum. We train six steps, damage the newest state, and give the same line again.

# %%
import warnings
from unittest import mock

with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    kept_run = replace(tiny, steps=6, save_every=2, out=folder)
    before = train(kept_run).net.state_dict()
    newest = max(Path(folder).glob("state-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:1000])
    with mock.patch.object(Run, "one_step", autospec=True, side_effect=Run.one_step) as again:
        after = train(kept_run).net.state_dict()
    print("states on disk:", RunFolder(folder).steps())
print("warned:", any("damaged" in str(warning.message) for warning in told), "; steps done again:", again.call_count)
print("the same network in the end, every bit:", all(torch.equal(before[name], after[name]) for name in before))
assert again.call_count == 2 and all(torch.equal(before[name], after[name]) for name in before)

# %% [markdown]
# ### Can I use my own pictures?
#
# Put them into a folder, and give the folder: `python -m ddpm_course train --data holiday --out runs/holiday`. Subfolders become classes, which the network is told with `--classes`. Here is a folder as people have it: upright and wide, grey and coloured, one with transparency, one 16 bits deep. (The pictures are cut from two photographs that scikit-learn ships, CC BY 2.0.)

# %%
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

holiday, photos = Path(room.name, "holiday"), [Image.fromarray(photo) for photo in load_sample_images().images]
kinds = {"wide.jpg": (320, 120), "upright.png": (150, 300), "square.png": (160, 160), "grey.png": (200, 140), "clear.png": (180, 180), "deep.png": (140, 200)}
for name, photo in zip(("temple", "flower"), photos, strict=True):
    (holiday / name).mkdir(parents=True)
    for place, (file, (width, height)) in enumerate(kinds.items()):
        cut = photo.crop((60 * place + 40, 20 * place + 10, 60 * place + 40 + width, 20 * place + 10 + height))
        if file == "grey.png":
            cut = cut.convert("L")
        if file == "clear.png":
            cut.putalpha(Image.radial_gradient("L").resize(cut.size).point(lambda v: 255 - v))
        if file == "deep.png":
            cut = Image.fromarray(np.asarray(cut.convert("L")).astype(np.uint16) * 257)
        cut.save(holiday / name / file)

# %%
mine = load(str(holiday), image_size=32)
fig, axes = plt.subplots(1, 6, figsize=(6.4, 1.3), width_ratios=[size[0] / size[1] for size in kinds.values()])
for ax, file in zip(axes, kinds, strict=True):
    ax.imshow(Image.open(holiday / "flower" / file), cmap="gray")
    ax.set_title(file.split(".")[0], fontsize=9)
    ax.axis("off")
show_images(as_float(mine.train.images), columns=10, title="what the network sees: 32×32, three channels", ax=plt.subplots(figsize=(6.4, 1))[1])
plt.show()
own = train(TrainConfig(data=str(holiday), image_size=32, steps=2, batch_size=4, warmup=1, net=replace(small, channels=3, image_size=32)))
print("train, validation, test:", [len(part.labels) for part in mine], "; a network trained two steps on them:", len(own.history) == 1)

# %% [markdown]
# Laid on white where transparent, cropped to the square in the middle, scaled, and kept as bytes: a quarter of fp32's memory. The grey ones were given three equal channels; only if *all* are grey does the network get by with one. CIFAR-10 takes 150 MB that way. It lies on the accelerator from the first step on, and no step waits for a disk. What is larger than 2 GB is decoded on the way, some batches ahead. Twelve pictures are of course no data set: a network learns them by heart (chapter 14). Some thousands is where it begins.

# %% [markdown]
# ## How it grows
#
# What does a change of plan cost? We take the paper's network at a quarter of its width, so that a CPU can do it, and change one thing at a time: the batch, the side of the picture, the width. Lines: FLOPs of a training step, counted on paper. Dots: processor time of forward and backward, measured here. Both relative to the middle setting.

# %%
quarter = replace(UNetConfig.cifar10(), base_channels=32)


def growth_of(batch=4, size=32, width=32):
    config = replace(quarter, image_size=size, base_channels=width)
    net, x, t = UNet(config), torch.randn(batch, 3, size, size), torch.ones(batch, dtype=torch.long)
    return batch * flops(on_paper(config)), core_seconds(lambda: net(x, t).square().mean().backward(), repeats=2, in_a_row=1)


plans = {"batch": {n: growth_of(batch=n) for n in (1, 4, 16)}, "pixels a side": {n: growth_of(size=n) for n in (16, 32, 64)},
         "width": {n: growth_of(width=n) for n in (16, 32, 64)}}

# %%
fig, axes = plt.subplots(1, 4, figsize=(10.5, 2.6), sharey=True)
for ax, (name, curve) in zip(axes, plans.items(), strict=False):
    relative = torch.tensor(list(curve.values())) / torch.tensor(list(curve.values())[1])
    ax.loglog(list(curve), relative[:, 0], color=BLUE, label="FLOPs, counted")
    ax.loglog(list(curve), relative[:, 1], "o", color=ORANGE, label="time, measured")
    ax.set_xticks(list(curve), list(curve))
    ax.set_title(name)
axes[3].loglog([47, 187, 800], [47 / 187, 1, 800 / 187], color=BLUE)
axes[3].set_xticks([47, 187, 800], [47, 187, 800])
axes[3].set_title("steps, thousands")
axes[0].set_ylabel("relative to the middle")
axes[0].legend(fontsize=8)
axes[0].set_yticks([0.25, 1, 4], ["¼", "1", "4"])
for ax in axes:
    ax.minorticks_off()
plt.show()
side, wide = (flops(on_paper(UNetConfig.cifar10(), **change)) / forward for change in ({"image_size": 256}, {"base_channels": 256}))
print(f"the paper's network, FLOPs: {side:.0f} times with 256 pixels a side for 32; {wide:.1f} times with twice the width")

# %% [markdown]
# On these axes every power is a straight line, so look at the numbers below. Four times the batch, or the steps, costs four times as much (the last panel needs no measurement). Resolution goes with the number of pixels: *twice* the side costs nearly four times as much. Width goes with its own square, too, because both sides of each convolution grow. But look at the dots: time grows *less* than the FLOPs. That is the roof again. A small batch, a small picture, a narrow network leave the arithmetic waiting, for the memory or for Python; larger ones get more FLOPs out of each second. It also means that a forecast from a small trial is a pessimistic one.
#
# From a 32×32 to a 256×256 picture it is about sixty times the work *at equal width*, and nobody stops there. This is where chapter 21's idea comes from: leave the pixels, and diffuse in a small latent space.
#
# ### Play with it
#
# A calculator for the paper's network. Move batch, parts and resolution, and look at the memory; move the speed and look at the bill. Without a running kernel, look at the figures above.

# %%
from ddpm_course.widgets import choice, explore, slider

each_picture = {(size, lean): kept_bytes(on_paper(UNetConfig.cifar10(), image_size=size, checkpointing=lean).train(), 1) for size in (32, 64, 128) for lean in (False, True)}
per_step = {size: 3 * flops(on_paper(UNetConfig.cifar10(), image_size=size)) for size in (32, 64, 128)}


def bill(batch, parts, size, checkpointing, teraflops):
    heap = {"weights": 4, "gradients": 4, "Adam": 8, "EMA": 4}
    bars = {name: b * 35_746_307 / 1e9 for name, b in heap.items()} | {"activations": each_picture[size, checkpointing] * -(-batch // parts) / 1e9}
    fig, ax = plt.subplots(figsize=(7.5, 2.2))
    ax.barh(list(bars), list(bars.values()), color=[GREY] * 4 + [BLUE])
    hours = 102_400_000 * per_step[size] * (7 / 6 if checkpointing else 1) / (teraflops * 1e12) / 3600
    ax.set(title=f"{sum(bars.values()):.1f} GB in fp32; 102 million pictures: {hours:,.0f} hours = {hours / 24:,.1f} days", xlabel="GB")


explore(bill, batch=slider(16, 1024, 128, 16, "batch"), parts=slider(1, 16, 1, label="in parts"), size=choice((32, 64, 128), "pixels"),
        checkpointing=choice((False, True), "checkpointing"), teraflops=slider(0.1, 400.0, 20.0, 0.1, "TFLOP/s reached"))

# %% [markdown]
# ## Common mistakes
#
# ### The pictures are cast before the noise is added (M24)
#
# "We train in bf16, so we load bf16 pictures." The mixing then takes its coefficients in the pictures' type, table included. With the linear schedule $\bar\alpha_t$ rounds to 1 up to $t=10$ (in fp16 up to $t=2$), and $\sqrt{1-\bar\alpha_t}$ is exactly 0. The network is shown a clean picture and asked for its noise. This is not far-fetched: a widely used scheduler casts its table to the type of the picture that it is given.

# %%
some, many_eps = digits().train.images[:64], torch.randn(64, 1, 8, 8, generator=seeded(6))
for dtype in (torch.bfloat16, torch.float16):
    table = linear_schedule(1000).alpha_bar.to(dtype)  # the mistake
    cast = lambda t, table=table, dtype=dtype: table[t] ** 0.5 * some.to(dtype) + (1 - table[t]) ** 0.5 * many_eps.to(dtype)
    silent = [t for t in range(1, 31) if torch.equal(cast(t), some.to(dtype))]
    print(f"{str(dtype)[6:]:9s} timesteps at which x_t is the clean picture itself: 1 to {silent[-1]}")
right = q_sample(linear_schedule(1000), some, torch.full((64,), 10), many_eps)
print("right, at t = 10: every pixel is moved:", bool((right != some).all()))

# %% [markdown]
# And with a table in float64, but pictures in bf16? Then the noise is there, and the *sum* is rounded. Near 1 the steps of bf16 are 0.004 to 0.008 wide, and the noise at $t=1$ has a standard deviation of 0.01.

# %%
pictures_16 = q_sample(linear_schedule(1000), some.bfloat16(), torch.ones(64, dtype=torch.long), many_eps.bfloat16())
bright = some.abs() > 0.9
unmoved = float((pictures_16 == some.bfloat16())[bright].float().mean())
print(f"black and white pixels that t = 1 leaves as they were: over 15 %: {unmoved > 0.15}; in fp32 under 1 %:",
      float((q_sample(linear_schedule(1000), some, torch.ones(64, dtype=torch.long), many_eps) == some)[bright].float().mean()) < 0.01)
assert unmoved > 0.15

# %% [markdown]
# ### EMA 0.9999 on a short run (M29)
#
# The paper's decay suits 800,000 steps. A run of 10,000 keeps 37 % of its random start if the decay is 0.9999 from step 0. And runs become short in a way that is easy to overlook: by scaling up. The same 102 million pictures with 64 times the batch are 12,500 steps.

# %%
for name, n in (("the paper's run", 800_000), ("a short run", 10_000), ("the paper's pictures, batch 8,192", 12_500)):
    print(f"{name:34s} {n:7,d} steps: random start left in the average: {0.9999**n:5.1%}")
print(f"the last one with d = 0.9999^64 = {0.9999**64:.4f}: below 1e-9: {0.9999 ** (64 * 12_500) < 1e-9}")
start, goal = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
start.weight.data.fill_(1.0)
goal.weight.data.fill_(0.0)
warm, cold = ema_of(start, 0.9999), 1.0
for _ in range(10_000):
    warm.update_parameters(goal)
    cold = 0.9999 * cold
print(f"a weight that jumps from 1 to 0 at once, after 10,000 steps: {cold:.2f} without warm-up, below 1e-6 with it: {warm.module.weight.item() < 1e-6}")

# %% [markdown]
# The package's warm-up, $\min\big(d,\frac{1+n}{10+n}\big)$, forgets the start early whatever $d$ is. It does not make the decay right: an average over the last 10,000 steps of a run that has 12,500 is still an average over nearly all of it. Use $d^k$.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/15_scaling_up_student.ipynb), [with solutions](exercises/15_scaling_up_solution.ipynb).

# %% [markdown]
# **15.1 ★** A 3×3 convolution takes 128 channels to 256, on maps of 16×16. How many FLOP does one picture cost in one *training* step?

# %% [markdown] tags=["hint"]
# **Hint 15.1**
#
# (15.1), then the rule of three.

# %% tags=["exercise"]
conv_cost = ...
check("15.1", conv_cost)

# %% tags=["solution"]
conv_cost = 3 * 2 * 3**2 * 128 * 256 * 16 * 16
must_pass("15.1", conv_cost)

# %% [markdown]
# **15.2 ★★** Write the bytes in memory during a training step of a network with $N$ parameters, trained with AdamW and EMA in fp32, on a batch of $B$ pictures that goes through in `parts` equal parts. Each picture keeps $a$ bytes of activations.

# %% [markdown] tags=["hint"]
# **Hint 15.2**
#
# (15.10). Which of the two heaps becomes smaller when the batch goes through in parts?

# %% tags=["exercise"]
def memory(N, a, B, parts):
    return ...


check("15.2", memory)


# %% tags=["solution"]
def memory(N, a, B, parts):
    return (4 + 4 + 8 + 4) * N + a * B / parts


must_pass("15.2", memory)

# %% [markdown]
# **15.3 ★★** How far apart are neighbouring floating-point numbers of a format with $M$ bits of mantissa, in the stretch between two powers of two that contains $x>0$? ($x$ itself need not be one of them. Range is no matter here.)

# %% [markdown] tags=["hint"]
# **Hint 15.3**
#
# Which $e$ in (15.7) belongs to $x$? What happens if $m$ grows by 1?

# %% tags=["exercise"]
def gap_above(x, M):
    return ...


check("15.3", gap_above)


# %% tags=["solution"]
def gap_above(x, M):
    return 2.0 ** (math.floor(math.log2(x)) - M)


must_pass("15.3", gap_above)

# %% [markdown]
# **15.4 ★★** A run with batch `old` uses the EMA decay `d`. Which decay gives the same memory, counted in pictures, with batch `new`?

# %% [markdown] tags=["hint"]
# **Hint 15.4**
#
# (15.18) with $k$ = new / old. One large step must forget as much as $k$ small ones.

# %% tags=["exercise"]
def decay_for(d, old, new):
    return ...


check("15.4", decay_for)


# %% tags=["solution"]
def decay_for(d, old, new):
    return d ** (new / old)


must_pass("15.4", decay_for)

# %% [markdown]
# **15.5 ★★★** A 3×3 convolution with $C$ channels on both sides, a large batch, numbers of $b$ bytes. On a chip with a peak of $P$ FLOP/s and a memory of $R$ bytes/s, what is the smallest whole $C$ for which the layer is not memory-bound?

# %% [markdown] tags=["hint"]
# **Hint 15.5**
#
# The ridge of the roof is at $I=P/R$. (15.6) without its last term is $I=r^2C/b$.

# %% tags=["exercise"]
def smallest_width(b, P, R):
    return ...


check("15.5", smallest_width)


# %% tags=["solution"]
def smallest_width(b, P, R):
    return math.ceil(P / R * b / 9)


must_pass("15.5", smallest_width)

# %% [markdown]
# **15.6 ★★★** Linear scaling in a valley of curvature $h$: small steps use the learning rate $\eta$. What is the largest whole $k$ for which *one* step with $k\eta$ ends nearer to the floor than it started?

# %% [markdown] tags=["hint"]
# **Hint 15.6**
#
# One step multiplies $\theta$ by $1-k\eta h$. When is that nearer to 0 than 1 is?

# %% tags=["exercise"]
def largest_factor(eta, h):
    return ...


check("15.6", largest_factor)


# %% tags=["solution"]
def largest_factor(eta, h):
    return math.ceil(2 / (eta * h)) - 1


must_pass("15.6", largest_factor)

# %% [markdown]
# **15.7 ★★★** Three processes, of which one is slow, have worked on *different* numbers of pictures. You know the mean gradient of each (one number here, for one weight) and its number of pictures. Write the gradient of the mean over all pictures.

# %% [markdown] tags=["hint"]
# **Hint 15.7**
#
# (15.12) was for equal parts. What does a part with twice as many pictures count?

# %% tags=["exercise"]
def combined(gradients, sizes):
    return ...


check("15.7", combined)


# %% tags=["solution"]
def combined(gradients, sizes):
    return sum(g * n for g, n in zip(gradients, sizes, strict=True)) / sum(sizes)


must_pass("15.7", combined)

# %% [markdown]
# ## What comes next
#
# You can now say what a run costs before you start it, and what may be changed without changing the answer. That closes the third part: the model is derived, built, and can be trusted, at any size. So far it draws whatever it likes. The next part makes it draw what *we* like: first with a classifier that pulls, in chapter 16.
