# %% [markdown]
# # 04 · One latent: a bound for what cannot be computed
#
# **The question.** A picture has causes that nobody wrote down: which digit was meant, how slanted, how thick the pen. A model with such unseen causes gives every picture a probability density. But that density is a sum over *all* possible causes, far too many to visit. How can one maximise a number that one cannot compute?
#
# **After this chapter you can**
#
# - derive the evidence lower bound (ELBO) in two ways: by Jensen's inequality, and as an exact identity whose remainder is a Kullback–Leibler divergence;
# - compute the KL divergence of two Gaussians, and say why each of its parts is there;
# - move a gradient through a random draw (reparameterisation), and show by a number what goes wrong without it;
# - train a small variational autoencoder (VAE) on real digits, and read its bound, its samples and its latent space;
# - say in which sense a diffusion model with a single step is a VAE.
#
# *Needs:* chapter 01 (expectations, KL) and chapter 03 (Bayes' rule, completing the square). *Time:* about three hours with the exercises.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import VAE, ExactGaussian, NoiseSchedule, normal_kl, normal_log_prob, vae_terms, vlb_terms
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, curves, show_images, show_rows, style
from ddpm_course.proofs import Expect, agrees, derive, equation, expectation, inequality, normal, number
from ddpm_course.widgets import explore, slider

style()

# %% [markdown]
# Here are twenty-four real threes. All of them are "the same thing", and no two are equal. Slant, width, how far the curls close: if we knew these few numbers for each picture, little would be left to explain. Nobody recorded them. Such an unrecorded cause is called a **latent variable** and written $z$. (In chapter 01 the letter $z$ was a draw from $\mathcal N(0,1)$. Here it is a cause. That its law will also be a standard normal is a choice, made later.)

# %%
train, val = digits().train, digits().val
show_images(train.images[train.labels == 3][:24], columns=12, title="one cause we have a name for, many we have not")
plt.show()

# %% [markdown]
# ## A model with one latent
#
# The model tells a story in two acts. First draw a cause $z$ from the **prior** $p(z)$. Then draw the picture $x$ from the **likelihood** (for us: the *decoder*) $p(x\mid z)$. Whoever sees only $x$ must add up all causes that could have led to it:
#
# $$ p(x) = \int p(z)\,p(x\mid z)\,dz \tag{4.1, definition} $$
#
# (for a discrete $z$ a sum instead of the integral). The number $p(x)$ is called the **evidence**. A good model gives real pictures a large one. Bayes' rule (chapter 03) turns the story round and asks for the cause: $p(z\mid x) = p(x,z)/p(x)$, where $p(x,z) = p(z)\,p(x\mid z)$ is the joint density.
#
# ### An example in which everything can be counted
#
# Somebody scribbled a stroke. Was it meant as a 1, a 4 or a 7? Three causes. How often each is written (prior), how often each comes out as just this scribble (likelihood), and all the rest follows.

# %%
prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
likelihood = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)  # p(this scribble | z)
joint = prior * likelihood
evidence = joint.sum()
posterior = joint / evidence
log_p = float(evidence.log())
print(f"p(x) = {float(evidence):.2f}, log p(x) = {log_p:.2f}, posterior = {[round(float(v), 2) for v in posterior]}")

# %%
fig, axes = plt.subplots(1, 4, figsize=(9.5, 2.3), sharey=True)
titles = ("prior p(z)", "× likelihood p(x|z)", "= joint p(x, z)", "÷ p(x) = posterior p(z|x)")
for ax, title, bars in zip(axes, titles, (prior, likelihood, joint, posterior), strict=True):
    ax.bar(["1", "4", "7"], bars, color=[BLUE, ORANGE, GREEN])
    ax.set(title=title, xlabel="z")

# %% [markdown]
# The orange bars win. A 1 is written most often, but it seldom looks like this. The evidence $p(x)=0.29$ is the sum of the three bars in the third panel.
#
# With three causes there is no problem. Now let $z$ be eight real numbers, and try only twenty values for each. That is $20^8$, more than twenty-five billion decoder calls for *one* picture. The sum in (4.1) is out of reach, and with it the posterior, which has the same sum in its denominator.
#
# ## The trick: bring in a guess
#
# Let $q(z)$ be any distribution over causes that we can draw from, and that is nowhere 0 where $p(x,z)$ is not, since we are going to divide by it. Think of it as a *guess* at the posterior. Multiply and divide by it: $p(x)=\int q(z)\,\frac{p(x,z)}{q(z)}\,dz$. An integral of $q(z)$ times something is an average over $z\sim q$. So $p(x)$ is the average of the **weight** $R(z) = p(x,z)/q(z)$. For three causes, with $p_k$ for $p(x, z=k)$ and $q_k$ for $q(z=k)$:

# %% tags=["proof"]
p_1, p_2, p_3, q_1, q_2, q_3 = sp.symbols("p_1 p_2 p_3 q_1 q_2 q_3", positive=True)
pairs = ((q_1, p_1), (q_2, p_2), (q_3, p_3))
average = sp.Add(*(sp.Mul(q, p / q, evaluate=False) for q, p in pairs), evaluate=False)
equation("4.2", average, p_1 + p_2 + p_3)

# %% [markdown]
# On the left stands $\mathbb E_{z\sim q}[R(z)]$, on the right $p(x)$. With an integral the cancellation is the same. So far nothing is gained: an average over a few draws of $R$ is an honest estimate of $p(x)$, but its logarithm is not an honest estimate of $\log p(x)$, and it is the logarithm that we want. (Why the logarithm? The pictures of a data set are drawn independently, so its density is a product. The logarithm of a product is a *sum* over the pictures, and gradients of sums can be taken in small batches.)
#
# ## First way: Jensen's inequality
#
# What happens if we simply swap logarithm and average? Look at the curve. The logarithm bends downwards. So a chord between two of its points lies **below** the curve: the average of two logarithms is less than the logarithm of the average. A tangent, on the other hand, lies **above** it.

# %%
u_axis = torch.linspace(0.06, 2.4, 300)
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
left.plot(u_axis, u_axis.log(), color="black")
left.plot([0.2, 2.0], [math.log(0.2), math.log(2.0)], "o-", color=BLUE)
left.plot([1.1, 1.1], [0.5 * math.log(0.4), math.log(1.1)], color=ORANGE, linewidth=4)
left.set(title="chord below the curve", xlabel="u", ylabel="log u")
thin = {"arrowstyle": "-", "color": GREY}
left.annotate("log of the average", (1.1, math.log(1.1)), (0.3, 0.75), arrowprops=thin)
left.annotate("average of the logs", (1.1, 0.5 * math.log(0.4)), (1.2, -1.5), arrowprops=thin)
R, R_mean = joint / (1 / 3), float(evidence)
right.plot(u_axis[:90], u_axis[:90].log(), color="black", label="log u")
right.plot(u_axis[:90], u_axis[:90] / R_mean - 1 + math.log(R_mean), color=RED, label="tangent at p(x)")
right.scatter(R, R.log(), color=[BLUE, ORANGE, GREEN], zorder=3)
right.plot([R_mean, R_mean], [float(R.log().mean()), log_p], color=ORANGE, linewidth=4)
right.set(title="the three weights of the scribble, uniform q", xlabel="weight R(z)")
right.legend()
plt.show()

# %% [markdown]
# In the right panel the three dots are the three weights of our scribble for a guess $q$ that gives each cause one third. The thick orange piece is what swapping costs: its upper end is $\log p(x)$, its lower end the average of the three logarithms.
#
# Now the proof. It needs one fact about the logarithm. Consider $u - 1 - \log u$ for $u>0$. The slope of $u$ is 1 and that of $\log u$ is $1/u$, so the slope of the whole is

# %% tags=["proof"]
u = sp.Symbol("u", positive=True)
equation("4.3", sp.Derivative(u - 1 - sp.log(u), u), (u - 1) / u)

