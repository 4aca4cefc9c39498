"""Typed errors: everything the course refuses raises a CourseError that names the thing and the way out."""

from torch import Tensor


class CourseError(Exception):
    """Root of all errors raised on purpose by this package."""


class ValueCourseError(CourseError, ValueError):
    """A value, a name or a combination that cannot work."""


class ScheduleError(ValueCourseError):
    """A noise schedule that is not one: β outside (0, 1), or ᾱ that does not fall."""


class TimestepError(ValueCourseError):
    """A timestep or a time grid outside 1..T, in the wrong order or of the wrong type."""


class ShapeError(ValueCourseError):
    """Tensors whose shapes or dtypes do not fit together."""


class DataError(ValueCourseError):
    """Data that is unknown, empty or outside [-1, 1]."""


class ConfigError(ValueCourseError):
    """A configuration that contradicts itself."""


class NonFiniteError(CourseError, ArithmeticError):
    """NaN or infinity where a number was expected."""


class CheckpointError(CourseError, OSError):
    """A checkpoint that is missing, damaged or made for something else."""


def check_tensors(**tensors: Tensor) -> None:
    """Raise ShapeError unless all are floating-point tensors of one shape.   Each: (B, ...)."""
    first_name, first = next(iter(tensors.items()))
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(
                f"{name} must be a floating-point tensor, got {kind}; pictures are scaled to [-1, 1] first: x.float() / 127.5 - 1"
            )
        if x.shape != first.shape:
            raise ShapeError(f"{name} has shape {tuple(x.shape)}, but {first_name} has {tuple(first.shape)}; they must be equal")


def one_of(what: str, name: str, known: "dict[str, object] | tuple[str, ...]") -> None:
    """Raise ValueCourseError unless `name` is one of `known`."""
    if name not in known:
        raise ValueCourseError(f"unknown {what} {name!r}; known: {', '.join(known)}")
