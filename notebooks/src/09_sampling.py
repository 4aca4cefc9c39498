# %% [markdown]
# # 09 · Sampling: from noise to data, one draw at a time
#
# **The question.** Chapter 08 trained a network that guesses the noise in a picture. A guess is not a picture. How do we get from one to the other, why does it take so many small steps, and which parts of the procedure may we change without spoiling the result?
#
# **After this chapter you can**
#
# - write Algorithm 2 in ten lines and say where each coefficient comes from;
# - prove that its mean is the posterior mean with a guess in the place of the truth, for one step and for a jump;
# - choose between $\beta_t$ and $\tilde\beta_t$, and say for which data each is exact;
# - test a sampler *without a network*, against data whose perfect denoiser is known;
# - read the listing that most people start from, and say which of its lines does nothing.
#
# *Needs:* chapters 02 (closed form), 03 (posterior), 06 (guessing $\varepsilon$), 08 (training). *Time:* about three hours with the exercises.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch
from torch import nn

from ddpm_course import CourseError, ddpm_sample, ddpm_step, linear_schedule, load_model, shipped, time_grid, trajectory
from ddpm_course.checkpoint import load_classifier
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits
from ddpm_course.exact import ExactGaussian, FiniteData, GaussianMixture
from ddpm_course.losses import diffusion_loss
from ddpm_course.metrics import frechet_distance
from ddpm_course.models import UNetConfig
from ddpm_course.plots import BLUE, GREEN, ORANGE, curves, scatter_row, show_rows, style
from ddpm_course.posterior import q_posterior, reverse_variance
from ddpm_course.prediction import clip_x_0, eps_to_x_0, guard_finite
from ddpm_course.proofs import Expect, agrees, alpha_t, bar_s, bar_t, beta_t, derive, eps_hat, equation, limit, sigma, z
from ddpm_course.proofs import table_values, unit, x_0_hat, x_t
from ddpm_course.sampling import ddpm_stepper
from ddpm_course.train import TrainConfig, at_scale, train

style()
schedule = linear_schedule(T=1000)


def seeded(k):  # a fresh source of randomness that always starts at the same place
    return torch.Generator().manual_seed(k)


# %% [markdown]
# Look first. Fifteen hundred points start as pure noise, on the left. A sampler moves each of them a thousand times, a little each time. On the right they have gathered in eight clumps. The sampler was never given a list of clumps. At each step it only asked one question: *which noise do you think is in this point?*

# %%
angle = torch.arange(8) * math.pi / 4
ring = GaussianMixture(torch.full((8,), 1 / 8), 1.4 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((8,), 0.1))
oracle = ring.eps_model(schedule)
stepper, noise = ddpm_stepper(oracle, schedule, generator=seeded(1)), torch.randn(1500, 2, generator=seeded(0))
walk = trajectory(stepper, noise, time_grid(1000, 1000))
clouds = {f"t = {t}": x_now for t, x_now, _ in walk if t in (1000, 200, 100, 40, 0)}
scatter_row(clouds, limit=3.2)
plt.show()

# %% [markdown]
# The one who answers here is not a network but the **oracle**. For a mixture of Gaussians the best possible answer, the conditional mean $\mathbb E[\varepsilon\mid x_t]$, has a formula. The package knows it, and an oracle can be called exactly like a network: `eps_model(x_t, t)`. This chapter uses that twice. First we test the *sampler* with an oracle: if the clumps come out wrong, the sampler is wrong, since nothing was trained. Then we exchange the oracle for a network. What goes wrong after that is the network's part.
#
# > **An image to keep.** The forward process demolishes a house, brick by brick, until a level field is left. The reverse process builds. At each step the builder looks at the site, imagines the finished house, and lays a few bricks towards it. *Where it breaks:* nobody rebuilds *that* house. The field has forgotten it. The builder ends with *a* house of the kind he has seen, and another one on every working day.

# %% [markdown]
# ## What we want to draw, and what we can draw
#
# We want to walk the chain backwards: draw $x_T\sim\mathcal N(0,I)$, then $x_{T-1}$ given $x_T$, and so on down to $x_0$. Drawing each variable given the one before it is called *ancestral sampling*. So we need $q(x_{t-1}\mid x_t)$, the **true reverse law**. Chapter 03 found a simple Gaussian, $q(x_{t-1}\mid x_t, x_0)$, but only for somebody who knows $x_0$. Without it, the true reverse law averages that Gaussian over all $x_0$ which could have led to this $x_t$.
#
# Let us look at it where it can be computed: a single number with two possible values, blurred. Take $x_t=0$, right between the two. Left: one small step. Right: one big jump.

# %%
pair = GaussianMixture(torch.tensor([0.7, 0.3]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.2, 0.2]))


def true_reverse(x_s, x_t, t, s):
    bar_late, bar_early = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    alpha = bar_late / bar_early
    log_step = -((x_t - alpha**0.5 * x_s) ** 2) / (2 * (1 - alpha))  # q(x_t | x_s), up to a constant
    density = (log_step + pair.diffused(bar_early).log_prob(x_s[:, None])).exp()  # times q(x_s): Bayes
    return density / torch.trapezoid(density, x_s)


# %% [markdown]
# Bayes' rule gives the curve: *how likely is this $x_s$*, times *how likely would it have become our $x_t$*. Against it we draw the Gaussian that the sampler will use. Its mean comes from the oracle's guess; its variance is $\tilde\beta$ from chapter 03.

# %%
def model_reverse(x_s, x_t, t, s):
    now = torch.tensor([[x_t]], dtype=torch.float64)
    guess = eps_to_x_0(schedule, now, t, pair.eps_model(schedule)(now, torch.tensor([t])))
    mean, var = q_posterior(schedule, guess, now, t, s)
    return torch.exp(-((x_s - mean[0]) ** 2) / (2 * var)) / (2 * math.pi * var) ** 0.5


line = torch.linspace(-2.2, 2.2, 4001, dtype=torch.float64)
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8))
for ax, (t, s), span in zip(axes, ((300, 299), (300, 60)), (0.6, 2.0), strict=True):
    both = {"true reverse law": true_reverse(line, 0.0, t, s), "what we draw from": model_reverse(line, 0.0, t, s)}
    curves(line, both, ax,
           title=f"from x_t = 0 at t = {t} to s = {s}", xlabel="x_s", xlim=(-span, span), yticks=[])
axes[0].get_legend().remove()

# %% [markdown]
# On the left the two curves can hardly be told apart: one *small* step backwards is very nearly a Gaussian, for any data, as long as the step is short compared with the noise already in $x_t$ and with the finest detail of the data (so not for the last steps of discrete data). On the right the truth has two humps. From $x_t=0$ the point came from either $-1$ or $+1$, and the Gaussian sits where neither is: on the mean of the two. This is the whole reason why there are many steps. Each step makes a small commitment, and the next guess already knows about it.
#
# Say it precisely, since it is often said wrongly (M5). We do **not** sample from $q(x_{t-1}\mid x_t,x_0)$, because we do not know $x_0$. We put a guess $\hat x_0$ in its place and sample from
#
# $$ p_\theta(x_{t-1}\mid x_t)=\mathcal N\big(x_{t-1};\ \mu_\theta(x_t,t),\ \sigma_t^2 I\big),\qquad \hat x_0=\frac{x_t-\sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}} \tag{9.1, definition} $$
#
# where $\hat\varepsilon=\varepsilon_\theta(x_t,t)$ is the network's or oracle's answer and $\mu_\theta$ is the mean of chapter 03 with $\hat x_0$ (Ho eq. 15) in the place of $x_0$.
#
# **Three noises** meet in this chapter, and each has its own letter. $\varepsilon$ made $x_t$ out of a known $x_0$ while training. $\hat\varepsilon$ is the guess of it, a deterministic function of $x_t$ and $t$. And $z$ is fresh, drawn by the sampler itself at each step; it has nothing to do with the other two.

# %% [markdown]
# ## The mean: two formulas, one number
#
# Algorithm 2 of the paper writes the mean with $\hat\varepsilon$ (Ho eq. 11). Much code writes it with $\hat x_0$ (Ho eq. 7). Here is the way from one to the other.

