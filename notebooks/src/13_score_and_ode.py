# %% [markdown]
# # 13 · Score and ODE: the same model in continuous time
#
# **The question.** Our chain has a thousand steps because somebody chose a thousand. What remains if the steps become ever smaller? And once we have that limit, can the tools that mathematics has for smooth motion take us from noise to data in ten steps instead of a thousand?
#
# **After this chapter you can**
#
# - say what the network knows in one word: the *score*, a field of arrows;
# - write the chain as a stochastic differential equation, and run it backwards, with noise and without;
# - show that DDIM is Euler's method, and in which variable;
# - derive two better methods, Heun and DPM-Solver++(2M), and measure their order of convergence;
# - say when the better methods are *not* better.
#
# *Needs:* chapters 02, 06, 09 and 10. *Time:* about four hours with the exercises.

# %%
import math

import matplotlib.pyplot as plt
import sympy as sp
import torch

from ddpm_course import ExactGaussian, FiniteData, GaussianMixture, as_eps_model, clip_x_0, cosine_schedule, ddim_invert, ddim_sample
from ddpm_course import ddim_step, ddpm_sample, dpm_solver_sample, eps_to_score, eps_to_v, eps_to_x_0, heun_sample
from ddpm_course import linear_schedule, load_model, quadratic_schedule, rescale_zero_terminal_snr, shipped, time_grid
from ddpm_course import trajectory, v_to_x_0
from ddpm_course.checks import check, must_pass
from ddpm_course.plots import BLUE, GREY, ORANGE, curves, scatter, show_rows, style
from ddpm_course.proofs import Expect, agrees, bar_s, bar_t, derive, eps, eps_hat, equation, limit, unit, v, x_0, x_t
from ddpm_course.sampling import ddim_stepper, ddpm_stepper, last
from ddpm_course.solvers import dpm_solver_stepper, heun_stepper, sigma_grid, sigma_of, slerp

style()
schedule = linear_schedule(T=1000)
seeded = lambda k: torch.Generator().manual_seed(k)

# %% [markdown]
# ## The score
#
# Let $q$ be the density of the noisy data $x_t$. Its **score** is the slope of its logarithm:
#
# $$ s(x_t,t)=\nabla_{x_t}\log q(x_t) \tag{13.1, definition} $$
#
# An arrow at each point, which points to where noisy data are denser. Chapter 06 found that our conditional mean of the noise is this arrow, up to a factor. Here is the statement again, for a pixel that is $a$ with probability $p$ and $c$ otherwise. The density of $x_t$ is then a sum of two Gaussians. A Gaussian's own slope is known, $N'=-\frac{x_t-\sqrt{\bar\alpha_t}x_0}{1-\bar\alpha_t}N$. The right side is $-1/\sqrt{1-\bar\alpha_t}$ times the mean of the two possible noises, each weighted by Bayes' rule.

# %% tags=["proof"]
p = unit("p")
a, c = sp.symbols("a c", real=True)
bell_a, bell_c = sp.Function("N_a", positive=True)(x_t), sp.Function("N_c", positive=True)(x_t)  # the density of x_t if x_0 is a, or c
noise_if = lambda value: (x_t - sp.sqrt(bar_t) * value) / sp.sqrt(1 - bar_t)
slopes = {sp.Derivative(bell, x_t): -noise_if(value) / sp.sqrt(1 - bar_t) * bell for bell, value in ((bell_a, a), (bell_c, c))}
density = p * bell_a + (1 - p) * bell_c
mean_noise = (p * bell_a * noise_if(a) + (1 - p) * bell_c * noise_if(c)) / density
equation("13.2", sp.Derivative(sp.log(density), x_t), -mean_noise / sp.sqrt(1 - bar_t), given=slopes, source="SDE section 3.3")

# %% [markdown]
# More than two values add more terms, and nothing else changes. The proof says nothing about a *trained* network: that approximates the conditional mean, and so approximates the score.
#
# Solve for $\hat x_0$. This is Tweedie's formula. The best guess of the clean picture is the noisy one, moved along the score, then stretched.

# %% tags=["proof"]
score = sp.Symbol("s", real=True)
derive("13.3", (x_t + (1 - bar_t) * score) / sp.sqrt(bar_t),
       ((x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t), "the score is the guessed noise over minus its standard deviation"),
       given={score: -eps_hat / sp.sqrt(1 - bar_t)})
pixel, guess = (torch.tensor([[number]], dtype=torch.float64) for number in (0.7, -0.4))
at_300 = {bar_t: schedule.at(300), x_t: 0.7, score: float(eps_to_score(schedule, pixel, 300, guess))}
agrees((x_t + (1 - bar_t) * score) / sp.sqrt(bar_t), at_300, eps_to_x_0(schedule, pixel, 300, guess))

# %% [markdown]
# And with numbers, in two dimensions. We compare automatic differentiation of a log density with the oracle's noise. This mixture with its two soft clouds will be our laboratory for the whole chapter.

