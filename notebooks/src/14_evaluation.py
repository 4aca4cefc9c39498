# %% [markdown]
# # 14 · Evaluation: how far can samples be trusted?
#
# **The question.** Somebody shows you samples and a number. "FID 1.4." Is that good? Good for how many samples, against which pictures, seen through which eyes? And would a program that only copies its training pictures have scored better?
#
# **After this chapter you can**
#
# - derive the Fréchet distance for Gaussians, and say what it cannot see;
# - explain why it falls with $n$, what a *floor* is, and why two scores at different $n$ must never be compared;
# - compute kernel distance, precision and recall, and a two-sample test, each by hand in a few lines;
# - catch a model that memorises;
# - read (and make) an honest table of a GAN, a VAE and a DDPM.
#
# *Needs:* chapters 01, 09 and 10. *Time:* about three hours with the exercises.

# %%
import math
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.pyplot as plt
import sympy as sp
import torch
import torch.nn.functional as F
from torch import nn

from ddpm_course import (MLP, VAE, FiniteData, as_eps_model, clip_x_0, cosine_schedule, ddpm_sample, diffusion_loss, dpm_solver_sample,
                         load_model, shipped, vae_terms)  # fmt: skip
from ddpm_course.checkpoint import load_classifier
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits, toy
from ddpm_course.metrics import frechet_distance, kernel_distance, nearest, precision, recall, two_sample_test
from ddpm_course.plots import BLUE, GREY, ORANGE, RED, scatter, scatter_row, show_rows, style
from ddpm_course.proofs import Expect, agrees, derive, eps, inequality, limit, normal, prove, z
from ddpm_course.scores import Score, evaluate, score

style()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## What a score of samples can say
#
# We would like to know how far the model's law $p_\theta$ is from the data's law $q$. We never see laws. We see two heaps: $n$ samples, and $n$ real pictures that the model was not trained on. Every score below is some way to compare the two heaps. So every score
#
# - depends on **which features** it looks at (pixels, or what some network makes of them),
# - depends on **$n$**, and is off even when both heaps come from the same law,
# - says nothing about a single picture, and nothing about what it does not look at.
#
# The cure for the second point is the **floor**: the same score, at the same $n$, with *real training pictures* in the place of the samples. A model cannot be asked to be closer to the held-out pictures than other real pictures are. In this course no table of scores is printed without its $n$ and its floor. We can show that this is meant seriously: a score that lacks them cannot be made.

# %%
from ddpm_course import CourseError

try:
    Score("Fréchet distance", 1.4, n=359, floors=())
except CourseError as error:
    print(error)

# %% [markdown]
# ## The Fréchet distance
#
# How far apart are two heaps of sand? Take the least work needed to shovel one into the shape of the other. In formulas, pair each $x\sim p$ with a $y\sim q$, in the cleverest way, and average the squared length of the way:
#
# $$ d^2(p, q) = \min_{\text{pairings of } x\sim p,\ y\sim q} \ \mathbb E\,\lVert x-y\rVert^2 \tag{14.1, definition} $$
#
# > **An image to keep.** Shovelling sand: nobody cares which grain goes where, only how much work the best plan costs. *Where the image breaks:* the score below does not look at the heap at all; it looks at its centre and its spread, and shovels two *Gaussian* heaps instead.
#
# For two Gaussians in one dimension the minimum can be found with paper and pencil. Any pair of jointly Gaussian numbers with the right marginals is $x=\mu_1+\sigma_1\varepsilon$ and $y=\mu_2+\sigma_2(\rho\,\varepsilon+\sqrt{1-\rho^2}\,z)$, with $\varepsilon$ and $z$ independent standard normal numbers: the plan is the correlation $\rho$ and nothing else. What does it cost?

# %% tags=["proof"]
mu_1, mu_2, rho = sp.symbols(r"\mu_1 \mu_2 \rho", real=True)
s_1, s_2 = sp.symbols(r"\sigma_1 \sigma_2", positive=True)
x_plan, y_plan = mu_1 + s_1 * eps, mu_2 + s_2 * (rho * eps + sp.sqrt(1 - rho**2) * z)
cost = (mu_1 - mu_2) ** 2 + s_1**2 + s_2**2 - 2 * rho * s_1 * s_2
derive("14.2", Expect((x_plan - y_plan) ** 2, eps, z),
       ((mu_1 - mu_2) ** 2 + (s_1 - rho * s_2) ** 2 * Expect(eps**2, eps) + s_2**2 * (1 - rho**2) * Expect(z**2, z),
        "sort by noises; they are independent and have mean 0"),
       (cost, "each noise has variance 1; multiply out"))
signs = [{mu_1: a / 2, mu_2: b / 3, s_1: 0.5 + c / 2, s_2: 1.2, rho: r / 4} for a in range(-2, 3) for b in (0, 2) for c in range(3) for r in range(-4, 5)]
distance_1d = (mu_1 - mu_2) ** 2 + (s_1 - s_2) ** 2
inequality("14.3", cost, distance_1d, cases=signs, equality={mu_1: 0.3, mu_2: -1, s_1: 0.7, s_2: 2, rho: 1})

# %% [markdown]
# The cost falls with $\rho$, and $\rho$ ends at 1. So the best plan keeps the order: the left end of one heap goes to the left end of the other. The distance is $(\mu_1-\mu_2)^2+(\sigma_1-\sigma_2)^2$. Note the *standard deviations*, not the variances. What this does not prove: that no plan outside the jointly Gaussian ones is cheaper. It is not, because $\mathbb E[xy]$ is all that a plan can change, and the Cauchy–Schwarz inequality bounds it by $\mu_1\mu_2+\sigma_1\sigma_2$ for every plan.
#
# The score called Fréchet distance (FID section 2) takes the mean and the covariance of the features, and puts them into the formula for two Gaussians in $D$ dimensions, whether the features are Gaussian or not:
#
# $$ d^2 = \lVert\mu_1-\mu_2\rVert^2 + \operatorname{tr}\!\big(\Sigma_1+\Sigma_2-2\,(\Sigma_1\Sigma_2)^{1/2}\big) \tag{14.4, definition} $$
#
# The trace looks forbidding. If the two covariances commute, they have the same eigenvectors. Turn the axes to these, and each axis is the one-dimensional case. We check it for two dimensions and any angle $\theta$ between these axes and ours. Let $a_i,b_i$ be the standard deviations of heap $i$ along them. First, without display: the matrix with these axes and the eigenvalues $a_1a_2$, $b_1b_2$ is the root that (14.4) asks for, since its square is $\Sigma_1\Sigma_2$, entry by entry. Then the trace. Written out and sorted, it is the left side below.

