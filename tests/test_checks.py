"""Exercise checks of every chapter: the answer passes, the blank does not, each wrong answer gets its own hint."""

import re
from pathlib import Path

import pytest

from ddpm_course import checks
from ddpm_course.checks import MODULES, Exercise, NotSolved, check, exercises, must_pass, verdict
from ddpm_course.errors import CourseError

CHAPTERS = sorted(int(path.stem[2:]) for path in Path(checks.__file__).parent.glob("ch[0-9][0-9].py"))
SETS = [*CHAPTERS, *MODULES]
ALL = [(number, exercise) for chapter in SETS for number, exercise in exercises(chapter).items()]
WRONG = [(number, hint, answer) for number, exercise in ALL for hint, answer in exercise.wrong.items()]
PLAIN = [(number, exercise) for number, exercise in ALL if not exercise.measure]
each_exercise = pytest.mark.parametrize(("number", "exercise"), ALL, ids=[number for number, _ in ALL])


@pytest.mark.parametrize("chapter", SETS)
def test_numbers_are_the_chapters_own(chapter: int | str) -> None:
    assert len(exercises(chapter)) >= 2
    assert all(re.fullmatch(rf"{chapter}\.\d+", number) for number in exercises(chapter))


@each_exercise
def test_the_answer_passes(number: str, exercise: Exercise, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(number, exercise.answer) == ""
    must_pass(number, exercise.answer)
    assert capsys.readouterr().out == f"Exercise {number}: right!\n"


@each_exercise
def test_blank_is_not_solved(number: str, exercise: Exercise, capsys: pytest.CaptureFixture[str]) -> None:
    for blank in (..., None):
        assert verdict(number, blank) == "still blank"
        with pytest.raises(NotSolved, match="still blank"):
            must_pass(number, blank)
    check(number, ...)
    assert "still blank" in capsys.readouterr().out
    if exercise.inputs:
        check(number, lambda *_: ...)
        assert "still blank" in capsys.readouterr().out


@each_exercise
def test_an_exercise_has_hints_for_at_least_two_mistakes(number: str, exercise: Exercise) -> None:
    assert len(exercise.wrong) >= 2 and exercise.hint
    assert len({exercise.hint, *exercise.wrong}) == len(exercise.wrong) + 1


@pytest.mark.parametrize(("number", "hint", "answer"), WRONG, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(WRONG)])
def test_each_wrong_answer_gets_its_own_hint(number: str, hint: str, answer: object) -> None:
    assert verdict(number, answer) == f"not yet. {hint}"
    with pytest.raises(NotSolved):
        must_pass(number, answer)


@pytest.mark.parametrize(("number", "exercise"), PLAIN, ids=[number for number, _ in PLAIN])
def test_any_other_answer_gets_the_general_hint(number: str, exercise: Exercise) -> None:
    other = (lambda *_: 12_345.678) if exercise.inputs else 12_345.678
    assert verdict(number, other) == f"not yet. {exercise.hint}"


def test_code_that_stops_is_answered_and_not_raised(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> float:
        raise ZeroDivisionError("oh")

    assert verdict("2.2", broken) == "your code stopped with ZeroDivisionError: oh"
    check("2.2", broken)
    assert "your code stopped with ZeroDivisionError: oh" in capsys.readouterr().out
    check("2.1", broken)  # a function where a number is wanted
    assert "Exercise 2.1: " in capsys.readouterr().out
    check("2.1", "seven")
    assert "your code stopped with" in capsys.readouterr().out


def test_an_answer_cannot_change_its_question() -> None:
    """17.4 hands out a list of labels; whoever hides all of them in place is wrong, and finds the labels as they were."""

    def hide_all(labels: list[int], *rest: object) -> list[int]:
        labels[:] = [10] * len(labels)
        return labels

    exercise = exercises(17)["17.4"]
    before = repr(exercise.inputs)
    assert verdict("17.4", hide_all).startswith("not yet")
    assert repr(exercise.inputs) == before


def test_unknown_numbers_are_refused() -> None:
    for bad, text in [
        ("2.99", r"no exercise 2\.99; there are 2\.1"),
        ("77.1", "chapter 77 has no exercises"),
        ("Z.1", "chapter Z has no exercises"),
    ]:
        for answer in (1.0, lambda *_: 1.0):
            with pytest.raises(CourseError, match=text):
                check(bad, answer)