# %%
smooth = GaussianMixture(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.3], [0.8, -0.2]]), torch.tensor([0.3, 0.35]))
smooth_model = smooth.eps_model(schedule)
for t in (1, 100, 500, 1000):
    point = torch.randn(50, 2, generator=seeded(t), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(smooth.diffused(schedule.at(t)).log_prob(point).sum(), point)
    with torch.no_grad():
        noise = smooth_model(point, torch.full((50,), t))
        torch.testing.assert_close(slope, eps_to_score(schedule, point, t, noise), rtol=1e-9, atol=1e-9)
print("score = -eps / sqrt(1 - alpha_bar) at 4 times: True")

# %% [markdown]
# ## From the chain to a differential equation
#
# One forward step is $x_t=\sqrt{1-\beta_t}\,x_{t-1}+\sqrt{\beta_t}\,\varepsilon$. Squeeze all steps into one unit of time: step $t$ happens at $\tau=t/T$ and takes $\Delta=1/T$. With more steps each must do less, so write $\beta_t=b(\tau)\,\Delta$ with a fixed curve $b$. What does one step do, for small $\Delta$? The root is $\sqrt{1-b\Delta}=1-\tfrac12 b\Delta+\dots$, so the picture shrinks by $\tfrac12b\,\Delta$ of its size. And noise of variance $b\,\Delta$ is added. In the limit this is called the variance-preserving SDE (SDE section 3.4):
#
# $$ dx=-\tfrac12\,b(\tau)\,x\,d\tau+\sqrt{b(\tau)}\,dw \tag{13.4, definition} $$
#
# Read $dw$ as "noise of variance $d\tau$, fresh in each instant". For us this formula is shorthand for the limit of the chain, and nothing more mysterious. Is there a limit? The law of $x_t$ given $x_0$ depends on $\bar\alpha$ alone. With $b(\tau)=b_0+(b_1-b_0)\,\tau$, from $b_0=0.1$ to $b_1=20$, the product of the $1-\beta$ must tend to the exponential of minus the integral of $b$. We measure how fast, at $\tau=0.3$.

# %% tags=["proof"]
b_0, b_1, now = sp.symbols(r"b_0 b_1 \tau", positive=True)
continuous = sp.exp(-(b_0 * now + (b_1 - b_0) * now**2 / 2))
sizes = [100, 200, 400, 800, 1600]
products = [linear_schedule(T, 0.1 / T, 20 / T).at(round(0.3 * T)) for T in sizes]
limit("13.5", sp.Symbol(r"\prod_{k\le\tau T}\left(1-\beta_k\right)"), continuous, sizes=sizes, measured=products, order=1,
      values={b_0: 0.1, b_1: 20.0, now: 0.3}, source="SDE section 3.4")

# %% [markdown]
# Ten times as many steps, a tenth of the difference. At $T=1000$ our linear schedule is this curve: $\beta_1T=0.1$, $\beta_TT=20$. So the chain was a good picture of the continuous process all along.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3))
u = torch.linspace(0, 1, 200)
left.plot(u, torch.exp(-(0.1 * u + 19.9 * u**2 / 2)), color="black", label="continuous")
for T in (25, 100):
    left.step(torch.arange(T + 1) / T, linear_schedule(T, 0.1 / T, 20 / T).alpha_bar, where="post", linewidth=1, label=f"T = {T}")
left.set(title=r"$\bar\alpha$", xlabel=r"$\tau$", xlim=(0, 0.6))
left.legend()
for T, color in ((25, BLUE), (1000, ORANGE)):
    path, chain, rng = [torch.ones(1)], linear_schedule(T, 0.1 / T, 20 / T), seeded(5)
    for beta in chain.beta[1:]:
        path.append((1 - beta) ** 0.5 * path[-1] + beta**0.5 * torch.randn(1, generator=rng))
    right.plot(torch.arange(T + 1) / T, torch.cat(path), color=color, linewidth=0.9, label=f"T = {T}")
right.set(title="one pixel's path", xlabel=r"$\tau$")
right.legend()
plt.show()

# %% [markdown]
# ## How a density flows
#
# A single path is jagged. The *density* $q(x,\tau)$ of many paths is smooth, and obeys an equation of its own, named after Fokker and Planck. Here it is for one pixel, and below it where it comes from.

# %% tags=["proof"]
b, m, start_at = sp.Symbol("b", positive=True), unit("m"), sp.Symbol("a", real=True)
x, tau = sp.Symbol("x", real=True), sp.Symbol(r"\tau", positive=True)
q = sp.Function("q", positive=True)(x, tau)
signal = sp.exp(-b * tau / 2)
kernel = sp.exp(-((x - signal * start_at) ** 2) / (2 * (1 - signal**2))) / sp.sqrt(1 - signal**2)
equation("13.6", sp.Derivative(q, tau), b / 2 * sp.Derivative(q, x, 2) - sp.Derivative(-b * x * q / 2, x), given={q: kernel},
         source="SDE section 4.3")

# %% [markdown]
# SymPy has put in the Gaussian of chapter 02: all paths start at one value $a$, with $b$ constant, so that $\bar\alpha=e^{-b\tau}$. That is enough. Any other density is an average of such Gaussians over the starts, and (13.6) is linear in $q$. And if $b$ varies, run the clock faster where $b$ is larger. But why should one think of it? Take any smooth function $\varphi$ and ask how $\mathbb E[\varphi(x)]$ changes in a short time $\Delta$.
#
# 1. *Taylor, one step of the chain.* $x$ moves by $\delta=-\tfrac12bx\Delta+\sqrt{b\Delta}\,\varepsilon$, so $\varphi$ changes by $\varphi'\delta+\tfrac12\varphi''\delta^2+\dots$
# 2. *Average over the fresh $\varepsilon$.* $\mathbb E[\delta]=-\tfrac12bx\Delta$ and $\mathbb E[\delta^2]=b\Delta+\dots$ All other terms are smaller than $\Delta$. So $\frac{d}{d\tau}\mathbb E[\varphi]=\mathbb E[-\tfrac12 b\,x\,\varphi'+\tfrac12 b\,\varphi'']$.
# 3. *Write the averages as integrals* $\int\dots q\,dx$, and integrate by parts, once for $\varphi'$ and twice for $\varphi''$, so that all derivatives stand on $q$. (Nothing comes from the far ends, where $q$ is 0.)
# 4. *True for every $\varphi$*, so what multiplies $\varphi$ on both sides must agree. That is (13.6).
#
# Line 2 is checked below for $\varphi=x^4$ with $x=m\,x_0+\sqrt{1-m^2}\,\varepsilon$, where $m=\sqrt{\bar\alpha}$ obeys $m'=-\tfrac12bm$. The left side is the rate of change of the fourth moment, by the chain rule.

# %% tags=["proof"]
position = m * x_0 + sp.sqrt(1 - m**2) * eps
fourth = Expect(position**4, eps)
rate = -b * m / 2 * sp.diff(sp.expand(fourth.doit()), m)
equation("13.7", rate, Expect(-b * position / 2 * 4 * position**3 + b / 2 * 12 * position**2, eps))

# %% [markdown]
# ### Three processes with the same densities
#
# Now the step that this chapter hangs on. The second derivative in (13.6) is the derivative of $\partial q/\partial x$, and $\partial q/\partial x=q\cdot s$, since the score is $\partial\log q/\partial x=(\partial q/\partial x)/q$. So **diffusion can be written as transport**, with the velocity $-\tfrac12 b\,s$. SymPy proves it for *any* positive density $q$:

# %% tags=["proof"]
arrow = sp.Derivative(q, x) / q  # the score
forward = b / 2 * sp.Derivative(q, x, 2) - sp.Derivative(-b * x * q / 2, x)
equation("13.8", forward, -sp.Derivative(q * (-b * x / 2 - b / 2 * arrow), x), source="SDE section 4.3")

# %% [markdown]
# The right side has the form $-\partial(q\cdot\text{velocity})/\partial x$. That is the *continuity equation*, of particles which follow a velocity field without any dice: what flows into a small interval minus what flows out is what it gains. So particles that move by
#
# $$ \frac{dx}{d\tau}=-\tfrac12\,b\,x-\tfrac12\,b\,s(x,\tau) \tag{13.9, definition} $$
#
# have the same density at every time as the noisy particles of (13.4), if they start with the same. This is the **probability-flow ODE**. A path of it can be walked in both directions.
#
# And the noisy process, can it be walked backwards? Let time run down: its density changes by *minus* (13.6). We look for a process that does this with noise of strength $\lambda\sqrt b$, any $\lambda\ge0$. Which drift does it need? Let $u=1-\tau$ be backward time; it grows as $\tau$ falls. The drift below, for backward time, does it, again for any $q$:

# %% tags=["proof"]
lam = sp.Symbol(r"\lambda", positive=True)
drift = b * x / 2 + (1 + lam**2) * b / 2 * arrow
equation("13.10", -forward, lam**2 * b / 2 * sp.Derivative(q, x, 2) - sp.Derivative(drift * q, x), source="SDE section 3.3")

# %% [markdown]
# So backwards there is a whole family: $dx=\big[\tfrac12bx+\tfrac{1+\lambda^2}2\,b\,s\big]du+\lambda\sqrt b\,dw$. At $\lambda=1$ the score has the factor 1: that is the *reverse SDE*. At $\lambda=0$ it has the factor ½ and there is no noise: the ODE. **The factor of the score and the noise belong together.** Nothing is left out here except that $q$ must be positive and smooth, which holds as soon as a little noise is in it; in many dimensions read divergence and gradient for the derivatives.
#
# Do we know these two already? Take the mean of the DDPM step (Ho eq. 11) and let $\beta$ go to 0. Its first-order change is the drift of the reverse SDE:

# %% tags=["proof"]
beta = unit(r"\beta")
ddpm_mean = (x_t - beta / sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(1 - beta)
equation("13.11", sp.Subs(sp.Derivative(ddpm_mean, beta), beta, 0), x_t / 2 - eps_hat / sp.sqrt(1 - bar_t),
         source="Ho eq. 11, to first order")

# %% [markdown]
# That is $\tfrac12x+s$ times $\beta$: $\lambda=1$, and the noise of the step has variance about $\beta$. **Algorithm 2 is Euler's method for the reverse SDE**, up to terms of order $\beta^2$. DDIM will turn out to be the ODE.
#
# A check on (13.9) that we can follow by hand: for data $\mathcal N(0,\kappa)$ the variance at signal $\bar\alpha=m^2$ is $V=m^2\kappa+1-m^2$ and the score is $-x/V$. A particle that starts at $x_0$ should simply keep its rank, $x=x_0\sqrt{V/\kappa}$. Does this path have the right velocity?

# %% tags=["proof"]
kappa = sp.Symbol(r"\kappa", positive=True)
V = m**2 * kappa + 1 - m**2
path = x_0 * sp.sqrt(V / kappa)
equation("13.12", -b * m / 2 * sp.diff(path, m), -b / 2 * path + b / 2 * path / V)

# %% [markdown]
# > **An image to keep.** A crowd leaves a stadium. Filmed from above as a grey cloud, it spreads. From the film one cannot tell whether people wandered at random or walked straight to their cars. The SDE and the ODE are two crowds with the same film. *Where it breaks:* nobody in the ODE crowd may cross another's way in space and time, and each of them must know the density of the whole crowd.
#
# Here are five walkers of each crowd, on their way back from noise (grey dots: start, the same in both pictures; black: end). Both follow the same score.

# %%
start = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
walks = {"reverse SDE (DDPM)": ddpm_stepper(smooth_model, schedule, "beta", seeded(2)),
         "probability-flow ODE (DDIM)": ddim_stepper(smooth_model, schedule)}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.8))
