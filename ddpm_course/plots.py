"""Figures, in one style. The only home of matplotlib in the package."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .images import image_grid

BLUE, ORANGE, GREEN, RED, GREY = "#3b6fb6", "#e08a2e", "#4a9b5e", "#c0413b", "#8a8a8a"


def style() -> None:
    """Set the course's look: sober, legible on a projector, small files. Call once at the top of a notebook."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.5, 3.2),
            "figure.dpi": 80,
            "savefig.dpi": 80,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "font.size": 11,
            "axes.titlesize": 11,
            "legend.frameon": False,
            "image.cmap": "gray",
            "lines.linewidth": 1.8,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, GREY]),
        }
    )


def show_images(images: Tensor, columns: int | None = None, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw pictures (N, C, H, W) in [-1, 1] as a grid, black = -1."""
    sheet = image_grid(images, columns)
    if ax is None:
        width = 7.5
        _, ax = plt.subplots(figsize=(width, max(0.8, width * sheet.shape[0] / sheet.shape[1]) + (0.3 if title else 0)))
    ax.imshow(sheet, vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
    return ax


def show_rows(rows: dict[str, Tensor], columns: int | None = None) -> Figure:
    """One labelled row of pictures (N, C, H, W) for each entry: what happens to the same pictures under different treatments."""
    count, height, width = next((len(x[:columns]), *x.shape[-2:]) for x in rows.values())
    fig, axes = plt.subplots(len(rows), 1, figsize=(7.5, max(0.35, 6.6 / count * height / width) * len(rows) + 0.1), squeeze=False)
    for ax, (label, images) in zip(axes[:, 0], rows.items(), strict=True):
        ax.imshow(image_grid(images[:columns]), vmin=0, vmax=1, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    return fig


def scatter(x: Tensor, ax: Axes | None = None, title: str = "", color: str = BLUE, limit: float = 2.6, size: float = 3) -> Axes:
    """Points (N, 2) in a square frame."""
    ax = ax or plt.subplots(figsize=(3.2, 3.2))[1]
    ax.scatter(*x.detach().cpu().T, s=size, color=color, alpha=0.6, linewidths=0)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=title, xticks=[], yticks=[])
    return ax


def scatter_row(clouds: dict[str, Tensor], limit: float = 2.6, color: str = BLUE) -> Figure:
    """Several clouds (N, 2) side by side under their titles."""
    fig, axes = plt.subplots(1, len(clouds), figsize=(1.9 * len(clouds), 2.1), squeeze=False)
    for ax, (title, x) in zip(axes[0], clouds.items(), strict=True):
        scatter(x, ax, title, color, limit, size=2)
    return fig


def curves(x: Sequence[float] | Tensor, lines: dict[str, Sequence[float] | Tensor], ax: Axes | None = None, **axis: object) -> Axes:
    """Labelled lines over x; further keywords go to ax.set (xlabel, ylabel, title, xscale, yscale, ...)."""
    ax = ax or plt.subplots()[1]
    for label, y in lines.items():
        ax.plot(x, y, label=label)
    ax.set(**axis)
    ax.legend()
    return ax


def versus(
    x: Sequence[float] | Sequence[str],
    wrong: Tensor,
    right: Tensor,
    ax: Axes | None = None,
    truth: tuple[int, float] | None = None,
    **axis: object,
) -> Axes:
    """A wrong curve beside the right one, both over x; words make bars, a falling x runs to the right as the walk does.

    truth: (entry, value) known from elsewhere, marked by a ring. Further keywords go to ax.set.
    """
    ax = ax or plt.subplots(figsize=(6.4, 2.1))[1]
    ax.set(**axis)  # first, since a scale would replace the ticks
    if isinstance(x[0], str):
        places = range(len(x))
        ax.bar([k - 0.2 for k in places], wrong.tolist(), 0.38, color=RED, label="wrong")
        ax.bar([k + 0.2 for k in places], right.tolist(), 0.38, color=BLUE, label="right")
        ax.set_xticks(places, x)
    else:
        places = x
        ax.plot(x, right, color=BLUE, label="right")
        ax.plot(x, wrong, color=RED, linestyle="--", label="wrong")
        if x[0] > x[-1]:
            ax.invert_xaxis()
    if truth:
        shift = 0.2 if isinstance(x[0], str) else 0
        ax.plot(places[truth[0]] + shift, truth[1], "o", markersize=9, markerfacecolor="none", markeredgecolor="black", label="truth")
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def compact_png(fig: Figure, colours: int = 48) -> bytes:
    """The figure as a PNG with a palette of few colours, about a third of the usual bytes; closes it."""
    whole, small = io.BytesIO(), io.BytesIO()
    fig.savefig(whole, format="png")
    plt.close(fig)
    Image.open(whole).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
    return small.getvalue()
