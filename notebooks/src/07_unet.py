# %% [markdown]
# # 07 · The U-Net: a network that looks closely and from afar
#
# **The question.** Chapter 06 said *what* to learn: from a noisy picture $x_t$ and the time $t$, the noise $\varepsilon$ in it. So we need a function that takes a picture and a time and returns a picture of the same size. Which function? Why has nearly everybody used a network drawn in the shape of a U?
#
# **After this chapter you can**
#
# - say why denoising needs both near and far pixels, and how the U gives the network both;
# - write each part by hand (time embedding, group norm, residual block, attention, resampling) and get the package's numbers;
# - follow one picture through the whole network, tensor by tensor, with all shapes;
# - count parameters and operations before you build a network: 35,746,307 for the one in the paper;
# - spot a checkerboard, a network that ignores $t$, and dropout left on, each by a number.
#
# *Needs:* chapter 06 ($\varepsilon$, $x_0$ and $v$), and to have seen a convolution once. *Time:* about two and a half hours with the exercises.

# %%
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import sympy as sp
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course import ExactGaussian, GaussianMixture, UNet, UNetConfig, ddim_sample, q_posterior, q_sample
from ddpm_course.checkpoint import load_model, shipped
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits, mnist5k
from ddpm_course.models.blocks import Downsample, ResBlock, Upsample, timestep_embedding
from ddpm_course.plots import BLUE, GREEN, ORANGE, curves, show_images, show_rows, style
from ddpm_course.prediction import as_eps_model, clip_x_0, eps_to_x_0, v_to_eps
from ddpm_course.proofs import Expect, agrees, derive, equation, normal
from ddpm_course.widgets import explore, slider

style()
trained = load_model(shipped("digits"))  # an 8x8 U-Net that comes with the course
schedule, eps_model = trained.schedule, trained.eps_model()

# %% [markdown]
# First the black box, from outside. Eight digits that the network has never seen get noise of time $t=300$. The network is shown the second row, and the number 300. Its answer is the fourth row; compare it with the noise that was really added, in the third. The last row is what remains of the picture once the guessed noise is taken out. (The noise is drawn at a third of its contrast.)

# %%
held_out = digits().val.images
noise = torch.randn(held_out.shape, generator=torch.Generator().manual_seed(0))
noisy = q_sample(schedule, held_out, 300, noise)
with torch.no_grad():
    guess = eps_model(noisy, torch.full((len(noisy),), 300))
rows = {"data": held_out, "noisy, t = 300": noisy, "noise": noise / 3, "its guess": guess / 3}
show_rows(rows | {"noise removed": eps_to_x_0(schedule, noisy, 300, guess)}, columns=8)
plt.show()

# %% [markdown]
# The rest of the chapter opens the box. We first ask what *any* good denoiser has to look at. Then we build the parts one by one, by hand. At the end we put them together and get the package's network, number for number.

# %% [markdown]
# ## Why this shape: near and far
#
# How far must a denoiser look? There is a case in which the best one is known exactly: data from a Gaussian. We give a Gaussian the mean and the covariance of the digits. It is only a rough model of digits, but its perfect denoiser is a formula (the oracle of chapter 05), so we can ask it which pixels of $x_t$ it uses for *one* pixel of its answer. The gradient $\partial \hat x_0[\text{pixel}]/\partial x_t$ tells: large where a pixel matters, zero where it is ignored.

# %%
def influence(model, x_t, t, row=3, col=4):
    x = x_t.clone().requires_grad_()
    x_0_hat = eps_to_x_0(schedule, x, t, model(x, torch.full((len(x),), t)))
    (grad,) = torch.autograd.grad(x_0_hat[:, 0, row, col].sum(), x)
    return grad.abs().mean(0)[0] / grad.abs().mean(0).sum()  # shares that sum to 1


def near(share):
    return float(share[2:5, 3:6].sum())  # the pixel and its eight neighbours


# %% [markdown]
# The next figure shows these shares for one pixel in the middle, at four noise levels.

# %%
train_images = digits().train.images
gauss = ExactGaussian(train_images.mean(0), torch.cov(train_images.flatten(1).double().T)).eps_model(schedule)
times = (20, 100, 400, 900)
oracle = {t: influence(gauss, q_sample(schedule, held_out, t, noise), t) for t in times}
fig, axes = plt.subplots(1, 4, figsize=(8, 2.3))
for ax, (t, share) in zip(axes, oracle.items(), strict=True):
    ax.imshow(share, cmap="magma", vmin=0, vmax=0.4)
    ax.set(title=f"t = {t}\n{near(share):.0%} within 3 x 3", xticks=[], yticks=[])
    ax.grid(False)

# %% [markdown]
# With little noise the best denoiser hardly looks beyond the pixel itself. With much noise a single pixel says little, and it must ask the whole picture: what kind of digit is this, is it upright, where is the stroke? So a good network needs **local detail and a global view at once**, and which of them counts depends on $t$.

# %%
shares = [near(share) for share in oracle.values()]
assert shares == sorted(shares, reverse=True) and shares[0] > 0.9 and shares[-1] < 0.5
print("the more noise, the less of the answer comes from the neighbourhood:", shares == sorted(shares, reverse=True))

# %% [markdown]
# Convolutions look locally: one 3×3 convolution sees the eight neighbours, and each further one adds a ring. To see far, one halves the picture. After one halving a neighbour is two pixels away; after two halvings, four. But halving throws detail away. The **U-Net** keeps both. An *encoder* goes down: ever smaller maps with ever more channels. A *decoder* goes up again. And at each size the encoder's map is handed across to the decoder, so that the detail never has to squeeze through the bottom.
#
# The shape was invented for another task: marking cells in microscope pictures (U-Net, arXiv 1505.04597). There, too, each pixel needs an answer ("cell or background?"), the answer needs context, and the outline must be sharp to the pixel. Denoising has the same needs. The DDPM paper (Ho appendix B) kept the U and put residual blocks, group norm, a time embedding and attention into it.
#
# > **Cleaning a window.** To clean a window you step back to see where the streaks are, and step close to wipe one off. You do it in many rounds; each makes the window a little clearer. *Where it breaks:* behind a window there is a real view, and every cleaner finds the same one. Behind pure noise there is none. The network does not uncover a picture, it makes one up that is plausible.
#
# Here is the course's network for 8×8 digits, drawn from the object itself. The next cell collects its blocks with the size of their maps.

# %%
def blocks_of(net):
    size, middle = net.config.level_sizes()[0], net.config.level_sizes()[-1]
    rows = [("conv_in", net.conv_in, size)]
    for i, block in enumerate(net.down):
        size = size // 2 if isinstance(block, Downsample) else size
        rows.append((f"down.{i}", block, size))
    rows.append(("middle", net.middle, middle))
    for i, block in enumerate(net.up):
        size = size * 2 if isinstance(block, Upsample) else size
        rows.append((f"up.{i}", block, size))
    return [*rows, ("conv_out", net.conv_out, size)]


def channels_of(block):
    block = block[0].conv_2 if isinstance(block, nn.ModuleList) else getattr(block, "conv", block)
    return block.out_channels


# %% [markdown]
# In the picture a bar's height is the size of its map, and the number above it is its count of channels. Each dashed arrow is a skip connection: the last map put on the stack by the encoder is the first one taken off by the decoder.

# %%
def draw_u(net, ax):
    rows, stack = blocks_of(net), []
    for x, (name, block, size) in enumerate(rows):
        color = GREEN if name == "middle" else ORANGE if name.startswith("up") else BLUE
        ax.bar(x, size, bottom=-size / 2, width=0.6, color=color)
        ax.text(x, size / 2 + 0.4, str(channels_of(block)), ha="center", fontsize=9)
        ax.text(x, -5.8, name, ha="center", fontsize=7, rotation=30)
        if name.startswith(("conv_in", "down")):
            stack.append(x)
        elif name.startswith("up") and not isinstance(block, Upsample):
            start, bend = stack.pop(), {"arrowstyle": "->", "linestyle": "--", "connectionstyle": "arc3,rad=-0.25"}
            ax.annotate("", (x, size / 2 + 1.2), (start, size / 2 + 1.2), arrowprops=bend | {"color": "grey"})
    ax.set(ylim=(-6.5, 10), title="UNetConfig.digits(): height = size of the map, number = channels")
    ax.axis("off")


draw_u(trained.net, plt.subplots(figsize=(8.5, 3.6))[1])

