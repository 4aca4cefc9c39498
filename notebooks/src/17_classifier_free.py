# %% [markdown]
# # 17 · Classifier-free guidance: ask twice, exaggerate the difference
#
# **The question.** Chapter 16 steered by a second network, trained on noisy pictures for nothing else. Can one network do it alone? And every image generator has a knob called *guidance scale*: what exactly is drawn when it stands at 3?
#
# **After this chapter you can**
#
# - find a classifier inside two answers of one denoiser;
# - train both answers at once by hiding labels, and say why the hidden label learns the unconditional noise;
# - tell the two conventions apart, $s$ and $w=s-1$, before they cost you a day;
# - say what guidance samples from. It is not $p(x)\,p(y\mid x)^s$, and DDIM and DDPM do not even agree on it;
# - measure what the scale buys and what it costs, on digits.
#
# *Needs:* chapters 06, 13 and 14; 16 helps. *Time:* about three hours with the exercises.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import ExactGaussian, GaussianMixture, clip_x_0, ddim_sample, ddpm_sample, eps_to_score, linear_schedule, load_model, shipped
from ddpm_course.checkpoint import load_classifier, load_tensors, rng
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits
from ddpm_course.guidance import batched_guidance, classifier_free, classifier_guided, scale_from_w
from ddpm_course.metrics import frechet_distance, recall
from ddpm_course.mistakes import MISTAKES, gap
from ddpm_course.plots import BLUE, GREY, ORANGE, curves, scatter, show_images, show_rows, style, versus
from ddpm_course.proofs import Expect, agrees, bar_t, derive, eps, equation, unit, x_t, z

style()
schedule = linear_schedule(T=1000)
seeded = lambda k: torch.Generator().manual_seed(k)

# %% [markdown]
# ## One network, two questions
#
# Let the network see the label: $\hat\varepsilon(x_t,t,y)$. Nothing else changes. The loss is the old one, so by chapter 06 the best answer is a mean, now over what is open when $x_t$ *and* $y$ are known. And by (13.2) this mean is a score, now that of the noisy pictures *of class $y$*:
#
# $$ \varepsilon(x_t,y)=\mathbb E[\varepsilon\mid x_t,y],\qquad\text{so by (13.2)}\quad \nabla\log p(x_t\mid y)=-\frac{\varepsilon(x_t,y)}{\sqrt{1-\bar\alpha_t}} \tag{17.1, definition} $$
#
# Now hide the label of some training pictures. A coin decides, for each picture anew, and where it falls "hidden" the network gets a special label that means *none*. What should it answer there? It sees $x_t$ alone. With two classes, the picture is of the first with probability $p$ and of the second otherwise, where $p$ is $p(y{=}1\mid x_t)$. If it is of class $k$, the noise is $m_k$ on average, and scatters around that with $\sigma_k$: below it is $m_1+\sigma_1\varepsilon$ or $m_2+\sigma_2z$, with $\varepsilon$ and $z$ unit scatters. The network answers one number $a$:

# %% tags=["proof"]
p = unit("p")
a, m_1, m_2 = sp.symbols("a m_1 m_2", real=True)
s_1, s_2 = sp.symbols(r"\sigma_1 \sigma_2", positive=True)
mean = p * m_1 + (1 - p) * m_2
derive("17.2", p * Expect((m_1 + s_1 * eps - a) ** 2, eps) + (1 - p) * Expect((m_2 + s_2 * z - a) ** 2, z),
       (p * ((m_1 - a) ** 2 + s_1**2) + (1 - p) * ((m_2 - a) ** 2 + s_2**2), "each noise has mean 0 and variance 1"),
       ((a - mean) ** 2 + p * (1 - p) * (m_1 - m_2) ** 2 + p * s_1**2 + (1 - p) * s_2**2, "complete the square in a"))

# %% [markdown]
# Only the last square depends on $a$. So the best answer is $p\,m_1+(1-p)\,m_2$, **the mean of the conditional answers over $p(y\mid x_t)$**. That is $\mathbb E[\varepsilon\mid x_t]$, the unconditional noise $\varepsilon(x_t)$. Two questions, one network: "what is the noise in this three?" and "what is the noise in this?" (CFG section 3.2). The term $p(1-p)(m_1-m_2)^2$ is the price of not knowing the label. The proof needs the coin to be blind: if threes are hidden more often than sevens, the weights are no longer $p(y\mid x_t)$. (Exercise 17.6.)
#
# On a mixture both answers are known. Here are four clouds; the two upper ones are the class that we shall ask for. By hand: the mean of the answers of the two classes, weighted by Bayes' rule.

# %%
centres, stds = torch.tensor([[-0.7, 0.9], [0.9, 0.6], [-1.0, -0.5], [0.5, -0.6]]), torch.tensor([0.3, 0.3, 0.4, 0.4])
everything = GaussianMixture(torch.full((4,), 0.25), centres, stds)
classes = [GaussianMixture(torch.full((2,), 0.5), centres[k : k + 2], stds[k : k + 2]) for k in (0, 2)]
plain, wanted, other = (part.eps_model(schedule) for part in (everything, *classes))
points, t = torch.randn(200, 2, generator=seeded(0), dtype=torch.float64), torch.randint(1, 1001, (200,), generator=seeded(1))
p_upper = everything.responsibilities(points, schedule.at(t, 2))[:, :2].sum(1, keepdim=True)
torch.testing.assert_close(plain(points, t), p_upper * wanted(points, t) + (1 - p_upper) * other(points, t), rtol=1e-9, atol=1e-9)
print("the answer to a hidden label = the mean of the conditional answers: True")

