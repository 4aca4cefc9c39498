# %% [markdown]
# # 21 · Latent diffusion: first make it small, then diffuse
#
# **The question.** A colour picture of 512×512 pixels has 786,432 numbers. At each of its steps the network of chapter 07 visits all of them, and most say what their neighbours have said already. Can the diffusion happen somewhere smaller? And what is left of the theory, if it does?
#
# **After this chapter you can**
#
# - put an autoencoder before a diffusion model, and a decoder behind it, without touching schedule, network, trainer or sampler;
# - prove that the two stages together still bound $\log p(x)$, and add up their parts on an example in which all is known;
# - say why a VAE alone draws badly, in nats and in pictures;
# - choose the scale of the latents, and show what a wrong one costs;
# - count what is saved, and say where it is much and where it is little.
#
# *Needs:* chapters 04, 05, 10, 12, 14 and the start of 15; 13 helps. *Time:* about two and a half hours with the exercises.

# %%
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sympy as sp
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course import (ExactGaussian, GaussianMixture, TrainConfig, UNet, UNetConfig, clip_x_0, cosine_schedule, ddim_invert, ddim_sample,
                         load_model, normal_kl, normal_log_prob, quadratic_schedule, shipped, train, vlb_terms)  # fmt: skip
from ddpm_course.checkpoint import load_classifier, load_tensors, rng
from ddpm_course.checks import check, must_pass
from ddpm_course.data import Split, Splits, mnist5k
from ddpm_course.latent import Codec, encode_data, load_codec
from ddpm_course.losses import diffusion_loss
from ddpm_course.metrics import frechet_distance
from ddpm_course.models import ConvVAE, ConvVAEConfig
from ddpm_course.plots import BLUE, GREY, ORANGE, RED, curves, show_images, show_rows, style
from ddpm_course.proofs import Expect, agrees, bar_t, derive, equation, normal
from ddpm_course.solvers import slerp

style()
seeded = lambda k: torch.Generator().manual_seed(k)

# %% [markdown]
# ## Two stages
#
# > **An image to keep.** An architect draws a plan of a house, and a builder makes the house from the plan. All that is *decided* is in the plan: how many rooms, where the stairs go. The grain of the bricks is not, and any builder knows how bricks look. So let the diffusion model be the architect. It works on paper, which is small. *Where the image breaks:* a plan is made by rules that people agreed on, and lines on it mean something. Nobody knows what a number of a latent means; encoder and decoder have agreed on it between themselves.
#
# **Stage one** is the VAE of chapter 04, made of convolutions: `ConvVAE`. Its latent is not a list of numbers but a small picture. Here 28×28 pixels become 7×7, with four numbers at each place. The *factor* is 4, since four pixels across become one. **Stage two** is the DDPM that we know, trained on these latents as if they were the data. Both come with the course (`mnist-latent`). Here are real digits that neither has seen, their latents channel by channel, and what the decoder makes of them:

# %%
codec, trained = load_codec(shipped("mnist-latent")), load_model(shipped("mnist-latent"))
vae, net, chain = codec.vae, trained.net, trained.schedule
splits = mnist5k()
held_out = torch.cat([splits.val.images, splits.test.images])
ten = splits.test.images[:10]
z = codec.encode(ten)
channels = {f"latent {k + 1}": z[:, k : k + 1].clamp(-3, 3) / 3 for k in range(4)}
show_rows({"digit": ten} | channels | {"decoded": codec.decode(z)})
plt.show()
print(f"numbers in a picture: {ten[0].numel()}, in its latent: {z[0].numel()};  latents on average {abs(float(z.mean())):.0f}, largest about {float(z.abs().max()):.0f}")

# %% [markdown]
# With some good will one can still see where the ink is. A place without ink has one quiet value in each channel, and at a place with ink something happens. Convolutions keep the place. That is what a U-Net needs, and it is why the flat VAE of chapter 04 would not do here.
#
# In code, the two stages meet in four lines. `codec.encode` and `codec.decode` stand at the two ends, and what lies between has not changed by a letter. *A latent is just another* $x$.
#
# ```python
# data = encode_data(codec, mnist5k(), rng(0), copies=8)       # pictures -> latents
# trained = train(TrainConfig(net=UNetConfig(...)), data=data)   # chapter 08
# z = ddim_sample(trained.eps_model(), trained.schedule, (16, 4, 7, 7))   # chapter 10
# pictures = codec.decode(z)                                     # latents -> pictures
# ```
#
# ### By hand
#
# What does the codec do? The encoder gives a mean and a variance for each number of the latent. Draw from that Gaussian; take off the mean of its channel and divide by the standard deviation of its channel, over the training digits. On the way back multiply and add, *then* decode.

# %%
mean, var = vae.encode(ten)
drawn = mean + var.sqrt() * torch.randn(mean.shape, generator=seeded(0))
m, s = (table.reshape(1, 4, 1, 1) for table in (codec.mean, codec.std))
mine = (drawn - m) / s
torch.testing.assert_close(mine, codec.encode(ten, seeded(0)), rtol=1e-5, atol=1e-5)
torch.testing.assert_close(vae.decode(mine * s + m), codec.decode(mine), rtol=1e-4, atol=1e-4)
print("encoded by hand = encoded by the package, and decoded, too: True")

# %% [markdown]
# And stage two learns, with the trainer of chapter 08 and nothing new. Three hundred digits, eighty steps, a small network; just enough to see the loss fall. (`encode_data` marks its result as `Latents`. The trainer refuses pictures outside $[-1,1]$, and a latent need not be one.)

# %%
few = Splits(*(Split(part.images[:300], part.labels[:300]) for part in splits))
tiny = UNetConfig(image_size=7, channels=4, base_channels=16, multipliers=(1, 2), num_res_blocks=1, attention_sizes=(4,), groups=8, pad=True)
plan = TrainConfig(data="latents", net=tiny, steps=80, batch_size=32, lr=5e-3, warmup=10, log_every=20, ema_decay=0.9)
history = train(plan, data=encode_data(codec, few, seeded(1), copies=2)).history
falls = all(b["val_loss"] < a["val_loss"] for a, b in zip(history, history[1:], strict=False))
print(f"always answering 0 costs 1; after 80 steps below 0.95: {history[-1]['val_loss'] < 0.95}, and still falling: {falls}")
assert history[-1]["val_loss"] < 0.95

# %% [markdown]
# ## Does it still bound the likelihood?
#
# Chapter 04 bounded $-\log p(x)$ with a simple prior, $p(z)=\mathcal N(0,I)$. Now the prior is a DDPM. It has latents of its own, the noisy $z_1,\dots,z_T$ (and $z$ is its $z_0$):
#
# $$ p(x)=\int p(x\mid z)\,p(z)\,dz,\qquad p(z)=\int p(z_T)\,p(z_{T-1}\mid z_T)\cdots p(z\mid z_1)\;dz_1\cdots dz_T \tag{21.1, definition} $$
#
# So there are *two* integrals that nobody can compute, one inside the other. Identity (4.8) takes care of one: log evidence = bound + gap. We use it twice. First for $x$, whose latent is $z$ and whose guess is the encoder $q(z)=q(z\mid x)$. Then for $z$, whose latents are $z_1,\dots,z_T$, in short $c$ for *chain*, and whose guess is the forward process $q(c\mid z)$. The expectation runs over both: draw $z$ from the encoder, then noise it.

# %%
def density(text, *over):
    law = lambda self, printer, exp=None: text if exp is None else rf"{text}^{{{exp}}}"  # noqa: E731
    return type(text, (sp.Function,), {"_latex": law, "_eval_is_positive": lambda self: True})(*over)


