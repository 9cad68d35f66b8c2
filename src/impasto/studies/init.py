"""Init: where the descent starts.

Shows: The photograph in the manner of The Starry Night and of Femme nue assise from the photograph,
the painting, grey, and white noise with two seeds: default recipe but for the start, 100 iterations of
L-BFGS.

Command: impasto study init --pictures DIR --size 192

Takes: 1000 iterations, 200 of which losses shares; a fifth of them (--iterations-scale 0.2) 2 minutes
at 192 px on two cores with --workers 2.

Look for: What is left of the start. The two seeds show how much of a picture is chance; what differs
by less than they do is no difference.
"""

from collections.abc import Iterator

from impasto.recipe import Recipe
from impasto.studies.pictures import Pictures, along, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "recipes"]

PANELS = (("total", "evaluations"),)

_STARTS = {
    "the photograph": ("content", 0),
    "the painting": ("style", 0),
    "grey": ("gray", 0),
    "noise, seed 0": ("noise", 0),
    "noise, seed 1": ("noise", 1),
}


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield each start for two paintings."""
    iterations = scaled(100, scale)
    for name in ("starry-night", "femme-nue-assise"):
        for column, (init, seed) in _STARTS.items():
            recipe = Recipe(size=size, levels=(1,), iterations=iterations, init=init, seed=seed)
            styles = (pictures.styles[name],)
            yield Cell(pictures.title(name), column, recipe, pictures.content, styles, along(iterations))