# %% tags=["proof"]
theta = sp.Symbol(r"\theta", real=True)
a_1, b_1, a_2, b_2 = sp.symbols("a_1 b_1 a_2 b_2", positive=True)  # the standard deviations along the two axes
turn = sp.Matrix([[sp.cos(theta), -sp.sin(theta)], [sp.sin(theta), sp.cos(theta)]])
cov_1, cov_2, root = (turn * sp.diag(*pair) * turn.T for pair in ((a_1**2, b_1**2), (a_2**2, b_2**2), (a_1 * a_2, b_1 * b_2)))
for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
    prove((root * root)[i, j], (cov_1 * cov_2)[i, j])
derive("14.5", sp.factor((cov_1 + cov_2 - 2 * root).trace()),
       (a_1**2 + b_1**2 + a_2**2 + b_2**2 - 2 * a_1 * a_2 - 2 * b_1 * b_2, "cos² + sin² = 1: a trace does not change when the axes are turned"),
       ((a_1 - a_2) ** 2 + (b_1 - b_2) ** 2, "two squares"), source="FID section 2, for commuting covariances")

# %% [markdown]
# So each axis contributes $(\sigma_1-\sigma_2)^2$, as in (14.3). For covariances that do not commute, (14.4) is still the least cost (14.1) between two Gaussians; that is not proved here.
#
# ### By hand
#
# A few lines of code. The trace of a root is the sum of the roots of the eigenvalues; those of $\Sigma_1\Sigma_2$ are real and not negative. Then we compare with the package, which leaves the work to torchmetrics.

# %%
def my_frechet(a, b):
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * roots.sum())


left, right = torch.randn(300, 5, generator=seeded(0)), 1.4 * torch.randn(300, 5, generator=seeded(1)) + 0.3
torch.testing.assert_close(my_frechet(left, right), frechet_distance(left, right), rtol=1e-6, atol=1e-9)
one = torch.randn(50, 1, generator=seeded(2), dtype=torch.float64)
one = (one - one.mean()) / one.std()
agrees(distance_1d, {mu_1: 0, s_1: 1, mu_2: 3, s_2: 2.5}, frechet_distance(one, 3 + 2.5 * one))

# %% [markdown]
# ### What it does not see
#
# The distance looks at mean and covariance. Whatever has the same mean and the same covariance is at distance 0. Here are three impostors, of 1,000 points each, bent so that they have the mean and the covariance of the ring of eight, to the last digit. Beside them, untouched, another honest draw from the ring.

# %%
def with_moments_of(x, like):
    x, like = x.double(), like.double()
    white = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return (white @ torch.linalg.cholesky(torch.cov(like.T)).T + like.mean(0)).float()


ring, N = toy("ring8", 1000, seeded(3)), 1000
corners = torch.randint(0, 2, (N, 2), generator=seeded(4)) * 2.0 - 1 + 0.05 * torch.randn(N, 2, generator=seeded(5))
impostors = {"Gaussian": torch.randn(N, 2, generator=seeded(7)), "four corners": corners, "checkerboard": toy("checkerboard", N, seeded(8))}
clouds = {"other draw": toy("ring8", N, seeded(6))} | {name: with_moments_of(x, ring) for name, x in impostors.items()}
scatter_row({"ring of eight": ring} | clouds)
plt.show()

# %%
for name, x in clouds.items():
    told_apart = two_sample_test(ring, x).p_value < 0.001
    print(f"{name:13s} Fréchet distance below 1e-6: {frechet_distance(ring, x) < 1e-6};  a classifier tells it apart: {told_apart}")
    assert (frechet_distance(ring, x) < 1e-6) == told_apart == (name != "other draw")

# %% [markdown]
# So the three impostors are *closer* to the ring than a second draw from the ring itself. A classifier, of which more below, tells them apart at once. Distance 0 is no proof of anything. It is a test that one can fail, not a test that one can pass. In the features of a network the two moments catch more than in the plane, because the features are trained to vary with what distinguishes pictures. But the blind spot stays.
#
# ## The features, and the floor
#
# Published FIDs use the features of an Inception network trained on ImageNet. This course runs offline, and Inception knows nothing about 8×8 digits. Our features are the 64 numbers before the last layer of the course's own digit classifier. How good are these eyes? On 180 digits that it has never seen it makes no mistake. Scores through different eyes cannot be compared: ours are not comparable with anybody's Inception FID. (`metrics.inception_features` makes published FIDs, for those who have that network.)

# %%
data, eyes = digits(), load_classifier("digits")
train_images, held_out = data.train.images, torch.cat([data.val.images, data.test.images])
accuracy = float((eyes(data.test.images).argmax(1) == data.test.labels).float().mean())
print(f"classifier: accuracy {accuracy:.2f} on n = {len(data.test.labels)} unseen digits; {eyes.features(held_out).shape[1]} features")
assert accuracy > 0.98
pool = eyes.features(torch.cat([train_images, held_out]))
pool = pool[torch.randperm(len(pool), generator=seeded(9))]

# %% [markdown]
# ### It falls with n
#
# Two heaps of real digits have the same law. Their distance should be 0. It is not, because two finite heaps never have the same mean. In one dimension, with $\bar x$ and $\bar y$ the means of $n$ numbers each: both are $\mu$ plus a noise of standard deviation $\sigma/\sqrt n$ (chapter 01).

# %% tags=["proof"]
n_sym, mu_s, s_s = sp.Symbol("n", positive=True), sp.Symbol(r"\mu", real=True), sp.Symbol(r"\sigma", positive=True)
mean_x, mean_y = mu_s + s_s / sp.sqrt(n_sym) * eps, mu_s + s_s / sp.sqrt(n_sym) * z
derive("14.6", Expect((mean_x - mean_y) ** 2, eps, z),
       (s_s**2 / n_sym * (Expect(eps**2, eps) + Expect(z**2, z)), "the mean cancels; independent noises"),
       (2 * s_s**2 / n_sym, "each noise has variance 1"))

