# %% [markdown]
# # 02 · The forward process: how a picture dissolves
#
# **The question.** A diffusion model learns to undo noise. So somebody has to make the noise first. How exactly is a picture destroyed, step by step, and why can we jump to step 700 without walking there?
#
# **After this chapter you can**
#
# - write down one step of the forward process and say why both of its square roots are there;
# - derive the closed form for $q(x_t\mid x_0)$, by merging and by induction, without leaving a line out;
# - read a noise schedule: what $\beta_t$, $\bar\alpha_t$ and the signal-to-noise ratio say about it;
# - spot three common bugs in a forward process by a number.
#
# *Needs:* chapter 01 (scaling a Gaussian, adding independent Gaussians). *Time:* about two and a half hours with the exercises.

# %%
import time

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import cosine_schedule, linear_schedule, q_sample, q_step, quadratic_schedule, sigmoid_schedule
from ddpm_course.checks import check, must_pass
from ddpm_course.data import digits, toy
from ddpm_course.plots import curves, scatter_row, show_images, show_rows, style
from ddpm_course.proofs import Expect, agrees, alpha_t, bar_s, bar_t, beta_t, derive, equation, normal, table_values, unit, x_0, x_s

style()
schedule = linear_schedule(T=1000)

# %% [markdown]
# Look first, calculate later. Here are real handwritten digits, and the same digits after 50, 200, 400 and 1,000 steps of noise. The top row is data. The bottom row carries almost nothing of it. All the rows below the data, the bottom one included, are what the network of chapter 08 will be trained on.

# %%
x_clean = digits().train.images[:12]
noise = torch.randn(x_clean.shape, generator=torch.Generator().manual_seed(0))
rows = {f"t = {t}": q_sample(schedule, x_clean, t, noise) for t in (50, 200, 400, 1000)}
show_rows({"data": x_clean} | rows)
plt.show()

# %% [markdown]
# ## One step
#
# One step does two things. It shrinks what is there, by $\sqrt{1-\beta_t}$. Then it adds fresh Gaussian noise of standard deviation $\sqrt{\beta_t}$. The number $\beta_t$ lies strictly between 0 and 1; it says how much of the variance is replaced in this step.
#
# $$ x_t = \sqrt{1-\beta_t}\; x_{t-1} + \sqrt{\beta_t}\;\varepsilon_t, \qquad \varepsilon_t \sim \mathcal N(0, I) \text{ independent of everything before} \tag{2.1, definition} $$
#
# This is Ho eq. 2. It says the same as $q(x_t\mid x_{t-1}) = \mathcal N(x_t;\ \sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I)$. Why? *Given* $x_{t-1}$, the first term is a fixed number. So $x_t$ is $a\,\varepsilon_t+b$ with $a=\sqrt{\beta_t}$ and $b=\sqrt{1-\beta_t}\,x_{t-1}$, and by (1.7) that is a Gaussian with mean $b$ and variance $a^2$. Mind the pair *variance* $\beta_t$ and *standard deviation* $\sqrt{\beta_t}$. The law is written with the variance; the line of code multiplies by the standard deviation. Two more names save ink:
#
# $$ \alpha_t = 1-\beta_t, \qquad \bar\alpha_t = \alpha_1\,\alpha_2\cdots\alpha_t, \qquad \bar\alpha_0 = 1 \tag{2.2, definition} $$
#
# Everything below treats one pixel. The noise is independent for each pixel, so a picture is just many copies of the same calculation.
#
# ### Why shrink at all?
#
# Suppose the pixel has mean 0 and variance 1 before the step; then its mean square is 1. Adding noise alone would let that grow step after step. The factor $\sqrt{1-\beta_t}$ is chosen so that it stays exactly 1. The average below runs over both random things in the step: the pixel $x_{t-1}$ and the noise $\varepsilon_t$. They are independent, because the noise is fresh. Each line has its reason beside it, and SymPy has checked each line before it was printed.

# %% tags=["proof"]
e_t = normal(r"\varepsilon_t")
step = sp.sqrt(1 - beta_t) * x_s + sp.sqrt(beta_t) * e_t
derive("2.3", Expect(step**2, x_s, e_t),
       ((1 - beta_t) * Expect(x_s**2, x_s) + beta_t * Expect(e_t**2, e_t) + 2 * sp.sqrt(beta_t * (1 - beta_t)) * Expect(x_s, x_s) * Expect(e_t, e_t),
        "expand; independence: the mean of a product is the product of the means"),
       ((1 - beta_t) * Expect(x_s**2, x_s) + beta_t, "the noise has mean 0 and mean square 1"))
