"""Pooling: average, max and l2.

Shows: The photograph in the manner of The Starry Night and of Femme nue assise with each way of
pooling between the network's blocks: default recipe, 100 iterations of L-BFGS from the photograph. All
are measured alike: at held-out layers, under max pooling.

Command: impasto study pooling --pictures DIR --size 192

Takes: 600 iterations, 200 of which losses shares; a fifth of them (--iterations-scale 0.2) 1 minute at
192 px on two cores with --workers 2.

Look for: Flat areas, where average pooling leaves a faint lattice of dots (the measure checkerboard),
and edges, which the other two draw in another way.
"""

from collections.abc import Iterator

from impasto.recipe import Recipe
from impasto.studies.pictures import Pictures, along, scaled
from impasto.sweep import Cell

__all__ = ["VALUES", "recipes"]

VALUES = ("content_error", "style_wasserstein", "checkerboard")


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield each pooling for two paintings."""
    iterations = scaled(100, scale)
    for name in ("starry-night", "femme-nue-assise"):
        for pooling in ("average", "max", "l2"):
            recipe = Recipe(size=size, levels=(1,), iterations=iterations, pooling=pooling)
            styles = (pictures.styles[name],)
            yield Cell(
                pictures.title(name), pooling, recipe, pictures.content, styles, along(iterations)
            )