# %% [markdown]
# The first part of (14.4) is thus $2\sigma^2/n$ too large on average, for each feature. The second part is never negative either, so nothing can repair it. The same happens there: sample covariances miss each other by about $1/\sqrt n$, and the square of that is $1/n$. The whole floor falls like $1/n$. We measure this order on pairs of heaps from one Gaussian law in four dimensions.

# %% tags=["proof"]
sizes = [50, 100, 200, 400, 800]
pairs = {n: [torch.randn(2, n, 4, generator=seeded(1000 * n + k), dtype=torch.float64) for k in range(60)] for n in sizes}
floor_of = {n: sum(my_frechet(*pair) for pair in pairs[n]) / 60 for n in sizes}
expected = sp.Symbol(r"\mathbb{E}\, d^2(\text{two heaps of } n)")
limit("14.7", expected, sp.Integer(0), sizes=sizes, measured=[floor_of[n] for n in sizes], order=1)

# %% [markdown]
# On the digits it is the same story. We draw two *disjoint* heaps of $n$ real digits, twelve times for each $n$, and plot the distance. The kernel distance beside it is the subject of the next section.

# %%
def two_heaps(n, seed):
    order = torch.randperm(len(pool), generator=seeded(seed))
    return pool[order[:n]], pool[order[n : 2 * n]]


heap_sizes = [80, 120, 180, 270, 400, 600, 850]
by_n = {f: torch.tensor([[f(*two_heaps(n, k)) for k in range(12)] for n in heap_sizes]) for f in (frechet_distance, kernel_distance)}
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8))
for ax, (_, values), title in zip(axes, by_n.items(), ("Fréchet distance", "kernel distance"), strict=True):
    ax.plot(heap_sizes, values, ".", color=GREY, markersize=4)
    ax.errorbar(heap_sizes, values.mean(1), values.std(1) / 12**0.5, color=BLUE, capsize=3)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(title=f"{title}: real against real digits", xlabel="n")
plt.show()

# %%
means, errors = by_n[frechet_distance].mean(1), by_n[frechet_distance].std(1) / 12**0.5
print(f"n = 80: {float(means[0]):.0f};  n = 850: below {math.ceil(10 * float(means[-1])) / 10:.1f};  falls at every step: {bool((means[1:] < means[:-1]).all())}")
assert float(means[0]) > 4 * float(means[-1]) and bool((means[1:] < means[:-1]).all())

# %% [markdown]
# The same law, and a "distance" which falls by a factor of about ten, from nothing but $n$. Now the trick with which one can cheat, mostly oneself: score model A with many samples and model B with few. Here A and B are both *real digits*.

# %%
many, few = frechet_distance(pool[:800], pool[800:1600]), frechet_distance(pool[:100], pool[800:1600])
print(f"model A, n = 800, is 'better' than model B, n = 100: {many < few}, by a factor above 2: {few > 2 * many}")
assert few > 2 * many

# %% [markdown]
# So: equal $n$, or no comparison. The package cuts all three heaps (samples, training, held-out) to one $n$ and says which.
#
# ## The kernel distance: no bias
#
# Is there a score whose average is exactly 0 for equal laws, at every $n$? Yes. Choose a kernel $k(x,y)$, a measure of likeness. Two laws are alike if members of different heaps are as like as members of the same heap:
#
# $$ \mathrm{MMD}^2(p,q) = \mathbb E\,k(x,x') + \mathbb E\,k(y,y') - 2\,\mathbb E\,k(x,y), \qquad x,x'\sim p;\ \ y,y'\sim q \text{ all independent} \tag{14.8, definition} $$
#
# The usual choice (KID section 3) is $k(x,y)=(x\cdot y/D+1)^3$. What does it look at? Take one dimension, $p=\mathcal N(0,1)$ and $q=\mathcal N(\mu,\sigma^2)$.

# %% tags=["proof"]
e_3, e_4 = normal(r"\varepsilon'"), normal("z'")
kernel = lambda x, y: (x * y + 1) ** 3
y_1, y_2 = mu_s + s_s * z, mu_s + s_s * e_4
moments = (mu_s, mu_s**2 + s_s**2, mu_s**3 + 3 * mu_s * s_s**2)
mmd = 3 * mu_s**2 + 3 * (1 - mu_s**2 - s_s**2) ** 2 + (mu_s**3 + 3 * mu_s * s_s**2) ** 2
derive("14.9", Expect(kernel(eps, e_3), eps, e_3) + Expect(kernel(y_1, y_2), z, e_4) - 2 * Expect(kernel(eps, y_1), eps, z),
       (4 + (moments[2] ** 2 + 3 * moments[1] ** 2 + 3 * moments[0] ** 2 + 1) - 2 * (3 * moments[1] + 1),
        "independent: the mean of a power of x y is a product of two moments"),
       (mmd, "collect squares: one for each moment"))

# %% [markdown]
# Three squares. $3\mu^2$: the first moments differ by $\mu$. $3(1-\mu^2-\sigma^2)^2$: the second moments. The one without a factor: the third, $\mu^3+3\mu\sigma^2$. So this kernel compares *three* moments, the Fréchet distance two. It, too, is blind beyond.
#
# Estimate each mean by an average over pairs, and leave out the pairs of a point *with itself*. An average of honest pairs has the right mean, so the estimate is right on average: for equal laws 0, at every $n$. It may be negative. What would the forbidden pairs do? With them, the first mean becomes $\frac1{n^2}\big(n\,\mathbb E\,k(x,x)+n(n-1)\,\mathbb E\,k(x,x')\big)$. For $x\sim\mathcal N(0,1)$ that is too large by

# %% tags=["proof"]
with_self = (n_sym * Expect(kernel(eps, eps), eps) + n_sym * (n_sym - 1) * Expect(kernel(eps, e_3), eps, e_3)) / n_sym**2
derive("14.10", with_self - Expect(kernel(eps, e_3), eps, e_3),
       ((Expect(kernel(eps, eps), eps) - Expect(kernel(eps, e_3), eps, e_3)) / n_sym, "collect"),
       (24 / n_sym, "28 - 4: the moments of a normal number up to the sixth"))

# %% [markdown]
# Again $1/n$: a bias of the same kind as that of the Fréchet distance. Here it can simply be left out. By hand, and compared with the package (torchmetrics again):

