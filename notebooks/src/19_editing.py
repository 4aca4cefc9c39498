# %% [markdown]
# # 19 · Editing: hold on to what you have, draw the rest
#
# **The question.** So far we started from nothing but noise. Now we have *something*: a photograph with a hole, a thumbnail, a sketch, a digit that should be bolder. A network knows what pictures look like. How do we make it keep what we have, and draw only what is missing?
#
# **After this chapter you can**
#
# - fill holes with an unconditional network, and say why pasting the known pixels at every step is *not* conditioning on them;
# - compute exactly how far RePaint is off, and what each trip back up in time buys;
# - enlarge a picture four times, and explain why the better-looking answer has the lower PSNR;
# - say how much of a picture survives at time $t$, and use that to edit with SDEdit;
# - make a thin digit bold by going up with one label and down with another, and say why its slant resists.
#
# *Needs:* chapters 09, 10 and 13; 17 for labels. *Time:* about three hours with the exercises.

# %%
import json
import math
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import (ExactGaussian, FiniteData, clip_x_0, ddim_invert, ddim_sample, ddpm_sample, ddpm_step, eps_to_score, eps_to_x_0,
                         linear_schedule, load_model, q_sample, q_step, shipped, time_grid)  # fmt: skip
from ddpm_course.checkpoint import load_classifier, load_tensors
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits, mnist5k
from ddpm_course.editing import (enlarge, image_to_image, inpaint, keep_known, low_pass, psnr, repaint_times, super_resolve, times_from,
                                 translate)  # fmt: skip
from ddpm_course.gaussian import normal_kl
from ddpm_course.guidance import batched_guidance
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, scatter, show_images, show_rows, style
from ddpm_course.posterior import reverse_variance
from ddpm_course.proofs import Expect, agrees, bar_t, derive, eps, equation, limit, mu, number, sigma, unit, z
from ddpm_course.strokes import StyleCells, slant, thickness

style()
plt.rcParams["figure.dpi"] = 64  # many pictures: a small file
schedule = linear_schedule(T=1000)
seeded = lambda k: torch.Generator().manual_seed(k)

# %% [markdown]
# ## Two places to take hold of a sampler
#
# A sampler repeats two things: ask the network, then take a step. Chapters 16 and 17 changed the *answer*. This one mostly changes the *state*: after the step $t\to s$ somebody overwrites a part of $x_s$, and the sampler goes on as if nothing had happened. In the package such an `edit` is a function $(x_s, s)\mapsto x_s$. No sampler needs a flag for it, and no network has to be trained.
#
# ## A picture with a hole
#
# Call the pixels that we have the *known* ones. The network wants its input at noise level $s$. So after every step put in the known pixels *with the noise of that time* (RePaint section 4.1; it is Ho eq. 4 for a part of the picture):
#
# $$ x_s^{\text{known}}\ \leftarrow\ \sqrt{\bar\alpha_s}\;x_0^{\text{known}}+\sqrt{1-\bar\alpha_s}\;\varepsilon,\qquad \varepsilon\ \text{fresh, and none at}\ s=0 \tag{19.1, definition} $$
#
# At the end the known pixels are exact. That was easy. But are the *others* right? What we want of them is a draw from
#
# $$ p\big(x_0^{\text{unknown}}\ \big|\ x_0^{\text{known}}\big) \tag{19.2, definition} $$
#
# "It looks good" cannot decide that. Data whose conditional law is known can. Take two pixels, each $\mathcal N(0,1)$, with correlation $\rho=0.8$. The first is known to be 1. Chapter 01 says what follows: the second is $\mathcal N(\rho,\,1-\rho^2)=\mathcal N(0.8,\,0.36)$. The oracle has this as `given(mask, values)`, and it is again a Gaussian. So it has an `eps_model` of its own: the **exact posterior score**, times $-\sqrt{1-\bar\alpha_t}$. Sample with that, and with (19.1):

# %%
RHO, KNOWN = 0.8, 1.0
pair = ExactGaussian(torch.zeros(2), torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64))
mask, known = torch.tensor([True, False]), torch.tensor([[KNOWN, 0.0]], dtype=torch.float64).expand(4000, 2)
conditioned = pair.given(mask, known[0])
by_score = ddpm_sample(conditioned.eps_model(schedule), schedule, (4000, 2), generator=seeded(0))
pasted = inpaint(pair.eps_model(schedule), schedule, known, mask, num_steps=1000, resamplings=1, generator=seeded(0))
error = 0.6 / 4000**0.5  # standard error of a mean of 4,000 draws
print(f"exact law of the unknown pixel: mean {float(conditioned.mean[1]):.1f}, variance {float(conditioned.cov[1, 1]):.2f}")
print("posterior score: mean within 3 standard errors", abs(float(by_score[:, 1].mean()) - 0.8) < 3 * error,
      " variance within 8 %", abs(float(by_score[:, 1].var()) / 0.36 - 1) < 0.08)
print(f"pasting (19.1):  mean {float(pasted[:, 1].mean()):.1f}, known pixel exact {bool((pasted[:, 0] == KNOWN).all())}")
assert abs(float(pasted[:, 1].mean()) - 0.5) < 0.035 and bool((pasted[:, 0] == KNOWN).all())

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2.7))
scatter(pair.sample(1500, seeded(1)), axes[0], "data, and the known pixel = 1", GREY, limit=3)
axes[0].axvline(KNOWN, color=ORANGE, linewidth=1.5)
for ax, (title, x, colour) in zip(axes[1:], (("posterior score", by_score, GREEN), ("pasting, 1,000 steps", pasted, RED)), strict=True):
    ax.hist(x[:, 1].numpy(), bins=50, range=(-2, 3), density=True, color=colour, alpha=0.5)
    line = torch.linspace(-2, 3, 200, dtype=torch.float64)
    ax.plot(line, torch.distributions.Normal(0.8, 0.6).log_prob(line).exp(), color="black", linewidth=1.2, label="exact")
    ax.set(title=title, xlabel="unknown pixel", yticks=[])
axes[1].legend(fontsize=8)
plt.show()

# %% [markdown]
# The posterior score is right. Pasting is not: the mean is 0.5 instead of 0.8, with a perfect network and a thousand steps. **Pasting is not conditioning.**
#
# ### What the unknown pixel sees
#
# Why? The network's answer for the unknown pixel is a score given the *noisy* known pixel that lies beside it. At time $t$ the two noisy pixels have variance 1 and correlation $\bar\alpha_t\rho$: each is scaled by $\sqrt{\bar\alpha_t}$, so their covariance shrinks, and the independent noise only fills the variances up to 1. Write $x^{\rm k}$ and $x^{\rm u}$ for them. The slope of the log density in the direction of the unknown one is

# %% tags=["proof"]
rho, c, size = unit(r"\rho"), sp.Symbol("c", real=True), sp.Symbol("r", positive=True)
x_k, x_u = sp.Symbol(r"x^{\mathrm{k}}", real=True), sp.Symbol(r"x^{\mathrm{u}}", real=True)
D = 1 - bar_t**2 * rho**2
log_density = -(x_k**2 - 2 * bar_t * rho * x_k * x_u + x_u**2) / (2 * D)  # up to a constant
pasted_score = lambda u, k: -(u - bar_t * rho * k) / D
equation("19.3", sp.Derivative(log_density, x_u), pasted_score(x_u, x_k))
point = torch.tensor([[0.9, -0.4]], dtype=torch.float64)
answer = eps_to_score(schedule, point, 300, pair.eps_model(schedule)(point, torch.tensor([300])))
agrees(pasted_score(x_u, x_k), {bar_t: schedule.at(300), rho: RHO, x_k: 0.9, x_u: -0.4}, answer[0, 1])

# %% [markdown]
# And the right one, that of the diffused conditional law: mean $\sqrt{\bar\alpha_t}\,\rho\,c$ for a known value $c$, variance $\bar\alpha_t(1-\rho^2)+1-\bar\alpha_t$.

