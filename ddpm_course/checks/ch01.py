"""Checks of chapter 01, Gaussians."""

import math

from . import Exercise

_BELLS = ((-1.0, 0.64, 1.0, 0.25), (0.3, 2.0, -0.4, 0.5), (2.0, 0.1, 2.5, 9.0))
_NOISY = ((0.4, 0.7, 0.7, 0.5), (-1.1, 0.9, 0.4, 0.2), (0.8, 0.3, 1.2, 0.8))

EXERCISES = {
    "1.1": Exercise(
        answer=1.5,
        hint="The factor enters the standard deviation as |a|; the shift does not enter at all. The 0.25 is a variance.",
        wrong={
            "That is the variance of y, 9 times 0.25; the question asks for the standard deviation.": 2.25,
            "0.25 is the variance of x. Take its root first, then multiply by 3.": 0.75,
            "A width is never negative: a mirrored bell is as wide as before.": -1.5,
        },
    ),
    "1.2": Exercise(
        answer=(13.0, 9.0),
        hint="First hold x_0 = 3 fixed: x_0^2 + 4 E[eps^2]. Then average x_0^2 over its two values as well.",
        wrong={
            "The two are swapped: the first holds x_0 = 3 fixed, the second averages over x_0 too.": (9.0, 13.0),
            "The noise has factor 2, so its variance is 2^2 = 4, not 2.": (11.0, 7.0),
            "The second one squares the mean of x_0, which is 1; it needs the mean of the square, which is 5.": (13.0, 5.0),
        },
    ),
    "1.3": Exercise(
        answer=lambda m_1, v_1, m_2, v_2: ((m_1 * v_2 + m_2 * v_1) / (v_1 + v_2), v_1 * v_2 / (v_1 + v_2)),
        inputs=_BELLS,
        hint="Precisions (1 / variance) add, and each mean counts with its precision.",
        wrong={
            "That is the law of the sum of two variables. Here two densities are multiplied: the result is narrower than both.": lambda m_1, v_1, m_2, v_2: (
                m_1 + m_2,
                v_1 + v_2,
            ),
            "Each mean is weighed with its own variance; then the vaguer witness would count more. Weigh with 1 / variance.": lambda m_1, v_1, m_2, v_2: (
                (m_1 * v_1 + m_2 * v_2) / (v_1 + v_2),
                v_1 * v_2 / (v_1 + v_2),
            ),
            "You returned the precision; the variance is its inverse.": lambda m_1, v_1, m_2, v_2: (
                (m_1 * v_2 + m_2 * v_1) / (v_1 + v_2),
                1 / v_1 + 1 / v_2,
            ),
            "The two means do not count equally, unless the bells are equally wide.": lambda m_1, v_1, m_2, v_2: (
                (m_1 + m_2) / 2,
                v_1 * v_2 / (v_1 + v_2),
            ),
        },
    ),
    "1.4": Exercise(
        answer=40_000.0,
        hint="The standard error is std / sqrt(n). Solve for n.",
        wrong={
            "The error falls like 1 / sqrt(n), not like 1 / n: square the ratio.": 200.0,
            "You squared 0.01 but not the standard deviation.": 20_000.0,
            "You squared the standard deviation but not the error.": 400.0,
        },
    ),
    "1.5": Exercise(
        answer=lambda x, a, b, p: (x - a * math.tanh(a * x / b**2 + 0.5 * math.log(p / (1 - p)))) / b,
        inputs=_NOISY,
        hint="w = p N(x; a, b^2) / (p N(x; a, b^2) + (1-p) N(x; -a, b^2)); the two noises are (x-a)/b and (x+a)/b.",
        wrong={
            "You did not use the probability p of the point +1: it multiplies its bell.": lambda x, a, b, p: (
                (x - a * math.tanh(a * x / b**2)) / b
            ),
            "You used only p, and not how well x fits each point: weigh p with the height of its bell at x.": lambda x, a, b, p: (
                (x - a * (2 * p - 1)) / b
            ),
            "In the exponent one divides by 2 b^2, two times the variance, not by 2 b.": lambda x, a, b, p: (
                (x - a * math.tanh(a * x / b + 0.5 * math.log(p / (1 - p)))) / b
            ),
            "That is the noise if x_0 were 0, which it never is; average the two possible noises.": lambda x, a, b, p: x / b,
        },
    ),
    "1.6": Exercise(
        answer=lambda s, r, rho: (s + r * rho) ** 2 + r**2 * (1 - rho**2),  # w = rho u + sqrt(1 - rho^2) v
        inputs=((0.6, 0.8, 0.5), (1.0, 2.0, -0.9), (0.3, 0.7, 0.2)),
        hint="E[(s u + r w)^2] = s^2 + 2 s r E[u w] + r^2, because E[u^2] = E[w^2] = 1.",
        wrong={
            "Variances add only if the two are independent; here the mixed term is not 0.": lambda s, r, rho: s**2 + r**2,
            "Standard deviations add only if both are the same noise, rho = 1.": lambda s, r, rho: (s + r) ** 2,
            "The mixed term appears twice when the square is expanded.": lambda s, r, rho: s**2 + r**2 + s * r * rho,
            "You took the root at the end; the question asks for the variance.": lambda s, r, rho: (s**2 + r**2 + 2 * s * r * rho) ** 0.5,
        },
    ),
    "1.7": Exercise(
        answer=lambda x, m, v, a, b: (m + a * v / (a**2 * v + b**2) * (x - a * m), v - (a * v) ** 2 / (a**2 * v + b**2)),
        inputs=((0.4, 0.2, 0.5, 0.8, 0.6), (-1.0, 0.5, 2.0, 0.3, 0.9), (1.2, -0.7, 1.0, 0.5, 0.5)),
        hint="The witness x says x / a, with variance (b / a)^2. Precisions add, and each mean counts with its precision.",
        wrong={
            "x is a x_0 plus noise. As a witness about x_0 it says x / a, with variance (b / a)^2.": lambda x, m, v, a, b: (
                (m / v + x / b**2) / (1 / v + 1 / b**2),
                1 / (1 / v + 1 / b**2),
            ),
            "b is a standard deviation; a precision is one over the square of it.": lambda x, m, v, a, b: (
                (m / v + a * x / b) / (1 / v + a**2 / b),
                1 / (1 / v + a**2 / b),
            ),
            "You returned the precision; the variance is its inverse.": lambda x, m, v, a, b: (
                (m / v + a * x / b**2) / (1 / v + a**2 / b**2),
                1 / v + a**2 / b**2,
            ),
            "That is what x alone says. The law of the data is a witness, too.": lambda x, m, v, a, b: (x / a, b**2 / a**2),
        },
    ),
    "1.8": Exercise(
        answer=lambda d: 2 * math.sqrt(d / 2) / d,  # |z|^2 has the Gamma law with shape d/2 and scale 2
        inputs=((1,), (16,), (784,)),
        hint="One z^2 has variance 3 - 1 = 2. The sum of d of them has variance 2d. Then divide by d.",
        wrong={
            "That is the variance; the question asks for the standard deviation.": lambda d: 2 / d,
            "That belongs to the squared length itself; it still has to be divided by d.": lambda d: math.sqrt(2 * d),
            "The variance of z^2 is E[z^4] - E[z^2]^2 = 3 - 1 = 2, not 1.": lambda d: 1 / math.sqrt(d),
            "E[z^4] is not yet the variance of z^2: subtract the square of its mean.": lambda d: math.sqrt(3 / d),
        },
        tolerance=1e-6,
    ),
}
