# %% [markdown]
# # 05 · The bound with T latents
#
# **The question.** Chapter 04 had one latent and a bound of two terms. A diffusion model has a thousand latents, $x_1,\dots,x_T$, each as large as the picture. What becomes of the bound? And why is it not a thousand times looser?
#
# **After this chapter you can**
#
# - write down the two joint distributions of a diffusion model, and say which one has parameters;
# - derive the three terms of the bound, with the reason for each line, and say of every expectation *which variables* it runs over;
# - explain why one conditions on $x_0$ before applying Bayes' rule, and what happens if one does not;
# - compute all terms by hand and read them off a real digit, in bits per dimension;
# - say how fast the bound becomes tight as $T$ grows, and why.
#
# *Needs:* chapters 02 (forward process), 03 (posterior) and 04 (ELBO, KL of Gaussians). *Time:* about three hours with the exercises.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import GaussianMixture, cosine_schedule, linear_schedule, normal_kl, normal_log_prob, q_sample
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, image_grid, style
from ddpm_course.proofs import Expect, agrees, alpha_t, bar_s, bar_t, beta_t, derive, equation, normal, sigma
from ddpm_course.widgets import explore, slider

style()
cosine = cosine_schedule(T=1000)

# %% [markdown]
# First the whole machine in one picture. Above, blue: the forward process $q$ of chapter 02. It adds noise, it is fixed, nobody trains it. Below, orange: the reverse process $p_\theta$. It starts from pure noise and undoes one step at a time; $\theta$ stands for the weights of its network. (Each arrow in the picture stands for 200 steps.)

# %%
digit = digits().train.images[3:4]
chain_noise = torch.randn(digit.shape, generator=torch.Generator().manual_seed(0))
times = (0, 200, 400, 600, 800, 1000)
pictures = [digit if t == 0 else q_sample(cosine, digit, t, chain_noise) for t in times]

# %%
fig, ax = plt.subplots(figsize=(9.5, 2.5))
for k, (t, picture) in enumerate(zip(times, pictures, strict=True)):
    ax.imshow(image_grid(picture), extent=(2 * k, 2 * k + 1, 0, 1), vmin=0, vmax=1, interpolation="nearest")
    ax.text(2 * k + 0.5, -0.25, rf"$x_{{{t}}}$", ha="center", va="top")
    if k:
        ax.annotate("", (2 * k, 0.75), (2 * k - 1, 0.75), arrowprops={"arrowstyle": "->", "color": BLUE, "lw": 2})
        ax.annotate("", (2 * k - 1, 0.25), (2 * k, 0.25), arrowprops={"arrowstyle": "->", "color": ORANGE, "lw": 2})
ax.text(5.5, 1.25, r"$q(x_t\,|\,x_{t-1})$: fixed, adds noise  →", color=BLUE, ha="center")
ax.text(5.5, -0.75, r"←  $p_\theta(x_{t-1}\,|\,x_t)$: learned, takes noise away", color=ORANGE, ha="center")
ax.set(xlim=(-0.2, 11.2), ylim=(-0.9, 1.5))
ax.axis("off")
plt.show()

# %% [markdown]
# ## Two ways to write a whole film
#
# A film is the whole sequence $x_0, x_1,\dots,x_T$. Write $x_{1:T}$ for all of it but the first picture. The forward process gives, for a known first picture, the density of the rest:
#
# $$ q(x_{1:T}\mid x_0)=\prod_{t=1}^{T} q(x_t\mid x_{t-1}) \tag{5.1, definition} $$
#
# A product, because each step looks only at the one before (the Markov property of chapter 03). The reverse process gives the density of the *whole* film, starting at its end:
#
# $$ p_\theta(x_{0:T})=p(x_T)\prod_{t=1}^{T}p_\theta(x_{t-1}\mid x_t),\qquad p(x_T)=\mathcal N(0,I),\qquad p_\theta(x_{t-1}\mid x_t)=\mathcal N\big(\mu_\theta(x_t,t),\,\sigma_t^2 I\big) \tag{5.2, definition} $$
#
# Only the means $\mu_\theta$ come from the network. The variances $\sigma_t^2$ are chosen beforehand.
#
# What density does the model give to a picture $x_0$? As in chapter 04: add up all films that begin with it, $p_\theta(x_0)=\int p_\theta(x_{0:T})\,dx_{1:T}$. For 8×8 digits and $T=1000$ this is an integral over 64,000 numbers.
#
# ### The bound is the old one
#
# Nothing new is needed. Chapter 04 allowed any latent and any guess. Take the latent $z=x_{1:T}$ and the guess $q(x_{1:T}\mid x_0)$. The derivation is (4.8) again, with longer names. As there, the symbols are abstract positive numbers.

# %%
def density(text, *over):
    law = lambda self, printer, exp=None: text if exp is None else rf"{text}^{{{exp}}}"  # noqa: E731
    return type(text, (sp.Function,), {"_latex": law, "_eval_is_positive": lambda self: True})(*over)


film = sp.Symbol(r"x_{1:T}\sim q(\cdot\mid x_0)", real=True)
q_film, p_film = density(r"q(x_{1:T}\mid x_0)", film), density(r"p_\theta(x_{0:T})", film)
p_rest, p_x_0 = density(r"p_\theta(x_{1:T}\mid x_0)", film), sp.Symbol(r"p_{\theta}(x_0)", positive=True)

# %% tags=["proof"]
derive("5.3", Expect(sp.log(q_film / p_film), film),
       (Expect(sp.log(q_film / (p_x_0 * p_rest)), film), "Bayes: film = first picture times the rest"),
       (-sp.log(p_x_0) + Expect(sp.log(q_film / p_rest), film), "the density of the first picture is a constant here"),
       given={p_film: p_x_0 * p_rest}, source="Ho section 2")

# %% [markdown]
# The left side is the quantity to be minimised; call it $L$. The right side says: $L=-\log p_\theta(x_0)+\mathrm{KL}(\dots)$, so $L\ge-\log p_\theta(x_0)$, and the gap is the divergence between the two ways to complete the film, forward from $x_0$ or with the model. The expectation runs over **all of** $x_1,\dots,x_T$, drawn from the forward process started at the given $x_0$. (In training one averages over $x_0$ as well. In this chapter $x_0$ stands still unless we say otherwise.) What the proof does not tell is how to *compute* $L$.
#
# **The case $T=1$** is the end of chapter 04: one step, and $L=\mathrm{KL}(q(x_1\mid x_0)\,\|\,p(x_1))-\mathbb E_{x_1}[\log p_\theta(x_0\mid x_1)]$, prior and reconstruction. With two steps something new happens.
#
# ## Two steps, the obvious way and the better way
#
# For $T=2$ the ratio inside the logarithm has two factors above and three below. **The obvious way** is to pair them as they come: each forward step with the reverse step that leads to the same variable.
#
# $$ \frac{q(x_1\mid x_0)\;q(x_2\mid x_1)}{p(x_2)\;p_\theta(x_1\mid x_2)\;p_\theta(x_0\mid x_1)}
# =\frac{q(x_2\mid x_1)}{p(x_2)}\cdot{\color{red}{\frac{q(x_1\mid x_0)}{p_\theta(x_1\mid x_2)}}}\cdot\frac{1}{p_\theta(x_0\mid x_1)} $$
#
# Look at the red fraction. Above, $x_1$ is judged by its past, $x_0$. Below, it is judged by its future, $x_2$. They are two different questions. The average of its logarithm is no KL divergence, because $x_1$ and $x_2$ move *together*. We come back to it below; it can even be negative.
#
# **The better way** is to turn the forward step round by Bayes' rule. Without further knowledge that is hopeless: $q(x_1\mid x_2)$ needs the distribution of all pictures. But here $x_0$ is known, and chapter 03 showed that then the reverse question has a Gaussian answer. And conditioning on $x_0$ is free of charge: given $x_1$, the step to $x_2$ does not care where the film began, $q(x_2\mid x_1)=q(x_2\mid x_1,x_0)$. So, writing the pair $(x_1,x_2)$ in both orders,
#
# $$ q(x_2\mid x_1)\;q(x_1\mid x_0)\;=\;q(x_1,x_2\mid x_0)\;=\;q(x_1\mid x_2,x_0)\;q(x_2\mid x_0). $$
#
# This is all of Bayes' rule that we need. Put it in, and the logarithm falls into three parts:

# %% tags=["proof"]
pair = sp.Symbol(r"x_{1},x_{2}\sim q(\cdot\mid x_0)", real=True)
q_10, q_21, q_20 = (density(text, pair) for text in (r"q(x_1\mid x_0)", r"q(x_2\mid x_1)", r"q(x_2\mid x_0)"))
q_120, p_2 = density(r"q(x_1\mid x_2,x_0)", pair), density("p(x_2)", pair)
p_12, p_01 = density(r"p_\theta(x_1\mid x_2)", pair), density(r"p_\theta(x_0\mid x_1)", pair)
derive("5.4", Expect(sp.log(q_10 * q_21 / (p_2 * p_12 * p_01)), pair),
       (Expect(sp.log(q_20 * q_120 / (p_2 * p_12 * p_01)), pair), "Bayes, given the first picture"),
       (Expect(sp.log(q_20 / p_2), pair) + Expect(sp.log(q_120 / p_12), pair) - Expect(sp.log(p_01), pair),
        "logarithm of a product"),
       given={q_21: q_120 * q_20 / q_10}, source="Ho section 2 and appendix A")

# %% [markdown]
# Now above and below the second fraction the *same* question is asked: where was the chain at time 1, if it is at $x_2$ at time 2? Above answers somebody who knows $x_0$, below the model, which does not.
#
# For $T=3$ there are two steps to turn round, and the reason for the name *telescoping* shows. Each turned step brings a fraction $q(x_t\mid x_0)/q(x_{t-1}\mid x_0)$, and neighbours cancel:

# %%
fig, ax = plt.subplots(figsize=(9.5, 1.9))
tones = {1: "black", 2: BLUE, 3: GREEN, 4: ORANGE, 5: RED}


def fraction(left, above, below):
    ax.plot([left, left + 0.84], [0.5, 0.5], color="black", linewidth=1)
    for level, time in ((0.78, above), (0.22, below)):
        ax.text(left + 0.42, level, rf"$q(x_{time}\,|\,x_0)$", color=tones[time], ha="center", va="center", fontsize=15)
        if above - below == 1 and 1 < time < 5:
            ax.plot([left + 0.02, left + 0.82], [level - 0.12, level + 0.12], color=tones[time], linewidth=2)


for k in range(4):
    fraction(k, k + 2, k + 1)
    ax.text(k + 0.92, 0.5, "·" if k < 3 else "=", ha="center", va="center", fontsize=20)
fraction(4.02, 5, 1)
ax.set(xlim=(0, 4.9), ylim=(0, 1))
ax.axis("off")
plt.show()

# %% [markdown]
# Equal colours cancel, above against below. Of four fractions only two densities survive: the last above, the first below. And the first, $q(x_1\mid x_0)$, cancels against the very first forward step, which was left as it is. (At $t=1$ there is nothing to turn round: $q(x_0\mid x_1,x_0)$ would ask for the place of a picture that is already known.) SymPy for $T=3$:

# %% tags=["proof"]
triple = sp.Symbol(r"x_{1:3}\sim q(\cdot\mid x_0)", real=True)
q_10, q_20, q_30 = (density(rf"q(x_{k}\mid x_0)", triple) for k in (1, 2, 3))
q_21, q_32 = (density(rf"q(x_{k}\mid x_{k - 1})", triple) for k in (2, 3))
q_120, q_230 = (density(rf"q(x_{k - 1}\mid x_{k},x_0)", triple) for k in (2, 3))
p_01, p_12, p_23 = (density(rf"p_\theta(x_{k - 1}\mid x_{k})", triple) for k in (1, 2, 3))
p_3 = density("p(x_3)", triple)
derive("5.5", Expect(sp.log(q_10 * q_21 * q_32 / (p_3 * p_23 * p_12 * p_01)), triple),
       (Expect(sp.log(q_30 * q_230 * q_120 / (p_3 * p_23 * p_12 * p_01)), triple), "Bayes twice; densities cancel"),
       (Expect(sp.log(q_30 / p_3), triple) + Expect(sp.log(q_230 / p_23), triple) + Expect(sp.log(q_120 / p_12), triple)
        - Expect(sp.log(p_01), triple), "logarithm of a product"),
       given={q_21: q_120 * q_20 / q_10, q_32: q_230 * q_30 / q_20})

# %% [markdown]
# ### Every T, by induction
#
# Two cases are no proof. Let $R_T$ be the logarithm of the film's ratio without its two ends, $p(x_T)$ and $p_\theta(x_0\mid x_1)$:
# $$ R_T=\log\frac{q(x_{1:T}\mid x_0)}{\prod_{t=2}^T p_\theta(x_{t-1}\mid x_t)} . \qquad\text{Claim:}\quad R_T=\log q(x_T\mid x_0)+S_T,\qquad S_T=\sum_{t=2}^{T}\log\frac{q(x_{t-1}\mid x_t,x_0)}{p_\theta(x_{t-1}\mid x_t)} . $$
#
# *Base.* For $T=1$ the product is empty and $R_1=\log q(x_1\mid x_0)$. *Step.* One more step multiplies the ratio by $q(x_T\mid x_{T-1})/p_\theta(x_{T-1}\mid x_T)$. Put in the claim for $T-1$, then Bayes' rule:

# %% tags=["proof"]
S = sp.Symbol(r"S_{T-1}", real=True)
known = lambda text: sp.Symbol(text, positive=True)  # noqa: E731
q_before, q_now = known(r"q(x_{T-1}\mid x_0)"), known(r"q(x_{T}\mid x_0)")
q_step, q_back = known(r"q(x_T\mid x_{T-1})"), known(r"q(x_{T-1}\mid x_T,x_0)")
p_back = known(r"p_\theta(x_{T-1}\mid x_T)")
derive("5.6", (sp.log(q_before) + S) + sp.log(q_step / p_back),
       (sp.log(q_before) + S + sp.log(q_back * q_now / (q_before * p_back)), "Bayes, given the first picture"),
       (sp.log(q_now) + (S + sp.log(q_back / p_back)), "the density at T-1 cancels"),
       given={q_step: q_back * q_now / q_before})