# %% tags=["proof"]
right_score = -(x_u - sp.sqrt(bar_t) * rho * c) / (1 - bar_t * rho**2)
equation("19.4", (sp.sqrt(bar_t) * rho * c - x_u) / (bar_t * (1 - rho**2) + 1 - bar_t), right_score)
answer = eps_to_score(schedule, point, 300, conditioned.eps_model(schedule)(point, torch.tensor([300])))
agrees(right_score, {bar_t: schedule.at(300), rho: RHO, c: KNOWN, x_u: -0.4}, answer[0, 1])

# %% [markdown]
# The pasted pixel is $\sqrt{\bar\alpha_t}\,c$ on average. So (19.3) aims at $\bar\alpha_t\cdot\sqrt{\bar\alpha_t}\,\rho\,c$, and the right target is $\sqrt{\bar\alpha_t}\,\rho\,c$. **The target is too close to 0 by the factor $\bar\alpha_t$.** (The pull towards it is somewhat weaker, too: $1-\bar\alpha_t^2\rho^2$ stands below it, not $1-\bar\alpha_t\rho^2$.) The network was never told that the known pixel is certain. It sees a noisy pixel and trusts it as far as one trusts a noisy pixel. Later, when the noise is gone, the target is right, but by then most of the unknown pixel is settled.
#
# > **An image to keep.** Two painters share a canvas and a curtain hangs between them. One copies the known half, each time with fresh smudges. The other peeks through the smudges and fits her half to what she makes out. When the copy becomes sharp, her paint is dry. *Where the image breaks:* paint never gets wet again. In the next section it will.
#
# ### How far off, exactly
#
# Let the steps become small. Chapter 13's reverse SDE, with $\bar\alpha$ as the clock, is $dx=\big[\tfrac12x+\text{score}\big]\frac{d\bar\alpha}{\bar\alpha}+\sqrt{d\bar\alpha/\bar\alpha}\;dw$ (chapter 17 used it too). The smudges on the known pixel are fresh at each step. One step of length $h$ passes on a share of order $h$ of them, with variance of order $h^2$. There are $1/h$ steps, so in the limit nothing of the smudges is left and the known pixel acts through its mean $\sqrt{\bar\alpha}\,c$. The mean $m$ and the variance $V$ of the unknown pixel then obey two linear equations, and both have a closed solution: $m=\frac{1-\sqrt{1-\bar\alpha^2\rho^2}}{\rho\sqrt{\bar\alpha}}\,c$ and $V=(1-\bar\alpha^2\rho^2)\,\frac{\operatorname{artanh}(\bar\alpha\rho)}{\bar\alpha\rho}$. The check puts them in:

# %% tags=["proof"]
m, V = sp.Function("m", real=True)(bar_t), sp.Function("V", positive=True)(bar_t)
mean_of_pasting = c * (1 - sp.sqrt(D)) / (rho * sp.sqrt(bar_t))
variance_of_pasting = D * sp.atanh(bar_t * rho) / (bar_t * rho)
equation("19.5", sp.Derivative(m, bar_t), (m / 2 + pasted_score(m, sp.sqrt(bar_t) * c)) / bar_t, given={m: mean_of_pasting})
equation("19.6", sp.Derivative(V, bar_t), (1 + V - 2 * V / D) / bar_t, given={V: variance_of_pasting})

# %% [markdown]
# They start at $m=0$, $V=1$ for $\bar\alpha\to0$: pure noise. At $\bar\alpha=1$ pasting ends at
# $m=\frac{1-\sqrt{1-\rho^2}}{\rho}\,c$ instead of $\rho\,c$, and at $V=(1-\rho^2)\,\frac{\operatorname{artanh}\rho}{\rho}$ instead of $1-\rho^2$. For a weak correlation the first is $\tfrac12\rho\,c$: **pasting then passes on half of what the known pixel has to say**, and leaves too much spread. For $\rho=0.8$:

# %%
put = {bar_t: 1, rho: RHO, c: KNOWN}
for name, formula, measured, wanted in (("mean", mean_of_pasting, pasted[:, 1].mean(), 0.8), ("variance", variance_of_pasting, pasted[:, 1].var(), 0.36)):
    value = number(formula, put)
    print(f"{name}: exact {wanted:.2f}, pasting by the formula {value:.2f}; measured within 0.03 of the formula: {abs(float(measured) - value) < 0.03}")
agrees(mean_of_pasting, put, pasted[:, 1].mean(), tolerance=0.03)

# %% [markdown]
# ## Going back up
#
# RePaint's remedy (section 4.2): after a step down, go up again. The way up is the forward process, $q(x_t\mid x_s)$ of Ho eq. 2, for *all* pixels. Then step down again with the known pixels pasted anew. The paint is wet once more, and the unknown half gets another chance to fit. Walk every step down $r$ times in all, with $r-1$ ways up between, before moving on. ($r=1$ is pasting.)
#
# What does it do to the equation? A step down moves by $\big[\tfrac12x+\text{score}\big]$ times $d\bar\alpha/\bar\alpha$, a step up by $-\tfrac12x$ times the same, each with noise of that variance. So $r$ steps down and $r-1$ up come to

# %% tags=["proof"]
score = sp.Symbol(r"{\mathrm{score}}", real=True)
derive("19.7", size * (x_u / 2 + score) - (size - 1) * x_u / 2, (x_u / 2 + size * score, "all but one of the halves cancel"))

# %% [markdown]
# The pull is $r$ times as strong for the same progress, against noise of $2r-1$ units. With $r$ large the unknown pixel is always where the pull wants it, and near $\bar\alpha=1$ the target is right. How large must $r$ be? With $r$ visits the two equations read $\frac{dm}{d\bar\alpha}=\frac{m/2+r\,\mathrm{score}}{\bar\alpha}$ and $\frac{dV}{d\bar\alpha}=\frac{V+2r-1-2rV/(1-\bar\alpha^2\rho^2)}{\bar\alpha}$. The unknown pixel lags behind its target $\bar\alpha^{3/2}\rho\,c$ by (speed of the target minus the drift $\tfrac12x$)/(strength of the pull). At the end that is $(\tfrac32-\tfrac12)\rho\,c$ over $r/(1-\rho^2)$, a share $(1-\rho^2)/r$ of the mean. The variance, in the same way, is too large by a share $\rho^2/(2r)$. **The bias falls like $1/r$.**
#
# Now without any limit. Every step of RePaint is linear on Gaussian data: $x\mapsto Ax+b$ plus noise. So mean and covariance can be carried along exactly, with no sampling at all. (Right after pasting the two pixels are independent, since the pasted noise is fresh. So four numbers are enough.) `moments` asks the package's own step for $A$, and walks the package's own plan of times.

# %%
model, corners = pair.eps_model(schedule), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


@cache
def of_step(t, s):  # the mean of DDPM's step for the unknown pixel: shares of known and unknown pixel (b = 0); and its variance
    zero, of_known, of_unknown = ddpm_step(schedule, corners, model(corners, torch.full((3,), t)), t, s, torch.zeros_like(corners))[:, 1]
    return float(of_known - zero), float(of_unknown - zero), float(reverse_variance(schedule, t, s, "posterior"))


def moments(resamplings, jump=5, num_steps=250):  # of the unknown pixel, as shares of the exact mean and variance
    times = repaint_times(time_grid(1000, num_steps).tolist(), resamplings, jump)
    seen, doubt, mean, var = 0.0, 1.0, 0.0, 1.0  # mean and variance of the known pixel, then of the unknown one
    for t, s in zip(times, times[1:], strict=False):
        if s < t:
            of_known, of_unknown, beta = of_step(t, s)
            mean, var = of_known * seen + of_unknown * mean, of_known**2 * doubt + of_unknown**2 * var + beta
            seen, doubt = schedule.at(s) ** 0.5 * KNOWN, 1 - schedule.at(s)  # (19.1): fresh, so independent of all else
        else:
            alpha = schedule.at(s) / schedule.at(t)
            seen, doubt, mean, var = alpha**0.5 * seen, alpha * doubt + 1 - alpha, alpha**0.5 * mean, alpha * var + 1 - alpha
    return mean / (RHO * KNOWN), var / (1 - RHO**2)

