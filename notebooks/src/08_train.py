# %% [markdown]
# # 08 · Training: from random weights to handwritten digits
#
# **The question.** The loss is known (chapter 06), the network is built (chapter 07). How do random weights become weights that draw digits? What must be added to the bare algorithm so that it works in practice? And how do we know that the network has learnt something, and not just memorised its examples?
#
# **After this chapter you can**
#
# - write Algorithm 1 in ten lines and say what each line draws or computes;
# - explain what warm-up, gradient clipping and weight averaging do, each by a number;
# - train on real handwritten digits in under a minute, and go on after a power cut, bit for bit;
# - read a loss curve: why it stops falling, why it cannot reach 0, and what a loss of 0 would mean;
# - judge by held-out data, and use the test part once.
#
# *Needs:* chapters 06 and 07. *Time:* about two and a half hours with the exercises.

# %%
import copy
import sys
import tempfile
from dataclasses import replace
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import sympy as sp
import torch
from PIL import Image
from torch import nn

from ddpm_course import FiniteData, UNet, UNetConfig, cosine_schedule, ddim_sample, q_sample
from ddpm_course.checkpoint import load_classifier, load_model, shipped
from ddpm_course.checks import check, must_pass
from ddpm_course.data import as_float, check_images, digits, load, random_flip
from ddpm_course.ema import ema_decay, ema_of
from ddpm_course.errors import CheckpointError, DataError
from ddpm_course.losses import diffusion_loss
from ddpm_course.metrics import frechet_distance
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, curves, show_images, show_rows, style
from ddpm_course.prediction import as_eps_model, clip_x_0, eps_to_v, target, v_to_x_0
from ddpm_course.proofs import Expect, agrees, bar_t, derive, eps, eps_hat, equation, limit, table_values, x_t
from ddpm_course.train import TrainConfig, at_scale, batch_indices, batch_noise, learning_rate, train, validation_loss
from ddpm_course.widgets import explore, slider

style()
schedule, data = cosine_schedule(T=1000), digits()

# %% [markdown]
# First, what the network will see. Each column is one training example. A clean digit is drawn from the data, a time $t$ is drawn evenly from $1,\dots,1000$, noise is drawn, and the three are mixed into $x_t$ in *one jump* (chapter 02). The bottom row is what the network shall answer, the target $v$ of chapter 06. In the next step of training all of it is drawn again.

# %%
generator = torch.Generator().manual_seed(0)
x_0 = data.train.images[:10]
t = torch.tensor([30, 100, 200, 300, 400, 500, 600, 700, 850, 990])  # usually random; sorted here for the eye
noise = torch.randn(x_0.shape, generator=generator)
pairs = {"clean x_0": x_0, "noisy x_t": q_sample(schedule, x_0, t, noise)}
show_rows(pairs | {"target v": target(schedule, x_0, t, noise, "v") / 2})
plt.show()

# %% [markdown]
# On the left, where the noise is weak, the target is nearly the noise itself. On the right, where $x_t$ is nearly pure noise, the target is nearly the *negative* of the digit. That is the point of $v=\sqrt{\bar\alpha_t}\,\varepsilon-\sqrt{1-\bar\alpha_t}\,x_0$: the network is always asked for the part that cannot be read off $x_t$ directly.

# %% [markdown]
# ## The data
#
# The examples are 1,797 real digits, written by 13 people, scanned, and reduced to 8×8 pixels. Three things must be right before any training.
#
# **The range.** The noise has standard deviation 1, so the pictures must have a size of that order. The convention is $[-1,1]$: paper at $-1$, ink at $+1$ (these scans show ink as white). **The split.** *Train* is for fitting, *val* for every decision we take on the way (how many steps, which learning rate), *test* for one single look at the end. Why a third part? Because whoever tries twenty settings and keeps the best on *val* has fitted *val* a little. **The seed.** The split must be the same tomorrow.

# %%
seen = [{picture.numpy().tobytes() for picture in part.images} for part in data]
assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
assert torch.equal(digits(seed=0).train.images, data.train.images)
assert not torch.equal(digits(seed=1).train.images, data.train.images)
check_images(data.train.images)
low, high = float(data.train.images.min()), float(data.train.images.max())
sizes = [len(part.images) for part in data]
print(f"train, val, test: {sizes}; no picture in two parts; range {low:.0f} to {high:.0f}")

# %% [markdown]
# ### Should we mirror the pictures?
#
# Many recipes mirror each picture with probability ½ (`random_flip`), which doubles the data for free. That is right when a mirrored example is again a possible example: a cat, a landscape. A mirrored 2 is not a 2. How wrong is it? We ask the small classifier that comes with the course. (It was trained on the train part; we ask it about the held-out val part.)

# %%
judge = load_classifier("digits")
val, labels = data.val.images, data.val.labels
upright, mirrored = (judge(x).argmax(1) == labels for x in (val, val.flip(-1)))
per_digit = [float(mirrored[labels == y].float().mean()) for y in range(10)]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.4))
first = torch.stack([val[labels == y][0] for y in range(10)])
show_images(torch.cat([first, first.flip(-1)]), 10, "digits and their mirror images", left)
right.bar(range(10), per_digit, color=BLUE)
right.set(xticks=range(10), title="share recognised after mirroring", ylim=(0, 1))
assert float(upright.float().mean()) > 0.95 and float(mirrored.float().mean()) < 0.5
print("recognised upright: over 95 %; mirrored: under 50 %")

# %% [markdown]
# A 0 and nearly every 8 survive, a 1 and a 9 in less than half of the cases, a 2 in a fifth; of the rest hardly any. A network trained with flips would faithfully learn to draw mirror writing. So no flips here. The function exists, for data where it makes sense; it draws its coin per picture, from a generator that you give it.

# %%
flipped = random_flip(val, torch.Generator().manual_seed(1))
changed = (flipped != val).flatten(1).any(1)
assert torch.equal(flipped[changed], val[changed].flip(-1))
print("about half of the pictures are mirrored:", 0.4 < float(changed.float().mean()) < 0.6)

# %% [markdown]
# ## Algorithm 1
#
# The paper's training loop (Ho Algorithm 1) has six lines: repeat; draw $x_0$ from the data; draw $t$ evenly from $1,\dots,T$; draw $\varepsilon\sim\mathcal N(0,I)$; take a gradient step on the square error; until converged. What it minimises, with $v$ as the target and $D$ pixels in a picture:
#
# $$ L(\theta) = \mathbb E_{x_0,\,t,\,\varepsilon}\left[\frac1D\,\big\lVert v - v_\theta(x_t, t)\big\rVert^2\right],\qquad x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon \tag{8.1, definition} $$
#
# The expectation runs over three independent things: which picture, which time, which noise. A batch of 64 takes 64 triples at random, and its mean is an unbiased estimate of $L$. Ten lines, with the formulas written out:

# %%
small = replace(UNetConfig.digits(), base_channels=8, groups=4)  # chapter 07's network, far narrower
torch.manual_seed(0)
net, images, generator = UNet(small), data.train.images, torch.Generator().manual_seed(0)
optimizer, losses = torch.optim.Adam(net.parameters(), lr=2e-3), []
for _ in range(100):
    x_0 = images[torch.randint(len(images), (64,), generator=generator)]
    t = torch.randint(1, 1001, (64,), generator=generator)
    noise = torch.randn(x_0.shape, generator=generator)
    bar = schedule.alpha_bar[t][:, None, None, None]  # float64, as always
    signal, sigma = bar.sqrt().float(), (1 - bar).sqrt().float()
    x_noisy, wanted = signal * x_0 + sigma * noise, signal * noise - sigma * x_0
    loss = (wanted - net(x_noisy, t)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
start, end = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
print(f"the loss falls to less than two thirds in 100 steps: {end < start * 2 / 3}")
assert end < start * 2 / 3

# %% [markdown]
# That is all of it. Notice what is *not* there: no chain of a thousand steps, no generated picture, no comparison of pictures. One jump, one guess, one square error.
#
# Is each piece the package's? The batch is mixed by `q_sample`, the answer sheet is `target`, the loss of each example is `diffusion_loss`. We compare at $t=1$, $2$, $500$, $1000$ in float64, for all three things that a network may predict. (In the place of a network stands a function with a known answer.)

# %%
x64, e64 = torch.randn(2, 4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
times = torch.tensor([1, 2, 500, 1000])
bar = schedule.alpha_bar[times][:, None, None, None]
sheet = {"eps": e64, "x_0": x64, "v": bar.sqrt() * e64 - (1 - bar).sqrt() * x64}
mixed = bar.sqrt() * x64 + (1 - bar).sqrt() * e64
for kind, wanted in sheet.items():
    torch.testing.assert_close(wanted, target(schedule, x64, times, e64, kind), rtol=0, atol=1e-12)
    mine = (0.3 * mixed - wanted).square().flatten(1).mean(1)
    theirs = diffusion_loss(lambda x, t: 0.3 * x, schedule, x64, times, e64, kind)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
print("q_sample, target and loss by hand = package: True")

# %% [markdown]
# ### Why predict v here?
#
# Chapter 06 showed that the answers convert into one another. Their *errors* convert, too. The package turns $\varepsilon$ into $v$ by $v=(\varepsilon-\sqrt{1-\bar\alpha_t}\,x_t)/\sqrt{\bar\alpha_t}$. The picture $x_t$ is the same for the truth and for the guess, so it cancels in the difference:

# %% tags=["proof"]
def v_of(e):
    return (e - sp.sqrt(1 - bar_t) * x_t) / sp.sqrt(bar_t)


equation("8.2", v_of(eps) - v_of(eps_hat), (eps - eps_hat) / sp.sqrt(bar_t), source="v-pred appendix D")
one = torch.ones(1, 1, dtype=torch.float64)
for t_now in (2, 500):
    gap = eps_to_v(schedule, one, t_now, 0.7 * one) - eps_to_v(schedule, one, t_now, 0.2 * one)
    agrees((eps - eps_hat) / sp.sqrt(bar_t), table_values(schedule, t_now) | {eps: 0.7, eps_hat: 0.2}, gap)
agrees(v_of(eps), table_values(schedule, 500) | {eps: 0.7, x_t: 1.0}, eps_to_v(schedule, one, 500, 0.7 * one))

# %% [markdown]
# So the square error of $v$ is that of $\varepsilon$ divided by $\bar\alpha_t$. At small $t$ they are the same. At large $t$, where $x_t$ is nearly all noise and $\varepsilon$ is easy, the error of $v$ weighs much more. It asks the network to say something about the digit even there. The proof does not say which target trains best; that depends on the data and the schedule.

# %% [markdown]
# ## What a real run adds
#
# The ten lines train. A real run adds four things: a learning rate that rises and falls, a limit on the gradient, an average of the weights, and a book-keeping of randomness. One after the other.
#
# ### The learning rate: warm up, then cool down
#
# The step size is $\eta_k$ in step $k=0,1,\dots$ of $K$. It rises on a straight line for $w$ steps, and falls like half a cosine to a fraction $f$ of its peak $\eta$:
#
# $$ \eta_k = \eta\,\min\!\Big(1,\frac{k+1}{w}\Big)\left(f + \frac{1-f}2\Big(1+\cos\frac{\pi k}{K}\Big)\right) \tag{8.3, definition} $$
#
# Why warm up? The optimiser Adam divides each gradient by its own running size. In the first steps that size is known from a handful of batches only, and random weights give wild gradients; large steps in wild directions are hard to repair. Why cool down? Near the end the noise of the batches shakes the weights around; smaller steps let them settle.

# %%
config = TrainConfig(steps=450, lr=4e-3, warmup=50)
k = torch.arange(450, dtype=torch.float64)
mine = 4e-3 * ((k + 1) / 50).clamp(max=1) * (0.05 + 0.95 / 2 * (1 + (torch.pi * k / 450).cos()))
theirs = torch.tensor([learning_rate(config, int(step)) for step in k], dtype=torch.float64)
torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8)
fig, ax = plt.subplots(figsize=(7, 2.2))
curves(k, {"learning rate": theirs}, ax, xlabel="step", title="warm-up, then half a cosine")
plt.show()

# %% [markdown]
# ### The gradient: clipped
#
# Now and then a batch has an unusual mixture and a huge gradient. One such step can undo a hundred. So the gradient $g$ of *all* parameters together is shortened to length $c$ if it is longer. Its direction stays:
#
# $$ g \leftarrow g\cdot\min\!\Big(1,\ \frac{c}{\lVert g\rVert}\Big) \tag{8.4, definition} $$

# %%
weights = [torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)]
gradients = [torch.tensor([3.0, 0.0, -4.0]), torch.tensor([12.0, 0.0])]  # length sqrt(9 + 16 + 144) = 13
for w, g in zip(weights, gradients, strict=True):
    w.grad = g.clone()
length = float(nn.utils.clip_grad_norm_(weights, max_norm=1.0))
for w, g in zip(weights, gradients, strict=True):
    torch.testing.assert_close(w.grad, g / 13, rtol=1e-5, atol=1e-6)
print(f"length before {length:.0f}, after 1, every entry divided by the same 13: True")

