"""Numbers for one finished picture: its losses under a recipe, and measures beside them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from impasto import devices, plan, quality, schedule, weights
from impasto.errors import InputError
from impasto.events import Losses
from impasto.objective import Objective
from impasto.recipe import Recipe
from impasto.styles import Learned, Style
from impasto.tiles import Cut
from impasto.vgg import VGG19
from impasto.weights import Weights

__all__ = ["Measured", "losses", "measure"]

_ASPECT_TOLERANCE = 0.02


class Measured(NamedTuple):
    """The losses of a picture under its recipe, and the measures of `quality.MEASURES` by name."""

    losses: Losses
    measures: dict[str, float]


def losses(recipe: Recipe, picture: Tensor, content: Tensor | None, *styles: Tensor | Style) -> Losses:
    """Return a picture's losses under a recipe: in float32, at the picture's own size.

    Content and styles ``[3, H, W]`` are brought to the picture's long side. The content may differ
    in aspect by rounding only, for a picture of any tool to be judged by the same ruler. Of a learned
    style the nearest size is taken.

    Raises:
        InputError: picture and content are not of one aspect, or too small, or a style was not learned
            for this recipe.
    """
    return _losses(recipe, _bring(recipe, picture, content, styles))


def measure(
    recipe: Recipe, picture: Tensor, content: Tensor | None, *styles: Tensor | Style
) -> Measured:
    """Return a picture's losses, as `losses`, and its measures at layers that the recipe does not name.

    Measures look at a style as a picture: where one was learned, there are none of style.

    Raises:
        InputError: as `losses`.

    Example:
        >>> import torch
        >>> picture = torch.rand(3, 24, 32)
        >>> found = measure(Recipe(), picture, picture)
        >>> found.losses.content, found.measures["content_error"], "color" in found.measures
        (0.0, 0.0, False)
    """
    brought = _bring(recipe, picture, content, styles)
    seen = [style for style in brought.styles if not isinstance(style, Learned)]
    seen = seen if len(seen) == len(styles) else []
    return Measured(
        _losses(recipe, brought),
        quality.measure_all(
            recipe, brought.weights, brought.picture, brought.content, seen, brought.cut
        ),
    )


class _Brought(NamedTuple):
    """Pictures of matching sizes on the device, the network's weights, and how to cut."""

    picture: Tensor
    content: Tensor | None
    styles: list[Tensor | Learned]
    weights: Weights
    cut: Cut


def _bring(
    recipe: Recipe, picture: Tensor, content: Tensor | None, styles: Sequence[Tensor | Style]
) -> _Brought:
    _, height, width = picture.shape
    smallest = schedule.smallest_side(recipe)
    schedule.check_sides(height, width, "the picture", smallest)
    recipe.layers_in_use(content is not None, bool(styles))  # refuses where nothing would be compared
    device = devices.choose_device(recipe.device)
    parameters = weights.load(recipe.weights, recipe.weights_sha256 or None)
    if content is not None:
        aspect = content.shape[2] / content.shape[1]
        near = abs(width / height / aspect - 1) <= _ASPECT_TOLERANCE
        rounded = (width - 1) / (height + 1) < aspect < (width + 1) / (height - 1)
        padded = recipe.tileable and schedule.on_grid(height, width) == (height, width)
        if not (near or rounded or padded):
            raise InputError(
                f"the picture ({width}x{height}) and the content "
                f"({content.shape[2]}x{content.shape[1]}) differ in aspect; "
                "measure a picture against the photograph it was made from"
            )
        content = schedule.resize(content, (height, width)).to(device)
    sizes = [x.size if isinstance(x, Style) else (x.shape[1], x.shape[2]) for x in styles]
    at = schedule.styles_at(recipe, (height, width), sizes)
    brought: list[Tensor | Learned] = []
    for style, size in zip(styles, at, strict=True):
        if isinstance(style, Style):
            style.check(recipe)
            style.check_network(parameters.sha256, lambda layer: len(parameters.biases[layer]))
            brought.append(style.at(size))
        else:
            schedule.check_sides(*size, "a style", smallest)
            brought.append(schedule.resize(style, size).to(device))
    cut = _cut(recipe, (height, width), content is not None, at)
    return _Brought(picture.to(device), content, brought, parameters, cut)


def _losses(recipe: Recipe, brought: _Brought) -> Losses:
    picture, content, styles, parameters, cut = brought
    network = VGG19.of(recipe, parameters, device=picture.device)
    return Objective(recipe, network, content, styles, cut).losses(picture)


def _cut(
    recipe: Recipe, size: tuple[int, int], has_content: bool, styles: Sequence[tuple[int, int]]
) -> Cut:
    """Return how to cut a picture so that it can be measured in the memory there is."""
    height, width = size
    sides = max(size) if has_content else f"{width}x{height}"
    once = replace(recipe, size=sides, levels=(1,), iterations=0, precision="float32")
    (level,) = plan.make(once, size if has_content else None, *styles).levels
    return level.cut