# %% tags=["proof"]
chain = {bar_t: alpha_t * bar_s, beta_t: 1 - alpha_t}  # chapter 02
guess = {x_0_hat: (x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t)}  # definition 9.1
of_x_t = sp.sqrt(alpha_t) * (1 - bar_s) / (1 - bar_t)
of_eps = beta_t / (sp.sqrt(alpha_t) * sp.sqrt(1 - bar_t))
posterior_mean = sp.sqrt(bar_s) * beta_t / (1 - bar_t) * x_0_hat + of_x_t * x_t
ho_mean = (x_t - beta_t / sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(alpha_t)
derive("9.2", posterior_mean,
       (sp.sqrt(bar_s) * beta_t / (1 - bar_t) * guess[x_0_hat] + of_x_t * x_t, "put in the guess"),
       ((beta_t / (sp.sqrt(alpha_t) * (1 - bar_t)) + of_x_t) * x_t - of_eps * eps_hat,
        "the ratio of the two running products is the last alpha; collect"),
       ((beta_t + alpha_t * (1 - bar_s)) / (sp.sqrt(alpha_t) * (1 - bar_t)) * x_t - of_eps * eps_hat,
        "common denominator"),
       (x_t / sp.sqrt(alpha_t) - of_eps * eps_hat, "the numerator is 1 minus the product of all alphas"),
       (ho_mean, "take the root out"), given=guess | chain, source="Ho eq. 7 and 15 give Ho eq. 11")

# %% [markdown]
# (SymPy sorts the summands its own way.) Read the last line as $\frac{1}{\sqrt{\alpha_t}}\big(x_t-\frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\hat\varepsilon\big)$. That is Algorithm 2: take a share of the guessed noise away, then divide by $\sqrt{\alpha_t}$, which undoes the shrinking of the forward step. The share is $\beta_t/\sqrt{1-\bar\alpha_t}$. It is small because $\hat\varepsilon$ is the noise of *all* $t$ steps so far, and we only want to take back one.
#
# What the proof does not say: that either formula is right to use. It says they are the same number, as long as $\hat x_0$ and $\hat\varepsilon$ belong together by (9.1). Keep that condition in mind; clipping will break it.
#
# ### The same for a jump
#
# Nothing above needs $s=t-1$. For a jump from $t$ down to any earlier $s$, put $\alpha=\bar\alpha_t/\bar\alpha_s$ in the place of $\alpha_t$ (the telescope of chapter 02) and $1-\alpha$ in the place of $\beta_t$.

# %% tags=["proof"]
bar_u, a = unit(r"\bar{\alpha}_s"), unit(r"\alpha")
jump_mean = (x_t - (1 - a) / sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(a)
posterior_jump = sp.sqrt(bar_u) * (1 - a) / (1 - bar_t) * x_0_hat + sp.sqrt(a) * (1 - bar_u) / (1 - bar_t) * x_t
equation("9.3", posterior_jump, jump_mean,
         given=guess | {bar_t: a * bar_u}, source="Ho eq. 11 for a jump")
last_mean = (x_t - (1 - bar_t) / sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t)
equation("9.4", last_mean, x_0_hat, given=guess, source="Ho eq. 11 for a jump to s = 0")

# %% [markdown]
# Equation 9.4 is the jump that ends at $s=0$, where $\bar\alpha_s=1$ and therefore $\alpha=\bar\alpha_t$. The mean of the last step *is* the guess $\hat x_0$. Now the displayed formulas against the package: for a small step, for a jump and for the last one, with the noise $z$ switched off.

# %%
now, guessed = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)
nothing = torch.zeros_like(now)
for t in (2, 500, 1000):
    values = table_values(schedule, t) | {x_t: 0.7, eps_hat: -0.4}
    agrees(ho_mean, values, ddpm_step(schedule, now, guessed, t, t - 1, nothing))
    agrees(posterior_mean.subs(guess), values, q_posterior(schedule, eps_to_x_0(schedule, now, t, guessed), now, t)[0])
bars = {bar_t: float(schedule.alpha_bar[700]), a: float(schedule.alpha_bar[700] / schedule.alpha_bar[300])}
agrees(jump_mean, bars | {x_t: 0.7, eps_hat: -0.4}, ddpm_step(schedule, now, guessed, 700, 300, nothing))
agrees(last_mean, table_values(schedule, 5) | {x_t: 0.7, eps_hat: -0.4}, ddpm_step(schedule, now, guessed, 5, 0, None))

# %% [markdown]
# ## The variance: β or β̃?
#
# The mean came from the network. The variance $\sigma_t^2$ we must choose. Two candidates are everywhere: $\beta_t$, the variance of the forward step, and $\tilde\beta_t=\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\beta_t$, the variance of the posterior. Which one is right? Neither, in general (M4). To see why, split what is unknown about $x_{t-1}$ when only $x_t$ is known.
#
# Write $\mathrm{Var}(x_0\mid x_t)$ for the variance of $x_0$ when only $x_t$ is known, and $x_0=\hat x_0+\delta$, where $\delta$ is what the best guess misses. Given $x_t$ it has mean 0 (a conditional mean misses by 0 on average) and the variance $\mathbb E[\delta^2]=\mathrm{Var}(x_0\mid x_t)$. By chapter 03, $x_{t-1}$ is its posterior mean plus $\sqrt{\tilde\beta_t}\,z$. The posterior mean is linear in $x_0$ with the coefficient $c_0=\sqrt{\bar\alpha_{t-1}}\,\beta_t/(1-\bar\alpha_t)$. So around the mean that we use, $x_{t-1}$ deviates by $c_0\delta+\sqrt{\tilde\beta_t}\,z$.

# %% tags=["proof"]
c_0, tilde, delta = sp.symbols(r"c_0 \tilde{\beta}_t", positive=True) + (sp.Symbol(r"\delta", real=True),)
derive("9.5", Expect((c_0 * delta + sp.sqrt(tilde) * z) ** 2, delta, z),
       (c_0**2 * Expect(delta**2, delta) + 2 * c_0 * sp.sqrt(tilde) * Expect(delta, delta) * Expect(z, z)
        + tilde * Expect(z**2, z), "expand; the fresh noise is independent of what the guess misses"),
       (c_0**2 * Expect(delta**2, delta) + tilde, "the fresh noise has mean 0 and variance 1"))

# %% [markdown]
# So the variance of the true reverse law is $\tilde\beta_t+c_0^2\,\mathrm{Var}(x_0\mid x_t)$: the posterior's variance, **plus what we do not know about $x_0$**, shrunk. Using $\tilde\beta_t$ means to pretend that the second part is 0. The proof says nothing about the *shape* of the law, which may have two humps, as we saw. Let us check the sum on the big jump of the figure, where the truth was computed on a grid.

# %%
t, s, at = 300, 60, torch.tensor([[0.0]], dtype=torch.float64)
bar_late, bar_early = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
share = pair.responsibilities(at, bar_late)[0]  # which of the two bells, given x_t = 0
narrow = 1 / (1 / 0.2**2 + bar_late / (1 - bar_late))  # variance of x_0 given x_t within one bell: precisions add
centre = narrow * pair.means[:, 0] / 0.2**2
unknown = float(narrow + (share * centre**2).sum() - (share * centre).sum() ** 2)
law, alpha = true_reverse(line, 0.0, t, s), bar_late / bar_early
spread = float(torch.trapezoid(law * line**2, line) - torch.trapezoid(law * line, line) ** 2)
posterior = (1 - alpha) * (1 - bar_early) / (1 - bar_late)
predicted = posterior + (bar_early**0.5 * (1 - alpha) / (1 - bar_late)) ** 2 * unknown
print(f"true variance {spread:.3f};  beta~ {posterior:.3f};  beta~ + c_0^2 Var(x_0|x_t) = {predicted:.3f}")
assert abs(spread - predicted) < 1e-3

# %% [markdown]
# Now the two extremes. If the data are **one single point**, we know $x_0$ whatever $x_t$ is. Then $\mathrm{Var}(x_0\mid x_t)=0$ and (9.5) leaves $\tilde\beta_t$: exact. If the data are $\mathcal N(0,1)$, the two sources of knowledge about $x_0$ add their precisions (one over the variance, chapter 03): the prior has precision 1, the observation $x_t$ has $\bar\alpha_t/(1-\bar\alpha_t)$. Their sum is $1/(1-\bar\alpha_t)$, so $\mathrm{Var}(x_0\mid x_t)=1-\bar\alpha_t$. Put it in:

# %% tags=["proof"]
names = {c_0: sp.sqrt(bar_s) * beta_t / (1 - bar_t), tilde: (1 - bar_s) / (1 - bar_t) * beta_t}
derive("9.6", c_0**2 * (1 - bar_t) + tilde,
       (bar_s * beta_t**2 / (1 - bar_t) + (1 - bar_s) / (1 - bar_t) * beta_t, "put in what the two letters stand for"),
       (beta_t * (bar_s * beta_t + 1 - bar_s) / (1 - bar_t), "take the common factor out"),
       (beta_t * (1 - alpha_t * bar_s) / (1 - bar_t), "beta = 1 - alpha"),
       (beta_t, "the product of all alphas: numerator = denominator"), given=names | chain, source="Ho section 3.2")

# %% [markdown]
# So $\beta_t$ is *exact* for data $\mathcal N(0,I)$, and $\tilde\beta_t$ for one point. Real pictures lie between: a pixel is uncertain, but less than a standard normal is.
#
# For Gaussian data of any variance $\kappa$ there is one formula for both and everything between. Let $\kappa_t=\bar\alpha_t \kappa+1-\bar\alpha_t$ be the variance of $x_t$. The precisions now add to $\mathrm{Var}(x_0\mid x_t)=\kappa(1-\bar\alpha_t)/\kappa_t$.

# %% tags=["proof"]
kappa, kappa_t, kappa_s = sp.symbols(r"\kappa \kappa_t \kappa_{t-1}", positive=True)
spreads = {kappa_t: bar_t * kappa + 1 - bar_t, kappa_s: bar_s * kappa + 1 - bar_s}
best_variance = beta_t * kappa_s / kappa_t
equation("9.7", c_0**2 * kappa * (1 - bar_t) / kappa_t + tilde, best_variance, given=spreads | names | chain,
         source="Analytic-DPM")
for kind, data_variance in (("beta", 1), ("posterior", 0)):
    for t in (2, 400, 1000):
        values = table_values(schedule, t) | {kappa: data_variance}
        agrees(best_variance.subs(spreads), values, reverse_variance(schedule, t, t - 1, kind))

# %% [markdown]
# At $\kappa=1$ the formula gives the package's `"beta"`, at $\kappa=0$ its `"posterior"`, which the last lines confirm at three times. The proof is for Gaussian data only; there the reverse law is a Gaussian and nothing else is left to choose. For general data the best constant was worked out in the Analytic-DPM paper, and a network may also *learn* it (Nichol section 3.1).
#
# **Does it matter?** On the full grid of 1,000 steps, hardly. With few steps, very much. The next figure shows the ratio $\tilde\beta/\beta$ for small steps and for ten large ones.

# %%
def ratio(t, s):
    return reverse_variance(schedule, t, s, "posterior") / reverse_variance(schedule, t, s, "beta")


coarse = time_grid(1000, 10).tolist()
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
left.plot(range(1, 101), [ratio(t, t - 1) for t in range(1, 101)])
left.set(title="1,000 steps: only the first few dozen times differ", xlabel="t", ylabel="posterior / beta", ylim=(0, 1.05))
right.bar(range(10), [ratio(t, s) for t, s in zip(coarse, coarse[1:], strict=False)][::-1], color=ORANGE)
right.set(title="10 steps: a real difference", xlabel="step (0 = the last, into x_0)", ylim=(0, 1.05))
plt.show()

# %% [markdown]
# There is a third name, `"posterior_clipped"`. It is $\tilde\beta_t$ with one repair: $\tilde\beta_1=0$, and a Gaussian of variance 0 has no finite log-likelihood, so at $t=1$ the value $\tilde\beta_2$ is put in. (For a jump from $t$ into 0 it takes the $\tilde\beta$ of a jump from $2t$, or $T$ at most, to $t$; and $\beta$ if $t$ is $T$ itself.) That matters for the *bound* of chapter 05. It cannot matter for samples, as we shall see.

# %%
def tilde_by_hand(t, s):
    late, early = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return float((1 - early) / (1 - late) * (1 - late / early))


cases = {(1, 0): (2, 1), (2, 1): (2, 1), (300, 200): (300, 200), (300, 0): (600, 300), (700, 0): (1000, 700)}
for (t, s), (late, early) in cases.items():
    assert abs(reverse_variance(schedule, t, s, "posterior_clipped") - tilde_by_hand(late, early)) < 1e-14
times = torch.tensor(list(cases)).T
wanted = torch.tensor([tilde_by_hand(*pair) for pair in cases.values()], dtype=torch.float64)
torch.testing.assert_close(reverse_variance(schedule, *times, "posterior_clipped"), wanted, rtol=1e-12, atol=0)
print(f"at t = 1: beta {float(schedule.beta[1]):.1e}, posterior 0, clipped {tilde_by_hand(2, 1):.1e}")

# %% [markdown]
# ## By hand: Algorithm 2
#
# Start with noise. At each $t$ ask for $\hat\varepsilon$, compute the mean, add $\sqrt{\tilde\beta_t}\,z$. At $t=1$ add nothing. The tables are made here again, from nothing but `linspace`.

# %%
beta = torch.cat([torch.zeros(1, dtype=torch.float64), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)])
alpha_bar = (1 - beta).cumprod(0)  # index 0 is clean data: alpha_bar[0] = 1


