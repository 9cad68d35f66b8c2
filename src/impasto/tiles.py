"""Where a picture is cut: tiles that own its pixels, and the windows that their features need.

A tile owns a rectangle of pixels, and at every layer the cells above them. Its window is found by
walking back from the deepest layer in use: a convolution needs one cell more on each side, clipped to
the layer's true extent, a pooling doubles. Convolutions pad only where the walk was clipped, as they do
at the same place of the whole picture; elsewhere the window holds the true neighbours. So a tile's
features are the whole picture's, and the gradients of all windows, added, are its gradient.

Pure geometry: sizes are (height, width), tiles of one picture are in reading order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor

from impasto.errors import InputError
from impasto.layers import LAYERS, deepest, stride

__all__ = ["WHOLE", "Cut", "Span", "Step", "Tile", "add", "cut", "extent", "gather", "spans"]


class Cut(NamedTuple):
    """How a picture is cut: the largest tile (height, width), None for a single one.

    In every process ``keep`` tiles keep what their gradient needs from the first pass over the picture
    to the second. ``on_disk``, the content's features wait there and not in memory.
    """

    tile: tuple[int, int] | None = None
    keep: int = 1
    on_disk: bool = False


WHOLE = Cut()
"""The picture in one piece."""


class Span(NamedTuple):
    """Cells from ``start`` up to ``stop`` along one side."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of cells."""
        return self.stop - self.start

    def within(self, outer: "Span") -> slice:
        """Return where this span lies in ``outer``, which covers it."""
        return slice(self.start - outer.start, self.stop - outer.start)


class Step(NamedTuple):
    """One convolution along one side: the padding before and after, and parts of what it gives.

    ``own`` are the cells that the tile answers for, ``onward`` those that the next layer takes.
    """

    pads: tuple[int, int]
    own: slice
    onward: slice


@dataclass(frozen=True)
class Tile:
    """A window of the picture, and how each layer pads and crops what it computes from it.

    A span that reaches outside the picture means the far side's pixels (circular padding). ``own`` are
    the rows and columns of the pixels that the tile owns, of a picture of ``size``.
    """

    rows: Span
    columns: Span
    steps: dict[str, tuple[Step, Step]]
    own: tuple[Span, Span]
    size: tuple[int, int]

    def cells(self, layer: str) -> tuple[Span, Span]:
        """Return the rows and the columns of a layer's cells that the tile owns."""
        rows, columns = (_cells(own, layer) for own in self.own)
        return rows, columns

    def border(self, layer: str) -> tuple[int, int, int, int]:
        """Return the padding of a layer's convolution on the left, right, top and bottom."""
        down, across = self.steps[layer]
        return (*across.pads, *down.pads)


def extent(size: tuple[int, int], layer: str) -> tuple[int, int]:
    """Return the (height, width) of a layer's features: every pooling halves, rounding down.

    Example:
        >>> extent((517, 389), "block5_conv1")
        (32, 24)
    """
    return size[0] // stride(layer), size[1] // stride(layer)


def cut(
    size: tuple[int, int],
    layers: Iterable[str],
    tile: tuple[int, int] | None = None,
    padding: str = "zeros",
) -> list[Tile]:
    """Return the tiles of a picture, of nearly equal sides up to ``tile``, on the pooling grid.

    ``layers`` are those in use.

    Raises:
        InputError: circular padding, and a side that would be cut is no multiple of the stride.

    Example:
        >>> [tile.rows for tile in cut((300, 64), ["block5_conv1"], tile=(160, 64))]
        [Span(start=0, stop=214), Span(start=74, stop=300)]
    """
    sides = _sides(size, tuple(layers), tile, padding)
    return [
        Tile(rows, columns, {name: (down[name], across[name]) for name in down}, (top, left), size)
        for (top, rows, down), (left, columns, across) in product(*sides)
    ]


def spans(
    size: tuple[int, int], layers: Iterable[str], tile: tuple[int, int] | None, padding: str
) -> tuple[list[Span], list[Span]]:
    """Return the rows and the columns of the windows that `cut` would give.

    Raises:
        InputError: as `cut`.
    """
    down, across = _sides(size, tuple(layers), tile, padding)
    return [span for _, span, _ in down], [span for _, span, _ in across]


