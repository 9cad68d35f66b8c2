"""Tiles cover every cell once, their windows are just large enough, and gradients equal the whole's."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from impasto import tiles
from impasto.errors import InputError
from impasto.layers import LAYERS, deepest, stride
from impasto.losses import STYLE_LOSSES
from impasto.objective import Evaluation, Objective, Regions
from impasto.optimize import descend
from impasto.recipe import Recipe
from impasto.tiles import Cut, Span, Tile
from impasto.vgg import PADDINGS, POOLINGS, VGG19
from impasto.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

REPORT = (*Recipe().content_layers, *Recipe().style_layers)
SIZES = [(517, 389), (64, 1200), (131, 97), (33, 47), (16, 16)]
MULTIPLES_OF_16 = [(512, 384), (64, 1200), (48, 48), (16, 16)]


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, height, width, generator=generator, dtype=torch.float64)


def sizes_for(padding: str) -> list[tuple[int, int]]:
    if padding == "circular":
        return MULTIPLES_OF_16
    return [size for size in SIZES if min(size) >= 32 or padding != "reflect"]


# --- geometry -----------------------------------------------------------------------------------


def owned(tile: Tile, layer: str) -> tuple[int, int]:
    down, across = tile.steps[layer]
    return down.own.stop - down.own.start, across.own.stop - across.own.start


@pytest.mark.parametrize("layers", [REPORT, ("block1_conv1",), ("block3_conv3", "block2_conv1")])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [16, 48, 160])
def test_the_tiles_own_every_cell_once(
    layers: tuple[str, ...], size: tuple[int, int], side: int
) -> None:
    pieces = tiles.cut(size, layers, (side, side))
    for name in layers:
        height, width = tiles.extent(size, name)
        assert sum(a * b for a, b in (owned(tile, name) for tile in pieces)) == height * width
        assert all(min(owned(tile, deepest(layers))) >= 1 for tile in pieces)
    limit = max(side, stride(deepest(layers)))
    core = max(tile.steps[layers[0]][0].own.stop for tile in pieces)
    assert core <= limit + 2 * 70 + stride(deepest(layers))


@pytest.mark.parametrize(
    ("layer", "reach"), [("block1_conv1", 1), ("block1_conv2", 2), ("block5_conv1", 70)]
)
def test_a_window_reaches_as_far_as_its_deepest_layer_looks(layer: str, reach: int) -> None:
    pieces = tiles.cut((960, 960), [layer], (320, 320))
    middle = pieces[4]
    assert middle.rows == middle.columns == Span(320 - reach, 640 + reach)
    assert pieces[0].rows == Span(0, 320 + reach)
    assert pieces[8].rows == Span(640 - reach, 960)


def test_an_uncut_picture_is_one_window_without_crops() -> None:
    (tile,) = tiles.cut((517, 389), REPORT)
    assert (tile.rows, tile.columns) == (Span(0, 517), Span(0, 389))
    for name, (down, across) in tile.steps.items():
        assert down.pads == across.pads == (1, 1)
        assert (down.own.stop, across.own.stop) in ((0, 0), tiles.extent((517, 389), name))


def test_circular_padding_refuses_to_cut_sides_off_the_pooling_grid() -> None:
    with pytest.raises(InputError, match="multiples of 16"):
        tiles.cut((64, 100), REPORT, (32, 32), "circular")
    assert len(tiles.cut((64, 100), REPORT, (32, 100), "circular")) == 2
    assert len(tiles.cut((64, 100), ("block2_conv1",), (32, 32), "circular")) > 1


@pytest.mark.parametrize("size", [(48, 64), (16, 80)])
def test_gathering_and_adding_are_each_others_transpose(size: tuple[int, int]) -> None:
    picture = random_picture(*size)
    for padding in ("zeros", "circular"):
        for index, tile in enumerate(tiles.cut(size, REPORT, (16, 32), padding)):
            window = tiles.gather(picture, tile)
            part = random_picture(*window.shape[1:], seed=index)
            gradient = torch.zeros_like(picture)
            tiles.add(gradient, tile, part)
            assert (gradient * picture).sum() == pytest.approx((part * window).sum().item(), rel=1e-12)


# --- features -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("pooling", "padding"), list(itertools.product(POOLINGS, PADDINGS)))
def test_a_tiles_features_are_the_whole_pictures(
    tiny_weights: Weights, pooling: str, padding: str
) -> None:
    network = VGG19(tiny_weights, pooling, padding, torch.float64)
    size = (96, 112) if padding == "circular" else (101, 119)
    picture = random_picture(*size)
    for layers in (tuple(LAYERS), ("block1_conv1", "block2_conv1", "block4_conv3"), ("block1_conv2",)):
        whole = network(picture, layers)
        found = {name: torch.zeros_like(features) for name, features in whole.items()}
        for tile in tiles.cut(size, layers, (48, 32), padding):
            for name, features in network(tiles.gather(picture, tile), layers, tile).items():
                put(found[name], tile, name, size, features)
        for name in layers:
            torch.testing.assert_close(found[name], whole[name], rtol=1e-12, atol=1e-12)


def put(whole: Tensor, tile: Tile, name: str, size: tuple[int, int], part: Tensor) -> None:
    """Lay a tile's own cells into the whole: the place of its first cell follows from its window."""
    places = []
    for span, step, length in zip((tile.rows, tile.columns), tile.steps[name], size, strict=True):
        start = computed_from(span, tile, name, 0 if length == size[0] and span is tile.rows else 1)
        places.append(slice(start + step.own.start, start + step.own.stop))
    whole[:, places[0], places[1]] = part