both = sp.Symbol(r"z, c \sim q", real=True)
q_z, p_z, p_x_z, p_z_x = (density(text, both) for text in ("q(z)", "p(z)", r"p(x\mid z)", r"p(z\mid x)"))
q_c, p_zc, p_c = (density(text, both) for text in (r"q(c\mid z)", "p(z,c)", r"p(c\mid z)"))
p_x = sp.Symbol("p(x)", positive=True)

# %% tags=["proof"]
mean_of = lambda inside: Expect(sp.log(inside), both)
first_gap, second_gap = mean_of(q_z / p_z_x), mean_of(q_c / p_c)
derive("21.2", -sp.log(p_x),
       (-mean_of(p_x), "a constant is its own mean"),
       (mean_of(p_z_x / (p_z * p_x_z)), "Bayes: evidence = prior times decoder over posterior"),
       (mean_of(q_z / (p_z * p_x_z)) - first_gap, "multiply and divide by the guess"),
       (-mean_of(p_x_z) + mean_of(q_z) - mean_of(p_z) - first_gap, "logarithm of a product"),
       (-mean_of(p_x_z) + mean_of(q_z) + mean_of(q_c / p_zc) - second_gap - first_gap, "the same for z: its evidence is p(z)"),
       given={p_z_x: p_z * p_x_z / p_x, p_c: p_zc / p_z}, source="LDM section 3, VAE section 2.2")

# %% [markdown]
# Read the last line. $\mathbb E\big[\log\frac{q(z)}{p(z\mid x)}\big]$ and $\mathbb E\big[\log\frac{q(c\mid z)}{p(c\mid z)}\big]$ are Kullback–Leibler divergences (the one of the chain averaged over $z$), so neither is ever below 0. Both stand there with a minus. Leave them out, and the right side can only grow: what remains is an **upper bound on $-\log p(x)$ with three parts**:
#
# | part | letter by letter | computed by |
# |---|---|---|
# | reconstruction | $-\mathbb E[\log p(x\mid z)]$ | decoder |
# | cost of the latent | $\mathbb E[\log\frac{q(c\mid z)}{p(z,c)}]$ | this *is* the bound of chapter 05, with $z$ in the place of $x_0$ |
# | minus the entropy of the guess | $\mathbb E[\log q(z)]$ | encoder; known in closed form |
#
# In the image of chapter 04: a first letter with the latent, a second with the residual, and a *refund* for the freedom in choosing $z$. The encoder does not care which of its draws is sent. This freedom can carry other bits, and they come off the bill. The proof does not say how large the two gaps are. It needs no training: it holds for any encoder, decoder and DDPM.
#
# ### All parts, where all is known
#
# Take the linear example of chapter 04, $x=wz+s\,\varepsilon$. But the latent is now $z\sim\mathcal N(m,\tau^2)$, so the standard normal prior would be wrong. Let the guess be any $\mathcal N(\mu,v)$. With the right prior in it, the one-stage bound minus its gap is the exact answer:

# %% tags=["proof"]
def log_normal(at, mean, var):
    return -((at - mean) ** 2) / (2 * var) - sp.log(2 * sp.pi * var) / 2


def kl(mean_1, var_1, mean_2, var_2):
    return (var_1 / var_2 - 1 - sp.log(var_1 / var_2) + (mean_1 - mean_2) ** 2 / var_2) / 2


x, mu, m_z = sp.symbols(r"x \mu m", real=True)
w, s_x, tau, v = sp.symbols(r"w s \tau v", positive=True)
e = normal(r"\varepsilon")
post_var = 1 / (1 / tau**2 + w**2 / s_x**2)
post_mean = post_var * (m_z / tau**2 + w * x / s_x**2)
guess = mu + sp.sqrt(v) * e
one_stage = Expect(log_normal(guess, mu, v) - log_normal(guess, m_z, tau**2) - log_normal(x, w * guess, s_x**2), e)
equation("21.3", one_stage - kl(mu, v, post_mean, post_var), -log_normal(x, w * m_z, w**2 * tau**2 + s_x**2))

# %% [markdown]
# Now put a DDPM where $\mathcal N(m,\tau^2)$ stood: the oracle `ExactGaussian`, 40 steps, the best variance at each. Its reverse steps are exact (chapter 12). Its only flaw is that it starts from $\mathcal N(0,1)$ and not from the law of $z_T$. So on top of the first gap it misses $\mathbb E\big[\log q(z_T)-\log\mathcal N(z_T;0,1)\big]$, with $z_T$ noised from the guess. Every expectation is that of a quadratic in Gaussian numbers, so five nodes of quadrature are exact. The package computes every part:

# %%
f64 = torch.float64
w_1, s_1, m_1, tau_1, seen = 1.2, 0.6, 0.5, 0.7, torch.tensor(1.5, dtype=f64)
law, short = ExactGaussian(torch.tensor([m_1]), torch.tensor([[tau_1**2]], dtype=f64)), cosine_schedule(T=40)
nodes, weights = (torch.tensor(a, dtype=f64) for a in np.polynomial.hermite_e.hermegauss(5))
weights = weights / weights.sum()
for_z, for_eps = torch.cartesian_prod(nodes, nodes).T
pair_weights = torch.outer(weights, weights).flatten()


def parts(mu, v):
    z = mu + v**0.5 * nodes
    reconstruction = -weights @ normal_log_prob(seen.expand(5), w_1 * z, s_1**2)
    terms = vlb_terms(law.eps_model(short), short, (mu + v**0.5 * for_z)[:, None], variance=law.variance(short), eps=for_eps[:, None])
    return float(reconstruction), float(pair_weights @ terms.total()), 0.5 * math.log(2 * math.pi * math.e * v)


def start_gap(mu, v):  # E[log q(z_T) - log N(z_T; 0, 1)] over z_T noised from the guess
    bar = short.at(short.T)
    ends = bar**0.5 * mu + (bar * v + 1 - bar) ** 0.5 * nodes
    return float(weights @ (normal_log_prob(ends, bar**0.5 * m_1, bar * tau_1**2 + 1 - bar) - normal_log_prob(ends, 0.0, 1.0)))


# %%
exact = -float(normal_log_prob(seen, w_1 * m_1, w_1**2 * tau_1**2 + s_1**2))
best_v = 1 / (1 / tau_1**2 + w_1**2 / s_1**2)
best_m = best_v * (m_1 / tau_1**2 + w_1 * 1.5 / s_1**2)
guesses = {"the posterior": (best_m, best_v), "the prior": (m_1, tau_1**2), "too far right": (1.6, 0.1)}
for name, (mu_q, v_q) in guesses.items():
    picture, latent, refund = parts(mu_q, v_q)
    gap = float(normal_kl(torch.tensor(mu_q, dtype=f64), v_q, best_m, best_v))
    torch.testing.assert_close(picture + latent - refund - gap - start_gap(mu_q, v_q), exact, rtol=0, atol=1e-9)
    print(f"{name:14s} picture {picture:5.2f} + latent {latent:4.2f} - refund {refund:4.2f} = {picture + latent - refund:4.2f};  gap {gap:4.2f};  exact {exact:.2f}")
symbols = {w: w_1, s_x: s_1, m_z: m_1, tau: tau_1, x: 1.5}
agrees(-log_normal(x, w * m_z, w**2 * tau**2 + s_x**2), symbols, picture + latent - refund - gap - start_gap(mu_q, v_q))

