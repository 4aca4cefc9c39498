# %% [markdown]
# # 01 · Gaussians: the only randomness we need
#
# **The question.** All the *noise* in a diffusion model is drawn from one family of laws, the Gaussians. Why this family and no other? And which facts about it carry all the derivations that follow?
#
# **After this chapter you can**
#
# - tell a density from a probability, and a standard deviation from a variance, by a number;
# - shift, scale and add Gaussians, and say where independence was used;
# - multiply two bells, which is Bayes' rule in disguise (chapter 03);
# - read the little letters under an $\mathbb E$: which variables does this average run over?
# - send gradients through a random draw, and explain why a network trained on squares learns a *conditional mean*;
# - state how wrong a Monte-Carlo average is, and compute the distance (KL) between two Gaussians.
#
# *Needs:* one course of probability: density, mean, variance, conditional probability. *Time:* about three and a half hours with the exercises. If you know all this, read "Which variables does an expectation run over?" and "The conditional mean is the best guess", do the exercises, and go on.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import FiniteData, GaussianMixture, discretized_log_prob, linear_schedule, normal_kl, normal_log_prob
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, curves, show_rows, style
from ddpm_course.proofs import Expect, agrees, derive, equation, inequality, limit, mu, normal, sigma, x_0, x_t, z

style()

# %% [markdown]
# Three bells first. All have mean 0; they differ in width. The narrow one rises to almost 4. No probability can be 4, so the height of a bell is not a probability. What is it, then? The shaded strip on the right gives the answer: *area* is probability. The strip is 0.1 wide and between 4 and 2.4 high, so its area is about one third.

# %%
def bell(x, mean=0.0, var=1.0):
    return torch.exp(-((x - mean) ** 2) / (2 * var)) / (2 * math.pi * var) ** 0.5


x_axis = torch.linspace(-3, 3, 601, dtype=torch.float64)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
curves(x_axis, {f"std {s}": bell(x_axis, 0, s**2) for s in (1.0, 0.5, 0.1)}, left, xlabel="x", title="density: height")
near, strip = torch.linspace(-0.4, 0.4, 201, dtype=torch.float64), torch.linspace(0, 0.1, 21, dtype=torch.float64)
right.plot(near, bell(near, 0, 0.01), color=GREEN)
right.fill_between(strip, bell(strip, 0, 0.01), color=GREEN, alpha=0.4)
right.set(xlabel="x", title="probability of 0 < x < 0.1: the shaded area, 0.34")
plt.show()

# %% [markdown]
# ## Density and probability
#
# A **density** $p(x)$ says how tightly the probability is packed around $x$. The probability of an interval is the integral of $p$ over it. A density has a unit: "per unit of $x$". Measure $x$ in centimetres in place of metres and every density becomes a hundred times smaller; no probability changes. So a density may well exceed 1, and its logarithm may be positive. That will matter in chapters 04 and 05, where a "log-likelihood" turns out positive and nobody has made a mistake.
#
# The **Gaussian** (or *normal*) density with mean $\mu$ and variance $\sigma^2$ is
#
# $$ \mathcal N(x;\ \mu,\ \sigma^2) = \frac{1}{\sqrt{2\pi\sigma^2}}\;\exp\Big(-\frac{(x-\mu)^2}{2\sigma^2}\Big) \tag{1.1, definition} $$
#
# The semicolon separates the point $x$, where we ask, from the parameters. "$x\sim\mathcal N(\mu,\sigma^2)$" means: $x$ is drawn with this density. The case $\mathcal N(0,1)$ is called the *standard* normal. It is one Gaussian among many; we keep the letter $z$, and later $\varepsilon$, for it.
#
# Three facts turn the formula into "area 1, mean $\mu$, variance $\sigma^2$". All three are integrals, and one substitution makes them simple: $x=\mu+\sigma z$. Then $dx=\sigma\,dz$, this $\sigma$ cancels the one under the root, and the *standard* bell $\frac{1}{\sqrt{2\pi}}e^{-z^2/2}$ is left. Three things have to be known about it.
#
# - *Its area is 1.* Why $\sqrt{2\pi}$? The square of the area under $e^{-z^2/2}$ is the volume under the hill $e^{-(z_1^2+z_2^2)/2}$, since the hill is the product of two bells. Cut the hill into rings: at distance $\ell$ from the top, a ring has length $2\pi\ell$ and height $e^{-\ell^2/2}$. The volume is $2\pi$ times the integral (1.2), so the area is $\sqrt{2\pi}$.
# - *Its mean is 0.* The bell is the same left and right, $z$ changes sign, and the two halves cancel.
# - *Its mean square is 1.* The derivative of the bell is $-z$ times the bell. Integrate by parts: differentiate one factor $z$, integrate the other together with the bell. At both ends $z$ times the bell goes to 0.
#
# In the proofs, `N` is the density of (1.1), written so that SymPy displays it by its name and integrates its formula. Each line is checked against the line before it.

# %% tags=["proof"]
class N(sp.Function):
    """The density N(x; mean, variance) of definition 1.1."""

    nargs = 3

    def _latex(self, printer, exp=None):
        at, mean, var = map(printer.doprint, self.args)
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\mathcal{{N}}{power}\left({at};\ {mean},\ {var}\right)"

    def doit(self, **hints):
        at, mean, var = (arg.doit(**hints) for arg in self.args)
        return sp.exp(-((at - mean) ** 2) / (2 * var)) / sp.sqrt(2 * sp.pi * var)


x, everywhere = sp.Symbol("x", real=True), (-sp.oo, sp.oo)
over_x, over_z, ell = (x, *everywhere), (z, *everywhere), sp.Symbol(r"\ell", positive=True)
area = sp.Integral(N(z, 0, 1), over_z)
equation("1.2", sp.Integral(ell * sp.exp(-(ell**2) / 2), (ell, 0, sp.oo)), 1)
derive("1.3", sp.Integral(N(x, mu, sigma**2), over_x),
       (area, "substitute; the sigmas cancel"),
       (sp.Integer(1), "the hill, cut into rings"))
derive("1.4", sp.Integral(x * N(x, mu, sigma**2), over_x),
       (mu * area + sigma * sp.Integral(z * N(z, 0, 1), over_z), "substitute; split the sum"),
       (mu, "area 1; left and right cancel"))
derive("1.5", sp.Integral((x - mu) ** 2 * N(x, mu, sigma**2), over_x),
       (sigma**2 * sp.Integral(z**2 * N(z, 0, 1), over_z), "substitute"),
       (sigma**2 * area, "by parts"),
       (sigma**2, "area 1"))

# %% [markdown]
# The area is 1, the mean is $\mu$, the mean squared distance from $\mu$ is $\sigma^2$. These proofs do not say why nature likes this shape. For us the reason is practical: the family stays inside itself under the operations of our derivations: scaling, adding independent ones, multiplying densities, conditioning one Gaussian on another. That is rare.
#
# The package computes the logarithm of (1.1), because products of many densities underflow and sums of logarithms do not. Here are our formula and the package side by side, and a density above 1.

# %%
x_value, mean_value, std_value = 0.3, 0.25, 0.1
package = normal_log_prob(torch.tensor(x_value, dtype=torch.float64), mean_value, std_value**2)
agrees(sp.log(N(x, mu, sigma**2)), {x: x_value, mu: mean_value, sigma: std_value}, package)
print(f"density {float(package.exp()):.2f}, log density {float(package):.2f}: neither is a probability")

# %% [markdown]
# Does area really count draws? We draw 100,000 numbers with standard deviation 0.1, count how many fall between 0 and 0.1, and add up thin rectangles under the bell (height times width).

# %%
draws = 0.1 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
counted = float(((draws > 0) & (draws < 0.1)).double().mean())
middles = torch.arange(0.0005, 0.1, 0.001, dtype=torch.float64)
area = float((bell(middles, 0, 0.01) * 0.001).sum())
print(f"counted: {counted:.2f}   area: {area:.2f}")
assert abs(counted - area) < 4 * (area * (1 - area) / 100_000) ** 0.5 and abs(area - math.erf(0.5**0.5) / 2) < 1e-5

# %% [markdown]
# ## Standard deviation and variance
#
# Here the first crowd of readers gets lost, so we stop for a picture. The **standard deviation** $\sigma$ is a *length*: it is measured in the units of $x$ and can be drawn on the $x$-axis. The **variance** $\sigma^2$ is an *area*: the square over that length (not the area under the bell, which is 1). Laws are written with the variance, because variances add. Code multiplies by the standard deviation, because a draw is a length.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
wide = torch.linspace(-2, 2, 401)
left.plot(wide, bell(wide, 0, 0.25))
left.annotate("", (0.5, 0.48), (0, 0.48), arrowprops={"arrowstyle": "<->", "color": RED})
left.text(0.55, 0.5, r"$\sigma = 0.5$, a length", color=RED)
left.set(title=r"the bell of $\mathcal{N}(0,\ 0.25)$", xlabel="x")
right.add_patch(plt.Rectangle((0, 0), 0.5, 0.5, color=ORANGE, alpha=0.5))
right.plot([0, 0.5], [0, 0], color=RED, linewidth=4)
right.text(0.56, 0.23, r"$\sigma^2 = 0.25$, an area")
right.set(xlim=(-0.1, 1.3), ylim=(-0.1, 0.7), aspect="equal", title="the square over that length")
plt.show()

