# %% [markdown]
# # 20 · Series: a week of load, a plucked string
#
# **The question.** Everything so far drew pictures. But the derivation never asked what the numbers mean, or that they stand in a square. A week of electricity load is a row of 168 numbers, and an eighth of a second of sound a row of 512. Does the same chain draw those? What is it good for, next to a plain forecast? And how do we judge curves, where no eye can tell a good one from a bad one?
#
# **After this chapter you can**
#
# - train the same chain on curves with a Transformer, and say what its words and positions do;
# - fill gaps and forecast with *one* model that was trained for neither, and say how far to trust it, because you have tried it where the exact answer is known;
# - decide by bands, not by eye, whether drawn curves are like the data;
# - build a network that answers in parts, a trend and a season, and say what the parts prove and what they do not;
# - do the same for sound.
#
# *Needs:* chapters 08, 09 and 14; 19 for filling in. *Time:* about three hours with the exercises.

# %%
import base64
import json
from pathlib import Path

import matplotlib.pyplot as plt
import sympy as sp
import torch
from IPython.display import display

from ddpm_course import ExactGaussian, TrainConfig, cosine_schedule, ddim_sample, dpm_solver_sample, load_model, q_sample, shipped, time_grid, train
from ddpm_course.checkpoint import load_tensors, rng
from ddpm_course.checks import check, must_pass
from ddpm_course.data import Split, Splits
from ddpm_course.editing import repaint_times
from ddpm_course.models import Transformer, TransformerConfig
from ddpm_course.models.transformer import polynomials
from ddpm_course.plots import BLUE, GREY, ORANGE, RED, compact_png, curves, style
from ddpm_course.proofs import Expect, agrees, bar_t, derive, eps, equation, sigma, unit, z
from ddpm_course.series import held_out_weeks, impute, plucked, seasonal_ar, weeks
from ddpm_course.series_stats import autocorrelation, bootstrap_band, crps, order_band, seasonal_naive, spectral_distance, straight_lines
from ddpm_course.train import validation_loss

style()
schedule = cosine_schedule(T=1000)
seeded = lambda k: torch.Generator().manual_seed(k)
report = json.loads(Path("../benchmarks/results/series.json").read_text())


def show():  # as plt.show(), with few colours: the notebook stays small
    display({"image/png": base64.b64encode(compact_png(plt.gcf())).decode(), "text/plain": "a figure"}, raw=True)

# %% [markdown]
# ## Curves that are made
#
# Our weeks are **simulated**. Nobody measured them. That is a choice with a reason: we shall ask a network for the trend and the season of a week, and only of a made week is the answer known. Here is the recipe, in full in `series.py`:
#
# $$ x_h=\text{trend}_h+\text{season}_h+\text{weather}_h+\text{noise}_h,\qquad h=0,\dots,167 \tag{20.1, definition} $$
#
# - **trend**: a level, a slope and a bend, different in each week;
# - **season**: on each day a bell in the morning, a low hump of work, a bell in the evening. The hours of the bells and all heights differ from week to week and a little from day to day. On Saturday and Sunday the morning comes later and all is lower. Two weeks in five have a *holiday*: one day from Monday to Friday that looks like a Sunday;
# - **weather**: wanders, and forgets within a day or two (AR(1) with $\phi=0.95$, below);
# - **noise** of the meter: each hour for itself, small.

# %%
made = held_out_weeks()
held_out, hours = made.curves, torch.arange(168)
fig, axes = plt.subplots(2, 2, figsize=(10, 4), sharex=True, sharey=True)
for ax, week in zip(axes.flat, (0, 1, 4, 11), strict=True):
    ax.plot(hours, held_out[week, 0], color=GREY, lw=2, label="what is seen")
    ax.plot(hours, made.trend[week], color=ORANGE, label="trend")
    ax.plot(hours, made.season[week], color=BLUE, lw=1, label="season")
    day = int(made.holiday[week])
    ax.set(title="no holiday" if day == 0 else f"holiday on day {day}", xticks=range(0, 169, 24))
axes[0, 0].legend(fontsize=8)
show()

# %% [markdown]
# Each week is scaled by the *same* numbers, chosen once. Nearly all values lie in $[-1,1]$; none is cut off. (Why not by its own largest value? See the mistakes.)
#
# ## Where the answer is known
#
# We have an oracle (chapter 01): for Gaussian data $\mathbb E[\varepsilon\mid x_t]$ is a formula (chapter 03), and so is the law of what is hidden given what is seen (chapter 19). So we first build Gaussian *series*, and try every tool on them before any network has a say.
#
# **A wandering series, AR(1).** Each value is a shrunken copy of the one before, plus fresh noise:
#
# $$ x_{h+1}=\phi\,x_h+\sqrt{1-\phi^2}\,\sigma\,\varepsilon,\qquad x_0=\sigma z \tag{20.2, definition} $$
#
# (Here $x_0$ is the first hour. From the next section on, $x_0$ and $x_t$ are again the whole series, without noise and at noise time $t$.) Does that look familiar? For $\sigma=1$ it is the forward process, equation (2.1), with the same $\beta$ at each step and $\phi=\sqrt{\alpha}$. There it destroyed a picture. Here, watched from the side, it *is* the data. The strange root keeps the variance:

# %% tags=["proof"]
phi = unit(r"\phi")
now, later = sigma * z, phi * sigma * z + sp.sqrt(1 - phi**2) * sigma * eps
derive("20.3", Expect(later**2, z, eps),
       (phi**2 * sigma**2 + (1 - phi**2) * sigma**2, "z and the fresh noise are independent: the mixed term is 0 on average"),
       (sigma**2, "add up"))
equation("20.4", Expect(now * later, z, eps), phi * sigma**2)

# %% [markdown]
# One step multiplies the covariance by $\phi$, so between hours $h$ and $k$ it is $\phi^{|h-k|}$ times the variance. **A season of random size and phase** is $a\,(z\cos\omega h+\varepsilon\sin\omega h)$. Its covariance also depends on the distance in time alone:

# %% tags=["proof"]
a, omega, h, k = sp.symbols(r"a \omega h k", real=True)
wave = lambda hour: a * (z * sp.cos(omega * hour) + eps * sp.sin(omega * hour))
equation("20.5", Expect(wave(h) * wave(k), z, eps), a**2 * sp.cos(omega * (h - k)))
law = seasonal_ar(length=48, period=12, phi=0.8, season=0.3, wander=0.15, noise=0.01)
agrees(a**2 * sp.cos(omega * (h - k)) + phi * sigma**2, {a: 0.3**0.5, omega: 2 * sp.pi / 12, h: 5, k: 4, phi: 0.8, sigma: 0.15**0.5}, law.cov[5, 4])

# %% [markdown]
# A matrix whose entries depend on $h-k$ alone is called *Toeplitz*; a series with such a covariance and the same mean at all times is *stationary* (our weeks are not). `seasonal_ar` adds the two and a little noise, and hands the matrix to `ExactGaussian`.
#
# ### A sampler on trial
#
# Pictures hide a sampler's faults, because their fine noise is small and nobody looks for it. In a series somebody does. Turn the data into the eigenbasis of its covariance (chapter 05). There it falls apart into single numbers, each $\mathcal N(0,\lambda)$. A sampler's last jump goes from some $t$ to 0 and answers $\hat x_0=\mathbb E[x_0\mid x_t]$. How much of the variance $\lambda$ is left, even if $x_t$ was perfect?

# %% tags=["proof"]
lam = sp.Symbol(r"\lambda", positive=True)
noisy = sp.sqrt(bar_t * lam) * z + sp.sqrt(1 - bar_t) * eps
guess = sp.sqrt(bar_t) * lam / (bar_t * lam + 1 - bar_t) * noisy
kept = bar_t * lam / (bar_t * lam + 1 - bar_t)
equation("20.6", Expect(guess**2, z, eps) / lam, kept)
axis = seasonal_ar(length=1, season=0.0, wander=0.0, noise=0.002)
probe = torch.randn(20, 1, 1, generator=seeded(0), dtype=torch.float64)
shrunk = ddim_sample(axis.eps_model(schedule), schedule, x_T=probe, grid=torch.tensor([20, 0]))
agrees(kept, {lam: 0.002, bar_t: schedule.at(20)}, (shrunk / probe).square().mean() * (schedule.at(20) * 0.002 + 1 - schedule.at(20)) / 0.002, 1e-6)

