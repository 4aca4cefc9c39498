# %% [markdown]
# # 10 · DDIM: fewer steps from the same network
#
# **The question.** The sampler of chapter 09 asks the network a thousand times for one picture. The network was trained once, for single noise levels, and knows nothing of steps. Could we visit only twenty of the thousand times? And could we drop the dice, so that one start gives one picture?
#
# **After this chapter you can**
#
# - derive a whole family of processes that share the marginals $q(x_t\mid x_0)$, for any admissible $\sigma$;
# - say why a network trained for one member serves all of them;
# - write the DDIM step and its two limits: $\eta=1$ is DDPM, $\eta=0$ is deterministic;
# - choose a time grid, walk a picture back to its noise, and walk between two pictures;
# - report quality against the number of steps honestly.
#
# *Needs:* chapters 02, 03, 06 and 09. *Time:* about three hours with the exercises.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import ExactGaussian, GaussianMixture, clip_x_0, cosine_schedule, ddim_sample, ddim_step, ddpm_sample
from ddpm_course import ddpm_step, linear_schedule, load_model, normal_kl, reverse_variance, shipped, time_grid
from ddpm_course import trajectory
from ddpm_course.checks import check, must_pass
from ddpm_course.plots import BLUE, ORANGE, curves, scatter, show_rows, style
from ddpm_course.proofs import Expect, agrees, alpha_t, bar_s, bar_t, beta_t, derive, eps, eps_hat, equation, limit
from ddpm_course.proofs import sigma, table_values, x_0, x_t, z

style()
schedule = linear_schedule(T=1000)

# %% [markdown]
# First the promise, in pictures. One network, shipped with the course and trained on MNIST, sits behind all four rows. Only the sampler and the number of steps differ. All rows start from the same noise.

# %%
trained = load_model(shipped("mnist"))
mnist_model = clip_x_0(trained.eps_model(), trained.schedule)
x_T = torch.randn(12, 1, 28, 28, generator=torch.Generator().manual_seed(0))
rows = {f"DDIM, {S} steps": ddim_sample(mnist_model, trained.schedule, x_T=x_T, num_steps=S) for S in (5, 20, 50)}
rng = torch.Generator().manual_seed(1)
rows["DDPM, 20 steps"] = ddpm_sample(mnist_model, trained.schedule, x_T=x_T, num_steps=20, generator=rng)
show_rows(rows)
plt.show()

# %% [markdown]
# Two things strike the eye. With DDIM nearly always the *same* digit appears, whether we take 20 or 50 steps: the start alone decides. And DDPM, with fresh dice at every step, mostly draws another digit, and never the same drawing. (Not every sample is a good digit. The network is small and was trained for half an hour on a CPU; no sampler repairs that.) We now derive why the first rows are legal at all.
#
# ## What training really fixed
#
# Look at the loss of chapter 06 again:
# $L=\mathbb E_{x_0,\,t,\,\varepsilon}\,\|\varepsilon-\varepsilon_\theta(x_t,t)\|^2$ with $x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$.
# It contains $x_t$ and $x_0$. It never contains $x_t$ and $x_{t-1}$ *together*. So training fixes the **marginals** $q(x_t\mid x_0)$, and says nothing about how the times hang together. Every *process* with these marginals is as good a teacher as the Markov chain of chapter 02.
#
# So let us look for others; one family is enough. We go backwards, from $T$ down, and ask for a Gaussian $q_\sigma(x_{t-1}\mid x_t,x_0)$. What can it be made of? We know $x_0$, and we know the noise in $x_t$, which is $(x_t-\sqrt{\bar\alpha_t}\,x_0)/\sqrt{1-\bar\alpha_t}$. Take the right share of $x_0$, keep some of that old noise, and fill up with new noise of standard deviation $\sigma$:
#
# $$ q_\sigma(x_{t-1}\mid x_t,x_0)=\mathcal N\!\left(\sqrt{\bar\alpha_{t-1}}\,x_0+\sqrt{1-\bar\alpha_{t-1}-\sigma^2}\;\frac{x_t-\sqrt{\bar\alpha_t}\,x_0}{\sqrt{1-\bar\alpha_t}},\ \sigma^2 I\right),\qquad 0\le\sigma^2\le 1-\bar\alpha_{t-1} \tag{10.1, definition} $$
#
# The bound on $\sigma^2$ keeps the root real. The claim: **whatever $\sigma$ we choose, the marginals stay what they were.**
#
# ### The proof, by induction from T down to 1
#
# The new process is built from its end: first $x_T$ given $x_0$, then $x_{T-1}$ by (10.1), and so on down. The marginal $q_\sigma(x_{t-1}\mid x_0)$ is what one gets by drawing $x_t$ given $x_0$, then $x_{t-1}$ given both, and forgetting $x_t$.
#
# *Base.* At $T$ we set $q_\sigma(x_T\mid x_0)=\mathcal N(\sqrt{\bar\alpha_T}\,x_0,(1-\bar\alpha_T)I)$, by decree.
#
# *Step.* Suppose the marginal at $t$ is right, so $x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$ with a standard normal $\varepsilon$. Draw $x_{t-1}$ by (10.1), with new noise $z$ independent of $\varepsilon$. Given $x_0$ it is a sum of Gaussians, hence Gaussian. Its mean and its variance remain to be found. The old noise, seen from $x_t$, is just $\varepsilon$:

# %% tags=["proof"]
x_t_expr = sp.sqrt(bar_t) * x_0 + sp.sqrt(1 - bar_t) * eps
equation("10.2", (x_t - sp.sqrt(bar_t) * x_0) / sp.sqrt(1 - bar_t), eps, given={x_t: x_t_expr})

# %% [markdown]
# So $x_{t-1}=\sqrt{\bar\alpha_{t-1}}\,x_0+\sqrt{1-\bar\alpha_{t-1}-\sigma^2}\,\varepsilon+\sigma z$. Both expectations below run over $\varepsilon$ and $z$, with $x_0$ held fixed.

# %% tags=["proof"]
keep = sp.sqrt(1 - bar_s - sigma**2)
x_prev = sp.sqrt(bar_s) * x_0 + keep * eps + sigma * z
derive("10.3", Expect(x_prev, eps, z),
       (sp.sqrt(bar_s) * x_0 + keep * Expect(eps, eps) + sigma * Expect(z, z), "linear; x_0 is fixed"),
       (sp.sqrt(bar_s) * x_0, "both noises have mean 0"), source="DDIM Lemma 1, the mean")