# %% [markdown]
# The last line is the claim for $T$, with one more summand in $S_T$. So it holds for every $T$, and with the two ends put back $L=\mathbb E_{x_{1:T}\sim q(\cdot\mid x_0)}\big[R_T-\log p(x_T)-\log p_\theta(x_0\mid x_1)\big]$. The proof uses the Markov property and the fact that the densities are positive, and nothing else. It does not need Gaussians, and it says nothing yet about how large the terms are.
#
# ## The three terms, and what each expectation runs over
#
# In (5.4) and (5.5) every expectation runs over the whole film. But each term mentions only one or two of its pictures. What is not mentioned can be left out, because its density integrates to 1. For the middle terms draw the two pictures in a clever order: first $x_t$ from $q(x_t\mid x_0)$, one jump of chapter 02, then $x_{t-1}$ from $q(x_{t-1}\mid x_t,x_0)$. The inner average, over $x_{t-1}$ with $x_t$ held fixed, is then *exactly* a KL divergence. This gives Ho eq. 5:
#
# | term | formula | runs over |
# |---|---|---|
# | **prior** $L_T$ | $\mathrm{KL}\big(q(x_T\mid x_0)\,\|\,p(x_T)\big)$ | nothing: the average over $x_T$ is inside the KL |
# | **denoising matching** $L_{t-1}$, $t=2..T$ | $\mathbb E_{x_t\sim q(x_t\mid x_0)}\Big[\mathrm{KL}\big(q(x_{t-1}\mid x_t,x_0)\,\|\,p_\theta(x_{t-1}\mid x_t)\big)\Big]$ | outside $x_t$ alone; $x_{t-1}$ is inside the KL |
# | **reconstruction** $L_0$ | $\mathbb E_{x_1\sim q(x_1\mid x_0)}\big[-\log p_\theta(x_0\mid x_1)\big]$ | $x_1$ |
#
# So instead of one expectation over a film of a thousand pictures there are a thousand expectations over *one* picture each. Every one can be estimated with a single jump. This is what makes training possible.
#
# The prior term has no parameters: $q$ is fixed and so is $p(x_T)$. Prior and matching are KLs, so they are never negative.
#
# > **An image to keep.** A house is taken down, one stone at a time, and somebody films it. An apprentice shall learn to build. At a random frame of the film a master, *who remembers the finished house*, says where the last stone came from. The apprentice sees only the frame, and is corrected whenever his guess differs. *Where it breaks:* the master does not name one stone but a bell of places, and the same heap of stones may have come from many houses. So the best that the apprentice can learn is an average over them. He also never learns from a house that he built himself.
#
# ### A film that can be counted out
#
# Is it true that one may drop the other variables? Here is a toy in which every sum is finite. A "picture" is one of three letters. Each forward step keeps the letter with probability 0.7, otherwise it draws one of the three at random. The reverse tables are made up. $T=3$, so there are 27 films.

# %%
keep = 0.7 * torch.eye(3, dtype=torch.float64) + 0.1  # keep[i, j] = q(x_t = j | x_{t-1} = i)
rng = torch.Generator().manual_seed(1)
P_1, P_2, P_3 = torch.randn(3, 3, 3, generator=rng, dtype=torch.float64).softmax(2)  # P_t[j, i] = p(i at t-1 | j at t)
p_end = torch.full((3,), 1 / 3, dtype=torch.float64)
q_path = torch.einsum("a,ab,bc->abc", keep[0], keep, keep)  # x_0 is letter 0; axes x_1, x_2, x_3
p_path = torch.einsum("c,cb,ba,a->abc", p_end, P_3, P_2, P_1[:, 0])
L_whole = float((q_path * (q_path / p_path).log()).sum())
minus_log_p = -float(p_path.sum().log())
print(f"over all 27 films: L = {L_whole:.3f}, -log p(x_0) = {minus_log_p:.3f}, gap = {L_whole - minus_log_p:.3f}")

# %% [markdown]
# Now the three kinds of terms, each over its own variables only. `m_t` is $q(x_t\mid x_0)$, three numbers. The posterior tables come from Bayes' rule.

# %%
m_1, m_2, m_3 = keep[0], keep[0] @ keep, keep[0] @ keep @ keep
post_2 = keep.T * m_1 / m_2[:, None]  # q(x_1 | x_2, x_0), row = x_2
post_3 = keep.T * m_2 / m_3[:, None]  # q(x_2 | x_3, x_0), row = x_3
prior = (m_3 * (m_3 / p_end).log()).sum()
matching = [(m * (post * (post / P).log()).sum(1)).sum() for m, post, P in ((m_2, post_2, P_2), (m_3, post_3, P_3))]
reconstruction = -(m_1 * P_1[:, 0].log()).sum()
assert abs(float(prior + sum(matching) + reconstruction) - L_whole) < 1e-12
assert min(float(prior), *map(float, matching)) >= 0
rest = p_path / p_path.sum()  # p(x_1, x_2, x_3 | x_0)
assert abs(float((q_path * (q_path / rest).log()).sum()) - (L_whole - minus_log_p)) < 1e-12
print("prior + matching + reconstruction = L over all films: True;  gap = KL of the two completions: True")

# %% [markdown]
# Both assertions hold to twelve digits. So the three terms are no approximation, and no film was left out.
#
# ## Gaussians: every term in closed form
#
# ### Why the model's steps are Gaussian, with a fixed variance
#
# The true reverse step $q(x_{t-1}\mid x_t)$, without $x_0$, can have any shape. Take a pixel that is either ink ($+1$) or paper ($-1$). From $x_t=0.2$, where was it one step before? If the step is big, the answer has two humps. If it is small, one bell remains. The smaller the step, the better a Gaussian fits (Sohl-Dickstein section 2.2 uses this from the start). The next figure computes the exact answer on a grid, for chains of 4, 20 and 1,000 steps at the half-way time.

# %%
pixel = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.1, 0.1]))
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.6))
for ax, T in zip(axes, (4, 20, 1000), strict=True):
    chain, t = cosine_schedule(T), T // 2
    alpha, beta = float(chain.alpha[t]), float(chain.beta[t])
    centre, width = 0.2 / alpha**0.5, 4 * beta**0.5
    grid = torch.linspace(centre - width, centre + width, 400, dtype=torch.float64)
    log_q = pixel.diffused(float(chain.alpha_bar[t - 1])).log_prob(grid[:, None])  # q(x_{t-1})
    exact = (log_q + normal_log_prob(torch.tensor(0.2).double(), alpha**0.5 * grid, beta)).exp()
    exact = exact / torch.trapezoid(exact, grid)
    mean = torch.trapezoid(exact * grid, grid)
    var = torch.trapezoid(exact * (grid - mean) ** 2, grid)
    ax.fill_between(grid, exact, color=BLUE, alpha=0.4, label="exact")
    ax.plot(grid, normal_log_prob(grid, mean, var).exp(), color=ORANGE, label="best bell")
    ax.set(title=f"T = {T}, one step back from 0.2", xlabel=r"$x_{t-1}$", yticks=[])
axes[0].legend(loc="upper left")
plt.show()

# %% [markdown]
# So with many steps a Gaussian is a good *shape*. Its variance then lies, on average and for data of variance at most 1, between two values that chapter 03 met: $\tilde\beta_t$, the posterior's, right if the data were a single point, and $\beta_t$, right if the data were $\mathcal N(0,I)$. For small steps these two nearly agree, so it matters little which one is taken. Fixing it leaves the mean as the one thing to learn, and the KL becomes very simple. Write $\tilde\mu$ and $\tilde\beta_t$ for mean and variance of the posterior, and put them into (4.10):