# %% [markdown]
# So an axis is safe if $\lambda$ is far above $(1-\bar\alpha_t)/\bar\alpha_t$ *at the last time before 0*. Our meter noise has $\lambda\approx0.0006$. With 50 evenly spaced steps the last time is $t=20$, where $1-\bar\alpha_t$ is three times that. The walk must take small steps near 0. `time_grid` knows a spacing for it, "quadratic". Below: the Gaussian with the mean and covariance of 4,000 weeks, each sampler's power along each of the 168 axes, in decibels against the truth ($-3$ dB is half).

# %%
some_weeks = weeks(4000, seeded(1)).curves
best_gaussian = ExactGaussian(some_weeks.double().mean(0), torch.cov(some_weeks[:, 0].double().T))
axes_alone = best_gaussian.in_eigenbasis()
ones = axes_alone.mean + torch.ones(1, 1, 168, dtype=torch.float64)
walks = {"DDIM, even steps": (ddim_sample, "trailing"), "DDIM, quadratic": (ddim_sample, "quadratic"), "DPM-Solver, quadratic": (dpm_solver_sample, "quadratic")}
decibels = {}
for name, (sampler, spacing) in walks.items():
    ends = [sampler(axes_alone.eps_model(schedule), schedule, x_T=side, grid=time_grid(1000, 50, spacing)) for side in (ones, ones - 1)]
    decibels[name] = 20 * (ends[0] - ends[1])[0, 0].abs().log10() - 10 * axes_alone.eigenvalues.log10()
curves(axes_alone.eigenvalues, decibels, plt.subplots(figsize=(6.4, 2.4))[1], xscale="log", xlabel="variance of the axis", ylabel="drawn power, dB")
show()
lost = {name: float(error[:100].mean()) for name, error in decibels.items()}
print("mean over the 100 weakest axes:", {name: f"{value:.1f} dB" for name, value in lost.items()})
assert lost["DDIM, even steps"] < -3.5 and -1 < lost["DDIM, quadratic"] < -0.3 and abs(lost["DPM-Solver, quadratic"]) < 0.3

# %% [markdown]
# Fifty even steps leave less than a third of the power of the fine noise, with a *perfect* network. No training could mend that, and in a table of scores one would have blamed the network. From here on, whole series are drawn with DPM-Solver++ on 50 quadratic times.
#
# ### Filling in, on trial
#
# Now hide a part of a series and ask for the rest. Chapter 19 fills in pictures with `keep_known`: after every step down, what is known is put back, with the noise of that time. A gap in a series is the same thing, and a *forecast* is a gap that reaches to the end. `impute` is RePaint's walk on 30 quadratic times, with chapter 09's random steps: each stretch of four steps is walked `resamplings` times. For the oracle the exact answer is one line, `given(mask, values)`. One made week of the best Gaussian; its Saturday and Sunday are to come:

# %%
truth = best_gaussian.sample(1, seeded(3))[0]
seen = hours < 120
exact = best_gaussian.given(seen[None], truth)
mean, spread = exact.mean[0, ~seen], exact.cov.diagonal()[~seen].sqrt()
fans, off = {}, {}
for times in (1, 3, 8):
    x = impute(best_gaussian.eps_model(schedule), schedule, truth.expand(150, 1, 168), seen, resamplings=times, generator=seeded(4))[:, 0]
    assert torch.equal(x[:, seen], truth[0, seen].expand(150, -1))
    fans[times], off[times] = x[:, ~seen], float(((x.mean(0)[~seen] - mean).square().mean() / spread.square().mean()).sqrt())
    ratio = float((x[:, ~seen].var(0).mean() / spread.square().mean()).sqrt())
    print(f"walked {times} times: known hours exact True;  mean off by {off[times]:.1f} of the exact standard deviation, spread {ratio:.1f} of it")
print(f"the mean of 150 perfect draws would be off by {150**-0.5:.2f}")
assert off[8] < 0.4 and off[1] > off[8] + 0.15

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True)
for ax, times in zip(axes, (1, 8), strict=True):
    ax.fill_between(hours[120:], mean - 1.28 * spread, mean + 1.28 * spread, color=GREY, alpha=0.5, lw=0, label="exact, 80 %")
    ax.plot(hours[120:], fans[times][:20].T, color=BLUE, lw=0.4, alpha=0.5)
    ax.plot(hours[120:], fans[times].mean(0), color=BLUE, label="mean of the draws")
    ax.plot(hours[120:], mean, color="black", ls="--", lw=1, label="exact mean")
    ax.set(title=f"each stretch walked {times} time{'s' * (times > 1)}", xticks=range(120, 169, 12))
axes[0].legend(fontsize=8)
for ax in axes:
    ax.set_xlabel("hour")
show()

# %% [markdown]
# Walked once, the fan is about as wide as it should be, and in the wrong place: sure of itself, and off by more than half a standard deviation. The steps down see only a noisy copy of what is known, and trust it as one trusts a noisy copy. When it becomes sharp, most of the rest is settled (chapter 19). Walked eight times, in this week mean and spread can hardly be told from the exact law: 150 perfect draws would put the mean off by $1/\sqrt{150}=0.08$.
#
# This is one week. Was it lucky? On Gaussian data every step is linear, so mean and covariance of the walk can be followed exactly, as in chapter 19, for all weeks at once:

# %%
from ddpm_course.posterior import reverse_variance
from ddpm_course.sampling import ddpm_step

guess_of_rest, eye = ExactGaussian(0 * best_gaussian.mean, best_gaussian.cov).eps_model(schedule), torch.eye(168, dtype=torch.float64)


def followed(gap, resamplings):
    """In the gap the walk's mean is pull @ (the week, less the mean week); its covariance."""
    cov, pull, known = eye, 0 * eye, eye * ~gap
    times = repaint_times(time_grid(1000, 30, "quadratic").tolist(), resamplings, 4)
    for t, s in zip(times, times[1:], strict=False):
        bar, units = schedule.at(s), eye[:, None]
        if s > t:  # back up: (2.1)
            keep = bar / schedule.at(t)
            cov, pull = keep * cov + (1 - keep) * eye, keep**0.5 * pull
        else:  # the package's own step, asked 168 unit vectors; then what is known is put back
            step = ddpm_step(schedule, units, guess_of_rest(units, torch.full((168,), t)), t, s, torch.zeros_like(units))[:, 0].T
            cov = step @ cov @ step.T + reverse_variance(schedule, t, s, "posterior") * eye
            cov = torch.where(gap[:, None] & gap, cov, (1 - bar) * known)
            pull = torch.where(gap[:, None], step @ pull, bar**0.5 * known)
    return pull[gap], cov[gap][:, gap]


# %%
def against_exact(gap, pull, cov):
    """Over all weeks, the exact law being 1: how far the mean is off (root mean square), and the spread."""
    every, right = best_gaussian.cov, best_gaussian.given(~gap[None], best_gaussian.mean).cov.diagonal()[gap]
    wrong = pull - torch.linalg.solve(every[~gap][:, ~gap], every[~gap][:, gap]).T @ eye[~gap]
    return float(((wrong @ every @ wrong.T).diagonal().mean() / right.mean()).sqrt()), float(cov.diagonal().sqrt().mean() / right.sqrt().mean())


for times, fan_of_week in fans.items():
    pull, cov = followed(~seen, times)
    bias, width = against_exact(~seen, pull, cov)
    print(f"walked {times} times, over all weeks: mean off by {bias:.2f} of the exact standard deviation, spread {width:.2f} of it")
    promised = best_gaussian.mean[0, ~seen] + pull @ (truth - best_gaussian.mean)[0]  # for the week above
    misses = (fan_of_week.mean(0) - promised) / (cov.diagonal() / 150).sqrt()
    assert float(misses.square().mean().sqrt()) < 2 and abs(float(fan_of_week.var(0).mean() / cov.diagonal().mean()) - 1) < 0.25
