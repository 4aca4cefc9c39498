# %% [markdown]
# # 00 · The tour: from noise to digits in a few minutes
#
# **The question.** A computer program starts from a television screen full of static and turns it, step by step, into a handwritten digit that nobody ever wrote. How can that work? What is inside, and how much of it can be understood?
#
# **After this chapter you can**
#
# - destroy a picture with noise, and restore it as well as anybody possibly could;
# - draw new digits from two trained networks that come with the course, and check that they are new;
# - train and sample a complete diffusion model, 60 lines long, written out in this notebook;
# - find your way through the course, and use its exercises, proofs and sliders.
#
# *Needs:* some Python, and the idea of a mean and a variance. Everything else is explained where it appears. *Time:* about one and a half hours with the exercises. Running all cells takes less than a minute on two CPU cores; no graphics card and no network connection are needed.
#
# Run a cell with Shift+Enter. The first one loads the tools.

# %%
import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import FiniteData, clip_x_0, cosine_schedule, eps_to_x_0, load_model, q_sample, shipped
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits, mnist5k
from ddpm_course.plots import scatter_row, show_images, show_rows, style
from ddpm_course.proofs import Expect, agrees, bar_t, derive, equation, table_values, x_t
from ddpm_course.sampling import ddim_sample, ddim_step, ddpm_sample, ddpm_step, time_grid, trajectory

style()
schedule = cosine_schedule(T=1000)

# %% [markdown]
# The pictures in this chapter are real: 1,797 digits written by hand, scanned, and shrunk to 8×8 pixels. A pixel is a number between $-1$ (black) and $+1$ (white). The course uses 1,438 of them for training and keeps the rest aside, so that we can ask later whether something is *new*.
#
# ## Destroy
#
# Take a digit and mix noise into it. *Noise* here means: for each pixel, independently, a random number from the bell curve with mean 0 and variance 1. This bell curve is the standard Gaussian, written $\mathcal N(0,1)$. The amount of noise is set by a clock $t$ that runs from 1 to $T=1000$. Early on there is a little noise, at the end there is nothing else.

# %%
data = digits().train.images  # 1,438 pictures, each 1 x 8 x 8
picture = data[:12]
noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
rows = {f"t = {t}": q_sample(schedule, picture, t, noise) for t in (100, 300, 500, 700, 1000)}
show_rows({"data": picture} | rows)
plt.show()

# %% [markdown]
# The recipe behind `q_sample` is one line. Call the clean pixel $x_0$, the noise $\varepsilon$, and the pixel at time $t$ $x_t$. Then
#
# $$ x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1-\bar\alpha_t}\;\varepsilon, \qquad \varepsilon\sim\mathcal N(0,1) \tag{0.1, definition} $$
#
# The number $\bar\alpha_t$ (read "alpha bar") tells how much picture is left: for pixels of variance 1 it is the share of the variance that is still picture. It falls from nearly 1 at $t=1$ to nearly 0 at $t=1000$. The list of these numbers is called the *schedule*. Chapter 02 explains where the two square roots come from and why one may jump to any $t$ at once (Ho eq. 4; "Ho" is the paper by Ho, Jain and Abbeel of 2020 that this course follows).
#
# Is it really one line? Here it is without `q_sample`:

# %%
for t in (1, 500, 1000):
    share = float(schedule.alpha_bar[t])
    by_hand = share**0.5 * picture + (1 - share) ** 0.5 * noise
    torch.testing.assert_close(by_hand, q_sample(schedule, picture, t, noise), rtol=0, atol=1e-6)
    print(f"t = {t:4d}: alpha_bar = {share:.2f}")

# %% [markdown]
# > **An image to keep: demolishing and rebuilding.** To learn how houses are built, knock down many of them, very slowly, and film it. Anyone can demolish. But each pair of neighbouring frames, played backwards, shows one small step of building. Learn all the small steps, and you can start from a heap of rubble. *Where it breaks:* the rubble of a real house still fits only that house. Here the rubble is the same for all pictures, so the builder must *decide* on the way what it will become. And each frame of a film has one frame before it; a noisy picture may have come from many pictures.
#
# ## Restore
#
# Suppose somebody shows you a noisy digit, and tells you $t$. What is the best guess of the clean one? There is a situation in which this can be answered *exactly*. Suppose you know that the clean picture is one of the 1,438 training digits, each equally likely. Then go through all of them and ask how well each explains what you see. Some fit well, most hardly at all. Give each a weight, its probability given the noisy picture. The guess is the weighted mean.
#
# Why the mean, and not the most probable one? Because we measure a guess by its squared error, and the mean is what makes this smallest. Here is the reason, for one pixel. $x$ is the unknown clean pixel, random with those probabilities; $g$ is our guess, a number; $\mathbb E$ is the mean over $x$. (The equation was checked by a computer-algebra system before it was printed. Every numbered equation of this course that is not a definition is checked by machine first; the collapsed cell shows how.)