# %% [markdown]
# What does confusing them do to a picture? Below, noise of variance 0.1 is added to digits: once rightly, multiplied by the standard deviation $\sqrt{0.1}\approx0.32$, and once wrongly, multiplied by 0.1. The wrong row looks fine to the eye. Its noise has a tenth of the wanted variance. (The display cuts at black and white, so part of the noise cannot be seen.)

# %%
pictures = digits().train.images[:10]
noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
show_rows({"data": pictures, "+ sqrt(0.1) z": pictures + 0.1**0.5 * noise, "+ 0.1 z": pictures + 0.1 * noise})
plt.show()

# %% [markdown]
# ## Scaling and shifting
#
# Take $x\sim\mathcal N(\mu,\sigma^2)$ and look at $y=ax+b$ with a number $a>0$. Stretching the axis by $a$ spreads the same probability over $a$ times the length. In the picture, the blue strip becomes the orange one: twice as wide, half as high, the same area.

# %%
stretched = torch.linspace(-3, 6, 451, dtype=torch.float64)
fig, ax = plt.subplots(figsize=(7, 2.4))
for mean_value, var_value, strip, color, label in ((0, 1, (0.5, 1), BLUE, "x"), (1, 4, (2, 3), ORANGE, "y = 2x + 1")):
    inside = torch.linspace(*strip, 21, dtype=torch.float64)
    ax.plot(stretched, bell(stretched, mean_value, var_value), color=color, label=label)
    ax.fill_between(inside, bell(inside, mean_value, var_value), color=color, alpha=0.45)
ax.set(title="twice as wide, half as high: the shaded areas are equal", ylim=(0, 0.45), xlabel="x or y", ylabel="density")
ax.legend()
plt.show()

# %% [markdown]
# So the density at $y$ is the density at the point it came from, $x=(y-b)/a$, *divided by* $a$. Is the result a Gaussian again, and which one? Two things must fit. In the exponent, multiply top and bottom by $a^2$: that is (1.6). In front, $a\sqrt{2\pi\sigma^2}=\sqrt{2\pi a^2\sigma^2}$, because a positive $a$ goes under the root as $a^2$. Together they are (1.7).

# %% tags=["proof"]
y, b = sp.symbols("y b", real=True)
a = sp.Symbol("a", positive=True)
equation("1.6", ((y - b) / a - mu) ** 2 / (2 * sigma**2), (y - (a * mu + b)) ** 2 / (2 * a**2 * sigma**2))
equation("1.7", N((y - b) / a, mu, sigma**2) / a, N(y, a * mu + b, a**2 * sigma**2))

# %% [markdown]
# It is. In words: $a\,\mathcal N(\mu,\sigma^2)+b=\mathcal N(a\mu+b,\ a^2\sigma^2)$. The factor goes into the mean as it is, into the variance as its square. The proof took $a>0$; a negative $a$ also mirrors the axis, which leaves $a^2$ as it is and puts $|a|$ where we divided by $a$.
#
# Read backwards, this is the recipe for every draw in the course: draw a fresh standard normal $z$ each time and set $x=\mu+\sigma z$.

# %%
z_many = torch.randn(200_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
for a_value, b_value in ((3.0, 1.0), (-2.0, 0.5)):
    y_many = a_value * (1 + 0.2 * z_many) + b_value  # x ~ N(1, 0.04)
    print(f"a = {a_value:4.1f}: mean {float(y_many.mean()):4.1f}, variance {float(y_many.var()):.2f}")
    assert abs(float(y_many.mean()) - (a_value + b_value)) < 4 * abs(a_value) * 0.2 / 200_000**0.5
    assert abs(float(y_many.var()) / (0.04 * a_value**2) - 1) < 4 * (2 / 200_000) ** 0.5

# %% [markdown]
# ## Which variables does an expectation run over?
#
# An expectation is an average over something that is drawn again and again. Its subscript says *what* is drawn again. Everything else is held fixed, and stays in the answer.
#
# $$ \mathbb E_{x}\big[f(x,y)\big] = \int f(x,y)\;p(x)\;dx \qquad\text{a function of } y \tag{1.8, definition} $$
#
# Papers on diffusion write $\mathbb E_q[\dots]$ with a single letter $q$. They mean: draw every variable that appears inside by the process $q$, and average. $\mathbb E_{q(x_t\mid x_0)}$ means: hold $x_0$ fixed, draw $x_t$ given it. When you are lost in a derivation, write the variables under the $\mathbb E$. That cures most of it.
#
# The standard example of this course: a noisy number $x=a\,x_0+b\,\varepsilon$, built from a data value $x_0$ and an independent standard normal $\varepsilon$. We ask for the mean of its square, three times. The first answer keeps $x_0$, the second is a plain number once the data are known, the third keeps $\varepsilon$.

# %% tags=["proof"]
e = normal(r"\varepsilon")
noisy = a * x_0 + b * e
mixed = 2 * a * b * Expect(x_0, x_0) * Expect(e, e)
derive("1.9", Expect(noisy**2, e),
       (a**2 * x_0**2 + 2 * a * b * x_0 * Expect(e, e) + b**2 * Expect(e**2, e), "expand; the data value is fixed and leaves the average"),
       (a**2 * x_0**2 + b**2, "the noise has mean 0 and mean square 1"))
derive("1.10", Expect(noisy**2, x_0, e),
       (a**2 * Expect(x_0**2, x_0) + mixed + b**2 * Expect(e**2, e), "expand; independence splits the mixed mean"),
       (a**2 * Expect(x_0**2, x_0) + b**2, "the noise has mean 0 and mean square 1"))
derive("1.11", Expect(noisy**2, x_0),
       (a**2 * Expect(x_0**2, x_0) + 2 * a * b * e * Expect(x_0, x_0) + b**2 * e**2, "expand; now the noise is fixed"))

# %% [markdown]
# Three facts were used. The average is *linear*: sums are split, and what is held fixed comes out. The noise has $\mathbb E[\varepsilon]=0$ and, by (1.5), $\mathbb E[\varepsilon^2]=1$. And in (1.10), *independence*: the joint density of $x_0$ and $\varepsilon$ is the product $p(x_0)\,p(\varepsilon)$. Then the double integral of $x_0\,\varepsilon$ splits into two single ones, and the mean of the product is the product of the means, $\mathbb E[x_0]\cdot 0$. Nothing was said about the law of $x_0$. That is why its second moment is left standing.
#
# Notice the order: average (1.9) over $x_0$, which was fixed until now, and you get (1.10). (That $\varepsilon$ keeps its law when $x_0$ is held fixed is independence again.)

# %% tags=["proof"]
equation("1.12", Expect(a**2 * x_0**2 + b**2, x_0), a**2 * Expect(x_0**2, x_0) + b**2)

# %% [markdown]
# An average over everything can be taken in stages, the innermost first. This is the **tower rule**; in chapter 05 it turns the terms of the bound into KLs:
#
# $\displaystyle \mathbb E_{x,y}\big[f(x,y)\big]=\mathbb E_{y}\Big[\;\mathbb E_{x\mid y}\big[f(x,y)\big]\Big].$
#
# Its reason is one line: $p(x,y)=p(y)\,p(x\mid y)$, so the double integral of $f$ may be done over $x$ first, with $p(x\mid y)$ and $y$ held fixed, and over $y$ afterwards. Independence is *not* needed; the inner average simply runs over $x$ drawn *given* $y$. In this course it reads: draw a picture $x_0$, hold it, average over all its noisy versions $x_t$; then average over the pictures.
#
# In code the subscript is the `dim` of a mean. Let rows be different $x_0$ and columns different $\varepsilon$. Averaging along a row is $\mathbb E_\varepsilon$; there is one answer a row. Averaging everything is $\mathbb E_{x_0,\varepsilon}$; there is one answer in all.

# %%
x_0_rows = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)[:, None]
eps_columns = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
squares = (0.8 * x_0_rows + 0.6 * eps_columns) ** 2  # (4 data values, 50,000 noises)
for value, row_mean in zip(x_0_rows[:, 0], squares.mean(dim=1), strict=True):
    assert abs(float(row_mean) - (0.64 * float(value) ** 2 + 0.36)) < 0.05
print("E over eps, one number for each x_0:", [f"{m:.1f}" for m in squares.mean(dim=1).tolist()])
print(f"E over x_0 and eps, one number: {float(squares.mean()):.1f}")

# %%
fig, (table, rows, both) = plt.subplots(1, 3, figsize=(9.5, 2.6), gridspec_kw={"width_ratios": [8, 1.3, 1.3]})
panels = {table: squares[:, :24], rows: squares.mean(1, keepdim=True), both: squares.mean().reshape(1, 1)}
for ax, values in panels.items():
    ax.imshow(values, vmin=0, vmax=5, cmap="viridis", aspect="auto")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
table.set_title(r"$(a\,x_0 + b\,\varepsilon)^2$: a row for each $x_0$, a column for each $\varepsilon$")
table.set_ylabel("$x_0$")
table.set_yticks(range(4), ["-1", "0", "1", "2"])
table.set_xlabel("$\\varepsilon$: 24 draws")
rows.set_title(r"$\mathbb{E}_{\varepsilon}$")
both.set_title(r"$\mathbb{E}_{x_0,\varepsilon}$")
plt.show()