# %% [markdown]
# To nine decimals, in all three cases, the three parts minus the first gap and minus the start term are $-\log p(x)$, for the *ideal* prior $\mathcal N(m,\tau^2)$. (The start term compares the DDPM with that prior. It is not the second gap of (21.2), and for another guess it may be negative.) With the posterior as guess nothing is lost but half a millionth of a nat at the start. Two stages are a model like any other, and its bound can be computed. So it can be compared, in nats, with any other model of the same pictures.
#
# ## What is wrong with a VAE?
#
# A VAE has a sampler already: draw $z\sim\mathcal N(0,I)$ and decode. Why should one train a second model? Look at what the decoder has been trained on. It saw latents of real digits, which together have the law
#
# $$ q(z)=\mathbb E_{x\sim\text{data}}\big[q(z\mid x)\big] \tag{21.4, definition} $$
#
# This is called the *aggregate posterior*. The KL of the bound, averaged over the data, contains a mismatch between this law and the prior. Split it (the expectation runs over a digit $x$ and a draw $z$ from its guess):

# %% tags=["proof"]
joint = sp.Symbol(r"x, z", real=True)
q_zx, q_all, p_prior = (density(text, joint) for text in (r"q(z\mid x)", "q(z)", "p(z)"))
average = lambda inside: Expect(sp.log(inside), joint)
derive("21.5", average(q_zx / p_prior),
       (average(sp.Mul(q_zx / q_all, q_all / p_prior, evaluate=False)), "multiply and divide by the aggregate posterior"),
       (average(q_zx / q_all) + average(q_all / p_prior), "logarithm of a product"))

# %% [markdown]
# The term with $q(z\mid x)$ in it, $\mathbb E\big[\log\frac{q(z\mid x)}{q(z)}\big]$, is the mutual information of picture and latent: what the decoder lives on. The other, $\mathbb E\big[\log\frac{q(z)}{p(z)}\big]=\mathrm{KL}(q(z)\,\|\,p(z))$, is pure loss: it helps nobody, and it does not depend on how good the decoder is. **Stage two attacks exactly this term.** A DDPM in the place of $\mathcal N(0,I)$ can follow $q(z)$ wherever it is.
#
# How large is it? Three priors for the same latents of the 1,000 held-out digits: $\mathcal N(0,I)$, which the VAE was trained with; a normal law with the mean and spread that each channel really has; and the DDPM. We compute the first two here, and read the third from a longer measurement (`benchmarks/latent_scores.py`), as the bound of chapter 05 with a few times for each digit, drawn by importance (chapter 12).

# %%
report = json.loads(Path("../benchmarks/results/latent.json").read_text())
files = (("mnist-latent", "vae"), ("mnist-latent", "model"), ("mnist-pixel", "model"), ("mnist", "model"), ("mnist", "classifier"))
print("measured on these weights:", report["weights"] == "".join(load_tensors(shipped(a), b)[1]["sha256"][:4] for a, b in files))
mean, var = codec.posterior(held_out)
z_held = mean + var.sqrt() * torch.randn(mean.shape, generator=seeded(2))
nats = lambda log_density: -float(log_density.flatten(1).sum(1).mean())
refund = float((0.5 * (2 * math.pi * math.e * var).log()).flatten(1).sum(1).mean())
here = {"normal": nats(normal_log_prob(z_held * s + m, 0.0, 1.0) + s.log()), "fitted": nats(normal_log_prob(z_held, 0.0, 1.0))}
bound = report["bound"]
for name, value in here.items():
    print(f"{name}: cost of the latent within 1 % of the report: {abs(value / bound['cross_entropy'][name] - 1) < 0.01}")
    assert abs(value / bound["cross_entropy"][name] - 1) < 0.01 and abs(refund - bound["entropy"]) < 1

# %%
names = {"normal": "N(0, I)", "fitted": "fitted normal", "ddpm": "DDPM"}
net_cost = {names[k]: bound["cross_entropy"][k] - bound["entropy"] for k in names}
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), width_ratios=[1.2, 1])
left.barh(list(net_cost), list(net_cost.values()), color=[GREY, ORANGE, BLUE])
left.set(title="latent minus refund, nats a digit", xlim=(0, 1.15 * max(net_cost.values())))
for place, value in enumerate(net_cost.values()):
    left.text(value, place, f" {value:.0f}", va="center")
empty = codec.encode(-torch.ones(1, 1, 28, 28))
far = (z_held - empty).square().mean(1).sqrt()  # (n, 7, 7): how far each place is from what it is in a black picture
pairs = torch.stack([far[:, :, :-1].flatten(), far[:, :, 1:].flatten()])
right.scatter(*pairs[:, :4000], s=2, alpha=0.3, color=BLUE)
right.set(title="distance from the latent of black", xlabel="at a place", ylabel="at the next", aspect="equal")
plt.show()
alone = (torch.randn(1000, 4, 7, 7, generator=seeded(7)) - empty).square().mean(1).sqrt()
independent = torch.stack([alone[:, :, :-1].flatten(), alone[:, :, 1:].flatten()])
print(f"correlation of neighbours: {float(torch.corrcoef(pairs)[0, 1]):.1f}; if all numbers were independent: below 0.2: {float(torch.corrcoef(independent)[0, 1]) < 0.2}")

# %% [markdown]
# The fitted normal law hardly helps: mean and spread of each *channel* are nearly right already. What it cannot know is of two kinds. A place at the border is nearly always empty, one in the middle is not. And the numbers depend on each other: empty places lie beside empty places, a stroke goes on from one place to the next (right picture), and the four channels of one place have to fit together. A law that treats all places alike and all numbers as independent knows neither. The DDPM can know both.

# %%
saved = bound["cross_entropy"]["normal"] - bound["cross_entropy"]["ddpm"]
print(f"n = {bound['n']}: the DDPM saves {saved:.0f} nats of {net_cost['N(0, I)']:.0f} (standard error below {math.ceil(bound['error']['ddpm'] + bound['error']['normal'])})")
assert saved > 10 * bound["error"]["ddpm"] and net_cost["fitted normal"] > 0.9 * net_cost["N(0, I)"]

# %% [markdown]
# What it saves is a lower bound on the mismatch: saved $=\mathrm{KL}(q(z)\,\|\,\mathcal N)$, minus the DDPM's own mismatch, minus the gap of its chain. Neither of the last two is below 0, and neither is known.
#
# ### In pictures

# %%
def draw_latents(n, steps=25, seed=0):
    x_T = torch.randn(n, 4, 7, 7, generator=rng(seed, 17))
    return ddim_sample(trained.eps_model(), chain, x_T=x_T, num_steps=steps)


pixel = load_model(shipped("mnist-pixel"))
latents = draw_latents(200)
drawn = codec.decode(latents)
plain = vae.decode(torch.randn(200, 4, 7, 7, generator=rng(0, 18)))
in_pixels = ddim_sample(clip_x_0(pixel.eps_model(), pixel.schedule), pixel.schedule, (10, 1, 28, 28), num_steps=25, generator=rng(0, 17))
show_rows({"VAE alone": plain, "latent DDPM": drawn, "the next ten": drawn[10:], "DDPM on pixels": in_pixels}, 10)
plt.show()

# %% [markdown]
# The first row is what a VAE of this kind draws: ink without a plan. The two rows below have the *same decoder*. All the difference lies in which latents it was given. (A smaller latent, a list of eight numbers as in chapter 04, is easier for $\mathcal N(0,I)$, and then the reconstructions are blurred.) The last row is a DDPM without any autoencoder; we come to it.
#
# From the command line: `python -m ddpm_course sample --checkpoint mnist-latent`. It finds the codec beside the model, does not clip, and decodes at the end.
#
# ## How good are the digits?
#
# The classifier shipped with `mnist` took no part in any of this. A picture is **accepted** if the classifier gives one digit a probability of at least 90 %. That alone proves little: a classifier must choose, and it may be sure of nonsense. So the Fréchet distance stands beside it, with its floor, and a chi-square test of the classes (chapter 14).