equation("2.4", Expect(step, x_s, e_t), sp.sqrt(1 - beta_t) * Expect(x_s, x_s))

# %% [markdown]
# Read the last line of (2.3) with $\mathbb E[x_{t-1}^2] = 1$: the result is $(1-\beta_t) + \beta_t = 1$. The signal loses exactly the variance that the noise brings. This is why such a process is called *variance preserving*. If the mean is not 0, it shrinks by the same factor (2.4), towards 0. The calculation (2.3) can then be done for the distance from the mean, so the variance stays 1 all the same. The proof does not say that $x_t$ is Gaussian: if the data are not, then after one step they are not either.
#
# > **An image to keep.** A spoon of sugar in a glass of water: at first the lump is sharp, then it blurs, in the end every sip tastes the same. Stirring is one step; the sweet taste everywhere is $\mathcal N(0, I)$. *Where it breaks:* sugar never comes back together. A diffusion model learns to run the film backwards, and it can do so because it has seen many lumps dissolve.

# %% [markdown]
# ## Many steps in one jump
#
# Training needs $x_t$ at random $t$, millions of times. Walking there one step at a time would cost $t$ steps for each example. The way out is that Gaussian noise added to Gaussian noise is again Gaussian noise, so the steps can be merged.
#
# ### Merging two steps
#
# Put the formula for $x_{t-1}$ into the formula for $x_t$. Two noises appear: the old one, $\varepsilon_{t-1}$, shrunk by $\sqrt{\alpha_t}$, and the new one, $\varepsilon_t$.

# %% tags=["proof"]
a_prev, e_prev, x_before = unit(r"\alpha_{t-1}"), normal(r"\varepsilon_{t-1}"), sp.Symbol("x_{t-2}", real=True)
step_before = sp.sqrt(a_prev) * x_before + sp.sqrt(1 - a_prev) * e_prev
both = sp.sqrt(alpha_t) * sp.sqrt(1 - a_prev) * e_prev + sp.sqrt(1 - alpha_t) * e_t
derive("2.5", sp.sqrt(alpha_t) * x_s + sp.sqrt(1 - alpha_t) * e_t,
       (sp.sqrt(alpha_t) * step_before + sp.sqrt(1 - alpha_t) * e_t, "the step before, by definition 2.1"),
       (sp.sqrt(alpha_t) * sp.sqrt(a_prev) * x_before + both, "multiply out"), given={x_s: step_before})

# %% [markdown]
# The last two terms are the noise. Each of them is Gaussian with mean 0, because a scaled Gaussian is one (1.7). They are independent, because $\varepsilon_t$ is fresh. So their sum is Gaussian with mean 0, because a sum of independent Gaussians is one (1.14). Only its variance is left to find. The average runs over the two noises; $x_{t-2}$ does not occur in it.

# %% tags=["proof"]
derive("2.6", Expect(both**2, e_prev, e_t),
       (alpha_t * (1 - a_prev) * Expect(e_prev**2, e_prev) + (1 - alpha_t) * Expect(e_t**2, e_t), "independent noises: the mixed term has mean 0"),
       (alpha_t * (1 - a_prev) + 1 - alpha_t, "each noise has variance 1"),
       (1 - alpha_t * a_prev, "multiply out; one alpha cancels"))

# %% [markdown]
# The two noises act like *one* noise of variance $1-\alpha_t\alpha_{t-1}$. So we may write $x_t = \sqrt{\alpha_t\alpha_{t-1}}\,x_{t-2} + \sqrt{1-\alpha_t\alpha_{t-1}}\;\varepsilon$ with a single $\varepsilon\sim\mathcal N(0,I)$.
#
# Readers stumble here, so slowly. This $\varepsilon$ is a **new** random variable; it is neither $\varepsilon_t$ nor $\varepsilon_{t-1}$. There are two ways to read the line.
#
# - *Look back at a walk.* Call the weighted sum of the two noises, divided by its standard deviation, $\varepsilon$. Then the line is true draw by draw. But this $\varepsilon$ is tied to the last step's noise: their correlation is (2.7).
# - *Jump.* Draw a fresh $\varepsilon$ and never walk. Then the line is true **in law** only: the jump has the same distribution as the walk, and lands somewhere else each time. Nothing more is needed, because nobody will ever look at the single steps again. This is what training does.

# %% tags=["proof"]
merged = both / sp.sqrt(1 - alpha_t * a_prev)
equation("2.7", Expect(merged * e_t, e_prev, e_t), sp.sqrt(1 - alpha_t) / sp.sqrt(1 - alpha_t * a_prev))

# %% [markdown]
# Two big steps ($\alpha=0.6$ each) from $x=2$, many times; beside each walk a jump with noise of its own. Guess the three pictures first.