# %% tags=["proof"]
mu_q, mu_model = sp.symbols(r"\tilde{\mu} \mu_\theta", real=True)
beta_q = sp.Symbol(r"\tilde{\beta}_t", positive=True)
e = normal(r"\varepsilon")
before = mu_q + sp.sqrt(beta_q) * e  # x_{t-1} drawn from the posterior


def log_normal(at, mean, var):
    return -((at - mean) ** 2) / (2 * var) - sp.log(2 * sp.pi * var) / 2


# %% tags=["proof"]
price = (beta_q / sigma**2 - 1 - sp.log(beta_q / sigma**2)) / 2
step_kl = (mu_q - mu_model) ** 2 / (2 * sigma**2) + price
log_ratio = log_normal(before, mu_q, beta_q) - log_normal(before, mu_model, sigma**2)
equation("5.7", Expect(log_ratio, e), step_kl, source="Ho section 3.2")

# %% [markdown]
# The first part is the squared distance of the two **means**, in units of $2\sigma_t^2$. The rest is a constant: the price for choosing $\sigma_t^2$ instead of $\tilde\beta_t$. No weight of the network changes it. So *minimising the KL between two conditionals means matching two means*. This is the whole step from "divergence" to "squared error". (The proof says what a wrong mean costs. It does not say that the right one can be known from $x_t$; in general it cannot.)
#
# One more substitution. The model imitates the posterior's formula and puts its own guess $\hat x_0(x_t,t)$ where $x_0$ belongs: $\mu_\theta = \text{(Ho eq. 7 with } \hat x_0)$. Then the part with $x_t$ is the same in both means and drops out:

# %% tags=["proof"]
from ddpm_course.proofs import x_0, x_0_hat, x_t

of_x_0, of_x_t = sp.sqrt(bar_s) * beta_t / (1 - bar_t), sp.sqrt(alpha_t) * (1 - bar_s) / (1 - bar_t)
posterior_mean, model_mean = of_x_0 * x_0 + of_x_t * x_t, of_x_0 * x_0_hat + of_x_t * x_t
mean_match = bar_s * beta_t**2 / (2 * sigma**2 * (1 - bar_t) ** 2) * (x_0 - x_0_hat) ** 2
equation("5.8", (posterior_mean - model_mean) ** 2 / (2 * sigma**2), mean_match)

# %% [markdown]
# A weight that depends on $t$ alone, times the squared error of the guessed picture. (It holds for a model that copies the posterior's formula; a network that puts out $\mu_\theta$ in some other way is covered by (5.7) only.) A network that guesses $x_0$ from $x_t$ is a *denoiser*; that is why the term is called denoising matching. Chapter 06 writes the same error in terms of $\varepsilon$, and finds the weight of Ho eq. 12.
#
# The two ends are quick. The prior is (4.10) with mean $\sqrt{\bar\alpha_T}x_0$ and variance $1-\bar\alpha_T$:

# %% tags=["proof"]
from ddpm_course.proofs import table_values, unit

bar_T = unit(r"\bar{\alpha}_T")
x_T = sp.sqrt(bar_T) * x_0 + sp.sqrt(1 - bar_T) * e
prior_term = (bar_T * x_0**2 - bar_T - sp.log(1 - bar_T)) / 2
equation("5.9", Expect(log_normal(x_T, sp.sqrt(bar_T) * x_0, 1 - bar_T) - log_normal(x_T, 0, 1), e), prior_term)

# %% [markdown]
# It depends on $x_0$ and on the end of the schedule, and on nothing that is learned. The reconstruction is a Gaussian log-density. At $t=1$ the posterior's formula gives $\mu_\theta=\hat x_0$, as $\bar\alpha_0=1$ kills the part with $x_t$. So $L_0$ is the squared error of $\hat x_0$ over $2\sigma_1^2$, plus $\frac12\log(2\pi\sigma_1^2)$ per pixel.
#
# Do the displayed formulas and the package agree? One pixel, a denoiser that always answers $\hat\varepsilon=0.3$, and the linear schedule. We compare prior, matching at $t=2$, 500 and 1000, and reconstruction.

# %% tags=["proof"]
from ddpm_course import vlb_terms

linear = linear_schedule(T=1000)
point, shift = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)
terms = vlb_terms(lambda x, t: torch.full_like(x, 0.3), linear, point, variance="beta", eps=shift)
agrees(prior_term, {bar_T: float(linear.alpha_bar[1000]), x_0: 0.7}, terms.prior[0])

# %% tags=["proof"]
guess = x_0 + sp.sqrt((1 - bar_t) / bar_t) * (e - sp.Rational(3, 10))  # x_0_hat from x_t and the answer 0.3
tilde = (1 - bar_s) / (1 - bar_t) * beta_t
term = (mean_match + price).subs({beta_q: tilde, x_0_hat: guess})
at = {t: table_values(linear, t) | {sigma: float(linear.beta[t]) ** 0.5, x_0: 0.7, e: -0.4} for t in (1, 2, 500, 1000)}
for t in (2, 500, 1000):
    agrees(term, at[t], terms.matching[0, t - 2])
agrees(-log_normal(x_0, guess, sigma**2), at[1], terms.reconstruction[0])

# %% [markdown]
# ## By hand
#
# The same for whole pictures and any denoiser, from the tables up. Everything that depends on $t$ alone is a plain number here.

# %%
def kl(mean_1, var_1, mean_2, var_2):
    return 0.5 * (var_1 / var_2 - 1 - math.log(var_1 / var_2) + (mean_1 - mean_2) ** 2 / var_2).flatten(1).sum(1)


def my_bound(eps_model, betas, x_0, eps, sigma_2):  # sigma_2[t] = the model's variance at t
    now, matching = 1.0, []
    for t, beta in enumerate(betas, 1):
        before, now = now, now * (1 - beta)  # alpha_bar at t-1 and at t
        x_t = now**0.5 * x_0 + (1 - now) ** 0.5 * eps
        guess = (x_t - (1 - now) ** 0.5 * eps_model(x_t, torch.full((len(x_t),), t))) / now**0.5
        if t == 1:
            miss = (x_0 - guess) ** 2 / sigma_2[1] + math.log(2 * math.pi * sigma_2[1])
            reconstruction = 0.5 * miss.flatten(1).sum(1)
            continue
        of_x_0, of_x_t = before**0.5 * beta / (1 - now), (1 - beta) ** 0.5 * (1 - before) / (1 - now)
        mean, mean_hat = of_x_0 * x_0 + of_x_t * x_t, of_x_0 * guess + of_x_t * x_t
        matching.append(kl(mean, beta * (1 - before) / (1 - now), mean_hat, sigma_2[t]))
    return kl(now**0.5 * x_0, 1 - now, 0 * x_0, 1.0), torch.stack(matching, 1), reconstruction


# %% [markdown]
# Is ours the package's? We take some validation digits and the oracle of the Gaussian that has the training digits' mean and covariance, which is a sensible denoiser without any training. Twice with $T=1000$ and the variances $\beta_t$, once per schedule, and once with $\tilde\beta_t$ (at $t=1$, where $\tilde\beta_1=0$, the package's `"posterior_clipped"` takes $\tilde\beta_2$).