derive("10.4", Expect((keep * eps + sigma * z) ** 2, eps, z),
       (keep**2 * Expect(eps**2, eps) + sigma**2 * Expect(z**2, z), "independent noises: the mixed term has mean 0"),
       ((1 - bar_s - sigma**2) + sigma**2, "each noise has variance 1; sigma cancels"), source="DDIM Lemma 1, the variance")

# %% [markdown]
# The last line is $1-\bar\alpha_{t-1}$: the new noise fills exactly the hole that the kept noise leaves. So the marginal at $t-1$ is right too: $q_\sigma(x_{t-1}\mid x_0)=\mathcal N(\sqrt{\bar\alpha_{t-1}}\,x_0,(1-\bar\alpha_{t-1})I)$. That is the claim for $t-1$, and the induction goes on down to the marginal of $x_1$. (One more step would go to $t-1=0$. There $\bar\alpha_0=1$ allows only $\sigma=0$, and (10.1) returns $x_0$ itself.) Nowhere did the value of $\sigma$ matter, and it may differ from step to step. What the proof does *not* say: that samples are equally good for all $\sigma$ once $x_0$ is replaced by a guess.
#
# ### Which process is non-Markov?
#
# In the chain of chapter 02, $x_t$ depends on $x_{t-1}$ alone. In the family (10.1), Bayes' rule with the condition $x_0$ (the lines of 3.2 *before* Markov is used), turned round, gives the step upwards: $q_\sigma(x_t\mid x_{t-1},x_0)=q_\sigma(x_{t-1}\mid x_t,x_0)\,q(x_t\mid x_0)/q(x_{t-1}\mid x_0)$. Every factor contains $x_0$, and in general it does not cancel: at $\sigma=0$, for instance, $x_{t-1}$ and $x_0$ together determine $x_t$, and $x_{t-1}$ alone does not. So $x_t$ depends on $x_{t-1}$ *and* $x_0$, and the **inference** process, from data to noise, is not a Markov chain. Generation, which knows only $x_t$, still is a chain. The picture shows two members of the family for one pixel with $x_0=1$: $\sigma^2=\tilde\beta_t$, which gives back the chain of chapter 02 (called $\eta=1$, see 10.8), and $\sigma=0$ ($\eta=0$). The paths could hardly differ more; each vertical slice has the same law (right: the slice at $t=30$).

# %%
short = cosine_schedule(T=60)
generator, paths = torch.Generator().manual_seed(2), {}
for name, eta in (("eta = 1: the Markov chain", 1.0), ("eta = 0: no new noise", 0.0)):
    start = short.alpha_bar[-1] ** 0.5 + (1 - short.alpha_bar[-1]) ** 0.5 * torch.randn(4000, 1, generator=generator)
    to_one = lambda x, t: (x - short.at(t, 2) ** 0.5) / (1 - short.at(t, 2)) ** 0.5  # the noise, x_0 = 1 being known
    step = lambda x, t, s, eta=eta: (ddim_step(short, x, to_one(x, t), t, s, torch.randn(x.shape, generator=generator,
                                                                                       dtype=x.dtype), eta), x)
    paths[name] = torch.stack([x for _, x, _ in trajectory(step, start, time_grid(60, 60))])[..., 0]

# %%
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3))
for ax, (name, path) in zip((left, middle), paths.items(), strict=True):
    ax.plot(torch.arange(60, -1, -1), path[:, :25], color=BLUE, alpha=0.5, linewidth=0.8)
    ax.set(title=name, xlabel="t", ylim=(-3, 3))
for (_name, path), color in zip(paths.items(), (BLUE, ORANGE), strict=True):
    right.hist(path[30].numpy(), bins=60, density=True, histtype="step", color=color, linewidth=1.8)
right.set(title="the slice at t = 30, both", xlabel="$x_{30}$", yticks=[])
wanted = 1 - float(short.alpha_bar[30])
for name, path in paths.items():
    assert abs(float(path[30].var()) / wanted - 1) < 0.1
    together = float(torch.corrcoef(torch.stack([path[30], path[20]]))[0, 1])
    print(f"{name:26s} variance at t = 30 as it should be: True;  correlation of x_30 and x_20: {together:.1f}")

# %% [markdown]
# ## Why the same network serves
#
# To generate we do not know $x_0$. As in chapter 09 we put a guess in its place, $\hat x_0=(x_t-\sqrt{1-\bar\alpha_t}\,\hat\varepsilon)/\sqrt{\bar\alpha_t}$, and call the result $p_\theta(x_{t-1}\mid x_t)$.
#
# What is the bound for this pair, $q_\sigma$ and $p_\theta$? The start is that of chapter 05: $L_\sigma=\mathbb E\big[\log\frac{q_\sigma(x_{1:T}\mid x_0)}{p_\theta(x_{0:T})}\big]$, an average over all of $x_1,\dots,x_T$ drawn by $q_\sigma$. It needs no Markov property (Jensen takes any guess). And the rest is easier than there. $q_\sigma$ is *made* of factors that point backwards, $q_\sigma(x_{1:T}\mid x_0)=q(x_T\mid x_0)\prod_{t=2}^Tq_\sigma(x_{t-1}\mid x_t,x_0)$. So nothing has to be turned round by Bayes' rule, and nothing telescopes. The factors above and below pair off as they stand:

# %% tags=["proof"]
def density(text, *over):
    law = lambda self, printer, exp=None: text if exp is None else rf"{text}^{{{exp}}}"  # noqa: E731
    return type(text, (sp.Function,), {"_latex": law, "_eval_is_positive": lambda self: True})(*over)


film = sp.Symbol(r"x_{1:T}\sim q_\sigma(\cdot\mid x_0)", real=True)
q_end, p_end, p_first = (density(text, film) for text in (r"q(x_T\mid x_0)", "p(x_T)", r"p_\theta(x_0\mid x_1)"))
q_steps, p_steps = (density(rf"\left[\textstyle\prod_{{t\ge2}} {text}\right]", film) for text in
                    (r"q_\sigma(x_{t-1}\mid x_t,x_0)", r"p_\theta(x_{t-1}\mid x_t)"))  # fmt: skip
