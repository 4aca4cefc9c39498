# %% [markdown]
# # 12 · Likelihood: how surprised is the model?
#
# **The question.** A model has drawn nice digits. Does it also find *your* digits probable? One number answers: bits per dimension. Where does it come from, how exactly can it be had, and what may one conclude from it?
#
# **After this chapter you can**
#
# - turn nats of a density into bits of a grey value, and say when that is allowed;
# - compute the best variance of a reverse step from the error of the network alone, without training;
# - train a network that chooses its variance itself, and say which gradient is stopped and why;
# - get the likelihood without a bound: follow an ordinary differential equation from the picture to the noise and count how space is stretched;
# - estimate the bound from few times $t$ without bias, a hundred times cheaper than with uniform times;
# - say which published numbers yours may stand beside, and which not.
#
# *Needs:* chapters 05 (bound), 06 (weights), 09 (variances), 10 (deterministic path). *Time:* about four hours with the exercises.

# %%
import copy
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import MLP, ExactGaussian, GaussianMixture, cosine_schedule, ddpm_sample, load_model, reverse_variance, shipped
from ddpm_course import q_sample, time_grid, vlb_terms, vlb_weight
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits, mnist5k
from ddpm_course.elbo import vlb_term
from ddpm_course.likelihood import ImportanceTimes, density_bits, dequantise, ode_log_prob, sampled_bound
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, curves, show_rows, style
from ddpm_course.proofs import Expect, agrees, bar_s, bar_t, beta_t, derive, eps, eps_hat, equation, expectation, inequality
from ddpm_course.proofs import normal, table_values, x_0, x_0_hat, x_t, z
from ddpm_course.variance import eps_moments, hybrid_loss, learned_range, optimal_variance
from ddpm_course.widgets import explore, slider

style()


def seeded(k):
    return torch.Generator().manual_seed(k)


# %% [markdown]
# ## Bits: the length of a message
#
# Somebody wants to send you a picture, number by number. You both own the same model. A good code spends $-\log_2 p$ bits on a message of probability $p$: likely messages get short code words. So a model that finds the picture probable makes the message short. Divide by the number of values in the picture, and pictures of different sizes can be compared:
#
# $$ \text{bits per dimension}=\frac{-\log p(x_0)}{D\,\log 2} \tag{12.1, definition} $$
#
# > **An image to keep.** Morse code gives a short sign to the frequent E and a long one to the rare Q. Whoever knows which letters come often sends shorter telegrams. *Where it breaks:* Morse has pauses and a fixed alphabet. A picture model gives a length to all $256^{D}$ pictures at once, also to those that nobody will ever send.
#
# A grey value of 8 bits costs 8 bits if you know nothing. If you know that only 17 values occur, as in the small digits, it costs $\log_2 17\approx 4.1$. All below that is knowledge about pictures.
#
# **A density is not a probability (M34).** $p$ must be the probability of a grey value. A Gaussian gives a density, with a unit: per length. Two ways lead from one to the other. The decoder of chapter 05 integrates a bell over the bin (Ho eq. 13). Or one *fills* the bin: add uniform noise $u$ to the grey value and ask for the density of the result. The bin has the width $w=2/255$. The probability of the bin is $w$ times the density's mean over the bin. The logarithm of a mean is never below the mean of the logarithm (Jensen, chapter 04). For two places in the bin:

# %% tags=["proof"]
p_1, p_2 = sp.symbols("p_1 p_2", positive=True)
inequality("12.2", -sp.log((p_1 + p_2) / 2), -(sp.log(p_1) + sp.log(p_2)) / 2, relation=r"\le",
           cases=[{p_1: a / 4, p_2: b / 4} for a in range(1, 12) for b in range(1, 12)], equality={p_1: 1.5, p_2: 1.5})

# %% [markdown]
# So the mean of $-\log_2 (w\,p(x_0+u))$ is an upper bound on the bits of the grey value. In the package `dequantise` fills the bin and `density_bits` adds $-\log_2 w\approx 7$ bits per number. A check by extremes: a density that is flat over all 256 bins must cost 8 bits.

# %%
grey = torch.zeros(1, 64, dtype=torch.float64)
flat = torch.full((1,), -64 * math.log(256 * 2 / 255), dtype=torch.float64)  # a box over all bins
assert abs(float(density_bits(flat, grey)) - 8) < 1e-12
print("flat density over 256 bins costs", float(density_bits(flat, grey)), "bits per dimension")

# %% [markdown]
# ## The terms over t
#
# The bound of chapter 05 is a sum: prior, one matching term for each $t\ge2$, reconstruction. Where are the bits spent? We look at two models with the same schedule. One is the shipped digits network. The other is an oracle: a Gaussian with the mean and the covariance of the digits (with 0.01 added on the diagonal, since some pixels never change) (their *Gaussian twin*), whose perfect denoiser has a formula. The function `vlb_term` computes one term at any $t$.

# %%
trained = load_model(shipped("digits"))
network, schedule = trained.eps_model(), trained.schedule
train_x, val_x = digits().train.images, digits().val.images
flat_x = train_x.flatten(1).double()
twin = ExactGaussian(flat_x.mean(0), flat_x.T.cov() + 0.01 * torch.eye(64))
some_t = sorted({*range(1, 13), 15, 18, 22, 27, 33, 40, 50, 65, 80, 100, 130, 160, 200, 300, 400, 550, 700, 850, 1000})
to_bits = 1 / (64 * math.log(2))


def terms_over_t(model, x, variance="beta", decoder="discrete"):
    rows = [vlb_term(model, schedule, x, t, torch.randn(x.shape, generator=seeded(t), dtype=x.dtype), variance, decoder).mean()
            for t in some_t]
    return torch.tensor(rows).double() * to_bits


# %%
by_network, by_twin = terms_over_t(network, val_x[:64]), terms_over_t(twin.eps_model(schedule), twin.sample(64, seeded(0)), decoder="gaussian")
weight = torch.tensor([vlb_weight(schedule, t, "beta") for t in some_t])
moments = eps_moments(network, schedule, train_x[:128], some_t, seeded(1))
error = moments.error[some_t]
fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3))
curves(some_t[1:], {"digits network": by_network[1:], "oracle of the Gaussian twin": by_twin[1:]}, left,
       xscale="log", yscale="log", xlabel="t", ylabel="bits per dim", title="one matching term")
curves(some_t, {"the bound's weight (variance beta)": weight, "L_simple's weight": torch.ones(len(some_t)), "error of the network": error},
       right, xscale="log", yscale="log", xlabel="t", title="weight of the squared error of eps")
right.legend(fontsize=8)
right.set_ylim(1e-3, 3)  # the last time is off the scale: weight 500, error below 1e-8
plt.show()

