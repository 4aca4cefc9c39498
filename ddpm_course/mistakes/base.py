"""What a mistake is made of: two versions of one function, what is observed of each, one number, and the right value from elsewhere."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import ValueCourseError

Version = Callable[..., Any]  # one implementation, right or wrong


class MistakeError(ValueCourseError):
    """A mistake that does not hold what it says: the right version is off, or the wrong one is not."""


class Gap(NamedTuple):
    """The number of the wrong version, that of the right one, and the value it should have."""

    wrong: float
    right: float
    truth: float


@dataclass(frozen=True)
class Mistake:
    """One mistake: `observe` runs a version and gives a curve over `x`, `read` takes one number from it, `truth` knows it from elsewhere.

    `truth` never runs either version. `right` must come within `tolerance` of it, `wrong` must miss it by at least `margin`.
    """

    number: int
    title: str  # what people say or do
    chapter: str  # the notebook in which the right thing is derived
    why: str  # one sentence: what to remember
    wrong: Version
    right: Version
    observe: Callable[[Version], Tensor]
    x: Sequence[float] | Sequence[str]  # where the curve is known; words make bars
    labels: tuple[str, str]  # of the two axes
    quantity: str  # what the number is
    truth: Callable[[], float]
    tolerance: float
    margin: float
    read: int | Callable[[Tensor], float] = -1  # an entry of the curve, or a function of it
    form: str = ""  # "b" for a second form of the same mistake
    xscale: str = "linear"  # or "log"

    @property
    def name(self) -> str:
        """M1 .. M38, with a letter for a second form."""
        return f"M{self.number}{self.form}"

    def measure(self, version: Version) -> float:
        """The one number of a version."""
        curve = self.observe(version)
        return float(self.read(curve) if callable(self.read) else curve[self.read])


def gap(mistake: Mistake) -> Gap:
    """Measure both versions, and fetch the truth."""
    return Gap(mistake.measure(mistake.wrong), mistake.measure(mistake.right), float(mistake.truth()))


def verify(mistake: Mistake) -> Gap:
    """gap(mistake), once the right version is right and the wrong one wrong; MistakeError names the side that fails."""
    found = gap(mistake)
    what = f"{mistake.name}, {mistake.quantity}"
    if not 0 <= mistake.tolerance < mistake.margin:
        raise MistakeError(f"{what}: margin {mistake.margin} must exceed tolerance {mistake.tolerance}, or nothing can be told apart")
    if not abs(found.right - found.truth) <= mistake.tolerance:
        raise MistakeError(f"{what}: the right version gives {found.right:.6g}, not {found.truth:.6g} within {mistake.tolerance}; mend it")
    if not abs(found.wrong - found.truth) >= mistake.margin:
        raise MistakeError(f"{what}: the wrong version gives {found.wrong:.6g}, too near to {found.truth:.6g}; it is not wrong")
    return found


def wrong_letter(mistake: Mistake) -> str:
    """Which version is the wrong one, "A" or "B": by the parity of the binary ones in its number, so that a habit does not pay."""
    return "AB"[(mistake.number.bit_count() + len(mistake.form)) % 2]


def versions(mistake: Mistake) -> dict[str, Version]:
    """The two versions under their letters."""
    return {letter: mistake.wrong if letter == wrong_letter(mistake) else mistake.right for letter in "AB"}


def source(version: Version) -> str:
    """The source of a version as it runs, but for its name: `wrong_x`, `right_x` and a second form `wrong_x__other` all show as `x`."""
    return re.sub(r"def (?:wrong|right)_([a-z0-9]+(?:_[a-z0-9]+)*)\w*\(", r"def \1(", inspect.getsource(version), count=1).rstrip()