# %% [markdown]
# ## The classifier inside
#
# Two answers to one picture: what is their difference? Bayes' rule says $\log p(y\mid x_t)=\log p(x_t\mid y)+\log p(y)-\log p(x_t)$. The middle term does not depend on $x_t$, so its slope is 0. Write $q$ for the density of all noisy pictures, $q_y$ for that of class $y$, and $\pi$ for the share of the class. Then $p(y\mid x_t)=\pi\,q_y/q$, and

# %% tags=["proof"]
of_all, of_class = sp.Function("q", positive=True)(x_t), sp.Function("q_y", positive=True)(x_t)
posterior = unit(r"\pi") * of_class / of_all  # p(y | x_t), by Bayes
slope = lambda expr: sp.Derivative(sp.log(expr), x_t)
equation("17.3", slope(posterior), slope(of_class) - slope(of_all))

# %% [markdown]
# **The difference of the two scores is the gradient of a classifier.** Nobody trained it, and nobody can ask it for a probability; only its slope is there. By (17.1) it is $-(\varepsilon(x_t,y)-\varepsilon(x_t))/\sqrt{1-\bar\alpha_t}$. On the mixture we do have the classifier, and compare with automatic differentiation:

# %%
def log_p_upper(x, t):
    joint = everything.component_log_prob(x, schedule.at(t, 2))
    return joint[:, :2].logsumexp(1) - joint.logsumexp(1)


asked = points.clone().requires_grad_(True)
(true_slope,) = torch.autograd.grad(log_p_upper(asked, t).sum(), asked)
from_two_answers = eps_to_score(schedule, points, t, wanted(points, t) - plain(points, t))
torch.testing.assert_close(from_two_answers, true_slope, rtol=1e-8, atol=1e-8)
print("difference of two answers = slope of the exact classifier: True")

# %% [markdown]
# ## Exaggerate
#
# Chapter 16 multiplied the classifier's slope by a scale $s$. Do the same here:
#
# $$ \varepsilon_s(x_t,y)=\varepsilon(x_t)+s\,\big(\varepsilon(x_t,y)-\varepsilon(x_t)\big) \tag{17.4, definition} $$
#
# > **An image to keep.** A caricaturist compares a face with the average face, and draws the difference larger. $s=0$ is the average, $s=1$ the face, $s=3$ the caricature. *Where the image breaks:* she looks at a finished face, once. Guidance exaggerates at every step, and the next step starts from the exaggeration. This will matter.
#
# Which density has this slope? With (17.1), (17.3) and (17.4), put together:

# %% tags=["proof"]
scale = sp.Symbol("s", real=True)
equation("17.5", slope(of_all) + scale * (slope(of_class) - slope(of_all)), slope(of_all * posterior**scale))

# %% [markdown]
# So at *each single time* the guided answer is the score of $p(x_t)\,p(y\mid x_t)^s$, up to a constant factor that has no slope. Remember the words "at each single time".
#
# ### s or 1 + w?
#
# The paper (CFG eq. 6) writes the same thing with another letter, $w=s-1$:

# %% tags=["proof"]
w, of_x, of_x_y = (sp.Symbol(name, real=True) for name in ("w", r"{\varepsilon(x_t)}", r"{\varepsilon(x_t,y)}"))
equation("17.6", of_x + (1 + w) * (of_x_y - of_x), (1 + w) * of_x_y - w * of_x, source="CFG eq. 6")

# %% [markdown]
# | | unconditional | conditional, no guidance | exaggerated |
# |---|---|---|---|
# | $s$: this course, and what most programs call *guidance scale* | $s=0$ | $s=1$ | $s>1$ |
# | $w$: the paper's letter | $w=-1$ | $w=0$ | $w>0$ |
#
# A "scale of 3" is $s=3$ for one author and $w=3$, so $s=4$, for another. Ask which number switches guidance *off*: 1 or 0?
#
# ### By hand
#
# The whole method is one line. And on the oracle it is classifier guidance, to nine digits:

# %%
def my_guidance(x, t, s):
    return plain(x, t) + s * (wanted(x, t) - plain(x, t))


mine, package = my_guidance(points, t, 3.0), classifier_free(wanted, plain, scale_from_w(2.0))(points, t)
torch.testing.assert_close(mine, package, rtol=1e-12, atol=1e-12)
torch.testing.assert_close(mine, classifier_guided(plain, log_p_upper, schedule, 3.0)(points, t), rtol=1e-9, atol=1e-9)
print("by hand = package = classifier guidance with the exact classifier: True")

# %% [markdown]
# From a trained network we need two answers, so guidance costs twice the arithmetic. But it need not be two calls. Put $x_t$ twice into one batch, once with the label and once with "none". The scales 0 and 1 need one answer only, and get one, bit for bit. The network is the digit network of chapter 08 with one more table: for each label 0 to 9, and for "none" (label 10), a vector that is added to that of the time. It was trained with a fifth of the labels hidden.

# %%
trained = load_model(shipped("digits-classes"))
net, chain, kind, calls = trained.net, trained.schedule, trained.prediction, []


def spied(x, t, y):
    calls.append(len(x))
    return net(x, t, y=y)