# %% [markdown]
# Left: each curve falls over five powers of ten. The last steps of the reverse walk, where only fine grain is decided, cost the most. Right, blue: the weight with which the bound counts the squared error of $\hat\varepsilon$ (Ho eq. 12). Orange: $L_\text{simple}$ counts all alike. Green: the error itself. It is largest at small $t$ (about 0.7 at $t=1$), where the noise cannot be told from the pen, and small at large $t$, where $x_t$ is nearly all noise. A term is weight times error (plus a constant). What shares of the whole do the times have?

# %%
def share_up_to(values):  # of a sum over all t, with straight lines between the times we asked for
    t = torch.tensor(some_t).double()
    pieces = torch.cat([values[:1], (values[1:] + values[:-1]) / 2 * (t[1:] - t[:-1])])
    return pieces.cumsum(0) / pieces.sum()


shares = {"bound, network": share_up_to(by_network), "L_simple, network": share_up_to(error)}
curves(some_t, shares, xscale="log", xlabel="t", ylabel="share paid up to t", title="who pays where")
plt.show()
at_100 = {name: float(values[some_t.index(100)]) for name, values in shares.items()}
assert at_100["bound, network"] > 0.8 and at_100["L_simple, network"] < 0.4
print("bound: over 80 % of all bits at t <= 100: True;  L_simple: over 60 % of the loss beyond: True")

# %% [markdown]
# This is the price of $L_\text{simple}$, in one figure. Training looks mostly at times which hardly enter the bound. Those are the times that decide *which* digit it is, and that is why samples are good. The bound cares for grain. A model trained by $L_\text{simple}$ is therefore not the model with the best bits, and does not claim to be.
#
# ## The best variance
#
# The bound has a second free quantity: the variance $\sigma_t^2$ of the reverse step. Chapter 09 found that neither $\beta_t$ nor $\tilde\beta_t$ is right in general. Now we compute the best one. Take one number of the picture at one time. The KL divergence between $\mathcal N(\tilde\mu,\tilde\beta)$ and $\mathcal N(\mu_\theta,\sigma^2)$ contains the squared difference of the means. Write $m$ for its average. The expected term is then the bracket on the left of (12.3), for $t\ge2$ (at $t=1$, $\tilde\beta=0$ and the term is a reconstruction). Differentiate by $\sigma^2$:

# %% tags=["proof"]
tilde, m, s2 = sp.symbols(r"\tilde{\beta} m \sigma^2", positive=True)
term = ((tilde + m) / s2 - 1 - sp.log(tilde / s2)) / 2
derive("12.3", sp.Derivative(term, s2),
       ((-(tilde + m) / s2**2 + 1 / s2) / 2, "it is a number over the variance, a logarithm, and a constant, which drops out"),
       ((s2 - tilde - m) / (2 * s2**2), "common denominator"), source="Analytic-DPM Theorem 1")
equation("12.4", term.subs(s2, tilde + m), sp.log(1 + m / tilde) / 2)

# %% [markdown]
# The derivative is negative below $\sigma^2=\tilde\beta+m$ and positive above. So the best variance is $\tilde\beta+m$: the posterior's own, plus the mean squared error of the mean. And (12.4) says what a number then costs. What is $m$? The means differ only in $x_0$ against $\hat x_0$, with the factor $c_0=\sqrt{\bar\alpha_{t-1}}\,\beta_t/(1-\bar\alpha_t)$. And both are made from the same $x_t$:

# %% tags=["proof"]
c_0 = sp.Symbol("c_0", positive=True)
made = {x_0: (x_t - sp.sqrt(1 - bar_t) * eps) / sp.sqrt(bar_t), x_0_hat: (x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t)}
equation("12.5", (c_0 * x_0 - c_0 * x_0_hat) ** 2, c_0**2 * (1 - bar_t) / bar_t * (eps - eps_hat) ** 2, given=made,
         source="Ho eqs. 7, 15")

# %% [markdown]
# So all one needs is the average of $(\varepsilon-\hat\varepsilon)^2$ at each $t$: the green curve above. Nothing is trained. For a *perfect* network there is a second way, and it needs no $\varepsilon$ at all. The error of a conditional mean has nothing to do with the conditional mean itself, $\mathbb E[\hat\varepsilon\,(\varepsilon-\hat\varepsilon)]=0$. (Given $x_t$, $\hat\varepsilon$ is a fixed number, and the error has mean 0.) Try it on a mixture:

# %% tags=["proof"]
ring_angle = torch.arange(8) * math.pi / 4
ring = GaussianMixture(torch.full((8,), 1 / 8), 1.4 * torch.stack([ring_angle.cos(), ring_angle.sin()], 1), torch.full((8,), 0.3))
clean, drawn_eps = ring.sample(50_000, seeded(2)), torch.randn(50_000, 2, generator=seeded(3), dtype=torch.float64)
now = float(schedule.alpha_bar[300]) ** 0.5 * clean + (1 - float(schedule.alpha_bar[300])) ** 0.5 * drawn_eps
answer = ring.eps_model(schedule)(now, torch.full((50_000,), 300))
expectation("12.6", Expect(eps_hat * (eps - eps_hat), eps, eps_hat), sp.Integer(0), wrong=sp.Rational(1, 20),
            draws={eps: drawn_eps[:, 0], eps_hat: answer[:, 0]}, values={}, source="chapter 06")

# %% [markdown]
# Hence $1=\mathbb E[\varepsilon^2]=\mathbb E[\hat\varepsilon^2]+\mathbb E[(\varepsilon-\hat\varepsilon)^2]$: Pythagoras. For a perfect network the error is $1-\mathbb E[\hat\varepsilon^2]$. That is the form of the Analytic-DPM paper. `eps_moments` measures both. `optimal_variance` takes either. First the tables, for Gaussian data of variance $\kappa$, against the formula of chapter 09, $\beta_t\,\kappa_{t-1}/\kappa_t$:

# %%
kappa = 0.25
number = ExactGaussian(torch.zeros(1), torch.tensor([[kappa]]))
best = optimal_variance(schedule, number.unexplained(schedule))
print("    t      beta     beta~   clipped   optimal for N(0, 1/4)")
for t in (1, 2, 10, 100, 500, 1000):
    names = ("beta", "posterior", "posterior_clipped")
    row = [reverse_variance(schedule, t, t - 1, name) for name in names] + [best(t, t - 1)]
    late, early = (float(schedule.alpha_bar[k]) * kappa + 1 - float(schedule.alpha_bar[k]) for k in (t, t - 1))
    assert abs(row[-1] / (float(schedule.beta[t]) * early / late) - 1) < 1e-9
    assert row[1] <= row[3] <= row[0] * (1 + 1e-12)
    print(f"{t:5d}", "".join(f"{v:10.2e}" for v in row))

