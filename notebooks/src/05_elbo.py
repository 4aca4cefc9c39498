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
# - say how fast the bound becomes tight as $T$ grows, and why;
# - say which part of a loose bound the samples show, and which they do not.
#
# *Needs:* chapters 02 (forward process), 03 (posterior) and 04 (ELBO, KL of Gaussians). *Time:* about four hours with the exercises.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import GaussianMixture, cosine_schedule, linear_schedule, normal_kl, normal_log_prob, q_sample
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, image_grid, show_rows, style
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
# A product, because each step looks only at the one before (the Markov property, 1.35). The reverse process gives the density of the *whole* film, starting at its end. We *choose* it to be a chain as well: going back, each step looks only at the picture after it.
#
# $$ p_\theta(x_{0:T})=p(x_T)\prod_{t=1}^{T}p_\theta(x_{t-1}\mid x_t),\qquad p(x_T)=\mathcal N(0,I),\qquad p_\theta(x_{t-1}\mid x_t)=\mathcal N\big(\mu_\theta(x_t,t),\,\sigma_t^2 I\big) \tag{5.2, definition} $$
#
# Only the means $\mu_\theta$ come from the network. The variances $\sigma_t^2$ are chosen beforehand.
#
# What density does the model give to a picture $x_0$? As in chapter 04: add up all films that begin with it, $p_\theta(x_0)=\int p_\theta(x_{0:T})\,dx_{1:T}$. For 8×8 digits and $T=1000$ this is an integral over 64,000 numbers.
#
# ### The bound is the old one
#
# Nothing new is needed. Chapter 04 allowed any latent and any guess. Take the latent $z=x_{1:T}$ and the guess $q(x_{1:T}\mid x_0)$. Both ways of chapter 04 work, with longer names.
#
# **First way: Jensen.** Four steps. Every expectation runs over $x_1,\dots,x_T$, drawn from $q(x_{1:T}\mid x_0)$, with $x_0$ held fixed.
#
# 1. $\log p_\theta(x_0)=\log\int p_\theta(x_{0:T})\,dx_{1:T}$: add up all films that begin with $x_0$.
# 2. $\phantom{\log p_\theta(x_0)}=\log\int q(x_{1:T}\mid x_0)\,\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}\,dx_{1:T}$: multiply and divide by the guess, which is nowhere 0.
# 3. $\phantom{\log p_\theta(x_0)}=\log\mathbb E_{x_{1:T}}\Big[\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}\Big]$: an integral of $q$ times something is an average over $q$.
# 4. $\phantom{\log p_\theta(x_0)}\ge\mathbb E_{x_{1:T}}\Big[\log\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}\Big]$: Jensen, proved with (4.4) and (4.5) for any weight.
#
# The last line is the ELBO. Its negative is the quantity to be minimised; call it $L=\mathbb E_{x_{1:T}}\big[\log\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{0:T})}\big]$. So $L\ge-\log p_\theta(x_0)$.
#
# **Second way: the exact identity**, (4.8) again. As there, the symbols are abstract positive numbers.

# %%
def density(text, *over):
    law = lambda self, printer, exp=None: text if exp is None else rf"{text}^{{{exp}}}"  # noqa: E731
    return type(text, (sp.Function,), {"_latex": law, "_eval_is_positive": lambda self: True})(*over)


film = sp.Symbol(r"x_{1:T}\sim q(\cdot\mid x_0)", real=True)
q_film, p_film = density(r"q(x_{1:T}\mid x_0)", film), density(r"p_\theta(x_{0:T})", film)
p_rest, p_x_0 = density(r"p_\theta(x_{1:T}\mid x_0)", film), sp.Symbol(r"p_{\theta}(x_0)", positive=True)

# %% tags=["proof"]
slipped_in = sp.Mul(q_film / p_film, p_rest / q_film, evaluate=False)
derive("5.3", -sp.log(p_x_0),
       (Expect(-sp.log(p_x_0), film), "a constant is its own mean"),
       (Expect(sp.log(p_rest / p_film), film), "product rule: film = first picture times the rest"),
       (Expect(sp.log(slipped_in), film), "multiply and divide by the guess"),
       (Expect(sp.log(q_film / p_film), film) - Expect(sp.log(q_film / p_rest), film),
        "logarithm of a product; turning the second fraction flips its sign"),
       given={p_film: p_x_0 * p_rest}, source="Ho section 2")

# %% [markdown]
# In the last line the first expectation is $L$. The second is a KL divergence, $\mathrm{KL}\big(q(x_{1:T}\mid x_0)\,\|\,p_\theta(x_{1:T}\mid x_0)\big)$. It compares two ways to complete the film: forward from $x_0$ by the noise, or as the model's own posterior would. This is the **gap**. In short: $-\log p_\theta(x_0)=L-\text{gap}$, and the gap is never negative.
#
# The expectations run over **all of** $x_1,\dots,x_T$, drawn from the forward process started at the given $x_0$. (In training one averages over $x_0$ as well. In this chapter $x_0$ stands still unless we say otherwise.) What the proof does not tell is how to *compute* $L$.
#
# ## One step first: T = 1
#
# With a single step the film has one latent, $x_1$, and its density is $p_\theta(x_{0:1})=p(x_1)\,p_\theta(x_0\mid x_1)$:

# %% tags=["proof"]
single = sp.Symbol(r"x_{1}\sim q(\cdot\mid x_0)", real=True)
q_1, p_1, p_0 = (density(text, single) for text in (r"q(x_1\mid x_0)", "p(x_1)", r"p_\theta(x_0\mid x_1)"))
derive("5.4", Expect(sp.log(q_1 / (p_1 * p_0)), single),
       (Expect(sp.log(q_1 / p_1) - sp.log(p_0), single), "logarithm of a product"),
       (Expect(sp.log(q_1 / p_1), single) - Expect(sp.log(p_0), single), "mean of a sum"))

# %% [markdown]
# The first part is $\mathrm{KL}(q(x_1\mid x_0)\,\|\,p(x_1))$, the prior term. The second is the reconstruction. This is (4.9) with $z=x_1$: the DDPM with one step that chapter 04 ended with. Both expectations run over $x_1$. With two steps something new happens.
#
# ## Two steps, the obvious way and the better way
#
# For $T=2$ the ratio inside the logarithm has two factors above and three below. **The obvious way** is to pair them as they come: each forward step with the reverse step that leads to the same variable.
#
# $$ \frac{q(x_1\mid x_0)\;q(x_2\mid x_1)}{p(x_2)\;p_\theta(x_1\mid x_2)\;p_\theta(x_0\mid x_1)}
# =\frac{q(x_2\mid x_1)}{p(x_2)}\cdot{\color{red}{\frac{q(x_1\mid x_0)}{p_\theta(x_1\mid x_2)}}}\cdot\frac{1}{p_\theta(x_0\mid x_1)} $$
#
# Look at the red fraction. Above, $x_1$ is judged by its past, $x_0$. Below, it is judged by its future, $x_2$. They are two different questions. And the average of its logarithm is no KL divergence. For a KL, the density above must be the law from which $x_1$ is really drawn, once all else is held fixed. Hold $x_2$ fixed: then $x_1$ is spread as $q(x_1\mid x_2,x_0)$, since the two move together, and not as $q(x_1\mid x_0)$. We come back to it below; such a term can even be negative.
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
derive("5.5", Expect(sp.log(q_10 * q_21 / (p_2 * p_12 * p_01)), pair),
       (Expect(sp.log(q_20 * q_120 / (p_2 * p_12 * p_01)), pair), "Bayes, given the first picture"),
       (Expect(sp.log(q_20 / p_2), pair) + Expect(sp.log(q_120 / p_12), pair) - Expect(sp.log(p_01), pair),
        "logarithm of a product; mean of a sum"),
       given={q_21: q_120 * q_20 / q_10}, source="Ho section 2 and appendix A")

