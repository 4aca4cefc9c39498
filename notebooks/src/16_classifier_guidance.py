# %% [markdown]
# # 16 · Classifier guidance: a second opinion on every step
#
# **The question.** The network draws digits, but it draws whichever digit it likes. We want a seven. Must we train a new network for that, or can something that merely *recognises* sevens push the old one there?
#
# **After this chapter you can**
#
# - derive both forms of classifier guidance from Bayes' rule: a shift of the predicted noise, and a shift of the mean;
# - say which of the two is exact and which is an approximation, and measure how fast the approximation gets better;
# - explain what a scale above 1 does, and why its result is *not* what one would guess;
# - say why the classifier must be trained on noisy pictures;
# - compare guidance with the obvious alternative, one model for each class, on the same budget.
#
# *Needs:* chapters 03, 06, 09 and 14. *Time:* about three hours with the exercises.

# %%
import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import (GaussianMixture, clip_x_0, cosine_schedule, ddim_sample, ddpm_sample, ddpm_step, linear_schedule, load_model,
                         q_sample, reverse_variance, shipped, time_grid, trajectory)  # fmt: skip
from ddpm_course.checkpoint import load_classifier, load_noisy_classifier
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits
from ddpm_course.guidance import classifier_guided, gradient_of, mean_shift_stepper
from ddpm_course.plots import BLUE, GREEN, GREY, ORANGE, RED, scatter, show_rows, style
from ddpm_course.proofs import agrees, bar_t, derive, eps_hat, inequality, limit, sigma, unit, x_s, x_t
from ddpm_course.sampling import ddim_stepper, last

style()
schedule = linear_schedule(T=1000)
seeded = lambda k: torch.Generator().manual_seed(k)

# %% [markdown]
# ## A classifier that looks at noise
#
# Give each clean picture $x_0$ a label $y$. Add noise as always. The label does not change: a noisy seven was made from a seven. So there is a joint law of $x_t$ and $y$, and in it a perfect classifier *for noisy pictures*. Bayes' rule says what it answers:
#
# $$ p(y\mid x_t)=\frac{p(y)\;q(x_t\mid y)}{q(x_t)} \tag{16.1, definition} $$
#
# Here $q(x_t\mid y)$ is the density of noisy pictures of class $y$ alone, and $q(x_t)$ that of all. Near $t=0$ this classifier is sure of itself almost everywhere (if the classes hardly overlap). Near $t=T$ it knows nothing and answers with $p(y)$, the share of the class. In between it leans.
#
# On a mixture everything is known. Three clouds, one class each, and we want the class on the upper right. The colour is the perfect $p(y\mid x_t)$, the arrows are the gradient of its logarithm.

# %%
shares, stds = torch.tensor([0.3, 0.4, 0.3]), torch.tensor([0.35, 0.25, 0.3])
centres = torch.tensor([[-1.2, 0.6], [1.1, 1.0], [0.3, -1.2]])
everything = GaussianMixture(shares, centres, stds)
wanted = GaussianMixture(torch.ones(1), centres[1:2], stds[1:2])  # class y alone: what we want to sample


def log_prob(x, t, of=schedule):  # log p(y | x_t), exact: Bayes' rule, (16.1)
    return everything.component_log_prob(x, of.at(t, 2)).log_softmax(1)[:, 1]


# %%
line, coarse = torch.linspace(-2.6, 2.6, 60), torch.linspace(-2.1, 2.1, 7)
grids = [torch.cartesian_prod(axis, axis).double() for axis in (line, coarse)]
fig, axes = plt.subplots(1, 4, figsize=(9.5, 2.7))
for ax, t in zip(axes, (1, 150, 300, 500), strict=True):
    sure = log_prob(grids[0], torch.full((3600,), t)).exp().reshape(60, 60).T
    ax.contourf(line, line, sure, levels=torch.linspace(0, 1, 11), cmap="Blues", alpha=0.55)
    pull = gradient_of(log_prob, grids[1], torch.full((49,), t))
    scatter(everything.diffused(schedule.at(t)).sample(200, seeded(1)), ax, f"t = {t}", "#777777", size=2)
    ax.quiver(*grids[1].T, *(pull / (0.5 + pull.norm(dim=1, keepdim=True))).T, color=ORANGE, scale=7.5, width=0.009, zorder=3)
plt.show()

# %% [markdown]
# Look at the arrows (their lengths are squeezed, or the long ones would fill the picture). Inside the blue they vanish: where the classifier is sure, there is nothing to climb. At $t=1$ the border is a cliff, and every place outside is equally hopeless. At $t=500$ there is no border, and the whole plane leans gently one way. **The steering that matters happens while the picture is not yet decided.** Whoever is on the wrong side at $t=1$ has no honest way to cross.
#
# ## Scores add
#
# Take the logarithm of (16.1) and its slope. Write $p_y(x_t)$ for the classifier $p(y\mid x_t)$, and $\pi$ for the share $p(y)$. Then $q(x_t\mid y)=q(x_t)\,p_y(x_t)/\pi$, and

# %% tags=["proof"]
q_fun, p_fun = sp.Function("q", positive=True)(x_t), sp.Function("p_y", positive=True)(x_t)
share = unit(r"\pi")
slope = lambda f: sp.Derivative(sp.log(f), x_t)
derive("16.2", slope(q_fun * p_fun / share),
       (sp.Derivative(q_fun, x_t) / q_fun + sp.Derivative(p_fun, x_t) / p_fun, "log of a product; the share of y does not depend on x"),
       (slope(q_fun) + slope(p_fun), "each term is the slope of a logarithm"))

