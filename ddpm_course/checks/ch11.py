"""Checks of chapter 11, common mistakes."""

import math
from collections.abc import Callable, Sequence

from . import Exercise

Factor = Callable[[int], float]
_BETAS = (0.02, 0.05, 0.1, 0.2)


def _bar(betas: Sequence[float], t: int) -> float:
    """alpha_bar_t through logarithms; alpha_bar_0 = 1."""
    return math.exp(sum(math.log1p(-beta) for beta in betas[:t]))


def _factor(shift: int, betas: Sequence[float] = _BETAS, noise: float = 0.0) -> Factor:
    """t -> sqrt(1 - alpha_bar) of time t + shift, as far as the table goes, with a little rounding."""
    return lambda t: math.sqrt(1 - _bar(betas, min(t + shift, len(betas)))) + noise


def _slips(factor: Factor, betas: Sequence[float]) -> bool:
    """By running product and by the variance that one more step leaves: v_t = (1 - beta_t) v_{t-1} + beta_t."""
    variance = 0.0
    for t, beta in enumerate(betas, 1):
        variance = (1 - beta) * variance + beta
        if abs(factor(t) - math.sqrt(variance)) > 1e-6:
            return True
    return False


_LONG = tuple(1e-4 + (0.02 - 1e-4) * k / 999 for k in range(1000))
_SLIPS = (
    (_factor(0), _BETAS),
    (_factor(-1), _BETAS),
    (_factor(1), _BETAS),
    (_factor(0, noise=1e-9), _BETAS),
    (_factor(-1, _LONG), _LONG),
    (_factor(1, _LONG), _LONG),
)

_STEPS = (
    (0.7, -0.3, 0.1, 0.6, 1.2, 5),
    (-1.1, 0.8, 0.02, 0.3, -0.5, 9),
    (0.4, 0.9, 0.1, 0.9, 0.7, 1),
)  # x_t, eps_hat, beta, alpha_bar, z, t


def _mended(x_t: float, eps: float, beta: float, bar: float, z: float, t: int) -> float:
    """Through x_0_hat and the posterior's mean by precisions; then the noise."""
    x_0_hat, bar_s = (x_t - math.sqrt(1 - bar) * eps) / math.sqrt(bar), bar / (1 - beta)
    if t == 1:
        return x_0_hat
    prior, likelihood = 1 / (1 - bar_s), (1 - beta) / beta
    return (prior * math.sqrt(bar_s) * x_0_hat + likelihood * x_t / math.sqrt(1 - beta)) / (prior + likelihood) + math.sqrt(beta) * z


def _mean(x_t: float, eps: float, beta: float, bar: float) -> float:
    """Ho eq. 11: only used inside wrong answers."""
    return (x_t - beta / math.sqrt(1 - bar) * eps) / math.sqrt(1 - beta)


def _reused(beta_1: float, beta_2: float) -> float:
    """x_2 from x_0 = 0 with eps = 1 in both steps: its square is the variance."""
    return (math.sqrt(1 - beta_2) * math.sqrt(beta_1) + math.sqrt(beta_2)) ** 2


