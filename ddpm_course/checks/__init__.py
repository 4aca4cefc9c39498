"""Exercises that answer back: check("2.1", answer) compares with an independent formula and gives the hint that fits the mistake."""

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import CourseError, ValueCourseError

BLANK = (None, Ellipsis)
STILL_BLANK = "still blank"
MODULES = {"B": "bugs", "Q": "quiz"}  # exercises that belong to no chapter


class NotSolved(CourseError):
    """The answer is blank or wrong; the message is the hint."""


@dataclass(frozen=True)
class Exercise:
    """A question's right answer (a number, a tensor or a function), hints, and the wrong answers that people give.

    For a function, `inputs` lists the argument tuples on which it is compared. `wrong` maps a hint to the wrong answer it answers.
    `measure` turns an answer that cannot be compared as it is (a random one, a network, a letter) into numbers.
    """

    answer: Any
    hint: str
    wrong: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[tuple[Any, ...], ...] = ()
    tolerance: float = 1e-4
    measure: Callable[[Any], Any] | None = None


def _asked(answer: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The answer on a copy, so that a function that changes what it is given cannot change the question."""
    return answer(*copy.deepcopy(args))


def _values(answer: Any, exercise: Exercise) -> list[torch.Tensor]:
    if exercise.measure:
        results = [exercise.measure(answer)]
    else:
        results = [_asked(answer, args) for args in exercise.inputs] if callable(answer) else [answer]
    return [torch.as_tensor(r, dtype=torch.float64) for r in results]


def _same(answer: Any, wanted: Any, exercise: Exercise) -> bool:
    mine, theirs = _values(answer, exercise), _values(wanted, exercise)
    close = lambda a, b: a.shape == b.shape and torch.allclose(a, b, rtol=exercise.tolerance, atol=exercise.tolerance)  # noqa: E731
    return len(mine) == len(theirs) and all(map(close, mine, theirs))


def exercises(chapter: int | str) -> dict[str, Exercise]:
    """All exercises of one chapter, by number; "B" are the planted bugs, "Q" is the entry quiz."""
    module = MODULES.get(str(chapter)) or f"ch{chapter:0>2}"
    try:
        return importlib.import_module(f"{__name__}.{module}").EXERCISES
    except ModuleNotFoundError as error:
        raise ValueCourseError(f"chapter {chapter} has no exercises") from error


def verdict(number: str, answer: Any) -> str:
    """Empty if the answer is right; otherwise the hint that fits it."""
    chapter = exercises(number.split(".")[0])
    if number not in chapter:
        raise ValueCourseError(f"no exercise {number}; there are {', '.join(chapter)}")
    exercise = chapter[number]
    try:
        probe = _asked(answer, exercise.inputs[0]) if callable(answer) and exercise.inputs else answer
        if any(probe is blank for blank in BLANK):
            return STILL_BLANK
        if _same(answer, exercise.answer, exercise):
            return ""
        hint = next((hint for hint, wrong in exercise.wrong.items() if _same(answer, wrong, exercise)), exercise.hint)
    except Exception as error:  # whatever a learner's code raises becomes part of the answer
        return f"your code stopped with {type(error).__name__}: {error}"
    return f"not yet. {hint}"


def check(number: str, answer: Any) -> None:
    """Say whether the answer to exercise `number` is right, or give a hint. A function that returns `...` counts as blank."""
    result = verdict(number, answer)
    print(f"Exercise {number}: {result or 'right!'}")


def must_pass(number: str, answer: Any) -> None:
    """check(), but a wrong answer raises NotSolved: used under every solution, so that a solution cannot rot."""
    if result := verdict(number, answer):
        raise NotSolved(f"Exercise {number}: {result}")
    check(number, answer)