# %%
from ddpm_course import ExactGaussian, q_posterior

flat = digits().train.images.flatten(1).double()
broad = ExactGaussian(digits().train.images.double().mean(0), flat.T.cov() + 0.01 * torch.eye(64, dtype=torch.float64))
some = digits().val.images[:4].double()
e_img = torch.randn(some.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
clipped = [0.0, *(float(q_posterior(cosine, some, some, max(t, 2))[1]) for t in range(1, 1001))]
fixed = {name: schedule.beta.tolist() for name, schedule in (("linear", linear), ("cosine", cosine))}
runs = ((linear, "beta", fixed["linear"]), (cosine, "beta", fixed["cosine"]), (cosine, "posterior_clipped", clipped))

# %%
for schedule, kind, table in runs:
    mine = my_bound(broad.eps_model(schedule), schedule.beta[1:].tolist(), some, e_img, table)
    theirs = vlb_terms(broad.eps_model(schedule), schedule, some, variance=kind, eps=e_img)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(mine[0] + mine[1].sum(1) + mine[2], theirs.total(), rtol=1e-9, atol=1e-8)
    assert bool((theirs.prior >= 0).all()) and bool((theirs.matching >= 0).all())
print("by hand = package, for all 1000 terms; prior and matching are never negative: True")

# %% [markdown]
# ### May the last term be negative?
#
# The Gaussian decoder gives a *density*, so its $-\log$ may be negative (chapter 04, M34). For real pictures, which have 256 grey values, there is an honest probability: integrate the bell over the bin of width $2/255$ around the grey value. The outer two bins reach to infinity (Ho eq. 13). A probability is at most 1, so this reconstruction is never negative, and the whole bound counts real bits: $L/(64\log 2)$ is the number of **bits per dimension** that a code built on this model would need.

# %%
from ddpm_course import bits_per_dim, discretized_log_prob


def bin_probability(x, mean, std):  # Ho eq. 13 in the plain way; the package's survives far out in the tails too
    above = torch.where(x == 1, 1.0, torch.special.ndtr((x + 1 / 255 - mean) / std))
    below = torch.where(x == -1, 0.0, torch.special.ndtr((x - 1 / 255 - mean) / std))
    return above - below


bins = torch.linspace(-1, 1, 256, dtype=torch.float64)
for mean, std in ((0.1, 0.05), (0.98, 0.3), (-1.2, 0.01)):
    shares = discretized_log_prob(bins, torch.full_like(bins, mean), std**2).exp()
    torch.testing.assert_close(shares, bin_probability(bins, mean, std), rtol=0, atol=1e-12)
    assert abs(float(shares.sum()) - 1) < 1e-10
print("256 bins sum to 1: True")

# %% [markdown]
# Now the bound of our four digits with either decoder. The noise is set to 0 here, which makes $x_1=\sqrt{\bar\alpha_1}\,x_0$.

# %%
oracle = broad.eps_model(cosine)
smooth, binned = (vlb_terms(oracle, cosine, some, decoder=kind, eps=0 * some) for kind in ("gaussian", "discrete"))
bar_1 = float(cosine.alpha_bar[1])
x_1 = bar_1**0.5 * some
guess_1 = (x_1 - (1 - bar_1) ** 0.5 * oracle(x_1, torch.ones(4, dtype=torch.long))) / bar_1**0.5
plain = -bin_probability(some, guess_1, float(cosine.beta[1]) ** 0.5).log().flatten(1).sum(1)
torch.testing.assert_close(binned.reconstruction, plain, rtol=0, atol=1e-8)

# %%
assert bool((binned.reconstruction >= 0).all()) and bool((smooth.reconstruction < 0).any())
bits = (binned.prior + binned.matching.sum(1) + binned.reconstruction) / (64 * math.log(2))
torch.testing.assert_close(bits, bits_per_dim(binned, some), rtol=0, atol=1e-9)
print("a density's reconstruction may be negative, a probability's is not: True")

# %% [markdown]
# ## How loose is the bound? Exactly
#
# Now to the second question of this chapter. Take data for which $-\log p$ is known: one number, $x_0\sim\mathcal N(0.4,\,0.25)$, so variance 0.25. Its perfect denoiser is the `ExactGaussian` oracle. For *every* schedule the best possible expected bound is the entropy of the data, $\mathbb E_{x_0}[-\log q(x_0)]$. How far above it do we end up with $\sigma_t^2=\beta_t$ at every $t$?
#
# The expectation runs over $x_0$ *and* over the noise $\varepsilon$ in $x_t$. Both are Gaussian, and the oracle is linear, so the terms are quadratic in both. **Gauss–Hermite quadrature** handles this without any chance: it replaces the bell by a few weighted points, and with three points it is exact for polynomials up to degree five. `vlb_terms` takes the points for $\varepsilon$ through its argument `eps`.

# %%
nodes = torch.tensor([-(3.0**0.5), 0.0, 3.0**0.5], dtype=torch.float64)
shares = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
assert [round(float((shares * nodes**k).sum()), 9) for k in range(6)] == [1, 0, 1, 0, 3, 0]  # the moments of N(0, 1)
data = ExactGaussian(torch.tensor([0.4]), torch.tensor([[0.25]]))
x_nodes, e_nodes = (g.reshape(-1, 1) for g in torch.meshgrid(nodes, nodes, indexing="ij"))
weights = torch.outer(shares, shares).flatten()


def expected(schedule, variance="beta"):  # the mean of each kind of term over x_0 and eps
    terms = vlb_terms(data.eps_model(schedule), schedule, 0.4 + 0.5 * x_nodes, variance=variance, eps=e_nodes)
    return weights @ terms.prior, weights @ terms.matching, weights @ terms.reconstruction


# %% [markdown]
# Is the quadrature right? For Gaussian data there is a closed form, found without it. The squared error of the best guess is $\operatorname{Var}(x_0\mid x_t)=\frac{c\,(1-\bar\alpha_t)}{\bar\alpha_t c+1-\bar\alpha_t}$ with $c=0.25$ (chapter 03: precisions add). Put it into (5.8), term by term.

# %%
def left_over(schedule, t, c=0.25):  # Var(x_0 | x_t)
    bar = schedule.alpha_bar[t]
    return c * (1 - bar) / (bar * c + 1 - bar)


# %%
for T in (2, 50):
    chain = cosine_schedule(T)
    _, matching, _ = expected(chain)
    for t in range(2, T + 1):
        bar, before, beta = chain.alpha_bar[t], chain.alpha_bar[t - 1], chain.beta[t]
        ratio = (1 - before) / (1 - bar)  # tilde-beta over beta
        wanted = before * beta / (2 * (1 - bar) ** 2) * left_over(chain, t) + 0.5 * (ratio - 1 - ratio.log())
        torch.testing.assert_close(matching[t - 2], wanted, rtol=0, atol=1e-12)
print("quadrature through vlb_terms = closed form, every t: True")

# %% [markdown]
# Now let $T$ grow. We use the cosine schedule. It keeps $\bar\alpha_T$ tiny at every $T$, so that the prior term plays no part (below $10^{-5}$ nats from $T=20$ on). The linear schedule with fixed end points would not do: at small $T$ it would leave most of the picture in $x_T$ (M22, below).

# %% tags=["proof"]
from ddpm_course.proofs import limit

sizes = (20, 50, 100, 200, 400)
results = [expected(cosine_schedule(T)) for T in sizes]
excess = [float(prior + matching.sum() + end) - data.entropy() for prior, matching, end in results]
assert max(float(prior) for prior, _, _ in results) < 1e-5 and min(excess) > 0
bound = sp.Symbol(r"\mathbb{E}_{x_0,\varepsilon}\left[L\right]")
entropy = sp.Symbol(r"\mathbb{E}_{x_0}\left[-\log q(x_0)\right]")
limit("5.10", bound, entropy, sizes=sizes, errors=excess, order=1.0, tolerance=0.1)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.1))
left.loglog(sizes, excess, "o-", label="expected bound − entropy")
left.loglog(sizes, [excess[0] * sizes[0] / T for T in sizes], "--", color=GREY, label="slope −1")
left.set(xlabel="T", ylabel="nats", title="falls like 1/T", ylim=(1e-3, 1e-1))
left.minorticks_off()
left.set_xticks(sizes, [str(T) for T in sizes])
left.legend()
for T, mark in ((20, "o"), (100, "."), (400, "-")):
    right.loglog(torch.arange(2, T + 1) / T, T * results[sizes.index(T)][1], mark, label=f"T = {T}")