EXERCISES = {
    "11.1": Exercise(
        answer=0.2,
        hint="M16: the correlation is sqrt(beta_t / (1 - alpha_bar_t)).",
        wrong={
            "That is the share of the variance; the correlation is its root.": 0.04,
            "That is the standard deviation of the step's noise; compare it with that of all the noise, sqrt(1 - alpha_bar_t).": math.sqrt(
                0.02
            ),
            "In x_t the noise of this step is a small part of all the noise; they are not the same variable.": 1.0,
        },
    ),
    "11.2": Exercise(
        answer=2.25,
        hint="In one dimension an inner position gets 3 or 2 contributions. In two dimensions the counts of the two directions are multiplied.",
        wrong={
            "That is the ratio in one dimension; a picture has two.": 1.5,
            "It would be 1 if the stride divided the kernel; 2 does not divide 5.": 1.0,
            "Those are the numbers of the corners; look at inner positions, where no border takes contributions away.": 9.0,
        },
    ),
    "11.3": Exercise(
        answer=_mended,
        inputs=_STEPS,
        hint="Three lines are wrong: the share of eps_hat with its division by sqrt(alpha) (M8), the root of the variance (M6), and t = 1 (M25).",
        wrong={
            "That is the snippet as it was: mend the mean (M8), the root (M6) and the last step (M25).": lambda x, e, b, bar, z, t: (
                x - b * e + b * z
            ),
            "The mean is right now. The noise is still multiplied by the variance (M6).": lambda x, e, b, bar, z, t: (
                _mean(x, e, b, bar) + (b * z if t > 1 else 0)
            ),
            "Mean and root are right now. What happens at t = 1 (M25)?": lambda x, e, b, bar, z, t: _mean(x, e, b, bar) + math.sqrt(b) * z,
            "Root and last step are right now; the mean is still the snippet's (M8).": lambda x, e, b, bar, z, t: (
                x - b * e + (math.sqrt(b) * z if t > 1 else 0)
            ),
            "The share of the noise is right; the division by sqrt(alpha) is missing.": lambda x, e, b, bar, z, t: (
                x - b / math.sqrt(1 - bar) * e + (math.sqrt(b) * z if t > 1 else 0)
            ),
        },
    ),
    "11.4": Exercise(
        answer=_reused,
        inputs=((0.1, 0.2), (0.5, 0.5), (0.01, 0.3)),
        hint="x_2 = (sqrt(alpha_2 beta_1) + sqrt(beta_2)) eps: one variable with one factor. Its variance is the factor squared.",
        wrong={
            "That is the variance with two independent noises, which is what the code should give; the question is what it gives.": lambda b, c: (
                1 - (1 - b) * (1 - c)
            ),
            "You forgot that the second step shrinks what the first one brought.": lambda b, c: (math.sqrt(b) + math.sqrt(c)) ** 2,
            "That is the standard deviation; square it.": lambda b, c: math.sqrt((1 - c) * b) + math.sqrt(c),
        },
    ),
    "11.5": Exercise(
        answer=0.45,
        hint="M5: (sqrt(alpha_bar_s) (1 - alpha) / (1 - alpha_bar_t))^2 Var(x_0 | x_t), with alpha = alpha_bar_t / alpha_bar_s. Which x_0 can lead to 0?",
        wrong={
            "The weight of x_0 must be squared: variances are multiplied by the square of a factor.": math.sqrt(0.45),
            "That is the posterior's variance, which the sampler does add; the question asks for what it leaves out.": 0.15,
            "That is the whole variance of x_s given x_t; take away what the sampler adds.": 0.6,
            "x_0 is not known at x_t = 0: it is -1 or +1, with equal right.": 0.0,
        },
    ),
    "11.6": Exercise(
        answer=_slips,
        inputs=_SLIPS,
        hint="Compare factor(t) with sqrt(1 - (1 - beta_1) ... (1 - beta_t)) at every t, with a tolerance of about 1e-6.",
        wrong={
            "A look at t = T does not notice it: there neighbours are nearly equal. Look at t = 1, too.": lambda f, betas: (
                abs(f(len(betas)) - math.sqrt(1 - _bar(betas, len(betas)))) > 1e-6
            ),
            "Floating-point numbers are not compared with ==; a correct table came out as slipped.": lambda f, betas: any(
                f(t) != math.sqrt(1 - math.prod(1 - beta for beta in betas[:t])) for t in range(1, len(betas) + 1)
            ),
            "Your test is the other way round: True means that the table has slipped.": lambda f, betas: not _slips(f, betas),
            "It never says no. A test that cannot fail is no test.": lambda f, betas: False,
            "You notice a slip downwards only; at t = 1 a slip upwards gives too much noise, not too little.": lambda f, betas: (
                f(1) < math.sqrt(betas[0]) - 1e-6
            ),
        },
    ),
}