for ax, (name, step) in zip(axes, walks.items(), strict=True):
    walk = torch.stack([x for _, x, _ in trajectory(step, start, time_grid(1000, 200))])
    scatter(smooth.sample(1200, seeded(3)), ax, name, "#cccccc")
    ax.plot(walk[..., 0], walk[..., 1], linewidth=0.9)
    ax.scatter(*walk[0].T, color=GREY, s=10, zorder=3)
    ax.scatter(*walk[-1].T, color="black", s=12, zorder=3)
plt.show()

# %% [markdown]
# ## DDIM is Euler's method
#
# The ODE (13.9) mixes two motions: the picture shrinks, and it moves against the score (along it, on the way back). Undo the shrinking. Let $y=x/\sqrt{\bar\alpha}$ be the picture that was never shrunk, and $\sigma=\sqrt{(1-\bar\alpha)/\bar\alpha}$ the noise in it (EDM section 2). In time, $m=\sqrt{\bar\alpha}$ obeys $m'=-\tfrac12bm$, and $x'$ is (13.9) with $s=-\hat\varepsilon/\sqrt{1-m^2}$. How does $y$ change *per change of $\sigma$*? The rate of $y$ is $x'/m-x\,m'/m^2$: in it the two terms with $x$ cancel. What is left is $\hat\varepsilon$ times a factor, and the rate of $\sigma$ is the same factor.

# %% tags=["proof"]
velocity = -b * x / 2 + b / 2 * eps_hat / sp.sqrt(1 - m**2)
m_rate = -b * m / 2
y_rate = velocity / m - x / m**2 * m_rate
sigma_rate = sp.diff(sp.sqrt(1 - m**2) / m, m) * m_rate
equation("13.13", y_rate / sigma_rate, eps_hat, source="EDM section 2")

# %% [markdown]
# So in these coordinates the whole sampler is $\dfrac{dy}{d\sigma}=\hat\varepsilon$: **the network's answer is the slope**. Now freeze the slope for one long step from $\sigma_t$ to $\sigma_s$. That is Euler's method, the simplest there is. Multiply by $\sqrt{\bar\alpha_s}$ and compare with DDIM's step at $\eta=0$ (chapter 10). In print $\bar\alpha_{t-1}$ stands for $\bar\alpha_s$, of any earlier time:

# %% tags=["proof"]
level = lambda bar: sp.sqrt(1 - bar) / sp.sqrt(bar)
euler = sp.sqrt(bar_s) * (x_t / sp.sqrt(bar_t) + (level(bar_s) - level(bar_t)) * eps_hat)
ddim = sp.sqrt(bar_s) * (x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t) + sp.sqrt(1 - bar_s) * eps_hat
equation("13.14", euler, ddim, source="DDIM eq. 12 at eta = 0")
values = {bar_t: schedule.at(700), bar_s: schedule.at(300), x_t: 0.7, eps_hat: -0.4}
agrees(euler, values, ddim_step(schedule, pixel, guess, 700, 300))

# %% [markdown]
# An identity, for any pair of times and any $\hat\varepsilon$. It does not say that the step is accurate. That is a question about how much the slope changes on the way.
#
# ## Two better steps
#
# ### Heun: look at the other end
#
# Euler uses the slope at the start. Walk there, ask for the slope at the end too, and go again with the mean of both. Why is this better? Near the start the slope field is $F(y,\sigma)=f+g\,(y-y_0)+r\,(\sigma-\sigma_0)$ plus smaller terms. For this field the exact path is known. It is expanded in the step $h$ below (on the right), and its first three terms are *Heun's step* (on the left), exactly:

# %% tags=["proof"]
f, g, r, h = sp.symbols("f g r h", positive=True)
exact = ((f + r / g) * (sp.exp(g * h) - 1) - r * h) / g  # solves y' = f + g y + r h, y(0) = 0
assert sp.simplify(sp.diff(exact, h) - (f + g * exact + r * h)) == 0 and exact.subs(h, 0) == 0
taylor = sum(h**k / sp.factorial(k) * sp.diff(exact, h, k).subs(h, 0) for k in (1, 2))
heun = h / 2 * (f + (f + g * (h * f) + r * h))
equation("13.15", heun, sp.expand(sp.simplify(taylor)), source="EDM Algorithm 1, without churn")

# %% [markdown]
# What is left out is of size $h^3$ a step. There are about $1/h$ steps, so the path is off by about $h^2$: **second order**. Euler stops at $hf$, loses $h^2$ a step, and is of first order. The price: two calls of the network a step.
#
# ### DPM-Solver++(2M): remember
#
# The second idea: of the motion, solve exactly what can be solved exactly. In $\hat\varepsilon=(y-\hat x_0)/\sigma$ the noise contains $y$ itself. What the network really contributes is $\hat x_0$, and that hardly changes late on the path. Write $\ell=-\log\sigma$ (DPM++ calls it $\lambda$; it is the log of the signal-to-noise ratio, halved). The ODE becomes $\frac{d}{d\ell}(y/\sigma)=e^{\ell}\,\hat x_0$: no $y$ on the right. Check it: with $\sigma=e^{-\ell}$, $dy/d\ell=-\sigma\hat\varepsilon=-(y-\hat x_0)$.

# %% tags=["proof"]
ell, guess_now, y_now = sp.Symbol(r"\ell", real=True), sp.Symbol(r"\hat{x}_0", real=True), sp.Symbol("y", real=True)
y_of = sp.Function("y")(ell)
moved = sp.diff(y_of * sp.exp(ell), ell).subs(sp.Derivative(y_of, ell), -(y_of - guess_now)).subs(y_of, y_now)
equation("13.16", moved, guess_now * sp.exp(ell), source="DPM++ section 4")

# %% [markdown]
# Integrate over a step of length $h$, with $\ell$ now counted from its start, and multiply by the last $\sigma$. If $\hat x_0$ is **constant** on the step, the integral is $\hat x_0$ times a difference of exponentials, and nothing is approximated. If it moves on a straight line with slope $d$, there is one term more:

# %% tags=["proof"]
d = sp.Symbol("d", real=True)
step_integral = sp.Integral((guess_now + d * ell) * sp.exp(ell - h), (ell, 0, h))
derive("13.17", step_integral,
       (guess_now * (1 - sp.exp(-h)) + d * (h - 1 + sp.exp(-h)), "the exponential integrates in closed form"), source="DPM++ section 4")

# %% [markdown]
# The step is $y_s=e^{-h}y_t+$ (13.17). With $d=0$ we have met it: put $e^{-h}=\sigma_s/\sigma_t$, and it is DDIM again.

# %% tags=["proof"]
shrink = level(bar_s) / level(bar_t)
x_0_of = (x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t)
equation("13.18", sp.sqrt(bar_s) * (shrink * x_t / sp.sqrt(bar_t) + (1 - shrink) * x_0_of), ddim, source="DPM++ section 4")