# %% [markdown]
# > **An image to keep.** A ship on its course, and a pilot who comes on board. The engine stays the same. The pilot only says "a little to starboard", at every moment, and the two arrows add. *Where the image breaks:* a pilot knows the harbour. Ours has a map for each kind of fog, and is only as good as that map. Trust it three times as much as it deserves, and the ship ends up in a corner of the harbour.
#
# The normaliser $\pi$ has dropped out. So far nothing is approximated. Now translate to noise. Chapter 06 found: score $=-\hat\varepsilon/\sqrt{1-\bar\alpha_t}$. Let $g=\nabla_{x_t}\log p(y\mid x_t)$, and write $\nabla\log q$ for the score of the unguided model. Multiply the sum of both arrows by $-\sqrt{1-\bar\alpha_t}$ to get the noise back:

# %% tags=["proof"]
score, g, s = sp.Symbol(r"{\nabla\log q}", real=True), sp.Symbol("g", real=True), sp.Symbol("s", positive=True)
derive("16.3", -sp.sqrt(1 - bar_t) * (score + g),
       (eps_hat - sp.sqrt(1 - bar_t) * g, "put in the score of the unguided model and multiply out"),
       given={score: -eps_hat / sp.sqrt(1 - bar_t)}, source="Dhariwal eq. 14")
at_400 = {bar_t: schedule.at(400), eps_hat: 0.7, g: 0.3}
one_pixel = lambda value: lambda x, t: torch.full_like(x, value)
steered = classifier_guided(one_pixel(0.7), lambda x, t: 0.3 * x[:, 0], schedule)(torch.zeros(1, 1).double(), torch.tensor([400]))
agrees(eps_hat - sp.sqrt(1 - bar_t) * g, at_400, steered)

# %% [markdown]
# That is the **ε form**. It takes a model and gives a model, so every sampler of this course can use it: DDPM, DDIM, DPM-Solver. What the proof does not say: that a *trained* classifier has the right gradient. Two classifiers may agree on every label and disagree on every slope.
#
# ### By hand
#
# Automatic differentiation gives the gradient. Samplers run without gradients, so they have to be switched on inside.

# %%
def my_guided(eps_model, log_prob, schedule, scale=1.0):
    def model(x_t, t):
        with torch.enable_grad():
            x = x_t.detach().requires_grad_(True)
            (pull,) = torch.autograd.grad(log_prob(x, t).sum(), x)
        return eps_model(x_t, t) - scale * (1 - schedule.at(t, x_t.ndim)) ** 0.5 * pull

    return model


everyone = everything.eps_model(schedule)
points, times = 1.5 * torch.randn(500, 2, generator=seeded(2), dtype=torch.float64), torch.randint(1, 1001, (500,), generator=seeded(3))
mine, package = (make(everyone, log_prob, schedule, 2.5)(points, times) for make in (my_guided, classifier_guided))
torch.testing.assert_close(mine, package, rtol=1e-12, atol=1e-12)

# %% [markdown]
# Now the test that counts. Take the *exact* unconditional noise and the *exact* classifier. The sum must be the exact noise of the one class, at every point and every time. And samples must have its mean and its spread.

# %%
guided = classifier_guided(everyone, log_prob, schedule)
off = float((guided(points, times) - wanted.eps_model(schedule)(points, times)).abs().max())
print(f"eps form = eps of the class alone to 1e-10: {off < 1e-10}")
x = ddim_sample(guided, schedule, (3000, 2), num_steps=200, generator=seeded(4))
mean_off, std_off = float((x.mean(0) - centres[1]).abs().max()), float((x.std(0) - stds[1]).abs().max())
print(f"3,000 samples: mean and standard deviation of the class to 0.02: {mean_off < 0.02} {std_off < 0.02}")
assert off < 1e-10 and mean_off < 0.02 and std_off < 0.02

# %% [markdown]
# No network was trained for this class. The unguided model and the classifier together *are* its model. Here are the paths of forty points, from the same noise.

# %%
start = torch.randn(40, 2, generator=seeded(5), dtype=torch.float64)
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.7))
for ax, (name, model) in zip(axes, {"unguided": everyone, "guided, scale 1": guided}.items(), strict=True):
    walk = torch.stack([x for _, x, _ in trajectory(ddim_stepper(model, schedule), start, time_grid(1000, 100))])
    scatter(everything.sample(1500, seeded(6)), ax, name, "#cccccc")
    ax.plot(walk[..., 0], walk[..., 1], color=BLUE, linewidth=0.6, alpha=0.7)
    ax.scatter(*walk[0].T, color=GREY, s=8, zorder=3)
    ax.scatter(*walk[-1].T, color="black", s=10, zorder=3)
plt.show()

# %% [markdown]
# ## The other form: shift the mean
#
# The paper begins with another form. Start from one reverse step, and ask for the law of $x_{t-1}$ when both $x_t$ *and* $y$ are known. By the definition of conditional probability it is $q(x_t\mid x_{t-1})\,q(x_{t-1}\mid y)/q(x_t\mid y)$. The first factor needs no $y$, because the forward noise is drawn without looking at labels. That is the only assumption. Write $K=q(x_t\mid x_{t-1})$ for it.

# %% tags=["proof"]
K, q_s, q_t = (sp.Symbol(name, positive=True) for name in ("K", r"{q(x_{t-1})}", r"{q(x_t)}"))
p_s, p_t = sp.Symbol(r"{p(y\mid x_{t-1})}", positive=True), sp.Symbol(r"{p(y\mid x_t)}", positive=True)
of_y_s, of_y_t = sp.Symbol(r"{q(x_{t-1}\mid y)}", positive=True), sp.Symbol(r"{q(x_t\mid y)}", positive=True)
derive("16.4", K * of_y_s / of_y_t,
       ((K * q_s / q_t) * p_s / p_t, "both densities of the class by (16.1); the share cancels"),
       given={of_y_s: q_s * p_s / share, of_y_t: q_t * p_t / share})