# %% [markdown]
# The optimum always lies between $\tilde\beta$ and $\beta$ here, since the data are narrower than $\mathcal N(0,1)$. From $t=100$ on the columns agree to two percent. In the first steps they part, and there the optimum is close to $\beta$: with so little noise, data of any ordinary width look wide.
#
# And the displayed line (12.5) with (12.3), put together by hand, against the package:

# %%
t = 40
unknown = float(number.unexplained(schedule)[t])
by_hand = tilde + (sp.sqrt(bar_s) * beta_t / (1 - bar_t)) ** 2 * (1 - bar_t) / bar_t * unknown
agrees(by_hand, table_values(schedule, t) | {tilde: reverse_variance(schedule, t, t - 1, "posterior")}, best(t, t - 1))

# %% [markdown]
# ### One variance for all numbers is a compromise
#
# The scalar is the best *scalar*. In the twin of the digits some directions are wide, others nearly fixed, and each would like its own. For Gaussian data the true reverse step is a Gaussian whose covariance has the same axes as the data. Seen along these axes (`in_eigenbasis`) it is one variance for each number, $\beta_t\kappa_{s,i}/\kappa_{t,i}$, and then nothing is lost: what remains of the bound above the entropy is $\mathrm{KL}(q(x_T)\,\|\,\mathcal N(0,I))$. This can be had exactly. Each term is a square in the noise, so three Gauss–Hermite nodes integrate it without error.

# %%
blob = ExactGaussian(torch.tensor([0.4, -0.1]), torch.tensor([[0.5, 0.3], [0.3, 0.4]])).in_eigenbasis()
short = cosine_schedule(6)
nodes = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)  # exact for polynomials up to degree 5
law = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
a, b = (grid.reshape(-1, 1) for grid in torch.meshgrid(nodes, nodes, indexing="ij"))
x_nodes, eps_nodes = blob.mean + blob.eigenvalues.sqrt() * a, b.expand(9, 2)
for name, kind in (("per number", blob.variance(short)), ("best scalar", optimal_variance(short, blob.unexplained(short))), ("beta", "beta")):
    total = vlb_terms(blob.eps_model(short), short, x_nodes, kind, eps=eps_nodes).total()
    excess = float(torch.outer(law, law).flatten() @ total) - blob.entropy()
    if name == "per number":
        end = blob.diffused(float(short.alpha_bar[6]))
        left_over = 0.5 * float((end.eigenvalues + end.mean**2 - 1 - end.eigenvalues.log()).sum())
        assert abs(excess - left_over) < 1e-8
    print(f"T = 6, {name:11s}: bound - entropy = {excess:.3f} nats")
print("with its own variance for each number: bound - entropy = KL(q(x_T) || N(0, I)) to 1e-8: True")

# %% [markdown]
# ### What the choice does to the bound
#
# For Gaussian data the expected excess has a closed form: at each $t$ a KL divergence of two Gaussians with equal means, $\frac12\sum_i(\rho_i-1-\log\rho_i)$ with $\rho_i$ the true variance over the one used. Left: the twin of the digits, against the number of steps $T$. Right: the network on real validation digits, all with the same pictures, times and noise.

# %%
def expected_excess(T, kind):  # nats above the entropy, from the matching and reconstruction terms of the twin
    steps = cosine_schedule(T)
    choose = optimal_variance(steps, twin.unexplained(steps)) if kind == "optimal" else kind
    total = 0.0
    for t in range(1, T + 1):
        late, early = (float(steps.alpha_bar[k]) * twin.eigenvalues + 1 - float(steps.alpha_bar[k]) for k in (t, t - 1))
        rho = float(steps.beta[t]) * early / late / reverse_variance(steps, t, t - 1, choose)
        total += 0.5 * float((rho - 1 - rho.log()).sum())
    return total


sizes = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
kinds = ("beta", "posterior_clipped", "optimal")
excesses = {kind: torch.tensor([expected_excess(T, kind) for T in sizes]) * to_bits for kind in kinds}
assert all(bool((excesses["optimal"] <= excesses[kind] + 1e-12).all()) for kind in kinds)

# %% [markdown]
# For the network we do not compute all thousand terms. `sampled_bound` takes one time for each picture, and `ImportanceTimes` decides which. Both are explained below; what matters here is that the estimate has no bias.

# %%
times = ImportanceTimes(1000, history=3)
t_all, x_all = torch.arange(1, 1001).repeat(3), val_x[torch.arange(3000) % len(val_x)]
seen = vlb_term(network, schedule, x_all, t_all, torch.randn(x_all.shape, generator=seeded(4)), "beta", "discrete")
times.update(t_all, seen)
choices = {"beta": "beta", "posterior_clipped": "posterior_clipped", "optimal, from the error": optimal_variance(schedule, moments.error),
           "optimal, if perfect": optimal_variance(schedule, moments.unexplained())}
pictures = val_x.repeat(6, 1, 1, 1)
estimates = {name: sampled_bound(network, schedule, pictures, copy.deepcopy(times), kind, "discrete", seeded(5)) * to_bits
             for name, kind in choices.items()}
means = {name: float(value.mean()) for name, value in estimates.items()}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3))
curves(sizes, excesses, left, xscale="log", yscale="log", xlabel="T", ylabel="bits per dim", title="twin: bound above the entropy")
left.legend(fontsize=8)
errors = [float(value.std()) / len(value) ** 0.5 for value in estimates.values()]
right.barh(range(4), list(means.values()), xerr=errors, color=[BLUE, ORANGE, GREEN, GREY])
right.set_yticks(range(4), list(means))
right.invert_yaxis()
right.set(xlim=(3.8, 4.8), xlabel="bits per dim, with standard error", title="digits network, 179 digits")
plt.show()
gain = estimates["posterior_clipped"] - estimates["optimal, from the error"]
assert means["optimal, from the error"] < min(means["beta"], means["posterior_clipped"])
assert float(gain.mean()) > 3 * float(gain.std()) / len(gain) ** 0.5
print("the optimal variance has the lowest bound: True;  better than beta~ by over 3 standard errors: True")

# %% [markdown]
# Left: with the clipped $\tilde\beta$ the excess does not go away, however many steps are made. At the first few times it is far too small for the wide axes, and a longer chain has such times, too. The other two fall like $1/T$. Right: the network was not touched. The table of variances alone is worth a quarter of a bit against $\tilde\beta$, and less against $\beta$. The two forms of the optimum hardly differ here: in the sense of Pythagoras the network is nearly perfect.
#
# ### What the choice does to samples
#
# On the full grid the samples do not care. On few steps they do. Again there is an exact way for the twin: each step is linear, so the variance of the sample can be followed along each axis (chapter 09). Left: the variance of the finished sample over the true one, averaged over all 64 axes. Right: the error of a single axis, the mean of $|\log|$ of that ratio. In a mean of ratios a wide axis that is too narrow can hide a narrow one that is too wide. In the right figure nothing cancels.