y, none = torch.tensor([3, 3, 8, 8]), torch.tensor([10])
noisy, times = torch.randn(4, 1, 8, 8, generator=seeded(2)), torch.tensor([900, 500, 500, 100])
ask = lambda s: batched_guidance(spied, chain, {"y": y}, {"y": none}, s, kind)(noisy, times)
labelled, unlabelled = trained.eps_model(y=y)(noisy, times), trained.eps_model(y=none.expand(4))(noisy, times)
torch.testing.assert_close(ask(3.0), unlabelled + 3 * (labelled - unlabelled), rtol=1e-4, atol=1e-4)
print("bitwise: s = 1 conditional", torch.equal(ask(1.0), labelled), " s = 0 unconditional", torch.equal(ask(0.0), unlabelled))
print("pictures in each call at s = 3, 1, 0:", calls)

# %% [markdown]
# The blend was made of the network's $v$ and not of $\varepsilon$. That is the same: each is the other times a number plus $x_t$ times a number, and in (17.4) the weights $s$ and $1-s$ add up to 1.
#
# ## What the scale does, in the plane
#
# Four clouds again, the upper two asked for. Upper row: DDIM with the exact guided answer, no training, no error but that of 60 steps. Lower row: exact samples from the law that everybody has in mind,
#
# $$ p_s(x_0)\ \propto\ p(x_0)\,p(y\mid x_0)^s \tag{17.7, definition} $$

# %%
line = torch.linspace(-2.6, 2.6, 131, dtype=torch.float64)
cells = torch.cartesian_prod(line, line)


def tilted(s, n, seed):
    joint = everything.component_log_prob(cells)
    log_law = joint.logsumexp(1) + s * (joint[:, :2].logsumexp(1) - joint.logsumexp(1))
    cell = torch.multinomial(log_law.softmax(0), n, replacement=True, generator=seeded(seed))
    return cells[cell] + 0.04 * (torch.rand(n, 2, generator=seeded(seed + 1), dtype=torch.float64) - 0.5)


def guided_cloud(s, n):
    start = torch.randn(n, 2, generator=seeded(3), dtype=torch.float64)
    return ddim_sample(classifier_free(wanted, plain, s), schedule, x_T=start, num_steps=60)


# %%
SCALES = (0.0, 1.0, 3.0, 8.0)
clouds = {s: (guided_cloud(s, 2000), tilted(s, 2000, 4)) for s in SCALES}
fig, axes = plt.subplots(2, 4, figsize=(8, 4.3))
for column, (s, (guided, exact)) in zip(axes.T, clouds.items(), strict=True):
    scatter(guided, column[0], f"guided, s = {s:g}", size=2)
    scatter(exact, column[1], r"$p\,p(y|x)^s$," + f" s = {s:g}", ORANGE, size=2)
plt.show()

# %%
for s, (guided, exact) in clouds.items():
    print(f"s = {s:g}: mean height {float(guided[:, 1].mean()):4.1f} against {float(exact[:, 1].mean()):4.1f};  "
          f"its spread {float(guided[:, 1].std()):.1f} against {float(exact[:, 1].std()):.1f}")
heights = {s: float(guided[:, 1].mean() - exact[:, 1].mean()) for s, (guided, exact) in clouds.items()}
assert max(abs(heights[0.0]), abs(heights[1.0])) < 0.06 and 0.2 < heights[3.0] < 0.3 and 0.45 < heights[8.0] < 0.65

# %% [markdown]
# At 0 and 1 the rows agree. At 3 and 8 they do not. The tilted law trims its lower edge, where the classifier is in doubt, and leaves the rest alone: where $p(y\mid x)$ is nearly 1, no power changes it. The guided clouds become narrow *and leave the place where the data are*. At $s=8$ their mean is about two standard deviations above the upper clouds. The caricature runs away from the faces.
#
# ## What guidance really samples from
#
# Why? Let us find a case with nothing hidden. One pixel, $x_0\sim\mathcal N(0,1)$. Its label is the pixel itself, read with an error of variance $r$: $y=x_0+\sqrt r\,z$. Everything is Gaussian. The law (17.7) is $e^{-x_0^2/2}$ times the $s$-th power of $e^{-(x_0-y)^2/2r}$. Complete the square in the exponent, as in chapter 03:

# %% tags=["proof"]
r, s = sp.symbols("r s", positive=True)
label, x_0 = sp.Symbol("y", real=True), sp.Symbol("x_0", real=True)
centre, width = s * label / (r + s), r / (r + s)
equation("17.8", -(x_0**2) / 2 - s * (x_0 - label) ** 2 / (2 * r), -((x_0 - centre) ** 2) / (2 * width) - s * label**2 / (2 * (r + s)))

# %% [markdown]
# So $p_s=\mathcal N\big(\frac{s\,y}{r+s},\ \frac r{r+s}\big)$. For $s=1$ this is Bayes: $p(x_0\mid y)=\mathcal N\big(\frac y{1+r},\frac r{1+r}\big)$. Diffuse that to time $t$ (chapter 02): the mean times $\sqrt{\bar\alpha_t}$, the variance times $\bar\alpha_t$ plus $1-\bar\alpha_t$. The unconditional pixel stays $\mathcal N(0,1)$, its score is $-x_t$. A Gaussian's score is (mean − x) / variance. So the **guided score**, $(1-s)$ times the one and $s$ times the other, is

