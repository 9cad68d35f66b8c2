"""Learn a style: the summaries of a painting at the sizes of a run, to be used without the painting."""

from dataclasses import replace

import torch
from torch import Tensor

from impasto import plan, schedule, styles, tiles, weights
from impasto.objective import Looks, summarise
from impasto.recipe import Recipe
from impasto.styles import Learned, Made, Style
from impasto.vgg import VGG19

__all__ = ["learn"]


@torch.no_grad()
def learn(recipe: Recipe, painting: Tensor, name: str = "the style") -> Style:
    """Return the summaries of a painting ``[3, H, W]`` for the layers, losses and levels of a recipe.

    Raises:
        InputError: the painting is too small, or there is too little memory.

    Example:
        >>> style = learn(Recipe(size=32, style_layers=("conv1_1",)), torch.rand(3, 20, 40))
        >>> list(style.sizes), style.at((16, 32)).summaries["moments", "block1_conv1"].shape
        ([(16, 32)], torch.Size([64, 65]))
    """
    size = painting.shape[1], painting.shape[2]
    # All levels, whatever a descent would do with them; nothing descends here.
    neutral = replace(recipe, init="gray", iterations=100, optimizer="adam", patience=0)
    made = plan.make(neutral, None, size)
    parameters = weights.load(recipe.weights, recipe.weights_sha256 or None)
    network = VGG19.of(recipe, parameters, made.precision, made.device, made.by_winograd)
    wanted = Looks(summaries=styles.wanted(recipe), seed=recipe.seed)
    learned = {}
    for level in made.levels:
        (at,) = schedule.styles_at(recipe, level.size, [size])
        picture = schedule.resize(painting.to(network.real), at).to(network.device)
        pieces = tiles.cut(at, wanted.layers, level.cut.tile, network.padding)
        found = summarise(network, picture, wanted, pieces)
        learned[at] = Learned(
            {(key.statistic, key.layer): summary.float().cpu() for key, summary in found.items()}
        )
    return Style(name, Made.by(recipe, parameters.sha256), learned)