# %% [markdown]
# Now above and below the second fraction the *same* question is asked: where was the chain at time 1, if it is at $x_2$ at time 2? Above answers somebody who knows $x_0$, below the model, which does not.
#
# With more steps there are more to turn round, and the reason for the name *telescoping* shows. Bayes turns the step $q(x_t\mid x_{t-1})$ into $q(x_{t-1}\mid x_t,x_0)$ times the fraction $q(x_t\mid x_0)/q(x_{t-1}\mid x_0)$. Collect these fractions. Neighbours cancel; here for $T=5$:

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
derive("5.6", Expect(sp.log(q_10 * q_21 * q_32 / (p_3 * p_23 * p_12 * p_01)), triple),
       (Expect(sp.log(q_30 * q_230 * q_120 / (p_3 * p_23 * p_12 * p_01)), triple), "Bayes twice; densities cancel"),
       (Expect(sp.log(q_30 / p_3), triple) + Expect(sp.log(q_230 / p_23), triple) + Expect(sp.log(q_120 / p_12), triple)
        - Expect(sp.log(p_01), triple), "logarithm of a product; mean of a sum"),
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
derive("5.7", (sp.log(q_before) + S) + sp.log(q_step / p_back),
       (sp.log(q_before) + S + sp.log(q_back * q_now / (q_before * p_back)), "Bayes, given the first picture"),
       (sp.log(q_now) + (S + sp.log(q_back / p_back)), "the density at T-1 cancels"),
       given={q_step: q_back * q_now / q_before})

# %% [markdown]
# The last line is the claim for $T$, with one more summand in $S_T$. So it holds for every $T$. Put the two ends back, and sort:

# %% tags=["proof"]
R_T, S_T, q_T, p_T, p_0 = (density(text, film) for text in ("R_T", "S_T", r"q(x_T\mid x_0)", "p(x_T)", r"p_\theta(x_0\mid x_1)"))
derive("5.8", Expect(R_T - sp.log(p_T) - sp.log(p_0), film),
       (Expect(sp.log(q_T) + S_T - sp.log(p_T) - sp.log(p_0), film), "the claim"),
       (Expect(sp.log(q_T / p_T), film) + Expect(S_T, film) - Expect(sp.log(p_0), film), "sort; mean of a sum"),
       given={R_T: sp.log(q_T) + S_T}, source="Ho section 2 and appendix A")

# %% [markdown]
# On the left stands $L$. On the right stand its three kinds of terms; the one with $S_T$ is a sum over $t=2,\dots,T$. The proof uses the Markov property and the fact that the densities are positive, and nothing else. It does not need Gaussians, and it says nothing yet about how large the terms are.
#
# ## The three terms, and what each expectation runs over
#
# In (5.8) every expectation runs over the whole film. But each term mentions only one or two of its pictures. What is not mentioned can be left out, because its density integrates to 1. For the terms of $S_T$ draw the two pictures in a clever order: first $x_t$ from $q(x_t\mid x_0)$, one jump of chapter 02, then $x_{t-1}$ from $q(x_{t-1}\mid x_t,x_0)$. An average over both is an average in two stages (the tower rule of chapter 01). The inner one runs over $x_{t-1}$ with $x_t$ held fixed, and $x_{t-1}$ is drawn from just the density that stands above in the fraction. So it is *exactly* a KL divergence. This gives Ho eq. 5:
#
# | term | formula | runs over |
# |---|---|---|
# | **prior** $L_T$ | $\mathrm{KL}\big(q(x_T\mid x_0)\,\|\,p(x_T)\big)$ | nothing: the average over $x_T$ is inside the KL |
# | **denoising matching** $L_{t-1}$, $t=2..T$ | $\mathbb E_{x_t\sim q(x_t\mid x_0)}\Big[\mathrm{KL}\big(q(x_{t-1}\mid x_t,x_0)\,\|\,p_\theta(x_{t-1}\mid x_t)\big)\Big]$ | outside $x_t$ alone; $x_{t-1}$ is inside the KL |
# | **reconstruction** $L_0$ | $\mathbb E_{x_1\sim q(x_1\mid x_0)}\big[-\log p_\theta(x_0\mid x_1)\big]$ | $x_1$ |
#
# So instead of one expectation over a film of a thousand pictures there are a thousand expectations over *one* picture each. Every one can be estimated with a single jump. This is what makes training possible.
#
# The prior term has no parameters: $q$ is fixed and so is $p(x_T)$. Prior and matching are KLs, so they are never negative. The reconstruction is not a KL. It is the average of $-\log$ of a density, and may have either sign.
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
# Both equalities hold to $10^{-12}$. So the three terms are no approximation, and no film was left out.
#
# ## Gaussians: every term in closed form
#
# ### Why the model's steps are Gaussian, with a fixed variance
#
# The true reverse step $q(x_{t-1}\mid x_t)$, without $x_0$, can have any shape. Take a pixel that is either ink ($+1$) or paper ($-1$). From $x_t=0.2$, where was it one step before? If the step is big, the answer has two humps. If it is small, one bell remains. The smaller the step, the better a Gaussian fits (Sohl-Dickstein section 2.2 uses this from the start). The next figure computes the exact answer on a grid, for chains of 4, 20 and 1,000 steps at the half-way time.

# %%
pixel = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.1, 0.1]))
fig, axes = plt.subplots(1, 3, figsize=(8.6, 2.3))
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
# So with many steps a Gaussian is a good *shape*. Its variance then lies, on average and for data of variance at most 1, between two values that chapter 03 met (3.24 to 3.26): $\tilde\beta_t$, the posterior's, right if the data were a single point, and $\beta_t$, right if the data were $\mathcal N(0,I)$. For small steps these two nearly agree, so it matters little which one is taken. Fixing it leaves the mean as the one thing to learn, and the KL becomes very simple. Write $\tilde\mu$ and $\tilde\beta_t$ for mean and variance of the posterior, and $\sigma$ for $\sigma_t$, one pixel at a time. Put them into (4.10). The expectation runs over $x_{t-1}=\tilde\mu+\sqrt{\tilde\beta_t}\,\varepsilon$, that is, over $\varepsilon$:

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
equation("5.9", Expect(log_ratio, e), step_kl, source="Ho section 3.2")

