"""Figures: what is drawn is what was given."""

import io
from collections.abc import Iterator

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from ddpm_course import plots  # noqa: E402
from ddpm_course.errors import ShapeError  # noqa: E402


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with matplotlib.rc_context():
        yield
    plt.close("all")


def test_a_grid_puts_every_picture_in_its_place() -> None:
    images = torch.stack([torch.full((1, 2, 3), v) for v in (-1.0, 0.0, 1.0)])
    sheet = plots.image_grid(images, columns=2)
    assert sheet.shape == (5, 7)
    assert bool((sheet[:2, :3] == 0).all()) and bool((sheet[:2, 4:] == 0.5).all()) and bool((sheet[3:, :3] == 1).all())
    assert bool((sheet[2] == 1).all()) and bool((sheet[:, 3] == 1).all()) and bool((sheet[3:, 4:] == 1).all())
    assert plots.image_grid(images).shape == (2, 11)


def test_colour_goes_last_and_values_are_clamped() -> None:
    sheet = plots.image_grid(torch.full((2, 3, 4, 4), 7.0, dtype=torch.float64, requires_grad=True))
    assert sheet.shape == (4, 9, 3) and float(sheet.max()) == 1 and sheet.dtype == torch.float32


def test_other_shapes_are_refused() -> None:
    for bad in (torch.zeros(8, 8), torch.zeros(1, 2, 8, 8)):
        with pytest.raises(ShapeError, match=r"image_grid takes \(N, 1, H, W\)"):
            plots.image_grid(bad)


def test_pictures_and_rows_are_drawn() -> None:
    plots.style()
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    ax = plots.show_images(images, 3, "six")
    assert ax.get_title() == "six" and ax.images[0].get_array().shape == (17, 26)
    assert ax.images[0].get_clim() == (0, 1)
    fig = plots.show_rows({"a": images, "b": images.flip(0)}, columns=4)
    assert [a.get_ylabel() for a in fig.axes] == ["a", "b"] and fig.axes[0].images[0].get_array().shape == (8, 35)
    own = plt.subplots()[1]
    assert plots.show_images(images, ax=own) is own


def test_points_are_drawn() -> None:
    x = torch.randn(50, 2)
    ax = plots.scatter(x, title="cloud", limit=3)
    assert torch.allclose(torch.tensor(ax.collections[0].get_offsets().data).float(), x) and ax.get_xlim() == (-3, 3)
    fig = plots.scatter_row({"a": x, "b": x, "c": x})
    assert [a.get_title() for a in fig.axes] == ["a", "b", "c"]


def test_curves_are_labelled() -> None:
    ax = plots.curves([1, 2], {"up": torch.tensor([1.0, 2.0]), "down": [2, 1]}, xlabel="t", yscale="log")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["up", "down"]
    assert (ax.get_xlabel(), ax.get_yscale()) == ("t", "log") and list(ax.lines[0].get_ydata()) == [1, 2]


def test_versus_draws_both_curves_and_the_truth() -> None:
    wrong, right = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 1.5, 1.2])
    ax = plots.versus([3, 2, 1], wrong, right, truth=(2, 1.25), title="M0")
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}
    assert lines["wrong"] == ([3, 2, 1], wrong.tolist()) and lines["right"] == ([3, 2, 1], right.tolist())
    assert lines["truth"] == ([1], [1.25]) and ax.xaxis_inverted() and ax.get_title() == "M0"
    bars = plots.versus(["a", "b", "c"], wrong, right)
    assert [bar.get_height() for bar in bars.patches] == [*wrong.tolist(), *right.tolist()]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["a", "b", "c"] and not bars.lines


def test_a_compact_picture_is_small_and_the_same() -> None:
    fig = plots.curves(range(50), {"a": [k**2 for k in range(50)]}).figure
    whole = io.BytesIO()
    fig.savefig(whole, format="png")
    small = plots.compact_png(fig)
    one, two = (torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).float() for data in (whole.getvalue(), small))
    assert len(small) < 0.6 * len(whole.getvalue()) and fig.number not in plt.get_fignums()
    assert one.shape == two.shape and float((one - two).abs().mean()) < 1