# %%
eyes = load_classifier("mnist")
sure = lambda x: float((eyes(x).softmax(1).amax(1) >= report["sure"]).float().mean())
grey = torch.full((1, 1, 28, 28), 0.0)
print(f"an evenly grey picture: the classifier is {float(eyes(grey).softmax(1).max()):.1f} sure of a {int(eyes(grey).argmax())}")
print(f"accepted, n = 200 drawn here: within 0.07 of the report: {abs(sure(drawn) - report['latent'][0]['accepted']) < 0.07}")
print(f"held-out digits, n = {report['n']}: {sure(held_out):.2f}")
assert abs(sure(drawn) - report["latent"][0]["accepted"]) < 0.07 and sure(plain) < 0.1

# %%
labels = {"reconstruction": "held-out, encoded and decoded", "latent": "latent DDPM", "fitted": "decoded from fitted normal", "normal": "decoded from N(0, I)",
          "pixel": "same network on pixels", "mnist": "shipped mnist (2x2 patches)", "floors": "floor: training digits"}  # fmt: skip
columns = {"accepted": 9, "frechet_distance": 9, "precision": 10, "recall": 7}
for kinds in (("reconstruction", "latent", "fitted", "normal", "floors"), ("latent", "pixel", "mnist", "floors")):
    small = "pixel" in kinds
    print(f"{'n = ' + str(report['few'] if small else report['n']):31} accepted  Fréchet precision recall")
    for kind in kinds:
        rows = [row["few"] if small else row for row in report[kind]]
        print(f"{labels[kind]:30}" + "".join(f"{sum(row[key] for row in rows) / len(rows):{width}.2f}" for key, width in columns.items()))
print(f"{report['sampler']}, {len(report['seeds'])} seed, {len(report['floors'])} floors; real held-out digits accepted: {report['real']['accepted']:.2f}")
by_ddpm, by_normal = (report[kind][0]["accepted"] / report["real"]["accepted"] for kind in ("latent", "normal"))
print(f"decoded digits accepted at least 0.7 times as often as real ones, from N(0, I) at most 0.02 times, n = {report['n']}: {by_ddpm > 0.7 and by_normal < 0.02}")
print(f"classes as frequent as in held-out digits, p > 0.01: {report['latent'][0]['p_value'] > 0.01}; one digit likelier than all others together in over 80 % of {len(drawn)}: {float((eyes(drawn).softmax(1).amax(1) >= 0.5).float().mean()) > 0.8}")
assert by_ddpm > 0.7 and by_normal < 0.02 and report["latent"][0]["p_value"] > 0.01
assert report["latent"][0]["few"]["frechet_distance"] < 0.6 * report["pixel"][0]["few"]["frechet_distance"]

# %% [markdown]
# - **The ceiling.** Digits that are only encoded and decoded are accepted almost as often as real ones. The autoencoder loses little. (Distance, precision and recall flatter them: each is compared with its own original, for which a perfect autoencoder would have distance 0. So all of their distance is loss, and it is about as large as the floor.)
# - **The latent DDPM.** Two thirds of its digits are accepted, three quarters of what real ones get, at about four floors of distance. The test sees no difference in the classes. As a set they are digits beyond doubt; every third or fourth one has something odd. It was trained for 14,000 steps on one CPU core.
# - **The VAE alone.** One in a hundred, at ninety floors. The fitted normal law does no better. In nats the mismatch was at least 160 of 255; this is what it looks like.
# - **On pixels** (lower block, $n=100$, because these networks take long; at this $n$ all distances are larger, so compare within the block). The same network on pixels is far behind; between the shipped `mnist` and the latents nothing can be seen at this $n$ (one seed, and the floors alone vary between 2.4 and 3.9). Is that a fair comparison? We have to look at the bill first.
#
# ## The right size for a latent
#
# A schedule is made for data of standard deviation about 1. What if the latents have another one, $a$? By the closed form of chapter 02 the signal is $\sqrt{\bar\alpha_t}\,z$ of variance $a^2\bar\alpha_t$, the noise as ever.
#
# $$ \mathrm{SNR}_a(t)=\frac{a^2\,\bar\alpha_t}{1-\bar\alpha_t} \tag{21.6, definition} $$
#
# So a wrong scale *is* another schedule: every time has $a^2$ times the signal-to-noise ratio that somebody chose with care. With $a=5.5$ noise and signal are equal only at $\bar\alpha_t\approx1/31$, late in the walk, and most steps have nothing to decide. With $a=0.1$ the picture is gone at once. And at the last step, $z_T$ should be $\mathcal N(0,1)$, since that is where sampling starts. How far off is it? Its variance is $a^2\bar\alpha_T+1-\bar\alpha_T$, and (4.10) gives its $\mathrm{KL}(\cdot\,\|\,\mathcal N(0,1))$. Put $t=T$ in, with $\varepsilon$ standard normal:

# %% tags=["proof"]
a = sp.Symbol("a", positive=True)
var_T = a**2 * bar_t + 1 - bar_t
excess = (a**2 - 1) * bar_t
equation("21.7", Expect(log_normal(sp.sqrt(var_T) * e, 0, var_T) - log_normal(sp.sqrt(var_T) * e, 0, 1), e), (excess - sp.log(1 + excess)) / 2)
scaled = quadratic_schedule(T=1000, beta_1=0.00085, beta_T=0.012)
agrees((excess - sp.log(1 + excess)) / 2, {a: 5.5, bar_t: scaled.at(1000)}, normal_kl(torch.tensor(0.0, dtype=f64), 5.5**2 * scaled.at(1000) + 1 - scaled.at(1000), 0.0, 1.0))

# %% [markdown]
# The schedule in the last line is the one that Stable Diffusion was trained with. For $a=5.5$ the divergence is 0.004 nats for one number, about 70 for the 16,384 numbers of a 4×64×64 latent. The schedule ends at $\bar\alpha_T=0.0047$, and its latents had a standard deviation of about 5.5 before they were multiplied by the famous 0.18215, which is one over that. (LDM section 4.3.2 and its appendix on the autoencoders describe the rescaling.) What would have happened otherwise? We ask the oracle, which makes no mistakes: one number, two lumps of unequal weight, with root mean square $a$ (standard deviation $0.93\,a$). DDIM from exact normal quantiles, so that every error comes from the scale and the number of steps.

# %%
levels = (torch.arange(1000, dtype=f64) + 0.5) / 1000
start = torch.distributions.Normal(0.0, 1.0).icdf(levels)[:, None]
line = torch.linspace(-4, 4, 4001, dtype=f64)
lumps = lambda a: GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-0.9], [0.9]]) * a, torch.tensor([0.436, 0.436]) * a)
cumulated = lumps(1.0).log_prob(line[:, None]).exp().cumsum(0) * (line[1] - line[0])
wanted = line[torch.searchsorted(cumulated, levels).clamp(max=4000)]


def miss(a, plan, S):
    ends = ddim_sample(lumps(a).eps_model(plan), plan, x_T=start, num_steps=S)[:, 0].sort().values / a
    return float((ends - wanted).abs().mean())