# %% [markdown]
# The factors $K\,q(x_{t-1})/q(x_t)$ are the reverse step without a label. So: **the step with a label is the step without it, times the classifier at $x_{t-1}$**, up to the constant $p(y\mid x_t)$.
#
# The model's step is a Gaussian with mean $\mu$ and variance $\sigma^2$. Times a classifier it is no Gaussian any more, and we cannot draw from it. Now comes the approximation, in three moves:
#
# 1. *If the step is short*, $x_{t-1}$ lies close to $\mu$. There the logarithm of the classifier is nearly a straight line: $\log p(y\mid x_{t-1})\approx\log p(y\mid\mu)+(x_{t-1}-\mu)\,g$, Taylor's expansion with $g=\nabla\log p(y\mid x)$ **taken at $x=\mu$, at time $t-1$**.
# 2. *Add it to the exponent of the Gaussian.* A parabola plus a straight line is a parabola.
# 3. *Complete the square* (chapter 03), and read off the new mean.

# %% tags=["proof"]
mu = sp.Symbol(r"\mu", real=True)
parabola = -((x_s - mu) ** 2) / (2 * sigma**2) + (x_s - mu) * g
derive("16.5", parabola,
       (-(((x_s - mu) ** 2) - 2 * sigma**2 * g * (x_s - mu)) / (2 * sigma**2), "one fraction"),
       (-((x_s - mu - sigma**2 * g) ** 2) / (2 * sigma**2) + sigma**2 * g**2 / 2, "complete the square; the term without x is a constant"),
       source="Dhariwal eq. 10")

# %% [markdown]
# The same variance, and the mean moves to $\mu+\sigma^2g$. That is the **mean shift**: noisy steps are pushed further than quiet ones. In many dimensions read $\Sigma g$. The algebra is exact. The straight line is not, and there is a second, quieter approximation: the unguided reverse step was taken for a Gaussian, which for a finite step it is not (chapter 03).
#
# By hand, and the package's step with the same noise:

# %%
def my_mean_shift(eps_model, log_prob, schedule, x_t, t, s, z, scale=1.0):
    eps_hat, var = eps_model(x_t, torch.full((len(x_t),), t)), reverse_variance(schedule, t, s, "posterior")
    mu = ddpm_step(schedule, x_t, eps_hat, t, s, torch.zeros_like(x_t))
    pull = gradient_of(log_prob, mu, torch.full((len(x_t),), s))  # at mu, and at the time of mu
    return mu + scale * var * pull + var**0.5 * z


z = torch.randn(500, 2, generator=seeded(7), dtype=torch.float64)
package_step = mean_shift_stepper(everyone, log_prob, schedule, 2.0, generator=seeded(7))
torch.testing.assert_close(my_mean_shift(everyone, log_prob, schedule, points, 500, 480, z, 2.0), package_step(points, 500, 480)[0])

# %% [markdown]
# ### How wrong is it?
#
# The oracle knows the right mean: that of the step with the exact $\hat\varepsilon(x_t\mid y)$. We take chains of different length $T$, all with the cosine schedule, and stop halfway. How far is each mean from the right one, in units of the step's own noise $\sqrt{\beta_t}$? There are *three* recipes in circulation, which are often taken for one: the shift with the gradient at $x_t$, the shift with the gradient at $\mu$, and the ε form.

# %%
def mean_errors(T):
    chain, t, s = cosine_schedule(T), T // 2, T // 2 - 1
    at = lambda time: torch.full((2000,), time)
    x = q_sample(chain, everything.sample(2000, seeded(8)), at(t), torch.randn(2000, 2, generator=seeded(9), dtype=torch.float64))
    mean = lambda model: ddpm_step(chain, x, model(x, at(t)), t, s, torch.zeros_like(x))
    climb = lambda x, t: log_prob(x, t, chain)
    plain, var = mean(everything.eps_model(chain)), reverse_variance(chain, t, s, "posterior")
    found = {"no guidance": plain, "shift, gradient at x_t": plain + var * gradient_of(climb, x, at(t)),
             "shift, gradient at mu": plain + var * gradient_of(climb, plain, at(s)),
             "eps form": mean(classifier_guided(everything.eps_model(chain), climb, chain))}
    exact, unit_of_noise = mean(wanted.eps_model(chain)), float(chain.beta[t]) ** 0.5
    return {name: float((m - exact).norm(dim=1).mean()) / unit_of_noise for name, m in found.items()}


sizes = [20, 40, 80, 160, 320, 640]
errors = {T: mean_errors(T) for T in sizes}

# %% [markdown]
# Counting orders: each step's shift is about $\beta g$, which in units of $\sqrt\beta$ is $\sqrt\beta\,g\sim T^{-1/2}$. The recipes differ in where $g$ is taken, and in $\tilde\beta$ for $\beta$. Both are relative errors of order $\beta\sim1/T$. So the shift should be wrong by about $T^{-3/2}$ in each step. It is.

# %% tags=["proof"]
bias = sp.Symbol(r"\mathbb{E}\,\lVert\mu+\sigma^2g-\mu(x_t\mid{}y)\rVert\,/\sqrt{\beta_t}")
limit("16.6", bias, sp.Integer(0), sizes=sizes, measured=[errors[T]["shift, gradient at mu"] for T in sizes], order=1.5)

