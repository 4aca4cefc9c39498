# %% [markdown] tags=["exercise"]
# # Find the planted bugs
#
# Below is a whole DDPM on points in the plane: 60 lines, as at the end of [chapter 00](../00_tour.ipynb). It runs without an error message. Its loss goes down. And **eight bugs** are planted in it. Bugs of all eight kinds have been found in published courses; none makes Python complain.
#
# How to work:
#
# 1. Run everything once and look at the symptoms.
# 2. Read the program, line by line. Each of the eight functions marked B.1 to B.8 has exactly one bug.
# 3. Mend one, run its cell, and run the cell with the eight checks. It says which bugs are left, and gives hints if you ask.
# 4. When all eight are mended, train and sample again.
#
# The repaired program is in [find_the_bugs_solution.ipynb](find_the_bugs_solution.ipynb). Chapters: 01 for B.1, 02 for B.2 and B.3, 08 for B.4, 07 for B.5, 09 for B.6 and B.7, 06 for B.8.

# %% [markdown] tags=["solution"]
# # Find the planted bugs: solution
#
# The program of [find_the_bugs_student.ipynb](find_the_bugs_student.ipynb), with its eight bugs mended. Each mended line bears a comment with what stood there before.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from ddpm_course.checks import check
from ddpm_course.checks.bugs import remaining
from ddpm_course.plots import scatter_row, style

style()

# %% [markdown]
# ## The program
#
# First the data (eight heaps on a ring), the schedule, and the noise. There is no bug in the first cell.

# %%
angle = torch.arange(8) * math.pi / 4
centres = 1.4 * torch.stack([angle.cos(), angle.sin()], dim=1)


def real_points(n):  # eight heaps, each with standard deviation 0.1
    return centres[torch.randint(8, (n,))] + 0.1 * torch.randn(n, 2)


T = 200
beta = torch.linspace(5e-4, 0.1, T)  # t counts 1..T and a list from 0, so time t is entry t - 1
alpha = 1 - beta
alpha_bar = alpha.cumprod(0)

# %% tags=["exercise"]
def noise_like(x):  # B.1: the random numbers that everything is made of
    return torch.rand_like(x)


def one_step(x, t, eps):  # B.2: from x_{t-1} to x_t, Ho eq. 2; t is one number
    return (1 - beta[t - 1]).sqrt() * x + beta[t - 1] * eps


def jump(x_0, t, eps):  # B.3: from x_0 to x_t in one jump, Ho eq. 4; t has one number for each point
    a = alpha[t - 1][:, None]
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


# %% tags=["solution"]
def noise_like(x):  # B.1
    return torch.randn_like(x)  # was: rand_like, uniform between 0 and 1


def one_step(x, t, eps):  # B.2
    return (1 - beta[t - 1]).sqrt() * x + beta[t - 1].sqrt() * eps  # was: beta, a variance, in the place of its root


def jump(x_0, t, eps):  # B.3
    a = alpha_bar[t - 1][:, None]  # was: alpha, the law of a single step
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


# %% [markdown]
# The network, which guesses $\varepsilon$ from $x_t$ and $t$, and its training (Algorithm 1).

# %% tags=["exercise"]
def draw_times(n):  # B.4: the times for training, evenly from all that the sampler will ask about
    return torch.randint(1, T, (n,))