# %% tags=["proof"]
D = r + 1 - bar_t
gaussian_score = lambda mean, var: (sp.sqrt(bar_t) * mean - x_t) / (bar_t * var + 1 - bar_t)
guided = -x_t + s * (sp.sqrt(bar_t) * label - bar_t * x_t) / D
equation("17.9", (1 - s) * (-x_t) + s * gaussian_score(label / (1 + r), r / (1 + r)), guided)
right = -x_t + s * (sp.sqrt(bar_t) * label - bar_t * x_t) / (r + s * (1 - bar_t))
pixel, numbers = torch.tensor([[0.7]], dtype=torch.float64), {r: 0.5, s: 3, label: 1.2, x_t: 0.7, bar_t: schedule.at(400)}
one, cond = ExactGaussian(torch.zeros(1), torch.eye(1)), ExactGaussian(torch.tensor([0.8]), torch.tensor([[1 / 3]], dtype=torch.float64))
answer = classifier_free(cond.eps_model(schedule), one.eps_model(schedule), 3.0)(pixel, torch.tensor([400]))
agrees(guided, numbers, eps_to_score(schedule, pixel, 400, answer), tolerance=1e-6)

# %% [markdown]
# And the score that would take us to $p_s$ is the score of **$p_s$ diffused**:

# %% tags=["proof"]
equation("17.10", gaussian_score(centre, width), right)

# %% [markdown]
# Lay the two side by side. Same shape, one difference: the denominator is $r+(1-\bar\alpha_t)$ in the guided score and $r+s\,(1-\bar\alpha_t)$ in the right one. At the end, $\bar\alpha_t=1$, they agree. That is why the picture "guidance samples $p(x)p(y\mid x)^s$" seems so natural. For $s=1$ they agree always. In between, and for $s>1$, **the guided pull is too strong, by nearly a factor $s$ if there is much noise and $r$ is small.**
#
# Where does the error come from? Tilting multiplies densities, diffusing blurs them. *Blur, then tilt* is not *tilt, then blur*. Read it off the denominators. To trust the label $s$ times over is to have $s$ readings of one pixel. Their mean has the error $r/s$. But the doubt about the pixel itself, $1-\bar\alpha_t$, is the same for all readings, and no averaging removes it: together $r/s+(1-\bar\alpha_t)$, and times $s$ that is the right denominator. Guidance treats the doubt like the error, as if every reading came with a noise of its own, and averages it away.
#
# ### Two samplers, two laws
#
# Where do we end, if we follow the wrong score all the way? DDIM walks the probability-flow ODE of chapter 13, whose clock ran with the rate $b$ of the noise. Take $\bar\alpha$ itself as the clock ($d\bar\alpha=-b\,\bar\alpha\,d\tau$, where $\tau$ was chapter 13's time); then it reads $dx/d\bar\alpha=(x+\text{score})/(2\bar\alpha)$. Two particles that follow it keep a gap $g$; the terms with $y$ cancel in it. The gap obeys the equation below, and SymPy confirms that $g\propto\big(\frac{1+r-\bar\alpha}{1+r}\big)^{s/2}$ solves it.

# %% tags=["proof"]
g = sp.Function("g", positive=True)(bar_t)
gap_of_two = (D / (1 + r)) ** (s / 2)
equation("17.11", sp.Derivative(g, bar_t), (g - (1 + s * bar_t / D) * g) / (2 * bar_t), given={g: gap_of_two})

# %% [markdown]
# At $\bar\alpha=0$ the gap is 1, at $\bar\alpha=1$ it is $(r/(1+r))^{s/2}$. So **DDIM ends in the variance $\big(\frac r{1+r}\big)^s$**: each unit of $s$ multiplies the variance by the same factor. The law that was promised has $\frac r{r+s}$, which falls like $1/s$ only.
#
# DDPM walks the reverse SDE of chapter 13, with twice the pull of the score and with noise. In the same clock: $dx=[\tfrac12x+\text{score}]\frac{d\bar\alpha}{\bar\alpha}+\sqrt{d\bar\alpha/\bar\alpha}\,dB$, with fresh normal noise $dB$. Its mean $m$ and its variance $V$ obey the two equations below. With $D=1+r-\bar\alpha$, SymPy confirms that $m=\frac{y}{\sqrt{\bar\alpha}}\big(1-(\frac{D}{1+r})^s\big)$ and $V=\frac{D-D^{2s}(1+r)^{1-2s}}{(2s-1)\,\bar\alpha}$ solve them (for $s\ne\frac12$).

# %% tags=["proof"]
m, V = sp.Function("m", real=True)(bar_t), sp.Function("V", positive=True)(bar_t)
mean_of_ddpm = label / sp.sqrt(bar_t) * (1 - (D / (1 + r)) ** s)
variance_of_ddpm = (D - D ** (2 * s) * (1 + r) ** (1 - 2 * s)) / ((2 * s - 1) * bar_t)
equation("17.12", sp.Derivative(m, bar_t), (m / 2 + guided.subs(x_t, m)) / bar_t, given={m: mean_of_ddpm})
equation("17.13", sp.Derivative(V, bar_t), (1 - (1 + 2 * s * bar_t / D) * V) / bar_t, given={V: variance_of_ddpm})

# %% [markdown]
# Both solutions start at $\mathcal N(0,1)$ for $\bar\alpha\to0$. At $\bar\alpha=1$ the mean is $y\,\big(1-(\frac r{1+r})^s\big)$, and the variance is $\frac{1}{2s-1}\big(r-(1+r)\,(\tfrac r{1+r})^{2s}\big)$. For $s=1$ these are Bayes' numbers, and DDIM's variance is the same (its mean we only measure). For any $s$ but 0 and 1 DDPM and DDIM draw from *different laws*, and neither is $p_s$. Here are all three, with $r=y=1$. The samplers are the package's, on the exact oracle; the start is a row of 2,000 quantiles of the normal law.

