"""Pictures of one's own: every common kind is read rightly, and what cannot be read is refused by name."""

import io
import math
import random
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import picture_files

from ddpm_course import pictures
from ddpm_course.errors import DataError
from ddpm_course.pictures import Pictures, folder, hub, is_own, load_own, numbered, to_bytes, to_float


def opened(path: Path, size: int = 8, channels: int = 3) -> torch.Tensor:
    with Image.open(path) as picture:
        return to_bytes(picture, size, channels)


def one_colour(mode: str, colour: object, path: Path, **how: object) -> torch.Tensor:
    """The colour (3,) that a picture of one colour has after it was saved and read."""
    Image.new(mode, (12, 10), colour).save(path, **how)
    x = opened(path)
    assert x.dtype == torch.uint8 and x.shape == (3, 8, 8) and bool((x == x[:, :1, :1]).all())
    return x[:, 0, 0].tolist()


def test_grey_colour_and_transparent_pictures(tmp_path: Path) -> None:
    assert one_colour("L", 77, tmp_path / "grey.png") == [77] * 3
    assert one_colour("1", 1, tmp_path / "bits.png") == [255] * 3
    assert one_colour("RGB", (10, 20, 30), tmp_path / "rgb.bmp") == [10, 20, 30]
    assert one_colour("RGBA", (10, 20, 30, 255), tmp_path / "opaque.png") == [10, 20, 30]
    assert one_colour("RGBA", (10, 20, 30, 0), tmp_path / "clear.png") == [255] * 3  # on white
    assert one_colour("RGBA", (0, 0, 0, 51), tmp_path / "faint.png") == [204] * 3
    assert one_colour("LA", (40, 255), tmp_path / "la.png") == [40] * 3 and one_colour("LA", (40, 0), tmp_path / "la0.png") == [255] * 3
    assert one_colour("L", 7, tmp_path / "key.png", transparency=7) == [255] * 3
    assert one_colour("RGB", (1, 2, 3), tmp_path / "rgbkey.png", transparency=(1, 2, 3)) == [255] * 3
    assert max(abs(a - b) for a, b in zip(one_colour("CMYK", (0, 255, 255, 0), tmp_path / "cmyk.jpg"), (255, 0, 0), strict=True)) < 6


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50, 9, 9, 9])
    picture.paste(2, (4, 0, 8, 8))
    picture.save(tmp_path / "p.png", transparency=2)
    x = opened(tmp_path / "p.png")
    assert x[:, 0, 0].tolist() == [200, 100, 50] and x[:, 0, 7].tolist() == [255] * 3


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        assert opened(tmp_path / name, channels=1)[0].tolist() == np.round(values / 257).astype(int).tolist()
        assert torch.equal(opened(tmp_path / name), opened(tmp_path / name, channels=1).expand(3, -1, -1))
    old = Image.fromarray(values.astype(np.int32))  # as older versions of pillow open the same file
    old.format = "PNG"
    assert torch.equal(to_bytes(old, 8, 1), opened(tmp_path / "deep.png", channels=1))


@pytest.mark.parametrize("mode", ["F", "I", "HSV", "LAB"])
def test_modes_without_a_known_range_are_refused(mode: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"mode '{mode}' are not understood; save them as 8-bit or 16-bit PNG"):
        to_bytes(Image.new(mode, (8, 8)), 8, 1)
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"cannot read picture .*float\.tif: pictures of mode 'F'"):
        folder(tmp_path)[0].take([0])


def test_a_camera_held_sideways_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((16, 8, 3), np.uint8)
    pixels[:8] = 255  # bright above, dark below
    upright = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise by 90 degrees to see it upright"
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert torch.equal(opened(tmp_path / "turned.png"), opened(tmp_path / "upright.png"))


def test_the_middle_square_is_cut_out_and_scaled() -> None:
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 200
    assert bool((to_bytes(Image.fromarray(pixels), 8, 1) == 200).all())
    assert bool((to_bytes(Image.fromarray(pixels.T), 8, 1) == 200).all())
    assert to_bytes(Image.fromarray(pixels), 32, 1).shape == (1, 32, 32)
    assert to_bytes(Image.new("L", (1, 1), 9), 8, 1).unique().tolist() == [9]