# %% [markdown]
# ## What time is it? The time embedding
#
# One network serves all noise levels, so it must be told $t$. A bare number between 1 and 1000 would be awkward: a layer that multiplies it gives nearly the same answer at $t=10$ and $t=11$. Instead $t$ is turned into a vector of $d$ numbers, half of them sines and half cosines, at $h=d/2$ speeds $\omega_k$ between fast and slow:
#
# $$ \omega_k = 10000^{-k/(h-1)},\qquad \mathrm{emb}(t) = \big(\sin\omega_0(t-1),\dots,\sin\omega_{h-1}(t-1),\ \cos\omega_0(t-1),\dots,\cos\omega_{h-1}(t-1)\big) \tag{7.1, definition} $$
#
# **Why $t-1$?** The course counts times as the paper does, $1,\dots,T$. The networks published with the paper were trained with $0,\dots,T-1$. To read their weights, one shift must happen somewhere. It happens here, inside this function, and nowhere else; so you never have to think of it again.
#
# > **A clock with many hands.** The fastest hand turns once in about six steps, the slowest not even once in the whole chain. One hand alone is ambiguous: it points the same way again and again. All hands together tell the time. *Where it breaks:* a clock's hands are read one after the other, coarse to fine. The network is free to mix them as it likes.

# %%
def my_embedding(t, dim):
    half, rows = dim // 2, []
    for time in t.tolist():
        angles = [(time - 1) * 10_000 ** (-k / (half - 1)) for k in range(half)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows)


t_check = torch.tensor([1, 2, 500, 1000])
torch.testing.assert_close(my_embedding(t_check, 32), timestep_embedding(t_check, 32), rtol=0, atol=2e-4)
assert torch.equal(timestep_embedding(torch.tensor([1]), 4), torch.tensor([[0.0, 0, 1, 1]]))  # t = 1: all hands at noon
print("by hand = package at t = 1, 2, 500, 1000: True")

# %% [markdown]
# The tolerance is $2\cdot 10^{-4}$ because the package computes the angles in float32, and an angle near 1000 has then an error of about $10^{-4}$. No harm: the network is trained with the same numbers.
#
# Now a property that makes this code more than a bag of numbers. Take the embeddings of two times $t$ and $t'$ and multiply them number by number. For one speed $\omega$:

# %% tags=["proof"]
w, t_sym, t_other, d_sym = sp.symbols(r"\omega t t' \Delta", real=True)
here, there = w * (t_sym - 1), w * (t_other - 1)
equation("7.2", sp.sin(here) * sp.sin(there) + sp.cos(here) * sp.cos(there), sp.cos(w * (t_sym - t_other)))
equation("7.3", sp.sin(w * (t_sym - 1 + d_sym)),
         sp.cos(w * d_sym) * sp.sin(w * (t_sym - 1)) + sp.sin(w * d_sym) * sp.cos(w * (t_sym - 1)))

# %% [markdown]
# Sum (7.2) over all speeds: the dot product of two embeddings is $\sum_k\cos\omega_k(t-t')$. It **depends only on the distance** $t-t'$, not on where on the time axis the pair lies. With $t=t'$ it is $h$, so all embeddings have the same length $\sqrt h$. And (7.3) says that moving on by $\Delta$ steps is a *linear* operation on each pair (sine, cosine), a rotation. The linear layers that come next can therefore compare times easily. What this does not prove: that the network uses it, or that other embeddings would be worse.

# %%
h = 16
total = sum(sp.cos(sp.Float(10_000.0) ** (-sp.Rational(k, h - 1)) * (t_sym - t_other)) for k in range(h))
a, b = timestep_embedding(torch.tensor([500, 470]), 2 * h).double()
agrees(total, {t_sym: 500, t_other: 470}, a @ b, tolerance=1e-4)
agrees(total, {t_sym: 30, t_other: 30}, a @ a, tolerance=1e-4)

# %% [markdown]
# Look at it. Left, the whole matrix for $d=64$, one column a time: stripes that get slower from top to bottom, sines above, cosines below. Right, the dot product with three fixed times. It is the same hill each time, moved along the axis, just as (7.2) says.

# %%
matrix = timestep_embedding(torch.arange(1, 1001), 64)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=[1.3, 1])
left.imshow(matrix.T, aspect="auto", cmap="RdBu", extent=(1, 1000, 63, 0), interpolation="nearest")
left.set(title="emb(t), d = 64: sines above, cosines below", xlabel="t", ylabel="number in the vector")
left.grid(False)
hills = {f"t' = {k}": matrix @ matrix[k - 1] for k in (200, 500, 800)}
curves(range(1, 1001), hills, right, xlabel="t", ylim=(0, 42), title="dot product with emb(t')")
right.legend(loc="upper center", ncols=3)
plt.show()

# %% [markdown]
# Do any two times share a vector? If so, the network could not tell them apart. We compare all pairs.

# %%
distance = torch.cdist(matrix.double(), matrix.double()) + 10 * torch.eye(1000)  # 10: not itself
assert 1 < float(distance.min()) < 2
print("no two times share a vector; the closest two are more than 1 apart:", float(distance.min()) > 1)

# %% [markdown]
# The vector then goes through a small network, linear–SiLU–linear, whose result has $4\,\cdot$ `base_channels` numbers. It is computed once per picture and handed to *every* residual block. Each block has its own linear layer that turns it into one number per channel and adds that number to the whole map. So time acts like a mixing desk: at each $t$ some channels are turned up, others down.

# %% [markdown]
# ## Two small parts: group norm and SiLU
#
# **Group norm** keeps the numbers in a network at a handy size. It takes the channels of *one* picture in groups, subtracts each group's mean $m$ and divides by its standard deviation. Then every channel $c$ may learn its own scale $a_c$ and shift $b_c$. With $h_{cij}$ for channel $c$ at pixel $(i,j)$, and $m_g, s_g^2$ for mean and variance over all pixels of all channels in the group $g$ of $c$:
#
# $$ \mathrm{GN}(h)_{cij} = a_c\,\frac{h_{cij}-m_g}{\sqrt{s_g^2+10^{-6}}} + b_c \tag{7.4, definition} $$
#
# **SiLU** is the bend between the linear parts: nearly the identity for large positive numbers, nearly 0 for large negative ones, smooth between.
#
# $$ \mathrm{SiLU}(u) = u\,\sigma(u),\qquad \sigma(u)=\frac1{1+e^{-u}} \tag{7.5, definition} $$

# %%
def my_group_norm(x, norm):
    B, C, H, W = x.shape
    grouped = x.reshape(B, norm.num_groups, -1)
    mean, var = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
    scaled = ((grouped - mean) / (var + 1e-6).sqrt()).reshape(B, C, H, W)
    return norm.weight[:, None, None] * scaled + norm.bias[:, None, None]


def silu(u):
    return u / (1 + torch.exp(-u))


x = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(1))
norm = trained.net.down[2][0].norm_2
torch.testing.assert_close(silu(my_group_norm(x, norm)), F.silu(norm(x)), rtol=1e-5, atol=1e-5)
print("group norm and SiLU by hand = torch: True")

# %% [markdown]
# Why not the better known *batch* norm? Because it takes the mean over the pictures of a batch. In a batch here every picture has another $t$, so the clean ones would be normalised with the noise of the others; and while sampling (in `eval` mode) it would use averages collected in training, one mean and one variance for all noise levels together. In training mode the answer for one picture depends on its neighbours; the cell shows it. Group norm looks at each picture alone. We check it: exchange the second picture, and the answer for the first must not move by a single bit.

# %%
other = torch.cat([x[:1], 100 * x[1:]])
batch_norm = nn.BatchNorm2d(64)
assert torch.equal(norm(x)[0], norm(other)[0])
moved = float((batch_norm(x)[0] - batch_norm(other)[0]).abs().max().detach())
print(f"first picture unchanged under group norm: True; it moved by more than 1 under batch norm: {moved > 1}")

# %% [markdown]
# Two facts about SiLU, proved: its slope, and what it keeps. The second says that the answers to $u$ and $-u$ differ by exactly $u$, so no information is lost by the bend, if the next layer sees both.

# %% tags=["proof"]
u, bend = sp.Symbol("u", real=True), sp.Function(r"\operatorname{SiLU}")
sigmoid, sig = (lambda y: 1 / (1 + sp.exp(-y))), sp.Symbol(r"\sigma(u)", positive=True)
equation("7.6", sp.Derivative(u * sigmoid(u), u), sig * (1 + u * (1 - sig)), given={sig: sigmoid(u)})
equation("7.7", bend(u) - bend(-u), u, given={bend(u): u * sigmoid(u), bend(-u): -u * sigmoid(-u)})
slope = torch.autograd.functional.jacobian(F.silu, torch.tensor(0.7, dtype=torch.float64))
agrees(sigmoid(u) * (1 + u * (1 - sigmoid(u))), {u: 0.7}, slope)

# %% [markdown]
# Unlike ReLU, SiLU has no kink, and its slope is not exactly 0 on the whole negative side: a unit that went negative can come back. The proof says nothing about which of the two trains better. That is a matter of measuring.