def computed_from(span: Span, tile: Tile, name: str, side: int) -> int:
    """Walk forward from a window to the first cell that a layer computes."""
    start, scale = span.start, 1
    for layer, steps in tile.steps.items():
        if stride(layer) > scale:
            assert start % 2 == 0, "a window off the pooling grid"
            start, scale = start // 2, 2 * scale
        start += 1 - steps[side].pads[0]
        if layer == name:
            return start
        start += steps[side].onward.start
    raise AssertionError


# --- the objective ------------------------------------------------------------------------------


def both(
    weights: Weights,
    size: tuple[int, int],
    cut: Cut,
    precision: torch.dtype = torch.float64,
    regions: Regions | None = None,
    **fields: Any,
) -> tuple[Evaluation, Evaluation]:
    """Return the whole picture's evaluation and the tiled one."""
    recipe = Recipe(**{"tv": 0.3, "alpha": 0.7, **fields})
    network = VGG19(weights, recipe.pooling, recipe.padding, precision)
    real = torch.promote_types(precision, torch.float32)
    style = size if recipe.padding == "circular" else (size[0] + 5, size[1])
    content, other, picture = (
        random_picture(*a, seed).to(real) for seed, a in ((1, size), (2, style), (3, size))
    )
    whole, tiled = (
        Objective(
            recipe,
            network,
            content,
            [other] * len(regions.content if regions else "1"),
            how,
            regions=regions,
        )
        for how in (tiles.WHOLE, cut)
    )
    assert tiled.losses(picture) == tiled(picture).losses
    return whole(picture), tiled(picture)


def difference(one: Evaluation, other: Evaluation) -> float:
    gradient = (one.gradient - other.gradient).norm() / one.gradient.norm()
    total = abs(one.losses.total - other.losses.total) / one.losses.total
    return max(gradient.item(), total)


@pytest.mark.parametrize("weighting", ["balanced", "report"])
@pytest.mark.parametrize(("pooling", "padding"), list(itertools.product(POOLINGS, PADDINGS)))
def test_value_and_gradient_are_the_whole_pictures_to_rounding(
    tiny_weights: Weights, pooling: str, padding: str, weighting: str
) -> None:
    fields = {"pooling": pooling, "padding": padding, "weighting": weighting}
    odd = 0 if padding == "circular" else 3
    for size, cut in (((64, 48), Cut((16, 16))), ((128, 96), Cut((80, 64), 2))):
        pair = both(tiny_weights, (size[0] + odd, size[1] + odd), cut, **fields)
        assert difference(*pair) < 1e-12, cut


@pytest.mark.parametrize("padding", PADDINGS)
def test_odd_and_narrow_sizes_tile_exactly(tiny_weights: Weights, padding: str) -> None:
    for size in sizes_for(padding):
        pair = both(tiny_weights, size, Cut((160, 256)), padding=padding)
        assert difference(*pair) < 1e-12, size


@pytest.mark.parametrize("content", [("block1_conv1",), ("block5_conv4", "block2_conv2")])
@pytest.mark.parametrize("style", [("block1_conv1",), ("block3_conv4", "block4_conv4")])
def test_any_choice_of_layers_tiles_exactly(
    tiny_weights: Weights, content: tuple[str, ...], style: tuple[str, ...]
) -> None:
    fields = {"content_layers": content, "style_layers": style}
    assert difference(*both(tiny_weights, (99, 70), Cut((32, 48), 2), **fields)) < 1e-12


@pytest.mark.parametrize("name", STYLE_LOSSES)
@pytest.mark.parametrize("padding", ["replicate", "circular"])
def test_every_style_loss_tiles_exactly(tiny_weights: Weights, name: str, padding: str) -> None:
    size = (64, 96) if padding == "circular" else (67, 99)
    fields = {"style_loss": (name,), "padding": padding, "seed": 3}
    assert difference(*both(tiny_weights, size, Cut((32, 48), 2), **fields)) < 1e-12