# %% [markdown]
# ### The weights: averaged (EMA)
#
# The weights dance around a good place, pushed by the noise of the batches. Their *average* lies closer to it than any single one. So one keeps a second network, the *exponential moving average*, and samples from that. With $\theta_n$ for the weights after step $n$ and a decay $d$ near 1:
#
# $$ \tilde\theta_n = d\,\tilde\theta_{n-1} + (1-d)\,\theta_n \tag{8.5, definition} $$
#
# Write it out: $\theta_n$ has the weight $1-d$, $\theta_{n-1}$ has $(1-d)d$, and so on, and the start $\tilde\theta_0$ is left with $d^n$. First we check that these weights sum to 1, so that it is a true average. Then: how fast is the start forgotten? With $d = 1-1/n$, after $n$ steps, its share tends to $1/e$.

# %% tags=["proof"]
n, j = sp.symbols("n j", integer=True, positive=True)
d = sp.Symbol("d", positive=True)
equation("8.6", d**n + sp.Sum((1 - d) * d ** (n - j), (j, 1, n)), sp.Integer(1))
limit("8.7", (1 - 1 / n) ** n, sp.exp(-1), sizes=[10, 100, 1000, 10_000], order=1)
left_over = sp.factorial(10) * sp.factorial(n + 1) / sp.factorial(n + 10)
equation("8.8", sp.Product((1 + j) / (10 + j), (j, 1, n)), left_over)

# %% [markdown]
# Read (8.7) with the popular $d=0.9999$: after **ten thousand** steps 37 % of the average is still the random start. For a short run that is fatal. The cure is a **warm-up of the decay**: in step $k$ use $\min\!\big(d, \frac{1+k}{10+k}\big)$, which starts small and creeps up to $d$. Formula (8.8) gives the share of the first weights under warm-up: a falling power $n^{-9}$, gone within a few dozen steps. What the proofs do not say is which $d$ is best. A rule of thumb: the average should reach back over the last tenth of the run.

# %%
steps = torch.arange(1, 451)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
decays = (0.9, 0.99, 0.9999)
in_use = {f"d = {d}": torch.tensor([ema_decay(int(k), d) for k in steps], dtype=torch.float64) for d in decays}
curves(steps, in_use, left, xlabel="step", title="decay in use, with warm-up")
share = in_use["d = 0.9999"].cumprod(0)
shares = {f"d = {d}, no warm-up": d**steps.double() for d in (0.99, 0.9999)} | {"d = 0.9999, warm-up": share}
curves(steps, shares, right, xlabel="step", title="share of the first weights", yscale="log", ylim=(1e-9, 3))
exact = 3628800 * torch.exp(torch.lgamma(steps.double() + 2) - torch.lgamma(steps.double() + 11))
torch.testing.assert_close(share, exact, rtol=1e-9, atol=0)

# %% [markdown]
# The right figure is the whole story: orange (0.9999 from the start) stays at the top for all 450 steps, so the average *is* the random start. Green, the same decay with warm-up, has forgotten it at once. The left figure adds a detail: in a run of 450 steps $d=0.99$ and $d=0.9999$ do exactly the same, for the warm-up has not reached either. It is the warm-up that averages over a sensible stretch of a short run.
#
# ### The randomness: a function of (seed, step)
#
# If batch, $t$ and noise of step 1,000 depended on all draws before, one could not continue a run without replaying it. Here they are functions of the seed and the step number alone: `batch_indices(config, n, step)` and `batch_noise(config, x_0, step)`. Each epoch is a fresh permutation of the data, so no picture is seen twice within an epoch. (What does not fill a last batch is left out, other pictures each time.)

# %%
few = TrainConfig(batch_size=100)
epoch = torch.cat([batch_indices(few, 1438, step) for step in range(14)])  # 14 full batches fit into 1,438
assert len(epoch.unique()) == 1400
again, _ = batch_noise(few, images[:100], 1000)
assert torch.equal(again, batch_noise(few, images[:100], 1000)[0])
many_times = torch.cat([batch_noise(few, images[:100], step)[0] for step in range(200)])
assert (int(many_times.min()), int(many_times.max())) == (1, 1000)
assert abs(float(many_times.double().mean()) - 500.5) < 10
print("an epoch has no repeats, step 1,000 needs no memory of step 999, and t covers 1..1000: True")

# %% [markdown]
# ## By hand, and by the package: the same run
#
# Now the loop once more, with everything a real run adds. It should give what `train(config)` gives: not roughly, but the same losses and the same weights. The averaging is written out, too; one detail is torch's: at the very first step the average simply copies the weights.

# %%
def my_train(config, after_step=lambda step, net: None):
    torch.manual_seed(config.seed)
    net, losses, norms = UNet(config.net).train(), [], []
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=0.0, fused=True)
    for step in range(config.steps):
        x_0 = images[batch_indices(config, len(images), step)]
        t, noise = batch_noise(config, x_0, step)
        bar = schedule.alpha_bar[t][:, None, None, None]
        signal, sigma = (bar**0.5).float(), ((1 - bar) ** 0.5).float()
        loss = (net(signal * x_0 + sigma * noise, t) - (signal * noise - sigma * x_0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), config.grad_clip)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.step()
        d = 0.0 if step == 0 else min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
                slow.copy_(d * slow + (1 - d) * fast)
        after_step(step, net)
        losses.append(loss.item())
    return average, losses, norms


# %% [markdown]
# Twenty steps with the small network. `train` is asked to log every step, so that its history has one loss a step. The tolerance allows for the order in which floating-point numbers are added; nothing else may differ.

# %%
tiny = TrainConfig(net=small, steps=20, batch_size=32, warmup=5, log_every=1, ema_decay=0.9)
average, losses, _ = my_train(tiny)
package = train(tiny)
logged = torch.tensor([row["loss"] for row in package.history])
torch.testing.assert_close(torch.tensor(losses), logged, rtol=1e-4, atol=1e-5)
for mine, theirs in zip(average.parameters(), package.net.parameters(), strict=True):
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
print("20 losses equal, and all weights of the average equal: True")

# %% [markdown]
# ### Why is my EMA black or noisy?
#
# With the loop in our hands we can watch the mistake. 150 steps of the small network; beside the average with warm-up runs one with $d=0.9999$ from the start. All three networks are judged on the same held-out pictures.

# %%
short = TrainConfig(net=small, steps=150, batch_size=32, warmup=20, ema_decay=0.9999)
torch.manual_seed(short.seed)
cold, final = UNet(small), UNet(small)  # cold: the average without warm-up, started at the random weights


def watch(step, net):
    with torch.no_grad():
        for slow, fast in zip(cold.parameters(), net.parameters(), strict=True):
            slow.lerp_(fast, 1 - 0.9999)
    if step == short.steps - 1:
        final.load_state_dict(net.state_dict())