# %% [markdown]
# The part with $\mu_\theta$ is the squared distance of the two **means**, in units of $2\sigma_t^2$. The rest is a constant: the price for choosing $\sigma_t^2$ instead of $\tilde\beta_t$. No weight of the network changes it. So *minimising the KL between two conditionals means matching two means*. This is the whole step from "divergence" to "squared error". (The proof says what a wrong mean costs. It does not say that the right one can be known from $x_t$; in general it cannot.)
#
# One more substitution. The model imitates the posterior's formula and puts its own guess $\hat x_0(x_t,t)$ where $x_0$ belongs: $\mu_\theta = \text{(Ho eq. 7 with } \hat x_0)$. Then the part with $x_t$ is the same in both means and drops out:

# %% tags=["proof"]
from ddpm_course.proofs import x_0, x_0_hat, x_t

of_x_0, of_x_t = sp.sqrt(bar_s) * beta_t / (1 - bar_t), sp.sqrt(alpha_t) * (1 - bar_s) / (1 - bar_t)
posterior_mean, model_mean = of_x_0 * x_0 + of_x_t * x_t, of_x_0 * x_0_hat + of_x_t * x_t
mean_match = bar_s * beta_t**2 / (2 * sigma**2 * (1 - bar_t) ** 2) * (x_0 - x_0_hat) ** 2
equation("5.10", (posterior_mean - model_mean) ** 2 / (2 * sigma**2), mean_match)

# %% [markdown]
# A weight that depends on $t$ alone, times the squared error of the guessed picture. (It holds for a model that copies the posterior's formula; a network that puts out $\mu_\theta$ in some other way is covered by (5.9) only.) A network that guesses $x_0$ from $x_t$ is a *denoiser*; that is why the term is called denoising matching. Chapter 06 writes the same error in terms of $\varepsilon$, and finds the weight of Ho eq. 12.
#
# The two ends are quick. The prior is (4.10) with mean $m_1=\sqrt{\bar\alpha_T}x_0$ and variance $v_1=1-\bar\alpha_T$ against $\mathcal N(0,1)$: $\frac12(v_1-1-\log v_1+m_1^2)$, where $v_1-1=-\bar\alpha_T$.

# %% tags=["proof"]
from ddpm_course.proofs import table_values, unit

bar_T = unit(r"\bar{\alpha}_T")
x_T = sp.sqrt(bar_T) * x_0 + sp.sqrt(1 - bar_T) * e
prior_term = (bar_T * x_0**2 - bar_T - sp.log(1 - bar_T)) / 2
equation("5.11", Expect(log_normal(x_T, sp.sqrt(bar_T) * x_0, 1 - bar_T) - log_normal(x_T, 0, 1), e), prior_term)

# %% [markdown]
# It depends on $x_0$ and on the end of the schedule, and on nothing that is learned. The reconstruction is a Gaussian log-density. At $t=1$ the posterior's formula gives $\mu_\theta=\hat x_0$: with $\bar\alpha_0=1$ the weight of $x_t$ is 0, and the weight of $\hat x_0$ is $\beta_1/(1-\bar\alpha_1)=1$. So $L_0$ is the squared error of $\hat x_0$ over $2\sigma_1^2$, plus $\frac12\log(2\pi\sigma_1^2)$ per pixel.
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
# Now to the second question of this chapter: how far above the truth does the bound end up, on average over the data? From here to the end of this section $x_0$ is random too, and the expectations run over the whole film $x_0,\dots,x_T$.
#
# The trick is to tell the film backwards. Forwards it is $q(x_{0:T})=q(x_0)\,q(x_{1:T}\mid x_0)$. But one may split off the factors from the end as well: $q(x_{0:T})=q(x_T)\prod_{t=1}^Tq(x_{t-1}\mid x_t)$. (Why no later picture in the condition? Once $x_t$ is known, the later ones are $x_t$ with fresh noise. They say nothing more about $x_{t-1}$.) These are the reverse steps *without* $x_0$. In general nobody can compute them, but they may stand in a derivation:

# %% tags=["proof"]
whole = sp.Symbol(r"x_{0:T}\sim q", real=True)
q_0, q_film, p_film = (density(text, whole) for text in ("q(x_0)", r"q(x_{1:T}\mid x_0)", r"p_\theta(x_{0:T})"))
q_T, q_back = (density(text, whole) for text in ("q(x_T)", r"\left[\textstyle\prod_t q(x_{t-1}\mid x_t)\right]"))
p_T, p_back = (density(text, whole) for text in ("p(x_T)", r"\left[\textstyle\prod_t p_\theta(x_{t-1}\mid x_t)\right]"))
derive("5.12", Expect(sp.log(q_film / p_film), whole),
       (Expect(sp.log(q_T * q_back / (q_0 * p_T * p_back)), whole), "both films, told backwards"),
       (Expect(-sp.log(q_0), whole) + Expect(sp.log(q_T / p_T), whole) + Expect(sp.log(q_back / p_back), whole),
        "logarithm of a product; mean of a sum"),
       given={q_film: q_T * q_back / q_0, p_film: p_T * p_back})

# %% [markdown]
# On the left stands $\mathbb E_{x_0}[L]$. On the right, the part with $q(x_0)$ is the **entropy** of the data: it belongs to the data alone. The part with $x_T$ is a KL divergence. In the part with the products, the logarithm of a product is a sum over $t$; hold $x_t$ fixed, average over $x_{t-1}$ first, and each summand is a KL divergence too:
#
# $\displaystyle\mathbb E_{x_0}[L]=\underbrace{\mathbb E_{x_0}[-\log q(x_0)]}_{\text{entropy}}+\underbrace{\mathrm{KL}\big(q(x_T)\,\|\,p(x_T)\big)+\sum_{t=1}^T\mathbb E_{x_t\sim q(x_t)}\Big[\mathrm{KL}\big(q(x_{t-1}\mid x_t)\,\|\,p_\theta(x_{t-1}\mid x_t)\big)\Big]}_{\text{the excess, never negative}}$
#
# So no model and no schedule gets its expected bound below the entropy. Do not confuse these KLs with the matching terms. There, $q$ knows $x_0$, and even a perfect denoiser pays. Here, $q$ knows as much as the model, and a perfect step pays nothing. What the proof does not say is how to compute $q(x_{t-1}\mid x_t)$.
#
# Now take data for which all this is known: one number, $x_0\sim\mathcal N(0.4,\,0.25)$, so variance 0.25. Its perfect denoiser is the `ExactGaussian` oracle. How far above the entropy do we end up with $\sigma_t^2=\beta_t$ at every $t$?
#
# The expectation runs over $x_0$ *and* over the noise $\varepsilon$ in $x_t$. Both are Gaussian, and the oracle is linear, so the terms are quadratic in both. **Gauss–Hermite quadrature** handles this without any chance: it replaces the bell by a few weighted points, and with three points it is exact for polynomials up to degree five. `vlb_terms` takes the points for $\varepsilon$ through its argument `eps`.

# %%
nodes = torch.tensor([-(3.0**0.5), 0.0, 3.0**0.5], dtype=torch.float64)
shares = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
assert [round(float((shares * nodes**k).sum()), 9) for k in range(6)] == [1, 0, 1, 0, 3, 0]  # the moments of N(0, 1)
data = ExactGaussian(torch.tensor([0.4]), torch.tensor([[0.25]]))
x_nodes, e_nodes = (g.reshape(-1, 1) for g in torch.meshgrid(nodes, nodes, indexing="ij"))
weights = torch.outer(shares, shares).flatten()


