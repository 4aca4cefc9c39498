# %% [markdown]
# # 06 · What the network predicts: noise, picture, v or score
#
# **The question.** Chapter 05 ended with about a thousand terms. Each one asks: is the network's Gaussian close to the true one? Yet every training loop on the internet compares *noise* with *noise*. Where does that come from, what was dropped on the way, and would predicting something else be better?
#
# **After this chapter you can**
#
# - go from a matching term of the bound to $\lVert\varepsilon-\hat\varepsilon\rVert^2$ without leaving a line out, and name the weight that $L_\text{simple}$ drops;
# - turn $\varepsilon$, $x_0$, $v$ and the score into one another, and their losses too;
# - explain why a network may answer *the* noise although nobody can know it: it answers a conditional mean;
# - say how low the loss can get, and tell a bad network from a finished one.
#
# *Needs:* chapters 01 (KL of Gaussians), 02 (closed form), 03 (posterior), 05 (the matching terms). *Time:* about three hours with the exercises.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import MLP, FiniteData, GaussianMixture, cosine_schedule, linear_schedule, x_0_to_eps, x_0_to_v
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits, toy
from ddpm_course.elbo import vlb_terms
from ddpm_course.forward import q_sample
from ddpm_course.gaussian import normal_kl
from ddpm_course.losses import diffusion_loss, min_snr_weight, simple_loss, vlb_weight
from ddpm_course.plots import curves, scatter_row, show_rows, style
from ddpm_course.posterior import q_posterior, reverse_variance
from ddpm_course.prediction import as_eps_model, clip_x_0, eps_to_score, eps_to_v, eps_to_x_0, target, v_to_eps, v_to_x_0
from ddpm_course.proofs import Expect, agrees, alpha_t, bar_s, bar_t, beta_t, derive, eps, equation, table_values, x_0, x_t
from ddpm_course.sampling import ddim_sample, ddpm_sample, ddpm_step
from ddpm_course.train import at_scale

style()
schedule = linear_schedule(T=1000)

# %% [markdown]
# Here is what this chapter is about, before any formula. A network gets the top row, noisy digits at $t=250$. What should it answer? The clean digit? The noise that was mixed in? A blend of the two, called $v$? At a known $t$ any one of the three, together with the top row, gives the other two. So the *information* is the same. What a network makes of it is not.

# %%
picture = digits().train.images[:10]
noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
noisy = q_sample(schedule, picture, 250, noise)
answers = {name: target(schedule, picture, 250, noise, name) for name in ("x_0", "eps", "v")}
show_rows({"x_t": noisy, "x_0": answers["x_0"], "eps / 3": answers["eps"] / 3, "v / 3": answers["v"] / 3})
plt.show()

# %% [markdown]
# (Noise has values beyond $\pm1$; it is divided by 3 so that the grey scale can show it.)
#
# ## From a KL divergence to a squared distance
#
# A matching term of chapter 05 compares two Gaussians for $x_{t-1}$. One is $q(x_{t-1}\mid x_t,x_0)=\mathcal N(\tilde\mu,\tilde\beta_t)$, which knows the answer. The other is the network's, $p_\theta(x_{t-1}\mid x_t)=\mathcal N(\mu_\theta,\sigma^2)$, which does not. Its variance $\sigma^2$ is a fixed number from a table, its mean comes from the network.
#
# The divergence is the mean of $\log q-\log p_\theta$ under $q$, with $x_t$ and $x_0$ held fixed. Write a point drawn from $q$ as $\tilde\mu + s z$ with $z\sim\mathcal N(0,1)$ and $s^2=\tilde\beta_t$; the expectation then runs over $z$. At this point $\log q=-\log s-\frac12z^2-\log\sqrt{2\pi}$, and $\log p_\theta=-\log\sigma-\frac{(\tilde\mu+sz-\mu_\theta)^2}{2\sigma^2}-\log\sqrt{2\pi}$. Subtract: the $\log\sqrt{2\pi}$ cancels, and the left side below remains, for one pixel.

# %% tags=["proof"]
from ddpm_course.proofs import sigma, z

mu_q, mu_p = sp.symbols(r"\tilde{\mu} \mu_\theta", real=True)
s = sp.Symbol("s", positive=True)
log_ratio = sp.log(sigma) - sp.log(s) + (mu_q + s * z - mu_p) ** 2 / (2 * sigma**2) - z**2 / 2
derive("6.1", Expect(log_ratio, z),
       (sp.log(sigma) - sp.log(s) + ((mu_q - mu_p) ** 2 + s**2) / (2 * sigma**2) - sp.Rational(1, 2),
        "expand; the mixed term has mean 0, and z has variance 1"),
       ((mu_q - mu_p) ** 2 / (2 * sigma**2) + (s**2 / sigma**2 - 1 - sp.log(s**2 / sigma**2)) / 2,
        "sort; 2 log s - 2 log of sigma is the log of the ratio of squares"), source="Ho section 3.2")

# %% tags=["proof"]
numbers = {mu_q: 0.3, mu_p: -0.5, s: 0.7, sigma: 0.9}
kl_mean_only = (mu_q - mu_p) ** 2 / (2 * sigma**2)
kl = kl_mean_only + (s**2 / sigma**2 - 1 - sp.log(s**2 / sigma**2)) / 2
agrees(kl, numbers, normal_kl(torch.tensor(0.3, dtype=torch.float64), 0.7**2, -0.5, 0.9**2))

# %% [markdown]
# Only the squared distance of the means contains the network. The rest compares two variances that come from tables: a constant for training, and exactly 0 when the variances are equal, $\sigma^2=\tilde\beta_t$. A picture has many pixels, all independent given $x_t$ and $x_0$, so its divergence is the sum over pixels.
#
# The proof does *not* say that the reverse step really is Gaussian. It compares two Gaussians because chapter 05 put two Gaussians there.

# %% [markdown]
# ## The true mean, with the noise in it
#
# Chapter 03 gave $\tilde\mu$ in terms of $x_0$ and $x_t$ (Ho eq. 7). The network sees $x_t$ but not $x_0$. Now turn the closed form $x_t=\sqrt{\bar\alpha_t}x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$ around. If $x_t$ and $\varepsilon$ are known, $x_0$ is known:

# %% tags=["proof"]
closed_form = {x_t: sp.sqrt(bar_t) * x_0 + sp.sqrt(1 - bar_t) * eps}  # chapter 02, Ho eq. 4
solved = (x_t - sp.sqrt(1 - bar_t) * eps) / sp.sqrt(bar_t)
equation("6.2", solved, x_0, given=closed_form, source="Ho eq. 15")
pixel, e_pixel = torch.tensor([[[0.7]], [[-0.4]]], dtype=torch.float64)
values = table_values(schedule, 300) | {x_t: 0.7, eps: -0.4}
agrees(solved, values, eps_to_x_0(schedule, pixel, 300, e_pixel))

# %% [markdown]
# Put this $x_0$ into the posterior mean. Two facts about the tables are used: $\beta_t=1-\alpha_t$, and $\bar\alpha_t=\alpha_t\bar\alpha_{t-1}$. The expression after the first equals sign looks worse than the one we start from, but only for a moment. The factor of $x_t$ is $\big(\beta_t+\alpha_t(1-\bar\alpha_{t-1})\big)/\big(\sqrt{\alpha_t}(1-\bar\alpha_t)\big)$. Its bracket is $1-\alpha_t+\alpha_t-\bar\alpha_t=1-\bar\alpha_t$, which cancels. A plain $1/\sqrt{\alpha_t}$ remains. In the factor of $\varepsilon$, $\sqrt{\bar\alpha_{t-1}}/\sqrt{\bar\alpha_t}=1/\sqrt{\alpha_t}$ by the second fact, and that is all.

# %% tags=["proof"]
tables = {beta_t: 1 - alpha_t, bar_t: alpha_t * bar_s}
mean_x_0 = sp.sqrt(bar_s) * beta_t / (1 - bar_t) * x_0 + sp.sqrt(alpha_t) * (1 - bar_s) / (1 - bar_t) * x_t
of_x_t = beta_t / (sp.sqrt(alpha_t) * (1 - bar_t)) + sp.sqrt(alpha_t) * (1 - bar_s) / (1 - bar_t)
mean_eps = (x_t - beta_t / sp.sqrt(1 - bar_t) * eps) / sp.sqrt(alpha_t)
derive("6.3", mean_x_0,
       (of_x_t * x_t - sp.sqrt(bar_s) * beta_t / (sp.sqrt(bar_t) * sp.sqrt(1 - bar_t)) * eps,
        "put 6.2 in for the picture, collect"),
       (mean_eps, "the factors simplify as described above"),
       given={x_0: solved} | tables, source="Ho eq. 11")