def my_sample(eps_model, x, generator):
    for t in range(1000, 0, -1):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype) if t > 1 else torch.zeros_like(x)
        eps = eps_model(x, torch.full((len(x),), t))
        mean = (x - beta[t] / (1 - alpha_bar[t]) ** 0.5 * eps) / (1 - beta[t]) ** 0.5
        x = mean + (beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])) ** 0.5 * z
    return x


# %% [markdown]
# The package's `ddpm_sample` is a loop over `ddpm_step`. Given the same starting noise and the same generator for $z$, both must end in the same points, after 1,000 steps.

# %%
start = torch.randn(5, 2, generator=seeded(2), dtype=torch.float64)
mine = my_sample(oracle, start, seeded(3))
theirs = ddpm_sample(oracle, schedule, x_T=start, generator=seeded(3))
torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
print("1,000 steps by hand = package: True")

# %% [markdown]
# And every single step, with each variance, for small steps and jumps. The right side is written with $\hat x_0$, so it shares no line with the package's $\hat\varepsilon$ form. The times also go in as a tensor, one for each example of a batch, and the variance as a function of our own.

# %%
def my_jump(x_t, eps, t, s, z, var):
    alpha, late, early = alpha_bar[t] / alpha_bar[s], alpha_bar[t], alpha_bar[s]
    x_0_hat = (x_t - (1 - late) ** 0.5 * eps) / late**0.5
    mean = (early**0.5 * (1 - alpha) * x_0_hat + alpha**0.5 * (1 - early) * x_t) / (1 - late)
    noise = {"beta": 1 - alpha, "posterior": (1 - alpha) * (1 - early) / (1 - late)}[var] ** 0.5 * z
    return mean + noise if s > 0 else mean


x, e, fresh = torch.randn(3, 4, 2, dtype=torch.float64, generator=seeded(4))
for t, s in ((1, 0), (2, 1), (500, 499), (1000, 999), (1000, 900), (500, 20), (300, 0)):
    for var in ("beta", "posterior"):
        wanted = my_jump(x, e, t, s, fresh, var)
        torch.testing.assert_close(ddpm_step(schedule, x, e, t, s, fresh, var), wanted, rtol=0, atol=1e-10)
        as_tensors = ddpm_step(schedule, x, e, torch.full((4,), t), torch.full((4,), s), fresh, var)
        torch.testing.assert_close(as_tensors, wanted, rtol=0, atol=1e-10)
late, early = torch.tensor([1000, 500, 500, 300]), torch.tensor([900, 499, 20, 0])  # each example at its own times
own = lambda t, s: 0.5 * (1 - schedule.alpha_bar[t] / schedule.alpha_bar[s])  # a variance of our own: half of beta
mixed = ddpm_step(schedule, x, e, late, early, fresh, own)
for k, (t, s) in enumerate(zip(late.tolist(), early.tolist(), strict=True)):
    wanted = my_jump(x[k], e[k], t, s, 0.5**0.5 * fresh[k], "beta")
    torch.testing.assert_close(mixed[k], wanted, rtol=0, atol=1e-10)
print("every step and jump = package: True")

# %% [markdown]
# ## The oracle's exam
#
# ### A Gaussian: are the moments recovered?
#
# Data $\mathcal N(m,\Sigma)$ in the plane, the exact $\mathbb E[\varepsilon\mid x_t]$, 4,000 samples. The mean and the covariance of the samples should be $m$ and $\Sigma$, up to chance and up to the error that 1,000 steps leave (one to two percent of the variance, as we shall compute exactly below).

# %%
blob = ExactGaussian(torch.tensor([1.0, -0.5]), torch.tensor([[0.5, 0.3], [0.3, 0.4]]))
drawn = ddpm_sample(blob.eps_model(schedule), schedule, (4000, 2), generator=seeded(5)).double()
mean_error = (drawn.mean(0) - blob.mean).abs().max()
cov_error = (drawn.T.cov() - blob.cov).abs().max()
assert mean_error < 4 * (0.5 / 4000) ** 0.5 and cov_error < 4 * 0.5 * (2 / 4000) ** 0.5 + 0.01
half = float(schedule.alpha_bar[400])  # on the way, too: a Gaussian, made narrower and then blurred
torch.testing.assert_close(blob.diffused(half).mean, half**0.5 * blob.mean)
torch.testing.assert_close(blob.diffused(half).cov, half * blob.cov + (1 - half) * torch.eye(2, dtype=torch.float64))
print("mean", [round(v, 1) for v in drawn.mean(0).tolist()], " wanted", blob.mean.tolist())
print("largest error of mean and covariance below 0.05:", bool(mean_error < 0.05), bool(cov_error < 0.05))