def expected(schedule, variance="beta", data=data):  # the mean of each kind of term over x_0 and eps
    x = data.mean + data.cov.diagonal().sqrt() * x_nodes  # (9, D): independent directions
    terms = vlb_terms(data.eps_model(schedule), schedule, x, variance=variance, eps=e_nodes.expand_as(x))
    return weights @ terms.prior, weights @ terms.matching, weights @ terms.reconstruction


# %% [markdown]
# Is the quadrature right? For Gaussian data there is a closed form, found without it. The squared error of the best guess is $\operatorname{Var}(x_0\mid x_t)=\frac{c\,(1-\bar\alpha_t)}{\bar\alpha_t c+1-\bar\alpha_t}$ with $c=0.25$ (chapter 03: precisions add). Put it into (5.10), term by term.

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
measured = [gap + data.entropy() for gap in excess]
limit("5.13", bound, entropy, sizes=sizes, measured=measured, values={entropy: data.entropy()}, order=1.0, tolerance=0.1)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 2.8))
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
# What then is the excess, which does vanish? By (5.12) it compares the model's step with the true one, $q(x_{t-1}\mid x_t)$. For Gaussian data the true step is Gaussian, and its variance is $\beta_tv_{t-1}/v_t$ by (3.24), where $v_t=\bar\alpha_tc+1-\bar\alpha_t$ is the variance of $x_t$. (The same from this chapter's side: given $x_t$, the posterior says $x_{t-1}=w_tx_0+(\text{a part with }x_t)+\sqrt{\tilde\beta_t}\,z$, where $w_t=\sqrt{\bar\alpha_{t-1}}\beta_t/(1-\bar\alpha_t)$ is the weight of $x_0$ in Ho eq. 7. The two random parts are independent, so the variance is $w_t^2\operatorname{Var}(x_0\mid x_t)+\tilde\beta_t$. The cell below checks that both are one number.) The oracle's mean is right. So only the price of a wrong variance is left, $\frac12(\rho-1-\log\rho)$ with $\rho=v_{t-1}/v_t$ if $\sigma_t^2=\beta_t$.
#
# That explains the rate. Near $\rho=1$ this price is about $\frac14(\rho-1)^2$. With $T$ steps, $\rho-1$ is of the order $1/T$, its square of the order $1/T^2$, and there are $T$ such terms.
#
# Take the *true* variance as $\sigma_t^2$, and nothing is left but the end, at any $T$:

# %%
for T in (1, 5, 20):
    chain = cosine_schedule(T)
    best = [1.0]
    for t in range(1, T + 1):
        bar, before, beta = (float(v) for v in (chain.alpha_bar[t], chain.alpha_bar[t - 1], chain.beta[t]))
        best.append(beta * (1 - before) / (1 - bar) + before * beta**2 / (1 - bar) ** 2 * float(left_over(chain, t)))
        assert abs(best[t] - beta * (0.25 * before + 1 - before) / (0.25 * bar + 1 - bar)) < 1e-12  # (3.24)
    prior, matching, end = expected(chain, variance=torch.tensor(best, dtype=torch.float64))
    x_T_law = data.diffused(float(chain.alpha_bar[T]))
    floor = normal_kl(x_T_law.mean, x_T_law.cov[0], 0.0, 1.0)
    assert abs(float(prior + matching.sum() + end - floor) - data.entropy()) < 1e-10
print("with the true variance: expected bound = entropy + KL(q(x_T) || N(0, 1)), for T = 1, 5, 20: True")

# %% [markdown]
# (Here $q(x_T)$ is the law of $x_T$ without knowing $x_0$.) For data that are not Gaussian, no Gaussian step is perfect and an excess remains at any finite $T$.
#
# ### The same end, fewer steps: T = 1, 2, 5, 20, 100, 1000
#
# The schedules above end at slightly different $\bar\alpha_T$. For a clean comparison take *one* schedule, the cosine with 1,000 steps, and visit only some of its times. A jump from $s$ to $t$ is one step with $\alpha=\bar\alpha_t/\bar\alpha_s$ (the telescope of chapter 02). So every such chain is a schedule in its own right, and all have the same end, the same $\bar\alpha_T$. At $T=1$ it is the VAE-like model of chapter 04.

# %%
from ddpm_course import NoiseSchedule, time_grid

counts = (1, 2, 5, 20, 100, 1000)


def shorter(schedule, T):  # T evenly spaced times, as a schedule of its own, and the times
    times = time_grid(schedule.T, T).flip(0)
    bars = schedule.alpha_bar[times]
    return NoiseSchedule(1 - bars[1:] / bars[:-1]), times


# %%
terms_at = torch.tensor([[float(part.sum()) for part in expected(shorter(cosine, T)[0])] for T in counts], dtype=torch.float64)
above = terms_at.sum(1) - data.entropy()
for T, (_, matching, end), rest in zip(counts, terms_at.tolist(), above.tolist(), strict=True):
    print(f"T = {T:4d}: matching {matching:5.2f}, reconstruction {end:5.2f}, above the entropy {rest:.2g}")
assert bool((above[1:] < above[:-1]).all()) and 0 < float(above[-1]) < 1e-3 and float(terms_at[:, 0].max()) < 1e-6

# %%
fig, ax = plt.subplots(figsize=(6, 3))
for values, label, color in zip(terms_at.T, ("prior", "matching", "reconstruction"), (GREY, ORANGE, BLUE), strict=True):
    ax.plot(counts, values, "o-", color=color, label=label)
ax.plot(counts, terms_at.sum(1), "o-", color="black", label="sum")
ax.axhline(data.entropy(), color="black", linestyle=":", linewidth=1)
ax.set(xscale="log", xlabel="T, all with the same end", ylabel="nats", title="the three terms (dotted: the entropy)")
ax.set_xticks(counts, [str(T) for T in counts])
ax.minorticks_off()
ax.legend(fontsize=9)
plt.show()

# %% [markdown]
# Read the figure from left to right. The prior is the same for all, and here nearly 0. At $T=1$ there is no matching term, and the reconstruction has to guess $x_0$ from pure noise. With each further step a part of the work moves from the reconstruction into matching terms: the chain now comes closer to the clean end, so the reconstruction starts from less noise and gets cheaper, while the details are paid for on the way. Neither of the two has a limit as $T$ grows. Only their sum has, and it comes down to the entropy.
#
# ### One variance for all directions, or one for each
#
# One number has one variance. Pictures have many directions, and these are not alike: along some of them digits vary much, along others hardly at all. Let the data be Gaussian with covariance matrix $C$. Look at them in the matrix's own axes, its *eigenvectors*. There the coordinates are independent, with variances $\lambda_1,\dots,\lambda_D$, the eigenvalues. The noise $\mathcal N(0,I)$ looks the same in any axes. So each direction is a one-dimensional problem of its own, with its own true reverse variance $v_i=\beta_t\,\frac{\bar\alpha_{t-1}\lambda_i+1-\bar\alpha_{t-1}}{\bar\alpha_t\lambda_i+1-\bar\alpha_t}$ at time $t$.
#
# A reverse step with a covariance *matrix* can give every direction its own variance. (In these axes the best matrix is diagonal.) The usual step has one number $\sigma_t^2$ for all of them. Which is the best one, and what does it cost? For two directions and a shared $s=\sigma_t^2$ the price of the wrong variances is the left side below, with its slope:

# %% tags=["proof"]
v_1, v_2, shared, m = sp.symbols("v_1 v_2 s m", positive=True)
half = sp.Rational(1, 2)
cost = half * (v_1 / shared - 1 - sp.log(v_1 / shared)) + half * (v_2 / shared - 1 - sp.log(v_2 / shared))
equation("5.14", sp.Derivative(cost, shared), (2 * shared - (v_1 + v_2)) / (2 * shared**2))

# %% [markdown]
# The slope is negative below $s=\frac{v_1+v_2}2$ and positive above. So the best shared variance is the *mean* of the true ones. Call it $m$ and put it in:

# %% tags=["proof"]
derive("5.15", cost.subs(shared, m),
       ((v_1 + v_2) / (2 * m) - 1 + half * sp.log(m**2 / (v_1 * v_2)), "sort; sums of logarithms are logarithms of products"),
       (half * sp.log(m**2 / (v_1 * v_2)), "the fraction is 1, as m is the mean"),
       given={m: (v_1 + v_2) / 2})

# %% [markdown]
# This is never negative, since $m^2-v_1v_2=\frac14(v_1-v_2)^2$, and 0 only if both directions have the same variance. With $D$ directions the price is $\frac12\sum_i(\log m-\log v_i)$. That is Jensen's inequality once more: the logarithm of a mean is larger than the mean of the logarithms. (The proof is about one step of Gaussian data. It does not say how large the price is in sum.)
#
# Now measure it, in two cases. A *needle* in the plane: variances 1 and 0.01. And the 64-dimensional Gaussian that was fitted to the digits. The schedule is a cosine that is cut off after four fifths, where $q(x_T)$ is not yet $\mathcal N(0,I)$, so that the price of the end can be seen too.

# %%
cut = NoiseSchedule(cosine_schedule(1250).beta[1:1001])
needle = ExactGaussian(torch.tensor([0.4, 0.0]), torch.tensor([1.0, 0.01]).diag())
fitted = ExactGaussian(broad.mean.flatten() @ broad.basis, broad.eigenvalues.diag())  # the digits' Gaussian in its own axes


def laws(data, chain):  # variance of x_t in each direction, (T+1, D)
    return chain.alpha_bar[:, None] * data.cov.diagonal() + 1 - chain.alpha_bar[:, None]


def true_variances(data, chain):  # of q(x_{t-1} | x_t), (T+1, D); row 0 is not used
    law = laws(data, chain)
    return torch.cat([torch.ones_like(law[:1]), chain.beta[1:, None] * law[:-1] / law[1:]])


# %%
def excess_of(data, chain):  # with beta_t, with the best scalar, with the best covariance; and what theory says of the last two
    true = true_variances(data, chain)
    tables = ("beta", true.mean(1), lambda t, s: true[t])
    found = [float(sum(part.sum() for part in expected(chain, table, data))) - data.entropy() for table in tables]
    end = normal_kl(chain.alpha_bar[-1] ** 0.5 * data.mean, laws(data, chain)[-1], 0.0, 1.0).sum()
    lost = 0.5 * (true[1:].mean(1, keepdim=True) / true[1:]).log().sum()
    assert abs(found[2] - float(end)) < 1e-9 and abs(found[1] - float(end + lost)) < 1e-9 and found[0] > found[1]
    return found


both = {"needle": needle, "digits": fitted}
losses = {name: torch.tensor([excess_of(law, shorter(cut, T)[0]) for T in counts]) for name, law in both.items()}
print("best covariance: excess = KL(q(x_T) || N(0, I)); best scalar: that + the price (5.15), at every T: True")

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.5, 2.9))
for ax, (name, rows) in zip(axes, losses.items(), strict=True):
    for values, label in zip(rows.T, (r"scalar, $\beta_t$", "best scalar", "best covariance"), strict=True):
        ax.loglog(counts, values, "o-", label=label)
    ax.set(xlabel="T, all with the same end", title=f"{name}: expected bound − entropy")
    ax.minorticks_off()
    print(f"{name}: T = 1 {[f'{v:.3g}' for v in rows[0].tolist()]}, T = 1000 {[f'{v:.2g}' for v in rows[-1].tolist()]} nats")
axes[0].set_ylabel("nats")
axes[1].set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
axes[1].legend(fontsize=9)
plt.show()

# %% [markdown]
# The green line is flat. With its own variance in every direction a *single* step is already perfect for Gaussian data, and only the end is paid for. Even the best scalar costs 38 nats more per digit at $T=1$ ($\beta_t$ costs 54 more); as $T$ grows, the price above the green line falls, in the end like $1/T$. This is the true job of the thousand steps: they make one number per step good enough. (Published remedies lie in between. Analytic-DPM computes the best scalar. Nichol section 3.1 lets a network choose a variance for each pixel, in the axes of the pixels, not in those of the data.) For pictures, which are no Gaussian, even the best covariance leaves an excess at small $T$, as the two humps above show.
#
# ### Which part of the excess do the samples show?
#
# A bound is loose. Is the model bad, or only the bound? Average (5.3) over the data: $\mathbb E_{x_0}[L]=\mathbb E_{x_0}[-\log p_\theta(x_0)]+\mathbb E_{x_0}[\text{gap}]$. Subtract the entropy $\mathbb E_{x_0}[-\log q(x_0)]$ on both sides:
#
# $\displaystyle\text{excess}=\underbrace{\mathrm{KL}\big(q(x_0)\,\|\,p_\theta(x_0)\big)}_{\text{the samples are off}}+\underbrace{\mathbb E_{x_0}[\text{gap}]}_{\text{the film is off}}$
#
# The first part compares the data with what the model draws. The second compares two ways to complete a film, which no sample shows. The bound gives only their sum. For the needle both can be had. Each reverse step is a straight line plus noise, $x_{t-1}=a+k\,x_t+\sigma_tz$ in every direction. So mean and variance of the samples can be followed from $\mathcal N(0,1)$ down, as in chapter 03. We read $a$ and $k$ off the package's own step.

# %%
from ddpm_course import ddpm_step


def sample_law(data, chain, sigma_2):  # mean and variance, in each direction, of what p_theta draws
    model, mean, var = data.eps_model(chain), torch.zeros_like(data.mean), torch.ones_like(data.mean)
    for t in range(chain.T, 0, -1):
        probe = torch.stack([torch.zeros_like(mean), torch.ones_like(mean)])
        a, a_plus_k = ddpm_step(chain, probe, model(probe, torch.full((2,), t)), t, t - 1, torch.zeros_like(probe))
        mean, var = a + (a_plus_k - a) * mean, (a_plus_k - a) ** 2 * var + sigma_2[t]
    return mean, var