# %%
def sample_variance(S, kind):
    choose = {"optimal": optimal_variance(schedule, twin.unexplained(schedule))}.get(kind, kind)
    V, grid = torch.ones(64, dtype=torch.float64), time_grid(1000, S).tolist()
    for t, s in zip(grid, grid[1:], strict=False):
        bar_late, bar_early = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        late, early = bar_late * twin.eigenvalues + 1 - bar_late, bar_early * twin.eigenvalues + 1 - bar_early
        V = bar_late / bar_early * (early / late) ** 2 * V + (reverse_variance(schedule, t, s, choose) if s else 0.0)
    return V / twin.eigenvalues


counts = (3, 5, 10, 20, 50, 100, 300, 1000)
laws = {kind: torch.stack([sample_variance(S, kind) for S in counts]) for kind in ("beta", "posterior", "optimal")}
fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 2.9))
ratios = {kind: law.mean(1) for kind, law in laws.items()}
per_axis = {kind: law.log().abs().mean(1) for kind, law in laws.items()}
curves(counts, ratios, left, xscale="log", xlabel="number of steps S", title="variance of the samples, over the truth").axhline(1, color="black", lw=0.7)
curves(counts, per_axis, right, xscale="log", yscale="log", xlabel="number of steps S", title="error per axis")
plt.show()
nearest = {S: min(per_axis, key=lambda kind: float(per_axis[kind][k])) for k, S in enumerate(counts)}  # noqa: B023
print("nearest to the truth per axis:", {S: nearest[S] for S in (10, 50, 1000)})
assert nearest[10] == "beta" and nearest[50] == nearest[1000] == "optimal" and "posterior" not in nearest.values()

# %% [markdown]
# From fifty steps on, the optimum is the best of the three by a factor of two or more. With ten steps it is **not**: $\beta$ is. This is no contradiction. The optimum makes *one* step as good as it can be, for an $x_t$ with the right law. In a short chain all three lose variance at other places, most of all in the last jump, which adds no noise although $x_0$ is still uncertain. The excess of $\beta$ then repairs by accident what the others lack. The plain $\tilde\beta$ is never the best here.

# %%
ten = {name: ddpm_sample(network, schedule, (14, 1, 8, 8), num_steps=10, variance=kind, generator=seeded(6))
       for name, kind in (("beta", "beta"), ("beta~", "posterior"), ("optimal", choices["optimal, from the error"]))}
show_rows(ten | {"real": val_x[:14]})
plt.show()

# %% [markdown]
# All three rows have the same start and the same $z$. So most of the digits agree, and differ in contrast and grain only. In the eleventh column $\beta$ drew a 5 where the two others drew a 1: more noise on the way can end at another digit. By eye one would hardly dare to choose. Fourteen digits are an impression and no measurement; chapter 14 measures.
#
# ## A network that says its own variance
#
# The optimum above is one number for each $t$. The right variance may differ from pixel to pixel, and from picture to picture. So let the network say it (Nichol section 3.1). It gets twice as many outputs. The second half is $v$, one for each number, and
#
# $$ \sigma^2=\exp\big(v\log\beta_t+(1-v)\log\tilde\beta_t\big) \tag{12.7, definition} $$
#
# Why the detour through the logarithm? Because $\beta$ and $\tilde\beta$ are nearly equal at almost all times, and tiny. A network that had to output $\sigma^2$ itself would have to hit numbers like $0.00004$. Between two ends it has to hit numbers between about 0 and 1. (In the package the output is $r$ with $v=(r+1)/2$, so that $r=0$ is the middle. Nothing keeps $v$ inside $[0,1]$, and the best variance may lie outside.)
#
# $L_\text{simple}$ does not contain $\sigma^2$, so it cannot train $v$. The remedy is the **hybrid loss** $L_\text{simple}+\lambda L_\text{vlb}$ (Nichol eq. 16). The bound's term must not spoil what $L_\text{simple}$ does for the mean. Therefore the mean inside it is held fixed (the layers that both halves share still feel it, which is one reason why $\lambda$ is small): a *stopped gradient*. First see that it is stopped. Then train a toy.

# %%
tiny = cosine_schedule(20)
wide = ExactGaussian(torch.zeros(2), torch.tensor([1.0, 0.04]).diag())  # one wide direction, one narrow
with torch.random.fork_rng():
    torch.manual_seed(0)
    net = MLP(2, width=48, num_blocks=2, octaves=1, out_dim=4)
x = wide.sample(64, seeded(7)).float()
t, noise = torch.randint(1, 21, (64,), generator=seeded(8)), torch.randn(64, 2, generator=seeded(9))
grads = []
for lam in (0.0, 10.0):
    net.zero_grad()
    hybrid_loss(net, tiny, x, t, noise, lam=lam).mean().backward()
    grads.append(net.leave[1].weight.grad.clone())
assert torch.equal(grads[0][:2], grads[1][:2]) and not torch.equal(grads[0][2:], grads[1][2:])
print("the outputs for eps get the same gradient with and without L_vlb: True")

# %%
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
for step in range(500):
    x, g = wide.sample(256, seeded(step)).float(), seeded(10_000 + step)
    t, noise = torch.randint(1, 21, (256,), generator=g), torch.randn(256, 2, generator=g)
    optimizer.zero_grad()
    hybrid_loss(net, tiny, x, t, noise, lam=0.1).mean().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 500)
two_outputs, learned = learned_range(net.requires_grad_(False), tiny)

# %% [markdown]
# `learned_range` gives a pair: the `eps_model`, and a function `variance`. They belong together, since the variance depends on $x_t$. Did the network find the two variances that the formula knows?

# %%
x, own = wide.sample(2000, seeded(11)).float(), wide.variance(tiny)
said = []
for t in range(1, 21):
    two_outputs(q_sample(tiny, x, t, torch.randn(x.shape, generator=seeded(100 + t))), torch.full((2000,), t))
    said.append(learned(t, t - 1).mean(0).double())
said, truth = torch.stack(said), torch.stack([own(t, t - 1) for t in range(1, 21)])
fig, ax = plt.subplots(figsize=(7, 3))
upper = torch.tensor([reverse_variance(tiny, t, t - 1, "beta") for t in range(1, 21)])
lower = torch.tensor([reverse_variance(tiny, t, t - 1, "posterior_clipped") for t in range(1, 21)])
ax.fill_between(range(1, 21), lower / upper, 1, color=GREY, alpha=0.2, label="from beta~ to beta")
for k, (name, color) in enumerate((("wide direction", BLUE), ("narrow direction", ORANGE))):
    ax.plot(range(1, 21), truth[:, k] / upper, color=color, label=f"{name}, exact")
    ax.plot(range(1, 21), said[:, k] / upper, "o", color=color, markersize=5, label=f"{name}, learned")