# %% [markdown]
# The slope is negative left of $u=1$ and positive right of it. So the function falls, touches its lowest value $1-1-\log 1=0$ at $u=1$ and only there, and rises again. It is never below 0, that is, $\log u$ is never above $u-1$:

# %% tags=["proof"]
inequality("4.4", sp.log(u), u - 1, cases=[{u: k / 20} for k in range(1, 200)], equality={u: 1}, relation=r"\le")

# %% [markdown]
# The sign of the slope is the proof; the cases only guard against a slip of the pen. Put $u = R/\bar R$ with $\bar R = \mathbb E_{z\sim q}[R(z)]$, the mean weight. Then (4.4) says $\log\frac{R}{\bar R}\le\frac{R}{\bar R}-1$. The left side is $\log R-\log\bar R$. Bring $\log\bar R$ to the other side: $\log R \le \frac{R}{\bar R} - 1 + \log\bar R$. This is the red tangent of the picture.
#
# The weight $R=R(z)$ is random because $z\sim q$ is. Take the average of both sides over $z\sim q$ (below the subscript is just $R$). What is the average of the tangent?

# %% tags=["proof"]
weight, mean_weight = sp.symbols(r"R \bar{R}", positive=True)
derive("4.5", Expect(weight / mean_weight - 1 + sp.log(mean_weight), weight),
       (Expect(weight, weight) / mean_weight - 1 + sp.log(mean_weight), "the mean is linear; the mean weight is a constant"),
       (sp.log(mean_weight), "the fraction is the mean weight over itself: 1"),
       given={Expect(weight, weight): mean_weight})

# %% [markdown]
# Together: $\mathbb E_{z\sim q}[\log R(z)]\le\log\bar R=\log\mathbb E_{z\sim q}[R(z)]$. This is **Jensen's inequality** for the logarithm. Now name the left side, with our weights in it, the **evidence lower bound**:
#
# $$ \mathrm{ELBO}(q) = \mathbb E_{z\sim q}\left[\log\frac{p(x,z)}{q(z)}\right] \tag{4.6, definition} $$
#
# Since $\mathbb E_{z\sim q}[R]=p(x)$ by (4.2), Jensen says $\mathrm{ELBO}(q)\le\log p(x)$. The expectation runs over $z$ alone. $x$ is the picture in front of us: it is given and does not move. For three causes, tried on five hundred random models and guesses:

# %% tags=["proof"]
rng = torch.Generator().manual_seed(0)
p_cases = torch.rand(500, 3, generator=rng, dtype=torch.float64)
q_cases = torch.rand(500, 3, generator=rng, dtype=torch.float64)
rows = torch.cat([p_cases, q_cases / q_cases.sum(1, keepdim=True)], 1).tolist()
cases = [dict(zip((p_1, p_2, p_3, q_1, q_2, q_3), row, strict=True)) for row in rows]
swapped = sp.Add(*(q * sp.log(p / q) for q, p in pairs))
tight = {p_1: 0.1, p_2: 0.06, p_3: 0.24, q_1: 0.25, q_2: 0.15, q_3: 0.6}  # equal weights: nothing is lost
inequality("4.7", sp.log(p_1 + p_2 + p_3), swapped, cases=cases, equality=tight, source="VAE section 2.2")

# %% [markdown]
# When is nothing lost? In (4.4) the two sides meet at $u=1$ only. So every weight must equal the mean weight: in the right picture above, the three dots would sit on one point, and the thick orange piece would have no length. Then $p(x,z)/q(z)=\bar R$ for every $z$, and $\bar R=p(x)$. Solve for the guess: $q(z)=p(x,z)/p(x)=p(z\mid x)$, by Bayes' rule. *Nothing is lost if and only if the guess is the posterior.* Jensen does not tell us *how much* is lost otherwise. The second way does.
#
# ## Second way: an exact identity
#
# Bayes' rule says $p(x)=p(x,z)/p(z\mid x)$, for *every* $z$. So $\log p(x)$, which does not depend on $z$, may be averaged over $z\sim q$ without changing. Then the guess is slipped in. The symbols $q(z)$, $p(x,z)$ and so on below are *abstract*: positive numbers that depend on $z$, nothing more is assumed about them. So the proof holds for pictures, for scribbles, and for anything else with a density. (`density` gives such a number the name that is printed.)

# %%
def density(text, *over):
    law = lambda self, printer, exp=None: text if exp is None else rf"{text}^{{{exp}}}"  # noqa: E731
    return type(text, (sp.Function,), {"_latex": law, "_eval_is_positive": lambda self: True})(*over)


z_q = sp.Symbol(r"z \sim q", real=True)
q_z, p_z = density("q(z)", z_q), density("p(z)", z_q)
p_xz, p_x_z, p_z_x = density("p(x,z)", z_q), density(r"p(x\mid z)", z_q), density(r"p(z\mid x)", z_q)
p_x = sp.Symbol("p(x)", positive=True)

# %% tags=["proof"]
slipped_in = sp.Mul(p_xz / q_z, q_z / p_z_x, evaluate=False)
derive("4.8", sp.log(p_x),
       (Expect(sp.log(p_x), z_q), "a constant is its own mean"),
       (Expect(sp.log(p_xz / p_z_x), z_q), "Bayes: evidence = joint over posterior"),
       (Expect(sp.log(slipped_in), z_q), "multiply and divide by the guess"),
       (Expect(sp.log(p_xz / q_z), z_q) + Expect(sp.log(q_z / p_z_x), z_q), "logarithm of a product; mean of a sum"),
       given={p_xz: p_x * p_z_x}, source="VAE section 2.2")

# %% [markdown]
# In the last line the first expectation is the ELBO (4.6). The second is, letter by letter, the Kullback–Leibler divergence (1.36) from the guess to the posterior. Both run over $z\sim q$, with $x$ fixed. In short:
#
# $\displaystyle\underbrace{\log p(x)}_{\text{what we want}} \;=\; \underbrace{\mathrm{ELBO}(q)}_{\text{what we can compute}} \;+\; \underbrace{\mathrm{KL}\big(q(z)\,\|\,p(z\mid x)\big)}_{\text{the gap}}$
#
# Nothing is lost here; this is an equality. And since no KL is negative, the ELBO cannot exceed $\log p(x)$. That is Jensen's result again, now with a remainder. (Why is no KL negative? Put $u = p(z\mid x)/q(z)$ into (4.4) and average over $z\sim q$. On the left stands $\mathbb E_{z\sim q}[\log u]=-\mathrm{KL}$. On the right stands $\mathbb E_{z\sim q}[u]-1$, and $\mathbb E_{z\sim q}[u]=\int q(z)\frac{p(z\mid x)}{q(z)}dz=\int p(z\mid x)\,dz=1$. So $-\mathrm{KL}\le0$.) The proof does not say that the gap is small, nor how to find a $q$ that makes it small.
#
# Three things follow, and the rest of the course lives on them.
#
# 1. With the model held fixed, raising the ELBO over $q$ *lowers the gap*: the left side does not know $q$. The guess moves towards the posterior although nobody can compute the posterior.
# 2. With $q$ held fixed, raising the ELBO over the model either raises $\log p(x)$ or makes the posterior more like the guess.
# 3. The ELBO contains only $p(x,z)$ and $q(z)$. Both can be written down.
#
# Now count it out for the scribble. Four guesses, ten lines, no theory.

# %%
def elbo_of(q):  # xlogy knows that 0 log 0 = 0
    return float((q * joint.log() - torch.xlogy(q, q)).sum())


def gap_of(q):
    return float((torch.xlogy(q, q) - q * posterior.log()).sum())


