"""Losses: every style loss at equal balance.

Shows: The photograph in the manner of The Starry Night and of Femme nue assise, the report's hard
case, by each style loss: default recipe, 100 iterations of L-BFGS from the photograph. Balanced
weighting makes each loss relative to its target, and a factor of its own makes 0.03 of content mean
the same for all.

Command: impasto study losses --pictures DIR --size 192

Takes: 2600 iterations; a fifth of them (--iterations-scale 0.2) 5 minutes at 192 px on two cores with
--workers 2.

Look for: What each loss takes for style. The measures are of layers and distances that most runs did
not descend; Gram's run is nearest to its own kind, so look at the pictures, and at several measures.
"""

from collections.abc import Iterator

from impasto.catalog import STYLE_LOSSES
from impasto.recipe import Recipe
from impasto.studies.pictures import Pictures, along, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "recipes"]

PANELS = (("style, relative to the start", "iteration"), ("content", "iteration"))


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield each style loss for two paintings."""
    iterations = scaled(100, scale)
    for name in ("starry-night", "femme-nue-assise"):
        for loss in STYLE_LOSSES:
            recipe = Recipe(size=size, levels=(1,), iterations=iterations, style_loss=(loss,))
            styles = (pictures.styles[name],)
            yield Cell(pictures.title(name), loss, recipe, pictures.content, styles, along(iterations))