# %% [markdown]
# Smaller steps, but more of them. In units of $x$ one error is $T^{-3/2}\sqrt\beta$. As $\beta\sim1/T$, that is $T^{-2}$. There are $T$ of them, so about $T\cdot T^{-2}=1/T$ is left at the end of the chain. We look at it there, too: in a chain of $T$ steps, how many of 3,000 samples end up more than four standard deviations from the wanted cloud's centre? For the cloud itself it is 1 in 3,000. (A count of strays is not the error itself, so do not expect $1/T$.)

# %%
def strays(T, form):
    chain = cosine_schedule(T)
    climb, model = (lambda x, t: log_prob(x, t, chain)), everything.eps_model(chain)
    x_T = torch.randn(3000, 2, generator=seeded(10), dtype=torch.float64)
    if form == "eps form":
        x = ddpm_sample(classifier_guided(model, climb, chain), chain, x_T=x_T, generator=seeded(11))
    else:
        x = last(trajectory(mean_shift_stepper(model, climb, chain, generator=seeded(11)), x_T, time_grid(T, T)))
    return float(((x - centres[1]).norm(dim=1) > 4 * stds[1]).double().mean())


lengths = [5, 10, 20, 40, 80, 160]
with torch.no_grad():
    stray = {form: [strays(T, form) for T in lengths] for form in ("mean shift", "eps form")}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
for name, colour in (("no guidance", GREY), ("shift, gradient at x_t", RED), ("shift, gradient at mu", ORANGE)):
    left.loglog(sizes, [errors[T][name] for T in sizes], "o-", color=colour, label=name)
left.set(title="error of one step's mean", xlabel="T", ylabel=r"in units of $\sqrt{\beta_t}$")
left.set_xticks(sizes, sizes, minor=False)
left.set_xticks([], minor=True)
left.legend(fontsize=9)
for form, colour in (("mean shift", ORANGE), ("eps form", BLUE)):
    right.semilogx(lengths, [100 * v for v in stray[form]], "o-", color=colour, label=form)
right.set(title="samples outside the class, %", xlabel="T")
right.set_xticks(lengths, lengths)
right.set_xticks([], minor=True)
right.legend()
plt.show()
print("eps form, error of the mean below 1e-12 at every T:", max(errors[T]["eps form"] for T in sizes) < 1e-12)
print("samples outside the class: mean shift worse than eps form at T = 5, 10, 20:", all(a > b for a, b in list(zip(*stray.values(), strict=True))[:3]))
assert max(errors[T]["eps form"] for T in sizes) < 1e-12

# %% [markdown]
# The ε form has no point in the left picture: its error is zero up to rounding, at any $T$. The right picture shows the whole chain. From 40 steps on, 3,000 samples cannot tell the two apart. In few steps, and that is where one wants to be, the ε form is the better choice. It has another advantage: DDIM has no noise ($\sigma=0$), so the mean shift would shift by nothing.
#
# ## Turn it up: the scale
#
# In practice the gradient is multiplied by a number $s$, often far above 1 (this $s$ is no time). The classifier is to be obeyed "more". Which law has this score?

# %% tags=["proof"]
derive("16.7", slope(q_fun * p_fun**s),
       (sp.Derivative(q_fun, x_t) / q_fun + s * sp.Derivative(p_fun, x_t) / p_fun, "the power comes down in front of the logarithm"),
       (slope(q_fun) + s * slope(p_fun), "slopes of logarithms"))

# %% [markdown]
# So at each $t$ the guided model has the score of $q(x_t)\,p(y\mid x_t)^s$, normalised. With $s=3$ a point of which the classifier is 90 % sure counts $0.9^3=0.73$, one at 50 % counts $0.125$. The doubtful ones are pushed out. That is why samples become more typical, and less varied.
#
# It is tempting to read on: "so the samples at the end have the law $q(x_0)\,p(y\mid x_0)^s$". **They do not.** A sampler follows a *family* of laws, one for each $t$, and it ends at the last of them, that of $t=0$, only if each is the diffused version of the next, less noisy one. For $s=1$ that is so, by construction. For other $s$ the two operations do not commute: sharpen and then add noise, or add noise and then sharpen.
#
# One case can be computed in full. Data $x_0\sim\mathcal N(0,1)$; the "label" is a noisy reading of $x_0$, the reading is 0, and it is so precise that it takes the variance from 1 down to $1-c$. Precision is one over variance. It went from 1 to $\frac1{1-c}$, so the reading added $\frac1{1-c}-1=\frac c{1-c}$. Precisions add, and $s$ multiplies what the reading adds:
#
# - *sharpen, then noise:* the reading adds the precision $\frac{c}{1-c}$, so $x_0$ has the variance $1/(1+\frac{sc}{1-c})$. Shrink by $\bar\alpha_t$, add $1-\bar\alpha_t$.
# - *noise, then sharpen:* at time $t$ the class has the variance $1-\bar\alpha_tc$. That adds the precision $\frac{1}{1-\bar\alpha_tc}-1$ to the 1 of $q(x_t)$. Times $s$.

# %% tags=["proof"]
c = unit("c")
diffused = bar_t / (1 + s * c / (1 - c)) + 1 - bar_t
pointwise = 1 / (1 + s * (1 / (1 - bar_t * c) - 1))
derive("16.8", diffused - pointwise,
       (s * bar_t * c / (1 + (s - 1) * bar_t * c) - s * bar_t * c / (1 + (s - 1) * c), "both variances as 1 minus something"),
       (s * (s - 1) * bar_t * c**2 * (1 - bar_t) / ((1 + (s - 1) * bar_t * c) * (1 + (s - 1) * c)), "one fraction"))