# %% tags=["proof"]
x, g = sp.symbols("x g", real=True)
mean_x = Expect(x, x)
derive("0.2", Expect((x - g) ** 2, x),
       (Expect(x**2, x) - 2 * g * mean_x + g**2, "multiply out; the guess is not random"),
       ((g - mean_x) ** 2 + (Expect(x**2, x) - mean_x**2), "add and subtract the squared mean"))

# %% [markdown]
# The last two terms do not contain $g$. The square before them is smallest when it is 0, which happens at $g=\mathbb E[x]$. So the best guess is the mean of what is possible. The proof does not say that this guess *looks* good. We shall see in a moment that it need not.
#
# Which weights? From here on $x_t$ is a whole picture, and $x^{(i)}$ is candidate number $i$. It explains the noisy picture if the noise that would be needed, $\varepsilon_i=(x_t-\sqrt{\bar\alpha_t}\,x^{(i)})/\sqrt{1-\bar\alpha_t}$, is likely under the bell curve. The density of the bell curve falls like $e^{-\varepsilon^2/2}$, pixel by pixel. Before we looked, all candidates were equally likely, and all other factors are the same for all of them. So the weight of candidate $i$ is $e^{-\lVert\varepsilon_i\rVert^2/2}$, divided by the sum of these over all candidates. In code that is a `softmax`. Five lines restore a digit:

# %%
def restore(x_t, t):
    """The best possible guess of the clean pictures, if they are among the training digits."""
    share = float(schedule.alpha_bar[t])
    needed = (x_t.flatten(1)[:, None] - share**0.5 * data.flatten(1)) / (1 - share) ** 0.5  # noise for each candidate
    weight = torch.softmax(-needed.double().square().sum(2) / 2, dim=1)  # (pictures, candidates)
    return (weight @ data.flatten(1).double()).reshape(x_t.shape).float(), weight


# %% [markdown]
# The package has the same thing under the name `FiniteData`. We call it the **oracle**, since no network can do better on these data. Like every model that this course hands to a sampler, it answers in terms of the *noise*: it gives $\mathbb E[\varepsilon\mid x_t]$, the mean of the noises $\varepsilon_i$ with the same weights. Does it matter whether one averages noises or pictures? No. Here it is for two candidates $a$ and $b$ with weights $w$ and $1-w$: on the left the noises are averaged and 0.1 is solved for the picture, on the right the pictures are averaged.

# %% tags=["proof"]
a, b, w = sp.symbols("a b w", real=True)
needed_noise = {name: (x_t - sp.sqrt(bar_t) * name) / sp.sqrt(1 - bar_t) for name in (a, b)}
mean_noise = w * needed_noise[a] + (1 - w) * needed_noise[b]
equation("0.3", (x_t - sp.sqrt(1 - bar_t) * mean_noise) / sp.sqrt(bar_t), w * a + (1 - w) * b)
two = FiniteData(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))  # one pixel that is either black or white
seen = torch.tensor([[0.2]], dtype=torch.float64)
guess = eps_to_x_0(schedule, seen, 600, two.eps_model(schedule)(seen, torch.tensor([600])))
share = schedule.alpha_bar[600]
needs = ((seen - share.sqrt() * seen.new_tensor([-1, 1])) / (1 - share).sqrt()).flatten()
weight_of_black = torch.softmax(-needs.square() / 2, dim=0)[0]
values = table_values(schedule, 600) | {a: -1, b: 1, w: float(weight_of_black), x_t: 0.2}
agrees(w * a + (1 - w) * b, values, guess)

# %% [markdown]
# The proof is for two candidates. With more it goes the same way, since the weights add up to 1; here the numbers must do. Now all 1,438 at once: five lines by hand against the package, at four times.