# %%
split = []
for T in counts:
    chain = shorter(cosine, T)[0]
    scalar = true_variances(needle, chain).mean(1)
    total = float(sum(part.sum() for part in expected(chain, scalar, needle))) - needle.entropy()
    off = float(normal_kl(needle.mean, needle.cov.diagonal(), *sample_law(needle, chain, scalar)).sum())
    split.append((off, total - off))
    print(f"T = {T:4d}: excess {total:.2g} nats, of which {off / total:.1%} is in the samples")
assert min(min(pair) for pair in split) > -1e-8 and split[0][1] < 1e-6 and split[-1][0] < 0.01 * split[-1][1]

# %% [markdown]
# At $T=1$ the *whole* excess is in the samples, and the bound is exact: one step from pure noise draws a round cloud where a needle should be. At $T=1000$ nearly all of it is gap: the samples are right, and the bound does not say so. So remember the direction. The excess is an upper limit for the error of the samples: a bound close to the entropy is a guarantee. A bound far from it is a question.
#
# > **An image to keep.** The bound is an invoice with one total. It does not say which part was for the goods and which for the paperwork. *Where it breaks:* on an invoice one may ask for the items. Here the gap cannot be computed for a real network.
#
# ### The same samples, another bound
#
# How far can the paperwork go? Eight Gaussians on a ring, and two models with 100 steps. The first is the oracle. The second is the same oracle, except that its last step turns the point by 45°. A ring of eight, turned by 45°, is the same ring. So both models draw from exactly the same law: $\log p_\theta(x_0)$ is the same for every $x_0$.

# %%
from ddpm_course import ddpm_sample, eps_to_x_0, x_0_to_eps
from ddpm_course.plots import scatter_row

angles, hundred = torch.arange(8) * math.pi / 4, cosine_schedule(100)
ring = GaussianMixture(torch.full((8,), 1 / 8), 1.4 * torch.stack([angles.cos(), angles.sin()], 1), torch.full((8,), 0.1))
turn, straight = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / 2**0.5, ring.eps_model(hundred)


def turned(x, t):  # at t = 1 the mean of the step is x_0_hat itself: turn it
    eps_hat = straight(x, t)
    return eps_hat if int(t[0]) > 1 else x_0_to_eps(hundred, x, t, eps_to_x_0(hundred, x, t, eps_hat) @ turn.T)


# %%
draws = lambda seed: torch.Generator().manual_seed(seed)  # noqa: E731
points = ring.sample(500, draws(8))
x_T = torch.randn(1000, 2, generator=draws(9), dtype=torch.float64)
drawn = {}
for name, model in (("the oracle", straight), ("last step turned", turned)):
    nats = float(vlb_terms(model, hundred, points, variance="beta", generator=draws(10)).total().mean())
    label = f"{name}\nbound {float(f'{nats:.2g}'):g} nats"
    drawn[label] = ddpm_sample(model, hundred, x_T=x_T, variance="beta", generator=draws(11))
first, second = drawn.values()
torch.testing.assert_close(second, first @ turn.T, rtol=0, atol=1e-12)
scatter_row({"data": ring.sample(1000, draws(12))} | drawn)
plt.show()

# %% [markdown]
# The two clouds are one law (the second is the first, turned point by point), and the bounds differ by about 900 nats. Seen from the film, every last step of the second model lands in the wrong heap. Nobody who looks at samples will ever notice. So a bad bound does not prove bad samples. Whether a good bound proves good samples we ask of real digits below.
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
axes[0].legend(loc="upper left", fontsize=8, borderaxespad=0, handlelength=1)
plt.show()

# %% [markdown]
# The dotted line is $x_t$, made with the unlucky noise $\varepsilon=-1$. Early ($t=5$) the pixel is plainly ink. The guess is right, and the bells differ in width only: $\beta_t$ against $\tilde\beta_t$. At $t=25$ the noise has just cancelled the signal. The model cannot tell ink from paper, guesses 0, and its bell sits to the left of the blue one. At $t=40$ it even leans to paper. The bells are shifted about as far as at $t=25$, but they are wider now, and the KL counts the shift in units of the width. At $t=50$ both are wide and it hardly matters what one guesses. Move the noise: a positive one makes the pixel easy, and the KL shrinks.

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
# Now 8×8 pixels, $T=1000$, the discrete decoder, and two denoisers. First the *perfect denoiser of the training set*, `FiniteData`: it knows its 1,438 training digits by heart and believes that there are no others. Second the network that is shipped with the course, which was trained on the same digits. Both are asked about one training digit and about nine validation digits; the figure shows the first of each kind.

# %%
from ddpm_course import FiniteData, load_model, shipped

net, finite = load_model(shipped("digits")), FiniteData(digits().train.images)
ask = torch.cat([digits().train.images[:1], digits().val.images[:9]])  # one training digit, nine validation digits
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
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 2.9), sharex=True)
t_axis = torch.arange(2, 1001)
lines = {"network, training digit": (network, 0, BLUE), "network, validation digit": (network, 1, ORANGE),
         "memoriser, training digit": (memory, 0, GREEN), "memoriser, validation digit": (memory, 1, RED)}
for label, (found, k, color) in lines.items():
    left.plot(t_axis, found.matching[k].clamp(min=1e-6), color=color, label=label, linewidth=1)
    bits = found.matching[k].flip(0).cumsum(0).flip(0) / (64 * math.log(2))
    right.plot(t_axis, bits, color=color, label=label)
left.set(yscale="log", ylim=(1e-6, 1e5), xlabel="t", ylabel="nats", title="matching term at t, one draw each")
right.set(yscale="log", ylim=(1e-3, 1e4), xlabel="t", ylabel="bits per dim", title="paid on the way down from T to t")
left.legend(fontsize=7, loc="upper right")
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
# ### One ruler for all: the VAE, one step, a thousand steps
#
# Everything that has a bound can now be put on one scale, in bits per dimension on the same nine validation digits, with the same discrete decoder. On the scale stand the shipped network with 1, 2, 5, 20, 100 and 1,000 steps, all with the same end (its own schedule, with times left out), and a VAE with sixteen latents, trained for a few seconds. `vae_terms` and `vlb_terms` answer with the same object, and compute prior and reconstruction by the same two functions.

# %%
from ddpm_course import VAE, vae_terms

with torch.random.fork_rng():
    torch.manual_seed(0)
    vae = VAE(event=(1, 8, 8), latent_dim=16)
optimizer, rng = torch.optim.Adam(vae.parameters(), lr=2e-3), torch.Generator().manual_seed(13)
for _ in range(600):
    batch = digits().train.images[torch.randint(1438, (128,), generator=rng)]
    loss = vae_terms(vae, batch, torch.randn(128, 16, generator=rng), variance=0.05).total().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
from ddpm_course import VLBTerms

held = ask[1:]
rulers = {"T = 1000": VLBTerms(*(part[1:] for part in network))}
for T in counts[:-1]:
    chain, times = shorter(net.schedule, T)
    jumping = lambda x, t, times=times: net.eps_model()(x, times[t])  # noqa: E731
    rulers[f"T = {T}"] = vlb_terms(jumping, chain, held, **settings, generator=torch.Generator().manual_seed(14))
with torch.no_grad():
    noise = torch.randn(9, 16, generator=torch.Generator().manual_seed(15))
    rulers["VAE"] = vae_terms(vae, held, noise, variance=0.05, decoder="discrete")