# %%
e_1, e_2, e_jump = torch.randn(3, 100_000, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
walked = 0.6**0.5 * (0.6**0.5 * 2 + 0.4**0.5 * e_1) + 0.4**0.5 * e_2
jumped = 0.6 * 2 + 0.64**0.5 * e_jump
looked_back = (walked - 0.6 * 2) / 0.64**0.5
fig, (points, tied, law) = plt.subplots(1, 3, figsize=(10, 2.9))
points.scatter(walked[:1500], jumped[:1500], s=3, alpha=0.5, linewidths=0)
points.set(title="draw by draw: unrelated", xlabel="two steps", ylabel="one jump")
tied.scatter(e_2[:1500], looked_back[:1500], s=3, alpha=0.5, linewidths=0)
tied.set(title=r"looking back: $\varepsilon$ is tied to $\varepsilon_t$", xlabel=r"$\varepsilon_t$", ylabel=r"$\varepsilon$")
law.hist([walked.numpy(), jumped.numpy()], bins=40, density=True, label=["two steps", "one jump"])
law.set(title="in law: the same", yticks=[], xlim=(-2, 7))
law.legend()
plt.show()

# %%
apart, tie = (float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in ((walked, jumped), (e_2, looked_back)))
print(f"walk and jump uncorrelated: {abs(apart) < 0.02}; correlation of the merged noise with the last one: {tie:.1f}")
assert abs(tie - (0.4 / 0.64) ** 0.5) < 0.01 and abs(float(walked.var() / jumped.var()) - 1) < 0.03

# %% [markdown]
# ### From two steps to all of them: induction
#
# The claim, Ho eq. 4:
#
# $$ x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1-\bar\alpha_t}\;\varepsilon, \qquad \varepsilon\sim\mathcal N(0, I), \qquad\text{that is}\quad q(x_t\mid x_0)=\mathcal N\big(x_t;\sqrt{\bar\alpha_t}\,x_0,\,(1-\bar\alpha_t)I\big) $$
#
# *Base.* For $t=1$ it is one step: $\bar\alpha_1=\alpha_1$, and (2.1) reads $x_1=\sqrt{\alpha_1}\,x_0+\sqrt{1-\alpha_1}\,\varepsilon_1$.
#
# *Step.* Assume the claim for $t-1$: in law, $x_{t-1}=\sqrt{\bar\alpha_{t-1}}\,x_0+\sqrt{1-\bar\alpha_{t-1}}\;\varepsilon'$. Here $\varepsilon'$ is the merged noise of the first $t-1$ steps. Apply one more step, with its fresh noise $\varepsilon_t$.
#
# - May we put in something that is equal in law only? Yes: the law of $x_t$ is made from the law of $x_{t-1}$ and an independent $\varepsilon_t$, and from nothing else.
# - Are $\varepsilon'$ and $\varepsilon_t$ independent? Yes: $\varepsilon'$ comes from earlier noises, and $\varepsilon_t$ is independent of everything before.
# - So the noise part is again a sum of independent Gaussians, hence Gaussian with mean 0.
#
# Two facts are left: the factor of $x_0$ must become $\sqrt{\bar\alpha_t}$ and the variance of the noise must become $1-\bar\alpha_t$. In both proofs $\bar\alpha_t=\alpha_t\bar\alpha_{t-1}$, which is the definition (2.2). The average runs over $\varepsilon'$ and $\varepsilon_t$, with $x_0$ held fixed.

# %% tags=["proof"]
e_merged = normal(r"\varepsilon'")
product = {bar_t: alpha_t * bar_s}  # definition 2.2
equation("2.8", sp.sqrt(alpha_t) * (sp.sqrt(bar_s) * x_0), sp.sqrt(bar_t) * x_0, given=product, source="Ho eq. 4, the mean")
old_noise = sp.sqrt(alpha_t) * sp.sqrt(1 - bar_s) * e_merged
derive("2.9", Expect((old_noise + sp.sqrt(1 - alpha_t) * e_t) ** 2, e_merged, e_t),
       (alpha_t * (1 - bar_s) * Expect(e_merged**2, e_merged) + (1 - alpha_t) * Expect(e_t**2, e_t),
        "independent noises: the mixed term has mean 0"),
       (alpha_t * (1 - bar_s) + 1 - alpha_t, "each noise has variance 1"),
       (1 - alpha_t * bar_s, "multiply out; one alpha cancels"),
       (1 - bar_t, "definition of the running product"), given=product, source="Ho eq. 4, the variance")

# %% [markdown]
# Base and step together give the claim for every $t$. The proof used that each noise is independent of all earlier ones. It did **not** use anything about $x_0$: the closed form holds for pictures, sounds and single numbers alike. What it does not prove: that $x_t$ *without* knowing $x_0$ is Gaussian. It is a blurred copy of the data distribution.
#
# ### The telescope, step s to step t
#
# Nothing forces us to start at 0. Start at any earlier time $s$. All factors up to $s$ cancel, as in a row of fractions:
# $$ \alpha_{s+1}\cdots\alpha_t=\frac{\color{gray}{\alpha_1\cdots\alpha_s}\;\alpha_{s+1}\cdots\alpha_t}{\color{gray}{\alpha_1\cdots\alpha_s}}=\frac{\bar\alpha_t}{\bar\alpha_s}. $$
# So a jump from $s$ to $t$ is one step with $\alpha_{s\to t}=\bar\alpha_t/\bar\alpha_s$. The reason is the merging above: the steps $s+1,\dots,t$ melt into one, whose $\alpha$ is the product of theirs. We check that jumping to $s$ and then from $s$ to $t$ gives the same signal and the same variance as jumping to $t$ at once.

# %% tags=["proof"]
bar_u, a_jump = unit(r"\bar{\alpha}_s"), unit(r"\alpha_{s\to t}")
telescope = {a_jump: bar_t / bar_u}
equation("2.10", sp.sqrt(a_jump) * (sp.sqrt(bar_u) * x_0), sp.sqrt(bar_t) * x_0, given=telescope, source="Ho eq. 4, applied twice")
derive("2.11", a_jump * (1 - bar_u) + (1 - a_jump),
       (1 - a_jump * bar_u, "multiply out; the jump's alpha cancels"),
       (1 - bar_t, "the telescope"), given=telescope, source="Ho eq. 4, applied twice")
values = table_values(schedule, 300)
x = torch.tensor([[0.7]], dtype=torch.float64)
agrees(sp.sqrt(bar_t) * x_0, values | {x_0: 0.7}, q_sample(schedule, x, 300, torch.zeros_like(x)))
agrees(sp.sqrt(1 - bar_t), values, q_sample(schedule, 0 * x, 300, torch.ones_like(x)))

# %% [markdown]
# The last two lines compare the *displayed* formulas with the package at $t=300$: once with the noise switched off, once with the data switched off. A wrong sign, a missing root or $\alpha$ in the place of $\bar\alpha$ would stop the notebook here.
#
# The closed form is a budget. For data of variance 1, the variance of $x_t$ is 1 at every time; $\bar\alpha_t$ of it is signal, $1-\bar\alpha_t$ is noise. The *standard deviations*, the factors in the formula, are the roots. They do not add up to 1: where the budget is split in half, at $t=260$, both are 0.7 (right).

# %%
t_axis, bars = torch.arange(1, 1001), schedule.alpha_bar[1:]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.7))
left.stackplot(t_axis, bars, 1 - bars, labels=["signal", "noise"], alpha=0.8)
left.set(title="variances: the budget of 1", xlabel="t")
left.legend()
curves(t_axis, {r"$\sqrt{\bar\alpha_t}$": bars**0.5, r"$\sqrt{1-\bar\alpha_t}$": (1 - bars) ** 0.5}, right, xlabel="t")
right.set_title("standard deviations: the factors")
plt.show()