derive("10.5", Expect(sp.log(q_end * q_steps / (p_end * p_steps * p_first)), film),
       (Expect(sp.log(q_end / p_end), film) + Expect(sp.log(q_steps / p_steps), film) - Expect(sp.log(p_first), film),
        "logarithm of a product; mean of a sum"), source="DDIM section 3.2")

# %% [markdown]
# The three terms of chapter 05 again. The prior (with $x_T$) contains neither $\sigma$ nor the network. In the term with the two products, the logarithm is a sum over $t=2,\dots,T$. In each summand draw $x_t\sim q(x_t\mid x_0)$ first, and then $x_{t-1}$ with $x_t$ held fixed: an average over $x_t$ of a KL divergence. **Here is where the marginals come in.** The outer average runs over $q_\sigma(x_t\mid x_0)$, and we have just proved that this is the same law for every $\sigma$.
#
# The two Gaussians in the KL have *equal* variance $\sigma^2$, so it is the squared difference of their means over $2\sigma^2$ (chapter 01). How does it depend on the network? Both means are made from the same $x_t$, once with the true $\varepsilon$ and once with $\hat\varepsilon$. In the mean, a noise appears twice: in the guess, with the factor $-\sqrt{\bar\alpha_{t-1}}\sqrt{1-\bar\alpha_t}/\sqrt{\bar\alpha_t}$, and in the direction, with the factor $\sqrt{1-\bar\alpha_{t-1}-\sigma^2}$.

# %% tags=["proof"]
def mean_with(noise):
    x_0_from = (x_t - sp.sqrt(1 - bar_t) * noise) / sp.sqrt(bar_t)
    return sp.sqrt(bar_s) * x_0_from + keep * noise


lever = keep - sp.sqrt(bar_s) * sp.sqrt(1 - bar_t) / sp.sqrt(bar_t)
divergence = lever**2 / (2 * sigma**2) * (eps - eps_hat) ** 2
derive("10.6", (mean_with(eps) - mean_with(eps_hat)) ** 2 / (2 * sigma**2),
       (divergence, "x_t cancels; collect: a number, times the squared error"), source="DDIM Theorem 1")
x_now, e_now, e_true = (torch.tensor([[number]], dtype=torch.float64) for number in (0.7, -0.4, 0.9))
zero = torch.zeros_like(x_now)
for eta in (0.4, 1.0):
    var = eta**2 * reverse_variance(schedule, 300, 299, "posterior")
    values = table_values(schedule, 300) | {x_t: 0.7, eps_hat: -0.4, eps: 0.9, sigma: var**0.5}
    means = [ddim_step(schedule, x_now, noise, 300, 299, zero, eta) for noise in (e_true, e_now)]
    agrees(divergence, values, normal_kl(means[0], var, means[1], var))

# %% [markdown]
# The last lines compare the displayed divergence with `normal_kl` of the package's own two steps, at $\eta=0.4$ and $\eta=1$ (the step and $\eta$ come in the next section). So each term of the bound with $t\ge2$ is (a number that depends on $t$ and $\sigma$) × $\|\varepsilon-\hat\varepsilon\|^2$, averaged over $x_t\sim q(x_t\mid x_0)$. The reconstruction, at $t=1$, is by choice a Gaussian around $\hat x_0$ with some fixed variance (it belongs to $p_\theta$ only; (10.1) does not bind it), so by (6.12) it is a constant plus a number times $\|\varepsilon-\hat\varepsilon\|^2$ too. In all, $L_\sigma$ is the loss we trained with, with other weights over $t$, plus a constant. This is DDIM Theorem 1. If the network can treat each $t$ on its own, the best answer does not depend on those weights: it is $\mathbb E[\varepsilon\mid x_t]$ for all of them (chapter 06). **One training serves every $\sigma$.** A real network shares its weights among all $t$, so this holds exactly only for a network without limits; that it holds well enough is an experience, not a theorem. And the argument needs $\sigma>0$: at $\sigma=0$ the number is infinite. The deterministic sampler is the limit of members that are covered, not a member itself.
#
# Could we also skip times? Yes, by the same argument: nothing in (10.1) needs $t$ and $t-1$ to be neighbours. Read $s$ for $t-1$ everywhere, any $s<t$.

# %% [markdown]
# ## The step
#
# Here it is, with its three parts (DDIM eq. 12):
#
# $$ x_s=\underbrace{\sqrt{\bar\alpha_s}\;\hat x_0}_{\text{the guess, at its share}}+\underbrace{\sqrt{1-\bar\alpha_s-\sigma^2}\;\hat\varepsilon}_{\text{the direction back to }x_t}+\underbrace{\sigma z}_{\text{new noise}} \tag{10.7, definition} $$
#
# and the usual way to name $\sigma$ by one number $\eta$ between 0 and 1 (DDIM eq. 16):
#
# $$ \sigma^2=\eta^2\;\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\left(1-\frac{\bar\alpha_t}{\bar\alpha_s}\right) \tag{10.8, definition} $$
#
# At $\eta=1$ this is $\tilde\beta$, the posterior variance of chapter 03. Is the whole step then the DDPM step? The variance agrees by definition. For the mean we need what is left for the direction, and then the sum. Below $\alpha_t=\bar\alpha_t/\bar\alpha_{t-1}$ and $\beta_t=1-\alpha_t$. The step that is used twice: $1-\bar\alpha_t-\beta_t=\alpha_t-\bar\alpha_t=\alpha_t(1-\bar\alpha_{t-1})$.

# %% tags=["proof"]
tables = {bar_t: alpha_t * bar_s, beta_t: 1 - alpha_t}
tilde = beta_t * (1 - bar_s) / (1 - bar_t)
derive("10.9", 1 - bar_s - tilde,
       ((1 - bar_s) * (1 - bar_t - beta_t) / (1 - bar_t), "a common factor and a common denominator"),
       (alpha_t * (1 - bar_s) ** 2 / (1 - bar_t), "the step named above"), given=tables)