# %%
def my_kernel(a, b):
    k = lambda x, y: (x.double() @ y.double().T / x.shape[1] + 1) ** 3
    n, within_a, within_b = len(a), k(a, a), k(b, b)
    no_self = lambda table: (table.sum() - table.trace()) / (n * (n - 1))
    return float(no_self(within_a) + no_self(within_b) - 2 * k(a, b).mean())


torch.testing.assert_close(my_kernel(left, right), kernel_distance(left, right), rtol=1e-6, atol=1e-9)
values = torch.tensor([my_kernel(torch.randn(60, 1, generator=seeded(k)), 0.8 + 0.5 * torch.randn(60, 1, generator=seeded(k + 500))) for k in range(400)])
closed_form = float(mmd.subs({mu_s: 0.8, s_s: 0.5}))
print(f"formula (14.9): {closed_form:.2f};  mean of 400 estimates within 4 standard errors: {abs(float(values.mean()) - closed_form) < 4 * float(values.std()) / 20}")
kernel_means, kernel_errors = by_n[kernel_distance].mean(1), by_n[kernel_distance].std(1) / 12**0.5
print("real against real digits, n = 80 to 850: within 3 standard errors of 0 at every n:", bool((kernel_means.abs() < 3 * kernel_errors).all()))
assert abs(float(values.mean()) - closed_form) < 4 * float(values.std()) / 20 and bool((kernel_means.abs() < 3.5 * kernel_errors).all())

# %% [markdown]
# Unbiased does not mean sure. Look at the grey dots in the figure: at $n=80$ single values are all over the place. No bias, large spread. The floor still has to stand beside it; now the interesting number of the floor is its spread.
#
# ## Precision and recall
#
# One number cannot say *what* is wrong. Samples can be bad in two ways. They can be no digits; or they can be fine digits, but only ones and sevens. Draw a ball around each real point, reaching to its third neighbour; the union of all balls is "where the real data are". **Precision** is the share of samples inside. Now exchange the roles: **recall** is the share of real points inside the balls of the samples (P&R section 3).

# %%
def my_precision(real, fake, k=3):
    radius = torch.cdist(real, real).sort(1).values[:, k]  # entry 0 is the point itself
    return float((torch.cdist(fake, real) <= radius).any(1).float().mean())


torch.testing.assert_close(my_precision(left.double(), right.double()), precision(left, right))
real_points, fake_points = toy("ring8", 120, seeded(10)), toy("ring8", 120, seeded(11))
angle = torch.rand(120, generator=seeded(12)) * 2 * math.pi
fakes = {"same law": fake_points, "three modes": fake_points[(fake_points[:, 0] > 0.5)], "a disc": 2 * torch.rand(120, 1, generator=seeded(13)) ** 0.5 * torch.stack([angle.cos(), angle.sin()], 1)}
fig, axes = plt.subplots(2, 3, figsize=(8, 5.4))
for column, (name, fake) in enumerate(fakes.items()):
    for ax, centres, dots, colour, f in ((axes[0, column], real_points, fake, ORANGE, precision), (axes[1, column], fake, real_points, BLUE, recall)):
        reach = torch.cdist(centres, centres).sort(1).values[:, 3]
        for centre, radius in zip(centres.tolist(), reach.tolist(), strict=True):
            ax.add_patch(plt.Circle(centre, radius, color=BLUE if f is precision else ORANGE, alpha=0.12, linewidth=0))
        scatter(dots, ax, f"{name}: {f.__name__} {f(real_points, fake):.2f}", colour, size=8)
plt.show()

# %%
table = {name: (precision(real_points, x), recall(real_points, x)) for name, x in fakes.items()}
assert table["three modes"][0] > 0.9 and table["three modes"][1] < 0.6 and table["a disc"][0] < 0.6 < table["a disc"][1]
print("three modes: precise, but incomplete;  a disc: complete, but imprecise")

# %% [markdown]
# Top row: balls around the real points (blue), samples as orange dots. Bottom row: balls around the samples (orange), real points as blue dots. Read the weakness off the pictures, too. The size of a ball is set by its neighbours. Where points are few, balls are huge, and a few stray samples far out can make a whole plain count as covered. In many dimensions this is worse, as we shall see with noise.
#
# ## Two-sample test: let a classifier look
#
# The most direct question: *can anybody tell the heaps apart?* Mix both, keep the labels "real" and "sample", train a classifier on one half and ask it about the other half (C2ST section 3). If both laws are equal, every answer is a coin flip. The share of right answers on $n$ points is then $\frac12$ with standard error $\frac12/\sqrt n$, and from that comes a p-value. If the accuracy is higher than chance allows, then the classifier has found a difference, and it is there.

# %%
from sklearn.linear_model import LogisticRegression

other_draw, gaussian = clouds["other draw"], clouds["Gaussian"]
for name, x in (("other draw", other_draw), ("Gaussian", gaussian)):
    forest, line = two_sample_test(ring, x), two_sample_test(ring, x, classifier=LogisticRegression())
    print(f"{name:11s} n = {forest.n}: forest above chance: {forest.p_value < 0.001};  straight line above chance: {line.p_value < 0.001}")
assert two_sample_test(ring, gaussian).accuracy > 0.8 > 0.56 > two_sample_test(ring, gaussian, classifier=LogisticRegression()).accuracy

# %% [markdown]
# The Gaussian, which the Fréchet distance could not tell from the ring, is found out at once by a forest of decision trees. A straight line finds nothing. So the test has its own blind spot: *no difference found* means *not found by this classifier, with this $n$*. With enough samples a good classifier finds a difference in every model ever trained. Then the p-value says nothing new, and the accuracy itself is the score.
#
# ## Copies pass
#
# Now the question from the beginning. Take the finite-data oracle of chapter 05: its "samples" are training digits, drawn at random. Nothing was learnt. Beside it the shipped network, and, as the other end, pure noise. All are scored by the same call, with $n=359$, the number of held-out digits. The network samples by DPM-Solver++ in 12 steps.

# %%
trained, m = load_model(shipped("digits")), len(held_out)
sampler = clip_x_0(trained.eps_model(), trained.schedule)
sets = {"network": dpm_solver_sample(sampler, trained.schedule, (m, 1, 8, 8), num_steps=12, generator=seeded(14)),
        "copies": FiniteData(train_images).sample(m, seeded(15)).float(),
        "noise": torch.randn(m, 1, 8, 8, generator=seeded(16)).clamp(-1, 1)}