# %% [markdown]
# The left panel shows the first 24 of 50,000 columns. The middle strip still has one answer for each $x_0$ (the rows of $-1$ and $1$ agree, because their squares do). The right one has a single answer. Dark is 0, yellow is 5 or more.
#
# ## Adding independent Gaussians
#
# Let $u$ have variance $s^2$, let $w$ have variance $r^2$, both with mean 0. Write them as $u=s\,z_1$ and $w=r\,z_2$ with standard normals. What is the variance of $u+w$?

# %% tags=["proof"]
s, r = sp.symbols("s r", positive=True)
z_1, z_2 = normal("z_1"), normal("z_2")
derive("1.13", Expect((s * z_1 + r * z_2) ** 2, z_1, z_2),
       (s**2 * Expect(z_1**2, z_1) + r**2 * Expect(z_2**2, z_2) + 2 * s * r * Expect(z_1, z_1) * Expect(z_2, z_2),
        "expand; independence splits the mixed mean"),
       (s**2 + r**2, "mean 0 and variance 1, twice"))

# %% [markdown]
# Variances add. Look at where independence came in: only in the mixed term, where the mean of a product became the product of the means. The calculation holds for any independent variables with these variances, Gaussian or not.
#
# The *shape* is a separate question. The density of a sum of independent variables is a convolution: to land on $y$, the first lands anywhere, on $u$, and the second makes up the rest, $y-u$; integrate over all $u$.

# %% tags=["proof"]
u = sp.Symbol("u", real=True)
equation("1.14", sp.Integral(N(u, 0, s**2) * N(y - u, 0, r**2), (u, *everywhere)), N(y, 0, s**2 + r**2))

# %% [markdown]
# The sum is a Gaussian again. This is the fact that lets a thousand noising steps be replaced by one jump (chapter 02). Means simply add, by (1.7): shift both bells. The proof says nothing about sums of *dependent* Gaussians, and the next experiment shows what happens then.
#
# ### The same noise, used twice
#
# Draw $z$ once and use it in both places. Then $s\,z+r\,z=(s+r)\,z$: the two parts always push the same way. The standard deviations add now, in place of the variances. (Between these two cases lie all others: exercise 1.6.)

# %% tags=["proof"]
equation("1.15", Expect((s * z + r * z) ** 2, z), (s + r) ** 2)

# %%
g = torch.Generator().manual_seed(4)
first, second = torch.randn(2, 100_000, generator=g, dtype=torch.float64)
fresh, reused = 0.6 * first + 0.8 * second, 0.6 * first + 0.8 * first
print(f"variance with fresh noise {float(fresh.var()):.1f}, with the same noise twice {float(reused.var()):.1f}")
assert abs(float(fresh.var()) - 1.0) < 0.02 and abs(float(reused.var()) - 1.96) < 0.04

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.5, 3))
for ax, other, title in ((axes[0], second, "two draws: independent"), (axes[1], first, "one draw used twice")):
    ax.scatter(0.6 * first[:800], 0.8 * other[:800], s=3, alpha=0.5, linewidths=0)
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=title, xlabel="first term", ylabel="second term")
for name, total, color in (("fresh", fresh, BLUE), ("reused", reused, RED)):
    axes[2].hist(total.numpy(), bins=80, range=(-5, 5), density=True, alpha=0.45, color=color, label=name)
axes[2].set(title="histogram of the sum", yticks=[], xlabel="sum")
axes[2].legend()
plt.show()

# %% [markdown]
# > **An image to keep: two dice.** Throw two dice and add. A high first die says nothing about the second, so they often compensate; sums near 7 are common, 2 and 12 are rare. Now throw *one* die and double it: 2 and 12 are as common as any sum that can occur. Same mean, twice the variance. Independence is what makes errors compensate. *Where it breaks:* the sum of two dice is not a die: its bar chart is a triangle. Gaussians are an exception, their sum keeps its shape. And dice are bounded; Gaussians reach, rarely, as far as you like.

# %%
two_dice = torch.tensor([min(k - 1, 13 - k) / 36 for k in range(2, 13)], dtype=torch.float64)
doubled = torch.tensor([(1 - k % 2) / 6 for k in range(2, 13)], dtype=torch.float64)
points = torch.arange(2.0, 13.0, dtype=torch.float64)
for name, p in (("two dice", two_dice), ("one die, doubled", doubled)):
    print(f"{name}: mean {float((p * points).sum()):.0f}, variance {float((p * (points - 7) ** 2).sum()):.2f}")
fig, ax = plt.subplots(figsize=(6, 2.4))
ax.bar((points - 0.2).tolist(), two_dice.tolist(), 0.4, label="two dice, added")
ax.bar((points + 0.2).tolist(), doubled.tolist(), 0.4, color=RED, label="one die, doubled")
ax.set(xlabel="sum", ylabel="probability", ylim=(0, 0.24), title="the same mean, another variance")
ax.legend(ncols=2)
plt.show()

# %% [markdown]
# ## Multiplying two bells
#
# So far we added *variables*. Now we multiply *densities*, point by point. This is another operation, with another meaning. Suppose a thermometer says $x\approx m_1$, give or take $s$. A second one, independent of it, says $x\approx m_2$, give or take $r$. If the true value were $x$, how dense would *each* reading be? A bell around $x$, read at $m_1$, is as high as a bell around $m_1$, read at $x$: only the distance counts. The errors are independent, so the two densities multiply, and a value of $x$ is plausible if it is plausible for both. Multiply the two bells, then divide by the area so that it is 1 again. (We had no opinion of our own about $x$. An opinion would be a third bell to multiply with.) Chapter 03 is this thermometer calculation, with the names prior and likelihood.
#
# A product of two exponentials adds their exponents. So we have to add two parabolas in $x$, and a sum of two parabolas is a parabola. **Completing the square** means: write it as one square plus a rest without $x$. Where is the vertex? Set the derivative to zero: $(x-m_1)/s^2+(x-m_2)/r^2=0$. Solved for $x$, that is the weighted mean $m$; we give it a name, and the new variance too:
#
# $$ m = \frac{m_1/s^2 + m_2/r^2}{1/s^2+1/r^2}, \qquad \frac1v = \frac1{s^2}+\frac1{r^2} \tag{1.16, definition} $$
#
# where $1/v$ is the factor of $x^2$ in the sum of the two parabolas: it says how steeply the sum bends. The inverse of a variance is called **precision**: precisions add, and each mean counts with its precision.
#
# Two polynomials in $x$ are equal if their coefficients are. So we expand the squares and compare $x^2$, $x$ and the rest, one at a time:
#
# - the factor of $x^2$ is $\frac1{s^2}+\frac1{r^2}$ on the left; the square $(x-m)^2/v$ has $\frac1v$ (1.17: the second half of the definition);
# - the factor of $-2x$ is $\frac{m_1}{s^2}+\frac{m_2}{r^2}$ on the left; the square has $\frac mv$ (1.18);
# - what the square does not use up is the rest, (1.19), and it is free of $x$.

# %% tags=["proof"]
m_1, m_2, m = sp.symbols("m_1 m_2 m", real=True)
v = sp.Symbol("v", positive=True)
combined = {m: (m_1 * r**2 + m_2 * s**2) / (r**2 + s**2), v: r**2 * s**2 / (r**2 + s**2)}  # 1.16, cleared of fractions
two_squares = (x - m_1) ** 2 / s**2 + (x - m_2) ** 2 / r**2
equation("1.17", 1 / s**2 + 1 / r**2, 1 / v, given=combined)
equation("1.18", m_1 / s**2 + m_2 / r**2, m / v, given=combined)
top = (m_1**2 * r**2 + m_2**2 * s**2) * (r**2 + s**2) - (m_1 * r**2 + m_2 * s**2) ** 2
derive("1.19", m_1**2 / s**2 + m_2**2 / r**2 - m**2 / v,
       (top / (r**2 * s**2 * (r**2 + s**2)), "put in m and v; one denominator"),
       ((m_1 - m_2) ** 2 / (r**2 + s**2), "multiply out: the fourth powers cancel, then a common factor"), given=combined)
equation("1.20", two_squares, (x - m) ** 2 / v + (m_1 - m_2) ** 2 / (r**2 + s**2), given=combined)
equation("1.21", s**2 * r**2, v * (s**2 + r**2), given=combined)

# %% [markdown]
# (1.20) collects the three lines and takes care of the exponents; (1.21) takes care of the factors in front. Put both into (1.1) and the product of the densities is
#
# $\displaystyle \mathcal N(x;\,m_1,s^2)\;\mathcal N(x;\,m_2,r^2)=\underbrace{\mathcal N(m_1;\,m_2,\,s^2+r^2)}_{\text{a number, free of }x}\;\cdot\;\mathcal N(x;\,m,v).$
#
# The number in front is small if the two bells hardly overlap: then the two witnesses contradict each other. Dividing by the area removes it. The next cell proves the whole line, in logarithms.

# %% tags=["proof"]
product = sp.log(N(x, m_1, s**2)) + sp.log(N(x, m_2, r**2))
equation("1.22", product, sp.log(N(m_1, m_2, s**2 + r**2)) + sp.log(N(x, m, v)), given=combined)

# %% [markdown]
# This line also repays a debt. The convolution (1.14) was integrated by SymPy; now we can do it by hand. Under the integral stands $\mathcal N(u;0,s^2)\,\mathcal N(y-u;0,r^2)$. The second factor depends only on the distance of $u$ and $y$, so it is $\mathcal N(u;y,r^2)$: a product of two bells in $u$. By (1.22), with $m_1=0$ and $m_2=y$, it is $\mathcal N(0;y,s^2+r^2)$ times a bell in $u$ of area 1. Integrate over $u$, and $\mathcal N(y;0,s^2+r^2)$ is left. What the proof does not cover: witnesses whose errors are not independent.

