"""Checks of chapter 07, the U-Net."""

import math

import torch

from . import Exercise


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention in plain loops: a weighted mean of the rows of v for each row of q."""
    rows = []
    for question in q.tolist():
        scores = [sum(a * b for a, b in zip(question, key, strict=True)) / math.sqrt(q.shape[1]) for key in k.tolist()]
        shares = [math.exp(s - max(scores)) for s in scores]
        rows.append([sum(w * x for w, x in zip(shares, column, strict=True)) / sum(shares) for column in v.T.tolist()])
    return torch.tensor(rows)


_QKV = tuple(tuple(torch.randn(n, d, generator=torch.Generator().manual_seed(10 * n + i)) for i, d in enumerate((4, 4, 3))) for n in (2, 5))


def _stamp_by_stamp(k: int, s: int) -> list[list[int]]:
    """Lay k x k stamps of ones, s apart, and read s x s pixels far from the border."""
    sheet, count, middle = torch.zeros(20 * s + k, 20 * s + k), 20, 10 * s
    for i in range(count):
        for j in range(count):
            sheet[i * s : i * s + k, j * s : j * s + k] += 1
    return sheet[middle : middle + s, middle : middle + s].int().tolist()


EXERCISES = {
    "7.1": Exercise(
        answer=2 * 64 + (9 * 64 * 32 + 32) + (128 * 32 + 32) + 2 * 32 + (9 * 32 * 32 + 32) + (64 * 32 + 32),
        hint="Two norms, two 3x3 convolutions, one linear layer for the time, one 1x1 convolution for the input; do not forget the biases.",
        wrong={
            "The 1x1 convolution is missing: 64 channels cannot be added to 32 without it.": 34_112 - 2_080,
            "The biases are missing: every convolution and the linear layer has one number for each output channel.": 34_112 - 128,
            "The time layer is missing: 128 numbers in, one number for each of the 32 channels out.": 34_112 - 4_128,
            "The norms are missing: each has a scale and a shift for each of its channels.": 34_112 - 192,
        },
        tolerance=1e-9,
    ),
    "7.2": Exercise(
        answer=lambda n, m: (2 * m + 1) * 2 - 1 + 2 * n,  # 2m+1 small pixels stand 2 apart; each sees 2n+1
        inputs=((1, 0), (0, 1), (2, 3), (5, 2)),
        hint="One 3x3 convolution adds a ring: one pixel on each side. How far apart on the large map are neighbours of the small one?",
        wrong={
            "On the small map a neighbour is two large pixels away, so each convolution there adds 4, not 2.": lambda n, m: (
                1 + 2 * n + 2 * m
            ),
            "A ring adds a pixel on both sides.": lambda n, m: 1 + n + 2 * m,
            "The halving doubles the steps of what comes after it, not of what came before.": lambda n, m: 1 + 4 * n + 2 * m,
        },
    ),
    "7.3": Exercise(
        answer=[256 + 256] * 8 + [256 + 128, 256 + 128, 128 + 128, 128 + 128],
        hint="It pushes 128 (conv_in), then blocks and halvings: 128 128 128, 256 256 256, 256 256 256, 256 256. Pop from the right.",
        wrong={
            "Halving layers push too; so the last block at 256 gets the 128 of the first halving.": [512] * 9 + [384, 256, 256],
            "That is the output of each block; its input is its own map and a skip side by side.": [256] * 9 + [128] * 3,
            "First in, last out: the decoder starts with the encoder's last map.": [384] * 4 + [512] * 5 + [384] * 3,
        },
        tolerance=1e-9,
    ),
    "7.4": Exercise(
        answer=_attention,
        inputs=_QKV,
        hint="Scores q @ k.T, divided by the root of the number of columns of q; softmax along each row; then times v.",
        wrong={
            "The division by sqrt(d) is missing.": lambda q, k, v: torch.softmax(q @ k.T, dim=1) @ v,
            "You divided by d; the standard deviation of a score is sqrt(d).": lambda q, k, v: (
                torch.softmax(q @ k.T / q.shape[1], dim=1) @ v
            ),
            "The softmax runs along the wrong axis: the weights of one asking pixel (a row) sum to 1.": lambda q, k, v: (
                torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=0) @ v
            ),
            "You divided by the root of the number of pixels; d is the length of a question.": lambda q, k, v: (
                torch.softmax(q @ k.T / q.shape[0] ** 0.5, dim=1) @ v
            ),
        },
    ),
    "7.5": Exercise(
        answer=(3 * 128) ** 2 * 32**2,
        hint="32 * 32 * 128 output numbers, each a sum over a 3x3 window in 128 channels.",
        wrong={
            "That is a 1x1 convolution: the window has 9 places.": 128 * 128 * 32 * 32,
            "That is the number of weights. Each weight is used once for every pixel.": 9 * 128 * 128,
            "Every output channel looks at all 128 input channels.": 9 * 128 * 32 * 32,
            "You counted the additions as well; the question asks for multiplications.": 2 * 9 * 128 * 128 * 32 * 32,
        },
        tolerance=1e-9,
    ),
    "7.6": Exercise(
        answer=_stamp_by_stamp,
        inputs=((3, 2), (4, 2), (5, 3), (5, 2), (2, 3)),
        hint="In a line, pixel r is covered by ceil((k - r) / s) stamps. The table is the product of the row's and the column's count.",
        wrong={
            "Counts multiply: each stamp in one direction meets each in the other.": lambda k, s: [
                [-((a - k) // s) - ((b - k) // s) for b in range(s)] for a in range(s)
            ],
            "Round up, not down: a stamp that reaches the pixel with its last entry counts.": lambda k, s: [
                [(k - a) // s * ((k - b) // s) for b in range(s)] for a in range(s)
            ],
            "That is the average; the counts differ from pixel to pixel unless s divides k.": lambda k, s: [[(k / s) ** 2] * s] * s,
            "That is one dimension; the question asks for a table.": lambda k, s: [-((r - k) // s) for r in range(s)],
        },
        tolerance=1e-9,
    ),
}