# %% [markdown]
# ## The residual block
#
# Now the brick of which the whole network is built. Norm, bend, 3×3 convolution; add the time; norm, bend, (dropout,) 3×3 convolution; and at the end **add the input itself**. With $e$ for the time vector, $W,b$ for the block's own linear layer, $P$ for the identity or, where the channels change, a 1×1 convolution:
#
# $$ \mathrm{Res}(x,e) = P(x) + \mathrm{conv}_2\,\mathrm{SiLU}\,\mathrm{GN}_2\big(\mathrm{conv}_1\,\mathrm{SiLU}\,\mathrm{GN}_1(x) + W\,\mathrm{SiLU}(e)+b\big) \tag{7.8, definition} $$
#
# A convolution with kernel $w$ is a weighted sum. For one output channel, at one pixel: multiply the 3×3 neighbourhood in *all* input channels by the kernel, add up, add a bias. The next cell does it at one pixel and compares.

# %%
def my_pixel(x, conv, out, i, j):
    patch = x[:, i - 1 : i + 2, j - 1 : j + 2]  # all channels, 3 x 3 pixels
    return sum(float(k) for k in (conv.weight[out] * patch).flatten()) + float(conv.bias[out])


conv = trained.net.conv_in
mine, theirs = my_pixel(held_out[0], conv, out=5, i=3, j=4), conv(held_out[:1])[0, 5, 3, 4]
torch.testing.assert_close(torch.tensor(mine), theirs, rtol=1e-5, atol=1e-5)
print("one pixel of a convolution, by hand = torch: True")

# %% [markdown]
# And now the block. Each line of code is one piece of (7.8), read from the inside out.

# %%
def my_conv(x, conv, padding=1):
    return F.conv2d(x, conv.weight, conv.bias, padding=padding)


def my_res(block, x, e):
    h = my_conv(silu(my_group_norm(x, block.norm_1)), block.conv_1)
    h = h + (silu(e) @ block.time.weight.T + block.time.bias)[:, :, None, None]  # one number a channel
    h = my_conv(silu(my_group_norm(h, block.norm_2)), block.conv_2)
    same = isinstance(block.skip, nn.Identity)
    return h + (x if same else my_conv(x, block.skip, padding=0))


block, e = trained.net.down[2][0], torch.randn(2, 128, generator=torch.Generator().manual_seed(2))
x = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(3))
torch.testing.assert_close(my_res(block, x, e), block(x, e), rtol=1e-4, atol=1e-4)
print("residual block by hand = package: True")

# %% [markdown]
# Why add the input? Because then the block has to learn only a *correction*. If its last convolution is zero, the block is exactly the identity, and a gradient passes it unharmed. A stack of twenty such blocks is still the identity; a stack of twenty plain convolutions has lost the gradient long before. The cell measures the gradient that arrives at the input through twenty layers with fresh weights.

# %%
def gradient_through(layers, step):
    x = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(4)).requires_grad_()
    h = x
    for layer in layers:
        h = step(layer, h)
    h.sum().backward()
    return float(x.grad.square().mean().sqrt())


torch.manual_seed(0)
convs = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(20)]
plain = gradient_through(convs, lambda layer, h: layer(F.silu(h)))
residual = gradient_through(convs, lambda layer, h: h + layer(F.silu(h)))
assert plain < 1e-6 and 0.1 < residual < 10
print(f"gradient after 20 plain layers below 1e-6: {plain < 1e-6}; after 20 residual ones between 0.1 and 10: {0.1 < residual < 10}")

# %% [markdown]
# One detail to pause at: the time bias is added *before* the second group norm. If a bias were equal in all channels of a group, the norm would subtract it again. Only the differences between channels of a group survive. With one channel per group the network would be deaf to time; here a group has four channels or more.

# %%
deaf, hears = nn.GroupNorm(32, 32, eps=1e-6), nn.GroupNorm(8, 32, eps=1e-6)
bias = torch.randn(1, 32, 1, 1, generator=torch.Generator().manual_seed(5))
for name, layer in {"1 channel a group": deaf, "4 channels a group": hears}.items():
    heard = float((layer(x + bias) - layer(x)).detach().abs().max())
    print(f"{name}: the time bias changes what comes out: {heard > 0.01}")

# %% [markdown]
# ## Going down: halving
#
# A convolution that moves two pixels at a time (*stride 2*) halves the picture. At the border it needs a ring of zeros. With one ring all round, output pixel $i$ sees the inputs $2i-1,\,2i,\,2i+1$. The published weights were trained with zeros at the **right and bottom only**, so output $i$ sees $2i,\,2i+1,\,2i+2$. Both give the same shapes, so no error message will tell you. But every map is shifted by one pixel. One row is enough to see it:

# %%
ramp, ones = torch.arange(1.0, 9).reshape(1, 1, 1, 8), torch.ones(1, 1, 1, 3) / 3
one_side = F.conv2d(F.pad(ramp, (0, 1)), ones, stride=2)
both_sides = F.conv2d(ramp, ones, stride=2, padding=(0, 1))
print("input      ", [round(k) for k in ramp.flatten().tolist()])
print("one side   ", [f"{k:.1f}" for k in one_side.flatten().tolist()], " centres 2, 4, 6, then the border")
print("both sides ", [f"{k:.1f}" for k in both_sides.flatten().tolist()], " the border, then centres 3, 5, 7")

# %% [markdown]
# How much does it matter for trained weights? We take the shipped network's own halving layer, the maps that enter it for four noisy digits, and pad the other way.

# %%
down = next(block for block in trained.net.down if isinstance(block, Downsample))
inside = []
hook = down.register_forward_pre_hook(lambda module, args: inside.append(args[0]))
with torch.no_grad():
    trained.net(noisy[:4], torch.full((4,), 300))
hook.remove()
maps = inside[0]
right, wrong = down(maps), F.conv2d(maps, down.conv.weight, down.conv.bias, stride=2, padding=1)
torch.testing.assert_close(F.conv2d(F.pad(maps, (0, 1, 0, 1)), down.conv.weight, down.conv.bias, stride=2), right)
difference = float((right - wrong).square().mean() / right.var())
print(f"same shape: {right.shape == wrong.shape}; difference larger than the signal itself: {difference > 1}")

# %% [markdown]
# ## Going up: doubling, without a checkerboard
#
# For doubling there are two well-known ways. A *transposed convolution* lays down a small stamp (the kernel) for every input pixel, two pixels apart, and adds up where stamps overlap. Or one repeats every pixel 2×2 (*nearest*) and then convolves.
#
# How many stamps cover an output pixel? In one dimension, with kernel size $k$ and stride $s$, the output at position $o$ gets the kernel's entries $m$ with $m\equiv o \pmod s$. There are $\lceil (k-r)/s\rceil$ of them, $r = o \bmod s$ (away from the border). If $s$ divides $k$, the count is the same everywhere. If not, it alternates. In two dimensions counts multiply, and the alternation becomes a checkerboard.

# %%
def overlap(k, s, n=8):
    return F.conv_transpose1d(torch.ones(1, 1, n), torch.ones(1, 1, k), stride=s)[0, 0]


for k, s in ((3, 2), (4, 2), (2, 2), (5, 3)):
    middle = overlap(k, s)[s * 3 : s * 5].int().tolist()  # two full periods, far from the border
    assert middle == [math.ceil((k - o % s) / s) for o in range(2 * s)]
    print(f"kernel {k}, stride {s}: stamps on successive pixels {middle}")

# %% [markdown]
# Now with weights. The input is a constant, so a faithful doubling should give a constant too. The kernels are random, as at the start of training. The number in each title is the standard deviation of the middle of the map, divided by the largest value: 0 means no pattern.

# %%
def up_sampled(kind):
    torch.manual_seed(1)
    flat = torch.ones(1, 8, 8, 8)
    if kind == "nearest + conv 3":
        return nn.Conv2d(8, 1, 3, padding=1, bias=False)(F.interpolate(flat, scale_factor=2.0, mode="nearest"))
    k = int(kind[-1])
    return nn.ConvTranspose2d(8, 1, k, stride=2, padding=(k - 1) // 2, output_padding=k % 2, bias=False)(flat)


pattern = {}
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6))
for ax, kind in zip(axes, ("transposed 3", "transposed 4", "transposed 2", "nearest + conv 3"), strict=True):
    core = up_sampled(kind)[0, 0, 3:-3, 3:-3].detach()
    pattern[kind] = float(core.std() / core.abs().max())
    ax.imshow(core / core.abs().max(), vmin=-1, vmax=1, cmap="RdBu")
    ax.set(title=f"{kind}\n{pattern[kind]:.2f}", xticks=[], yticks=[])
    ax.grid(False)