# %%
m1_value, s_value, m2_value, r_value = -1.0, 0.8, 1.0, 0.5
product_curve = bell(x_axis, m1_value, s_value**2) * bell(x_axis, m2_value, r_value**2)
product_curve = product_curve / (product_curve.sum() * 0.01)  # divide by the area; the grid's cells are 0.01 wide
precision = 1 / s_value**2 + 1 / r_value**2
m_value = (m1_value / s_value**2 + m2_value / r_value**2) / precision
torch.testing.assert_close(product_curve, bell(x_axis, m_value, 1 / precision), rtol=0, atol=1e-4)
two = {"first bell": bell(x_axis, m1_value, s_value**2), "second bell": bell(x_axis, m2_value, r_value**2)}
ax = curves(x_axis, two | {"product, area made 1": product_curve}, xlabel="x")
ax.set_title("the product lies between, and is narrower than both")
ax.axvline(m_value, color=GREY, linewidth=0.8, label="m")
ax.set_ylabel("density")
ax.legend()
plt.show()

# %% [markdown]
# The product sits nearer to the narrower bell, and it is narrower than either: two witnesses know more than one. Beware of the words. *Product of densities* is not *density of a product* (the product of two Gaussian variables is not Gaussian), and it is not the sum of independent variables, which is *wider* than both.
#
# ### Play with it
#
# Two bells; the first stays $\mathcal N(-1,0.64)$. Move the second. Choose what to do with them, and watch the width of the green curve: narrower than both for the product, wider than both for the independent sum, wider still for a sum that uses the same noise twice. Without a running kernel, compare the figures of "The same noise, used twice" and "Multiplying two bells" above.

# %%
from ddpm_course.widgets import choice, explore, slider

wide_axis = torch.linspace(-5, 5, 500, dtype=torch.float64)


def draw(mean, std, what):
    precision = 1 / 0.64 + 1 / std**2
    result = {"product of densities": ((-1 / 0.64 + mean / std**2) / precision, 1 / precision),
              "sum, independent": (mean - 1, 0.64 + std**2), "sum, same noise": (mean - 1, (0.8 + std) ** 2)}[what]
    lines = {"first": (-1, 0.64), "second": (mean, std**2), what: result}
    ax = curves(wide_axis, {k: bell(wide_axis, *p) for k, p in lines.items()}, xlabel="x", ylim=(0, 2.2))
    ax.set_title(f"{what}: mean {result[0]:.2f}, std {result[1] ** 0.5:.2f}")


explore(draw, mean=slider(-3.0, 3.0, 1.0, 0.1), std=slider(0.2, 2.0, 0.5, 0.1),
        what=choice(["product of densities", "sum, independent", "sum, same noise"]))

# %% [markdown]
# ## Gradients through a random draw
#
# Suppose $\mu$ and $\sigma$ are answers of a network, and the loss depends on a draw from $\mathcal N(\mu,\sigma^2)$. How does the loss change if $\mu$ moves a little? A finished random number has forgotten where it came from. The **reparameterisation trick** keeps the memory: draw $z\sim\mathcal N(0,1)$, which has no parameters, and compute $x=\mu+\sigma z$. For the drawn $z$, this is an ordinary differentiable function of $\mu$ and $\sigma$.
#
# A loss whose average we know: the squared distance to a target $c$.

# %% tags=["proof"]
c = sp.Symbol("c", real=True)
loss = (mu + sigma * z - c) ** 2
derive("1.23", Expect(loss, z),
       ((mu - c) ** 2 + 2 * (mu - c) * sigma * Expect(z, z) + sigma**2 * Expect(z**2, z), "expand; only z is drawn"),
       ((mu - c) ** 2 + sigma**2, "mean 0, mean square 1"))
equation("1.24", Expect(sp.diff(loss, mu), z), 2 * (mu - c))
equation("1.25", Expect(sp.diff(loss, sigma), z), 2 * sigma)

# %% [markdown]
# The right sides of (1.24) and (1.25) are the derivatives of the right side of (1.23). So differentiating inside the average gave the derivative *of* the average. This may be done because $z$ is drawn from a law without $\mu$ and $\sigma$: the weights of the average do not move when the parameters do. (The proof does not cover draws that are not a smooth function of the parameters, such as the toss of a coin.) Now PyTorch, with a hundred thousand draws. It knows nothing of the formulas.

# %%
mean, std = torch.tensor(0.5, requires_grad=True), torch.tensor(0.8, requires_grad=True)
z_many = torch.randn(100_000, generator=torch.Generator().manual_seed(5))
((mean + std * z_many - 2.0) ** 2).mean().backward()
print(f"gradient for mu: {float(mean.grad):.1f} (formula {2 * (0.5 - 2):.1f})")
print(f"gradient for sigma: {float(std.grad):.1f} (formula {2 * 0.8:.1f})")
assert abs(float(mean.grad) + 3.0) < 0.03 and abs(float(std.grad) - 1.6) < 0.06

# %% [markdown]
# And the draw that has forgotten? `torch.normal` takes a mean and a standard deviation and returns finished numbers. It even accepts parameters that want gradients. Then it hands back the gradient 0, without a word. The parameters before such a draw would never learn.

# %%
mean = torch.tensor(0.5, requires_grad=True)
finished = torch.normal(mean.expand(1000), 0.8 * torch.ones(1000), generator=torch.Generator().manual_seed(6))
((finished - 2.0) ** 2).mean().backward()
print(f"through torch.normal the gradient is {float(mean.grad):.0f}; the true one is -3")
assert float(mean.grad) == 0

# %% [markdown]
# ## The conditional mean is the best guess
#
# Chapters 06 and 08 will train networks $\varepsilon_\theta(x_t,t)$ to guess the noise, first in points, then in pictures. They cannot guess it exactly: different noises on different data can give the same $x_t$. What does a network learn that is punished by the square of its error? It learns the **conditional mean** $\mathbb E[\varepsilon\mid x_t]$: the average of all noises that could have led here.
#
# The argument needs one $x_t$ at a time. Fix it. The unknown $y$ (here the noise) is still random; $\mathbb E_y$ runs over its law *given this* $x_t$. The network must answer one number $f$. Its average loss is

# %% tags=["proof"]
target, f = sp.symbols("y f", real=True)
m_y = Expect(target, target)
derive("1.26", Expect((target - f) ** 2, target),
       (Expect(target**2, target) - 2 * f * m_y + f**2, "expand; f is fixed, so it leaves the mean"),
       (Expect(target**2, target) - m_y**2 + (f - m_y) ** 2, "add and subtract the squared mean"))

# %% [markdown]
# Put $f=\mathbb E_y[y]$ into (1.26): the square vanishes, and what is left is the mean squared distance of $y$ from its own mean. So the other two terms are the variance of $y$; no answer $f$ can change it. The square is zero exactly for $f=\mathbb E_y[y]$.
#
# Is what is best for one $x_t$ also best for the whole loss? By the tower rule the whole loss is $\mathbb E_{x_t}\big[\mathbb E_{y\mid x_t}[(y-f(x_t))^2]\big]$. The network may give another answer at each $x_t$, so every inner average can be made as small as possible, each on its own. Two lessons for later. The best answer to a squared loss is the conditional mean. And *the loss does not go to 0*: what remains is the conditional variance. The proof does not say that a network finds this answer, only that none is better.
#
# Now the picture. The data are just two points, $x_0=-1$ and $x_0=+1$, equally likely. We mix them with noise, $x_t=a\,x_0+b\,\varepsilon$, with the $a$ and $b$ of chapter 02 at $t=260$, where signal and noise are about equal. Each blue dot is one pair $(x_t,\varepsilon)$. The orange dots average $\varepsilon$ in thin slices of $x_t$: no theory in them.
#
# The black curve is the theory. Given $x_t$, the point was $+1$ with some probability $w$ and then $\varepsilon=(x_t-a)/b$, or it was $-1$ and then $\varepsilon=(x_t+a)/b$. Bayes gives $w$ (1.27): the height of one bell at $x_t$, over the sum of both heights. In the quotient of the two heights the squares leave $(x_t+a)^2-(x_t-a)^2=4a\,x_t$. The last line of (1.28) is the definition of $\tanh(a\,x_t/b^2)$. And the mean of the two possible answers, with weights $w$ and $1-w$, is (1.29). There $2w-1$ is the $\tanh$ of (1.28), so $\mathbb E[\varepsilon\mid x_t]=\big(x_t-a\tanh(a\,x_t/b^2)\big)/b$, for these two points.

# %% tags=["proof"]
width, w = sp.Symbol("b", positive=True), sp.Symbol("w")
plus, minus = N(x_t, a, width**2), N(x_t, -a, width**2)
u_t = a * x_t / width**2
logistic = 1 / (1 + sp.exp(-2 * u_t))
derive("1.27", (plus / 2) / (plus / 2 + minus / 2),
       (plus / (plus + minus), "both points are equally likely: the halves cancel"),
       (logistic, "divide top and bottom by the top"))
derive("1.28", 2 * logistic - 1,
       ((1 - sp.exp(-2 * u_t)) / (1 + sp.exp(-2 * u_t)), "one denominator"),
       ((sp.exp(u_t) - sp.exp(-u_t)) / (sp.exp(u_t) + sp.exp(-u_t)), "multiply top and bottom by a power of e"))