warm, losses, norms = my_train(short, watch)
judged = {"weights": final, "EMA, warm-up": warm, "EMA, none": cold}
held_out_loss = {name: validation_loss(model, schedule, val, "v") for name, model in judged.items()}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=[1, 1.4])
left.bar(held_out_loss.keys(), held_out_loss.values(), color=[GREY, GREEN, RED])
left.set_title("validation loss after 150 steps")
right.semilogy(norms, color=BLUE)
right.axhline(short.grad_clip, color="black", linewidth=0.8)
right.set(title="length of the gradient; above the line it is clipped", xlabel="step")
assert held_out_loss["EMA, none"] > 1.3 * held_out_loss["EMA, warm-up"] and norms[0] > 1
print("without warm-up the average is still nearly the random start:", held_out_loss["EMA, none"] > 0.8)

# %% [markdown]
# The red bar belongs to a network that is 98.5 % random start. Sampled from, it gives noise. The right picture shows the clipping at work: only the first, wild steps are cut. We come back to the pictures when there is a network worth looking at. Next: that network.

# %% [markdown]
# ## Live: real handwritten digits
#
# Now the real size: the U-Net of chapter 07 with 701,345 parameters, 320 steps of 64 pictures. That is about 14 times through the data and takes well under a minute on two idle CPU cores. (On a machine with a GPU, set the environment variable `DDPM_COURSE_SCALE=gpu`: the same cell then runs longer and with larger batches.) In your own session a progress bar moves; here it is switched off.

# %%
live_config = TrainConfig(
    net=UNetConfig.digits(),
    steps=at_scale(cpu=320, gpu=6000), batch_size=at_scale(cpu=64, gpu=256), lr=at_scale(cpu=4e-3, gpu=2e-3),
    ema_decay=at_scale(cpu=0.99, gpu=0.999), log_every=at_scale(cpu=40, gpu=200),
    device=at_scale(cpu="cpu", gpu="cuda"), warmup=50, prediction="v", schedule="cosine", data="digits")
live = train(live_config)
live.net.cpu()
history = {key: [row[key] for row in live.history] for key in ("step", "loss", "val_loss")}
assert history["val_loss"][-1] < 0.34 and len(history["step"]) == live_config.steps // live_config.log_every
print("validation loss at the end below 0.34:", history["val_loss"][-1] < 0.34)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
both = {"training (mean of the last steps)": history["loss"], "validation (averaged weights)": history["val_loss"]}
curves(history["step"], both, left, xlabel="step", title="loss", ylim=(0.2, 1))
curves(history["step"][3:], {k: values[3:] for k, values in both.items()}, right, xlabel="step", title="closer")
right.get_legend().remove()

# %% [markdown]
# The curve has the shape that you will see in every diffusion run: a steep fall in the first hundred steps, then a long, nearly flat slope. It is on the flat part that the pictures get good. Note also that the training curve is less smooth than the validation curve, though each of its points is a mean over many steps. Validation uses the same pictures, the same times and the same noise at every call, so what changes is the network alone.
#
# And what does it draw? From pure noise, in twenty-five steps of DDIM (chapter 10; take it on loan here):

# %%
sampler = clip_x_0(live.eps_model(), live.schedule)
samples = ddim_sample(sampler, live.schedule, (179, 1, 8, 8), num_steps=25, generator=torch.Generator().manual_seed(3))
show_rows({"live network": samples[:12], "": samples[12:24], "real digits": val[:12]})
plt.show()

# %% [markdown]
# Most are digits at a glance; some are smudges or crossings of two. A minute earlier these weights were random numbers.
#
# ### How good? A distance with its floor
#
# "Looks good" is no number. A common one is the **Fréchet distance** (FID): push two sets of pictures through a classifier, take the 64 numbers before its last layer, and compare mean and covariance of the two sets. 0 would mean: same mean, same covariance. It is never 0, even for two sets of *real* pictures, for they are finite. So never quote it without $n$ and without that **floor**. Here $n=179$ on one side, the 1,438 training pictures on the other; and the ruler is the course's own classifier, so the numbers cannot be compared with anybody else's FID. Chapter 14 is about all this.

# %%
good = load_model(shipped("digits"))
good_sampler, generator = clip_x_0(good.eps_model(), good.schedule), torch.Generator().manual_seed(3)
better = ddim_sample(good_sampler, good.schedule, (179, 1, 8, 8), num_steps=25, generator=generator)
uniform = torch.rand(179, 1, 8, 8, generator=torch.Generator().manual_seed(4)) * 2 - 1
pictures = {"floor: real held-out": val, "shipped network": better, "live network": samples, "noise": uniform}
real_features = judge.features(images)
score = {name: frechet_distance(judge.features(x), real_features) for name, x in pictures.items()}
fig, ax = plt.subplots(figsize=(7, 2.2))
ax.barh(list(score), list(score.values()), color=[GREY, GREEN, BLUE, RED])
ax.set(title="Fréchet distance to 1,438 training digits, n = 179 each")
plt.show()

# %% [markdown]
# The numbers themselves, as measured in this run. Training on another machine ends in slightly other weights, so yours will differ by some tenths; the comparison below them must hold everywhere.

# %% tags=["nbval-ignore-output"]
for name, distance in score.items():
    print(f"{name:22s} {distance:5.1f}   (n = 179 against 1,438, 64 features)")

# %%
assert score["floor: real held-out"] < score["live network"] < score["noise"] / 4
recognised = judge(samples).softmax(1).max(1).values
confident = float((recognised > 0.5).float().mean())
assert confident > 0.65 and len(judge(samples).argmax(1).unique()) == 10
print("floor (real, held-out) < live network < a quarter of noise: True")
print("the classifier sees all ten digits, and is more than half sure of over 65 % of them: True")

# %% [markdown]
# The shipped network was trained by the same function for about nineteen times as long, with a smaller learning rate. It sits near the floor. (If a bar ends slightly below the floor, that is no miracle: the distance is measured to the *training* pictures, which the network has seen and the held-out digits have not.) So the live one is not limited by the method, only by its short training.

# %% [markdown]
# ## Why does the loss stop falling?
#
# This is what learners ask most. The loss went from about 1 to about 0.3, and there it stays. Is something broken? Can it reach 0?
#
# No, and here is why. At a given $x_t$ many pairs $(x_0,\varepsilon)$ are possible, and with them many values of $v$. Write $v=m+r$: $m=\mathbb E[v\mid x_t]$ is the mean over these possibilities, and the rest $r$ has mean 0. The network must give one answer $f$. Once $x_t$ is given, $m$ and $f$ are plain numbers and only $r$ is random. The expected square error:

# %% tags=["proof"]
r, m, f = sp.symbols("r m f", real=True)
derive("8.9", Expect((m + r - f) ** 2, r),
       ((m - f) ** 2 + 2 * (m - f) * Expect(r, r) + Expect(r**2, r), "expand the square; m and f are not random"),
       ((m - f) ** 2 + Expect(r**2, r), "r has mean 0"), given={Expect(r, r): 0})