# %%
oracle = FiniteData(data).eps_model(schedule)
for t in (1, 2, 500, 1000):
    x_noisy = q_sample(schedule, picture, t, noise)
    theirs = eps_to_x_0(schedule, x_noisy.double(), t, oracle(x_noisy.double(), torch.full((12,), t)))
    torch.testing.assert_close(restore(x_noisy, t)[0].double(), theirs, rtol=0, atol=1e-3)
print("restored by hand = restored by the package: True")

# %%
restored = {"data": picture}
for t in (200, 400, 600, 900):
    x_noisy = q_sample(schedule, picture, t, noise)
    restored |= {f"t = {t}": x_noisy, f"restored {t}": restore(x_noisy, t)[0]}
show_rows(restored)
plt.show()

# %%
many, rng = data[:100], torch.Generator().manual_seed(8)
for t in (200, 400, 600, 900):
    weight = restore(q_sample(schedule, many, t, torch.randn(many.shape, generator=rng)), t)[1]
    right = float((weight.argmax(1) == torch.arange(100)).double().mean())
    print(f"t = {t}: the candidate with the largest weight is the right one for {right:.0%} of {len(many)} digits")

# %% [markdown]
# Look closely. At $t=200$ nearly every restoration is perfect, since only one training digit fits. At $t=400$ most are still right, though *you* could hardly read some of the noisy ones; a few are blends, and the sixth, a 9, has become a 3. At $t=600$ many candidates compete, and many restorations are blurred means of similar digits; some are another digit altogether. At $t=900$ all restorations look alike: a grey smear, close to the average of all digits. It is the best guess in the sense of squared error, and it looks like no digit at all.
#
# That is the central difficulty. **One big step from noise to picture gives a blur.** The way out is to take many small steps, and to let chance decide a little at each.
#
# ### Play with it
#
# Move the clock. Top: noisy digits, restored digits. Bottom: the weights of the five best candidates for the first digit. Watch for the time at which the candidates begin to compete. (In a viewer without a running kernel, look at the fixed pictures above; the weights are shown only here.)

# %%
from ddpm_course.widgets import choice, explore, slider


def draw(t, digit):
    chosen = data[digits().train.labels == digit][:8]
    x_noisy = q_sample(schedule, chosen, t, noise[:8])
    clean, weight = restore(x_noisy, t)
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(7, 4), height_ratios=[2, 1])
    show_images(torch.cat([x_noisy, clean]), 8, f"t = {t}: noisy (top), restored (bottom)", top)
    bottom.bar(range(5), weight[0].topk(5).values)
    bottom.set(ylim=(0, 1), xlabel="the five best candidates for the first digit", ylabel="weight")


explore(draw, t=slider(1, 1000, 350, label="t"), digit=choice(range(10), "digit"))

# %% [markdown]
# ## Walk back in small steps
#
# Start with pure noise at $t=1000$. Ask the oracle for its guess. Do not jump there; go back *one* tick of the clock in its direction, and add a little fresh noise. Ask again. After 1,000 such steps we are at $t=0$. This is called *sampling*, and this way of doing it is Algorithm 2 of Ho, the subject of chapter 09. We keep some pictures from the way.

# %%
rng = torch.Generator().manual_seed(1)
start = torch.randn(10, 1, 8, 8, generator=rng)


def one_tick(x_t, t, s):
    eps_hat = oracle(x_t, torch.full((len(x_t),), t))
    z = torch.randn(x_t.shape, generator=rng)
    return ddpm_step(schedule, x_t, eps_hat, t, s, z), eps_to_x_0(schedule, x_t, t, eps_hat)


film = {t: (x_now, guess) for t, x_now, guess in trajectory(one_tick, start, time_grid(1000, 1000))}
show_rows({f"t = {t}": film[t][0] for t in (1000, 800, 600, 400, 200, 0)} | {"its guess at 600": film[600][1]})
plt.show()

# %% [markdown]
# From the top down, static turns into digits. The bottom row shows what the oracle guessed at $t=600$: some are still blurs of several possibilities, others have nearly made up their mind. By $t=0$ chance has decided for one of them.
#
# Are these digits *new*? We look for the nearest training digit of each. The distance below is the root mean square over the pixels.

# %%
def nearest(x, known):
    """For each picture: the nearest among the known ones, and its distance per pixel (root mean square)."""
    distance, index = torch.cdist(x.flatten(1), known.flatten(1)).min(1)
    return known[index], distance / x[0].numel() ** 0.5


