"""The objective equals equations 1 to 5 on naive features, and its gradient what differences see."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
from impasto import catalog, losses, tiles
from impasto.errors import InputError
from impasto.events import Losses
from impasto.layers import LAYERS, deepest, stride
from impasto.losses import STYLE_LOSSES
from impasto.objective import Objective, Regions, looks, needs
from impasto.recipe import Recipe
from impasto.summaries import MEAN, gram
from impasto.vgg import PADDINGS, POOLINGS, VGG19
from impasto.weights import Weights, imagined

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTINGS = ("balanced", "report")
every_weighting = pytest.mark.parametrize("weighting", WEIGHTINGS)
Aim = Callable[..., Objective]


def random_picture(height: int = 33, width: int = 37, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, height, width, generator=generator, dtype=torch.float64)


CONTENT, STYLE, OTHER, PICTURE = (
    random_picture(*size, seed=seed)
    for seed, size in enumerate([(33, 37), (40, 32), (34, 34), (33, 37)], start=1)
)


@pytest.fixture
def aim(tiny_weights: Weights) -> Aim:
    """Return a function that makes an objective from a recipe's fields, in float64."""

    def make(
        content: Tensor | None = CONTENT,
        styles: tuple[Tensor, ...] = (STYLE,),
        weights: Weights = tiny_weights,
        precision: torch.dtype = torch.float64,
        **fields: Any,
    ) -> Objective:
        # The naive references know zeros around a picture, and take total variation apart.
        recipe = Recipe(**{"tv": 0, "padding": "zeros", **fields})
        network = VGG19(weights, recipe.pooling, recipe.padding, precision)
        return Objective(recipe, network, content, styles)

    return make


def numbers(found: Losses) -> list[float]:
    return [found.content, found.style, *found.content_layers.values(), *found.style_layers.values()]


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pooling", "padding"), list(itertools.product(POOLINGS, ("zeros", "reflect"))))
def test_report_is_equations_1_to_5_evaluated_naively(
    aim: Aim, tiny_weights: Weights, pooling: str, padding: str
) -> None:
    layers = ("conv1_1", "conv3_2", "conv5_1")
    recipe = Recipe(
        weighting="report",
        alpha=1e-3,
        beta=2.0,
        content_layers=("conv4_2", "conv2_1"),
        style_layers=layers,
        layer_weights=(0.5, 0.0, 3.0),
        style_weights=(3.0, 1.0),
    )
    styles = STYLE, OTHER
    found = aim(
        styles=styles,
        pooling=pooling,
        padding=padding,
        **{name: getattr(recipe, name) for name in ("weighting", "alpha", "beta", "content_layers")},
        style_layers=layers,
        layer_weights=(0.5, 0.0, 3.0),
        style_weights=(3.0, 1.0),
    )(PICTURE).losses

    def naive(picture: Tensor) -> dict[str, Any]:
        return reference.network(picture.numpy(), tiny_weights, pooling, padding)

    total, content, style = reference.report(
        naive(PICTURE),
        naive(CONTENT),
        [naive(picture) for picture in styles],
        recipe.content_layers,
        {"block1_conv1": 0.5, "block3_conv2": 0.0, "block5_conv1": 3.0},
        (0.75, 0.25),
        alpha=1e-3,
        beta=2.0,
    )
    assert content > 0
    assert style > 0
    assert found.content == pytest.approx(content, rel=1e-9)
    assert found.style == pytest.approx(style, rel=1e-9)
    assert found.total == pytest.approx(total, rel=1e-9)