guess = (x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t)
direction = sp.sqrt(alpha_t) * (1 - bar_s) / sp.sqrt(1 - bar_t)
derive("10.10", sp.sqrt(bar_s) * guess + direction * eps_hat,
       ((x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(alpha_t) + direction * eps_hat, "alpha bars: their ratio is alpha"),
       (x_t / sp.sqrt(alpha_t) - ((1 - bar_t) - alpha_t * (1 - bar_s)) / (sp.sqrt(alpha_t) * sp.sqrt(1 - bar_t)) * eps_hat,
        "collect the noise over one denominator"),
       ((x_t - beta_t / sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(alpha_t), "the bracket is beta, by the step named above"),
       given=tables, source="DDIM at eta = 1 is Ho eq. 11")

# %% [markdown]
# The factor of $\hat\varepsilon$ in (10.10) is the root of (10.9). So $\eta=1$ *is* DDPM with $\tilde\beta$, and $\eta=0$ is the other end: no dice at all. The proof compares single steps. It does not say that both ends sample equally well with few steps; that is measured below.
#
# > **An image to keep.** Cleaning a window. DDPM wipes a little and then breathes on the glass again, a thousand times, with less breath each time. DDIM wipes along the streak that it sees, and never breathes. *Where it breaks:* a window has one clean state. Here the streaks decide what will be behind the glass, and a wrong guess early on is never corrected by later dice.
#
# ### By hand
#
# Five lines, then the comparison with the package: neighbours and long jumps, three values of $\eta$, the last step included.

# %%
def my_ddim_step(x_t, eps_hat, t, s, z, eta):
    bar_t, bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    var = eta**2 * (1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s)
    x_0_hat = (x_t - (1 - bar_t) ** 0.5 * eps_hat) / bar_t**0.5
    return bar_s**0.5 * x_0_hat + (1 - bar_s - var) ** 0.5 * eps_hat + var**0.5 * z


x, e, noise = torch.randn(3, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
for t, s in ((1, 0), (2, 1), (500, 499), (500, 30), (1000, 999), (1000, 0)):
    for eta in (0.0, 0.4, 1.0):
        mine, package = my_ddim_step(x, e, t, s, noise, eta), ddim_step(schedule, x, e, t, s, noise, eta)
        torch.testing.assert_close(mine, package, rtol=0, atol=1e-10)
print("by hand = package for 6 pairs (t, s) and 3 values of eta: True")

# %% [markdown]
# The displayed formulas against the package, at $t=300$, number by number: the kept direction at $\eta=1$ from (10.9), and the mean of (10.10) against `ddpm_step`.

# %% tags=["proof"]
values = table_values(schedule, 300) | {x_t: 0.7, eps_hat: -0.4, sigma: 0.0}
x_now, e_now = (torch.tensor([[v]], dtype=torch.float64) for v in (0.7, -0.4))
zero = torch.zeros_like(x_now)
agrees(sp.sqrt(bar_s) * guess + direction * eps_hat, values, ddpm_step(schedule, x_now, e_now, 300, 299, zero))
agrees(sp.sqrt(bar_s) * guess + direction * eps_hat, values, ddim_step(schedule, x_now, e_now, 300, 299, zero, eta=1.0))
agrees(mean_with(eps_hat), values, ddim_step(schedule, x_now, e_now, 300, 299))
agrees(tilde, values, reverse_variance(schedule, 300, 299, "posterior"))

# %% [markdown]
# And whole runs. The oracle of eight Gaussians on a ring plays the network, so nothing has to be trained. With the same generator, both samplers draw the same noises. At $\eta=1$ they must agree up to rounding; at $\eta=0$ two runs must agree bit for bit.

# %%
angles = torch.arange(8) * math.pi / 4
ring = GaussianMixture(torch.full((8,), 1 / 8), 1.4 * torch.stack([angles.cos(), angles.sin()], 1), torch.full((8,), 0.1))
oracle = ring.eps_model(schedule)
x_T = torch.randn(500, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
as_ddim = ddim_sample(oracle, schedule, x_T=x_T, num_steps=1000, eta=1.0, generator=torch.Generator().manual_seed(5))
as_ddpm = ddpm_sample(oracle, schedule, x_T=x_T, generator=torch.Generator().manual_seed(5))
torch.testing.assert_close(as_ddim, as_ddpm, rtol=0, atol=1e-9)
once, twice = (ddim_sample(oracle, schedule, x_T=x_T, num_steps=50) for _ in range(2))
print(f"eta = 1 equals DDPM: True;  eta = 0 twice, bit for bit: {torch.equal(once, twice)}")

# %% [markdown]
# *Is the same network really used in both samplers?* Yes, and in the same way. We let a spy stand between sampler and oracle. Both samplers ask at the same times; at the first time they hold the same $x_T$ and get the same answer, bit for bit. From there on they differ only in what they make of it.

# %%
def spy_on(sample, seen):
    def spy(x, t):
        seen.append((int(t[0]), oracle(x, t)))
        return seen[-1][1]

    sample(spy, schedule, x_T=x_T, num_steps=5, generator=torch.Generator().manual_seed(6))
    return seen


by_ddpm, by_ddim = spy_on(ddpm_sample, []), spy_on(ddim_sample, [])
same_times = [t for t, _ in by_ddpm] == [t for t, _ in by_ddim] == [1000, 800, 600, 400, 200]
print("same times:", same_times, "  same first answer:", torch.equal(by_ddpm[0][1], by_ddim[0][1]))
assert same_times and torch.equal(by_ddpm[0][1], by_ddim[0][1]) and not torch.equal(by_ddpm[1][1], by_ddim[1][1])

# %% [markdown]
# ### The path
#
# What does "deterministic" look like? Five starts, and their way down. DDIM draws smooth curves which bend towards one of the modes. DDPM staggers and decides late.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.6))
generator = torch.Generator().manual_seed(6)
for ax, eta in zip(axes, (0.0, 1.0), strict=True):
    step = lambda x, t, s, eta=eta: (ddim_step(schedule, x, oracle(x, torch.full((len(x),), t)), t, s,
                                              torch.randn(x.shape, generator=generator, dtype=x.dtype), eta), x)
    walk = torch.stack([x for _, x, _ in trajectory(step, x_T[:5], time_grid(1000, 200))])
    scatter(ring.sample(1500, torch.Generator().manual_seed(7)), ax, f"eta = {eta:g}", "#cccccc")
    ax.plot(walk[..., 0], walk[..., 1], linewidth=0.9)
    ax.scatter(*walk[-1].T, color="black", s=12, zorder=3)

# %% [markdown]
# ## Which times to visit
#
# With $S$ steps out of $T$ we need a **grid** $T\ge t_S>\dots>t_1>0$. Four ways are in use. The differences look like trifles. They are not: *leading*, for $S<T$, never visits $T$, so it starts with a network call at a time that does not belong to pure noise.

# %%
fig, ax = plt.subplots(figsize=(7.5, 2))
for row, spacing in enumerate(("trailing", "leading", "linspace", "quadratic")):
    grid = time_grid(1000, 10, spacing)
    ax.scatter(grid, torch.full_like(grid, row), s=28)
    print(f"{spacing:10s} {grid.tolist()}  visits T: {int(grid[0]) == 1000}")
ax.set(yticks=range(4), yticklabels=("trailing", "leading", "linspace", "quadratic"), xlabel="t", ylim=(-0.6, 3.6))
plt.show()

# %% [markdown]
# The four rules in code, by hand, for $k=S,\dots,1$. We compare them with the package also where $S$ does not divide $T$. In the middle, gaps then differ by one: $S=7$ gives 143 and 142.

# %%
by_hand = {"trailing": lambda k, T, S: round(k * T / S), "leading": lambda k, T, S: 1 + ((k - 1) * T) // S,
           "linspace": lambda k, T, S: round(1 + (T - 1) * (k - 1) / (S - 1)),
           "quadratic": lambda k, T, S: max(k, round(T * k**2 / S**2))}  # fmt: skip
for T, S in ((1000, 10), (1000, 7), (100, 30), (50, 50)):
    for spacing, rule in by_hand.items():
        assert time_grid(T, S, spacing).tolist() == [rule(k, T, S) for k in range(S, 0, -1)] + [0]
assert [int(time_grid(1000, 1, spacing)[0]) for spacing in by_hand] == [1000, 1, 1000, 1000]  # a single step
print("S = 7, trailing:", time_grid(1000, 7).tolist())

# %% [markdown]
# What does it cost not to visit $T$? At $t=901$ a true $x_t$ still holds a trace of the picture, of size $\sqrt{\bar\alpha_{901}}$. A sampler that starts there with pure noise has lost the trace, and above all its *mean*: the samples come out too close to grey. Measured with the cosine schedule, on data of mean 1 and standard deviation 0.5, with a perfect denoiser:

# %%
cosine, bright = cosine_schedule(T=1000), ExactGaussian(torch.ones(1), torch.full((1, 1), 0.25))
noise_1d = torch.randn(4000, 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
noise_1d = noise_1d - noise_1d.mean()  # so that the mean below is free of chance
for spacing in ("trailing", "leading"):
    grid = time_grid(1000, 10, spacing)
    found = float(ddim_sample(bright.eps_model(cosine), cosine, x_T=noise_1d, grid=grid).mean())
    trace = float(cosine.alpha_bar[grid[0]]) ** 0.5
    print(f"{spacing:9s} starts at t = {int(grid[0]):4d}, trace {trace:.2f}: mean {found:.2f}, wanted 1.00")
    assert (abs(found - 1) < 0.01) == (spacing == "trailing")

# %% [markdown]
# Our steps take the pair $(t,s)$, both named. So the neighbour is always the grid's own, also when $S$ does not divide $T$, and on a grid with uneven gaps.
#
# ## How many steps?
#
# The law of the oracle is known, so quality can be measured without any doubt about training. We ask two questions about 2,000 samples. How far is a sample from its nearest mode, on average? For exact samples the answer is $0.1\sqrt{\pi/2}\approx0.125$; more means strays, *less* means that the clouds are too narrow. And which share lies more than three standard deviations off every mode? For exact samples $e^{-4.5}$, about 1 %. Both samplers get the same number of network calls.

# %%
def to_nearest(x):
    return torch.cdist(x.double(), ring.means).min(1).values


def off_mode(x):
    return float((to_nearest(x) > 0.3).double().mean())


counts, n = (5, 10, 20, 50, 100), 2000
starts = torch.randn(n, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
stray, reach = {"DDIM": [], "DDPM": []}, {"DDIM": [], "DDPM": []}
for S in counts:
    for name, sample in (("DDIM", ddim_sample), ("DDPM", ddpm_sample)):
        x = sample(oracle, schedule, x_T=starts, num_steps=S, generator=torch.Generator().manual_seed(9))
        stray[name].append(off_mode(x))
        reach[name].append(float(to_nearest(x).mean()))
floor = off_mode(ring.sample(n, torch.Generator().manual_seed(10)))

# %% [markdown]
# And on real digits, with the shipped network for 8×8 pictures. Here the measure is the Fréchet distance in the features of a small classifier, between $n$ samples and $n$ held-out digits. The floor is the same distance between training digits and held-out digits.

# %%
from ddpm_course.checkpoint import load_classifier
from ddpm_course.data import digits
from ddpm_course.metrics import frechet_distance
from ddpm_course.train import at_scale

net, data, small = load_classifier("digits"), digits(), load_model(shipped("digits"))
digit_model = clip_x_0(small.eps_model(), small.schedule)
m = at_scale(cpu=180, gpu=1000)
real = net.features(torch.cat([data.test.images, data.val.images])[:m])
digit_floor = frechet_distance(net.features(data.train.images[:m]), real)
distances = {"DDIM": [], "DDPM": []}
for S in counts:
    for name, sample in (("DDIM", ddim_sample), ("DDPM", ddpm_sample)):
        rng = torch.Generator().manual_seed(11)
        drawn = sample(digit_model, small.schedule, (m, 1, 8, 8), num_steps=S, generator=rng)
        distances[name].append(frechet_distance(net.features(drawn), real))

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
curves(counts, reach, left, xscale="log", yscale="log", xlabel="steps S", title=f"oracle: distance to nearest mode, n = {n}")
curves(counts, distances, right, xscale="log", yscale="log", xlabel="steps S", title=f"digits: Fréchet distance, n = {m}")
exact = 0.1 * (math.pi / 2) ** 0.5
for ax, value, ticks in ((left, exact, (0.1, 0.15, 0.2, 0.3)), (right, digit_floor, (2, 3, 4, 5, 6))):
    ax.axhline(value, color="black", linewidth=0.8, linestyle=":")
    ax.set_xticks(counts, [str(S) for S in counts])
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()

# %% tags=["nbval-ignore-output"]
print(f"steps | off mode, oracle: DDIM, DDPM (exact {floor:.1%}) | digits: DDIM, DDPM (floor {digit_floor:.1f}, n = {m})")
for i, S in enumerate(counts):
    tail = f"{distances['DDIM'][i]:5.1f} {distances['DDPM'][i]:5.1f}"
    print(f"{S:5d} | {stray['DDIM'][i]:6.1%} {stray['DDPM'][i]:6.1%}                         | {tail}")
assert reach["DDPM"][4] < 0.87 * exact < reach["DDIM"][4] < 0.95 * exact < 2 * exact < reach["DDIM"][0]
assert distances["DDIM"][0] > 1.5 * digit_floor and distances["DDPM"][0] > 1.5 * digit_floor

# %% [markdown]
# The dotted lines are what exact samples would give. Read the figures honestly.
#
# - With five steps both samplers are bad, and DDPM is the worse one. "Fewer steps without loss of quality" is false. The loss shrinks as steps are added.
# - In the left figure both curves go *through* the line between ten and twenty steps, and later climb back to it from below (DDPM only after fifty). Below the line the clouds are too narrow. One reason is the last step: with 20 steps it jumps from $t=50$ straight to the guess $\mathbb E[x_0\mid x_t]$, and a mean has less spread than the data. DDPM has a second one: $\tilde\beta$ adds too little at every step (chapter 09). DDIM is closer: at a hundred steps it is a tenth too narrow, DDPM with $\tilde\beta$ a sixth.
# - A share off mode far *below* that of exact samples is therefore no success. It is the same lack of spread, seen from another side. One number alone would have misled us.
# - On digits the picture is blurred: at $n=180$ the Fréchet distance is itself uncertain. Draw other real digits, and the floor moves by one or more (chapter 09 measured it). A bump or a crossing of the curves of that size means nothing, and from ten steps on we cannot tell the samplers apart. What is beyond doubt is the loss at five steps, and the trend.
#
# ## Walking up: inversion
#
# A deterministic path can be walked both ways. Read the step from $s$ up to $t$: the same formula, with the roles exchanged. One thing is missing on the way up. The step wants $\hat\varepsilon(x_t,t)$, and $x_t$ is what we are looking for. The usual answer is to use $\hat\varepsilon(x_s,t)$ instead, one step old. How wrong is that? Over a step of length $h$ the network's answer changes by something like $h$, and the step multiplies the answer by something like $h$. So one step is off by about $h^2$. There are about $1/h$ steps; over the whole path an error of about $h$ remains, that is, of first order. We measure that order: down after up, on a smooth mixture, with more and more steps: let $x_0^{(S)}$ be where the way down ends, after the way up from $x_0$, with $S$ steps each.

# %% tags=["proof"]
smooth = GaussianMixture(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.3], [0.8, -0.2]]), torch.tensor([0.3, 0.3]))
smooth_model = smooth.eps_model(schedule)


def invert(x, num_steps):
    up = time_grid(1000, num_steps).flip(0).tolist()
    for s, t in zip(up, up[1:], strict=False):
        old = smooth_model(x, torch.full((len(x),), t))  # should be asked at x_t, which is not known yet
        bar_t, bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
        x = bar_t**0.5 * (x - (1 - bar_s) ** 0.5 * old) / bar_s**0.5 + (1 - bar_t) ** 0.5 * old
    return x


points, sizes = smooth.sample(300, torch.Generator().manual_seed(12)), [125, 250, 500, 1000]
back = [ddim_sample(smooth_model, schedule, x_T=invert(points, S), num_steps=S) for S in sizes]
errors = [float((x - points).norm(dim=1).mean()) for x in back]
distance = sp.Symbol(r"\mathbb{E}_{x_0}\lVert x_0^{(S)} - x_0 \rVert")
limit("10.11", distance, sp.Integer(0), sizes=sizes, measured=errors, order=1, tolerance=0.25)

# %% [markdown]
# The recovered point goes to the original as the number of steps $S$ grows, about like $1/S$. This is a measurement on one mixture, no proof. A later chapter removes the error altogether by solving for $x_t$ at every step.
#
# ## Walking across: interpolation
#
# One start, one picture: so starts are an address book of pictures. What lies halfway between two addresses? Not their average. The average of two independent standard normals has too little variance, and the network has never seen such a start. Walk on an arc instead: $x(\theta)=\cos\theta\;a+\sin\theta\;b$. (In the two equations the starts $a$ and $b$ are written $\varepsilon$ and $z$.)

# %% tags=["proof"]
theta = sp.Symbol(r"\theta", real=True)
a, b = eps, z  # two independent standard normals
derive("10.12", Expect((a / 2 + b / 2) ** 2, a, b),
       (Expect(a**2, a) / 4 + Expect(b**2, b) / 4, "independent: the mixed term has mean 0"),
       (sp.Rational(1, 2), "each has variance 1"))
derive("10.13", Expect((sp.cos(theta) * a + sp.sin(theta) * b) ** 2, a, b),
       (sp.cos(theta) ** 2 * Expect(a**2, a) + sp.sin(theta) ** 2 * Expect(b**2, b), "independent, as before"),
       (sp.Integer(1), "cos² + sin² = 1, at every angle"))

# %% [markdown]
# The straight line drops to half the variance in the middle, the arc keeps it at 1. The proof is about two *independent* starts, as ours are. In high dimension this matters more, because the length of noise is almost fixed there (chapter 01): the halfway point of the line is a place where noise never is.

# %%
a, b = torch.randn(2, 1, 1, 28, 28, generator=torch.Generator().manual_seed(13))
share = torch.linspace(0, 1, 11)[:, None, None, None]
arc = torch.cos(share * math.pi / 2) * a + torch.sin(share * math.pi / 2) * b
line = (1 - share) * a + share * b
walks = {"arc": arc, "straight line": line}
show_rows({k: ddim_sample(mnist_model, trained.schedule, x_T=x, num_steps=25) for k, x in walks.items()})
print(f"variance of the start halfway: arc {float(arc[5].var()):.1f}, line {float(line[5].var()):.1f}")

# %% [markdown]
# The two rows differ less than the numbers let one fear. We suspect the clipping of $\hat x_0$, which pulls the straight line back into the range of pictures; try it without. The arc is still the right habit. It costs nothing, and it gives the network only starts of the kind that it knows.

# %% [markdown]
# ### Play with it
#
# Choose $\eta$ and the number of steps. Watch the ring: with few steps it smears at any $\eta$; at twenty steps the eight clouds are narrower than they should be, and one has to know it to see it. Without a running kernel, look at the figures above.

# %%
from ddpm_course.widgets import explore, slider


def draw(eta, steps):
    x = ddim_sample(oracle, schedule, x_T=x_T, num_steps=steps, eta=eta, generator=torch.Generator().manual_seed(14))
    scatter(x, title=f"eta = {eta:g}, {steps} steps: {off_mode(x):.0%} off mode")


explore(draw, eta=slider(0.0, 1.0, 0.0, 0.1, "eta"), steps=slider(2, 100, 10, label="steps"))

# %% [markdown]
# ## Common mistakes
#
# For most of these the data are one pixel with law $\mathcal N(0, 0.25)$, with the exact oracle as network. The right answer is then a single number: the samples must have variance 0.25.
#
# ### "DDIM is DDPM with z = 0" (M9)
#
# Setting $z=0$ removes the new noise and leaves the direction term as short as it was. Setting $\sigma=0$ removes the new noise *and* gives its variance to the direction. Only the second keeps the marginals.

# %%
gauss = ExactGaussian(torch.zeros(1), torch.full((1, 1), 0.25))
gauss_model = gauss.eps_model(schedule)
starts_1d = torch.randn(4000, 1, generator=torch.Generator().manual_seed(15), dtype=torch.float64)


def variance_with(step):
    x, grid = starts_1d, time_grid(1000, 100).tolist()
    for t, s in zip(grid, grid[1:], strict=False):
        x = step(x, gauss_model(x, torch.full((len(x),), t)), t, s)
    return float(x.var())


wrong = variance_with(lambda x, e, t, s: ddim_step(schedule, x, e, t, s, torch.zeros_like(x), eta=1.0))
right = variance_with(lambda x, e, t, s: ddim_step(schedule, x, e, t, s, eta=0.0))
print(f"wanted variance 0.25;  z = 0: {wrong:.2f};  sigma = 0: {right:.2f}")
assert wrong < 0.001 and 0.21 < right < 0.27

# %% [markdown]
# Without new noise in DDPM *nothing* of the spread survives. The 0.23 of $\sigma=0$ is honest too: 4,000 starts have not exactly variance 1, and a hundred steps leave a small error of the first order.

# %% [markdown]
# ### α where ᾱ belongs (M10)
#
# The DDIM paper writes $\alpha_t$ for what this course, with the DDPM paper, calls $\bar\alpha_t$. Whoever copies its formula into a DDPM program takes the wrong table. Nothing crashes.

# %%
def with_alpha(x, e, t, s):
    a_t, a_s = schedule.alpha[t], schedule.alpha[s]  # the mistake: the single-step table
    return a_s**0.5 * (x - (1 - a_t) ** 0.5 * e) / a_t**0.5 + (1 - a_s) ** 0.5 * e


wrong = variance_with(with_alpha)
print(f"wanted variance 0.25;  with alpha instead of alpha_bar off by more than half: {abs(wrong - 0.25) > 0.125}")
assert abs(wrong - 0.25) > 0.125

# %% [markdown]
# ### Fresh noise in the deterministic step (M11)
#
# Whoever writes `randn_like(x)` in the direction term, where the predicted $\hat\varepsilon$ belongs, has chosen $\sigma^2=1-\bar\alpha_s$: the other end of the family. For a known $x_0$ that would be legal. With a guess in its place each step throws away what the guess does not know, and a hundred steps throw away more than half of the variance.

# %%
rng = torch.Generator().manual_seed(16)


def fresh(x, e, t, s):
    x_0_hat = (x - (1 - schedule.at(t)) ** 0.5 * e) / schedule.at(t) ** 0.5
    return schedule.at(s) ** 0.5 * x_0_hat + (1 - schedule.at(s)) ** 0.5 * torch.randn(x.shape, generator=rng, dtype=x.dtype)


wrong = variance_with(fresh)
print(f"wanted variance 0.25;  fresh noise: {wrong:.2f}")
assert wrong < 0.15

# %% [markdown]
# ### The wrong neighbour (M27)
#
# Some programs do not pass $s$. They compute it as `t - T // S`. On a grid whose gaps are not all `T // S` this is another time than the next one visited. (And a grid built with that stride has 334 times instead of 300.) With $T=1000$ and $S=300$:

# %%
grid = time_grid(1000, 300).tolist()
computed = [max(t - 1000 // 300, 0) for t in grid[:-1]]
missed = sum(c != s for c, s in zip(computed, grid[1:], strict=True))
print(f"steps whose computed neighbour is not the grid's: {missed} of 300; times by range(0, T, T // S): {len(range(0, 1000, 3))}")
assert missed == 99 or missed == 100

# %% [markdown]
# ### "DDIM's reverse process is non-Markov" (M13), and "fewer steps, no loss" (M14)
#
# The first picture of this chapter's theory answers M13: it is the *inference* process that needs $x_0$. The generator's input is $x_t$ alone, `ddim_step(schedule, x_t, eps, t, s)`, and that is a chain. Here is the number for M13. Draw $x_0=\pm1$, then $x_t$, then $x_s$ by (10.1), and explain $x_t$ by a straight-line fit on $x_s$ and $x_0$. In a Markov chain $x_s$ says everything, and the coefficient of $x_0$ is 0. That is so at $\eta=1$. At $\eta=0$ both carry the same $\varepsilon$, and eliminating it leaves $x_0$ with the coefficient $\sqrt{\bar\alpha_t}-\sqrt{\bar\alpha_s}\sqrt{(1-\bar\alpha_t)/(1-\bar\alpha_s)}$.

# %%
t, s, rng = 40, 20, torch.Generator().manual_seed(17)
sign = torch.randint(2, (20_000, 1), generator=rng).double() * 2 - 1
true_eps, new = torch.randn(2, 20_000, 1, generator=rng, dtype=torch.float64)
late, early = short.alpha_bar[t], short.alpha_bar[s]
x_late = late**0.5 * sign + (1 - late) ** 0.5 * true_eps
for eta, expected in ((1.0, 0.0), (0.0, float(late**0.5 - early**0.5 * ((1 - late) / (1 - early)) ** 0.5))):
    x_early = ddim_step(short, x_late, true_eps, t, s, new, eta)
    direct = float(torch.linalg.lstsq(torch.cat([x_early, sign], 1), x_late).solution[1])
    print(f"eta = {eta:.0f}: coefficient of x_0 beside x_s: {round(direct, 1) + 0:.1f} (formula {expected:.1f})")
    assert abs(direct - expected) < 0.05

# %% [markdown]
# The quality figure answers M14. One more number, for the smallest budget, with the oracle, so that no training can be blamed:

# %%
print(f"5 steps with the perfect denoiser: {stray['DDIM'][0]:.0%} off mode, exact samples {floor:.0%}")
assert stray["DDIM"][0] > 3 * floor

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/10_ddim_student.ipynb), [with solutions](exercises/10_ddim_solution.ipynb).

# %% [markdown]
# **10.1 ★** At $\eta=0$, what is the factor of $\hat\varepsilon$ in the step to a time with $\bar\alpha_s=0.64$?

# %% [markdown] tags=["hint"]
# **Hint 10.1**
#
# At $\eta=0$ nothing of the variance $1-\bar\alpha_s$ is given to fresh noise.

# %% tags=["exercise"]
factor = ...
check("10.1", factor)

# %% tags=["solution"]
factor = (1 - 0.64) ** 0.5
must_pass("10.1", factor)

# %% [markdown]
# **10.2 ★★** Write $\sigma$ (the standard deviation) as a function of $\bar\alpha_t$, $\bar\alpha_s$ and $\eta$.

# %% [markdown] tags=["hint"]
# **Hint 10.2**
#
# At $\eta=1$ it must be the standard deviation of the posterior, for a jump from $t$ to $s$.

# %% tags=["exercise"]
def ddim_sigma(alpha_bar_t, alpha_bar_s, eta):
    return ...


check("10.2", ddim_sigma)


# %% tags=["solution"]
def ddim_sigma(alpha_bar_t, alpha_bar_s, eta):
    return eta * ((1 - alpha_bar_s) / (1 - alpha_bar_t)) ** 0.5 * (1 - alpha_bar_t / alpha_bar_s) ** 0.5


must_pass("10.2", ddim_sigma)

# %% [markdown]
# **10.3 ★★★** Write one deterministic step *up*, from $x_s$ to $x_t$, for a known $\varepsilon$. Start from the closed form of chapter 02 for both times, and eliminate $x_0$.

# %% [markdown] tags=["hint"]
# **Hint 10.3**
#
# Two equations, $x_s=\dots$ and $x_t=\dots$, with the same $x_0$ and the same $\varepsilon$.

# %% tags=["exercise"]
def step_up(x_s, eps, alpha_bar_t, alpha_bar_s):
    return ...


check("10.3", step_up)


# %% tags=["solution"]
def step_up(x_s, eps, alpha_bar_t, alpha_bar_s):
    x_0 = (x_s - (1 - alpha_bar_s) ** 0.5 * eps) / alpha_bar_s**0.5
    return alpha_bar_t**0.5 * x_0 + (1 - alpha_bar_t) ** 0.5 * eps


must_pass("10.3", step_up)

# %% [markdown]
# **10.4 ★★** Write the trailing grid: the times $\mathrm{round}(kT/S)$ for $k=S,\dots,1$, and the end 0, as a list of $S+1$ integers. $S$ need not divide $T$.

# %% [markdown] tags=["hint"]
# **Hint 10.4**
#
# `grid(10, 3)` is `[10, 7, 3, 0]`.

# %% tags=["exercise"]
def grid(T, S):
    return ...


check("10.4", grid)


# %% tags=["solution"]
def grid(T, S):
    return [round(k * T / S) for k in range(S, 0, -1)] + [0]


must_pass("10.4", grid)

# %% [markdown]
# **10.5 ★★★** Data $\mathcal N(0,\kappa)$ and the oracle. A deterministic step ($\eta=0$) from $t$ to $s$ multiplies $x_t$ by a number. Write it, given $\kappa$, $\bar\alpha_t$ and $\bar\alpha_s$. Check in your head: for $\kappa=0$ it must be $\sqrt{(1-\bar\alpha_s)/(1-\bar\alpha_t)}$. (The exact factor would be $\sqrt{\kappa_s/\kappa_t}$; one large step misses it.)

# %% [markdown] tags=["hint"]
# **Hint 10.5**
#
# With $\kappa_t=\bar\alpha_t\kappa+1-\bar\alpha_t$, the oracle says $\hat x_0=\sqrt{\bar\alpha_t}\,\kappa\,x_t/\kappa_t$ and $\hat\varepsilon=\sqrt{1-\bar\alpha_t}\,x_t/\kappa_t$.

# %% tags=["exercise"]
def path_factor(kappa, bar_t, bar_s):
    return ...


check("10.5", path_factor)


# %% tags=["solution"]
def path_factor(kappa, bar_t, bar_s):
    kappa_t = bar_t * kappa + 1 - bar_t
    return ((bar_s * bar_t) ** 0.5 * kappa + ((1 - bar_s) * (1 - bar_t)) ** 0.5) / kappa_t


must_pass("10.5", path_factor)

# %% [markdown]
# **10.6 ★★★** Clipping in DDIM, for one pixel: compute $\hat x_0$, clip it to $[-1,1]$, and make the deterministic step from $t$ to $s$ so that its two parts still fit together.

# %% [markdown] tags=["hint"]
# **Hint 10.6**
#
# After clipping, the old $\hat\varepsilon$ no longer belongs to $x_t$: which $\hat\varepsilon$ would give $x_t$ with the clipped $\hat x_0$?

# %% tags=["exercise"]
def clipped_step(x_t, eps_hat, bar_t, bar_s):
    return ...


check("10.6", clipped_step)


# %% tags=["solution"]
def clipped_step(x_t, eps_hat, bar_t, bar_s):
    x_0_hat = max(-1.0, min(1.0, (x_t - (1 - bar_t) ** 0.5 * eps_hat) / bar_t**0.5))
    eps_hat = (x_t - bar_t**0.5 * x_0_hat) / (1 - bar_t) ** 0.5  # re-derived
    return bar_s**0.5 * x_0_hat + (1 - bar_s) ** 0.5 * eps_hat


must_pass("10.6", clipped_step)

# %% [markdown]
# ## What comes next
#
# You have the whole of DDPM and its fast sibling: the forward process, the posterior, the bound, the prediction, the network, the training and two samplers. The next part gathers the mistakes of all chapters in one place, then asks how far these samples can be trusted: likelihood, ordinary differential equations, evaluation. After that comes steering: classes, text, inpainting. The deterministic path of this chapter will be needed there, since editing a real picture begins with walking it up to its noise.
