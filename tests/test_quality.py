"""The laws of `quality.MEASURES`: they hold for every row of the table, by its being there."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from impasto import color, quality
from impasto.layers import LAYERS
from impasto.losses import STYLE_LOSSES
from impasto.objective import Objective
from impasto.quality import MEASURES, measure_all
from impasto.recipe import Recipe
from impasto.tiles import Cut
from impasto.vgg import VGG19
from impasto.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (40, 48)
OF_CONTENT = ("ssim", "edge_ssim", "content_error", "self_similarity", "noise_content")
OF_STYLE = ("style_gram", "style_wasserstein", "style_sliced", "color", "noise_style")
OF_ITSELF = {
    **dict.fromkeys(("ssim", "edge_ssim", "noise_content", "noise_style"), 1.0),
    **dict.fromkeys(("content_error", "self_similarity", "color"), 0.0),
    **dict.fromkeys(("style_gram", "style_wasserstein", "style_sliced"), 0.0),
}
"""What a picture has that is its own content and style."""


def picture(seed: int = 0, size: tuple[int, int] = SIZE, low: float = 0.2, high: float = 0.8) -> Tensor:
    """Return a picture with shapes and colours, none of them at its end."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 7, generator=generator)
    fine = functional.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1)
    return low + (high - low) * fine


def flat(value: float) -> Tensor:
    return torch.full((3, *SIZE), value)