# %% [markdown]
# ### A mixture: are the shape and the weights recovered?
#
# Two numbers describe the ring: how many points are *off*, farther than three standard deviations from every centre, and how wide a clump is (the root mean square distance to its centre, per coordinate; the data have 0.1). Exact draws are off with probability $e^{-4.5}\approx 1.1\,\%$, so 0 would be too good. And the eight weights must be equal up to chance: their $\chi^2$ statistic (squared deviations from 250, over 250, summed) stays below 14.1 in 95 % of all runs.

# %%
def off_and_width(points):
    distance = torch.cdist(points.double(), ring.means).min(1).values
    return float((distance > 0.3).double().mean()), float((distance**2).mean() / 2) ** 0.5


samples = ddpm_sample(oracle, schedule, (2000, 2), generator=seeded(6))
off, width = off_and_width(samples)
counts = torch.bincount(torch.cdist(samples.double(), ring.means).argmin(1), minlength=8)
chi2 = float(((counts - 250.0) ** 2 / 250).sum())
print(f"off below 2 %: {off < 0.02}, width {width:.2f}; chi-square of the 8 weights below 14.1: {chi2 < 14.1}")
assert off < 0.02 and abs(width - 0.1) < 0.01 and chi2 < 14.1

# %% [markdown]
# ### A finite data set: where does it land?
#
# Now let the data be exactly one hundred digits, all equally likely. The perfect denoiser for this set knows nothing else. With 1,000 steps the sampler must land *on* the digits, and choose each class as often as the data have it. A $\chi^2$ test compares the two histograms; for ten classes it should stay below 16.9 in 95 % of all runs.

# %%
kept, labels = digits().train.images[:100], digits().train.labels[:100]
memory = FiniteData(kept).eps_model(schedule)
landed = ddpm_sample(memory, schedule, (300, 1, 8, 8), generator=seeded(7))
gap, nearest = torch.cdist(landed.flatten(1).double(), kept.flatten(1).double()).min(1)
expected = 3.0 * torch.bincount(labels, minlength=10)
chi2 = float(((torch.bincount(labels[nearest], minlength=10) - expected) ** 2 / expected).sum())
print(f"all on a data point, to 1e-5: {bool(gap.max() < 1e-5)}; chi-square of the classes below 16.9: {chi2 < 16.9}")
assert gap.max() < 1e-5 and chi2 < 16.9

# %% [markdown]
# A perfect score, and a warning. The perfect denoiser of a *finite* set gives the set back and never a new digit. If our network were perfect in this sense, it would be useless. What makes it useful is that its training ends long before it memorises (chapter 08), so that it has to generalise. The oracle is for testing samplers, not for making art.

# %% [markdown]
# ## Where does the randomness come from?
#
# The sampler draws $x_T$ once and $z$ at every step with $s>0$: 1,000 draws for $T=1000$, namely one $x_T$ and 999 times $z$. All come from the `generator`. The same seed gives the same samples, to the last bit; the global random state is not touched. And one starting point has many possible ends: the dice decide on the way, not only at the start.

# %%
before = torch.get_rng_state()
one, two = (ddpm_sample(oracle, schedule, (3, 2), generator=seeded(8)) for _ in range(2))
assert torch.equal(one, two) and torch.equal(before, torch.get_rng_state())
counted, used = seeded(8), seeded(8)
for _ in range(1000):
    torch.randn(3, 2, generator=counted)
ddpm_sample(oracle, schedule, (3, 2), generator=used)
print("same seed, same samples: True;  exactly 1,000 draws:", torch.equal(counted.get_state(), used.get_state()))

# %% [markdown]
# The walk itself can be watched. `trajectory` yields the time, the state and the guess, the start first and the result last. It also takes an `edit`, which may change each new $x_s$ and is told $s$; the chapter on editing is built on that. Four steps:

# %%
told = []
walk = trajectory(ddpm_stepper(oracle, schedule, generator=seeded(8)), start, time_grid(1000, 4), edit=lambda x_s, s: told.append(s) or x_s)
print("yields t =", [t for t, _, _ in walk], "  the edit is told s =", told)
assert told == [750, 500, 250, 0]

# %%
same_start = torch.randn(1, 2, generator=seeded(9)).repeat(600, 1)
ends = ddpm_sample(oracle, schedule, x_T=same_start, generator=seeded(10))
reached = len(torch.cdist(ends.double(), ring.means).argmin(1).unique())
print(f"600 runs from one and the same x_T reach {reached} of the 8 clumps")
assert reached == 8

# %% [markdown]
# ## Fewer steps: what exactly goes wrong?
#
# A thousand steps are a thousand calls of the network. `time_grid(T, S)` picks $S$ of the times, and every step becomes a jump. Here is a grid for $S=5$. Its neighbours go into the step as the pair $(t, s)$, so there is nothing to get wrong by one. Chapter 10 compares kinds of grids.

# %%
print("time_grid(1000, 5) =", time_grid(1000, 5).tolist(), "  time_grid(10, 3) =", time_grid(10, 3).tolist())
assert time_grid(1000, 5).tolist() == [1000, 800, 600, 400, 200, 0] and time_grid(10, 3).tolist() == [10, 7, 3, 0]
few = {f"S = {S}": ddpm_sample(oracle, schedule, (1200, 2), num_steps=S, generator=seeded(11)) for S in (5, 10, 20, 50)}
scatter_row(few | {"exact draws": ring.sample(1200, seeded(12))}, limit=2.2)
plt.show()

# %% [markdown]
# A grid of your own is welcome, too. It must fall strictly, start at $T$ or below, and end in 0; anything else is refused before the first step, with the reason.

# %%
for grid in ([1000, 500], [500, 700, 0], [1200, 600, 0], [500, 500, 0], [0]):
    try:
        ddpm_sample(oracle, schedule, (2, 2), grid=torch.tensor(grid))
        raise AssertionError(f"{grid} was accepted")
    except CourseError as error:
        print(error)

# %% [markdown]
# Now the figure. At $S=5$ there are no clumps at all, only a disc. At $S=10$ they are joined into an octagon, at $S=20$ a few stray points are left between them. At $S=50$ the picture looks right until one compares the *width* of the clumps: too tight. Let us measure, exactly, on data where the whole chain can be followed by algebra: $\mathcal N(0,\kappa)$. The oracle's answer is then linear, $\hat\varepsilon=\sqrt{1-\bar\alpha_t}\;x_t/\kappa_t$. One jump multiplies by a number and adds noise.

# %% tags=["proof"]
kappa_u = sp.Symbol(r"\kappa_s", positive=True)
linear_guess = {eps_hat: sp.sqrt(1 - bar_t) * x_t / kappa_t, kappa_t: a * kappa_u + 1 - a}
equation("9.8", jump_mean, sp.sqrt(a) * kappa_u / kappa_t * x_t, given=linear_guess)
gain = sp.Symbol("a_t", positive=True)
derive("9.9", Expect((gain * x_t + sigma * z) ** 2, x_t, z),
       (gain**2 * Expect(x_t**2, x_t) + sigma**2, "the fresh noise is independent, with mean 0 and variance 1"))
equation("9.10", kappa - (1 - bar_t) * kappa / kappa_t, bar_t * kappa**2 / kappa_t,
         given={kappa_t: bar_t * kappa + 1 - bar_t})

# %% [markdown]
# Read them in turn. (9.8): the jump's mean is $a_t x_t$ with $a_t=\sqrt\alpha\,\kappa_s/\kappa_t$, where $\kappa_s=\bar\alpha_s\kappa+1-\bar\alpha_s$ and $\kappa_t=\alpha \kappa_s+1-\alpha$ (the telescope again). (9.9): the variance follows the rule *multiply by the square, add $\sigma^2$*. So we can carry the variance down the grid without a single random number. The proofs are for one coordinate of centred Gaussian data; for others they are a model of what happens, no more.
#
# (9.10) is the surprise. Suppose all jumps but the last were perfect, so that $x_t$ has the right variance $\kappa_t$ at the last stop. The last jump adds no noise; it returns $\hat x_0=\sqrt{\bar\alpha_t}\,\kappa\,x_t/\kappa_t$ ((9.8) with $s=0$, where $\alpha=\bar\alpha_t$ and $\kappa_s=\kappa$). By (9.9) its variance is $\bar\alpha_t\kappa^2/\kappa_t^2\cdot\kappa_t$, the right side. Missing is $(1-\bar\alpha_t)\kappa/\kappa_t$, which is exactly $\mathrm{Var}(x_0\mid x_t)$: **what the guess did not know, the noise-free last step never puts back.**

# %%
def final_variance(kappa, grid, kind):
    V = 1.0  # x_T ~ N(0, 1)
    for t, s in zip(grid, grid[1:], strict=False):
        late, early = float(alpha_bar[t]), float(alpha_bar[s])
        alpha, kappa_late, kappa_early = late / early, late * kappa + 1 - late, early * kappa + 1 - early
        part = {"beta": 1, "posterior": (1 - early) / (1 - late), "best": kappa_early / kappa_late}[kind]
        V = alpha * (kappa_early / kappa_late) ** 2 * V + (part * (1 - alpha) if s > 0 else 0)
    return V