# %% tags=["proof"]
agrees(mean_eps, values, ddpm_step(schedule, pixel, e_pixel, 300, 299, torch.zeros_like(pixel)))
agrees(mean_eps, values, q_posterior(schedule, eps_to_x_0(schedule, pixel, 300, e_pixel), pixel, 300)[0])

# %% [markdown]
# This is the mean in $\varepsilon$ form. It is the *same number* as the posterior mean, only written with $\varepsilon$ in the place of $x_0$. Everything in it is known at sampling time except $\varepsilon$. So it is natural to let the network supply just that: $\mu_\theta=\frac1{\sqrt{\alpha_t}}\big(x_t-\frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\hat\varepsilon\big)$, where $\hat\varepsilon=\varepsilon_\theta(x_t,t)$ is the network's answer. Nothing forces this choice. It is a *parametrization*: a way to write the unknown.
#
# ## What an error in the noise costs
#
# Both means now have the same form and the same $x_t$. In their difference $x_t$ drops out, and $\tilde\mu-\mu_\theta=-\frac{\beta_t}{\sqrt{\alpha_t}\sqrt{1-\bar\alpha_t}}(\varepsilon-\hat\varepsilon)$ is left. Square it, and divide by $2\sigma^2$ as 6.1 says:

# %% tags=["proof"]
from ddpm_course.proofs import eps_hat

in_eps_form = {mu_q: mean_eps, mu_p: mean_eps.subs(eps, eps_hat)}
weight = beta_t**2 / (2 * sigma**2 * alpha_t * (1 - bar_t))
equation("6.4", kl_mean_only, weight * (eps - eps_hat) ** 2, given=in_eps_form, source="Ho eq. 12")
for t in (2, 500, 1000):
    for kind in ("beta", "posterior"):
        var = reverse_variance(schedule, t, t - 1, kind)
        agrees(weight, table_values(schedule, t) | {sigma: var**0.5}, vlb_weight(schedule, t, kind))

# %% [markdown]
# So a matching term is a *weighted squared error of the noise*. With its expectation and its constant, for a picture: $L_{t-1}=\frac{\beta_t^2}{2\sigma^2\alpha_t(1-\bar\alpha_t)}\,\mathbb E_{\varepsilon}\big[\lVert\varepsilon-\hat\varepsilon\rVert^2\big]+\text{const}$. The expectation of chapter 05 ran over $x_t\sim q(x_t\mid x_0)$. Since $x_0$ is fixed and $x_t=\sqrt{\bar\alpha_t}x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$, drawing $x_t$ is drawing $\varepsilon\sim\mathcal N(0,I)$. It holds for $t\ge 2$. The term at $t=1$ is another thing, the reconstruction $-\log p_\theta(x_0\mid x_1)$; there $\tilde\beta_1=0$, and a weight with $\sigma^2=\tilde\beta_1$ would divide by zero.
#
# Check it against the real thing. We take the package's bound on a short chain, with an eps_model that is wrong on purpose, and rebuild each matching term as constant + weight × squared error.

# %%
short = cosine_schedule(20)
x = toy("moons", 5, torch.Generator().manual_seed(1)).double()
e = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
matching = vlb_terms(lambda x_t, t: 0.3 * x_t, short, x, variance="beta", eps=e).matching
for t in range(2, 21):
    error = (e - 0.3 * q_sample(short, x, t, e)).square().sum(1)
    ratio = (1 - short.alpha_bar[t - 1]) / (1 - short.alpha_bar[t])  # posterior variance / beta_t
    constant = 0.5 * (ratio - 1 - ratio.log())  # for each of the two coordinates
    by_hand = 2 * constant + vlb_weight(short, t, "beta") * error
    torch.testing.assert_close(by_hand, matching[:, t - 2], rtol=0, atol=1e-10)
print("weight x squared error + constant = matching term, t = 2..20: True")

# %% [markdown]
# ### The same cost, seen from the picture
#
# What does an error in $\hat x_0$ cost? Do the same with the posterior mean in $x_0$ form, and take $\sigma^2=\tilde\beta_t=\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\beta_t$. The answer is beautiful. The weight is half the *drop of the signal-to-noise ratio* in this step, where $\mathrm{SNR}(t)=\bar\alpha_t/(1-\bar\alpha_t)$ as in chapter 02.

# %% tags=["proof"]
from ddpm_course.proofs import x_0_hat

beta_of_bars = 1 - bar_t / bar_s
known = {sigma: sp.sqrt(beta_of_bars * (1 - bar_s) / (1 - bar_t)), beta_t: beta_of_bars, alpha_t: bar_t / bar_s}
in_x_0_form = {mu_q: mean_x_0, mu_p: mean_x_0.subs(x_0, x_0_hat)}
half_drop = (bar_s / (1 - bar_s) - bar_t / (1 - bar_t)) / 2
derive("6.5", kl_mean_only,
       (bar_s * beta_t**2 / (2 * sigma**2 * (1 - bar_t) ** 2) * (x_0 - x_0_hat) ** 2,
        "both means in picture form; the noisy pixel cancels"),
       (bar_s * beta_t / (2 * (1 - bar_s) * (1 - bar_t)) * (x_0 - x_0_hat) ** 2,
        "put the posterior variance in; one beta cancels"),
       ((bar_s - bar_t) / (2 * (1 - bar_s) * (1 - bar_t)) * (x_0 - x_0_hat) ** 2, "beta = 1 - (ratio of the two alpha bars)"),
       (half_drop * (x_0 - x_0_hat) ** 2, "split the fraction; see below"),
       given=in_x_0_form | known, source="VDM section 4")

# %% [markdown]
# How is the fraction split? Read backwards, it is a common denominator: $\frac{a}{1-a}-\frac{b}{1-b}=\frac{a(1-b)-b(1-a)}{(1-a)(1-b)}=\frac{a-b}{(1-a)(1-b)}$.
#
# The proof needs $\sigma^2=\tilde\beta_t$; with $\sigma^2=\beta_t$ the weight is smaller by the factor $\tilde\beta_t/\beta_t$. Because the weights are differences, their sum telescopes: $\tfrac12(\mathrm{SNR}_1-\mathrm{SNR}_2)+\tfrac12(\mathrm{SNR}_2-\mathrm{SNR}_3)+\dots$ leaves $\tfrac12(\mathrm{SNR}_1-\mathrm{SNR}_T)$. So the *total* weight depends on the two ends alone, however the steps between are spaced.
#
# The next cell takes the table values of the package. It turns its $\varepsilon$ weight into an $x_0$ weight by the exchange rate $\mathrm{SNR}$ (derived below, 6.12) and compares with half the drop.

# %%
t_all = torch.arange(2, 1001)
eps_weight = vlb_weight(schedule, t_all, "posterior")
drop = 0.5 * (schedule.snr(t_all - 1) - schedule.snr(t_all))
torch.testing.assert_close(eps_weight * schedule.snr(t_all), drop, rtol=1e-9, atol=1e-12)
ends = 0.5 * (schedule.snr(1) - schedule.snr(1000))
print(f"sum of all 999 weights of x_0: {float(drop.sum()):.0f};  from the two ends alone: {ends:.0f}")

# %% [markdown]
# ## L_simple: leave the weight out
#
# Ho's training loss drops the weight, and lets $t$ run over all of $1,\dots,T$ with equal probability:
#
# $$ L_\text{simple}(\theta) = \mathbb E_{t,\,x_0,\,\varepsilon}\Big[\big\lVert \varepsilon - \varepsilon_\theta\big(\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon,\ t\big)\big\rVert^2\Big] \tag{6.6, definition} $$
#
# This is Ho eq. 14, with its range of $t$. The bound itself has at $t=1$ the reconstruction, and $L_\text{simple}$ treats that term like all others. Beside the matching terms, whose weight on $\lVert\varepsilon-\hat\varepsilon\rVert^2$ is $\frac{\beta_t^2}{2\sigma^2\alpha_t(1-\bar\alpha_t)}$ (6.4), it is a *reweighting*: the weight is 1 at every $t$, and the constants are gone.
#
# Which variables does the expectation run over? Three: a time $t$ drawn uniformly, a picture $x_0$ drawn from the data, a noise $\varepsilon$ drawn from $\mathcal N(0,I)$. A training step draws all three afresh, for each picture of the batch. In code it is three lines. The package's `diffusion_loss` does the same, and takes the mean over the pixels in the place of their sum, which changes nothing but the scale:

# %%
rng = torch.Generator().manual_seed(18)
t_batch = torch.randint(1, 1001, (10,), generator=rng)
e = torch.randn(picture.shape, generator=rng)
x_now = q_sample(schedule, picture, t_batch, e)
by_hand = (e - 0.5 * x_now).square().mean(dim=(1, 2, 3))  # the "network" answers half of what it sees
torch.testing.assert_close(diffusion_loss(lambda x_t, t: 0.5 * x_t, schedule, picture, t_batch, e), by_hand)

# %% [markdown]
# How far is this from the bound? Look at the weight that was dropped.

# %%
beta_weight = vlb_weight(schedule, t_all, "beta")
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
lines = {r"bound, $\sigma^2=\tilde\beta_t$": eps_weight, r"bound, $\sigma^2=\beta_t$": beta_weight}
lines |= {r"$L_{simple}$": torch.ones(999)}
curves(t_all, lines, left, xlabel="t", yscale="log", title=r"weight of $|\varepsilon-\hat\varepsilon|^2$")
shares = {"bound": beta_weight.cumsum(0) / beta_weight.sum(), "L_simple": (t_all - 1) / 999}
curves(t_all, shares, right, xlabel="t", title="share of the total weight up to t")
early = {name: float(share[98]) for name, share in shares.items()}  # position 98 is t = 100
print(f"share of the weight on t <= 100: bound {early['bound']:.2f}, L_simple {early['L_simple']:.2f}")

# %% [markdown]
# The blue and the orange curve differ only in the first few steps. The bound's weight falls by a factor of more than 20 within the first hundred steps, reaches its lowest point near $t=350$, and then doubles again until $t=T$. So the bound spends a third of its weight on the first tenth of the times, where pictures are nearly clean; $L_\text{simple}$ spends a tenth. That is right for coding every last grain of a pixel. It is wasteful if you want good-looking pictures, because what a picture *shows* is decided at middle and large $t$. Leaving out the weight moves the attention there.
#
# Does a different weight lead to a different answer? For a network that could represent any function: no. Each $(x_t,t)$ has its own best answer, and any positive weight leaves that answer where it is. For a real network, which must share its capacity among all $t$: yes, the weight says where it may be sloppy.

# %% [markdown]
# ## Why may a network answer "the noise"?
#
# Readers often get lost here. The noise $\varepsilon$ was drawn at random. The network only sees $x_t$. Many pairs $(x_0,\varepsilon)$ lead to the same $x_t$. How can anybody know *the* noise? Nobody can. But a squared error has a best answer all the same. Fix $x_t$ and $t$. Let $e$ stand for the noise as it is distributed once $x_t$ is known, and $f$ for the network's answer. All expectations below are over $e$.

# %% tags=["proof"]
e_given, f = sp.Symbol("e", real=True), sp.Symbol("f", real=True)
conditional_mean = Expect(e_given, e_given)
conditional_variance = Expect(e_given**2, e_given) - conditional_mean**2
derive("6.7", Expect((e_given - f) ** 2, e_given),
       (Expect(e_given**2, e_given) - 2 * f * conditional_mean + f**2, "expand; f is a number, not random"),
       ((f - conditional_mean) ** 2 + conditional_variance, "complete the square in f"))

# %% [markdown]
# The second part does not contain $f$. The first part is smallest, namely 0, when $f$ is the **conditional mean** $\mathbb E[\varepsilon\mid x_t]$. So $\varepsilon_\theta$ stands for $\varepsilon$ in the same way as a weather forecast of "20 degrees" stands for tomorrow's temperature: the best single number, not a prophecy. What remains even then is the variance of $\varepsilon$ given $x_t$. No network gets below it.
#
# Nothing here needs Gaussian noise, or even diffusion. It is a fact about squared errors. It does not say that training *finds* the conditional mean.
#
# ### The cloud
#
# Here is the picture to remember. Data: single numbers near $-1$ and near $+1$. We draw many $(x_0,\varepsilon)$, compute $x_t$, and plot $\varepsilon$ against $x_t$. A network that minimises the squared error fits a curve through this cloud. The orange curve is the exact conditional mean, from the package's oracle. The black dots average the cloud in narrow vertical strips.

# %%
line = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.15, 0.15]))
line_oracle = line.eps_model(schedule)


def cloud(t, n=40_000, seed=3):
    rng = torch.Generator().manual_seed(seed)
    x_0 = line.sample(n, rng)
    e = torch.randn(x_0.shape, generator=rng, dtype=torch.float64)
    return x_0, e, q_sample(schedule, x_0, t, e)


# %% [markdown]
# The second helper cuts the horizontal axis into strips and averages what is in each. That is the simplest way to estimate a conditional mean: look at all points with nearly this $x_t$, and take their mean.

# %%
def strips(x, y, edges):
    """Mean of y in each strip of x between two edges, and how many points it has."""
    k = torch.bucketize(x.flatten(), edges) - 1
    inside = (k >= 0) & (k < len(edges) - 1)
    count = torch.bincount(k[inside], minlength=len(edges) - 1)
    return torch.bincount(k[inside], y.flatten()[inside], minlength=len(edges) - 1) / count.clamp(min=1), count


# %%
edges = torch.linspace(-2.6, 2.6, 40, dtype=torch.float64)
centres = (edges[1:] + edges[:-1]) / 2
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2))
for ax, t in zip(axes, (60, 250, 700), strict=True):
    x_0_many, e_many, x_many = cloud(t)
    mean, count = strips(x_many, e_many, edges)
    ax.scatter(x_many[:1500], e_many[:1500], s=2, alpha=0.4)
    ax.plot(centres, line_oracle(centres[:, None], torch.full((39,), t)), color="#e08a2e", linewidth=2.5)
    ax.plot(centres[count > 80], mean[count > 80], "k.", markersize=5)
    ax.set(xlabel="x_t", title=f"t = {t}", ylim=(-3.5, 3.5), xlim=(-2.6, 2.6))
axes[0].set_ylabel(r"$\varepsilon$ and $E[\varepsilon\,|\,x_t]$")
plt.show()

# %% [markdown]
# Middle panel, at $x_t=0$: the cloud has *two* branches there. Either $x_0\approx+1$ and the noise was negative, or the other way round. The best answer is their mean, 0, and almost no point of the cloud lies there! A conditional mean need not look like any single possibility. That is also why the predicted $\hat x_0$ of a very noisy picture is a blur. At $t=60$ the two branches do not overlap: the curve follows each of them, and falls steeply in between, where no data are. At $t=700$ the cloud is nearly the line $\varepsilon=x_t$: almost everything one sees is noise.
#
# In numbers: the strips and the oracle agree within the error of a mean.

# %%
x_0_many, e_many, x_many = cloud(250)
mean, count = strips(x_many, e_many, edges)
exact, _ = strips(x_many, line_oracle(x_many, torch.full((len(x_many),), 250)), edges)
full = count > 80
assert float(((mean - exact).abs() * count.sqrt())[full].max()) < 4  # about 4 standard errors or more, as the sd is at most about 1
print(f"{int(full.sum())} strips, largest distance below 0.2: {float((mean - exact)[full].abs().max()) < 0.2}")

# %% [markdown]
# ### Play with it
#
# Move $t$ and choose what is predicted. For $x_0$ the two branches are flat lines at $\pm1$, and the conditional mean is a soft step between them. For $v$ the branches slope. Whatever you choose, the curve stays a mean. In a viewer without a running kernel, look at the three panels above.

# %%
from ddpm_course.widgets import choice, explore, slider


def draw(t, what):
    x_0, e, x = cloud(t, 3000)
    places = edges[:, None]
    best_eps = line_oracle(places, torch.full((40,), t))
    best = {"eps": best_eps, "x_0": eps_to_x_0(schedule, places, t, best_eps)}
    best["v"] = eps_to_v(schedule, places, t, best_eps)
    fig, ax = plt.subplots(figsize=(5, 3.4))
    ax.scatter(x, target(schedule, x_0, t, e, what), s=3, alpha=0.4)
    ax.plot(edges, best[what], color="#e08a2e", linewidth=2.5)
    ax.set(xlim=(-2.6, 2.6), ylim=(-3, 3), xlabel="x_t", ylabel=what, title=f"{what} and its conditional mean, t = {t}")


explore(draw, t=slider(1, 1000, 250, label="t"), what=choice(["eps", "x_0", "v"], "predict"))

