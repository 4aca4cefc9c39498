"""Pictures of one's own: a folder, a parquet file or a hub data set, read as bytes (C, S, S) and decoded only when they are needed."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
RESIDENT = 2**31  # bytes: what is smaller than this is decoded once and kept
LOOKS = 500  # pictures that are looked at for size and colour, spread over all of them


def to_bytes(picture: Image.Image, size: int, channels: int) -> Tensor:
    """One picture as uint8 (channels, size, size): turned upright, on white where transparent, shorter side to size, middle cut out.

    Grey, RGB, RGBA, palette and 16-bit grey are understood; DataError for floating-point and other modes.
    """
    wide = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")  # older pillows say I
    picture = ImageOps.exif_transpose(picture)
    if wide:  # 0..65535; converting would clip it at 255
        picture = Image.fromarray(np.round(np.asarray(picture).astype(np.float64) / 257).astype(np.uint8))
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        raise DataError(f"pictures of mode {picture.mode!r} are not understood; save them as 8-bit or 16-bit PNG")
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    picture = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).reshape(size, size, channels).permute(2, 0, 1)


class Pictures:
    """N pictures that are decoded when they are taken, by so many threads. open_one(key) gives an open picture; errors name the key."""

    def __init__(self, open_one: Callable[[Any], Image.Image], keys: Sequence[Any], size: int, channels: int, workers: int = 4) -> None:
        self.open_one, self.keys, self.size, self.channels, self.workers = open_one, list(keys), size, channels, workers

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, S, S), as of a tensor."""
        return len(self), self.channels, self.size, self.size

    def __getitem__(self, part: Tensor) -> "Pictures":
        """The pictures at these indices (M,), still undecoded."""
        return Pictures(self.open_one, [self.keys[i] for i in part.tolist()], self.size, self.channels, self.workers)

    def decode(self, i: int) -> Tensor:
        """Picture i as uint8 (C, S, S); DataError that names it if it cannot be read."""
        try:
            with self.open_one(self.keys[i]) as picture:
                return to_bytes(picture, self.size, self.channels)
        except Exception as error:  # decoders raise all kinds on damaged files
            raise DataError(f"cannot read picture {self.keys[i]}: {error}; mend it or take it out") from error

    def take(self, indices: Sequence[int]) -> Tensor:
        """The pictures at these indices, decoded by several threads: uint8 (M, C, S, S), in this order."""
        with ThreadPoolExecutor(self.workers) as pool:
            return torch.stack(list(pool.map(self.decode, indices)))

    def resident(self, limit: int = RESIDENT) -> "Tensor | Pictures":
        """All of them as one uint8 tensor if they take less than `limit` bytes, else themselves."""
        return self.take(range(len(self))) if len(self) * self.channels * self.size**2 <= limit else self