# %% [markdown]
# That explains why DDIM does so well with few steps: it is exact whenever $\hat x_0$ does not change. Data of a single point are the extreme case; one step suffices.
#
# To be better, we need the slope $d$. **2M** takes it from memory: the last two guesses and their distance in $\ell$ give $d\approx(\hat x_0-\hat x_0^{\text{before}})/h_{\text{before}}$. No second call. And it puts $\tfrac h2(1-e^{-h})$ for $h-1+e^{-h}$; this is the value of the straight line in the middle of the step. How much is lost? The difference, divided by $h^3$:

# %% tags=["proof"]
n = sp.Symbol("n", positive=True)
lost = (1 - sp.exp(-h)) * h / 2 - (h - 1 + sp.exp(-h))
limit("13.19", n**3 * lost.subs(h, 1 / n), -sp.Rational(1, 12), sizes=[10.0, 20.0, 40.0, 80.0], order=1, source="DPM++ section 4")

# %% [markdown]
# (With $n=1/h$.) A third power of $h$ a step, as for Heun: second order again, at one call a step instead of two. (The slope from memory is off by order $h$ as well, and is multiplied by about $h^2/2$: again $h^3$.) There is no memory at the first step, and at the last one $\ell$ becomes infinite; both are done with $d=0$, as DDIM steps.
#
# ### By hand
#
# Both steps in the coordinates $(y,\sigma)$, a few lines each, against the package, on an uneven grid.

# %%
ask = lambda y, t: smooth_model(y * schedule.at(t) ** 0.5, torch.full((len(y),), t))
grid, starts = [1000, 800, 650, 300, 100, 0], torch.randn(40, 2, generator=seeded(4), dtype=torch.float64)
y = starts / schedule.at(1000) ** 0.5
for t, s in zip(grid, grid[1:], strict=False):
    now, then, slope_t = sigma_of(schedule, t), sigma_of(schedule, s), ask(y, t)
    euler_end = y + (then - now) * slope_t
    y = euler_end if s == 0 else y + (then - now) * (slope_t + ask(euler_end, s)) / 2
torch.testing.assert_close(y, heun_sample(smooth_model, schedule, x_T=starts, grid=torch.tensor(grid)), rtol=0, atol=1e-9)

y, before, length_before = starts / schedule.at(1000) ** 0.5, None, 0.0
for t, s in zip(grid, grid[1:], strict=False):
    now, then = sigma_of(schedule, t), sigma_of(schedule, s)
    clean, length = y - now * ask(y, t), math.log(now / then) if s else 0.0
    ahead = clean + length / (2 * length_before) * (clean - before) if before is not None and s else clean
    y, before, length_before = then / now * y + (1 - then / now) * ahead, clean, length
torch.testing.assert_close(y, dpm_solver_sample(smooth_model, schedule, x_T=starts, grid=torch.tensor(grid)), rtol=0, atol=1e-9)
print("Heun and 2M by hand = package: True")

# %% [markdown]
# ## The order, measured
#
# A method has order $p$ if its error falls like $1/S^p$ with the number of steps. Orders are promises about small steps on smooth slopes. We test the promise on the soft mixture, from $T$ down to $t=100$, with nodes evenly spaced in $t$, against a classical Runge–Kutta walk with very fine steps in $\log\sigma$. That reference asks for noise levels between the integers, so the mixture's formula is written once more, for any $\sigma$.

# %%
def slope(data, y, sigma):
    bar = 1 / (1 + sigma**2)
    x, weights = y * bar**0.5, data.responsibilities(y * bar**0.5, bar) / (bar * data.stds**2 + 1 - bar)
    return (1 - bar) ** 0.5 * (weights.sum(1, keepdim=True) * x - bar**0.5 * weights @ data.means)


def fine(data, x, end, steps=600):
    y, logs = x / schedule.at(1000) ** 0.5, torch.linspace(math.log(sigma_of(schedule, 1000)), math.log(end), steps + 1).tolist()
    go = lambda y, log: math.exp(log) * slope(data, y, math.exp(log))
    for log, h in ((log, after - log) for log, after in zip(logs, logs[1:], strict=False)):
        k_1 = go(y, log)
        k_2 = go(y + h / 2 * k_1, log + h / 2)
        k_3 = go(y + h / 2 * k_2, log + h / 2)
        y = y + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + go(y + h * k_3, log + h))
    return y / (1 + end**2) ** 0.5


METHODS = {"Euler (DDIM)": ddim_stepper, "Heun": heun_stepper, "2M": dpm_solver_stepper}
COUNTS = [8, 10, 20, 40, 80, 160]


def errors(data, end, truth):
    rows, nodes = {}, lambda S: [round(1000 - (1000 - end) * k / S) for k in range(S + 1)]
    for name, stepper in METHODS.items():
        ends = [last(trajectory(stepper(data.eps_model(schedule), schedule), starts, nodes(S))) for S in COUNTS]
        rows[name] = [float((x - truth).norm(dim=1).mean()) for x in ends]
    return rows

# %% tags=["proof"]
truth = fine(smooth, starts, sigma_of(schedule, 100))
assert float((truth - fine(smooth, starts, sigma_of(schedule, 100), 300)).abs().max()) < 1e-6  # finer does not change it
to_100 = errors(smooth, 100, truth)
for tag, name, order, tolerance in (("13.20", "Euler (DDIM)", 1, 0.15), ("13.21", "Heun", 2, 0.3), ("13.22", "2M", 2, 0.3)):
    distance = sp.Symbol(rf"\mathbb{{E}}\lVert x_{{100}}^{{\text{{{name}}},S}}-x_{{100}}\rVert")
    limit(tag, distance, sp.Integer(0), sizes=COUNTS, measured=to_100[name], order=order, tolerance=tolerance)

# %% [markdown]
# The promise is kept: 1, 2, 2. Now two cases in which it is not. First the same mixture, but **all the way to $t=0$**. Then a **sharp** data set, eight clouds of standard deviation 0.03, also to $t=0$. Our own samplers live here.

# %%
angles = torch.arange(8) * math.pi / 4
corners = 1.4 * torch.stack([angles.cos(), angles.sin()], 1)
sharp = GaussianMixture(torch.full((8,), 1 / 8), corners, torch.full((8,), 0.03))
to_0 = errors(smooth, 0, fine(smooth, starts, 1e-5, 900))
truth_sharp = fine(sharp, starts, 1e-5, 900)
to_0_sharp = errors(sharp, 0, truth_sharp)
fig, axes = plt.subplots(1, 3, figsize=(11, 3.1), sharey=True)
titles = ("soft data, to t = 100", "soft data, to t = 0", "sharp data, to t = 0")
for ax, rows, title in zip(axes, (to_100, to_0, to_0_sharp), titles, strict=True):
    curves(COUNTS, rows, ax, xscale="log", yscale="log", title=title, xlabel="steps S")
    ax.set_xticks(COUNTS, [str(S) for S in COUNTS], fontsize=9)
    ax.minorticks_off()
axes[0].set_ylabel("mean error")
plt.show()

# %%
def order_of(row):
    return math.log(row[2] / row[5]) / math.log(COUNTS[5] / COUNTS[2])  # between 20 and 160 steps


print("order between 20 and 160 steps |", " ".join(f"{name:>13s}" for name in METHODS))
for title, rows in zip(titles, (to_100, to_0, to_0_sharp), strict=True):
    print(f"{title:30s} |", " ".join(f"{order_of(row):13.1f}" for row in rows.values()))

