"""Typed errors: kin of CourseError and of the built-in one would expect, with a message that helps."""

import pytest
import torch

from ddpm_course import errors
from ddpm_course.errors import CourseError, ShapeError, check_tensors, one_of

KIN = {
    "ScheduleError": ValueError,
    "TimestepError": ValueError,
    "ShapeError": ValueError,
    "DataError": ValueError,
    "ConfigError": ValueError,
    "ValueCourseError": ValueError,
    "NonFiniteError": ArithmeticError,
    "CheckpointError": OSError,
}


@pytest.mark.parametrize("name", KIN)
def test_every_error_is_a_course_error_and_a_builtin(name: str) -> None:
    assert issubclass(getattr(errors, name), CourseError)
    assert issubclass(getattr(errors, name), KIN[name])


def test_check_tensors_accepts_equal_shapes_of_any_float() -> None:
    check_tensors(a=torch.zeros(2, 3), b=torch.zeros(2, 3, dtype=torch.float64), c=torch.zeros(2, 3, dtype=torch.bfloat16))


def test_check_tensors_names_the_odd_one() -> None:
    with pytest.raises(ShapeError, match=r"eps has shape \(3, 2\), but x_0 has \(2, 3\)"):
        check_tensors(x_0=torch.zeros(2, 3), eps=torch.zeros(3, 2))


@pytest.mark.parametrize("bad", [torch.zeros(2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), [0.0], 1.0])
def test_check_tensors_refuses_what_is_not_a_float_tensor(bad: object) -> None:
    with pytest.raises(ShapeError, match=r"x_0 must be a floating-point tensor.*127\.5"):
        check_tensors(x_0=bad)


def test_one_of_lists_what_is_known() -> None:
    one_of("colour", "red", ("red", "blue"))
    with pytest.raises(CourseError, match="unknown colour 'green'; known: red, blue"):
        one_of("colour", "green", ("red", "blue"))