# %% [markdown]
# Read the result with care. Kernel 3 has uneven counts: a pattern. But kernel 4 and kernel 2 have *even* counts, and there is a pattern as well! Even counts only mean that the pattern is not built in: the four positions of an output pixel still use four different sets of weights, and these have to learn to agree. With nearest + convolution all positions use the same nine weights, so a constant stays a constant whatever the weights are. That is the choice of this network (and of the paper's).

# %%
assert pattern["nearest + conv 3"] < 1e-6 and min(pattern[k] for k in pattern if k.startswith("transposed")) > 0.05
layer, maps = trained.net.up[2], torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(7))
by_hand = F.conv2d(maps.repeat_interleave(2, 2).repeat_interleave(2, 3), layer.conv.weight, layer.conv.bias, padding=1)
torch.testing.assert_close(by_hand, layer(maps), rtol=1e-5, atol=1e-5)
print("no pattern from nearest + conv, some from each transposed one; by hand = package Upsample: True")

# %% [markdown]
# ## Attention: every pixel asks every other
#
# Convolutions carry news one ring at a time. *Attention* carries it across the whole map in one go. Every pixel sends out a question $q$, a label $k$ ("key") and a message $v$ ("value"), each a vector of $d$ numbers, computed from its channels by a linear layer. A pixel compares its question with all labels, turns the scores into weights that sum to 1, and receives the messages in that mixture. With the questions, keys and values of all $n$ pixels as rows of $Q,K,V$:
#
# $$ \mathrm{Attention}(Q,K,V) = \mathrm{softmax}\!\left(\frac{QK^{\top}}{\sqrt d}\right)V,\qquad \mathrm{softmax}(a)_j=\frac{e^{a_j}}{\sum_i e^{a_i}} \text{ along each row} \tag{7.9, definition} $$
#
# (This $v$ is a message, not the $v$ of chapter 06. The letter is customary; it appears in this section only.)
#
# ### Why divide by the square root of d?
#
# Suppose the entries of $q$ and $k$ are independent with mean 0 and variance 1. A score is a sum of $d$ products $q_ik_i$. First one product, then the step from $n$ products, whose sum we call $S$, to $n+1$. In (7.12) $S$ is the sum of all $d$ products, so $\mathbb E[S^2]=d$:

# %% tags=["proof"]
q_i, k_i, S, d = normal("q_i"), normal("k_i"), sp.Symbol("S", real=True), sp.Symbol("d", positive=True)
derive("7.10", Expect((q_i * k_i) ** 2, q_i, k_i),
       (Expect(q_i**2, q_i) * Expect(k_i**2, k_i), "independent: the mean of a product is the product of the means"),
       (sp.Integer(1), "both have variance 1"))
derive("7.11", Expect((S + q_i * k_i) ** 2, S, q_i, k_i),
       (Expect(S**2, S) + 2 * Expect(S, S) * Expect(q_i, q_i) * Expect(k_i, k_i) + Expect(q_i**2 * k_i**2, q_i, k_i),
        "expand the square; the new product is independent of S"),
       (Expect(S**2, S) + 1, "q has mean 0, so the mixed term is gone; then 7.10"))
equation("7.12", Expect((S / sp.sqrt(d)) ** 2, S), sp.Integer(1), given={Expect(S**2, S): d})

# %% [markdown]
# By induction the sum of $d$ products has variance $d$: it starts at 0 and every product adds 1. Divided by $\sqrt d$ the score has variance 1, whatever $d$ is, which is (7.12). What the proof does not say: that questions and keys of a *trained* network are independent. They are not, and should not be. It is about the start of training.
#
# And what is bad about large scores? The softmax then puts nearly all weight on one pixel, and where a softmax is saturated its gradient vanishes. We measure the largest weight among 16 pixels (a 4×4 map).

# %%
rng = torch.Generator().manual_seed(8)
print("   d    largest weight, unscaled   scaled")
for d_now in (4, 32, 256):
    q, k = torch.randn(2, 4000, d_now, generator=rng), torch.randn(4000, 16, d_now, generator=rng)
    scores = torch.einsum("nd,njd->nj", q[0], k)
    assert abs(float(scores.var()) / d_now - 1) < 0.1
    raw, scaled = (float(s.softmax(1).max(1).values.mean()) for s in (scores, scores / d_now**0.5))
    print(f"{d_now:4d}    {raw:.1f}                        {scaled:.1f}")
assert raw > 0.85 and scaled < 0.4

# %% [markdown]
# By hand, with loops, so that nothing is hidden: one head, one asking pixel at a time. Around it sit a group norm before, a linear layer after, and the input is added, as in the residual block. Compare with the package's `Attention`.

# %%
def my_attention(block, x):
    B, C, H, W = x.shape
    tokens = my_group_norm(x, block.norm).flatten(2).transpose(1, 2)  # (B, HW, C)
    q, k, v = (tokens @ block.qkv.weight.T + block.qkv.bias).split(C, dim=2)
    mixed = torch.zeros_like(v)
    for i in range(H * W):
        scores = torch.stack([(q[:, i] * k[:, j]).sum(1) for j in range(H * W)], 1) / C**0.5
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        mixed[:, i] = (weights[:, :, None] * v).sum(1)
    out = mixed @ block.out.weight.T + block.out.bias
    return x + out.transpose(1, 2).reshape(B, C, H, W)


maps = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(9))
torch.testing.assert_close(my_attention(trained.net.middle[1], maps), trained.net.middle[1](maps), rtol=1e-4, atol=1e-4)
print("attention by hand = package: True")

# %% [markdown]
# Attention has no idea where a pixel lies. Shuffle the pixels, and the answers come out shuffled in the same way, nothing else changes. It is the convolutions around it (with their zeros at the border) that tell places apart. The price is the table of $n\times n$ scores: 256 entries for a 4×4 map, a million for 32×32. That is why attention sits at the small maps only: 4×4 here, 16×16 in the paper's network.

# %%
order = torch.randperm(16, generator=torch.Generator().manual_seed(10))
attend = trained.net.middle[1]
shuffled = attend(maps.flatten(2)[:, :, order].reshape(maps.shape))
torch.testing.assert_close(shuffled.flatten(2), attend(maps).flatten(2)[:, :, order], rtol=1e-4, atol=1e-4)
print("shuffled in, shuffled out: True;  scores for a 4 x 4 map:", 16**2, "  for 32 x 32:", f"{1024**2:,}")

# %% [markdown]
# What does a trained attention look at? We catch what enters the middle attention of the shipped network and compute the weights for six asking pixels (marked by a ring) of one noisy digit. Bright means: "I listen to this one."

# %%
def attention_weights(block, x):
    tokens = block.norm(x).flatten(2).transpose(1, 2)
    q, k, _ = block.qkv(tokens).chunk(3, dim=2)
    return (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).softmax(2)  # (B, asking, asked)


seen = []
hook = attend.register_forward_hook(lambda module, args, out: seen.append(args[0]))
with torch.no_grad():
    eps_model(noisy[:1], torch.tensor([300]))
hook.remove()
weights = attention_weights(attend, seen[0])[0]