# %%
names = [*(f"T = {T}" for T in counts), "VAE"]
parts = torch.tensor([[float(part.reshape(9, -1).sum(1).mean()) for part in rulers[name]] for name in names]) / (64 * math.log(2))
fig, ax = plt.subplots(figsize=(7.5, 2.6))
bottom = torch.zeros(len(names))
for values, label, color in zip(parts.T, ("prior", "matching", "reconstruction"), (GREY, ORANGE, BLUE), strict=True):
    ax.bar(names, values, bottom=bottom, color=color, label=label)
    bottom = bottom + values
for name, total, k in zip(names, bottom.tolist(), range(7), strict=True):
    torch.testing.assert_close(bits_per_dim(rulers[name], held).mean(), bottom[k], rtol=1e-4, atol=1e-4)
    ax.text(k, total + 0.08, f"{total:.1f}", ha="center")
ax.set(ylabel="bits per dim", title="the three terms on nine validation digits", ylim=(0, 7))
ax.legend(ncols=3, loc="upper left")
plt.show()

# %% [markdown]
# The same drift as with the Gaussian: from left to right the work moves out of the reconstruction into matching terms. But the *sum* hardly moves, and it does not fall with $T$. The model with one step stands level with the model of a thousand. The VAE of a few seconds, 4.2, stands in the same row: with its learnt encoder one latent does as well here as the chain. Now look at what those with up to 100 steps draw, from the same start:

# %%
from ddpm_course import clip_x_0

rows, start = {}, torch.randn(14, 1, 8, 8, generator=torch.Generator().manual_seed(16))
for T in (1, 2, 5, 20, 100):
    chain, times = shorter(net.schedule, T)
    jumping = lambda x, t, times=times: net.eps_model()(x, times[t])  # noqa: E731
    rows[f"T = {T}"] = ddpm_sample(clip_x_0(jumping, chain), chain, x_T=start, generator=torch.Generator().manual_seed(17))
show_rows(rows)
plt.show()

# %%
spread = {name: float(x.std(0).mean()) for name, x in rows.items()}  # how much a pixel differs between samples
totals = dict(zip(names, bottom.tolist(), strict=True))
assert abs(totals["T = 1"] - totals["T = 1000"]) < 0.3 and spread["T = 1"] < 0.2 < 0.4 < spread["T = 100"]
print("T = 1 and T = 1000 within 0.3 bits per dim: True;  the samples of T = 1 hardly differ from each other: True")
print(f"knowing which of ten digits it is: worth {math.log(10) / (64 * math.log(2)):.2f} bits per dim")

# %% [markdown]
# So a good bound does not prove good samples either. One step draws the same grey average every time, and its bound is as good as that of a thousand steps. How can that be? Bits count *every grey value of every pixel*, exactly. To know which of ten digits it is saves only 0.05 bits per dimension, and that is what an eye looks at first. Most of the bits go to the last details, at small $t$.
#
# And why does the sum not fall with $T$, as it did for the oracle? Two suspects: the fixed variance, and the network's errors. How much the first is to blame can be measured in part. With $\sigma_t^2=\tilde\beta_t$ a matching term of $D$ pixels is $L_{t-1}=|\tilde\mu-\mu_\theta|^2/2\tilde\beta_t$ by (5.9). With the best $\sigma_t^2$ for the same means it would be $\frac D2\log(1+\frac2DL_{t-1})$ (differentiate by $\sigma_t^2$, or wait for exercise 5.7).

# %%
nats = {T: rulers[f"T = {T}"].matching.mean(0) for T in counts[1:]}
saved = {T: float((L - 32 * torch.log1p(L / 32)).sum()) / (64 * math.log(2)) for T, L in nats.items()}
early = float(nats[1000][:10].sum() / nats[1000].sum())  # t = 2..11 of 1000
best_sums = {T: totals[f"T = {T}"] - saved[T] for T in counts[1:]}
assert 0.15 < saved[1000] < 0.35 and 0.35 < early < 0.55 and best_sums[1000] > best_sums[5] + 0.1
print("best scalar variance saves between 0.15 and 0.35 bits per dim at T = 1000, and the sum still does not fall: True")
print("ten of the 999 matching terms, t = 2..11, make more than a third of their sum: True")

# %% [markdown]
# So the variance explains a part, and the rest is left to the network. Ten times near the clean end carry over a third of all matching bits. There the bound weighs an error of the network's answer (this one answers $v$, chapter 06) hundreds of times as much at $t=2$ as at middle $t$, and about fifty times as much at $t=11$; the training loss weighed all $t$ alike. A longer chain goes further into that region. (This is the likely reading, not a proof. On digits nobody knows the entropy.)
#
# Three rules to take along. Compare bounds of models only on the same data, with the same decoder. Use the bound for what it measures: surprise on held-out pictures (it found the memoriser out at once). And look at samples, or measure them, for what it does not (chapter 14). (Nine digits and one draw of the noise: read the figure to one decimal, no further.)

# %% [markdown]
# ## Why the mean is what the network will learn
#
# One link to chapter 06. By (5.9) and (5.10) each matching term is a constant plus a weight times $\mathbb E\big[(x_0-\hat x_0(x_t))^2\big]$. Average also over the data $x_0$, hold $x_t$ fixed, and ask which single answer $c=\hat x_0(x_t)$ is best. All expectations here run over $x_0\sim q(x_0\mid x_t)$:

# %% tags=["proof"]
c, average = sp.Symbol("c", real=True), Expect(x_0, x_0)
equation("5.16", Expect((x_0 - c) ** 2, x_0), (Expect(x_0**2, x_0) - average**2) + (average - c) ** 2)

# %% [markdown]
# On the right, $\mathbb E[x_0^2]-\mathbb E[x_0]^2$ is the variance of $x_0$ given $x_t$. Nobody can lower it. The square that contains $c$ is 0 for $c=\mathbb E[x_0\mid x_t]$ and positive otherwise. So the best denoiser answers with a **conditional mean**: the average of all clean pictures that could have led to this $x_t$. This also answers what learners ask most, whether the loss can reach 0. It cannot, except where $x_t$ determines $x_0$.

# %% [markdown]
# ## Common mistakes
#
# ### "Consistency terms" for the denoising matching terms (M18)
#
# Some derivations stop at the obvious way and call the red fractions *consistency terms*. They belong to another splitting of the same $L$. Their expectation runs over *three* pictures, $x_{t-1},x_t,x_{t+1}$, and is an average of a log ratio, not a KL. It may be negative. We draw 4,000 films that start from $\mathcal N(0.4, 0.25)$ and take $T=40$ equal steps, and write down every term of both splittings. The model is the oracle with $\sigma_t^2=\beta_t$.

# %%
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
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 2.8))
rows = ((consistency, range(1, T), "consistency", RED), (matching, range(2, T + 1), "denoising matching", BLUE))
for values, times, label, color in rows:
    mean, std = values.mean(0), values.std(0)
    left.plot(times, mean, color=color, label=label)
    left.fill_between(times, mean - std, mean + std, color=color, alpha=0.2)