# %%
one_pixel, given_y = ExactGaussian(torch.zeros(1), torch.eye(1)), ExactGaussian(torch.tensor([0.5]), torch.tensor([[0.5]]))
levels = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
start = torch.distributions.Normal(0.0, 1.0).icdf(levels)[:, None]
laws = {}
for size in (1.0, 3.0):
    model = classifier_free(given_y.eps_model(schedule), one_pixel.eps_model(schedule), size)
    laws[size] = {"DDIM": ddim_sample(model, schedule, x_T=start, num_steps=1000),
                  "DDPM": ddpm_sample(model, schedule, x_T=start.repeat(4, 1), num_steps=300, generator=seeded(5))}

# %%
put = {r: 1, label: 1, bar_t: 1}
for size, found in laws.items():
    formula = {"DDIM": gap_of_two**2, "DDPM": variance_of_ddpm}
    print(f"s = {size:g}: p(x) p(y|x)^s has mean {size / (1 + size):.2f}, variance {1 / (1 + size):.2f}")
    for name, x in found.items():
        by_formula = float(formula[name].subs(put).subs(s, size))
        print(f"       {name}: mean {float(x.mean()):.1f}; variance by formula {by_formula:.3f}, measured within 0.015: {abs(float(x.var()) - by_formula) < 0.015}")
assert abs(float(laws[3.0]["DDIM"].var()) - 1 / 8) < 0.004 and abs(float(laws[3.0]["DDPM"].var()) - 0.194) < 0.015
assert abs(float(laws[3.0]["DDPM"].mean()) - 7 / 8) < 0.02 and abs(float(laws[3.0]["DDIM"].mean()) - 1) < 0.015
agrees(gap_of_two**2, put | {s: 3}, laws[3.0]["DDIM"].var(), tolerance=0.004)

# %% [markdown]
# At $s=3$ the promised variance is ¼. DDIM gives an eighth, half of it, and DDPM about a fifth. The promised mean is 0.75; DDPM ends at 0.875, and DDIM at 1.0, *on* the label. That is an accident of these numbers: at $s=5$ it would end beyond the label, at 1.17.
#
# Two classes tell the same story. One pixel from $\mathcal N(-\frac12,\frac14)$ or $\mathcal N(\frac12,\frac14)$, the right one asked for. Left: the two scores at half noise, $\bar\alpha=0.5$; the right one was found on a grid, by blurring $p_3$. Right: where DDIM ends.

# %%
pair = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-0.5], [0.5]]), torch.tensor([0.5, 0.5]))
bell = GaussianMixture(torch.ones(1), torch.tensor([[0.5]]), torch.tensor([0.5]))
grid = torch.linspace(-4, 6, 2001, dtype=torch.float64)
joint = pair.component_log_prob(grid[:, None])
p_3 = (joint.logsumexp(1) + 3 * joint.log_softmax(1)[:, 1]).softmax(0)
half = int((schedule.alpha_bar - 0.5).abs().argmin())
bar, at_half = float(schedule.alpha_bar[half]), torch.full((2001,), half)
shares = torch.softmax(p_3.log() - (grid[:, None] - bar**0.5 * grid) ** 2 / (2 * (1 - bar)), dim=1)  # p(x_0 | x_t) under p_3
right_score = (bar**0.5 * shares @ grid - grid) / (1 - bar)
model = classifier_free(bell.eps_model(schedule), pair.eps_model(schedule), 3.0)
guided_score = eps_to_score(schedule, grid[:, None], half, model(grid[:, None], at_half))[:, 0]
ends = ddim_sample(model, schedule, x_T=start, num_steps=400)[:, 0].sort().values
wanted_ends = grid[torch.searchsorted(p_3.cumsum(0), levels)]

# %%
fig, (left, far) = plt.subplots(1, 2, figsize=(8.5, 2.9))
middle = (grid > -2) & (grid < 3)
curves(grid[middle], {"guided": guided_score[middle], r"of $p_3$, diffused": right_score[middle]}, left, xlabel=r"$x_t$", title="score at half noise")
far.hist(ends.numpy(), bins=60, range=(-1, 2.6), density=True, color=BLUE, alpha=0.5, label="DDIM, s = 3")
far.plot(grid, p_3 / (grid[1] - grid[0]), color=ORANGE, label=r"$p(x)\,p(y|x)^3$")
far.plot(grid, bell.log_prob(grid[:, None]).exp(), color=GREY, linewidth=1, label=r"$p(x|y)$")
far.set(xlim=(-1.2, 2.8), yticks=[], title="where one ends")
far.legend(fontsize=8)
plt.show()
print(f"mean {float(ends.mean()):.1f}, wanted {float(wanted_ends.mean()):.2f};  standard deviation {float(ends.std()):.2f}, wanted {float(wanted_ends.std()):.1f}")
print(f"each sample is off by {float((ends - wanted_ends).abs().mean()):.2f} on average: in units of the class's own spread {float((ends - wanted_ends).abs().mean()) / 0.5:.1f}")
assert abs(float((ends - wanted_ends).abs().mean()) - 0.29) < 0.01 and float((guided_score - right_score)[middle].min()) > 0

