"""Figure 4: the style of all five paintings.

Shows: Style reconstruction as in figure 3, 500 iterations for each painting.

Command: impasto study figure-4 --pictures DIR --size 192

Takes: 2500 iterations.

Look for: Each painting is known by its texture alone. The one that is known least is Femme nue assise:
its style is in the planes of one figure, and planes are not what is left when places are summed over.
"""

from collections.abc import Iterator

from impasto.studies.pictures import STYLES, Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "recipes"]

PANELS = (("style, relative to the start", "iteration"),)


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield a texture of each painting."""
    iterations = scaled(500, scale)
    for name in STYLES:
        style, title = pictures.styles[name], pictures.title(name)
        yield Cell("", title, report(size, iterations), None, (style,), along(iterations))
