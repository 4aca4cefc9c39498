# %% [markdown]
# # Where should I start? Ten questions
#
# Five to ten minutes. Replace the three dots of each question, a number or one letter in quotes, and run the cell. A wrong answer tells you what to read; leave blank what you do not know. The last cell recommends a way into the course, by [its map](../00_tour.ipynb).

# %%
from ddpm_course.checks import check
from ddpm_course.checks.quiz import recommend

# %% tags=["solution"]
from ddpm_course.checks import must_pass

# %% [markdown]
# ## Probability
#
# **Q.1 ★** A number is drawn from $\mathcal N(0,\,9)$. How far from 0 is it typically? Give the standard deviation.

# %% tags=["exercise"]
answer_1 = ...
check("Q.1", answer_1)

# %% tags=["solution"]
answer_1 = 9**0.5
must_pass("Q.1", answer_1)

# %% [markdown]
# **Q.2 ★** Two independent normal numbers have standard deviations 3 and 4. What is the standard deviation of their sum?

# %% tags=["exercise"]
answer_2 = ...
check("Q.2", answer_2)

# %% tags=["solution"]
answer_2 = (3**2 + 4**2) ** 0.5
must_pass("Q.2", answer_2)

# %% [markdown]
# **Q.3 ★** Somebody throws a die behind a screen and says: "It is an even number." With which probability is it a six?

# %% tags=["exercise"]
answer_3 = ...
check("Q.3", answer_3)

# %% tags=["solution"]
answer_3 = 1 / 3
must_pass("Q.3", answer_3)

# %% [markdown]
# **Q.4 ★** One picture in five is a seven. A detector rings for 90 % of the sevens, and for 10 % of the others. It rings. With which probability is the picture a seven?

# %% tags=["exercise"]
answer_4 = ...
check("Q.4", answer_4)

# %% tags=["solution"]
answer_4 = 0.2 * 0.9 / (0.2 * 0.9 + 0.8 * 0.1)
must_pass("Q.4", answer_4)

# %% [markdown]
# **Q.5 ★★** $x_0$ and $\varepsilon$ are independent, and $\varepsilon\sim\mathcal N(0,1)$. What is $\mathbb E_{\varepsilon}\big[(x_0+\varepsilon)^2\big]$?
#
# - a: $x_0^2+1$
# - b: $\mathbb E[x_0^2]+1$
# - c: $1$
# - d: $x_0^2+\varepsilon^2$

# %% tags=["exercise"]
answer_5 = ...
check("Q.5", answer_5)

# %% tags=["solution"]
answer_5 = "a"
must_pass("Q.5", answer_5)

# %% [markdown]
# **Q.6 ★★** Which is true of the Kullback–Leibler divergence $\mathrm{KL}(q\,\|\,p)$?
#
# - a: It is the same as $\mathrm{KL}(p\,\|\,q)$.
# - b: It may be negative.
# - c: It is 0 only if $q$ and $p$ are equal.
# - d: It is at most 1.

# %% tags=["exercise"]
answer_6 = ...
check("Q.6", answer_6)

# %% tags=["solution"]
answer_6 = "c"
must_pass("Q.6", answer_6)

# %% [markdown]
# ## Gradients and code
#
# **Q.7 ★** The loss is $L(w)=(3w-5)^2$. What is $\frac{dL}{dw}$ at $w=1$?

# %% tags=["exercise"]
answer_7 = ...
check("Q.7", answer_7)

# %% tags=["solution"]
answer_7 = 2 * (3 * 1 - 5) * 3
must_pass("Q.7", answer_7)

# %% [markdown]
# **Q.8 ★★** In PyTorch, `x` has the shape `(8, 1, 8, 8)`, eight pictures of 8×8 pixels, and `a` has the shape `(8,)`. What does `a * x` do?
#
# - a: It multiplies picture $i$ by `a[i]`.
# - b: It multiplies column $j$ of every picture by `a[j]`.
# - c: It raises an error.
# - d: It multiplies each picture by the sum of `a`.

# %% tags=["exercise"]
answer_8 = ...
check("Q.8", answer_8)

# %% tags=["solution"]
answer_8 = "b"
must_pass("Q.8", answer_8)

# %% [markdown]
# ## Diffusion, for those who know some
#
# **Q.9 ★** A pixel is $x_0=-1$, the noise is $\varepsilon=0.5$, and $\bar\alpha_t=0.64$. What is $x_t$?

# %% tags=["exercise"]
answer_9 = ...
check("Q.9", answer_9)

# %% tags=["solution"]
answer_9 = 0.64**0.5 * (-1) + (1 - 0.64) ** 0.5 * 0.5
must_pass("Q.9", answer_9)

# %% [markdown]
# **Q.10 ★★** What does the network of a DDPM answer, when it is shown a noisy picture and its time?
#
# - a: The next, slightly cleaner picture.
# - b: A guess of the noise in the picture.
# - c: The finished picture.
# - d: How much noise to add at the next step.

# %% tags=["exercise"]
answer_10 = ...
check("Q.10", answer_10)

# %% tags=["solution"]
answer_10 = "b"
must_pass("Q.10", answer_10)

# %% [markdown]
# ## Where to start

# %%
given = [answer_1, answer_2, answer_3, answer_4, answer_5, answer_6, answer_7, answer_8, answer_9, answer_10]
print(recommend({f"Q.{k}": answer for k, answer in enumerate(given, start=1)}))