# %%
fig, axes = plt.subplots(1, 7, figsize=(9, 1.7))
show_images(noisy[:1], title="x_t, t = 300", ax=axes[0])
for ax, asking in zip(axes[1:], (0, 3, 5, 6, 9, 14), strict=True):
    ax.imshow(weights[asking].reshape(4, 4), cmap="magma", vmin=0, vmax=float(weights.max()))
    ax.plot(asking % 4, asking // 4, "o", markerfacecolor="none", color="cyan", markersize=9)
    ax.set(xticks=[], yticks=[], title=f"pixel {asking}")
    ax.grid(False)
assert torch.allclose(weights.sum(1), torch.ones(16), atol=1e-5)

# %% [markdown]
# Some questions are answered by one place, others by several, and often it is not a neighbour: news crosses the map in one go. Beware of reading a story into such maps: they show where messages come from, not what the messages say, and the residual path carries the rest around them.

# %% [markdown]
# ## Skip connections: what the encoder saw
#
# The decoder does not have to invent detail. At each size it gets the encoder's map of that size, laid beside its own along the channel axis (*concatenation*). The stack rule: the encoder pushes every map, the decoder pops them in reverse order. Here is the bookkeeping for the digits network: what each decoder block receives.

# %%
net = trained.net
pushed = [channels_of(block) for name, block, _ in blocks_of(net) if name.startswith(("conv_in", "down"))]
own, stack = pushed[-1], list(pushed)
print("pushed by the encoder:", pushed)
for name, block, size in blocks_of(net):
    if name.startswith("up") and not isinstance(block, Upsample):
        skip, entering = stack.pop(), block[0].conv_1.in_channels
        assert own + skip == entering
        print(f"{name}: {size} x {size}, own {own} + skip {skip} = {entering} -> {channels_of(block)}")
        own = channels_of(block)

# %% [markdown]
# Why lay them side by side and not add them? A convolution over two stacked maps is the sum of two convolutions, one for each map, with weights of their own. Adding the maps first would force both to share one set of weights. So, for a bare convolution, concatenation can do everything that addition can, and more; it pays with more weights. Which of them wins at equal budget, only a measurement can tell; it comes near the end of this chapter. Here we check the algebra on numbers. (In our block a norm and a bend come before the convolution; there it is exact only for the shortcut $P$.)

# %%
rng = torch.Generator().manual_seed(11)
ours, skip, kernel = (torch.randn(*shape, generator=rng) for shape in ((1, 4, 8, 8), (1, 4, 8, 8), (6, 8, 3, 3)))
stacked = F.conv2d(torch.cat([ours, skip], 1), kernel, padding=1)
torch.testing.assert_close(stacked, F.conv2d(ours, kernel[:, :4], padding=1) + F.conv2d(skip, kernel[:, 4:], padding=1),
                           rtol=1e-4, atol=1e-4)
shared = torch.cat([kernel[:, :4]] * 2, 1)  # the same weights for both halves: addition
torch.testing.assert_close(F.conv2d(torch.cat([ours, skip], 1), shared, padding=1),
                           F.conv2d(ours + skip, kernel[:, :4], padding=1), rtol=1e-4, atol=1e-4)
print("conv of a stack = sum of two convs, and addition is the special case of shared weights: True")

# %% [markdown]
# ## Patches: trading space for channels
#
# The course's MNIST network folds every 2×2 square of pixels into four channels before it starts (`pixel_unshuffle`), and unfolds them at the end. A 28×28 picture becomes four pictures of 14×14, a quarter of the positions to convolve at. Nothing is lost: it is a re-ordering, exactly invertible, unlike a strided convolution.

# %%
picture = mnist5k().val.images[:1]
folded = F.pixel_unshuffle(picture, 2)
for c, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
    assert torch.equal(folded[0, c], picture[0, 0, i::2, j::2])  # every second row, every second column
assert torch.equal(F.pixel_shuffle(folded, 2), picture)
fig, axes = plt.subplots(1, 5, figsize=(8, 1.9))
show_images(picture, title="28 x 28", ax=axes[0])
for c in range(4):
    show_images(folded[:, c : c + 1], title=f"channel {c}, 14 x 14", ax=axes[c + 1])
print("unfolding gives back every bit: True")

# %% [markdown]
# ## All together, by hand
#
# We have every part. The forward pass is a walk down, across the bottom and up, with a stack for the skips. About twenty lines; the only things borrowed from the package are the weights.

# %%
def my_attend(block, h):
    return h if isinstance(block, nn.Identity) else my_attention(block, h)  # Identity where a size has no attention


def my_unet(net, x, t):
    e = my_embedding(t, net.config.base_channels) @ net.time[0].weight.T + net.time[0].bias
    e = silu(e) @ net.time[2].weight.T + net.time[2].bias
    h = my_conv(F.pixel_unshuffle(x, net.config.patch_size), net.conv_in)
    stack = [h]
    for block in net.down:
        if isinstance(block, Downsample):
            h = F.conv2d(F.pad(h, (0, 1, 0, 1)), block.conv.weight, block.conv.bias, stride=2)
        else:
            h = my_attend(block[1], my_res(block[0], h, e))
        stack.append(h)
    h = my_res(net.middle[2], my_attention(net.middle[1], my_res(net.middle[0], h, e)), e)
    for block in net.up:
        if isinstance(block, Upsample):
            h = my_conv(h.repeat_interleave(2, 2).repeat_interleave(2, 3), block.conv)
        else:
            h = my_attend(block[1], my_res(block[0], torch.cat([h, stack.pop()], 1), e))
    assert not stack  # every skip was used, once
    return F.pixel_shuffle(my_conv(silu(my_group_norm(h, net.norm_out)), net.conv_out), net.config.patch_size)


# %% [markdown]
# Is it the package's network? We compare at the first, an early, a middle and the last time: with the trained weights of the digits network, and with fresh weights in the shape of the MNIST network, which has patches and more blocks.

# %%
torch.manual_seed(2)
fresh = UNet(UNetConfig.mnist()).eval()
x_8, x_28 = noisy[:4], torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(12))
with torch.no_grad():
    for net, x in ((trained.net, x_8), (fresh, x_28)):
        torch.testing.assert_close(my_unet(net, x, t_check), net(x, t_check), rtol=1e-3, atol=1e-3)
print("the whole network by hand = package, digits and mnist shapes, t = 1, 2, 500, 1000: True")

# %% [markdown]
# > **Encoder and decoder.** An encoder writes a summary of a long letter, a decoder writes the letter again from the summary. With skip connections the decoder also has the original at hand, page by page. *Where it breaks:* then it is no summary any more. The bottom of a U-Net is not a compressed code of the picture: the detail goes around it. A network whose decoder sees *only* the code is an autoencoder (chapter 04), a different thing.
#
# What do the maps look like? Eight channels from four places, for one digit at $t=300$. Each is stretched to its own contrast.

# %%
def maps_of(net, x, t):
    places = {"conv_in": net.conv_in, "encoder": net.down[0][0], "middle": net.middle[2], "decoder": net.up[-1][0]}
    kept, hooks = {}, []
    for name, m in places.items():
        hooks.append(m.register_forward_hook(lambda m, args, out, name=name: kept.update({name: out[0]})))
    with torch.no_grad():
        net(x, torch.tensor([t]))
    for hook in hooks:
        hook.remove()
    low = {name: h[:8] - h[:8].amin((1, 2), keepdim=True) for name, h in kept.items()}
    return {name: (2 * h / h.amax((1, 2), keepdim=True) - 1)[:, None] for name, h in low.items()}


show_rows(maps_of(trained.net, noisy[:1], 300))
plt.show()

# %% [markdown]
# All rows but the third have the full resolution: single noisy pixels are still there, and here and there a piece of a stroke. The middle has 4×4 numbers per channel, and each stands for a large part of the digit.
#
# ### What do the skips carry? A small operation
#
# We take the *trained* network and blank one skip at a time, at three noise levels. This is no ablation (a network trained without that skip would learn to do without). It shows what *this* network gets from each of them.

# %%
def without_skip(net, x, t, blank):
    calls = iter(range(len(net.down), -1, -1))  # the decoder pops the last map first
    def hook(block, args):
        number = next(calls)
        own = args[0].shape[1] - pushed[number]
        return (torch.cat([args[0][:, :own], args[0][:, own:] * (number != blank)], 1), args[1])
    hooks = [b[0].register_forward_pre_hook(hook) for b in net.up if not isinstance(b, Upsample)]
    with torch.no_grad():
        out = as_eps_model(net, schedule, trained.prediction)(x, torch.full((len(x),), t))
    for handle in hooks:
        handle.remove()
    return out


def error(t, blank):
    return float((without_skip(trained.net, q_sample(schedule, held_out, t, noise), t, blank) - noise).square().mean())


# %% [markdown]
# Skip 0 is the map right after `conv_in`, skip 1 the one after the first residual block, skips 2 and 3 come from the small maps. The bars show the error of $\hat\varepsilon$ on 179 held-out digits.

# %%
errors = {t: [error(t, blank) for blank in (None, 0, 1, 2, 3)] for t in (50, 300, 700)}
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6))
for ax, (t, values) in zip(axes, errors.items(), strict=True):
    ax.bar(["none", "0", "1", "2", "3"], values, color=["grey", BLUE, BLUE, GREEN, GREEN])
    ax.set(title=f"t = {t}", xlabel="skip that was blanked")
axes[0].set_ylabel("mean square error of eps_hat")
assert errors[50][1] > 1.5 * errors[50][0] and errors[50][1] - errors[50][0] > 5 * (errors[700][1] - errors[700][0])

# %% [markdown]
# The fine skips (0 and 1) carry nearly all that the skips carry: at $t=50$ the error of $\hat\varepsilon$ triples without skip 0, at $t=700$ it rises by a quarter. The coarse skips are hardly missed; the path through the middle has their content already. Mind the unit: in $\hat x_0$ the same errors count $(1-\bar\alpha_t)/\bar\alpha_t$ times, 0.008 at $t=50$ and 3.9 at $t=700$.

# %% [markdown]
# ## How large, and where?
#
# Count parameters before you build. A residual block from $i$ to $o$ channels, with a time vector of $D$ numbers, has two norms ($2i$ and $2o$), two convolutions ($9io+o$ and $9o^2+o$), the time layer ($Do+o$), and a 1×1 convolution ($io+o$) if $i\neq o$. Attention on $c$ channels has a norm ($2c$), the three projections ($3c^2+3c$) and the output ($c^2+c$). The rest is the stack rule. With that we must hit the paper's network exactly.

