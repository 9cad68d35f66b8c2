"""Denoising: during the descent and after it.

Shows: The photograph in the manner of The Starry Night and of Femme nue assise without any denoising,
with total variation in the loss (--tv 0.1, the default, and 1), and with Chambolle's denoising of the
finished picture (--denoise 0.03 and 0.1): default recipe otherwise, 100 iterations of L-BFGS from the
photograph.

Command: impasto study denoising --pictures DIR --size 192

Takes: 1000 iterations, 200 of which losses shares; a fifth of them (--iterations-scale 0.2) 1 minute
at 192 px on two cores with --workers 2.

Look for: The noise that goes, and the strokes that go with it. noise_style is the energy of the finest
detail over the painting's own: 1 is as fine as the painting, above it is noise, far below it is blur.
"""

from collections.abc import Iterator

from impasto.recipe import Recipe
from impasto.studies.pictures import Pictures, along, scaled
from impasto.sweep import Cell

__all__ = ["VALUES", "recipes"]

VALUES = ("content_error", "style_wasserstein", "noise_style")

_WAYS = {
    "none": (0.0, 0.0),
    "tv 0.1": (0.1, 0.0),
    "tv 1": (1.0, 0.0),
    "denoise 0.03": (0.0, 0.03),
    "denoise 0.1": (0.0, 0.1),
}


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield each way of denoising for two paintings."""
    iterations = scaled(100, scale)
    for name in ("starry-night", "femme-nue-assise"):
        for column, (tv, denoise) in _WAYS.items():
            recipe = Recipe(size=size, levels=(1,), iterations=iterations, tv=tv, denoise=denoise)
            styles = (pictures.styles[name],)
            yield Cell(pictures.title(name), column, recipe, pictures.content, styles, along(iterations))