rng = torch.Generator().manual_seed(2)
drawn = ddpm_sample(oracle, schedule, shape=(10, 1, 8, 8), generator=rng)  # the same walk, in one call
twin, distance = nearest(drawn, data)
assert float(distance.max()) < 1e-3
print(f"drawn with the oracle: {len(drawn)} digits, exact copies of training digits: {int((distance < 1e-3).sum())}")

# %% [markdown]
# Every one is a copy. Of course: the oracle believes that the 1,438 training digits are the only pictures in the world. It is *perfect* on its data and useless as a generator. Remember this when you train: on a finite data set, the lowest possible training loss (the squared error of the guesses) belongs to a machine that memorises. What we want is a model that has seen the 1,438 digits and draws a 1,439th.
#
# ## Draw new digits
#
# So replace the oracle by a neural network: a function with adjustable numbers, tuned on the training digits to guess the noise in them. (These two guess a mixture of noise and picture, from which the noise follows: chapter 06.) Could it store the digits, as the oracle does? The first of our networks has 701,345 numbers, the training digits have 92,032 pixels: there would be room. But in a training of limited length a network first finds what the digits have in common (chapter 08). Whether it copies must be measured, and we do that below. We use two of the trained networks that come with the course. The first knows the 8×8 digits, the second 28×28 digits from the MNIST collection. We draw with 25 large steps in the place of 1,000 small ones (the method is called DDIM, chapter 10).

# %%
small = load_model(shipped("digits"))
model = clip_x_0(small.eps_model(), small.schedule)  # guesses are kept inside [-1, 1]
new = ddim_sample(model, small.schedule, shape=(12, 1, 8, 8), num_steps=25, generator=torch.Generator().manual_seed(3))
twin, distance = nearest(new, data)
show_rows({"drawn": new, "nearest in training": twin})
plt.show()

# %% [markdown]
# The upper row was drawn by the network. Below each digit is the training digit that is nearest to it. They resemble each other, since both are digits of the same kind, but they are not the same. How different should they be? As different as a *real* digit that the network never saw is from its nearest training digit. The course kept such digits aside. We call a digit a copy if it is nearer than 0.05.

# %%
_, fresh_distance = nearest(digits().val.images, data)
copies = int((distance < 0.05).sum())
assert copies == 0 and 0.5 < float(distance.mean() / fresh_distance.mean()) < 2
print(f"copies among the {len(new)} drawn: {copies}")
print(f"a real, unseen digit is {float(fresh_distance.mean()):.2f} away on average (n = {len(fresh_distance)})")
print("drawn digits are, on average, between half and twice as far away: True")

# %% [markdown]
# Now the larger digits: 784 pixels each, and a network with about a million adjustable numbers. Again, the nearest training digits stand below.

# %%
large = load_model(shipped("mnist"))
model_28 = clip_x_0(large.eps_model(), large.schedule)
rng = torch.Generator().manual_seed(4)
new_28 = ddim_sample(model_28, large.schedule, shape=(8, 1, 28, 28), num_steps=25, generator=rng)
twin_28, distance_28 = nearest(new_28, mnist5k().train.images)
assert float(distance_28.min()) > 0.1
show_rows({"drawn": new_28, "nearest in training": twin_28})
plt.show()

# %% [markdown]
# Most are digits; one or another may be not quite. These are small networks, trained on a CPU; chapters 07 to 10 build, train and sample such networks; chapter 14 says how to measure what "not quite" means.
#
# > **The black box and its parts.** From outside, a generator is a box: a button on one side, a picture on the other. Open it, and you find only four parts. A *schedule* that says how much noise belongs to each time. A *network* that looks at a noisy picture and guesses the noise. A *loss* that tells it how wrong it was, used in training, not in drawing. A *sampler* that asks the network many times and takes a small step after each answer. *Where it breaks:* a box suggests that the picture is somewhere inside, waiting. No finished picture lies in the network. It comes about on the way, from the noise that you put in and the chances that you add.

# %% [markdown]
# ## The whole DDPM in 60 lines
#
# Here is every part of it, in plain PyTorch, without this course's package. The data are points in the plane, in eight heaps on a ring. A point has two numbers where a picture has 64. The network is smaller and the chain shorter; the parts are the same. "DDPM" stands for *denoising diffusion probabilistic model*.
#
# The formulas are **on loan**: use them now, and the chapter named at the end of the line pays them back with a derivation. First the data, the schedule and the forward process.

# %%
import math