# %%
def count(config):
    base, D = config.base_channels, 4 * config.base_channels

    def res(i, o):
        return 2 * i + 9 * i * o + o + D * o + o + 2 * o + 9 * o * o + o + (i * o + o if i != o else 0)

    def att(c, size):
        return (4 * c * c + 6 * c) if size in config.attention_sizes else 0

    folded = config.channels * config.patch_size**2
    total = base * D + D + D * D + D + 9 * folded * base + base + 2 * base + 9 * base * folded + folded
    widths, sizes, stack, width = config.level_channels(), config.level_sizes(), [base], base
    for level, (out, size) in enumerate(zip(widths, sizes, strict=True)):
        for _ in range(config.num_res_blocks):
            total, width = total + res(width, out) + att(out, size), out
            stack.append(out)
        if level < len(widths) - 1:
            total += 9 * out * out + out  # halving
            stack.append(out)
    total += 2 * res(width, width) + 4 * width * width + 6 * width  # the middle always attends
    for level in reversed(range(len(widths))):
        for _ in range(config.num_res_blocks + 1):
            total += res(width + stack.pop(), widths[level]) + att(widths[level], sizes[level])
            width = widths[level]
        total += (9 * width * width + width) if level > 0 else 0  # doubling
    return total


# %% [markdown]
# The networks are built on torch's `meta` device, which knows shapes but holds no numbers, so that 35 million parameters cost nothing. The operations are counted by torch as well, for one picture; a multiplication and an addition count as two.

# %%
configs = {name: getattr(UNetConfig, name)() for name in ("digits", "mnist", "cifar10")}


def measure(config):
    with torch.device("meta"):
        net, x = UNet(config), torch.zeros(1, config.channels, config.image_size, config.image_size)
        with FlopCounterMode(display=False) as counter:
            net(x, torch.ones(1, dtype=torch.long))
    return net, counter


for name, config in configs.items():
    net, counter = measure(config)
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == count(config)
    print(f"{name:8s} {parameters:11,} parameters   {counter.get_total_flops() / 1e9:6.2f} billion operations")
assert parameters == 35_746_307  # the network of the paper, to the last one

# %% [markdown]
# A thousand sampling steps with the CIFAR-10 network are thus twelve *trillion* operations for one picture. That is why the 8×8 digits are so handy on a laptop: 400 times cheaper.
#
# Where do the parameters sit, and where does the work happen? We sort both by the size of the map.

# %%
def by_size(net, counter):
    flops = {key: sum(ops.values()) for key, ops in counter.get_flop_counts().items()}
    sizes = {}
    for name, block, size in blocks_of(net):
        inside = range(3) if isinstance(block, nn.ModuleList) else ()
        keys = [f"UNet.{name}", *(f"UNet.{name}.{i}" for i in inside)]
        work, weights = sizes.get(size, (0, 0))
        weights += sum(p.numel() for p in block.parameters())
        sizes[size] = work + sum(flops.get(key, 0) for key in keys), weights
    return sizes


sizes = by_size(net, counter)
labels, (work, weights) = [f"{size} x {size}" for size in sizes], zip(*sizes.values(), strict=True)
fig, ax = plt.subplots(figsize=(7, 2.6))
ax.bar([i - 0.2 for i in range(4)], [w / sum(weights) for w in weights], 0.4, label="share of parameters")
ax.bar([i + 0.2 for i in range(4)], [w / sum(work) for w in work], 0.4, label="share of operations")
ax.set(xticks=range(4), xticklabels=labels, title="cifar10(): parameters and work, by the size of the map")
ax.legend()
plt.show()

# %% [markdown]
# A convolution's weights are used at every pixel. At the large maps few weights do much work; at the small maps many weights do little. The figure says what to save on: to save weights, look at the bottom of the U; to save time (and the memory of the maps in training), at its top.

# %%
assert work[0] / sum(work) > 0.4 and weights[0] / sum(weights) < 0.15
assert abs(sum(work) / counter.get_total_flops() - 1) < 0.01  # nothing forgotten but the small time network
print("32 x 32 maps: over 40 % of the work with under 15 % of the parameters: True")

# %% [markdown]
# ## Does it listen to t?
#
# A bug that hides well: $t$ is passed along, and somewhere it gets lost. Training still runs, the loss still falls. So test it: same picture, two times, and the answers must differ. A network that ignores $t$ gives itself away.

# %%
def ignores(x, t):
    return trained.net(x, torch.ones_like(t))  # t gets lost on the way


x, early, late = noisy[:4], torch.full((4,), 10), torch.full((4,), 900)
with torch.no_grad():
    for name, model in {"the U-Net": trained.net, "one that ignores t": ignores}.items():
        print(f"{name}: the answer changes with t: {bool((model(x, early) - model(x, late)).abs().max() > 0.1)}")

# %% [markdown]
# The stronger test: tell the network a *wrong* time. The digits below really are at $t=100$, 300 or 600. We tell the network another time, and the network only; the conversion of its $v$ to $\varepsilon$ gets the true one. (Told a wrong $t$, the formula alone would draw a valley at the truth, even for a deaf network.) Each curve should have its valley at the truth (dotted).

# %%
told, some, some_noise = [1, *range(50, 1001, 50)], held_out[:64], noise[:64]
fig, ax = plt.subplots(figsize=(7, 3))
valley = {}
for true, color in ((100, BLUE), (300, ORANGE), (600, GREEN)):
    x_true = q_sample(schedule, some, true, some_noise)
    with torch.no_grad():
        wrong = [float((v_to_eps(schedule, x_true, true, trained.net(x_true, torch.full((64,), k))) - some_noise).square().mean()) for k in told]
    valley[true] = told[wrong.index(min(wrong))]
    ax.plot(told, wrong, color=color, label=f"true t = {true}")
    ax.axvline(true, color=color, linestyle=":")
ax.set(xlabel="t that the network is told", ylabel="error of eps_hat", title="A wrong time costs dearly")
ax.legend()
assert all(abs(low - true) <= 50 for true, low in valley.items())
print("every valley lies within 50 steps of the true t:", all(abs(low - true) <= 50 for true, low in valley.items()))

# %% [markdown]
# ### Is t needed at all?
#
# A fair question: could a good network not *see* how noisy a picture is? We can answer it without training, with the oracle of chapter 06. A mixture of Gaussians has an exact denoiser for each $t$. If $t$ is hidden, the best one can do is to infer it: $\mathbb E[\varepsilon\mid x_t]$ is then the average of these denoisers, weighted with the posterior $p(t\mid x_t)$, which is exact too. We compare the two errors, once in the plane (eight blobs on a ring) and once for 64-pixel digits (each of 300 digits blurred a little).

# %%
def aware_and_blind(mixture, times, n=100):
    generator, aware, blind, model = torch.Generator().manual_seed(13), 0.0, 0.0, mixture.eps_model(schedule)
    for i, t in enumerate(times):
        x_0 = mixture.sample(n, generator)
        eps = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
        x = q_sample(schedule, x_0, t, eps)
        answers = torch.stack([model(x, torch.full((n,), u)).flatten(1) for u in times], 1)  # (n, times, D)
        log_p = torch.stack([mixture.diffused(float(schedule.alpha_bar[u])).log_prob(x) for u in times], 1)
        hidden = (log_p.softmax(1)[:, :, None] * answers).sum(1)
        aware += float((answers[:, i] - eps.flatten(1)).square().mean()) / len(times)
        blind += float((hidden - eps.flatten(1)).square().mean()) / len(times)
    return aware, blind


# %%
angle, times = torch.arange(8) * math.pi / 4, list(range(10, 1001, 30))
ring = GaussianMixture(torch.full((8,), 1 / 8), 1.4 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((8,), 0.1))
blurred = GaussianMixture(torch.full((300,), 1 / 300), train_images[:300], torch.full((300,), 0.15))
for name, mixture, n in (("2 numbers ", ring, 400), ("64 numbers", blurred, 60)):
    aware, blind = aware_and_blind(mixture, times, n)
    print(f"{name}: best error {aware:.2f} if t is known, {blind:.2f} if it must be guessed")
    assert 1.3 < blind / aware < 1.6 if n == 400 else 1.02 < blind / aware < 1.12

# %% [markdown]
# So it depends on the dimension. In the plane a point says little about how much noise it has had, and hiding $t$ costs over 30 % more error. With 64 pixels it costs a few percent: the picture gives its own noise level away, nearly. More pixels should tell it still better. Telling $t$ costs next to nothing and is never worse, so everybody tells it. (The numbers hold for the *best* denoisers. What a network of limited size does with a missing $t$ is another question.)