# %% [markdown]
# The guided score lies above the right one everywhere in the picture: an extra push away from the other class, the stronger the nearer it is. At $s=3$ the samples end 0.29 too far to the right, more than half of a standard deviation of the class.
#
# Is this a fault? It depends on what you want. As a way to sample $p_s$, guidance is wrong, and no smaller step will mend it. As a way to get samples *about which no classifier could have a doubt*, it does even more than it promised. Most people who turn the knob want the second.
#
# ## Real digits
#
# Now a network that was trained, with the digits of chapter 08. The same noise in each column, the scale grows downwards. DDIM, 15 steps, $\hat x_0$ held in $[-1,1]$.

# %%
def draw_digits(labels, s, seed=0, rescale=0.0, clip=True):
    model = batched_guidance(net, chain, {"y": labels}, {"y": none}, s, kind, rescale)
    model = clip_x_0(model, chain) if clip else model
    return ddim_sample(model, chain, (len(labels), 1, 8, 8), num_steps=15, generator=rng(seed, 17))


show_rows({f"s = {s:g}": draw_digits(torch.arange(10), s, 1) for s in (0.0, 1.0, 2.0, 4.0, 8.0)})
plt.show()

# %% [markdown]
# The first row ignores the labels. From the second row on each column shows its digit, and the strokes become bolder and cleaner. Now one class at a time, with ten different noises each: does anything get lost?

# %%
rows = {f"{digit}, s = {s:g}": draw_digits(torch.full((10,), digit), s, 2) for digit in (2, 4, 7) for s in (1.0, 3.0)}
show_rows(rows)
plt.show()

# %% [markdown]
# Within a row, the digits at $s=3$ are more alike: fewer grey and half-made ones, and fewer unusual ones. Chapter 14 taught us to put numbers on both.
#
# ### Precision, recall and the scale
#
# A script has drawn one sample for each of the 359 held-out digits, asking for its label, at six scales and with three seeds (`benchmarks/guidance_scales.py`). The judge is the classifier shipped with the *other* digit network: it took no part in the drawing. The grey bands are the floors: real training digits in the place of samples, five draws, *with the same labels*. (A draw that leaves the class counts to chance has twice the distance. A fair floor gets what the samples get.) The *spread in a class* is the root mean square distance of the samples from the mean of their class, divided by that of the held-out digits. Points are means of three seeds, bars go from the lowest to the highest. First we measure a part of it again, here and now, and compare.

# %%
report = json.loads(Path("../benchmarks/results/guidance_scales.json").read_text())
eyes, splits = load_classifier("digits"), digits()
held_out = [torch.cat(pair) for pair in zip(splits.val, splits.test, strict=True)]
real, labels = eyes.features(held_out[0]), held_out[1]
again = draw_digits(labels, 1.0)
asked_for = float((eyes(again).argmax(1) == labels).float().mean())
row = report["scales"].index(1.0)
distance = frechet_distance(eyes.features(again), real)
of_these = "".join(load_tensors(shipped(name), part)[1]["sha256"][:6] for name, part in (("digits-classes", "model"), ("digits", "classifier")))
print(f"measured on these weights: {report['weights'] == of_these}")
print(f"s = 1, seed 0, n = {len(labels)}, drawn again: distance within 5 % {abs(distance / report['frechet_distance'][row][0] - 1) < 0.05}, "
      f"class asked for within 1 % {abs(asked_for - report['asked_for'][row][0]) < 0.01}")
assert abs(distance / report["frechet_distance"][row][0] - 1) < 0.05 and abs(asked_for - report["asked_for"][row][0]) < 0.01

# %%
places = range(len(report["scales"]))
fig, axes = plt.subplots(1, 3, figsize=(10, 3))
for ax, key, title in zip(axes, ("frechet_distance", "precision", "recall"), ("Fréchet distance", "precision", "recall"), strict=True):
    values, floors = torch.tensor(report[key]), report["floors"][key]
    ax.axhspan(min(floors), max(floors), color=GREY, alpha=0.3, label="floor")
    bars = torch.stack([values.mean(1) - values.min(1).values, values.max(1).values - values.mean(1)])
    ax.errorbar(places, values.mean(1), yerr=bars, marker="o", markersize=4, capsize=3, color=BLUE)
    ax.set_xticks(places, [f"{s:g}" for s in report["scales"]])
    ax.set(title=f"{title}, n = {report['n']}", xlabel="scale s")
axes[0].legend()
plt.show()

# %%
mean_of = lambda key: dict(zip(report["scales"], torch.tensor(report[key]).mean(1).tolist(), strict=True))
hits, distances, sure, covered, spread = (mean_of(key) for key in ("asked_for", "frechet_distance", "precision", "recall", "spread"))
print(f"{'s':>4} {'class asked for':>16} {'distance':>9} {'precision':>10} {'recall':>7} {'spread in a class':>18}")
for size in report["scales"]:
    print(f"{size:4g} {hits[size]:16.3f} {distances[size]:9.2f} {sure[size]:10.2f} {covered[size]:7.2f} {spread[size]:18.2f}")
total = report["n"] * len(report["seeds"])
print(f"n = {report['n']} samples for each of {len(report['seeds'])} seeds in a row")
assert total > 1000 and hits[2.0] >= 0.95 and abs(hits[0.0] - 0.1) < 0.03 and min(distances, key=distances.get) == 1
assert sure[2.0] > max(report["floors"]["precision"]) > min(report["floors"]["precision"]) > sure[8.0] and covered[2.0] < 0.72 < 0.85 < covered[1.0]