# %% [markdown]
# Both equations are linear, so the limit of small steps is an integral for each $r$: $\;\frac{m}{\rho\,c}=r\,(1-\rho^2)^{r/2}\int_0^1\bar\alpha^{\,r}\,(1-\bar\alpha^2\rho^2)^{-1-r/2}\,d\bar\alpha$ and $\frac{V}{1-\rho^2}=(2r-1)(1-\rho^2)^{r-1}\int_0^1\bar\alpha^{2r-2}\,(1-\bar\alpha^2\rho^2)^{-r}\,d\bar\alpha$.

# %%
u = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000  # midpoints of (0, 1)


def small_steps(r):  # shares of the exact mean and variance, for infinitely many steps
    share = r * (1 - RHO**2) ** (r / 2) * (u**r * (1 - u**2 * RHO**2) ** (-1 - r / 2)).mean()
    spread = (2 * r - 1) * (1 - RHO**2) ** (r - 1) * (u ** (2 * r - 2) * (1 - u**2 * RHO**2) ** (-r)).mean()
    return float(share), float(spread)


agrees(mean_of_pasting / (rho * c), put, small_steps(1)[0], tolerance=1e-6)
agrees(variance_of_pasting / (1 - rho**2), put, small_steps(1)[1], tolerance=1e-6)
lag, excess = sp.Symbol(r"{r\,(1-\frac{m}{\rho c})}"), sp.Symbol(r"{r\,(\frac{V}{1-\rho^2}-1)}")
R = (8, 16, 32, 64)
limit("19.8", lag, 1 - rho**2, sizes=R, order=1, measured=[r * (1 - small_steps(r)[0]) for r in R], values={rho: RHO})
limit("19.9", excess, rho**2 / 2, sizes=R, order=1, measured=[r * (small_steps(r)[1] - 1) for r in R], values={rho: RHO})

# %%
R = (1, 2, 3, 5, 10, 20, 50)
lines = {"S = 250, stretches of 5": (250, 5), "S = 250, stretches of 25": (250, 25), "S = 1000, stretches of 5": (1000, 5)}
found = {name: [moments(r, jump, S) for r in R] for name, (S, jump) in lines.items()}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
for k, (ax, title) in enumerate(zip(axes, ("mean / exact mean", "variance / exact variance"), strict=True)):
    ax.plot(R, [small_steps(r)[k] for r in R], color="black", linewidth=1.2, label="infinitely many steps")
    for (name, values), colour in zip(found.items(), (BLUE, ORANGE, GREEN), strict=True):
        ax.plot(R, [value[k] for value in values], "o--", color=colour, markersize=5, linewidth=1, label=name)
    ax.axhline(1, color=GREY, linewidth=1)
    ax.set(xscale="log", xticks=R, xticklabels=R, xlabel="resamplings r", title=title)
    ax.minorticks_off()
axes[0].legend(fontsize=8)
plt.show()
mean, variance = moments(20)
print(f"S = 250, r = 20: mean off by {abs(mean - 1):.0%} (at most 5 %: {abs(mean - 1) < 0.05}), "
      f"variance off by {abs(variance - 1):.0%} (at most 20 %: {abs(variance - 1) < 0.2})")
assert abs(mean - 1) < 0.05 and abs(variance - 1) < 0.2

# %% [markdown]
# Read both panels.
#
# - **The mean** follows the black line. Each doubling of $r$ about halves the bias. It never vanishes.
# - **Long stretches stop helping** (orange). RePaint goes up and down in stretches of several steps at once. The last stretch, which ends at $t=0$, is walked once: nothing may be noised after the end. With 25 steps of 250 in it, the last tenth of the way is plain pasting.
# - **The variance falls too low.** The black line does not. DDPM's $\tilde\beta$ is a little too small for a step of finite length (chapter 12), and $r$ visits make the same mistake $r$ times. So $r=50$ in 250 steps is *worse* in the variance than $r=10$. More steps mend it (green).
#
# None of this used a random number. To be sure that `moments` describes the real sampler, draw 4,000 samples once:

# %%
x = inpaint(model, schedule, known, mask, num_steps=250, resamplings=5, jump=5, generator=seeded(2))[:, 1]
mean, variance = moments(5)
print("4,000 draws with r = 5: mean within 4 standard errors", abs(float(x.mean()) - RHO * mean) < 4 * error,
      " variance within 9 %", abs(float(x.var()) / (0.36 * variance) - 1) < 0.09)
assert abs(float(x.mean()) - RHO * mean) < 4 * error and abs(float(x.var()) / (0.36 * variance) - 1) < 0.09

# %% [markdown]
# ### By hand
#
# All of RePaint, for stretches of one step (RePaint Algorithm 1):

# %%
def my_repaint(model, known, mask, num_steps, resamplings, generator):
    noise = lambda: torch.randn(known.shape, generator=generator, dtype=known.dtype)
    grid, x = time_grid(1000, num_steps).tolist(), noise()
    for t, s in zip(grid, grid[1:], strict=False):
        for visit in range(resamplings if s > 0 else 1):
            if visit > 0:
                x = q_step(schedule, x, t, noise(), s=s)  # up again, all pixels
            x = ddpm_step(schedule, x, model(x, torch.full((len(x),), t)), t, s, noise() if s > 0 else None)
            x = torch.where(mask, q_sample(schedule, known, s, noise()) if s > 0 else known, x)
    return x


mine = my_repaint(model, known[:50], mask, 20, 3, seeded(3))
package = inpaint(model, schedule, known[:50], mask, 20, resamplings=3, jump=1, generator=seeded(3))
torch.testing.assert_close(mine, package, rtol=1e-12, atol=1e-12)
print("RePaint by hand = package: True")

# %% [markdown]
# ## Half a digit
#
# Now the MNIST network of chapter 08. It was trained on whole digits and knows nothing of holes. The lower half is hidden. Four completions of each with pasting alone, and with five visits:

# %%
drawer, eyes, splits = load_model(shipped("mnist")), load_classifier("mnist"), mnist5k()
held_out, labels = (torch.cat(parts) for parts in zip(splits.val, splits.test, strict=True))
chain, draws_digits = drawer.schedule, clip_x_0(drawer.eps_model(), drawer.schedule)
upper = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
upper[:, :, :14] = True
chosen = torch.tensor([(labels == k).nonzero()[0, 0].item() for k in (2, 4, 5, 8)])
asked = held_out[chosen].repeat_interleave(4, dim=0)
plain = inpaint(draws_digits, chain, asked, upper, num_steps=50, resamplings=1, generator=seeded(4))
repainted = inpaint(draws_digits, chain, asked, upper, num_steps=50, resamplings=5, jump=5, generator=seeded(4))
show_rows({"known": torch.where(upper, asked, torch.tensor(-0.4)), "pasted": plain, "RePaint, r = 5": repainted})
plt.show()
print("known pixels exact:", torch.equal(plain[:, :, :14], asked[:, :, :14]), torch.equal(repainted[:, :, :14], asked[:, :, :14]))

# %% [markdown]
# Both keep the known pixels bit for bit. But look where the halves meet: pasted strokes miss each other, and some completions belong to another digit. One upper half may belong to several digits, so we cannot ask for *the* digit. What can be measured, over all 1,000 held-out digits (`benchmarks/editing_scores.py`): how often the classifier finds the digit that it was; the Fréchet distance of the results to the originals; and the jump in brightness across the border, which tells whether strokes meet.