def test_bytes_become_numbers_in_minus_one_to_one() -> None:
    x = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert x.dtype == torch.float32 and x.tolist() == pytest.approx([-1, -0.6, 1])
    assert to_float(x) is x


def test_a_folder_with_subfolders_has_classes(tmp_path: Path) -> None:
    for name in ("cats", "apes", "apes/young"):
        picture_files(tmp_path / name, 3)
    files, labels = folder(tmp_path)
    assert files.shape == (9, 1, 8, 8) and labels.tolist() == [0] * 6 + [1] * 3
    assert [key.parent.name for key in files.keys[6:]] == ["cats"] * 3
    picture_files(tmp_path, 2)  # and some beside the subfolders: a class of their own
    assert sorted(folder(tmp_path)[1].tolist()) == [0] * 2 + [1] * 6 + [2] * 3


def test_hidden_things_and_folders_named_like_pictures_are_left_out(tmp_path: Path) -> None:
    picture_files(tmp_path / "cats", 3), picture_files(tmp_path / ".ipynb_checkpoints", 2), picture_files(tmp_path / "cats" / ".git", 2)
    (tmp_path / "._cat.png").write_bytes(b"left by another system")
    (tmp_path / "cats" / "album.png").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    files, labels = folder(tmp_path)
    assert len(files) == 3 and labels.tolist() == [0, 0, 0]


def test_size_and_colour_follow_the_pictures(tmp_path: Path) -> None:
    picture_files(tmp_path / "a", 5, "L", (30, 20))
    assert folder(tmp_path)[0].shape == (5, 1, 20, 20) and folder(tmp_path, image_size=12)[0].shape == (5, 1, 12, 12)
    picture_files(tmp_path / "b", 6, "RGBA", (100, 90))
    assert folder(tmp_path)[0].shape == (11, 3, 64, 64)  # at most 64 unless asked
    picture_files(tmp_path / "c", 40, "L", (3, 3))
    assert folder(tmp_path)[0].shape[2] == 4


def test_the_one_colour_picture_among_many_grey_ones_is_seen(tmp_path: Path) -> None:
    picture_files(tmp_path, 120)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "037.png")
    assert folder(tmp_path)[0].channels == 3