print("and the 150 draws of the week above have this mean and this spread: True")

# %% [markdown]
# It was. Eight repetitions leave a bias of about a third of a standard deviation (root mean square over the weeks), and a spread that is a few hundredths too small. Chapter 19 says why: RePaint's bias falls slowly with the repetitions and does not vanish, and many visits with few steps leave too little variance.
#
# ## A network for curves
#
# A U-Net has squares in its bones. A **Transformer** needs only a list of words. So cut the week into 28 words of six hours each. Every word is six numbers, and a linear layer makes a vector of 96 of them. By hand, and against the package:

# %%
trained = load_model(shipped("series"))
net, config = trained.net, trained.net.config
print(f"words of {config.patch} hours: {config.length // config.patch};  width {config.width}, blocks {config.depth}, parameters {sum(p.numel() for p in net.parameters()):,}")
x = held_out[:4]
my_words = torch.stack([x[:, 0, 6 * k : 6 * k + 6] for k in range(28)], dim=1)
torch.testing.assert_close(my_words, net.trunk.cut(x))
torch.testing.assert_close(net.trunk.join(my_words), x)
print("by hand = package, and joined again: True")

# %% [markdown]
# In each block every word asks every other word something: **attention**, as in chapter 07, with words in the place of pixels. A word's *query* is compared with each word's *key*, the comparisons become weights that add up to 1, and the answer is the weighted mean of the *values*:
#
# $$ \text{out}_i=\sum_j w_{ij}\,v_j,\qquad w_{ij}=\frac{\exp(q_i\cdot k_j/\sqrt d)}{\sum_l\exp(q_i\cdot k_l/\sqrt d)} \tag{20.7, definition} $$
#
# $d$ is the length of $q$. The 96 numbers are cut into four *heads* of 24, each asks for itself ($d=24$), and a linear layer joins the four answers. What comes out is added to the word. Then two linear layers with a bend between them work on each word alone, and that is added, too. That is one block. There are four. By hand, the attention of the first:

# %%
block = net.trunk.blocks[0]
h_words = torch.randn(2, 28, 96, generator=seeded(5))
q, k_, v_ = block.qkv(h_words).chunk(3, dim=-1)
answers = []
for head in range(config.heads):
    part = slice(24 * head, 24 * head + 24)
    weights = torch.exp(q[..., part] @ k_[..., part].transpose(1, 2) / 24**0.5)
    answers.append(weights / weights.sum(-1, keepdim=True) @ v_[..., part])
torch.testing.assert_close(block.out(torch.cat(answers, dim=-1)), block.mix(h_words), rtol=1e-4, atol=1e-4)
print("attention by hand = package: True")

# %% [markdown]
# Nothing in (20.7) knows which word comes first. Shuffle the words and the answers are shuffled with them. So a vector is added to each word that says where it stands, its **position**. The time $t$ does more than in chapter 07, where it was added: it scales and shifts what goes into each of a block's two halves, after a norm, and weighs what comes out (DiT section 3.2).
#
# > **An image to keep.** A committee of 28 people, each with six hours of the week on a card. Anyone may ask anyone. Without positions the cards carry no date. *Where the image breaks:* all questions are asked at once, by four heads, in each of four blocks, and nobody chairs.
#
# ### The same trainer
#
# Schedule, loss, trainer: nothing is new, `train(config, data, net)`. We do it here on the oracle's series, where we know how low the loss can fall: to the part of the noise that even the perfect answer misses, `law.unexplained`.

# %%
small = law.sample(4500, seeded(6)).float()
nothing = torch.zeros(4500, dtype=torch.long)
splits = Splits(*(Split(small[part], nothing[part]) for part in (slice(0, 4000), slice(4000, 4250), slice(4250, 4500))))
torch.manual_seed(0)
little = Transformer(TransformerConfig(length=48, patch=4, width=48, depth=2, heads=4))
settings = TrainConfig(data="seasonal AR", steps=200, batch_size=128, lr=3e-3, ema_decay=0.98, channels_last=False)
live = train(settings, splits, little)
floor = float((law.unexplained(schedule)[1:] / schedule.alpha_bar[1:]).mean())
reached = validation_loss(live.net, schedule, splits.test.images, "v")
print(f"loss in v: first 50 steps {live.history[0]['loss']:.1f}, after 200 steps {reached:.2f}, the perfect answer {floor:.2f}")
assert floor < reached < 1.2 * floor

# %% [markdown]
# (By (6.13) the squared error of $v$ is that of $\varepsilon$ over $\bar\alpha_t$; hence the division. We predict $v$, the trainer's default.) A few seconds of training bring a small Transformer to about ten percent above perfect, on Gaussian data. The network for the weeks is larger and was trained once; its model card has the command.

# %% [markdown]
# ## Weeks that nobody lived through
#
# Draw some, with the noise from which a script drew its first samples (`benchmarks/series_scores.py`):

# %%
GRID = time_grid(1000, 50, "quadratic")
model, chain = trained.eps_model(), trained.schedule
start = torch.randn(1000, 1, 168, generator=rng(0, 20))[:100]
drawn = dpm_solver_sample(model, chain, x_T=start, grid=GRID)
fig, axes = plt.subplots(4, 4, figsize=(10, 4.6), sharex=True, sharey=True)
for ax, (k, x) in zip(axes.flat, enumerate([*drawn[:12, 0], *held_out[:4, 0]]), strict=True):
    ax.plot(hours, x, color=BLUE if k < 12 else GREY)
    ax.set(xticks=range(0, 169, 24), xticklabels=[], yticks=[-1, 0, 1], title="" if k < 12 else "data")
show()

# %% [markdown]
# Two peaks a day, quieter weekends, now and then a holiday. They *look* right. But an eye that has never judged weeks of load is worth little. So let numbers judge, and first say how large a difference of numbers is no difference at all.
#
# ### What to compare
#
# How much does an hour say about the hour $k$ later? The **autocorrelation** of one series with mean $\bar x$:
#
# $$ r_k=\sum_{h=0}^{L-1-k}(x_h-\bar x)(x_{h+k}-\bar x)\Big/\sum_{h=0}^{L-1}(x_h-\bar x)^2 \tag{20.8, definition} $$
#
# We take its mean over the weeks. Next, the **spectrum**: the mean of $|\mathrm{DFT}_f|^2$ at each frequency $f$. Here $\mathrm{DFT}_f=\frac1{\sqrt L}\sum_h x_h e^{-2\pi i fh/L}$: how much of a wave with $f$ periods a week is in the series; the root keeps lengths (20.13). Third, the **marginals**: find the levels below which 5, 10, … 95 % of the data lie, and ask for the share of the samples below them. All three are means of rows, one row a week. That makes one tool do for all.

# %%
x, L = held_out[:50, 0].double(), 168
centred = x - x.mean(1, keepdim=True)
mine = torch.stack([(centred[:, : L - k] * centred[:, k:]).sum(1) for k in range(85)], dim=1) / centred.square().sum(1, keepdim=True)
torch.testing.assert_close(mine, autocorrelation(held_out[:50], 84))
recipe = (drawn.std(), *(autocorrelation(drawn, 84).mean(0)[k] for k in (1, 12, 24)))
first = report["generation series"]["first 100"]
then = (first["std"], *first["autocorrelation"])
print("autocorrelation by hand = package: True")
print(f"measured on these weights {report['weights']['series'] == load_tensors(shipped('series'), 'model')[1]['sha256'][:12]};  "
      f"the first 100 samples again, spread and autocorrelation within 0.01: {all(abs(float(a) - b) < 0.01 for a, b in zip(recipe, then, strict=True))}")
assert all(abs(float(a) - b) < 0.01 for a, b in zip(recipe, then, strict=True))