even, sure = torch.full((3,), 1 / 3, dtype=torch.float64), torch.tensor([0, 1, 0], dtype=torch.float64)
guesses = {"the prior": prior, "one third each": even, "surely a 4": sure, "the posterior": posterior}
for name, q in guesses.items():
    assert abs(elbo_of(q) + gap_of(q) - log_p) < 1e-12
    print(f"{name:15s} ELBO {elbo_of(q):.2f} + gap {gap_of(q):.2f} = log p(x) = {log_p:.2f}")


# %%
def bars(ax, elbos, log_evidence, labels, floor):
    tops = [max(e, floor) for e in elbos]
    ax.bar(labels, [top - floor for top in tops], bottom=floor, color=BLUE, label="ELBO")
    ax.bar(labels, [log_evidence - top for top in tops], bottom=tops, color=ORANGE, label="gap = KL")
    ax.axhline(log_evidence, color="black", linewidth=1)
    ax.set(ylim=(floor, log_evidence + 0.1 * (log_evidence - floor)), ylabel="nats", title="log p(x) = ELBO + gap")
    ax.legend(loc="lower left", frameon=True)


bars(plt.subplots()[1], [elbo_of(q) for q in guesses.values()], log_p, list(guesses), -2.2)

# %% [markdown]
# This is the picture to remember. The black line is $\log p(x)$; it does not move. A better guess pushes the blue bar up against it, and the orange rest shrinks. "Surely a 4" names the likeliest cause and is still the worst of the four, since it denies the other two any share. (It even breaks the condition of (4.2), being 0 where the joint density is not. The identity (4.8) holds all the same, with $0\log0=0$.)
#
# ### The same bound, sorted differently
#
# For computing, one more form is useful. Split the joint density into decoder and prior:

# %% tags=["proof"]
derive("4.9", -Expect(sp.log(p_xz / q_z), z_q),
       (-Expect(sp.log(p_z * p_x_z / q_z), z_q), "joint = prior times decoder"),
       (Expect(sp.log(q_z / (p_z * p_x_z)), z_q), "turning a fraction flips the sign of its logarithm"),
       (Expect(sp.log(q_z / p_z), z_q) - Expect(sp.log(p_x_z), z_q), "logarithm of a product; mean of a sum"),
       given={p_xz: p_z * p_x_z}, source="VAE eq. 3, with the sign changed")

# %% [markdown]
# So $-\mathrm{ELBO}$, which is an *upper* bound on $-\log p(x)$ and the quantity that one minimises, has two parts:
#
# - the **prior term** $\mathrm{KL}(q(z)\,\|\,p(z))$: how far the guess strays from what one would have guessed without seeing $x$;
# - the **reconstruction** $-\mathbb E_{z\sim q}[\log p(x\mid z)]$: how badly $x$ is explained by causes drawn from the guess.
#
# Both expectations run over $z\sim q$ again. Take care not to mix up the two KLs of this chapter. The *gap* compares $q$ with the posterior and cannot be computed. The *prior term* compares $q$ with the prior, and it can.
#
# > **An image to keep.** A sender describes a picture in two letters. The first, $z$, is short and says roughly what it is. The receiver draws from it. The second letter lists the corrections, the *residual*. The prior term is the length of the first letter, the reconstruction the length of the second, and only their sum counts. *Where it breaks:* the letter $z$ is random on purpose. The sender draws it from $q$, and its cost is a KL divergence, which is not the length of any one message. And no bits are sent anywhere: it is a way of counting.

# %% [markdown]
# ## The KL divergence of two Gaussians
#
# From here on, all guesses and priors are Gaussian, and so are the posteriors that we can write down. So this one formula carries almost everything. Chapter 01 derived it with standard deviations (1.38). Here it is once more with *variances* $v$, the form that the rest of the course uses. Let $x\sim\mathcal N(m_1, v_1)$ and write $x = m_1 + \sqrt{v_1}\,\varepsilon$. The expectation then runs over a standard normal $\varepsilon$, and all that is needed is $\mathbb E[\varepsilon]=0$ and $\mathbb E[\varepsilon^2]=1$.
#
# The two log densities are to be subtracted. At the drawn point the first one has the square $(x-m_1)^2/2v_1=\varepsilon^2/2$, and the second one the square $(x-m_2)^2/2v_2$ with $x-m_2=m_1-m_2+\sqrt{v_1}\,\varepsilon$. You will find both on the left side.

# %% tags=["proof"]
def log_normal(at, mean, var):
    return -((at - mean) ** 2) / (2 * var) - sp.log(2 * sp.pi * var) / 2


m_1, m_2 = sp.symbols("m_1 m_2", real=True)
v_1, v_2 = sp.symbols("v_1 v_2", positive=True)
e = normal(r"\varepsilon")
sample = m_1 + sp.sqrt(v_1) * e
kl = sp.Mul(v_1 / v_2 - 1 - sp.log(v_1 / v_2) + (m_1 - m_2) ** 2 / v_2, sp.Rational(1, 2), evaluate=False)
price = (v_1 + (m_1 - m_2) ** 2) / (2 * v_2) - sp.Rational(1, 2) + sp.log(v_2 / v_1) / 2
derive("4.10", Expect(log_normal(sample, m_1, v_1) - log_normal(sample, m_2, v_2), e),
       (Expect((sample - m_2) ** 2 / (2 * v_2) - e**2 / 2, e) + sp.log(v_2 / v_1) / 2, "the logarithms are constants"),
       (price, "multiply out; the noise has mean 0 and variance 1"),
       (kl, "collect; turning the fraction flips the sign of its logarithm"), source="Ho section 3.2")
values = {m_1: 0.3, v_1: 0.7, m_2: -0.4, v_2: 1.9}
numbers = [torch.tensor(values[s], dtype=torch.float64) for s in (m_1, v_1, m_2, v_2)]
agrees(kl, values, normal_kl(*numbers))
agrees(log_normal(m_1, m_2, v_2), values, normal_log_prob(numbers[0], numbers[2], numbers[3]))

# %% [markdown]
# Read the last line. With $\rho = v_1/v_2$ the first three parts are $\frac12(\rho-1-\log\rho)$, the price of a wrong *variance*: by (4.4) never negative, and 0 only at $\rho=1$. The fourth is the price of a wrong *mean*, measured in units of the second variance. For vectors with independent entries the KLs add up (the logarithm of a product). The formula holds for Gaussians only. For mixtures no such formula exists.

# %%
shifts, stds = torch.linspace(-3, 3, 200).double(), torch.linspace(0.2, 3, 200).double()
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 2.9))
means = {f"both have std {s:g}": normal_kl(shifts, s**2, 0.0, s**2) for s in (0.7, 1.0, 2.0)}
curves(shifts, means, left, xlabel="difference of means", ylabel="nats", title="wrong mean: a parabola", ylim=(0, 6))
there, back = normal_kl(0 * stds, stds**2, 0.0, 1.0), normal_kl(0 * stds, 1.0, 0.0, stds**2)
spread = {"KL(N(0, std²) ‖ N(0, 1))": there, "KL(N(0, 1) ‖ N(0, std²))": back}
curves(stds, spread, right, xlabel="std", title="wrong variance: not symmetric", ylim=(0, 6))
plt.show()