@pytest.mark.parametrize("name", STYLE_LOSSES)
@pytest.mark.parametrize("spread", ["area", "inside", "all"])
def test_every_style_loss_of_regions_tiles_exactly(
    tiny_weights: Weights, name: str, spread: str
) -> None:
    left = torch.zeros(1, 67, 99)
    left[:, :, :40] = 1
    left[:, 20:, 40:50] = 0.25
    regions = Regions(torch.cat([left, 1 - left]))
    fields = {"style_loss": (name,), "mask_spread": spread, "padding": "replicate"}
    assert difference(*both(tiny_weights, (67, 99), Cut((32, 48), 2), regions=regions, **fields)) < 1e-12


def test_several_losses_and_self_similarity_tile_exactly(tiny_weights: Weights) -> None:
    fields = {"style_loss": ("sliced", "gram", "bn"), "style_loss_weights": (1, 0.5, 2)}
    fields["content_loss"] = "self-similarity"
    assert difference(*both(tiny_weights, (67, 99), Cut((32, 48), 2), **fields)) < 1e-12


def test_float32_tiles_agree_to_its_rounding(tiny_weights: Weights) -> None:
    pair = both(tiny_weights, (131, 97), Cut((48, 48), 2), torch.float32)
    assert difference(*pair) < 1e-4


def test_targets_on_the_disk_are_the_same_bits(tiny_weights: Weights) -> None:
    for precision in (torch.float32, torch.bfloat16):
        recipe = Recipe()
        network = VGG19(tiny_weights, precision=precision)
        content, style = random_picture(64, 80).float(), random_picture(64, 80, 1).float()
        found = [
            Objective(recipe, network, content, [style], Cut((32, 32), 1, on_disk))(style)
            for on_disk in (False, True)
        ]
        assert found[0].losses == found[1].losses
        assert torch.equal(found[0].gradient, found[1].gradient)


def test_how_many_tiles_are_kept_changes_no_bit(tiny_weights: Weights) -> None:
    network = VGG19(tiny_weights)
    content, style = random_picture(64, 80).float(), random_picture(64, 80, 1).float()
    found = [
        Objective(Recipe(), network, content, [style], Cut((32, 32), keep))(style) for keep in (1, 2, 99)
    ]
    assert len({evaluation.losses.total for evaluation in found}) == 1
    assert all(torch.equal(found[0].gradient, other.gradient) for other in found[1:])


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_a_window_one_pixel_short_or_off_the_grid_would_be_seen(
    tiny_weights: Weights, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tiles.cut

    def shifted(by: tuple[int, int]) -> Any:
        def wrong(*arguments: Any) -> list[Tile]:
            return [
                replace(tile, rows=Span(tile.rows.start + by[0], tile.rows.stop + by[1]))
                if tile.rows.start > 0 and tile.rows.stop < 512
                else tile
                for tile in right(*arguments)
            ]

        return wrong

    for by in ((1, 1), (-1, -1)):
        with monkeypatch.context() as patch:
            patch.setattr(tiles, "cut", shifted(by))
            pair = both(tiny_weights, (512, 64), Cut((160, 64)), padding=padding)
        assert difference(*pair) > 1e-3
    # One pixel short on one side: valid convolutions see one cell less, and the crop moves or fails.
    with monkeypatch.context() as patch:
        patch.setattr(tiles, "cut", shifted((1, 0)))
        try:
            short = difference(*both(tiny_weights, (512, 64), Cut((160, 64)), padding=padding))
        except RuntimeError:
            short = 1.0
        assert short > 1e-3


def test_no_line_shows_where_tiles_meet(tiny_weights: Weights) -> None:
    content, style = random_picture(160, 160, 1).float(), random_picture(160, 160, 2).float()
    finished = []
    for cut in (tiles.WHOLE, Cut((80, 80))):
        network = VGG19(tiny_weights, padding="replicate")
        recipe = Recipe(iterations=8)
        descent = descend(recipe, content, Objective(recipe, network, content, [style], cut))
        *_, last = descent
        finished.append(last.picture)
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
    seams = []
    for picture in finished:
        curved = functional.conv2d(picture[None], laplacian, padding=1, groups=3)[0]
        steep = picture.diff(dim=1)
        seams.append((steep[:, 79].abs().mean().item(), curved[:, 79:81].abs().mean().item()))
    assert seams[1] == pytest.approx(seams[0], rel=0.02)
    assert (finished[0] - content).abs().mean() > 0.01, "nothing was painted"