left.axhline(0, color="black", linewidth=0.7)
left.set(xlabel="t", ylabel="nats", title="each term: mean ± std over films")
left.legend(loc="upper right")
for values, (_, _, label, color) in zip(single, rows, strict=True):
    right.hist(values.numpy(), bins=60, range=(-150, 150), color=color, alpha=0.6, label=label)
right.set(xlabel="sum of the terms, estimated from one random t", title="same job, different spread", yscale="log")
right.legend(fontsize=9)
plt.show()

# %% [markdown]
# Each consistency term swings by about one nat from film to film (red band), each matching term by a small fraction of that (blue). Where does the advantage come from? From the inner average over $x_{t-1}$, which the KL does exactly. The obvious way has no inner average to offer; it judges one random triple $x_{t-1},x_t,x_{t+1}$.
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
rng = torch.Generator().manual_seed(5)
x_T = torch.randn(20_000, 1, generator=rng, dtype=torch.float64)
generated = ddpm_sample(data.eps_model(hundred), hundred, x_T=x_T, variance="beta", generator=rng)
real = data.sample(20_000, torch.Generator().manual_seed(7))
wrong_loss = float(((generated - real) ** 2).mean())  # the mistake
assert abs(wrong_loss - 0.5) < 0.05 and excess[2] < 0.01
print(f"nearly perfect (excess below 0.01 nats), but squared distance to real data about {wrong_loss:.1f}")

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/05_elbo_student.ipynb), [with solutions](exercises/05_elbo_solution.ipynb).

# %% [markdown]
# **5.1 ★** A white page: 64 pixels, all $-1$. The schedule ends at $\bar\alpha_T=0.01$. How many nats is the prior term?

# %% [markdown] tags=["hint"]
# **Hint 5.1**
#
# The law of one pixel at the end is $\mathcal N(\sqrt{\bar\alpha_T}\,x_0,\ 1-\bar\alpha_T)$. Pixels are independent given $x_0$, so their divergences add.

# %% tags=["exercise"]
prior_nats = ...
check("5.1", prior_nats)

# %% tags=["solution"]
prior_nats = float(normal_kl(-0.1 * torch.ones(64, dtype=torch.float64), 0.99, 0.0, 1.0).sum())
must_pass("5.1", prior_nats)

# %% [markdown]
# **5.2 ★** Telescoping. Given the list of numbers $\log q(x_1\mid x_0),\dots,\log q(x_T\mid x_0)$, give the logarithm of $\prod_{t=2}^T q(x_t\mid x_0)/q(x_{t-1}\mid x_0)$.

# %% [markdown] tags=["hint"]
# **Hint 5.2**
#
# Write out the product for $T=3$ and cancel.

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

# %% [markdown] tags=["hint"]
# **Hint 5.3**
#
# With equal means, only the variances are left in the KL divergence of two Gaussians. Which of the two stands first?

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
# **5.4 ★★★** Take $\sigma_t^2=\tilde\beta_t$. What is then the weight of $(x_0-\hat x_0)^2$ in the matching term, as a function of $\bar\alpha_{t-1}$ and $\bar\alpha_t$? Start from (5.10). The answer is half the *fall* of a quantity from chapter 02 between $t-1$ and $t$. Which?

# %% [markdown] tags=["hint"]
# **Hint 5.4**
#
# The means differ by $\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}(x_0-\hat x_0)$. Square, divide by $2\tilde\beta_t$, and put in $\beta_t=1-\bar\alpha_t/\bar\alpha_{t-1}$.

# %% tags=["exercise"]
def x_0_weight(alpha_bar_s, alpha_bar_t):
    return ...


check("5.4", x_0_weight)


# %% tags=["solution"]
def x_0_weight(alpha_bar_s, alpha_bar_t):
    return 0.5 * (alpha_bar_s / (1 - alpha_bar_s) - alpha_bar_t / (1 - alpha_bar_t))  # of the signal-to-noise ratio


must_pass("5.4", x_0_weight)

# %% [markdown]
# **5.5 ★** $T=1000$. How many *matching* terms has the bound?

# %% [markdown] tags=["hint"]
# **Hint 5.5**
#
# At $t=1$ the term has another name.

# %% tags=["exercise"]
matching_terms = ...
check("5.5", matching_terms)

# %% tags=["solution"]
matching_terms = len(range(2, 1000 + 1))  # t = 2, ..., T
must_pass("5.5", matching_terms)

# %% [markdown]
# **5.6 ★** The bound for an 8×8 picture is 300 nats. How many bits per dimension is that?

# %% [markdown] tags=["hint"]
# **Hint 5.6**
#
# A bit is $\log 2$ nats. How many dimensions has the picture?

# %% tags=["exercise"]
bits = ...
check("5.6", bits)

# %% tags=["solution"]
bits = 300 / math.log(2) / 64
must_pass("5.6", bits)

# %% [markdown]
# **5.7 ★★★** The best fixed variance. The posterior has variance $\tilde\beta$. The model's mean is off: its mean squared error, averaged over all that is random, is $m$ for each pixel. Which $\sigma^2$ makes the expected matching term smallest, and how many nats does a pixel cost then? Return both numbers, the variance first.

# %% [markdown] tags=["hint"]
# **Hint 5.7**
#
# The expected term is $\frac12\big(\frac{\tilde\beta+m}{\sigma^2}-1-\log\frac{\tilde\beta}{\sigma^2}\big)$. Differentiate by $\sigma^2$. The price at the best place is short.

# %% tags=["exercise"]
def best_variance(tilde, m):
    return ...


check("5.7", best_variance)


# %% tags=["solution"]
def best_variance(tilde, m):
    best = tilde + m  # the fraction becomes 1 and cancels the -1
    return best, 0.5 * math.log(best / tilde)


must_pass("5.7", best_variance)

# %% [markdown]
# **5.8 ★★★** Data $x_0\sim\mathcal N(0,c)$, one pixel. Averaged over the data, the prior term $\mathrm{KL}(q(x_T\mid x_0)\,\|\,\mathcal N(0,1))$ is larger than $\mathrm{KL}(q(x_T)\,\|\,\mathcal N(0,1))$. Write the difference, in nats. (It is the *information* that $x_T$ still holds about $x_0$.)

# %% [markdown] tags=["hint"]
# **Hint 5.8**
#
# Both are KL divergences of Gaussians. $q(x_T\mid x_0)$ has variance $1-\bar\alpha_T$, and $q(x_T)$ has variance $\bar\alpha_T c+1-\bar\alpha_T$. Nearly everything cancels.

# %% tags=["exercise"]
def information_left(c, bar_T):
    return ...


check("5.8", information_left)


# %% tags=["solution"]
def information_left(c, bar_T):
    return 0.5 * math.log(1 + c * bar_T / (1 - bar_T))  # half the logarithm of 1 + c SNR


must_pass("5.8", information_left)

# %% [markdown]
# ## What comes next
#
# The bound is a sum of squared errors with known weights: guess $x_0$ from $x_t$, and you have a generative model. Chapter 06 asks what exactly the network should answer, $x_0$, $\varepsilon$, $v$ or the score. At known $x_t$ and $t$ they all say the same, but they weigh the errors differently. From there it is one step to the loss in two lines that made these models popular.