# %% [markdown]
# On the right the two directions differ. A second Gaussian that is too *narrow* is punished hard (left end of the orange curve): it calls impossible what the first one often draws. In the bound, the guess $q$ stands first and the prior second.
#
# ## A continuous model in which everything is known
#
# Before we trust a network, one example where the exact answer exists. One latent number, one visible number, all linear, all Gaussian:
#
# $$ p(z)=\mathcal N(0,1),\qquad p(x\mid z)=\mathcal N(wz,\ s^2). $$
#
# The decoder multiplies by $w$ and adds noise of standard deviation $s$. Then $x = wz + s\,\varepsilon$ is a sum of independent Gaussians, so the evidence is $p(x)=\mathcal N(0,\,w^2+s^2)$. For the posterior, remember that precisions add (a precision is 1 over a variance; chapters 01 and 03). The prior has precision 1. The decoder, read as a function of $z$, is a bell around $x/w$ of variance $s^2/w^2$, so its precision is $w^2/s^2$. The sum is $(w^2+s^2)/s^2$: the posterior has variance $\frac{s^2}{w^2+s^2}$. Its mean is the average of the two centres, 0 and $x/w$, weighted by their precisions: $\frac{x}{w}\cdot\frac{w^2}{s^2}\cdot\frac{s^2}{w^2+s^2}=\frac{wx}{w^2+s^2}$.
#
# If both claims are right, prior × decoder equals evidence × posterior, for every $x$ and $z$, since both are the joint density. In logarithms, SymPy agrees:

# %% tags=["proof"]
x, z_sym, m_q = sp.symbols("x z m", real=True)
w_sym, s_sym, v_q = sp.symbols("w s v", positive=True)
total = w_sym**2 + s_sym**2
post_mean, post_var = w_sym * x / total, s_sym**2 / total
equation("4.11", log_normal(z_sym, 0, 1) + log_normal(x, w_sym * z_sym, s_sym**2),
         log_normal(x, 0, total) + log_normal(z_sym, post_mean, post_var))

# %% [markdown]
# Now let the guess be any Gaussian, $q(z)=\mathcal N(m, v)$, not only the best one. Its ELBO is an expectation over $z = m+\sqrt v\,\varepsilon$ of a polynomial in $\varepsilon$, so it can be integrated exactly. In the reconstruction stands $x-wz=(x-wm)-w\sqrt v\,\varepsilon$. Its square has the mean $(x-wm)^2+w^2v$: the mixed term has mean 0, and $\varepsilon^2$ has mean 1.

# %% tags=["proof"]
z_guess = m_q + sp.sqrt(v_q) * e
prior_term = (v_q - 1 - sp.log(v_q) + m_q**2) / 2
reconstruction = ((x - w_sym * m_q) ** 2 + w_sym**2 * v_q) / (2 * s_sym**2) + sp.log(2 * sp.pi * s_sym**2) / 2
inside = log_normal(z_guess, m_q, v_q) - log_normal(z_guess, 0, 1) - log_normal(x, w_sym * z_guess, s_sym**2)
equation("4.12", Expect(inside, e), prior_term + reconstruction)

# %% [markdown]
# The right side is $-\mathrm{ELBO}$. The parts without $w$, $s$ and $x$, together $\frac12(m^2+v-\log v-1)$, are the prior term: (4.10) against $\mathcal N(0,1)$. The rest is the reconstruction. In it, look at $w^2 v$: a wide guess costs something here, because the decoder carries its spread over to $x$. Finally the identity of this chapter, $-\log p(x) = -\mathrm{ELBO} - \mathrm{gap}$, with all three parts in closed form. It must hold for every $m$, $v$, $w$, $s$ and $x$:

# %% tags=["proof"]
gap = kl.subs({m_1: m_q, v_1: v_q, m_2: post_mean, v_2: post_var}, simultaneous=True)
equation("4.13", prior_term + reconstruction - gap, -log_normal(x, 0, total))

# %% [markdown]
# Nothing was assumed about the guess except that it is Gaussian. What the proof does not cover: a decoder that is not linear. Then neither the evidence nor the posterior has a closed form, and only (4.8) remains, which holds anyway.
#
# In the pictures below $w = 1.2$, $s=0.6$, and we have seen $x=1.5$. Above, the guess $q$ (blue) and the posterior (black). Below, the bars.

# %%
W, S, X = 1.2, 0.6, torch.tensor(1.5, dtype=torch.float64)
log_px = float(normal_log_prob(X, 0.0, W**2 + S**2))
post = (float(W * X / (W**2 + S**2)), S**2 / (W**2 + S**2))  # mean and variance


def gaussian_elbo(mean, std):
    prior_part = float(normal_kl(torch.tensor(mean).double(), std**2, 0.0, 1.0))
    return -prior_part - ((float(X) - W * mean) ** 2 + W**2 * std**2) / (2 * S**2) - 0.5 * math.log(2 * math.pi * S**2)


def two_bells(ax, mean, std):
    grid = torch.linspace(-2, 3, 300, dtype=torch.float64)
    ax.fill_between(grid, normal_log_prob(grid, mean, std**2).exp(), color=BLUE, alpha=0.4, label="q")
    ax.plot(grid, normal_log_prob(grid, *post).exp(), color="black", label="posterior")
    ax.set(xlabel="z", yticks=[], ylim=(0, 1.8), title=f"mean {mean:.2f}, std {std:.2f}")
    ax.legend(loc="upper left")


fig, axes = plt.subplots(2, 4, figsize=(10, 4.6))
tries = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.25), (post[0], post[1] ** 0.5))
for (top, bottom), (mean, std) in zip(axes.T, tries, strict=True):
    two_bells(top, mean, std)
    bars(bottom, [gaussian_elbo(mean, std)], log_px, [""], -7.0)

# %% [markdown]
# From left to right: the prior as a guess, a better mean, a better spread, the posterior itself. In the last panel the orange part is gone: the bound is *tight*. Try to beat it by hand. You will not.

# %%
def draw_gap(mean, std):
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=[2, 1])
    two_bells(left, mean, std)
    bars(right, [gaussian_elbo(mean, std)], log_px, [f"gap {log_px - gaussian_elbo(mean, std):.3f}"], -8.0)


explore(draw_gap, mean=slider(-1.0, 2.5, 0.2, 0.05, "mean of q"), std=slider(0.1, 1.5, 0.9, 0.05, "std of q"))

# %% [markdown]
# ## Reparameterisation: a gradient through a die
#
# To climb the ELBO we need its slope in the guess's parameters $m$ and $s_q=\sqrt v$. But these sit in the *law* from which $z$ is drawn. A computer draws $z$ as a plain number, and a plain number has no slope. The way out is known from chapter 01. Draw $\varepsilon\sim\mathcal N(0,1)$, whose law has no parameters. Then *compute* $z = m + s_q\,\varepsilon$. Now $z$ depends on $m$ and $s_q$ like any other formula, and the slope can go inside the expectation, which runs over $\varepsilon$.

# %%
def slopes(make_z):
    mean, std = torch.tensor(0.3, requires_grad=True), torch.tensor(0.8, requires_grad=True)
    (make_z(mean.expand(100_000), std.expand(100_000)) ** 2).mean().backward()
    return f"slope in the mean {abs(float(mean.grad)):.1f}, in the std {abs(float(std.grad)):.1f}"


noise = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
rng = torch.Generator().manual_seed(1)
print("z drawn from its law:", slopes(lambda mean, std: torch.normal(mean, std, generator=rng)))
print("z computed from eps: ", slopes(lambda mean, std: mean + std * noise))

# %% [markdown]
# Here the function to be averaged was $z^2$ with $m=0.3$ and $s_q=0.8$. Its mean is $m^2+s_q^2$, so the true slopes are $2m = 0.6$ and $2s_q=1.6$. The first line says 0 for both: to PyTorch a drawn number is a constant. The second line is right.
#
# Now the same for the ELBO. We estimate it with 100,000 values of $\varepsilon$ and the package's own log-densities, and compare with the closed form (4.12). As a wrong variant we offer the formula with the variance in the place of the standard deviation, as if $z = m + v\,\varepsilon$ had been drawn.