# %% [markdown]
# Read the rows. Down to $t=0$ the second-order methods still win on soft data, but their lines are bent, and the slope read off between two points is no clean 2: it depends on which points. The last step, from $t_1>0$ to 0, is an Euler step in both; and evenly spaced $t$ are few where $\hat\varepsilon$ changes fastest. On sharp data **the order is gone**: between 20 and 160 steps all three gain less than Euler should, and the expensive method is no better than the cheap one. Clouds of width 0.03 are decided at noise levels $\sigma\approx0.03$, that is, for $t<20$, and there hardly a node stands. An order of convergence speaks about steps that are small *for this slope field*; here they are not.
#
# ### Where to put the steps
#
# If the action is at small $\sigma$, put the nodes there. EDM (eq. 5) spaces $\sigma^{1/7}$ evenly, from the largest $\sigma\le80$ down. `sigma_grid` rounds these noise levels to our integer times.

# %%
print("trailing :", time_grid(1000, 9).tolist())
print("EDM      :", sigma_grid(schedule, 9).tolist())
misses = {}
for S in (20, 40):
    for name, grid in (("trailing", time_grid(1000, S)), ("EDM", sigma_grid(schedule, S))):
        first = int(grid[0])  # EDM's grid starts later: there, every method is given the state of the exact path
        there = fine(sharp, starts, sigma_of(schedule, first), 300) if first < 1000 else starts
        for method, stepper in METHODS.items():
            x = last(trajectory(stepper(sharp.eps_model(schedule), schedule), there, grid))
            misses[method, name, S] = float((x - truth_sharp).norm(dim=1).mean())
for method in METHODS:
    print(f"{method:13s} mean error, S = 40: trailing {misses[method, 'trailing', 40]:.3f}, EDM {misses[method, 'EDM', 40]:.4f}")
    assert misses[method, "EDM", 40] < misses[method, "trailing", 40] / 3
assert 2 * max(misses["Heun", "EDM", 40], misses["2M", "EDM", 40]) < misses["Euler (DDIM)", "EDM", 40]

# %% [markdown]
# The same number of steps, at other places: Euler gains a factor of more than 3, and the second-order methods more than 10. Now they are ahead again, as their order promised. (By steps. Heun's 40 steps are 79 calls, 2M's are 40. And every run over this grid was given the exact state at its start.) **The grid comes first, then the order.** One caution: the grid starts at $\sigma\le80$, here at $t=930$. In practice one starts there from fresh noise, not from the exact path, and that costs a little of the law (chapter 10 showed how much is lost if one starts *much* too late).
#
# ## When the end must be pure noise
#
# A sampler starts from $\mathcal N(0,I)$. The forward process ends in $\sqrt{\bar\alpha_T}\,x_0+\dots$: a trace of the picture is left. In our linear schedule the trace is 0.006 and harmless. In the schedule that many text-to-image models use (square roots of β on a line, 0.00085 to 0.012) it is 0.068. That sounds small. But the overall *brightness* of a picture is the mean over all its pixels, and in this mean the noise nearly cancels. So the brightness shines through in $x_T$. At sampling time the network reads it from pure noise, whose mean is always about 0, and concludes: medium grey (ZTSNR section 2). The cure is to shift and stretch $\sqrt{\bar\alpha}$ so that it ends in almost nothing.
#
# The test: pictures of 28×28 pixels whose brightness varies with standard deviation 1, and little else. The denoiser is perfect. We start where the noise is one standard deviation bright, so we should end at a brightness of 1.

# %%
leaky = quadratic_schedule(1000, 0.00085, 0.012)
tight = rescale_zero_terminal_snr(leaky, 1e-6)
pixels = 28 * 28
dimmer = ExactGaussian(torch.zeros(pixels), torch.ones(pixels, pixels) + 0.01 * torch.eye(pixels))
one_bright_start = torch.ones(1, pixels, dtype=torch.float64) / pixels**0.5
for name, by_root in (("as it is", leaky), ("rescaled", tight)):
    end = ddim_sample(dimmer.eps_model(by_root), by_root, x_T=one_bright_start, num_steps=200)
    print(f"{name}: trace {by_root.at(1000) ** 0.5:.3f}; brightness of the samples, should be 1.0: {float(end.mean()):.1f}")

# %% [markdown]
# Why not 0 exactly? Because of the network's language. At $\bar\alpha_T=0$ we have $x_T=\varepsilon$: a network that predicts $\varepsilon$ may copy its input, and the division by $\sqrt{\bar\alpha_T}$ in $\hat x_0$ is a division by 0. With a tiny $\bar\alpha_T$ it is a division by almost 0. How large does an error in the answer become in $\hat x_0$?

# %% tags=["proof"]
by_eps, by_v = (x_t - sp.sqrt(1 - bar_t) * eps_hat) / sp.sqrt(bar_t), sp.sqrt(bar_t) * x_t - sp.sqrt(1 - bar_t) * v
equation("13.23", sp.Derivative(by_eps, eps_hat), -sp.sqrt(1 - bar_t) / sp.sqrt(bar_t), source="ZTSNR section 3.2")
equation("13.24", sp.Derivative(by_v, v), -sp.sqrt(1 - bar_t), source="v-pred appendix D")
off = 1e-3
x_end = torch.randn(1, 1, generator=seeded(7), dtype=torch.float64)
right_eps = ExactGaussian(torch.ones(1), torch.full((1, 1), 0.25)).eps_model(tight)(x_end, torch.tensor([1000]))
right_v = eps_to_v(tight, x_end, 1000, right_eps)
move = lambda convert, value: float((convert(tight, x_end, 1000, value + off) - convert(tight, x_end, 1000, value)).abs())
print(f"an error of 0.001 in the answer at T moves x_0_hat by {move(eps_to_x_0, right_eps):.1f} (eps) or {move(v_to_x_0, right_v):.3f} (v)")
agrees(-sp.sqrt(1 - bar_t) / sp.sqrt(bar_t), {bar_t: tight.at(1000)}, -move(eps_to_x_0, right_eps) / off, 1e-6)
agrees(-sp.sqrt(1 - bar_t), {bar_t: tight.at(1000)}, -move(v_to_x_0, right_v) / off, 1e-6)

# %% [markdown]
# A thousand times, against once. Does the rest of the walk repair it? We give two "networks" the same small fault: the one that answers with $\varepsilon$, and the one that answers with $v$, are each wrong by 0.01, always. Otherwise they are perfect. The data have the mean 1.

# %%
bright = ExactGaussian(torch.ones(1), torch.full((1, 1), 0.25)).eps_model(tight)
answers = {"eps": lambda x, t: bright(x, t) + 0.01, "v": lambda x, t: eps_to_v(tight, x, t, bright(x, t)) + 0.01}
starts_1d = torch.randn(2000, 1, generator=seeded(16), dtype=torch.float64)
ends = {(kind, S): float(ddim_sample(as_eps_model(net, tight, kind), tight, x_T=starts_1d, num_steps=S).mean())
        for kind, net in answers.items() for S in (5, 10, 50)}
for kind in answers:
    print(f"a network for {kind:3s} off by 0.01: mean of the samples", ", ".join(f"{ends[kind, S]:.2f} (S = {S})" for S in (5, 10, 50)))
assert all(abs(ends["v", S] - 1) < 0.05 for S in (5, 10, 50)) and ends["eps", 10] < 0.8 and ends["eps", 50] < 0.96

# %% [markdown]
# The walk repairs a part of it, and the more the shorter the first step is. With ten steps a fault of one percent in $\hat\varepsilon$ still costs more than a fifth of the mean. In $v$ it costs about one percent.
#
# So: rescale to a tiny $\bar\alpha_T$, never to 0 (the package refuses 0), and **predict $v$**. The rest of the course's machinery stays: `as_eps_model(net, schedule, "v")` is an `eps_model` like any other.
#
# ## Every sampler on every oracle
#
# Now the large table. Three data sets whose perfect denoiser is known: a Gaussian in two dimensions; a ring of eight clouds (width 0.1) with unequal weights; ten real digits and nothing else. Five samplers, six numbers of steps, always the trailing grid, always the same start noise. Heun needs $2S-1$ calls for $S$ steps, the others $S$.