# %% [markdown]
# ## By hand
#
# Now the same in code, before we use the package. Two functions, one line of mathematics each. The tables are float64: $1-\bar\alpha_1$ is about $10^{-4}$, and float32 would lose four of its digits.

# %%
beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])  # index 0 is clean data


def my_step(x_prev, t, eps):
    return (1 - beta[t - 1]) ** 0.5 * x_prev + beta[t - 1] ** 0.5 * eps


def my_jump(x_0, t, eps):
    return alpha_bar[t] ** 0.5 * x_0 + (1 - alpha_bar[t]) ** 0.5 * eps


# %% [markdown]
# Is ours the package's? The comparison runs at the first, an early, a middle and the last time, for the step and for the jump.

# %%
x, e = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
for t in (1, 2, 500, 1000):
    torch.testing.assert_close(my_jump(x, t, e), q_sample(schedule, x, t, e), rtol=0, atol=1e-12)
    torch.testing.assert_close(my_step(x, t, e), q_step(schedule, x, t, e), rtol=0, atol=1e-12)
print("by hand = package at t = 1, 2, 500, 1000: True")

# %% [markdown]
# And do a thousand small steps land where one jump lands? Two numbers decide, the factor of $x_0$ and the variance of the noise. A step multiplies the first by $\sqrt{\alpha_t}$ and turns a variance $v$ into $\alpha_t v+\beta_t$. We chain the package's own steps, once with the noise switched off and once with the data switched off, and compare with the jump at every one of the 1,000 times.