# %% [markdown]
# Read it column by column.
#
# - **Class asked for:** 10 % without the label, which is chance; 99 % at $s=1$ already; all or all but one in a thousand from $s=2$ on. On these digits the label does nearly all the work. To be *obeyed* we need no guidance here.
# - **Distance:** lowest at $s=1$, at about one and a half floors, and twice as large at $s=2$. No wonder: of the scales that use the label, $s=1$ is the one at which the model tries to draw from the data. ($s=0$ tries it too, but it leaves the class counts to chance, and only a fifth of the training pictures taught this answer.)
# - **Precision:** at the floor for $s=1$, above it for 2 and 3. Guided digits are more typical than real ones.
# - **Recall and spread** pay for that. A third of the real digits of a class have no sample near them any more (against a tenth that real digits leave uncovered, the floor), and the samples of a class lie a fifth closer together than real ones. (At $s=0$ the "class" is the label that was ignored, so that number means nothing.)
# - **Beyond 3 it turns round.** At $s=8$ precision falls below the floor, recall and spread grow again, and even the distance falls. Is variety back? Two things could be to blame: 15 steps are few for so strong a pull, and $\hat x_0$ is cut to $[-1,1]$ at each of them. It is the cut. Without it, recall at $s=8$ lies below that of every clipped scale (one seed):

# %%
uncut = eyes.features(draw_digits(labels, 8.0, clip=False))
last_row = report["scales"].index(8.0)
print(f"s = 8, not clipped: recall below 0.5 {recall(real, uncut) < 0.5}; clipped it was {report['recall'][last_row][0]:.1f}")
print(f"and the distance is above that of every clipped scale from 1 on: {frechet_distance(uncut, real) > max(row[0] for row in report['frechet_distance'][1:])}")
assert recall(real, uncut) < 0.5 < 0.65 < report["recall"][last_row][0]

# %% [markdown]
# So a clipped scale of 8 is not what it says: the more is exaggerated, the more is cut off. Whoever compares scales has to say what else is done to the guess.
#
# ### Play with it
#
# Choose a class and a scale. Without a running kernel, the figures above show the same.

# %%
from ddpm_course.widgets import choice, explore, slider


def draw(digit, s):
    show_images(draw_digits(torch.full((16,), digit), s, 3), columns=8, title=f"class {digit}, s = {s:g}")


explore(draw, digit=choice(range(10), "class"), s=slider(0.0, 10.0, 2.0, 0.5, "scale s"))

# %% [markdown]
# From the command line: `python -m ddpm_course sample --checkpoint digits-classes --label 3 --scale 3`.
#
# ## Too loud: rescaling
#
# A blend with the weights 8 and −7 is louder than its parts. We have held $\hat x_0$ in $[-1,1]$, so nobody noticed. A latent or a sound has no such range, and clipping makes pictures flat where it bites. Another remedy (ZTSNR section 3.4): after blending, divide by the standard deviation of the blend and multiply by that of the conditional answer, example by example. Do it by the share 0.7 and leave 0.3 as it was. It matters *which* answer is treated. The paper's networks predict $v$, and so does ours. Its $v$ has the picture in it, with its contrast. $\varepsilon$ has standard deviation 1 whatever the picture; there is little to repair in it.

# %% tags=["nbval-ignore-output"]
forty = torch.arange(40) % 10
variants = {"s = 1": {"s": 1.0}, "s = 8": {"s": 8.0}, "s = 8, rescaled by 0.7": {"s": 8.0, "rescale": 0.7}, "s = 8, rescaled by 1": {"s": 8.0, "rescale": 1.0}}
loud = {name: draw_digits(forty, **how, clip=False) for name, how in variants.items()}
show_rows({name: x[:10] for name, x in loud.items()})
plt.show()
for name, x in loud.items():
    print(f"{name:22s} not clipped: contrast {float(x.flatten(1).std(1).mean()):.2f}, pixels beyond 1.05: {float((x.abs() > 1.05).float().mean()):4.0%}")

# %%
beyond = [float((x.abs() > 1.05).float().mean()) for x in loud.values()]
assert beyond[0] < 0.03 and beyond[1] > 0.2 and beyond[2] < 0.65 * beyond[1] and beyond[3] < beyond[2]
print("rescaling by 0.7 at least a third fewer pixels out of range, by 1 fewer still: True")

# %% [markdown]
# The share 0.7 removes about half of the excess contrast, the share 1 about four fifths; 13 and 7 % of the pixels are still out of range. Whether the digits are more varied for it, this number does not say.
#
# ## Common mistakes
#
# ### M28 · "Hide the labels of every tenth batch"
#
# One throw of the dice for the whole batch, or one for each picture? The mean share of hidden labels is the same, 10 %. So a log of the mean never shows the difference. Look at single batches of 64:

# %%
found = gap(MISTAKES[28])
versus(MISTAKES[28].x, MISTAKES[28].observe(MISTAKES[28].wrong), MISTAKES[28].observe(MISTAKES[28].right), xlabel="number of the batch (64 pictures each)", ylabel="share hidden")
plt.show()
batches = {name: MISTAKES[28].observe(version) for name, version in (("whole batch", MISTAKES[28].wrong), ("each picture", MISTAKES[28].right))}
for name, shares in batches.items():
    print(f"{name:12s} standard deviation of the share {float(shares.std()):.2f};  batches out of 100 with no hidden label: {int((shares == 0).sum())}")
assert found.wrong > 0.2 > 0.05 > found.right