# %% [markdown]
# Lines below: this recursion. Dots: `ddpm_sample` with the oracle and 4,000 points. The three kinds are $\beta$, $\tilde\beta$, and the best variance of (9.7), which we pass as a function of $(t, s)$.

# %%
data_var, sizes = 0.25, (3, 5, 10, 20, 50, 100)
narrow_data = ExactGaussian(torch.zeros(1), torch.tensor([[data_var]])).eps_model(schedule)


def best(t, s):
    late, early = float(alpha_bar[t]), float(alpha_bar[s])
    return (1 - late / early) * (early * data_var + 1 - early) / (late * data_var + 1 - late)


fig, ax = plt.subplots(figsize=(7.5, 3.2))
for kind, color in (("beta", BLUE), ("posterior", ORANGE), ("best", GREEN)):
    grids = [time_grid(1000, S).tolist() for S in sizes]
    ax.plot(sizes, [final_variance(data_var, grid, kind) for grid in grids], color=color, label=kind)
    for S in sizes:
        chosen, rng = best if kind == "best" else kind, seeded(13)
        V = float(ddpm_sample(narrow_data, schedule, (4000, 1), num_steps=S, variance=chosen, generator=rng).var())
        exact = final_variance(data_var, time_grid(1000, S).tolist(), kind)
        assert abs(V / exact - 1) < 4 * (2 / 4000) ** 0.5
        ax.plot(S, V, "o", color=color)
ax.axhline(data_var, color="black", linewidth=0.8)
ax.set(xscale="log", xlabel="number of steps S", title="variance of the samples; the data have 0.25")
ax.legend()
plt.show()

# %% [markdown]
# Three honest findings. With $\tilde\beta$ the samples are too narrow at every $S$. With $\beta$ they are too narrow up to $S=10$, because of the last step, and a little too wide from $S=20$ on: this data is narrower than $\mathcal N(0,1)$, so $\beta$ adds too much. And even the best variance is too narrow at small $S$, because of the last step. Now the table for $\kappa=1$, where $\beta$ is exact for every step but the last.

# %%
print("  S   beta    beta~    lost in the last step (9.10)")
for S in (5, 10, 50, 1000):
    grid = time_grid(1000, S).tolist()
    lost = 1 - float(alpha_bar[grid[-2]])  # (1 - bar) kappa / kappa_t at kappa = 1
    with_beta, with_tilde = final_variance(1.0, grid, "beta"), final_variance(1.0, grid, "posterior")
    print(f"{S:4d}   {with_beta:.3f}   {with_tilde:.3f}    {lost:.3f}")
    assert abs(1 - with_beta - lost) < 1e-3

# %% [markdown]
# So $\beta$ loses the last step's part and nothing else, exactly as the formula says. And the cure is visible: let the last step be short. With the grid 1000, 300, 100, 1, 0 and $\beta$ the variance of $\mathcal N(0,1)$ data is right to about one part in ten thousand, in four steps. A short last step removes the loss (9.10) for any data. It repairs everything only here, where the other jumps are exact: Gaussian data with the variance of (9.7), which is $\beta$ at $\kappa=1$. For $\kappa=0.25$ the same grid with $\beta$ gives 1.8 times the right variance.
#
# How does the error fall on a regular grid? Like $1/S$:

# %%
short_end = final_variance(1.0, [1000, 300, 100, 1, 0], "beta")
print(f"beta, four steps with a short last one: {short_end:.4f}")
many = (100, 200, 500, 1000)
reached = [final_variance(0.25, time_grid(1000, S).tolist(), "posterior") for S in many]
limit("9.11", sp.Symbol(r"\mathrm{Var}\left(x_0^{(S)}\right)"), kappa, sizes=many, measured=reached, values={kappa: 0.25}, order=1.0)

# %% [markdown]
# Measured for $\kappa=0.25$ and $\tilde\beta$ on the linear schedule; it is a measurement and not a proof for all data.
#
# ### Why is the last step noise-free?
#
# Learners ask this often, and now three answers fit together. First, the target at $s=0$ is the picture itself: $\tilde\beta_1=0$, because whoever knows $x_0$ has no doubt about $x_0$. Second, the mean of the last step is $\hat x_0$ (9.4), the best guess; added noise would only make the picture grainier, and Ho section 3.3 shows the mean without noise. Third, the price is (9.10). On the full grid it is a variance of about $\beta_1=10^{-4}$, a grain that nobody sees. On a coarse grid it is large, and that is one reason why few DDPM steps give flat pictures.
#
# That the last noise is dropped has one more consequence. The two names that differ *only* in the step into $s=0$, `"posterior"` and `"posterior_clipped"`, give the same samples, bit for bit:

# %%
runs = [ddpm_sample(oracle, schedule, (4, 2), variance=kind, generator=seeded(14))
        for kind in ("posterior", "posterior_clipped")]
print("posterior and posterior_clipped give the same samples:", torch.equal(*runs))
assert torch.equal(*runs)

# %% [markdown]
# ### β or β̃, then?
#
# With 1,000 steps it hardly matters for samples; the paper found the same. With few steps it does: for data much narrower than $\mathcal N(0,I)$, such as the clumps of the ring or the sharp edges of digits, $\beta$ leaves grain. Compare the width of the clumps, which should be 0.1.

# %%
print("  S    width with beta    width with beta~")
for S in (20, 50, 100):
    widths = [off_and_width(ddpm_sample(oracle, schedule, (2000, 2), num_steps=S, variance=k, generator=seeded(15)))[1]
              for k in ("beta", "posterior")]
    print(f"{S:4d}    {widths[0]:.3f}              {widths[1]:.3f}")
    assert widths[1] < 0.1 < widths[0]

# %% [markdown]
# At $S=50$ and 100 $\beta$ is too wide and $\tilde\beta$ too narrow, as (9.7) lets one expect. (At $S=20$ stray points between the clumps widen both columns; without them both would be too narrow, because of the last step.) The package's default is $\tilde\beta$.

# %% [markdown]
# ## A network instead of the oracle
#
# The course ships a network for the 8×8 digits, trained by `train` of chapter 08. It predicts $v$ and was trained with the cosine schedule; `eps_model()` translates its answers into $\hat\varepsilon$ (chapter 06), so the sampler does not need to know. `clip_x_0` keeps $\hat x_0$ inside $[-1,1]$, where pixels live; more on it below. We run 500 steps, every second time of the chain, for ten digits, and keep every twentieth time.

# %%
shipped_net = load_model(shipped("digits"))
net, net_schedule = clip_x_0(shipped_net.eps_model(), shipped_net.schedule), shipped_net.schedule
first = torch.randn(10, 1, 8, 8, generator=seeded(16))
path = trajectory(ddpm_stepper(net, net_schedule, generator=seeded(17)), first, time_grid(1000, 500))
frames = {t: (x_now, x_0_hat) for t, x_now, x_0_hat in path if t % 20 == 0}
assert torch.equal(frames[1000][0], first) and torch.equal(*frames[0])
show_rows({f"x_t, t = {t}": frames[t][0] for t in (1000, 600, 300, 100, 0)})
plt.show()

# %% [markdown]
# `trajectory` is a generator: it yields $(t, x_t, \hat x_0)$ at every time of the grid, the start first and $(0, x_0, x_0)$ last. A progress picture, a film or an early stop is a loop over it, and the sampler needs no callback. Now the other half of what it yields, the guess $\hat x_0$ at the same times.

# %%
show_rows({f"guess, t = {t}": frames[t][1] for t in (1000, 800, 600, 300, 100, 20)})
plt.show()

# %% [markdown]
# Here is the answer to "why not in one go?" (M36). At $t=1000$ the guess is the same grey blot for everyone: pure noise says nothing about the digit, and the best guess of an unknown digit is the *mean* of all digits. One pass of the network is not generation. As the chain commits itself, the blot splits into candidates, then sharpens. The picture was not hidden in $x_T$; it was decided on the way.
#
# ### Play with it
#
# Move the slider from 1000 down to 0. Upper row: $x_t$. Lower row: what the network thinks of it. Watch when a digit is decided, and whether it changes its mind.

# %%
from ddpm_course.widgets import explore, slider


def draw(t):
    show_rows({f"x_t, t = {t}": frames[t][0], "guess": frames[t][1]})


explore(draw, t=slider(0, 1000, 500, 20, label="t"))