results = {name: evaluate(x, train_images, held_out, eyes.features, eyes, n=m, seeds=3) for name, x in sets.items()}

# %% tags=["nbval-ignore-output"]
for name, result in results.items():
    print(f"--- {name}\n{result}\n")

# %% [markdown]
# Go through it line by line.
#
# - **Fréchet and kernel distance:** the copies are at the floor, and so is the network, give or take a few of the floor's own spreads. The noise is far out.
# - **Precision:** that of the network lies clearly below its floor (0.85 against 0.92): some samples fall outside the region of real digits. And noise gets a *precision* that is far from 0: the real balls are wide in 64 dimensions, and the classifier squeezes even noise into the region where digits are. Read without its floor, precision would give noise nearly half marks. Its recall is honest.
# - **Two-sample test, classes:** no complaint about the copies.
# - **The last line** is the one that catches them: the distance from each sample to the nearest training picture. For the copies it is 0.
#
# So a program that has learnt *nothing* passes all of these scores but one. That is no accident: a training picture is a perfect draw from the data. What makes it worthless is that we had it already.

# %%
copies, network, noise_set = results["copies"], results["network"], results["noise"]
f = "Fréchet distance"
at_floor = lambda s: abs(float(s) - s.floor) < max(4 * s.spread, 0.5 * s.floor)
print("Fréchet distance at the floor: copies", at_floor(copies[f]), " network", at_floor(network[f]), " noise", at_floor(noise_set[f]))
print("precision of noise above 0.2:", float(noise_set["precision"]) > 0.2, "  its recall below 0.2:", float(noise_set["recall"]) < 0.2)
assert at_floor(copies[f]) and not at_floor(noise_set[f]) and float(network[f]) < 2.5 * network[f].floor
assert float(noise_set["precision"]) > 0.2 > float(noise_set["recall"]) and float(copies["distance to nearest training"]) == 0

# %% [markdown]
# ### Nearest neighbours
#
# How near is too near? The held-out digits say it. They were never in the training set, and still some of them lie close to a training digit, because people write alike. So the ruler is *their* distance to the training set. A model that generalises has about the same distances. A model that copies has smaller ones.

# %%
apart = {"held-out digits": nearest(held_out, train_images)[0], "network": nearest(sets["network"], train_images)[0],
         "copies with a little noise": nearest(0.9 * sets["copies"] + 0.1 * sets["noise"], train_images)[0]}
fig, ax = plt.subplots(figsize=(7.5, 2.6))
for (name, d), colour in zip(apart.items(), (GREY, BLUE, RED), strict=True):
    ax.hist(d.numpy(), bins=40, range=(0, 4), density=True, histtype="stepfilled", alpha=0.45, color=colour, label=name)
ax.set(xlabel="distance to the nearest training digit", yticks=[], title="n = 359 each")
ax.legend()
plt.show()

# %%
shown = sets["network"][:12]
show_rows({"sample": shown, "nearest training": train_images[nearest(shown, train_images)[1]]})
ratio = float(network["distance to nearest training"]) / network["distance to nearest training"].floor
print(f"median distance of the network's samples, held-out digits = 1: between 0.8 and 1.2: {0.8 < ratio < 1.2}")
assert 0.8 < ratio < 1.2 and float(apart["copies with a little noise"].median()) < 0.6 * float(apart["held-out digits"].median())

# %% [markdown]
# The network's samples are a little nearer to the training set than unseen digits are (medians 1.89 and 2.05), and nowhere near copies. The pairs show siblings, no twins. The red heap shows why one looks at the whole histogram: copies with a little noise on top are not at distance 0, but their whole heap lies to the left of practically every honest distance. What the test cannot see: copies that are shifted by a pixel or mirrored. For these, compare with shifted and mirrored training pictures, too.
#
# ## GAN, VAE and DDPM, same data, same budget
#
# Two other ways to learn a sampler. A **VAE** is the case of one latent (chapter 04). A **GAN** (generative adversarial network) has no likelihood at all: a generator turns noise into samples in one pass, and a discriminator, a two-sample test that learns along, tries to tell them from data. The generator is trained to make it fail.
#
# A fair race needs equal conditions. The data: 1,000 points of the ring. The budget: 700 steps of batch 128 with Adam, about 19,000 parameters in total, and the same input layer for all networks (the point itself and its sines, as in chapter 00; without the sines, in a run not shown here, the DDPM's eight modes melt into one circle). Two training seeds each. What is *not* equal: a DDPM needs 100 network calls for a sample, the others need one; only the DDPM uses averaged weights; the GAN has half the learning rate. And nobody's settings were tuned for long.

# %%
batch = 128
ring_train, ring_test = toy("ring8", 1000, seeded(20)), toy("ring8", 500, seeded(21))
octaves = math.pi / 2 * 2.0 ** torch.arange(4)


class Waves(nn.Module):
    def forward(self, x):
        waves = (x[:, :, None] * octaves).flatten(1)
        return torch.cat([x, waves.sin(), waves.cos()], dim=1)  # (B, 2) -> (B, 18)


def small_net(out):
    return nn.Sequential(Waves(), nn.Linear(18, 88), nn.SiLU(), nn.Linear(88, 88), nn.SiLU(), nn.Linear(88, out))

# %%
class Race(NamedTuple):
    points: torch.Tensor  # (n, D)
    steps: int
    net: Callable  # (numbers in, numbers out) -> network
    denoiser: Callable  # () -> network of (x_t, t)
    latent: int = 2
    variance: float = 0.02  # of the VAE's decoder
    grain: float = 0.02  # variance that a sample of the VAE shows

    def batches(self, seed):
        rng = seeded(seed)
        for _ in range(self.steps):
            yield self.points[torch.randint(len(self.points), (batch,), generator=rng)], rng


on_ring = Race(ring_train, 700, lambda inputs, out: small_net(out), lambda: MLP(2, 42, 2))


# %% [markdown]
# The three training loops, each in its own cell. First the GAN: the discriminator's score of real points goes up and that of fakes goes down, then the generator pulls the score of its fakes up again. `softplus(-s)` is $-\log\sigma(s)$, a *negative* log-probability.