ax.set(xlabel="t", ylabel="variance / beta", ylim=(0.3, 1.3))
ax.legend(fontsize=8, loc="lower right")
plt.show()

# %%
bounds = {name: float(vlb_terms(two_outputs, tiny, x, kind, generator=seeded(12)).total().mean())
          for name, kind in {"learned": learned, "exact": own, "beta": "beta", "beta~": "posterior_clipped"}.items()}
assert float((said[1:10] / truth[1:10] - 1).abs().max()) < 0.15
assert abs(bounds["learned"] - bounds["exact"]) < 0.1 and bounds["learned"] < min(bounds["beta"], bounds["beta~"]) - 0.1
print("t = 2..10: learned variances within 15 % of the exact ones: True")
print("bound with the learned variance: like the exact one's, to 0.1 nats, and below beta and beta~: True")

# %% [markdown]
# ## The exact likelihood: follow the picture into the noise
#
# The bound is never too low, and for real data nobody tells by how much it is too high. There is a second way, without a bound. Chapter 10 had a deterministic path from noise to data. It can be walked in both directions, and it is one-to-one. For such a map, densities follow from geometry alone: where the map stretches space, the density falls.
#
# > **An image to keep.** Draw dots on a sheet of rubber and pull it. Where the rubber is stretched the dots get sparse, and nobody has to count them: it is enough to know the stretching. *Where it breaks:* a sheet has two dimensions and is pulled once. Here are 64 or more, and the pull changes at each instant.
#
# ### The path is a circle
#
# Write $\sqrt{\bar\alpha}=\cos\varphi$ and $\sqrt{1-\bar\alpha}=\sin\varphi$. Then $x_\varphi=\cos\varphi\;x_0+\sin\varphi\;\varepsilon$: as the angle grows from 0 to nearly $\pi/2$, each pair $(x_0,\varepsilon)$ walks a quarter of a circle. Its velocity is an old friend, the $v$ of chapter 06, not the share of (12.7):

# %% tags=["proof"]
phi, kappa_0 = sp.symbols(r"\varphi \kappa", positive=True)
path, velocity = sp.cos(phi) * x_0 + sp.sin(phi) * eps, sp.cos(phi) * eps - sp.sin(phi) * x_0
equation("12.8", sp.Derivative(path, phi), velocity, source="v-pred appendix D")

# %% [markdown]
# Many pairs pass through one point $x$, with different velocities. Let a particle at $x$ move with their **mean**, $\hat v(x,\varphi)=\mathbb E[v\mid x_\varphi=x]$, the one that a network knows:
#
# $$ \frac{dx}{d\varphi}=\hat v(x,\varphi) \tag{12.9, definition} $$
#
# This is the probability-flow ODE. *Claim:* if particles start with the law of the data, then at each angle they have the law of $x_\varphi$. Four steps, for any smooth test function $g$:
#
# 1. $\frac{d}{d\varphi}\mathbb E[g(x_\varphi)]=\mathbb E[g'(x_\varphi)\,v]$: differentiate inside the mean, with (12.8) and the chain rule.
# 2. $\phantom{\frac{d}{d\varphi}\mathbb E[g(x_\varphi)]}=\mathbb E[g'(x_\varphi)\,\mathbb E[v\mid x_\varphi]]$: first average over all that is unknown when $x_\varphi$ is known; $g'(x_\varphi)$ is then a fixed number.
# 3. $\phantom{\frac{d}{d\varphi}\mathbb E[g(x_\varphi)]}=\mathbb E[g'(x_\varphi)\,\hat v(x_\varphi,\varphi)]$: the definition of $\hat v$.
# 4. The particles obey the same line, by the chain rule and (12.9). Same start, same rule of change for every $g$: same law at each angle. (This last inference needs $\hat v$ to be smooth; for data with a smooth positive density it is. For filled bins, whose density has jumps, it is from the first bit of noise on.)
#
# Where is the randomness gone? Into the start. For Gaussian data the claim can be seen at once. With $\kappa_\varphi=\cos^2\varphi\,\kappa+\sin^2\varphi$ the variance of $x_\varphi$, the covariance of velocity and place is half its growth:

# %% tags=["proof"]
spread = sp.cos(phi) ** 2 * kappa_0 + sp.sin(phi) ** 2
gaussian_start = {x_0: sp.sqrt(kappa_0) * z}
equation("12.10", Expect((velocity * path).subs(gaussian_start), z, eps), sp.Derivative(spread, phi) / 2)

# %% [markdown]
# A Gaussian's conditional mean is the straight line $\hat v=\frac{\text{covariance}}{\text{variance}}\,x=\frac{\kappa'}{2\kappa_\varphi}\,x$, so $x$ grows as $\sqrt{\kappa_\varphi}$ does. A particle keeps its place in units of the standard deviation.
#
# ### How the density changes along the way
#
# Let $p(x,\varphi)$ be the density of the particles. Written for densities, step 3 is the *continuity equation* $\partial_\varphi p=-\partial_x(p\,\hat v)$: what flows out of a place is missing there. (Put $\int g\,p\,dx$ for the mean and integrate by parts.) Now ride on a particle, and watch $\log p$ at your own place. It changes because time passes, and because you move:

# %% tags=["proof"]
place = sp.Symbol("x", real=True)
p, v_hat = (sp.Function(name)(place, phi) for name in ("p", r"\hat{v}"))
flow = {sp.Derivative(p, phi): -sp.Derivative(p * v_hat, place).doit()}
derive("12.11", sp.Derivative(sp.log(p), phi) + v_hat * sp.Derivative(sp.log(p), place),
       (sp.Derivative(p, phi) / p + v_hat * sp.Derivative(p, place) / p, "derivative of a logarithm"),
       (-sp.Derivative(p * v_hat, place) / p + v_hat * sp.Derivative(p, place) / p, "continuity equation"),
       (-sp.Derivative(v_hat, place), "product rule; two summands cancel"), given=flow, source="SDE section 4.3")

# %% [markdown]
# Along the path $\log p$ falls at the rate of $\partial\hat v/\partial x$. In $D$ dimensions the same lines give the sum over all directions, $\sum_i\partial\hat v_i/\partial x_i$, the **trace** of the Jacobian. This is the *instantaneous change of density*. Integrate from the picture to the noise, where the density is known (nearly $\mathcal N(0,I)$):
#
# $$ \log p(x_0)=\log\mathcal N(x_T;0,I)+\int_0^{\varphi_T}\mathrm{tr}\,\frac{\partial\hat v}{\partial x}\big(x(\varphi),\varphi\big)\,d\varphi \tag{12.12, definition} $$
#
# It *defines* the likelihood of the model that samples by the ODE. This is not quite the model that samples by Algorithm 2; both have the data's law only if the network is perfect.
#
# ### By hand, then by the package
#
# Heun's method: a trial step with the slope here, then a step with the mean of both slopes. For a Gaussian everything is one number times $x$.