# %% tags=["proof"]
m_now, v_now, e_many = 0.3, 0.64, noise.double()
z_now = m_now + v_now**0.5 * e_many
log_joint = normal_log_prob(z_now, 0.0, 1.0) + normal_log_prob(X, W * z_now, S**2)
draws = {q_z: normal_log_prob(z_now, m_now, v_now).exp(), p_xz: log_joint.exp()}  # two densities at 100,000 places
at = {m_q: m_now, v_q: v_now, w_sym: W, s_sym: S, x: float(X)}
slip = sp.Symbol("variance in the place of the standard deviation")
at[slip] = number(Expect(inside.subs(z_guess, m_q + v_q * e), e), at)
expectation("4.14", Expect(sp.log(q_z / p_xz), z_q), prior_term + reconstruction, draws=draws, values=at, wrong=slip)

# %% [markdown]
# With slopes we can climb. Start from a bad guess, take 400 small steps uphill on the ELBO, with 64 fresh $\varepsilon$ at each. The coloured map is the gap; it is 0 at one place, the posterior. The climber sees neither the map nor the posterior. It only evaluates $p(x,z)$ and $q(z)$ at random $z$.

# %%
guess = torch.tensor([-0.5, math.log(1.2)], dtype=torch.float64, requires_grad=True)  # mean and log std
climber, rng, path = torch.optim.Adam([guess], lr=0.03), torch.Generator().manual_seed(2), []
for _ in range(400):
    mean, std = guess[0], guess[1].exp()
    z = mean + std * torch.randn(64, generator=rng, dtype=torch.float64)
    log_joint = normal_log_prob(z, 0.0, 1.0) + normal_log_prob(X, W * z, S**2)
    loss = (normal_log_prob(z, mean, std**2) - log_joint).mean()  # one estimate of -ELBO
    path.append((mean.item(), std.item()))
    climber.zero_grad()
    loss.backward()
    climber.step()
assert abs(path[-1][0] - post[0]) < 0.1 and abs(path[-1][1] - post[1] ** 0.5) < 0.1
print("the climber stops within 0.1 of the posterior's mean and std: True")

# %%
grid_m, grid_s = torch.meshgrid(torch.linspace(-1, 2.5, 80), torch.linspace(0.1, 1.5, 80), indexing="xy")
height = normal_kl(grid_m, grid_s**2, *post)
fig, ax = plt.subplots(figsize=(6.5, 3.4))
picture = ax.contourf(grid_m, grid_s, height, levels=[0, 0.05, 0.2, 0.5, 1, 2, 4, 8, 16, 40], cmap="Blues")
ax.plot(*zip(*path, strict=True), color=RED, label="400 steps uphill on the ELBO")
ax.plot(post[0], post[1] ** 0.5, "k*", markersize=12, label="the posterior")
ax.set(xlabel="mean of q", ylabel="std of q", title="the gap KL(q ‖ posterior), in nats")
ax.legend(loc="upper right", frameon=True)
fig.colorbar(picture, ax=ax)
plt.show()

# %% [markdown]
# ## A guess for every picture: the VAE
#
# For one $x$ we climbed 400 steps. For a data set one would have to climb for each picture, and again whenever the model changes. The **variational autoencoder** has a network do it: the *encoder* takes $x$ and answers with mean and variance of the guess, now written $q(z\mid x)$. A second network, the *decoder*, takes $z$ and answers with the mean of $p(x\mid z)$. The decoder's variance is a fixed number, for us 0.05. Both networks climb the same ELBO, together:
#
# $\displaystyle -\mathrm{ELBO}(x) = \underbrace{\mathrm{KL}\big(q(z\mid x)\,\|\,\mathcal N(0,I)\big)}_{\text{prior}} \;+\; \underbrace{\mathbb E_{z\sim q(z\mid x)}\big[-\log \mathcal N(x;\,\mathrm{decode}(z),\,0.05\,I)\big]}_{\text{reconstruction}}$
#
# In both terms $z$ is the only thing that is averaged over; $x$ is one given picture. Training averages over the pictures of the training set as well.
#
# The encoder puts out the *logarithm* of the variance, so that the variance is positive whatever the network says. One $\varepsilon$ for each picture is enough: the estimate is noisy, but right on average, and the next batch averages on.
#
# The package computes these terms in `vae_terms`, which answers with the same three-part object as chapter 05's bound: prior, *matching*, reconstruction. The middle part is empty for a VAE. First by hand, ten lines; then the comparison.

# %%
def my_terms(vae, x_0, eps, variance):
    mean, var = vae.encode(x_0)
    z = mean + var.sqrt() * eps  # the standard deviation, not the variance
    prior = 0.5 * (mean**2 + var - 1 - var.log()).sum(1)  # (4.10) against N(0, 1), for each latent number
    miss = (x_0 - vae.decode(z)).flatten(1)
    reconstruction = (miss**2 / (2 * variance) + 0.5 * math.log(2 * math.pi * variance)).sum(1)
    return prior, reconstruction


# %%
def new_vae(seed, latent_dim=16, **size):
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the initial weights
        return VAE(event=(1, 8, 8), latent_dim=latent_dim, **size)


vae, some = new_vae(0).double(), val.images[:20].double()
e_20 = torch.randn(20, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
terms = vae_terms(vae, some, e_20, variance=0.05)
torch.testing.assert_close(my_terms(vae, some, e_20, 0.05), (terms.prior, terms.reconstruction), rtol=0, atol=1e-10)
torch.testing.assert_close(terms.total(), sum(my_terms(vae, some, e_20, 0.05)), rtol=0, atol=1e-10)
print("by hand = package: True;  matching terms of a VAE:", terms.matching.shape[1])

# %% [markdown]
# ### Training on real digits
#
# 1,438 digits of 8×8 pixels, values in $[-1,1]$, sixteen latent numbers, 1,200 steps. A few seconds on an idle machine. After every fifty steps we also look at the 179 validation digits, which the network never trains on.

# %%
def bound_on(vae, images, variance, seed=4):
    eps = torch.randn(len(images), vae.latent_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return vae_terms(vae, images, eps, variance)


def train_vae(vae, variance, steps, seed=5, batch=128):
    optimizer, rng, history = torch.optim.Adam(vae.parameters(), lr=2e-3), torch.Generator().manual_seed(seed), []
    for step in range(1, steps + 1):
        x_0 = train.images[torch.randint(len(train.images), (batch,), generator=rng)]
        loss = vae_terms(vae, x_0, torch.randn(batch, vae.latent_dim, generator=rng), variance).total().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            terms = bound_on(vae, val.images, variance)
            history.append((step, loss.item(), float(terms.prior.mean()), float(terms.reconstruction.mean())))
    return torch.tensor(history).T


vae = new_vae(0)
step, loss, val_prior, val_reconstruction = train_vae(vae, variance=0.05, steps=1200)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3))
both = {"training batch": loss, "validation": val_prior + val_reconstruction}
curves(step, both, left, xlabel="step", ylabel="nats per picture", title="the bound: −ELBO", ylim=(-15, 60))
parts = {"prior": val_prior, "reconstruction": val_reconstruction}
curves(step, parts, right, xlabel="step", title="its two terms, validation", ylim=(-30, 60))
plt.show()

# %% [markdown]
# Three things to read. The two terms pull against each other: to reconstruct better, the encoder must say more about $x$, so the prior term *rises* while the reconstruction falls. The training curve runs ahead of the validation curve: the networks begin to know their training digits by heart. And the reconstruction goes **below zero**. This is no bug. The decoder gives a *density*, and with variance 0.05 a density is larger than 1 near its centre (more below, M34).
#
# How good is such a number? A yardstick: fit one 64-dimensional Gaussian to the training digits (their mean and covariance) and add the same noise of variance 0.05. It needs no training, and its exact $-\log p(x)$ is known. The *bound* of the VAE must undercut that *exact* value to be worth anything.

# %%
flat = train.images.flatten(1).double()
gaussian = ExactGaussian(train.images.double().mean(0), flat.T.cov() + 0.05 * torch.eye(64, dtype=torch.float64))
yardstick = float(-gaussian.log_prob(val.images).mean())
vae_bound = float(bound_on(vae, val.images, 0.05).total().mean())
assert vae_bound < yardstick - 3
print(f"one Gaussian, exact -log p on validation digits: {yardstick:.1f} nats")
print("the VAE's bound is at least 3 nats lower: True")