import torch
from torch import nn


def real_points(n):  # the data: eight heaps on a ring
    angle = torch.randint(8, (n,)) * math.pi / 4
    return 1.4 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(n, 2)  # chapter 01: Gaussian


T = 200
beta = torch.linspace(5e-4, 0.1, T)  # chapter 02: how much noise step t adds
alpha = 1 - beta  # chapter 02
alpha_bar = alpha.cumprod(0)  # chapter 02: share of signal left after t steps


def q(x_0, t, eps):  # chapter 02: jump from clean to time t; t counts 1..T, a list counts from 0
    share = alpha_bar[t - 1][:, None]
    return share.sqrt() * x_0 + (1 - share).sqrt() * eps


# %% [markdown]
# Next the network. It gets a noisy point and the time, and answers with a guess of the noise, which is again two numbers. The time enters as a handful of waves (sines and cosines of several frequencies), since a network digests many numbers between $-1$ and $1$ better than a single one between 1 and 200. The point enters as itself and as waves, so that small differences count. The comment `(B, 8)` gives a shape: $B$ points in a batch, 8 numbers each.

# %%
class Net(nn.Module):  # chapter 07: for pictures this becomes a U-Net
    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 2 * (8 + 6), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x_t, t):
        of_t = t[:, None] / T * math.pi * 2.0 ** torch.arange(-1, 7)  # chapter 07: time embedding, (B, 8)
        of_x = torch.cat([x_t * math.pi / 2, x_t * math.pi, x_t * math.pi * 2], dim=1)  # waves of the point: small differences count, (B, 6)
        waves = torch.cat([of_t, of_x], dim=1)
        return self.layers(torch.cat([x_t, waves.sin(), waves.cos()], dim=1))  # chapter 06: why it predicts eps


# %% [markdown]
# Training is Algorithm 1 of the paper. Draw data, draw a time, draw noise; mix; let the network guess the noise; make the squared error a little smaller. Nothing is generated during training.

# %%
torch.manual_seed(0)
net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2000)  # chapter 08: smaller steps towards the end
losses = []
for _ in range(2000):
    x_0, t, eps = real_points(256), torch.randint(1, T + 1, (256,)), torch.randn(256, 2)  # chapter 08: Algorithm 1
    loss = (net(q(x_0, t, eps), t) - eps).square().mean()  # chapters 05 and 06: why this is (nearly) the bound
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()
    losses.append(loss.item())

# %% [markdown]
# Sampling is Algorithm 2. Start from pure noise. At each time, ask the network, step to the mean that its answer implies, and add fresh noise, except at the very last step.

# %%
@torch.no_grad()
def sample(net, n):
    x = torch.randn(n, 2)  # chapter 02: at t = T nothing but noise is left
    path = [x]
    for t in range(T, 0, -1):  # chapter 09: Algorithm 2
        a, b, bar = alpha[t - 1], beta[t - 1], alpha_bar[t - 1]
        eps_hat = net(x, torch.full((n,), t))
        x = (x - b / (1 - bar).sqrt() * eps_hat) / a.sqrt()  # chapters 03 and 06: the mean of the reverse step
        if t > 1:
            x = x + b.sqrt() * torch.randn(n, 2)  # chapters 03 and 09: its variance
        path.append(x)
    return torch.stack(path)  # (T + 1, n, 2)


path = sample(net, 1000)

# %% [markdown]
# That was all. Does it work? Six pictures along the way, and two tests at the end.

# %%
moments = {("t = T" if k == 0 else f"t = {T - k}"): path[k] for k in (0, 100, 150, 180, 200)}
scatter_row(moments | {"real points": real_points(1000)})
plt.show()