# %%
one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
factor, variance = one, zero
for t in range(1, 1001):
    shrink, kick = q_step(schedule, one, t, zero), q_step(schedule, zero, t, one)
    factor, variance = shrink * factor, shrink**2 * variance + kick**2
    torch.testing.assert_close(factor, q_sample(schedule, one, t, zero), rtol=0, atol=1e-12)
    torch.testing.assert_close(variance, q_sample(schedule, zero, t, one) ** 2, rtol=0, atol=1e-12)
print("chained moments = closed form at all 1,000 times, to 1e-12: True")

# %% [markdown]
# The same with random numbers. Not point by point: the noises differ. *In law.* We start 20,000 copies of the point $x_0 = 2$ and compare mean and variance with the closed form.

# %%
walk, rng = torch.full((20_000,), 2.0), torch.Generator().manual_seed(2)
for t in range(1, 301):
    walk = q_step(schedule, walk, t, torch.randn(walk.shape, generator=rng))
mean, var = 2 * float(schedule.alpha_bar[300]) ** 0.5, 1 - float(schedule.alpha_bar[300])
standard_error = (var / len(walk)) ** 0.5
assert abs(float(walk.mean()) - mean) < 4 * standard_error
assert abs(float(walk.var()) / var - 1) < 4 * (2 / len(walk)) ** 0.5
print(f"300 steps: mean {float(walk.mean()):.2f}, variance {float(walk.var()):.2f};  one jump: {mean:.2f}, {var:.2f}")

# %% [markdown]
# Both functions count the paper's way, $t=1..T$. At $t=0$ there is no noise and nothing to draw: `alpha_bar[0]` is 1, the clean picture. Whoever asks `q_sample` for it has nearly always counted from 0 somewhere, so the package refuses (M15). The same beyond $T$.

# %%
from ddpm_course import CourseError

for t in (0, 1001):
    try:
        q_sample(schedule, one, t, zero)
        raise AssertionError(f"t = {t} was accepted")
    except CourseError as error:
        print(error)

# %% [markdown]
# What does the shortcut save? The next cell counts the ratio of the two times on this machine. It is not compared with the stored output, since every machine is different.

# %% tags=["nbval-ignore-output"]
x_many = torch.randn(256, 1, 8, 8)
start = time.perf_counter()
for t in range(1, 1001):
    q_step(schedule, x_many, t, torch.randn_like(x_many))
walked = time.perf_counter() - start
start = time.perf_counter()
for _ in range(20):
    q_sample(schedule, x_many, 1000, torch.randn_like(x_many))
print(f"a walk of 1,000 steps takes about {walked / ((time.perf_counter() - start) / 20):,.0f} times as long as one jump")

# %% [markdown]
# ## Schedules: how fast should it dissolve?
#
# A *schedule* is the list $\beta_1,\dots,\beta_T$. Why do the usual ones grow? Think of the sugar again. At first the lump is sharp and a little stirring changes a lot. Late, almost everything is mixed, and a small stir changes nothing. If each step is to be about equally hard to undo, late steps must be bigger.
#
# *Where the image breaks here:* a cook stirs by taste. A schedule is fixed before the first picture is seen, the same for a sharp picture and for a soft one.
#
# What matters in the end is not $\beta_t$ but $\bar\alpha_t$, the share of the variance that is still signal (for data of variance 1). Often one looks at the **signal-to-noise ratio**
#
# $$ \mathrm{SNR}(t) = \frac{\bar\alpha_t}{1-\bar\alpha_t} \tag{2.12, definition} $$
#
# It falls from huge to tiny. SNR = 1, that is $\bar\alpha_t=\frac12$, is where signal and noise have equal variance.

# %%
schedules = {"linear": linear_schedule(), "quadratic": quadratic_schedule(), "sigmoid": sigmoid_schedule(), "cosine": cosine_schedule()}
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3))
t_axis = torch.arange(1, 1001)
curves(t_axis, {k: s.beta[1:] for k, s in schedules.items()}, left, xlabel="t", title=r"$\beta_t$ (log scale)", yscale="log")
curves(t_axis, {k: s.alpha_bar[1:] for k, s in schedules.items()}, middle, xlabel="t", title=r"$\bar\alpha_t$: share of signal")
curves(t_axis, {k: s.snr(t_axis) for k, s in schedules.items()}, right, xlabel="t", title="SNR (log scale)", yscale="log")
right.axhline(1, color="black", linewidth=0.6)
for ax in (left, middle):
    ax.get_legend().remove()