cases = [{s: a, c: b, bar_t: d} for a in (1.0, 1.5, 3.0, 10.0) for b in (0.1, 0.5, 0.9) for d in (0.05, 0.5, 0.95)]
inequality("16.9", diffused, pointwise, cases=cases, equality={s: 1.0, c: 0.6, bar_t: 0.3})

# %% [markdown]
# All factors of the last line of (16.8) are positive for $s>1$ and $0<\bar\alpha_t<1$, and one is zero at $s=1$. So in this example, with a scale above 1, the guided model's law is **too narrow at every noise level in between**; only at the ends, without noise ($\bar\alpha_t=1$) or without any picture left ($\bar\alpha_t=0$), do the two agree. A sampler that has been squeezed all the way arrives at something else. What the proof does not tell is what it arrives at; chapter 17 computes it on the same example (there the reading has error variance $r$, and $c=\frac1{1+r}$).
#
# We look. Two bells in one dimension, the right one is the class, $s=3$. In one dimension $q(x_0)\,p(y\mid x_0)^3$ can be summed on a grid.

# %%
pair = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-0.5], [0.5]]), torch.tensor([0.5, 0.5]))
right_bell = lambda x, t: pair.component_log_prob(x, schedule.at(t, 2)).log_softmax(1)[:, 1]
x_T = torch.randn(6000, 1, generator=seeded(12), dtype=torch.float64)
strong = classifier_guided(pair.eps_model(schedule), right_bell, schedule, scale=3.0)
got = ddpm_sample(strong, schedule, x_T=x_T, num_steps=200, generator=seeded(13))
axis = torch.linspace(-2.5, 4, 1301, dtype=torch.float64)[:, None]
joint = pair.component_log_prob(axis)
laws = {s: (joint.logsumexp(1) + s * joint.log_softmax(1)[:, 1]).exp() for s in (0, 1, 3)}
laws = {s: law / (law.sum() * 0.005) for s, law in laws.items()}

# %%
fig, ax = plt.subplots(figsize=(7.5, 2.8))
for (s_value, law), colour in zip(laws.items(), (GREY, BLUE, GREEN), strict=True):
    ax.plot(axis, law, color=colour, label=f"$q(x_0)\\,p(y|x_0)^{s_value}$")
ax.hist(got[:, 0].numpy(), bins=70, density=True, color=ORANGE, alpha=0.45, label="guided samples, scale 3")
ax.set(yticks=[], xlabel="$x_0$")
ax.legend(fontsize=9)
plt.show()
further_out = float(got.mean()) - float((laws[3] * axis[:, 0]).sum() * 0.005)
print(f"mean of the samples minus mean of q p^3, n = 6,000: {further_out:.2f}")
assert further_out > 0.1

# %% [markdown]
# The samples (orange) lie further out than the law that one would expect (green). The early, noisy steps already obey a classifier that is three times too strong, and nothing later takes it back. The excess is a property of the method, not an error of the classifier: this classifier is exact. Scale is a dial that one sets by looking at scores. It has no claim to be a law.
#
# ## Real digits
#
# On digits nobody gives us $p(y\mid x_t)$. We train a network for it: pictures $x_t$ and the time $t$ go in, ten logits come out. Training is ordinary classification, except that each picture is first made noisy at a random time. The course ships one, a small one. `python benchmarks/train_shipped.py noisy digits` makes it again. How good can it be? At $t=1000$ there is nothing to see. We measure the accuracy against $t$ on held-out digits, and beside it that of the shipped classifier of *clean* digits, which has 100 % on clean ones.

# %%
trained, data = load_model(shipped("digits")), digits()
chain, noisy, judge = trained.schedule, load_noisy_classifier("digits"), load_classifier("digits")
images, labels = (torch.cat(parts) for parts in zip(data.val, data.test, strict=True))


@torch.no_grad()
def accuracy(classify, t):
    x_t = q_sample(chain, images, t, torch.randn(images.shape, generator=seeded(t)))
    return float((classify(x_t, torch.full((len(x_t),), t)).argmax(1) == labels).double().mean())


levels = [1, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]
by_level = {"trained on noisy digits": [accuracy(noisy, t) for t in levels],
            "trained on clean digits": [accuracy(lambda x, t: judge(x), t) for t in levels]}

# %%
fig, ax = plt.subplots(figsize=(6.5, 2.8))
for (name, values), colour in zip(by_level.items(), (BLUE, RED), strict=True):
    ax.plot(levels, values, "o-", color=colour, label=name)
ax.axhline(0.1, color=GREY, linewidth=1, linestyle=":")
ax.set(title=f"accuracy on noisy held-out digits, n = {len(labels)}", xlabel="t", ylim=(0, 1.03))
ax.legend(fontsize=9)
plt.show()
at_300 = [values[levels.index(300)] for values in by_level.values()]
print(f"the noisy classifier is the better one at t = 300: {at_300[0] > at_300[1]};  at t = 1000 below 0.2: {by_level['trained on noisy digits'][-1] < 0.2}")
assert at_300[0] > at_300[1]

# %% [markdown]
# Now guide. The order of the wrappers matters: first the guidance, then the clipping of $\hat x_0$ to $[-1,1]$, so that no push, however strong, leaves the range of pictures. One seed, ten columns, each column with its own noise and its own wish: 0 to 9.

# %%
def draw_digits(y, scale, seed=0, log_prob=None):
    climb = log_prob or (lambda x, t: noisy.log_prob(y, x, t))
    model = clip_x_0(classifier_guided(trained.eps_model(), climb, chain, scale), chain)
    return ddim_sample(model, chain, (len(y), 1, 8, 8), num_steps=20, generator=seeded(seed))


