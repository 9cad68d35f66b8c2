"""One ruler for the pictures of every tool."""

import pytest
import torch
from torch import Tensor

from impasto import measures, transfer
from impasto.errors import InputError
from impasto.events import Finished
from impasto.quality import MEASURES
from impasto.recipe import Recipe
from impasto.tiles import Cut
from impasto.transfer import Pictures

pytestmark = pytest.mark.usefixtures("tiny_network", "one_thread")


def picture(width: int, height: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("preset", ["default", "report"])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_a_picture_has_no_distance_from_itself(preset: str, padding: str) -> None:
    itself = picture(40, 30)
    recipe = Recipe.from_preset(preset, padding=padding, tv=0)
    found = measures.losses(recipe, itself, itself, itself)
    assert found.total == found.content == found.style == 0
    other = measures.losses(recipe, picture(40, 30, seed=1), itself, itself)
    assert min(other.total, other.content, other.style) > 0


@pytest.mark.parametrize("preset", ["default", "report"])
def test_measuring_agrees_with_the_run_that_made_the_picture(preset: str) -> None:
    content, style = picture(50, 40), picture(36, 36, seed=1)
    recipe = Recipe.from_preset(preset, size=32, iterations=2, precision="float32", tv=0.1)
    pictures = Pictures(content, (style,))
    *_, finished = transfer.run(recipe, pictures, transfer.plan_for(recipe, pictures))
    assert isinstance(finished, Finished)
    assert measures.losses(recipe, finished.picture, content, style) == finished.evaluate(
        finished.picture
    )


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float64"])
def test_the_ruler_is_float32_whatever_the_recipe_computes_in(precision: str) -> None:
    recipe = Recipe(precision=precision)  # type: ignore[arg-type]
    pair = picture(40, 30, seed=1), picture(36, 36, seed=2)
    expected = measures.losses(Recipe(precision="float32"), picture(40, 30), *pair)
    assert measures.losses(recipe, picture(40, 30), *pair) == expected


@pytest.mark.parametrize("size", [(40, 30), (40, 31), (41, 30), (80, 61)])
def test_a_picture_of_another_tool_may_differ_by_a_rounded_pixel(size: tuple[int, int]) -> None:
    found = measures.losses(Recipe(), picture(*size), picture(123, 93, seed=1), picture(36, 36))
    assert found.total > 0


def test_measures_stand_beside_the_losses_and_pictures_are_brought_to_one_size() -> None:
    recipe, one = Recipe(style_weights=(2, 1)), picture(40, 30)
    pair = picture(123, 93, seed=1), picture(60, 30, seed=2), picture(36, 36, seed=3)
    found = measures.measure(recipe, one, *pair)
    assert found.losses == measures.losses(recipe, one, *pair)
    assert list(found.measures) == list(MEASURES)
    itself = measures.measure(Recipe(), one, one, one).measures
    assert (itself["content_error"], itself["style_gram"], itself["color"]) == (0, 0, 0)
    assert itself["ssim"] == pytest.approx(1)


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_measures_are_the_same_in_little_memory(padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(padding=padding)  # type: ignore[arg-type]
    pictures = picture(70, 50), picture(70, 50, seed=1), picture(60, 60, seed=2)
    whole = measures.measure(recipe, *pictures)
    monkeypatch.setattr(measures, "_cut", lambda *_: Cut((32, 32)))
    tiled = measures.measure(recipe, *pictures)
    assert tiled.measures == pytest.approx(whole.measures, rel=1e-5)
    assert tiled.losses.total == pytest.approx(whole.losses.total, rel=1e-5)


@pytest.mark.parametrize("size", [(40, 40), (30, 40), (40, 27), (44, 30)])
def test_a_picture_of_another_aspect_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"{size[0]}x{size[1]}.*40x30.*differ in aspect"):
        measures.losses(Recipe(), picture(*size), picture(40, 30), picture(36, 36))


def test_styles_may_have_any_aspect_and_are_mixed_by_their_weights() -> None:
    base, tall, wide = picture(40, 30), picture(20, 44, seed=1), picture(60, 30, seed=2)

    def style(*weights: float) -> float:
        return measures.losses(Recipe(style_weights=weights), base, None, tall, wide).style

    alone = measures.losses(Recipe(), base, None, tall).style
    assert style(1, 0) == pytest.approx(alone, rel=1e-9)
    assert style(2, 2) == style() != style(1, 0)


@pytest.mark.parametrize("size", [(15, 40), (40, 15)])
def test_a_picture_too_small_for_the_network_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="at least 16 px"):
        measures.losses(Recipe(), picture(*size), picture(*size))


@pytest.mark.parametrize(
    ("options", "given"), [({"alpha": 0}, "content"), ({"beta": 0}, "style"), ({}, "nothing")]
)
def test_nothing_to_compare_with_is_refused(options: dict[str, float], given: str) -> None:
    content = picture(40, 30) if given == "content" else None
    styles = (picture(40, 30),) if given == "style" else ()
    with pytest.raises(InputError, match="nothing to compare with"):
        measures.losses(Recipe(**options), picture(40, 30), content, *styles)  # type: ignore[arg-type]