def test_report_with_one_size_is_equation_3_of_raw_gram_matrices(aim: Aim) -> None:
    objective = aim(styles=(OTHER[:, :33].contiguous(),), content=CONTENT[:, :, :34], weighting="report")
    picture = PICTURE[:, :, :34]
    found = objective(picture).losses
    at = objective.network(picture, found.style_layers)
    target = objective.network(OTHER[:, :33], found.style_layers)
    for name, loss in found.style_layers.items():
        positions = at[name][0].numel()
        raw = losses.style_layer_loss(gram(at[name]), gram(target[name]), positions).item()
        assert loss == pytest.approx(raw, rel=1e-10)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_balanced_is_each_distance_relative_to_its_target(
    aim: Aim, tiny_weights: Weights, pooling: str
) -> None:
    found = aim(pooling=pooling, alpha=0.5, beta=2.0, tv=0.25)(PICTURE).losses
    at, content, style = (
        reference.network(picture.numpy(), tiny_weights, pooling)
        for picture in (PICTURE, CONTENT, STYLE)
    )
    for name, loss in found.content_layers.items():
        expected = 2 * reference.content_loss(at[name], content[name]) / (content[name] ** 2).sum()
        assert loss == pytest.approx(expected, rel=1e-9)
    for name, loss in found.style_layers.items():
        one, other = (
            reference.gram(features[name]) / features[name][0].size for features in (at, style)
        )
        expected = ((one - other) ** 2).sum() / (other**2).sum()
        assert loss == pytest.approx(expected, rel=1e-9)
    assert found.style == pytest.approx(sum(found.style_layers.values()) / 5, rel=1e-12)
    assert found.tv == pytest.approx(reference.total_variation(PICTURE.numpy()), rel=1e-12)
    assert found.total == pytest.approx(
        0.5 * found.content + 2 * found.style + 0.25 * found.tv, rel=1e-12
    )


@every_weighting
def test_at_the_target_every_loss_is_zero_and_nowhere_negative(aim: Aim, weighting: str) -> None:
    objective = aim(styles=(CONTENT,), weighting=weighting)
    assert numbers(objective.losses(CONTENT)) == [0.0] * 8
    assert objective(CONTENT).gradient.abs().max() == 0
    for seed in range(5):
        assert min(numbers(objective.losses(random_picture(seed=seed + 10)))) > 0


@pytest.mark.parametrize("name", STYLE_LOSSES)
@every_weighting
def test_every_style_loss_has_the_gradient_that_finite_differences_see(
    aim: Aim, weighting: str, name: str
) -> None:
    objective = aim(
        styles=(STYLE, OTHER), weighting=weighting, style_loss=(name,), content_loss="self-similarity"
    )
    found = objective(PICTURE)
    generator = torch.Generator().manual_seed(7)
    direction = torch.randn(PICTURE.shape, generator=generator, dtype=torch.float64)
    step = 1e-7
    ahead, behind = (objective.losses(PICTURE + s * direction).total for s in (step, -step))
    slope = (found.gradient * direction).sum().item()
    # Sorted lists and nearest neighbours have kinks, and a step may cross some.
    assert abs((ahead - behind) / (2 * step) - slope) < 1e-3 * found.gradient.norm().item()


@pytest.mark.parametrize("name", STYLE_LOSSES)
def test_every_style_loss_bears_flat_pictures(aim: Aim, tiny_weights: Weights, name: str) -> None:
    middle = replace(tiny_weights.preprocessing, mean=(127.5, 127.5, 127.5))
    none = {key: torch.zeros_like(bias) for key, bias in tiny_weights.biases.items()}
    flat = torch.full((3, 33, 37), 0.5, dtype=torch.float64)
    for weights in (tiny_weights, replace(tiny_weights, preprocessing=middle, biases=none)):
        objective = aim(content=flat, styles=(flat[:, :, :32],), weights=weights, style_loss=(name,))
        for picture in (flat, PICTURE):
            found = objective(picture)
            assert torch.tensor([found.losses.total, *numbers(found.losses)]).isfinite().all()
            assert found.gradient.isfinite().all()


def test_style_losses_are_weighed_and_added(aim: Aim) -> None:
    names = ("gram", "sliced", "bn")
    alone = [aim(style_loss=(name,)).losses(PICTURE).style for name in names]
    mixed = aim(style_loss=names, style_loss_weights=(2, 0.5, 0)).losses(PICTURE)
    assert mixed.style == pytest.approx(2 * alone[0] + 0.5 * alone[1], rel=1e-10)
    equal = aim(style_loss=names).losses(PICTURE)
    assert equal.style == pytest.approx(sum(alone) / 3, rel=1e-10)