# %% [markdown]
# ### A band for no difference
#
# Two sets of weeks of the *same* law have different means. By how much? The mean of $n$ rows scatters with variance $\sigma^2/n$ about the true mean, and the mean of $N$ other rows with $\sigma^2/N$. We know neither the true mean nor $\sigma$; we have two sets. What we see is their difference:

# %% tags=["proof"]
n, N = sp.symbols("n N", positive=True)
equation("20.9", Expect((sigma * z / sp.sqrt(n) - sigma * eps / sp.sqrt(N)) ** 2, z, eps), sigma**2 * (1 / n + 1 / N))

# %% [markdown]
# (For any law with this variance, not just the normal one: the mixed term vanishes by independence.) A band made from the data's own scatter alone forgets one of the two terms. With $n=N$ it is too narrow by $\sqrt2$, and fails a perfect model one time in six instead of one in twenty.
#
# `bootstrap_band` finds the scatter without a formula. It draws $n$ weeks *with replacement* from the data's weeks, then again $N$, takes the difference of the means, and does that a thousand times. The middle 95 % is the band **for each number alone**. With 84 lags, four would be outside on average, by chance. So there is a second, wider band, inside which *all* numbers lie with 95 % probability **together**. Does it hold what it promises? Forty fresh sets of 200 weeks from the true recipe:

# %%
rows = autocorrelation(held_out, 84)[:, 1:]
bands = {together: bootstrap_band(rows, 200, 0.95, together, generator=seeded(7)) for together in (False, True)}
fresh = [autocorrelation(weeks(200, seeded(100 + k)).curves, 84)[:, 1:] for k in range(40)]
alone = sum(bands[False].share_inside(x) for x in fresh) / 40
whole = sum(bands[True].share_inside(x) == 1 for x in fresh)
print(f"each lag alone: inside {alone:.2f} of the time;  all 84 lags together: {whole} sets of 40")
assert 0.9 < alone < 1 and whole >= 34

# %% [markdown]
# ### The verdict
#
# A thousand samples, two seeds, against 2,000 held-out weeks. Beside the network stands an opponent without any network: **the best Gaussian**, with the mean and the full covariance of the training weeks. Its mean by the hour and its spectrum are right by construction. Its autocorrelation (20.8), a ratio in each week, need not be, but comes close. Whoever claims that a model of curves is good should beat it where it is wrong.
#
# One row needs a word. A morning is *weak* if the rise from night to morning is less than 1/1.6 of the median of Monday to Friday. "A week with a weak morning has a holiday, one without has none" is right for 97 simulated weeks of 100.

# %%
kinds = {"autocorrelation": "84 lags", "spectrum": "85 frequencies", "marginals": "19 levels", "mean by the hour": "168 hours"}
entries = {"network": report["generation series"]["likeness"], "in parts": report["generation series-parts"]["likeness"],
           "best Gaussian": report["rulers"]["gaussian"], "fresh weeks": report["rulers"]["fresh"]}
print(f"{'share inside the 95 % band for each':36s}" + "".join(f"{name:>16s}" for name in entries))
for kind, what in kinds.items():
    print(f"{kind + ', ' + what:36s}" + "".join(f"{'  '.join(f'{100 * run[kind][0]:.0f} %' for run in runs[:2]):>16s}" for runs in entries.values()))
print(f"{'share inside the band for all together':36s}")
for kind in kinds:
    print(f"{kind:36s}" + "".join(f"{'  '.join(f'{100 * run[kind][1]:.0f} %' for run in runs[:2]):>16s}" for runs in entries.values()))
verdicts = (("two-sample accuracy", "forest tells from data (0.5: cannot)", ".2f"), ("p", "its p-value", ".1g"),
            ("holidays", f"weak mornings (data {report['rulers']['holidays']:.2f})", ".2f"))
for key, label, form in verdicts:
    print(f"{label:36s}" + "".join(f"{'  '.join(format(run[key], form) for run in runs[:2]):>16s}" for runs in entries.values()))

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 2.8))
places = {"autocorrelation": range(1, 85), "spectrum": range(85), "marginals": torch.arange(1, 20) / 20}
for ax, (kind, where) in zip(axes, places.items(), strict=True):
    middle = torch.tensor(report["rulers"]["data curves"][kind])
    low, high = (torch.tensor(side) for side in report["rulers"]["bands"][kind]["together"])
    shift = (lambda v: 10 * (torch.as_tensor(v) / middle).clamp(min=1e-6).log10()) if kind == "spectrum" else (lambda v: torch.as_tensor(v) - middle)
    ax.fill_between(where, shift(low), shift(high), color=GREY, alpha=0.4, lw=0, label="band for all")
    for name, source, color in (("network", "generation series", BLUE), ("in parts", "generation series-parts", ORANGE)):
        ax.plot(where, shift(report[source]["curves"][kind]), color=color, lw=1, label=name)
    ax.plot(where, shift(report["rulers"]["gaussian curves"][kind]), color=RED, lw=0.8, ls=":", label="best Gaussian")
axes[0].set(title="autocorrelation − data's", xlabel="lag, hours")
axes[1].set(title="spectrum against data's, dB", xlabel="waves a week")
axes[2].set(title="share below level − data's", xlabel="share of the data below the level")
axes[2].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
show()

# %% [markdown]
# Read it slowly. (The figure shows the first seed.) The bands hold what they promise, as far as forty sets can tell: 0.94 and 37 of 40 above, where 0.95 and 38 are expected.
#
# - **Fresh weeks**, the floor, are not at 95 % in every cell. One set of weeks is one draw for all 84 lags, and neighbouring lags go up and down together. That is what the second band is for: there they are at 99 or 100 %.
# - **The network** passes the marginals and the spectrum, and all but an hour of the hours. Of the autocorrelation, all 84 lags lie inside the band for all with the first seed; with the second five lie outside. A forest cannot tell its weeks from the data's. Weak mornings come in 38 and 35 weeks of a hundred, in the data in 39; by (20.9) the standard error is 2, so the second is at the edge.
# - **The best Gaussian** passes what follows from mean and covariance, as it must. It passes the marginals, too, and the autocorrelation but for one lag of one seed: in those, these weeks are nearly Gaussian. It does not know that a day is either free or not. A forest tells it from the data (the $p$-values are 0.02 and below 0.001; the network's are above 0.5). Its weak mornings are too few, by more than six standard errors.
# - **The network in parts** fails every row, the spectrum most: several decibels too quiet at the high end, and too loud at 42 and 70 waves a week. More on it below.
#
# So which is better? In autocorrelations there is no difference that two seeds could show, and the Gaussian takes no training. For weeks that are like weeks, the network. Whoever shows one of these rows alone can have either answer.
#
# ## One model, any gap
#
# A forecaster is trained to forecast: for these hours, that horizon. A model of whole weeks has no horizon. Hide what you like, and `impute` draws the rest. Many draws make a **fan**. What is a fan of nine draws worth?
#
# ### How wide should a band be?
#
# Take nine draws and one truth, independent, all from one law without ties. Ten numbers, and the truth is as likely to be the smallest as any other of them: each rank has probability $1/10$. It lies between the lowest and the highest *draw* unless it is itself the lowest or the highest of all. So the two outer draws of nine make a band that holds the truth in **exactly 80 %** of all cases, *whatever that law*. For those who distrust the argument, the same as an integral, for uniform numbers. The largest of nine has density $9u^8$, the smallest $9(1-u)^8$, and the truth lies below a level $u$ with probability $u$:

# %% tags=["proof"]
u = sp.Symbol("u", positive=True)
equation("20.10", sp.Integral(u * 9 * u**8, (u, 0, 1)) - sp.Integral(u * 9 * (1 - u) ** 8, (u, 0, 1)), sp.Rational(8, 10))
ranks = torch.randn(10, 20_000, generator=seeded(8)).exp()  # some law or other
low, high = order_band(ranks[:9])
inside = (ranks[9] >= low) & (ranks[9] <= high)
print(f"of 20,000 tries, within a hundredth of 0.8: {abs(float(inside.double().mean()) - 0.8) < 0.01}")