# %% [markdown]
# ### What it can do
#
# *Reconstruct:* encode a validation digit, decode the mean of the guess. *Generate:* draw $z\sim\mathcal N(0,I)$ and decode; no picture goes in. *Interpolate:* walk in a straight line from one digit's $z$ to another's, and decode on the way.

# %%
with torch.no_grad():
    rebuilt = vae.decode(vae.encode(val.images[:14])[0])
    drawn = vae.decode(torch.randn(14, 16, generator=torch.Generator().manual_seed(6)))
show_rows({"validation digit": val.images[:14], "its reconstruction": rebuilt, "z ~ N(0, I), decoded": drawn})
plt.show()

# %%
def walks(first, second):
    share = torch.linspace(0, 1, 14)[:, None]
    with torch.no_grad():
        start, end = vae.encode(torch.stack([first, second]))[0]
        return vae.decode(torch.lerp(start, end, share)), torch.lerp(first, second, share[..., None, None])


fours, sevens = val.images[val.labels == 4], val.images[val.labels == 7]
walk_7, mix_7 = walks(sevens[2], sevens[12])
walk_4, mix_4 = walks(fours[8], fours[13])
pictures = {"7: walk in z": walk_7, "pixel mix": mix_7, "4: walk in z": walk_4, "pixel mix ": mix_4}
show_rows(pictures | {"4 to 8, in z": walks(*val.images[:2])[0]})
plt.show()

# %% [markdown]
# The reconstructions are close. The generated ones are digit-like; some are soft, or stand between two digits. That is the familiar weakness of a small VAE, which gives a little density to the space between. Now the walks. Between two sevens, or two fours, the strokes *move*: every picture on the way is a plausible digit. The pixel mix below it shows both at once, like a double exposure. The last row goes all the way from a 4 to an 8, and there the middle turns grey too: a straight line in $z$ may lead through regions that no training digit was ever sent to. Chapter 14 will measure samples; here we only look.
#
# ### How loose is the bound? Ask with more draws
#
# The gap cannot be computed. But it can be estimated. Draw $z_1,\dots,z_K\sim q(z\mid x)$ independently, and average the weight $R=p(x,z)/q(z\mid x)$ over them *before* taking the logarithm: $\log\frac1K\sum_k R(z_k)$. At $K=1$ the mean of this over $z_1$ is the ELBO. For every $K$ the average in the logarithm has the mean $p(x)$, by (4.2). So by Jensen the mean over $z_1,\dots,z_K$ stays below $\log p(x)$. As $K$ grows, the average settles on $p(x)$, and the estimate comes closer to $\log p(x)$. (That it rises at *every* step of $K$ is only measured here.)

# %%
@torch.no_grad()
def log_weights(vae, x_0, K, variance, seed=7):  # (K, B)
    mean, var = vae.encode(x_0)
    z = mean + var.sqrt() * torch.randn(K, *mean.shape, generator=torch.Generator().manual_seed(seed))
    recon = vae.decode(z.flatten(0, 1)).reshape(K, *x_0.shape)
    log_decoder = normal_log_prob(x_0.expand_as(recon), recon, variance).flatten(2).sum(-1)
    return normal_log_prob(z, 0.0, 1.0).sum(-1) + log_decoder - normal_log_prob(z, mean, var).sum(-1)


# %%
log_w, counts = log_weights(vae, val.images, 512, 0.05), (1, 2, 8, 32, 128, 512)
groups = [log_w.reshape(-1, K, len(val.images)) for K in counts]  # 512/K groups of K weights
better = [float((group.logsumexp(1) - math.log(group.shape[1])).mean()) for group in groups]
assert all(a < b for a, b in zip(better, better[1:], strict=False))
print("each larger K gives a higher bound on log p(x): True")

# %%
ax = curves(counts, {"log of a mean of K weights": better}, xscale="log", xlabel="K, number of draws",
            ylabel="nats per picture", title="lower bounds on log p(x), validation digits")
ax.axhline(-yardstick, color=GREY, linestyle="--", linewidth=1)
ax.annotate("one Gaussian, exact", (1.0, -yardstick + 0.3), color=GREY)
plt.show()

# %% [markdown]
# The left end is the ELBO. The rise from there to the right end is an estimate, from below, of the average gap: a few nats per picture of 64 pixels. The curve still climbs a little at $K=512$, so the gap is somewhat larger than that.
#
# ### What a loose bound says, and what it does not
#
# A lower bound that is high is a guarantee: $\log p(x)$ is at least that. A lower bound that is *low* is no verdict: the model may be bad, or the guess may be. So two models must not be ranked by their bounds if the bounds differ by less than the gaps. Here is a pair of linear models in which the ranking by ELBO is the wrong one. Model B is truly better at $x=2$, but its guess was left at the prior.

# %%
x_2 = torch.tensor(2.0, dtype=torch.float64)
for name, slope, tight in (("A", 1.0, True), ("B", 2.0, False)):
    exact = float(normal_log_prob(x_2, 0.0, slope**2 + 0.25))
    best = (2 * slope / (slope**2 + 0.25), 0.25 / (slope**2 + 0.25))
    lost = 0.0 if tight else float(normal_kl(torch.zeros(1).double(), 1.0, *best))
    print(f"model {name}: log p(x) = {exact:6.2f}, gap = {lost:5.2f}, ELBO = {exact - lost:6.2f}")

# %% [markdown]
# ## One latent, the size of the picture: the DDPM with T = 1
#
# Now the bridge to diffusion. Take a chain with a single step, $T=1$. The forward process makes $x_1=\sqrt{\bar\alpha_1}\,x_0+\sqrt{1-\bar\alpha_1}\,\varepsilon$. Call $x_1$ the latent: $z = x_1$. Compare, part by part:
#
# | | VAE | DDPM with $T=1$ |
# |---|---|---|
# | latent | $z$, sixteen numbers | $x_1$, as large as the picture |
# | encoder | a network, trained | $q(x_1\mid x_0)=\mathcal N(\sqrt{\bar\alpha_1}x_0,(1-\bar\alpha_1)I)$, **fixed** |
# | prior | $\mathcal N(0,I)$ | $\mathcal N(0,I)$ |
# | decoder | $\mathcal N(x;\,\mathrm{decode}(z),\,0.05)$ | $\mathcal N(x_0;\,\mu_\theta(x_1,1),\,\beta_1)$ |
#
# ($\mu_\theta(x_1,1)$ is the DDPM's name for what the decoder makes of $x_1$. Its variance is chosen, here as $\beta_1=1-\bar\alpha_1$; chapter 05 discusses the choice.) Nothing else differs. So their bounds must be *the same number* if we build a "VAE" whose encoder is frozen to $q(x_1\mid x_0)$. The package has one home for the prior and one for the reconstruction, and both kinds of model use them: `vae_terms` asks an encoder for the law of the latent, `vlb_terms` takes it from the schedule. To test this we need some denoiser; the oracle of our Gaussian digits will do, and a linear map with random weights too. (`eps_model` predicts the noise in $x_1$. The decoder then subtracts it: $\hat x_0=(x_1-\sqrt{1-\bar\alpha_1}\,\hat\varepsilon)/\sqrt{\bar\alpha_1}$, which is the mean $\mu_\theta$ at $t=1$. Chapters 05 and 06 explain this in full.)

# %%
class FrozenVAE(torch.nn.Module):
    def __init__(self, eps_model, alpha_bar):
        super().__init__()
        self.eps_model, self.alpha_bar = eps_model, alpha_bar

    def encode(self, x_0):
        return self.alpha_bar**0.5 * x_0, torch.full_like(x_0, 1 - self.alpha_bar)

    def decode(self, x_1):
        eps_hat = self.eps_model(x_1, torch.ones(len(x_1), dtype=torch.long))
        return (x_1 - (1 - self.alpha_bar) ** 0.5 * eps_hat) / self.alpha_bar**0.5