# %%
def train_gan(race, seed):
    torch.manual_seed(seed)
    D, latent = race.points.shape[1], race.latent
    generator, critic = race.net(latent, D), race.net(D, 1)
    adam = [torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.99)) for net in (generator, critic)]
    for x, rng in race.batches(seed):
        fake = generator(torch.randn(batch, latent, generator=rng))
        adam[1].zero_grad()
        (F.softplus(-critic(x)) + F.softplus(critic(fake.detach()))).mean().backward()
        adam[1].step()
        adam[0].zero_grad()
        F.softplus(-critic(fake)).mean().backward()
        adam[0].step()
    return [generator, critic], lambda n, rng: generator(torch.randn(n, latent, generator=rng))


# %% [markdown]
# The VAE minimises $-\mathrm{ELBO}$ of chapter 04, with a fixed decoder variance of 0.02. A sample is drawn from the decoder, noise included.

# %%
def train_vae(race, seed):
    torch.manual_seed(seed)
    D, latent = race.points.shape[1], race.latent
    vae = VAE(event=(D,), latent_dim=latent)
    vae.encoder, vae.decoder = race.net(D, 2 * latent), race.net(latent, D)
    adam = torch.optim.Adam(vae.parameters(), 2e-3)
    for x, rng in race.batches(seed):
        adam.zero_grad()
        vae_terms(vae, x, torch.randn(batch, latent, generator=rng), race.variance).total().mean().backward()
        adam.step()
    noise = lambda n, size, rng: torch.randn(n, size, generator=rng)
    return [vae], lambda n, rng: vae.decode(noise(n, latent, rng)) + race.grain**0.5 * noise(n, D, rng)


# %% [markdown]
# The DDPM of chapter 08, with an average of the weights (EMA), and 100 steps of Algorithm 2 to sample.

# %%
def train_ddpm(race, seed):
    torch.manual_seed(seed)
    net, schedule = race.denoiser(), cosine_schedule(1000)
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    ema = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    for x, rng in race.batches(seed):
        t, noise = torch.randint(1, 1001, (batch,), generator=rng), torch.randn(x.shape, generator=rng)
        adam.zero_grad()
        diffusion_loss(net, schedule, x, t, noise, "v").mean().backward()
        adam.step()
        ema.update_parameters(net)
    model = as_eps_model(ema.module.eval(), schedule, "v")
    return [net], lambda n, rng: ddpm_sample(model, schedule, (n, race.points.shape[1]), num_steps=100, generator=rng)


# %%
race, sizes_of = {}, {}
for name, train_one in (("GAN", train_gan), ("VAE", train_vae), ("DDPM", train_ddpm)):
    for seed in (0, 1):
        nets, draw_from = train_one(on_ring, seed)
        with torch.no_grad():
            race[name, seed] = draw_from(500, seeded(22))
        sizes_of[name] = sum(p.numel() for net in nets for p in net.parameters())
print("parameters within 3 % of each other:", max(sizes_of.values()) < 1.03 * min(sizes_of.values()))
scatter_row({"data": ring_test} | {f"{name}, seed {seed}": x for (name, seed), x in race.items()})
plt.show()

# %% tags=["nbval-ignore-output"]
marks = {run: evaluate(x, ring_train, ring_test, seeds=3 if run == ("DDPM", 0) else 1) for run, x in race.items()}  # one floor for all
short = {"Fréchet distance": "Fréchet", "kernel distance": "kernel", "precision": "prec.", "recall": "recall",
         "two-sample accuracy": "two-s.", "distance to nearest training": "nearest"}
print(f"{'n = 500':16s}" + "".join(f"{label:>9s}" for label in short.values()))
for (name, seed), result in marks.items():
    print(f"{name + ', seed ' + str(seed):16s}" + "".join(f"{float(result[key]):9.3f}" for key in short))
floors = {key: marks["DDPM", 0][key] for key in short}
print(f"{'floor':16s}" + "".join(f"{s.floor:9.3f}" for s in floors.values()))
print(f"{'± over 3 seeds':16s}" + "".join(f"{s.spread:9.3f}" for s in floors.values()))

# %%
mean_of = lambda name, key: sum(float(marks[name, seed][key]) for seed in (0, 1)) / 2
for key, better in (("two-sample accuracy", min), ("precision", max)):
    best = better(("GAN", "VAE", "DDPM"), key=lambda name: mean_of(name, key))
    print(f"best {key}, mean of two runs: {best}")
assert mean_of("DDPM", "two-sample accuracy") < 0.62 < mean_of("VAE", "two-sample accuracy") and mean_of("DDPM", "precision") > mean_of("VAE", "precision") + 0.1

# %% [markdown]
# What the table says, and what it does not.
#
# - The **VAE** covers nearly everything and blurs: high recall (its stray points, too, have huge balls), low precision. One latent and a smooth decoder cannot tear the plane into eight islands. (Part of the blur is our own choice: the fixed variance 0.02 is twice that of an island.)
# - The **GAN** draws sharp strings of points and loses modes: low recall, a large distance, and a different failure for each seed. Mind the recall: it is kinder than the picture, because the stray points have huge balls.
# - The **DDPM** is close to the floor, in both runs; close, not at: its precision is 0.92 against 0.956 ± 0.003, for a few points lie between the islands. The forest does not notice. It paid for that with a hundred network calls a sample.
# - The Fréchet distance can put a blurred VAE (second run) within a few floors of a good DDPM. In the plane it sees two moments, and the blur hardly changes them. The two-sample test is not fooled.
# - It is a ranking of three *small* programs on *one* toy. A GAN with more care would do better; so would a VAE with a learnt variance. The honest summary is the table with its floor, its $n$ and its seeds.
#
# ### The same race on the digits, and another winner
#
# The ring was chosen by us, and it is the kind of data on which a DDPM shines: islands. Same three programs, same kind of budget, but 8×8 digits as 64 plain numbers: 700 steps again, about 135,000 parameters, fully connected networks that know nothing of neighbouring pixels. The VAE shows the mean of its decoder, without grain, as one usually does.

# %%
def plain_net(inputs, out, width=224):
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, out))


