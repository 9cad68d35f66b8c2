"""Figure 4: the style of all five paintings.

Shows: Style reconstruction as in figure 3, 500 iterations for each painting.

Command: impasto study figure-4 --pictures DIR --size 192

Takes: 2500 iterations, 9 minutes at 192 px on two cores with --workers 2.

Look for: Whether each painting is known by its texture alone. Femme nue assise is the hard case: what
is hers is in the planes of one figure, and sums over positions do not know places.
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