right.set(xlabel="t / T", ylabel="T × matching term", title="the same line for every T", ylim=(1e-3, 300))
right.legend()
plt.show()

# %% [markdown]
# Left: a straight line on double logarithmic paper, parallel to the dashed one. Twice the steps, half the excess. A thousand latents make the bound *tighter*, not looser.
#
# Right: the single matching terms, multiplied by $T$ and drawn over $t/T$. Dots, points and line lie nearly on one curve: with ten times the steps there are ten times as many terms, each about a tenth as large. The matching terms do **not** vanish in sum. A long chain reaches further to the left, to less noise, and pays more there; in return its reconstruction, which starts from less noise, costs less. Together they stay near the entropy. So do not read a matching term as "how wrong the network is": the oracle cannot be improved.
#
# What then is the excess, which does vanish? It is the price for the wrong variance. The true reverse step of Gaussian data is Gaussian with variance $\tilde\beta_t + w_t^2\operatorname{Var}(x_0\mid x_t)$, where $w_t=\sqrt{\bar\alpha_{t-1}}\beta_t/(1-\bar\alpha_t)$ is the weight of $x_0$ in Ho eq. 7. Take *that* as $\sigma_t^2$ and nothing is left but the prior term, at any $T$:

# %%
for T in (1, 5, 20):
    chain = cosine_schedule(T)
    best = [1.0]
    for t in range(1, T + 1):
        bar, before, beta = (float(v) for v in (chain.alpha_bar[t], chain.alpha_bar[t - 1], chain.beta[t]))
        best.append(beta * (1 - before) / (1 - bar) + before * beta**2 / (1 - bar) ** 2 * float(left_over(chain, t)))
    prior, matching, end = expected(chain, variance=torch.tensor(best, dtype=torch.float64))
    x_T_law = data.diffused(float(chain.alpha_bar[T]))
    floor = normal_kl(x_T_law.mean, x_T_law.cov[0], 0.0, 1.0)
    assert abs(float(prior + matching.sum() + end - floor) - data.entropy()) < 1e-10
print("with the true variance: expected bound = entropy + KL(q(x_T) || N(0, 1)), for T = 1, 5, 20: True")

# %% [markdown]
# (Here $q(x_T)$ is the law of $x_T$ without knowing $x_0$.) For data that are not Gaussian, no Gaussian step is perfect and an excess remains at any finite $T$.
#
# ## One step, seen close up
#
# The matching term compares two bells on one axis. For a pixel of the ink-or-paper kind, with true value $x_0=1$: blue is the posterior $q(x_{t-1}\mid x_t,x_0)$, which knows $x_0$. Orange is the model $p_\theta(x_{t-1}\mid x_t)$, which must guess it from $x_t$; here it is the oracle of this pixel, with $\sigma_t^2=\beta_t$.

# %%
fifty = cosine_schedule(50)
pixel_model = pixel.eps_model(fifty)


def two_steps(t, noise, start):  # (mean, var) of q and of p for one pixel, and x_t
    x_start = torch.tensor([[float(start)]], dtype=torch.float64)
    x_now = q_sample(fifty, x_start, t, torch.full_like(x_start, noise))
    bar = float(fifty.alpha_bar[t])
    guess = (x_now - (1 - bar) ** 0.5 * pixel_model(x_now, torch.tensor([t]))) / bar**0.5
    return q_posterior(fifty, x_start, x_now, t), (q_posterior(fifty, guess, x_now, t)[0], float(fifty.beta[t])), x_now


# %%
def draw_step(ax, t, noise, start):
    (mean, var), (mean_hat, var_hat), x_now = two_steps(t, noise, start)
    grid = torch.linspace(-2.5, 2.5, 500, dtype=torch.float64)
    ax.fill_between(grid, normal_log_prob(grid, mean, var)[0].exp(), color=BLUE, alpha=0.4, label="q, knows $x_0$")
    ax.plot(grid, normal_log_prob(grid, mean_hat, var_hat)[0].exp(), color=ORANGE, label=r"$p_\theta$, guesses")
    ax.axvline(float(x_now), color="black", linestyle=":", linewidth=1)
    ax.set(title=f"t = {t}: KL = {float(normal_kl(mean, var, mean_hat, var_hat)):.2g}", xlabel=r"$x_{t-1}$", yticks=[])


# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 2.5))
for ax, t in zip(axes, (5, 25, 40, 50), strict=True):
    draw_step(ax, t, -1.0, 1.0)
axes[3].legend(loc="upper left", fontsize=9)
plt.show()

# %% [markdown]
# The dotted line is $x_t$, made with the unlucky noise $\varepsilon=-1$. Early ($t=5$) the pixel is plainly ink. The guess is right, and the bells differ in width only: $\beta_t$ against $\tilde\beta_t$. At $t=25$ the noise has just cancelled the signal. The model cannot tell ink from paper, guesses 0, and its bell sits to the left of the blue one. At $t=40$ it even believes in paper, but one step moves so little there that the bells nearly agree. At $t=50$ both are wide and it hardly matters what one guesses. Move the noise: a positive one makes the pixel easy, and the KL shrinks.

# %%
def draw_slider(t, noise, start):
    fig, ax = plt.subplots(figsize=(7, 2.8))
    draw_step(ax, t, noise, start)
    ax.legend(loc="upper left")


explore(draw_slider, t=slider(2, 50, 25, label="t"), noise=slider(-2.5, 2.5, -1.0, 0.1, "noise in x_t"),
        start=slider(-1.0, 1.0, 1.0, 0.1, "x_0"))

# %% [markdown]
# ## A real digit
#
# Now 8×8 pixels, $T=1000$, the discrete decoder, and two denoisers. First the *perfect denoiser of the training set*, `FiniteData`: it knows its 1,438 training digits by heart and believes that there are no others. Second the network that is shipped with the course, which was trained on the same digits. Both are asked about a training digit and about a validation digit.

# %%
from ddpm_course import FiniteData, load_model, shipped