# %%
corner = torch.arange(8) * math.pi / 4
centres = 1.4 * torch.stack([corner.cos(), corner.sin()], dim=1)
distance, heap = torch.cdist(path[-1], centres).min(1)
inside, per_heap = float((distance < 0.4).float().mean()), torch.bincount(heap[distance < 0.4], minlength=8)
assert inside > 0.9 and int(per_heap.min()) >= 60
print(f"more than 90 % of the samples lie within 0.4 of a heap's centre: {inside > 0.9}")
print(f"each of the eight heaps has at least 60 of the 1,000 samples (125 would be fair): {int(per_heap.min()) >= 60}")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4))
left.plot(torch.tensor(losses).unfold(0, 50, 50).mean(1))
left.set(title="training loss (mean of 50 steps)", xlabel="steps / 50", ylim=(0, 1))
right.scatter(*path[-1].T, s=2, color="lightgrey")
for k in range(12):
    right.plot(*path[T // 2 :, k].T, linewidth=0.7)
right.plot(*path[-1, :12].T, "k.")
right.set(aspect="equal", title="12 paths, the second half of the way", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Left: the loss falls fast and then stays well above 0. That is *not* a failure. No one can guess noise exactly from the sum of noise and data; chapter 06 computes how low the loss can get. Right: each thin line is one point on the second half of its way, each black dot is where it ended, the grey points are all other samples. A point wanders, since fresh noise is added at each step, and near the end it settles in a heap. Some end between two heaps, fewer than one in ten. Is that the sampler's fault? The cell below puts the exact guess in the network's place. For heaps it is a formula (`GaussianMixture` in the package). The sampler is the same.

# %%
def exact_guess(x, t):  # the exact mean of the noise: as for the digits, but every candidate is a heap (chapter 01)
    bar = alpha_bar[t[0] - 1]
    gap, var = x[:, None] - bar.sqrt() * centres, bar * 0.1**2 + 1 - bar
    weight = torch.softmax(-gap.square().sum(2) / (2 * var), dim=1)  # of the eight heaps
    return (1 - bar).sqrt() / var * (weight[:, :, None] * gap).sum(1)


perfect = sample(exact_guess, 1000)[-1]
outside = float((torch.cdist(perfect, centres).min(1).values > 0.4).float().mean())
print(f"with the exact guess, fewer than 1 % end outside: {outside < 0.01}")
assert outside < 0.01

# %% [markdown]
# So it was the network: its errors put the others between the heaps.
#
# Pictures need a larger network and more time. The program stays the same.

# %% [markdown]
# ## The map of the course
#
# The hours include the exercises. Together they are about 67.
#
# | | chapter | answers | hours |
# |---|---|---|---:|
# | **Derive** | 00 tour | What is it, and does it work? | 1.5 |
# | | [01 gaussians](01_gaussians.ipynb) | What must I know about bell curves, expectations and chains? | 3.5 |
# | | [02 forward](02_forward.ipynb) | How does a picture become noise, in one step or in a thousand? | 2.5 |
# | | [03 posterior](03_posterior.ipynb) | Where was the chain one step ago, if I know where it started? | 3 |
# | | [04 one latent](04_one_latent.ipynb) | How does one train a model with a hidden variable? | 3 |
# | | [05 elbo](05_elbo.ipynb) | What is the bound that training improves, and what are its three parts? | 4 |
# | | [06 prediction](06_prediction.ipynb) | Why may a network predict the noise? How low can the loss get? | 3 |
# | **Build** | [07 unet](07_unet.ipynb) | Which network, and why each of its blocks? | 2.5 |
# | | [08 train](08_train.ipynb) | How is it trained? Live, on real digits | 2.5 |
# | | [09 sampling](09_sampling.ipynb) | How does one sample, and what does each line of a sampler do? | 3 |
# | | [10 ddim](10_ddim.ipynb) | How can the same network sample in few steps, and without chance? | 3 |
# | | [11 common mistakes](11_common_mistakes.ipynb) | Which line is wrong? | 3 |
# | **Trust** | [12 likelihood](12_likelihood.ipynb) | How many bits does a picture cost? | 4 |
# | | [13 score and ODE](13_score_and_ode.ipynb) | What if the steps become infinitely small? | 4 |
# | | [14 evaluation](14_evaluation.ipynb) | How good are the samples, and are they copies? | 3 |
# | | [15 scaling up](15_scaling_up.ipynb) | What changes on a graphics card, or on several? | 3.5 |
# | **Steer** | [16 classifier guidance](16_classifier_guidance.ipynb) | How does one ask for a seven? | 3 |
# | | [17 classifier-free](17_classifier_free.ipynb) | How does one ask without a classifier? | 3 |
# | | [18 text to image](18_text_to_image.ipynb) | How does a sentence become a picture? | 3 |
# | | [19 editing](19_editing.ipynb) | How are pictures repaired, enlarged and restyled? | 3 |
# | | [20 series](20_series.ipynb) | Does it work for curves and sound? | 3 |
# | | [21 latent diffusion](21_latent_diffusion.ipynb) | Why do the large models work on compressed pictures? | 2.5 |
#
# Not sure where you belong? [Ten questions](exercises/entry_quiz.ipynb) recommend a way in.
#
# **Two ways through.** The *straight path* is 00 → 01 → 02 → … → 21: derive first, build afterwards. The *code-first path* is 00 → 08 → 09 → 02 → 03 → 04 → 05 → 06: train and sample first, then find out why it worked. On that path take 01 along whenever a Gaussian bothers you, and 07 and 10 when you like.
#
# ## How to use these notebooks
#
# - **Change things.** Every number may be changed, every cell run again. Kernel → Restart brings a clean state.
# - **Exercises answer back.** Replace the three dots, run the cell, and `check` says "right!" or gives a hint that fits your mistake. A solution is in the collapsed cell below. Look at it after trying.
# - **Proof cells** are collapsed. Above the result stands what is proved, below it what is *not* proved. Open one to see how. A note such as "Proved by SymPy" tells what kind of evidence there is.
# - **Sliders** redraw when you release them. Near each there is a fixed picture for those who read on GitHub.
# - **Boxes** hold an image to keep, and always say where it breaks.
# - In a terminal: `make course` opens the notebooks, `make test` runs every test and every chapter, `make chapter NAME=02_forward` executes one chapter afresh, `make refresh` shows what changed in its outputs.
#
# A few words that will come back: *schedule* (how much noise at each time), *forward process* (destroying), *reverse process* (restoring, step by step), *oracle* (the best possible guesser, known exactly for some data), *to sample* (to draw something at random by a recipe), *loss* (how wrong the network is, on average).

# %% [markdown]
# ## Common mistakes
#
# Three ideas that sound right and are not. Guess the outcome before you run the cell. (The numbers with M are those of chapter 11, which collects all mistakes.)
#
# ### "One pass through the network is one picture" (M36)
#
# Many drawings show a network with noise on the left and a cat on the right. But one pass is one *denoising step*. What happens if we take the network's first guess for the picture?

# %%
start = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(5))
t_last = torch.full((12,), 1000)
one_pass = eps_to_x_0(small.schedule, start, 1000, model(start, t_last))  # the mistake
many = ddim_sample(model, small.schedule, x_T=start, num_steps=25)
spread_1, spread_25 = (float(x.std(0).mean()) for x in (one_pass, many))  # how much the twelve pictures differ
assert spread_1 < 0.5 * spread_25
print(f"twelve pictures after one pass differ less than half as much as after 25 passes: {spread_1 < 0.5 * spread_25}")
show_rows({"1 pass": one_pass, "25 passes": many})
plt.show()

# %% [markdown]
# One pass gives nearly the same smear twelve times, close to the mean of all digits, as the oracle did at $t=900$. The decisions fall on the way.
#
# ### "The network outputs the next, slightly cleaner picture" (M35)
#
# It outputs a guess of the noise (or something equivalent, chapter 06). From that guess a formula makes the *mean* of the next picture, and DDPM then draws the picture at random around it. (The DDIM step below leaves the chance out, chapter 10.) Let us take the output for the next picture:

# %%
wrong = right = start
grid = time_grid(1000, 50).tolist()
for t, s in zip(grid, grid[1:], strict=False):
    t_now = torch.full((12,), t)
    wrong = model(wrong, t_now)  # the mistake: the network's answer taken for x_s
    right = ddim_step(small.schedule, right, model(right, t_now), t, s)
far, near = float(nearest(wrong, data)[1].mean()), float(nearest(right, data)[1].mean())
assert far > 2 * near
print(f"the wrong loop ends at least twice as far from any digit as the right one: {far > 2 * near}")

# %% [markdown]
# ### Noise is added at the last step (M25)
#
# The sampler of the 60 lines says `if t > 1`. Without that line, the last thing that happens to every sample is that it gets noise of variance $\beta$. How much is that? It depends on the size of the last step. We let the oracle draw digits in 20 large steps, add this noise by hand, and measure how far from a clean digit each version ends. (The variance that `ddpm_sample` uses by default is 0 at the last step, so there the slip would do nothing; chapter 09 has both.)

# %%
clean = ddpm_sample(oracle, schedule, shape=(10, 1, 8, 8), num_steps=20, generator=torch.Generator().manual_seed(6))
last_beta = 1 - float(schedule.alpha_bar[50])  # the last of 20 steps goes from t = 50 to 0
grainy = clean + last_beta**0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))  # the mistake
right, wrong = float(nearest(clean, data)[1].max()), float(nearest(grainy, data)[1].mean())
fine_beta = 1 - float(schedule.alpha_bar[1])  # the last of 1,000 steps
print(f"standard deviation of the last noise: {last_beta**0.5:.2f} with 20 steps, {fine_beta**0.5:.3f} with 1,000 (black to white is 2)")
print(f"distance to the nearest digit: right below 0.001: {right < 1e-3}, with noise at the end {wrong:.2f}")
assert right < 1e-3 and abs(wrong / last_beta**0.5 - 1) < 0.1
show_rows({"right": clean, "noise at the end": grainy})
plt.show()

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/00_tour_student.ipynb), [with solutions](exercises/00_tour_solution.ipynb).