def test_content_may_be_compared_by_self_similarity_or_not_at_all(aim: Aim) -> None:
    alike = aim(content_loss="self-similarity", content_layers=("conv4_2", "conv3_1"))
    found = alike.losses(PICTURE)
    assert list(found.content_layers) == ["block4_conv2", "block3_conv1"]
    assert found.content == pytest.approx(sum(found.content_layers.values()) / 2)
    assert alike.losses(CONTENT).content < 1e-9 < found.content
    without = aim(content_loss="none").losses(PICTURE)
    assert (without.content, without.content_layers) == (0, {})
    assert without.style == aim().losses(PICTURE).style
    with pytest.raises(InputError, match="nothing to compare with"):
        aim(content_loss="none", styles=())


@every_weighting
def test_several_content_layers_are_averaged(aim: Aim, weighting: str) -> None:
    layers = ("block2_conv1", "block3_conv3", "block5_conv2")
    together = aim(weighting=weighting, content_layers=layers).losses(PICTURE)
    alone = [aim(weighting=weighting, content_layers=(name,)).losses(PICTURE).content for name in layers]
    assert together.content == pytest.approx(sum(alone) / 3, rel=1e-10)
    assert list(together.content_layers) == list(layers)


@every_weighting
def test_layer_weights_weigh_the_layers(aim: Aim, weighting: str) -> None:
    given = {"block1_conv1": 2.0, "block3_conv1": 0.0, "block4_conv3": 0.125}
    found = aim(
        weighting=weighting, style_layers=tuple(given), layer_weights=tuple(given.values())
    ).losses(PICTURE)
    assert found.style == pytest.approx(
        sum(weight * found.style_layers[name] for name, weight in given.items()), rel=1e-10
    )
    single = aim(weighting=weighting, style_layers=("block4_conv3",)).losses(PICTURE)
    assert single.style == pytest.approx(found.style_layers["block4_conv3"], rel=1e-10)


@every_weighting
def test_styles_mix_their_gram_matrices_by_style_weights(aim: Aim, weighting: str) -> None:
    def style(*styles: Tensor, **fields: Any) -> float:
        return aim(styles=styles, weighting=weighting, **fields).losses(PICTURE).style

    assert style(STYLE, STYLE, style_weights=(5, 2)) == pytest.approx(style(STYLE), rel=1e-10)
    assert style(STYLE, OTHER, style_weights=(0, 2)) == pytest.approx(style(OTHER), rel=1e-6)
    assert style(STYLE, OTHER) == pytest.approx(style(STYLE, OTHER, style_weights=(7, 7)), rel=1e-10)
    assert style(STYLE, OTHER, style_weights=(3, 1)) == pytest.approx(
        style(OTHER, STYLE, style_weights=(1, 3)), rel=1e-6
    )
    assert style(STYLE, OTHER, style_weights=(3, 1)) != pytest.approx(style(STYLE, OTHER), rel=1e-3)


def test_as_many_style_weights_as_styles_are_needed(aim: Aim) -> None:
    with pytest.raises(InputError, match="3 weights for 2 style pictures"):
        aim(styles=(STYLE, OTHER), style_weights=(1, 1, 1))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_what_a_run_does_not_have_is_zero_and_has_no_layers(aim: Aim, weighting: str) -> None:
    texture = aim(content=None, weighting=weighting).losses(PICTURE)
    assert (texture.content, texture.content_layers, texture.total) == (0, {}, texture.style)
    unwanted = aim(alpha=0, weighting=weighting).losses(PICTURE)
    assert unwanted == texture
    rebuilt = aim(styles=(), alpha=0.5, weighting=weighting).losses(PICTURE)
    assert (rebuilt.style, rebuilt.style_layers, rebuilt.total) == (0, {}, 0.5 * rebuilt.content)
    assert aim(beta=0, alpha=0.5, weighting=weighting).losses(PICTURE) == rebuilt


def test_the_losses_alone_are_those_of_the_evaluation(aim: Aim) -> None:
    objective = aim(tv=0.1)
    before = PICTURE.clone()
    assert objective(PICTURE).losses == objective.losses(PICTURE)
    assert torch.equal(PICTURE, before)
    assert not PICTURE.requires_grad