# %%
one_step = NoiseSchedule([0.6])  # T = 1, alpha_bar_1 = 0.4
matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(8), dtype=torch.float64) / 8
linear = lambda x_1, t: (x_1.flatten(1) @ matrix).reshape(x_1.shape)  # noqa: E731
denoisers = {"oracle": gaussian.eps_model(one_step), "random linear map": linear}
e_img = torch.randn(some.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
for name, eps_model in denoisers.items():
    ddpm = vlb_terms(eps_model, one_step, some, variance="beta", eps=e_img)
    frozen = vae_terms(FrozenVAE(eps_model, 0.4), some, e_img, variance=0.6)
    for a, b in zip(ddpm, frozen, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    torch.testing.assert_close(ddpm.total(), frozen.total(), rtol=0, atol=1e-10)
    print(f"{name}: all three terms of the T = 1 DDPM are those of the frozen VAE: True")

# %% [markdown]
# So a DDPM with one step *is* a VAE with three restrictions: the latent has the size of the picture, the encoder has no parameters, and the decoder's variance is tied to the noise. The second restriction is severe. The frozen encoder does not know what matters in a digit; it blurs all pixels alike. The next figure shows what this costs. Left: $T=1$, for every choice of $\bar\alpha_1$. Right: more steps, ending at the same $\bar\alpha_T=0.001$, with the oracle of the Gaussian digits as the denoiser.

# %%
images, shares = val.images.double(), (0.003, 0.03, 0.1, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96, 0.99)
steps = (1, 2, 5, 20, 100, 1000)


def oracle_bound(chain):
    rng = torch.Generator().manual_seed(10)
    terms = vlb_terms(gaussian.eps_model(chain), chain, images, generator=rng)
    return [float(part.mean()) for part in (terms.prior, terms.reconstruction, terms.total())]


single = list(zip(*(oracle_bound(NoiseSchedule([1 - share])) for share in shares), strict=True))
totals = [oracle_bound(NoiseSchedule([1 - 0.001 ** (1 / T)] * T))[2] for T in steps]  # equal betas

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.8, 3.3))
curves(shares, dict(zip(("prior", "reconstruction", "bound"), single, strict=True)), left, xlabel=r"$\bar\alpha_1$",
       title="T = 1, frozen encoder", ylabel="nats per picture", ylim=(-60, 140))
curves(steps, {"bound of the T-step chain": totals}, right, xscale="log", xlabel="T", ylim=(0, 75),
       title=r"more steps, same $\bar\alpha_T$")
right.axhline(yardstick, color=GREY, linestyle="--", linewidth=1)
right.annotate("exact −log p of the same Gaussian", (1, yardstick + 1.5), color=GREY)
right.axhline(vae_bound, color=ORANGE, linewidth=1)
right.annotate("bound of the trained VAE, T = 1", (1, vae_bound - 5), color=ORANGE)
assert totals[0] > 60 and sorted(totals, reverse=True) == totals and yardstick < totals[-1] < yardstick + 5

# %% [markdown]
# Left: with one frozen step the bound stays near 64 nats or above, whatever the share of signal. Keep much of the picture in $x_1$ and the prior term explodes; keep little and the reconstruction has nothing to work with. Right: the more steps, the lower the bound. It creeps towards the dashed line, which is the exact $-\log p$ of the Gaussian that the oracle belongs to. (The chain is a slightly different model for every finite $T$; that its bound stays above the line is seen here, not proved.) The trained VAE (orange) manages with *one* latent because its encoder is free to choose what to say; it is also another model, and a better one than a Gaussian.
#
# Two ways, then, to make the bound good. **Learn the encoder**, and keep one latent: the VAE. Or **keep the encoder fixed and take many small steps**: the DDPM. Why small steps make the bound tight is the subject of chapter 05.
#
# > **An image to keep.** Encoder and decoder, in diffusion: the forward process is an encoder that nobody trains; it writes the picture down ever more illegibly. The reverse process is a decoder that restores a little at a time. Each step has only a small *residual* to predict. *Where it breaks:* the word "encoder" suggests that something is summarised. Nothing is: the latent has as many numbers as the picture, and in the end it holds nothing of it. And one pass of the U-Net, which has an encoder half and a decoder half of its own (chapter 07), is one step of the decoder side only.

# %% [markdown]
# ## Common mistakes
#
# ### The variance where the standard deviation belongs (M6)
#
# `z = mean + var * eps`. It runs, it trains, the losses look plausible. The number that exposes it: the "bound" ends up *above* the exact $\log p(x)$, which no lower bound can. In the linear model the best guess makes the bound tight, so there is no room to hide.

# %%
def sampled_elbo(z):  # the reconstruction is sampled, the prior term is exact
    return float(normal_log_prob(X, W * z, S**2).mean() - normal_kl(torch.tensor(post[0]).double(), post[1], 0.0, 1.0))


wrong = sampled_elbo(post[0] + post[1] * e_many)  # the mistake: var * eps
right = sampled_elbo(post[0] + post[1] ** 0.5 * e_many)
print(f"log p(x) = {log_px:.2f};  ELBO with the right z = {right:.2f};  with var * eps = {wrong:.2f}, above log p(x)")
assert abs(right - log_px) < 0.02 and wrong > log_px + 0.1

# %% [markdown]
# ### "A negative reconstruction is a bug, a probability cannot exceed 1" (M34)
#
# A probability cannot. A *density* can: it is probability per unit of length, and only its integral must be 1. A Gaussian of variance 0.001 is 12.6 high. Whoever "repairs" this by clamping the log-density at 0 cuts off exactly the pictures that the model explains best.

# %%
grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
heights = normal_log_prob(grid, 0.0, 0.001).exp()
integral, clamped = float(torch.trapezoid(heights, grid)), float(torch.trapezoid(heights.clamp(max=1), grid))
print(f"highest density {float(heights.max()):.1f}; integral {integral:.2f}; clamped at 1: {clamped:.2f}")
assert abs(integral - 1) < 1e-6 and clamped < 0.5
assert float(bound_on(vae, val.images, 0.05).reconstruction.mean()) < 0  # and rightly so

# %% [markdown]
# ### "The loss compares generated pictures with real ones" (M37)
#
# It compares a picture with what the decoder makes of *that picture's own* $z$. Generated pictures, decoded from $z\sim\mathcal N(0,I)$, do not occur in the loss at all. They could not: which real picture should a generated one be compared with? Even a perfect generator would score badly, because two different real digits are far apart too.

# %%
with torch.no_grad():
    generated = vae.decode(torch.randn(len(val.images), 16, generator=torch.Generator().manual_seed(12)))
    own = vae.decode(vae.encode(val.images)[0])
wrong_loss = float(((generated - val.images) ** 2).mean())  # the mistake
two_real = float(((val.images.roll(1, 0) - val.images) ** 2).mean())
right_loss = float(((own - val.images) ** 2).mean())
assert right_loss < 0.1 and 0.6 < wrong_loss / two_real < 1.4
print("squared error per pixel: a digit against its own reconstruction is below 0.1: True")
print("generated against real is about as far as one real digit from another: True")

# %% [markdown]
# ### Posterior collapse
#
# Not wrong code, but a wrong trade. With a large decoder variance the reconstruction hardly profits from $z$, while the prior term charges for every nat. Then the cheapest solution is $q(z\mid x)=\mathcal N(0,I)$ for all $x$: the latent says nothing, and the decoder paints the average digit. The number that exposes it is the prior term *of each latent* on validation data.

