"""Pictures as files: what is read back is what was given."""

import io

import pytest
import torch
from PIL import Image

from ddpm_course import CourseError
from ddpm_course.images import gif_bytes, image_grid, png_bytes

SHADES = torch.stack([torch.full((1, 2, 3), v) for v in (-1.0, 0.2, 1.0)])


def read(content: bytes) -> torch.Tensor:
    """The pixels of a file."""
    with Image.open(io.BytesIO(content)) as picture:
        return torch.tensor(list(picture.convert("L").tobytes())).reshape(picture.height, picture.width)


def test_a_png_holds_the_grid_to_the_last_bit() -> None:
    wanted = (image_grid(SHADES, 2) * 255).round().long()
    assert torch.equal(read(png_bytes(SHADES, 2)), wanted)
    assert torch.equal(read(png_bytes(SHADES, 2, scale=3)), wanted.repeat_interleave(3, 0).repeat_interleave(3, 1))


def test_colours_keep_their_channels() -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    with Image.open(io.BytesIO(png_bytes(red))) as picture:
        assert picture.mode == "RGB" and picture.getpixel((1, 1)) == (255, 0, 0)


def test_a_gif_has_every_frame_in_order_and_rests_on_the_last() -> None:
    frames = [torch.full((2, 1, 4, 4), v) for v in (-1.0, 0.0, 1.0)]
    with Image.open(io.BytesIO(gif_bytes(frames, milliseconds=50))) as movie:
        assert movie.n_frames == 3 and movie.info["loop"] == 0
        seen = []
        for k in range(3):
            movie.seek(k)
            seen.append((movie.convert("L").getpixel((0, 0)), movie.info["duration"]))
    assert [duration for _, duration in seen] == [50, 50, 1500]
    assert [abs(value - wanted) <= 1 for (value, _), wanted in zip(seen, (0, 128, 255), strict=True)] == [True] * 3


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(CourseError, match=r"\(N, 1, H, W\)"):
        png_bytes(torch.zeros(2, 8, 8))
    with pytest.raises(CourseError, match="at least one frame"):
        gif_bytes([])