# %% [markdown]
# The loss is **excess plus floor**. The excess $(m-f)^2$ can be trained away. The floor $\mathbb E[r^2]$, the variance of $v$ given $x_t$, cannot: it does not contain $f$. The proof does not tell how large the floor is. That depends on the data. For toy data chapter 06 computed it. For our 1,438 training digits we can compute it, too! If the data *are* these pictures and nothing else, the perfect denoiser is known in closed form (`FiniteData`): a weighted mean of all training pictures, each weighted by how well it explains $x_t$.
#
# So we compare four numbers at each noise level: network and perfect denoiser, each on training pictures and on held-out ones.

# %%
oracle = FiniteData(images).eps_model(schedule)
grid = [2, 10, 30, 60, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900, 980]


@torch.no_grad()
def loss_at(v_model, x_0, t):
    e = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))
    x = q_sample(schedule, x_0, t, e)
    return float((v_model(x, torch.full((len(x),), t)) - target(schedule, x_0, t, e, "v")).square().mean())


def oracle_v(x, t):
    return eps_to_v(schedule, x.double(), t, oracle(x.double(), t))


some = images[:179]  # as many as the held-out ones
by_time = {name: [loss_at(model, x, t) for t in grid] for name, (model, x) in {
    "network, training": (live.net, some), "network, held-out": (live.net, val),
    "perfect denoiser, training": (oracle_v, some), "perfect denoiser, held-out": (oracle_v, val)}.items()}

# %%
fig, ax = plt.subplots(figsize=(8, 3.4))
for (name, values), color in zip(by_time.items(), (BLUE, GREEN, ORANGE, RED), strict=True):
    ax.plot(grid, [max(value, 1e-5) for value in values], color=color, label=name)
ax.set(yscale="log", ylim=(1e-3, 1e2), xlabel="t", ylabel="mean square error of v", title="Loss by timestep")
ax.legend(fontsize=9)
at = {name: dict(zip(grid, values, strict=True)) for name, values in by_time.items()}
perfect, network, unseen = at["perfect denoiser, training"], at["network, training"], at["network, held-out"]
assert perfect[60] < 1e-3 < 0.3 < unseen[60] < 1 < at["perfect denoiser, held-out"][60]
assert perfect[800] > 0.2 and abs(unseen[800] / network[800] - 1) < 0.15 and network[800] / perfect[800] < 1.2

# %% [markdown]
# There is much in this figure.
#
# - **The floor is not 0** (orange): for $t$ above 500 even the perfect denoiser has a loss of 0.15 to 0.3, because the noise has hidden which digit it was. No training gets below it.
# - **The network reaches that floor for large $t$.** There all four curves lie together. What remains of the excess sits at small $t$, where strokes have to be placed exactly.
# - **At small $t$ the perfect denoiser on training data has loss 0.** It knows all 1,438 pictures by heart. With little noise it sees at once which one it is, and answers with that very picture.
# - **On held-out pictures the perfect denoiser is a disaster** (red): it insists that every picture is one of the 1,438. For $t=60$ its error is larger than that of a network that always answers 0.

# %%
floor = sum(by_time["perfect denoiser, training"]) / len(grid)
reached = sum(by_time["network, training"]) / len(grid)
assert 0.03 < floor < 0.2 < reached < 0.6
ratio = at["perfect denoiser, held-out"][60] / at["network, held-out"][60]
print("mean over these times: floor between 0.03 and 0.2, network above 0.2, so the excess is real:", floor < reached)
print("held-out, t = 60: the perfect denoiser's loss is over five times the network's:", ratio > 5)

# %% [markdown]
# ### Why is the perfect denoiser not what we want?
#
# Because what it generates are the training pictures, exactly. The cell samples 64 pictures with it, and 64 with our network, and measures the distance of each to the nearest training picture.

# %%
def nearest(x):
    distance, which = torch.cdist(x.flatten(1), images.flatten(1)).min(1)
    return distance, images[which]


x_T = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(5))
copies = ddim_sample(oracle, schedule, x_T=x_T, num_steps=50)
network_samples = ddim_sample(sampler, schedule, x_T=x_T, num_steps=50)
show_rows({"perfect denoiser": copies[:10], "its nearest": nearest(copies)[1][:10],
           "network": network_samples[:10], "its nearest ": nearest(network_samples)[1][:10]})
apart = {"copies": nearest(copies)[0], "network": nearest(network_samples)[0], "held-out": nearest(val)[0]}
assert float(apart["copies"].max()) < 1e-2 and float(apart["network"].min()) > 0.3 < float(apart["held-out"].mean())
print("perfect denoiser: every sample is a training picture:", float(apart["copies"].max()) < 1e-2)
print("network: no sample is; it is about as far from the data as a new real digit:",
      0.5 < float(apart["network"].mean() / apart["held-out"].mean()) < 2)

# %% [markdown]
# So the loss has two masters. Downwards to a point it means "better denoiser". Below that it would mean "better memory". A network that is trained for a limited time does not get as far as storing every picture. (This one has seven times as many weights as the data have pixels, so its size would not stop it.) It first finds what the pictures have in common: strokes, loops, slopes. That shortfall is what lets it draw new digits. The practical rule: watch the **held-out** loss. When training loss falls and held-out loss rises, the network has begun to memorise.
#
# > **Demolishing and rebuilding.** Noise demolishes a house brick by brick, and the network learns to rebuild. *Where it breaks:* a builder with the plans of 1,438 houses rebuilds one of these and calls it perfect. We want a builder who has understood houses.

# %% [markdown]
# ### How noisy is a single loss?
#
# One more reason why the curve seems to stand still: each batch has other times, and the loss depends strongly on $t$ (the figure above). The wobble hides a slow improvement. We measure the spread of the batch loss of *one fixed* network.

# %%
batch = TrainConfig(batch_size=64)
with torch.no_grad():
    drawn = [batch_noise(batch, images[:64], step) for step in range(20)]
    spread = torch.stack([diffusion_loss(live.net, schedule, images[:64], t, e, "v").mean() for t, e in drawn])
assert 0.005 < float(spread.std()) < 0.06
print("fixed network, 20 batches of 64: the loss wobbles by between 0.005 and 0.06 (standard deviation)")

# %% [markdown]
# That is as much as the validation loss falls over the last 150 steps of our run (about 0.02). So never judge by two single batches. Average, or use fixed times and fixed noise, as `validation_loss` does.