on_digits = Race(train_images.flatten(1), 700, plain_net, lambda: MLP(64, 110, 2, octaves=0), latent=16, variance=0.05, grain=0.0)
digit_race, digit_sizes = {}, {}
for name, train_one in (("GAN", train_gan), ("VAE", train_vae), ("DDPM", train_ddpm)):
    for seed in (0, 1):
        nets, draw_from = train_one(on_digits, seed)
        with torch.no_grad():
            digit_race[name, seed] = draw_from(m, seeded(23)).clamp(-1, 1).reshape(-1, 1, 8, 8)
        digit_sizes[name] = sum(p.numel() for net in nets for p in net.parameters())
print("parameters within 6 % of each other:", max(digit_sizes.values()) < 1.06 * min(digit_sizes.values()))
show_rows({name: digit_race[name, 0][:12] for name in ("GAN", "VAE", "DDPM")})
plt.show()

# %% tags=["nbval-ignore-output"]
on_64 = {run: score(f, eyes.features(x), eyes.features(train_images), eyes.features(held_out), n=m) for run, x in digit_race.items()}
for (name, seed), result in on_64.items():
    print(f"{name:4s} seed {seed}: {result:.1f}")

# %%
worst = {name: max(float(on_64[name, seed]) for seed in (0, 1)) for name in digit_sizes}
least = {name: min(float(on_64[name, seed]) for seed in (0, 1)) for name in digit_sizes}
print("both runs of the VAE beat both of the DDPM:", worst["VAE"] < least["DDPM"], " and those the GAN's:", worst["DDPM"] < least["GAN"])
print("every one is over 3 floors away:", min(least.values()) > 3 * on_64["VAE", 0].floor)
assert worst["VAE"] < least["DDPM"] and worst["DDPM"] < least["GAN"] and min(least.values()) > 3 * on_64["VAE", 0].floor

# %% [markdown]
# Here **the VAE wins**, in both runs, by this score, at this budget. Its digits are smooth, those of the DDPM carry specks: a plain network removes noise from 64 unrelated numbers, and a hundred small errors stay in the picture. None of the three is near the floor. The shipped U-Net is near it (the table above), with five times the parameters, convolutions and more training. So "DDPM beats VAE" is no law. It is a result on one data set, with one network, one budget and one score, and such a sentence should carry all four.
#
# ## "The classifier is sure, so the picture is good"
#
# A tempting score: how sure is a digit classifier of the samples? Average the probability of its favourite class. What do real digits get, and what does noise?

# %%
noise_many = torch.rand(3000, 1, 8, 8, generator=seeded(30)) * 2 - 1
confidence = {name: eyes(x).softmax(1).max(1).values for name, x in {"held-out digits": held_out, "uniform noise": noise_many}.items()}
confident = noise_many[confidence["uniform noise"].argsort(descending=True)[:12]]
one_digit = held_out[:1].expand(200, -1, -1, -1)
fig, ax = plt.subplots(figsize=(7.5, 2.2))
for (name, c), colour in zip(confidence.items(), (GREY, RED), strict=True):
    ax.hist(c.numpy(), bins=40, range=(0, 1), density=True, alpha=0.5, color=colour, label=name)
ax.set(xlabel="probability of the favourite class", yticks=[])
ax.legend()
plt.show()

# %%
show_rows({"noise": confident, "real": held_out[:12]})
sure = float((confidence["uniform noise"] > 0.9).float().mean())
print(f"noise that the classifier is over 90 % sure of: {sure:.0%};  the top twelve: over 95 %: {bool((eyes(confident).softmax(1).max(1).values > 0.95).all())}")
one_picture = float(eyes(one_digit).softmax(1).max(1).values.mean())
far = frechet_distance(eyes.features(one_digit + 0.02 * torch.randn(one_digit.shape, generator=seeded(31))), eyes.features(held_out[:200]))
print(f"one digit, 200 times: confidence above 0.9: {one_picture > 0.9};  Fréchet distance above 20: {far > 20}")
assert sure > 0.04 and one_picture > 0.9 and far > 20

# %% [markdown]
# Two failures at once. First, some of the noise passes with more than 90 %, and whoever *selects* by confidence gets the top row: noise of which the classifier is surer than of many a real digit. A classifier divides the whole space among ten classes; it was never asked whether there is a digit at all. Second, one good digit printed 200 times gets as good a score as real digits. Confidence knows nothing about variety.
#
# ### Play with it
#
# Blur the ring, or take away modes. Which score notices what? Start with the number of modes at 8, and move the blur. Without a running kernel, look at the figures above.

# %%
from ddpm_course.widgets import explore, slider


def draw(modes, blur):
    x = toy("ring8", 1500, seeded(40))
    mode = torch.atan2(x[:, 1], x[:, 0]).div(math.pi / 4).round().long() % 8
    x = (x + blur * torch.randn(x.shape, generator=seeded(41)))[mode < modes][:180]
    real, floor = toy("ring8", len(x), seeded(42)), toy("ring8", len(x), seeded(43))
    line = lambda y: f"Fréchet {frechet_distance(real, y):.2f}  kernel {kernel_distance(real, y):.2f}  precision {precision(real, y):.2f}  recall {recall(real, y):.2f}"
    scatter(x, title=f"n = {len(x)}   {line(x)}\nfloor   {line(floor)}")


explore(draw, modes=slider(1, 8, 8, label="modes"), blur=slider(0.0, 0.6, 0.0, 0.05, "blur"))

# %% [markdown]
# ## Common mistakes
#
# ### Pictures in the wrong range (M31)
#
# Features of pictures in $[0,1]$ are features of pale pictures. Straight through the network there is no error message, only a worse number. (The package's `evaluate` looks at the range and refuses.) Real digits, against themselves:

# %%
real_features = eyes.features(held_out)
pale = eyes.features((held_out + 1) / 2)  # the mistake: the eyes want [-1, 1]
print(f"the same digits in [0, 1]: distance above 10 times the floor: {frechet_distance(pale, real_features) > 10 * network[f].floor}")
assert frechet_distance(pale, real_features) > 10 * network[f].floor
try:
    evaluate((held_out + 1) / 2, train_images, held_out, eyes.features)
except CourseError as error:
    print(error)

# %% [markdown]
# ### Fewer samples than features
#
# With $n\le D$ the sample covariance has eigenvalues that are exactly 0, whatever the law. The formula still gives a number. It is a number about $n$. The package refuses.