class Net(nn.Module):  # B.5: (x_t, t) -> a guess of eps
    def __init__(self, width=128):
        super().__init__()
        middle = [nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(nn.Linear(2 + 2 * (8 + 6), width), nn.SiLU(), *middle, nn.Linear(width, 2))

    def forward(self, x_t, t):
        of_t = (t // T)[:, None] * math.pi * 2.0 ** torch.arange(-1, 7)  # the clock: 8 waves
        of_x = torch.cat([x_t * math.pi / 2, x_t * math.pi, x_t * math.pi * 2], dim=1)
        waves = torch.cat([of_t, of_x], dim=1)
        return self.layers(torch.cat([x_t, waves.sin(), waves.cos()], dim=1))


# %% tags=["solution"]
def draw_times(n):  # B.4
    return torch.randint(1, T + 1, (n,))  # was: T; randint leaves its upper end out


class Net(nn.Module):  # B.5
    def __init__(self, width=128):
        super().__init__()
        middle = [nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(nn.Linear(2 + 2 * (8 + 6), width), nn.SiLU(), *middle, nn.Linear(width, 2))

    def forward(self, x_t, t):
        of_t = (t / T)[:, None] * math.pi * 2.0 ** torch.arange(-1, 7)  # was: t // T, which is 0 until t = T
        of_x = torch.cat([x_t * math.pi / 2, x_t * math.pi, x_t * math.pi * 2], dim=1)
        waves = torch.cat([of_t, of_x], dim=1)
        return self.layers(torch.cat([x_t, waves.sin(), waves.cos()], dim=1))


# %%
def train(num_steps=2000):  # no bug in here
    torch.manual_seed(0)
    net, losses = Net(), []
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_steps)
    for _ in range(num_steps):
        x_0, t = real_points(256), draw_times(256)
        eps = noise_like(x_0)
        loss = (net(jump(x_0, t, eps), t) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return net, losses


# %% [markdown]
# The sampler (Algorithm 2), and a yardstick: the exact score of the data at time $t$, with which the network's own can be compared. The density of $x_t$ is again eight heaps, so its score is a weighted mean of the pulls of the heaps.

# %% tags=["exercise"]
def step(x, t, eps_hat, z):  # B.6: from x_t to x_{t-1}, Ho Algorithm 2, with the variance beta
    a, b, bar = alpha[t - 1], beta[t - 1], alpha_bar[t - 1]
    mean = (x - b / (1 - bar).sqrt() * eps_hat) / a.sqrt()
    return mean + b.sqrt() * z


@torch.no_grad()
def sample(net, n):  # B.7: from pure noise to x_0
    x = noise_like(torch.zeros(n, 2))
    for t in range(T, 1, -1):
        x = step(x, t, net(x, torch.full((n,), t)), noise_like(x))
    return x


def true_score(x_t, t):  # B.8: the slope of log q(x_t), exactly; t has one number for each point
    means, var = centres, 0.1**2
    pull = means - x_t[:, None]  # (n, 8, 2)
    weight = torch.softmax(-pull.square().sum(2) / (2 * var), dim=1)
    return (weight[:, :, None] * pull).sum(1) / var


# %% tags=["solution"]
def step(x, t, eps_hat, z):  # B.6
    a, b, bar = alpha[t - 1], beta[t - 1], alpha_bar[t - 1]
    mean = (x - b / (1 - bar).sqrt() * eps_hat) / a.sqrt()
    return mean + b.sqrt() * z if t > 1 else mean  # was: noise at the last step, too


@torch.no_grad()
def sample(net, n):  # B.7
    x = noise_like(torch.zeros(n, 2))
    for t in range(T, 0, -1):  # was: range(T, 1, -1), which stops at x_1
        x = step(x, t, net(x, torch.full((n,), t)), noise_like(x))
    return x


def true_score(x_t, t):  # B.8
    share = alpha_bar[t - 1][:, None]
    means, var = share.sqrt()[:, None] * centres, share * 0.1**2 + 1 - share  # was: the clean heaps at every t
    pull = means - x_t[:, None]  # (n, 8, 2)
    weight = torch.softmax(-pull.square().sum(2) / (2 * var), dim=1)
    return (weight[:, :, None] * pull).sum(1) / var


# %% [markdown] tags=["exercise"]
# ## The symptoms
#
# The loss falls. What do the samples look like? (An empty panel means that every point lies outside the frame.)

# %% [markdown] tags=["solution"]
# ## The same tests, after the repair

# %%
net, losses = train()
print("the loss fell to less than half of its first value:", sum(losses[-100:]) / 100 < losses[0] / 2)

# %%
torch.manual_seed(1)
points, real = sample(net, 1000), real_points(1000)
scatter_row({"real": real, "sampled": points, "sampled, scaled to fit": points / points.abs().max() * 2})
plt.show()

# %%
walk, start = torch.zeros(20_000, 2), torch.zeros(20_000, 2)
for t in range(1, 101):
    walk = one_step(walk, t, noise_like(walk))
jumped = jump(start, torch.full((20_000,), 100), noise_like(start))
distance = torch.cdist(points, centres).min(1).values
t = torch.randint(20, T + 1, (5000,))
x_t = jump(real_points(5000), t, noise_like(torch.zeros(5000, 2)))
own_score = -net(x_t, t).detach() / (1 - alpha_bar[t - 1]).sqrt()[:, None]
error = float((own_score - true_score(x_t, t)).square().mean() / true_score(x_t, t).square().mean())

# %%
good = {
    "at least 90 % of the samples lie within 0.4 of a heap's centre": float((distance < 0.4).float().mean()) > 0.9,
    "the samples have mean 0": float(points.mean(0).abs().max()) < 0.15,
    "100 single steps end with the variance of a jump": abs(float(walk.var() / jumped.var()) - 1) < 0.05,
    "that variance is 1 - alpha_bar": abs(float(jumped.var() / (1 - alpha_bar[99])) - 1) < 0.05,
    "the network's score is within 5 % of the true one (squared)": error < 0.05,
}
for text, value in good.items():
    print(f"{value!s:5s}  {text}")

# %% tags=["solution"]
assert all(good.values())

# %% [markdown] tags=["exercise"]
# Everything is wrong at once, and the picture does not say why. That is the normal case: a bad sample tells you *that* something is wrong, and almost never *what*. So the checks look at one function at a time, with numbers.
#
# ## The checks
#
# Mend a function above, run its cell, then this one. It says which bugs are left.

# %% [markdown] tags=["solution"]
# ## The checks

# %%
answers = {"B.1": noise_like, "B.2": one_step, "B.3": jump, "B.4": draw_times, "B.5": Net, "B.6": step, "B.7": sample, "B.8": true_score}
print(remaining(answers))

# %% [markdown] tags=["exercise"]
# Stuck? The collapsed cells below say where to look. And this cell says what is wrong with one function *as it is now*, which is more than a hint. Put its number in, in quotes.

# %% tags=["exercise"]
ask = None  # for example "B.1"
if ask:
    check(ask, answers[ask])

# %% tags=["solution"]
for number, answer in answers.items():
    check(number, answer)

# %% [markdown] tags=["hint"]
# **Hint B.1**
#
# One letter is missing. What is the mean of these numbers?

# %% [markdown] tags=["hint"]
# **Hint B.2**
#
# Put variance 1 in, and compute by hand which variance comes out.

# %% [markdown] tags=["hint"]
# **Hint B.3**
#
# Two lists look nearly alike. Which of them knows about all the steps before $t$?

# %% [markdown] tags=["hint"]
# **Hint B.4**
#
# Read the documentation of `torch.randint`: is the upper end drawn?

# %% [markdown] tags=["hint"]
# **Hint B.5**
#
# Print the clock's numbers for $t=1$, $50$ and $150$.

# %% [markdown] tags=["hint"]
# **Hint B.6**
#
# After which step does nobody come to clean up?

# %% [markdown] tags=["hint"]
# **Hint B.7**
#
# What is the last value of `t` in the loop, and at which time is `x` afterwards?

# %% [markdown] tags=["hint"]
# **Hint B.8**
#
# Does the answer depend on `t` at all? Where is a heap, and how wide is it, at time $t$?

# %% [markdown] tags=["exercise"]
# ## When all are mended
#
# Kernel → Restart and run all cells. The picture should show eight heaps, and all five lines above should say True.
#
# Then put *one* bug back at a time, train, and look at the samples. How many of the eight can you see?

# %% [markdown] tags=["solution"]
# How many of the eight can one *see*, if only one is there? Two: B.1 and B.5 ruin the samples. B.4, B.6 and B.7 change them by less than the eye can tell. So does B.3, which is odder: the network was trained for the wrong noise levels, and on these simple data the heaps come out all the same. B.2 and B.8 cannot show at all, since sampling does not call them. That is why coefficients are tested, and not pictures.