def hit_rate(x, y):  # by the judge, which never guided anybody
    with torch.no_grad():
        return float((judge(x).argmax(1) == y).double().mean())


SCALE, ten = 3.0, torch.arange(10)
show_rows({f"s = {scale:g}": draw_digits(ten, scale, seed=3) for scale in (0, 1, SCALE, 12)})
plt.show()

# %% [markdown]
# The first row does not know the wish, and each column draws what its noise suggests. The rows below start from the same noise. How often does the wish come true? **The judge must not be the guide.** Guidance climbs one network's opinion, so that network is the last one to ask. We ask the clean classifier of chapter 14, which was trained separately and has seen none of this.

# %%
wishes = torch.arange(1000) % 10
at_scale = draw_digits(wishes, SCALE)
rate = hit_rate(at_scale, wishes)
print(f"n = 1,000, scale 3: the requested class in at least 90 %: {rate >= 0.9}")
assert rate >= 0.9

# %%
without = hit_rate(draw_digits(wishes, 0.0), wishes)
print(f"n = 1,000, no guidance: the requested class in about 10 % (6 to 14): {0.06 < without < 0.14}")
assert 0.06 < without < 0.14

# %% [markdown]
# ### What it costs
#
# Obedience is not the only thing. Chapter 14 ended with a warning: every kind of steering trades variety for closeness to the wish. Here is the trade, measured with $n=359$ samples for each scale (`python benchmarks/guided.py scales`), all with the same noise, by the features of the same judge. The lines are the floors, real training digits in place of the samples, with the spread of five seeds as bands.

# %%
results = json.loads(Path("../benchmarks/results/guided.json").read_text())
by_scale = {float(key): row for key, row in results["scales"].items()}
dial = sorted(by_scale)
fig, axes = plt.subplots(1, 3, figsize=(9.8, 2.9))
axes[0].plot(dial, [by_scale[k]["hit"] for k in dial], "o-")
axes[0].set(title="requested class", xlabel="scale", ylim=(0, 1.03))
for ax, names in ((axes[1], ["Fréchet distance"]), (axes[2], ["precision", "recall"])):
    for name, colour in zip(names, (BLUE, ORANGE), strict=False):
        ax.plot(dial, [by_scale[k][name]["value"] for k in dial], "o-", color=colour, label=name)
        floor, spread = (by_scale[0.0][name][key] for key in ("floor", "floor_std"))
        ax.axhspan(floor - spread, floor + spread, color=colour if len(names) > 1 else GREY, alpha=0.15, linewidth=0)
        ax.axhline(floor, color=colour if len(names) > 1 else GREY, linewidth=1, linestyle="--" if name == "recall" else "-")
    ax.set(title=" and ".join(names) + ", n = 359", xlabel="scale", ylim=(0, None) if ax is axes[1] else (0.5, 1))
axes[2].legend(fontsize=9)
plt.show()

# %%
names = ("Fréchet distance", "precision", "recall")
print(f"{'n = 359':10s}{'class':>7s}{'Fréchet':>10s}{'precision':>11s}{'recall':>8s}")
line_of = lambda values: f"{values[0]:10.2f}{values[1]:11.2f}{values[2]:8.2f}"
for k in (0.0, 1.0, 2.0, 3.0, 12.0):
    print(f"scale {k:<4g}{by_scale[k]['hit']:7.2f}" + line_of([by_scale[k][name]["value"] for name in names]))
print(f"{'floor':17s}" + line_of([by_scale[0.0][name]["floor"] for name in names]))
print(f"{'± 5 seeds':17s}" + line_of([by_scale[0.0][name]["floor_std"] for name in names]))
assert by_scale[3.0]["hit"] > 0.95 > by_scale[1.0]["hit"] and by_scale[12.0]["recall"]["value"] < by_scale[1.0]["recall"]["value"] - 0.2

# %% [markdown]
# Four things to read here.
#
# - **Scale 1 is not enough**: about 85 % of the wishes come true. With exact parts it would be all of them, as on the mixture. The missing 15 % measure how far our two networks are from exact. The scale covers for it.
# - **Scale 2 is a good place**: 97 % obey, the distance is at the floor, and precision and recall are within 0.04 of theirs. At scale 3 it is 99 %, but variety is already going.
# - **The price is paid early.** Recall falls from 0.94 at scale 1 to 0.71 at scale 3, and only to 0.61 at 12. From 3 on the precision no longer gains, and the distance climbs to twice the floor. The samples become the textbook seven, again and again. That is (16.7) at work: doubtful pictures count less and less.
# - **Half a push is worse than none**: at scale 0.5 the precision is at its lowest. A likely reason is that some digits are pushed off their own class and do not arrive at the other.
#
# The value below the floor at scale 1 is no miracle. The floor's draws leave the class counts to chance; our wishes are spread evenly, and that is nearer to the held-out digits. Beside a floor with the same labels (chapter 17: about 0.5) every scale here lies above it. Besides, this floor's own spread is a quarter of it.
#
# ## The naive way: one model per class
#
# Why not simply train ten networks, one on the zeros, one on the ones, and so on? Then a seven is a sample of network seven. Nothing is approximated, no scale has to be chosen. For ten classes this is a fair question, and the answer must be measured.
#
# Equal conditions: the same small U-Net (16 channels), the same batch, the same optimiser, **1,200 training steps in total**. Either 1,200 steps for one network on all digits, or 120 for each of ten. The second way has ten times as many weights to store. The first also needs the noisy classifier, 1,500 steps of a network that costs a fraction. The same sampler for all, the same judge, $n=359$ (`python benchmarks/guided.py naive`). The last column is the median distance to the nearest training digit, that of held-out digits being 1. *Far* below 1 would mean copies (chapter 14); a little below is what typical digits have.