# %%
def my_log_prob(x, kappa, schedule):
    at = schedule.alpha_bar.sqrt().clamp(max=1).acos()  # the angles
    rate = torch.sin(at) * torch.cos(at) * (1 - kappa) / (torch.cos(at) ** 2 * kappa + torch.sin(at) ** 2)  # v_hat = rate x
    gained = torch.zeros(len(x), dtype=torch.float64)
    for k in range(schedule.T):
        h = at[k + 1] - at[k]
        trial = x + h * rate[k] * x
        x = x + h * (rate[k] * x + rate[k + 1] * trial) / 2
        gained += h * (rate[k] + rate[k + 1]) / 2
    return -0.5 * (x**2 + math.log(2 * math.pi)) + gained


x = torch.tensor([-1.0, 0.1, 0.7], dtype=torch.float64)
hundred = cosine_schedule(100)
mine, theirs = my_log_prob(x, kappa, hundred), ode_log_prob(number.eps_model(hundred), hundred, x[:, None])
torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
print("by hand = package, to 1e-6: True")

# %% [markdown]
# ### Is it exact?
#
# On a mixture the true density is known. How many steps does it take? The first step from $t=0$ uses the slope 0, which is right for every law with a density: with no noise in $x$, the best guess of the noise is 0.

# %%
points = ring.sample(60, seeded(13))
exact, oracle = ring.log_prob(points), ring.eps_model(schedule)
steps = (10, 20, 40, 80, 160)
found = {S: ode_log_prob(oracle, schedule, points, time_grid(1000, S)) for S in steps}
off = [float((found[S] - exact).abs().mean()) for S in steps]
relative = abs(float(found[160].mean() / exact.mean()) - 1)
assert relative < 0.01
print("160 steps: mean log-likelihood within 1 % of the exact one: True;  within 0.1 %:", relative < 1e-3)

# %% [markdown]
# ### The trace without the Jacobian
#
# The exact trace takes one backward pass for each of the $D$ numbers. For 64 that is slow, for 784 hopeless. *Hutchinson's trick*: take a random vector $e$ with independent entries of mean 0 and variance 1. Then $e^\top\! A\,e$ has the trace as its mean. For two dimensions:

# %% tags=["proof"]
e_1, e_2 = normal("e_1"), normal("e_2")
A = sp.Matrix(2, 2, sp.symbols("a_{11} a_{12} a_{21} a_{22}", real=True))
form = (sp.Matrix([[e_1, e_2]]) * A * sp.Matrix([e_1, e_2]))[0]
derive("12.13", Expect(form, e_1, e_2),
       (A[0, 0] * Expect(e_1**2, e_1) + (A[0, 1] + A[1, 0]) * Expect(e_1, e_1) * Expect(e_2, e_2) + A[1, 1] * Expect(e_2**2, e_2),
        "expand; the two entries are independent"),
       (A[0, 0] + A[1, 1], "mean 0 and variance 1"))

# %% [markdown]
# The proof used independence, mean 0 and variance 1, and nothing else. So *random signs* do as well as normal numbers. They are better: $e_i^2=1$ always, so the diagonal is met without any error, and only the mixed entries make noise. And $e^\top\!A$ is one backward pass, whatever $D$ is. The package draws the signs **once** and keeps them along the whole path (same generator, same answer); otherwise the ODE solver would chase a function that changes under its feet.

# %%
one_point = points[:1].repeat(300, 1)
grid = time_grid(1000, 40)
target = float(ode_log_prob(oracle, schedule, one_point[:1], grid)[0])
guesses = {f"{k} probe" + "s" * (k > 1): ode_log_prob(oracle, schedule, one_point, grid, probes=k, generator=seeded(14)) for k in (1, 4)}
fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 2.8))
left.loglog(steps, off, "o-", label="mean error in nats")
left.loglog(steps, [off[0] * (10 / S) ** 2 for S in steps], "--", color=GREY, label="1 / steps squared")
left.set(xlabel="steps", title="Heun on the ODE")
left.legend()
for (name, values), color in zip(guesses.items(), (ORANGE, BLUE), strict=True):
    right.hist(values.numpy(), bins=30, alpha=0.6, color=color, label=name)
    assert abs(float(values.mean()) - target) < 4 * float(values.std()) / 300**0.5
right.axvline(target, color="black")
right.set(xlabel="log p of one point", title="trace by random signs; line: exact trace", yticks=[])
right.legend()
plt.show()
print("means within 4 standard errors of the exact trace: True")

# %% [markdown]
# Why so few bars? In two dimensions a pair of signs knows only two cases, equal or opposite, and so one probe has two answers. A single estimate is noisy for a single point. The mean over many pictures is what one reports, and there the noise averages out.
#
# ## Few times, well chosen
#
# Back to the bound. A thousand calls of the network for each picture is a lot. We want a mean over pictures, so one random $t$ for each picture would do: draw $t$ with probability $p_t$, compute that one term $L_t$, and divide by $p_t$. The mean of $L_t/p_t$ is $\sum_t p_t\,L_t/p_t=\sum_tL_t$, whatever $p$ is. So there is no bias. But the noise depends on $p$: the second moment of the estimate is $\sum_t\mathbb E[L_t^2]/p_t$. Which $p$ makes it smallest? Write $m_t=\mathbb E[L_t^2]$. For two times, with probabilities $p$ and $1-p$:

# %% tags=["proof"]
m_1, m_2, share = sp.symbols("m_1 m_2 p", positive=True)
inequality("12.14", m_1 / share + m_2 / (1 - share), (sp.sqrt(m_1) + sp.sqrt(m_2)) ** 2,
           cases=[{m_1: a / 2, m_2: b / 2, share: k / 10} for a in (1, 3, 8) for b in (1, 5, 9) for k in range(1, 10)],
           equality={m_1: 4.0, m_2: 1.0, share: 2 / 3}, source="Nichol eq. 18")

# %% [markdown]
# The smallest value is reached at $p\propto\sqrt{m_t}$. (For $T$ times the Cauchy–Schwarz inequality says the same.) The moments are not known beforehand, so one keeps the last few terms seen at each $t$ and goes on with their root mean square. `ImportanceTimes` does this. A small share of uniform draws makes sure that no time is forgotten. How much is it worth, for the digits network?

# %%
uniform = sampled_bound(network, schedule, pictures, ImportanceTimes(1000), "beta", "discrete", seeded(15)) * to_bits
chosen = estimates["beta"]
fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 2.8))
left.loglog(range(1, 1001), times.probabilities(), color=BLUE, label="by importance")
left.axhline(1e-3, color=RED, label="uniform")
left.set(xlabel="t", title="probability of t")
left.legend()
running = {name: values[torch.randperm(len(values), generator=seeded(16))].cumsum(0) / torch.arange(1, len(values) + 1)
           for name, values in (("uniform", uniform), ("by importance", chosen))}
