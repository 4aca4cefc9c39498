"""Pictures of scenes: the colour, the size and the place that the scene names, made of the digits that were given."""

import pytest
import torch

from ddpm_course.canvas import CANVAS, PAINT, SIDES, Sources, caption_condition, captioned, render
from ddpm_course.captions import (
    COLOURS,
    LAYOUTS,
    NUMBER,
    RELATIONS,
    WORDS,
    describe,
    draw_scenes,
    is_for_training,
    is_held_out,
    parse,
    tokenize,
)
from ddpm_course.data import Split, mnist5k
from ddpm_course.pictures import to_float


def seeded(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def drawn(caption: str, n: int = 20, k: int = 0) -> torch.Tensor:
    """Shares of paint (n, 3, 32, 32) in [0, 1] of one caption."""
    return render(parse(caption).repeat(n, 1), Sources(mnist5k().train), seeded(k)).float() / 255


def box(ink: torch.Tensor) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the ink (H, W) above a quarter."""
    rows, columns = (ink > 0.25).nonzero().T
    return float(columns.min()), float(columns.max()), float(rows.min()), float(rows.max())


@pytest.mark.parametrize("colour", COLOURS)
def test_all_pixels_have_the_colour_that_was_asked_for(colour: str) -> None:
    x, paint = drawn(f"a large {colour} eight in the centre"), PAINT[COLOURS.index(colour)]
    ink = x.amax(1, keepdim=True)
    torch.testing.assert_close(x, ink * paint[:, None, None] / paint.max(), atol=0.006, rtol=0)
    assert float(ink.amax((1, 2, 3)).min()) > 0.84  # every digit has full strokes


def test_bytes_of_the_right_shape_and_the_same_from_the_same_seed() -> None:
    scenes, sources = draw_scenes(40, seeded(), None), Sources(mnist5k().train)
    x = render(scenes, sources, seeded(1))
    assert x.dtype == torch.uint8 and x.shape == (40, 3, CANVAS, CANVAS) and torch.equal(x, render(scenes, sources, seeded(1)))
    assert not torch.equal(x, render(scenes, sources, seeded(2))) and render(scenes[:0], sources, seeded()).shape == (0, 3, 32, 32)
    assert float(to_float(x).min()) == -1 and 0.9 < float(to_float(x).max()) <= 1


def test_large_digits_are_larger() -> None:
    heights = {}
    for size, side in zip(("small", "large"), SIDES, strict=True):
        boxes = [box(ink) for ink in drawn(f"a {size} white eight in the centre").amax(1)]
        heights[size] = sum(bottom - top + 1 for _, _, top, bottom in boxes) / len(boxes)
        assert all(bottom - top + 1 <= side for _, _, top, bottom in boxes)
    assert 1.3 < heights["large"] / heights["small"] < 1.6


def test_things_lie_where_the_scene_says() -> None:
    for layout in LAYOUTS[:5]:
        for ink in drawn(f"a small white eight {layout}").amax(1):
            left, right, top, bottom = box(ink)
            x, y = (left + right) / 2 - 15.5, (top + bottom) / 2 - 15.5
            where = {"at the left": x < -4, "at the right": x > 4, "at the top": y < -4, "at the bottom": y > 4}
            assert where.get(layout, abs(x) < 4 and abs(y) < 4) and sum(where.values()) == (layout != "in the centre")


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_tell_the_first_from_the_second(relation: str) -> None:
    for red, green, _ in drawn(f"a large red one {relation} a large green one"):
        first, second = red * (green < 0.5 * red), green * (red < 0.5 * green)  # neither paint is pure
        centre = lambda ink, axis: float((ink.sum(axis) * torch.arange(32)).sum() / ink.sum())  # noqa: E731
        across, down = (centre(first, axis) - centre(second, axis) for axis in (0, 1))
        ahead = {"above": -down, "below": down, "left of": -across, "right of": across}
        assert ahead[relation] > 10


def test_each_digit_comes_from_its_own_class_and_from_the_given_pictures_alone() -> None:
    shade = torch.arange(10).repeat(3)
    fake = Split((shade / 10 - 1).float()[:, None, None, None].expand(-1, 1, 28, 28), shade)  # digit k is a square of shade k / 20
    for digit in (0, 3, 9):
        scene = torch.tensor([[4, digit, COLOURS.index("white"), 1, -1, -1, -1]])
        assert float(render(scene, Sources(fake), seeded()).max()) / 255 == pytest.approx(1.3 * digit / 20, abs=0.003)


def test_different_digits_of_one_class_are_used() -> None:
    assert len({x.numpy().tobytes() for x in drawn("a large white two in the centre", 30)}) == 30


def test_what_is_open_varies() -> None:
    hues = drawn("a three", 60).amax((2, 3)).round(decimals=1)
    assert len({tuple(hue) for hue in hues.tolist()}) >= 6


def test_the_parts_of_the_data_share_neither_combinations_nor_digits() -> None:
    train, val, test = captioned(300, 60)
    assert train.images.shape == (300, 3, 32, 32) and train.labels.shape == (300, 12) and len(val.images) == len(test.labels) == 60
    texts = lambda part: [" ".join(WORDS[k] for k in row if k) for row in part.labels.tolist()]  # noqa: E731
    said = parse(texts(train))
    whole = said[(said[:, [0, 2, 3]] >= 0).all(1) & ((said[:, 4] < 0) | (said[:, [5, 6]] >= 0).all(1))]
    assert 100 < len(whole) < 280 and bool(is_for_training(whole).all())  # some captions leave something open
    assert bool(is_held_out(parse(texts(val))).all()) and bool(is_held_out(parse(texts(test))).all())
    scene = torch.tensor([[4, 2, 5, 1, -1, -1, -1]]).repeat(40, 1)
    used = [{x.numpy().tobytes() for x in Sources(part).pick(scene[:, 1], scene[:, 3], seeded())} for part in mnist5k()]
    assert not used[0] & used[1] and not used[0] & used[2] and not used[1] & used[2]
    again = captioned(300, 60)
    assert torch.equal(again.train.images, train.images) and not torch.equal(captioned(300, 60, seed=1).train.images, train.images)


def test_captions_are_hidden_each_for_itself_and_never_in_validation() -> None:
    tokens = tokenize(describe(draw_scenes(4000, seeded())))
    split, index = Split(torch.zeros(4000, 1), tokens), torch.arange(4000).flip(0)
    assert torch.equal(caption_condition(0.5)(split, index, None)["tokens"], tokens.flip(0))
    told = caption_condition(0.25)(split, index, seeded(1))["tokens"]
    hidden = (told == tokenize("")).all(1)
    assert abs(float(hidden.float().mean()) - 0.25) < 0.03 and torch.equal(told[~hidden], tokens.flip(0)[~hidden])
    assert 0 < int(hidden[:64].sum()) < 64 and int((told == NUMBER["<null>"]).sum()) == int(hidden.sum())