# %% [markdown]
# ### How good are they? A number with its floor
#
# The **Fréchet distance** compares two sets of pictures as sets: means and covariances of 64 features from a small digit classifier (chapter 14 takes it apart). It is 0 for equal moments. It depends on $n$, the number of pictures, and it is not 0 even for two sets of *real* digits. That value is the **floor**. So we draw as many samples as there are held-out digits, $n=179$, and compare both with the training set. Pure noise gives the other end of the scale. 25 steps each, with $\tilde\beta$ and with $\beta$.

# %% tags=["nbval-ignore-output"]
ruler, held_out = load_classifier("digits"), digits().val.images
train_features = ruler.features(digits().train.images)


def distance(pictures):
    return frechet_distance(train_features, ruler.features(pictures))


n = len(held_out)
drawn = {kind: ddpm_sample(net, net_schedule, (n, 1, 8, 8), num_steps=25, variance=kind, generator=seeded(18))
         for kind in ("posterior", "beta")}
pure_noise = torch.randn(n, 1, 8, 8, generator=seeded(19)).clamp(-1, 1)
scores = {"held-out digits (the floor)": distance(held_out), "noise": distance(pure_noise)}
scores |= {f"shipped network, S = 25, {kind}": distance(x) for kind, x in drawn.items()}
print("\n".join(f"n = {n}   {name:36s} {value:5.1f}" for name, value in scores.items()))
assert max(distance(x) for x in drawn.values()) < 3 * distance(held_out) < 0.3 * scores["noise"]

# %% [markdown]
# The samples are near the floor and far from noise. Be careful with small differences: another draw of 179 real digits moves the floor itself by a good part of its value. And do not rejoice if samples score *below* the floor. They are compared with the training set, and a network that has seen that set may sit closer to it than unseen real digits do. A distance alone cannot tell good from copied (chapter 14 tests for that).
#
# How stable is the floor? Draw 179 of the training digits at random and compare them with the rest, six times.

# %%
floors = []
for k in range(6):
    order = torch.randperm(len(train_features), generator=seeded(k))
    floors.append(frechet_distance(train_features[order[179:]], train_features[order[:179]]))
print(f"six floors from real digits, n = 179: between {min(floors):.1f} and {max(floors):.1f}")
assert max(floors) > 1.3 * min(floors)

# %% [markdown]
# ### Trained while you wait
#
# The shipped network had 6,000 steps. What do a few seconds buy? Here `train` makes 150 steps with half the width (about a quarter of the weights), and the very same sampler draws from it.

# %% tags=["nbval-ignore-output"]
small = UNetConfig(image_size=8, channels=1, base_channels=16, multipliers=(1, 2), num_res_blocks=1,
                   attention_sizes=(4,), groups=8)
steps = at_scale(cpu=150, gpu=3000)
quick = train(TrainConfig(net=small, steps=steps, batch_size=64, lr=4e-3, warmup=20, ema_decay=0.97))
model = clip_x_0(quick.eps_model(), quick.schedule)
live = ddpm_sample(model, quick.schedule, (n, 1, 8, 8), num_steps=25, generator=seeded(18))
print(f"n = {n}: live {distance(live):.1f}, shipped {distance(drawn['posterior']):.1f}, floor {distance(held_out):.1f}")
assert distance(held_out) < distance(live) < scores["noise"] / 2
show_rows({"data": held_out[:14], "shipped": drawn["posterior"][:14], "live": live[:14]})
plt.show()

# %% [markdown]
# The quick network has learnt strokes and a good part of the shapes; some of its digits one can read, others are crossed between two. The distance says the same. Nothing in the sampler changed between the rows: the sampler is done; from here on only the network can improve.
#
# For the eye, MNIST at 28×28 from the other shipped network, 40 steps.

# %%
mnist = load_model(shipped("mnist"))
model = clip_x_0(mnist.eps_model(), mnist.schedule)
big = ddpm_sample(model, mnist.schedule, (10, 1, 28, 28), num_steps=40, generator=seeded(20))
assert float(big.abs().max()) <= 1.0001 and float(big.std()) > 0.3
show_rows({"MNIST": big})
plt.show()

# %% [markdown]
# ## Clipping, done right
#
# Pixels lie in $[-1,1]$; a guess $\hat x_0$ may not. At large $t$ it is computed by dividing by the tiny $\sqrt{\bar\alpha_t}$, so a small error of $\hat\varepsilon$ becomes a huge error of $\hat x_0$. At $t=1000$ of the linear schedule the factor is more than 150. Clipping uses what we know for certain about pictures.
#
# But now $\hat x_0$ and $\hat\varepsilon$ no longer belong together, and (9.2) fails: **Ho eq. 7 with the clipped $\hat x_0$ and Ho eq. 11 with the old $\hat\varepsilon$ are different means.** This answers a frequent question, why the code's mean differs from the paper's eq. 11: code that clips uses eq. 7. The package re-derives $\hat\varepsilon$ from the clipped $\hat x_0$, so that the two belong together again, and every sampler can go on using $\hat\varepsilon$.

# %%
off_range = torch.randn(6, 1, 8, 8, generator=seeded(21), dtype=torch.float64)
raw = lambda x, t: 0.9 * x  # noqa: E731 - a poor eps_model: its x_0_hat leaves [-1, 1]
times, t = torch.full((6,), 800), 800
clipped_guess = eps_to_x_0(schedule, off_range, t, raw(off_range, times)).clamp(-1, 1)
by_eq_7 = q_posterior(schedule, clipped_guess, off_range, t)[0]
new_eps, nothing = clip_x_0(raw, schedule)(off_range, times), torch.zeros_like(off_range)
by_eq_11 = ddpm_step(schedule, off_range, new_eps, t, t - 1, nothing)
torch.testing.assert_close(by_eq_7, by_eq_11, rtol=0, atol=1e-12)
old_eps = ddpm_step(schedule, off_range, raw(off_range, times), t, t - 1, nothing)
apart = float((old_eps - by_eq_7).abs().max())
print(f"with eps derived again both means agree: True; with the old eps they differ by up to {apart:.3f}")
assert apart > 1e-3

# %% [markdown]
# What does it do in practice? We measure on the shipped network and on the one trained just now: the share of pixels outside $[-1,1]$ in the finished samples, and the Fréchet distance, with and without clipping, from the same noise.

# %% tags=["nbval-ignore-output"]
for name, trained, clipped in (("shipped", shipped_net, drawn["posterior"]), ("live", quick, live)):
    free = ddpm_sample(trained.eps_model(), trained.schedule, (n, 1, 8, 8), num_steps=25, generator=seeded(18))
    for label, x in (("free", free), ("clipped", clipped)):
        outside = float((x.abs() > 1.001).float().mean())
        print(f"{name:8s} {label:8s} outside {100 * outside:4.1f} %, largest {float(x.abs().max()):.2f}, "
              f"distance {distance(x):.1f} (n = {n})")
        assert (label == "free") == (outside > 0)

# %% [markdown]
# The honest result: clipping brings every pixel into range, and the distance hardly moves, in either direction. These networks predict $v$, whose $\hat x_0=\sqrt{\bar\alpha_t}\,x_t-\sqrt{1-\bar\alpha_t}\,\hat v$ divides by nothing, so their guesses never run far away. How far the *same* small error carries in the $\varepsilon$ form, the next cell shows with an oracle that is off by 0.05.

# %%
for t in (1000, 700, 400, 100):
    x_now = torch.randn(50, 1, 8, 8, generator=seeded(t))
    eps_off = memory(x_now, torch.full((50,), t)) + 0.05
    clean = eps_to_x_0(schedule, x_now, t, memory(x_now, torch.full((50,), t)))
    moved = float((eps_to_x_0(schedule, x_now, t, eps_off) - clean).abs().mean())
    print(f"t = {t:4d}: an error of 0.05 in eps moves the guess by {moved:5.2f}")
    assert abs(moved / (0.05 * float((1 / alpha_bar[t] - 1) ** 0.5)) - 1) < 1e-2

# %% [markdown]
# ### NaN, and who reports it
#
# A NaN anywhere in $\hat\varepsilon$ spreads through all later steps, and the run ends in a black picture without a word. `guard_finite` wraps any `eps_model` and names the time at which it happened. Half precision is the usual culprit. Here we poison one call, at $t=137$.

# %%
def poisoned(x_t, t):
    return oracle(x_t, t) * (math.nan if int(t[0]) == 137 else 1)


silent = ddpm_sample(poisoned, schedule, (4, 2), generator=seeded(23))
print(f"without a guard: {int(silent.isfinite().sum())} of {silent.numel()} numbers are finite, and no message")
healthy, at_500 = torch.randn(4, 2, generator=seeded(24)), torch.full((4,), 500)
assert torch.equal(guard_finite(oracle)(healthy, at_500), oracle(healthy, at_500))  # a good answer passes as it is
try:
    ddpm_sample(guard_finite(poisoned), schedule, (4, 2), generator=seeded(23))
except CourseError as error:
    print("with a guard:", error)

