"""Thickness and slant against pictures drawn by rule, and the nine cells against a direct count."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddpm_course.errors import DataError, ShapeError
from ddpm_course.strokes import StyleCells, ink, slant, thickness


def bar(width: int, height: int = 20, lean: float = 0.0) -> Tensor:
    """A bar (1, 1, 28, 28): `width` pixels wide, its rows moved right by `lean` for each row upwards."""
    x = torch.full((1, 1, 28, 28), -1.0)
    for row in range(4, 4 + height):
        left = round(14 - width / 2 + lean * (13.5 - row))
        x[0, 0, row, left : left + width] = 1
    return x


def ring(radius: float, width: float, size: int = 64) -> Tensor:
    """A ring with soft edges, in a picture large enough for pixels not to matter."""
    place = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).float() - (size - 1) / 2
    inside = (width / 2 + 0.5 - (place.norm(dim=0) - radius).abs()).clamp(0, 1)
    return (2 * inside - 1)[None, None]


@pytest.mark.parametrize("width", [3, 5, 7])
def test_thickness_is_the_width_of_a_ring(width: int) -> None:
    assert float(thickness(ring(20, width))) == pytest.approx(width, rel=0.09)


def test_thickness_of_a_bar_by_its_sides() -> None:
    for width, height in ((2, 20), (4, 20), (6, 10)):
        wanted = 2 * width * height / (2 * (width + height))  # up to the one corner where both differences meet
        assert float(thickness(bar(width, height))) == pytest.approx(wanted, rel=0.03)
    assert float(thickness(torch.full((1, 1, 8, 8), -1.0))) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(-2, 2), st.integers(0, 10_000))
def test_shearing_by_whole_pixels_adds_to_the_tangent_of_the_slant(shear: int, seed: int) -> None:
    x = torch.full((1, 1, 12, 60), -1.0, dtype=torch.float64)
    x[..., 26:32] = 2 * torch.rand(12, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    sheared = torch.stack([x[0, 0, row].roll(-shear * row) for row in range(12)])[None, None].roll(6 * shear, -1)
    tangent = [float(torch.deg2rad(slant(picture)).tan()) for picture in (x, sheared)]
    assert tangent[1] - tangent[0] == pytest.approx(shear, abs=1e-9)


def test_slant_has_the_sign_of_a_slash_and_none_for_upright() -> None:
    assert float(slant(bar(3))) == pytest.approx(0, abs=1e-4)
    assert float(slant(bar(3, lean=0.5))) == pytest.approx(26.57, abs=1.5)  # atan(1/2)
    assert float(slant(bar(3, lean=-0.5))) == pytest.approx(-26.57, abs=1.5)
    assert float(slant(bar(3, lean=0.5).roll((2, -3), (2, 3)))) == pytest.approx(float(slant(bar(3, lean=0.5))), abs=1e-3)


def test_ink_is_cut_to_0_and_1_and_wants_grey_pictures() -> None:
    assert ink(torch.tensor([[[[-3.0, -1.0, 0.0, 1.0, 2.0]]]])).tolist() == [[[0.0, 0.0, 0.5, 1.0, 1.0]]]
    for shape in ((2, 3, 8, 8), (2, 8, 8)):
        with pytest.raises(ShapeError, match="grey pictures"):
            ink(torch.zeros(shape))


def test_ink_at_the_border_has_an_outline_there_too() -> None:
    full = torch.ones(1, 1, 20, 20)
    inside = torch.nn.functional.pad(full, (4, 4, 4, 4), value=-1.0)
    assert float(thickness(full)) == pytest.approx(float(thickness(inside)), rel=1e-6)


def test_a_blank_picture_and_a_flat_line_have_no_slant() -> None:
    blank, line = torch.full((1, 1, 28, 28), -1.0), torch.full((1, 1, 28, 28), -1.0)
    line[:, :, 13, 4:24] = 1
    pair = torch.cat([blank, line])
    assert float(slant(pair).abs().max()) < 1e-3 and float(thickness(blank)) == 0


def test_cells_are_the_thirds_of_each_class() -> None:
    widths, leans = (2, 3, 5, 6, 8, 9), (-0.5, -0.3, 0.0, 0.1, 0.4, 0.6)
    images = torch.cat([bar(w, lean=lean) for w in widths for lean in leans] * 2)
    labels = torch.arange(2).repeat_interleave(36)
    cells = StyleCells(images, labels)
    a, b = cells.thirds(images, labels)
    for third, values in ((a, thickness(images)), (b, slant(images))):
        one = values[:36]  # the classes hold the same pictures
        above = torch.stack([(one < value - 1e-4).sum() / 36 for value in one])
        assert bool(((third[:36] == 0) <= (above < 1 / 3)).all()) and bool(((third[:36] == 2) <= (above > 0.6)).all())
        assert third[:36].bincount().tolist() == third[36:].bincount().tolist() and int((third == 0).sum()) >= 24
    assert torch.equal(cells(images, labels), 3 * a + b)
    assert cells(bar(2, lean=-0.5), torch.tensor([0])).item() == 0 and cells(bar(9, lean=0.6), torch.tensor([1])).item() == 8
    assert cells.count == 9 and cells.thickness.shape == cells.slant.shape == (2, 2)


def test_thirds_belong_to_the_digits_own_class() -> None:
    thin, bold = torch.cat([bar(w) for w in (2, 3, 4)]), torch.cat([bar(w) for w in (8, 9, 10)])
    cells = StyleCells(torch.cat([thin, bold]), torch.tensor([0, 0, 0, 1, 1, 1]))
    a, _ = cells.thirds(bar(6).repeat(2, 1, 1, 1), torch.tensor([0, 1]))
    assert a.tolist() == [2, 0]  # bold for the first class, thin for the second


def test_a_class_without_pictures_is_named() -> None:
    with pytest.raises(DataError, match=r"class \[1\]"):
        StyleCells(bar(3).repeat(2, 1, 1, 1), torch.tensor([0, 2]))