# %% [markdown]
# ## Which learning rate, which batch size?
#
# The two belong together. A small batch takes many steps with noisy gradients, a large one few steps with calm gradients. We let every run see the same 12,800 pictures, choose on the *validation* part, and repeat with two seeds. It takes ten minutes, so it was done beforehand, by `python benchmarks/ablations.py sweep`; this cell reads what it wrote.

# %%
import json
from pathlib import Path

sweep = json.loads(Path("../benchmarks/results/ablations-sweep.json").read_text())["runs"]
table = {}
for name, run in sweep.items():
    setting, seed = name.split(" | ")
    rate, size = (float(part.split()[1]) for part in setting.split(", "))
    table.setdefault((rate, int(size)), []).append(run["val"])
rates, batches = sorted({key[0] for key in table}), sorted({key[1] for key in table})
fig, ax = plt.subplots(figsize=(7, 3.2))
for size in batches:
    runs = torch.tensor([table[rate, size] for rate in rates])
    ax.errorbar(rates, runs.mean(1), yerr=runs.std(1), marker="o", capsize=4, label=f"batch {size}, {12_800 // size} steps")
ax.set(xscale="log", xlabel="highest learning rate", ylabel="validation loss", title="12,800 pictures, two seeds each")
ax.legend()
plt.show()

# %%
mean = {key: sum(runs) / len(runs) for key, runs in table.items()}
for size in batches:
    best = min(rates, key=lambda rate: mean[rate, size])
    print(f"batch {size:3d}: best of {len(rates)} rates {best:g}, validation loss {mean[best, size]:.3f}")
small_wins = min(mean[rate, 16] for rate in rates) < min(mean[rate, 64] for rate in rates) < min(mean[rate, 256] for rate in rates)
print("at an equal number of pictures the smaller batch wins:", small_wins)

# %% [markdown]
# Three things to see. Too small a rate is slow for every batch. Batch 16 gets a little worse again at 0.01, and batch 64 does not tell 0.003 from 0.01: calmer gradients seem to bear larger steps. Batch 256 does not go on in that direction. Fifty steps are not enough to recover from a wild start, and the largest rate fails outright. And at an *equal number of pictures* the small batch wins clearly, for it takes sixteen times as many steps as the large one. What the figure does not show is time: a graphics card computes a batch of 256 nearly as fast as one of 16, so there the large batch is cheap. Chapter 15 does that sum.
#
# ## What did each speed-up buy?
#
# One training step on MNIST, on one CPU core: a network with the widths of `mnist` at full resolution, switches turned on one after the other (`python benchmarks/speedups.py`; medians within one run). Ratios differ from machine to machine: this one has instructions for 16-bit numbers. Measure on yours before you believe any list, this one included.

# %%
buys = json.loads(Path("../benchmarks/results/speedups.json").read_text())
fig, ax = plt.subplots(figsize=(7, 2.4))
names = [row["switch"] for row in buys["rows"]]
ax.barh(names[::-1], [row["speedup"] for row in buys["rows"]][::-1])
ax.set(xlabel="pictures a second, as a multiple of the first", title=f"batch {buys['batch']}, {buys['threads']} thread, each with all those above it")
ax.axvline(1, color="grey", linewidth=1)
plt.show()
for row in buys["rows"]:
    print(f"{row['switch']:24} x {row['speedup']:.1f}")

# %% [markdown]
# The lesson is in the short bars. A special kernel, a fused optimiser and an average computed all at once are worth having on large networks and graphics cards; for one million weights on a CPU core nobody can measure them, because nearly all the time goes into convolutions. What helps is to make *those* cheaper: numbers of 16 bits (chapter 15 says what may go wrong), and a quarter of the positions. The last bar is another network, the one with 2×2 patches that the course uses, so it may only be judged by quality after equal time.
#
# ## How do I resume?
#
# Give the run a folder, `out=...`, and it saves there every `save_every` steps: weights, average, optimiser, step number. If the power fails, call `train` with the *same* configuration again. We test it the hard way: a power cut in step 14, a fresh start, and then each weight must equal that of a run without interruption, bit for bit.

# %%
engine = sys.modules["ddpm_course.train"]


def power_cut(config, x_0, step, size=None):
    if step == 13:
        raise KeyboardInterrupt("the power fails")
    return batch_noise(config, x_0, step, size)


with tempfile.TemporaryDirectory() as folder:
    saved = TrainConfig(net=small, steps=20, batch_size=32, warmup=5, save_every=10, out=folder)
    try:
        with mock.patch.object(engine, "batch_noise", power_cut):
            train(saved)
    except KeyboardInterrupt as stop:
        print(stop, "in step 14; ten steps are safe in the folder")
    resumed = train(saved)  # the same line again: goes on at step 11
    try:
        train(TrainConfig(net=small, steps=20, batch_size=32, warmup=5, lr=1e-3, out=folder))
    except CheckpointError as error:
        print("another lr in the same folder is refused:", "other settings (lr)" in str(error))
whole = train(TrainConfig(net=small, steps=20, batch_size=32, warmup=5))
pairs = zip(resumed.net.parameters(), whole.net.parameters(), strict=True)
print("resumed = uninterrupted, every bit:", all(torch.equal(a, b) for a, b in pairs))

# %% [markdown]
# Why does this work? Because of the random numbers as functions of (seed, step), and because the optimiser's memory is saved with the weights. Leave out either, and the runs part ways. On another machine, or with another number of threads, additions may be done in another order, and then "bit for bit" becomes "to a few digits".

# %%
pairs = zip(resumed.net.parameters(), whole.net.parameters(), strict=True)
assert all(torch.equal(a, b) for a, b in pairs) and resumed.history[-1]["val_loss"] == whole.history[-1]["val_loss"]

# %% [markdown]
# ## Can I use my own pictures?
#
# Yes. Where a data set's name may stand, the path of a folder may stand too: `train(TrainConfig(data="holiday/photos"))`. What has to be done to a picture is always the same, and it is short: lay transparent pixels (the fourth channel of RGBA) over a plain background, make it grey if the network is grey, crop to a square, shrink, scale. By hand:

# %%
def prepare(rgba, size=8):
    """One picture (H, W, 4), whole numbers 0..255 -> (1, 1, size, size) in [-1, 1]."""
    color, opacity = rgba[..., :3].float() / 255, rgba[..., 3:].float() / 255
    grey = (color * opacity + 1.0 * (1 - opacity)).mean(2)  # on white paper
    side = min(grey.shape)
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    square = grey[None, None, top : top + side, left : left + side]
    return check_images(1 - 2 * nn.functional.interpolate(square, (size, size), mode="area"))  # ink is +1 here


drawing = torch.zeros(60, 90, 4, dtype=torch.uint8)  # transparent, not square
drawing[8:52, 40:48, 3] = 255  # a black stroke: a one
mine = prepare(drawing)
assert int(judge(mine).argmax()) == 1
print("shape", tuple(mine.shape), " the classifier reads a", int(judge(mine).argmax()))