# %% [markdown]
# ## The listing that everyone finds
#
# Search for a short DDPM in PyTorch, and you will soon meet two classes called `GaussianDiffusionTrainer` and `GaussianDiffusionSampler`. Their structure has been copied into hundreds of repositories. Here it is, written afresh, so that you can recognise the parts. First the trainer. `extract` takes the entries of a table at the times `t` and shapes them so that they multiply a batch of pictures. And **`t` is 0-based**: `t = 0` is the first noisy time, which the paper and this course call $t=1$.

# %%
def extract(table, t, x):
    """table[t] for each example, shaped (B, 1, 1, 1)."""
    return table[t].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


class GaussianDiffusionTrainer(nn.Module):
    def __init__(self, model, beta_1, beta_T, T):
        super().__init__()
        self.model, self.T = model, T
        bars = (1 - torch.linspace(beta_1, beta_T, T, dtype=torch.float64)).cumprod(0)
        self.register_buffer("signal", bars.sqrt())
        self.register_buffer("noise", (1 - bars).sqrt())

    def forward(self, x_0, generator=None):
        t = torch.randint(self.T, (len(x_0),), generator=generator)  # 0 .. T-1
        eps = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
        x_t = extract(self.signal, t, x_0) * x_0 + extract(self.noise, t, x_0) * eps
        return (self.model(x_t, t) - eps) ** 2  # one number per pixel; the caller averages


# %% [markdown]
# That is Algorithm 1. The buffers follow the module to the GPU. Now the sampler. It prepares two coefficients for the mean of Ho eq. 11, and two lists of variances: one called posterior variance, and the one it uses, named "fixed large" in code that offers both.

# %%
class GaussianDiffusionSampler(nn.Module):
    def __init__(self, model, beta_1, beta_T, T):
        super().__init__()
        self.model, self.T = model, T
        betas = torch.linspace(beta_1, beta_T, T, dtype=torch.float64)
        bars = (1 - betas).cumprod(0)
        bars_before = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]])
        self.of_x = (1 - betas) ** -0.5
        self.of_eps = self.of_x * betas / (1 - bars).sqrt()
        self.posterior_variance = betas * (1 - bars_before) / (1 - bars)  # of q(x_{t-1} | x_t, x_0)
        self.variance = torch.cat([self.posterior_variance[1:2], betas[1:]])  # the "fixed large" list

    def forward(self, x, generator=None):
        for step in reversed(range(self.T)):
            t = torch.full((len(x),), step)
            mean = extract(self.of_x, t, x) * x - extract(self.of_eps, t, x) * self.model(x, t)
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype) if step > 0 else 0
            x = mean + extract(self.variance, t, x).sqrt() * z
        return x.clamp(-1, 1)


# %% [markdown]
# Does it run, and is it ours after a shift by one? A model for this listing receives 0-based times, so we wrap our oracle with `t + 1`. The variance list goes to `ddpm_sample` as a function of $(t,s)$ in our numbering: $\tilde\beta_2$ at $t=1$, else $\beta_t$.

# %%
shifted = lambda x, t: memory(x, t + 1)  # noqa: E731 - 0-based t in, the paper's t out
x_start = torch.randn(3, 1, 8, 8, generator=seeded(24), dtype=torch.float64)
listing = GaussianDiffusionSampler(shifted, 1e-4, 0.02, 1000)
theirs = listing(x_start, seeded(25))
second = reverse_variance(schedule, 2, 1, "posterior")
fixed_large = lambda t, s: second if t == 1 else reverse_variance(schedule, t, s, "beta")  # noqa: E731
ours = ddpm_sample(memory, schedule, x_T=x_start, variance=fixed_large, generator=seeded(25)).clamp(-1, 1)
torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-9)
print("listing = ddpm_sample after the shift t - 1: True")

# %%
loss = GaussianDiffusionTrainer(shifted, 1e-4, 0.02, 1000)(kept[:32].double(), seeded(26))
same = seeded(26)
t = torch.randint(1000, (32,), generator=same) + 1
eps = torch.randn(32, 1, 8, 8, generator=same, dtype=torch.float64)
wanted = diffusion_loss(memory, schedule, kept[:32].double(), t, eps)
torch.testing.assert_close(loss.flatten(1).mean(1), wanted, rtol=0, atol=1e-10)
print("trainer's loss = diffusion_loss after the shift: True")

# %% [markdown]
# Now read the sampler again with a question: which line does what its name says? In the copies one finds, the list stands under the heading *posterior variance*, and here too it begins with one. But of the thousand posterior variances exactly **one** is put into the list that is used, at position 0, and position 0 belongs to the last step, where `z` is 0. So not a single posterior variance ever reaches a sample. What runs is $\beta_t$, at every step that adds noise. The proof: replace the posterior variances with nonsense.

# %%
vandalised = GaussianDiffusionSampler(shifted, 1e-4, 0.02, 1000)
vandalised.variance[0] = 12345.0  # the only place where a posterior variance stood
print("samples unchanged:", torch.equal(vandalised(x_start, seeded(25)), theirs))
plain_beta = ddpm_sample(memory, schedule, x_T=x_start, variance="beta", generator=seeded(25)).clamp(-1, 1)
torch.testing.assert_close(plain_beta, theirs, rtol=0, atol=1e-9)
print('and the package\'s variance="beta" gives the same: True')

# %% [markdown]
# Why is the entry there at all? For the likelihood: at $t=1$ the bound needs a variance, $\tilde\beta_1=0$ will not do, and $\tilde\beta_2$ was a sensible choice. In a listing that only samples it is a leftover. One more thing differs from our `clip_x_0`: the clamp stands at the very end, on $x_0$, and not on $\hat x_0$ at every step.

# %% [markdown]
# ## Common mistakes
#
# None of these stops with an error. Guess what each does before you run it.
#
# ### Noise at the last step (M25)
#
# `z = randn` in every step, also at $t=1$. On the finite data set the right sampler lands *on* a digit. The wrong one misses by $\sqrt{\beta_1}$ in each of 64 pixels, which is a distance of $0.01\cdot 8=0.08$ on the full grid. With 50 steps the last variance is $1-\bar\alpha_{20}$, and the miss is more than seven times as large.

# %%
def misses(x):
    return float(torch.cdist(x.flatten(1).double(), kept.flatten(1).double()).min(1).values.mean())


for S, last in ((1000, 1), (50, 20)):
    right = ddpm_sample(memory, schedule, (40, 1, 8, 8), num_steps=S, variance="beta", generator=seeded(27))
    grain = (1 - float(alpha_bar[last])) ** 0.5
    wrong = right + grain * torch.randn(right.shape, generator=seeded(28))  # z at the last step, too
    print(f"S = {S:4d}: distance to the data, right {misses(right):.2f}, wrong {misses(wrong):.2f}")
    assert misses(right) < 0.01 and abs(misses(wrong) / (8 * grain) - 1) < 0.05

# %% [markdown]
# The right line: `z = randn if t > 1 else 0`. In this package the condition is $s=0$, so that it also holds on a coarse grid.
#
# ### "z is optional in DDPM" (M7)
#
# Without $z$ the samples look clean, so people leave it out. Look at the law instead. The `pair` has weights 0.7 and 0.3 and width 0.2.

# %%
pair_oracle = pair.eps_model(schedule)
for name, kind in (("with z", "posterior"), ("without z", lambda t, s: 0.0)):
    x = ddpm_sample(pair_oracle, schedule, (2000, 1), variance=kind, generator=seeded(29))
    upper, width = float((x > 0).float().mean()), float(x[x < 0].std())
    print(f"{name:10s} share of the right-hand bell {upper:.2f}, width of the left-hand one {width:.2f}")
    assert (abs(upper - 0.3) < 0.03 and abs(width - 0.2) < 0.02) if name == "with z" else (upper == 0 and width < 0.01)

# %% [markdown]
# Without noise *all* points walk to the heavier bell, and to its very centre. The 30 % are gone. For Gaussian data at least the mean stays right, since every step is affine; for mixtures the weights go, too. (Chapter 10 removes $z$ correctly, and pays for it in another term.)
#
# ### The variance where its root belongs (M6)
#
# `mean + var * z`. With $\tilde\beta$ around 0.01 the noise is ten times too small, and the result is like leaving it out. Passing $\tilde\beta^2$ as variance makes the package commit the mistake, because $\sqrt{\tilde\beta^2}=\tilde\beta$.

# %%
var_times_z = lambda t, s: reverse_variance(schedule, t, s, "posterior") ** 2  # noqa: E731
x = ddpm_sample(pair_oracle, schedule, (2000, 1), variance=var_times_z, generator=seeded(29))
upper, width = float((x > 0).float().mean()), float(x[x < 0].std())
print(f"var * z: share of the right-hand bell {upper:.2f} instead of 0.30, width {width:.2f} instead of 0.20")
assert upper < 0.1 and width < 0.1

