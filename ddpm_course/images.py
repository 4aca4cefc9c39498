"""Pictures as files, without a plotting library: a grid as PNG, a walk as GIF.   Pictures are (N, C, H, W) in [-1, 1]."""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from .errors import ShapeError, ValueCourseError


def image_grid(images: Tensor, columns: int | None = None, gap: int = 1) -> Tensor:
    """Pictures (N, C, H, W) in [-1, 1] as one picture (rows, columns[, 3]) in [0, 1] with white gaps."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ShapeError(f"image_grid takes (N, 1, H, W) or (N, 3, H, W), got {tuple(images.shape)}")
    N, C, H, W = images.shape
    columns = columns or N
    rows = -(-N // columns)
    sheet = torch.ones(C, rows * (H + gap) - gap, columns * (W + gap) - gap)
    for i, picture in enumerate((images.detach().float().cpu() + 1) / 2):
        top, left = i // columns * (H + gap), i % columns * (W + gap)
        sheet[:, top : top + H, left : left + W] = picture.clamp(0, 1)
    return sheet[0] if C == 1 else sheet.permute(1, 2, 0)


def as_picture(images: Tensor, columns: int | None = None, scale: int = 1) -> Image.Image:
    """A grid of pictures for pillow, each pixel `scale` wide."""
    sheet = (image_grid(images, columns) * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(sheet)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def png_bytes(images: Tensor, columns: int | None = None, scale: int = 1) -> bytes:
    """A grid of pictures as a PNG file."""
    file = io.BytesIO()
    as_picture(images, columns, scale).save(file, "PNG", optimize=True)
    return file.getvalue()


def gif_bytes(frames: Sequence[Tensor], columns: int | None = None, scale: int = 1, milliseconds: int = 80) -> bytes:
    """Grids one after the other as an endless GIF; the last one stays for a second and a half."""
    if not frames:
        raise ValueCourseError("a GIF needs at least one frame")
    first, *rest = (as_picture(frame, columns, scale) for frame in frames)
    durations, file = [milliseconds] * len(rest) + [1500], io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return file.getvalue()