# %%
from ddpm_course.data import digits

data = digits()
ten = torch.stack([data.train.images[data.train.labels == k][0] for k in range(10)]).double()
shares = torch.tensor([0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2])
blob = ExactGaussian(torch.tensor([0.5, -0.2]), torch.tensor([[0.5, 0.3], [0.3, 0.4]]))
ring = GaussianMixture(shares, corners, torch.full((8,), 0.1))
ORACLES = {"Gaussian": (blob, 1000), "ring": (ring, 1000), "ten digits": (FiniteData(ten), 100)}
STEPS = (5, 10, 20, 50, 100, 1000)
SAMPLERS = {
    "DDPM, beta": lambda model, x, S: ddpm_sample(model, schedule, x_T=x, num_steps=S, variance="beta", generator=seeded(8)),
    "DDPM, beta~": lambda model, x, S: ddpm_sample(model, schedule, x_T=x, num_steps=S, generator=seeded(8)),
    "DDIM": lambda model, x, S: ddim_sample(model, schedule, x_T=x, num_steps=S),
    "Heun": lambda model, x, S: heun_sample(model, schedule, x_T=x, grid=time_grid(1000, S)),
    "2M": lambda model, x, S: dpm_solver_sample(model, schedule, x_T=x, num_steps=S)}


def facts(oracle, x):
    if isinstance(oracle, ExactGaussian):
        return [float((x.mean(0) - oracle.mean).norm()), float(torch.cov(x.T).trace() / oracle.cov.trace())]
    distance, nearest = torch.cdist(x.flatten(1), oracle.means.flatten(1)).min(1)
    far = 3 * float(oracle.stds[0]) or 0.05 * x[0].numel() ** 0.5
    found = torch.bincount(nearest, minlength=len(oracle.means)) / len(x)
    return [float((distance > far).double().mean()), float((found - oracle.weights).abs().sum() / 2), float(distance.mean())]


# %%
table = {}
for title, (oracle, n) in ORACLES.items():
    model, noise = oracle.eps_model(schedule), torch.randn(n, *oracle.event, generator=seeded(9), dtype=torch.float64)
    for name, sample in SAMPLERS.items():
        table[title, name] = [facts(oracle, sample(model, noise, S)) for S in STEPS]
    table[title, "exact draws"] = [facts(oracle, oracle.sample(n, seeded(10)))] * len(STEPS)


def report(title, which, what, scale=1.0, digits=2):
    print(f"\n{title}: {what}\n{'S':>12s} " + "".join(f"{S:8d}" for S in STEPS))
    for name in [*SAMPLERS, "exact draws"]:
        print(f"{name:>12s} " + "".join(f"{scale * row[which]:8.{digits}f}" for row in table[title, name]))


report("Gaussian", 0, "distance of the mean from the true mean")
report("Gaussian", 1, "variance, as a share of the true variance")

# %%
report("ring", 0, "off-mode samples (over 3 standard deviations), %", 100, 1)
report("ring", 1, "error of the mode weights (half the sum of differences), %", 100, 1)
report("ring", 2, "mean distance to the nearest mode")

# %%
report("ten digits", 0, "samples that are none of the ten (over 0.05 a pixel), %", 100, 0)
report("ten digits", 1, "error of the weights, %", 100, 0)

# %% [markdown]
# What the table says, and what it does not:
#
# - **The mean is right at any $S$, the spread is not.** With few steps DDPM with $\tilde\beta$ loses most of the variance and wins it back slowly: it needs a thousand steps. Variance $\beta$ is nearer. Among the deterministic ones, Heun and 2M have the right variance at 20 steps, where DDIM still lacks a sixth.
# - **Five steps are too few for the ring, whatever the sampler.** At 50 and 100 steps all but DDPM with $\beta$ have *no more* strays than exact samples, and that is no success: their clouds are too narrow, with a mean distance of about 0.1 instead of 0.125. Heun with 20 steps is narrowest of all. That is no contradiction to its accuracy. Its last step goes from $t=50$ straight to the guess, which is a mean and has no spread, and all before it was accurate.
# - **The weights of the modes:** half the differences come to about 3 % for exact samples by chance alone, give or take 1. From 20 steps on the deterministic samplers show no fault. DDPM with $\tilde\beta$ at 5 and 10 steps (7.5 and 6.1 %) is outside, and with so many strays a "nearest mode" means little there. The deterministic samplers agree because they share the start.
# - **Ten digits, and ten steps suffice for all.** Each sample is one of the ten, to the pixel: the perfect denoiser of ten pictures *copies*. A perfect score in this table is what we do not want from a trained network.

# %%
spread = {name: [row[1] for row in table["Gaussian", name]] for name in SAMPLERS}
stray, width = ({name: [row[k] for row in table["ring", name]] for name in [*SAMPLERS, "exact draws"]} for k in (0, 2))
assert spread["DDPM, beta~"][2] < 0.75 < 0.9 < spread["DDPM, beta"][2] and abs(spread["DDPM, beta~"][5] - 1) < 0.06
assert spread["DDIM"][2] < 0.87 and max(abs(spread[name][2] - 1) for name in ("Heun", "2M")) < 0.05
assert min(stray[name][0] for name in SAMPLERS) > 0.4 and max(table["Gaussian", name][k][0] for name in SAMPLERS for k in range(6)) < 0.1
assert all(stray[name][3] <= stray["exact draws"][3] and width[name][3] < 0.11 for name in ("DDPM, beta~", "DDIM", "Heun", "2M"))
assert width["Heun"][2] == min(row for rows in width.values() for row in rows) < 0.07
assert all(table["ten digits", name][k][0] == 0 for name in SAMPLERS for k in range(1, 6))
print("the statements about spread, strays and copies: True")

# %% [markdown]
# ## Every sampler on a trained network
#
# The same contest with the digit network that is shipped with the course, at equal numbers of network *calls*. Heun gets EDM's grid, the others the trailing one. Each point is the mean over three seeds, the bar goes from the smallest to the largest. The floor is the distance between real training digits and held-out digits at the same $n$, for several disjoint sets of training digits.
#
# All 359 held-out digits are needed for a fair look, and hundreds of calls for each of them. That takes longer than a chapter may. So the large table was measured once, by `python benchmarks/quality_against_steps.py`, and is shipped beside the weights. Here we measure one of its entries again, and a small version of the contest, live, with $n=90$.

# %%
import json

from ddpm_course.checkpoint import load_classifier
from ddpm_course.metrics import frechet_distance
from ddpm_course.train import at_scale

features, small = load_classifier("digits").features, load_model(shipped("digits"))
digit_model, chain = clip_x_0(small.eps_model(), small.schedule), small.schedule
all_held_out = torch.cat([data.val.images, data.test.images])
measured = json.loads((shipped("digits") / "quality.json").read_text())
again = ddim_sample(digit_model, chain, (len(all_held_out), 1, 8, 8), num_steps=5, generator=seeded(0))
stored = measured["frechet_distance"]["DDIM"]["5"][0]
print(f"n = {measured['n']}: the stored entry for DDIM, 5 calls, seed 0 comes out again:", abs(frechet_distance(features(again), features(all_held_out)) / stored - 1) < 0.02)
assert abs(frechet_distance(features(again), features(all_held_out)) / stored - 1) < 0.02