# %% [markdown]
# The right line: `mean + var**0.5 * z`. The law is written with the variance; the code multiplies by the standard deviation.
#
# ### "Subtract the predicted noise" (M8)
#
# The popular picture says: the network sees the noise, we subtract it. Taken literally, `x = x - eps` at every step, it explodes: $\hat\varepsilon$ is the noise of all $t$ steps, and subtracting it does not undo the scaling. A tamer version, $x-\beta_t\hat\varepsilon$ with the right noise added, stays finite and is still wrong. The right line has both coefficients of Ho eq. 11: the share $\beta_t/\sqrt{1-\bar\alpha_t}$, and the division by $\sqrt{\alpha_t}$.

# %%
def subtracting(coefficient, stop, generator):
    x = torch.randn(500, 2, generator=generator)
    for t in range(1000, stop, -1):
        noise = reverse_variance(schedule, t, t - 1) ** 0.5 * torch.randn(x.shape, generator=generator)
        x = x - coefficient(t) * oracle(x, torch.full((500,), t)) + noise
    return x


far = bool(subtracting(lambda t: 1.0, 50, seeded(30)).abs().max() > 1e6)
tame = off_and_width(subtracting(lambda t: float(beta[t]), 0, seeded(31)))[0]
print(f"x - eps, stopped at t = 50: some point is farther out than a million: {far}")
print(f"x - beta eps: off the ring about {100 * tame:.0f} %; with Ho eq. 11 below 2 %: {off < 0.02}")
assert far and tame > 0.5 and off < 0.02

# %% [markdown]
# ### Clipping in the wrong place (M26)
#
# Three ways, one right. Clip $\hat x_0$ and go on with the old $\hat\varepsilon$: the mean of Ho eq. 11 never sees the clipping, so it does nothing. Clip the *sample* $x_{t-1}$: it must not be clipped, since a standard normal leaves $[-1,1]$ in 32 % of all cases. Right: clip $\hat x_0$ and derive $\hat\varepsilon$ again. The number that exposes the second one is the variance of $x_t$ on the way.

# %%
def clamp_the_sample(x_s, s):
    return x_s.clamp(-1, 1)


for name, edit in (("x_s clipped", clamp_the_sample), ("x_0_hat clipped", None)):
    walk = trajectory(ddpm_stepper(clip_x_0(memory, schedule), schedule, generator=seeded(32)),
                      torch.randn(60, 1, 8, 8, generator=seeded(33)), time_grid(1000, 1000), edit)
    std = next(float(x_now.std()) for t, x_now, _ in walk if t == 700)
    print(f"{name:16s} standard deviation of x_t at t = 700: {std:.2f} (the forward process has 1.00)")
    assert (std < 0.8) == (edit is not None)

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/09_sampling_student.ipynb), [with solutions](exercises/09_sampling_solution.ipynb). And a longer one, for which you know enough now: [find the planted bugs](exercises/find_the_bugs_student.ipynb).

# %% [markdown]
# **9.1 ★** `ddpm_sample` runs the full grid with $T=1000$ and is given a shape, not an $x_T$. How often does it draw from the generator?

# %% [markdown] tags=["hint"]
# **Hint 9.1**
#
# Which step adds no noise? And where does the chain start?

# %% tags=["exercise"]
draws = ...
check("9.1", draws)

# %% tags=["solution"]
draws = 1 + 999  # x_T, and z at every step except the last
must_pass("9.1", draws)

# %% [markdown]
# **9.2 ★** Let $\bar\alpha_{t-1}=0.5$ and $\alpha_t=0.8$. Compute $\tilde\beta_t$ by hand.

# %% [markdown] tags=["hint"]
# **Hint 9.2**
#
# You need $\bar\alpha_t=\alpha_t\,\bar\alpha_{t-1}$ first.

# %% tags=["exercise"]
beta_tilde = ...
check("9.2", beta_tilde)

# %% tags=["solution"]
beta_tilde = (1 - 0.5) / (1 - 0.8 * 0.5) * (1 - 0.8)
must_pass("9.2", beta_tilde)

# %% [markdown]
# **9.3 ★★** Write the mean of a jump from $t$ to $s$, given $x_t$, $\hat\varepsilon$, $\bar\alpha_t$ and $\bar\alpha_s$. Check it in your head at $\bar\alpha_s=1$: it must be $\hat x_0$.

# %% [markdown] tags=["hint"]
# **Hint 9.3**
#
# A jump is one step with $\alpha=\bar\alpha_t/\bar\alpha_s$. Put this into the mean of a single step.

# %% tags=["exercise"]
def jump_mean_of(x_t, eps_hat, bar_t, bar_s):
    return ...


check("9.3", jump_mean_of)


# %% tags=["solution"]
def jump_mean_of(x_t, eps_hat, bar_t, bar_s):
    alpha = bar_t / bar_s
    return (x_t - (1 - alpha) / (1 - bar_t) ** 0.5 * eps_hat) / alpha**0.5


must_pass("9.3", jump_mean_of)

# %% [markdown]
# **9.4 ★★★** Data $\mathcal N(0,\kappa)$, the oracle, and only two steps: $T\to s\to 0$, starting from $x_T\sim\mathcal N(0,1)$, with $\tilde\beta$ at the first step. Write the variance of the result as a function of $\kappa$, $\bar\alpha_T$ and $\bar\alpha_s$. (Use 9.8 and 9.9 twice. What is added at the second step?)

# %% [markdown] tags=["hint"]
# **Hint 9.4**
#
# One step multiplies the variance by the square of a factor, and adds $\tilde\beta$. Do it twice; at $s=0$ nothing is added.

# %% tags=["exercise"]
def two_step_variance(kappa, bar_T, bar_s):
    return ...


check("9.4", two_step_variance)


# %% tags=["solution"]
def two_step_variance(kappa, bar_T, bar_s):
    kappa_T, kappa_s, alpha = bar_T * kappa + 1 - bar_T, bar_s * kappa + 1 - bar_s, bar_T / bar_s
    V_s = alpha * (kappa_s / kappa_T) ** 2 * 1.0 + (1 - alpha) * (1 - bar_s) / (1 - bar_T)
    return bar_s * (kappa / kappa_s) ** 2 * V_s  # the last step adds nothing


must_pass("9.4", two_step_variance)

# %% [markdown]
# **9.5 ★★** Without $z$. Data $\mathcal N(0,\kappa)$, the oracle, and $x_t$ with the right variance $\kappa_t=\bar\alpha_t\kappa+1-\bar\alpha_t$. One step from $t$ to $s$ is made **without** adding noise. Which fraction of the right variance $\kappa_s$ does $x_s$ have? Check in your head: what is it for a very small step?

# %% [markdown] tags=["hint"]
# **Hint 9.5**
#
# The step multiplies $x_t$ by $\sqrt\alpha\,\kappa_s/\kappa_t$, with $\alpha=\bar\alpha_t/\bar\alpha_s$. A factor enters the variance squared.

# %% tags=["exercise"]
def kept_without_z(kappa, bar_t, bar_s):
    return ...


check("9.5", kept_without_z)


# %% tags=["solution"]
def kept_without_z(kappa, bar_t, bar_s):
    kappa_t, kappa_s = bar_t * kappa + 1 - bar_t, bar_s * kappa + 1 - bar_s
    return bar_t / bar_s * kappa_s / kappa_t  # (factor^2 kappa_t) / kappa_s


must_pass("9.5", kept_without_z)

# %% [markdown]
# **9.6 ★★★** Clipping, done right, for one pixel. From $x_t$ and $\hat\varepsilon$ compute $\hat x_0$, clip it to $[-1,1]$, and return the mean of the DDPM step from $t$ to $s$ that belongs to the *clipped* $\hat x_0$.

# %% [markdown] tags=["hint"]
# **Hint 9.6**
#
# The form of the mean with $\hat\varepsilon$ knows nothing of the clipping. Which form contains $\hat x_0$?

# %% tags=["exercise"]
def clipped_mean(x_t, eps_hat, bar_t, bar_s):
    return ...


check("9.6", clipped_mean)


# %% tags=["solution"]
def clipped_mean(x_t, eps_hat, bar_t, bar_s):
    x_0_hat = (x_t - (1 - bar_t) ** 0.5 * eps_hat) / bar_t**0.5
    x_0_hat, alpha = max(-1.0, min(1.0, x_0_hat)), bar_t / bar_s
    return (bar_s**0.5 * (1 - alpha) * x_0_hat + alpha**0.5 * (1 - bar_s) * x_t) / (1 - bar_t)


must_pass("9.6", clipped_mean)

# %% [markdown]
# ## What comes next
#
# A thousand calls of the network for one picture is a high price, and we have seen what DDPM loses when it makes fewer: variance, and with it sharpness and diversity. Chapter 10 asks whether the *same* network can be used with another chain, one that needs fewer steps and no dice at all. The key is hidden in chapter 06: the training loss never looked at two neighbouring steps together.