# %% [markdown]
# A band can be honest and useless: from $-\infty$ to $\infty$ covers everything. A score that rewards both, truth inside and a narrow fan, is the **continuous ranked probability score**: the mean distance of a draw to the truth, minus half the mean distance between two draws.
#
# $$ \mathrm{CRPS}=\mathbb E|X-y|-\tfrac12\,\mathbb E|X-X'| \tag{20.11, definition} $$
#
# $X$ and $X'$ are two independent draws, $y$ is the truth. From $m$ draws, take the mean over all pairs of *different* draws. The score is lowest on average if $X$ has the law of the truth. For a single guess without spread it is the absolute error, so both can stand in one table.

# %%
many, y = torch.randn(7, 5, generator=seeded(9)), torch.randn(5, generator=seeded(10))
distances = torch.stack([(many[i] - many[j]).abs() for i in range(7) for j in range(7) if i != j]).mean(0)
torch.testing.assert_close(((many - y).abs().mean(0) - distances / 2).double(), crps(many, y), rtol=1e-5, atol=1e-6)
print("CRPS by all pairs = package: True")

# %% [markdown]
# ### Gaps and forecasts
#
# First live, on two held-out weeks: Wednesday is missing; then Saturday and Sunday have not come yet.

# %%
def filled_in(week, first, last, draws, seed=0, **walk):
    seen = torch.ones(168, dtype=torch.bool)
    seen[first:last] = False
    known = held_out[week].expand(draws, 1, 168)
    return seen, impute(model, chain, known, seen, generator=seeded(seed), **walk)[:, 0]


def fan(ax, week, seen, fill):
    first, last = int((~seen).nonzero()[0]), int((~seen).nonzero()[-1]) + 1
    ax.plot(hours[first:last], fill[:, first:last].T, color=BLUE, lw=0.5, alpha=0.5)
    ax.fill_between(hours[first:last], fill[:, first:last].amin(0), fill[:, first:last].amax(0), color=BLUE, alpha=0.2, lw=0)
    ax.plot(hours, held_out[week, 0], color="black", lw=1)
    ax.set(xticks=range(0, 169, 24))


fills = {(0, 48, 72): filled_in(0, 48, 72, 9), (1, 120, 168): filled_in(1, 120, 168, 9)}
fig, axes = plt.subplots(2, 1, figsize=(10, 4), sharex=True)
for ax, ((week, *_), (seen, fill)) in zip(axes, fills.items(), strict=True):
    fan(ax, week, seen, fill)
    assert torch.equal(fill[:, seen], held_out[week, 0, seen].expand(9, -1))
show()

# %% [markdown]
# The numbers, from 200 held-out weeks: six hours missing on Thursday, a day missing from Wednesday noon on, and Sunday to come. All were measured with nine draws. The opponents: a **straight line** across the gap; the **mean of the hour** over all training weeks; the **day before**, copied; and the **best Gaussian**, which conditions exactly on everything that is seen. Mean absolute errors, of the median draw for the network and the Gaussian; the Gaussian also answers without draws, by its exact mean:

# %%
tasks = ("fill-6", "fill-24", "forecast-24")
columns = ("network", "gaussian", "gaussian mean", "mean of the hour", "day before", "straight line")
print(f"{'MAE':14s}" + "".join(f"{name:>18s}" for name in columns))
for task in tasks:
    print(f"{task:14s}" + "".join(f"{report[task][name]['mae']:18.3f}" for name in columns))
error = max(report[task]["network"]["mae_error"] for task in tasks)
print(f"n = {report['fill-24']['n']} weeks, draws {', '.join(str(report[task]['walk'][0]) for task in tasks)}; standard errors of the network's numbers at most {error:.3f}")
print(f"\n{'':14s}{'CRPS':>18s}{'CRPS, Gaussian':>18s}{'80 % band covers':>18s}{'Gaussian covers':>18s}")
for task in tasks:
    print(f"{task:14s}" + "".join(f"{report[task][name][key]:18.3f}" for key in ("crps", "coverage") for name in ("network", "gaussian")))
print(f"\n{'':14s}{'width of the band':>18s}{'width, Gaussian':>18s}")
for task in tasks:
    print(f"{task:14s}" + "".join(f"{report[task][name]['width']:18.3f}" for name in ("network", "gaussian")))

# %%
live_errors = [float((fill.median(0).values - held_out[week, 0])[~seen].abs().mean()) for (week, *_), (seen, fill) in fills.items()]
line = float((straight_lines(held_out[:1], fills[0, 48, 72][0]) - held_out[:1])[..., 48:72].abs().mean())
naive = float((seasonal_naive(held_out[1:2], fills[1, 120, 168][0], 24) - held_out[1:2])[..., 120:].abs().mean())
print(f"the two weeks above: network {live_errors[0]:.2f} against the line's {line:.2f};  network {live_errors[1]:.2f} against the day before's {naive:.2f}")
print("known points exact in all tasks:", all(report[task]["known points exact"] for task in tasks))

# %% [markdown]
# A line across a missing day is three times as wrong as the network. The day before is the best of the cheap ones, and on Sunday only a fifth worse. The **best Gaussian** is level with the network when both answer by the median of nine draws: no difference exceeds two standard errors of the network's number. (Both had the same weeks, so the error of the difference is smaller; we did not measure it.) But the Gaussian need not draw. Its exact mean is off by 0.042, 0.085 and 0.086, less than the network in every row. (The network would gain from more draws, too; how much, we have not measured.) It is worth saying plainly: *for filling gaps in these weeks, a mean and a covariance do at least as well as this trained network.* For this task these weeks are nearly Gaussian, and on Gaussian data nothing beats the oracle. On data that are far from Gaussian the network may win. We have not shown that here.
#
# The network's bands hold the truth 79, 73 and 77 times of 100, where 80 are promised. Standard errors are 1 to 2, so the first is no difference, the second is a clear one, and the third lies between. The bands are narrower than the Gaussian's: by 5 % for six hours, 15 % for the missing day, 5 % for Sunday. How much of that is the walk's doing? The exact answer, on the best Gaussian:

# %%
for task, gap in zip(tasks, ((72, 78), (60, 84), (144, 168)), strict=True):
    hidden = (hours >= gap[0]) & (hours < gap[1])
    bias, width = against_exact(hidden, *followed(hidden, 8))
    network = report[task]["network"]["width"] / report[task]["gaussian"]["width"]
    print(f"{task:14s}spread of the walk with the oracle {width:.2f} of the exact one (its mean off by {bias:.2f});  width of the network's band {network:.2f} of the Gaussian's")

# %% [markdown]
# Part of it is the walk: with a perfect network it would leave out two to six hundredths of the spread, and a bias besides. For Sunday that is more than half of what is missing. For the missing day most is left: the network, its 16-bit numbers, or the two together with the walk. These numbers do not say which.
#
# ### Play with it
#
# Choose where the gap begins and how long it is; a gap that reaches hour 168 is a forecast. (A shorter walk than above, so that it answers in seconds. Without a running kernel, the figure above shows two such gaps, in other weeks.)

# %%
from ddpm_course.widgets import explore, slider


def draw(first, length, draws):
    seen, fill = filled_in(4, first, min(first + length, 168), draws, num_steps=20, resamplings=4, jump=4)
    fan(plt.subplots(figsize=(10, 2.4))[1], 4, seen, fill)
    plt.title(f"hours {first} to {min(first + length, 168)} filled in {draws} times")


explore(draw, first=slider(0, 160, 96, 4, "gap begins"), length=slider(4, 96, 24, 4, "hours"), draws=slider(1, 19, 9, 1, "draws"))