# %%
n_digits, CALLS = at_scale(cpu=90, gpu=1000), (5, 9, 17)
real = features(torch.cat([data.test.images, data.val.images])[:n_digits])
floors = [frechet_distance(features(data.train.images[k * n_digits : (k + 1) * n_digits]), real) for k in range(5)]
DRAW = {"DDPM, beta~": lambda S, **more: ddpm_sample(digit_model, chain, num_steps=S, **more),
        "DDIM": lambda S, **more: ddim_sample(digit_model, chain, num_steps=S, **more),
        "Heun": lambda S, **more: heun_sample(digit_model, chain, num_steps=(S + 1) // 2, **more),
        "2M": lambda S, **more: dpm_solver_sample(digit_model, chain, num_steps=S, **more)}
scores = {name: {S: [frechet_distance(features(draw(S, shape=(n_digits, 1, 8, 8), generator=seeded(k))), real) for k in range(3)]
                 for S in CALLS} for name, draw in DRAW.items()}

# %%
ORDER = list(measured["frechet_distance"])  # a sampler keeps its colour in both figures


def contest(ax, scores, floors, title):
    for name, rows in scores.items():
        place = ORDER.index(name)
        values = torch.tensor(list(rows.values()))
        middle = values.mean(1)
        bars = torch.stack([middle - values.min(1).values, values.max(1).values - middle])
        ax.errorbar([int(S) * 1.03 ** (place - 1.5) for S in rows], middle, yerr=bars, color=f"C{place}", marker="o", markersize=3, linewidth=1.1, capsize=2, label=name)
    ax.axhspan(min(floors), max(floors), color=GREY, alpha=0.25, label="floor: real digits")
    calls = sorted({int(S) for rows in scores.values() for S in rows} - {20})  # no room for its label
    ax.set(xscale="log", yscale="log", xlabel="network calls", title=title)
    ax.set_xticks(calls, [str(S) for S in calls])
    ax.set_yticks((1, 2, 5, 10, 20, 40), ("1", "2", "5", "10", "20", "40"))
    ax.minorticks_off()


fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
contest(left, scores, floors, f"Fréchet distance, live, n = {n_digits}")
contest(right, measured["frechet_distance"], measured["floors"], f"measured once, n = {measured['n']}")
right.legend(fontsize=8)
plt.show()

# %% tags=["nbval-ignore-output"]
for n, low, high, rows_of in ((n_digits, min(floors), max(floors), scores), (measured["n"], min(measured["floors"]), max(measured["floors"]), measured["frechet_distance"])):
    print(f"n = {n}, floor {low:.1f} to {high:.1f}; mean over three seeds (smallest to largest)")
    for name, rows in rows_of.items():
        print(f"{name:12s}", "  ".join(f"{S}: {sum(row) / 3:.1f} ({min(row):.1f}-{max(row):.1f})" for S, row in rows.items()))

# %% [markdown]
# Look at the grey bands before looking at the curves. Two sets of *real* digits differ by that much.
#
# - Heun with 5 calls (3 steps) is far off, beyond doubt, at either $n$. Three nodes between $\sigma=80$ and 0 are too few for a method that trusts both ends of a step.
# - At $n=90$ and 17 calls all stand at the floor. Whoever ranks them from the left figure ranks the dice.
# - At $n=359$ the floor is lower, and a little more can be said. With 5 calls fresh noise of variance $\beta$ costs quality. DDIM and 2M are nearly where they stay; from 9 calls on, more calls buy nothing that this score can see. DDPM needs 17 calls to come as near, and 250 calls bring it no farther.
# - All samplers of one seed share their start noise. The points of DDIM and 2M therefore move up and down together (DDPM's fresh noise breaks the tie), and a comparison seed by seed is sharper than the bars suggest.
# - The network is small, the pictures are 8×8, and $\hat x_0$ is clipped. Nothing here says how the samplers compare on larger pictures.

# %%
large, high = measured["frechet_distance"], max(measured["floors"])
mean_of = lambda name, calls: sum(large[name][calls]) / 3
assert min(scores["Heun"][5]) > 3 * max(floors) and min(large["Heun"]["5"]) > 3 * high
assert max(sum(rows[17]) / 3 for rows in scores.values()) < 1.5 * max(floors) and max(max(rows["17"]) for rows in large.values()) < 2 * high
assert mean_of("DDPM, beta", "5") > 1.5 * max(mean_of("DDIM", "5"), mean_of("2M", "5"))
assert mean_of("DDIM", "9") < 1.25 * mean_of("DDIM", "50") and mean_of("2M", "9") < 1.25 * mean_of("2M", "20")
assert mean_of("DDPM, beta~", "9") > 1.25 * mean_of("DDPM, beta~", "17") and mean_of("DDPM, beta~", "250") > 0.9 * mean_of("DDPM, beta~", "17")
print("Heun with 5 calls over three times the floor; all at 17 calls below 2 times the floor, at n = 90 and at n = 359: True")

# %% [markdown]
# ## Up and across: two real digits
#
# A path of the ODE runs both ways, so a real picture has *its* noise. Chapter 10 walked up with a slope that was one step old, and paid with an error of order $1/S$. `ddim_invert(..., iterations=k)` asks again at the point it has just found, a fixed number of times. First the oracle:

# %%
crisp = GaussianMixture(torch.full((8,), 1 / 8), corners, torch.full((8,), 0.1))
for name, oracle in (("soft", smooth), ("ring of 0.1", crisp)):
    points, model = oracle.sample(150, seeded(12)), oracle.eps_model(schedule)
    for iterations in (1, 60):
        up = ddim_invert(model, schedule, points, 50, iterations=iterations)
        gap = (ddim_sample(model, schedule, x_T=up, num_steps=50) - points).norm(dim=1)
        middle, largest = bool(gap.median() < 1e-9), bool(gap.max() < 1e-9)
        print(f"{name:12s} {iterations:2d} iterations: median error below 1e-9: {middle}, largest below 1e-9: {largest}")

# %% [markdown]
# On soft data the way back is exact. On sharp data it is exact for most points, and wrong for some: near a border between two clouds the iteration jumps to and fro. Check your round trip before you trust it.
#
# Now two real digits, a 0 and a 4, with the trained network. Up by 40 steps, across on an arc (`slerp`), and down again. Below, the plain mixture of pixels.

# %%
raw_model = small.eps_model()  # not clipped: clipping forgets, and what forgets cannot be walked back
pair = torch.stack([data.test.images[data.test.labels == k][0] for k in (0, 4)])
up = ddim_invert(raw_model, chain, pair, 40, iterations=5)
back = ddim_sample(raw_model, chain, x_T=up, num_steps=40)
weights_9 = [k / 8 for k in range(9)]
arc = torch.cat([slerp(up[:1], up[1:], w) for w in weights_9])
across = ddim_sample(raw_model, chain, x_T=arc, num_steps=40)
mixed = torch.cat([(1 - w) * pair[:1] + w * pair[1:] for w in weights_9])
show_rows({"arc in noise": across, "mixed pixels": mixed})
plt.show()
print(f"round trip, largest error of a pixel below 0.05: {bool((back - pair).abs().max() < 0.05)}")

# %% [markdown]
# The upper row ends in the two real digits, because the round trip is good, and what lies between has the full contrast of a drawn digit, where the lower row is grey; in the middle the shape is a blob, for it need not be a digit. It is a path through *plausible* pictures, though not each of them need be a digit. The lower row is two pictures laid over one another.
#
# ### Play with it
#
# Choose a sampler, the steps and the width of the clouds. Grey: exact samples. Without a running kernel, the figures above show the same.

# %%
from ddpm_course.widgets import choice, explore, slider


def draw(sampler, steps, width):
    oracle = GaussianMixture(shares, corners, torch.full((8,), width))
    x = SAMPLERS[sampler](oracle.eps_model(schedule), torch.randn(500, 2, generator=seeded(13), dtype=torch.float64), steps)
    ax = scatter(oracle.sample(1500, seeded(14)), title=f"{sampler}, {steps} steps", color="#cccccc")
    scatter(x, ax, f"{sampler}, {steps} steps: {facts(oracle, x)[0]:.0%} off mode")


explore(draw, sampler=choice(list(SAMPLERS), "sampler"), steps=slider(2, 60, 8, label="steps"), width=slider(0.02, 0.4, 0.1, 0.02, "width"))

# %% [markdown]
# ## Common mistakes
#
# ### "The ODE is the reverse SDE without the noise"
#
# It is not: the factor of the score changes too, from 1 to ½. Whoever only leaves out the noise gets a crowd that contracts. Data $\mathcal N(0,0.25)$, the oracle, a thousand small steps:

# %%
noise_1d = torch.randn(4000, 1, generator=seeded(6), dtype=torch.float64)
narrow = ExactGaussian(torch.zeros(1), torch.full((1, 1), 0.25)).eps_model(schedule)
for name, factor in (("score x 1/2", 0.5), ("score x 1  ", 1.0)):
    x = noise_1d / noise_1d.std()
    for t in range(1000, 0, -1):
        arrow = eps_to_score(schedule, x, t, narrow(x, torch.full((len(x),), t)))
        x = x + float(schedule.beta[t]) * (x / 2 + factor * arrow)
    print(f"{name} and no noise: variance {float(x.var()):.3f}, wanted 0.25")

# %% [markdown]
# ### "A second-order method may start anywhere"
#
# Heun's step averages two slopes. From $\sigma=20{,}000$ to $\sigma=6$, the first step of a trailing grid on the cosine schedule, the slope at the lower end gets half of the weight over the whole way. Euler's slope at the upper end would have been nearly right for all of it. EDM's grid starts at $\sigma\le80$ for this reason.

# %%
cosine = cosine_schedule(T=1000)
cosine_model, noise_2d = smooth.eps_model(cosine), torch.randn(1000, 2, generator=seeded(15), dtype=torch.float64)
print(f"sigma at T: {sigma_of(cosine, 1000):.0f}; at the next of 10 trailing times: {sigma_of(cosine, 900):.0f}")
for name, grid in (("trailing", time_grid(1000, 10)), ("EDM's", sigma_grid(cosine, 10))):
    x = heun_sample(cosine_model, cosine, x_T=noise_2d, grid=grid)
    print(f"Heun, 10 steps, {name:8s} grid: largest coordinate below 3: {bool(x.abs().max() < 3)}")

# %% [markdown]
# ### "Ten steps are ten steps"
#
# Compare samplers by *calls of the network*, since nothing else costs time. A spy counts:

# %%
def calls(sample):
    seen = []
    sample(lambda x, t: seen.append(int(t[0])) or smooth_model(x, t))
    return len(seen)


counts = {name: calls(lambda model, s=s: s(model, noise_2d[:2], 10)) for name, s in SAMPLERS.items()}
print(counts)
assert counts["Heun"] == 19 and {counts[name] for name in counts if name != "Heun"} == {10}

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/13_score_and_ode_student.ipynb), [with solutions](exercises/13_score_and_ode_solution.ipynb).

