# %% [markdown]
# # 11 · Common mistakes: predict, then run
#
# **The question.** A diffusion program with a mistake in it usually runs. The loss falls, the samples look like something. Which of two nearly equal lines is wrong, how large is the damage, and what would have caught it?
#
# **After this chapter you can**
#
# - recognise 38 mistakes that people make with DDPM and DDIM, in code and in words;
# - name for each a number that exposes it, and say where the true value of that number comes from;
# - tell the mistakes that a picture shows from those that no picture shows;
# - write a test that would notice a slip by one step.
#
# *Needs:* chapters 00 to 10. You can also come here first and follow the links back. *Time:* about three hours with the exercises.
#
# > **How to read it.** For each mistake you see two versions of one small function, A and B. They differ in a line or two. **One of them is wrong.** Replace the three dots in `ask(1, ...)` by `"A"` or `"B"`, run the cell, and only then open the next one. It is collapsed; click on it. It says which version is wrong, measures both, names the true value, and draws the wrong curve beside the right one. Try to guess the number too, not only the letter. A viewer that cannot collapse cells (GitHub, for one) shows the answers at once; there, cover the screen below each question.

# %%
import base64
import math
from dataclasses import replace
from functools import cache

import matplotlib.pyplot as plt
import torch
from IPython.display import display

from ddpm_course.checks import check, must_pass
from ddpm_course.mistakes import EVERY, MISTAKES, MistakeError, gap, source, tables, verify, versions, wrong_letter
from ddpm_course.plots import BLUE, RED, compact_png, style, versus
from ddpm_course.widgets import choice, explore

style()
KEPT = {name: replace(mistake, observe=cache(mistake.observe)) for name, mistake in EVERY.items()}  # each version runs once
guesses, revealed = {}, {}

# %% [markdown]
# What you will see is what runs. Each mistake is an object of the package with a `wrong` and a `right` function, and `ask` prints the source of these very functions. Their names are made equal, and which of them is A follows from a fixed rule that does not reward a habit. Three mistakes come in a second form, which has a *b* after its number.

# %%
def ask(key, guess=...):  # both versions, and nothing that tells them apart
    if guess in ("A", "B") and key not in revealed:
        guesses[key] = guess
    for letter, version in versions(KEPT[f"M{key}"]).items():
        print(f"--- version {letter} ---\n{source(version)}\n")


# %% [markdown]
# `reveal` calls `verify`. It runs both versions and compares the number of each with the **truth**. The truth never comes from the right version. It comes from a formula in another form, an integral, a count, or a theorem about data whose law is known. If a measurement ever contradicted the verdict, `reveal` would stop with an error.

# %%
def short(x):
    return "0" if abs(x) < 1e-6 else f"{x:.3g}"


def reveal(key):  # which one is wrong, by how much, why, and a picture
    mistake = KEPT[f"M{key}"]
    found = revealed[key] = verify(mistake)
    said = f" You said {guesses[key]}." if key in guesses else ""
    text = (f"**{mistake.name}: version {wrong_letter(mistake)} is wrong.**{said} {mistake.title}\n\n"
            f"{mistake.quantity}: wrong **{short(found.wrong)}**, right **{short(found.right)}**, truth {short(found.truth)}.\n\n"
            f"{mistake.why} [Chapter {mistake.chapter[:2]}]({mistake.chapter}.ipynb)")
    display({"text/markdown": text, "text/plain": text.replace("**", "")}, raw=True)
    entry = None if callable(mistake.read) else mistake.read % len(mistake.x)
    ax = versus(mistake.x, mistake.observe(mistake.wrong), mistake.observe(mistake.right), xscale=mistake.xscale,
                truth=None if entry is None else (entry, found.truth), xlabel=mistake.labels[0], title=f"{mistake.name}: {mistake.labels[1]}")
    picture = base64.b64encode(compact_png(ax.figure)).decode()
    display({"image/png": picture, "text/plain": f"{mistake.name}, wrong beside right"}, raw=True)