def noisy(one: Tensor, deviation: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return (one + deviation * torch.randn(one.shape, generator=generator)).clamp(0.01, 0.99)


def chequered(one: Tensor) -> Tensor:
    board = torch.zeros(one.shape[1:])
    board[::2, ::2] = board[1::2, 1::2] = 0.1
    return one + board


def framed(one: Tensor) -> Tensor:
    dark = one.clone()
    dark[:, :3] = dark[:, -3:] = dark[:, :, :3] = dark[:, :, -3:] = 0.05
    return dark


def shifted(one: Tensor) -> Tensor:
    return one.roll((17, 20), (1, 2))


def grey(one: Tensor) -> Tensor:
    return color.luminance(one)


def harsh(one: Tensor) -> Tensor:
    return ((one - 0.5) * 4 + 0.5).clamp(0, 1)


def dark(one: Tensor) -> Tensor:
    return 0.2 * one


def swapped(one: Tensor) -> Tensor:
    return one.flip(0)


NETWORK_OF_STYLE = ("style_gram", "style_wasserstein", "style_sliced")
DAMAGES: dict[Callable[[Tensor], Tensor], tuple[str, ...]] = {
    shifted: ("ssim", "edge_ssim", "content_error", "self_similarity"),
    noisy: (*OF_CONTENT, *NETWORK_OF_STYLE, "noise_style"),
    harsh: ("ssim", "edge_ssim", "content_error", *NETWORK_OF_STYLE, "color", "saturated"),
    dark: ("ssim", *NETWORK_OF_STYLE, "color"),
    grey: ("color",),
    swapped: ("color",),
    chequered: ("noise_content", "noise_style", "checkerboard"),
    framed: ("frame",),
}
"""What is done to a picture that is its own content and style, and the measures that must notice."""


def test_every_measure_has_its_damage_and_its_row() -> None:
    page = Path(__file__).parent.parent / "docs" / "measures.md"
    text = page.read_text(encoding="utf-8")
    assert {name for names in DAMAGES.values() for name in names} == set(MEASURES)
    for name, row in MEASURES.items():
        assert f"| `{name}` |" in text
        assert 0 < len(row.help) < 70


def test_a_picture_that_is_its_own_content_and_style_has_the_ideal(tiny_weights: Weights) -> None:
    found = measure_all(Recipe(), tiny_weights, picture(), picture(), [picture()])
    assert {name: found[name] for name in OF_ITSELF} == pytest.approx(OF_ITSELF, abs=1e-6)
    assert list(found) == list(MEASURES)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_measures_notice_the_damage_they_are_for(
    damage: Callable[[Tensor], Tensor], tiny_weights: Weights
) -> None:
    good = picture()
    before, after = (
        measure_all(Recipe(), tiny_weights, one, good, [good]) for one in (good, damage(good))
    )
    for name in DAMAGES[damage]:
        sign = 1 if MEASURES[name].better == "higher" else -1
        assert sign * (before[name] - after[name]) > 0.01, name


def test_more_noise_is_worse(tiny_weights: Weights) -> None:
    good = picture()
    found = [
        measure_all(Recipe(), tiny_weights, noisy(good, one), good, [good]) for one in (0.02, 0.05, 0.1)
    ]
    for name in DAMAGES[noisy]:
        values = [one[name] for one in found]
        assert values == sorted(values, reverse=MEASURES[name].better == "higher"), name


@pytest.mark.parametrize(
    ("content", "style"),
    [(flat(0.0), flat(1.0)), (flat(0.4), picture(2)), (picture(1), flat(0.4))],
    ids=["black and white", "grey and a picture", "a picture and grey"],
)
@pytest.mark.parametrize(
    "seen",
    [flat(0.0), flat(0.4), picture(3), noisy(flat(0.5), 1.0).round()],
    ids=["black", "grey", "picture", "noise"],
)
def test_measures_are_finite_and_in_their_range(
    seen: Tensor, content: Tensor, style: Tensor, tiny_weights: Weights
) -> None:
    found = measure_all(Recipe(), tiny_weights, seen, content, [style])
    assert list(found) == list(MEASURES)
    for name, value in found.items():
        assert isinstance(value, float)
        assert math.isfinite(value), name
        assert MEASURES[name].low - 1e-6 <= value <= MEASURES[name].high + 1e-6, name


def test_a_measure_without_what_it_compares_with_is_absent(tiny_weights: Weights) -> None:
    one = picture()
    texture = measure_all(Recipe(), tiny_weights, one, None, [one])
    reconstruction = measure_all(Recipe(), tiny_weights, one, one)
    alone = measure_all(Recipe(), tiny_weights, one)
    assert set(MEASURES) - set(texture) == set(OF_CONTENT)
    assert set(MEASURES) - set(reconstruction) == set(OF_STYLE)
    assert list(alone) == ["checkerboard", "saturated", "frame"]


# --- layers held out ----------------------------------------------------------------------------


def test_no_layer_is_looked_at_that_the_recipe_names(tiny_weights: Weights) -> None:
    for layers in (("conv3_3", "conv1_2"), ("conv4_4", "conv4_3", "conv2_2"), tuple(LAYERS)):
        recipe = Recipe(content_layers=layers[:1], style_layers=layers)
        content, style = quality.held_out(recipe)
        assert not {*content, *style} & {*recipe.content_layers, *recipe.style_layers}
    found = measure_all(recipe, tiny_weights, picture(), picture(1), [picture(2)])
    assert [name for name in MEASURES if name not in found] == [
        name for name in MEASURES if name in ("content_error", "self_similarity") or "style_" in name[:6]
    ]


def test_features_are_pooled_in_another_way_than_the_recipe_does(tiny_weights: Weights) -> None:
    def found(pooling: str) -> dict[str, float]:
        recipe = Recipe(pooling=pooling)  # type: ignore[arg-type]
        return measure_all(recipe, tiny_weights, picture(), picture(1), [picture(2)])

    assert found("max") == found("l2") != found("average")


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_feature_measures_are_balanced_losses_at_layers_held_out(
    padding: str, pooling: str, tiny_weights: Weights
) -> None:
    recipe = Recipe(pooling=pooling, padding=padding, style_weights=(3, 1))  # type: ignore[arg-type]
    one, content, styles = picture(1), picture(2), [picture(3, (30, 48)), picture(4)]
    found = measure_all(recipe, tiny_weights, one, content, styles)
    network = VGG19(tiny_weights, "average" if pooling == "max" else "max", padding)
    content_layers, style_layers = quality.held_out(recipe)
    for name in ("gram", "wasserstein", "sliced"):
        other = Recipe(
            content_layers=content_layers,
            style_layers=style_layers,
            style_weights=(3, 1),
            style_loss=(name,),
            weighting="balanced",
        )
        expected = Objective(other, network, content, styles).losses(one)
        assert found["content_error"] == pytest.approx(expected.content, rel=1e-5)
        style = expected.style / STYLE_LOSSES[name].balance
        assert found[f"style_{name}"] == pytest.approx(style, rel=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
def test_measures_are_the_same_in_tiles(padding: str, tiny_weights: Weights) -> None:
    recipe = Recipe(padding=padding)  # type: ignore[arg-type]
    pictures = picture(1), picture(2), [picture(3, (48, 30))]
    whole = measure_all(recipe, tiny_weights, *pictures)
    assert measure_all(recipe, tiny_weights, *pictures, Cut((16, 24))) == pytest.approx(whole, rel=1e-5)


def test_styles_count_by_their_weights(tiny_weights: Weights) -> None:
    one, tall, wide = picture(), picture(1, (48, 32)), picture(2)

    def found(weights: tuple[float, ...], *styles: Tensor) -> dict[str, float]:
        recipe = Recipe(style_weights=weights)
        taken = measure_all(recipe, tiny_weights, one, None, styles)
        return {name: taken[name] for name in OF_STYLE}

    assert found((1, 0), tall, wide) == pytest.approx(found((), tall), rel=1e-6)
    # Of each style half of the samples is taken.
    assert found((1, 1), tall, tall) == pytest.approx(found((), tall), rel=0.1)
    assert found((1, 1), tall, wide) != pytest.approx(found((), tall), rel=0.1)


# --- pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (40, 48), (33, 70)])
def test_ssim_agrees_with_torchmetrics(size: tuple[int, int]) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = noisy(picture(1, size), 0.05), picture(1, size)
    for damage in (lambda x: x, harsh, shifted, lambda x: 1 - x):
        luma = [color.luminance(x)[None, :1].double() for x in (damage(one), other)]
        _, windows = structural_similarity_index_measure(
            luma[0], luma[1], data_range=1.0, return_full_image=True
        )
        # Its own mean counts windows beyond the border, on mirrored pixels.
        expected = windows[..., 5:-5, 5:-5].mean().item()
        assert quality.ssim(damage(one), other) == pytest.approx(expected, abs=1e-5)


def test_edges_stay_where_colours_are_turned_round() -> None:
    one = picture()
    assert quality.edge_ssim(1 - one, one) == pytest.approx(1, abs=1e-5)
    assert quality.ssim(1 - one, one) < 0.5


@pytest.mark.parametrize("size", [(20, 20), (200, 300)], ids=["all pixels", "some pixels"])
def test_a_shift_of_all_colours_is_as_far_as_it_is_long(size: tuple[int, int]) -> None:
    dark, bright = (torch.full((3, *size), value) for value in (0.0, 1.0))
    assert quality.color(dark, [bright], [1.0]) == pytest.approx(100, abs=0.1)
    assert quality.color(dark, [dark, bright], [0.75, 0.25]) == pytest.approx(50, abs=0.1)


def test_colours_may_be_anywhere_in_a_picture_of_any_size() -> None:
    one = picture()
    order = torch.randperm(one[0].numel(), generator=torch.Generator().manual_seed(0))
    other = one.flatten(1)[:, order].reshape(one.shape)
    assert quality.color(other, [one], [1.0]) < 1
    assert quality.color(one.repeat(1, 2, 1), [one], [1.0]) < 1
    assert quality.color(grey(one), [one], [1.0]) > 5


def test_noise_is_the_energy_of_its_mask() -> None:
    one, other = (noisy(picture(seed), 0.05) for seed in (1, 2))
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])

    def energy(x: Tensor) -> float:
        return functional.conv2d(color.luminance(x)[None, :1], mask[None, None]).square().mean().item()

    expected = energy(one) / energy(other)
    assert quality.noise(one, [other], [1.0]) == pytest.approx(expected, rel=0.01)
    assert quality.noise(one, [other, one], [0.5, 0.5]) == pytest.approx(
        energy(one) / (0.5 * energy(one) + 0.5 * energy(other)), rel=0.01
    )