# %% [markdown]
# ## Four languages for one answer
#
# At a known $x_t$ and $t$, the relation between $x_0$ and $\varepsilon$ is a straight line. So a network may answer either. There is a third useful choice, a blend called *velocity*:
#
# $$ v = \sqrt{\bar\alpha_t}\;\varepsilon - \sqrt{1-\bar\alpha_t}\;x_0 \tag{6.8, definition} $$
#
# Put $\cos\varphi=\sqrt{\bar\alpha_t}$ and $\sin\varphi=\sqrt{1-\bar\alpha_t}$, which is allowed because the squares add up to 1. Then $x_t=\cos\varphi\,x_0+\sin\varphi\,\varepsilon$ and $v=\cos\varphi\,\varepsilon-\sin\varphi\,x_0$. The pair $(x_t,v)$ is the pair $(x_0,\varepsilon)$ *rotated* by the angle $\varphi$, and $v$ is the direction in which $x_t$ moves when $\varphi$ grows (differentiate: the slope of $\cos\varphi$ is $-\sin\varphi$, and that of $\sin\varphi$ is $\cos\varphi$). A rotation is undone by rotating back, without any division:

# %% tags=["proof"]
from ddpm_course.proofs import v

rotated = closed_form | {v: sp.sqrt(bar_t) * eps - sp.sqrt(1 - bar_t) * x_0}
equation("6.9", sp.sqrt(1 - bar_t) * x_t + sp.sqrt(bar_t) * v, eps, given=rotated, source="v-pred appendix D")
equation("6.10", sp.sqrt(bar_t) * x_t - sp.sqrt(1 - bar_t) * v, x_0, given=rotated, source="v-pred appendix D")
equation("6.11", x_t**2 + v**2, x_0**2 + eps**2, given=rotated)

# %% tags=["proof"]
values = table_values(schedule, 300) | {x_t: 0.7, v: -0.4, eps: -0.4, x_0: -0.4}
agrees(sp.sqrt(1 - bar_t) * x_t + sp.sqrt(bar_t) * v, values, v_to_eps(schedule, pixel, 300, e_pixel))
agrees(sp.sqrt(bar_t) * x_t - sp.sqrt(1 - bar_t) * v, values, v_to_x_0(schedule, pixel, 300, e_pixel))
agrees((x_t - sp.sqrt(bar_t) * x_0) / sp.sqrt(1 - bar_t), values, x_0_to_eps(schedule, pixel, 300, e_pixel))
agrees((eps - sp.sqrt(1 - bar_t) * x_t) / sp.sqrt(bar_t), values, eps_to_v(schedule, pixel, 300, e_pixel))
agrees((sp.sqrt(bar_t) * x_t - x_0) / sp.sqrt(1 - bar_t), values, x_0_to_v(schedule, pixel, 300, e_pixel))

# %% [markdown]
# Equation 6.11 says that a rotation keeps lengths. If data and noise are independent, both with mean 0 and variance 1, then $v$ has variance $\bar\alpha_t+(1-\bar\alpha_t)=1$ at *every* $t$: a target of constant size, pleasant for a network.
#
# One more thing comes for free. Each conversion is a straight line in the predicted value, at fixed $x_t$. A mean of points on a line stays on the line. So converting the conditional mean of $\varepsilon$ gives exactly the conditional means of $x_0$ and of $v$. All languages have the *same* perfect answer.
#
# ### Exchange rates for errors
#
# Let a network be off by $\varepsilon-\hat\varepsilon$. By how much is its $\hat x_0$ off, and its $\hat v$? Convert both sides with the same $x_t$ and subtract; $x_t$ drops out. From 6.2, $x_0-\hat x_0=-\sqrt{\frac{1-\bar\alpha_t}{\bar\alpha_t}}\,(\varepsilon-\hat\varepsilon)$. From 6.9, solved for $v$, $v-\hat v=\frac{1}{\sqrt{\bar\alpha_t}}(\varepsilon-\hat\varepsilon)$. From 6.10, $x_0-\hat x_0=-\sqrt{1-\bar\alpha_t}\,(v-\hat v)$. Squared:

# %% tags=["proof"]
v_hat = sp.Symbol(r"\hat{v}", real=True)
in_eps = {x_0: solved, x_0_hat: solved.subs(eps, eps_hat)}
v_of_eps = (eps - sp.sqrt(1 - bar_t) * x_t) / sp.sqrt(bar_t)
equation("6.12", (x_0 - x_0_hat) ** 2, (1 - bar_t) / bar_t * (eps - eps_hat) ** 2, given=in_eps)
of_eps = {v: v_of_eps, v_hat: v_of_eps.subs(eps, eps_hat)}
equation("6.13", (v - v_hat) ** 2, (eps - eps_hat) ** 2 / bar_t, given=of_eps)
of_v = {x_0: sp.sqrt(bar_t) * x_t - sp.sqrt(1 - bar_t) * v, x_0_hat: sp.sqrt(bar_t) * x_t - sp.sqrt(1 - bar_t) * v_hat}
equation("6.14", (x_0 - x_0_hat) ** 2, (1 - bar_t) * (v - v_hat) ** 2, given=of_v)

# %% [markdown]
# So $1$ unit of squared $\varepsilon$ error is $1/\mathrm{SNR}$ units of squared $x_0$ error and $1/\bar\alpha_t$ units of squared $v$ error. A loss with weight $w$ on $\varepsilon$ equals a loss with weight $w\cdot\mathrm{SNR}$ on $x_0$, and one with weight $w\,\bar\alpha_t$ on $v$. All six ways, for one and the same loss (multiply the weight of the row by the entry to get the weight of the column):
#
# | weight on | → on $\varepsilon$ | → on $x_0$ | → on $v$ |
# |---|---|---|---|
# | $\varepsilon$ | 1 | $\frac{\bar\alpha_t}{1-\bar\alpha_t}$ | $\bar\alpha_t$ |
# | $x_0$ | $\frac{1-\bar\alpha_t}{\bar\alpha_t}$ | 1 | $1-\bar\alpha_t$ |
# | $v$ | $\frac1{\bar\alpha_t}$ | $\frac1{1-\bar\alpha_t}$ | 1 |
#
# With $\sigma^2=\tilde\beta_t$ the weight of the bound, half the drop of the SNR on $x_0$, is therefore $\frac12(\mathrm{SNR}_{t-1}-\mathrm{SNR}_t)/\mathrm{SNR}_t$ on $\varepsilon$. "Predicting $x_0$ with an unweighted loss" is therefore *not* $L_\text{simple}$ in other words. It is another weighting.
#
# ## By hand
#
# One conversion, the mean and the weight, written by hand, and $v$ from its definition. We compare with the package at the first, an early, a middle and the last time.

# %%
bar, T = schedule.alpha_bar, 1000


def my_x_0(x_t, t, eps):
    return (x_t - (1 - bar[t]) ** 0.5 * eps) / bar[t] ** 0.5


def my_mean(x_t, t, eps):
    alpha = bar[t] / bar[t - 1]
    return (x_t - (1 - alpha) / (1 - bar[t]) ** 0.5 * eps) / alpha**0.5


# %%
def my_weight(t, var):
    alpha = bar[t] / bar[t - 1]
    return (1 - alpha) ** 2 / (2 * var * alpha * (1 - bar[t]))


def same(mine, package):
    torch.testing.assert_close(mine, package, rtol=0, atol=1e-10)


# %%
x, e = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
for t in (1, 2, 500, 1000):
    x_t_now = q_sample(schedule, x, t, e)
    same(my_x_0(x_t_now, t, e), eps_to_x_0(schedule, x_t_now, t, e))
    same(my_mean(x_t_now, t, e), q_posterior(schedule, x, x_t_now, t)[0])
    same(my_mean(x_t_now, t, e), ddpm_step(schedule, x_t_now, e, t, t - 1, torch.zeros_like(x)))
    same(bar[t] ** 0.5 * e - (1 - bar[t]) ** 0.5 * x, target(schedule, x, t, e, "v"))
    if t > 1:
        assert abs(float(my_weight(t, 1 - bar[t] / bar[t - 1])) - vlb_weight(schedule, t, "beta")) < 1e-10
print("by hand = package at t = 1, 2, 500, 1000: True")

# %% [markdown]
# Next, all round trips, at every $t$ at once: there, back, and we must stand where we started.