# %% [markdown]
# ## A network that answers in parts
#
# "Why does the model expect so much on Thursday?" A Transformer has no answer. So build one whose answer *is* a sum of things that have names (in the spirit of Diffusion-TS section 3; our own network, simpler than theirs):
#
# $$ \hat x_0=\underbrace{\textstyle\sum_b p_b}_{\text{trend}}+\underbrace{\textstyle\sum_b w_b}_{\text{season}}+\underbrace{r}_{\text{rest}} \tag{20.12, definition} $$
#
# Each block $b$ contributes a polynomial $p_b$ of degree 3 or less, read off the mean of its words, and $w_b$, the six strongest waves of a signal that it writes. After the last block a rest $r$ may say what neither could; its polynomial and its six strongest waves are taken out, so that it cannot do their work. The network predicts $x_0$, since only $x_0$ is made of trends and seasons. ($\varepsilon$ is made of nothing.) The trainer is as before, `train(config, data, net, loss=...)`. The recipe is not: $x_0$ instead of $v$, min-SNR weights (chapter 06), whispered positions (see the mistakes), fewer and larger batches, and one more term in the loss (below).

# %%
in_parts = load_model(shipped("series-parts"))
at_100 = torch.full((4,), 100)
noised = q_sample(chain, held_out[:4], 100, torch.randn(4, 1, 168, generator=seeded(11)))
parts = in_parts.net.parts(noised, at_100)
torch.testing.assert_close(in_parts.net(noised, at_100), parts.trend + parts.season + parts.rest)
basis = polynomials(168, 3).float()
torch.testing.assert_close(parts.trend @ basis.T @ basis, parts.trend, rtol=1e-3, atol=1e-4)
print("the parts add up to the answer, and the trend is a polynomial of degree 3: True")

# %%
fig, axes = plt.subplots(2, 2, figsize=(10, 4.4), sharex=True, sharey="row")
for column, week in enumerate((0, 1)):
    top, bottom = axes[:, column]
    top.plot(hours, noised[week, 0], color=GREY, lw=0.5, label="what it sees, t = 100")
    top.plot(hours, made.trend[week], color="black", ls="--", label="true trend")
    top.plot(hours, parts.trend[week, 0], color=ORANGE, label="its trend")
    bottom.plot(hours, made.season[week], color="black", ls="--", label="true season")
    bottom.plot(hours, parts.season[week, 0], color=BLUE, lw=1, label="its season")
    bottom.plot(hours, parts.rest[week, 0], color=RED, lw=0.8, label="its rest")
    bottom.set(xticks=range(0, 169, 24))
for ax in axes[:, 1]:
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
show()

# %% [markdown]
# ### Are they the true parts?
#
# We made these weeks, so we can ask. Correlation over the 168 hours with the truth, mean over 500 held-out weeks. The middle column compares the same trend with trend plus weather, for a slow curve may well follow the weather. The opponents use no network: the classical **moving average** over 24 hours (what is left, averaged by the hour of the day, is the season); **a polynomial, then the six strongest waves** of the clean week (the network may use six in each of its four blocks); and for the season the **mean by the hour of the week**, the same for all. (The last row's trend is the week itself, untouched.)

# %%
found = report["parts series-parts"]
print(f"{'correlation with the truth':32s}{'trend':>8s}{'trend + weather':>17s}{'season':>8s}")
for name in ("t = 10", "t = 100", "t = 300", "moving average", "polynomial, then waves", "mean by the hour of the week"):
    row = found[name]
    print(f"{('in parts, ' if name.startswith('t') else '') + name:32s}{row['trend']:8.2f}{row['trend + weather']:17.2f}{row['season']:8.2f}")
print(f"n = {found['n']} weeks")

# %% [markdown]
# The season is found about as well as by the best method without a network, and from a noisy week; at $t=300$, where an eye sees little, it has lost two or three hundredths. The trend is another story: no row is above 0.47, and a correlation of 0.47 explains about a fifth of the variance. Look at the figure: at the weekend its trend lies below the true one. Weekends are lower, weather wanders slowly, and a polynomial is glad to take both. Nothing forbids it. The loss sees only the *sum* of the parts, and a weekend that moves from the season to the trend leaves the sum as it was. (A method that knew the mean week could subtract it first. We have not tried that.) The parts of an interpretable network are parts *of its answer*. They add up, they can be read and questioned. That the world has the same parts is a claim about the world, and the network has no evidence for it that a polynomial has not.
#
# ### "A loss in the frequency domain"
#
# The paper adds a term that compares the Fourier transforms of $x_0$ and $\hat x_0$ (Diffusion-TS section 3). With a *square* in it, that is worth a closer look. Four numbers, their orthonormal DFT, and the squares of the moduli (a real series has $|X_1|=|X_3|$):

# %% tags=["proof"]
b_0, b_1, b_2, b_3 = sp.symbols("b_0 b_1 b_2 b_3", real=True)
squares = ((b_0 + b_1 + b_2 + b_3) / 2) ** 2 + 2 * (((b_0 - b_2) / 2) ** 2 + ((b_1 - b_3) / 2) ** 2) + ((b_0 - b_1 + b_2 - b_3) / 2) ** 2
equation("20.13", squares, b_0**2 + b_1**2 + b_2**2 + b_3**2)
error = torch.randn(5, 168, generator=seeded(12)).double()
torch.testing.assert_close(torch.fft.fft(error, norm="ortho").abs().square().sum(1), error.square().sum(1))
agrees(squares, dict(zip((b_0, b_1, b_2, b_3), error[0, :4].tolist(), strict=True)), torch.fft.fft(error[0, :4], norm="ortho").abs().square().sum())

# %% [markdown]
# That is **Parseval's theorem**: the DFT is a rotation, and a rotation changes no length. So a squared loss in the frequency domain *is* the squared loss. It adds nothing but a factor. What does differ is the modulus itself, without the square: it forgives one large wave, and insists on many small ones. That is what `with_spectrum(weight)` adds, a loss for the trainer like any other:

# %%
from ddpm_course import diffusion_loss
from ddpm_course.losses import with_spectrum

t, noise = torch.randint(1, 1001, (8,), generator=seeded(13)), torch.randn(8, 1, 168, generator=seeded(14))
given = (in_parts.net, chain, held_out[:8], t, noise, "x_0")
error = in_parts.net(q_sample(chain, held_out[:8], t, noise), t) - held_out[:8]
moduli = torch.fft.fft(error, norm="ortho").abs().mean((1, 2))
torch.testing.assert_close(with_spectrum(0.05)(*given), diffusion_loss(*given) + 0.05 * moduli, rtol=1e-4, atol=1e-6)
both = {name: report[f"generation {name}"]["likeness"][0] for name in ("series-parts", "series-parts-square", "series-two-parts")}
for name, run in both.items():
    print(f"{name:22s}" + "  ".join(f"{kind} {100 * run[kind][0]:.0f} %" for kind in ("autocorrelation", "spectrum", "marginals")) + f"  forest {run['two-sample accuracy']:.2f}")
of_data = torch.tensor(report["rulers"]["data curves"]["spectrum"])
for name in both:
    dB = 10 * (torch.tensor(report[f"generation {name}"]["curves"]["spectrum"]) / of_data).log10()
    print(f"{name:22s}spectrum: lowest from 42 waves on {dB[42:].min():.0f} dB, lowest of all {dB.min():.0f} dB;  at 42 and 70 waves {dB[42]:+.0f}, {dB[70]:+.0f} dB")
worse = report["fill-24 series-parts"]["network"]
print(f"in parts, the missing day: median off by {worse['mae']:.2f}, the 80 % band covers {worse['coverage']:.2f}")

# %% [markdown]
# (Shares inside the bands for each; `series-parts-square` was trained without the term, `series-two-parts` without a rest; one training of 1,300 steps each.) The rest matters: without it a forest is right five times in six. The spectral term makes no difference that these numbers could show.
#
# And the spectra of all three are wrong: up to 6 dB too low in the fine noise (without a rest 8 dB there, and 12 dB at a slower wave), and 6 to 11 dB too high at 42 and 70 waves a week, six and ten a day. Our guess at the reason for the missing noise: at the last steps $\hat x_0$ should be nearly $x_t$ itself, hour by hour. A prediction of $v$ has $x_t$ in it for nothing (chapter 06); this network must write it anew. It is a guess. These networks also had min-SNR weights, and they count the last steps for less than the loss in $v$ does. Louder positions and 8,000 small steps did not help; the weights were not tried alone. In the gaps it is worse, too: on the missing day above, with a longer walk and 19 draws, the median of the shipped one is off by 0.15 and its 80 % band holds 44 hours of 100.
#
# ## Sound
#
# A sound is a series, too, only a fast one: here 4,000 numbers a second, half as many as on a telephone line: nothing above 2,000 Hz fits in. Ours are simulated plucked strings of an eighth of a second, 512 samples: one of four pitches, harmonics $k$ with the strength $\sin(\pi kp)/k$ of a string plucked at the share $p$ of its length, the high ones dying sooner, and a little hiss. The network is the same Transformer; its 16 words have 32 samples each.