# %%
report = json.loads(Path("../benchmarks/results/editing.json").read_text())
of_these = {name: load_tensors(shipped(name), "model")[1]["sha256"][:6] for name in ("mnist", "mnist-sr", "mnist-styles")}
print("measured on these weights:", all(report["weights"][name] == digest for name, digest in of_these.items()))
calls = {"real": "", "black": "", "r1": "100", "r2": "100 x 2", "r5": "100 x 5", "r10": "100 x 10", "slow": "1000"}
names = {"real": "original digits", "black": "lower half left black", "slow": "pasting, ten times the steps"}
print(f"{'n = ' + str(report['n']):30s} {'steps':>9} {'its digit':>10} {'distance':>9} {'border':>8}")
for key, steps in calls.items():
    row = report[f"inpaint {key}"]
    print(f"{names.get(key, 'visits: ' + key[1:]):30s} {steps:>9} {row['own_class'][0]:10.2f} {row['frechet_distance']:9.1f} {row['seam'][0]:8.3f}")

# %% [markdown]
# The last row settles a question: pasting with ten times the steps costs as many calls as ten visits, and hardly helps (0.64 as before). It was never the step size. The visits are what matters. With ten of them the strokes meet nearly as they do in real digits, and four of five completions are the digit that it was. Nobody can reach 98 % here: half a digit is often not enough to know. (The distances are small partly because half of each picture *is* the original.)
#
# ## Four times larger
#
# A 7×7 picture is given; each of its pixels is the average of 4×4 pixels of a 28×28 digit that we do not have. Super-resolution is a hole of another kind: known are 49 averages of 784 pixels. Many digits have these averages. What should the answer be?
#
# ### A draw or the mean?
#
# Look at one pixel. Given the averages, the true value is spread around a mean $\mu$ with standard deviation $\sigma$. One may answer with **a draw** from this law, or with its **mean**. How large is the expected square error of each? Truth and draw are independent of each other, $\mu+\sigma\varepsilon$ and $\mu+\sigma z$. Their common mean $\mu$ cancels:

# %% tags=["proof"]
n = sp.Symbol("n", positive=True)
derive("19.10", Expect((mu + sigma * eps - (mu + sigma * z)) ** 2, eps, z),
       (Expect((sigma * (eps - z)) ** 2, eps, z), "take σ out"), (2 * sigma**2, "two independent variances add up"))
equation("19.11", Expect((mu + sigma * eps - mu) ** 2, eps), sigma**2)

# %% [markdown]
# **A perfect draw has exactly twice the error of the mean.** That is 3 dB of PSNR, and it says nothing against the draw: the truth itself is only one draw. The mean of $n$ independent draws lies in between. Its own spread is $\sigma/\sqrt n$:

# %% tags=["proof"]
equation("19.12", Expect((mu + sigma * eps - (mu + sigma * z / sp.sqrt(n))) ** 2, eps, z), sigma**2 * (1 + 1 / n))

# %% [markdown]
# Check it where the conditional law is known. A Gaussian with the mean and covariance of the 8×8 digits, and 2×2 averages given. Averages are not pixels, so `given` cannot take them as they are. But turn the axes so that 16 of the 64 are the averages and the rest is perpendicular to them. In the new axes the averages *are* coordinates.

# %%
train8 = digits().train.images.double()
law = ExactGaussian(train8.mean(0), torch.cov(train8.flatten(1).T) + 1e-3 * torch.eye(64))
averages = low_pass(torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8), 2).flatten(1)  # (64, 16): what each pixel adds to each average
turn = torch.linalg.qr(averages, mode="complete")[0]  # 64 new axes, the first 16 for the averages
turned, first = ExactGaussian(law.mean.flatten() @ turn, turn.T @ law.cov @ turn), torch.arange(64) < 16


def given_averages(x):  # the exact law of the turned picture, given its 2x2 averages
    return turned.given(first, x.flatten() @ turn)


def back(x):
    return (x @ turn.T).reshape(-1, 1, 8, 8)


# %% [markdown]
# The conditional mean moves with the averages, along a fixed matrix (`gain`). The spread around it is the same for all pictures. So one `given` serves 2,000 of them.

# %%
truth = law.sample(2000, seeded(5))
gain = torch.linalg.solve(turned.cov[first][:, first], turned.cov[first]).T
means = back(turned.mean + (truth.flatten(1) @ turn - turned.mean)[:, first] @ gain.T)
torch.testing.assert_close(back(given_averages(truth[7]).mean), means[7:8])
around = ExactGaussian(torch.zeros(64), given_averages(truth[7]).cov)
draws = torch.stack([means + back(around.sample(2000, seeded(k))) for k in range(4)])
torch.testing.assert_close(low_pass(draws[0], 2), low_pass(truth, 2), rtol=0, atol=1e-6)
square = lambda x: float((x - truth).square().mean())
of_one, of_four = square(draws) / square(means), square(draws.mean(0)) / square(means)
print(f"error of a draw / error of the mean: {of_one:.1f};  of the mean of four draws within 2 % of 1.25: {abs(of_four / 1.25 - 1) < 0.02}")
assert abs(of_one - 2) < 0.03 and abs(of_four / 1.25 - 1) < 0.02

# %% [markdown]
# ### Three ways to enlarge
#
# 1. **No network.** Repeat each pixel, or lay a smooth surface through them (bicubic).
# 2. **The unconditional network and an edit.** After each step, replace the block averages of $x_s$ by those of a noisy version of the small picture. It is pasting again, now for averages: `super_resolve`. No training. And by the first half of this chapter we know that it is not conditioning.
# 3. **A network that sees the small picture** (SR3 section 2). The small picture is enlarged by repetition and laid beside $x_t$ as a second channel. Nothing else changes: the loss is Ho's, so by chapter 06 the best answer is $\mathbb E[\varepsilon\mid x_t,\text{small picture}]$, which is $-\sqrt{1-\bar\alpha_t}$ times the score of the *conditional* law. So its samples are draws from (19.2), with the averages as what is known. The price: pairs to train on, and a network for this one task.
#
# The third is shipped as `mnist-sr`. It differs from the MNIST network in one convolution (a second input channel), and was trained on the same 4,000 digits, each in 25 positions. The condition is a function of the picture: `small_picture_condition(4)` is handed to `train`.

# %%
enlarger = load_model(shipped("mnist-sr"))
small = low_pass(held_out, 4)


def sr_draw(low, generator, steps=20):
    model = clip_x_0(enlarger.eps_model(condition=enlarge(low, 4)), enlarger.schedule)
    return ddim_sample(model, enlarger.schedule, (len(low), 1, 28, 28), num_steps=steps, generator=generator)


few = torch.cat([(labels == k).nonzero()[:1, 0] for k in (0, 2, 3, 4, 5, 6, 8, 9)])
several = torch.stack([sr_draw(small[few], seeded(k)) for k in range(6)])
by_edit = super_resolve(draws_digits, chain, small[few], 4, num_steps=50, generator=seeded(6))
show_rows({"given, 7x7": enlarge(small[few], 4), "bicubic": enlarge(small[few], 4, "bicubic").clamp(-1, 1), "edit": by_edit.clamp(-1, 1),
           "draw 1": several[0], "draw 2": several[1], "mean of 6": several.mean(0), "truth": held_out[few]})  # fmt: skip
plt.show()

# %% [markdown]
# Repeating and bicubic invent nothing, and show nothing. The edit draws strokes, with dirt where blocks were put right and the network had no time to clean up. The draws of the network are sharp, and differ where the small picture leaves a choice. Their mean is grey in just these places. Now all 1,000 held-out digits, with PSNR against the true picture and the opinion of the classifier that was shipped with the MNIST network:

# %%
ways = {"repeated": report["enlarge nearest"], "bicubic": report["enlarge bicubic"], "edit, no training": report["enlarge guided 1"],
        "edit, 5 visits": report["enlarge guided 5"], "network, one draw": report["resolved"]["mean of 1"],
        "network, mean of 4": report["resolved"]["mean of 4"], "draw, averages put right": report["resolved"]["averages put right"],
        "truth": report["enlarge truth"]}  # fmt: skip
