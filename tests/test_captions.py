"""Captions: what is said comes back, what is not said stays open, and which combinations are kept for later."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_course import captions
from ddpm_course.captions import (
    COLOURS,
    DIGITS,
    LAYOUTS,
    LENGTH,
    NUMBER,
    PLACES,
    RANGES,
    SIZES,
    WORDS,
    agreement,
    canonical,
    complete,
    describe,
    draw_scenes,
    is_for_training,
    is_held_out,
    left_open,
    never_seen,
    parse,
    tokenize,
)
from ddpm_course.errors import CourseError, DataError

PAIR = "a large red three above a small blue seven"
things = st.tuples(st.integers(0, 9), st.integers(-1, 5), st.integers(-1, 1))
single = st.tuples(st.integers(-1, 4), things).map(lambda x: [x[0], *x[1], -1, -1, -1])
double = st.tuples(st.integers(5, 8), things, things).map(lambda x: [x[0], *x[1], *x[2]])


def seeded(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


# --- words -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(single, double), min_size=1, max_size=5))
def test_what_is_described_is_parsed_back(rows: list[list[int]]) -> None:
    scenes = torch.tensor(rows)
    assert torch.equal(parse(describe(scenes)), scenes)


def test_a_caption_and_its_numbers() -> None:
    scene = torch.tensor([[LAYOUTS.index("above"), 3, COLOURS.index("red"), SIZES.index("large"), 7, COLOURS.index("blue"), 0]])
    assert torch.equal(parse(PAIR), scene) and describe(scene) == [PAIR]
    assert describe(torch.tensor([[-1, 5, -1, 0, -1, -1, -1], [4, 0, 1, -1, -1, -1, -1]])) == ["a small five", "a green zero in the centre"]


def test_words_become_numbers_padding_follows_and_nothing_is_null() -> None:
    tokens = tokenize(["a red three", "", "THREE red"])
    assert tokens.shape == (3, LENGTH) and tokens.dtype == torch.long
    assert tokens[0].tolist() == [NUMBER["a"], NUMBER["red"], NUMBER["three"]] + [0] * (LENGTH - 3)
    assert tokens[1].tolist() == [NUMBER["<null>"]] + [0] * (LENGTH - 1)
    assert tokens[2, :3].tolist() == [NUMBER["three"], NUMBER["red"], 0]  # any order is allowed here
    assert torch.equal(tokenize("a red three", 5), tokens[:1, :5]) and NUMBER["<pad>"] == 0


def test_every_word_is_needed_and_every_caption_fits() -> None:
    said = {word for caption in describe(draw_scenes(2000, seeded(), None)) for word in caption.split()}
    assert said == set(WORDS[2:]) and len(set(WORDS)) == len(WORDS) == 32
    assert max(len(caption.split()) for caption in describe(draw_scenes(2000, seeded(), None))) <= LENGTH


def test_an_unknown_word_is_named_with_its_neighbour_and_the_vocabulary() -> None:
    for function in (tokenize, parse):
        with pytest.raises(DataError, match=r"unknown word 'rde'; did you mean 'red'\? the words are: a, small, .*, centre"):
            function("a rde three")
        with pytest.raises(CourseError, match=r"unknown word 'xylophone'; the words are"):
            function(["a red three", "a xylophone"])


def test_too_long_a_caption_is_refused() -> None:
    with pytest.raises(DataError, match="a caption has 13 words; at most 12 fit"):
        tokenize("a " * 13)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "the end"),
        ("a", "the end"),
        ("three", "three"),
        ("a three red", "red"),
        ("a red", "the end"),
        ("a red large three", "large"),
        ("a three above", "the end"),
        ("a three above above", "above"),
        ("a three at the left a seven", "a"),
        ("a three above a seven at the top", "at"),
        ("a three at the", "at"),
    ],
)
def test_what_the_grammar_has_no_place_for_is_named(text: str, word: str) -> None:
    with pytest.raises(DataError, match=rf"is no caption \(at '{word}'\): write 'a \[size\] \[colour\] digit'"):
        parse(text)


# --- scenes ----------------------------------------------------------------------------------------------------------


def test_a_sixth_of_the_combinations_is_kept_out_and_every_two_properties_meet_in_training() -> None:
    grid = torch.cartesian_prod(*(torch.arange(n) for n in RANGES[1:4]))
    out = never_seen(*grid.T)
    assert int(out.sum()) == 20 and len(grid) == 120
    kept = grid[~out]
    for a, b in ((0, 1), (0, 2), (1, 2)):  # digit and colour, digit and size, colour and size
        assert len({tuple(pair) for pair in kept[:, [a, b]].tolist()}) == RANGES[1 + a] * RANGES[1 + b]
    assert all(len(set(grid[out][:, k].tolist())) == RANGES[1 + k] for k in range(3))  # and each property occurs in what is held out


@pytest.mark.parametrize("held_out", [True, False, None])
def test_scenes_are_drawn_on_the_side_that_was_asked_for(held_out: bool | None) -> None:
    scenes = draw_scenes(3000, seeded(1), held_out)
    two = scenes[:, 4] >= 0
    assert scenes.shape == (3000, 7) and abs(float(two.float().mean()) - 0.5) < 0.05
    assert torch.equal(two, scenes[:, 0] >= len(PLACES)) and int(scenes[:, :4].min()) == 0
    assert (scenes[:, 4:] >= 0).all(1).equal(two) and (scenes[:, 4:] < 0).all(1).equal(~two)
    shares = float(is_held_out(scenes).float().mean()), float(is_for_training(scenes).float().mean())
    assert shares == {True: (1.0, 0.0), False: (0.0, 1.0)}.get(held_out, shares)
    assert held_out is not None or (0.05 < shares[0] < 0.15 and 0.7 < shares[1] < 0.82)
    assert torch.equal(scenes, draw_scenes(3000, seeded(1), held_out))
    layouts = scenes[:, 0].bincount(minlength=9) / 3000
    assert bool((layouts[:5] - 0.1).abs().max() < 0.025) and bool((layouts[5:] - 0.125).abs().max() < 0.025)


def test_one_held_out_thing_keeps_a_scene_out_of_training() -> None:
    seen, unseen = [3, 1, 1], [0, 0, 0]
    assert not never_seen(*torch.tensor([seen]).T) and never_seen(*torch.tensor([unseen]).T)
    mixed = torch.tensor([[5, *seen, *unseen], [5, *unseen, *seen], [5, *seen, *seen], [5, *unseen, *unseen], [0, *unseen, -1, -1, -1]])
    assert is_for_training(mixed).tolist() == [False, False, True, False, False]
    assert is_held_out(mixed).tolist() == [False, False, False, True, True]


def test_captions_that_say_less() -> None:
    scenes = draw_scenes(4000, seeded(2))
    less = left_open(scenes, 0.25, seeded(3))
    assert torch.equal(less[:, [1, 4]], scenes[:, [1, 4]]) and torch.equal(left_open(scenes, 0.0, seeded(3)), scenes)
    two = scenes[:, 4] >= 0
    assert torch.equal(less[two, 0], scenes[two, 0])  # a relation is always said
    for column, rows in ((0, ~two), (2, two | ~two), (3, two | ~two), (5, two), (6, two)):
        assert abs(float((less[rows, column] < 0).float().mean()) - 0.25) < 0.035
    assert bool(((less == scenes) | (less == -1)).all())


def test_what_is_open_is_drawn_evenly_and_what_is_said_stays() -> None:
    full = complete(parse("a three").repeat(3000, 1), seeded(4))
    assert full[:, 1].unique().tolist() == [3] and bool((full[:, 4:] == -1).all())
    for column, choices in ((0, 5), (2, 6), (3, 2)):
        assert float((full[:, column].bincount(minlength=choices) / 3000 - 1 / choices).abs().max()) < 0.03
    said = draw_scenes(50, seeded(5), None)
    assert torch.equal(complete(said, seeded(6)), said)
    half = complete(parse("a red three left of a small seven").repeat(20, 1), seeded(7))
    assert half[:, [0, 1, 2, 4, 6]].unique(dim=0).tolist() == [[7, 3, 0, 7, 0]] and bool((half[:, 3] >= 0).all())


@pytest.mark.parametrize(
    ("one", "other", "layout"),
    [
        (PAIR, "a small blue seven below a large red three", 5),
        ("a small red one left of a large red one", "a large red one right of a small red one", 6),
    ],
)
def test_two_captions_of_one_scene_are_one_canonical_scene(one: str, other: str, layout: int) -> None:
    first, second = canonical(parse([one, other]))
    assert torch.equal(first, second) and int(first[0]) == layout and torch.equal(first[1:], parse(one)[0, 1:])


def test_agreement_counts_things_and_pictures() -> None:
    asked = parse([PAIR, "a small green five at the top"])
    assert agreement(asked, canonical(asked)) == dict.fromkeys(("count", "layout", "digit", "colour", "size", "all"), 1.0)
    turned = canonical(parse(["a large blue three above a small red seven", "a small green five at the top"]))
    assert agreement(asked, turned) == {"count": 1, "layout": 1, "digit": 1, "colour": pytest.approx(1 / 3), "size": 1, "all": 0.5}
    lost = canonical(parse(["a large red three at the top", "a large green five at the left"]))
    third, two_thirds = pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert agreement(asked, lost) == {"count": 0.5, "layout": 0, "digit": two_thirds, "colour": two_thirds, "size": third, "all": 0}


def test_the_order_of_a_pair_counts() -> None:
    asked, swapped = parse(PAIR), canonical(parse("a small blue seven above a large red three"))
    assert agreement(asked, swapped) == {"count": 1, "layout": 1, "digit": 0, "colour": 0, "size": 0, "all": 0}
    assert len(captions.COLUMNS) == len(RANGES) == 7 and RANGES[1] == len(DIGITS)