# %% [markdown]
# **0.1 ★** A pixel is white, $x_0=1$. The noise is $\varepsilon=-0.5$ and $\bar\alpha_t=0.36$. What is $x_t$?

# %% [markdown] tags=["hint"]
# **Hint 0.1**
#
# Equation (0.1), with $\sqrt{0.36}=0.6$ for the picture. Which root belongs to the noise?

# %% tags=["exercise"]
noisy_pixel = ...
check("0.1", noisy_pixel)

# %% tags=["solution"]
noisy_pixel = 0.36**0.5 * 1 + (1 - 0.36) ** 0.5 * (-0.5)
must_pass("0.1", noisy_pixel)

# %% [markdown]
# **0.2 ★** Given a noisy pixel, the clean one is black ($-1$) with probability 0.2 and white ($+1$) with probability 0.8. What is the oracle's guess of the clean pixel?

# %% [markdown] tags=["hint"]
# **Hint 0.2**
#
# What makes the squared error smallest? Equation (0.2) says it.

# %% tags=["exercise"]
best_guess = ...
check("0.2", best_guess)

# %% tags=["solution"]
best_guess = 0.2 * (-1) + 0.8 * 1  # the mean: not a possible pixel, but the smallest squared error
must_pass("0.2", best_guess)

# %% [markdown]
# **0.3 ★★** You draw 16 pictures together, as one batch, with a sampler of 25 steps. How many times is the network called?