# %% [markdown]
# The package does the same for a whole folder, and takes care of what goes wrong silently elsewhere: a 16-bit grey file keeps its range, a photo that the camera marked as turned is turned, a file that cannot be read is named. Here is a folder as people have them: grey, colour with transparency, three shapes, one file too deep for 8 bits.

# %%
with tempfile.TemporaryDirectory() as photos:
    noise = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(noise.integers(0, 256, (30, 40), dtype=np.uint8)).save(f"{photos}/grey_{i}.png")
        Image.fromarray(noise.integers(0, 256, (50, 33, 4), dtype=np.uint8)).save(f"{photos}/see_through_{i}.png")
    Image.fromarray(np.full((32, 32), 65535, dtype=np.uint16)).save(f"{photos}/deep.png")  # 16 bits, white
    own = load(photos, image_size=16)
    few_steps = train(TrainConfig(data=photos, image_size=16, steps=2, batch_size=8, warmup=1))
everything = torch.cat([as_float(part.images) for part in own])
assert everything.shape == (25, 3, 16, 16) and int((everything == 1).flatten(1).all(1).sum()) == 1  # the deep one is white
print("25 files of three kinds ->", tuple(everything.shape), " trained:", few_steps.history[-1]["step"], "steps")

# %% [markdown]
# From the command line it is one line: `python -m ddpm_course train --data holiday/photos --image-size 32 --out runs/mine`. Subfolders become classes (`--classes`), `--flip` mirrors half of the pictures, and files that do not fit into memory are decoded while the network works. [From laptop to cluster](../docs/laptop_to_cluster.md) has the lines for one graphics card and for many.
#
# How many pictures do you need? There is no honest single number. With a few dozen, the network learns them by heart (see the perfect denoiser). The 1,438 digits here are few, and enough only because they are tiny and alike.

# %% [markdown]
# ## The test part, once
#
# All decisions are taken: architecture, steps, learning rate, decay. Now, and only now, we open the test part. One number, for the network that was chosen; whatever it is, we do not go back and turn a knob.

# %%
test_loss = validation_loss(live.net, schedule, data.test.images, "v")
assert abs(test_loss - history["val_loss"][-1]) < 0.05
print(f"test loss (n = {len(data.test.images)}), read once: within 0.05 of the validation loss: True")

# %% [markdown]
# The two agree, so we have not fitted the validation part noticeably.
#
# ### Play with it
#
# The slider sets the noise level $t$ of a training example. From top to bottom: $x_t$, the target $v$, the prediction of the shipped network, the clean picture that follows from its answer, and the true one. The title gives the loss at this $t$. Look for the place where the prediction turns from noise-like to digit-like. Without a running kernel, see the first figure and the loss by timestep.

# %%
def draw(t):
    x_0, e = val[:10], torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    x, wanted = q_sample(schedule, x_0, t, e), target(schedule, x_0, torch.full((10,), t), e, "v")
    with torch.no_grad():
        answer = good.net(x, torch.full((10,), t))
    pictures = {"x_t": x, "target v": wanted / 2, "prediction": answer / 2, "x_0_hat": v_to_x_0(schedule, x, t, answer)}
    show_rows(pictures | {"x_0": x_0}).suptitle(f"t = {t}, loss {float((answer - wanted).square().mean()):.2f}")


explore(draw, t=slider(1, 1000, 300, label="t"))

# %% [markdown]
# ## Common mistakes
#
# ### EMA 0.9999 from step 0 on a short run (M29)
#
# The wrong line is `ema = 0.9999 * ema + 0.0001 * weights` from the very first step. The number: after the 320 steps of the live run 97 % of the average is the random start. We build such averages for the live network, as mixtures of its weights with its own random start, and look at what they draw. The second row is a sibling of the mistake: an average that starts at *zero*. (The third row stands for its limit with another prediction: a network that answers 0 and means $x_0$.)

# %%
kept = 0.9999**live_config.steps
torch.manual_seed(live_config.seed)
random_start = UNet(live_config.net).state_dict()
zero_start = {name: 0 * w for name, w in random_start.items()}


def mixture(start):
    net = UNet(live_config.net).eval()
    net.load_state_dict({name: kept * w + (1 - kept) * live.net.state_dict()[name] for name, w in start.items()})
    return as_eps_model(net, schedule, "v")


x_T = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(7))
models = {"random start": mixture(random_start), "zero start, v": mixture(zero_start),
          "zero, x_0": as_eps_model(lambda x, t: 0 * x, schedule, "x_0"), "warm-up": live.eps_model()}
drawn = {}
for name, model in models.items():
    drawn[name] = ddim_sample(clip_x_0(model, schedule), schedule, x_T=x_T, num_steps=25)
show_rows(drawn)
plt.show()

# %% [markdown]
# Noise, noise, plain grey, digits. With a zero start the network answers 0 at every step. If it predicts $v$, the noise then passes through unchanged; if it predicts $x_0$, the answer 0 *is* a grey picture (which many viewers show as black, for they expect 0..1). The right line is `ema_of(net, decay)`, which warms the decay up, and a decay that suits the length of the run.

# %%
assert abs(0.9999**10_000 - 0.368) < 1e-3 and (kept > 0.95 or live_config.steps > 500)
assert ema_decay(0, 0.9999) == 0.1 and float(drawn["zero, x_0"].abs().max()) < 1e-3
averaged = ema_of(UNet(small), decay=0.99)  # the right line
print(f"share of the start: {0.9999**10_000:.0%} after 10,000 steps at 0.9999; after {live_config.steps} steps still {kept:.0%}")

# %% [markdown]
# ### Pictures in 0..255, or in [0, 1] (M31)
#
# Nothing crashes. In 0..255 the noise is far too weak, in $[0,1]$ it is too strong, and the network is asked questions that the schedule never meant. The number: the correlation of $x_t$ with $x_0$ at $t=500$. The package therefore looks at the range before it trains.

# %%
ranges = {"0..255": (images + 1) * 127.5, "[0, 1]": (images + 1) / 2, "[-1, 1]": images}
half = torch.full((len(images),), 500)
e = torch.randn(images.shape, generator=torch.Generator().manual_seed(8))
for name, wrong in ranges.items():
    both = torch.stack([wrong.flatten(), q_sample(schedule, wrong, half, e).flatten()])
    print(f"{name:8s} correlation of x_500 with x_0: {float(torch.corrcoef(both)[0, 1]):.2f}")
for wrong in (ranges["0..255"], ranges["[0, 1]"], ranges["0..255"].to(torch.uint8)):
    try:
        check_images(wrong)
    except DataError as error:
        print("refused:", error)
assert check_images(images) is images  # the right range passes