# %% [markdown]
# With one throw for all, nine batches of ten never ask the second question, and the tenth asks nothing else. Each optimiser step learns one of the two jobs and moves on the shared weights of the other. One throw for each picture makes every step learn both.
#
# ### w taken for s
#
# A colleague sends settings: "guidance off, $w=0$". Someone types 0 into a program that wants $s$:

# %%
hundred = torch.arange(100) % 10
for typed, meant in ((0.0, scale_from_w(0.0)), (1.0, scale_from_w(1.0))):
    share = [float((eyes(draw_digits(hundred, size, 4)).argmax(1) == hundred).float().mean()) for size in (typed, meant)]
    print(f"w = {typed:g} typed as s = {typed:g}: class asked for {share[0]:.1f};  with s = 1 + w = {meant:g}: {share[1]:.1f}")
    assert share[1] > 0.95 and (share[0] < 0.25) == (typed == 0)

# %% [markdown]
# At $w=0$ the slip throws the label away. At $w=1$ it goes unnoticed here, since $s=1$ obeys the label as well, and only distance, recall and spread would tell. Slips of this kind are found by a unit test at the two scales whose answers are known, and not by looking at pictures.
#
# ### "Guidance makes the model better"
#
# It makes samples more *typical*. Look at the table again before you praise a model for its precision at a high scale, and never compare two models at different scales: each point of the curves above is the same network.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/17_classifier_free_student.ipynb), [with solutions](exercises/17_classifier_free_solution.ipynb).

# %% [markdown]
# **17.1 ★** A paper reports its best pictures at $w=1.5$. Which scale $s$ do you type?

# %% [markdown] tags=["hint"]
# **Hint 17.1**
#
# No guidance is $w=0$, and it is $s=1$.

# %% tags=["exercise"]
typed_scale = ...
check("17.1", typed_scale)

# %% tags=["solution"]
typed_scale = 1 + 1.5
must_pass("17.1", typed_scale)

# %% [markdown]
# **17.2 ★** The network answers 0.2 without the label and 0.5 with it. What is the guided answer at $s=3$?

# %% [markdown] tags=["hint"]
# **Hint 17.2**
#
# Start at the answer without the label, and go three times the way to the other.

# %% tags=["exercise"]
guided_eps = ...
check("17.2", guided_eps)

# %% tags=["solution"]
guided_eps = 0.2 + 3 * (0.5 - 0.2)
must_pass("17.2", guided_eps)

# %% [markdown]
# **17.3 ★★** Write the slope of the classifier, $\nabla\log p(y\mid x_t)$, as a function of the two answers and $\bar\alpha_t$.

# %% [markdown] tags=["hint"]
# **Hint 17.3**
#
# A difference of two scores. Each is minus an answer over its standard deviation.

# %% tags=["exercise"]
def classifier_slope(eps_with, eps_without, alpha_bar):
    return ...


check("17.3", classifier_slope)


# %% tags=["solution"]
def classifier_slope(eps_with, eps_without, alpha_bar):
    return -(eps_with - eps_without) / (1 - alpha_bar) ** 0.5


must_pass("17.3", classifier_slope)

# %% [markdown]
# **17.4 ★★** Hide labels for training. `y` is a list of labels, `dice` a list of as many numbers, uniform in $[0,1)$. Return the list in which a label is replaced by 10 with probability `share`.

# %% [markdown] tags=["hint"]
# **Hint 17.4**
#
# Each picture has a die of its own.

# %% tags=["exercise"]
def hide(y, dice, share):
    return ...


check("17.4", hide)


# %% tags=["solution"]
def hide(y, dice, share):
    return [10 if die < share else digit for digit, die in zip(y, dice, strict=True)]


must_pass("17.4", hide)

# %% [markdown]
# **17.5 ★★★** One pixel, $x_0\sim\mathcal N(0,1)$, read with an error of variance `r`. By what factor is the variance at which guided DDIM ends smaller than that of $p(x)\,p(y\mid x)^s$? Give the ratio, (DDIM's) / (the promised one).

# %% [markdown] tags=["hint"]
# **Hint 17.5**
#
# The first is below (17.11), the second below (17.8).

# %% tags=["exercise"]
def too_narrow(r, s):
    return ...


check("17.5", too_narrow)


# %% tags=["solution"]
def too_narrow(r, s):
    return (r / (1 + r)) ** s / (r / (r + s))


must_pass("17.5", too_narrow)

# %% [markdown]
# **17.6 ★★★** A coin that is not blind: the label of class $k$ is hidden with probability `hidden[k]`. At some $x_t$ the classes have the probabilities `p[k]` and the conditional answers `answers[k]`. What does the network learn to answer for a hidden label there? Plain lists.

# %% [markdown] tags=["hint"]
# **Hint 17.6**
#
# It is the mean over the pictures that *arrive* with a hidden label. How probable is class $k$ among them?

# %% tags=["exercise"]
def learnt_answer(p, hidden, answers):
    return ...


check("17.6", learnt_answer)


# %% tags=["solution"]
def learnt_answer(p, hidden, answers):
    weights = [a * b for a, b in zip(p, hidden, strict=True)]
    return sum(w * e for w, e in zip(weights, answers, strict=True)) / sum(weights)


must_pass("17.6", learnt_answer)

# %% [markdown]
# ## What comes next
#
# A label is one number out of ten. The next chapter replaces it by a sentence. The network reads a caption, "a large red three above a small blue seven", and the line (17.4) stays as it is: one answer with the caption, one with an empty caption, and the difference made larger.