# %% [markdown] tags=["hint"]
# **Hint 0.3**
#
# The network takes a whole batch at once, and answers for one time.

# %% tags=["exercise"]
calls = ...
check("0.3", calls)

# %% tags=["solution"]
calls = 25  # one call a step, for the whole batch at once
must_pass("0.3", calls)

# %% [markdown]
# **0.4 ★★★** A pixel is black or white with equal probability. At noise level $\bar\alpha$ you see $x_t$. Write the probability that it is *white*. (Compare $e^{-\varepsilon^2/2}$ for the two noises that would be needed.)

# %% [markdown] tags=["hint"]
# **Hint 0.4**
#
# White needs the noise $(x_t-\sqrt{\bar\alpha})/\sqrt{1-\bar\alpha}$, black the same with a plus. Each gets the weight $e^{-\varepsilon^2/2}$; divide one weight by the sum of both.

# %% tags=["exercise"]
def probability_of_white(x_t, alpha_bar):
    return ...


check("0.4", probability_of_white)


# %% tags=["solution"]
def probability_of_white(x_t, alpha_bar):
    likely = [math.exp(-((x_t - alpha_bar**0.5 * pixel) ** 2) / (2 * (1 - alpha_bar))) for pixel in (-1, 1)]
    return likely[1] / sum(likely)


must_pass("0.4", probability_of_white)

# %% [markdown]
# **0.5 ★★** The 60 lines train for 2,000 steps with 256 points a step, and draw each point's time evenly from $1,\dots,200$. How often, on average, is one particular time, say $t=70$, visited in the whole training?

# %% [markdown] tags=["hint"]
# **Hint 0.5**
#
# Does a point walk through the times, or does it get one? How many points does a training step handle?

# %% tags=["exercise"]
visits = ...
check("0.5", visits)

# %% tags=["solution"]
visits = 2000 * 256 / 200  # one time for each point of each batch
must_pass("0.5", visits)

# %% [markdown]
# ## What comes next
#
# You have seen it work, and you have used a dozen formulas on credit. Chapter 01 starts to pay them back, with the bell curve: what happens when it is scaled, added, and multiplied. If you would rather build first, go to chapter 08, train a network on real digits, and come back with questions.
