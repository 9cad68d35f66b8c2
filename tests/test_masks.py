"""Regions keep their order, place and share of every cell; what cannot be paired is refused."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from impasto import masks, tiles
from impasto.errors import InputError
from impasto.layers import LAYERS, stride

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(517, 389), (64, 1200), (131, 97), (33, 47), (31, 16), (16, 16)]
MULTIPLES_OF_16 = [(64, 1200), (144, 96), (16, 16)]
REACH = {
    "block1_conv1": 1,
    "block1_conv2": 2,
    "block2_conv1": 4,
    "block3_conv1": 10,
    "block4_conv1": 30,
    "block4_conv2": 38,
    "block5_conv1": 70,
    "block5_conv4": 118,
}


def partition(height: int, width: int, count: int = 3, seed: int = 0) -> Tensor:
    """Return regions that are noise of every scale: blobs, edges and single pixels."""
    generator = torch.Generator().manual_seed(seed)
    field = sum(
        functional.interpolate(torch.randn(1, count, side, side, generator=generator), (height, width))
        for side in (2, 5, 13, 200)
    )
    assert isinstance(field, Tensor)
    return masks.from_indices(field[0].argmax(0))


def halves(height: int, width: int, edge: int) -> Tensor:
    """Return two regions, left and right of the column ``edge``."""
    return masks.from_indices((torch.arange(width) >= edge).int().expand(height, width))


def fields(regions: Tensor, layer: str, beyond: int) -> list[list[Tensor]]:
    """Return the pixels ``[R, rows, columns]`` of each cell of a layer, and those ``beyond`` it."""
    scale = stride(layer)
    height, width = tiles.extent((regions.shape[1], regions.shape[2]), layer)
    return [
        [
            regions[
                :,
                max(0, scale * row - beyond) : scale * (row + 1) + beyond,
                max(0, scale * column - beyond) : scale * (column + 1) + beyond,
            ]
            for column in range(width)
        ]
        for row in range(height)
    ]


def stacked(cells: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in cells], dim=1)


# --- pictures to regions ------------------------------------------------------------------------


def row(colours: list[tuple[int, int, int]]) -> Tensor:
    """Return a picture of one row, of colours in 0..255."""
    return torch.tensor(colours).T[:, None].float() / 255


def test_regions_come_in_the_order_of_their_luminance() -> None:
    black, blue, red, magenta = (0, 0, 0), (0, 0, 255), (255, 0, 0), (255, 0, 255)
    green, cyan, yellow, white = (0, 255, 0), (0, 255, 255), (255, 255, 0), (255, 255, 255)
    ordered = [black, blue, red, magenta, green, cyan, yellow, white]
    assert torch.equal(masks.hard(row(ordered))[:, 0], torch.eye(8))
    assert torch.equal(masks.hard(row(ordered[::-1]))[:, 0], torch.eye(8).flip(1))
    assert masks.hard(row(ordered)).dtype == torch.float32


def test_equal_luminances_are_ordered_by_red() -> None:
    less, more = (100, 100, 100), (117, 90, 149)  # 17 * 0.2126 - 10 * 0.7152 + 49 * 0.0722 = 0
    assert masks.hard(row([more, less]))[:, 0].tolist() == [[0, 1], [1, 0]]


def test_every_8_bit_grey_is_a_colour_of_its_own() -> None:
    for start in range(0, 256, 16):
        greys = (torch.arange(start, start + 16) / 255).expand(3, 1, -1)
        assert torch.equal(masks.hard(greys)[:, 0], torch.eye(16))


def test_a_picture_of_more_than_16_colours_is_no_mask() -> None:
    greys = (torch.arange(17) / 255).expand(3, 1, -1)
    with pytest.raises(InputError) as caught:
        masks.hard(greys, "sky.jpg")
    assert str(caught.value) == (
        "sky.jpg has over 16 colours: a mask of regions has at most 16 flat colours; was it saved as "
        "JPEG or antialiased? use PNG, or several grey masks"
    )
    with pytest.raises(InputError, match="the mask has over 16 colours"):
        masks.from_indices(torch.arange(17)[None])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_indices_keep_their_order_and_those_that_do_not_occur_are_left_out(dtype: torch.dtype) -> None:
    indices = torch.tensor([[200, 3, 3], [0, 200, 0]], dtype=dtype)
    found = masks.from_indices(indices)
    assert found.dtype == torch.float32
    assert found.tolist() == [[[0, 0, 0], [1, 0, 1]], [[0, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 1, 0]]]


def test_hard_regions_are_a_partition() -> None:
    colours = torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
    which = torch.randint(5, (20, 30), generator=torch.Generator().manual_seed(2))
    found = masks.hard(colours[:, which])
    assert found.shape == (5, 20, 30)
    assert torch.equal(found.sum(0), torch.ones(20, 30))
    assert sorted(found.sum((1, 2)).tolist()) == sorted(which.flatten().bincount().tolist())


def test_a_grey_is_its_own_weight_and_a_colour_its_luminance() -> None:
    greys = torch.arange(256) / 255
    assert torch.equal(masks.soft([greys.expand(3, 2, -1)])[0], greys.expand(2, -1))
    colours = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    found = masks.soft([colours, 1 - colours])
    assert found.shape == (2, 20, 30)
    expected = 0.2126 * colours[0] + 0.7152 * colours[1] + 0.0722 * colours[2]
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found.sum(0), torch.ones(20, 30))


def test_grey_masks_of_several_sizes_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        masks.soft([torch.ones(3, 20, 30), torch.ones(3, 20, 30), torch.ones(3, 20, 31)])
    assert str(caught.value) == (
        "grey mask 3 is 31x20 px, the first is 30x20 px: all masks of a picture must have one size"
    )


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(131, 97), (65, 48), (16, 12), (300, 222)])
def test_fitted_regions_have_the_size_and_their_sum(size: tuple[int, int]) -> None:
    regions = partition(131, 97)
    found = masks.fit(regions, size, "the mask")
    assert found.shape == (len(regions), *size)
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(found.sum(0), torch.ones(size))
    assert torch.equal(masks.fit(torch.ones(1, 131, 97), size, "the mask"), torch.ones(1, *size))


def test_regions_that_fit_are_returned_as_they_are() -> None:
    regions = partition(24, 32)
    assert masks.fit(regions, (24, 32), "the mask") is regions


def test_regions_are_averaged_when_shrunk_and_repeated_when_enlarged() -> None:
    regions = partition(24, 36)
    small = masks.fit(regions, (8, 12), "the mask")
    torch.testing.assert_close(small, regions.unflatten(1, (8, 3)).unflatten(3, (12, 3)).mean((2, 4)))
    large = masks.fit(regions, (48, 72), "the mask")
    assert torch.equal(large, regions.repeat_interleave(2, 1).repeat_interleave(2, 2))


@pytest.mark.parametrize("height", [100, 480, 1999])
@pytest.mark.parametrize("width", [101, 640, 2000])
@pytest.mark.parametrize("long_side", [16, 17, 256, 512])
def test_sizes_that_differ_by_rounding_are_one_aspect(height: int, width: int, long_side: int) -> None:
    scale = long_side / max(height, width)
    small = round(height * scale), round(width * scale)
    masks.fit(torch.ones(1, height, width), small, "the mask")
    masks.fit(torch.ones(1, *small), (height, width), "the mask")


@pytest.mark.parametrize(("size", "fits"), [((1000, 1019), True), ((1000, 1021), False)])
def test_aspects_may_differ_by_two_percent(size: tuple[int, int], fits: bool) -> None:
    for mask, picture in ((size, (500, 500)), ((500, 500), size)):
        regions = torch.ones(1, *mask)
        if fits:
            masks.fit(regions, picture, "the mask")
            continue
        with pytest.raises(InputError, match="aspects may differ by 2%"):
            masks.fit(regions, picture, "the mask")


def test_a_mask_of_another_aspect_is_refused_with_both_sizes() -> None:
    with pytest.raises(InputError) as caught:
        masks.fit(torch.ones(2, 480, 640), (1024, 1024), "sky.png")
    assert str(caught.value) == (
        "sky.png is 640x480 px, its picture 1024x1024 px: their aspects may differ by 2%; "
        "draw the mask over its own picture, or crop it like that"
    )


@pytest.mark.parametrize("size", [(131, 97), (60, 45), (16, 12), (131, 20), (200, 33)])
@pytest.mark.parametrize("rows", [1, 17, 131])
def test_regions_that_come_in_strips_are_shrunk_as_in_one_piece(
    size: tuple[int, int], rows: int
) -> None:
    regions = torch.cat([partition(131, 97), 0.3 * partition(131, 97, seed=1)])
    found = masks.shrink(regions.split(rows, dim=1), 131, size)
    torch.testing.assert_close(found, functional.adaptive_avg_pool2d(regions, size), rtol=0, atol=1e-6)
    if size == (131, 97):
        assert torch.equal(found, regions)


def test_colours_are_told_apart_in_strips_as_in_one_piece() -> None:
    colours = torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
    # The first strips lack colours of the last.
    which = torch.arange(40)[:, None] // 8 + torch.zeros(1, 30, dtype=torch.long)
    for picture, whole in ((colours[:, which], masks.hard), (which, masks.from_indices)):
        strips = list(masks.in_strips(lambda x=picture: x.split(7, dim=-2)))  # type: ignore[misc]
        assert torch.equal(torch.cat(strips, dim=1), whole(picture))


# --- layers -------------------------------------------------------------------------------------


def test_the_reach_is_that_of_the_network() -> None:
    assert {layer: masks.reach(layer) for layer in REACH} == REACH
    assert [masks.reach(layer) for layer in LAYERS] == sorted({masks.reach(layer) for layer in LAYERS})


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size", SIZES)
def test_weights_of_a_partition_sum_to_one_at_every_cell(size: tuple[int, int], layer: str) -> None:
    regions = partition(*size)
    found = masks.at_layer(regions, layer)
    assert found.shape == (len(regions), *tiles.extent(size, layer))
    torch.testing.assert_close(found.sum(0), torch.ones(tiles.extent(size, layer)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spread", masks.SPREADS)
@pytest.mark.parametrize("size", SIZES)
def test_ones_stay_ones_and_zeros_zeros(size: tuple[int, int], spread: str) -> None:
    regions = torch.stack([torch.ones(size), torch.zeros(size)])
    for layer in LAYERS:
        ones, zeros = masks.at_layer(regions, layer, spread)
        assert torch.equal(ones, torch.ones(tiles.extent(size, layer)))
        assert torch.equal(zeros, torch.zeros(tiles.extent(size, layer)))


@pytest.mark.parametrize("size", SIZES)
def test_inside_lies_in_area_and_area_in_all(size: tuple[int, int]) -> None:
    for regions in (partition(*size), halves(*size, size[1] // 2)):
        for layer in LAYERS:
            area, inside, everything = (masks.at_layer(regions, layer, s) for s in masks.SPREADS)
            assert area.shape == inside.shape == everything.shape
            assert (inside <= area).all() and (area <= everything).all()
            assert ((inside > 0) <= (area > 0)).all() and ((area > 0) <= (everything > 0)).all()


@pytest.mark.parametrize("size", MULTIPLES_OF_16)
def test_cells_times_their_pixels_are_the_pixels_of_the_region(size: tuple[int, int]) -> None:
    regions = partition(*size)
    for layer in LAYERS:
        found = masks.at_layer(regions, layer).double().sum((1, 2)) * stride(layer) ** 2
        assert torch.equal(found, regions.double().sum((1, 2)))


@pytest.mark.parametrize("layer", ["block1_conv1", "block2_conv1", "block3_conv4", "block5_conv1"])
@pytest.mark.parametrize("size", [(131, 97), (33, 47), (31, 16)])
def test_area_weights_equal_the_naive_loop(size: tuple[int, int], layer: str) -> None:
    regions = torch.cat([partition(*size), partition(*size, seed=1) * 0.3])
    naive = stacked([[cell.mean((1, 2)) for cell in row] for row in fields(regions, layer, 0)])
    torch.testing.assert_close(masks.at_layer(regions, layer), naive)


@pytest.mark.parametrize("layer", REACH)
@pytest.mark.parametrize("size", [(61, 97), (33, 47), (31, 16), (16, 400)])
def test_all_and_inside_equal_the_naive_loop(size: tuple[int, int], layer: str) -> None:
    sides = halves(*size, size[1] // 3)
    noise = torch.rand(1, *size, generator=torch.Generator().manual_seed(3))
    regions = torch.cat([sides, sides / 2, 0.45 + 0.55 * noise])  # a weight of 1/2 is still inside
    cells = fields(regions, layer, masks.reach(layer))
    largest = stacked([[cell.amax((1, 2)) for cell in row] for row in cells])
    least = stacked([[cell.amin((1, 2)) for cell in row] for row in cells])
    assert torch.equal(masks.at_layer(regions, layer, "all"), largest)
    area = masks.at_layer(regions, layer)
    kept = area * (least >= 0.5)
    for found, whole, part in zip(masks.at_layer(regions, layer, "inside"), area, kept, strict=True):
        assert torch.equal(found, part if part.any() else whole)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size", [(140, 97), (33, 47)])
def test_a_cell_sees_what_convolutions_and_poolings_bring_it(size: tuple[int, int], layer: str) -> None:
    dot = torch.zeros(1, *size)
    dot[0, size[0] // 3, size[1] // 2] = 1
    seen, kernel = dot.double()[None], torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    for name in LAYERS:
        if seen.shape[2:] != tiles.extent(size, name):
            seen = functional.avg_pool2d(seen, 2)
        seen = functional.conv2d(seen, kernel, padding=1)
        if name == layer:
            break
    assert torch.equal(masks.at_layer(dot, layer, "all"), (seen[0] > 0).float())


def test_a_region_too_small_for_a_layer_keeps_its_area_there() -> None:
    regions = torch.zeros(2, 256, 256)
    regions[0, 100:120, 100:120] = 1
    regions[1] = 1 - regions[0]
    for layer in LAYERS:
        small, large = masks.at_layer(regions, layer, "inside")
        area, most = masks.at_layer(regions, layer)
        fits = stride(layer) + 2 * masks.reach(layer) <= 20
        assert small.any()
        assert torch.equal(small, area) != fits
        # The other region is alone in the corners, whatever the layer.
        assert large.any() and not torch.equal(large, most)


# --- pairs --------------------------------------------------------------------------------------


def test_regions_that_pair_are_taken() -> None:
    masks.check(partition(33, 47), partition(64, 80, seed=1), "block5_conv1")


@pytest.mark.parametrize(
    ("content", "style", "message"),
    [
        (
            3,
            1,
            "the content's masks have 3 regions, the style's 1: region 2 of the content has no style; "
            "give both the same number of regions",
        ),
        (
            1,
            2,
            "the content's masks have 1 region, the style's 2: region 2 of the style has no place in "
            "the content; give both the same number of regions",
        ),
    ],
)
def test_regions_without_a_partner_are_refused(content: int, style: int, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        masks.check(torch.ones(content, 16, 16), torch.ones(style, 16, 16))


@pytest.mark.parametrize("name", ["content", "style"])
def test_an_empty_region_is_refused_by_its_number(name: str) -> None:
    full, empty = torch.ones(3, 20, 30), torch.ones(3, 20, 30)
    empty[1] = 0
    pair = (empty, full) if name == "content" else (full, empty)
    with pytest.raises(InputError) as caught:
        masks.check(*pair)
    assert str(caught.value) == (
        f"region 2 of the {name} is empty at 30x20 px: paint some of it, or leave it out of both masks"
    )


def test_a_region_that_the_deepest_grid_cuts_off_is_empty() -> None:
    regions = halves(32, 47, 32)
    masks.check(regions, regions)
    masks.check(regions, regions, "block4_conv1")
    with pytest.raises(InputError, match="region 2 of the content is empty"):
        masks.check(regions, regions, "block5_conv1")