def test_a_smoothed_picture_has_less_noise_than_the_content() -> None:
    one = noisy(picture())
    assert quality.noise(functional.avg_pool2d(one, 3, 1, 1), [one], [1.0]) < 0.3


@pytest.mark.parametrize("size", [(16, 31), (40, 48), (90, 70)])
@pytest.mark.parametrize("wave", ["down", "across", "both"])
def test_every_pattern_of_period_two_stands_out_and_no_other(size: tuple[int, int], wave: str) -> None:
    rows, columns = (torch.arange(side) for side in size)

    def waves(period: int) -> Tensor:
        turns = 2 * math.pi / period
        down = (turns * rows)[:, None].cos() if wave != "across" else torch.ones(1)
        across = (turns * columns).cos() if wave != "down" else torch.ones(1)
        return (0.5 + 0.05 * down * across).expand(3, *size)

    assert quality.checkerboard(waves(2)) > 50
    assert quality.checkerboard(waves(4)) < 1.1
    assert quality.checkerboard(waves(8)) < 1.1


def test_white_noise_is_no_checkerboard() -> None:
    noise = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    assert quality.checkerboard(noise) == pytest.approx(1, abs=0.2)


def test_saturation_is_what_eight_bits_cannot_exceed() -> None:
    levels = torch.tensor([0, 1, 127, 254, 255]) / 255
    assert quality.saturated(levels.expand(3, 1, 5)) == pytest.approx(0.4)
    assert quality.saturated(torch.stack([levels, levels * 0 + 0.5, levels * 0 + 0.5])[:, None]) == (
        pytest.approx(0.4)
    )


@pytest.mark.parametrize("side", range(4))
def test_a_frame_on_any_side_counts(side: int) -> None:
    one = picture().rot90(side, (1, 2)).clone()
    before = quality.frame(one)
    one[:, :3] = 0
    damaged = quality.frame(one.rot90(-side, (1, 2)))
    assert damaged > before + 0.3
    assert quality.frame(flat(0.3)) == pytest.approx(0)


@pytest.mark.parametrize(
    ("measure", "least"), [(quality.ssim, 11), (quality.checkerboard, 16), (quality.frame, 8)]
)
def test_a_picture_too_small_to_be_measured_is_refused(
    measure: Callable[..., float], least: int
) -> None:
    for side, refused in ((least, False), (least - 1, True)):
        one = [picture(0, (side, 40))] * (2 if measure is quality.ssim else 1)
        if refused:
            with pytest.raises(ValueError, match=r"px|win_size"):
                measure(*one)
        else:
            assert math.isfinite(measure(*one))


def test_a_content_of_another_size_is_refused(tiny_weights: Weights) -> None:
    with pytest.raises(ValueError, match="a content"):
        measure_all(Recipe(), tiny_weights, picture(), picture(0, (40, 40)))
