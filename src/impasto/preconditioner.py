"""Steps made longer at low frequencies, where style losses are flat. Pure."""

import math

import torch
from torch import Tensor

__all__ = ["Preconditioner", "pictures_held"]

_STRIP = 256

_COARSE, _FINE = 0.01, 0.045
"""Cycles per pixel below and above which all frequencies are scaled alike.

Strokes over 100 px have no scale; and were what is finer than 22 px scaled down further, noise would
stay."""

_BORDER = 0.5
"""The default padding repeats a border's pixels; their gradients are 1.6 times their neighbours'."""


class Preconditioner:
    """A linear map A = D P of pictures ``[C, H, W]``: longer steps if coarse, shorter ones at borders.

    P multiplies a frequency of f = (f_y, f_x) cycles per pixel by

        (min(|f|, 0.045)^2 + 0.01^2)^(-power/2), over the root of the mean of its squares,

    in an orthonormal basis B of cosines, for which a picture's surroundings are its mirror image;
    P = B' S B. D multiplies the outermost pixels by 1/2, in the corners by 1/4. Where pictures repeat
    (``wrap``) the basis is cos + sin, and there are no borders. No power, no change, to the bit.

    A descent on u, where the pixels are A u, has the gradient A' g and steps along A A' g: A A' is what
    the field calls the preconditioner.

    A product with A takes 4 C H W (H + W) operations, and an evaluation needs two: together 1.5 % of
    the network's own at 512x384 px, 6 % at 2048x1536 px; in float32, also where the network has bf16.

    Reference: Olah, Mordvintsev and Schubert, "Feature Visualization" (2017), who descend in a
    decorrelated basis; the transforms are Bracewell's "The Hartley Transform" (1986) and the DCT-II of
    Ahmed, Natarajan and Rao, "Discrete Cosine Transform" (1974).

    Example:
        >>> precondition = Preconditioner(torch.zeros(3, 8, 8), power=0.5)
        >>> a, b = torch.rand(3, 8, 8), torch.rand(3, 8, 8)
        >>> torch.allclose((precondition(a) * b).sum(), (a * precondition.transposed(b)).sum())
        True
    """

    def __init__(self, like: Tensor, power: float, wrap: bool = False) -> None:
        """Make the bases for pictures ``like`` this one."""
        self.power = power
        self.border = 1.0 if wrap else _BORDER
        if power:
            (rows, high), (columns, wide) = (_basis(side, wrap, like) for side in like.shape[1:])
            squares = (high[:, None] ** 2 + wide**2).clamp_max(_FINE**2) + _COARSE**2
            scale = squares ** (-power / 2)
            self.rows, self.columns = rows, columns
            self.scale = (scale / scale.square().mean().sqrt()).to(like)

    def __call__(self, picture: Tensor) -> Tensor:
        """Return A times a picture."""
        return self._at_borders(self._smoothed(picture)) if self.power else picture

    def transposed(self, gradient: Tensor) -> Tensor:
        """Return A' times a gradient."""
        return self._smoothed(self._at_borders(gradient.clone())) if self.power else gradient

    def _smoothed(self, picture: Tensor) -> Tensor:
        waves = self.rows @ picture @ self.columns.T
        return self.rows.T @ waves.mul_(self.scale) @ self.columns

    def _at_borders(self, picture: Tensor) -> Tensor:
        for dim in (1, 2):
            for place in {0, picture.shape[dim] - 1}:
                picture.select(dim, place).mul_(self.border)
        return picture


def pictures_held(height: int, width: int) -> int:
    """Return the memory that P takes, in pictures of this size: more where one side is much longer.

    Example:
        >>> pictures_held(768, 1024), pictures_held(150, 30000)
        (1, 67)
    """
    return round((height**2 + width**2 + height * width) / (3 * height * width))


def _basis(side: int, wrap: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis ``[side, side]``, a wave in each row, and its cycles per pixel."""
    number = torch.arange(side, dtype=torch.float64)
    waves = like.new_empty(side, side)
    for first in range(0, side, _STRIP):  # in float64 a whole one would take thrice what is kept
        strip = slice(first, first + _STRIP)
        waves[strip] = _waves(number[strip], number, wrap)
    return waves, number.minimum(side - number) / side if wrap else number / (2 * side)


def _waves(rows: Tensor, number: Tensor, wrap: bool) -> Tensor:
    side = len(number)
    if wrap:
        turns = 2 * math.pi / side * (rows[:, None] * number % side)
        return (turns.cos() + turns.sin()) / math.sqrt(side)
    waves = torch.cos(math.pi / side * rows[:, None] * (number + 0.5)) * math.sqrt(2 / side)
    return waves.masked_fill_(rows[:, None] == 0, 1 / math.sqrt(side))
