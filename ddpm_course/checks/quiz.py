"""Checks of the entry quiz: ten questions, each with the section that teaches it, and where to start."""

import math
from typing import Any

from ..errors import ValueCourseError
from . import Exercise, verdict

SECTIONS = {
    "Q.1": ("01_gaussians", "Standard deviation and variance"),
    "Q.2": ("01_gaussians", "Adding independent Gaussians"),
    "Q.3": ("03_posterior", "First by counting"),
    "Q.4": ("03_posterior", "Bayes' rule with a condition"),
    "Q.5": ("01_gaussians", "Which variables does an expectation run over?"),
    "Q.6": ("01_gaussians", "How far apart are two Gaussians?"),
    "Q.7": ("01_gaussians", "Gradients through a random draw"),
    "Q.8": ("02_forward", "By hand"),
    "Q.9": ("00_tour", "Destroy"),
    "Q.10": ("00_tour", "Walk back in small steps"),
}
PROBABILITY, CODE, DIFFUSION = ("Q.1", "Q.2", "Q.3", "Q.4", "Q.5", "Q.6"), ("Q.7", "Q.8"), ("Q.9", "Q.10")


def _letter(answer: Any) -> int:
    """a, b, c ... as a number."""
    if not isinstance(answer, str) or answer.strip().lower() not in list("abcd"):
        raise ValueCourseError('answer with one letter in quotes, for example "a"')
    return ord(answer.strip().lower())


def _question(number: str, answer: Any, hint: str, wrong: dict[str, Any]) -> tuple[str, Exercise]:
    """An exercise whose hints end in the section to read."""
    chapter, section = SECTIONS[number]
    read = f' To read: chapter {chapter[:2]}, "{section}".'
    measure = _letter if isinstance(answer, str) else None
    return number, Exercise(answer, hint + read, {text + read: value for text, value in wrong.items()}, measure=measure)


EXERCISES = dict(
    [
        _question(
            "Q.1",
            math.sqrt(9),
            "The second number in N(mean, variance) is a variance. A typical distance is its root.",
            {
                "That is the variance, an area; a typical distance is a length.": 9,
                "You squared it; the number given is the square already.": 81,
            },
        ),
        _question(
            "Q.2",
            math.hypot(3, 4),
            "Variances of independent numbers add: 9 + 16.",
            {
                "Standard deviations do not add; variances do, if the numbers are independent.": 7,
                "That is the variance of the sum; the question asks for the standard deviation.": 25,
            },
        ),
        _question(
            "Q.3",
            2 / 6,
            "Keep only the throws that fit what you know, and count among them.",
            {
                "That is the probability before you were told anything: only 2, 4 and 6 are left.": 1 / 6,
                "That is the probability of an even number. Among the even ones, how often is it a six?": 1 / 2,
            },
        ),
        _question(
            "Q.4",
            18 / 26,
            "Of 100 pictures 20 are sevens and 18 of these ring; 80 are not and 8 of these ring, too.",
            {
                "That is how often the detector rings for a seven. Asked is how often a ring means a seven.": 0.9,
                "That is the probability of a seven that rings; divide by the probability of a ring.": 0.18,
                "That is the prior, before the bell rang.": 0.2,
            },
        ),
        _question(
            "Q.5",
            "a",
            "The average runs over eps only; whatever is not drawn again stays in the answer.",
            {
                "That is the average over x_0 as well. The subscript names eps only.": "b",
                "x_0 is held fixed, but it does not vanish: it stays in the answer.": "c",
                "Something random is left in that answer; after the average over eps no eps is left.": "d",
            },
        ),
        _question(
            "Q.6",
            "c",
            "KL(q || p) is an average of log(q / p) over q.",
            {
                "Exchange q and p and in general the number changes: it is no distance in that sense.": "a",
                "Single logarithms may be negative, their average over q may not.": "b",
                "Where q has probability and p has none, the logarithm is infinite. There is no upper limit of 1.": "d",
            },
        ),
        _question(
            "Q.7",
            2 * (3 * 1 - 5) * 3.0,
            "The outer derivative 2 (3w - 5), times the inner one, 3.",
            {
                "The inner derivative is missing: w stands there times 3.": -4,
                "Mind the sign: 3 - 5 is negative, so the loss falls when w grows.": 12,
                "That is the loss itself.": 4,
            },
        ),
        _question(
            "Q.8",
            "b",
            "Shapes are aligned from the right: (8,) meets the last axis of (8, 1, 8, 8).",
            {
                "That needs a shape of (8, 1, 1, 1); PyTorch aligns shapes from the right.": "a",
                "There is no error, and that is the trap: 8 fits the last axis by chance.": "c",
                "PyTorch has no axis without a length; a missing axis is added on the left.": "d",
            },
        ),
        _question(
            "Q.9",
            0.8 * -1 + 0.6 * 0.5,
            "x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps = 0.8 * (-1) + 0.6 * 0.5.",
            {
                "The factors are square roots, 0.8 and 0.6.": -0.64 + 0.36 * 0.5,
                "The noise has a factor, too.": -0.8 + 0.5,
                "The picture is shrunk, by sqrt(0.64).": -1 + 0.6 * 0.5,
            },
        ),
        _question(
            "Q.10",
            "b",
            "It answers with a guess of the noise (or something equivalent); a formula and a draw make the next picture of it.",
            {
                "The next picture is drawn at random around a mean that follows from the network's answer.": "a",
                "One pass is one small step, not a finished picture.": "c",
                "In DDPM the amount of noise at each time is fixed beforehand, by the schedule.": "d",
            },
        ),
    ]
)


def recommend(answers: dict[str, Any]) -> str:
    """Where to start, from the answers to all ten questions; blank ones count as not known."""
    missed = [number for number in EXERCISES if verdict(number, answers.get(number))]
    unsure = [sum(number in missed for number in part) for part in (PROBABILITY, CODE, DIFFUSION)]
    lines = [f"{len(EXERCISES) - len(missed)} of {len(EXERCISES)} right."]
    lines += [f"  {number}: chapter {SECTIONS[number][0][:2]}, {SECTIONS[number][1]}" for number in missed]
    return "\n".join([*lines, _path(*unsure)])


def _path(probability: int, code: int, diffusion: int) -> str:
    """The advice for so many misses in each part."""
    if probability >= 3:
        return "Start: the straight path, 00, then 01 in full with its exercises. Chapter 01 was written for you."
    if probability:
        return "Start: the straight path, 00, then 01, where the sections above come first. Go on to 02."
    if code:
        return "Start: the straight path, 00, 02, 03 and on; 01 is a reference for you. Run every cell that is written by hand."
    if diffusion:
        return "Start: the code-first path, 00, 08, 09, then 02 to 06. Or the straight path without 01, if you prefer proofs first."
    return "Start: the code-first path, 00, 08, 09; or go straight to 05, 06 and 10, and test yourself with the exercises marked with three stars."
