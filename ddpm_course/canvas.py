"""Pictures of captioned scenes: real digits of MNIST, coloured, in two sizes, on a black canvas of 32x32 pixels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .captions import DIGITS, NUMBER, complete, describe, draw_scenes, left_open, tokenize
from .data import Split, Splits, mnist5k

CANVAS, TILE = 32, 16  # pixels of the canvas, and of the square that holds a large digit
SIDES = (11, 16)  # of a small and of a large one
PAINT = torch.tensor([(1, 0.15, 0.1), (0.1, 0.85, 0.2), (0.25, 0.4, 1), (1, 0.9, 0.1), (0.75, 0.2, 0.95), (1, 1, 1)])  # as captions.COLOURS
# layout -> for each thing the middle (x, y) of its square, and how far it may be moved
MIDDLES = torch.tensor([[9, 16], [23, 16], [16, 9], [16, 23], [16, 16], [16, 8], [16, 24], [8, 16], [24, 16]])
SECOND = torch.tensor([[0, 0]] * 5 + [[16, 24], [16, 8], [24, 16], [8, 16]])
REACH = torch.tensor([[1, 3], [1, 3], [3, 1], [3, 1], [2, 2], [3, 1], [3, 1], [1, 3], [1, 3]])


class Sources:
    """Real digits, cut out and brought to both sizes, as shares of colour in [0, 1]: what scenes are drawn with."""

    def __init__(self, digits: Split) -> None:
        order = digits.labels.argsort(stable=True)
        close = (digits.images[order, :, 3:25, 3:25] + 1) / 2
        self.tiles = torch.stack([self._tile(close, side) for side in SIDES])  # (2, N, TILE, TILE)
        self.counts = digits.labels.bincount(minlength=len(DIGITS))
        self.starts = self.counts.cumsum(0) - self.counts

    @staticmethod
    def _tile(close: Tensor, side: int) -> Tensor:
        small = F.interpolate(close, (side, side), mode="bilinear", antialias=True)[:, 0]
        before, after = (TILE - side) // 2, -(-(TILE - side) // 2)
        return F.pad((1.3 * small).clamp(0, 1), (before, after, before, after))

    def pick(self, digit: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
        """One digit of the class for each, (N, TILE, TILE)."""
        u = torch.rand(len(digit), generator=generator)
        return self.tiles[size, self.starts[digit] + (u * self.counts[digit]).long()]


def render(scenes: Tensor, sources: Sources, generator: torch.Generator) -> Tensor:
    """A picture of each scene, bytes (N, 3, 32, 32) (to_float brings them to [-1, 1]); what a scene leaves open is drawn evenly."""
    parts = [_render(complete(part, generator), sources, generator) for part in scenes.split(4096)]
    return torch.cat(parts) if parts else torch.empty(0, 3, CANVAS, CANVAS, dtype=torch.uint8)


def _render(scenes: Tensor, sources: Sources, generator: torch.Generator) -> Tensor:
    canvas, pad = torch.zeros(len(scenes), 3, CANVAS + 8, CANVAS + 8), 4
    for middles, columns in ((MIDDLES, slice(1, 4)), (SECOND, slice(4, 7))):
        there = (scenes[:, columns.start] >= 0).nonzero()[:, 0]
        layout, (digit, colour, size) = scenes[there, 0], scenes[there, columns].T
        moved = torch.rand(len(there), 2, generator=generator) * (2 * REACH[layout] + 1)
        corner = middles[layout] + moved.long() - REACH[layout] - TILE // 2 + pad
        paint = sources.pick(digit, size, generator)[:, None] * PAINT[colour][:, :, None, None]
        rows, columns_ = (corner[:, k, None] + torch.arange(TILE) for k in (1, 0))
        places = (rows[:, :, None] * canvas.shape[-1] + columns_[:, None]).flatten(1)[:, None].expand(-1, 3, -1)
        canvas[there] = canvas[there].flatten(2).scatter_add(2, places, paint.flatten(2)).unflatten(2, canvas.shape[2:])
    return (canvas[:, :, pad:-pad, pad:-pad].clamp(max=1) * 255).round().byte()


def caption_condition(dropout: float = 0.1) -> Callable[[Split, Tensor, torch.Generator | None], dict[str, Tensor]]:
    """The condition for train(): the words of each picture (a split's labels), each caption hidden for itself.   CFG section 3.2."""

    def condition(split: Split, index: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        """tokens (B, L); without a generator (in validation) nothing is hidden."""
        tokens = split.labels[index]
        if generator is None:
            return {"tokens": tokens}
        hidden = torch.rand(len(tokens), 1, generator=generator, device=tokens.device) < dropout
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        return {"tokens": torch.where(hidden, first * NUMBER["<null>"], tokens)}

    return condition


def captioned(n: int = 10_000, held_out: int = 1000, seed: int = 0, share_open: float = 0.1) -> Splits:
    """Pictures as bytes (N, 3, 32, 32) and, as labels, the words of their captions (N, LENGTH).

    train: n pictures of training combinations from training digits; val and test: `held_out` each, other combinations and other digits.
    """
    parts = []
    for k, (digits, size) in enumerate(zip(mnist5k(), (n, held_out, held_out), strict=True)):
        generator = torch.Generator().manual_seed(3 * seed + k)
        scenes = draw_scenes(size, generator, held_out=k > 0)
        said = scenes if k else left_open(scenes, share_open, generator)
        parts.append(Split(render(scenes, Sources(digits), generator), tokenize(describe(said))))
    return Splits(*parts)