# %% [markdown]
# Three things to see. The linear schedule has destroyed nearly everything by $t\approx 600$, where 3 % of the variance is signal; its last 400 steps work on little but noise. The cosine schedule (Nichol eq. 17) spreads the work evenly: its $\bar\alpha_t$ falls almost on a straight line in the middle. And all of them fall strictly. The package insists on it, because later formulas divide by $\beta_t$ (chapter 03).

# %%
for name, s in schedules.items():
    snr = s.snr(t_axis)
    assert bool((snr[1:] < snr[:-1]).all()) and bool(((s.beta[1:] > 0) & (s.beta[1:] < 1)).all())
    half = int((s.alpha_bar > 0.5).sum())
    print(f"{name:10s} signal falls below one half at t = {half:3d};  log10 of alpha_bar_T = {float(s.alpha_bar[-1].log10()):.1f}")

# %% [markdown]
# ### Is the end really pure noise?
#
# "$x_T$ is Gaussian" is said quickly. Exactly, $q(x_T\mid x_0)=\mathcal N(\sqrt{\bar\alpha_T}\,x_0,(1-\bar\alpha_T)I)$, which still remembers a little of $x_0$. How much, the Kullback–Leibler divergence to $\mathcal N(0,I)$ tells (chapter 01). We compute it for a pixel with $x_0=1$, with the linear schedule at several $T$ *without* changing $\beta_1$ and $\beta_T$.

# %%
from ddpm_course import normal_kl

for T in (10, 100, 300, 1000):
    bar_T = linear_schedule(T).alpha_bar[-1]
    print(f"T = {T:4d}: alpha_bar_T = {float(bar_T):.2g}, KL per pixel = {float(normal_kl(bar_T**0.5, 1 - bar_T, 0.0, 1.0)):.1g} nats")

# %% [markdown]
# At $T=1000$ the memory is negligible. At $T=10$ the same $\beta$'s leave 90 % of the variance as signal: a sampler that starts from $\mathcal N(0,I)$ would start in the wrong place. Short chains need larger $\beta$'s. How large? Multiply by $1000/T$, people say. That works down to a point, and then the package refuses.

# %%
from ddpm_course import rescale_zero_terminal_snr

try:
    linear_schedule(20, beta_1=1e-4 * 50, beta_T=0.02 * 50)
except CourseError as error:
    print(error)

# %% [markdown]
# Could we go all the way and make $\bar\alpha_T$ exactly 0? Then $x_T$ carries nothing of $x_0$, and $\varepsilon$ cannot be turned back into a picture: $x_0=(x_T-\varepsilon)/0$. The rescaling of ZTSNR therefore ends at a tiny value here, and one predicts $v$ with it (chapter 06).

# %%
shifted = rescale_zero_terminal_snr(linear_schedule(), alpha_bar_T=1e-6)
assert abs(float(shifted.alpha_bar[-1]) - 1e-6) < 1e-15
torch.testing.assert_close(shifted.alpha_bar[1], linear_schedule().alpha_bar[1])
root = linear_schedule().alpha_bar[1:].sqrt()
share = (root - root[-1]) / (root[0] - root[-1])  # 1 at t = 1, 0 at T: a straight line in the root, between its two new ends
torch.testing.assert_close(shifted.alpha_bar[1:], (1e-3 + share * (root[0] - 1e-3)) ** 2, rtol=1e-9, atol=0)
moved = shifted.to("cpu")  # or "cuda": the three tables travel
assert all(torch.equal(getattr(moved, name), getattr(shifted, name)) for name in ("beta", "alpha", "alpha_bar"))
try:
    rescale_zero_terminal_snr(linear_schedule(), alpha_bar_T=0.0)
except CourseError as error:
    print(error)

# %% [markdown]
# ## The same in the plane
#
# Points are easier to see through than pictures. Two moons dissolve into one round cloud. Notice that at $t=100$ the shape is still there, only furry; at $t=400$ it is gone to the eye, although a fifth of $\bar\alpha$ is left.

# %%
moons = toy("moons", 1500, torch.Generator().manual_seed(3))
noise_2d = torch.randn(moons.shape, generator=torch.Generator().manual_seed(4))
clouds = {f"t = {t}": q_sample(schedule, moons, t, noise_2d) for t in (20, 100, 400, 1000)}
scatter_row({"data": moons} | clouds)
plt.show()

# %% [markdown]
# ### Play with it
#
# Move the slider. Left: digits at time $t$. Right: all the pixel values of 500 digits at that time, with the bell of $\mathcal N(0,1)$ drawn over them. Watch the spikes at $-1$ (paper) and $+1$ (ink) melt. In a viewer without a running kernel, look at the fixed pictures above.