right.plot(running["uniform"], color=RED, label="uniform")
right.plot(running["by importance"], color=BLUE, label="by importance")
right.set(ylim=(0, 10), xlabel="terms computed", ylabel="bits per dim", title="the estimate as it settles")
right.legend()
plt.show()
ratio = float(uniform.std() / chosen.std())
assert ratio > 10
print("standard deviation of one term: smaller by a factor above 10: True")

# %% [markdown]
# A factor of 10 in the standard deviation is a factor of 100 in work. The unlucky red curve jumps each time one of the rare expensive times is drawn. For *training* the same device was proposed (Nichol section 3.3), where it makes the gradient of $L_\text{vlb}$ usable.
#
# ## Bits per dimension of the shipped networks
#
# Now the numbers. Both networks, validation pictures that they have not seen, the discrete decoder of 256 values, the optimal variance from the error on *training* pictures. $p_t$ may be anything, so the MNIST network borrows the probabilities of the digits network.

# %%
def report(name, model, x, variance, times, repeat, seed):
    bits = sampled_bound(model, schedule, x.repeat(repeat, 1, 1, 1), times, variance, "discrete", seeded(seed))
    bits = bits / (x[0].numel() * math.log(2))
    error = float(bits.std()) / len(bits) ** 0.5
    print(f"{name}: {float(bits.mean()):.1f} bits per dim, n = {len(x)} pictures, {len(bits)} terms; standard error below {0.1 if error < 0.1 else 1}")
    return float(bits.mean()), error


digit_bits, digit_error = report("digits 8x8  ", network, val_x, choices["optimal, from the error"], times, 10, 17)
big = load_model(shipped("mnist")).eps_model()
torch.testing.assert_close(load_model(shipped("mnist")).schedule.alpha_bar, schedule.alpha_bar, rtol=0, atol=1e-12)
few_t = some_t[:20:2] + some_t[20:]
big_variance = optimal_variance(schedule, eps_moments(big, schedule, mnist5k().train.images[:8], few_t, seeded(18)).error)
mnist_bits, mnist_error = report("MNIST 28x28 ", big, mnist5k().val.images[:300], big_variance, times, 2, 19)
assert 4.0 < digit_bits < 4.6 and 1.4 < mnist_bits < 2.2 and digit_error < 0.1 and mnist_error < 0.1

# %% [markdown]
# And without a bound, by the ODE, for sixteen validation digits with one probe each. The same sixteen by both ways:

# %%
few = val_x[:16]
moved = dequantise(few, seeded(20))
along = density_bits(ode_log_prob(network, schedule, moved, time_grid(1000, 40, "quadratic"), probes=1, generator=seeded(21)), moved)
finer = density_bits(ode_log_prob(network, schedule, moved, time_grid(1000, 80, "quadratic"), probes=1, generator=seeded(21)), moved)
bound_16 = sampled_bound(network, schedule, few.repeat(60, 1, 1, 1), copy.deepcopy(times), choices["optimal, from the error"], "discrete", seeded(22))
bound_16 = bound_16 * to_bits
assert abs(float(along.mean() - finer.mean())) < 0.05 and abs(float(finer.mean() - bound_16.mean())) < 0.6
print(f"16 digits: bound {float(bound_16.mean()):.1f}, ODE with filled bins {float(finer.mean()):.1f} bits per dim")
print("40 and 80 steps differ by less than 0.05: True")

# %% [markdown]
# How to read this:
#
# - **Digits, a bit over 4.** That is no better than $\log_2 17\approx4.1$, what it costs to know nothing but "17 grey values". Is the network worthless? No. Nobody told it, or its decoder, that there are only 17 values; it must spend bits on where between them a pixel lies. The bits measure grain, the eye sees digits.
# - **MNIST, about 1.7.** Most pixels are exactly black, and a certain black pixel is nearly free.
# - The ODE's number is *another* quantity: another model (12.12), and filled bins instead of a decoder. That the two lie near each other is reassuring, no more. With filled bins the network sees inputs with a little grain that it never saw while training.
#
# **What may be compared.** Bits per dimension of two models may stand side by side if all of this is the same: the data set *and its split*, the size and the number of grey levels, the decoder or filled bins, and whether it is a bound or an ODE value. So our numbers may **not** be set beside published figures for CIFAR-10 or ImageNet (other data, colour, other size). Nor may the MNIST number stand beside published MNIST figures without a note: these are 300 of the 500 validation pictures of a subset of 5,000, and a network trained on 4,000 instead of 60,000. Published tables often mix bounds and exact values, and MNIST papers often use a *binarised* MNIST, counted in nats per picture, which is another data set. What may be compared: two of *your* models, with the same code. Better bits do not mean better samples, nor the other way round (chapter 05).
#
# ### Play with it
#
# One picture number of the Gaussian family: choose the width of the data and $T$. The bars are the excess of the bound over the entropy for each variance. Where does $\beta$ win against $\tilde\beta$, and where is the first the same as the best?

# %%
def draw(width, T):
    data, chain = ExactGaussian(torch.zeros(1), torch.tensor([[width**2]])), cosine_schedule(T)
    bars, best_one = {}, optimal_variance(chain, data.unexplained(chain))
    for name, kind in (("beta", "beta"), ("beta~, clipped", "posterior_clipped"), ("optimal", best_one)):
        rho = torch.tensor([best_one(t, t - 1) / reverse_variance(chain, t, t - 1, kind) for t in range(1, T + 1)])
        bars[name] = 0.5 * float((rho - 1 - rho.log()).sum())
    plt.figure(figsize=(5, 2.2))
    plt.bar(list(bars), list(bars.values()), color=[BLUE, ORANGE, GREEN])
    plt.title(f"excess over the entropy in nats, data N(0, {width:g}$^2$), T = {T}")


explore(draw, width=slider(0.05, 2.0, 0.3, 0.05, "width"), T=slider(1, 200, 10, label="T"))

# %% [markdown]
# ## Common mistakes
#
# ### A density called a probability (M34)
#
# The picture goes into `ode_log_prob` as it is, grey values unfilled, and the nats are divided by $D\log2$. The number that exposes it: "bits" below 0 already for an honest Gaussian, if only it is narrow. A message of negative length does not exist.

# %%
narrow = ExactGaussian(torch.zeros(4), 0.0001 * torch.eye(4))
sharp = narrow.sample(50, seeded(23))
as_bits = float((-narrow.log_prob(sharp) / (4 * math.log(2))).mean())
right_bits = float(density_bits(narrow.log_prob(sharp), sharp).mean())
assert as_bits < 0 < right_bits
print("density as if it were a probability: below 0 bits: True;  with the width of the bin: above 0: True")