sizes = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.5, 10.0, 20.0)
plans = {"cosine": cosine_schedule(1000), "Stable Diffusion's": scaled}
found = {(name, S): [miss(a, plan, S) for a in sizes] for name, plan in plans.items() for S in (10, 50)}

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 2.9), sharey=True)
for ax, name in zip(axes, plans, strict=True):
    curves(sizes, {f"{S} steps": found[name, S] for S in (10, 50)}, ax, xscale="log", yscale="log", title=f"{name} schedule", xlabel="root mean square a of the latents")
    ax.axvline(1, color=GREY, linewidth=0.8)
axes[0].set_ylabel("mean error, in units of a")
axes[0].set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
axes[0].minorticks_off()
plt.show()
at = lambda name, S, a: found[name, S][sizes.index(a)]
print(f"cosine, 10 steps: {at('cosine', 10, 0.1) / at('cosine', 10, 1.0):.0f} times the error at a = 0.1, {at('cosine', 10, 5.5) / at('cosine', 10, 1.0):.1f} times at a = 5.5")
print(f"Stable Diffusion's schedule at a = 5.5: {at(list(plans)[1], 10, 5.5):.2f} with 10 steps, {at(list(plans)[1], 50, 5.5):.2f} with 50")
assert min(found["cosine", 10]) == at("cosine", 10, 1.0) and at(list(plans)[1], 50, 5.5) > 0.85 * at(list(plans)[1], 10, 5.5)

# %% [markdown]
# Far from $a=1$ both ways cost quality. (With Stable Diffusion's schedule and 10 steps the best place is near 2.) With the cosine schedule more steps help at every $a$, though the curve keeps its shape, because this schedule destroys even large latents in the end. ("A latent of standard deviation 5 is never destroyed" is often said; with a schedule that ends at $\bar\alpha_T\approx10^{-9}$ it is false.) With the other schedule more steps heal nothing at $a=5.5$. The signal in $z_T$ still has standard deviation 0.38, beside noise of 1; the sampler starts from noise without it, and follows the right path from the wrong place.
#
# ### Why are our latents of the right size already?
#
# The standard deviations of our four channels lie between 0.9 and 1.05, before any scaling (`codec.std`). Chance? Let the encoder multiply its latents by a factor $k$ and the decoder divide by it. Nothing changes for the picture. Only the KL to $\mathcal N(0,I)$ does; per number it is $\frac12(k^2M-2\log k)$ plus a constant, with $M$ the mean of $z^2$. Its slope:

# %% tags=["proof"]
M, k = sp.symbols("M k", positive=True)
equation("21.8", sp.Derivative((k**2 * M - 2 * sp.log(k)) / 2, k), (k**2 * M - 1) / k)

# %% [markdown]
# The slope is 0 where $k^2M=1$. So **the KL pulls every channel to a mean square of 1, with however small a weight**; a small weight only makes it slow. LDM's weight is about a millionth, and training ends long before. That is a likely reason for the 5.5, and for the need to rescale. We rescale anyway: it costs nothing, and exactly 1 is better than nearly 1.
#
# ### The weight of the KL
#
# What does this weight trade? Let $R$ be the squared error of a picture and $K$ its KL. Some minimise $\frac12R+\beta K$, with a knob $\beta$. Our code has no such knob: it minimises the bound $\frac{R}{2\sigma^2}+K$ of a decoder with variance $\sigma^2$ for each pixel. It need not have one, since

# %% tags=["proof"]
R, K, beta = sp.symbols(r"R K \beta", positive=True)
equation("21.9", R / 2 + beta * K, beta * (R / (2 * beta) + K))

# %% [markdown]
# A weight $\beta$ *is* a decoder variance $\sigma^2=\beta$. "A tiny KL weight" says: a decoder that claims to be almost exact. The bound stays a bound.
#
# The *linear* VAE shows the whole trade without training. Take pictures in the coordinates in which they are uncorrelated (principal components); in one direction they have the variance $\lambda$. Decoder $x=\sqrt{\lambda-\beta}\,z+\sqrt\beta\,\varepsilon$, so that $x$ gets the right variance $\lambda$; its posterior, by the precisions of (21.3), is $\mathcal N\big(\frac{\sqrt{\lambda-\beta}}\lambda x,\ \frac\beta\lambda\big)$. Write $x=\sqrt\lambda\,u$ with $u$ standard normal over the data. The mean KL and the mean squared error of such a direction are

# %% tags=["proof"]
lam, beta = sp.symbols(r"\lambda \beta", positive=True)
u = normal("u")
gain = sp.sqrt(lam - beta)
z_mean, z_var, pixel_x = gain / lam * sp.sqrt(lam) * u, beta / lam, sp.sqrt(lam) * u
equation("21.10", Expect(kl(z_mean, z_var, 0, 1), u), sp.log(lam / beta) / 2)
equation("21.11", Expect((pixel_x - gain * (z_mean + sp.sqrt(z_var) * e)) ** 2, u, e), beta)

# %% [markdown]
# Both are simple. Every direction that is kept is known up to an error of exactly $\beta$, and pays half the logarithm of how much larger than that it was. A direction with $\lambda<\beta$ is not worth a single nat. (With the exact posterior as guess the bound is $\log p(x)$ itself. On average over the data it is highest where $w^2+\beta=\lambda$, and if $\lambda<\beta$ the best $w$ is 0.) It is switched off, and its error is all of $\lambda$. So the weight of the KL is a water level, and what lies below it is lost. (And $\mathbb E[z^2]=\frac{\lambda-\beta}\lambda+\frac\beta\lambda=1$ in each direction, as (21.8) wants it.) Here is the level on the 784 directions of our training digits, computed: left, the 784 variances and two levels; right, what a level costs and what it buys; below, held-out digits through the linear VAE at four levels:

# %%
flat, centre = splits.train.images.flatten(1).double(), splits.train.images.flatten(1).double().mean(0)
spectrum, basis = torch.linalg.eigh(torch.cov(flat.T))
spectrum = spectrum.clamp(min=1e-12)


def linear_vae(x, level):  # encode, draw, decode
    kept = spectrum > level
    z_mean = (x.flatten(1).double() - centre) @ basis[:, kept] * (spectrum[kept] - level).sqrt() / spectrum[kept]
    z = z_mean + (level / spectrum[kept]).sqrt() * torch.randn(z_mean.shape, generator=seeded(8), dtype=f64)
    return (centre + z * (spectrum[kept] - level).sqrt() @ basis[:, kept].T).reshape(x.shape).float()


levels_of = torch.logspace(-4, 1, 60, dtype=f64)
rate = torch.stack([(spectrum[spectrum > level] / level).log().sum() / 2 for level in levels_of])
error = torch.stack([spectrum.clamp(max=level).sum() / 784 for level in levels_of])

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.7))
curves(range(784), {"variance of each direction": spectrum.flip(0)}, left, yscale="log", ylim=(1e-4, 100), xlabel="direction")
for level in (1.0, 0.01):
    left.axhline(level, color=ORANGE, linewidth=0.9)
    left.text(500, level * 1.2, f"level {level:g}: {int((spectrum > level).sum())} kept", fontsize=9)
curves(rate, {"linear VAE, all levels": error}, right, xscale="log", yscale="log", xlabel="KL to N(0, I), nats a digit", ylabel="square error a pixel", xlim=(5, 2000))
_, record = load_tensors(shipped("mnist-latent"), "vae")
right.plot(record["validation"]["rate"], record["validation"]["square_error"], "o", color=RED, label="our ConvVAE, level 0.01")
right.legend(fontsize=9)
plt.show()
show_rows({"held out": ten} | {f"level {level:g}": linear_vae(ten, level).clamp(-1, 1) for level in (10.0, 1.0, 0.1, 0.01)})
plt.show()