print(f"{'n = ' + str(report['n']):26s} {'PSNR, dB':>14} {'its digit':>16} {'averages off by':>16}")
for name, row in ways.items():
    decibels = "" if name == "truth" else f"{row['psnr'][0]:.1f} ± {row['psnr'][1]:.1f}"
    print(f"{name:26s} {decibels:>14} {row['own_class'][0]:9.2f} ± {row['own_class'][1]:.2f} {row['off_averages']:16.2f}")

# %%
mse = {k: report["resolved"][f"mean of {k}"]["mse"][0] for k in (1, 2, 4)}
best = (4 * mse[4] - mse[1]) / 3  # the mean of infinitely many: straight line in 1/n through both ends
fig, ax = plt.subplots(figsize=(5, 2.8))
ax.plot(list(mse), [v / best for v in mse.values()], "o", label=f"network, n = {report['n']}")
ax.plot(list(mse), [1 + 1 / k for k in mse], color=GREY, label="perfect draws: 1 + 1/n, (19.12)")
ax.set(xscale="log", xticks=list(mse), xticklabels=list(mse), xlabel="draws that are averaged", title="square error / that of the mean of infinitely many")
ax.minorticks_off()
ax.legend(fontsize=8)
plt.show()
apart = report["resolved"]["pair"]["mse"][0] / mse[1]
print(f"square distance of two draws / of a draw from the truth: {apart:.2f} (perfect draws: 1)")

# %%
some = held_out[:40]
here = psnr(sr_draw(small[:40], seeded(20)), some)
there = report["resolved"]["mean of 1"]["psnr"][0]
print("40 pictures, drawn again: PSNR within 4 standard errors of the table:", abs(float(here.mean()) - there) < 4 * float(here.std()) / 40**0.5)
surface = enlarge(small, 4, "bicubic").clamp(-1, 1)
reads = float((eyes(surface).argmax(1) == labels).float().mean())
print("bicubic, all pictures, the same to three digits:", abs(float(psnr(surface, held_out).mean()) / report["enlarge bicubic"]["psnr"][0] - 1) < 1e-3,
      abs(reads - report["enlarge bicubic"]["own_class"][0]) < 2e-3)

# %% [markdown]
# - **Bicubic beats repeated pixels in PSNR, and loses a quarter of the digits by it.** The classifier reads 35 % of the smooth pictures and 60 % of the blocky ones. The square error loves blur.
# - **The edit** of the unconditional network gains little PSNR over bicubic and more than doubles the digits. Five visits help it as they helped RePaint.
# - **The network that sees the small picture** wins in PSNR and in readable digits, with 20 calls instead of 100 or 500. A single draw is almost 6 dB above bicubic, and the classifier is nearly as sure as with the true pictures. That a draw loses to bicubic in PSNR, as is often reported of photographs, does not happen here: strokes on black are easy to guess.
# - **The mean** of four draws beats a single draw, as (19.12) demands: by 1.6 dB, where perfect draws would give 2.0. It is no more readable than a draw.
# - **Averages.** The network was never told that block averages must fit; it learned it, to about 0.02 of a range of 2. Putting them right afterwards (one `edit` at $s=0$) makes the error smaller still (0 but for clipping to $[-1,1]$) and changes little else.
# - **Are the draws as spread as they should be?** Not quite. A perfect network would lie on the line, and its draws would be as far from each other as from the truth. The points fall like $1/n$, too, but start 0.67 above 1 instead of 1: the variance of the draws is two thirds of the truth's mean square distance from their mean. A part of its own error the network does not know about, and 1,000 training steps are few.

# %% [markdown]
# ## How much is forgotten at time t
#
# The next tool needs no mask at all. Noise the whole picture up to time $t$, then sample down as usual (SDEdit section 3). What the noise has covered is drawn anew; what still shows through is kept. The one knob is $t$, or the *strength* $t/T$. How much shows through?
#
# Take two pictures, $x$ and $y$, and noise one of them. How well can $x_t$ still tell which it was? The evidence is the log ratio of the densities, for one pixel $\;\log\frac{q(x_t\mid x)}{q(x_t\mid y)}=\frac{(x_t-\sqrt{\bar\alpha_t}\,y)^2-(x_t-\sqrt{\bar\alpha_t}\,x)^2}{2\,(1-\bar\alpha_t)}$. On average over the noise it is a Kullback-Leibler divergence. Put in $x_t=\sqrt{\bar\alpha_t}\,x+\sqrt{1-\bar\alpha_t}\,\varepsilon$:

# %% tags=["proof"]
x, y = sp.symbols("x y", real=True)
seen = sp.sqrt(bar_t) * x + sp.sqrt(1 - bar_t) * eps
ratio = ((seen - sp.sqrt(bar_t) * y) ** 2 - (seen - sp.sqrt(bar_t) * x) ** 2) / (2 * (1 - bar_t))
gap_of_means = (sp.sqrt(bar_t) * (x - y) + sp.sqrt(1 - bar_t) * eps) ** 2 / (1 - bar_t)
derive("19.13", Expect(ratio, eps),
       (Expect((gap_of_means - eps**2) / 2, eps), "divide by 1 − ᾱ"), (bar_t * (x - y) ** 2 / (2 * (1 - bar_t)), "the noise has mean 0 and variance 1"))
bar = schedule.at(300)
nats = normal_kl(*(torch.tensor(v, dtype=torch.float64) for v in (bar**0.5 * 0.7, 1 - bar, bar**0.5 * -0.2, 1 - bar)))
agrees(bar_t * (x - y) ** 2 / (2 * (1 - bar_t)), {bar_t: bar, x: 0.7, y: -0.2}, nats)

# %% [markdown]
# So two pictures at distance $d$ (over all pixels) differ by $\tfrac12\,\mathrm{SNR}_t\,d^2$ nats. **The signal-to-noise ratio is a microscope with a dial.** Differences with $d^2$ far above $2/\mathrm{SNR}_t$ survive, smaller ones are forgotten. For MNIST, let $d$ be the distance from a digit to the nearest one *of another class*:

# %%
train_images, train_labels = splits.train
distance = torch.cdist(held_out[:300].flatten(1), train_images.flatten(1))
nearest_other = distance.masked_fill(labels[:300, None] == train_labels, torch.inf).min(1).values.median()
print(f"median distance to the nearest digit of another class: {float(nearest_other):.0f}")
for strength in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
    print(f"strength {strength}: {0.5 * float(chain.snr(round(1000 * strength))) * float(nearest_other) ** 2:6.1f} nats")

# %% [markdown]
# Half of the time axis changes nothing about the class: 84 nats are certainty. The class should go somewhere between strength 0.7 and 0.9, where 22 nats become 2. Finer traits go before it. Look:

# %%
five = torch.tensor([(labels == k).nonzero()[2, 0].item() for k in (0, 3, 4, 6, 7)])
strengths = (0.5, 0.7, 0.8, 0.9)
edits = {f"strength {s}": image_to_image(draws_digits, chain, held_out[five].repeat_interleave(2, 0), s, 25, generator=seeded(7)) for s in strengths}
show_rows({"input": held_out[five].repeat_interleave(2, 0)} | edits)
plt.show()

# %% [markdown]
# Two draws for each input. Now all held-out digits, three seeds. The grey line needs no network: it is what the *perfect* denoiser of the 4,000 training pictures would do (`FiniteData`), the probability that a draw from $p(x_0\mid x_t)$ has the input's class.

# %%
memory, S = FiniteData(train_images), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def kept_by_data(strength, n=100):
    t = times_from(chain, strength, 25)[0]
    noisy = q_sample(chain, held_out[:n], t, torch.randn(n, 1, 28, 28, generator=seeded(8)))
    share = memory.responsibilities(noisy, chain.at(t))  # p(training picture | x_t)
    return float((share * (train_labels == labels[:n, None])).sum(1).mean())