equation("1.29", w * (x_t - a) / width + (1 - w) * (x_t + a) / width, (x_t - a * (2 * w - 1)) / width)

# %%
bar = float(linear_schedule().alpha_bar[260])
a_260, b_260, g = bar**0.5, (1 - bar) ** 0.5, torch.Generator().manual_seed(7)
x_0_draws = 2.0 * torch.randint(2, (60_000,), generator=g) - 1
eps_draws = torch.randn(60_000, generator=g)
x_t_draws = a_260 * x_0_draws + b_260 * eps_draws
edges = torch.linspace(-2.2, 2.2, 45)
which = torch.bucketize(x_t_draws, edges)
slice_means = torch.stack([eps_draws[which == k].mean() for k in range(1, 45)])


def mean_eps(x_t):
    return (x_t - a_260 * torch.tanh(a_260 * x_t / b_260**2)) / b_260


# %%
centres = (edges[1:] + edges[:-1]) / 2
fig, ax = plt.subplots(figsize=(7, 3.4))
ax.scatter(x_t_draws[:2500], eps_draws[:2500], s=3, alpha=0.35, linewidths=0)
ax.plot(centres, mean_eps(centres), color="black", label=r"$\mathbb{E}[\varepsilon\,|\,x_t]$, by Bayes")
ax.plot(centres, slice_means, "o", color=ORANGE, markersize=4, label="average in thin slices")
ax.set(xlabel="$x_t$", ylabel=r"$\varepsilon$", ylim=(-3.5, 3.5), xlim=(-2.5, 2.5))
ax.set_title("the best guess runs between the two branches")
ax.legend()
plt.show()

# %% [markdown]
# Two branches, one for each data point. Far out only one branch is there, and the guess follows it. In the middle both are, and the guess is an average that is *itself never true*: at $x_t=0$ it says $\varepsilon=0$, while every real pair there has $\varepsilon=\pm a/b$. A well-trained network answers nearly this, too. It is the blur of chapter 00; chapter 06 comes back to it.
#
# The package contains this best guess for several kinds of data, under the name *oracle*. For two points it must be our black curve. And no other function may beat it, for instance the best straight line.

# %%
oracle = FiniteData(torch.tensor([[-1.0], [1.0]])).eps_model(linear_schedule())
test_points = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
torch.testing.assert_close(oracle(test_points, torch.full((61,), 260)), mean_eps(test_points), rtol=0, atol=1e-9)
slope = (x_t_draws * eps_draws).mean() / (x_t_draws**2).mean()
guesses = {"zero": 0 * x_t_draws, "best line": slope * x_t_draws, "conditional mean": mean_eps(x_t_draws)}
losses = {name: float(((eps_draws - guess) ** 2).mean()) for name, guess in guesses.items()}
print({name: f"{loss:.2f}" for name, loss in losses.items()})
left_over = float((a_260 / b_260) ** 2 * (1 - torch.tanh(a_260 * x_t_draws / b_260**2) ** 2).mean())  # variance of the two answers
print(f"variance of eps given x_t, averaged: {left_over:.2f}")
assert abs(losses["conditional mean"] - left_over) < 0.02 and losses["conditional mean"] < losses["best line"] < losses["zero"]

# %% [markdown]
# Even the best guess keeps a loss of 0.45. That is not bad training: it is the conditional variance of (1.26), averaged. (The two possible answers lie $2a/b$ apart, with weights $w$ and $1-w$; their variance is $4w(1-w)\,a^2/b^2$, and $4w(1-w)=1-(2w-1)^2$.)
#
# With real data the two thin branches become a cloud. Below each point is replaced by a little blob of standard deviation 0.3. The oracle for such blobs averages in the same way, with one more Gaussian inside (a blob with mean $m_k$ alone would answer $b\,(x_t-a\,m_k)/(0.3^2a^2+b^2)$; these answers are averaged with the probability of each blob given $x_t$. The orange dots check it, except in the tails, where they are few). The picture shows the whole idea of the course: the dots are what training sees, the curve is what a perfect network says.

# %%
blobs = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.3, 0.3]))
x_0_blobs = blobs.sample(60_000, torch.Generator().manual_seed(17))[:, 0]
x_t_blobs = a_260 * x_0_blobs + b_260 * eps_draws
which = torch.bucketize(x_t_blobs, edges.double())
means = [float(eps_draws[which == k].mean()) for k in range(1, 45)]
curve = blobs.eps_model(linear_schedule())(centres[:, None].double(), torch.full((44,), 260))[:, 0]
fig, ax = plt.subplots(figsize=(7, 3.4))
ax.scatter(x_t_blobs[:1200], eps_draws[:1200], s=3, alpha=0.35, linewidths=0)
ax.plot(centres, curve, color="black", label=r"oracle: $\mathbb{E}[\varepsilon\,|\,x_t]$")
ax.plot(centres, means, "o", color=ORANGE, markersize=4, label="average in thin slices")
ax.set(xlabel="$x_t$", ylabel=r"$\varepsilon$", ylim=(-3.5, 3.5), xlim=(-2.5, 2.5), title="a least-squares cloud")
ax.legend()
assert float((curve - torch.tensor(means)).abs()[8:-8].max()) < 0.1

# %% [markdown]
# ## Many dimensions: the shell
#
# A picture with $d$ pixels gets $d$ independent standard normals, written $z\sim\mathcal N(0,I)$. The matrix $I$ says: variance 1 for each pixel, no correlation between pixels. Such noise is **isotropic**: its density depends on the length $\lVert z\rVert$ only, so no direction is special. What we computed about noise itself (scaling, adding, multiplying bells, the KL) can be done for one pixel and used for all. The conditional mean $\mathbb E[\varepsilon\mid x_t]$ cannot: the pixels of a picture depend on each other, so the best guess for one of them looks at all of $x_t$.
#
# Yet many dimensions hold a surprise. How long is $z$? Its squared length is a sum of $d$ independent terms $z_i^2$. Each has mean 1. Its variance needs the fourth moment, which is 3: integrate by parts as in (1.5), and the derivative of $z^3$ brings the factor. So the variance is 2.

# %% tags=["proof"]
derive("1.30", sp.Integral(z**4 * N(z, 0, 1), over_z),
       (3 * sp.Integral(z**2 * N(z, 0, 1), over_z), "by parts"),
       (sp.Integer(3), "the variance is 1"))
derive("1.31", Expect((z**2 - 1) ** 2, z),
       (Expect(z**4, z) - 2 * Expect(z**2, z) + 1, "expand"),
       (3 - 2 * Expect(z**2, z) + 1, "the fourth moment is 3"),
       (sp.Integer(2), "the second moment is 1"))

# %% [markdown]
# So the squared length has mean $d$ and variance $2d$: it is $d$, give or take $\sqrt{2d}$. Relative to $d$ that is nothing once $d$ is large. The length itself is $\sqrt d$, give or take about $0.7$, however large $d$ is (0.60 at $d=1$, 0.68 at $d=4$): near $d$ the root has slope $1/(2\sqrt d)$, and $\sqrt{2d}$ times that slope is $1/\sqrt2$. Nearly all of the probability lives in a thin shell of radius $\sqrt d$. The density is highest at 0, and still nobody is there: there is hardly any volume near 0.

# %%
fig, ax = plt.subplots(figsize=(8, 2.8))
g, lengths = torch.Generator().manual_seed(8), {}
for d, color in zip((1, 4, 16, 64, 256), (BLUE, ORANGE, GREEN, RED, GREY), strict=True):
    lengths[d] = torch.randn(10_000, d, generator=g).norm(dim=1)
    ax.hist(lengths[d].numpy(), bins=120, range=(0, 19), density=True, alpha=0.6, color=color, label=f"d = {d}")
    ax.axvline(d**0.5, color=color, linewidth=0.8, linestyle="--")
    assert abs(float((lengths[d] ** 2).mean()) / d - 1) < 4 * (2 / d / 10_000) ** 0.5
ax.set(xlabel="length of z", ylabel="density", title="length of standard normal noise; dashed: the square root of d")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# How fast does the *mean* of the relative length approach 1? The mean length is a known integral, which we quote: $\sqrt2\,\Gamma\!\big(\tfrac{d+1}2\big)/\Gamma\!\big(\tfrac d2\big)$. Divided by $\sqrt d$ it approaches 1, and the gap falls like $1/d$. A single draw is further off: its relative length is 1, give or take $0.7/\sqrt d$.

# %% tags=["proof"]
sizes = [4, 16, 64, 256, 1024]
mean_length = [2**0.5 * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)) for d in sizes]
limit("1.32", sp.Symbol(r"\mathbb{E}_z \lVert z \rVert / \sqrt{d}"), sp.Integer(1), sizes=sizes,
      measured=[length / d**0.5 for length, d in zip(mean_length, sizes, strict=True)], order=1)
assert all(abs(float(lengths[d].mean()) - length) < 0.03 for d, length in zip(sizes[:4], mean_length[:4], strict=True))