def to_float(x: Tensor) -> Tensor:
    """Bytes 0..255 as float32 in [-1, 1]; what is float already stays as it is."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def _guess(looks: list[tuple[str, tuple[int, int]]], image_size: int | None) -> tuple[int, int]:
    """(size, channels) for pictures of these modes and sizes: the median shorter side, at most 64; one channel if none has colour."""
    grey = all(mode in ("1", "L", "LA") or mode.startswith("I;16") for mode, _ in looks)
    sides = sorted(min(size) for _, size in looks)
    return image_size or min(64, max(4, sides[len(sides) // 2] // 4 * 4)), 1 if grey else 3


def folder(path: str | Path, image_size: int | None = None) -> tuple[Pictures, Tensor]:
    """All pictures below a folder, and labels (N,): the number of the subfolder each lies in, by name (0 without subfolders).

    What is hidden (.git, .ipynb_checkpoints) is left out. Pictures beside the subfolders are a class of their own, the first.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{path} is no folder; give one with pictures ({', '.join(SUFFIXES)}), or the name of a data set")
    found = (p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    files = sorted(p for p in found if not any(part.startswith(".") for part in p.parts))
    if not files:
        raise DataError(f"{path} holds no pictures ({', '.join(SUFFIXES)})")
    looks = [look for p in files[:: -(-len(files) // LOOKS)] if (look := _look(root / p))]
    if not looks:
        raise DataError(f"none of the pictures in {path} can be read; the first is {files[0]}")
    size, channels = _guess(looks, image_size)
    classes = [p.parts[0] if len(p.parts) > 1 else "" for p in files]
    return Pictures(Image.open, [root / p for p in files], size, channels), numbered(classes)


def numbered(labels: Sequence[Any]) -> Tensor:
    """Labels as numbers (N,) long: whole numbers from 0 as they are; anything else numbered in alphabetical order."""
    if all(isinstance(y, int) and y >= 0 for y in labels):
        return torch.tensor(labels, dtype=torch.long)
    place = {name: i for i, name in enumerate(sorted({str(y) for y in labels}))}
    return torch.tensor([place[str(y)] for y in labels])


def _look(path: Path) -> tuple[str, tuple[int, int]] | None:
    """Mode and size of a picture file; None if it cannot be read (whoever takes it will be told)."""
    try:
        with Image.open(path) as picture:
            return picture.mode, picture.size
    except Exception:  # as in decode
        return None


def hub(name: str, image_size: int | None = None) -> tuple[Pictures, Tensor]:
    """A data set with a picture column, through the `datasets` library: a name on the hub (needs a network) or a .parquet file."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f'{name} is read by the `datasets` library: pip install "ddpm-course[hub]"') from error
    local = name.endswith(".parquet")
    if local and not Path(name).is_file():
        raise DataError(f"{name} is missing; give the path of a .parquet file with a column of pictures")
    try:
        data = datasets.load_dataset(*(("parquet",) if local else (name,)), data_files=name if local else None, split="train")
    except Exception as error:  # the library raises its own kinds for each of: no network, no such name, no such split
        raise DataError(f"cannot load {name!r} through `datasets`: {(str(error) or repr(error)).splitlines()[0]}") from error
    for key, kind in data.features.items():  # a parquet file that another tool wrote: pictures as a struct of bytes and path
        if isinstance(kind, dict) and kind.keys() == {"bytes", "path"}:
            data = data.cast_column(key, datasets.Image())
    columns = [key for key, kind in data.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise DataError(f"{name} has no column of pictures; its columns: {', '.join(data.features)}")
    classes = [key for key, kind in data.features.items() if isinstance(kind, datasets.ClassLabel) or key == "label"]
    labels = numbered(list(data[classes[0]])) if classes else torch.zeros(len(data), dtype=torch.long)
    return _rows(data, columns[0], name, image_size), labels


def _rows(data: Any, column: str, name: str, image_size: int | None) -> Pictures:
    """The pictures in this column of a `datasets` table; a key is "row i of name"."""
    keys, row = [f"row {i} of {name}" for i in range(len(data))], lambda key: data[int(key.split()[1])][column]
    looks = []
    for key in keys[:: -(-len(keys) // LOOKS) or 1]:
        try:
            picture = row(key)
            looks.append((picture.mode, picture.size))
        except Exception as error:  # as in decode
            raise DataError(f"cannot read the picture in {key}: {error}") from error
    if not looks:
        raise DataError(f"{name} has no rows")
    return Pictures(row, keys, *_guess(looks, image_size))


def is_own(name: str) -> bool:
    """Whether a data set's name means one's own pictures: "hub:NAME", a .parquet file, or a path."""
    return name.startswith("hub:") or name.endswith(".parquet") or os.sep in name or Path(name).is_dir()


def load_own(name: str, image_size: int | None = None, resident: int = RESIDENT) -> tuple[Tensor | Pictures, Tensor]:
    """Pictures of "hub:NAME", a .parquet file or a folder, uint8 (N, C, S, S), and labels (N,). Decoded if they fit `resident` bytes."""
    reader = hub if name.startswith("hub:") or name.endswith(".parquet") else folder
    pictures, labels = reader(name.removeprefix("hub:"), image_size)
    return pictures.resident(resident), labels