# %%
dull = new_vae(1)
train_vae(dull, variance=2.0, steps=250)
with torch.no_grad():
    use = [normal_kl(*each.encode(val.images), 0.0, 1.0).mean(0) for each in (vae, dull)]
fig, axes = plt.subplots(1, 2, figsize=(9, 2.5), sharey=True)
for ax, variance, nats in zip(axes, (0.05, 2), use, strict=True):
    ax.bar(range(1, 17), nats.sort(descending=True).values, color=BLUE)
    ax.set(title=f"decoder variance {variance}", xlabel="latents, sorted", ylabel="prior term in nats")
assert int((use[0] > 0.1).sum()) >= 8 and int((use[1] > 0.1).sum()) <= 4

# %% [markdown]
# Left: the healthy VAE uses most of its latents and leaves a few idle, which is fine. Right: all bars are next to nothing. Samples of such a model all look alike. A diffusion model cannot collapse in this way, because its encoder has no parameters that could give up.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/04_one_latent_student.ipynb), [with solutions](exercises/04_one_latent_solution.ipynb).

# %% [markdown]
# **4.1 ★** The scribble again: $p(x,z)=(0.05,\,0.18,\,0.06)$. Somebody guesses $q=(\frac12,\frac12,0)$. How large is the gap, in nats?

# %% [markdown] tags=["hint"]
# **Hint 4.1**
#
# Two ways: $\log p(x)$ minus the ELBO of the guess, or the KL divergence from the guess to the posterior. Do both; they must agree.

# %% tags=["exercise"]
gap_nats = ...
check("4.1", gap_nats)

# %% tags=["solution"]
bound = 0.5 * math.log(0.05 / 0.5) + 0.5 * math.log(0.18 / 0.5)  # z = 3 is never drawn
gap_nats = math.log(0.05 + 0.18 + 0.06) - bound
must_pass("4.1", gap_nats)

# %% [markdown]
# **4.2 ★★** Write the prior term of one latent: the KL divergence from $\mathcal N(\text{mean},\text{var})$ to $\mathcal N(0,1)$, in nats, for plain numbers. Check in your head: it must be 0 for mean 0 and variance 1.

# %% [markdown] tags=["hint"]
# **Hint 4.2**
#
# The KL divergence of two Gaussians, with a second Gaussian of mean 0 and variance 1.

# %% tags=["exercise"]
def latent_kl(mean, var):
    return ...


check("4.2", latent_kl)


# %% tags=["solution"]
def latent_kl(mean, var):
    return 0.5 * (var - 1 - math.log(var) + mean**2)


must_pass("4.2", latent_kl)

# %% [markdown]
# **4.3 ★★** Take the linear model with $w=s=1$ and the laziest guess there is, the prior $q=\mathcal N(0,1)$. Give the gap as a function of $x$. (What is the posterior? Which of the two comes first in the KL?)

# %% [markdown] tags=["hint"]
# **Hint 4.3**
#
# Multiply prior and likelihood: two witnesses about $z$, the prior (mean 0, precision 1) and the picture (mean $x$, precision 1).

# %% tags=["exercise"]
def lazy_gap(x):
    return ...


check("4.3", lazy_gap)


# %% tags=["solution"]
def lazy_gap(x):
    return 0.5 * (1 / 0.5 - 1 - math.log(1 / 0.5) + (0 - x / 2) ** 2 / 0.5)  # KL(N(0, 1) || N(x/2, 1/2))


must_pass("4.3", lazy_gap)

# %% [markdown]
# **4.4 ★★★** The DDPM with $T=1$. Give the prior term $\mathrm{KL}(q(x_1\mid x_0)\,\|\,\mathcal N(0,1))$ of one pixel as a function of $x_0$ and $\beta_1$. For which $\beta_1$ is it smallest, and why do we not simply choose that one?

# %% [markdown] tags=["hint"]
# **Hint 4.4**
#
# $q(x_1\mid x_0)$ has mean $\sqrt{1-\beta_1}\,x_0$ and variance $\beta_1$. The rest is exercise 4.2.

# %% tags=["exercise"]
def one_step_prior(x_0, beta_1):
    return ...


check("4.4", one_step_prior)


# %% tags=["solution"]
def one_step_prior(x_0, beta_1):
    return 0.5 * (beta_1 - 1 - math.log(beta_1) + (1 - beta_1) * x_0**2)  # the mean enters squared


must_pass("4.4", one_step_prior)

# %% [markdown] tags=["solution"]
# (It falls to 0 as $\beta_1\to1$. But then $x_1$ is pure noise and the decoder must guess the picture from nothing: the left end of the left figure above.)

# %% [markdown]
# **4.5 ★** Somebody tells you that the ELBO of a guess is $-3.2$ nats, and that its KL divergence to the posterior is $0.7$ nats. What is $\log p(x)$?

# %% [markdown] tags=["hint"]
# **Hint 4.5**
#
# A bar of length $\log p(x)$, cut into bound and gap.

# %% tags=["exercise"]
log_evidence = ...
check("4.5", log_evidence)

# %% tags=["solution"]
log_evidence = -3.2 + 0.7  # the bound lies below, by the gap
must_pass("4.5", log_evidence)

# %% [markdown]
# **4.6 ★★** More draws. The joint is $p(x,z)=(0.05,\,0.18,\,0.06)$, the guess $q=(\frac12,\frac12,0)$. Draw *two* independent $z$ from $q$, average their weights $R(z)=p(x,z)/q(z)$, and take the logarithm. What is its exact mean? (It must lie between the ELBO and the logarithm of the mean weight. Is that 0.29 here? The guess never draws the third cause.)

# %% [markdown] tags=["hint"]
# **Hint 4.6**
#
# The weights are 0.1 and 0.36. There are four equally likely pairs.

# %% tags=["exercise"]
two_draws = ...
check("4.6", two_draws)

# %% tags=["solution"]
two_draws = sum(math.log((a + b) / 2) for a in (0.1, 0.36) for b in (0.1, 0.36)) / 4
must_pass("4.6", two_draws)

# %% [markdown]
# **4.7 ★★★** Two estimators of one slope. We want $\frac{\partial}{\partial m}\mathbb E[z^2]$ for $z=m+s\,\varepsilon$, from a single draw. Reparameterisation gives $2z$. The other classic is $z^2\cdot\frac{\partial}{\partial m}\log q(z)=z^2\,\varepsilon/s$. Both have the right mean, $2m$. How many times larger is the *variance* of the second? (You need $\mathbb E[\varepsilon^2]=1$, $\mathbb E[\varepsilon^4]=3$, $\mathbb E[\varepsilon^6]=15$.)

# %% [markdown] tags=["hint"]
# **Hint 4.7**
#
# The first has variance $4s^2$. For the second, expand $(m+s\,\varepsilon)^4\varepsilon^2$, keep the even powers, and do not forget to subtract the square of the mean.

# %% tags=["exercise"]
def noise_ratio(m, s):
    return ...


check("4.7", noise_ratio)


# %% tags=["solution"]
def noise_ratio(m, s):
    second_moment = (m**4 + 18 * m**2 * s**2 + 15 * s**4) / s**2
    return (second_moment - (2 * m) ** 2) / (4 * s**2)


must_pass("4.7", noise_ratio)

# %% [markdown] tags=["solution"]
# (The ratio is never below 3.75, and unless $m=0$ it explodes for small $s$. This is why everybody reparameterises where it is possible.)

# %% [markdown]
# ## What comes next
#
# One latent, one guess, one gap. Chapter 05 puts $T$ latents in a row, $x_1,\dots,x_T$, keeps the encoder fixed, and writes the same bound. It then has three kinds of terms: a prior term and a reconstruction, as here, and between them new *matching* terms. The prior and the matching terms are KL divergences of two Gaussians, which you can now compute. The empty place in the middle of this chapter's bound, the *matching* terms, is where all the learning of a diffusion model happens.