# %%
t_every = torch.arange(1, 1001)
x, e = torch.randn(2, 1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
x_now = q_sample(schedule, x, t_every, e)
v_now = target(schedule, x, t_every, e, "v")
for there, back, start in ((eps_to_x_0, x_0_to_eps, e), (eps_to_v, v_to_eps, e), (x_0_to_v, v_to_x_0, x)):
    same(back(schedule, x_now, t_every, there(schedule, x_now, t_every, start)), start)
print("every round trip returns to its start: True")

# %% [markdown]
# A round trip would not notice if both directions shared a mistake. So the same $v$ must come out of $\varepsilon$ and out of $x_0$, and `as_eps_model` must turn a "network" that knows any one of the three into one that knows $\varepsilon$.

# %%
same(eps_to_v(schedule, x_now, t_every, e), v_now)
same(x_0_to_v(schedule, x_now, t_every, x), v_now)
for name, value in (("eps", e), ("x_0", x), ("v", v_now)):
    same(as_eps_model(lambda x_t, t, value=value: value, schedule, name)(x_now, t_every), e)
print("all roads lead to the same eps: True")

# %% [markdown]
# Then the exchange rates: one error, priced in three currencies, must cost the same. And a weight that people really use, min-SNR, has three forms in the package (in the currency $x_0$, $L_\text{simple}$ has the weight $\mathrm{SNR}(t)$, by the table; min-SNR takes $\min(\mathrm{SNR}(t),5)$ instead, so that the nearly clean pictures do not dominate). By the rates they must be the same loss.

# %%
wrong_eps = e + 0.1 * torch.randn(e.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
snr = schedule.snr(t_every)
price = {"eps": (wrong_eps - e).square().mean(1)}
price["x_0"] = (eps_to_x_0(schedule, x_now, t_every, wrong_eps) - x).square().mean(1) * snr
price["v"] = (eps_to_v(schedule, x_now, t_every, wrong_eps) - v_now).square().mean(1) * schedule.alpha_bar[1:]
for name in ("x_0", "v"):
    torch.testing.assert_close(price[name], price["eps"], rtol=0, atol=1e-12)
v_price = (eps_to_v(schedule, x_now, t_every, wrong_eps) - v_now).square().mean(1)
x_0_price = (eps_to_x_0(schedule, x_now, t_every, wrong_eps) - x).square().mean(1)
torch.testing.assert_close(x_0_price, v_price * (1 - schedule.alpha_bar[1:]), rtol=1e-9, atol=1e-12)  # the last row of the table
print("three currencies, one price, to 1e-12: True")

# %%
capped = snr.clamp(max=5)  # min-SNR: the x_0 weight is capped at 5
for name, form in (("x_0", capped), ("eps", capped / snr), ("v", capped / snr * schedule.alpha_bar[1:])):
    torch.testing.assert_close(min_snr_weight(schedule, t_every, name), form, rtol=0, atol=1e-12)
    for t in (100, 300):  # SNR above and below 5
        assert abs(min_snr_weight(schedule, t, name) - float(form[t - 1])) < 1e-12
print(f"SNR above 5 at t = 100: {schedule.snr(100) > 5}, at t = 300: {schedule.snr(300) > 5}")
print("three forms of min-SNR agree: True")

# %% [markdown]
# What do the rates mean in practice? Suppose a network is off by 0.1 in whatever it predicts. How large is the error in $\hat x_0$, and in $\hat\varepsilon$?

# %%
signal, loud = bar[1:].sqrt(), (1 - bar[1:]).sqrt()
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
on_x_0 = {"predicts eps": 0.1 * loud / signal, "predicts x_0": 0.1 * torch.ones(1000), "predicts v": 0.1 * loud}
on_eps = {"predicts eps": 0.1 * torch.ones(1000), "predicts x_0": 0.1 * signal / loud, "predicts v": 0.1 * signal}
curves(t_every, on_x_0, left, xlabel="t", yscale="log", title=r"error of $\hat x_0$", ylim=(1e-3, 30))
curves(t_every, on_eps, right, xlabel="t", yscale="log", title=r"error of $\hat\varepsilon$", ylim=(1e-3, 30))
print(f"an eps error of 0.1 at t = 1000 becomes an x_0 error of {float(on_x_0['predicts eps'][-1]):.0f}")

# %% [markdown]
# Read it from the two ends. Near $t=T$ an $\varepsilon$ predictor is in trouble: the picture is a tiny part of what it sees, and dividing by $\sqrt{\bar\alpha_t}$ blows its error up. Near $t=0$ an $x_0$ predictor is in trouble: the noise is the tiny part. The $v$ predictor is never worse than its own error on either side. A rotation does not amplify.

# %% [markdown]
# ## The fourth language: the score
#
# The *score* is the gradient of the log density, $\nabla_{x_t}\log q(x_t)$. It is an arrow at each point, and it points uphill, to where noisy data are denser. If $x_0$ is known it is easy, since $q(x_t\mid x_0)$ is a Gaussian: differentiate $-(x_t-\sqrt{\bar\alpha_t}x_0)^2/2(1-\bar\alpha_t)$ and put 6.2 in.

# %% tags=["proof"]
log_density = -((x_t - sp.sqrt(bar_t) * x_0) ** 2) / (2 * (1 - bar_t))  # of q(x_t | x_0), without its constant
score_given_x_0 = -eps / sp.sqrt(1 - bar_t)
equation("6.15", sp.Derivative(log_density, x_t), score_given_x_0, given={x_0: solved}, source="SDE section 3.3")
agrees(score_given_x_0, values, eps_to_score(schedule, pixel, 300, e_pixel))

# %% [markdown]
# But we want the score of $q(x_t)$, where $x_0$ is *not* known. That density is an average of Gaussians, one for each possible $x_0$. Take two possible values with weights $w_1,w_2$, and call the two Gaussians $q_1,q_2$. What is the slope of the logarithm of their sum?

# %% tags=["proof"]
w_1, w_2 = sp.symbols("w_1 w_2", positive=True)
q_1, q_2 = (sp.Function(name)(x_t) for name in ("q_1", "q_2"))
both = w_1 * q_1 + w_2 * q_2
derive("6.16", sp.Derivative(sp.log(both), x_t),
       ((w_1 * sp.Derivative(q_1, x_t) + w_2 * sp.Derivative(q_2, x_t)) / both, "chain rule: slope of a logarithm"),
       (w_1 * q_1 / both * sp.Derivative(sp.log(q_1), x_t) + w_2 * q_2 / both * sp.Derivative(sp.log(q_2), x_t),
        "each slope is the density times the slope of its logarithm"))

# %% [markdown]
# The factors $w_k q_k/(w_1q_1+w_2q_2)$ are Bayes' rule: the probability of the $k$-th value *given* $x_t$. So the score of the mixture is the conditional mean of the single scores. With 6.15, **the score is $-\mathbb E[\varepsilon\mid x_t]/\sqrt{1-\bar\alpha_t}$**. More than two values change nothing but the number of terms; for continuous data the sum is an integral, and one needs that integral and derivative may be swapped, which holds for Gaussians.
#
# So our conditional mean of the noise is the score in disguise. Check this where everything is known: eight Gaussians on a ring. The left side comes from automatic differentiation of $\log q(x_t)$; nobody wrote that gradient down. The right side comes from the oracle's closed formula for $\mathbb E[\varepsilon\mid x_t]$; nobody differentiated there.

# %%
angle = torch.arange(8) * math.pi / 4
ring = GaussianMixture(torch.full((8,), 1 / 8), 1.4 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((8,), 0.1))
ring_oracle = ring.eps_model(schedule)

# %%
for t in (1, 2, 500, 1000):
    rng = torch.Generator().manual_seed(7)
    e = torch.randn(50, 2, generator=rng, dtype=torch.float64)
    point = q_sample(schedule, ring.sample(50, rng), t, e).requires_grad_()
    (score,) = torch.autograd.grad(ring.diffused(float(bar[t])).log_prob(point).sum(), point)
    best = ring_oracle(point.detach(), torch.full((50,), t))
    torch.testing.assert_close(score, eps_to_score(schedule, point.detach(), t, best), rtol=1e-9, atol=1e-9)
print("gradient of log q(x_t) = -E[eps | x_t] / sqrt(1 - alpha_bar): True")

# %%
axis = torch.linspace(-2.4, 2.4, 120).double()
arrows = torch.linspace(-2.2, 2.2, 12).double()
fig, axes = plt.subplots(1, 3, figsize=(8, 2.8))
for ax, t in zip(axes, (40, 150, 400), strict=True):
    mesh = torch.cartesian_prod(axis, axis)
    density = ring.diffused(float(bar[t])).log_prob(mesh).exp().reshape(120, 120).T
    ax.contourf(axis, axis, density, levels=12, cmap="Blues")
    places = torch.cartesian_prod(arrows, arrows)
    score = eps_to_score(schedule, places, t, ring_oracle(places, torch.full((144,), t)))
    ax.quiver(*places.T, *(score / (1 + score.norm(dim=1, keepdim=True))).T, scale=22, width=0.006, color="#c0413b")
    ax.set(aspect="equal", title=f"score at t = {t}", xticks=[], yticks=[])
    ax.grid(False)

# %% [markdown]
# Blue: the density of $x_t$. Red: its score (the arrows are squeezed, long ones more than short ones: read their direction). At $t=40$ each of the eight heaps pulls in its own neighbourhood. At $t=150$ the heaps have merged into a ring. At $t=400$ there is one hill, and all arrows point to its middle. Go through the panels from right to left and follow the arrows; that is what a sampler does: first find the data at all, then the ring, then one heap.

# %% [markdown]
# ## Train one in each language
#
# Now three small networks, trained live, on the same eight heaps. Same architecture, same seeds, same steps; each minimises the unweighted squared error of its *own* target. We use the cosine schedule, as the shipped digits do. It ends at a far smaller $\bar\alpha_T$ than the linear one, so that differences show.

# %%
cosine = cosine_schedule(1000)
steps = at_scale(cpu=600, gpu=6000)


def fit(prediction, sees_t=True):
    torch.manual_seed(0)
    rng, net, history = torch.Generator().manual_seed(1), MLP(dim=2, width=64), []
    model = net if sees_t else lambda x_t, t: net(x_t, torch.ones_like(t))  # a network that is always told "t = 1"
    optimizer = torch.optim.Adam(net.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        x_0, t = toy("ring8", 256, rng), torch.randint(1, 1001, (256,), generator=rng)
        loss = diffusion_loss(model, cosine, x_0, t, torch.randn(x_0.shape, generator=rng), prediction).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        history.append(float(loss.detach()))
    return model, history


# %%
trained = {name: fit(name) for name in ("eps", "x_0", "v")}

# %% [markdown]
# ### Why does the loss stop falling? Can it reach 0?
#
# This is what learners ask most. Equation 6.7 has the answer: the loss is *irreducible minimum + excess*. The minimum is the mean conditional variance, which belongs to the data and the schedule. Only the excess belongs to the network. For the ring the oracle gives us the minimum, so the two can be told apart. We draw one large evaluation set and use it for everything below.

# %%
rng = torch.Generator().manual_seed(8)
t_eval = torch.arange(1, 1001).repeat(20)
x_0_eval, e_eval = ring.sample(20_000, rng).float(), torch.randn(20_000, 2, generator=rng)
x_eval = q_sample(cosine, x_0_eval, t_eval, e_eval)
best_eps = ring.eps_model(cosine)(x_eval, t_eval)
bar_eval = cosine.alpha_bar[t_eval]
rates = {"eps": 1.0, "x_0": (1 - bar_eval) / bar_eval, "v": 1 / bar_eval}  # equations 6.12 and 6.13
floor_at = {name: simple_loss(best_eps, e_eval) * rate for name, rate in rates.items()}
floor = {name: float(value.mean()) for name, value in floor_at.items()}
print({name: round(value, 2) for name, value in floor.items()}, "<- the lowest loss that any network can reach")

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.2))
bands = torch.arange(10, 1001, 20)
for name, colour in (("eps", "#3b6fb6"), ("x_0", "#e08a2e"), ("v", "#4a9b5e")):
    smooth = torch.tensor(trained[name][1]).unfold(0, 25, 25).mean(1)
    axes[0].plot(range(25, steps + 1, 25), smooth, color=colour, label=f"trained on {name}")
    axes[0].axhline(floor[name], color=colour, linestyle=":")
    by_t = torch.stack([floor_at[name][(t_eval > c - 10) & (t_eval <= c + 10)].mean() for c in bands])
    axes[1].plot(bands, by_t, color=colour, label=name)
axes[0].set(xlabel="step", title="training loss, and its floor (dotted)", ylim=(0, 1.4))
axes[1].set(xlabel="t", title="the floor at each t", ylim=(0, 2.2))
axes[0].legend()
axes[1].legend()
plt.show()

# %% [markdown]
# Left: every curve falls quickly and then lies down *on its floor*, not on 0. Three losses, three different floors: comparing "0.35 for $\varepsilon$" with "0.83 for $v$" says nothing about which network is better. Right: the floor depends strongly on $t$. Follow the blue curve (at small $t$ it lies under the green one, since there $v\approx\varepsilon$). At $t\to0$ it goes to 1: nobody can tell a little noise from the scatter inside a heap. It dips a little above $t=100$, where the noise is wider than a heap but the heaps are still apart. It rises again where heaps overlap, since now one must guess *which* heap. At large $t$ it goes to 0, because the input *is* the noise. For $x_0$ the floor only rises.
#
# So: the loss stops falling because it has arrived. It can reach 0 only if $x_t$ determines $\varepsilon$, that is, if the data are a single point. The next cell measures the decomposition. The loss on the evaluation set and "floor + distance to the oracle" agree, since the mixed term has mean zero.

# %%
@torch.no_grad()
def answers_of(name):
    return as_eps_model(trained[name][0], cosine, name)(x_eval, t_eval)


# %%
for name in trained:
    eps_hat_now = answers_of(name)
    loss = float((simple_loss(eps_hat_now, e_eval) * rates[name]).mean())
    excess = float((simple_loss(eps_hat_now, best_eps) * rates[name]).mean())
    assert abs(loss - floor[name] - excess) < 0.02 and loss < 1.1 * floor[name]
    print(f"{name:4s} loss = floor + excess: True;  excess below 10 % of the floor: {excess < 0.1 * floor[name]}")

# %% [markdown]
# ### Which language is best?
#
# Compare in one currency at a time: left the squared distance of $\hat x_0$ from the perfect $\hat x_0$, right that of $\hat\varepsilon$ from the perfect $\hat\varepsilon$. Both are an *excess*, so 0 is perfect. This is an *excess*, so 0 is perfect. Below it the samples, drawn by the deterministic sampler of chapter 10 in 50 steps.

# %%
fig, (ax, right) = plt.subplots(1, 2, figsize=(10, 3.2))
for name in trained:
    gap = simple_loss(answers_of(name), best_eps)
    for axis_now, rate in ((ax, rates["x_0"]), (right, 1.0)):
        by_t = torch.stack([(gap * rate)[(t_eval > c - 10) & (t_eval <= c + 10)].mean() for c in bands])
        axis_now.plot(bands, by_t, label=f"trained on {name}")
ax.set(xlabel="t", yscale="log", title=r"excess error of $\hat x_0$")
right.set(xlabel="t", yscale="log", title=r"excess error of $\hat\varepsilon$")
ax.legend()
plt.show()

# %%
def hits(x):
    """Share of points within 0.3 (three standard deviations) of one of the eight centres."""
    return float((torch.cdist(x.double(), ring.means).min(1).values < 0.3).double().mean())


# %%
start = torch.randn(1000, 2, generator=torch.Generator().manual_seed(9))
models = {f"trained on {name}": as_eps_model(trained[name][0], cosine, name) for name in trained}
models["eps, clipped"] = clip_x_0(models["trained on eps"], cosine, -1.8, 1.8)
samples = {name: ddim_sample(model, cosine, x_T=start, num_steps=50) for name, model in models.items()}
worst_of_others = min(hits(x) for name, x in samples.items() if name != "trained on eps")
assert hits(samples["trained on eps"]) < 0.3 < 0.8 < worst_of_others
scatter_row({"data": ring.sample(1000, torch.Generator().manual_seed(10))} | samples)
plt.show()

# %% [markdown]
# The curves show what 6.12 promised. In $\hat x_0$, the $\varepsilon$ network is excellent at small $t$ and hopeless near $t=T$. In $\hat\varepsilon$, the $x_0$ network is poor at small $t$. The $v$ network is good at both ends.
#
# The samples show what it costs. On this schedule $\sqrt{\bar\alpha_T}$ is about $5\cdot10^{-5}$. The first step divides a small $\varepsilon$ error by it, the point is thrown far away, and it never comes back: the second panel is nearly empty. The $x_0$ network smears the heaps along the ring, because its answer is coarse at small $t$, where the last details are decided. The $v$ network has neither trouble, only a few strays. The cure in the last panel is the one that published samplers use with $\varepsilon$ networks. Clip $\hat x_0$ to the range where data can be, and derive $\hat\varepsilon$ again from it.
#
# Two honest limits. On the *linear* schedule the $\varepsilon$ network needs no such help: there $\sqrt{\bar\alpha_T}$ is more than a hundred times larger. And 600 steps on a toy rank nothing for large networks; published models of all three kinds work well.

# %% [markdown]
# ## Is t needed at all?
#
# The network gets $x_t$ *and* $t$. Could it not see for itself how noisy its input is? We can compute the exact price of not telling it. The best blind answer averages over all times that could have produced this $x_t$, again by Bayes' rule: $\sum_t p(t\mid x_t)\,\mathbb E[\varepsilon\mid x_t,t]$. Everything in it is known to the oracle. We try it on the ring, and on 300 real digits of 64 pixels.

# %%
def price_of_blindness(data, n, times=range(50, 1001, 50)):
    """(floor with t, what the best blind answer pays on top), averaged over the times."""
    rng, model, floor, price = torch.Generator().manual_seed(11), data.eps_model(cosine), 0.0, 0.0
    for i, t in enumerate(times):
        x_0 = data.sample(n, rng)
        e = torch.randn(x_0.shape, generator=rng, dtype=torch.float64)
        x = q_sample(cosine, x_0, t, e)
        log_p = torch.stack([data.component_log_prob(x, float(cosine.alpha_bar[k])).logsumexp(1) for k in times], 1)
        guesses = torch.stack([model(x, torch.full((n,), k)).flatten(1) for k in times], 1)
        blind = (log_p.softmax(1)[:, :, None] * guesses).sum(1)
        floor += float((e.flatten(1) - guesses[:, i]).square().mean()) / len(times)
        price += float((blind - guesses[:, i]).square().mean()) / len(times)
    return floor, price


# %%
with_ring = price_of_blindness(ring, 300)
with_digits = price_of_blindness(FiniteData(digits().train.images[:300]), 30)
assert 0.1 < with_ring[1] < 0.2 and with_digits[1] < 0.02
print(f"loss of always guessing 0: 1;  ring: {with_ring[0]:.2f} + {with_ring[1]:.2f} for being blind")
print(f"64-pixel digits: the price of being blind is below 0.02: {with_digits[1] < 0.02}")

# %% [markdown]
# In the plane the price is large: two numbers do not tell how much noise is in them. In 64 dimensions it is small, because 64 pixels together betray the noise level quite well. A variance estimated from $d$ numbers has a relative error of about $\sqrt{2/d}$, so larger pictures betray it better still. So $t$ is *necessary* on toys, and a great convenience on pictures. A real network without $t$ pays the price that the oracle predicted, plus its usual excess:

# %%
blind_net, _ = fit("eps", sees_t=False)
with torch.no_grad():
    blind_excess = float(simple_loss(blind_net(x_eval, t_eval), best_eps).mean())
    seeing_excess = float(simple_loss(answers_of("eps"), best_eps).mean())
assert 0.1 < blind_excess < 0.2 and seeing_excess < 0.03
print("excess with t below 0.03: True;  without t between 0.1 and 0.2: True")

# %% [markdown]
# ## Why does the code's mean differ from the paper's equation 11?
#
# Open any implementation and you find two steps where the paper has one: first $\hat x_0$ from $\hat\varepsilon$ (6.2), then the posterior mean with $\hat x_0$ in the place of $x_0$ (Ho eq. 7). By 6.3 this is the paper's equation 11, so why the detour? Because between the two steps one can *clip* $\hat x_0$ to $[-1,1]$, where pixels live. Clipping breaks the equality exactly when some pixel of $\hat x_0$ lies outside.

# %%
x, e = picture.double(), noise.double()


def three_means(t):
    """The paper's mean, Ho 7 with clipped x_0_hat, and the paper's with eps derived again from the clipped x_0_hat."""
    x_now = q_sample(schedule, x, t, e)
    error = torch.randn(e.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    eps_now = e + 0.1 * error  # an imperfect network
    x_0_now = eps_to_x_0(schedule, x_now, t, eps_now)
    same(my_mean(x_now, t, eps_now), q_posterior(schedule, x_0_now, x_now, t)[0])  # without clipping the two are one
    eps_again = clip_x_0(lambda x_t, t: eps_now, schedule)(x_now, t)
    clipped = q_posterior(schedule, x_0_now.clamp(-1, 1), x_now, t)[0]
    return my_mean(x_now, t, eps_now), clipped, my_mean(x_now, t, eps_again), x_0_now


# %%
for t in (2, 300, 600, 1000):
    paper, clipped, paper_again, x_0_now = three_means(t)
    same(paper_again, clipped)  # with eps derived again the two are one again
    outside, change = float((x_0_now.abs() > 1).double().mean()), float((clipped - paper).abs().max())
    print(f"t = {t:4d}: {outside:.0%} of pixels outside, mean changes by up to {change:.0e}; eps derived again: equal")

# %% [markdown]
# Even a network that is off by only 0.1 leaves $[-1,1]$ at many pixels, since half of a digit's pixels are exactly $-1$. At $t=1000$ it is nearly all of them: there the rate (6.12) makes an error of 16 out of the 0.1. The end of each line shows the way to have both. Clip $\hat x_0$, compute the $\hat\varepsilon$ that belongs to it, and hand *that* to the formula of equation 11. This is what `clip_x_0` does, and it works for every sampler, DDIM included.

# %% [markdown]
# ## Common mistakes
#
# All four run without an error message. Guess the number before you run the cell.
#
# ### "Subtract the predicted noise from the picture" (M8)
#
# The sentence is in many explanations, and `x = x - eps` is in some code. Even with the *true* noise it does not give the picture, since the noise in $x_t$ has the factor $\sqrt{1-\bar\alpha_t}$ and the picture has the factor $\sqrt{\bar\alpha_t}$. Used as a sampling step, with the perfect oracle, it is a catastrophe.

# %%
x_now = q_sample(schedule, picture, 250, noise)
miss = float((x_now - noise - picture).square().mean().sqrt())  # the mistake, once, with the true noise
right = float((eps_to_x_0(schedule, x_now, 250, noise) - picture).abs().max())
x = torch.randn(200, 2, generator=torch.Generator().manual_seed(12))
good = ddpm_sample(ring_oracle, schedule, x_T=x, num_steps=1000, generator=torch.Generator().manual_seed(13))

# %%
for t in range(1000, 0, -1):
    x = x - ring_oracle(x, torch.full((200,), t))  # the mistake, as a sampler
print(f"one step, pixels off by {miss:.2f} (right: {right < 1e-5})")
print(f"as a sampler, spread above 1e10: {float(x.std()) > 1e10}")
assert miss > 0.2 and float(x.std()) > 1e10 and hits(good) > 0.95

# %% [markdown]
# ### "ε is the noise that was added in this step" (M16)
#
# It is the *total* noise since $x_0$, normalised to variance 1. The noise of step $t$ is one small part of it. How small? Chapter 02 built the total from the old total $\bar\varepsilon_{t-1}$ and the step's noise $\varepsilon_t$. The new total and the step's noise both have mean 0 and variance 1, so their correlation is the expectation of their product.

# %% tags=["proof"]
from ddpm_course.proofs import normal

old, new = normal(r"\bar{\varepsilon}_{t-1}"), normal(r"\varepsilon_t")
total = (sp.sqrt(alpha_t) * sp.sqrt(1 - bar_s) * old + sp.sqrt(beta_t) * new) / sp.sqrt(1 - bar_t)
derive("6.17", Expect(total * new, old, new),
       ((sp.sqrt(alpha_t) * sp.sqrt(1 - bar_s) * Expect(old, old) * Expect(new, new)
         + sp.sqrt(beta_t) * Expect(new**2, new)) / sp.sqrt(1 - bar_t),
        "the two noises are independent"),
       (sp.sqrt(beta_t) / sp.sqrt(1 - bar_t), "mean 0 kills the first part, variance 1 leaves the second"))

# %%
rng = torch.Generator().manual_seed(14)
old_noise, step_noise = torch.randn(2, 100_000, generator=rng, dtype=torch.float64)
for t in (1, 10, 100, 1000):
    x_prev = torch.sqrt(1 - bar[t - 1]) * old_noise  # x_0 = 0: all that is there is noise
    x_now = torch.sqrt(schedule.alpha[t]) * x_prev + torch.sqrt(schedule.beta[t]) * step_noise
    total_noise = x_now / torch.sqrt(1 - bar[t])
    wanted = float((schedule.beta[t] / (1 - bar[t])) ** 0.5)
    measured = float((total_noise * step_noise).mean())
    assert abs(measured - wanted) < 4 * (2 / 100_000) ** 0.5
    print(f"t = {t:4d}: correlation {wanted:.2f}, measured within 4 standard errors: True")

# %% [markdown]
# At $t=1$ the two are the same, since there was only one step. At $t=1000$ the correlation is 0.14: the step's noise explains 2 % of the variance of what the network is asked for.
#
# ### "The network learns the variance" (M3)
#
# It learns a mean. The variance of the reverse step comes from a table and stays the same whatever the network says. (Later models do learn it, with a second output; Nichol section 3.1.) Two very different answers, one spread:

# %%
x_now, z_many = torch.full((50_000, 1), 0.5), torch.randn(50_000, 1, generator=torch.Generator().manual_seed(15))
table = reverse_variance(schedule, 300, 299, "posterior")
for answer in (0.0, 2.0):
    x_next = ddpm_step(schedule, x_now, torch.full_like(x_now, answer), 300, 299, z_many)
    mean, var = float(x_next.mean()), float(x_next.var())
    print(f"network says {answer:.0f}: mean {mean:.2f}, variance {var:.4f} (table: {table:.4f})")
    assert abs(var / table - 1) < 0.03

# %% [markdown]
# ### "The loss compares generated pictures with real ones" (M37)
#
# No picture is generated during training. The loss compares two noises, $\varepsilon$ and $\hat\varepsilon$, for one and the same $x_t$. Comparing a sample with a real picture would punish the *perfect* sampler. Here the oracle samples the ring correctly, yet its points are as far from randomly paired data points as data points are from each other.

# %%
real, other = (ring.sample(200, torch.Generator().manual_seed(seed)) for seed in (16, 17))
wrong = float((good - real).square().mean())  # "generated against real"
unavoidable = float((real - other).square().mean())
print(f"the perfect sampler hits the heaps: {hits(good) > 0.95}")
print(f"generated against real: about {wrong:.0f};  real against real: about {unavoidable:.0f}")
assert abs(wrong / unavoidable - 1) < 0.3

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/06_prediction_student.ipynb), [with solutions](exercises/06_prediction_solution.ipynb).

# %% [markdown]
# **6.1 ★** A pixel of $x_t$ is $0.5$, the network says $\hat\varepsilon=-1$, and $\bar\alpha_t=0.64$. What is $\hat x_0$?

# %% [markdown] tags=["hint"]
# **Hint 6.1**
#
# $\sqrt{0.64}=0.8$ and $\sqrt{0.36}=0.6$. Take the noise out first, then undo the shrinking.

# %% tags=["exercise"]
x_0_hat_answer = ...
check("6.1", x_0_hat_answer)

# %% tags=["solution"]
x_0_hat_answer = (0.5 - (1 - 0.64) ** 0.5 * (-1)) / 0.64**0.5  # 1.375: outside [-1, 1], a sampler would clip it
must_pass("6.1", x_0_hat_answer)

# %% [markdown]
# **6.2 ★★** How low can the $\varepsilon$ loss get? Take data $x_0\sim\mathcal N(0,c^2)$, one number. Write the irreducible minimum at noise level $\bar\alpha$: the variance of $\varepsilon$ given $x_t$. (For two jointly Gaussian numbers with mean 0: $\mathrm{Var}(\varepsilon\mid x_t)=\mathrm{Var}(\varepsilon)-\mathrm{Cov}(\varepsilon,x_t)^2/\mathrm{Var}(x_t)$.)

# %% [markdown] tags=["hint"]
# **Hint 6.2**
#
# $x_t$ is a sum of two independent parts. Only one of them has anything to do with $\varepsilon$.

# %% tags=["exercise"]
def least_loss(c, alpha_bar):
    return ...


check("6.2", least_loss)


# %% tags=["solution"]
def least_loss(c, alpha_bar):
    return 1 - (1 - alpha_bar) / (alpha_bar * c**2 + 1 - alpha_bar)  # Cov(eps, x_t) = sqrt(1 - alpha_bar)


must_pass("6.2", least_loss)

# %% [markdown]
# **6.3 ★★** Somebody trains on $x_0$ with an unweighted squared error. Which weight does this put on $|\varepsilon-\hat\varepsilon|^2$ at noise level $\bar\alpha$?

# %% [markdown] tags=["hint"]
# **Hint 6.3**
#
# At the same $x_t$, an error in $\hat\varepsilon$ moves $\hat x_0$. By which factor?

# %% tags=["exercise"]
def weight_on_eps(alpha_bar):
    return ...


check("6.3", weight_on_eps)


# %% tags=["solution"]
def weight_on_eps(alpha_bar):
    return (1 - alpha_bar) / alpha_bar  # equation 6.12: 1 / SNR


must_pass("6.3", weight_on_eps)

# %% [markdown]
# **6.4 ★★★** With $\sigma^2=\tilde\beta_t$, the bound weighs $|x_0-\hat x_0|^2$ by half the drop of the SNR. Write the weight of $|v-\hat v|^2$, given $\bar\alpha_{t-1}$ and $\bar\alpha_t$.

# %% [markdown] tags=["hint"]
# **Hint 6.4**
#
# Go from the weight of $x_0$ to that of $v$: how large is an error in $x_0$, if the error in $v$ is 1?

# %% tags=["exercise"]
def weight_on_v(alpha_bar_s, alpha_bar_t):
    return ...


check("6.4", weight_on_v)


# %% tags=["solution"]
def weight_on_v(alpha_bar_s, alpha_bar_t):
    drop = alpha_bar_s / (1 - alpha_bar_s) - alpha_bar_t / (1 - alpha_bar_t)
    return 0.5 * drop * (1 - alpha_bar_t)  # by 6.12 and 6.13, |x_0 error|^2 = (1 - alpha_bar_t) |v error|^2


must_pass("6.4", weight_on_v)

# %% [markdown]
# **6.5 ★★** A network answers the score $s=\nabla_{x_t}\log q(x_t)$ of one pixel. Write $\hat x_0$ from $x_t$, $s$ and $\bar\alpha_t$.

# %% [markdown] tags=["hint"]
# **Hint 6.5**
#
# Turn the score into $\hat\varepsilon$ first: they differ by a factor and a sign.

# %% tags=["exercise"]
def x_0_from_score(x_t, score, alpha_bar):
    return ...


check("6.5", x_0_from_score)


# %% tags=["solution"]
def x_0_from_score(x_t, score, alpha_bar):
    eps_hat = -((1 - alpha_bar) ** 0.5) * score
    return (x_t - (1 - alpha_bar) ** 0.5 * eps_hat) / alpha_bar**0.5


must_pass("6.5", x_0_from_score)

# %% [markdown]
# **6.6 ★★★** The total noise $\varepsilon$ in $x_t$ is made of the noises of all steps $k=1,\dots,t$. Write the correlation of the noise of step $k$ with the total, given $\beta_k$, $\bar\alpha_k$ and $\bar\alpha_t$ (where $k\le t$). Check: what must the squares of all of them add up to?

# %% [markdown] tags=["hint"]
# **Hint 6.6**
#
# After step $k$ its noise has the factor $\sqrt{\beta_k}$. What do the steps $k+1,\dots,t$ do to it? Then divide by the standard deviation of the total.

# %% tags=["exercise"]
def step_in_total(beta_k, bar_k, bar_t):
    return ...


check("6.6", step_in_total)


# %% tags=["solution"]
def step_in_total(beta_k, bar_k, bar_t):
    return (bar_t / bar_k * beta_k / (1 - bar_t)) ** 0.5  # shrunk on the way by sqrt(bar_t / bar_k)


must_pass("6.6", step_in_total)

# %% [markdown] tags=["solution"]
# (The squares add up to 1: the shares of the steps in the variance of the total noise. Late steps have the largest shares.)

# %% [markdown]
# **6.7 ★★★** The data are two points, $-1$ and $1$, equally likely. Write what a perfect network answers in the language $v$: $\mathbb E[v\mid x_t]$, as a function of $x_t$ and $\bar\alpha_t$.

# %% [markdown] tags=["hint"]
# **Hint 6.7**
#
# All languages are linear in each other at fixed $x_t$, so the mean of $v$ follows from the mean of $x_0$. Given $x_t$, $x_0$ has the mean $\tanh\frac{\sqrt{\bar\alpha_t}\,x_t}{1-\bar\alpha_t}$.

# %% tags=["exercise"]
def best_v(x_t, alpha_bar):
    return ...


check("6.7", best_v)


# %% tags=["solution"]
def best_v(x_t, alpha_bar):
    x_0_hat = math.tanh(alpha_bar**0.5 * x_t / (1 - alpha_bar))
    return (alpha_bar**0.5 * x_t - x_0_hat) / (1 - alpha_bar) ** 0.5


must_pass("6.7", best_v)

# %% [markdown]
# ## What comes next
#
# The loss is now one line: draw $t$, $x_0$ and $\varepsilon$, and compare two noises. So far a small stack of linear layers answered. Pictures need more: an answer of the picture's own size, aware of both fine strokes and the whole shape. Chapter 07 builds that network, the U-Net, block by block, and chapter 08 trains it.