net, finite = load_model(shipped("digits")), FiniteData(digits().train.images)
ask = torch.cat([digits().train.images[:1], digits().val.images[:1]])  # one training digit, one validation digit
settings = {"variance": "posterior_clipped", "decoder": "discrete"}
memory = vlb_terms(finite.eps_model(net.schedule), net.schedule, ask.double(), **settings,
                   generator=torch.Generator().manual_seed(3))
network = vlb_terms(net.eps_model(), net.schedule, ask, **settings, generator=torch.Generator().manual_seed(3))
for found in (memory, network):
    assert bool((found.prior >= 0).all()) and bool((found.reconstruction >= 0).all())
    assert bool((found.matching >= -1e-5).all())  # float32 rounds the network's KLs

# %%
learnt = float(memory.matching[0].sum())
assert abs(learnt - math.log(1438)) < 2
print(f"training digit, memoriser: the matching terms sum to about log(1438) = {math.log(1438):.1f} nats: True")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.8, 3.4), sharex=True)
t_axis = torch.arange(2, 1001)
lines = {"network, training digit": (network, 0, BLUE), "network, validation digit": (network, 1, ORANGE),
         "memoriser, training digit": (memory, 0, GREEN), "memoriser, validation digit": (memory, 1, RED)}
for label, (found, k, color) in lines.items():
    left.plot(t_axis, found.matching[k].clamp(min=1e-6), color=color, label=label, linewidth=1)
    bits = found.matching[k].flip(0).cumsum(0).flip(0) / (64 * math.log(2))
    right.plot(t_axis, bits, color=color, label=label)
left.set(yscale="log", ylim=(1e-6, 1e5), xlabel="t", ylabel="nats", title="matching term at t, one draw each")
right.set(yscale="log", ylim=(1e-3, 1e4), xlabel="t", ylabel="bits per dim", title="paid on the way down from T to t")
left.legend(fontsize=8, loc="upper right")
plt.show()

# %% [markdown]
# The left axis is logarithmic: the terms span many powers of ten. Most of what the network pays, it pays at small $t$, where the last details are fixed, and it pays about the same for a digit that it was trained on and for one that it was not. At large $t$ nearly nothing is paid by anybody, because nothing can be known there.
#
# The memoriser is the instructive one. For a training digit its matching terms add up to about $\log 1438\approx7.3$ nats, just the cost of naming one picture out of 1,438, and the cost arises where the decision falls. For a validation digit its bound is hundreds of times worse than the network's: it insists on its nearest training digit until the end. **The perfect denoiser of a finite training set is not the one we want.** It has the lowest training loss that exists, and it is useless on anything new. Judge by held-out data (chapters 08 and 12).

# %%
held_out, by_heart = bits_per_dim(network, ask)[1], bits_per_dim(memory, ask)[1]
assert float(held_out) < 8 and float(by_heart) > 100 * float(held_out)
print("validation digit, network: fewer than 8 bits per pixel: True;  memoriser: over 100 times as many: True")

# %% [markdown]
# Eight bits per pixel is what it costs to write 256 grey values down without any model. (These digits use only 17 grey values, so $\log_2 17\approx4.1$ would do for somebody who knew that. Neither decoder was told.)

# %% [markdown]
# ## Why the mean is what the network will learn
#
# One link to chapter 06. By (5.7) and (5.8) each matching term is a weight times $\mathbb E\big[(x_0-\hat x_0(x_t))^2\big]$. Average also over the data $x_0$, hold $x_t$ fixed, and ask which single answer $c=\hat x_0(x_t)$ is best. All expectations here run over $x_0\sim q(x_0\mid x_t)$:

# %% tags=["proof"]
c, average = sp.Symbol("c", real=True), Expect(x_0, x_0)
equation("5.11", Expect((x_0 - c) ** 2, x_0), (Expect(x_0**2, x_0) - average**2) + (average - c) ** 2)

# %% [markdown]
# On the right, $\mathbb E[x_0^2]-\mathbb E[x_0]^2$ is the variance of $x_0$ given $x_t$. Nobody can lower it. The square that contains $c$ is 0 for $c=\mathbb E[x_0\mid x_t]$ and positive otherwise. So the best denoiser answers with a **conditional mean**: the average of all clean pictures that could have led to this $x_t$. This also answers what learners ask most, whether the loss can reach 0. It cannot, except where $x_t$ determines $x_0$.

# %% [markdown]
# ## Common mistakes
#
# ### "Consistency terms" for the denoising matching terms (M18)
#
# Some derivations stop at the obvious way and call the red fractions *consistency terms*. They belong to another splitting of the same $L$. Their expectation runs over *three* pictures, $x_{t-1},x_t,x_{t+1}$, and is an average of a log ratio, not a KL. It may be negative. We draw 4,000 films that start from $\mathcal N(0.4, 0.25)$ and take $T=40$ equal steps, and write down every term of both splittings. The model is the oracle with $\sigma_t^2=\beta_t$.

# %%
from ddpm_course import NoiseSchedule

T = 40
even = NoiseSchedule([1 - 1e-4 ** (1 / T)] * T)  # equal betas, alpha_bar_T = 1e-4
beta, model = float(even.beta[1]), data.eps_model(even)
rng = torch.Generator().manual_seed(4)
films = [data.sample(4000, rng)]
for _ in range(T):
    films.append((1 - beta) ** 0.5 * films[-1] + beta**0.5 * torch.randn(4000, 1, generator=rng, dtype=torch.float64))


# %%
def model_mean_at(t):  # mean of p(x_{t-1} | x_t) on every film
    bar, now = float(even.alpha_bar[t]), films[t]
    guess = (now - (1 - bar) ** 0.5 * model(now, torch.full((4000,), t))) / bar**0.5
    return q_posterior(even, guess, now, t)[0]


means = [None, *(model_mean_at(t) for t in range(1, T + 1))]

# %%
forward = [None, *(normal_log_prob(films[t], (1 - beta) ** 0.5 * films[t - 1], beta) for t in range(1, T + 1))]
backward = [None, *(normal_log_prob(films[t - 1], means[t], beta) for t in range(1, T + 1))]  # log p(x_{t-1} | x_t)
last = normal_log_prob(films[T], 0.0, 1.0)
consistency = torch.cat([forward[t] - backward[t + 1] for t in range(1, T)], 1)
posteriors = [q_posterior(even, films[0], films[t], t) for t in range(2, T + 1)]
matching = torch.cat([normal_kl(*post, means[t], beta) for t, post in enumerate(posteriors, 2)], 1)

# %%
prior = normal_kl(1e-2 * films[0], 1 - 1e-4, 0.0, 1.0)
ends = forward[T] - last - prior  # what the two splittings do not share, besides the middle terms
difference = consistency.sum(1) - matching.sum(1) + ends.squeeze(1)
assert abs(float(difference.mean())) < 4 * float(difference.std()) / 4000**0.5  # both splittings have the mean L
error = consistency.std(0) / 4000**0.5
assert float(consistency.mean(0)[0]) < -6 * float(error[0]) and float(matching.min()) >= 0
print("same mean: True;  the consistency term at t = 1 is negative on average: True;  matching terms never are: True")

# %% [markdown]
# So both are right, and only one is a sum of divergences. Which one would you rather *estimate*? In training nobody computes all $T$ terms of a film. One picks a single $t$ at random and multiplies by the number of terms.