# %% [markdown]
# The right line: `density_bits(log_prob, x)`, which adds $-\log_2 w$ for each number, and `dequantise` before. The level count belongs to it: 256 levels and 17 levels differ by $\log_2(255/16)\approx4$ bits on the same density.
#
# ### Three variances taken for one (M4)
#
# "The variance does not matter, the samples look the same." On the full grid that is true for samples and false for the bound. The plain $\tilde\beta$ cannot even be used: at $t=1$ it is 0, and the bound infinite. The package refuses it, with the way out. The network's own bound above differs by a quarter of a bit between $\tilde\beta$, clipped, and the optimum.

# %%
try:
    vlb_terms(network, schedule, few, "posterior")
    raise AssertionError("accepted")
except ValueError as refused:
    print(refused)
difference = means["posterior_clipped"] - means["optimal, from the error"]
assert 0.15 < difference < 0.4
print("clipped beta~ costs between 0.15 and 0.4 bits per dim more than the optimum: True")

# %% [markdown]
# ### The bound's mean is not held fixed in the hybrid loss
#
# Without the stopped gradient the loss also trains the mean by the bound's weights. Nothing fails; $L_\text{simple}$ is just no longer what is minimised, and the gradient is as noisy as the red curve above. The number that exposes it is the gradient itself: it must be the same with and without $\lambda$ at the outputs for $\hat\varepsilon$. We checked it above, to the last bit.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/12_likelihood_student.ipynb), [with solutions](exercises/12_likelihood_solution.ipynb).

# %% [markdown]
# **12.1 ★** A model gives a dequantised picture of $D$ numbers the log density $\ell$ (nats). The grey values have $n$ levels, evenly spaced from $-1$ to $1$. How many bits per dimension?

# %% [markdown] tags=["hint"]
# **Hint 12.1**
#
# The width of a bin is the distance of two neighbouring levels. There are $n-1$ distances in an interval of length 2.

# %% tags=["exercise"]
def bits_of(log_density, D, n):
    return ...


check("12.1", bits_of)


# %% tags=["solution"]
def bits_of(log_density, D, n):
    return -log_density / (D * math.log(2)) - math.log2(2 / (n - 1))


must_pass("12.1", bits_of)

# %% [markdown]
# **12.2 ★★** A network's error, the mean of $(\varepsilon-\hat\varepsilon)^2$ at time $t$, is $u$. Write the best scalar variance of the jump from $t$ to $s$, from $\bar\alpha_t$, $\bar\alpha_s$ and $u$. Check in your head: what must come out at $u=0$?

# %% [markdown] tags=["hint"]
# **Hint 12.2**
#
# $\tilde\beta+m$ with $m$ from (12.5). For a jump, $\alpha=\bar\alpha_t/\bar\alpha_s$ and $1-\alpha$ take the places of $\alpha_t$ and $\beta_t$.

# %% tags=["exercise"]
def best_jump_variance(bar_t, bar_s, u):
    return ...


check("12.2", best_jump_variance)


# %% tags=["solution"]
def best_jump_variance(bar_t, bar_s, u):
    step = 1 - bar_t / bar_s
    c_0 = bar_s**0.5 * step / (1 - bar_t)
    return step * (1 - bar_s) / (1 - bar_t) + c_0**2 * (1 - bar_t) / bar_t * u


must_pass("12.2", best_jump_variance)

# %% [markdown]
# **12.3 ★★** Data $\mathcal N(0,\kappa)$, one number, the oracle. How large is the integral of the trace in (12.12), from the clean end to $\bar\alpha_T$?

# %% [markdown] tags=["hint"]
# **Hint 12.3**
#
# Below (12.10) stands $\hat v$; its derivative by $x$ is $\kappa'/(2\kappa_\varphi)$. Half the derivative of which logarithm is that?

# %% tags=["exercise"]
def trace_integral(kappa, bar_T):
    return ...


check("12.3", trace_integral)


# %% tags=["solution"]
def trace_integral(kappa, bar_T):
    return 0.5 * math.log((bar_T * kappa + 1 - bar_T) / kappa)


must_pass("12.3", trace_integral)

# %% [markdown]
# **12.4 ★** Three times have the mean squares $\mathbb E[L_t^2]=16,\ 1,\ 0.25$. With which probabilities should they be drawn? Return a list.

# %% [markdown] tags=["hint"]
# **Hint 12.4**
#
# Proportional to the roots, and they add up to 1.

# %% tags=["exercise"]
probabilities = ...
check("12.4", probabilities)

# %% tags=["solution"]
roots = [16**0.5, 1**0.5, 0.25**0.5]
probabilities = [root / sum(roots) for root in roots]
must_pass("12.4", probabilities)

# %% [markdown]
# **12.5 ★★★** The variance of Hutchinson's estimate. For a matrix $A$ (a list of rows) and a vector $e$ of independent random signs, write the variance of $e^\top\!A\,e$. Check in your head: what is it for a diagonal matrix?

# %% [markdown] tags=["hint"]
# **Hint 12.5**
#
# $e_i^2=1$, so the diagonal is a constant. The products $e_ie_j$ with $i<j$ have mean 0 and variance 1, and are uncorrelated. What stands before each of them?

# %% tags=["exercise"]
def probe_variance(A):
    return ...


check("12.5", probe_variance)


# %% tags=["solution"]
def probe_variance(A):
    return sum((A[i][j] + A[j][i]) ** 2 for i in range(len(A)) for j in range(i))


must_pass("12.5", probe_variance)

# %% [markdown]
# **12.6 ★★★** Two numbers have the true reverse variances $a$ and $b$. The mean is right. One scalar variance must serve both. How many nats does the *best* scalar cost, for the two numbers together? Check in your head: what is it at $a=b$?

# %% [markdown] tags=["hint"]
# **Hint 12.6**
#
# The cost with $\sigma^2$ is $\frac12\big(\frac a{\sigma^2}-1-\log\frac a{\sigma^2}\big)$ plus the same with $b$. Which $\sigma^2$ makes it smallest?

# %% tags=["exercise"]
def price_of_one_variance(a, b):
    return ...


check("12.6", price_of_one_variance)


# %% tags=["solution"]
def price_of_one_variance(a, b):
    return math.log((a + b) / 2) - 0.5 * math.log(a * b)  # arithmetic against geometric mean


must_pass("12.6", price_of_one_variance)

# %% [markdown]
# ## What comes next
#
# The ODE appeared here as a tool for counting stretched space. Chapter 13 takes it seriously: where it comes from, what the score has to do with it, and how to solve it in few steps. Chapter 14 then asks what the bits did not: are the samples good?