# %% [markdown]
# ## The forward process and its Gaussians
#
# Six mistakes about scaling, adding and naming Gaussians. Four of them look properly noisy in pictures: no picture has a scale beside it on which one could read its variance. They are caught by a *variance* or a *correlation* over many draws, compared with the closed form. The other two (M19, M34) need one number worked out by hand. The rings in the figures mark the value that was known beforehand.

# %% [markdown]
# **M1.** The closed form of chapter 02. What is the variance of $x_t$ at $t=100$ in each version?

# %%
ask(1, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(1)

# %% [markdown]
# **M2.** One step of the forward process, done a thousand times from data of variance 1. Where does the variance go?

# %%
ask(2, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(2)

# %% [markdown]
# **M16.** Training asks the network for $\varepsilon$. Which $\varepsilon$? Predict the correlation of the target with the noise of the last step at $t=100$, where $\beta_t\approx0.002$ and $1-\bar\alpha_t\approx0.1$.

# %%
ask(16, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(16)

# %% [markdown]
# **M19.** The law of $ax$. Take $a=\frac12$ and $x\sim\mathcal N(1,4)$.

# %%
ask(19, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(19)

# %% [markdown]
# **M20.** A hundred forward steps. The two versions have the same lines, in another order.

# %%
ask(20, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(20)

# %% [markdown]
# **M34.** A probability from a density. Which answer can exceed 1?

# %%
ask(34, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(34)

# %% [markdown]
# ## Tables, indices and numbers
#
# Most of these are quiet. A table that is off by one entry, cast to the wrong type, or called by another table's name changes no shape and raises no error. Samples hardly move, because one step of a thousand does little. What catches them is dull and works: work out one entry by hand (best at $t=1$, at $t=T$ and at the smallest $T$), and compare with a tolerance far below the size of a slip.

# %% [markdown]
# **M4.** Four names for the variance of a reverse step, as libraries use them, at $t=1$. How many different numbers are there?

# %%
ask(4, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(4)

# %% [markdown]
# **M15.** The factors of $x_0$ and $\varepsilon$ in $x_t$. Our tables have $T+1$ entries, and entry 0 is clean data.

# %%
ask(15, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(15)

# %% [markdown]
# ### The invisible one, in full
#
# M15 is the easiest of all to write, so let us look at it longer. The training program made its pictures with the slipped table, and the best network for *those* pictures is used by a sound sampler. Two thousand samples with either network, from the same dice:

# %%
slipped, sound = (tables.slip_samples(version) for version in (tables.wrong_coefficients, tables.right_coefficients))
fig, (samples, coefficients) = plt.subplots(1, 2, figsize=(9, 2.4))
samples.hist([sound[:, 0].numpy(), slipped[:, 0].numpy()], bins=50, color=[BLUE, RED], label=["right", "slipped"])
samples.set(title="2,000 samples: what one looks at", xlabel="x_0", yticks=[])
samples.legend(fontsize=8)
ratio = [tables.wrong_coefficients(t)[1] / tables.right_coefficients(t)[1] for t in range(1, 41)]
coefficients.plot(range(1, 41), ratio, color=RED)
coefficients.axhline(1, color="black", linewidth=0.7)
coefficients.set(title="factor of eps, slipped / right: what one tests", xlabel="t", ylim=(-0.05, 1.1))
plt.show()

# %%
seen, moved = tables.statistics(sound), (tables.statistics(slipped) - tables.statistics(sound)).abs()
mean, std, share, width = seen.tolist()
errors = torch.tensor([std, std / 2**0.5, (share * (1 - share)) ** 0.5, width / (2 * (1 - share)) ** 0.5]) / 2000**0.5
print(f"mean, spread, weights and width of the samples all move by less than one standard error: {bool((moved < errors).all())}")
print(f"factor of eps at t = 1: right {tables.right_coefficients(1)[1]:.2f}, slipped {tables.wrong_coefficients(1)[1]:.2f}, by hand sqrt(1e-4) = 0.01")
assert bool((moved < errors).all()) and tables.wrong_coefficients(1)[1] == 0

# %% [markdown]
# None of these four statistics moves by as much as its own standard error, so a look at them does not show the slip, not with 2,000 samples. The coefficient test needs no sample, no network and no training: one multiplication by hand, and the slip is a factor of 0 instead of 0.01. This is why each table of the package is tested at $t=1$, $2$ and $T$ against numbers worked out in another way.

# %% [markdown]
# **M22.** How far, in nats of KL, is $q(x_T\mid x_0)$ from $\mathcal N(0,1)$? Predict it for $x_0=1$ and $T=10$ with the usual $\beta$'s.

# %%
ask(22, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(22)

# %% [markdown]
# **M23.** A short chain. The $\beta$'s of $T=1000$ are multiplied by $1000/T$. What happens at $T=20$?

# %%
ask(23, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(23)

# %% [markdown]
# **M24.** The factor of the noise for a network that computes in bfloat16. What is it at $t=10$?

# %%
ask(24, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(24)

# %% [markdown]
# **M27.** Seven steps from $T=1000$ to 0. A sampler should leave no gap. How many times are missed in all?

# %%
ask(27, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(27)

# %% [markdown]
# ## One step back
#
# Now the reverse step. Here the data are two bells on the line, at $-1$ (weight 0.7) and $+1$ (weight 0.3), so that Bayes' rule can be carried out on a grid. That gives the true law of $x_s$ given $x_t$, and with it the mean, the variance and the kurtosis that each version must meet. M18 is about the bound. Both splittings have the same sum, so the total never tells them apart; what differs is the spread of a single term.

# %% [markdown]
# **M3.** A step from $t=300$ to $s=200$. Into which place does the network's answer go?

# %%
ask(3, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(3)

# %% [markdown]
# **M5.** What does the sampler draw? Given $x_t=0$, the true law of $x_s$ has a certain variance. How much of it is missing in the draws of each version?

# %%
ask(5, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(5)

# %% [markdown]
# **M8.** The mean of one small step back, at $x_{300}=1.5$.

# %%
ask(8, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(8)

# %% [markdown]
# **M18.** A term of the bound, evaluated on 4,000 films $x_0,\dots,x_T$ with the best possible model. Which version is steadier, and which can become negative?

# %%
ask(18, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(18)

# %% [markdown]
# **M21.** The reverse law at a point between the bells. The excess kurtosis is 0 for a Gaussian. What is it for a chain of 4 steps?

# %%
ask(21, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(21)

# %% [markdown]
# ## The sampling loop
#
# Whole chains now, with the exact oracle as network (in M26 and M26b with its answers exaggerated by 10 %), so that no training can be blamed. A single sample of a broken chain often looks *cleaner* than a right one, because noise is missing. So do not look at one sample; look at the law of many: mean, spread, the weights of the bells, the distance to the data. On the way down, the variance of $x_t$ is known at each $t$, and it shows a fault long before $t=0$.

# %% [markdown]
# **M6.** The last line of a reverse step. The data have the standard deviation 0.5.

# %%
ask(6, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(6)

# %% [markdown]
# **M7.** Is the noise needed? Predict four numbers: mean and spread for one bell, the share of the right-hand bell and the width of the left-hand one for two.

# %%
ask(7, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(7)

# %% [markdown]
# **M25.** The last line again. The data are eight points in the plane. How far from them do the samples end?

# %%
ask(25, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(25)

# %% [markdown]
# **M26.** Clipping in DDIM. The network exaggerates by 10 %, the data are $\pm1$, so $x_t$ has variance 1 at each $t$. What is its standard deviation at $t=700$?

# %%
ask(26, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(26)

# %% [markdown]
# **M26b.** Clipping in DDPM, with the same network.

# %%
ask("26b", ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal("26b")

# %% [markdown]
# ## DDIM
#
# In DDIM one letter means two things in two papers, and three different things are called "no noise". For Gaussian data with the oracle every step is a multiplication, so the spread of the samples follows on paper and one number settles each case. Only M11 and M13 need something else: with fresh noise the pictures are fine and the *map* from $x_T$ to $x_0$ is gone, and a chain is told from a non-chain by a correlation, not by looking at samples.

# %% [markdown]
# **M9.** The noise of a step is switched off. What becomes of the spread 0.5?

# %%
ask(9, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(9)

# %% [markdown]
# **M10.** The DDIM paper writes $\alpha$. Which table is that?

# %%
ask(10, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(10)

# %% [markdown]
# **M11.** The last line of a deterministic step. How strongly does $x_0$ depend on $x_T$?

# %%
ask(11, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(11)

# %% [markdown]
# **M13.** Generation with DDIM, $x_{500}\to x_{300}\to x_{100}$. Once $x_{300}$ is known, what does $x_{500}$ still say about $x_{100}$?

# %%
ask(13, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(13)

# %% [markdown]
# **M14.** A report about sampling with few steps. The data have the standard deviation 0.1 and the denoiser is perfect. What should be reported for five steps?

# %%
ask(14, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(14)

# %% [markdown]
# ## Around the network
#
# These live in the training program and are blamed on the method. Two of them (M29, M30) make pictures that look undertrained, and people train longer instead of mending a line. Each has a test without any training: a network that answers the same question twice, an average of weights that are known, a layer whose weights are all 1, a picture whose grey values are counted.

# %% [markdown]
# **M29.** The average of the weights, over a run of 10,000 steps. How much of the *initial* weights is left in it?

# %%
ask(29, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(29)

# %% [markdown]
# **M30.** A network with dropout. Two deterministic runs from the same $x_T$: at how many of the ten steps do they differ?

# %%
ask(30, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(30)

# %% [markdown]
# **M31.** Grey values 0..255 on their way to the network. The discrete decoder has 256 bins on $[-1,1]$. How many of them are used?

# %%
ask(31, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(31)

# %% [markdown]
# **M31b.** The same job, another slip. How much of a pixel is left at $T=1000$?

# %%
ask("31b", ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal("31b")

# %% [markdown]
# **M32.** Upsampling by a transposed convolution whose weights are all 1. How many contributions meet at each place?

# %%
ask(32, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(32)

# %% [markdown]
# ## Conditions and guidance
#
# The chapters on steering come later; these mistakes are here because they follow from what you know. The mean share of dropped labels is right in both versions of M28, so a log of the mean never shows it; look at the spread over batches. For M33 the two bells serve as classes. Given the class, the data are a single Gaussian, so the guided mean is known exactly.

# %% [markdown]
# **M28.** Ten per cent of the labels are dropped, for classifier-free guidance. Both versions drop 10 % on average. What is the standard deviation of the share over batches of 64?

# %%
ask(28, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(28)

# %% [markdown]
# **M33.** Guidance by a classifier with an exact gradient, ten steps in all. At $t=1$ the sampler stands at $x_1=-0.3$, and $y$ asks for the right-hand bell.

# %%
ask(33, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(33)

# %% [markdown]
# **M33b.** The same job, a third formula. Compare at $t=3$.

# %%
ask("33b", ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal("33b")

# %% [markdown]
# **M38.** What the network is told about a picture of *two red 7s*. From what it is told, how often can it get count, colour and digit right?

# %%
ask(38, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(38)

# %% [markdown]
# ## Words
#
# The last five are sentences. Each is nearly right, and each leads to a wrong line when it is taken literally, so we take it literally. The version that follows from the sentence runs beside the one that follows from the derivation, and a measurement decides between them.

# %% [markdown]
# **M12.** A step with $f$, the function that guesses $x_0$. What does $f$ return, and what must the step return?

# %%
ask(12, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(12)

# %% [markdown]
# **M17.** A training step for a network with one number. Start at $\theta=0$; where is $\theta$ after 200 steps?

# %%
ask(17, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(17)

# %% [markdown]
# **M35.** From the network's answer to $x_{t-1}$. The data are $\mathcal N(1,1)$; what is the mean of the samples?

# %%
ask(35, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(35)

# %% [markdown]
# **M36.** From noise to a new $x_0$. The data are the two bells; below which value lie 90 % of the samples?

# %%
ask(36, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(36)

# %% [markdown]
# **M37.** What training minimises, for a *perfect* network. Which loss knows that it is perfect?

# %%
ask(37, ...)

# %% slideshow={"slide_type": "fragment"} tags=["solution"]
reveal(37)

# %% [markdown]
# ## All of them on one page
#
# A sheet to keep. Each row was measured above. The truth comes from elsewhere in each row.

# %%
def row(key):
    mistake, found = KEPT[f"M{key}"], revealed[key]
    cells = [mistake.name, mistake.quantity.replace("|", r"\|"), *map(short, found), f"[{mistake.chapter[:2]}]({mistake.chapter}.ipynb)"]
    return "| " + " | ".join(cells) + " |"


keys = sorted(revealed, key=lambda key: (int(str(key).rstrip("b")), str(key)))
table = "\n".join(["| | number | wrong | right | truth | chapter |", "|---|---|---:|---:|---:|---|", *map(row, keys)])
display({"text/markdown": table, "text/plain": table}, raw=True)
assert {int(str(key).rstrip("b")) for key in keys} == set(MISTAKES) == set(range(1, 39))

# %% [markdown]
# How far apart are wrong and right? The next figure counts the gap of each mistake in units of what `verify` allows the right version. The line stands at one. Every bar that rises above it is a mistake which a test with that tolerance notices. Where the allowance is 0 (a count, a refusal) no bar can be drawn.

# %%
ratios = {k: abs(revealed[k].wrong - revealed[k].truth) / KEPT[f"M{k}"].tolerance for k in keys if KEPT[f"M{k}"].tolerance > 0}
fig, ax = plt.subplots(figsize=(9, 2.6))
ax.bar([f"{k}" for k in ratios], list(ratios.values()), color=RED)
ax.axhline(1, color="black", linewidth=0.7)
ax.set(yscale="log", ylabel="gap / allowance", xlabel="mistake")
ax.tick_params(axis="x", labelsize=7, rotation=90)
plt.show()

# %% [markdown]
# Mind what this figure does *not* say: a high bar is not a bad mistake. It is a mistake with a sharp test. The slip of M15 has one of the highest bars and does the least harm to samples; M7 has one of the lowest, because the weights of samples are a noisy number, and it ruins them.

# %% [markdown]
# ### Play with it
#
# Choose a mistake. The wrong version is drawn dashed, and both sources are printed below the figure. In a viewer without a running kernel, look at the figures above.

# %%
def draw(name):
    mistake = KEPT[name]
    versus(mistake.x, mistake.observe(mistake.wrong), mistake.observe(mistake.right), title=f"{name}: {mistake.title[:70]}",
           xlabel=mistake.labels[0], ylabel=mistake.labels[1], xscale=mistake.xscale)
    for side in ("wrong", "right"):
        print(f"--- {side} ---\n{source(getattr(mistake, side))}\n")


explore(draw, name=choice(list(KEPT), "mistake"))

# %% [markdown]
# ## Your score
#
# Only the guesses that you made before a reveal count. The score also says how often a coin would have done at least as well, since two letters make for much luck.

# %%
def score(made):
    good = {key: letter == wrong_letter(KEPT[f"M{key}"]) for key, letter in made.items()}
    n, hits = len(good), sum(good.values())
    if n == 0:
        return 'no guesses yet: replace the dots in ask(1, ...) by "A" or "B", and run from there'
    luck = sum(math.comb(n, k) for k in range(hits, n + 1)) / 2**n
    again = sorted({KEPT[f"M{key}"].chapter for key, ok in good.items() if not ok})
    return f"{hits} of {n}; a coin does at least as well with probability {luck:.2f}; read again: {', '.join(again) or 'nothing'}"


print("you:", score(guesses))
print("somebody who always says A:", score({key: "A" for key in revealed}).split("; read")[0])

# %% [markdown]
# ## Common mistakes in looking for mistakes
#
# A test can be wrong, too, and then it is worse than none, because it reassures. Two ways to get it wrong, both runnable.
#
# ### The code is compared with itself
#
# Suppose the truth is computed with the same line that is under test. Then the wrong line passes. Here M6, `var * z`, is declared to be right and is measured against itself.

# %%
m6 = KEPT["M6"]
circular = replace(m6, right=m6.wrong, truth=lambda: m6.measure(m6.wrong))
found = gap(circular)
print(f"the wrong line, compared with itself: passes = {abs(found.right - found.truth) <= circular.tolerance}")
try:
    verify(replace(m6, right=m6.wrong))  # the same wrong line against the data's 0.5
except MistakeError as error:
    print(error)
assert found.right == found.truth

# %% [markdown]
# ### The tolerance is wider than the fault
#
# "It agrees to within 5 %." So does a program with a slip in it. A tolerance has to be chosen from the smallest fault that it must notice, not from the error that one happens to see. For M15 the fault at $t=1$ is 0.01. Against a tolerance of 0.02 the slipped table is as good as the right one, and `verify` refuses such a pair of numbers.

# %%
try:
    verify(replace(KEPT["M15"], tolerance=0.02))
except MistakeError as error:
    print(error)

# %% [markdown]
# So a test needs three things: a number that the fault moves, a truth from another source, and a tolerance between the two. And it must have failed at least once. In this package a test exchanges the two versions of each of the mistakes above, in both directions, and demands that `verify` complains every time.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/11_common_mistakes_student.ipynb), [with solutions](exercises/11_common_mistakes_solution.ipynb).

# %% [markdown]
# **11.1 ★** At some $t$ we have $\beta_t=0.02$ and $\bar\alpha_t=0.5$. What is the correlation between $\varepsilon$, which the network is asked for, and the noise that was added in step $t$? (M16)

# %% [markdown] tags=["hint"]
# **Hint 11.1**
#
# Write all the noise in $x_t$ as a sum of two independent parts: this step's, and the rest. The variances are 0.02 and 0.48.

# %% tags=["exercise"]
correlation = ...
check("11.1", correlation)

# %% tags=["solution"]
correlation = (0.02 / (1 - 0.5)) ** 0.5
must_pass("11.1", correlation)

# %% [markdown]
# **11.2 ★** A transposed convolution in two dimensions has kernel $5\times5$, stride 2, and all weights 1. Its input is a picture of ones. Away from the border, what is the largest output value divided by the smallest? (M32)

# %% [markdown] tags=["hint"]
# **Hint 11.2**
#
# Start in one dimension. Which of the kernel's five places reach an even position, and which an odd one?

# %% tags=["exercise"]
largest_over_smallest = ...
check("11.2", largest_over_smallest)

# %% tags=["solution"]
largest_over_smallest = (3 * 3) / (2 * 2)  # three places of the kernel reach one parity, two the other
must_pass("11.2", largest_over_smallest)

# %% [markdown]
# **11.3 ★★** Mend this reverse step. Three things are wrong with it. Keep its choice of variance, $\beta_t$.
#
# ```python
# def reverse_step(x_t, eps_hat, beta, alpha_bar, z, t):
#     mean = x_t - beta * eps_hat
#     var = beta
#     return mean + var * z
# ```
#
# `beta` and `alpha_bar` are $\beta_t$ and $\bar\alpha_t$, and $t$ runs from $T$ down to 1.

# %% [markdown] tags=["hint"]
# **Hint 11.3**
#
# M8, M6 and M25, one in each line.

# %% tags=["exercise"]
def reverse_step(x_t, eps_hat, beta, alpha_bar, z, t):
    return ...


check("11.3", reverse_step)


# %% tags=["solution"]
def reverse_step(x_t, eps_hat, beta, alpha_bar, z, t):
    mean = (x_t - beta / (1 - alpha_bar) ** 0.5 * eps_hat) / (1 - beta) ** 0.5
    return mean + beta**0.5 * z if t > 1 else mean


must_pass("11.3", reverse_step)

# %% [markdown]
# **11.4 ★★** A program takes two forward steps from $x_0=0$ and uses *the same* $\varepsilon\sim\mathcal N(0,1)$ in both (M20). Which variance does its $x_2$ have? Write it as a function of $\beta_1$ and $\beta_2$.

# %% [markdown] tags=["hint"]
# **Hint 11.4**
#
# Write $x_2$ as one number times $\varepsilon$.

# %% tags=["exercise"]
def variance_with_one_eps(beta_1, beta_2):
    return ...


check("11.4", variance_with_one_eps)


# %% tags=["solution"]
def variance_with_one_eps(beta_1, beta_2):
    return (((1 - beta_2) * beta_1) ** 0.5 + beta_2**0.5) ** 2


must_pass("11.4", variance_with_one_eps)

# %% [markdown]
# **11.5 ★★** The data are $-1$ or $+1$, each with probability ½. The sampler stands at $x_t=0$ and steps to $s$ with the posterior's variance; $\bar\alpha_t=0.5$ and $\bar\alpha_s=0.8$. How much of the variance of $x_s$ given $x_t$ is lost, because $\hat x_0$ stands where $x_0$ should? (M5)

# %% [markdown] tags=["hint"]
# **Hint 11.5**
#
# By symmetry $\hat x_0=0$, and $\mathrm{Var}(x_0\mid x_t=0)=1$. Then the weight of $x_0$ in the posterior's mean, squared.

# %% tags=["exercise"]
lost_variance = ...
check("11.5", lost_variance)

# %% tags=["solution"]
weight = 0.8**0.5 * (1 - 0.5 / 0.8) / (1 - 0.5)
lost_variance = weight**2 * 1.0
must_pass("11.5", lost_variance)

# %% [markdown]
# **11.6 ★★★** Write the test that catches M15. `noise_factor(t)` is somebody's $\sqrt{1-\bar\alpha_t}$ for $t=1,\dots,T$, and `betas` is the list $[\beta_1,\dots,\beta_T]$. Return `True` if the table has slipped in either direction, even if only by one position in the table of a long schedule, and `False` if it is right up to rounding.

# %% [markdown] tags=["hint"]
# **Hint 11.6**
#
# Where do neighbouring entries differ most, compared with rounding? At $T$ of a long schedule they hardly differ. Test each $t$, and think about the tolerance.

# %% tags=["exercise"]
def has_slipped(noise_factor, betas):
    return ...


check("11.6", has_slipped)


# %% tags=["solution"]
def has_slipped(noise_factor, betas):
    alpha_bar = 1.0
    for t, beta in enumerate(betas, 1):
        alpha_bar *= 1 - beta
        if abs(noise_factor(t) - (1 - alpha_bar) ** 0.5) > 1e-6:
            return True
    return False


must_pass("11.6", has_slipped)

# %% [markdown]
# ## What comes next
#
# Here each mistake stood alone, and you knew that it was there. In your own program several hide at once. [Find the planted bugs](exercises/find_the_bugs_student.ipynb) is that situation: sixty lines, eight bugs, and symptoms.
#
# You have now seen what can go wrong in each chapter so far, and each fault had a number. The samples themselves have had only simple ones: a spread, a weight, a distance. The next part asks what a good number for a whole model is: how likely it finds data it has never seen, what its continuous-time limit is, and how to compare two sets of pictures without fooling oneself.
