"""Regions of a picture, and their weights on a layer's grid: which part is painted like which. Pure.

Regions are ``[R, H, W]``, float32 in 0..1: T_r says how much each pixel belongs to region r. The i-th
region of the content is painted by the i-th region of the style: its summary is a sum over positions
weighted by T_r at that layer. Sizes are (height, width); what a user reads is WIDTHxHEIGHT, and regions
counted from 1.

Reference: Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer" (2017), section 4.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import InputError
from impasto.layers import LAYERS, stride

__all__ = [
    "MOST_REGIONS",
    "SPREADS",
    "at_layer",
    "check",
    "check_aspect",
    "fit",
    "from_indices",
    "hard",
    "in_strips",
    "reach",
    "shrink",
    "soft",
    "together",
]

MOST_REGIONS = 16
"""The most colours of a picture of regions: one with more is no such picture."""

_ASPECT = 0.02
"""How much a mask's aspect may differ from its picture's."""


def hard(picture: Tensor, what: str = "the mask") -> Tensor:
    """Return the regions ``[R, H, W]`` of a picture ``[3, H, W]`` that has few colours, a one-hot.

    Regions are in the order of their colours' luminance, black first, white last: of the 8-bit values,
    0.2126 R + 0.7152 G + 0.0722 B (Rec. 709); equal ones by red, then green, then blue. So black, blue,
    red, magenta, green, cyan, yellow, white.

    Raises:
        InputError: there are over 16 colours, at 8 bits.

    Example:
        >>> white_black = torch.tensor([1.0, 0.0]).expand(3, 1, 2)
        >>> hard(white_black).tolist()
        [[[0.0, 1.0]], [[1.0, 0.0]]]
    """
    (regions,) = in_strips(lambda: [picture], what)
    return regions


def from_indices(indices: Tensor, what: str = "the mask") -> Tensor:
    """Return the regions ``[R, H, W]`` of palette indices ``[H, W]``, a one-hot, in their order.

    An index that does not occur is no region.

    Raises:
        InputError: there are over 16 indices.

    Example:
        >>> from_indices(torch.tensor([[7, 7, 2]])).tolist()
        [[[0.0, 0.0, 1.0]], [[1.0, 1.0, 0.0]]]
    """
    (regions,) = in_strips(lambda: [indices], what)
    return regions


def in_strips(strips: Callable[[], Iterable[Tensor]], what: str = "the mask") -> Iterator[Tensor]:
    """Yield strips of the regions ``[R, rows, W]`` of a mask that comes in strips, top to bottom.

    They come twice, to see which values there are, and which is where: ``[3, rows, W]`` as for `hard`,
    or ``[rows, W]`` as for `from_indices`.

    Raises:
        InputError: there are over 16 values.
    """
    values: set[int] = set()
    for strip in strips():
        values.update(torch.unique(_codes(strip)).tolist())
        if len(values) > MOST_REGIONS:
            raise InputError(
                f"{what} has over {MOST_REGIONS} colours: a mask of regions has at most {MOST_REGIONS} "
                "flat colours; was it saved as JPEG or antialiased? use PNG, or several grey masks"
            )
    for strip in strips():
        ordered = sorted(values, key=_rank if strip.ndim == 3 else None)
        codes = _codes(strip)
        yield torch.stack([(codes == value).float() for value in ordered])


def _codes(strip: Tensor) -> Tensor:
    """Return an integer for each pixel, ``[rows, W]``: its index, or red, green and blue as bytes."""
    if strip.ndim == 2:
        return strip
    red, green, blue = (strip * 255).round().to(torch.int32)
    codes: Tensor = (red << 16) | (green << 8) | blue
    return codes


def _rank(code: int) -> tuple[int, int]:
    """Return what a colour is sorted by; its code is already in the order red, green, blue."""
    red, green, blue = code >> 16, code >> 8 & 255, code & 255
    return 2126 * red + 7152 * green + 722 * blue, code


def soft(greys: Sequence[Tensor]) -> Tensor:
    """Return the regions ``[R, H, W]`` of R grey pictures ``[3, H, W]``: white is in, black is out.

    A colour counts as its luminance, 0.2126 R + 0.7152 G + 0.0722 B (Rec. 709) of the values as they
    are. Weights of a pixel need not sum to 1.

    Raises:
        InputError: the pictures are not of one size.

    Example:
        >>> soft([torch.full((3, 1, 2), 0.25), torch.full((3, 1, 2), 1.0)]).tolist()
        [[[0.25, 0.25]], [[1.0, 1.0]]]
    """
    # In this form the luminance of a grey is that grey, to the last bit.
    return together(
        [
            (red + 0.7152 * (green - red) + 0.0722 * (blue - red))[None].clamp_(0, 1)
            for red, green, blue in greys
        ]
    )


def together(greys: Sequence[Tensor]) -> Tensor:
    """Return the regions ``[R, H, W]`` of R grey masks ``[1, H, W]``.

    Raises:
        InputError: the masks are not of one size.
    """
    first = greys[0]
    for number, grey in enumerate(greys, start=1):
        if grey.shape != first.shape:
            raise InputError(
                f"grey mask {number} is {_spoken(grey)} px, the first is {_spoken(first)} px: "
                "all masks of a picture must have one size"
            )
    return torch.cat(list(greys)) if len(greys) > 1 else first


def fit(
    regions: Tensor, size: tuple[int, int], what: str, like: tuple[int, int] | None = None
) -> Tensor:
    """Return regions at ``size`` (height, width), each weight an average over the pixels it covers.

    A pixel counts fully where it is covered partly. So enlarged regions are the nearest pixel's, and
    on the edge of two pixels their mean. Where weights sum to 1 they still do. ``like`` is the size of
    the picture that the mask was drawn over, where ``size`` has another aspect.

    Raises:
        InputError: the aspects differ by over 2 %, and by more than rounding sides to a pixel explains.

    Example:
        >>> fit(torch.tensor([[[1.0, 0.0, 1.0, 1.0]] * 2]), (1, 2), "the mask").tolist()
        [[[0.5, 1.0]]]
    """
    if tuple(regions.shape[1:]) == size:
        return regions
    check_aspect((regions.shape[1], regions.shape[2]), like or size, what)
    return functional.adaptive_avg_pool2d(regions, size)


def check_aspect(size: tuple[int, int], like: tuple[int, int], what: str) -> None:
    """Refuse a mask of a ``size`` (height, width) of another aspect than that of its picture, ``like``.

    Raises:
        InputError: the aspects differ by over 2 %, and by more than rounding sides to a pixel explains.
    """
    ours, theirs = size[1] * like[0], size[0] * like[1]
    # Sides rounded from a s and b s, each by up to 1/2, leave |a' b - b' a| <= (a + b) / 2.
    rounding = max(sum(size), sum(like)) / 2
    if abs(ours - theirs) > max(rounding, _ASPECT * max(ours, theirs)):
        raise InputError(
            f"{what} is {size[1]}x{size[0]} px, its picture {like[1]}x{like[0]} px: their aspects may "
            f"differ by {_ASPECT:.0%}; draw the mask over its own picture, or crop it like that"
        )


def shrink(strips: Iterable[Tensor], height: int, size: tuple[int, int]) -> Tensor:
    """Return what `fit` makes of regions that come in strips ``[R, rows, W]``, top to bottom.

    ``height`` is that of all strips together; they are never held together.

    Example:
        >>> regions = torch.rand(2, 100, 80)
        >>> found = shrink(regions.split(32, dim=1), 100, (43, 40))
        >>> torch.allclose(found, fit(regions, (43, 40), "the mask", like=(100, 80)))
        True
    """
    found, top = torch.zeros(0), 0
    for strip in strips:
        if top == 0:
            found = strip.new_zeros(len(strip), *size)
        bottom = top + strip.shape[1]
        narrow = functional.adaptive_avg_pool2d(strip, (strip.shape[1], size[1]))
        for row in range(top * size[0] // height, -(-bottom * size[0] // height)):
            start, stop = row * height // size[0], -(-(row + 1) * height // size[0])
            part = narrow[:, max(0, start - top) : stop - top]
            found[:, row] += part.sum(1) / (stop - start)
        top = bottom
    return found


def reach(layer: str) -> int:
    """Return how many pixels beyond its own s x s a layer's cell sees on each side, s the stride.

    Every 3x3 convolution up to the layer adds one cell of its own stride; pooling adds nothing, and
    padding, but for circular, mirrors or repeats what is within reach.

    Example:
        >>> reach("block1_conv1"), reach("block4_conv2")
        (1, 38)
    """
    return sum(stride(name) for name in _until(layer))


def _until(layer: str) -> list[str]:
    names = list(LAYERS)
    return names[: names.index(layer) + 1]


def at_layer(regions: Tensor, layer: str, spread: str = "area") -> Tensor:
    """Return the weights ``[R, H // s, W // s]`` of regions ``[R, H, W]`` on a layer's grid, stride s.

    What is left of a side after its whole cells counts for nothing. ``spread`` is how the region's edge
    is treated, where a cell sees both sides of it:

        area     the mean of the cell's own s x s pixels
        inside   that, where all pixels in the cell's receptive field are at least 1/2, else 0
        all      the largest weight in the cell's receptive field

    A region that no cell sees alone gets its `area` instead of `inside`, at that layer: deep layers see
    far, and a small region would have no style there.

    Raises:
        KeyError: there is no such spread.

    Example:
        >>> left = torch.tensor([1.0] * 9 + [0.0] * 7).expand(1, 2, 16)
        >>> for spread in SPREADS:
        ...     print(spread, at_layer(left, "block2_conv1", spread)[0, 0].tolist())
        area [1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0]
        inside [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        all [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    """
    find, step = SPREADS[spread], stride(layer)
    found = regions.new_empty(len(regions), regions.shape[1] // step, regions.shape[2] // step)
    for region, into in zip(regions[:, None], found, strict=True):  # maxima need room: one by one
        into.copy_(find(region, layer)[0])
    return found


def _area(regions: Tensor, layer: str) -> Tensor:
    return functional.avg_pool2d(regions, stride(layer))


def _inside(regions: Tensor, layer: str) -> Tensor:
    area = _area(regions, layer)
    inside = area * (1 - _largest((regions < 0.5).to(regions.dtype), layer))
    return torch.where(inside.sum((1, 2), keepdim=True) > 0, inside, area)


def _largest(regions: Tensor, layer: str) -> Tensor:
    """Return the largest weight in each cell's receptive field.

    It goes the way of the features, a maximum in the place of every convolution and pooling. Those of a
    block are one maximum, over rows and then over columns: windows stay short.
    """
    for scale, count in Counter(map(stride, _until(layer))).items():
        pools = int(scale < stride(layer))
        for window, step, pad in (
            ((2 * count + 1 + pools, 1), (1 + pools, 1), (count, 0)),
            ((1, 2 * count + 1 + pools), (1, 1 + pools), (0, count)),
        ):
            regions = functional.max_pool2d(regions, window, step, pad)
    return regions


SPREADS: dict[str, Callable[[Tensor, str], Tensor]] = {
    "area": _area,
    "inside": _inside,
    "all": _largest,
}
"""How far a region's style spreads over its edge."""


def check(content: Tensor, style: Tensor, layer: str = "block1_conv1") -> None:
    """Refuse regions that cannot be paired: the i-th of the content with the i-th of the style.

    Either is ``[R, H, W]``, of its own picture. Pass the deepest layer in use: what its grid cuts off
    does not count, at that size, and it cuts off the most.

    Raises:
        InputError: a region has no partner, or holds no cell.

    Example:
        >>> check(torch.ones(2, 16, 16), torch.ones(1, 16, 16))
        Traceback (most recent call last):
        impasto.errors.InputError: the content's masks have 2 regions, the style's 1: region 2 of the \
content has no style; give both the same number of regions
    """
    ours, theirs = len(content), len(style)
    if ours != theirs:
        odd, lack = ("content", "style") if ours > theirs else ("style", "place in the content")
        raise InputError(
            f"the content's masks have {_counted(ours)}, the style's {theirs}: "
            f"region {min(ours, theirs) + 1} of the {odd} has no {lack}; "
            "give both the same number of regions"
        )
    for name, regions in (("content", content), ("style", style)):
        for number, region in enumerate(_area(regions, layer), start=1):
            if not region.any():
                raise InputError(
                    f"region {number} of the {name} is empty at {_spoken(regions)} px: "
                    "paint some of it, or leave it out of both masks"
                )


def _counted(regions: int) -> str:
    return f"{regions} region" + "s" * (regions != 1)


def _spoken(picture: Tensor) -> str:
    return f"{picture.shape[2]}x{picture.shape[1]}"