# %%
ours, place = record["validation"], int((levels_of - 0.01).abs().argmin())
at_equal_error = float(rate[int((error - ours["square_error"]).abs().argmin())])
print(f"our ConvVAE on n = {ours['n']} validation digits: {ours['rate']:.0f} nats, error {ours['square_error']:.3f} a pixel; the linear one needs over 1.1 times the nats for that: {at_equal_error > 1.1 * ours['rate']}")
assert at_equal_error > 1.1 * ours["rate"]

# %% [markdown]
# At level 10 only the coarsest directions are left, and most digits are the same cloud. At 1 most can be read, at 0.1 they are a little rough, at 0.01 one hardly sees a difference. Below that, every halving of the *level* costs half a bit for each of hundreds of directions, and buys what nobody sees. LDM's tiny weight puts the level far down there on purpose: the autoencoder is to throw away *only* what nobody sees, and to leave all the rest of the work to stage two (LDM section 3.1). With ours at 0.01, which is also the error it reaches, the level is that of the best bound (with $d=784$ pixels $\frac d2\log\sigma^2+\frac R{2\sigma^2}$ is smallest at $\sigma^2=R/d$, the error a pixel). Our `ConvVAE` gets along with fewer nats than the linear one, since strokes are no sums of ghosts.
#
# ## What is saved
#
# Nearly all arithmetic of a U-Net is in its convolutions (chapter 15), and by (15.1) a convolution works once for each place of its map. So a factor $f$ across makes $f^2$ times less work in every convolution, and $f^4$ times less where every place looks at every other (attention). PyTorch counts:

# %%
def flops(call):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


one = torch.ones(1, dtype=torch.long)
of_latent, of_pixel = flops(lambda: net(torch.zeros(1, 4, 7, 7), one)), flops(lambda: pixel.net(torch.zeros(1, 1, 28, 28), one))
of_patches, of_decoder = flops(lambda: load_model(shipped("mnist")).net(torch.zeros(1, 1, 28, 28), one)), flops(lambda: vae.decode(torch.zeros(1, 4, 7, 7)))
print(f"one call, million operations: latent {of_latent / 1e6:.0f}, same network on pixels {of_pixel / 1e6:.0f}, shipped mnist on 2x2 patches {of_patches / 1e6:.0f}; decoder, once {of_decoder / 1e6:.0f}")
S = 50
for name, cost in (("same network", of_pixel), ("2x2 patches", of_patches)):
    print(f"a sample of {S} steps against {name}: {S * cost / (S * of_latent + of_decoder):.1f} times less arithmetic")

# %% [markdown]
# It is not quite $4^2=16$ times: 7×7 is padded to 8×8 so that it can be halved, and the decoder has to be paid once. And was the comparison in the table fair? A training step costs three calls (15.2). So the whole bill of training is:

# %%
of_encoder = flops(lambda: vae.encode(torch.zeros(1, 1, 28, 28)))
_, card = load_tensors(shipped("mnist-latent"), "vae")
seen_by = lambda model: model.config["steps"] * model.config["batch_size"]
bill = {"autoencoder": card["steps"] * card["batch"] * 3 * (of_encoder + of_decoder), "latent DDPM": seen_by(trained) * 3 * of_latent, "pixel DDPM": seen_by(pixel) * 3 * of_pixel,
        "shipped mnist": seen_by(load_model(shipped("mnist"))) * 3 * of_patches}  # fmt: skip
print({name: f"{cost / 1e12:.0f}" for name, cost in bill.items()}, "million million operations")

# %% [markdown]
# The network on pixels has had as much arithmetic as autoencoder and latent DDPM together, and is far behind. At 28×28 a network that sees each pixel is slow to train: this arithmetic buys 303 steps of 256 pictures, 200 of them warm-up, where the latents got 14,000 steps of 64. (Smaller batches would have bought a thousand steps more, and served it better.) The shipped `mnist`, which folds 2×2 pixels into one place (a small step in the direction of this chapter), cannot be told from the latents at $n=100$, and has had nearly three times the arithmetic. So the table does not say "latents draw better". It says: *for the same arithmetic, in these two recipes*, latents draw much better; for a few times more, on pictures this small, pixels are as good a choice.
#
# And the clock? Processor time on one thread, 16 pictures at a time, all networks in turn, medians (measured once, by the script):

# %%
times = report["times"]["seconds"]
ratio = lambda a, b: times[a] / times[b]
print(f"a call: pixels / latent {ratio('call mnist-pixel', 'call mnist-latent'):.0f}, 2x2 patches / latent {ratio('call mnist', 'call mnist-latent'):.1f}")
print(f"a training step: pixels / latent {ratio('step mnist-pixel', 'step mnist-latent'):.0f}, 2x2 patches / latent {ratio('step mnist', 'step mnist-latent'):.1f}")
per_sample = lambda name: S * times[f"call {name}"] + (times["decode"] if name == "mnist-latent" else 0)
print(f"a sample of {S} steps: pixels / latent {per_sample('mnist-pixel') / per_sample('mnist-latent'):.0f}, 2x2 patches / latent {per_sample('mnist') / per_sample('mnist-latent'):.1f}")

# %% [markdown]
# The clock confirms the count roughly. Small layers keep a processor less busy than large ones (the roof of chapter 15), so part of the gain is lost on the way.
#
# ### Where it becomes large
#
# Nobody here can run a network on 512×512 pixels, but one can count it. On paper, that is on the device `meta` of chapter 15. The network is that of DDPM's paper for 32×32 (35.7 million parameters), but with its attention on the lowest map, on latents of factor 8 and on the pixels: the same network at two sizes. Beside it the network that the paper itself uses at 256×256, which is cheaper for each pixel.

# %%
def counted(config, size):
    with torch.device("meta"):
        big = UNet(replace(config, image_size=size))
        return flops(lambda: big(torch.zeros(1, config.channels, size, size), torch.ones(1, dtype=torch.long)))