# --- balanced numbers are free of scale ---------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "style_loss"),
    [*((pooling, "gram") for pooling in POOLINGS), *(("average", name) for name in STYLE_LOSSES)],
)
def test_balanced_numbers_do_not_change_when_features_are_scaled(
    aim: Aim, tiny_weights: Weights, pooling: str, style_loss: str
) -> None:
    kernels, biases, scale = {}, {}, 1.0
    for index, (name, kernel) in enumerate(tiny_weights.kernels.items()):
        factor = (0.2, 7.0, 1.3)[index % 3]
        scale *= factor  # of this layer's features: those before it and its own
        kernels[name], biases[name] = factor * kernel, scale * tiny_weights.biases[name]
    scaled = replace(tiny_weights, kernels=kernels, biases=biases)
    fields: dict[str, Any] = {"pooling": pooling, "tv": 0.1, "style_loss": (style_loss,)}
    plain = aim(**fields)(PICTURE)
    found = aim(weights=scaled, **fields)(PICTURE)
    assert numbers(found.losses) == pytest.approx(numbers(plain.losses), rel=1e-6)
    torch.testing.assert_close(found.gradient, plain.gradient, rtol=1e-5, atol=1e-9)
    if STYLE_LOSSES[style_loss].degree == 0:
        return  # blind to scale by themselves
    unlike = aim(weights=scaled, weighting="report", **fields).losses(PICTURE)
    assert unlike.style != pytest.approx(
        aim(weighting="report", **fields).losses(PICTURE).style, rel=0.1
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_balanced_numbers_do_not_change_when_pictures_are_repeated(aim: Aim, pooling: str) -> None:
    content, style, picture = (random_picture(32, 48, seed) for seed in (21, 22, 23))
    fields: dict[str, Any] = {"pooling": pooling, "padding": "circular"}
    once = aim(content=content, styles=(style,), **fields).losses(picture)
    large = aim(content=content.tile(1, 2, 3), styles=(style.tile(1, 2, 1),), **fields)
    assert numbers(large.losses(picture.tile(1, 2, 3))) == pytest.approx(numbers(once), rel=1e-9)


@every_weighting
@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shade", [0.0, 0.5, 1.0])
def test_flat_pictures_divide_by_nothing(
    aim: Aim, tiny_weights: Weights, weighting: str, precision: torch.dtype, shade: float
) -> None:
    # Without biases and with a mean of mid-grey, a flat grey picture leaves every layer silent.
    middle = replace(tiny_weights.preprocessing, mean=(127.5, 127.5, 127.5))
    none = {name: torch.zeros_like(bias) for name, bias in tiny_weights.biases.items()}
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    flat = torch.full((3, 33, 37), shade, dtype=dtype)
    for weights in (tiny_weights, replace(tiny_weights, preprocessing=middle, biases=none)):
        objective = aim(
            content=flat,
            styles=(flat[:, :, :32],),
            weights=weights,
            precision=precision,
            weighting=weighting,
        )
        for picture in (flat, PICTURE.to(dtype)):
            found = objective(picture)
            assert torch.tensor([found.losses.total, *numbers(found.losses)]).isfinite().all()
            assert found.gradient.isfinite().all()


def test_a_silent_target_is_floored_by_the_networks_answer_to_noise(
    aim: Aim, tiny_weights: Weights
) -> None:
    middle = replace(tiny_weights.preprocessing, mean=(127.5, 127.5, 127.5))
    none = {name: torch.zeros_like(bias) for name, bias in tiny_weights.biases.items()}
    silent = replace(tiny_weights, preprocessing=middle, biases=none)
    flat, noise = torch.full((3, 64, 64), 0.5).double(), random_picture(64, 64)
    objective = aim(content=flat, styles=(flat,), weights=silent)
    assert objective.losses(flat).content == 0
    loud = objective.losses(noise)
    # White noise has 1e4 times the floor's energy, and its Gram matrix 1e8 times.
    assert loud.content == pytest.approx(1e4, rel=0.3)
    assert loud.style == pytest.approx(1e8, rel=0.3)
    faint = objective.losses(flat + 1e-3 * (noise - 0.5))
    assert 0 < faint.content < 1
    assert 0 < faint.style < 1


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "padding", "weighting"), list(itertools.product(POOLINGS, PADDINGS, WEIGHTINGS))
)
def test_the_gradient_is_what_finite_differences_see(
    aim: Aim, pooling: str, padding: str, weighting: str
) -> None:
    objective = aim(
        styles=(STYLE, OTHER),
        pooling=pooling,
        padding=padding,
        weighting=weighting,
        alpha=0.7 if weighting == "balanced" else 1e-2,
        tv=0.3,
        content_layers=("conv4_2", "conv1_2"),
        layer_weights=(0.5, 0.1, 0.1, 0.2, 0.4),
    )
    found = objective(PICTURE)
    assert found.gradient.shape == PICTURE.shape
    generator = torch.Generator().manual_seed(7)
    step = 1e-6
    for _ in range(3):
        direction = torch.randn(PICTURE.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (objective.losses(PICTURE + s * direction).total for s in (step, -step))
        slope = (found.gradient * direction).sum().item()
        scale = found.gradient.norm().item()
        assert abs((ahead - behind) / (2 * step) - slope) < 1e-5 * scale


@every_weighting
def test_every_pixels_derivative_is_what_finite_differences_see(aim: Aim, weighting: str) -> None:
    content, style, picture = (random_picture(16, 16, seed) for seed in (31, 32, 33))
    objective = aim(
        content=content, styles=(style,), weighting=weighting, pooling="l2", alpha=0.5, tv=0.2
    )
    gradient = objective(picture).gradient
    step = 1e-6
    for place in itertools.product(range(3), (0, 7, 15), (0, 8, 15)):
        nudge = torch.zeros_like(picture)
        nudge[place] = step
        difference = objective.losses(picture + nudge).total - objective.losses(picture - nudge).total
        assert difference / (2 * step) == pytest.approx(
            gradient[place].item(), rel=1e-4, abs=1e-6 * gradient.abs().max().item()
        )


@every_weighting
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_lower_precision_gives_nearly_the_same_losses_and_gradient_in_float32(
    aim: Aim, weighting: str, pooling: str, precision: torch.dtype, tolerance: float
) -> None:
    fields: dict[str, Any] = {"weighting": weighting, "pooling": pooling}
    exact = aim(**fields)(PICTURE)
    found = aim(content=CONTENT.float(), styles=(STYLE.float(),), precision=precision, **fields)(
        PICTURE.float()
    )
    assert found.gradient.dtype == torch.float32
    assert numbers(found.losses) == pytest.approx(numbers(exact.losses), rel=tolerance)
    error = (found.gradient.double() - exact.gradient).norm() / exact.gradient.norm()
    assert error < (1e-3 if precision == torch.float32 else 0.35)


def test_the_same_picture_gives_the_same_bytes(aim: Aim) -> None:
    for precision in (torch.float32, torch.bfloat16):
        objective = aim(content=CONTENT.float(), styles=(STYLE.float(),), precision=precision)
        one, other = objective(PICTURE.float()), objective(PICTURE.float())
        assert one.losses == other.losses
        assert torch.equal(one.gradient, other.gradient)


def test_a_loss_is_added_by_a_function_and_a_row(aim: Aim, monkeypatch: pytest.MonkeyPatch) -> None:
    def loudest_loss(mean: Tensor, target: Tensor) -> Tensor:
        return (mean - target).square().max()

    row = losses.SummaryLoss(MEAN, losses.each(loudest_loss))
    monkeypatch.setitem(losses.STYLE_LOSSES, "loudest", row)
    monkeypatch.setitem(catalog.STYLE_LOSSES, "loudest", "the channel that differs most")
    objective = aim(style_loss=("loudest", "gram"))
    assert objective.losses(PICTURE).style > 0
    assert aim(styles=(CONTENT,), style_loss=("loudest",)).losses(CONTENT).style == 0


# --- regions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLE_LOSSES)
@pytest.mark.parametrize("spread", ["area", "inside", "all"])
def test_a_mask_of_ones_changes_nothing(tiny_weights: Weights, name: str, spread: str) -> None:
    recipe = Recipe(style_loss=(name,), mask_spread=spread)  # type: ignore[arg-type]
    network = VGG19(tiny_weights, precision=torch.float64)
    ones = Regions(torch.ones(1, 33, 37), torch.ones(1, 40, 32))
    plain, masked = (
        Objective(recipe, network, CONTENT, [STYLE], regions=regions)(PICTURE)
        for regions in (None, ones)
    )
    assert masked.losses.total == pytest.approx(plain.losses.total, rel=1e-12)
    torch.testing.assert_close(masked.gradient, plain.gradient, rtol=1e-9, atol=1e-15)


def halves(height: int, width: int, at: int) -> Tensor:
    """Return two regions: the columns up to one, and the others."""
    left = torch.zeros(1, height, width)
    left[:, :, :at] = 1
    return torch.cat([left, 1 - left])


def test_regions_are_gram_matrices_of_their_cells_weighed_by_their_area(tiny_weights: Weights) -> None:
    recipe = Recipe(style_layers=("conv1_1",), alpha=0)
    network = VGG19(tiny_weights, precision=torch.float64)
    at, one, other = (network(x, ["block1_conv1"])["block1_conv1"] for x in (PICTURE, STYLE, OTHER))
    found = Objective(recipe, network, None, [STYLE, OTHER], regions=Regions(halves(33, 37, 10)))
    expected = 0.0
    for share, part, style in ((10 / 37, at[:, :, :10], one), (27 / 37, at[:, :, 10:], other)):
        mine, theirs = (gram(x) / x[0].numel() for x in (part, style))
        expected += share * ((mine - theirs).square().sum() / theirs.square().sum()).item()
    assert found.losses(PICTURE).style == pytest.approx(expected, rel=1e-10)
    parted = Regions(halves(33, 37, 10), halves(40, 32, 20))
    found = Objective(recipe, network, None, [STYLE], regions=parted)
    expected = 0.0
    for share, part, style in (
        (10 / 37, at[:, :, :10], one[:, :, :20]),
        (27 / 37, at[:, :, 10:], one[:, :, 20:]),
    ):
        mine, theirs = (gram(x) / x[0].numel() for x in (part, style))
        expected += share * ((mine - theirs).square().sum() / theirs.square().sum()).item()
    assert found.losses(PICTURE).style == pytest.approx(expected, rel=1e-10)


def test_a_regions_style_pulls_only_where_it_is(tiny_weights: Weights) -> None:
    recipe = Recipe(style_layers=("conv1_1",), alpha=0, tv=0)
    network = VGG19(tiny_weights, precision=torch.float64)
    regions = Regions(halves(33, 37, 10))
    one = Objective(recipe, network, None, [STYLE, OTHER], regions=regions)(PICTURE).gradient
    two = Objective(recipe, network, None, [STYLE, CONTENT], regions=regions)(PICTURE).gradient
    torch.testing.assert_close(one[:, :, :9], two[:, :, :9])
    assert (one[:, :, 12:] - two[:, :, 12:]).abs().max() > 0


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("by_winograd", [False, True])
def test_a_gradient_keeps_what_is_looked_at_and_a_byte_for_every_other_feature(
    padding: str, by_winograd: bool
) -> None:
    recipe = Recipe(padding=padding)
    network = VGG19.of(recipe, imagined("meta"), torch.float32, "meta", by_winograd)
    wanted = looks(recipe, content=True, style=True)
    names = list(LAYERS)[: list(LAYERS).index(deepest(wanted.layers)) + 1]
    expected = 4 * 3 + sum(  # the picture itself
        LAYERS[name].channels * (4 if name in wanted.layers else 1) / stride(name) ** 2 for name in names
    )
    small, large = (
        needs(network, tiles.cut((side, side), wanted.layers)[0], wanted).kept for side in (256, 512)
    )
    assert (large - small) / (512**2 - 256**2) == pytest.approx(expected, rel=0.01)
