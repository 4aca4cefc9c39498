"""Common mistakes M1 to M38, each runnable in a wrong and a right version, with the number that tells them apart."""

from . import chain, conditions, ddim, noise, reverse, tables, training, words
from .base import Gap, Mistake, MistakeError, gap, source, verify, versions, wrong_letter

GROUPS = {module.__name__.rsplit(".", 1)[1]: module.GROUP for module in (noise, tables, reverse, chain, ddim, training, conditions, words)}
EVERY = {mistake.name: mistake for group in GROUPS.values() for mistake in group}  # M1 .. M38, and second forms such as M26b
MISTAKES = {number: EVERY[f"M{number}"] for number in range(1, 39)}

__all__ = ["EVERY", "GROUPS", "MISTAKES", "Gap", "Mistake", "MistakeError", "gap", "source", "verify", "versions", "wrong_letter"]