# %%
from ddpm_course.widgets import choice, explore, slider

many = digits().train.images[:500]
many_noise = torch.randn(many.shape, generator=torch.Generator().manual_seed(5))


def draw(t, name):
    x_now = q_sample(schedules[name], many, t, many_noise)
    fig, (pictures, bell) = plt.subplots(1, 2, figsize=(9, 2.6))
    show_images(x_now[:16], 8, f"{name}, t = {t}, signal share {float(schedules[name].alpha_bar[t]):.3f}", pictures)
    bell.hist(x_now.flatten().numpy(), bins=80, range=(-4, 4), density=True, alpha=0.6)
    grid = torch.linspace(-4, 4, 200)
    bell.plot(grid, torch.exp(-(grid**2) / 2) / (2 * torch.pi) ** 0.5, color="black")
    bell.set(title="pixel values", yticks=[])


explore(draw, t=slider(1, 1000, 200, label="t"), name=choice(list(schedules), "schedule"))

# %% [markdown]
# ## Common mistakes
#
# All three of these run without an error message. Guess what happens before you run each cell.
#
# ### The noise is scaled twice (M1)
#
# The law says that the noise has variance $1-\bar\alpha_t$. So some draw $\varepsilon\sim\mathcal N(0,1-\bar\alpha_t)$ *and* multiply by $\sqrt{1-\bar\alpha_t}$. The variance is then $(1-\bar\alpha_t)^2$, which is too small wherever it matters.

# %%
eps_many, t = torch.randn(100_000, generator=torch.Generator().manual_seed(6)), 100
std = (1 - float(schedule.alpha_bar[t])) ** 0.5
wrong = std * (std * eps_many)  # eps was drawn with the variance already in it
right = std * eps_many
print(f"noise variance at t = {t}: wanted {std**2:.3f}, right {float(right.var()):.3f}, wrong {float(wrong.var()):.3f}")
assert abs(float(right.var()) / std**2 - 1) < 0.03 < abs(float(wrong.var()) / std**2 - 1)

# %% [markdown]
# ### The signal is not shrunk (M2)
#
# `x = x + beta**0.5 * eps` looks harmless. After 1,000 steps the variance has grown by the sum of all $\beta$'s, which is about 10, and $x_T$ is not $\mathcal N(0,I)$. (Other families of models do this on purpose. They then start sampling from a wider Gaussian.)

# %%
grown, kept, rng = torch.ones(4000), torch.ones(4000), torch.Generator().manual_seed(7)
for t in range(1, 1001):
    e = torch.randn(4000, generator=rng)
    grown = grown + float(schedule.beta[t]) ** 0.5 * e  # the mistake
    kept = q_step(schedule, kept, t, e)
print(f"sum of all beta = {float(schedule.beta.sum()):.1f};  variance at T: unscaled about {float(grown.var()):.0f}, right about {float(kept.var()):.1f}")
assert abs(float(grown.var()) - float(schedule.beta.sum())) < 1 and abs(float(kept.var()) - 1) < 0.1

# %% [markdown]
# ### Half precision eats the first steps (M24)
#
# In bfloat16 the numbers just below 1 are 0.4 % apart. So $\bar\alpha_1=0.9999$ becomes 1, and the first pictures get no noise at all. Tables are float64 here; only the finished coefficient is rounded.

# %%
for dtype in (torch.bfloat16, torch.float16):
    rounded = schedule.alpha_bar[1:].to(dtype)
    print(f"{str(dtype):15s} the first {int((rounded == 1).sum())} timesteps get noise of standard deviation 0")

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/02_forward_student.ipynb), [with solutions](exercises/02_forward_solution.ipynb).

# %% [markdown]
# **2.1 ★** Let $T=2$ with $\beta_1=0.1$ and $\beta_2=0.2$. Compute $\bar\alpha_2$ by hand.

# %% [markdown] tags=["hint"]
# **Hint 2.1**
#
# First the two $\alpha$'s, then their product.

# %% tags=["exercise"]
alpha_bar_2 = ...
check("2.1", alpha_bar_2)

# %% tags=["solution"]
alpha_bar_2 = (1 - 0.1) * (1 - 0.2)
must_pass("2.1", alpha_bar_2)

# %% [markdown]
# **2.2 ★★** Write the noise variance of a jump from time $s$ to a later time $t$, given $\bar\alpha_s$ and $\bar\alpha_t$. Check your formula at $s=0$ in your head: what must it be there?

# %% [markdown] tags=["hint"]
# **Hint 2.2**
#
# The chain starts anew at $s$. Which part of the product $\bar\alpha_t=\alpha_1\cdots\alpha_t$ is still to come?