# %%
pick = torch.randint(T - 1, (4000, 1), generator=rng)
single = [((T - 1) * terms.gather(1, pick)).squeeze(1) for terms in (consistency, matching)]
assert float(single[0].std()) > 10 * float(single[1].std())
print("with one random t, the consistency splitting is noisier by a factor above 10: True")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.8, 3.1))
rows = ((consistency, range(1, T), "consistency", RED), (matching, range(2, T + 1), "denoising matching", BLUE))
for values, times, label, color in rows:
    mean, std = values.mean(0), values.std(0)
    left.plot(times, mean, color=color, label=label)
    left.fill_between(times, mean - std, mean + std, color=color, alpha=0.2)
left.axhline(0, color="black", linewidth=0.7)
left.set(xlabel="t", ylabel="nats", title="each term: mean ± std over films")
left.legend(loc="upper right")
for values, (_, _, label, color) in zip(single, rows, strict=True):
    right.hist(values.numpy(), bins=60, range=(-120, 60), color=color, alpha=0.6, label=label)
right.set(xlabel="sum of the terms, estimated from one random t", title="same job, different spread", yscale="log")
right.legend(fontsize=9)
plt.show()

# %% [markdown]
# Each consistency term swings by about one nat from film to film (red band), each matching term by a small fraction of that (blue). Where does the advantage come from? From the inner average over $x_{t-1}$, which the KL does exactly. The obvious way has no inner average to offer; it judges one random pair.
#
# In fairness: whoever *does* add up all terms of one film loses nothing with the obvious way. Its sum is the log ratio of (5.3) itself, and in a good model the noises of neighbouring terms cancel in it. The argument against it is about single terms, which is what one trains on.
#
# ### The prior term is forgotten at small T (M22)
#
# "The prior term is zero anyway." At $T=1000$ nearly. With the same $\beta_1=10^{-4}$, $\beta_T=0.02$ and $T=10$, most of the picture is still in $x_T$, and a sampler that starts from $\mathcal N(0,I)$ starts in the wrong place. The number that exposes it is the term itself, for a real digit:

# %%
for T in (10, 100, 1000):
    nats = vlb_terms(lambda x, t: x, linear_schedule(T), some[:1], eps=e_img[:1]).prior[0]
    bar = float(linear_schedule(T).alpha_bar[T])
    mine = 0.5 * (bar * some[0] ** 2 - bar - math.log(1 - bar)).sum()
    torch.testing.assert_close(nats, mine, rtol=0, atol=1e-10)
    print(f"T = {T:4d}: signal left {bar:.2g}, prior term {float(nats):.2g} nats")

# %% [markdown]
# ### "Training is the diffusion process" (M17)
#
# Training does not change the diffusion at all; $q$ has no parameters. The number: the prior term is the same for every model whatsoever, because no model occurs in it. What training lowers are matching and reconstruction. Here is an "untrained network" that answers $0.1\,x_t$ whatever it is asked, beside the oracle.

# %%
twenty = cosine_schedule(20)
untrained = vlb_terms(lambda x, t: 0.1 * x, twenty, some, eps=e_img)
oracle = vlb_terms(broad.eps_model(twenty), twenty, some, eps=e_img)
assert torch.equal(untrained.prior, oracle.prior) and bool((untrained.total() > oracle.total()).all())
print("untrained and oracle: same prior term: True;  same bound: False")

# %% [markdown]
# ### "The KL compares generated pictures with real ones" (M37)
#
# All KLs in $L$ are between *conditionals*, of one step, at an $x_t$ made from a real $x_0$. No picture is ever generated during training. And a distance between generated and real pictures would be a poor goal. Here the oracle generates from $\mathcal N(0.4,0.25)$, perfectly but for the small excess; paired with real draws the squared distance is as large as between two real draws, $2\cdot0.25$.

# %%
from ddpm_course import ddpm_sample

hundred, rng = cosine_schedule(100), torch.Generator().manual_seed(5)
x_T = torch.randn(20_000, 1, generator=rng, dtype=torch.float64)
generated = ddpm_sample(data.eps_model(hundred), hundred, x_T=x_T, variance="beta", generator=rng)
real = data.sample(20_000, torch.Generator().manual_seed(7))
wrong_loss = float(((generated - real) ** 2).mean())  # the mistake
assert abs(wrong_loss - 0.5) < 0.05 and excess[2] < 0.01
print(f"nearly perfect (excess below 0.01 nats), but squared distance to real data about {wrong_loss:.1f}")

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell.
#
# **5.1 ★** A white page: 64 pixels, all $-1$. The schedule ends at $\bar\alpha_T=0.01$. How many nats is the prior term?

# %% tags=["exercise"]
prior_nats = ...
check("5.1", prior_nats)

# %% tags=["solution"]
prior_nats = float(normal_kl(-0.1 * torch.ones(64, dtype=torch.float64), 0.99, 0.0, 1.0).sum())
must_pass("5.1", prior_nats)

# %% [markdown]
# **5.2 ★** Telescoping. Given the list of numbers $\log q(x_1\mid x_0),\dots,\log q(x_T\mid x_0)$, give the logarithm of $\prod_{t=2}^T q(x_t\mid x_0)/q(x_{t-1}\mid x_0)$.

# %% tags=["exercise"]
def telescope(log_q):
    return ...


check("5.2", telescope)


# %% tags=["solution"]
def telescope(log_q):
    return log_q[-1] - log_q[0]


must_pass("5.2", telescope)

# %% [markdown]
# **5.3 ★★** A model guesses every $x_0$ perfectly, but uses $\sigma_t^2=\beta_t$ where the posterior has $\tilde\beta_t$. How many nats does the matching term at $t$ cost per pixel, given $\bar\alpha_{t-1}$ and $\bar\alpha_t$? (Only the ratio $\tilde\beta_t/\beta_t$ matters.)

# %% tags=["exercise"]
def variance_price(alpha_bar_s, alpha_bar_t):
    return ...


check("5.3", variance_price)


# %% tags=["solution"]
def variance_price(alpha_bar_s, alpha_bar_t):
    ratio = (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return 0.5 * (ratio - 1 - math.log(ratio))


must_pass("5.3", variance_price)

# %% [markdown]
# **5.4 ★★★** Take $\sigma_t^2=\tilde\beta_t$. What is then the weight of $(x_0-\hat x_0)^2$ in the matching term, as a function of $\bar\alpha_{t-1}$ and $\bar\alpha_t$? Start from (5.8). The answer is half the *fall* of a quantity from chapter 02 between $t-1$ and $t$. Which?

# %% tags=["exercise"]
def x_0_weight(alpha_bar_s, alpha_bar_t):
    return ...


check("5.4", x_0_weight)


# %% tags=["solution"]
def x_0_weight(alpha_bar_s, alpha_bar_t):
    return 0.5 * (alpha_bar_s / (1 - alpha_bar_s) - alpha_bar_t / (1 - alpha_bar_t))  # of the signal-to-noise ratio


must_pass("5.4", x_0_weight)

# %% [markdown]
# ## What comes next
#
# The bound is a sum of squared errors with known weights: guess $x_0$ from $x_t$, and you have a generative model. Chapter 06 asks what exactly the network should answer, $x_0$, $\varepsilon$, $v$ or the score. At known $x_t$ and $t$ they all say the same, but they weigh the errors differently. From there it is one step to the loss in two lines that made these models popular.
