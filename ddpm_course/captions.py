"""Captions of coloured digits: a small grammar, its words as numbers, and scenes, the numbers behind a caption (drawn by canvas.py).

caption := thing [place] | thing relation thing;  thing := "a" [size] [colour] digit.  What a caption does not say is open.
A scene is one row of seven numbers (see COLUMNS); -1 stands for what is not said, or for a second thing that is not there.
"""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import DataError, ValueCourseError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SIZES = ("small", "large")
PLACES = ("at the left", "at the right", "at the top", "at the bottom", "in the centre")
RELATIONS = ("above", "below", "left of", "right of")
LAYOUTS = (*PLACES, *RELATIONS)
COLUMNS = ("layout", "digit", "colour", "size", "second digit", "second colour", "second size")
RANGES = (len(LAYOUTS), *(len(DIGITS), len(COLOURS), len(SIZES)) * 2)
WORDS = ("<pad>", "<null>", "a", *SIZES, *COLOURS, *DIGITS, "above", "below", "left", "right", "of", "at", "in", "the")
WORDS += ("top", "bottom", "centre")
NUMBER = {word: k for k, word in enumerate(WORDS)}
LENGTH = 12  # words a caption has at most


# --- words -----------------------------------------------------------------------------------------------------------


def tokenize(captions: str | Sequence[str], length: int = LENGTH) -> Tensor:
    """Words as numbers, (B, length) long, <pad> behind them; an empty caption is <null>. Any order of known words is allowed; see parse."""
    rows = [[NUMBER["<null>"]] if not text.split() else [number_of(word) for word in text.lower().split()] for text in _listed(captions)]
    longest = max(map(len, rows))
    if longest > length:
        raise DataError(f"a caption has {longest} words; at most {length} fit")
    return torch.tensor([row + [NUMBER["<pad>"]] * (length - len(row)) for row in rows])


def number_of(word: str) -> int:
    """The number of a word; DataError with the nearest known word, and all of them, if it is unknown."""
    if word not in NUMBER:
        near = difflib.get_close_matches(word, WORDS, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"unknown word {word!r}; {meant}the words are: {', '.join(WORDS[2:])}")
    return NUMBER[word]


def _listed(captions: str | Sequence[str]) -> list[str]:
    return [captions] if isinstance(captions, str) else list(captions)


def describe(scenes: Tensor) -> list[str]:
    """The caption of each scene (N, 7)."""
    return [_sentence(row) for row in scenes.tolist()]


def _sentence(row: list[int]) -> str:
    layout, first, second = row[0], _thing(row[1:4]), _thing(row[4:])
    if row[4] >= 0:
        return f"{first} {LAYOUTS[layout]} {second}"
    return first if layout < 0 else f"{first} {LAYOUTS[layout]}"


def _thing(numbers: list[int]) -> str:
    digit, colour, size = numbers
    said = [SIZES[size] if size >= 0 else "", COLOURS[colour] if colour >= 0 else "", DIGITS[digit]]
    return " ".join(["a", *filter(None, said)])


def parse(captions: str | Sequence[str]) -> Tensor:
    """The scenes (N, 7) that captions describe; DataError for a word that is unknown or that the grammar has no place for."""
    return torch.tensor([_parsed(text) for text in _listed(captions)])


def _parsed(text: str) -> list[int]:
    words = text.lower().split()
    for word in words:
        number_of(word)
    first, rest = _take_thing(words, text)
    layout = next((k for k, name in enumerate(LAYOUTS) if rest[: len(name.split())] == name.split()), -1)
    rest = rest[len(LAYOUTS[layout].split()) :] if layout >= 0 else rest
    second, rest = _take_thing(rest, text) if layout >= len(PLACES) else ([-1, -1, -1], rest)
    if rest:
        raise _ungrammatical(text, rest[0])
    return [layout, *first, *second]


def _take_thing(words: list[str], text: str) -> tuple[list[int], list[str]]:
    """[digit, colour, size] at the head of the words, and the words behind it."""
    found, rest = {}, words[1:]
    for kind, known in (("size", SIZES), ("colour", COLOURS), ("digit", DIGITS)):
        found[kind] = known.index(rest.pop(0)) if rest and rest[0] in known else -1
    if words[:1] != ["a"] or found["digit"] < 0:
        raise _ungrammatical(text, ((rest if words[:1] == ["a"] else words) or ["the end"])[0])
    return [found["digit"], found["colour"], found["size"]], rest