rows = {s: [report[f"sdedit {s} seed {k}"] for k in (0, 1, 2)] for s in S}
kept, moved = ({s: torch.tensor([run[key][0] for run in runs]) for s, runs in rows.items()} for key in ("own_class", "distance"))
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3))
for ax, values, title in ((left, kept, "class kept"), (right, moved, "distance to the input (per pixel)")):
    middle = torch.stack(list(values.values()))
    ax.errorbar(S, middle.mean(1), yerr=torch.stack([middle.mean(1) - middle.min(1).values, middle.max(1).values - middle.mean(1)]),
                marker="o", markersize=4, capsize=3, label="SDEdit, MNIST network, 3 seeds")  # fmt: skip
    ax.set(xlabel="strength", title=f"{title}, n = {report['n']}")
left.plot(S, [kept_by_data(s) for s in S], "--", color=GREY, label="4,000 training pictures, n = 100")
left.axhline(0.1, color=RED, linewidth=1, label="chance")
right.axhline(report["far apart"][0], color=GREY, linestyle="--", label="two unrelated digits")
left.legend(fontsize=8)
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# Up to half of the time axis the digit is safe, and the picture hardly moves. Then the class goes, between 0.6 and 0.9, where (19.13) leaves 44 and then 2 nats. The network follows the shape of the data's curve, about 0.1 above it all the way. At low noise the reason is plain: a perfect memoriser answers with the *nearest training picture*, and for about one digit in ten (of 100) that is one of another class. Here the imperfect denoiser is the better one, for the reason of chapter 14.
#
# ### Towards something
#
# Down again need not mean down with the same wish. Noise an 8×8 digit of class $y$, and go down with the class network of chapter 17 asked for class $y+1$:

# %%
by_class = load_model(shipped("digits-classes"))
eight, wanted_from = digits().val.images[:100], digits().val.labels[:100]
judge = load_classifier("digits")


def towards_next(strength, scale=2.0):
    asked_for = {"y": (wanted_from + 1) % 10}
    model = batched_guidance(by_class.net, by_class.schedule, asked_for, {"y": torch.tensor([10])}, scale, by_class.prediction)
    return image_to_image(clip_x_0(model, by_class.schedule), by_class.schedule, eight, strength, 15, generator=seeded(0))


levels = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
seen = {s: judge(towards_next(s)).argmax(1) for s in levels}
reached = [float((read == (wanted_from + 1) % 10).float().mean()) for read in seen.values()]
stayed = [float((read == wanted_from).float().mean()) for read in seen.values()]
fig, ax = plt.subplots(figsize=(5.5, 2.8))
for values, label in ((reached, "class asked for"), (stayed, "class of the input")):
    bars = [2 * (v * (1 - v) / len(eight)) ** 0.5 for v in values]
    ax.errorbar(levels, values, yerr=bars, marker="o", markersize=4, capsize=3, label=label)
ax.set(xlabel="strength", title=f"8x8 digits, scale 2, n = {len(eight)} (bars: 2 standard errors)")
ax.legend()
plt.show()

# %% [markdown]
# Between 0.3 and 0.4 the two lines cross; from 0.5 on the label has won. That is much earlier than above, for two reasons. 64 pixels are fewer than 784, so $d$ is smaller at the same SNR. And this network was told a label, with scale 2. A *perfect* one would give the class asked for at every strength, since $p(x_0\mid x_t,y)$ contains nothing else. Ours has never seen a hardly noisy 3 under the label 4, and there it keeps what it sees.
#
# ## Rewriting: up with one label, down with another
#
# SDEdit forgets at random. Could we change *only* the style, and keep all else? Chapter 10 found a path without noise. Go up it with a model of the source, and every picture arrives at a noise of its own. Go down from there with a model of the target. What is kept? On Gaussian data with mean $\mu$ and variance $v$ the DDIM path is known. With $\bar\alpha$ as the clock it obeys $dx/d\bar\alpha=(x+\text{score})/(2\bar\alpha)$ (chapter 17), here with the score of the Gaussian:

# %% tags=["proof"]
v_0, k = sp.Symbol("v", positive=True), sp.Symbol("k", real=True)
path = sp.Function("x", real=True)(bar_t)
gaussian = (sp.sqrt(bar_t) * mu - path) / (bar_t * v_0 + 1 - bar_t)
solution = sp.sqrt(bar_t) * mu + k * sp.sqrt(bar_t * v_0 + 1 - bar_t)
equation("19.14", sp.Derivative(path, bar_t), (path + gaussian) / (2 * bar_t), given={path: solution})

# %% [markdown]
# For every constant $k$ it is solved by $x_t=\sqrt{\bar\alpha_t}\,\mu+k\,\sqrt{\bar\alpha_t v+1-\bar\alpha_t}$, which the check puts in. Read it: at each time $x_t$ lies $k$ standard deviations from the mean of its law. **The path keeps the rank.** At $\bar\alpha=0$, $x_T=k$; at $\bar\alpha=1$, $k=(x-\mu)/\sqrt v$. Go down with another Gaussian, of mean $\mu'$ and variance $v'$, and the same $k$ comes out as

# %% tags=["proof"]
other_mean, other_var = sp.Symbol(r"\mu'", real=True), sp.Symbol("v'", positive=True)
arrival = solution.subs({bar_t: 1, mu: other_mean, v_0: other_var})
equation("19.15", arrival, other_mean + sp.sqrt(other_var / v_0) * (x - mu), given={k: (x - mu) / sp.sqrt(v_0)})

# %% [markdown]
# So the thinnest of the thin becomes the thinnest of the bold. It is the map that moves one law onto the other with the least motion. For real pictures nothing so clean is proved; expect it in spirit only. `translate` does it in one line. Its error has two sources. The steps up and down are of first order, which (19.16) measures there and back. And $\bar\alpha_T$ is not quite 0, so $x_T$ still carries $\sqrt{\bar\alpha_T}\,\mu$ where $\sqrt{\bar\alpha_T}\,\mu'$ is expected: about 0.01 here, for any number of steps.

# %%
thin, bold = (ExactGaussian(torch.tensor([[a]], dtype=torch.float64)[0], b * torch.eye(1)) for a, b in ((-1.0, 0.04), (2.0, 0.25)))
start = torch.tensor([[-0.7], [-1.1]], dtype=torch.float64)
by_formula = 2.0 + (0.25 / 0.04) ** 0.5 * (start + 1.0)
by_package = translate(thin.eps_model(schedule), bold.eps_model(schedule), schedule, start, 1000)
print("1,000 steps: within 0.03 of (19.15):", bool((by_package - by_formula).abs().max() < 0.03))
there_and_back, original = sp.Symbol(r"{\text{there and back}}(x)"), sp.Symbol("x", real=True)
sizes = (50, 100, 200, 400)
ends = [float(translate(thin.eps_model(schedule), thin.eps_model(schedule), schedule, start[:1], steps)) for steps in sizes]
limit("19.16", there_and_back, original, sizes=sizes, order=1, measured=ends, values={original: -0.7})

# %% [markdown]
# ### Thin and upright, bold and slanted
#
# What is "bold"? We need numbers that no network made up. `thickness` is twice the ink over the length of its outline: a stroke of length $L$ and width $w$ has ink $Lw$ and an outline of about $2L$. `slant` is an angle from second moments: the arctangent of minus the covariance of row and column over the variance of the row (rows count downwards). Both are split into thirds, *within each class* (a 1 is no bold 0). That makes nine styles, `StyleCells`.