# %% [markdown]
# **13.1 ★** A network answers $\hat\varepsilon=0.3$ at a time with $\bar\alpha_t=0.64$. What is the score there?

# %% [markdown] tags=["hint"]
# **Hint 13.1**
#
# The noise points away from the data, the score towards them.

# %% tags=["exercise"]
the_score = ...
check("13.1", the_score)

# %% tags=["solution"]
the_score = -0.3 / (1 - 0.64) ** 0.5
must_pass("13.1", the_score)

# %% [markdown]
# **13.2 ★** Which $\sigma$, in the sense of this chapter, belongs to $\bar\alpha_t=0.2$?

# %% [markdown] tags=["hint"]
# **Hint 13.2**
#
# How much noise is in a picture that was never shrunk?

# %% tags=["exercise"]
noise_level = ...
check("13.2", noise_level)

# %% tags=["solution"]
noise_level = ((1 - 0.2) / 0.2) ** 0.5
must_pass("13.2", noise_level)

# %% [markdown]
# **13.3 ★★** Write the velocity $dx/d\tau$ of the probability-flow ODE as a function of $x$, $\hat\varepsilon$, $\bar\alpha$ and $b$.

# %% [markdown] tags=["hint"]
# **Hint 13.3**
#
# Take the velocity that (13.8) shows, and put the network's answer in place of the score.

# %% tags=["exercise"]
def flow(x, eps_hat, alpha_bar, b):
    return ...


check("13.3", flow)


# %% tags=["solution"]
def flow(x, eps_hat, alpha_bar, b):
    return -b * x / 2 + b * eps_hat / (2 * (1 - alpha_bar) ** 0.5)


must_pass("13.3", flow)

# %% [markdown]
# **13.4 ★★** One Heun step for $dy/d\sigma=$ `slope(y, sigma)`, from `sigma_t` to `sigma_s`.

# %% [markdown] tags=["hint"]
# **Hint 13.4**
#
# The second slope is asked where Euler's step ends: at that $y$ *and* at that noise level.

# %% tags=["exercise"]
def heun_step(y, sigma_t, sigma_s, slope):
    return ...


check("13.4", heun_step)


# %% tags=["solution"]
def heun_step(y, sigma_t, sigma_s, slope):
    first = slope(y, sigma_t)
    second = slope(y + (sigma_s - sigma_t) * first, sigma_s)
    return y + (sigma_s - sigma_t) * (first + second) / 2


must_pass("13.4", heun_step)

# %% [markdown]
# **13.5 ★★** The guess `x_0_hat` is constant. Where is $y$ exactly, after the way from `sigma_t` to `sigma_s`?

# %% [markdown] tags=["hint"]
# **Hint 13.5**
#
# Then $(y-\hat x_0)/\sigma$ does not change on the way. What is it called?

# %% tags=["exercise"]
def exact_step(y, x_0_hat, sigma_t, sigma_s):
    return ...


check("13.5", exact_step)


# %% tags=["solution"]
def exact_step(y, x_0_hat, sigma_t, sigma_s):
    return x_0_hat + (sigma_s / sigma_t) * (y - x_0_hat)


must_pass("13.5", exact_step)

# %% [markdown]
# **13.6 ★★★** The memory of 2M. The last guess was `before`, made at noise level `sigma_before`; now it is `guess`, at `sigma_t`; the step goes on to `sigma_s`. Which picture does 2M put in place of `guess`?

# %% [markdown] tags=["hint"]
# **Hint 13.6**
#
# A straight line through both guesses, over $\ell=-\log\sigma$, read off in the middle of the coming step.

# %% tags=["exercise"]
def ahead(guess, before, sigma_before, sigma_t, sigma_s):
    return ...


check("13.6", ahead)


# %% tags=["solution"]
def ahead(guess, before, sigma_before, sigma_t, sigma_s):
    length, length_before = math.log(sigma_t / sigma_s), math.log(sigma_before / sigma_t)
    return guess + length / (2 * length_before) * (guess - before)


must_pass("13.6", ahead)

# %% [markdown]
# **13.7 ★★★** Data $\mathcal N(0,\kappa)$. A particle of the ODE is at $x_t$ when the signal is `bar_t`. Where is it, exactly, when the signal is `bar_s`?

# %% [markdown] tags=["hint"]
# **Hint 13.7**
#
# Without dice and in one dimension nobody overtakes: who is one standard deviation out stays one standard deviation out.

# %% tags=["exercise"]
def exact_path(x_t, kappa, bar_t, bar_s):
    return ...


check("13.7", exact_path)


# %% tags=["solution"]
def exact_path(x_t, kappa, bar_t, bar_s):
    return x_t * ((bar_s * kappa + 1 - bar_s) / (bar_t * kappa + 1 - bar_t)) ** 0.5


must_pass("13.7", exact_path)

# %% [markdown]
# ## What comes next
#
# We have a whole family of samplers on one network, and we have seen that "better" depends on the data, on the grid, and on what one measures. The Fréchet distance of this chapter had wide bars. What exactly does it measure, how many samples does it need, and could a sampler that copies its training data win? That is the chapter on evaluation.