# %%
naive = results["naive"]
rows = [key for key in naive if key.startswith("one model")]
print(f"{'n = 359':34s}{'class':>7s}{'Fréchet':>9s}{'prec.':>7s}{'recall':>8s}{'nearest':>9s}")
for key in rows:
    row = naive[key]
    print(f"{key:34s}{row['hit']:7.2f}" + "".join(f"{row[name]['value']:{width}.{digits_}f}" for name, width, digits_ in
          (("Fréchet distance", 9, 1), ("precision", 7, 2), ("recall", 8, 2))) + f"{row['nearest']:9.2f}")
distances = {key: naive[key]["Fréchet distance"]["value"] for key in rows}
assert naive["one model per class"]["hit"] > 0.9 and distances["one model per class"] < distances["one model, guided at scale 0"] / 2
floor = naive[rows[0]]
print(f"{'floor':34s}{'':7s}{floor['Fréchet distance']['floor']:9.1f}{floor['precision']['floor']:7.2f}{floor['recall']['floor']:8.2f}{1:9.2f}")

# %% [markdown]
# **A draw.** One model per class obeys in about 97 % and is close to the floor, after 120 steps for each network. One network for all, guided at scale 3, obeys as often and is as close. Unguided, that same network is several floors away. So guidance did more than choose: on an undertrained network it also cleaned up. (A part of the unguided distance is class counts that nobody fixed.) Probably the classifier had by then learned something about digits that the network had not. At scale 1 it does neither quite. In detail the two differ: guidance is ahead in precision, one model per class in recall.
#
# If it is a draw, why does nobody train one model per class? Count what does not show in this table.
#
# - *Classes.* Ten networks are ten times the weights. A thousand classes are a thousand networks, each with a thousandth of the steps. And a sentence is not a class at all: chapter 18 asks for "a large red three above a small blue seven".
# - *Pictures.* Each network has seen only its own 144 digits or so. Strokes, edges and noise look alike in all classes, and each network has to learn them alone. With few pictures per class, that is where it ends.
# - *Patience.* A draw at this budget says nothing about another. Longer runs were not tried for the naive way.
# - *Seeds.* One run each, and the floor's own spread is 0.3. Do not read anything into a difference of that size.
#
# And what speaks for it: it needs no classifier, no gradient in each step, and no scale. For two or three classes with many pictures each it may well be the sensible thing.
#
# ### Play with it
#
# Choose a class and a scale. Eight digits from the same eight noises, and the judge's count. Without a running kernel, the rows of digits above show the same.

# %%
from ddpm_course.widgets import choice, explore, slider


def draw(digit, scale):
    y = torch.full((8,), int(digit))
    x = draw_digits(y, scale, seed=5)
    show_rows({f"{digit}, scale {scale:g}": x}).suptitle(f"the judge accepts {round(8 * hit_rate(x, y))} of 8", fontsize=11)


explore(draw, digit=choice(list(range(10)), "digit"), scale=slider(0.0, 15.0, 3.0, 0.5, "scale"))

# %% [markdown]
# ## Common mistakes
#
# ### Three recipes taken for one (M33)
#
# The shift with the gradient at $x_t$, the shift with the gradient at $\mu$, the ε form. The figure above has their errors. Here is where they differ most: the last step. At $t=1$ the posterior variance $\tilde\beta_1$ is 0, so **both shifts are silent** there, whatever the classifier says. The ε form is not. In a long chain the last step is tiny and nobody notices. In a chain of ten steps, a point which then still lies between two clouds gets no help.

# %%
ten_steps, x_1 = cosine_schedule(10), torch.tensor([[0.0, 0.7]], dtype=torch.float64)
climb, at_1 = (lambda x, t: log_prob(x, t, ten_steps)), torch.tensor([1])
model_1 = everything.eps_model(ten_steps)
end = lambda model: ddpm_step(ten_steps, x_1, model(x_1, at_1), 1, 0, torch.zeros_like(x_1))
exact, plain = end(wanted.eps_model(ten_steps)), end(model_1)
silent = plain + reverse_variance(ten_steps, 1, 0, "posterior") * gradient_of(climb, x_1, at_1)
print("variance of the last step:", reverse_variance(ten_steps, 1, 0, "posterior"))
for name, mean in (("mean shift", silent), ("eps form", end(classifier_guided(model_1, climb, ten_steps)))):
    print(f"{name}: distance to the right mean {float((mean - exact).norm()):.2f}")

# %% [markdown]
# ### A clean classifier for noisy pictures
#
# "We have a digit classifier with 100 %, why train another?" Because it has never seen what it will be asked. The red curve above fell to chance. Worse, such a classifier does not know that it does not know. We freeze our own guide at $t=1$: it then takes every picture for a clean one. (That is the mistake in a mild form, since its weights have seen noise.) How sure is it at $t=600$, and how often right?

# %%
x_600 = q_sample(chain, images, 600, torch.randn(images.shape, generator=seeded(600)))
for name, told in (("told t = 600", 600), ("told t = 1", 1)):
    with torch.no_grad():
        p = noisy(x_600, torch.full((len(images),), told)).softmax(1)
    print(f"{name:12s}: sure of its answer {float(p.max(1).values.mean()):.1f}, right {float((p.argmax(1) == labels).double().mean()):.1f}")

# %% [markdown]
# Told the time, its sureness is about right. Not told, it is far too sure. Now guide with the frozen one, at the same scale.