# %%
cells = StyleCells(*splits.train)
styles = cells(held_out, labels)
show_rows({name: held_out[styles == k][:12] for name, k in (("thin, upright", 0), ("thin, slanted", 2), ("bold, upright", 6), ("bold, slanted", 8))})
plt.show()
print(f"mean thickness and slant: thin upright {float(thickness(held_out[styles == 0]).mean()):.1f} pixels, {float(slant(held_out[styles == 0]).mean()):.0f} degrees;  "
      f"bold slanted {float(thickness(held_out[styles == 8]).mean()):.1f} pixels, {float(slant(held_out[styles == 8]).mean()):.0f} degrees")

# %% [markdown]
# The network `mnist-styles` is that of chapter 08 with a table of 90 labels, ten digits times nine styles, and one for "none". It was not trained from nothing. It *began with the weights of* `mnist`, and with a table of zeros, so before its first step it was the old network for every label. While it learned, the row of a label was the sum of two vectors, one for the digit and one for the style: so each style was learned from a ninth of the pictures and not from a ninetieth. 6,000 short steps took a quarter of an hour on one CPU core.
#
# Take thin upright digits, up with their own label, down with that of the bold slanted kind:

# %%
stylist = load_model(shipped("mnist-styles"))
thin_ones = torch.cat([((styles == 0) & (labels == k)).nonzero()[:1, 0] for k in range(10)])
given, digit_of = held_out[thin_ones], labels[thin_ones]
as_style = lambda k, s=1.0: batched_guidance(stylist.net, stylist.schedule, {"y": 9 * digit_of + k}, {"y": torch.tensor([90])}, s, stylist.prediction)
latent = ddim_invert(as_style(0), stylist.schedule, given, 40)
down = lambda k, s=1.0, eta=0.0: ddim_sample(as_style(k, s), stylist.schedule, x_T=latent, num_steps=40, eta=eta, generator=seeded(9)).clamp(-1, 1)
by_noise = {f"SDEdit {s}": image_to_image(clip_x_0(as_style(8), stylist.schedule), stylist.schedule, given, s, 40, generator=seeded(9)) for s in (0.7, 0.9)}
show_rows({"input": given, "there and back": down(0), "up and down": down(8), "the same, scale 2": down(8, 2.0)} | by_noise)
plt.show()

# %% [markdown]
# The strokes become bolder, and at scale 2 all ten digits lean to the right; each is still the digit it was. What remains of the handwriting? With the label alone, the pointed 0, the two arms of the 4 and the bar of the 7 are found again, and the 5, the 8 and the 9 have hardly moved. At scale 2 less is left: the 5 is another 5. (The small loop of the 2 is lost already there and back.) SDEdit at 0.9 keeps the digit, and little of the hand. Numbers:

# %%
before = report["style before"]
table = {"input, thin upright": before["thin upright"], "real bold slanted": before["bold slanted"]}
table |= {f"up and down, scale {k}": report[f"restyle 40 scale {k}"] for k in (1, 2, 3)}
table |= {f"SDEdit {s}": report[f"restyle noise {s}"] for s in (0.7, 0.9)} | {"drawn anew": report["restyle noise 1.0"]}
print(f"{'':22s} {'thickness':>9} {'slant':>6} {'bold third':>11} {'slanted third':>14} {'its digit':>10} {'distance':>9}   rank kept")
for name, row in table.items():
    numbers = [row[key][0] for key in ("thickness", "slant", "bold", "slanted", "own_class")]
    far = f"{row['distance'][0]:9.2f}   {row['rank']['thickness']:.1f} and {row['rank']['slant']:.1f}" if "distance" in row else ""
    print("{:22s} {:9.1f} {:5.0f}° {:11.2f} {:14.2f} {:10.2f} ".format(name, *numbers) + far)
print(f"n = {before['thin upright']['n']} thin upright digits (real bold slanted: {before['bold slanted']['n']}); up and down 40 steps each, the others 25. Rank kept: correlation of thickness, and of slant, before and after")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
paths = {"up and down, scale 1, 2, 3": [f"restyle 40 scale {s}" for s in (1, 2, 3)],
         "SDEdit, strength 0.7 to 1": [f"restyle noise {s}" for s in (0.7, 0.8, 0.9, 1.0)]}  # fmt: skip
for (name, keys), colour in zip(paths.items(), (BLUE, ORANGE), strict=True):
    (x_mean, x_bar), (y_mean, y_bar) = (zip(*[report[key][what] for key in keys], strict=True) for what in ("both", "distance"))
    left.errorbar(x_mean, y_mean, xerr=x_bar, yerr=y_bar, marker="o", markersize=4, capsize=2, color=colour, label=name)
left.set(xlabel="share bold and slanted", title="distance to the input, per pixel")
left.legend(fontsize=8)
steps = (10, 20, 40)
errors = [report[f"restyle {k} scale 1"]["there and back"][0] for k in steps]
right.loglog(steps, errors, "o-", color=BLUE, label="mnist-styles")
right.loglog(steps, [errors[1] * 20 / k for k in steps], color=GREY, linewidth=1, label="one over steps")
right.set(xlabel="steps up, and down", title="there and back: distance per pixel", xticks=steps, xticklabels=steps)
right.minorticks_off()
right.legend(fontsize=8)
plt.show()
order = -math.log(errors[-1] / errors[0]) / math.log(steps[-1] / steps[0])
print(f"measured order of the network's error between 10 and 40 steps: {order:.1f} (oracle: 1)")
spreads = ", ".join(f"{report[f'restyle {k} scale 1']['noise'][0]:.2f}" for k in steps)
print(f"standard deviation of x_T after 10, 20 and 40 steps up: {spreads} (noise: 1)")

# %% [markdown]
# - **Bold and slanted: yes, with guidance.** Down with the new label alone, a fifth of the digits reach the bold third and a tenth the slanted one. At scale 2 it is nine and six of ten, at scale 3 all and nine of ten. Then they lean as much as real bold slanted digits, and their strokes are a little thicker. At both scales all 137 are still read as their digit.
# - **The price is distance.** At scale 3, 93 % are bold *and* slanted, at a distance of 0.65. SDEdit comes as far (0.63, at strength 0.9) with 24 %. The left figure shows both ways whole: for the same share, up and down stays nearer to its input.
# - **What holds the label back at scale 1?** Not the network. From fresh noise the same label makes 85 % bold and 88 % slanted (the last row; scale 1 there, too, in 25 steps with clipped guesses). So it is where the path arrives. This $x_T$ is no noise: its standard deviation is half of what it should be, and nearly the same after 10, 20 and 40 steps, so a few more would not mend it. One likely reason stands in (19.14): a background pixel that is always black lies on its mean, so $k=0$, and there it stays.
# - **Rank kept.** Thick ones among the thin stay thick ones among the bold, less so as the scale grows (0.8 to 0.5). The rank of the slant is lost: 0.3 and less, which digits that are drawn anew have as well, by their class alone. (19.15) promises ranks for Gaussians and perfect models. Guidance is neither.
# - **First train, then blame.** An earlier version of this network had 1,500 steps (docs/LOG.md). At scale 3 only 15 % of its digits were slanted, and from fresh noise six of ten were read as the digit asked for. We had a reason ready: slant is a coarse trait, decided at high noise (19.13), so it must sit in $x_T$. It was wrong. Four times the steps, the same path, and 93 % are slanted.
# - **There and back** is nearer with more steps, but the error falls more slowly than on the oracle: real digits have sharp edges, and chapter 13 lost its orders on sharp data as well.
#
# ### Play with it
#
# Hide a part of a digit and choose how often RePaint goes back. Then choose how much SDEdit forgets. Without a running kernel, the figures above show the same.

# %%
from ddpm_course.widgets import choice, explore, slider

SIDES = {"lower": (-2, True), "upper": (-2, False), "right": (-1, True), "left": (-1, False)}