def test_order_and_content_do_not_depend_on_the_threads(tmp_path: Path) -> None:
    files, _ = folder(picture_files(tmp_path, 20))
    one, many = Pictures(files.open_one, files.keys, 8, 1, workers=1), Pictures(files.open_one, files.keys, 8, 1, workers=7)
    order = [5, 3, 3, 19, 0]
    assert torch.equal(one.take(order), many.take(order)) and torch.equal(one.take(order)[1], one.decode(3))
    assert torch.equal(files[torch.tensor(order)].take(range(5)), one.take(order))
    assert torch.equal(files.resident(), files.take(range(20))) and files.resident(20 * 64 - 1) is files


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damaged_files_raise_data_errors_and_nothing_else(form: str, tmp_path: Path) -> None:
    file, numbers = io.BytesIO(), random.Random(0)
    Image.fromarray(np.random.default_rng(0).integers(256, size=(20, 24, 3), dtype=np.uint8)).save(file, form)
    files, errors = Pictures(Image.open, [tmp_path / "x.png"], 8, 3), 0
    for trial in range(60):
        content = bytearray(file.getvalue())[: numbers.randrange(len(file.getvalue())) if trial % 3 == 0 else None]
        for _ in range(numbers.randrange(1, 6) if content else 0):
            content[numbers.randrange(min(len(content), 150))] = numbers.randrange(256)
        (tmp_path / "x.png").write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pictures._look(tmp_path / "x.png")
            try:
                files.decode(0)
            except DataError as error:
                errors += "x.png" in str(error)
    assert errors > 10


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    picture_files(tmp_path, 12)
    content = (tmp_path / "007.png").read_bytes()
    for broken in (content[: len(content) // 2], b"", b"<html>"):
        (tmp_path / "007.png").write_bytes(broken)
        with pytest.raises(DataError, match=r"cannot read picture .*007\.png: .*; mend it or take it out"):
            load_own(str(tmp_path))


def test_empty_missing_and_unreadable_folders_are_refused_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="nowhere is no folder; give one with pictures"):
        load_own(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds no pictures \(\.png"):
        load_own(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the pictures in .* can be read; the first is a\.png"):
        load_own(str(tmp_path))
    with pytest.raises(DataError, match=r"is no folder"):
        load_own(str(tmp_path / "a.png"))
    assert time.monotonic() - start < 1


def test_which_names_mean_pictures_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert [is_own(name) for name in ("hub:a/b", "x.parquet", "./faces", "mine", "faces", "digits")] == [True] * 4 + [False] * 2


def test_labels_become_numbers() -> None:
    assert numbered([3, 0, 3]).tolist() == [3, 0, 3]
    assert numbered(["pear", "apple", "pear"]).tolist() == [1, 0, 1]
    assert numbered([-1, -1]).tolist() == [0, 0]
    assert numbered([None, "x", None]).tolist() == [0, 1, 0] and numbered([0.5, 0.25]).tolist() == [1, 0]
    assert all(numbered(labels).dtype == torch.int64 for labels in ([1], ["a"], [True]))


# --- the `datasets` library: its real loading code on a file that is made here


def png(value: int) -> dict[str, object]:
    """A picture as `datasets` stores it."""
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (value, 0, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """`datasets` without a network and with its cache in tmp_path."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def parquet(datasets: object, path: Path, rows: list[object], kind: object = None, labels: list[object] | None = None) -> str:
    columns, features = {"pic": rows}, {"pic": datasets.Image()}
    if labels:
        columns, features = columns | {"label": labels}, features | {"label": kind}
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(str(path))
    return str(path)


def test_a_parquet_file_with_pictures_and_classes(offline: object, tmp_path: Path) -> None:
    rows = [png(i) for i in range(12)]
    name = parquet(offline, tmp_path / "a.parquet", rows, offline.ClassLabel(names=["x", "y"]), [0, 1] * 6)
    read, labels = hub(name)
    assert read.shape == (12, 3, 8, 8) and labels.tolist() == [0, 1] * 6
    assert read.take([3, 5])[:, 0, 0, 0].tolist() == [3, 5] and torch.equal(load_own("hub:" + name, 8)[0], read.resident())
    name = parquet(offline, tmp_path / "b.parquet", rows, offline.Value("string"), ["pear", "apple"] * 6)
    assert hub(name, 16)[0].shape == (12, 3, 16, 16) and hub(name)[1].tolist() == [1, 0] * 6
    assert hub(parquet(offline, tmp_path / "c.parquet", rows))[1].tolist() == [0] * 12


def test_a_parquet_file_that_another_tool_wrote(offline: object, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": [png(i) for i in range(10)]}), tmp_path / "plain.parquet")
    assert hub(str(tmp_path / "plain.parquet"))[0].take([4])[0, 0, 0, 0] == 4
    pyarrow.parquet.write_table(pyarrow.table({"x": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match=r"numbers\.parquet has no column of pictures; its columns: x"):
        hub(str(tmp_path / "numbers.parquet"))


def test_rows_without_a_picture_are_named(offline: object, tmp_path: Path) -> None:
    for k, bad in enumerate((None, {"bytes": b"junk", "path": None})):
        name = parquet(offline, tmp_path / f"{k}.parquet", [png(1), png(2), bad, png(3)])
        with pytest.raises(DataError, match=rf"cannot read .*row 2 of .*{k}\.parquet"):
            load_own(name)


def test_what_the_library_cannot_load_is_a_data_error(offline: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="cannot load 'nobody/nothing' through `datasets`"):
        load_own("hub:nobody/nothing")
    assert time.monotonic() - start < 5
    (tmp_path / "junk.parquet").write_bytes(b"123")
    with pytest.raises(DataError, match=r"cannot load .*junk\.parquet"):
        load_own(str(tmp_path / "junk.parquet"))
    with pytest.raises(DataError, match=r"none\.parquet is missing"):
        load_own(str(tmp_path / "none.parquet"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'pip install "ddpm-course\[hub\]"'):
        load_own("hub:a/b")


def test_looking_at_many_files_takes_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(pictures, "_look", lambda path: seen.append(path) or ("L", (8, 8)))
    monkeypatch.setattr(pictures, "LOOKS", 50)
    for i in range(121):
        (tmp_path / f"{i}.png").touch()
    folder(tmp_path)
    assert math.ceil(121 / 3) == len(seen) <= 50