# %% [markdown]
# ### "Training is the diffusion process" (M17)
#
# The diffusion process has no parameters and is never trained. It is fixed by the schedule, and it only *makes examples*. What is trained is the network for the way back. Two numbers show it: the gradient that reaches the schedule (there is none), and the count of network calls per picture and step. It is one, not a thousand, for no chain is walked in training.

# %%
calls = []


def counting(x, t):
    calls.append(len(x))
    return live.net(x, t)


t_64, e_64 = batch_noise(batch, images[:64], 0)
before = q_sample(schedule, images[:64], t_64, e_64)
diffusion_loss(counting, schedule, images[:64], t_64, e_64, "v").mean()
assert torch.equal(before, q_sample(schedule, images[:64], t_64, e_64)) and not schedule.beta.requires_grad
print("network calls for a batch of 64 pictures:", len(calls), "; learnable numbers in the forward process: 0")

# %% [markdown]
# ### "The loss compares generated with real pictures" (M37)
#
# It compares the noise (or $v$) that *we* put in with the network's guess of it. A loss between generated and real pictures would not even be sensible. Which generated picture with which real one? Suppose we tried all pairs, with the mean square. Then a grey blur (the mean of all digits) would beat *real digits*:

# %%
blur = images.mean(0, keepdim=True)
sets = {"blur": blur, "real": val}
wrong = {name: float((x[:, None] - images[None, :300]).square().mean()) for name, x in sets.items()}
assert wrong["blur"] < 0.6 * wrong["real"]
print(f"'generated against real' prefers the blur: blur {wrong['blur']:.1f}, real held-out digits {wrong['real']:.1f}")

# %% [markdown]
# The denoising loss also has a mean as its best answer, but the mean *given $x_t$*, and in many small steps these means lead to single, sharp pictures. That is what the whole chain is for.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/08_train_student.ipynb), [with solutions](exercises/08_train_solution.ipynb).

# %% [markdown]
# **8.1 ★** A run uses EMA with $d=0.999$ and no warm-up. After how many steps has the share of the start fallen to 1 %? Give the number of steps, rounded up.

# %% [markdown] tags=["hint"]
# **Hint 8.1**
#
# Each step multiplies the share of the start by $d$.

# %% tags=["exercise"]
steps_needed = ...
check("8.1", steps_needed)

# %% tags=["solution"]
steps_needed, left = 0, 1.0
while left > 0.01:
    steps_needed, left = steps_needed + 1, left * 0.999
must_pass("8.1", steps_needed)

# %% [markdown]
# **8.2 ★★** Write the training target $v$ from $x_0$, $\varepsilon$ and $\bar\alpha_t$, all numbers.

# %% [markdown] tags=["hint"]
# **Hint 8.2**
#
# $x_t$ and $v$ are two directions at a right angle in the plane of $x_0$ and $\varepsilon$.

# %% tags=["exercise"]
def v_target(x_0, eps, alpha_bar):
    return ...


check("8.2", v_target)


# %% tags=["solution"]
def v_target(x_0, eps, alpha_bar):
    return alpha_bar**0.5 * eps - (1 - alpha_bar) ** 0.5 * x_0


must_pass("8.2", v_target)

# %% [markdown]
# **8.3 ★★** Clip a gradient (a tensor) to length `c`, as in (8.4). Mind short gradients: they must stay as they are.

# %% [markdown] tags=["hint"]
# **Hint 8.3**
#
# One factor for the whole tensor, so that its direction stays. It is never above 1.

# %% tags=["exercise"]
def clip(gradient, c):
    return ...


check("8.3", clip)


# %% tags=["solution"]
def clip(gradient, c):
    return gradient * min(1.0, c / max(float(gradient.norm()), 1e-12))


must_pass("8.3", clip)

# %% [markdown]
# **8.4 ★★★** The floor, exactly. Let the data be one number $x_0\sim\mathcal N(0,s^2)$. How small can the loss (8.1) get at a time with $\bar\alpha_t$? In words: what is the variance of $v$ given $x_t$? (Hint: $v$ and $x_t$ are both mixtures of the same two Gaussians. Check: for $s=1$ the answer is 1 at every $t$; no denoiser beats the answer 0.)

# %% [markdown] tags=["hint"]
# **Hint 8.4**
#
# Given $x_t$, the target $v$ is a known number minus $x_0/\sqrt{1-\bar\alpha_t}$. Two witnesses about $x_0$ (the data's law, and $x_t$) give its variance.

# %% tags=["exercise"]
def floor_of_v(alpha_bar, s):
    return ...


check("8.4", floor_of_v)


# %% tags=["solution"]
def floor_of_v(alpha_bar, s):
    return s**2 / (alpha_bar * s**2 + 1 - alpha_bar)  # Var(x_0 | x_t), divided by 1 - alpha_bar


must_pass("8.4", floor_of_v)

# %% [markdown]
# **8.5 ★★** A batch does not fit into memory, so it is cut into parts of different sizes. You know the mean loss of each part (`losses`) and its number of pictures (`sizes`). Write the mean loss of the whole batch.

# %% [markdown] tags=["hint"]
# **Hint 8.5**
#
# A part with twice as many pictures counts twice as much.

# %% tags=["exercise"]
def whole_loss(losses, sizes):
    return ...


check("8.5", whole_loss)


# %% tags=["solution"]
def whole_loss(losses, sizes):
    return sum(loss * n for loss, n in zip(losses, sizes, strict=True)) / sum(sizes)


must_pass("8.5", whole_loss)

# %% [markdown]
# **8.6 ★★★** How much does the EMA calm the weights? Suppose that near the end each step's weight is a fixed value plus independent noise of variance 1. The EMA starts at the fixed value, and each step does $e\leftarrow d\,e+(1-d)\,w$. What is the variance of the EMA after $n$ steps?

# %% [markdown] tags=["hint"]
# **Hint 8.6**
#
# Write one step for the variance: independent parts, so squares of factors. Either loop, or sum the geometric series with ratio $d^2$.

# %% tags=["exercise"]
def ema_variance(d, n):
    return ...


check("8.6", ema_variance)


# %% tags=["solution"]
def ema_variance(d, n):
    return (1 - d) * (1 - d ** (2 * n)) / (1 + d)  # (1-d)^2 times the sum of d^(2j), j < n


must_pass("8.6", ema_variance)

# %% [markdown] tags=["solution"]
# (For large $n$ it is $(1-d)/(1+d)$: with $d=0.999$ the variance falls to 1/1999.)

# %% [markdown]
# ## What comes next
#
# We have a trained network, and borrowed a sampler to look at it. Chapter 09 builds the sampler of the paper: Algorithm 2, a thousand small steps back from noise, three different choices of the noise that is added on the way, and the reason why the last step adds none.