# %% [markdown]
# What this means for pictures: an 8×8 digit at the end of the noising is nearly pure standard noise, so it lies near a sphere of radius $\sqrt{64}=8$. The average of two noises lies *inside* the sphere, at about $8/\sqrt2=5.7$. Only about 3 noises in 10,000 are that short. Chapter 10 will therefore walk along the sphere, and not straight through it, when it interpolates. The limit says nothing about a single draw in few dimensions: for $d=1$ the most likely length is 0.
#
# ## Monte Carlo: how wrong is an average?
#
# We keep replacing expectations by averages over $n$ draws. Such an average is itself random. Let each draw be $\mu+\sigma z_i$ (for the variance any law with variance $\sigma^2$ would do). The error of the average is the sum of the $\sigma z_i$, divided by $n$. Its mean is 0, so on average the answer is right. Its size follows by induction: the sum of $n$ errors has variance $n\sigma^2$. For $n=1$ there is nothing to show. Assume that the first $n-1$ errors together have variance $(n-1)\sigma^2$, so that we may write them as $\sqrt{n-1}\,\sigma z'$ with a $z'$ of variance 1; then add one more. The average below runs over all the draws.

# %% tags=["proof"]
n = sp.Symbol("n", positive=True)
z_old, z_n = normal("z'"), normal("z_n")
derive("1.33", Expect(((sp.sqrt(n - 1) * sigma * z_old + sigma * z_n) / n) ** 2, z_old, z_n),
       (((n - 1) * sigma**2 * Expect(z_old**2, z_old) + sigma**2 * Expect(z_n**2, z_n)) / n**2,
        "independent: variances add"),
       (sigma**2 / n, "n - 1 and 1 make n; one n cancels"))

# %% [markdown]
# So the average is off by about $\sigma/\sqrt n$, its **standard error**: typically, not each time. To halve the error, draw four times as many. To gain a digit, a hundred times. Now measure: we estimate $\mathbb E[z^2]=1$ with $n$ draws, four hundred times over, and look at the typical error.

# %% tags=["proof"]
g, sizes = torch.Generator().manual_seed(9), [10, 100, 1000, 10_000]
errors = [float(((torch.randn(400, k, generator=g) ** 2).mean(1) - 1).square().mean().sqrt()) for k in sizes]
typical = sp.Symbol(r"\text{root mean square of}\ \left(\frac{1}{n}\sum_{i=1}^{n} z_i^2 - 1\right)")
limit("1.34", typical, sp.Integer(0), sizes=sizes, measured=errors, order=0.5, tolerance=0.05)

# %%
fig, ax = plt.subplots(figsize=(6, 2.9))
ax.loglog(sizes, errors, "o", label="measured, 400 repetitions")
ax.loglog(sizes, [(2 / k) ** 0.5 for k in sizes], color=GREY, label=r"$\sqrt{2/n}$, the standard error")
ax.set(xlabel="n", ylabel="typical error", title="ten times the accuracy costs a hundred times the draws")
ax.legend()
plt.show()

# %% [markdown]
# The dots lie on the line, with slope $-\frac12$. The constant fits too: $z^2$ has variance 2 by (1.31).
#
# A Monte-Carlo number without its standard error says little. In this course we accept a match if it is within about 4 to 6 standard errors. How often would an honest average miss by more than 2, and by more than 4? We let a thousand experiments with 400 draws each vote. For each one the standard error is estimated from its own draws.

# %%
trials = torch.randn(1000, 400, generator=torch.Generator().manual_seed(10)) + 3.0
off = (trials.mean(1) - 3.0).abs() / (trials.std(1) / 400**0.5)
beyond_2, beyond_4 = (int((off > k).sum()) for k in (2, 4))
print(f"beyond 2 standard errors: {beyond_2} of 1000 experiments; beyond 4: {beyond_4}")
assert 30 < beyond_2 < 70 and beyond_4 <= 2

# %% [markdown]
# A Gaussian error is beyond 2 standard errors in 4.6 % of all cases: the count fits. It is beyond 4 in one case of 16,000; a thousand experiments cannot measure that.
#
# ## Chains with a short memory
#
# A **Markov chain** is a sequence $x_0,x_1,x_2,\dots$ in which each member is drawn from its predecessor alone. Once you know where the chain *is*, where it *was* tells you nothing more about where it goes:
#
# $$ q(x_t\mid x_{t-1},x_{t-2},\dots,x_0) = q(x_t\mid x_{t-1}) \tag{1.35, definition} $$
#
# (The letter $q$ stands for the law of a process that we choose ourselves.) It follows that the law of the whole path is a product of steps. First the product rule, which holds for any process: split off one member at a time, $q(x_1,x_2\mid x_0)=q(x_1\mid x_0)\,q(x_2\mid x_1,x_0)$, and so on. Then the Markov property: drop from each condition all but the last member. What is left is $q(x_1,\dots,x_T\mid x_0)=q(x_1\mid x_0)\,q(x_2\mid x_1)\cdots q(x_T\mid x_{T-1})$.
#
# Two things that *Markov* does not mean. It does not mean that $x_t$ is independent of $x_0$: the memory travels through the members in between. And it does not forbid to ask about the past, given the future; chapter 03 will.
#
# How would you see it in data? Predict $x_t$ by a straight line in $x_{t-1}$ and $x_{t-2}$ together. For a Markov chain of the form $x_t=0.8\,x_{t-1}+0.6\,\varepsilon_t$ the weight on $x_{t-2}$ is zero. For one that uses $x_{t-2}$ *linearly* it is not, and so it is exposed. (A weight of zero proves nothing in general: a straight line does not see every dependence.)