def _ungrammatical(text: str, word: str) -> ValueCourseError:
    return DataError(
        f"{text!r} is no caption (at {word!r}): write 'a [size] [colour] digit', alone, with a place ({', '.join(PLACES)}), "
        f"or with a relation ({', '.join(RELATIONS)}) and a second one"
    )


# --- scenes ----------------------------------------------------------------------------------------------------------


def never_seen(digit: Tensor, colour: Tensor, size: Tensor) -> Tensor:
    """Whether a combination is kept out of training, elementwise: one colour in six for each digit and size, 20 combinations of 120."""
    return (digit + colour + 3 * size) % len(COLOURS) == 0


def is_held_out(scenes: Tensor) -> Tensor:
    """Whether every thing of a complete scene (N, 7) is a combination that never occurs in training, (N,)."""
    return never_seen(*scenes[:, 1:4].T) & (never_seen(*scenes[:, 4:].T) | (scenes[:, 4] < 0))


def is_for_training(scenes: Tensor) -> Tensor:
    """Whether no thing of a complete scene (N, 7) is held out, (N,)."""
    return ~never_seen(*scenes[:, 1:4].T) & ~(never_seen(*scenes[:, 4:].T) & (scenes[:, 4] >= 0))


def draw_scenes(n: int, generator: torch.Generator, held_out: bool | None = False) -> Tensor:
    """n complete scenes (n, 7), about half of them with two things. held_out: no combination of training; False: only those; None: all."""
    first, second = (_draw_things(n, generator, held_out) for _ in range(2))
    two = torch.rand(n, generator=generator) < 0.5
    place, relation = (torch.randint(len(names), (n,), generator=generator) for names in (PLACES, RELATIONS))
    layout = torch.where(two, len(PLACES) + relation, place)
    return torch.cat([layout[:, None], first, second.masked_fill(~two[:, None], -1)], 1)


def _draw_things(n: int, generator: torch.Generator, held_out: bool | None) -> Tensor:
    """n triples (digit, colour, size), evenly among those that are asked for."""
    known = torch.cartesian_prod(*(torch.arange(high) for high in RANGES[1:4]))
    kept = known if held_out is None else known[never_seen(*known.T) == held_out]
    return kept[torch.randint(len(kept), (n,), generator=generator)]


def complete(scenes: Tensor, generator: torch.Generator) -> Tensor:
    """Scenes (N, 7) with every size, colour and place that is open drawn evenly."""
    drawn = torch.stack([torch.randint(high, (len(scenes),), generator=generator) for high in (len(PLACES), *RANGES[1:])], 1)
    full = torch.where(scenes < 0, drawn, scenes)
    full[scenes[:, 4] < 0, 4:] = -1
    return full


def left_open(scenes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Scenes (N, 7) that say less: each size, colour and place, for itself, becomes -1 with this probability. Digits and relations stay."""
    silent = torch.rand(scenes.shape, generator=generator) < share
    silent[:, [1, 4]] = False
    silent[:, 0] &= scenes[:, 4] < 0
    return scenes.masked_fill(silent, -1)


def canonical(scenes: Tensor) -> Tensor:
    """The same complete scenes told from the upper or left thing on: layouts 0-4 as they are, 5 one above the other, 6 side by side."""
    layout, first = scenes[:, :1], len(PLACES)
    turned = torch.cat([layout, scenes[:, 4:], scenes[:, 1:4]], 1)
    told = torch.where((layout == first + 1) | (layout == first + 3), turned, scenes)
    told[:, 0] = torch.where(told[:, 0] < first, told[:, 0], first + (told[:, 0] - first) // 2)
    return told


def agreement(asked: Tensor, seen: Tensor) -> dict[str, float]:
    """How often what a judge sees is what was asked for; both complete scenes (N, 7), `seen` in canonical form.

    Digit, colour and size: share of the things asked for. Count, layout and all (everything right): share of the pictures.
    """
    asked = canonical(asked)
    right, there = asked == seen, asked[:, 4] >= 0
    share = {"count": float((there == (seen[:, 4] >= 0)).float().mean()), "layout": float(right[:, 0].float().mean())}
    for k, name in enumerate(COLUMNS[1:4]):
        share[name] = float(torch.cat([right[:, 1 + k], right[there, 4 + k]]).float().mean())
    return share | {"all": float(right.all(1).float().mean())}