# %%
asked = torch.arange(200) % 10
frozen = lambda x, t: noisy.log_prob(asked, x, torch.ones_like(t))  # the mistake: always asked as if the picture were clean
clean_guided = draw_digits(asked, SCALE, seed=7, log_prob=frozen)
noisy_guided = draw_digits(asked, SCALE, seed=7)
print(f"n = 200, told the time: at least 95 %: {hit_rate(noisy_guided, asked) >= 0.95};  frozen: below 90 %: {hit_rate(clean_guided, asked) < 0.9}")
show_rows({"told the time": noisy_guided[:10], "frozen at t = 1": clean_guided[:10]})
plt.show()

# %% [markdown]
# More than one wish in ten is lost (the wishes are 0 to 9, from left to right). That it still works so often has a reason: late in the chain little noise is left, and there the frozen guide is a good one. But by then the picture is decided, and a push can only do violence to it.
#
# ### The guide is its own judge
#
# Guidance does to the guide what adversarial examples do: it looks for pictures that *this* network likes. So the guide's applause is worth nothing. Ask the frozen guide about its own work at a large scale, and ask the judge.

# %%
pushed = draw_digits(asked, 12.0, seed=7, log_prob=frozen)
with torch.no_grad():
    applause = float((noisy(pushed, torch.ones(200).long()).argmax(1) == asked).double().mean())
print(f"frozen guide at scale 12, n = 200: its own verdict is better than the judge's: {applause > hit_rate(pushed, asked)}")

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/16_classifier_guidance_student.ipynb), [with solutions](exercises/16_classifier_guidance_solution.ipynb).

# %% [markdown]
# **16.1 ★** The network answers $\hat\varepsilon=0.5$ at a time with $\bar\alpha_t=0.64$. The classifier's gradient is $g=0.25$. What is the guided noise at scale 2?

# %% [markdown] tags=["hint"]
# **Hint 16.1**
#
# The classifier wants $x$ to grow. A sampler subtracts the predicted noise. Must the prediction become larger for that, or smaller?

# %% tags=["exercise"]
guided_noise = ...
check("16.1", guided_noise)

# %% tags=["solution"]
guided_noise = 0.5 - 2 * (1 - 0.64) ** 0.5 * 0.25
must_pass("16.1", guided_noise)

# %% [markdown]
# **16.2 ★★** The mean of one guided DDPM step, by (16.5) and with a scale. You get the current `x_t`, the unguided mean `mu`, the **standard deviation** `std` of the step, a function `gradient`, and the `scale`.

# %% [markdown] tags=["hint"]
# **Hint 16.2**
#
# Around which point was the logarithm replaced by a straight line?

# %% tags=["exercise"]
def shifted_mean(x_t, mu, std, gradient, scale):
    return ...


check("16.2", shifted_mean)


# %% tags=["solution"]
def shifted_mean(x_t, mu, std, gradient, scale):
    return mu + scale * std**2 * gradient(mu)


must_pass("16.2", shifted_mean)

# %% [markdown]
# **16.3 ★★** Data that are $+1$ or $-1$, equally often; the class is the sign. Write $\frac{d}{dx}\log p(y{=}{+}1\mid x_t=x)$ as a function of `x` and `bar`, which is $\bar\alpha_t$. Both are plain numbers (`math.exp` is at hand).

# %% [markdown] tags=["hint"]
# **Hint 16.3**
#
# Divide (16.1) by its numerator: $p=1/(1+\text{ratio of two bells})$. The squares in the exponents cancel.

# %% tags=["exercise"]
def pull_to_plus(x, bar):
    return ...


check("16.3", pull_to_plus)


# %% tags=["solution"]
def pull_to_plus(x, bar):
    steepness = 2 * bar**0.5 / (1 - bar)
    return steepness / (1 + math.exp(steepness * x))


must_pass("16.3", pull_to_plus)

# %% [markdown]
# **16.4 ★★★** Data $\mathcal N(0,1)$, and a label as in (16.8): the class has variance $1-c$ at $t=0$. Write the variance of the law whose score the guided model has, $q(x_t)\,p(y\mid x_t)^s$ normalised.

# %% [markdown] tags=["hint"]
# **Hint 16.4**
#
# What is the variance of $q(x_t\mid y)$? Which precision must the label have added to the 1 of $q(x_t)$?

# %% tags=["exercise"]
def guided_variance(scale, c, bar):
    return ...


check("16.4", guided_variance)


# %% tags=["solution"]
def guided_variance(scale, c, bar):
    of_class = bar * (1 - c) + 1 - bar
    return 1 / (1 + scale * (1 / of_class - 1))


must_pass("16.4", guided_variance)

# %% [markdown]
# **16.5 ★★** Two networks look at the same $x_t$, with $\bar\alpha_t=0.64$. One was trained on all digits and answers $\hat\varepsilon=0.5$, the other on sevens alone and answers $0.2$. Which gradient $\nabla\log p(y{=}7\mid x_t)$ do they imply together?

# %% [markdown] tags=["hint"]
# **Hint 16.5**
#
# Solve (16.3) for $g$. Its left side is the noise of the class.

# %% tags=["exercise"]
implied = ...
check("16.5", implied)

# %% tags=["solution"]
implied = (0.5 - 0.2) / (1 - 0.64) ** 0.5
must_pass("16.5", implied)

# %% [markdown]
# ## What comes next
#
# Guidance by a classifier has a price: a second network, trained on noise, with a gradient in every step. But look at (16.2) again. The classifier's arrow is the *difference* of two scores, that of the class and that of everything. A network that can be asked both ways, with the label and without, carries its classifier inside. That is the next chapter: guidance without a classifier.
