"""How large the picture is, and how other pictures are brought to that size. Pure.

Sizes are (height, width), as in tensors; what a user reads or writes is WIDTHxHEIGHT.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from impasto import layers
from impasto.errors import InputError
from impasto.recipe import Recipe

__all__ = [
    "SMALLEST_SIDE",
    "STARTS",
    "check_sides",
    "cover",
    "enlarge",
    "fit",
    "fitted",
    "levels",
    "on_grid",
    "resize",
    "shrink",
    "smallest_side",
    "styles_at",
]

SMALLEST_SIDE = 16
"""The fourth pooling leaves nothing of a smaller picture."""

THINNEST = 200

STARTS = ("content", "noise", "style", "gray")
"""What ``Recipe.init`` may be, if it is not a file."""

_COARSEST, _NARROWEST = 256, 64
"""The long side from which `auto` begins, and the least short side of a coarse level."""

_SHARE = 0.8
"""The iterations of a level, as a share of those of the one before it."""

_DETAIL = 0.5
"""How much of the photograph's own fine detail a picture gets back when it is enlarged."""


def fitted(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return (height, width) scaled so that the longer is ``long_side``, aspect kept.

    Example:
        >>> fitted(768, 1024, 512)
        (384, 512)
    """
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def styles_at(
    recipe: Recipe, size: tuple[int, int], styles: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the sizes of the styles of a picture of ``size``: its long side by the style's scale.

    Every style keeps its aspect. Without a seam, its sides are multiples of 16 too.

    Example:
        >>> styles_at(Recipe(style_scale=(0.5,)), (384, 512), [(300, 200)])
        [(256, 171)]
    """
    scales = recipe.scale_of_styles(len(styles))
    sizes = [
        fitted(*style, round(scale * max(size))) for style, scale in zip(styles, scales, strict=True)
    ]
    return [on_grid(*found) for found in sizes] if recipe.tileable else sizes


def on_grid(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) rounded up to multiples of 16, for circular padding.

    Example:
        >>> on_grid(100, 160)
        (112, 160)
    """
    return -(-height // 16) * 16, -(-width // 16) * 16


def smallest_side(recipe: Recipe) -> int:
    """Return the least side of a picture: reflection needs two cells of the deepest layer to mirror.

    Example:
        >>> smallest_side(Recipe()), smallest_side(Recipe(padding="reflect"))
        (16, 32)
    """
    if recipe.border != "reflect":
        return SMALLEST_SIDE
    return max(SMALLEST_SIDE, 2 * layers.stride(recipe.deepest_layer))


def levels(
    recipe: Recipe, height: int, width: int, styles: Sequence[tuple[int, int]] = ()
) -> list[tuple[tuple[int, int], int]]:
    """Return (size, iterations) from coarse to fine, for a picture of (height, width) in the end.

    A coarse level makes large strokes cheaply; it gets somewhat more of the iterations than the next.
    Levels that would get none are left out.

    Chosen here, no level makes the picture or one of the ``styles`` too thin; and a picture that begins
    with a file of the user's keeps its detail, in a single level.

    Raises:
        InputError: a level asked for is too small, or larger than the picture.

    Example:
        >>> levels(Recipe(iterations=90), 768, 1024)
        [((192, 256), 37), ((384, 512), 29), ((768, 1024), 24)]
    """
    long_side = max(height, width)
    least = smallest_side(recipe)
    if recipe.levels == ("auto",):
        count = 1 + int(math.log2(max(1, long_side / _COARSEST))) if recipe.init in STARTS else 1
        halves = [round(long_side / 2**level) for level in reversed(range(count))]
        sides = [
            side
            for side in halves[:-1]
            if min(fitted(height, width, side)) >= max(least, _NARROWEST)
            and all(min(style) >= least for style in styles_at(recipe, (side, side), styles))
        ]
    elif len(recipe.levels) == 1 and (count := int(recipe.levels[0])) < SMALLEST_SIDE:
        sides = [round(long_side / 2**level) for level in reversed(range(1, count))]
    else:
        sides = [int(side) for side in recipe.levels if side != long_side]
    for side in sides:
        if side > long_side or min(fitted(height, width, side)) < least:
            thin = f"under {least} px on its short side"
            why = "larger than the picture" if side > long_side else thin
            raise InputError(
                f"--levels {' '.join(map(str, recipe.levels))}: a level of {side} px is {why}, "
                f"{width}x{height} px in the end; use other levels, or --levels 1"
            )
    sides.append(long_side)
    while 0 in (shares := _shares(recipe.iterations, len(sides))) and len(sides) > 1:
        del sides[0]
    sizes = [*(fitted(height, width, side) for side in sides[:-1]), (height, width)]
    if recipe.tileable:
        sizes = [on_grid(*size) for size in sizes]
    return list(zip(sizes, shares, strict=True))


def _shares(iterations: int, count: int) -> list[int]:
    """Return how many iterations each of ``count`` levels gets."""
    weights = [_SHARE**level for level in range(count)]
    edges = [round(iterations * sum(weights[:level]) / sum(weights)) for level in range(count)]
    return [end - edge for edge, end in pairwise([*edges, iterations])]


def check_sides(height: int, width: int, what: str, smallest: int = SMALLEST_SIDE) -> None:
    """Refuse sizes that the network cannot take.

    Raises:
        InputError: a side is under ``smallest`` pixels, or the picture is thinner than 200:1.
    """
    if max(height, width) > THINNEST * min(height, width):
        raise InputError(
            f"{what} is {width}x{height}: thinner than {THINNEST}:1; crop it to a wider part"
        )
    if min(height, width) < smallest:
        raise InputError(
            f"{what} is {width}x{height} px: both sides must be at least {smallest} px; "
            "use a larger picture, a larger --size or a wider part"
        )


def resize(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a picture ``[3, H, W]`` at ``size`` (height, width), bicubic with antialiasing, in 0..1.

    A picture that has the size already is returned as it is, bit for bit.
    """
    if tuple(picture.shape[1:]) == size:
        return picture
    return _bicubic(picture, size).clamp(0, 1)


def shrink(strips: Iterable[Tensor], height: int, size: tuple[int, int]) -> Tensor:
    """Return what `resize` makes of a picture that comes in strips ``[C, rows, W]``, top to bottom.

    ``height`` is that of all strips together. Rows are independent of each other until the columns are
    shrunk, so that the picture itself is never held. Overshoot is left: an alpha divides it out.

    Example:
        >>> picture = torch.rand(3, 100, 80)
        >>> whole = resize(picture, (50, 40))
        >>> torch.equal(shrink(picture.split(32, dim=1), 100, (50, 40)).clamp(0, 1), whole)
        True
    """
    narrow, top = torch.empty(0, height, size[1]), 0
    for strip in strips:
        rows = strip.shape[1]
        if not top:
            narrow = torch.empty(len(strip), height, size[1])
        narrow[:, top : top + rows] = _bicubic(strip, (rows, size[1]))
        top += rows
    return _bicubic(narrow, size)


def _bicubic(picture: Tensor, size: tuple[int, int]) -> Tensor:
    found = functional.interpolate(
        picture[None], size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return found[0]


def enlarge(
    picture: Tensor, size: tuple[int, int], content: Tensor | None = None, wrap: bool = False
) -> Tensor:
    """Return a level's picture at the next level's ``size``, in float; ``wrap`` where it repeats.

    Where there is a content at that size, the picture gets back half of the detail that the smaller one
    could not hold, c - up(down(c)); a later level has too few iterations to paint it all anew.
    """
    # On the CPU, like all resizing: not every device can.
    wrap = wrap and tuple(picture.shape[1:]) != size
    larger = _wrapped(picture.cpu(), size) if wrap else resize(picture.cpu(), size)
    if content is None or tuple(picture.shape[1:]) == size:
        return larger
    content = content.cpu()
    coarse = resize(resize(content, (picture.shape[1], picture.shape[2])), size)
    return (content - coarse).mul_(_DETAIL).add_(larger).clamp_(0, 1)


def _wrapped(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what `resize` makes of a picture that goes on at its far sides; ``size`` is even."""
    height, width = size
    fourfold = resize(picture.tile(1, 2, 2), (2 * height, 2 * width))
    # The middle has neighbours on all sides; it begins half a picture further on.
    top, left = height // 2, width // 2
    return fourfold[:, top : top + height, left : left + width].roll((top, left), (1, 2))


def fit(picture: Tensor, long_side: int) -> Tensor:
    """Return a picture with its long side brought to ``long_side``, aspect kept."""
    _, height, width = picture.shape
    return resize(picture, fitted(height, width, long_side))


def cover(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the largest centred part of a picture with the aspect of ``size``, at that size."""
    _, height, width = picture.shape
    scale = min(height / size[0], width / size[1])
    part = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - part[0]) // 2, (width - part[1]) // 2
    return resize(picture[:, top : top + part[0], left : left + part[1]], size)