# %% [markdown]
# ## How far does it see?
#
# The *receptive field* of an output pixel is the set of input pixels that can influence it. We read it off the gradient: where it is exactly zero, there is no path. Group norm is in the way of this test, for its mean couples all pixels a little; so for this one picture we switch the norms off and look at the paths of convolution and attention alone. The network is fresh and sees pictures of 64×64 pixels.

# %%
def field(net):
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(14)).requires_grad_()
    net(x, torch.tensor([500]))[0, 0, 32, 32].backward()
    return (x.grad[0, 0] != 0).float()


def bare_unet(attention, multipliers):
    torch.manual_seed(3)
    small = {"image_size": 64, "channels": 1, "base_channels": 8, "num_res_blocks": 1, "attention_sizes": ()}
    net = UNet(UNetConfig(multipliers=multipliers, **small))
    net.norm_out = net.middle[1].norm = nn.Identity()
    for module in net.modules():
        if isinstance(module, ResBlock):
            module.norm_1 = module.norm_2 = nn.Identity()
    if not attention:
        net.middle[1] = nn.Identity()
    return net


# %%
cases = {"one size": (False, (1,)), "two sizes": (False, (1, 1)), "two sizes and attention": (True, (1, 1))}
fields = {name: field(bare_unet(*case)) for name, case in cases.items()}
fig, axes = plt.subplots(1, 3, figsize=(8, 3))
for ax, (name, seen) in zip(axes, fields.items(), strict=True):
    ax.imshow(seen, cmap="gray", vmin=0, vmax=1)
    ax.plot(32, 32, ".", color="red")
    ax.set(title=f"{name}\n{int(seen.sum())} of 4096 pixels", xticks=[], yticks=[])
    ax.grid(False)

# %% [markdown]
# White pixels can influence the red one. The network without halving is twelve convolutions deep and still sees only a window, $1+2\cdot12=25$ pixels wide. The one with a halving has twenty; at one size they would see $1+2\cdot20=41$ pixels. Half of them work on the small map, where each reaches twice as far. Attention in the middle makes the view complete in one layer. (A third size would have done so too, for 64×64. And in the real network the norms close the last gaps, but only through a mean and a variance.)

# %%
areas = [int(seen.sum()) for seen in fields.values()]
assert areas[0] == 25**2 and areas[0] < areas[1] < areas[2] == 64**2
print("one size sees", areas[0], "of", 64**2, "pixels; with attention it is all of them:", areas[2] == 64**2)

# %% [markdown]
# *Can* see is not *does* look. The same picture as at the start of the chapter, now for the trained network: the mean size of the gradient, at four noise levels, above the exact filters of the Gaussian.

# %%
network = {t: influence(eps_model, q_sample(schedule, held_out, t, noise), t) for t in (20, 100, 400, 900)}
fig, axes = plt.subplots(2, 4, figsize=(8, 4.4))
for row, (name, shares) in zip(axes, {"U-Net": network, "Gaussian oracle": oracle}.items(), strict=True):
    for ax, (t, share) in zip(row, shares.items(), strict=True):
        ax.imshow(share, cmap="magma", vmin=0, vmax=0.4)
        ax.set(title=f"{name}, t = {t}\n{near(share):.0%} within 3 x 3", xticks=[], yticks=[])
        ax.grid(False)
assert near(network[20]) > 0.5 > near(network[900])

# %% [markdown]
# Near at small $t$, far at large $t$, as the best denoiser does. At small $t$ the formula helps: $\hat x_0=\sqrt{\bar\alpha_t}\,x_t-\sqrt{1-\bar\alpha_t}\,\hat v$ is nearly $x_t$, so the pixel itself dominates. At large $t$ the far view is the network's own, learnt from data. At small $t$ it looks further than the Gaussian filter. Whether that is because digits are no Gaussian or because the network is not perfect, this figure cannot tell.

# %% [markdown]
# ## What is each part worth? A measurement
#
# Arguments for a part are cheap. So every part was taken out, or exchanged for its rival, and the network trained again: the same 12,800 draws from the 1,438 training digits (400 steps of 32), the same three seeds, everything else equal. It takes a quarter of an hour (`python benchmarks/ablations.py parts`); this cell reads what it wrote. Two numbers for each network: the loss on digits it has not seen, and the Fréchet distance of its samples to such digits (chapter 14; smaller is better). The bars are one standard deviation over the seeds.

# %%
runs = json.loads(Path("../benchmarks/results/ablations-parts.json").read_text())["runs"]
names = list(dict.fromkeys(key.split(" | ")[0] for key in runs))
values = lambda name, what: torch.tensor([run[what] for key, run in runs.items() if key.split(" | ")[0] == name])  # noqa: E731
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for ax, what, label in zip(axes, ("val", "frechet"), ("validation loss", "Fréchet distance, n = 359"), strict=True):
    for i, name in enumerate(names):
        ax.errorbar(values(name, what).mean(), -i, xerr=values(name, what).std(), marker="o", capsize=4, color=f"C{i % 8}")
    ax.axvline(values(names[0], what).mean(), color="grey", linewidth=1, linestyle=":")
    ax.set(xlabel=label, yticks=[-i for i in range(len(names))], yticklabels=names)
plt.show()

# %%
floor = json.loads(Path("../benchmarks/results/guided.json").read_text())["scales"]["0.0"]["Fréchet distance"]  # real digits, the same judge
assert {run["n"] for run in runs.values()} == {floor["n"]}
for name in names:
    val, train_loss, distance = (values(name, what) for what in ("val", "train", "frechet"))
    size = int(values(name, "parameters")[0]) // 1000
    print(f"{name:18} {size} k weights  validation {val.mean():.3f} ± {val.std():.3f}, unseen - seen {(val - train_loss).mean():+.3f},  Fréchet {distance.mean():.1f} (n = {floor['n']}, floor {floor['floor']:.1f})")

# %% [markdown]
# Two parts matter here, and the rest hardly. **Without skip connections** the loss rises by more than ten standard deviations, and the Fréchet distance of the samples rises by more than half: the decoder has to invent the detail that the encoder saw. **Without the time** the network pays, too, though it could guess $t$ from the picture. Everything else lies close to the package's choice: adding costs less than 1 % of the loss (a little with each of the three seeds) and has fewer weights, the three ways of going up differ by less than 1 %, and an 8×8 picture has little use for attention. Telling the time by scale and shift has a slightly lower loss; its samples cannot be told from the others.
#
# So is the paper's choice an accident? Not quite: on 8×8 pixels far is not very far, a checkerboard has no room, and 400 steps are few. The measurement says what these parts are worth *here*, and that one should measure before believing. The column "unseen - seen" is the overfitting: about 0.01 for all that work, least for the network without skips, which has not even learnt the digits it saw.

# %%
mean = {name: float(values(name, "val").mean()) for name in names}
spread = float(torch.stack([values(name, "val").std() for name in names]).mean())
assert mean["skip: none"] - mean[names[0]] > 10 * spread and mean["time: none"] - mean[names[0]] > 5 * spread
others = [abs(mean[name] - mean[names[0]]) for name in names if name not in ("skip: none", "time: none")]
print(f"without skips or time clearly worse, all others within {max(others):.2f} of the package's: True")

# %% [markdown]
# ### Play with it
#
# Move $t$. Above: the 32 numbers that tell the network the time. Below: eight held-out digits at that time, the noise, the network's guess, and the picture that is left. Watch where the guess of the noise is good (large $t$: nearly everything *is* noise) and where the guess of the picture is good (small $t$). Without a running kernel, see the fixed figures above.

# %%
def draw(t):
    x = q_sample(schedule, held_out[:8], t, noise[:8])
    with torch.no_grad():
        eps_hat = eps_model(x, torch.full((8,), t))
    fig, axes = plt.subplots(5, 1, figsize=(7.5, 6.2))
    axes[0].bar(range(32), timestep_embedding(torch.tensor([t]), 32)[0].tolist(), color=BLUE)
    axes[0].set(ylim=(-1, 1), title=f"emb(t) for t = {t}: 16 sines, 16 cosines", xticks=[])
    pictures = {"x_t": x, "noise": noise[:8] / 3, "guess": eps_hat / 3, "x_0_hat": eps_to_x_0(schedule, x, t, eps_hat)}
    for ax, (name, images) in zip(axes[1:], pictures.items(), strict=True):
        show_images(images, 8, name, ax)


explore(draw, t=slider(1, 999, 300, label="t"))

# %% [markdown]
# ## Common mistakes
#
# None of these stops with an error. Guess the number before you run the cell.
#
# ### "A transposed convolution is better, because it learns the upsampling" (M32)
#
# It depends on kernel and stride. With kernel 3 and stride 2 the stamps overlap unevenly: four on some pixels, one on others. The numbers: how often the least and the most covered pixel is hit.