# %%
def walk(of_last, of_before, steps=20_000):
    noise = 0.6 * torch.randn(steps, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    path = [0.0, 0.0]
    for kick in noise.tolist():
        path.append(of_last * path[-1] + of_before * path[-2] + kick)
    return torch.tensor(path, dtype=torch.float64)


for name, path in (("Markov", walk(0.8, 0.0)), ("two steps of memory", walk(0.5, 0.3))):
    past = torch.stack([path[1:-1], path[:-2]], 1)
    weights = torch.linalg.lstsq(past, path[2:, None]).solution[:, 0].tolist()
    far = float(torch.corrcoef(torch.stack([path[2:], path[:-2]]))[0, 1])
    print(f"{name:20s} weight on the last {weights[0]:.1f}, the one before {abs(weights[1]):.1f}; correlation {far:.1f}")

# %% [markdown]
# In the first line the chain's member two steps back has weight zero, and yet it is correlated with $x_t$, by about $0.8^2=0.64$. Both at once: no *extra* information, and plenty of information.
#
# ## How far apart are two Gaussians?
#
# All terms but one of the bound of chapter 05 are distances between Gaussians. The distance is the **Kullback–Leibler divergence**, short KL (no distance in the strict sense: it is not symmetric). Draw $x$ from the first law; ask by how much the first log density exceeds the second; average.
#
# $$ \mathrm{KL}(p_1\,\Vert\,p_2) = \mathbb E_{x\sim p_1}\big[\log p_1(x)-\log p_2(x)\big] \tag{1.36, definition} $$
#
# The average runs over the *first* law: look at the subscript. The unit is the nat (natural logarithm); divide by $\log 2$ for bits. For two Gaussians we write the draw as $x=\mu_1+\sigma_1z$. Then everything is a polynomial in $z$. The first log density is $-\log\sigma_1-\frac12z^2$ and the second $-\log\sigma_2-\frac{(\mu_1+\sigma_1z-\mu_2)^2}{2\sigma_2^2}$; the terms $-\frac12\log2\pi$ cancel.

# %% tags=["proof"]
mu_1, mu_2 = sp.symbols("mu_1 mu_2", real=True)
sigma_1, sigma_2 = sp.symbols("sigma_1 sigma_2", positive=True)
log_ratio = sp.log(sigma_2 / sigma_1) - z**2 / 2 + (mu_1 + sigma_1 * z - mu_2) ** 2 / (2 * sigma_2**2)
x_draw = mu_1 + sigma_1 * z
equation("1.37", sp.log(N(x_draw, mu_1, sigma_1**2)) - sp.log(N(x_draw, mu_2, sigma_2**2)), log_ratio)
kl = sp.log(sigma_2 / sigma_1) - sp.Rational(1, 2) + (sigma_1**2 + (mu_1 - mu_2) ** 2) / (2 * sigma_2**2)
derive("1.38", Expect(log_ratio, z),
       (sp.log(sigma_2 / sigma_1) - sp.Rational(1, 2) + Expect((mu_1 - mu_2 + sigma_1 * z) ** 2, z) / (2 * sigma_2**2),
        "constants leave the average; the mean square of z is 1"),
       (kl, "expand the square; the mixed term has mean 0"), source="Ho section 3.2 uses it")

# %% [markdown]
# Read it with the ratio $\kappa=\sigma_1^2/\sigma_2^2$: $\mathrm{KL}=\frac12(\kappa-1-\log\kappa)+\frac{(\mu_1-\mu_2)^2}{2\sigma_2^2}$. The first bracket punishes a wrong width, the second a wrong mean, measured in units of the *second* width. With equal variances only the second is left: **the KL of two Gaussians of equal width is their means' squared distance over $2\sigma^2$.** This one sentence is why, in the end, diffusion models are trained with a squared error. And for a picture? If its pixels are independent under both laws, the log densities are sums over pixels, and so is the KL.
#
# It is never negative. The second term is a square. The first has derivative $\frac12(1-1/\kappa)$, negative for $\kappa<1$ and positive for $\kappa>1$, so its minimum is at $\kappa=1$, where it is 0. (All this for Gaussians in one dimension; that no KL is negative, whatever the laws, is shown in chapter 04.) The next cell tries this on a grid of cases, and compares the displayed formula with the package.

# %% tags=["proof"]
tried = [(p, q, w) for p in (-1, 0.3, 2) for q in (0.1, 0.7, 3) for w in (0.2, 0.7, 1)]
cases = [{mu_1: p, mu_2: 0.3, sigma_1: q, sigma_2: w} for p, q, w in tried]
same = {mu_1: 0.3, mu_2: 0.3, sigma_1: 0.7, sigma_2: 0.7}
inequality("1.39", kl, sp.Integer(0), cases=cases, equality=same)
for case, (p, q, w) in list(zip(cases, tried, strict=True))[::5]:
    agrees(kl, case, normal_kl(torch.tensor(p, dtype=torch.float64), q**2, 0.3, w**2))

# %% [markdown]
# The package's `normal_kl` takes *variances*; the formula above is written with standard deviations. And it is not symmetric: to be surprised by a wide law when one expects a narrow one is worse than the reverse.

# %%
zero = torch.zeros(1, dtype=torch.float64)
wide_first, narrow_first = normal_kl(zero, 4.0, zero, 1.0), normal_kl(zero, 1.0, zero, 4.0)
print(f"KL(wide || narrow) = {float(wide_first):.2f} nats, KL(narrow || wide) = {float(narrow_first):.2f} nats")
shift, ratio = torch.linspace(-3, 3, 121, dtype=torch.float64), torch.logspace(-1.5, 1.5, 121, dtype=torch.float64)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
curves(shift, {f"both have std {w}": normal_kl(shift, w**2, 0.0, w**2) for w in (0.5, 1, 2)}, left,
       xlabel="difference of the means", ylabel="nats", title="equal widths: a parabola", ylim=(0, 10))
curves(ratio, {"equal means": normal_kl(0 * ratio, ratio, 0.0, 1.0)}, right,
       xlabel="variance of the first / of the second", ylabel="nats", title="wrong width: never below 0", xscale="log")
assert float(wide_first) > float(narrow_first) > 0

# %% [markdown]
# Is the definition really what the formula computes? Monte Carlo, straight from (1.36), with its standard error.

# %%
x_draws = 1.0 + 0.5 * torch.randn(100_000, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
log_ratios = normal_log_prob(x_draws, 1.0, 0.25) - normal_log_prob(x_draws, 0.0, 1.0)
exact = float(normal_kl(torch.tensor(1.0, dtype=torch.float64), 0.25, 0.0, 1.0))
standard_error = float(log_ratios.std()) / 100_000**0.5
print(f"KL {exact:.2f} nats; average of log ratios {float(log_ratios.mean()):.2f}")
print(f"some single log ratios are below zero: {bool((log_ratios < 0).any())}")
assert abs(float(log_ratios.mean()) - exact) < 4 * standard_error

# %% [markdown]
# Single log ratios can be negative. Only their average cannot.
#
# ## Back to probabilities: bins
#
# Pixels come in 256 steps. Sometimes we want an honest probability for a pixel value, and not a density. So cut the axis $[-1,1]$ into bins of width $2/255$ around the 256 values and take the area of the bell over each bin. The two outer bins reach to infinity, so that nothing is lost. This is the discretised decoder of Ho eq. 13, and it closes the circle to the beginning of this chapter. With $\Phi(u)$ for the area under the standard bell to the left of $u$, and $\delta=1/255$,
#
# $$ P(x) = \Phi\Big(\frac{x+\delta-\mu}{\sigma}\Big)-\Phi\Big(\frac{x-\delta-\mu}{\sigma}\Big), \qquad \Phi=1 \text{ above the last bin, } 0 \text{ below the first} \tag{1.40, definition} $$
#
# By hand with the error function: $\Phi(u)=\frac12\big(1+\mathrm{erf}(u/\sqrt2)\big)$. The probabilities sum to 1, none exceeds 1, and all their logarithms are negative.

# %%
def my_bin_probability(value, mean, std):
    above = 1.0 if value > 0.999 else 0.5 * (1 + math.erf((value + 1 / 255 - mean) / std / 2**0.5))
    below = 0.0 if value < -0.999 else 0.5 * (1 + math.erf((value - 1 / 255 - mean) / std / 2**0.5))
    return above - below


values_256 = torch.linspace(-1, 1, 256, dtype=torch.float64)
for mean_value, std_value in ((0.1, 0.05), (-0.9, 0.3), (1.2, 0.8)):
    mine = [my_bin_probability(value, mean_value, std_value) for value in values_256.tolist()]
    mine = torch.tensor(mine, dtype=torch.float64)
    theirs = discretized_log_prob(values_256, torch.tensor(mean_value, dtype=torch.float64), std_value**2).exp()
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert abs(float(theirs.sum()) - 1) < 1e-12 and float(theirs.max()) < 1
print("256 bins sum to 1, and ours equal the package's: True")

# %% [markdown]
# Why then does the package not use this short version? Because of the tails. Thirty standard deviations above the mean both $\Phi$'s round to 1; thirty below, the error function makes both 0. Either way the difference is 0; the logarithm is $-\infty$ and the training loss with it. The package works in the lower tail, where a small $\Phi$ keeps all its digits. The tail's logarithm is close to that of (density × width), which we use as the judge.

# %%
far = torch.tensor([0.2], dtype=torch.float64)
for center in (0.8, -0.4):  # 30 standard deviations of 0.02, to either side
    log_p = float(discretized_log_prob(far, torch.tensor([center], dtype=torch.float64), 0.02**2))
    naive = my_bin_probability(0.2, center, 0.02)
    middle = float(normal_log_prob(far, center, 0.02**2)) + math.log(2 / 255)
    print(f"mean {center:4.1f}: naive probability is 0: {naive == 0}; log P is finite: {math.isfinite(log_p)}")
    half = (1 / 255) / 0.02  # half a bin, in standard deviations: the near edge is that much closer
    assert middle < log_p < middle + 30 * half - half**2 / 2
assert math.isfinite(float(discretized_log_prob(far, 0 * far, 1e40)))  # so wide that both areas round to one number

# %% [markdown]
# The first assertion says: the log probability lies above the value at the bin's middle, because the near edge of the bin has more density, and below the value at the near edge.
#
# ## By hand
#
# Three pieces of the above, on which the rest of the course leans: a log density and a KL, compared with the package, and a draw, checked by its mean and its variance.

# %%
def my_log_prob(x, mean, var):
    return -((x - mean) ** 2) / (2 * var) - 0.5 * torch.log(2 * torch.pi * var)


def my_kl(mean_1, var_1, mean_2, var_2):
    return 0.5 * (torch.log(var_2 / var_1) - 1 + (var_1 + (mean_1 - mean_2) ** 2) / var_2)


def my_draw(mean, var, generator):
    return mean + var**0.5 * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


# %%
g = torch.Generator().manual_seed(13)
at, mean_a, mean_b = torch.randn(3, 50, generator=g, dtype=torch.float64)
var_a, var_b = 0.05 + torch.rand(2, 50, generator=g, dtype=torch.float64)
torch.testing.assert_close(my_log_prob(at, mean_a, var_a), normal_log_prob(at, mean_a, var_a), rtol=0, atol=1e-10)
theirs = normal_kl(mean_a, var_a, mean_b, var_b)
torch.testing.assert_close(my_kl(mean_a, var_a, mean_b, var_b), theirs, rtol=0, atol=1e-10)
sample = my_draw(torch.full((100_000,), 2.0), torch.tensor(0.25), g)
assert abs(float(sample.mean()) - 2) < 0.007 and abs(float(sample.var()) - 0.25) < 0.005
print("by hand = package: True")

# %% [markdown]
# ## Common mistakes
#
# Guess the number before you run each cell. (The numbers with M are those of chapter 11, which collects all mistakes.)
#
# ### A density is called a probability (M34)
#
# "The model gives this value probability 1.99." The wrong line below adds up densities over a grid, as if they were probabilities. The sum depends on the grid: with a tenth of the points it is a tenth. The right line multiplies by the width of a cell first. And a second slip of the tongue from the same drawer: "$\mathcal N(3,0.04)$ is not Gaussian, its mean is not 0". It is; it is not *standard*. Subtract 3 and divide by 0.2, and it is standard too.

# %%
fine = torch.linspace(2, 4, 2001, dtype=torch.float64)
heights = bell(fine, 3, 0.04)
wrong, right = float(heights.sum()), float(heights.sum() * 0.001)
coarse = float(heights[::10].sum())
print(f"sum of densities {wrong:.0f}, on a coarser grid {coarse:.0f}; sum of areas {right:.1f}, highest density {float(heights.max()):.2f}")
assert abs(right - 1) < 1e-3 < wrong and abs(coarse / wrong - 0.1) < 1e-3 and float(heights.max()) > 1
torch.testing.assert_close(0.2 * heights, bell((fine - 3) / 0.2))  # standardised, it is the standard bell

# %% [markdown]
# ### $a\,\mathcal N(\mu,\sigma)$, with the wrong letter inside (M19)
#
# Some write $\mathcal N(\mu,\sigma)$ with the standard deviation inside, scale by $a$, and then read the result as a variance. The rule for variances is $a^2\sigma^2$. Below $x\sim\mathcal N(0,0.25)$ is tripled. The wrong line multiplies the variance by $a$ and not by its square.

# %%
x_draws = 0.25**0.5 * torch.randn(100_000, generator=torch.Generator().manual_seed(14))
measured, wrong, right = float((3 * x_draws).var()), 3 * 0.25, 3**2 * 0.25
print(f"variance of 3x: wrong rule {wrong:.2f}, right rule {right:.2f}")
print(f"measured within 0.05 of the right one: {abs(measured - right) < 0.05}")
assert abs(measured - right) < 0.05 < abs(measured - wrong)

# %% [markdown]
# ### One noise for all steps (M20)
#
# A loop adds noise a hundred times, and the noise was drawn once, above the loop. The code runs, the pictures look noisy. But the steps all push the same way, so the standard deviation grows like the number of steps, and not like its root.

# %%
g, steps = torch.Generator().manual_seed(15), 100
once, right, wrong = torch.randn(5000, generator=g), torch.zeros(5000), torch.zeros(5000)
for _ in range(steps):
    wrong = wrong + 0.1 * once  # the mistake: the same noise again
    right = right + 0.1 * torch.randn(5000, generator=g)
print(f"std after {steps} steps: right about {float(right.std()):.0f}, wrong about {float(wrong.std()):.0f}")
assert abs(float(right.std()) - 1) < 0.05 and abs(float(wrong.std()) - 10) < 0.5

# %% [markdown]
# ### `mean + var * z` (M6)
#
# The law says "variance 0.01", so the code multiplies by 0.01. The draw then has variance $0.01^2=0.0001$. A sampler with this bug makes pictures that are too clean and all alike (chapter 09 measures it). There is no error message, and for variance 1 there is not even a bug, so a test at variance 1 does not find it. Gradients go wrong as well: with respect to the variance, the right draw has derivative $z/(2\sqrt{\text{var}})$, the wrong one $z$.

# %%
z_draws, var = torch.randn(100_000, generator=torch.Generator().manual_seed(16)), torch.tensor(0.01, requires_grad=True)
right, wrong = 2 + var.sqrt() * z_draws, 2 + var * z_draws
of_right, of_wrong = (float(torch.autograd.grad(x[0], var)[0] / z_draws[0]) for x in (right, wrong))
assert abs(of_right - 5) < 1e-3 and abs(of_wrong - 1) < 1e-3  # 1 / (2 sqrt(0.01)) and 1
right_var, wrong_var = float(right.detach().var()), float(wrong.detach().var())
print(f"variance wanted 0.01: right {right_var:.3f}, wrong {wrong_var:.4f}")
assert abs(right_var / 0.01 - 1) < 0.02 and wrong_var < 0.0002

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/01_gaussians_student.ipynb), [with solutions](exercises/01_gaussians_solution.ipynb).

# %% [markdown]
# **1.1 ★** Let $x\sim\mathcal N(2,\,0.25)$. What is the *standard deviation* of $1-3x$?

# %% [markdown] tags=["hint"]
# **Hint 1.1**
#
# A shift moves the bell, a factor stretches it. The second number in $\mathcal N(2,\,0.25)$ is an area. Which length belongs to it?

# %% tags=["exercise"]
std_of_y = ...
check("1.1", std_of_y)

# %% tags=["solution"]
std_of_y = abs(-3) * 0.25**0.5
must_pass("1.1", std_of_y)

# %% [markdown]
# **1.2 ★** A data value $x_0$ is $-1$ or $3$, equally likely. Independent noise $\varepsilon$ is standard normal. Give two numbers: first $\mathbb E_\varepsilon\big[(x_0+2\varepsilon)^2\big]$ for $x_0=3$, then $\mathbb E_{x_0,\varepsilon}\big[(x_0+2\varepsilon)^2\big]$.

# %% [markdown] tags=["hint"]
# **Hint 1.2**
#
# Expand the square first. The mixed term has mean 0. Then ask of each remaining term: is it drawn again, or held fixed?

# %% tags=["exercise"]
two_expectations = ...
check("1.2", two_expectations)

# %% tags=["solution"]
two_expectations = (3**2 + 2**2, ((-1) ** 2 + 3**2) / 2 + 2**2)
must_pass("1.2", two_expectations)

# %% [markdown]
# **1.3 ★★** Two bells, $\mathcal N(m_1,v_1)$ and $\mathcal N(m_2,v_2)$, are multiplied and the area is made 1 again. Return mean and *variance* of the result. Check in your head: what must happen for $v_2\to\infty$, a witness who knows nothing?

# %% [markdown] tags=["hint"]
# **Hint 1.3**
#
# Add the two exponents and compare with $-\frac12(x-m)^2/v$. In words: precisions add.

# %% tags=["exercise"]
def product_of_bells(m_1, v_1, m_2, v_2):
    return ...


check("1.3", product_of_bells)


# %% tags=["solution"]
def product_of_bells(m_1, v_1, m_2, v_2):
    precision = 1 / v_1 + 1 / v_2  # precisions add
    return (m_1 / v_1 + m_2 / v_2) / precision, 1 / precision


must_pass("1.3", product_of_bells)

# %% [markdown]
# **1.4 ★★** The loss of a batch element has standard deviation 2. How many independent elements must you average so that the standard error of the mean loss is 0.01?

# %% [markdown] tags=["hint"]
# **Hint 1.4**
#
# A mean of $n$ independent numbers has standard deviation $\sigma/\sqrt n$.

# %% tags=["exercise"]
how_many = ...
check("1.4", how_many)

# %% tags=["solution"]
how_many = (2 / 0.01) ** 2
must_pass("1.4", how_many)

# %% [markdown]
# **1.5 ★★★** The data are two points, $-1$ and $+1$, but now $+1$ has probability $p$. With $x=a\,x_0+b\,\varepsilon$, write the best guess $\mathbb E[\varepsilon\mid x]$. (Weigh the two bells at $x$ with their probabilities, then average the two possible noises.) For $p=\frac12$ you should get the curve of this chapter.

# %% [markdown] tags=["hint"]
# **Hint 1.5**
#
# Call $w$ the probability that the point was $+1$, given $x$. What would the noise be then, and what otherwise?

# %% tags=["exercise"]
def best_eps(x, a, b, p):
    return ...


check("1.5", best_eps)


# %% tags=["solution"]
def best_eps(x, a, b, p):
    plus, minus = p * math.exp(-((x - a) ** 2) / (2 * b**2)), (1 - p) * math.exp(-((x + a) ** 2) / (2 * b**2))
    w = plus / (plus + minus)  # probability that the point was +1
    return w * (x - a) / b + (1 - w) * (x + a) / b


must_pass("1.5", best_eps)

# %% [markdown]
# **1.6 ★★** Two standard normal numbers $u$ and $w$ have the *correlation* $\rho=\mathbb E[u\,w]$. Write the variance of $s\,u+r\,w$. Check in your head: $\rho=0$ is independence, $\rho=1$ is one noise used twice.

# %% [markdown] tags=["hint"]
# **Hint 1.6**
#
# All means are 0, so the variance is $\mathbb E[(s\,u+r\,w)^2]$. Expand the square and take the mean of each term.

# %% tags=["exercise"]
def variance_of_sum(s, r, rho):
    return ...


check("1.6", variance_of_sum)


# %% tags=["solution"]
def variance_of_sum(s, r, rho):
    return s**2 + r**2 + 2 * s * r * rho  # the mixed term comes twice


must_pass("1.6", variance_of_sum)

# %% [markdown]
# **1.7 ★★★** The data are $x_0\sim\mathcal N(m,v)$. You see $x=a\,x_0+b\,\varepsilon$. Return mean and *variance* of $x_0$ given $x$. Check in your head: what must come out for $a=0$, and what for $b\to0$?

# %% [markdown] tags=["hint"]
# **Hint 1.7**
#
# Two witnesses about $x_0$. The data's law says $m$, with precision $1/v$. And $x$ says $x/a$: how far off is that, as a standard deviation?

# %% tags=["exercise"]
def given_x(x, m, v, a, b):
    return ...


check("1.7", given_x)


# %% tags=["solution"]
def given_x(x, m, v, a, b):
    precision = 1 / v + a**2 / b**2  # x / a is x_0 with noise of standard deviation b / a
    return (m / v + a * x / b**2) / precision, 1 / precision


must_pass("1.7", given_x)

# %% [markdown]
# **1.8 ★★** A standard normal vector $z$ with $d$ numbers has $\mathbb E\,\lVert z\rVert^2=d$. How thin is the shell? Write the *standard deviation* of $\lVert z\rVert^2/d$. (You need $\mathbb E[z_1^4]=3$.)

# %% [markdown] tags=["hint"]
# **Hint 1.8**
#
# First one coordinate: $\mathrm{Var}(z_1^2)=\mathbb E[z_1^4]-(\mathbb E[z_1^2])^2$. Then $d$ independent ones. Then the division by $d$.

# %% tags=["exercise"]
def shell(d):
    return ...


check("1.8", shell)


# %% tags=["solution"]
def shell(d):
    return (2 / d) ** 0.5  # variances add to 2d; dividing by d divides the variance by d squared


must_pass("1.8", shell)

# %% [markdown]
# ## What comes next
#
# We can scale, add and multiply Gaussians, and we know what a squared loss learns. Chapter 02 uses the first two on real pictures: a chain of a thousand small noising steps, each of the form $a\,x+b\,\varepsilon$, which collapses into a single jump because independent Gaussians add up to a Gaussian. Chapter 03 uses the product: where was the chain one step ago?