# %% tags=["exercise"]
def jump_variance(alpha_bar_s, alpha_bar_t):
    return ...


check("2.2", jump_variance)


# %% tags=["solution"]
def jump_variance(alpha_bar_s, alpha_bar_t):
    return 1 - alpha_bar_t / alpha_bar_s  # the telescope: alpha = alpha_bar_t / alpha_bar_s


must_pass("2.2", jump_variance)

# %% [markdown]
# **2.3 ★★** At which SNR does a schedule with $\bar\alpha_t=\cos^2(\pi t/2T)$ stand at $t=T/4$? Give the number, to four digits or as a line of Python.

# %% [markdown] tags=["hint"]
# **Hint 2.3**
#
# $1-\cos^2=\sin^2$. At $t=T/4$ the angle is $\pi/8$.

# %% tags=["exercise"]
snr_at_quarter = ...
check("2.3", snr_at_quarter)

# %% tags=["solution"]
snr_at_quarter = 1 / torch.tan(torch.tensor(torch.pi / 8, dtype=torch.float64)) ** 2
must_pass("2.3", snr_at_quarter)

# %% [markdown]
# **2.4 ★** One step: $\beta_t=0.36$, $x_{t-1}=1$, $\varepsilon_t=-0.5$. What is $x_t$?

# %% [markdown] tags=["hint"]
# **Hint 2.4**
#
# One step has two factors, both of them roots: 0.8 and 0.6. Which belongs to which?

# %% tags=["exercise"]
x_next = ...
check("2.4", x_next)

# %% tags=["solution"]
x_next = (1 - 0.36) ** 0.5 * 1 + 0.36**0.5 * (-0.5)
must_pass("2.4", x_next)

# %% [markdown]
# **2.5 ★★** Write the table $\bar\alpha_0,\bar\alpha_1,\dots,\bar\alpha_T$ from the list $[\beta_1,\dots,\beta_T]$, as a list of $T+1$ numbers, so that `table(betas)[t]` is $\bar\alpha_t$.

# %% [markdown] tags=["hint"]
# **Hint 2.5**
#
# What is $\bar\alpha_0$? A product of no factors.

# %% tags=["exercise"]
def table(betas):
    return ...


check("2.5", table)


# %% tags=["solution"]
def table(betas):
    bars = [1.0]  # index 0 is clean data
    for beta in betas:
        bars.append(bars[-1] * (1 - beta))
    return bars


must_pass("2.5", table)

# %% [markdown]
# **2.6 ★★★** Fix $x_0$ and take two times $s<t$ of the same chain. How do $x_s$ and $x_t$ vary together? Write $\mathrm{Cov}(x_s,x_t\mid x_0)$, given $\bar\alpha_s$ and $\bar\alpha_t$. Check in your head: for $t=s$ it must be the variance $1-\bar\alpha_s$.

# %% [markdown] tags=["hint"]
# **Hint 2.6**
#
# Write $x_t$ as a jump from $x_s$: a factor times $x_s$, plus noise that is independent of $x_s$. Only the first part counts.

# %% tags=["exercise"]
def covariance(alpha_bar_s, alpha_bar_t):
    return ...


check("2.6", covariance)


# %% tags=["solution"]
def covariance(alpha_bar_s, alpha_bar_t):
    return (alpha_bar_t / alpha_bar_s) ** 0.5 * (1 - alpha_bar_s)  # the jump's factor times the variance of x_s


must_pass("2.6", covariance)

# %% [markdown]
# **2.7 ★★★** A schedule is to be designed by its signal-to-noise ratio. In one step the SNR shall fall from `snr_s` to `snr_t`. Which $\beta_t$ does that? (With it you can build the schedule whose SNR falls by the same factor at every step.)

# %% [markdown] tags=["hint"]
# **Hint 2.7**
#
# Solve $\mathrm{SNR}=\bar\alpha/(1-\bar\alpha)$ for $\bar\alpha$, at both times. Then $\alpha_t$ is a quotient.

# %% tags=["exercise"]
def beta_from_snr(snr_s, snr_t):
    return ...


check("2.7", beta_from_snr)


# %% tags=["solution"]
def beta_from_snr(snr_s, snr_t):
    bar_s, bar_t = snr_s / (1 + snr_s), snr_t / (1 + snr_t)
    return 1 - bar_t / bar_s


must_pass("2.7", beta_from_snr)

# %% [markdown]
# ## What comes next
#
# We can destroy. We know $x_t$ given $x_0$ in one line. Chapter 03 asks the reverse question for somebody who may peek at the answer: if we know *both* $x_0$ and $x_t$, where was the chain one step before? The answer is again a Gaussian, and it is the target that the network will be trained to imitate.