# %%
def coverage(k, s):
    stamps = F.conv_transpose2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, k, k), stride=s)[0, 0, k:-k, k:-k]
    return int(stamps.min()), int(stamps.max())


print("kernel 3, stride 2: covered", coverage(3, 2), "times  <- checkerboard built in")
print("kernel 4, stride 2: covered", coverage(4, 2), "times  <- even")
assert coverage(3, 2) == (1, 4) and coverage(4, 2) == (4, 4)
right_line = F.conv2d(F.interpolate(torch.ones(1, 1, 8, 8), scale_factor=2.0), torch.ones(1, 1, 3, 3), padding=1)
assert right_line[0, 0, 1:-1, 1:-1].unique().tolist() == [9.0]  # nearest + conv: nine everywhere

# %% [markdown]
# ### "The encoder encodes the noise, the decoder decodes a picture" (M36)
#
# One pass of the U-Net is *one denoising step*, not a generation. Ask it once, at $t=T$, to remove the noise from pure noise. The best answer in the mean square is then the average of all digits, whatever noise you start from. The number: the variance between the answers to different noises, against the variance between real digits. Below, one pass and fifty steps from the same noises.

# %%
x_T = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(15))
with torch.no_grad():
    one_pass = eps_to_x_0(schedule, x_T, 1000, eps_model(x_T, torch.full((64,), 1000)))  # the mistake
many_steps = ddim_sample(clip_x_0(eps_model, schedule), schedule, x_T=x_T, num_steps=50)
show_rows({"one pass": one_pass, "fifty steps": many_steps, "real": held_out}, columns=12)
variety = [float(x.var(0).mean() / train_images.var(0).mean()) for x in (one_pass, many_steps)]
assert variety[0] < 0.1 and 0.6 < variety[1] < 1.4
print(f"variety (real digits 100 %): one pass under 10 %: {variety[0] < 0.1}; 50 steps over 60 %: {variety[1] > 0.6}")

# %% [markdown]
# ### "The network outputs x_{t-1}" (M35)
#
# It outputs a guess $\hat\varepsilon$ of all the noise since $x_0$ (or $v$, or $\hat x_0$, by convention). The picture one step before is then *drawn* from a Gaussian whose mean is computed from $\hat\varepsilon$. If the output were $x_{t-1}$, it would be close to $x_t$, for one step changes little. Compare the distances.

# %%
with torch.no_grad():
    answer = eps_model(noisy, torch.full((len(noisy),), 300))
previous, _ = q_posterior(schedule, held_out, noisy, 300)  # the mean of x_{t-1}, given the truth
to_eps, to_previous = (float((answer - x).square().mean()) for x in (noise, previous))
print(f"answer to the noise: {to_eps:.1f}, answer to the mean of x_(t-1): {to_previous:.1f}")
assert to_eps < 0.3 < 0.6 < to_previous

# %% [markdown]
# ### Dropout left on while sampling (M30)
#
# Dropout sets randomly chosen numbers to 0 during training; the paper's CIFAR-10 network does so with one in ten. We put the same dropout into our network (its weights stay as they are). Forget `net.eval()`, and two calls with the same input give two answers: extra noise in $\hat\varepsilon$ that no formula knows of. The number: the variance between two calls. `Trained.eps_model()` calls `eval()` for you.

# %%
dropping = UNet(replace(trained.net.config, dropout=0.1))
dropping.load_state_dict(trained.net.state_dict())
raw_model, t = as_eps_model(dropping, schedule, trained.prediction), torch.full((len(noisy),), 300)
torch.manual_seed(4)
with torch.no_grad():
    dropping.train()  # the mistake: a network starts in training mode, and stays there
    one, two = raw_model(noisy, t), raw_model(noisy, t)
    dropping.eval()  # the right line
    right, again = raw_model(noisy, t), raw_model(noisy, t)
errors = [float((x - noise).square().mean()) for x in (one, right)]
assert float((one - two).var()) > 5e-3 and errors[0] > 1.02 * errors[1] and torch.equal(right, again)
print("training mode: two calls differ with variance above 0.005:", float((one - two).var()) > 5e-3)
print("eval mode: two calls are bit-equal:", torch.equal(right, again))

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/07_unet_student.ipynb), [with solutions](exercises/07_unet_solution.ipynb).

# %% [markdown]
# **7.1 ★** How many parameters has a residual block from 64 to 32 channels with a time vector of 128 numbers? Give the number; do it with pen and paper first.

# %% [markdown] tags=["hint"]
# **Hint 7.1**
#
# Go through the block in order: norm, convolution, time layer, norm, convolution, and the shortcut. A norm has two numbers a channel. A convolution from $a$ to $b$ channels has $9ab$ weights and $b$ biases.

# %% tags=["exercise"]
parameters = ...
check("7.1", parameters)

# %% tags=["solution"]
parameters = sum(p.numel() for p in ResBlock(64, 32, 128, groups=8, dropout=0.0).parameters())
must_pass("7.1", parameters)

# %% [markdown]
# **7.2 ★★** A stack of $n$ convolutions of size 3×3, without halving, then one halving, then $m$ more convolutions of size 3×3 on the small map. How many input pixels wide is the window that one pixel of the small map sees? Count the halving as taking every second pixel, with no kernel of its own. Write the function. (In your head: $n=1,m=0$ gives 3.)

# %% [markdown] tags=["hint"]
# **Hint 7.2**
#
# Start from the end. One pixel of the small map stands for a step of two input pixels.

# %% tags=["exercise"]
def window(n, m):
    return ...


check("7.2", window)


# %% tags=["solution"]
def window(n, m):
    return 1 + 2 * n + 4 * m  # a ring on the large map adds 2 pixels, on the small map 4


must_pass("7.2", window)

# %% [markdown]
# **7.3 ★★** The stack rule, for the network of the paper: base 128, multipliers (1, 2, 2, 2), two residual blocks a level. List the input channels of its twelve decoder blocks, from the bottom up.

# %% [markdown] tags=["hint"]
# **Hint 7.3**
#
# Write down what the encoder pushes, in order, and pop from the right. The very first thing pushed is the output of `conv_in`. A block's input is its own map and the popped one side by side.

# %% tags=["exercise"]
inputs = ...
check("7.3", inputs)

# %% tags=["solution"]
with torch.device("meta"):
    paper = UNet(UNetConfig.cifar10())
inputs = [block[0].conv_1.in_channels for block in paper.up if not isinstance(block, Upsample)]
must_pass("7.3", inputs)

# %% [markdown]
# **7.4 ★★★** Write attention without loops, as (7.9): `q`, `k`, `v` are matrices with one row a pixel. The check compares with an independent calculation, and it knows the most common slips.

# %% [markdown] tags=["hint"]
# **Hint 7.4**
#
# `q @ k.T` has one row for each asking pixel. Along which axis must the weights sum to 1?

# %% tags=["exercise"]
def attention(q, k, v):
    return ...


check("7.4", attention)


# %% tags=["solution"]
def attention(q, k, v):
    return torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=1) @ v


must_pass("7.4", attention)

# %% [markdown]
# **7.5 ★★** How many multiplications does one convolution of size 3×3 take, from 128 to 128 channels, on a map of 32×32 pixels (with padding, so that the map keeps its size)?

# %% [markdown] tags=["hint"]
# **Hint 7.5**
#
# One output number needs $3\cdot3\cdot128$ multiplications. How many output numbers are there?

# %% tags=["exercise"]
multiplications = ...
check("7.5", multiplications)

# %% tags=["solution"]
multiplications = (3 * 3 * 128) * (128 * 32 * 32)  # for each output number: a 3x3 window in all channels
must_pass("7.5", multiplications)

# %% [markdown]
# **7.6 ★★** A transposed convolution in two dimensions, kernel $k\times k$, stride $s$. How many stamps cover an output pixel, away from the border? Return the $s\times s$ table for the pixels $(0,0)$ to $(s-1,s-1)$, counted from a corner of a stamp, as a list of rows.

# %% [markdown] tags=["hint"]
# **Hint 7.6**
#
# In one dimension pixel $r$ gets the entries $r,\ r+s,\ r+2s,\dots$ of the kernel. In two dimensions counts multiply.

# %% tags=["exercise"]
def stamps(k, s):
    return ...


check("7.6", stamps)


# %% tags=["solution"]
def stamps(k, s):
    line = [len(range(r, k, s)) for r in range(s)]
    return [[a * b for b in line] for a in line]


must_pass("7.6", stamps)

# %% [markdown]
# ## What comes next
#
# We have a network that can look near and far and knows what time it is. Its weights were loaded from a file. Chapter 08 makes such weights: Algorithm 1 in ten lines, then a real training run on handwritten digits, live, in under a minute.