def decoder_of(size):
    with torch.device("meta"):
        big = ConvVAE(ConvVAEConfig(size, 3, 4, 128, (1, 2, 4, 4), 32))
        return flops(lambda: big.decode(torch.zeros(1, 4, size // 8, size // 8)))


print("billion operations     latent   same net on pixels   the paper's   decoder, once   50 steps: same / latent   paper's / latent")
for size in (256, 512):
    small = counted(UNetConfig(channels=4, attention_sizes=(size // 64,)), size // 8)
    same, paper, decode = counted(UNetConfig(attention_sizes=(size // 8,)), size), counted(UNetConfig.celebahq(), size), decoder_of(size)
    total = 50 * small + decode
    print(f"{size:4d} x {size} {small / 1e9:19.0f} {same / 1e9:20.0f} {paper / 1e9:13.0f} {decode / 1e9:15.0f} {50 * same / total:24.0f} {50 * paper / total:18.0f}")
    assert 64 <= same / small < 70 and 25 < 50 * paper / total < 30

# %% [markdown]
# Each call is at least 64 times cheaper; with the decoder about 40 times are left, and 27 against a network that was designed for large pictures. *That* is the reason why large models work on latents. What it costs: a second network to train first, and a ceiling. What the autoencoder has lost, no diffusion brings back.
#
# ## Between two digits
#
# A latent space tempts one to walk in it. Between two real digits there are four ways: mix the pixels; mix the latents straight; go along an arc (`slerp`); or go up through the DDPM's noise (chapter 13: `ddim_invert`), mix there on an arc, and come down again.

# %%
model = trained.eps_model()


def between(first, second, shares, steps=20):
    ends = torch.cat([first, second])
    z = codec.encode(ends)
    up = ddim_invert(model, chain, z, steps, iterations=3)
    rows = {"pixels": torch.cat([(1 - k) * first + k * second for k in shares])}
    rows["latents, straight"] = codec.decode(torch.cat([(1 - k) * z[:1] + k * z[1:] for k in shares]))
    rows["latents, arc"] = codec.decode(torch.cat([slerp(z[:1], z[1:], k) for k in shares]))
    rows["through the noise"] = codec.decode(ddim_sample(model, chain, x_T=torch.cat([slerp(up[:1], up[1:], k) for k in shares]), num_steps=steps))
    return rows


digit = {k: splits.test.images[splits.test.labels == k][:1] for k in range(10)}
rows = between(digit[2], digit[7], [k / 8 for k in range(9)])
show_rows(rows)
plt.show()
print(f"both ends of the last row lie within 0.1 a pixel of the decoded real digits: {bool((rows['through the noise'][[0, -1]] - codec.decode(codec.encode(torch.cat([digit[2], digit[7]])))).abs().mean() < 0.1)}")

# %% [markdown]
# Mixed pixels are two digits at once. Mixed latents are decoded with clean edges, but the middle is a blend all the same, with bits of both strokes: the decoder has to draw what it is told, and it was told two things. (Straight or on an arc makes little difference. An arc keeps the length, as noise needs it, and latents of digits are no noise.) The way through the noise is another: each picture on it was drawn by the DDPM, and what stands in the middle between a 2 and a 7 is a 9.
#
# ### Play with it
#
# Choose two digits and a place between them. Without a running kernel, the figure above shows the same for a 2 and a 7.

# %%
from ddpm_course.widgets import choice, explore, slider


def draw(first, second, share):
    found = between(digit[first], digit[second], [share])
    show_images(torch.cat([digit[first], *found.values(), digit[second]]), columns=6, title=f"{first}, then: {', '.join(found)}; then {second}")


explore(draw, first=choice([2, *(k for k in range(10) if k != 2)], "from"), second=choice([7, *(k for k in range(10) if k != 7)], "to"), share=slider(0.0, 1.0, 0.5, 0.05, "share"))

# %% [markdown]
# ## Where you have met this
#
# Text to image at full size is chapters 17, 18 and 21 put together. Stable Diffusion is a latent diffusion model (LDM section 3.3), and its parts are these:
#
# | part of Stable Diffusion | here |
# |---|---|
# | U-Net with attention and time embedding, ε-loss, DDIM and friends | built: 06–10, 13 |
# | cross-attention to the words of a prompt | built: 18 |
# | classifier-free guidance | built: 17, 18 |
# | autoencoder, scale factor, latents | built: 21, with factor 4 and not 8 |
# | inpainting, image to image | built: 19; on latents they are the same functions |
# | the text encoder | **not**: theirs was trained on hundreds of millions of captioned pictures; that of 18 knows a few dozen words |
# | the loss of the autoencoder | **not**: theirs adds a perceptual loss (distances in the features of another network) and an adversarial one (a critic), because squared error alone blurs fine texture (LDM section 3.1). Digits have none |
# | data and size | **not**: billions of pictures, a U-Net of 860 million parameters, thousands of GPU days. Ours: 4,000 digits, 1 million, minutes |
#
# Nothing in the three rows marked **not** is a new idea about diffusion. It is data, money and engineering, and that is honest work too.
#
# ## Common mistakes
#
# ### Decoding without undoing the scale
#
# The sampler gives standardised latents. The decoder wants raw ones. Forget to undo the scale (the first line of `codec.decode`), and there is no error message. How bad it looks depends on how far the channels were from mean 0 and spread 1. Ours were near, so let us also take latents that needed 0.18215, as in Stable Diffusion: the same VAE, its latents measured in units 5.5 times smaller.

# %%
eighty = latents[:80]
large_unit = Codec(vae, 5.5 * codec.mean, 5.5 * codec.std)  # what fit_codec finds if the encoder's numbers are 5.5 times as large
as_vae_sees = lambda raw: vae.decode(raw / 5.5)  # that VAE's own decoder
right = as_vae_sees(eighty * large_unit.std.reshape(1, 4, 1, 1) + large_unit.mean.reshape(1, 4, 1, 1))
wrong = {"scale undone": right, "forgotten": vae.decode(eighty), "forgotten, of 5.5": as_vae_sees(eighty)}
show_rows({name: x[:10] for name, x in wrong.items()})
plt.show()
print(f"accepted of {len(eighty)}: as it should be {sure(right):.1f}, forgotten {sure(wrong['forgotten']):.1f}; of 5.5 forgotten, less than half as often: {sure(wrong['forgotten, of 5.5']) < sure(right) / 2}")
assert sure(wrong["forgotten, of 5.5"]) < sure(right) / 2
torch.testing.assert_close(right, codec.decode(eighty), rtol=1e-3, atol=1e-3)

# %% [markdown]
# Our own latents forgive it: their spread is near 1 anyhow, and this is how the mistake gets into a program and stays. With latents that needed the factor, the decoder receives numbers far too close to 0, the digits fade, and nothing raises an error. A unit test finds it in the codec: `codec.decode(codec.encode(x))` against `x`, *with a codec whose mean and std are far from 0 and 1*. A script that calls `vae.decode` itself is found only by looking.
#
# ### Means in the place of draws
#
# "The encoder's mean is its best answer, so train stage two on the means." The pictures may well be as good. But look at (21.2): the refund is paid for the freedom in choosing $z$. Whoever sends the mean has no freedom, and may not take the refund. What does the bill say if one takes it all the same? (The prior is the fitted normal law here, so that no network is involved.)

# %%
some = held_out[:300]
q_mean, q_var = codec.posterior(some)
refund_300 = float((0.5 * (2 * math.pi * math.e * q_var).log()).flatten(1).sum(1).mean())
bills = {}
for name, z_some in (("draws", q_mean + q_var.sqrt() * torch.randn(q_mean.shape, generator=seeded(9))), ("means", q_mean)):
    picture = nats(normal_log_prob(some, codec.decode(z_some), record["variance"]))
    bills[name] = (picture, nats(normal_log_prob(z_some, 0.0, 1.0)), picture + nats(normal_log_prob(z_some, 0.0, 1.0)) - refund_300)
    print(f"{name}: picture {bills[name][0]:5.0f} + latent {bills[name][1]:4.0f} - refund {refund_300:3.0f} = {bills[name][2]:5.0f} nats")
print(f"spread of the means {float(q_mean.std()):.2f}, of the draws {float((q_mean.var() + q_var.mean()).sqrt()):.2f}; n = {len(some)}")
assert bills["means"][2] < bills["draws"][2] - 20

# %% [markdown]
# The bill with means is lower by about ninety nats, and it is wrong: it is no bound any more. And there is a practical side. The means are narrower than the draws (spread below 1), and they have fine structure in places where the decoder has only ever seen noise. Stage two then has to learn detail that the decoder ignores. Draws, fresh ones for each copy (`copies=8`), blur it, and are what the decoder was trained on. If $q$ is as narrow as LDM's, the difference vanishes, and both are found in programs.
#
# ### "The loss is lower on pixels, so that model is better"
#
# Look at the final validation losses of our two networks (same prediction, schedule and arithmetic; 303 steps of 256 on pixels, 14,000 of 64 on latents):

# %%
loss_of = {name: load_model(shipped(f"mnist-{name}")).history[-1]["val_loss"] for name in ("latent", "pixel")}
print({name: round(loss, 2) for name, loss in loss_of.items()})
x_0, eps_0 = held_out[:64], torch.randn(64, 1, 28, 28, generator=seeded(5))
times_0 = torch.linspace(1, 1000, 64).round().long()
ink = splits.train.images.std(0, keepdim=True)  # how much each pixel varies over the digits
with torch.no_grad():
    alpha_bar = pixel.schedule.at(times_0, 4).float()
    error = (pixel.net(alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps_0, times_0) - (alpha_bar.sqrt() * eps_0 - (1 - alpha_bar).sqrt() * x_0)).square()
torch.testing.assert_close(error.flatten(1).mean(1), diffusion_loss(pixel.net, pixel.schedule, x_0, times_0, eps_0, "v").detach(), rtol=1e-3, atol=1e-3)
quiet = (ink < 0.1).expand_as(error)
print(f"pixels that are black in nearly all digits: {float(quiet.float().mean()):.0%}; loss there {float(error[quiet].mean()):.2f}, elsewhere {float(error[~quiet].mean()):.2f}")

# %% [markdown]
# The pixel network has by far the lower loss, and draws far worse. A loss is an average over numbers, and over a third of the pixels are black in nearly all digits. Their noise is easy to guess. The latent has no such places: what is easy has been taken out by the autoencoder, and what is left is hard, part of it pure noise of $q$. *Losses of two data sets cannot be compared*, and latents are another data set. (Within one space they can; chapter 08.) Compare decoded samples, or bounds in nats that include the decoder.
#
# ### Scoring against reconstructions
#
# "Our samples are compared with what the autoencoder makes of the real digits; that is fair, for nothing better can come out." It is a legitimate question, and another one. As a score of the *whole* model it hides all that the autoencoder loses:

# %%
features = eyes.features(drawn)
some_real = held_out[:500]
against = {"held-out digits": some_real, "their reconstructions": codec.decode(codec.encode(some_real, seeded(6)))}
print({name: round(frechet_distance(features, eyes.features(x)), 1) for name, x in against.items()}, f"n = {len(drawn)} and {len(some_real)}")

# %% [markdown]
# The distance to reconstructions is the smaller one. It tells how well stage two has learned *its* data, and that is worth knowing. But a reader of "Fréchet distance 5" takes it for a distance to digits. Report the first; if you report the second, say so.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell. A wrong answer is answered by the hint that fits it. ★ takes a minute, ★★ a few, ★★★ needs pen and paper; a first hint is in the collapsed cell below each question.
#
# The same exercises on a sheet of their own: [without solutions](exercises/21_latent_diffusion_student.ipynb), [with solutions](exercises/21_latent_diffusion_solution.ipynb).

# %% [markdown]
# **21.1 ★** An autoencoder of factor 8 turns a colour picture of 512×512 pixels into a latent with 4 channels. How many times fewer numbers does the latent have?

# %% [markdown] tags=["hint"]
# **Hint 21.1**
#
# Count both. A colour picture has three numbers a pixel.

# %% tags=["exercise"]
times_fewer = ...
check("21.1", times_fewer)

# %% tags=["solution"]
times_fewer = (3 * 512 * 512) / (4 * 64 * 64)
must_pass("21.1", times_fewer)

# %% [markdown]
# **21.2 ★** Latents have the standard deviation `a`. Return a pair: the factor by which their signal-to-noise ratio differs from $\bar\alpha_t/(1-\bar\alpha_t)$, that of data of spread 1; and the factor by which to multiply the latents so that their spread becomes 1.

# %% [markdown] tags=["hint"]
# **Hint 21.2**
#
# The ratio is one of variances. The second number is Stable Diffusion's 0.18215 if $a$ is 5.49.

# %% tags=["exercise"]
def two_factors(a):
    return ...


check("21.2", two_factors)


# %% tags=["solution"]
def two_factors(a):
    return a**2, 1 / a


must_pass("21.2", two_factors)

# %% [markdown]
# **21.3 ★★** The encoder answers with `means` and `variances` of one channel for some pictures (lists of equal length). Return the mean and the standard deviation of a *draw* from this channel, over all pictures (these are all there are: divide by $n$). Do not draw anything.

# %% [markdown] tags=["hint"]
# **Hint 21.3**
#
# A draw varies for two reasons: the pictures differ, and $q$ has a width. The variances add up.

# %% tags=["exercise"]
def scale_of(means, variances):
    return ...


check("21.3", scale_of)


# %% tags=["solution"]
def scale_of(means, variances):
    centre = sum(means) / len(means)
    between = sum((value - centre) ** 2 for value in means) / len(means)
    return centre, (between + sum(variances) / len(variances)) ** 0.5


must_pass("21.3", scale_of)

# %% [markdown]
# **21.4 ★★** A sample takes `S` calls. One call on pixels costs `C` operations and nothing else is needed. On latents of factor `f` a call costs `C / f**2`, and the decoder costs `D` once. How many times less arithmetic is it?

# %% [markdown] tags=["hint"]
# **Hint 21.4**
#
# All of the one over all of the other.

# %% tags=["exercise"]
def speedup(S, C, f, D):
    return ...


check("21.4", speedup)


# %% tags=["solution"]
def speedup(S, C, f, D):
    return S * C / (S * C / f**2 + D)


must_pass("21.4", speedup)

# %% [markdown]
# **21.5 ★★★** Draws included, one latent number has the law $z\sim\mathcal N(m,\tau^2)$ over all pictures; each guess $q(z\mid x)$ has the variance $v<\tau^2$. How many nats does the *perfect* prior save against $\mathcal N(0,1)$, on average? In (21.5) this is the term $\mathrm{KL}(q(z)\,\|\,p(z))$.

# %% [markdown] tags=["hint"]
# **Hint 21.5**
#
# The aggregate posterior is the law of $z$ over all pictures, draws included. The formula is (4.10).

# %% tags=["exercise"]
def nats_saved(m, tau, v):
    return ...


check("21.5", nats_saved)


# %% tags=["solution"]
def nats_saved(m, tau, v):
    return (tau**2 - 1 - math.log(tau**2) + m**2) / 2


must_pass("21.5", nats_saved)

# %% [markdown]
# ## What comes next: you
#
# Chapter 00 promised that a television screen full of static would turn into a digit, and that you would understand why. Here is what was on loan, and where it was paid back. The mixing formula: 02. The reverse step: 03. The bound and its three terms: 04 and 05. Why guessing the noise is enough, and how low the loss can get: 06. Network, training, sampling, and sampling in few steps: 07 to 10. Then you learnt to distrust: wrong lines that run (11), bits (12), the same thing as a differential equation (13), scores with floors (14), larger machines (15). And to steer: by a classifier (16), without one (17), by words (18), by a picture (19); for curves and sound (20); and in a smaller space (21).
#
# You can now read the papers named in the chapters, and check their formulas with a few lines of SymPy or with an oracle. You can write a diffusion model from an empty file, test it without training, train it, and say with numbers how good it is. And when a result looks too good, you know what to ask: which $n$, which floor, which scale, which clip, against what data.
#
# Where to go from here:
#
# - **Train on pictures of your own** (chapter 15; `python -m ddpm_course train --data FOLDER`). Nothing teaches like a loss that will not fall.
# - **Put two chapters together.** Captions (18) in a latent space (21). Series (20) with inpainting (19). Guidance (17) on a noise-free path (13).
# - **Read on:** EDM for a cleaner choice of schedule, network scaling and sampler; flow matching, where the path from noise to data is a straight line and the network predicts its velocity, a close relative of $v$; consistency models and distillation, which learn to jump; transformers in the place of the U-Net, on latents like ours.
# - **Teach it.** Every chapter is also a set of slides, and the exercises check themselves.
#
# Start again at any point and change a number. That is what the notebooks are for.