# %%
print("rank of the covariance of 64 features from n = 40 digits:", int(torch.linalg.matrix_rank(torch.cov(pool[:40].double().T))))
try:
    frechet_distance(pool[:40], pool[40:400])
except CourseError as error:
    print(error)

# %% [markdown]
# ### Scoring against the training set
#
# The training pictures are at hand, there are many of them, so one compares with those. But a model *should* be close to what it was trained on, and the copier is closest of all. Compare with pictures that it has not seen. The same copies, once against the training set from which they come, once against held-out digits ($n=359$ both times):

# %%
copy_features, train_features = eyes.features(sets["copies"]), eyes.features(train_images)
as_many = train_features[torch.randperm(len(train_features), generator=seeded(32))[: len(real_features)]]
against_train, against_held_out = frechet_distance(copy_features, as_many), frechet_distance(copy_features, real_features)
print(f"copies look better against the training set than against held-out digits: {against_train < against_held_out}")
assert against_train < against_held_out

# %% [markdown]
# ### Reading a difference that is smaller than the floor's spread
#
# Two models, 1.4 and 1.6, floor 1.3 ± 0.3. Which is better? Nobody knows. More samples, more seeds, or silence. The floor's spread is printed for this reason.

# %%
runs = [score(f, eyes.features(sets["network"])[k : k + 90], train_features, real_features, n=90, seeds=6) for k in (0, 90)]
gap, spread = abs(float(runs[0]) - float(runs[1])), runs[0].spread
print(f"one network, two heaps of n = 90 samples: their scores differ: {gap > 0};  by less than 4 spreads of the floor: {gap < 4 * spread}")
assert 0 < gap < 4 * spread

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/14_evaluation_student.ipynb), [with solutions](exercises/14_evaluation_solution.ipynb).

# %% [markdown]
# **14.1 ★** What is the (squared) Fréchet distance between $\mathcal N(0, 1)$ and $\mathcal N(3, 4)$? The second number is the variance.

# %% [markdown] tags=["hint"]
# **Hint 14.1**
#
# Means and *standard deviations*, each difference squared.

# %% tags=["exercise"]
distance = ...
check("14.1", distance)

# %% tags=["solution"]
distance = (0 - 3) ** 2 + (1 - 2) ** 2
must_pass("14.1", distance)

# %% [markdown]
# **14.2 ★★** Write the Fréchet distance of two Gaussians with diagonal covariances, from lists of means and of variances.

# %% [markdown] tags=["hint"]
# **Hint 14.2**
#
# Diagonal covariances commute: every axis is a case of its own.

# %% tags=["exercise"]
def frechet_diagonal(means_1, vars_1, means_2, vars_2):
    return ...


check("14.2", frechet_diagonal)


# %% tags=["solution"]
def frechet_diagonal(means_1, vars_1, means_2, vars_2):
    shift = sum((a - b) ** 2 for a, b in zip(means_1, means_2, strict=True))
    return shift + sum((a**0.5 - b**0.5) ** 2 for a, b in zip(vars_1, vars_2, strict=True))


must_pass("14.2", frechet_diagonal)

# %% [markdown]
# **14.3 ★★** A two-sample test is right on 224 of 400 unseen points. How many standard errors above chance is that?

# %% [markdown] tags=["hint"]
# **Hint 14.3**
#
# One coin flip has standard deviation $\frac12$. And the share of heads in 400?

# %% tags=["exercise"]
standard_errors = ...
check("14.3", standard_errors)

# %% tags=["solution"]
standard_errors = (224 / 400 - 0.5) / (0.5 / 400**0.5)
must_pass("14.3", standard_errors)

# %% [markdown]
# **14.4 ★★** Points on a line. Write the precision: the share of `fake` inside a ball around some point of `real`, whose radius is the distance to the `k`-th *other* point of `real`. Plain lists of numbers.

# %% [markdown] tags=["hint"]
# **Hint 14.4**
#
# Sort the distances from one real point to all real points. The first is 0: the point itself.

# %% tags=["exercise"]
def precision_on_a_line(real, fake, k):
    return ...


check("14.4", precision_on_a_line)


# %% tags=["solution"]
def precision_on_a_line(real, fake, k):
    radius = [sorted(abs(x - y) for y in real)[k] for x in real]
    inside = [any(abs(f - x) <= r for x, r in zip(real, radius, strict=True)) for f in fake]
    return sum(inside) / len(fake)


must_pass("14.4", precision_on_a_line)

# %% [markdown]
# **14.5 ★★★** Write the unbiased estimate of (14.8) for the kernel $k(x,y)=xy$, from two lists of equally many numbers, as in `my_kernel` (all $n^2$ mixed pairs count). Try to do it without a double loop.

# %% [markdown] tags=["hint"]
# **Hint 14.5**
#
# $\sum_{i\ne j}x_ix_j=\big(\sum_i x_i\big)^2-\sum_i x_i^2$.

# %% tags=["exercise"]
def linear_mmd(x, y):
    return ...


check("14.5", linear_mmd)


# %% tags=["solution"]
def linear_mmd(x, y):
    n = len(x)
    within = [(sum(a) ** 2 - sum(v**2 for v in a)) / (n * (n - 1)) for a in (x, y)]
    return sum(within) - 2 * sum(x) * sum(y) / n**2


must_pass("14.5", linear_mmd)

# %% [markdown]
# **14.6 ★★★** Two heaps of $n$ points each from the same law, $D$ features, each of variance $\sigma^2$. How large is the *mean* part $\lVert\bar x-\bar y\rVert^2$ of the Fréchet distance on average? Write it as a function of $n$, $D$ and $\sigma^2$.

# %% [markdown] tags=["hint"]
# **Hint 14.6**
#
# (14.6) is one feature. Nothing in it needs the features to be independent.

# %% tags=["exercise"]
def mean_part(n, D, variance):
    return ...


check("14.6", mean_part)


# %% tags=["solution"]
def mean_part(n, D, variance):
    return 2 * D * variance / n


must_pass("14.6", mean_part)

# %% [markdown]
# ## What comes next
#
# You can now say of samples how good they are, for how many, in whose eyes, and beside which floor. Take the habit along: the next part steers the samples, by classes, by text, by known pixels, and every kind of steering trades variety for closeness to the wish. Precision rises, recall falls. Whoever looks at one number alone will praise it.