def fill(side, width, digit, resamplings):
    axis, far_end = SIDES[side]
    hidden = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
    hidden.narrow(axis, 28 - width if far_end else 0, width).fill_(True)
    picture = held_out[(labels == digit).nonzero()[3, 0]][None].expand(6, -1, -1, -1)
    x = inpaint(draws_digits, chain, picture, ~hidden, num_steps=25, resamplings=resamplings, generator=seeded(0))
    show_images(torch.cat([torch.where(hidden, -0.4, picture)[:1], x]), columns=7, title="given, and six completions")


explore(fill, side=choice(list(SIDES), "hide"), width=slider(4, 24, 14, 2, "rows hidden"), digit=choice((3, 4, 5, 8, 9), "digit"),
        resamplings=slider(1, 8, 3, 1, "visits"))  # fmt: skip

# %%
def forget(digit, strength):
    picture = held_out[(labels == digit).nonzero()[4, 0]][None].expand(6, -1, -1, -1)
    x = image_to_image(draws_digits, chain, picture, strength, 20, generator=seeded(1))
    show_images(torch.cat([picture[:1], x]), columns=7, title="input, and six edits")


explore(forget, digit=choice(range(10), "digit"), strength=slider(0.1, 1.0, 0.7, 0.05, "strength"))

# %% [markdown]
# ## Common mistakes
#
# ### Going up with the wrong noise
#
# "Up to time $t$" has a formula that everyone knows: $\sqrt{\bar\alpha_t}\,\hat x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$, and $\hat x_0$ lies ready. But $\hat x_0$ is a *mean*. It has none of the spread that is still open at time $t$, so what comes up has too little variance, and each visit loses some again. The way up starts at $x_s$ and adds the noise between $s$ and $t$.

# %%
def visits(up, r, generator, num_steps=100):
    grid, noise = time_grid(1000, num_steps).tolist(), lambda: torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    x, guess, paste = noise(), None, keep_known(schedule, known, mask, generator)
    for t, s in zip(grid, grid[1:], strict=False):
        for visit in range(r if s > 0 else 1):
            x = up(x, guess, t, s, noise()) if visit > 0 else x
            answer = model(x, torch.full((len(x),), t))
            guess = eps_to_x_0(schedule, x, t, answer)
            x = paste(ddpm_step(schedule, x, answer, t, s, noise() if s > 0 else None), s)
    return x[:, 1]


ways_up = {"from x_s": lambda x, x_0_hat, t, s, e: q_step(schedule, x, t, e, s=s), "from x_0_hat": lambda x, x_0_hat, t, s, e: q_sample(schedule, x_0_hat, t, e)}
for name, up in ways_up.items():
    x = visits(up, 10, seeded(10))
    print(f"{name:13s}: 10 visits, mean {float(x.mean()):.1f} (exact 0.8), variance / exact variance {float(x.var()) / 0.36:.1f}")
    assert abs(float(x.mean()) - (0.76 if name == "from x_s" else 0.69)) < 0.04 and (float(x.var()) / 0.36 < 0.65) == (name == "from x_0_hat")

# %% [markdown]
# The variance is 0.6 of the exact one. A fifth is missing the right way, too (100 steps are few); that mends itself with more steps, and the mistake does not. The mean falls from 0.76 to 0.69. Nobody would see that in six completions of a four.
#
# ### A relative of M11 · "A little fresh noise on the way down does no harm"
#
# After an inversion it does: the noise $x_T$ *is* the picture, and each fresh draw overwrites a part of it. Down from the same $x_T$ with the same label, once with $\eta=0$ and once with $\eta=1$:

# %%
came_back, redrawn = down(0), down(0, eta=1.0)
show_rows({"input": given, "eta = 0": came_back, "eta = 1": redrawn})
plt.show()
apart = {name: float((x - given).square().flatten(1).mean(1).sqrt().mean()) for name, x in (("eta = 0", came_back), ("eta = 1", redrawn))}
print("eta = 1 at least five times as far from the input as eta = 0:", apart["eta = 1"] > 5 * apart["eta = 0"])

# %% [markdown]
# Most of the last row are not even the digit of their label. "Drawn anew" above said why: from fresh noise this network misses its label four times in ten, and a start with half the spread of noise does not help.
#
# ### "The higher PSNR wins"
#
# Between two *draws*, or two *means*, perhaps. Between a draw and a mean PSNR prefers the mean on average, by (19.10) and (19.11), and the mean of a 4 and a 9 is neither.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/19_editing_student.ipynb), [with solutions](exercises/19_editing_solution.ipynb).

# %% [markdown]
# **19.1 ★** A known pixel is 0.5. RePaint has just stepped to a time $s$ with $\bar\alpha_s=0.64$. What are mean and variance of the value that it pastes? Give the list `[mean, variance]`.

# %% [markdown] tags=["hint"]
# **Hint 19.1**
#
# Equation (19.1) is a number plus a number times ε. The second one is a standard deviation.

# %% tags=["exercise"]
pasted_law = ...
check("19.1", pasted_law)

# %% tags=["solution"]
pasted_law = [0.64**0.5 * 0.5, 1 - 0.64]
must_pass("19.1", pasted_law)

# %% [markdown]
# **19.2 ★★** Two pixels $\mathcal N(0,1)$ with correlation `rho`, one of them known. What share of its exact mean does the other reach if one only pastes, in the limit of small steps? (1 would be right, less is too small.)

# %% [markdown] tags=["hint"]
# **Hint 19.2**
#
# The mean below (19.6), over the exact one.

# %% tags=["exercise"]
def share_of_the_pull(rho):
    return ...


check("19.2", share_of_the_pull)


# %% tags=["solution"]
def share_of_the_pull(rho):
    return (1 - (1 - rho**2) ** 0.5) / rho**2


must_pass("19.2", share_of_the_pull)

# %% [markdown]
# **19.3 ★★** RePaint's plan for stretches of one step. `times` falls to 0, `visits` is at least 1. Return the list of all times in the order in which they are visited; each step is walked `visits` times, except the one to 0, which is walked once. Example: times 4, 2, 0 with 2 visits give 4, 2, 4, 2, 0.

# %% [markdown] tags=["hint"]
# **Hint 19.3**
#
# Begin with the first time. For each pair $(t, s)$ add $s$, and then $t, s$ once more for each further visit.

# %% tags=["exercise"]
def plan(times, visits):
    return ...


check("19.3", plan)


# %% tags=["solution"]
def plan(times, visits):
    walk = [times[0]]
    for t, s in zip(times, times[1:], strict=False):
        walk += [s] + [t, s] * (visits - 1 if s > 0 else 0)
    return walk


must_pass("19.3", plan)

# %% [markdown]
# **19.4 ★★** By how many decibels of PSNR does the mean of `n` perfect posterior draws beat a single one? (Square errors as in (19.10) and (19.12).)

# %% [markdown] tags=["hint"]
# **Hint 19.4**
#
# PSNR is $10\log_{10}$ of a constant over the square error.

# %% tags=["exercise"]
def decibels_gained(n):
    return ...


check("19.4", decibels_gained)


# %% tags=["solution"]
def decibels_gained(n):
    return 10 * math.log10(2 / (1 + 1 / n))


must_pass("19.4", decibels_gained)

# %% [markdown]
# **19.5 ★★★** Two pictures lie at distance `d`. Noise one of them until only `nats` nats are left to tell which it was. What must $\bar\alpha_t$ be?

# %% [markdown] tags=["hint"]
# **Hint 19.5**
#
# Set (19.13), summed over the pixels, equal to the nats, and solve for $\bar\alpha_t$.

# %% tags=["exercise"]
def forget_down_to(d, nats):
    return ...


check("19.5", forget_down_to)


# %% tags=["solution"]
def forget_down_to(d, nats):
    return 2 * nats / (d**2 + 2 * nats)


must_pass("19.5", forget_down_to)

# %% [markdown]
# ## What comes next
#
# Pictures have filled nineteen chapters, but no equation has ever asked for one. The next chapter has a single axis: time series and sound, with a Transformer in the place of the U-Net.