# %%
sound = load_model(shipped("waves"))
strings = dpm_solver_sample(sound.eps_model(), sound.schedule, x_T=torch.randn(1000, 1, 512, generator=rng(0, 20))[:60], grid=GRID)
real, _ = plucked(1000, seeded(15))


def spectrogram(x):
    pieces = x[0].unfold(0, 128, 16) * torch.hann_window(128)
    return 20 * torch.fft.rfft(pieces).abs().clamp(min=1e-3).log10().T


fig, axes = plt.subplots(2, 4, figsize=(10, 3.6))
for column, (x, label) in zip(axes.T, ((real[0], "data"), (real[1], "data"), (strings[0], "drawn"), (strings[1], "drawn")), strict=True):
    column[0].plot(torch.arange(512) / 4, x[0], lw=0.5, color=GREY if label == "data" else BLUE)
    column[0].set(title=label, ylim=(-1.3, 1.3), xlim=(0, 128), xticks=[])
    column[1].imshow(spectrogram(x), origin="lower", aspect="auto", extent=(16, 112, 0, 2), cmap="magma", vmin=-40, vmax=30)
    column[1].set_xlim(0, 128)
axes[0, 0].set_ylabel("sound")
axes[1, 0].set(ylabel="kHz", xlabel="milliseconds")
show()

# %% [markdown]
# To *hear* one, write a file (exercise 20.6 fills in the numbers), or type `IPython.display.Audio(strings[0, 0], rate=4000)` into a cell.
#
# To judge them: the mean spectrum of 1,000 samples against that of 2,000 held-out strings, in decibels, root mean square over all frequencies:
#
# $$ D=\sqrt{\operatorname{mean}_f\big[(10\log_{10}S_f-10\log_{10}S'_f)^2\big]} \tag{20.14, definition} $$
#
# $S_f$ and $S'_f$ are the two mean spectra. As always, a floor: the same distance between two halves of the held-out strings. And a string should have *a pitch of the four*. We look for the peak of the autocorrelation and ask whether it lies within 20 cents (a fifth of a semitone) of one of them.

# %%
heard = report["waves"]
listed = lambda values: ", ".join(f"{v:.2f}" for v in values)
print(f"distance of the network's spectrum {listed(heard['network']['distance'])} dB;  floor, halves of the data: {listed(heard['halves'])} dB")
print(f"in tune: network {listed(heard['network']['in tune'])}, data {heard['test in tune']:.2f};  a forest tells them from data: {listed(heard['network']['two-sample accuracy'])}")
print(f"live, 60 samples: the distance is below 4 dB {spectral_distance(strings, real) < 4}")
print(f"pitches as frequent as in the data, p: {', '.join(f'{p:.1g}' for p in heard['network']['p of pitches'])};  n = {heard['n']}")
fig, ax = plt.subplots(figsize=(8, 2.3))
for name, values, color in (("data", heard["test spectrum"], "black"), ("network", heard["network"]["spectrum"], BLUE)):
    ax.plot(torch.arange(257) * 4000 / 512, 10 * torch.tensor(values).log10(), color=color, lw=0.8, label=name)
ax.set(xlabel="Hz", ylabel="dB")
ax.legend()
show()

# %% [markdown]
# Nearly there, and the numbers say what is missing. 99 of a hundred drawn strings have one of the four pitches to a fifth of a semitone, which nobody told the network, and the four come in the data's proportions (the $p$-values). A forest knows a drawn string from a real one six times of ten, where guessing gives five. What it can hear is in the figure: the spectrum is 1 dB off, where two halves of the data differ by a quarter of a decibel, and at every frequency to the same side. The drawn strings are *too quiet*, most of all in the high harmonics.
#
# How much of this is training? The same network after a tenth of it (4,000 steps, loss 0.042 for 0.028): 2 dB off, 94 of a hundred in tune, pitches in the wrong proportions, and the forest right 99 times of 100 (docs/LOG.md).
#
# Listen, but measure: an ear may pass what the forest does not.
#
# ## Common mistakes
#
# ### "I scale each series by its own maximum"
#
# It is tidy: all curves end at 1. It also tells the future. Hide Thursday to Sunday. In weeks scaled by their own maximum, look only at what is *seen*: if no value reaches 1, the maximum must still be to come, at exactly 1.

# %%
scaled = held_out / held_out.amax(2, keepdim=True).clamp(min=0.05)
seen_max, later_max = scaled[:, 0, :72].amax(1), scaled[:, 0, 72:].amax(1)
told = seen_max < 1
print(f"weeks whose first three days give the rest's maximum away: {float(told.double().mean()):.0%};  there it is exactly 1: {bool((later_max[told] == 1).all())}")
unscaled = held_out[told, 0]
error = (unscaled[:, 72:].amax(1) - unscaled[:, :72].amax(1)).abs().mean()
print(f"what 'the maximum of the rest = that of the first days' gets wrong in the same weeks, without the leak: {float(error):.2f} on average")
assert bool((later_max[told] == 1).all()) and 0.35 < float(told.double().mean()) < 0.5

# %% [markdown]
# And at the time of a real forecast the scaled numbers could not even be computed: nobody knows this week's maximum on Friday. Scale by numbers from the *training* weeks, the same for all.
#
# ### Positions left out, or whispered
#
# Without positions the words are a bag. Test it as one tests a bag: shuffle the words. And there is a sly variant. Begin the learned positions with a standard deviation of 0.02, as one begins many weights, and the words, which are some twenty-five times louder, drown them. Nothing breaks. The network learns, only for a long while it hardly knows what is where:

# %%
def again(**positions):
    torch.manual_seed(0)
    return train(settings, splits, Transformer(TransformerConfig(length=48, patch=4, width=48, depth=2, heads=4, **positions))).net


bag, whisper = again(positions="none"), again(loudness=0.02)
order, x, t = torch.randperm(12, generator=seeded(16)), small[:5], torch.full((5,), 300)
shuffled = lambda v: v.unflatten(2, (12, 4))[:, :, order].flatten(2)
with torch.no_grad():
    for name, network in (("no positions", bag), ("whispered", whisper), ("positions", live.net)):
        blind = torch.allclose(network(shuffled(x), t), shuffled(network(x, t)), atol=1e-4)
        loss = validation_loss(network, schedule, splits.test.images, "v")
        print(f"{name:14s} the same answer for shuffled words: {blind!s:5s}  loss {loss:.2f}, {loss / floor:.2f} floors")
        assert blind == (network is bag) and (loss > 1.22 * floor) == (network is not live.net)

# %% [markdown]
# At this length of training the whisper's loss is higher by a sixth, and no better than without any positions: 1.29 floors, both. What it loses above the floor is about three times what the loud network loses. Its shuffle test is passed: positions do arrive, too softly to be of use. Only the oracle's floor tells that something is wrong; a falling loss curve does not. (The network in parts that is shipped with this chapter began with such whispers, and so did an earlier plain one. That one saw 2,100 batches of 512 and ended at a loss of 0.0981; a fifth to a quarter of its autocorrelation lay outside the band for all. The one that you met above began loud, saw fewer weeks in 14,000 batches of 64, and ended at 0.0965. Batch and number of steps differ, too, so this does not show what the whisper alone did. It does show how small a difference of the loss can stand for how large a one in the verdict.)
#
# ### Halfway between two sounds
#
# Two strings of one pitch, and somebody wants the sound between them, so takes the mean. Phases are angles, and angles have no mean that adds up:

# %% tags=["proof"]
theta, delta = sp.symbols(r"\theta \delta", real=True)
equation("20.15", (sp.cos(theta) + sp.cos(theta + delta)) / 2, sp.cos(delta / 2) * sp.cos(theta + delta / 2))

# %% [markdown]
# At opposite phases, $\delta=\pi$, the mean of two tones is *silence*, and on average over all $\delta$ half the power is gone. Chapter 13 has another path: invert both sounds to noise, go halfway on the sphere there, come back.

# %%
from ddpm_course import ddim_invert
from ddpm_course.solvers import slerp

sounds, note = plucked(400, seeded(17))
pair = [sounds[note == pitch][k : k + 2] for pitch in range(4) for k in (0, 2, 4)]
a_, b_ = (torch.stack([p[k] for p in pair]) for k in (0, 1))
middle = (a_ + b_) / 2
rise = lambda x: ddim_invert(sound.eps_model(), sound.schedule, x, 50)
walked = ddim_sample(sound.eps_model(), sound.schedule, x_T=slerp(rise(a_), rise(b_), 0.5), num_steps=50)
loud = lambda x: float(x.square().mean())
print(f"power between two strings of one pitch, theirs being 1: mean of the samples {loud(middle) / loud(torch.cat([a_, b_])):.1f}, halfway through the noise {loud(walked) / loud(torch.cat([a_, b_])):.1f}")

# %% [markdown]
# The mean of the samples has lost 40 % of the power: near the half that the formula promises for two equal tones. The sound from halfway through the noise has not lost its power. It has a tenth more. Twelve pairs do not say why; the even steps of the inversion and an imperfect network are both suspects. Whether it still has its pitch, we did not ask.
#
# ### A fan is not an error bar
#
# "The 80 % band of the draws is the uncertainty of the forecast's mean." It is not. The fan says where *the series* will be. How well 19 draws fix their own *mean* is another matter, and a band $\sqrt{19}$ times narrower. Mixed up, it goes wrong in both directions. On the oracle, 300 series, last 12 hours hidden:

# %%
hidden = torch.arange(48) >= 36
wholes = law.sample(300, seeded(18))[:, 0]
laws = [law.given(~hidden[None], x[None]) for x in wholes]
draws = torch.stack([one.sample(19, seeded(500 + k))[:, 0, hidden] for k, one in enumerate(laws)], dim=1)
means, target = torch.stack([one.mean[0, hidden] for one in laws]), wholes[:, hidden]
half = 1.28 * draws.std(0) / 19**0.5
bands_of = {"fan": order_band(draws), "mean ± 1.28 standard errors": (draws.mean(0) - half, draws.mean(0) + half)}
for name, (low, high) in bands_of.items():
    covers = lambda v: float(((v >= low) & (v <= high)).double().mean())
    print(f"{name:28s} holds the series {covers(target):.2f}, the exact mean {covers(means):.2f} of the time")

# %% [markdown]
# A planner who buys power for the *series* needs the fan. The other band says only whether 19 draws were enough for the mean. Only one number in each row is near 0.8.
#
# ### "Their autocorrelations differ"
#
# Somebody draws 30 weeks from a model, 30 from the data, and sees the curves part by five hundredths. Two sets of 30 from the *same* recipe:

# %%
one, two = (autocorrelation(weeks(30, seeded(s)).curves, 84)[:, 1:] for s in (19, 20))
apart = float((one.mean(0) - two.mean(0)).abs().max())
band = bootstrap_band(one, 30, 0.95, together=True, generator=seeded(21))
print(f"largest difference {apart:.2f}, at the widest the band allows {float((band.high - band.centre).max()):.2f};  all 84 lags inside: {band.share_inside(two) == 1}")
assert apart > 0.03 and band.share_inside(two) == 1

# %% [markdown]
# A difference without a band is no result.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/20_series_student.ipynb), [with solutions](exercises/20_series_solution.ipynb).

# %% [markdown]
# **20.1 ★** Suppose the weather were an AR(1) by the hour with $\phi=0.9$. Ours forgets more slowly. What would be its correlation with itself one day later?

# %% [markdown] tags=["hint"]
# **Hint 20.1**
#
# One hour: $\phi$. Two hours: equation (20.4) once more.

# %% tags=["exercise"]
a_day_later = ...
check("20.1", a_day_later)

# %% tags=["solution"]
a_day_later = 0.9**24
must_pass("20.1", a_day_later)

# %% [markdown]
# **20.2 ★** From the lowest to the highest of $m$ draws shall be an exact 90 % band. How many draws is that?

# %% [markdown] tags=["hint"]
# **Hint 20.2**
#
# The truth is one of $m+1$ values. At which ranks does it fall outside?

# %% tags=["exercise"]
how_many_draws = ...
check("20.2", how_many_draws)

# %% tags=["solution"]
how_many_draws = 19
must_pass("20.2", how_many_draws)

# %% [markdown]
# **20.3 ★★** The autocorrelation (20.8) of one series `x`, a list, at lag `k`.

# %% [markdown] tags=["hint"]
# **Hint 20.3**
#
# Two sums. The upper one has `len(x) - k` terms, the lower one `len(x)`.

# %% tags=["exercise"]
def autocorrelation_at(x, k):
    return ...


check("20.3", autocorrelation_at)


# %% tags=["solution"]
def autocorrelation_at(x, k):
    d = [v - sum(x) / len(x) for v in x]
    return sum(d[h] * d[h + k] for h in range(len(x) - k)) / sum(v * v for v in d)


must_pass("20.3", autocorrelation_at)

# %% [markdown]
# **20.4 ★★** A sampler jumps from a time with $\bar\alpha_t=$ `alpha_bar` straight to 0. Which share of the variance `power` of a Gaussian axis is left?

# %% [markdown] tags=["hint"]
# **Hint 20.4**
#
# It ends at the conditional mean. What is the variance of a conditional mean?

# %% tags=["exercise"]
def share_left(power, alpha_bar):
    return ...


check("20.4", share_left)


# %% tags=["solution"]
def share_left(power, alpha_bar):
    return alpha_bar * power / (alpha_bar * power + 1 - alpha_bar)


must_pass("20.4", share_left)

# %% [markdown]
# **20.5 ★★★** The CRPS (20.11) of a list of draws for the truth `y`, so that its mean does not depend on how many draws there are.

# %% [markdown] tags=["hint"]
# **Hint 20.5**
#
# $X$ and $X'$ are two *different* draws. How many ordered pairs are there?

# %% tags=["exercise"]
def crps_of(draws, y):
    return ...


check("20.5", crps_of)


# %% tags=["solution"]
def crps_of(draws, y):
    m = len(draws)
    spread = sum(abs(a - b) for a in draws for b in draws) / (m * (m - 1))
    return sum(abs(a - y) for a in draws) / m - spread / 2


must_pass("20.5", crps_of)

# %% [markdown]
# **20.6 ★★** A WAV file holds whole numbers from −32,768 to 32,767. Turn a list of samples, 1.0 being full loudness, into such numbers (use 32,767 for 1.0 and −32,767 for −1.0). Samples may stick out of $[-1,1]$; they become as loud as ±1.0. Then Python's own `wave` module writes the file: `setnchannels(1)`, `setsampwidth(2)`, `setframerate(4000)`, `writeframes(array("h", numbers).tobytes())`.

# %% [markdown] tags=["hint"]
# **Hint 20.6**
#
# What would 1.2 become, and what does a 16-bit number make of that?

# %% tags=["exercise"]
def sixteen_bits(x):
    return ...


check("20.6", sixteen_bits)


# %% tags=["solution"]
def sixteen_bits(x):
    return [round(32767 * max(-1.0, min(1.0, v))) for v in x]


must_pass("20.6", sixteen_bits)

# %% [markdown]
# ## What comes next
#
# A week has 168 numbers, a string 512, a photograph a quarter of a million. The chain does not mind, but the network does: the time goes with the numbers, for attention with their square. The last chapter lets a second network write a picture down in fewer numbers first (784 pixels in 196), and runs the chain there.