def _sides(
    size: tuple[int, int],
    layers: tuple[str, ...],
    tile: tuple[int, int] | None,
    padding: str,
) -> list[list[tuple[Span, Span, dict[str, Step]]]]:
    """Return what tiles own, windows and steps, along both sides."""
    sides = []
    grid = stride(deepest(layers))
    for length, limit in zip(size, tile or size, strict=True):
        owned = _owned(length, limit, grid)
        wraps = padding == "circular" and len(owned) > 1
        if wraps and length % grid:
            raise InputError(
                f"circular padding cannot be cut at {size[1]}x{size[0]} px: use sides that are "
                f"multiples of {grid}, more --memory, or another --padding"
            )
        sides.append([(own, *_walk(own, length, layers, wraps)) for own in owned])
    return sides


def _owned(length: int, limit: int, grid: int) -> list[Span]:
    """Return the pixels that each tile owns along a side, at least one cell of the deepest layer."""
    cells = max(1, length // grid)
    count = min(cells, -(-cells // max(1, limit // grid)))
    edges = [grid * (cells * index // count) for index in range(count)]
    return [Span(*edge) for edge in pairwise([*edges, length])]


def _walk(own: Span, length: int, layers: tuple[str, ...], wraps: bool) -> tuple[Span, dict[str, Step]]:
    """Return a tile's window along one side, and its steps by layer, walked from the deepest back."""
    names = list(LAYERS)
    names = names[: names.index(deepest(layers)) + 1]
    steps: dict[str, Step] = {}
    need: Span | None = None  # what the layer after this one takes
    for name, after_it in reversed([*pairwise(names), (names[-1], None)]):
        scale = stride(name)
        bounds = Span(0, length // scale)
        if need and after_it and stride(after_it) > scale:
            need = Span(2 * need.start, 2 * need.stop)
        mine = _cells(own, name)
        onward = need or mine
        if own.length == length:  # one piece: all there is, as an uncut picture has it
            mine = onward = out = bounds
        elif name in layers:
            out = Span(min(onward.start, mine.start), max(onward.stop, mine.stop))
        else:
            out = onward
        pads = (
            int(out.start == bounds.start and not wraps),
            int(out.stop == bounds.stop and not wraps),
        )
        steps[name] = Step(pads, mine.within(out) if name in layers else slice(0, 0), onward.within(out))
        need = Span(out.start - 1 + pads[0], out.stop + 1 - pads[1])
    assert need is not None
    return need, dict(reversed(steps.items()))


def _cells(own: Span, layer: str) -> Span:
    scale = stride(layer)
    return Span(own.start // scale, own.stop // scale)


def gather(picture: Tensor, tile: Tile) -> Tensor:
    """Return a tile's window of a picture ``[3, H, W]``: a view where it lies inside."""
    for dim, span in ((1, tile.rows), (2, tile.columns)):
        if span.start >= 0 and span.stop <= picture.shape[dim]:
            picture = picture.narrow(dim, span.start, span.length)
        else:
            picture = picture.index_select(dim, _places(span, picture, dim))
    return picture


def add(gradient: Tensor, tile: Tile, part: Tensor) -> None:
    """Add the gradient of a tile's window to the picture's, in place, its halo included."""
    if tile.rows.start >= 0 and tile.rows.stop <= gradient.shape[1]:
        gradient = gradient.narrow(1, tile.rows.start, tile.rows.length)
    else:
        folded = part.new_zeros(part.shape[0], gradient.shape[1], part.shape[2])
        part = folded.index_add_(1, _places(tile.rows, gradient, 1), part)
    if tile.columns.start >= 0 and tile.columns.stop <= gradient.shape[2]:
        gradient.narrow(2, tile.columns.start, tile.columns.length).add_(part)
    else:
        gradient.index_add_(2, _places(tile.columns, gradient, 2), part)


def _places(span: Span, picture: Tensor, dim: int) -> Tensor:
    return torch.arange(span.start, span.stop, device=picture.device) % picture.shape[dim]
